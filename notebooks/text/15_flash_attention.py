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
# [← 14 · Stable Diffusion 3](14_sd3.ipynb) | [Contents](../README.md#chapters) | [16 · Scaling out →](16_scaling_out.ipynb)

# %% [markdown]
# # 15 · FlashAttention
#
# **Attention compares everything with everything. Compute it exactly, forward and backward, without ever writing the table of
# comparisons down.**
#
# | | |
# | --- | --- |
# | You need | matrix products and the chain rule; chapter 01: a model that predicts one pixel after the other. Attention itself is taught here; nothing of chapters 12 to 14 is needed |
# | Time | 50 minutes to read, two hours with the exercises |
# | The short way | 30 minutes: sections 1 to 7 without what is called a check, the boxed formula of section 10, *How good is it?* and *What to take away* |
# | You will meet | queries, keys, values, heads; safe and online softmax, the log-sum-exp, tiles, partial results that merge, split-K, ring attention; counted memory traffic, arithmetic intensity, the roofline; recomputation; a Triton kernel |
# | Papers | Dao et al. 2022, [FlashAttention](https://arxiv.org/abs/2205.14135); Dao 2023, [FlashAttention-2](https://arxiv.org/abs/2307.08691); Shah et al. 2024, [FlashAttention-3](https://arxiv.org/abs/2407.08608); Milakov and Gimelshein 2018, [the online softmax](https://arxiv.org/abs/1805.02867); Vaswani et al. 2017, [attention](https://arxiv.org/abs/1706.03762) |
# | Source article | the one on FlashAttention by way of the online softmax: three passes, two, one, then tiles (in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter), then press play. The large square is a table: a row for each of $N$ tokens, a column for each of them, and in
# each cell how much the one looks at the other. Ordinary attention writes the whole table to memory, and reads it again. What you see at work never stores more than one small tile.

# %%
import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # section 12 runs a kernel for GPUs on the CPU

import math
from functools import reduce

import torch

from course_lib.notebook import one_thread, seeded
from course_lib.widgets import Roofline, RunningMaximum, Tiles

one_thread()  # models this small are slower on two

# %%
Tiles(n=1024, d=64, sram=49_152)

# %% [markdown]
# Three things to notice:
#
# - **The table is never there.** Only one tile of it exists at a time. The result is the same, up to rounding.
# - **Less is moved, though no less is computed.** The counters count numbers that travel between the large, slow memory and the small, fast one.
# - **A larger fast memory moves less.** Drag $M$: the tiles grow, and both counters of tiles fall (there are two orders of the loops: section 9). That of the three steps stays.
#
# Why is that possible? In each row stands a softmax, and a softmax needs the whole row. This chapter takes the softmax apart.

# %% [markdown]
# ## The idea
#
# A processor computes in a small memory that is fast, and keeps its data in a large one that is slow. An A100, the GPU of the first paper, has 108 processors with a small memory of 192 KB each (**SRAM**), which together move
# 19 TB a second, and a large one (**HBM**) of 40 to 80 GB, which moves 1.5 to 2 TB a second (Dao et al. 2022, section 2.1). Attention does little arithmetic for each number it moves. So
# it waits (it is *memory-bound*, not *compute-bound*), for $N^2$ numbers that nobody asked for: what is asked for are $N$ rows of output. An algorithm that counts what it moves is called *IO-aware*, as in the first paper's title.
#
# The source article goes four steps, and so do we. A softmax that cannot overflow takes *three* passes over a row. A correction on the way saves one of them: *two*. The output of attention, which is a sum, can
# be corrected as well, and so attention takes *one*. And what is done in one pass can be done *tile by tile*. Each step is a function of a few lines, and equals the one before.
#
# | symbol | meaning |
# | --- | --- |
# | $N$; $N_q$, $N_k$; $d$ | number of tokens; of queries, of keys; size of a head |
# | $i$, $j$, $n$ | a query; a key; a running index |
# | $q_i$, $k_j$, $v_j$, $o_i$; $Q$, $K$, $V$, $O$ | a query, a key, a value, an output: rows of $d$ numbers; the matrices of these rows |
# | $s_{ij}$, $p_{ij}$; $S$, $P$; $\tilde P$ | a logit, a probability; the $N \times N$ matrices of them; $e^{S - m}$, not yet divided by $\ell$ |
# | $m$, $\ell$, $\tilde o$ | largest logit so far, sum of $e^{s_j - m}$, sum of $e^{s_j - m} v_j$; with an index, after the $j$-th key or of the tile |
# | $L_i$ | the log-sum-exp of row $i$, $m + \log \ell$ at its end |
# | $a$, $b$; $\oplus$ | two partial results; merging them |
# | $M$; $B_r$, $B_c$ | the fast memory, in numbers; rows and columns of a tile |
# | $\Theta$ | grows like, up to a constant factor |
# | $\phi$; $\mathrm dX$ | the loss; its gradient by a matrix $X$ |
# | $D_i$; $\delta$ | the inner product of $o_i$ and $\mathrm do_i$; 1 where two indices are equal, else 0 |

# %% [markdown]
# ## 1. What attention is
#
# A dictionary answers a question by the entry whose key is equal to it. **Attention** is a soft dictionary: each token asks a **query** $q_i$, each token offers a **key** $k_j$ and a
# **value** $v_j$, and the answer is a mean of *all* values, weighted by how well their keys fit:
#
# $$o_i = \sum_{j} p_{ij}\, v_j, \qquad p_{ij} = \frac{e^{s_{ij}}}{\sum_n e^{s_{in}}}, \qquad s_{ij} = \frac{q_i \cdot k_j}{\sqrt d} .$$
#
# For all tokens at once these are two matrix products with a softmax of each row between them:
#
# $$S = \tfrac{1}{\sqrt d}\, Q K^\top, \qquad P = \operatorname{softmax}(S), \qquad O = P V .$$
#
# *Why the root?* An inner product of $d$ independent numbers of variance 1 has variance $d$. Divided by $\sqrt d$ it has variance 1 for any $d$, and the softmax starts neither flat nor all on one key.
#
# *Heads.* A layer does not attend once, but several times side by side, each **head** with queries, keys and values of its own, $d$ numbers wide. To the formula heads are a batch.
#
# *Causal.* A model that predicts tokens in order (chapter 01) must not look ahead: query $i$ sees the keys $j \le i$, all other logits are $-\infty$. With fewer queries than keys the *last* query sees
# all: $j \le i + N_k - N_q$.

# %%
from course_lib.attention import naive_attention
from course_lib.exercises import check, hint, show_source, solution

show_source(naive_attention)

# %%
keys = torch.eye(4, dtype=torch.float64)
values = torch.tensor([[10.0], [20.0], [30.0], [40.0]], dtype=torch.float64).expand(4, 4)
for sharp in (0.0, 2.0, 40.0):
    answer = naive_attention(sharp * keys[[2]], keys, values)[0, 0].item()
    print(
        f"asked for the third of 10, 20, 30, 40, with a query of length {sharp:>2.0f}: {answer:.2f}"
    )

x, y = torch.randn(2, 20_000, 64, generator=seeded(0))
print(
    f"variance of q · k for d = 64: {(x * y).sum(1).var():.0f}, of q · k / √d: {(x * y).sum(1).var() / 64:.1f}"
)

