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
# # 06 · DDPM
#
# **Dissolve data in noise, a little at a time, and learn to take every step back: what comes out of pure noise
# in the end is new data.**
#
# | | |
# | --- | --- |
# | You need | Gaussians and their sums; the ELBO of chapter 02; convolutions |
# | Time | 20 minutes to read, an hour with the exercises |
# | You will meet | diffusion, noise schedules, the posterior, three views of one loss, log-SNR, the U-Net |
# | Papers | Ho, Jain, Abbeel 2020, [DDPM](https://arxiv.org/abs/2006.11239); Sohl-Dickstein et al. 2015, [the first diffusion model](https://arxiv.org/abs/1503.03585); Nichol, Dhariwal 2021, [the cosine schedule](https://arxiv.org/abs/2102.09672) |
# | Source articles | 拆楼建楼; 扩散模型的物理背景 (in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter), then press play. A model trained on MNIST starts from noise and takes
# some of it away in every step. The upper row is the state; the lower row is what the model believes, at that
# moment, the finished digit to be.

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
# - **The guess is a blur first** (but for the very first one, which is speckled; section *Sample it* says why).
#   From noise alone no digit can be told, and the best guess is the average of all that it might become. As the
#   state clears, fewer digits remain possible and the average sharpens.
# - **What is large is settled early, what is small late.** First the place and slant of the strokes, in the
#   last steps only their edges.
# - **Nothing is decided in one step.** Each step only removes a little noise, and adds a little fresh noise. A
#   network that could draw a digit in one go would have to be a flow or a decoder; here it must only be able to
#   *denoise*.

# %% [markdown]
# ## The idea
#
# To tear a house down is easy: take away a brick at a time. Film it, and play the film backwards: that is how
# a house is built, a brick at a time. The source article calls it *demolition and construction*. Data are the
# house, standard Gaussian noise is the heap of bricks. Demolition needs no learning. Construction is learned
# from the film: given the state after step $t$, what was the state before?
#
# This chapter derives the model three times. First as physics, to see why everything ends as a Gaussian. Then
# as demolition and construction, which needs nothing but sums of Gaussians and a squared error. Then as a VAE
# with $T$ layers, which says that the same loss bounds a likelihood.
#
# | symbol | meaning |
# | --- | --- |
# | $x_0$ | data |
# | $x_t$ | the state after $t$ noising steps, $t = 1, \dots, T$ |
# | $\beta_t$, $\alpha_t = 1 - \beta_t$ | the variance of the noise that step $t$ adds; what it leaves |
# | $\bar\alpha_t = \alpha_1 \alpha_2 \cdots \alpha_t$ | what all steps so far leave |
# | $a_t = \sqrt{\bar\alpha_t}$, $b_t = \sqrt{1 - \bar\alpha_t}$ | the amounts of data and noise in $x_t = a_t x_0 + b_t \varepsilon$ |
# | $\varepsilon$ | standard Gaussian noise, of the shape of the data |
# | $\varepsilon_\theta(x_t, t)$ | a network's guess of $\varepsilon$ |
# | $\log(a_t^2 / b_t^2)$ | the log-SNR: the logarithm of the signal-to-noise ratio |
#
# > **Counting.** Formulas count steps as the papers do, $t = 1, \dots, T$, so that $x_0$ can be the data.
# > Arrays count from 0. In the library a time `t` is the *index* into `betas`, `alphas` and `alpha_bars`: the
# > first noising step is `t = 0`, the last is `t = T - 1`, and the formula's $\bar\alpha_t$ is
# > `alpha_bars[t - 1]`. To be off by one here is the most common mistake of all; an exercise makes it on purpose.

# %% [markdown]
# ## 1. Physics: why everything dissolves into a Gaussian
#
# **Brownian motion.** A grain of dust in water is hit by molecules from all sides. In a short time $\tau$ it
# moves by a random amount $\delta$ with mean 0 and variance $2 D \tau$, whatever it did before. Let $p(x, t)$
# be the density of many such grains on a line. A grain that is at $x$ at time $t + \tau$ was at $x - \delta$
# before, so with $\varphi$ the density of $\delta$
#
# $$p(x, t + \tau) = \int p(x - \delta, t)\, \varphi(\delta)\, \mathrm d\delta.$$
#
# Expand $p(x - \delta, t) = p - \delta\, \partial_x p + \tfrac12 \delta^2\, \partial_x^2 p - \dots$ under the
# integral. The first term gives $p$ itself, the second nothing because $\delta$ has mean 0, the third
# $\tfrac12 \cdot 2 D \tau\, \partial_x^2 p$. Divide by $\tau$ and let it go to 0:
#
# $$\frac{\partial p}{\partial t} = D\, \frac{\partial^2 p}{\partial x^2},$$
#
# the **diffusion equation** (Einstein 1905). It says that density flows from where there is more than around
# to where there is less: peaks sink, valleys fill.
#
# **Its solution.** The grain's position is a sum of independent small moves, so after time $t$ it is
# $x_0 + \sqrt{2 D t}\; \varepsilon$ with $\varepsilon$ standard Gaussian: variances add, and a sum of many
# independent moves is Gaussian. The density is the first one, smeared with a Gaussian of variance $2 D t$.
# **Check it**: take two peaks, smear them in closed form, and compare with the equation solved step by step on
# a grid.

