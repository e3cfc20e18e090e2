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
# [← 01 · Autoregressive models](01_autoregressive.ipynb) | [Contents](../README.md#chapters) | [03 · VQ-VAE →](03_vq_vae.ipynb)

# %% [markdown]
# # 02 · Variational autoencoders
#
# **Give every image a short code, learn to draw images from codes, and bound the probability that you cannot compute.**
#
# | | |
# | --- | --- |
# | You need | Gaussians, Bayes' rule, the expectation of a function; some PyTorch. Chapter 01 is useful, not needed |
# | Time | about 48 minutes to read, 90 with the exercises. **The short way, 25 minutes:** up to and including *The bound, three ways*, then *Rate against distortion* and *What to take away*. Two sections may be skipped and say so |
# | You will meet | autoencoders, latent variables, the ELBO, the reparameterization trick, posterior collapse, the importance-weighted bound, GANs in a box |
# | Papers | Kingma, Welling 2014, [Auto-encoding variational Bayes](https://arxiv.org/abs/1312.6114); Rezende, Mohamed, Wierstra 2014, [Stochastic backpropagation](https://arxiv.org/abs/1401.4082); Burda, Grosse, Salakhutdinov 2016, [IWAE](https://arxiv.org/abs/1509.00519); Goodfellow et al. 2014, [GAN](https://arxiv.org/abs/1406.2661) |
# | Source article | 分布变换, "Transforming distributions" (VAE beside GAN, in Chinese) |
#
#
# ## See it
#
# Run the two cells below (Shift+Enter). Each point of the plane on the left is a code, and a trained VAE draws its image. **Drag the point** and watch the digit change. The small characters are the codes of 200 digits, as the encoder
# reads them; another VAE of this chapter drew them. Press *Walk* for the way from one code to another.

# %%
import torch

from course_lib.data import binarize, load_digits
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import BetaExplorer, LatentPlane, Reparameterization

one_thread()  # models this small are slower on two

# %%
plane_model, drawing_model = load_pretrained("vae_mnist_plane"), load_pretrained("cvae_mnist")


def draw(z):
    """The images [B, 1, 28, 28] of points [B, 2] of the plane."""
    with torch.no_grad():
        return plane_model.decode(z)


# Drawn by a VAE that is told the class, so that MNIST itself is not needed here.
digits = torch.arange(10).repeat(20)
drawn = drawing_model.sample(200, y=digits, mean=True, generator=seeded(0)) > 0.5
with torch.no_grad():
    points, _ = plane_model.encode(drawn.float())
LatentPlane(
    draw,
    points=points,
    labels=digits,
    title="A plane of digits",
    alt="A plane of latent codes and beside it the digit that a VAE decodes at the chosen point.",
)

# %% [markdown]
# Three things to notice before any formula:
#
# - **Neighbours are alike.** A short way in the plane is a small change of the image.
# - **There are few holes.** Almost wherever you stop, you get something like a digit. Ordinary autoencoders don't have this property, as the next section shows.
# - **Borders are blurred.** Halfway between two shapes the decoder draws both a little. (You see the *probability* of white, pixel by pixel; a sample would look speckled there.)

# %% [markdown]
# ## Start with an ordinary autoencoder
#
# Two networks, back to back. The **encoder** reads an image $x$ and gives a code $z$, here two numbers; the **decoder** reads the code
# and says for each pixel how likely it is to be white. Both learn together to give back the image that was read: the loss is $-\log p(x \mid z)$,
# how surprised the decoder is by the image, in **nats** (natural logarithms). Two numbers cannot hold 64 pixels, so the networks have to find out what matters.
#
# In the library this is a VAE with the price `beta=0`; what the price is for, you will see in a moment. The digits are
# those of 8×8 pixels, in black and white.

# %%
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from course_lib.exercises import check, hint, show_source, solution
from course_lib.latent import VAE, LinearVAE, gaussian_kl, rate_parts, reparameterize
from course_lib.training.quality import sample_quality
from course_lib.widgets import PALETTE, image_grid, show_figure

black_and_white = binarize(load_digits("train")[0], threshold=0.5)
images, labels = load_digits("test")
test = binarize(images, threshold=0.5)

torch.manual_seed(0)
autoencoder = VAE((1, 8, 8), 2, hidden=(128, 128), beta=0.0)
history = fit(autoencoder, black_and_white, steps=1200, batch_size=128, lr=3e-3)
print("the loss fell below 18 nats:", history.loss() < 18)

# %% [markdown]
# It gives back what it read. Now ask it for a *new* digit: you must choose a code. Which one? Below are the codes of the test digits, a
# colour for each class; the circle holds 95 % of a standard Gaussian, our best guess if nobody tells us more. Beside them is what the
# decoder makes of 24 draws from that Gaussian. The cell after them measures: a **Fréchet distance** compares mean and covariance
# of two sets of images in the features of a classifier, and is 0 if both agree.


