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
# [← 02 · Variational autoencoders](02_vae.ipynb) | [Contents](../README.md#chapters) | [04 · Normalizing flows and NICE →](04_nice.ipynb)

# %% [markdown]
# # 03 · VQ-VAE
#
# **Squeeze an image into a small map of whole numbers, and let chapter 01's model write new maps.**
#
# | | |
# | --- | --- |
# | You need | autoencoders and PixelCNN in outline (chapters 02 and 01), what a gradient is, k-means helps; some PyTorch |
# | Time | about 26 minutes to read, 60 with the exercises. **The short way, 20 minutes:** the page without its exercises, less *How many codes?* and *How good is the guess?*, which may be skipped |
# | You will meet | vector quantization, the straight-through estimator, stop-gradients, moving averages as online k-means, why a strong decoder does not silence the code, dead codes, two-stage generation |
# | Papers | van den Oord, Vinyals, Kavukcuoglu 2017, [VQ-VAE](https://arxiv.org/abs/1711.00937); Bengio, Léonard, Courville 2013, [straight-through](https://arxiv.org/abs/1308.3432) |
# | Source articles | VQ-VAE 其实就是一个 AE, "VQ-VAE is really an autoencoder", and "Straight-Through Estimator" (both in Chinese) |
#
#
# ## See it
#
# Run the two cells below (Shift+Enter). In the middle is the code of an image: 7 × 7 whole numbers from 0 to 63. On the right is what
# the decoder makes of them. Choose a code below the map and **paint**; or take cells from another example, and put the top of one digit on the bottom of another.

# %%
import torch

from course_lib.data import load_digits
from course_lib.notebook import one_thread, seeded
from course_lib.training import load_card, load_pretrained
from course_lib.widgets import CodeSwap, Voronoi

one_thread()  # models this small are slower on two

# %%
mnist_model, mnist_prior = load_pretrained("vqvae_mnist_64"), load_pretrained("prior_mnist")


def decode(codes):
    """The images [B, 1, 28, 28] of code maps [B, 7, 7]."""
    with torch.no_grad():
        return mnist_model.decode(torch.as_tensor(codes)).clamp(0, 1)


invented = mnist_prior.sample(10, y=torch.arange(10), generator=seeded(6))[:, 0].long()
CodeSwap(
    decode,
    invented,
    64,
    title="Paint with codes",
    alt="A map of seven by seven whole numbers, a palette of codes to paint with, and the digit that the map decodes to.",
)

# %% [markdown]
# Three things to notice before any formula:
#
# - **A code is local.** Change one cell, and only a patch of the image changes.
# - **A code is not a stamp.** What it looks like depends on its neighbours, because the decoder looks at several cells at once.
# - **The ten digits do not exist.** No image was encoded to get them. A PixelCNN *wrote* the maps, number after number.

# %% [markdown]
# ## The idea: an autoencoder whose code is made of integers
#
# An autoencoder learns to copy its input through something narrow: $x \to z = \mathrm{enc}(x) \to \hat x = \mathrm{dec}(z)$. It makes good codes, and no new
# images: for that one needs the *distribution* of the codes. Chapter 02 chose the distribution first, a Gaussian, and made the codes fit it.
#
# VQ-VAE, says the source article, is **an autoencoder** that makes its code *discrete*: a small map of whole numbers (today such an encoder is called an image **tokenizer**, and the numbers **tokens**). And for whole
# numbers on a grid we have a tool already, chapter 01's PixelCNN. So build it in two stages:
#
# 1. Train an autoencoder with integer codes. Only the copy counts: no noise, no KL term.
# 2. Freeze it, encode all the training images, and train a PixelCNN on the code maps. To make an image: write a map, decode it.
#
# The second stage has less to do than a PixelCNN of pixels: it writes 49 numbers instead of 784.
#
# | symbol | meaning |
# | --- | --- |
# | $x$, $\hat x$ | an image; what the decoder makes of its code |
# | $z$ | the encoder's output: for each cell of the map a vector in $\mathbb R^d$. Nothing is drawn, unlike the $z$ of chapter 02 |
# | $e_1, \dots, e_K$ | the codebook: $K$ vectors in $\mathbb R^d$; the book counts from 1, the code from 0 |
# | $k$ | the index of the code nearest to $z$; what is stored |
# | $z_q = e_k$ | the quantized vector, which the decoder gets |
# | $\operatorname{sg}[\cdot]$ | stop-gradient: the value as it is, and a derivative of zero |
# | $n_k$, $s_k$; $N_k$, $m_k$ | how many vectors of a batch chose code $k$, and their sum; the moving averages of both |
# | $\gamma$, $\beta$ | the decay of these averages; the weight of the commitment loss (not the $\beta$ of chapter 02, which weighs a rate) |
# | $i$, $j$ | the number of a vector in a batch; the number of any code |
# | $L$ | the loss, a sum of three parts |
# | $q(k \mid x)$, $p(k)$; $D_\mathrm{KL}$ | all probability on the nearest code, the prior over codes; the divergence of the first from the second |
# | $H(k)$, $p_k$ | the entropy of the codes in use; the share of code $k$ among them |
# | $e$, $e'$; $g$, $\eta$ | the code of $z$ before and after a step; the gradient of the loss at $e$, and how far the step goes along it |
#
# **Exercise 1: predict before you read on.** The code of an image is a map of 7 × 7 whole numbers, each the number of
# one of $K = 64$ codes. How many bits does it hold at most? (`hint("03.predict_bits")` helps, and more with each call; `solution("03.predict_bits")` shows what the library does.)

