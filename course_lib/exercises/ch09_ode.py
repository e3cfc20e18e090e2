"""Exercises of chapter 09: fields and densities, solvers, flow matching."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.diffusion import (
    FlowMatching,
    divergence,
    euler_step,
    heun_step,
    marginal_velocity,
    ode_sample,
)
from course_lib.exercises.attempt import Attempt, Given, Mistake, take_tensor
from course_lib.exercises.draws import between, randn
from course_lib.exercises.formula import Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.flows.divergence import hutchinson_trace

__all__: list[str] = []


# --- Squeezed in many dimensions -----------------------------------------------------------------

_TRACE = "∂ log p / ∂t along a path is −∇·f, and the divergence is a sum over all dimensions."

prediction(
    "09.predict_squeeze",
    task="Predict: the field f(x) = −x in 784 dimensions, followed for a time of 0.01. By how many "
    "nats does log p grow along every path?",
    solution=divergence,
    hints=[
        "Along a path log p changes by −∇·f each unit of time.",
        "What is the trace of the Jacobian of −x in 784 dimensions?",
        "784 · 0.01.",
    ],
    right=7.84,
    within=0.05,
    wrong=[
        Slip(
            -7.84,
            "The field squeezes: the same mass in less room is a higher density.",
            _TRACE,
            within=0.05,
        ),
        Slip(0.01, "That is one dimension: each of the 784 squeezes as much.", within=0.001),
        Slip(784, "That is for a time of 1.", within=1),
        Slip(0.28, "You take the root of 784: divergences add up, lengths do not.", within=0.01),
        Slip(
            math.exp(7.84),
            "That is the factor by which p itself grows; nats are its logarithm.",
            _TRACE,
            within=10,
        ),
    ],
    passes="7.84 nats: p grows 2,540-fold while every coordinate shrinks by one part in a hundred. "
    "In many dimensions a likelihood is made of many small volumes.",
    question="A number of nats is asked for.",
    hint=_TRACE,
    otherwise=lambda got: (f"{got:.4g} nats is not −∇·f times the time.", _TRACE),
)


# --- A divergence by hand ------------------------------------------------------------------------

_CHAIN = "∂f_i / ∂x_i = Σ_j A_ij (1 − tanh²(B x)_j) B_ji; the divergence is the sum over i."


def _slope(x: Tensor, B: Tensor) -> Tensor:
    return 1 - torch.tanh(x @ B.T) ** 2


def _field_divergence(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return _slope(x, B) @ (A * B.T).sum(0)


def _draw_fields(generator: torch.Generator) -> list[tuple]:
    return [
        tuple(randn(*shape, generator=generator) for shape in ((n, d), (d, h), (h, d)))
        for n, d, h in ((7, 2, 5), (4, 3, 3), (5, 4, 4))
    ]


# fmt: off
_FIELD_WRONG = [
    Wrong(lambda x, A, B: torch.tanh(x @ B.T) @ (A * B.T).sum(0),
          "You take tanh where its derivative belongs.", "tanh' = 1 − tanh²."),
    Wrong(lambda x, A, B: (1 - torch.tanh(x @ B.T)) @ (A * B.T).sum(0),
          "The derivative of tanh is 1 − tanh²: the square is missing.", _CHAIN),
    Wrong(lambda x, A, B: (A * B.T).sum().expand(len(x)).clone(),
          "You leave tanh's derivative out: that is the divergence of A B x.", _CHAIN),
    Wrong(lambda x, A, B: _slope(x, B) @ (A.sum(0) * B.sum(1)),
          "You sum over all entries of the Jacobian, not over its diagonal.",
          "Only ∂f_i / ∂x_i: the index of the row of A is that of the column of B."),
    Wrong(lambda x, A, B: _slope(x, B) @ A.sum(0), "You forget the inner derivative, B.", _CHAIN),
    Wrong(lambda x, A, B: _slope(x, B) @ B.sum(1), "You forget A.", _CHAIN),
    Wrong(lambda x, A, B: (torch.tanh(x @ B.T) @ A.T).sum(1), "You sum f itself.", _CHAIN),
    Wrong(lambda x, A, B: _field_divergence(x, A, B) / x.shape[1],
          "You take the mean over the dimensions: the trace is a sum.", _CHAIN),
    Wrong(lambda x, A, B: _slope(x, B) @ (A * A).sum(0), "You use A twice.", _CHAIN),
    usual("sign", "Your divergence has the wrong sign: −∇·f is what log p does.", _CHAIN),
    usual("batch mean"),
    usual("batch sum"),
]
# fmt: on

formula(
    "09.field_divergence",
    task="Derive, and write `field_divergence`: ∇·f [N] of the field f(x) = A tanh(B x) at x "
    "[N, D], with A [D, H] and B [H, D], without automatic differentiation; gradients flow to A "
    "and B: a CNF is trained through them.",
    signature="field_divergence(x, A, B) -> [N]",
    solution=divergence,
    hints=[
        "f_i = Σ_j A_ij tanh(Σ_k B_jk x_k). What is ∂f_i / ∂x_i?",
        "The inner derivative is B_ji, and tanh' = 1 − tanh².",
        "Sum over i first: Σ_j (1 − tanh²(B x)_j) Σ_i A_ij B_ji.",
    ],
    right=_field_divergence,
    inputs=_draw_fields,
    axes="[N, D], [D, H], [H, D] -> [N]",
    gradients=["A", "B"],
    wrong=_FIELD_WRONG,
    hint=_CHAIN,
    otherwise=("Your numbers are not the traces of the Jacobian.", _CHAIN),
    passes="Your numbers are the traces, for N points at the cost of one evaluation of the field. "
    "Autograd needs D backward passes for the same.",
)


# --- Other probes for Hutchinson ------------------------------------------------------------------

_COORDINATES = (
    "With v = √D e_i the estimate is D J_ii: its mean is tr J, its square's mean D Σ J_ii²."
)


def _of_diagonal(variance: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor], Tensor]:
    """An answer by a formula of the diagonal and of D."""
    return lambda J: variance(J.diagonal(), len(J))


# fmt: off
_COORDINATES_WRONG = [
    Wrong(lambda J: (J + J.T).triu(1).square().sum(),
          "That is the variance with random signs, which know the diagonal exactly.",
          "These probes see nothing but the diagonal. " + _COORDINATES),
    Wrong(lambda J: (J + J.T).square().sum() / 2,
          "That is the variance with Gaussian numbers.", _COORDINATES),
    Wrong(_of_diagonal(lambda d, D: D * d.square().sum()),
          "That is E[(vᵀJv)²]: subtract the mean's square.",
          _COORDINATES),
    Wrong(_of_diagonal(lambda d, D: d.square().sum() - d.sum() ** 2),
          "You forget the D: v has length √D, so that E[vvᵀ] = 1.", _COORDINATES),
    Wrong(_of_diagonal(lambda d, D: d.square().mean() - d.mean() ** 2),
          "That is the variance of the entries J_ii: the estimate is D times as large.",
          _COORDINATES),
    Wrong(_of_diagonal(lambda d, D: D * (d.square().mean() - d.mean() ** 2)),
          "You multiply by D once; the estimate is D J_ii, its square has D².", _COORDINATES),
    Wrong(_of_diagonal(lambda d, D: D**2 * d.var()),
          "You divide by D − 1: nothing is estimated here.", _COORDINATES),
    Wrong(_of_diagonal(lambda d, D: (D * d.square().sum() - d.sum() ** 2).sqrt()),
          "That is the standard deviation.", "The variance is its square."),
    Wrong(lambda J: J.trace(), "That is the mean of the estimate.", _COORDINATES),
    Wrong(lambda J: len(J) * J.square().sum() - J.trace() ** 2,
          "Off-diagonal entries never enter.", _COORDINATES),
    Wrong(lambda J: len(J) * J.square().sum(1).mean() - J.trace() ** 2,
          "e_i takes J_ii, not the whole row.", _COORDINATES),
]
# fmt: on

formula(
    "09.hutchinson_variance",
    task="Derive, and write `hutchinson_variance`: the variance of Hutchinson's estimate vᵀJv of "
    "tr J [D, D] with probes of another kind: √D times one of the D unit vectors, all as likely.",
    signature="hutchinson_variance(J) -> a number",
    solution=hutchinson_trace,
    hints=[
        "What is vᵀJv when v = √D e_i?",
        "D J_ii, with probability 1 / D each. Is its mean the trace?",
        "E[(D J_ii)²] − (tr J)² = D Σ_i J_ii² − (tr J)².",
    ],
    right=_of_diagonal(lambda d, D: D * d.square().sum() - d.sum() ** 2),
    inputs=lambda generator: [(randn(d, d, generator=generator),) for d in (4, 3, 5)],
    result="variance",
    axes="[D, D] -> []",
    wrong=_COORDINATES_WRONG,
    hint=_COORDINATES,
    otherwise=("Your number is not the variance.", _COORDINATES),
    passes="Your variance is small where all coordinates spread alike, and large where one alone "
    "does: random signs ask all coordinates at once, and pay with the entries off the diagonal.",
)


# --- A step with two calls -----------------------------------------------------------------------


def _swirl(x: Tensor, t: float) -> Tensor:
    return torch.sin(2 * x + t) - 0.5 * x.roll(1, 1) * math.cos(3 * t)


_FIELD = Given(
    "f", ["x", "t"], lambda x, t: torch.sin(2 * x + t) - 0.5 * x.roll(1, 1) * math.cos(3 * t)
)
_HALF = (
    "Go half of the step with the first velocity, ask there, at t + dt / 2, and use that answer."
)


def _half_way(f: Callable[..., Tensor], x: Tensor, t: float, dt: float) -> Tensor:
    return f(x + dt / 2 * f(x, t), t + dt / 2)


# fmt: off
_MIDPOINT_WRONG = [
    Wrong(euler_step, "That is Euler's step: the velocity of the start, all the way.", _HALF),
    Wrong(heun_step, "That is Heun's step, which asks at the end of the step.", _HALF),
    Wrong(lambda f, x, t, dt: x + dt * f(x + dt * f(x, t), t + dt),
          "You ask at the end of the step.", _HALF),
    Wrong(lambda f, x, t, dt: x + dt * f(x + dt / 2 * f(x, t), t),
          "You ask in the middle, but tell the field the time of the start.", "t + dt / 2."),
    Wrong(lambda f, x, t, dt: x + dt * f(x + dt / 2 * f(x, t), t + dt),
          "You tell the field the time of the end.", "t + dt / 2."),
    Wrong(lambda f, x, t, dt: x + dt * f(x + dt * f(x, t), t + dt / 2),
          "You go all of the step before you ask.", _HALF),
    Wrong(lambda f, x, t, dt: x + dt / 2 * f(x, t) + dt * _half_way(f, x, t, dt),
          "You take the second velocity from the middle on, for all of dt.",
          "The step starts at x: x + dt · velocity in the middle."),
    Wrong(lambda f, x, t, dt: x + dt / 2 * f(x, t) + dt / 2 * _half_way(f, x, t, dt),
          "You go half with the first velocity, half with the second.",
          "The first is only there to find the middle."),
    Wrong(lambda f, x, t, dt: x + dt / 2 * _half_way(f, x, t, dt), "You go half of the step.", ""),
    Wrong(lambda f, x, t, dt: x - dt * _half_way(f, x, t, dt), "You walk the wrong way.",
          "dt has a sign of its own."),
    Wrong(lambda f, x, t, dt: dt * _half_way(f, x, t, dt),
          "You give the change of x, not x.", "Add x."),
    Wrong(lambda f, x, t, dt: x + dt * f(x, t + dt / 2),
          "You move the time to the middle, but not x.", _HALF),
]
# fmt: on


def _praise_midpoint(attempt: Attempt, generator: torch.Generator) -> str:
    errors = []
    for n in (20, 40):
        x = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(n):
            x = attempt(lambda x, t: -x, x, 0.0, 1 / n)
        errors.append(abs(x.item() - math.exp(-1)))
    return (
        f"Your step is the midpoint method: twice as many steps, and the error of dx/dt = −x falls "
        f"{errors[0] / errors[1]:.1f}-fold, order 2, with as many calls as Heun's."
    )


formula(
    "09.midpoint_step",
    task="Write `midpoint_step`: from x [B, D] at time t to t + dt with two calls of f(x, t), the "
    "second in the middle of the step. Which order has it?",
    signature="midpoint_step(f, x, t, dt) -> x",
    solution=[euler_step, heun_step],
    hints=[
        "Euler's half step finds the middle.",
        "The middle has a time of its own, t + dt / 2.",
        "x + dt · f(x + dt / 2 · f(x, t), t + dt / 2).",
    ],
    right=lambda f, x, t, dt: x + dt * _half_way(f, x, t, dt),
    inputs=lambda generator: [
        (_FIELD, randn(*shape, generator=generator), between(0.1, 0.9, generator), dt)
        for shape, dt in (((7, 2), 0.7), ((4, 4), -0.6))
    ],
    result="x",
    wrong=_MIDPOINT_WRONG,
    otherwise=("Your x is not that of the midpoint method.", _HALF),
    passes=_praise_midpoint,
)


# --- The marginal velocity of two points ---------------------------------------------------------

_WEIGHTS = (
    "The velocity is eps − x_0, and eps = (x − (1 − t) x_0) / t: (x − x_0) / t. Its mean needs "
    "E[x_0 | x_t = x]: −1 and 1, weighted by exp(−(x ∓ (1 − t))² / (2 t²))."
)


def _two_points(mean: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer (x − E[x_0 | x]) / t by a formula of the mean."""
    return lambda x, t: (x - mean(x, t)) / t


