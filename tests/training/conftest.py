"""The tests of this folder use one thread: bit-for-bit comparisons then hold everywhere."""

import signal
from pathlib import Path

import pytest
import torch

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell that starts the tests in the background lets them ignore Ctrl-C: not these."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def mnist(monkeypatch):
    """The files of MNIST, where they are beside the course."""
    if not MNIST.is_dir():
        pytest.skip("needs the MNIST files in ../shared/data/mnist")
    monkeypatch.setenv("COURSE_DATA", str(MNIST))