# %%
import math

from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.data import load_digits, to_signed, toy, toy_log_prob
from course_lib.diffusion import (
    PREDICTIONS,
    GaussianPath,
    IdealDenoiser,
    combine,
    convert,
    ddpm_sample,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.experiments import run_clock
from course_lib.nn import TimeMLP, UNet
from course_lib.widgets import PALETTE, image_grid, show_figure


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
# **Why shrink as well.** Brownian motion has an ugly end: the cloud grows for ever, and how wide it is at time
# $t$ depends on $t$ *and* on the data. We want an end that is the same for all data, so that there is something
# to start from when we go back. So pull every grain towards 0 while it is pushed about, just as strongly as
# keeps a variance of 1: multiply by $\sqrt{1 - \beta}$, add noise of variance $\beta$, and a variance $v$
# becomes $(1 - \beta) v + \beta$. Where $v = 1$ it stays 1; any other $v$ comes nearer to 1 by the factor
# $1 - \beta$.
#
# **See both**, on a cloud in the shape of a knot. Turn it with the mouse. The two clouds get the same amount of
# noise relative to their size; press play in each.


# %%
def knot(n, generator):
    """Points [n, 3] around a trefoil knot, of variance about 1 along each axis."""
    u = 2 * math.pi * torch.rand(n, generator=generator)
    x = u.sin() + 2 * (2 * u).sin()
    y = u.cos() - 2 * (2 * u).cos()
    points = torch.stack([x, y, -2 * (3 * u).sin()], dim=1) / 1.55
    return points + 0.05 * torch.randn(points.shape, generator=generator)


schedule = DiscreteSchedule.linear(1000)
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
# ratio $a_t / b_t$. Chapters 08 and 10 live from that.

# %% [markdown]
# ## 2. Demolition
#
# One step of demolition is
#
# $$x_t = \sqrt{\alpha_t}\, x_{t-1} + \sqrt{\beta_t}\, \varepsilon_t, \qquad \alpha_t + \beta_t = 1,$$
#
# with fresh noise in every step. **All steps at once.** Insert $x_{t-1}$ into $x_t$:
#
# $$x_t = \sqrt{\alpha_t \alpha_{t-1}}\, x_{t-2} + \underbrace{\sqrt{\alpha_t \beta_{t-1}}\, \varepsilon_{t-1} + \sqrt{\beta_t}\, \varepsilon_t}_{\text{variance } \alpha_t \beta_{t-1} + \beta_t}.$$
#
# The sum of two independent Gaussians is a Gaussian whose variance is the sum,
# $\alpha_t (1 - \alpha_{t-1}) + 1 - \alpha_t = 1 - \alpha_t \alpha_{t-1}$. So the two steps are one, with
# $\alpha_t \alpha_{t-1}$ in the place of $\alpha_t$. Go on like this down to the data:
#
# $$x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\; \varepsilon = a_t x_0 + b_t \varepsilon .$$
#
# You never have to walk through the film: every frame can be made directly. That is what makes training
# possible.

# %%
show_source([DiscreteSchedule.a, DiscreteSchedule.b, GaussianPath.noised])

# %% [markdown]
# **Check it**: push Gaussian data of variance 0.3 through 1,000 single steps, exactly, by what each does to a
# mean and a variance, and compare with the closed form at every step.

# %%
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
# 0.0001 to 0.02. Half of the steps are done. What share of the *variance* of $x_{500}$ still comes from the
# data? Write a number from 0 to 1 in place of the dots, before you compute anything.

# %%
prediction = ...

check("06.predict_halfway", prediction)

# %% [markdown]
# **Dissolve it yourself.** Scrub through the time, and watch the log-SNR. Choose a schedule, or drag the handles
# of your own. Two questions: in which part of the film does the digit disappear *for you*? And what happens to
# the film when you make the curve fall early?

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
# ### Linear against cosine
#
# The *linear* schedule of the DDPM paper lets $\beta$ rise from $10^{-4}$ to $0.02$. The *cosine* schedule of
# Nichol and Dhariwal starts from the other end: it asks $\bar\alpha$ to fall like a squared cosine,
#
# $$\bar\alpha_t = \frac{f(t)}{f(0)}, \qquad f(t) = \cos^2\!\left(\frac{t/T + s}{1 + s} \cdot \frac\pi2\right), \qquad s = 0.008,$$
#
# and takes the $\beta_t$ that do it, none above 0.999. What does that change? The only thing there is to change
# is at which times the log-SNR takes which values.

# %%
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
# below it nearly nothing is left. The cosine schedule spends most of its steps inside, the linear one more of
# them where the image is gone. What that is worth you can see at the end of the chapter, where both are measured.
# (It matters more for small images. A large image repeats itself in neighbouring
# pixels, so it survives more noise, and its own band lies lower.)

# %% [markdown]
# ## 3. Construction
#
# Now the film backwards, with nothing but squared errors. We know $x_t$ and want $x_{t-1}$. Solve the step of
# demolition for it:
#
# $$x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \left( x_t - \sqrt{\beta_t}\; \varepsilon_t \right).$$
#
# Everything is known but the noise $\varepsilon_t$ of this very step. So let a network $f(x_t, t)$ guess it, and
# ask that the step back be right on average:
#
# $$\left\| x_{t-1} - \frac{1}{\sqrt{\alpha_t}} \left( x_t - \sqrt{\beta_t}\, f(x_t, t) \right) \right\|^2
#   = \frac{\beta_t}{\alpha_t} \left\| \varepsilon_t - f(x_t, t) \right\|^2 .$$
#
# **Which noise?** To train $f$ we need pairs of $x_t$ and $\varepsilon_t$. By the closed form
# $x_t = a_t x_0 + b_t \varepsilon$ with a noise $\varepsilon$ that gathers all steps so far. How much of it is
# $\varepsilon_t$? With $\bar\varepsilon$ the gathered noise up to $t - 1$,
#
# $$b_t\, \varepsilon = \sqrt{\alpha_t}\, b_{t-1}\, \bar\varepsilon + \sqrt{\beta_t}\, \varepsilon_t,$$
#
# and $\bar\varepsilon$ and $\varepsilon_t$ are independent. $\varepsilon$ and $\varepsilon_t$ are both standard
# Gaussian, with covariance $\sqrt{\beta_t} / b_t$. For two such variables the best guess of the one from the
# other is the covariance times the other:
#
# $$\mathbb E[\varepsilon_t \mid \varepsilon, x_0] = \frac{\sqrt{\beta_t}}{b_t}\, \varepsilon .$$
#
# $f$ sees $x_t$, which is a function of $x_0$ and $\varepsilon$. So in the average over everything
#
# $$\mathbb E\left\| \varepsilon_t - f \right\|^2
#   = \mathbb E \Big\| \frac{\sqrt{\beta_t}}{b_t}\, \varepsilon - f \Big\|^2
#   + \mathbb E \Big\| \varepsilon_t - \frac{\sqrt{\beta_t}}{b_t}\, \varepsilon \Big\|^2 ,$$
#
# because the cross term is the average of $\varepsilon_t - \mathbb E[\varepsilon_t \mid \varepsilon, x_0]$ times
# something that $\varepsilon$ and $x_0$ fix, and that is 0. The last term has no $f$ in it. Write
# $f = (\sqrt{\beta_t} / b_t)\, \varepsilon_\theta$, and the first term is
# $(\beta_t / b_t^2)\, \mathbb E \|\varepsilon - \varepsilon_\theta\|^2$. **That is the loss**: up to a weight for
# each $t$, which DDPM drops,
#
# $$L_{\text{simple}} = \mathbb E_{t,\, x_0,\, \varepsilon} \left\| \varepsilon - \varepsilon_\theta(a_t x_0 + b_t \varepsilon,\; t) \right\|^2 .$$
#
# And the step back, with $f$ put in its place, has the mean
#
# $$\mu_\theta(x_t, t) = \frac{1}{\sqrt{\alpha_t}} \left( x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\; \varepsilon_\theta(x_t, t) \right).$$
#
# This is line 4 of the paper's algorithm 2, coefficients and all, and no variational inference was needed. To
# sample, go to this mean and add noise of some variance $\sigma_t^2$, because many $x_{t-1}$ could have led to
# $x_t$, and the mean is only the middle of them. *Which* variance is the question that the second view answers.
#
# **Why guess the noise and not the data?** It is the same guess in other words: from $x_t$ and $\varepsilon$
# follows $x_0 = (x_t - b_t \varepsilon) / a_t$. What differs is the weight. An error of $\varepsilon_\theta$ is
# an error of $x_0$ that is $b_t / a_t$ times as large, so equal weights for $\varepsilon$ are small weights for
# $x_0$ where little is left of it. More on that below.

# %%
from course_lib.diffusion import Denoiser

show_source(Denoiser.loss)

# %% [markdown]
# **What the best network says.** The best guess in squared error is an average: $\varepsilon_\theta(x_t, t)$
# should be $\mathbb E[\varepsilon \mid x_t]$, over all $x_0$ and $\varepsilon$ that could have made this $x_t$.
# Where the data are known, that average has a closed form (`IdealDenoiser`). **Check** that nothing beats it:
# data in eight small clouds, the loss of the ideal network, and of ideal networks for data that are a little
# off.

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
# data, since that is where noise pushes. Drop points into the plane and play backwards: the deterministic flow
# of chapter 07 carries them to the data.

# %%
moons_ddpm = load_pretrained("ddpm_two_moons")
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
# ## 4. The second view: a VAE with T layers
#
# A VAE (chapter 02) has an encoder $q(z \mid x)$, a decoder $p(x \mid z)$ and a prior. Let the latent be the
# whole film, $z = (x_1, \dots, x_T)$. The encoder is demolition, $q(x_1, \dots, x_T \mid x_0) = \prod_t q(x_t
# \mid x_{t-1})$, with nothing to learn; the prior is $p(x_T) = \mathcal N(0, I)$; the decoder is construction,
# step by step, $p(x_{t-1} \mid x_t) = \mathcal N(\mu_\theta(x_t, t), \sigma_t^2 I)$. By Jensen's inequality, as
# in chapter 02,
#
# $$\log p(x_0) \;\ge\; \mathbb E_q\left[ \log p(x_T) + \sum_{t=1}^T \log \frac{p(x_{t-1} \mid x_t)}{q(x_t \mid x_{t-1})} \right] = \text{ELBO}.$$
#
# **Turn the encoder round.** Numerator and denominator look in opposite directions. Demolition has no memory, so
# $q(x_t \mid x_{t-1}) = q(x_t \mid x_{t-1}, x_0)$, and by Bayes' rule
#
# $$q(x_t \mid x_{t-1}, x_0) = \frac{q(x_{t-1} \mid x_t, x_0)\; q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)} \qquad (t \ge 2).$$
#
# Put that in for $t \ge 2$. The ratios $q(x_t \mid x_0) / q(x_{t-1} \mid x_0)$ multiply to
# $q(x_T \mid x_0) / q(x_1 \mid x_0)$, all others cancel; $q(x_1 \mid x_0)$ cancels against the step $t = 1$.
# What is left is
#
# $$-\text{ELBO} = \underbrace{\mathrm{KL}\big(q(x_T \mid x_0)\,\|\,p(x_T)\big)}_{\text{prior}}
#   + \sum_{t=2}^T \mathbb E_q \underbrace{\mathrm{KL}\big(q(x_{t-1} \mid x_t, x_0)\,\|\,p(x_{t-1} \mid x_t)\big)}_{\text{one step back}}
#   \; \underbrace{-\, \mathbb E_q \log p(x_0 \mid x_1)}_{\text{reconstruction}} .$$
#
# **The posterior.** $q(x_{t-1} \mid x_t, x_0)$ is proportional to $q(x_t \mid x_{t-1})\, q(x_{t-1} \mid x_0)$,
# two Gaussians in $x_{t-1}$. Minus twice the logarithm is, up to terms without $x_{t-1}$,
#
# $$\frac{(x_t - \sqrt{\alpha_t}\, x_{t-1})^2}{\beta_t} + \frac{(x_{t-1} - a_{t-1} x_0)^2}{b_{t-1}^2}
#  = \underbrace{\left( \frac{\alpha_t}{\beta_t} + \frac{1}{b_{t-1}^2} \right)}_{1/\tilde\beta_t} x_{t-1}^2
#  - 2 \left( \frac{\sqrt{\alpha_t}\, x_t}{\beta_t} + \frac{a_{t-1} x_0}{b_{t-1}^2} \right) x_{t-1} + \dots$$
#
# The coefficient of the square is one over the variance. With $\alpha_t b_{t-1}^2 + \beta_t = b_t^2$ (the
# variances of section 2) it becomes
#
# $$\tilde\beta_t = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t}\, \beta_t, \qquad
#   \tilde\mu_t(x_t, x_0) = \tilde\beta_t \left( \frac{\sqrt{\alpha_t}\, x_t}{\beta_t} + \frac{a_{t-1} x_0}{b_{t-1}^2} \right)
#   = \frac{\sqrt{\bar\alpha_{t-1}}\, \beta_t}{1 - \bar\alpha_t}\, x_0 + \frac{\sqrt{\alpha_t}\, (1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}\, x_t .$$

# %%
show_source([DDPM.posterior, DDPM.reverse])

# %% [markdown]
# **Check it by brute force**: multiply the two densities on a fine grid of $x_{t-1}$, normalise, and read mean
# and variance off.

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
# **The mean of the step back.** Both Gaussians in the KL have fixed variances, so all there is to learn is the
# mean, and the KL is $\|\tilde\mu_t - \mu_\theta\|^2 / (2 \sigma_t^2)$ plus a constant. The library's $\mu_\theta$
# is the posterior's mean with the *guess* $\hat x_0 = (x_t - b_t \varepsilon_\theta) / a_t$ in the place of
# $x_0$. Then, because only the term with $x_0$ differs,
#
# $$\tilde\mu_t - \mu_\theta = \frac{a_{t-1} \beta_t}{b_t^2} (x_0 - \hat x_0)
#   = \frac{a_{t-1} \beta_t}{b_t^2} \cdot \frac{b_t}{a_t} (\varepsilon_\theta - \varepsilon)
#   = \frac{\beta_t}{\sqrt{\alpha_t}\, b_t} (\varepsilon_\theta - \varepsilon),$$
#
# so the KL is $w_t \|\varepsilon - \varepsilon_\theta\|^2$ plus a constant, with
#
# $$w_t = \frac{\beta_t^2}{2 \sigma_t^2\, \alpha_t\, (1 - \bar\alpha_t)} .$$
#
# Exercise: put $\hat x_0$ into $\tilde\mu_t$, and find $\mu_\theta$ of section 3 again. **Both views agree**,
# on the loss up to weights and on the mean of the step.
#
# **Which weights does "simple" drop?** It puts 1 in the place of $w_t$:

# %%
beta, alpha, alpha_bar = schedule.betas, schedule.alphas, schedule.alpha_bars
before = torch.cat([torch.ones(1), alpha_bar[:-1]])  # of the step before: 1 for the data
weights = {
    name: beta**2 / (2 * variance * alpha * (1 - alpha_bar))
    for name, variance in (
        ("σ² = β", beta),
        ("σ² = posterior variance", (1 - before) / (1 - alpha_bar) * beta),
    )
}
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
    alt="In double logarithmic scale the weights fall from about 1 at the first steps to less than a "
    "hundredth, and rise a little at the end. A dashed line at 1 is far above them nearly everywhere.",
)

