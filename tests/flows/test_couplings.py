"""Couplings: what they keep, what a moved number may depend on, and how far it is stretched."""

import math
import re

import pytest
import torch
from torch import nn

from course_lib.flows import (
    AdditiveCoupling,
    AffineCoupling,
    AlternatingMask,
    ChannelMask,
    CheckerboardMask,
    Mask,
    Split,
)
from course_lib.nn import MLP, ConvNet
from tests.flows.conftest import randomize

SETTINGS = [
    ((5,), AlternatingMask),
    ((3, 2, 4), ChannelMask),
    ((2, 3, 4), CheckerboardMask),
]
each_setting = pytest.mark.parametrize(("shape", "mask"), SETTINGS)
each_flip = pytest.mark.parametrize("flip", [False, True])
each_kind = pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])


def is_moved(shape, mask, flip):
    """True at the coordinates that a coupling moves, from the definition of each mask."""
    if mask is AlternatingMask:
        moved = torch.arange(shape[0]) % 2 == 1
    elif mask is ChannelMask:
        moved = (torch.arange(shape[0]) >= (shape[0] + 1) // 2)[:, None, None].expand(shape)
    else:
        row, column = torch.arange(shape[1])[:, None], torch.arange(shape[2])
        moved = ((row + column) % 2 == 1).expand(shape)
    return ~moved if flip else moved


@each_kind
@each_setting
@each_flip
def test_a_coupling_keeps_one_part_and_moves_the_other(kind, shape, mask, flip, generator):
    coupling = randomize(kind(shape, [8], flip=flip, mask=mask), generator)
    x = torch.randn(4, *shape, generator=generator)
    moved = is_moved(shape, mask, flip)
    for y in (coupling(x)[0], coupling.inverse(x)[0]):
        assert torch.equal(y[:, ~moved], x[:, ~moved])
        assert (y[:, moved] != x[:, moved]).all()


@each_setting
@each_flip
def test_the_jacobian_is_triangular(shape, mask, flip, generator):
    """A moved number depends on itself and on the kept part; log_det on the kept part alone."""
    coupling = randomize(AffineCoupling(shape, [16], flip=flip, mask=mask).double(), generator)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    n, moved = x.numel(), is_moved(shape, mask, flip).flatten()
    jacobian, slope = torch.autograd.functional.jacobian(
        lambda p: tuple(part[0] for part in coupling(p[None])), x
    )
    jacobian, slope = jacobian.reshape(n, n), slope.flatten()
    assert torch.equal(jacobian[~moved], torch.eye(n, dtype=torch.float64)[~moved])
    among_moved = jacobian[moved][:, moved]
    stretch = among_moved.diagonal()
    assert torch.equal(among_moved, stretch.diag())
    assert (stretch > 0).all()
    torch.testing.assert_close(coupling(x[None])[1][0], stretch.log().sum())
    assert (slope[moved] == 0).all()
    assert (slope[~moved] != 0).all()


@each_setting
@each_flip
@pytest.mark.parametrize("bound", [None, 0.5, 2.0])
def test_the_affine_formula(shape, mask, flip, bound, generator):
    """z_moved = x_moved exp(s) + t with s = bound tanh(r / bound), written out."""
    coupling = AffineCoupling(shape, [8], flip=flip, mask=mask, bound=bound)
    coupling = randomize(coupling.double(), generator, scale=2.0)
    x = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    raw, shift = coupling.net(coupling.mask.split(x)[0]).chunk(2, dim=1)
    s = raw if bound is None else bound * torch.tanh(raw / bound)
    moved = is_moved(shape, mask, flip)
    if mask is CheckerboardMask:
        s, shift = s[:, moved], shift[:, moved]
    s, shift = s.flatten(1), shift.flatten(1)
    z, log_det = coupling(x)
    torch.testing.assert_close(z[:, moved], x[:, moved] * s.exp() + shift)
    torch.testing.assert_close(log_det, s.sum(dim=1))
    back, log_det = coupling.inverse(x)
    torch.testing.assert_close(back[:, moved], (x[:, moved] - shift) / s.exp())
    torch.testing.assert_close(log_det, -s.sum(dim=1))


@each_setting
@pytest.mark.parametrize("bound", [0.25, 1, 2.0])
def test_the_log_scale_is_bounded_whatever_the_network_says(shape, mask, bound, generator):
    coupling = AffineCoupling(shape, [8], flip=False, mask=mask, bound=bound)
    randomize(coupling, generator, scale=30.0)
    x = 100 * torch.randn(50, *shape, generator=generator)
    kept = coupling.mask.split(x)[0]
    log_scale, _ = coupling.scale_and_shift(kept)
    assert log_scale.abs().max() == bound
    assert (log_scale < 0).any()
    unbounded = AffineCoupling(shape, [8], flip=False, mask=mask, bound=None)
    unbounded.load_state_dict(coupling.state_dict())
    assert unbounded.scale_and_shift(kept)[0].abs().max() > 100


@each_setting
@pytest.mark.parametrize("bound", [2.0, None])
def test_an_affine_coupling_starts_as_the_identity_and_learns(shape, mask, bound, generator):
    coupling = AffineCoupling(shape, [8], flip=False, mask=mask, bound=bound)
    x = torch.randn(5, *shape, generator=generator)
    z, log_det = coupling(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(5))
    (z.square().sum() - log_det.sum()).backward()
    assert coupling.net.layers[-1].weight.grad.abs().max() > 0
    assert all((p != 0).any() for p in coupling.net.layers[0].parameters())


def test_defaults():
    assert AffineCoupling(4, [8], flip=False).bound == 2.0
    assert type(AffineCoupling(4, [8], flip=False).mask) is AlternatingMask
    assert type(AffineCoupling((4, 2, 2), [8], flip=False).mask) is ChannelMask
    assert type(AdditiveCoupling((4, 2, 2), [8], flip=True).mask) is ChannelMask


@pytest.mark.parametrize(
    ("kind", "name", "outputs"), [(AdditiveCoupling, "shift", 1), (AffineCoupling, "net", 2)]
)
def test_one_network_says_everything_of_the_moved_part(kind, name, outputs):
    net = getattr(kind(5, [7, 6], flip=False), name)
    assert isinstance(net, MLP)
    assert [layer.out_features for layer in net.layers[::2]] == [7, 6, 2 * outputs]
    assert net.n_in == 3
    net = getattr(kind((5, 2, 2), [7, 6], flip=True), name)
    assert isinstance(net, ConvNet)
    assert [layer.out_channels for layer in net.layers[::2]] == [7, 6, 3 * outputs]
    assert net.n_in == 2
    net = getattr(kind((3, 2, 2), [7], flip=True, mask=CheckerboardMask), name)
    assert [layer.out_channels for layer in net.layers[::2]] == [7, 3 * outputs]
    assert net.n_in == 3


def test_an_affine_coupling_of_linear_networks_is_known_by_hand():
    """One kept and one moved coordinate: s = 0.5 x + 0.25 and t = 3 x - 1, in numbers."""
    coupling = AffineCoupling(2, [], flip=False, bound=None).double()
    with torch.no_grad():
        coupling.net.layers[0].weight.copy_(torch.tensor([[0.5], [3.0]]))
        coupling.net.layers[0].bias.copy_(torch.tensor([0.25, -1.0]))
    z, log_det = coupling(torch.tensor([[2.0, 7.0]]).double())
    assert z[0, 1].item() == pytest.approx(7 * math.exp(1.25) + 5)
    assert log_det.item() == pytest.approx(1.25)


@each_kind
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"event_shape": 1}, "dim must be an integer of at least 2, got 1"),
        ({"event_shape": (1, 4, 4)}, "channels must be an integer of at least 2, got 1"),
        (
            {"event_shape": (2, 4)},
            "event_shape must be (dim,) or (C, H, W), each at least 1, got (2, 4)",
        ),
        (
            {"event_shape": (2, 4, 4), "mask": AlternatingMask},
            "mask must fit events of shape [2, 4, 4], got AlternatingMask",
        ),
        (
            {"event_shape": 4, "mask": ChannelMask},
            "mask must fit events of shape [4], got ChannelMask",
        ),
        (
            {"event_shape": 4, "mask": CheckerboardMask},
            "mask must fit events of shape [4], got CheckerboardMask",
        ),
        ({"mask": nn.Module}, "mask must be a class of masks, got <class 'torch.nn.modules."),
        ({"mask": "channels"}, "mask must be a class of masks, got 'channels'"),
        ({"flip": None}, "flip must be True or False, got None"),
        ({"hidden": [4, 0]}, "hidden[1] must be an integer of at least 1, got 0"),
        ({"hidden": 4}, "hidden must be a sequence of integers, got 4"),
    ],
)
def test_bad_arguments_are_named(kind, arguments, message):
    arguments = {"event_shape": (2, 4, 4), "hidden": [4], "flip": False, **arguments}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        kind(**arguments)


