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
# [← 08 · SDE](08_sde.ipynb) | [Contents](../README.md#chapters) | [10 · EDM →](10_edm.ipynb)

# %% [markdown]
# # 09 · ODEs and flow matching
#
# **Let noise flow into data along a velocity, without a dice roll on the way: then every sample has a latent and an
# exact density, and the velocity can be learned by plain regression.**
#
# | | |
# | --- | --- |
# | You need | chapter 04: the change of variables; chapter 06: $x_t = a x_0 + b \varepsilon$; chapter 08 for sections 2 and 8: Fokker–Planck, the score |
# | Time | 53 minutes to read, two hours with the exercises |
# | The short way | 30 minutes: sections 1 to 4, *How good is it?* and *What to take away*; leave out all that is called a check |
# | You will meet | the continuity equation, the heat equation, the probability-flow ODE, flow matching and its proof, solvers and their orders, exact densities, Hutchinson's estimate, continuous flows and the adjoint, optimal transport in a batch |
# | Papers | Song et al. 2021, [score SDEs](https://arxiv.org/abs/2011.13456); Chen et al. 2018, [neural ODEs](https://arxiv.org/abs/1806.07366); Grathwohl et al. 2019, [FFJORD](https://arxiv.org/abs/1810.01367); Lipman et al. 2023, [flow matching](https://arxiv.org/abs/2210.02747); Tong et al. 2024, [minibatch OT](https://arxiv.org/abs/2302.00482) |
# | Source article | the one on ODE diffusion models, "a direct derivation" by way of Jacobians and the heat equation (in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter), then press play. The network is chapter 06's, trained on two moons; nothing is
# trained anew. At the left it is sampled with noise in each of 200 steps, at the right without any, in 20. Watch the
# lines of the few larger points.

# %%
import torch

from course_lib.diffusion import euler_maruyama, last, ode_encode, ode_log_prob, ode_sample
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import CrossingLines, Fluid, ParticlePlayer, SampleTable, SolverRace

one_thread()  # models this small are slower on two

# %%
moons_ddpm = load_pretrained("ddpm_two_moons")
z = torch.randn(2000, 2, generator=seeded(5))
drunk = torch.stack(list(euler_maruyama(moons_ddpm, z.shape, steps=200, z=z, generator=seeded(6))))
smooth = torch.stack(list(ode_sample(moons_ddpm, z.shape, steps=20, solver="heun", z=z)))
frames = [0, 6, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20]
ParticlePlayer(
    drunk[[10 * k for k in frames]],
    beside=smooth[frames],
    titles=("with noise: an SDE", "without: an ODE"),
    trails=drunk[:, :5],
    beside_trails=smooth[:, :5],
    labels=[f"t = {1 - k / 20:.2f}" for k in frames],
    extent=(-3, 3, -3, 3),
    role="model",
    title="The same noise, the same network, two ways",
    alt="Two round clouds become two moons. The lines of single points are jagged at the left and "
    "smooth curves at the right.",
)

# %% [markdown]
# Three things to notice:
#
# - **The clouds agree at all times, the points do not.** Both crowds have the same density at each moment; who stands
#   where in them differs.
# - **A smooth way can be followed in long steps**: here in 20 of Heun's, which are 40 calls. Whether that beats noise at equal calls, *How good is it?* asks.
# - **Each point of noise has its own end, and each end its own noise.** The right half can be played backwards, and it
#   would lead to the same cloud: a flow as in chapter 04, but one that moves all the time.

# %% [markdown]
# ## The idea
#
# Chapters 06 to 08 came to a way without noise by a detour: first they added noise, then they took it out again. The
# source article asks: *if an ODE is what we want, why not derive it at once?* So begin with a velocity $v(x, t)$, let
# every point of the space move by
#
# $$\frac{\mathrm d x}{\mathrm d t} = v(x, t),$$
#
# and ask two questions. What does it do to a density? And which $v$ turns data into noise, so that $-v$ turns noise
# into data?
#
# As everywhere in this course **time runs from the data, $t = 0$, to the noise, $t = 1$** (for DDPM from 0 to $T - 1$).
# Papers on flow matching count the other way; their $t$ is our $1 - t$, and their velocity is ours with another sign.
#
# | symbol | meaning |
# | --- | --- |
# | $x$, $t$; $x_t$; $x_0$ | a place and a time; a moving point; data |
# | $v$; $v_\theta$ | the velocity of the flow; a network's, with parameters $\theta$ |
# | $p_t$; $q$; $p_1$ | the density at time $t$; of the data; at the end |
# | $n$; $i$, $j$ | number of coordinates; their indices |
# | $J$; $I$; $\nabla$, $\nabla \cdot$ | the matrix $\partial v_i / \partial x_j$; the unit matrix; gradient and divergence |
# | $\varepsilon$; $a$, $b$; $a'$, $b'$ | standard normal noise; the path $x_t = a x_0 + b \varepsilon$; derivatives by $t$ |
# | $f$, $g$ | drift and diffusion of the SDE of a path (chapter 08) |
# | $u$ | the velocity $a' x_0 + b' \varepsilon$ of one pair |
# | $y = x / a$, $\rho = b / a$ | state and noise in the units of chapter 07 |
# | $k_1, \dots, k_4$; $N$; $O(\mathrm dt^2)$ | velocities within a step; number of steps; terms that fall at least like $\mathrm dt^2$ |
# | $\epsilon$ | a probe: independent signs |
# | $c$; $L$ | the adjoint, $\partial L / \partial x_t$; a loss |
# | $\pi$; $\varphi$ | a permutation, who is paired with whom; a smooth function that vanishes far out |
# | $\mathbb E$, $\mathcal N$ | mean; normal density |
# | $r_t$; $v_p$, $v_r$ | a second density that moves along; the velocities of both (section 8) |

# %% [markdown]
# ## 1. What a velocity does to a density
#
# In a short time $\mathrm dt$ a point at $x_t$ moves to $x_t + v(x_t, t)\, \mathrm dt$. That is an invertible map, if
# $\mathrm dt$ is short, and its Jacobian is $I + J\, \mathrm dt$. The change of variables of chapter 04 says
#
# $$\log p_{t + \mathrm dt}(x_{t + \mathrm dt}) = \log p_t(x_t) - \log \det (I + J\, \mathrm dt).$$
#
# **The determinant.** It is a sum over permutations of products, one factor from each row. The product of the diagonal
# is $\prod_i (1 + J_{ii}\, \mathrm dt) = 1 + \mathrm dt \sum_i J_{ii} + O(\mathrm dt^2)$. Any other permutation leaves
# the diagonal in at least two rows, and each entry beside the diagonal has a factor $\mathrm dt$. So all the rest is
# $O(\mathrm dt^2)$, and
#
# $$\log \det (I + J\, \mathrm dt) = \mathrm dt \sum_i \frac{\partial v_i}{\partial x_i} + O(\mathrm dt^2).$$
#
# The sum is the trace of $J$, the **divergence** $\nabla \cdot v$. Divide by $\mathrm dt$:
#
# $$\boxed{\;\frac{\mathrm d}{\mathrm d t} \log p_t(x_t) = - \nabla \cdot v(x_t, t)\;}$$
#
# Where the flow spreads out, a point that goes with it sees the density around it fall. This is the **instantaneous
# change of variables**, and a first gift: no determinant, only a trace. No layer must be built to have an easy one.
#
# **Seen from a place that stays.** The left side is a derivative along the way, and by the chain rule it is
# $\partial_t \log p_t + v \cdot \nabla \log p_t$. Multiply by $p_t$:
# $\partial_t p_t + v \cdot \nabla p_t + p_t \nabla \cdot v = 0$. The last two terms are the derivative of a product:
#
# $$\frac{\partial p_t}{\partial t} = - \nabla \cdot (p_t\, v).$$
#
# This is the **continuity equation** of every fluid. $p_t v$ is the flux, the mass that passes a place. On a line it
# reads off at once: between $x$ and $x + \mathrm dx$ the mass changes by what comes in at the left, $p_t v$ at $x$, minus
# what goes out at the right, $p_t v$ at $x + \mathrm dx$. So what is lost here arrives there, and over the whole space,
# with no flux at its rim, the mass stays 1.
#
# **Draw a velocity yourself.** At the top is $v(x)$, below the density that it moves. Where your curve falls, the flow
# comes together and the density grows; where it rises, the fluid thins. The number of the mass stays 1, whatever you do.
# Can you make two heaps of one?