# %% [markdown]
# The bound cares most for the first steps, where hardly any noise is on the image: there sit the last grey
# levels of every pixel, and they cost bits. The eye doesn't see them. With equal weights the network spends its
# strength on the steps where the image is made; the samples get better and the bound gets worse. That is the
# finding of the DDPM paper.
#
# **Which variance?** The true $q(x_{t-1} \mid x_t)$, without $x_0$, is as wide as the posterior plus what not
# knowing $x_0$ adds. Two cases can be solved.
#
# - *The data are one point.* Then $x_0$ is known, and the variance is the posterior's, $\tilde\beta_t$. Any other
#   data leave more open, so this is the smallest value.
# - *The data are standard Gaussian.* Then every $x_t$ is, too, and $x_{t-1}$ and $x_t$ are two standard Gaussians
#   with covariance $\sqrt{\alpha_t}$. Given one, the other has variance $1 - \alpha_t = \beta_t$.
#
# The ratio $\tilde\beta_t / \beta_t = (1 - \bar\alpha_{t-1}) / (1 - \bar\alpha_t)$ is far from 1 in the first
# few steps only. There $\sigma$ is so small that no sample shows the difference. The bound shows it: if the
# data are smooth on that small scale, as a Gaussian's are, the true step back is as wide as $\beta$, and a
# narrower one pays for it. Where the data are certain on that scale, as the black pixels of MNIST are, the
# posterior's variance is right. The table at the end has both. `DDPM(..., variance="posterior")` is the
# library's choice, `"beta"` the other.
#
# **Check the bound.** For Gaussian data we know the best network and the exact $\log p$. The ELBO must lie below
# it, and come nearer with more and smaller steps. (The ELBO is estimated with one draw of the noise for each
# point, 2,000 points, so a few hundredths of a nat are noise.)


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
    cells = " | ".join(f"{abs(gaps[T, variance][0]):.1f}" for T in steps)
    rows += f"| variance `{variance}` | {cells} |\n"
