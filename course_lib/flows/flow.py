"""A normalizing flow: invertible transforms, one after the other, that end in a simple density."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.checks import check_floats, check_generator, check_number, stands_for_many
from course_lib.flows.base import Base, Transform
from course_lib.flows.images import Split, Squeeze

__all__ = ["Flow", "chain"]


def chain(transforms: Sequence[Transform], x: Tensor) -> tuple[Tensor, Tensor]:
    """Lead ``x [B, *event]`` through all transforms: where it ends, and log |det| ``[B]``.

    The Jacobian of a chain is the product of the Jacobians, each where its step starts; so the
    log-determinants add up.

    Example:
        >>> from course_lib.flows import Permutation, Planar
        >>> z, log_det = chain([Planar(2), Permutation(2), Planar(2)], torch.randn(5, 2))
        >>> z.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([5]))

    """
    log_det = x.new_zeros(len(x))
    for transform in transforms:
        x, step_log_det = transform(x)
        log_det = log_det + step_log_det
    return x, log_det


class Flow(nn.Module):
    """Transforms composed over a base density: log p(x) = log p_base(f(x)) + log |det ∂f/∂x|.

    The latent z has the shape of the data. A ``Squeeze`` reshapes the state on the way, and at a
    ``Split`` half of it is set aside; in z every number lies again at the place from which it was
    taken, so that z is an image as well. ``scales(z)`` gives the parts, ``join`` puts them back.

    Reference:
        Tabak & Vanden-Eijnden 2010; Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770. Many
        scales: Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803, section 3.6.

    Args:
        transforms: From data to latent, in this order.
        base: The density of the latent, for example ``StandardGaussian(dim)``. Its shape is that of
            the data.

    Example:
        >>> from course_lib.flows import AdditiveCoupling, StandardGaussian
        >>> flow = Flow([AdditiveCoupling(2, [8], flip=False)], StandardGaussian(2))
        >>> z, log_det = flow(torch.randn(5, 2))
        >>> z.shape, log_det.shape, flow.sample(3).shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([3, 2]))

    """

    def __init__(self, transforms: Sequence[Transform], base: Base):
        if not isinstance(base, Base):
            raise ValueError(f"base must be a base density, got {base!r}")
        if not isinstance(transforms, list | tuple | nn.ModuleList):
            raise ValueError(f"transforms must be a list of transforms, got {transforms!r}")
        if len(transforms) == 0:
            raise ValueError("transforms must hold at least one transform, got none")
        shape, scale_shapes = base.event_shape, []
        for i, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise ValueError(f"transforms[{i}] must be a Transform, got {transform!r}")
            try:
                shape = transform.output_shape(shape)
            except ValueError as error:
                raise ValueError(f"transforms[{i}] {error}") from None
            if isinstance(transform, Split):
                scale_shapes.append(shape)  # as much leaves as goes on
            if transform.dtype != base.dtype:
                raise ValueError(
                    f"transforms[{i}] must be {base.dtype} like the base, got {transform.dtype}"
                )
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.base = base
        self.scale_shapes = [*scale_shapes, shape]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lead data ``x [B, *event]`` to ``(z [B, *event], log_det [B])``: log-dets add up."""
        self.check_batch("x", x)
        *until_a_split, rest = self.stages
        h, log_det, aside = x, x.new_zeros(len(x)), []
        for stage in until_a_split:
            h, stage_log_det = chain(stage, h)
            log_det = log_det + stage_log_det
            h, leaving = h.chunk(2, dim=1)
            aside.append(leaving)
        h, stage_log_det = chain(rest, h)
        z, log_det = self.lay_out(h, aside, len(self.transforms)), log_det + stage_log_det
        self.check_end("x", x, z, log_det)
        return z, log_det

    @property
    def stages(self) -> list[list[Transform]]:
        """The transforms in runs; each ends with a ``Split``, but for the last, which may be []."""
        stages: list[list[Transform]] = [[]]
        for transform in self.transforms:
            stages[-1].append(transform)
            if isinstance(transform, Split):
                stages.append([])
        return stages

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Lead latents ``z [B, *event]`` to ``(x [B, *event], log_det [B])``, last step first."""
        *aside, x = self.scales(z)
        log_det = z.new_zeros(len(z))
        for transform in reversed(self.transforms):
            if isinstance(transform, Split):
                x = torch.cat([x, aside.pop()], dim=1)
            x, step_log_det = transform.inverse(x)
            log_det = log_det + step_log_det
        self.check_end("z", z, x, log_det)
        return x, log_det

    def scales(self, z: Tensor) -> list[Tensor]:
        """The parts ``[B, C, H, W]`` of latents ``z [B, *event]``, first the one that left first.

        Without a ``Split`` there is one part. The shapes are ``scale_shapes``.
        """
        self.check_batch("z", z)
        parts = []
        for transform in self.transforms:
            if isinstance(transform, Squeeze):
                z = transform(z)[0]
            if isinstance(transform, Split):
                z, leaving = z.chunk(2, dim=1)
                parts.append(leaving)
        return [*parts, z]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The latents ``z [B, *event]`` whose ``scales`` are ``parts``."""
        if not isinstance(parts, list | tuple) or len(parts) != len(self.scale_shapes):
            raise ValueError(f"parts must be a list of {len(self.scale_shapes)}, got {parts!r}")
        for i, (part, shape) in enumerate(zip(parts, self.scale_shapes, strict=True)):
            check_floats(f"parts[{i}]", part, (None, *shape), dtype=self.base.dtype)
        return self.lay_out(parts[-1], parts[:-1], len(self.transforms))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density ``[B]`` of data ``x [B, *event]``, in nats: the change of variables."""
        z, log_det = self(x)
        return self.base.log_prob(z) + log_det

    def loss(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean negative log-likelihood of ``x [B, *event]``, in nats. Uses no randomness."""
        check_generator(generator)
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(
        self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """``n`` draws ``[n, *event]``: draw latents, then run the flow backwards.

        With a ``temperature`` T other than 1 the latents are multiplied by T first. Below 1 they
        lie nearer to the middle, where samples are more typical and less diverse; it is not the
        model's density any more that is drawn from.
        """
        check_number("temperature", temperature, above=0)
        return self.inverse(temperature * self.base.sample(n, generator=generator))[0]

    @torch.no_grad()
    def trajectory(self, x: Tensor) -> Tensor:
        """All states from data to latent, ``[T, B, *event]``: ``x``, then one per transform.

        Each is laid out like the data: squeezed and parted numbers lie where they were taken from.
        """
        self.check_batch("x", x)
        states, aside = [x], []
        for k, transform in enumerate(self.transforms, start=1):
            x = transform(x)[0]
            if isinstance(transform, Split):
                x, leaving = x.chunk(2, dim=1)
                aside.append(leaving)
            states.append(self.lay_out(x, aside, k))
        return torch.stack(states)

    @torch.no_grad()
    def trajectory_inverse(self, z: Tensor) -> Tensor:
        """All states from latent to data, ``[T, B, *event]``: ``z``, then one per transform."""
        *aside, x = self.scales(z)
        states = [z]
        for k in reversed(range(len(self.transforms))):
            if isinstance(self.transforms[k], Split):
                x = torch.cat([x, aside.pop()], dim=1)
            x = self.transforms[k].inverse(x)[0]
            states.append(self.lay_out(x, aside, k))
        return torch.stack(states)

    def lay_out(self, x: Tensor, aside: Sequence[Tensor], k: int) -> Tensor:
        """The state after ``k`` transforms, without its squeezes and splits: ``[B, *event]``."""
        aside = list(aside)
        for transform in reversed(list(self.transforms)[:k]):
            if isinstance(transform, Split):
                x = torch.cat([x, aside.pop()], dim=1)
            if isinstance(transform, Squeeze):
                x = transform.inverse(x)[0]
        return x

    def check_batch(self, name: str, x: Tensor) -> None:
        """Require a finite batch of the base's event shape and dtype: the door of every verb."""
        check_floats(name, x, (None, *self.base.event_shape), dtype=self.base.dtype)

    def check_end(self, name: str, start: Tensor, end: Tensor, log_det: Tensor) -> None:
        """Require that ``start``, called ``name``, has come to a finite ``end``.

        If it has not, the transform is named in which its numbers became too large.
        """
        if stands_for_many(end) or bool(torch.isfinite(end).all() & torch.isfinite(log_det).all()):
            return
        there = name == "x"
        states = self.trajectory(start) if there else self.trajectory_inverse(start)
        lost = [k for k, state in enumerate(states) if not torch.isfinite(state).all()]
        if lost:
            i = lost[0] - 1 if there else len(self.transforms) - lost[0]
            where = f"transforms[{i}] ({type(self.transforms[i]).__name__})"
        else:
            where = "the sum of the log-determinants"
        raise ValueError(
            f"the flow must keep {name} finite, got NaN or infinite values from {where}"
        )