# %%
Fluid(
    title="Draw a velocity, and the density flows",
    alt="A curve of the velocity over a line, below it a density that moves along, and a strip of "
    "fluid that is brighter where it is squeezed.",
)

# %%
import math

from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.data import load_digits, to_unit, toy, toy_log_prob
from course_lib.diffusion import (
    Denoiser,
    FlowMatching,
    IdealDenoiser,
    ProbabilityFlow,
    StraightPath,
    VEPath,
    VPPath,
    conditional_velocity,
    divergence,
    euler_step,
    heun_step,
    marginal_velocity,
    optimal_coupling,
    rk4_step,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.flows import CNF, exact_trace, hutchinson_trace
from course_lib.nn import TimeMLP
from course_lib.notebook import bytes_kept, jacobians
from course_lib.training import checkpoint_folder
from course_lib.widgets import PALETTE, image_grid, show_figure

show_source(exact_trace)

# %% [markdown]
# **Check** the trace against the whole Jacobian, and against the log-determinant of a short step:

# %%
torch.manual_seed(0)
field = TimeMLP(3, (16, 16), scale=3.0).double()
x = torch.randn(20, 3, generator=seeded(1), dtype=torch.float64)


def velocity(x):
    """A random network's field, at one time."""
    return field(x, torch.full((len(x),), 0.5, dtype=torch.float64))


trace = divergence(velocity, x).detach()
J = jacobians(velocity, x)
step = jacobians(lambda p: p + 1e-6 * velocity(p), x)
print(
    "the divergence is the trace of the Jacobian, within 1e-12:",
    (trace - J.diagonal(dim1=1, dim2=2).sum(1)).abs().max().item() < 1e-12,
)
print(
    "log det of a step, divided by dt, within 1e-5:",
    (torch.linalg.slogdet(step)[1] / 1e-6 - trace).abs().max().item() < 1e-5,
)

# %% [markdown]
# **Exercise 1: predict.** In 784 dimensions everything flows towards 0: $v(x) = -x$, for a time of 0.01. By how many
# nats does $\log p$ grow along every way? Write a number, before you compute anything. (`hint("09.predict_squeeze")`
# helps, as with every exercise; `solution(...)` shows what the library does.)

# %%
prediction = ...

check("09.predict_squeeze", prediction)

# %% [markdown]
# **Exercise 2: a divergence by hand.** The field is a small network, $A \tanh(B x)$. Find its divergence with pencil
# and paper, and write it without automatic differentiation. How much work is it, beside that of the network itself?

# %%
def field_divergence(x, A, B):
    """x [N, D], A [D, H], B [H, D]: the divergence [N]."""
    ...


check("09.field_divergence", field_divergence)

# %% [markdown]
# ## 2. Which velocity? The heat equation
#
# Now the article's question the other way round. We *want* certain densities: data that are smeared more and more,
#
# $$x_t = x_0 + \sqrt t\, \varepsilon, \qquad p_t(x) = \mathbb E_{x_0}\, \mathcal N(x;\, x_0,\, t I).$$
#
# Which velocity makes them? Differentiate one of these Gaussians, with $n$ coordinates. Its logarithm is
# $-\frac n2 \log (2 \pi t) - \|x - x_0\|^2 / (2t)$, so
# $\partial_t \mathcal N = \big( \|x - x_0\|^2 / (2 t^2) - n / (2t) \big)\, \mathcal N$. Its gradient is
# $-\frac{x - x_0}{t} \mathcal N$, and the divergence of that is
# $\big( \|x - x_0\|^2 / t^2 - n / t \big)\, \mathcal N$: twice as much. Both are linear in the density, so they survive
# the mean over $x_0$:
#
# $$\frac{\partial p_t}{\partial t} = \frac12 \nabla \cdot \nabla p_t .$$
#
# That is the **heat equation**: density spreads as warmth does. Compare it with the continuity equation. Since
# $\nabla p_t = p_t \nabla \log p_t$, the right side is $-\nabla \cdot (p_t\, v)$ with
#
# $$v(x, t) = - \frac12 \nabla \log p_t(x).$$
#
# Warmth flows from warm to cold; points flow from dense to thin, at half the slope of the log-density. So the score
# of chapter 08 is here without any SDE. (It is not the only velocity with these densities: $v + \tilde v$ has them, too, if
# $\nabla \cdot (p_t \tilde v) = 0$, as a whirl around the centre of a round cloud. It is the one that goes straight downhill.)
#
# **Any path.** Chapter 08 found that $x_t = a x_0 + b \varepsilon$ has the densities of the SDE
# $\mathrm d x = f x\, \mathrm dt + g\, \mathrm dw$ with $f = a'/a$, $g^2 = 2 b b' - 2 f b^2$. Its Fokker–Planck equation is
#
# $$\frac{\partial p_t}{\partial t} = - \nabla \cdot (f x\, p_t) + \frac{g^2}{2} \nabla \cdot \nabla p_t
#   = - \nabla \cdot \Big( p_t \big( f x - \tfrac12 g^2\, \nabla \log p_t \big) \Big).$$
#
# Read it as a continuity equation, and there is the **probability-flow ODE**:
#
# $$\frac{\mathrm d x}{\mathrm d t} = f x - \frac12 g^2\, \nabla \log p_t(x).$$
#
# It has the same density as the SDE at every time, because both solve one equation from one start. Half the score stands
# where the reverse SDE has all of it; the other half there pays for the fresh noise.
#
# **In the words of chapter 06.** The score is $-\mathbb E[\varepsilon \mid x_t] / b$, and $x_t$ is
# $a\, \mathbb E[x_0 \mid x_t] + b\, \mathbb E[\varepsilon \mid x_t]$. Insert both, with $\frac12 g^2 = b b' - \frac{a'}{a} b^2$:
#
# $$f x_t - \tfrac12 g^2\, \nabla \log p_t
#   = a'\, \mathbb E[x_0 \mid x_t] + \frac{a'}{a} b\, \mathbb E[\varepsilon \mid x_t]
#   + \Big( b' - \frac{a'}{a} b \Big)\, \mathbb E[\varepsilon \mid x_t]
#   = a'\, \mathbb E[x_0 \mid x_t] + b'\, \mathbb E[\varepsilon \mid x_t].$$
#
# So every model of chapters 06 to 08 knows its velocity already. (The right side also has a meaning at $a = 0$, where $f$
# is infinite.)
#
# **DDIM recognised.** In $y = x / a$ and $\rho = b / a$ the quotient rule gives
# $\mathrm d y / \mathrm d t = (a x' - a' x) / a^2 = \mathbb E[\varepsilon \mid x_t]\, (a b' - a' b) / a^2$, and the last factor is
# $\mathrm d \rho / \mathrm d t$:
#
# $$\frac{\mathrm d y}{\mathrm d \rho} = \mathbb E[\varepsilon \mid x_t],$$
#
# the ODE of chapter 07. DDIM is Euler's method for the probability flow, in well-chosen units.
#
# **Check** on data that are two clouds, where all is known: the velocity from Fokker–Planck with the exact score, and the
# one from the ideal denoiser, on two paths. And for the heat equation, with VE's clock: points that follow $-\frac12 g^2\, \nabla \log p_t$ must
# keep their rank in the crowd, since nobody overtakes on a line.

# %%
centres, std = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.3
x = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
t = torch.tensor(0.4, dtype=torch.float64)


def clouds(path, t):
    """The two clouds, noised to a time, as a density on the line."""
    width = ((path.a(t) * std) ** 2 + path.b(t) ** 2).sqrt()
    each = torch.distributions.Normal(path.a(t) * centres[:, 0], width)
    half = torch.distributions.Categorical(torch.ones(2, dtype=torch.float64))
    return torch.distributions.MixtureSameFamily(half, each)


for path in (VPPath(), VEPath(sigma_max=5.0)):
    ideal = Denoiser(IdealDenoiser(centres, path, std=std), path).double()
    leaf = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(clouds(path, t).log_prob(leaf[:, 0]).sum(), leaf)
    by_hand = path.drift(t) * x - 0.5 * path.diffusion(t) ** 2 * score
    off = (ideal.predict(x, t.item(), target="velocity") - by_hand).abs().max().item()
    print(f"{path}: f x - ½ g² score is a' E[x_0] + b' E[eps], within 1e-6:", off < 1e-6)

points = torch.linspace(-1.8, 1.8, 50, dtype=torch.float64)[:, None]
path = VEPath(sigma_max=5.0)
end = last(ode_encode(ideal, points, steps=100, solver="rk4"))
before, after = (torch.tensor(s, dtype=torch.float64) for s in (path.t_min, path.t_max))
ranks = clouds(path, before).cdf(points[:, 0]), clouds(path, after).cdf(end[:, 0])
print("smeared points keep their ranks, within 1e-4:", (ranks[0] - ranks[1]).abs().max().item() < 1e-4)

# %% [markdown]
# ## 3. Flow matching: learn the velocity itself
#
# If all we want is the velocity $v$, let a network $v_\theta$ learn it, by squared error. But nobody can tell us
# $v$: it is an average over all data. What we can tell is the velocity of **one pair** of data and noise,
#
# $$x_t = a x_0 + b\, \varepsilon, \qquad u = a' x_0 + b' \varepsilon .$$
#
# Through one place $x$ pass many pairs, each with another $u$. Let the **marginal velocity** be their mean,
#
# $$v(x, t) = \mathbb E[\, u \mid x_t = x \,].$$
#
# **It carries $p_t$.** Hold $x_0$. The cloud $\mathcal N(a x_0, b^2 I)$ is moved by $u$, which is a function of place then:
# $\varepsilon = (x - a x_0) / b$. So it fulfils its own continuity equation,
# $\partial_t\, p_t(x \mid x_0) = - \nabla \cdot \big( p_t(x \mid x_0)\, u(x \mid x_0) \big)$. Average over the data. By Bayes' rule
# $q(x_0)\, p_t(x \mid x_0) = p_t(x)\, p(x_0 \mid x)$, so that
#
# $$\frac{\partial p_t}{\partial t} = - \nabla \cdot \int q(x_0)\, p_t(x \mid x_0)\, u(x \mid x_0)\, \mathrm d x_0
#   = - \nabla \cdot \big( p_t(x)\, \mathbb E[u \mid x_t = x] \big) = - \nabla \cdot (p_t\, v).$$
#
# The mean velocity moves the mean density. (For a Gaussian path it is section 2's velocity, derived once more, without
# any score.)
#
# **Both losses have the same gradient.** Expand the square of the loss that we can compute, **conditional flow matching** (CFM):
#
# $$\mathbb E \| v_\theta(x_t, t) - u \|^2 = \mathbb E \|v_\theta\|^2 - 2\, \mathbb E\, \langle v_\theta, u \rangle + \mathbb E \|u\|^2 .$$
#
# In the middle term take the mean in two stages, first over the pairs that meet at a given $x_t$ at a given $t$. There
# $v_\theta(x_t, t)$ is one fixed vector and leaves that mean; what is left is the mean of $u$, and that is $v$:
# $\mathbb E \langle v_\theta, u \rangle = \mathbb E \langle v_\theta, v \rangle$. Put this in and complete the square with
# $\mathbb E \|v\|^2$:
#
# $$\mathbb E \| v_\theta - u \|^2 = \mathbb E \| v_\theta - v \|^2 + \mathbb E \|u\|^2 - \mathbb E \|v\|^2 .$$
#
# What is added has no $\theta$ in it. So the two losses differ by a constant, $\mathbb E \|u - v\|^2$, and **have one
# gradient**, not only one minimum. Nothing was needed but that the squares have a mean. The trick is that of denoising
# score matching in chapter 08: regress on one noisy answer, and get the average.
#
# **Which path?** Any. With VP's $a$ and $b$ this is a diffusion model with another weight for each time. The
# simplest choice is the **straight path**, $a = 1 - t$, $b = t$, for which $u = \varepsilon - x_0$ does not depend on $t$:
#
# $$L = \mathbb E_{t,\, x_0,\, \varepsilon} \big\| v_\theta\big( (1 - t)\, x_0 + t\, \varepsilon,\; t \big) - (\varepsilon - x_0) \big\|^2 .$$

# %%
show_source([FlowMatching.draw, Denoiser.loss, conditional_velocity, marginal_velocity])

# %% [markdown]
# **Check** the gradients, with everything enumerated rather than drawn: three data points on a line, Gaussian noise as
# weights on a fine grid of places, and a small network.

# %%
data, t, straight = torch.tensor([[-1.0], [0.5], [2.0]], dtype=torch.float64), 0.4, StraightPath()
places = torch.linspace(-6, 6, 2001, dtype=torch.float64)[:, None]
density = torch.distributions.Normal((1 - t) * data.T, t).log_prob(places).exp() / 3  # [places, 3]
torch.manual_seed(0)
net = TimeMLP(1, (16,), scale=3.0).double()
said = net(places, torch.full((len(places),), t, dtype=torch.float64))
pairs = torch.cat([conditional_velocity(places, x0[None], t, straight) for x0 in data], dim=1)
of_pairs = (density * (said - pairs) ** 2).sum()
of_means = (density.sum(1) * (said - marginal_velocity(places, data, t, straight))[:, 0] ** 2).sum()
gradients = [
    torch.cat([g.flatten() for g in torch.autograd.grad(loss, net.parameters(), retain_graph=True)])
    for loss in (of_pairs, of_means)
]
print("the losses differ:", bool(of_pairs > 1.2 * of_means))
print(
    "their gradients don't, by more than a billionth:",
    ((gradients[0] - gradients[1]).norm() / gradients[0].norm()).item() < 1e-9,
)

# %% [markdown]
# **Exercise 3: two points.** The data are $-1$ and $1$ on a line, equally likely, and the path is straight. Derive the
# marginal velocity. What is it in the middle, and how steep is it there when $t$ is small?

# %%
def two_point_velocity(x, t):
    """x [B] places, t [B] times above 0: the velocity [B]."""
    ...


check("09.two_point_velocity", two_point_velocity)

# %% [markdown]
# **Exercise 4: another path.** Flow matching on a quarter of a circle, $a = \cos(\pi t / 2)$, $b = \sin(\pi t / 2)$: what does the
# network see, and what must it say?

# %%
def arc_loss(net, x0, eps, t):
    """x0 and eps [B, D], t [B], net(x, t) to [B, D]: a scalar."""
    ...


check("09.arc_loss", arc_loss)

# %% [markdown]
# **Train it**, in a few seconds: four lines of loss, no schedule, no score.

# %%
torch.manual_seed(0)
live = FlowMatching(TimeMLP(2, (96, 96, 96), scale=1000.0))
history = fit(
    live, toy("pinwheel", 10_000, generator=seeded(0)), steps=1200, batch_size=256, lr=3e-3, ema=0.99
)
print("the loss fell below 1.6:", history.loss() < 1.6)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.6, 2.8))
real, *ours = figure.subplots(1, 3)
z = torch.randn(1500, 2, generator=seeded(1))
clouds_of = [toy("pinwheel", 1500, generator=seeded(2))]
clouds_of += [last(ode_sample(live, z.shape, steps=steps, solver="heun", z=z)) for steps in (2, 16)]
titles = ("data", "2 steps, 4 calls", "16 steps, 32 calls")
for axes, points, title in zip((real, *ours), clouds_of, titles):
    axes.scatter(*points.T, s=2, color=PALETTE["data" if title == "data" else "model"])
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=title, xlabel="x₁", ylabel="x₂")
figure.tight_layout()
show_figure(
    figure,
    alt="A pinwheel of five arms; samples of the model just trained with two steps, blurred, and with "
    "sixteen, a pinwheel.",
)