Markdown(rows)

# %% [markdown]
# ## Train it
#
# **Two moons**, in a few seconds. The network is a small perceptron that is told the time: sines and cosines of
# $t$ at many frequencies, as in the transformer, added in every layer.

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

# %%
samples = live.sample(1500, generator=seeded(1))
figure = Figure(figsize=(6.4, 3.1))
real, ours = figure.subplots(1, 2)
real.scatter(*toy("two_moons", 1500, generator=seeded(2)).T, s=2, color=PALETTE["data"])
ours.scatter(*samples.T, s=2, color=PALETTE["model"])
for axes, title in ((real, "data"), (ours, "our samples")):
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=title, xlabel="x₁", ylabel="x₂")
figure.tight_layout()
show_figure(
    figure, alt="Two moons, and samples of the model just trained: two moons, a little blurred."
)

# %% [markdown]
# **Digits**, in about ten seconds, with a U-Net: down to few pixels, where everything sees everything, and up
# again, with bridges that carry the details across. The images are mapped to $[-1, 1]$, so that noise with mean 0
# leaves them in the middle. On the way up the sides are doubled and a 3×3 convolution follows. Our `DoublingConv`
# does both at once: a window of 3×3 in a doubled image holds only four different pixels, and that saves more than
# half of the work.

# %%
show_source(UNet.forward)

