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
# [← 10 · EDM](10_edm.ipynb) | [Contents](../README.md#chapters) | [12 · Latent diffusion →](12_latent_diffusion.ipynb)

# %% [markdown]
# # 11 · Guidance
#
# **Ask for a 7 and get a 7: bend the way from noise to data with a classifier, or with a network that has learned with and
# without labels. And know what such samples are draws of, and what not.**
#
# | | |
# | --- | --- |
# | You need | Bayes' rule; chapter 08, sections 3 and 4: the way back and its score; chapter 09: velocities; chapter 10: the noise level $\sigma$, EDM's sampler |
# | Time | 45 minutes to read, an hour and a half with the exercises |
# | The short way | 30 minutes: sections 1, 2, 5 and 6, and *What to take away*; leave out all that is called a check |
# | You will meet | classifier guidance, classifier-free guidance, dropped labels, the guidance scale and its two conventions, the implicit classifier, tilted densities, fidelity and diversity, guidance intervals, negative conditions |
# | Papers | Dhariwal and Nichol 2021, [classifier guidance](https://arxiv.org/abs/2105.05233); Ho and Salimans 2022, [classifier-free guidance](https://arxiv.org/abs/2207.12598); Kynkäänniemi et al. 2024, [guidance in an interval](https://arxiv.org/abs/2404.07724); Bradley and Nakkiran 2024, [what guidance is](https://arxiv.org/abs/2408.09000) |
# | Source article | the one on generation under conditions, "afterwards" (事后修改) and "beforehand" (事前训练) (in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter), then move over the table. The network is `edm_digits_classes`, chapter 10's EDM, trained
# with the labels of nine digits in ten. Down runs the class that is asked for, to the right the **scale** of guidance, $w$. All cells start
# from the same eight noises.

# %%
import torch

from course_lib.data import jitter, load_digits, to_unit
from course_lib.diffusion import ClassifierFreeGuidance, dpm_solver_sample, heun_sample, last
from course_lib.notebook import one_thread, seeded
from course_lib.training import checkpoint_folder, fit, load_card, load_pretrained
from course_lib.training.quality import conditional_quality
from course_lib.widgets import GuidedPlane, OperatingPoint, SampleTable

one_thread()  # models this small are slower on two

# %%
digits = load_pretrained("edm_digits_classes")
scales = [0.0, 1.0, 2.0, 4.0, 8.0]
z8 = digits.path.t_max * torch.randn(8, 1, 8, 8, generator=seeded(0))
asked = torch.arange(10).repeat_interleave(8)  # each class for each of the eight noises


def ask(model, y, z, clip=None):
    """Samples of labels y [n] from noise z [n, 1, 8, 8], in 15 steps of DPM-Solver++."""
    return last(dpm_solver_sample(model, z.shape, steps=15, y=y, z=z, clip=clip))


by_scale = [ask(ClassifierFreeGuidance(digits, w), asked, z8.repeat(10, 1, 1, 1)) for w in scales]
SampleTable(
    to_unit(torch.stack(by_scale).clamp(-1, 1)).reshape(5, 10, 8, 8, 8).transpose(0, 1),
    rows=("class", list(range(10))),
    columns=("w", [0, 1, 2, 4, 8]),
    title="A class, and how much of it",
    alt="A table of ten classes by five scales of guidance, and eight digits for the chosen cell: any "
    "digits at scale 0, the class that was asked for from scale 1 on, more alike the larger the scale.",
)

# %%
from IPython.display import Markdown

judge = load_pretrained("classifier_digits")  # of clean images; it has no part in the sampling


def apart(images):
    """Mean distance of two images of one class, [classes, n, 1, H, W]: root mean square of pixels."""
    n = images.shape[1]
    gaps = (images[:, :, None] - images[:, None]).flatten(3).square().mean(3).sqrt()
    return gaps.sum((1, 2)).mean().item() / (n * (n - 1))


table = "| scale w | taken for the class asked for | mean distance of two digits of a class |\n"
table += "| ---: | ---: | ---: |\n"
for w, samples in zip(scales, by_scale):
    clean = to_unit(samples.clamp(-1, 1))
    right = (judge(clean).argmax(1) == asked).double().mean().item()
    table += f"| {w:g} | {right:.0%} | {apart(clean.unflatten(0, (10, 8))):.2f} |\n"
Markdown(table)

# %% [markdown]
# Three things to notice:
#
# - **At 0 nobody listens.** In the column $w = 0$ all rows show the same digits: the label is left out.
# - **At 1 the label is obeyed**, as well as the network has learned to. That is the conditional model of chapter 06, no more.
# - **Beyond 1 the digits of a class grow alike.** You get 7s that are surer to be 7s, and less varied: their distance falls.
#
# What does a number above 1 *mean*? That is the question of this chapter.

# %% [markdown]
# ## The idea
#
# A sampler needs the score, and nothing else (chapter 08). So a sampler of one class needs the score of
# $p_t(x \mid y)$, the density of noised images of the class $y$. By Bayes' rule
# $p_t(x \mid y) = p_t(x)\, p_t(y \mid x) / p(y)$. Take the logarithm, then the gradient by $x$; the last factor doesn't depend on $x$ and is gone:
#
# $$\nabla \log p_t(x \mid y) = \nabla \log p_t(x) + \nabla \log p_t(y \mid x).$$
#
# A model that was never told of classes, plus the gradient of a *classifier* of noised images: together they are a model of each class. And
# whoever has both may exaggerate. **Guidance** multiplies the classifier's part by a number,
#
# $$\nabla \log p_t(x) + w\, \nabla \log p_t(y \mid x) .$$
#
# The source article sorts what can be done into two ways. **Afterwards**: leave a trained diffusion model as it is and train a classifier beside it
# (section 3). **Beforehand**: let the diffusion model itself learn with labels *and* without; then it knows both densities, and their
# quotient is a classifier (sections 1, 2 and 4). The first way is for the poor, says the article, and the second for the rich:
# few can afford to train a large diffusion model anew, and many can train a classifier. (Section 8 counts.)
#
# | symbol | meaning |
# | --- | --- |
# | $t$; $s < t$ | time, from the data to the noise; an earlier time |
# | $x_0$, $x_t$; $\varepsilon$ | data, the state at time $t$; the noise in it, standard normal |
# | $a$, $b$; $\sigma = b / a$ | the path, $x_t = a x_0 + b \varepsilon$; the noise level; for EDM $a = 1$ and $\sigma = t$ |
# | $y$; $\varnothing$ | a label; the null class, a label that says nothing |
# | $p_t(x)$, $p_t(x \mid y)$; $p_t(y \mid x)$ | densities of $x_t$, of all data and of a class; how likely the class is, seen from $x_t$ |
# | $p$, $p(y \mid x_0)$ | the same of the data themselves, without noise |
# | $w$ | the scale of guidance: 0 leaves the label out, 1 is the conditional model |
# | $\varepsilon_\theta(x_t)$, $\varepsilon_\theta(x_t, y)$; $\varepsilon_w$ | the network's guess of the noise without and with the label, weights $\theta$; the guided one |
# | $r$; $L$ | the share of labels that are dropped; a loss |
# | $\mu$, $h$ | mean and variance of one step back, $h = g^2 \Delta t$ |
# | $f$, $g$; $\Delta t$ | drift and diffusion of the path's SDE; the length of a step |
# | $G$ | the gradient of $\log p_s(y \mid x)$ |
# | $q$; $q_t$ | the tilted density, $p(x_0)\, p(y \mid x_0)^w$ divided by its integral; the same after noising |
# | $v$, $V$ | variances of the data with the label, and of all data, in section 5 |
# | $\mathbb E$; $\mathcal N$, $I$; $O$ | mean; normal density, the unit matrix; of the order of |

# %% [markdown]
# ## 1. One line
#
# Suppose that one network can be asked both ways: with the label, or with the null class $\varnothing$ in its place. By Bayes' rule, read backwards,
# the difference of its two scores *is* the gradient of a classifier. Put it in, with $\nabla \log p_t = -\varepsilon_\theta / b$:
#
# $$\boxed{\; \varepsilon_w = \varepsilon_\theta(x_t) + w\, \big( \varepsilon_\theta(x_t, y) - \varepsilon_\theta(x_t) \big) \;}$$
#
# That is **classifier-free guidance**, all of it. From what the network says without the label, go towards what it says with it, and with
# $w > 1$ past it, on the same straight line.
#
# *Must it be the noise that is mixed?* No. The guesses of $x_0$, of the velocity, of the score are each a number times $x_t$ plus a number times
# $\varepsilon_\theta$, and both numbers are the same with the label and without. The two weights, $1 - w$ and $w$, add up to 1. So $x_t$ keeps its
# number, and whatever the network predicts may be mixed in its place.
#
# *Must it be called twice?* No. Both questions go into one batch, twice as large: `[x, x]` with the labels `[∅, y]`.