# %%
from course_lib.exercises import check, hint, show_source, solution

prediction = ...

check("03.predict_bits", prediction)

# %% [markdown]
# One choice among $K$ holds $\log_2 K$ bits, and $49 \log_2 64 = 49 \cdot 6$ of them is all that the decoder ever learns about an image
# of 784 numbers of 8 bits. What does not fit is lost: the copy is not exact.

# %% [markdown]
# ## Quantize: take the nearest code
#
# $$k = \arg\min_j \|z - e_j\|, \qquad z_q = e_k .$$
#
# All distances at once: $\|z - e_j\|^2 = \|z\|^2 - 2\,z \cdot e_j + \|e_j\|^2$. The first term is the same for all $j$. So the nearest code is the one with the
# largest $z \cdot e_j - \frac12 \|e_j\|^2$, one matrix product for a whole batch. (The code first moves the origin to the middle of the codebook. That changes no distance, and keeps the
# numbers small.)

# %%
from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.latent import VQVAE, VectorQuantizer, perplexity, straight_through, vq_loss
from course_lib.widgets import PALETTE, image_grid, show_figure

show_source([VectorQuantizer.nearest, VectorQuantizer.lookup])

# %% [markdown]
# **Check it** by measuring every distance. And decoding an index and encoding its vector again must lose nothing:

# %%
torch.manual_seed(0)
quantizer = VectorQuantizer(64, 16).double().eval()
vectors = torch.randn(5000, 16, generator=seeded(0), dtype=torch.float64)
by_distance = torch.cdist(vectors, quantizer.codebook).argmin(dim=1)
print("the nearest of all:", torch.equal(quantizer.nearest(vectors), by_distance))
every_index = torch.arange(64)
round_trip = quantizer.nearest(quantizer.lookup(every_index))
print("index → vector → index is the identity:", torch.equal(round_trip, every_index))

# %% [markdown]
# The set of all $z$ that are nearest to one code is its *Voronoi cell*: in the plane a polygon, perhaps without end on one side. What the quantizer does is forget where in the cell $z$ is.

# %% [markdown]
# ## The gradient stops here
#
# The decoder's loss has a gradient with respect to $z_q$. The encoder needs one with respect to $z$. But move $z$ a little inside its cell, and
# $z_q$ does not move at all; at a border it jumps. So the true derivative of $z_q$ is **zero** almost everywhere, and does not exist at borders. An encoder trained
# with it would never learn anything. (Another way out is a soft choice that hardens in training, the **Gumbel-softmax**: Jang, Gu, Poole 2017, [arXiv:1611.01144](https://arxiv.org/abs/1611.01144).)
#
# **Straight through.** Pretend. Use $z_q$ going forward, and on the way back hand the gradient to $z$ as if nothing had been in between:
#
# $$z_q = \operatorname{sg}[e_k] + \big(z - \operatorname{sg}[z]\big).$$
#
# The bracket is exactly 0 and has the derivative 1. In the code:

# %%
show_source(straight_through)

# %%
z = torch.randn(4, 16, 3, 3, generator=seeded(1), dtype=torch.float64, requires_grad=True)
z_q, indices, _, _ = quantizer(z)
weights = torch.randn(z.shape, generator=seeded(2), dtype=torch.float64)
(gradient,) = torch.autograd.grad((weights * z_q).sum(), z)
print("the value is a code, to the last bit:", torch.equal(z_q, quantizer.lookup(indices)))
print("the gradient is that of the identity:", torch.equal(gradient, weights))