# %% [markdown]
# A query of length 0 gets the mean of all values, a long one the entry itself.
#
# **In a network** queries, keys and values are three linear images of the same tokens (`qkv`), and a fourth map (`out`) mixes what the heads found. Around attention stand a second, small network (`mlp`), which works on each token alone, two norms, which
# bring a token's numbers to mean 0 and variance 1 before they are scaled again, and two short cuts (`x +`). `cache` waits for section 8:

# %%
from course_lib.nn import Attention, TransformerBlock

show_source([Attention.forward, TransformerBlock.forward])

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import transformer_diagram
from course_lib.widgets import show_diagram

show_diagram(transformer_diagram(TransformerBlock(64, 4)))

# %% [markdown]
# Everything but the two products with $N \times N$ numbers works on one token at a time. Only attention lets tokens know of each other. Only attention grows with $N^2$. (And it knows no order: exchange two keys together with their values, and the sum is the same. So a token is told its place, by a learned
# vector that is added to it.)

# %% [markdown]
# ## 2. What hurts
#
# **Memory.** $S$ and $P$ have $N^2$ numbers each, for each head, and the backward pass asks for $P$ again. Count the bytes at the worst moment of a forward and a backward pass:

# %%
from IPython.display import Markdown

from course_lib.attention import peak_bytes


def peak_megabytes(attend, n):
    """Of one head of n tokens, d = 64, float32: forward and backward, beyond the inputs."""
    q, k, v = torch.randn(3, n, 64, generator=seeded(0))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    return peak_bytes(lambda: attend(*leaves).sum().backward()) / 2**20


sizes = (512, 1024, 2048)
of_naive = [peak_megabytes(naive_attention, n) for n in sizes]
table = "| tokens $N$ | numbers in $S$ | peak of a head, MB |\n| ---: | ---: | ---: |\n"
for n, megabytes in zip(sizes, of_naive):
    table += f"| {n:,} | {n * n:,} | {megabytes:.1f} |\n"
table += f"| 32,768, by 12 bytes each | {32_768**2:,} | {12 * 32_768**2 / 2**20:,.0f} |\n"
Markdown(table)

# %% [markdown]
# Twice the tokens, four times the memory: three matrices of 4 bytes a number at the worst moment, which is on the way back: $P$, its gradient, and that of $S$. One head of 32,768 tokens would need 12 GB.
#
# **Overflow.** A softmax as it is defined exponentiates the logits. In float32 $e^{89}$ is infinite, in float16 $e^{12}$:

# %%
s = torch.tensor([98.0, 99.0, 100.0])
print("as defined:   ", s.exp() / s.exp().sum())
print("as it should: ", torch.softmax(s, 0))
print(
    "e^89 in float32:",
    torch.tensor(89.0).exp().item(),
    " e^12 in float16:",
    torch.tensor(12.0).exp().half().item(),
)

# %% [markdown]
# ## 3. Three passes: the safe softmax
#
# Take out the largest logit $m = \max_j s_j$. The factor $e^{-m}$ stands above and below, and cancels:
#
# $$p_j = \frac{e^{s_j}}{\sum_n e^{s_n}} = \frac{e^{s_j - m}}{\sum_n e^{s_n - m}} .$$
#
# No exponent is above 0 now, and one of them is 0: the sum is between 1 and $N$, whatever the logits. The price: one has to know $m$ before one adds up, and the sum before one divides. *Three* passes over the row.

# %%
from course_lib.attention import online_softmax, safe_softmax

show_source(safe_softmax)

# %%
x = torch.randn(50, 200, dtype=torch.float64, generator=seeded(0))
x[0, :3] = torch.tensor([1e4, -1e4, -math.inf])
print(
    "as torch's, within 1e-12:", (safe_softmax(x) - torch.softmax(x, 1)).abs().max().item() < 1e-12
)
print("a row of −∞ alone:", safe_softmax(torch.full((1, 3), -math.inf)))

# %% [markdown]
# **Exercise 1: its logarithm.** Losses need $\log p_j$. Write it so that it is right where $p_j$ itself underflows to 0. (`hint("15.safe_log_softmax")` helps, as with every exercise; `solution(...)` shows what
# the library does; every `check` judges your function on fresh random inputs.)


# %%
def safe_log_softmax(x):
    """Logits x [..., N], −∞ where nothing is to be seen: the logarithms of their softmax."""
    ...


check("15.safe_log_softmax", safe_log_softmax)

# %% [markdown]
# ## 4. Two passes: correct the sum on the way
#
# Can the sum be taken before the maximum is known? Add up with the largest logit *so far*. When a larger one comes, the terms that are in the sum were divided by the wrong number, but all of them by the *same*
# wrong number. One factor puts them right:
#
# $$m_j = \max(m_{j-1}, s_j), \qquad \ell_j = \ell_{j-1}\, e^{m_{j-1} - m_j} + e^{s_j - m_j}, \qquad m_0 = -\infty,\; \ell_0 = 0 .$$
#
# **Claim:** after $j$ logits $\ell_j = \sum_{n \le j} e^{s_n - m_j}$, exactly. *Proof by induction.* For $j = 0$ the sum is empty. Let it hold for $j - 1$; then
#
# $$\ell_{j-1}\, e^{m_{j-1} - m_j} = \sum_{n < j} e^{s_n - m_{j-1}}\, e^{m_{j-1} - m_j} = \sum_{n < j} e^{s_n - m_j},$$
#
# and the $j$-th term $e^{s_j - m_j}$ is what is missing. ∎ Nothing was approximated, and no logit was looked at twice. The factor is at most 1, so the correction cannot overflow either. (Only while all logits are $-\infty$ there is no $m_{j-1} - m_j$. So the code starts from the lowest finite number.)
#
# Drag a number, and step. All is well until a new maximum comes; then the bars shrink together, by one factor.

# %%
logits = [1.0, 0.2, 2.1, 1.4, 0.5, 3.2, 2.8, 1.0]
RunningMaximum(logits)

# %%
show_source(online_softmax)

# %%
print(
    "two passes are three, within 1e-12:",
    (online_softmax(x) - safe_softmax(x)).abs().max().item() < 1e-12,
)

rows = torch.randn(1000, 4096, generator=seeded(1))
moves = (rows.cummax(1).values.diff(dim=1) > 0).sum(1) + 1.0  # the first one counts
print(f"of 4,096 logits {moves.mean():.1f} are a new maximum, in the mean of 1,000 rows")
print(f"1 + 1/2 + ... + 1/4096 = {sum(1 / n for n in range(1, 4097)):.1f}")

# %% [markdown]
# How often does the maximum move? In a row in random order the $j$-th number is the largest so far with probability $1/j$, and so it moves $1 + \frac12 + \dots + \frac1N$ times, about $\log N$. Almost always the factor is 1.

