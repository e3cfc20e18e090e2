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
# [← 12b · ControlNet](12b_controlnet.ipynb) | [Contents](../README.md#chapters) | [14 · Stable Diffusion 3 →](14_sd3.ipynb)

# %% [markdown]
# # 13 · Rectified flow
#
# **Carry any set of samples to any other along an ODE; let the ODE choose new pairs, and train again on those: the ways become straight, and one step is enough.**
#
# | | |
# | --- | --- |
# | You need | chapter 09: a velocity, its ODE, the continuity equation, flow matching; Euler's and Heun's steps |
# | Time | 45 minutes to read, two hours with the exercises |
# | The short way | 30 minutes: sections 1 to 3, the first half of section 6, section 11, *How good is it?* and *What to take away*; leave out all that is called a check |
# | You will meet | couplings, the conditional mean, reflow, the k-rectified flow, straightness, convex transport costs, optimal transport, one-step sampling, distillation, consistency models |
# | Papers | Liu, Gong, Liu 2023, [Flow straight and fast](https://arxiv.org/abs/2209.03003) (rectified flow); Liu 2022, [a marginal preserving approach to optimal transport](https://arxiv.org/abs/2209.14577); Song et al. 2023, [consistency models](https://arxiv.org/abs/2303.01469) |
# | Source article | the one that begins with a transformation between two distributions and comes to straight lines (rectified flow, in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter). Grey points are to be carried to blue ones, each along its line. Lines meet at the small circles. Press **Rectify**, then **Reflow**; then drag points to where you want them, and try again.

# %%
import torch