# %% [markdown]
# **Exercise 2. Past another rounding.** *Finite scalar quantization*, of which the end of the page speaks, needs no codebook. It squashes each number by tanh, and rounds it to
# the nearest of `levels` evenly spaced values from −1 to 1 (`levels` is odd, so 0 is one of them). Write it so that the gradient arrives as if nothing had been rounded.


# %%
def round_through(z, levels):
    """Return tanh(z), rounded to the levels, of the shape of z; its gradient is that of tanh(z)."""
    ...


check("03.round_through", round_through)

# %% [markdown]
# **What is wrong with it?** The gradient was computed at $e_k$, and is used at $z$. It says in which direction the *code* should move; but the code does not
# move. So $z$ may walk for many steps without any effect on the image, until it crosses a border and the code jumps. A later section measures how good the guess is; first let us train with it.
#
# ## Two losses that pull each other
#
# Nothing so far moves the codebook: $z_q$ hands its gradient to $z$, and none to $e_k$. The codes should go to where the encoder's
# outputs are, and the encoder should stay where the codes are. One squared distance, used twice, with the gradient stopped on either side:
#
# $$\boxed{\;L = \underbrace{\|x - \hat x\|^2}_{\text{encoder, decoder}} + \underbrace{\|\operatorname{sg}[z] - e_k\|^2}_{\text{codes go to } z} + \beta\,\underbrace{\|z - \operatorname{sg}[e_k]\|^2}_{\text{commitment: } z \text{ goes to its code}}\;}$$
#
# (In our code each is a mean, over pixels or over the numbers of $z$.) Why not one term with both gradients? Because the two sides should move at different speeds. The
# codebook may run after the encoder. The encoder has the image to care for: with $\beta = \frac14$, as in the paper, it is pulled a little, enough not to grow away from its codes without end.

# %%
show_source(vq_loss)

# %% [markdown]
# The whole model, drawn from the one that you swapped codes in. Broken arrows are gradients, where automatic differentiation finds one: none passes the choice of the nearest code, and what arrives at $e$ is copied
# to $z$. In this model the codebook gets no gradient at all; it follows a moving average:

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import vqvae_diagram
from course_lib.widgets import show_diagram

show_diagram(vqvae_diagram(mnist_model))

# %% [markdown]
# **Exercise 3: predict where $z$ comes to rest.** Let $z$ be one number. Its code $e$ stands still, and no border is near. The decoder's gradient at $e$ is −2
# (the loss falls as $e$ rises), $\beta = \frac14$, and $z$ follows the gradient of $L$, each term the square itself. At which $z - e$ does it stop? Derive it before you write the number.

# %%
prediction = ...

check("03.predict_rest", prediction)

# %% [markdown]
# ## Codes as moving averages
#
# The second term has a solution without any gradient. Say the vectors $z_1, \dots, z_{n_k}$ chose code $k$. Then
#
# $$\frac{\partial}{\partial e_k} \sum_i \|z_i - e_k\|^2 = -2 \sum_i (z_i - e_k) = 0 \quad\Longleftrightarrow\quad e_k = \frac{1}{n_k} \sum_i z_i = \frac{s_k}{n_k}.$$
#
# The best code is the mean of the vectors that chose it. Assign, average, assign, average: that is **k-means** (*Lloyd's algorithm*). A batch is a small sample, so keep moving averages of
# count and sum, and let the code be their ratio (the paper's appendix A.1, equations 6 to 8):
#
# $$N_k \leftarrow \gamma N_k + (1 - \gamma)\,n_k, \qquad m_k \leftarrow \gamma m_k + (1 - \gamma)\,s_k, \qquad e_k = \frac{m_k}{N_k}.$$
#
# It needs no optimizer; $1 - \gamma$ plays the part of the learning rate. The paper's own experiments take the second term, this library the averages (`ema=False` takes the gradient). As $m_k = N_k e_k$, only $N_k$ and $e_k$ are stored:

# %%
show_source(VectorQuantizer.follow)

# %% [markdown]
# **Check it:** the first batch of a codebook that has never been used must be one step of k-means, exactly. scikit-learn's `KMeans` does the same step from the same start:

# %%
from sklearn.cluster import KMeans

torch.manual_seed(0)
fresh = VectorQuantizer(8, 2, dead_below=0).double()
start = fresh.codebook.clone()
batch = torch.randn(400, 2, generator=seeded(3), dtype=torch.float64)
fresh(batch)
one_step = KMeans(8, init=start.numpy(), n_init=1, max_iter=1).fit(batch.numpy())
assigned = torch.cdist(batch, start).argmin(dim=1)
means = torch.stack([batch[assigned == k].mean(dim=0) for k in range(8)])
print("the codes are the means of those who chose them:", torch.allclose(fresh.codebook, means))
print(
    "so says scikit-learn:", torch.allclose(fresh.codebook, torch.tensor(one_step.cluster_centers_))
)