# %%
import math

from matplotlib.figure import Figure

from course_lib.data import toy
from course_lib.diffusion import (
    EDM,
    ClassifierGuidance,
    Denoiser,
    EDMPath,
    IdealDenoiser,
    NoisedClassifier,
    VPPath,
    class_gradient,
    drop_labels,
    euler_maruyama,
    guide,
    ode_sample,
    predict_score,
    reverse_sde_step,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.experiments import (
    NestedGaussians,
    guided_mean,
    guided_precision,
    noised_tilted_score,
    ode_variance,
    sde_variance,
    tilted_moments,
    tilted_precision,
    tilted_variance,
)
from course_lib.nn import TimeMLP
from course_lib.notebook import jacobians
from course_lib.widgets import PALETTE, image_grid, show_figure

show_source(guide)

# %% [markdown]
# A guided model is a `Denoiser` like any other. So every sampler of chapters 06 to 10 takes it, without a word about guidance in any of them.
#
# **Check** on data for which all is known: three clouds in the plane, two of class 0, one of class 1. The ideal denoiser with labels knows
# both answers in closed form, and automatic differentiation knows the score.

# %%
clouds = torch.tensor([[-1.0, 0.0], [0.0, 1.2], [1.0, -0.4]], dtype=torch.float64)
of_class = torch.tensor([0, 0, 1])
path, width = VPPath(), 0.5
ideal = Denoiser(IdealDenoiser(clouds, path, std=width, labels=of_class), path).double()
x = 1.5 * torch.randn(200, 2, generator=seeded(1), dtype=torch.float64)
y, t = torch.ones(200, dtype=torch.int64), 0.3
a, b = path.points([t])[1]


def log_densities(x):
    """log p_t(x) and log p_t(x | y = 1), up to a constant each."""
    each = -(x[:, None] - a * clouds).square().sum(2) / (2 * (a**2 * width**2 + b**2))
    return each.logsumexp(1), each[:, 2]


leaf = x.clone().requires_grad_()
scores = {}
for w in (0.0, 1.0, 3.0):
    null, label = log_densities(leaf)
    (scores[w],) = torch.autograd.grad(((1 - w) * null + w * label).sum(), leaf)
    guided = ClassifierFreeGuidance(ideal, w).predict(x, t, target="score", y=y)
    off = (guided - scores[w]).abs().max().item()
    print(
        f"w = {w:g}: the guided score is that of log p(x) + w log p(y | x), within 1e-6: {off < 1e-6}"
    )
eps = ClassifierFreeGuidance(ideal, 3.0).predict(x, t, y=y)
twice = guide(ideal.predict(x, t), ideal.predict(x, t, y=y), 3.0)
print("one call of both is two calls:", torch.allclose(eps, twice, rtol=0, atol=1e-12))

# %% [markdown]
# **Two conventions.** Papers and programs differ by one. Ho and Salimans write $(1 + w)\, \varepsilon_\theta(x_t, y) - w\, \varepsilon_\theta(x_t)$ and so count from
# the *conditional* model. Imagen, and `guidance_scale` of the library diffusers, count from the *unconditional* one, as we do.
#
# | | no label | conditional | the label, exaggerated |
# | --- | --- | --- | --- |
# | here, Imagen, diffusers | $w = 0$ | $w = 1$ | $w > 1$ |
# | Ho and Salimans; Dhariwal and Nichol on a conditional model | $-1$ | $0$ | above $0$ |
#
# **Exercise 1: predict.** A paper that counts as Ho and Salimans do has its best images at $w = 0.5$. Somebody passes 0.5 to `ClassifierFreeGuidance`, as
# its scale. At which $w$ *of the paper* were the images drawn? Write a number. (`hint("11.predict_scale")` helps, as with every exercise; `solution(...)` shows what the library does;
# every `check` judges your function on fresh random inputs.)

# %%
prediction = ...

check("11.predict_scale", prediction)

# %% [markdown]
# **Exercise 2: two kinds of networks.** Somebody has two networks on the straight path, $x_t = (1 - t)\, x_0 + t\, \varepsilon$. The one without labels was trained by flow matching and says a velocity; the one with labels says $\varepsilon$. Guide the velocity, in the convention of Ho and Salimans, where each
# example has a scale and a time of its own. Two velocities could have been mixed without knowing the path (why?). What needs it here?


# %%
def guided_velocity(v_null, eps_label, x_t, t, w):
    """v_null, eps_label, x_t [B, *event], t and w [B], w as Ho and Salimans count: the velocity."""
    ...


check("11.guided_velocity", guided_velocity)

# %% [markdown]
# ## 2. Train it: labels that are sometimes hidden
#
# Where does a network come from that can be asked both ways? From one small change of the training: hide the label, now and then.

# %%
show_source(drop_labels)

# %% [markdown]
# *Why one network learns both.* A regression learns the mean of its target, given what it sees (chapter 06). The loss is now a sum of two
# regressions that share their weights $\theta$,
#
# $$L = (1 - r)\; \mathbb E\, \big\| \varepsilon_\theta(x_t, y) - \varepsilon \big\|^2
#   + r\; \mathbb E\, \big\| \varepsilon_\theta(x_t, \varnothing) - \varepsilon \big\|^2 .$$
#
# The first is least where $\varepsilon_\theta(x_t, y) = \mathbb E[\varepsilon \mid x_t, y]$, the second where
# $\varepsilon_\theta(x_t, \varnothing) = \mathbb E[\varepsilon \mid x_t]$: in the second term the label has no say any more, so that all classes are
# averaged. The share $r$ changes neither answer. It only says how much of the network's strength goes where. (EDM regresses on $x_0$ in place of $\varepsilon$; the argument is the same.) Ho and Salimans (table 1) find $r = 0.1$ and $0.2$ about equally good, and
# $0.5$ worse.
#
# **Train one**, on the pinwheel of chapters 08 and 09, whose five arms are the classes. Each point's label is a function of the place: its arm.


# %%
def arm(x):
    """Which of the pinwheel's five arms points x [N, 2] belong to: turn the twist back."""
    angle = torch.atan2(x[:, 1], x[:, 0]) - 0.3 * x.square().sum(1)
    return (angle / (2 * math.pi / 5)).round().long() % 5


points = toy("pinwheel", 10_000, generator=seeded(0))
torch.manual_seed(0)
net = TimeMLP(2, (96, 96, 96), n_classes=5, null_class=True, scale=1000.0)
live = EDM(net, sigma_data=1.0, drop=0.2)
history = fit(live, (points, arm(points)), steps=1000, batch_size=256, lr=3e-3, ema=0.99)
print("the loss fell below 0.60:", history.loss() < 0.60)

# %%
z2 = live.path.t_max * torch.randn(1500, 2, generator=seeded(1))
y = torch.arange(1500) % 5
by_w = {
    w: last(heun_sample(ClassifierFreeGuidance(live, w), z2.shape, steps=18, y=y, z=z2))
    for w in (0.0, 1.0, 2.0, 4.0)
}
table = "| scale w | on the arm asked for | radius, mean | its spread |\n| ---: | ---: | ---: | ---: |\n"
radius = points.norm(dim=1)
table += f"| data | | {radius.mean():.1f} | {radius.std():.2f} |\n"
for w, x in by_w.items():
    right, radius = (arm(x) == y).double().mean(), x.norm(dim=1)
    table += f"| {w:g} | {right:.0%} | {radius.mean():.1f} | {radius.std():.2f} |\n"
Markdown(table)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(8.4, 2.5))
for axes, (w, x) in zip(figure.subplots(1, 4), by_w.items()):
    for k, role in enumerate(("data", "model", "latent", "error", "noise")):
        axes.scatter(*x[y == k].T, s=1.5, color=PALETTE[role])
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=f"w = {w:g}", xlabel="x₁")
figure.axes[0].set_ylabel("x₂")
figure.tight_layout()
show_figure(
    figure,
    alt="Samples of the model just trained, coloured by the arm that was asked for: at scale 0 all "
    "colours everywhere, at 1 each arm in its colour, at 2 and 4 only the outer middle of each arm.",
)

