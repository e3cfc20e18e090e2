"""Chapter 05: right answers, written differently, pass; known mistakes are named."""

import math

import torch
from torch import distributions as td
from torch import nn
from torch.nn import functional as F

from course_lib.exercises import check
from course_lib.experiments import far_latents, run_stack, runaway_log_scale
from course_lib.flows import (
    ActNorm,
    DiagonalScaling,
    Flow,
    InvertibleConv1x1,
    Split,
    Squeeze,
    StandardGaussian,
)
from course_lib.nn import MLP
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- predict_split -------------------------------------------------------------------------------

PREDICT_RIGHT = [768, 768.0, torch.tensor(768), 48 * 4 * 4]

# --- split_gain ----------------------------------------------------------------------------------


def split_gain(h, prior):
    kept, leaving = h.chunk(2, dim=1)
    mean, std = prior(kept)
    eps = (leaving - mean) / std
    return (0.5 * leaving**2 - 0.5 * eps**2 - std.log()).flatten(1).sum(1)


def gain_by_densities(h, prior):
    half = h.shape[1] // 2
    given = td.Normal(*prior(h[:, :half])).log_prob(h[:, half:])
    return (given - td.Normal(0.0, 1.0).log_prob(h[:, half:])).sum(dim=(1, 2, 3))


def gain_of_library(h, prior):
    """By the log-determinant of the library's split."""
    split = Split(list(h.shape[1:]))

    def scale_and_shift(kept):
        mean, std = prior(kept)
        return -std.log(), -mean / std

    split.scale_and_shift = scale_and_shift
    z, log_det = split(h)
    return log_det + (h.square() - z.square()).sum(dim=(1, 2, 3)) / 2


SPLIT_RIGHT = [split_gain, gain_by_densities, gain_of_library]
SPLIT_WRONG = {
    "rows": (lambda h, prior: split_gain(h.transpose(1, 2), prior), "You call prior on a tensor"),
}

# --- logit ---------------------------------------------------------------------------------------


def paper_logit(x, alpha):
    y = alpha + (1 - alpha) * x
    slope = (1 - alpha) / (y * (1 - y))
    return torch.log(y / (1 - y)), slope.log().sum(dim=(1, 2, 3))


def logit_by_torch(x, alpha):
    z = torch.logit(torch.lerp(x, torch.ones_like(x), alpha))
    log_sigmoids = F.logsigmoid(z) + F.logsigmoid(-z)  # of y and 1 − y
    return z, (math.log1p(-alpha) - log_sigmoids).flatten(1).sum(1)


LOGIT_RIGHT = [paper_logit, logit_by_torch]

# --- strided_kernel ------------------------------------------------------------------------------


def library_squeeze(x):
    return Squeeze()(x)[0]


def strided_kernel(weight):
    return weight.reshape(weight.shape[0], -1, 2, 2)


