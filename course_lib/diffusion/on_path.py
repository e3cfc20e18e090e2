"""One network, every path: paths differ in how they count time and size x, and in nothing else."""

import copy

import torch
from torch import Tensor, nn

from course_lib.checks import check_floats
from course_lib.diffusion.denoiser import Denoiser
from course_lib.diffusion.edm import EDM
from course_lib.diffusion.paths import GaussianPath, conversion, per_example
from course_lib.diffusion.schedule import DiscreteSchedule

__all__ = ["OnPath", "on_path", "settings"]

TOLERANCE = 0.1  # of the log-SNR at a schedule's ends: 5 % of σ


def on_path(model: Denoiser, path: GaussianPath) -> Denoiser:
    """A trained model seen from another path, for the samplers, the ODE and the density there.

    It predicts x_0 where the model does, and else eps: these two are the same on all paths.

    Args:
        model: A model on any path.
        path: The path that it shall be on. What it has of it is the part whose log-SNR the model
            knows, with the same times: a copy with other ends, where that is needed. A
            ``DiscreteSchedule`` loses steps at its noisy end only, and the first of its noise
            levels may lie below the model's by no more than ``TOLERANCE`` in log-SNR.

    Raises:
        ValueError: When no log-SNR of the path is one of the model's.

    Example:
        >>> from course_lib.diffusion import DDPM, DiscreteSchedule, EDMPath
        >>> from course_lib.nn import TimeMLP
        >>> on_path(DDPM(TimeMLP(2), DiscreteSchedule.linear(1000)), EDMPath()).path
        EDMPath(sigma_min=0.0100005, sigma_max=80)

    """
    if not isinstance(model, Denoiser):
        raise ValueError(f"model must be a Denoiser, got {type(model).__name__}")
    if not isinstance(path, GaussianPath):
        raise ValueError(f"path must be a GaussianPath, got {path!r}")
    path = narrowed(path, model.path)
    predicts = "x0" if model.predicts == "x0" else "eps"
    seen = Denoiser(OnPath(model, path), path, predicts=predicts)
    return seen.to(device=model.device, dtype=model.dtype)


class OnPath(nn.Module):
    """A model that is asked in the times and sizes of another path.

    x_t = a x_0 + b eps on the one path, and k x_t = k a x_0 + k b eps on the other, are the same
    thing where a / b is the same: it is asked at the time of the same log-SNR, and k brings x to
    the size that it has there.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 2; Kingma et al. 2021,
        https://arxiv.org/abs/2107.00630, section 5.1.

    Args:
        model: A model on any path.
        path: The path of x_t, whose log-SNRs are the model's.

    """

    def __init__(self, model: Denoiser, path: GaussianPath):
        super().__init__()
        self.model, self.path, self.null_class = model, path, model.null_class
        self.predicts = "x0" if model.predicts == "x0" else "eps"
        self.log_snr_range = model.path.log_snr_range
        self.known: dict[float, tuple[float, float]] = {}  # single times, matched already
        if hasattr(model.net, "event_shape"):
            self.event_shape = model.net.event_shape

    def match(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The model's times, and k, for times ``t`` of the path: both like ``t``, in float64."""
        other, t = self.model.path, t.cpu().double()
        log_snr = self.path.log_snr(t).clamp(*self.log_snr_range)
        then = other.invert_log_snr(log_snr).clamp(other.t_min, other.t_max)
        size = torch.hypot(self.path.a(t), self.path.b(t))
        return then, torch.hypot(other.a(then), other.b(then)) / size

    def match_one(self, t: float) -> tuple[float, float]:
        """The same for one time, as numbers."""
        if t not in self.known:
            then, k = self.match(torch.tensor(t, dtype=torch.float64))
            self.known[t] = then.item(), k.item()
        return self.known[t]

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """What the model says of ``x [B, *event]`` at times ``t [B]`` of the path."""
        if (t == t[0]).all():  # as samplers ask
            then, k = self.match_one(t[0].item())
        else:
            then, k = self.match(t)
            then, k = then.to(x.device), per_example(k, x)
        return self.model.predict(k * x, then, target=self.predicts, y=y)


def narrowed(path: GaussianPath, known: GaussianPath) -> GaussianPath:
    """The part of a path whose log-SNRs a ``known`` one has: the path itself, or a copy."""
    low, high = path.log_snr_range
    known_low, known_high = known.log_snr_range
    if isinstance(path, DiscreteSchedule):
        times = torch.arange(len(path), dtype=torch.float64)
        steps = int((path.log_snr(times) >= known_low - TOLERANCE).sum())
        fits = steps > 0 and high <= known_high + TOLERANCE
        part = (
            path if steps == len(path) else DiscreteSchedule(path.betas[:steps]) if fits else None
        )
    else:
        fits = max(low, known_low) < min(high, known_high)
        part = path
        if fits and (low < known_low or high > known_high):
            part = copy.copy(path)
            part.t_min = path.time_at(min(high, known_high)).item()
            part.t_max = path.time_at(max(low, known_low)).item()
    if not fits:
        raise ValueError(
            f"path must have log-SNRs that the model knows, {known_low:.3g} to {known_high:.3g}, "
            f"got {path} with {low:.3g} to {high:.3g}"
        )
    return part


def settings(model: Denoiser, sigma: Tensor) -> dict[str, Tensor]:
    """What a model is in EDM's form, D(x; σ) = c_skip x + c_out F(c_in x; c_noise), at ``sigma``.

    F is the network itself, the innermost one where it is preconditioned; x = x_0 + σ eps. On its
    own path the model sees s(t) x at the time t at which σ(t) = b / a is σ, with s(t) = a(t).

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, table 1.

    Args:
        model: A model on any path.
        sigma: Noise levels ``[N]`` that the path has.

    Returns:
        ``t``, ``s``, ``c_skip``, ``c_out``, ``c_in``, ``c_noise`` and ``weight``, each ``[N]`` in
        double precision. ``weight`` is λ(σ), what the loss of ``Denoiser`` or of ``EDM`` multiplies
        the squared error of D with.

    Example:
        >>> from course_lib.diffusion import FlowMatching
        >>> from course_lib.nn import TimeMLP
        >>> table = settings(FlowMatching(TimeMLP(2)), torch.tensor([1.0, 3.0]))
        >>> table["t"].tolist(), table["c_out"].tolist()
        ([0.5, 0.75], [-0.5, -0.75])

    """
    if not isinstance(model, Denoiser):
        raise ValueError(f"model must be a Denoiser, got {type(model).__name__}")
    check_floats("sigma", sigma, (None,))
    if sigma.min() <= 0:
        raise ValueError(f"sigma must be above 0, got {sigma.min().item():.6g}")
    path = model.path
    t = path.time_at(-2 * sigma.cpu().double().log())
    s = path.a(t)
    p, q = (
        torch.as_tensor(part).to(t).flatten()
        for part in conversion(model.predicts, "x0", t, t[:, None], path)
    )
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    bare = (zero, one, one, t)
    skip, out, size, noise = model.net.factors(t) if hasattr(model.net, "factors") else bare
    return {
        "t": t,
        "s": s,
        "c_skip": (p + q * skip) * s,
        "c_out": q * out,
        "c_in": size * s,
        "c_noise": noise,
        "weight": model.weight(sigma.to(t)) if isinstance(model, EDM) else one / q**2,
    }
