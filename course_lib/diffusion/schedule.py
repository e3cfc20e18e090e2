"""The discrete schedules of DDPM: T noising steps, which are a path as well."""

import math

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_int, check_number
from course_lib.diffusion.paths import GaussianPath, convert

__all__ = ["DiscreteSchedule"]

MAX_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2: no step may wipe out everything


class DiscreteSchedule(GaussianPath):
    """T noising steps: x_t = sqrt(1 − β_t) x_{t−1} + sqrt(β_t) · fresh noise.

    The time t is the index into ``betas``, ``alphas`` and ``alpha_bars``, from 0 to T − 1: t = 0 is
    the first noising step, so that even x_t at t = 0 has a little noise. Papers count the same
    steps from 1. As a path, a(t) = sqrt(ᾱ_t) and b(t) = sqrt(1 − ᾱ_t); between two whole times
    log ᾱ is a straight line.

    Reference:
        Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239, section 2.

    Args:
        betas: The variances ``[T]`` of the noise that each step adds, above 0 and below 1.

    Raises:
        ValueError: When ``betas`` is not as described.

    Example:
        >>> schedule = DiscreteSchedule(torch.tensor([0.5, 0.5]))
        >>> schedule.alpha_bars
        tensor([0.5000, 0.2500])
        >>> schedule.a(torch.tensor([0, 1]))
        tensor([0.7071, 0.5000])

    """

    def __init__(self, betas: Tensor):
        check_floats("betas", betas, (None,))
        if betas.min() <= 0 or betas.max() >= 1:
            span = f"{betas.min().item():.6g} to {betas.max().item():.6g}"
            raise ValueError(f"betas must lie above 0 and below 1, got values from {span}")
        self.betas = betas.detach().clone()
        self.alphas = 1 - self.betas
        # Sums of logarithms in double precision: 1 − ᾱ is tiny at first, ᾱ is in the end.
        self.log_alpha_bars = torch.log1p(-self.betas.double()).cumsum(0)
        self.alpha_bars = self.log_alpha_bars.exp().to(betas.dtype)
        self.t_max = len(betas) - 1
        self.t_min = 0
        self._weights: dict[tuple[str, str], list[tuple[float, float]]] = {}

    @classmethod
    def linear(
        cls, T: int, *, beta_start: float | None = None, beta_end: float | None = None
    ) -> "DiscreteSchedule":
        """β on a straight line, as in DDPM: from 1e-4 to 0.02 for T = 1000.

        For another T both ends are 1000 / T times as large, so that as much noise comes together;
        no β is above 0.999. Given ends are taken as they are.
        """
        check_int("T", T, minimum=1)
        ends = []
        for name, end, default in (
            ("beta_start", beta_start, 1e-4),
            ("beta_end", beta_end, 0.02),
        ):
            if end is None:
                end = min(default * 1000 / T, MAX_BETA)
            check_number(name, end, above=0)
            if end >= 1:
                raise ValueError(f"{name} must be below 1, got {end!r}")
            ends.append(end)
        return cls(torch.linspace(*ends, T, dtype=torch.float64).float())

    @classmethod
    def cosine(cls, T: int, *, s: float = 0.008) -> "DiscreteSchedule":
        """ᾱ as a squared cosine that has been shifted by ``s``; no β is above 0.999.

        Reference:
            Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672, equation 17.
        """
        check_int("T", T, minimum=1)
        check_number("s", s, minimum=0)
        k = torch.arange(T + 1, dtype=torch.float64)
        alpha_bars = ((k / T + s) / (1 + s) * math.pi / 2).cos() ** 2
        return cls((1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(max=MAX_BETA).float())

    def __len__(self) -> int:
        """The number of steps, T."""
        return len(self.betas)

    def __repr__(self) -> str:
        first, last = self.log_snr(torch.tensor([0, self.t_max])).tolist()
        return f"DiscreteSchedule(T={len(self)}, log-SNR {first:.1f} ... {last:.1f})"

    def a(self, t: Tensor | float) -> Tensor:
        """sqrt(ᾱ) at times ``t``, whole or not."""
        return self._like(t, (self._log_alpha_bar(t) / 2).exp())

    def b(self, t: Tensor | float) -> Tensor:
        """sqrt(1 − ᾱ) at times ``t``, whole or not."""
        return self._like(t, (-torch.expm1(self._log_alpha_bar(t))).sqrt())

    def log_snr(self, t: Tensor | float) -> Tensor:
        """Log ᾱ / (1 − ᾱ) at times ``t``."""
        log_alpha_bar = self._log_alpha_bar(t)
        return self._like(t, log_alpha_bar - (-torch.expm1(log_alpha_bar)).log())

    def draw_times(
        self, n: int, *, generator: torch.Generator | None = None, device: torch.device = "cpu"
    ) -> Tensor:
        """``n`` of the times 0 ... T − 1, each as likely as any other."""
        check_generator(generator, device)
        return torch.randint(len(self), (n,), generator=generator, device=device)

    def weights(self, source: str, target: str) -> list[tuple[float, float]]:
        """For each time f and g, so that ``target`` = f · ``source`` + g · x_t, as plain numbers.

        ``convert`` works them out once, for all T times together. That saves a sampler, with one
        time for its whole batch, most of the work between two calls of its network.
        """
        if (source, target) not in self._weights:
            t = torch.arange(len(self))
            one = torch.ones(len(self), dtype=torch.float64)
            kinds = {"source": source, "target": target}
            f = convert(one, x_t=0 * one, t=t, path=self, **kinds)
            g = convert(0 * one, x_t=one, t=t, path=self, **kinds)
            self._weights[source, target] = list(zip(f.tolist(), g.tolist(), strict=True))
        return self._weights[source, target]

    def _log_alpha_bar(self, t: Tensor | float) -> Tensor:
        t = torch.as_tensor(t)
        self.check_times(t)
        table = self.log_alpha_bars.to(t.device)
        before = t.detach().long()
        if not t.is_floating_point():
            return table[before]
        before = before.clamp(max=max(self.t_max - 1, 0))  # the last time ends the last piece
        after = (before + 1).clamp(max=self.t_max)
        return table[before] + (t - before).double() * (table[after] - table[before])

    def _like(self, t: Tensor | float, value: Tensor) -> Tensor:
        """In the precision of ``t``, or of ``betas`` where ``t`` is whole numbers."""
        floating = isinstance(t, Tensor) and t.is_floating_point()
        return value.to(t.dtype if floating else self.betas.dtype)
