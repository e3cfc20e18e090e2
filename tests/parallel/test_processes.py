"""Processes start from anywhere, tell what went wrong, and none is left over."""

import functools
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from course_lib.parallel import WorkerError, processes, run_processes
from tests.parallel import jobs

ROOT = Path(__file__).resolve().parents[2]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(") ")[1][0] != "Z"


@pytest.fixture(autouse=True)
def _nobody_left():
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("n", [1, 3])
def test_results_and_surroundings(n):
    t = torch.arange(3.0)
    found = run_processes(jobs.surroundings, n, t, "word")
    for rank, own in enumerate(found):
        assert own["rank"] == rank
        assert own["world"] == n
        assert own["backend"] == "gloo"
        assert own["environment"] == [str(rank), str(rank), str(n)]
        assert own["threads"] == 1
        assert torch.equal(own["given"][0], t)
        assert own["given"][1] == "word"
    assert len({own["pid"] for own in found} | {os.getpid()}) == n + 1


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "raised KeyError: 'no luck'"),
        ("exit", "ended with exit status 3 before it returned"),
        ("kill", "was killed by SIGKILL"),
        ("crash", "was killed by SIGSEGV"),
        ("unpicklable", "raised TypeError: cannot pickle '_thread.lock' object"),
        ("leave", "raised ValueError: I left"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_is_named(capfd, how, reason, rank):
    with pytest.raises(WorkerError) as caught:
        run_processes(jobs.fail, 2, how, rank)
    assert str(caught.value) == f"rank {rank} of 2 {reason}"
    assert (caught.value.rank, caught.value.reason) == (rank, reason)
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("Traceback" if "raised" in reason else "my last words\n") in notes
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("forked")
def test_a_lost_connection_is_told_when_nothing_else_is(monkeypatch):
    monkeypatch.setattr(processes, "LAST_WORDS", 0.05)  # the other says why after half a second
    with pytest.raises(WorkerError, match=r"^rank 0 of 2 raised RuntimeError: .*gloo"):
        run_processes(jobs.fail, 2, "leave")


@pytest.mark.usefixtures("forked")
def test_late(tmp_path):
    started = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        run_processes(jobs.hang, 3, str(tmp_path), timeout=2.5)
    assert 2.5 <= time.monotonic() - started < 10
    assert str(caught.value) == "rank 0 of 3 had not returned after 2.5 s, nor had rank 1, rank 2"
    pids = [int(file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()]
    assert len(pids) == 3
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(WorkerError, match=r"^rank 0 of 1 had not returned after 0.5 s$"):
        run_processes(jobs.hang, 1, str(tmp_path), timeout=0.5)


@pytest.mark.usefixtures("forked")
@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes")
@pytest.mark.parametrize("n", [1, 2])
def test_what_a_process_started_ends_with_it(tmp_path, n):
    if n == 1:
        run_processes(jobs.start_another, 1, str(tmp_path))
    else:
        with pytest.raises(WorkerError, match=r"^rank 1 of 2 had not returned after 4 s$"):
            run_processes(jobs.start_another, 2, str(tmp_path), timeout=4)
    pids = [int(file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()]
    assert len(pids) == n
    assert not any(alive(pid) for pid in pids)


@pytest.mark.usefixtures("forked")
def test_a_result_that_cannot_be_loaded():
    with pytest.raises(WorkerError, match=r"^rank 0 of 1 returned what cannot be unpickled: Val"):
        run_processes(jobs.unloadable, 1)


def test_the_cause_comes_before_its_consequences():
    lost = processes._Report(None, "lost", "", True)
    cause = processes._Report(None, "died")
    for reports in ({0: lost, 1: cause}, {1: cause, 0: lost}):
        with pytest.raises(WorkerError, match=r"^rank 1 of 3 died$"):
            processes._raise_first_failure(reports, 3, 1.0)
    assert processes._raise_first_failure({0: processes._Report(b"")}, 1, 1.0) is None
    assert processes._lost_another(RuntimeError("[../gloo/pair.cc] Connection closed by peer"))
    assert not processes._lost_another(RuntimeError("something else"))
    assert not processes._lost_another(ValueError("gloo"))
    for attribute in ("__cause__", "__context__"):
        error = ValueError("x")
        setattr(error, attribute, RuntimeError("Gloo"))
        assert processes._lost_another(error)


SCRIPT = """
import os, signal, sys, threading, time
from multiprocessing.forkserver import _forkserver
from pathlib import Path
from course_lib.parallel import run_processes
from tests.parallel import jobs

print("main")  # a process that imported this would say it again, and start processes itself
folder = Path(sys.argv[1])
# A shell without job control, as in CI, starts what runs in its background deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def while_it_comes_up():
    while _forkserver._forkserver_pid is None:
        time.sleep(0.01)
    time.sleep(0.3)  # it imports PyTorch, which takes longer
    os.killpg(0, signal.SIGINT)


threading.Thread(target=while_it_comes_up, daemon=True).start()
try:
    run_processes(jobs.surroundings, 2, timeout=180)
except KeyboardInterrupt:
    print("at once", flush=True)
found = run_processes(jobs.surroundings, 2, timeout=180)
print([own["rank"] for own in found], {own["main"] for own in found})


def when_all_hang(name, action):
    def wait():
        while len(list((folder / name).iterdir())) < 2:
            time.sleep(0.05)
        action()
    (folder / name).mkdir()
    threading.Thread(target=wait, daemon=True).start()
    return str(folder / name)


try:  # Ctrl-C goes to all processes of a terminal
    first = when_all_hang("first", lambda: os.killpg(0, signal.SIGINT))
    run_processes(jobs.hang, 2, first, timeout=180)
except KeyboardInterrupt:
    print("interrupted", flush=True)
second = when_all_hang("second", lambda: os.kill(os.getpid(), signal.SIGKILL))
run_processes(jobs.hang, 2, second, timeout=180)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_from_a_script_without_a_guard(tmp_path):
    """As they start without the tests' shortcut. Interrupted twice, then killed."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
        start_new_session=True,
    )
    assert result.returncode == -signal.SIGKILL
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["main", "at once", "[0, 1] {None}", "interrupted"]
    for name in ("first", "second"):
        pids = [int(file.read_text(encoding="utf-8")) for file in (tmp_path / name).iterdir()]
        assert len(pids) == 2
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(pid) for pid in pids), name


def of_main():
    return None


of_main.__module__ = "__main__"
Mine = type("Mine", (), {"__module__": "__main__", "__call__": lambda self: None})


def deep():
    """Lists in lists, too many."""
    inner = []
    for _ in range(100_000):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 2), "function must be a function, got 3"),
        ((lambda: 1, 2), "function must be importable by other processes, got <function"),
        ((of_main, 2), "function must be importable by other processes, got <function of_main"),
        (
            (functools.partial(lambda: 1), 2),
            "function must be importable by other processes, got functools.partial",
        ),
        (
            (functools.partial(of_main), 2),
            "function must be importable by other processes, got functools.partial",
        ),
        ((Mine(), 2), "function must be importable by other processes, got <__main__.Mine"),
        ((jobs.surroundings, 2, Mine()), "args must be picklable, got (<__main__.Min"),
        ((jobs.surroundings, 2, of_main), "args must be picklable, got (<function of"),
        ((jobs.surroundings, 2, deep()), "args must be picklable, got ([[["),
        ((jobs.surroundings, 2, lambda: 1), "args must be picklable, got (<function"),
        ((jobs.surroundings, 0), "n must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        run_processes(*arguments)


@pytest.mark.parametrize("name", ["of_main", "Mine"])
def test_what_only_the_main_program_has(monkeypatch, name):
    """A notebook's function can be found by name here, and nowhere else."""
    mine = globals()[name]
    mine.__qualname__ = name
    monkeypatch.setattr(sys.modules["__main__"], name, mine, raising=False)
    pickle.loads(pickle.dumps(mine))
    for arguments, word in [
        ((mine, 2), "function must be importable"),
        ((functools.partial(mine), 2), "function must be importable"),
        ((jobs.surroundings, 2, [mine]), "args must be picklable"),
    ]:
        with pytest.raises(ValueError, match=f"^{word}.* is of the main program or notebook"):
            run_processes(*arguments)


def test_bad_timeout():
    with pytest.raises(ValueError, match=r"^timeout must be a finite number above 0, got 0"):
        run_processes(jobs.surroundings, 1, timeout=0)
    with pytest.raises(ValueError, match=r"^timeout must be at most 1e\+08 s, got 1e\+300"):
        run_processes(jobs.surroundings, 1, timeout=1e300)
