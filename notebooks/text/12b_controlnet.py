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
# [← 12 · Latent diffusion](12_latent_diffusion.ipynb) | [Contents](../README.md#chapters) | [13 · Rectified flow →](13_rectified_flow.ipynb)

# %% [markdown]
# # 12b · ControlNet
#
# **Draw a contour, and the model of chapter 12 fills it in. Its weights stay as they are, to the last bit; all that is new learns beside it, and starts from nothing.**
#
# | | |
# | --- | --- |
# | You need | chapter 12: latent diffusion, prompts, guidance with the empty prompt; the chain rule |
# | Time | 22 minutes to read, an hour with the exercises |
# | The short way | 15 minutes: sections 2, 3, 4 and 5, and *What to take away*; leave out all that is called a check |
# | You will meet | Canny's contours, a locked and a trained copy, zero convolutions, sudden convergence, the conditioning scale, several controls at once |
# | Papers | Zhang, Rao and Agrawala 2023, [ControlNet](https://arxiv.org/abs/2302.05543); Canny 1986, [a computational approach to edge detection](https://doi.org/10.1109/TPAMI.1986.4767851) |
# | Source article | the summary of ControlNet's technical details (ControlNet 技术细节, in Chinese) |
#
# ## See it
#
# Run the two cells below (Shift+Enter). Then choose a contour, or wipe it and **draw one**: with the notebook running, each stroke is answered. Move the strength, and change the prompt.

# %%
import torch

from course_lib.data import render, scene_of, scenes, to_signed
from course_lib.diffusion import ControlledDiffusion, ControlledUNet, ControlNet, ZeroConv, edges
from course_lib.exercises import check, hint, show_source, solution
from course_lib.metrics import contour_agreement
from course_lib.notebook import one_thread, seeded
from course_lib.training import fit, load_card, load_pretrained
from course_lib.widgets import PALETTE, ContourPad, image_grid, show_figure

one_thread()  # models this small are slower on two

# %%
diffusion = load_pretrained("latent_scenes")  # of chapter 12; it has never seen a contour
control_net = load_pretrained("controlnet_scenes").control_net

prompts = ["a bold red 3 in the middle", "a bold blue 0 in the middle"]
given = [scene_of(f"a bold white {digit} in the middle") for digit in (3, 8)]
contours = edges(render(given, split="test", generator=seeded(1)))
square = torch.zeros(1, 1, 32, 32)  # a contour that no digit has
square[..., 9:23, [10, 21]] = square[..., [9, 22], 10:22] = 1.0
contours = torch.cat([contours, square])
strengths = (0.0, 0.5, 1.0, 2.0)
noise = diffusion.denoiser.path.t_max * torch.randn(1, 4, 8, 8, generator=seeded(0))


def draw(contour, prompt, strength, steps=8):
    """The images on the way, of a contour [32, 32], a prompt's index and a strength."""
    control = (control_net, torch.from_numpy(contour)[None, None], strength)
    with torch.no_grad():
        for latent in diffusion.states([prompts[prompt]], steps=steps, controls=[control], z=noise):
            yield diffusion.to_images(latent)[0]


pairs = contours.repeat_interleave(2, 0)  # each contour with each prompt, all from one noise
examples = [
    diffusion.sample(
        prompts * 3, steps=8, z=noise.repeat(6, 1, 1, 1), controls=[(control_net, pairs, strength)]
    )
    for strength in strengths
]
ContourPad(
    contours,
    prompts,
    draw,
    strengths=strengths,
    examples=torch.stack(examples, 1).unflatten(0, (3, 2)),
    title="Draw a contour",
    alt="A pad with the contour of a 3, of an 8 or of a square, and the image that the model makes of "
    "it, a red 3 or a blue 0, at four strengths.",
)

# %%
from IPython.display import Markdown

table = "| contour of | prompt | " + " | ".join(f"strength {s:g}" for s in strengths) + " |\n"
table += "| --- | --- |" + " ---: |" * len(strengths) + "\n"
agreement = [contour_agreement(edges(images), pairs) for images in examples]
for k, pair in enumerate(
    (shape, prompt) for shape in ("a 3", "an 8", "a square") for prompt in prompts
):
    table += f"| {pair[0]} | {pair[1]} | " + " | ".join(f"{a[k]:.2f}" for a in agreement) + " |\n"
Markdown(table)

# %% [markdown]
# (The numbers say how well the image's own contour follows the given one: 1 is everywhere within a pixel. Section 1 says how that is counted.)
#
# Three things to notice:
#
# - **At strength 0 it is chapter 12's model.** The contour is not seen.
# - **With more of it the strokes move to the contour where the prompt lets them**, and the colour still comes from the prompt. A 3 in the contour of a 3 is everywhere within a pixel of it; a red 3 in a square, which no digit is, moves far and doesn't arrive. A 0 in the contour of an 8 doesn't move. (Two digits of one size in one place are within a pixel for the most part in any case: look at the column of strength 0. The number is blunt there; look at the picture, too.)
# - **Contour and prompt may disagree**, as a 0 in the contour of a 3. Then it is a matter of strength who wins. Section 7 measures it.

