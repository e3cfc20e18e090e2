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
# # 01 · Autoregressive models
#
# **Write an image one pixel at a time, each given those before it, and know its exact probability.**
#
# | | |
# | --- | --- |
# | You need | conditional probability, logistic regression, what a convolution is; some PyTorch |
# | Time | 20 minutes to read, an hour with the exercises |
# | You will meet | the chain rule, FVSBN, NADE, MADE, PixelCNN, the blind spot, Bayes' rule as a classifier |
# | Papers | Larochelle, Murray 2011, [NADE](https://proceedings.mlr.press/v15/larochelle11a.html); Germain, Gregor, Murray, Larochelle 2015, [MADE](https://arxiv.org/abs/1502.03509); van den Oord et al. 2016, [PixelRNN](https://arxiv.org/abs/1601.06759) and [gated PixelCNN](https://arxiv.org/abs/1606.05328) |
# | Source articles | 链式法则与自回归分解 (the chain rule over $x \in \{0,1\}^n$) and 对 MNIST 任务建模 p(X,Y) (both in Chinese) |
#
#
# ## See it
#
# Run the two cells below (Shift+Enter). A trained PixelCNN writes a handwritten digit, pixel by pixel, row by
# row. Press play, or drag the slider. Then **click a pixel that has been written**: it flips, everything before it
# stays, and the model has to go on from there.

# %%
import torch

from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import MaskExplorer, PixelByPixel, ReceptiveField

torch.set_num_threads(1)  # these models are so small that a second thread costs more than it helps


def seeded(seed):
    """A source of randomness of its own, so that every cell can be run again."""
    return torch.Generator().manual_seed(seed)


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
    labels=[f"a {k}" for k in range(10)],
    title="A digit, pixel by pixel",
    alt="A PixelCNN writes a digit of 8 by 8 pixels, row by row; beside it the probability of each pixel.",
)

# %% [markdown]
# Three things to notice before any formula:
#
# - **The model commits.** Each pixel is drawn once and never looked at again as a question. One early pixel can
#   settle what the rest will be: click around in the first rows of a digit and watch the average of the
#   continuations change.
# - **It says how sure it is.** Most probabilities are close to 0 or 1. What makes one digit different from the
#   next is decided in the few pixels where it hesitates.
# - **Only the past counts.** Flip a pixel, and the probabilities before it do not move at all.

# %% [markdown]
# ## The idea: the chain rule
#
# Let $x = (x_1, \dots, x_n)$ be a vector of $n$ pixels, each 0 or 1. We want a distribution $p(x)$ that we can
# *evaluate* and *sample*. There are $2^n$ vectors, so a table of all probabilities is out of the question for
# images. But any joint probability can be taken apart, one coordinate at a time. By the definition of a
# conditional probability, $p(x_1, x_2) = p(x_1)\,p(x_2 \mid x_1)$; apply it again to what is in front, and again:
#
# $$\boxed{\;p(x) = \prod_{i=1}^{n} p(x_i \mid x_1, \dots, x_{i-1}) = \prod_{i=1}^{n} p(x_i \mid x_{<i})\;}$$
#
# Nothing has been assumed. The formula holds for every distribution and for every order of the coordinates.
# It turns one hard question (how likely is this whole image?) into $n$ easy ones (is this pixel white, given the
# ones before?), and each easy question is a binary classification. A model that answers them is called
# **autoregressive**: it predicts each coordinate from the earlier ones of the same vector.
#
# | symbol | meaning |
# | --- | --- |
# | $x$, $x_i$ | a vector of $n$ pixels, each 0 or 1; its $i$-th coordinate |
# | $x_{<i}$ | the coordinates before the $i$-th in the model's order: $x_1, \dots, x_{i-1}$ |
# | $p(x_i \mid x_{<i})$ | a conditional; for short also the number $p(x_i = 1 \mid x_{<i})$ |
# | $\sigma(a)$ | the logistic function $1 / (1 + e^{-a})$; $a$ is called the logit |
# | $d$ | the number of hidden units |
# | $y$, $K$ | the class of an image; the number of classes |
# | $B$ | the number of images in a batch; tensors `[B, n]` hold one in each row |
#
# **Check it** on the smallest interesting case: a table of random probabilities of all $2^4$ vectors, taken apart
# into conditionals and multiplied together again.

# %%
table = torch.rand(2, 2, 2, 2, generator=seeded(0), dtype=torch.float64)
table = table / table.sum()  # table[a, b, c, d] = p(x = (a, b, c, d))

