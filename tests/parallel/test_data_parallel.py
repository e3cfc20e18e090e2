"""Averaged gradients are those of PyTorch, bit for bit, and those of the whole batch."""

import re
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.parallel import DataParallel, accumulate, buckets, run_processes
from tests.parallel import jobs


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 400))
def test_buckets_are_pytorchs(numbers, cap):
    found = buckets([4 * number for number in numbers], cap)
    assert [i for bucket in found for i in bucket] == list(reversed(range(len(numbers))))
    if numbers:
        backwards = [torch.empty(number) for number in reversed(numbers)]
        theirs, _ = dist._compute_bucket_assignment_by_size(backwards, [cap])
        assert found == [[len(numbers) - 1 - i for i in bucket] for bucket in theirs]


def test_buckets_by_hand():
    assert buckets([], 5) == []
    assert buckets([5], 5) == [[0]]
    assert buckets([1, 4, 5, 0], 5) == [[3, 2], [1, 0]]
    assert buckets([1, 4, 5], 6) == [[2, 1], [0]]
    assert buckets([1, 4, 5], 1) == [[2], [1], [0]]
    for arguments, message in [
        (([1, -1], 5), "sizes[1] must be an integer of at least 0, got -1"),
        (([1.0], 5), "sizes[0] must be an integer of at least 0, got 1.0"),
        ((None, 5), "sizes must be a sequence of integers, got None"),
        (({0: 1}, 5), "sizes must be a sequence of integers, got {0: 1}"),
        (([1], 0), "cap must be an integer of at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            buckets(*arguments)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("n", [2, 3, 4])
def test_gradients_equal_pytorchs_and_those_of_the_whole_batch(n):
    for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 1e-4)]:
        ranks = run_processes(jobs.gradients_side_by_side, n, dtype)
        for results in ranks:
            for k, (ours, theirs, whole) in enumerate(results):
                assert len(ours) == 6
                for a, b, c, first in zip(ours, theirs, whole, ranks[0][k][0], strict=True):
                    assert torch.equal(a, b)
                    assert torch.equal(a, first)
                    torch.testing.assert_close(a, c, rtol=tolerance, atol=tolerance)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
        return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


ROUNDED = ("accumulated", "theirs", "no_sync", "added")


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("n", [2, 4])
def test_laws(n):
    for found in run_processes(jobs.laws, n):
        for name, (a, b) in found.items():
            if name.startswith(ROUNDED):
                assert len(a) == len(b) > 0
                for x, y in zip(a, b, strict=True):
                    torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12, check_dtype=False)
            else:
                assert equal(a, b), (name, a, b)


@pytest.mark.usefixtures("forked")
def test_complaints():
    unused = "rank 0 has no gradient for 0.weight, 0.bias, 2.weight, 2.bias"
    (found,) = run_processes(jobs.complaints, 1)
    assert found["nothing"].startswith(f"{unused}, 3.weight, 3.bias: the loss must use every")
    assert found["unused"].startswith(f"{unused}: the loss must use every parameter in every")
    assert found["twice"].startswith("a second gradient of 3.")
    assert found["averaging"] is True


def test_accumulated_in_one_process():
    whole, parts = jobs.network(), jobs.network()
    x = jobs.batch(12)
    jobs.loss(whole, x).backward()
    mean = accumulate(parts, lambda x: jobs.loss(parts, x), list(x.split(3)))
    torch.testing.assert_close(mean.double(), jobs.loss(whole, x).detach())
    assert not mean.requires_grad
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-14)
    pairs = [(x[:6, :3], x[:6, 3:]), (x[6:, :3], x[6:, 3:])]
    parts.zero_grad()
    accumulate(parts, lambda pair: (parts(pair[0]) - pair[1]).square().mean(), pairs)
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-14)


def test_bad_arguments(monkeypatch):
    net = nn.Linear(1, 1)
    for batches in ([], torch.ones(2)):
        with pytest.raises(ValueError, match=r"^batches must be a list of one batch or more, got"):
            accumulate(net, lambda x: net(x).sum(), batches)
    with pytest.raises(ValueError, match=r"^batches must have one size, got \[2, 1\]"):
        accumulate(net, lambda x: net(x).sum(), [torch.ones(2, 1), torch.ones(1, 1)])
    pairs = [[torch.ones(n, 1), torch.ones(n)] for n in (3, 4)]  # as a DataLoader gives them
    with pytest.raises(ValueError, match=r"^batches must have one size, got \[3, 4\]"):
        accumulate(net, lambda pair: net(pair[0]).sum(), pairs)
    for model, loss, batch, message in [
        (3, net, torch.ones(2, 1), "model must be a torch.nn.Module, got 3"),
        (net, net, torch.ones(2, 1), "loss must have shape [], got [2, 1]"),
        (net, lambda x: 1.0, torch.ones(2, 1), "loss must be a tensor of shape [], got float"),
        (net, 3, torch.ones(2, 1), "loss must be a function of a batch, got 3"),
        (net, net, 3, "batches[0] must be a tensor of one example or more, or a list of tensors"),
        (net, net, (), "batches[0] must be a tensor of one example or more, or a list of"),
        (net, net, torch.ones(0, 1), "batches[0] must be a tensor of one example or more, or a"),
        (net, net, torch.ones(()), "batches[0] must be a tensor of one example or more, or a"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            accumulate(model, loss, [batch])
    with pytest.raises(RuntimeError, match=r"^DataParallel needs a group of processes: see"):
        DataParallel(net)
    mixed = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double())
    words = "model must have parameters of one dtype, got ['torch.float32', 'torch.float64']"
    for model, options, message in [
        (3, {}, "model must be a torch.nn.Module, got 3"),
        (nn.ReLU(), {}, "model must have trainable parameters, got none in ReLU()"),
        (mixed, {}, words),
        (net, {"bucket_bytes": 0}, "bucket_bytes must be an integer of at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            DataParallel(model, **options)


def test_defaults(monkeypatch):
    """PyTorch's 25 MB."""
    quiet = SimpleNamespace(is_initialized=lambda: True, broadcast=lambda t, src: None)
    monkeypatch.setattr("course_lib.parallel.data_parallel.dist", quiet)
    sizes = [25 * 2**18 - 1, 1, 1, 1]
    model = nn.ParameterList(torch.empty(size) for size in sizes)
    assert DataParallel(model).buckets == [[3, 2, 1, 0]]
    model = nn.ParameterList(torch.empty(size) for size in [1, 25 * 2**18])
    assert DataParallel(model).buckets == [[1], [0]]
    model = nn.ParameterList(torch.empty(size) for size in [1, 25 * 2**18 - 1])
    assert DataParallel(model).buckets == [[1, 0]]