from course_lib.diffusion import (
    RectifiedFlow,
    distill,
    interpolate,
    reflow,
    straightness,
    transport_cost,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import (
    PALETTE,
    ImagePlayer,
    ParticlePlayer,
    Uncross,
    image_grid,
    show_figure,
)

one_thread()  # models this small are slower on two

# %%
side = torch.where(torch.arange(10) % 2 == 0, 1.3, -1.3)
sources = torch.randn(10, 2, generator=seeded(1)) * torch.tensor([0.25, 0.9]) - torch.tensor([2, 0])
targets = torch.randn(10, 2, generator=seeded(51)) * 0.25
targets = targets + torch.stack([torch.full((10,), 2.0), side], dim=1)
uncross = Uncross(
    targets,
    sources,
    width=0.2,
    title="Uncross the lines",
    alt="Ten grey points at the left and ten blue ones in two groups at the right, joined by lines "
    "that cross; and the ways of the flow that takes the mean where they meet.",
)
uncross

# %%
from IPython.display import Markdown

twice = Uncross(targets, sources, width=0.2, k=2)
table = "| | pairs that meet | lines that cross | mean squared length | bend of the ways |\n"
table += "| --- | ---: | ---: | ---: | ---: |\n"
for name, row in zip(("random pairs", "rectified", "and reflowed"), twice.rows):
    bend = "" if row["straightness"] is None else f"{row['straightness']:.3f}"
    table += f"| {name} | {row['meetings']} | {row['crossings']} | {row['cost']:.1f} | {bend} |\n"
Markdown(table)

# %% [markdown]
# (The table is of the pairs as they are at first. Two pairs *meet* if they come nearer than the blur's width at one and the same time. Lines that *cross* in the picture, at different times, don't disturb each other, and a flow may keep them. The last column is the straightness of section 6; 0 is straight.)
#
# Three things to notice:
#
# - **The flow doesn't let its ways meet.** Where lines meet it takes the mean of their directions; behind that place everybody goes on, but some with another's line. So there are new pairs.
# - **The new pairs are closer.** Nobody asked for that. The mean squared length falls, and falls again or stays.
# - **The ways of the first flow bend; those of the second hardly do.** Its pairs have almost nothing left to meet.

# %% [markdown]
# ## The idea
#
# The source article begins so. *We want a transformation between two distributions*: from noise to images, from one kind of image to another. Let it be an **ODE**, so that it can be run both ways. Which one? *The simplest ways are straight lines*: take a sample of each side, any two, and join them. Chapter 09 did that with noise on one side; nothing in it needs noise. *But the lines of random pairs cross, and the ways of a flow can't*: a flow has one velocity at each place and time. *So take the mean*: at each place and time the mean of the directions of all lines that pass there. That is chapter 09's flow matching with two arbitrary sides.
#
# What is new comes after. The flow that took the mean gives **new pairs**: each start, and where it was carried. Draw straight lines between *those* and train once more. That is **reflow**. This chapter proves what reflow keeps, what it makes smaller, and what it doesn't; then it drives one step.
#
# As everywhere in this course, **$t = 0$ is where we go, the data, and $t = 1$ where we come from**. Liu et al. count the other way round: their $X_0$ is our $x_1$, and their velocity $X_1 - X_0$ is minus ours.
#
# | symbol | meaning |
# | --- | --- |
# | $x_0$, $x_1$; $t$; $x_t$ | the two ends of a pair; a time; the point of their line |
# | $\pi_0$, $\pi_1$; $\pi_t$ | the laws of the two ends; the law (density) of $x_t$ |
# | $v$; $v_\theta$ | the mean velocity; a network's, with parameters $\theta$ |
# | $z_t$ | a point that moves with the flow, $\mathrm dz_t / \mathrm dt = v(z_t, t)$ |
# | $L$; $V$ | the loss; the least it can be, the disagreement of the lines |
# | $r_i$; $i$; $h$ | the share of the $i$-th pair in a mean; its number; the width of a blur |
# | $\varphi$ | a smooth test function, 0 far away |
# | $k$; $C_k$; $K$ | how often rectified; mean squared length of the pairs after that ($C_0$: of the first pairs); the last $k$ |
# | $c$ | a convex cost of a displacement |
# | $S$ | the straightness of a flow |
# | $D$; $m$; $I$ | number of coordinates; the mean of a Gaussian; the unit matrix |
# | $T$; $p$ | a growing function (section 7); a power (exercise 1) |
# | $w$ | the velocity of a whirl (section 8) |
# | $s_0$, $s_1$, $\rho$ | standard deviations of the two ends, their correlation (exercise 4) |
# | $R$, $\alpha$; $M_t$ | a rotation and its angle; the matrix $(1 - t) R + t I$ |
# | $A$, $\Lambda$ | bounds on how fast the velocity changes along a way, and from place to place |
# | $N$; $n$; $\delta_n$ | number of Euler's steps; how many are done; the error after them |
# | $f$ | a jump from any place of a way to its end |
# | $a$, $b$; $s$; $y$; $\varepsilon$ | a path $a x_0 + b \varepsilon$ (chapters 06 to 10); $s = b / (a + b)$; the path divided by $a + b$; noise |
# | $\mathbb E$ | mean |

# %% [markdown]
# ## 1. Lines, and the mean where they meet
#
# Draw $x_0$ from $\pi_0$ and $x_1$ from $\pi_1$, in whatever pairs: a joint law with these two sides is a **coupling**. The usual one is independent. Join them at constant speed:
#
# $$x_t = (1 - t)\, x_0 + t\, x_1, \qquad \frac{\mathrm d x_t}{\mathrm d t} = x_1 - x_0 .$$
#
# As a recipe for sampling this is of no use: to know the velocity you must know where you will end. (The papers say: it is not causal.) An ODE knows $x_t$ and $t$ alone. The best guess of $x_1 - x_0$ from them, in squared error, is the conditional mean:
#
# $$\boxed{\; v(x, t) = \mathbb E \big[\, x_1 - x_0 \;\big|\; x_t = x \,\big], \qquad \frac{\mathrm d z_t}{\mathrm d t} = v(z_t, t) \;}$$
#
# This is the **rectified flow** of the coupling: begin at $z_1 = x_1$, and follow it from $t = 1$ down to 0. And it is learned as chapter 09 learned it. Split the error of any $v_\theta$ at $v$; the mixed term is 0, since given $x_t$ the difference $x_1 - x_0 - v$ has mean 0 and the rest is fixed:
#
# $$L = \mathbb E \big\| (x_1 - x_0) - v_\theta(x_t, t) \big\|^2
#   = \mathbb E \big\| v_\theta(x_t, t) - v(x_t, t) \big\|^2 + V, \qquad V = \mathbb E \big\| (x_1 - x_0) - v(x_t, t) \big\|^2 .$$
#
# The time is uniform in $[0, 1]$. Keep $V$ in mind: it is what the loss can't get rid of, and it is 0 only where no lines of different direction meet.

# %%
show_source([interpolate, RectifiedFlow.loss, RectifiedFlow.states])

# %% [markdown]
# Three lines of loss, and a sampler that chapter 09 already had. (Our loss is divided by the number of coordinates $D$; so the network's is $L / D$.)
#
# **When there are finitely many pairs**, the mean can be written down, if each line is blurred by a Gaussian of width $h$: pair $i$ enters with a weight that falls with its distance from $x$,
#
# $$v(x, t) = \sum_i r_i\, (x_{1, i} - x_{0, i}), \qquad r_i \propto \exp \Big( \! - \frac{\| x - (1 - t)\, x_{0, i} - t\, x_{1, i} \|^2}{2 h^2} \Big).$$
#
# That is what moved the points in *See it*, in your browser. It is exact, so we can check theorems on it.

# %%
from course_lib.diffusion import kernel_velocity

show_source(kernel_velocity)

# %%
x0, x1 = torch.tensor([[2.0, 1.0], [2.0, -1.0]]), torch.tensor([[-2.0, -1.0], [-2.0, 1.0]])
places = torch.tensor([[0.0, 0.0], [-2.0, 1.0]])  # where the two meet, and where one begins
for place, t in zip(places, (0.5, 1.0)):
    v = kernel_velocity(place[None], t, x0, x1, width=0.2)[0]
    print(f"at {place.tolist()}, t = {t}: v = {[round(number, 2) for number in v.tolist()]}")
print("the lines' own velocities:", (x1 - x0).tolist())

# %% [markdown]
# At the crossing the flow goes level, in the mean of both directions; away from it each line has its own.
#
# **Exercise 1: a way that isn't straight.** Nothing said so far needs a line. Take $x_t = (1 - t)^p x_0 + t^p x_1$, and give its place and its velocity. (`hint("13.velocity")` helps, as with every exercise; `solution(...)` shows what the library does.)


# %%
def velocity(x0, x1, t, p):
    """x0 and x1 [B, *event], t [B], a number p: x_t and its velocity."""
    ...


check("13.velocity", velocity)

# %% [markdown]
# ## 2. Train it, and the weakness
#
# From a pinwheel to two moons: no noise anywhere, and no pair known. Both sets are shuffled and laid side by side.

# %%
from course_lib.data import toy
from course_lib.nn import TimeMLP

moons, pinwheel = (
    toy(name, 10_000, generator=seeded(k)) for k, name in enumerate(("two_moons", "pinwheel"))
)
torch.manual_seed(0)
first = RectifiedFlow(TimeMLP(2, (96, 96, 96), scale=1000.0))
history = fit(first, (moons, pinwheel), steps=1200, batch_size=256, lr=3e-3, ema=0.99)
print("the loss is between 1.1 and 1.4:", 1.1 < history.loss() < 1.4)

# %%
fresh_moons, start = (
    toy(name, 2000, generator=seeded(k)) for k, name in ((7, "two_moons"), (8, "pinwheel"))
)
lines = torch.stack([interpolate(fresh_moons, start, 1 - k / 16) for k in range(17)])
ways = torch.stack(list(first.states(start, steps=16, solver="heun")))
ParticlePlayer(
    lines[:, :1200],
    beside=ways[:, :1200],
    titles=("the lines of random pairs", "the flow of their mean"),
    trails=lines[:, :8],
    beside_trails=ways[:, :8],
    labels=[f"t = {1 - k / 16:.2f}" for k in range(17)],
    extent=(-3, 3, -3, 3),
    role="model",
    title="One law at each time, two ways to go",
    alt="A pinwheel becomes two moons twice: at the left along straight lines that cross, at the "
    "right along curves that don't.",
)

# %% [markdown]
# Stop it in the middle. The two clouds agree at each time, as section 4 will prove; the ways don't. Those of the flow bend where many lines meet.
#
# **So few steps fail.** Look at the very first velocity. With independent pairs $x_1$ says nothing of $x_0$, so that at $t = 1$, where $x_t$ is $x_1$,
#
# $$x_1 - v(x_1, 1) = x_1 - \mathbb E [\, x_1 - x_0 \mid x_1 \,] = \mathbb E [\, x_0 \,] .$$
#
# **One step of Euler sends everybody to one point, the mean of the data.** That is no fault of the network: it is right. It holds for every flow with independent pairs, for flow matching, and for DDIM's first step from pure noise. Measure it:

# %%
from course_lib.metrics import energy_distance

exact = list(first.states(start, steps=50, solver="heun"))


def miss(x, end):
    """The root of the mean squared distance between where points are and where they should be."""
    return (x - end).square().sum(1).mean().sqrt().item()


one = first.transport(start, steps=1)
spread = [x.std(0).norm().item() for x in (one, fresh_moons)]
print("one step ends near the moons' mean, within 0.4:", miss(one, moons.mean(0)) < 0.4)
print("its spread is less than a third of the moons':", spread[0] < spread[1] / 3)

# %% jupyter={"source_hidden": true}
from matplotlib.figure import Figure

figure = Figure(figsize=(8.2, 2.4))
for axes, steps in zip(figure.subplots(1, 5, sharey=True), (0, 1, 2, 4, 16)):
    x = first.transport(start, steps=steps) if steps else fresh_moons
    axes.scatter(*x.T, s=2, color=PALETTE["model" if steps else "data"])
    title = f"{steps} step{'s' if steps > 1 else ''}" if steps else "moons"
    if steps:
        title += f"\nerror {miss(x, exact[-1]):.1f}, energy {energy_distance(x, fresh_moons):.2f}"
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="x₁")
    axes.set_title(title, fontsize=8)
figure.axes[0].set_ylabel("x₂")
figure.tight_layout()
show_figure(
    figure,
    alt="Two moons; of the first flow a blot in the middle after one step, smeared moons after two "
    "and four, moons after sixteen.",
)

# %% [markdown]
# (The error is the root of the mean squared distance to where 50 steps of Heun end; "energy" is the energy distance to fresh moons, 0 for the same law. What spread is left after one step is the network's error, not the flow's.)
#
# ## 3. Reflow
#
# The flow has made pairs: each start $x_1$, and where it was carried, $z_0$. Unlike random pairs they belong to each other: each start has one end (a *deterministic* coupling), and ways between them exist that don't meet. **Train a new flow on these pairs**, by the same loss:

# %%
show_source(reflow)

