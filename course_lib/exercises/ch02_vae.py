"""Exercises of chapter 02: gradients through draws, the ELBO and its tighter kin, a dead code.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.nn import functional as F

from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    check_gradients,
    check_randomness,
    fresh_seed,
    is_normal,
    same,
    take_tensor,
)
from course_lib.exercises.formula import Case, Wrong, formula, usual
from course_lib.exercises.registry import exercise
from course_lib.experiments.collapse import CollapseReport, collapsing_loss, fit_vae
from course_lib.latent import (
    VAE,
    gaussian_kl,
    reparameterization_gradient,
    reparameterize,
    score_function_gradient,
)
from course_lib.nn import bernoulli_log_prob

__all__: list[str] = []

_BATCH = 7  # not the number of coordinates, so that swapped axes show


def _random(*shape: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator)


# --- Two estimates of one gradient ---------------------------------------------------------------


@exercise(
    "02.predict_constant",
    task="Predict: f(z) becomes f(z) + 100, which changes nothing in the gradient of E f(z). Whose "
    'estimates become noisier? "reparameterization", "score function", "both" or "neither"?',
    solution=[reparameterization_gradient, score_function_gradient],
    hints=[
        "What does each of the two estimates need to know about f?",
        "One uses the slope f'(z), the other the value f(z). Which of them feels the 100?",
        "The score function estimate is f(z) ε / σ. The 100 adds 100 ε / σ: zero on average, and "
        "in a single draw?",
    ],
)
def _check_predict_constant(attempt: Any, generator: torch.Generator) -> str:
    answer = _take_estimator(attempt)
    mu, sigma = torch.tensor([1.0]), torch.tensor([0.5])
    eps = torch.randn(20_000, 1, generator=generator)

    def spread(estimate: Any, constant: float) -> str:
        grad_mu, _ = estimate(lambda z: z[:, 0] ** 2 + constant, mu, sigma, eps)
        return f"{grad_mu.std():.1f}"

    slope, value = reparameterization_gradient, score_function_gradient
    setting = "For f(z) = z² at μ = 1, σ = 0.5 the standard deviation of one estimate of the slope"
    if answer == "score function":
        return (
            f"{setting} in μ is {spread(slope, 0)} by reparameterization and {spread(value, 0)} by "
            f"the score function; for z² + 100 it is {spread(slope, 100)} and "
            f"{spread(value, 100)}. A baseline, subtracted from f, undoes just that."
        )
    if answer == "neither":
        raise Mistake(
            f"{setting} in μ is {spread(value, 0)} by one of the two, and {spread(value, 100)} "
            "for z² + 100.",
            "Nothing changes on average; how far single draws scatter is another question. Which "
            "of them contains the value f(z)?",
        )
    raise Mistake(
        f"{setting} in μ is {spread(slope, 0)} by reparameterization, and for z² + 100 it is "
        f"{spread(slope, 100)} again.",
        "It uses the slope f'(z) alone, and a constant has none.",
    )


def _take_estimator(value: Any) -> str:
    """The word that the reader chose, whatever its spelling."""
    word = " ".join(str(value).lower().replace("_", " ").replace("-", " ").split()).strip(" .!")
    word = word.removeprefix("the ")
    for start, name in (
        ("reparam", "reparameterization"),
        ("pathwise", "reparameterization"),
        ("score", "score function"),
        ("reinforce", "score function"),
        ("both", "both"),
        ("neither", "neither"),
        ("none", "neither"),
    ):
        if isinstance(value, str) and word.startswith(start):
            return name
    given = f'"{value}"' if isinstance(value, str) else f"a {type(value).__name__}"
    given = given if len(given) < 60 and "\n" not in given else "another text"
    raise Mistake(
        f"You gave {given}; the answer is one of four words.",
        'Answer "reparameterization", "score function", "both" or "neither".',
    )


_BASELINE = (
    "You subtract a baseline: less noise, but this one is made of the same draws, and biases each "
    "estimate a little."
)
_PER_DRAW = "Each draw gives an estimate of its own; nobody has averaged yet."
_BY_MU = "The slope of log N(z; μ, σ²) in μ is (z − μ) / σ²."
_BY_SIGMA = "The slope of log N(z; μ, σ²) in σ is (z − μ)² / σ³ − 1 / σ."


def _scores(values: Tensor, z: Tensor, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The library's estimate in one dimension, for values instead of a function."""
    eps = ((z - mu) / sigma)[:, None]
    by_mu, by_sigma = score_function_gradient(lambda _: values, mu[None], sigma[None], eps)
    return by_mu[:, 0], by_sigma[:, 0]


def _by_mu(slope: Callable[..., Tensor]) -> Callable[..., Any]:
    """An answer with another slope of log p by μ, a function of z − μ and σ."""
    return lambda f, z, m, s: (f * slope(z - m, s), _scores(f, z, m, s)[1])


def _by_sigma(slope: Callable[..., Tensor]) -> Callable[..., Any]:
    return lambda f, z, m, s: (_scores(f, z, m, s)[0], f * slope(z - m, s))


