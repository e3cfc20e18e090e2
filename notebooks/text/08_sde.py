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
# [← 07 · DDIM](07_ddim.ipynb) | [Contents](../README.md#chapters) | [09 · ODEs and flow matching →](09_ode.ipynb)

# %% [markdown]
# # 08 · SDE
#
# **Let the noising steps of chapter 06 become infinitely short: demolition turns into one stochastic differential
# equation, and construction into another, which needs nothing but the gradient of the log-density.**
#
# | | |
# | --- | --- |
# | You need | chapters 06 and 07: $x_t = a x_0 + b \varepsilon$, the score, DDIM; Taylor's formula; integration by parts |
# | Time | 55 minutes to read, two hours with the exercises |
# | The short way | 30 minutes: sections 1 to 4, 8 and 9, without what is called a check |
# | You will meet | Brownian motion, drift and diffusion, VP, VE and sub-VP, the reverse SDE, Euler–Maruyama, score matching, Fokker–Planck, Langevin dynamics, predictor and corrector |
# | Papers | Song et al. 2021, [Score SDE](https://arxiv.org/abs/2011.13456); Anderson 1982, [Reverse-time diffusion](https://doi.org/10.1016/0304-4149(82)90051-5); Hyvärinen 2005, [Score matching](https://jmlr.org/papers/v6/hyvarinen05a.html); Vincent 2011, [Denoising score matching](https://doi.org/10.1162/NECO_a_00142) |
# | Source article | 一般框架之 SDE 篇, "The general frame: SDEs", on the way back by Bayes' rule (in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter). Time runs to the right, from data (two clouds on a line) to noise; the colour is
# the density of $x_t$ at each time. Drag the handle: a fan of paths starts there. Then switch to *reverse* and drag where
# the paths *end*: the fan shows where they may have come from. Try all three processes.

# %%
import math

import torch

from course_lib.data import to_unit
from course_lib.diffusion import IdealDenoiser, SubVPPath, VEPath, VPPath, euler_maruyama, last
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import FanOfPaths, Langevin, ParticlePlayer, SampleTable

one_thread()  # models this small are slower on two

# %%
CLOUDS, WIDTH = (-1.5, 1.0), 0.25  # centres and standard deviation of the data of this chapter


def density(x, a, b):
    """The density of a x_0 + b eps, for data in two clouds: each becomes a wider Gaussian."""
    variance = (a * WIDTH) ** 2 + b**2
    bells = [torch.exp(-((x - a * m) ** 2) / (2 * variance)) for m in CLOUDS]
    return (bells[0] + bells[1]) / (2 * (2 * math.pi * variance) ** 0.5)


processes = {}
paths = {"VP": VPPath(), "sub-VP": SubVPPath(), "VE": VEPath(0.05, 3.0)}
for name, path in paths.items():
    reach = 9 if name == "VE" else 3
    t = torch.linspace(path.t_min, path.t_max, 61, dtype=torch.float64)
    x, a, b = torch.linspace(-reach, reach, 97, dtype=torch.float64), path.a(t), path.b(t)
    p = density(x, a[:, None], b[:, None])
    processes[name] = {"t": t, "a": a, "b": b, "x": x, "density": p}
FanOfPaths(
    processes,
    start=1.0,
    end=0.5,
    title="Every path from one start, or to one end",
    alt="Two bands of density at the left run together into one broad band at the right. A fan of "
    "jagged orange paths opens from a point in the upper band.",
)

# %% [markdown]
# Three things to notice:
#
# - **The paths are drunk, the density is not.** Each path shakes at every moment; the colours under them change smoothly.
# - **A start forgets itself.** Forward, all fans of VP look alike in the end: noise. With VE the start is not pulled to
#   the middle but drowned in something larger.
# - **Backwards it is a decision.** From one end, paths come from both clouds. Where does a path decide, early or late?

# %% [markdown]
# ## The idea
#
# Why $T = 1{,}000$ steps? Nobody can say: it is a number that worked. When a result does not depend on how finely you cut,
# leave the cutting to the end. First let the steps be infinitely many and find the laws that hold then; afterwards choose
# steps for the computer, as few as one dares. That is what this chapter does with chapter 06, and it pays three times:
# demolition is two numbers for each time, $f$ and $g$; construction is the same for all of them; and steps become
# a matter of a solver, which can be bettered (chapters 09 and 10).
#
# | symbol | meaning |
# | --- | --- |
# | $t$; $s < t$ | time, from the data to the noise, 0 to 1; an earlier time |
# | $x_0$, $x_t$; $\varepsilon$; $\xi$ | data, the state at time $t$; all noise in it, standard normal; the fresh noise of one step |
# | $a_t$, $b_t$ | the path: $x_t = a_t x_0 + b_t \varepsilon$ |
# | $p_t$; $p_\theta$; $q$ | the density of $x_t$; the model's, of its samples; another density; $p(x_s \mid x_t)$ and the like: densities of one given the other |
# | $\nabla \log p_t$; $\operatorname{score}_\theta$ | the score; a network's guess of it, with weights $\theta$ |
# | $w$; $\mathrm d w$ | Brownian motion; its increment |
# | $f$, $g$ | drift and diffusion: $\mathrm dx = f x\, \mathrm dt + g\, \mathrm dw$ |
# | $\beta_k$, $T$; $\beta(t)$ | DDPM's variances and their number; VP's rate |
# | $\sigma$, $\sigma_k$ | VE's noise; also the width of a Gaussian |
# | $\Delta t$, $\Delta w$; $N$ | a short time, what $w$ moves in it; the number of steps |
# | $m$, $V$ | mean and variance |
# | $u$ | a move, $x_s - x_t$ |
# | $k$; $\varphi$ | an index of steps; a smooth function |
# | $i$, $j$, $n$ | coordinates of an example, and how many |
# | $J$; $v$; $L$; $R$ | a Jacobian; a vector of random signs; a loss; a far place |
# | $\lambda$ | the weight of a time in the loss; in exercise 5 the share of the noise |
# | $h$; $\tau$; $U$ | Langevin's step size, its temperature, an energy |
# | $r$ | the corrector's signal-to-noise ratio |
# | $\mathbb E$; $\mathcal N$; $O$ | the mean over all that is drawn; a Gaussian; of the order of |

# %% [markdown]
# ## 1. From steps to an equation
#
# A step of DDPM, with $\Delta t = 1/T$ and $\beta_k = \beta(t)\, \Delta t$ for the step that ends at $t = k/T$ (in short steps the $\beta$ of either end will do; below it is that of the start), is
#
# $$x_{t + \Delta t} = \sqrt{1 - \beta(t) \Delta t}\; x_t + \sqrt{\beta(t) \Delta t}\; \xi
#   = x_t - \tfrac12 \beta(t)\, x_t\, \Delta t + \sqrt{\beta(t)} \sqrt{\Delta t}\; \xi + O(\Delta t^2),$$
#
# by $\sqrt{1 - y} = 1 - \tfrac12 y + O(y^2)$. It has the form that we shall use from here on:
#
# $$x_{t + \Delta t} = x_t + f(t)\, x_t\, \Delta t + g(t) \sqrt{\Delta t}\; \xi .$$
#
# Does $\beta_k T$ have a limit? With the linear schedule of chapter 06 it was built to: its two ends are
# $1000/T$ times 0.0001 and 0.02, so that $T \beta_k$ rises from 0.1 to 20 whatever $T$ is.

