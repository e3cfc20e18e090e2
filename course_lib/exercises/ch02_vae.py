"""Exercises of chapter 02: gradients through draws, the ELBO and its tighter kin, a dead code."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    same,
    take_tensor,
)
from course_lib.exercises.formula import BATCH, Case, Wrong, formula, usual
from course_lib.exercises.registry import exercise
from course_lib.experiments.collapse import CollapseReport, collapsing_loss, fit_vae
from course_lib.latent import (
    VAE,
    best_log_var,
    gaussian_kl,
    leave_one_out,
    rate_parts,
    reparameterization_gradient,
    reparameterize,
    score_function_gradient,
)
from course_lib.nn import gaussian_log_prob

__all__: list[str] = []


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


def _leave_one_out(f: Tensor, z: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """The library's estimate for μ, of values less the mean of the other draws' values."""
    eps = ((z - mu) / sigma)[:, None]
    centred = f - leave_one_out(f)
    return score_function_gradient(lambda _: centred, mu[None], sigma[None], eps)[0][:, 0]


def _draw_values(generator: torch.Generator) -> list[tuple[Tensor, ...]]:
    cases = []
    for n in (5, 40, 3):
        mu = 1.0 + torch.rand((), generator=generator)
        sigma = 0.4 + 0.2 * torch.rand((), generator=generator)  # far from 1: a lost power shows
        z = mu + sigma * torch.randn(n, generator=generator)
        cases.append((20 + 3 * torch.randn(n, generator=generator), z, mu, sigma))
    return cases


def _with_baseline(baseline: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer with another baseline, a function of the values."""
    return lambda f, z, m, s: (f - baseline(f)) * (z - m) / s**2


def _praise_baseline(attempt: Attempt, generator: torch.Generator) -> str:
    mu, sigma = torch.tensor(1.5), torch.tensor(0.8)
    z = mu + sigma * torch.randn(300, generator=generator)
    values = z**2 + 100
    plain = values * (z - mu) / sigma**2
    mine = attempt(values, z, mu, sigma)
    return (
        f"For f(z) = z² + 100, μ = 1.5, σ = 0.8 the gradient is 3. The mean of 300 estimates of "
        f"yours is {mine.mean():.1f}, and one has a standard deviation of {mine.std():.1f}; "
        f"without a baseline it is {plain.std():.0f}."
    )


_OTHERS = "The mean of the others is (sum − own) / (n − 1)."
_SCORE = "The slope of log N(z; μ, σ²) in μ is (z − μ) / σ²."
# fmt: off
_BASELINE_WRONG = [
    Wrong(_with_baseline(lambda f: 0), "You subtract no baseline.", _OTHERS),
    Wrong(_with_baseline(lambda f: f.mean()),
          "Your baseline is the mean of all draws: it contains the draw that it is used for, and "
          "makes the estimate (n − 1) / n of what it should be.", _OTHERS),
    Wrong(_with_baseline(lambda f: (f.sum() - f) / len(f)),
          "You divide the sum of the others by n: they are n − 1.", _OTHERS),
    Wrong(_with_baseline(lambda f: f.sum() - f), "Your baseline is the sum of the others.",
          _OTHERS),
    Wrong(_with_baseline(lambda f: -leave_one_out(f)), "You add the baseline.", "Subtract it."),
    Wrong(_with_baseline(lambda f: f.roll(1)),
          "Your baseline is the value of one other draw: unbiased, and noisier than their mean.",
          _OTHERS),
    Wrong(lambda f, z, m, s: f * (z - m) / s**2 - leave_one_out(f),
          "You subtract the baseline from the product.",
          "It is subtracted from f(z), before the score multiplies both."),
    usual("sign", hint=_SCORE),
    Wrong(lambda f, z, m, s: (f - leave_one_out(f)) * (z - m), "Your score is not divided by σ².",
          _SCORE),
    Wrong(lambda f, z, m, s: (f - leave_one_out(f)) * (z - m) / s,
          "Your score is divided by σ, not by σ².", _SCORE),
    Wrong(lambda f, z, m, s: (f - leave_one_out(f)) * z / s**2,
          "Your score uses z in place of z − μ.", _SCORE),
    Wrong(lambda f, z, m, s: f - leave_one_out(f), "The score is missing.", _SCORE),
    Wrong(lambda f, z, m, s: _leave_one_out(f, z, m, s) / len(z),
          "You divide by the number of draws.", "Each draw gives an estimate of its own."),
]
# fmt: on

