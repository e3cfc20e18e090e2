"""Masks: which coordinates a coupling keeps, and which it moves."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.checks import check_bool, check_int, check_shape

__all__ = ["AlternatingMask", "ChannelMask", "CheckerboardMask", "Mask"]


class Mask(nn.Module):
    """Takes ``x`` apart into what is kept and what is moved, and puts it together again.

    ``merge(*split(x))`` is ``x``. ``n_kept`` and ``n_moved`` are the numbers of coordinates (of
    channels, for images) of the two parts: the widths that a coupling's network needs.
    """

    n_kept: int
    n_moved: int

    def __init__(self, event_shape: Sequence[int], *, flip: bool):
        check_bool("flip", flip)
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.flip = flip

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, *event]`` to ``(kept, moved)``."""
        raise NotImplementedError

    def merge(self, kept: Tensor, moved: Tensor) -> Tensor:
        """``(kept, moved)`` to ``x [B, *event]``."""
        raise NotImplementedError

    def where_moved(self, t: Tensor) -> Tensor:
        """``t``, of the shape of ``moved``, with zeros wherever nothing is moved."""
        return t

    def extra_repr(self) -> str:
        return f"flip={self.flip}"


class AlternatingMask(Mask):
    """For points: keeps the even coordinates (0, 2, ...) and moves the odd ones.

    Args:
        event_shape: ``(dim,)`` with ``dim`` at least 2.
        flip: Keep the odd ones and move the even ones instead.

    Example:
        >>> AlternatingMask((5,), flip=False).split(torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]))
        (tensor([[0., 2., 4.]]), tensor([[1., 3.]]))

    """

    def __init__(self, event_shape: Sequence[int], *, flip: bool):
        check_shape("event_shape", event_shape, lengths=(1,))
        dim = event_shape[0]
        check_int("dim", dim, minimum=2)
        super().__init__(event_shape, flip=flip)
        even, odd = slice(0, None, 2), slice(1, None, 2)
        self.kept, self.moved = (odd, even) if flip else (even, odd)
        n_even, n_odd = (dim + 1) // 2, dim // 2
        self.n_kept, self.n_moved = (n_odd, n_even) if flip else (n_even, n_odd)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, dim]`` to ``(kept [B, n_kept], moved [B, n_moved])``."""
        return x[:, self.kept], x[:, self.moved]

    def merge(self, kept: Tensor, moved: Tensor) -> Tensor:
        """``(kept, moved)`` to ``x [B, dim]``."""
        even, odd = (moved, kept) if self.flip else (kept, moved)
        x = torch.stack([even[:, : odd.shape[1]], odd], dim=2).flatten(1)
        # With an odd number of coordinates there is one even coordinate more.
        return x if even.shape == odd.shape else torch.cat([x, even[:, -1:]], dim=1)


class ChannelMask(Mask):
    """For images: keeps the first half of the channels and moves the second.

    Args:
        event_shape: ``(C, H, W)`` with at least two channels; of an odd number the larger half
            comes first.
        flip: Keep the second half and move the first instead.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, RealNVP, https://arxiv.org/abs/1605.08803, figure 3.

    """

    def __init__(self, event_shape: Sequence[int], *, flip: bool):
        check_shape("event_shape", event_shape, lengths=(3,))
        check_int("channels", event_shape[0], minimum=2)
        super().__init__(event_shape, flip=flip)
        self.sizes = [(event_shape[0] + 1) // 2, event_shape[0] // 2]
        self.n_kept, self.n_moved = self.sizes[::-1] if flip else self.sizes

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, C, H, W]`` to ``(kept [B, n_kept, H, W], moved [B, n_moved, H, W])``."""
        first, second = x.split(self.sizes, dim=1)
        return (second, first) if self.flip else (first, second)

    def merge(self, kept: Tensor, moved: Tensor) -> Tensor:
        """``(kept, moved)`` to ``x [B, C, H, W]``."""
        return torch.cat((moved, kept) if self.flip else (kept, moved), dim=1)


class CheckerboardMask(Mask):
    """For images: keeps the white squares of a checkerboard, where row + column is even.

    Both parts have the whole image's shape, with zeros in place of the other part, so that a
    convolution sees every kept pixel where it lies.

    Args:
        event_shape: ``(C, H, W)`` with at least two pixels.
        flip: Keep the black squares and move the white ones instead.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, RealNVP, https://arxiv.org/abs/1605.08803, figure 3.

    Example:
        >>> CheckerboardMask((1, 2, 4), flip=False).keep[0]
        tensor([[1., 0., 1., 0.],
                [0., 1., 0., 1.]])

    """

    def __init__(self, event_shape: Sequence[int], *, flip: bool):
        check_shape("event_shape", event_shape, lengths=(3,), any_size=False)
        channels, height, width = event_shape
        if height * width < 2:
            raise ValueError(f"event_shape must have at least two pixels, got {event_shape}")
        super().__init__(event_shape, flip=flip)
        self.n_kept = self.n_moved = channels
        white = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0
        keep = (~white if flip else white).float()[None]
        self.register_buffer("keep", keep, persistent=False)
        self.register_buffer("move", 1 - keep, persistent=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, C, H, W]`` to ``(kept, moved)`` of the same shape, with zeros between."""
        return x * self.keep, x * self.move

    def merge(self, kept: Tensor, moved: Tensor) -> Tensor:
        """``(kept, moved)`` to ``x [B, C, H, W]``; what ``moved`` has on kept squares is lost."""
        return kept + moved * self.move

    def where_moved(self, t: Tensor) -> Tensor:
        """``t [B, C, H, W]`` with zeros on the kept squares."""
        return t * self.move