def _draw_points(generator: torch.Generator) -> list[tuple]:
    return [
        (randn(n, generator=generator), 0.25 + 0.6 * torch.rand(n, generator=generator))
        for n in (7, 5)
    ]


# fmt: off
_POINTS_WRONG = [
    Wrong(lambda x, t: x / t, "You take the mean of the data, 0, whatever x is.",
          "Where x is says which point it comes from. " + _WEIGHTS),
    Wrong(_two_points(lambda x, t: x.sign()), "You take the nearer point alone.", _WEIGHTS),
    Wrong(_two_points(lambda x, t: torch.tanh(x / t**2)),
          "Your weights forget that the points shrink to ±(1 − t).", _WEIGHTS),
    Wrong(_two_points(lambda x, t: torch.tanh(x * (1 - t) / t)),
          "Your weights have t where the variance t² belongs.", _WEIGHTS),
    Wrong(_two_points(lambda x, t: torch.tanh(2 * x * (1 - t) / t**2)),
          "Your weights forget the 2 of 2 t².",
          "Half of the difference of the logs goes into tanh."),
    Wrong(_two_points(lambda x, t: torch.tanh(x * (1 - t) / (2 * t**2))),
          "Your weights are too flat, by a factor of 2 in the exponent.", _WEIGHTS),
    Wrong(_two_points(lambda x, t: torch.tanh(x)), "Your weights don't know the time.", _WEIGHTS),
    Wrong(lambda x, t: x - torch.tanh(x * (1 - t) / t**2), "You forget to divide by t.",
          "eps is (x − (1 − t) x_0) / t."),
    Wrong(lambda x, t: (x - (1 - t) * torch.tanh(x * (1 - t) / t**2)) / t,
          "That is E[eps | x], not the velocity.",
          "The velocity is eps − x_0."),
    Wrong(lambda x, t: torch.tanh(x * (1 - t) / t**2),
          "That is E[x_0 | x], not the velocity.", _WEIGHTS),
    Wrong(lambda x, t: (torch.tanh(x * (1 - t) / t**2) - x) / t,
          "Your velocity points to the data.",
          "t rises from the data to the noise; dx/dt = eps − x_0."),
]
# fmt: on

