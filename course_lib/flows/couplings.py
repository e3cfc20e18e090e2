"""Couplings: one part of the coordinates stays, and says how the other part moves."""

from collections.abc import Sequence

from torch import Tensor, nn

from course_lib.checks import check_number
from course_lib.flows.base import Transform
from course_lib.flows.masks import AlternatingMask, ChannelMask, Mask
from course_lib.nn import MLP, ConvNet

__all__ = ["AdditiveCoupling", "AffineCoupling", "Coupling"]


class Coupling(Transform):
    """What all couplings share: a mask that tells the two parts, and networks for either kind.

    Args:
        event_shape: ``dim`` for points, at least 2, or ``(C, H, W)`` for images.
        hidden: Widths of the hidden layers of the network: an ``MLP`` for points, a ``ConvNet``
            for images.
        flip: Exchange the two parts.
        mask: ``AlternatingMask`` (points), ``ChannelMask`` or ``CheckerboardMask`` (images). By
            default the first for points and the second for images.

    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        hidden: Sequence[int],
        *,
        flip: bool,
        mask: type[Mask] | None = None,
    ):
        super().__init__(event_shape, minimum=2)
        on_images = len(self.event_shape) == 3
        if mask is None:
            mask = ChannelMask if on_images else AlternatingMask
        if not (isinstance(mask, type) and issubclass(mask, Mask)):
            raise ValueError(f"mask must be a class of masks, got {mask!r}")
        if on_images == issubclass(mask, AlternatingMask):
            raise ValueError(
                f"mask must fit events of shape {list(self.event_shape)}, got {mask.__name__}"
            )
        self.flip = flip
        self.mask = mask(self.event_shape, flip=flip)
        self.hidden = hidden

    def network(self, outputs: int) -> MLP | ConvNet:
        """A network of the kept part with so many outputs for each moved coordinate."""
        kind = ConvNet if len(self.event_shape) == 3 else MLP
        return kind(self.mask.n_kept, self.hidden, outputs * self.mask.n_moved)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, flip={self.flip}"


class AdditiveCoupling(Coupling):
    """Half of the coordinates stay; the other half is shifted by a function of the half that stays.

    z_kept = x_kept,  z_moved = x_moved + m(x_kept), with any network m. The inverse subtracts the
    same shift, so m itself never has to be inverted. The Jacobian is triangular with ones on its
    diagonal: log_det = 0, whatever m is.

    Reference:
        Dinh, Krueger, Bengio 2014, NICE, https://arxiv.org/abs/1410.8516, equations 9-10.

    Args:
        event_shape: ``dim``, at least 2 (the halves are the even and the odd coordinates), or
            ``(C, H, W)``.
        hidden: Widths of the hidden layers of m.
        flip: False moves the odd coordinates (1, 3, ...), True the even ones (0, 2, ...).
        mask: As in ``AffineCoupling``.

    Example:
        >>> coupling = AdditiveCoupling(4, [16], flip=False)
        >>> x = torch.randn(8, 4)
        >>> z, log_det = coupling(x)
        >>> torch.equal(z[:, 0::2], x[:, 0::2]), log_det.abs().max().item()
        (True, 0.0)

    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        hidden: Sequence[int],
        *,
        flip: bool,
        mask: type[Mask] | None = None,
    ):
        super().__init__(event_shape, hidden, flip=flip, mask=mask)
        self.shift = self.network(outputs=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Add the shift: ``x [B, *event]`` to ``(z [B, *event], log_det [B])``."""
        self.check_event("x", x)
        kept, moved = self.mask.split(x)
        moved = moved + self.shift(kept)
        return self.mask.merge(kept, moved), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract the shift: ``z [B, *event]`` to ``(x [B, *event], log_det [B])``."""
        self.check_event("z", z)
        kept, moved = self.mask.split(z)
        moved = moved - self.shift(kept)
        return self.mask.merge(kept, moved), z.new_zeros(len(z))


class AffineCoupling(Coupling):
    """Half of the coordinates stay; they say how the other half is stretched and shifted.

    z_kept = x_kept,  z_moved = x_moved ⊙ exp(s(x_kept)) + t(x_kept). The Jacobian is triangular
    with exp(s) on the moved part of its diagonal: log_det = Σ s(x_kept). It is another number at
    every point, so that volume can change where the data ask for it.

    The network's answer r for s is bounded: s = bound · tanh(r / bound). One layer stretches by
    e^bound at most, and a single odd point cannot blow up the inverse. The network's last layer
    starts at zero, the coupling therefore as the identity.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, RealNVP, https://arxiv.org/abs/1605.08803, equations 4-8.

    Args:
        event_shape: ``dim`` for points, at least 2, or ``(C, H, W)`` for images.
        hidden: Widths of the hidden layers of the one network for s and t: an ``MLP`` for points,
            a ``ConvNet`` for images.
        flip: Exchange the kept and the moved part.
        mask: ``AlternatingMask`` (points), ``ChannelMask`` or ``CheckerboardMask`` (images). By
            default the first for points and the second for images.
        bound: Largest size of s, above 0; None leaves s unbounded.

    Example:
        >>> coupling = AffineCoupling((4, 8, 8), [16], flip=True)
        >>> x = torch.randn(5, 4, 8, 8)
        >>> z, log_det = coupling(x)  # the identity, until it is trained
        >>> torch.equal(z, x), log_det.shape
        (True, torch.Size([5]))

    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        hidden: Sequence[int],
        *,
        flip: bool,
        mask: type[Mask] | None = None,
        bound: float | None = 2.0,
    ):
        super().__init__(event_shape, hidden, flip=flip, mask=mask)
        if bound is not None:
            check_number("bound", bound, above=0)
        self.bound = bound
        self.net = self.network(outputs=2)
        nn.init.zeros_(self.net.layers[-1].weight)
        nn.init.zeros_(self.net.layers[-1].bias)

    def scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The log-scale s and the shift t of the moved part, both of its shape.

        Under a checkerboard s is 0 on kept squares, and t does not matter there.
        """
        raw, shift = self.net(kept).chunk(2, dim=1)
        log_scale = raw if self.bound is None else self.bound * (raw / self.bound).tanh()
        return self.mask.where_moved(log_scale), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Stretch, then shift: ``x [B, *event]`` to ``(z [B, *event], log_det [B])``."""
        self.check_event("x", x)
        kept, moved = self.mask.split(x)
        log_scale, shift = self.scale_and_shift(kept)
        moved = moved * log_scale.exp() + shift
        return self.mask.merge(kept, moved), log_scale.flatten(1).sum(dim=1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Shift back, then shrink: ``z [B, *event]`` to ``(x [B, *event], log_det [B])``."""
        self.check_event("z", z)
        kept, moved = self.mask.split(z)
        log_scale, shift = self.scale_and_shift(kept)
        moved = (moved - shift) * (-log_scale).exp()
        return self.mask.merge(kept, moved), -log_scale.flatten(1).sum(dim=1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bound={self.bound}"
