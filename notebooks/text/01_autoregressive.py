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
# [Contents](../README.md#chapters) | [02 · Variational autoencoders →](02_vae.ipynb)

# %% [markdown]
# # 01 · Autoregressive models
#
# **Write an image one pixel at a time, each given those before it, and know its exact probability.**
#
# | | |
# | --- | --- |
# | You need | conditional probability, logistic regression, what a convolution is; some PyTorch |
# | Time | about 36 minutes to read, 75 with the exercises. **The short way, 28 minutes:** up to and including *Train it*, then *PixelCNN*, *p(X, Y)*, *More than two levels* and *What to take away*. Two sections may be skipped and are folded; each says what it holds. The button *cells hidden* below such a heading opens it, and so does Shift+Enter |
# | You will meet | the chain rule, FVSBN, NADE, MADE, PixelCNN, the blind spot, Bayes' rule as a classifier |
# | Papers | Larochelle, Murray 2011, [NADE](https://proceedings.mlr.press/v15/larochelle11a.html); Germain, Gregor, Murray, Larochelle 2015, [MADE](https://arxiv.org/abs/1502.03509); van den Oord et al. 2016, [PixelRNN](https://arxiv.org/abs/1601.06759) and [gated PixelCNN](https://arxiv.org/abs/1606.05328) |
# | Source articles | 链式法则与自回归分解, "The chain rule and the autoregressive factorisation", and 对 MNIST 任务建模 p(X,Y), "Modelling p(X, Y) for MNIST" (both in Chinese) |
#
#
# ## See it
#
# Run the two cells below (Shift+Enter). A trained PixelCNN writes a handwritten digit, pixel by pixel, row by
# row. It is told which digit to write; choose another below the picture. Press play, or drag the slider. Then **click a
# pixel that has been written**: it flips, everything before it stays, and the model has to go on from there.

# %%
import torch

from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import MaskExplorer, PixelByPixel, ReceptiveField

one_thread()  # models this small are slower on two

# %%
pixelcnn = load_pretrained("pixelcnn_digits")


def write(image, n_known, label):
    """32 ways to go on after the first n_known pixels, and the probabilities met on the way."""
    x = torch.as_tensor(image).expand(32, 1, 8, 8)
    known = (torch.arange(64) < n_known).reshape(1, 8, 8)
    y = torch.full((32,), label)
    images = pixelcnn.complete(x, known, y=y)
    with torch.no_grad():
        return images, pixelcnn.conditionals(images, y)


PixelByPixel(
    write,
    labels=[f"digit {k}" for k in range(10)],
    title="A digit, pixel by pixel",
    alt="A PixelCNN writes a digit of 8 by 8 pixels, row by row; beside it the probability of each pixel.",
)

# %% [markdown]
# Three things to notice before any formula:
#
# - **The model commits.** Each pixel is drawn once and never revised. Click around in the first rows, and watch the
#   average of the continuations change.
# - **It says how sure it is.** Where the map of probabilities is dark or bright, it is nearly certain. One digit
#   differs from the next where it hesitates.
# - **Only the past counts.** Flip a pixel, and the probabilities before it do not move at all.

# %% [markdown]
# ## The idea: the chain rule
#
# Let $x = (x_1, \dots, x_n)$ be a vector of $n$ pixels, each 0 or 1. We want a distribution $p(x)$ that we can
# *evaluate* and *sample*. A table of all $2^n$ probabilities is out of the question for
# images. But any joint probability can be taken apart. By the definition of a conditional probability,
#
# $$p(x_1, \dots, x_n) = p(x_1, \dots, x_{n-1})\;p(x_n \mid x_1, \dots, x_{n-1}).$$
#
# Do the same with the first factor, and again, until $p(x_1)$ is left. (Where a history has probability 0, its
# conditional may be anything: the product is 0 either way.)
#
# $$\boxed{\;p(x) = \prod_{i=1}^{n} p(x_i \mid x_1, \dots, x_{i-1}) = \prod_{i=1}^{n} p(x_i \mid x_{<i})\;}$$
#
# Here $x_{<i}$ stands for $x_1, \dots, x_{i-1}$. Nothing has been assumed: the formula holds for every distribution and every order of the coordinates.
# It turns one hard question (how likely is this whole image?) into $n$ binary classifications (is this pixel white, given the
# ones before?). A model that answers them is called
# **autoregressive**: it predicts each coordinate from the earlier ones of the same vector.
#
# **And the other way round:** *any* functions $p(x_i = 1 \mid x_{<i})$ with values between 0 and 1 make a distribution.
# Sum the product over $x_n$ first. Only the last factor contains $x_n$, and $p(0 \mid x_{<n}) + p(1 \mid x_{<n}) = 1$. What is
# left is the same product for $n - 1$ coordinates; go on until 1 is left. So a model needs no normalising constant. One
# thing must hold: what factor $i$ is given may contain neither $x_i$ itself nor anything after it. Exercise 3 breaks this.
#
# | symbol | meaning |
# | --- | --- |
# | $x$, $x_i$ | a vector of $n$ pixels, each 0 or 1; its $i$-th coordinate |
# | $x_{<i}$ | the coordinates before the $i$-th in the model's order |
# | $p(x_i \mid x_{<i})$ | a conditional; for short also the number $p(x_i = 1 \mid x_{<i})$ |
# | $\sigma(a)$ | the logistic function $1 / (1 + e^{-a})$; $a$ is called the logit, $a_i$ that of conditional $i$ |
# | $W$, $V$; $b$, $c$; $j$ | weights; the biases of outputs and of hidden units; another coordinate, mostly one before $i$ |
# | $d$, $h_i$, $t_i$ | the number of hidden units; the hidden layer of conditional $i$; NADE's running sum |
# | $\pi_j$, $m_l$; $M^{(l)}$, $L$ | the place of coordinate $j$ in the order; the degree of a hidden unit in layer $l$; the mask of layer $l$ of $L$ |
# | $S$, $p_s$ | the number of mask sets; the distribution of one of them |
# | $r$, $k$; $\Delta r$, $\Delta k$; $R$ | in the part on PixelCNN: row and column of a pixel; how far above and to the right another one is; how many pixels a kernel reaches to each side |
# | $v_{r,k}$, $u_{r,k}$; $f$, $g$ | what the vertical and the horizontal stack know at a pixel; the two halves of a gate |
# | $x_H$, $x_G$; $q$, $w$ | hidden and given pixels ($H$, $G$: which ones); the distribution that draws are made from; their weights |
# | $y$, $K$ | the class of an image; the number of classes |
# | $B$ | the number of images in a batch; tensors `[B, n]` hold one in each row |
#
# Logarithms are natural: everything is in *nats*. Formulas count coordinates from 1; places in an order, and code, from 0.
#
# **Check it** on a table of random probabilities of all $2^4$ vectors, taken apart
# into conditionals and multiplied together again.

# %%
joint_table = torch.rand(2, 2, 2, 2, generator=seeded(0), dtype=torch.float64)
joint_table /= joint_table.sum()  # joint_table[a, b, c, d] = p(x = (a, b, c, d))

