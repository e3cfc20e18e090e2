"""The rest of an image given a part: against sums over all images."""

import itertools

import pytest
import torch

from course_lib.autoregressive import MADE, completion_log_prob

KNOWN = torch.tensor([True, False, True, False, False])


def everything(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def by_enumeration(mixture_log_prob, x):
    """By log p(x) − log p(known part of x), the latter a sum over the 2^3 images that share it."""
    rest = everything(int((~KNOWN).sum()))
    answers = []
    for row in x:
        images = row.repeat(len(rest), 1)
        images[:, ~KNOWN] = rest
        answers.append(mixture_log_prob(row[None])[0] - mixture_log_prob(images).logsumexp(0))
    return torch.stack(answers)


def test_it_is_the_conditional_of_the_sets_that_can_say():
    torch.manual_seed(0)
    model = MADE(5, [30], order="random", n_masks=200, seed=0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from a coin for each pixel
    places = torch.stack([degrees[0] for degrees in model.degrees])
    can_say = [k for k in range(200) if places[k, KNOWN].max() < places[k, ~KNOWN].min()]
    assert 2 <= len(can_say) < 200

    def log_prob(x):
        p = torch.stack([model.conditionals(x, mask_set=k) for k in can_say])
        return torch.where(x == 1, p, 1 - p).log().sum(2).logsumexp(0)

    x = everything(5)
    with torch.no_grad():
        p = torch.stack([model.conditionals(x, mask_set=k) for k in range(200)])
        assert torch.allclose(completion_log_prob(x, p, places, KNOWN), by_enumeration(log_prob, x))


def test_bad_input():
    x, p = torch.ones(2, 2), torch.full((1, 2, 2), 0.5)
    first = torch.tensor([True, False])
    with pytest.raises(ValueError, match="an order that begins with the known"):
        completion_log_prob(x, p, torch.tensor([[1, 0]]), first)
    with pytest.raises(ValueError, match="conditionals must have"):
        completion_log_prob(x, p[0], torch.tensor([[0, 1]]), first)
    for places in (torch.tensor([0, 1]), [[0, 1]]):
        with pytest.raises(ValueError, match=r"places must be a tensor of shape \[1, 2\], got"):
            completion_log_prob(x, p, places, first)
    for known in (first | True, first & False, first[:1], first.long(), [True, False]):
        with pytest.raises(
            ValueError, match=r"known must be a boolean tensor \[2\], True for some"
        ):
            completion_log_prob(x, p, torch.tensor([[0, 1]]), known)