@pytest.mark.parametrize("bound", [0, -1.0, math.inf, math.nan, True, "2"])
def test_bad_bounds_are_named(bound):
    for make in (
        lambda: AffineCoupling(4, [4], flip=False, bound=bound),
        lambda: Split((4, 2, 2), bound=bound),
    ):
        with pytest.raises(ValueError, match=r"^bound must be a finite number above 0, got"):
            make()


def test_another_mask_can_be_made(generator):
    """Halves one after the other, as a mask of one's own."""

    class Halves(Mask):
        def __init__(self, event_shape, *, flip):
            super().__init__(event_shape, flip=flip)
            self.n_kept = self.n_moved = event_shape[0] // 2

        def split(self, x):
            return x.chunk(2, dim=1)

        def merge(self, kept, moved):
            return torch.cat([kept, moved], dim=1)

    coupling = randomize(AffineCoupling((4, 2, 2), [4], flip=False, mask=Halves), generator)
    x = torch.randn(3, 4, 2, 2, generator=generator)
    z, log_det = coupling(x)
    torch.testing.assert_close(coupling.inverse(z)[0], x)
    assert (log_det != 0).all()


def test_repr_says_what_it_is():
    text = repr(AffineCoupling((4, 2, 3), [4], flip=True, bound=1.5))
    assert text.startswith("AffineCoupling(\n  shape=[4, 2, 3], flip=True, bound=1.5\n")
    assert "(mask): ChannelMask(flip=True)" in text
    assert repr(AdditiveCoupling(4, [4], flip=False)).startswith(
        "AdditiveCoupling(\n  dim=4, flip=False\n"
    )