# %% [markdown]
# ## 5. One pass: correct the output on the way
#
# The softmax keeps its second pass. Each of its $N$ numbers must be divided by the final $\ell$, and to correct them all whenever the maximum moves would be a pass each time. But who wants the softmax? Attention wants
# $o = \sum_j p_j v_j$: one sum, of $d$ numbers, and *linear* in the probabilities. What is wrong with all its terms by one factor is put right by one factor, like $\ell$:
#
# $$\tilde o_j = \tilde o_{j-1}\, e^{m_{j-1} - m_j} + e^{s_j - m_j}\, v_j, \qquad o = \frac{\tilde o_N}{\ell_N} .$$
#
# The induction is the one above, with $v_n$ behind every term. The division, too, waits for the end. So a query needs three things to go on from any key: $m$, $\ell$ and $\tilde o$, which are $d + 2$ numbers, however many keys it has seen.

# %%
from course_lib.attention import Part, attend_part, finish, merge, online_attention

show_source([Part, attend_part, merge, finish, online_attention])

# %% [markdown]
# `attend_part` is what is learned of some keys (here of one), `merge` joins it with what was known before. (`above_minus_infinity` and `masked_fill` treat a row that has seen nothing: its output is 0, and its log-sum-exp $-\infty$. `.inside` is the function
# without its checks.)

# %%
q, k, v = torch.randn(3, 2, 4, 100, 32, dtype=torch.float64, generator=seeded(2))  # 2 × 4 heads
exact = naive_attention(q, k, v)
off = lambda o: (o - exact).abs().max().item()
print("one pass is the definition, within 1e-12:", off(online_attention(q, k, v)) < 1e-12)

# %% [markdown]
# The same numbers with a value each: whoever keeps the softmax has all its terms to do again when the maximum moves, whoever keeps $m$, $\ell$ and $\tilde o$ three numbers.

# %%
RunningMaximum(logits, values=[2.0, -1.0, 0.5, 3.0, -2.0, 1.0, 2.5, -0.5])

# %% [markdown]
# **Exercise 2: keep the mean instead.** The first FlashAttention stores the output *divided*, after every block of keys: an average that is always the answer so far. How does it change with one key more?


# %%
def average_update(m, l, average, s, v):
    """m, l [N, 1], average [N, d] so far; one key's logits s [N, 1], value v [d]: all three after it."""
    ...


check("15.average_update", average_update)

# %% [markdown]
# **Exercise 3: break it on purpose.** `forget_to_rescale` does all of this but the correction:

# %%
from course_lib.experiments import forget_to_rescale

show_source(forget_to_rescale)

# %% [markdown]
# Write $n$ logits, not all alike, in two orders: one in which it is right all the same, and one in which it gives a key more than 1,000 times the weight that is its due. Which inputs of a test hide the mistake?


# %%
def two_orders(n):
    """Logits [n] in an order that does no harm, and the same in one that does."""
    ...


check("15.break_the_rescaling", two_orders)

# %% [markdown]
# ## 6. Tiles
#
# One key at a time is slow: processors want matrices. Nothing in section 5 asks for *one* key. Take a block of $B_r$ queries and go over the keys in blocks of $B_c$. For each **tile**, with everything per row:
#
# $$S_{ij} = \tfrac{1}{\sqrt d}\, Q_i K_j^\top, \qquad m = \max\big( m_i,\, \operatorname{rowmax} S_{ij} \big), \qquad \tilde P_{ij} = e^{S_{ij} - m},$$
#
# $$\ell_i \leftarrow e^{m_i - m}\, \ell_i + \operatorname{rowsum} \tilde P_{ij}, \qquad
#   \tilde o_i \leftarrow e^{m_i - m}\, \tilde o_i + \tilde P_{ij} V_j, \qquad m_i \leftarrow m .$$
#
# (Here $i$ and $j$ count blocks. The first line is `attend_part`, the second `merge`, written in one. What stands under `if not whole` is for causal masks, and waits for section 11.) That is all of FlashAttention's way forward. In NumPy, for one head:

# %%
from course_lib.attention import flash_attention, flash_attention_numpy, tiles

show_source([tiles, flash_attention_numpy])

# %%
one = [x[0, 0].numpy() for x in (q, k, v)]
for block in (1, 7, 64, (32, 100), 1000):
    o = torch.from_numpy(flash_attention_numpy(*one, block=block))
    print(
        f"tiles of {block}: as defined, within 1e-12:", (o - exact[0, 0]).abs().max().item() < 1e-12
    )
print("in PyTorch, all heads:", off(flash_attention(q, k, v, block=32)) < 1e-12)

# %% [markdown]
# Whatever the tiles, whether they divide the size or not, the output is the same up to rounding. And of rounding there is *less*, where numbers are short: $S$ and $P$ of a tile can stay in float32, where a matrix in memory is rounded to 16 bits. Here is the error of both, root mean square, on numbers of which a few are large
# (Shah et al. test it so, and find 1.7 times less error, in their table 3):

# %%
wide = torch.randn(3, 512, 64, dtype=torch.float64, generator=seeded(7))
rare = torch.rand(wide.shape, generator=seeded(8)) < 0.001
wide += 10 * rare * torch.randn(wide.shape, dtype=torch.float64, generator=seeded(9))
for dtype in (torch.float16, torch.bfloat16):
    short = wide.to(dtype)
    reference = naive_attention(*short.double())
    errors = [
        (attend(*short).double() - reference).square().mean().sqrt().item()
        for attend in (naive_attention, flash_attention)
    ]
    print(f"{dtype}: in tiles the error is less than half: {errors[1] < errors[0] / 2}")

# %% [markdown]
# **And the memory?** Forward and backward as in section 2 (section 10 says how the way back goes without $P$), with tiles of 256×256:

# %%
of_flash = [peak_megabytes(flash_attention, n) for n in sizes]
table = "| tokens $N$ | as defined, MB | in tiles, MB |\n| ---: | ---: | ---: |\n"
for n, megabytes, tiled in zip(sizes, of_naive, of_flash):
    table += f"| {n:,} | {megabytes:.1f} | {tiled:.1f} |\n"
Markdown(table)

# %% [markdown]
# In tiles 512 tokens more are always 1 MB more: eight matrices of $N \times d$ numbers, which are the output, three gradients, and copies on the way. The rest are a few tiles, whatever $N$. Memory $O(N)$, by measure. (That attention needs no $N^2$ numbers at a time, by the very $m$, $\ell$ and $\tilde o$, Rabe and Staats showed in 2021, [arXiv:2112.05682](https://arxiv.org/abs/2112.05682). FlashAttention adds what section 9 counts, and a kernel.)

# %% [markdown]
# ## 7. Train it
#
# A model of chapter 01's kind, with attention in place of masked convolutions: a `PixelTransformer` reads an 8×8 digit pixel by pixel, in 17 grey levels, and predicts the next. $N = 64$ tokens. Train it **twice, live**, from the same weights and on the same batches: once
# with the definition, once with tiles of 16×16, forward and backward.

# %%
from functools import partial

from course_lib.autoregressive import PixelTransformer
from course_lib.data import load_digits
from course_lib.training import fit, load_card, load_pretrained
from course_lib.training.batches import digits_batch
from course_lib.widgets import image_grid, show_figure

digits = load_digits("train")[0]


def trained(attend):
    """A small model of digits that attends with the function given, and its losses, in nats."""
    torch.manual_seed(0)
    model = PixelTransformer(8, 17, dim=32, depth=2, heads=2, attend=attend)
    options = {"steps": 200, "batch_size": 32, "lr": 5e-3, "ema": 0.98}
    return model, torch.tensor(
        fit(model, digits, **options, transform=digits_batch("levels")).losses
    )