def _draw_scores(generator: torch.Generator) -> list[tuple[Tensor, ...]]:
    cases = []
    for n in (40, 3):
        mu = 1.0 + torch.rand((), generator=generator)
        # Far from 1, so that a lost power of σ shows.
        sigma = 0.4 + 0.2 * torch.rand((), generator=generator)
        if torch.rand((), generator=generator) < 0.5:
            sigma = 1 / sigma
        z = mu + sigma * torch.randn(n, generator=generator)
        cases.append((3 + 2 * torch.randn(n, generator=generator), z, mu, sigma))
    return cases


def _praise_scores(attempt: Attempt, generator: torch.Generator) -> str:
    mu, sigma = torch.tensor(1.5), torch.tensor(0.8)
    z = mu + sigma * torch.randn(10_000, generator=generator)
    by_mu, by_sigma = attempt(z**2, z, mu, sigma)
    return (
        "Each estimate is f(z) times the score. For f(z) = z², μ = 1.5, σ = 0.8 the means of "
        f"10,000 of yours are {by_mu.mean():.2f} and {by_sigma.mean():.2f}; the gradient is "
        f"2 μ = 3, 2 σ = 1.6. One alone has a standard deviation of {by_mu.std():.1f}."
    )


# fmt: off
_SCORES_WRONG = [
    Wrong(lambda f, z, m, s: _scores(f, z, m, s)[::-1],
          "You swap the two gradients.", "End with `return grad_mu, grad_sigma`."),
    Wrong(lambda f, z, m, s: ((z - m) / s**2, _scores(f, z, m, s)[1]),
          "Your grad_mu is the score itself.", "Multiply it with the values f(z)."),
    usual("sign", hint=_BY_MU, part="grad_mu"),
    Wrong(_by_mu(lambda d, s: d), "Your grad_mu is not divided by σ².", _BY_MU),
    Wrong(_by_mu(lambda d, s: d / s), "Your grad_mu is divided by σ, not by σ².", _BY_MU),
    Wrong(_by_mu(lambda d, s: d * s), "Your grad_mu is multiplied by σ.", _BY_MU),
    Wrong(lambda f, z, m, s: (f * z / s**2, f), "Your grad_mu uses z in place of z − μ.", _BY_MU),
    Wrong(lambda f, z, m, s: (f * z, f),
          "Your grad_mu uses z in place of z − μ, and no σ.", _BY_MU),
    Wrong(_by_mu(lambda d, s: -d**2 / (2 * s**2)),
          "Your grad_mu is f(z) times the logarithm of p, not its slope.", _BY_MU),
    Wrong(lambda f, z, m, s: _scores(f - f.mean(), z, m, s),
          _BASELINE, "Here the plain estimate is asked for: the values as they are."),
    Wrong(lambda f, z, m, s: _scores(f / len(z), z, m, s),
          "You divide by the number of draws.", _PER_DRAW),
    Wrong(lambda f, z, m, s: _scores(f.mean().expand(len(z)), z, m, s),
          "You take the mean of f first.", "Multiply each score with the f(z) of its own draw."),
    Wrong(lambda f, z, m, s: (_scores(f, z, m, s)[0], (z - m)**2 / s**3 - 1 / s),
          "Your grad_sigma is the score itself.", "Multiply it with the values f(z)."),
    usual("sign", hint=_BY_SIGMA, part="grad_sigma"),
    Wrong(_by_sigma(lambda d, s: d**2 / s**3), "The −1 / σ is missing in your grad_sigma.",
          "The Gaussian's own factor 1 / σ depends on σ, too: −log σ has the slope −1 / σ. (f(z) ε "
          "belongs to the reparameterized estimate alone.)"),
    Wrong(_by_sigma(lambda d, s: d**2 / s**3 + 1 / s),
          "The 1 / σ in your grad_sigma has the wrong sign.", "−log σ has the slope −1 / σ."),
    Wrong(_by_sigma(lambda d, s: d**2 / s**2 - 1),
          "Your grad_sigma is the slope in log σ.", _BY_SIGMA),
    Wrong(_by_sigma(lambda d, s: (d**2 / s**2 - 1) / 2),
          "Your grad_sigma is the slope in log σ².", _BY_SIGMA),
    Wrong(_by_sigma(lambda d, s: (d**2 / s**3 - 1 / s) / (2 * s)),
          "Your grad_sigma is the slope in σ².", _BY_SIGMA),
    Wrong(_by_sigma(lambda d, s: d**2 / s**2 - 1 / s),
          "Your (z − μ)² is divided by σ², not by σ³.", _BY_SIGMA),
    Wrong(_by_sigma(lambda d, s: d / s**2), "Your grad_sigma is grad_mu again.", _BY_SIGMA),
    Wrong(lambda f, z, m, s: (_scores(f, z, m, s)[0], _scores(f - f.mean(), z, m, s)[1]),
          _BASELINE, "Here the plain estimate is asked for: the values as they are."),
    Wrong(lambda f, z, m, s: (_scores(f, z, m, s)[0], _scores(f / len(z), z, m, s)[1]),
          "You divide by the number of draws.", _PER_DRAW),
]
# fmt: on

