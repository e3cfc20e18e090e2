"""Chapter 12: right answers, written differently, pass; known mistakes are named."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    EDM,
    ClassifierFreeGuidance,
    ControlNet,
    Denoiser,
    EDMPath,
    IdealDenoiser,
    Inpainting,
    LatentDiffusion,
    ZeroConv,
    euler_step,
    keep_known,
)
from course_lib.exercises import ch12_latent_diffusion as ch12
from course_lib.exercises import check
from course_lib.exercises.formula import declared
from course_lib.latent import KLAutoencoder, reparameterize
from course_lib.nn import CrossAttention, TextEncoder, UNet, WordTokenizer
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- predict_logits ------------------------------------------------------------------------------

LOGITS_RIGHT = [4096, 8**4, np.int64(4096), torch.tensor(4096.0)]
LOGITS_WRONG = {"few": (100, "100 is too few"), "many": (5000, "5,000 is too many")}

# --- latent_scale --------------------------------------------------------------------------------


def by_moments(mu, log_var):
    """Mean square of z, less the square of its mean."""
    return 1 / ((mu**2 + log_var.exp()).mean() - mu.mean() ** 2).sqrt()


def with_bessel(mu, log_var):
    return torch.rsqrt(torch.var(mu) + torch.mean(torch.exp(log_var / 2) ** 2))


SCALE_RIGHT = [ch12.latent_scale, by_moments, with_bessel]
SCALE_WRONG = {
    "one": (lambda mu, log_var: torch.ones(()), "the latents' variance is not 1"),
    "of each channel": (
        lambda mu, log_var: (mu.var((0, 2, 3)) + log_var.exp().mean((0, 2, 3))) ** -0.5,
        "must be one number",
    ),
    "drawn": (
        lambda mu, log_var: 1 / reparameterize(mu, log_var).std() + torch.rand(()),
        "drawn at random",
    ),
}

# --- break_the_scale -----------------------------------------------------------------------------


def two_scales(z):
    return 0.02 / z.std(), 20 / z.std()


def by_quantiles(z):
    size, edge = z.square().mean().sqrt().item(), 99**0.5
    low, high = (math.exp(NormalDist(-0.4, 1.2).inv_cdf(p)) for p in (0.17, 0.83))
    return low / edge / size, high * edge / size


def other_scales(small, large):
    return lambda z: (small / z.std(), large / z.std())


TWO_SCALES_RIGHT = [two_scales, by_quantiles, other_scales(0.0297, 15.1), other_scales(0.0148, 30)]
TWO_SCALES_WRONG = {
    "swapped": (lambda z: two_scales(z)[::-1], "that is too large"),
    "the size": (lambda z: (0.02 * z.std(), 20 * z.std()), "of the levels useless"),
    "hardly": (other_scales(0.2, 20), "Your `small` makes latents of size 0.2"),
    "hardly large": (other_scales(0.02, 5), "Your `large` makes latents of size 5"),
    "too far": (other_scales(1e-4, 20), "Your `small` makes latents of size 0.0001"),
    "too far up": (other_scales(0.02, 1e4), "Your `large` makes latents of size 1e+04"),
    "right": (other_scales(1, 1), "of the levels useless"),
    "whatever z is": (lambda z: (0.02, 20.0), "of the levels useless"),
    "negative": (lambda z: (-0.02 / z.std(), 20.0), "a scale is a single number"),
    "zero": (lambda z: (0, 20.0), "a scale is a single number"),
    "of each image": (lambda z: (0.02 / z.flatten(1).std(1), 20.0), "a Tensor"),
    "one alone": (lambda z: 0.02, "returns only one result"),
}

# --- masked_attention ----------------------------------------------------------------------------


def with_softmax(q, k, v, mask):
    """Finite numbers in place of −∞, and 0 for what sees nothing."""
    logits = torch.einsum("bhnd,bhld->bhnl", q, k) / math.sqrt(q.shape[-1])
    logits = torch.where(mask[:, None, None], logits, -1e30)
    p = torch.softmax(logits, -1) * mask[:, None, None, :]
    return torch.einsum("bhnl,bhle->bhne", p, v)


def with_one_place_more(q, k, v, mask):
    """A key of logit 0 and value 0 for examples without words."""
    none = (~mask).all(1, keepdim=True)
    k, v = (nn.functional.pad(part, (0, 0, 1, 0)) for part in (k, v))
    seen = torch.cat([none, mask], 1)[:, None, None]
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def example_by_example(q, k, v, mask):
    out = []
    for one_q, one_k, one_v, words in zip(q, k, v, mask, strict=True):
        logits = one_q @ one_k[:, words].transpose(1, 2) * one_q.shape[-1] ** -0.5
        out.append(torch.softmax(logits, -1) @ one_v[:, words])
    return torch.stack(out)


def nan_afterwards(q, k, v, mask):
    """Fine on the way back, too: `masked_fill` lets nothing through, not even NaN."""
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask[:, None, None], -math.inf)
    return torch.softmax(logits, -1).nan_to_num(0) @ v


def infinity_added(q, k, v, mask):
    hidden = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)[:, None, None]
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5 + hidden, -1).nan_to_num(0) @ v


def hidden_after_exp(q, k, v, mask):
    p = torch.exp(q @ k.mT / q.shape[-1] ** 0.5) * mask[:, None, None]
    return p @ v / p.sum(-1, keepdim=True).clamp(min=1e-30)


def largest_of_all(q, k, v, mask):
    logits = q @ k.mT / q.shape[-1] ** 0.5
    p = torch.exp(logits - logits.amax(-1, keepdim=True)) * mask[:, None, None]
    return p @ v / p.sum(-1, keepdim=True).clamp(min=1e-30)


MASK_RIGHT = [
    ch12.masked_attention,
    with_softmax,
    with_one_place_more,
    example_by_example,
    nan_afterwards,
]
MASK_WRONG = {
    "zeros": (lambda q, k, v, mask: q[..., :1] * 0 + v[..., :1, :], "not the attention to"),
    "NaN on the way back": (infinity_added, "not your gradients where an example sees nothing"),
    "no gradient where something is blind": (
        lambda q, k, v, mask: (
            nan_afterwards(q, k, v, mask)
            if mask.any(1).all()
            else nan_afterwards(q, k, v, mask).detach()
        ),
        "not your gradients where an example sees nothing",
    ),
    "hidden after exp": (hidden_after_exp, "a padding's logit is much larger"),
    "largest of all": (largest_of_all, "a padding's logit is much larger"),
    "a small number for -inf": (
        lambda q, k, v, mask: (
            torch.softmax(q @ k.mT / q.shape[-1] ** 0.5 - 60.0 * ~mask[:, None, None], -1) @ v
        ),
        "a padding's logit is much larger",
    ),
}

# --- break_the_mask ------------------------------------------------------------------------------


def alone_and_in_company(words, length):
    return [words[0]], [words[0], " ".join(words[1:length])]


def empty_prompt(words, length):
    return ["", words[2]], ["", " ".join([words[3]] * (length - 1)), words[2]]


def less_padding(words, length):
    """The second batch has less of it."""
    return [" ".join(words[:2]), " ".join(words[: length - 1])], (" ".join(words[:2]), "")


BATCHES_RIGHT = [alone_and_in_company, empty_prompt, less_padding]
BATCHES_WRONG = {
    "as long": (lambda w, n: ([w[0]], [w[0], w[1]]), "Not broken"),
    "shorter company": (lambda w, n: ([f"{w[0]} {w[1]}"], [f"{w[0]} {w[1]}", ""]), "Not broken"),
    "the same": (lambda w, n: ([w[0], w[1]], [w[0], w[1]]), "Not broken"),
    "other prompts": (lambda w, n: ([w[0]], [f"{w[0]} {w[1]}"]), "of course they differ"),
    "an unknown word": (lambda w, n: ([w[0]], [w[0], "unheard of"]), "The tokenizer refuses"),
    "too long": (lambda w, n: ([w[0]], [w[0], " ".join(w[:n])]), "The tokenizer refuses"),
    "empty": (lambda w, n: ([], [w[0]]), "The tokenizer refuses"),
    "texts": (lambda w, n: (w[0], w[0]), "must be a list of prompts"),
    "tensors": (lambda w, n: (torch.ones(2), torch.ones(2)), "of type Tensor"),
    "one alone": (lambda w, n: ([w[0]],), "returns only one result"),
    "only for few": (
        lambda w, n: alone_and_in_company(w, n) if n == 4 else ([w[0]], [w[0], w[1]]),
        "Not broken",
    ),
}

# --- two_prompts ---------------------------------------------------------------------------------


def by_repeating(net, x, t, tokens, w):
    n, event = len(x), [1] * (x.ndim - 1)
    y = tokens.reshape(3 * n, -1)
    said = net(x.repeat(3, *event), t.repeat(3), tokens=y).unflatten(0, (3, n))
    w = w.reshape(2, n, *event)
    return (1 - w.sum(0)) * said[0] + (w * said[1:]).sum(0)


def interleaved(net, x, t, tokens, w):
    y = tokens.transpose(0, 1).flatten(0, 1)
    said = net(x.repeat_interleave(3, 0), t.repeat_interleave(3), y).unflatten(0, (-1, 3))
    change = said[:, 1:] - said[:, :1]
    return said[:, 0] + torch.einsum("kb,bk...->b...", w, change)


def in_three_calls(net, x, t, tokens, w):
    null, *told = (net(x, t, y) for y in tokens)
    w = w.reshape(2, -1, *[1] * (x.ndim - 1))
    return sum((w_i * (said - null) for w_i, said in zip(w, told, strict=True)), null)


TWO_RIGHT = [ch12.two_prompts, by_repeating, interleaved]
TWO_WRONG = {
    "in three calls": (in_three_calls, "you call the network 3 times"),
    "null": (lambda net, x, t, tokens, w: net(x, t, tokens[0]), "not that of both prompts"),
    "x not repeated": (
        lambda net, x, t, tokens, w: net(x, t, tokens.flatten(0, 1)),
        "You give the network x [4, 4], t [4], tokens [12, 5]",
    ),
    "t not repeated": (
        lambda net, x, t, tokens, w: net(torch.cat([x] * 3), t, tokens.flatten(0, 1)),
        "You give the network x [12, 4], t [4], tokens [12, 5]",
    ),
    "tokens as they are": (
        lambda net, x, t, tokens, w: net(torch.cat([x] * 3), torch.cat([t] * 3), tokens),
        "tokens [3, 4, 5]",
    ),
    "no tensor": (lambda net, x, t, tokens, w: net(x, 0.5, tokens[0]), "a float as t"),
    "no tokens": (lambda net, x, t, tokens, w: net(x, t), "You call `net(…, …)`"),
}

# --- inpainting_step -----------------------------------------------------------------------------


def mixed_before(x, D, z, eps, keep, sigma, sigma_next):
    """As the library does it."""
    x = torch.where(keep, z + sigma * eps, x)
    D = torch.where(keep, z, D)
    return D + sigma_next / sigma * (x - D)


def by_a_weight(x, D, z, eps, keep, sigma, sigma_next):
    m = keep.to(x)
    noise = (x - D) / sigma
    return m * (z + sigma_next * eps) + (1 - m) * (D + sigma_next * noise)


STEP_RIGHT = [ch12.inpainting_step, mixed_before, by_a_weight]
STEP_WRONG = {
    "zeros": (lambda x, *rest: 0 * x, "not the step with what is known"),
    "one channel": (
        lambda x, D, *rest: ch12.inpainting_step(x, D, *rest)[:, :1],
        "Your x has shape",
    ),
}

# --- predict_zero_gradients ----------------------------------------------------------------------

LETTERS_RIGHT = ["CDEFG; FG", "g f e d c; g,f", "C, D, E, F, G; F, G", "CDEFG FG", "cdefg,fg."]
LETTERS_WRONG = {
    "all": ("ABCDEFG; FG", "nothing would ever be trained"),
    "nothing": ("none; none", "some gradients are zero"),
    "the zeros themselves": ("A; none", "own weights are zero, but"),
    "biases": ("BCDEFG; FG", "own biases are zero, but"),
    "hint alone": ("DEFG; FG", "through zero convolutions"),
    "copy alone": ("C; none", "nothing comes back to it"),
    "not the bias": ("CDFG; FG", "nothing comes back to it"),
    "not the condition": ("CDEF; F", "nothing gets a gradient at the first step"),
    "all is open": ("CDEFG; none", "one zero convolution is still zero"),
    "the same again": ("CDEFG; CDEFG", "are not zero any more"),
    "learning stops": ("CDEFG; AB", "go on learning at the second"),
    "copy is late": ("CDEFG; CFG", "the copy is reached"),
    "hint is late": ("CDEFG; DFG", "the hint's zero convolution is reached"),
    "not the condition behind": ("CDEFG; F", "one zero convolution is still zero"),
    "one word": ("CDEFG", "two words of the letters"),
    "other letters": ("XY; Z", "two words of the letters"),
    "numbers": (5, "You gave a int"),
    "a pair": (("CDEFG", "FG"), "You gave a tuple"),
    "long": ("A" * 200, "another text"),
}

# --- second_step ---------------------------------------------------------------------------------


def by_autograd(x, dy, lr, dy_2):
    conv = ZeroConv(x.shape[1], dy.shape[1])
    optimizer = torch.optim.SGD(conv.parameters(), lr=lr)
    conv(x).backward(dy)
    optimizer.step()
    x = x.clone().requires_grad_()
    conv(x).backward(dy_2)
    return conv.weight[:, :, 0, 0].detach(), conv.bias.detach(), x.grad


def by_matrices(x, dy, lr, dy_2):
    n, out = x.shape[1], dy.shape[1]
    x_rows, dy_rows = x.movedim(1, -1).reshape(-1, n), dy.movedim(1, -1).reshape(-1, out)
    W = -lr * dy_rows.T @ x_rows
    return W, -lr * dy_rows.sum(0), (dy_2.movedim(1, -1) @ W).movedim(-1, 1)


SECOND_RIGHT = [ch12.second_step, by_autograd, by_matrices]
SECOND_WRONG = {
    "transposed": (
        lambda x, dy, lr, dy_2: (
            ch12.second_step(x, dy, lr, dy_2)[0].T,
            *by_matrices(x, dy, lr, dy_2)[1:],
        ),
        "Your W has shape",
    ),
    "as a convolution's": (
        lambda x, dy, lr, dy_2: (
            by_matrices(x, dy, lr, dy_2)[0][..., None, None],
            *by_matrices(x, dy, lr, dy_2)[1:],
        ),
        "Your W has shape",
    ),
    "dx alone": (
        lambda x, dy, lr, dy_2: (*ch12.second_step(x, dy, lr, dy_2)[:2], x),
        "not the gradient at the second step",
    ),
}

# --- break_the_lock ------------------------------------------------------------------------------


def trains_both(unet, n):
    net = ControlNet(unet, n)
    return net, [*unet.parameters(), *net.parameters()]


def the_way_up(unet, n):
    """As a generator, of the network's last layers alone."""
    net = ControlNet(unet, n, factor=1)
    return net, (p for module in (unet.last, net) for p in module.parameters())