# %% [markdown]
# The loss does not come near 0, and must not: the constant $\mathbb E \|u - v\|^2$ is in it, the disagreement of
# the pairs that meet.
#
# ## 4. Solve it
#
# A velocity is not a sample yet. To follow it, take steps. **Euler**: pretend that the velocity stays what it is,
# $x_{t + \mathrm dt} \approx x_t + v\, \mathrm dt$. By Taylor's formula each step errs by $\frac12 x''\, \mathrm dt^2$, and there are
# $N = 1 / \mathrm dt$ of them: the end errs in proportion to $\mathrm dt$, **order 1**. **Heun** looks ahead, and takes the mean
# of the velocities at both ends:
#
# $$k_1 = v(x, t), \qquad k_2 = v(x + k_1\, \mathrm dt,\; t + \mathrm dt), \qquad x \leftarrow x + \tfrac12 (k_1 + k_2)\, \mathrm dt .$$
#
# To see its order, expand $k_2 = v + \mathrm dt\, (\partial_t v + J v) + O(\mathrm dt^2)$. The bracket is $x''$, the
# change of the velocity along the way; so the step is $x + v\, \mathrm dt + \frac12 x''\, \mathrm dt^2 + O(\mathrm dt^3)$: right up to
# the second power, **order 2**. **RK4** goes on like that, with four velocities in the proportions of Simpson's rule, $k_1$ at the start,
# $k_2$ and $k_3$ at the middle (each reached with the one before it), and $k_4$ at the end, reached with $k_3$:
#
# $$x \leftarrow x + \tfrac16 (k_1 + 2 k_2 + 2 k_3 + k_4)\, \mathrm dt, \qquad \text{order 4.}$$
#
# A call of the network is what costs. Heun takes two a step and RK4 four; so they must be that much better to be worth it.