formula(
    "02.score_function",
    task="Write `score_function`: for draws z [n] of N(μ, σ²) in one dimension and values [n] = "
    "f(z), one estimate of the gradient of E f(z) for each draw, for μ and for σ, both [n].",
    signature="score_function(values, z, mu, sigma) -> (grad_mu, grad_sigma)",
    solution=score_function_gradient,
    hints=[
        "∇ E f(z) = E [f(z) ∇ log p(z)]. Only log p depends on the parameters; f needs no slope.",
        "log N(z; μ, σ²) = −(z − μ)² / (2 σ²) − log σ + constant. Take its derivatives by hand.",
        "By μ it is (z − μ) / σ². By σ it is (z − μ)² / σ³ − 1 / σ.",
    ],
    right=_scores,
    inputs=_draw_scores,
    result=["grad_mu", "grad_sigma"],
    axes="[draws], [draws], [], [] -> [draws], [draws]",
    wrong=_SCORES_WRONG,
    otherwise={
        "grad_mu": (
            "Your grad_mu is not f(z) times the slope of log p(z) in μ.",
            _BY_MU + " Try one draw by hand: values = 1, z = 2, μ = 1, σ = 2 gives 1/4.",
        ),
        "grad_sigma": (
            "Your grad_mu is right; your grad_sigma is not f(z) times the slope of log p(z) in σ.",
            _BY_SIGMA + " Try one draw by hand: values = 1, z = 3, μ = 1, σ = 1 gives 3.",
        ),
    },
    tolerance=1e-3,  # small σ make large numbers, and z − μ has lost digits
    passes=_praise_scores,
)


# --- Gaussians -----------------------------------------------------------------------------------


def _draw_gaussians(generator: torch.Generator) -> list[tuple[Tensor, ...]]:
    cases = []
    for dim in (3, 5, 1):
        both = [_random(_BATCH, dim, generator=generator) for _ in range(4)]
        both[2][0], both[3][0] = both[0][0], both[1][0]  # nothing between these two
        cases.append(tuple(both))
    return cases