# %%
torch.manual_seed(0)
live_digits = DDPM(UNet((1, 8, 8), widths=(16, 32)), DiscreteSchedule.linear(100))
history = fit(
    live_digits, to_signed(load_digits("train")[0]), steps=300, batch_size=64, lr=4e-3, ema=0.98
)
print("the loss fell below 0.15:", history.loss() < 0.15)

# %%
early = live_digits.sample(12, clip=1.0, generator=seeded(0))
digits_ddpm = load_pretrained("ddpm_digits")
late = digits_ddpm.sample(12, clip=1.0, generator=seeded(0))
show_figure(
    image_grid(
        to_unit(torch.cat([early, late])), columns=12, titles=["a few seconds", "ddpm_digits"]
    ),
    alt="Two rows of twelve 8x8 digits. The first row, after seconds of training, has shapes that "
    "resemble digits; the second row has digits.",
)

# %% [markdown]
# ## Sample it
#
# Algorithm 2 of the paper is a loop over the steps. It is a *generator function*: it yields every state, so
# that you can watch, stop, or keep only the last.

# %%
show_source(ddpm_sample)

# %% [markdown]
# **Build**, with 2,000 particles. Left the state, right the guess of $x_0$ at that moment. The very first guesses
# are wild: $\hat x_0 = (x_t - b_t \varepsilon_\theta) / a_t$ divides by $a_t$, which is about 0.006 at the last step,
# and so multiplies every error of the network by 150. It does no harm, since the posterior gives $\hat x_0$ next to
# no weight there. Then all guesses gather near the middle of the data, their average; and then they spread along
# the moons, long before the particles arrive. (Of images we know that pixels lie in $[-1, 1]$. So the guesses are
# cut off there, with `clip=1.0`.)