# %% [markdown]
# ## The idea
#
# A prompt can say *a 3, bold, red, in the middle*. It can't say where the upper bow ends. To say that, one would have to train the model again, with a drawing beside each image. For Stable Diffusion that means a network of 860 million weights, which has seen billions of images, and, for most conditions, at most some 100,000
# drawings (section 1 of the paper). It would forget much of what it knows, or learn the few by heart.
#
# Zhang, Rao and Agrawala (2023) leave the model alone. **Lock** it. Make a **copy** of its way down, which already sees images well, and train the copy to see the drawing as well. Whatever the copy has to say is *added* to what the locked network puts aside for its way up. And
# connect the two by layers that start at **zero**, so that at the first step nothing has changed. What then moves the weights away from zero, when all that they send is zero? That is the question of this chapter.
#
# | symbol | meaning |
# | --- | --- |
# | $x$; $y$ | what a block or a layer sees; what it says |
# | $c_f$; $c_h$ | the condition, an image of the contour; what the first convolutions make of it, as small as the latent |
# | $u$; $\tilde u$; $k$, $\rho$ | brightness; the same, blurred; distance in pixels, and width of the blur |
# | $p$; $g_x$, $g_y$; $S$, $n$ | a pixel; the slopes to the right and down; the steepness, and the direction uphill, of length 1 |
# | $\mathcal F$; $\theta$, $\theta_c$ | a block of the network; its locked weights, the trained ones of the copy |
# | $\mathcal Z$; $\theta_1$, $\theta_2$ | a zero convolution; weights of that in front of the copy, and of that behind it |
# | $\lambda$ | the strength of a control, its conditioning scale |
# | $W$, $b$; $L$ | weights and bias of a zero convolution; the loss |
# | $i$, $o$; $\eta$ | a channel that goes in, one that comes out; the learning rate |
# | $D_\theta$; $\ell$, $\sigma$, $\varepsilon$; $c$ | the denoiser of chapter 12; a latent, the noise level, the noise; the context (the prompt) |
# | $C_E$, $C_D$ | what a pass down costs (with the middle), and what a pass up costs |
# | $\mathbb E$ | mean |

# %% [markdown]
# ## 1. What a contour is
#
# To train, we need a drawing for each image. Nobody draws 16,384 of them: a program finds contours in the images themselves. The paper's first condition, as ours, is Canny's (1986). It has four steps. The brightness $u$ of our scenes is the largest of the three colours.
#
# **Blur**, since a difference of neighbours sees all noise. The weights are those of a Gaussian, $\propto e^{-k^2 / (2 \rho^2)}$ at a distance of $k$ pixels, along rows and then along columns. **Slopes**: a difference across two pixels, averaged over three rows (Sobel),
#
# $$g_x(p) = \tfrac14 \sum_{k = -1}^{1} (2 - |k|)\; \tfrac12 \big( \tilde u(p_x + 1, p_y + k) - \tilde u(p_x - 1, p_y + k) \big),$$
#
# and the same with rows and columns exchanged. **Thin**: with the steepness $S = \sqrt{g_x^2 + g_y^2}$ and the direction uphill $n = (g_x, g_y) / S$, keep a pixel only where it is a ridge of the steepness,
#
# $$S(p) > S(p + n) \quad \text{and} \quad S(p) \ge S(p - n) .$$
#
# (Between pixels $S$ is interpolated from the four nearest.)
#
# **Two thresholds** (hysteresis): steep pixels are contours; less steep ones are if a chain of such pixels ties them to a steep one.

# %%
from course_lib.diffusion.edges import blur, gradients, hysteresis, thin

show_source([blur, gradients, thin, hysteresis])

# %%
scene, _ = scenes(6, split="test", generator=seeded(3))
brightness = scene.amax(1, keepdim=True)
soft = blur(brightness)
g_x, g_y = gradients(soft)
steep = torch.hypot(g_x, g_y)
ridge = thin(g_x, g_y)
line = hysteresis(ridge, 0.05, 0.15)
rows = [x.expand(-1, 3, -1, -1) for x in (soft, 2 * steep, 2 * ridge, line)]
show_figure(
    image_grid(
        torch.cat([scene, *rows]),
        columns=6,
        titles=["scene", "blurred", "steepness", "ridges", "contour"],
        size=0.75,
    ),
    alt="Six scenes, and below each the steps of the detector: blurred, its steepness, the ridges of "
    "the steepness, and contours one pixel wide.",
)

# %% [markdown]
# **Check**, on images whose slopes are known.

# %%
down, right = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
plane = (0.03 * right + 0.01 * down)[None, None]  # slopes 0.03 and 0.01 everywhere
inside = [g[..., 1:-1, 1:-1] for g in gradients(plane)]
print("slopes of a plane:", [round(g.mean().item(), 4) for g in inside])
print(
    "blur keeps a grey image:",
    torch.allclose(blur(torch.full((1, 1, 9, 9), 0.3)), torch.tensor(0.3)),
)
half = (right >= 8).float()[None, None]
print(
    "the contour of a half plane is one pixel wide:", edges(half).sum(3).unique().tolist() == [1.0]
)
chain = torch.tensor([[0.2, 0.1, 0.1, 0.0, 0.1]])[None, None]
print("hysteresis:", hysteresis(chain, 0.05, 0.15).flatten().tolist())
print("all four are `edges`:", torch.equal(line, edges(scene)))

