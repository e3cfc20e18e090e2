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
# [← 15 · FlashAttention](15_flash_attention.ipynb) | [Contents](../README.md#chapters)

# %% [markdown]
# # 16 · Scaling out
#
# **Train one model in many processes at once, and get the model that one process would have got, sooner. Start them yourself, look at
# every message that they send, and see what breaks when one of them dies.**
#
# | | |
# | --- | --- |
# | You need | gradients and an optimiser (Adam); chapter 01: what MADE is (only as something to train). A graphics card is not needed: two processes on two cores do the same as two hundred on two hundred cards |
# | Time | 40 minutes to read, an hour and a half with the exercises |
# | The short way | 25 minutes: sections 1, 2 and 4, the tables of section 9, and *What to take away*; leave out all that is called a check |
# | You will meet | data parallelism, DDP, rank, all-reduce, reduce-scatter, all-gather, the ring, buckets, overlap, gradient accumulation, `no_sync`, torchrun, ZeRO, FSDP, tensor and pipeline parallelism |
# | Papers | Li et al. 2020, [PyTorch Distributed](https://arxiv.org/abs/2006.15704); Patarasuk and Yuan 2009, [bandwidth optimal all-reduce](https://doi.org/10.1016/j.jpdc.2008.09.002); Goyal et al. 2017, [ImageNet in 1 hour](https://arxiv.org/abs/1706.02677); Rajbhandari et al. 2020, [ZeRO](https://arxiv.org/abs/1910.02054) |
# | Source article | the one with the simplest example of PyTorch's DDP (一个最简单的 DDP PyTorch 例子) and its principle in plain words (大白话原理) (in Chinese) |
#
# ## See it
#
# Run the cell below (Shift+Enter). Four processes have computed a gradient each, cut into four chunks. All four need the *sum*. Play it, or step: every process sends
# one chunk to its neighbour at a time.

# %%
import torch

from course_lib.notebook import one_thread, seeded
from course_lib.widgets import Ring

one_thread()  # models this small are slower on two
Ring(processes=4, title="Four processes, one sum")

# %% [markdown]
# Three things to notice:
#
# - **Nobody is in the middle.** Each process talks to two neighbours, and all of them send in every step. No line waits while another works.
# - **First half: sums grow.** After three steps each process holds one chunk of the finished sum, and it is a different chunk for each.
# - **Second half: sums travel.** Three more steps, and everybody has every chunk.
#
# Six steps of a quarter of the gradient: each process has sent one and a half times its gradient. How much would it be with a thousand processes? (Section 4. Guess first.)

# %% [markdown]
# ## The idea
#
# A model learns too slowly, and you have $N$ cards. The source article tells in three sentences what PyTorch's DDP (*distributed data parallel*) does with them:
#
# 1. $N$ **processes** are started, one a card. Each loads the model; the parameters are equal in all of them.
# 2. While they train, the processes exchange their **gradients**, over a ring.
# 3. Each takes the **average** of the gradients and updates its own parameters with it.
#
# So each process sees its own share of every batch, all take the same step, and the models stay equal. No parameter is ever sent, after the start.
#
# *Why processes and not threads?* Python lets one thread at a time run its code (the global interpreter lock), so that the threads of one process would wait for each other. Processes share nothing, and a card in another
# machine is no different from one in this one.
#
# *Why share the batch, and not the model?* Because it is so little work: the model stays as it is, and so does the loss. It asks for one thing: the whole model must fit on one card. Section 9 is about what to do when it doesn't.
#
# | symbol | meaning |
# | --- | --- |
# | $N$; $r$ | how many processes; the number of one, its *rank*, 0 to $N - 1$ |
# | $B$; $B_r$ | examples in the whole batch; in the share of process $r$ |
# | $\theta$; $\ell_i(\theta)$ | parameters; the loss of example $i$ |
# | $L$; $g$; $g_r$ | mean loss of the whole batch; its gradient; the gradient of the mean loss of share $r$ |
# | $S$ | bytes of one gradient |
# | $\alpha$, $\beta$ | seconds that a message takes however short it is (latency); further seconds per byte, 1 over the bandwidth |
# | $T$ | seconds until all is done |
# | $K$ | how many buckets the gradient is cut into |
# | $u$, $c$, $a$ | seconds of the backward pass; of sending the whole gradient, without latency; latency of one all-reduce |
# | $A$ | how many small batches are added up before a step |
# | $v$; $\rho$ | variance of one example's gradient, over its noise; correlation of two examples that share their noise |
# | $\eta$, $\eta'$ | learning rates |
# | $M_0$ to $M_3$ | bytes in one process at ZeRO's stages |
# | $\Psi$ | how many parameters |
# | $p$, $q$ | seconds of backward and of sending, for one bucket |
# | $j$ | counts steps |
# | $\nabla$; $O$ | gradient by $\theta$; of the order of |

# %% [markdown]
# ## 1. Why the average is right
#
# The loss of a batch is the mean over its examples, and a gradient of a sum is the sum of gradients. Sort the examples by the process that has them:
#
# $$\nabla L = \frac 1 B \sum_{i=1}^{B} \nabla \ell_i(\theta)
#   = \sum_{r=0}^{N-1} \frac{B_r}{B} \cdot \frac{1}{B_r} \sum_{i \text{ in share } r} \nabla \ell_i(\theta)
#   = \sum_{r=0}^{N-1} \frac{B_r}{B}\, g_r .$$
#
# With equal shares $B_r / B = 1 / N$, and what stands there is the plain average:
#
# $$\boxed{\; g = \frac 1 N \sum_{r=0}^{N-1} g_r \;}$$
#
# That is the gradient of the *whole batch*, not an approximation of it. The rest is induction: the processes start with the same $\theta$; if $\theta$ and the optimiser's state are the same before a step, and the gradient is the same,
# they are the same after it, since an optimiser rolls no dice. So one sum over all processes per step, which all of them get (an *all-reduce*), is all that $N$ processes have to say to each other.
#
# Three conditions are hidden in this, and section 3 breaks each of them: the shares are **equal**; the loss of an example depends on **no other example**; and the shares together are **the batch** that one process would have had, noise included.
#
# **Check** in float64, with a MADE on the binary digits of chapter 01. Cut a batch of 64 into 2, 4, 8, 16 shares, and average.

# %%
import math

from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn

from course_lib.autoregressive import MADE
from course_lib.data import binarize, load_digits
from course_lib.exercises import check, hint, show_source, solution
from course_lib.widgets import PALETTE, show_figure