# %%
show_source([euler_step, heun_step, rk4_step, ode_sample])

# %% [markdown]
# **Race them.** Drag the start, and choose the number of calls. With few, Euler wins: its steps are shorter. With more,
# the slopes of the lines decide.

# %%
angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
ring = 1.6 * torch.stack([angle.cos(), angle.sin()], dim=1)
times = torch.linspace(0, 1, SolverRace.NODES, dtype=torch.float64)
SolverRace(
    ring,
    stds=0.25,
    times=times,
    a=straight.a(times),
    b=straight.b(times),
    da=straight.da(times),
    db=straight.db(times),
    start=(0.25, -0.1),
    title="Equal calls, three solvers",
    alt="The ways of Euler, Heun and RK4 from one point of noise to a ring of eight clouds, and their "
    "errors over the number of calls.",
)

# %% [markdown]
# **Check** the orders, on Gaussian data, where the flow is known: along each axis of the covariance points are only
# scaled. From one number of steps to twice as many the error must fall by $2$, $4$, $16$.

# %%
spread = torch.tensor([[1.5, 0.4]], dtype=torch.float64)


def gaussian_velocity(x, t):
    """E[eps - x_0 | x_t] for data N(0, spread²), number by number."""
    t = t[:, None]
    return x * (t - (1 - t) * spread**2) / ((1 - t) ** 2 * spread**2 + t**2)


gaussian = Denoiser(gaussian_velocity, straight, predicts="velocity").double()
z = torch.randn(100, 2, generator=seeded(3), dtype=torch.float64)
errors = {}
for solver in ("euler", "heun", "rk4"):
    for N in (32, 64, 128):
        x = last(ode_sample(gaussian, z.shape, steps=N, solver=solver, z=z))
        errors[solver, N] = (x - spread * z).norm().item()
    orders = [math.log2(errors[solver, N] / errors[solver, 2 * N]) for N in (32, 64)]
    print(f"{solver}: measured order {orders[0]:.1f}, then {orders[1]:.1f}")

# %% [markdown]
# **And back.** The same equation, followed from data to noise, is an encoder. There and back again errs by less than the
# solver. The way back takes Heun's steps with $-\mathrm dt$ at the same times, so that the leading errors, $C\, \mathrm dt^3$ and
# $C\, (-\mathrm dt)^3$, cancel: with enough steps the round trip closes eight times as well with twice as many, where one way ends only
# four times as near. (Euler's error does not cancel: $\mathrm dt^2$ is even.) On the Gaussian it shows exactly; a network has corners of its own.

# %%
from itertools import pairwise


def round_trip(model, x, steps):
    """How far points x [B, D] are from where they were, after their way to the noise and back."""
    z = last(ode_encode(model, x, steps=steps, solver="heun"))
    again = last(ode_sample(model, x.shape, steps=steps, solver="heun", z=z))
    return (again - x).norm(dim=1).mean().item()


for words, model, x in (
    ("the Gaussian", gaussian, spread * z),
    ("the network", live, toy("pinwheel", 500, generator=seeded(4))),
):
    trips = [round_trip(model, x, steps) for steps in (20, 40, 80)]
    better = [before / after for before, after in pairwise(trips)]
    print(f"{words}: the round trip closes more than 4 times as well, twice: {min(better) > 4}")
    if model is gaussian:
        print(f"    {better[0]:.1f} and {better[1]:.1f} times")

# %% [markdown]
# **Exercise 5: the midpoint.** Another method with two calls: go half a step as Euler would, look at the velocity *there*, and
# take the whole step with it. Before you write it: which order must it have? (Expand it as Heun's above.)

# %%
def midpoint_step(f, x, t, dt):
    """x [B, D] at time t, f(x, t) to [B, D]: x [B, D] at time t + dt."""
    ...


check("09.midpoint_step", midpoint_step)

# %% [markdown]
# **Exercise 6: break it on purpose.** Data are $\mathcal N(0, 0.5^2)$, the velocity is exact, and your Euler solver shall go
# from the noise to them. Make the most common mistake of all, so that samples come out *wider* than the noise. Say in one
# sentence why they do.

# %%
def bad_sample(velocity, z, times):
    """z [B, D], velocity(x, t) to [B, D], times from 1 down to 0: x [B, D]."""
    ...


check("09.break_the_sign", bad_sample)