first = joint_table.sum(dim=(1, 2, 3))  # p(x1)
two, three = joint_table.sum(dim=(2, 3)), joint_table.sum(dim=3)  # p(x1, x2), p(x1, x2, x3)
second = two / first[:, None]  # p(x2 | x1)
third = three / two[:, :, None]
fourth = joint_table / three[:, :, :, None]
product = first[:, None, None, None] * second[:, :, None, None] * third[:, :, :, None] * fourth
print("the product of the conditionals is the table:", torch.allclose(product, joint_table))

# %% [markdown]
# **Sampling** follows the formula from left to right: draw $x_1$ from $p(x_1)$, then $x_2$ from
# $p(x_2 \mid x_1)$ with the value just drawn, and so on. The result has probability
# $p(x_1)\,p(x_2 \mid x_1) \cdots = p(x)$. This is *ancestral sampling*; the price is $n$ steps, one after
# the other.
#
# **Evaluation** need not wait: all of $x$ is known, so all conditionals can be computed at once.
# Training is maximum likelihood: make $-\log p(x) = -\sum_i \log p(x_i \mid x_{<i})$ small on average. It is a sum of
# $n$ classification losses. Each is judged on the true history, never on pixels that the model drew: **teacher forcing**.
# When it samples, the history is the model's own; after one bad pixel it may stand where training never was (**exposure bias**).
#
# **Exercise 1: predict before you read on.** Store each conditional as a table: one number
# $p(x_i = 1 \mid x_{<i})$ for each $i$ and each possible history $x_{<i}$. How many numbers are that for $n = 10$?
# (`hint("01.predict_tables")` helps, and more with each call. `solution("01.predict_tables")` shows what the library itself does. A `check` of a function
# tries it on fresh random inputs, accepts every right solution and says which property broke.)

# %%
from course_lib.exercises import check, hint, show_source, solution
from course_lib.experiments import dependencies

prediction = ...

check("01.predict_tables", prediction)

# %% [markdown]
# Pixel $i$ has $2^{i-1}$ possible histories, and $1 + 2 + \dots + 2^{n-1} = 2^n - 1$: exactly as many numbers as the table of the
# joint distribution has, which holds $2^n$ that sum to 1. The chain rule alone saves nothing. For $n = 784$, the
# pixels of MNIST, it is a number with 237 digits. So the conditionals must be *functions* with far fewer
# **parameters**, shared between histories. The models of this chapter differ in this function.
#
# **Exercise 2. Ancestral sampling**, whatever the function. `conditionals(x)` takes `[n, dim]` (here `n` draws of `dim` pixels) and returns the probabilities $p(x_i = 1 \mid x_{<i})$,
# for the order 0, 1, …, dim − 1. Draw all random numbers from `generator`.


# %%
def my_sample(conditionals, n, dim, generator):
    """Return n draws of zeros and ones, [n, dim]."""
    ...


check("01.sample", my_sample)

# %% [markdown]
# ## FVSBN: each conditional is a logistic regression
#
# The plainest function from a history to a probability: a weighted sum, through $\sigma$.
#
# $$p(x_i = 1 \mid x_{<i}) = \sigma\Big(b_i + \sum_{j<i} W_{ij}\,x_j\Big)$$
#
# This is the *fully visible sigmoid belief network*. One weight for each pair $j < i$ and one bias for each
# $i$ make $\frac{n(n-1)}{2} + n$ numbers, in place of $2^n - 1$. With a whole matrix $W$ of
# which only the part below the diagonal is let through, all $n$ logits are one matrix product:

# %%
import itertools

import scipy.stats
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.autoregressive import FVSBN, MADE, NADE, ImageAutoregressive, NaivePixelCNN
from course_lib.autoregressive import GatedLayer, PixelCNN, gate, made_masks, order_mask
from course_lib.data import load_digits
from course_lib.nn import MaskedLinear, bernoulli_log_prob, raster_mask
from course_lib.widgets import PALETTE, colour_map, image_grid, show_figure

show_source([FVSBN.logits, MaskedLinear.forward])

# %% [markdown]
# and the mask lets $W_{ij}$ through where $j$ comes earlier in the order than $i$:

# %%
show_source(order_mask)

# %% [markdown]
# **The likelihood** adds up the log-probabilities of the values that the pixels really have. From the
# logit $a_i$ that is $\log \sigma(a_i)$ for a one and $\log(1 - \sigma(a_i)) = \log \sigma(-a_i)$ for a zero. The sign
# of $2 x_i - 1$ says which, and so both cases are $\log \sigma((2 x_i - 1)\, a_i)$. (As $\log \sigma(a) = -\log(1 + e^{-a}) = a - \log(1 + e^a)$, it is
# $x_i a_i - \log(1 + e^{a_i})$ as well.)

# %%
show_source(bernoulli_log_prob)

# %% [markdown]
# **Check it**, in two ways that every model of this chapter must pass. For small $n$ we can list all $2^n$ vectors:
# their probabilities must sum to 1. And the derivative of conditional $i$ with respect to $x_j$ must be exactly
# zero unless $j$ comes before $i$. (We look at some points only. The masks, in the source, say it for all.)


