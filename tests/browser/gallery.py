"""One small example of each widget: the code of a notebook cell that shows it.

The browser tests put all of them into one notebook. Each cell names its widget like its key here.
"""

SETUP = """
import numpy as np
from course_lib import widgets
points = np.random.default_rng(0).normal(size=(400, 2))
"""

PLAYERS = {
    "particles": """
path = np.stack([points * np.array([1 - 0.2 * k, 1 + 0.2 * k]) for k in range(5)])
lines = np.stack(np.meshgrid(np.linspace(-3, 3, 9), np.linspace(-3, 3, 9)), -1)
mesh = np.stack([lines * np.array([1 - 0.2 * k, 1 + 0.2 * k]) for k in range(5)])
particles = widgets.ParticlePlayer(
    path, grid=mesh, color=points[:, 0], color_label="height", color_map="signed",
    labels=[f"squeeze {k}" for k in range(5)], title="Squeezed points",
)
particles
""",
    "images": """
noise, digits = np.random.default_rng(1).random((2, 6, 8, 8))
share = np.linspace(0, 1, 5).reshape(5, 1, 1, 1)
images = widgets.ImagePlayer(
    (1 - share) * noise + share * digits, captions=list("abcdef"), columns=3,
    labels=[f"squeeze {k}" for k in range(5)], title="Noise to images",
)
images
""",
}

OTHERS: dict[str, str] = {
    "warp": """
warp = widgets.DensityWarp(title="Change of variables")
warp
""",
    "inpaint": """
import time
calls, delay, fault = [], 0.0, ""
def fill(image, known):
    calls.append(known)
    time.sleep(delay)
    if fault:
        raise RuntimeError(fault)
    share = np.linspace(0, 1, 5).reshape(5, 1, 1)
    return np.where(known, image, share * (0.2 + 0.8 * image[known].mean()))
inpaint = widgets.Inpaint(
    np.random.default_rng(2).random((4, 8, 8)), fill, title="Scratch an image"
)
inpaint
""",
    "masks": """
degrees = [
    [[0, 1, 2, 3, 4], [0, 1, 1, 2, 3, 3], [0, 1, 2, 2, 3, 3, 0]],
    [[4, 2, 0, 3, 1], [3, 1, 1, 2, 0, 3], [2, 1, 3, 1, 1, 3, 2]],
]
masks = widgets.MaskExplorer(degrees, title="Masks of MADE")
masks
""",
}

GALLERY = PLAYERS | OTHERS
