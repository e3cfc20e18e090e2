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
# [← 03 · VQ-VAE](03_vq_vae.ipynb) | [Contents](../README.md#chapters) | [05 · RealNVP and Glow →](05_realnvp_glow.ipynb)

# %% [markdown]
# # 04 · Normalizing flows and NICE
#
# **Bend a Gaussian until it is your data, and know the exact density of every point on the way.**
#
# | | |
# | --- | --- |
# | You need | the chain rule, determinants, what a probability density is; some PyTorch |
# | Time | about 36 minutes to read, 65 with the exercises. **The short way, 27 minutes:** up to and including *One peak*, then *Discrete data need noise*, *Train it: handwritten digits*, *One mode for ten classes* and *What to take away*. Three sections may be skipped and say so |
# | You will meet | the change of variables, additive couplings, volume-preserving flows and their one peak, dequantization, bits per dimension |
# | Papers | Dinh, Krueger, Bengio 2014, [NICE](https://arxiv.org/abs/1410.8516); Rezende, Mohamed 2015, [planar flows](https://arxiv.org/abs/1505.05770); Theis, van den Oord, Bethge 2016, [on evaluation](https://arxiv.org/abs/1511.01844) |
# | Source articles | 标准化流, "Normalizing flow", and "NICE: Nonlinear Independent Components Estimation" (both in Chinese) |
#
#
# ## See it
#
# Run the two cells below (Shift+Enter). 2,000 points drawn from a Gaussian pass through a trained NICE,
# from latent to data. Press the play button, or drag the slider, or click the figure and use the arrow
# keys. Each colour belongs to one distance from the centre of the Gaussian, so that you can see where
# each ring goes.

# %%
import torch

from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import DensityWarp, ImagePlayer, Inpaint, ParticlePlayer

one_thread()  # models this small are slower on two

# %%
moons = load_pretrained("nice_two_moons")
z = moons.base.sample(2000, generator=seeded(0))
mesh = torch.cartesian_prod(torch.linspace(-3, 3, 25), torch.linspace(-3, 3, 25))
undone = [f"coupling {k} undone" for k in range(8, 1, -1)]
ParticlePlayer(
    moons.trajectory_inverse(z),
    grid=moons.trajectory_inverse(mesh).reshape(-1, 25, 25, 2),
    color=z.norm(dim=1),
    color_label="distance from 0 in the Gaussian",
    extent=(-3.2, 3.2, -3.2, 3.2),
    labels=["the Gaussian", "scaling undone", *undone, "two moons"],
    title="From a Gaussian to two moons",
    alt="A round cloud of points is sheared step by step into two interlocking moons.",
)

# %% [markdown]
# Three things to notice before any formula:
#
# - **Nothing is thrown away.** The mesh is sheared and stretched, but never torn and never folded:
#   you can drag the slider back and get every point where it was.
# - **Every step but one is a shear.** The points move along *one* axis only, up and down or left and
#   right. Such a shear keeps all areas. The other step, the scaling, stretches everything along the two axes.
# - **It is not perfect.** A tail trails off, and a thin bridge of points hangs between the moons. After the first
#   training you will see why the bridge must be there.

# %% [markdown]
# ## The idea
#
# We want a density $p(x)$ for data, one that we can *sample* and *evaluate exactly*. Complicated
# densities are hard to write down, because a density must integrate to 1. So we take one that is
# easy, $p_Z$ of a **latent** $z$ (a Gaussian), and move its probability to where the data are, by an
# invertible function $f$ (a **bijection**; smooth both ways, a *diffeomorphism*) with
#
# $$z = f(x), \qquad x = f^{-1}(z).$$
#
# To sample, draw $z$ and compute $f^{-1}(z)$ (the density of such $x$ is the **pushforward** of $p_Z$). To evaluate, compute $f(x)$ and correct for how $f$
# squeezes or stretches space there. Most neural networks have no inverse, so $f$ must be built with care:
# a chain of small invertible steps, the *flow*. Run forward, it turns data into a plain, usually normal,
# density: hence a **normalizing flow**. Throughout the course, **forward means from data to latent**. In code,
# `[B, D]` is a tensor of B points with D coordinates (the $n$ of the formulas), and `[T, B, D]` holds T states of them.
#
# | symbol | meaning |
# | --- | --- |
# | $x$, $z$ | a point of the data, its latent; both have $n$ coordinates, $x_i$ and $z_i$ |
# | $f$; $f_j$, $h_j$, $K$ | the whole flow; its transform number $j$, the state after it, how many there are |
# | $p$, $p_Z$ | the model's density of data; the simple density of the latent, the *prior* or *base* |
# | $J$, $J_f(x)$ | a Jacobian, the matrix of all partial derivatives (of $f$, at $x$); $I$ is the unit matrix |
# | $\delta$, $e_i$ | a small length; the unit vector of coordinate $i$ |
# | $x_a$, $x_b$; $m$ | the half that a coupling keeps, the half that it moves; its network, any function |
# | $s_i$ | the logarithm of the scale of coordinate $i$ |
# | $F$, $F_Z$; $P$, $\mathbb E$ | distribution functions of $x$ and $z$; a probability, a mean |
# | $L$, $k$, $u$, $y$ | the number of grey levels, a level, noise in $[0, 1)$, a dequantized value $(k + u)/L$ |
# | $v$, $w$, $b$ | in the section on planar transforms only: direction and place of a push |
# | $\alpha$, $\varepsilon$ | in the section on inpainting only: the length of a step, Gaussian noise |

# %% [markdown]
# ## One dimension: area is conserved
#
# Let $f$ be increasing. The points between $x$ and $x + \mathrm dx$ are exactly those whose latents
# lie between $f(x)$ and $f(x + \mathrm dx)$. The same points, so the same probability:
#
# $$p(x)\,\mathrm dx = p_Z(z)\,\mathrm dz \quad\Longrightarrow\quad
#   p(x) = p_Z(f(x))\,\frac{\mathrm dz}{\mathrm dx} = p_Z(f(x))\,|f'(x)|.$$
#
# (Or with distribution functions: for a random point $X$ with latent $Z$, $X \le x$ holds exactly when $Z = f(X) \le f(x)$, so $F(x) = F_Z(f(x))$; the chain
# rule does the rest. If $f$ is *decreasing*, $F(x) = 1 - F_Z(f(x))$ and a minus appears, which makes $-f' > 0$. Hence the bars.)
#
# **Bend it yourself.** Drag the knots of the curve. Where the curve is steep, a small interval of
# $x$ receives the probability of a large interval of $z$, and the density of $x$ is higher than that of
# $z = f(x)$; where it is flat, lower. The two shaded strips always have the same area.