def shared_layers(unet, n):
    """A copy that is none: its layers are the network's own."""
    net = ControlNet(unet, n, factor=2)
    net.copy.down, net.copy.middle = unet.down, unet.middle
    return net, list(net.parameters())


def no_zeros(unet, n):
    net, parameters = trains_both(unet, n)
    nn.init.normal_(net.zeros[0].weight)
    return net, parameters


def at_once(unet, n):
    with torch.no_grad():
        unet.last.bias += 0.1
    return trains_both(unet, n)


LOCK_RIGHT = [trains_both, the_way_up, shared_layers]
LOCK_WRONG = {
    "locked": (
        lambda unet, n: (ControlNet(unet, n), ControlNet(unet, n).parameters()),
        "not reach",
    ),
    "right": (lambda unet, n: (net := ControlNet(unet, n), net.parameters()), "Not broken"),
    "only the network": (
        lambda unet, n: (ControlNet(unet, n), unet.parameters()),
        "Training does not reach the control",
    ),
    "no zeros": (no_zeros, "does not say what the network says"),
    "at once": (at_once, "changes the network at once"),
    "other channels": (
        lambda unet, n: (net := ControlNet(unet, n + 3), [*net.parameters(), *unet.parameters()]),
        "Your control takes conditions of",
    ),
    "nothing": (lambda unet, n: (ControlNet(unet, n), []), "no list of parameters"),
    "a module": (lambda unet, n: (ControlNet(unet, n), unet), "no list of parameters"),
    "tensors": (lambda unet, n: (ControlNet(unet, n), [torch.ones(2)]), "no list of parameters"),
    "frozen": (
        lambda unet, n: (ControlNet(unet, n), unet.requires_grad_(False).parameters()),
        "None of your parameters takes a gradient",
    ),
    "no control": (lambda unet, n: (unet, unet.parameters()), "not a ControlNet"),
    "the control alone": (lambda unet, n: ControlNet(unet, n), "returns only one result"),
}


