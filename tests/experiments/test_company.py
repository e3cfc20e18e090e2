"""Batch normalisation in sequence: against ActNorms that set themselves to the same batch."""

import torch

from course_lib.experiments import log_prob_in_company
from course_lib.flows import ActNorm, Flow, Glow, StandardGaussian


def test_it_is_an_actnorm_set_to_this_batch():
    torch.manual_seed(0)
    flow = Glow((1, 8, 8), levels=2, depth=2, hidden=8).double()
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    log_prob, of_norms = log_prob_in_company(flow, x)
    fresh = flow.train().log_prob(x)  # every ActNorm sets itself to what arrives
    torch.testing.assert_close(log_prob, fresh)
    norms = [t for t in flow.transforms if isinstance(t, ActNorm)]
    pixels = [16, 16, 4, 4]
    told = sum(p * t.log_scale.sum() for p, t in zip(pixels, norms, strict=True))
    torch.testing.assert_close(of_norms, told)


def test_the_company_decides():
    flow = Flow([ActNorm(1)], StandardGaussian(1))
    x = torch.tensor([[0.0], [2.0]])
    log_prob, of_norms = log_prob_in_company(flow, x)  # mean 1, standard deviation 1
    assert of_norms.item() == 0
    torch.testing.assert_close(log_prob, flow.base.log_prob(torch.tensor([[-1.0], [1.0]])))
    other, of_norms = log_prob_in_company(flow, torch.tensor([[0.0], [4.0]]))
    torch.testing.assert_close(of_norms, -torch.tensor(2.0).log())
    torch.testing.assert_close(other[0], log_prob[0] - torch.tensor(2.0).log())
