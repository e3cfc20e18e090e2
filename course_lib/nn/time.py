"""Networks that are told the time: an embedding of t, and a multilayer perceptron with one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import (
    check_bool,
    check_classes,
    check_floats,
    check_int,
    check_ints,
    check_number,
)

__all__ = ["TimeEmbedding", "TimeMLP", "check_time"]


class TimeEmbedding(nn.Module):
    """Sines and cosines of t at many frequencies, then two linear layers; classes are added.

    A network can't tell 500 from 501 in a single number; of waves that are 6 to 60,000 steps long
    some will differ. The angles are ``scale`` · t · 10000^(−i/(n/2)), for i = 0 ... n/2 − 1.

    Reference:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5; Ho et al. 2020,
        https://arxiv.org/abs/2006.11239, appendix B.

    Args:
        n_features: The number of sines and cosines together, even.
        n_out: Width of the embedding.
        n_classes: The number of classes that an example may belong to; None for no classes.
        null_class: Learn one label more, ``n_classes``, that says nothing of the example: the
            ``null_class`` of the embedding, and what no labels at all are taken for.
        scale: What a unit of time is worth: 1 where t counts steps, 1000 where it runs from 0 to 1.

    Example:
        >>> TimeEmbedding(16, 64)(torch.tensor([0, 999])).shape
        torch.Size([2, 64])

    """

    def __init__(
        self,
        n_features: int,
        n_out: int,
        *,
        n_classes: int | None = None,
        null_class: bool = False,
        scale: float = 1.0,
    ):
        check_int("n_features", n_features, minimum=2)
        if n_features % 2:
            raise ValueError(f"n_features must be even, got {n_features}")
        check_int("n_out", n_out, minimum=1)
        if n_classes is not None:
            check_int("n_classes", n_classes, minimum=1)
        check_bool("null_class", null_class)
        if null_class and n_classes is None:
            raise ValueError("n_classes must be a number where there is a null_class, got None")
        check_number("scale", scale, above=0)
        super().__init__()
        self.n_classes, self.scale = n_classes, scale
        self.null_class = n_classes if null_class else None
        half = n_features // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half) / half)
        self.register_buffer("rates", rates, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(n_features, n_out), nn.SiLU(), nn.Linear(n_out, n_out)
        )
        self.classes = nn.Embedding(n_classes + null_class, n_out) if n_classes else None

    def waves(self, t: Tensor) -> Tensor:
        """The cosines and sines ``[B, n_features]`` of times ``t [B]``."""
        angles = self.scale * t.to(self.rates)[:, None] * self.rates
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def forward(self, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Embed times ``t [B]``, and labels ``y [B]`` where there are classes: ``[B, n_out]``."""
        if self.null_class is None:
            check_classes("y", y, len(t), self.n_classes)
        else:
            y = torch.full((len(t),), self.null_class, device=t.device) if y is None else y
            check_classes("y", y, len(t), self.n_classes + 1)
        one_for_all = t.stride() == (0,)  # as ``expand`` gives it: an ODE's solver asks so
        embedded = self.layers(self.waves(t[:1] if one_for_all else t)).expand(len(t), -1)
        return embedded if y is None else embedded + self.classes(y)


class TimeMLP(nn.Module):
    """A multilayer perceptron for noised points that knows the time, for data in few dimensions.

    Before its SiLU every hidden layer is multiplied by 1 + the embedded time: at little noise the
    answer is a far steeper function of x than later on, and factors can make it so.

    Args:
        dim: The dimension of the points; the output has the same.
        hidden: Width of each hidden layer, at least one; all are the same.
        n_classes: The number of classes; None for no classes.
        null_class: Learn a label that says nothing, too, as in ``TimeEmbedding``.
        scale: What a unit of time is worth, as in ``TimeEmbedding``.

    Example:
        >>> TimeMLP(2, [64, 64])(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)).shape
        torch.Size([5, 2])

    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (128, 128, 128),
        *,
        n_classes: int | None = None,
        null_class: bool = False,
        scale: float = 1.0,
    ):
        check_int("dim", dim, minimum=1)
        check_ints("hidden", hidden, minimum=1)
        if len(set(hidden)) != 1:
            raise ValueError(f"hidden must be layers of one width, at least one, got {hidden!r}")
        super().__init__()
        self.event_shape = (dim,)
        width = hidden[0]
        self.time = TimeEmbedding(
            64, width, n_classes=n_classes, null_class=null_class, scale=scale
        )
        self.null_class = self.time.null_class
        self.layers = nn.ModuleList(nn.Linear(n_in, width) for n_in in [dim, *hidden[1:]])
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Map points ``x [B, dim]`` at times ``t [B]``, of classes ``y [B]``, to ``[B, dim]``."""
        check_floats("x", x, (None, *self.event_shape), dtype=self.out.weight.dtype)
        check_time(t, len(x))
        embedded = self.time(t, y)
        for layer in self.layers:
            x = F.silu(layer(x) * (1 + embedded))
        return self.out(x)


def check_time(t: Tensor, n: int) -> None:
    """Require ``n`` real times, one for each example (``ValueError``)."""
    if not isinstance(t, Tensor) or t.shape != (n,) or t.is_complex() or t.dtype == torch.bool:
        what = f"{t.dtype} {list(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise ValueError(f"t must be a tensor [{n}] of times, got {what}")