# %%
DensityWarp(title="Bend f, and the density of x answers")

# %% [markdown]
# **Check it** with a curve that is known, $f(x) = x + x^3$ and a Gaussian $z$: then
# $p(x) = p_Z(x + x^3)\,(1 + 3x^2)$ must have area 1, although no one would guess its shape.

# %%
x = torch.linspace(-3, 3, 20_001, dtype=torch.float64)
density = torch.exp(-0.5 * (x + x**3) ** 2) / (2 * torch.pi) ** 0.5 * (1 + 3 * x**2)
print("its area is 1, within 1e-8:", abs(torch.trapezoid(density, x).item() - 1) < 1e-8)

# %% [markdown]
# ## Many dimensions: the determinant
#
# Take a small cube at $x$ with edges $\delta e_1, \dots, \delta e_n$. Up to terms that vanish faster than
# $\delta$, $f$ maps its edges to $\delta J e_1, \dots, \delta J e_n$ with $J = J_f(x)$: the columns of $J$, times $\delta$. The
# image of the cube is the parallelepiped that they span, and its volume is $\delta^n |\det J|$. (Signed volume is
# linear in each edge, zero if two edges coincide, and 1 for the unit cube. The determinant is the only
# function of the columns with these three properties.)
#
# The cube and its image hold the same points. Equal probability, $p(x)\,\delta^n = p_Z(z)\,\delta^n\,|\det J|$,
# and in the limit $\delta \to 0$
#
# $$\boxed{\;\log p(x) = \log p_Z(f(x)) + \log\left|\det J_f(x)\right|\;}$$
#
# This **change of variables** is all of the probability theory in this chapter.
#
# **Check it.** A density must integrate to 1: sum $p(x)$ over a fine grid, times the area of a cell. And it
# must agree with the samples: in any region, here the unit disc, the two give the same probability.

# %%
side = torch.linspace(-10, 10, 1001)
cells = torch.cartesian_prod(side, side)
with torch.no_grad():
    mass = moons.log_prob(cells).exp() * (side[1] - side[0]) ** 2
print("the density integrates to 1, within 0.001:", abs(mass.sum().item() - 1) < 1e-3)

samples = moons.sample(50_000, generator=seeded(2))
share = (samples.norm(dim=1) < 1).float().mean().item()
density_says = mass[cells.norm(dim=1) < 1].sum().item()
print(
    "share of samples in the unit disc, within 0.01 of the density's:",
    abs(share - density_says) < 0.01,
)

# %% [markdown]
# ## A chain of steps: log-determinants add up
#
# Let $f = f_K \circ \dots \circ f_1$, with states $h_0 = x$, $h_j = f_j(h_{j-1})$, $h_K = z$. The chain rule
# says that the Jacobian of the whole is the product of the Jacobians, each taken where its step
# starts: $J_f(x) = J_{f_K}(h_{K-1}) \cdots J_{f_1}(h_0)$. The determinant of a product is the product of
# the determinants, so
#
# $$\log|\det J_f(x)| = \sum_{j=1}^{K} \log|\det J_{f_j}(h_{j-1})|.$$
#
# So each transform only has to know its *own* log-determinant.
#
# **Exercise 1: write the change of variables for a chain**, before you look at the library's. Each transform is called
# as `z, log_det = transform(x)`. Each `check` judges your function on fresh random inputs and tells you which property
# broke; it accepts every correct solution. `hint("04.change_of_variables")` helps one step at a time.

# %%
import copy

from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.data import dequantize, load_digits, toy, toy_log_prob
from course_lib.exercises import check, hint, show_source, solution
from course_lib.experiments import climb_to_peak, coupling_dependencies, peak, spiky_log_prob
from course_lib.flows import NICE, AdditiveCoupling, DiagonalScaling, Flow, Planar, StandardGaussian
from course_lib.flows import StandardLogistic, chain, climb, inpaint
from course_lib.metrics import GaussianBaseline, LogisticBaseline, bits_per_dim
from course_lib.notebook import follow  # all states of points, and their log-determinants so far
from course_lib.notebook import jacobians  # of a function at every point, by autograd: [B, n, n]
from course_lib.widgets import PALETTE, colour_map, image_grid, show_figure

# Of images, further down: test digits, and the two models that were trained beforehand.
digits, labels = load_digits("test")
digits_model, mnist_model = load_pretrained("nice_digits"), load_pretrained("nice_mnist")
standardize = digits_model.transforms[0]

# %%
def flow_log_prob(x, transforms, base_log_prob):
    """Return the log-density [B] of x [B, D], in nats."""
    ...


check("04.change_of_variables", flow_log_prob)

# %%
show_source([chain, Flow.log_prob])

# %% [markdown]
# ## What is out of reach, and what is free
#
# Could $f$ be any network? Two things stand in the way.
#
# 1. **It must be invertible**, and we want $f^{-1}$ in closed form, to sample.
# 2. **The determinant of an $n \times n$ matrix costs about $\tfrac23 n^3$ operations** (Gaussian
#    elimination: at column $k$ a multiple of one row is subtracted from the $n - k$ rows below it, a
#    multiplication and a subtraction for each of $n - k$ entries, and $\sum_k 2(n-k)^2 \approx \tfrac23 n^3$).
#    And before that, the Jacobian itself costs $n$ passes of automatic differentiation.
#
# But the determinant of a *triangular* matrix is the product of its diagonal (expand along the first
# row or column: all terms but one hold a zero): $n$ operations.

# %%
print("coordinates   operations for one determinant:   general   triangular")
for n in (2, 64, 784, 3072):
    print(f"{n:11d} {2 / 3 * n**3:44,.0f} {n:12,}")