def _kl(terms: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Half the sum of other terms, a function of σ², s², μ − m and log σ² − log s²."""
    return lambda mu, v, m, w: 0.5 * terms(v.exp(), w.exp(), mu - m, v - w).sum(1)


def _not_a_kl(got: Tensor, *_: Any) -> tuple[str, str]:
    reason = "Your result is not the divergence of these Gaussians."
    if (got < -1e-3).any():
        reason = f"Your divergence is negative somewhere ({got.min():.2f}): none ever is."
    return reason, f"{_KL} No draws are needed: the integral is known."


_KL = "½ (σ² / s² + (μ − m)² / s² − 1 − log(σ² / s²)), summed over coordinates."
# fmt: off
_KL_WRONG = [
    Wrong(lambda mu, v, m, w: gaussian_kl(m, w, mu, v),
          "You have the other direction, KL(N(m, s²) ‖ N(μ, σ²)).",
          "The mean is taken over the first Gaussian: what is divided by is the second's s²."),
    usual("sign", hint="A divergence is never negative."),
    Wrong(lambda mu, v, m, w: gaussian_kl(mu, v, m, w) / mu.shape[1],
          "You average over the coordinates.", "Independent: add them up."),
    usual("double", "The ½ is missing."),
    Wrong(lambda mu, v, m, w: gaussian_kl(mu, v),
          "You give the divergence from the standard Gaussian, whatever m and s are."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 / w - g), "The −1 is missing."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 / w - 1), "The logarithm is missing."),
    Wrong(_kl(lambda v, w, d, g: d**2 / w), "Only the means count in your result."),
    Wrong(_kl(lambda v, w, d, g: v / w - 1 - g),
          "Only the variances count in your result: (μ − m)² / s² is missing."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 / w - 1 + g), "Your logarithm has the wrong sign.",
          "The wider the first Gaussian, the smaller: − log(σ² / s²)."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 - 1 - g),
          "Your (μ − m)² is not divided by s².", "A distance counts in units of s."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 / v - 1 - g),
          "Your (μ − m)² is divided by σ², not by s².",
          "A distance counts in units of s, the width of the second Gaussian."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 / w.sqrt() - 1 - g),
          "Your (μ − m)² is divided by s, not by s²."),
    Wrong(_kl(lambda v, w, d, g: v + d**2 / w - 1 - g), "Your σ² is not divided by s²."),
    Wrong(_kl(lambda v, w, d, g: (v / w).sqrt() + d**2 / w - 1 - g),
          "You have σ / s where σ² / s² belongs.",
          "`log_var` is log σ²: its exponential is the variance."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 / w - 1 - 0.5 * g),
          "Your logarithm is halved once too often: log σ² = 2 log σ."),
    Wrong(_kl(lambda v, w, d, g: v / w + d**2 / w - 1 - 2 * g),
          "Your logarithm escapes the ½.", "`log_var` is log σ², not log σ."),
    Wrong(lambda mu, v, m, w: gaussian_kl(mu, 2 * v, m, 2 * w),
          "You take `log_var` for log σ; it is log σ².", "σ² is `log_var.exp()`."),
    Wrong(_kl(lambda v, w, d, g: v / w + d / w - 1 - g), "Your μ − m is not squared."),
    Wrong(lambda mu, v, m, w: gaussian_kl(mu, v, -m, w),
          "You add the means.", "The distance of the means is μ − m."),
    usual("bits"),
]
# fmt: on

formula(
    "02.gaussian_kl",
    task="Write `gaussian_kl`: KL(N(μ, σ²) ‖ N(m, s²)) [B], in nats, of diagonal Gaussians [B, d]; "
    "log_var is log σ², other_log_var is log s². Gradients flow.",
    signature="gaussian_kl(mu, log_var, other_mu, other_log_var) -> [B]",
    solution=gaussian_kl,
    hints=[
        "The coordinates are independent: their divergences are added.",
        "For one coordinate: E_q [log q(z) − log p(z)] with q = N(μ, σ²). Under q the mean of "
        "(z − μ)² is σ², and that of (z − m)² is σ² + (μ − m)².",
        "½ (σ² / s² + (μ − m)² / s² − 1 − log(σ² / s²)), summed over the coordinates.",
    ],
    right=gaussian_kl,
    inputs=_draw_gaussians,
    axes="[B, d], [B, d], [B, d], [B, d] -> [B]",
    gradients=["mu", "log_var", "other_mu", "other_log_var"],
    wrong=_KL_WRONG,
    hint=_KL,
    otherwise=_not_a_kl,
    passes="Your numbers are the divergences, in this direction; 0 where both Gaussians are the "
    "same. Gradients reach all four inputs.",
)


_REPARAMETERIZE_ROWS = 20_000


@exercise(
    "02.reparameterize",
    task="Write `reparameterize`: a draw z from N(μ, σ²), where log_var is log σ², through which "
    "gradients flow to mu and log_var; all randomness comes from `generator`.",
    signature="reparameterize(mu, log_var, generator) -> z",
    solution=reparameterize,
    hints=[
        "Separate what is random from what is learned: draw from a fixed distribution, then move "
        "and stretch the draw.",
        "z = μ + σ ε with ε ~ N(0, 1), one ε for each entry.",
        "`torch.randn(mu.shape, generator=generator)`, and σ = exp(log_var / 2).",
    ],
)
def _check_reparameterize(attempt: Attempt, generator: torch.Generator) -> str:
    def draw(mu: Tensor, log_var: Tensor, fresh: torch.Generator) -> Tensor:
        return take_tensor("z", attempt(mu, log_var, fresh), mu.shape, dtype=mu.dtype)

    for shape in ((_REPARAMETERIZE_ROWS, 3), (8, 2500, 3)):
        mu = _random(*shape, generator=generator, scale=2.0).requires_grad_()
        # |log σ²| of 1 to 3, so that σ is neither σ² nor 1.
        log_var = 1 + 2 * torch.rand(shape, generator=generator)
        log_var = log_var * (2 * torch.randint(2, shape, generator=generator) - 1)
        log_var = log_var.requires_grad_()
        z = draw(mu, log_var, torch.Generator().manual_seed(fresh_seed(generator)))
        sigma = (0.5 * log_var).exp()
        eps = ((z - mu) / sigma).detach()
        rows = [t.detach().movedim(-2, 0).flatten(1) for t in (z, mu, log_var, eps)]
        _judge_gaussian(*rows)
        check_gradients(
            "z",
            z,
            mu + sigma * eps,
            {"mu": mu, "log_var": log_var},
            "z must be computed from mu and log_var by operations that PyTorch follows: no "
            "`detach`, no `no_grad`, no `torch.normal`. Only ε is drawn.",
        )
    check_randomness(
        lambda fresh: draw(mu, log_var, fresh),
        generator,
        "`torch.randn(mu.shape, generator=generator)`: `randn_like` and "
        "`torch.distributions` draw from PyTorch's global generator.",
    )
    return (
        f"(z − μ) / σ of {3 * _REPARAMETERIZE_ROWS:,} entries is standard normal and independent; "
        "∂z/∂μ = 1 and ∂z/∂σ = ε; the generator alone decides."
    )


def _judge_gaussian(z: Tensor, mu: Tensor, log_var: Tensor, eps: Tensor) -> None:
    """Test that ``eps [B, d]``, which the draw ``z`` amounts to, is standard normal."""
    shared = "`torch.randn(mu.shape, generator=generator)`: one ε for each entry."
    if same(z, mu):
        raise Mistake("Your z is μ: nothing is drawn.", "z = μ + σ ε with ε ~ N(0, 1).")
    for axis, which in ((0, "all rows"), (1, "all coordinates of a row")):
        if eps.std(axis).max() < 1e-2:
            raise Mistake(f"One draw of ε serves {which}.", shared)
    far = (torch.corrcoef(eps.T) - torch.eye(eps.shape[1])).abs().max()
    if far > 0.99:  # so few draws need not look normal
        raise Mistake("The coordinates of your z are correlated.", shared)
    if is_normal(eps):
        # The correlation of independent columns is normal with deviation 1/√B: 7 of them.
        if far > 7 / math.sqrt(len(eps)):
            raise Mistake("The coordinates of your z are correlated.", shared)
        half = len(eps) // 2
        for first, second in (
            (eps[:half], eps[half:]),
            (eps[::2], eps[1::2]),
            (eps[:half], eps[half:].flip(0)),
        ):
            # A mean of products of independent draws, again with 7 deviations.
            if (first * second).mean().abs() > 7 / math.sqrt(first.numel()):
                raise Mistake("Two rows share a draw of ε, up to its sign.", shared)
        return
    sigma, from_zero = (0.5 * log_var).exp(), z - mu
    half = "`log_var` is log σ²: σ = exp(log_var / 2)."
    plain = "z = μ + σ ε"
    normal = "`torch.randn` is normal, `torch.rand` is uniform."
    known = [
        (from_zero / log_var.exp(), "Your ε is multiplied by the variance σ², not by σ.", half),
        (from_zero / (2 * log_var).exp(), "Your σ is exp(2 log_var).", half),
        (from_zero / (-0.5 * log_var).exp(), "Your σ is 1 / σ.", half),
        (from_zero / log_var, "You take `log_var` for σ.", half),
        (from_zero / (0.5 * log_var), "You take `log_var` / 2 for σ: that is log σ.", half),
        (from_zero / log_var.abs().sqrt(), "You take `log_var` for σ².", half),
        (from_zero, "Your ε is not stretched by σ.", plain),
        (z / sigma, "Your z is not moved by μ.", plain),
        (z / sigma - mu, "Your μ is multiplied by σ, too.", plain),
        # Of 60,000 draws a μ may be exactly 0.
        (((z - sigma) / mu).nan_to_num(), "You swap μ and σ.", plain),
    ]
    for standard, reason, hint in known:
        if is_normal(standard):
            raise Mistake(reason, hint)
    for u in (eps, (eps + 1) / 2, eps + 0.5):
        if u.min() > -1e-3 and u.max() < 1.001:
            raise Mistake("Your ε is uniform, not normal.", normal)
    raise Mistake(
        f"Your z is no draw from N(μ, σ²): (z − μ) / σ has mean {eps.mean():.2f} and standard "
        f"deviation {eps.std():.2f}, where 0 and 1 are expected, or another shape.",
        f"{plain} with ε ~ N(0, 1). {half}",
    )


# --- Bounds --------------------------------------------------------------------------------------


def _elbo(logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    return bernoulli_log_prob(logits, x) - gaussian_kl(mu, log_var)


def _draw_codes(generator: torch.Generator) -> list[Any]:
    cases: list[Any] = []
    for bits, latents in ((6, 3), (10, 1), (6, 3)):
        logits = _random(_BATCH, bits, generator=generator)
        x = torch.randint(2, (_BATCH, bits), generator=generator).float()
        x[0], x[1] = 1, 0
        mu, log_var = (_random(_BATCH, latents, generator=generator) for _ in range(2))
        cases.append((logits, x, mu, log_var))
    sure = 200 * (1 + torch.rand(logits.shape, generator=generator)) * logits.sign()
    sure[0], sure[1] = -200, 200  # sure of itself, and wrong
    cases[-1] = Case((sure, x, mu, log_var), fails=_SURE)
    return cases


_SURE = (
    "Your bound is right for small logits, and wrong or not finite for logits in the hundreds: "
    "σ(−200) is 0 in float32, and its logarithm is lost.",
    "Never take the logarithm of a sigmoid: `F.binary_cross_entropy_with_logits`, "
    "`F.logsigmoid(a)`, or x a − softplus(a).",
)


def _fit(fit: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A bound with another log-probability of the bits, a function of logits and x."""
    return lambda a, x, mu, v: fit(a, x) - gaussian_kl(mu, v)


def _rate(rate: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A bound with another divergence, a function of μ and log σ²."""
    return lambda a, x, mu, v: bernoulli_log_prob(a, x) - rate(mu, v)


def _terms(terms: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A bound whose divergence is half the sum of other terms, a function of μ and log σ²."""
    return _rate(lambda mu, v: 0.5 * terms(mu, v).sum(1))


_ELBO = "ELBO = Σ log p(x_i | z) − ½ Σ (σ² + μ² − 1 − log σ²)."
_ADD_UP = "Independent bits: their log-probabilities are added. So are those of the latents."
_BIT = "log p(x_i | z) = x_i a_i − softplus(a_i)."
_NONE = '`reduction="none"`, then sum over axis 1.'
_SQUARED = "You use squared errors: that is a Gaussian's likelihood, not that of bits."
# fmt: off
_ELBO_WRONG = [
    Wrong(_rate(lambda mu, v: -gaussian_kl(mu, v)),
          "You add the divergence.", "The code costs: subtract it."),
    usual("sign", "Your value is −ELBO, the loss.", "Change the sign of all of it."),
    Wrong(_fit(lambda a, x: -bernoulli_log_prob(a, x)),
          "Your fit has the wrong sign.", "Cross-entropy is −log p: subtract it."),
    Wrong(_rate(lambda mu, v: 0), "You forget the divergence: the code costs nothing."),
    Wrong(_fit(lambda a, x: 0), "You forget the reconstruction: Σ log p(x_i | z)."),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(a, x) / x.shape[1]),
          "You average over the pixels: the code then looks dear.", _ADD_UP),
    Wrong(_rate(lambda mu, v: gaussian_kl(mu, v) / mu.shape[1]),
          "You average the divergence over the latents.", _ADD_UP),
    Wrong(lambda a, x, mu, v: bernoulli_log_prob(a, x) / x.shape[1]
          - gaussian_kl(mu, v) / mu.shape[1],
          "You average over pixels and over latents.", _ADD_UP),
    Wrong(lambda a, x, mu, v: _elbo(a, x, mu, v) / x.shape[1],
          "You divide by the number of pixels.",
          "The bound is one of log p(x), of the whole image."),
    Wrong(_rate(lambda mu, v: gaussian_kl(0 * mu, 0 * v, mu, v)),
          "Your divergence has the other direction, KL(p(z) ‖ q(z|x)).",
          "KL(q ‖ p) is a mean over q, from which z is drawn: ½ Σ (σ² + μ² − 1 − log σ²)."),
    Wrong(_rate(lambda mu, v: 2 * gaussian_kl(mu, v)),
          "Your divergence is twice as large as it should be."),
    Wrong(_rate(lambda mu, v: gaussian_kl(mu, v) / 2),
          "Your divergence is half as large as it should be."),
    Wrong(_terms(lambda mu, v: v.exp() + mu**2 - v), "The −1 is missing in your divergence."),
    Wrong(_rate(lambda mu, v: gaussian_kl(mu, 2 * v)),
          "You take `log_var` for log σ; it is log σ².", "σ² is `log_var.exp()`."),
    Wrong(_terms(lambda mu, v: v.exp() + mu**2 - 1 + v),
          "The logarithm in your divergence has the wrong sign."),
    Wrong(_terms(lambda mu, v: v.exp() - 1 - v), "μ² is missing in your divergence."),
    Wrong(_terms(lambda mu, v: (v / 2).exp() + mu**2 - 1 - v),
          "You have σ where σ² belongs.", "σ² is `log_var.exp()`."),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(-a, x)),
          "You swap zeros and ones.", "σ(a) is the probability of a 1."),
    Wrong(_fit(lambda a, x: (x * F.logsigmoid(a)).sum(1)),
          "You count only the bits that are 1.", "A bit that is 0 contributes log(1 − σ(a))."),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(a[:, 1:], x[:, 1:])),
          "Your first pixel is left out.", "The sum runs over all D pixels."),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(a[:, :-1], x[:, :-1])),
          "Your last pixel is left out.", "The sum runs over all D pixels."),
    Wrong(_fit(lambda a, x: (x * a).sum(1)), "The normalization of your bits is missing.", _BIT),
    Wrong(_fit(lambda a, x: -((a.sigmoid() - x) ** 2).sum(1)), _SQUARED, _BIT),
    Wrong(_fit(lambda a, x: -0.5 * ((a.sigmoid() - x) ** 2).sum(1)), _SQUARED, _BIT),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(a.sigmoid(), x)), "You take the sigmoid twice.",
          "`F.binary_cross_entropy_with_logits` takes the logits as they are."),
    usual("bits", "Your bound is in bits."),
    usual("batch mean", "Every image gets the mean of the batch.",
          "Each image has its own bound: sum over axis 1 alone."),
    usual("batch sum", "Every image gets the sum of the batch.",
          "Each image has its own bound: sum over axis 1 alone."),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(a, x).sum()),
          "Your reconstruction is summed over the batch, too.", _NONE),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(a, x).mean()),
          "Your reconstruction is averaged over the batch.", _NONE),
    Wrong(_fit(lambda a, x: bernoulli_log_prob(a, x).mean() / x.shape[1]),
          "Your reconstruction is a mean over pixels and batch: `binary_cross_entropy_with_logits` "
          "averages over everything if nobody says otherwise.", _NONE),
    Wrong(_rate(lambda mu, v: gaussian_kl(mu, v).sum()),
          "Your divergence is summed over the batch, too.", "Sum over axis 1 alone."),
    Wrong(_rate(lambda mu, v: gaussian_kl(mu, v).mean()),
          "Your divergence is averaged over the batch.", "Sum over axis 1 alone."),
    Wrong(_fit(lambda a, x: td.Bernoulli(a.sigmoid()).log_prob(x).sum(1)), *_SURE),
]
# fmt: on

