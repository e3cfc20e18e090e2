"""The loss that kills a VAE's code, and its training."""

import pytest
import torch

from course_lib.experiments import collapsing_loss, fit_vae


@pytest.mark.parametrize("seed", [1, 2])
def test_collapse_does_not_depend_on_luck(seed):
    dead = fit_vae(collapsing_loss, seed=seed)
    assert dead.rate < 0.01
    assert dead.spread < 0.005
    assert abs(dead.distortion - dead.without_code) < 0.5
    alive = fit_vae(lambda distortion, rate: (distortion + rate).mean(), seed=seed)
    assert alive.rate > 2
    assert alive.spread > 0.1
    assert alive.distortion + alive.rate < dead.distortion + dead.rate - 2


def test_one_seed_gives_one_report():
    torch.manual_seed(0)
    one = fit_vae(collapsing_loss, steps=3, seed=5)
    torch.manual_seed(1)
    assert fit_vae(collapsing_loss, steps=3, seed=5) == one
    assert fit_vae(collapsing_loss, steps=3, seed=6) != one


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"loss must have finite values .* step 1"):
        fit_vae(lambda distortion, rate: (distortion / 0 * rate).mean())
