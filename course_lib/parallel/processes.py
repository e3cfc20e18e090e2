"""Start a function in several processes that can talk to each other, from anywhere.

From a notebook, too: no process imports the notebook, none is left over, and one that dies ends
all of them with a clear word.
"""

import io
import multiprocessing
import os
import pickle
import reprlib
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from course_lib.checks import check_int, check_number

__all__ = ["WorkerError", "run_processes"]

# Processes are started afresh, never forked from a kernel with its threads. On Linux a server that
# has PyTorch in it and nothing else is started once and forks them: the second start takes no time.
START = "forkserver" if sys.platform == "linux" else "spawn"
GROUPS = hasattr(os, "setpgrp")  # of processes; not on Windows
PRELOADED = ["torch", "torch._dynamo"]  # optimisers and DistributedDataParallel import the second
LONGEST = 1e8  # seconds, three years: clocks know no much longer waits
LAST_WORDS = 1.0  # seconds to wait for the cause when a process says that it lost another


class WorkerError(RuntimeError):
    """A process didn't return. ``rank`` tells which, ``reason`` why."""

    def __init__(self, rank: int, n: int, reason: str):
        super().__init__(f"rank {rank} of {n} {reason}")
        self.rank = rank
        self.reason = reason


class _Report(NamedTuple):
    """The last that was heard of a process."""

    result: bytes | None  # pickled; None for an error
    reason: str = ""
    details: str = ""
    lost_another: bool = False  # a consequence, and not the cause


def run_processes(
    function: Callable[..., Any], n: int, *args: Any, timeout: float = 60.0
) -> list[Any]:
    """Call ``function(*args)`` in ``n`` processes of one gloo group, with one thread each.

    In there ``torch.distributed`` is ready to use (``dist.get_rank()``, ``dist.all_reduce(t)``),
    and the environment is that of ``torchrun``. What the processes print isn't shown;
    where one died, its last words are a note of the error (``__notes__``).

    Args:
        function: Anything that the processes can import: defined in a module, not in a notebook.
        n: Number of processes.
        args: What it is called with, in every process; copied by pickle, as the results are.
        timeout: Seconds until all processes are ended, their start included.

    Returns:
        What each process returned, in the order of ranks.

    Raises:
        WorkerError: When a process raises, dies or is late. All others are ended then.

    """
    check_int("n", n, minimum=1)
    check_number("timeout", timeout, above=0)
    if timeout > LONGEST:
        raise ValueError(f"timeout must be at most {LONGEST:g} s, got {timeout!r}")
    payload = _pickled(function, args)
    context = multiprocessing.get_context(START)
    if START == "forkserver":
        context.set_forkserver_preload(PRELOADED)
    deadline = time.monotonic() + timeout
    workers, pipes = [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for rank in range(n):
                ours, theirs = context.Pipe()
                pipes.append(ours)
                work = (rank, n, payload, folder, timeout, theirs)
                worker = context.Process(target=_work, args=work, daemon=True)
                with _apart():
                    worker.start()
                    workers.append(worker)
                theirs.close()
            reports = _listen(workers, pipes, folder, deadline)
        finally:
            for worker in workers:
                _end(worker)
            for worker in workers:
                worker.join()
            for pipe in pipes:
                pipe.close()
    _raise_first_failure(reports, n, timeout)
    return [_unpickled(reports[rank].result, rank, n) for rank in range(n)]


def _unpickled(result: bytes, rank: int, n: int) -> Any:
    try:
        return pickle.loads(result)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise WorkerError(rank, n, f"returned what cannot be unpickled: {why}") from error


def _pickled(function: Callable[..., Any], args: tuple) -> bytes:
    """Function and arguments by value, or a ``ValueError``."""
    if not callable(function):
        raise ValueError(f"function must be a function, got {function!r}")
    try:
        # Not multiprocessing's own pickler: that would send tensors as handles of shared memory.
        _by_value(function)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(
            f"function must be importable by other processes, got {function!r} ({error})"
        ) from error
    try:
        return _by_value((function, args))
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"args must be picklable, got {reprlib.repr(args)} ({error})") from error


class _Pickler(pickle.Pickler):
    """One that takes nothing by name that the other processes could not find."""

    def reducer_override(self, value: Any) -> Any:
        if getattr(value, "__module__", None) == "__main__":
            raise pickle.PicklingError(
                f"{value!r} is of the main program or notebook: write it to a module"
            )
        return NotImplemented