grey, labels = load_digits("train")
digits = binarize(grey, threshold=0.5).flatten(1)  # [1438, 64] of zeros and ones
torch.manual_seed(0)
made = MADE(64, [128]).double()


def gradient(model, loss):
    """The gradient of a loss by all parameters, as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


batch = digits[:64].double()
whole = gradient(made, made.loss(batch))
for n in (2, 4, 8, 16):
    shares = [gradient(made, made.loss(share)) for share in batch.tensor_split(n)]
    off = (sum(shares) / n - whole).abs().max().item()
    print(f"{n} shares: their average is the gradient of the batch, within 1e-12: {off < 1e-12}")

# %% [markdown]
# *Why average gradients, and not the parameters after the step?* For plain SGD it would be the same, since its step is linear in the gradient. Adam's is not: it divides by the root of a mean of *squared* gradients, so that its first step is hardly more than the gradient's sign, and the mean of two signs is not the sign of the mean. Take both steps, once with each optimiser:


# %%
def step_of(optimiser, rows):
    """How the first step on some rows of the batch changes a fresh MADE: one vector."""
    torch.manual_seed(0)
    model = MADE(64, [128]).double()
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    stepper = optimiser(model.parameters(), lr=1e-3)
    model.loss(batch[rows]).backward()
    stepper.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach() - before


for optimiser in (torch.optim.SGD, torch.optim.Adam):
    together = step_of(optimiser, slice(None))
    averaged = (step_of(optimiser, slice(32)) + step_of(optimiser, slice(32, None))) / 2
    off = (averaged - together).norm() / together.norm()
    print(f"{optimiser.__name__}: averaged parameters are off by {off:.0%} of the step")

# %% [markdown]
# Li et al. (2020, section 2.2) name a second reason: parameters can be averaged only after the step, when nothing is left to be computed in the meantime. Gradients become ready one by one, and can travel while others are still on their way (section 5).
#
# ## 2. Run it
#
# Here is the article's "simplest example", for the course's MADE. Every process runs this function.

# %%
from course_lib.experiments import train_share

show_source(train_share)

# %% [markdown]
# Four lines make the difference to a loop in one process: take a share, sum up over the processes, divide by how many there are, and, before all that, start from equal parameters. Everything else is as before. (DDP hides the two lines in the middle in `loss.backward()`; how, is section 5.)
#
# **Start it.** `run_processes` starts two fresh Pythons on this machine, which find each other and form a group; the library that carries their messages is *gloo* (between NVIDIA's cards it would be NCCL). Each has one thread. Starting costs seconds, most of them for `import torch`. Then the same in one process, once with the
# whole batch at a time, and once with the two shares one after the other.

# %%
from course_lib.parallel import run_processes

steps = 150
two = run_processes(train_share, 2, digits, steps, timeout=180)
one = train_share(digits, steps)
in_turn = train_share(digits, steps, parts=2)


def same(a, b):
    return all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)


def apart(a, b):
    return max((a.parameters[k] - b.parameters[k]).abs().max().item() for k in a.parameters)


print("the two processes hold the same parameters, bit for bit:", same(*two))
print("so does one process that adds up the two shares:", same(two[0], in_turn))
print("and one that takes the whole batch at once:", same(two[0], one))
print("but no parameter differs by more than 1e-4 there:", apart(two[0], one) < 1e-4)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.6, 2.9))
axes = figure.subplots()
for rank, role in ((0, "data"), (1, "latent")):
    axes.plot(
        two[rank].losses, lw=1.1, alpha=0.9, color=PALETTE[role], label=f"share of rank {rank}"
    )
mean = [sum(pair) / 2 for pair in zip(two[0].losses, two[1].losses)]
axes.plot(one.losses, lw=2, color=PALETTE["model"], label="one process, whole batch")
axes.plot(range(0, steps, 6), mean[::6], "o", ms=3.5, color="black", label="mean of the two")
axes.set(title="Two processes, one training run", xlabel="step", ylabel="loss in nats")
axes.legend(frameon=False)
figure.tight_layout()
show_figure(
    figure,
    alt="Losses over the steps: two thin lines, the shares of the two processes, wander around a thick "
    "one, that of one process on the whole batch; dots, the mean of the two, lie on the thick line.",
)

# %% [markdown]
# Look at the four lines that were printed:
#
# - **The two processes agree to the last bit.** They must: a difference in one bit would never be repaired, since parameters are not sent again.
# - **One process that takes the shares in turn agrees to the last bit, too.** It adds the same two numbers, and for two numbers the order doesn't matter, in floating point either.
# - **One process with the whole batch does not.** The sum over 64 examples is then one matrix product, which adds up in another order, and floating-point sums depend on the order. After 150 steps of Adam no parameter differs by more than $10^{-4}$: the dots lie on the line. This is what "the same as one big batch" can mean on real machines, as long as the order of a sum is left to the kernels.
#
# With four processes the second statement would be lost as well: a sum of four numbers has several orders, and the ring has one of its own for every chunk (section 4).

# %% [markdown]
# ## 3. Where it is not the same
#
# Section 1 asked for equal shares, for losses that keep to themselves, and for the same batch. Break one after the other, and measure.
#
# **Unequal shares.** DDP divides by $N$, whatever the shares. If one process has 48 examples and another 16, as at the end of an epoch, then the average of their gradients is a *mean of means*: each of the 16 counts three times as much as each of the 48.

# %%
large, small = gradient(made, made.loss(batch[:48])), gradient(made, made.loss(batch[48:]))
off = ((large + small) / 2 - whole).norm() / whole.norm()
print(f"48 and 16 examples: off by {off:.0%} of the gradient's length")

# %% [markdown]
# It is the gradient of another loss, with other weights, and nobody complains. Two cures: leave out what doesn't divide (PyTorch's `DistributedSampler` repeats examples instead, so that some count twice), or give each share its own weight.
#
# **Exercise 1: the weighted mean.** Make the gradient of the whole batch from those of unequal shares. One process may have had no example at all. (`hint("16.weighted_mean")` helps, as with every exercise; `solution(...)` shows what the library does;
# every `check` judges your function on fresh random inputs.)


# %%
def weighted_mean(gradients, shares):
    """Gradients [N, ...] of the mean losses of N shares, and how many examples each has, [N]."""
    ...


check("16.weighted_mean", weighted_mean)

# %% [markdown]
# The course's `fit` multiplies each process's loss by its weight *before* the backward pass, and sums.
#
# **BatchNorm.** It subtracts the mean of the *batch* and divides by its spread. Then an example's loss depends on its neighbours, and the sum over examples can't be taken apart. In many processes each share is normalised by itself:

# %%
torch.manual_seed(1)
normed = nn.Sequential(
    nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
).double()
images, classes = grey[:64].double(), labels[:64]


def classify(share):
    """The classifier's loss on some of the 64 images."""
    return nn.functional.cross_entropy(normed(images[share]), classes[share])