# %%
from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.diffusion import (
    Denoiser,
    DiscreteSchedule,
    GaussianPath,
    corrector_step_size,
    ddim_sample,
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    langevin,
    langevin_step,
    predict_score,
    predictor_corrector,
    reverse_sde_step,
    sde_forward,
    sde_step,
    sde_times,
    sliced_score_matching,
    weighted_score_matching,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.nn import TimeMLP
from course_lib.widgets import PALETTE, image_grid, show_figure

vp = VPPath()
table = "| T | largest gap of T β and β(t) | of ᾱ and a² |\n| ---: | ---: | ---: |\n"
for T in (100, 1000, 10_000):
    schedule = DiscreteSchedule.linear(T)
    t = torch.arange(1, T + 1, dtype=torch.float64) / T
    rate = (T * schedule.betas - vp.beta(t)).abs().max().item()
    left = (schedule.alpha_bars - vp.a(t) ** 2).abs().max().item()
    table += f"| {T:,} | {rate:.4f} | {left:.4f} |\n"
Markdown(table)

# %% [markdown]
# **Why the root?** The drift of a step is in proportion to its length, the noise to the *root* of its length. Suppose the
# noise of each of $N$ steps of length $1/N$ were $(1/N)^\gamma\, \xi$ with some power $\gamma$. All steps are independent,
# and of independent noise the *variances* add, so that after $N$ steps the variance is
# $N \cdot N^{-2\gamma} = N^{1 - 2\gamma}$. For $\gamma > \tfrac12$ it goes to 0: the steps are many, but their noise
# cancels, and an ODE is left. For $\gamma < \tfrac12$ it goes to infinity. Only $\gamma = \tfrac12$ leaves noise that neither
# vanishes nor explodes.
#
# **Brownian motion**, or the **Wiener process**, is the limit then, for $f = 0$, $g = 1$: a random function $w(t)$ with $w(0) = 0$, whose
# increments over times that do not overlap are independent, and
#
# $$w(t + \Delta t) - w(t) \sim \mathcal N(0, \Delta t).$$
#
# That such a function exists, and a continuous one, was proved by Wiener in 1923; we take it from him. What is easy to see
# is that it is no ordinary one:
#
# - *It has no slope.* $\Delta w / \Delta t$ has the variance $1 / \Delta t$, which grows without bound. The "white noise"
#   $\mathrm dw / \mathrm dt$ of physicists is a name for something that is not a function of time. We never need it: only
#   increments are used.
# - *It is infinitely long.* $N$ increments of a size about $1/\sqrt N$ add up to a length of about $\sqrt N$.
# - *Its squares add up to the time.* The sum of $(\Delta w)^2$ over $N$ steps has the mean $t$ and the variance
#   $2 t^2 / N$, which goes to 0. So $(\mathrm dw)^2$ counts as $\mathrm dt$, with no chance left in it: terms of second
#   order in $\mathrm dw$ must not be dropped. That is the whole difference to ordinary calculus.
#
# The **stochastic differential equation**
#
# $$\mathrm dx = f(t)\, x\, \mathrm dt + g(t)\, \mathrm dw$$
#
# is a short way to write the limit of the steps above. (Where in the step $g$ is taken, at its start or in its middle,
# would matter if it depended on $x$: Itô's and Stratonovich's calculus differ. Here it does not.)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(8.4, 2.8))
left, right = figure.subplots(1, 2)
fine = torch.randn(2000, generator=seeded(1)) / 2000**0.5
w = torch.cat([torch.zeros(1), fine.cumsum(0)])
time = torch.linspace(0, 1, 2001)
left.plot(time, w, color=PALETTE["noise"], lw=0.6, label="w(t)")
left.plot(
    time,
    10**0.5 * (w[:201].repeat_interleave(10)[:2001] - w[0]),
    color=PALETTE["model"],
    lw=0.6,
    label="its first tenth, stretched by 10 and by √10",
)
left.set(title="A path, and a piece of it, look alike", xlabel="t", ylabel="w")
left.legend(frameon=False, fontsize=7)
for n, role in ((20, "noise"), (200, "data"), (2000, "model")):
    steps = w[:: 2000 // n].diff()
    right.plot(
        torch.linspace(0, 1, n + 1)[1:],
        steps.square().cumsum(0),
        color=PALETTE[role],
        lw=1.2,
        label=f"{n} steps",
    )
right.plot([0, 1], [0, 1], "k:", lw=1)
right.set(title="Its squared increments add up to t", xlabel="t", ylabel="sum of (Δw)²")
right.legend(frameon=False, fontsize=7)
figure.tight_layout()
show_figure(
    figure,
    alt="Left, two jagged curves of the same roughness. Right, the sum of squared increments for 20, "
    "200 and 2,000 steps: the finer the steps, the closer it follows the diagonal.",
)

# %%
show_source([sde_step, sde_forward])

# %% [markdown]
# **Exercise 1: break it on purpose.** Write `bad_step`, a step of $\mathrm dx = f x\, \mathrm dt + g\, \mathrm dw$ that still makes noise with
# 10 steps, and whose noise dies out as the steps become many. (`hint("08.break_the_root")` helps, as with every exercise;
# `solution(...)` shows what the library does; every `check` judges your function on fresh random inputs.)


# %%
def bad_step(x, f, g, dt, noise):
    """x and noise [B], f, g and dt numbers: x [B], dt later."""
    ...


check("08.break_the_root", bad_step)

# %% [markdown]
# ## 2. Every path is an SDE
#
# **From $f$ and $g$ to $a$ and $b$.** Hold $x_0$ and follow mean and variance through one step. The noise has mean
# 0 and is independent of the state, so
#
# $$m_{t + \Delta t} = (1 + f \Delta t)\, m_t, \qquad
#   V_{t + \Delta t} = (1 + f \Delta t)^2\, V_t + g^2 \Delta t = V_t + (2 f V_t + g^2)\, \Delta t + O(\Delta t^2).$$
#
# The state stays Gaussian, since each step adds an independent Gaussian to a multiple of one. With $m = a_t x_0$
# and $V = b_t^2$, divided by $\Delta t$:
#
# $$\frac{\mathrm d a}{\mathrm d t} = f a, \qquad \frac{\mathrm d\, b^2}{\mathrm d t} = 2 f b^2 + g^2 .$$
#
# **And back.** Given $a$ and $b$, solve for the other two:
#
# $$f = \frac{1}{a} \frac{\mathrm d a}{\mathrm d t}, \qquad
#   g^2 = \frac{\mathrm d\, b^2}{\mathrm d t} - 2 f b^2 = a^2\, \frac{\mathrm d}{\mathrm d t} \frac{b^2}{a^2} .$$
#
# The last form says when a path is an SDE at all: noise over data, $b/a$, must not fall. An SDE adds noise; it can't take
# any away. So each path of chapters 06 to 14 has its SDE by two formulas, with derivatives by
# automatic differentiation:

# %%
show_source([GaussianPath.drift, GaussianPath.diffusion])

# %% [markdown]
# **Three families** (Song et al. 2021, section 3.4):
#
# - **VP**, *variance preserving*, is DDPM's limit: $f = -\tfrac12 \beta$, $g = \sqrt\beta$. From
#   $\mathrm da/\mathrm dt = -\tfrac12 \beta a$ follows $a = \exp(-\tfrac12 \int_0^t \beta)$. A total variance of 1 stays 1,
#   for $2 f \cdot 1 + g^2 = 0$: so $b^2 = 1 - a^2$. (An **Ornstein–Uhlenbeck process** with a clock of its own.)
# - **VE**, *variance exploding*, is the limit of another family, SMLD (Song and Ermon 2019), where data are not shrunk:
#   $x_k = x_{k-1} + \sqrt{\sigma_k^2 - \sigma_{k-1}^2}\; \xi$ for a rising sequence of noises. In the limit $f = 0$ and
#   $g^2 = \mathrm d\sigma^2 / \mathrm dt$. With $\sigma$ rising geometrically, $\sigma(t) = \sigma_{\min} (\sigma_{\max} / \sigma_{\min})^t$, it is
#   $g = \sigma \sqrt{2 \log(\sigma_{\max} / \sigma_{\min})}$.
# - **sub-VP** has VP's drift and less noise: $g^2 = \beta\, (1 - a^4)$. Then $b = 1 - a^2$. Check it:
#   $\mathrm d b^2/\mathrm dt = 2 (1 - a^2) \beta a^2$, and $2 f b^2 + g^2 = -\beta (1 - a^2)^2 + \beta (1 - a^4)$ is the same.
#
# The start is not quite at the data. There $b$ goes to 0, and the score, about $-\varepsilon / b$, to infinity. So VP and
# sub-VP begin at `t_min` = 0.001, where VP's $b$ is 0.01, about one of 256 grey levels. (VE's start holds the noise
# $\sigma_{\min}$ already: its $b^2$ is $\sigma^2(t)$, where the SDE alone adds $\sigma^2(t) - \sigma_{\min}^2$.)
#
# **Check**: follow 20,000 points from the data to the noise in 200 steps, and compare mean and spread with $a$ and $b$ at
# every one of the 201 times: within 4 % of $b$, or of 0.3 where $b$ is less. (Close to the data, where $b$ is a few
# thousandths, 200 even steps are too coarse to hold it to 4 % of $b$ itself.)

# %%
for name, path in paths.items():
    x0 = torch.full((20_000, 1), 1.0)
    t = torch.tensor(sde_times(path, 200)[::-1])
    states = torch.stack(list(sde_forward(path, x0, steps=200, generator=seeded(0))))
    gaps = torch.stack([states.mean((1, 2)) - path.a(t), states.std((1, 2)) - path.b(t)])
    off = (gaps.abs() / path.b(t).clamp(min=0.3)).max().item()
    print(f"{name:>6}: mean and spread follow a and b, within 4 % of b or 0.3: {off < 0.04}")

# %% [markdown]
# **Exercise 2: derive.** The path $a = \cos(\pi t / 2)$, $b = \sin(\pi t / 2)$ runs along a quarter of a circle. Which SDE is
# it? Both $f$ and $g$ by hand, without automatic differentiation.


# %%
def drift_diffusion(t):
    """t [B], above 0 and below 1: (f, g), [B] each."""
    ...


check("08.drift_diffusion", drift_diffusion)

# %% [markdown]
# ## 3. The way back, by Bayes' rule
#
# Now the film backwards. Given $x_t$, where was the state a short time before, at $s = t - \Delta t$? By Bayes' rule
#
# $$p(x_s \mid x_t) = \frac{p(x_t \mid x_s)\; p_s(x_s)}{p_t(x_t)} .$$
#
# The first factor is the forward step, a Gaussian around $x_s + f x_s \Delta t$ of variance $g^2 \Delta t$. So, up to a
# constant,
#
# $$\log p(x_s \mid x_t) = -\frac{\| x_t - x_s - f x_s \Delta t \|^2}{2 g^2 \Delta t} + \log p_s(x_s) - \log p_t(x_t).$$
#
# Let $u = x_s - x_t$ be the move. It is small: of the size $\sqrt{\Delta t}$, because the first term punishes anything larger.
# So expand the second term to first order around $x_t$,
#
# $$\log p_s(x_s) - \log p_t(x_t) = u \cdot \nabla \log p_t(x_t) + O(\Delta t).$$
#
# (In $O(\Delta t)$ are the terms of second order, $u$ times $u$, and the change of $p$ in the time $\Delta t$.) In the first
# term $f x_s \Delta t$ may be written $f x_t \Delta t$, which changes it by $O(\Delta t)$ as well. What is left is
#
# $$-\frac{\| u + f x_t \Delta t \|^2}{2 g^2 \Delta t} + u \cdot \nabla \log p_t(x_t)
#  = -\frac{\big\| u + \big( f x_t - g^2\, \nabla \log p_t(x_t) \big) \Delta t \big\|^2}{2 g^2 \Delta t} + O(\Delta t),$$
#
# by completing the square: multiply the right side out, and its mixed term in $u$ is that of the left side, while the two terms without $u$ differ by
# something of order $\Delta t$ that does not depend on $u$. So the step back *is* Gaussian:
#
# $$x_s = x_t - \big( f x_t - g^2\, \nabla \log p_t(x_t) \big)\, \Delta t + g \sqrt{\Delta t}\; \xi .$$
#
# What was left out changes the density of a step by a factor $1 + O(\Delta t)$: its mean by
# $O(\Delta t^2)$ and its variance by the share $\Delta t$. There are $1 / \Delta t$ steps, so all of it together goes to 0 with
# $\Delta t$. In the limit this is the **reverse SDE**
#
# $$\mathrm dx = \big( f x - g^2\, \nabla \log p_t(x) \big)\, \mathrm dt + g\, \mathrm dw, \qquad \text{run from } t = 1 \text{ to } 0 .$$
#
# The noise is that of the forward SDE. The drift is turned round, and a wind is added that blows uphill in the log-density,
# twice as strong as would be needed to undo the spreading alone. (Once for the spreading of the film, once for the fresh noise. Section 7 counts.)

# %%
show_source(reverse_sde_step)

# %% [markdown]
# **Check**: for the two clouds Bayes' rule can be carried out exactly, on a fine grid of $x_s$. Compare mean
# and variance with those of the step, for shorter and shorter steps.


# %%
def exact_step_back(path, x_t, t, s):
    """Mean and variance of p(x_s | x_t), by Bayes' rule on a grid."""
    (a_t, b_t), (a_s, b_s) = path.points([t, s])[1:]
    grid = torch.linspace(-6, 6, 48_001, dtype=torch.float64)
    ratio = a_t / a_s
    likely = -((x_t - ratio * grid) ** 2) / (2 * (b_t**2 - (ratio * b_s) ** 2))
    share = torch.softmax(likely + density(grid, a_s, b_s).log(), dim=0)
    mean = (share * grid).sum().item()
    return mean, (share * (grid - mean) ** 2).sum().item()


ideal = Denoiser(IdealDenoiser(torch.tensor(CLOUDS)[:, None], vp, std=WIDTH), vp).double()
x_t, t = torch.tensor([[-0.3]], dtype=torch.float64), 0.15
at = torch.tensor(t, dtype=torch.float64)
f, g = vp.drift(at).item(), vp.diffusion(at).item()
table = "| Δt | mean off, in widths of the step | variance over g² Δt |\n| ---: | ---: | ---: |\n"
for dt in (0.1, 0.03, 0.01, 0.003, 0.001):
    mean, variance = exact_step_back(vp, x_t.item(), t, t - dt)
    step = reverse_sde_step(x_t, predict_score(ideal, x_t, t), f=f, g=g, dt=dt).item()
    table += f"| {dt} | {abs(step - mean) / variance**0.5:.3f} | {variance / (g * g * dt):.3f} |\n"
Markdown(table)

# %% [markdown]
# The mean is right soon. The variance takes longer, between two clouds: there a long step back may come from either, so that it is
# wide. (It is chapter 06's section 5 again.) In a short step even that is gone, and what is left is $g^2 \Delta t$.
#
# **What has been shown, and what is claimed.** Each step used Bayes' rule for *pairs*: start from the right $x_t$, draw
# $x_s$ by the step, and the pair has the joint law of the forward process; and so on down, since the film is Markovian in both
# directions. So not only are the densities at every time the same: whole paths are. The two directions of the widget above show one
# and the same set of paths. That is Anderson's theorem (1982): the forward process, seen backwards, is itself the solution of an SDE, with
# this drift and the same $g$. DDIM keeps the densities $p_t$ and *not* the joint law; section 7 measures it.
#
# **DDPM again?** Its ancestral step of chapter 06 with $\varepsilon_\theta = -b\, \operatorname{score}_\theta$ has
# the mean $(x_t + \beta_k \operatorname{score}_\theta) / \sqrt{1 - \beta_k}$, which is
# $x_t + (\tfrac12 x_t + \operatorname{score}_\theta)\, \beta \Delta t + O(\Delta t^2)$: the step above for VP. So DDPM's sampler is one
# discretisation of the reverse SDE among others, and a network trained as a DDPM can be sampled by all of them.

# %%
gaps = []
for T in (100, 200, 400):
    schedule = DiscreteSchedule.linear(T)
    beta, alpha_bar = schedule.betas[T // 2 - 1].item(), vp.a(torch.tensor(0.5)).item() ** 2
    where, at = torch.tensor([[0.4]]).double(), torch.tensor(0.5, dtype=torch.float64)
    score = predict_score(ideal, where, 0.5)
    ancestral = (where + beta * score) / (1 - beta) ** 0.5
    step = reverse_sde_step(
        where, score, f=vp.drift(at).item(), g=vp.diffusion(at).item(), dt=1 / T
    )
    gaps.append((ancestral - step).abs().item())
falls = gaps[0] / gaps[1], gaps[1] / gaps[2]
print(
    f"twice as many steps, and the two steps differ by 1 / {falls[0]:.1f}, 1 / {falls[1]:.1f} of before"
)

# %% [markdown]
# ## 4. Train it, sample it
#
# All that is missing is the score. Chapter 06, section 9, found it: $\nabla \log p_t(x_t) = -\mathbb E[\varepsilon \mid x_t] / b$.
# A network that guesses the noise is a network that knows the score, so that the loss of chapter 06 trains it, with times
# drawn from the whole interval. (Section 5 asks what else could train it.) In the library `score` is
# one of the words of chapter 06's `convert`:

# %%
show_source([Denoiser.loss, predict_score])

# %%
from course_lib.data import toy

torch.manual_seed(0)
live = Denoiser(TimeMLP(2, (96, 96, 96), scale=1000.0), VPPath())
history = fit(
    live,
    toy("pinwheel", 10_000, generator=seeded(0)),
    steps=1500,
    batch_size=256,
    lr=3e-3,
    ema=0.99,
)
print("the loss fell below 0.30:", history.loss() < 0.30)

# %% [markdown]
# **Sample it** by walking the reverse SDE in steps. To replace an SDE by its steps is **Euler and Maruyama's
# method**, and its loop is all there is to a sampler:

# %%
show_source(euler_maruyama)

# %%
states = torch.stack(list(euler_maruyama(live, (2000, 2), steps=200, generator=seeded(1))))
data = toy("pinwheel", 2000, generator=seeded(2))
film = torch.stack(list(sde_forward(live.path, data, steps=200, generator=seeded(3)))).flip(0)
frames = [0, 40, 80, 100, 120, 130, 140, 150, 160, 170, 180, 190, 195, 200]
times = sde_times(live.path, 200)
ParticlePlayer(
    states[frames],
    beside=film[frames],
    titles=("the reverse SDE", "the film, played backwards"),
    trails=states[:, :3],
    beside_trails=film[:, :3],
    labels=[f"t = {times[k]:.2f}" for k in frames],
    extent=(-3, 3, -3, 3),
    role="model",
    beside_role="data",
    title="Construction and demolition, 200 steps each",
    alt="Two round clouds of 2,000 points become pinwheels of five arms, in the same way at the same "
    "times: one by the reverse SDE, the other is a pinwheel that was noised, played backwards.",
)

# %% [markdown]
# At every time the two clouds are alike, and so are the trails: you cannot tell which film runs backwards. (The arms of the
# left one are a little blurred: the network has learned for a few seconds.)

# %% [markdown]
# **A DDPM, unchanged.** The sampler needs a path and a denoiser, no more. DDPM's schedule is a path whose time counts
# steps, and its network has never seen a time between two steps; it doesn't mind.

# %%
digits_ddpm = load_pretrained("ddpm_digits")
between = last(euler_maruyama(digits_ddpm, (12, 1, 8, 8), steps=150, clip=1.0, generator=seeded(2)))
show_figure(
    image_grid(to_unit(between), columns=12, size=0.7),
    alt="A row of twelve 8x8 digits, drawn by a network of chapter 06 in 150 steps of the reverse SDE.",
)

# %% [markdown]
# **How long may a step be?** Start coarse and fine walks from the same noise, and let both feel the same Brownian
# motion: what a coarse step is pushed by is the sum of what the fine ones are. Two kinds of error:
#
# - *strong*: how far the ends are apart, path by path;
# - *weak*: how far a mean over all of them is off (here of $x^2$). It is all that a sampler must care about.
#
# Both fall in proportion to the step, **order 1**. For the weak error that is Euler's usual order. For the strong one it takes a
# reason. What a step misses is the change of the drift on the way, the drift's slope times $g\, \Delta w$, over a time
# $\Delta t$: an error of the size $\Delta t^{3/2}$, but with mean 0 and independent from step to step. $1 / \Delta t$ of them
# add up like a random walk, to $\Delta t^{3/2} \cdot \Delta t^{-1/2} = \Delta t$. (If $g$ depended on $x$, a step would also miss
# $g$'s change, an error of the size $\Delta t$, and the order would be ½.)
#
# The data here are two clouds that overlap. Between clouds far apart a few paths decide differently in coarse steps and in fine ones, and
# rule the strong error; the weak one hardly sees them.

# %%
near = Denoiser(IdealDenoiser(torch.tensor([[-1.0], [1.0]]), vp, std=0.5), vp).double()


def walk(noise):
    """Euler and Maruyama's ends from one start, with noise [N, B, 1] given."""
    x = torch.randn(noise.shape[1:], generator=seeded(5), dtype=torch.float64)
    times = sde_times(vp, len(noise))
    at = torch.tensor(times[:-1], dtype=torch.float64)
    rates = zip(vp.drift(at).tolist(), vp.diffusion(at).tolist())
    for i, (f, g) in enumerate(rates):
        score = predict_score(near, x, times[i])
        x = reverse_sde_step(x, score, f=f, g=g, dt=times[i] - times[i + 1], noise=noise[i])
    return x


finest, counts = 1024, [16, 32, 64, 128, 256]
noise = torch.randn(finest, 1000, 1, generator=seeded(6), dtype=torch.float64)
ends = {
    N: walk(noise.unflatten(0, (N, finest // N)).sum(1) / (finest / N) ** 0.5)
    for N in [*counts, finest]
}
strong = [(ends[N] - ends[finest]).square().mean().sqrt().item() for N in counts]
weak = [abs(ends[N].square().mean() - ends[finest].square().mean()).item() for N in counts]

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(5, 3))
axes = figure.subplots()
for errors, role, label in ((strong, "data", "strong"), (weak, "model", "weak")):
    axes.loglog(counts, errors, "o-", color=PALETTE[role], label=label)
axes.loglog(
    counts,
    [0.6 * strong[-1] * 256 / N for N in counts],
    "--",
    color=PALETTE["noise"],
    label="1 / N",
)
axes.set(title="Errors of Euler and Maruyama's method", xlabel="steps N", ylabel="error")
axes.set_xticks(counts, counts)
axes.minorticks_off()
axes.legend(frameon=False)
figure.tight_layout()
show_figure(
    figure,
    alt="In double logarithmic scale both errors fall along lines of slope about -1.",
)

# %% [markdown]
# In the last step no noise is drawn: there is no later step to take it away again. (Song et al. add a step of Tweedie's
# formula for the same reason.)

# %% [markdown]
# ## 5. How a score is learned
#
# Why not learn the density itself? Because a network's output is not a density until it is divided by its integral, the normalising
# constant, which nobody can compute in many dimensions. The score doesn't know the constant:
# $\nabla \log (q / Z) = \nabla \log q$, for $\log Z$ does not depend on $x$. So fit the score, by its mean squared error:
#
# $$L_{\text{explicit}} = \mathbb E_{x \sim p}\; \tfrac12 \left\| \operatorname{score}_\theta(x) - \nabla \log p(x) \right\|^2 .$$
#
# (half of the **Fisher divergence**). The trouble: the target is unknown. Three ways out.
#
# **Implicit** (Hyvärinen 2005). Multiply out. $\tfrac12 \mathbb E \|\nabla \log p\|^2$ does not depend on $\theta$. The mixed term
# is, since $p\, \nabla \log p = \nabla p$, a sum over the $n$ coordinates of
#
# $$\int \operatorname{score}_i\, \frac{\partial p}{\partial x_i}\, \mathrm dx
#   = \int \Big[ \operatorname{score}_i\; p \Big]_{x_i = -R}^{x_i = R} \mathrm dx_{j \ne i}
#   - \int p\, \frac{\partial \operatorname{score}_i}{\partial x_i}\, \mathrm dx ,$$
#
# by parts along $x_i$, with the other coordinates held. The bracket is the boundary term: for each line along axis $i$, the value of
# $\operatorname{score}_i p$ at its two ends. *If it goes to 0 for $R \to \infty$*, and it does where $p$ falls faster than
# the score grows, then with $J = \partial \operatorname{score}_\theta / \partial x$
#
# $$L_{\text{implicit}} = \mathbb E_{x \sim p} \Big[ \tfrac12 \left\| \operatorname{score}_\theta(x) \right\|^2 + \operatorname{tr} J(x) \Big]
#   = L_{\text{explicit}} - \tfrac12\, \mathbb E \left\| \nabla \log p \right\|^2 .$$
#
# The true score is nowhere in it. In words: be 0 where there are data, and slope downwards there, as around a peak. Its price is the trace: a
# backward pass for each of the $n$ coordinates.
#
# **Sliced** (Song et al. 2019). For random $v$ with $\mathbb E\, v v^\top = I$, such as $n$ coin tosses of $\pm 1$,
#
# $$\operatorname{tr} J = \operatorname{tr} \big( J\, \mathbb E\, v v^\top \big) = \mathbb E\; v^\top J v, \qquad
#   \operatorname{Var}\, v^\top J v = \sum_{i < j} \left( J_{ij} + J_{ji} \right)^2 ,$$
#
# and $v^\top J$ is *one* backward pass. The variance: $v^\top J v = \sum_i J_{ii} + \sum_{i<j} (J_{ij} + J_{ji})\, v_i v_j$,
# the first sum has no chance in it since $v_i^2 = 1$, and the products $v_i v_j$ of different pairs have mean 0, variance 1,
# and no correlation.
#
# **Denoising** (Vincent 2011). Fit the score of *noised* data, $q(x) = \int p(x_0)\, q(x \mid x_0)\, \mathrm dx_0$.
# In the mixed term, write out $q$:
#
# $$\int \operatorname{score}_\theta \cdot \nabla q\; \mathrm dx
#   = \int \!\! \int \operatorname{score}_\theta \cdot\, \nabla q(x \mid x_0)\; p(x_0)\, \mathrm dx_0\, \mathrm dx
#   = \mathbb E\, \operatorname{score}_\theta(x) \cdot \nabla \log q(x \mid x_0) .$$
#
# It is the mixed term of a square with $\nabla \log q(x \mid x_0)$ as its target, known at last: for
# $x = x_0 + \sigma \varepsilon$ it is $-\varepsilon / \sigma$. The square of $\operatorname{score}_\theta$ is the same in both losses, since both
# take $x$ from $q$, and the square of the target has no $\theta$ in it. So, *equal up to a constant*,
#
# $$L_{\text{denoising}} = \mathbb E\; \tfrac12 \left\| \operatorname{score}_\theta(x_0 + \sigma \varepsilon) + \frac{\varepsilon}{\sigma} \right\|^2 .$$
#
# No trace, no boundary terms (a Gaussian vanishes far out, whatever the data are), and the loss of chapter 06. What it
# costs is that only the score of noised data is ever learned, which is just what a diffusion model needs.

# %%
show_source(
    [
        explicit_score_matching,
        implicit_score_matching,
        sliced_score_matching,
        denoising_score_matching,
    ]
)

# %% [markdown]
# **Check**, with data whose score is known: a Gaussian in the plane, and linear "networks" $\operatorname{score}(x) = A x$.
# The first three losses must differ by one constant. For the last the data are two points, so that the noised law is known.

# %%
points = torch.randn(200_000, 2, generator=seeded(7)) @ torch.tensor([[1.0, 0.0], [0.6, 0.8]])
target = -points @ torch.linalg.inv(torch.tensor([[1.36, 0.48], [0.48, 0.64]]))
pair = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).repeat(100_000, 1)
eps = torch.randn(pair.shape, generator=seeded(8))
noised = pair + 0.7 * eps
shares = torch.softmax(-(torch.cdist(noised, pair[:2]) ** 2) / (2 * 0.49), dim=1)
noised_target = (shares @ pair[:2] - noised) / 0.49
table = "| A | explicit | explicit − implicit | explicit − sliced | explicit, noised | that − denoising |\n"
table += "| --- | ---: | ---: | ---: | ---: | ---: |\n"
for rows in ([[-1.0, 0.0], [0.0, -1.0]], [[-1.0, 0.4], [0.9, -2.0]], [[0.0, 0.5], [-0.5, 0.0]]):
    A = torch.tensor(rows)
    net = lambda x, A=A: x @ A.T
    explicit = explicit_score_matching(net, points, target)
    implicit = implicit_score_matching(net, points)
    sliced = sliced_score_matching(net, points, generator=seeded(9))
    on_noised = explicit_score_matching(net, noised, noised_target)
    denoising = denoising_score_matching(net, pair, std=0.7, eps=eps)
    cells = [explicit, explicit - implicit, explicit - sliced, on_noised, on_noised - denoising]
    table += f"| {rows} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |\n"
Markdown(table)

# %% [markdown]
# **Where the boundary bites.** Let the data be uniform on $[0, 1]$: inside, the true score is 0, and $p$ does not vanish at
# the ends. Fit $\operatorname{score}(x) = -c\, (x - \tfrac12)$. The explicit loss $c^2/24$ is least at $c = 0$. The implicit one,
# $c^2 / 24 - c$, is least at $c = 12$: it believes in a Gaussian of the same variance. Pixels, which live between two
# borders, are data of that kind. Noise cures it.

# %%
x = torch.rand(100_000, 1, generator=seeded(10))
slopes = [0, 4, 8, 12, 16]
losses = {
    "explicit": [explicit_score_matching(lambda x, c=c: -c * (x - 0.5), x, 0 * x) for c in slopes],
    "implicit": [implicit_score_matching(lambda x, c=c: -c * (x - 0.5), x) for c in slopes],
}
for name, values in losses.items():
    print(f"{name}: best c among {slopes} is {slopes[torch.stack(values).argmin()]}")

# %% [markdown]
# **Tweedie's formula.** The best answer to the denoising loss is the mean of its target,
# $\nabla \log p_t(x_t) = -\mathbb E[\varepsilon \mid x_t] / b$. Put in $\varepsilon = (x_t - a x_0) / b$, and solve:
#
# $$\mathbb E[x_0 \mid x_t] = \frac{x_t + b^2\, \nabla \log p_t(x_t)}{a} .$$
#
# The best guess of the data is *one step uphill*, of length $b^2$, in the log-density of the noised data. It holds for any
# data; that is what makes a denoiser and a score one thing. **Check**: the mean of $x_0$ by brute force on a grid, against
# the slope of the exact log-density by automatic differentiation.

# %%
grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
worst = 0.0
for t in (0.05, 0.3, 0.6):
    a, b = vp.points([t])[1]
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(density(x_t, a, b).log().sum(), x_t)
    x_t = x_t.detach()
    logs = density(grid, 1.0, 0.0).log() - (x_t[:, None] - a * grid) ** 2 / (2 * b**2)
    brute = torch.softmax(logs, dim=1) @ grid
    worst = max(worst, ((x_t + b**2 * slope) / a - brute).abs().max().item())
print("Tweedie's formula and the mean on a grid agree within 1e-6:", worst < 1e-6)

# %% [markdown]
# **Exercise 3: by hand.** No network needed: which matrix $A$ makes the linear score $-A x$ the best one by the *implicit* loss, on data
# `x` $[N, D]$ whose mean need not be 0?


# %%
def linear_score(x):
    """x [N, D]: A [D, D], for the score −A x."""
    ...


check("08.linear_score", linear_score)

# %% [markdown]
# **Exercise 4: noise of many sizes.** Denoising score matching where each coordinate gets noise of its own size: half the squared
# error, summed over the coordinates and averaged over the batch.


# %%
def denoising_loss(score, x, sigma, noise):
    """x and noise [B, D], sigma [D], score(x) [B, D]: a scalar."""
    ...


check("08.denoising_loss", denoising_loss)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## 6. Which weight for which time?
#
# *You may skip this section. It derives the weight that makes the loss a bound of the likelihood.*

# %% [markdown]
# ### A weight with a meaning
#
# Over all times of a path the loss needs weights,
#
# $$L = \mathbb E_{t,\, x_0,\, \varepsilon}\; \tfrac12\, \lambda(t) \left\| \operatorname{score}_\theta(x_t, t) + \frac{\varepsilon}{b_t} \right\|^2 .$$
#
# With $\lambda = b^2$ it is $\tfrac12 \|\varepsilon - \varepsilon_\theta\|^2$, chapter 06's simple loss: its target has size 1 at every
# time (what is left of it after training hasn't). Is there a weight with a meaning? Compare the true film with the model's, both read backwards in steps. The
# divergence of two chains is that of their first states and, step by step, that of the steps. Each compares two Gaussians of the same variance $g^2 \Delta t$ whose means
# differ by $g^2 \Delta t\, (\nabla \log p_t - \operatorname{score}_\theta)$, so it is half the squared distance over the
# variance, $\tfrac12 g^2 \Delta t\, \| \nabla \log p_t - \operatorname{score}_\theta \|^2$. Add them up. Since looking at
# the last state alone can only make two films harder to tell apart (the **data-processing inequality**),
#
# $$\mathrm{KL}(p_0 \,\|\, p_\theta) \;\le\; \mathrm{KL}(p_1 \,\|\, \mathcal N) + \tfrac12 \int_0^1 g^2(t)\;
#    \mathbb E \left\| \nabla \log p_t - \operatorname{score}_\theta \right\|^2 \mathrm dt :$$
#
# **$\lambda = g^2$ is the likelihood's weight** (Song, Durkan et al. 2021; in continuous time by **Girsanov's theorem**). It counts the times near the data far more. If
# $\operatorname{score}_\theta$ is the score of *some* data noised by the same path, and the model starts from their own end, the two sides are equal:
# read forwards, both films take the same random steps from different data, so that the divergence of the films is that of the data.

# %%
show_source(weighted_score_matching)

# %% [markdown]
# **Check** the equality with two Gaussians. The loss of the wrong score minus the loss of the right one is half the
# weighted distance of the two.

# %%
p_law, q_law = (0.4, 0.5), (-0.3, 0.8)  # mean and standard deviation at t = 0


def noised_law(law, t):
    a, b = vp.points([t])[1]
    return a * law[0], (a * law[1]) ** 2 + b**2


def kl(t):
    (m_p, v_p), (m_q, v_q) = noised_law(p_law, t), noised_law(q_law, t)
    return ((v_p + (m_p - m_q) ** 2) / v_q - 1 + math.log(v_q / v_p)) / 2


t = vp.t_min + (1 - vp.t_min) * (torch.arange(100_000) + 0.5) / 100_000  # every time once
x0 = p_law[0] + p_law[1] * torch.randn(100_000, 1, generator=seeded(11), dtype=torch.float64)
noise = torch.randn(x0.shape, generator=seeded(12), dtype=torch.float64)
by_law = []
for law in (q_law, p_law):
    a, b = vp.amounts(t, x0)
    score = lambda x, t, law=law, a=a, b=b: -(x - a * law[0]) / ((a * law[1]) ** 2 + b**2)
    by_law.append(
        weighted_score_matching(score, x0, path=vp, weighting="likelihood", t=t, eps=noise)
    )
gap = (1 - vp.t_min) * (by_law[0] - by_law[1]).item()
print(f"KL at the start minus KL at the end: {kl(vp.t_min) - kl(1.0):.2f}")
print("and by the weighted losses, within 10 %:", abs(gap / (kl(vp.t_min) - kl(1.0)) - 1) < 0.1)

# %% [markdown]
# The price is noise in the gradient. For VP $g^2 / b^2$ grows like $1/t$ near the data, so a few examples with small $t$ rule a
# batch. In practice one draws those times more often instead of weighting them up.

# %% [markdown]
# ## 7. The equation of the density: Fokker and Planck
#
# Paths are random, but their density is not. Which equation does it obey? Take any smooth function $\varphi$ that vanishes
# far out, on a line for short, and follow its mean through one step, $\Delta x = f x \Delta t + g \sqrt{\Delta t}\, \xi$.
# By Taylor, to first order in $\Delta t$, where $(\Delta x)^2$ counts as $g^2 \Delta t$ (section 1; under the mean, this is **Itô's formula**):
#
# $$\frac{\mathrm d}{\mathrm d t} \int \varphi\, p_t\, \mathrm dx
#   = \int \Big( \varphi'\, f x + \tfrac12\, g^2\, \varphi'' \Big)\, p_t\, \mathrm dx
#   = \int \varphi\, \Big( -\frac{\partial (f x\, p_t)}{\partial x} + \tfrac12\, g^2\, \frac{\partial^2 p_t}{\partial x^2} \Big)\, \mathrm dx .$$
#
# The second step is integration by parts, once and twice; there are no boundary terms, since $\varphi$ vanishes. It holds for *every*
# $\varphi$, and two functions that give the same integrals with every $\varphi$ are the same. Hence the **Fokker–Planck equation**, in any dimension:
#
# $$\frac{\partial p_t}{\partial t} = -f\, \nabla \cdot (x\, p_t) + \tfrac12\, g^2\, \nabla^2 p_t .$$
#
# It is chapter 06's diffusion equation with $D = \tfrac12 g^2$, in a stream that pulls towards the middle. **Check**: solve
# it on a grid from the two clouds, and compare with their smear in closed form, for all three paths.


# %%
def solve_on_a_grid(path, x):
    """The density at t_max, by small steps of the equation from the two clouds at t_min."""
    dx = (x[1] - x[0]).item()
    times = torch.linspace(path.t_min, path.t_max, 4000, dtype=torch.float64)
    fastest = path.diffusion(times).max().item() ** 2
    times = torch.linspace(path.t_min, path.t_max, int(1.2 * fastest / dx**2), dtype=torch.float64)
    dt = (times[1] - times[0]).item()
    p = density(x, *path.points(times[:1].tolist())[1])
    for f, g in zip(path.drift(times[:-1]).tolist(), path.diffusion(times[:-1]).tolist()):
        flow = f * x * p
        p[1:-1] += dt * (
            (flow[:-2] - flow[2:]) / (2 * dx) + g**2 / 2 * (p[2:] - 2 * p[1:-1] + p[:-2]) / dx**2
        )
    return p


for name, path in paths.items():
    reach, cells = (14, 401) if name == "VE" else (5, 251)
    x = torch.linspace(-reach, reach, cells, dtype=torch.float64)
    smear = density(x, *path.points([path.t_max])[1])
    error = (solve_on_a_grid(path, x) - smear).abs().max() / smear.max()
    print(f"{name:>6}: the grid and the smear agree within 2 %: {error.item() < 0.02}")

# %% [markdown]
# **The way back, checked.** Run the clock backwards, with the drift of the reverse SDE turned round. If its density is
# $q$, then
#
# $$-\frac{\partial q}{\partial t} = \nabla \cdot \Big( \big( f x - g^2\, \nabla \log p_t \big)\, q \Big) + \tfrac12\, g^2\, \nabla^2 q .$$
#
# Put in $q = p_t$. As $p_t \nabla \log p_t = \nabla p_t$, the score's term is $-g^2 \nabla^2 p_t$, *twice* what
# the fresh noise adds: one half cancels it, the other takes back the noise of the film. What is left is the equation above. And you see that there
# are more ways back with the same densities: half the score and no noise at all would do (chapter 09), or any share between.
#
# **Exercise 5: derive the ways between.** Let the noise be $\lambda g$ in place of $g$ (in code `lam`). Which drift keeps every density? `lam = 1`
# is the reverse SDE.


# %%
def family_step(x, score, f, g, dt, noise, lam):
    """x, score and noise [B, *event], the others numbers: x [B, *event], dt nearer to the data."""
    ...


check("08.family_step", family_step)

# %% [markdown]
# **Exercise 6: predict.** The data are $\mathcal N(0, 1)$, the path is VP, and $a$ is 0.8 at time $s$ and 0.4 at the later time $t$. You walk
# back by the reverse SDE. What is the correlation of $x_s$ and $x_t$ along its paths? Write a number in place of the dots.

# %%
prediction = ...

check("08.predict_joint", prediction)

# %% [markdown]
# **The densities are not everything.** Only one of these ways has the joint law of the film. Measure it: start 4,000 paths
# from the same $x_1$, by the reverse SDE and by DDIM, and ask how often a path that is above 0 at $t = 0.3$ is
# below 0 in the end, or the other way round.

# %%
n, late = 4000, 0.3
table = "| | covariance of x at t = 0.3 and at the end | share that change sides |\n| --- | ---: | ---: |\n"
x0 = torch.tensor(CLOUDS)[:, None].repeat(n // 2, 1).double()
x0 = x0 + WIDTH * torch.randn(n, 1, generator=seeded(13), dtype=torch.float64)
film = torch.randn(2, n, 1, generator=seeded(14), dtype=torch.float64)
(a_t, b_t), (a_end, b_end) = vp.points([late, vp.t_min])[1:]
x_late = a_t * x0 + b_t * film[0]
z = vp.noised(x0, 1.0, film[1])
steps = 300
k = min(range(steps + 1), key=lambda k: abs(sde_times(vp, steps)[k] - late))
found = {"the film itself": (x_late, x0)}
by_sde = list(euler_maruyama(ideal, z.shape, steps=steps, z=z, generator=seeded(15)))
by_ddim = list(ddim_sample(ideal, z.shape, steps=steps, z=z))
found["reverse SDE"] = by_sde[k], by_sde[-1]
found["DDIM"] = by_ddim[k], by_ddim[-1]
for name, (there, end) in found.items():
    covariance = torch.cov(torch.cat([there, end], dim=1).T)[0, 1].item()
    changed = ((there > 0) != (end > 0)).double().mean().item()
    table += f"| {name} | {covariance:.1f} | {changed:.0%} |\n"
Markdown(table)

# %% [markdown]
# ## 8. Langevin dynamics
#
# Forget the time for a moment. One density $p$ is given, by its score alone. Can you sample it? Let a particle go uphill in the
# log-density and shake it, $\mathrm dx = \nabla \log p\, \mathrm dt + \sqrt 2\, \mathrm dw$; in steps of size $h$,
#
# $$x \leftarrow x + h\, \nabla \log p(x) + \sqrt{2 h}\; \xi$$
#
# (the **unadjusted Langevin algorithm**, ULA). **Its stationary law is $p$.** Fokker–Planck with this drift and $g^2 = 2$ reads
#
# $$\frac{\partial q}{\partial t} = -\nabla \cdot \big( q\, \nabla \log p \big) + \nabla^2 q = \nabla \cdot \Big( q\, \nabla \log \frac{q}{p} \Big),$$
#
# since $\nabla^2 q = \nabla \cdot (q \nabla \log q)$: the right side is 0 for $q = p$. And whatever $q$ is at first, it comes nearer:
# $\mathrm{KL}(q \,\|\, p) = \int q \log (q/p)$ changes by
#
# $$\frac{\mathrm d}{\mathrm d t}\, \mathrm{KL}(q \,\|\, p) = \int \frac{\partial q}{\partial t} \log \frac q p\; \mathrm dx
#   = -\int q\, \Big\| \nabla \log \frac q p \Big\|^2 \mathrm dx \;\le\; 0$$
#
# (by parts; the mass $\int q$ stays 1). With noise $\sqrt{2 h \tau}$, a temperature $\tau$, it is $p^{1/\tau}$ instead: flatter if hot.
#
# **Exercise 7: derive the bias.** Steps of a finite size $h$ do not settle at $p$. At which variance do they, if
# $p = \mathcal N(0, \sigma^2)$ (`variance` is $\sigma^2$)? The next paragraph derives it; find it first.


# %%
def langevin_variance(h, variance):
    """h and variance [B], h below 2 · variance: the variance [B] that a step leaves as it is."""
    ...


check("08.langevin_variance", langevin_variance)

# %% [markdown]
# **A finite step has a bias.** For $p = \mathcal N(0, \sigma^2)$ the score is $-x/\sigma^2$, the step is
# $x \leftarrow (1 - h/\sigma^2)\, x + \sqrt{2h}\, \xi$, and a variance that stays must solve $V = (1 - h/\sigma^2)^2\, V + 2h$:
#
# $$V = \frac{2h}{2h/\sigma^2 - h^2/\sigma^4} = \frac{\sigma^2}{1 - h / (2\sigma^2)} .$$
#
# Too wide, by the share $h/(2\sigma^2)$ for a short step; and from $h = 2 \sigma^2$ on it explodes. The steepest
# direction limits the step; along a flat one, $\sigma$ large, it takes $\sigma^2/h$ steps to forget the start.

# %%
show_source([langevin_step, langevin])

# %%
table = "| h / σ² | variance / σ², by the formula | by 40,000 particles |\n| ---: | ---: | ---: |\n"
for h in (0.1, 0.5, 1.0, 1.5):
    start = torch.randn(40_000, 1, generator=seeded(16))
    x = last(langevin(lambda x: -x, start, step_size=h, steps=60, generator=seeded(17)))
    table += f"| {h} | {1 / (1 - h / 2):.2f} | {x.var().item():.1f} |\n"
Markdown(table)

# %% [markdown]
# **Drop particles into a landscape**, an energy $U = -\log p$: they roll down and are shaken. Change the step size and the temperature. Then take two far
# wells, and drop all particles into one of them: how long until the other has its share? Then press *annealed*.

# %%
x = torch.linspace(-4, 4, 161, dtype=torch.float64)
landscapes = {}
for words, gap, width in (("near wells", 1.0, 0.5), ("far wells", 2.0, 0.5)):
    bells = 0.3 * torch.exp(-((x + gap) ** 2) / (2 * width**2))
    bells = bells + 0.7 * torch.exp(-((x - gap) ** 2) / (2 * width**2))
    landscapes[words] = -bells.log()
landscapes["one well"] = x**2 / 2
Langevin(
    x,
    landscapes,
    step_size=0.05,
    drop=-1.0,
    title="Rolling and shaking",
    alt="Particles lie in the left of two wells; below, their histogram beside the curve of the law "
    "that they should have, which is higher at the right.",
)

# %% [markdown]
# **Why it mixes badly.** From well to well a particle must be shaken over the hill between them. At the top the density is
# smaller by the factor $e^{-\Delta U}$, so it is there for that share of the time only: the waiting time grows like
# $e^{\Delta U}$, exponentially with the height of the hill. Worse, the score knows nothing of how the mass is shared: *inside* each of two
# well-parted clouds $\nabla \log p$ is the same for shares of 30 and 70 % as for any others. And where no data are, nobody has taught the network
# anything.
#
# **Annealing** (Song and Ermon 2019) answers all three: noise the data. At a large noise there is one broad hill, everything mixes at
# once, and the shares are decided. Then walk down through the noise levels, with steps that shrink with the square of the
# narrowest well's width: $b^2$ for data that are points, $(a \cdot 0.25)^2 + b^2$ for our two clouds. It is a diffusion model, in other words, sampled by Langevin steps alone.


# %%
def annealed(steps, levels):
    """Langevin steps at each of some times of VP, from noise to data."""
    x = torch.randn(4000, 1, generator=seeded(18), dtype=torch.float64)
    for k, t in enumerate(torch.linspace(1, 0.01, levels).tolist()):
        a, b = vp.points([t])[1]
        h = 0.2 * ((a * WIDTH) ** 2 + b**2)
        uphill = lambda x, t=t: predict_score(ideal, x, t)
        x = last(langevin(uphill, x, step_size=h, steps=steps, generator=seeded(19 + k)))
    return x


stuck = torch.full((4000, 1), CLOUDS[0]).double()
near_data = lambda x: predict_score(ideal, x, 0.01)
stuck = last(langevin(near_data, stuck, step_size=0.01, steps=600, generator=seeded(20)))
print(f"plain, 600 steps from the left cloud: {(stuck > 0).double().mean():.0%} at the right")
print(
    f"annealed, 600 steps in all: {(annealed(20, 30) > 0).double().mean():.0%} at the right, of 50 %"
)

# %% [markdown]
# ## 9. Predictor and corrector
#
# A step of the reverse SDE goes from one time to the next, and makes an error. A Langevin step stays at its time and leaves $p_t$
# alone, but pulls whatever is *not* $p_t$ towards it. So let both take turns: a **corrector** mends what
# the **predictor** has spoiled, with the same network and no further training. Both cost one call of it.
#
# How far should a corrector go? Song et al. choose $h$ so that the way uphill is $r$ times as long as that of the noise,
#
# $$h\, \left\| \operatorname{score}_\theta \right\| = r\, \sqrt{2h}\, \|\xi\| \quad\Longrightarrow\quad
#   h = 2 \left( r\, \frac{\|\xi\|}{\left\| \operatorname{score}_\theta \right\|} \right)^2 ,$$
#
# which is about $2 r^2 b^2$, as the score is about as long as $\varepsilon / b$: it shrinks along the way as annealing wants it. (The lengths are averaged over the batch, so
# samples depend a little on their neighbours. On VP's path Song et al. multiply this $h$ by $1 - \beta_k$, which is nearly 1, in algorithm 5; in algorithm 4, for VE's, they don't.)

# %%
show_source([corrector_step_size, predictor_corrector])

# %% [markdown]
# **Equal calls.** Ten digits from the same noise, by the reverse SDE alone (*SDE*), with a corrector (*PC*), and by DDIM, at the
# same number of calls of the network, `score_digits_vp`. Move over the table; the numbers are feature distances (chapter 06). Which sampler
# needs most calls, and which changes its digits with their number?

# %%
score_digits = load_pretrained("score_digits_vp")
samplers = load_card("score_digits_vp")["metrics"]["samplers"]
distances = {(row["sampler"], row["calls"]): row["distance"] for row in samplers}
z = torch.randn(10, 1, 8, 8, generator=seeded(2))
all_calls, names = [8, 16, 32, 64], ["Euler-Maruyama", "predictor-corrector", "DDIM"]
strips = []
for calls in all_calls:
    by_sde = euler_maruyama(score_digits, z.shape, steps=calls, z=z, clip=1.0, generator=seeded(3))
    corrected = predictor_corrector(
        score_digits, z.shape, steps=calls // 2, z=z, clip=1.0, generator=seeded(3)
    )
    by_ddim = ddim_sample(score_digits, z.shape, steps=calls, z=z, clip=1.0)
    strips.append(torch.stack([last(states) for states in (by_sde, corrected, by_ddim)]))
SampleTable(
    to_unit(torch.stack(strips).clamp(-1, 1)),
    rows=("calls", all_calls),
    columns=("sampler", ["SDE", "PC", "DDIM"]),
    quality=[[distances[name, calls] for name in names] for calls in all_calls],
    quality_label="feature distance",
    title="The same noise and as many calls, by three samplers",
    alt="A table of four numbers of calls by three samplers, and ten digits for the chosen cell: "
    "at 8 calls speckled by the SDE, noise with the corrector, clear by DDIM; at 64 all clear.",
)

# %% [markdown]
# ## How good is it?
#
# First the published numbers, the FID of CIFAR-10 (Song et al. 2021, table 1; means of five runs). *P1000* is a predictor alone with
# 1,000 steps, *P2000* with 2,000, *PC1000* has 1,000 of each kind and costs as much as P2000.

# %%
published = {  # VE: P1000, P2000, PC1000; VP: P1000, P2000, PC1000
    "ancestral sampling": (4.98, 4.88, 3.62, 3.24, 3.24, 3.21),
    "reverse diffusion": (4.79, 4.74, 3.60, 3.21, 3.19, 3.18),
    "probability flow (chapter 09)": (15.41, 10.54, 3.51, 3.59, 3.23, 3.06),
}
table = "| FID, CIFAR-10 | VE, P1000 | P2000 | PC1000 | VP, P1000 | P2000 | PC1000 |\n"
table += "| --- |" + " ---: |" * 6 + "\n"
for sampler, row in published.items():
    table += f"| {sampler} | " + " | ".join(f"{fid:.2f}" for fid in row) + " |\n"
Markdown(table)

# %% [markdown]
# *Corrector alone*, 2,000 Langevin steps, has 20.43 (VE) and 19.06 (VP). Their best networks have an FID of **2.20**
# (table 3, row *NCSN++ cont. (deep, VE)*), and sub-VP the best likelihood, **2.99** bits per dimension (table 2, row
# *DDPM++ cont. (deep, sub-VP)*; chapter 09 says how it is computed). Now ours: feature distance of 1,000 samples to the test
# digits, at equal calls of the network.

# %% jupyter={"source_hidden": true}
table = ""
for kind, card in {
    "VP": "score_digits_vp",
    "VE": "score_digits_ve",
    "sub-VP": "score_digits_subvp",
}.items():
    rows = [row for row in load_card(card)["metrics"]["samplers"] if row["sampler"] in names]
    distances = {(row["sampler"], row["calls"]): row["distance"] for row in rows}
    calls = sorted({row["calls"] for row in rows})
    table += f"| {kind}, calls | " + " | ".join(f"{n}" for n in calls) + " |\n"
    table += "| --- |" + " ---: |" * len(calls) + "\n"
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        found = [distances.get((sampler, n)) for n in calls]
        cells = ["" if distance is None else f"{distance:.1f}" for distance in found]
        table += f"| {sampler} | " + " | ".join(cells) + " |\n"
    table += "\n"
real = load_card("classifier_digits")["metrics"]
FLOOR = "feature distance, 1,000 training images"
table += (
    f"Real training images: {real[FLOOR]:.1f}, and one draw of a thousand differs from another by "
)
table += f"{real[FLOOR + ', spread']:.1f}."
Markdown(table)

# %% [markdown]
# How to read it:
#
# - **In the paper a corrector always helps against the same number of predictor steps**, and for VE by far: 4.98 becomes 3.62.
#   At *equal calls* it wins for VE (4.88 against 3.62) and hardly for VP (3.24 against 3.21). Under another way to place the 2,000
#   steps (their table 4) VP's predictor alone even wins, 3.11.
# - **A corrector can't replace the predictor**: 20.43 and 19.06.
# - **On our digits few calls are badly spent on correcting**, under VP, VE and sub-VP alike: half of them do not get on in time. At 8 calls the
#   corrector is far behind, at 64 still a little, at 128 ahead: by as much as chance differs under VP and sub-VP, by twice that under VE. The paper's 2,000 calls are
#   another world: there the predictor's error is small, and what a corrector mends is perhaps the network's own.
# - **DDIM is ahead of both** until 32 calls under VP, for its way is smooth (section 7's half of the score, and no noise). At 64 the reverse
#   SDE has caught up with it (6.0 and 6.2); the corrector (8.6) needs 128. From 64 to 128 the reverse SDE alone gets worse again under all
#   three, by one to two and a half times what chance does. We did not find out why, and part of the corrector's lead at 128 is owed to it.
# - **Not to be compared with ours** are the values themselves: photographs in colour, another network, another measure. Compare the order
#   of the rows.
#
# ## What to take away
#
# - A noising process is two numbers for each time, $f$ and $g$, and they follow from $a$ and $b$. Noise grows like the root of the time.
# - The way back has the same $g$ and a drift with the score: $f x - g^2 \nabla \log p_t$. Bayes' rule on one short step
#   gives it, and with it the joint law of the whole film.
# - The score needs no normalising constant. Explicit, implicit and (on average) sliced score matching have the same gradients, and so has
#   denoising for noised data; the last is the loss of chapter 06.
# - Densities obey Fokker and Planck's equation. More than one way back has the same densities.
# - Langevin steps leave a density alone: they correct. Alone they mix badly, and are a little too wide.
#
# **What does not work well.** Euler and Maruyama's steps of equal length are wasteful: on our digits they need about twice as many
# calls as DDIM (32 to 64 in place of 16 to 32), and the paper gave them 1,000 and 2,000. Under VE a step must be short against $1 / (2 \log(\sigma_{\max} / \sigma_{\min}))$, the time in which its noise falls by $\sqrt e$. Near the data the score has no bound, so that
# every method must stop a little before. And an SDE gives samples, but neither a likelihood nor a code: that takes the ODE.
#
# **What came after.**
#
# - *Steps and networks designed for it*, on one path: Karras et al. 2022, [EDM](https://arxiv.org/abs/2206.00364) (chapter 10).
# - *Why it works at all*: a good score and enough steps suffice, for nearly any data (Chen et al. 2023,
#   [Sampling is as easy as learning the score](https://arxiv.org/abs/2209.11215)).
# - *Between two data sets rather than data and noise*: De Bortoli et al. 2021,
#   [Diffusion Schrödinger bridge](https://arxiv.org/abs/2106.01357); *with inertia*: Dockhorn et al. 2022,
#   [Critically-damped Langevin diffusion](https://arxiv.org/abs/2112.07068).
# - *Training for the likelihood*, section 6: Song, Durkan et al. 2021,
#   [Maximum likelihood training](https://arxiv.org/abs/2101.09258).
#
# **Next, chapter 09:** leave out the noise altogether, and take half of the score. The densities stay what they are, and the way
# becomes smooth, invertible, and measurable.

# %% [markdown]
# [← 07 · DDIM](07_ddim.ipynb) | [Contents](../README.md#chapters) | [09 · ODEs and flow matching →](09_ode.ipynb)
