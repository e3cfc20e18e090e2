"""Writing a file so that it is either the old one or the new one, never half of each."""

import os
import tempfile
from pathlib import Path

__all__ = ["check_folder", "write_atomically"]


def check_folder(name: str, folder: Path) -> None:
    """Require a folder that can be written to, or made; nothing is left behind.

    An hour of training must not end at a folder that was never there to take it.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(
            f"{name} must be a folder to write to, got {str(folder)!r} ({error.strerror}): "
            "choose another, on the command line with --out DIR"
        ) from error


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
