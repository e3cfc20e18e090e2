"""Rectified flow: carry one set of samples to another along ways that reflow makes straight."""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from course_lib.checks import (
    at_the_door,
    check_difference,
    check_floats,
    check_int,
    check_one_of,
    check_tensor,
)
from course_lib.diffusion.continuous import StraightPath
from course_lib.diffusion.denoiser import Denoiser, PredictionError, mse_loss
from course_lib.diffusion.ode import ode_encode, ode_sample
from course_lib.diffusion.paths import per_example
from course_lib.diffusion.sampling import last

__all__ = ["RectifiedFlow", "distill", "interpolate", "reflow", "straightness", "transport_cost"]


LINE = StraightPath()


def _check_line(x0: Tensor, x1: Tensor, t: Tensor | float) -> None:
    _check_pairs(x0, x1)
    LINE.check_time(t, len(x0))


def _check_pairs(x0: Tensor, x1: Tensor) -> None:
    check_floats("x0", x0, None)
    check_floats("x1", x1, x0.shape, dtype=x0.dtype)


def _check_flow(model: Denoiser) -> None:
    if not isinstance(model, Denoiser) or not isinstance(model.path, StraightPath):
        raise ValueError(f"model must be a flow on a StraightPath, got {model!r}")


@at_the_door(_check_line)
def interpolate(x0: Tensor, x1: Tensor, t: Tensor | float) -> Tensor:
    """The points (1 − t) x_0 + t x_1 of the lines between pairs ``[B, *event]``, at ``t``.

    Times are ``[B]``, or one for all: x_0 at 0, x_1 at 1.

    Example:
        >>> interpolate(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0.25, 1.0]))
        tensor([[0.2500],
                [1.0000]])

    """
    t = per_example(t, x0)
    return (1 - t) * x0 + t * x1