ALL = {
    "12.predict_logits": (LOGITS_RIGHT, LOGITS_WRONG),
    "12.latent_scale": (SCALE_RIGHT, SCALE_WRONG),
    "12.break_the_scale": (TWO_SCALES_RIGHT, TWO_SCALES_WRONG),
    "12.masked_attention": (MASK_RIGHT, MASK_WRONG),
    "12.break_the_mask": (BATCHES_RIGHT, BATCHES_WRONG),
    "12.two_prompts": (TWO_RIGHT, TWO_WRONG),
    "12.inpainting_step": (STEP_RIGHT, STEP_WRONG),
    "12.predict_zero_gradients": (LETTERS_RIGHT, LETTERS_WRONG),
    "12.second_step": (SECOND_RIGHT, SECOND_WRONG),
    "12.break_the_lock": (LOCK_RIGHT, LOCK_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "12"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) or ".break_" in name else 8


# --- What the exercises call right, against the library and exact models --------------------------


def right(name):
    return declared("12")[f"12.{name}"].right


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_autoencoder():
    torch.manual_seed(0)
    return KLAutoencoder((1, 8, 8), channels=2, factor=2, width=8)


def test_the_scale_is_what_the_library_measures():
    model, x = small_autoencoder(), randn(400, 1, 8, 8).float()
    with torch.no_grad():
        model.encoder[-1].weight *= 5
        mu, log_var = model.encode(x)
    model.measure_scale(x, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        right("latent_scale")(mu, log_var), model.latent_scale, rtol=0.02, atol=0
    )


def test_masked_attention_is_that_of_the_layer():
    layer, x, context = CrossAttention(6, 5, 2).double(), randn(3, 4, 6), randn(3, 7, 5, seed=1)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1] + [0] * 6, [1] * 7]).bool()
    q, k, v, _ = layer.heads_of(x, context, mask)
    o = right("masked_attention")(q, k, v, mask)
    torch.testing.assert_close(layer.out(o.transpose(1, 2).flatten(2)), layer(x, context, mask))


