"""Both PixelCNNs: what a pixel sees, against a search; layers, against full masked kernels."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_lib.autoregressive import ImageAutoregressive, NaivePixelCNN, PixelCNN
from tests.autoregressive.conftest import (
    IMAGE_MODELS,
    all_states,
    chi2_pvalue,
    each_image_model,
    make,
    randomize_images,
)

CLASSES = ["pixelcnn classes", "pixelcnn 3 levels, classes"]
each_with_classes = pytest.mark.parametrize("name", CLASSES)


def raster(size):
    return [(row, column) for row in range(size[0]) for column in range(size[1])]


def seen_by_logits(model, x, y, monkeypatch):
    """``[i][j]``: whether the logits at pixel i depend on pixel j, by autograd.

    All channels count in which the network sees a pixel, not its value alone; and several images,
    since a unit may sleep.
    """
    encoded = model.encode(x)
    monkeypatch.setattr(model, "encode", lambda encoded: encoded)
    n = x[0].numel()
    seen = torch.zeros(n, n, dtype=torch.bool)
    for k in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(
            lambda e, k=k: model.logits(e[None], None if y is None else y[k : k + 1])[0],
            encoded[k],
        )
        dependence = jacobian.flatten(4).flatten(1, 2).movedim(2, -1).flatten(3)
        seen |= (dependence != 0).any(dim=-1).any(dim=0)
    return seen


def cone(size, layers, reach):
    """What pixel i sees by the naive stack: a search through the masks, layer by layer."""
    inside = set(raster(size))

    def look(pixel, own):
        for row in range(-reach, 1):
            for column in range(-reach, reach + 1):
                if row < 0 or column < 0 or (own and column == 0):
                    place = pixel[0] + row, pixel[1] + column
                    if place in inside:
                        yield place

    seen = []
    for pixel in raster(size):
        places = {pixel}
        for layer in reversed(range(layers)):
            places = {place for one in places for place in look(one, own=layer > 0)}
        seen.append([place in places for place in raster(size)])
    return torch.tensor(seen)


def two_stack_cone(size, reaches):
    """What pixel i sees by the two stacks: a search over pairs of stack and pixel."""
    inside = set(raster(size))

    def look(stack, pixel, layer):
        reach, first = reaches[layer], layer == 0
        for row in range(-reach, 0 if first else 1):
            for column in range(-reach, reach + 1):
                yield "vertical", (pixel[0] + row, pixel[1] + column)
        if stack == "horizontal":
            for column in range(-reach, 0 if first else 1):
                yield "horizontal", (pixel[0], pixel[1] + column)

    seen = []
    for pixel in raster(size):
        nodes = {("horizontal", pixel)}
        for layer in reversed(range(len(reaches))):
            nodes = {
                (stack, place)
                for node in nodes
                for stack, place in look(*node, layer)
                if place in inside
            }
        seen.append([any(place == node[1] for node in nodes) for place in raster(size)])
    return torch.tensor(seen)


def before(size):
    n = size[0] * size[1]
    return torch.ones(n, n, dtype=torch.bool).tril(-1)


@pytest.mark.parametrize(
    ("layers", "kernel_size", "size"),
    [(1, 3, (3, 4)), (2, 3, (4, 5)), (3, 3, (4, 7)), (6, 3, (4, 6)), (2, 5, (4, 7))],
)
def test_the_naive_stack_sees_its_cone(layers, kernel_size, size, generator, monkeypatch):
    model = NaivePixelCNN(6, layers, kernel_size=kernel_size).double()
    randomize_images(model, generator)
    x = torch.randint(2, (4, 1, *size), generator=generator).double()
    expected = cone(size, layers, kernel_size // 2)
    assert torch.equal(seen_by_logits(model, x, None, monkeypatch), expected)
    assert not expected[~before(size)].any()
    blind = before(size) & ~expected
    assert blind.any(), "the blind spot"
    if layers == 6:  # no depth removes it: one row up, two columns to the right
        assert blind[size[1], 2]


@pytest.mark.parametrize(
    ("layers", "first", "kernel_size", "size"),
    [
        (1, 3, 3, (3, 5)),
        (1, 7, 3, (4, 5)),
        (2, 3, 3, (4, 6)),
        (2, 5, 3, (4, 5)),
        (3, 3, 5, (4, 6)),
        (5, 3, 3, (4, 6)),
    ],
)
@pytest.mark.parametrize("n_classes", [None, 2])
def test_the_two_stacks_see_their_cone(
    layers, first, kernel_size, size, n_classes, generator, monkeypatch
):
    model = PixelCNN(
        6, layers, first_kernel_size=first, kernel_size=kernel_size, n_classes=n_classes
    ).double()
    randomize_images(model, generator)
    x = torch.randint(2, (4, 1, *size), generator=generator).double()
    y = None if n_classes is None else torch.tensor([0, 1, 0, 1])
    expected = two_stack_cone(size, [first // 2] + [kernel_size // 2] * (layers - 1))
    assert torch.equal(seen_by_logits(model, x, y, monkeypatch), expected)
    assert not expected[~before(size)].any()
    if layers == 5:
        assert torch.equal(expected, before(size)), "no blind spot: a pixel sees all before it"


@each_image_model
def test_no_conditional_sees_itself_or_the_future(name, generator):
    """The autograd Jacobian is exactly zero there, and another value there changes nothing."""
    case = make(name, generator, size=(2, 4))
    model, future = case.model, ~before((2, 4))
    x = torch.randint(model.levels, case.shape, generator=generator).double()
    for condition in case.conditions:
        y = torch.tensor([condition["y"]]) if condition else None
        jacobian = torch.autograd.functional.jacobian(
            lambda p, y=y: model.conditionals(p[None], y)[0].flatten(1).T, x
        )
        jacobian = jacobian.reshape(8, -1, 8).movedim(1, -1)
        assert (jacobian[future] == 0).all()
        assert (jacobian[7, 6] != 0).all()
        others = x.expand(8, 1, 2, 4).clone()
        others.view(8, 8).diagonal().copy_((x.flatten() + 1) % model.levels)
        p = model.conditionals(others, None if y is None else y.expand(8)).flatten(2)
        same = model.conditionals(x[None], y).flatten(2)
        moved = (p - same).abs().amax(dim=1).T  # [i, j]: how far i moves when j changes
        assert moved[future].max() < 1e-14
        assert (moved[range(1, 8), range(7)][[0, 1, 2, 4, 5, 6]] > 1e-9).all(), "its left neighbour"


def full_kernel(weight, mask, place, generator):
    """A k×k kernel that holds ``weight`` at ``place`` and something masked everywhere else."""
    kernel = torch.randn(*weight.shape[:2], *mask.shape, generator=generator).double()
    kernel[(..., *place)] = weight
    return kernel * mask


@pytest.mark.parametrize(
    "name",
    ["pixelcnn", "pixelcnn one layer", "pixelcnn wide kernels", "pixelcnn 3 levels", *CLASSES],
)
def test_shifted_convolutions_are_masked_ones(name, generator):
    """The gated PixelCNN once more, with square kernels that are masked and never shifted."""
    case = make(name, generator)
    model = case.model
    x = torch.randint(model.levels, (6, 1, 4, 5), generator=generator).double()
    y = torch.randint(model.n_classes, (6,), generator=generator) if model.n_classes else None
    v = h = torch.cat([x / (model.levels - 1), *((x == level) for level in range(model.levels))], 1)
    for number, layer in enumerate(model.layers):
        reach = layer.reach
        size = 2 * reach + 1
        extent = reach if number == 0 else reach + 1
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        above = (rows < reach) | ((rows == reach) & (number > 0))
        left = (rows == reach) & ((columns < reach) | ((columns == reach) & (number > 0)))
        whole = slice(None)
        vertical = full_kernel(layer.vertical.weight, above, (slice(0, extent), whole), generator)
        horizontal = full_kernel(
            layer.horizontal.weight,
            left,
            (slice(reach, reach + 1), slice(0, extent)),
            generator,
        )
        up = F.conv2d(v, vertical, layer.vertical.bias, padding=reach)
        told = torch.einsum("oi,bihw->bohw", layer.down.weight[:, :, 0, 0], up)
        told = told + layer.down.bias[:, None, None]
        along = F.conv2d(h, horizontal, layer.horizontal.bias, padding=reach) + told
        if y is not None:
            table = layer.classes.weight[y][:, :, None, None]
            up, along = up + table[:, : up.shape[1]], along + table[:, up.shape[1] :]
        c = up.shape[1] // 2
        v = up[:, :c].tanh() * (1 / (1 + (-up[:, c:]).exp()))
        gated = along[:, :c].tanh() * (1 / (1 + (-along[:, c:]).exp()))
        gated = torch.einsum("oi,bihw->bohw", layer.out.weight[:, :, 0, 0], gated)
        gated = gated + layer.out.bias[:, None, None]
        h = gated if number == 0 else h + gated
    for layer in (model.head[1], model.head[3]):
        h = torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], h.clamp(min=0))
        h = h + layer.bias[:, None, None]
    torch.testing.assert_close(model.logits(x, y), h, rtol=1e-11, atol=1e-11)


def test_the_naive_stack_is_its_formula(generator):
    model = make("naive 3 levels", generator).model
    x = torch.randint(3, (6, 1, 4, 5), generator=generator).double()
    h = torch.cat([x / 2, x == 0, x == 1, x == 2], dim=1)
    for k, convolution in enumerate(model.convolutions):
        kernel = convolution.weight.clone()
        kernel[:, :, 2] = 0
        kernel[:, :, 1, 1 if k == 0 else 2 :] = 0
        h = F.conv2d(h, kernel, convolution.bias, padding=1).clamp(min=0)
    h = torch.einsum("oi,bihw->bohw", model.head.weight[:, :, 0, 0], h)
    expected = h + model.head.bias[:, None, None]
    torch.testing.assert_close(model.logits(x), expected, rtol=1e-12, atol=1e-12)


def test_how_an_image_is_encoded():
    x = torch.tensor([[[[0.0, 1, 2], [2, 2, 0]]]])
    expected = [
        [[0, 0.5, 1], [1, 1, 0]],
        [[1, 0, 0], [0, 0, 1]],
        [[0, 1, 0], [0, 0, 0]],
        [[0, 0, 1], [1, 1, 0]],
    ]
    encoded = NaivePixelCNN(2, 1, levels=3).encode(x)
    assert encoded.tolist() == [expected]
    assert encoded.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, [(3, 3, 7), (5, 2, 3), (5, 2, 3)]),
        (
            {"kernel_size": 5, "first_kernel_size": 3, "levels": 4},
            [(5, 1, 3), (5, 3, 5), (5, 3, 5)],
        ),
    ],
)
def test_the_kernels_have_the_sizes_asked_for(options, layers):
    model = PixelCNN(5, 3, **options)
    shapes = [
        (n_in, extent, width)
        for n_in, (extent, width) in (
            (layer.vertical.weight.shape[1], layer.vertical.weight.shape[2:])
            for layer in model.layers
        )
    ]
    assert shapes == layers
    assert [tuple(layer.horizontal.weight.shape[2:]) for layer in model.layers] == [
        (1, extent) for _, extent, _ in layers
    ]
    assert NaivePixelCNN(5, 2).convolutions[1].weight.shape == (5, 5, 3, 3)
    assert NaivePixelCNN(5, 3, kernel_size=5).convolutions[0].weight.shape == (5, 3, 5, 5)


@each_with_classes
def test_bayes(name, generator):
    """p(x, y) = p(y) p(x | y) sums to one; p(x) is its sum over y; p(y | x) its softmax."""
    case = make(name, generator, size=(2, 3))
    model, x = case.model, case.states
    joint = model.log_joint(x)
    assert joint.shape == (len(x), model.n_classes)
    assert abs(joint.exp().sum() - 1) < 1e-12
    for k in range(model.n_classes):
        likelihood = model.log_prob(x, torch.full((len(x),), k)).exp()
        torch.testing.assert_close(joint[:, k].exp(), likelihood / model.n_classes)
        assert abs(joint[:, k].exp().sum() - 1 / model.n_classes) < 1e-12, "the prior is even"
    marginal = joint.exp().sum(dim=1)
    torch.testing.assert_close(model.log_prob(x), marginal.log())
    posterior = joint.exp() / marginal[:, None]
    torch.testing.assert_close(joint.softmax(dim=1), posterior)
    assert (posterior.std(dim=0) > 0.01).all(), "a classifier that tells nothing apart"


@each_with_classes
def test_labels_may_differ_within_a_batch(name, generator):
    case = make(name, generator)
    model, x = case.model, case.states[::5]
    y = torch.arange(len(x)) % model.n_classes
    joint = model.log_joint(x) + math.log(model.n_classes)
    torch.testing.assert_close(model.log_prob(x, y), joint[range(len(x)), y])
    one_by_one = torch.cat([model.conditionals(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(model.conditionals(x, y), one_by_one)


@each_with_classes
def test_the_loss_given_labels_is_that_of_the_conditional(name, generator):
    case = make(name, generator)
    x = case.states
    y = torch.randint(case.model.n_classes, (len(x),), generator=generator)
    expected = -case.model.log_prob(x, y).mean()
    torch.testing.assert_close(case.model.loss(x, y, generator=generator), expected)
    assert not torch.isclose(case.model.loss(x), expected, rtol=1e-4)


@each_with_classes
def test_samples_of_a_class(name, generator):
    case = make(name, generator, size=(2, 2))
    for k in range(case.model.n_classes):
        y = torch.full((10_000,), k)
        x = case.model.sample(10_000, y=y, size=(2, 2), generator=generator)
        p = case.model.log_prob(case.states, y[: len(case.states)]).detach().exp()
        assert chi2_pvalue(x, case.states, p) > 1e-6


@each_with_classes
def test_completions_given_a_class(name, generator):
    case = make(name, generator, size=(2, 2))
    x, y = torch.ones(10_000, 1, 2, 2).double(), torch.full((10_000,), 1)
    mask = torch.tensor([[[True, True], [False, False]]])
    drawn = case.model.complete(x, mask, y=y, generator=generator)
    p = case.model.log_prob(case.states, y[: len(case.states)]).detach().exp()
    p = p * (case.states[:, 0, 0] == 1).all(dim=1)
    assert chi2_pvalue(drawn, case.states, p / p.sum()) > 1e-6


def test_labels_are_drawn_only_where_they_are_needed(generator, monkeypatch):
    """Sampling without labels is sampling; no pass is spent on a posterior of nothing."""
    model = make("pixelcnn classes", generator).model
    monkeypatch.setattr(model, "log_conditionals", None)
    model.sample(2, generator=generator)
    y = torch.tensor([0, 2])
    model.complete(torch.zeros(2, 1, 2, 2).double(), torch.ones(1, 2, 2) > 0, y=y)


@each_image_model
def test_images_of_any_size(name, generator):
    case = make(name, generator)
    options = {"levels": case.model.levels}
    assert case.model.size == (8, 8)
    assert case.model.sample(2, generator=generator).shape == (2, 1, 8, 8)
    assert case.model.sample(3, size=[1, 5], generator=generator).shape == (3, 1, 1, 5)
    assert case.model.sample(1, size=(6, 2), generator=generator).shape == (1, 1, 6, 2)
    model = NaivePixelCNN(3, 1, size=[3, 5], **options)
    assert model.size == (3, 5)
    assert model.sample(2).shape == (2, 1, 3, 5)
    assert PixelCNN(3, 1, size=(4, 2), **options).sample(2).shape == (2, 1, 4, 2)


BAD_IMAGES = [
    (None, r"x must be a tensor of shape \[B, 1, any, any\], got NoneType"),
    (torch.zeros(1, 3, 3), r"x must have shape \[B, 1, any, any\], got \[1, 3, 3\]"),
    (torch.zeros(2, 3, 3, 3), r"x must have shape \[B, 1, any, any\], got \[2, 3, 3, 3\]"),
    (torch.zeros(0, 1, 3, 3), r"x must have shape \[B, 1, any, any\], got \[0, 1, 3, 3\]"),
    (torch.zeros(2, 1, 3, 0), r"x must have shape \[B, 1, any, any\], got \[2, 1, 3, 0\]"),
    (torch.zeros(1, 1, 3, 3).byte(), "x must be a floating-point tensor, got torch.uint8"),
    (torch.zeros(1, 1, 3, 3).double(), "x must be torch.float32 like the model, got torch.float64"),
    (torch.full((1, 1, 3, 3), math.inf), "x must be finite"),
    (torch.full((1, 1, 3, 3), 0.5), "x must hold {levels}, got 0.5"),
    (torch.full((1, 1, 3, 3), -1.0), "x must hold {levels}, got -1.0"),
    (torch.full((1, 1, 3, 3), 3.0), "x must hold {levels}, got 3.0"),
]


@each_image_model
@pytest.mark.parametrize(("x", "message"), BAD_IMAGES)
def test_bad_images_are_named(name, x, message):
    model = IMAGE_MODELS[name]()
    wanted = "zeros and ones" if model.levels == 2 else "whole numbers from 0 to 2"
    message = message.format(levels=wanted)
    y = torch.zeros(len(x) if x is not None else 1).long() if model.n_classes else None
    verbs = [
        lambda: model.log_prob(x),
        lambda: model.log_prob(x, y),
        lambda: model.loss(x, y),
        lambda: model.conditionals(x, y),
    ]
    if model.n_classes:
        verbs.append(lambda: model.log_joint(x))
    for verb in verbs:
        with pytest.raises(ValueError, match="^" + message):
            verb()
    message = message.replace("x must hold", "x where mask is True must hold")
    known = torch.ones(1, 3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="^" + message):
        model.complete(x, known, y=y)


@each_image_model
def test_the_largest_level_is_allowed(name, generator):
    model = IMAGE_MODELS[name]()
    x = torch.full((2, 1, 3, 3), model.levels - 1.0)
    assert torch.isfinite(model.log_prob(x)).all()


@pytest.mark.parametrize("verb", ["log_prob", "conditionals", "loss", "sample", "complete"])
@pytest.mark.parametrize(
    ("y", "got"),
    [
        (torch.tensor([0, 3]), "3"),
        (torch.tensor([-1, 0]), "-1"),
        (torch.tensor([0]), r"torch.int64 \[1\]"),
        (torch.tensor([[0, 1]]), r"torch.int64 \[1, 2\]"),
        (torch.tensor([0, 1]).int(), r"torch.int32 \[2\]"),
        (torch.tensor([0.0, 1.0]), r"torch.float32 \[2\]"),
        ([0, 1], r"\[0, 1\]"),
        (1, "1"),
    ],
)
def test_bad_labels_are_named(verb, y, got):
    model, x = PixelCNN(3, 1, n_classes=3), torch.zeros(2, 1, 3, 3)
    wanted = r"y must be an int64 tensor \[2\] of classes from 0 to 2, got "
    with pytest.raises(ValueError, match="^" + wanted + got):
        call(model, verb, x, y)
    assert call(model, verb, x, torch.tensor([0, 2])) is not None


def call(model, verb, x, y):
    if verb == "sample":
        return model.sample(len(x), y=y)
    if verb == "complete":
        return model.complete(x, torch.zeros_like(x, dtype=torch.bool), y=y)
    return getattr(model, verb)(x, y)


@pytest.mark.parametrize("verb", ["log_prob", "conditionals", "loss", "sample", "complete"])
@pytest.mark.parametrize("kind", [PixelCNN, NaivePixelCNN])
def test_labels_without_classes_are_named(kind, verb):
    with pytest.raises(
        ValueError, match=r"^y must be None for a model without classes, got tensor\(\[0, 1\]\)"
    ):
        call(kind(3, 1), verb, torch.zeros(2, 1, 3, 3), torch.tensor([0, 1]))


def test_missing_classes_are_named():
    with pytest.raises(ValueError, match=r"^y must be an int64 tensor \[2\] of classes.*got None"):
        PixelCNN(3, 1, n_classes=3).conditionals(torch.zeros(2, 1, 3, 3))
    for model in (PixelCNN(3, 1), NaivePixelCNN(3, 1)):
        with pytest.raises(
            ValueError, match=r"^log_joint must be .* with classes, got n_classes=None$"
        ):
            model.log_joint(torch.zeros(2, 1, 3, 3))


@pytest.mark.parametrize("kind", [PixelCNN, NaivePixelCNN])
@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (torch.ones(3, 3, dtype=torch.bool), r"torch.bool \[3, 3\]"),
        (torch.ones(1, 1, 3, 3, dtype=torch.bool), r"torch.bool \[1, 1, 3, 3\]"),
        (torch.ones(1, 3, 4, dtype=torch.bool), r"torch.bool \[1, 3, 4\]"),
        (torch.ones(2, 1, 3, 3), r"torch.float32 \[2, 1, 3, 3\]"),
        (None, "None"),
    ],
)
def test_bad_masks_are_named(kind, mask, got):
    wanted = r"mask must be a boolean tensor of shape \[2, 1, 3, 3\] or \[1, 3, 3\], got "
    with pytest.raises(ValueError, match="^" + wanted + got):
        kind(3, 1).complete(torch.zeros(2, 1, 3, 3), mask)


@pytest.mark.parametrize("kind", [PixelCNN, NaivePixelCNN])
def test_bad_draws_are_named(kind):
    model = kind(3, 1)
    x, mask = torch.zeros(2, 1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool)
    for n in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=r"^n must be an integer of at least 1, got"):
            model.sample(n)
    wanted = r"^generator must be a torch.Generator or None, got 3"
    for verb in (
        lambda: model.sample(2, generator=3),
        lambda: model.complete(x, mask, generator=3),
        lambda: model.loss(x, generator=3),
    ):
        with pytest.raises(ValueError, match=wanted):
            verb()
    with pytest.raises(ValueError, match=r"^x must be an ordinary dense tensor"):
        kind(3, 1).to("meta").sample(2)


BAD_SIZES = [
    ((3,), r"size must hold height and width, got \(3,\)"),
    ([], r"size must hold height and width, got \[\]"),
    ((1, 3, 3), r"size must hold height and width, got \(1, 3, 3\)"),
    (8, "size must be a sequence of integers, got 8"),
    ("88", "size must be a sequence of integers, got '88'"),
    ((3, 0), r"size\[1\] must be an integer of at least 1, got 0"),
    ((2.5, 3), r"size\[0\] must be an integer of at least 1, got 2.5"),
]


@pytest.mark.parametrize("kind", [PixelCNN, NaivePixelCNN])
@pytest.mark.parametrize(("size", "message"), BAD_SIZES)
def test_bad_sizes_are_named(kind, size, message):
    with pytest.raises(ValueError, match="^" + message):
        kind(3, 1, size=size)
    with pytest.raises(ValueError, match="^" + message):
        kind(3, 1).sample(2, size=size)


@pytest.mark.parametrize("kind", [PixelCNN, NaivePixelCNN])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"channels": 2.0}, "channels must be an integer of at least 1, got 2.0"),
        ({"layers": 0}, "layers must be an integer of at least 1, got 0"),
        ({"layers": [2]}, r"layers must be an integer of at least 1, got \[2\]"),
        ({"levels": 1}, "levels must be an integer of at least 2, got 1"),
        ({"levels": 2.5}, "levels must be an integer of at least 2, got 2.5"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"kernel_size": 1}, "kernel_size must be an integer of at least 3, got 1"),
        ({"kernel_size": (3, 3)}, r"kernel_size must be an integer of at least 3, got \(3, 3\)"),
    ],
)
def test_bad_arguments_are_named(kind, options, message):
    with pytest.raises(ValueError, match="^" + message):
        kind(**{"channels": 2, "layers": 2, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_kernel_size": 6}, "first_kernel_size must be odd, got 6"),
        ({"first_kernel_size": 1}, "first_kernel_size must be an integer of at least 3, got 1"),
        ({"n_classes": 0}, "n_classes must be an integer of at least 1, got 0"),
        ({"n_classes": 1.0}, "n_classes must be an integer of at least 1, got 1.0"),
    ],
)
def test_bad_arguments_of_the_gated_one_are_named(options, message):
    with pytest.raises(ValueError, match="^" + message):
        PixelCNN(2, 1, **options)


def test_the_smallest_model(generator):
    """One channel, one layer, one class, a kernel of 3: all minima are allowed."""
    model = PixelCNN(1, 1, n_classes=1, kernel_size=3, first_kernel_size=3, size=(1, 1))
    x = all_states((1, 1, 1), 2).float()
    assert abs(model.log_prob(x).exp().sum() - 1) < 1e-6
    torch.testing.assert_close(model.log_prob(x), model.log_joint(x)[:, 0])
    assert model.sample(2, generator=generator).shape == (2, 1, 1, 1)
    assert NaivePixelCNN(1, 1, kernel_size=3, size=(1, 1)).sample(1).shape == (1, 1, 1, 1)


def test_a_subclass_needs_no_more_than_logits(generator):
    class Even(ImageAutoregressive):
        def __init__(self):
            super().__init__(levels=3, n_classes=None, size=(1, 2))
            self.a = torch.nn.Parameter(torch.tensor([0.0, 1.0, -1.0]))

        def logits(self, x, y=None):
            return self.a[None, :, None, None].expand(len(x), 3, *x.shape[2:])

    model = Even()
    states = all_states((1, 1, 2), 3)
    p = torch.tensor([1, math.e, 1 / math.e]).double()
    p = torch.outer(p, p).flatten() / p.sum() ** 2
    torch.testing.assert_close(model.log_prob(states.float()).exp(), p.float())
    assert chi2_pvalue(model.sample(10_000, generator=generator), states, p) > 1e-6