# %%
def codes_and_draws(model, title, alt):
    """The codes of the test digits, and what the decoder makes of draws from N(0, I)."""
    figure = Figure(figsize=(10, 3.6))
    left, right = figure.subplots(1, 2)
    with torch.no_grad():
        left.scatter(*model.encode(test)[0][:, :2].T, c=labels, s=8, cmap="tab10")
    left.add_patch(Circle((0, 0), 2.45, fill=False, color=PALETTE["noise"], lw=2))
    left.set(title=title, xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    drawn = model.sample(24, mean=True, generator=seeded(1))[:, 0]
    drawn = torch.nn.functional.pad(drawn, (1, 1, 1, 1), value=1.0).reshape(4, 6, 10, 10)
    right.imshow(drawn.transpose(1, 2).reshape(40, 60), cmap="gray")
    right.set(title="decoded draws from N(0, I)", xticks=[], yticks=[])
    figure.tight_layout()
    return show_figure(figure, alt=alt)


codes_and_draws(
    autoencoder,
    "codes of an autoencoder",
    "The codes of the autoencoder reach far beyond the circle, and few classes lie in it; its draws look like few kinds of smudged digits.",
)


# %%
def distance(images):
    """The Fréchet distance of 1,000 images to the test digits."""
    return sample_quality(images, "digits")["feature distance, 1,000 samples"]


def mostly_inside(model):
    """Of how many classes more than half of the test digits have their codes in the circle."""
    with torch.no_grad():
        inside = model.encode(test)[0].norm(dim=1) < 2.45
    return sum(inside[labels == digit].float().mean().item() > 0.5 for digit in range(10))


with torch.no_grad():
    codes = autoencoder.encode(black_and_white)[0]
    spread = torch.linalg.cholesky(torch.cov(codes.T))
    normal = torch.randn(1000, codes.shape[1], generator=seeded(1))
    of_codes = distance(autoencoder.decode(codes[:1000]))
    of_prior = distance(autoencoder.decode(normal))
    of_fitted = distance(autoencoder.decode(codes.mean(dim=0) + normal @ spread.T))
inside = (codes.norm(dim=1) < 2.45).float().mean().item()
print("fewer than half of the codes lie in the circle:", inside < 0.5)
print("of at most 5 of the 10 classes the larger part:", mostly_inside(autoencoder) <= 5)
print(f"distance of real training digits: {distance(load_digits('train')[0][:1000]):.0f}")
print("distance of images decoded at real codes, below 25:", of_codes < 25)
print("draws from N(0, I) are more than three times as far:", of_prior > 3 * of_codes)
print("draws from a Gaussian fitted to the codes, 1.5 times or more:", of_fitted > 1.5 * of_codes)

# %% [markdown]
# The autoencoder has two faults, and neither shows in its loss.
#
# - **Nobody knows where the codes are.** They lie wherever training happened to put them, far outside the circle, and what lies in the circle is
#   a few classes.
# - **There are holes.** Even if you fit a Gaussian to the codes and draw from *it*, many draws fall between the codes, where the decoder has never been asked
#   anything.
#
# A VAE cures both, with one idea and a price.
#
# ## A region for each image, and a price for it
#
# **The idea.** Let the encoder give each image a *cloud* in place of a point: a Gaussian $q(z \mid x) = \mathcal N(\mu(x), \sigma^2(x))$. The decoder
# gets a draw $z$ from the cloud, another one each time, and must give back the image from all of them. So what lies inside a cloud is no hole.
#
# **The price.** Left alone, the clouds shrink to points: noise only makes decoding harder. (The autoencoder was free to use clouds; what became of them is printed below.) So each cloud pays for being
# different from *one* distribution that we choose in advance for all images, the **prior** $p(z) = \mathcal N(0, I)$. Then we know where to draw from, too. What "different" costs is the
# **Kullback–Leibler divergence**, KL for short:
#
# $$D_\mathrm{KL}(q \,\|\, p) = \mathbb E_{z \sim q} \log \frac{q(z)}{p(z)} .$$
#
# It is the mean, over draws of $q$, of how much more likely they are under $q$ than under $p$. It is never negative, and 0 only where
# both are the same (a proof in one line comes below). Four clouds of one dimension and what they pay:

# %% jupyter={"source_hidden": true}
line = torch.linspace(-5, 5, 401)
prior_density = torch.distributions.Normal(0.0, 1.0).log_prob(line).exp()
figure = Figure(figsize=(10, 2.5))
for axes, (m, s) in zip(figure.subplots(1, 4, sharey=True), ((0, 1), (1.5, 1), (0, 0.3), (0, 2))):
    log_variance = 2 * torch.tensor([[float(s)]]).log()
    price = gaussian_kl(torch.tensor([[float(m)]]), log_variance).item()
    density = torch.distributions.Normal(float(m), float(s)).log_prob(line).exp()
    axes.fill_between(line, prior_density, color=PALETTE["noise"], alpha=0.35, label="prior p")
    axes.plot(line, density, color=PALETTE["latent"], label="cloud q")
    axes.set(title=f"μ = {m}, σ = {s}: {price:.2f} nats", xlabel="z")
figure.axes[0].legend(fontsize=8)
figure.tight_layout()
show_figure(
    figure,
    alt="Four clouds over the prior: the same one costs 0 nats, one that is moved to the side, one that is narrow and one that is wide cost about a nat each.",
)

# %% [markdown]
# To be elsewhere costs; to be narrow costs, for a narrow cloud says precisely where it is; and to be too wide costs as well, because KL takes
# the mean over $q$ and so charges for all of $q$ that lies where $p$ is small.
#
# **An encoder with two outputs.** A Gaussian of $d$ independent coordinates has $d$ means and $d$ standard deviations. The last layer of the encoder gives $2d$
# numbers, and the second half of them is read as $\log \sigma^2$:

# %%
with torch.no_grad():
    _, log_var = autoencoder.encode(black_and_white)
print("median σ of the autoencoder below 0.02:", (0.5 * log_var).exp().median().item() < 0.02)
show_source(VAE.encode)

# %% [markdown]
# *Why the logarithm?* A network's output can be any number, a variance only a positive one; $\sigma = e^{\frac12 \log \sigma^2}$ always is. To halve the width is
# then the same step at every width. And an untrained layer, which gives numbers near 0, starts at $\sigma \approx 1$: at the prior.
#
# **The draw** is written so that gradients can pass: noise first, then move it, $z = \mu + \sigma\varepsilon$ with $\varepsilon \sim \mathcal N(0, I)$. Why that is worth a name, the *reparameterization trick*, comes
# further down.

# %%
show_source(reparameterize)

# %% [markdown]
# ## Train it
#
# The loss is the sum of both, averaged over a batch: the **distortion** $\mathcal D = -\mathbb E_{q} \log p(x \mid z)$, estimated from *one* draw of $z$ for
# each image, and the **rate** $R = D_\mathrm{KL}(q(z \mid x) \,\|\, p(z))$. This is the whole VAE:
#
# $$\text{loss} = \mathcal D + R .$$

# %%
show_source(VAE.loss)

# %% [markdown]
# As a diagram, drawn from the model that is trained next as it runs; $B$ is the number of images in a batch. The encoder is *one* network with *two* outputs.

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import vae_diagram
from course_lib.widgets import show_diagram

show_diagram(vae_diagram(VAE((1, 8, 8), 2, hidden=(128, 128))))

# %%
torch.manual_seed(0)
live = VAE((1, 8, 8), 2, hidden=(128, 128))
history = fit(live, black_and_white, steps=1200, batch_size=128, lr=3e-3)
print("the loss fell below 20.5 nats:", history.loss() < 20.5)

# %%
codes_and_draws(
    live,
    "codes of a VAE",
    "The codes of the VAE fill the circle, all classes are in it, and its draws are digits of many kinds.",
)

# %%
live_prior = distance(live.sample(1000, mean=True, generator=seeded(1)))
with torch.no_grad():
    live_codes = distance(live.decode(live.encode(black_and_white)[0][:1000]))
print("the larger part of all 10 classes lies in the circle:", mostly_inside(live) == 10)
print("draws from N(0, I) are closer to digits than the autoencoder's:", live_prior < of_prior)
print("and less than 1.3 times as far as images at real codes:", live_prior < 1.3 * live_codes)
print("at real codes the autoencoder is the better one:", of_codes < live_codes)
print("its fitted Gaussian: at most 1.3 times as far as the VAE's draws:", of_fitted < 1.3 * live_prior)

# %% [markdown]
# The same network, the same data, one more term in the loss: the codes fill the circle, and a draw from it is less than 1.3 times as far from digits as an image at a real code, where the autoencoder's fitted Gaussian had 1.5 and more: fewer holes. It is paid for in
# reconstructions, which are blurred. Don't give the VAE too much credit for its samples: if you fit a Gaussian to an autoencoder's codes *afterwards*, its draws are about as good (last line). (Put 8 for 2 in both models, run down to here and compare `of_fitted` with `live_prior`: who is closer then?) First codes, then a model of them: chapter 03 goes that way. What the
# VAE has is one loss for everything, and a meaning of that loss, which comes next. Here is the whole plane; rows and columns are quantiles of the normal distribution, so that each picture stands for equally much of the prior.

# %%
with torch.no_grad():
    grid = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.05, 0.95, 11))
    tiles = live.decode(torch.cartesian_prod(-grid, grid).flip(1))
show_figure(
    image_grid(tiles, columns=11, size=0.5),
    alt="Eleven by eleven decoded digits of 8 by 8 pixels: neighbours are alike, all over the plane.",
)

# %% [markdown]
# That is the recipe. What remains is why: where does this loss come from, and what does it say about the probability of an image?
#
# ## A code for every image
#
# The source article sets the problem so. A network $g$ that moves draws of a Gaussian to images, $x = g(z)$, should bring its distribution to that of the data. We have *samples* of both and a formula of neither, and the
# divergences of the textbooks need both formulas. Two answers became famous in 2014: *learn* the comparison (a GAN, in the box near the end), or let the decoder answer with a distribution $p(x \mid z)$, so that a likelihood exists, and bound it. That is the VAE. First a code, then an image:
#
# $$p(z) = \mathcal N(0, I), \qquad p(x \mid z) \text{ from the decoder}, \qquad p(x) = \int p(z)\,p(x \mid z)\,dz .$$
#
# | symbol | meaning |
# | --- | --- |
# | $x$; $n$, $N$; $p_\text{data}$ | an image, a vector of $n$ pixels; the number of images; the distribution of images |
# | $z$, $d$ | its code, also called the latent; $d$ numbers |
# | $p(z)$ | the prior: standard normal |
# | $p(x \mid z)$, $a(z)$ | the decoder: for black and white pixels, a probability of white for each pixel; its logits |
# | $q(z \mid x)$, $\mu$, $\sigma$ | the encoder: a guess of the true posterior $p(z \mid x)$; a Gaussian $\mathcal N(\mu(x), \sigma^2(x))$ with independent coordinates |
# | $q(z)$ | the codes of all images together, $\frac1N \sum_k q(z \mid x_k)$ |
# | $\varepsilon$ | standard normal noise |
# | $R$, $\mathcal D$, $\beta$ | the rate $D_\mathrm{KL}(q(z \mid x) \,\|\, p(z))$, the distortion $-\mathbb E_q \log p(x \mid z)$, and the price of a nat of rate |
# | $I(x; z)$ | mutual information; $I$ alone is the identity matrix |
# | $W$, $b$, $M$, $\tau$, $\lambda_j$ | in the linear VAE: $x = Wz + b + \tau\varepsilon$, the matrix of its posterior, eigenvalues of the data's covariance |
# | $m$, $s$; $f$ | mean and standard deviation of a second Gaussian; the function whose mean is differentiated |
# | $y$ | the label of an image |
# | $S$, $w_s$, $\mathcal L_S$; $r$, $J$ | the number of draws of $z$ for each image, their weights and bound; a smaller number of draws, and which |
# | $c(x)$, $L(c)$; $g$, $p_g$ | the critic of a GAN and its loss; the generator, the distribution of $g(z)$ |
#
# Logarithms are natural; their unit is the *nat*, and a nat is $1/\ln 2 \approx 1.44$ bits.
#
# Given the code, pixels are independent: $\log p(x \mid z) = \sum_i \log \mathrm{sigmoid}\big((2 x_i - 1)\,a_i\big) = \sum_i \big[ x_i a_i - \log(1 + e^{a_i}) \big]$ with the decoder's logits $a(z)$, as in
# chapter 01. All that makes a digit hang together must pass through $z$. The loss needs it with the other sign, where it is called binary cross-entropy:

# %%
show_source(VAE.distortion)

# %% [markdown]
# **Why not draw $z$ from the prior and average?** $p(x) = \mathbb E_{z \sim p(z)}\,p(x \mid z)$ is an average that anybody can estimate. The
# trouble is how few of the draws count. Below is a VAE with two latents on the 8×8 digits. Two dimensions are few enough to *compute* the
# integral on a fine grid, and so to know the truth:

# %%
model = load_pretrained("vae_digits_beta_1")  # two latents, trained on the 8x8 digits
ticks = torch.arange(-5, 5, 0.1)
cells = torch.cartesian_prod(ticks, ticks)  # [10000, 2]
log_area = 2 * torch.tensor(0.1).log()
bits = test.flatten(1)  # [359, 64]
with torch.no_grad():
    a = model.decoder(cells)  # logits, [10000, 64]
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(cells).sum(dim=1, keepdim=True)
    log_joint = a @ bits.T - torch.nn.functional.softplus(a).sum(dim=1, keepdim=True) + log_prior  # [10000, 359]
    exact = log_joint.logsumexp(dim=0) + log_area  # log p(x), [359]
log_likelihood = log_joint - log_prior
for nats in (1, 2, 3, 4):  # within so many nats of the best z
    suits = log_likelihood > log_likelihood.max(dim=0).values - nats
    share = (suits * (log_prior + log_area).exp()).sum(dim=0).mean().item()
    unit = "nat" if nats == 1 else "nats"
    print(f"draws from the prior within {nats} {unit} of the best z, on average: {share:.1%}")
rate = load_card("vae_mnist")["metrics"]["rate (nats)"]
print(f"rate of the VAE with 50 latents on MNIST: {rate:.1f} nats, e^-{rate:.1f} = {torch.tensor(-rate).exp():.0e}")

# %% [markdown]
# With two latents that is a nuisance: a few draws in a hundred suit an image, more or fewer as you define it. The share falls as $e^{-R}$, roughly, for the rate says how
# much narrower an image's codes are than the prior; at the rate in the last line nobody can wait. We must look where the image's own codes are. That is what the encoder is for.
#
# **Every image has its own place.** A common picture of the VAE lets all codes flow together into *one* normal distribution, from which the decoder is fed. Then it could not know which image a $z$ should become; the best answer would be one blur for all. Each $x$ has a $q(z \mid x)$ of its own. Here
# is the true posterior of six images (computed on the grid), and around it one standard deviation of the encoder's Gaussian:

# %%
from matplotlib.patches import Ellipse

chosen = [int((labels == digit).nonzero()[0, 0]) for digit in (0, 1, 3, 4, 6, 9)]
with torch.no_grad():
    mu, log_var = model.encode(test)
    posterior = log_joint.softmax(dim=0).T  # of each cell, [359, 10000]
    exact_var = posterior @ cells**2 - (posterior @ cells) ** 2
narrower = ((0.5 * log_var).exp() < exact_var.sqrt()).float().mean()
print(f"σ of the encoder is smaller than the posterior's in {narrower:.0%} of all latents")
figure = Figure(figsize=(10, 2.4))
for axes, k in zip(figure.subplots(1, 6), chosen, strict=True):
    density = (log_joint[:, k] - log_joint[:, k].max()).exp().reshape(100, 100)
    axes.imshow(density.T, origin="lower", extent=(-5.05, 4.95, -5.05, 4.95), cmap="viridis")
    (x, y), (width, height) = mu[k].tolist(), 2 * (0.5 * log_var[k]).exp()
    axes.add_patch(Ellipse((x, y), width, height, fill=False, color=PALETTE["model"], lw=1.5))
    axes.set(xlim=(x - 1, x + 1), ylim=(y - 1, y + 1), title=f"a {labels[k]}", xlabel="$z_1$")
figure.axes[0].set_ylabel("$z_2$")
figure.tight_layout()
show_figure(
    figure,
    alt="The true posterior of six digits, each in another place of the plane: bright spots, and on each the encoder's ellipse, often smaller than the spot.",
)

# %% [markdown]
# The ellipse is often smaller than the spot. The four clouds say why: training makes $D_\mathrm{KL}(q \,\|\, \text{posterior})$ small, as the next section shows, and there to be three times too narrow cost less than to be twice too wide.
# What the ellipse covers outside of the spot costs much, what it leaves out costs little: this *reverse* divergence is **mode-seeking**; the *forward* one, $D_\mathrm{KL}(\text{posterior} \,\|\, q)$, would be **mode-covering**.

# %% [markdown]
# ## The bound, three ways
#
# **Variational** means: choose a distribution $q$ out of a family such that a bound becomes as tight as it can be. **Amortized** means: not one by one, with a search for each image, but by
# one network that gives $q(z \mid x)$ for every $x$, new ones too.
#
# **1. By Jensen's inequality.** Take any density $q(z \mid x)$ that is positive wherever $p(z)\,p(x \mid z)$ is. Multiply and divide by it:
#
# $$\log p(x) = \log \int q(z \mid x)\,\frac{p(z)\,p(x \mid z)}{q(z \mid x)}\,dz = \log \mathbb E_{q}\left[\frac{p(z)\,p(x \mid z)}{q(z \mid x)}\right]
# \;\ge\; \mathbb E_{q}\left[\log \frac{p(z)\,p(x \mid z)}{q(z \mid x)}\right],$$
#
# because the logarithm is concave: the logarithm of a mean is at least the mean of the logarithms. (The same argument gives $D_\mathrm{KL}(q \,\|\, p) = -\mathbb E_q \log \frac pq \ge -\log \mathbb E_q \frac pq \ge 0$, since $\mathbb E_q \frac pq = \int_{q > 0} p \le 1$, with equality only for $p = q$. We shall need it twice.) The right-hand side is the *evidence lower bound*,
# ELBO ($p(x)$ is called the *evidence*, or the **marginal likelihood**). Split the logarithm:
#
# $$\boxed{\;\mathrm{ELBO}(x) = \mathbb E_{q(z \mid x)} \log p(x \mid z) \;-\; D_\mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big)\;}$$
#
# The first term is minus the distortion, the second the rate: **the loss that you trained with is $-\mathrm{ELBO}$.**
#
# **2. From the divergence of the joint distributions**, the way of the source article. There are two ways to make a pair
# $(x, z)$: an image of the data and then its code, $p_\text{data}(x)\,q(z \mid x)$; or a code and then an image, $p(z)\,p(x \mid z)$. Compare the two
# joint distributions. Everything in them is known or can be sampled, except for a constant:
#
# $$\begin{aligned}
# D_\mathrm{KL}\big(p_\text{data}(x)\,q(z \mid x) \,\|\, p(z)\,p(x \mid z)\big)
# &= \mathbb E_{x \sim p_\text{data}}\Big[\log p_\text{data}(x) + \mathbb E_{q(z \mid x)} \log \frac{q(z \mid x)}{p(z)\,p(x \mid z)}\Big] \\
# &= \text{const} - \mathbb E_{x \sim p_\text{data}}\,\mathrm{ELBO}(x).
# \end{aligned}$$
#
# So the mean ELBO is, up to sign and a constant (the entropy of the data, which nobody knows), a divergence between two distributions. Is it the divergence that we wanted, the one between the images? Split both joints as image first, then code:
#
# $$D_\mathrm{KL}(\text{joints}) = D_\mathrm{KL}\big(p_\text{data}(x) \,\|\, p(x)\big) + \mathbb E_{x \sim p_\text{data}}\,D_\mathrm{KL}\big(q(z \mid x) \,\|\, p(z \mid x)\big).$$
#
# The second term is not negative: making the left side small makes the first term small.
#
# **3. By what is lost.** Put $p(z)\,p(x \mid z) = p(x)\,p(z \mid x)$, Bayes' rule, into the ELBO:
#
# $$\mathrm{ELBO}(x) = \mathbb E_q \log \frac{p(x)\,p(z \mid x)}{q(z \mid x)} = \log p(x) - D_\mathrm{KL}\big(q(z \mid x) \,\|\, p(z \mid x)\big).$$
#
# This one says *how much* is lost: the divergence of the encoder from the true posterior. The bound is tight where the
# encoder is perfect. Training raises the ELBO, which does two things at once: it makes the data likely, and the encoder honest.
#
# In code, rate and distortion, and the ELBO as minus their sum:

# %%
show_source([VAE.rate_distortion, VAE.elbo])

# %% [markdown]
# **Check it** against the truth on the grid. For all 359 test images the ELBO (of 500 draws) lies below the exact $\log p(x)$, and what lies between is
# the divergence of the third way, computed on the grid:

# %%
with torch.no_grad():
    bound = model.elbo(test, 500, generator=seeded(0))
    log_q = (
        torch.distributions.Normal(mu, (0.5 * log_var).exp()).log_prob(cells[:, None]).sum(dim=2)
    )
    log_posterior = log_joint - exact  # log p(z | x), [10000, 359]
    gap = (log_q.exp() * (log_q - log_posterior)).sum(dim=0) * log_area.exp()
print(
    "below the truth for every image, up to 0.15 nats of sampling noise:",
    bool((bound < exact + 0.15).all()),
)
print(
    "log p(x) − ELBO is the divergence, within 0.01 nats on average:",
    ((exact - bound) - gap).mean().abs().item() < 0.01,
)
print(f"exact {-exact.mean():.2f} nats, bound {-bound.mean():.2f} nats, gap {gap.mean():.2f} nats")

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## May be skipped: a VAE that can be solved with pencil and paper
#
# *It holds: a VAE whose likelihood and posterior are known exactly, in any dimension, and the sharpest check of the bound.*

# %% [markdown]
# ### The model, its likelihood and its posterior
#
# All is linear:
#
# $$x = W z + b + \tau\,\varepsilon, \qquad z \sim \mathcal N(0, I_d), \quad \varepsilon \sim \mathcal N(0, I_n).$$
#
# A linear function of Gaussians is a Gaussian, so two moments say everything. The mean is $b$, and since $z$ and $\varepsilon$ are independent the
# covariance is $W\,\mathbb E[zz^\top]\,W^\top + \tau^2 I$:
#
# $$p(x) = \mathcal N\big(b,\; W W^\top + \tau^2 I\big).$$
#
# The posterior: collect the terms of $\log p(z) + \log p(x \mid z) = -\frac12 z^\top z - \frac{1}{2\tau^2} \|x - b - W z\|^2 + \dots$ in $z$. The quadratic part is
# $-\frac{1}{2\tau^2} z^\top (W^\top W + \tau^2 I)\,z$ and the linear one $\frac{1}{\tau^2} z^\top W^\top (x - b)$. With $M = W^\top W + \tau^2 I$ that is a Gaussian:
#
# $$p(z \mid x) = \mathcal N\big(M^{-1} W^\top (x - b),\; \tau^2 M^{-1}\big).$$
#
# This model is called *probabilistic PCA*: its maximum-likelihood solution has the leading eigenvectors of the data's covariance as columns of $W$, each times $\sqrt{\lambda_j - \tau^2}$ with its eigenvalue $\lambda_j$, or any rotation of them
# (Tipping and Bishop 1999). Unrotated, as here, $M$ is diagonal. So a Gaussian encoder with independent coordinates can be exact. Then $q(z \mid x) = p(z \mid x)$, and the fraction $\frac{p(z)\,p(x \mid z)}{q(z \mid x)} = p(x)$ has no $z$ left in it: each
# draw gives the same number.

# %%
show_source([LinearVAE.log_prob, LinearVAE.posterior])

# %%
train = load_digits("train")[0].flatten(1).double()
held_out = load_digits("test")[0].flatten(1).double()
linear = LinearVAE.ppca(train, latent_dim=8)  # the maximum, in closed form
with torch.no_grad():
    truth = linear.log_prob(held_out)
    weights = linear.log_weights(held_out, 3, generator=seeded(0))  # log p(x | z) p(z) / q(z | x)
print(
    "at the true posterior every single draw gives log p(x), to 1e-9:",
    (weights - truth).abs().max().item() < 1e-9,
)

with torch.no_grad():  # move the encoder's mean of the first latent by 1/2
    linear.encoder.layers[0].bias[0] += 0.5
    variance = linear.posterior(held_out)[1][0, 0]
    generator = seeded(0)  # 2,000 draws for each image, in eight parts that fit a small memory
    worse = sum(linear.elbo(held_out, 250, generator=generator) for _ in range(8)) / 8
    lost = 0.5 * 0.5**2 / variance  # KL of two Gaussians of one variance, means 1/2 apart
print(
    "with a wrong encoder, below it by the divergence, within 0.02 nats:",
    ((truth - worse).mean() - lost).abs().item() < 0.02,
)

# %% [markdown]
# ## What the rate is made of
#
# For Gaussians the KL has a closed form. In one dimension, with $z = \mu + \sigma \varepsilon$, so that $\frac{(z - \mu)^2}{\sigma^2} = \varepsilon^2$,
#
# $$D_\mathrm{KL}\big(\mathcal N(\mu, \sigma^2) \,\|\, \mathcal N(m, s^2)\big) = \mathbb E\left[\log \frac{s}{\sigma} - \frac{\varepsilon^2}{2} + \frac{(\mu + \sigma\varepsilon - m)^2}{2 s^2}\right]
# = \log \frac s\sigma - \frac12 + \frac{\sigma^2 + (\mu - m)^2}{2 s^2},$$
#
# by $\mathbb E\,\varepsilon = 0$ and $\mathbb E\,\varepsilon^2 = 1$. Independent coordinates add up. For the prior, $m = 0$ and $s = 1$:
#
# $$R = \frac12 \sum_{j=1}^{d} \big(\sigma_j^2 + \mu_j^2 - 1 - \log \sigma_j^2\big).$$

# %%
show_source(gaussian_kl)

# %% [markdown]
# **Check it** by brute force: a million draws, $\log q - \log p$ averaged.

# %%
some_mu, some_log_var = torch.tensor([[1.0, -0.5, 0.0]]), torch.tensor([[-2.0, 0.3, 0.0]])
draws = reparameterize(some_mu.expand(10**6, 3), some_log_var.expand(10**6, 3), generator=seeded(0))
normal = torch.distributions.Normal
log_ratio = normal(some_mu, (0.5 * some_log_var).exp()).log_prob(draws) - normal(0.0, 1.0).log_prob(
    draws
)
estimate = log_ratio.sum(dim=1).mean()
closed_form = gaussian_kl(some_mu, some_log_var)[0]
print(
    "closed form and Monte Carlo agree within 0.01:", (closed_form - estimate).abs().item() < 0.01
)

# %% [markdown]
# **What does a small rate promise?** Each $q(z \mid x)$ is compared with the prior by itself, but for a draw from the prior what counts is $q(z)$, the codes of all images together
# (the **aggregate posterior**). Write $\log \frac{q(z \mid x)}{p(z)} = \log \frac{q(z \mid x)}{q(z)} + \log \frac{q(z)}{p(z)}$ and take the mean over images and their draws:
#
# $$\text{mean } R = \underbrace{I(x; z)}_{\text{what a code tells about its image}} + \underbrace{D_\mathrm{KL}\big(q(z) \,\|\, p(z)\big)}_{\text{how far all codes together are from the prior}} .$$
#
# Neither part is negative. So the rate bounds both: a model with a small rate *cannot* have codes that, all together, are far from the prior (Hoffman and Johnson 2016). The autoencoder paid nothing for either. In the library:

# %%
show_source(rate_parts)

# %% [markdown]
# **Measured**, with the plane cut into small cells, on three VAEs that were trained with different prices β for a nat of rate (a section below is about β):

# %%
fine = torch.arange(-5, 5, 0.05)
of_axis = normal(0.0, 1.0).log_prob(fine).softmax(dim=0)  # the prior's cells along an axis, [200]
prior_of_cells = torch.outer(of_axis, of_axis).flatten()  # [40000]
for beta in ("0_1", "1", "3"):
    with torch.no_grad():
        means, log_vars = load_pretrained(f"vae_digits_beta_{beta}").encode(test)
        clouds = normal(means[..., None], (0.5 * log_vars).exp()[..., None])
        first, second = clouds.log_prob(fine).softmax(dim=2).unbind(dim=1)  # [359, 200] each
        q = (first[:, :, None] * second[:, None]).flatten(1)  # independent coordinates
        information, mismatch = rate_parts(q, prior_of_cells)
    print(
        f"β = {beta.replace('_', '.'):3}  R {gaussian_kl(means, log_vars).mean():.2f} = "
        f"information {information:.2f} + mismatch {mismatch:.2f}"
    )

# %% [markdown]
# At β = 1 all codes together are within a quarter of a nat of the prior: few holes. At β = 0.1 the codes tell two nats more about their images, and the mismatch is six times as large. (The most that a code can tell is which of the 359 images it
# belongs to, $\log 359 = 5.9$ nats.)
#
# **Exercise 1: split a Gaussian's rate.** The data are numbers, $\mathcal N(0, s^2)$, and the encoder says $\mathcal N(w x, \sigma^2)$. Both parts have closed forms: derive them. Which codes, all together, cost least?
#
# Each `check` judges your function on fresh random inputs and tells you which property broke; it accepts every correct solution. `hint("02.gaussian_rate")` helps one step at a time; `solution("02.gaussian_rate")` shows what the library itself does.


# %%
def split_gaussian_rate(w, s, sigma):
    """Return (information, mismatch), [B] each, in nats; w, s and sigma are [B]."""
    ...


check("02.gaussian_rate", split_gaussian_rate)

# %% [markdown]
# ## A gradient through a random draw
#
# The distortion is an expectation over $z \sim \mathcal N(\mu, \sigma^2)$, and we need its gradient with respect to $\mu$ and $\sigma$, which are in the
# distribution, not in the function. Write $f(z)$ for $-\log p(x \mid z)$.
#
# **The score function** (also *REINFORCE*, the *log-derivative trick*, the *likelihood-ratio* estimator). Differentiate the density. As $\nabla q = q\,\nabla \log q$,
#
# $$\nabla\,\mathbb E_q f(z) = \int f(z)\,\nabla q(z)\,dz = \mathbb E_q\big[f(z)\,\nabla \log q(z)\big],$$
#
# $$\frac{\partial \log q}{\partial \mu} = \frac{z - \mu}{\sigma^2} = \frac{\varepsilon}{\sigma}, \quad
# \frac{\partial \log q}{\partial \sigma} = \frac{(z - \mu)^2}{\sigma^3} - \frac1\sigma = \frac{\varepsilon^2 - 1}{\sigma}.$$
#
# It works for any $f$, also for one that has no derivative. It learns from the *values* of $f$ alone: "this draw was better than that one".
#
# **Reparameterization** (the *pathwise* gradient). Draw the noise first and move it: $z = \mu + \sigma\varepsilon$ with $\varepsilon \sim \mathcal N(0, 1)$. The noise no longer depends on
# the parameters, and so the gradient goes inside:
#
# $$\nabla\,\mathbb E_\varepsilon f(\mu + \sigma\varepsilon) = \mathbb E_\varepsilon \nabla f(\mu + \sigma\varepsilon), \qquad
# \frac{\partial f}{\partial \mu} = f'(z), \quad \frac{\partial f}{\partial \sigma} = f'(z)\,\varepsilon .$$
#
# This one uses the *slope* of $f$: each single draw knows which way is down.

# %%
from course_lib.latent import reparameterization_gradient, score_function_gradient

show_source([reparameterization_gradient, score_function_gradient])

# %% [markdown]
# **See it.** $f$ is the distortion of a real test digit along the first latent axis. Drag the peak of the Gaussian, or its shoulder. Both estimates come from the same samples; the whiskers show how far off such an estimate usually is. Ask for new noise, and take steps downhill with the one or the other.

# %%
axis = torch.linspace(-3, 3, 241)
line = torch.stack([axis, mu[7, 1].expand(241)], dim=1)  # through the code of image 7
with torch.no_grad():
    distortion = -model.log_likelihood(test[7:8], line[:, None])[:, 0]
Reparameterization(
    axis,
    distortion,
    mu=0.5,
    sigma=0.5,
    title="Two ways to estimate a gradient",
    alt="Noise, a Gaussian that can be dragged, samples on a curve, and two gradient estimates with error bars.",
)

# %% [markdown]
# **Exercise 2: predict before you run it.** Replace $f(z)$ by $f(z) + 100$. The gradient of $\mathbb{E} f(z)$ stays what it was,
# for a constant has none. Whose estimates become noisier? Answer `"reparameterization"`, `"score function"`,
# `"both"` or `"neither"`.

# %%
prediction = ...

check("02.predict_constant", prediction)

# %% [markdown]
# **Measure it** on the decoder, for image 7, with 40,000 draws. Exercise 2 suggests a third estimate: subtract a constant from $f$, a
# **baseline**. It changes nothing in the mean, and may take most of the noise away. A good one is $f(\mu)$.


# %%
def distortion_of_7(z):
    """−log p(x | z) [n] of codes z [n, 2]."""
    return -model.log_likelihood(test[7:8], z[:, None])[:, 0]


with torch.no_grad():
    baseline = distortion_of_7(mu[7:8])
gaussian = (mu[7], (0.5 * log_var[7]).exp(), torch.randn(40_000, 2, generator=seeded(3)))
of_slope, _ = reparameterization_gradient(distortion_of_7, *gaussian)
of_score, _ = score_function_gradient(distortion_of_7, *gaussian)
with_baseline, _ = score_function_gradient(lambda z: distortion_of_7(z) - baseline, *gaussian)

apart = (with_baseline.mean(dim=0) - of_slope.mean(dim=0)).abs()
error = (with_baseline.var(dim=0) / 40_000).sqrt()
print(
    "both estimate the same gradient, within four standard errors:", bool((apart < 4 * error).all())
)
print(
    "and it is not zero, by more than four of them:",
    bool((with_baseline.mean(dim=0).abs() > 4 * error).all()),
)
ratio = (of_score.var(dim=0) / of_slope.var(dim=0)).min()
print(
    "variance of the score function, without a baseline, more than 100 times as large:",
    bool(ratio > 100),
)
ratio = (with_baseline.var(dim=0) / of_slope.var(dim=0)).min()
print("with the baseline f(μ), still more than twice:", bool(ratio > 2))

# %% [markdown]
# The factors depend on where you are and on $f$. With thousands of parameters and one draw for each image, they decide
# whether training works. The score function has its place where there is no slope: discrete latents, rewards from a game. There one never goes without a baseline.
#
# **Exercise 3: the trick for another law.** A draw from the Laplace density $e^{-|z - \mu| / s} / (2 s)$, through which gradients flow to $\mu$ and to
# $\log s$. What is random is `u`, uniform on (0, 1); a share $u$ of all draws shall lie below $z$.


# %%
def laplace_draw(mu, log_scale, u):
    """Return a draw z, of the shape of mu, log_scale and u."""
    ...


check("02.laplace_draw", laplace_draw)

