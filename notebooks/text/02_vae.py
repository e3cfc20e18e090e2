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
# # 02 · Variational autoencoders
#
# **Give every image a short code, learn to draw images from codes, and bound the probability that you cannot compute.**
#
# | | |
# | --- | --- |
# | You need | Gaussians, Bayes' rule, the expectation of a function; some PyTorch. Chapter 01 is useful, not needed |
# | Time | 20 minutes to read, an hour with the exercises |
# | You will meet | latent variables, GANs in passing, the ELBO, the reparameterization trick, posterior collapse, the importance-weighted bound |
# | Papers | Kingma, Welling 2014, [Auto-encoding variational Bayes](https://arxiv.org/abs/1312.6114); Rezende, Mohamed, Wierstra 2014, [Stochastic backpropagation](https://arxiv.org/abs/1401.4082); Burda, Grosse, Salakhutdinov 2016, [IWAE](https://arxiv.org/abs/1509.00519); Goodfellow et al. 2014, [GAN](https://arxiv.org/abs/1406.2661) |
# | Source article | 分布变换 (VAE beside GAN, in Chinese) |
#
#
# ## See it
#
# Run the two cells below (Shift+Enter). The plane on the left is the whole world of a trained VAE: each of its points is the code of
# an image. **Drag the point** and watch the digit change. The small characters are the codes of 200 digits, as the encoder reads them; another VAE of this chapter drew them. Press *Walk* for the way
# from one code to another.

# %%
import torch

from course_lib.data import binarize, load_digits
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import BetaExplorer, LatentPlane, ParticlePlayer, Reparameterization

one_thread()  # models this small are slower on two

# %%
plane_model, drawing_model = load_pretrained("vae_mnist_plane"), load_pretrained("cvae_mnist")


def draw(z):
    """Points of the plane [B, 2] to images [B, 1, 28, 28]."""
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
# - **Neighbours are alike.** A short way in the plane is a small change of the image. Nobody asked for that in words; it follows
#   from the loss.
# - **There are few holes.** Almost wherever you stop, you get something like a digit, and between a 4 and a 9 there are images that
#   could be either. Ordinary autoencoders don't have this property.
# - **Borders are blurred.** Halfway between two shapes the decoder draws both a little. (What you see is the *probability* of white, pixel by pixel. A sample would decide each pixel for itself, and look speckled there.)

# %% [markdown]
# ## The problem: two distributions, known by samples only
#
# We want to draw new images. Here is a plan that sounds easy: draw a code $z$ from a distribution that we know,
# $p(z) = \mathcal N(0, I)$, and let a network $g$ make an image of it, $x = g(z)$. The network moves the probability mass of the
# Gaussian to where it wants; we want it to arrive where the data are. So the task is a **transformation of distributions**.
#
# Training needs a number that says how far the distribution of $g(z)$ is from that of the data. And here is the difficulty
# that the source article starts with. Of the data we have *samples* $x_1, \dots, x_N$, and no formula. Of $g(z)$ we can draw
# as many samples as we like, and we have no formula either: to write down the density of $g(z)$ at an image we would have to find all
# $z$ that lead there. (Chapter 04 builds networks that can be inverted, so that this works.) The divergences of
# the textbooks, such as $D_\mathrm{KL}(p \,\|\, q) = \int p \log \frac pq\,dx$, need both formulas. Histograms don't help: cut the range of
# each of 784 pixels into just two bins, and you have $2^{784}$ cells for 60,000 images.
#
# Two answers became famous in 2014.
#
# **GAN: learn the comparison.** A second network, the *critic*, sees samples of both kinds and learns to tell them apart. Let $c(x)$ be its
# *logit* of "this is data": the probability that it gives is $\mathrm{sigmoid}(c) = 1 / (1 + e^{-c})$. Let both kinds come equally often. Its classification loss is
#
# $$L(c) = -\mathbb E_{x \sim p_\text{data}} \log \mathrm{sigmoid}(c(x)) - \mathbb E_{x \sim p_g} \log\big(1 - \mathrm{sigmoid}(c(x))\big)
# = -\int \Big[p_\text{data}(x) \log \mathrm{sigmoid}(c(x)) + p_g(x) \log\big(1 - \mathrm{sigmoid}(c(x))\big)\Big]\,dx .$$
#
# The best $c$ can be found for each $x$ separately. With $\frac{d}{da} \log \mathrm{sigmoid}(a) = 1 - \mathrm{sigmoid}(a)$ and
# $\frac{d}{da} \log (1 - \mathrm{sigmoid}(a)) = -\mathrm{sigmoid}(a)$, the derivative of the integrand vanishes where
# $p_\text{data}\,(1 - \mathrm{sigmoid}(c)) = p_g\,\mathrm{sigmoid}(c)$, that is $\frac{\mathrm{sigmoid}(c)}{1 - \mathrm{sigmoid}(c)} = e^{c} = \frac{p_\text{data}}{p_g}$. Both $-\log \mathrm{sigmoid}(c)$ and $-\log(1 - \mathrm{sigmoid}(c))$ are convex
# (their second derivative is $\mathrm{sigmoid}(c)(1 - \mathrm{sigmoid}(c)) > 0$), so this is the minimum:
#
# $$\boxed{\;c^*(x) = \log \frac{p_\text{data}(x)}{p_g(x)}\;}$$
#
# A perfect critic *is* the comparison that we lacked, learned from samples alone. The generator $g$ is then trained to raise $c(g(z))$. Both
# learn at the same time, each against a moving opponent.
#
# **VAE: bound the likelihood.** Let the decoder say not one image but a distribution $p(x \mid z)$. Then $p(x) = \int p(z)\,p(x \mid z)\,dz$ is
# positive everywhere, and maximum likelihood makes sense. The integral is out of reach, but it has a lower bound that can be
# computed. The rest of this chapter is about this bound.
#
# Both answers, on eight Gaussians in a ring. Same sizes, same number of steps:

# %%
from matplotlib.figure import Figure

from course_lib.data import toy
from course_lib.latent import GAN, VAE, LinearVAE, gaussian_kl, reparameterize
from course_lib.latent import reparameterization_gradient, score_function_gradient
from course_lib.exercises import check, hint, show_source, solution
from course_lib.nn import bernoulli_log_prob
from course_lib.widgets import PALETTE, image_grid, show_figure

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
for kind in ("gan", "vae"):
    metrics = load_card(f"{kind}_eight_gaussians")["metrics"]
    share = metrics["share of samples in a mode"]
    print(
        f"{kind.upper()}: {metrics['modes reached']} of 8 modes; {share:.0%} of samples in a mode"
    )

# %% [markdown]
# The two fail in opposite ways, and one formula says why. Put a perfect critic into the GAN's game: $-\mathbb E_{x \sim p_g} c^*(x) = D_\mathrm{KL}(p_g \,\|\, p_\text{data})$. It is measured *where the
# generator puts its samples*, so that a cluster without samples costs little, and a sample in an empty place costs much. (Our generator maximises $\log \mathrm{sigmoid}(c)$, a relative of this.) Maximum likelihood, the way of the VAE, minimises
# $-\mathbb E_{x \sim p_\text{data}} \log p(x)$, which is $D_\mathrm{KL}(p_\text{data} \,\|\, p)$ up to a constant: measured *where the data are*. A missed cluster costs without limit, a sample in an empty place costs little.
#
# - **The GAN drops modes.** Samples that have left a cluster come back only if the critic's slope happens to lead there. This is *mode collapse*. It is no law: three runs that differ in their seed alone reached
#   4, 8 and 8 modes, with 62 %, 85 % and 91 % of their samples in a mode. You see the first of them; a few of its samples lie outside the picture. At its best the GAN is sharper than the VAE, at its worst it misses half of the ring, and its loss doesn't tell you which you have.
# - **The VAE covers everything, and smears.**
#
# Press play below to see the GAN's transformation itself: each particle walks in a straight line from its $z$ to $g(z)$.

# %%
latents = torch.randn(1500, 2, generator=seeded(2))
with torch.no_grad():
    arrived = gan.decode(latents)
ParticlePlayer(
    torch.stack([(1 - s) * latents + s * arrived for s in torch.linspace(0, 1, 11)]),
    role="model",
    title="From z to g(z)",
    alt="Fifteen hundred particles walk from a round cloud to a thin arc, which passes four of the eight clusters of the data.",
)

# %% [markdown]
# **Check** the boxed formula, without any training. For $p_\text{data} = \mathcal N(1, 1)$ and $p_g = \mathcal N(-1, 1)$ the log-ratio is
# $-\frac{(x-1)^2}{2} + \frac{(x+1)^2}{2} = 2x$. At this $c$ the derivative of the loss must vanish, at every $x$:

# %%
x_grid = torch.linspace(-6, 6, 1001, dtype=torch.float64)
p_data = torch.distributions.Normal(1.0, 1.0).log_prob(x_grid).exp()
p_g = torch.distributions.Normal(-1.0, 1.0).log_prob(x_grid).exp()
c = (2 * x_grid).requires_grad_()
softplus = torch.nn.functional.softplus
critic_loss = (p_data * softplus(-c) + p_g * softplus(c)).sum()  # −log sigmoid(c) = softplus(−c)
(slope,) = torch.autograd.grad(critic_loss, c)
print("c = log p_data / p_g minimises the critic's loss:", slope.abs().max().item() < 1e-12)