# %% [markdown]
# **How well does one contour follow another?** Count the pixels of the found contour with a wanted one at most one pixel away (precision), the wanted pixels with a found one so near (recall), and take the harmonic mean: the F-score of the literature on contours. Chance is not 0, since digits resemble each other: it is measured with the contour of *another* scene.

# %% [markdown]
# ## 2. The weakness first: a copy that talks at once
#
# Make a copy, give it a way in for the contour and ways out into the locked network, all as new layers usually are: random, with weights of variance one over the number of channels that go in, so that what comes out is as large as what goes in. Draw before a single step of training. Beside it the same with layers that are half as loud, or twice, or silent.


# %%
def new_control(size=0.0):
    """An untrained ControlNet: its ways in and out are Gaussian, of this size; 0: its own zeros."""
    torch.manual_seed(0)
    net = ControlNet(diffusion.model, 1)
    for layer in (net.hint[-1], *net.zeros):
        if size:
            torch.nn.init.normal_(layer.weight, std=size / layer.in_channels**0.5)
    return net


judge = load_pretrained("judge_scenes")  # reads images alone, and has no part in the drawing
test_scenes, captions = scenes(24, split="test", generator=seeded(4))
wanted = edges(test_scenes)
z = diffusion.denoiser.path.t_max * torch.randn(24, 4, 8, 8, generator=seeded(5))


def controlled(net, strength=1.0, said=captions, scale=3.0):
    """Images of the test scenes' contours, always from the same noise."""
    return diffusion.sample(said, scale=scale, steps=8, z=z, controls=[(net, wanted, strength)])


alone = diffusion.sample(captions, steps=8, z=z)
sizes = (0.0, 0.5, 1.0, 2.0)
loud = [controlled(new_control(size)) for size in sizes]
table = "| size of the new layers | every word right | changed, root mean square of pixels |\n"
table += "| ---: | ---: | ---: |\n"
for size, made in zip(sizes, loud):
    table += f"| {size:g} | {judge.fidelity(made, captions)['all']:.0%} "
    table += f"| {(made - alone).square().mean().sqrt():.2f} |\n"
show_figure(
    image_grid(
        torch.cat([alone[:10], *(made[:10] for made in loud)]),
        columns=10,
        titles=["no control", *(f"size {size:g}" for size in sizes)],
        size=0.62,
    ),
    alt="Ten scenes without control; with zeros the same; with random layers, the worse the louder.",
)

# %%
Markdown(table)

# %% [markdown]
# Not one weight of the model has changed. One image in five has a fault even without a control, at eight steps; chapter 12 draws in twelve. Half as loud does no harm that our classifier sees; a small network on digits stands a good deal. But as loud as layers usually are, two in five have a fault, and twice as loud most of them: the way up gets noise added to what it knows. Training would repair that, in time. But its first and largest gradients would come from a disturbed network, and run through the copy, which holds the knowledge that we wanted to use. The paper's
# ablation says so: with Gaussian layers in the place of zeros the results fall about to those of *ControlNet-lite*, a single convolution in the place of each copied block, "indicating that the pretrained backbone of the trainable copy is destroyed during finetuning" (section 4.2 and figure 8).

# %% [markdown]
# ## 3. Locked copy, trained copy, zeros
#
# A block of the network says $y = \mathcal F(x; \theta)$. Lock $\theta$, and let $\theta_c$ be a copy of it that is trained. A **zero convolution** $\mathcal Z$ is a 1×1 convolution whose weights and bias start at 0. The controlled block is the paper's equation 2, here with the strength $\lambda$:
#
# $$\boxed{\; y = \mathcal F(x; \theta) + \lambda\, \mathcal Z \big( \mathcal F( x + \mathcal Z(c_h; \theta_1);\ \theta_c );\ \theta_2 \big) \;}$$
#
# In a U-Net not every block gets such a neighbour. The copy is of the **way down and the middle**, once. The contour comes in once, through a few convolutions that make it as small as the latent, $c_h$, and then $\mathcal Z(\cdot\,; \theta_1)$. (The paper's equation 2 has $c$ in this place, and $c_f$ is its letter for our $c_h$.) Out go as many zero convolutions as there are things put aside for the way up, and one for the middle. The way up is not copied.

# %%
show_source([ZeroConv, ControlNet.forward, ControlledUNet.forward])

# %% jupyter={"source_hidden": true}
from course_lib.diagrams import controlnet_diagram
from course_lib.widgets import show_diagram

diffusion.requires_grad_(False)
show_diagram(controlnet_diagram(new_control(), diffusion.model))

# %%
count = lambda net: sum(p.numel() for p in net.parameters())
net = new_control()
table = "| | ours | Stable Diffusion 1.5 |\n| --- | ---: | ---: |\n"
table += f"| locked U-Net, weights | {count(diffusion.model):,} | 859,520,964 |\n"
table += f"| trained beside it | {count(net):,} | 361,279,120 |\n"
table += f"| share | {count(net) / count(diffusion.model):.0%} | {361279120 / 859520964:.0%} |\n"
table += "| latent | 4 × 8 × 8 | 4 × 64 × 64 |\n"
table += f"| contour | {' × '.join(map(str, net.condition_shape))} | 3 × 512 × 512 |\n"
table += f"| channels of the U-Net | 48, 96 | 320, 640, 1280, 1280 |\n"
table += f"| zero convolutions behind the copy | {len(net.zeros)} | 13 |\n"
Markdown(table)