# %%
trajectory = moons_ddpm.trajectory(2000, generator=seeded(3))
frames = [0, 30, 60, 80, 100, 115, 130, 140, 150, 160, 170, 178, 185, 191, 196, 200]
beliefs = [
    moons_ddpm.predict_x0(trajectory[k], 199 - k).detach() if k < 200 else trajectory[k]
    for k in frames
]
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
digit_states = list(ddpm_sample(digits_ddpm, (10, 1, 8, 8), clip=1.0, generator=seeded(5)))
frames = [*range(0, 400, 25), 385, 393, 397, 400]
beliefs = [
    digits_ddpm.predict_x0(digit_states[k], 399 - k, clip=1.0).detach()
    if k < 400
    else digit_states[k]
    for k in frames
]
ImagePlayer(
    to_unit(torch.stack([digit_states[k] for k in frames])),
    beside=to_unit(torch.stack(beliefs)),
    titles=("the state", "the guess of x₀"),
    columns=10,
    labels=[f"{400 - k} to go" for k in frames],
    title="Construction of digits, all 400 steps",
    alt="Ten squares of noise become 8x8 digits; the guess below each is a grey blur first and then "
    "a digit.",
)

# %% [markdown]
# ### Five words for one prediction
#
# $x_t = a x_0 + b \varepsilon$ is one equation for two unknowns. Any second equation $c\, x_0 + d\, \varepsilon =
# \text{value}$ settles both, if the determinant $a d - b c$ is not 0. So a network may predict any such mixture,
# and all of them say the same:
#
# | name | $c$ | $d$ | met in |
# | --- | --- | --- | --- |
# | `eps` | $0$ | $1$ | here |
# | `x0` | $1$ | $0$ | here |
# | `v` | $-b$ | $a$ | distillation (Salimans and Ho 2022) |
# | `score` | $0$ | $-1/b$ | chapter 08 |
# | `velocity` | $a'$ | $b'$ | chapters 09 and 13 |
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
# ## MNIST, by class
#
# The U-Net of `ddpm_mnist` is told the class as well: a learned vector for each class, added to the embedded
# time. Nothing else changes. (Chapter 11 makes the class count for more than it does by itself.)

