"""The discrete schedules of DDPM: T noising steps, which are a path as well."""

import math
from collections.abc import Callable
from functools import cached_property, wraps

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import check_floats, check_generator, check_int, check_number, check_one_of
from course_lib.diffusion.paths import SPACINGS, GaussianPath, per_example

__all__ = ["DiscreteSchedule", "ddim_times"]

MAX_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2: no step may wipe out everything


def ddim_times(T: int, steps: int, spacing: str = "linear") -> list[int]:
    """``steps`` ≤ T of the times 0 ... T − 1, rising; the last is T − 1, where sampling starts.

    ``"linear"``: evenly spaced, T i / steps for i = 1 ... steps, rounded and counted from 0.
    ``"quadratic"``: T (i / steps)², which puts more of them near the data; where two would fall
    on the same time, the next free one is taken.

    Reference:
        Song, Meng, Ermon 2021, https://arxiv.org/abs/2010.02502, appendix D.2. Theirs start at 0
        and end short of T − 1; that sampling should start where noising ends: Lin et al. 2024,
        https://arxiv.org/abs/2305.08891, section 3.3.

    Example:
        >>> ddim_times(100, 5), ddim_times(100, 5, "quadratic")
        ([19, 39, 59, 79, 99], [3, 15, 35, 63, 99])

    """
    check_int("T", T, minimum=1)
    check_int("steps", steps, minimum=1, maximum=T)
    check_one_of("spacing", spacing, SPACINGS)
    power = 1 if spacing == "linear" else 2
    return [max(round(T * (i / steps) ** power), i) - 1 for i in range(1, steps + 1)]