# %%
pairs = reflow(first, 10_000, steps=20, solver="heun", x1=pinwheel)
second = RectifiedFlow(TimeMLP(2, (96, 96, 96), scale=1000.0))
second.load_state_dict(first.state_dict())  # it starts where the first one ended
history = fit(second, pairs, steps=600, batch_size=256, lr=2e-3, ema=0.99)
print("the loss fell below 0.05, from more than 1:", history.loss() < 0.05)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 3.2))
for axes, (name, model) in zip(
    figure.subplots(1, 3, sharey=True), (("moons", None), ("first", first), ("second", second))
):
    x, title = fresh_moons, "moons"
    if model is not None:
        x, end = model.transport(start, steps=1), model.transport(start, 50, solver="heun")
        title = f"one step of the {name} flow\nerror {miss(x, end):.1f}, "
        title += f"energy {energy_distance(x, fresh_moons):.2f}"
        for begin, there in zip(start[:40], x[:40]):
            axes.plot(*torch.stack([begin, there]).T, color=PALETTE["noise"], lw=0.4)
    axes.scatter(*x.T, s=2, color=PALETTE["data" if model is None else "model"])
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="x₁")
    axes.set_title(title, fontsize=8)
figure.axes[0].set_ylabel("x₂")
figure.tight_layout()
show_figure(
    figure,
    alt="Two moons; one step of the first flow, a blot in the middle; one step of the second flow, "
    "two moons with a smear between them.",
)

# %%
one_of_two = second.transport(start, steps=1)
end_of_two = second.transport(start, 50, solver="heun")
random_cost, first_cost = (transport_cost(x, start).item() for x in (fresh_moons, exact[-1]))
print(
    "one step of the second errs less than a quarter of the first's:",
    4 * miss(one_of_two, end_of_two) < miss(one, exact[-1]),
)
print(
    "pairs of the first flow have less than a fifth of the squared length of random ones:",
    first_cost < random_cost / 5,
)

# %% [markdown]
# The loss, which stayed above 1 before, is almost 0 now: nothing is left to disagree about. And one step draws moons, with some points smeared between them, where the crowd must be torn apart. The flow after $k$ rounds is called the **$k$-rectified flow**: the first is 1-rectified, with no reflow yet.
#
# **From noise, three times, and by any number of steps.** These are stored models of two moons, from noise: the first is chapter 09's flow matching; then 2 and 3; then a student of the second, which section 10 explains. Move the slider over the number of steps.

# %%
names = [
    "flow_matching_two_moons",
    "rectified_two_moons_2",
    "rectified_two_moons_3",
    "distilled_two_moons",
]
flows = [load_pretrained(name) for name in names]
line = RectifiedFlow(flows[0].net)  # flow matching is a rectified flow from noise
flows[0] = line
z = torch.randn(400, 2, generator=seeded(3))
counts = (1, 2, 4, 8, 16, 32)
runs = [[torch.stack(list(flow.states(z, steps=steps))) for steps in counts] for flow in flows]
ends = [list(flow.states(z, steps=50, solver="heun"))[-1] for flow in flows[:3]]
ends.append(ends[1])  # a student is measured against its teacher
errors = [
    [(way[-1] - end).square().sum(1).mean().sqrt().item() for way in run]
    for run, end in zip(runs, ends)
]
clouds = [torch.stack([way[-1] for way in run]) for run in runs]
trails = [[way[:, :10] for way in run] for run in runs]
ParticlePlayer(
    clouds[0],
    beside=clouds[1:],
    titles=["k = 1", "k = 2", "k = 3", "k = 2, distilled"],
    captions=[[f"error {error:.2f}" for error in row] for row in errors],
    trails=trails[0],
    beside_trails=trails[1:],
    labels=[f"steps = {steps}" for steps in counts],
    extent=(-3, 3, -3, 3),
    role="model",
    title="k-rectified flows, by the number of steps",
    alt="Four panels of two moons, of the 1-, 2- and 3-rectified flow and of a student, for 1 to 32 "
    "steps of Euler, with ten ways each: bent for k = 1, straight for k = 2 and 3.",
)

# %%
table = "| error | 1 step | " + " | ".join(f"{steps} steps" for steps in counts[1:]) + " |\n"
table += "| --- |" + " ---: |" * len(counts) + "\n"
for name, row in zip(("k = 1", "k = 2", "k = 3", "k = 2, distilled"), errors):
    table += f"| {name} | " + " | ".join(f"{error:.2f}" for error in row) + " |\n"
Markdown(table)

# %% [markdown]
# One step of $k = 2$ errs less than thirty-two steps of $k = 1$. The third round wins little more. The student is best at the one thing that it learned, one step, and worse with more.
#
# **Exercise 2: break the pairs.** Reflow is nothing but pairs. Write a slip that keeps both sets of samples exactly, so that no histogram tells, and gives the first flow again. Say before you run it what the next flow will be, and why.


# %%
def bad_pairs(x0, x1):
    """Pairs of reflow, [N, 2] each: the same samples of both, and all is lost."""
    ...


check("13.break_the_pairs", bad_pairs)

# %% [markdown]
# ## 4. The laws are kept
#
# Why does the flow land on the moons at all, if it leaves the lines? **Theorem 1: $z_t$ has the law $\pi_t$ of $x_t$, at every time.** (The papers: the flow *preserves the marginals*.) Take a smooth test function $\varphi$, 0 far away, and follow its mean along the *lines*. First the chain rule; then the mean in two stages, first over all lines that pass one place, where $\nabla \varphi(x_t)$ is fixed:
#
# $$\frac{\mathrm d}{\mathrm d t}\, \mathbb E\, \varphi(x_t)
#   = \mathbb E \big[ \nabla \varphi(x_t) \cdot (x_1 - x_0) \big]
#   = \mathbb E \big[ \nabla \varphi(x_t) \cdot \mathbb E[ x_1 - x_0 \mid x_t ] \big]
#   = \mathbb E \big[ \nabla \varphi(x_t) \cdot v(x_t, t) \big] .$$
#
# Write the means as integrals over $\pi_t$, and integrate by parts; $\varphi$ is 0 at the rim:
#
# $$\int \varphi\; \frac{\partial \pi_t}{\partial t}
#   = \int \pi_t\; \nabla \varphi \cdot v
#   = - \int \varphi\; \nabla \cdot (\pi_t\, v)
#   \qquad \text{for every } \varphi, \text{ so} \qquad
#   \frac{\partial \pi_t}{\partial t} = - \nabla \cdot (\pi_t\, v) .$$
#
# That is chapter 09's **continuity equation** with the velocity $v$. The law of $z_t$ fulfils the same equation, since it moves with $v$, and it starts from the same $\pi_1$. Where the ODE has one solution from each start (a $v$ that changes smoothly from place to place is enough), the equation has one solution, too. So the two laws are equal, down to $\pi_0$. ∎
#
# Nothing here asked for a *line*, for noise, or for independent pairs: the theorem holds for each round of reflow.
#
# **Check**, with blurred pairs, for which law and velocity are both known: the equation to rounding, and not for another velocity.

# %%
from course_lib.diffusion import continuity_residual, kernel_log_prob

show_source([kernel_log_prob, continuity_residual])