naive, naive_losses = trained(naive_attention)
flash, flash_losses = trained(partial(flash_attention, block=16))

# %%
print("the first loss is above 150 nats:", flash_losses[0].item() > 150)
print("the mean of the last 20 is below 100:", flash_losses[-20:].mean().item() < 100)
apart = (naive_losses - flash_losses).abs().max().item()
print("no loss of the two runs differs by more than 0.05 nats:", apart < 0.05)
samples = [model.sample(12, generator=seeded(3)) / 16 for model in (naive, flash)]
same_pixels = (samples[0] == samples[1]).float().mean().item()
print("more than nine in ten pixels of their samples are the same:", same_pixels > 0.9)

longer = load_pretrained("pixel_transformer_digits")
y = torch.arange(12) % 10
samples.append(longer.sample(12, y=y, generator=seeded(3)) / 16)
show_figure(
    image_grid(
        torch.cat(samples), columns=12, titles=["by definition", "in tiles", "trained longer"]
    ),
    alt="Three rows of twelve small grey images. Two models trained alike give the same strokes on "
    "dark ground, few of them digits; one trained longer, asked for 0 to 9, gives digits, most of them legible.",
)

# %% [markdown]
# One and the same training, up to rounding, and the same samples from the same random numbers. **FlashAttention is no approximation**: nothing about a model, its loss or its samples changes. (Here it is no faster either: 64 tokens fit in one small tile. It is about long rows.) After 200 small steps
# there are strokes on a dark frame, and few digits. The third row is `pixel_transformer_digits`, larger, trained for 3,000 steps, and told the class.
#
# `sample` does something that section 8 explains: it asks with *one* query, of the newest pixel, against the keys and values of all pixels before, which it keeps in a **key–value cache** (KV cache).

# %% [markdown]
# ## 8. Parts that merge
#
# `merge` in section 5 joined what was known with one key more. It joins *any* two partial results, of any two sets of keys without a common one (which would count twice):
#
# $$(m_a, \ell_a, \tilde o_a) \oplus (m_b, \ell_b, \tilde o_b) = \big( m,\;\; e^{m_a - m} \ell_a + e^{m_b - m} \ell_b,\;\; e^{m_a - m} \tilde o_a + e^{m_b - m} \tilde o_b \big),
#   \qquad m = \max(m_a, m_b) .$$
#
# **It is associative and commutative, and has a neutral element** $(-\infty, 0, 0)$: what is called a commutative *monoid*. (For $(m, \ell)$ it stands in Milakov and Gimelshein, section 3.1.) *Proof.* Look at a part as a way to write down the two plain sums $e^m \ell = \sum_j e^{s_j}$ and $e^m \tilde o = \sum_j e^{s_j} v_j$ without ever computing them,
# as they would overflow. Multiply the second and the third entry above by $e^m$:
#
# $$e^m \ell = e^{m_a} \ell_a + e^{m_b} \ell_b, \qquad e^m \tilde o = e^{m_a} \tilde o_a + e^{m_b} \tilde o_b .$$
#
# So $\oplus$ takes the maximum of two numbers and *adds* two plain sums. Maximum and addition are associative and commutative, and a part is known when $m$ and the two sums are. ∎
#
# What a tree of additions may do, attention may do: any order, any grouping, in parallel.

# %%
from course_lib.attention import empty_part

a, b, c = (
    attend_part(s, v)
    for s, v in zip(
        30 * torch.randn(3, 5, 7, dtype=torch.float64, generator=seeded(4)),
        torch.randn(3, 7, 2, dtype=torch.float64, generator=seeded(5)),
    )
)
same = lambda x, y: all(torch.allclose(f, g, rtol=1e-12, atol=0) for f, g in zip(x, y))
print("associative:", same(merge(merge(a, b), c), merge(a, merge(b, c))))
print("commutative:", same(merge(a, b), merge(b, a)))
print("neutral:", same(merge(a, empty_part(a.o)), a))

# %% [markdown]
# **Decoding: split-K.** A model that writes text has one query at a time and a long cache of keys and values. With one row of one head there is nothing to share among the hundred processors of a GPU but the keys. So each takes a stretch of them, and the parts are merged at the end
# (FlashAttention-2 as of ICLR, section 3.2; known as *Flash-Decoding*).
#
# **Many machines: ring attention.** A sequence too long for one machine is cut: each keeps its queries, and the blocks of keys and values go round in a ring. Each machine merges what passes by, in its own order (Liu et al. 2023, [arXiv:2310.01889](https://arxiv.org/abs/2310.01889)). No machine ever holds more than its share.

# %%
scale = 1 / math.sqrt(32)
newest = q[..., -1:, :]  # one query
parts = [
    attend_part(scale * newest @ k_c.mT, v_c) for k_c, v_c in zip(k.split(13, 2), v.split(13, 2))
]
print(
    f"split-K, {len(parts)} parts:",
    (finish(reduce(merge, parts))[0] - exact[..., -1:, :]).abs().max().item() < 1e-12,
)

machines = list(zip(q.chunk(4, 2), k.chunk(4, 2), v.chunk(4, 2)))
seen = [empty_part(q_r) for q_r, _, _ in machines]
for step in range(4):
    for rank, (q_r, _, _) in enumerate(machines):
        _, k_s, v_s = machines[(rank - step) % 4]  # what has come round the ring by now
        seen[rank] = merge(seen[rank], attend_part(scale * q_r @ k_s.mT, v_s))
print("ring of 4 machines:", off(torch.cat([finish(part)[0] for part in seen], 2)) < 1e-12)

# %% [markdown]
# **Exercise 4: merge what is finished.** Two machines send their *finished* outputs, divided already, each with its log-sum-exp $L = m + \log \ell$. That is enough. Derive how.


# %%
def merge_by_lse(o_1, L_1, o_2, L_2):
    """Outputs [..., N, d] of two sets of keys, and their log-sum-exps [..., N]: of both, o and L."""
    ...


check("15.merge_by_lse", merge_by_lse)