# %% [markdown]
# So we look for functions that are invertible, have a triangular Jacobian, and are still flexible.
#
# ## The additive coupling
#
# Split the coordinates into two halves, $x = (x_a, x_b)$. Leave one alone; shift the other by
# something computed from the one that stays, and the **inverse** can be read off:
#
# $$z_a = x_a, \quad z_b = x_b + m(x_a) \qquad\Longleftrightarrow\qquad x_a = z_a, \quad x_b = z_b - m(z_a).$$
#
# The network $m$ is *never inverted*. It may be anything: deep, wide, many to one.
#
# **Its Jacobian**, with the rows and columns sorted into the two halves (sorting both in the same way leaves
# a determinant as it is), is
#
# $$J = \begin{pmatrix} \partial z_a/\partial x_a & \partial z_a/\partial x_b \\
#       \partial z_b/\partial x_a & \partial z_b/\partial x_b \end{pmatrix}
#     = \begin{pmatrix} I & 0 \\ \partial m/\partial x_a & I \end{pmatrix},$$
#
# triangular, with ones on the diagonal. So $\det J = 1$ and $\log|\det J| = 0$, **whatever $m$ is**: the
# complicated block never enters. An additive coupling keeps all volumes: it is **volume-preserving**. The halves are
# the *even* and the *odd* coordinates, as in the paper: neighbouring pixels are alike, so the even ones say much about the odd ones.
#
# **Exercise 2: the coupling**, again before you look. `shift` is the network $m$, `flip` says which
# half moves: the odd coordinates (`x[:, 1::2]`) if it is False, the even ones (`x[:, 0::2]`) if it is True.


# %%
def additive_coupling(x, shift, flip):
    """Return z [B, D] and log_det [B]; x is [B, D]."""
    ...


check("04.additive_coupling", additive_coupling)

# %% [markdown]
# In the library (`mask.split` takes $x$ apart into $x_a$ and $x_b$, `mask.merge` puts them together):

# %%
show_source([AdditiveCoupling.forward, AdditiveCoupling.inverse])

# %% [markdown]
# As a diagram, of a coupling for 64 pixels ($B$ images at a time). To go back, start at the bottom: the kept half is there, so the network can be asked again, and its answer subtracted.

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import coupling_diagram
from course_lib.widgets import show_diagram

show_diagram(coupling_diagram(AdditiveCoupling(64, [128, 128], flip=False)))

# %% [markdown]
# **Check all three claims**, in double precision, for a coupling with a random network:

# %%
torch.manual_seed(0)
coupling = AdditiveCoupling(8, [64, 64], flip=False).double()
x = torch.randn(20, 8, generator=seeded(4), dtype=torch.float64)
z, log_det = coupling(x)
J = jacobians(lambda p: coupling(p)[0], x)
print(
    "the inverse gives x back, within 1e-12:",
    (coupling.inverse(z)[0] - x).abs().max().item() < 1e-12,
)
print(
    "det J = 1 by automatic differentiation, within 1e-12:",
    (J.det() - 1).abs().max().item() < 1e-12,
)
print("log_det is exactly 0:", bool((log_det == 0).all()))

# %% jupyter={"source_hidden": true}
orders = {
    "in x's own order": list(range(8)),
    "even coordinates first": [0, 2, 4, 6, 1, 3, 5, 7],
}
figure = Figure(figsize=(6.6, 3))
for axes, (title, index) in zip(figure.subplots(1, 2), orders.items()):
    matrix = J[0][index][:, index]
    axes.imshow(matrix, cmap=colour_map("signed"), vmin=-1, vmax=1)
    axes.set_title(title)
    axes.set_xticks(range(8), index)
    axes.set_yticks(range(8), index)
    axes.set_xlabel("input coordinate")
    axes.set_ylabel("output coordinate")
figure.tight_layout()
show_figure(
    figure,
    alt="The Jacobian of a coupling. With the even coordinates first it has ones on the diagonal, "
    "numbers in the lower left block, and zeros elsewhere.",
)

# %% [markdown]
# ## NICE, complete
#
# One coupling never moves $x_a$, so couplings take turns: one moves the odd coordinates, the next the even ones. A stack
# of them keeps every volume, and a model that can only move probability around, but never concentrate it, is a poor model. So
# NICE adds one layer at the end, a positive factor for each coordinate:
#
# $$z_i = x_i\,e^{s_i}, \qquad \log|\det J| = \sum_i s_i,$$
#
# where $x$ is what comes in, since $J$ is diagonal with entries $e^{s_i}$. Four couplings in turn, one scaling, a prior with independent coordinates. That
# is the whole model:

# %%
show_source([NICE, DiagonalScaling.forward])

# %% [markdown]
# ## Train it: two moons
#
# The loss is the mean of $-\log p(x)$ over the data. No model can do better, on average over fresh data, than
# the entropy of the data. Our two moons have a density in closed form, so we estimate their entropy as the mean
# of its $-\log p$ over 10,000 fresh points. A smaller model than the one above, a few seconds:

# %%
torch.manual_seed(0)
small = NICE(2, couplings=6, hidden=(32, 32), prior="gaussian")
history = fit(
    small, toy("two_moons", 10_000, generator=seeded(0)), steps=800, batch_size=256, lr=5e-3
)
fresh = toy("two_moons", 10_000, generator=seeded(1))
entropy = -toy_log_prob("two_moons", fresh).mean().item()
print("before training, the loss was above 2.5 nats:", history.losses[0] > 2.5)
print(
    "now it is within 0.35 nats of the entropy of the data:",
    small.loss(fresh).item() - entropy < 0.35,
)

# %% jupyter={"source_hidden": true}
side = torch.linspace(-3, 3, 161)
cells = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
with torch.no_grad():
    densities = {"exact": toy_log_prob("two_moons", cells), "learned": small.log_prob(cells)}
figure = Figure(figsize=(9, 3.1))
panels = figure.subplots(1, 3)
for axes, (title, log_prob) in zip(panels, densities.items()):
    axes.imshow(log_prob.exp().reshape(161, 161), origin="lower", extent=(-3, 3, -3, 3), vmax=0.6)
    axes.set(title=f"the {title} density", xlabel="x₁", ylabel="x₂")
panels[2].plot(history.losses, color=PALETTE["model"], linewidth=0.8)
panels[2].axhline(entropy, color=PALETTE["data"], label="entropy of the data")
panels[2].set(title="training", xlabel="step", ylabel="loss, nats")
panels[2].legend()
figure.tight_layout()
show_figure(
    figure,
    alt="The exact density of the two moons; the density that NICE learned, alike but for a bridge "
    "between the moons; and the falling loss.",
)

# %% [markdown]
# ## Play: the grid, both ways
#
# The moons of the first figure, now from data to latent. The colour is the log-determinant so far, and
# **it does not change at all** until the last step, where it changes by the same amount everywhere:
# couplings shear, and only the scaling changes volume.

