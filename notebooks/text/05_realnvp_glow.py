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
# [← 04 · Normalizing flows and NICE](04_nice.ipynb) | [Contents](../README.md#chapters) | [06 · DDPM →](06_ddpm.ipynb)

# %% [markdown]
# # 05 · RealNVP and Glow
#
# **See five weaknesses of NICE, one after the other, and cure each: what is left in the end is a flow that
# writes images.**
#
# | | |
# | --- | --- |
# | You need | chapter 04: the change of variables, couplings, bits per dimension; convolutions |
# | Time | about 38 minutes to read, 80 with the exercises. **The short way, 25 minutes:** up to and including section 1, sections 3 and 4, *Train a Glow*, *A likelihood is no judge*, *What to take away*. One section may be skipped and says so |
# | You will meet | affine couplings, masks, squeeze, 1×1 convolutions, multi-scale flows, ActNorm, temperature |
# | Papers | Dinh, Sohl-Dickstein, Bengio 2017, [RealNVP](https://arxiv.org/abs/1605.08803); Kingma, Dhariwal 2018, [Glow](https://arxiv.org/abs/1807.03039) |
# | Source article | 精巧的 flow: RealNVP 与 Glow, "The ingenious flow: RealNVP and Glow" (in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter). A Glow trained on MNIST has written four digits, and knows the
# latent of each. Every point of the square is a mixture of the four latents, sent back to an image.
# Drag the point, or click the plane and use the arrow keys. Switch on the walk to see nine images between two points.

# %%
import torch

from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained, recipe
from course_lib.widgets import ImagePlayer, LatentPlane, ParticlePlayer, ScaleMixer, corner_shares

one_thread()  # models this small are slower on two

# %%
glow = load_pretrained("glow_mnist")
written = glow.sample(40, temperature=0.8, generator=seeded(0))
chosen = [9, 38, 31, 10]  # four that came out well
corners = glow(written[chosen])[0].detach()  # their latents [4, 1, 28, 28]


def decode(points):
    """The images [B, 1, 28, 28] of mixtures [B, 2] of the four corners."""
    shares = corner_shares(points)
    shares = shares / shares.norm(dim=1, keepdim=True)
    z = torch.einsum("bk,kchw->bchw", shares, corners)
    return glow.inverse(z)[0].clamp(0, 1)


LatentPlane(
    decode,
    extent=1.0,
    corners=written[chosen].clamp(0, 1),
    z=(-0.3, 0.2),
    title="Mix four digits",
    alt="A square with a handwritten digit at each corner. The image beside it changes from one "
    "digit to another as a point moves through the square.",
)

# %% [markdown]
# Three things to notice:
#
# - **It is a flow, so it forgets nothing.** At a corner the image *is* that digit, to the last pixel. No
#   encoder guessed its latent: it was computed, and computed back.
# - **The way between two digits is not a cross-fade.** Strokes bend, break and grow together. Halfway, many
#   images are no digit at all, and some are a third one.
# - **Mixing takes a factor.** A latent is a draw of independent standard Gaussians. With shares $w_k$ the sum
#   $\sum_k w_k z_k$ has variance $\sum_k w_k^2$, which is less than 1 inside the square; divided by
#   $\sqrt{\sum_k w_k^2}$ it is again standard Gaussian, as all the latents that the model was trained on.
#   (These four were drawn with a standard deviation of 0.8, a *temperature*, which comes near the end. The
#   factor works for any. RealNVP's paper mixes four images with cosines and sines, its equation 19, to the same end.)

# %% [markdown]
# ## The idea
#
# Chapter 04 ended with a list of what NICE cannot do. The two models of this chapter are the answers. The
# source article reads them so, and so do we: each part is the cure of a weakness, and you will see the
# weakness before the cure.
#
# | | weakness of what we have so far | cure | from |
# | --- | --- | --- | --- |
# | 1 | a coupling cannot change volume from place to place | affine coupling | RealNVP (NICE's paper names it and does without) |
# | 2 | its halves and its network know nothing of images | checkerboard, squeeze, channel masks, convolutions | RealNVP |
# | 3 | the same channels always meet | a learned 1×1 convolution | Glow |
# | 4 | every number passes all layers | multi-scale: half of them leave early | RealNVP; that they leave with a *learned* density, Glow's code |
# | 5 | batch normalisation makes an image's density depend on its company | ActNorm | Glow |
#
# | symbol | meaning |
# | --- | --- |
# | $x$, $z$ | an image (or a point), its latent, of the same shape |
# | $p$, $\mathcal N$; $I$ | a density, the normal one; the identity matrix |
# | $x_a$, $x_b$ | the part that a coupling keeps, the part that it moves |
# | $s$, $t$ | log-scale and shift: of a coupling, functions of $x_a$; in a 1×1 convolution and an ActNorm $s$ is learned numbers |
# | $r$, $s_{\max}$ | the network's answer for $s$, and the bound of its size |
# | $J$ | the Jacobian of one transform |
# | $W$; $P$, $L$, $R$, $U$ | the matrix of a 1×1 convolution; its factors: permutation, lower and upper triangular, and what of $R$ lies above its diagonal |
# | $C$; $i$, $j$ | the number of channels of a state; row and column of a pixel, or the number of a coordinate |
# | $h_1$, $h_2$; $\mu$, $\sigma$ | the half of the channels that goes on, the half that leaves; mean and standard deviation of the second given the first |
# | $\varepsilon$ | a latent that has left |
# | $b_c$, $s_c$ | bias and log-scale of channel number $c$ in an ActNorm |
# | $\alpha$, $y$ | how far a logit keeps its pixels from 0 and 1, and the pixel so moved |
# | $T$, $n$ | the temperature; the number of pixels |
#
# As before, **forward means from data to latent**, and $\log|\det|$ is in nats.

# %% [markdown]
# ## 1. Volume cannot change
#
# **See the weakness.** An additive coupling has determinant 1 everywhere; only the last layer of a NICE changes
# volume, by one factor for all points. Here is the density that our NICE of chapter 04 learned for the two
# moons, beside the exact one, on a logarithmic scale.

# %% jupyter={"source_hidden": true}
import math

from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.data import dequantize, load_digits, quantize, toy, toy_log_prob
from course_lib.exercises import check, hint, show_source, solution
from course_lib.experiments import far_latents, run_stack, runaway_log_scale
from course_lib.flows import (
    ActNorm,
    AffineCoupling,
    ChannelMask,
    CheckerboardMask,
    Flow,
    Glow,
    InvertibleConv1x1,
    Logit,
    RealNVP,
    Split,
    Squeeze,
    StandardLogistic,
)
from course_lib.metrics import bits_per_dim
from course_lib.widgets import PALETTE, colour_map, image_grid, show_figure

moons = {"NICE": load_pretrained("nice_two_moons"), "RealNVP": load_pretrained("realnvp_two_moons")}


def density_maps(*names):
    """The exact density of the two moons and those of models, side by side."""
    side = torch.linspace(-3, 3, 161)
    cells = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        maps = {"exact": toy_log_prob("two_moons", cells)}
        maps |= {name: moons[name].log_prob(cells) for name in names}
    figure = Figure(figsize=(2.6 * len(maps) + 1.2, 3.1))
    for axes, (title, log_prob) in zip(figure.subplots(1, len(maps)), maps.items()):
        image = (log_prob / math.log(10)).reshape(161, 161)
        picture = axes.imshow(image, origin="lower", extent=(-3, 3, -3, 3), vmin=-5, vmax=0)
        axes.set(title=title, xlabel="x₁", ylabel="x₂")
    figure.tight_layout()
    figure.colorbar(picture, ax=figure.axes, label="log₁₀ of the density")
    return figure


show_figure(
    density_maps("NICE"),
    alt="The exact density of two separate moons, and NICE's, with a bright bridge between them and a wide veil.",
)