class RectifiedFlow(Denoiser):
    """The velocity of a flow between any two sets of samples, of which one may be noise.

    Pairs (x_0, x_1) are joined by straight lines. The lines of many pairs cross; a flow has one
    velocity at each place and time: the mean of x_1 − x_0 over the lines that pass there, which is
    what the squared error teaches. Time runs as everywhere in this course: 0 is where we want to
    go, the data, and 1 is where we come from.

    It is a ``Denoiser`` on the ``StraightPath``, with ``x_1`` in the noise's place, so that every
    sampler of the ODE takes it.

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, equation 1 and algorithm 1, with
        time the other way round.

    Args:
        net: The network: ``net(x_t, t)``, or ``net(x_t, t, y)`` with labels, → the velocity.
        path: The straight path, with times to train at of its own where that is wanted.
        drop: Share of the labels that training hides, as in ``Denoiser``.

    Example:
        >>> from course_lib.nn import TimeMLP
        >>> model = RectifiedFlow(TimeMLP(2, [8], scale=1000))
        >>> model.loss(torch.zeros(5, 2), torch.ones(5, 2)).shape
        torch.Size([])
        >>> model.transport(torch.ones(5, 2), steps=3).shape
        torch.Size([5, 2])

    """

    def __init__(
        self, net: Callable[..., Tensor], *, path: StraightPath | None = None, drop: float = 0.0
    ):
        path = StraightPath() if path is None else path
        if not isinstance(path, StraightPath):
            raise ValueError(f"path must be a StraightPath, got {path!r}")
        super().__init__(net, path, predicts="velocity", drop=drop)

    def loss(
        self,
        x0: Tensor,
        x1: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The mean of ‖v(x_t, t) − (x_1 − x_0)‖² over the pairs, in squares of one number.

        Args:
            x0: Where to go, ``[B, *event]``.
            x1: Where from: ``x1[i]`` belongs to ``x0[i]``. Pairs that are drawn independently of
                each other make a first rectified flow, those of ``reflow`` the next.
            y: Labels ``[B]``, for a network with classes.
            generator: Source of the times, and of the labels that are dropped.

        Raises:
            PredictionError: When the network's output has another shape than ``x0``.

        """
        check_tensor("x0", x0, None, dtype=self.dtype)
        check_tensor("x1", x1, x0.shape, dtype=self.dtype)
        velocity = x1 - x0
        check_difference(velocity, x0=x0, x1=x1)
        t = self.path.draw_times(len(x0), generator=generator, device=x0.device)
        y = self.hide(y, generator=generator)
        v = self._call(interpolate.inside(x0, x1, t), t, y)
        if v.shape != x0.shape:
            what = f"{list(x0.shape)}, got {list(v.shape)}"
            raise PredictionError(f"net's output must have shape {what}")
        return mse_loss(v, velocity)

    def states(
        self,
        x: Tensor,
        *,
        steps: int,
        to: int = 0,
        solver: str = "euler",
        y: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """The states on the way of ``x``, ``steps`` + 1 of ``[B, *event]``, ``x`` first.

        Args:
            x: Where to start, ``[B, *event]``: x_1, or x_0 for the way ``to`` 1.
            steps: How many, of one length.
            to: The end to go to, 0 or 1.
            solver: ``"euler"``, ``"heun"`` or ``"rk4"``.
            y: Labels ``[B]``, for a network with classes.

        """
        if type(to) is not int or to not in (0, 1):
            raise ValueError(f"to must be 0 or 1, got {to!r}")
        check_floats("x", x, None, dtype=self.dtype)
        options = {"steps": steps, "solver": solver, "y": y}
        if to == 1:
            return ode_encode(self, x, **options)
        return ode_sample(self, x.shape, z=x, **options)

    def transport(self, x: Tensor, steps: int = 10, **options) -> Tensor:
        """Where ``x [B, *event]`` is carried: from x_1 to x_0; options as of ``states``."""
        return last(self.states(x, steps=steps, **options))

    def sample(
        self, n: int, *, steps: int = 10, generator: torch.Generator | None = None, **options
    ) -> Tensor:
        """``n`` samples of a flow whose x_1 is standard normal noise; options as of ``states``."""
        check_int("n", n, minimum=1)
        return self.transport(self.noise((n, *self.event_shape), generator), steps, **options)


def reflow(
    model: Denoiser,
    n: int,
    *,
    steps: int,
    solver: str = "euler",
    y: Tensor | None = None,
    x1: Tensor | None = None,
    batch_size: int = 500,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Pairs (x_0, x_1) that a flow has made: the data of the next rectified flow.

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, algorithm 1, "Reflow".

    Args:
        model: A flow on a straight path.
        n: How many.
        steps: Of the solver. Errors made here are what the next flow learns.
        solver: As of ``ode_sample``.
        y: Labels ``[n]``, for a network with classes.
        x1: Where to start, ``[n, *event]``; by default standard normal noise is drawn.
        batch_size: How many are carried at once.
        generator: Source of the noise.

    Returns:
        x_0 and x_1, each ``[n, *event]``; ``x1[i]`` is carried to ``x0[i]``.

    """
    _check_flow(model)
    check_int("n", n, minimum=1)
    check_int("batch_size", batch_size, minimum=1)
    if x1 is None:
        x1 = model.noise((n, *model.event_shape), generator)
    check_floats("x1", x1, (n, *model.event_shape), dtype=model.dtype)
    x0 = []
    for i in torch.arange(n).split(batch_size):
        z, labels = x1[i], None if y is None else y[i]
        x0.append(last(ode_sample(model, z.shape, steps=steps, solver=solver, y=labels, z=z)))
    return torch.cat(x0), x1


def distill(model: Denoiser, steps: int = 1) -> RectifiedFlow:
    """A student: a copy of a flow that learns only to jump, from each of ``steps`` places.

    Its ``loss`` of the teacher's pairs of ``reflow`` is asked at t = 1 alone, or at 1, 1 − 1/k, ...
    for k ``steps``: there ‖(x_1 − x_0) − v(x_1, 1)‖² is the squared error of one step of Euler.

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, section 3.2, "distillation".

    """
    _check_flow(model)
    check_one_of("model.predicts", model.predicts, ["velocity"])
    check_int("steps", steps, minimum=1)
    path = StraightPath(partial(jump_times, steps))
    return RectifiedFlow(copy.deepcopy(model.net), path=path, drop=model.drop)


def jump_times(
    steps: int, n: int, *, generator: torch.Generator | None = None, device: torch.device = "cpu"
) -> Tensor:
    """``n`` of the times 1, 1 − 1/k, ..., 1/k at which k = ``steps`` steps of Euler begin."""
    return 1 - torch.randint(steps, (n,), generator=generator, device=device) / steps


def straightness(states: Tensor | Iterable[Tensor]) -> Tensor:
    """How far ways are from straight ones: ∫ ‖(x_1 − x_0) − dx/dt‖² dt of each, ``[B]``.

    0 for a straight way at constant speed. The velocity of each step is the state's change in it.

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, section 2.2, S(Z).

    Args:
        states: ``[T, B, *event]``, or ``[B, *event]`` after each other, as ``states`` of a flow
            yields them: at least two, at times of equal distance, from either end.

    """
    states = list(states)
    for i, x in enumerate(states):
        check_floats(f"states[{i}]", x, None if i == 0 else states[0].shape)
    if len(states) < 2 or states[0].ndim < 2:
        what = f"{len(states)} of {list(states[0].shape)}" if states else "none"
        raise ValueError(f"states must be at least two of [B, *event], got {what}")
    states = torch.stack(states)
    velocity = states.diff(dim=0) * (len(states) - 1)  # in one unit of time, the whole way
    return (velocity - (states[-1] - states[0])).flatten(2).square().sum(2).mean(0)


def squared_norm(d: Tensor) -> Tensor:
    """‖d‖² of displacements ``[B, *event]``: ``[B]``."""
    return d.flatten(1).square().sum(1)


def transport_cost(
    x0: Tensor, x1: Tensor, *, cost: Callable[[Tensor], Tensor] = squared_norm
) -> Tensor:
    """The mean cost c(x_1 − x_0) of pairs ``[B, *event]``: a scalar.

    Args:
        x0: One end of each pair.
        x1: The other, the same shape.
        cost: c, of displacements ``[B, *event]`` → ``[B]``; by default ‖·‖².

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, section 3.1, theorem 3.5.
    """
    _check_pairs(x0, x1)
    costs = cost(x1 - x0)
    check_floats("cost's values", costs, (len(x0),))
    return costs.mean()