# %% [markdown]
# At $w = 1$ each colour fills its arm, as wide as the data are. At 2 and 4 all points are on their arms, too. Yet they no longer look like the data: the spread of their radii falls to a fraction, and they
# have left the middle, where the arms meet. Keep this picture in mind. Section 5 will ask whether any density would look so.

# %% [markdown]
# ## 3. Afterwards: a classifier, and one step by Bayes' rule
#
# This is the article's first way, and Dhariwal and Nichol's. (Sohl-Dickstein et al. 2015 and Song et al. 2021, section 5, had it before; Dhariwal and Nichol gave it the scale.) We have a model *without* classes. Chapter 08 takes a short step back with it: $p(x_s \mid x_t)$ is Gaussian,
# with a mean $\mu$ and the variance $h = g^2 \Delta t$. What is the step if $y$ is known? By Bayes' rule
#
# $$p(x_s \mid x_t, y) = \frac{p(x_s \mid x_t)\; p_s(y \mid x_s)}{p_t(y \mid x_t)} .$$
#
# (It should say $p(y \mid x_s, x_t)$. But $x_t$ is $x_s$ with noise that knows nothing of $y$, so once $x_s$ is known it adds nothing.) The
# denominator does not depend on $x_s$. Let $G = \nabla \log p_s(y \mid x)$ at the place $\mu$, and take only the first order of Taylor's formula there,
# $\log p_s(y \mid x_s) \approx \log p_s(y \mid \mu) + (x_s - \mu) \cdot G$. In the exponent stands
#
# $$-\frac{\| x_s - \mu \|^2}{2h} + (x_s - \mu) \cdot G = -\frac{\| x_s - \mu - h\, G \|^2}{2h} + \text{a constant},$$
#
# by completing the square. So the step is Gaussian as before, with the same variance, and **its mean has moved by the variance times the gradient**:
#
# $$\mu + h\, \nabla \log p_s(y \mid x) \Big|_{x = \mu} .$$
#
# **How much is left out?** Most texts stop here. Let us see. Write $\tilde p(x)$ for the exact density, $\mathcal N(x; \mu, h I)\, p_s(y \mid x)$ over its integral. It vanishes far away, so that
# the integral of its gradient is 0. That gradient is $\tilde p$ times $-(x - \mu)/h + \nabla \log p_s(y \mid x)$. Hence
#
# $$\mathbb E[x_s \mid x_t, y] = \mu + h\; \mathbb E \big[ \nabla \log p_s(y \mid x_s) \,\big|\, x_t, y \big],$$
#
# **exactly**, if the step without $y$ was this Gaussian, however long it is. Taylor's formula puts the gradient at one place for its mean over all places where the step may end. Those are
# about $\sqrt h$ away to all sides, which cancels, and about $h$ to one side. So the gradient is wrong by $O(h)$ and the mean by $O(h^2)$. There are $1 / \Delta t$ steps; all their errors together are
# $O(\Delta t)$, and go to 0. (That a short step is Gaussian in the first place is right to the same order, chapter 08.)

# %%
show_source([guided_mean, tilted_moments])

# %% [markdown]
# **Check** on a line, two clouds with a class each. The classifier is exact, the step is chapter 08's. How far is Taylor's mean from the exact one, in units of the shift itself? And over $h^2$?

# %%
two = Denoiser(
    IdealDenoiser(torch.tensor([[-1.5], [1.0]]), path, std=0.25, labels=torch.tensor([0, 1])), path
).double()
x_t, t, one = torch.tensor([[-0.3]], dtype=torch.float64), 0.15, torch.tensor([1])


def log_class(x, s):
    """log p_s(y = 1 | x) of places x [N] on the line."""
    times = torch.full((len(x),), s, dtype=torch.float64)
    return two.net.logits(x[:, None], times).log_softmax(1)[:, 1]


at = torch.tensor(t, dtype=torch.float64)
f, g = path.drift(at).item(), path.diffusion(at).item()
table = "| Δt | share of the shift that Taylor misses | error of the mean over h² |\n| ---: | ---: | ---: |\n"
for dt in (0.03, 0.01, 0.003, 0.001, 0.0003):
    s, h = t - dt, g**2 * dt
    mean = reverse_sde_step(x_t, predict_score(two, x_t, t), f=f, g=g, dt=dt)
    times = torch.tensor([s], dtype=torch.float64)
    gradient = class_gradient(two.net.logits, mean, times, one)
    taylor = guided_mean(mean, h, gradient).item()
    exact, _ = tilted_moments(mean.item(), h, lambda x, s=s: log_class(x, s))
    table += f"| {dt} | {abs((taylor - exact) / (exact - mean.item())):.1%} | {abs(taylor - exact) / h**2:.2f} |\n"
Markdown(table)

# %% [markdown]
# The last column settles down, as it should: the error is in proportion to $h^2$. With long steps near the border of two classes, as here, Taylor misses more than the whole shift.
#
# **The score needs no Taylor.** At *one* time Bayes' rule is exact, and the idea's formula holds as it stands. From it everything else follows, with $\nabla$ for $\nabla \log p_t(y \mid x_t)$:
#
# | what is guided | gets |
# | --- | --- |
# | the score | $+\, w\, \nabla$ |
# | the guess of the noise, and with it DDIM | $-\, w\, b\, \nabla$ |
# | the guess of $x_0$ | $+\, w\, \frac{b^2}{a}\, \nabla$ |
# | a step of the reverse SDE, $g^2 \Delta t$ times the score | $+\, w\, g^2 \Delta t\, \nabla$: the variance times the gradient, once more |
# | a step of the ODE | half of that |

# %%
show_source([class_gradient, ClassifierGuidance.rate])

# %%
by_classifier = ClassifierGuidance(ideal, ideal.net.logits, 3.0)
x = 1.5 * torch.randn(200, 2, generator=seeded(1), dtype=torch.float64)
y = torch.ones(200, dtype=torch.int64)
eps = by_classifier.predict(x, 0.3, y=y)
print(
    "with a perfect classifier both ways agree, within 1e-6:",
    (eps - ClassifierFreeGuidance(ideal, 3.0).predict(x, 0.3, y=y)).abs().max().item() < 1e-6,
)
times, step = torch.full((200,), 0.3, dtype=torch.float64), 1e-5
gradient = class_gradient(ideal.net.logits, x, times, y)
towards = torch.tensor([1.0, 0.0], dtype=torch.float64)
up, down = (
    ideal.net.logits(x + move * towards, times).log_softmax(1)[:, 1] for move in (step, -step)
)
off = ((up - down) / (2 * step) - gradient[:, 0]).abs().max().item()
print("the gradient is that of finite differences, within 1e-6:", off < 1e-6)

# %% [markdown]
# **Exercise 3: the guess moves.** Derive the third row, for a classifier that sees $x_t$ at one size, $x_t / \sqrt{a^2 + b^2}$, and whose gradient is by *what it sees*. Begin with $x_t = a x_0 + b \varepsilon$, where $x_t$ stays. At which noise
# levels does the same gradient move the guess farthest?


# %%
def guided_guess(x_0, gradient, a, b, scale):
    """x_0 and gradient [B, *event]; a, b and scale numbers: the guided guess of x_0."""
    ...


check("11.guided_guess", guided_guess)

# %% [markdown]
# **Which classifier?** The formula asks for $p_t(y \mid x_t)$: the class of *noised* images, at every noise level. So noise the training images as the path does, and tell the network the time:

# %%
show_source(NoisedClassifier.loss)

# %% [markdown]
# Wouldn't a classifier of clean images do, which one often has already? Ask both, `classifier_noised_digits` and `classifier_digits`, which class noised test digits have, and then let both guide `edm_digits`, which knows no classes:

# %%
noised = load_pretrained("classifier_noised_digits")
unconditional = load_pretrained("edm_digits")
images, labels = load_digits("test")
images = 2 * images - 1


def clean_classifier(x_t, t):
    """The classifier of clean images in place of a noised one: on EDM's path x_t is x_0 + t eps."""
    return judge(to_unit(x_t))