# %% [markdown]
# There is a bridge between the moons, and a veil around them. The bridge is *as dense as the moons*: chapter 04
# showed that it must be, since the set of points above a level is the image of a disc, one piece.
#
# **The cure.** Let the half that stays say how the other half is *stretched* as well as shifted:
#
# $$z_a = x_a, \qquad z_b = x_b \odot e^{s(x_a)} + t(x_a).$$
#
# **Its inverse**: $x_a = z_a$ is known, hence $s$ and $t$ are, and $x_b = (z_b - t(z_a)) \odot e^{-s(z_a)}$. As in
# NICE, neither network is inverted.
#
# **Its Jacobian**, with rows and columns sorted into the two halves:
#
# $$J = \begin{pmatrix} I & 0 \\ \dfrac{\partial z_b}{\partial x_a} & \operatorname{diag}\!\left(e^{s(x_a)}\right) \end{pmatrix},
#   \qquad \log|\det J| = \sum_i s_i(x_a).$$
#
# The lower left block is complicated, since $x_a$ enters through $s$ and $t$, and again it never enters the
# determinant. What is new: the log-determinant is **another number at every point**. In the library:

# %%
show_source([AffineCoupling.forward, AffineCoupling.inverse])

# %% [markdown]
# **Check it** in double precision: the inverse, and the log-determinant against automatic differentiation.

# %%
from course_lib.notebook import jacobians  # of a function at every point, by autograd: [B, n, n]


def shake(module, seed):
    """Give every parameter a random value, so that no check passes on an identity."""
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=seeded(seed)).double()
    return module.double()


coupling = shake(AffineCoupling(8, [32], flip=False), 1)
x = torch.randn(20, 8, generator=seeded(2), dtype=torch.float64)
z, log_det = coupling(x)
exact = torch.linalg.slogdet(jacobians(lambda p: coupling(p)[0], x)).logabsdet
print(
    "inverse gives x back, within 1e-12:", (coupling.inverse(z)[0] - x).abs().max().item() < 1e-12
)
print("log_det is the Jacobian's, within 1e-12:", (log_det - exact).abs().max().item() < 1e-12)
print("it differs from point to point:", log_det.std().item() > 0.1)

# %% [markdown]
# ### Train it
#
# Two moons, in a few seconds. Every coupling starts as the identity, because the last layer of its network
# starts at zero.

# %%
fresh = toy("two_moons", 20_000, generator=seeded(1))
entropy = -toy_log_prob("two_moons", fresh).mean().item()
torch.manual_seed(0)
live = RealNVP(2, couplings=6, hidden=(32, 32))
history = fit(
    live, toy("two_moons", 10_000, generator=seeded(0)), steps=700, batch_size=256, lr=5e-3
)
print("within 0.25 nats of the entropy of the data:", live.loss(fresh).item() - entropy < 0.25)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(8, 3.1))
left, right_panel = figure.subplots(1, 2)
left.plot(*live.sample(2000, generator=seeded(1)).T, ".", ms=2, color=PALETTE["model"])
left.set(title="samples", xlabel="x₁", ylabel="x₂", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
right_panel.plot(history.losses, color=PALETTE["model"], linewidth=0.8)
right_panel.axhline(entropy, color=PALETTE["data"], label="entropy of the data")
right_panel.set(title="training", xlabel="step", ylabel="loss, nats")
right_panel.legend()
figure.tight_layout()
show_figure(
    figure,
    alt="Samples of the model trained just now form two moons; the loss falls to a little above the entropy.",
)

# %% [markdown]
# **See the cure.** The same moons under a stored RealNVP with as many couplings, networks and steps as the NICE.

# %%
show_figure(
    density_maps("NICE", "RealNVP"),
    alt="Three densities of the two moons: the exact one, NICE's with a bright bridge between the "
    "moons, and RealNVP's with a much fainter one.",
)

# %% [markdown]
# How faint is the bridge? Walk from one moon to the other along the image of a straight line between their
# latents, as in chapter 04, and compare the lowest density on the way with that at the fainter end.

# %%
ends = torch.tensor([[-1.0, 1.05], [0.0, -0.9]])
way = torch.linspace(0, 1, 400)[:, None]
deepest = {}
with torch.no_grad():
    for name, model in moons.items():
        first, last = model(ends)[0]
        on_the_way = model.log_prob(model.inverse((1 - way) * first + way * last)[0]).exp()
        deepest[name] = (on_the_way.min() / min(on_the_way[0], on_the_way[-1])).item()
    excess = {name: model.loss(fresh).item() - entropy for name, model in moons.items()}
print("NICE: the density never falls below its ends:", deepest["NICE"] > 0.99)
print("RealNVP: it falls to less than a tenth of them:", deepest["RealNVP"] < 0.1)
print("loss above the entropy of the data, NICE: more than 0.08 nats:", excess["NICE"] > 0.08)
print("RealNVP: less than a third of that:", excess["RealNVP"] < excess["NICE"] / 3)

# %% [markdown]
# **Watch it happen.** The colour is the log-determinant so far: orange where space was stretched on the way to
# the latent, blue where it was squeezed. In the same figure of chapter 04 nothing changed colour before the
# last step. Here the moons turn orange and the gap between them blue: much empty space is squeezed into little
# latent space, so that little probability falls into it. *The bridge cannot vanish*, because a continuous invertible map
# cannot tear the plane, but it can become as thin as you like.

# %%
from course_lib.notebook import follow  # all states of points, and their log-determinants so far

mesh = torch.cartesian_prod(torch.linspace(-2.4, 2.4, 25), torch.linspace(-2.4, 2.4, 25))
box = torch.rand(400, 2, generator=seeded(4)) * torch.tensor([0.8, 0.6]) - torch.tensor([0.3, 0.7])
gap = box[toy_log_prob("two_moons", box) < -4]  # between the moons, where there are no data
states, log_dets = follow(
    moons["RealNVP"], torch.cat([toy("two_moons", 1400, generator=seeded(3)), gap])
)
on_moons, in_gap = log_dets[-1].split([1400, len(gap)])
print("more than 85 % of the points on the moons end orange:", (on_moons > 0).float().mean().item() > 0.85)
print("more than 85 % of those in the gap end blue:", (in_gap < 0).float().mean().item() > 0.85)
ParticlePlayer(
    states,
    grid=moons["RealNVP"].trajectory(mesh).reshape(-1, 25, 25, 2),
    color=log_dets.clamp(-3, 3),  # so that one far point does not make all others pale
    color_map="signed",
    color_label="log-det so far (nats)",
    extent=(-5, 5, -5, 5),
    labels=["two moons", *(f"affine coupling {k}" for k in range(1, 9))],
    title="Volume changes from place to place",
    alt="Two moons and points in the gap between them become a round cloud in eight steps. Points on "
    "the moons turn orange, those in the gap blue.",
)

# %% [markdown]
# ### Why the log-scale must be bounded
#
# $e^s$ with $s$ from a network is dangerous. A ReLU network continues in straight lines outside the data, so
# $s$ can be $-30$ for a point that is a little unusual, and the *inverse* multiplies by $e^{30}$. What comes
# out is the input of the next coupling, whose network is now even further from its data. The library therefore
# bounds it,
#
# $$s = s_{\max} \tanh(r / s_{\max}),$$
#
# where $r$ is the network's answer: almost $r$ itself where it is small, and never beyond $\pm s_{\max}$ (2, unless
# you say otherwise). One layer then stretches by $e^2 \approx 7$ at most. That is no loss, since there are many
# layers. (The paper, too, takes a tanh, times a learned scale: section 4.1.)

# %%
show_source(AffineCoupling.scale_and_shift)

# %% [markdown]
# **See it blow up.** Eight couplings with one and the same small ReLU network for $r$. It is 0 on the data,
# which lie in $[-1, 1]^2$, and falls in a straight line outside. We start from latents four standard deviations
# from the origin (one in 3,000 lies further out) and go backwards, as in sampling.

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(6.4, 3))
axes = figure.subplots()
for bound, name, colour in ((None, "no bound", "error"), (2.0, "bound 2", "model")):
    sizes = run_stack(runaway_log_scale, far_latents(4.0), bound=bound, backwards=True).sizes
    axes.semilogy(range(len(sizes)), sizes, "o-", label=name, color=PALETTE[colour])
axes.text(2.15, 5e9, "and then infinity", color=PALETTE["error"], va="center")
axes.set(title="on the way back", xlabel="couplings undone", ylabel="largest |coordinate|")
axes.legend()
figure.tight_layout()
show_figure(
    figure,
    alt="Without a bound the largest coordinate leaves the range of float32 after two couplings; "
    "with a bound it grows slowly and stays finite.",
)