# %% [markdown]
# (Weights as in the library diffusers: its `UNet2DConditionModel` and `ControlNetModel` for 1.5. The twelve blocks of the way down and the middle make 13.)
#
# **Check**: at the start the controlled network says what the locked one says. Not nearly: bit for bit.

# %%
x = torch.randn(24, 4, 8, 8, generator=seeded(6))
sigma = torch.rand(24, generator=seeded(7))
context = diffusion.text_encoder(diffusion.text_encoder.tokenizer(captions)).detach()
with torch.no_grad():
    both = ControlledUNet(diffusion.model, [(net, wanted, 1.0)])(x, sigma, context=context)
    same = torch.equal(both, diffusion.model(x, sigma, context=context))
print("the same bits:", same)
print("the same images:", torch.equal(loud[0], alone))

# %% [markdown]
# ## 4. Train it
#
# The loss is chapter 12's; the network is told the contour as well, and only the copy, the way in and the zero convolutions learn:
#
# $$L = \mathbb E\, \big\| D_\theta(\ell + \sigma \varepsilon;\ \sigma, c, c_f) - \ell \big\|^2$$
#
# (with EDM's weight of each noise level). In half of the examples the prompt is hidden (section 3.3 of the paper). Where nothing else says what there is, the contour must. **Train one**, without any prompts, and mostly at large noise levels (`p_mean`), where shapes are decided: our steps are few.

# %%
show_source([ControlledDiffusion.loss])

# %%
images, _ = scenes(1000, generator=seeded(8))
data = (
    to_signed(images),
    diffusion.text_encoder.tokenizer([""] * len(images)),
    torch.cat([edges(part) for part in images.split(250)]),
)
locked = load_pretrained("latent_scenes")
locked.denoiser.p_mean = 0.8
before = {name: value.clone() for name, value in locked.state_dict().items()}

live = ControlledDiffusion(locked, new_control())
history = fit(live, data, steps=130, batch_size=8, lr=4e-3)
after = locked.state_dict()
print(
    "the locked model is the same:", all(torch.equal(before[name], after[name]) for name in before)
)

# %%
nobody = [""] * len(captions)  # no prompt: all that is known is the contour
untrained, trained = (controlled(one, said=nobody, scale=1.0) for one in (net, live.control_net))
agrees = [contour_agreement(edges(made), wanted).mean() for made in (untrained, trained)]
chance = contour_agreement(edges(trained), wanted.roll(1, 0)).mean()
print("nearer to its contour than to another's by 0.2:", (agrees[1] > chance + 0.2).item())
print("and nearer than before the training by 0.2:", (agrees[1] > agrees[0] + 0.2).item())
show_figure(
    image_grid(
        torch.cat([wanted[:10].expand(-1, 3, -1, -1), untrained[:10], trained[:10]]),
        columns=10,
        titles=["contour", "before", "after"],
        size=0.62,
    ),
    alt="Ten contours; images that have nothing to do with them; and after the training images whose "
    "strokes lie on the contours.",
)

# %% [markdown]
# A thousand images, 130 batches of eight, and the strokes lie where the contours are. Chapter 12's model took half an hour to learn what a digit looks like; the copy only had to learn where to put it. The colours are anybody's guess: no prompt has been given, and a contour has none.
#
# **Exercise 1: break it on purpose.** Somebody forgets the lock. At the start all is well, the control learns, and still something is lost that the check above would have found. Write such a start: a `ControlNet`, and the list of parameters that the optimizer gets.


# %%
def bad_start(unet, channels):
    """A trained network, channels of the condition: a control, and the parameters to train."""
    ...


check("12.break_the_lock", bad_start)

# %% [markdown]
# ## 5. Why zeros learn
#
# "If the weight is zero, the gradient is zero, and nothing is learned." So many say on seeing a zero convolution that the authors answer it first among their frequent questions. Work it out. At one place, $y_o = \sum_i W_{oi}\, x_i + b_o$; the same $W$ and $b$ serve all places $p$ of all images of the batch. Move one weight: $\partial y_o / \partial W_{oi} = x_i$,
# $\partial y_o / \partial b_o = 1$, and $\partial y_o / \partial x_i = W_{oi}$. By the chain rule
#
# $$\frac{\partial L}{\partial W_{oi}} = \sum_p \frac{\partial L}{\partial y_o(p)}\, x_i(p), \qquad
#   \frac{\partial L}{\partial b_o} = \sum_p \frac{\partial L}{\partial y_o(p)}, \qquad
#   \frac{\partial L}{\partial x_i(p)} = \sum_o W_{oi}\, \frac{\partial L}{\partial y_o(p)} .$$
#
# Set $W = 0$. In the first two no factor $W$ stands before $\partial L / \partial y$, and nothing makes them vanish. **Only the third is zero**, what goes back *through* the layer. A product of two factors has the gradient 0 in both only where both are 0; and $x$, here what the copy *says*, is not.

