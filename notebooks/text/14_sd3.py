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
# [← 13 · Rectified flow](13_rectified_flow.ipynb) | [Contents](../README.md#chapters) | [15 · FlashAttention →](15_flash_attention.ipynb)

# %% [markdown]
# # 14 · Stable Diffusion 3
#
# **Eight changes made the text-to-image model of chapter 12 into Stable Diffusion 3. Each answers a weakness. Most of these you see happen; where ours does not show one, the page says so.**
#
# | | |
# | --- | --- |
# | You need | chapter 12: latents, tokens of a text, attention with a mask; chapter 13: the straight way from noise to data, and its velocity. Guidance is chapter 11's |
# | Time | 45 minutes to read, an hour and three quarters with the exercises |
# | The short way | 30 minutes: sections 1, 3, 4, 5 and 9, and *What to take away*; leave out all that is called a check |
# | You will meet | patches, DiT, AdaLN-zero, MM-DiT and joint attention, logit-normal times and their loss weight, two-dimensional positions, latent channels, QK-normalization, the shift of times with resolution |
# | Papers | Esser et al. 2024, [Stable Diffusion 3](https://arxiv.org/abs/2403.03206); Peebles and Xie 2022, [DiT](https://arxiv.org/abs/2212.09748); Dehghani et al. 2023, [ViT-22B](https://arxiv.org/abs/2302.05442), for QK-normalization |
# | Source article | the one on SD3's model and how its training was improved (SD3 模型与训练策略改进细节, in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter), then build a sentence. The model is `sd3_scenes`: Stable Diffusion 3 at our size, on the same captions and images as chapter 12's. The row shows one noise after 1, 2, 4 and 12 steps of Euler's method.

# %%
import math
from copy import deepcopy
from textwrap import fill

import torch
from IPython.display import Markdown
from matplotlib.figure import Figure

from course_lib.data import (
    COLOURS,
    PLACES,
    RELATIONS,
    load_digits,
    quantize,
    scenes,
    to_signed,
    to_unit,
)
from course_lib.diffusion import (
    ClassifierFreeGuidance,
    Denoiser,
    FlowMatching,
    LatentDiffusion,
    StraightPath,
    cosmap_density,
    cosmap_times,
    interpolate,
    last,
    logit_normal_density,
    logit_normal_times,
    mode_density,
    mode_times,
    ode_sample,
    shift_times,
)
from course_lib.exercises import check, hint, show_source, solution
from course_lib.nn import (
    JointAttention,
    MMDiT,
    MMDiTBlock,
    modulate,
    patchify,
    sincos_positions,
    unpatchify,
)
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained, load_study
from course_lib.training.batches import digits_batch
from course_lib.training.quality import conditional_quality
from course_lib.widgets import (
    PALETTE,
    JointAttentionMap,
    PromptBox,
    SameNoise,
    TimeSampling,
    image_grid,
    show_figure,
)

one_thread()  # models this small are slower on two

# %%
flow = load_pretrained("sd3_scenes")
things = {"stroke": ["a bold", "a thin"], "colour": list(COLOURS), "digit": [*map(str, range(10))]}
first = torch.randn(1, 4, 8, 8, generator=seeded(0))
counts = (1, 2, 4, 12)


def draw(prompts, scale):
    """Images [B, 3, 32, 32] of B sentences, from one noise, four in a row in more and more steps."""
    images = [
        flow.sample(
            prompts[k::4], scale=scale, steps=steps, z=first.repeat(len(prompts[k::4]), 1, 1, 1)
        )
        for k, steps in enumerate(counts)
    ]
    return torch.stack(images, 1).flatten(0, 1)


PromptBox(
    {
        **things,
        "where": [*list(PLACES)[::-1], *RELATIONS],
        **{f"second {name}": words for name, words in things.items()},
    },
    draw,
    stored={"colour": ["red", "blue"], "digit": ["0", "3", "4", "7", "8"]},
    ends=list(PLACES),
    start={"digit": "3"},
    scales=[1.0, 3.0],
    scale=3.0,
    n=4,
    title="One noise, in 1, 2, 4 and 12 steps",
    alt="A sentence of words to choose from, a bold red 3 in the middle, and four images of it: a "
    "blur after one step, and the same digit sharper and sharper in more.",
)

# %%
judge = load_pretrained("judge_scenes")  # reads images alone, and has no part in the drawing
sentences = [
    "a thin red 3 above a bold blue 7",
    "a bold blue 7 above a thin red 3",
    "a bold yellow 0 left of a bold white 4",
    "a thin purple 1 on the right",
]
z = torch.randn(8, 4, 8, 8, generator=seeded(1))
strips = {
    (said, k): flow.sample([said] * 8, scale=3.0, steps=k, z=z)
    for said in sentences
    for k in (2, 4, 12)
}
table = "| all eight images right in every word | 2 steps | 4 steps | 12 steps |\n| --- | ---: | ---: | ---: |\n"
for said in sentences:
    right = [8 * judge.fidelity(strips[said, k], [said] * 8)["all"] for k in (2, 4, 12)]
    table += f"| {said} | " + " | ".join(f"{one:.0f} of 8" for one in right) + " |\n"
show_figure(
    image_grid(torch.cat([strips[said, 12] for said in sentences]), columns=8, size=0.7),
    alt="Four rows of eight images, a row for each sentence, all rows from the same eight noises.",
)

# %%
Markdown(table)

# %% [markdown]
# Two things to notice:
#
# - **One step gives a blur, more give a scene.** At scale 1 one step from noise is the decoded mean of all latents that fit the sentence; a larger scale (chapter 11) moves it away from the mean of all latents. Chapter 13 told why: the ways are straight in pairs, and curved in the flow.
# - **There is no U-Net.** The network cuts the latent into 16 squares, and from then on knows images and words as what they are to it: two lists of vectors.
#
# ## The idea
#
# Stable Diffusion 3 keeps chapter 12's plan: an autoencoder, readers of the prompt, and a model of latents. It takes chapter 13's flow in place of the diffusion. All else that is new answers something that fails:
#
# | what fails | the answer | section |
# | --- | --- | --- |
# | a U-Net is built for grids, at one size, and text is no grid | patches and a transformer: DiT, with AdaLN-zero | 2, 3 |
# | words are read once, and never learn what is being drawn | two streams, joint attention: MM-DiT | 4 |
# | uniform times spend as much next to the data, where nothing is to be learned, as on the middle | times drawn in the middle | 5 |
# | at another size positions say what was never heard | stretched positions | 6 |
# | the decoder cannot bring back what 4 channels don't hold | 16 channels, and a larger model | 7 |
# | logits grow in training, until half precision breaks | QK-normalization | 8 |
# | the same noise hides less of a larger image | shifted times | 9 |
# | the best reader of prompts needs 19 GB | three readers, each of which may be missing | 10 |
#
# | symbol | meaning |
# | --- | --- |
# | $x$; $z$ | an image; its latent, scale included |
# | $t$; $\varepsilon$; $z_t$ | time, 0 at the data and 1 at noise; noise, standard normal; the latent with noise, $(1 - t)\, z + t\, \varepsilon$ |
# | $v$, $v_\theta$; $\mathcal L$ | the velocity, $\varepsilon - z$; the network's guess, with weights $\theta$; a loss |
# | $y$ | the prompt |
# | $G$; $p$ | how many numbers wide a latent is; how many a patch |
# | $H$, $C$; $N$, $M$ | tokens of the image and of the text, a row each; how many of each |
# | $c$ | the vector that modulates, made of the time and the whole text |
# | $\alpha$, $\beta$, $\gamma$; $F$ | scale, shift and gate, made of $c$; a branch: attention, or a perceptron |
# | $Q$, $K$, $V$; $W$; $d$ | queries, keys, values, of the stream in the index; the matrices that make them; size of a head |
# | $q$, $k$; $g$, $g'$ | one query, one key; the learned factors of their norms |
# | $i$, $j$ | running indices |
# | $\pi(t)$; $u$; $\ell(t)$; $w(t)$ | density of the times of training (without a time, $\pi$ is the number 3.14…); what a time is made of; the loss at one time; a weight |
# | $m$, $s$; $\mathcal N$ | mean and standard deviation of the logit of logit-normal times; in "mode", $s$ sets how high the middle is; a normal density |
# | $\lambda$ | the log signal-to-noise ratio, $2 \log \big((1 - t) / t\big)$ |
# | $N_1$, $N_2$; $t_1$, $t_2$; $\mu$ | numbers of pixels; times with the same uncertainty; the grey of a constant image |
# | $\mathbb E$, $I$ | mean, the unit matrix |