formula(
    "02.elbo",
    task="Write `elbo`: the evidence lower bound [B], in nats, of bits x [B, D] from the decoder's "
    "logits [B, D] and q(z|x) = N(μ, σ²) [B, d] with log_var = log σ²; the prior is N(0, I). "
    "Gradients flow.",
    signature="elbo(logits, x, mu, log_var) -> [B]",
    solution=[VAE.elbo, VAE.rate_distortion, bernoulli_log_prob, gaussian_kl],
    hints=[
        "ELBO = E_q log p(x|z) − KL(q(z|x) ‖ p(z)): how well the bits are explained, minus what "
        "the code costs.",
        "A bit that is 1 has log-probability log σ(a), one that is 0 log σ(−a). Sum over the bits. "
        "`F.binary_cross_entropy_with_logits` gives minus that.",
        "KL = ½ Σ (σ² + μ² − 1 − log σ²), summed over the latents.",
    ],
    right=_elbo,
    inputs=_draw_codes,
    axes="[B, D], [B, D], [B, d], [B, d] -> [B]",
    gradients=["logits", "mu", "log_var"],
    wrong=_ELBO_WRONG,
    hint=_ELBO,
    otherwise=(
        "Your result is not the fit minus the divergence.",
        _ELBO + " Print both for one image with logits 0, μ = 0, σ = 1: −D log 2, and 0.",
    ),
    passes="The bits' log-probability minus the divergence from the prior, both summed, for each "
    "image; gradients reach logits, mu and log_var, and logits of 400 do no harm.",
)