# %%
from course_lib.experiments import pointwise_gradients

show_source(pointwise_gradients)

# %%
zero = ZeroConv(5, 3).double()
x = torch.randn(4, 5, 6, 6, generator=seeded(9), dtype=torch.float64).requires_grad_()
target = torch.randn(4, 3, 6, 6, generator=seeded(10), dtype=torch.float64)


def backward():
    """dL/dW, dL/db and dL/dx by autograd and by the formula, for the loss |y − target|²."""
    zero.zero_grad()
    x.grad = None
    y = zero(x)
    (y - target).square().sum().backward()
    found = (zero.weight.grad[:, :, 0, 0], zero.bias.grad, x.grad)
    return found, pointwise_gradients(zero.weight[:, :, 0, 0].data, x.data, 2 * (y - target).data)


for step in (1, 2):
    found, formula = backward()
    agree = all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(found, formula))
    zeros = [not grad.any() for grad in found]
    print(
        f"step {step}: autograd is the formula: {agree}; exactly zero: dL/dW {zeros[0]}, "
        f"dL/db {zeros[1]}, dL/dx {zeros[2]}"
    )
    with torch.no_grad():
        for parameter in zero.parameters():
            parameter -= 0.001 * parameter.grad

# %% [markdown]
# After one step of length $\eta$ the weights are $-\eta\, \partial L / \partial W$, no longer 0. At the second step something comes back through the layer, and what stands in front of it learns.
#
# Our network has two such layers in a row: one between the contour and the copy, and one behind the copy. So it takes a step more.
#
# **Exercise 2: predict.** A ControlNet before its first step, on a trained network, with a contour that is not all 0. These are its parts:
#
# - A: weights of the zero convolutions behind the copy, B: their biases;
# - C: weights of the trained copy;
# - D: weights of the hint's zero convolution (between condition and copy), E: its bias;
# - F: the hint's convolutions in front of it;
# - G: the condition image itself.
#
# Which gradients are *exactly* zero at the first step? And at the second, after one step of gradient descent? Write the letters of both, as in `"AB; C"`. (`hint("12.predict_zero_gradients")` helps, as with every exercise; `solution(...)` shows what the library does; every `check` judges your function on fresh random inputs.)

# %%
prediction = ...

check("12.predict_zero_gradients", prediction)

# %% [markdown]
# **Exercise 3: the second step.** Where does the copy go first? Derive the weights of a zero convolution after one step of gradient descent, and what then comes back to $x$, if $x$ is the same at both steps and $\partial L / \partial y$ is `dy_2` at the second.


# %%
def second_step(x, dy, lr, dy_2):
    """x [B, n_in, H, W], dy and dy_2 [B, n_out, H, W]: W [n_out, n_in], b [n_out], dL/dx."""
    ...


check("12.second_step", second_step)

# %% [markdown]
# **Check**, on the real thing: train our network for three steps of plain gradient descent, and ask autograd which parts have a gradient. (It answers exercise 2. Predict first.)

# %%
net = new_control()
parts = {
    "zero convolutions behind the copy": list(net.zeros.parameters()),
    "the copy": list(net.copy.parameters()),
    "the hint's zero convolution": list(net.hint[-1].parameters()),
    "the hint in front of it": list(net.hint[:-1].parameters()),
}
table = (
    "| gradient of | "
    + " | ".join(f"step {k}" for k in (1, 2, 3))
    + " |\n| --- | --- | --- | --- |\n"
)
found = {words: [] for words in parts}
for step in range(3):
    net.zero_grad()
    batch = [part[:8] for part in data]
    ControlledDiffusion(locked, net).loss(*batch, generator=seeded(11)).backward()
    for words, part in parts.items():
        some = any(p.grad is not None and p.grad.any() for p in part)
        found[words].append("not zero" if some else "**exactly 0**")
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.1 * p.grad if p.grad is not None else 0
for words, answers in found.items():
    table += f"| {words} | " + " | ".join(answers) + " |\n"
Markdown(table)

# %% [markdown]
# ## 6. Sudden convergence
#
# "We observe that the model does not gradually learn the control conditions but abruptly succeeds in following the input conditioning image; usually in less than 10K optimization steps", says section 3.3 of the paper, and figure 4 shows it between two steps near 6,133. Images are good all the time, thanks to the zeros; they just don't follow, and then they do. Does a small one do that, too? Four ControlNets from four seeds were
# trained for 480 steps of 16 images. Every 20 steps they drew 24 scenes by their contours alone, always from the same noise.

# %% jupyter={"source_hidden": true}
from matplotlib.figure import Figure

