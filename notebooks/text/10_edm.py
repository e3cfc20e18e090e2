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
# [← 09 · ODEs and flow matching](09_ode.ipynb) | [Contents](../README.md#chapters) | [11 · Guidance →](11_guidance.ipynb)

# %% [markdown]
# # 10 · EDM
#
# **All diffusion models so far are one formula with different settings. Write it down once, choose every setting for a
# reason of its own, and any trained network runs under any sampler, in tens of calls.**
#
# | | |
# | --- | --- |
# | You need | chapters 06 and 07: $x_t = a x_0 + b \varepsilon$, DDIM; chapter 08: $f$, $g$ and the score; chapter 09: the probability-flow ODE, Heun, order |
# | Time | 50 minutes to read, two hours with the exercises |
# | The short way | 30 minutes: sections 1 to 3 and 5, *How good is it?* and *What to take away*, without what is called a check |
# | You will meet | one general noising formula, log-SNR matching, preconditioning, Karras' noise levels, curvature, churn, exponential integrators, DPM-Solver++ |
# | Papers | Karras et al. 2022, [EDM](https://arxiv.org/abs/2206.00364); Lu et al. 2022, [DPM-Solver++](https://arxiv.org/abs/2211.01095); Kingma et al. 2021, [Variational diffusion models](https://arxiv.org/abs/2107.00630) |
# | Source article | 基于 *Elucidating the Design Space* 来统一扩散模型框架, "One frame for diffusion models, after EDM": three ways of noising in one formula (in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter). The network is chapter 06's, a DDPM whose way has 400 small steps; nothing is trained
# anew. DDIM samples it on its own path. The two other columns see the same network *from another path*, which it has never
# met, and with samplers that were invented after it. All cells start from the same noise. Move over the table: the number says how far the digits are
# from where 40 steps of Heun's method lead on EDM's path (0 is there, and 1 is half of the grey scale).

# %%
import math
from functools import partial
from itertools import pairwise

import torch

from course_lib.data import load_digits, to_signed, to_unit
from course_lib.diffusion import (
    EDM,
    EDMPath,
    ddim_sample,
    dpm_solver_sample,
    heun_sample,
    last,
    on_path,
)
from course_lib.nn import UNet
from course_lib.notebook import one_thread, seeded
from course_lib.training import checkpoint_folder, fit, load_card, load_pretrained, load_study
from course_lib.widgets import DesignSpace, OperatingPoint, Preconditioning, SampleTable

one_thread()  # models this small are slower on two

# %%
ddpm = load_pretrained("ddpm_digits")
seen = on_path(ddpm, EDMPath())
eps = torch.randn(10, 1, 8, 8, generator=seeded(2))
z = seen.path.start_std * eps
there = last(heun_sample(seen, z.shape, steps=40, z=z))