# %% [markdown]
# ## 1. The loss: velocities of latents
#
# Everything of chapter 13, on latents, told a text:
#
# $$\mathcal L = \mathbb E\, \big\| v_\theta(z_t;\, t, y) - (\varepsilon - z) \big\|^2, \qquad z_t = (1 - t)\, z + t\, \varepsilon, \quad \varepsilon \sim \mathcal N(0, I) .$$
#
# (The code's loss is divided by the number of coordinates, as in chapter 13. And in some examples $y$ is hidden, for guidance.)

# %%
show_source([interpolate, LatentDiffusion.loss, Denoiser.loss])

# %%
test_images, test_captions = scenes(256, split="test", generator=seeded(2))
with torch.no_grad():
    latents = flow.autoencoder.to_latent(to_signed(test_images), generator=seeded(3))
tokens = flow.text_encoder.tokenizer(test_captions)
model = flow.denoiser
with torch.no_grad():
    generator = seeded(4)
    t, eps = model.draw(latents, generator=generator)
    y = model.hide(tokens, generator=generator)
    by_hand = (model(interpolate(latents, eps, t), t, y) - (eps - latents)).square().mean()
    loss = model.loss(latents, tokens, generator=seeded(4))
print("the loss is the formula, for each coordinate, within 1e-5:", abs(loss - by_hand).item() < 1e-5)
print("the path is", model.path, "and the network", type(flow.model).__name__)

# %% [markdown]
# There is no scale of noise levels, no preconditioning (chapter 10), no $\bar\alpha$. A step of the sampler is $z_t$ minus a bit of $v_\theta$. What is left to decide is the network, and at which times it is trained.
#
# ## 2. From a U-Net to a transformer
#
# **What is wrong with a U-Net?** It works. But it carries beliefs about images: neighbours matter most, then their neighbours, at sizes that halve. Each resolution has its own blocks, so a larger U-Net is a matter of many choices. A transformer has one kind of block, and two numbers: how wide, how many. Peebles and Xie (2022) put it in the U-Net's place, and found that quality follows
# the computation spent, however it is spent. That is **DiT**, the diffusion transformer.
#
# **Patches.** A latent of $G \times G$ numbers becomes $N = (G / p)^2$ tokens, one for each square of $p \times p$:

# %%
show_source([patchify, unpatchify])