# %% [markdown]
# **Exercise 4: a baseline that costs nothing.** With several draws for each image you need no $f(\mu)$: the baseline of a draw can be the mean of $f$ over the *other* draws. Why the others, and not all? Write the score function estimate
# for $\mu$, one for each draw, with this baseline (a *control variate*; in reinforcement learning this one is called *RLOO*, REINFORCE leave-one-out).


# %%
def with_baseline(values, z, mu, sigma):
    """Return the estimates for mu, [n]; values = f(z) and z are [n], mu and sigma scalars."""
    ...


check("02.leave_one_out", with_baseline)

# %% [markdown]
# ## Rate against distortion: the weight β
#
# Give the rate a weight: $\mathcal D + \beta R$. (The bound has β = 1, the autoencoder above 0. With β > 1 this is the **β-VAE** of [Higgins et al. 2017](https://openreview.net/forum?id=Sy2fzU9gl), who want each latent to stand for *one* cause of the image: **disentangled** codes. The words rate and distortion are those of [Alemi et al. 2018](https://arxiv.org/abs/1711.00464).) The best models form a curve in the plane of rate and distortion, convex if we may mix models. A model that minimises $\mathcal D + \beta R$ sits where a line
# $\mathcal D = \text{const} - \beta R$ touches this curve from below: $\frac{d\mathcal D}{dR} = -\beta$. So β is the *price*: a nat of rate is bought if it
# saves more than β nats of distortion.
#
# - **β below 1:** the codes become precise, reconstructions sharp. The bound suffers first; when β is very small, the likelihood does too: the codes leave gaps, into which the prior falls.
# - **β above 1:** codes are blurred. What saves most for its price survives. (Nothing promises that latents then stand for single causes: without labels or other help no method can promise it, Locatello et al. 2019, [arXiv:1811.12359](https://arxiv.org/abs/1811.12359).)
# - **β large:** no code is worth its price. Then $q(z \mid x) = p(z)$ for every image, $R = 0$, and the decoder ignores $z$: **posterior collapse**.
#
# Drag the slider over seven models, each trained with its own β.

# %%
from course_lib.training.recipes_latent import BETAS, beta_name

models = [load_pretrained(beta_name(beta)) for beta in BETAS]
cards = [load_card(beta_name(beta))["metrics"] for beta in BETAS]
shown = test[:150]
with torch.no_grad():
    codes = [m.encode(shown) for m in models]
BetaExplorer(
    BETAS,
    means=torch.stack([mean for mean, _ in codes]),
    stds=torch.stack([(0.5 * log_variance).exp() for _, log_variance in codes]),
    labels=labels[:150],
    originals=test[:10, 0],
    reconstructions=torch.stack(
        [m.decode(mean[:10])[:, 0] for m, (mean, _) in zip(models, codes, strict=True)]
    ).detach(),
    samples=torch.stack([m.sample(10, mean=True, generator=seeded(1))[:, 0] for m in models]),
    rates=[metrics["rate (nats)"] for metrics in cards],
    distortions=[metrics["distortion (nats)"] for metrics in cards],
    title="Seven prices for a nat",
    alt="For seven values of beta: the codes of test digits, reconstructions, samples, and the curve of rate against distortion.",
)

# %% [markdown]
# **How to see a collapse.** The loss ends at an ordinary number. Look at the rate of each latent, or at what Burda et al. call *active units*:
# those whose $\mu_j(x)$ varies from image to image (variance above 0.01).

# %%
log_p = "test negative log-likelihood, 1000 samples (nats)"
for beta, metrics in zip(BETAS, cards, strict=True):
    print(
        f"β = {beta:<3g}  R {metrics['rate (nats)']:.2f}  D {metrics['distortion (nats)']:5.2f}  "
        f"−ELBO {metrics['test negative ELBO (nats)']:.2f}  −log p {metrics[log_p]:.2f}  "
        f"active units {metrics['active units']:.0f} of 2"
    )
parts = torch.tensor([[m["rate (nats)"], m["distortion (nats)"]] for m in cards]).diff(dim=0)
prices = [f"{-distortion / rate:.1f}" for rate, distortion in parts.tolist()]
print("distortion for each nat of rate saved, from row to row:", ", ".join(prices))

# %% [markdown]
# Check the price in the last line: from row to row it lies between the two βs, or close to them. The ELBO is best at β = 1, where it was trained. At β = 0.3 the likelihood
# is as good: what is worse is the bound. (−log p is estimated as in the section on importance weights.)
#
# In the last row the code is gone, and the best reconstruction is the same for all images, the mean brightness of each pixel. Single latents collapse all the time: of the 50 of the MNIST model in the table below,

# %%
print(
    f"{load_card('vae_mnist')['metrics']['active units']:.0f} are active; of the others the mean hardly depends on the image."
)

# %% [markdown]
# **A collapse at β = 1: the decoder needs no code.** Flip a fair coin, hide it, and show eight copies of it, each wrong with probability 0.1. A decoder that draws each bit by itself, as ours do, must be told the coin: that is what a code is for. A decoder that
# sees the bits it has drawn already, like chapter 01's, can *read the coin off them*. Then a code only costs. Four decoders that see the last 0, 2, 3 or all earlier bits, all trained on $\mathcal D + R$; the table has 256 rows, so rate, distortion and the entropy of the data
# are exact:

# %%
from course_lib.experiments import fit_strength

above = []
for sees, low, high in ((0, 0.8, 1.1), (2, 0.6, 0.8), (3, 0.3, 0.6), (7, 0.0, 0.1)):
    report = fit_strength(sees, steps=300)
    above.append(report.rate + report.distortion - report.entropy)
    print(f"sees {sees} bits: R between {low} and {high} nats:", low <= report.rate < high)
print("−ELBO falls from each to the next:", above == sorted(above, reverse=True))
print("and ends within 0.1 nats of the entropy:", above[-1] < 0.1)
kept = fit_strength(7, free_bits=0.5, steps=300)
print("sees 7 bits, the first 0.5 nats of rate free of charge: R above 0.4:", kept.rate > 0.4)

# %% [markdown]
# The stronger the decoder, the less it is told; the strongest ignores its code, and has the *best* bound. Nothing went wrong in training: $-\mathrm{ELBO}$ is at least the entropy of the data, and a decoder that can be any distribution reaches it with $q(z \mid x) = p(z)$. If you want the code as well, you have to ask for it:
#
# - **Warm-up**: let β grow from 0 to 1 in training, so that the code is in use before it costs (Bowman et al. 2016, [arXiv:1511.06349](https://arxiv.org/abs/1511.06349)). It helps against a bad start; here even the best bound has no code.
# - **Free bits**: charge for the rate only above a minimum, $\mathcal D + \max(R, \text{minimum})$ (Kingma et al. 2016, [arXiv:1606.04934](https://arxiv.org/abs/1606.04934)), as in the last line above.
# - **A rate that cannot fall**: chapter 03's VQ-VAE. Its code is one of $K$ words, chosen without noise; against a uniform prior its rate is $\log K$, whatever the encoder does. A constant has no slope, so there is nothing to save by a collapse.
# - **A weaker decoder**, which leaves to the code what it should say (Chen et al. 2017, [arXiv:1611.02731](https://arxiv.org/abs/1611.02731)).
#
# **Exercise 5, break it: the ignored code.** Write a loss that makes a VAE ignore its latents, while its decoder still learns:
# the rate goes to zero, and every image gets the same reconstruction. The check trains a tiny VAE with your loss, for a second or
# two. Before you run it: what will the one reconstruction look like, and what would a sample be?


# %%
def collapsing_loss(distortion, rate):
    """Return the loss, a scalar; distortion and rate [B] are those of a batch, in nats."""
    ...


check("02.break_the_code", collapsing_loss)

# %% [markdown]
# ## Grey pixels: a decoder with a width of its own
#
# Many programs give grey values to a VAE and minimise the squared error plus the rate. That is a Gaussian decoder, $p(x \mid z) = \mathcal N(\hat x(z), \tau^2 I)$, whose $\tau^2 = \frac12$ nobody chose: a β in disguise. `VAE(..., likelihood="gaussian")` learns $\tau$.
#
# **Exercise 6: derive the best τ.** A decoder gives the means $\hat x$ of a batch. Which $\log \tau^2$, one number for all pixels, makes the batch most likely, and what is the mean log-likelihood of an image then? Set a derivative to zero on paper; the check compares with fresh data.


