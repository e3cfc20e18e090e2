# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# [← 05 · RealNVP and Glow](05_realnvp_glow.ipynb) | [Contents](../README.md#chapters) | [07 · DDIM →](07_ddim.ipynb)

# %% [markdown]
# # 06 · DDPM
#
# **Dissolve data in noise, a little at a time, and learn to take every step back: what comes out of pure noise
# in the end is new data.**
#
# | | |
# | --- | --- |
# | You need | Gaussians and their sums; the ELBO of chapter 02; convolutions |
# | Time | 50 minutes to read, two hours with the exercises |
# | The short way | 25 minutes: sections 1 to 4, the figure of section 5, and *How good is it?* |
# | You will meet | diffusion, noise schedules, the posterior, two derivations of one loss, why steps are small, log-SNR, the U-Net |
# | Papers | Ho, Jain, Abbeel 2020, *Denoising diffusion probabilistic models*, [DDPM](https://arxiv.org/abs/2006.11239); Sohl-Dickstein et al. 2015, [the first diffusion model](https://arxiv.org/abs/1503.03585); Nichol, Dhariwal 2021, [the cosine schedule](https://arxiv.org/abs/2102.09672) |
# | Source articles | 拆楼建楼, "Tearing a building down, putting it up", and 扩散模型的物理背景, "The physical background of diffusion models" (both in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter), then press play. A model trained on MNIST is told which digit to draw. It
# starts from noise and takes some of it away in every step. The upper row is the state; the lower row is what the
# model believes, at that moment, the finished digit to be.

# %%
import torch

from course_lib.data import to_unit
from course_lib.diffusion import DDPM, DiscreteSchedule, ddim_sample
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import Dissolve, ImagePlayer, ParticlePlayer, PointCloud, VectorField

one_thread()  # models this small are slower on two

# %%
mnist_ddpm = load_pretrained("ddpm_mnist")
classes = torch.arange(10)
# 50 of the 1,000 steps, longer ones: chapter 07 says why that is allowed.
states = list(
    ddim_sample(
        mnist_ddpm, (10, 1, 28, 28), steps=50, eta=1.0, y=classes, clip=1.0, generator=seeded(4)
    )
)
shown = list(range(0, 48, 6))
guesses = [
    mnist_ddpm.predict_x0(states[k], 999 - 20 * k, y=classes, clip=1.0).detach() for k in shown
]

ImagePlayer(
    to_unit(torch.stack([*(states[k] for k in shown), states[-1]])),
    beside=to_unit(torch.stack([*guesses, states[-1]])),
    titles=("the state", "the model's guess of the digit"),
    columns=10,
    labels=[f"{1000 - 20 * k} to go" for k in shown] + ["done"],
    title="From noise to digits",
    alt="Ten squares of noise become the digits 0 to 9. Below each the model's guess is a grey blur "
    "at first and sharpens into the digit.",
)

# %% [markdown]
# Three things to notice:
#
# - **The guess is a blur first** (but for the very first one, which is speckled; section 4 says why). Pure noise
#   says nothing about the digit, so the best guess is the average of all images of the class that the model was
#   told. As the state clears, fewer of them remain possible and the average sharpens.
# - **What is settled early, and what late?** Follow the place and the slant of the strokes, and in the
#   last steps their edges.
# - **Nothing is decided in one step.** Each removes a little noise, and adds a little fresh noise. All that the network
#   must be able to do is *denoise*.

# %% [markdown]
# ## The idea
#
# To tear a house down is easy: take away a brick at a time. Film it, and play the film backwards: that is how
# a house is built. The source article calls it *demolition and construction*. Data are the
# house, standard Gaussian noise is the heap of bricks. Demolition, in the papers the **forward process**, a **Markov chain**, needs no learning. Construction, the **reverse process**, is learned
# from the film: given the state after step $t$, what was the state before?
#
# Sections 1 to 4 are the whole model. Section 5 asks why a step back may be Gaussian, section 6 derives the loss again
# as a bound of the likelihood, section 8 is the physics behind it.
#
# | symbol | meaning |
# | --- | --- |
# | $x_0$; $x_t$ | data; the state after $t$ noising steps, $t = 1, \dots, T$ |
# | $q$; $p$ | probabilities of demolition, which are given; of the model |
# | $\beta_t$, $\alpha_t = 1 - \beta_t$ | the variance of the noise that step $t$ adds; what it leaves |
# | $\bar\alpha_t = \alpha_1 \alpha_2 \cdots \alpha_t$ | what all steps so far leave |
# | $a_t = \sqrt{\bar\alpha_t}$, $b_t = \sqrt{1 - \bar\alpha_t}$ | the amounts of data and noise in $x_t = a_t x_0 + b_t \varepsilon$ |
# | $\varepsilon$; $\varepsilon_t$; $\bar\varepsilon$ | standard Gaussian noise: of all steps; of step $t$ alone; of the steps before $t$ |
# | $\varepsilon_\theta(x_t, t)$; $\hat x_0$ | a network's guess of $\varepsilon$; the guess of $x_0$ that goes with it |
# | $\tilde\mu_t$, $\tilde\beta_t$ | mean and variance of the posterior $q(x_{t-1} \mid x_t, x_0)$ |
# | $\mu_\theta$, $\sigma_t^2$ | mean and variance of the model's step back |
# | $\log(a_t^2 / b_t^2)$; $\Delta_t$ | the log-SNR: the logarithm of the signal-to-noise ratio; its fall in step $t$ |
# | $\mathbb E$; $L$ | the mean over all that is drawn; a loss |
# | $g$; $w_t$; $h$, $s$ | a network's guess of $\varepsilon_t$ (section 2); the weight of step $t$ (6); the cosine schedule (7) |
# | $\rho$, $D$, $\tau$, $\delta$, $\varphi$ | density and speed of grains, a short time, a move in it, the move's density (8) |
# | $c$, $d$, $e$, $f$ | coefficients of data and noise in a prediction (9) |
# | $\mu_1$, $\mu_2$, $\Sigma_1$, $\Sigma_2$ | means and covariances of features, of samples and of real images |
#
# > **Counting.** Formulas count steps as the papers do, $t = 1, \dots, T$, so that $x_0$ can be the data.
# > Arrays count from 0. In the library, and in the exercises, a time `t` is the *index* into `betas`, `alphas` and
# > `alpha_bars`: the first noising step is `t = 0`, the last is `t = T - 1`, and the formula's $\bar\alpha_t$ is
# > `alpha_bars[t - 1]`. To be off by one here is a common mistake; exercise 8 makes it on purpose.

# %% [markdown]
# ## 1. Demolition
#
# One step of demolition is
#
# $$x_t = \sqrt{\alpha_t}\, x_{t-1} + \sqrt{\beta_t}\, \varepsilon_t, \qquad \alpha_t + \beta_t = 1,$$
#
# with fresh noise in every step. A mean is multiplied by $\sqrt{\alpha_t} < 1$ and comes nearer to 0. A variance $V$ becomes
# $\alpha_t V + \beta_t$: where it is 1 it stays 1, and any other comes nearer to 1. So both end alike for all data; that the end
# is Gaussian, too, is seen from the next formula.
#
# **All steps at once.** Insert $x_{t-1}$ into $x_t$:
#
# $$x_t = \sqrt{\alpha_t \alpha_{t-1}}\, x_{t-2} + \underbrace{\sqrt{\alpha_t \beta_{t-1}}\, \varepsilon_{t-1} + \sqrt{\beta_t}\, \varepsilon_t}_{\text{variance } \alpha_t \beta_{t-1} + \beta_t}.$$
#
# The sum of two independent Gaussians is a Gaussian, and the variances add up to
# $\alpha_t (1 - \alpha_{t-1}) + 1 - \alpha_t = 1 - \alpha_t \alpha_{t-1}$. So the two steps are one, with
# $\alpha_t \alpha_{t-1}$ in the place of $\alpha_t$. Go on down to the data:
#
# $$x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\; \varepsilon = a_t x_0 + b_t \varepsilon .$$
#
# You never have to walk through the film: every frame can be made directly. That is what makes training
# cheap.

# %%
import math