# %% [markdown]
# **Exercise 1: break it on purpose.** Be the network: write an answer $r$ that does no harm on the data, $|s| \le 1$ in
# all eight couplings for every point of $[-1, 1]^2$, so that training would never notice; and with which,
# without the bound, latents four standard deviations out are lost in float32. The checker uses the same
# function in all eight, without shifts. Then say in one sentence why a real network is likely to be such a
# function.
#
# Each `check` judges your function on fresh random inputs and tells you which property broke; it accepts every
# correct solution. `hint("05.break_it")` helps one step at a time; `solution("05.break_it")` shows the library's.


# %%
def my_raw_log_scale(kept):
    """Return the network's raw answer r [B, 1] to kept [B, 1]."""
    ...


check("05.break_it", my_raw_log_scale)

# %% [markdown]
# ## 2. Halves and networks that know nothing of images
#
# **See the weakness.** NICE strings an image out into a vector, moves every second number, and asks a fully
# connected network. What does the shift of *one* pixel depend on? Below is the mean size of its gradient with
# respect to every pixel that the first coupling of our NICE keeps.

# %% jupyter={"source_hidden": true}
digits, labels = load_digits("test")
nice, realnvp = load_pretrained("nice_digits"), load_pretrained("realnvp_digits")
row, column = 4, 3  # the pixel that is shifted
x = dequantize(digits[:40], 17, generator=seeded(0))


def influence(shift, kept):
    """How much kept [B, ...] influences one number of shift(kept): mean |gradient|, kept's shape."""
    kept = kept.detach().requires_grad_()
    return torch.autograd.grad(shift(kept).sum(), kept)[0].abs().mean(dim=0)


def show_pixels(**images):
    """Images [8, 8] side by side, with a cross on the pixel that is shifted."""
    figure = Figure(figsize=(2.5 * len(images), 2.7))
    for axes, (title, image) in zip(
        figure.subplots(1, len(images), squeeze=False)[0], images.items()
    ):
        axes.imshow(image / image.max(), vmin=0, vmax=1)
        axes.plot(column, row, "+", color=PALETTE["error"], ms=9, mew=2)
        axes.set_title(title.replace("_", " "), fontsize=9)
        axes.set(xticks=[], yticks=[])
    figure.tight_layout()
    return figure