# %%
squares = patchify(latents, 2)
print("latents", list(latents.shape), "→ tokens", list(squares.shape))
print("and back, to the last bit:", torch.equal(unpatchify(squares, 2, (8, 8)), latents))
table = "| p | tokens N | comparisons N² | numbers in a token |\n| ---: | ---: | ---: | ---: |\n"
for p in (1, 2, 4, 8):
    n = (8 // p) ** 2
    table += f"| {p} | {n} | {n**2:,} | {4 * p * p} |\n"
Markdown(table)

# %% [markdown]
# Halve $p$, and there are four times the tokens and sixteen times the comparisons. SD3 takes $p = 2$, and so do we: a latent of 128 × 128 makes 4,096 tokens there, ours of 8 × 8 makes 16.
#
# **Exercise 1: rectangles.** Write your own, in another form: rectangles of $p \times q$, and in a token the channels last. Then glue them together again. (`hint("14.patchify")` helps, as with every exercise; `solution(...)` shows what the library does; every `check` judges your function on fresh random inputs.)


# %%
def cut(x, p, q):
    """Images x [B, C, H, W]: tokens [B, H/p · W/q, p q C], each of them [p, q, C] inside."""
    ...


def glue(tokens, p, q, rows):
    """Tokens as of `cut`, in so many rows of rectangles: the images [B, C, H, W]."""
    ...


check("14.patchify", cut)
check("14.unpatchify", glue)

# %% [markdown]
# **Positions.** Attention compares tokens by what they hold, and asks nobody where they stand. Exchange two squares of an image, and their answers change places, no more. That is the weakness of a transformer that a convolution does not have. It is told: each token gets a vector added that says its row and its column, in sines and cosines, half and half.

# %%
show_source(sincos_positions)

# %%
torch.manual_seed(0)
attention = JointAttention(32, 4, streams=1).double()
H = torch.randn(1, 16, 32, generator=seeded(5), dtype=torch.float64)
where = sincos_positions(4, 4, 32).double()
order = torch.randperm(16, generator=seeded(6))
(answer,), (shuffled,) = attention(H), attention(H[:, order])
print("without positions: shuffled in, shuffled out:", torch.allclose(shuffled, answer[:, order]))
(answer,), (shuffled,) = attention(H + where), attention(H[:, order] + where)
print("with positions: the same?", torch.allclose(shuffled, answer[:, order]))
(carried,) = attention((H + where)[:, order])
print("shuffled together with its positions:", torch.allclose(carried, answer[:, order]))

# %% [markdown]
# **AdaLN-zero** (adaptive layer normalization that starts at zero): **how the network hears the time.** In chapter 06 the time was added to the channels. DiT makes a vector $c$ of time (and class), and lets it decide, in each block, how tokens are stretched and moved before a branch $F$, and how much of the branch is added after it:
#
# $$H \;\leftarrow\; H + \gamma(c) \odot F\big( (1 + \alpha(c)) \odot \mathrm{LN}(H) + \beta(c) \big) .$$
#
# $\mathrm{LN}$ is layer normalization without weights of its own. $\alpha$, $\beta$ and $\gamma$ are one linear layer of $\mathrm{SiLU}(c)$, where $\mathrm{SiLU}(x) = x / (1 + e^{-x})$, with a set of them for each branch; and it **starts at 0**. (The letters are those of SD3's figure 2b, whose $\alpha$ is our $1 + \alpha$. DiT calls scale, shift and gate $\gamma$, $\beta$ and $\alpha$.) So at first $\gamma = 0$, and every block is the identity, however many there are:

# %%
show_source([modulate, MMDiTBlock.forward])

# %%
torch.manual_seed(0)
block = MMDiTBlock(32, 4, streams=1)
deep = [MMDiTBlock(32, 4, streams=1) for _ in range(24)]
H, c = torch.randn(2, 16, 32, generator=seeded(7)), torch.randn(2, 32, generator=seeded(8))
through = (H,)
for one in deep:
    through = one(*through, c=c)
print("24 new blocks change nothing, to the last bit:", torch.equal(through[0], H))
net = MMDiT((4, 8, 8), dim=32, depth=2, context_dim=64)
print(
    "a new network answers:",
    net(latents[:2], t[:2], context=torch.zeros(2, 3, 64)).abs().max().item(),
)

target = torch.randn(2, 16, 32, generator=seeded(9))
(block(H, c=c)[0] - target).square().mean().backward()
sizes = {
    "the layer that makes shift, scale and gate": block.modulation,
    "attention": block.attention,
    "perceptron": block.mlp,
}
for name, module in sizes.items():
    moved = any(p.grad is not None and p.grad.any() for p in module.parameters())
    print(f"{name}: gradient {'not zero' if moved else 'exactly zero'}")

# %% [markdown]
# The last lines are the product rule. For $H + \gamma F$ the gradient that comes to $F$ is $\gamma$ times what comes from behind, and that is 0. The gradient that comes to $\gamma$ is $F$ times it, and that is not. So the gate learns first, and opens; then there is something for the branch to learn from. (It is chapter 12b's zero convolution, in each block.)
# Peebles and Xie compare four ways to tell a transformer the time and the class: AdaLN-zero has the lowest FID (their figure 5).
#
# **Exercise 2: predict.** A whole network has a last layer that starts at 0 as well. Which groups of its parameters have gradients that are exactly zero at the first step? And at the second? The letters are explained by `hint("14.adaln_zero_start")` and below.
#
# A: the blocks' modulations; B: their attention; C: their perceptrons; D: the last modulation; E: the last layer; F: the embedding of patches; G: that of the time; H: that of the words.

# %%
prediction = ...  # two words of letters, like "AB; C"

check("14.adaln_zero_start", prediction)

# %% [markdown]
# ## 3. Train it
#
# DiT from nothing, on 1,438 digits of 8 × 8 pixels, told the class; 16 tokens, three blocks. (With 2 × 2 pixels in a patch a digit has as many tokens as a latent of a scene.)

# %%
digits, labels = load_digits("train")
torch.manual_seed(0)
net = MMDiT((1, 8, 8), patch=2, dim=64, depth=3, heads=4, n_classes=10, null_class=True)
live = FlowMatching(net, path=StraightPath(logit_normal_times), drop=0.1)
history = fit(
    live,
    (digits, labels),
    steps=350,
    batch_size=64,
    lr=3e-3,
    ema=0.99,
    transform=digits_batch("signed dequantized"),
)
print("the loss fell to less than a third:", history.loss() < history.losses[0] / 3)

# %%
y = torch.arange(100) % 10
z = torch.randn(100, 1, 8, 8, generator=seeded(10))
ours = to_unit(last(ode_sample(ClassifierFreeGuidance(live, 2.0), z.shape, steps=12, y=y, z=z)))
quality = conditional_quality(quantize(ours, 17), y, "digits")
print("four of five are read as the class that was asked for:", quality["accuracy"] > 0.8)
show_figure(
    image_grid(ours[:50], columns=10, size=0.6),
    alt="Fifty digits, drawn by the network that was just trained; a column for each class from 0 to 9.",
)

# %% [markdown]
# In seconds, and without a single convolution. No layer is built on neighbours: which squares lie beside each other the network can take from the vectors of their positions alone.
#
# The rest of the chapter is about what makes such a model obey words, train faster, and grow.

# %% [markdown]
# ## 4. Two streams: joint attention
#
# **What is wrong with cross-attention?** In chapter 12 places look at words, and words look at no place: the text is read once, before the first step, and its vectors are the same whatever is being drawn. And it has no layers of its own inside the network that could make something better of them.
#
# One could put the words behind the patches, and let one transformer work on both. Then the same matrices must serve two kinds of things that have nothing in common. SD3 gives each stream **weights of its own**, for everything, and joins them in one place only, the softmax:
#
# $$\operatorname{softmax} \left( \frac{1}{\sqrt d} \begin{pmatrix} Q_H K_H^\top & Q_H K_C^\top \\ Q_C K_H^\top & Q_C K_C^\top \end{pmatrix} \right) \begin{pmatrix} V_H \\ V_C \end{pmatrix}, \qquad Q_H = H\, W_H^Q, \quad Q_C = C\, W_C^Q, \quad \dots$$
#
# Four quadrants: patches look at patches (a DiT), patches look at words (cross-attention), words at words (a text encoder), and words at patches, which is new. This is the **MM-DiT**, the multimodal diffusion transformer.

# %%
show_source([JointAttention.heads_of, JointAttention.forward])

# %% [markdown]
# It is ordinary attention, of tokens that are put behind each other; only the weights are in blocks. Write a patch as $(H, 0)$ and a word as $(0, C)$, in twice as many numbers, and stack the two matrices:
#
# $$Q = \begin{pmatrix} H & 0 \\ 0 & C \end{pmatrix} \begin{pmatrix} W_H^Q \\ W_C^Q \end{pmatrix} .$$

# %%
torch.manual_seed(1)
joint = JointAttention(8, 2, qk_norm=False).double()
for layer in joint.qkv:
    torch.nn.init.zeros_(layer.bias)
H = torch.randn(3, 6, 8, generator=seeded(11), dtype=torch.float64)  # 6 patches
C = torch.randn(3, 4, 8, generator=seeded(12), dtype=torch.float64)  # 4 words
wide = torch.cat([torch.cat([H, 0 * H], 2), torch.cat([0 * C, C], 2)], 1)  # [3, 10, 16]
W = torch.cat([layer.weight for layer in joint.qkv], 1)  # [24, 16]
Q, K, V = (wide @ W.T).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
o = (torch.softmax(Q @ K.mT / math.sqrt(4), -1) @ V).transpose(1, 2).flatten(2)
by_hand = joint.out[0](o[:, :6]), joint.out[1](o[:, 6:])
off = max((one - other).abs().max().item() for one, other in zip(joint(H, C), by_hand))
print("joint attention is attention with block weights, within 1e-12:", off < 1e-12)

# %% [markdown]
# (`python -m benchmarks transformers` compares our block with the `JointTransformerBlock` of the library diffusers, with copied weights.)
#
# **The text enters twice.** Its tokens $C$ are a stream; and their mean is added to the embedded time, so that $c$ knows the whole sentence, and each block's shift, scale and gate with it. SD3 takes for this second way what CLIP says of the whole sentence. One drawing, from the modules that run:

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import mmdit_diagram
from course_lib.widgets import show_diagram

show_diagram(mmdit_diagram(flow.model))

# %% [markdown]
# **Do words learn what is being drawn?** Give the network the same sentence and the same time, and two different noised images. In chapter 12 the words' vectors would be the same, to the last bit:


# %%
def attend(model, z_t, t, y):
    """The words' tokens [B, M, dim] behind each block, and each block's weights [B, heads, all, all]."""
    words, weights, hooks = [], [], []
    for block in model.model.blocks:
        hooks.append(block.register_forward_hook(lambda block, args, out: words.append(out[1])))
        hooks.append(
            block.attention.register_forward_pre_hook(
                lambda layer, args, kwargs: weights.append(layer.weights(*args, **kwargs)),
                with_kwargs=True,
            )
        )
    with torch.no_grad():
        model.denoiser.predict(z_t, t, target="velocity", y=y)
    for hook in hooks:
        hook.remove()
    return words, weights


y = flow.text_encoder.tokenizer([sentences[0]] * 2)
table = "| words that differ, from image to image | " + " | ".join(
    f"behind block {k}" for k in range(1, 1 + len(flow.model.blocks))
)
table += " |\n| --- |" + " ---: |" * len(flow.model.blocks) + "\n"
for time in (0.9, 0.5, 0.1):
    z_t = interpolate(latents[:2], torch.randn(2, 4, 8, 8, generator=seeded(13)), time)
    words, _ = attend(flow, z_t, time, y)
    apart = [((one[0] - one[1]).norm() / one[0].norm()).item() for one in words]
    table += f"| $t = {time}$ | " + " | ".join(f"{one:.0%}" for one in apart) + " |\n"
Markdown(table)

# %% [markdown]
# They do. (Behind the last block nobody reads them any more.) And whom do they look at? Point at a patch or at a word:

# %%
steps = 12
said = [word for word in flow.text_encoder.tokenizer.words_of(y[0]) if word != "<pad>"]
guided, y_one = flow.told([sentences[0]], scale=3.0)
z = torch.randn(1, 4, 8, 8, generator=seeded(14))
states = list(ode_sample(guided, z.shape, steps=steps, y=y_one, z=z))[:-1]
times = [1 - k / steps for k in range(steps)]
pictures, matrices = [], []
for state, time in zip(states, times):
    _, weights = attend(flow, state, time, y_one)
    mean = torch.stack(weights).mean((0, 1, 2))  # of blocks and heads
    matrices.append(mean[: 16 + len(said), : 16 + len(said)])
    pictures.append(
        flow.to_images(guided.predict(state, time, target="x0", y=y_one)).clamp(0, 1)[0]
    )
matrices = torch.stack(matrices)
JointAttentionMap(
    torch.stack(pictures),
    said,
    matrices,
    (4, 4),
    labels=[f"t = {time:.2f}" for time in times],
    token=16 + said.index("red"),
    title="Who takes of whom",
    alt="The guess of a red 3 above a blue 7 in 4 by 4 patches, and what the word red takes of each "
    "patch and of each word.",
)

# %%
patches, of_words = matrices[:, :16], matrices[:, 16:]
table = "| of all that is taken, from words | " + " | ".join(
    f"$t = {times[k]:.2f}$" for k in (0, 4, 8, 11)
)
table += " |\n| --- |" + " ---: |" * 4 + "\n"
for who, rows in (("by a patch", patches), ("by a word", of_words)):
    shares = [rows[k][:, 16:].sum(1).mean().item() for k in (0, 4, 8, 11)]
    table += f"| {who} | " + " | ".join(f"{one:.0%}" for one in shares) + " |\n"
even = len(said) / (16 + len(said))
table += f"| if all were taken alike | " + " | ".join([f"{even:.0%}"] * 4) + " |\n"
Markdown(table)

# %% [markdown]
# A patch takes more of words than their number would give, most of all at the start, when words are all that it can know. A word takes a little more of patches as the picture becomes clear.
#
# **Exercise 3: one way only.** Close the fourth quadrant: patches look at patches and words, words at words alone. (Then the words' stream could be computed once for all steps, were it not for the time in $c$.)


# %%
def one_way(image, text, mask):
    """image [3, B, heads, N, d] and text [3, B, heads, M, d] hold Q, K, V; mask [B, M] is True at
    words. What patches take, [B, heads, N, d], and what words take, [B, heads, M, d]."""
    ...


check("14.joint_attention", one_way)

# %% [markdown]
# ## 5. Times that are wasted
#
# At which times is there something to learn? At $t = 0$ the network sees $z$, clean, and is asked for $\varepsilon - z$. Of $\varepsilon$ it sees nothing, so that the best answer is $-z$: copy the input. At $t = 1$ it sees $\varepsilon$, and nothing of $z$; the best answer is $\varepsilon$ minus the mean of all latents that fit the prompt. Both are easy, say Esser et al. (their section 3.1), and in both cases an error stays
# that nobody can take away: the variance of what is hidden.
#
# How much does copying achieve? Let the network multiply its input by one number for each time. With variances 1 of $z$ and $\varepsilon$ the best number is $\operatorname{Cov}(v, z_t) / \operatorname{Var} z_t$, and it leaves, of each number, the error
#
# $$\operatorname{Var} v - \frac{\operatorname{Cov}(v, z_t)^2}{\operatorname{Var} z_t} = 2 - \frac{(2t - 1)^2}{(1 - t)^2 + t^2} = \frac{1}{(1 - t)^2 + t^2} :$$
#
# 1 at both ends, 2 in the middle. What a network is *for* is the difference between this and its own loss. Look at both, for a network that has been trained for a moment at uniform times, and for the stored one.


# %%
def loss_at(model, x, y, times):
    """The mean squared error of the velocity at each time, with the same noise for all."""
    eps = torch.randn(x.shape, generator=seeded(15))
    with torch.no_grad():
        return [
            (model.predict(interpolate(x, eps, t), t, target="velocity", y=y) - (eps - x))
            .square()
            .mean()
            .item()
            for t in times
        ]


grid = [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98]
train_images, train_captions = scenes(1500, generator=seeded(16))
with torch.no_grad():
    train_latents = flow.autoencoder.to_latent(to_signed(train_images), generator=seeded(17))
torch.manual_seed(0)
young = LatentDiffusion(
    flow.autoencoder,
    MMDiT((4, 8, 8), patch=2, dim=64, depth=2, heads=4, context_dim=64),
    deepcopy(flow.text_encoder).requires_grad_(False),  # reads already, and stays as it is
    path=StraightPath(),
).denoiser
data = train_latents, flow.text_encoder.tokenizer(train_captions)
losses = {}
for steps in (20, 60):
    fit(young, data, steps=steps, batch_size=32, lr=2e-3, schedule="constant")
    losses[f"after {steps} steps"] = loss_at(young, latents[:128], tokens[:128], grid)
losses["stored model"] = loss_at(flow.denoiser, latents[:128], tokens[:128], grid)
hidden = loss_at(flow.denoiser, latents[:128], None, grid)  # as if all prompts were empty
copying = [latents.var().item() / ((1 - t) ** 2 * latents.var().item() + t**2) for t in grid]

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(6.4, 3.0))
axes = figure.subplots()
axes.plot(grid, copying, color=PALETTE["noise"], lw=2, label="copying")
for (name, values), style in zip(losses.items(), (":", "--", "-")):
    axes.plot(grid, values, style, color=PALETTE["model"], label=name)
