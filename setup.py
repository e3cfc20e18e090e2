"""What pyproject.toml can't say: an editable install puts the data files into place, too.

setuptools copies them where the distribution answers to ``has_data``, and then forgets to give it
that answer. Everything else is in pyproject.toml.
"""

from setuptools import Distribution, setup


class WithDataFiles(Distribution):
    """A distribution that says that it has data files."""

    def has_data(self) -> bool:
        """Asked by ``pip install -e``."""
        return self.has_data_files()


setup(distclass=WithDataFiles)