dense = nice.transforms[1]  # moves the odd numbers of the vector; (4, 3) is number 35
kept = dense.mask.split(nice.transforms[0](x.flatten(1))[0])[0]
of_dense = torch.zeros(64)
of_dense[dense.mask.kept] = influence(lambda k: dense.shift(k)[:, (8 * row + column) // 2], kept)
show_figure(
    show_pixels(influence_in_NICE=of_dense.reshape(8, 8)),
    alt="The pixels that shift one pixel in NICE are spread over every second column of the image.",
)

# %% [markdown]
# It depends on pixels all over the image, in whole columns: left and right neighbours are both kept, but those
# above and below are both moved and cannot help. And the network has to learn anew for each of its 32 outputs
# that what is near matters most.
#
# **The cure** is a mask that is made for images, and a convolution as the network. There are two masks.
#
# - **Checkerboard**: keep the bright squares, move the dark ones. Each moved pixel has its four neighbours
#   kept.
# - **Squeeze**, then **channels**: make four channels out of every 2×2 block (a picture of half the size and
#   four times the depth; nothing is computed, only moved, so $\log|\det| = 0$), keep half of the *channels* and
#   move the others.
#
# Why both? With checkerboards alone, a small network sees only what is near. After a squeeze a 3×3 convolution covers
# 6×6 pixels, and after another 12×12: the same small network looks further and further (its **receptive field** grows).

# %%
board = next(t for t in realnvp.transforms if isinstance(t, AffineCoupling))
of_board = influence(
    lambda k: board.scale_and_shift(k * board.mask.keep)[1][:, 0, row, column],
    realnvp.transforms[0](x)[0],
)
far = torch.ones(8, 8, dtype=torch.bool)
far[row - 2 : row + 3, column - 2 : column + 3] = False
for name, size in (("NICE", of_dense.reshape(8, 8)), ("RealNVP", of_board[0])):
    share = size[far].sum() / size.sum()
    print(f"{name}: {share:.0%} of the influence comes from more than two pixels away")
show_figure(
    show_pixels(
        bright_is_kept=CheckerboardMask((1, 8, 8), flip=False).keep[0], influence_now=of_board[0]
    ),
    alt="Left, the checkerboard: bright squares are kept. Right, the pixels that shift one pixel in "
    "the first coupling of RealNVP: kept ones close to it, its four neighbours most.",
)

# %% [markdown]
# And a convolution uses the same few weights at every pixel:

# %%
numbers = {
    "one dense coupling of NICE": dense,
    "one checkerboard coupling": board,
    "the whole NICE": nice,
    "the whole RealNVP": realnvp,
}
for name, part in numbers.items():
    print(f"{name:28s} {sum(p.numel() for p in part.parameters()):8,} parameters")

# %% [markdown]
# One 4×4 image with numbered pixels, before and after a squeeze. The order of the channels is a convention
# (here: channel $2i + j$ holds the pixel in row $i$ and column $j$ of its block); that the *blocks* stay
# together is not.

# %%
numbered = torch.arange(16.0).reshape(1, 1, 4, 4)
print(numbered[0].int().tolist(), "becomes")
print(Squeeze()(numbered)[0][0].int().tolist())
show_source(Squeeze.forward)

# %% [markdown]
# **Check** the couplings of images as you did for points, for both masks: the inverse and the log-determinant.

# %%
x = torch.randn(3, 4, 4, 4, generator=seeded(5), dtype=torch.float64)
for mask in (CheckerboardMask, ChannelMask):
    coupling = shake(AffineCoupling((4, 4, 4), [8], flip=True, mask=mask), 3)
    z, log_det = coupling(x)
    exact = torch.linalg.slogdet(jacobians(lambda p: coupling(p)[0], x)).logabsdet
    there_and_back = (coupling.inverse(z)[0] - x).abs().max().item()
    print(
        f"{mask.__name__}: inverse within 1e-12: {there_and_back < 1e-12}, "
        f"log_det within 1e-10: {(log_det - exact).abs().max().item() < 1e-10}"
    )

# %% [markdown]
# **Exercise 2: what a squeeze is good for.** Squeeze an image, then mix the channels of every place by the same matrix, `weight [D, 4C]`. That is an ordinary
# convolution of the image itself, `F.conv2d(x, kernel, stride=2)`: with which kernel?


# %%
def strided_kernel(weight):
    """Return the kernel [D, C, 2, 2]; weight is [D, 4C]."""
    ...


check("05.strided_kernel", strided_kernel)

# %% [markdown]
# **Exercise 3: and back**, from the library's order: channel $4c + 2i + j$ holds row $i$ and column $j$ of the blocks of
# channel $c$.


# %%
def unsqueeze(z):
    """Return x [B, C, 2H, 2W]; z is [B, 4C, H, W]."""
    ...


check("05.squeeze_inverse", unsqueeze)

# %% [markdown]
# ## 3. The same channels always meet
#
# **See the weakness.** After a squeeze the four channels are the four places in each 2×2 block. A channel mask
# keeps the first two, the *upper row* of every block, and moves the lower row; the next coupling does it the
# other way round. Laid out as pixels, a channel mask is stripes (white is kept). So the upper row says how the lower moves, and
# back, in every step. Left and right in one row never talk to each other directly, because we grouped them so
# before any training.

# %% jupyter={"source_hidden": true}
shape = (1, 2, 4, 4)  # half of the channels of a squeezed 8x8 image
stripes = Squeeze().inverse(torch.cat([torch.ones(shape), torch.zeros(shape)], dim=1))[0][0, 0]
figure = Figure(figsize=(5.2, 2.6))
for axes, image, title in zip(
    figure.subplots(1, 2), (stripes, 1 - stripes), ("first coupling", "second coupling")
):
    axes.imshow(image, cmap=colour_map("grey"))
    axes.set_title(f"channel mask, {title}", fontsize=9)
    axes.set(xticks=[], yticks=[])
figure.tight_layout()
show_figure(
    figure,
    alt="A channel mask laid out as pixels: white and black rows in turn; in the second coupling they are exchanged.",
)

# %% [markdown]
# Reversing or shuffling the channels between the steps makes other groups. Which shuffle is the best? Glow's
# answer: **learn it**.
#
# **The cure.** A permutation of the channels is a matrix with one 1 in each row and column, and it is applied
# to the channels of every pixel. Replace it by *any* invertible matrix $W$:
#
# $$z_{:,i,j} = W x_{:,i,j} \quad\text{for every pixel } (i, j).$$
#
# A convolution with a kernel of 1×1 pixel is exactly this: an **invertible 1×1 convolution**. **Its Jacobian**, with the numbers sorted pixel by
# pixel, has $W$ on the diagonal once for each pixel and zeros elsewhere, so
#
# $$\log|\det J| = \text{(number of pixels)} \cdot \log|\det W| .$$
#
# **What it costs.** $\det W$ takes about $\tfrac23 C^3$ operations for $C$ channels. That is little for
# 16 channels, and much for 768 (the paper measured no large difference in its own networks, section 3.2). Every invertible matrix can be written as $W = P L R$ with a
# permutation $P$, a lower triangular $L$ with ones on its diagonal and an upper triangular $R$ (this is
# Gaussian elimination with row exchanges). Write $R = U + \operatorname{diag}(\pm e^{s})$, with $U$ strictly
# above the diagonal and $s$ a vector of $C$ numbers. $P$ has determinant $\pm 1$, $L$ has 1, and $R$ the product of its diagonal. So
#
# $$\log|\det W| = \sum_i s_i ,$$
#
# and Glow *learns $L$, $U$ and $s$ themselves*, with $P$ and the signs fixed at the start. The determinant
# costs nothing any more, and $W$ cannot become singular. **Its inverse**, for sampling, is a multiplication with
# $W^{-1}$ at every pixel. That matrix is computed once for all pixels and images, by two triangular solves,
# about $2 C^3$ operations.

# %%
show_source(
    [InvertibleConv1x1.factors, InvertibleConv1x1.log_det, InvertibleConv1x1.inverse_weight]
)

# %% [markdown]
# **Check it**: the log-determinant against the Jacobian; a matrix and its LU factors give the same; and a permutation
# is a special case.

# %%
conv = shake(InvertibleConv1x1(4), 6)
x = torch.randn(3, 4, 3, 3, generator=seeded(7), dtype=torch.float64)
z, log_det = conv(x)
exact = torch.linalg.slogdet(jacobians(lambda p: conv(p)[0], x)).logabsdet
dense_conv = InvertibleConv1x1(4, lu=False).double()
dense_conv.matrix.data = conv.weight().detach()
print("log_det within 1e-10:", (log_det - exact).abs().max().item() < 1e-10)
print("the dense matrix gives the same z:", torch.allclose(dense_conv(x)[0], z))
print("and the same log_det:", torch.allclose(dense_conv(x)[1], log_det))
dense_conv.matrix.data = torch.eye(4, dtype=torch.float64)[[2, 0, 3, 1]]
print("a permutation is one of them:", torch.equal(dense_conv(x)[0], x[:, [2, 0, 3, 1]]))
print("with log_det 0:", dense_conv(x)[1].abs().max().item() == 0)

# %% [markdown]
# **Exercise 4: the log-determinant of a 1×1 convolution, from LU factors.** `torch.linalg.lu(weight)` returns $P$, $L$
# and the upper triangular factor. It has to be right also where the determinant itself leaves the range of float32,
# as it easily does with some hundred channels.


# %%
def conv_log_det(weight, height, width):
    """Return log |det| of the Jacobian on images of height × width, a scalar; weight is [C, C]."""
    ...


check("05.lu_log_det", conv_log_det)

# %% [markdown]
# **Does it help?** The paper compares the three ways (its figure 3), and so do we, on the digits: the same Glow
# with the channels reversed, shuffled once and for all, or mixed by a learned matrix, trained for the same
# number of steps (recipes `glow_digits_reverse`, `glow_digits_shuffle`, `glow_digits`).

# %% jupyter={"source_hidden": true}
digit_glow = load_pretrained("glow_digits")
names = {
    "mixed by a 1×1 convolution": "glow_digits",
    "shuffled": "glow_digits_shuffle",
    "reversed": "glow_digits_reverse",
}
noisy = [dequantize(load_digits("test")[0], 17, generator=seeded(40 + k)) for k in range(10)]
nats = {}
with torch.no_grad():
    for name in names.values():
        model = load_pretrained(name)
        nats[name] = torch.stack([model.log_prob(x) for x in noisy]).mean(dim=0)  # of each image
table = "| channels are | bits per dimension, test | nats an image behind the first |\n| --- | ---: | ---: |\n"
for words, name in names.items():
    behind = nats["glow_digits"] - nats[name]
    error = behind.std().item() / len(behind) ** 0.5
    last = f"{behind.mean().item():.1f} ± {error:.1f}" if name != "glow_digits" else ""
    table += f"| {words} | {load_card(name)['metrics']['bits per dimension']:.2f} | {last} |\n"
Markdown(table)

# %% [markdown]
# The order is the paper's: learned before shuffled before reversed. The differences are small here,
# but well above the error that comes from having 359 test images (±, of the difference image by
# image). Each model was trained once; another seed could move them too.
#
# **What has it learned?** In the first step of this Glow each row of $W$ makes a new channel out of the
# four pixels of a block; drawn as a block, you see which. The first two rows are kept by the coupling, the last
# two moved. Above as it started, a random rotation, below as it was trained.

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(8, 3.6))
panels = figure.subplots(2, 4)
for axes_row, (words, model) in zip(
    panels, (("start", recipe("glow_digits").new_model()), ("trained", digit_glow))
):
    conv = next(t for t in model.transforms if isinstance(t, InvertibleConv1x1))
    for k, axes in enumerate(axes_row):
        picture = axes.imshow(
            conv.weight().detach()[k].reshape(2, 2), cmap=colour_map("signed"), vmin=-1.2, vmax=1.2
        )
        axes.set_title(f"{words}, {'kept' if k < 2 else 'moved'}", fontsize=9)
        axes.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=list(panels.flat), label="weight")
show_figure(
    figure,
    alt="The four rows of the matrix as 2 by 2 blocks, before and after training. In both, two rows "
    "weigh one diagonal of the block and two rows the other; training makes it clearer.",
)

# %%
for words, model in (("start", recipe("glow_digits").new_model()), ("trained", digit_glow)):
    conv = next(t for t in model.transforms if isinstance(t, InvertibleConv1x1))
    squares = conv.weight().detach().square()
    kept = squares[:2, [0, 3]].sum() / squares[:2].sum()
    moved = squares[2:, [1, 2]].sum() / squares[2:].sum()
    print(f"{words:7}  kept: {kept:.0%} of the squared weights on one diagonal;", end="  ")
    print(f"moved: {moved:.0%} on the other")

# %% [markdown]
# The trained matrix keeps one diagonal of each block and moves the other: *a checkerboard*, found by gradient
# descent? Look at the upper row before you believe it. By chance the random start was already close to that;
# training sharpened it, and made it no permutation but a mixture. A picture of learned weights says little
# without a picture of how they started.

# %% [markdown]
# ## 4. Every number passes all layers
#
# **See the weakness.** In NICE every coordinate goes through every layer, although much of an image is settled
# early. Below are ten images of the MNIST Glow, and the same ten with *half of all 784 latent numbers drawn
# anew* (which half, you will see in a moment). You must look closely to find a difference. So half of the
# numbers say little about the image. To carry them through all layers costs time and memory. (In fairness: this
# Glow was trained *with* the cure below, and learned to put little into those numbers.)

# %%
with torch.no_grad():
    fine, coarse = glow.scales(glow(written[:10])[0])
    redrawn = glow.join([torch.randn(fine.shape, generator=seeded(0)), coarse])
    show = torch.cat([written[:10], glow.inverse(redrawn)[0]])
