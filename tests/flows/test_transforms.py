"""Every transform against the definition: it inverts, and its log_det is the Jacobian's."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.flows import (
    AdditiveCoupling,
    DiagonalScaling,
    Flow,
    Permutation,
    Planar,
    StandardGaussian,
    Standardize,
)
from tests.flows.conftest import (
    CASES,
    IMAGE_TRANSFORMS,
    TRANSFORMS,
    draw,
    log_abs_det_jacobian,
    randomize,
)

each_transform = pytest.mark.parametrize("name", CASES)
each_point_transform = pytest.mark.parametrize("name", TRANSFORMS)
# Of points and of images alike; transforms of points with 2, 3 and 6 dimensions.
each_transform_and_dim = pytest.mark.parametrize(
    ("name", "dim"),
    [(name, dim) for name in TRANSFORMS for dim in (2, 3, 6)]
    + [(name, None) for name in IMAGE_TRANSFORMS],
)


def build(name, generator, *, dim=None, dtype=torch.float64):
    """The transform with random parameters, and the shape of what it takes."""
    shape, make = CASES[name] if dim is None else ((dim,), lambda: TRANSFORMS[name](dim))
    transform = make().to(dtype)
    scale = 0.4 if isinstance(transform, Flow) else 1.0  # of many, each does a part
    return randomize(transform, generator, scale), shape


@each_transform_and_dim
def test_inverse_undoes_forward(name, dim, generator):
    transform, shape = build(name, generator, dim=dim)
    x = draw(transform, (50, *shape), generator)
    x = x if x.min() >= 0 else 3 * x
    z, log_det = transform(x)
    back, back_log_det = transform.inverse(z)
    assert back.shape == x.shape
    assert z.numel() == x.numel()
    assert log_det.shape == back_log_det.shape == (50,)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-9)
    moves = z.shape != x.shape or not torch.allclose(z, x)
    assert moves, "the test needs a transform that moves points"


@each_transform_and_dim
def test_log_det_is_the_jacobians(name, dim, generator):
    transform, shape = build(name, generator, dim=dim)
    x = draw(transform, (3 if dim is None else 8, *shape), generator)
    z, log_det = transform(x)
    expected = log_abs_det_jacobian(lambda p: transform(p)[0], x)
    torch.testing.assert_close(log_det, expected, rtol=0, atol=1e-10)
    z = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    expected = log_abs_det_jacobian(lambda p: transform.inverse(p)[0], z)
    torch.testing.assert_close(transform.inverse(z)[1], expected, rtol=0, atol=1e-9)


@each_transform
def test_the_input_is_left_alone(name, generator):
    transform, shape = build(name, generator)
    x = draw(transform, (5, *shape), generator)
    before = x.clone()
    z = transform(x)[0].detach()
    assert torch.equal(x, before)
    before = z.clone()
    transform.inverse(z)
    assert torch.equal(z, before)


@each_transform
def test_log_det_passes_gradients_like_finite_differences(name, generator):
    transform, shape = build(name, generator)
    x = draw(transform, (3 if len(shape) == 1 else 2, *shape), generator).requires_grad_()
    z = torch.randn(transform(x)[0].shape, generator=generator, dtype=torch.float64)
    parameters = tuple(transform.parameters())

    def outputs(x, z, *_):
        return [y for y in (*transform(x), *transform.inverse(z)) if y.requires_grad]

    assert torch.autograd.gradcheck(
        outputs, (x, z.requires_grad_(), *parameters), atol=1e-5, fast_mode=len(shape) == 3
    )


@each_transform
def test_works_under_vmap(name, generator):
    transform, shape = build(name, generator)
    x = draw(transform, (6, *shape), generator)
    one_by_one = torch.func.vmap(lambda p: transform(p[None])[0][0])(x)
    torch.testing.assert_close(one_by_one, transform(x)[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # PyTorch's own, below jacfwd
@each_transform
@pytest.mark.parametrize("derivative", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians_of_a_batch_work_under_vmap(name, derivative, generator):
    transform, shape = build(name, generator)
    x = draw(transform, (3, *shape), generator)
    jacobians = torch.func.vmap(derivative(lambda p: transform(p.reshape(1, *shape))[0].flatten()))(
        x.flatten(1)
    )
    log_det = torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(log_det, transform(x)[1].expand(3), rtol=0, atol=1e-9)


@each_transform
def test_single_precision_is_enough(name, generator):
    transform, shape = build(name, generator, dtype=torch.float32)
    x = draw(transform, (20, *shape), generator, dtype=torch.float32)
    z, log_det = transform(x)
    back, back_log_det = transform.inverse(z)
    assert z.dtype == log_det.dtype == back.dtype == back_log_det.dtype == torch.float32
    torch.testing.assert_close(back, x, rtol=0, atol=1e-4)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-3)


@each_transform
def test_bad_input_is_named(name):
    shape, make = CASES[name]
    transform = make()
    batch = torch.zeros(2, *shape)
    bad = [
        (batch[0], rf"must have shape \[B, .*\], got {re.escape(str(list(shape)))}"),
        (batch[None], r"must have shape \[B, .*\], got \[1, 2, "),
        (batch[:0], r"must have shape \[B, .*\], got \[0, "),
        (batch.long(), "must be a floating-point tensor, got torch.int64"),
        (batch.double(), "must be torch.float32 like the model, got torch.float64"),
        (batch.tolist(), r"must be a tensor of shape \[B, .*\], got list"),
    ]
    if name != "squeeze":  # takes any number of channels
        one_more = torch.zeros(2, shape[0] + 1, *shape[1:])
        bad.append((one_more, r"must have shape \[B, .*\], got \[2, "))
    for x, message in bad:
        with pytest.raises(ValueError, match=r"^x " + message):
            transform(x)
        with pytest.raises(ValueError, match=r"^z " + message):
            transform.inverse(x)


@each_transform
def test_a_transform_looks_at_no_number(name, generator):
    """Whether all are finite is asked by a flow, once; a transform passes on what comes."""
    transform, shape = build(name, generator)
    flow = transform
    if not isinstance(transform, Flow):
        flow = Flow([transform], StandardGaussian(shape).double())
    for value in (math.nan, math.inf, -math.inf):
        bad = torch.full((2, *shape), value).double()
        with pytest.raises(ValueError, match=r"^x must be finite, got NaN or infinite values$"):
            flow(bad)
        with pytest.raises(ValueError, match=r"^z must be finite, got NaN or infinite values$"):
            flow.inverse(bad)
    if not isinstance(transform, Flow):
        bad = torch.full((2, *shape), math.nan).double()
        assert transform(bad)[0].isnan().any()
        assert transform.inverse(torch.full_like(transform(bad)[0], math.nan))[0].isnan().any()


@each_point_transform
@pytest.mark.parametrize("size", [(4,), (2, 2, 4), (2, 5), (0, 4)])
def test_the_wanted_shape_of_points_is_named(name, size):
    with pytest.raises(
        ValueError, match=rf"^x must have shape \[B, 4\], got {re.escape(str(list(size)))}$"
    ):
        TRANSFORMS[name](4)(torch.zeros(size))


@pytest.mark.parametrize("make", [DiagonalScaling, Permutation, Planar, Standardize])
@pytest.mark.parametrize("dim", [0, -1, 2.0, True, "2"])
def test_bad_dim_is_named(make, dim):
    with pytest.raises(ValueError, match=r"^dim must be an integer of at least 1, got"):
        make(dim)


def test_bad_coupling_arguments_are_named():
    with pytest.raises(ValueError, match=r"^dim must be an integer of at least 2, got 1"):
        AdditiveCoupling(1, [4], flip=False)
    with pytest.raises(ValueError, match=r"^hidden\[1\] must be an integer of at least 1, got 0"):
        AdditiveCoupling(4, [4, 0], flip=False)
    with pytest.raises(ValueError, match=r"^hidden must be a sequence of integers, got 4"):
        AdditiveCoupling(4, 4, flip=False)
    with pytest.raises(ValueError, match=r"^flip must be True or False, got 1"):
        AdditiveCoupling(4, [4], flip=1)
    with pytest.raises(TypeError):
        AdditiveCoupling(4, [4], False)


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_an_order_that_is_no_permutation_is_named(order):
    with pytest.raises(ValueError, match=r"^order must hold each of 0 ... 2 once, got \["):
        Permutation(3, order=order)


@pytest.mark.parametrize("dim", [2, 3, 4, 7])
@pytest.mark.parametrize("flip", [False, True])
def test_a_coupling_keeps_one_half_and_shifts_the_other(dim, flip, generator):
    coupling = randomize(AdditiveCoupling(dim, [8], flip=flip), generator)
    x = torch.randn(5, dim, generator=generator)
    z, log_det = coupling(x)
    kept, moved = (
        (slice(1, None, 2), slice(0, None, 2)) if flip else (slice(0, None, 2), slice(1, None, 2))
    )
    assert torch.equal(z[:, kept], x[:, kept])
    torch.testing.assert_close(z[:, moved], x[:, moved] + coupling.shift(x[:, kept]))
    assert (z[:, moved] != x[:, moved]).all()
    assert torch.equal(log_det, torch.zeros(5))


def test_scaling_multiplies_by_the_exponential():
    scaling = DiagonalScaling(2)
    scaling.log_scale.data = torch.tensor([math.log(2.0), math.log(5.0)])
    z, log_det = scaling(torch.tensor([[1.0, 1.0], [3.0, -2.0]]))
    torch.testing.assert_close(z, torch.tensor([[2.0, 5.0], [6.0, -10.0]]))
    torch.testing.assert_close(log_det, torch.full((2,), math.log(10.0)))


def test_standardize_measures_mean_and_spread(generator):
    x = torch.randn(500, 3, generator=generator) * torch.tensor([0.001, 1.0, 50.0]) + 7
    standardize = Standardize(3)
    assert torch.equal(standardize(x)[0], x)
    standardize.measure(x)
    z, log_det = standardize(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=2e-3)
    torch.testing.assert_close(z.std(0), torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(log_det[0], -x.std(0).log().sum())
    assert not list(standardize.parameters())
    assert set(standardize.state_dict()) == {"mean", "std"}


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(5, 2),
        torch.tensor([[1.0, 2.0]]),
        torch.full((60_001, 2), 0.1),
        torch.tensor([[1.0, 2.0], [3.0, 2.0]]),
    ],
)
def test_standardize_wants_data_that_vary(x):
    with pytest.raises(
        ValueError, match=r"^x must vary in every coordinate, got one that is const"
    ):
        Standardize(2).measure(x)
    with pytest.raises(ValueError, match=r"^x must have shape \[B, 2\], got \[3\]"):
        Standardize(2).measure(torch.zeros(3))
    with pytest.raises(ValueError, match=r"^x must be finite, got NaN or infinite values$"):
        Standardize(2).measure(torch.tensor([[1.0, math.nan], [2.0, 3.0]]))
    with pytest.raises(
        ValueError, match=r"^x must have a finite spread in every coordinate, got an"
    ):
        Standardize(2).measure(torch.tensor([[3e38, 0.0], [-3e38, 1.0]]))


def test_permutation_follows_its_order():
    x = torch.tensor([[10.0, 11.0, 12.0, 13.0]])
    assert Permutation(4, order=[2, 0, 3, 1])(x)[0].tolist() == [[12.0, 10.0, 13.0, 11.0]]
    assert Permutation(4, order=[2, 0, 3, 1]).inverse(x)[0].tolist() == [[11.0, 13.0, 10.0, 12.0]]
    assert Permutation(4)(x)[0].tolist() == [[13.0, 12.0, 11.0, 10.0]]
    assert Permutation(4)(x)[1].tolist() == [0.0]


@settings(max_examples=60, deadline=None)
@given(
    w=st.lists(st.floats(-3, 3), min_size=2, max_size=2).filter(lambda w: math.hypot(*w) > 0.1),
    u=st.lists(st.floats(-3, 3), min_size=2, max_size=2),
    b=st.floats(-3, 3),
)
def test_planar_is_invertible_for_every_parameter(w, u, b):
    planar = Planar(2).double()
    planar.w.data, planar.u.data = torch.tensor(w).double(), torch.tensor(u).double()
    planar.b.data = torch.tensor(b).double()
    assert float((planar.w @ planar.constrained_u()).detach()) > -1
    x = torch.linspace(-4, 4, 18, dtype=torch.float64).reshape(9, 2)
    z, log_det = planar(x)
    assert torch.isfinite(log_det).all()
    # Where the slope in a is tiny the inverse is steep: what must hold is that x maps to z again.
    torch.testing.assert_close(planar(planar.inverse(z)[0])[0], z, rtol=0, atol=1e-9)


def test_planar_starts_with_directions_of_length_about_one():
    planar = Planar(2500)
    assert abs(planar.w.norm().item() - 1) < 0.1
    assert abs(planar.u.norm().item() - 1) < 0.1
    assert planar.b.item() == 0


def test_planar_is_the_papers_formula(generator):
    planar = randomize(Planar(3).double(), generator)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    w, u, b = planar.w, planar.u, planar.b
    constrained = u + (torch.log1p(torch.exp(w @ u)) - 1 - w @ u) * w / (w @ w)
    for point, z in zip(x, planar(x)[0], strict=True):
        torch.testing.assert_close(z, point + constrained * torch.tanh(w @ point + b))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coupling flipped", "dim=4, flip=True"),
        ("scaling", "DiagonalScaling(dim=4)"),
        ("reversal", "Permutation(dim=4)"),
        ("planar", "Planar(dim=4)"),
    ],
)
def test_repr_says_what_it_is(name, words):
    assert words in repr(TRANSFORMS[name](4))