# %%
by_class = ddim_sample(
    mnist_ddpm,
    (50, 1, 28, 28),
    steps=50,
    eta=1.0,
    y=torch.arange(10).repeat(5),
    clip=1.0,
    generator=seeded(7),
)
*_, by_class = by_class
show_figure(
    image_grid(to_unit(by_class), columns=10, size=0.8),
    alt="Five rows of ten handwritten digits, in each row one of every class from 0 to 9.",
)

# %% [markdown]
# ## Exercises
#
# Each `check` judges your function on fresh random inputs and tells you which property broke. It accepts
# every correct solution. `hint("06.posterior")` helps; `solution("06.posterior")` shows what the library does.
#
# **How time is counted.** The formulas above count the noising steps as the paper does, $t = 1 \dots T$, and
# $x_0$ is the data. In code `t` is an index into `betas` and `alpha_bars`, from 0 to `T - 1`: code's `t` is the
# paper's $t$ minus 1. So `alpha_bars[t]` belongs to the state of the same index, and even at `t = 0` there is a
# little noise.
#
# (Exercise 1 was the prediction, further up.)
#
# **2. Noise in one go.** From data straight to $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$.
# Each example of the batch has a time of its own, `t [B]`; an example may be a point, an image, anything. The
# trap is in the shapes.


# %%
def noise_to(x0, t, eps, alpha_bars):
    """x0 and eps [B, *event], t [B] from 0, alpha_bars [T]: x_t [B, *event]."""
    ...


check("06.noise_to", noise_to)

# %% [markdown]
# **3. Where did the step before come from?** If both $x_t$ and $x_0$ are known, $x_{t-1}$ is Gaussian. Return
# its mean, and its variance as `[B]`, `[B, 1, ...]` or `[B, *event]`. At the first step, `t = 0`, the state
# before is the data: the mean is $x_0$ and the variance 0.


# %%
def posterior(x_t, x_0, t, betas):
    """x_t and x_0 [B, *event], t [B] from 0, betas [T]: (mean, variance)."""
    ...


check("06.posterior", posterior)

# %% [markdown]
# **4. From the noise to the data.** A network that predicts $\varepsilon$ predicts $x_0$ as well. Which?


# %%
def x0_from_eps(x_t, eps, t, alpha_bars):
    """x_t and eps [B, *event], t [B] from 0, alpha_bars [T]: x_0 [B, *event]."""
    ...


check("06.x0_from_eps", x0_from_eps)

# %% [markdown]
# **5. Algorithm 2.** All steps from noise to data, with $\sigma_t^2 = \beta_t$. The noises are given, so that two
# answers can be compared: `noises[t]` is for the step from `t`. The last step, from `t = 0`, adds none.


# %%
def my_ddpm_sample(net, z, betas, noises):
    """z [B, *event], betas [T], noises [T, B, *event], net(x_t, t [B]) to eps: x [B, *event]."""
    ...


check("06.ddpm_sample", my_ddpm_sample)

# %% [markdown]
# **6. The loss.** Draw the times and the noise, noise the data, ask `net(x_t, t)`, compare. All randomness
# comes from `generator`. Four lines, and the whole of training.


# %%
def ddpm_loss(net, x0, alpha_bars, generator):
    """x0 [B, *event], alpha_bars [T], net(x_t, t [B]) to eps: a scalar."""
    ...


check("06.ddpm_loss", ddpm_loss)

# %% [markdown]
# **How wide is the true step back?** Derive it for data that are Gaussian on a line, $\mathcal N(m, s^2)$: the variance
# of $x_{t-1}$ given $x_t$, when $x_0$ is not known. At `t = 0` the state before is the data.


# %%
def reverse_variance(t, betas, std):
    """t [B] from 0, betas [T], std a number: [B]."""
    ...


check("06.reverse_variance", reverse_variance)

# %% [markdown]
# **7. Break it on purpose: a wrong clock.** Half of these data lie near −2, half near 2, and nothing is trained:
# the network is the perfect one, known in closed form. `run_clock` samples with all $T = 50$ steps of DDPM, but
# at step `t` it tells the network `clock(t, T)`. With the right clock the clusters come out where they should;
# with a clock that runs backwards next to nothing does.

# %%
for words, clock in {
    "right": lambda t, T: t,
    "backwards": lambda t, T: T - 1 - t,
}.items():
    report = run_clock(clock)
    print(f"{words:>10}: clusters at ±{report.centre:.1f}, {report.lost:.0%} of the samples lost")

# %% [markdown]
# That you would notice. A clock that is off by one step, because a paper counts from 1 and code from 0, you might
# not. So break it with a *small* mistake: write a clock that is wrong by at most 3 of the 50 steps, with which
# both clusters land at least 4 % too far out. Decide first: must the network be told less noise than there is,
# or more? Say why in one sentence; the verdict tells you whether you were right.