# %% [markdown]
# ## A code for every image
#
# The model: first a code, then an image.
#
# $$p(z) = \mathcal N(0, I), \qquad p(x \mid z) \text{ from the decoder}, \qquad p(x) = \int p(z)\,p(x \mid z)\,dz .$$
#
# | symbol | meaning |
# | --- | --- |
# | $x$ | an image, a vector of $n$ pixels |
# | $z$, $d$ | its code, also called the latent; $d$ numbers |
# | $p(z)$ | the prior: standard normal |
# | $p(x \mid z)$ | the decoder: for black and white pixels, a probability of white for each pixel |
# | $q(z \mid x)$ | the encoder: a guess of the true posterior $p(z \mid x)$; a Gaussian $\mathcal N(\mu(x), \sigma^2(x))$ with independent coordinates |
# | $\varepsilon$ | standard normal noise |
# | $R$, $\mathcal D$ | the rate $D_\mathrm{KL}(q(z \mid x) \,\|\, p(z))$, and the distortion $-\mathbb E_q \log p(x \mid z)$ |
# | $c(x)$, $p_g$ | the critic of a GAN; the distribution of its $g(z)$ |
# | $B$, $S$ | the number of images in a batch; the number of draws of $z$ for each image |
#
# Logarithms are natural; their unit is the *nat*, and a nat is $1/\ln 2 \approx 1.44$ bits. $\sigma$ is a standard deviation throughout.
#
# Given the code, pixels are independent: $\log p(x \mid z) = \sum_i \log \mathrm{sigmoid}\big((2 x_i - 1)\,a_i\big) = \sum_i x_i a_i - \log(1 + e^{a_i})$ with the decoder's logits $a(z)$, as in
# chapter 01. All that makes a digit hang together must pass through $z$.

# %%
show_source([VAE.decoder_log_prob, bernoulli_log_prob])

# %% [markdown]
# **Why not draw $z$ from the prior and average?** $p(x) = \mathbb E_{z \sim p(z)}\,p(x \mid z)$ is an average that anybody can estimate. The
# trouble is how few of the draws count. Below is a VAE with two latents on the 8×8 digits. Two dimensions are few enough to *compute* the
# integral on a fine grid, and so to know the truth:

# %%
model = load_pretrained("vae_digits_beta_1")  # two latents, trained on the 8x8 digits
images, labels = load_digits("test")
test = binarize(images, threshold=0.5)

ticks = torch.arange(-5, 5, 0.1)
cells = torch.cartesian_prod(ticks, ticks)  # [10000, 2]
log_area = 2 * torch.tensor(0.1).log()
bits = test.flatten(1)  # [359, 64]
with torch.no_grad():
    a = model.decoder(cells)  # logits, [10000, 64]
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(cells).sum(dim=1, keepdim=True)
    log_joint = a @ bits.T - softplus(a).sum(dim=1, keepdim=True) + log_prior  # [10000, 359]
    exact = log_joint.logsumexp(dim=0) + log_area  # log p(x), [359]
log_likelihood = log_joint - log_prior
matter = log_likelihood > log_likelihood.max(dim=0).values - 2  # a seventh of the best, or more
share = (matter * (log_prior + log_area).exp()).sum(dim=0).mean().item()
print(f"draws from the prior that suit an image, on average: {share:.0%}")

# %% [markdown]
# With two latents that is a nuisance. The share is about $e^{-R}$, where the rate $R$ (in the table above) is how far the codes of an image are from the prior: here $R = 3.2$ nats and $e^{-3.2} = 4$ %. The best model of this chapter has a rate of 22 nats: of $e^{22}$, nearly
# four billion draws, one suits the image. We must look where the image's own codes are.
#
# **And every image needs its own place.** In a common picture of the VAE, the encoder's outputs are averaged into *one*
# normal distribution, from which the decoder is then fed. It can't work like that. If we drew $z$ from one distribution for all
# images, how should the decoder know which of the $x_k$ this $z$ should become? Paired at random, the best it can do is the same
# blurred answer for all of them. Each $x_k$ gets a distribution $q(z \mid x_k)$ *of its own*, and a draw from that one is paired with that $x_k$.
# Here is the true posterior of six images (computed on the grid), and around it one standard deviation of the encoder's Gaussian:

# %%
from matplotlib.patches import Ellipse

