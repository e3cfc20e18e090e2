"""MNIST: read from a folder or downloaded once, and in both cases checked before use."""

import contextlib
import gzip
import hashlib
import math
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.checks import check_one_of

__all__ = ["MIRRORS", "load_mnist"]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""Where the original files are kept, in the order in which they are tried."""

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

_SHA256 = {  # of the decompressed files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

_TIMEOUT = 30.0  # seconds without an answer


def load_mnist(split: str, *, mirrors: Sequence[str] = MIRRORS) -> tuple[Tensor, Tensor]:
    """Load the 28×28 handwritten digits of MNIST, 256 grey levels.

    The environment variable ``COURSE_DATA`` may name a folder that holds the four original files,
    gzipped or plain. Without it they are downloaded once, with a progress bar, into
    ``~/.cache/course_lib/mnist`` (below ``XDG_CACHE_HOME`` where that is set). The SHA-256 of the
    decompressed bytes is checked at every load. A damaged file in the cache is replaced; a damaged
    file in your own folder is reported and left alone.

    Reference:
        LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE 86(11).

    Args:
        split: ``"train"`` (60,000 images) or ``"test"`` (10,000 images).
        mirrors: Addresses to download from, tried in order.

    Returns:
        Images, float32 ``[N, 1, 28, 28]`` with the values k / 255 (1 is ink), and labels, int64
        ``[N]`` from 0 to 9.

    Raises:
        ValueError: When a file is not the original one.
        FileNotFoundError: When ``COURSE_DATA`` is set, but a file is missing there.
        ConnectionError: When no mirror can be reached, or all break off.
        OSError: When the download can't be kept in the cache.

    """
    check_one_of("split", split, _FILES)
    _check_mirrors(mirrors)
    images, labels = (_load(name, mirrors) for name in _FILES[split])
    images = torch.from_numpy(images.astype(np.float32))[:, None] / 255
    return images, torch.from_numpy(labels.astype(np.int64))


def _check_mirrors(mirrors: Sequence[str]) -> None:
    listed = isinstance(mirrors, list | tuple) and len(mirrors) > 0
    if not listed or not all(str(url).startswith(("http://", "https://")) for url in mirrors):
        raise ValueError(f"mirrors must be a list of one or more http addresses, got {mirrors!r}")


def _load(name: str, mirrors: Sequence[str]) -> np.ndarray:
    """The checked content of one of the four files, from the first place that has it."""
    if os.environ.get("COURSE_DATA"):
        folder = _folder_in("COURSE_DATA")
        for path in (Path(folder, name), Path(folder, f"{name}.gz")):
            if path.is_file():
                return _unpack(path.read_bytes(), name, source=str(path))
        raise FileNotFoundError(f"COURSE_DATA must hold {name} or {name}.gz, got {folder}")
    cached = _cache_folder() / f"{name}.gz"
    if cached.is_file():
        try:
            return _unpack(cached.read_bytes(), name, source=str(cached))
        except ValueError:
            pass  # damaged after it was stored: get it once more
    with _said_of_the_cache(cached.parent):
        cached.unlink(missing_ok=True)
        cached.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cached.parent).close()  # can it be written, before a download?
    content, array = _download(name, mirrors)
    with _said_of_the_cache(cached.parent):
        _store(cached, content)
    return array


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    caches = _folder_in("XDG_CACHE_HOME") if given else Path.home() / ".cache"
    return Path(caches, "course_lib", "mnist")


def _folder_in(variable: str) -> Path:
    """The folder that an environment variable names; a ``~`` in it is the home directory."""
    try:
        return Path(os.environ[variable]).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{variable} must name a folder, got {os.environ[variable]}") from error


@contextlib.contextmanager
def _said_of_the_cache(folder: Path) -> Iterator[None]:
    """What goes wrong while the cache is written is told with the ways out."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"MNIST can't be kept in the cache {folder}: {error.strerror}. Name a folder that can "
            "be written in XDG_CACHE_HOME, or one with the four MNIST files in COURSE_DATA",
        ) from error


# --- One file: unpack and check ----------------------------------------------------------------


def _unpack(content: bytes, name: str, *, source: str) -> np.ndarray:
    """Decompress, parse and check; ``source`` says in an error message where it came from."""
    if content.startswith(b"\x1f\x8b"):  # the mark of gzip; a plain IDX file starts with zeros
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{source} is damaged: {error}") from error
    array = _parse_idx(content, rank=3 if "idx3" in name else 1, source=source)
    digest = hashlib.sha256(content).hexdigest()
    if digest != _SHA256[name]:
        raise ValueError(
            f"{source} is not the original {name}: "
            f"its SHA-256 must be {_SHA256[name]}, got {digest}"
        )
    return array


def _parse_idx(content: bytes, *, rank: int, source: str) -> np.ndarray:
    """Read IDX: two zero bytes, 8 for "unsigned bytes", the rank, big-endian sizes, the data."""
    start = 4 + 4 * rank
    magic = bytes([0, 0, 8, rank])
    if len(content) < start or content[:4] != magic:
        raise ValueError(
            f"{source} must start with the bytes {magic.hex(' ')} and {rank} sizes, "
            f"got {content[:start].hex(' ')!r}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=rank, offset=4))
    if shape[1:] not in ((), (28, 28)):
        raise ValueError(f"{source} must hold images of 28 × 28 pixels, got sizes {shape}")
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{source} must hold {math.prod(shape)} bytes after the header, "
            f"got {len(content) - start}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# --- Download ----------------------------------------------------------------------------------


def _download(name: str, mirrors: Sequence[str]) -> tuple[bytes, np.ndarray]:
    """The file as the first good mirror sends it, and what it holds."""
    problems = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}.gz"
        try:
            content = _fetch(url, title=name)
            return content, _unpack(content, name, source=url)
        except ValueError as problem:
            problems.append(problem)
        except (OSError, HTTPException) as problem:
            problems.append(ConnectionError(f"{url}: {problem}"))
    kind = ValueError if any(isinstance(p, ValueError) for p in problems) else ConnectionError
    raise kind(
        f"{name}.gz could not be downloaded:\n"
        + "".join(f"  {problem}\n" for problem in problems)
        + "Without a network, name a folder with the four MNIST files in COURSE_DATA."
    )


def _fetch(url: str, *, title: str) -> bytes:
    content = bytearray()  # at most 10 MB: kept in memory, so that no half file ever lies on disk
    with urlopen(url, timeout=_TIMEOUT) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        with tqdm(total=total, desc=title, unit="B", unit_scale=True) as bar:
            while chunk := response.read(2**16):
                content += chunk
                bar.update(len(chunk))
    if total is not None and len(content) != total:
        raise ConnectionError(f"broke off after {len(content)} of {total} bytes")
    return bytes(content)


def _store(path: Path, content: bytes) -> None:
    """Write the whole file or nothing: under another name first, then renamed in one step."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