sigmas = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])
rates = {"of noised images": [], "of clean images": []}
sure = {name: [] for name in rates}
for sigma in sigmas:
    eps = torch.randn(images.shape, generator=seeded(3))
    for name, classifier in zip(rates, (noised, clean_classifier)):
        with torch.no_grad():
            shares = classifier(images + sigma * eps, sigma.expand(len(images))).softmax(1)
        rates[name].append((shares.argmax(1) == labels).double().mean().item())
        sure[name].append(shares.max(1).values.mean().item())

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(6.4, 3))
axes = figure.subplots()
for name, role in (("of noised images", "model"), ("of clean images", "error")):
    axes.semilogx(sigmas, rates[name], "o-", ms=4, color=PALETTE[role], label=f"{name}: right")
    axes.semilogx(
        sigmas, sure[name], "o--", ms=3, color=PALETTE[role], label=f"{name}: how sure it is"
    )
axes.set(
    title="Two classifiers of noised digits", xlabel="noise level σ", ylabel="share", ylim=(0, 1.05)
)
axes.set_xticks([0.1, 0.4, 1.6, 6.4], [0.1, 0.4, 1.6, 6.4])
axes.minorticks_off()
axes.legend(frameon=False, fontsize=7)
figure.tight_layout()
show_figure(
    figure,
    alt="Over the noise level: the share of test digits that two classifiers get right, and how sure "
    "they are. The classifier of clean images gets fewer right and stays sure.",
)

# %%
z100 = 80 * torch.randn(100, 1, 8, 8, generator=seeded(4))
tens = torch.arange(100) % 10
rows = {"no guidance": unconditional}
for w in (1.0, 4.0):
    rows[f"noised, w = {w:g}"] = ClassifierGuidance(unconditional, noised, w)
    rows[f"clean, w = {w:g}"] = ClassifierGuidance(unconditional, clean_classifier, w)
strips, table = (
    [],
    "| classifier | noised classifier agrees | clean classifier agrees |\n| --- | ---: | ---: |\n",
)
for name, model in rows.items():
    samples = ask(model, None if model is unconditional else tens, z100)
    strips.append(samples[:10])
    with torch.no_grad():
        low = noised(samples, 0.05).argmax(1) == tens
        high = judge(to_unit(samples.clamp(-1, 1))).argmax(1) == tens
    table += f"| {name} | {low.double().mean():.0%} | {high.double().mean():.0%} |\n"
show_figure(
    image_grid(to_unit(torch.cat(strips).clamp(-1, 1)), columns=10, size=0.6),
    alt="Five rows of ten digits: without guidance; guided by the noised and by the clean classifier at "
    "scale 1, then at scale 4.",
)

# %%
Markdown(table)

# %% [markdown]
# From the top: no guidance; at scale 1 the noised classifier's digits and the clean one's; at scale 4 the same. **Look at the last row before you believe its number.** Its pictures are noise, and the classifier of clean images is content with nearly all of them: they were made to please it. A gradient finds the pixels to which a classifier
# answers, whether a digit is there or not; such pictures are called *adversarial*. At much noise this classifier is surer than it is right (the figure), so that it leads astray when everything is still to be decided. (In its two rows the last column has a
# classifier judge its own work; in the rows of the noised one, the two columns have changed roles.) The noised classifier's row at scale 4 has digits, of the class asked for. At scale 1, which ought to be the conditional density, it reaches about three in four: both networks have errors, and so
# one asks for more.
#
# **Scale above 1.** Dhariwal and Nichol found that they needed it: their unconditional model of ImageNet at 256² has an FID of 26.21 without guidance, 33.03 at scale 1, and 12.00 at scale
# 10 (table 4). They explain it as a surer classifier: $w\, \nabla \log p_t(y \mid x)$ is the gradient of $\log p_t(y \mid x)^w$. One must be careful with that word. A classifier that is sharpened, with
# shares $p_t(y \mid x)^w / Z(x)$ that add up to 1 over the classes, has a $Z$ that depends on $x$, and another gradient. What has the gradient above is a *density of* $x$,
#
# $$p_t(x)\; p_t(y \mid x)^w \quad \text{over its integral,}$$
#
# and $w$ shifts it to places where the class is certain. That is right at each single time. Section 5 asks what comes of it along the way.

# %% [markdown]
# ## 4. Beforehand: the classifier inside
#
# The second way needs no classifier, because it has one. Solve the idea's formula for the last term:
#
# $$\nabla \log p_t(y \mid x_t) = \nabla \log p_t(x_t \mid y) - \nabla \log p_t(x_t)
#   = -\frac{1}{b} \big( \varepsilon_\theta(x_t, y) - \varepsilon_\theta(x_t) \big).$$
#
# This is the gradient of the **implicit classifier**, $p_t(x \mid y)\, p(y) / p_t(x)$. Classifier-free guidance is classifier guidance with it, to the letter.
#
# **Exercise 4: the classifier inside a flow.** A flow-matching model on the straight path, $x_t = (1 - t)\, x_0 + t\, \varepsilon$, says velocities, guesses of $\varepsilon - x_0$. Derive the gradient of its
# implicit classifier. Guidance needed no path; why does this?


# %%
def implicit_classifier(v_null, v_label, t):
    """v_null and v_label [B, *event], t [B]: the gradient of log p(y | x_t), like v_null."""
    ...


check("11.implicit_classifier", implicit_classifier)

# %% [markdown]
# *A warning of Ho and Salimans.* All this holds for exact scores. Two outputs of a network need not be the gradient of anything: a gradient's Jacobian is a matrix of second derivatives, and so symmetric. Look at
# that of the network trained above, and at that of the ideal denoiser:

# %%
for name, model, dtype in (("ideal", ideal, torch.float64), ("trained", live, torch.float32)):
    where = torch.randn(50, 2, generator=seeded(6), dtype=dtype)

    def gradient(x, model=model):
        """The implicit classifier's gradient, towards class 1, where b is 0.5."""
        t = 0.5 if model is live else 0.165
        y = torch.ones(len(x), dtype=torch.int64)
        return -(model.predict(x, t, y=y) - model.predict(x, t)) / 0.5

    J = jacobians(gradient, where)
    skew = ((J - J.mT).norm() / (J + J.mT).norm()).item()
    print(f"{name}: skew part over symmetric part above 0.01: {skew > 0.01}")

# %% [markdown]
# So what the trained network follows is not the gradient of any classifier, nor of anything. That has a good side, says the paper: a sampler that climbs a classifier's gradient may find pictures that fool
# it, as in the last section. Here nobody is there to be fooled.

# %% [markdown]
# ## 5. What guidance is not
#
# It is often said that guided samples are draws of the **tilted** density
#
# $$q(x_0) = \frac{p(x_0)\, p(y \mid x_0)^w}{\int p\, p(y \mid \cdot)^w} .$$
#
# At the data, where $t = 0$, the guided score is its score, as the last sections showed. But a sampler that shall *end* in $q$ must follow the score of $q$ **noised**, of $q_t$, at every time on its way. That is another function.
# Since $p(x_0)\, \mathcal N(x; a x_0, b^2 I) = p_t(x)\, p(x_0 \mid x_t = x)$ by Bayes' rule,
#
# $$q_t(x) \;\propto\; \int p(x_0)\, p(y \mid x_0)^w\, \mathcal N(x;\, a x_0, b^2 I)\; \mathrm d x_0
#   \;=\; p_t(x)\; \mathbb E \big[ p(y \mid x_0)^w \,\big|\, x_t = x \big] .$$
#
# And how likely is the class, seen from $x_t$? The noise knows nothing of $y$. So it is the mean over all $x_0$ that may be behind it, $p_t(y \mid x) = \mathbb E[p(y \mid x_0) \mid x_t = x]$. Compare:
#
# $$\nabla \log q_t = \nabla \log p_t + \nabla \log\, \mathbb E \big[ p(y \mid x_0)^w \,\big|\, x_t \big],
#   \qquad
#   \text{guidance:}\;\; \nabla \log p_t + \nabla \log \Big( \mathbb E \big[ p(y \mid x_0) \,\big|\, x_t \big] \Big)^{\!w} .$$
#
# **The power stands inside the mean, and guidance takes it outside.** For $w = 0$ and $w = 1$ that makes no difference, nor where $x_t$ shows what $x_0$ is: as $\sigma \to 0$ the two
# scores meet, to $O(\sigma^2)$, wherever $p(y \mid x_0)$ is smooth and above 0. Elsewhere it does, but for rare cases (one comes below).
#
# *The extreme case.* Let the label be a function of the data, as an arm is of the point, or as the class of nearly every digit is. Then $p(y \mid x_0)$ is 0 or 1, and $1^w = 1$: **the tilted density is the conditional one, for every**
# $w > 0$. A surer classifier explains nothing at all here. Yet in section 2 the points at $w = 4$ covered a fraction of their arms. Apart from the network's own errors, which are small at $w = 1$, all of that is the difference between inside and outside: seen through noise the label
# is *not* certain, and guidance moves $x_t$ to where it would be, away from the places that a neighbour could have come from. Chidambaram et al. 2024
# ([arXiv:2409.13074](https://arxiv.org/abs/2409.13074)) prove it of simple cases: the larger the scale, the more samples gather at the edge of what their class allows.
#
# **See the two fields**, on a line. Class A has clouds at $-1.2$ and $0.4$, class B one at $1.3$, and $w = 4$. By Tweedie's formula (chapter 08, section 5) the right score is $(\mathbb E_q[x_0 \mid x_t] - x_t) / \sigma^2$, with the mean over the tilted
# data, which a sum over a fine grid computes. Guidance is the straight line through its values at $w = 0$ and $w = 1$.

