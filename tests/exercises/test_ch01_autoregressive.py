"""Chapter 01: right answers, written differently, pass; known mistakes are named."""

import itertools
import math

import numpy as np
import torch

from course_lib import autoregressive
from course_lib.autoregressive import completion_log_prob, log_posterior
from course_lib.exercises import ch01_autoregressive, check
from course_lib.experiments import leaky_masks
from tests.exercises.laws import ExerciseLaws

# --- predict_tables ------------------------------------------------------------------------------

TABLES_RIGHT = [1023, 1023.0, torch.tensor(1023), np.int64(1023), np.float32(1023)]
TABLES_WRONG = {"many": (10**30, "That is too many")}

# --- masks of a MADE ------------------------------------------------------------------------------


def masks_by(hidden, output):
    """Masks by two comparisons ``(above, below)``."""

    def attempt(degrees):
        masks = []
        for below, above in itertools.pairwise(degrees):
            masks.append(hidden(above[:, None], below[None, :]).float())
        return [*masks, output(degrees[0][:, None], degrees[-1][None, :]).float()]

    return attempt


right_masks = masks_by(torch.ge, torch.gt)


def masks_in_place(degrees):
    degrees[0] += 1
    return masks_by(lambda a, b: a > b - 1, lambda a, b: a > b + 1)(degrees)


def replaced_last(last):
    return lambda degrees: [*right_masks(degrees)[:-1], last(degrees).float()]


# --- break_the_order -----------------------------------------------------------------------------

LEAK_RIGHT = [
    leaky_masks,
    masks_by(torch.ge, torch.ge),
    lambda degrees: autoregressive.made_masks([*degrees, degrees[0]])[:-1],
]
LEAK_WRONG = {
    "transposed": (
        lambda degrees: [mask.T for mask in leaky_masks(degrees)],
        "Your mask 0 has shape [6, 8]; it must have [8, 6]",
    ),
    "inputs again": (
        replaced_last(lambda d: d[0][:, None] >= d[0]),
        "Your mask 2 has shape [6, 6]; it must have [6, 7]",
    ),
    "one missing": (lambda d: leaky_masks(d)[:-1], "Your list has 2 masks; it must have 3"),
    "one too many": (lambda d: [*leaky_masks(d), d[0]], "Your list has 4 masks"),
    "signs": (lambda d: [2 * mask - 1 for mask in leaky_masks(d)], "other numbers than 0 and 1"),
    "NumPy": (lambda d: [mask.numpy() for mask in leaky_masks(d)], "mask 0 is of type ndarray"),
    "single mask": (lambda d: leaky_masks(d)[0], "returns a Tensor, not a list of masks"),
    "in place": (masks_in_place, "changes its input `degrees` in place"),
    "lower triangle": (
        lambda d: [torch.ones_like(mask).tril() for mask in leaky_masks(d)],
        "Your hidden masks are not the one to expect",
    ),
    "odd last": (
        replaced_last(lambda d: (d[0][:, None] + d[-1]) % 2 == 0),
        "Your last mask is not the one",
    ),
}

# --- blind_spot ----------------------------------------------------------------------------------

BLIND_RIGHT = [3, 3.0, torch.tensor([3]), np.int32(3)]
BLIND_WRONG = {
    "one layer": (20, "With 1 layer that is so"),
    "two layers": (13, "With 2 layers that is so"),
    "some": (5, "5 is too many"),
    "more than there are": (30, "There are only 24 pixels"),
}

WIDE_RIGHT = [9, 9.0, torch.tensor(9)]

# --- sample --------------------------------------------------------------------------------------


def bernoulli(p, generator):
    return (torch.rand(p.shape, generator=generator) < p).float()


def sample(conditionals, n, dim, generator, *, choose=bernoulli, pixels=range):
    """A right answer, of which a test can replace a part."""
    x = torch.zeros(n, dim)
    for i in pixels(dim):
        x[:, i] = choose(conditionals(x)[:, i], generator)
    return x


def sample_as_the_library(conditionals, n, dim, generator):
    class Model(autoregressive.BinaryAutoregressive):
        def __init__(self):
            super().__init__(dim)
            self.anything = torch.nn.Parameter(torch.zeros(()))

        def logits(self, x):
            return conditionals(x).logit()

    return Model().sample(n, generator=generator)


def sample_by_fixed_point(conditionals, n, dim, generator):
    """With the same noise in every pass, pixel i is right after pass i."""
    u = torch.rand(n, dim, generator=generator)
    x = torch.zeros(n, dim)
    for _ in range(dim):
        x = (u < conditionals(x)).float()
    return x


SAMPLE_RIGHT = [sample, sample_as_the_library, sample_by_fixed_point]


def sampling(**parts):
    return lambda c, n, dim, g: sample(c, n, dim, g, **parts)


def sample_at_once(c, n, dim, g):
    return bernoulli(c(torch.zeros(n, dim)), g)


def sample_stale(c, n, dim, g):
    x, y = torch.zeros(n, dim), torch.zeros(n, dim)
    for i in range(dim):
        y[:, i] = bernoulli(c(x)[:, i], g)
    return y


def sample_means(c, n, dim, g):
    x = torch.zeros(n, dim)
    for i in range(dim):
        x[:, i] = c(x)[:, i]
    return x


def sample_shifted(c, n, dim, g):
    return sample(c, n, dim, g).roll(1, 1)