def _bound(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def _draw_weights(generator: torch.Generator) -> list[Any]:
    cases: list[Any] = [
        (-4 * torch.rand(draws, _BATCH, generator=generator),) for draws in (5, 12, 1)
    ]
    for width in (4.0, 300.0):
        # Images as different as can be, side by side: what is subtracted must be each one's own.
        levels = torch.tensor([0.0, -50.0, -800.0, -3000.0, -800.0, 90.0, 800.0])
        levels = levels[torch.randperm(_BATCH, generator=generator)]
        cases.append(
            Case((levels - width * torch.rand(5, _BATCH, generator=generator),), fails=_far)
        )
    return cases


def _far(got: Any, right: Tensor, log_weights: Tensor) -> tuple[str, str]:
    wrong = "is off or not finite"
    if isinstance(got, Tensor) and got.shape == right.shape and got.is_floating_point():
        at = (got.detach() - right).abs().nan_to_num(torch.inf).argmax()
        wrong = (
            f"is {got[at]:.4g} in place of {right[at]:.4g} where they are near "
            f"{log_weights.amax(0)[at]:.0f}"
        )
    return (
        f"Right for log-weights near 0, but with others your bound {wrong}: exp(−800) is 0 in "
        "float32, exp(800) is infinite.",
        "Subtract the largest log-weight of each image before you take exponentials, and add it "
        "again afterwards: `torch.logsumexp` does.",
    )


def _not_a_bound(got: Tensor, right: Tensor, log_weights: Tensor) -> tuple[str, str]:
    low, high = log_weights.amin(0) - 1e-3, log_weights.amax(0) + 1e-3
    reason = "Your result is not the logarithm of the mean weight."
    if ((got < low) | (got > high)).any():
        reason = (
            "The logarithm of a mean lies between the smallest and the largest log-weight; yours "
            "does not."
        )
    return reason, "With equal log-weights the bound is that number."


def _praise_bound(attempt: Attempt, generator: torch.Generator) -> str:
    log_weights = -800 + 3 * torch.randn(50, 1000, generator=generator)
    one, many = log_weights.mean(), _bound(log_weights).mean()
    return (
        "The logarithm of the mean weight, for each image, whatever its size. For log-weights of "
        f"−800 ± 3 the ELBO is {one:.1f} and the bound of 50 draws {many:.1f}; log p(x) would be "
        "−795.5."
    )


_MEAN = "A mean of S weights is their sum divided by S: subtract log S."
_ORDER = "First the mean of the weights, then the logarithm."
# fmt: off
_BOUND_WRONG = [
    Wrong(lambda w: w.mean(0),
          "You take the mean of the logarithms: that is the ELBO, with S draws, a lower bound.",
          _ORDER),
    Wrong(lambda w: w.sum(0), "You add up logarithms.", _ORDER),
    Wrong(lambda w: w.logsumexp(0), "You forget to divide by S.", _MEAN),
    Wrong(lambda w: w.logsumexp(0) + math.log(len(w)),
          "You multiply by S where you must divide.", _MEAN),
    Wrong(lambda w: w.logsumexp(0) / len(w), "You divide the logarithm by S, not the sum.", _MEAN),
    Wrong(lambda w: w.logsumexp(0) - len(w), "You subtract S, not log S.", _MEAN),
    Wrong(lambda w: w.logsumexp(0) - math.log(w.shape[1]),
          "You divide by the number of images, not of draws.", "S is the length of axis 0."),
    Wrong(lambda w: w.logsumexp(0) - math.log(w.numel()),
          "You divide by draws and images.", "S is the length of axis 0."),
    Wrong(lambda w: w.amax(0), "You keep only the largest weight.", _MEAN),
    Wrong(lambda w: w.amax(0) - math.log(len(w)), "You keep only the largest weight.", _ORDER),
    Wrong(lambda w: w.median(0).values,
          "You take the median.", "The mean of the weights is p(x); their median is not."),
    usual("exp", "Your result is an estimate of p(x), not of its logarithm.", "Take its log."),
    usual("sign", "Your result has the wrong sign.", "It bounds log p(x); −bound is the loss."),
    usual("bits"),
    Wrong(lambda w: _bound(w) - w.amax(0),
          "You subtract the largest log-weight, and never add it again.",
          "log Σ exp(a) = m + log Σ exp(a − m)."),
    Wrong(lambda w: (w.softmax(0) * w).sum(0),
          "You weigh the logarithms by the normalized weights.", _ORDER),
    usual("batch mean"),
    Wrong(lambda w: _bound(w.reshape(-1, 1)).expand(w.shape[1]),
          "You mix the draws of all images.", "Reduce axis 0 alone."),
]
# fmt: on

formula(
    "02.iwae_bound",
    task="Write `iwae_bound`: from log-weights [S, B] of S draws for each of B images the "
    "importance-weighted bound of log p(x), [B], safe for log-weights near −800. Gradients flow.",
    signature="iwae_bound(log_weights) -> [B]",
    solution=VAE.importance_log_prob,
    hints=[
        "The weights p(x|z) p(z) / q(z|x) have the mean p(x). You are given their logarithms.",
        "The bound is the logarithm of the mean of the weights, over the draws: axis 0.",
        "exp(−800) is 0 in float32. `torch.logsumexp` subtracts the largest number first. A mean "
        "is a sum divided by S.",
    ],
    right=_bound,
    inputs=_draw_weights,
    result="bound",
    axes="[draws, images] -> [images]",
    gradients=["log_weights"],
    gradient_hint="The bound can be trained: no `detach`, no NumPy. (The largest log-weight, if "
    "you subtract it yourself, must cancel.)",
    wrong=_BOUND_WRONG,
    otherwise=_not_a_bound,
    passes=_praise_bound,
)


# --- Posterior collapse --------------------------------------------------------------------------


@exercise(
    "02.break_the_code",
    task="Break it: write a loss of the distortion and the rate, both [B], with which a VAE learns "
    "to ignore its latents (rate 0, the same reconstruction for all), while its decoder learns.",
    signature="loss(distortion, rate) -> scalar",
    solution=[collapsing_loss, VAE.loss],
    hints=[
        "Minus the ELBO is distortion + rate. What does a nat of code have to cost, so that it "
        "never pays?",
        "A code pays as long as a nat of rate saves more than it costs in distortion.",
        "distortion + β · rate with a large β, and the mean over the batch.",
    ],
)
def _check_break_the_code(attempt: Attempt, generator: torch.Generator) -> str:
    def loss(distortion: Tensor, rate: Tensor) -> Tensor:
        return _take_loss(attempt(distortion, rate))

    about = _about_loss(attempt, generator)
    try:
        report = fit_vae(loss)
    except ValueError as error:
        raise Mistake(
            f"Training broke: {error}. {about}",
            "A loss that can fall without end runs away; the square root of a rate of 0 has no "
            "slope, nor has its logarithm.",
        ) from None
    _judge_collapse(report, about)
    honest = _honest_report()
    return (
        f"Collapsed: the rate is {report.rate:.3f} nats, and from one image to another a pixel of "
        f"the reconstruction differs by {report.spread:.4f} (with minus the ELBO: "
        f"{honest.spread:.2f}). Every image gets the mean image. Its distortion, "
        f"{report.distortion:.1f} nats, is what independent pixels cost without any code "
        f"({report.without_code:.1f}); minus the ELBO brings {honest.distortion:.1f} + "
        f"{honest.rate:.1f} = {honest.distortion + honest.rate:.1f}. It is worthless: a code that "
        "says nothing, and samples that are the mean image with independent noise."
    )


@cache
def _honest_report() -> CollapseReport:
    """What minus the ELBO makes of the same network."""
    return fit_vae(lambda distortion, rate: (distortion + rate).mean())


def _take_loss(value: Any) -> Tensor:
    if isinstance(value, Tensor) and value.ndim > 0 and value.numel() > 1:
        raise Mistake(
            f"Your loss has shape {list(value.shape)}; training needs one number.",
            "Take the mean over the batch.",
        )
    if isinstance(value, Tensor) and value.ndim == 0 and not value.isfinite():
        raise Mistake(
            f"Your loss is {'NaN' if value.isnan() else 'infinite'}.",
            "A rate may be as small as 0: neither divide by it nor take its logarithm.",
        )
    value = take_tensor("loss", value, (), dtype=torch.float32)
    if not value.requires_grad:
        raise Mistake(
            "No gradient flows through your loss: nothing can be learned.",
            "Compute it from distortion and rate, without `detach`, `.item()` or `no_grad`.",
        )
    return value


def _about_loss(attempt: Attempt, generator: torch.Generator) -> str:
    """Name the loss, if it is a well-known one."""
    distortion = (20 + 5 * torch.rand(9, generator=generator)).requires_grad_()
    rate = (1 + 4 * torch.rand(9, generator=generator)).requires_grad_()
    value = _take_loss(attempt(distortion, rate)).detach()
    for wrong, words in (
        (distortion + rate, "Your loss is minus the ELBO, under which a good code pays."),
        (distortion, "Your loss leaves out the rate: the code costs nothing."),
        (rate, "Your loss leaves out the distortion: the decoder has nothing to learn from."),
        (distortion - rate, "Your loss rewards the rate: its sign is wrong."),
        (rate - distortion, "Your loss rewards distortion: its sign is wrong."),
        (-distortion - rate, "Your loss is the ELBO, which training makes as small as it can."),
    ):
        if same(value, wrong.mean()) or same(value, wrong.sum()):
            return words
    return ""


def _judge_collapse(report: CollapseReport, about: str) -> None:
    coins = 64 * math.log(2)
    about = f" {about}" if about else ""
    if report.distortion > (report.without_code + coins) / 2:
        raise Mistake(
            f"Your decoder has learned nothing: a distortion of {report.distortion:.4g} nats, "
            f"where fair coins cost {coins:.1f} and the mean image {report.without_code:.1f}."
            f"{about}",
            "The decoder learns through the distortion alone: keep it in the loss, to be made "
            "small.",
        )
    if report.rate > 0.1 or report.spread > 0.02:
        raise Mistake(
            f"The code is alive: a rate of {report.rate:.3g} nats, and from one image to another "
            f"a pixel of the reconstruction differs by {report.spread:.3f}. The distortion is "
            f"{report.distortion:.4g} nats, and {report.without_code:.1f} without any code.{about}",
            "Make each nat of the code cost more than it can ever save.",
        )
