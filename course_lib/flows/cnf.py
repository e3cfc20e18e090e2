"""Continuous flows: data are carried to the latent by a velocity, and their density with them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.checks import check_bool, check_generator, check_int, check_number, check_one_of
from course_lib.flows.base import StandardGaussian, Transform
from course_lib.flows.divergence import METHODS, check_value, random_signs, with_divergence

__all__ = ["CNF", "SolverError", "integrate"]

MAX_STEPS = 10_000  # between two of the times that are asked for
FIRST_STEP = 0.1  # of a CNF, a tenth of the way: where it is too long, one trial more is lost


class SolverError(ArithmeticError):
    """An ODE can't be followed any further: its numbers, or those of its velocity, explode."""


class Field:
    """A velocity as a solver wants it: of a time tensor and a state, which may carry a density.

    The state is ``[B, n]``, or ``[B, n + 1]`` with the integral of the divergence beside it: when
    x moves with velocity f, log p(x) changes at the rate −∇·f.

    Args:
        velocity: ``velocity(x, t)``, with ``x [B, *event]`` and one time as a tensor.
        shape: ``[B, *event]``.
        carries: Whether the divergence is integrated as well.
        probe: For Hutchinson's estimate, ``[B, *event]``; None for the exact divergence.

    """

    def __init__(
        self,
        velocity: Callable[[Tensor, Tensor], Tensor],
        shape: Sequence[int],
        carries: bool,
        probe: Tensor | None,
    ):
        self.velocity, self.shape, self.carries, self.probe = velocity, shape, carries, probe
        self.reached = None

    def callback_step(self, t: Tensor, state: Tensor, dt: Tensor) -> None:
        """Note how far the solver has come."""
        self.reached = t.item()

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        if not self.carries:
            x = state.reshape(self.shape)
            value = self.velocity(x, t)
            check_value(value, x)
            return value.reshape(state.shape)
        x = state[:, :-1].reshape(self.shape)
        value, divergence = with_divergence(lambda x: self.velocity(x, t), x, self.probe)
        return torch.cat([value.flatten(1), divergence[:, None]], dim=1)


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    times: Sequence[float],
    *,
    divergence: bool = True,
    probe: Tensor | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    parameters: Sequence[Tensor] | None = None,
    stop: bool = False,
    first_step: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Follow dx/dt = velocity(x, t) from the first of ``times`` to the last, by Dormand and Prince.

    The steps are chosen so that each has an error of about ``atol`` + ``rtol`` · |state|, as a
    mean over the batch; so what comes out for one example depends a little on the others.

    Args:
        velocity: ``velocity(x, t)``, with one time as a tensor → ``[B, *event]``.
        x: The start ``[B, *event]``.
        times: Two or more, rising or falling.
        divergence: Whether to integrate the divergence, too: the log-determinant of the way.
        probe: As ``random_signs`` gives it, one for the whole way: integrate Hutchinson's
            estimate. None: the exact divergence.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        parameters: Those of ``velocity`` that learn: gradients come by the adjoint equation, which
            goes the way once more, backwards, and keeps nothing. None: through all steps.
        stop: Whether no time beyond the last may be asked for. Without it the last step may
            overshoot, and the end is read off between two states.
        first_step: The length to try first. None: let the solver find one, with one more call.

    Returns:
        The states ``[T, B, *event]`` and the integrals of the divergence until then, ``[T, B]``;
        zeros without ``divergence``.

    Raises:
        SolverError: When no step is short enough, or too many are needed; with the time.

    """
    from torchdiffeq import odeint, odeint_adjoint  # they load all of SciPy's solvers

    check_number("rtol", rtol, above=0)
    check_number("atol", atol, above=0)
    field = Field(velocity, x.shape, divergence, probe)
    start = x.flatten(1)
    if divergence:
        start = torch.cat([start, start.new_zeros(len(x), 1)], dim=1)
    t = torch.tensor(times, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    # Times in the precision of x: not every device has double precision.
    options = {"max_num_steps": MAX_STEPS, "dtype": t.dtype, "first_step": first_step}
    if stop:
        options["step_t"] = t[1:]
    solver = {"rtol": rtol, "atol": atol, "method": "dopri5", "options": options}
    try:
        if parameters is None:
            states = odeint(field, start, t, **solver)
        else:
            states = odeint_adjoint(field, start, t, adjoint_params=tuple(parameters), **solver)
    except AssertionError as error:  # what torchdiffeq says of its step and of its state
        way = f"from t = {times[0]:.6g} to {times[-1]:.6g}"
        why = str(error).split(":")[0]  # without a print of the whole state
        raise SolverError(
            f"the solver must come {way}, got stuck at t = {field.reached:.6g} ({why})"
        ) from None
    if not divergence:
        return states.reshape(len(t), *x.shape), x.new_zeros(len(t), len(x))
    return states[..., :-1].reshape(len(t), *x.shape), states[..., -1]


class CNF(Transform):
    """A continuous normalizing flow: dx/dt = net(x, t) carries data, t = 0, to the latent, t = 1.

    Any network will do, and none is inverted: the way back is the same equation, backwards in
    time. The log-determinant is the integral of the divergence, the trace of one Jacobian.

    Reference:
        Chen et al. 2018, https://arxiv.org/abs/1806.07366; with Hutchinson's estimate FFJORD,
        Grathwohl et al. 2019, https://arxiv.org/abs/1810.01367.

    Args:
        dim: Number of coordinates.
        net: ``net(x, t)``: ``x [B, dim]``, ``t [B]`` → ``[B, dim]``.
        divergence: ``"exact"``, with ``dim`` backward passes for each velocity, or
            ``"hutchinson"``, with one.
        adjoint: Whether gradients come by the adjoint equation, which keeps no states but goes the
            way twice, or through all steps of the solver.
        rtol: Relative tolerance of the solver.
        atol: Absolute tolerance.

    Example:
        >>> from course_lib.nn import TimeMLP
        >>> flow = CNF(2, TimeMLP(2, [8], scale=1000))
        >>> flow.log_prob(torch.zeros(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))

    """

    def __init__(
        self,
        dim: int,
        net: Callable[[Tensor, Tensor], Tensor],
        *,
        divergence: str = "exact",
        adjoint: bool = False,
        rtol: float = 1e-5,
        atol: float = 1e-5,
    ):
        if not callable(net):
            raise ValueError(f"net must be a network or a function, got {net!r}")
        check_one_of("divergence", divergence, METHODS)
        check_bool("adjoint", adjoint)
        check_number("rtol", rtol, above=0)
        check_number("atol", atol, above=0)
        super().__init__(dim)
        self.net, self.divergence, self.adjoint = net, divergence, adjoint
        self.rtol, self.atol = rtol, atol
        self.base = StandardGaussian(dim)

    def extra_repr(self) -> str:
        """The dimension, and how divergence and gradients are computed."""
        return f"{super().extra_repr()}, divergence={self.divergence}, adjoint={self.adjoint}"

    def velocity(self, x: Tensor, t: Tensor | float) -> Tensor:
        """dx/dt ``[B, dim]`` at points ``x [B, dim]`` and one time ``t``."""
        return self.net(x, torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x)))

    def forward(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Lead data ``x [B, dim]`` to ``(z [B, dim], log_det [B])``, as ``log_prob`` says."""
        self.check_event("x", x, finite=True)
        return self._carry(x, (0.0, 1.0), generator)

    def inverse(
        self, z: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Lead latents ``z [B, dim]`` to ``(x [B, dim], log_det [B])``."""
        self.check_event("z", z, finite=True)
        return self._carry(z, (1.0, 0.0), generator)

    def _carry(
        self, x: Tensor, times: tuple[float, float], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        check_generator(generator, x.device)
        probe = random_signs(x, generator) if self.divergence == "hutchinson" else None
        states, log_dets = self._integrate(x, times, probe=probe)
        return states[-1], log_dets[-1]

    def _integrate(
        self,
        x: Tensor,
        times: Sequence[float],
        *,
        divergence: bool = True,
        probe: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        learns = self.adjoint and torch.is_grad_enabled()
        return integrate(
            self.velocity,
            x,
            times,
            divergence=divergence,
            probe=probe,
            rtol=self.rtol,
            atol=self.atol,
            parameters=tuple(self.parameters()) if learns else None,
            first_step=FIRST_STEP,
        )

    def log_prob(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Log-density ``[B]`` of data ``x [B, dim]``, in nats: the change of variables.

        Exact up to the solver's tolerance; with ``divergence="hutchinson"`` an unbiased estimate,
        from one probe for each example, which the ``generator`` draws.
        """
        z, log_det = self(x, generator=generator)
        return self.base.log_prob(z) + log_det

    def loss(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean negative log-likelihood of ``x [B, dim]``, in nats."""
        return -self.log_prob(x, generator=generator).mean()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws ``[n, dim]``: latents, led backwards in time. No divergence is needed."""
        z = self.base.sample(n, generator=generator)
        return self._integrate(z, (1.0, 0.0), divergence=False)[0][-1]

    @torch.no_grad()
    def trajectory(self, x: Tensor, *, steps: int = 20) -> Tensor:
        """The states at ``steps`` + 1 even times from data to latent, ``[T, B, dim]``."""
        self.check_event("x", x, finite=True)
        check_int("steps", steps, minimum=1)
        return self._integrate(x, [i / steps for i in range(steps + 1)], divergence=False)[0]

    @torch.no_grad()
    def trajectory_inverse(self, z: Tensor, *, steps: int = 20) -> Tensor:
        """The states at ``steps`` + 1 even times from latent to data, ``[T, B, dim]``."""
        self.check_event("z", z, finite=True)
        check_int("steps", steps, minimum=1)
        return self._integrate(z, [1 - i / steps for i in range(steps + 1)], divergence=False)[0]