def _by_value(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


@contextmanager
def _apart() -> Iterator[None]:
    """What is started in here knows nothing of the main program, and is deaf to Ctrl-C.

    The main program may be a script without a guard, which would start processes again; and a
    Ctrl-C is for the one process that can end the others.
    """
    if START == "forkserver":
        resource_tracker.ensure_running()  # started later, it would unblock the signal for the rest
    can_block = hasattr(signal, "pthread_sigmask")  # not on Windows
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else None
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if can_block:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _listen(
    workers: list[multiprocessing.process.BaseProcess],
    pipes: list[connection.Connection],
    folder: str,
    deadline: float,
) -> dict[int, _Report]:
    """What each process reports, until all did, one failed or time is up."""
    reports: dict[int, _Report] = {}
    while len(reports) < len(workers):
        waiting = [pipes[rank] for rank in range(len(workers)) if rank not in reports]
        ready = connection.wait(waiting, max(deadline - time.monotonic(), 0))
        if not ready:
            break
        for rank in [rank for rank, pipe in enumerate(pipes) if pipe in ready]:
            try:
                reports[rank] = _Report(*pipes[rank].recv())
            except (EOFError, ConnectionResetError):
                words = _words(folder, rank).read_text(encoding="utf-8", errors="replace")
                reports[rank] = _Report(None, _end_of(workers[rank]), words)
        failures = [report for report in reports.values() if report.result is None]
        if any(not report.lost_another for report in failures):
            break
        if failures:
            deadline = min(deadline, time.monotonic() + LAST_WORDS)
    return reports


def _end(worker: multiprocessing.process.BaseProcess) -> None:
    """With whatever it has started."""
    if GROUPS and worker.is_alive():
        with suppress(ProcessLookupError):  # so early that it has no group yet
            os.killpg(worker.pid, signal.SIGKILL)
    worker.kill()


def _words(folder: str, rank: int) -> Path:
    """The file that holds what a process printed."""
    return Path(folder, f"said by rank {rank}")


def _end_of(worker: multiprocessing.process.BaseProcess) -> str:
    """How a process ended that closed its pipe without a report."""
    worker.join()
    code = worker.exitcode
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit status {code} before it returned"


def _raise_first_failure(reports: dict[int, _Report], n: int, timeout: float) -> None:
    failed = [rank for rank, report in reports.items() if report.result is None]
    for rank in sorted(failed, key=lambda rank: reports[rank].lost_another):
        error = WorkerError(rank, n, reports[rank].reason)
        if reports[rank].details:
            error.add_note(reports[rank].details)
        raise error
    late = [rank for rank in range(n) if rank not in reports]
    if late:
        too = f", nor had {', '.join(f'rank {rank}' for rank in late[1:])}" if late[1:] else ""
        raise WorkerError(late[0], n, f"had not returned after {timeout:g} s{too}")


def _work(
    rank: int, n: int, payload: bytes, folder: str, timeout: float, pipe: connection.Connection
) -> None:
    """The life of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if GROUPS:
        os.setpgrp()
    watch = threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True)
    watch.start()
    # Gloo and PyTorch write to these two directly, past anything that Python could redirect.
    try:
        said = open(_words(folder, rank), "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    except FileNotFoundError:  # the parent was interrupted before this came to life
        os._exit(1)
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.stdout = sys.stderr = said
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    if sys.platform == "linux":  # else gloo looks up the name of the machine, which may have none
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    if "fork" in multiprocessing.get_all_start_methods():
        # Else the locks of progress bars have names, which nobody removes when this is killed.
        multiprocessing.set_start_method("fork", force=True)
    try:
        function, args = pickle.loads(payload)
        store = dist.FileStore(str(Path(folder, "store")), n)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=n, timeout=timedelta(seconds=timeout)
        )
        report = _Report(pickle.dumps(function(*args)))
    except Exception as error:
        report = _Report(
            None,
            f"raised {type(error).__name__}: {error}",
            traceback.format_exc(),
            _lost_another(error),
        )
    pipe.send(tuple(report))
    watch.join()  # the others may still need this one's connections


def _end_with_parent(pipe: connection.Connection) -> None:
    """The parent never sends: what comes is the end of its pipe, also when it was killed."""
    pipe.poll(None)
    if GROUPS:
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _lost_another(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is gloo's word for a connection that broke."""
    while error is not None:
        if isinstance(error, RuntimeError) and "gloo" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
