"""A share each, gradients averaged: the same run, in whatever number of processes."""

import pytest
import torch

from course_lib.autoregressive import MADE
from course_lib.experiments import sum_of_draws, train_share
from course_lib.parallel import ring_all_reduce, run_processes

BITS = (torch.rand(96, 6, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def same(a, b):
    return all(torch.equal(a.parameters[name], b.parameters[name]) for name in b.parameters)


def close(a, b):
    pairs = ((a.parameters[name], b.parameters[name]) for name in b.parameters)
    return all(torch.allclose(x, y, rtol=0, atol=1e-4) for x, y in pairs)


def test_one_process_is_plain_training():
    torch.manual_seed(0)
    model = MADE(6, [128])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(3):
        order = torch.randperm(96, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = model.loss(BITS[order[:64]])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    trained = train_share(BITS, 3)
    assert trained.losses == losses
    for name, p in model.named_parameters():
        assert torch.equal(trained.parameters[name], p)


def test_parts_are_the_whole_batch_up_to_rounding():
    one, parts = train_share(BITS, 20), train_share(BITS, 20, parts=4)
    assert close(parts, one)
    assert parts.losses == pytest.approx(one.losses, abs=1e-4)
    assert one.losses[-1] < one.losses[0]


def test_the_global_source_of_randomness_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_share(BITS, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_processes_are_one_that_takes_turns_bit_for_bit():
    two = run_processes(train_share, 2, BITS, 5)
    assert same(two[0], two[1])
    assert same(two[0], train_share(BITS, 5, parts=2))
    assert close(two[0], train_share(BITS, 5))
    mean = [(a + b) / 2 for a, b in zip(two[0].losses, two[1].losses, strict=True)]
    assert two[0].losses != two[1].losses
    assert mean == pytest.approx(train_share(BITS, 5).losses, abs=1e-4)


def test_the_ring_over_gloo_has_the_bits_of_the_simulation():
    draws = [torch.randn(10, generator=torch.Generator().manual_seed(r)) for r in range(3)]
    results, _ = ring_all_reduce(draws)
    for sums in run_processes(sum_of_draws, 3, 10):
        assert torch.equal(sums.ring, results[0])
        assert torch.allclose(sums.gloo, results[0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((BITS + 0.5, 1), "digits must hold zeros and ones, got"),
        ((BITS[0], 1), r"digits must have shape \[B, any\], got \[6\]"),
        ((BITS, 0), "steps must be .* 1.*, got 0"),
        ((BITS, 1, 0), "parts must be .* 1.*, got 0"),
        ((BITS, 1, 1, 0), "batch_size must be .* 1.*, got 0"),
        ((BITS, 1, 3), "batch_size must be a multiple of processes · parts = 3, got 64"),
        ((BITS, 1, 1, 97), "batch_size must be .* 96.*, got 97"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_share(*arguments)


def test_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"size must be .* 1.*, got 0"):
        sum_of_draws(0)
