"""Exercises of chapter 02: gradients through draws, the ELBO and its tighter kin, a dead code.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    check_gradients,
    check_randomness,
    diagnose,
    fresh_seed,
    same,
    take_pair,
    take_tensor,
)
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

Known = list[tuple[Tensor, str, str]]

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


@exercise(
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
)
def _check_score_function(attempt: Attempt, generator: torch.Generator) -> str:
    names = ("grad_mu", "grad_sigma")
    for n in (40, 3):
        mu = 1.0 + torch.rand((), generator=generator)
        # Far from 1, so that a lost power of σ shows.
        sigma = 0.4 + 0.2 * torch.rand((), generator=generator)
        if torch.rand((), generator=generator) < 0.5:
            sigma = 1 / sigma
        eps = torch.randn(n, generator=generator)
        z = mu + sigma * eps
        values = 3 + 2 * torch.randn(n, generator=generator)
        first, second = take_pair(names, attempt(values, z, mu, sigma))
        grad_mu = take_tensor("grad_mu", first, (n,), dtype=z.dtype).detach()
        grad_sigma = take_tensor("grad_sigma", second, (n,), dtype=z.dtype).detach()
        right = score_function_gradient(lambda _, v=values: v, mu[None], sigma[None], eps[:, None])
        right_mu, right_sigma = (part[:, 0] for part in right)
        # Small σ make large numbers, and z − μ has lost digits.
        if same(grad_mu, right_sigma) and same(grad_sigma, right_mu):
            raise Mistake("You swap the two gradients.", "End with `return grad_mu, grad_sigma`.")
        if not same(grad_mu, right_mu, tolerance=1e-3):
            _diagnose_score_of_mu(grad_mu, values, z, mu, sigma)
        if not same(grad_sigma, right_sigma, tolerance=1e-3):
            _diagnose_score_of_sigma(grad_sigma, values, z, mu, sigma)

    mu, sigma = torch.tensor(1.5), torch.tensor(0.8)
    z = mu + sigma * torch.randn(10_000, generator=generator)
    by_mu, by_sigma = take_pair(names, attempt(z**2, z, mu, sigma))
    return (
        "Each estimate is f(z) times the score. For f(z) = z², μ = 1.5, σ = 0.8 the means of "
        f"10,000 of yours are {by_mu.mean():.2f} and {by_sigma.mean():.2f}; the gradient is "
        f"2 μ = 3, 2 σ = 1.6. One alone has a standard deviation of {by_mu.std():.1f}."
    )


def _diagnose_score_of_mu(
    got: Tensor, values: Tensor, z: Tensor, mu: Tensor, sigma: Tensor
) -> None:
    distance = z - mu
    score = distance / sigma**2
    by_mu = "The slope of log N(z; μ, σ²) in μ is (z − μ) / σ²."
    known = [
        (score, "Your grad_mu is the score itself.", "Multiply it with the values f(z)."),
        (-values * score, "Your grad_mu has the wrong sign.", by_mu),
        (values * distance, "Your grad_mu is not divided by σ².", by_mu),
        (values * distance / sigma, "Your grad_mu is divided by σ, not by σ².", by_mu),
        (values * distance * sigma, "Your grad_mu is multiplied by σ.", by_mu),
        (values * z / sigma**2, "Your grad_mu uses z in place of z − μ.", by_mu),
        (values * z, "Your grad_mu uses z in place of z − μ, and no σ.", by_mu),
        (
            values * -(distance**2) / (2 * sigma**2),
            "Your grad_mu is f(z) times the logarithm of p, not its slope.",
            by_mu,
        ),
        (
            (values - values.mean()) * score,
            "You subtract a baseline: less noise, but this one is made of the same draws, and "
            "biases each estimate a little.",
            "Here the plain estimate is asked for: the values as they are.",
        ),
        (
            values * score / len(z),
            "You divide by the number of draws.",
            "Each draw gives an estimate of its own; nobody has averaged yet.",
        ),
        (
            values.mean() * score,
            "You take the mean of f first.",
            "Multiply each score with the f(z) of its own draw.",
        ),
    ]
    otherwise = (
        "Your grad_mu is not f(z) times the slope of log p(z) in μ.",
        by_mu + " Try one draw by hand: values = 1, z = 2, μ = 1, σ = 2 gives 1/4.",
    )
    diagnose(got, known, otherwise)


def _diagnose_score_of_sigma(
    got: Tensor, values: Tensor, z: Tensor, mu: Tensor, sigma: Tensor
) -> None:
    distance = z - mu
    score = (distance**2 - sigma**2) / sigma**3
    by_sigma = "The slope of log N(z; μ, σ²) in σ is (z − μ)² / σ³ − 1 / σ."
    known = [
        (score, "Your grad_sigma is the score itself.", "Multiply it with the values f(z)."),
        (-values * score, "Your grad_sigma has the wrong sign.", by_sigma),
        (
            values * distance**2 / sigma**3,
            "The −1 / σ is missing in your grad_sigma.",
            "The Gaussian's own factor 1 / σ depends on σ, too: −log σ has the slope −1 / σ.",
        ),
        (
            values * (distance**2 / sigma**3 + 1 / sigma),
            "The 1 / σ in your grad_sigma has the wrong sign.",
            "−log σ has the slope −1 / σ.",
        ),
        (values * score * sigma, "Your grad_sigma is the slope in log σ.", by_sigma),
        (values * score * sigma / 2, "Your grad_sigma is the slope in log σ².", by_sigma),
        (values * score / (2 * sigma), "Your grad_sigma is the slope in σ².", by_sigma),
        (
            values * (distance**2 / sigma**2 - 1 / sigma),
            "Your (z − μ)² is divided by σ², not by σ³.",
            by_sigma,
        ),
        (values * distance / sigma**2, "Your grad_sigma is grad_mu again.", by_sigma),
        (
            values * distance / sigma**2 * distance / sigma,
            "The −1 / σ is missing in your grad_sigma.",
            "It is not grad_mu times ε: that holds for the reparameterized estimate alone.",
        ),
        (
            (values - values.mean()) * score,
            "You subtract a baseline: less noise, but this one is made of the same draws, and "
            "biases each estimate a little.",
            "Here the plain estimate is asked for: the values as they are.",
        ),
        (
            values * score / len(z),
            "You divide by the number of draws.",
            "Each draw gives an estimate of its own; nobody has averaged yet.",
        ),
    ]
    otherwise = (
        "Your grad_mu is right; your grad_sigma is not f(z) times the slope of log p(z) in σ.",
        by_sigma + " Try one draw by hand: values = 1, z = 3, μ = 1, σ = 1 gives 3.",
    )
    diagnose(got, known, otherwise)


# --- Gaussians -----------------------------------------------------------------------------------


@exercise(
    "02.gaussian_kl",
    task="Write `gaussian_kl`: KL(N(μ, σ²) ‖ N(m, s²)) [B], in nats, of diagonal Gaussians [B, d]; "
    "log_var is log σ², other_log_var is log s².",
    signature="gaussian_kl(mu, log_var, other_mu, other_log_var) -> [B]",
    solution=gaussian_kl,
    hints=[
        "The coordinates are independent: their divergences are added.",
        "For one coordinate: E_q [log q(z) − log p(z)] with q = N(μ, σ²). Under q the mean of "
        "(z − μ)² is σ², and that of (z − m)² is σ² + (μ − m)².",
        "½ (σ² / s² + (μ − m)² / s² − 1 − log(σ² / s²)), summed over the coordinates.",
    ],
)
def _check_gaussian_kl(attempt: Attempt, generator: torch.Generator) -> str:
    for dim in (3, 5, 1):
        mu, other_mu = (_random(_BATCH, dim, generator=generator) for _ in range(2))
        log_var, other_log_var = (_random(_BATCH, dim, generator=generator) for _ in range(2))
        other_mu[0], other_log_var[0] = mu[0], log_var[0]  # nothing between these two
        names = ("mu", "log_var", "other_mu", "other_log_var")
        inputs = [mu, log_var, other_mu, other_log_var]
        got = take_tensor("result", attempt(*inputs), (_BATCH,), dtype=mu.dtype).detach()
        if not same(got, gaussian_kl(*inputs)):
            _diagnose_kl(got, *inputs)
        alive = [t.clone().requires_grad_() for t in inputs]
        check_gradients(
            "result",
            attempt(*alive),
            gaussian_kl(*alive),
            dict(zip(names, alive, strict=True)),
            "Training moves all four through this number: no `detach`, no `.item()`.",
        )
    return (
        "Your numbers are the divergences, in this direction; 0 where both Gaussians are the same. "
        "Gradients reach all four inputs."
    )


def _diagnose_kl(
    got: Tensor, mu: Tensor, log_var: Tensor, other_mu: Tensor, other_log_var: Tensor
) -> None:
    right = gaussian_kl(mu, log_var, other_mu, other_log_var)
    var, other_var = log_var.exp(), other_log_var.exp()
    square, log_ratio = (mu - other_mu) ** 2, log_var - other_log_var
    formula = "½ (σ² / s² + (μ − m)² / s² − 1 − log(σ² / s²)), summed over coordinates."

    def put(terms: Tensor) -> Tensor:
        return 0.5 * terms.sum(1)

    known = [
        (
            gaussian_kl(other_mu, other_log_var, mu, log_var),
            "You have the other direction, KL(N(m, s²) ‖ N(μ, σ²)).",
            "The mean is taken over the first Gaussian: what is divided by is the second's s².",
        ),
        (-right, "Your result has the wrong sign.", "A divergence is never negative."),
        (right / mu.shape[1], "You average over the coordinates.", "Independent: add them up."),
        (2 * right, "The ½ is missing.", formula),
        (
            gaussian_kl(mu, log_var),
            "You give the divergence from the standard Gaussian, whatever m and s are.",
            formula,
        ),
        (put(var / other_var + square / other_var - log_ratio), "The −1 is missing.", formula),
        (put(var / other_var + square / other_var - 1), "The logarithm is missing.", formula),
        (put(square / other_var), "Only the means count in your result.", formula),
        (
            put(var / other_var - 1 - log_ratio),
            "Only the variances count in your result: (μ − m)² / s² is missing.",
            formula,
        ),
        (
            put(var / other_var + square / other_var - 1 + log_ratio),
            "Your logarithm has the wrong sign.",
            "The wider the first Gaussian, the smaller: − log(σ² / s²).",
        ),
        (
            put(var / other_var + square - 1 - log_ratio),
            "Your (μ − m)² is not divided by s².",
            "A distance counts in units of s.",
        ),
        (
            put(var / other_var + square / var - 1 - log_ratio),
            "Your (μ − m)² is divided by σ², not by s².",
            "A distance counts in units of s, the width of the second Gaussian.",
        ),
        (
            put(var / other_var + square / other_var.sqrt() - 1 - log_ratio),
            "Your (μ − m)² is divided by s, not by s².",
            formula,
        ),
        (
            put(var + square / other_var - 1 - log_ratio),
            "Your σ² is not divided by s².",
            formula,
        ),
        (
            put((var / other_var).sqrt() + square / other_var - 1 - log_ratio),
            "You have σ / s where σ² / s² belongs.",
            "`log_var` is log σ²: its exponential is the variance.",
        ),
        (
            put(var / other_var + square / other_var - 1 - 0.5 * log_ratio),
            "Your logarithm is halved once too often: log σ² = 2 log σ.",
            formula,
        ),
        (
            put(var / other_var + square / other_var - 1 - 2 * log_ratio),
            "Your logarithm escapes the ½.",
            "`log_var` is log σ², not log σ.",
        ),
        (
            gaussian_kl(mu, 2 * log_var, other_mu, 2 * other_log_var),
            "You take `log_var` for log σ; it is log σ².",
            "σ² is `log_var.exp()`.",
        ),
        (
            put(var / other_var + (mu - other_mu) / other_var - 1 - log_ratio),
            "Your μ − m is not squared.",
            formula,
        ),
        (
            put(var / other_var + (mu + other_mu) ** 2 / other_var - 1 - log_ratio),
            "You add the means.",
            "The distance of the means is μ − m.",
        ),
        (right / math.log(2), "Your result is in bits.", "Use the natural logarithm."),
    ]
    if (got < -1e-3).any():
        otherwise = f"Your divergence is negative somewhere ({got.min():.2f}): none ever is."
    else:
        otherwise = "Your result is not the divergence of these Gaussians."
    hint = f"{formula} No draws are needed: the integral is known."
    diagnose(got, known, (otherwise, hint))


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

    for shape in ((_REPARAMETERIZE_ROWS, 3), (2, 3, 5)):
        mu = _random(*shape, generator=generator, scale=2.0).requires_grad_()
        # |log σ²| of 1 to 3, so that σ is neither σ² nor 1.
        log_var = 1 + 2 * torch.rand(shape, generator=generator)
        log_var = log_var * (2 * torch.randint(2, shape, generator=generator) - 1)
        log_var = log_var.requires_grad_()
        z = draw(mu, log_var, torch.Generator().manual_seed(fresh_seed(generator)))
        sigma = (0.5 * log_var).exp()
        eps = ((z - mu) / sigma).detach()
        if len(shape) == 2:
            _judge_gaussian(z.detach(), mu.detach(), log_var.detach(), eps)
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
    if _is_normal(eps):
        # The correlation of independent columns is normal with deviation 1/√B: 7 of them.
        far = (torch.corrcoef(eps.T) - torch.eye(eps.shape[1])).abs().max()
        if far > 7 / math.sqrt(len(eps)):
            raise Mistake("The coordinates of your z are correlated.", shared)
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
        if _is_normal(standard):
            raise Mistake(reason, hint)
    for u in (eps, (eps + 1) / 2, eps + 0.5):
        if u.min() > -1e-3 and u.max() < 1.001:
            raise Mistake("Your ε is uniform, not normal.", normal)
    raise Mistake(
        f"Your z is no draw from N(μ, σ²): (z − μ) / σ has mean {eps.mean():.2f} and standard "
        f"deviation {eps.std():.2f}, where 0 and 1 are expected, or another shape.",
        f"{plain} with ε ~ N(0, 1). {half}",
    )


def _is_normal(eps: Tensor) -> bool:
    """Whether the entries look like independent standard normal draws."""
    if not eps.isfinite().all():
        return False
    n = eps.numel()
    expected = torch.special.ndtr(eps.flatten().double().sort().values)
    below = torch.arange(n) / n
    distance = torch.maximum((below + 1 / n - expected).abs(), (expected - below).abs()).max()
    # Dvoretzky-Kiefer-Wolfowitz: P(distance > c) ≤ 2 exp(−2 n c²), here 10⁻⁹.
    return bool(distance < math.sqrt(math.log(2e9) / (2 * n)))


# --- Bounds --------------------------------------------------------------------------------------


@exercise(
    "02.elbo",
    task="Write `elbo`: the evidence lower bound [B], in nats, of bits x [B, D] from the decoder's "
    "logits [B, D] and q(z|x) = N(μ, σ²) [B, d] with log_var = log σ²; the prior is N(0, I).",
    signature="elbo(logits, x, mu, log_var) -> [B]",
    solution=[VAE.elbo, VAE.rate_distortion, bernoulli_log_prob, gaussian_kl],
    hints=[
        "ELBO = E_q log p(x|z) − KL(q(z|x) ‖ p(z)): how well the bits are explained, minus what "
        "the code costs.",
        "A bit that is 1 has log-probability log σ(a), one that is 0 log σ(−a). Sum over the bits. "
        "`F.binary_cross_entropy_with_logits` gives minus that.",
        "KL = ½ Σ (σ² + μ² − 1 − log σ²), summed over the latents.",
    ],
)
def _check_elbo(attempt: Attempt, generator: torch.Generator) -> str:
    names = ("logits", "x", "mu", "log_var")
    hint = "Encoder and decoder learn through this number: no `detach`, no `.item()`."
    for bits, latents, scale in ((6, 3, 1.0), (10, 1, 1.0), (6, 3, 200.0)):
        logits = _random(_BATCH, bits, generator=generator)
        x = torch.randint(2, (_BATCH, bits), generator=generator).float()
        x[0], x[1] = 1, 0
        if scale > 1:  # sure of itself, and often wrong
            logits = scale * (1 + torch.rand(logits.shape, generator=generator)) * logits.sign()
            logits[0], logits[1] = -scale, scale
        mu = _random(_BATCH, latents, generator=generator)
        log_var = _random(_BATCH, latents, generator=generator)
        inputs = [logits, x, mu, log_var]
        right = bernoulli_log_prob(logits, x) - gaussian_kl(mu, log_var)
        got = attempt(*inputs)
        if scale > 1:
            _judge_elbo_at_large_logits(got, right)
        got = take_tensor("result", got, (_BATCH,), dtype=x.dtype).detach()
        if not same(got, right):
            _diagnose_elbo(got, *inputs)
        alive = [t if t is x else t.clone().requires_grad_() for t in inputs]
        sources = {name: t for name, t in zip(names, alive, strict=True) if name != "x"}
        right = bernoulli_log_prob(alive[0], x) - gaussian_kl(*alive[2:])
        check_gradients("result", attempt(*alive), right, sources, hint)
    return (
        "The bits' log-probability minus the divergence from the prior, both summed, for each "
        "image; gradients reach logits, mu and log_var, and logits of 400 do no harm."
    )


def _judge_elbo_at_large_logits(got: Any, right: Tensor) -> None:
    if isinstance(got, Tensor) and got.shape == right.shape and same(got, right):
        return
    raise Mistake(
        "Your bound is right for small logits, and wrong or not finite for logits in the "
        "hundreds: σ(−200) is 0 in float32, and its logarithm is lost.",
        "Never take the logarithm of a sigmoid: `F.binary_cross_entropy_with_logits`, "
        "`F.logsigmoid(a)`, or x a − softplus(a).",
    )


def _diagnose_elbo(got: Tensor, logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> None:
    fit, kl = bernoulli_log_prob(logits, x), gaussian_kl(mu, log_var)
    bits, latents = x.shape[1], mu.shape[1]
    zero = torch.zeros_like(mu)
    formula = "ELBO = Σ log p(x_i | z) − ½ Σ (σ² + μ² − 1 − log σ²)."
    add_up = "Independent bits: their log-probabilities are added. So are those of the latents."
    known = [
        (fit + kl, "You add the divergence.", "The code costs: subtract it."),
        (kl - fit, "Your value is −ELBO, the loss.", "Change the sign of all of it."),
        (-fit - kl, "Your fit has the wrong sign.", "Cross-entropy is −log p: subtract it."),
        (fit, "You forget the divergence: the code costs nothing.", formula),
        (-kl, "You forget the reconstruction: Σ log p(x_i | z).", formula),
        (fit / bits - kl, "You average over the pixels: the code then looks dear.", add_up),
        (fit - kl / latents, "You average the divergence over the latents.", add_up),
        (fit / bits - kl / latents, "You average over pixels and over latents.", add_up),
        (
            (fit - kl) / bits,
            "You divide by the number of pixels.",
            "The bound is one of log p(x), of the whole image.",
        ),
        (
            fit - gaussian_kl(zero, zero, mu, log_var),
            "Your divergence has the other direction, KL(p(z) ‖ q(z|x)).",
            "KL(q ‖ p) is a mean over q, from which z is drawn: ½ Σ (σ² + μ² − 1 − log σ²).",
        ),
        (fit - 2 * kl, "Your divergence is twice as large as it should be.", formula),
        (fit - kl / 2, "Your divergence is half as large as it should be.", formula),
        (fit - kl - latents / 2, "The −1 is missing in your divergence.", formula),
        (
            fit - gaussian_kl(mu, 2 * log_var),
            "You take `log_var` for log σ; it is log σ².",
            "σ² is `log_var.exp()`.",
        ),
        (
            fit - kl - log_var.sum(1),
            "The logarithm in your divergence has the wrong sign.",
            formula,
        ),
        (
            fit - 0.5 * (log_var.exp() - 1 - log_var).sum(1),
            "μ² is missing in your divergence.",
            formula,
        ),
        (
            fit - 0.5 * ((0.5 * log_var).exp() + mu**2 - 1 - log_var).sum(1),
            "You have σ where σ² belongs.",
            "σ² is `log_var.exp()`.",
        ),
        (
            bernoulli_log_prob(-logits, x) - kl,
            "You swap zeros and ones.",
            "σ(a) is the probability of a 1.",
        ),
        (
            (x * F.logsigmoid(logits)).sum(1) - kl,
            "You count only the bits that are 1.",
            "A bit that is 0 contributes log(1 − σ(a)).",
        ),
        (
            (x * logits).sum(1) - kl,
            "The normalization of your bits is missing.",
            "log p(x_i | z) = x_i a_i − softplus(a_i).",
        ),
        (
            -((logits.sigmoid() - x) ** 2).sum(1) - kl,
            "You use squared errors: that is a Gaussian's likelihood, up to a scale, not that of "
            "bits.",
            "log p(x_i | z) = x_i a_i − softplus(a_i).",
        ),
        (
            -0.5 * ((logits.sigmoid() - x) ** 2).sum(1) - kl,
            "You use squared errors: that is a Gaussian's likelihood, not that of bits.",
            "log p(x_i | z) = x_i a_i − softplus(a_i).",
        ),
        (
            bernoulli_log_prob(logits.sigmoid(), x) - kl,
            "You take the sigmoid twice.",
            "`F.binary_cross_entropy_with_logits` takes the logits as they are.",
        ),
        ((fit - kl) / math.log(2), "Your bound is in bits.", "Use the natural logarithm."),
        (
            (fit - kl).mean().expand(len(x)),
            "Every image gets the mean of the batch.",
            "Each image has its own bound: sum over axis 1 alone.",
        ),
        (
            (fit - kl).sum().expand(len(x)),
            "Every image gets the sum of the batch.",
            "Each image has its own bound: sum over axis 1 alone.",
        ),
        (
            fit.sum() - kl,
            "Your reconstruction is summed over the batch, too.",
            '`reduction="none"`, then sum over axis 1.',
        ),
        (
            fit.mean() - kl,
            "Your reconstruction is averaged over the batch.",
            '`reduction="none"`, then sum over axis 1.',
        ),
        (
            fit.mean() / bits - kl,
            "Your reconstruction is a mean over pixels and batch: `binary_cross_entropy_with_"
            "logits` averages over everything if nobody says otherwise.",
            '`reduction="none"`, then sum over axis 1.',
        ),
        (
            fit - kl.sum(),
            "Your divergence is summed over the batch, too.",
            "Sum over axis 1 alone.",
        ),
        (fit - kl.mean(), "Your divergence is averaged over the batch.", "Sum over axis 1 alone."),
    ]
    diagnose(
        got,
        known,
        (
            "Your result is not the fit minus the divergence.",
            formula + " Print both for one image with logits 0, μ = 0, σ = 1: −D log 2, and 0.",
        ),
    )


@exercise(
    "02.iwae_bound",
    task="Write `iwae_bound`: from log-weights [S, B] of S draws for each of B images the "
    "importance-weighted bound of log p(x), [B], safe for log-weights near −800.",
    signature="iwae_bound(log_weights) -> [B]",
    solution=VAE.importance_log_prob,
    hints=[
        "The weights p(x|z) p(z) / q(z|x) have the mean p(x). You are given their logarithms.",
        "The bound is the logarithm of the mean of the weights, over the draws: axis 0.",
        "exp(−800) is 0 in float32. `torch.logsumexp` subtracts the largest number first. A mean "
        "is a sum divided by S.",
    ],
)
def _check_iwae_bound(attempt: Attempt, generator: torch.Generator) -> str:
    def right(log_weights: Tensor) -> Tensor:
        return log_weights.logsumexp(0) - math.log(len(log_weights))

    for draws in (5, 12, 1):
        log_weights = -4 * torch.rand(draws, _BATCH, generator=generator)
        got = take_tensor("bound", attempt(log_weights), (_BATCH,), dtype=log_weights.dtype)
        if not same(got, right(log_weights)):
            _diagnose_iwae(got.detach(), log_weights)
        log_weights.requires_grad_()
        check_gradients(
            "bound",
            attempt(log_weights),
            right(log_weights),
            {"log_weights": log_weights},
            "The bound can be trained: no `detach`, no NumPy. (The largest log-weight, if you "
            "subtract it yourself, must cancel.)",
        )
    for spread in (4.0, 300.0):
        # Images as different as can be, side by side: what is subtracted must be each one's own.
        levels = torch.tensor([0.0, -50.0, -800.0, -3000.0, -800.0, 90.0, 800.0])
        levels = levels[torch.randperm(_BATCH, generator=generator)]
        log_weights = levels - spread * torch.rand(5, _BATCH, generator=generator)
        got, wanted = attempt(log_weights), right(log_weights.double())
        if isinstance(got, Tensor) and same(got, wanted, tolerance=1e-3):
            continue
        wrong = "is off or not finite"
        if isinstance(got, Tensor) and got.shape == wanted.shape and got.dtype.is_floating_point:
            at = (got - wanted).abs().nan_to_num(torch.inf).argmax()
            wrong = f"is {got[at]:.4g} in place of {wanted[at]:.4g} where they are near " + (
                f"{levels[at]:.0f}"
            )
        raise Mistake(
            f"Right for log-weights near 0, but with others your bound {wrong}: exp(−800) is 0 in "
            "float32, exp(800) is infinite.",
            "Subtract the largest log-weight of each image before you take exponentials, and add "
            "it again afterwards: `torch.logsumexp` does.",
        )
    log_weights = -800 + 3 * torch.randn(50, 1000, generator=generator)
    one, many = log_weights.mean(), right(log_weights).mean()
    return (
        "The logarithm of the mean weight, for each image, whatever its size. For log-weights of "
        f"−800 ± 3 the ELBO is {one:.1f} and the bound of 50 draws {many:.1f}; log p(x) would be "
        "−795.5."
    )


def _diagnose_iwae(got: Tensor, log_weights: Tensor) -> None:
    draws = len(log_weights)
    total, log_s = log_weights.logsumexp(0), math.log(draws)
    right = total - log_s
    mean = "A mean of S weights is their sum divided by S: subtract log S."
    order = "First the mean of the weights, then the logarithm."
    known = [
        (
            log_weights.mean(0),
            "You take the mean of the logarithms: that is the ELBO, with S draws, a lower bound.",
            order,
        ),
        (log_weights.sum(0), "You add up logarithms.", order),
        (total, "You forget to divide by S.", mean),
        (total + log_s, "You multiply by S where you must divide.", mean),
        (total / draws, "You divide the logarithm by S, not the sum.", mean),
        (total - draws, "You subtract S, not log S.", mean),
        (
            total - math.log(log_weights.shape[1]),
            "You divide by the number of images, not of draws.",
            "S is the length of axis 0.",
        ),
        (
            total - math.log(log_weights.numel()),
            "You divide by draws and images.",
            "S is the length of axis 0.",
        ),
        (log_weights.amax(0), "You keep only the largest weight.", mean),
        (log_weights.amax(0) - log_s, "You keep only the largest weight.", order),
        (
            log_weights.median(0).values,
            "You take the median.",
            "The mean of the weights is p(x); their median is not.",
        ),
        (right.exp(), "Your result is an estimate of p(x), not of its logarithm.", "Take its log."),
        (-right, "Your result has the wrong sign.", "It bounds log p(x); −bound is the loss."),
        (right / math.log(2), "Your bound is in bits.", "Use the natural logarithm."),
        (
            right - log_weights.amax(0),
            "You subtract the largest log-weight, and never add it again.",
            "log Σ exp(a) = m + log Σ exp(a − m).",
        ),
        (
            (log_weights.softmax(0) * log_weights).sum(0),
            "You weigh the logarithms by the normalized weights.",
            order,
        ),
        (
            right.mean().expand_as(right),
            "Every image gets the mean of the batch.",
            "Reduce axis 0 alone.",
        ),
        (
            (log_weights.flatten().logsumexp(0) - math.log(log_weights.numel())).expand_as(right),
            "You mix the draws of all images.",
            "Reduce axis 0 alone.",
        ),
    ]
    below = (got < log_weights.amin(0) - 1e-3).any() or (got > log_weights.amax(0) + 1e-3).any()
    reason = (
        "The logarithm of a mean lies between the smallest and the largest log-weight; yours "
        "does not."
        if below
        else "Your result is not the logarithm of the mean weight."
    )
    diagnose(got, known, (reason, "With equal log-weights the bound is that number."))


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
