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
# [← 11 · Guidance](11_guidance.ipynb) | [Contents](../README.md#chapters) | [12b · ControlNet →](12b_controlnet.ipynb)

# %% [markdown]
# # 12 · Latent diffusion
#
# **Say in words what you want to see. A small text-to-image system, whole: an autoencoder, a reader of sentences, a diffusion
# model of codes; each part named, and wired, as in Stable Diffusion.**
#
# | | |
# | --- | --- |
# | You need | chapter 02: the VAE, its rate and its distortion; chapter 10: EDM, the noise level $\sigma$ and its loss; chapter 11: guidance. Attention is told again in short; [chapter 15](15_flash_attention.ipynb) takes it apart |
# | Time | 30 minutes to read, an hour and a quarter with the exercises |
# | The short way | 20 minutes: sections 1, 3, 5, 6 and 9, and *What to take away*; leave out all that is called a check |
# | You will meet | perceptual and semantic compression, the latent's scale factor, tokens and a text encoder, CLIP, cross-attention, padding masks, the empty prompt and negative prompts, image to image, inpainting, attribute binding |
# | Papers | Rombach et al. 2022, [latent diffusion](https://arxiv.org/abs/2112.10752); Radford et al. 2021, [CLIP](https://arxiv.org/abs/2103.00020); Meng et al. 2022, [SDEdit](https://arxiv.org/abs/2108.01073); Lugmayr et al. 2022, [RePaint](https://arxiv.org/abs/2201.09865) |
# | Source article | the one on the principle of the SD model (SD 模型原理, in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter), then build a sentence. The model is `latent_scenes`. It has read 16,384 captions of one or two coloured
# digits on black, beside their images. Nobody told it what a *7* is, or *blue*, or *above*.

# %%
import torch
from matplotlib.figure import Figure