chosen = [int((labels == digit).nonzero()[0, 0]) for digit in (0, 1, 3, 4, 6, 9)]
with torch.no_grad():
    mu, log_var = model.encode(test)
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
# Look at the ticks: each panel is another part of the plane. The ellipse is often smaller than the spot. The reason comes in the next section: the loss punishes codes outside the spot more than parts of the spot
# left out.

# %% [markdown]
# ## The bound, three ways
#
# **1. By Jensen's inequality.** Take any density $q(z \mid x)$ that is positive wherever $p(z)\,p(x \mid z)$ is. Multiply and divide by it:
#
# $$\log p(x) = \log \int q(z \mid x)\,\frac{p(z)\,p(x \mid z)}{q(z \mid x)}\,dz = \log \mathbb E_{q}\left[\frac{p(z)\,p(x \mid z)}{q(z \mid x)}\right]
# \;\ge\; \mathbb E_{q}\left[\log \frac{p(z)\,p(x \mid z)}{q(z \mid x)}\right],$$
#
# because the logarithm is concave: the logarithm of a mean is at least the mean of the logarithms. (The same argument gives $D_\mathrm{KL}(q \,\|\, p) = -\mathbb E_q \log \frac pq \ge -\log \mathbb E_q \frac pq = 0$, with equality only for $p = q$. We shall need it twice.) The right-hand side is the *evidence lower bound*,
# ELBO. Split the logarithm:
#
# $$\boxed{\;\mathrm{ELBO}(x) = \mathbb E_{q(z \mid x)} \log p(x \mid z) \;-\; D_\mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big)\;}$$
#
# The first term wants the image back from its code. The second wants the codes of every image to look like the prior.
#
# **2. From the divergence of the joint distributions**, the way of the source article. There are two ways to make a pair
# $(x, z)$: an image of the data and then its code, $p_\text{data}(x)\,q(z \mid x)$; or a code and then an image, $p(z)\,p(x \mid z)$. Compare the two
# joint distributions. Everything in them is known or can be sampled, except for a constant:
#
# $$D_\mathrm{KL}\big(p_\text{data}(x)\,q(z \mid x) \,\|\, p(z)\,p(x \mid z)\big)
# = \mathbb E_{x \sim p_\text{data}}\Big[\log p_\text{data}(x) + \mathbb E_{q(z \mid x)} \log \frac{q(z \mid x)}{p(z)\,p(x \mid z)}\Big]
# = \text{const} - \mathbb E_{x \sim p_\text{data}}\,\mathrm{ELBO}(x).$$
#
# So the mean ELBO is, up to sign and a constant, a divergence between two distributions: the very thing that the two sets of samples did not
# give us. (The constant, minus the entropy of the data, is unknown; so one never sees how far one still is.) Is it the divergence that we wanted, the one between the images? Split both joints as image first, then code:
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
# encoder is perfect. Training raises the ELBO, which does two things at once: it makes the data likely, and the encoder honest. (And a third, less welcome: it prefers decoders whose posteriors are easy to match.)
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

# %% [markdown]
# ## A VAE that can be solved with pencil and paper
#
# Grids are for two dimensions. There is one VAE whose likelihood is known in any dimension: the one where all is linear,
#
# $$x = W z + b + \sigma\,\varepsilon, \qquad z \sim \mathcal N(0, I_d), \quad \varepsilon \sim \mathcal N(0, I_D).$$
#
# A linear function of Gaussians is a Gaussian, so two moments say everything. The mean is $b$, and since $z$ and $\varepsilon$ are independent the
# covariance is $W\,\mathbb E[zz^\top]\,W^\top + \sigma^2 I$:
#
# $$p(x) = \mathcal N\big(b,\; W W^\top + \sigma^2 I\big).$$
#
# The posterior: collect the terms of $\log p(z) + \log p(x \mid z) = -\frac12 z^\top z - \frac{1}{2\sigma^2} \|x - b - W z\|^2 + \dots$ in $z$. The quadratic part is
# $-\frac{1}{2\sigma^2} z^\top (W^\top W + \sigma^2 I)\,z$ and the linear one $\frac{1}{\sigma^2} z^\top W^\top (x - b)$. With $M = W^\top W + \sigma^2 I$ that is a Gaussian:
#
# $$p(z \mid x) = \mathcal N\big(M^{-1} W^\top (x - b),\; \sigma^2 M^{-1}\big).$$
#
# This model is called *probabilistic PCA*: its maximum-likelihood solution has the leading eigenvectors of the data's covariance as columns of $W$, each times $\sqrt{\lambda_j - \sigma^2}$ with its eigenvalue $\lambda_j$, or any rotation of them
# (Tipping and Bishop 1999). Unrotated, as here, $M$ is diagonal. So a Gaussian encoder with independent coordinates can be exact. Then $q(z \mid x) = p(z \mid x)$, and the fraction $\frac{p(z)\,p(x \mid z)}{q(z \mid x)} = p(x)$ has no $z$ left in it: each
# draw gives the same number. That is the sharpest check there is.

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
# ## The KL term
#
# For Gaussians it has a closed form. In one dimension, with $z = \mu + \sigma \varepsilon$, so that $\frac{(z - \mu)^2}{\sigma^2} = \varepsilon^2$,
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
# **What does it prevent?** Without it the encoder would do best with $\sigma \to 0$: noise makes decoding harder, and nothing would reward it. What
# remains is an ordinary autoencoder: codes are isolated points, anywhere in space, and in between and outside the decoder has never
# been. A draw from $\mathcal N(0, I)$ would land in such a hole. The KL term pulls the codes of all images around the origin and gives each
# a width, so that few gaps are left. It promises nothing: each $q(z \mid x)$ is compared with the prior by itself, not their sum.

