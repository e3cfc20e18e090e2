"""A leak makes fair coins too probable, and nothing else does."""

import torch

from course_lib.autoregressive import made_degrees, made_masks
from course_lib.experiments import fit_coins, leaky_masks


def test_leaky_masks_let_each_output_see_its_own_input_and_no_later_one():
    degrees = [torch.tensor([2, 0, 1, 3]), torch.arange(4).repeat(3), torch.arange(4).repeat(2)]
    reach = torch.linalg.multi_dot(leaky_masks(degrees)[::-1]) > 0
    assert torch.equal(reach, degrees[0][:, None] >= degrees[0])


def test_only_a_leak_makes_coins_too_probable():
    torch.manual_seed(0)
    degrees = [torch.randperm(6), torch.arange(6).repeat(4)]
    honest = fit_coins(made_masks(degrees))
    assert honest.shape == (64,)
    assert abs(honest.sum() - 1) < 1e-4
    assert torch.allclose(honest, torch.full((64,), 1 / 64), atol=2e-3)
    assert fit_coins(leaky_masks(degrees)).sum() > 50
    # made_degrees has no hidden unit that sees the last pixel: this one stays fair.
    one_honest = fit_coins(leaky_masks(made_degrees(range(6), [24])))
    assert 20 < one_honest.sum() < 33
