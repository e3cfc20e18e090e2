"""Settings for every test, and for the kernels that nbval starts."""

import os

# Notebooks are stored with static widgets; a fresh run must show them the same way.
os.environ["COURSE_WIDGETS"] = "static"