SAMPLE_WRONG = {w.says: (w.answer, w.says) for w in ch01_autoregressive._SAMPLE_WRONG} | {
    "at once": (sample_at_once, "you call conditionals only once"),
    "stale": (sample_stale, "x is still empty whenever you call conditionals"),
    "reverse": (sampling(pixels=lambda dim: reversed(range(dim))), "begin with the last pixel"),
    "threshold": (
        sampling(choose=lambda p, g: (p > 0.5).float()),
        "You take the more probable value",
    ),
    "one u for all rows": (
        sampling(choose=lambda p, g: (torch.rand(1, generator=g) < p).float()),
        "one random number decides for all of them",
    ),
    "one row for all": (
        lambda c, n, dim, g: sample(c, 1, dim, g).repeat(n, 1),
        "one random number decides for all of them",
    ),
    "zeros": (lambda c, n, dim, g: torch.zeros(n, dim), "same"),
    "coins": (
        lambda c, n, dim, g: torch.randint(2, (n, dim), generator=g).float(),
        "Your draws don't follow p(x)",
    ),
    "shifted": (sample_shifted, "χ²"),
    "probabilities": (sample_means, "other numbers than 0 and 1"),
    "first pixel global": (
        sampling(choose=lambda p, g: bernoulli(p, None if p.std() < 1e-5 else g)),
        "noise comes from elsewhere",
    ),
    "dim first": (lambda c, n, dim, g: sample(c, n, dim, g).T, "x has shape [4, 4000]"),
    "integers": (lambda c, n, dim, g: sample(c, n, dim, g).long(), "x is of dtype int64"),
    "integer x": (
        lambda c, n, dim, g: c(torch.zeros(n, dim, dtype=torch.long)),
        "You call conditionals on dtype int64",
    ),
    "part of x": (
        lambda c, n, dim, g: c(torch.zeros(n, 1)),
        "You call conditionals on a tensor of shape [4000, 1]",
    ),
    "one row of x": (lambda c, n, dim, g: c(torch.zeros(dim)), "a tensor of shape [4]"),
    "pixel number": (lambda c, n, dim, g: c(0), "You call conditionals with a int"),
    "NaN": (
        lambda c, n, dim, g: c(torch.full((n, dim), math.nan)),
        "an x that holds NaN or infinity",
    ),
}

# --- bayes_classifier ----------------------------------------------------------------------------


def posterior(ll, lp):
    joint = ll + lp
    return joint - torch.logsumexp(joint, dim=1, keepdim=True)


def posterior_by_largest(ll, lp):
    joint = ll + lp
    joint = joint - joint.max(dim=1, keepdim=True).values
    return joint - joint.exp().sum(1, keepdim=True).log()


def posterior_by_pairs(ll, lp):
    joint = ll + lp
    return -torch.logsumexp(joint[:, None, :] - joint[:, :, None], dim=2)


def naive_posterior(ll, lp):
    joint = (ll + lp).exp()
    return (joint / joint.sum(1, keepdim=True)).log()


def posterior_by_evidence(ll, lp, eps=0.0):
    return ll + lp - ((ll + lp).exp().sum(1, keepdim=True) + eps).log()


BAYES_RIGHT = [posterior, log_posterior, posterior_by_largest, posterior_by_pairs]
SMALL = "Right for log-likelihoods near 0, but"
BAYES_WRONG = {
    "naive evidence": (posterior_by_evidence, "your result is not finite"),
    "eps": (lambda ll, lp: posterior_by_evidence(ll, lp, 1e-30), "your result is off"),
    "largest of all": (
        lambda ll, lp: naive_posterior(ll - ll.max(), lp),
        SMALL,
    ),
    "half": (lambda ll, lp: posterior(ll / 2, lp), "ratios are not those of likelihood times"),
    "plus one": (lambda ll, lp: posterior(ll, lp) + 1, "row 0 add up to 2.72, not to 1"),
}

# --- completion ----------------------------------------------------------------------------------


def completion_by_loop(x, conditionals, places, known):
    """Of probabilities, set after set."""
    both, given = 0.0, 0.0
    for p, place in zip(conditionals, places, strict=True):
        if place[known].max() > place[~known].min():
            continue
        p = p * x + (1 - p) * (1 - x)
        both = both + p.prod(1)
        given = given + p[:, known].prod(1)
    return (both / given).log()


def completion_by_weights(x, conditionals, places, known):
    able = (places.argsort(1)[:, : int(known.sum())].unsqueeze(2) == known.nonzero()[:, 0]).any(2)
    p = torch.where(x > 0, conditionals, 1 - conditionals)[able.all(1)].log()
    weights = p[..., known].sum(2).log_softmax(0)
    return (weights + p[..., ~known].sum(2)).logsumexp(0)


COMPLETION_RIGHT = [completion_by_loop, completion_log_prob, completion_by_weights]

ALL = {
    "01.predict_tables": (TABLES_RIGHT, TABLES_WRONG),
    "01.sample": (SAMPLE_RIGHT, SAMPLE_WRONG),
    "01.bayes_classifier": (BAYES_RIGHT, BAYES_WRONG),
    "01.break_the_order": (LEAK_RIGHT, LEAK_WRONG),
    "01.blind_spot": (BLIND_RIGHT, BLIND_WRONG),
    "01.blind_spot_5x5": (WIDE_RIGHT, {}),
    "01.completion": (COMPLETION_RIGHT, {}),
}


class TestExercises(ExerciseLaws):
    chapter = "01"
    cases = ALL

    def times(self, name, answer):
        if name == "01.break_the_order" and answer in LEAK_RIGHT[1:]:
            return 3  # a model is fitted each time
        return super().times(name, answer)


def test_breaking_the_order_shows_what_it_does():
    reason = check("01.break_the_order", leaky_masks).reason
    total = float(reason.split("add up to ")[1].split()[0])
    assert 40 < total <= 64
    assert "p(x_i | x_<i, x_i)" in reason