# %% [markdown]
# ## A gradient through a random draw
#
# The distortion is an expectation over $z \sim \mathcal N(\mu, \sigma^2)$, and we need its gradient with respect to $\mu$ and $\sigma$, which are in the
# distribution, not in the function. Write $f(z)$ for $-\log p(x \mid z)$.
#
# **The score function.** Differentiate the density. As $\nabla q = q\,\nabla \log q$,
#
# $$\nabla\,\mathbb E_q f(z) = \int f(z)\,\nabla q(z)\,dz = \mathbb E_q\big[f(z)\,\nabla \log q(z)\big], \qquad
# \frac{\partial \log q}{\partial \mu} = \frac{z - \mu}{\sigma^2} = \frac{\varepsilon}{\sigma}, \quad
# \frac{\partial \log q}{\partial \sigma} = \frac{(z - \mu)^2}{\sigma^3} - \frac1\sigma = \frac{\varepsilon^2 - 1}{\sigma}.$$
#
# It works for any $f$, also for one that has no derivative. It learns from the *values* of $f$ alone: "this draw was better than that one".
#
# **Reparameterization.** Draw the noise first and move it: $z = \mu + \sigma\varepsilon$ with $\varepsilon \sim \mathcal N(0, 1)$. The noise no longer depends on
# the parameters, and so the gradient goes inside:
#
# $$\nabla\,\mathbb E_\varepsilon f(\mu + \sigma\varepsilon) = \mathbb E_\varepsilon \nabla f(\mu + \sigma\varepsilon), \qquad
# \frac{\partial f}{\partial \mu} = f'(z), \quad \frac{\partial f}{\partial \sigma} = f'(z)\,\varepsilon .$$
#
# This one uses the *slope* of $f$: each single draw knows which way is down.

# %%
show_source([reparameterization_gradient, score_function_gradient])

# %% [markdown]
# **See it.** $f$ is the distortion of a real test digit along the first latent axis. Drag the peak of the Gaussian, or its shoulder. Both estimates come from the same samples; the whiskers show how far off such an estimate usually is. (On top of a hump the slope is small and its sign uncertain: there the two are nearly alike for μ.) Ask for new noise, and take steps downhill with the one or the other.

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
# **Exercise 1: predict before you run it.** Replace $f(z)$ by $f(z) + 100$. The gradient of $\mathbb{E} f(z)$ stays what it was,
# for a constant has none. Whose estimates become noisier? Answer `"reparameterization"`, `"score function"`,
# `"both"` or `"neither"`.

# %%
prediction = ...

check("02.predict_constant", prediction)

# %% [markdown]
# **Measure it** on the decoder: 40,000 draws from the encoder's Gaussian, for image 7, one estimate of the gradient of the distortion from each draw. Exercise 1 suggests a third estimate: subtract a constant from $f$, a
# *baseline*. It changes nothing in the mean, and may take most of the noise away. A good one is $f(\mu)$.


# %%
def distortion_of_7(z):
    """Codes [n, 2] to −log p(x | z) [n]."""
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
# The factors depend on where you are and on $f$; in the widget, which has no baseline, you can watch the first of them. With thousands of parameters and one draw for each image, they decide
# whether training works. The score function has its place where there is no slope: discrete latents, rewards from a game. There one never goes without a baseline.
#
# ## Train it
#
# All the pieces together: an encoder and a decoder with two hidden layers each, two latents, 1,500 steps. The loss is $\mathcal D + R$, averaged over the batch, with *one* draw of $z$ for
# each image and step.

