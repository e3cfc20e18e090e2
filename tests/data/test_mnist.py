"""MNIST: whatever a disk or a network can do wrong, no bad file is used and none is left behind.

Small stand-ins for the four files are served by a local HTTP server. The real files are tested
where they exist: in the folder named by COURSE_DATA or in ``../shared/data/mnist``.
"""

import errno
import gzip
import hashlib
import os
import re
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib.data import load_mnist, mnist

ROOT = Path(__file__).resolve().parents[2]
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def refuses(kind, message):
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


def idx(array):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


COUNTS = {"train": 120, "test": 3}  # noise, so that the training images take more than one read
PIXELS = np.random.default_rng(0).integers(0, 256, (120, 28, 28), dtype=np.uint8)


def stand_in(name):
    """A small file in the format of MNIST."""
    count = COUNTS["train" if name.startswith("train") else "test"]
    if "images" in name:
        return idx(PIXELS[:count])
    return idx((np.arange(count) * 3 % 10).astype(np.uint8))


@pytest.fixture(autouse=True)
def small_mnist(request, monkeypatch, tmp_path):
    """An empty cache, no COURSE_DATA, no proxy, and the checksums of the stand-ins."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    mnist.tqdm.set_lock(threading.RLock())  # tqdm's own is shared with every forked process
    if "real" not in request.fixturenames:
        monkeypatch.delenv("COURSE_DATA", raising=False)
        checksums = {n: hashlib.sha256(stand_in(n)).hexdigest() for n in mnist._SHA256}
        monkeypatch.setattr(mnist, "_SHA256", checksums)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "course_lib" / "mnist"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class Server:
    """Serves the stand-ins; ``behaviour`` says what goes wrong and ``requests`` counts."""

    def __init__(self):
        server = self
        self.behaviour = "good"
        self.requests = Counter()
        self.release = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests[self.path] += 1
                name = self.path.rsplit("/", 1)[-1].removesuffix(".gz")
                server.answer(self, name)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/mnist/"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler, name):
        body = gzip.compress(stand_in(name), mtime=0)
        if self.behaviour == "missing":
            handler.send_error(404)
            return
        if self.behaviour == "wrong":
            body = gzip.compress(stand_in(name)[:-1] + b"\xff", mtime=0)
        if self.behaviour == "not mnist":
            body = b"<html>Log in to the network first.</html>"
        if self.behaviour == "half gzip":
            body = body[: len(body) // 2]
        if self.behaviour == "plain":
            body = stand_in(name)
        handler.send_response(200)
        if self.behaviour == "dies in a chunk":
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"ffff\r\n" + body[:10])
            return
        if self.behaviour != "no length":
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if self.behaviour == "dies":
            body = body[: len(body) // 2]
        if self.behaviour == "hangs":
            handler.wfile.write(body[:10])
            self.release.wait(10)
            return
        handler.wfile.write(body)

    def close(self):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def check_stand_in(split, images, labels):
    count = COUNTS[split]
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == torch.float32
    assert torch.equal(images[:, 0], torch.tensor(PIXELS[:count]).float() / 255)
    assert torch.equal(labels, torch.arange(count) * 3 % 10)
    assert labels.dtype == torch.int64


# --- Download ----------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["good", "no length", "plain"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_download_once(server, cache, capsys, split, behaviour):
    server.behaviour = behaviour
    check_stand_in(split, *load_mnist(split, mirrors=[server.url]))
    names = mnist._FILES[split]
    assert names_in(cache) == sorted(f"{name}.gz" for name in names)
    assert server.requests == {f"/mnist/{name}.gz": 1 for name in names}
    bars = capsys.readouterr().err
    assert all(name in bars for name in names)
    if behaviour == "good":
        assert bars.count("100%") == 2
        assert "B/s" in bars

    server.behaviour = "missing"
    check_stand_in(split, *load_mnist(split, mirrors=[server.url]))
    assert server.requests.total() == 2
    assert capsys.readouterr().err == ""


def test_progress_is_counted_in_bytes(server, monkeypatch):
    seen = []

    class Bar:
        def __init__(self, **options):
            seen.append({"options": options, "bytes": 0, "updates": 0})

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            seen[-1]["bytes"] += count
            seen[-1]["updates"] += 1

    monkeypatch.setattr(mnist, "tqdm", Bar)
    load_mnist("train", mirrors=[server.url])
    for name, bar in zip((TRAIN_IMAGES, TRAIN_LABELS), seen, strict=True):
        size = len(gzip.compress(stand_in(name), mtime=0))
        assert bar["bytes"] == size
        assert bar["options"] == {"total": size, "desc": name, "unit": "B", "unit_scale": True}
    assert seen[0]["updates"] > 1


def test_a_mirror_may_be_given_without_its_last_slash(server):
    load_mnist("test", mirrors=(server.url.rstrip("/"),))
    assert set(server.requests) == {f"/mnist/{TEST_IMAGES}.gz", f"/mnist/{TEST_LABELS}.gz"}


HELP = "Without a network, name a folder with the four MNIST files in COURSE_DATA."


@pytest.mark.parametrize(
    ("behaviour", "kind", "reason"),
    [
        ("missing", ConnectionError, r"{url}: HTTP Error 404: Not Found"),
        ("dies", ConnectionError, r"{url}: broke off after {half} of {whole} bytes"),
        ("dies in a chunk", ConnectionError, r"{url}: IncompleteRead\(.*\)"),
        ("half gzip", ValueError, r"{url} is damaged: Compressed file ended before .*"),
        (
            "not mnist",
            ValueError,
            r"{url} must start with the bytes 00 00 08 03 and 3 sizes, got '3c 68 74 6d .*'",
        ),
        (
            "wrong",
            ValueError,
            r"{url} is not the original t10k-images-idx3-ubyte: "
            r"its SHA-256 must be {digest}, got [0-9a-f]{{64}}",
        ),
    ],
)
def test_a_bad_download_is_refused_and_leaves_nothing(server, cache, behaviour, kind, reason):
    server.behaviour = behaviour
    whole = len(gzip.compress(stand_in(TEST_IMAGES), mtime=0))
    reason = reason.format(
        url=re.escape(f"{server.url}{TEST_IMAGES}.gz"),
        half=whole // 2,
        whole=whole,
        digest=mnist._SHA256[TEST_IMAGES],
    )
    message = f"^{TEST_IMAGES}.gz could not be downloaded:\n  {reason}\n{re.escape(HELP)}$"
    with pytest.raises(kind, match=message):
        load_mnist("test", mirrors=[server.url])
    assert names_in(cache) == []

    server.behaviour = "good"
    check_stand_in("test", *load_mnist("test", mirrors=[server.url]))


def test_a_silent_server_is_given_up(server, cache, monkeypatch):
    assert mnist._TIMEOUT == 30
    monkeypatch.setattr(mnist, "_TIMEOUT", 0.3)
    server.behaviour = "hangs"
    with pytest.raises(ConnectionError, match=r"t10k-images-idx3-ubyte\.gz: .*timed out"):
        load_mnist("test", mirrors=[server.url])
    assert names_in(cache) == []


def test_no_network_at_all(cache):
    nowhere = "http://127.0.0.1:9/"
    with pytest.raises(ConnectionError) as caught:
        load_mnist("train", mirrors=[nowhere, nowhere])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{TRAIN_IMAGES}.gz could not be downloaded:"
    assert lines[1] == lines[2]
    assert lines[1].startswith(f"  http://127.0.0.1:9/{TRAIN_IMAGES}.gz: ")
    assert lines[3:] == [HELP]
    assert names_in(cache) == []


def test_the_next_mirror_helps(cache):
    bad, good, spare = Server(), Server(), Server()
    for behaviour in ("missing", "dies", "wrong", "not mnist"):
        bad.behaviour = behaviour
        for path in cache.glob("*"):
            path.unlink()
        mirrors = ["http://127.0.0.1:9/", bad.url, good.url, spare.url]
        check_stand_in("test", *load_mnist("test", mirrors=mirrors))
    assert bad.requests.total() == good.requests.total() == 8
    assert spare.requests.total() == 0
    for server in (bad, good, spare):
        server.close()


def test_bad_bytes_are_reported_even_when_another_mirror_is_down(server):
    server.behaviour = "wrong"
    for mirrors in ([server.url, "http://127.0.0.1:9/"], ["http://127.0.0.1:9/", server.url]):
        with pytest.raises(ValueError, match=r"could not be downloaded:\n.*\n.*\n"):
            load_mnist("test", mirrors=mirrors)


@pytest.mark.parametrize("where", ["reading", "writing", "renaming"])
def test_an_interrupt_leaves_nothing(server, cache, monkeypatch, where):
    def interrupt(*_):
        raise KeyboardInterrupt

    class Bar(mnist.tqdm):
        update = interrupt

    if where == "reading":
        monkeypatch.setattr(mnist, "tqdm", Bar)
    elif where == "writing":
        monkeypatch.setattr(mnist.os, "fdopen", interrupt)
    else:
        monkeypatch.setattr(mnist.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_mnist("test", mirrors=[server.url])
    assert names_in(cache) == []


def test_the_file_appears_in_one_step(server, cache, monkeypatch):
    steps = []
    replace = os.replace

    def watched(source, target):
        assert Path(source).parent == Path(target).parent == cache
        assert Path(source).name.startswith(Path(target).name)
        assert Path(source).name.endswith(".part")
        assert not Path(target).exists()
        steps.append(Path(target).name)
        mnist._unpack(Path(source).read_bytes(), Path(target).stem, source="the part file")
        replace(source, target)

    monkeypatch.setattr(mnist.os, "replace", watched)
    load_mnist("test", mirrors=[server.url])
    assert steps == [f"{TEST_IMAGES}.gz", f"{TEST_LABELS}.gz"]


# --- Cache -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["COURSE_DATA", "XDG_CACHE_HOME"])
def test_a_tilde_is_the_home_directory(server, monkeypatch, tmp_path, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/my data")
    folder = tmp_path / "my data"
    if variable == "COURSE_DATA":
        folder.mkdir()
        for name in mnist._FILES["test"]:
            (folder / name).write_bytes(stand_in(name))
    check_stand_in("test", *load_mnist("test", mirrors=[server.url]))
    if variable == "XDG_CACHE_HOME":
        assert len(names_in(folder / "course_lib" / "mnist")) == 2
    assert not Path("~").exists()
    assert server.requests.total() == (0 if variable == "COURSE_DATA" else 2)


@pytest.mark.parametrize("variable", ["COURSE_DATA", "XDG_CACHE_HOME"])
def test_the_home_of_nobody_is_named(monkeypatch, variable):
    monkeypatch.setenv(variable, "~nobody-of-this-name/mnist")
    with refuses(ValueError, f"{variable} must name a folder, got ~nobody-of-this-name/mnist"):
        load_mnist("test", mirrors=["http://127.0.0.1:9/"])


def refused(*_, **__):
    raise PermissionError(errno.EACCES, "Permission denied")


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("module", "function", "problem", "requests"),
    [
        ("pathlib.Path", "mkdir", refused, 0),
        ("tempfile", "TemporaryFile", refused, 0),
        ("tempfile", "mkstemp", refused, 1),
        ("os", "replace", full, 1),
    ],
)
def test_a_cache_that_cannot_be_written_is_told_with_the_ways_out(
    server, cache, monkeypatch, module, function, problem, requests
):
    """Before the download where it can be known; and nothing is left behind."""
    monkeypatch.setattr(f"{module}.{function}", problem)
    with pytest.raises(OSError, match="can't be kept in the cache") as caught:
        load_mnist("test", mirrors=[server.url])
    assert isinstance(caught.value, PermissionError if problem is refused else OSError)
    reason = "Permission denied" if problem is refused else "No space left on device"
    assert caught.value.strerror == (
        f"MNIST can't be kept in the cache {cache}: {reason}. Name a folder that can be written in "
        "XDG_CACHE_HOME, or one with the four MNIST files in COURSE_DATA"
    )
    assert server.requests.total() == requests
    monkeypatch.undo()
    assert names_in(cache) == []


def test_a_file_in_the_place_of_the_cache_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        OSError, match=r"MNIST can't be kept in the cache .*file/course_lib/mnist: "
    ):
        load_mnist("test", mirrors=["http://127.0.0.1:9/"])


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c + b"x"])
def test_a_damaged_file_in_the_cache_is_replaced(server, cache, damage):
    load_mnist("test", mirrors=[server.url])
    path = cache / f"{TEST_IMAGES}.gz"
    good = path.read_bytes()
    path.write_bytes(damage(good))
    check_stand_in("test", *load_mnist("test", mirrors=[server.url]))
    assert path.read_bytes() == good
    assert server.requests == {f"/mnist/{TEST_IMAGES}.gz": 2, f"/mnist/{TEST_LABELS}.gz": 1}


def test_a_damaged_file_in_the_cache_is_removed_even_without_a_network(server, cache):
    load_mnist("test", mirrors=[server.url])
    (cache / f"{TEST_IMAGES}.gz").write_bytes(b"half")
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        load_mnist("test", mirrors=["http://127.0.0.1:9/"])
    assert names_in(cache) == [f"{TEST_LABELS}.gz"]


def test_place_of_the_cache(monkeypatch, tmp_path):
    assert mnist._cache_folder() == tmp_path / "cache" / "course_lib" / "mnist"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mnist._cache_folder() == tmp_path / ".cache" / "course_lib" / "mnist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert mnist._cache_folder() == tmp_path / ".cache" / "course_lib" / "mnist"


# --- COURSE_DATA -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder named by COURSE_DATA: the training files gzipped, the test files plain."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in (TRAIN_IMAGES, TRAIN_LABELS):
        (folder / f"{name}.gz").write_bytes(gzip.compress(stand_in(name), mtime=0))
    for name in (TEST_IMAGES, TEST_LABELS):
        (folder / name).write_bytes(stand_in(name))
    monkeypatch.setenv("COURSE_DATA", str(folder))
    return folder


def test_own_folder_gzipped_or_plain(folder, cache):
    for split in ("train", "test"):
        check_stand_in(split, *load_mnist(split))
    assert names_in(cache) == []


def test_an_empty_course_data_counts_as_none(server, cache, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", "")
    load_mnist("test", mirrors=[server.url])
    assert len(names_in(cache)) == 2


@pytest.mark.parametrize("missing", [TRAIN_IMAGES, TRAIN_LABELS])
def test_a_missing_file_is_named_and_nothing_is_downloaded(folder, server, missing):
    (folder / f"{missing}.gz").unlink()
    message = f"COURSE_DATA must hold {missing} or {missing}.gz, got {folder}"
    with refuses(FileNotFoundError, message):
        load_mnist("train", mirrors=[server.url])
    assert server.requests.total() == 0


def test_a_missing_folder_is_named(monkeypatch):
    monkeypatch.setenv("COURSE_DATA", "nowhere")
    message = f"COURSE_DATA must hold {TEST_IMAGES} or {TEST_IMAGES}.gz, got nowhere"
    with refuses(FileNotFoundError, message):
        load_mnist("test")


def test_own_files_are_reported_and_left_alone(folder, server):
    path = folder / f"{TRAIN_IMAGES}.gz"
    half = path.read_bytes()[:-20]
    path.write_bytes(half)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged: .+"):
        load_mnist("train", mirrors=[server.url])
    assert path.read_bytes() == half
    assert server.requests.total() == 0


def gzip_with_bad_data():
    content = bytearray(gzip.compress(stand_in(TEST_IMAGES), mtime=0))
    content[20:40] = bytes(255 - byte for byte in content[20:40])
    return bytes(content)


GOOD = stand_in(TEST_IMAGES)
LABELS_DIGEST, WRONG_DIGEST = (
    hashlib.sha256(content).hexdigest()
    for content in (stand_in(TEST_LABELS), idx(np.zeros(3, "u1")))
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip_with_bad_data(), " is damaged: .+"),
        (gzip.compress(GOOD, mtime=0) + b"more", " is damaged: Not a gzipped file .+"),
        (b"", " must start with the bytes 00 00 08 03 and 3 sizes, got ''"),
        (
            GOOD[:15],
            " must start with the bytes 00 00 08 03 and 3 sizes, got '00 00 .* 1c 00 00 00'",
        ),
        (
            b"\x01" + GOOD[1:],
            " must start with the bytes 00 00 08 03 and 3 sizes, got '01 00 .* 1c'",
        ),
        (stand_in(TEST_LABELS), " must start with the bytes 00 00 08 03 and 3 sizes, got '00 .*'"),
        (
            idx(np.zeros((3, 28, 27), "u1")),
            r" must hold images of 28 × 28 pixels, got sizes \(3, 28, 27\)",
        ),
        (
            idx(np.zeros((3, 8, 28), "u1")),
            r" must hold images of 28 × 28 pixels, got sizes \(3, 8, 28\)",
        ),
        (GOOD[:16], " must hold 2352 bytes after the header, got 0"),
        (GOOD[:-1], " must hold 2352 bytes after the header, got 2351"),
        (GOOD + b"\0", " must hold 2352 bytes after the header, got 2353"),
        (
            idx(np.zeros((3, 28, 28), "u1")),
            f" is not the original {TEST_IMAGES}: its SHA-256 must be .*",
        ),
    ],
)
def test_bad_images_are_named(folder, content, reason):
    path = folder / TEST_IMAGES
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}{reason}$"):
        load_mnist("test")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD, " must start with the bytes 00 00 08 01 and 1 sizes, got '00 00 08 03 00 00 00 03'"),
        (stand_in(TEST_LABELS)[:-1], " must hold 3 bytes after the header, got 2"),
        (
            idx(np.zeros(3, "u1")),
            f" is not the original {TEST_LABELS}: "
            f"its SHA-256 must be {LABELS_DIGEST}, got {WRONG_DIGEST}",
        ),
    ],
)
def test_bad_labels_are_named(folder, content, reason):
    path = folder / TEST_LABELS
    path.write_bytes(content)
    with refuses(ValueError, f"{path}{reason}"):
        load_mnist("test")


def test_the_cause_of_damage_is_kept(folder):
    (folder / TEST_IMAGES).write_bytes(gzip.compress(GOOD, mtime=0)[:-3])
    with pytest.raises(ValueError, match="is damaged") as caught:
        load_mnist("test")
    assert isinstance(caught.value.__cause__, EOFError)


# --- Arguments and constants -------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "", None, 3])
def test_unknown_split(split):
    with refuses(ValueError, f"split must be one of test, train, got {split!r}"):
        load_mnist(split)


@pytest.mark.parametrize(
    "mirrors",
    [[], (), "http://127.0.0.1/", None, ["ftp://127.0.0.1/"], ["http://127.0.0.1/", 3], ["/tmp"]],
)
def test_bad_mirrors(mirrors):
    message = f"mirrors must be a list of one or more http addresses, got {mirrors!r}"
    with refuses(ValueError, message):
        load_mnist("test", mirrors=mirrors)


def test_the_mirrors_are_official_and_the_default(monkeypatch):
    assert mnist.MIRRORS == (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    asked = []

    def no_network(url, timeout):
        asked.append((url, timeout))
        raise OSError("no network")

    monkeypatch.setattr(mnist, "urlopen", no_network)
    with pytest.raises(ConnectionError, match="no network"):
        load_mnist("train")
    assert asked == [(f"{mirror}{TRAIN_IMAGES}.gz", 30) for mirror in mnist.MIRRORS]


def test_the_readme_names_the_same_checksums(request):
    table = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"`([\w-]+-ubyte)` \| `([0-9a-f]{64})`", table))
    request.getfixturevalue("monkeypatch").undo()
    assert found == mnist._SHA256


# --- The real files ----------------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch):
    folder = Path(os.environ.get("COURSE_DATA") or ROOT.parent / "shared" / "data" / "mnist")
    if not folder.is_dir():
        pytest.skip("needs the MNIST files: name their folder in COURSE_DATA")
    monkeypatch.setenv("COURSE_DATA", str(folder))


@pytest.mark.parametrize(
    ("split", "count", "first", "mean"),
    [("train", 60_000, [5, 0, 4, 1, 9], 0.1307), ("test", 10_000, [7, 2, 1, 0, 4], 0.1325)],
)
def test_real_mnist(real, split, count, first, mean):
    images, labels = load_mnist(split)
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.shape == (count,)
    assert labels.dtype == torch.int64
    assert labels[:5].tolist() == first
    assert images.min() == 0
    assert images.max() == 1
    assert images.mean().item() == pytest.approx(mean, abs=5e-5)
    assert torch.equal(images[:50], (images[:50] * 255).round() / 255)