def kernel_by_index(weight):
    channels = weight.shape[1] // 4
    kernel = weight.new_empty(len(weight), channels, 2, 2)
    for k in range(weight.shape[1]):
        kernel[:, k // 4, k % 4 // 2, k % 2] = weight[:, k]
    return kernel


def kernel_by_pulses(weight):
    """What comes of images in which a single pixel is 1."""
    channels = weight.shape[1] // 4
    pulses = torch.eye(4 * channels).reshape(-1, channels, 2, 2)
    answers = torch.einsum("dk,nkhw->nd", weight, library_squeeze(pulses))
    return answers.T.reshape(-1, channels, 2, 2)


KERNEL_RIGHT = [strided_kernel, kernel_by_index, kernel_by_pulses]
KERNEL_WRONG = {
    "zeros": (lambda w: 0 * strided_kernel(w), "does not do what squeeze and weight do"),
    "1×1": (lambda w: w[..., None, None], "Your kernel has shape"),
}

# --- squeeze_inverse -----------------------------------------------------------------------------


def library_unsqueeze(z):
    return Squeeze().inverse(z)[0]


def unsqueezed_shape(z):
    b, c, h, w = z.shape
    return b, c // 4, 2 * h, 2 * w


def unsqueeze_by_slices(z):
    x = z.new_empty(unsqueezed_shape(z))
    for i in (0, 1):
        for j in (0, 1):
            x[:, :, i::2, j::2] = z[:, 2 * i + j :: 4]
    return x


def split_channels(z):
    b, c, h, w = z.shape
    return z.reshape(b, c // 4, 2, 2, h, w)  # [B, C, i, j, H, W]


def unsqueeze_by_permute(z):
    return split_channels(z).permute(0, 1, 4, 2, 5, 3).reshape(unsqueezed_shape(z))


def unsqueeze_with_swapped_corners(z):
    z = z.reshape(len(z), -1, 4, *z.shape[2:])[:, :, [1, 0, 2, 3]]
    return library_unsqueeze(z.flatten(1, 2))


UNSQUEEZE_RIGHT = [unsqueeze_by_slices, unsqueeze_by_permute]
# fmt: off
UNSQUEEZE_WRONG = {
    "squeeze again": (lambda z: F.pixel_unshuffle(z, 2), "You squeeze once more"),
    "swapped H and W": (lambda z: library_unsqueeze(z).transpose(2, 3), "You swap height and"),
    "upsampled": (lambda z: F.interpolate(z, scale_factor=2), "You have still all channels"),
    "mean": (lambda z: F.interpolate(split_channels(z).mean((2, 3)) + 0.1, scale_factor=2),
             "numbers that are not in z"),
    "one corner": (lambda z: F.interpolate(z[:, ::4], scale_factor=2),
                   "144 of the 192 numbers of z are lost"),
    "corners swapped": (unsqueeze_with_swapped_corners,
                        "channel 0 of z into row 0, column 1 of the blocks of channel 0"),
    "one place late": (lambda z: library_unsqueeze(z).roll(1, 3), "does not lead your x back"),
}
# fmt: on

# --- merge_actnorm -------------------------------------------------------------------------------


def merge_actnorm(bias, log_scale, weight):
    matrix = weight @ torch.diag(log_scale.exp())
    return matrix, matrix @ bias


def merged_by_the_library(bias, log_scale, weight):
    """What the two layers make of 0 and of each unit vector."""
    norm, conv = ActNorm(len(bias)).eval(), InvertibleConv1x1(len(bias), lu=False)
    norm.initialized.fill_(True)
    norm.bias.data, norm.log_scale.data, conv.matrix.data = bias, log_scale, weight
    pixels = torch.cat([torch.zeros(1, len(bias)), torch.eye(len(bias))])[:, :, None, None]
    shift, *columns = conv(norm(pixels)[0])[0][:, :, 0, 0].detach()
    return torch.stack(columns, dim=1) - shift[:, None], shift


MERGE_RIGHT = [merge_actnorm, merged_by_the_library]
MERGE_WRONG = {
    "odd matrix": (lambda b, s, w: (w + 1, merge_actnorm(b, s, w)[1]), "Your matrix is not that"),
    "odd shift": (lambda b, s, w: (merge_actnorm(b, s, w)[0], b + 1), "your shift is not"),
}

# --- lu_log_det ----------------------------------------------------------------------------------


def conv_log_det(weight, height, width):
    _, _, upper = torch.linalg.lu(weight)
    return height * width * upper.diagonal().abs().log().sum()


def log_det_of_library(weight, height, width):
    conv = InvertibleConv1x1(len(weight), lu=False)
    del conv.matrix
    conv.matrix = weight
    return conv(torch.zeros(1, len(weight), height, width))[1][0]


def log_det_by_svd(weight, height, width):
    return width * height * torch.linalg.svdvals(weight).log().sum()


def elimination_without_exchange(weight, height, width):
    rows = list(weight.double())
    for i, pivot in enumerate(rows):
        for k in range(i + 1, len(rows)):
            rows[k] = rows[k] - pivot * (rows[k][i] / pivot[i])
    diagonal = torch.stack([row[i] for i, row in enumerate(rows)])
    return (height * width * diagonal.abs().log().sum()).float()


CONV_RIGHT = [conv_log_det, log_det_of_library, log_det_by_svd]
ON_LARGE = "off on a 64 × 64 matrix"
# fmt: off
CONV_WRONG = {
    "det().log()": (lambda w, h, v: h * v * w.det().log(), "Your log_det is NaN."),
    "det().abs().log()": (lambda w, h, v: h * v * w.det().abs().log(),
                          "infinite on a 64 × 64 matrix, whose determinant underflows"),
    "ε": (lambda w, h, v: h * v * (w.det().abs() + 1e-12).log(), ON_LARGE),
    "overflow alone": (lambda w, h, v: -h * v * torch.linalg.inv(w).det().abs().log(),
                       "infinite on a 64 × 64 matrix"),
    "no exchange": (elimination_without_exchange, "NaN on a matrix with zeros on its diagonal"),
    "other": (lambda w, h, v: conv_log_det(w, h, v) + 1000, "the autograd Jacobian of the conv"),
}
# fmt: on

# --- temperature ---------------------------------------------------------------------------------


def tempered(z, t):
    d = z.shape[1]
    return -0.5 * ((z / t) ** 2).sum(1) - d * math.log(t) - d / 2 * math.log(2 * math.pi)


def tempered_by_flow(z, t):
    scaling = DiagonalScaling(z.shape[1])
    nn.init.constant_(scaling.log_scale, -math.log(t))
    return Flow([scaling], StandardGaussian(z.shape[1])).log_prob(z)


TEMPERATURE_RIGHT = [tempered, tempered_by_flow]

# --- break_it ------------------------------------------------------------------------------------


def relu_network(kept):
    """The same as two hidden ReLU units make, with a slope of 1/2."""
    net = MLP(1, [2], 1)
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net.layers[0].bias.fill_(-1.0)
        net.layers[2].weight.fill_(-0.5)
        net.layers[2].bias.zero_()
        return net(kept)


def gentle_line(kept):
    return 0.2 * kept


def one_sided(kept):
    return -torch.clamp(kept - 1, min=0)


def shrinking_to_nothing(kept):
    return 100 * (kept.abs() - 1).relu()


BREAK_RIGHT = [runaway_log_scale, relu_network, gentle_line, one_sided, shrinking_to_nothing]
BREAK_WRONG = {
    "zero": (lambda h: 0 * h, "Your log-scale is 0 outside of the data, too"),
    "sign": (lambda h: (h.abs() - 1).relu(), "sampling multiplies by exp(−s): far latents shrink"),
    "bounded": (lambda h: -h.tanh(), "Your log-scale is bounded"),
    "logarithm": (lambda h: -h.abs().log1p(), "It grows too slowly"),
    "steep on data": (lambda h: -5 * h, "On the data your log-scale reaches 5 in size"),
    "line of slope 1": (lambda h: h, "Your log-scale blows up on the data already: at coupling 2"),
    "wobbly on data": (lambda h: (1000 * h).sin(), "data themselves come back off by"),
    "wobbly outside": (
        lambda h: -(h.abs() - 1).relu() * (1 + (300 * h).sin()),
        "With the bound the latents are lost, too",
    ),
    "infinite outside": (
        lambda h: torch.where(h.abs() > 1, -math.inf, 0.0),
        "Your log-scale is infinite where |kept| is",
    ),
    "batch": (lambda h: -0.3 * (h.abs() - h.abs().mean(0)), "depends on the other points"),
    "NaN": (lambda h: h.log(), "Your log-scale holds NaN"),
    "scalar": (lambda h: runaway_log_scale(h).sum(), "Your log-scale has shape []"),
    "number": (lambda h: -3.0, "Your log-scale is of type float"),
}


ALL = {
    "05.predict_split": (PREDICT_RIGHT, {}),
    "05.split_gain": (SPLIT_RIGHT, SPLIT_WRONG),
    "05.logit": (LOGIT_RIGHT, {}),
    "05.strided_kernel": (KERNEL_RIGHT, KERNEL_WRONG),
    "05.squeeze_inverse": (UNSQUEEZE_RIGHT, UNSQUEEZE_WRONG),
    "05.merge_actnorm": (MERGE_RIGHT, MERGE_WRONG),
    "05.lu_log_det": (CONV_RIGHT, CONV_WRONG),
    "05.temperature": (TEMPERATURE_RIGHT, {}),
    "05.break_it": (BREAK_RIGHT, BREAK_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "05"
    cases = ALL

    def times(self, name, answer):
        if is_prediction(name) or name == "05.break_it":
            return 1  # nothing is random
        return super().times(name, answer)


def test_the_input_is_named_on_which_it_broke():
    where = check("05.logit", lambda x, alpha: (x, paper_logit(x, alpha)[1])).where
    assert where == "x of shape [5, 1, 2, 3], alpha=0.05"
    where = check("05.lu_log_det", CONV_WRONG["ε"][0]).where
    assert where == "weight of shape [64, 64], height=3, width=2"
    assert "Add up logarithms" in check("05.lu_log_det", CONV_WRONG["det().abs().log()"][0]).hint


def test_reports_give_measured_numbers():
    assert "a quarter: 48 × 4 × 4. Of the others 1,536" in check("05.predict_split", 768).reason
    assert "and 768 after the second" in check("05.predict_split", 768).reason
    assert "1,096 nats at T = 0.7" in check("05.temperature", tempered).reason
    reason = check("05.break_it", runaway_log_scale).reason
    assert "grows as 4, 23, 1.9e+10, and then to infinity" in reason
    assert "the largest is 11," in reason
    assert "nothing leads back" in check("05.break_it", shrinking_to_nothing).reason


def test_the_runaway_log_scale_is_a_small_network():
    kept = torch.linspace(-5, 5, 101)[:, None]
    assert torch.allclose(2 * relu_network(kept), runaway_log_scale(kept), atol=1e-5)


def test_the_bound_saves_every_right_answer():
    for raw in BREAK_RIGHT:
        assert run_stack(raw, far_latents(), bound=None, backwards=True).error == math.inf
        report = run_stack(raw, far_latents(), bound=2.0, backwards=True)
        assert report.sizes.max() < 4 * math.exp(8)
        assert report.error < 1e-4


def test_the_strided_kernel_is_squeeze_and_weight():
    weight, x = torch.randn(7, 12), torch.randn(2, 3, 4, 6)
    mixed = torch.einsum("dk,nkhw->ndhw", weight, library_squeeze(x))
    kernel = strided_kernel(weight)
    torch.testing.assert_close(F.conv2d(x, kernel, stride=2), mixed, rtol=1e-4, atol=1e-4)