# %% [markdown]
# **Digits**, by flow matching on the straight path (`flow_matching_digits`, trained in less than an hour): one noise, three
# solvers, any number of calls.

# %%
digits_fm = load_pretrained("flow_matching_digits")
distances = {
    (row["sampler"], row["calls"]): row["distance"]
    for row in load_card("flow_matching_digits")["metrics"]["samplers"]
}
calls, solvers = [4, 8, 16, 32, 64], {"Euler": 1, "Heun": 2, "RK4": 4}
z = torch.randn(10, 1, 8, 8, generator=seeded(2))
strips = [
    [
        last(ode_sample(digits_fm, z.shape, steps=number // each, solver=name.lower(), z=z))
        for name, each in solvers.items()
    ]
    for number in calls
]
SampleTable(
    to_unit(torch.stack([torch.stack(row) for row in strips])).clamp(0, 1),
    rows=("calls", calls),
    columns=("solver", list(solvers)),
    quality=[[distances[name, number] for name in solvers] for number in calls],
    quality_label="feature distance",
    title="Flow matching: the same noise, by calls and solver",
    alt="A table of five numbers of calls by three solvers, and ten digits for the chosen cell.",
)

# %% [markdown]
# ## 5. The exact density
#
# Integrate the boxed formula of section 1 along the way of a point from $t = 0$ to $t = 1$, where the density is that of
# the noise:
#
# $$\log p_0(x_0) = \log p_1(x_1) + \int_0^1 \nabla \cdot v(x_t, t)\, \mathrm d t .$$
#
# So solve one more equation beside $x$: the integral of the divergence. **An exact likelihood for every diffusion
# model**, where chapter 06 had a bound. Three remarks:
#
# - It is the density of *the model's flow*, which starts from pure noise, with *the model's* velocity. If $v_\theta$ is not the true $v$, it is
#   still a density, with mass 1, and ``ode_sample`` draws from it; but its marginals at other times are not quite the
#   path's any more.
# - Where the path ends before the data (VP, $t_{\min} = 0.001$), it is the density of data with the little noise that is
#   left.
# - The steps are chosen by an adaptive solver (Dormand and Prince's, of torchdiffeq): it takes two estimates of different
#   order in each step, and shortens the step until they agree within a tolerance.
#
# **The price is the trace.** It takes $n$ backward passes, one for each row of the Jacobian: 64 for a digit, 3,072 for a
# small photograph. **Hutchinson's estimate** takes one. Let the probe $\epsilon$ have independent signs, $+1$ or $-1$, so
# that $\mathbb E[\epsilon_i \epsilon_j]$ is 1 for $i = j$ and else 0. Then
#
# $$\mathbb E\big[ \epsilon^\top J\, \epsilon \big] = \sum_{i, j} J_{ij}\, \mathbb E[\epsilon_i \epsilon_j] = \sum_i J_{ii},$$
#
# and $\epsilon^\top J$ is a single backward pass. *The variance:* since $\epsilon_i^2 = 1$, the diagonal comes out without
# any error. What is left is $\sum_{i < j} (J_{ij} + J_{ji})\, \epsilon_i \epsilon_j$, whose terms have mean 0, variance
# $(J_{ij} + J_{ji})^2$, and are uncorrelated (two different pairs always leave some sign alone). So
#
# $$\mathrm{Var}\big[ \epsilon^\top J\, \epsilon \big] = \sum_{i < j} (J_{ij} + J_{ji})^2 .$$
#
# With Gaussian probes there would be $2 \sum_i J_{ii}^2$ more. One probe serves for the whole way, so that the solver
# sees a smooth function; the estimate of $\log p$ is unbiased, since the integral is linear. (That of $p$ itself is not.)

# %%
show_source([hutchinson_trace, ode_log_prob])

# %% [markdown]
# **Check** four things: Hutchinson's mean and variance over *all* probes of three signs; the log-density of the ideal velocity
# against the mixture that it belongs to; that the density of the model trained above has mass 1; and that the integral is
# the log-determinant of the whole way, by automatic differentiation.

# %%
import itertools

x = torch.randn(20, 3, generator=seeded(1), dtype=torch.float64)
estimates = []
for signs in itertools.product([-1.0, 1.0], repeat=3):
    leaf = x.clone().requires_grad_()
    probe = torch.tensor(signs, dtype=torch.float64).expand_as(x)
    estimates.append(hutchinson_trace(velocity(leaf), leaf, probe))
estimates = torch.stack(estimates)
both = sum((J[:, i, k] + J[:, k, i]) ** 2 for i, k in ((0, 1), (0, 2), (1, 2)))
print("Hutchinson's mean is the trace:", torch.allclose(estimates.mean(0), trace))
print("and its variance the formula's:", torch.allclose(estimates.var(0, correction=0), both))

# The velocity of a ring of eight clouds on the straight path, in closed form.
width = 0.25


def ring_velocity(x, t):
    """E[eps - x_0 | x_t], each cloud weighted by its share of the density at x."""
    t = t[:1].double()
    variance = (1 - t) ** 2 * width**2 + t**2
    away = x[:, None] - (1 - t) * ring  # [B, 8, 2]
    shares = torch.softmax(-away.square().sum(2) / (2 * variance), dim=1)
    x_0 = ring + (1 - t) * width**2 / variance * away
    eps = t / variance * away
    return torch.einsum("bk,bkd->bd", shares, eps - x_0)


exact = Denoiser(ring_velocity, straight, predicts="velocity").double()
x = ring + 0.3 * torch.randn(8, 2, generator=seeded(5), dtype=torch.float64)
apart = ((x[:, None] - ring) / width).square().sum(2)
known = (-apart / 2).logsumexp(1) - math.log(8 * 2 * math.pi * width**2)
print(
    "log p of the ideal flow is the mixture's, within 0.001:",
    (ode_log_prob(exact, x) - known).abs().max().item() < 1e-3,
)

side = torch.linspace(-4, 4, 81)
grid = torch.cartesian_prod(side, side)
log_p = ode_log_prob(live, grid, rtol=1e-4, atol=1e-4)
mass = log_p.exp().sum().item() * (side[1] - side[0]).item() ** 2
print("the trained model's density has mass 1, within 0.01:", abs(mass - 1) < 0.01)


def encoded(x):
    """Data to noise, in 40 steps of RK4."""
    flow = ProbabilityFlow(exact)
    for k in range(40):
        x = rk4_step(flow, x, k / 40, 1 / 40)
    return x


log_det = torch.linalg.slogdet(jacobians(encoded, x[:3]))[1]
z = encoded(x[:3])
normal = -z.square().sum(1) / 2 - math.log(2 * math.pi)
print(
    "the integral is the log-determinant of the whole way, within 0.001:",
    (ode_log_prob(exact, x[:3]) - normal - log_det).abs().max().item() < 1e-3,
)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(6.6, 3))
truth = toy_log_prob("pinwheel", grid)
for axes, values, title in zip(
    figure.subplots(1, 2), (truth, log_p), ("the pinwheel's density", "our model's, by the ODE")
):
    axes.imshow(
        values.reshape(81, 81).T.exp(), origin="lower", extent=(-4, 4, -4, 4), vmin=0, vmax=truth.max().exp()
    )
    axes.set(title=title, xlabel="x₁", ylabel="x₂", xlim=(-3, 3), ylim=(-3, 3))
figure.tight_layout()
show_figure(figure, alt="Two density maps of a pinwheel of five arms, the exact one and the model's, much alike.")

# %% [markdown]
# **Exercise 7: another probe.** Instead of signs take one coordinate at random: the probe is $\sqrt n$ times one of the $n$ unit
# vectors, each as likely. Is the estimate unbiased? Which variance has it, and for which matrices is it better than signs?

# %%
def hutchinson_variance(J):
    """J [D, D]: the variance of the estimate, one number."""
    ...


check("09.hutchinson_variance", hutchinson_variance)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## 6. Continuous flows, and the adjoint
#
# *You may skip this section. It holds how such flows were trained before flow matching, and why that was slow.*

# %% [markdown]
# ### The gradient of a solver
#
# A **continuous normalizing flow** (CNF) is the same equation with a network for $v$, trained as in chapter 04: maximise the
# log-density above. With Hutchinson's estimate it is called **FFJORD**. Every step of training has to solve the ODE, a hundred
# calls or so, and then needs the gradient of what the solver did.
#
# Backpropagation through the solver keeps every intermediate result of every call. The **adjoint** keeps none. Let
# $L$ depend on the end $x_1$, and let $c(t) = \partial L / \partial x_t$ be its gradient in the state on the way. A short step
# maps $x_t$ to $x_t + v\, \mathrm dt$, so by the chain rule $c(t)^\top = c(t + \mathrm dt)^\top (I + J\, \mathrm dt)$, and with
# $\mathrm dt \to 0$
#
# $$\frac{\mathrm d c}{\mathrm d t} = - J^\top c, \qquad c(1) = \frac{\partial L}{\partial x_1} .$$
#
# The parameters: a small change $\mathrm d \theta$ moves the state within $\mathrm dt$ by
# $\frac{\partial v}{\partial \theta}\, \mathrm d \theta\, \mathrm dt$, and $c$ says what this does to the loss. All moments add up:
#
# $$\frac{\partial L}{\partial \theta} = \int_0^1 \Big( \frac{\partial v}{\partial \theta} \Big)^{\!\top} c\; \mathrm d t .$$
#
# So solve three equations *backwards in time*, from $t = 1$: for $x$ (which comes back by itself), for $c$, and for the
# integral. Each asks only for products $J^\top c$, a backward pass at one moment. The price: the way is walked twice, and what comes back
# is $x$ only up to the solver's error, so that the gradient is that of the equation, not of the steps that were taken.
# (In a CNF the state also holds the integral of the divergence, and $c$ has a coordinate for it.)

# %%
show_source([CNF.velocity, CNF.log_prob])

# %% [markdown]
# **Check** that both give one gradient, and measure what they keep for the backward pass.

# %%
torch.manual_seed(0)
net = TimeMLP(2, (32, 32), scale=3.0).double()
x = toy("two_moons", 64, generator=seeded(0)).double()
gradients, kept = [], []
for adjoint in (False, True):
    flow = CNF(2, net, adjoint=adjoint, rtol=1e-6, atol=1e-6).double()
    gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(flow.loss(x), net.parameters())]))
    kept.append(bytes_kept(lambda flow=flow: flow.loss(x)))