from course_lib.data import (
    COLOURS,
    PLACES,
    RELATIONS,
    UNSEEN,
    WEIGHTS,
    scene_of,
    scenes,
    to_signed,
    to_unit,
)
from course_lib.diffusion import (
    EDM,
    ClassifierFreeGuidance,
    Inpainting,
    LatentDiffusion,
    Prompted,
    dpm_solver_sample,
    guide,
    karras_times,
    keep_known,
    last,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.latent import KLAutoencoder
from course_lib.nn import CrossAttention, TextEncoder, UNet, WordTokenizer
from course_lib.notebook import one_thread, seeded
from course_lib.training import checkpoint_folder, fit, load_card, load_pretrained, load_study
from course_lib.widgets import PALETTE, PromptBox, WordAttention, image_grid, show_figure

one_thread()  # models this small are slower on two

# %%
diffusion = load_pretrained("latent_scenes")
things = {"stroke": ["a bold", "a thin"], "colour": list(COLOURS), "digit": [*map(str, range(10))]}
first = diffusion.denoiser.path.t_max * torch.randn(1, 4, 8, 8, generator=seeded(0))


def draw(prompts, scale):
    """Images [B, 3, 32, 32] of B sentences, all from the same noise."""
    return diffusion.sample(prompts, scale=scale, z=first.repeat(len(prompts), 1, 1, 1))


PromptBox(
    {
        **things,
        "where": [*list(PLACES)[::-1], *RELATIONS],
        **{f"second {name}": words for name, words in things.items()},
    },
    draw,
    stored={"colour": ["red", "blue", "yellow"], "digit": things["digit"]},
    ends=list(PLACES),
    start={"digit": "3"},
    scales=[1.0, 3.0, 8.0],
    title="Say what you want to see",
    alt="A sentence of words to choose from, a bold red 3 in the middle, and the image of it.",
)

# %%
from IPython.display import Markdown

judge = load_pretrained("judge_scenes")  # reads images alone, and has no part in the drawing
sentences = [
    "a thin red 3 above a bold blue 7",
    "a bold blue 7 above a thin red 3",
    "a bold yellow 0 left of a bold white 4",
    "a thin purple 1 on the right",
]
z = diffusion.denoiser.path.t_max * torch.randn(8, 4, 8, 8, generator=seeded(1))
strips = [diffusion.sample([sentence] * 8, scale=3.0, z=z) for sentence in sentences]
table = "| sentence | images right in every word, says a classifier |\n| --- | ---: |\n"
for sentence, strip in zip(sentences, strips):
    right = judge.fidelity(strip, [sentence] * 8)["all"]
    table += f"| {sentence} | {8 * right:.0f} of 8 |\n"
show_figure(
    image_grid(torch.cat(strips), columns=8, size=0.7),
    alt="Four rows of eight images, a row for each sentence, all rows from the same eight noises.",
)

# %%
Markdown(table)

# %% [markdown]
# Three things to notice:
#
# - **The words are obeyed together**: *red* belongs to the 3 and *blue* to the 7, and in the second row, where the words are the same in another order, the two things have changed places.
# - **A row is not one image eight times.** What the sentence leaves open, the handwriting, comes from the noise.
# - **Some are wrong.** Section 9 counts how many, and in what.
#
# Where are the digits while the sampler is at work? Not in pixels. What is noised and cleaned has 256 numbers; an image has 3,072. That is the first idea of this chapter.

# %% [markdown]
# ## The idea
#
# A diffusion model of pixels spends most of its work on what nobody sees: the exact shade of every pixel. Rombach et al. (2022) split the work. An **autoencoder** learns first which details can be left out of an image so that it
# still *looks* the same: **perceptual compression**. A diffusion model then learns which of the small codes make an image of something: **semantic compression**. It never sees a pixel.
#
# Three networks make the system, and only the second is called more than once for an image:
#
# 1. the **text encoder** turns the prompt into a list of vectors, one for each word;
# 2. the **U-Net** cleans a noisy code, step by step, and at each step every place of the code looks at the words;
# 3. the **decoder** of the autoencoder turns the clean code into an image.
#
# That is Stable Diffusion. Ours differs from it in size (section 6), and in the data.
#
# | symbol | meaning |
# | --- | --- |
# | $x$; $n$ | an image, numbers in $[-1, 1]$; how many numbers it has |
# | $\mathcal E$, $\mathcal D$; $f$ | encoder and decoder; how many times smaller the sides of the code are |
# | $z$; $q(z \mid x)$; $\mu$, $v$ | a code; its distribution, normal; mean and variance of that |
# | $L$; $\beta$ | a loss; the weight of the rate in it |
# | $s$; $\ell$, $\ell_\sigma$ | the latent's scale factor, `latent_scale`; a latent, $\ell = s\, z$, and the same with noise, $\ell + \sigma \varepsilon$ |
# | $\sigma$; $\varepsilon$ | noise level; noise, standard normal |
# | $D_\theta$; $\lambda$ | the denoiser, with weights $\theta$: its guess of $\ell$; the weight of a noise level |
# | $c$; $\varnothing$ | the context, a vector for each token of the prompt; that of the empty prompt |
# | $h$ | what the network knows of each place, a row for each |
# | $Q$, $K$, $V$; $W_q$, $W_k$, $W_v$; $d$ | queries, keys and values; the matrices that make them; size of a head |
# | $a_{ij}$; $i$, $j$, $k$ | how much place $i$ takes of token $j$; running indices |
# | $m$ | a mask: 1 where something may be looked at, or is known, else 0 |
# | $w$; $D_w$ | the scale of guidance, as in chapter 11; the guided guess |
# | $\mathbb E$; $\mathcal N$, $I$ | mean; normal density, the unit matrix |

# %% [markdown]
# ## 1. Pixels waste the network
#
# How many bits does an image of ours hold? It depends on what one wants back.

# %%
factors = {2: "autoencoder_scenes_2", 4: "autoencoder_scenes", 8: "autoencoder_scenes_8"}
stored = {f: name for f, name in factors.items() if (checkpoint_folder() / f"{name}.json").exists()}
autoencoders = {f: load_pretrained(name) for f, name in stored.items()}
cards = {f: load_card(name)["metrics"] for f, name in stored.items()}

# %%
import math
import zlib

test_images, test_captions = scenes(200, split="test", generator=seeded(2))
as_bytes = [(255 * image).round().byte().numpy().tobytes() for image in test_images]
packed = sum(8 * len(zlib.compress(one, 9)) for one in as_bytes) / len(as_bytes)

things = len(WEIGHTS) * (10 * len(COLOURS) - len(UNSEEN))  # digits in colours that are shown
one, two = things * len(PLACES), things**2 * len(RELATIONS)
said = 1 + (math.log2(one) + math.log2(two)) / 2  # one thing or two; and then which
back = {}
table = "| what is kept | numbers | bits an image | squared error | read without a fault |\n"
table += "| --- | ---: | ---: | ---: | ---: |\n"
whole = judge.fidelity(test_images, test_captions)["all"]
table += f"| every pixel, as bytes | 3,072 | {8 * 3072:,} | 0 | {whole:.0%} |\n"
table += f"| the same, packed by zlib | | {round(packed, -2):,.0f} | 0 | {whole:.0%} |\n"
for f, model in autoencoders.items():
    with torch.no_grad():
        back[f] = to_unit(model.decode(model.encode(to_signed(test_images))[0]))
    right = judge.fidelity(back[f], test_captions)["all"]
    table += f"| a code, $f = {f}$ | {math.prod(model.latent_shape):,} "
    table += f"| {cards[f]['rate, bits an image']:,.0f} "
    table += f"| {cards[f]['mean squared error']:.4f} | {right:.0%} |\n"
table += f"| the caption | | {said:.0f} | | |\n"
Markdown(table)

# %%
rows = [test_images[:12], *(images[:12] for images in back.values())]
show_figure(
    image_grid(
        torch.cat(rows), columns=12, titles=["scenes", *(f"f = {f}" for f in back)], size=0.6
    ),
    alt="Twelve scenes, and below them what the autoencoders make of their codes.",
)

# %% [markdown]
# Read the table from both ends. The caption, all that we shall ever ask for, has 13 bits. The bytes have 24,576. In between lie the codes: at $f = 2$ and 4 the classifier reads what comes back nearly as well as the image itself; at $f = 8$ the error is five times as large as at 4. (200 scenes are few for such a percentage; the cards have it for 2,000: 93 %, 92 % and 87 % for the three codes.) What the codes up to 4 threw away is
# **perceptual**: no reader misses it. What is left to a diffusion model, to make 13 bits into a code, is **semantic**.
#
# (The bits of a code are its *rate*, chapter 02: what it costs to send a draw of $z$ to somebody who knows only $\mathcal N(0, I)$. In the loss below it is in nats, of which a bit is $\log 2 = 0.69$. The table's errors are those of draws, from the cards, which say them for 2,000 scenes.)
#
# **The loss** of the autoencoder is that of a VAE. With $q(z \mid x) = \mathcal N(\mu, v)$ from the encoder and $n$ numbers in an image,
#
# $$L = \frac 1 n\, \mathbb E_{z \sim q} \Big[ \| x - \mathcal D(z) \|^2 + \beta\; \mathrm{KL} \big( q(z \mid x) \,\|\, \mathcal N(0, I) \big) \Big], \qquad \beta = 10^{-3} .$$
#
# Only the weight is new. A VAE whose samples are to be good needs codes that are nearly $\mathcal N(0, I)$, and pays with blur. Here nobody will ever draw from $\mathcal N(0, I)$: a diffusion model learns what the codes are like, whatever that is. So the rate gets just
# enough weight to keep codes from growing without end. (Rombach et al. add two terms for photographs, a distance in the features of a trained classifier and an adversary, since a squared error blurs what it cannot predict. Scenes do without.)

# %%
show_source([KLAutoencoder.rate_distortion, KLAutoencoder.loss])

# %%
autoencoder = diffusion.autoencoder
x = to_signed(test_images)
with torch.no_grad():
    mu, log_var = autoencoder.encode(x)
    rate, distortion = autoencoder.rate_distortion(x, generator=seeded(3))
q = torch.distributions.Normal(mu, (log_var / 2).exp())
by_torch = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum((1, 2, 3))
print("the rate is torch's, within 0.1 %:", torch.allclose(rate, by_torch, rtol=1e-3))
beta = autoencoder.kl_weight
loss = (distortion + beta * rate / x[0].numel()).mean().item()
print(
    "the loss is the formula:", abs(autoencoder.loss(x, generator=seeded(3)).item() - loss) < 1e-6
)

# %% [markdown]
# **How far should one go?** The U-Net has less to do on fewer places. But the decoder cannot bring back what the code does not hold. Rombach et al. train the same model on codes of $f = 1$ (pixels) to
# 32, and find 4 to 16 best: below, training is slow; above, quality is bounded by the autoencoder (their section 4.1). Stable Diffusion takes 8.
#
# **Exercise 1: predict.** Stable Diffusion draws images of 512 × 512 pixels by codes of 64 × 64. Self-attention compares every place with every place. By what factor has it fewer logits to compute on codes than on pixels? Write a number. (`hint("12.predict_logits")` helps, as with every exercise; `solution(...)` shows
# what the library does; every `check` judges your function on fresh random inputs.)

# %%
prediction = ...

check("12.predict_logits", prediction)

# %% [markdown]
# So attention among all places falls by $f^4$, where the U-Net's convolutions, in proportion to the number of places, fall by $f^2$.
#
# ## 2. One size for all codes
#
# An autoencoder is free to choose how large its codes are. The diffusion model is not: EDM was told that its data have the size 1 (chapter 10, `sigma_data`), and draws its noise levels for that. Suppose that the latents are too small, or too large, by a
# factor of 10. At which noise levels is there something to learn? Of the variance of $\ell + \sigma \varepsilon$, the share $\operatorname{Var} \ell / (\operatorname{Var} \ell + \sigma^2)$ is the latent's. Where it is below 1 %, the network sees noise; above 99 % there is nothing to clean.


# %%
def useful(size, denoiser):
    """Of the noise levels of training, those at which latents of this size are 1 to 99 % of all."""
    sigma, _ = denoiser.draw(torch.zeros(20_000, 1), generator=seeded(4))
    share = size**2 / (size**2 + sigma**2)
    return ((share > 0.01) & (share < 0.99)).double().mean().item()


table = "| the latents' standard deviation | noise levels that teach something |\n| ---: | ---: |\n"
for size in (0.01, 0.1, 1.0, 10.0, 100.0):
    table += f"| {size:g} | {useful(size, diffusion.denoiser):.0%} |\n"
Markdown(table)

# %% [markdown]
# The cure is one number. Measure the standard deviation of the codes, once, and divide by it:
#
# $$\ell = s\, z, \qquad s = \frac{1}{\sqrt{\operatorname{Var} z}} .$$

# %%
show_source([KLAutoencoder.measure_scale, KLAutoencoder.to_latent, KLAutoencoder.from_latent])

# %%
with torch.no_grad():
    latents = autoencoder.to_latent(x, generator=seeded(5))
    round_trip = autoencoder.from_latent(autoencoder.latent_scale * mu)
    there_and_back = (round_trip - autoencoder.decode(mu)).abs().max().item() < 1e-5
print(f"our scale factor: {autoencoder.latent_scale:.2f}")
print(f"standard deviation of test latents: {latents.std():.2f}")
print("channel by channel:", ", ".join(f"{one.std():.2f}" for one in latents.transpose(0, 1)))
print("from_latent takes the factor out again:", there_and_back)

# %% [markdown]
# Ours is near 1, since our $\beta$ holds the codes close to $\mathcal N(0, I)$. Stable Diffusion's is the well-known **0.18215**, measured in the same way (`scale_factor = 1. / z.flatten().std()`, says the code of Rombach et al., of the first batch): its $\beta$ is so small that codes have a standard deviation of about 5.5, which is 1 / 0.18215. It is *one*
# number for all channels and places. Hence single channels are larger or smaller than 1, and their mean need not be 0.
#
# What if one forgets it? DDPM's chain, which Stable Diffusion uses, ends at $\sigma = \sqrt{1 - \bar\alpha} / \sqrt{\bar\alpha}$, and sampling begins there, with noise alone:

# %%
betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2  # SD's schedule
alpha_bar = (1 - betas).prod().item()
print(f"Stable Diffusion's last noise level: {math.sqrt((1 - alpha_bar) / alpha_bar):.1f}")
for words, size in (("with the factor", 1.0), ("without", 1 / 0.18215)):
    share = size**2 * alpha_bar / (size**2 * alpha_bar + 1 - alpha_bar)
    print(f"{words}: of the last state's variance {share:.1%} is still the latent's")

# %% [markdown]
# Without it, an eighth of what the network was trained on at the last step was image, and sampling starts without any. So the large, slow parts, as the brightness of the whole, would start out wrong; and at the other end every fine detail would have less noise on it than the schedule was made for. (Even the 0.5 % that are left with the factor are felt: Stable Diffusion hardly draws images that are all dark or all bright, since in training the last state still showed the brightness: Lin et al. 2023, [arXiv:2305.08891](https://arxiv.org/abs/2305.08891).)
#
# **Exercise 2: without a draw.** You have $\mu$ and $\log v$ of a batch (`log_var`), and no random numbers. Which $s$ is the right one for draws of $z$?


# %%
def latent_scale(mu, log_var):
    """mu and log_var of q(z | x), [N, c, h, w] each: the scale factor of draws of z."""
    ...


check("12.latent_scale", latent_scale)

# %% [markdown]
# **Exercise 3: break it on purpose.** Find two scale factors for codes $z$, one too small and one too large, with each of which between 75 % and 90 % of the noise levels that training draws are useless, by the measure above.


# %%
def two_scales(z):
    """Codes z [N, c, h, w]: a scale factor that is too small, and one that is too large."""
    ...


check("12.break_the_scale", two_scales)

# %% [markdown]
# ## 3. Train it
#
# All the rest is known. The loss is EDM's, on latents in place of images, told the text:
#
# $$L = \mathbb E\; \lambda(\sigma)\, \big\| D_\theta(\ell_\sigma;\, \sigma, c) - \ell \big\|^2, \qquad \ell_\sigma = \ell + \sigma \varepsilon, \quad \ell = s\, z, \quad z \sim q(z \mid x) .$$

# %%
show_source([LatentDiffusion.loss, EDM.loss])

# %% [markdown]
# The autoencoder is trained before and then stays as it is, so each image must be encoded once only, before the training. **Train one**, on scenes of one thing. The reader of sentences is that of the stored model, frozen, just as Stable Diffusion takes CLIP's (section 4); the network on latents is new, and small. Its steps are few, so that they
# go to large noise levels (`p_mean`), where colours and places are decided.

# %%
images, captions = scenes(3000, generator=seeded(6))
single = [i for i, caption in enumerate(captions) if len(scene_of(caption).things) == 1]
captions = [captions[i] for i in single]
with torch.no_grad():
    latents = autoencoder.to_latent(to_signed(images[single]), generator=seeded(7))
reader = diffusion.text_encoder
tokens = reader.tokenizer(captions)

torch.manual_seed(0)
unet = UNet((4, 8, 8), widths=(24, 32), context_dim=64, context_levels=(1,), scale=1000.0)
live = EDM(Prompted(unet, reader.requires_grad_(False)), sigma_data=1.0, p_mean=0.8, drop=0.1)
history = fit(live, (latents, tokens), steps=200, batch_size=32, lr=4e-3, ema=0.97)
print("the loss fell to less than half:", history.loss() < history.losses[0] / 2)

# %%
asked = [f"a bold {colour} 0 {place}" for colour in list(COLOURS)[:4] for place in PLACES]
z = live.path.t_max * torch.randn(1, 4, 8, 8, generator=seeded(8)).repeat(len(asked), 1, 1, 1)
guided = ClassifierFreeGuidance(live, 3.0)
states = dpm_solver_sample(guided, z.shape, steps=12, y=reader.tokenizer(asked), z=z)
ours = diffusion.to_images(last(states))
shares = judge.fidelity(ours, asked)
for what, chance in (("layout", 1 / 5), ("colour", 1 / 4)):  # of one picture for all sentences
    print(f"{what}: right more than twice as often as by chance:", shares[what] > 2 * chance)
show_figure(
    image_grid(ours, columns=10, size=0.6),
    alt="Twenty blots, in four colours and five places as asked for; hardly one of them is a digit.",
)

# %% [markdown]
# The model has begun to read: place and colour follow the words (its green leans to turquoise: look). No digit can be recognized yet: that takes 25 times as many steps, of twice as many images each, which is what the stored model has had. The coarse and frequent is learned first, since it decides most of the loss.

# %% [markdown]
# ## 4. From words to vectors
#
# A **tokenizer** cuts a sentence into pieces and gives each piece a number. Stable Diffusion's has 49,408 pieces, parts of words, so that it can spell what it has never seen. Ours has 33 tokens: 31 words, a start, and a padding that fills up every sentence to the same length.
# A word that it does not know is an error, and says which one is nearest.

# %%
tokenizer = reader.tokenizer
sentence = "a thin red 3 above a bold blue 7"
print("tokens:", tokenizer([sentence])[0].tolist())
print("words: ", " ".join(tokenizer.words_of(tokenizer([sentence])[0])))
print("empty: ", " ".join(tokenizer.words_of(tokenizer([""])[0])))
try:
    tokenizer(["a thin rad 3 at the top"])
except ValueError as error:
    print(str(error)[-40:])

# %% [markdown]
# A **text encoder** is a transformer (chapter 15): each token is a learned vector, plus a learned vector for its place in the sentence; then tokens look at those before them, and so learn of each other. The 7's vector can know that it is a *blue* 7.

# %%
show_source([TextEncoder.forward, TextEncoder.mask])

# %%
there, swapped = "a thin red 3 above a bold blue 7", "a thin blue 3 above a bold red 7"
tokens = tokenizer([there, swapped])
with torch.no_grad():
    contexts = reader(tokens)
where = {tokenizer.words_of(tokens[0])[k]: k for k in range(tokens.shape[1])}
apart = (contexts[0] - contexts[1]).norm(dim=1) / contexts[0].norm(dim=1)
print("how far the vectors of the two sentences are apart, over their length:")
for word in ("thin", "3", "above", "7"):
    print(f"  {word:>5}: {apart[where[word]]:.2f}")

tail = tokens.clone()
tail[:, 10:] = tokenizer([" ".join(["red"] * 11)])[:, 10:]  # other words behind the sentence
with torch.no_grad():
    same = (reader(tail)[:, :10] - contexts[:, :10]).abs().max().item() < 1e-5
print("what stands behind a word changes nothing in it:", same)

# %% [markdown]
# Before the first word that differs the vectors are the same. Behind it they are not, though the word itself is: a 3 that comes after *blue* is another 3. What stands behind a word changes nothing in it, for tokens look back only. So the padding, which comes last, leaves no trace in the words.
#
# **CLIP.** In Stable Diffusion the text encoder is half of another model. CLIP was trained on 400 million images with their texts, to tell which text goes with which image (chapter A1, later): its text encoder has seen far more sentences than any diffusion model, and it knows that *crimson* is a red. It is taken as it is, and frozen. Ours has nothing to fall back on. It was trained together with
# the U-Net, by the loss of section 3, as was the text-to-image model in Rombach et al.'s own paper (section 4.3.1). That suffices for 31 words, all of which the training showed thousands of times.

# %% [markdown]
# ## 5. Cross-attention: each place looks at the words
#
# The U-Net has a vector $h$ for each place, the text encoder a vector $c$ for each token. **Cross-attention** is a lookup: every place asks a query, every token answers with a key and a value, and the place takes a mean of the values, weighted by how well the keys fit:
#
# $$\operatorname{softmax} \Big( \frac{Q K^\top}{\sqrt d} \Big)\, V, \qquad Q = h\, W_q, \quad K = c\, W_k, \quad V = c\, W_v .$$
#
# (So says one *head*, with $d$ numbers for each query. The layer has several, with matrices of their own and a bias for each, and a last matrix mixes what they answer.) The only difference to chapter 15 is where keys and values come from. The table of comparisons has a row for each place and a column for each token: 64 × 12 here, 4,096 × 77 in Stable Diffusion's finest level. It is small, so that it can be looked at.

# %%
show_source([CrossAttention.forward, CrossAttention.weights, CrossAttention.heads_of])

# %%
torch.manual_seed(1)
layer = CrossAttention(16, 8, heads=2).double()
h = torch.randn(3, 5, 16, generator=seeded(9), dtype=torch.float64)  # 5 places
c = torch.randn(3, 7, 8, generator=seeded(10), dtype=torch.float64)  # 7 tokens
by_hand = []
for part in (slice(0, 8), slice(8, 16)):  # one head after the other
    W_q, (W_k, W_v) = layer.q.weight[part], (w[part] for w in layer.kv.weight.chunk(2))
    b_q, (b_k, b_v) = layer.q.bias[part], (b[part] for b in layer.kv.bias.chunk(2))
    Q, K, V = h @ W_q.T + b_q, c @ W_k.T + b_k, c @ W_v.T + b_v
    by_hand.append(torch.softmax(Q @ K.mT / math.sqrt(8), 2) @ V)
off = layer(h, c) - layer.out(torch.cat(by_hand, 2))
print("the layer is the formula, head by head, within 1e-12:", off.abs().max().item() < 1e-12)

# %% [markdown]
# **Padding.** Sentences of a batch have different lengths, and all rows of a tensor the same. So the short ones are filled up. A softmax gives a weight to *every* key; the padding gets some. Fill the same sentence up to different lengths, and look:

# %%
fills = {
    length: torch.cat([c[:1], torch.zeros(1, length - 7, 8, dtype=torch.float64)], 1)
    for length in (7, 12, 77)
}
table = "| the same 7 tokens, filled up to | moved, without a mask | with the mask |\n| ---: | ---: | ---: |\n"
for length, filled in fills.items():
    mask = torch.arange(length)[None] < 7
    moved = [
        ((layer(h[:1], filled, m) - layer(h[:1], c[:1])).norm() / layer(h[:1], c[:1]).norm()).item()
        for m in (None, mask)
    ]
    table += f"| {length} | {moved[0]:.0%} | {moved[1]:.0%} |\n"
Markdown(table)

# %% [markdown]
# Without a mask what the model draws of a sentence depends on how long the *others* in its batch are. The cure: set the logits of padding to $-\infty$ before the softmax. With a mask $m_j$ of 0 and 1,
#
# $$a_{ij} = \frac{m_j\, e^{Q_i \cdot K_j / \sqrt d}}{\sum_k m_k\, e^{Q_i \cdot K_k / \sqrt d}} :$$
#
# the padding's weight is 0, and the others add up to 1 by themselves. (Stable Diffusion does without a mask. It fills up to 77 tokens *always*, in training as in use, and with the token that ends a sentence, so that the U-Net has learned what to make of it. This works as long as nobody fills up in another way.)
#
# On our model the mask can be taken away by hand:

# %%
four = [sentences[0], sentences[1], sentences[3], ""]
y = tokenizer(four)
x_t = 2.0 * torch.randn(4, 4, 8, 8, generator=seeded(11))
factors_in = diffusion.denoiser.net.factors(torch.tensor(2.0))
with torch.no_grad():
    context, seen = reader(y), reader.mask(y)
    noise_input = (factors_in[2] * x_t, factors_in[3].expand(4))
    told = diffusion.model(*noise_input, context=context, mask=seen)
    bare = diffusion.model(*noise_input, context=context, mask=torch.ones_like(seen))
for prompt, one, other in zip(four, told, bare):
    words = tokenizer.length - int(tokenizer([prompt]).eq(0).sum())
    print(
        f"{words:>2} of 12 tokens say something; without the mask {((one - other).norm() / one.norm()):.0%} is moved"
    )

# %% [markdown]
# With two to four tokens of padding, a tenth or a fifth of the answer is moved (how much depends on the words, too); of the answer to the empty prompt, which is nearly all padding, little is left. And the empty prompt is half of every guided step.
#
# **Exercise 4: the mask.** Write attention with a padding mask, for all heads at once. Who may look at nothing at all gets 0.


# %%
def masked_attention(q, k, v, mask):
    """q [B, heads, N, d], k [B, heads, L, d], v [B, heads, L, e], mask [B, L]: o [B, heads, N, e]."""
    ...


check("12.masked_attention", masked_attention)

# %% [markdown]
# **Exercise 5: break it on purpose.** A network has no mask, and its tokenizer pads to the longest sentence of the batch. Write two batches that begin with the same prompt, which it draws differently.


# %%
def two_batches(words, length):
    """Words that the tokenizer knows, tokens of the longest sentence: two lists of prompts."""
    ...


check("12.break_the_mask", two_batches)

# %% [markdown]
# **Who looks at which word?** Take the table $a_{ij}$ out of every cross-attention of the finest level, at each step of the sampler, and lay the column of a word on the picture:


# %%
def look(prompt, z, steps=12):
    """What the model makes of a prompt, and who looks at which word, from step to step.

    The guesses [T, 3, H, W] of the end, the words, and the mean over heads and layers [T, L, 8, 8].
    """
    model, y = diffusion.told([prompt], scale=3.0)
    states = list(dpm_solver_sample(model, z.shape, steps=steps, y=y, z=z))
    path, seen = diffusion.denoiser.path, []
    levels = karras_times(steps, sigma_min=path.t_min, sigma_max=path.t_max)
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: seen.append(layer.weights(*args)))
        for layer in diffusion.model.modules()
        if isinstance(layer, CrossAttention)
    ]
    guesses = [
        diffusion.to_images(model.predict_x0(state, level, y=y))
        for state, level in zip(states, levels)
    ]
    for hook in hooks:
        hook.remove()
    finest = [a[-1].mean(0) for a in seen if a.shape[2] == 64]  # of the half that has the prompt
    maps = torch.stack(finest).unflatten(0, (steps, -1)).mean(1)  # [T, 64, L]
    words = [word for word in diffusion.text_encoder.tokenizer.words_of(y[0]) if word != "<pad>"]
    maps = maps.mT.unflatten(2, (8, 8))[:, : len(words)]
    return torch.cat(guesses), words, maps, [f"σ = {level:.2g}" for level in levels]