# %%
show_source(noised_tilted_score)

# %%
grid = torch.linspace(-6, 6, 6001, dtype=torch.float64)
each = -((grid[:, None] - torch.tensor([-1.2, 0.4, 1.3])) ** 2) / (2 * 0.35**2)
log_p, log_share = each.logsumexp(1), each[:, :2].logsumexp(1) - each.logsumexp(1)
places = torch.linspace(-3, 1.5, 91, dtype=torch.float64)
fields = {}
table = "| σ | σ times the difference, mean over the line | guided: 0 at x = | tilted: 0 at x = |\n"
table += "| ---: | ---: | ---: | ---: |\n"
for sigma in (0.02, 0.1, 0.3, 1.0, 3.0, 10.0):
    null, label, right = (
        noised_tilted_score(places, sigma, grid, log_p, log_share, w) for w in (0.0, 1.0, 4.0)
    )
    fields[sigma] = guide(null, label, 4.0), right
    gap = sigma * (fields[sigma][0] - right).abs().mean().item()
    rest = []  # the place where the field is 0, or how many there are
    for field in fields[sigma]:
        turns = (field[1:] * field[:-1] < 0).sum().item()
        rest.append(f"{places[field.abs().argmin()]:.1f}" if turns == 1 else f"{turns} places")
    table += f"| {sigma:g} | {gap:.4f} | {rest[0]} | {rest[1]} |\n"
Markdown(table)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(8.2, 2.5))
for axes, sigma in zip(figure.subplots(1, 3), (0.1, 1.0, 3.0)):
    for field, role, words in zip(
        fields[sigma], ("model", "data"), ("guided", "of the noised tilted density")
    ):
        axes.plot(places, sigma * field, color=PALETTE[role], label=words)
    axes.axhline(0, color="black", lw=0.5)
    axes.set(title=f"σ = {sigma:g}", xlabel="x")
figure.axes[0].set_ylabel("σ times the score")
figure.axes[0].legend(frameon=False, fontsize=7)
figure.tight_layout()
show_figure(
    figure,
    alt="Two curves over the line at three noise levels: nearly the same at 0.1; at 1 and 3 the guided "
    "field lies below the other and is 0 farther to the left.",
)

# %% [markdown]
# At little noise the two fields are one: their difference falls like $\sigma^2$, and in the table, times $\sigma$, about like $\sigma^3$. From $\sigma = 0.3$ on they part. Where all is noise each has a single place of rest: that of the right field stays between A's two clouds, and the guided one's lies far outside of both, away from B. So the
# inner cloud is given up before it can be seen.
#
# **How much is it?** Take Gaussians on a line: all data $\mathcal N(0, V)$, those of the class $\mathcal N(0, v)$, with $v < V$, on EDM's path. Products of Gaussians add precisions, noise adds
# to variances, and so
#
# $$\text{guided score: } -\Big( \frac{1 - w}{V + \sigma^2} + \frac{w}{v + \sigma^2} \Big)\, x,
#   \qquad
#   \nabla \log q_t = -\Big( \Big( \frac{1 - w}{V} + \frac w v \Big)^{-1} + \sigma^2 \Big)^{-1} x .$$
#
# The ODE is $\mathrm d x / \mathrm d \sigma = -\sigma$ times the score. With the guided one, $\log x$ falls from $\sigma$ to 0 by the integral of
# $\sigma$ times the bracket, $\frac{1 - w}{2} \log \frac{V + \sigma^2}{V} + \frac w2 \log \frac{v + \sigma^2}{v}$. Start at a very large $\sigma$ with the variance $\sigma^2$, and $\sigma$ drops out: the end has the variance $V^{1 - w}\, v^w$. The reverse SDE
# is different again; its variance obeys $\mathrm d \operatorname{Var} / \mathrm d \sigma^2 = 2\, (\dots) \operatorname{Var} - 1$, a linear equation with a closed solution. Side by side:
#
# $$\underbrace{\Big( \frac{1 - w}{V} + \frac w v \Big)^{-1}}_{\text{tilted}}, \qquad
#   \underbrace{V^{1 - w}\, v^w}_{\text{guided ODE}}, \qquad
#   \underbrace{\frac{V v - V^{2 - 2w}\, v^{2w}}{(2w - 1)\, (V - v)}}_{\text{guided SDE}} .$$
#
# A harmonic mean, a geometric mean, and neither: three laws, equal at $w = 0$ and $w = 1$ alone. (At $w = \frac12$ the third is 0/0; its limit is $V v \log(V / v) / (V - v)$. For $V = 2$, $v = 1$ they are Bradley and Nakkiran's.) The cell below uses VP's path: there $x_t / a$ obeys the same equations (chapter 10).

# %%
show_source([tilted_variance, guided_precision, tilted_precision, ode_variance, sde_variance])

# %%
narrow, wide = 1.0, 4.0
nested = Denoiser(NestedGaussians(narrow, wide, VPPath()), VPPath()).double()
start = torch.randn(5000, 1, generator=seeded(7), dtype=torch.float64)
label = torch.zeros(len(start), dtype=torch.int64)
table = "| w | tilted | guided ODE | measured | guided SDE | measured |\n"
table += "| ---: | ---: | ---: | ---: | ---: | ---: |\n"
for w in (0.0, 1.0, 1.5, 2.0, 3.0):
    guided = ClassifierFreeGuidance(nested, w)
    ode = last(ode_sample(guided, start.shape, steps=60, solver="heun", y=label, z=start))
    sde = last(
        euler_maruyama(guided, start.shape, steps=120, y=label, z=start, generator=seeded(8))
    )
    numbers = (
        tilted_variance(narrow, wide, w),
        ode_variance(narrow, wide, w),
        ode.var().item(),
        sde_variance(narrow, wide, w),
        sde.var().item(),
    )
    table += f"| {w:g} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |\n"
Markdown(table)

# %%
pushed, far = {}, EDMPath(0.01, 2000.0)
for half in (5.0, 10.0, 40.0):  # of the distance of two equal clouds with a standard deviation of 1
    centres = torch.tensor([[-half], [half]], dtype=torch.float64)
    net = IdealDenoiser(centres, far, std=1.0, labels=torch.tensor([0, 1]))
    guided = ClassifierFreeGuidance(Denoiser(net, far).double(), 4.0)
    z = far.start_std * torch.randn(2000, 1, generator=seeded(9), dtype=torch.float64)
    right_one = torch.ones(len(z), dtype=torch.int64)
    ends = last(heun_sample(guided, z.shape, steps=80, y=right_one, z=z))
    pushed[half] = ends.mean().item() - half
for half, beyond in pushed.items():
    print(f"two clouds {2 * half:.0f} apart, w = 4: the ODE ends {beyond:.1f} beyond the cloud's centre")