def mixture():
    """A mixture whose score is known without a label and with each of three."""
    centres = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    net = IdealDenoiser(centres, EDMPath(), std=0.4, labels=torch.tensor([0, 1, 2]))
    return Denoiser(net, EDMPath()).double()


def told(model):
    """The mixture as a network of tokens: the one of an example is its label + 1, or 0."""

    def net(x, t, tokens):
        empty, label = tokens[:, :1] == 0, model.predict_x0(x, t, y=(tokens[:, 0] - 1).clamp(min=0))
        return torch.where(empty, model.predict_x0(x, t), label)

    return net


def tokens_of(n):
    y = torch.arange(n) % 3
    return y, (y + 1) % 3, torch.stack([0 * y, y + 1, (y + 1) % 3 + 1])[..., None]


def test_two_prompts_follow_the_score_of_their_density():
    model, x, t = mixture(), randn(9, 2), 0.3 + randn(9, seed=1).abs()
    w = randn(2, 9, seed=2).abs()
    first, second, tokens = tokens_of(9)
    at = x.clone().requires_grad_()
    chances = model.net.logits(at, t).log_softmax(1)
    rows = torch.arange(9)
    log_prob = w[0] * chances[rows, first] + w[1] * chances[rows, second]
    score = model.predict(x, t, target="score") + torch.autograd.grad(log_prob.sum(), at)[0]
    got = right("two_prompts")(told(model), x, t, tokens, w)
    torch.testing.assert_close(got, x + t[:, None] ** 2 * score, rtol=1e-6, atol=1e-6)


