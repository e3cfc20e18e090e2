"""Chapter 09: right answers, written differently, pass; known mistakes are named."""

import math
from itertools import pairwise

import numpy as np
import torch

from course_lib.diffusion import FlowMatching, divergence, marginal_velocity
from course_lib.exercises.ch09_ode import _flow_of_gaussian
from tests.diffusion.conftest import Circle
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- predict_squeeze -----------------------------------------------------------------------------

SQUEEZE_RIGHT = [7.84, 784 * 0.01, np.float32(7.84), torch.tensor(7.84)]
SQUEEZE_WRONG = {"far": (3.0, "3 nats is not −∇·f times the time")}

# --- field_divergence ----------------------------------------------------------------------------


def field_divergence(x, A, B):
    slope = 1 - torch.tanh(x @ B.T) ** 2
    return (slope * (A * B.T).sum(dim=0)).sum(dim=1)


def trace_of_jacobians(x, A, B):
    slope = 1 / torch.cosh(torch.einsum("hd,nd->nh", B, x)) ** 2
    jacobians = torch.einsum("ih,nh,hj->nij", A, slope, B)
    return jacobians.diagonal(dim1=1, dim2=2).sum(1)


FIELD_RIGHT = [field_divergence, trace_of_jacobians]
FIELD_WRONG = {
    "zeros": (lambda x, A, B: (A.sum() + B.sum()) * x[:, 0] * 0, "not the traces of the Jacobian"),
    "per coordinate": (
        lambda x, A, B: field_divergence(x, A, B)[:, None].expand(x.shape),
        "shape",
    ),
    "no gradient": (
        lambda x, A, B: divergence(lambda x: torch.tanh(x @ B.T) @ A.T, x).detach(),
        "gradient",
    ),
}

# --- hutchinson_variance -------------------------------------------------------------------------


def hutchinson_variance(J):
    return len(J) * (J.diagonal() ** 2).sum() - J.trace() ** 2


def variance_by_enumeration(J):
    v = math.sqrt(len(J)) * torch.eye(len(J))
    estimates = torch.einsum("vi,ij,vj->v", v, J, v)
    return estimates.var(correction=0)


HUTCHINSON_RIGHT = [hutchinson_variance, variance_by_enumeration]
HUTCHINSON_WRONG = {"zero": (lambda J: J.new_zeros(()), "Your number is not the variance")}

# --- midpoint_step -------------------------------------------------------------------------------


def midpoint_step(f, x, t, dt):
    middle = x + 0.5 * dt * f(x, t)
    return x + dt * f(middle, t + 0.5 * dt)


def midpoint_of_a_tableau(f, x, t, dt):
    nodes, rows, weights = (0, 0.5), ((), (0.5,)), (0, 1)
    k = []
    for node, row in zip(nodes, rows, strict=True):
        k.append(f(x + dt * sum(a * b for a, b in zip(row, k, strict=True)), t + node * dt))
    return x + dt * sum(w * slope for w, slope in zip(weights, k, strict=True))


MIDPOINT_RIGHT = [midpoint_step, midpoint_of_a_tableau]
MIDPOINT_WRONG = {
    "unchanged": (lambda f, x, t, dt: x.clone(), "not that of the midpoint method"),
    "one argument": (lambda f, x, t, dt: f(x), "You call `f(…)`"),
}

# --- two_point_velocity --------------------------------------------------------------------------


def two_point_velocity(x, t):
    points = torch.tensor([-1.0, 1.0])
    away = x[:, None] - (1 - t[:, None]) * points
    weights = torch.softmax(-(away**2) / (2 * t[:, None] ** 2), dim=1)
    return (x - weights @ points) / t


def velocity_of_the_library(x, t):
    data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    path = FlowMatching(torch.nn.Identity()).path
    return marginal_velocity(x[:, None].double(), data, t.double(), path)[:, 0].float()


POINTS_RIGHT = [
    two_point_velocity,
    velocity_of_the_library,
    lambda x, t: (x - torch.tanh(x * (1 - t) / t**2)) / t,
]
POINTS_WRONG = {
    "zero": (lambda x, t: torch.zeros_like(x), "not the mean of those of the two lines"),
}

# --- arc_loss ------------------------------------------------------------------------------------


def arc_loss(net, x0, eps, t):
    angle = (math.pi / 2 * t)[:, None]
    x_t = angle.cos() * x0 + angle.sin() * eps
    velocity = math.pi / 2 * (angle.cos() * eps - angle.sin() * x0)
    return ((net(x_t, t) - velocity) ** 2).mean()


def arc_of_the_path(net, x0, eps, t):
    path = Circle()
    da, db = path.slopes(t, x0)
    return torch.nn.functional.mse_loss(net(path.noised(x0, t, eps), t), da * x0 + db * eps)


ARC_RIGHT = [arc_loss, arc_of_the_path]
ARC_WRONG = {
    "constant": (lambda net, x0, eps, t: x0.new_tensor(1.0), "not that of flow matching"),
    "one argument": (lambda net, x0, eps, t: net(x0).mean(), "You call `net(…)`"),
}

# --- break_the_sign ------------------------------------------------------------------------------


def sample(sign):
    def walk(velocity, z, times):
        x = z
        for i in range(len(times) - 1):
            x = x + sign * (times[i + 1] - times[i]) * velocity(x, times[i])
        return x

    return walk


def asks_backwards(velocity, z, times):
    x = z.clone()
    for t, then in pairwise(times):
        x += abs(then - t) * velocity(x, t)
    return x


SIGN_RIGHT = [sample(-1), asks_backwards]
SIGN_WRONG = {
    "right": (sample(1), "Not broken: the samples are 0.49 wide"),
    "noise": (lambda velocity, z, times: z.clone(), "no wider than the noise"),
    "anything": (lambda velocity, z, times: z**3, "no multiple of z"),
    "one number": (lambda velocity, z, times: z[0], "shape"),
    "one argument": (lambda velocity, z, times: velocity(z), "You call `velocity(…)`"),
}


ALL = {
    "09.predict_squeeze": (SQUEEZE_RIGHT, SQUEEZE_WRONG),
    "09.field_divergence": (FIELD_RIGHT, FIELD_WRONG),
    "09.hutchinson_variance": (HUTCHINSON_RIGHT, HUTCHINSON_WRONG),
    "09.midpoint_step": (MIDPOINT_RIGHT, MIDPOINT_WRONG),
    "09.two_point_velocity": (POINTS_RIGHT, POINTS_WRONG),
    "09.arc_loss": (ARC_RIGHT, ARC_WRONG),
    "09.break_the_sign": (SIGN_RIGHT, SIGN_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "09"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) else 8


def test_the_field_that_is_handed_out_is_that_of_a_gaussian():
    """The velocity of N(0, 0.25) on the straight path: that of its spread, by differences."""
    for t in (0.1, 0.5, 0.9):
        h = 1e-5
        spread = [math.sqrt((1 - u) ** 2 * 0.25 + u**2) for u in (t - h, t, t + h)]
        rate = (spread[2] - spread[0]) / (2 * h) / spread[1]
        x = torch.tensor([[2.0]], dtype=torch.float64)
        torch.testing.assert_close(_flow_of_gaussian(x, t), rate * x, rtol=1e-6, atol=0)