with torch.no_grad():
    z = 80 * torch.randn(1, 4, 8, 8, generator=seeded(12))
    pictures, words, maps, labels = look(sentences[0], z)
WordAttention(
    pictures,
    words,
    maps,
    labels=labels,
    word=words.index("red"),
    title="Who looks at which word",
    alt="A red 3 above a blue 7, and which places look at the word red: those where the 3 is.",
)

# %%
exchanged = sentences[0].replace("above", "below")
with torch.no_grad():
    _, other_words, other_maps, _ = look(exchanged, z)
table = (
    "| prompt | word | looked at from the upper half: first step | in the middle | last step |\n"
)
table += "| --- | --- | ---: | ---: | ---: |\n"
for prompt, said_words, seen in ((sentences[0], words, maps), (exchanged, other_words, other_maps)):
    upper = seen[:, :, :4].sum((2, 3)) / seen.sum((2, 3))
    for k, word in enumerate(said_words):
        if word in ("red", "3", "above", "below", "blue", "7"):
            numbers = " | ".join(f"{upper[t, k]:.0%}" for t in (0, len(seen) // 2, -1))
            table += f"| {prompt if word == 'red' else ''} | {word} | {numbers} |\n"
Markdown(table)

# %% [markdown]
# In the first sentence *red* is looked at from above, where the red thing will be, and more so from step to step; *blue* from below. In the second it is the other way round, and this is not in the vector of *red*: the word *above* or *below* comes after it, and tokens look back only. That vector says "colour of the first thing", no more. It is the
# *places* that find out, from the relation, which thing is theirs, and then ask for its colour. The relation is looked at from both halves alike, and so are the digits' words in the end; in the first step these lean a little to their own half.
#
# (A caution: weights say what was mixed in, not what came of it. A value may be small, and other layers follow.)

# %% [markdown]
# ## 6. The whole of it
#
# One diagram, from the modules that run. At the upper left is the encoder, which a drawing from a prompt alone does not need (training does, and section 8); on the right the text. Below the U-Net the loop of the sampler closes; the decoder is called once.

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import latent_diffusion_diagram
from course_lib.widgets import show_diagram

show_diagram(latent_diffusion_diagram(diffusion))


# %%
def million(module):
    """How many weights a module has, in words."""
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} million weights"


levels = [m.out_channels for m in diffusion.model.down if hasattr(m, "out_channels")]
looks = [m for m in diffusion.model.modules() if isinstance(m, CrossAttention)]
widths = sorted({m.dim for m in looks})
blocks = reader.blocks
rows = [
    ("image", "3 × 512 × 512", " × ".join(map(str, autoencoder.event_shape))),
    (
        "latent",
        "4 × 64 × 64, $f = 8$",
        " × ".join(map(str, autoencoder.latent_shape)) + ", $f = 4$",
    ),
    ("so many times fewer numbers", "48", f"{x[0].numel() / latents[0].numel():.0f}"),
    ("scale factor $s$", "0.18215", f"{autoencoder.latent_scale:.2f}"),
    ("autoencoder", "83.65 million weights", million(autoencoder)),
    (
        "text encoder",
        "12 blocks, 12 heads, width 768: CLIP, frozen",
        f"{len(blocks)} blocks, {blocks[0].attention.heads} heads, width {reader.dim}: trained along",
    ),
    ("", "123.06 million weights", million(reader)),
    ("tokens", "77 of 49,408", f"{tokenizer.length} of {len(tokenizer)}"),
    ("U-Net, channels", "320, 640, 1280, 1280", ", ".join(map(str, widths))),
    ("cross-attention layers", "16, with 8 heads", f"{len(looks)}, with {looks[0].heads} heads"),
    ("", "859.52 million weights", million(diffusion.model)),
    ("captions hidden in training", "10 %", f"{diffusion.denoiser.drop:.0%}"),
]
table = "| | Stable Diffusion 1.5 | ours |\n| --- | --- | --- |\n"
table += "".join(f"| {what} | {theirs} | {own} |\n" for what, theirs, own in rows)
Markdown(table)

# %% [markdown]
# (Stable Diffusion's column: its [model card](https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5) and the configuration files beside it; weights are those of the modules that the library diffusers builds from these. Its noise schedule is DDPM's with 1,000 steps, ours EDM's; its network predicts $\varepsilon$. Neither changes the diagram.)
#
# ## 7. Classifier-free guidance, with an empty prompt
#
# A prompt is a label, and the label that says nothing is the empty prompt, a start and eleven times padding. One caption in ten was replaced by it in training, and so chapter 11 holds word for word:
#
# $$D_w = D_\theta(\ell_\sigma;\, \sigma, \varnothing) + w\, \big( D_\theta(\ell_\sigma;\, \sigma, c) - D_\theta(\ell_\sigma;\, \sigma, \varnothing) \big) .$$

# %%
show_source([guide, Prompted.forward, LatentDiffusion.told])

# %%
noise = 80 * torch.randn(2, 4, 8, 8, generator=seeded(13))
ask = lambda prompt, scale: diffusion.sample([prompt] * 2, scale=scale, z=noise)
same = (ask(sentences[0], 0.0) - ask(sentences[2], 0.0)).abs().max().item() < 1e-4
print("at scale 0 two prompts give the same images:", same)
model, y = diffusion.told(sentences[:2], scale=1.0)
plain = diffusion.denoiser.predict(noise, 5.0, target="x0", y=y)
guided = model.predict(noise, 5.0, target="x0", y=y)
print("at scale 1 it is the model itself:", (plain - guided).abs().max().item() < 1e-4)

# %% [markdown]
# **How much?** The card of `latent_scenes` holds what a classifier read in 500 images at each scale, against what was asked for. *All* is the share without any fault: place, and digit, colour and weight of each thing. *Distance* is a Fréchet distance in the classifier's features.

# %% jupyter={"source_hidden": true}
metrics = load_card("latent_scenes")["metrics"]
table = "| scale w | place | digit | colour | weight | all | distance |\n"
table += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
named = [(f"{row['scale']:g}", row) for row in metrics["fidelity"]]
named += [("real scenes", metrics["real scenes"][0]), ("chance", metrics["chance"][0])]
for words, row in named:
    table += f"| {words} | "
    table += " | ".join(f"{row[k]:.1%}" for k in ("layout", "digit", "colour", "weight", "all"))
    table += f" | {row['distance']:.3f} |\n" if "distance" in row else " | |\n"
Markdown(table)

# %% [markdown]
# It is chapter 11's picture again. At $w = 1$ three images in four are without a fault, and the digits are at fault in the others; at 3 all but one in fifty. That is *better than real scenes*, of which the classifier misreads one in fourteen: guided digits are written more clearly than people write. The distance says so as well: it is least at $w = 1$, where it is that of real scenes, and rises from there on.
# From 5 on guidance does harm even to what is asked for. In pixels one could clip (chapter 11, section 7); a latent has no range to cut at, and the decoder gets codes such as it has never seen.
#
# **Negative prompts.** What stands in the place of the empty prompt is up to you (chapter 11, again). Ask for nothing, $c = \varnothing$, and go away from *red*:

# %%
from course_lib.metrics import SceneJudge


def counted(images):
    """How many things of each colour there are in images."""
    found = [thing.colour for scene in judge.read(images) for thing in scene.things]
    return [found.count(colour) for colour in COLOURS]


noise = 80 * torch.randn(48, 4, 8, 8, generator=seeded(14))
table = f"| of 48 images | {' | '.join(COLOURS)} |\n| --- |" + " ---: |" * 6 + "\n"
for words, options in (
    ("no prompt", {"scale": 1.0}),
    ("no prompt, away from *red*", {"scale": 2.0, "negative": "red"}),
):
    numbers = counted(diffusion.sample([""] * 48, z=noise, **options))
    table += f"| {words} | " + " | ".join(map(str, numbers)) + " |\n"
Markdown(table)

# %% [markdown]
# No red is left. But the others do not share its part evenly: green has tripled, purple, which is close to red, is nearly gone as well, and of white half is left. "Away from red" is a direction, in the space of guesses, and not the set of all images without red.
#
# **Exercise 6: two prompts at once.** Guide towards two prompts, each with a scale of its own, from the empty one. One call of the network, please.


# %%
def two_prompts(net, x, t, tokens, w):
    """net(x, t, y) of any batch; x [B, *event], t [B], tokens [3, B, L]: the empty prompt, the
    first, the second; w [2, B]: the guided prediction, like x."""
    ...


check("12.two_prompts", two_prompts)

# %% [markdown]
# ## 8. Begin with an image
#
# **Image to image.** The sampler goes from noise to a code. Why begin with noise alone? Encode an image, noise it as far as *some* level $\sigma$, and begin there (Meng et al. 2022):
#
# $$\ell_\sigma = \ell + \sigma\, \varepsilon, \qquad \ell = s\, z, \quad z \sim q(z \mid x) .$$
#
# What the noise has covered is decided anew, by the prompt; what still shows stays. `strength` is the share of the steps that are taken.

# %%
show_source(LatentDiffusion.image_to_image)

# %% [markdown]
# Take test scenes of one thing, and ask for the same in the next colour:

# %%
from course_lib.data import caption_of

images, captions = scenes(40, split="test", generator=seeded(15))
single = [i for i, caption in enumerate(captions) if len(scene_of(caption).things) == 1][:16]
source, palette, asked = images[single], list(COLOURS), []
for caption in (captions[i] for i in single):
    (thing,), where = scene_of(caption)
    recoloured = thing._replace(colour=palette[(palette.index(thing.colour) + 1) % 6])
    asked.append(caption_of(scene_of(caption)._replace(things=(recoloured,))))

strips = [source[:8]]
table = "| strength | has the new colour | ink that is elsewhere, share of the pixels |\n"
table += "| ---: | ---: | ---: |\n"
for strength in (0.2, 0.3, 0.4, 0.6, 1.0):
    changed = diffusion.image_to_image(source, asked, strength=strength, generator=seeded(16))
    moved = ((changed.amax(1) > 0.4) != (source.amax(1) > 0.4)).double().mean().item()
    table += f"| {strength:g} | {judge.fidelity(changed, asked)['colour']:.0%} | {moved:.1%} |\n"
    strips.append(changed[:8])
show_figure(
    image_grid(
        torch.cat(strips),
        columns=8,
        titles=["the image", *(f"strength {w:g}" for w in (0.2, 0.3, 0.4, 0.6, 1.0))],
        size=0.7,
    ),
    alt="A row of eight digits, and five rows of what becomes of them: from 0.4 on they have the new "
    "colour; the larger the strength, the more their shape is another.",
)

# %%
Markdown(table)

# %% [markdown]
# At 0.2 nothing happens: so little noise hides no colour. At 0.3 colours mix. At 0.4 the colour is new and the handwriting is nearly the old one; at 1 only the prompt is left, and the handwriting is another.
#
# **Inpainting.** A part of the image is known, and stays; the rest is to fit to it. No new training is needed. At each step, before the network is asked, put the known part in, noised to the level $\sigma$ of this step; and after it, put the known part into the guess as well. With a mask $m$ of what is known, in the latent,
#
# $$\ell_\sigma \;\leftarrow\; m \odot (\ell + \sigma\, \varepsilon) + (1 - m) \odot \ell_\sigma, \qquad
#   D_w \;\leftarrow\; m \odot \ell + (1 - m) \odot D_w .$$

# %%
show_source([keep_known, Inpainting])

# %%
double = [i for i, c in enumerate(captions) if scene_of(c).where in ("above", "below")][:8]
source = images[double]
keep = torch.ones(8, 1, 32, 32, dtype=torch.bool)
keep[:, :, 16:] = False  # the upper half is known
asked = []
for caption in (captions[i] for i in double):
    things, where = scene_of(caption)
    top = things[0] if where == "above" else things[1]
    asked.append(f"a {top.weight} {top.colour} {top.digit} above a bold white 0")
filled = diffusion.inpaint(source, keep, asked, generator=seeded(17))
free = diffusion.inpaint(source, keep, [""] * 8, scale=1.0, generator=seeded(17))
print("what is known is kept to the last bit:", torch.equal(filled[:, :, :16], source[:, :, :16]))
print(
    "a bold white 0 in the lower half:",
    f"{judge.fidelity(filled, asked)['all']:.0%} without a fault",
)
show_figure(
    image_grid(
        torch.cat([source, source * keep, filled, free]),
        columns=8,
        titles=["the image", "known", '"... a bold white 0"', "no prompt"],
        size=0.7,
    ),
    alt="Eight scenes of two things; their upper halves; the same with a white 0 below; and filled in "
    "without a prompt: some with a digit below, some with a part of one, some with nothing.",
)

# %% [markdown]
# (The noise $\varepsilon$ of the known part is drawn once, and stays the same at all levels. A place of the latent counts as known where all of its 4 × 4 pixels are, and the pixels themselves are put back at the end: the decoder would have changed them a little.)
#
# **Where it is biased.** This looks like sampling from the conditional distribution, and is not. At large $\sigma$ the known part, noised, says next to nothing; the network decides the rest as if nothing were known, and later there is no way back. Take data of two clouds in the plane, around $(-1, -1)$ and $(1, 1)$, with exact scores, and tell the sampler that the first number is 1. Then
# the second must be near 1, always:

# %%
from course_lib.diffusion import Denoiser, EDMPath, IdealDenoiser

centres = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
two_clouds = Denoiser(IdealDenoiser(centres, EDMPath(), std=0.2), EDMPath())
known = torch.tensor([[1.0, 0.0]]).repeat(2000, 1)
given = torch.tensor([[True, False]]).repeat(2000, 1)
for steps in (12, 40):
    model = Inpainting(two_clouds, known, given, generator=seeded(18))
    ends = last(dpm_solver_sample(model, (2000, 2), steps=steps, generator=seeded(19)))
    wrong = (ends[:, 1] < 0).double().mean().item()
    print(f"{steps} steps: {wrong:.0%} end near −1")

# %% [markdown]
# One in six ends in the wrong cloud, and more steps don't help: it is no error of the solver. RePaint (Lugmayr et al. 2022) goes back and forth, noising again after each step, so that the rest can be decided anew. Stable Diffusion's inpainting model takes another way: it was trained further with the mask and the known image as further channels of its input.
#
# **Exercise 7: the mixing step.** Write one Euler step of the sampler with its mixing. Which noise level belongs to the known part, that of before the step or of after it?


# %%
def inpainting_step(x, D, z, eps, keep, sigma, sigma_next):
    """x: the state at sigma, D: the guess there, z: the known latent, eps its noise, keep where it
    is known; all like x. The state at sigma_next."""
    ...


check("12.inpainting_step", inpainting_step)

# %% [markdown]
# ## 9. What fails
#
# Stable Diffusion is notorious for three things: it gives a thing the colour of its neighbour, it cannot count, and *left of* means nothing to it. GenEval ([Ghosh et al. 2023](https://arxiv.org/abs/2310.11513), their table of main results) had detectors look at what Stable Diffusion 1.5 draws. Of prompts for two things, 38 % show both; of
# those with a colour each, 6 % are right; of those for a number of things, 35 %; of those for a position, 4 %. And ours? Chance, in this table, is what the same images have beside the prompts of others.

# %% jupyter={"source_hidden": true}
metrics = load_card("latent_scenes")["metrics"]
table = "| of prompts of two things | right | exchanged | chance of right |\n| --- | ---: | ---: | ---: |\n"
for row in metrics["swapped"]:
    table += f"| both {row['what']}s | {row['right']:.1%} | {row['swapped']:.1%} | {row['chance right']:.1%} |\n"
for row in metrics["order"]:
    table += f"| all of it, *{row['relation']}* | {row['all']:.1%} | {row['exchanged']:.1%} | {row['chance']:.1%} |\n"
one_row, two_row = metrics["counts"]
table += f"| two things, not one | {two_row['two']:.1%} | | {two_row['chance of two']:.1%} |\n"
seen_row, new_row = metrics["unseen"]
table += "\n| all prompts | place | digit | colour | all |\n| --- | ---: | ---: | ---: | ---: |\n"
for words, row in (
    ("digits in colours that were shown", seen_row),
    ("in colours never shown", new_row),
):
    shares = " | ".join(f"{row[k]:.1%}" for k in ("layout", "digit", "colour", "all"))
    table += f"| {words} | {shares} |\n"
Markdown(table)

# %% [markdown]
# It swaps nothing, it counts to two, and a *green 5*, which no training image shows, comes out nearly as well as a *green 6*. Does that make it the better model? It makes its *world* the easier one: 31 words in two patterns, captions that are true in every word, each combination but the six shown about as often as any other. Captions from the web say little of who has which colour, and pairs of things are not drawn by lot.
# A network that learned by heart which colour goes with which digit could not draw a green 5; this one has learned colours apart from digits, since its training data left it no other way.
#
# **Leave the world**, then, by one step. A sentence that any child understands:


# %%
def read_as(prompt, n=12):
    """What a classifier reads in images of a prompt: the commonest answers."""
    noise = 80 * torch.randn(n, 4, 8, 8, generator=seeded(20))
    read = judge.read(diffusion.sample([prompt] * n, scale=3.0, z=noise))
    return {
        "digit": most([thing.digit for scene in read for thing in scene.things]),
        "colour": most([thing.colour for scene in read for thing in scene.things]),
        "place": most([scene.where for scene in read]),
    }


def most(answers):
    """The commonest of some answers, and its share."""
    best = max(sorted(set(answers), key=str), key=answers.count)
    return f"{best} ({answers.count(best) / len(answers):.0%})"


strange = [
    "a bold red 3 on the left",
    "a red bold 3 on the left",
    "a bold 3 on the left",
    "a 3 on the left",
    "on the left a bold red 3",
]
table = "| prompt | digit | colour | place |\n| --- | --- | --- | --- |\n"
for prompt in strange:
    table += f"| {prompt} | " + " | ".join(read_as(prompt).values()) + " |\n"
Markdown(table)

# %% [markdown]
# Exchange two words, *red bold* for *bold red*, and the colour is lost. Leave out the colour, and the digit and the place are lost with it; leave out *bold*, too, and the place is there again, and the digit is not. Say the place first, and red stays red, but the digit and the place are lost. The model has not learned what *3* means wherever it stands, but what it means at the places where it stood in
# every sentence that it has read: a token's vector is its word's plus its place's, and nothing ever asked for the two apart. CLIP has read every order. A system of this kind knows what its captions showed, and varied; data decide, more than the architecture.
#
# ## How good is it?
#
# **Latent against pixels, at equal processor time.** The same text encoder, optimizer, batches, noise levels and sampler; once on latents, once on pixels. The pixel model's U-Net looks at the text at the same two sizes and has about as many weights; above these stand two narrow levels of 32 × 32 and 16 × 16 pixels. From scratch, for five minutes of processor time each, looked at on the way:

# %%
curve = load_study("equal_time_scenes")["metrics"]
rows, seconds = curve["equal processor time"], curve["processor time of each, s"]
table = "| processor time | latent: steps | without a fault (place, colour, digit) "
table += "| pixels: steps | without a fault (place, colour, digit) |\n"
table += "| ---: | ---: | ---: | ---: | ---: |\n"
by_model = {kind: [row for row in rows if row["model"] == kind] for kind in ("latent", "pixels")}
for own, other in zip(by_model["latent"], by_model["pixels"]):
    table += f"| {own['share'] * seconds:.0f} s "
    for row in (own, other):
        parts = ", ".join(f"{row[part]:.0%}" for part in ("layout", "colour", "digit"))
        table += f"| {row['steps']:,} | {row['all']:.0%} ({parts}) "
    table += "|\n"
own, other = by_model["latent"][-1], by_model["pixels"][-1]
share = curve["processor time of the autoencoder, share of that"]
table += f"\nIn the same time the latent model takes {own['steps'] / other['steps']:.1f} times as many "
table += f"steps. At the end {own['all']:.0%} of its images are without a fault, and {other['all']:.0%} "
table += f"of the pixel model's. The autoencoder's own training took {share:.0%} of that time on top."
Markdown(table)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(5.6, 2.9))
axes = figure.subplots()
for kind, role in (("latent", "latent"), ("pixels", "data")):
    times = [row["share"] * seconds for row in by_model[kind]]
    axes.plot(times, [row["all"] for row in by_model[kind]], "o-", color=PALETTE[role], label=kind)
    axes.plot(times, [row["colour"] for row in by_model[kind]], "o:", ms=3, color=PALETTE[role])