# %%
x0, x1 = (torch.randn(6, 2, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
places = torch.randn(200, 2, generator=seeded(3), dtype=torch.float64)
times = torch.rand(200, generator=seeded(4), dtype=torch.float64)


def law(x, t):
    return kernel_log_prob(x, t, x0, x1, width=0.4)


def mean(x, t):
    return kernel_velocity(x, t, x0, x1, width=0.4)


def narrower(x, t):
    return kernel_velocity(x, t, x0, x1, width=0.3)


for name, field in (("the conditional mean", mean), ("that of a narrower blur", narrower)):
    off = continuity_residual(law, field, places, times).abs().max().item()
    print(f"{name}: the continuity equation holds to 1e-12: {off < 1e-12}, to 0.01: {off < 0.01}")

# %% [markdown]
# **Check** the laws after each round. A network only comes near to $v$, so we ask statistics: 500 samples of each flow from noise, by 50 steps of Heun, against 500 fresh moons, by a permutation test of the energy distance. A test that finds nothing says little unless we know what it would have found. So we ask also how often it finds moons that were moved to the right by a little.

# %%
from course_lib.metrics import permutation_power, permutation_test

more = toy("two_moons", 4000, generator=seeded(11))
z = torch.randn(500, 2, generator=seeded(12))
for k, flow in enumerate(flows[:3], 1):
    x = list(flow.states(z, steps=50, solver="heun"))[-1]
    p = permutation_test(x, more[:500], draws=200, generator=seeded(13))
    print(f"k = {k}: the test finds a difference at 1 %: {p < 0.01}")
for shift in (0.0, 0.3):
    moved = toy("two_moons", 4000, generator=seeded(14)) + torch.tensor([shift, 0.0])
    options = {"size": 500, "repeats": 40, "draws": 200, "level": 0.01}
    found = permutation_power(more, moved, **options, generator=seeded(15))
    print(f"moons moved by {shift}: found at 1 % in more than 80 % of 40 tests: {found > 0.8}")

# %% [markdown]
# ## 5. No convex cost ever rises
#
# In *See it* the pairs came closer, unasked. **Theorem 2: for every convex cost $c$ of a displacement, $\mathbb E\, c(z_1 - z_0) \le \mathbb E\, c(x_1 - x_0)$.** It takes five steps, and two of them are **Jensen's inequality**: a convex function of a mean is at most the mean of the function.
#
# $$\begin{aligned}
# \mathbb E\, c(z_1 - z_0) &= \mathbb E\; c \Big( \int_0^1 v(z_t, t)\, \mathrm d t \Big)
#   && \text{the way is the sum of its velocities} \\
# &\le \mathbb E \int_0^1 c \big( v(z_t, t) \big)\, \mathrm d t && \text{Jensen, over the times of one way} \\
# &= \mathbb E \int_0^1 c \big( v(x_t, t) \big)\, \mathrm d t && \text{theorem 1: } z_t \text{ has the law of } x_t \\
# &= \mathbb E \int_0^1 c \big( \mathbb E [\, x_1 - x_0 \mid x_t \,] \big)\, \mathrm d t && \text{what } v \text{ is} \\
# &\le \mathbb E \int_0^1 \mathbb E \big[ c( x_1 - x_0 ) \mid x_t \big]\, \mathrm d t = \mathbb E\, c(x_1 - x_0) && \text{Jensen, over the lines of one place. ∎}
# \end{aligned}$$
#
# *Every* convex $c$ at once: the length, its square, the largest coordinate. Usual optimal transport makes *one* cost as small as it can be; a rectified flow need not make any as small as it can be, but makes all of them no larger.
#
# The first Jensen is an equality if a way has one velocity; the second if all lines through a place have one. For a *strictly* convex cost, such as the squared length, these are the only equalities: so it stays only if nothing meets. A cost that is convex but not strictly, such as the length on a line, may stay although lines meet.

# %%
show_source(transport_cost)

# %%
costs = {
    "squared length": lambda d: d.square().sum(1),
    "length": lambda d: d.norm(dim=1),
    "sum of absolute coordinates": lambda d: d.abs().sum(1),
    "largest coordinate": lambda d: d.abs().amax(1),
    "power 4 of the length": lambda d: d.norm(dim=1) ** 4,
}
z = torch.randn(2000, 2, generator=seeded(16))
rounds = [(toy("two_moons", 2000, generator=seeded(17)), z)]
rounds += [(list(flow.states(z, steps=50, solver="heun"))[-1], z) for flow in flows[:3]]
table = (
    "| mean cost | random pairs | k = 1 | k = 2 | k = 3 |\n| --- | ---: | ---: | ---: | ---: |\n"
)
for name, cost in costs.items():
    values = [transport_cost(*ends, cost=cost).item() for ends in rounds]
    table += f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |\n"
Markdown(table)

# %% [markdown]
# The first round does nearly all. What is not convex is not promised: $\sqrt{\cdot}$ of the length, for one.
#
# **Exercise 3: costs by hand.** Two pairs on a line: $x_1 = 0$ with $x_0 = 49$, and $x_1 = 24$ with $x_0 = 25$. The mean cost of a pair is 1201 for $d^2$, 25 for $|d|$ and 4 for $\sqrt{|d|}$. Make a rectified flow of them: what are the three mean costs then? Write them down before you compute anything. (Section 7 helps with who lands where.)

# %%
prediction = ...

check("13.convex_costs", prediction)

# %% [markdown]
# ## 6. Straightness, and an exact balance
#
# How bent is a flow? Compare the velocity on the way with that of the line between its ends, and call it the **straightness**, although it is 0 for a straight way at constant speed and large for a bent one:
#
# $$S = \int_0^1 \mathbb E \Big\| (z_1 - z_0) - \frac{\mathrm d z_t}{\mathrm d t} \Big\|^2 \mathrm d t .$$
#
# For the squared length the inequality of section 5 can be made an equation, by writing down what each Jensen loses. Over the times of one way the velocity has the mean $z_1 - z_0$, and a mean square is the square of the mean plus the mean squared deviation:
# $\int_0^1 \| \mathrm d z_t / \mathrm d t \|^2\, \mathrm d t = \| z_1 - z_0 \|^2 + \int_0^1 \| (z_1 - z_0) - \mathrm d z_t / \mathrm d t \|^2\, \mathrm d t$. Over the lines of one place the same: $\mathbb E \| x_1 - x_0 \|^2 = \mathbb E \| v(x_t, t) \|^2 + V$. By theorem 1, $\mathbb E \| v(x_t, t) \|^2$ is $\mathbb E \| v(z_t, t) \|^2$, the left side of the first. Let $C_0$ be the mean squared length of the first pairs, $C_k$ that of the pairs which the $k$-rectified flow makes, $S_k$ its straightness, and $V_k$ what its training could not get rid of; then
#
# $$\boxed{\; C_{k - 1} - C_k = S_k + V_k \;}$$
#
# **What the pairs lose in squared length is the bend of the flow, plus the loss that its training could not get rid of.** Neither is negative. Add up $K$ rounds: on the left everything but the ends cancels, and $C_K \ge 0$, so
#
# $$\sum_{k = 1}^{K} (S_k + V_k) = C_0 - C_K \le C_0, \qquad \text{and so} \qquad \min_{k \le K}\, (S_k + V_k) \le \frac{C_0}{K} .$$
#
# **Theorem 3: after $K$ rounds one of the flows is straight up to $C_0 / K$.** (Liu et al. state it so: for the best of the rounds, and for a $v$ that is learned exactly. In practice the second round does nearly all, as below.) (A sum of infinitely many terms, none negative, that is finite: they must tend to 0, though not each below the one before.) And it ends exactly where $S = V = 0$: no two of the lines meet, each particle of the flow runs along its own line, and reflow gives the same pairs again.

# %%
show_source(straightness)

# %% [markdown]
# **Check** the balance for the flow that you have trained, from pinwheel to moons: every term is measured by itself. It is not exact, since the network isn't.

# %%
with torch.no_grad():
    losses = [first.loss(fresh_moons, start, generator=seeded(k)).item() for k in range(20)]
V_1 = 2 * sum(losses) / 20  # the loss is a mean over two coordinates
S_1 = straightness(exact).mean().item()
C_0, C_1 = transport_cost(fresh_moons, start).item(), transport_cost(exact[-1], start).item()
S_2 = straightness(second.states(start, steps=50, solver="heun")).mean().item()
print(
    "C_0 - C_1 and S_1 + V_1 differ by less than 5 %:",
    abs(C_0 - C_1 - S_1 - V_1) < 0.05 * (C_0 - C_1),
)
print("the bend is a quarter to a half of it:", 0.25 < S_1 / (S_1 + V_1) < 0.5)
print("the second flow is more than 50 times as straight as the first:", S_2 < S_1 / 50)

# %% [markdown]
# **Gaussian to Gaussian**, by hand. In one dimension let $x_0 \sim \mathcal N(m, 1)$ and $x_1 \sim \mathcal N(0, 1)$ be independent. $x_1 - x_0$ and $x_t$ are jointly Gaussian, so the conditional mean is the regression line: its slope is their covariance, $t - (1 - t) = 2t - 1$, over the variance of $x_t$, which is $(1 - t)^2 + t^2$:
#
# $$v(x, t) = -m + \frac{2t - 1}{(1 - t)^2 + t^2}\, \big( x - (1 - t)\, m \big), \qquad z_t = (1 - t)\, m + z_1 \sqrt{(1 - t)^2 + t^2} .$$
#
# (The fraction is half the derivative of $\log ((1 - t)^2 + t^2)$; differentiate $z_t$ to see that it is the solution.) The root is 1 at both ends, so $z_0 = z_1 + m$: everybody is moved by $m$. **The pairs of the first flow are perfect already, and its ways still bend**: in the middle all are drawn together, by $\sqrt{1/2}$. All lines of the new pairs are parallel, so the second flow is straight. The parts of the balance: given $x_t$, the variance of $x_1 - x_0$ is $2 - (2t - 1)^2 / ((1 - t)^2 + t^2) = 1 / ((1 - t)^2 + t^2)$, whose integral is
#
# $$V_1 = \frac \pi 2, \qquad S_1 = \int_0^1 \frac{(2t - 1)^2}{(1 - t)^2 + t^2}\, \mathrm d t = 2 - \frac \pi 2, \qquad C_0 - C_1 = (m^2 + 2) - m^2 = 2 .$$

# %%
from course_lib.diffusion import gaussian_velocity

show_source(gaussian_velocity)

# %%
m, zero, one = torch.tensor([3.0]).double(), torch.zeros(1).double(), torch.eye(1).double()
gauss = RectifiedFlow(lambda x, t: gaussian_velocity(x, t, m, one, zero, one)).double()
z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
states = list(gauss.states(z, steps=400, solver="rk4"))
bend = straightness(states)
print("everybody is moved by m, within 1e-8:", (states[-1] - z - m).abs().max().item() < 1e-8)
print(
    "the bend of a way is z_1² (2 - π/2), within 1e-3:",
    torch.allclose(bend, z[:, 0] ** 2 * (2 - torch.pi / 2), atol=1e-3),
)
print("one step sends all to m:", torch.allclose(gauss.transport(z, steps=1), m.expand(9, 1)))

# %% [markdown]
# **Exercise 4: pairs that know each other.** Let $x_0 \sim \mathcal N(m, s_0^2)$ and $x_1 \sim \mathcal N(0, s_1^2)$ be correlated by $\rho$, coordinate by coordinate. Derive the velocity. For which $\rho$ is every way straight?


# %%
def gaussian_flow(x, t, m, s0, s1, rho):
    """x [B, D], t [B], m [D] and three numbers: the velocity [B, D]."""
    ...


check("13.gaussian_flow", gaussian_flow)

# %% [markdown]
# **Exercise 5: a way at unequal times.** An adaptive solver leaves its states at times of its own. Measure the straightness of one such way.


# %%
def way_straightness(states, times):
    """states [T, D] at times [T], which fall from 1 to 0 in unequal steps: a number."""
    ...


check("13.straightness", way_straightness)

# %% [markdown]
# **Straightness falls**, measured by the cards of the stored models:


# %% jupyter={"source_hidden": true}
def by_rounds(data, key):
    """A number of the cards for k = 1, 2, 3; that of the first flow stands on the second's card."""
    second, third = (load_card(f"rectified_{data}_{k}")["metrics"] for k in (2, 3))
    return [second[f"first flow: {key}"], second[key], third[key]]


table = "| | k = 1 | k = 2 | k = 3 |\n| --- | ---: | ---: | ---: |\n"
for data, words in (("two_moons", "two moons"), ("digits", "digits"), ("mnist", "MNIST")):
    for key in ("straightness", "transport cost"):
        values = [
            f"{value:.2g}" if key == "straightness" else f"{value:#.4g}".rstrip(".")
            for value in by_rounds(data, key)
        ]
        values = " | ".join(values)
        table += f"| {words}: {key} | {values} |\n"
Markdown(table)

# %% [markdown]
# The cost of the two moons' second flow lies 0.4 % *above* the first's: the theorem is about exact flows, and these are learned.

# %% [markdown]
# ## 7. On a line: everybody keeps their rank
#
# **Theorem 4: in one dimension the rectified flow maps quantile to quantile, whatever the pairs were, if only its ODE has one solution from each start** (section 4; pairs with $x_0 = -x_1$ break that: all their lines meet in one point at $t = \frac12$). Two ways of a flow can't meet; on a line this means that nobody overtakes. So who starts with some share of the crowd to the left, say a third, arrives with the same share to the left; and as the law that arrives is $\pi_0$, that place is $\pi_0$'s quantile. This is the **monotone map**. ∎
#
# It is also the cheapest there is for every convex cost of $x_1 - x_0$: take two pairs in the wrong order and exchange their ends; no convex cost grows (that is exercise 3's example). And it is straight after one reflow: with $x_0 = T(x_1)$ for a growing function $T$, the point $(1 - t)\, T(x_1) + t\, x_1$ grows with $x_1$ at each time $t > 0$, so no two lines meet. **In one dimension straight, monotone and optimal (for a strictly convex cost) are the same.**
#
# **Check** with numbers: a flow of blurred pairs in one dimension, integrated by small steps, against sorting.

# %%
from course_lib.diffusion import monotone_map

show_source(monotone_map)

# %%
ends = torch.randn(12, generator=seeded(21), dtype=torch.float64)
starts = 2 * torch.randn(12, generator=seeded(22), dtype=torch.float64)
on_a_line = RectifiedFlow(
    lambda x, t: kernel_velocity(x, t, ends[:, None], starts[:, None], width=0.02)
).double()
landed = on_a_line.transport(starts[:, None], steps=4000)[:, 0]
sorted_ends = monotone_map(ends, starts)
print("ranks are kept:", torch.equal(landed.argsort(), starts.argsort()))
print("within 0.1 of the quantile map:", (landed - sorted_ends).abs().max().item() < 0.1)
print(
    "random pairs:",
    bool(
        transport_cost(ends[:, None], starts[:, None])
        > 2 * transport_cost(sorted_ends[:, None], starts[:, None])
    ),
    "(they cost more than twice as much)",
)

# %% [markdown]
# **Exercise 6: and on the way?** The quantile map says where each lands. Where is each at the time $t$? Predict first: do they run along straight lines?


# %%
def flow_at(x0, x1, t):
    """x0 and x1 [N] are pairs of numbers, t is one time: where the starts x1 are at t, [N]."""
    ...


check("13.monotone_map", flow_at)

# %% [markdown]
# ## 8. Straight is not optimal
#
# From two dimensions on the three part company. Here is a counterexample that fits in two lines. Let both laws be the round Gaussian $\mathcal N(0, I)$ in the plane, and let each $x_1$ be paired with $x_0 = R x_1$, turned by a fixed angle, say a quarter turn. The points of the lines are
#
# $$x_t = (1 - t)\, R x_1 + t\, x_1 = M_t\, x_1, \qquad M_t = (1 - t)\, R + t\, I .$$
#
# Does $M_t$ ever bring two starts together? In the plane $\det M_t = (1 - t)^2 + t^2 + 2 t (1 - t) \cos \alpha$ for the angle $\alpha$, which is positive as long as the turn is less than half a circle. So no two lines meet. Each line is its own conditional mean, the flow runs along the lines, $S = V = 0$: **reflow leaves these pairs as they are**, for ever. But they cost, and the best pairs don't: leave everybody where they are, at no cost at all.


# %%
def turning(angle):
    """The rectified flow of the pairs x_0 = R x_1, as a velocity: (I - R) M_t⁻¹ x; and R."""
    turn = torch.tensor(angle, dtype=torch.float64)
    R = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()]).reshape(2, 2)
    eye = torch.eye(2, dtype=torch.float64)

    def velocity(x, t):
        t = t[:, None, None]
        x1 = torch.linalg.solve((1 - t) * R + t * eye, x[:, :, None])  # whose line passes here?
        return ((eye - R) @ x1)[:, :, 0]

    return RectifiedFlow(velocity).double(), R