show_figure(
    image_grid(show, columns=10, titles=["ten images", "half anew"]),
    alt="Ten handwritten characters, and below each the same one with half of its latent numbers "
    "drawn anew. They look the same but for a few pixels.",
)

# %% [markdown]
# **The cure**: at certain places *let half of the channels go*. What leaves, $h_2$, must get a density. RealNVP
# takes the standard Gaussian (its section 3.6 and figure 4b). But $h_1$ knows a lot about $h_2$, and so Glow's
# code takes a Gaussian whose mean and standard deviation are functions of $h_1$; so do both models of ours:
#
# $$h_2 \mid h_1 \sim \mathcal N\!\left(\mu(h_1), \sigma(h_1)^2\right).$$
#
# **Nothing is lost in exactness.** By the product rule $p(h_1, h_2) = p(h_1)\,p(h_2 \mid h_1)$, where $p(h_1)$
# is what the rest of the flow says. So the log-density of the image is the log-determinant up to here, plus
# $\log \mathcal N(h_2; \mu, \sigma^2)$, plus the same for $h_1$ further on.
#
# **And it is an affine coupling.** Put $\varepsilon = (h_2 - \mu(h_1)) / \sigma(h_1)$. Then, for every number,
#
# $$\log \mathcal N(h_2; \mu, \sigma^2) = -\tfrac12\left(\varepsilon^2 + \log 2\pi\right) - \log\sigma
#   = \log \mathcal N(\varepsilon; 0, 1) + \log\frac{\partial \varepsilon}{\partial h_2} .$$
#
# This is the change of variables for a coupling with $s = -\log\sigma$ and $t = -\mu/\sigma$, that keeps $h_1$,
# moves $h_2$ and ends in a standard Gaussian. So a `Split` *is* an affine coupling; after it, the flow sets
# $\varepsilon$ aside and goes on with $h_1$ alone. In the end $z$ is put together from all parts, each number
# at the place it was taken from:

# %%
show_source([Flow.forward, Split.prior])

# %% [markdown]
# As a diagram, drawn from the Glow of the first figure as it runs. On the right is what leaves; together it is as many numbers as an image has pixels.

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import multi_scale_diagram
from course_lib.widgets import show_diagram

show_diagram(multi_scale_diagram(glow))

# %% [markdown]
# **Check it**: a small Glow with two splits. First the log-determinant of everything against the Jacobian. Then
# $\log p(x)$, put together by hand from the parts, against `log_prob`.

# %%
torch.manual_seed(0)
small = shake(Glow((1, 8, 8), levels=3, depth=1, hidden=8).eval(), 8)
x = torch.randn(3, 1, 8, 8, generator=seeded(9), dtype=torch.float64)
exact = torch.linalg.slogdet(jacobians(lambda p: small(p)[0], x)).logabsdet
print("log_det within 1e-9:", (small(x)[1] - exact).abs().max().item() < 1e-9)
print("the inverse within 1e-9:", (small.inverse(small(x)[0])[0] - x).abs().max().item() < 1e-9)

state, by_hand = x, 0.0
for transform in small.transforms:
    if isinstance(transform, Split):
        state, leaving = state.chunk(2, dim=1)
        mean, std = transform.prior(state)
        by_hand = by_hand + torch.distributions.Normal(mean, std).log_prob(leaving).sum(
            dim=(1, 2, 3)
        )
    else:
        state, log_det = transform(state)
        by_hand = by_hand + log_det
by_hand = by_hand + torch.distributions.Normal(0.0, 1.0).log_prob(state).sum(dim=(1, 2, 3))
print("log p by hand, within 1e-9:", (by_hand - small.log_prob(x)).abs().max().item() < 1e-9)
print("shapes of the parts of z:", [list(part.shape[1:]) for part in small.scales(small(x)[0])])

# %% [markdown]
# **Exercise 5: predict.** A 3×32×32 image, 3,072 numbers, goes into a Glow with three levels. At each level
# comes a squeeze, then the steps; after the first and after the second level half of the channels leave. How
# many numbers pass through the steps of the *last* level? Write a number in place of the dots.

# %%
prediction = ...

check("05.predict_split", prediction)

# %% [markdown]
# **Exercise 6: what is the learned prior worth?** Let $h_2$ leave as it is, under $\mathcal N(0, 1)$, or under $\mathcal N(\mu, \sigma^2)$ given $h_1$: how many nats
# of $\log p$ does each image gain? `prior(kept)` returns mean and standard deviation.


# %%
def split_gain(h, prior):
    """Return the gain [B], in nats; h is [B, C, H, W]."""
    ...


check("05.split_gain", split_gain)

# %% [markdown]
# ### Play: which scale did what?
#
# Here are images that the MNIST Glow wrote, and the two parts of their latents: scale 1 left after eight steps,
# scale 2 passed all sixteen. Keep a part, or draw it anew from the prior: what is left of the image was told by
# the parts that you kept. Predict first: if the part that left *first* is drawn anew, is it still the same
# digit?


# %%
def mixtures(flow, x, draws, seed):
    """What becomes of images x if scales of their latents are drawn anew: [N, 2^S - 1, R, H, W]."""
    generator = seeded(seed)
    parts = flow.scales(flow(x)[0])
    new = [[torch.randn(p.shape, generator=generator) for p in parts] for _ in range(draws)]
    rows = []
    for chosen in range(1, 2 ** len(parts)):
        for drawn in new:
            mixed = [d if chosen >> s & 1 else p for s, (p, d) in enumerate(zip(parts, drawn))]
            rows.append(flow.inverse(flow.join(mixed))[0].clamp(0, 1))
    return parts, torch.stack(rows, 1).reshape(len(x), -1, draws, *x.shape[2:]).detach()


images = written[[38, 9, 23, 10, 24, 31]]
parts, mixed = mixtures(glow, images, draws=6, seed=1)
ScaleMixer(
    images.clamp(0, 1),
    [part.detach() for part in parts],
    mixed,
    title="Which scale did what?",
    alt="A handwritten digit, its latents at two scales with a switch for each, and the images that "
    "come out when a scale is drawn anew.",
)

# %% [markdown]
# On MNIST the part that left first hardly matters to the eye: draw it anew and the digit keeps its shape, down
# to the stroke. Draw the second anew, and another character appears. Measured, as the mean squared change of a
# pixel:

# %%
change = (mixed - images[:, None].clamp(0, 1)).pow(2).mean(dim=(0, 2, 3, 4))
print(
    "scale 1 drawn anew changes less than a tenth of what scale 2 changes:",
    bool(change[0] < change[1] / 10),
)

# %% [markdown]
# ## 5. An image's density depends on its company
#
# **See the weakness.** Deep stacks need their states at a sensible size, so RealNVP puts batch normalisation
# between its couplings: subtract a mean over the *batch* in each channel, divide by the standard deviation. With mean and standard deviation taken as given numbers this is a linear map of each channel,
# and its log-determinant is minus the number of pixels times $\sum_c \log \operatorname{std}_c$ (as RealNVP counts it). But both come from the batch:
# one and the same image gets another density in other company, and the more so the smaller the batch.
#
# How much is that? We put batch normalisations in the places of the trained Glow's ActNorms, each working on what the ones before it have normalised, and give
# *one* image 60 times other company:

# %% jupyter={"source_hidden": true}
from course_lib.experiments import log_prob_in_company

crowd = dequantize(load_digits("train")[0], 17, generator=seeded(1))
noise = {}
for size in (2, 4, 8, 16, 32, 64, 128):
    of_image = []
    for trial in range(60):
        others = crowd[1 + torch.randperm(len(crowd) - 1, generator=seeded(trial))[: size - 1]]
        with torch.no_grad():
            log_prob, _ = log_prob_in_company(digit_glow, torch.cat([crowd[:1], others]))
        of_image.append(log_prob[0])
    noise[size] = torch.stack(of_image).std().item()
figure = Figure(figsize=(5.4, 2.9))
axes = figure.subplots()
axes.loglog(list(noise), list(noise.values()), "o-", base=2, color=PALETTE["error"])
axes.set(
    title="log p of one image, with batch normalisation",
    xlabel="images in the batch",
    ylabel="standard deviation, nats",
)
axes.set_xticks(list(noise), list(noise))
figure.tight_layout()
show_figure(
    figure,
    alt="The spread of one image's log p falls as the batch grows, from more than six nats at two images to about one at 128.",
)