axes.set(
    title="Without a fault (dotted: colours alone)",
    xlabel="seconds of processor time",
    ylabel="share of 256 images",
    ylim=(0, 1.03),
)
axes.legend(frameon=False)
figure.tight_layout()
show_figure(
    figure,
    alt="Two curves over the time of training: the latent model's share of faultless images, and the "
    "pixel model's.",
)

# %% [markdown]
# Two things come together. A call of the network is cheaper on latents, 51 million multiplications in place of 117 million, which makes twice as many steps in the same time. And fewer steps are needed: after 372 steps on pixels one image in a hundred is without a fault; on latents it was 6 % after 307 and 28 % after 537. The places are
# learned first in both (100 % and 71 % at the end); on latents then the colours, and the digits last (13 % after two minutes, 60 % after five); on pixels colours have begun, 31 %, digits not.
#
# Honest accounts: the autoencoder had to be trained as well, and that took as long again as either curve. It is trained once, for every model that is to come. Both curves break off early; they say who is ahead, not who wins in the end.
#
# Published:
#
# | | | | source |
# | --- | --- | ---: | --- |
# | ImageNet 256², classes | LDM-4, 400 million weights | FID 10.56 | Rombach et al. 2022, table 3 |
# | | the same, guided at 1.5: LDM-4-G | FID **3.60**, IS 247.67 | the same |
# | | ADM, in pixels, 554 million | FID 10.94 | the same; Dhariwal and Nichol 2021 |
# | | ADM-G, with a classifier, 608 million | FID 4.59, IS 186.7 | the same |
# | inpainting, an epoch of training and validation; FID after six, of 2,000 images | LDM-1, pixels | 20.66 hours, FID 24.74 | Rombach et al. 2022, table 6 |
# | | LDM-4, KL, as many weights | 7.66 hours, FID 15.21 | the same |
# | | LDM-4, VQ without attention | 6.66 hours, FID 15.95 | the same |
# | MS-COCO, text | LDM-KL-8, 1.45 billion | FID 23.31 | Rombach et al. 2022, table 2 |
# | | the same, guided at 1.5 | FID **12.63** | the same |
#
# How to read it:
#
# - **A speed-up of at least 2.7**, says the paper of its table 6, "while improving FID scores by a factor of at least 1.6". The first is 20.66 / 7.66. The second holds for two of their three rows; without attention it is 24.74 / 15.95, or 1.55.
# - **3.60 against 4.59** is a latent model against a pixel model, but also a guidance without a classifier against one with it. Without any guidance they are 10.56 and 10.94: at 256² the latent space costs no quality, and buys speed.
# - **Not to be compared with ours** are the values: 31 words and digits on black here, photographs there. Compare the directions. What guidance does to fidelity and distance, and what a latent does to time, is the same.
#
# ## What to take away
#
# - Most bits of an image are details that nobody reads. An autoencoder takes them away, once; the diffusion model works on what is left.
# - The weight of the KL is small, since nobody draws from $\mathcal N(0, I)$. Then measure one number, $s = 1 / \sqrt{\operatorname{Var} z}$, or the noise levels don't fit.
# - Text comes in as a list of vectors. Cross-attention is a lookup: queries from places, keys and values from words; padding is masked, or must always be the same.
# - The empty prompt is the null class, and another prompt in its place is a negative one. Guidance is chapter 11's.
# - Begin with a noised image, and the prompt decides what the noise has covered. Mix a known part into every step, and the rest is filled in: without any training, and with a bias.
# - What a model gets wrong of a text depends on what its captions said. In a closed world it binds colours to things; outside of it, it knows nothing.
#
# **What does not work well.** The autoencoder's errors are final: small text and faces in Stable Diffusion 1.5 fail in the decoder, whatever the U-Net does. Guidance leaves the latents that the decoder knows. A frozen text encoder knows what CLIP's captions said, and these say little of who has which colour.
#
# **What came after.**
#
# - *A larger U-Net, two text encoders, the image's size told to it*: SDXL (Podell et al. 2023, [arXiv:2307.01952](https://arxiv.org/abs/2307.01952)).
# - *A language model as the reader*, and pixels after all, in a cascade: Imagen (Saharia et al. 2022, [arXiv:2205.11487](https://arxiv.org/abs/2205.11487)).
# - *Captions that say more*, written by a model, against swapped colours: DALL·E 3 (Betker et al. 2023, [paper](https://cdn.openai.com/papers/dall-e-3.pdf)).
# - *A transformer in the place of the U-Net*, on the same latents: DiT (Peebles and Xie 2022, [arXiv:2212.09748](https://arxiv.org/abs/2212.09748)); and straight paths: Stable Diffusion 3 (Esser et al. 2024, [arXiv:2403.03206](https://arxiv.org/abs/2403.03206)), in chapters 13 and 14.
# - *Make each thing of the prompt looked at*, while sampling: Attend-and-Excite (Chefer et al. 2023, [arXiv:2301.13826](https://arxiv.org/abs/2301.13826)).
#
# **Next:** words say little about *where* and *in which shape*. ControlNet adds a drawing, to a model that is trained already and stays as it is.

# %% [markdown]
# [← 11 · Guidance](11_guidance.ipynb) | [Contents](../README.md#chapters) | [12b · ControlNet →](12b_controlnet.ipynb)
