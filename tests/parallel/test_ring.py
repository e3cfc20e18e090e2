"""Ring all-reduce is a sum, for any shapes and any number of processes, and so it is over gloo."""

import re
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.parallel import (
    Message,
    ring_all_reduce,
    ring_all_reduce_gloo,
    ring_bytes,
    ring_steps,
    run_processes,
)
from tests.parallel import jobs

PROCESSES = st.integers(1, 9)
SHAPES = st.lists(st.integers(0, 5), max_size=3)


def whole_numbers(n, shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n)
    return [torch.randint(-99, 99, tuple(shape), generator=generator).to(dtype) for _ in range(n)]


@settings(deadline=None, max_examples=60)
@given(PROCESSES, SHAPES, st.sampled_from([torch.float32, torch.float64, torch.int64]))
def test_everybody_gets_the_sum(n, shape, dtype):
    tensors = whole_numbers(n, shape, dtype)
    before = [t.clone() for t in tensors]
    results, _ = ring_all_reduce(tensors)
    assert len(results) == n
    for result in results:
        assert result.dtype == dtype
        assert torch.equal(result, sum(before[1:], before[0]))
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


@settings(deadline=None, max_examples=60)
@given(PROCESSES, st.integers(1, 30))
def test_everybody_gets_the_same_bits(n, size):
    tensors = jobs.tensors(n, (size,))
    results, _ = ring_all_reduce(tensors)
    exact = torch.stack(tensors).double().sum(dim=0)
    for result in results:
        assert torch.equal(result, results[0])
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=n * 1e-6)
    # A sum in the order of the ring, from the process whose chunk it is.
    for c, (chunk, *_) in enumerate(zip(results[0].tensor_split(n), range(n), strict=True)):
        parts = [tensors[(c + k) % n].tensor_split(n)[c] for k in range(n)]
        wanted = parts[0]
        for part in parts[1:]:
            wanted = wanted + part
        assert torch.equal(chunk, wanted)


@settings(deadline=None, max_examples=60)
@given(PROCESSES, st.integers(0, 40))
def test_what_is_sent(n, size):
    tensors = jobs.tensors(n, (size,))
    _, messages = ring_all_reduce(tensors)
    assert len(messages) == 2 * n * (n - 1)
    chunks = [t.nbytes for t in tensors[0].tensor_split(n)]
    sent, received = Counter(), Counter()
    steps = defaultdict(list)
    for m in messages:
        sent[m.source] += m.size
        received[m.target] += m.size
        steps[m.step].append(m)
        assert m.target == (m.source + 1) % n
        assert m.size == chunks[m.chunk]
        assert m.phase == ("reduce-scatter" if m.step < n else "all-gather")
    assert list(steps) == list(range(1, 2 * n - 1))
    for step in steps.values():  # everybody sends one chunk, and no two the same
        assert [m.source for m in step] == list(range(n))
        assert len({m.chunk for m in step}) == n
    for r in range(n if n > 1 else 0):
        assert sent[r] == 2 * sum(chunks) - chunks[(r + 1) % n] - chunks[(r + 2) % n]
        if size % n == 0:
            assert sent[r] == received[r] == ring_bytes(tensors[0].nbytes, n)


def test_three_processes_by_hand():
    tensors = [torch.tensor([100.0 * r + c for c in (1, 2, 3, 4)]) for r in (1, 2, 3)]
    states = list(ring_steps(tensors))
    assert len(states) == 5
    chunks, messages = states[0]
    assert messages == []
    assert [[c.tolist() for c in own] for own in chunks] == [
        [[101, 102], [103], [104]],
        [[201, 202], [203], [204]],
        [[301, 302], [303], [304]],
    ]
    chunks, messages = states[1]
    assert messages == [
        Message(1, "reduce-scatter", 0, 1, 0, 8),
        Message(1, "reduce-scatter", 1, 2, 1, 4),
        Message(1, "reduce-scatter", 2, 0, 2, 4),
    ]
    assert [[c.tolist() for c in own] for own in chunks] == [
        [[101, 102], [103], [408]],
        [[302, 304], [203], [204]],
        [[301, 302], [506], [304]],
    ]
    chunks, messages = states[2]
    assert [m.chunk for m in messages] == [2, 0, 1]
    assert [[c.tolist() for c in own] for own in chunks] == [
        [[101, 102], [609], [408]],
        [[302, 304], [203], [612]],
        [[603, 606], [506], [304]],
    ]
    chunks, messages = states[3]
    assert messages == [
        Message(3, "all-gather", 0, 1, 1, 4),
        Message(3, "all-gather", 1, 2, 2, 4),
        Message(3, "all-gather", 2, 0, 0, 8),
    ]
    for own in states[4][0]:
        assert [c.tolist() for c in own] == [[603, 606], [609], [612]]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "tensors must be a list of one tensor or more, got []"),
        (torch.ones(2), "tensors must be a list of one tensor or more, got tensor([1., 1.])"),
        ([1.0], "tensors[0] must be a tensor of numbers, got float"),
        ([torch.ones(2), [1.0]], "tensors[1] must be a tensor of numbers, got list"),
        ([torch.ones(2) > 0], "tensors[0] must be a tensor of numbers, got torch.bool"),
        (
            [torch.ones(2), torch.ones(3)],
            "tensors[1] must be torch.float32 [2] like tensors[0], got torch.float32 [3]",
        ),
        (
            [torch.ones(2), torch.ones(2).long()],
            "tensors[1] must be torch.float32 [2] like tensors[0], got torch.int64 [2]",
        ),
        (
            [torch.ones(2), torch.ones(2, device="meta")],
            "tensors[1] must be on cpu like tensors[0], got meta",
        ),
        (
            [torch.ones(2).to(torch.float8_e5m2)],
            "tensors[0] must have 16 bits a number or more, got torch.float8_e5m2",
        ),
        ([torch.ones(2).to_sparse()], "tensors[0] must be dense, got torch.sparse_coo"),
    ],
)
@pytest.mark.parametrize("function", [ring_all_reduce, ring_steps])
def test_bad_tensors(function, tensors, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        function(tensors)


def test_bytes():
    assert [ring_bytes(12, n) for n in (1, 2, 3, 4)] == [0, 12, 16, 18]
    assert ring_bytes(0, 3) == 0
    for size, processes, message in [
        (-1, 2, "size must be a finite number of at least 0, got -1"),
        (False, 2, "size must be a finite number of at least 0, got False"),
        (torch.ones(2), 2, "size must be a finite number of at least 0, got tensor"),
        (3, 0, "processes must be an integer of at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            ring_bytes(size, processes)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_over_gloo(n):
    """Bit for bit as simulated, as many bytes, and PyTorch's own sum up to rounding."""
    ranks = run_processes(jobs.ring_over_gloo, n)
    for k, (shape, dtype) in enumerate(jobs.RINGS):
        simulated, messages = ring_all_reduce(jobs.tensors(n, shape, dtype))
        sent = Counter()
        for m in messages:
            sent[m.source] += m.size
        for rank in range(n):
            ours, theirs, unchanged, sizes = ranks[rank][k]
            assert torch.equal(ours, simulated[rank])
            assert ours.dtype == dtype
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
            assert unchanged
            assert sum(sizes) == sent[rank]
            assert 0 not in sizes


def test_no_group():
    with pytest.raises(
        RuntimeError, match=r"^ring_all_reduce_gloo needs a group of processes: see"
    ):
        ring_all_reduce_gloo(torch.ones(2))
    with pytest.raises(ValueError, match=r"^tensor must be a tensor of numbers, got list"):
        ring_all_reduce_gloo([1.0])