# %%
states, log_dets = follow(moons, toy("two_moons", 2000, generator=seeded(3)))
ParticlePlayer(
    states,
    grid=moons.trajectory(mesh * 0.9).reshape(-1, 25, 25, 2),
    color=log_dets,
    color_map="signed",
    color_label="log-determinant so far (nats)",
    extent=(-3.2, 3.2, -3.2, 3.2),
    labels=["two moons", *(f"coupling {k}" for k in range(1, 9)), "scaling"],
    title="No colour, no change of volume",
    alt="Two moons are sheared step by step into a round cloud; the colour stays the same until the last step.",
)

# %%
pinwheel = load_pretrained("nice_pinwheel")
z = pinwheel.base.sample(2000, generator=seeded(0))
ParticlePlayer(
    pinwheel.trajectory_inverse(z),
    grid=pinwheel.trajectory_inverse(mesh).reshape(-1, 25, 25, 2),
    color=torch.atan2(z[:, 1], z[:, 0]),
    color_label="direction in the Gaussian (radians)",
    color_map="cyclic",
    extent=(-3.2, 3.2, -3.2, 3.2),
    labels=["the Gaussian", "scaling undone", *undone, "a pinwheel"],
    title="From a Gaussian to a pinwheel",
    alt="A round cloud is sheared into five curved blades; each direction of the cloud becomes part of a blade.",
)

# %% [markdown]
# ## One peak
#
# The colour says that $|\det J|$ is the same number at every point. So $p(x)$ is $p_Z(f(x))$ times a constant, and by the chain rule
#
# $$\frac{\partial \log p}{\partial x} = J^\top\,\frac{\partial \log p_Z}{\partial z}.$$
#
# $J$ is invertible, so the left side is zero exactly where the slope of the prior is. A Gaussian has slope zero at $z = 0$ and
# nowhere else. **A NICE has exactly one peak, at $f^{-1}(0)$, and no other critical point** (a point of slope zero), however bent it is. (At the
# kinks of a ReLU network there is no $J$. But $f$ and $f^{-1}$ are continuous there, so that peaks still go to peaks.)
#
# This is why the bridge between the moons must be there. Go from one moon to the other along the image of a straight line
# between their latents. On that line the Gaussian never falls below the lower of its two ends, so neither does $p$.

# %%
ends = moons(torch.tensor([[-1.0, 1.05], [0.0, -0.9]]))[0].detach()
way = torch.linspace(0, 1, 200)[:, None]
bridge = moons.inverse((1 - way) * ends[0] + way * ends[1])[0].detach()
learned, true = moons.log_prob(bridge).exp().detach(), toy_log_prob("two_moons", bridge).exp()
lowest_end = min(learned[0], learned[-1])
print("the learned density never falls below its ends:", bool(learned.min() > 0.999 * lowest_end))
print("the true one falls to less than a fiftieth:", bool(true.min() < min(true[0], true[-1]) / 50))

# %% [markdown]
# **A changed experiment, without a checker.** Say first what you will see, then try it: train `small` again with `couplings=1`,
# then 2, then 3. Then with all couplings `flip=False` (build it with `Flow([...], StandardGaussian(2))`), and explain
# the picture. (Hint: $x_1$ is never moved, so what is its density?)
#
# ## How many couplings are enough?
#
# Two couplings that move the *same* half are no better than one:
# $x_b + m_1(x_a) + m_2(x_a)$ is a single coupling with the network $m_1 + m_2$. So they alternate.
#
# **Exercise 3: predict before you read on.** With four or more coordinates, after how many alternating
# couplings can every output depend on every input? Write a number in place of the dots.

# %%
prediction = ...

check("04.predict_couplings", prediction)

# %% [markdown]
# To find out, follow the two halves, with primes for new values.
#
# 1. $x_b' = x_b + m_1(x_a)$. Each coordinate of $x_b'$ depends on all of $x_a$, but of $x_b$ only on *itself*.
# 2. $x_a' = x_a + m_2(x_b')$. Each coordinate of $x_a'$ depends on all of $x_b'$, and through it on all of $x_a$
#    and all of $x_b$. This half is done; $x_b'$ is not.
# 3. $x_b'' = x_b' + m_3(x_a')$ depends on all of $x_a'$, hence on everything. **Three are enough**; with two,
#    one coordinate of $x_b$ cannot influence another.
#
# The paper says so, and takes four. Below is who depends on whom, measured: dark where an entry of $J$
# is not zero, for random networks and 10 coordinates.

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(9, 2.7))
for k, axes in enumerate(figure.subplots(1, 4, sharey=True), start=1):
    axes.imshow(coupling_dependencies(k, 10, generator=seeded(0)), cmap="Greys", vmin=0, vmax=1.3)
    axes.set_title(f"{k} coupling{'s' if k > 1 else ''}")
    axes.set_xticks(range(0, 10, 2))
    axes.set_xlabel("input")
figure.axes[0].set_ylabel("output")
figure.tight_layout()
show_figure(
    figure,
    alt="Who depends on whom after one to four couplings: few, then the even rows completely, and "
    "everybody on everybody from three couplings on.",
)

# %% [markdown]
# ## What the scales say
#
# In the latent, every coordinate has the same spread, that of the prior. So before the scaling layer, coordinate $i$ has a spread
# proportional to $e^{-s_i}$: **a large $s_i$ marks a coordinate in which what comes in hardly varies** once the couplings have explained what they can, a small one a
# coordinate with something left to say. The paper's appendix plots the spreads, sorted (Figure 8). They play the part that the square roots of
# the eigenvalues play in principal component analysis, for a curved coordinate system.
#
# Latent coordinate $i$ is pixel $i$, shifted, so its spread can be drawn at that pixel. (Our image models first *standardize*
# each pixel, $(x_i - \text{mean}_i)/\text{std}_i$, so that one learning rate suits all. In units of the image the spread is then $\text{std}_i\,e^{-s_i}$; $s_i$ alone says only how much of a pixel's own variation the couplings explain. *Spread* is here the prior's scale, carried back to the pixel; for the logistic prior the standard deviation is $\pi / \sqrt 3 \approx 1.81$ times as large.)

# %%
spread = {}  # of every latent coordinate, in grey values
for name, model in (("digits", digits_model), ("MNIST", mnist_model)):
    first, *_, scaling = model.transforms
    spread[name] = (first.std * (-scaling.log_scale).exp()).detach()

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(10, 2.9))
left, middle, right = figure.subplots(1, 3)
for axes, image, title in (
    (left, digits.mean(dim=0)[0], "the mean digit"),
    (middle, spread["digits"].reshape(8, 8), "spread: std · exp(-s)"),
):
    picture = axes.imshow(image)
    axes.set(title=title, xlabel="pixel column", ylabel="pixel row")
    figure.colorbar(picture, ax=axes)