# %% [markdown]
# ## 9. What is moved
#
# Why is it faster, where it is? Not for doing less: the two matrix products are the same. Count instead what *moves* between the slow memory and a fast one with room for $M$ numbers.
#
# **Three steps.** $S$ is written, read for the softmax, $P$ is written, and read for the second product: $4 N^2$. $Q$, $K$, $V$ are read and $O$ is written: $4 N d$. In all $4 N^2 + 4 N d = \Theta(N d + N^2)$, *whatever the fast memory*. (At the least: one too small for the two products reads their inputs more than once.)
#
# **FlashAttention** (the first paper: keys in the outer loop, queries in the inner one). A block of keys and values stays while all queries pass by, each with its output so far, $m$ and $\ell$, which go back afterwards. That is $3 N d + 4 N$ numbers in each pass,
# and there are $N / B_c$ passes. How large may $B_c$ be? Blocks of $Q$, $K$, $V$, $O$ need $4 d$ numbers a row, the tile of logits at most $d$ more if $B_r \le d$, and a few for $m$ and $\ell$: $B_c \approx M / 5 d$. (The paper counts the four blocks alone, $M / 4d$.) Besides, $K$ and $V$ are read once, and the first $O$, $m$ and $\ell$ are written, which hold nothing yet: $3 N d + 2 N$. Together
#
# $$\underbrace{\frac{N}{B_c}}_{\text{passes}} \cdot\; (3 N d + 4 N) \;+\; 3 N d + 2 N \;\approx\; \frac{5 N d}{M} \cdot 3 N d = \Theta\Big( \frac{N^2 d^2}{M} \Big) .$$
#
# That holds for a fast memory of up to about $N d$ numbers (theorem 2 of the paper: $d \le M \le N d$). With more, one pass is all, and $\Theta(N d)$ is moved.
#
# **FlashAttention-2** turns the loops round. A block of queries stays, with its output, until it is done; keys and values pass by, and nothing but them: $2 N d$ a pass. It writes each output once.
#
# In all about $10\, N^2 d^2 / M$, where the first version moves $15\, N^2 d^2 / M$. Against $4 N^2$ the second version wins where $10\, d^2 < 4 M$, the first where $15\, d^2 < 4 M$: where the fast memory holds a few squares of $d$.
#
# **Exercise 5: predict.** One head, $N = 16{,}384$, $d = 64$, in float16 (2 bytes). FlashAttention-2 keeps 128 queries at a time. With $S$ and $P$ in the slow memory 2,156 MB ($10^6$ bytes) would move, forward. How many MB here? Within 3 %.

# %%
prediction = ...

check("15.predict_bytes", prediction)

# %% [markdown]
# **Count it, by doing it.** `counted_attention` runs on a memory that counts what goes in and out, and refuses to hold more than $M$ numbers. (The three steps get one that is never full, whatever $M$: what is counted is the least that they can move.)

# %%
from course_lib.attention import FastMemory, count_traffic, counted_attention
from course_lib.attention.traffic import counted_flash2

show_source([FastMemory.hold, FastMemory.load, FastMemory.store, counted_flash2, count_traffic])

# %%
head = [x[0, 0] for x in (q, k, v)]
for algorithm in ("naive", "flash", "flash2"):
    for sram in (200, 1000, 10_000):
        o, traffic = counted_attention(*head, sram, algorithm=algorithm)
        right = (o - exact[0, 0]).abs().max().item() < 1e-12
        formula = count_traffic(100, 32, sram, algorithm=algorithm)
        print(
            f"{algorithm:>6}, M = {sram:>6,}: {traffic.total:>7,} moved; as the formula: {traffic == formula}, right: {right}"
        )

# %%
table = "| $M$, in numbers | three steps | FlashAttention | FlashAttention-2 |\n| ---: | ---: | ---: | ---: |\n"
for sram in (4096, 16_384, 49_152, 131_072):
    moved = [
        count_traffic(4096, 64, sram, algorithm=a).total / 1e6 for a in ("naive", "flash", "flash2")
    ]
    table += f"| {sram:,} | " + " | ".join(f"{x:.1f} million" for x in moved) + " |\n"
Markdown(table)

# %% [markdown]
# That is for $N = 4{,}096$ and $d = 64$. With room for 4,096 numbers, which is $d^2$, FlashAttention moves *more* than three steps do: it pays only where the fast memory is large beside $d^2$. With 49,152 (half of the 192 KB of an A100's processor, at 2 bytes) it moves a third, and FlashAttention-2 a fifth. Doubling $M$ halves it.
#
# *Could a cleverer algorithm do better?* With $M$ near $N d$ all inputs fit in the fast memory, and have to be read once: $\Theta(N d)$, which is $N^2 d^2 / M$ there. So no algorithm moves less, by more than a constant factor, for *all* $M$ (Dao et al., proposition 3); for one that is smaller it might. Saha and Ye (2024, [arXiv:2402.07443](https://arxiv.org/abs/2402.07443)) close the gap:
# the bound $N^2 d^2 / M$ holds for each $M \ge d^2$, however matrices are multiplied. For smaller ones $N^2 d / \sqrt M$ is best, if they are multiplied in the ordinary way.
#
# **Does it matter?** A processor computes and moves at the same time, and is as fast as the slower of the two. The **arithmetic intensity** is the number of operations for each byte moved, and the **roofline** says what can be reached:
#
# $$\text{operations a second} \;\le\; \min\big( \text{peak},\;\; \text{intensity} \cdot \text{bandwidth} \big) .$$
#
# Attention has $4 N^2 d$ operations (two products, of a multiplication and an addition each), and a few more for the softmax. Three steps move $4 N^2$ numbers of 2 bytes: about $d / 2$ operations a byte. An A100 (SXM, 80 GB) computes 312 TFLOP/s and moves 2.04 TB/s, says NVIDIA's data sheet:

# %%
from course_lib.widgets.roofline import attainable_speed, attention_costs

peak, bandwidth = 312e12, 2.039e12
print(f"the A100 is busy from {peak / bandwidth:.0f} operations a byte on")
for name, cost in attention_costs(4096, 64, rows=128).items():
    speed = attainable_speed(cost.intensity, peak, bandwidth) / 1e12
    print(f"{name:>14}: {cost.intensity:>5.1f} operations a byte, at most {speed:>3.0f} TFLOP/s")

# %%
Roofline(4096, 64, rows=128, hardware="A100")

# %% [markdown]
# Three steps reach a fifth of the peak at best, however well each is written. The softmax is the worst of them: it does almost nothing with each number. With 128 queries a block FlashAttention-2 is close to the *ridge*, where the roof bends and both limits meet. (It is better than that: blocks at work at the same time read the same keys, and a
# second, larger cache spares them the slow memory.)

# %% [markdown]
# ## 10. The way back
#
# Training needs gradients. $\phi$ is the loss, $\mathrm dX$ its gradient by a matrix $X$, and $\mathrm dO$ is given. Where are $\mathrm dQ$, $\mathrm dK$, $\mathrm dV$?
#
# **Through the second product.** $o_{ic} = \sum_j p_{ij} v_{jc}$ for each column $c$. So $v_{jc}$ acts on all $o_{ic}$, with weight $p_{ij}$, and $p_{ij}$ on all columns of $o_i$, with weight $v_{jc}$:
#
# $$\mathrm dV = P^\top\, \mathrm dO, \qquad \mathrm dP = \mathrm dO\, V^\top .$$
#
# **Through the softmax.** In one row $\log p_j = s_j - \log \sum_n e^{s_n}$. Its derivative by $s_n$ is $\delta_{jn} - p_n$, and that of $p_j$ is $p_j$ times as much. Sum over all $p_j$ that $s_n$ acts on:
#
# $$\frac{\partial p_j}{\partial s_n} = p_j\, (\delta_{jn} - p_n), \qquad
#   \mathrm ds_n = \sum_j \mathrm dp_j\; p_j\, (\delta_{jn} - p_n) = p_n\, \Big( \mathrm dp_n - \sum_j p_j\, \mathrm dp_j \Big) .$$
#
# **Nothing but the last sum needs the whole row.** It would be a pass of its own. But $\mathrm dp_j = \mathrm do_i \cdot v_j$, and so
#
# $$\boxed{\; D_i = \sum_j p_{ij}\, \mathrm dp_{ij} = \mathrm do_i \cdot \sum_j p_{ij}\, v_j = \mathrm do_i \cdot o_i, \qquad \mathrm dS_{ij} = P_{ij}\, (\mathrm dP_{ij} - D_i) \;}$$
#
# One inner product of two rows that are there anyway, $d$ numbers instead of $N$. Now each tile can be treated alone.
#
# **Through the first product.** $S = Q K^\top / \sqrt d$ is a product like the second:
#
# $$\mathrm dQ = \tfrac{1}{\sqrt d}\, \mathrm dS\, K, \qquad \mathrm dK = \tfrac{1}{\sqrt d}\, \mathrm dS^\top Q .$$
#
# **And where is $P$?** It was not kept. Compute its tile again, and this time without any running maximum: the log-sum-exp of the whole row is known by now,
#
# $$P_{ij} = e^{S_{ij} - L_i}, \qquad L_i = m_i + \log \ell_i .$$
#
# So forward keeps, beside inputs and output, one number a row.

