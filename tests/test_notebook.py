"""The helpers of the notebooks do what their names say."""

import doctest

import pytest
import torch

from course_lib import notebook
from course_lib.flows import NICE, RealNVP
from course_lib.notebook import bytes_kept, follow, jacobians, one_thread, seeded


def test_the_examples_hold():
    failed, attempted = doctest.testmod(notebook)
    assert failed == 0
    assert attempted == 4


def test_one_thread():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        one_thread()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_seed_decides_and_nothing_else_changes():
    before = torch.get_rng_state()
    draws = [torch.randn(5, generator=seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        seeded(-1)


def test_jacobians_of_a_linear_map_are_its_matrix():
    a = torch.randn(6, 6, generator=seeded(0), dtype=torch.float64)
    x = torch.randn(4, 6, generator=seeded(1), dtype=torch.float64)
    assert torch.allclose(jacobians(lambda x: x @ a.T + 1, x), a.expand(4, 6, 6))
    images = x.reshape(4, 1, 2, 3)
    flattened = jacobians(lambda x: (x.flatten(1) @ a.T).reshape(-1, 1, 2, 3), images)
    assert torch.allclose(flattened, a.expand(4, 6, 6))


def test_jacobians_belong_to_their_row():
    x = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    mixed = jacobians(lambda x: torch.stack([x[:, 0] * x[:, 1], x[:, 0] ** 2], dim=1), x)
    assert mixed.tolist() == [[[2.0, 1.0], [2.0, 0.0]], [[-4.0, 3.0], [6.0, 0.0]]]
    with pytest.raises(ValueError, match="x must be a floating-point tensor"):
        jacobians(lambda x: x, torch.ones(2, 2, dtype=torch.long))


@pytest.mark.parametrize("make", [NICE, RealNVP])
def test_a_flow_is_followed_from_the_data_to_the_latent(make):
    torch.manual_seed(0)
    flow = make(2, couplings=3, hidden=(8,))
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(7, 2, generator=seeded(0))
    states, so_far = follow(flow, x)
    z, log_det = flow(x)
    assert states.shape == (len(flow.transforms) + 1, 7, 2)
    assert so_far.shape == (len(flow.transforms) + 1, 7)
    assert torch.equal(states[0], x)
    assert not so_far[0].any()
    assert torch.allclose(states[-1], z)
    assert torch.allclose(so_far[-1], log_det)
    # Half-way: the sum of the Jacobians' log-determinants so far, which know no formula of ours.
    first, second = flow.transforms[:2]
    exact = torch.linalg.slogdet(jacobians(lambda p: second(first(p)[0])[0], x)).logabsdet
    assert torch.allclose(so_far[2], exact, atol=1e-5)


def test_bytes_are_counted_while_the_backward_pass_waits_for_them():
    x = torch.ones(1000, requires_grad=True)
    assert bytes_kept(lambda: x.sin().sum()) == 4000  # x itself
    assert bytes_kept(lambda: (x.sin() + x.cos()).sum()) == 4000  # once
    assert bytes_kept(lambda: x.sin().sum().detach()) == 0
    y = torch.ones(1000)
    assert bytes_kept(lambda: y.sin().sum()) == 0

    def thrown_away():
        x.exp().sum().backward()
        return x.sin().sum()

    assert bytes_kept(thrown_away) == 4000
