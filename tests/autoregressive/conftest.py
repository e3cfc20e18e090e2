"""What the tests of autoregressive models share: models of every kind, and all their states."""

import itertools
from dataclasses import dataclass

import pytest
import scipy.stats
import torch

from course_lib.attention import naive_attention
from course_lib.autoregressive import (
    FVSBN,
    MADE,
    NADE,
    NaivePixelCNN,
    PixelCNN,
    PixelTransformer,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20160616)


def shuffled(dim):
    """An order that is not its own inverse: 4 2 0 3 1 for five coordinates."""
    return [*range(1, dim, 2), *range(0, dim, 2)][::-1]


VECTOR_MODELS = {
    "fvsbn": FVSBN,
    "fvsbn shuffled": lambda dim: FVSBN(dim, order=shuffled(dim)),
    "nade": lambda dim: NADE(dim, 4),
    "nade shuffled": lambda dim: NADE(dim, 3, order=shuffled(dim)),
    "made": lambda dim: MADE(dim, [20]),
    "made deep shuffled": lambda dim: MADE(dim, [12, 9], order=shuffled(dim)),
    "made direct": lambda dim: MADE(dim, [7], order=shuffled(dim), direct=True),
    "made random order": lambda dim: MADE(dim, [16], order="random", seed=3),
    "made 3 sets": lambda dim: MADE(dim, [12, 12], order=shuffled(dim), n_masks=3),
    "made 3 orders": lambda dim: MADE(dim, [12], order="random", n_masks=3, direct=True, seed=1),
}

IMAGE_MODELS = {
    "naive": lambda: NaivePixelCNN(6, 2),
    "naive wide kernel": lambda: NaivePixelCNN(3, 2, kernel_size=5),
    "naive 3 levels": lambda: NaivePixelCNN(6, 2, levels=3),
    "pixelcnn": lambda: PixelCNN(5, 3),
    "pixelcnn one layer": lambda: PixelCNN(5, 1),
    "pixelcnn wide kernels": lambda: PixelCNN(4, 3, kernel_size=5, first_kernel_size=3),
    "pixelcnn 3 levels": lambda: PixelCNN(4, 2, levels=3),
    "pixelcnn classes": lambda: PixelCNN(4, 2, n_classes=3),
    "pixelcnn 3 levels, classes": lambda: PixelCNN(4, 2, levels=3, n_classes=2),
    "transformer": lambda: PixelTransformer(8, 2, dim=8, depth=2, heads=2),
    "transformer 3 levels, classes": lambda: PixelTransformer(
        8, 3, dim=6, depth=1, heads=3, n_classes=2, attend=naive_attention
    ),
}
MODELS = [*VECTOR_MODELS, *IMAGE_MODELS]

each_model = pytest.mark.parametrize("name", MODELS)
each_vector_model = pytest.mark.parametrize("name", VECTOR_MODELS)
each_image_model = pytest.mark.parametrize("name", IMAGE_MODELS)


@dataclass
class Case:
    """A model, the shape of one example, and every example that there is."""

    model: torch.nn.Module
    shape: tuple[int, ...]

    @property
    def states(self):
        return all_states(self.shape, self.model.levels)

    @property
    def order(self):
        """Where the coordinates of a flattened example stand in the model's (first) order."""
        return list(getattr(self.model, "order", range(torch.Size(self.shape).numel())))

    @property
    def conditions(self):
        """What ``walk`` and ``conditionals`` can be given: each mask set, each class."""
        if isinstance(self.model, MADE):
            return [{"mask_set": k} for k in range(self.model.n_masks)]
        if classes := getattr(self.model, "n_classes", None):
            return [{"y": k} for k in range(classes)]
        return [{}]


def randomize(model, generator, scale=1.5):
    """Give every parameter a random value: conditionals far from even, no bias that is zero."""
    with torch.no_grad():
        for module in model.modules():
            for p in module.parameters(recurse=False):
                p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
                if p.ndim > 1 and not isinstance(module, torch.nn.Embedding):
                    p.div_(p[0].numel() ** 0.5)
    return model


@torch.no_grad()
def randomize_images(model, generator):
    """The same for a model of images, with few units asleep, and logits that differ by about 1."""
    randomize(model, generator)
    if isinstance(model, NaivePixelCNN):
        before_relu, last = [*model.convolutions], model.head
    elif isinstance(model, PixelTransformer):
        before_relu, last = [], model.head[1]
    else:
        before_relu, last = [model.layers[-1].out, model.head[1]], model.head[3]
        model.head[1].weight.abs_()
    for layer in before_relu:
        layer.bias.abs_().add_(1)
    x = torch.randint(model.levels, (300, 1, 2, 4), generator=generator).double()
    y = torch.randint(model.n_classes, (300,), generator=generator) if model.n_classes else None
    logits = model.logits(x, y)
    mean, std = logits.mean(dim=(0, 2, 3)), logits.std(dim=(0, 2, 3))
    last.weight.div_(std.reshape(-1, *[1] * (last.weight.ndim - 1)))
    last.bias.sub_(mean).div_(std)
    last.bias.add_(torch.randn(model.levels, generator=generator).double() / 2)
    return model


def make(name, generator, dim=5, size=(2, 3)):
    """The model of that name in double precision, with random parameters."""
    if name in VECTOR_MODELS:
        return Case(randomize(VECTOR_MODELS[name](dim).double(), generator), (dim,))
    return Case(randomize_images(IMAGE_MODELS[name]().double(), generator), (1, *size))


def all_states(shape, levels):
    """Every example of a shape, ``[levels^n, *shape]``, in counting order."""
    n = torch.Size(shape).numel()
    states = list(itertools.product(range(levels), repeat=n))
    return torch.tensor(states, dtype=torch.float64).reshape(-1, *shape)


def spread(condition, n):
    """A condition for ``n`` examples: a class becomes a label for each."""
    return {key: torch.full((n,), k) if key == "y" else k for key, k in condition.items()}


def walked(model, x, condition):
    """The conditionals ``[B, n, levels]`` by ``walk``, at the places of their coordinates."""
    probabilities = torch.full((len(x), x[0].numel(), model.levels), torch.nan, dtype=x.dtype)
    places = torch.arange(x[0].numel()).reshape(1, *x.shape[1:])
    for where, p in model.walk(x, **spread(condition, len(x))):
        place = places[(slice(0, 1), *where[1:])].item()
        assert probabilities[:, place].isnan().all(), "visited twice"
        probabilities[:, place] = p
    return probabilities


def chi2_pvalue(x, states, probabilities):
    """How well draws ``x`` agree with the exact probabilities of all states."""
    levels = int(states.max()) + 1
    weights = levels ** torch.arange(states[0].numel() - 1, -1, -1)
    index = (x.flatten(1).long() * weights).sum(dim=1)
    assert torch.equal((states.flatten(1).long() * weights).sum(dim=1), torch.arange(len(states)))
    counts = torch.bincount(index, minlength=len(states)).double()
    assert counts[probabilities == 0].sum() == 0
    expected = probabilities * len(x)
    busy = expected >= 5
    cells = [counts[busy], expected[busy]]
    if expected[~busy].sum() >= 5:  # the rare states share a cell
        cells = [
            torch.cat([cell, rare.sum()[None]])
            for cell, rare in zip(cells, [counts[~busy], expected[~busy]], strict=True)
        ]
    observed, expected = cells
    assert len(observed) > 1
    expected = expected * observed.sum() / expected.sum()
    return scipy.stats.chisquare(observed, expected).pvalue