metrics = load_card("controlnet_scenes")["metrics"]
curve = metrics.get("sudden convergence", [])
seeds = sorted({row["seed"] for row in curve})
figure = Figure(figsize=(5.6, 2.9))
axes = figure.subplots()
table = "| seed | before | after | steps from a quarter of the rise to three quarters | largest share of it within 20 steps |\n"
table += "| ---: | ---: | ---: | ---: | ---: |\n"
for seed, role in zip(seeds, ("data", "model", "latent", "error")):
    mine = [row for row in curve if row["seed"] == seed]
    steps, values = [row["step"] for row in mine], [row["agreement"] for row in mine]
    axes.plot(steps, values, "o-", ms=3, color=PALETTE[role], label=f"seed {seed}")
    first, rise = values[0], values[-1] - values[0]
    passed = [
        next(s for s, v in zip(steps, values) if v >= first + share * rise)
        for share in (0.25, 0.75)
    ]
    jump = max(b - a for a, b in zip(values, values[1:])) / rise
    table += (
        f"| {seed} | {first:.2f} | {values[-1]:.2f} | {passed[0]} to {passed[1]} | {jump:.0%} |\n"
    )
if curve:
    steps = sorted({row["step"] for row in curve})
    means = [sum(r["chance"] for r in curve if r["step"] == s) / len(seeds) for s in steps]
    axes.plot(steps, means, ":", color=PALETTE["noise"], label="another's contour")
    axes.legend(frameon=False, loc="lower right", ncols=2)
axes.set(
    title="When contours are followed", xlabel="steps of training", ylabel="agreement", ylim=(0, 1)
)
figure.tight_layout()
show_figure(
    figure,
    alt="How well samples follow contours over the steps of training, four curves from four seeds, and "
    "below them how well they follow the contour of another scene.",
)

# %%
Markdown(table)

# %% [markdown]
# It does. For 80 to 120 steps the four learn nothing that one could see. Then the middle half of the rise comes within 20 to 60 steps, of 480, at nearly the same time for all four; after that the contours are followed a little better, little by little. (All begin at one and the same value: with zeros, the seed of the copy's new layers doesn't matter yet.) It is no step from nothing to all; between two looks comes up to two thirds of it.
#
# Two things may make it so. The first is the product of section 5: what the contour does to the image goes through *two* layers that begin at zero, and while both are small, each makes the other's gradient small. In one number each: the contour's effect is a product $q r$, and the loss falls by $g$ for each unit of it, so that $q$ has the gradient $-g r$ and $r$ has $-g q$. From exactly 0 neither would ever move; the copy's answer without a contour moves $r$ first (section 5, step 1). Plain gradient descent then multiplies $q + r$ by $1 + \eta g$ in each step. AdamW, which trained these, divides the size of a gradient away: each factor moves by about $\eta$ a step, and after $k$ steps the product is about $(\eta k)^2$. Either way it is tiny at first, and then grows fast. The second is how one looks. The loss changes little by little, but a sampler calls the network step after step, each time with what the last call has made: once the
# network follows a little, the state that it sees fits the contour, and it follows more. (Both are our reading; the paper gives no cause.)

# %% [markdown]
# ## 7. How strong, how many, and who wins
#
# The **strength** $\lambda$ multiplies all that the copy adds. It is not trained: training has $\lambda = 1$. (With guidance we add it to both parts, with the prompt and without; section 3.4 of the paper adds it to the part with the prompt, weighted by the level, where there is no prompt to guide by.) diffusers calls it `controlnet_conditioning_scale`. From the card, on 128 test scenes, at guidance scale 3 with the caption and 1 without, in eight steps:

# %%
table = "| prompt | strength | follows its contour | another's | digit as in the caption | colour | all |\n"
table += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
for row in metrics["by strength"]:
    table += (
        f"| {row['prompt']} | {row['strength']:g} | {row['agreement']:.2f} | {row['chance']:.2f} "
    )
    table += f"| {row['digit']:.0%} | {row['colour']:.0%} | {row['all']:.0%} |\n"
Markdown(table)

# %% [markdown]
# With the caption, the digit and its place are known already, so that even without control the contours agree at 0.86: the rest is handwriting, and control brings it to 0.99. Without a prompt there is only the contour: 0.42 without it, hardly more than chance; 0.98 with it. (Every word is right in 76 % at strength 0, in eight steps; chapter 12's 98 % took twelve, and other scenes.) Above 1 the contour is followed no better, and the digit is read less well, 90 % at strength 2 in place of 96 %: too much of it.
#
# **Several controls** are added, each with its strength; "no extra weighting or linear interpolation is necessary", says section 3.4 of the paper. Give our network the left half of a contour and the right half as two controls, beside the whole as one:

# %%
two_things = [k for k, caption in enumerate(captions) if len(scene_of(caption).things) == 2]
left, right = wanted.clone(), wanted.clone()
left[..., 16:], right[..., :16] = 0.0, 0.0
controls = {
    "the whole": [(control_net, wanted, 1.0)],
    "the left half": [(control_net, left, 1.0)],
    "left and right, 1 each": [(control_net, left, 1.0), (control_net, right, 1.0)],
    "left and right, ½ each": [(control_net, left, 0.5), (control_net, right, 0.5)],
}
table = "| controls | follows the whole contour |\n| --- | ---: |\n"
strips = [wanted[two_things[:10]].expand(-1, 3, -1, -1)]
for words, several in controls.items():
    made = diffusion.sample(nobody, scale=1.0, steps=8, z=z, controls=several)
    strips.append(made[two_things[:10]])
    table += f"| {words} | {contour_agreement(edges(made), wanted).mean():.2f} |\n"