off = ((gradients[0] - gradients[1]).norm() / gradients[0].norm()).item()
print("adjoint and backpropagation agree within a thousandth:", off < 1e-3)
print("backpropagation keeps more than 30 times as much:", kept[0] > 30 * kept[1])

# %% [markdown]
# The factor grows with the number of the solver's steps; the adjoint's memory doesn't.
#
# Why flow matching took over: for the same velocity field it asks *one* call at *one* random time in each step of training, no
# solver, no trace, no adjoint. And its aim is fixed beforehand. A CNF may choose any way from data to noise, and some
# are hard to follow; flow matching prescribes the densities in between.

# %% [markdown]
# ## 7. Who is paired with whom
#
# On the straight path each *pair* goes straight. The *flow* doesn't: lines cross, and where they do the marginal velocity
# is a mean that points nowhere in particular. A curved way needs many steps. **Drag the place to a crossing** and see
# the mean arrow; then switch to pairs by optimal transport.

# %%
generator = seeded(7)
noise = torch.randn(60, 2, generator=generator)
moons = toy("two_moons", 60, generator=generator)
CrossingLines(
    noise,
    moons,
    {"independent": torch.arange(60), "optimal transport": optimal_coupling(noise, moons)},
    title="Lines that cross, and lines that don't",
    alt="Sixty straight lines between noise and two moons, which cross everywhere; with pairs by "
    "optimal transport hardly any do.",
)

# %% [markdown]
# **Minibatch optimal transport** (OT-CFM). In each batch draw noise as before, and then deal it out anew: permute it so that
#
# $$\sum_i \big\| x_0^{(i)} - \varepsilon^{(\pi(i))} \big\|^2$$
#
# is as small as any permutation $\pi$ can make it (the assignment problem; a batch of 256 takes milliseconds). Is that
# allowed? That both losses have the same gradient asked for pairs $(x_0, \varepsilon)$, and nowhere that they be independent. That $v$ carries $p_t$ did ask for it: given $x_0$ the noise was
# Gaussian. So prove it once more, for any pairs. Take a smooth function $\varphi$ that vanishes far out. By the chain rule, by the definition of $v$ as a mean over all pairs at one place, and by parts,
#
# $$\frac{\mathrm d}{\mathrm d t}\, \mathbb E\, \varphi(x_t) = \mathbb E\, \langle \nabla \varphi(x_t),\, u \rangle
#   = \mathbb E\, \langle \nabla \varphi(x_t),\, v(x_t, t) \rangle = - \int \varphi\; \nabla \cdot (p_t\, v)\; \mathrm d x .$$
#
# The left side is $\int \varphi\, \partial_t p_t\, \mathrm d x$; as this holds for every $\varphi$, it is the continuity equation, whoever belongs to whom. What must hold is
# that the densities at both ends are right. They are: in a batch *in random order* each example still is a draw of the
# data, and each noise a draw of the noise; only who belongs to whom has changed. So the marginal velocity of these pairs leads from noise
# to the same data, by densities in between that are not those of the Gaussian path any more. (Hence such a model
# has no score to convert to: $\mathbb E[\varepsilon \mid x_t]$ is not $-b \nabla \log p_t$ when $\varepsilon$ depends on $x_0$.)
#
# *Why shorter means straighter.* If exchanging the noises of two pairs can't shorten them, then
# $\langle x_0 - \tilde x_0,\; \varepsilon - \tilde\varepsilon \rangle \ge 0$ (multiply out the four squares). Two lines that are at one
# place at one time $t$, with $0 < t < 1$, have $(1-t)(x_0 - \tilde x_0) = -t\, (\varepsilon - \tilde\varepsilon)$, which makes that product
# negative, unless the pairs are the same. **Pairs of an optimal coupling never meet on the way.** With all data and all noise in one batch each place would
# have one velocity, the flow would go along straight lines, and a single Euler step would sample. A small batch only comes
# near to that, and in many dimensions not very near: all distances between a batch of images and a batch of noise are much alike.

# %%
show_source(optimal_coupling)

# %%
shortest = True
for n in range(2, 7):
    x0, x1 = torch.randn(2, n, 2, generator=seeded(n), dtype=torch.float64)
    best = min(
        (x0 - x1[list(order)]).square().sum().item() for order in itertools.permutations(range(n))
    )
    found = (x0 - x1[optimal_coupling(x0, x1)]).square().sum().item()
    shortest &= abs(found - best) < 1e-9
print("no permutation of 2 to 6 pairs is shorter:", shortest)
for name, dim, x0 in (
    ("two moons", 2, toy("two_moons", 256, generator=seeded(1))),
    ("digits", 64, 2 * load_digits("train")[0][:256].flatten(1) - 1),
):
    eps = torch.randn(256, dim, generator=seeded(2))
    share = (x0 - eps[optimal_coupling(x0, eps)]).square().sum() / (x0 - eps).square().sum()
    print(f"{name}, batches of 256: squared lengths fall to {share.item():.0%}")