# %% [markdown]
# For $w > 1$ guided samples are narrower than the tilted density: at $w = 3$ the SDE's have two thirds of its variance, and those of the ODE, which adds no noise, a sixth.
#
# **Where does the difference go away?** At $w = 0$ and $1$, as seen, and near $w = 1$ it is $O(w - 1)$. At *every* $w$ where $\log p(y \mid x_0)$ is a straight line in $x_0$ and all data are Gaussian along it. Then, given $x_t$,
# $x_0$ is a Gaussian around a mean that is straight in $x_t$, and as wide everywhere; so the logarithm of the mean of $e^{w g x_0}$, with the line's slope $g$, has in $x_t$ $w$ times the slope that it has at $w = 1$: inside the mean or outside is the same. Gaussians of the *same* covariance with other means would be so, as a limit; a class of positive share cannot, since far out $p(y \mid x)$ would exceed 1. It does *not* go away as the classes move apart: the tilted density becomes the conditional one, as in the extreme case above,
# but where $\sigma$ is about the distance of the classes, guidance still pushes: at $w = 4$ two equal clouds end by more than one of their standard deviations farther out, however far apart they are (the three lines above).
#
# **Exercise 5: tilt a Gaussian.** All data are $\mathcal N(M, V)$, those of the class $\mathcal N(m, v)$. Which Gaussian is $p\, (p(x \mid y) / p)^w$? Where does its mean go as $w$ grows: does it stay between $M$ and $m$?


# %%
def tilted_gaussian(m, v, M, V, w):
    """Means m, M and variances v < V, all [B], and a number w: (mean, variance), [B] each."""
    ...


check("11.tilted_gaussian", tilted_gaussian)

# %% [markdown]
# **See all three fields.** Class A has two clouds, and one of them lies between the two clouds of class B. All scores are exact here. Press play, then move $w$; drag the place to see where the three scores lead. Beside it lie the ends of
# the particles on the tilted density.

# %%
means = torch.tensor([[-1.2, 0.0], [0.4, 0.0], [1.3, 0.9], [1.3, -0.9]])
plane = GuidedPlane(
    means,
    [0, 0, 1, 1],
    stds=0.35,
    w=4.0,
    title="Guided, and tilted",
    alt="Particles flow from noise to two clouds of a class, of which the one near the other class stays "
    "nearly empty; beside it the tilted density, which has both clouds.",
)
plane

# %%
side = torch.linspace(-3, 3, 121)
grid = torch.cartesian_prod(side, side)


def near(x):
    """Whether places [N, 2] belong to the cloud between those of the other class."""
    return (x - means[1]).norm(dim=1) < (x - means[0]).norm(dim=1)


table = "| w | guided: share in the inner cloud | tilted | guided: in the region of 95 % of the tilted |\n"
table += "| ---: | ---: | ---: | ---: |\n"
for w in (0.0, 1.0, 2.0, 4.0, 8.0):
    plane.w = w
    ends = torch.tensor(plane.ends, dtype=torch.float32)
    tilted = torch.tensor(plane.tilted(grid))
    of_tilted = (tilted[near(grid)].sum() / tilted.sum()).item()
    of_guided = near(ends).double().mean().item()
    table += f"| {w:g} | {of_guided:.0%} | {of_tilted:.0%} | {plane.inside:.0%} |\n"
plane.w = 4.0
seen = torch.softmax(-(torch.cdist(means[:2], means) ** 2) / (2 * (0.35**2 + 2.0**2)), dim=1)
seen = seen[:, :2].sum(1)  # p(A | x) at both of A's centres, through noise of σ = 2
table += f"\nSeen through noise of σ = 2, a point at the inner centre is A's with {seen[1]:.0%}, "
table += f"one at the outer centre with {seen[0]:.0%}."
Markdown(table)

# %% [markdown]
# (At $w = 0$ class B is there, too, and its clouds count as the inner one's side.) From $w = 1$ on the tilted density keeps nearly half of its mass in the inner cloud: its points are as surely of class A as the others, or almost. Guided particles leave it. At $w = 4$ the last column
# hardly shows it: nearly all of them are where the tilted density is, only in half of it. At large noise all that can be seen is on which side of the
# plane they are, and there the inner cloud lies near the border (the line above, at $\sigma = 2$), so guidance pushes towards the other one.
#
# **What is it, then?** Take the reverse SDE's step on EDM's path, $\mathrm d\sigma^2$ times the guided score and noise of variance $\mathrm d\sigma^2$, and split it. One part is a step of the *conditional* ODE, $\frac12 \mathrm d\sigma^2\, \nabla \log p_t(x \mid y)$. The rest is
# a Langevin step of size $\frac12 \mathrm d\sigma^2$ (chapter 08, section 8), whose score is twice what is left,
#
# $$2 \Big( (1 - w)\, \nabla \log p_t(x) + w\, \nabla \log p_t(x \mid y) \Big) - \nabla \log p_t(x \mid y)
#   = (2 - 2w)\, \nabla \log p_t(x) + (2w - 1)\, \nabla \log p_t(x \mid y) :$$
#
# guidance again, at the scale $2w - 1$. So a guided SDE is a **predictor** for the plain conditional density and a **corrector** that pulls, at each noise level, towards $p_t(x)\, p_t(y \mid x)^{2w - 1}$, and never gets the time to arrive (Bradley and Nakkiran 2024). It sharpens as it goes.
# That says how the samples come about. A density of theirs in closed form is not known.
#
# Is it a fault? It is *not what is often written*. People guide because the images are better, and section 6 measures what they pay.

# %% [markdown]
# ## 6. Fidelity against diversity
#
# Three numbers for each scale, of 1,000 samples, as many of each class:
#
# - **accuracy**: the share that a classifier, which had no part in the sampling, takes for the class asked for;
# - **feature distance** to the test images, as in chapter 06: it asks for the right digits *and* for the right variety;
# - **diversity**: the mean distance of two samples of one class, in the classifier's features, over that of two test digits of one class. So 1 is as varied as real digits.
#
# Drag along the curves. Each point is a scale, with samples from one noise.


# %%
stored = [
    name
    for name in ("edm_digits_classes", "edm_mnist")
    if (checkpoint_folder() / f"{name}.json").exists()
]
rows = load_card("edm_digits_classes")["metrics"].get("guidance", [])
ways = {
    "classifier-free": ("free", lambda w: ClassifierFreeGuidance(digits, w)),
    "a classifier": ("classifier", lambda w: ClassifierGuidance(digits, noised, w)),
}
sheet_y = torch.arange(16) % 10
sheet_z = 80 * torch.randn(16, 1, 8, 8, generator=seeded(9))
series, sheets, point_names = {}, {}, {}
for words, (way, model) in ways.items():
    found = [row for row in rows if row["way"] == way]
    if found:
        series[words] = [(row["diversity"], row["accuracy"]) for row in found]
        point_names[words] = [f"w = {row['scale']:g}" for row in found]
        sheets[words] = [
            to_unit(ask(model(row["scale"]), sheet_y, sheet_z).clamp(-1, 1)) for row in found
        ]
OperatingPoint(
    series,
    sheets,
    labels=point_names,
    x_label="diversity",
    y_label="accuracy",
    chosen=("classifier-free", 2),
    title="What is won, and what it costs",
    alt="Two curves of accuracy over diversity, each a row of scales; and sixteen digits of the chosen "
    "scale.",
) if series else None

# %% jupyter={"source_hidden": true}
table = ""
for name in stored:
    for way in ("free", "classifier"):
        rows = load_card(name)["metrics"].get("guidance", [])
        rows = [row for row in rows if row["way"] == way]
        words = "MNIST" if name == "edm_mnist" else "digits"
        if rows:
            kind = "classifier-free" if way == "free" else "by a classifier"
            table += (
                f"| {words}, {kind}: w | "
                + " | ".join(f"{row['scale']:g}" for row in rows)
                + " |\n"
            )
            table += "| --- |" + " ---: |" * len(rows) + "\n"
            table += "| accuracy | " + " | ".join(f"{row['accuracy']:.1%}" for row in rows) + " |\n"
            table += (
                "| feature distance | "
                + " | ".join(f"{row['distance']:.1f}" for row in rows)
                + " |\n"
            )
            table += (
                "| diversity | " + " | ".join(f"{row['diversity']:.2f}" for row in rows) + " |\n\n"
            )
real = load_card("classifier_digits")["metrics"]
FLOOR = "feature distance, 1,000 training images"
table += f"A thousand real training digits have a feature distance of {real[FLOOR]:.1f}, "
table += f"and one draw of them differs from another by {real[FLOOR + ', spread']:.1f}."
Markdown(table)

# %%
moved = jitter(to_unit(images), share=0.7, generator=seeded(12))  # as in training
spread = conditional_quality(moved, labels, "digits")["diversity"]
print(f"diversity of jittered test digits: {spread:.2f}")