def test_one_of_two_prompts_is_classifier_free_guidance():
    model, x, t = mixture(), randn(9, 2), torch.full((9,), 0.7, dtype=torch.float64)
    first, _, tokens = tokens_of(9)
    w = torch.stack([0 * t + 2.5, 0 * t])
    got = right("two_prompts")(told(model), x, t, tokens, w)
    wanted = ClassifierFreeGuidance(model, 2.5).predict_x0(x, t, y=first)
    torch.testing.assert_close(got, wanted)


def test_an_inpainting_step_is_a_step_of_the_library_s_model():
    model, x, known = mixture(), 2 * randn(9, 2), randn(9, 2, seed=1)
    keep = torch.tensor([[True, False]]).expand(9, 2)
    inside = Inpainting(model, known, keep, generator=torch.Generator().manual_seed(2))
    x = keep_known(x, known + 1.3 * inside.eps, keep)
    wanted = euler_step(lambda x, t: (x - inside.predict_x0(x, t)) / t, x, 1.3, 0.5 - 1.3)
    D = model.predict_x0(x, 1.3)
    got = right("inpainting_step")(x, D, known, inside.eps, keep, 1.3, 0.5)
    torch.testing.assert_close(got, wanted)


def test_the_second_gradient_goes_along_x():
    x, dy, dy_2 = randn(3, 4, 2, 2), randn(3, 5, 2, 2, seed=1), randn(3, 5, 2, 2, seed=2)
    alike = torch.einsum("bohw,aoij->bhwaij", dy, dy_2)
    wanted = -0.3 * torch.einsum("bnhw,bhwaij->anij", x, alike)
    torch.testing.assert_close(right("second_step")(x, dy, 0.3, dy_2)[2], wanted)