everybody = torch.arange(64)
true = gradient(normed, classify(everybody))
table = "| processes | images each | off by, share of the gradient's length |\n"
table += "| ---: | ---: | ---: |\n"
for n in (1, 2, 4, 8, 16):
    mean = sum(gradient(normed, classify(share)) for share in everybody.tensor_split(n)) / n
    table += f"| {n} | {64 // n} | {(mean - true).norm() / true.norm():.0%} |\n"
Markdown(table)

# %% [markdown]
# The smaller the share, the farther off; and it is another *model* that is trained, one with noisier statistics. That is often harmless, and Goyal et al. (2017, section 2.3) even define it so: with 32 images a card, statistics per card whatever $N$, so that results can be compared between different $N$. Where shares are small, `nn.SyncBatchNorm` sends
# each layer's means and variances around as well, and in the backward pass two sums: two more exchanges a layer, and the layer waits for both. DDP moreover sends the running averages of rank 0 to all others. GroupNorm and LayerNorm, which the course's networks use, look at one example at a time, and have none of these troubles.
#
# **Exercise 2: join the variances.** What would the processes have to send, to normalise as one would? Each knows mean, variance and number of its own examples. Derive the variance of the whole batch. (The weighted mean of variances is too small. By what?)


# %%
def joined_variance(means, variances, counts):
    """Means and variances [N, C] of N shares (mean squared deviations), counts [N]: [C]."""
    ...


check("16.joined_variance", joined_variance)

# %% [markdown]
# **The same noise everywhere.** Many losses draw noise: a VAE's code, a diffusion model's $\varepsilon$. Write `torch.manual_seed(0)` at the top of the script, so that all processes start alike, and they also draw alike: example 1 of each share gets the same noise. The gradient is still right *on average*. But $N$ examples now share each noise. Let $v$ be the variance of one example's gradient, seen over the noise, and $\rho$ the
# correlation of two examples with the same noise. A group of $N$ has the variance $\frac{v}{N} (1 + (N-1) \rho)$, and there are $B / N$ groups:
#
# $$\text{variance of } g \;=\; \frac v B\, \big(1 + (N - 1)\, \rho\big), \qquad \text{not} \quad \frac v B .$$
#
# How large is $\rho$? Measure it, on chapter 02's VAE: the gradient of one batch of 32 digits under 60 draws of noise, different in all processes, and then the same.

# %%
from course_lib.training import load_pretrained

vae = load_pretrained("vae_digits")
few = binarize(grey[:32], threshold=0.5)


def spread(n, alike):
    """The variance of the average of n processes' gradients, over 60 draws of noise, summed up."""
    draws = []
    for k in range(60):
        seeds = [k if alike else 100 * r + k for r in range(n)]
        losses = [vae.loss(s, generator=seeded(i)) for s, i in zip(few.tensor_split(n), seeds)]
        draws.append(gradient(vae, sum(losses) / n))
    return torch.stack(draws).var(0).sum().item()


table = "| processes | variance with the same noise, over that with different noise | so ρ is |\n"
table += "| ---: | ---: | ---: |\n"
for n in (2, 4):
    ratio = spread(n, alike=True) / spread(n, alike=False)
    table += f"| {n} | {ratio:.2f} | {(ratio - 1) / (n - 1):.2f} |\n"
Markdown(table)

# %% [markdown]
# The correlation is above one half: most of what a noise does to the gradient, it does to two different digits alike. If each process keeps its number of examples, $B / N$, and $N$ grows, the variance doesn't fall to 0 but to $\rho\, v$ over that number: more cards, and the noise stays. The cure is a seed that depends on the rank, for noise and *not* for the start. `fit` draws from a generator of (seed, step, rank).
#
# **Shuffling.** Each process must take *its* part of *one* order. If each shuffles all data for itself and takes the first $1/N$, an example is missed by one process with probability $1 - 1/N$, and by all with
#
# $$\Big( 1 - \frac 1 N \Big)^{N} \;\longrightarrow\; e^{-1} = 0.368 .$$