# %%
show_source(VAE.loss)

# %%
torch.manual_seed(0)
live = VAE((1, 8, 8), 2, hidden=(128, 128))
black_and_white = binarize(load_digits("train")[0], threshold=0.5)
history = fit(live, black_and_white, steps=1500, batch_size=128, lr=3e-3)
print("the loss fell below 20 nats:", history.loss() < 20)

# %%
with torch.no_grad():
    grid = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.05, 0.95, 11))
    tiles = live.decode(torch.cartesian_prod(-grid, grid).flip(1))
show_figure(
    image_grid(tiles, columns=11, size=0.5),
    alt="Eleven by eleven decoded digits of 8 by 8 pixels: neighbours are alike, all over the plane.",
)

# %% [markdown]
# The rows and columns are quantiles of the normal distribution, so that each picture stands for equally much of the prior.

# %% [markdown]
# ## Rate against distortion: the weight β
#
# Give the KL term a weight: $\mathcal D + \beta R$. (The bound has β = 1. With another weight we train for something else; it is still the bound that we report. The words rate and distortion are used as in [Alemi et al. 2018](https://arxiv.org/abs/1711.00464).) The best models form a curve in the plane of rate and distortion, convex if we may mix models. A model that minimises $\mathcal D + \beta R$ sits where a line
# $\mathcal D = \text{const} - \beta R$ touches this curve from below: $\frac{d\mathcal D}{dR} = -\beta$. So β is the *price*: a nat of rate is bought if it
# saves more than β nats of distortion.
#
# - **β below 1:** the codes become precise, reconstructions sharp, the posteriors small. What suffers first is the bound; when β is very small, the likelihood does too: the codes leave gaps, into which the prior falls.
# - **β above 1:** codes are blurred on purpose. What is cheap to describe and saves most survives.
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
# **How to see a collapse.** The loss does not shout: it ends at an ordinary number. Look at the rate of each latent, or at what Burda et al. call *active units*:
# those whose $\mu_j(x)$ varies from image to image (variance above 0.01).

# %%
log_p = "test negative log-likelihood, 1000 samples (nats)"
for beta, metrics in zip(BETAS, cards, strict=True):
    print(
        f"β = {beta:<3g}  R {metrics['rate (nats)']:.2f}  D {metrics['distortion (nats)']:5.2f}  "
        f"−ELBO {metrics['test negative ELBO (nats)']:.2f}  −log p {metrics[log_p]:.2f}  "
        f"active units {metrics['active units']:.0f} of 2"
    )

# %% [markdown]
# Check the price: between neighbours in this list the distortion rises by 0.2, 0.7, 1.6, 2.0, 3.0 and 3.4 nats for each nat of rate that is saved, which lies each time between the two βs or close to them. The ELBO is best at β = 1, where it is what was trained. At β = 0.3 the likelihood
# is as good: what is worse is the bound. (−log p is estimated as in the section on importance weights below.)
#
# In the last row the code is gone, and the best reconstruction is the same for all images: the mean brightness of each pixel. The distortion, 24.4 nats, is what it costs to describe each pixel by itself. A collapse need not come from β. The same happens with β = 1 when the decoder is
# so strong that it needs no code: put chapter 01's PixelCNN behind $z$, and it can be any distribution without it; then the ELBO has a maximum at $R = 0$. And it happens to single latents all the time: of the 50
# latents of the MNIST model in the table below,

# %%
print(
    f"{load_card('vae_mnist')['metrics']['active units']:.0f} are active, the others equal the prior."
)

# %% [markdown]
# ## Ask for a digit: the conditional VAE
#
# Give the label $y$ to both networks: $p(x \mid z, y)$ and $q(z \mid x, y)$. All three derivations hold for each $y$ by itself, and give a bound of
# $\log p(x \mid y)$. What is left for $z$ is what the label doesn't say: slant, width, thickness. (Nothing enforces it; it is cheapest. Conditional VAEs became known by Sohn, Lee and Yan 2015.) The prior of $z$ is the same for all classes, and so a code can be carried over from one to the other.
# Each row below decodes *one* $z$ with ten labels. (A $z$ that suits few images of a class gives a blurred one: the fourth row.)

# %%
styles = torch.randn(5, 8, generator=seeded(4)).repeat_interleave(10, dim=0)
with torch.no_grad():
    written = drawing_model.decode(styles, torch.arange(10).repeat(5))
show_figure(
    image_grid(written, columns=10, size=0.75),
    alt="Five rows of the digits zero to nine; in each row they have much the same slant and thickness, and some in the fourth row are smudged.",
)