# %%
def clock(t, T):
    """The time, 0 ... T - 1, that the network is told at step t."""
    ...


check("06.break_the_clock", clock)

# %% [markdown]
# **Without a checker:** turn your clock round, and say before you run it what `run_clock` reports. Then give it
# `T=300`: how much of the harm is left, and why is a mistake of one step so hard to find with 1,000?

# %% [markdown]
# ## How good is it?
#
# A diffusion model has no exact likelihood, and the eye is a poor judge of a thousand images. The usual measure
# of samples is a **Fréchet distance**: take a classifier, look at its last hidden layer (here 32 numbers), fit a
# Gaussian to these features of the samples and one to those of real images, and measure the distance of the two
# Gaussians,
#
# $$\|\mu_1 - \mu_2\|^2 + \operatorname{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right).$$
#
# With Google's Inception network it is the FID of the papers. Ours uses a small classifier trained on the same
# data (`classifier_digits`, `classifier_mnist`), so its numbers can be compared with each other *within a
# column*, never with an FID. The floor is real against real: 1,000 training images against the test images, the
# mean of ten draws, and by how much one draw differs from another. Every other row is 1,000 samples against the
# same test images.

# %%
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
table += "| Ho et al. 2020, at most (their FID on these data: 3.17) | | | 3.75 |\n"
Markdown(table)

# %%
toys = "| toy | ELBO of our DDPM | RealNVP, log p | the data's own density |\n| --- | ---: | ---: | ---: |\n"
for name in ("two_moons", "pinwheel"):
    points = toy(name, 50_000, generator=seeded(1))
    best = toy_log_prob(name, points).mean().item()
    bounds = {row["variance"]: row for row in load_card(f"ddpm_{name}")["metrics"]["bounds"]}
    elbo = -bounds["beta"]["negative ELBO (nats)"]
    flow_nats = load_card(f"realnvp_{name}")["metrics"]["test log-likelihood (nats)"]
    toys += f"| {name.replace('_', ' ')}, nats | {elbo:.2f} | {flow_nats:.2f} | {best:.2f} |\n"
Markdown(toys)

# %% [markdown]
# How to read it:
#
# - **Nearest to real digits**, on both data sets, and on MNIST by far. There a thousand samples are as near to
#   the test images as a thousand real training images are, so this measure can no longer tell them apart. The
#   eye can: look at the grid above, and count the characters that are no digit. (The MNIST model also has it
#   easier: it is given the class, a hundred of each.)
# - **Cosine against linear.** With the same network and training the cosine schedule makes the better digits, and
#   has the worse bound. A likely reason for the first is section 2's: fewer steps go where nothing is left. Why
#   the bound is worse we did not find out. One seed each.
# - **The likelihood is not the eye, once more.** Glow needs far fewer bits than our DDPM, and its samples are
#   farther from real digits. The loss gives the details that cost bits hardly any weight (section 4).
# - **Which variance is better for the bound** depends on the data. On the toys, which are smooth, $\beta$ is
#   better by more than a nat, as for the Gaussian above. On MNIST, where most pixels are exactly black, the
#   posterior's is. That is why a later paper (Nichol and Dhariwal) learns it.
# - **The published numbers** are for photographs of 32×32 pixels in colour, with a network of 36 million
#   parameters; ours has 0.6 million on MNIST (8,000 steps of 64 images, about an hour on one core) and 0.4
#   million on the digits. Neither number can be compared with ours; the table shows what is usual.
# - **VAE**: it was trained on black and white images and draws the mean of each pixel, so a part of its
#   distance is a difference in kind.
#
# ## What to take away
#
# - Noise can be added in one go to any level: $x_t = a_t x_0 + b_t \varepsilon$. Training needs no film.
# - The network is asked for an average, $\mathbb E[\varepsilon \mid x_t]$. That is a plain regression: no
#   adversary, no invertibility, no determinant. Any network will do.
# - The step back is the posterior with a guess in the place of the data. Both views, regression and variational,
#   end in the same step; the second adds the variance, and a bound of the likelihood.
# - A schedule is a curve of the log-SNR over time. It says where the steps are spent, nothing else.
# - `eps`, `x0`, `v`, `score` and `velocity` are the same prediction in other words.
#
# **What does not work well.** A sample takes as many calls of the network as there are steps, one after the
# other. There is no exact likelihood, only a bound, and the loss that makes good samples makes a poor bound. And
# there is no latent of an image to speak of: the noise that made it is spread over all steps.
#
# **Next, chapter 07:** the loss only knows $q(x_t \mid x_0)$. So the same trained network serves a whole family
# of ways back, some of which skip most steps and draw no noise at all.