axes.set(
    title="The loss at each time",
    xlabel="t (0: data, 1: noise)",
    ylabel="mean squared error",
    ylim=(0, None),
)
axes.legend(frameon=False, fontsize=8)
figure.tight_layout()
show_figure(
    figure,
    alt="Four curves over the time. Copying has 1 at both ends and 2 in the middle; the network's loss "
    "falls far below it in the middle, and hardly at the left end.",
)

# %%
table = (
    "| of copying's error is gone | "
    + " | ".join(f"$t = {t}$" for t in grid[::2])
    + " |\n| --- |"
    + " ---: |" * 6
    + "\n"
)
for name, values in {**losses, "stored model, no prompt": hidden}.items():
    gone = [1 - value / plain for value, plain in zip(values, copying)]
    table += f"| {name} | " + " | ".join(f"{one:.0%}" for one in gone[::2]) + " |\n"
Markdown(table)

# %% [markdown]
# At the left end nothing is gained over copying, by however good a network: the loss there is high and stays high, for it is the variance of the noise, which cannot be seen. At the right end all depends on the prompt. A caption of ours says nearly everything of its scene, so that the mean of what fits it is worth a lot, and most of the gain there is gone when the prompt is hidden (the last row). In the middle most is gained
# either way, and first. A uniform draw spends as much on the left end as on the middle.
#
# **Where the loss is high is not where there is most to learn.** So draw $t$ from a density $\pi(t)$ that is high in the middle. Esser et al. try three families, each by a map of a number $u$ that is easy to draw. The density of $t$ is that of $u$, times how much the map squeezes (change of variables, chapter 04):
#
# $$\pi(t) = \pi_u\big(u(t)\big)\, \Big| \frac{\mathrm d u}{\mathrm d t} \Big| .$$
#
# **Logit-normal**: $t = 1 / (1 + e^{-u})$ with $u \sim \mathcal N(m, s^2)$. The inverse is the logit, $u = \log \big( t / (1 - t) \big)$, with the slope $1/t + 1/(1 - t) = 1 / \big( t (1 - t) \big)$:
#
# $$\pi(t) = \frac{1}{s \sqrt{2 \pi}}\, \frac{1}{t (1 - t)}\, \exp \left( - \frac{\big( \log \frac{t}{1 - t} - m \big)^2}{2 s^2} \right) .$$
#
# It is 0 at both ends. $m$ moves it, above 0 towards the noise; $s$ makes it wide.
#
# **Mode**, with heavy tails: $t = 1 - u - s \big( \cos^2 \frac{\pi u}{2} - 1 + u \big)$ with $u$ uniform. Here $s$ sets how high the middle is. With $2 \cos a \sin a = \sin 2a$,
#
# $$\pi(t) = \Big| \frac{\mathrm d t}{\mathrm d u} \Big|^{-1} = \frac{1}{\big| 1 + s \big( 1 - \frac \pi 2 \sin \pi u \big) \big|} \quad \text{at the } u \text{ that gives } t .$$
#
# At the ends $\sin \pi u = 0$ and the density is $1 / (1 + s)$, not 0. In the middle it is $1 / \big(1 - s (\frac \pi 2 - 1)\big)$. The slope must not change its sign: $1 - s (\frac \pi 2 - 1) \ge 0$, or $s \le 2 / (\pi - 2) = 1.75$, and at the ends $1 + s \ge 0$, or $s \ge -1$.
#
# **CosMap**: which $t$ has the log signal-to-noise ratio of the cosine schedule at $u$ (chapter 06)? There the noise's share is $\sin \frac{\pi u}{2}$ and the data's $\cos \frac{\pi u}{2}$, so $t / (1 - t) = \tan \frac{\pi u}{2}$, and $u = \frac 2 \pi \arctan \frac{t}{1 - t}$. The slope of $t / (1 - t)$ is $1 / (1 - t)^2$, and that of the arctangent at $t / (1 - t)$ is 1 over one plus the square of it:
#
# $$\pi(t) = \frac 2 \pi\, \frac{1}{1 + \frac{t^2}{(1 - t)^2}}\, \frac{1}{(1 - t)^2} = \frac{2}{\pi \big( 1 - 2t + 2t^2 \big)} .$$
#
# That is $2 / \pi$ times the curve of copying: twice as many draws in the middle as at the ends.

# %%
show_source(
    [
        logit_normal_times,
        logit_normal_density,
        mode_times,
        mode_density,
        cosmap_times,
        cosmap_density,
    ]
)

# %%
from scipy.stats import chi2

families = {
    "logit-normal (0, 1)": (logit_normal_times(20_000, generator=seeded(18)), logit_normal_density),
    "logit-normal (0.5, 0.6)": (
        logit_normal_times(20_000, 0.5, 0.6, generator=seeded(19)),
        lambda t: logit_normal_density(t, 0.5, 0.6),
    ),
    "mode (1.29)": (mode_times(20_000, generator=seeded(20)), mode_density),
    "cosmap": (cosmap_times(20_000, generator=seeded(21)), cosmap_density),
}
fine = (
    torch.arange(20_000, dtype=torch.float64) + 0.5
) / 20_000  # middles of 1,000 cells in each of 20
figure = Figure(figsize=(9.2, 2.3))
for axes, (name, (drawn, density)) in zip(figure.subplots(1, 4, sharey=True), families.items()):
    expected = (
        density(fine).reshape(20, 1000).mean(1) * 1000
    )  # of 20,000 draws, in a 20th of [0, 1]
    seen = torch.histc(drawn.double(), 20, 0, 1)
    enough = expected > 5
    statistic = ((seen - expected)[enough] ** 2 / expected[enough]).sum().item()
    p_value = chi2.sf(statistic, int(enough.sum()) - 1)
    print(f"{name}: mass {density(fine).mean():.3f}; χ² sees no difference: {p_value > 0.01}")
    axes.bar((torch.arange(20) + 0.5) / 20, seen / 1000, 0.05, color=PALETTE["noise"], alpha=0.5)
    axes.plot(fine, density(fine), color=PALETTE["model"])
    axes.set(title=name, xlabel="t", ylim=(0, 4.2))