show_figure(
    image_grid(
        torch.cat(strips),
        columns=len(strips[0]),
        titles=["contour", "whole", "left half", "both, 1 each", "both, ½ each"],
        size=0.62,
    ),
    alt="Contours of two things; images by the whole contour, by its left half alone, and by both "
    "halves as two controls.",
)

# %%
Markdown(table)

# %% [markdown]
# Two halves are not the whole: 0.91 against 0.99, with full strength or half of it. What is added are the copies' *answers*, and an answer to half a contour says of the other half that nothing is there. Controls of different kinds, a pose and a depth, contradict each other less. (Each call now runs the copy twice.)
#
# **Who wins?** Give the contour of one digit, and ask for another.

# %%
pairs = [(k % 10, (k + 3) % 10) for k in range(30)]  # the contour's digit, the prompt's
shown = [scene_of(f"a bold white {digit} in the middle") for digit, _ in pairs]
shapes = edges(render(shown, split="test", generator=seeded(12)))
said = [f"a bold yellow {digit} in the middle" for _, digit in pairs]
z30 = diffusion.denoiser.path.t_max * torch.randn(30, 4, 8, 8, generator=seeded(13))
table = (
    "| strength | read as the prompt's digit | as the contour's | yellow | follows the contour |\n"
)
table += "| ---: | ---: | ---: | ---: | ---: |\n"
strips = [shapes[:10].expand(-1, 3, -1, -1)]
for strength in strengths:
    made = diffusion.sample(said, steps=8, z=z30, controls=[(control_net, shapes, strength)])
    read = [scene.things[0] for scene in judge.read(made)]
    shares = [sum(r.digit == pair[k] for r, pair in zip(read, pairs)) / 30 for k in (1, 0)]
    yellow = sum(r.colour == "yellow" for r in read) / 30
    table += f"| {strength:g} | {shares[0]:.0%} | {shares[1]:.0%} | {yellow:.0%} "
    table += f"| {contour_agreement(edges(made), shapes).mean():.2f} |\n"
    strips.append(made[:10])
show_figure(
    image_grid(
        torch.cat(strips),
        columns=10,
        titles=["contour", *(f"strength {s:g}" for s in strengths)],
        size=0.62,
    ),
    alt="Contours of the digits 0 to 9, and images for prompts of other digits at four strengths: the "
    "prompt's digits at strength 0, bent along the contours at 1, hardly digits at 2.",
)

# %%
Markdown(table)

# %% [markdown]
# At strength 1 there is a truce: the contour is followed, 0.94, and still 77 % are read as the prompt's digit. Within a pixel there is room enough to leave a bow open, or to close it. At 2 the prompt has lost, and who has won is not clear: 43 % are read as the contour's digit, 7 % as the prompt's, and half as neither. The colour is the prompt's at every strength; contours say nothing of it.
#
# **Exercise 4: draw.** Back to the pad. Wipe it, and draw a contour that turns the prompt's 3 into an 8 at strength 1. Then a single straight line: what does the model do with strokes that no digit has, at strength 1 and at 2? Why has training never told it?
#
# ## 8. What it costs
#
# A pass forward costs $C_E$ on the way down and $C_D$ on the way up; a pass back costs about twice as much, half of it for the gradients of the weights, half for what is handed on. Training the whole network takes
#
# $$3\, C_E + 3\, C_D .$$
#
# With a ControlNet: the locked way down runs forward only, $C_E$, since nothing in front of it learns. The copy takes $3\, C_E$. The locked way up runs forward and hands gradients on, but needs none for its weights: $2\, C_D$. Together
#
# $$4\, C_E + 2\, C_D .$$
#
# It is *more* only where the way down costs more than the way up. **Count** it: multiplications of all convolutions and matrices in one training step of 16 images, and the bytes that a step holds at once, as `peak_bytes` counts them.

# %%
from torch.utils.flop_counter import FlopCounterMode

from course_lib.attention import peak_bytes


def a_step(net, trained):
    """One step's loss and its gradients, of 16 images; net is the controlled or the plain network."""

    def run():
        said = net(torch.ones(16, 4, 8, 8), torch.full((16,), 0.5), context=torch.ones(16, 12, 64))
        said.square().mean().backward()
        for parameter in trained.parameters():
            parameter.grad = None

    return run


def cost(net, trained):
    """Multiplications of a step; the bytes held at once, with all weights and AdamW's moments."""
    run = a_step(net, trained)
    with FlopCounterMode(display=False) as counter:
        run()
    kept = sum(p.nbytes for p in net.parameters()) + 2 * sum(p.nbytes for p in trained.parameters())
    return counter.get_total_flops() // 2, peak_bytes(run) + kept


