"""DDPM: noise data in T small steps, and learn to take every step back."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from course_lib.checks import at_the_door, check_floats, check_generator, check_int, check_one_of
from course_lib.diffusion.denoiser import Denoiser
from course_lib.diffusion.paths import per_example
from course_lib.diffusion.sampling import check_sampling, first_state, last, sampler
from course_lib.diffusion.schedule import DiscreteSchedule
from course_lib.nn import discretized_gaussian_log_prob, gaussian_log_prob

__all__ = ["DDPM", "ddpm_sample"]

AT_ONCE = 64  # noised examples in a call of the network for the bound: of several times, if few x


class DDPM(Denoiser):
    """Denoising diffusion: the way back is a chain of Gaussians p(x_{t−1} | x_t).

    Each has the mean that the posterior q(x_{t−1} | x_t, x_0) would have if the network's guess of
    x_0 were true, and a fixed variance. Images are expected in [−1, 1].

    Reference:
        Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239.

    Args:
        net: The network, as in ``Denoiser``; ``sample`` also wants its ``event_shape``.
        schedule: The T noising steps. Times are indices into it, 0 ... T − 1.
        predicts: What ``net`` returns, as in ``Denoiser``.
        variance: Of a step back: ``"posterior"``, that of q(x_{t−1} | x_t, x_0), or ``"beta"``,
            that of the step forward: the right ones where the data are a single point, and where
            they are standard normal.

    Example:
        >>> from course_lib.nn import TimeMLP
        >>> model = DDPM(TimeMLP(2), DiscreteSchedule.linear(20))
        >>> model.sample(5).shape
        torch.Size([5, 2])

    """

    path: DiscreteSchedule

    def __init__(
        self,
        net: Callable[..., Tensor],
        schedule: DiscreteSchedule,
        *,
        predicts: str = "eps",
        variance: str = "posterior",
    ):
        if not isinstance(schedule, DiscreteSchedule):
            raise ValueError(f"schedule must be a DiscreteSchedule, got {schedule!r}")
        check_one_of("variance", variance, ("posterior", "beta"))
        super().__init__(net, schedule, predicts=predicts)
        self.variance = variance

    @property
    def schedule(self) -> DiscreteSchedule:
        """The path, under DDPM's name for it."""
        return self.path

    def check_posterior(self, x_t: Tensor, x_0: Tensor, t: Tensor | int) -> None:
        """Require what ``posterior`` wants."""
        check_floats("x_t", x_t, None, dtype=self.dtype)
        check_floats("x_0", x_0, x_t.shape, dtype=x_t.dtype)
        self.path.check_whole_time(t, len(x_t))

    @at_the_door(check_posterior)
    def posterior(self, x_t: Tensor, x_0: Tensor, t: Tensor | int) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_{t−1} | x_t, x_0): where the step before came from.

        At t = 0 the step before is the data: the mean is ``x_0`` and the variance 0.

        Reference:
            Ho et al. 2020, equations 6 and 7.

        Args:
            x_t: Noised data ``[B, *event]``.
            x_0: The data ``[B, *event]``, or a guess of it.
            t: Whole times from 0 to T − 1, ``[B]`` or one for all.

        Returns:
            The mean ``[B, *event]`` and the variance ``[B, 1, ...]``, the same for every number of
            an example.

        """
        (a_before, b_before), (beta, alpha) = self.path.before(t, x_t), self.path.step(t, x_t)
        b_squared = beta + alpha * b_before**2  # 1 − ᾱ, and at t = 0 exactly β
        mean = a_before * beta / b_squared * x_0 + alpha**0.5 * b_before**2 / b_squared * x_t
        return mean, per_example(beta * b_before**2 / b_squared, x_t)

    def reverse(
        self,
        x_t: Tensor,
        t: Tensor | int,
        *,
        y: Tensor | None = None,
        clip: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of the model's own p(x_{t−1} | x_t), as ``posterior`` returns them.

        The mean is that of the posterior at the predicted x_0, cut off at −``clip`` and ``clip``
        where that is given.
        """
        self.path.check_whole_time(t, len(x_t))
        x_0 = self.predict_x0(x_t, t, y=y, clip=clip)
        mean, variance = self.posterior.inside(self, x_t, x_0, t)
        if self.variance == "beta":
            beta, _ = self.path.step(t, x_t)
            variance = per_example(beta, x_t)
        return mean, variance

    def elbo_terms(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        levels: int | None = None,
        clip: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The parts of −ELBO of ``x [B, *event]``, in nats: ``[T + 1, B]``.

        Part 0 is the reconstruction, −log p(x_0 | first noised x), whose variance is the first β.
        Parts t = 1 ... T − 1 are KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)). Part T is the prior,
        KL(q(x_{T−1} | x_0) ‖ N(0, I)), which nothing learns. Parts 0 ... T − 1 are averages over
        x_t of which one draw each is taken.

        Reference:
            Ho et al. 2020, equation 5.

        Args:
            x: Data.
            y: Labels ``[B]``, for a network with classes.
            levels: With it the data are grey levels, evenly spaced from −1 to 1, and the
                reconstruction is a probability (section 3.3). Without, it is a density.
            clip: Cut off every guess of x_0 at −``clip`` and ``clip``: a bound of the model that
                samples so.
            generator: Source of the noise.

        """
        check_floats("x", x, None, dtype=self.dtype)
        check_generator(generator, x.device)
        if levels is not None:
            check_int("levels", levels, minimum=2)
            grey = (x + 1) * (levels - 1) / 2
            stray = (grey - grey.round().clamp(0, levels - 1)).abs() > 0.01
            if stray.any():
                what = f"{levels} grey levels from -1 to 1, got {x[stray][0].item():.6g}"
                raise ValueError(f"x must hold {what}")
        T, n = len(self.schedule), max(1, AT_ONCE // max(1, len(x)))
        terms = []
        for times in (range(1), *(range(t, min(t + n, T)) for t in range(1, T, n))):
            noise = torch.cat([self.noise(x.shape, generator) for _ in times])
            t = torch.tensor(times, device=x.device).repeat_interleave(len(x))
            x_0, labels = torch.cat([x] * len(times)), None if y is None else y.repeat(len(times))
            x_t = self.schedule.noised(x_0, t, noise)
            mean, variance = self.reverse(x_t, t, y=labels, clip=clip)
            if t[0] == 0:
                beta = self.schedule.betas[:1].to(x)
                if levels is None:
                    log_prob = gaussian_log_prob(x.flatten(1), mean.flatten(1), beta.log())
                else:
                    log_prob = discretized_gaussian_log_prob(x, mean, beta.sqrt(), levels)
                    log_prob = log_prob.flatten(1).sum(1)
                terms.append(-log_prob)
            else:
                true_mean, true_variance = self.posterior(x_t, x_0, t)
                kl = _gaussian_kl(true_mean, true_variance, mean, variance)
                terms.extend(kl.reshape(len(times), len(x)))
        t = torch.tensor([self.schedule.t_max], dtype=torch.float64)
        a, b = self.schedule.a(t).to(x), self.schedule.b(t).to(x)
        one = torch.ones_like(b)
        terms.append(_gaussian_kl(a * x, b.square(), torch.zeros_like(x), one))
        return torch.stack(terms)

    def elbo(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        levels: int | None = None,
        clip: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A lower bound of log p(x) for ``x [B, *event]``, in nats, ``[B]``.

        It is minus the sum of ``elbo_terms``, which describes the arguments: the network is asked
        at all T times, and all of that is kept for a gradient unless gradients are off. Each call
        estimates the bound anew, with other noise.
        """
        return -self.elbo_terms(x, y, levels=levels, clip=clip, generator=generator).sum(0)

    def sample(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        clip: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n`` samples ``[n, *event]`` by all T steps; the rest as in ``ddpm_sample``."""
        shape = self._batch_shape(n)
        return last(ddpm_sample(self, shape, y=y, clip=clip, generator=generator))

    def trajectory(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        clip: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """All states of ``n`` samples, ``[T + 1, n, *event]``, noise first."""
        shape = self._batch_shape(n)
        return torch.stack(list(ddpm_sample(self, shape, y=y, clip=clip, generator=generator)))

    def _batch_shape(self, n: int) -> tuple[int, ...]:
        check_int("n", n, minimum=1)
        shape = getattr(self.net, "event_shape", None)
        if shape is None:
            name = type(self.net).__name__
            raise ValueError(f"net must have an event_shape, or use ddpm_sample; got {name}")
        return (n, *shape)


@sampler
def ddpm_sample(
    model: DDPM,
    shape: Sequence[int],
    *,
    y: Tensor | None = None,
    clip: float | None = None,
    z: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Walk back from noise to data, one step of the schedule at a time.

    Reference:
        Ho et al. 2020, algorithm 2.

    Args:
        model: The model.
        shape: ``(n, *event)``, of the whole batch.
        y: Labels ``[n]``, for a network with classes.
        clip: Cut off every guess of x_0 at −``clip`` and ``clip``: 1 for images in [−1, 1]. None:
            leave it.
        z: The noise to start from; by default it is drawn.
        generator: Source of all noise.

    Yields:
        T + 1 states ``[n, *event]``: noise first, the samples last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.

    """
    if not isinstance(model, DDPM):
        hint = "; DDPM(model, model.path, predicts=model.predicts) is one"
        fits = isinstance(model, Denoiser) and isinstance(model.path, DiscreteSchedule)
        raise ValueError(f"model must be a DDPM, got {type(model).__name__}{hint if fits else ''}")
    check_sampling(model, shape, clip=clip, generator=generator)
    x = first_state(model, shape, z, generator)
    yield x
    for t in reversed(range(len(model.schedule))):
        mean, variance = model.reverse(x, t, y=y, clip=clip)
        # The last step adds no noise: it would only be seen as noise.
        x = mean if t == 0 else mean + variance.sqrt() * model.noise(x.shape, generator)
        yield x


def _gaussian_kl(mean: Tensor, variance: Tensor, other_mean: Tensor, other: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(other_mean, other)), summed over each example: ``[B]``."""
    ratio = variance / other
    gap = (mean - other_mean).square() / other
    return 0.5 * (gap + ratio - 1 - ratio.log()).flatten(1).sum(1)