figure.tight_layout()
show_figure(
    figure,
    alt="Four densities over the time, each on the histogram of its draws: two bells that are 0 at the ends; a sharp peak in the middle, 0.44 at the ends; and a flat curve, 1.3 in the middle and 0.64 at the ends.",
)

# %% [markdown]
# **The same as a weight.** A mean over times of density $\pi$ is a mean over uniform times, weighted:
#
# $$\mathbb E_{t \sim \pi}\, \ell(t) = \int \pi(t)\, \ell(t)\, \mathrm d t = \mathbb E_{t \text{ uniform}}\; \pi(t)\, \ell(t) .$$
#
# So the best network is the same with any density, if it can be everything at each time; what changes is for what a finite one is used, and how noisy its gradients are. Papers write losses of $\varepsilon$ or of $x_0$, here $z$. As $z_t$ is given, an error in the guess of $\varepsilon$ goes with one of $z$: from $z = (z_t - t \varepsilon) / (1 - t)$ follows $v = \varepsilon - z = (\varepsilon - z_t) / (1 - t)$, and from $\varepsilon = (z_t - (1 - t) z) / t$
# follows $v = (z_t - z) / t$. A squared error of $v$ is one of $\varepsilon$ over $(1 - t)^2$, or one of $z$ over $t^2$:
#
# $$w_v(t) = \pi(t), \qquad w_\varepsilon(t) = \frac{\pi(t)}{(1 - t)^2}, \qquad w_z(t) = \frac{\pi(t)}{t^2} .$$
#
# (Esser et al. write the loss as $-\frac 1 2 w\, \lambda' \| \dots \|^2$ of $\varepsilon$. With $\lambda' = -2 / \big( t (1 - t) \big)$ the weight is $w = \frac{t}{1 - t} \pi(t)$, their equation 18: the same.)

# %%
t = torch.linspace(0.05, 0.95, 7)
z_t, eps = (1 - t[:, None]) * 0.3 + t[:, None] * 1.2, torch.full((7, 1), 1.2)
wrong = torch.full((7, 1), 0.1)  # a guess of the noise that is off by 0.1, and of z by as much
off_by_eps = ((eps + wrong - z_t) / (1 - t[:, None]) - (1.2 - 0.3)).square() / 0.1**2
off_by_z = ((z_t - (0.3 + wrong)) / t[:, None] - (1.2 - 0.3)).square() / 0.1**2
print("1 / (1 − t)²:", torch.allclose(off_by_eps[:, 0], 1 / (1 - t) ** 2, rtol=1e-3))
print("1 / t²:      ", torch.allclose(off_by_z[:, 0], 1 / t**2, rtol=1e-3))
x = latents.repeat(4, 1, 1, 1)
told = tokens.repeat(4, 1)
eps = torch.randn(x.shape, generator=seeded(22))


def each_loss(t):
    """The squared error of every example, each at a time of its own."""
    with torch.no_grad():
        v = flow.denoiser.predict(interpolate(x, eps, t), t, target="velocity", y=told)
    return (v - (eps - x)).square().mean((1, 2, 3))


drawn = each_loss(logit_normal_times(len(x), generator=seeded(23)))
uniform = torch.rand(len(x), generator=seeded(24)).clamp(1e-3, 1 - 1e-3)
weighed = logit_normal_density(uniform) * each_loss(uniform)
error = math.sqrt((drawn.var() + weighed.var()) / len(x))
print(
    "two ways to one loss, within 3 standard errors:",
    abs(drawn.mean() - weighed.mean()).item() < 3 * error,
)
print(f"the weights make the second {weighed.var() / drawn.var():.0f} times as noisy")

# %%
study = load_study("time_samplings")["metrics"]
kinds = {
    "uniform": {"sampling": "uniform"},
    "logit-normal (0, 1)": {"sampling": "logit-normal", "m": 0.0, "s": 1.0},
    "logit-normal (0.5, 0.6)": {"sampling": "logit-normal", "m": 0.5, "s": 0.6},
    "mode (1.29)": {"sampling": "mode", "scale": 1.29},
    "cosmap": {"sampling": "cosmap"},
}
quality = {(row["sampling"], row["steps"]): row for row in study["mean quality by steps"]}
measured = [
    {
        "name": name,
        **kind,
        "quality": 100 * quality[name, 8]["all"],
        "error": 100 * quality[name, 8]["standard error of all"],
    }
    for name, kind in kinds.items()
]
by_time = [row for row in study["mean loss by time"] if row["sampling"] == "uniform"]
TimeSampling(
    [row["t"] for row in by_time],
    [row["loss"] for row in by_time],
    measured,
    quality="images without a fault, of 100, in 8 steps",
    title="Where to train",
    alt="The density of the times of training, to be dragged by its mean and width; beside it the loss at each time, alone and weighed.",
)

# %% [markdown]
# Drag $m$ and $s$, change the family, and look which measured training is nearest. One small MM-DiT, on latents of scenes, was trained with each of five samplings of times from three starts, 75 seconds of processor time each:

# %%
counts = sorted({row["steps"] for row in study["mean quality by steps"]})
table = "| times | " + " | ".join(f"without a fault, {k} steps" for k in counts)
table += " | " + " | ".join(f"distance, {k} steps" for k in counts) + " |\n"
table += "| --- |" + " ---: |" * 2 * len(counts) + "\n"
for name in kinds:
    cells = [
        f"{quality[name, k]['all']:.1%} ± {quality[name, k]['standard error of all']:.1%}"
        for k in counts
    ]
    cells += [
        f"{quality[name, k]['distance']:.3f} ± {quality[name, k]['standard error of distance']:.3f}"
        for k in counts
    ]
    table += f"| {name} | " + " | ".join(cells) + " |\n"
best = {k: max(kinds, key=lambda name: quality[name, k]["all"]) for k in counts}
plain = quality["uniform", counts[-1]]
top = quality[best[counts[-1]], counts[-1]]
spread = math.hypot(plain["standard error of all"], top["standard error of all"])
table += "\nFirst at " + ", ".join(f"{k} steps: {name}" for k, name in best.items()) + ". "
table += (
    f"At {counts[-1]} steps the first is ahead of uniform times by {top['all'] - plain['all']:.1%}"
)
table += f", {(top['all'] - plain['all']) / spread:.1f} standard errors of that difference. "
middle = "logit-normal (0, 1)"
nearer = all(quality[middle, k]["distance"] < quality["uniform", k]["distance"] for k in counts)
gains = [quality[middle, k]["all"] - quality["uniform", k]["all"] for k in counts]
table += f"The {middle} against uniform times: a smaller distance at all steps: {nearer}; "
table += f"images without a fault: {min(gains):+.1%} to {max(gains):+.1%}."
Markdown(table)

# %% [markdown]
# (± is the standard error of three starts.) The times that come first, logit-normal (0.5, 0.6), lie to the side of the noise and are narrow. In SD3's table 1 (at the end of this page) the same row is first of all with 50 steps, and far behind with 5; here it is ahead with 4 steps already. The logit-normal in the middle, their choice, is ahead of uniform times here in the distance alone.
#
# **Exercise 4: another map.** Times are made as $t = \frac 1 2 + \frac 1 \pi \arctan u$, $u \sim \mathcal N(m, s^2)$. What is their density?


# %%
def density(t, m, s):
    """Times t [n] between 0 and 1: the density of 1/2 + arctan(u) / π at each."""
    ...


check("14.logit_normal_density", density)

# %% [markdown]
# **Exercise 5: the weight.** Somebody trains a network that guesses $x_0$, at times of the density $q$. Which weight makes of that the loss of velocities at times of the density $p$? (In its letters $x_0$ is our $z$.)


# %%
def loss_weight(t, p, q):
    """Times t [n], and both densities there, [n] each: the weights [n] of the errors of x_0."""
    ...


check("14.loss_weight", loss_weight)

# %% [markdown]
# ## 6. Positions at another size
#
# A transformer takes any number of tokens. Ask our model, which has seen 4 × 4 patches only, for an image twice as wide: 4 × 8 patches. Columns 4 to 7 have positions that it never met.


# %%
def wide(prompts, stretch, seed):
    """Images [B, 3, 32, 64] of prompts, from latents that are twice as wide as those of training."""
    guided, y = flow.told(prompts, scale=3.0)
    z = torch.randn(len(prompts), 4, 8, 16, generator=seeded(seed))
    flow.model.stretch = stretch
    with torch.no_grad():
        for k in range(12, 0, -1):  # twelve steps of Euler's method, from t = 1 to 0
            z = z - guided.predict(z, k / 12, target="velocity", y=y) / 12
        decoded = flow.autoencoder.decoder(z / flow.autoencoder.latent_scale)
    flow.model.stretch = True
    return to_unit(decoded).clamp(0, 1)