formula(
    "09.two_point_velocity",
    task="Derive, and write `two_point_velocity`: the marginal velocity [B] on the straight path "
    "x_t = (1 − t) x_0 + t eps at points x [B] of a line and times t [B], for data at −1 and 1, "
    "equally likely.",
    signature="two_point_velocity(x, t) -> [B]",
    solution=marginal_velocity,
    hints=[
        "It is E[eps − x_0 | x_t = x]. Write eps by x and x_0.",
        "(x − E[x_0 | x]) / t is left: how likely is each of the two points, seen from x?",
        "The two weights differ by a factor exp(2 x (1 − t) / t²): their mean is a tanh.",
    ],
    right=_two_points(lambda x, t: torch.tanh(x * (1 - t) / t**2)),
    inputs=_draw_points,
    result="velocity",
    axes="[B], [B] -> [B]",
    tolerance=1e-3,
    wrong=_POINTS_WRONG,
    hint=_WEIGHTS,
    otherwise=("Your velocity is not the mean of those of the two lines.", _WEIGHTS),
    passes="Your velocity is the average of the lines that cross at x. Half-way between the "
    "points it "
    "is x / t: neither line goes there, and no single pair has that velocity.",
)


# --- Flow matching on an arc ---------------------------------------------------------------------

_NET = Given("net", ["x", "t"], lambda x, t: torch.sin(1.3 * x) + 0.4 * x * t[:, None] - 0.3)
_ARC = "x_t = cos(π t / 2) x_0 + sin(π t / 2) eps. Differentiate it by t, with x_0 and eps fixed."