# %%
print("with 2 images log p has a standard deviation above 3 nats:", noise[2] > 3)
print("with 128 one below 2, and above half a nat:", 0.5 < noise[128] < 2)

# %% [markdown]
# For a batch of 128 that is little. But images are large and memory is small: Glow learned its largest images with
# one on each processor, and gives this noise as its reason for another normalisation (section 3.1). (RealNVP itself uses a running average over recent batches, which moves less; its appendix E.)

# %% [markdown]
# **The cure.** **ActNorm** (activation normalization) has a scale and a shift of its own for each channel, $z = (x + b)\,e^{s}$. They are
# *set once* from the first batch (**data-dependent initialization**), such that every channel comes out with mean 0 and variance 1,
#
# $$b_c = -\operatorname{mean}_c(x), \qquad s_c = -\log \operatorname{std}_c(x),$$
#
# and from then on they are learned like any other parameter. Mean and standard deviation run over the batch and
# all pixels. After the first batch no image depends on another. $\log|\det J|$ is the number of pixels times
# $\sum_c s_c$.

# %%
show_source([ActNorm.initialize, ActNorm.forward])

# %% [markdown]
# **Check it**: the first batch, and an image's density alone and in company.

# %%
norm = ActNorm(4)
first = 5 + 3 * torch.randn(64, 4, 6, 6, generator=seeded(10))
z, _ = norm(first)
print("mean 0, within 1e-5:", z.mean(dim=(0, 2, 3)).abs().max().item() < 1e-5)
print(
    "variance 1, within 1e-5:", (z.var(dim=(0, 2, 3), correction=0) - 1).abs().max().item() < 1e-5
)
some = dequantize(digits[:8], 17, generator=seeded(0))
with torch.no_grad():
    together, alone = digit_glow.log_prob(some), digit_glow.log_prob(some[:1])
print("alone as in company, within 0.001 nats:", abs(together[0] - alone[0]).item() < 1e-3)

# %% [markdown]
# **Exercise 7: where is the ActNorm after training?** In Glow a 1×1 convolution comes right behind it. Make one convolution with a bias of the two. What is its
# log-determinant?


# %%
def merge_actnorm(bias, log_scale, weight):
    """Return matrix [C, C] and shift [C]; bias and log_scale are [C], weight is [C, C]."""
    ...


check("05.merge_actnorm", merge_actnorm)

# %% [markdown]
# ## The two models, complete
#
# With these parts both models are short. RealNVP for images: at each scale but the last couplings with checkerboards, a
# squeeze, couplings with channel masks, a split; at the last one couplings with checkerboards alone. (Ours has an ActNorm where the paper's has batch
# normalisation, and plain small networks in place of residual ones.) Glow: a squeeze, then again and again
# ActNorm, 1×1 convolution, affine coupling; then, at all levels but the last, a split.

# %%
show_source([RealNVP.for_images, Glow.for_images])

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## May be skipped: pixels end, numbers don't
#
# *It holds: the logit in front of both models, why bits per dimension need its log-determinant, and Exercise 8.*

# %% [markdown]
# ### The logit
#
# One thing is missing. A pixel lies in $[0, 1]$, and a Gaussian latent can be any number. RealNVP therefore
# begins with a **logit**:
#
# $$y = \alpha + (1 - 2\alpha)\,x, \qquad z = \log y - \log(1 - y).$$
#
# $\alpha > 0$ keeps black ($x = 0$) and white at a finite $z$. (The paper prints $\alpha + (1 - \alpha)\,x$, with $\alpha = 0.05$, section 4.1; its code has the symmetric
# form.) This is one more transform with one more
# log-determinant. By the chain rule
# $\mathrm dz/\mathrm dx = (1 - 2\alpha)\left(\tfrac1y + \tfrac1{1-y}\right) = (1 - 2\alpha) / (y (1 - y))$, so
#
# $$\log|\det J| = \sum_i \left[\log(1 - 2\alpha) - \log y_i - \log(1 - y_i)\right].$$

# %%
show_source(Logit.forward)

# %% [markdown]
# **Check it** against a case that is known. If $u$ is uniform on $[0, 1]$, then $\log u - \log(1 - u)$ has a
# logistic density (chapter 04's logistic base draws its samples that way). So a logit over a logistic base must
# be the *uniform* density, up to $\alpha$: the logistic density at $z$ is $y(1 - y)$, which cancels, and
# $\log p(x) = \log(1 - 2\alpha)$ for every $x$.

# %%
uniform = Flow([Logit(1, alpha=0.05)], StandardLogistic(1))
x = torch.rand(100, 1, generator=seeded(0))
print(
    "log p = log 0.9 everywhere:",
    torch.allclose(uniform.log_prob(x), torch.tensor(math.log(0.9)), atol=1e-5),
)

# %% [markdown]
# **Bits per dimension, after the logit.** Because the logit is *inside* the flow, `log_prob` is a density of
# pixels in $[0, 1]$, and the formula of chapter 04 holds as it stands, for $n$ pixels:
#
# $$\text{bits/dim} = -\frac{\log p(x)}{n \log 2} + \log_2(\text{number of grey levels}) .$$
#
# Many programs apply the logit *before* the model, as preprocessing, and then the model's own log-density is
# one of $z$. It differs by the logit's log-determinant. Leave that out and you get a number that looks like
# bits per dimension and is none: it depends on $\alpha$, a number that the reader of your table never sees.
# Here are both for the digits:

# %%
x = dequantize(digits, 17, generator=seeded(2))
with torch.no_grad():
    right = digit_glow.log_prob(x).mean().item()
    wrong = right - digit_glow.transforms[0](x)[1].mean().item()
print(f"with the logit's log-determinant:  {bits_per_dim(right, 64, 17):.1f} bits per dimension")
print(f"without it:                        {bits_per_dim(wrong, 64, 17):.1f} 'bits per dimension'")

# %% [markdown]
# **Exercise 8: the paper's logit.** Derive the log-determinant of $\mathrm{logit}(\alpha + (1 - \alpha)\,x)$, the form
# that the paper prints, then write both.


# %%
def paper_logit(x, alpha):
    """Return z, of the shape of x [B, C, H, W], and log_det [B]."""
    ...


check("05.logit", paper_logit)

# %% [markdown]
# ## Train a Glow
#
# Handwritten digits, and a small Glow. The first call, on dequantized digits, sets its ActNorms.

# %%
train_digits = load_digits("train")[0]
torch.manual_seed(0)
live_glow = Glow((1, 8, 8), levels=2, depth=2, hidden=32, logit=1e-3)
live_glow(dequantize(train_digits[:500], 17, generator=seeded(2)))
history = fit(
    live_glow,
    train_digits,
    steps=350,
    batch_size=128,
    lr=3e-3,
    clip=50.0,
    ema=0.98,
    transform=lambda x, generator: dequantize(x, 17, generator=generator),
)
print("log p of a training image above 70 nats, on average:", -history.loss() > 70)

# %%
rows = [
    load_digits("test")[0][:12],
    live_glow.sample(12, generator=seeded(5)),
    load_pretrained("realnvp_digits").sample(12, generator=seeded(5)),
    digit_glow.sample(12, generator=seeded(5)),
]
show_figure(
    image_grid(torch.cat(rows), columns=12, titles=["real", "just trained", "RealNVP", "Glow"]),
    alt="Four rows of small images: real digits, samples of the Glow trained just now, and samples of the two stored models.",
)

# %% [markdown]
# ## A likelihood is no judge
#
# Both models are trained to give digits a high density. So surely half a digit has a lower one than the whole? Say
# what you expect, then look. We take forty images that the MNIST Glow wrote, and paint them black from below, row
# by row.

# %% jupyter={"source_hidden": true}
whole = quantize(written.clamp(0, 1 - 1e-6), 256)


def erased(images, rows):
    """Images of which so many rows, from above, are left; the others are black."""
    left = images.clone()
    left[:, :, rows:] = 0
    return left


def log_prob_of(model, images, levels):
    """Log-density [B] of grey images, with noise of dequantization."""
    with torch.no_grad():
        return model.log_prob(dequantize(images, levels, generator=seeded(1)))