for name, colour in (("digits", "model"), ("MNIST", "data")):
    falling = spread[name].sort(descending=True).values
    right.semilogy(torch.linspace(0, 1, len(falling)), falling, color=PALETTE[colour], label=name)
right.set(title="the same, sorted", xlabel="share of the pixels", ylabel="spread (grey values)")
right.legend()
figure.tight_layout()
show_figure(
    figure,
    alt="Left, the mean of all digits. Middle, the spread of each latent coordinate: near zero at the "
    "left and right border, largest where strokes vary. Right, the spreads sorted, for the digits and "
    "for MNIST, where they fall by a factor of more than a hundred.",
)

# %%
narrow = spread["MNIST"].sort().values[:392]
from_narrow = (-2 - narrow.log()).sum().item()
from_all = (-2 - spread["MNIST"].log()).sum().item()
print(f"MNIST, spreads: from {narrow[0]:.4f} to {spread['MNIST'].max():.2f} grey values")
print(f"MNIST, mean log-density of the model's own samples: {from_all:,.0f} nats")
print(f"of these from the narrower half of its pixels: {from_narrow / from_all:.0%}")

# %% [markdown]
# **Where the nats come from.** A latent coordinate of a logistic prior brings $-2$ nats on average (that is minus its entropy), and its
# scaling minus the logarithm of its spread. So a pixel that is black in almost every image, with a spread of a thousandth, brings
# $-2 + \ln 1000 \approx 5$ nats, and one with a spread of a tenth 0.3. The narrower half brings most of the nats. Keep this in mind when you read likelihoods.

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## May be skipped: Gaussian or logistic?
#
# *It holds: why images get a logistic prior, told by the force with which it pulls on outliers.*

# %% [markdown]
# ### The force on a latent
#
# The moons had a Gaussian prior; the paper takes a logistic one for MNIST, and so do we for images. Any density with independent coordinates will do. The two are
#
# $$\text{Gaussian: } \log p(z) = -\tfrac12\left(z^2 + \log 2\pi\right), \qquad
#   \text{logistic: } \log p(z) = -\log(1 + e^{z}) - \log(1 + e^{-z}).$$
#
# Training pulls each latent with the force $\partial \log p/\partial z$. For the Gaussian it is $-z$: an
# outlier at $z = 10$ pulls ten times as hard as a point at 1. For the logistic it is
# $-\tanh(z/2)$, **never more than 1**, so a few odd images pull far less on the training. (Take the derivative: $-\frac{e^z}{1 + e^z} + \frac{1}{1 + e^{z}}$.)

# %% jupyter={"source_hidden": true}
z = torch.linspace(-6, 6, 241)[:, None].requires_grad_()
figure = Figure(figsize=(8, 2.9))
left, right = figure.subplots(1, 2)
for prior, name, colour in (
    (StandardGaussian(1), "Gaussian", PALETTE["noise"]),
    (StandardLogistic(1), "logistic", PALETTE["latent"]),
):
    log_prob = prior.log_prob(z)
    (force,) = torch.autograd.grad(log_prob.sum(), z)
    left.plot(z.detach(), log_prob.detach(), color=colour, label=name)
    right.plot(z.detach(), force, color=colour, label=name)
left.set(title="log-density", xlabel="z", ylabel="log p(z), nats", ylim=(-12, 0))
right.set(title="its slope: the force on a latent", xlabel="z", ylabel="d log p / dz")
left.legend()
right.legend()
figure.tight_layout()
show_figure(
    figure,
    alt="The Gaussian log-density is a parabola, its slope grows without limit; the logistic one "
    "becomes straight, its slope stays between -1 and 1.",
)

# %%
print("the logistic's force is -tanh(z / 2):", torch.allclose(force, -torch.tanh(z / 2), atol=1e-6))
show_source(StandardLogistic.log_prob)

# %% [markdown]
# ## Discrete data need noise
#
# A pixel is one of $L$ grey levels (17 for our digits, 256 for MNIST), not a real number. A *density* can
# cheat on such data: put a narrow spike on each level. The spikes below are a fair density, they
# integrate to 1 for every width, and they know nothing about images. Yet on the raw pixels their
# log-likelihood grows without bound as the width shrinks.
#
# **Exercise 4: break it on purpose.** Write such a density before you look: it integrates to 1 and, with spikes that are `width` wide, is as likely as you
# please on the raw grey values $k/16$. Then say in one sentence what is wrong with the claim "our model reaches 10,000 nats".


# %%
def my_spiky_log_prob(x, width):
    """Return the log-density [B] of x [B], in nats."""
    ...


check("04.break_it", my_spiky_log_prob)

# %%
grey = digits.flatten()
noisy = dequantize(grey, 17, generator=seeded(0))
print("width of the spikes     mean log-density of raw pixels     of dequantized pixels")
for width in (1e-1, 1e-2, 1e-4, 1e-8):
    raw = spiky_log_prob(grey, width, levels=17).mean().item()
    honest = spiky_log_prob(noisy, width, levels=17).mean().item()
    print(
        f"{width:19.0e} {raw:34.1f} {'less than -100' if honest < -100 else format(honest, '.1f'):>25}"
    )