# %% [markdown]
# ## A tighter bound: importance weights
#
# The ELBO is the mean of $\log w$ with the weights $w = \frac{p(z)\,p(x \mid z)}{q(z \mid x)}$, whose mean is $p(x)$, exactly. Take $S$ draws and average *before* the logarithm:
#
# $$\mathcal L_S(x) = \mathbb E\left[\log \frac1S \sum_{s=1}^S w_s\right], \qquad \mathcal L_1 = \mathrm{ELBO}.$$
#
# **It is a bound**, again by Jensen: $\mathcal L_S \le \log \mathbb E\,\frac1S \sum_s w_s = \log p(x)$.
#
# **More draws never hurt.** Let $I$ be a random choice of $k < S$ of the $S$ indices, all choices equally likely. Each index is in it equally often, and so
# $\frac1S \sum_s w_s = \mathbb E_I\big[\frac1k \sum_{s \in I} w_s\big]$. Jensen once more, for the average over $I$:
#
# $$\mathcal L_S = \mathbb E \log \mathbb E_I\Big[\frac1k \sum_{s \in I} w_s\Big] \;\ge\; \mathbb E\,\mathbb E_I \log \frac1k \sum_{s \in I} w_s = \mathcal L_k ,$$
#
# because any $k$ of the draws are as good as the first $k$. **And it tends to the truth:** by the law of large numbers the average tends to $p(x)$, and its logarithm to $\log p(x)$. The expected logarithm follows if the ELBO is finite, for it is caught between two averages that settle down: $\frac1S \sum_s \log w_s \le \log \frac1S \sum_s w_s \le \frac1S \sum_s w_s$.
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
# What is still missing at 1,000 draws belongs mostly to a handful of images whose true posterior lies where the encoder rarely looks.
#
# This estimate is how VAEs are *evaluated*. It can also be *trained*: with $S = 5$ draws in the loss the model is called an IWAE. There the encoder is
# no longer asked to look like the posterior, only to cover it; and the decoder may use posteriors that a Gaussian could not match.

# %% [markdown]
# ## Exercises
#
# Each `check` judges your function on fresh random inputs and tells you which property broke. It accepts every correct
# solution; all but the score function are trained through, so gradients must flow. `hint("02.gaussian_kl")` helps; `solution("02.gaussian_kl")` shows what the library itself does. (Exercise 1 was the
# prediction, further up.)
#
# **2. The divergence of two Gaussians**, $D_\mathrm{KL}(\mathcal{N}(\mu, \sigma^2) \,\|\, \mathcal{N}(m, s^2))$ in nats.
# Both have a diagonal covariance; `log_var` is $\log \sigma^2$, `other_log_var` is $\log s^2$.


# %%
def my_gaussian_kl(mu, log_var, other_mu, other_log_var):
    """Four tensors [B, d] to one number for each row, [B]."""
    ...


check("02.gaussian_kl", my_gaussian_kl)

# %% [markdown]
# **3. The reparameterization trick.** A draw from $\mathcal{N}(\mu, \sigma^2)$ through which gradients flow to $\mu$ and to
# $\log \sigma^2$. Take all randomness from `generator`.


# %%
def my_reparameterize(mu, log_var, generator):
    """mu and log_var, of one shape, to a draw z of the same shape."""
    ...


check("02.reparameterize", my_reparameterize)

# %% [markdown]
# **4. The ELBO** for bits. `logits` are the decoder's logits of a one, `mu` and `log_var` describe $q(z \mid x)$, the prior
# is $\mathcal{N}(0, I)$. It must survive logits of ±200.


# %%
def my_elbo(logits, x, mu, log_var):
    """logits and x [B, D], mu and log_var [B, d] to the bound [B], in nats."""
    ...


check("02.elbo", my_elbo)

# %% [markdown]
# **5. The score function estimate**, in one dimension: for each draw `z[i]` from $\mathcal{N}(\mu, \sigma^2)$, with
# `values[i]` $= f(z_i)$, one estimate of the gradient of $\mathbb{E} f(z)$ with respect to $\mu$ and one with respect to $\sigma$.


# %%
def score_function(values, z, mu, sigma):
    """values and z [n], mu and sigma [] to (grad_mu [n], grad_sigma [n])."""
    ...


check("02.score_function", score_function)

# %% [markdown]
# **6. The importance-weighted bound.** `log_weights[s, b]` is $\log \frac{p(x_b \mid z_s)\, p(z_s)}{q(z_s \mid x_b)}$ at the draw $z_s$.
# For images they are numbers near −800.