formula(
    "02.leave_one_out",
    task="Write `with_baseline`: the score function estimate of the gradient of E f(z) by μ, one "
    "for each draw, where from each f(z) the mean of f over the other draws is subtracted first.",
    signature="with_baseline(values, z, mu, sigma) -> [n]",
    solution=[leave_one_out, score_function_gradient],
    hints=[
        "Why the others? A baseline that depends on its own draw no longer has mean zero when "
        "the score multiplies it.",
        "The mean of the others is (sum − own) / (n − 1).",
        "(values − others) · (z − μ) / σ².",
    ],
    right=_leave_one_out,
    inputs=_draw_values,
    axes="[draws], [draws], [], [] -> [draws]",
    wrong=_BASELINE_WRONG,
    otherwise=(
        "Your result is not (f(z) − mean of the others) times the slope of log p(z) in μ.",
        "Try two draws by hand: values 1 and 3, z − μ = 1 and −1, σ = 1 give −2 and −2.",
    ),
    tolerance=1e-3,  # z − μ has lost digits
    passes=_praise_baseline,
)


# --- Gaussians -----------------------------------------------------------------------------------


def _right_parts(w: Tensor, s: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    v = (w * s) ** 2 + sigma**2  # of all codes
    return (v / sigma**2).log() / 2, (v - 1 - v.log()) / 2


def _one_part(k: int, formula_: Callable[..., Tensor]) -> Callable[..., Any]:
    """An answer with another part: of w s, σ and the variance of all codes."""

    def answer(w: Tensor, s: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        parts = list(_right_parts(w, s, sigma))
        parts[k] = formula_(w * s, sigma, (w * s) ** 2 + sigma**2)
        return tuple(parts)

    return answer


_ALL_CODES = "All codes together are N(0, w² s² + σ²): variances of independent parts add up."
_INFORMATION = (
    "The mean of log [q(z|x) / q(z)]: the entropy of q(z) less that of q(z|x). " + _ALL_CODES
)
_MISMATCH = f"KL(N(0, v) ‖ N(0, 1)) = ½ (v − 1 − log v). {_ALL_CODES}"
# fmt: off
_RATE_WRONG = [
    Wrong(_one_part(0, lambda m, t, v: (v / t**2).log()), "Your information lacks the ½.",
          "The entropy of a Gaussian is ½ log of its variance, and a constant."),
    Wrong(_one_part(0, lambda m, t, v: (v / t).log() / 2), "You take σ for a variance.",
          _INFORMATION),
    Wrong(_one_part(0, lambda m, t, v: (m / t).log()), "You leave the noise out of all codes: "
          "½ log(w² s² / σ²).", _INFORMATION),
    Wrong(_one_part(0, lambda m, t, v: v.log() / 2), "Your information is the entropy of q(z) "
          "alone.", "What is left open once x is known does not count."),
    Wrong(_one_part(0, lambda m, t, v: (t**2).log() / 2), "Your information is the entropy of "
          "q(z|x) alone.", _INFORMATION),
    Wrong(_one_part(0, lambda m, t, v: (m**2 + t**2 - 1 - (t**2).log()) / 2),
          "Your information is the whole rate.", "Subtract the mismatch. " + _INFORMATION),
    Wrong(_one_part(0, lambda m, t, v: m**2 / (2 * v)), "That is half of the share of the variance "
          "that x explains.", "½ log(v / σ²) of it is nats."),
    Wrong(_one_part(0, lambda m, t, v: m**2 / (2 * t**2)), "That is the first order of it, for a "
          "code that tells little.", _INFORMATION),
    usual("sign", part="information"),
    usual("bits", part="information"),
    Wrong(_one_part(1, lambda m, t, v: (m**2 + t**2 - 1 - (t**2).log()) / 2),
          "Your mismatch is the whole rate.", _MISMATCH),
    Wrong(_one_part(1, lambda m, t, v: v - 1 - v.log()), "Your mismatch lacks the ½.", _MISMATCH),
    Wrong(_one_part(1, lambda m, t, v: (1 / v - 1 + v.log()) / 2),
          "Your mismatch has the other direction, KL(p ‖ q).", _MISMATCH),
    Wrong(_one_part(1, lambda m, t, v: (m**2 - 1 - (m**2).log()) / 2),
          "You leave the noise of the codes out of your mismatch.", _MISMATCH),
    Wrong(_one_part(1, lambda m, t, v: (t**2 - 1 - (t**2).log()) / 2),
          "Your mismatch leaves out that the means of the codes differ.", _MISMATCH),
    Wrong(_one_part(1, lambda m, t, v: (v.sqrt() - 1 - v.sqrt().log()) / 2),
          "You take the standard deviation of all codes for their variance.", _MISMATCH),
    usual("sign", part="mismatch"),
    usual("bits", part="mismatch"),
]
# fmt: on

formula(
    "02.gaussian_rate",
    task="Derive, and write `split_gaussian_rate`: data are N(0, s²), one number each, and the "
    "encoder says N(w x, σ²); the prior is N(0, 1). Both parts of the mean rate, I(x; z) and "
    "KL(q(z) ‖ p(z)), in nats, for w, s and sigma [B].",
    signature="split_gaussian_rate(w, s, sigma) -> (information, mismatch)",
    solution=[rate_parts, gaussian_kl],
    hints=[
        "Which Gaussian is q(z), all codes together? Its mean is 0.",
        "Its variance v is that of the means w x, and σ² more. The information is the difference "
        "of two entropies, ½ log v and ½ log σ².",
        "information = ½ log(v / σ²), mismatch = ½ (v − 1 − log v) with v = w² s² + σ².",
    ],
    right=_right_parts,
    inputs=lambda generator: [
        tuple(0.4 + 1.6 * torch.rand(n, generator=generator) for _ in range(3)) for n in (7, 4, 5)
    ],
    result=["information", "mismatch"],
    axes="[B], [B], [B] -> [B], [B]",
    wrong=_RATE_WRONG,
    otherwise={
        "information": ("Your information is not that of the Gaussian code.", _INFORMATION),
        "mismatch": ("Your information is right; your mismatch is not.", _MISMATCH),
    },
    passes="What a code tells about its number, and how far all codes together are from the prior; "
    "their sum is the mean rate, ½ (w² s² + σ² − 1 − log σ²). It costs least, for what it tells, "
    "where w² s² + σ² = 1.",
)


def _noise(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    log_var = best_log_var(x, mean)
    return log_var, gaussian_log_prob(x, mean, log_var).mean()


def _other_noise(log_var: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """An answer with another log τ², a function of the squared errors ``[B, D]``."""
    return lambda x, m: (log_var((x - m) ** 2), _noise(x, m)[1])


def _other_fit(fit: Callable[[Tensor, int], Tensor]) -> Callable[..., Any]:
    """An answer with another log-likelihood, a function of the best log τ² and D."""
    return lambda x, m: (best_log_var(x, m), fit(best_log_var(x, m), x.shape[1]))


_VARIANCE = "Set the derivative of −½ Σ [e² / τ² + log τ²] by log τ² to zero: τ² is the mean of e²."
_FIT = "With τ² the mean of e² the quadratic term is ½ for each pixel: −D/2 (1 + log 2π + log τ²)."
_TAU = math.log(2 * math.pi)
# fmt: off
_NOISE_WRONG = [
    Wrong(_other_noise(lambda e: e.mean(1).log().mean()),
          "Your log_var is the mean of each image's own: the logarithm comes after the mean.",
          "One τ serves all pixels of all images."),
    Wrong(_other_noise(lambda e: e.sum(1).mean().log()),
          "Your τ² is the squared error of an image, not of a pixel.", _VARIANCE),
    Wrong(_other_noise(lambda e: e.sum().log()), "Your τ² is a sum; it is a mean.", _VARIANCE),
    Wrong(_other_noise(lambda e: e.mean()), "Your log_var is τ² itself.", "Take the logarithm."),
    Wrong(_other_noise(lambda e: 0.5 * e.mean().log()), "Your log_var is log τ.",
          "log τ² = 2 log τ."),
    Wrong(_other_noise(lambda e: (e.mean() / 2).log()), "Your τ² is half of the mean of e².",
          _VARIANCE),
    usual("sign", part="log_var", hint=_VARIANCE),
    Wrong(_other_noise(lambda e: e.sqrt().mean().log() * 2),
          "Your τ is the mean absolute error.", _VARIANCE),
    Wrong(_other_fit(lambda v, d: -d / 2 * (_TAU + v)), "The quadratic term is missing.", _FIT),
    Wrong(_other_fit(lambda v, d: -d / 2 * (1 + v)), "The log 2π is missing.", _FIT),
    Wrong(_other_fit(lambda v, d: 0 * v - d / 2 * (1 + _TAU)),
          "The log τ² is missing: a density is high where it is narrow.", _FIT),
    Wrong(_other_fit(lambda v, d: -(1 + _TAU + v) / 2),
          "That is the log-likelihood of a pixel.", "Independent pixels: add up D of them."),
    usual("sign", part="log_prob", hint="A log-likelihood, not a loss."),
    usual("bits", part="log_prob"),
]
# fmt: on

formula(
    "02.best_noise",
    task="Derive, then write `best_noise`: a decoder gives means [B, D] for data x [B, D], with "
    "one τ for all. Return the log τ² that maximises the likelihood, and the mean log p(x|z) of an "
    "image at this τ, in nats.",
    signature="best_noise(x, mean) -> (log_var, log_prob)",
    solution=[best_log_var, gaussian_log_prob],
    hints=[
        "Of one number: log N(x; m, τ²) = −½ [(x − m)² / τ² + log τ² + log 2π].",
        "Write v = log τ², sum over all pixels of all images, and set the derivative by v to zero.",
        "τ² is the mean of (x − m)²; put it back: −D/2 (1 + log 2π + log τ²).",
    ],
    right=_noise,
    inputs=lambda generator: [
        (scale * torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator))
        for shape, scale in (((BATCH, 4), 3.0), ((3, 8), 0.3), ((5, 2), 2.0))
    ],
    result=["log_var", "log_prob"],
    axes="[B, D], [B, D] -> [], []",
    wrong=_NOISE_WRONG,
    otherwise={
        "log_var": ("Another τ makes these data more likely.", _VARIANCE),
        "log_prob": ("Your log_var is right; the log-likelihood at it is not.", _FIT),
    },
    passes="The best τ² is the mean squared error. So a Gaussian decoder that learns its τ "
    "minimises D/2 · log(mean squared error); one that minimises the squared error itself has "
    "fixed τ² = ½, whatever the data.",
)


# --- A draw of another law -----------------------------------------------------------------------

_INVERT = (
    "Left of μ the share of draws below z is ½ exp((z − μ) / s), right of it 1 − ½ exp(−(z − μ) / "
    "s). Set it to u and solve for z."
)


def _from_share(
    draw: Callable[[Tensor], Tensor], scale: Callable[[Tensor], Tensor] = torch.exp
) -> Callable[..., Tensor]:
    """An answer μ + s · draw, by a formula of u and one of log s."""
    return lambda mu, log_scale, u: mu + scale(log_scale) * draw(u)


def _laplace(u: Tensor) -> Tensor:
    return -(u - 0.5).sign() * (1 - 2 * (u - 0.5).abs()).log()


# fmt: off
_LAPLACE_WRONG = [
    Wrong(_from_share(torch.special.ndtri), "Your draw is Gaussian.", _INVERT),
    Wrong(_from_share(torch.logit), "Your draw is logistic: smooth in the middle.", _INVERT),
    Wrong(_from_share(lambda u: -(1 - u).log()), "Your draw is never below μ: that is the "
          "exponential law.", _INVERT),
    Wrong(_from_share(lambda u: -_laplace(u)), "Your z falls as u rises.",
          "As good a draw, but a share u of the draws shall lie below z: mind the sign."),
    Wrong(_from_share(lambda u: -(u - 0.5).sign() * (1 - (u - 0.5).abs()).log()),
          "The 2 is missing: at u = 0 and u = 1 the draw must be infinite.", _INVERT),
    Wrong(_from_share(lambda u: -(1 - 2 * (u - 0.5).abs()).log()), "Your draw is never below μ: "
          "the sign is missing.", _INVERT),
    Wrong(_from_share(lambda u: u), "You add u itself, as if it were noise of the right law.",
          _INVERT),
    Wrong(_from_share(lambda u: u - 0.5), "You add u − ½: your draw is uniform.", _INVERT),
    Wrong(_from_share(_laplace, lambda v: (v / 2).exp()), "Your s is exp(log_scale / 2).",
          "`log_scale` is log s itself, not log s²."),
    Wrong(_from_share(_laplace, lambda v: v), "You take log s for s.", "s = exp(log_scale)."),
    Wrong(_from_share(_laplace, torch.ones_like), "Your draw is not stretched by s.", _INVERT),
    Wrong(_from_share(_laplace, lambda v: (-v).exp()), "Your s is upside down.", _INVERT),
    Wrong(lambda mu, v, u: v.exp() * _laplace(u) + 0 * mu, "Your z is not moved by μ.",
          "z = μ + s · (a draw with μ = 0 and s = 1)."),
    Wrong(lambda mu, v, u: v.exp() * (mu + _laplace(u)), "Your μ is multiplied by s, too.",
          "z = μ + s · (a draw with μ = 0 and s = 1)."),
    Wrong(_from_share(lambda u: _laplace(u) / math.log(2)), "Your logarithm has the base 2.",
          "The density is an `exp`."),
]
# fmt: on

formula(
    "02.laplace_draw",
    task="Derive, and write `laplace_draw`: a draw z from the density exp(−|z − μ| / s) / (2 s) "
    "through which gradients flow to mu and log_scale, log s; u, of their shape, is uniform on "
    "(0, 1), and z rises with it: the share u of all draws lies below z.",
    signature="laplace_draw(mu, log_scale, u) -> z",
    solution=reparameterize,
    hints=[
        "Separate what is random from what is learned: z = μ + s · (a draw with μ = 0 and s = 1).",
        "For that one: which share of the draws lies below z? ½ exp(z) for z below 0. And above?",
        "z = log(2 u) for u below ½, and −log(2 (1 − u)) above.",
    ],
    right=_from_share(_laplace),
    inputs=lambda generator: [
        (
            *(torch.randn(shape, generator=generator) for _ in range(2)),
            0.02 + 0.96 * torch.rand(shape, generator=generator),
        )
        for shape in ((7, 3), (40,), (2, 4, 5))
    ],
    result="z",
    gradients=["mu", "log_scale"],
    wrong=_LAPLACE_WRONG,
    otherwise=("The share of draws below your z is not u.", _INVERT),
    passes="Your z is a Laplace draw, and ∂z/∂μ = 1, ∂z/∂log s = z − μ. Any law whose shares can "
    "be inverted is reparameterized like this; where they cannot, as for a code that is a number "
    "from a list, the trick ends.",
)


# --- Bounds --------------------------------------------------------------------------------------


def _bound(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def _draw_weights(generator: torch.Generator) -> list[Any]:
    cases: list[Any] = [
        (-4 * torch.rand(draws, BATCH, generator=generator),) for draws in (5, 12, 1)
    ]
    for width in (4.0, 300.0):
        # Images as different as can be, side by side: what is subtracted must be each one's own.
        levels = torch.tensor([0.0, -50.0, -800.0, -3000.0, -800.0, 90.0, 800.0])
        levels = levels[torch.randperm(BATCH, generator=generator)]
        cases.append(
            Case((levels - width * torch.rand(5, BATCH, generator=generator),), fails=_far)
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
    task="Break it: write `collapsing_loss` of the distortion and the rate, both [B], with which "
    "a VAE learns to ignore its latents (rate 0, one reconstruction for all), while its decoder "
    "learns.",
    signature="collapsing_loss(distortion, rate) -> scalar",
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
