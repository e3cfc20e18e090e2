"""Time embeddings and the perceptron that is told the time, against their formulas written out."""

import math
import re

import pytest
import torch

from course_lib.nn import TimeEmbedding, TimeMLP


@pytest.fixture(autouse=True)
def _the_same_start_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


# --- the embedding -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1000.0, 0.5])
def test_waves_are_the_formula(scale):
    embedding = TimeEmbedding(8, 4, scale=scale).double()
    t = torch.tensor([0.0, 0.25, 1.0, 3.0], dtype=torch.float64)
    waves = embedding.waves(t)
    assert waves.shape == (4, 8)
    for row, time in zip(waves, t.tolist(), strict=True):
        for i in range(4):
            angle = scale * time * 10_000 ** (-i / 4)
            # The rates are kept in single precision.
            assert math.isclose(row[i], math.cos(angle), abs_tol=1e-6 * max(1, angle))
            assert math.isclose(row[4 + i], math.sin(angle), abs_tol=1e-6 * max(1, angle))


def test_the_longest_wave():
    """Of 64 numbers: from 2π to 47,000 steps."""
    rates = TimeEmbedding(64, 4).rates
    assert rates.shape == (32,)
    assert rates[0] == 1
    assert math.isclose(2 * math.pi / rates[-1], 2 * math.pi * 10_000 ** (31 / 32), rel_tol=1e-5)


@pytest.mark.parametrize(("n_features", "scale", "count"), [(16, 1.0, 1000), (64, 1000.0, 1000)])
def test_all_times_differ(n_features, scale, count):
    t = torch.arange(count) / scale if scale > 1 else torch.arange(count)
    waves = TimeEmbedding(n_features, 4, scale=scale).waves(t)
    apart = torch.cdist(waves, waves) + 10 * torch.eye(count)
    assert apart.min() > 0.1
    assert torch.allclose(waves.norm(dim=1), torch.tensor((n_features / 2) ** 0.5))


def test_the_embedding_is_two_layers_and_a_class():
    embedding = TimeEmbedding(6, 5, n_classes=3).double()
    t, y = torch.tensor([0, 7]), torch.tensor([2, 0])
    first, _, second = embedding.layers
    h = embedding.waves(t) @ first.weight.T + first.bias
    h = h * h.sigmoid()
    expected = h @ second.weight.T + second.bias + embedding.classes.weight[y]
    torch.testing.assert_close(embedding(t, y), expected)
    assert first.weight.shape == (5, 6)
    assert second.weight.shape == (5, 5)
    assert embedding.classes.weight.shape == (3, 5)
    assert not torch.allclose(embedding(t, y), embedding(t, 1 - y.clamp(max=1)))
    plain = TimeEmbedding(6, 5)
    assert plain.classes is None
    assert plain(t).shape == (2, 5)
    assert set(plain.state_dict()) == {
        f"layers.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 4), {}, "n_features must be an integer of at least 2, got 0"),
        ((2.0, 4), {}, "n_features must be an integer of at least 2, got 2.0"),
        ((7, 4), {}, "n_features must be even, got 7"),
        ((8, 0), {}, "n_out must be an integer of at least 1, got 0"),
        ((8, 4), {"n_classes": 0}, "n_classes must be an integer of at least 1, got 0"),
        ((8, 4), {"scale": 0}, "scale must be a finite number above 0, got 0"),
        ((8, 4), {"scale": math.inf}, "scale must be a finite number above 0, got inf"),
    ],
)
def test_bad_embeddings_are_named(arguments, options, message):
    with refuses(message):
        TimeEmbedding(*arguments, **options)


def test_smallest_embedding():
    embedding = TimeEmbedding(2, 1, n_classes=1)
    assert embedding(torch.tensor([5]), torch.tensor([0])).shape == (1, 1)
    assert embedding.waves(torch.tensor([5])).tolist()[0] == pytest.approx(
        [math.cos(5), math.sin(5)], abs=1e-6
    )


# --- the perceptron ----------------------------------------------------------------------------


def test_the_perceptron_is_the_formula():
    net = TimeMLP(3, [6, 6], n_classes=2, scale=10.0).double()
    x, t, y = randn(4, 3).double(), torch.tensor([0.0, 0.1, 0.5, 1.0]), torch.tensor([0, 1, 1, 0])
    embedded = net.time(t, y)
    assert net.time.scale == 10
    assert net.time.rates.shape == (32,)
    h = x
    for layer in net.layers:
        h = (h @ layer.weight.T + layer.bias) * (1 + embedded)
        h = h * h.sigmoid()
    torch.testing.assert_close(net(x, t, y), h @ net.out.weight.T + net.out.bias)
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(6, 3), (6, 6)]
    assert net.event_shape == (3,)


def test_defaults():
    net = TimeMLP(2)
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(128, 2), (128, 128), (128, 128)]
    assert net.time.classes is None
    assert net.time.scale == 1


