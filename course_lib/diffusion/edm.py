"""EDM: a network that is held to one size at every noise level, and the levels that matter."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.checks import check_floats, check_int, check_number
from course_lib.diffusion.continuous import EDMPath
from course_lib.diffusion.denoiser import Denoiser, PredictionError
from course_lib.diffusion.paths import per_example

__all__ = ["EDM", "Preconditioned", "karras_times"]


class Preconditioned(nn.Module):
    """A guess of x_0 whose network sees numbers of one size, and has to say numbers of one size.

        D(x; σ) = c_skip x + c_out F(c_in x; c_noise)

    for x = x_0 + σ eps. F is the network; what ``factors`` gives it is worked out in chapter 10.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 5 and appendix B.6.

    Args:
        net: F, as ``net(x, t)`` or ``net(x, t, y)`` with labels; its times are log(σ) / 4.
        sigma_data: The size of the data: the root of the mean square of their numbers.

    """

    def __init__(self, net: Callable[..., Tensor], sigma_data: float):
        if not callable(net):
            raise ValueError(f"net must be a network or a function, got {net!r}")
        check_number("sigma_data", sigma_data, above=0)
        super().__init__()
        self.net, self.sigma_data = net, sigma_data
        for name in ("event_shape", "null_class"):
            if hasattr(net, name):
                setattr(self, name, getattr(net, name))

    def factors(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in, c_noise) at noise levels ``sigma``, in its shape.

        Reference:
            Karras et al. 2022, table 1, last column.
        """
        size = (sigma**2 + self.sigma_data**2) ** 0.5  # of x
        c_skip = self.sigma_data**2 / size**2
        c_out = sigma * self.sigma_data / size
        return c_skip, c_out, 1 / size, sigma.log() / 4

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """The guess of x_0, ``[B, *event]``, from ``x`` like it at noise levels ``sigma [B]``.

        Raises:
            PredictionError: When the network's output has another shape than ``x``.

        """
        *factors, c_noise = self.factors(sigma)
        c_skip, c_out, c_in = (per_example(factor, x) for factor in factors)
        labels = () if y is None else (y,)
        said = self.net(c_in * x, c_noise, *labels)
        if said.shape != x.shape:  # a sum would make it fit
            what = f"{list(x.shape)}, got {list(said.shape)}"
            raise PredictionError(f"net's output must have shape {what}")
        return c_skip * x + c_out * said


class EDM(Denoiser):
    """A preconditioned network on EDM's path, trained where there is something to learn.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 5.

    Args:
        net: F of ``Preconditioned``.
        sigma_data: The size of the data, as there.
        p_mean: The mean of log σ in training.
        p_std: Its standard deviation.
        path: From data to noise; its ends are those of sampling.
        drop: Share of the labels that training hides, as in ``Denoiser``.

    Example:
        >>> from course_lib.nn import TimeMLP
        >>> model = EDM(TimeMLP(2, [8], scale=1000), sigma_data=1.5)
        >>> model.loss(torch.zeros(5, 2)).shape
        torch.Size([])

    """

    path: EDMPath

    def __init__(
        self,
        net: Callable[..., Tensor],
        *,
        sigma_data: float,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        path: EDMPath | None = None,
        drop: float = 0.0,
    ):
        check_number("p_mean", p_mean, minimum=-math.inf)
        check_number("p_std", p_std, above=0)
        path = EDMPath() if path is None else path
        super().__init__(Preconditioned(net, sigma_data), path, predicts="x0", drop=drop)
        self.sigma_data, self.p_mean, self.p_std = sigma_data, p_mean, p_std

    def draw(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Noise levels ``[B]`` whose logarithm is normal, and noise like ``x``.

        The few beyond an end of the path are moved there.
        """
        log_sigma = torch.randn(len(x), generator=generator, device=x.device, dtype=x.dtype)
        sigma = (self.p_mean + self.p_std * log_sigma).exp()
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return sigma.clamp(self.path.t_min, self.path.t_max), eps

    def weight(self, sigma: Tensor) -> Tensor:
        """λ(σ) = 1 / c_out²: the squared error of D counts as that of F does, alike at every σ."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def loss(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The mean of λ(σ) (D(x + σ eps; σ) − x)², at random levels σ and with fresh noise.

        Args:
            x: Data ``[B, *event]``.
            y: Labels ``[B]``, for a network with classes; tokens ``[B, L]``, for one with prompts.
            generator: Source of the levels, the noise, and the labels that are dropped.

        """
        check_floats("x", x, None, dtype=self.dtype)
        sigma, eps = self.draw(x, generator=generator)
        y = self.hide(y, generator=generator)
        guess = self._call(x + per_example(sigma, x) * eps, sigma, y)
        return (per_example(self.weight(sigma), x) * (guess - x) ** 2).mean()


def karras_times(
    steps: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> list[float]:
    """``steps`` noise levels from σ_max down to σ_min, evenly spaced in σ^(1/ρ).

        σ_i = (σ_max^(1/ρ) + i / (steps − 1) · (σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ

    With ρ = 1 they are evenly spaced; the larger ρ, the more of them lie near the data. A sampler
    goes from the last to 0 in a step of its own.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, equation 5.

    Example:
        >>> [round(sigma, 3) for sigma in karras_times(4, sigma_min=0.01, sigma_max=10.0)]
        [10.0, 1.936, 0.226, 0.01]

    """
    check_int("steps", steps, minimum=1)
    check_number("sigma_min", sigma_min, above=0)
    check_number("sigma_max", sigma_max, above=sigma_min)
    check_number("rho", rho, above=0)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(first + i / max(steps - 1, 1) * (last - first)) ** rho for i in range(steps)]
