"""Paths in continuous time: those of the score SDEs, the straight line, and EDM's."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_generator, check_number
from course_lib.diffusion.paths import GaussianPath, per_example

__all__ = ["EDMPath", "ScaledInput", "StraightPath", "SubVPPath", "VEPath", "VPPath"]


class VPPath(GaussianPath):
    """Variance preserving, a² + b² = 1: what DDPM's steps become when they are infinitely many.

        a(t) = exp(−½ ∫ β),  b(t) = sqrt(1 − a²),  ∫ β = β_min t + ½ (β_max − β_min) t²

    It solves dx = −½ β(t) x dt + sqrt(β(t)) dw. T β_t of DDPM's linear schedule is β(t / T). Close
    to the data b falls like sqrt(t) and the score grows without bound, so that the path begins at
    ``t_min``, where b is 0.01 with the usual rates.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 33 and appendix C.

    Args:
        beta_min: The rate β at t = 0.
        beta_max: The rate at t = 1.

    Example:
        >>> path = VPPath()
        >>> path.a(torch.tensor([0.0, 0.5, 1.0])), path.drift(torch.tensor([0.0, 1.0]))
        (tensor([1.0000, 0.2812, 0.0066]), tensor([ -0.0500, -10.0000]))

    """

    t_min = 1e-3

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        check_number("beta_min", beta_min, above=0)
        check_number("beta_max", beta_max, minimum=beta_min)
        self.beta_min, self.beta_max = beta_min, beta_max

    def __repr__(self) -> str:
        return f"{type(self).__name__}(beta_min={self.beta_min}, beta_max={self.beta_max})"

    def beta(self, t: Tensor) -> Tensor:
        """The rate β at times ``t``: a straight line from ``beta_min`` to ``beta_max``."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def beta_integral(self, t: Tensor) -> Tensor:
        """The integral of β from 0 to ``t``."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def a(self, t: Tensor) -> Tensor:
        """exp(−½ ∫ β) at times ``t``."""
        return torch.exp(-0.5 * self.beta_integral(t))

    def b(self, t: Tensor) -> Tensor:
        """sqrt(1 − exp(−∫ β)) at times ``t``."""
        return torch.sqrt(-torch.expm1(-self.beta_integral(t)))

    def invert_log_snr(self, log_snr: Tensor) -> Tensor:
        """From a² = 1 / (1 + exp(−log-SNR)), and so ∫ β = log(1 + exp(−log-SNR))."""
        return self.invert_beta_integral(F.softplus(-log_snr))

    def invert_beta_integral(self, integral: Tensor) -> Tensor:
        """The time t at which β_min t + ½ (β_max − β_min) t² is ``integral``."""
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)


class SubVPPath(VPPath):
    """VP's drift with less noise, b(t) = 1 − exp(−∫ β) = 1 − a²: a² + b² ≤ 1 in between.

    It solves dx = −½ β x dt + sqrt(β (1 − exp(−2 ∫ β))) dw.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 12 and appendix C.

    Args:
        beta_min: The rate β at t = 0.
        beta_max: The rate at t = 1.

    """

    def b(self, t: Tensor) -> Tensor:
        """1 − exp(−∫ β) at times ``t``."""
        return -torch.expm1(-self.beta_integral(t))

    def invert_log_snr(self, log_snr: Tensor) -> Tensor:
        """From r = a / (1 − a²), the root of the SNR, and ∫ β = −2 log a."""
        r = torch.exp(log_snr / 2)
        a = 2 * r / (1 + torch.sqrt(1 + 4 * r**2))
        return self.invert_beta_integral(-2 * a.log())


class VEPath(GaussianPath):
    """Variance exploding: the data stay, a = 1, and noise grows until they drown.

        b(t) = σ_min (σ_max / σ_min)^t

    It solves dx = g(t) dw, and is what the noise levels of SMLD become. Already at t = 0 there is
    noise of size σ_min; at t = 1 there must be more than the data are wide.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 30 and appendix C; with
        b² = σ² where they have σ² − σ_min².

    Args:
        sigma_min: The noise at t = 0, above 0.
        sigma_max: The noise at t = 1; about the largest distance of two examples, after
            Song & Ermon 2020, https://arxiv.org/abs/2006.09011, technique 1.

    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        check_number("sigma_min", sigma_min, above=0)
        check_number("sigma_max", sigma_max, above=sigma_min)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def __repr__(self) -> str:
        return f"VEPath(sigma_min={self.sigma_min}, sigma_max={self.sigma_max})"

    def a(self, t: Tensor) -> Tensor:
        """1 at all times ``t``."""
        return torch.ones_like(t)

    def b(self, t: Tensor) -> Tensor:
        """σ_min (σ_max / σ_min)^t at times ``t``."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def invert_log_snr(self, log_snr: Tensor) -> Tensor:
        """Where σ, exp(−log-SNR / 2), stands between σ_min and σ_max, counted in logarithms."""
        log_min, log_max = math.log(self.sigma_min), math.log(self.sigma_max)
        return (-log_snr / 2 - log_min) / (log_max - log_min)


class StraightPath(GaussianPath):
    """The straight line from x_0 to eps, at constant speed: a = 1 − t, b = t.

    The path of flow matching and of rectified flow. At t = 1 nothing is left of the data, so that
    its drift is infinite there: as an SDE it has no start.

    Reference:
        Lipman et al. 2023, https://arxiv.org/abs/2210.02747, example II with σ_min = 0 and time
        turned around; Liu et al. 2023, https://arxiv.org/abs/2209.03003.

    Args:
        draw_times: ``draw_times(n, generator=, device=)``, the times ``[n]`` to train at, such as
            ``logit_normal_times``; by default they are uniform.

    """

    def __init__(self, draw_times: Callable[..., Tensor] | None = None):
        if draw_times is not None and not callable(draw_times):
            raise ValueError(f"draw_times must be a function or None, got {draw_times!r}")
        self.times_drawn_by = draw_times

    def __repr__(self) -> str:
        drawn_by, given = self.times_drawn_by, []
        if isinstance(drawn_by, partial):
            given = [f"{value!r}" for value in drawn_by.args]
            given += [f"{name}={value!r}" for name, value in drawn_by.keywords.items()]
            drawn_by = drawn_by.func
        name = "" if drawn_by is None else getattr(drawn_by, "__name__", type(drawn_by).__name__)
        return f"StraightPath({', '.join([name, *given])})"

    def draw_times(
        self, n: int, *, generator: torch.Generator | None = None, device: torch.device = "cpu"
    ) -> Tensor:
        """``n`` times to train at."""
        if self.times_drawn_by is None:  # uniform, from 0 to 1
            check_generator(generator, device)
            return torch.rand(n, generator=generator, device=device)
        return self.times_drawn_by(n, generator=generator, device=device)

    def a(self, t: Tensor) -> Tensor:
        """1 − t."""
        return 1 - t

    def b(self, t: Tensor) -> Tensor:
        """The time itself."""
        return t

    def amounts(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) as of any path. Times in the precision of ``x`` need no better one for 1 − t."""
        if not isinstance(t, Tensor) or t.dtype != x.dtype:
            return super().amounts(t, x)
        t = per_example(t, x)
        return 1 - t, t

    def slopes(self, t: Tensor | float, x: Tensor) -> tuple[float, float]:
        """(a', b') as of any path, here −1 and 1 at all times."""
        return -1.0, 1.0

    def invert_log_snr(self, log_snr: Tensor) -> Tensor:
        """From t / (1 − t) = σ = exp(−log-SNR / 2)."""
        return torch.sigmoid(-log_snr / 2)