def test_time_class_and_point_matter_and_reach_every_parameter():
    net = TimeMLP(2, [8], n_classes=3)
    x, t, y = randn(5, 2), torch.arange(5) * 100, torch.tensor([0, 1, 2, 0, 1])
    out = net(x, t, y)
    assert (net(x, t + 1, y) != out).any(1).all()
    assert (net(x, t, (y + 1) % 3) != out).any(1).all()
    assert (net(x + 0.1, t, y) != out).any(1).all()
    out.square().sum().backward()
    for p in net.parameters():
        assert (p.grad != 0).any()
    # One example's output is its own.
    torch.testing.assert_close(net(x[2:3], t[2:3], y[2:3]), out[2:3])


def test_times_may_be_of_any_real_kind():
    net = TimeMLP(2, [8])
    x = randn(3, 2)
    expected = net(x, torch.tensor([0, 5, 9]))
    for dtype in (torch.int32, torch.float32, torch.float64, torch.float16):
        out = net(x, torch.tensor([0, 5, 9], dtype=dtype))
        assert out.dtype == torch.float32
        assert torch.equal(out, expected)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "dim must be an integer of at least 1, got 0"),
        ((2, 64), {}, "hidden must be a sequence of integers, got 64"),
        ((2, [8, 0]), {}, "hidden[1] must be an integer of at least 1, got 0"),
        ((2, [8, 9]), {}, "hidden must be layers of one width, at least one, got [8, 9]"),
        ((2, []), {}, "hidden must be layers of one width, at least one, got []"),
        ((2,), {"n_classes": 0}, "n_classes must be an integer of at least 1, got 0"),
        ((2,), {"scale": -1}, "scale must be a finite number above 0, got -1"),
    ],
)
def test_bad_perceptrons_are_named(arguments, options, message):
    with refuses(message):
        TimeMLP(*arguments, **options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3), "x must have shape [B, 2], got [3]"),
        (torch.zeros(3, 3), "x must have shape [B, 2], got [3, 3]"),
        (torch.zeros(3, 2).double(), "x must be torch.float32 like the model, got torch.float64"),
        (torch.full((3, 2), math.nan), "x must be finite, got NaN or infinite values"),
        (torch.zeros(3, 2).long(), "x must be a floating-point tensor, got torch.int64"),
    ],
)
def test_bad_points_are_named(x, message):
    with refuses(message):
        TimeMLP(2, [4])(x, torch.zeros(3))


BAD_TIMES = [
    (torch.zeros(2), "t must be a tensor [3] of times, got torch.float32 [2]"),
    (torch.zeros(3, 1), "t must be a tensor [3] of times, got torch.float32 [3, 1]"),
    (torch.zeros(()), "t must be a tensor [3] of times, got torch.float32 []"),
    (torch.zeros(3).bool(), "t must be a tensor [3] of times, got torch.bool [3]"),
    (torch.zeros(3) * 1j, "t must be a tensor [3] of times, got torch.complex64 [3]"),
    (0.5, "t must be a tensor [3] of times, got 0.5"),
    (None, "t must be a tensor [3] of times, got None"),
]


@pytest.mark.parametrize(("t", "message"), BAD_TIMES)
def test_bad_times_are_named(t, message):
    with refuses(message):
        TimeMLP(2, [4])(torch.zeros(3, 2), t)


@pytest.mark.parametrize(
    ("n_classes", "y", "message"),
    [
        (
            None,
            torch.zeros(2).long(),
            "y must be None for a model without classes, got tensor([0, 0])",
        ),
        (3, None, "y must be an int64 tensor [2] of classes from 0 to 2, got None"),
        (
            3,
            torch.tensor([0, 3]),
            "y must be an int64 tensor [2] of classes from 0 to 2, got 3",
        ),
        (
            3,
            torch.zeros(1).long(),
            "y must be an int64 tensor [2] of classes from 0 to 2, got torch.int64 [1]",
        ),
    ],
)
def test_bad_classes_are_named(n_classes, y, message):
    with refuses(message):
        TimeMLP(2, [4], n_classes=n_classes)(torch.zeros(2, 2), torch.zeros(2), y)


@pytest.mark.parametrize("n_classes", [None, 3])
def test_one_time_for_all_is_embedded_once(n_classes):
    """As ``expand`` gives it, whose copies lie at one place: the same numbers, and less work."""
    embedding, rows = TimeEmbedding(8, 16, n_classes=n_classes), []
    y = None if n_classes is None else torch.tensor([2, 0, 1, 1])
    embedding.layers[0].register_forward_hook(lambda _, x, __: rows.append(len(x[0])))
    one = torch.tensor(0.7)
    shared, copied = embedding(one.expand(4), y), embedding(one.repeat(4), y)
    assert rows == [1, 4]
    assert shared.shape == (4, 16)
    torch.testing.assert_close(shared, copied)
    different = embedding(torch.tensor([0.7, 0.1, 0.7, 0.2]), y)
    torch.testing.assert_close(different[2], copied[2])
    assert not torch.allclose(different[1], copied[1])