# %% [markdown]
# On the digits of chapter 06, 8×8:
#
# - **Fidelity is bought fast.** At $w = 1$ the classifier takes 97 % of the digits for what they should be, and from 1.5 on all of them.
# - **Diversity pays at once**, and goes on paying when there is nothing left to buy. At $w = 1$ it is 1.15, more than test digits have; the network has learned from digits of which seven in ten were turned and moved a little, and test digits so treated have 1.13 (the line above). It passes 1 between 1.5 and 2.
# - **Feature distance wants both.** It is least between 1 and 1.5 (4.3 and 4.7 differ by no more than chance, and real digits are no nearer), and eight times as large at 8. At 0.5 it is worse than at 0 and at 1: half of a label asks for images between the class and all others.
# - **Both ways run along one curve.** Accuracy against diversity can hardly be told apart, which is what Ho and Salimans claim. What differs is where a scale puts you: by a classifier $w = 1$ has 69 %, and it takes $w = 3$ to
#   be about where the conditional model is without any guidance. There the classifier's samples are clearly farther from the data (6.9 against 4.3, where real digits have 4.2; its least is 5.2, at $w = 2$).
#
# On MNIST the null class is the weak part. Its network saw 4,000 batches of 64 images, a tenth of them without their label: without a label its images are at a distance of 109.3, with one at 16.5. At $w = 2$ the classifier takes 98.5 % for what they should be
# in place of 87.5 %, but the distance is 54.6 already. A classifier guides the model *without* labels, and up to $w = 8$ it gets no nearer than 42.2, with 94.9 %: guidance is no better than the two predictions that it is made of.

# %% [markdown]
# ## 7. Too much of it
#
# **Saturation.** Guidance goes past the conditional guess, and nothing tells it where images end. Count the pixels of the first table's samples that lie beyond $\pm 1.1$, and measure their contrast:

# %%
eights = z8.repeat(10, 1, 1, 1)
clipped = [ask(ClassifierFreeGuidance(digits, w), asked, eights, clip=1.0) for w in (1.0, 4.0, 8.0)]
table = "| scale w | pixels beyond 1.1, without clipping | root mean square | with clipping |\n"
table += "| ---: | ---: | ---: | ---: |\n"
for w, free, held in zip((1, 4, 8), (by_scale[k] for k in (1, 3, 4)), clipped):
    beyond = (free.abs() > 1.1).double().mean().item()
    sizes = [x.square().mean().sqrt().item() for x in (free, held)]
    table += f"| {w} | {beyond:.1%} | {sizes[0]:.2f} | {sizes[1]:.2f} |\n"
beyond = (images.abs() > 1.1).double().mean().item()
table += f"| test digits | {beyond:.1%} | {images.square().mean().sqrt():.2f} | |\n"
Markdown(table)

# %% [markdown]
# With `clip=1.0` the sampler cuts off each *guess of $x_0$* at the ends of the range, in every step, so that later steps can answer. Cutting off the finished sample alone, as one does anyway to show it, comes too late for that. On digits the harm is small, since most of their
# pixels are black or white in any case; photographs come out in glaring colours. In a latent space ([chapter 12](12_latent_diffusion.ipynb)) there is no range to cut at, and other means are needed: rescaling, or taking out the part of guidance along the guess itself (Sadat et al. 2024, below).
#
# **Exercise 6: break it on purpose.** Clip in the wrong place: at scale 0 and 1 all looks right, and at scale 8 the guess leaves $[-1, 1]$ and most pixels burn out. Say in one sentence why.


# %%
def bad_clip(x_null, x_label, scale):
    """Guesses of x_0 without and with the label, a number: the guided guess, clipped in vain."""
    ...


check("11.break_the_clip", bad_clip)

# %% [markdown]
# **Guide in an interval.** When does the label have a say at all? Measure how far it moves the guess of $x_0$, at each noise level, on test digits with their true labels:

# %%
levels = torch.logspace(-1.5, 1.7, 9)
say = []
for sigma in levels.tolist():
    x_t = images[:100] + sigma * torch.randn(100, 1, 8, 8, generator=seeded(10))
    with torch.no_grad():
        moved = digits.predict_x0(x_t, sigma, y=labels[:100]) - digits.predict_x0(x_t, sigma)
    say.append(moved.square().mean().sqrt().item())
print(f"at the least noise level {say[0] / say[-1]:.1%} of what it is at the largest")

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(5.2, 2.7))
axes = figure.subplots()
axes.semilogx(levels, say, "o-", ms=4, color=PALETTE["model"])
axes.set(
    title="How far a label moves the guess",
    xlabel="noise level σ",
    ylabel="root mean square",
    ylim=(0, None),
)
axes.set_xticks([0.03, 0.1, 0.3, 1, 3, 10, 30], [0.03, 0.1, 0.3, 1, 3, 10, 30])
axes.minorticks_off()
figure.tight_layout()
show_figure(
    figure,
    alt="The distance between the guesses with and without the label, over the noise level: almost "
    "nothing at little noise, rising to the right.",
)

# %% [markdown]
# At little noise the image shows what it is, and the label adds little. At much noise nothing but the label is known, and the guess is the mean image
# of the class: guidance pushes *all* samples the same way, $w$ times as far, before anything else about them is decided. In between it helps to choose.
#
# Kynkäänniemi et al. (2024) guide at $\sigma_{\text{low}} < \sigma \le \sigma_{\text{high}}$ alone, and take the plain conditional model elsewhere. The table below does so with the pinwheel's model; its
# numbers say how much of the spread of the radii is lost against $w = 1$.

# %%
show_source([ClassifierFreeGuidance.guides])

# %%
intervals = {
    "all σ": None,
    "σ > 1": (1.0, math.inf),
    "0.1 to 1": (0.1, 1.0),
    "σ ≤ 0.1": (0.0, 0.1),
}
z, y = z2[:300], torch.arange(300) % 5
cells = [
    [
        last(
            heun_sample(
                ClassifierFreeGuidance(live, w, interval=interval), z.shape, steps=18, y=y, z=z
            )
        )
        for w in (1.0, 2.0, 3.0, 4.0)
    ]
    for interval in intervals.values()
]
spreads = [[x.norm(dim=1).std().item() for x in row] for row in cells]
lost = [[abs(spread - spreads[0][0]) for spread in row] for row in spreads]
table = "| w = 4, guided at | spread of the radii |\n| --- | ---: |\n"
table += f"| nowhere (w = 1) | {spreads[0][0]:.2f} |\n"
for words, row in zip(intervals, spreads):
    table += f"| {words} | {row[3]:.2f} |\n"
SampleTable(
    torch.stack([torch.stack(row) for row in cells]),
    rows=("guided at", list(intervals)),
    columns=("w", [1, 2, 3, 4]),
    quality=lost,
    quality_label="spread that is lost",
    title="Guided everywhere, early, in the middle, late",
    alt="A table of four intervals of noise levels by four scales, and the pinwheel's samples for the "
    "chosen cell: guided at large noise, they shrink to short pieces of the arms.",
)

# %%
Markdown(table)

# %% jupyter={"source_hidden": true}
table = ""
for name in stored:
    rows = load_card(name)["metrics"].get("interval", [])
    words = "MNIST" if name == "edm_mnist" else "digits"
    if rows:
        table += f"| {words} | w | accuracy | feature distance | diversity |\n| --- | ---: | ---: | ---: | ---: |\n"
        for row in rows:
            table += f"| {row['low']:g} < σ ≤ {row['high']:g} | {row['scale']:g} | {row['accuracy']:.1%} "
            table += f"| {row['distance']:.1f} | {row['diversity']:.2f} |\n"
        table += "\n"
Markdown(table)

# %% [markdown]
# On the pinwheel most of the variety is lost at the highest levels: guidance at $\sigma > 1$ alone costs almost as much as guidance everywhere, in the middle far less, and below 0.1 it does nothing. So it is on the digits, where
# the highest levels raise the feature distance to 12.5 by themselves. The lowest do what we want: at $w = 4$ and $\sigma \le 0.3$ accuracy is 99.5 % in place of 97 %, and distance and diversity are nearly those of $w = 1$. On MNIST
# most of the harm is done at the top as well (110.5 of 157.7), and the lowest levels do little of either kind: 88.3 % in place of 87.5 %, at a distance of 15.9.
#
# On ImageNet at 512² the FID of Kynkäänniemi et al.'s largest model falls from 1.81 to 1.40, with guidance at 6 of 32 steps, $0.19 < \sigma \le 1.61$ (their table 1 and section 4.1). They find the lowest levels idle and the middle useful; ours are
# 8×8 digits, whose middle lies elsewhere. That the harm is done at the top is common to both.
#
# **Negative conditions.** What stands in the place of the null class is up to you. Put a label there, and samples go *away* from it. In text-to-image programs this is the negative prompt. Here the label asked for is the null class itself, and the
# negative is a digit: "any digit, but no 0".