from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.data import load_digits, to_signed, toy, toy_log_prob
from course_lib.diffusion import (
    PREDICTIONS,
    Denoiser,
    GaussianPath,
    IdealDenoiser,
    combine,
    convert,
    ddpm_sample,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.experiments import ReverseDensity, reverse_density, run_clock
from course_lib.nn import TimeMLP, UNet
from course_lib.widgets import PALETTE, image_grid, show_figure

show_source([DiscreteSchedule.a, DiscreteSchedule.b, GaussianPath.noised])

# %% [markdown]
# **Check it**: follow mean and variance through 1,000 single steps, and compare with the closed form at each.

# %%
schedule = DiscreteSchedule.linear(1000)
mean, variance = torch.tensor(1.5, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
worst = 0.0
for t, beta in enumerate(schedule.betas.double()):
    mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
    a_t, b_t = (f(torch.tensor([t], dtype=torch.float64)) for f in (schedule.a, schedule.b))
    gap = torch.stack([mean - a_t * 1.5, variance - (a_t**2 * 0.3 + b_t**2)]).abs().max().item()
    worst = max(worst, gap)
print("1,000 steps and the closed form agree within 1e-12:", worst < 1e-12)

# %% [markdown]
# **Exercise 1: predict.** DDPM's linear schedule takes $T = 1{,}000$ steps; $\beta$ rises on a straight line from
# 0.0001 to 0.02. Half of the steps are done. What share of the data's *variance* is left in $x_{500}$? Write a number
# from 0 to 1 in place of the dots, before you compute anything. (`hint("06.predict_halfway")` helps, as with every
# exercise; `solution(...)` shows what the library does.)

# %%
prediction = ...

check("06.predict_halfway", prediction)

# %% [markdown]
# **Dissolve it yourself.** Scrub through the time, choose a schedule, or drag the handles of your own. The curve is the
# **log-SNR**, $\log(a_t^2 / b_t^2)$. In which part of the film does the digit disappear *for you*? And what happens when
# you make the curve fall early?

# %%
images = load_digits("train")[0]
eight = torch.stack([images[k, 0] for k in (0, 11, 2, 13, 4, 15, 6, 17)])
Dissolve(
    eight,
    {
        "linear": schedule.alpha_bars,
        "cosine": DiscreteSchedule.cosine(1000).alpha_bars,
    },
    noise=torch.randn(eight.shape, generator=seeded(2)),
    title="Demolition",
    alt="Eight handwritten digits drown in noise as time goes on; beside them the curve of the "
    "log-signal-to-noise ratio falls.",
)

# %% [markdown]
# **Exercise 2: noise on top of noise.** The closed form starts from the data. Start from an $x_s$ that is noised already, and go
# on to $x_t$ in one go. Each example of the batch has times of its own, `s` and `t [B]`; an example may be a point, an image,
# anything. How much fresh noise is due? (Every `check` judges your function
# on fresh random inputs, accepts every correct solution, and tells which property broke.)

# %%
def noise_on(x_s, eps, s, t, alpha_bars):
    """Return x_t, of the shape of x_s and eps; s < t [B] count from 0, alpha_bars is [T]."""
    ...


check("06.noise_on", noise_on)

# %% [markdown]
# ## 2. Construction
#
# Now the film backwards. We know $x_t$ and want $x_{t-1}$. Solve the step of demolition for it:
#
# $$x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \left( x_t - \sqrt{\beta_t}\; \varepsilon_t \right).$$
#
# Everything is known but the noise $\varepsilon_t$ of this very step. So let a network $g(x_t, t)$ guess it, with the
# squared error of the step back as the loss:
#
# $$\left\| x_{t-1} - \frac{1}{\sqrt{\alpha_t}} \left( x_t - \sqrt{\beta_t}\, g(x_t, t) \right) \right\|^2
#   = \frac{\beta_t}{\alpha_t} \left\| \varepsilon_t - g(x_t, t) \right\|^2 .$$
#
# **Which noise?** To train $g$ we need pairs of $x_t$ and $\varepsilon_t$. By the closed form
# $x_t = a_t x_0 + b_t \varepsilon$ with a noise $\varepsilon$ that gathers all steps so far. How much of it is
# $\varepsilon_t$? With $\bar\varepsilon$ the gathered noise up to $t - 1$,
#
# $$b_t\, \varepsilon = \sqrt{\alpha_t}\, b_{t-1}\, \bar\varepsilon + \sqrt{\beta_t}\, \varepsilon_t,$$
#
# and $\bar\varepsilon$ and $\varepsilon_t$ are independent. So $\varepsilon$ and $\varepsilon_t$ are jointly Gaussian, both
# of variance 1, with covariance $\sqrt{\beta_t} / b_t$ (multiply the line by $\varepsilon_t$ and take the mean). Then the
# best guess of the one from the other is the covariance times the other, and $x_0$, being independent of both, adds
# nothing:
#
# $$\mathbb E[\varepsilon_t \mid \varepsilon, x_0] = \frac{\sqrt{\beta_t}}{b_t}\, \varepsilon .$$
#
# $g$ sees $x_t$, which is a function of $x_0$ and $\varepsilon$. So in the average over everything
#
# $$\mathbb E\left\| \varepsilon_t - g \right\|^2
#   = \mathbb E \Big\| \frac{\sqrt{\beta_t}}{b_t}\, \varepsilon - g \Big\|^2
#   + \mathbb E \Big\| \varepsilon_t - \frac{\sqrt{\beta_t}}{b_t}\, \varepsilon \Big\|^2 ,$$
#
# because the cross term, $\varepsilon_t - \mathbb E[\varepsilon_t \mid \varepsilon, x_0]$ times
# something that $\varepsilon$ and $x_0$ fix, is 0 on average. The last term has no $g$ in it. Write
# $g = (\sqrt{\beta_t} / b_t)\, \varepsilon_\theta$, and the first term is
# $(\beta_t / b_t^2)\, \mathbb E \|\varepsilon - \varepsilon_\theta\|^2$. **That is the loss**: up to a weight for
# each $t$, which DDPM drops,
#
# $$L_{\text{simple}} = \mathbb E_{t,\, x_0,\, \varepsilon} \left\| \varepsilon - \varepsilon_\theta(a_t x_0 + b_t \varepsilon,\; t) \right\|^2 .$$
#
# And the step back, with $g$ put in its place, has the mean
#
# $$\mu_\theta(x_t, t) = \frac{1}{\sqrt{\alpha_t}} \left( x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\; \varepsilon_\theta(x_t, t) \right).$$
#
# This is line 4 of the paper's algorithm 2, and no variational inference was needed. To
# sample, go to this mean and add noise of some variance $\sigma_t^2$, because many $x_{t-1}$ could have led to
# $x_t$, and the mean is only the middle of them. *Which* variance, and why Gaussian noise, is what section 5 asks.
#
# **Why guess the noise and not the data?** It is the same guess in other words: from $x_t$ and $\varepsilon$
# follows $x_0 = (x_t - b_t \varepsilon) / a_t$. What differs is the weight. An error of $\varepsilon_\theta$ is
# an error of $x_0$ that is $b_t / a_t$ times as large, so equal weights for $\varepsilon$ are small weights for
# $x_0$ where little is left of it.

# %%
show_source(Denoiser.loss)

# %% [markdown]
# **Exercise 3: uneven times.** The loss draws $t$ evenly. Nichol and Dhariwal, who train on the bound of section 6, draw those times more often whose
# terms of it have been large (**importance sampling**). Drawn unevenly, the simple loss is another one, unless you count each example with a weight. With which one is the mean still
# $L_{\text{simple}}$? (As in the code above: with the *mean* of the squares over the numbers of an example in the place of their sum $\|\cdot\|^2$.)

# %%
def uneven_loss(net, x0, eps, t, share, alpha_bars):
    """Return a scalar; t [B] was drawn with probabilities share [T], net(x_t, t) says eps."""
    ...


check("06.uneven_loss", uneven_loss)

# %% [markdown]
# **Exercise 4: from the noise to the data.** A network that predicts $\varepsilon$ predicts $x_0$ as well. Which?

# %%
def x0_from_eps(x_t, eps, t, alpha_bars):
    """Return x_0, of the shape of x_t and eps; t [B] counts from 0, alpha_bars is [T]."""
    ...


check("06.x0_from_eps", x0_from_eps)

# %% [markdown]
# ## 3. Train it
#
# **Two moons**, in a few seconds. The network is a small perceptron that is told the time: sines and cosines of
# $t$ at many frequencies (a **sinusoidal embedding**), as in the transformer, let into every layer. What is kept is not the weights of the last
# step but a slow average of them (**EMA**, an exponential moving average), since every batch draws other times and other
# noise and pulls the weights about. (For another $T$ than 1,000 the library's linear schedule multiplies both of its ends by
# $1000 / T$, here by ten, so that $\bar\alpha_T$ is again nearly 0.)

# %%
torch.manual_seed(0)
live = DDPM(TimeMLP(2, (96, 96, 96)), DiscreteSchedule.linear(100))
history = fit(
    live,
    toy("two_moons", 10_000, generator=seeded(0)),
    steps=2000,
    batch_size=256,
    lr=3e-3,
    ema=0.99,
)
print("the loss fell below 0.30:", history.loss() < 0.30)

# %% jupyter={"source_hidden": true}
samples = live.sample(1500, generator=seeded(1))
figure = Figure(figsize=(6.4, 3.1))
real, ours = figure.subplots(1, 2)
real.scatter(*toy("two_moons", 1500, generator=seeded(2)).T, s=2, color=PALETTE["data"])
ours.scatter(*samples.T, s=2, color=PALETTE["model"])
for axes, title in ((real, "data"), (ours, "our samples")):
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=title, xlabel="x₁", ylabel="x₂")
figure.tight_layout()
show_figure(
    figure, alt="Two moons, and samples of the model just trained: two moons, a little blurred, with stray points between them."
)

# %% [markdown]
# **Digits**, in five to ten seconds, with a **U-Net**: down to few pixels, where everything sees everything (by
# **self-attention**), and up again, with bridges (**skip connections**) that carry the details across. Between the convolutions **GroupNorm**
# keeps the numbers at one scale within each image, so that a batch may hold images of all noise levels. The images are
# mapped to $[-1, 1]$, around the noise's mean.

# %%
show_source(UNet.forward)

# %% [markdown]
# As a diagram, the U-Net of `ddpm_mnist`, drawn from the network as it runs ($B$ images at a time). What the way down puts aside is laid beside the image on the way up: a block there takes in more channels than came from below.
#
# - **GroupNorm** takes the channels in groups and gives each group of an image mean 0 and variance 1; unlike batch normalisation it never looks at the other images of the batch.
# - **Attention** lets every pixel ask every other and take a weighted mean of their answers; it stands in the middle, where pixels are few, because its cost grows with the square of their number.
# - **EMA** is not in the network: training keeps a slow average of all weights beside it, and that average is what samples.

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import unet_diagram
from course_lib.widgets import show_diagram

show_diagram(unet_diagram(mnist_ddpm.net))

# %%
torch.manual_seed(0)
live_digits = DDPM(UNet((1, 8, 8), widths=(16, 32)), DiscreteSchedule.linear(100))
history = fit(
    live_digits, to_signed(load_digits("train")[0]), steps=200, batch_size=48, lr=5e-3, ema=0.98
)
print("the loss fell below 0.15:", history.loss() < 0.15)

# %%
early = live_digits.sample(12, clip=1.0, generator=seeded(0))
digits_ddpm = load_pretrained("ddpm_digits")
digit_states = list(ddpm_sample(digits_ddpm, (12, 1, 8, 8), clip=1.0, generator=seeded(0)))
show_figure(
    image_grid(
        to_unit(torch.cat([early, digit_states[-1]])),
        columns=12,
        titles=["a few seconds", "ddpm_digits"],
    ),
    alt="Two rows of twelve 8x8 digits. The first row, after seconds of training, has shapes that "
    "resemble digits; the second row has digits.",
)

# %% [markdown]
# ## 4. Sample it
#
# You know the mean $\mu_\theta$; the rest is a loop.
#
# **Exercise 5: algorithm 2.** All steps from noise to data, with $\sigma_t^2 = \beta_t$. The noises are given, so that
# two answers can be compared: `noises[t]` is for the step from `t`. The last step, from `t = 0`, adds none.

# %%
def my_ddpm_sample(net, z, betas, noises):
    """Return x, of the shape of z; noises is [T, *z.shape], betas [T], net(x_t, t [B]) says eps."""
    ...


check("06.ddpm_sample", my_ddpm_sample)

# %% [markdown]
# The library's loop is a *generator function*: it yields every state. Its mean and variance come from `model.reverse`,
# which section 5 shows.

# %%
show_source(ddpm_sample)

# %% [markdown]
# **Build**, with 2,000 particles. Left the state, right the guess $\hat x_0 = (x_t - b_t \varepsilon_\theta) / a_t$ at that
# moment. The very first guesses are wild, for $a_t$ is so small that they multiply every error of the network: the cell
# prints by how much. It does no harm, since the step gives $\hat x_0$ next to no weight there. Then the guesses gather
# near 0, the middle of the data, and spread along the moons, long before the particles arrive (printed, too). (Of images we know that
# pixels lie in $[-1, 1]$. So the guesses are cut off there, with `clip=1.0`.)

# %%
moons_ddpm = load_pretrained("ddpm_two_moons")
first = 1 / moons_ddpm.schedule.a(torch.tensor(199)).item()
print(f"the first guess multiplies an error of the network by {first:.0f}")
trajectory = moons_ddpm.trajectory(2000, generator=seeded(3))
frames = [0, 30, 60, 80, 100, 115, 130, 140, 150, 160, 170, 178, 185, 191, 196, 200]
beliefs = [
    moons_ddpm.predict_x0(trajectory[k], 199 - k).detach() if k < 200 else trajectory[k]
    for k in frames
]
away = {k: guess.norm(dim=1).median() for k, guess in zip(frames, beliefs)}
print(f"median distance of the guesses from 0: {away[60]:.1f} with 140 steps to go, {away[200]:.1f} at last")
on_moons = {
    name: (toy_log_prob("two_moons", x) > -4).float().mean().item()
    for name, x in (("guesses", beliefs[frames.index(170)]), ("particles", trajectory[170]))
}
print("with 30 to go more than 75 % of the guesses lie on the moons:", on_moons["guesses"] > 0.75)
print("and of the particles fewer than 60 %:", on_moons["particles"] < 0.6)
ParticlePlayer(
    trajectory[frames],
    beside=torch.stack(beliefs),
    titles=("the state", "the guess of x₀"),
    labels=[f"{200 - k} steps to go" for k in frames],
    extent=(-3, 3, -3, 3),
    role="noise",
    beside_role="model",
    title="Construction",
    alt="A round cloud of 2,000 points becomes two moons. Beside it, the guesses of where each will "
    "end: first all near the middle, then a thick arc, then two moons.",
)

# %%
eight_states = [x[3:11] for x in digit_states]  # of those of section 3
frames = [*range(0, 400, 25), 385, 393, 397, 400]
beliefs = [
    digits_ddpm.predict_x0(eight_states[k], 399 - k, clip=1.0).detach()
    if k < 400
    else eight_states[k]
    for k in frames
]
ImagePlayer(
    to_unit(torch.stack([eight_states[k] for k in frames])),
    beside=to_unit(torch.stack(beliefs)),
    titles=("the state", "the guess of x₀"),
    columns=8,
    labels=[f"{400 - k} to go" for k in frames],
    title="Construction of digits, all 400 steps",
    alt="Eight squares of noise become 8x8 digits; the guess below each is a grey blur first and then "
    "a digit.",
)

# %% [markdown]
# **What the best network says.** The best guess in squared error is an average: $\varepsilon_\theta(x_t, t)$
# should be $\mathbb E[\varepsilon \mid x_t]$, over all $x_0$ and $\varepsilon$ that could have made this $x_t$.
# For data in small clouds it has a closed form (`IdealDenoiser`). **Check**: the loss of the ideal network for eight
# clouds, and of those for clouds that are a little narrower or wider.

# %%
angle = torch.arange(8) * math.pi / 4
centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
points = toy("eight_gaussians", 20_000, generator=seeded(0))
losses = {}
for std in (0.1, 0.2, 0.3):
    best = DDPM(IdealDenoiser(centres, schedule, std=std), schedule)
    losses[std] = best.loss(points, generator=seeded(1)).item()
print(
    "the clouds have standard deviation 0.2; the best of 0.1, 0.2 and 0.3:",
    min(losses, key=losses.get),
)

# %% [markdown]
# **See the field.** Arrows show the noise that a trained network sees in a point, at each time: away from the
# data, since that is where noise pushes. Drop points into the plane: the flow of chapter 07 carries them to the data.

# %%
path = moons_ddpm.schedule
field_times = list(range(199, -1, -11))  # from noise to data
side = torch.linspace(-3, 3, 19)
mesh = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
with torch.no_grad():
    eps_field = torch.stack([moons_ddpm.predict(mesh, t) for t in field_times])
    # Displacement per frame, 11 steps towards the data: minus 11 times the velocity.
    flow = torch.stack([-11 * moons_ddpm.predict(mesh, t, target="velocity") for t in field_times])
moons = toy("two_moons", 400, generator=seeded(0))
moons_noise = torch.randn(400, 2, generator=seeded(1))
field = VectorField(
    eps_field.reshape(-1, 19, 19, 2),
    extent=(-3, 3, -3, 3),
    labels=[f"time {t}" for t in field_times],
    points=torch.stack([path.noised(moons, t, moons_noise) for t in field_times]),
    flow=flow.reshape(-1, 19, 19, 2),
    field_label="predicted noise",
    title="What the network says, everywhere",
    alt="A plane full of arrows. At late times they all point away from the middle; at early times "
    "away from the nearer of two moons.",
)
field.scale = "direction"  # arrows of one length; the colour tells how long they really are
field

# %% [markdown]
# ## 5. Why small steps
#
# A step back goes to a mean and adds *Gaussian* noise. Why may it? Nobody has said that $q(x_{t-1} \mid x_t)$ is a
# Gaussian, and for long steps it is not one at all.
#
# **With $x_0$ known it is.** The *posterior* $q(x_{t-1} \mid x_t, x_0)$ is proportional to
# $q(x_t \mid x_{t-1})\, q(x_{t-1} \mid x_0)$, two Gaussians in $x_{t-1}$. Minus twice the logarithm is, up to terms
# without $x_{t-1}$,
#
# $$\frac{(x_t - \sqrt{\alpha_t}\, x_{t-1})^2}{\beta_t} + \frac{(x_{t-1} - a_{t-1} x_0)^2}{b_{t-1}^2}
#  = \underbrace{\left( \frac{\alpha_t}{\beta_t} + \frac{1}{b_{t-1}^2} \right)}_{1/\tilde\beta_t} x_{t-1}^2
#  - 2 \left( \frac{\sqrt{\alpha_t}\, x_t}{\beta_t} + \frac{a_{t-1} x_0}{b_{t-1}^2} \right) x_{t-1} + \dots$$
#
# The coefficient of the square is one over the variance, and the second bracket times the variance is the mean. With
# $\alpha_t b_{t-1}^2 + \beta_t = b_t^2$ (the variances of section 1) they become
#
# $$\tilde\beta_t = \frac{b_{t-1}^2}{b_t^2}\, \beta_t, \qquad
#   \tilde\mu_t(x_t, x_0) = \frac{a_{t-1}\, \beta_t}{b_t^2}\, x_0 + \frac{\sqrt{\alpha_t}\, b_{t-1}^2}{b_t^2}\, x_t .$$
#
# In code, `before` gives $a_{t-1}$ and $b_{t-1}$ (1 and 0 before the first step), `step` gives $\beta_t$ and $\alpha_t$.

# %%
show_source([DDPM.posterior, DDPM.reverse])

# %% [markdown]
# **Check it by brute force**: multiply the two densities on a fine grid of $x_{t-1}$.

# %%
model = DDPM(IdealDenoiser(centres, schedule, std=0.2), schedule).double()
grid = torch.linspace(-6, 6, 40_001, dtype=torch.float64)
x_0, x_t, worst = 0.8, -0.3, 0.0
for t in (1, 50, 300, 999):
    beta, before = schedule.betas[t].double(), torch.tensor([t - 1], dtype=torch.float64)
    log_q = -((x_t - (1 - beta).sqrt() * grid) ** 2) / (2 * beta)
    log_q -= (grid - schedule.a(before) * x_0) ** 2 / (2 * schedule.b(before) ** 2)
    q = torch.softmax(log_q, dim=0)
    brute_mean = (q * grid).sum()
    brute_variance = (q * (grid - brute_mean) ** 2).sum()
    exact = model.posterior(torch.full((1, 1), x_t).double(), torch.full((1, 1), x_0).double(), t)
    gaps = [(exact[0] - brute_mean).abs().item(), (exact[1] / brute_variance - 1).abs().item()]
    worst = max(worst, *gaps)
print("mean and variance agree with Bayes on a grid, within 1e-6:", worst < 1e-6)

# %% [markdown]
# **Exercise 6: skip some steps.** The posterior of any earlier time $s$ in the place of $t - 1$: return its mean, and its variance
# as `[B]`, from what $\bar\alpha$ is at the two times. Exercise 2 gives one of the two Gaussians. How long may the step be, for the
# result to be exact? (With $s = t - 1$, and $\hat x_0$ in the place of $x_0$, your mean is $\mu_\theta$ of section 2.)

# %%
def skip_back(x_t, x_0, alpha_bar_s, alpha_bar_t):
    """Return the mean, of the shape of x_t and x_0, and the variance [B]; alpha_bars are [B]."""
    ...


check("06.skip_back", skip_back)

# %% [markdown]
# **Without $x_0$** take data half in a small cloud at $-2$, half in one at $2$. For each cloud
# the law of the state before is a product of two Gaussians again, with the noised cloud in the place of
# $q(x_{t-1} \mid x_0)$; and the clouds are weighted by how likely each made $x_t$. This holds for any
# `earlier` time in the place of $t - 1$:

# %%
show_source([reverse_density, ReverseDensity.density])

# %% [markdown]
# **Choose the gap.** The state at $t = 400$ is $x_t = 0$: it may come from either cloud. Move the slider to longer and
# longer steps. Left: the exact density of the state before (the line) and the Gaussian of the same mean and variance
# (the dots), across in widths of that Gaussian. Right: 360 particles that were noised step by step, their state at $t$
# to the right, the earlier one upwards. Look at those above $x_t = 0$: one clump, then two.

# %%
two, now = torch.tensor([-2.0, 2.0], dtype=torch.float64), 400
gaps = [1, 5, 10, 30, 60, 100, 150, 200, 250, 300]
befores = {
    gap: reverse_density(0.0, now, now - gap, path=schedule, centres=two, std=0.3) for gap in gaps
}
u = torch.linspace(-3.4, 3.4, 300, dtype=torch.float64)  # in standard deviations
curves = []
for before in befores.values():
    width = before.variance() ** 0.5
    heights = before.density(before.mean() + width * u) * width * math.sqrt(2 * math.pi)
    bell = torch.stack([u[::5], (-(u[::5] ** 2) / 2).exp()], dim=1)  # the Gaussian's peak is 1
    curves.append(torch.cat([torch.stack([u, heights], dim=1), bell]))
curves = torch.stack(curves) * torch.tensor([1.0, 2.0]) - torch.tensor([0.0, 2.5])

film = [two.float().repeat_interleave(180) + 0.3 * torch.randn(360, generator=seeded(0))]
step_noise = seeded(1)
for beta in schedule.betas[: now + 1]:
    film.append((1 - beta).sqrt() * film[-1] + beta.sqrt() * torch.randn(360, generator=step_noise))
pairs = torch.stack([torch.stack([film[-1], film[-1 - gap]], dim=1) for gap in gaps])
ParticlePlayer(
    curves,
    beside=pairs,
    titles=("density of the state before", "state at t → and before ↑"),
    labels=[f"a gap of {gap}" + (" step" if gap == 1 else " steps") for gap in gaps],
    extent=(-3.5, 3.5, -3.5, 3.5),
    role="model",
    beside_role="data",
    title="The longer the step, the less it is Gaussian",
    alt="Left a bell curve on top of a dotted bell; as the gap grows it flattens and parts into two "
    "peaks. Right a narrow diagonal band of points that widens and breaks into two clumps.",
)

# %%
rows = "| gap | " + " | ".join(f"{gap}" for gap in gaps) + " |\n| ---" + " | ---:" * len(gaps) + " |\n"
rows += "| kurtosis (a Gaussian: 3; two points: 1) | "
rows += " | ".join(f"{before.kurtosis():.2f}" for before in befores.values()) + " |\n"
apart = [(b.means[1] - b.means[0]).item() / b.inner**0.5 for b in befores.values()]
rows += "| distance of the two means, in widths of a cloud's Gaussian | "
rows += " | ".join(f"{distance:.2f}" for distance in apart) + " |\n"
Markdown(rows)

# %% [markdown]
# At a gap of one step the kurtosis is a Gaussian's to two digits; at three hundred the density has
# two peaks, and no Gaussian will do. What the two clouds disagree about is a *shift* of the
# state before, and it grows like the gap. The width of the noise grows like the *root* of the gap. So the last row, their
# ratio, goes to 0 with the gap: in a short step the disagreement drowns in the noise. That is why steps must be many.
#
# **The same in a formula, for all data.** Given $x_t$ and $x_0$ the variance is $\tilde\beta_t$, and the mean
# $\tilde\mu_t$ moves with $x_0$. Variance is the mean of the variance plus the variance of the mean:
#
# $$\operatorname{Var}(x_{t-1} \mid x_t) = \tilde\beta_t + \left( \frac{a_{t-1}\, \beta_t}{b_t^2} \right)^2 \operatorname{Var}(x_0 \mid x_t) .$$
#
# The first part is of the order of $\beta_t$, the second, what not knowing $x_0$ adds, of the order of $\beta_t^2$.
#
# **Which variance, then?** Two cases in a line each:
#
# - *The data are one point*: $\operatorname{Var}(x_0 \mid x_t) = 0$, and the variance is the posterior's, $\tilde\beta_t$.
#   All other data need more.
# - *The data are standard Gaussian*: $\operatorname{Var}(x_0 \mid x_t) = b_t^2$, and the sum is
#   $\beta_t\, (b_{t-1}^2 + a_{t-1}^2 \beta_t) / b_t^2 = \beta_t$, since the bracket is $1 - a_{t-1}^2 \alpha_t = b_t^2$.
#
# These are the two fixed choices of the paper, `DDPM(..., variance="posterior")`, ours, and `"beta"`. **Check** the formula
# with the two clouds, at several states and times, and see which choice is nearer at $x_t = 0$:

# %%
worst = 0.0
table = "| t (index) | exact variance / β, at 0 | the same, at 1.3 | posterior's / β |\n"
table += "| ---: | ---: | ---: | ---: |\n"
for t in (1, 10, 100, 400, 900):
    beta = schedule.betas[t].item()
    _, (a_before, b_before), (_, b_t) = schedule.points([t - 1, t])
    ratios = {}
    for x_t in (1.3, 0.4, 0.0):
        clouds = {"path": schedule, "centres": two, "std": 0.3}
        exact = reverse_density(x_t, t, t - 1, **clouds).variance()
        of_x0 = reverse_density(x_t, t, -1, **clouds).variance()  # -1: the data
        summed = b_before**2 / b_t**2 * beta + (a_before * beta / b_t**2) ** 2 * of_x0
        worst, ratios[x_t] = max(worst, abs(exact / summed - 1)), exact / beta
    told = f"{ratios[0.0]:.3f} | {ratios[1.3]:.3f} | {b_before**2 / b_t**2:.3f}"
    table += f"| {t} | {told} |\n"
print("the variance is the sum of the two parts, within 1e-5:", worst < 1e-5)
Markdown(table)

# %% [markdown]
# From $t = 400$ on all are one, within a hundredth. Nearer to the data neither choice is right between the two clouds:
# the exact variance is even above $\beta$. By the formula that happens where $\operatorname{Var}(x_0 \mid x_t) > b_t^2$: at $x_t = 0$ either cloud is possible. Near a cloud, at 1.3, it is a little below. Those steps are so small
# that samples hardly show it (Ho et al., section 3.2, found both alike). A bound of the likelihood does (section 6).
#
# **Exercise 7: derive.** How wide is the true step back for data that are Gaussian on a line, with the
# standard deviation `std`? Find the variance of $x_{t-1}$ given $x_t$, without $x_0$. At `t = 0` the state before is the data.

# %%
def reverse_variance(t, betas, std):
    """Return the variance [B]; t [B] counts from 0, betas is [T], std a number."""
    ...


check("06.reverse_variance", reverse_variance)

# %% [markdown]
# **Exercise 8: break it on purpose, with a wrong clock.** The two clouds once more, and the perfect network, known in
# closed form. `run_clock` samples with all $T = 50$ steps of DDPM, but at step `t` it tells the network `clock(t, T)`.

# %%
for words, clock in {
    "right": lambda t, T: t,
    "backwards": lambda t, T: T - 1 - t,
}.items():
    report = run_clock(clock)
    print(f"{words:>10}: clusters at ±{report.centre:.1f}, {report.lost:.0%} of the samples lost")

# %% [markdown]
# A clock that runs backwards you would notice. One that is off by one step, because a paper counts from 1 and code from 0,
# you might not. So break it with a *small* mistake: write a clock that is wrong by at most 3 of the 50 steps, with which
# both clusters land at least 4 % too far out. Decide first, and say why in one sentence: must the network be told less
# noise than there is, or more?


# %%
def clock(t, T):
    """Return the time, 0 ... T - 1, that the network is told at step t."""
    ...


check("06.break_the_clock", clock)

# %% [markdown]
# **Without a checker:** turn your clock round, and say before you run it what `run_clock` reports. Then give it
# `T=300`: why is a mistake of one step so hard to find with 1,000?

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## 6. The second view: a VAE with T layers
#
# *You may skip this section at a first reading. It holds the bound of the likelihood, the weights that the simple loss
# drops, and which of the two variances the bound prefers.*

# %% [markdown]
# ### From the film to the bound
#
# Take chapter 02's VAE, with the whole film as its latent, $(x_1, \dots, x_T)$. The encoder is demolition,
# $q(x_1, \dots, x_T \mid x_0) = \prod_t q(x_t \mid x_{t-1})$, with nothing to learn; the prior is
# $p(x_T) = \mathcal N(0, I)$; the decoder is construction,
# $p(x_{t-1} \mid x_t) = \mathcal N(\mu_\theta(x_t, t), \sigma_t^2 I)$, step by step. As in chapter 02,
#
# $$\log p(x_0) \;\ge\; \mathbb E_q\left[ \log p(x_T) + \sum_{t=1}^T \log \frac{p(x_{t-1} \mid x_t)}{q(x_t \mid x_{t-1})} \right] = \text{ELBO}.$$
#
# **Turn the encoder round.** Numerator and denominator look in opposite directions. Demolition is **Markovian**, so
# $q(x_t \mid x_{t-1}) = q(x_t \mid x_{t-1}, x_0)$, and by Bayes' rule
#
# $$q(x_t \mid x_{t-1}, x_0) = \frac{q(x_{t-1} \mid x_t, x_0)\; q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)} \qquad (t \ge 2).$$
#
# Put that in for $t \ge 2$. The ratios $q(x_t \mid x_0) / q(x_{t-1} \mid x_0)$ multiply to
# $q(x_T \mid x_0) / q(x_1 \mid x_0)$, all others cancel; $q(x_1 \mid x_0)$ cancels against the step $t = 1$.
# What is left is, with the posterior of section 5,
#
# $$-\text{ELBO} = \underbrace{\mathrm{KL}\big(q(x_T \mid x_0)\,\|\,p(x_T)\big)}_{\text{prior}}
#   + \sum_{t=2}^T \mathbb E_q \underbrace{\mathrm{KL}\big(q(x_{t-1} \mid x_t, x_0)\,\|\,p(x_{t-1} \mid x_t)\big)}_{\text{one step back}}
#   \; \underbrace{-\, \mathbb E_q \log p(x_0 \mid x_1)}_{\text{reconstruction}} .$$

# %% [markdown]
# **The mean of the step back.** Both Gaussians in the KL have fixed variances, so the KL is
# $\|\tilde\mu_t - \mu_\theta\|^2 / (2 \sigma_t^2)$ plus a constant. As you found in exercise 6, $\mu_\theta$
# is the posterior's mean with $\hat x_0 = (x_t - b_t \varepsilon_\theta) / a_t$ in the place of
# $x_0$. Only the term with $x_0$ differs:
#
# $$\tilde\mu_t - \mu_\theta = \frac{a_{t-1} \beta_t}{b_t^2} (x_0 - \hat x_0)
#   = \frac{a_{t-1} \beta_t}{b_t^2} \cdot \frac{b_t}{a_t} (\varepsilon_\theta - \varepsilon)
#   = \frac{\beta_t}{\sqrt{\alpha_t}\, b_t} (\varepsilon_\theta - \varepsilon),$$
#
# so the KL is $w_t \|\varepsilon - \varepsilon_\theta\|^2$ plus a constant, with
#
# $$w_t = \frac{\beta_t^2}{2 \sigma_t^2\, \alpha_t\, (1 - \bar\alpha_t)} .$$
#
# **Which weights does "simple" drop?** It puts 1 in the place of $w_t$. With the posterior's variance $w_t$ is
# $\beta_t / (2 \alpha_t b_{t-1}^2)$, and that is $(e^{\Delta_t} - 1) / 2$ with $\Delta_t$ the fall of the log-SNR in step $t$:

# %%
T = 1000
beta, alpha, alpha_bar = schedule.betas, schedule.alphas, schedule.alpha_bars
before = torch.cat([torch.ones(1), alpha_bar[:-1]])  # of the step before: 1 for the data
weights = {
    name: beta**2 / (2 * variance * alpha * (1 - alpha_bar))
    for name, variance in (
        ("σ² = β", beta),
        ("σ² = posterior variance", (1 - before) / (1 - alpha_bar) * beta),
    )
}
log_snr = schedule.log_snr(torch.arange(T, dtype=torch.float64))
falls = log_snr[:-1] - log_snr[1:]  # in each step but the first
by_fall = (falls.exp() - 1) / 2
gap = (weights["σ² = posterior variance"][1:] / by_fall - 1).abs().max().item()
print("the weight is told by the fall of the log-SNR alone, within 1 %:", gap < 0.01)
figure = Figure(figsize=(5.6, 3))
axes = figure.subplots()
for (name, weight), colour in zip(weights.items(), ("data", "model")):
    axes.loglog(torch.arange(2, T + 1), weight[1:], color=PALETTE[colour], label=name)
axes.axhline(1, color=PALETTE["noise"], ls="--", label="simple")
axes.set(
    title="The ELBO's weight of the noise's error", xlabel="step t of the formulas", ylabel="w"
)
axes.legend(frameon=False)
figure.tight_layout()
show_figure(
    figure,
    alt="In double logarithmic scale the weights fall from 0.6 and 0.3 at step 2 to less than a "
    "hundredth, and rise a little at the end. A dashed line at 1 is far above them nearly everywhere.",
)

# %% [markdown]
# The bound cares most for the first steps, where hardly any noise is on the image: there sit the last grey
# levels of every pixel, which cost bits and which the eye doesn't see. With equal weights the network spends its
# strength on the steps where the image is made; the samples get better and the bound gets a little worse (Ho et al.,
# table 1, rows $L$ and $L_{simple}$ of *fixed isotropic* variance).
#
# **Which variance does the bound prefer?** If the data are smooth on the small scale of the first steps, as a Gaussian's
# are, the true step back is as wide as $\beta$, and a narrower one pays for it. Where the data are certain on that
# scale, as the black pixels of MNIST are, the posterior's variance is right. The tables at the end have both.
#
# **Check the bound.** For Gaussian data we know the best network and the exact $\log p$. The ELBO must lie below
# it, and come nearer with more and smaller steps. (It is estimated with one draw of the noise for each of 2,000 points.)


# %%
def gap_to_exact(T, variance):
    """How far the ELBO of the ideal model lies below the exact log p, in nats, and its noise."""
    schedule = DiscreteSchedule.linear(T)
    mean = torch.tensor([[0.5, -1.0]])
    model = DDPM(IdealDenoiser(mean, schedule, std=0.7), schedule, variance=variance).double()
    x = mean + 0.7 * torch.randn(2000, 2, generator=seeded(0)).double()
    exact = torch.distributions.Normal(mean.double(), 0.7).log_prob(x).sum(1)
    gap = exact - model.elbo(x, generator=seeded(1))
    return gap.mean().item(), gap.std().item() / len(x) ** 0.5


steps = (25, 100, 400)
gaps = {
    (T, variance): gap_to_exact(T, variance) for T in steps for variance in ("posterior", "beta")
}
print("no bound lies above, but for noise:", all(gap > -3 * noise for gap, noise in gaps.values()))
rows = "| log p − ELBO (nats) | T = 25 | T = 100 | T = 400 |\n| --- | ---: | ---: | ---: |\n"
for variance in ("posterior", "beta"):
    cells = " | ".join("{:.2f} ± {:.2f}".format(*gaps[T, variance]) for T in steps)
    rows += f"| variance `{variance}` | {cells} |\n"
Markdown(rows)

# %% [markdown]
# With the posterior's variance the gap falls with $T$. With $\beta$ it is below the noise of the estimate already at $T = 25$: for data that are smooth that is nearly the true width.

# %% [markdown]
# ## 7. Schedules: linear against cosine
#
# The *linear* schedule of the DDPM paper lets $\beta$ rise from $10^{-4}$ to $0.02$ (both times $1000 / T$ for another $T$). The *cosine* schedule of
# Nichol and Dhariwal starts from the other end: it asks $\bar\alpha$ to fall like a squared cosine,
#
# $$\bar\alpha_t = \frac{h(t)}{h(0)}, \qquad h(t) = \cos^2\!\left(\frac{t/T + s}{1 + s} \cdot \frac\pi2\right), \qquad s = 0.008,$$
#
# and takes the $\beta_t$ that do it, none above 0.999. What does that change? A schedule is a curve of the log-SNR over
# time. In sampling it says where the steps are spent. In training the times are drawn evenly, so it also says how often
# each noise level is trained.

# %% jupyter={"source_hidden": true}
T = 1000
t = torch.arange(T)
figure = Figure(figsize=(9, 3))
left, right = figure.subplots(1, 2)
for name, kind, colour in (
    ("linear", DiscreteSchedule.linear(T), "data"),
    ("cosine", DiscreteSchedule.cosine(T), "model"),
):
    left.plot(t, kind.alpha_bars, color=PALETTE[colour], label=name)
    right.plot(t, kind.log_snr(t), color=PALETTE[colour], label=name)
left.set(title="What is left of the data's variance", xlabel="time t (index)", ylabel="ᾱ")
right.set(title="The log-SNR", xlabel="time t (index)", ylabel="log ᾱ / (1 − ᾱ)", ylim=(-14, 10))
right.axhspan(-4, 4, color=PALETTE["noise"], alpha=0.15, lw=0)
left.legend(frameon=False)
figure.tight_layout()
show_figure(
    figure,
    alt="Two curves over the time. The linear schedule's remaining variance falls to nearly 0 two "
    "thirds through, the cosine's in an even S. In log-SNR the cosine stays longer in a grey band "
    "around 0.",
)

# %%
busy = {
    kind: ((schedule_.log_snr(t).abs() < 4).float().mean().item())
    for kind, schedule_ in (
        ("linear", DiscreteSchedule.linear(T)),
        ("cosine", DiscreteSchedule.cosine(T)),
    )
}
for kind, share in busy.items():
    print(f"{kind}: {share:.0%} of the steps lie where |log-SNR| < 4")

# %% [markdown]
# The grey band is where neither the data nor the noise is drowned. Above it nearly nothing has happened yet,
# below it nearly nothing is left. The cosine schedule spends more of its steps inside, the linear one more of
# them where the image is gone.
#
# **Where do the nats of the bound lie?** Of our two digit models the cosine one makes
# the better samples (table at the end) and has the *worse* bound. `elbo_terms` gives every step's part of the bound, so
# one plot can tell why. Read it from the left, from noise to data: how many nats have been paid up to a log-SNR.

# %% jupyter={"source_hidden": true}
digits_cosine = load_pretrained("ddpm_digits_cosine")
some = to_signed(load_digits("test")[0][::40])
bounds = {}
for name, bounded, clip in (
    ("linear", digits_ddpm, None),
    ("cosine", digits_cosine, None),
    ("cosine, guesses clipped", digits_cosine, 1.0),
):
    with torch.no_grad():
        terms = bounded.elbo_terms(some, levels=17, clip=clip, generator=seeded(1)).mean(1)
    bounds[name] = bounded.schedule.log_snr(torch.arange(400)), terms[:400]  # [400], the prior is 0
figure = Figure(figsize=(6.4, 3.2))
axes = figure.subplots()
for (name, (snr, terms)), role, style in zip(
    bounds.items(), ("data", "model", "model"), ("-", "-", ":")
):
    axes.plot(snr.flip(0), terms.flip(0).cumsum(0), style, color=PALETTE[role], label=name)
axes.set(title="Nats paid so far, from noise to data", xlabel="log-SNR", ylabel="nats", xlim=(-9, 10))
axes.legend(frameon=False)
figure.tight_layout()
show_figure(
    figure,
    alt="Three curves that rise ever more steeply. The cosine's starts some ten nats higher than the "
    "other two, and both cosine curves go on to a larger log-SNR than the linear one.",
)

# %%
ranges = {"below 0": (-99, 0), "0 to 3": (0, 3), "3 to 6": (3, 6), "above 6": (6, 99)}
table = "| nats (steps) where the log-SNR is | " + " | ".join([*ranges, "all"])
table += " | first log-SNR | reconstruction |\n| ---" + " | ---:" * 7 + " |\n"
for name, (snr, terms) in bounds.items():
    inside = [(snr >= low) & (snr < high) for low, high in ranges.values()]
    cells = [f"{terms[where].sum():.0f} ({where.sum()})" for where in inside]
    cells += [f"{terms.sum():.0f} (400)", f"{snr[0]:.1f}", f"{terms[0]:.1f}"]
    table += f"| {name} | " + " | ".join(cells) + " |\n"
eps = torch.randn(some.shape, generator=seeded(2))
for name, bounded in (("linear", digits_ddpm), ("cosine", digits_cosine)):
    with torch.no_grad():
        guess = bounded.predict(bounded.schedule.noised(some, 1, eps), 1)
    print(f"{name}: mean square error of the noise at t = 1: {(guess - eps).square().mean():.1f}")
Markdown(table)

# %% [markdown]
# Two things make the cosine's bound worse:
#
# - **At the noise end**, before the plot begins, it pays nats for nothing. There $a_t$ is nearly 0, and
#   $\hat x_0 = (x_t - b_t \varepsilon_\theta) / a_t$ multiplies the network's error. Clip the guess, as sampling does, and
#   as the paper's own evaluation does (`clip_denoised=True` in its code), and the surplus is gone.
# - **Near the data** it goes on to fainter noise: compare the first log-SNRs. There the guesses are poor. Noise has a mean
#   square of 1, and of that both networks miss half (the printed errors). Where steps are short, $w_t \approx \Delta_t / 2$, so that the 64 numbers of
#   an image pay $64 \cdot 0.5 / 2 = 16$ nats for each unit of log-SNR; the steps nearest to the data are long (their $\Delta_t$ is 0.8 to 0.9), and there $w_t = (e^{\Delta_t} - 1) / 2$ is more. All that this buys is a reconstruction that costs
#   nothing, in place of next to nothing. (A perfect network would pay nothing: grey levels are many noise widths apart.)
#
# The table also shows what a bound is much about: more than a third of all nats is paid in the few steps above a
# log-SNR of 6, over noise so faint that no eye sees it. (Ho et al., section 4.3: more than half of their code's length
# describes what can't be seen.)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## 8. Where it comes from: Brownian motion
#
# *You may skip this section. It derives the diffusion equation, solves it, and shows that shrinking is only a zoom.*

# %% [markdown]
# ### The diffusion equation
#
# A grain of dust in water is hit from all sides. In a short time $\tau$ it moves by a random amount $\delta$ with mean 0 and variance $2 D \tau$, whatever it did before ($D$ says how fast). Let
# $\rho(x, t)$ be the density of many such grains on a line. A grain that is at $x$ at time $t + \tau$ was at $x - \delta$
# before, so with $\varphi$ the density of $\delta$
#
# $$\rho(x, t + \tau) = \int \rho(x - \delta, t)\, \varphi(\delta)\, \mathrm d\delta.$$
#
# Expand $\rho(x - \delta, t) = \rho - \delta\, \partial_x \rho + \tfrac12 \delta^2\, \partial_x^2 \rho - \dots$ under the
# integral. The first term gives $\rho$ itself, the second nothing because $\delta$ has mean 0, the third
# $\tfrac12 \cdot 2 D \tau\, \partial_x^2 \rho$. Divide by $\tau$ and let it go to 0:
#
# $$\frac{\partial \rho}{\partial t} = D\, \frac{\partial^2 \rho}{\partial x^2},$$
#
# the **diffusion equation**, or **heat equation** (Einstein 1905): peaks sink, valleys fill.
#
# **Its solution.** Variances add, and a sum of many independent moves is Gaussian, so after time $t$ the grain is at
# $x_0 + \sqrt{2 D t}\; \varepsilon$. The density is the first one, smeared with a Gaussian of variance $2 D t$.
# **Check it**: smear two peaks in closed form, and compare with the equation solved step by step on a grid.

# %%
def two_peaks(x, variance):
    """The density of N(-1, 0.09) and N(1.2, 0.09) in equal parts, after smearing by a variance."""
    total = 0.09 + variance
    bells = [torch.exp(-((x - m) ** 2) / (2 * total)) for m in (-1.0, 1.2)]
    return (bells[0] + bells[1]) / (2 * math.sqrt(2 * math.pi * total))


x = torch.linspace(-8, 8, 1601, dtype=torch.float64)
step, tau = 0.01, 0.00004  # the grid's spacing, and a time step short enough for it
p = two_peaks(x, 0.0)
for _ in range(12_500):  # until t = 0.5, with D = 1
    p[1:-1] += tau * (p[2:] - 2 * p[1:-1] + p[:-2]) / step**2
error = (p - two_peaks(x, 2 * 0.5)).abs().max() / p.max()
print("the grid and the closed form agree within 0.1 %:", error.item() < 1e-3)

# %% [markdown]
# **Why shrink as well.** Brownian motion grows for ever. So demolition pulls every grain towards 0 as well, just
# strongly enough to keep a variance of 1.
#
# **See both**, on a cloud in the shape of a knot, with the same noise relative to its size. Press play; turn it with the
# mouse.

# %%
def knot(n, generator):
    """Points [n, 3] around a trefoil knot, of variance about 1 along each axis."""
    u = 2 * math.pi * torch.rand(n, generator=generator)
    x = u.sin() + 2 * (2 * u).sin()
    y = u.cos() - 2 * (2 * u).cos()
    points = torch.stack([x, y, -2 * (3 * u).sin()], dim=1) / 1.55
    return points + 0.05 * torch.randn(points.shape, generator=generator)


cloud = knot(1200, seeded(0))
noise = torch.randn(cloud.shape, generator=seeded(1))
times = [0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 999]
shrinking = torch.stack([schedule.noised(cloud, t, noise) for t in times])
PointCloud(
    shrinking,
    color=cloud[:, 2],
    color_label="height in the knot",
    labels=[f"after {t + 1} noising steps" for t in times],
    title="A knot dissolves: noise, and a pull towards the middle",
    alt="A knotted tube of points in three dimensions dissolves into a round cloud of the same size.",
)

# %%
a, b = (schedule.a(torch.tensor(times)), schedule.b(torch.tensor(times)))
growing = torch.stack([cloud + b_t / a_t * noise for a_t, b_t in zip(a[:11], b[:11])])
PointCloud(
    growing,
    color=cloud[:, 2],
    color_label="height in the knot",
    labels=[f"noise of standard deviation {b_t / a_t:.2f}" for a_t, b_t in zip(a[:11], b[:11])],
    title="The same knot in pure Brownian motion: it only grows",
    alt="The same knot dissolves into a round cloud that grows until it fills the box.",
)

# %% [markdown]
# Apart from a zoom both films show the same: divide $x_t = a_t x_0 + b_t \varepsilon$ by $a_t$, and you have
# $x_0 + (b_t / a_t)\, \varepsilon$, Brownian motion. All that matters for how much of the data is left is the
# ratio $a_t / b_t$. Chapters 08 and 10 build on that.

# %% [markdown]
# ## 9. Five words for one prediction
#
# $x_t = a x_0 + b \varepsilon$ is one equation for two unknowns. Any second equation $c\, x_0 + d\, \varepsilon =
# \text{value}$ settles both, if $a d - b c$ is not 0. So a network may predict any such mixture:
#
# | name | $c$ | $d$ | met in |
# | --- | --- | --- | --- |
# | `eps` | $0$ | $1$ | here |
# | `x0` | $1$ | $0$ | here |
# | `v` | $-b$ | $a$ | distillation (Salimans and Ho 2022) |
# | `score` | $0$ | $-1/b$ | chapter 08 |
# | `velocity` | $\mathrm da/\mathrm dt$ | $\mathrm db/\mathrm dt$ | chapters 09 and 13 |
#
# The *score* is the gradient of the log-density of $x_t$. Why is it $-\varepsilon/b$ on average? For one $x_0$,
# $\log q(x_t \mid x_0) = -\|x_t - a x_0\|^2 / (2 b^2) + \dots$, whose gradient is $-(x_t - a x_0)/b^2 =
# -\varepsilon / b$. And $\nabla \log q(x_t) = \int \nabla q(x_t \mid x_0)\, q(x_0)\, \mathrm dx_0 / q(x_t) =
# \mathbb E[\nabla \log q(x_t \mid x_0) \mid x_t]$.
#
# The library converts in one place, for every path. It solves the two equations by Cramer's rule,
# $x_0 = (d\, x_t - b \cdot \text{value}) / (a d - b c)$ and $\varepsilon = (a \cdot \text{value} - c\, x_t) / (a d - b c)$.
# Put into the wanted mixture $e\, x_0 + f \varepsilon$ and sorted, that is its last line:
#
# $$e\, x_0 + f \varepsilon = \frac{e d - f c}{a d - b c}\, x_t + \frac{f a - e b}{a d - b c} \cdot \text{value} .$$

# %%
show_source(convert)

# %% [markdown]
# **Check it**: all pairs there and back; and the score of the ideal model against automatic differentiation of
# the exact log-density of $x_t$.

# %%
x0, eps = torch.randn(2, 50, 3, generator=seeded(0), dtype=torch.float64)
t = torch.randint(1000, (50,), generator=seeded(1))
x_t = schedule.noised(x0, t, eps)
worst = 0.0
for source in PREDICTIONS:
    value = combine(source, x0, eps, t, schedule)
    for target in PREDICTIONS:
        answer = convert(value, source=source, target=target, x_t=x_t, t=t, path=schedule)
        truth = combine(target, x0, eps, t, schedule)
        worst = max(worst, ((answer - truth).abs() / (1 + truth.abs())).max().item())
print("all 25 conversions, within 1e-6:", worst < 1e-6)

y = torch.randn(100, 2, generator=seeded(2), dtype=torch.float64).requires_grad_()
a_t, b_t = (f(torch.tensor(300.0, dtype=torch.float64)) for f in (schedule.a, schedule.b))
clouds = ((y[:, None] - a_t * centres) ** 2).sum(2) / (2 * (a_t**2 * 0.2**2 + b_t**2))
(exact_score,) = torch.autograd.grad(torch.logsumexp(-clouds, dim=1).sum(), y)
said = model.predict(y.detach(), 300, target="score")
print("the ideal network's score, within 1e-6:", (said - exact_score).abs().max().item() < 1e-6)

# %% [markdown]
# ## 10. MNIST, by class
#
# The U-Net of `ddpm_mnist` is told the class as well: a learned vector for each class, added to the embedded
# time. Nothing else changes. (Chapter 11 makes the class count for more than it does by itself.)

# %%
by_class = ddim_sample(
    mnist_ddpm,
    (30, 1, 28, 28),
    steps=30,
    eta=1.0,
    y=torch.arange(10).repeat(3),
    clip=1.0,
    generator=seeded(7),
)
*_, by_class = by_class
show_figure(
    image_grid(to_unit(by_class), columns=10, size=0.8),
    alt="Three rows of ten handwritten digits, in each row one of every class from 0 to 9.",
)

# %% [markdown]
# ## How good is it?
#
# The eye is a poor judge of a thousand images. The usual measure of samples is a **Fréchet distance**: take the last
# hidden layer of a classifier (here 32 numbers), fit a Gaussian to these features of the samples and one to those of
# real images, and measure the distance of the two Gaussians,
#
# $$\|\mu_1 - \mu_2\|^2 + \operatorname{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right).$$
#
# With Google's Inception network it is the FID of the papers. Ours uses a small classifier trained on the same
# data (`classifier_digits`, `classifier_mnist`), so its numbers can be compared with each other *within a
# column*, never with an FID. The floor is 1,000 training images against the test images, the
# mean of ten draws, and by how much one draw differs from another. Every other row is 1,000 samples.

# %% jupyter={"source_hidden": true}
FD = "feature distance, 1,000 samples"
FLOOR = "feature distance, 1,000 training images"
rows = {
    "real training images: the floor": ("classifier_{}", FLOOR),
    "VAE, chapter 02 (trained on black and white)": ("vae_{}", FD),
    "NICE, chapter 04": ("nice_{}", FD),
    "RealNVP, chapter 05": ("realnvp_{}", FD),
    "Glow, chapter 05": ("glow_{}", FD),
}
table = "| 1,000 images against the test images | digits | MNIST |\n| --- | ---: | ---: |\n"
for words, (name, key) in rows.items():
    both = [load_card(name.format(data))["metrics"][key] for data in ("digits", "mnist")]
    if "floor" in words:
        chance = [
            load_card(name.format(data))["metrics"][f"{key}, spread"]
            for data in ("digits", "mnist")
        ]
        table += (
            f"| {words} | {both[0]:.1f} ± {chance[0]:.1f} | {both[1]:.1f} ± {chance[1]:.1f} |\n"
        )
    else:
        table += f"| {words} | {both[0]:.1f} | {both[1]:.1f} |\n"
ours = {
    name: load_card(name)["metrics"] for name in ("ddpm_digits", "ddpm_digits_cosine", "ddpm_mnist")
}
distances = {
    (name, row["steps"], row["eta"]): f"{row['distance']:.1f}"
    for name, metrics in ours.items()
    for row in metrics["samplers"]
}
table += f"| **our DDPM**, linear, 50 of 400 steps without fresh noise (chapter 07) | {distances['ddpm_digits', 50, 0]} | |\n"
table += f"| **our DDPM**, linear, all 400 steps | {distances['ddpm_digits', 400, 1]} | |\n"
table += f"| **our DDPM**, cosine, all 400 steps | {distances['ddpm_digits_cosine', 400, 1]} | |\n"
table += f"| **our DDPM**, linear, 250 of the 1,000 steps | | {distances['ddpm_mnist', 250, 1]} |\n"
Markdown(table)

# %%
table = "| bits per dimension | digits (17 levels) | MNIST (256 levels) | CIFAR-10 |\n| --- | ---: | ---: | ---: |\n"
for digits, mnist in zip(ours["ddpm_digits"]["bounds"], ours["ddpm_mnist"]["bounds"]):
    both = f"{digits['bits per dimension']:.2f} | {mnist['bits per dimension']:.2f}"
    table += f"| **our DDPM**, at most, variance `{digits['variance']}` | {both} | |\n"
glow_bits = [
    load_card(f"glow_{data}")["metrics"]["bits per dimension"] for data in ("digits", "mnist")
]
table += f"| our Glow | {glow_bits[0]:.2f} | {glow_bits[1]:.2f} | |\n"
table += "| Ho et al. 2020, table 1, row $L_{simple}$, at most (its FID: 3.17) | | | 3.75 |\n"
for name in ("ddpm_digits", "ddpm_mnist"):
    card = load_card(name)
    print(f"{name}: {card['parameters'] / 1e6:.1f} million parameters, {card['steps']:,} steps of training")
Markdown(table)

# %% jupyter={"source_hidden": true}
toys = "| toy, nats | ELBO, variance `posterior` "
toys += "| ELBO, variance `beta` | RealNVP, log p | the data's own density |\n"
toys += "| --- | ---: | ---: | ---: | ---: |\n"
for name in ("two_moons", "pinwheel"):
    points = toy(name, 50_000, generator=seeded(1))
    best = toy_log_prob(name, points).mean().item()
    elbos = {
        row["variance"]: -row["negative ELBO (nats)"]
        for row in load_card(f"ddpm_{name}")["metrics"]["bounds"]
    }
    flow_nats = load_card(f"realnvp_{name}")["metrics"]["test log-likelihood (nats)"]
    cells = [elbos["posterior"], elbos["beta"], flow_nats, best]
    toys += f"| {name.replace('_', ' ')} | " + " | ".join(f"{x:.2f}" for x in cells) + " |\n"
Markdown(toys)

# %% [markdown]
# How to read it:
#
# - **Nearest to real digits**, on both data sets, and on MNIST by far. There a thousand samples are as near to
#   the test images as training images are, so this measure can't tell them apart. The
#   eye can: count the characters in the grid above that are no digit. (The MNIST model has it
#   easier: it is given the class, a hundred of each.)
# - **Cosine against linear.** With the same network and training the cosine schedule makes the better digits, and
#   has the worse bound (section 7). Nichol and Dhariwal found the opposite on CIFAR-10, twice: 3.37 bits and an FID of 2.90
#   with the linear, 3.26 bits and 3.05 with the cosine schedule (their table 2, rows $L_{simple}$, $T = 4{,}000$). What
#   differs: photographs of 256 levels, a far larger network, ten times as many noising steps, and clipped guesses. One seed each.
# - **The likelihood is not the eye, once more.** Glow needs far fewer bits than our DDPM, and its samples are
#   farther from real digits. The loss gives the details that cost bits hardly any weight (section 6).
# - **Which variance is better for the bound** depends on the data, and on the network. On the toys, which are smooth, $\beta$ is
#   better by more than a nat, on MNIST the posterior's is (section 6 said why). On the digits $\beta$ is, although their grey
#   levels are far apart for the first steps: there the network is wrong by half of the noise (section 7), and under a wider
#   Gaussian an error costs less. That is why Nichol and Dhariwal learn it.
# - **Not to be compared with ours** are the published numbers: photographs of 32×32 pixels in colour, a
#   network of 35.7 million parameters (Ho et al., appendix B). And the VAE draws the mean of each black and white pixel: a
#   part of its distance is a difference in kind.
#
# ## What to take away
#
# - Noise can be added in one go to any level: $x_t = a_t x_0 + b_t \varepsilon$. Training needs no film.
# - The network is asked for an average, $\mathbb E[\varepsilon \mid x_t]$: a plain regression.
# - A short step back is nearly Gaussian, whatever the data are; a long one is not. That is what the many steps pay for.
# - The step back is the posterior with a guess in the place of the data. Regression and the ELBO
#   end in the same step; the second adds a bound of the likelihood.
# - A schedule is a curve of the log-SNR over time. It says where steps are spent, in sampling and in training.
# - `eps`, `x0`, `v`, `score` and `velocity` are the same prediction in other words.
#
# **What does not work well.** A sample takes as many calls of the network as there are steps. The chain has no exact
# likelihood, only a bound (the same network does have one, by the ODE of chapters 07 and 09), and the loss that makes
# good samples makes a poor bound. And an image has no latent to speak of: its noise is spread over all steps.
#
# **What came after.**
#
# - *Why the schedule hardly matters for the bound*: with infinitely many steps it depends on the log-SNR at both ends alone
#   (Kingma et al. 2021, [Variational diffusion models](https://arxiv.org/abs/2107.00630)).
# - *Better pictures than GANs*, by larger U-Nets, learned variances and guidance (Dhariwal, Nichol 2021,
#   [Diffusion models beat GANs](https://arxiv.org/abs/2105.05233)); chapter 11.
# - *Large images*, by diffusion in the code of an autoencoder (Rombach et al. 2022,
#   [Latent diffusion](https://arxiv.org/abs/2112.10752)); chapters 12 and 14.
#
# **Next, chapter 07:** the loss only knows $q(x_t \mid x_0)$. So the same trained network serves a whole family
# of ways back, some of which skip most steps and draw no noise at all.

# %% [markdown]
# [← 05 · RealNVP and Glow](05_realnvp_glow.ipynb) | [Contents](../README.md#chapters) | [07 · DDIM →](07_ddim.ipynb)