def by_three(calls):
    """The same noise by three samplers, with as many calls of the network for each."""
    yield last(ddim_sample(ddpm, eps.shape, steps=calls, z=eps))
    yield last(heun_sample(seen, z.shape, steps=(calls + 1) // 2, z=z))
    yield last(dpm_solver_sample(seen, z.shape, steps=calls, z=z))


all_calls = [9, 17, 35]
table = torch.stack([torch.stack(list(by_three(calls))) for calls in all_calls])
SampleTable(
    to_unit(table),
    rows=("calls", all_calls),
    columns=("sampler", ["DDIM", "Heun on EDM", "DPM++ on EDM"]),
    quality=(table - there).square().mean((2, 3, 4, 5)).sqrt(),
    quality_label="distance to the end",
    title="One network of chapter 06, on two paths",
    alt="A table of three numbers of calls by three samplers, and ten digits for the chosen cell: "
    "much the same digits in every cell, but for Heun at 9 calls, whose digits are torn.",
)

# %% [markdown]
# Three things to notice:
#
# - **The network doesn't mind.** It was told 400 whole times in training, and is asked now at noise levels in between, about states of another size.
#   Yet the digits are its own.
# - **One noise, one digit.** Path and sampler decide how fast one comes to the end, not where the end is, if only the steps are short enough.
# - **Which sampler is best depends on the calls.** At 9 Heun is the worst by far; at 35 it has overtaken DDIM, and DPM++ is nearest. The last section
#   asks whether the digits are better for it.

# %% [markdown]
# ## The idea
#
# Chapters 06 to 09 brought a model each, and each came as a package: a path, a thing to predict, a weight in the loss, times, a
# sampler, derived together and never parted since. Karras and his co-authors asked which of these ties are mathematics, and which
# are habit. Their answer, and the source article's: *a trained network knows one thing, the guess of $x_0$ at each noise level. All
# the rest is a choice, and each choice can be made alone.*
#
# So this chapter first writes the simplest model of all, and trains it. Then it shows that every earlier one is the same thing in other words, and
# then it goes through the choices, one section each, and asks of each what it costs and what it buys.
#
# Letters as everywhere in this course: time runs from the data to the noise, and $x_t = a x_0 + b \varepsilon$. The paper writes
# $s(t)$ for our $a$ and $\sigma(t)$ for $b / a$. In sections 2 to 4, which follow the article, $s$ is written, too.
#
# | symbol | meaning |
# | --- | --- |
# | $x_0$; $\varepsilon$; $x_t$ | data; standard normal noise; the state at time $t$ |
# | $\sigma$; $x$ | the noise level $b / a$; a state with $a = 1$, $x = x_0 + \sigma \varepsilon$ |
# | $a$, $b$; $s(t)$, $\sigma(t)$ | a path, $x_t = a x_0 + b \varepsilon$; the same path in the paper's letters, $a = s$, $b = s \sigma$ |
# | $s'$, $\sigma'$; $y = x_t / s$ | derivatives by $t$; the state on EDM's path |
# | $\tilde a$, $\tilde b$, $\tilde t$; $k$ | another path and its time; the number that brings $x$ to its size there |
# | $D(x; \sigma)$; $F$ | the guess of $x_0$, $\mathbb E[x_0 \mid x]$ or a model's; the raw network in it |
# | $c_{\text{skip}}$, $c_{\text{out}}$, $c_{\text{in}}$, $c_{\text{noise}}$ | what $D$ is made of: numbers that depend on $\sigma$ |
# | $\sigma_{\text{data}}$ | the size of the data, the root of their mean square |
# | $\lambda$; $L$ | the weight of a noise level in the loss; the loss |
# | $f$, $g$; $w$; $u$ | drift and diffusion of an SDE; Brownian motion; a time that is integrated over |
# | $m$, $V$ | mean and variance of $x_t$ for one given $x_0$ |
# | $p_t$ | the density of $x_t$ |
# | $\rho$; $\sigma_i$; $N$, $i$ | the exponent of Karras' levels; a level; their number, and a count |
# | $\gamma$; $\hat\sigma$, $\hat x$; $\xi$; $S_{\text{churn}}$ | churn: the share by which a level is raised; the raised level and its state; fresh noise; how much, over all steps |
# | $\tau = -\log \sigma$; $h$; $\sigma_\to$ | half of the log-SNR; a step of it; the level that a step leads to |
# | $D_i$ | the guess at the $i$-th level |
# | $\mathbb E$; $\mathcal N$ | a mean; a normal density |

# %% [markdown]
# ## 1. The simplest diffusion model
#
# Noise data by adding noise, and nothing else: $x = x_0 + \sigma \varepsilon$. The noise level $\sigma$ is the time. A network
# learns the guess $D(x; \sigma)$ of $x_0$. Its score is $(D - x) / \sigma^2$ (chapter 08), and the probability flow of chapter 09,
# with $f = 0$ and $\tfrac12 g^2 = \sigma$, is
#
# $$\frac{\mathrm d x}{\mathrm d \sigma} = -\sigma\, \nabla \log p_\sigma(x) = \frac{x - D(x; \sigma)}{\sigma} .$$
#
# Read it as a picture: from each point the way to less noise leads *straight to the guess*. One step from $\sigma$ to 0 would land on it; along
# the way the guess gets better, and the way bends.
#
# A network should not have to deal with states from 0.002 to 80 in size. So the guess is wrapped: some of $x$ itself, and some
# of the raw network $F$, which sees $x$ brought to size 1,
#
# $$D(x; \sigma) = c_{\text{skip}}\, x + c_{\text{out}}\, F\big( c_{\text{in}}\, x;\; c_{\text{noise}} \big),$$
#
# $$c_{\text{skip}} = \frac{\sigma_{\text{data}}^2}{\sigma^2 + \sigma_{\text{data}}^2}, \quad
#   c_{\text{out}} = \frac{\sigma\, \sigma_{\text{data}}}{\sqrt{\sigma^2 + \sigma_{\text{data}}^2}}, \quad
#   c_{\text{in}} = \frac{1}{\sqrt{\sigma^2 + \sigma_{\text{data}}^2}}, \quad
#   c_{\text{noise}} = \tfrac14 \log \sigma .$$
#
# Section 5 derives all of these from two demands. The loss is the plain squared error, with a weight for each level, and levels drawn where there is
# something to learn: $\log \sigma$ is normal, with mean $-1.2$ and standard deviation 1.2,
#
# $$L = \mathbb E_{x_0,\, \varepsilon,\, \sigma}\; \lambda(\sigma)\, \big\| D(x_0 + \sigma \varepsilon;\, \sigma) - x_0 \big\|^2,
#   \qquad \lambda = \frac{1}{c_{\text{out}}^2} .$$

# %%
from course_lib.diffusion import Preconditioned
from course_lib.exercises import check, hint, show_source, solution

show_source([Preconditioned.factors, Preconditioned.forward, EDM.draw, EDM.weight, EDM.loss])

# %% [markdown]
# **Train it**, live, on the digits. The size of the data is measured first: it is all that the model wants to know of them.

# %%
digits = to_signed(load_digits("train")[0])
sigma_data = digits.square().mean().sqrt().item()
print(f"the digits' size: {sigma_data:.2f}")

torch.manual_seed(0)
live = EDM(UNet((1, 8, 8), widths=(16, 32), scale=1000.0), sigma_data=sigma_data)
history = fit(live, digits, steps=300, batch_size=64, lr=5e-3, ema=0.98)
print("the first loss is 1, within a tenth:", abs(history.losses[0] - 1) < 0.1)
print("the loss fell below 0.45:", history.loss() < 0.45)

# %% [markdown]
# (As everywhere in the code, the loss is the mean over the numbers of an image where the formula has the sum.) A network that knows nothing and says 0 has a loss of 1, at every level, whatever the data: that is what the factors are for. Now sample, from
# pure noise at $\sigma = 80$ down to $\sigma = 0.002$, in 3, 6 and 18 steps of Heun. (Why three are not enough: their levels are 80, 2.5 and 0.002. Section 6 asks where levels belong.)

# %%
from course_lib.widgets import PALETTE, image_grid, show_figure

z = 80 * torch.randn(12, 1, 8, 8, generator=seeded(1))
made = [last(heun_sample(live, z.shape, steps=steps, z=z)) for steps in (3, 6, 18)]
show_figure(
    image_grid(
        to_unit(torch.cat(made)),
        columns=12,
        titles=["3 steps, 5 calls", "6, 11 calls", "18, 35 calls"],
    ),
    alt="Three rows of twelve 8x8 digits that the model just trained has made from the same noise: "
    "speckles with 3 steps, shapes like digits with 6, and with 18 most of them digits.",
)

# %% [markdown]
# ## 2. Three ways of noising, one formula
#
# Put the models that you have met side by side, by how they get from data to the state at time $t$:
#
# | | the state at time $t$ | $s(t)$ | $\sigma(t)$ |
# | --- | --- | --- | --- |
# | flow matching (09) | $x_t = (1 - t)\, x_0 + t\, \varepsilon$ | $1 - t$ | $t / (1 - t)$ |
# | score matching, VE (08) | $x_t = x_0 + \sigma_t\, \varepsilon$ | 1 | $\sigma_t$ |
# | DDPM, DDIM, VP (06, 07, 08) | $x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon$ | $\sqrt{\bar\alpha_t}$ | $\sqrt{1 / \bar\alpha_t - 1}$ |
#
# All three shrink the data by some $s(t)$, and noise what is left with some $\sigma(t)$:
#
# $$x_t = s(t)\, x_0 + s(t)\, \sigma(t)\, \varepsilon = s(t)\, \big( x_0 + \sigma(t)\, \varepsilon \big).$$
#
# The bracket is EDM's state at the level $\sigma(t)$. **So $s$ only rescales it, and $\sigma(t)$ only says how fast time runs.** The rest of the section makes
# sure of that, for the SDE and for the ODE.
#
# **Its SDE.** Look for $\mathrm dx = f(t)\, x\, \mathrm dt + g(t)\, \mathrm dw$ that noises like this. Hold $x_0$. In a short time the mean becomes
# $(1 + f\, \mathrm dt)\, m$, for the noise has mean 0. That is an equation for the mean alone, and it has one solution that starts at $x_0$:
#
# $$\frac{\mathrm dm}{\mathrm dt} = f(t)\, m \quad\Longrightarrow\quad m(t) = x_0\, \exp \int_0^t f(u)\, \mathrm du .$$
#
# (Check it: the derivative of the exponential is $f$ times itself.) The mean has to be $s(t)\, x_0$. So $s = \exp \int f$, and $f = s' / s$.
#
# The variance becomes $(1 + f\, \mathrm dt)^2\, V + g^2\, \mathrm dt$, as the noise of the step is independent of the state. To first order
# $V' = 2 f V + g^2$. To solve it, look at $V / s^2$, whose derivative is $V' / s^2 - 2\, (s'/s)\, V / s^2 = (V' - 2 f V) / s^2$:
#
# $$\frac{\mathrm d}{\mathrm dt} \frac{V}{s^2} = \frac{g^2}{s^2} \quad\Longrightarrow\quad
#   V(t) = s(t)^2 \int_0^t \frac{g(u)^2}{s(u)^2}\, \mathrm du .$$
#
# It has to be $s^2 \sigma^2$. So $\sigma^2$ is the integral, and its derivative $2 \sigma \sigma'$ is $g^2 / s^2$:
#
# $$f = \frac{s'}{s}, \qquad g = s\, \sqrt{2\, \sigma\, \sigma'} .$$
#
# The data, not known, are averaged over afterwards; nothing above changes. (Where there is noise at $t = 0$ already, as in VE, add its variance to the integral.)
#
# **Its ODE.** Chapter 09: $\mathrm dx/\mathrm dt = f x - \tfrac12 g^2\, \nabla \log p_t$. The guess of $x_0$ from $x_t$ is $D(x_t / s; \sigma)$, since $x_t / s$
# is EDM's state, and the score is $(s D - x_t) / (s \sigma)^2$. Insert $f$, $g$ and this:
#
# $$\frac{\mathrm dx}{\mathrm dt} = \frac{s'}{s}\, x - s^2 \sigma \sigma'\, \nabla \log p_t(x)
#   = \frac{s'}{s}\, x + \frac{\sigma'}{\sigma}\, \Big( x - s\, D\big( \tfrac xs;\, \sigma \big) \Big).$$
#
# Now take $y = x / s$. By the quotient rule $\mathrm dy/\mathrm dt = x'/s - s' x / s^2 = \frac{\sigma'}{\sigma} (y - D(y; \sigma))$, and with
# $\sigma' \mathrm dt = \mathrm d\sigma$
#
# $$\boxed{\;\frac{\mathrm dy}{\mathrm d\sigma} = \frac{y - D(y;\, \sigma)}{\sigma}\;}$$
#
# No $s$ and no $t$ is left. **All paths go the same way.** They draw it at another scale, and walk it at another pace.

# %%
from course_lib.diffusion import GaussianPath

show_source([GaussianPath.noised, GaussianPath.drift, GaussianPath.diffusion])

# %% [markdown]
# **Check** on the paths of the course: $f$ and $g$, which the library takes from $a$ and $b$ by automatic differentiation, are $s'/s$ and
# $s \sqrt{2 \sigma \sigma'}$; and the velocity of each path, carried over to $y$ and $\sigma$, is EDM's, for data in two clusters whose guess is known.

# %%
from course_lib.diffusion import (
    Denoiser,
    DiscreteSchedule,
    IdealDenoiser,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
)

clusters, WIDTH = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.1
paths = {
    "DDPM": DiscreteSchedule.linear(1000),
    "VP": VPPath(),
    "VE": VEPath(),
    "sub-VP": SubVPPath(),
    "straight": StraightPath(),
}


def exact(path):
    """A model that knows the guess for two clusters, on a path."""
    return Denoiser(IdealDenoiser(clusters, path, std=WIDTH), path).double()


y = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
for name, path in paths.items():
    t = path.time_at(torch.tensor(1.0))  # where the log-SNR is 1
    s, ds, sigma = path.a(t), path.da(t), path.b(t) / path.a(t)
    dsigma = (path.db(t) - sigma * ds) / s
    off = [path.drift(t) - ds / s, path.diffusion(t) - s * (2 * sigma * dsigma) ** 0.5]
    dx = exact(path).predict(s * y, t.item(), target="velocity")
    dy = (dx / s - ds / s * y) / dsigma
    D = exact(EDMPath()).predict(y, sigma.item(), target="x0")
    off.append((dy - (y - D) / sigma) / (1 + abs(dy)))
    print(
        f"{name:>8}: SDE and ODE are those of one form, within 1e-6:",
        max(abs(v).max() for v in off).item() < 1e-6,
    )

# %% [markdown]
# ## 3. Any network on any path
#
# If all paths go one way, a network that was trained on one can be asked from any other. Two numbers are needed. Let the network's path be
# $\tilde a, \tilde b$, and ours $a, b$. The states must have the same ratio of data to noise, the same **log-SNR** $\log a^2 / b^2$, and
# $x_t$ must be brought to the size that it would have over there:
#
# $$\frac{\tilde a(\tilde t\,)}{\tilde b(\tilde t\,)} = \frac{a(t)}{b(t)}, \qquad
#   k = \frac{\tilde a(\tilde t\,)}{a(t)} = \frac{\tilde b(\tilde t\,)}{b(t)} .$$
#
# Then $k x_t = \tilde a x_0 + \tilde b \varepsilon$ *is* a state of the network's path at its time $\tilde t$, and what it says about $x_0$ and
# $\varepsilon$ holds here. Nothing is approximated. The rest is book-keeping: the path is cut where the network knows nothing, below and above the
# noise levels of its training. (Kingma et al. 2021 measured time by the log-SNR first, and showed that even the likelihood's bound depends on the path only by the log-SNR at its two ends.)

# %%
from course_lib.diffusion import OnPath

show_source([GaussianPath.time_at, OnPath.match, OnPath.forward, on_path])

# %% [markdown]
# (`match` divides the two sizes $\sqrt{a^2 + b^2}$, which gives the same $k$ also where $a$ is 0.)
#
# **Four networks, three paths.** From chapters 06, 08 and 09, each with its own network and path; three say the noise, the last a velocity. Every cell is sampled by 16 steps of Heun in
# that path's own time, on EDM's at the levels of section 6. The number says how far a cell is from where 40 such steps lead on EDM's path. The digits of a row are one network's, from one noise.

# %%
from course_lib.diffusion import ode_sample

networks = {
    "DDPM": ddpm,
    "VP score": load_pretrained("score_digits_vp"),
    "VE score": load_pretrained("score_digits_ve"),
    "flow": load_pretrained("flow_matching_digits"),
}
views, off, eps = [], [], eps[:6]
for model in networks.values():
    edm = on_path(model, EDMPath())
    end = last(heun_sample(edm, eps.shape, steps=40, z=edm.path.start_std * eps))
    row = [last(heun_sample(edm, eps.shape, steps=16, z=edm.path.start_std * eps))]
    for path in (VPPath(), StraightPath()):
        own = type(path) is type(model.path)
        other = model if own else on_path(model, path)
        start = other.path.start_std * eps
        row.append(last(ode_sample(other, eps.shape, steps=16, solver="heun", z=start)))
    views.append(torch.stack(row))
    off.append([(x - end).square().mean().sqrt().item() for x in row])
SampleTable(
    to_unit(torch.stack(views)),
    rows=("network", list(networks)),
    columns=("seen from", ["EDM's path", "VP", "the straight path"]),
    quality=off,
    quality_label="distance to the end",
    title="Four networks, each seen from three paths",
    alt="A table of four networks by three paths, and six digits for the chosen cell. Along a row the "
    "digits are the same, with small differences.",
)

# %% [markdown]
# Now compare the rows. Four networks that were trained apart, on three paths, to say two different things, make much the same digit of one noise:

# %%
ends = torch.stack([row[0] for row in views])
apart = lambda x, y: (x - y).square().mean().sqrt().item()
same = [apart(ends[i], ends[j]) for i in range(4) for j in range(i)]
print(f"two networks, one noise: {sum(same) / len(same):.1f} apart")
print(f"one network, two noises: {apart(ends, ends.roll(1, dims=1)):.1f}")

# %% [markdown]
# They all approximate one and the same thing, the guess $\mathbb E[x_0 \mid x]$ of the data. (Song et al. 2021 remarked on it: a latent belongs to the data, not to the network.)
#
# One kind of network can't be seen so: flow matching *with optimal transport* (chapter 09). There $\varepsilon$ depends on $x_0$, so that $x_t$ given $x_0$ is no Gaussian, and what the
# network says is no guess of $x_0$ at a noise level. `on_path` can't know that. You have to.
#
# **Check.** 200 steps of DDIM, on DDPM's own path, end where Heun ended on EDM's in *See it*, up to the errors of both (the whole grey scale is 2):

# %%
few = eps[:4]
x = last(ddim_sample(ddpm, few.shape, steps=200, z=few))
print(
    "DDIM and Heun end within 0.02 of each other:",
    (x - there[:4]).square().mean().sqrt().item() < 0.02,
)

# %% [markdown]
# **Exercise 1: derive.** A network of flow matching shall serve a path with amounts $a$ and $b$. At which time do you ask it, and by what do you multiply $x$ before?
# (`hint("10.matched_time")` helps, as with every exercise; `solution(...)` shows what the library does; every `check` judges your function on fresh random
# inputs.)


# %%
def matched_time(a, b):
    """a and b [B], above 0: t [B] on the straight path, and the scale [B]."""
    ...


check("10.matched_time", matched_time)

# %% [markdown]
# ## 4. What is free
#
# Here is the whole list of choices. *When training*: how $D$ is made of the raw network (the four factors), the weight $\lambda$, and at which noise
# levels to train. *When sampling*: the path $s$, $\sigma$, the times of the steps, the solver, and how much noise to add on the way. **A choice is free if
# changing it alone leaves the density of the samples the same for a perfect network and infinitely many steps.** All of these are; noise on the way leads one start to
# another image, but all images together to the same density. So each may be judged by what it costs when network and steps are not perfect.
#
# **Each earlier model is a row.** The table is not typed: `settings` takes a model apart. It asks what $D$ is, as a function of what the network says, on the model's own path.

# %%
from course_lib.diffusion import settings

show_source(settings)

# %% [markdown]
# The numbers at one level, $\sigma = 2$. At three levels they are compared with formulas derived by hand:

# %%
from IPython.display import Markdown

sigma = torch.tensor([0.05, 0.5, 2.0], dtype=torch.float64)
root = (sigma**2 + 1) ** 0.5
size = (sigma**2 + sigma_data**2) ** 0.5
# s, c_skip, c_out, c_in and λ by hand
by_hand = {
    "DDPM": (1 / root, 1, -sigma, 1 / root, 1 / sigma**2),
    "VP score": (1 / root, 1, -sigma, 1 / root, 1 / sigma**2),
    "VE score": (1, 1, -sigma, 1 / root, 1 / sigma**2),
    "flow": (
        1 / (1 + sigma),
        1 / (1 + sigma),
        -sigma / (1 + sigma),
        1 / (1 + sigma),
        (1 + 1 / sigma) ** 2,
    ),
    "EDM": (
        1,
        sigma_data**2 / size**2,
        sigma * sigma_data / size,
        1 / size,
        size**2 / (sigma * sigma_data) ** 2,
    ),
}
names = ("s", "c_skip", "c_out", "c_in", "weight")
rows, agree = "| at σ = 2 | s | c_skip | c_out | c_in | λ |\n| --- |" + " ---: |" * 5 + "\n", True
for name, model in (networks | {"EDM": live}).items():
    found = settings(model, sigma)
    for key, formula in zip(names, by_hand[name], strict=True):
        agree &= (found[key] / formula - 1).abs().max().item() < 1e-6
    rows += f"| {name} | " + " | ".join(f"{found[key][2]:.3f}" for key in names) + " |\n"
print("all equal the formulas by hand, at three levels, within 1e-6:", agree)
Markdown(rows)

# %% [markdown]
# | | path: $s$, $\sigma(t)$ | steps of its sampler | $D$ from the network | trained at |
# | --- | --- | --- | --- | --- |
# | DDPM, DDIM | $\sqrt{\bar\alpha_t}$, $\sqrt{1/\bar\alpha_t - 1}$ | whole times; with noise, or Euler's | $x - \sigma F(s x)$ | whole times, evenly |
# | VP | the same, for $T \to \infty$ | even in $t$ | $x - \sigma F(s x)$ | $t$ evenly |
# | VE | 1, geometric | even in $t$: geometric in $\sigma$ | $x - \sigma F(c_{\text{in}}\, x)$ | $\log \sigma$ evenly |
# | flow matching | $1 - t$, $t / (1 - t)$ | even in $t$; Euler, Heun | $s x - t F(s x)$ | $t$ evenly |
# | EDM | 1, $t$ | Karras' levels; Heun, churn | section 5 | $\log \sigma$ normal |
#
# What differs from the paper's table 1: its VE has $\sigma(t) = \sqrt t$ with geometric steps, which are the same noise levels as ours, and a raw input, $c_{\text{in}} = 1$, where chapter 08 scales it; the
# sign of $F$ there is that of the score. DDPM and DDIM stand in it as *iDDPM + DDIM*, with the cosine schedule, and on the path $s = 1$, $\sigma = t$: section 9 shows that DDIM's step is Euler's there.
# Flow matching came later and is not in it.
#
# Look at the column $c_{\text{out}}$. A network that says $\varepsilon$ has its error multiplied by $\sigma$: by 2 here, by 80 at the start of sampling. One that says a velocity has it multiplied by
# $\sigma / (1 + \sigma)$, never more than 1. That is the next section.

# %% [markdown]
# ## 5. Preconditioning, from two demands
#
# **First the weakness.** Let the network say $x_0$ itself, or say $\varepsilon$, of an unscaled $x$. How large is what it sees? And if what it says is
# wrong by one hundredth of its size, how wrong is the guess? Compare with the error of the trivial guess, which takes $x$ at small levels and 0 at large ones:

# %%
levels = torch.tensor([0.002, 0.05, 1.0, 80.0], dtype=torch.float64)
noise = torch.randn(digits.shape, generator=seeded(3), dtype=torch.float64)
rows = "| σ | size of x | trivial guess off by | D off by, if F says x₀ | if F says ε | if preconditioned |\n"
rows += "| ---: | ---: | ---: | ---: | ---: | ---: |\n"
for s in levels.tolist():
    size = (digits + s * noise).square().mean().sqrt().item()
    trivial = min(s, sigma_data)
    c_out = s * sigma_data / (s**2 + sigma_data**2) ** 0.5
    # F is off by one hundredth of the size of what it says; D by |c_out| times that.
    errors = [0.01 * sigma_data, 0.01 * s, 0.01 * c_out]
    cells = " | ".join(f"{error:.5f}" for error in errors)
    rows += f"| {s:g} | {size:.2f} | {trivial:.3f} | {cells} |\n"
Markdown(rows)

# %% [markdown]
# Neither will do. A network that says $x_0$ is four times worse, at $\sigma = 0.002$, than if it had left the image alone: it has to copy every pixel to a thousandth. One that
# says $\varepsilon$ misses by almost as much as the data are large, at $\sigma = 80$: it has to say what it sees to a thousandth, only to have the difference taken. And both see
# inputs of sizes from 1 to 80.
#
# **The form.** $D = c_{\text{skip}}\, x + c_{\text{out}}\, F(c_{\text{in}}\, x)$ leaves three numbers at every level. Insert it in the loss, and see what $F$ is asked to say:
#
# $$\lambda\, \| D - x_0 \|^2 = \lambda\, c_{\text{out}}^2\, \Big\| F - \underbrace{\tfrac{1}{c_{\text{out}}} \big( x_0 - c_{\text{skip}}\, x \big)}_{\text{the target of } F} \Big\|^2 .$$
#
# **Demand 1: what goes in has size 1.** Data and noise are independent, and the noise has mean 0, so that $\mathbb E\, x^2 = \sigma_{\text{data}}^2 + \sigma^2$ for a number of $x$: then
# $c_{\text{in}} = 1 / \sqrt{\sigma^2 + \sigma_{\text{data}}^2}$.
#
# **Demand 2: what shall come out has size 1.** With $x_0 - c_{\text{skip}}\, x = (1 - c_{\text{skip}})\, x_0 - c_{\text{skip}}\, \sigma \varepsilon$,
#
# $$c_{\text{out}}^2 = (1 - c_{\text{skip}})^2\, \sigma_{\text{data}}^2 + c_{\text{skip}}^2\, \sigma^2 .$$
#
# That is one equation for two numbers. **The freedom that is left** goes into the error: what $F$ says wrongly is multiplied by $c_{\text{out}}$, so let that be as small as can be.
# Set the derivative by $c_{\text{skip}}$ to zero:
#
# $$-2\, (1 - c_{\text{skip}})\, \sigma_{\text{data}}^2 + 2\, c_{\text{skip}}\, \sigma^2 = 0 \quad\Longrightarrow\quad
#   c_{\text{skip}} = \frac{\sigma_{\text{data}}^2}{\sigma^2 + \sigma_{\text{data}}^2} .$$
#
# Put it back: $c_{\text{out}}^2 = \big( \sigma^4 \sigma_{\text{data}}^2 + \sigma_{\text{data}}^4 \sigma^2 \big) / (\sigma^2 + \sigma_{\text{data}}^2)^2
# = \sigma^2 \sigma_{\text{data}}^2 / (\sigma^2 + \sigma_{\text{data}}^2)$. That is section 1's.
#
# **The weight** follows: $\lambda\, c_{\text{out}}^2 = 1$ lets each level count alike, as long as $F$ knows nothing. ($c_{\text{noise}} = \frac14 \log \sigma$ is a matter of taste: some number of moderate size that tells levels apart.)
#
# **What does $F$ say, then?** Let $\sigma / \sigma_{\text{data}} = \tan \varphi$. Then $c_{\text{skip}} = \cos^2 \varphi$, and the target is $\sin \varphi \cdot x_0 / \sigma_{\text{data}} - \cos \varphi \cdot \varepsilon$.
# Near the data, $\varphi = 0$, it is the noise, up to the sign; near the noise it is the image; in between it turns from one to the other. That is $-v$, the *v-prediction* of [Salimans and Ho](https://arxiv.org/abs/2202.00512) (2022):
# they looked for something to predict that makes good guesses of $x_0$ at both ends, and chose it; the two demands derive it.
#
# *One word of caution.* Nothing here takes the mean off. The digits' mean is not 0, so $\sigma_{\text{data}}$ is a root mean square and not a standard deviation, and at large levels $F$ has a part of its
# answer for free: the mean image.
#
# **Look at it.** Drag the level. What does each kind of network see, and what must it say?

# %%
some = digits[:40, 0]
Preconditioning(
    some,
    torch.randn(some.shape, generator=seeded(4)),
    sigma_data=sigma_data,
    title="What a network sees, and what it must say",
    alt="Noised digits as three kinds of network see them, what each must say, and curves of their "
    "sizes over the noise level: those of the preconditioned network stay at 1.",
)

# %% [markdown]
# **Check**, on all training digits: sizes in and out, at every level, and that the target is $-v$.

# %%
from course_lib.diffusion import combine

worst, sizes = 0.0, []
for s in torch.logspace(-2, 1.9, 12, dtype=torch.float64):
    x0 = digits.double()
    x = x0 + s * noise
    skip, out, into, _ = live.net.factors(s)
    target = (x0 - skip * x) / out
    sizes += [(into * x).square().mean().sqrt().item(), target.square().mean().sqrt().item()]
    t = VPPath().time_at(-2 * (s / sigma_data).log()).item()  # a = cos φ, b = sin φ
    v = combine("v", x0 / sigma_data, noise, t, VPPath())
    worst = max(worst, (target + v).abs().max().item())
print(
    "inputs and targets have size 1, within 1 %, at 12 levels:",
    max(abs(v - 1) for v in sizes) < 0.01,
)
print("the target is -v, within 1e-6:", worst < 1e-6)

# %% [markdown]
# **Where is there something to learn?** With the weight in place the loss of a level can be read as a mark: 1 for a network that says 0. The curve is of `edm_digits`, a
# larger network trained longer, on test digits; the hump is where training draws its levels.

# %% jupyter={"source_hidden": true}
from matplotlib.figure import Figure

trained = load_pretrained("edm_digits")
held_out = to_signed(load_digits("test")[0][:200])
at, marks = torch.logspace(-2.5, 1.8, 13), []
for s in at.tolist():
    noised = held_out + s * torch.randn(held_out.shape, generator=seeded(5))
    with torch.no_grad():
        off = (trained.predict(noised, s, target="x0") - held_out).square().mean()
    marks.append((trained.weight(torch.tensor(s)) * off).item())
hump = torch.exp(-((at.log() - trained.p_mean) ** 2) / (2 * trained.p_std**2))
figure = Figure(figsize=(6.4, 2.9))
axes = figure.subplots()
axes.fill_between(at, 0, 0.5 * hump, color="0.85", label="levels of training")
axes.axhline(1, color=PALETTE["noise"], ls="--", label="a network that says 0")
axes.semilogx(at, marks, "o-", ms=3, color=PALETTE["model"], label="trained")
axes.set(xlabel="noise level σ", ylabel="loss, weighted", ylim=(0, 1.2))
axes.legend(frameon=False, fontsize=8)
figure.tight_layout()
show_figure(
    figure,
    alt="The weighted loss over the noise level: highest at the smallest levels, lowest in the middle, "
    "and somewhat higher again at the largest.",
)

# %%
k = marks.index(min(marks))
print(
    f"σ = {at[0]:.3f}: {marks[0]:.1f}; lowest, σ = {at[k]:.1f}: {marks[k]:.1f}; σ = {at[-1]:.0f}: {marks[-1]:.1f}"
)
still = digits.std(0) < 0.02  # pixels that are always nearly black
noised = held_out + at[0] * torch.randn(held_out.shape, generator=seeded(5))
with torch.no_grad():
    off = (trained.predict(noised, at[0].item(), target="x0") - held_out).square().mean(0)
on_still, elsewhere = (trained.weight(at[0]) * off[part].mean() for part in (still, ~still))
print(
    f"σ = {at[0]:.3f}: {on_still:.1f} on {still.sum()} pixels that hardly vary, {elsewhere:.1f} elsewhere"
)
mean_image = (held_out - digits.mean(0)).square().mean() * trained.weight(at[-1])
print(f"the mean image as the guess, σ = {at[-1]:.0f}: {mean_image:.1f}")

# %% [markdown]
# At the smallest levels the network gains least, and more on pixels that are always nearly black, as in the digits' corners, than elsewhere. (More could be had: these test images have 17 grey values, and rounding would take such noise off
# altogether. But most of the training images were turned and moved a little, so that they lie between the grey values; and training hardly ever draws such a level.) At the largest the mean image is as good a guess. In between lies what a network is for, and there the levels are drawn. (The paper's figure 5a shows
# the same on photographs, and puts the hump where its loss falls.)
#
# **Exercise 2: derive.** The same two demands, and again the least $c_{\text{out}} > 0$, on the straight path, $x = (1 - t)\, x_0 + t\, \varepsilon$. Which $c_{\text{skip}}$ and $c_{\text{out}}$ do they give? Is it the velocity that $F$
# should say?


# %%
def straight_preconditioning(t, sigma_data):
    """t [B], between 0 and 1, sigma_data a number: c_skip [B] and c_out [B]."""
    ...


check("10.straight_preconditioning", straight_preconditioning)

# %% [markdown]
# ## 6. Where the way bends: the noise levels of the steps
#
# A step goes straight. It errs where the way is curved. Differentiate the ODE of section 1 once more, along the way:
#
# $$\frac{\mathrm d^2 x}{\mathrm d\sigma^2} = \frac{1}{\sigma} \Big( \frac{\mathrm dx}{\mathrm d\sigma} - \frac{\mathrm dD}{\mathrm d\sigma} \Big) - \frac{x - D}{\sigma^2}
#   = -\frac{1}{\sigma}\, \frac{\mathrm dD}{\mathrm d\sigma} .$$
#
# The first and the last term cancel. **The way is straight as long as the guess stays what it is.** That is EDM's reason for $s = 1$, $\sigma = t$: on DDPM's path, on VP and on VE the way bends for reasons of its own.
# (The straight path of chapter 09 has the same virtue. If guess and noise stay, $a x_0 + b \varepsilon$ is a straight way in $t$ wherever $a$ and $b$ are linear in $t$. So Euler's step on it is Euler's step
# here, from $\sigma = t / (1 - t)$ to the next such level: the two differ in nothing but the levels.)
#
# By Taylor's formula a step from $\sigma$ to $\sigma - \mathrm d\sigma$ errs by half the curvature times $\mathrm d\sigma^2$. Measure steps in proportion to $\sigma$, $\mathrm d\sigma = \sigma\, \mathrm d\tau$, and the error
# is $\frac12\, \| \sigma\, \frac{\mathrm dD}{\mathrm d\sigma} \|\, \mathrm d\tau^2$: what counts is *how much the guess changes while the noise falls by a factor.* Where is that? Let us see it for real digits with the exact guess, which for a
# finite set of images is known (chapter 06). (Each of 500 images is smeared by 0.1, so that the data are no bare points: the low shoulder below 0.3 comes from that.)

# %% jupyter={"source_hidden": true}
from course_lib.diffusion import karras_times

ideal = Denoiser(IdealDenoiser(digits[:500].double(), EDMPath(), std=0.1), EDMPath()).double()
z_ideal = 80 * torch.randn(20, 1, 8, 8, generator=seeded(6), dtype=torch.float64)
fine = karras_times(200, sigma_min=0.002, sigma_max=80.0)
ways = list(heun_sample(ideal, z_ideal.shape, steps=200, z=z_ideal))
guesses = [ideal.predict(x, s, target="x0") for x, s in zip(ways, fine)]
change = [
    (then - now).square().mean().sqrt().item() / math.log(s / s_then)
    for (now, then), (s, s_then) in zip(pairwise(guesses), pairwise(fine))
]
figure = Figure(figsize=(8.4, 3.0))
left, right = figure.subplots(1, 2)
left.semilogx(fine[:-1], change, color=PALETTE["model"])
left.set(
    xlabel="noise level σ", ylabel="change of the guess, by log σ", title="Where the way bends"
)
for k, rho in enumerate((1, 3, 7, 1e6)):
    some_levels = karras_times(18, sigma_min=0.002, sigma_max=80.0, rho=rho)
    right.semilogx(
        some_levels, [k] * 18, "|", ms=14, color=PALETTE["data" if rho == 7 else "latent"]
    )
right.set(xlabel="noise level σ", title="18 levels", yticks=range(4), ylim=(-0.6, 3.6))
right.set_yticklabels(["ρ = 1", "ρ = 3", "ρ = 7", "ρ → ∞"])
figure.tight_layout()
show_figure(
    figure,
    alt="Left, how fast the guess changes: a hill around a noise level of 1, and next to nothing above 20 "
    "and below 0.02. Right, 18 noise levels for four values of rho: crowded at large noise for 1, spread "
    "evenly over the logarithm for infinity.",
)

# %% [markdown]
# At much noise the guess is the mean of all images, and stays; at little noise it is one image, and stays. In between, on the hill from about 6 to 0.5, the digit is decided. There the steps belong. **Karras' levels** do it with one number:
# even steps not of $\sigma$, but of $\sigma^{1/\rho}$,
#
# $$\sigma_i = \Big( \sigma_{\max}^{1/\rho} + \tfrac{i}{N - 1} \big( \sigma_{\min}^{1/\rho} - \sigma_{\max}^{1/\rho} \big) \Big)^{\rho}, \qquad i = 0, \dots, N - 1,$$
#
# and then 0. With $\rho = 1$ nearly all levels lie where nothing happens.

# %%
show_source(karras_times)

# %%
end = ways[-1]
rows = "| ρ | error at the end, 18 steps | 36 steps |\n| ---: | ---: | ---: |\n"
for rho in (1, 2, 3, 5, 7, 10, 1e6):
    errors = [
        (last(heun_sample(ideal, z_ideal.shape, steps=N, rho=rho, z=z_ideal)) - end)
        .square()
        .mean()
        .sqrt()
        .item()
        for N in (18, 36)
    ]
    rows += (
        f"| {'∞' if rho == 1e6 else rho} | "
        + " | ".join(f"{error:.3f}" for error in errors)
        + " |\n"
    )
Markdown(rows)

# %% [markdown]
# $\rho = 1$ is useless, and from 5 on there is little between them. The paper finds that $\rho = 3$ makes the errors of all steps about equal, and that samples are best for $\rho$ from 5 to 10, since an
# error near the data is not forgiven any more (its section 3 and appendix D.1); it takes 7.
#
# **Choose for yourself**: a path, times and a solver, on a line whose data are two clusters. Above are the ways over the exact ones, below is what each step adds to the error. Take Euler and EDM's path, and turn $\rho$ from 1 to 7. Then
# take *even* times, and change the path: which path is best on its own times?

# %%
DesignSpace(
    clusters[:, 0],
    std=WIDTH,
    steps=10,
    solver="Euler",
    rho=3.0,
    title="Path, times and solver on a line",
    alt="Ways from noise to two clusters over the exact ways, with the times of ten steps, and below them "
    "a bar for the error of each step.",
)

# %% [markdown]
# **Exercise 3: a limit.** What becomes of Karras' levels as $\rho \to \infty$? Which path of chapter 08 had these as its times?


# %%
def geometric_times(steps, sigma_min, sigma_max):
    """steps of at least 2, and two levels: the levels [steps], from sigma_max down."""
    ...


check("10.geometric_times", geometric_times)

# %% [markdown]
# ## 7. Heun, with a last step of its own
#
# Chapter 09 derived Heun's step: order 2 for two calls. EDM uses it as it is, with one exception. The last step goes to $\sigma = 0$, where there is no velocity
# to average with. It is Euler's, and Euler's step from $\sigma$ to 0 is $x - \sigma\, \frac{x - D}{\sigma} = D$: it ends in the guess. So $N$ steps take $2N - 1$ calls.

# %%
from course_lib.diffusion import heun_step

show_source([heun_step, heun_sample])

# %% [markdown]
# **Exercise 4: predict.** Two samplers call the network once a step. With 40 and 80 steps, A is off by 0.0289 and 0.0145, and B by 0.0029 and 0.0007. Which order has B? (It is
# a sampler of this chapter; which one?)

# %%
prediction = ...

check("10.predict_order", prediction)

# %% [markdown]
# **Check** the orders on the two clusters, at $\sigma_{\min}$, before the last step. (DPM++ is section 9's.)

# %%
model = exact(EDMPath())
start = 80 * torch.randn(200, 1, generator=seeded(7), dtype=torch.float64)
samplers = {
    "Euler": lambda steps: heun_sample(model, start.shape, steps=steps, solver="euler", z=start),
    "Heun": lambda steps: heun_sample(model, start.shape, steps=steps, z=start),
    "DPM++ 2M": lambda steps: dpm_solver_sample(model, start.shape, steps=steps, z=start),
}
best = list(samplers["Heun"](1000))[-2]
rows = "| | 64 steps | 128 | 256 | order, measured |\n| --- | ---: | ---: | ---: | ---: |\n"
for name, states in samplers.items():
    errors = [(list(states(steps))[-2] - best).abs().mean().item() for steps in (64, 128, 256)]
    cells = " | ".join(f"{error:.5f}" for error in errors)
    rows += f"| {name} | {cells} | {math.log2(errors[1] / errors[2]):.1f} |\n"
Markdown(rows)

# %% [markdown]
# A step of Heun costs twice as much, and from 64 steps on it is worth far more than that.
#
# **Exercise 5: another variable.** Write Heun's step for the same ODE in $\log \sigma$ instead of $\sigma$. The order is the same; on which stretches of the way is it the better, and where is it much worse?


# %%
def heun_in_log(denoise, x, sigma, sigma_next):
    """denoise(x, sigma) is D; x [B, *event] at sigma: x at sigma_next, above 0."""
    ...


check("10.heun_in_log", heun_in_log)

# %% [markdown]
# ## 8. Churn: a little noise on the way
#
# An ODE keeps every error, and noise forgets them (chapter 09, section 8). EDM's sampler adds noise without leaving Heun: before each step it goes *back up*, from $\sigma$ to
# $\hat\sigma = (1 + \gamma)\, \sigma$, by exactly the noise that is missing, and takes the step from there,
#
# $$\hat x = x + \sqrt{\hat\sigma^2 - \sigma^2}\; \xi, \qquad \gamma = \min\big( S_{\text{churn}} / N,\; \sqrt 2 - 1 \big) .$$
#
# Variances of independent noise add, so $\hat x$ has the law that it should have at $\hat\sigma$, if $x$ had its own. With the largest $\gamma$ half of the variance is fresh. Three more numbers: churn only between two
# levels, and noise a little larger than announced, $S_{\text{noise}}$. (Ours never goes above the largest level, where the network was not trained. So the first step has no churn.)

# %%
from course_lib.diffusion import churn_levels, churn_step

show_source([churn_step, churn_levels])

# %% [markdown]
# **What it corrects, and when it hurts**, on the two clusters, where right and wrong can be counted. Three experiments: *a wrong start* (at $\sigma = 2$, all states are shifted to the right by 0.5), which puts too many samples into
# the right cluster; *a network that takes away too much noise* (5 % more than it should, at all levels), which makes the clusters too narrow; and *few steps* with nothing wrong at all.

# %%
n = 8000
sides = torch.randint(0, 2, (n,), generator=seeded(8))
x0 = clusters[sides] + WIDTH * torch.randn(n, 1, generator=seeded(9), dtype=torch.float64)
shifted = x0 + 2 * torch.randn(n, 1, generator=seeded(10), dtype=torch.float64) + 0.5
pure = 80 * torch.randn(n, 1, generator=seeded(11), dtype=torch.float64)
good = IdealDenoiser(clusters, EDMPath(), std=WIDTH).double()
greedy = Denoiser(lambda x, t: 1.05 * good(x, t), EDMPath()).double()


def outcome(model, z, steps, churn):
    """The share in the right cluster, and the width of the clusters beside the true one."""
    x = last(heun_sample(model, z.shape, steps=steps, churn=churn, z=z, generator=seeded(12)))
    away = x - x.sign()
    return f"{(x > 0).double().mean().item():.0%}, {away.square().mean().sqrt().item() / WIDTH:.2f}"


amounts = (0, 5, 20, 80)
rows = "| share at the right, width | " + " | ".join(f"churn {c}" for c in amounts) + " |\n"
rows += "| --- |" + " ---: |" * len(amounts) + "\n"
for name, model, z, steps in (
    ("wrong start, 64 steps", exact(EDMPath(0.002, 2.0)), shifted, 64),
    ("greedy network, 64 steps", greedy, pure, 64),
    ("all right, 64 steps", exact(EDMPath()), pure, 64),
    ("all right, 18 steps", exact(EDMPath()), pure, 18),
):
    rows += f"| {name} | " + " | ".join(outcome(model, z, steps, c) for c in amounts) + " |\n"
Markdown(rows)

# %% [markdown]
# The shares tell the first story: without churn the shift is kept to the end, and with enough of it, it is forgotten. The widths tell the second: the greedy network's error adds up over the whole way; churn puts noise of the right size in
# the place of what it took. And with nothing to correct, churn at 18 steps does harm: each step now has a longer way to go, and errs more.
#
# With networks it is likewise. On CIFAR-10 with the older networks the paper's best stochastic setting beats the deterministic one (VP: 2.27 against 2.93, table 4, at 383 and 35 calls); with its own network any churn makes the FID worse
# (figure 5b). It also reports a loss of detail when there is too much, and blames networks that take away slightly too much noise; hence $S_{\text{noise}}$ above 1, and the limits.
#
# **Exercise 6: break it on purpose.** Data are $\mathcal N(0, 0.5^2)$, the guess is exact, and the steps are Euler's. Choose the churn so that samples come out too narrow *however many steps you take*. Say in a sentence why more steps
# don't help.


# %%
def bad_churn(steps):
    """The number of steps: the churn, a number."""
    ...


check("10.break_the_churn", bad_churn)

# %% [markdown]
# ## 9. Solve what is known exactly: DPM-Solver++
#
# Half of the ODE is no secret. In $\mathrm dx/\mathrm d\sigma = (x - D)/\sigma$ only $D$ asks the network; the term $x / \sigma$ is linear and can be solved by hand. An **exponential integrator** does that, and spends its approximation on $D$ alone.
# (For diffusion: Zhang and Chen 2022, [DEIS](https://arxiv.org/abs/2204.13902), and Lu et al. 2022, [DPM-Solver](https://arxiv.org/abs/2206.00927), both on the guess of the noise. DPM-Solver++ takes that of $x_0$, which can be clipped: that counts under guidance, chapter 11.)
#
# Take $x / \sigma$, whose derivative is $\frac{1}{\sigma} \frac{\mathrm dx}{\mathrm d\sigma} - \frac{x}{\sigma^2} = -D / \sigma^2$: the linear term is gone. With $\tau = -\log \sigma$, half of the log-SNR, $\mathrm d\sigma = -\sigma\, \mathrm d\tau$ and
# $1 / \sigma = e^\tau$. Over a step from $\sigma$ to $\sigma_\to$, of length $h = \log (\sigma / \sigma_\to)$,
#
# $$\frac{x_\to}{\sigma_\to} = \frac{x}{\sigma} + \int_\tau^{\tau + h} e^{u}\, D\, \mathrm du .$$
#
# Nothing is approximated yet. **First order**: let the guess stay. The integral of $e^u$ is $1/\sigma_\to - 1/\sigma$, and
#
# $$x_\to = \frac{\sigma_\to}{\sigma}\, x + \Big( 1 - \frac{\sigma_\to}{\sigma} \Big)\, D .$$
#
# You know this step. It is Euler's on EDM's path, $x + (\sigma_\to - \sigma) \frac{x - D}{\sigma}$, and so Euler's on the straight path (section 6); and it is DDIM's, which keeps guess and noise and puts them together anew.
# Four derivations, one step.
#
# **Second order, for nothing.** $D$ changes along the step. Take its value in the middle, and find that without a call: on the straight line in $\tau$ through this guess and the one of the step before, which is remembered,
#
# $$D_{i + 1/2} = D_i + \frac{h_i}{2} \cdot \frac{D_i - D_{i-1}}{h_{i-1}} .$$
#
# Why the middle? Write $D$ as its middle value and a slope times the way from the middle. The middle value comes out of the integral. What is left is the integral of $e^u$ times the way from the middle, which is $-\frac h2$ at one end and $\frac h2$ at the other:
# with $e^u$ constant both halves would cancel, and as $e^u$ changes by a share $h$ a rest of size $h^3$ stays. And the middle value is extrapolated: a straight line through two guesses misses a curved $D$ by something of size $h^2$, over a step of length $h$ again $h^3$. An error of $h^3$ in each step is order 2. This is **DPM-Solver++ (2M)**, M for multistep: one call a step, where Heun needs two. It became
# one of the usual samplers of Stable Diffusion and its kin, often at Karras' levels (*DPM++ 2M Karras*). (Its first step has no guess before it, and the last one, to 0, has no end in $\tau$: both take $D$ as it is.)

# %%
from course_lib.diffusion import dpm_solver_step, extrapolated_guess

show_source([dpm_solver_step, extrapolated_guess, dpm_solver_sample])

# %% [markdown]
# **Check** that Euler's step on both paths, DDIM's and the exponential step are the same, on one state and on the whole way:

# %%
from course_lib.diffusion import ddim_step, euler_step

x, guess = torch.randn(2, 5, 1, generator=seeded(13), dtype=torch.float64)
by_euler = euler_step(lambda x, t: (x - guess) / t, x, 3.0, -1.0)
# σ = 3 is t = 3/4 on the straight path, where x is a quarter as large; σ = 2 is t = 2/3.
by_straight = 3 * euler_step(lambda x, t: (x - guess) / t, x / 4, 3 / 4, 2 / 3 - 3 / 4)
by_ddim = ddim_step(x, guess, now=(1.0, 3.0), then=(1.0, 2.0))
by_exponential = dpm_solver_step(x, guess, sigma=3.0, then=2.0)
print(
    "one step, four ways:",
    torch.allclose(by_euler, by_straight),
    torch.allclose(by_euler, by_ddim),
    torch.allclose(by_euler, by_exponential),
)
z = seen.path.start_std * eps
one = last(dpm_solver_sample(seen, z.shape, steps=8, order=1, z=z))
two = last(heun_sample(seen, z.shape, steps=8, solver="euler", z=z))
print("the whole way, digits:", (one - two).abs().max().item() < 1e-3)

# %% [markdown]
# **Exercise 7: every path.** The exact step while the guess stays, on a path with amounts $a$ and $b$, from one time to the next.


# %%
def exponential_step(x, x0, a, b, a_next, b_next):
    """x and x0 [B, *event], four numbers: x [B, *event] where the amounts are a_next, b_next."""
    ...


check("10.exponential_step", exponential_step)

# %% [markdown]
# ## How good is it?
#
# **Every sampler of the course on one network**, `edm_digits`: feature distance of a thousand samples (chapter 06) by calls of the network (in papers NFE, the number of function evaluations). The samplers of chapters 06 to 09 see it on the path that they were made for. Pick a point.

# %%
edm_digits = load_pretrained("edm_digits")
samplers = {
    "DDIM": (1, VPPath(), ddim_sample),
    "Euler": (1, StraightPath(), ode_sample),
    "Heun": (2, StraightPath(), partial(ode_sample, solver="heun")),
    "Heun, Karras times": (2, EDMPath(), heun_sample),
    "DPM-Solver++(2M)": (1, EDMPath(), dpm_solver_sample),
}
words = {"DDPM": "DDPM, VP", "DDIM": "DDIM, VP", "Euler-Maruyama": "Euler–Maruyama, VP"}
words |= {"predictor-corrector": "predictor–corrector, VP", "Euler": "Euler, straight"}
words |= {"Heun": "Heun, straight", "RK4": "RK4, straight"}


def distances(name):
    """Feature distances from a card: for each sampler its calls and distances."""
    rows = load_card(name)["metrics"].get("samplers", []) if exists(name) else []
    found = {}
    for row in rows:
        found.setdefault(row["sampler"], []).append((row["calls"], row["distance"]))
    return found


def exists(name):
    """Whether a model is stored."""
    return (checkpoint_folder() / f"{name}.json").exists()


def sheet(name, calls):
    """Twelve digits by one of the samplers, from the same noise; None for too many calls."""
    if name not in samplers or calls > 36:
        return None
    each, path, states = samplers[name]
    view = on_path(edm_digits, path)
    z = view.path.start_std * torch.randn(12, 1, 8, 8, generator=seeded(14))
    steps = max(calls // each, 1)
    return to_unit(last(states(view, z.shape, steps=steps, z=z)))


found = distances("edm_digits")
chart = None
if found:
    chart = OperatingPoint(
        {words.get(name, name): line for name, line in found.items()},
        {
            words.get(name, name): [sheet(name, calls) for calls, _ in line]
            for name, line in found.items()
        },
        x_label="network calls",
        y_label="feature distance",
        log_x=True,
        log_y=True,
        chosen=("Heun, Karras times", 2),
        title="One network, every sampler",
        alt="Feature distance over calls of the network for eleven samplers of one network, and the "
        "digits of the chosen point.",
    )
chart


# %% jupyter={"source_hidden": true}
def chart_table(name):
    """The same numbers as a table."""
    found = distances(name)
    if not found:
        return ""
    calls = sorted({calls for line in found.values() for calls, _ in line})
    text = f"| {name}, calls | " + " | ".join(str(c) for c in calls) + " |\n"
    text += "| --- |" + " ---: |" * len(calls) + "\n"
    for sampler, line in found.items():
        values = dict(line)
        cells = (f"{values[c]:.1f}" if c in values else "" for c in calls)
        text += f"| {words.get(sampler, sampler)} | " + " | ".join(cells) + " |\n"
    return text + "\n"


FLOOR = "feature distance, 1,000 training images"
real = {name: load_card(f"classifier_{name}")["metrics"] for name in ("digits", "mnist")}
Markdown(
    chart_table("edm_digits")
    + chart_table("edm_mnist")
    + f"A thousand real training digits: {real['digits'][FLOOR]:.1f}, of MNIST {real['mnist'][FLOOR]:.1f}; "
    f"one draw of a thousand differs from another by {real['digits'][FLOOR + ', spread']:.1f} and "
    f"{real['mnist'][FLOOR + ', spread']:.1f}."
)

# %% [markdown]
# At few calls Karras' levels look bad: with ten steps Euler is at 11.5, and on the straight path at 5.6. The step is one and the same (section 6), so it must be the levels. Here they are,
# and how many of them lie between 6 and 0.5, where digits are decided; and Karras' own rule between ends that are closer. (The two new distances are measured here and now, and rounded.)

# %%
from course_lib.data import quantize
from course_lib.training.quality import feature_distance
from course_lib.training.recipes_sde import samples


def karras_between(low, high):
    """Karras' ten levels, and the feature distance of Euler's digits from the table's noise."""
    view = on_path(edm_digits, EDMPath(low, high))
    images = samples(view, partial(heun_sample, solver="euler"), steps=10)
    distance = feature_distance(quantize(images, 17), "digits")
    return karras_times(10, sigma_min=low, sigma_max=high), f"{distance:.0f}"


t = torch.linspace(80 / 81, 0.002, 11)[:-1]  # even times on the straight path
on_card = {name: f"{dict(line)[10]:.1f}" for name, line in found.items()}
wide = karras_times(10, sigma_min=0.002, sigma_max=80.0)
ten = {
    "Karras', 80 to 0.002": (wide, on_card["Euler, Karras times"]),
    "Karras', 20 to 0.02": karras_between(0.02, 20.0),
    "Karras', 10 to 0.02": karras_between(0.02, 10.0),
    "even times on the straight path": ((t / (1 - t)).tolist(), on_card["Euler"]),
}
rows = "| ten steps of Euler | levels | from 6 to 0.5 | feature distance |\n| --- | --- | ---: | ---: |\n"
for name, (some_levels, distance) in ten.items():
    each = ", ".join(f"{s:.2g}" for s in some_levels)
    rows += f"| {name} | {each} | {sum(0.5 < s < 6 for s in some_levels)} | {distance} |\n"
Markdown(rows)

# %% [markdown]
# **The ladder from our DDPM to our EDM**, one change at a time, always with 35 calls: three networks of each kind, small ones and trained for a minute or two, so that one sees what is chance.

# %%
ladder = {}
for row in load_study("ladder_edm")["metrics"]["ladder"]:
    ladder.setdefault(row["step"], []).append(row["distance"])
table = "| our ladder, digits, 35 calls | feature distance, mean | of three networks |\n| --- | ---: | --- |\n"
for step, values in ladder.items():
    each = ", ".join(f"{value:.1f}" for value in values)
    table += f"| {step} | {sum(values) / len(values):.1f} | {each} |\n"
Markdown(table)

# %% [markdown]
# **Published**: table 2 of the paper, CIFAR-10, the columns of the DDPM++ network (VP); the deterministic sampler of section 7, 35 calls, each FID the least of three.
#
# | FID, CIFAR-10, 35 calls | with classes | without |
# | --- | ---: | ---: |
# | A: as Song et al. trained it (chapter 08) | 2.48 | 3.01 |
# | B: + batch, learning rate and dropout tuned | 2.18 | 2.51 |
# | C: + layers moved to where they help | 2.08 | 2.31 |
# | D: + preconditioning | 2.09 | 2.29 |
# | E: + loss weight and noise levels of training | 1.88 | 2.05 |
# | F: + augmentation that does not leak | **1.79** | **1.97** |
#
# What differs: photographs in colour, another network, another measure. Compare which step helps, not the values.
#
# How to read it:
#
# - **With calls to spare all ways end alike.** From 36 calls on, the samplers without noise all have distances of 5.5 to 5.9, on any path and of any order. What is left is the network's, and not
#   the solver's.
# - **With few calls the levels decide.** At 5 and 10 calls the straight path with even times is ahead, with Euler's steps, too. Euler's and Heun's at Karras' levels from 80 are
#   far behind: at ten calls only two of Euler's levels lie where digits are decided (and one of Heun's five), and four of Euler's where an image of 64 pixels is hardly more than noise. Between closer ends the same rule has more levels there, and from 10 down it is as good as the
#   straight path. The paper's ends are for photographs; the principle, steps where the guess changes, is for everybody.
# - **A remembered guess is better than a second call.** On Karras' levels from 80, at ten calls, DPM-Solver++ is at 6.4, Euler at 11.5, and Heun with half as many steps at 11.0. From 36 on the difference is chance. On good levels Euler's step is enough. (In the column of 5 calls Heun and churn at Karras' levels make only two steps, which is three calls; a third step would have used all five.)
# - **Noise wants many calls.** Until 36, DDPM, Euler–Maruyama and churn are behind the best samplers without noise. (With 5 and 10 calls DDPM is ahead of Euler's and Heun's steps at Karras' levels from 80; but these are bad levels.) At 100 calls predictor and corrector end lower than everything else, as in chapter 08 under VE: a sign that some of the network's own error is forgotten.
# - **On MNIST**, where the network is told the class, few calls say the same: at ten, Euler's steps are at 16.3 with even times on the straight path and at 32.3 with Karras' levels from 80, and DPM-Solver++ (18.2) is ahead of Heun's
#   on either (22.5 and 43.8). At twenty DDPM, with fresh noise in each step, is ahead of all samplers without noise (10.1; theirs are 13.9 and more), as on MNIST in chapter 07; Euler–Maruyama (12.3) is so by no more than chance.
#   With calls to spare the two kinds part: at a hundred the samplers without noise all end at 13.7 to 14.1, as alike as on the digits, and those with fresh noise at 8.8 to 10.6 (DDPM 9.1, churn 8.8). At 36 DDPM is at 7.5. That fits a network whose errors noise corrects; we did not take it apart.
# - **The ladder** has two steps that help: Heun's, with as many calls (each of the three networks; on `edm_digits`, at 36 calls, Heun is not ahead of Euler, and we did not find out whether the size of the network or what it says makes the difference), and EDM's loss (two of three, and they come to lie close together). Leaving out the noise helps two of three.
#   EDM's path and levels, with Euler's steps, change nothing beyond chance, and the preconditioning alone does not either.
# - **In the paper**, too, the preconditioning alone changes little (C to D), and of what this chapter derives most is gained by the loss that it makes possible (D to E).
# - **Chance**: the spread below the table is 0.6. Take no difference of that size for more than chance.
#
# ## What to take away
#
# - Every model from DDPM to flow matching noises by $s(t)\, (x_0 + \sigma(t)\, \varepsilon)$. $s$ is a scale and $\sigma(t)$ a clock. In $y = x / s$ and $\sigma$ there is one ODE.
# - So a trained network is a guess of $x_0$ at every noise level, and nothing else. Match the log-SNR, rescale, and any sampler may ask it.
# - Size 1 in, size 1 out, and the least $c_{\text{out}}$: that gives the preconditioning, and with it the v-prediction.
# - The way bends where the guess changes. Put the steps there, and take a method of order 2.
# - Churn forgets errors, at the price of longer steps. It is for networks that err, with calls to spare.
# - Euler on EDM's or the straight path, DDIM and the exponential step are one. Remember the last guess, and it has order 2.
#
# **What does not work well.** $\rho = 7$, $-1.2$ and 1.2 were tuned on photographs of 32 and 64 pixels: other data have their hill elsewhere, and nothing in
# the rule finds it: on our digits even times on the straight path do better with few calls. And with one to four calls no solver of any order helps: a step over the whole hill is one step. That takes another network (chapter 13).
#
# **What came after.**
#
# - *Networks whose sizes stay put in training, too*: Karras et al. 2024, [EDM2](https://arxiv.org/abs/2312.02696).
# - *From any point of the way to its end in one call*: Song et al. 2023, [Consistency models](https://arxiv.org/abs/2303.01469), on this path, with these levels and factors.
# - *Levels made for a data set*: Sabour et al. 2024, [Align your steps](https://arxiv.org/abs/2404.14507).
# - *Noise and ODE in turns*: Xu et al. 2023, [Restart sampling](https://arxiv.org/abs/2306.14878).
#
# **Next, chapter 11:** so far nobody has said *which* digit. Guidance tells a trained network what to draw, and being a guess of $x_0$ itself it goes through all the samplers of this chapter.

# %% [markdown]
# [← 09 · ODEs and flow matching](09_ode.ipynb) | [Contents](../README.md#chapters) | [11 · Guidance →](11_guidance.ipynb)