# %%
total = 1_436  # digits, so that 2 and 4 divide them
table = "| processes | never seen in an epoch | (1 − 1/N)ᴺ |\n| ---: | ---: | ---: |\n"
for n in (2, 4):
    times = torch.zeros(total)
    for rank in range(n):
        times[torch.randperm(total, generator=seeded(rank))[: total // n]] += 1
    table += f"| {n} | {(times == 0).double().mean():.1%} | {(1 - 1 / n) ** n:.1%} |\n"
Markdown(table)

# %% [markdown]
# Nothing crashes, and the loss falls; only an "epoch" is none. (It is the reason for `sampler.set_epoch(epoch)`: one seed for all processes, another one for every epoch. Forget it, and all epochs have one order.) In `fit` and in `train_share` every process draws the order of the whole batch, and keeps its share.
#
# **Exercise 3: break it on purpose.** Write a loss for which two processes with shares of *equal* size average to a gradient that points elsewhere than the batch's. What do all such losses have in common?


# %%
def bad_loss(errors):
    """Errors [n] of any number of examples, in any order: a loss, one number."""
    ...


check("16.break_the_average", bad_loss)

# %% [markdown]
# ## 4. The ring
#
# $N$ processes hold a gradient of $S$ bytes each, and all need the sum. This is called **all-reduce**. The plainest way is a **star**: all send to rank 0, which adds up and sends the sum back. Rank 0 then has to receive $(N - 1)\, S$ bytes and to send as many, through one line, while everybody else waits. With
# more processes it takes longer in proportion. (A single parameter server is such a star.)
#
# **The ring** gives everybody the same work. Each process cuts its gradient into $N$ chunks of $S / N$ bytes, and speaks with its two neighbours only.
#
# - **Reduce-scatter**, $N - 1$ steps. In each, every process sends one chunk to the next process, and adds the chunk that arrives to its own. A chunk goes once round, and collects the sum on its way. In the end each process has one chunk of the finished sum.
# - **All-gather**, $N - 1$ steps. The finished chunks go round once more, and replace what they meet.
#
# In each of the $2 (N - 1)$ steps a process sends one chunk. In all:
#
# $$\boxed{\; 2\, (N - 1) \cdot \frac S N \;=\; 2\, \frac{N - 1}{N}\, S \;<\; 2 S \;}$$
#
# However many processes there are, none sends more than twice its gradient. That answers the question at the top: a thousand processes send 1.998 times their gradient each.

# %%
from course_lib.parallel import ring_all_reduce, ring_bytes, ring_steps

show_source([ring_steps, ring_bytes])

# %% [markdown]
# **Check.** The ring's result is the sum, for any shape and any $N$; all processes hold the same bits; and the bytes that were sent, counted from the log of messages, are the formula. The chunks of 840 numbers are equal for these $N$.

# %%
table = "| N | steps | it is the sum | the same bits everywhere | "
table += "sent by each process, in S, counted | formula |\n"
table += "| ---: | ---: | :---: | :---: | ---: | ---: |\n"
for n in (1, 2, 3, 4, 8, 40):
    tensors = [torch.randn(28, 30, generator=seeded(r)) for r in range(n)]
    results, messages = ring_all_reduce(tensors)
    right = all(torch.allclose(t, torch.stack(tensors).sum(0), atol=1e-4) for t in results)
    alike = all(torch.equal(t, results[0]) for t in results)
    sent = {sum(m.size for m in messages if m.source == r) / tensors[0].nbytes for r in range(n)}
    steps_taken = messages[-1].step if messages else 0
    table += f"| {n} | {steps_taken} | {right} | {alike} | "
    table += f"{', '.join(f'{s:.3f}' for s in sent)} | {ring_bytes(1, n):.3f} |\n"
Markdown(table)

# %% [markdown]
# In each row the fifth column holds *one* number: all processes send the same.
#
# **Can it be done with less?** No. Look at one place of the gradient, and count messages of one number each, in the order of their arrival. Take the first moment at which *some* process knows the finished sum. Until then each of the other $N - 1$ must have sent at least one message, or its part would be missing: at least $N - 1$ messages. At that moment nobody else knows the sum, and
# each of the other $N - 1$ must still receive something: at least $N - 1$ more. That makes $2 (N - 1)$ for each place, so $2 (N - 1)\, S$ bytes in all, and with $N$ processes the busiest sends at least $2 \frac{N-1}{N} S$. The ring reaches this bound (Patarasuk and Yuan 2009). (It counts what processes send. Switches that add up on the way, as NVIDIA builds them, let each send its gradient once.)
#
# **What it does not minimise** is the number of steps. Each message costs $\alpha$ seconds however short it is, and $\beta$ seconds for each byte. Steps wait for each other, so
#
# $$T_{\text{ring}} \;=\; 2\,(N - 1)\, \alpha \;+\; 2\, \frac{N - 1}{N}\, S \beta .$$
#
# The second part hardly grows with $N$. The first does, without end.

# %%
from course_lib.parallel import ring_time

show_source(ring_time)

# %% [markdown]
# How much of the time is latency? For a gradient as large as that of the smallest GPT-2 (124 million numbers in float32), and for two smaller ones; 10 GB a second, 20 microseconds a message:

# %%
network = {"bandwidth": 10e9, "latency": 20e-6}
table = "| S | N = 2 | N = 8 | N = 64 | N = 512 |\n| --- | ---: | ---: | ---: | ---: |\n"
for words, size in (("498 MB", 498e6), ("1 MB", 1e6), ("4 kB", 4e3)):
    table += f"| {words} |"
    for n in (2, 8, 64, 512):
        waiting = 2 * (n - 1) * network["latency"]
        table += f" {waiting / ring_time(size, processes=n, **network):.0%} |"
    table += "\n"
Markdown(table)

# %% [markdown]
# For a large gradient latency is next to nothing, up to dozens of processes, and 17 % with 512. For a small one it is all. Hence two rules: *send much at once* (section 5), and where $N$ is large and messages short, use a **tree**, whose number of steps grows like $\log N$. NCCL chooses between both by size and $N$.
#
# **Now with real processes.** The same steps over gloo: each of four processes sends to its neighbour with `isend`, and receives with `recv`.

# %%
from course_lib.experiments import sum_of_draws
from course_lib.parallel import ring_all_reduce_gloo

show_source(ring_all_reduce_gloo)

# %%
real = run_processes(sum_of_draws, 4, 1000, timeout=180)
simulated, _ = ring_all_reduce([torch.randn(1000, generator=seeded(r)) for r in range(4)])
alike = all(torch.equal(r.ring, simulated[0]) for r in real)
print("all four have the bits of the simulation:", alike)
print("gloo's own all-reduce, within 1e-5:", torch.allclose(real[0].gloo, simulated[0], atol=1e-5))
in_order = sum(torch.randn(1000, generator=seeded(r)) for r in range(4))
print("and the bits of rank 0 + rank 1 + rank 2 + rank 3:", torch.equal(simulated[0], in_order))

# %% [markdown]
# The last line is the reason why four processes are not one process, bit for bit. The ring adds chunk 0 in the order 0, 1, 2, 3, chunk 1 in the order 1, 2, 3, 0, and so on: other roundings. But all processes round alike, since each sum is finished in one place and then copied. That, and nothing more, is what keeps the models equal.
#
# **Exercise 4: predict.** 16 processes sum their gradients. How many times as much does the process in the middle of a star *send* as one process of the ring? Write a number.

# %%
prediction = ...

check("16.predict_traffic", prediction)

# %% [markdown]
# **Exercise 5: a ring the other way.** Each process sends to its *left*, to rank − 1. In step 1 process $r$ sends chunk $r$, and then always the chunk that came in last; up to step $N - 1$ what comes in is added, after that it replaces. Write the step of one process. (The check then runs six of them.)


# %%
def ring_step(chunks, rank, step, incoming):
    """Chunks [N, size], incoming [size] from rank + 1: what is sent, and the chunks afterwards."""
    ...


check("16.ring_step", ring_step)

# %% [markdown]
# ## 5. Buckets: send while you compute
#
# A backward pass works from the last layer to the first. The last layer's gradient is ready when most of the work is still to be done. Why not send it at once? The card computes, the network sends, and neither needs the other.
#
# Sending each gradient by itself would be a mistake: a bias of 768 numbers is all latency. Sending all together at the end would be one as well: the network idles during the backward pass, and the card after it. So gradients are collected in **buckets** of some megabytes, and a full bucket leaves.
#
# *Why in reverse order?* Buckets are filled before anything is known about the backward pass. But parameters are listed in the order of the forward pass, and the backward pass meets them in the other one, nearly always. All processes must send the same buckets in the same order, or sums get mixed up; so this order is fixed, and a bucket that is ready too early waits. (PyTorch arranges its buckets anew after the first step, by the order in which gradients really came.)

# %%
from course_lib.parallel import DataParallel, buckets, speedup, timeline

show_source([buckets, DataParallel])

# %% [markdown]
# `DataParallel` is what PyTorch's `DistributedDataParallel` does in C++, and has the same gradients (the tests compare them). The trick is a *hook*: autograd calls `_arrive` as soon as a parameter's gradient is there.
#
# ### How large should a bucket be?
#
# Cut the gradient into $K$ equal buckets. The backward pass takes $u$ seconds, sending all bytes $c = 2 \frac{N-1}{N} S \beta$, and each all-reduce has the latency $a = 2 (N - 1) \alpha$ on top. Bucket $k$ needs $p = u / K$ seconds of the card, then $q = c / K + a$ of the network. That is an assembly line with two stations. If the card is slower, the network waits for every bucket, and only the last bucket's sending comes on top:
# $K p + q$. If the network is slower, it starts after the first bucket and never stops: $p + K q$. Together
#
# $$T(K) \;=\; \max(K p + q,\; p + K q)
#   \;=\; \max\Big( u + \frac c K + a, \;\; \frac u K + c + K a \Big) .$$
#
# The first falls with $K$: smaller buckets, less to wait for at the end. The second is least where the derivative $-u / K^2 + a$ is 0. They meet where $p = q$, at $K = (u - c) / a$. So the best, if it is 1 or more (else one bucket is), and up to rounding, is
#
# $$K^\star \;=\; \max\Big( \sqrt{u / a},\; (u - c) / a \Big) .$$
#
# Where the first is larger, the network is too slow: $T(K^\star) = c + 2 \sqrt{u a}$, one waits for the bytes, and a square root comes on top. Where the second is, $T(K^\star) = u + a\, u / (u - c)$: communication costs next to nothing. **Check** both against `timeline`, which knows nothing of the formula, for 400 equal gradients of 1 MB:

# %%
show_source(timeline)


# %%
def seconds(k, u, n, bandwidth, latency):
    """The end of the timeline with k equal buckets."""
    sizes, backward = [1_000_000] * 400, [u / 400] * 400
    cap = 400 // k * 1_000_000
    network = {"processes": n, "bandwidth": bandwidth, "latency": latency}
    return max(s.end for s in timeline(sizes, backward, bucket_bytes=cap, **network))


table = "| network | formula = timeline | best K, formula | best K, divisors of 400 | "
table += "then longer than backward alone by | with one bucket | with 400 |\n"
table += "| --- | :---: | ---: | ---: | ---: | ---: | ---: |\n"
divisors = [k for k in range(1, 401) if 400 % k == 0]
u, n, latency = 0.04, 16, 20e-6
for gb in (10, 25, 100):
    bandwidth = gb * 1e9
    c, a = ring_bytes(400e6, n) / bandwidth, 2 * (n - 1) * latency
    found = {k: seconds(k, u, n, bandwidth, latency) for k in divisors}
    formula = {k: max(u + c / k + a, u / k + c + k * a) for k in divisors}
    agree = all(abs(found[k] - formula[k]) < 1e-9 for k in divisors)
    best = max(math.sqrt(u / a), (u - c) / a)
    winner = min(found, key=found.get)
    late = [found[k] / u - 1 for k in (winner, 1, 400)]
    table += f"| {gb} GB a second | {agree} | {best:.1f} | {winner} | "
    table += " | ".join(f"{x:.0%}" for x in late) + " |\n"
Markdown(table)

# %% [markdown]
# The last three columns say what it is worth. On the slow network the step is 112 % longer than the backward pass with the best number of buckets, 189 % with one, and 688 % with one for each gradient. On the fastest, the best hides all but 2 %, and a bucket for each gradient would still add five times the backward pass: latency, 400 times.
#
# **Play.** The gradients of the smallest GPT-2, in the order of the model. Drag the end of the step to the left, until the network is no longer what you wait for: the bandwidth that it takes is shown. Then drag the size of the buckets; then switch the overlap off.

# %%
from course_lib.widgets import Timeline

width = 768
block = [3 * width * width, width * width, 4 * width * width, 4 * width * width]  # qkv, out, MLP
numbers = [50257 * width, 1024 * width] + block * 12  # embeddings, 12 blocks; no biases
sizes = [4 * k for k in numbers]
work = [1 if k < 2 else numbers[k] for k in range(len(numbers))]  # a look-up costs next to nothing
work[-1] += numbers[0]  # but the embedding is the last layer, too, and there it is multiplied with
backward = [0.04 * k / sum(work) for k in work]  # 40 ms in all: about one A100, 12,000 tokens
print(f"the embeddings are {sum(sizes[:2]) / sum(sizes):.0%} of all bytes")
Timeline(sizes, backward, processes=16, bandwidth=10e9, title="One backward pass of GPT-2")

# %% [markdown]
# The embedding is used twice, as the first layer and as the last. So it is in the way twice. As the last layer it is a third of the backward pass, and comes first: the long bar at the start, when nothing can be sent yet. And its gradient, a third of all bytes, is whole only at the end, when nothing is left to hide behind: the long bar at the end. PyTorch's default is 25 MB (the first bucket 1 MB, so that the network starts early).
#
# ### What is left of N?
#
# Two questions are asked, and often mixed up. **Weak scaling**: each process keeps its batch, so that $N$ processes do $N$ times as much in a step. **Strong scaling**: one batch is shared by all, so that each has less to do. Count both with the timeline, for the same GPT-2 (20 ms forward, 40 ms backward for a whole batch): how many times as many examples a second as one process?

# %%
show_source(speedup)

# %%
counts = [2**k for k in range(10)]
curves = {}
for words, bandwidth in (("100 GB a second", 100e9), ("10 GB a second", 10e9)):
    line = {"bandwidth": bandwidth, "latency": 20e-6, "bucket_bytes": 25_000_000}
    curves["weak", words] = [
        speedup(sizes, backward, processes=n, forward=0.02, **line) for n in counts
    ]
    curves["strong", words] = [
        speedup(sizes, [t / n for t in backward], processes=n, forward=0.02 / n, **line)
        for n in counts
    ]
table = "| scaling | network | N = 8 | N = 64 | N = 512 |\n| --- | --- | ---: | ---: | ---: |\n"
for (scaling, words), values in curves.items():
    shown = " | ".join(f"{values[k]:.1f}" for k in (3, 6, 9))
    table += f"| {scaling} | {words} | {shown} |\n"
Markdown(table)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(6.4, 3.2))
axes = figure.subplots()
axes.plot(counts, counts, ":", color=PALETTE["noise"], label="N")
for (scaling, words), values in curves.items():
    role = "data" if words.startswith("100") else "model"
    style = "-" if scaling == "weak" else "--"
    axes.plot(counts, values, style, color=PALETTE[role], label=f"{scaling}, {words}")
axes.set(title="Speed-up over one process", xlabel="processes N", ylabel="times as fast")
axes.set(xscale="log", yscale="log")
axes.set_xticks([1, 4, 16, 64, 256], [1, 4, 16, 64, 256])
axes.set_yticks([1, 4, 16, 64, 256], [1, 4, 16, 64, 256])
axes.minorticks_off()
axes.legend(frameon=False, fontsize=8)
figure.tight_layout()
show_figure(
    figure,
    alt="Speed-up over the number of processes: with weak scaling two lines rise beside the ideal one, the "
    "slow network's below it, and both bend at the right end; with strong scaling one rises up to 8 "
    "processes and then falls, the other only falls.",
)

# %% [markdown]
# **Weak** scaling on the slow network gives about half of $N$ at 8 processes (3.8) and a third at 64 (23.2): the bytes that a step waits for hardly grow with $N$, but the ring's latency does. Towards 512 it takes nearly all, on the fast network too: there is the place for trees, or for larger buckets. **Strong** scaling on the fast network is 3.6 at 8 processes and falls from there; on the slow one it only falls: the work shrinks like $1/N$, the bytes stay, and the number of messages grows. Eight processes on the
# slow network are slower than one (0.6).
#
# ## 6. Accumulate, and say nothing
#
# A batch of 512 doesn't fit into the memory? Take $A$ small batches one after the other, add up their gradients, then step. It is section 1 once more, with turns in the place of processes, and `train_share` has done it above: `parts=2`. Each small loss is divided by $A$, since `backward` adds.
#
# With many processes both happen: each accumulates $A$ small batches, then they average. By linearity it is enough to talk *once*. But the hooks of DDP don't know that more is to come, and would send each time. `no_sync` switches them off for all but the last:

# %%
from course_lib.parallel import accumulate

show_source([accumulate, DataParallel.no_sync])

# %% [markdown]
# So accumulation divides communication by $A$, and the memory for *activations* as well, what each layer puts aside for the backward pass. What it does not do is save time for computing. And it has section 3's problems: BatchNorm sees small batches, and the last one may be smaller.
#
# **A larger batch is another training.** $N$ processes with a batch each, or $A$ turns: the step is right for the large batch, but there are fewer steps in an epoch. How long should one be? Compare $A$ small steps with one large one. With SGD, and $g^{(j)}$ the gradient of small batch $j$,
#
# $$\theta_A = \theta_0 - \eta \sum_{j=0}^{A-1} g^{(j)}(\theta_j)
#   \qquad \text{against} \qquad
#   \theta_0 - \eta'\, \frac 1 A \sum_{j=0}^{A-1} g^{(j)}(\theta_0) .$$
#
# They are alike if $\eta' = A\, \eta$, and if the gradients don't change much on the way, $g^{(j)}(\theta_j) \approx g^{(j)}(\theta_0)$. This is Goyal et al.'s **linear scaling rule**. The second condition fails where gradients change quickly, at the beginning, which is why they *warm up*: the learning rate rises to its value over five epochs. And it fails when $A \eta$ is large. **Check:** eight SGD steps of 8 digits, and one of 64 with eight times the learning rate. By how much do the ways differ?

# %%
table = "| learning rate of the small steps | off by, share of the way |\n| ---: | ---: |\n"
for rate in (0.001, 0.01, 0.1):
    ends = []
    for cuts, lr in ((8, rate), (1, 8 * rate)):
        torch.manual_seed(0)
        model = MADE(64, [128]).double()
        start = nn.utils.parameters_to_vector(model.parameters()).detach()
        sgd = torch.optim.SGD(model.parameters(), lr=lr)
        for part in batch.tensor_split(cuts):
            sgd.zero_grad()
            model.loss(part).backward()
            sgd.step()
        ends.append(nn.utils.parameters_to_vector(model.parameters()).detach() - start)
    table += f"| {rate} | {(ends[0] - ends[1]).norm() / ends[0].norm():.1%} |\n"
Markdown(table)

# %% [markdown]
# (For Adam, whose step hardly depends on the gradient's length, people rather multiply by $\sqrt A$, or try.)
#
# **Exercise 6: the last one is smaller.** $N$ processes accumulate small batches of text, with `counts` $[N, A]$ tokens in each; then the mean over the processes is taken. By what must each small batch's mean loss be multiplied, so that every token counts alike?


# %%
def loss_factors(counts):
    """How many tokens each small batch of each process has, [N, A]: factors [N, A]."""
    ...


check("16.accumulated_loss", loss_factors)

# %% [markdown]
# ## 7. What breaks
#
# **A process dies.** It runs out of memory, its machine reboots. The others stand in the next all-reduce and need its message. If the connection breaks, gloo tells each of them so, and names a connection, not the culprit. If the process only hangs, they wait until a timeout: 30 minutes for gloo, 10 for NCCL, unless you say otherwise. Whoever starts processes must therefore watch them: when one ends,
# end all, and say which it was. Let rank 1 be killed in step 13 of 20:

# %%
from tempfile import TemporaryDirectory

from course_lib.experiments import forgotten_branch, train_or_die
from course_lib.parallel import WorkerError

folder = TemporaryDirectory()
mine, other = f"{folder.name}/mine", f"{folder.name}/other"
try:
    run_processes(train_or_die, 2, mine, 1, timeout=180)  # rank 1 will not live to see step 14
except WorkerError as error:
    print("WorkerError:", error)

# %% [markdown]
# **And then?** What a dead process had, the others have as well. But they are in the middle of a step, and without it. So one writes a checkpoint every now and then, and after an accident starts *all* processes anew, from the last one. `fit` does it with `checkpoint=`: rank 0 writes parameters, the optimiser's state and the number of the step, here every 5 steps; all random numbers follow from (seed, step).
# Start it again: it goes on after step 10. Compare with one process that was never killed:

# %%
resumed = run_processes(train_or_die, 2, mine, timeout=180)
undisturbed = run_processes(train_or_die, 1, other, timeout=180)
off = max(abs(a - b) for a, b in zip(resumed[0], undisturbed[0]))
print("both processes end with the same parameters:", resumed[0] == resumed[1])
print("those of one process that was never killed, within 1e-5:", off < 1e-5)

# %% [markdown]
# **A parameter without a gradient.** Rank 1 leaves out a branch of the model in this step, perhaps because of its data. The branch's hooks are never called, so that its bucket never fills; rank 0 has sent its own, and waits. Ours refuses in `finish()`, and says which parameters they were:

# %%
try:
    run_processes(forgotten_branch, 2, 1, timeout=180)
except WorkerError as error:
    print("WorkerError:", error)

# %% [markdown]
# PyTorch's DDP notices in the *next* forward pass. With `find_unused_parameters=True` it looks through the graph of every step, and sends zeros for what isn't in it.
#
# **A process that has one batch less** ends its epoch, and the others wait for it in their last step, as for a dead one. All must take the same number of steps; cut what is too much (or use DDP's `join`, with which those who are done go on sending zeros).
#
# The four other ways to go wrong stand in section 3: unequal shares, BatchNorm, noise, shuffling. They are the worse ones, because nobody complains.
#
# ## 8. Launch: torchrun
#
# `run_processes` is for a page like this one. On real machines `torchrun` starts the processes. It tells each its rank by environment variables (`RANK`, `LOCAL_RANK`, `WORLD_SIZE`), watches them, ends all when one dies, and can start all anew (`--max-restarts`). The course's `fit` reads these variables. So every recipe of the course trains on two processes with
#
# ```
# torchrun --standalone --nproc-per-node 2 -m course_lib train nade_digits --steps 400
# ```
#
# Try it in a terminal, then without `torchrun` and its options: after 400 steps both have stored the same numbers, all of them (in half precision, which hides the last bits of float32), and both report 19.98 nats on the test digits. On a machine with eight cards you would write 8 and have them used, with NCCL; for several machines `--nnodes` and `--rdzv-endpoint` say how many and where they meet.
#
# | | what `fit` does with N processes |
# | --- | --- |
# | start | every process builds the model; rank 0's parameters are sent to all, in case they differ |
# | data | every process draws the same whole batch, transform included, and keeps `tensor_split(N)[rank]` |
# | noise in the loss | drawn from (seed, step, rank): different in all processes |
# | loss | times $B_r / B$, then backward, then all-reduce: right for unequal shares, too |
# | clipping | the norm of the *summed* gradient, the same everywhere |
# | optimiser, moving average | in every process, the same |
# | file, progress bar | rank 0 alone |
#
# `fit` sums the gradients one after the other when the backward pass is over, without buckets and overlap: for models as small as ours there is nothing to hide.

# %% [markdown]
# ## 9. When the model doesn't fit: ZeRO and FSDP
#
# Every process has all parameters, all gradients, and all of Adam's state. In mixed precision that is, for $\Psi$ parameters: 2 bytes each for the parameters in 16 bits, 2 for the gradients, and 12 for the optimiser (a copy of the parameters in 32 bits, and two moments). Sixteen bytes a parameter, $N$ times the same. (With PyTorch's `autocast`, parameters and gradients stay in 32 bits: 4 + 4 + 8, which is sixteen as well.) **ZeRO** (Rajbhandari et al. 2020) shares them out, each process keeping a part of $1/N$:
#
# $$M_0 = 16\, \Psi, \qquad M_1 = 4\, \Psi + \frac{12\, \Psi}{N}, \qquad M_2 = 2\, \Psi + \frac{14\, \Psi}{N}, \qquad M_3 = \frac{16\, \Psi}{N} .$$
#
# The stages fit the ring as if made for it. After the *reduce-scatter* each process holds one chunk of the averaged gradient. Stage 1: let it update *that chunk of the parameters* (and so keep the optimiser's state of this chunk alone), then send **parameters** round in the all-gather, in place of gradients. The traffic is that of before, $2 \frac{N-1}{N}$. Stage 2: forget the gradients of the other chunks as soon as they are sent.
# Stage 3, which PyTorch calls **FSDP**: forget the other chunks' parameters, too, and gather each layer's just before it is used, in the forward pass and again in the backward pass. That is one all-gather more: $3 \frac{N-1}{N}$, half as much again.

# %%
from course_lib.parallel import GPT2_SIZES, SD3_SIZES, gpt2_parameters, measured_bytes, state_bytes

show_source([state_bytes, gpt2_parameters])

# %% [markdown]
# **Check.** The formula against what PyTorch really holds after a step of Adam, for the MADE of section 1 in float32.

# %%
small = MADE(64, [128])
adam = torch.optim.Adam(small.parameters())
small.loss(digits[:8]).backward()
adam.step()
count = sum(p.numel() for p in small.parameters())
print("parameters, gradients, Adam's state")
print(*measured_bytes(small, adam), "bytes in PyTorch")
print(*map(int, state_bytes(count, precision="float32")), "by the formula")

# %% [markdown]
# Then two processes with PyTorch's own stage 3, `fully_shard`, on four matrices of 64 × 64. And the example in figure 1 of the ZeRO paper, 7.5 billion parameters on 64 cards.

# %%
from course_lib.experiments import sharded_state

for rank, held in enumerate(run_processes(sharded_state, 2, 3, timeout=180)):
    print(*held, f"bytes in rank {rank}")
sharded = state_bytes(4 * 64 * 64, processes=2, stage=3, precision="float32")
print(*map(int, sharded), "by the formula")

table = "| stage | GB, formula | GB, the paper's figure 1 |\n| --- | ---: | ---: |\n"
for stage, paper in enumerate((120, 31.4, 16.6, 1.9)):
    held = state_bytes(7_500_000_000, processes=64, stage=stage).total / 1e9
    table += f"| {stage} | {held:.1f} | {paper} |\n"
Markdown(table)

# %% [markdown]
# What about the models that you have heard of? Gigabytes in each process, *without* activations, which depend on batch and length and come on top. (They can be traded for time: keep only each block's input, and compute the rest again in the backward pass, *gradient* or *activation checkpointing*, Chen et al. 2016, [arXiv:1604.06174](https://arxiv.org/abs/1604.06174). That costs about one forward pass more, and is what chapter 15 does with its matrix $P$.)

# %%
models = {f"GPT-2 {name}": gpt2_parameters(*size) for name, size in GPT2_SIZES.items()} | SD3_SIZES
table = "| model | parameters | stage 0 | 1, N = 8 | 2, N = 8 | 3, N = 8 | 3, N = 64 |\n"
table += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
for name, count in models.items():
    cells = [(1, 0), (8, 1), (8, 2), (8, 3), (64, 3)]
    held = [state_bytes(count, processes=n, stage=stage).total / 1e9 for n, stage in cells]
    shown = " | ".join(f"{x:.3g}" for x in held)
    table += f"| {name} | {count / 1e6:,.0f} million | {shown} |\n"
Markdown(table)

# %% [markdown]
# The largest GPT-2 fits on one card of 40 GB, with 15 left for activations. SD3's 8 billion parameters need 128 GB, too much for a card of 80; with eight of them stage 1 is enough (44 GB each), and stage 3 takes 16. (The sizes of SD3 are those of the network that is trained: 8B in Esser et al. 2024, section 5.3, 2B as released.)
#
# **Play.** Choose a model, the number of processes, the batch, the network. What do you gain, and does it fit?

# %%
from course_lib.widgets import Cost

Cost(models, model="GPT-2 1558M", title="Does it fit, and how fast is it?")

# %% [markdown]
# ### Three more ways to cut
#
# - **Tensor parallelism** cuts each matrix, so that every layer is computed by several cards, which all-reduce its outputs: two all-reduces a block and direction, so only between cards with a fast link (Megatron-LM, Shoeybi et al. 2019, [arXiv:1909.08053](https://arxiv.org/abs/1909.08053)).
# - **Pipeline parallelism** puts different layers on different cards and sends activations along; small batches follow each other as on an assembly line, and the ends of the line idle (GPipe, Huang et al. 2019, [arXiv:1811.06965](https://arxiv.org/abs/1811.06965)).
# - **Ring attention** cuts the *sequence*: queries stay, keys and values go round the ring, and the parts are joined by chapter 15's `merge`, so that no card sees the whole text (Liu et al. 2023, [arXiv:2310.01889](https://arxiv.org/abs/2310.01889)).
#
# ## How good is it?
#
# | published | | source |
# | --- | --- | --- |
# | PyTorch's DDP, ResNet-50, 256 GPUs, NCCL | an iteration takes twice as long as on one GPU: 256 GPUs do the work of 128 | Li et al. 2020, section 5.3, by others' notes on it |
# | the same authors' summary | "near-linear scalability using 256 GPUs", "when configured appropriately" | their abstract |
# | overlap, 32 GPUs, NCCL | an iteration 38.0 % faster for ResNet-50, 35.2 % for BERT | section 5.1 |
# | bucket that is best, NCCL | 10 to 25 MB for ResNet-50, 50 MB for BERT | section 5.2 |
# | ResNet-50, batch of 8,192, 256 P100 | one hour; 76.3 % accuracy, as with a batch of 256 on 8 GPUs (76.4 %) | Goyal et al. 2017, table 1 |
# | the same, from 8 to 256 GPUs | about 90 % of linear | their abstract |
# | ZeRO, stages 1, 2, 3 on 64 cards | 31.4, 16.6, 1.9 GB in place of 120 | Rajbhandari et al. 2020, figure 1 |

# %% [markdown]
# Ours, by `python -m benchmarks parallel`: two processes over gloo on a virtual machine with two cores (AMD EPYC). Other programs were running (load 1.4 to 2.3); two processes that only multiplied matrices did 1.2 times as much together as one alone, so that little more than one core was free.
#
# | ours | |
# | --- | --- |
# | `fit`, an MLP of 0.6 million parameters on the digits, batch of 1,024 shared by both | 0.69 times as fast as one process |
# | the same with a batch of 64 | 0.23 times |
# | gloo's all-reduce, a line through times from 4 kB to 16 MB | 0.83 GB a second, 0.14 ms a message |
# | a step of our `DataParallel`, beside PyTorch's DDP | 1.00 times as long |
# | on two free cores; two GPUs or more, NCCL | not measured |
#
# How to read it:
#
# - **Ours loses**, for two reasons. It is strong scaling: a gradient of 2.4 MB in nine all-reduces costs 5 ms by section 4's formula with the numbers of the third row, and with a batch of 64 a whole step takes one process no more than 6.5 ms. And the two have little more than one core. Each all-reduce needs both at once, nine times a step; while one waits for a core, so does the other. That is the likely reason for the 28 ms which a step takes in two. *The slowest process sets the pace*, here as on 256 GPUs. (Under a load of 7 the same command gave 1.20 and 0.53. There two processes get two shares of a crowded machine. Don't believe a speed-up that was measured on one.)
# - **"Near-linear" is a matter of words.** Half of the time of 256 GPUs goes into waiting, in the authors' own measurement. A curve that is *a line with half the slope* is near-linear; it isn't 256 times as fast. They say how more can be had: larger buckets, more accumulation (38 % faster with one synchronisation in eight steps, their section 5.4, by the same notes).
# - **More processes are a larger batch**, if each keeps its own. Then there are fewer steps in an epoch, and the learning rate has to follow. Goyal et al. multiply it by $N$ (*linear scaling*), after a few epochs of warming up, and find no loss of accuracy up to 8,192 images; beyond that there is one. The alternative, the same batch for all together (*strong scaling*), leaves less and less work to each process, for the same bytes.
# - **Sixteen bytes a parameter** is arithmetic, and agrees to the digit. What a table of ZeRO doesn't show is time: stage 3 sends half as much again.
#
# ## What to take away
#
# - The gradient of a batch is the average of its shares' gradients. Equal starts, one all-reduce a step, equal models for ever: $g = \frac 1 N \sum_r g_r$.
# - The ring sums with $2 \frac{N-1}{N} S$ bytes a process, and nothing can do with less; what grows with $N$ is latency.
# - Buckets, in reverse order, hide the sending behind the backward pass. The best number of them is $\max(\sqrt{u/a}, (u-c)/a)$, where that is 1 or more.
# - It is the same as one big batch *if* shares are equal, examples independent (no BatchNorm), noise different and the order common. Otherwise it is something else, and says nothing.
# - Bits: all processes agree to the last one, and differ from one process in the last ones.
# - When memory is the limit, share out the optimiser's state, then gradients, then parameters: 16 Ψ/N bytes in the end.
#
# **What does not work well.** One slow process makes all slow. Large batches stop helping at some size. All cards must be there all the time. And a bug in one rank shows as silence in all others.
#
# **What came after.**
#
# - *Parameters shared out, as part of PyTorch*: FSDP (Zhao et al. 2023, [arXiv:2304.11277](https://arxiv.org/abs/2304.11277)).
# - *Send less*: gradients of low rank with error feedback, PowerSGD (Vogels et al. 2019, [arXiv:1905.13727](https://arxiv.org/abs/1905.13727)), a hook of DDP.
# - *Talk rarely*: hundreds of steps alone, then one average, over the Internet: DiLoCo (Douillard et al. 2023, [arXiv:2311.08105](https://arxiv.org/abs/2311.08105)).
#
# **Next:** the contents say which chapters there are, and which are planned.

# %% [markdown]
# [← 15 · FlashAttention](15_flash_attention.ipynb) | [Contents](../README.md#chapters)