# %% [markdown]
# ## Train it, and watch the codebook
#
# A VQ-VAE on the 8×8 digits with codes of only *two* numbers, so that we can see them. Every 25 steps the loop keeps the codebook and the encoder's
# outputs of the same 25 images.

# %%
torch.manual_seed(0)
flat_model = VQVAE((1, 8, 8), 24, 2, downsamplings=1, residual_layers=0).train()
optimizer = torch.optim.Adam(flat_model.parameters(), lr=3e-3)
train_digits, test_digits = load_digits("train")[0], load_digits("test")[0]
noise = seeded(0)
codebooks, outputs, errors = [], [], []
for step in range(601):
    batch = train_digits[torch.randint(len(train_digits), (64,), generator=noise)]
    if step % 25 == 0:  # what the codebook is about to follow
        with torch.no_grad():
            seen = flat_model.encoder(test_digits[:25]).movedim(1, -1).reshape(-1, 2)
    loss = flat_model.loss(batch, generator=noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    errors.append(loss.item())
    if step % 25 == 0:
        codebooks.append(flat_model.quantizer.codebook.clone())
        outputs.append(seen)
flat_model.eval()
print("the loss fell below 0.02:", sum(errors[-50:]) / 50 < 0.02)

# %%
Voronoi(
    torch.stack(codebooks),
    torch.stack(outputs),
    step_labels=[f"step {25 * k}" for k in range(25)],
    title="A codebook while it trains",
    alt="The plane of codes cut into polygons, one for each code, with the encoder's outputs as dots; both move as training goes on.",
)

# %% [markdown]
# Press play: the codes run after the encoder's outputs, as k-means does, while the encoder spreads them. Then **drag the encoder output** across a border, and look at the two arrows: the
# gradient belongs to the code, and is copied to $z$.

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## How good is the guess? Straight-through, uphill and downhill
#
# *This section may be skipped: it asks what the estimator gets right, proves one half of the answer (Exercise 4) and measures the other.*

# %% [markdown]
# ### A step of length η
#
# Let $g$ be the loss's gradient at the code $e$ of $z$. A step of length $\eta > 0$ moves $z$ to $z - \eta g$, and its code from $e$ to $e'$, which is the same one as long as no border is crossed. To first order the loss
# changes by $g \cdot (e' - e)$. Is this below 0? We know that $e$ is nearest to $z$, and $e'$ to $z - \eta g$:
#
# $$\|z - e\|^2 \le \|z - e'\|^2, \qquad \|z - \eta g - e'\|^2 \le \|z - \eta g - e\|^2 .$$
#
# Add the two. All squares cancel, and what is left of the products is
#
# $$\boxed{\;\eta\; g \cdot (e' - e) \le 0\;}$$
#
# **To first order, no step along the straight-through gradient goes uphill**, whatever the codebook and however long the step.
#
# **Exercise 4. Uphill and downhill.** Derive the box once more without looking. Then write the slope of a jump; the check tries the law on 12,000 of yours.


# %%
def my_slope_of_jump(z, codebook, gradient, step):
    """Return g · (e' − e) [N]; z and gradient are [N, d], codebook [K, d], step a number."""
    ...


check("03.slope_of_jump", my_slope_of_jump)

# %%
from course_lib.latent import slope_of_jump

show_source(slope_of_jump)

# %%
z, gradient = torch.randn(2, 3000, 16, generator=seeded(10), dtype=torch.float64)
book = quantizer.codebook
down = torch.stack([slope_of_jump(z, book, gradient, step) for step in (0.1, 1.0, 10.0)])
up = torch.stack([slope_of_jump(z, book, gradient, step) for step in (-0.1, -1.0, -10.0)])
print("no jump downhill has a slope above 0:", bool((down <= 0).all()))
print("no jump uphill has one below 0:", bool((up >= 0).all()))

# %% [markdown]
# "To first order" is the other half. A slope holds near $e$, and a jump is as long as codes are apart. **Measure it** on a trained model and real digits. Move the encoder's output
# of every cell along the gradient, down and up; quantize, decode, and look at the true error, as a multiple of what it was. Beside it what the slope promises, and the same for random directions of the same lengths:

# %%
digits_model = load_pretrained("vqvae_digits_32")


def quantize(z):
    """Return the codes' numbers [B, 4, 4] and vectors [B, 8, 4, 4] of encoder outputs z."""
    index = digits_model.quantizer.nearest(z.movedim(1, -1).reshape(-1, 8)).reshape(-1, 4, 4)
    return index, digits_model.quantizer.lookup(index)


with torch.no_grad():
    z = digits_model.encoder(test_digits)
    index, e = quantize(z)
    reach = (z - e).norm(dim=1).mean()  # how far a vector is from its code, on average
e.requires_grad_()
error = (digits_model.decoder(e) - test_digits).square().mean()
(gradient,) = torch.autograd.grad(error, e)
at_random = torch.randn(z.shape, generator=seeded(3))
at_random *= gradient.norm(dim=1, keepdim=True) / at_random.norm(dim=1, keepdim=True)

table = (
    "| direction | length of the step | codes that change | error, true | error, as the slope promises |\n"
    "| --- | ---: | ---: | ---: | ---: |\n"
)
for name, direction, step in [  # in units of that distance, on average
    ("downhill", gradient, 0.05),
    ("uphill", -gradient, 0.05),
    ("random", at_random, 0.05),
    ("random", at_random, 0.2),
    ("downhill", gradient, 0.5),
    ("uphill", -gradient, 0.5),
    ("random", at_random, 0.5),
]:
    with torch.no_grad():
        moved = z - step * reach * direction / gradient.norm(dim=1).mean()
        new_index, new_e = quantize(moved)
        true = (digits_model.decoder(new_e) - test_digits).square().mean() / error
        promised = 1 + (gradient * (new_e - e)).sum() / error
    changed = (new_index != index).float().mean()
    table += f"| {name} | {step} | {changed:.1%} | × {true:.2f} | × {promised:.2f} |\n".replace(
        "-", "−"
    )
leaning = ((z - e) * gradient).sum(dim=1) < 0
Markdown(table + f"\nOf all vectors, {leaning.float().mean():.0%} lie downhill of their code.")

# %% [markdown]
# - **A short step helps, a little.** Downhill, one code in twenty changes and the error falls. Random steps that change as many codes (length 0.2) leave it where it was. So the guess carries information.
# - **The slope promises far too much.** More than a quarter of the error, and a fiftieth is what comes. The slope is that of an infinitely small move; what happens is a jump, in many cells at once.
# - **A long step harms.** A third of the codes change, the slope promises an error below zero, and the true one rises, by more than after a random step as long.
# - **Uphill hardly anything moves.** Most vectors lie downhill of their code: the gradient pushes each towards the border, the commitment loss pulls it back, and the two balance where $z - e$ points against $g$ (Exercise 3). A step uphill leads towards the code.
#
# So the estimator works where steps are small.

# %% [markdown]
# ## Is it a VAE?
#
# The paper derives it as one. Let $q(k \mid x)$ put probability 1 on the nearest code, and let the prior be uniform, $p(k) = \frac1K$. Then for each cell
#
# $$D_\mathrm{KL}\big(q(k \mid x) \,\|\, p(k)\big) = \sum_k q(k \mid x) \log \frac{q(k \mid x)}{1 / K} = 1 \cdot \log \frac{1}{1 / K} = \log K,$$
#
# (terms with $q = 0$ are 0, as the limit of $q \log q$). It is a *constant*: it has no gradient and disappears from the loss. What is left of the ELBO is the distortion, $-\log p(x \mid z_q)$: for a Gaussian decoder of fixed variance that is the squared error, up to a factor and a constant. (The two codebook losses come from no ELBO.) The source article comes to the same algorithm without all this: its encoder is a function, not a posterior, and the KL term was never there.
#
# Keep the paper's view for two things. It counts: with a learned prior
# $p(k_1, \dots, k_{49})$ in place of the uniform one, $-\log p$ of the codes takes the place of $49 \log K$. It is the rate of chapter 02, as $D_\mathrm{KL}$ of a $q$ that is sure of $k$ is $-\log p(k)$. (There in nats, as in the next table; those of code maps have bits.)
# And it explains why this code is used at all.
#
# **Why a strong decoder does not silence it.** Chapter 02 shows a **posterior collapse**: a VAE whose decoder can do without the code saves the whole rate by making $q(z \mid x)$ equal to the prior. Here there is nothing to save.
# While the autoencoder trains, the rate is $\log K$ whatever the encoder does, and a constant has no slope. All that can still fall is the distortion, and it falls with everything that the code tells. Take chapter 02's example, 8 noisy copies of one
# coin, with two codes in place of the Gaussian latent. In one run the decoder draws every bit for itself, in the other it sees all bits before it (an autoregressive decoder, as in chapter 01):

# %%
from course_lib.experiments import fit_codes, fit_strength

table = "| in nats | rate | distortion | sum | entropy of the data |\n| --- | ---: | ---: | ---: | ---: |\n"
for sees, strength in ((0, "blind to the bits before"), (7, "that sees all bits before")):
    for kind, report in (("VAE", fit_strength(sees)), ("two codes", fit_codes(sees))):
        total = report.rate + report.distortion
        table += (
            f"| {kind}, a decoder {strength} | {abs(report.rate):.1f} | {report.distortion:.1f} "
            f"| {total:.1f} | {report.entropy:.1f} |\n"
        )
Markdown(table)

# %% [markdown]
# The rate of the two codes is the entropy $H(k)$ of their use, which the best prior would pay. With the strong decoder the VAE's rate is 0.0. The two codes still hold 0.7 nats, $\log 2$: one bit, all that they can. And the sum is no larger for it:
# what the code tells, the decoder need not pay again. So a VQ-VAE may have a strong decoder. (The paper puts a PixelCNN on top, which "typically breaks VAEs", section 4.2, and for speech a network like WaveNet, section 4.3.)
#
# One escape is left. The constant is $\log K$ only against the *uniform* prior; $H(k)$ itself can shrink to 0, if all vectors choose one code. Nothing rewards that, but training can get stuck there:

# %% [markdown]
# ## Dead codes
#
# A code that nobody chooses gets no vectors; so it stays where it is, and unless the encoder's outputs come to it, nobody will choose it. Such a code is **dead**. A codebook can die nearly as a whole: start it far away from the encoder's outputs, and the one code
# that happens to be nearest takes them all. This is *codebook collapse*. The cure is crude: put a dead code onto a random vector of the current batch. (Jukebox calls it *random restarts*: Dhariwal et al. 2020,
# [arXiv:2005.00341](https://arxiv.org/abs/2005.00341).)
#
# A code counts as dead when its average $N_k$ is below 0.1. That takes time: with $\gamma = 0.99$, a code that was used once in each batch and never again falls below it after $\ln 0.1 / \ln 0.99 \approx 230$ steps. A new codebook,
# whose $N_k$ are all 0, is dead as a whole: it starts on vectors of its first batch.

# %%
show_source(VectorQuantizer.revive)

# %% [markdown]
# How many codes are in use? Count how often each is chosen, as shares $p_k$. The exponential of their entropy, $\exp H(k) = \exp(-\sum_k p_k \log p_k)$, is called **perplexity**: $K$ if all are used equally, 1 if only one is.

# %%
far_away = torch.randn(2000, 8, generator=seeded(4)) + 3  # what an encoder might put out
figure = Figure(figsize=(5.6, 2.8))
axes = figure.subplots()
for dead_below, title, colour in [(0.0, "left alone", "error"), (0.1, "revived", "model")]:
    torch.manual_seed(0)
    book = VectorQuantizer(64, 8, dead_below=dead_below).train()
    book.uses.fill_(1.0)  # as if all had been in use: none is dead before it starts
    noise, used, dead = seeded(5), [], []
    for _ in range(600):
        batch = far_away[torch.randint(2000, (256,), generator=noise)]
        used.append(book(batch, generator=noise)[3].item())
        dead.append(int((book.uses < 0.1).sum()))  # after the step
    axes.plot(used, color=PALETTE[colour], label=title)
    print(
        f"dead codes {title}: mean perplexity of the last 50 steps above 40:",
        sum(used[-50:]) / 50 > 40,
    )
    first = next(step for step, count in enumerate(dead, 1) if count)
    print(f"    dead after step {first}: {dead[first - 1]}, after the next two: {dead[first : first + 2]}")
axes.set(xlabel="step", ylabel="perplexity", title="64 codes, the same vectors", ylim=(0, 64))
axes.legend()
figure.tight_layout()
show_figure(
    figure,
    alt="Perplexity over 600 steps: left alone it stays at one; with revival it jumps from one to about fifty at step 230, when the unused codes count as dead.",
)

# %% [markdown]
# Until then both are the same. At one blow nearly all codes are dead; where they are revived, they come back in the next step. The last one died a step later than the others: the very first batch had used it once.
#
# **Exercise 5. The perplexity:** the exponential of the entropy of the codes' shares. Some codes may not occur at all.


# %%
def my_perplexity(indices, n_codes):
    """Return a scalar from 1 to n_codes; indices are int64, of any shape."""
    ...


check("03.perplexity", my_perplexity)

# %% [markdown]
# **Exercise 6. Break it: the dead codebook.** Choose where the codes start, so badly that hardly any is ever used: after training *without*
# revival (`dead_below=0`) the perplexity must be below 2, though there are `n_codes` of them. The check trains the
# quantizer on these vectors, shows which codes are in use, and then trains it again from the same start, with revival.


# %%
def my_dead_codebook(vectors, n_codes):
    """Return the codes at the start, [n_codes, d], for the vectors [N, d] to be quantized."""
    ...


check("03.break_the_codebook", my_dead_codebook)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## How many codes?
#
# *This section may be skipped: twelve trained models, from 16 codes to 512.*

# %% [markdown]
# ### A codebook that contains another is never worse
#
# The nearest of more codes is at least as near. **Check it** with nested codebooks, each the first half of the next:

# %%
nested = torch.randn(512, 16, generator=seeded(6), dtype=torch.float64)
distances = [
    torch.cdist(vectors, nested[:n]).min(dim=1).values for n in (16, 32, 64, 128, 256, 512)
]
print(
    "never farther, for any vector:",
    all(bool((b <= a + 1e-12).all()) for a, b in zip(distances, distances[1:], strict=False)),
)

# %% [markdown]
# Trained models are not nested, and each has its own encoder. Here are six on the digits and six on MNIST, from their cards. The error is the mean square over the pixels of all test images; perplexity is over all of their codes.

# %% jupyter={"source_hidden": true}
from course_lib.training.recipes_latent import CODES

table = (
    "| codes $K$ | digits: error | perplexity | bits, at most | MNIST: error | perplexity | bits, at most |\n"
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)
errors, used = {"digits": [], "mnist": []}, []
for n_codes in CODES:
    row = f"| {n_codes} "
    for data in ("digits", "mnist"):
        metrics = load_card(f"vqvae_{data}_{n_codes}")["metrics"]
        errors[data].append(metrics["test mean squared error of a pixel"])
        used.append(metrics["perplexity"] / n_codes)
        row += f"| {errors[data][-1]:.4f} | {metrics['perplexity']:.0f} | {metrics['bits in the code map, at most']:.0f} "
    table += row + "|\n"
for data, values in errors.items():
    off = [1 - after / now for now, after in zip(values, values[1:], strict=False)]
    table += f"\n{data}: each doubling of K takes {min(off):.0%} to {max(off):.0%} off the error. "
Markdown(table + f"The perplexity is {min(used):.0%} to {max(used):.0%} of K.")

# %%
rows = [test_digits[:10]]
for n_codes in (16, 64, 512):
    several = load_pretrained(f"vqvae_digits_{n_codes}")
    with torch.no_grad():
        rows.append(several.decode(several.encode(test_digits[:10])))
show_figure(
    image_grid(
        torch.cat(rows), columns=10, titles=["test", "K = 16", "K = 64", "K = 512"], size=0.75
    ),
    alt="Ten test digits and their copies through 16, 64 and 512 codes: the more codes, the closer.",
)

# %% [markdown]
# Each doubling of $K$ costs one bit a cell. It buys less on MNIST, where one number has to tell 4 × 4 pixels (on the digits 2 × 2). The perplexity stays a good part of $K$: with revival and a start
# on the data there is no collapse here. (Each model is one run from one seed; the steps from row to row are not smooth.)

# %% [markdown]
# ## Stage two: a model of the codes
#
# Encode all training images. What comes out is a data set of small pictures with $K$ "colours", and chapter 01 has the model for it: a class-conditional PixelCNN with `levels=K`. Its
# likelihood is exact, and says how many bits the code maps need with it:

# %% jupyter={"source_hidden": true}
table = (
    "| code of | bits, at most | bits spent, by a model | classified right by Bayes' rule |\n"
    "| --- | ---: | ---: | ---: |\n"
)
for title, autoencoder, card in [
    ("a digit of 8×8 pixels, 16 cells", "vqvae_digits_32", "prior_digits"),
    ("a digit of MNIST, 49 cells", "vqvae_mnist_64", "prior_mnist"),
]:
    most = load_card(autoencoder)["metrics"]["bits in the code map, at most"]
    metrics = load_card(card)["metrics"]
    table += (
        f"| {title} | {most:.0f} | {metrics['bits in the code map']:.0f} "
        f"| {metrics['accuracy as a classifier']:.1%} |\n"
    )
exact = 64 * load_card("pixelcnn_digits_grey")["metrics"]["bits per dimension"]
rate = load_card("vae_mnist")["metrics"]["rate (nats)"] / torch.tensor(2.0).log().item()
table += f"| *for comparison:* all 8×8 pixels, chapter 01's PixelCNN | 64 log₂ 17 = 262 | {exact:.0f} | |\n"
Markdown(
    table + f"| MNIST in black and white, chapter 02's VAE | no limit | {rate:.0f}, its rate | |\n"
)

# %% [markdown]
# The difference between *at most* and *spent* is what the prior knows: which codes are frequent, and which go together. Compare what is spent, not one model's spending with another's maximum. Chapter 01's PixelCNN of
# the same 8×8 digits spends more than the code map does, and loses nothing; the map gives back an image that is close, not equal.
#
# New digits. First what happens if the codes are drawn evenly, without a prior; then maps written by the PixelCNN, and decoded:

# %%
evenly = torch.randint(64, (10, 7, 7), generator=seeded(7))
ten_each = torch.arange(10).repeat(3)
written = mnist_model.sample(30, mnist_prior, y=ten_each, generator=seeded(8))
show_figure(
    image_grid(torch.cat([decode(evenly), written.clamp(0, 1)]), columns=10, size=0.8),
    alt="A row of scribbles from random codes, then three rows of digits zero to nine written by the prior.",
)

# %%
digits_model, digits_prior = load_pretrained("vqvae_digits_32"), load_pretrained("prior_digits")
small = digits_model.sample(30, digits_prior, y=ten_each, generator=seeded(9))
show_figure(
    image_grid(small, columns=10, size=0.7),
    alt="Three rows of ten sampled digits of 8 by 8 pixels, zero to nine.",
)

# %% [markdown]
# If the images look sharper to you than those of chapter 02's VAE, don't give the whole numbers the credit: in bits spent, this code says more than four times as much about an image. (It also saw grey images,
# the VAE black and white ones.) What whole numbers buy is stage two, a strong prior for so long a code.

# %%
show_source(VQVAE.sample)

# %% [markdown]
# ## How good is it?
#
# There is no single number. The copies are measured by their error, the prior by its bits, and the samples by your eyes. The paper's number (section 4.1), 4.67 bits per dimension on CIFAR-10 against 4.51 of its VAE with continuous latents, both bounds, is for small color photographs; it cannot be compared with anything here.
#
# - **Ours are small and quick:** 32 channels, one residual block, 3,000 steps on the digits and 6,000 on MNIST. The paper's networks (section 4.1) have 256 channels and two blocks, and 250,000 steps.
# - **The error says nothing about sharpness.** A blurred copy can have a smaller squared error than a sharp one that is moved by a pixel.
# - **We use three tricks:** moving averages, revival, and a start on the first batch's vectors.
#
# ## What to take away
#
# - A VQ-VAE is an autoencoder with a whole number in each cell of its code. The KL term of its ELBO is a constant, so a strong decoder has no reason to silence the code.
# - `argmin` has no useful gradient. Straight-through pretends that it is the identity. The value is exact, the gradient is a guess: never uphill to first order, and wrong about long jumps.
# - Codes move to the mean of their vectors, as in k-means; vectors commit to their codes. A code that isn't chosen can't learn: look at the perplexity, and revive the dead.
# - Generation has two stages, with two models that never train together: what an image looks like, given its codes; and which codes go together.
#
# **What does not work well:** the first stage doesn't know what the second will find easy. How many codes and how large a map is chosen by hand. And the second stage is again sequential, if much shorter than pixel by pixel.
#
# **What came after:**
#
# - *Larger:* VQ-VAE-2 stacks maps of several sizes (Razavi, van den Oord, Vinyals 2019, [arXiv:1906.00446](https://arxiv.org/abs/1906.00446)); VQGAN adds a critic to stage one and a transformer as stage two (Esser, Rombach, Ommer 2021, [arXiv:2012.09841](https://arxiv.org/abs/2012.09841)).
# - *Without the tricks:* finite scalar quantization rounds each number by itself, so that there is no codebook to die (Mentzer et al. 2024, [arXiv:2309.15505](https://arxiv.org/abs/2309.15505)); the rotation trick replaces the straight-through gradient (Fifty et al. 2024, [arXiv:2410.06424](https://arxiv.org/abs/2410.06424)).
# - *With another stage two:* latent diffusion keeps the two stages, with real numbers for the codes and a diffusion model for the PixelCNN (Rombach et al. 2022, [arXiv:2112.10752](https://arxiv.org/abs/2112.10752); chapter 12).
#
# **Next, chapter 04:** a network that can be run backwards. Then the density that chapter 02 could only bound is known exactly.

# %% [markdown]
# [← 02 · Variational autoencoders](02_vae.ipynb) | [Contents](../README.md#chapters) | [04 · Normalizing flows and NICE →](04_nice.ipynb)