first = table.sum(dim=(1, 2, 3))  # p(x1)
two, three = table.sum(dim=(2, 3)), table.sum(dim=3)  # p(x1, x2), p(x1, x2, x3)
second = two / first[:, None]  # p(x2 | x1)
third = three / two[:, :, None]
fourth = table / three[:, :, :, None]
product = first[:, None, None, None] * second[:, :, None, None] * third[:, :, :, None] * fourth
print("the product of the conditionals is the table:", torch.allclose(product, table))

# %% [markdown]
# **Sampling** follows the formula from left to right: draw $x_1$ from $p(x_1)$, then $x_2$ from
# $p(x_2 \mid x_1)$ with the value just drawn, and so on. The result has probability
# $p(x_1)\,p(x_2 \mid x_1) \cdots = p(x)$, exactly. This is *ancestral sampling*; the price is $n$ steps, one after
# the other.
#
# **Evaluation** needs no such waiting: all of $x$ is known, so that all conditionals can be computed at once.
# Training is maximum likelihood: make $-\log p(x) = -\sum_i \log p(x_i \mid x_{<i})$ small on average. It is a sum of
# $n$ classification losses, measured in *nats*.
#
# **Exercise 1: predict before you read on.** Store each conditional as a table: one number
# $p(x_i = 1 \mid x_{<i})$ for each $i$ and each possible history $x_{<i}$. How many numbers are that for $n = 10$?

# %%
from course_lib.exercises import check, dependencies, hint, show_source, solution

prediction = ...

check("01.predict_tables", prediction)

# %% [markdown]
# For $n = 784$, the pixels of MNIST, it is a number with 237 digits. So the conditionals must be *functions* with far
# fewer parameters, shared between histories. The models of this chapter differ in nothing else but the
# function that they take.

# %% [markdown]
# ## FVSBN: each conditional is a logistic regression
#
# The plainest function from a history to a probability: a weighted sum, through $\sigma$.
#
# $$p(x_i = 1 \mid x_{<i}) = \sigma\Big(b_i + \sum_{j<i} W_{ij}\,x_j\Big)$$
#
# This is the *fully visible sigmoid belief network*. It has one weight for each pair $j < i$ and one bias for each
# $i$, together $\frac{n(n-1)}{2} + n$ numbers: $O(n^2)$ instead of $2^n - 1$. Written with a whole matrix $W$ of
# which only the part below the diagonal is let through, all $n$ logits are one matrix product:

# %%
import itertools

import scipy.stats
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.autoregressive import FVSBN, MADE, NADE, ImageAutoregressive, NaivePixelCNN
from course_lib.autoregressive import PixelCNN, made_masks
from course_lib.autoregressive.base import bernoulli_log_prob
from course_lib.autoregressive.pixelcnn import GatedLayer
from course_lib.data import load_digits
from course_lib.nn import raster_mask
from course_lib.widgets import PALETTE, colour_map, image_grid, show_figure

show_source(FVSBN.logits)

# %% [markdown]
# and log p(x) adds up the log-probabilities of the values that the pixels really have. With
# $\log \sigma(a) = -\log(1 + e^{-a})$ for a one and $\log(1 - \sigma(a)) = -\log(1 + e^{a})$ for a zero, both cases are
# $x_i a_i - \log(1 + e^{a_i})$:

# %%
show_source(bernoulli_log_prob)

# %% [markdown]
# **Check it**, in two ways that every model of this chapter must pass. For small $n$ we can list all $2^n$ vectors:
# their probabilities must sum to 1. And the derivative of conditional $i$ with respect to $x_j$ must be exactly zero,
# not small but *zero*, unless $j$ comes before $i$.


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
# with the expected counts by a χ² test. Its p-value is the probability of counts at least this far off, if the model and the
# sampler agree; if they did not, it would be zero to many digits.

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
# The neighbour to the left and those above count most. Pixels after the frame have no weight, because they have no say.