def _amounts(t: Tensor) -> tuple[Tensor, Tensor]:
    return (math.pi / 2 * t).cos(), (math.pi / 2 * t).sin()


def _arc(
    target: Callable[..., Tensor], amounts: Callable[..., tuple[Tensor, Tensor]] = _amounts
) -> Callable[..., Tensor]:
    """The mean squared error of the network at x_t, by the target's formula of a, b, x_0, eps."""

    def loss(net: Callable[..., Tensor], x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        a, b = amounts(t[:, None])
        return (net(a * x0 + b * eps, t) - target(*_amounts(t[:, None]), x0, eps)).square().mean()

    return loss


def _arc_velocity(a: Tensor, b: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
    return math.pi / 2 * (a * eps - b * x0)


# fmt: off
_ARC_WRONG = [
    Wrong(_arc(lambda a, b, x0, eps: eps - x0),
          "Your target is the straight path's velocity.", _ARC),
    Wrong(_arc(lambda a, b, x0, eps: a * eps - b * x0),
          "Your target lacks the π / 2 of the inner derivative: that is v.", _ARC),
    Wrong(_arc(lambda a, b, x0, eps: math.pi / 2 * (b * x0 - a * eps)),
          "Your target points to the data.",
          "It is dx_t / dt, and t rises to the noise."),
    Wrong(_arc(lambda a, b, x0, eps: math.pi / 2 * (a * eps + b * x0)),
          "The derivative of the cosine is minus the sine.", _ARC),
    Wrong(_arc(lambda a, b, x0, eps: math.pi / 2 * (b * eps - a * x0)),
          "You don't differentiate: cosine and sine change places.", _ARC),
    Wrong(_arc(lambda a, b, x0, eps: eps), "Your target is the noise, as DDPM's.", _ARC),
    Wrong(_arc(_arc_velocity, lambda t: (1 - t, t)), "Your x_t is on the straight path.", _ARC),
    Wrong(lambda net, x0, eps, t: _arc(_arc_velocity)(net, x0, eps, t) * x0.shape[1],
          "You sum over the coordinates.", "The mean over everything."),
    Wrong(lambda net, x0, eps, t: _arc(_arc_velocity)(net, x0, eps, t).sqrt(),
          "You take the root of the mean.", ""),
    Wrong(lambda net, x0, eps, t: _arc(_arc_velocity)(net, eps, x0, t),
          "You swap data and noise.", "At t = 0 are the data."),
    usual("half", "Your loss is half as large.", "The mean squared error, without ½."),
]
# fmt: on

formula(
    "09.arc_loss",
    task="Write `arc_loss`: conditional flow matching on the path a = cos(π t / 2), b = sin(π t / "
    "2): "
    "the mean squared error of net(x_t, t), for data x0 and noise eps [B, D] and times t [B].",
    signature="arc_loss(net, x0, eps, t) -> loss",
    solution=FlowMatching,
    hints=[
        "The network sees x_t, and its target is dx_t / dt of this pair.",
        "a' = −π/2 sin(π t / 2), b' = π/2 cos(π t / 2).",
        "t has shape [B]: give it an axis, `t[:, None]`.",
    ],
    right=_arc(_arc_velocity),
    inputs=lambda generator: [
        (
            _NET,
            *(randn(n, d, generator=generator) for _ in range(2)),
            torch.rand(n, generator=generator),
        )
        for n, d in ((7, 2), (4, 4))
    ],
    result="loss",
    axes="_, [B, D], [B, D], [B] -> []",
    wrong=_ARC_WRONG,
    hint=_ARC,
    otherwise=("Your loss is not that of flow matching on this path.", _ARC),
    passes="Your loss teaches the velocity of a path of constant variance: another path, the same "
    "proof, the same line of code with other derivatives.",
)


# --- The wrong way -------------------------------------------------------------------------------

_STD = 0.5


def _flow_of_gaussian(x: Tensor, t: float) -> Tensor:
    """The exact velocity on the straight path when the data are N(0, ``_STD``²)."""
    variance = (1 - t) ** 2 * _STD**2 + t**2
    return (t - (1 - t) * _STD**2) / variance * x


@exercise(
    "09.break_the_sign",
    task="Break it: the data are N(0, 0.5²). Write `bad_sample(velocity, z, times)`, an Euler "
    "solver "
    "from the noise z at times[0] = 1 to times[-1] = 0 whose samples come out wider than the "
    "noise.",
    signature="bad_sample(velocity, z, times) -> x",
    solution=ode_sample,
    hints=[
        "dx/dt is the way to the noise. From t = 1 to t = 0, which sign has dt?",
        "A step of |dt| in place of dt walks on, away from the data.",
        "x + (times[i] − times[i + 1]) · velocity(x, times[i]).",
    ],
)
def _check_break_the_sign(attempt: Attempt, generator: torch.Generator) -> str:
    times = torch.linspace(1, 0, 101).tolist()
    z = randn(4000, 1, generator=generator)
    given = Given("velocity", ["x", "t"], _flow_of_gaussian)
    x = take_tensor("x", attempt(given, z, times), z.shape)
    width = (x.std() / z.std()).item()
    if 0.45 < width < 0.55:
        raise Mistake(
            f"Not broken: the samples are {width:.2f} wide, as the data.",
            "Which sign of dt leads away from them?",
        )
    if (x / z).std() > 1e-3 * (x / z).mean().abs():
        raise Mistake(
            "Your x is no multiple of z, as the flow of a Gaussian is.",
            "Ask `velocity(x, t)` at every time, and break the sign alone.",
        )
    if width < 1.2:
        raise Mistake(
            f"Your samples are {width:.2f} wide: no wider than the noise.",
            "Ask the velocity at the falling times, and add where you should subtract.",
        )
    return (
        f"Broken: the samples are {width:.2f} wide, the noise 1 and the data {_STD}. Nothing "
        "stopped "
        "and nothing warned. The way back to the data is the same velocity, with dt below zero."
    )