# %% [markdown]
# The cure is to **dequantize**: spread each level evenly over its own interval,
#
# $$y = \frac{k + u}{L}, \qquad k \in \{0, \dots, L - 1\}, \quad u \sim \mathrm{Uniform}[0, 1).$$
#
# Now a spike catches hardly any of the data. More than that: the log-density becomes an honest *bound*.
# A density $p$ gives each discrete image $k$ (now with $n$ pixels) the probability of its little cube, all $y = (k + u)/L$. There
# $\mathrm dy = \mathrm du / L^n$, so
#
# $$P(k) = \int_{\text{cube}(k)} p(y)\,\mathrm dy
#        = \frac1{L^n} \int_{[0,1)^n} p\!\left(\tfrac{k + u}{L}\right)\mathrm du
#        = \frac1{L^n}\;\mathbb E_u\, p\!\left(\tfrac{k+u}{L}\right).$$
#
# The logarithm is concave, so by Jensen's inequality $\log \mathbb E \ge \mathbb E \log$ and
#
# $$\log P(k) \;\ge\; \mathbb E_u \log p\!\left(\tfrac{k+u}{L}\right) - n \log L .$$
#
# The right-hand side is what we train. (With noise from a *learned* $q(u \mid k)$ in place of the uniform one the bound is tighter: **variational dequantization**, Ho et al. 2019, Flow++, [arXiv:1902.00275](https://arxiv.org/abs/1902.00275).) (A flow also puts some probability outside $[0, 1)^n$. Then the $P(k)$ add up
# to less than 1: the model wastes some, and the bound still holds.) Divide by $-n \log 2$ and it is a number of **bits per dimension**:
# how many bits per pixel a lossless code built from the model would need, at most.
#
# $$\text{bits/dim} = -\frac{\mathbb E_u \log p(y)}{n \log 2} + \log_2 L .$$
#
# In the library images come as grey values `x` $= k/(L-1)$ from 0 to 1, and `levels` is $L$.

# %%
show_source([dequantize, bits_per_dim])

# %% [markdown]
# **Exercise 5: predict.** A flow knows images of 784 pixels with values in $[0, 1)$. Somebody has the same images in $[0, 256)$, and so divides by 256 first. Nothing
# else changes. By how many nats does $\log p$ of an image change? (And do its bits per dimension?)

# %%
prediction = ...

check("04.predict_units", prediction)

# %% [markdown]
# **Check the bound** where both sides are known: one pixel with 17 levels, and a logistic density around
# 0.4 with scale 0.05, whose distribution function $F(y) = 1/(1 + e^{-(y - 0.4)/0.05})$ gives $P(k)$
# exactly. And a check of the bits: the uniform density has $\log p = 0$, and must cost $\log_2 L$ bits.

# %%
k = torch.arange(17, dtype=torch.float64)
exact = (torch.sigmoid(((k + 1) / 17 - 0.4) / 0.05) - torch.sigmoid((k / 17 - 0.4) / 0.05)).log()
y = (k[:, None] + torch.rand(17, 4000, generator=seeded(0), dtype=torch.float64)) / 17
in_units = (y.reshape(-1, 1) - 0.4) / 0.05
log_density = StandardLogistic(1).double().log_prob(in_units) - torch.tensor(0.05).log()
bound = log_density.reshape(17, -1).mean(dim=1) - torch.tensor(17.0).log()
print("the bound holds for all 17 grey levels:", bool((bound <= exact + 1e-3).all()))
print("largest gap, in nats:", round((exact - bound).max().item(), 2))
print("bits of the uniform density, for 256 levels:", bits_per_dim(0.0, 784, 256))

# %% [markdown]
# ## Train it: handwritten digits
#
# The same code on 64 dimensions: 1,438 real digits, dequantized afresh in every step. (The stored model
# beside it has eight couplings and was trained for six thousand steps. It saw most digits
# a little turned and moved, against overfitting.)

# %%
train_digits = load_digits("train")[0].flatten(1)
torch.manual_seed(0)
live = NICE(64, standardize=True)
live.transforms[0].measure(dequantize(train_digits, 17, generator=seeded(2)))
history = fit(
    live,
    train_digits,
    steps=800,
    batch_size=128,
    lr=2e-3,
    clip=10.0,
    ema=0.99,
    transform=lambda x, generator: dequantize(x, 17, generator=generator),
)
print("the mean log-likelihood of training images rose above 55 nats:", -history.loss() > 55)

# %%
rows = [digits[:12].flatten(1)] + [m.sample(12, generator=seeded(5)) for m in (live, digits_model)]
show_figure(
    image_grid(
        torch.cat(rows).reshape(-1, 8, 8),
        columns=12,
        titles=["real", "trained just now", "stored model"],
    ),
    alt="Three rows: real digits, samples of the model trained just now, and samples of the stored "
    "model, most of which look like digits.",
)

# %% [markdown]
# **Check the stored model**, all ten transforms of it: the inverse, and the log-determinant against the Jacobian of everything.

# %%
precise = copy.deepcopy(digits_model).double()
x = dequantize(digits[:3].flatten(1).double(), 17, generator=seeded(0))
z, log_det = precise(x)
exact = jacobians(lambda p: precise(p)[0], x)
print(
    "the inverse gives the images back, within 1e-10:",
    (precise.inverse(z)[0] - x).abs().max().item() < 1e-10,
)
print(
    "log_det is right, within 1e-8:",
    (log_det - torch.linalg.slogdet(exact)[1]).abs().max().item() < 1e-8,
)

# %% [markdown]
# ## Play: noise becomes a digit
#
# The same in 64 dimensions. At the start each pixel is noise of its own, of the size that the scaling
# layer has learned, and no pixel knows another. Each coupling then shifts half of the pixels according to
# the other half. Step by step the pixels agree on a digit.

# %%
states = digits_model.trajectory_inverse(digits_model.base.sample(20, generator=seeded(12)))
pictures = [standardize.inverse(state)[0].reshape(-1, 8, 8).clamp(0, 1) for state in states[1:-1]]
ImagePlayer(
    torch.stack(pictures),
    columns=10,
    labels=["independent pixels", *undone, "the samples"],
    title="Noise becomes digits",
    alt="Twenty images of noise that turn into handwritten digits in eight steps.",
)

# %% [markdown]
# ## One mode for ten classes
#
# The argument of *One peak* asked two things: a volume that changes by the same factor everywhere, and a prior with one critical point.
# The logistic has one, too: its slope $-\tanh(z/2)$ is zero at 0 alone. So the model of the digits, which draws ten classes, has
# **one mode**: from an image of any class the density rises without a dip to one and the same image, $f^{-1}(0)$.
#
# Take ten real digits, one of each class, and let each climb $\log p(x)$ by its gradient in the pixels. Nobody tells them where the peak is. (`climb_to_peak` uses L-BFGS, which guesses good lengths
# of steps from earlier gradients.)
#
# The peak itself needs no search:

# %%
show_source(peak)

# %%
ten = torch.stack([digits[labels == digit][0] for digit in range(10)]).flatten(1)
start = dequantize(ten.double(), 17, generator=seeded(0))
end, top = climb_to_peak(precise, start), peak(precise)
with torch.no_grad():
    log_p = [precise.log_prob(images) for images in (start, end, top)]