asked = [
    f"a bold {colour} {digit} {place}"
    for colour, digit in (("red", 3), ("blue", 0), ("green", 7))
    for place in ("on the left", "on the right")
]
rows = {"counted on": wide(asked, False, 25), "stretched": wide(asked, True, 25)}
show_figure(
    image_grid(torch.cat(list(rows.values())), columns=6, titles=list(rows), size=0.9),
    alt="Two rows of six images twice as wide as high, for digits on the left and on the right: the "
    "upper row with positions that go on beyond those of training, the lower with stretched ones.",
)


# %%
def side(images):
    """Where most of the light is: the centre of each image's brightness, from 0 (left) to 1."""
    light = images.mean((1, 2))
    return (light * torch.linspace(0, 1, 64)).sum(1) / light.sum(1)


table = "| positions | light at, *on the left* | *on the right* |\n| --- | ---: | ---: |\n"
for name, stretch in (("counted on", False), ("stretched", True)):
    places = []
    for place in ("on the left", "on the right"):
        drawn = wide([f"a bold {colour} 0 {place}" for colour in COLOURS], stretch, 26)
        places.append(side(drawn).mean().item())
    table += f"| {name} | {places[0]:.2f} | {places[1]:.2f} |\n"
Markdown(table)

# %% [markdown]
# (0 is the left edge, 1 the right one.) The cure is one line: divide the new grid's places by how much larger it is, and embed *these* in sines and cosines. Eight columns then stand at 0, 0.5, … 3.5, between those that are known, and only the last by half a place beyond. In `sincos_positions` it is `trained`. It mends the *place*, which is where the prompt says again, and not the *shape*: look at the lower row, where strokes are doubled. Neighbours half a step apart are new to this model, too, and SD3 is trained further at each size.

# %%
long = sincos_positions(4, 8, 96)
stretched = sincos_positions(4, 8, 96, trained=(4, 4))
known = sincos_positions(4, 4, 96)
for name, there in (("counted on", long), ("stretched", stretched)):
    nearest = torch.cdist(there, known).min(1).values
    print(f"{name}: the farthest place is {nearest.max():.1f} from one that training showed")

# %% [markdown]
# SD3 is trained on 256 × 256 pixels first, then on larger images of many shapes. It takes the same idea, and a crop around the middle: a grid that is stretched to the new resolution and long enough for the widest image, of which each image takes the central part (their section 5.3.2).
#
# ## 7. Sixteen channels
#
# Whatever a latent does not hold the decoder must invent. In chapter 12 that was $f$; it is the number of channels as well. Three autoencoders with $f = 4$, trained alike, and on each a model, for the same time:

# %%
study = load_study("latent_channels")["metrics"]
table = "| channels | numbers | bits an image | dB | decoded, without a fault | "
ends = {row["channels"]: row for row in study["by processor time"]}  # the last look of each
table += "drawn by a model, without a fault | distance |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
for row in study["reconstructions"]:
    drawn = ends[row["channels"]]
    table += f"| {row['channels']} | {row['numbers of the latent']:,.0f} | {row['rate, bits an image']:,.0f} "
    table += f"| {row['peak signal to noise, dB']:.1f} | {row['all']:.1%} | {drawn['all']:.1%} | {drawn['distance']:.3f} |\n"
sizes = [row["peak signal to noise, dB"] for row in study["reconstructions"]]
best = max(ends.values(), key=lambda row: row["all"])["channels"]
table += f"\nMore channels, fewer errors of the decoder: {sizes == sorted(sizes)}. "
table += f"The best model, in this time, has {best} channels."
Markdown(table)

# %% [markdown]
# Read both halves. The model's half is plain: to learn a distribution of more numbers, with the same network in the same time, is harder. "Predicting latents with higher $d$ is a more difficult task", say Esser et al. of the number of channels, "and thus models with increased capacity should be able to perform better"; in their figure 10 the 16 channels need a depth of 22 to draw level with 8.
# (One start each: small differences say nothing.) The decoder's half differs from theirs. In SD3's table 3 (below) it gets better with each doubling; ours hold more bits with each doubling, and have half a decibel less. Ours were trained for 1,500 steps, all with one weight of the KL term. Whether longer training or a smaller weight turns this we did not find out. SD3 took 16 channels, for the sake of models that
# were to be larger: the channels are a ceiling, and the model decides how near one comes to it.
#
# ## 8. Logits that grow: QK-normalization
#
# The logit of a query and a key is a product of two things that are learned. Nothing bounds it: if both matrices grow by a factor, logits grow by its square. Two things happen then, and both are bad. The softmax gives everything to one token, and no gradient comes back: its entropy collapses. And half precision, in which large models are trained, ends: `float16` at 65,504.

# %%
torch.manual_seed(2)
layers = [JointAttention(64, 2, qk_norm=norm, streams=1) for norm in (False, True)]
layers[1].qkv.load_state_dict(layers[0].qkv.state_dict())  # the same weights
H = torch.randn(1, 16, 64, generator=seeded(27))


@torch.no_grad()
def measured_at(layer, factor):
    """Queries' and keys' matrices times a factor: largest logit, entropy, largest q · k as float16."""
    layer = deepcopy(layer)
    layer.qkv[0].weight[:128] *= factor
    layer.qkv[0].bias[:128] *= factor
    weights, (q, k, _) = layer.weights(H), layer.heads_of((H,))
    entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1).mean() / math.log(16)
    return layer.logits(H).abs().max(), entropy, (q @ k.mT).half().abs().max().item()


table = "| $W^Q$, $W^K$ times | largest logit | entropy | largest $q \\cdot k$ as `float16` "
table += "| with the norm: logit | entropy | $q \\cdot k$ |\n"
table += "| ---: |" + " ---: |" * 6 + "\n"
for factor in (1, 4, 16, 64, 256):
    table += f"| {factor} "
    for layer in layers:
        logit, entropy, product = measured_at(layer, factor)
        table += f"| {logit:,.1f} | {entropy:.0%} | {product:,.0f} "
    table += "|\n"
Markdown(table)

# %% [markdown]
# (The entropy is the mean over queries, as a share of that of looking at all tokens alike, $\log 16$.) A factor of 16 makes logits 256 times as large; nearly nothing is left of the entropy. With 256 the largest product is infinite in half precision, and a softmax of that is not a number. With the norm all rows are the same.
#
# **The cure**: divide each query and each key by its root mean square, and multiply by learned factors $g$, $g'$, one for each of the $d$ numbers (RMSNorm). A vector of root mean square 1 has the length $\sqrt d$. So, by Cauchy and Schwarz,
#
# $$\left| \frac{q \cdot k}{\sqrt d} \right| \;\le\; \frac{1}{\sqrt d}\, \max_i | g_i\, g'_i |\; \sqrt d\, \sqrt d \;=\; \sqrt d\; \max_i | g_i\, g'_i | ,$$
#
# however large the matrices are. Both streams have it, since one softmax reads both.

# %%
torch.manual_seed(3)
layer = JointAttention(64, 4)
with torch.no_grad():
    for stream in range(2):
        layer.qkv[stream].weight *= 1000
        layer.norm_q[stream].weight.uniform_(-2, 2)
        layer.norm_k[stream].weight.uniform_(-2, 2)
    g = torch.stack([n.weight for n in layer.norm_q]).abs()  # [2, d]
    g_key = torch.stack([n.weight for n in layer.norm_k]).abs()
    bound = math.sqrt(16) * (g[:, None] * g_key[None]).amax()
    logits = layer.logits(
        torch.randn(8, 20, 64, generator=seeded(28)), torch.randn(8, 9, 64, generator=seeded(29))
    )
print("no logit above the bound, with matrices × 1000:", (logits.abs().max() <= bound).item())
print("the bound is reached to more than a third:", (logits.abs().max() > bound / 3).item())

# %% [markdown]
# **Does it happen in training?** Esser et al. saw it in their last blocks, at high resolution, in mixed precision (their section 5.3.2 and figure 5): the loss diverges. Their mixed precision is that of `bfloat16`, which reaches as far as `float32`, so that nothing overflows there; but it keeps 8 binary digits, and the logits next to 1,000 are 4 apart. Small networks need a high learning rate for it:


# %%
def grown(qk_norm, steps=60, lr=0.03):
    """The largest logit of a DiT of the digits, at each step of a training that is too fast."""
    torch.manual_seed(0)
    net = MMDiT((1, 8, 8), patch=2, dim=32, depth=2, heads=2, n_classes=10, qk_norm=qk_norm)
    model, seen = FlowMatching(net), []
    hooks = [
        block.attention.register_forward_pre_hook(
            lambda layer, args: seen.append(layer.logits(*args).abs().max().item())
        )
        for block in net.blocks
    ]
    fit(
        model,
        (to_signed(digits), labels),
        steps=steps,
        batch_size=64,
        lr=lr,
        clip=None,
        schedule="constant",
    )
    for hook in hooks:
        hook.remove()
    return torch.tensor(seen).reshape(steps, -1).amax(1)


with_norm, without = grown(True), grown(False)
figure = Figure(figsize=(5.6, 2.6))
axes = figure.subplots()
axes.semilogy(without, color=PALETTE["error"], label="without QK-norm")
axes.semilogy(with_norm, color=PALETTE["model"], label="with QK-norm")
axes.set(
    title="The largest logit in training, at a rate that is too high",
    xlabel="step",
    ylabel="largest logit",
)
axes.minorticks_off()
axes.legend(frameon=False)
figure.tight_layout()
print(
    "without the norm it ends more than 5 times as high:",
    (without[-10:].max() > 5 * with_norm[-10:].max()).item(),
)
show_figure(
    figure,
    alt="Two curves over the steps of training: the largest logit without normalization grows many times higher than with it.",
)

# %% [markdown]
# **Exercise 6: break it on purpose.** Find two factors for queries and keys. With `dead` each product $q \cdot k$ still fits in `float16`, and yet the mean entropy is below 5 % of $\log N$, so that nearly nothing is learned. With `overflow` some product does not fit, though all numbers of $q$ and $k$ do.


# %%
def two_factors(q, k):
    """q and k [B, heads, N, d]: the factor `dead` and the factor `overflow`, each for both."""
    ...


check("14.break_qk_norm", two_factors)

# %% [markdown]
# ## 9. More pixels, later times
#
# Take an image, and the same image with each pixel repeated 4 × 4 times. Both with noise of the same $t$. Does the noise hide as much? Drag the larger one's time until both look equally destroyed:

# %%
SameNoise(
    test_images[2],
    sizes=(32, 128),
    t=0.6,
    title="Same noise, other size",
    alt="One scene at 32 by 32 and at 128 by 128 pixels, with noise of the same time: in the larger one more can be seen.",
)

# %% [markdown]
# The eye averages neighbours, and so will a network. How certain is one then? Take the plainest image: $N_1$ pixels of one grey $\mu$. Each pixel of $z_t$ is $(1 - t)\, \mu + t\, \varepsilon_i$. Their mean, divided by $1 - t$, is the best guess of $\mu$; the mean of $N_1$ noises has the standard deviation $1 / \sqrt{N_1}$, and so the guess is off by
#
# $$\frac{t}{1 - t}\, \frac{1}{\sqrt{N_1}} .$$
#
# Which time $t_2$ of an image of $N_2$ pixels leaves one as uncertain as $t_1$ of $N_1$?
#
# $$\frac{t_2}{1 - t_2} = \sqrt{\frac{N_2}{N_1}}\; \frac{t_1}{1 - t_1} \qquad \Longleftrightarrow \qquad t_2 = \frac{\sqrt{N_2 / N_1}\; t_1}{1 + \big( \sqrt{N_2 / N_1} - 1 \big)\, t_1} .$$
#
# (Solve $t / (1 - t) = a$ by $t = a / (1 + a)$, and multiply above and below by $1 - t_1$.) Both ends stay where they are. In the log signal-to-noise ratio it is one number, at all times: $\lambda(t_2) = \lambda(t_1) - \log (N_2 / N_1)$.

# %%
show_source(shift_times)

# %%
table = "| pixels | $t$ | off by, formula | off by, simulated |\n| ---: | ---: | ---: | ---: |\n"
for side, t in ((8, 0.5), (32, 0.5), (32, shift_times(torch.tensor(0.5), 16.0).item())):
    grey = 0.3
    seen = (1 - t) * grey + t * torch.randn(4000, side * side, generator=seeded(30))
    off = (seen.mean(1) / (1 - t) - grey).std().item()
    table += f"| {side} × {side} | {t:.2f} | {t / (1 - t) / side:.3f} | {off:.3f} |\n"
Markdown(table)

# %%
grid_t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
log_snr = lambda t: 2 * torch.log((1 - t) / t)
moved = log_snr(grid_t) - log_snr(shift_times(grid_t, 16.0))
print(
    "the log-SNR moves by log 16 at all times:",
    torch.allclose(moved, torch.tensor(math.log(16)).double()),
)
shifted = shift_times(logit_normal_times(20_000, generator=seeded(31)), 16.0)
print(
    "shifted logit-normal times have the mean log 4 = 1.39:", f"{torch.logit(shifted).mean():.2f}"
)

# %% [markdown]
# In training the times are shifted, and in sampling as well, so that more of the steps lie where there is noise. No image is of one grey, and a network knows more than its mean. So Esser et al. took the formula for its *shape* only, and asked people which shift $\sqrt{N_2 / N_1}$ they liked best: clearly those above 1.5, with less difference among these. They took 3.0 for 1024 × 1024 pixels (their figure 6).
#
# **Exercise 7: from one size to another.** Your times are shifted already, for $r$ times as many pixels. Now you need them for $q$ times.


# %%
def reshift(t, r, q):
    """Times t [n], shifted for r times the pixels of the base: those for q times the base's."""
    ...


check("14.shift_times", reshift)

# %% [markdown]
# ## 10. Three readers, each of which may be missing
#
# SD3 has three text encoders: two of CLIP, and T5, a language model whose encoder has 4.7 billion weights and needs 19 GB (their table 7) for nothing but reading a prompt. In training each of the three was replaced by zeros in 46.4 % of the steps (their appendix B.3; section 5.3.3 says 46.3), *independently*. So the model met each subset. All three were missing in $0.464^3$ of them:

# %%
print(f"no text at all: {0.464**3:.1%} of the steps, which guidance needs")
print(
    f"all three: {(1 - 0.464) ** 3:.1%};  without T5, with at least one CLIP: {0.464 * (1 - 0.464**2):.1%}"
)

# %% [markdown]
# Hence one can leave T5 away, where memory is short: asked which images follow the prompt better, people prefer those without T5 in 46 % of the pairs, those of *written text* in 38 % (their figure 7).
#
# Ours has one reader, but two ways in: the tokens, and their mean in $c$. In training the whole sentence was hidden, one time in ten; never one way alone. Cut one now:


# %%
def without(layer, prompts, seed):
    """Images of prompts where a layer of the network says nothing."""
    hook = layer.register_forward_hook(lambda layer, args, out: torch.zeros_like(out))
    z = torch.randn(len(prompts), 4, 8, 8, generator=seeded(seed))
    try:
        return flow.sample(prompts, scale=3.0, z=z)
    finally:
        hook.remove()


asked = test_captions[:64]
noise = torch.randn(64, 4, 8, 8, generator=seeded(32))
drawn = {
    "all": flow.sample(asked, scale=3.0, z=noise),
    "tokens alone": without(flow.model.pooled, asked, 32),
    "the mean alone": without(flow.model.words, asked, 32),
    "no prompt": flow.sample([""] * 64, scale=1.0, z=noise),
}
table = "| what the network is told | place | digit | colour | without a fault |\n| --- | ---: | ---: | ---: | ---: |\n"
for name, images in drawn.items():
    shares = judge.fidelity(images, asked)
    table += (
        f"| {name} | "
        + " | ".join(f"{shares[k]:.0%}" for k in ("layout", "digit", "colour", "all"))
        + " |\n"
    )
show_figure(
    image_grid(
        torch.cat([images[:8] for images in drawn.values()]),
        columns=8,
        titles=list(drawn),
        size=0.7,
    ),
    alt="Four rows of eight images: with the whole prompt, with its tokens alone, with their mean alone, and with no prompt.",
)

# %%
Markdown(table)

# %% [markdown]
# With the tokens alone places and colours are still mostly right, and digits suffer; with the mean alone nearly all is lost, although the mean is made of the same vectors. No prompt at all, which training did show, gives scenes again, of whatever comes. What may be missing in use must have been missing in training, and each part by itself.
#
# ## How good is it?
#
# **U-Net against MM-DiT**, with as many weights, the same loss, latents, captions, batches, learning rate and sampler, and the same processor time. One start each; the shares are of 256 captions:

# %%
stored = load_study("unet_or_mmdit")
study, seconds = stored["metrics"], stored["budget"]
rows = {
    name: [row for row in study["by processor time"] if row["model"] == name]
    for name in ("U-Net", "MM-DiT")
}
table = "| processor time | U-Net: steps | without a fault | distance | MM-DiT: steps | without a fault | distance |\n"
table += "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
for own, other in zip(rows["U-Net"], rows["MM-DiT"]):
    table += f"| {own['seconds']:.0f} s "
    for row in (own, other):
        table += f"| {row['steps']:,} | {row['all']:.0%} | {row['distance']:.3f} "
    table += "|\n"
first, second = rows["U-Net"][-1], rows["MM-DiT"][-1]
like = min(rows["MM-DiT"], key=lambda row: abs(row["steps"] - first["steps"]))  # as many steps
ahead = "MM-DiT" if second["all"] > first["all"] else "U-Net"
table += (
    f"\nAt the end the {ahead} is ahead: {max(first['all'], second['all']):.0%} without a fault "
)
table += f"against {min(first['all'], second['all']):.0%}. In the same time the MM-DiT takes "
table += (
    f"{second['steps'] / first['steps']:.1f} times as many steps. After about as many steps as "
)
table += (
    f"the U-Net's {first['steps']:,}, with {first['all']:.0%}, namely {like['steps']:,}, it has "
)
table += f"{like['all']:.0%}."
cost = {row["model"]: row["multiply-adds of a call"] / 1e6 for row in study["models"]}
table += " A call costs " + ", ".join(f"{n:.0f} million ({name})" for name, n in cost.items())
table += " multiply-adds."
Markdown(table)

# %% [markdown]
# So two things are mixed in a comparison by time: how much a network learns in a step, and how many steps it can take. At equal numbers of steps the two are much closer than at equal time; the greater part of the lead is that the MM-DiT's step is cheaper. (A convolution uses each weight at every place of the latent, a linear layer once for each token, and $p = 2$ makes a quarter as many tokens as places.) That is at this size, on this
# processor, and with the learning rate of the MM-DiT's own recipe.
#
# **With MNIST's digits**, 60,000 of them in place of 1,438. The model `sd3_mnist_scenes` is told the sentences from the top of the page, each with eight noises, guided (scale 3) in 12 steps:

# %%
mnist = load_pretrained("sd3_mnist_scenes")
z = torch.randn(8, 4, 8, 8, generator=seeded(33))
drawn = [mnist.sample([said] * 8, scale=3.0, steps=12, z=z) for said in sentences]
show_figure(
    image_grid(
        torch.cat(drawn), columns=8, titles=[fill(said, 18) for said in sentences], size=0.7
    ),
    alt="Four rows of eight images, a row for each sentence from the top of the page: slanted and upright, as MNIST's digits are, and each in its place and colour.",
)

# %% jupyter={"source_hidden": true}
names = "sd3_scenes", "sd3_mnist_scenes"
cards = [load_card(name)["metrics"] for name in names]
lines = {
    f"scale 3, {pair[0]['steps']} steps": pair
    for pair in zip(*(card["by steps"] for card in cards))
}
lines["scale 1, 12 steps"] = [
    next(row for row in card["fidelity"] if row["scale"] == 1) for card in cards
]
lines["real test scenes"] = [card["real scenes"][0] for card in cards]
table = (
    "| of 500 scenes | digits: without a fault | distance | MNIST: without a fault | distance |\n"
)
table += "| --- | ---: | ---: | ---: | ---: |\n"
for name, pair in lines.items():
    table += (
        f"| {name} " + "".join(f"| {x['all']:.1%} | {x['distance']:.3f} " for x in pair) + "|\n"
    )
real = cards[1]["real scenes"][0]
table += f"\nOf MNIST's real scenes the judge reads {real['digit']:.1%} of the digits rightly, "
table += f"{real['colour']:.1%} of the colours, and of thin and bold {real['weight']:.1%}. "
sizes = [card["parameters of the parts"][0]["parameters"] for card in cards]
table += f"The transformers have {sizes[0]:,} and {sizes[1]:,} weights."
Markdown(table)

# %% [markdown]
# Each source has an autoencoder and a judge of its own, and the distances are in its judge's features: compare within a column. Real scenes are what their captions say, so what they lack of 100 % is the judge's fault, or the writer's; on MNIST it is nearly always the digit. With guidance both models are *above* the real scenes. That is no aim reached: what they draw is easier to read than what people write, and by the distance further from what people write than what is drawn without guidance (scale 1), where both are below. More than 8 steps bring nothing.
#
# Published:
#
# | | | | source |
# | --- | --- | ---: | --- |
# | times, mean rank of 61 formulations in 24 settings (six of the rows) | rf/lognorm(0.00, 1.00), first | **1.54** (5 steps: 1.25; 50 steps: 1.50) | Esser et al. 2024, table 1 |
# | | rf/lognorm(0.50, 0.60) | 2.71 (8.50; 1.00) | the same |
# | | rf/mode(1.29) | 2.75 (3.25; 3.00) | the same |
# | | eps/linear, as in Stable Diffusion 1.5 | 2.88 (4.25; 2.75) | the same |
# | | rf/cosmap | 4.13 (3.75; 4.00) | the same |
# | | rf, uniform times | 5.67 (6.50; 5.75) | the same |
# | 25 steps, FID on ImageNet and CC12M | rf, uniform | 49.70 and 94.90 | table 2 |
# | | rf/lognorm(0.00, 1.00) | 45.78 and 89.91 | the same |
# | autoencoders with $f = 8$: FID, PSNR | 4 channels | 2.41, 25.12 dB | table 3 |
# | | 8 channels | 1.56, 26.40 dB | the same |
# | | 16 channels | **1.06, 28.62 dB** | the same |
# | GenEval, overall | Stable Diffusion 1.5 | 0.43 | table 5 |
# | | SDXL | 0.55 | the same |
# | | DALL·E 3 | 0.67 | the same |
# | | SD3, depth 38, 512² | 0.68 | the same |
# | | SD3, depth 38, 1024², after DPO | **0.74** | the same |
# | ImageNet 256², classes, guided: FID | LDM-4-G, a U-Net (chapter 12) | 3.60 | Rombach et al. 2022 |
# | | DiT-XL/2 | **2.27** | Peebles and Xie 2022, abstract |
#
# How to read it:
#
# - **Ranks are not qualities.** Table 1 says how often a formulation was ahead, not by how much; that stands in table 2, for 25 steps, and is less than a tenth of the FID.
# - **Uniform straight ways lose to the old schedule** (5.67 against 2.88). What won is the straight way *with* times in the middle; the authors say so.
# - **0.74 is the last of many steps**: size, captions of which half were written by a model (alone from 0.43 to 0.50, table 4, at depth 15), resolution, and a training by preferences (direct preference optimization, DPO). Of these prompts for two things 94 % show both; of a position 33 % are right, which is less than without DPO at 512² (40 %).
#
# ## What to take away
#
# - A transformer needs no grid: patches, a vector for each place, one kind of block. AdaLN-zero lets the time modulate it, and starts as the identity.
# - Joint attention is attention over patches and words together, with weights for each. Words may learn what is being drawn.
# - At the clean end of the straight way the best answer is a copy, and nothing is to be learned; at the noisy end it is the mean of what fits the prompt, which a caption that says much makes worth a lot. Draw the times away from the clean end; that is a weight $\pi(t)$, without its noise.
# - Stretch positions for another size. Normalize queries and keys, and no logit is above $\sqrt d \max |g g'|$.
# - At the same $t$ an image of twice the sides is half as uncertain: multiply the odds $t / (1 - t)$ by $\sqrt{N_2 / N_1}$.
# - More channels make the task harder; in SD3's table they raise the ceiling, in ours they did not. What may be missing in use must be missing in training.
#
# **What does not work well.** All of it is measured on scenes of 32 pixels, where a latent has 16 tokens: a transformer's strength, that anything looks at anything, has little to do there. Its cost grows with the square of the tokens, and the next chapter is about that square.
#
# **What came after.**
#
# - *Two streams first, one later*, and positions by rotation (RoPE): FLUX.1 (Black Forest Labs 2024, [code](https://github.com/black-forest-labs/flux)).
# - *A second attention in the first blocks*, at 2.5 billion weights: Stable Diffusion 3.5 Medium, MM-DiT-X (2024, [model card](https://huggingface.co/stabilityai/stable-diffusion-3.5-medium)).
# - *Few steps*: distillation with an adversary in latent space (Sauer et al. 2024, [arXiv:2403.12015](https://arxiv.org/abs/2403.12015)).
#
# **Next:** attention itself, exact, without ever writing down the table of comparisons.

# %% [markdown]
# [← 13 · Rectified flow](13_rectified_flow.ipynb) | [Contents](../README.md#chapters) | [15 · FlashAttention →](15_flash_attention.ipynb)