def as_precise_as_t(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Round what a formula gives to the precision of its times; whole ones have that of betas."""

    @wraps(formula)
    def rounded(self: "DiscreteSchedule", t: Tensor | float) -> Tensor:
        like = t if isinstance(t, Tensor) and t.is_floating_point() else self.betas
        device = t.device if isinstance(t, Tensor) else None
        return formula(self, t).to(device=device, dtype=like.dtype)

    return rounded


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
        exact = self.betas.cpu().double()  # 1 − ᾱ is tiny at first, ᾱ is in the end
        self.log_alpha_bars = torch.log1p(-exact).cumsum(0)
        self.alpha_bars = self.log_alpha_bars.exp().to(self.betas)
        self.t_max = len(betas) - 1
        self.t_min = 0
        self._step = _Pairs(exact, 1 - exact)
        t = torch.arange(len(betas), dtype=torch.float64)
        a, b = self.a(t), self.b(t)
        self._amounts = _Pairs(a, b)
        self._before = _Pairs(F.pad(a[:-1], (1, 0), value=1.0), F.pad(b[:-1], (1, 0)))

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

    def alpha_bar(self, t: Tensor | float) -> Tensor:
        """ᾱ at times ``t``, whole or not, in double precision."""
        return self.log_alpha_bar(t).exp()

    @as_precise_as_t
    def a(self, t: Tensor | float) -> Tensor:
        """sqrt(ᾱ) at times ``t``, whole or not."""
        return self.alpha_bar(t).sqrt()

    @as_precise_as_t
    def b(self, t: Tensor | float) -> Tensor:
        """sqrt(1 − ᾱ) at times ``t``, whole or not."""
        return (1 - self.alpha_bar(t)).sqrt()

    @as_precise_as_t
    def log_snr(self, t: Tensor | float) -> Tensor:
        """Log ᾱ / (1 − ᾱ) at times ``t``."""
        return self.log_alpha_bar(t) - (1 - self.alpha_bar(t)).log()

    def log_alpha_bar(self, t: Tensor | float) -> Tensor:
        """Log ᾱ at times ``t``, in double precision: between two whole times a straight line."""
        t = torch.as_tensor(t).cpu()  # not every device has double precision
        self.check_times(t)
        before = t.detach().long()
        if not t.is_floating_point():
            return self.log_alpha_bars[before]
        before = before.clamp(max=max(self.t_max - 1, 0))  # the last time ends the last piece
        after = (before + 1).clamp(max=self.t_max)
        rise = self.log_alpha_bars[after] - self.log_alpha_bars[before]
        return self.log_alpha_bars[before] + (t - before).double() * rise

    def invert_log_snr(self, log_snr: Tensor) -> Tensor:
        """From ᾱ = 1 / (1 + exp(−log-SNR)), on the straight line of log ᾱ between two times."""
        log_alpha_bar = F.logsigmoid(log_snr)
        after = torch.searchsorted(-self.log_alpha_bars, -log_alpha_bar)
        after = after.clamp(min(1, self.t_max), self.t_max)
        before = (after - 1).clamp(min=0)
        rise = self.log_alpha_bars[after] - self.log_alpha_bars[before]
        return before + (log_alpha_bar - self.log_alpha_bars[before]) / rise.where(rise < 0, -1)

    @property
    def start_std(self) -> float:
        """1: sampling starts from DDPM's prior, which is standard normal."""
        return 1.0

    def amounts(self, t: Tensor | float, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """(a, b) as of any path."""
        return self._amounts(t, x) if _whole(t) else super().amounts(t, x)

    def before(self, t: Tensor | int, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """(a, b) one step before whole times ``t``: ``amounts`` at t − 1, and (1, 0) for t = 0."""
        return self._before(t, x)

    def slopes(self, t: Tensor | float, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """(a', b') as of any path."""
        return self._slopes(t, x) if _whole(t) else super().slopes(t, x)

    def step(self, t: Tensor | int, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """(β, α) of the steps at whole times ``t``, shaped as by ``amounts``."""
        return self._step(t, x)

    @cached_property
    def _slopes(self) -> "_Pairs":
        t = torch.arange(len(self), dtype=torch.float64)
        return _Pairs(self.da(t), self.db(t))

    def check_whole_time(self, t: Tensor | int, n: int) -> None:
        """Require whole times of the path, ``[n]`` or one for all (``ValueError``)."""
        self.check_time(t, n)
        if not _whole(t):
            kind = t.dtype if isinstance(t, Tensor) else torch.get_default_dtype()
            raise ValueError(f"t must hold whole times, of an integer dtype, got {kind}")

    def sampling_times(self, steps: int, spacing: str = "linear") -> list[int]:
        """The times of ``ddim_times``."""
        return ddim_times(len(self), steps, spacing)

    def draw_times(
        self, n: int, *, generator: torch.Generator | None = None, device: torch.device = "cpu"
    ) -> Tensor:
        """``n`` of the times 0 ... T − 1, each as likely as any other."""
        check_generator(generator, device)
        return torch.randint(len(self), (n,), generator=generator, device=device)


class _Pairs:
    """Pairs of numbers, one for each of the times 0 ... T − 1."""

    def __init__(self, *pair: Tensor):
        self.table, self.numbers = (
            torch.stack(pair),
            list(zip(*map(Tensor.tolist, pair), strict=True)),
        )

    def __call__(self, t: Tensor | int, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """As plain numbers for one time; for ``[B]`` of them shaped to be multiplied with x."""
        single = isinstance(t, int)  # a sampler has one time for its whole batch
        t = t if single else t.cpu().long()
        low, high = (t, t) if single else torch.aminmax(t)
        if low < 0 or high >= len(self.numbers):
            stray = int(low if low < 0 else high)
            raise ValueError(f"t must lie in [0, {len(self.numbers) - 1}], got {stray}")
        if single:
            return self.numbers[t]
        first, second = self.table[:, t]
        return per_example(first, x), per_example(second, x)


def _whole(t: Tensor | float) -> bool:
    return isinstance(t, int) or (isinstance(t, Tensor) and not t.is_floating_point())