print(
    f"log p of the ten digits: {log_p[0].min():.0f} to {log_p[0].max():.0f} nats; of the peak: {log_p[2].item():.0f}"
)
print("all ten climbs end within 0.1 nats of the peak:", bool(log_p[1].min() > log_p[2] - 0.1))
print("and within 0.2 of its grey values:", bool((end - top).abs().max() < 0.2))
show_figure(
    image_grid(
        torch.cat([start, end]).reshape(-1, 8, 8).float().clamp(0, 1),
        columns=10,
        titles=["ten digits", "climbed"],
    ),
    alt="Ten digits, one of each class, and below each the image where its climb ended: ten times the "
    "same blurred upright stroke.",
)

# %% [markdown]
# The spreads of the MNIST model go from less than a thousandth to almost a fifth (printed above), so a climb by the gradient
# would take long. There is a shorter way up: shrink the latent. Along the image of
# $z, \tfrac34 z, \tfrac12 z, \tfrac14 z, 0$ every coordinate of the prior rises, and so does $\log p$.

# %%
z = mnist_model.base.sample(10, generator=seeded(1))
with torch.no_grad():
    rising = torch.stack(
        [mnist_model.log_prob(mnist_model.inverse(t * z)[0]) for t in torch.linspace(1, 0, 21)]
    )
    way_up = torch.cat([mnist_model.inverse(t * z)[0] for t in (1.0, 0.75, 0.5, 0.25, 0.0)])
print("log p rises in each of 20 steps, for all ten:", bool((rising.diff(dim=0) > 0).all()))
for name, model in (("digits", digits_model), ("MNIST", mnist_model)):
    with torch.no_grad():
        of_samples = model.log_prob(model.sample(4000, generator=seeded(0)))
        above = model.log_prob(peak(model)) - of_samples
    print(
        f"{name}: the peak lies {above.mean():.0f} nats above the mean sample, more than {10 * int(above.min() // 10)} above the best of 4,000"
    )
show_figure(
    image_grid(
        way_up.reshape(-1, 28, 28).clamp(0, 1),
        columns=10,
        size=0.75,
        titles=["samples", "¾ z", "½ z", "¼ z", "the peak"],
    ),
    alt="Ten samples of the MNIST model; the lower the row, the more alike they are, until the last "
    "row shows ten times the same blurred stroke.",
)

# %% [markdown]
# Two things follow. *The classes hang together*: from any 3 to any 8 leads a path of images, none of them less likely than the less likely of
# the two. No wonder that some samples are no digit. And *the most likely image is like no sample*: of 4,000 draws none came near the peak. In many
# dimensions nearly all probability lies where the density is lower but space is larger, on the **typical set**.
#
# **Exercise 6: derive the height.** The cell above measured how far the peak lies above the mean sample. Find the number with pencil and paper, for both priors
# and any number of coordinates. What part do the scales $s_i$ play? Your result should give what was measured.


# %%
def my_peak_height(log_scale, prior):
    """Return a number of nats, a scalar; log_scale [D] holds s, prior is "gaussian" or "logistic"."""
    ...


check("04.peak_height", my_peak_height)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## May be skipped: fill in what is missing
#
# *It holds: inpainting by the gradient of the log-density, and a figure in which you scratch pixels out.*

# %% [markdown]
# ### Climb the density
#
# An exact $\log p(x)$ has an exact gradient, and that gives **inpainting** for free: keep the known pixels, and
# let the unknown ones climb. The paper (section 5.2) moves each by $\alpha\,(\partial \log p/\partial x + \varepsilon)$ with a step $\alpha$ that
# shrinks, a little Gaussian noise $\varepsilon$ against getting stuck, and puts it back into $[0, 1]$.
#
# We change one thing. Pixels in the middle vary a lot, those at the border hardly at all, and a step that suits the first is
# far too long for the second. So each pixel is measured in its own standard deviation: `units` in the code. Step and noise were found by trial.

# %%
show_source(climb)

# %% [markdown]
# Scratch out part of a digit with the mouse, then press *Fill in*. On an 8, scratch out the strokes that tell it
# from a 3: what comes back? Press *Fill in again* for another answer. (With the known pixels held, what is left of the density is a slice, and a slice
# of a density with one peak may have several.)


# %%
def fill(image, known):
    """Fill in the unknown pixels of image [8, 8]; all states of the ascent [T, 8, 8]."""
    given = torch.as_tensor(known).reshape(1, 64)
    start = (standardize.mean + standardize.std * torch.randn(1, 64)).clamp(0, 1)
    x = torch.where(given, torch.as_tensor(image).reshape(1, 64), start)
    units = standardize.std
    states = inpaint(digits_model, x, given, steps=60, step_size=0.06, noise=3.0, units=units)
    return states.reshape(-1, 8, 8).numpy()


torch.manual_seed(0)
chosen = digits[[22, 25, 11, 17, 0, 1, 6, 9]]  # 8 8 3 3 4 9 6 0
Inpaint(
    dequantize(chosen, 17, generator=seeded(0)),
    fill,
    title="Scratch pixels out, fill them in",
    alt="A handwritten digit whose lower half is missing, and is filled in step by step.",
)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## May be skipped: a flow that changes volume
#
# *It holds: the planar transform, its determinant, and a film of where it stretches and squeezes the plane.*

# %% [markdown]
# ### The planar transform
#
# In a NICE all colour comes in the last step. For comparison, a flow that stretches here and squeezes there: a **planar** transform (Rezende, Mohamed 2015, equation 10) pushes
# points along one direction $v$, by an amount that depends on where they lie along another,
#
# $$z = x + v \tanh(w \cdot x + b), \qquad \det J = 1 + (w \cdot v)\left(1 - \tanh^2(w \cdot x + b)\right).$$
#
# Why? $J$ is the unit matrix plus one of rank one, $(1 - \tanh^2)\,v\,w^\top$. It leaves every vector orthogonal to $w$ alone, which makes $n - 1$
# eigenvalues 1, and stretches $v$ by the last one, $\det J$. The transform is invertible when $w \cdot v > -1$, and the library takes care of that. But the inverse
# has no closed form, so that sampling is slow: one reason to prefer couplings.

# %%
show_source(Planar.forward)

# %% [markdown]
# Six planar transforms with random parameters. **Orange is where space was stretched, blue where it was squeezed.** Watch the mesh: its cells grow
# where the points turn orange. The last line checks the running sum against automatic differentiation.

