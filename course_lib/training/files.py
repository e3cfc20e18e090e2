"""Writing a file so that it is either the old one or the new one, never half of each."""

import os
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, payload: bytes) -> None:
    """Write ``payload`` to ``path``, whole or not at all, even if the process is killed meanwhile.

    The bytes go to ``path`` + ".tmp" and reach the disk; only then does the file take its name. A
    leftover ".tmp" of a killed process is overwritten by the next call.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