# %%
trained_fvsbn = load_pretrained("fvsbn_digits")
weights = (trained_fvsbn.linear.weight * trained_fvsbn.mask).detach().reshape(64, 8, 8)
figure = Figure(figsize=(9, 1.8))
for axes, i in zip(figure.subplots(1, 6), [10, 20, 27, 35, 44, 53], strict=True):
    axes.imshow(weights[i], cmap=colour_map("signed"), vmin=-4, vmax=4)
    axes.add_patch(Rectangle((i % 8 - 0.5, i // 8 - 0.5), 1, 1, fill=False, lw=1.5))
    axes.set_title(f"pixel {i + 1}", fontsize=9)
    axes.set(xticks=[], yticks=[])
figure.tight_layout()
show_figure(
    figure,
    alt="The weights of six pixels of the FVSBN: largest next to the pixel, above and to the left.",
)

# %% [markdown]
# **What it can't learn.** A logistic regression draws one straight border through its inputs. Take three bits of
# which the third is the exclusive or of the first two, $x_3 = x_1 \oplus x_2$, all four cases equally likely. The
# entropy is $\log 4 = 2 \ln 2 \approx 1.386$ nats, and a perfect model reaches it. The FVSBN cannot do better than
# $3 \ln 2 \approx 2.079$. Why? Its loss for the third bit, $-\log p(x_3 \mid x_1, x_2)$ averaged over the four cases,
# is convex in $(b, w_1, w_2)$, and at zero its gradient vanishes: the residuals $\tfrac12 - x_3$ are
# $+\tfrac12, -\tfrac12, -\tfrac12, +\tfrac12$ in the cases 00, 01, 10, 11. They sum to zero, and so do those with
# $x_1 = 1$ and those with $x_2 = 1$. A convex function is smallest where its gradient vanishes. There the model says
# "one half" whatever it has seen: it is blind to the exclusive or.
#
# A hidden layer cures it. The same data, for the model of the next section:

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
# with $W_j, V_i, c \in \mathbb R^d$. The trick of the *neural autoregressive distribution estimator* is in what the
# formula does **not** have: $W_j$ carries no index $i$. Pixel $j$ says the same thing to all conditionals after it.
#
# **Parameters.** With weights of its own for each pair $(i, j)$, $W_{ij} \in \mathbb R^d$, the model would have
# $O(n^2 d)$ of them. Shared, it has $n d$ in $W$, $n d$ in $V$, and $n + d$ biases.
#
# **Time.** Computed one by one, the sums $a_i = c + \sum_{j<i} W_j x_j$ cost $0 + d + 2d + \dots + (n-1)d$, which is
# $O(n^2 d)$. But since the weights are shared, each sum is the one before it plus one term:
#
# $$a_1 = c, \qquad a_{i+1} = a_i + W_i\,x_i.$$
#
# One addition of $d$ numbers for each step: $O(n d)$ for *all* hidden layers, as much as a single one costs. This is
# the whole trick. In the source, `cumsum` is the running sum, and $c$ stands in front as the weight of a coordinate
# that is always 1. (The batch is cut into parts only so that the `[B, n, d]` numbers fit into the processor's cache.)

# %%
show_source(NADE.logits)

# %% [markdown]
# For sampling, the running sum is carried along: draw $x_i$, add $W_i x_i$, go on. So $n$ steps cost $O(n d)$
# together, no more than one evaluation.

# %%
show_source(NADE.walk)

# %% [markdown]
# **Check it** against the definition, with each sum computed from the start; and the two laws, here for an order that
# is not the natural one.

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
# **The order matters.** The chain rule holds for every order, but a model with limited functions does not come out the
# same: another order asks other questions. For images the row by row order is the usual choice, and a good one: the
# pixels next door have just been seen.
#
# ## MADE: the masks do it
#
# NADE's running sum goes through the pixels in turn. Can an ordinary network, all matrices, compute all $n$
# conditionals in one pass? An autoencoder takes $x$ and returns $n$ numbers, but its output $i$ sees all of $x$,
# itself included. The *masked autoencoder for distribution estimation* cuts connections until it doesn't.
#
# Give each unit a number, its **degree**: how far in the order it may look. An input's degree is its place in the
# order, $0, \dots, n-1$. A hidden unit's degree is anything from $0$ to $n-2$. Then connect
#
# - a hidden unit of degree $m$ with the units below it of degree **at most** $m$,
# - output $i$ with the hidden units of degree **strictly below** its place in the order.
#
# **Why it works.** Write the mask of layer $l$ as a matrix $M^{(l)}$ of zeros and ones. Take the product
# $M^{(L)} \cdots M^{(2)} M^{(1)}$. Its entry $(i, j)$ is a sum over all chains input $j$ → unit → … → unit → output $i$ of
# products of mask entries. Such a product is 1 if every link of the chain is there, and 0 otherwise, so the entry
# **counts the paths** from input $j$ to output $i$. Along a path the degrees never fall from the input to the last
# hidden layer, and at the output there is a strict step up. With $k_j$ for the place of coordinate $j$ and $m_1, m_2,
# \dots$ for the degrees on the way,
#
# $$k_j \le m_1 \le m_2 \le \dots \le m_{L-1} < k_i \quad\Longrightarrow\quad k_j < k_i .$$
#
# If $j$ does not come before $i$ there is no path. No path, no dependence, whatever the weights and the
# nonlinearities are. One strict inequality carries the chapter.

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
first, second, last = made_masks(made.degrees[0])
paths = last @ second @ first  # paths[i, j]: how many lead from input j to output i
sees = dependencies(made.conditionals, everything(9)[::37])
print("the Jacobian is zero exactly where no path leads:", torch.equal(sees, paths > 0))
print("only earlier coordinates count:", torch.equal(sees, place[:, None] > place[None, :]))
print("the 512 probabilities sum to 1, within 1e-12:", abs(total(made, 9) - 1) < 1e-12)

# %% [markdown]
# **Several mask sets.** A mask set costs nothing but its zeros and ones, so why only one? Draw $K$ sets, use a
# random one of them in each step of training, and let all share their weights.
#
# - *Connectivity-agnostic*: one order, other degrees of the hidden units in each set. It acts as a regulariser, a little like dropout.
# - *Order-agnostic*: each set has an order of its own. One network then models the chain rule in $K$ ways.
#
# Every set is a distribution $p_k$, and so is their average, $p(x) = \frac1K \sum_k p_k(x)$: that is what
# `MADE(..., order="random", n_masks=K).log_prob` returns. The average never does worse than the sets do on average,
# because the logarithm is concave: $\log \frac1K \sum_k p_k(x) \ge \frac1K \sum_k \log p_k(x)$.

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
# full passes. NADE needs one pass's worth. MADE is the fastest of all to *evaluate* on the other hand, being nothing but
# matrix products.
#
# | | parameters | all conditionals of one $x$ | one sample |
# | --- | --- | --- | --- |
# | table | $2^n - 1$ | $O(n)$ | $O(n)$ |
# | FVSBN | $O(n^2)$ | $O(n^2)$ | $O(n^2)$ |
# | NADE | $O(n d)$ | $O(n d)$, in $n$ small steps | $O(n d)$ |
# | MADE, one hidden layer | $O(n d)$ | $O(n d)$, in two matrix products | $O(n^2 d)$: $n$ passes |
#
# ## Train it
#
# 1,438 handwritten digits of 8×8 pixels, cut to black and white at half of the grey scale. Each batch is turned, moved
# and resized a little, because a network that sees only 1,438 images learns them by heart.

# %%
from course_lib.training.recipes_autoregressive import binary_digits, digits_batch

train_digits = load_digits("train")[0].flatten(1)
test_images, test_labels = binary_digits("test")
show_figure(
    image_grid(test_images[:24], columns=12, size=0.6),
    alt="Twenty-four handwritten digits, 8 by 8 pixels, black and white.",
)

# %%
torch.manual_seed(4)
model = MADE(64, [200])
history = fit(model, train_digits, steps=1000, batch_size=128, lr=5e-3, transform=digits_batch)
print("training loss fell below 20 nats:", history.loss() < 20)

figure = Figure(figsize=(6, 2.6))
axes = figure.subplots()
axes.plot(history.losses, lw=0.6)
axes.set(xlabel="step", ylabel="nats", title="−log p(x), training", ylim=(15, 46))
figure.tight_layout()
show_figure(figure, alt="The training loss falls from 44 nats, which is 64 ln 2, to less than 20.")

# %% [markdown]
# It starts at $64 \ln 2 \approx 44.4$ nats, the loss of a model that says one half to everything. And its samples:

# %%
samples = model.sample(24, generator=seeded(0)).reshape(-1, 1, 8, 8)
show_figure(
    image_grid(samples, columns=12, size=0.6),
    alt="Twenty-four samples of the MADE just trained: most look like rough digits.",
)

# %% [markdown]
# ## PixelCNN: the same question everywhere
#
# NADE and MADE have weights of their own for each pixel. They must learn ten times over what a stroke is, once for
# each place where it can lie. A convolution asks the same question at each place, with the same weights. Visit the
# pixels in *raster order*, row by row from the top, each row from the left. What must a convolution not see?
# The pixel itself and all that follow. So multiply its kernel by a mask.
#
# - **Mask A** hides the centre, everything right of it in its row, and all rows below. The first layer needs it: its
#   input is the image, and the centre is the very pixel that is to be predicted.
# - **Mask B** shows the centre too. From the second layer on the centre is a feature that has not seen its
#   pixel: it may be used, and should be.

# %%
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
# one pixel: straight down, down to the left, down to the right, or to the right within the row. To reach
# pixel $(r, c)$ from a pixel above and to the right, $(r - a, c + b)$, it has to move $b$ columns to the left. It can
# only do so while it moves down, one column at most for each row. So it needs $b \le a$. The pixels with $b > a$ are
# earlier in the order, the chain rule entitles us to use them, and this network cannot see them, however many layers it has.
#
# **Exercise 5: predict before you go on.** An image has 7 × 7 pixels. The model predicts the one in the middle; 24 pixels
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
# **Two stacks** remove it. Split the past of pixel $(r, c)$ into what lies in the rows above and what lies to the left in
# its own row, and give each part a stack of layers.
#
# - The **vertical stack** $v_{r,c}$ sees whole rows, all above row $r$. Its kernel is a full rectangle, and needs no
#   mask to the right: everything in those rows is past. By induction: the first layer reads the image in rows
#   $r-R, \dots, r-1$ only. If $v^{(l-1)}_{r,\cdot}$ has seen nothing but rows above $r$, then $v^{(l)}$, which reads
#   $v^{(l-1)}$ in rows $r-R, \dots, r$, hasn't either. A rectangle on top of a rectangle is a rectangle: nothing is left out.
# - The **horizontal stack** $h_{r,c}$ adds the pixels to the left: a kernel of one row that reads the columns
#   $c-R, \dots, c-1$ of the image in the first layer, and $c-R, \dots, c$ of $h^{(l-1)}$ in the others. It is told what
#   the vertical stack knows; never the other way round, because $h$ has seen pixels of row $r$ that $v_{r,\cdot}$ must not know.
#
# In place of a ReLU there is a *gate*, $\tanh(a)\,\sigma(b)$ with two different convolutions $a$ and $b$: one says what,
# the other how much. And the horizontal stack adds each layer to what was there before (a residual connection).

# %%
show_source([GatedLayer.look_up, GatedLayer.look_left])

# %% [markdown]
# A class label $y$ enters as a bias of every layer, one vector for each class. The network then returns
# $p(x_i \mid x_{<i}, y)$, and the product of these is $p(x \mid y)$.
#
# **Check it**: the probabilities of all 512 images of 3 × 3 pixels, and what each pixel sees.

# %%
torch.manual_seed(6)
tiny = PixelCNN(8, 3, first_kernel_size=3).double()
images = everything(9).reshape(-1, 1, 3, 3)
with torch.no_grad():
    mass = tiny.log_prob(images).exp().sum().item()
print("the 512 probabilities sum to 1, within 1e-12:", abs(mass - 1) < 1e-12)


def tiny_conditionals(x):
    return tiny.conditionals(x.reshape(-1, 1, 3, 3)).flatten(1)


sees = dependencies(tiny_conditionals, everything(9)[::37])
print("each pixel sees all pixels before it, and no other:", torch.equal(sees, before))

# %% [markdown]
# ## Sampling without doing everything again
#
# The plain way to sample: run the whole network, use one pixel of its answer, write it, run the whole network again.
# For $n$ pixels that is $n$ full passes, $O(n^2)$ work, and almost all of it was done before. What does a new pixel change?
#
# - The vertical stack in row $r$ sees rows above $r$ only. While row $r$ is being written, nothing of it changes:
#   it is computed **once for each row**.
# - The horizontal stack at $(r, c)$ sees what is to the left. When $x_{r,c}$ has been written, nothing at or left of
#   $c$ changes: it is computed **once for each pixel**.
#
# All in all, the walk through an image costs about the arithmetic of *one* full pass. On images of 28×28 that makes
# it many times faster; `python -m benchmarks autoregressive` measures how much on your machine. The samples
# must be the same ones, from the same random numbers:


# %%
class Plain(PixelCNN):
    """The same model, sampled with a full pass for every pixel."""

    walk = ImageAutoregressive.walk


plain = Plain(24, 4, n_classes=10)
plain.load_state_dict(pixelcnn.state_dict())
labels = torch.arange(10)
quick = pixelcnn.sample(10, y=labels, generator=seeded(0))
print("the same ten images:", torch.equal(quick, plain.sample(10, y=labels, generator=seeded(0))))
print("from images of", list(quick.shape))

# %% [markdown]
# ## What it writes
#
# One column for each class. 8×8 pixels, then 28×28: the second model was trained on MNIST, binarized.

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
# ## Complete what is hidden
#
# Hide the **lower** half of a digit and let the model write it. What is known comes first in the order. So drawing the
# rest, pixel by pixel, is a draw from $p(\text{hidden} \mid \text{known})$, exactly: the chain rule started in the middle.

# %%
chosen = test_images[[2, 8, 11, 16, 20, 31]]
upper = torch.zeros(1, 8, 8, dtype=torch.bool)
upper[:, :4] = True
many = chosen.repeat_interleave(200, 0)


def shown(x, known):
    """The image with hidden pixels in grey."""
    return torch.where(known, x, 0.5)


rows = [chosen, shown(chosen, upper)]
completed = pixelcnn.complete(many, upper, generator=seeded(2)).reshape(6, 200, 1, 8, 8)
rows += [completed[:, k] for k in range(3)]
names = ["original", "given", "completed", "again", "again"]
show_figure(
    image_grid(torch.cat(rows), columns=6, titles=names, size=0.75),
    alt="Six digits with the lower half hidden, and three completions each: different digits that fit the upper half.",
)

# %% [markdown]
# Now hide the **upper** half. The model writes it first, without a look at the lower one: its questions
# $p(x_i \mid x_{<i})$ know nothing of what comes later. The two halves don't fit. Nothing is wrong with the model. What it can
# answer quickly is $p(\text{later} \mid \text{earlier})$, and this is the opposite.
#
# Bayes' rule helps. We want draws of the hidden part $h$ given the known $k$. The walk draws each hidden pixel from
# its own conditional and leaves the known ones in place, so its draws follow
# $q(h) = \prod_{i \text{ hidden}} p(x_i \mid x_{<i})$. What we want is proportional to
# $p(h, k) = \prod_{\text{all } i} p(x_i \mid x_{<i})$. The ratio of the two is what the hidden part makes of the known pixels:
#
# $$w(h) = \frac{p(h, k)}{q(h)} = \prod_{i \text{ known}} p(x_i \mid x_{<i}).$$
#
# So draw many, weigh each by $w$, and draw again among them in proportion to the weights. This is *sampling importance
# resampling*; it becomes exact as the number of draws grows.

# %%
lower = ~upper
guess = torch.arange(10).repeat(6 * 40)  # all classes alike: the label is hidden too
many = chosen.repeat_interleave(400, 0)
blind = pixelcnn.complete(many, lower, y=guess, generator=seeded(3))
with torch.no_grad():
    p = pixelcnn.conditionals(blind, guess)
log_w = torch.where(lower, torch.where(blind == 1, p, 1 - p).log(), 0).sum(dim=(1, 2, 3))
weights = log_w.reshape(6, 400).softmax(dim=1)
picked = weights.multinomial(3, replacement=True, generator=seeded(4))
blind = blind.reshape(6, 400, 1, 8, 8)
weighed = [blind[torch.arange(6), picked[:, k]] for k in range(3)]
rows = [chosen, shown(chosen, lower), blind[torch.arange(6), torch.arange(6)], *weighed]
names = ["original", "given", "blind", "weighed", "again", "again"]
show_figure(
    image_grid(torch.cat(rows), columns=6, titles=names, size=0.75),
    alt="Six digits with the upper half hidden: written blindly the halves do not meet; after weighing they do.",
)

# %% [markdown]
# ## p(X, Y): the generator is a classifier
#
# A model of images *and* labels, $p(x, y) = p(y)\,p(x \mid y)$, is again the chain rule, with the label as the very
# first coordinate. Trained on labelled digits it draws what you ask for; and by Bayes' rule it says what a given image is:
#
# $$p(y \mid x) = \frac{p(x \mid y)\,p(y)}{\sum_{y'} p(x \mid y')\,p(y')}, \qquad p(x) = \sum_y p(x \mid y)\,p(y).$$
#
# All $p(y)$ are $\frac1{10}$ here. The likelihoods are numbers like $e^{-20}$, on MNIST $e^{-80}$, so everything is done
# with logarithms: the denominator is a `logsumexp`.

# %%
show_source(ImageAutoregressive.log_prob)

# %% [markdown]
# Beside it, what a model that was made for classifying does on the same black and white pixels: logistic
# regression, $p(y \mid x)$ directly, without any idea of what an image looks like.

# %%
from sklearn.linear_model import LogisticRegression

with torch.no_grad():
    joint = pixelcnn.log_joint(test_images)  # [359, 10]
by_bayes = (joint.argmax(dim=1) == test_labels).float().mean().item()

images, labels_of = binary_digits("train")
logistic_regression = LogisticRegression(max_iter=2000).fit(images.flatten(1), labels_of)
direct = logistic_regression.score(test_images.flatten(1), test_labels)

mnist = load_card("pixelcnn_mnist")["metrics"]
Markdown(
    "| accuracy on test images | digits, 8×8 | MNIST, binarized |\n| --- | ---: | ---: |\n"
    f"| PixelCNN and Bayes' rule | {by_bayes:.1%} | {mnist['accuracy as a classifier']:.1%} |\n"
    f"| logistic regression | {direct:.1%} | {mnist['accuracy of logistic regression']:.1%} |\n"
)

# %% [markdown]
# A by-product of the generator beats the specialist that knows only straight borders. It is no rival of a network
# that was trained to classify, and it needs ten passes for each image. What it has in exchange: it can be asked
# *how likely the image is at all*. The images with the smallest $p(x)$ among the 359, and the largest:

# %%
order_of = joint.logsumexp(dim=1).argsort()
odd, plain_ones = test_images[order_of[:12]], test_images[order_of[-12:]]
show_figure(
    image_grid(torch.cat([odd, plain_ones]), columns=12, titles=["unlikely", "likely"], size=0.6),
    alt="The twelve least likely test digits are unusual or hardly legible; the twelve most likely are plain.",
)

# %% [markdown]
# ## More than two levels
#
# Nothing in the chain rule asks for bits. With $L$ grey levels each conditional is a *softmax* over $L$ values. The 8×8
# digits have 17 levels, and so does this PixelCNN. It treats the levels as names: it has to learn by itself that 7 is close to 8.

# %%
grey = load_pretrained("pixelcnn_digits_grey")
grey_samples = grey.sample(30, y=ten_each, generator=seeded(5)) / 16
show_figure(
    image_grid(grey_samples, columns=10, size=0.7),
    alt="Thirty sampled digits of 8 by 8 pixels in 17 grey levels, three of each class.",
)

# %% [markdown]
# Its probabilities are probabilities of whole images, so $-\log_2 p(x) / 64$ are honest **bits per dimension**: what
# an ideal compressor would need for each pixel. Chapter 04's NICE has a density instead and gives a bound for the same number.

# %%
grey_bits = load_card("pixelcnn_digits_grey")["metrics"]["bits per dimension"]
nice_bits = load_card("nice_digits")["metrics"]["bits per dimension"]
Markdown(
    "| 359 test digits, 17 levels | bits per dimension |\n| --- | ---: |\n"
    f"| one of 17 at random | {torch.tensor(17.0).log2():.2f} |\n"
    f"| NICE (chapter 04) | at most {nice_bits:.2f} |\n"
    f"| PixelCNN, 17 levels | {grey_bits:.2f} |\n"
)

# %% [markdown]
# ## Exercises
#
# Each `check` judges your function on fresh random inputs and tells you which property broke. It accepts
# every correct solution. `hint("01.made_masks")` helps; `solution("01.made_masks")` shows what
# the library itself does. (Exercise 1, the number of table entries, and exercise 5, a prediction, stand further up.)
#
# **2. The chain rule with logistic conditionals.** `W` is a full square; use only the part below the diagonal.


# %%
def fvsbn_log_prob(x, W, b):
    """x [B, n] of zeros and ones, W [n, n], b [n] to log p(x) [B], in nats."""
    ...


check("01.fvsbn_log_prob", fvsbn_log_prob)

# %% [markdown]
# **3. The running sum.** The logits of a NADE for all $i$, at a cost of $O(n d)$. A right answer that computes each sum
# from the start is sent back: it costs $O(n^2 d)$.


# %%
def nade_logits(x, W, V, b, c):
    """x [B, n], W [n, d], V [n, d], b [n], c [d] to logits [B, n], in the order 1, ..., n."""
    ...


check("01.nade_logits", nade_logits)

# %% [markdown]
# **4. The masks of a MADE.** `degrees` is a list of integer tensors: the places of the inputs in the order, then the
# degrees of each hidden layer. Return one mask `[n_out, n_in]` for each layer of weights, the output layer last.


# %%
def my_made_masks(degrees):
    """Degrees of the inputs and of the hidden layers to a list of masks of zeros and ones."""
    ...


check("01.made_masks", my_made_masks)

# %% [markdown]
# **6. Masks A and B** of a convolution.


# %%
def my_raster_mask(kernel_size, mask):
    """The mask [k, k] of zeros and ones; mask is "A" or "B"."""
    ...


check("01.raster_mask", my_raster_mask)

# %% [markdown]
# **7. Ancestral sampling.** `conditionals(x)` takes `[n, dim]` and returns the probabilities $p(x_i = 1 \mid x_{<i})$,
# for the order 0, 1, …, dim − 1. Draw all random numbers from `generator`.


# %%
def sample(conditionals, n, dim, generator):
    """n draws [n, dim] of zeros and ones."""
    ...


check("01.sample", sample)

# %% [markdown]
# **8. The generator as a classifier.** Log-likelihoods of images are numbers like −700, and $e^{-700}$ is zero on a
# computer.


# %%
def log_posterior(log_likelihood, log_prior):
    """log p(x | y) [B, K] and log p(y) [K] to log p(y | x) [B, K]."""
    ...


check("01.bayes_classifier", log_posterior)

# %% [markdown]
# **9. Break it.** Let the last masks use $\ge$ in place of $>$. The training loss becomes wonderful, better than any
# honest model's. Why is it worthless? Think of an answer before you run the check; it shows you what happens.


# %%
def leaky_masks(degrees):
    """As in exercise 4, but each output also sees its own input."""
    ...


check("01.break_the_order", leaky_masks)

# %% [markdown]
# ## How good is it?
#
# Negative log-likelihood of black and white test images, in nats: lower is better. Our numbers come from the cards in
# `data/checkpoints`, each with the command that trains the model; `python -m course_lib train made_mnist` takes less
# than an hour on two cores, and so does each of the others.

# %%
nats = "test negative log-likelihood (nats)"
table = (
    "| model | digits, 8×8 | MNIST | its parameters | MNIST, in the paper |\n"
    "| --- | ---: | ---: | ---: | ---: |\n"
)
for kind, title, paper in [
    ("fvsbn", "FVSBN", ""),
    ("nade", "NADE", "88.33"),
    ("made", "MADE", "88.40, ensemble 86.64"),
    ("pixelcnn", "PixelCNN", "81.30"),
]:
    digits_card, mnist_card = load_card(f"{kind}_digits"), load_card(f"{kind}_mnist")
    table += (
        f"| {title} | {digits_card['metrics'][nats]:.1f} | {mnist_card['metrics'][nats]:.1f} "
        f"| {mnist_card['parameters']:,} | {paper} |\n"
    )
naive_nats = load_card("naive_pixelcnn_digits")["metrics"][nats]
Markdown(table + f"| PixelCNN, naive | {naive_nats:.1f} | | | |\n")

# %% [markdown]
# How to read it:
#
# - **Each step of the chapter pays.** The FVSBN knows one straight border for each pixel. The hidden layer of NADE and MADE takes
#   off most of the rest. PixelCNN has fewer parameters than any of them and beats them by far, because it need not learn
#   again at each place what a stroke is. (The counts of FVSBN and MADE include the weights that the masks hold at zero.)
# - **Our MNIST is not quite the papers' MNIST.** They binarized the images once, at random, and trained on those; we
#   draw anew in each step, which works against learning by heart. The test images are drawn once, from a fixed
#   seed, and so they are another draw than the papers'. Differences of some tenths of a nat mean nothing.
# - **Our models are smaller and trained for less than an hour** on two cores. The best MADE of the paper (86.64) has two
#   layers of [8,000 units](https://github.com/mgermain/MADE) and 32 mask sets; ours has one layer of 1,200 and one set.
# - **The naive PixelCNN** is listed for the digits only. The gap to the other PixelCNN is not the price of the blind spot alone:
#   it has no gates and no classes either.
# - **Our PixelCNN was told the class** while it learned. The number in the table doesn't use it: it is
#   $-\log p(x) = -\log \sum_y p(x \mid y)\,p(y)$. The paper's had no labels, and 81.30 is its figure for
#   the one-stack PixelCNN of 2016.
# - **A likelihood is only as good as its zero.** 64 black and white pixels have $64 \ln 2 = 44.4$ nats at most,
#   784 have 543.4. Compare nats only for the same images, binarized in the same way.
#
# ## What to take away
#
# - The chain rule turns any distribution over many variables into a sequence of classifications. It assumes nothing; the
#   assumptions are in the functions that answer the questions.
# - Whatever the network, one law must hold: output $i$ sees inputs before $i$ and nothing else. A triangular
#   matrix, a running sum, masks between layers, masked or shifted kernels: four ways to keep the same law. Test it by
#   the Jacobian, and by summing over all $x$ where you can.
# - The likelihood is exact, training is stable, and there is no trick to it. That is why this family went on to larger things:
#   a language model is the same formula, with words for pixels and a transformer for the masked network.
# - A class-conditional model of $x$ is also a classifier, by Bayes' rule.
#
# **What does not work well:** sampling is sequential, one pixel after another. Only questions along the order are easy: complete
# the lower half, but not the upper one. And there is no code, no short description of the whole image that one
# could change a little to get a similar image.
#
# **Next, chapter 02:** the variational autoencoder gives every image a code, draws all pixels at once, and pays
# for it with a likelihood that it can only bound.