# %%
from course_lib.attention import flash_backward, flash_forward

show_source([flash_forward, flash_backward])

# %% [markdown]
# | formula | line |
# | --- | --- |
# | $D_i = \mathrm do_i \cdot o_i$ | `row_term = (do_ * o_).sum(-1, keepdim=True)` |
# | $S_{ij} = Q_i K_j^\top / \sqrt d$ | `q_ = scale * LOG2_E * q_`, `s = q_i @ k_j.mT` |
# | $P_{ij} = e^{S_{ij} - L_i}$ | `p = s.sub_(lse[..., rows, :]).exp2_()` |
# | $\mathrm dS_{ij} = P_{ij} (\mathrm dP_{ij} - D_i)$, $\mathrm dP_{ij} = \mathrm dO_i V_j^\top$ | `ds = (do_i @ v_j.mT).sub_(row_term[..., rows, :]).mul_(p)` |
# | $\mathrm dV_j \mathrel{+}= P_{ij}^\top \mathrm dO_i$ | `dv[..., columns, :].add_(p.mT @ do_i)` |
# | $\mathrm dQ_i \mathrel{+}= \mathrm dS_{ij} K_j / \sqrt d$ | `dq[..., rows, :].add_(ds @ k_j)`, at the end `scale * dq` |
# | $\mathrm dK_j \mathrel{+}= \mathrm dS_{ij}^\top Q_i / \sqrt d$ | `dk[..., columns, :].add_(ds.mT @ q_i)`, at the end `dk / LOG2_E` |
#
# One trick is in both: logits are counted in *bits*, $e^x = 2^{x \log_2 e}$, since processors compute powers of 2 fastest. The factor $\log_2 e$ goes into the queries once, with $1 / \sqrt d$, and has to come out of $\mathrm dK$ again.
#
# **Check**, against automatic differentiation of the definition, and by finite differences (`gradcheck`):

# %%
do = torch.randn(q.shape, dtype=torch.float64, generator=seeded(6))
leaves = [x.clone().requires_grad_() for x in (q, k, v)]
wanted = torch.autograd.grad(naive_attention(*leaves), leaves, do)
o, lse = flash_forward(q, k, v, block=32)
given = flash_backward(do, q, k, v, o, lse, block=(16, 48))
print(
    "dQ, dK, dV are autograd's, within 1e-12:",
    [(x - y).abs().max().item() < 1e-12 for x, y in zip(given, wanted)],
)
few = [x[0, 0, :9, :4].clone().requires_grad_() for x in (q, k, v)]
print(
    "and those of finite differences:",
    torch.autograd.gradcheck(partial(flash_attention, block=4, causal=True), few),
)

# %% [markdown]
# **Recomputed, and yet faster.** With $P$ at hand the way back has four products, and here it has five: with the two of the forward pass seven instead of six. But what does one number of $P$ cost, computed anew or read from memory, where it had to be written first? On the A100 of section 9, in float16:

# %%
again, read = 2 * 64 / peak, 2 / bandwidth
print(f"2 d operations for one number of S, d = 64: {again * 1e12:.2f} picoseconds")
print(f"2 bytes from memory: {read * 1e12:.2f} picoseconds")

# %% [markdown]
# Less than half. Whoever has a fast processor and a slow memory computes twice rather than reads. The first paper measured it, on an A100, forward and backward together (figure 2; GPT-2 medium, $N = 1{,}024$, $d = 64$):
#
# | | standard | FlashAttention |
# | --- | ---: | ---: |
# | operations, GFLOP | 66.6 | 75.2 |
# | read and written, GB | 40.3 | 4.4 |
# | time, ms | 41.7 | 7.3 |
#
# **Exercise 6: a loss that sees $L$ as well.** Whoever merges finished parts (exercise 4) has a loss that depends on $o$ *and* on $L$, with gradients $\mathrm do$ and $\mathrm dL$. What is subtracted from $\mathrm dP$ then?


# %%
def row_term(o, do, d_lse):
    """o and do [..., N, d], d_lse [..., N], float32: D [..., N] with dS = P (dP − D), float32."""
    ...


check("15.row_term", row_term)

# %% [markdown]
# ## 11. Tiles that nobody may see
#
# With a causal mask half of the matrix is $-\infty$. Tiles above the diagonal add nothing, and are skipped; tiles on it need the mask; all others don't. With $T$ tiles in a row and a column $T (T + 1) / 2$ of $T^2$ are left. (`tiles` in section 6 leaves out the tiles whose first key comes after the last that any of its queries sees.)

# %%
kinds = [whole for _, _, whole in tiles(1024, 1024, 128, True)]
print(f"of {8 * 8} tiles {len(kinds)} are computed, {kinds.count(False)} of them with a mask")
print(
    "skipping changes nothing:",
    (flash_attention(q, k, v, causal=True, block=16) - naive_attention(q, k, v, causal=True))
    .abs()
    .max()
    .item()
    < 1e-12,
)
print(
    "the last of 100 queries, alone:",
    (
        naive_attention(newest, k, v, causal=True)
        - naive_attention(q, k, v, causal=True)[..., -1:, :]
    )
    .abs()
    .max()
    .item()
    < 1e-12,
)

# %%
Tiles(n=1024, d=64, sram=49_152, causal=True)

# %% [markdown]
# FlashAttention-2 (section 3.1.1) has 1.7 to 1.8 times the speed for it. (The last line is decoding, one query against all keys. It is right because our causal mask is aligned at the *end*, as FlashAttention's since version 2.1. PyTorch's `is_causal` aligns at the start: there the one query would see one key.)
#
# **Exercise 7: a window, too.** Many models look at the last few keys only. Which tiles are skipped, masked, whole?


# %%
def causal_tiles(n_q, n_k, rows, columns, window):
    """Query i sees the last `window` keys up to i + n_k − n_q. [R, C]: 0 skipped, 1 mask, 2 whole."""
    ...


check("15.causal_tiles", causal_tiles)

# %% [markdown]
# ## 12. On a GPU
#
# So far a tile was an idea of ours: PyTorch wrote each one to memory. On a GPU the idea becomes a **kernel**, one program that loads tiles into the fast memory and does all of the above there, from the first product to the last (it is *fused*). **Triton** is a language for such programs, inside Python: a program is written for one tile of the output,
# and started once for each. Here is all of the way forward, FlashAttention-2:

# %%
from course_lib.attention import flash_attention_triton
from course_lib.attention.triton_flash import columns_seen, forward_kernel, load_rows, product