@torch.no_grad()
def one_way():
    """Multiplications of a pass down, with the middle, and of a pass up."""
    unet, counts = diffusion.model, []
    x, context = torch.ones(16, 4, 8, 8), torch.ones(16, 12, 64)
    with FlopCounterMode(display=False) as counter:
        embedded = unet.embed(x, torch.ones(16), context=context)
        h, aside = unet.encode(x, embedded, context, None)
    counts.append(counter.get_total_flops() // 2)
    with FlopCounterMode(display=False) as counter:
        unet.decode(h, aside, embedded, context, None)
    return [*counts, counter.get_total_flops() // 2]


free = load_pretrained("latent_scenes").model.requires_grad_(True)
net = new_control()
whole = cost(free, free)
both = cost(ControlledUNet(diffusion.model, [(net, torch.ones(16, 1, 32, 32), 1.0)]), net)
C_E, C_D = one_way()
print(f"down {C_E / 1e6:,.0f} million, up {C_D / 1e6:,.0f} million")
table = "| a training step | by the formula | counted, multiplications | bytes at once |\n"
table += "| --- | ---: | ---: | ---: |\n"
formula = [3 * C_E + 3 * C_D, 4 * C_E + 2 * C_D]
for words, guess, (found, held) in zip(("the whole U-Net", "ControlNet"), formula, (whole, both)):
    table += f"| {words} | {guess / 1e6:,.0f} million | {found / 1e6:,.0f} million "
    table += f"| {held / 2**20:.1f} MiB |\n"
table += f"| more | {formula[1] / formula[0] - 1:+.0%} | {both[0] / whole[0] - 1:+.0%} "
table += f"| {both[1] / whole[1] - 1:+.0%} |\n"
table += "| the paper, Stable Diffusion on an A100 | | +34 % of the time | +23 % |\n"
Markdown(table)

# %% [markdown]
# Ours costs less than training the whole network, since our way up is the dearer one. So is Stable Diffusion's: the same count, of its 1.5 as diffusers builds it, gives 131 billion multiplications for a pass down and 271 for a pass up, and so 12 % *less* for a ControlNet than for a training of all weights. The paper measures 34 % more time and 23 % more memory "compared to optimizing
# Stable Diffusion without ControlNet", on one A100 (section 3.2), and does not say which weights that optimizes. Nor does a count see caches and waiting. In *drawing* each call needs the way down twice: counted, 35 % more for Stable Diffusion 1.5 (142 billion beside 402).
#
# ## How good is it?

# %%
without, ours = (
    next(r for r in metrics["by strength"] if r["prompt"] == "none" and r["strength"] == strength)
    for strength in (0.0, 1.0)
)
table = "| | | source |\n| --- | ---: | --- |\n"
table += f"| ours, contours without a prompt, F-score within a pixel | {ours['agreement']:.2f} "
table += "| card of `controlnet_scenes` |\n"
table += f"| the same at strength 0; by chance | {without['agreement']:.2f}; {ours['chance']:.2f} | the same |\n"
paper = "Zhang et al. 2023, table"
table += (
    f"| ADE20K segments, found again in the result: IoU | 0.35 (real images 0.58) | {paper} 2 |\n"
)
table += f"| the same by ControlNet-lite | 0.32 | {paper} 2 |\n"
table += f"| images by segments, FID | 15.27 | {paper} 3 |\n"
table += f"| the same by ControlNet-lite | 17.92 | {paper} 3 |\n"
Markdown(table)

# %% [markdown]
# How to read it:
#
# - **Following is measured by looking again.** Both take the finished image, find the condition in it, and compare. The finder's own errors are the ceiling: 0.58 for photographs.
# - **Not to be compared** are the values: a contour within a pixel of 32 is easier than 150 classes of segments, and digits on black are easier than photographs.
# - **Lite is not much worse here.** The paper's pictures of single prompts (figure 8) tell more of the difference than these tables.
#
# ## What to take away
#
# - What a prompt cannot say, a second image can. It is added to what the network puts aside, level by level.
# - Lock what is good. Train a copy of its way down, which sees well already.
# - Zero convolutions make the start exact, bit for bit. Zero weights don't make a layer's own gradient zero, only what goes back through it. So those behind the copy learn at the first step, the copy and the hint's zero convolution at the second, and what is in front of that at the third.
# - Following comes late and then fast. Images are good all the while.
# - Strength is free to choose afterwards, and controls add. Where contour and prompt disagree, strength decides; at too much of it the line is kept and the digit is lost.
#
# **What does not work well.** For every kind of condition another network, of almost half the size, must be trained, stored and run. A control that is too strong draws what the prompt forbids. And it follows a bad contour as faithfully as a good one.
#
# **What came after.**
#
# - *A far smaller way in*, 77 million weights, run once and not at every step: T2I-Adapter (Mou et al. 2023, [arXiv:2302.08453](https://arxiv.org/abs/2302.08453)).
# - *One network for many conditions*: Uni-ControlNet (Zhao et al. 2023, [arXiv:2305.16322](https://arxiv.org/abs/2305.16322)).
# - *An image as a prompt*, by attention of its own beside the text's: IP-Adapter (Ye et al. 2023, [arXiv:2308.06721](https://arxiv.org/abs/2308.06721)).
# - *Look again while training*: the condition found in the result becomes a loss, ControlNet++ (Li et al. 2024, [arXiv:2404.07987](https://arxiv.org/abs/2404.07987)).
#
# **Next, chapter 13:** all these models need many calls for an image. Ways that are straight need one: [rectified flow](13_rectified_flow.ipynb).

# %% [markdown]
# [← 12 · Latent diffusion](12_latent_diffusion.ipynb) | [Contents](../README.md#chapters) | [13 · Rectified flow →](13_rectified_flow.ipynb)
