"""Every transform against the definition: it inverts, and its log_det is the Jacobian's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.flows import AdditiveCoupling, DiagonalScaling, Permutation, Planar, Standardize
from tests.flows.conftest import TRANSFORMS, log_abs_det_jacobian, randomize

each_transform = pytest.mark.parametrize("name", TRANSFORMS)
each_dim = pytest.mark.parametrize("dim", [2, 3, 6])


def build(name, dim, generator):
    return randomize(TRANSFORMS[name](dim).double(), generator)


@each_transform
@each_dim
def test_inverse_undoes_forward(name, dim, generator):
    transform = build(name, dim, generator)
    x = 3 * torch.randn(50, dim, generator=generator, dtype=torch.float64)
    z, log_det = transform(x)
    back, back_log_det = transform.inverse(z)
    assert z.shape == x.shape
    assert log_det.shape == back_log_det.shape == (50,)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-9)
    assert not torch.allclose(z, x), "the test needs a transform that moves points"


@each_transform
@each_dim
def test_log_det_is_the_jacobians(name, dim, generator):
    transform = build(name, dim, generator)
    x = torch.randn(8, dim, generator=generator, dtype=torch.float64)
    expected = log_abs_det_jacobian(lambda p: transform(p)[0], x)
    torch.testing.assert_close(transform(x)[1], expected, rtol=0, atol=1e-10)
    expected = log_abs_det_jacobian(lambda p: transform.inverse(p)[0], x)
    torch.testing.assert_close(transform.inverse(x)[1], expected, rtol=0, atol=1e-9)


@each_transform
def test_the_input_is_left_alone(name, generator):
    transform = build(name, 4, generator)
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    before = x.clone()
    transform(x)
    transform.inverse(x)
    assert torch.equal(x, before)


@each_transform
def test_log_det_passes_gradients_like_finite_differences(name, generator):
    transform = build(name, 4, generator)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    parameters = tuple(transform.parameters())

    def outputs(x, *_):
        z, log_det = transform(x)
        y, inverse_log_det = transform.inverse(x)
        return z, log_det, y, inverse_log_det

    assert torch.autograd.gradcheck(outputs, (x, *parameters), atol=1e-5)


@each_transform
def test_works_under_vmap(name, generator):
    transform = build(name, 4, generator)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    one_by_one = torch.func.vmap(lambda p: transform(p[None])[0][0])(x)
    torch.testing.assert_close(one_by_one, transform(x)[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # PyTorch's own, below jacfwd
@each_transform
@pytest.mark.parametrize("derivative", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians_of_a_batch_work_under_vmap(name, derivative, generator):
    transform = build(name, 4, generator)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    jacobians = torch.func.vmap(derivative(lambda p: transform(p[None])[0][0]))(x)
    log_det = torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(log_det, transform(x)[1].expand(6), rtol=0, atol=1e-9)


@each_transform
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4), r"must have shape \[B, 4\], got \[4\]"),
        (torch.zeros(2, 2, 4), r"must have shape \[B, 4\], got \[2, 2, 4\]"),
        (torch.zeros(2, 5), r"must have shape \[B, 4\], got \[2, 5\]"),
        (torch.zeros(0, 4), r"must have shape \[B, 4\], got \[0, 4\]"),
        (torch.zeros(2, 4, dtype=torch.int64), "must be a floating-point tensor, got torch.int64"),
        (torch.full((2, 4), math.nan), "must be finite"),
        (torch.full((2, 4), math.inf), "must be finite"),
        ([[0.0] * 4], r"must be a tensor of shape \[B, 4\], got list"),
    ],
)
def test_bad_points_are_named(name, x, message):
    transform = TRANSFORMS[name](4)
    with pytest.raises(ValueError, match=r"^x " + message):
        transform(x)
    with pytest.raises(ValueError, match=r"^z " + message):
        transform.inverse(x)


@each_transform
def test_another_precision_is_not_cast(name):
    with pytest.raises(
        ValueError, match=r"x must be torch.float32 like the model, got torch.float64"
    ):
        TRANSFORMS[name](4)(torch.zeros(1, 4, dtype=torch.float64))


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
    "x", [torch.zeros(5, 2), torch.tensor([[1.0, 2.0]]), torch.full((60_001, 2), 0.1)]
)
def test_standardize_wants_data_that_vary(x):
    with pytest.raises(
        ValueError, match=r"^x must vary in every coordinate, got one that is const"
    ):
        Standardize(2).measure(x)
    with pytest.raises(ValueError, match=r"^x must have shape \[B, 2\], got \[3\]"):
        Standardize(2).measure(torch.zeros(3))
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