# %%
torch.manual_seed(14)
planar = Flow([Planar(2) for _ in range(6)], StandardGaussian(2))
for transform in planar.transforms:
    transform.w.data *= 2.0
    transform.u.data *= 2.0
states, log_dets = follow(planar, torch.randn(2000, 2, generator=seeded(1)))
ParticlePlayer(
    states,
    grid=planar.trajectory(mesh).reshape(-1, 25, 25, 2),
    color=log_dets,
    color_map="signed",
    color_label="log-determinant so far (nats)",
    title="Six planar transforms",
    alt="A round cloud of points is stretched and squeezed; points in stretched places turn orange.",
)

# %%
planar = planar.double()
x = torch.randn(50, 2, generator=seeded(2), dtype=torch.float64)
exact = jacobians(lambda p: planar(p)[0], x).det().abs().log()
print("largest difference below 1e-10:", (planar(x)[1] - exact).abs().max().item() < 1e-10)

# %% [markdown]
# ## How good is it?
#
# Two rivals that need no network: a logistic with one location and scale per pixel, and a Gaussian with
# a full covariance matrix, both fitted to the same dequantized training digits. The first knows no
# relation between pixels, the second every *linear* one. The numbers of the trained models come from
# their cards in `data/checkpoints`, which also name the command that trains them: `python -m course_lib
# train nice_mnist` takes less than an hour on two cores.

# %%
noisy_train = torch.cat([dequantize(train_digits, 17, generator=seeded(i)) for i in range(10)])
noisy_test = torch.cat(
    [dequantize(digits.flatten(1), 17, generator=seeded(100 + i)) for i in range(10)]
)
measured = "test log-likelihood (nats)"
nats = {
    ("diagonal logistic", "digits"): LogisticBaseline.fit(noisy_train).log_prob(noisy_test).mean(),
    ("full-covariance Gaussian", "digits"): GaussianBaseline.fit(noisy_train)
    .log_prob(noisy_test)
    .mean(),
    ("**our NICE**", "digits"): load_card("nice_digits")["metrics"][measured],
    ("**our NICE**", "MNIST"): load_card("nice_mnist")["metrics"][measured],
    ("NICE, Dinh et al. 2014", "MNIST"): 1980.50,
}
parameters = load_card("nice_mnist")["parameters"]
in_paper = 4 * sum((a + 1) * b for a, b in ((392, 1000), *4 * [(1000, 1000)], (1000, 392))) + 784
pixels_and_levels = {"digits": (64, 17), "MNIST": (784, 256)}
table = f"| model | data | {measured} | bits per dimension |\n| --- | --- | ---: | ---: |\n"
for (model, data), value in nats.items():
    bits = bits_per_dim(float(value), *pixels_and_levels[data])
    table += f"| {model} | {data} | {value:.1f} | {bits:.2f} |\n"
table += f"\nParameters on MNIST: ours {parameters / 1e6:.1f} million, the paper's {in_paper / 1e6:.1f} million."
Markdown(table)

# %% [markdown]
# How to read it:
#
# - **On the digits** NICE beats both rivals by a wide margin, on images that it has never seen. The
#   Gaussian knows the linear relations between pixels, and NICE the curved ones too. (Other writers' digits
#   would be harder: training and test images come from the same people.)
# - **The paper's row.** Its section 5.1 gives 1980.50 nats, on dequantized MNIST scaled to $[0, 1]$ as ours, and no bits. The bits beside it are our
#   conversion (lists of results print the same 4.36), so they check nothing but arithmetic.
# - **We land above it** with a tenth of its parameters: two layers of 400 units in each
#   of four couplings, where the paper has five of 1,000. Do not take it for a better idea: it is the same kind of model, with
#   smaller networks and newer habits. Our pixels are standardized inside the flow, the optimiser is AdamW with
#   a learning rate that decays and a little weight decay, and the stored weights are an average over the last
#   steps. We did not measure what each of them contributes.
# - **Never compare nats across data sets**, nor densities of raw and of dequantized pixels. Bits per
#   dimension can be compared, for the same images and the same number of grey levels.
# - **The likelihood is not the eye.** By its likelihood our model beats the paper's; in the samples below your eye still finds speckles and
#   fragments that no hand would write. You know where most of the nats come from: pixels that hardly ever change.

# %%
samples = mnist_model.sample(24, generator=seeded(1)).reshape(-1, 28, 28)
show_figure(
    image_grid(samples, columns=12, size=0.75),
    alt="Twenty-four samples of the NICE trained on MNIST: many look like handwritten digits, some are fragments.",
)

# %% [markdown]
# ## What to take away
#
# - An invertible function turns a simple density into a rich one; the log-determinant of its Jacobian is the
#   price, and log-determinants of a chain add up.
# - An additive coupling is invertible and has determinant 1 *whatever network it holds*. Alternate the
#   halves; three couplings connect everything.
# - Couplings keep volume, and the scaling changes it by the same factor everywhere. So a NICE has exactly one peak, for two moons and for ten
#   classes: all it can do is make the bridges narrow. A flow that changes volume from place to place can also make them
#   faint (chapter 05); none that is continuous can remove them.
# - On discrete data, dequantize, or the likelihood means nothing. Report bits per dimension.
#
# **What does not work well:** images. The networks are fully connected, so they must learn from scratch which
# pixels are neighbours. Every coordinate has to pass through all layers, however early its value is settled, which
# costs time and memory. And volume can't change from place to place.
#
# **What came after:**
#
# - *What volume costs.* Volume-preserving flows cannot learn every density, however deep; which one they learn instead, and a cure (Draxler et al. 2024, [arXiv:2402.06578](https://arxiv.org/abs/2402.06578)).
# - *Past the bridge.* A flow that comes close to data in separate pieces must become all but non-invertible; flows with an extra continuous index get around it (Cornish et al. 2020, [arXiv:1909.13833](https://arxiv.org/abs/1909.13833)).
# - *No noise needed.* Couplings that shift whole numbers by whole numbers keep data discrete and make a lossless code (Integer discrete flows, Hoogeboom et al. 2019, [arXiv:1905.07376](https://arxiv.org/abs/1905.07376)).
#
# **Next, chapter 05:** RealNVP lets each coupling scale as well as shift, so that volume changes where the data
# ask for it, and Glow learns how to mix the coordinates between couplings.

# %% [markdown]
# [← 03 · VQ-VAE](03_vq_vae.ipynb) | [Contents](../README.md#chapters) | [05 · RealNVP and Glow →](05_realnvp_glow.ipynb)