# %%
def iwae_bound(log_weights):
    """log_weights [S, B] to the bound of log p(x) for each x, [B]."""
    ...


check("02.iwae_bound", iwae_bound)

# %% [markdown]
# **7. Break it: the ignored code.** Write a loss that makes a VAE ignore its latents, while its decoder still learns:
# the rate goes to zero, and every image gets the same reconstruction. The check trains a tiny VAE with your loss, for a second or
# two. Before you run it: what will the one reconstruction look like, and what would a sample be?


# %%
def collapsing_loss(distortion, rate):
    """Distortion and rate [B] of a batch, in nats, to the loss, a scalar."""
    ...


check("02.break_the_code", collapsing_loss)

# %% [markdown]
# ## How good is it?
#
# Negative log-likelihood of black and white test images, in nats: lower is better. Ours are importance-weighted estimates with 1,000 draws for each
# image: bounds themselves, from above. They come from the cards in `data/checkpoints`, each with the command that trains the model
# (`python -m course_lib train vae_mnist`).

# %%
from IPython.display import Markdown

nats = "test negative log-likelihood, 1000 samples (nats)"
table = (
    "| model | digits, 8×8 | MNIST | −ELBO on MNIST | MNIST, in the paper |\n"
    "| --- | ---: | ---: | ---: | ---: |\n"
)
digits_nats = load_card("vae_digits")["metrics"][nats]
for card, title, small, paper in [
    ("vae_mnist", "VAE", f"{digits_nats:.1f}", "86.76"),
    ("iwae_mnist", "IWAE, 5 draws in training", "", "85.54; with 50 draws 84.78"),
]:
    metrics = load_card(card)["metrics"]
    table += f"| {title} | {small} | {metrics[nats]:.1f} | {metrics['test negative ELBO (nats)']:.1f} | {paper} |\n"
for kind, title, paper in [
    ("made", "MADE (chapter 01)", "88.40"),
    ("pixelcnn", "PixelCNN (chapter 01)", "81.30"),
]:
    exact_nats = [
        load_card(f"{kind}_{data}")["metrics"]["test negative log-likelihood (nats)"]
        for data in ("digits", "mnist")
    ]
    table += f"| {title} | {exact_nats[0]:.1f} | {exact_nats[1]:.1f} | | {paper} |\n"
Markdown(table)

# %% [markdown]
# How to read it:
#
# - **Both are one nat or so behind the paper.** Ours have two layers of 400 units and 50 latents, and trained for less than an hour of one core: 100,000 steps of 128 images for the VAE,
#   60,000 for the IWAE (213 and 128 passes through the data; the comparison between the two is not one of equal budgets). The paper's trained for 3,280 passes, with two layers of 200 units, and was evaluated with 5,000 draws.
# - **The IWAE is the better model with the worse ELBO.** That is no contradiction. Its encoder was not trained to be close to the true posterior (third way!), and so its own ELBO is loose. What it gains is the likelihood,
#   which is what counts, and some more active units (17 against 13 of 50).
# - **The estimate is itself a bound.** With 1,000 draws the true $-\log p(x)$ is lower still, by an amount that nobody knows; the standard error over the test images is 0.2 nats.
# - **The last column mixes two test sets.** The IWAE paper draws the black and white images anew each time, as we do in training; MADE and PixelCNN were measured on one fixed draw. On our own draw MADE, without any latents, is within two nats of both, and PixelCNN three to five nats
#   better: it sees all earlier pixels at each pixel, where a VAE must say everything at once, through a code. In exchange the VAE has the code, and samples without waiting.
#
# ## What to take away
#
# - A latent variable turns one hard distribution into an integral over easy ones. The integral cannot be computed; a bound of it can.
# - The ELBO is three things: Jensen's inequality, a divergence between two joint distributions, and $\log p(x)$ minus the encoder's error. Each view answers another question.
# - Draw the noise first, and the gradient passes through the draw. Where $f$ has a slope, use it.
# - Rate and distortion are two currencies, β the exchange rate. When a code isn't worth its price it collapses; look at the rate to see it.
# - Importance weights tighten the bound, up to the truth.
#
# **What does not work well:** the pixels are drawn independently given $z$, and the decoder is trained to hedge: where it is unsure means are blurred, and samples speckled. The encoder's Gaussian
# is a rough guess of the posterior. And beyond two dimensions and linear models the likelihood is a bound, not a number that one can check.
#
# **Next, chapter 03:** codes that are whole numbers. The VQ-VAE drops the KL term, the Gaussian and the randomness; the distribution over codes is learned afterwards, by a model from chapter 01, and the codes may be much longer.