# %%
def best_noise(x, mean):
    """Return log τ², and the mean log p(x | z) of an image in nats; x and mean are [B, n]."""
    ...


check("02.best_noise", best_noise)

# %% [markdown]
# ## Ask for a digit: the conditional VAE
#
# Give the label $y$ to both networks: $p(x \mid z, y)$ and $q(z \mid x, y)$. All three derivations hold for each $y$ by itself, and give a bound of
# $\log p(x \mid y)$. What is left for $z$ is what the label doesn't say: slant, width, thickness. (This is the "M2" of Kingma et al. 2014, [arXiv:1406.5298](https://arxiv.org/abs/1406.5298), with all labels given. In the conditional VAE of Sohn, Lee and Yan 2015 the prior of $z$ depends on the condition.) The prior of $z$ is the same for all classes, and so a code can be carried over from one to the other.
# Each row below decodes *one* $z$ with ten labels.

# %%
styles = torch.randn(5, 8, generator=seeded(4)).repeat_interleave(10, dim=0)
with torch.no_grad():
    written = drawing_model.decode(styles, torch.arange(10).repeat(5))
show_figure(
    image_grid(written, columns=10, size=0.75),
    alt="Five rows of the digits zero to nine; in each row they have much the same slant and thickness, and some in the fourth row are smudged.",
)

# %% [markdown] jp-MarkdownHeadingCollapsed=true
# ## May be skipped: a tighter bound by importance weights
#
# *It holds: how VAEs are evaluated, why more draws never hurt, and Exercise 7.*

# %% [markdown]
# ### Average before the logarithm
#
# The ELBO is the mean of $\log w$ with the weights $w = \frac{p(z)\,p(x \mid z)}{q(z \mid x)}$, whose mean is $p(x)$, exactly. Take $S$ draws and average *before* the logarithm:
#
# $$\mathcal L_S(x) = \mathbb E\left[\log \frac1S \sum_{s=1}^S w_s\right], \qquad \mathcal L_1 = \mathrm{ELBO}.$$
#
# **It is a bound**, again by Jensen: $\mathcal L_S \le \log \mathbb E\,\frac1S \sum_s w_s = \log p(x)$.
#
# **More draws never hurt.** Let $J$ be a random choice of $r < S$ of the $S$ indices, all choices equally likely. Each index is in it equally often, and so
# $\frac1S \sum_s w_s = \mathbb E_J\big[\frac1r \sum_{s \in J} w_s\big]$. Jensen once more, for the average over $J$:
#
# $$\mathcal L_S = \mathbb E \log \mathbb E_J\Big[\frac1r \sum_{s \in J} w_s\Big] \;\ge\; \mathbb E\,\mathbb E_J \log \frac1r \sum_{s \in J} w_s = \mathcal L_r ,$$
#
# because any $r$ of the draws are as good as the first $r$. **And it tends to the truth:** by the law of large numbers the average tends to $p(x)$, and its logarithm to $\log p(x)$. The expected logarithm follows if the ELBO is finite, for it is caught between two averages that settle down: $\frac1S \sum_s \log w_s \le \log \frac1S \sum_s w_s \le \frac1S \sum_s w_s$.
#
# The weights of an image are numbers like $e^{-90}$; the average is taken by `logsumexp`, which computes $\log \sum_s e^{a_s}$ without ever forming $e^{a_s}$:

# %%
show_source([VAE.log_weights, VAE.importance_log_prob])

# %% [markdown]
# **Check it**, again with the truth from the grid:

# %%
sizes = [1, 3, 10, 30, 100, 300, 1000]
with torch.no_grad():
    weights = torch.cat(
        [model.log_weights(test, 100, generator=seeded(10 + k)) for k in range(20)]
    )  # [2000, 359]