show_source([load_rows, product, columns_seen, forward_kernel])

# %% [markdown]
# Read it from top to bottom:
#
# - **Which tile?** `tl.program_id(0)` is the number of this program. It says the head and, in `top`, which block of `ROWS` queries is its own. `q` is loaded once and stays.
# - **`m`, `l`, `o`** are section 5's three, in registers, in float32 whatever the inputs are. They never leave the chip before the end.
# - **The loop over `left`** is section 6's, over blocks of keys. It is written once and compiled twice: tiles that are seen whole need no mask (section 11), those at the border do. `columns_seen` says where the one ends and the other begins.
# - **`s`, `larger`, `p`, `correction`, `l`, `o`**: the six lines of section 6. `product` is a matrix product on the GPU's matrix units, of half precision added up in float32. `exp2` stands for `exp`, with $\log_2 e$ in the scale, since that is what the hardware has.
# - **At the end** the one division, the output, and the log-sum-exp for the way back. Nothing with $N^2$ numbers is ever stored: `store_rows` and one `tl.store` are all that is written.
#
# On a GPU these programs run side by side, as many as there is room for, heads and blocks of queries alike. That is why FlashAttention-2 turned the loops round on the way forward, as Phil Tillet had done first, in Triton (its section 3.2 says so): with the queries outside, programs share no output, and need not talk to each other. Here they run one after the other in **Triton's interpreter**, which carries out each line by NumPy: slow, and right.

# %%
try:
    short = [x[:1, :2, :80].float().requires_grad_() for x in (q, k, v)]
    by_kernel = flash_attention_triton(*short, causal=True)
    by_name = naive_attention(*short, causal=True)
    print(
        "forward is the definition, within 1e-5:", (by_kernel - by_name).abs().max().item() < 1e-5
    )
    pairs = zip(*(torch.autograd.grad(o.square().sum(), short) for o in (by_kernel, by_name)))
    print("dQ, dK, dV, within 1e-5:", [(x - y).abs().max().item() < 1e-5 for x, y in pairs])
    half = flash_attention_triton(*(x.bfloat16() for x in short), causal=True).float()
    print("inputs in bfloat16, within 0.03:", (half - by_name).abs().max().item() < 0.03)
except ImportError as error:  # there is Triton for Linux
    print(error)

# %% [markdown]
# **The way back** is a small kernel for $D$, and then two: one for a block of keys, which goes over the queries and holds $\mathrm dK$ and $\mathrm dV$, one for a block of queries, which goes over the keys and holds $\mathrm dQ$. So no two programs add to one number, at the price of computing $P$ and $\mathrm dP$ twice: seven products in place of five. (FlashAttention-2 has one kernel, and adds up $\mathrm dQ$ with
# atomic additions.) The first of them, beside the table of section 10:

# %%
from course_lib.attention.triton_flash import backward_keys_kernel

show_source(backward_keys_kernel)

# %% [markdown]
# **FlashAttention-2 and 3, in words.** The second version computes the same with fewer operations that are no matrix products (one division at the end; $L$ in place of $m$ and $\ell$): on an A100 such an operation is 16 times as dear as one inside a product, 19.5 against 312 TFLOP/s (its section 3.1). It puts queries outside, so
# that one long sequence is enough work for a whole GPU, and divides a tile among its groups of threads by queries, too, so that they need not exchange partial results.
#
# On an H100 that was 35 % of the peak (Shah et al., section 1): there, loading and multiplying are started by a thread and then go on without it, and a program has to make use of that. The third version does: some threads only load, others only compute; and while the softmax of one tile is on its way, the product of the next one is computed. With both it reaches 661 TFLOP/s, without the one or the other 570 and 582 (their table 2: fp16, $d = 128$, 8,448 tokens). And it computes in **FP8**, with a scale for each block in place of
# one for a whole matrix, and with $Q$ and $K$ multiplied by a random orthogonal matrix, which spreads outliers over all entries and leaves $Q K^\top$ as it is.