class EDMPath(GaussianPath):
    """Time is the noise itself: a = 1, b = t, for t from σ_min to σ_max.

    Like ``VEPath`` it solves dx = sqrt(2 t) dw, but it counts time by the noise that is there. Its
    ODE is dx/dt = (x − E[x_0 | x_t]) / t: from each point the way leads straight to the guess.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 3 and table 1, last column.

    Args:
        sigma_min: The noise that is left when sampling ends, above 0.
        sigma_max: The noise that it starts from.

    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0):
        check_number("sigma_min", sigma_min, above=0)
        check_number("sigma_max", sigma_max, above=sigma_min)
        self.t_min, self.t_max = float(sigma_min), float(sigma_max)

    def __repr__(self) -> str:
        return f"EDMPath(sigma_min={self.t_min:g}, sigma_max={self.t_max:g})"

    def a(self, t: Tensor) -> Tensor:
        """1 at all times ``t``."""
        return torch.ones_like(t)

    def b(self, t: Tensor) -> Tensor:
        """The time itself."""
        return t

    def slopes(self, t: Tensor | float, x: Tensor) -> tuple[float, float]:
        """(a', b') as of any path, here 0 and 1 at all times."""
        return 0.0, 1.0

    def invert_log_snr(self, log_snr: Tensor) -> Tensor:
        """σ itself, exp(−log-SNR / 2)."""
        return torch.exp(-log_snr / 2)


class ScaledInput(nn.Module):
    """A network that sees x_t / sqrt(a² + b²), so that its input has one size at all times.

    VE's x_t grows a thousandfold along the path; no network copes with that unscaled.

    Args:
        net: ``net(x, t)``, or ``net(x, t, y)`` with labels.
        path: The path of x_t.

    """

    def __init__(self, net: nn.Module, path: GaussianPath):
        if not isinstance(path, GaussianPath):
            raise ValueError(f"path must be a GaussianPath, got {path!r}")
        super().__init__()
        self.net, self.path, self.event_shape = net, path, net.event_shape

    def factors(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in, c_noise) as of ``Preconditioned``, at times ``t``."""
        size = (self.path.a(t) ** 2 + self.path.b(t) ** 2) ** 0.5
        return torch.zeros_like(t), torch.ones_like(t), 1 / size, t

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """What the network says of ``x [B, *event]`` at times ``t [B]``: ``[B, *event]``."""
        a, b = self.path.amounts(t, x)
        scaled = x / (a**2 + b**2) ** 0.5
        return self.net(scaled, t) if y is None else self.net(scaled, t, y)