# %%
def everything(n):
    """All 2^n binary vectors, [2^n, n]."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def total(model, n):
    """The sum of the probabilities of all vectors."""
    with torch.no_grad():
        return model.log_prob(everything(n)).exp().sum().item()


torch.manual_seed(0)
fvsbn = FVSBN(9).double()
print("the 512 probabilities sum to 1, within 1e-12:", abs(total(fvsbn, 9) - 1) < 1e-12)

sees = dependencies(fvsbn.conditionals, everything(9)[::37])  # sees[i, j]: does i depend on j?
before = torch.ones(9, 9, dtype=torch.bool).tril(-1)
print("conditional i depends on all j before it, and on no other:", torch.equal(sees, before))

# %% [markdown]
# And samples must come as often as the probabilities say. Draw 100,000, count each of the 512 vectors, and compare
# with the expected counts by a χ² test. Its p-value is the probability of counts at least this far off if the model and the
# sampler agree.

# %%
samples = fvsbn.sample(100_000, generator=seeded(1))
row = samples @ 2.0 ** torch.arange(8, -1, -1).double()  # of each sample in everything(9)
counts = row.long().bincount(minlength=512)
with torch.no_grad():
    expected = 100_000 * fvsbn.log_prob(everything(9)).exp()
chi2 = ((counts - expected) ** 2 / expected).sum().item()
print("the χ² test finds no difference (p above 0.001):", scipy.stats.chi2.sf(chi2, 511) > 1e-3)

# %% [markdown]
# **What it learned.** Below is the FVSBN trained on the 8×8 digits, in black and white. Each small picture shows the
# weights $W_{ij}$ of one pixel $i$ (the frame): blue pixels $j$ speak against a white pixel there, orange ones for it.
# Pixels after the frame have no weight, because they have no say.

# %% jupyter={"source_hidden": true}
trained_fvsbn = load_pretrained("fvsbn_digits")
fvsbn_weights = (trained_fvsbn.linear.weight * trained_fvsbn.mask).detach().reshape(64, 8, 8)
figure = Figure(figsize=(9.6, 1.8))
for axes, i in zip(panels := figure.subplots(1, 6), [10, 20, 27, 35, 44, 53], strict=True):
    picture = axes.imshow(fvsbn_weights[i], cmap=colour_map("signed"), vmin=-2.5, vmax=2.5)
    axes.add_patch(Rectangle((i % 8 - 0.5, i // 8 - 0.5), 1, 1, fill=False, lw=1.5))
    axes.set_title(f"row {i // 8}, column {i % 8}", fontsize=9)
    axes.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=panels, label="weight", fraction=0.02)
show_figure(
    figure,
    alt="The weights of six pixels of the FVSBN: largest next to the pixel, above and to the left.",
)

# %%
size = fvsbn_weights.abs().flatten(1)
inner = torch.arange(64).reshape(8, 8)[1:, 1:-1].flatten()  # each has a pixel above and to the left
for name, step in (("above", 8), ("to the left", 1), ("above and to the left", 9)):
    print(f"mean size of the weight of the pixel {name}: {size[inner, inner - step].mean():.1f}")
print(f"of all pixels before: {size[trained_fvsbn.mask.bool()].mean():.1f}")

# %% [markdown]
# The pixel above has the most to say, then the one to the left: strokes go on.
#
# **What it can't learn.** A logistic regression draws one straight border through its inputs. Take three bits of
# which the third is the exclusive or of the first two: $x_3 = 1$ if exactly one of $x_1, x_2$ is 1. All four cases are equally
# likely. The entropy is $\ln 4 = 2 \ln 2 \approx 1.386$ nats, and a perfect model reaches it. The FVSBN cannot do
# better than $3 \ln 2 \approx 2.079$. Why? The first two bits are fair coins, and no model pays less than $\ln 2$ for each. For
# the third, the loss as a function of its logit is $-x_3\,a + \log(1 + e^a)$. Its first derivative is
# $\sigma(a) - x_3$, its second $\sigma(a)(1 - \sigma(a)) > 0$: convex in $a$, and so convex in the bias and the two
# weights, in which $a = b_3 + W_{31} x_1 + W_{32} x_2$ is linear. At $b_3 = W_{31} = W_{32} = 0$ the slopes $\sigma(0) - x_3$ are
# $+\tfrac12, -\tfrac12, -\tfrac12, +\tfrac12$ in the cases 00, 01, 10, 11. The gradient averages them for $b_3$, those with
# $x_1 = 1$ for $W_{31}$ and those with $x_2 = 1$ for $W_{32}$: each time the result is 0. A convex function is smallest
# where its gradient vanishes. There the model says "one half" to everything, and pays $\ln 2$ a third time.
#
# A hidden layer cures it, as in the model of the next section:

# %%
xor = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]).float().repeat(32, 1)
torch.manual_seed(0)
logistic, neural = FVSBN(3), NADE(3, 8)
for model in (logistic, neural):
    fit(model, xor, steps=400, batch_size=128, lr=0.05)

ln2 = torch.tensor(2.0).log().item()
with torch.no_grad():
    at_fvsbn, at_nade = logistic.loss(xor).item(), neural.loss(xor).item()
print("the FVSBN stays at 3 ln 2, within 0.01:", abs(at_fvsbn - 3 * ln2) < 0.01)
print("the NADE reaches 2 ln 2, within 0.05:", abs(at_nade - 2 * ln2) < 0.05)

# %% [markdown]
# ## NADE: a hidden layer for each conditional, all from one running sum
#
# Give every conditional a hidden layer $h_i$ of $d$ units that sees $x_{<i}$:
#
# $$h_i = \sigma\Big(c + \sum_{j<i} W_j\,x_j\Big), \qquad p(x_i = 1 \mid x_{<i}) = \sigma\big(b_i + V_i \cdot h_i\big),$$
#
# with $W_j, V_i, c \in \mathbb R^d$. The trick of the *neural autoregressive distribution estimator* is that
# $W_j$ carries no index $i$: pixel $j$ says the same thing to all conditionals after it.
#
# **Parameters.** With weights of its own for each pair $(i, j)$, $W_{ij} \in \mathbb R^d$, the model would have
# $O(n^2 d)$ of them. Shared, it has $n d$ in $W$, $n d$ in $V$, and $n + d$ biases.
#
# **Time.** Computed one by one, the sums $t_i = c + \sum_{j<i} W_j x_j$ cost $0 + d + 2d + \dots + (n-1)d$, which is
# $O(n^2 d)$. But since the weights are shared, each sum is the one before it plus one term:
#
# $$t_1 = c, \qquad t_{i+1} = t_i + W_i\,x_i.$$
#
# One addition of $d$ numbers for each step: $O(n d)$ for *all* hidden layers, as much as a single one costs.
# In the source, `cumsum` is the running sum, and $c$ stands in front as the weight of a coordinate
# that is always 1. (The batch is cut into parts so that the `[B, n, d]` numbers fit into the processor's cache.)

# %%
show_source(NADE.logits)

# %% [markdown]
# For sampling, the running sum is carried along: draw $x_i$, add $W_i x_i$, go on. All $n$ steps cost $O(n d)$, as
# one evaluation does.

# %%
show_source(NADE.walk)

# %% [markdown]
# **Check it** against the definition, with each sum computed from the start; and the two laws, for a mixed order.

# %%
torch.manual_seed(1)
order = [4, 0, 7, 2, 8, 1, 6, 3, 5]
nade = NADE(9, 6, order=order).double()
x = everything(9)[300:310]
slow = torch.empty_like(x)
for k, i in enumerate(order):
    hidden = (nade.c + x[:, order[:k]] @ nade.W[order[:k]]).sigmoid()
    slow[:, i] = nade.b[i] + hidden @ nade.V[i]
print("the running sum gives the logits of the definition:", torch.allclose(nade.logits(x), slow))

place = torch.tensor(order).argsort()  # coordinate i comes as the place[i]-th
print("the 512 probabilities sum to 1, within 1e-12:", abs(total(nade, 9) - 1) < 1e-12)
sees = dependencies(nade.conditionals, everything(9)[::37])
print("only earlier coordinates count:", torch.equal(sees, place[:, None] > place[None, :]))

# %% [markdown]
# **The order matters.** The chain rule holds for every order, but a model of limited functions does not come out the
# same: another order asks other questions. For images row by row is the usual choice: the
# pixels next door have just been seen.
#
# ## MADE: the masks do it
#
# Can an ordinary network, all matrices, compute all $n$
# conditionals in one pass? An autoencoder takes $x$ and returns $n$ numbers, but its output $i$ sees all of $x$,
# $x_i$ included. The *masked autoencoder for distribution estimation* cuts connections until it doesn't.
#
# Give each unit a number, its **degree**: how far in the order it may look. An input's degree is its place in the
# order, $0, \dots, n-1$. A hidden unit's degree is anything from $0$ to $n-2$. (A unit of degree $n-1$ would see the last input, which no output may
# use.) Then connect
#
# - a hidden unit with the units below it of a degree **at most** its own,
# - output $i$ with the hidden units of degree **strictly below** its place in the order.
#
# **Why it works.** Write the mask of layer $l$ as a matrix $M^{(l)}$ of zeros and ones. Take the product
# $M^{(L)} \cdots M^{(2)} M^{(1)}$. Its entry $(i, j)$ is a sum over all chains input $j$ → unit → … → unit → output $i$ of
# products of mask entries. Such a product is 1 if every link of the chain is there, and 0 otherwise, so the entry
# **counts the paths** from input $j$ to output $i$. Along a path the degrees never fall from the input to the last
# hidden layer, and at the output there is a strict step up. With $\pi_j$ for the place of coordinate $j$ and $m_1, m_2,
# \dots$ for the degrees on the way,
#
# $$\pi_j \le m_1 \le m_2 \le \dots \le m_{L-1} < \pi_i \quad\Longrightarrow\quad \pi_j < \pi_i .$$
#
# If $j$ does not come before $i$ there is no path, and so no dependence, whatever the weights and the
# nonlinearities are. No path leads to the first output in the order: its logit is its bias alone.

# %%
show_source(made_masks)

# %% [markdown]
# **Explore the masks.** Point at a unit to see which inputs reach it. Drag an input onto another to change the order:
# the masks follow. Then let the outputs use $\le$ in place of $<$, and see what leaks.

# %%
small = MADE(8, [12, 12])
MaskExplorer(
    small.degrees[0],
    title="The masks of a MADE with 8 inputs",
    alt="A network of eight inputs, two hidden layers and eight outputs; each output sees only inputs before it in the order.",
)

# %% [markdown]
# **Check it**: the product of the masks against the Jacobian of the network, and the sum over all vectors.

# %%
torch.manual_seed(2)
made = MADE(9, [40, 40], order=order).double()
mask_1, mask_2, mask_3 = made_masks(made.degrees[0])
paths = mask_3 @ mask_2 @ mask_1  # paths[i, j]: how many lead from input j to output i
sees = dependencies(made.conditionals, everything(9)[::37])
print("the Jacobian is zero exactly where no path leads:", torch.equal(sees, paths > 0))
print("only earlier coordinates count:", torch.equal(sees, place[:, None] > place[None, :]))
print("the 512 probabilities sum to 1, within 1e-12:", abs(total(made, 9) - 1) < 1e-12)

# %% [markdown]
# **Exercise 3. Break it.** Let the last mask use $\ge$ in place of $>$; `degrees` is a list of integer tensors, as `made_masks` takes it. The training loss becomes better than any
# honest model's. Why is it worthless? Think of an answer before you run the check; it shows you what happens. (And,
# answered below: in the widget above, one output does not see its own input even then. Which?)


# %%
def my_leaky_masks(degrees):
    """Return the masks of made_masks, with ≥ in place of > in the last one."""
    ...


check("01.break_the_order", my_leaky_masks)

# %% [markdown]
# The check uses hidden units of *every* degree, so that all outputs leak. This chapter's hidden degrees end at $n - 2$. The last output, of place $n - 1$, could
# see its own input only through a hidden unit of degree $n - 1$, and there is none:

# %%
from course_lib.experiments import leaky_masks

masks = leaky_masks(small.degrees[0])
own = (masks[2] @ masks[1] @ masks[0]).diagonal()
print("outputs that see their own input:", (own > 0).nonzero()[:, 0].tolist(), "of 0 ... 7")

# %% [markdown]
# ## Train it
#
# 1,438 handwritten digits of 8×8 pixels, cut to black and white at half of the grey scale. Each batch is turned, moved
# and resized a little: a network that sees the same few images again and again ends by knowing them by heart. That is
# **overfitting**, and its mark is a loss that falls on the training images and rises on test images.

# %%
from course_lib.training.batches import digits_batch
from course_lib.training.recipes_autoregressive import binary_digits

train_digits = load_digits("train")[0].flatten(1)
test_images, test_labels = binary_digits("test")
show_figure(
    image_grid(test_images[:24], columns=12, size=0.6),
    alt="Twenty-four handwritten digits, 8 by 8 pixels, black and white.",
)

# %%
torch.manual_seed(4)
model = MADE(64, [200])
history = fit(
    model, train_digits, steps=1000, batch_size=128, lr=5e-3, transform=digits_batch("binary")
)
print("training loss fell below 20 nats:", history.loss() < 20)

with torch.no_grad():
    on_test = model.loss(test_images.flatten(1)).item()
print("images it never saw cost no more than those of training:", on_test < history.loss())

figure = Figure(figsize=(6, 2.6))
axes = figure.subplots()
axes.plot(history.losses, lw=0.6, color=PALETTE["model"], label="training")
axes.axhline(on_test, ls="--", color=PALETTE["data"], label="test, at the end")
axes.set(xlabel="step", ylabel="nats", title="−log p(x)", ylim=(15, 46))
axes.legend()
figure.tight_layout()
show_figure(
    figure,
    alt="The training loss falls from 44 nats, which is 64 ln 2, to less than 20; the loss on test images, dashed, lies a little below.",
)

# %% [markdown]
# It starts near $64 \ln 2 \approx 44.4$ nats, the loss of a model that says one half to everything. At the end the test images cost no more than the training images. Those are moved about, and so harder; so this is a good sign, and no proof: overfitting shows in a test loss that *rises* during training. Samples:

# %%
samples = model.sample(24, generator=seeded(0)).reshape(-1, 1, 8, 8)
show_figure(
    image_grid(samples, columns=12, size=0.6),
    alt="Twenty-four samples of the MADE just trained: some can be read as digits, others are strokes of none.",
)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## Several mask sets, and what each model costs
#
# *This section may be skipped: one network that answers in several orders, and a table of costs.*

# %% [markdown]
# ### Several mask sets
#
# Draw $S$ sets, use a
# random one of them in each step of training, and let all share their weights.
#
# - *Connectivity-agnostic*: one order, other degrees of the hidden units in each set, against overfitting.
# - *Order-agnostic*: each set has an order of its own (Uria, Murray, Larochelle 2014, [arXiv:1310.1757](https://arxiv.org/abs/1310.1757)). Whatever
#   half of an image is known, some order may begin with it (Exercise 7).
#
# Every set is a distribution $p_s$, and so is their average, $p(x) = \frac1S \sum_s p_s(x)$: that is what
# `MADE(..., order="random", n_masks=S).log_prob` returns. The logarithm is concave, and so
#
# $$\log \frac1S \sum_s p_s(x) \;\ge\; \frac1S \sum_s \log p_s(x).$$
#
# Training with a random set in each step minimises, on average, the right side with a minus sign: an upper bound of the
# loss $-\log p(x)$.

# %%
torch.manual_seed(3)
several = MADE(9, [40], order="random", n_masks=4).double()
x = everything(9)
with torch.no_grad():
    members = torch.stack([bernoulli_log_prob(several.logits(x, k), x) for k in range(4)])
    average = several.log_prob(x)
print(
    "the average of four distributions sums to 1, within 1e-12:", abs(total(several, 9) - 1) < 1e-12
)
print("and is never below the mean of the logs:", bool((average >= members.mean(0) - 1e-12).all()))

# %% [markdown]
# **The price** is paid at sampling: every new pixel changes the input of the whole network, so that $n$ pixels take $n$
# full passes. NADE needs one pass's worth.
#
# | | parameters | all conditionals of one $x$ | one sample |
# | --- | --- | --- | --- |
# | table | $2^n - 1$ | $O(n)$ | $O(n)$ |
# | FVSBN | $O(n^2)$ | $O(n^2)$ | $O(n^2)$ |
# | NADE | $O(n d)$ | $O(n d)$, in $n$ small steps | $O(n d)$ |
# | MADE, one hidden layer | $O(n d)$ | $O(n d)$, in two matrix products | $O(n^2 d)$: $n$ passes |
# | PixelCNN, $L$ layers of $d$ channels | $O(L d^2)$ | $O(n L d^2)$ | $O(n L d^2)$, with the trick below |

# %% [markdown]
# ## PixelCNN: the same question everywhere
#
# NADE and MADE have weights of their own for each pixel, and must learn anew at each place what a stroke is. A convolution has the same weights everywhere. Visit the
# pixels in *raster order*, row by row from the top, each row from the left. The convolution must not see
# the pixel itself and all that follow. So multiply its kernel by a mask: a **masked** (or *causal*) **convolution**.
#
# - **Mask A** hides the centre, everything right of it in its row, and all rows below. The first layer needs it: its
#   input is the image, and the centre is the very pixel that is to be predicted.
# - **Mask B** shows the centre too. From the second layer on the centre is a feature that has not seen its
#   pixel: it may be used, and should be.

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(4.4, 2.3))
for axes, kind in zip(figure.subplots(1, 2), "AB", strict=True):
    axes.pcolormesh(raster_mask(5, kind), cmap="Greys", vmin=0, vmax=2.2, edgecolor="grey", lw=1)
    axes.add_patch(Rectangle((2, 2), 1, 1, fill=False, ec=PALETTE["model"], lw=3))
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set_title(f"mask {kind}, 5 × 5")
    axes.set(xticks=[], yticks=[])
figure.tight_layout()
show_figure(
    figure,
    alt="Masks A and B of a 5 by 5 kernel: two full rows above, then the row's left part; B adds the centre.",
)

# %% [markdown]
# **The blind spot.** Stack such layers, with 3 × 3 kernels. The mask lets information travel in steps of
# one pixel: straight down, down to the left, down to the right, or to the right within the row. To reach the pixel in row
# $r$ and column $k$ from one above and to the right, $\Delta r$ rows up and $\Delta k$ columns on, it has to move
# $\Delta k$ columns to the left. It can only do so while it moves down, one column at most for each row. So it needs
# $\Delta k \le \Delta r$. The pixels with $\Delta k > \Delta r$ come earlier in the order, and this network cannot see them,
# however many layers it has. It is still a valid distribution: it loses nats, not validity.
#
# **Exercise 4: predict before you go on.** An image has 7 × 7 pixels. The model predicts the one in the middle; 24 pixels
# come before it. How many of them does it never see?

# %%
prediction = ...

check("01.blind_spot", prediction)

# %% [markdown]
# **See it.** Step through the layers, and move the pixel about.


# %%
def receptive_field(model, size=17):
    """Which pixels of a size × size image reach the logit of the middle one, [size, size]."""
    for parameter in model.parameters():  # all positive: nothing cancels, and no ReLU is shut
        torch.nn.init.constant_(parameter, 0.05)
    middle = size // 2

    def middle_logit(x):
        return model.logits(x.reshape(-1, 1, size, size))[:, 1, middle, middle, None]

    return dependencies(middle_logit, torch.ones(1, size * size)).reshape(size, size)


depths = range(1, 7)
fields = [
    torch.stack([receptive_field(NaivePixelCNN(4, depth)) for depth in depths]),
    torch.stack([receptive_field(PixelCNN(4, depth, first_kernel_size=3)) for depth in depths]),
]
ReceptiveField(
    fields,
    names=["masks A and B", "two stacks"],
    size=(9, 9),
    title="What a pixel sees, layer by layer",
    alt="The receptive field of a pixel grows with each layer; with plain masks a wedge up to the right stays unseen.",
)

# %% [markdown]
# **Exercise 5: derive, then predict.** Does a wider filter cure it? Derive the condition on $\Delta k$ and $\Delta r$ for kernels of 5 × 5. An image has 15 × 15 pixels, and the
# model predicts the one in the middle. How many of the 112 pixels before it does it never see, however deep it is?

# %%
prediction = ...

check("01.blind_spot_5x5", prediction)

# %% [markdown]
# **Two stacks** remove it. Split the past of pixel $(r, k)$ into what lies in the rows above and what lies to the left in
# its own row, and give each part a stack of layers.
#
# - The **vertical stack** $v_{r,k}$ sees rows above row $r$ only, and needs no mask to the right, since everything in those
#   rows is past: its kernels are full rectangles. Let a kernel reach $R$ pixels up and to either side. The first layer reads the image
#   in rows $r-R, \dots, r-1$. If $v^{(l-1)}_{r,\cdot}$ has seen nothing but rows above $r$, then $v^{(l)}_{r,k}$, which reads
#   $v^{(l-1)}$ in rows $r-R, \dots, r$, hasn't either. What it has seen is a rectangle, $l R$ rows high (if all layers have the same reach)
#   with $l R$ columns to either side, and no wedge is left out.
# - The **horizontal stack** $u_{r,k}$ (`h` in the source) adds the pixels to the left: a kernel of one row that reads the columns
#   $k-R, \dots, k-1$ of the image in the first layer, and $k-R, \dots, k$ of $u^{(l-1)}$ in the others. It is told what
#   the vertical stack knows; never the other way round, because $u$ has seen pixels of row $r$ that $v_{r,\cdot}$ must not know.
#
# So with enough layers a pixel sees all its past. (With few, what lies beyond their reach is *assumed* not to matter. Depth repairs this; it never repairs the blind spot.)
#
# In place of a ReLU there is a *gate*, $\tanh(f)\,\sigma(g)$ with two different convolutions $f$ and $g$: one says what,
# the other how much. The horizontal stack adds each layer to what was there before (a residual connection).

# %%
show_source([GatedLayer.forward, GatedLayer.look_up, GatedLayer.look_left, gate])

# %% [markdown]
# The same as a diagram, of the model that wrote the digits above, with its own names, kernels and shapes ($B$ images at a time).

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import pixelcnn_diagram
from course_lib.widgets import show_diagram

show_diagram(pixelcnn_diagram(pixelcnn))

# %% [markdown]
# A class label $y$ enters as a bias of every layer, one vector for each class. The network then returns
# $p(x_i \mid x_{<i}, y)$, and the product of these is $p(x \mid y)$.
#
# **Check it**: the probabilities of all 512 images of 3 × 3 pixels, and what each pixel sees (three layers are enough here):
# flip each pixel of each image, and look which conditionals change at all.

# %%
torch.manual_seed(6)
tiny = PixelCNN(8, 3, first_kernel_size=3).double()
images = everything(9).reshape(-1, 1, 3, 3)
with torch.no_grad():
    mass = tiny.log_prob(images).exp().sum().item()
print("the 512 probabilities sum to 1, within 1e-12:", abs(mass - 1) < 1e-12)


def tiny_conditionals(x):
    return tiny.conditionals(x.reshape(-1, 1, 3, 3)).flatten(1)


x = everything(9)
sees = torch.zeros(9, 9, dtype=torch.bool)
with torch.no_grad():
    as_they_are = tiny_conditionals(x)
    for j in range(9):
        flipped = x.clone()
        flipped[:, j] = 1 - x[:, j]
        sees[:, j] = (tiny_conditionals(flipped) != as_they_are).any(dim=0)
print("each pixel sees all pixels before it, and no other:", torch.equal(sees, before))

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## Sampling without doing everything again
#
# *This section may be skipped: why PixelCNN draws an image for the price of one pass, and not of 784.*

# %% [markdown]
# ### The plain way to sample
#
# Run the whole network, use its answer for one pixel, write it, run the whole network again.

# %%
show_source(ImageAutoregressive.walk)

# %% [markdown]
# `walk` gives the probabilities of one pixel after the other; between two of them the caller writes the pixel into `x`. For $n$ pixels that is $n$ full passes, $O(n^2)$ work, and almost all
# of it was done before. What does a new pixel change? (Keeping the rest is due to Ramachandran et al. 2017, [arXiv:1704.06001](https://arxiv.org/abs/1704.06001).)
#
# - The vertical stack in row $r$ sees rows above $r$ only, which don't change while row $r$ is written:
#   it is computed **once for each row**.
# - The horizontal stack at $(r, k)$ sees what is to the left. Writing $x_{r,k}$ changes nothing at or left of
#   $k$: it is computed **once for each pixel**.
#
# PixelCNN's own walk does just that:

# %%
show_source(PixelCNN.walk)

# %% [markdown]
# All in all, the walk through an image costs the arithmetic of about *one* full pass. Measured on two
# laptop-like cores in November 2026 (`python -m benchmarks autoregressive` measures it on yours):
#
# | image | pixels | one image: times faster than full passes | 16 images |
# | --- | ---: | ---: | ---: |
# | 8×8 | 64 | 2.3 | 4.4 |
# | 16×16 | 256 | 5.5 | 10.9 |
# | 28×28 | 784 | 11.9 | 40 (full passes: first row, times 28) |
#
# Not 784 times: a processor does 784 small steps less well than one large one. The samples are the same ones, from the same random numbers:


# %%
class Plain(PixelCNN):
    """The same model, sampled with a full pass for every pixel."""

    walk = ImageAutoregressive.walk


plain = Plain(24, 4, n_classes=10)
plain.load_state_dict(pixelcnn.state_dict())
labels = torch.arange(10)
quick = pixelcnn.sample(10, y=labels, generator=seeded(0))
print("the same ten images:", torch.equal(quick, plain.sample(10, y=labels, generator=seeded(0))))

# %% [markdown]
# ## What it writes
#
# One column for each class: 8×8 pixels, then binarized MNIST.

# %%
ten_each = torch.arange(10).repeat(3)
show_figure(
    image_grid(pixelcnn.sample(30, y=ten_each, generator=seeded(1)), columns=10, size=0.7),
    alt="Three rows of ten sampled digits of 8 by 8 pixels, zero to nine: nearly all can be read.",
)

# %%
mnist_model = load_pretrained("pixelcnn_mnist")
mnist_samples = mnist_model.sample(30, y=ten_each, generator=seeded(1))
show_figure(
    image_grid(mnist_samples, columns=10, size=0.8),
    alt="Three rows of ten sampled digits of 28 by 28 pixels, zero to nine, drawn like handwriting.",
)

# %% [markdown]
# ## p(X, Y): the generator is a classifier
#
# A model of images *and* labels, $p(x, y) = p(y)\,p(x \mid y)$, is again the chain rule, with the label as the very
# first coordinate. Trained on labelled digits it draws what you ask for; and by Bayes' rule it says what a given image is, as a **generative classifier** (a *discriminative* one, like logistic regression, models $p(y \mid x)$ directly):
#
# $$p(y \mid x) = \frac{p(x \mid y)\,p(y)}{\sum_{y'} p(x \mid y')\,p(y')}, \qquad p(x) = \sum_y p(x \mid y)\,p(y).$$
#
# All $p(y)$ are $\frac1{10}$ here. The likelihoods are tiny, on MNIST numbers like $e^{-80}$, so everything is done
# with logarithms: the denominator is a `logsumexp`.

# %%
show_source([ImageAutoregressive.log_joint, ImageAutoregressive.log_prob])

# %% [markdown]
# **Exercise 6. The generator as a classifier.** Log-likelihoods of larger images are numbers like −700, and in float32 all numbers below
# $e^{-103}$ are zero.


# %%
def my_log_posterior(log_likelihood, log_prior):
    """Return log p(y | x) [B, K] from log p(x | y) [B, K] and log p(y) [K]."""
    ...


check("01.bayes_classifier", my_log_posterior)

# %% [markdown]
# Beside it, a model that was made for classifying: logistic
# regression, $p(y \mid x)$ directly, on the same black and white pixels. On the digits it sees ten jittered copies of
# each training image, since PixelCNN saw many; on MNIST one random binarization of the 60,000 images.

# %%
table = "| accuracy on test images | PixelCNN and Bayes' rule | logistic regression |\n| --- | ---: | ---: |\n"
for name, card in [("digits, 8×8", "pixelcnn_digits"), ("MNIST, binarized", "pixelcnn_mnist")]:
    metrics = load_card(card)["metrics"]
    by_bayes = metrics["accuracy as a classifier"]
    direct = metrics["accuracy of logistic regression"]
    table += f"| {name} | {by_bayes:.1%} | {direct:.1%} |\n"
Markdown(table)

# %% [markdown]
# A by-product of the generator beats the specialist that knows only straight borders. It needs ten passes for each
# image. In exchange it can be asked
# *how likely the image is at all*. The images with the smallest $p(x)$ among the 359, and with the largest:

# %%
with torch.no_grad():
    log_p = pixelcnn.log_prob(test_images)  # [359], the labels not given
from_unlikely = log_p.argsort()
ranks = {"unlikely": from_unlikely[:12], "likely": from_unlikely[-12:], "all": from_unlikely}
for name, which in ranks.items():
    images = test_images[which]
    borders = images.diff(dim=2).abs().sum() + images.diff(dim=3).abs().sum()
    with torch.no_grad():
        p = pixelcnn.conditionals(images, test_labels[which])
    unsure = ((p > 0.1) & (p < 0.9)).sum() / len(images)
    print(
        f"{name}: {borders / len(images):.0f} borders between black and white in an image, ", end=""
    )
    print(f"{unsure:.0f} pixels with a p between 0.1 and 0.9")
odd, plain_ones = test_images[ranks["unlikely"]], test_images[ranks["likely"]]
show_figure(
    image_grid(torch.cat([odd, plain_ones]), columns=12, titles=["unlikely", "likely"], size=0.6),
    alt="The twelve least likely test digits are full of corners and turns; many of the most likely are plain ones.",
)

# %% [markdown]
# $p(x)$ rewards the plain image: where black and white meet less often, fewer pixels are uncertain. A low likelihood means many surprises,
# not "no digit".

# %% [markdown]
# ## Complete what is hidden
#
# Hide the **lower** half of a digit. What is known comes first in the order. So drawing the
# rest, pixel by pixel, is a draw from $p(\text{hidden} \mid \text{known})$: the chain rule started in the middle. (The class
# is hidden too. `complete` first draws it from $p(y \mid \text{known})$, by Bayes' rule.)

# %%
chosen = test_images[[2, 8, 11, 16, 20, 31]]
upper = torch.zeros(1, 8, 8, dtype=torch.bool)
upper[:, :4] = True


def shown(x, known):
    """The image with hidden pixels in grey."""
    return torch.where(known, x, 0.5)


rows = [chosen, shown(chosen, upper)]
rows += [pixelcnn.complete(chosen, upper, generator=seeded(seed)) for seed in (1, 2, 3)]
names = ["original", "given", "completed", "again", "again"]
show_figure(
    image_grid(torch.cat(rows), columns=6, titles=names, size=0.75),
    alt="Six digits with the lower half hidden, and three completions each: different digits that fit the upper half.",
)

# %% [markdown]
# Now hide the **upper** half. The model writes it first, without a look at the lower one: it answers
# $p(\text{later} \mid \text{earlier})$ quickly, and here we need $p(\text{earlier} \mid \text{later})$.
#
# Weights help. Call the hidden pixels $x_H$ and the given ones $x_G$. Draw a class, and then each hidden pixel from its own
# conditional, with the given ones left in place. Such a draw has the probability
# $q(x_H, y) = p(y) \prod_{i \in H} p(x_i \mid x_{<i}, y)$. We want draws in proportion to
# $p(x_H, x_G, y) = p(y) \prod_{\text{all } i} p(x_i \mid x_{<i}, y)$. The ratio is what the hidden part makes of the given pixels:
#
# $$w(x_H, y) = \frac{p(x_H, x_G, y)}{q(x_H, y)} = \prod_{i \in G} p(x_i \mid x_{<i}, y).$$
#
# So draw many, and draw again among them in proportion to $w$: what is picked has a probability in proportion to
# $q\,w = p(x_H, x_G, y)$: nearly, and exactly in the limit of many draws. This is *sampling importance resampling*. How many of 400 draws do the
# work says the *effective sample size*, $(\sum w)^2 / \sum w^2$: 400 if all weigh the same, 1 if one has it all.

# %%
lower = ~upper
classes = torch.arange(10).repeat(6 * 40)  # 400 draws for each of the six images
blind = pixelcnn.complete(chosen.repeat_interleave(400, 0), lower, y=classes, generator=seeded(3))
with torch.no_grad():
    p = pixelcnn.conditionals(blind, classes)
log_p = torch.where(blind == 1, p, 1 - p).clamp(min=1e-12).log()  # of the values there are
log_w = (log_p * lower).sum(dim=(1, 2, 3)).reshape(6, 400)
share = log_w.softmax(dim=1)
effective = 1 / share.square().sum(dim=1)
print(f"effective sample size of 400 draws: {effective.min():.0f} to {effective.max():.0f}")
picked = share.multinomial(3, replacement=True, generator=seeded(4))
of_picked = log_w.gather(1, picked).mean()
print(
    f"log-probability of the given half, mean: {log_w.mean():.0f}; of those picked: {of_picked:.0f}"
)

blind = blind.reshape(6, 400, 1, 8, 8)
image = torch.arange(6)
rows = [chosen, shown(chosen, lower), blind[:, 5]]  # the sixth draw of each: a five
rows += [blind[image, picked[:, k]] for k in range(3)]
names = ["original", "given", "blind", "weighed", "again", "again"]
show_figure(
    image_grid(torch.cat(rows), columns=6, titles=names, size=0.75),
    alt="Six digits with the upper half hidden: written blindly the halves do not meet; after weighing they do.",
)

# %% [markdown]
# Drawn blindly (the row shows a five for each), an upper half seldom fits the given one; one to three dozen of 400 draws do all the work. There is a better way if you may choose the model: an order-agnostic MADE may have, among its orders, some that begin with what is given.
#
# **Exercise 7. Completion in any order.** Given the conditionals of all mask sets and their orders, what is $\log p(x_H \mid x_G)$? Ask first: which sets can
# answer at all? And do those that can count alike?


# %%
def my_completion_log_prob(x, conditionals, places, known):
    """Return log p(hidden | known) in nats, [B], of the mixture of the sets that can say it.

    x is [B, n]; conditionals [S, B, n]: p_s(x_i = 1 | pixels before i in the order of set s);
    places [S, n]: where each pixel stands in each order; known [n]: True where a pixel is given.
    """
    ...


check("01.completion", my_completion_log_prob)

# %% [markdown]
# ## More than two levels
#
# Nothing in the chain rule asks for bits. With more grey levels each conditional is a *softmax* over them. The 8×8
# digits have 17, and so does this PixelCNN. Its output treats the levels as names, and has to learn by itself that 7 is close
# to 8; as input it is given the number, too.

# %%
grey = load_pretrained("pixelcnn_digits_grey")
grey_samples = grey.sample(30, y=torch.arange(10).repeat(3), generator=seeded(5)) / 16
show_figure(
    image_grid(grey_samples, columns=10, size=0.7),
    alt="Thirty sampled digits of 8 by 8 pixels in 17 grey levels, three of each class.",
)

# %% [markdown]
# **One pixel, 17 answers.** What the network says about a pixel is a whole distribution. Six pixels of one test digit, each given the true pixels before it:

# %%
from course_lib.training.recipes_autoregressive import grey_digits

grey_images, grey_labels = grey_digits("test")
with torch.no_grad():
    everywhere = grey.logits(grey_images, grey_labels).softmax(dim=1)  # [359, 17, 8, 8]
levels = everywhere[2]
places = [(0, 0), (2, 4), (3, 2), (3, 3), (4, 3), (5, 5)]
print("the likeliest level at a ... f:", [int(levels[:, r, k].argmax()) for r, k in places])
figure = Figure(figsize=(9.6, 3.6))
grid = figure.add_gridspec(2, 4)
axes = figure.add_subplot(grid[:, 0])
axes.imshow(grey_images[2, 0], cmap=colour_map("grey"))
axes.set(xticks=[], yticks=[], title="the digit")
for k, (row, column) in enumerate(places):
    panel = figure.add_subplot(grid[k // 3, 1 + k % 3])
    true = int(grey_images[2, 0, row, column])
    colours = [PALETTE["data"] if level == true else PALETTE["model"] for level in range(17)]
    panel.bar(range(17), levels[:, row, column], color=colours)
    panel.set(title=f"row {row}, column {column}", ylim=(0, 1), xticks=[0, 8, 16])
    axes.text(column, row, "abcdef"[k], color=PALETTE["error"], ha="center", va="center")
    panel.text(0.45, 0.8, "abcdef"[k], transform=panel.transAxes, color=PALETTE["error"])
figure.tight_layout()
show_figure(
    figure,
    alt="A grey digit, and for six of its pixels the predicted distribution over 17 levels: one certain, some with one hump, some with a peak at 16 and a hump below.",
)

# %% [markdown]
# Blue is the true level. Far outside the digit (a) the model is certain. Where it is not, neighbouring levels have similar probabilities: nobody told its softmax that 7 is close to 8. And the end of the scale is special,
# as ink saturates: from (c) to (f) the likeliest level is 16, and at (d) and (f) a hump stands beside it. One Gaussian for each pixel could not say that.
#
# With 256 levels, a softmax sees each of them rarely. PixelCNN++ therefore predicts a **mixture of logistic distributions** over a line, five or so, and gives each level the mass of its
# interval; the two end levels get everything beyond (Salimans et al. 2017, [arXiv:1701.05517](https://arxiv.org/abs/1701.05517), section 2.1).
#
# The model gives whole images probabilities, so $-\log_2 p(x) / 64$ are **bits per dimension**: what
# an ideal compressor would need for each pixel. Chapter 04's NICE has a density, and so a bound for the same number.

# %% jupyter={"source_hidden": true}
grey_bits, nice_bits = (
    load_card(name)["metrics"]["bits per dimension"]
    for name in ("pixelcnn_digits_grey", "nice_digits")
)
Markdown(
    "| 359 test digits, 17 levels | bits per dimension |\n| --- | ---: |\n"
    f"| one of 17 at random | {torch.tensor(17.0).log2():.2f} |\n"
    f"| NICE (chapter 04) | at most {nice_bits:.2f} |\n"
    f"| PixelCNN, 17 levels | {grey_bits:.2f} |\n"
)

# %% [markdown]
# ## How good is it?
#
# Negative log-likelihood of black and white test images, in nats: lower is better. Our numbers come from the cards in
# `data/checkpoints`, each with the command that trains the model, such as `python -m course_lib train made_mnist`: less
# than an hour on two cores.

# %% jupyter={"source_hidden": true}
nats = "test negative log-likelihood (nats)"
table = (
    "| model | digits, 8×8 | MNIST | parameters, MNIST | MNIST, in papers |\n"
    "| --- | ---: | ---: | ---: | ---: |\n"
)
for kind, title, paper in [
    ("fvsbn", "FVSBN", ""),
    ("nade", "NADE", "88.86 ᵃ, 88.33 ᵇ"),
    ("made", "MADE", "86.64 ᶜ, two layers, 32 mask sets"),
    ("pixelcnn", "PixelCNN", "81.30 ᵈ"),
]:
    digits_card, mnist_card = load_card(f"{kind}_digits"), load_card(f"{kind}_mnist")
    table += (
        f"| {title} | {digits_card['metrics'][nats]:.1f} | {mnist_card['metrics'][nats]:.1f} "
        f"| {mnist_card['parameters']:,} | {paper} |\n"
    )
naive_nats = load_card("naive_pixelcnn_digits")["metrics"][nats]
error = mnist_card["metrics"]["standard error (nats)"]
masks = made_masks(MADE(784, [1200]).degrees[0])
unmasked = 1200 + 784 + sum(mask.sum().item() for mask in masks)
table += f"| PixelCNN, naive | {naive_nats:.1f} | | | |\n\nOf MADE's parameters {unmasked:,.0f} are not masked, of FVSBN's {784 * 783 // 2 + 784:,}. "
Markdown(table + f"A mean over test images has a standard error of about {error:.1f} nats.")

# %% [markdown]
# ᵃ Larochelle, Murray 2011, as an earlier [README of pytorch-generative](https://github.com/EugenHotaj/pytorch-generative/blob/0aa83a88482678e11172ecc42904daad12bc7705/README.md) cites it. ᵇ A later NADE with one order, as the
# [code](https://github.com/MarcCote/NADE/blob/master/deepnade/analyse_orderless_NADE.py) of Uria et al. 2016 ([arXiv:1605.02226](https://arxiv.org/abs/1605.02226)) plots it. ᶜ Germain et al. 2015, their best, as [a list of results](https://www.wizwand.com/paper/68fa61e91e209131ce9f6a8f) cites it.
# ᵈ [PixelRNN](https://arxiv.org/abs/1601.06759), van den Oord et al. 2016, table 4. The tables of 2011 and of MADE we have not seen ourselves, and so leave out what they say of FVSBN and of a MADE with one mask set.
#
# How to read it:
#
# - **On MNIST** a hidden layer takes eight to nine nats off the FVSBN, and PixelCNN five more off MADE, with a fifth of its unmasked parameters:
#   it shares weights between places. (It also learned from labels, see below.)
# - **On the 8×8 digits** PixelCNN is 0.7 nats better than MADE, and
#   the naive PixelCNN loses even to NADE. It has no gates and no classes either, so that its gap is not the price of the
#   blind spot alone.
# - **Our MNIST is not quite the papers' MNIST.** They binarized the images once, at random, and trained on those; we
#   draw anew in each step, which works against overfitting. Our test images are drawn once, and are another draw than
#   theirs. Read nothing into some tenths of a nat.
# - **Our networks are smaller.** The best MADE of the paper has two layers of 8,000 units and 32 mask sets, as the command in
#   [its code](https://github.com/mgermain/MADE) says; ours has one layer of 1,200 and one set.
# - **Our PixelCNN was told the class** while it learned. The number in the table doesn't use it: it is
#   $-\log p(x) = -\log \sum_y p(x \mid y)\,p(y)$. The paper's had no labels, and one stack.
# - **Where zero is.** A fair coin for each pixel costs $64 \ln 2 = 44.4$ nats on the digits, $784 \ln 2 = 543.4$ on MNIST. Compare
#   nats only for the same images, binarized in the same way.
#
# ## What to take away
#
# - The chain rule turns any distribution over many variables into a sequence of classifications. It assumes nothing; the
#   assumptions are in the functions that answer the questions.
# - One law must hold: output $i$ sees inputs before $i$ and nothing else. A triangular
#   matrix, a running sum, masks between layers, masked or shifted kernels: four ways to keep it. Test it by
#   the Jacobian, and by summing over all $x$ where you can.
# - The likelihood is exact, and training is ordinary supervised learning. A language model is the same formula, with
#   words for pixels and a transformer for the masked network.
# - A class-conditional model of $x$ is also a classifier, by Bayes' rule.
#
# **What does not work well:** sampling is sequential. Only questions along the order are easy: complete
# the lower half, but not the upper one. And there is no code, no short description of the whole image that one
# could change a little to get a similar image.
#
# **What came after:**
#
# - *Other networks for the same formula:* masked attention, up to Image GPT (Chen et al. 2020, [Generative pretraining from pixels](https://proceedings.mlr.press/v119/chen20s.html)) and every language model since Vaswani et al. 2017 ([arXiv:1706.03762](https://arxiv.org/abs/1706.03762)).
# - *Other things to predict:* codes of patches in place of pixels (chapter 03), or whole images from coarse to fine, one resolution after the other (Tian et al. 2024, [arXiv:2404.02905](https://arxiv.org/abs/2404.02905)).
# - *All orders at once:* order-agnostic training returned as autoregressive diffusion, which writes several pixels in a step (Hoogeboom et al. 2022, [arXiv:2110.02037](https://arxiv.org/abs/2110.02037)).
#
# **Next, chapter 02:** the variational autoencoder gives every image a code, draws all pixels at once, and pays
# for it with a likelihood that it can only bound.

# %% [markdown]
# [Contents](../README.md#chapters) | [02 · Variational autoencoders →](02_vae.ipynb)