# %% [markdown]
# ## How good is it?
#
# Published, with the hardware. TFLOP/s count $4 N^2 d$ operations a head forward and 2.5 times as many backward, half of it if causal.
#
# | | against | result | hardware | source |
# | --- | --- | --- | --- | --- |
# | FlashAttention, attention alone, GPT-2 | PyTorch | 7.6 times as fast | not named there | Dao et al. 2022, figure 1, p. 2 |
# | BERT-large, trained to 72.0 % | NVIDIA's record, MLPerf 1.1 | 17.4 in place of 20.0 minutes, 15 % faster | 8 A100 | table 1, p. 7 |
# | GPT-2 small, trained | HuggingFace; Megatron-LM | 2.7 in place of 9.5; of 4.7 days | 8 A100 | table 2, p. 8 |
# | GPT-2 medium, trained | HuggingFace; Megatron-LM | 6.9 in place of 21.0; of 11.5 days | 8 A100 | table 2, p. 8 |
# | FlashAttention-2 | FlashAttention | 1.7 to 3.0 times as fast; up to 230 TFLOP/s, 73 % of the peak | A100 80 GB | Dao 2023 (as of ICLR), section 4, p. 7 |
# | GPT-3 2.7B, context 8k, trained | none; FlashAttention | 225 TFLOP/s in place of 80; of 175 | 8 A100 80 GB | table 1, p. 9 |
# | FlashAttention-3, fp16 | FlashAttention-2 | 1.5 to 2.0 times as fast forward; up to 740 TFLOP/s, 75 % of the peak | H100 SXM5 | Shah et al. 2024, section 4 |
# | FlashAttention-3, FP8 | | close to 1.2 PFLOP/s | H100 SXM5 | section 1, figure 7 |
#
# How to read it:
#
# - **Attention alone gains more than training**, 7.6 against 1.15 to 3.5: the other layers stay as they are. The longer the sequence, the larger attention's share, and so the gain: 1.3B parameters go from 142 to 196 TFLOP/s at 2k tokens, and from 72 to 220 at 8k (Dao 2023, table 1).
# - **The gain is as large as the other is slow**: 3.5 times against one library, 1.7 times against a better one.
# - **Memory** grows linearly and is up to 20 times less (Dao et al. 2022, section 4.3). That is what long contexts are made of.
#
# **Ours.** `python -m benchmarks attention`: one head, $d = 64$, float32, one core of an AMD EPYC server, November 2026. Time on the processor, that of the definition and of PyTorch's own `scaled_dot_product_attention` (*sdpa*) divided by ours:
#
# | $N$ | forward: definition | sdpa | with backward: definition | sdpa | causal, with backward: definition | sdpa |
# | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
# | 1,024 | 1.3 | 0.56 | 1.2 | 0.77 | 1.6 | 0.82 |
# | 4,096 | 2.0 | 0.73 | 1.6 | 0.84 | 4.2 | 0.84 |
# | 16,384 | 2.1 | 0.75 | 1.6 | 0.84 | 4.9 | 0.80 |
#
# At the peak of forward and backward the process grew, at 4,096 tokens and at 16,384, by 12 and 46 MB in tiles, by 200 and 3,102 MB by the definition, and by 10 and 34 MB with sdpa.
#
# Tiles pay on a CPU, too: one of 256×256 numbers stays in its cache, and for the whole matrix the system has to be asked for memory each time. With a causal mask they skip half, where the definition computes all and masks it. PyTorch's own is one program in C++, with tiles of its own; ours asks Python for every tile, and takes a fifth more time, forward a third.
#
# *The limits.* Another run of it, at 4,096 tokens, had 1.8 forward and 1.4 with backward, and with a causal mask 5.7 and 3.8: they are good to a fifth. And a good part of the gain is the system's, which hands out the pages of a large matrix anew at each call. Where the C library was told to keep them, the four were 0.93, 0.88, 2.8 and 2.3: without a mask
# tiles then save memory, and no time.
#
# **On a GPU**, an H100 with 80 GB, `python -m benchmarks attention --device cuda`: the kernels of section 12 beside PyTorch's own, 16,384 tokens in all, heads 2,048 numbers wide together, bfloat16; medians of the time on the GPU (PyTorch 2.11, Triton 3.6, not the 3.7.1 of this course). Our TFLOP/s, and how many times as fast that is as PyTorch's *flash* backend, which is FlashAttention-2, and as *cuDNN*'s:
#
# | $d$ | causal | $N$ | forward, TFLOP/s | flash | cuDNN | backward, TFLOP/s | flash | cuDNN |
# | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
# | 64 | no | 1,024 | 386 | 1.35 | 0.90 | 283 | 1.34 | 0.83 |
# | | | 4,096 | 445 | 1.44 | 0.92 | 332 | 1.26 | 0.74 |
# | | | 16,384 | 429 | 1.42 | 0.89 | 368 | 1.35 | 0.80 |
# | 64 | yes | 1,024 | 297 | 1.38 | 0.88 | 189 | 1.27 | 0.81 |
# | | | 4,096 | 407 | 1.42 | 0.93 | 293 | 1.29 | 0.78 |
# | | | 16,384 | 437 | 1.46 | 0.93 | 343 | 1.31 | 0.78 |
# | 128 | no | 1,024 | 411 | 1.22 | 0.69 | 313 | 1.40 | 0.75 |
# | | | 4,096 | 501 | 1.41 | 0.75 | 342 | 1.21 | 0.62 |
# | | | 16,384 | 487 | 1.42 | 0.72 | 355 | 1.22 | 0.60 |
# | 128 | yes | 1,024 | 300 | 1.21 | 0.69 | 198 | 1.21 | 0.69 |
# | | | 4,096 | 440 | 1.41 | 0.76 | 287 | 1.14 | 0.62 |
# | | | 16,384 | 496 | 1.59 | 0.79 | 330 | 1.11 | 0.58 |
#
# - **A page of Triton is 1.1 to 1.6 times as fast as FlashAttention-2 there, and 0.6 to 0.9 times as fast as cuDNN**, which is written for this card. The comparison flatters ours: sizes of tiles were chosen on this card, at 4,096 tokens without a mask, while FlashAttention-2 was written for the A100 (on an H100 its paper has up to 335 TFLOP/s, section 4.1).
# - **Memory**: output, gradients and two numbers a row are all that comes on top: 4.06 times the size of $Q$ for $d = 64$ and 4.03 times for $d = 128$, at every $N$.
# - **The check at the door** (is every number finite?) is not in these times. It makes the processor wait for the GPU: 0.5 to 0.8 ms a call, more than the forward pass itself at 1,024 tokens, and `flash_attention_triton.inside` does without.
# - **Right there, too**: against the definition in float64, for all head sizes, causal and not, up to 1,000 tokens, output and gradients are off by at most $1.1 \cdot 10^{-5}$ in float32, $7 \cdot 10^{-4}$ in float16 and $5 \cdot 10^{-3}$ in bfloat16, of the largest number (or of 1, where that is larger).
#
# **And as a model of images?** The transformer of section 7's third row beside chapter 01's PixelCNN, on the same task: 8×8 digits in 17 grey levels, given the class.

# %% jupyter={"source_hidden": true}
table = "| model | parameters | steps | bits a pixel, test |\n"
table += "| --- | ---: | ---: | ---: |\n"
nats = []
for name in ("pixelcnn_digits_grey", "pixel_transformer_digits"):
    card = load_card(name)
    bits, steps = card["metrics"]["bits per dimension"], card["steps"]
    nats.append(card["metrics"]["test negative log-likelihood (nats)"])
    table += f"| `{name}` | {card['parameters']:,} | {steps:,} | {bits:.3f} |\n"
    error = card["metrics"]["standard error (nats)"]
table += (
    f"\nIn nats an image: {nats[0] - nats[1]:.1f} apart; the standard error of each is {error:.1f}."
)
Markdown(table)

# %% [markdown]
# A little better, with half as many parameters again. (Which of the two is the reason, the table does not say.)
#
# ## What to take away
#
# - Attention is a soft lookup: $O = \operatorname{softmax}(Q K^\top / \sqrt d)\, V$. All that grows with $N^2$ is the table between the two products.
# - A sum of exponentials can be corrected when its maximum moves, exactly, by one factor. So can the output, which is a sum. The softmax itself cannot: it has $N$ numbers.
# - $(m, \ell, \tilde o)$ of two sets of keys without a common one merge, in any order: tiles, split-K and ring attention are one formula.
# - Tiles move $\Theta(N^2 d^2 / M)$ numbers in place of $\Theta(N d + N^2)$. They compute no less. They wait less.
# - Backward the tile of $P$ is computed again from $L$; and $D_i = \mathrm do_i \cdot o_i$ is all that the softmax's Jacobian asks of the rest of the row.
#
# **What does not work well.** There are still $N^2 d$ operations: twice the tokens, four times the work. Short rows gain little. A kernel is written for one kind of hardware, and the next kind asks for another. Gradients of gradients, and whatever else looks at $P$ itself, are not to be had from it.
#
# **What came after.**
#
# - *Units that grow at different speeds*: on Blackwell GPUs exponentials and the small memory are the bottleneck; exponentials are computed by polynomials, and corrections skipped where the maximum moves little: FlashAttention-4 (Zadouri et al. 2026, [arXiv:2603.05451](https://arxiv.org/abs/2603.05451)).
# - *A kernel for your own mask or score*, compiled from a few lines: FlexAttention (Dong et al. 2024, [arXiv:2412.05496](https://arxiv.org/abs/2412.05496)).
# - *Fewer keys and values to store* when decoding: grouped-query attention (GQA, Ainslie et al. 2023, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245)), one latent for all heads (multi-head latent attention, MLA: DeepSeek-V2, 2024, [arXiv:2405.04434](https://arxiv.org/abs/2405.04434)), and a cache in pages (PagedAttention, Kwon et al. 2023, [arXiv:2309.06180](https://arxiv.org/abs/2309.06180)).
# - *Fewer pairs*, chosen by the model itself: native sparse attention (Yuan et al. 2025, [arXiv:2502.11089](https://arxiv.org/abs/2502.11089)).
#
# **Next, chapter 16:** when one machine is not enough. (What lets images look at words is attention, too: [chapter 12](12_latent_diffusion.ipynb).)

# %% [markdown]
# [← 14 · Stable Diffusion 3](14_sd3.ipynb) | [Contents](../README.md#chapters) | [16 · Scaling out →](16_scaling_out.ipynb)