# %% [markdown]
# **What it buys**, measured: how far each solver ends from the ODE's own end, by calls of the network, for the same network
# trained with both couplings. In the plane four Euler steps of the second come as near as sixty of the first. On the digits, whose
# pairs hardly got shorter, four Euler steps err three fifths as much; at 16 Euler's are equal, and from 32 calls on the errors with OT are
# the larger ones (at 64 twice as large with Euler, eight times with Heun).

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.4, 3.2))
for axes, data in zip(figure.subplots(1, 2, sharey=True), ("two_moons", "digits")):
    for suffix, label, color in (("", "independent", "model"), ("_ot", "optimal transport", "latent")):
        rows = load_card(f"flow_matching_{data}{suffix}")["metrics"]["errors"]
        for solver, style in (("Euler", "o-"), ("Heun", "s--")):
            line = [(row["calls"], row["error"]) for row in rows if row["solver"] == solver]
            axes.loglog(*zip(*line), style, color=PALETTE[color], label=f"{solver}, {label}", ms=4)
    axes.set(title=data.replace("_", " "), xlabel="calls of the network")
    axes.set_xticks(calls, calls, minor=False)
    axes.minorticks_off()
figure.axes[0].set_ylabel("root mean square error")
figure.axes[1].legend(frameon=False, fontsize=7)
figure.tight_layout()
show_figure(
    figure,
    alt="Errors over calls for two moons and the digits: those of models trained with optimal "
    "transport lie lower at few calls, clearly in the plane.",
)

# %% [markdown]
# ## 8. What an ODE loses
#
# Noise is not only a nuisance. Let two densities go along: $p_t$, the true one, and $r_t$, which started from slightly
# wrong noise or was thrown off on the way. Each has a continuity equation, with velocities $v_p$ and $v_r$. How
# does the divergence of Kullback and Leibler between them change? Differentiate $\int p_t \log (p_t / r_t)$ by the product rule
# ($\int \partial_t p_t = 0$), put in both continuity equations, and integrate by parts, with nothing at infinity. With
# $r_t \nabla (p_t / r_t) = p_t \nabla \log (p_t / r_t)$,
#
# $$\frac{\mathrm d}{\mathrm d t}\, \mathrm{KL}(p_t \,\|\, r_t)
#   = \int \partial_t p_t \log \frac{p_t}{r_t} - \frac{p_t}{r_t}\, \partial_t r_t
#   = \mathbb E_{p_t} \Big\langle v_p - v_r,\; \nabla \log \frac{p_t}{r_t} \Big\rangle .$$
#
# *One ODE for both*: $v_p = v_r$, and the right side is 0. **An ODE keeps every error** until the end. *One SDE for both*, with
# diffusion $g$ and any drift: by section 2 its densities move with the drift minus half the score of *their own*, so that
# $v_p - v_r = -\frac12 g^2 \nabla \log (p_t / r_t)$, and
#
# $$\frac{\mathrm d}{\mathrm d t}\, \mathrm{KL}(p_t \,\|\, r_t) = - \frac{g^2}{2}\, \mathbb E_{p_t} \Big\| \nabla \log \frac{p_t}{r_t} \Big\|^2 \le 0 .$$
#
# **Noise forgets errors.** (Time here runs with the process, whichever way it goes; for the reverse SDE, towards the data.) The price is short steps: the table of
# chapter 08, up to 32 calls. That is why samplers with noise can win when calls are plenty, and those without when
# they are few; a mixture of both takes some of each (chapter 10).
#
# **See it.** Two clouds, equally large, at $-1$ and $1$, the exact velocity and the exact score, and a start that is wrong:
# the noise is shifted to the right by 0.5.

# %%
path = VPPath()
ideal = Denoiser(IdealDenoiser(centres, path, std=std), path).double()
z = torch.randn(4000, 1, generator=seeded(8), dtype=torch.float64)
for name, start in (("right noise", z), ("shifted noise", z + 0.5)):
    by_ode = last(ode_sample(ideal, z.shape, steps=100, solver="heun", z=start))
    by_sde = last(euler_maruyama(ideal, z.shape, steps=200, z=start, generator=seeded(9)))
    shares = [(x > 0).double().mean().item() for x in (by_ode, by_sde)]
    print(f"{name}: share in the right cloud {shares[0]:.1f} by the ODE, {shares[1]:.1f} by the SDE")

# %% [markdown]
# ## How good is it?
#
# **Bits per dimension**, exactly. The digits are dequantized as in chapter 04, $(k + u) / 17$ with $u$ uniform in $[0, 1)$, and
# mapped to $[-1, 1]$; the width of that map is taken out again. Each number is a mean over the test images (flow matching on MNIST:
# over every hundredth of them), each dequantized once, by Hutchinson's estimate with a tolerance of $10^{-4}$. PixelCNN and DDPM speak of the grey values themselves, so their rows are no densities:
# dequantizing costs a little, and DDPM's number is a bound.

# %% jupyter={"source_hidden": true}
def bits(name):
    """Bits per dimension of a card; of a DDPM the better of its two bounds. None if there is no such card."""
    if not (checkpoint_folder() / f"{name}.json").exists():
        return None
    metrics = load_card(name)["metrics"]
    bounds = [row["bits per dimension"] for row in metrics.get("bounds", [])]
    return min(bounds) if bounds else metrics["bits per dimension"]


def nearest(name):
    """The feature distance of 1,000 samples that a card holds, of several samplers the smallest."""
    metrics = load_card(name)["metrics"]
    single = metrics.get("feature distance, 1,000 samples")
    return single or min(row["distance"] for row in metrics["samplers"])


models = {
    "NICE (04)": "nice",
    "RealNVP (05)": "realnvp",
    "Glow (05)": "glow",
    "DDPM, a bound (06)": "ddpm",
    "VP score model, ODE": "score_{}_vp",
    "VE score model, ODE": "score_{}_ve",
    "sub-VP score model, ODE": "score_{}_subvp",
    "flow matching, ODE": "flow_matching",
    "flow matching, OT, ODE": "flow_matching_{}_ot",
}
table = "| bits per dimension | digits | MNIST | feature distance, MNIST |\n| --- | ---: | ---: | ---: |\n"
table += f"| PixelCNN on grey values (01) | {bits('pixelcnn_digits_grey'):.2f} | | |\n"
for words, name in models.items():
    names = [name.format(data) if "{}" in name else f"{name}_{data}" for data in ("digits", "mnist")]
    values = [bits(name) for name in names]
    cells = ["" if value is None else f"{value:.2f}" for value in values]
    cells.append("" if values[1] is None else f"{nearest(names[1]):.0f}")
    table += f"| {words} | " + " | ".join(cells) + " |\n"
table += "| *published:* RealNVP, on MNIST (FFJORD, table 2) | | 1.06 | |\n"
table += "| Glow, on MNIST (FFJORD, table 2) | | 1.05 | |\n"
table += "| FFJORD, on MNIST (FFJORD, table 2) | | 0.99 | |\n"
Markdown(table)

# %% [markdown]
# **In the plane**: the mean log-likelihood of fresh points, beside that of the true density, which no model
# can pass (but by chance).

