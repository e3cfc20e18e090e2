"""Bayes' rule in logarithms, against the rule itself."""

import pytest
import torch

from course_lib.autoregressive import log_posterior


def test_log_posterior():
    generator = torch.Generator().manual_seed(0)
    ll = -20 * torch.rand(6, 4, generator=generator, dtype=torch.float64)
    lp = torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(0)
    joint = ll.exp() * lp.exp()
    assert torch.allclose(log_posterior(ll, lp).exp(), joint / joint.sum(1, keepdim=True))
    assert torch.allclose(log_posterior(ll - 5000, lp), log_posterior(ll, lp))
    with pytest.raises(ValueError, match="log_prior must"):
        log_posterior(ll, lp[:3])
    with pytest.raises(ValueError, match="log_likelihood must"):
        log_posterior(ll[0], lp)