@pytest.mark.parametrize("seed", range(3))
def test_two_zero_convolutions_take_two_steps(seed):
    generator = torch.Generator().manual_seed(seed)
    assert ch12._zero_gradients(generator, 4) == ["CDEFG", "FG", "", ""]


def test_the_levels_are_those_of_the_chapter_s_model():
    autoencoder = small_autoencoder()
    encoder = TextEncoder(WordTokenizer(["a"], length=3), dim=8, depth=1)
    unet = UNet(autoencoder.latent_shape, widths=(8,), context_dim=8)
    model = LatentDiffusion(autoencoder, unet, encoder).denoiser
    assert (model.sigma_data, model.p_mean, model.p_std) == (1.0, -0.4, 1.2)
    drawn, _ = model.draw(torch.zeros(20_000, 1), generator=torch.Generator().manual_seed(0))
    for s in (0.02, 1.0, 20.0):
        share = s**2 / (s**2 + drawn**2)
        hidden, bare = ch12._shares(model, s)
        assert (share < 0.01).float().mean().item() == pytest.approx(hidden, abs=0.01)
        assert (share > 0.99).float().mean().item() == pytest.approx(bare, abs=0.01)


@pytest.mark.parametrize(("s", "loss"), [(0.02, 0.01), (1.0, 1.0), (20.0, 5.4)])
def test_the_best_guess_is_the_best(s, loss):
    """Of Gaussian latents: the weighted error is s² (1 + σ²) / (s² + σ²) at every level."""
    x = s * torch.randn(16_000, 8, generator=torch.Generator().manual_seed(0))
    model = EDM(ch12._BestGuess(s), sigma_data=1.0, p_mean=-0.4)
    sigma, eps = model.draw(x, generator=torch.Generator().manual_seed(1))
    guess = model.net(x + sigma[:, None] * eps, sigma)
    torch.testing.assert_close(
        guess,
        s**2 / (s**2 + sigma[:, None] ** 2) * (x + sigma[:, None] * eps),
        rtol=1e-3,
        atol=1e-4,
    )
    got = model.loss(x, generator=torch.Generator().manual_seed(1)).item()
    wanted = (s**2 * (1 + sigma**2) / (s**2 + sigma**2)).mean().item()
    assert got == pytest.approx(wanted, rel=0.05)
    assert got == pytest.approx(loss, rel=0.25)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("predict_logits", 4096, "16.8 million logits a head instead of 69 billion"),
        ("break_the_scale", two_scales, "84% of the levels drown the latents"),
        ("break_the_mask", alone_and_in_company, "stand 0 of padding in the first batch and 10"),
        ("predict_zero_gradients", "CDEFG; FG", "F and G at the second, and at the third none"),
        ("break_the_lock", trains_both, "in 8 steps the loss falls from 0.09"),
    ],
)
def test_what_was_measured_is_told(name, answer, words):
    assert words in check(f"12.{name}", answer).reason