quarter, R = turning(torch.pi / 2)
z = torch.randn(2000, 2, generator=seeded(23), dtype=torch.float64)
end = quarter.transport(z, steps=1)
print("one step of Euler is exact:", torch.allclose(end, z @ R.T))
print("straightness below 1e-12:", straightness(quarter.states(z, steps=20)).max().item() < 1e-12)
print(
    f"mean squared length {transport_cost(end, z):.0f}, the best possible {transport_cost(z, z):.0f}"
)

# %% [markdown]
# The flow is a whirl. Any whirl that leaves the law alone ($\nabla \cdot (\pi_t w) = 0$ for its velocity $w$) can be added to a flow: the laws stay. And theorem 2 does not remove it: the costs do not rise, but they need not fall. Does it happen on its own, from *independent* pairs? With two Gaussians whose long axes point in different directions, yes, and not by a little; both maps are known in closed form:

# %%
from course_lib.diffusion import gaussian_map, optimal_gaussian_map

show_source([gaussian_map, optimal_gaussian_map])

# %%
zero = torch.zeros(2, dtype=torch.float64)
long = torch.tensor([[4.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
slanted = torch.tensor([[2.05, 1.95], [1.95, 2.05]], dtype=torch.float64)  # long, turned by 45°
z = torch.randn(100_000, 2, generator=seeded(24), dtype=torch.float64)
z = z @ torch.linalg.cholesky(slanted).T
table = "| mean squared length | |\n| --- | ---: |\n"
for name, function in (
    ("rectified flow", gaussian_map),
    ("optimal transport", optimal_gaussian_map),
):
    landed = function(z, zero, long, zero, slanted)
    reached = torch.allclose(landed.T.cov(), long, atol=0.1)
    table += (
        f"| {name}{', reaches the law' if reached else ''} | {transport_cost(landed, z):.2f} |\n"
    )
Markdown(table)

# %% [markdown]
# Both reach the law, one of them at less than half the cost. (The least mean squared length that pairs of two laws can have is the square of their *Wasserstein distance* $W_2$.) The other way round it holds: optimal pairs for the squared length never meet (chapter 09 has the two lines of the proof), so they are straight, and reflow keeps them. To make optimal pairs by reflow, keep the whirls out: Liu (2022) asks that $v$ be a gradient. (Whether that is always enough has been doubted since: Hertrich, Chambolle and Delon 2025, [arXiv:2505.19712](https://arxiv.org/abs/2505.19712).) For sampling nobody needs the optimum. *Straight* is what makes one step enough.
#
# ## 9. How few steps
#
# **Where a flow is straight, one step is exact.** Straight at constant speed means that $v(z_t, t)$ stays what it is along the way, so it is $z_1 - z_0$ from the first moment, and $z_1 - v(z_1, 1) = z_0$.
#
# **Where it is nearly straight.** Let the velocity along a way change by at most $A$ in a unit of time, $\| \mathrm d v(z_t, t) / \mathrm d t \| \le A$. Taylor's formula says that a step of length $1 / N$ from a point *on* the way misses by at most $A / (2 N^2)$ (its *truncation error*); with $N = 1$ that is all: **one step errs by $A / 2$ at most**. With more steps each begins a little off, at a distance $\delta_n$ from the way. There the velocity is another one, by at most $\Lambda \delta_n$, if it changes by at most $\Lambda$ in a unit of place. So
#
# $$\delta_{n + 1} \le \Big( 1 + \frac{\Lambda}{N} \Big)\, \delta_n + \frac{A}{2 N^2}, \qquad \delta_0 = 0 .$$
#
# Go down the recursion: a geometric sum, $\frac{A}{2 N^2} \big( (1 + \Lambda / N)^N - 1 \big) / (\Lambda / N)$, and $(1 + \Lambda / N)^N \le e^\Lambda$:
#
# $$\delta_N \le \frac{A}{2 N}\; \frac{e^{\Lambda} - 1}{\Lambda} .$$
#
# The error falls as $1 / N$ (Euler's order, chapter 09), and its factor is $A$: **reflow doesn't change the order, but the factor, which is 0 where a flow is straight.** (A small $S$ alone does not make $A$ small: exercise 7.) On Gaussians everything can be put in:

# %%
m, zero, unit = torch.tensor([0.0]).double(), torch.zeros(1).double(), torch.eye(1).double()
gauss = RectifiedFlow(lambda x, t: gaussian_velocity(x, t, m, unit, zero, unit)).double()
z = torch.tensor([[1.0]], dtype=torch.float64)  # a way z_t = sqrt((1 - t)² + t²) of its own
t = torch.linspace(0, 1, 2001, dtype=torch.float64)
spread = (1 - t) ** 2 + t**2
A = (spread**-1.5).max().item()  # z_t'' = ((1 - t)² + t²)^(-3/2), largest in the middle
slope = ((2 * t - 1) / spread).abs().max().item()  # the velocity is this times x
table = "| steps | error | bound |\n| ---: | ---: | ---: |\n"
for N in (1, 2, 4, 8, 16, 32):
    error = (gauss.transport(z, steps=N) - z).abs().item()
    bound = A / 2 if N == 1 else A / (2 * N) * (torch.tensor(slope).exp().item() - 1) / slope
    table += f"| {N} | {error:.3f} | {bound:.3f} |\n"
Markdown(table)

# %% [markdown]
# The bound holds, and is loose: it takes the worst of all places at all times. The flows of the cards, by the steps of Euler:

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 3.0))
axes = figure.subplots(1, 3, sharey=True)
for ax, (data, words) in zip(
    axes, (("two_moons", "two moons"), ("digits", "digits"), ("mnist", "MNIST"))
):
    for k, (rows, colour) in enumerate(
        zip(by_rounds(data, "steps"), ("noise", "model", "latent")), 1
    ):
        line = [(row["steps"], row["error"]) for row in rows]
        ax.loglog(*zip(*line), "o-", ms=4, color=PALETTE[colour], label=f"k = {k}")
    ax.set_xticks([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32])
    ax.minorticks_off()
    ax.set(title=words, xlabel="steps of Euler")
axes[0].set_ylabel("root mean square error of a number")
axes[0].legend(frameon=False, fontsize=8)
figure.tight_layout()
show_figure(
    figure,
    alt="Errors over steps of Euler for two moons, digits and MNIST: those of k = 2 and 3 lie far "
    "below those of k = 1 at one step, and all fall with more steps.",
)

# %% [markdown]
# **Exercise 7: from straightness to error.** Let the velocity change *evenly* along each way, and depend on time alone. You are told $S$ of each way, and nothing else. How far off do $N$ steps of Euler end? (Then: why does $S$ alone, without "evenly", bound nothing?)


# %%
def euler_error(S, N):
    """The straightness S [B] of ways whose velocity changes evenly, N steps: the errors [B]."""
    ...


check("13.euler_error", euler_error)

# %% [markdown]
# ## 10. Distill last
#
# One step uses one velocity only: $v_\theta(x_1, 1)$. So train that one, on the pairs of a flow. **Distillation** is the loss of section 1, asked at $t = 1$ alone:
#
# $$\mathbb E \big\| (x_1 - z_0) - v_\theta(x_1, 1) \big\|^2 .$$
#
# It is the squared error of one step. With reflow's pairs $z_0$ is a function of $x_1$, so the least value is 0: a student can be as good as its teacher, if its network can be. (With independent pairs it would learn the mean of the data, section 2.)

# %%
show_source(distill)

# %% [markdown]
# **Why after reflow?** The second flow was trained on the first one's map from start to end. But it says already at $t = 1$ where to go, and the first says there "go to the mean". So a student that begins as the second has little left to learn. Measure it: two students, the same pairs, the same 300 steps.

# %%
students = []
for teacher in (first, second):
    student = distill(teacher)
    before = miss(student.transport(start, steps=1), exact[-1])
    fit(student, pairs, steps=300, batch_size=256, lr=2e-3, ema=0.98, progress=False)
    after = miss(student.transport(start, steps=1), exact[-1])
    bend = straightness(student.states(start, steps=32)).mean().item()
    students.append((before, after, bend))
(before_1, after_1, _), (before_2, after_2, bend_2) = students
print(
    "before: the student of the second errs less than a quarter of the other:",
    4 * before_2 < before_1,
)
print(
    "after: it still errs less:", after_2 < after_1, "but not half as much:", after_2 > after_1 / 2
)
print("in 32 steps its ways bend more than its teacher's:", bend_2 > S_2)

# %% [markdown]
# In the plane both get there, the second's student ahead.
#
# **Why last?** A student has forgotten all other times. Run it in many steps and it bends (last line above; *distilled* in section 3's figure). It is a map now, no flow: its pairs are not better than its teacher's, and no theorem speaks of them. Reflow *changes* the pairs, distillation only *copies* them. In the paper distillation alone does much already: one step of the 1-rectified flow of CIFAR-10 has FID 378, distilled 6.18; with one reflow before it, 4.85 (table 1a; for these one-step students the paper's loss is LPIPS, chapter 12's perceptual distance, in the place of the square).
#
# **Consistency models** (Song et al. 2023) ask for a jump from *anywhere* on a way to its end. A flow offers one,
#
# $$f(x, t) = x - t\, v(x, t), \qquad \frac{\mathrm d}{\mathrm d t} f(z_t, t) = v - v - t\, \frac{\mathrm d v(z_t, t)}{\mathrm d t} = - t\, \frac{\mathrm d v(z_t, t)}{\mathrm d t} .$$
#
# For the flow's own $v$ it is 0 only if $v$ does not change along the way: **a straight flow is consistent.** A consistency model keeps the old, bent ways, and learns another $f$ until *that* does not change along them, by comparing neighbours on a way. Its $(x - f) / t$ is then no velocity of the way, but the mean velocity of the rest of it. Reflow gets there by new pairs, consistency training by a condition on the old ways.

# %%
with torch.no_grad():
    jumps = {}
    for name, flow in (("first", first), ("second", second)):
        places = list(flow.states(start[:500], steps=50, solver="heun"))
        for n, t in ((0, 1.0), (25, 0.5)):
            v = flow.predict(places[n], torch.full((500,), t), target="velocity")
            jumps[name, t] = miss(places[n] - t * v, places[-1])
for t in (1.0, 0.5):
    print(
        f"from t = {t}, the second flow's jumps miss by less than a quarter of the first's:",
        4 * jumps["second", t] < jumps["first", t],
    )

# %% [markdown]
# ## 11. Threes become eights
#
# Two sets of images, no noise (*domain transfer*, image-to-image translation without pairs): MNIST's threes and its eights, 28 × 28 pixels, in random pairs; nobody has said which eight belongs to which three. The two models are stored. MNIST itself isn't needed here: **the threes below are drawn by chapter 06's DDPM**, which knows classes.

# %%
from course_lib.data import to_unit
from course_lib.diffusion import ddim_sample, last

ddpm = load_pretrained("ddpm_mnist")
threes = torch.full((10,), 3)
threes = last(
    ddim_sample(ddpm, (10, 1, 28, 28), steps=50, eta=1.0, y=threes, clip=1.0, generator=seeded(6))
)
changers = [load_pretrained(f"threes_to_eights_{k}") for k in (1, 2)]
with torch.no_grad():
    ways = [
        torch.stack(list(flow.states(threes, steps=16, solver="heun"))[::2]) for flow in changers
    ]
ImagePlayer(
    to_unit(ways[0]).clamp(0, 1),
    beside=to_unit(ways[1]).clamp(0, 1),
    titles=["k = 1", "k = 2"],
    columns=10,
    labels=[f"t = {1 - n / 8:.2f}" for n in range(9)],
    title="Threes become eights",
    alt="Ten handwritten threes change into eights, in one row by the 1-rectified flow and in one "
    "by the 2-rectified.",
)

# %%
with torch.no_grad():
    rows = [flow.transport(threes, steps=steps) for flow in changers for steps in (1, 32)]
show_figure(
    image_grid(
        to_unit(torch.cat([threes, *rows])).clamp(0, 1),
        columns=10,
        titles=[
            "threes",
            "k = 1, one step",
            "k = 1, 32 steps",
            "k = 2, one step",
            "k = 2, 32 steps",
        ],
        size=0.6,
    ),
    alt="Ten threes, and below them what the two flows make of each in one step and in 32.",
)

# %% jupyter={"source_hidden": true}
cards = [load_card(f"threes_to_eights_{k}")["metrics"] for k in (1, 2)]
table = "| | " + " | ".join(f"{row['steps']} step{'s' * (row['steps'] > 1)}" for row in cards[0]["steps"]) + " |\n"
table += "| --- |" + " ---: |" * len(cards[0]["steps"]) + "\n"
for k, card in enumerate(cards, 1):
    table += f"| k = {k}: called an eight | "
    table += " | ".join(f"{row['eight']:.0%}" for row in card["steps"]) + " |\n"
    table += f"| k = {k}: still called a three | "
    table += " | ".join(f"{row['still three']:.0%}" for row in card["steps"]) + " |\n"
for k, card in enumerate(cards, 1):
    for words, key in (("its own", "distance to its own"), ("any", "distance to any")):
        table += f"| k = {k}: squared distance to {words} three | "
        table += " | ".join(f"{row[key]:.0f}" for row in card["steps"]) + " |\n"
Markdown(table)

# %% [markdown]
# (500 threes of the test images, from the models' cards; our classifier calls what it sees.)
#
# **What a three hands on.** At every number of steps its image stays nearer to it than to another three. Nobody asked for that: with many steps it is theorem 2 at work; the cost is this squared distance, and it can only fall from that of random pairs. (With one step of $k = 1$ it is not: an ideal network would send all to one image, equally far from both.) **And it is not easy**, for a small network that was trained for minutes: a part of the threes arrive as threes, also in 32 steps. In one step the first flow shows not an eight but something near the mean of eights, which the classifier calls an eight often enough: it was never asked about blurred images. So read the picture beside the table.
#
# ## 12. What of this is new?
#
# *Flow matching* (chapter 09) with independent pairs **is** the 1-rectified flow from noise; that and *stochastic interpolants* (Albergo, Vanden-Eijnden 2023, [arXiv:2209.15571](https://arxiv.org/abs/2209.15571)) were published within a month of each other. New here: two arbitrary sides, reflow, and the theorems on pairs. *Optimal transport in a batch* (chapter 09) changes the pairs *before* the first training; reflow changes them after it, with the flow itself, and needs no batch.
#
# *Other paths.* Take any $a x_0 + b \varepsilon$ with independent noise, VP's (DDPM, DDIM) or EDM's $a = 1$. Divide by $a + b$:
#
# $$y = \frac{a x_0 + b\, \varepsilon}{a + b} = (1 - s)\, x_0 + s\, \varepsilon, \qquad s = \frac{b}{a + b} .$$
#
# **In these units it is the straight line, at another pace.** Units that depend on time alone don't change which conditional mean is taken; so the probability-flow ODEs of VP, EDM and the straight path with ideal networks all have the same ways in the units of $y$, and **lead from the same noise to the same image**. What differs is the speed, and so what a step of Euler does; DDIM and EDM answer that with other units of their own. A diffusion model can be the teacher of a reflow just as well: take its pairs, and learn lines. If one keeps its path in the retraining, the pairs come out the same, and the ways are straight in the units of $y$, though not in those of $x_t$: then one step of DDIM is exact, and one of Euler in $x_t$ is not. The lines at constant speed are for Euler's sake.

# %%
from course_lib.diffusion import Denoiser, IdealDenoiser, VEPath, VPPath, ode_encode

angle = torch.arange(8, dtype=torch.float64) * torch.pi / 4
ring = 1.5 * torch.stack([angle.cos(), angle.sin()], dim=1)
data = ring.repeat(4, 1) + 0.3 * torch.randn(32, 2, generator=seeded(31), dtype=torch.float64)
noises = []
for path in (VPPath(), VEPath(sigma_max=1000.0)):
    ideal = Denoiser(IdealDenoiser(ring, path, std=0.3), path).double()
    end = last(ode_encode(ideal, data, steps=400, solver="rk4"))
    last_time = torch.tensor(path.t_max, dtype=torch.float64)
    noises.append(end / (path.a(last_time) + path.b(last_time)))
off = (noises[0] - noises[1]).abs().max().item()
print(
    "the same noise belongs to the same data on DDPM's path and on EDM's, within 0.02:", off < 0.02
)

# %% [markdown]
# ## How good is it?
#
# **Digits and MNIST**, feature distance of 1,000 samples by Euler (lower is better; its spread from one draw to the next is in chapter 07), from the cards:

# %% jupyter={"source_hidden": true}
table = "| feature distance | 1 step | "
table += " | ".join(f"{steps} steps" for steps in counts[1:]) + " |\n"
table += "| --- |" + " ---: |" * len(counts) + "\n"
for data, words in (("digits", "digits"), ("mnist", "MNIST")):
    for k, rows in enumerate(by_rounds(data, "steps"), 1):
        values = [f"{row['distance']:.1f}" for row in rows] + ["–"] * (len(counts) - len(rows))
        table += f"| {words}, k = {k} | {' | '.join(values)} |\n"
    if data == "digits":
        rows = load_card("distilled_digits")["metrics"]["steps"]
        values = " | ".join(f"{row['distance']:.1f}" for row in rows)
        table += f"| digits, k = 2, distilled | {values} |\n"
Markdown(table)

# %% [markdown]
# **CIFAR-10**, Liu, Gong, Liu 2023, table 1(a), FID (lower is better); all rows have the network of DDPM++:
#
# | published, FID | one step | one step, distilled | RK45, calls |
# | --- | ---: | ---: | ---: |
# | 1-rectified flow | 378 | 6.18 | 2.58, 127 |
# | 2-rectified flow | 12.21 | **4.85** | 3.36, 110 |
# | 3-rectified flow | 8.15 | 5.21 | 3.96, 104 |
# | VP, by its ODE | 451 | 16.23 | 3.93, 140 |
# | sub-VP, by its ODE | 451 | 14.32 | 3.16, 146 |
#
# How to read both:
#
# - **The same shape.** One step of the first flow is a blurred mean. One reflow mends most of that, and the second adds much less.
# - **Each reflow costs quality at many steps.** In the paper 2.58, 3.36, 3.96; it learns from samples of a flow with errors, and its own are added. Ours on the digits, in 32 steps, are at 6.4, 6.6 and 6.8: in the same order, but less apart than two draws of one model are (0.6, chapter 07), so that they prove nothing. MNIST was run up to 8 steps only, where $k = 1$ is not yet ahead; its third round is worse than its second from two steps on. With calls to spare, take $k = 1$.
# - **What can't be compared**: FID is not our feature distance, and CIFAR-10's colour photographs are not digits. The paper's reflow used four million pairs and 300,000 steps (appendix A); ours at most ten thousand pairs of images and at most 2,500 steps.

# %% [markdown]
# ## What to take away
#
# - Any two sets of samples: lines between random pairs, and the mean velocity where they meet. The loss is three lines.
# - The laws are kept, because the mean velocity fulfils the same continuity equation. It is not the lines that matter, it is the mean.
# - No convex cost rises, by Jensen twice. What the squared length loses is bend plus disagreement, exactly: $C_{k-1} - C_k = S_k + V_k$. So some round is straight up to $C_0 / K$.
# - On a line: monotone. In the plane: straight is not optimal, since a whirl is never noticed.
# - One step is exact where the flow is straight. The first flow's one step is the mean of the data; reflow first, distill last.
#
# **What does not work well.** Reflow never sees the data again, only what a flow has made; its errors pile up. It costs as many samples as it trains on. Each round is a training. And $k = 2$ is straight only as far as its network learned it.
#
# **What came after.**
#
# - *One step from text*: InstaFlow, reflow and distillation of Stable Diffusion (Liu et al. 2024, [arXiv:2309.06380](https://arxiv.org/abs/2309.06380)).
# - *One reflow is enough, with better times and losses*: Lee, Lin, Fanti 2024, [arXiv:2405.20320](https://arxiv.org/abs/2405.20320).
# - *The pairs matter more than the lines*: Rectified Diffusion (Wang et al. 2024, [arXiv:2410.07303](https://arxiv.org/abs/2410.07303)).
# - *Mean velocities between any two times, from scratch*: MeanFlow (Geng et al. 2025, [arXiv:2505.13447](https://arxiv.org/abs/2505.13447)).
#
# **Next, chapter 14:** a rectified flow at scale, trained once, with no reflow at all. [Stable Diffusion 3](14_sd3.ipynb) changes the *times* it trains at, and the network.

# %% [markdown]
# [← 12b · ControlNet](12b_controlnet.ipynb) | [Contents](../README.md#chapters) | [14 · Stable Diffusion 3 →](14_sd3.ipynb)