# %%
show_source([ClassifierFreeGuidance.instead])

# %%
anything = torch.full((100,), digits.null_class)
z = 80 * torch.randn(100, 1, 8, 8, generator=seeded(11))
strips = []
for words, negative in (
    ("any digit", None),
    ("any digit, but no 0", 0),
    ("any digit, but no 1", 1),
):
    samples = ask(ClassifierFreeGuidance(digits, 2.0, negative=negative), anything, z)
    taken = judge(to_unit(samples.clamp(-1, 1))).argmax(1).bincount(minlength=10)
    print(f"{words}: of 100 samples {taken[0]} are taken for a 0 and {taken[1]} for a 1")
    strips.append(samples[:12])
show_figure(
    image_grid(to_unit(torch.cat(strips).clamp(-1, 1)), columns=12, size=0.6),
    alt="Three rows of twelve digits from the same noise: any digit, none that is a 0, none that is a 1.",
)

# %% [markdown]
# It works, and does more than was asked: without 0s there are twice as many 1s as before, and without 1s three times as many 0s. "No 0" is a direction, and it seems to lead to a 1. Again the result is not the plain
# density of all digits that are no 0.
#
# **Exercise 7: go to one, leave another.** Three predictions, without a label, with $y$, and with another label. Derive the guidance that approaches the one and leaves the other, each with a scale of its own. When does the null
# class drop out of it?


# %%
def away_from(eps_null, eps_label, eps_negative, scale, push):
    """Predictions [B, *event], two numbers: eps of p(x) p(label | x)^scale / p(negative | x)^push."""
    ...


check("11.away_from", away_from)

# %% [markdown]
# ## 8. For the poor and for the rich
#
# Which of the two ways, then? The source article's answer is a matter of means: whoever has a good diffusion model of somebody else's, and no cluster, trains a classifier. Whoever trains the diffusion model anyway hides some labels. Count what
# each needs here:

# %% jupyter={"source_hidden": true}
counts = {
    name: load_card(name)["parameters"]
    for name in ("edm_digits", "classifier_noised_digits", "edm_digits_classes")
}
table = "| | afterwards | beforehand |\n| --- | --- | --- |\n"
table += "| needs | a model without labels, any | a model trained with some labels hidden |\n"
table += f"| must be trained | a classifier of noised images, {counts['classifier_noised_digits']:,} weights "
table += f"| the model itself, {counts['edm_digits_classes']:,} weights |\n"
table += "| a step costs | the model, and the classifier forward and back | the model, twice the batch |\n"
table += "| a new condition | another classifier | training anew |\n"
table += "| what is followed | the gradient of a classifier, which can be fooled | no gradient of anything |\n"
Markdown(table)

# %% [markdown]
# Since then the rich have given their models away, with the labels hidden in training, and so the second way is the usual one. The first lives on where the condition is not known beforehand: any differentiable $\log p(y \mid x_0)$ can be tried, a
# text matcher, a blurred copy, half of an image, if one asks it of the *guess* of $x_0$ and takes the gradient through the network. (Asked of $x_t$ itself it leads astray, section 3. Of the guess it is an approximation, too, since a mean of images is no image: Chung et al. 2023, [arXiv:2209.14687](https://arxiv.org/abs/2209.14687).)
#
# ## How good is it?
#
# Published, on ImageNet. FID asks for both fidelity and variety. IS (inception score) does not look at real images at all: it asks how surely a classifier names each image and how evenly the names are spread, and sees no loss of variety *within* a class.
#
# | ImageNet | scale here | FID | IS | source |
# | --- | ---: | ---: | ---: | --- |
# | 256², unconditional | 0 | 26.21 | 39.70 | Dhariwal and Nichol 2021, table 4 |
# | with a classifier | 1 | 33.03 | 32.92 | the same |
# | with a classifier | 10 | 12.00 | 95.41 | the same |
# | 256², conditional (ADM) | 1 | 10.94 | 100.98 | the same |
# | and a classifier (ADM-G) | 1 + 1 | **4.59** | 186.70 | the same |
# | and a classifier | 1 + 10 | 9.11 | 283.92 | the same |
# | 64², conditional | 1 | 1.80 | 53.71 | Ho and Salimans 2022, table 1, $p_{\text{uncond}} = 0.1$ |
# | classifier-free, their $w = 0.1$ | 1.1 | **1.55** | 66.11 | the same |
# | their $w = 1$ | 2 | 12.6 | 170.1 | the same |
# | their $w = 4$ | 5 | 26.22 | **260.2** | the same |
#
# (Where Dhariwal and Nichol guide a model that is conditional already, their scale adds to the 1 of the model. The figures at 256² are of 2 million steps of training, those at 64² of 400,000.)

# %% [markdown]
# How to read it:
#
# - **A little is good for FID, much for IS.** Without a classifier Ho and Salimans have the best FID, 1.55, with hardly any guidance, and the best IS with the most, where FID is 26.22. FID asks for the variety of the data as well, and guidance
#   takes it away. Dhariwal and Nichol's table says so in another way: the *recall* of their three conditional rows, the share of real images that look like some sample, is 0.63, 0.52 and 0.32.
# - **Scale 1 is not enough with a classifier.** In theory it makes the conditional density of the unconditional one. In fact FID goes up, 26.21 to 33.03; our digits of section 3 missed their class about once in four.
# - **Conditional *and* guided** is best, with a classifier as well. A conditional model is a model with its classifier inside, as we know by now.
# - **Not to be compared with ours** are the values: photographs of a thousand classes, 50,000 samples, hundreds of steps, features of another network. Compare directions, and those agree: fidelity rises with the scale, diversity falls, and the distance that asks for both is least at little guidance (section 6).
#
# ## What to take away
#
# - By Bayes' rule a conditional score is an unconditional one plus the gradient of a classifier of noised images. At one time that is exact.
# - In a short step the mean moves by the variance times the gradient; what Taylor leaves out falls like the square of the variance.
# - A network that learned with hidden labels holds its classifier inside: $\varepsilon_w = \varepsilon_\theta(x_t) + w\,(\varepsilon_\theta(x_t, y) - \varepsilon_\theta(x_t))$, one call of twice the batch.
# - With $w > 1$ samples are *not* draws of $p\, p(y \mid x)^w$: the power belongs inside the mean over $x_0$, and guidance takes it outside. ODE and SDE end in different laws.
# - Guidance buys fidelity with diversity. Clip the guess, leave the highest noise levels unguided, and say which $w$ you mean.
#
# **What does not work well.** The scale must be chosen by eye or by a table. Large scales need clipping or its like. Every step costs twice. And the exact likelihood of chapter 09, taken of a guided flow, is that of another density than the data's.
#
# **What came after.**
#
# - *A worse version of itself in the place of the null class*, which separates better images from more typical ones: autoguidance (Karras et al. 2024, [arXiv:2406.02507](https://arxiv.org/abs/2406.02507)).
# - *Guide the guess, and renoise with the unconditional noise*: CFG++ (Chung et al. 2024, [arXiv:2406.08070](https://arxiv.org/abs/2406.08070)).
# - *Leave out the part of guidance along the guess*, which saturates: APG (Sadat et al. 2024, [arXiv:2410.02416](https://arxiv.org/abs/2410.02416)).
# - *When the difference of section 5 goes away*, in very many dimensions: Pavasovic et al. 2025, [arXiv:2502.07849](https://arxiv.org/abs/2502.07849).
# - *One call instead of two*: distil the guided model (Meng et al. 2023, [arXiv:2210.03142](https://arxiv.org/abs/2210.03142)).
#
# **Next:** from labels to text, and from pixels to the codes of an autoencoder: [latent diffusion, in chapter 12](12_latent_diffusion.ipynb).

# %% [markdown]
# [← 10 · EDM](10_edm.ipynb) | [Contents](../README.md#chapters) | [12 · Latent diffusion →](12_latent_diffusion.ipynb)