# %% jupyter={"source_hidden": true}
toys = ("two_moons", "pinwheel")
table = "| nats | two moons | pinwheel |\n| --- | ---: | ---: |\n"
for words, name in {
    "NICE (04)": "nice_{}",
    "RealNVP (05)": "realnvp_{}",
    "CNF, by likelihood": "cnf_{}",
    "flow matching": "flow_matching_{}",
    "flow matching, OT": "flow_matching_{}_ot",
}.items():
    nats = [load_card(name.format(data))["metrics"]["test log-likelihood (nats)"] for data in toys]
    table += f"| {words} | " + " | ".join(f"{value:.2f}" for value in nats) + " |\n"
true = [toy_log_prob(data, toy(data, 20_000, generator=seeded(10))).mean() for data in toys]
table += "| the true density | " + " | ".join(f"{value:.2f}" for value in true) + " |\n"
Markdown(table)

# %% [markdown]
# In the plane a RealNVP is as good.
#
# CIFAR-10 is what the papers of the ODE age report; we have no model of it.
#
# | CIFAR-10, published | bits per dimension | FID | calls | source |
# | --- | ---: | ---: | ---: | --- |
# | RealNVP | 3.49 | | | FFJORD, table 2 |
# | Glow | 3.35 | | | FFJORD, table 2 |
# | FFJORD | 3.40 | | | Grathwohl et al. 2019, table 2 |
# | DDPM++ continuous, deep, sub-VP, by the ODE | 2.99 | 2.92 | | Song et al. 2021, table 2 |
# | flow matching, diffusion path | 3.10 | 8.06 | 183 | Lipman et al. 2023, table 1 |
# | flow matching, straight path | 2.99 | 6.35 | 142 | Lipman et al. 2023, table 1 |
#
# (Lipman et al. call the straight path "OT", after the optimal transport between noise and *one* data point. It is our
# independent coupling.)
#
# **Feature distance against calls**, on the digits:

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.6, 3.3))
left, right = figure.subplots(1, 2, sharey=True)
colors = dict(zip(("Euler-Maruyama", "predictor-corrector", "DDIM", "Euler", "Heun", "RK4"),
                  ("noise", "error", "data", "model", "latent", "ink"), strict=True))
for axes, names in ((left, ("score_digits_vp",)), (right, ("flow_matching_digits", "flow_matching_digits_ot"))):
    for name in names:
        rows = load_card(name)["metrics"]["samplers"]
        for sampler in dict.fromkeys(row["sampler"] for row in rows):
            line = [(row["calls"], row["distance"]) for row in rows if row["sampler"] == sampler]
            style, words = ("o--", f"{sampler}, OT") if name.endswith("_ot") else ("o-", sampler)
            axes.loglog(*zip(*line), style, ms=4, color=PALETTE.get(colors[sampler], "black"), label=words)
    axes.set(xlabel="calls of the network", yticks=[6, 8, 10, 20, 40, 80], yticklabels=[6, 8, 10, 20, 40, 80])
    axes.set_xticks([4, 8, 16, 32, 64, 128], [4, 8, 16, 32, 64, 128])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=7)
left.set(title="VP score model", ylabel="feature distance, 1,000 samples")
right.set(title="flow matching")
figure.tight_layout()
show_figure(
    figure,
    alt="Feature distance over calls of the network: of a VP score model by six samplers, and of flow "
    "matching by three solvers with both couplings.",
)

# %% [markdown]
# How to read it:
#
# - **Exact, and ahead.** On the digits the models of the ODE rows are about a tenth of a bit ahead of Glow, and the
#   exact number of the VP score model is far below DDPM's bound. (Not all of that is the bound's slack: DDPM was trained
#   on grey values without dequantizing. And the U-Net has 367,000 weights, Glow 45,000.) PixelCNN still leads, on grey values: a density of dequantized pixels can't fall below
#   the bits of the grey values, and usually stays above.
# - **On MNIST the other way round.** There flow matching is a third of a bit *behind* RealNVP and Glow in likelihood, and its samples are far nearer
#   to real ones by the feature distance. Least squares on velocities and maximum likelihood are two aims, and 4,000 steps of the one buy samples first. (Chapter 05: likelihood is no judge of samples. DDPM's 3 is not like for like: that network was told the class and trained twice as long, and it is the best of five samplers, at 50 calls. A thousand real images have 5.9, and chance is 1.8.)
# - **The published order on CIFAR-10 is that of our digits.** There the ODE models that were trained by regression are ahead of RealNVP and Glow, as
#   here but by more; FFJORD, an ODE trained by likelihood, is behind Glow. The networks are far larger than ours.
# - **Straight is better at few calls.** At eight calls Heun is all but done on the straight path. On VP's it fails there, and so does
#   RK4: near the data $b$ falls like $\sqrt t$, so that the velocity is steep just where their long last step ends and asks. Euler never
#   asks at the end of its last step, and at 8 calls does better than DDIM.
# - **Pairs by optimal transport** halve the distance of Euler's samples at four calls. With many calls both models are
#   equally good, or the difference is not far from chance.
# - **Order 2 pays early, order 4 not at all.** With independent pairs Heun is ahead of Euler up to 8 calls, and RK4 never
#   ahead of Heun by more than chance: after 16 calls what is left is the model's error, not the solver's. (Nearer to digits is not nearer
#   to the ODE's own end: by that measure, section 7's, Euler is ahead of Heun at four calls, 0.15 and 0.22.)
# - **Noise wins little here.** On VP the two samplers with noise come down to the ODE's level only at 64 calls or more, and not
#   below it. Only VE's predictor–corrector ends lower than its ODE, at 128 calls (its card says so). On CIFAR-10 the paper
#   has it clearly for VE's predictors (4.98 against 15.41) and for VP's at 1,000 steps (3.24 against 3.59), and no more at 2,000 (chapter 08).
# - **Chance.** Chapter 07 gave the spread of the feature distance from one draw of a thousand to the next. Take smaller
#   differences for nothing.
#
# ## What to take away
#
# - A velocity moves a density by the continuity equation; along a point's way $\log p$ falls by the divergence. A trace takes
#   the place of a determinant.
# - Ask that the densities be smeared data, and the velocity is $f x - \frac12 g^2 \nabla \log p_t$: every diffusion model is also an ODE.
# - Regress on the velocity of random pairs, and you learn the mean velocity: same gradient, up to a constant in the loss.
# - A higher order buys accuracy with calls. The path and the pairs decide how much there is to be solved.
# - What is exact: the density, the latent, the way back. What is lost: an ODE keeps the errors that noise would forget.
#
# **What does not work well.** The likelihood costs a hundred calls and a backward pass each. Hutchinson's noise has to be averaged away.
# The adaptive solver steps for a whole batch at once. Optimal transport within a batch helps less the more dimensions
# there are. And the density at $t_{\min}$ is not quite that of the data.
#
# **What came after.**
#
# - *Straighten the flow itself*: rectified flow trains anew on its own pairs (Liu et al. 2023, [arXiv:2209.03003](https://arxiv.org/abs/2209.03003); chapter 13).
# - *One frame for all paths, with and without noise*: stochastic interpolants (Albergo, Boffi, Vanden-Eijnden 2023, [arXiv:2303.08797](https://arxiv.org/abs/2303.08797)).
# - *Noise where it helps, an ODE where it doesn't*: restart sampling (Xu et al. 2023, [arXiv:2306.14878](https://arxiv.org/abs/2306.14878)).
# - *Flow matching at scale*: Stable Diffusion 3 (Esser et al. 2024, [arXiv:2403.03206](https://arxiv.org/abs/2403.03206); chapter 14).
#
# **Next, chapter 10:** which path, which weighting, which times, which solver? EDM takes all these choices apart and
# makes each of them once.

# %% [markdown]
# [← 08 · SDE](08_sde.ipynb) | [Contents](../README.md#chapters) | [10 · EDM →](10_edm.ipynb)