bounds = []
for size in sizes:  # the 2,000 draws, cut into groups of each size
    groups = weights[: 2000 // size * size].reshape(-1, size, 359)
    bounds.append((groups.logsumexp(dim=1) - torch.tensor(float(size)).log()).mean().item())
print("each larger group is closer:", all(a < b for a, b in zip(bounds, bounds[1:], strict=False)))
closed = (bounds[-1] - bounds[0]) / (exact.mean().item() - bounds[0])
print("1,000 draws close more than four fifths of the gap:", closed > 0.8)

figure = Figure(figsize=(5.6, 2.9))
axes = figure.subplots()
axes.semilogx(sizes, bounds, "o-", color=PALETTE["model"], label="importance-weighted bound")
axes.axhline(exact.mean().item(), color=PALETTE["data"], ls="--", label="exact, from the grid")
axes.set(
    xlabel="draws of z for each image, S", ylabel="nats", title="359 test digits, mean log p(x)"
)
axes.legend()
figure.tight_layout()
show_figure(
    figure,
    alt="The bound rises with the number of draws and comes close to the exact log-likelihood, quickly at first.",
)

# %% [markdown]
# This estimate is how VAEs are *evaluated*. It can also be *trained*: with $S = 5$ draws in the loss the model is called an IWAE. There the encoder is
# no longer asked to look like the posterior, only to cover it.

# %% [markdown]
# **Exercise 7: the importance-weighted bound.** `log_weights[s, b]` is $\log \frac{p(x_b \mid z_s)\, p(z_s)}{q(z_s \mid x_b)}$ at the draw $z_s$.
# They may be numbers near −800, or 800.


# %%
def iwae_bound(log_weights):
    """Return the bound of log p(x) for each x, [B]; log_weights is [S, B]."""
    ...


check("02.iwae_bound", iwae_bound)

# %% [markdown]
# ## In a box: the other answer of 2014, the GAN
#
# A **generative adversarial network** draws $z$, too, and sends it through a network, $x = g(z)$. It never writes down a likelihood. A second network, the **critic** (or discriminator), sees samples of both kinds, equally often, and learns to tell them apart. Let $c(x)$ be its logit of "this is data". Twice its mean classification loss is
#
# $$L(c) = -\int \Big[p_\text{data}(x) \log \mathrm{sigmoid}(c(x)) + p_g(x) \log\big(1 - \mathrm{sigmoid}(c(x))\big)\Big]\,dx .$$
#
# With its minus the integrand is convex in $c(x)$, and its slope $p_g\,\mathrm{sigmoid}(c) - p_\text{data}\,(1 - \mathrm{sigmoid}(c))$ vanishes where $e^{c} = p_\text{data} / p_g$. So the best critic is a comparison of two distributions that are known by samples only:
#
# $$\boxed{\;c^*(x) = \log \frac{p_\text{data}(x)}{p_g(x)}\;}$$
#
# In Goodfellow's game (**minimax**) the generator lowers $\log(1 - \mathrm{sigmoid}(c(g(z))))$; against the best critic that makes a **Jensen–Shannon divergence** (JSD) small (theorem 1 of the paper): with $\bar p = \frac12 (p_\text{data} + p_g)$, $\mathrm{JSD} = \frac12 D_\mathrm{KL}(p_\text{data} \,\|\, \bar p) + \frac12 D_\mathrm{KL}(p_g \,\|\, \bar p)$, and the box in $L$ gives $-L(c^*) = 2\, \mathrm{JSD} - 2 \log 2$. Where the critic is sure, this loss has hardly a slope, and so in practice, in the paper too, the generator raises $\log \mathrm{sigmoid}(c(g(z)))$, the **non-saturating** loss. **Check** the box, then both models on eight Gaussians in a ring, with networks of the same sizes and the same number of steps:

# %%
from course_lib.data import toy, toy_log_prob

x_grid = torch.linspace(-6, 6, 1001, dtype=torch.float64)
p_data = torch.distributions.Normal(1.0, 1.0).log_prob(x_grid).exp()
p_g = torch.distributions.Normal(-1.0, 1.0).log_prob(x_grid).exp()
c = (2 * x_grid).requires_grad_()  # the log-ratio of these two
softplus = torch.nn.functional.softplus
critic_loss = (p_data * softplus(-c) + p_g * softplus(c)).sum()  # −log sigmoid(c) = softplus(−c)
(slope,) = torch.autograd.grad(critic_loss, c)
print("c = log p_data / p_g minimises the critic's loss:", slope.abs().max().item() < 1e-12)

gan, ring_vae = load_pretrained("gan_eight_gaussians"), load_pretrained("vae_eight_gaussians")
clouds = [
    ("data", toy("eight_gaussians", 2000, generator=seeded(0)), "data"),
    ("GAN", gan.sample(2000, generator=seeded(1)), "model"),
    ("VAE", ring_vae.sample(2000, generator=seeded(1)), "model"),
]
figure = Figure(figsize=(9, 3.1))
for axes, (title, points, colour) in zip(figure.subplots(1, 3), clouds, strict=True):
    axes.scatter(*points.T, s=2, color=PALETTE[colour])
    axes.set(title=title, xlabel="$x_1$", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
figure.axes[0].set_ylabel("$x_2$")
figure.tight_layout()
show_figure(
    figure,
    alt="Eight clusters of data; the GAN's samples lie along a thin arc that passes four of them; the VAE's reach all and also fill the gaps.",
)

# %%
for (name, points, _), kind in zip(clouds[1:], ("gan", "vae"), strict=True):
    metrics = load_card(f"{kind}_eight_gaussians")["metrics"]
    log_p = toy_log_prob("eight_gaussians", points)
    print(
        f"{name}: {metrics['modes reached']} of 8 modes; where no data are (log p_data < −10) "
        f"{(log_p < -10).float().mean():.0%} of the samples; mean log p_data {log_p.mean():.1f}"
    )

# %% [markdown]
# (The card calls a mode reached by 25 of 2,000 samples or more within three standard deviations of its centre; an even share is 250.) The GAN reaches half of the modes (**mode collapse**), *and* more of its samples lie where no data are. It is tempting to explain this by divergences: the VAE minimises an upper bound of $D_\mathrm{KL}(p_\text{data} \,\|\, p)$ (second way), which punishes missed modes (mode-covering), a GAN something nearer to the other direction, which punishes samples in empty places (mode-seeking). (For a perfect critic and this
# generator's loss the gradient is that of $D_\mathrm{KL}(p_g \,\|\, p_\text{data}) - 2\,\mathrm{JSD}$: Arjovsky and Bottou 2017, [arXiv:1701.04862](https://arxiv.org/abs/1701.04862), theorem 2.5.) Our numbers say no: this GAN is worse on both counts. What you see is a *training* that failed: two
# networks chase each other, no critic is perfect, and no loss tells. Goodfellow's tutorial, too, sees another cause of mode collapse than the choice of divergence (2016, [arXiv:1701.00160](https://arxiv.org/abs/1701.00160), section 3.2.5). Better training does reach all eight on such a ring
# (unrolled GANs, Metz et al. 2017, [arXiv:1611.02163](https://arxiv.org/abs/1611.02163)), and for years no model wrote sharper pictures than a GAN. But it is trained without a number that says how well it does; that is the price, and the reason why this course follows likelihoods.

# %% [markdown]
# ## How good is it?
#
# Negative log-likelihood of black and white test images, in nats: lower is better. Ours are importance-weighted estimates with 1,000 draws for each
# image: bounds themselves, from above. They come from the cards in `data/checkpoints`, each with the command that trains the model
# (`python -m course_lib train vae_mnist`).

# %% jupyter={"source_hidden": true}
from IPython.display import Markdown

nats = "test negative log-likelihood, 1000 samples (nats)"
table = (
    "| model | digits, 8×8 | MNIST | −ELBO on MNIST | MNIST, in papers |\n"
    "| --- | ---: | ---: | ---: | ---: |\n"
)
digits_nats = load_card("vae_digits")["metrics"][nats]
for card, title, small, paper in [
    ("vae_mnist", "VAE", f"{digits_nats:.1f}", "86.76 ᵃ"),
    ("iwae_mnist", "IWAE, 5 draws in training", "", "with 50 draws 84.78 ᵃ"),
]:
    metrics = load_card(card)["metrics"]
    table += f"| {title} | {small} | {metrics[nats]:.1f} | {metrics['test negative ELBO (nats)']:.1f} | {paper} |\n"
for kind, title, paper in [
    ("made", "MADE (chapter 01)", "86.64 ᵇ, two layers, 32 mask sets"),
    ("pixelcnn", "PixelCNN (chapter 01)", "81.30 ᵇ"),
]:
    exact_nats = [
        load_card(f"{kind}_{data}")["metrics"]["test negative log-likelihood (nats)"]
        for data in ("digits", "mnist")
    ]
    table += f"| {title} | {exact_nats[0]:.1f} | {exact_nats[1]:.1f} | | {paper} |\n"
Markdown(table)

# %%
for name in ("vae_mnist", "iwae_mnist"):
    card = load_card(name)
    metrics = card["metrics"]
    print(
        f"{name:10}  {card['steps']:7,} steps of 128, {card['steps'] * 128 / 60_000:.0f} passes;  "
        f"{metrics['active units']:.0f} of 50 units active;  "
        f"standard error {metrics['standard error (nats)']:.1f} nats"
    )

# %% [markdown]
# How to read it:
#
# - **The VAE is one nat or so behind the paper's**, ᵃ Burda et al. 2016, table 1, one stochastic layer of 50 units. (We know both numbers from others who quote them, and not the table itself; that for an IWAE of 5 draws we don't know.) Theirs trained for 3,280 passes through the data (ours: above, and no equal budgets), with hidden layers of 200 units where ours have 400, and were evaluated with 5,000 draws.
# - **The IWAE is the better model with the worse ELBO.** Its encoder was not trained to be close to the true posterior (third way!), and so its own ELBO is loose. What it gains is the likelihood, and some more active units.
# - **The estimate is itself a bound.** With 1,000 draws the true $-\log p(x)$ is lower still. By how much can be estimated, with annealed importance sampling (Wu et al. 2017, [arXiv:1611.04273](https://arxiv.org/abs/1611.04273)); we did not.
# - **The last column mixes two test sets.** In Burda's table the black and white images are drawn anew each time, as we do in training; MADE and PixelCNN (ᵇ chapter 01 has the sources) were measured on one fixed draw. On our own draw MADE, without any latents, is half a nat behind the VAE and two behind the IWAE, and PixelCNN three to five
#   ahead. In exchange the VAE has the code, and samples without waiting.
#
# ## What to take away
#
# - An autoencoder gives codes; a VAE gives codes whose distribution you chose. The price is a rate, and the rate is information plus mismatch.
# - The loss is $-\mathrm{ELBO}$, and the ELBO is $\log p(x)$ minus the encoder's error.
# - Draw the noise first, and the gradient passes through the draw. Where $f$ has a slope, use it.
# - When a code isn't worth its price β it collapses, and with a strong enough decoder none is; look at the rate to see it.
#
# **What does not work well:** the pixels are drawn independently given $z$: where the decoder is unsure means are blurred, and samples speckled. The encoder's Gaussian
# is a rough guess of the posterior. And in more than two dimensions the likelihood is a bound, not a number that one can check.
#
# **What came after:**
#
# - Deeper codes: many layers of latents make VAEs as good at likelihood as autoregressive models (NVAE, Vahdat and Kautz 2020, [arXiv:2007.03898](https://arxiv.org/abs/2007.03898); Very Deep VAEs, Child 2021, [arXiv:2011.10650](https://arxiv.org/abs/2011.10650)).
# - Better posteriors: flows inside the encoder (Rezende and Mohamed 2015, [arXiv:1505.05770](https://arxiv.org/abs/1505.05770)). A diffusion model, chapter 06, is a deep VAE whose encoder is fixed.
# - A VAE as a first stage: a small rate, a good decoder, and a second model for the codes (latent diffusion, Rombach et al. 2022, [arXiv:2112.10752](https://arxiv.org/abs/2112.10752); chapter 12).
#
# **Next, chapter 03:** codes that are whole numbers. The VQ-VAE drops the KL term, the Gaussian and the randomness; the distribution over codes is learned afterwards, by a model from chapter 01, and the codes may be much longer.

# %% [markdown]
# [← 01 · Autoregressive models](01_autoregressive.ipynb) | [Contents](../README.md#chapters) | [03 · VQ-VAE →](03_vq_vae.ipynb)