left = [28, 24, 20, 16, 12, 8, 4, 0]
curve = torch.stack([log_prob_of(glow, erased(whole, rows), 256) for rows in left])  # [8, 40]
figure = Figure(figsize=(10, 3.2), layout="constrained")
grid = figure.add_gridspec(2, 5, width_ratios=[1, 1, 1, 1, 3])
for column, k in enumerate((0, 3, 4, 5)):  # 28, 16, 12 and 8 rows
    for row, which in enumerate((9, 10)):
        axes = figure.add_subplot(grid[row, column])
        axes.imshow(erased(whole, left[k])[which, 0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{curve[k, which]:,.0f} nats", fontsize=9)
        axes.set(xticks=[], yticks=[])
axes = figure.add_subplot(grid[:, 4])
axes.plot(left, curve, color=PALETTE["noise"], lw=0.5, alpha=0.6)
axes.plot(left, curve.mean(dim=1), "o-", color=PALETTE["model"])
axes.invert_xaxis()
axes.set(xlabel="rows that are left", ylabel="log p, nats", title="forty images, and their mean")
show_figure(
    figure,
    alt="Two digits that are erased from below: their log p rises at each step. A curve of log p over the rows that are left rises for nearly all of forty images and is highest for the black image.",
)

# %%
real = load_digits("test")[0]
for name, images, levels in (
    ("glow_mnist", whole, 256),
    ("realnvp_mnist", whole, 256),
    ("realnvp_digits", real, 17),
    ("glow_digits", real, 17),
):
    model, size = load_pretrained(name), images.shape[2]
    full, half, black = (
        log_prob_of(model, erased(images, rows), levels) for rows in (size, size // 2, 0)
    )
    digits_shown = -1 if levels == 256 else 0
    means = [f"{round(x.mean().item(), digits_shown):5,.0f}" for x in (full, half, black)]
    print(f"{name:15} whole {means[0]}  upper half {means[1]}  black {means[2]} nats;", end="  ")
    rise, above = ((x > full).float().mean() for x in (half, black))
    print(f"{rise:.0%} rise when halved, black is above {above:.0%}")
black = log_prob_of(glow, torch.zeros(1, 1, 28, 28), 256).item()
print(f"each of its pixels: {black / 784:.2f} nats; log 256 = {math.log(256):.2f}")
print(f"black pixels of the forty images: {(whole == 0).float().mean():.0%}")
gain = (curve[left.index(12)] - curve[0]).sum().item() / (whole[:, :, 12:] > 0).sum().item()
print(f"painted black from row 12 on: {gain:.0f} nats more for each pixel that was not black")

# %% [markdown]
# Half a digit is *more* likely than the whole one for both models of MNIST, in every one of the forty images, and the black image is above them all. Of real digits of 8×8 pixels the *half* is more likely with the RealNVP in
# most cases, with the Glow in one of four.
#
# Why? The last lines say it. If a model knows a grey level for certain, the pixel adds $\log 256$ nats, the density of a
# value in an interval of length 1/256; on average over the noise it cannot add more. Black pixels are nearly that sure. A pixel in a stroke has one of many grey levels, and adds far less.
# Erasing replaces hard pixels by easy ones, and what half a shape costs is lost in that.
#
# So a density ranks images by how *predictable* their pixels are, which is not how *plausible* they are as a whole. Nalisnick et al. 2019 ([arXiv:1810.09136](https://arxiv.org/abs/1810.09136)) found it with other
# people's data: flows, VAEs and PixelCNNs that learned photographs (CIFAR-10) give *house numbers* (SVHN) the higher likelihood. So a plain likelihood does not tell what is **out of distribution** (Kirichenko et al. 2020, [arXiv:2006.08545](https://arxiv.org/abs/2006.08545), say why flows look at local pixels). It is no contradiction to maximum likelihood: the black image has the highest *density* but hardly
# any *volume*, and what the model writes are the many images around (the **typical set**), each with a lower density.

# %% [markdown]
# ## Temperature
#
# Samples of flows are often shown at a **temperature** below 1: draw $z$, *multiply it by $T$*, send it back.
# Two questions: what is drawn then, and why does anyone do it?
#
# **What.** $T\varepsilon$ has the density $\mathcal N(0, T^2)$, and
# $-\tfrac12 z^2/T^2 = \tfrac1{T^2}\left(-\tfrac12 z^2\right)$: up to a constant,
# $\log p_T(z) = \log p_Z(z) / T^2$. So the latent is drawn from $p_Z^{1/T^2}$, normalised. (Glow's paper prints the exponent as $T^2$, which would flatten
# the density for $T < 1$; its recipe, to multiply the standard deviation by $T$, is the one here.) If the flow changes
# all volumes by one factor, as a NICE with a Gaussian prior does, the same holds for the images,
# $p_T(x) \propto p(x)^{1/T^2}$: high densities become higher, low ones lower. With affine couplings it holds
# only roughly. In a multi-scale flow it says: every conditional standard deviation $\sigma(h_1)$ is multiplied
# by $T$.
#
# **Why.** Maximum likelihood punishes a model without limit where it gives data no probability, and hardly
# where it gives probability to images that do not exist. So a flow that is not flexible enough *covers too
# much*, as the bridge between the moons shows. And almost all of a Gaussian in many dimensions lies near the
# sphere of radius $\sqrt n$: $|z|^2$ is a sum of $n$ independent squares with mean 1 and variance 2, so
# $|z| \approx \sqrt n$, give or take $1/\sqrt 2$. At $T < 1$ all latents lie on a smaller sphere, with radius
# $T \sqrt n$, inside the one from which the model was trained to make data.
#
# Drag the slider: the same ten latents at temperatures from 0 to 1.2. At 0 all are the one image in the middle
# of the latent space, which is black: most pixels of most digits are. At 0.5 there are thin, plain strokes; at
# 1 what the model believes; above it they grow wild.

# %%
temperatures = [k / 10 for k in range(13)]
latents = glow.base.sample(10, generator=seeded(3))
with torch.no_grad():
    warmed = [glow.inverse(T * latents)[0].clamp(0, 1) for T in temperatures]
temperature_player = ImagePlayer(
    torch.stack(warmed),
    columns=5,
    labels=[f"T = {T:.1f}" for T in temperatures],
    title="One latent, many temperatures",
    alt="Ten images that are black at temperature 0, become thin digits at 0.5, and grow wild above 1.",
)
temperature_player.step = 7.0
temperature_player

# %% [markdown]
# And in the plane (look at the moons' thin ends as $T$ falls): at $T < 1$ fewer points lie off the data, at $T > 1$
# more of them do.

# %%
z = torch.randn(2000, 2, generator=seeded(6))
with torch.no_grad():
    clouds = torch.stack([moons["RealNVP"].inverse(T * z)[0] for T in temperatures])
for k in (8, 10, 12):
    off = (toy_log_prob("two_moons", clouds[k]) < -4).float().mean().item()
    print(f"T = {temperatures[k]:.1f}: {off:.0%} of the points where log p_data < −4")
moons_player = ParticlePlayer(
    clouds,
    color=z.norm(dim=1),
    color_label="|z| at T = 1",
    extent=(-3.2, 3.2, -3.2, 3.2),
    labels=[f"T = {T:.1f}" for T in temperatures],
    title="Two moons at many temperatures",
    alt="Points that start in one place at temperature 0 and spread out into two moons, and beyond them above 1.",
)
moons_player.step = 10.0
moons_player

# %% [markdown]
# **Exercise 9: temperature.** What is the log-density, at $z$, of latents that are drawn as $T \varepsilon$?


# %%
def log_prob_at_temperature(z, temperature):
    """Return the log-density [B] at z [B, D], in nats."""
    ...


check("05.temperature", log_prob_at_temperature)

# %% [markdown]
# **Without a checker:** train `live` again with `couplings=2`, then 3. Say first whether two can do it. Train
# `live_glow` with `mixing="reverse"`, or with `logit=0.05`: which of the two changes more? Ask `ScaleMixer` the
# same question for the digits (`mixtures(digit_glow, dequantize(digits[:6], 17), draws=6, seed=1)`): does the
# first scale matter as little as on MNIST?

# %% [markdown]
# ## How good is it?
#
# All numbers are bits per dimension of the grey levels, on images that the model never saw, each with ten draws
# of the dequantization noise, *with* the logit's log-determinant. They come from the cards in
# `data/checkpoints`, which name the commands. The papers of RealNVP and Glow have no MNIST; their rows here are as
# FFJORD's paper lists them (Grathwohl et al. 2019, [arXiv:1810.01367](https://arxiv.org/abs/1810.01367), table 2, page 6;
# of its two own rows we take the better, with several scales). NICE's paper gives 1,980.50 nats, which we convert.

# %% jupyter={"source_hidden": true}
rows = {
    "digits (8×8, 17 levels)": {
        "NICE, chapter 04": "nice_digits",
        "**our RealNVP**": "realnvp_digits",
        "**our Glow**": "glow_digits",
    },
    "MNIST (28×28, 256 levels)": {
        "NICE, chapter 04": "nice_mnist",
        "**our RealNVP**": "realnvp_mnist",
        "**our Glow**": "glow_mnist",
    },
}
table = "| data | model | parameters | bits per dimension |\n| --- | --- | ---: | ---: |\n"
for data, models in rows.items():
    for words, name in models.items():
        card = load_card(name)
        bits = card["metrics"]["bits per dimension"]
        table += f"| {data} | {words} | {card['parameters']:,} | {bits:.2f} |\n"
for words, bits in (
    ("NICE, Dinh et al. 2014, converted", bits_per_dim(1980.50, 784, 256)),
    ("RealNVP", 1.06),
    ("Glow", 1.05),
    ("FFJORD, chapter 09", 0.99),
):
    source = "" if "Dinh" in words else ", in Grathwohl et al. 2019"
    table += f"| MNIST (28×28, 256 levels) | {words}{source} | | {bits:.2f} |\n"
Markdown(table)

# %%
for small, large in (("realnvp_digits", "nice_digits"), ("realnvp_mnist", "nice_mnist"), ("glow_mnist", "nice_mnist")):
    one, other = load_card(small), load_card(large)
    share = other["parameters"] / one["parameters"]
    bits = one["metrics"]["bits per dimension"] / other["metrics"]["bits per dimension"]
    print(f"{small} has 1/{share:.0f} of the parameters of {large}, and takes {bits:.0%} of its bits")
passes = load_card("glow_mnist")["steps"] * 64 / 60_000
print(f"glow_mnist saw each image {passes:.0f} times")

# %% jupyter={"source_hidden": true}
toys = "| toy | NICE | RealNVP | the data's own density |\n"
toys += "| --- | ---: | ---: | ---: |\n"
for name in ("two_moons", "pinwheel"):
    points = toy(name, 50_000, generator=seeded(1))
    best = toy_log_prob(name, points).mean().item()
    both = [
        load_card(f"{model}_{name}")["metrics"]["test log-likelihood (nats)"]
        for model in ("nice", "realnvp")
    ]
    toys += f"| {name.replace('_', ' ')}, log-likelihood in nats | {both[0]:.2f} | {both[1]:.2f} | {best:.2f} |\n"
Markdown(toys)

# %% [markdown]
# How to read it:
#
# - **From NICE to RealNVP** bits and parameters fall; Glow saves a few hundredths of a bit per dimension more, with more parameters than our
#   RealNVP. Do not give the affine coupling all the credit: the logit, the convolutions and the scales came in at
#   once, and we did not measure each alone.
# - **Behind the published numbers**, RealNVP by 0.15 and Glow by 0.11 bits (our NICE is ahead of its paper's: chapter 04). Our Glow has 16 steps with networks of 64
#   channels, and saw each image as often as printed above. Of the published two we know little: FFJORD's paper gives neither
#   their size nor their training, but says that it needs less than 2 % of Glow's parameters itself (section 4.2), and five
#   days on six GPUs (appendix B.1). FFJORD's own number can be compared with ours, because its code counts as we do
#   (`train_cnf.py`): 256 levels, uniform noise, and a logit whose log-determinant is part of the density.
# - **MNIST needs few bits because it is black.** Most of its pixels are 0 (of the forty images that our Glow wrote it was the
#   share printed above). An ideal model knows them, and has
#   nothing left to say about them; all that remains there is the noise of dequantization, which costs 0 bits
#   once it is known to be uniform on its interval.
# - **Digits and MNIST** cannot be compared with each other: other images, 17 levels against 256.
# - **The likelihood is not the eye.** The samples below have the right strokes, and many are no digit. Nothing
#   in the loss asks for a whole digit, and you have seen what a likelihood thinks of half of one.

# %%
pictures = []
for name in ("realnvp_mnist", "glow_mnist"):
    model = load_pretrained(name)
    for T in (1.0, 0.7):
        pictures.append(model.sample(14, temperature=T, generator=seeded(4)))
show_figure(
    image_grid(
        torch.cat(pictures),
        columns=14,
        size=0.65,
        titles=["RealNVP, T = 1", "RealNVP, T = 0.7", "Glow, T = 1", "Glow, T = 0.7"],
    ),
    alt="Four rows of fourteen samples: handwritten characters of RealNVP and of Glow, each at "
    "temperature 1 and 0.7. Many are digits; those at 0.7 are smoother.",
)

# %% [markdown]
# ## What to take away
#
# - An affine coupling stretches as well as shifts (**real-valued non-volume preserving**, hence RealNVP); its log-determinant is the sum of its log-scales, another
#   number at every point. Bound the log-scale.
# - Masks, squeezes and convolutions put into the flow what we know about images. With a small part of the
#   parameters they do more than NICE's dense networks.
# - A permutation of channels is a matrix; learn the matrix. In LU form its determinant is free.
# - A likelihood says how predictable the pixels are, not how plausible the image.
# - A split is a coupling whose moved half leaves. The density stays exact, the flow becomes cheaper, and the
#   latent gets scales.
# - A normalisation may look at a batch once, to start; never while densities are computed.
# - Bits per dimension mean something only together with *every* log-determinant between the pixels and the
#   latent.
#
# **What does not work well.** In our samples strokes are right and digits often are none. (The paper's Glow, far larger, writes convincing faces of 256×256 pixels.) A flow has to keep every number, down to the noise of dequantization, and its likelihood counts
# them all alike. Each layer may only do what has an inverse and a cheap determinant, and so the likelihood, though exact, is behind that of chapter 01's models: on CIFAR-10 RealNVP takes 3.49 bits, PixelRNN 3.00 (RealNVP's table 1).
#
# **Other flows.** A coupling cuts the numbers into two blocks. A **masked autoregressive flow** (MAF, Papamakarios et al. 2017, [arXiv:1705.07057](https://arxiv.org/abs/1705.07057)) goes to the end of that road: scale and shift of each number depend on all numbers before it, as in
# chapter 01. Then the density takes one pass and a sample as many as there are numbers; the **inverse** kind (IAF, Kingma et al. 2016, [arXiv:1606.04934](https://arxiv.org/abs/1606.04934)) has it the other way round. **Spline flows** (Durkan et al. 2019, [arXiv:1906.04032](https://arxiv.org/abs/1906.04032)) keep the coupling and
# replace its straight line $x\,e^s + t$ by a monotone curve of many pieces, which has an inverse in closed form, too.
#
# **What came after:**
#
# - Learned dequantization and better couplings began to close the gap to autoregressive models (Flow++, Ho et al. 2019, [arXiv:1902.00275](https://arxiv.org/abs/1902.00275)).
# - Flows without couplings: residual networks with a bounded slope (Chen et al. 2019, [arXiv:1906.02735](https://arxiv.org/abs/1906.02735)), and flows in continuous time (chapter 09).
# - Transformers in a masked autoregressive flow write sharp images (TarFlow, Zhai et al. 2024, [arXiv:2412.06329](https://arxiv.org/abs/2412.06329)).
#
# **Next, chapter 06:** diffusion gives up the exact density for a bound, and with it all of these restrictions:
# any network will do. Chapter 09 comes back to flows, in continuous time.

# %% [markdown]
# [← 04 · Normalizing flows and NICE](04_nice.ipynb) | [Contents](../README.md#chapters) | [06 · DDPM →](06_ddpm.ipynb)
