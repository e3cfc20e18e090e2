"""Chapter 14: right answers, written differently, pass; known mistakes are named."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_lib.diffusion import (
    RectifiedFlow,
    StraightPath,
    logit_normal_density,
    shift_times,
)
from course_lib.exercises import ch14_sd3 as ch14
from course_lib.exercises import check
from course_lib.exercises.formula import declared
from course_lib.nn import JointAttention, patchify, unpatchify
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- patchify and unpatchify ---------------------------------------------------------------------


def by_unfold(x, p, q):
    """The library's way, and then another order inside of a token."""
    tokens = F.unfold(x, (p, q), stride=(p, q)).mT
    return tokens.unflatten(2, (x.shape[1], p * q)).mT.flatten(2)


def rectangle_by_rectangle(x, p, q):
    return torch.stack(
        [
            x[:, :, i : i + p, j : j + q].movedim(1, -1).flatten(1)
            for i in range(0, x.shape[2], p)
            for j in range(0, x.shape[3], q)
        ],
        1,
    )


def by_einsum(x, p, q):
    b, c, height, width = x.shape
    grid = x.reshape(b, c, height // p, p, width // q, q)
    return torch.einsum("bchpwq->bhwpqc", grid).reshape(b, -1, p * q * c)


CUT_RIGHT = [ch14.cut_rectangles, by_unfold, rectangle_by_rectangle, by_einsum]
CUT_WRONG = {
    "numbers first": (lambda x, p, q: ch14.cut_rectangles(x, p, q).mT, "Your tokens has shape"),
    "a grid": (
        lambda x, p, q: ch14.cut_rectangles(x, p, q).unflatten(1, (x.shape[2] // p, -1)),
        "Your tokens has shape",
    ),
    "as many as ones": (
        lambda x, p, q: torch.ones_like(ch14.cut_rectangles(x, p, q)),
        "Your tokens are not the rectangles",
    ),
}


def by_fold(tokens, p, q, rows):
    size = (rows * p, tokens.shape[1] // rows * q)
    return F.fold(tokens.unflatten(2, (p * q, -1)).mT.flatten(2).mT, size, (p, q), stride=(p, q))


def written_into(tokens, p, q, rows):
    columns = tokens.shape[1] // rows
    x = tokens.new_empty(len(tokens), tokens.shape[2] // (p * q), rows * p, columns * q)
    for n in range(rows * columns):
        i, j = n // columns * p, n % columns * q
        x[:, :, i : i + p, j : j + q] = tokens[:, n].unflatten(1, (p, q, -1)).movedim(-1, 1)
    return x


GLUE_RIGHT = [ch14.glue_rectangles, by_fold, written_into]
GLUE_WRONG = {
    "tokens": (lambda tokens, p, q, rows: tokens.clone(), "Your x has shape"),
    "noise": (
        lambda tokens, p, q, rows: 0 * ch14.glue_rectangles(tokens, p, q, rows),
        "not the image that the tokens were cut from",
    ),
}

# --- joint_attention -----------------------------------------------------------------------------


def by_one_mask(image, text, mask):
    """The whole of joint attention, with a mask [B, 1, N + L, N + L] that closes a block."""
    n, length = image.shape[3], text.shape[3]
    q, k, v = torch.cat([image, text], 3)
    seen = torch.ones(len(mask), 1, n + length, n + length, dtype=torch.bool)
    seen[..., n:] = mask[:, None, None]
    seen[..., n:, :n] = False
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return o[:, :, :n], o[:, :, n:]


def by_two_sums(image, text, mask):
    """Sums of exponentials over each block by itself, joined afterwards."""

    def sums(q, keys, seen):
        e = (q @ keys[1].mT / q.shape[-1] ** 0.5).exp() * seen
        return e @ keys[2], e.sum(-1, keepdim=True)

    words = mask[:, None, None]
    over, under = sums(image[0], image, 1.0)
    over_words, under_words = sums(image[0], text, words)
    o_text, under_text = sums(text[0], text, words)
    return (over + over_words) / (under + under_words), o_text / under_text


def example_by_example(image, text, mask):
    results = []
    for b, words in enumerate(mask):
        q, k, v = image[:, b]
        _, k_c, v_c = text[:, b][:, :, words]
        all_k, all_v = torch.cat([k, k_c], 1), torch.cat([v, v_c], 1)
        attention = torch.softmax(q @ all_k.mT / math.sqrt(q.shape[-1]), -1)
        of_text = torch.softmax(text[0, b] @ k_c.mT / math.sqrt(q.shape[-1]), -1)
        results.append((attention @ all_v, of_text @ v_c))
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


JOINT_RIGHT = [ch14.one_way_attention, by_one_mask, by_two_sums, example_by_example]
JOINT_WRONG = {
    "values": (lambda image, text, mask: (image[2], text[2]), "Your o_image is not"),
    "image alone": (lambda image, text, mask: by_one_mask(image, text, mask)[0], "only one result"),
    "heads merged": (
        lambda image, text, mask: tuple(
            o.transpose(1, 2).flatten(2) for o in by_one_mask(image, text, mask)
        ),
        "Your o_image has shape",
    ),
}

# --- adaln_zero_start ----------------------------------------------------------------------------

LETTERS_RIGHT = ["ABCDFGH; BCGH", "h g f d c b a; hgcb", "A, B, C, D, F, G, H; B, C, G, H"]
LETTERS_WRONG = {
    "all": ("ABCDEFGH; BCGH", "nothing would ever be trained"),
    "nothing": ("none; none", "some gradients are zero"),
    "the last layer": ("ABCDEGH; BCGH", "The last layer's weights are 0, but not their gradient"),
    "gates learn at once": ("BCDFGH; BCGH", "nothing comes back through a last layer"),
    "the last modulation learns at once": ("ABCFGH; BCGH", "The last modulation stands in front"),
    "branches alone": ("BCD; BC", "A block hands its tokens on unchanged"),
    "patches learn at once": ("ABCDGH; BCGH", "A block hands its tokens on unchanged"),
    "the same again": ("ABCDFGH; ABCDFGH", "After a step the last layer is not 0"),
    "all is open": ("ABCDFGH; none", "the gates are 0 still"),
    "attention is open": ("ABCDFGH; CGH", "the gates are 0 still"),
    "gates stay": ("ABCDFGH; ABCGH", "a modulation is 0 still, but a gradient comes"),
    "patches wait": ("ABCDFGH; BCFGH", "the patches' embedding is reached"),
    "learning stops": ("ABCDFGH; BCEGH", "The last layer goes on learning"),
    "time is open": ("ABCDFGH; BCH", "through modulations alone"),
    "words are open": ("ABCDFGH; BCG", "through attention alone"),
    "one word": ("ABCDFGH", "two words of the letters"),
    "other letters": ("XY; Z", "two words of the letters"),
    "a number": (5, "You gave `5`"),
    "a pair": (("ABCDFGH", "BCGH"), "You gave a tuple"),
    "long": ("A" * 200, "another text"),
}

# --- break_qk_norm -------------------------------------------------------------------------------


def by_the_largest(q, k):
    largest = (q @ k.mT).abs().max()
    return (30_000 / largest) ** 0.5, (100_000 / largest) ** 0.5


def by_the_sizes(q, k):
    """Products have a standard deviation of √d |q| |k|."""
    size = (q.std() * k.std()).item()
    return (500 / size) ** 0.5, (1e5 / size) ** 0.5


def just_so(q, k):
    largest = torch.einsum("bhnd,bhmd->bhnm", q, k).abs().amax().item()
    return math.sqrt(65_000 / largest), math.sqrt(66_000 / largest)


FACTORS_RIGHT = [by_the_largest, by_the_sizes, just_so]
FACTORS_WRONG = {
    "swapped": (lambda q, k: by_the_largest(q, k)[::-1], "float16 is left already"),
    "hardly": (lambda q, k: (1.0, by_the_largest(q, k)[1]), "Not dead: with your `dead`, 1,"),
    "not far enough": (lambda q, k: (by_the_largest(q, k)[0],) * 2, "Not broken: with your"),
    "without the root": (
        lambda q, k: tuple(c**2 for c in by_the_largest(q, k)),
        "float16 is left already",
    ),
    "too far": (lambda q, k: (by_the_largest(q, k)[0], 1e6), "q or k itself leaves float16"),
    "whatever q is": (lambda q, k: (8.0, 50.0), "with your `dead`"),
    "by the logits": (
        lambda q, k: (by_the_largest(q, k)[0] * q.shape[-1] ** 0.25, 1e3),
        "float16 is left already",
    ),
    "negative": (lambda q, k: (-3.0, 100.0), "a factor is a single number"),
    "of each head": (lambda q, k: (torch.ones(2), 100.0), "a Tensor"),
    "one alone": (lambda q, k: 8.0, "returns only one result"),
}

# --- logit_normal_density ------------------------------------------------------------------------


def by_sines(t, m, s):
    """1 + tan² = 1 / cos², and z = −1 / tan(π t)."""
    z = -1 / torch.tan(math.pi * t)
    normal = torch.distributions.Normal(m, s)
    return normal.log_prob(z).exp() * math.pi / torch.sin(math.pi * t) ** 2


def by_autograd(t, m, s):
    t = t.clone().requires_grad_()
    z = torch.tan(math.pi * (t - 0.5))
    (slope,) = torch.autograd.grad(z.sum(), t)
    log_density = -0.5 * ((z - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
    return (log_density.exp() * slope.abs()).detach()


DENSITY_RIGHT = [ch14.arctan_normal_density, by_sines, by_autograd]
DENSITY_WRONG = {
    "uniform": (lambda t, m, s: torch.ones_like(t), "not that of these times"),
    "one number": (
        lambda t, m, s: ch14.arctan_normal_density(t, m, s).mean(),
        "Your density has shape",
    ),
}

# --- loss_weight ---------------------------------------------------------------------------------


def in_two_steps(t, p, q):
    importance, turn = p / q, (1 / t) ** 2
    return importance * turn


def by_logarithms(t, p, q):
    return torch.exp(torch.log(p) - torch.log(q) - 2 * torch.log(t))


WEIGHT_RIGHT = [ch14.weight_of_x0, in_two_steps, by_logarithms]
WEIGHT_WRONG = {
    "ones": (lambda t, p, q: torch.ones_like(t), "do not make the loss of velocities"),
    "mean": (lambda t, p, q: ch14.weight_of_x0(t, p, q).mean(), "Your weight has shape"),
}

# --- shift_times ---------------------------------------------------------------------------------


def back_and_forth(t, r, q):
    a, b = math.sqrt(r), math.sqrt(q)
    base = t / (a - (a - 1) * t)
    return b * base / (1 + (b - 1) * base)


def by_odds(t, r, q):
    """Where t is 1 the odds are infinite: 1 − t in their place."""
    ahead = math.sqrt(q / r) * t
    return ahead / (ahead + 1 - t)


def in_logits(t, r, q):
    return torch.sigmoid(torch.logit(t) + 0.5 * math.log(q / r))


SHIFT_RIGHT = [ch14.reshift_times, back_and_forth, by_odds, in_logits]
SHIFT_WRONG = {
    "as they are": (lambda t, r, q: t.clone(), "not those for q times the pixels"),
    "NaN at the end": (
        lambda t, r, q: (lambda odds: odds / (1 + odds))(math.sqrt(q / r) * t / (1 - t)),
        "Your t holds NaN",
    ),
}

ALL = {
    "14.patchify": (CUT_RIGHT, CUT_WRONG),
    "14.unpatchify": (GLUE_RIGHT, GLUE_WRONG),
    "14.joint_attention": (JOINT_RIGHT, JOINT_WRONG),
    "14.adaln_zero_start": (LETTERS_RIGHT, LETTERS_WRONG),
    "14.break_qk_norm": (FACTORS_RIGHT, FACTORS_WRONG),
    "14.logit_normal_density": (DENSITY_RIGHT, DENSITY_WRONG),
    "14.loss_weight": (WEIGHT_RIGHT, WEIGHT_WRONG),
    "14.shift_times": (SHIFT_RIGHT, SHIFT_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "14"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) else 8


# --- What the exercises call right, against the library and against simulation --------------------


def right(name):
    return declared("14")[f"14.{name}"].right


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_squares_are_the_library_s_in_another_order():
    x = randn(2, 3, 4, 6)
    tokens = right("patchify")(x, 2, 2)
    torch.testing.assert_close(tokens.unflatten(2, (4, 3)).mT.flatten(2), patchify(x, 2))
    torch.testing.assert_close(right("unpatchify")(tokens, 2, 2, 2), x)
    torch.testing.assert_close(unpatchify(patchify(x, 2), 2, (4, 6)), x)


def test_the_image_s_part_is_joint_attention():
    layer = JointAttention(8, 2).double()
    image, text = randn(3, 4, 8), randn(3, 5, 8, seed=1)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 1, 0]]).bool()
    q, k, v = layer.heads_of((image, text))
    qkv = torch.stack([q, k, v])
    o_image, _ = right("joint_attention")(qkv[:, :, :, :4], qkv[:, :, :, 4:], mask)
    wanted, _ = layer(image, text, mask=torch.cat([mask.new_ones(3, 4), mask], 1))
    torch.testing.assert_close(layer.out[0](o_image.transpose(1, 2).flatten(2)), wanted)


def test_one_way_text_does_not_depend_on_the_image():
    text, mask = randn(3, 2, 2, 5, 4), torch.ones(2, 5).bool()
    said = [right("joint_attention")(randn(3, 2, 2, 3, 4, seed=s), text, mask)[1] for s in (1, 2)]
    assert torch.equal(*said)


@pytest.mark.parametrize("seed", range(3))
def test_a_transformer_opens_from_its_end(seed):
    generator = torch.Generator().manual_seed(seed)
    assert ch14._zero_groups(generator, 4) == ["ABCDFGH", "BCGH", "", ""]


def test_every_parameter_but_the_pooled_text_s_is_in_a_group():
    """That one adds to the time's vector, and is reached as the time is."""
    net = ch14.MMDiT((2, 4, 4), patch=2, dim=16, depth=2, heads=2, context_dim=6)
    grouped = {id(value) for part in ch14._parts(net) for value in part}
    left = [name for name, value in net.named_parameters() if id(value) not in grouped]
    assert left == ["pooled.weight", "pooled.bias"]


def test_entropy_is_a_share_of_that_of_a_uniform_row():
    q = torch.zeros(1, 1, 4, 8)
    torch.testing.assert_close(ch14.mean_entropy(q, randn(1, 1, 6, 8).float()), torch.tensor(1.0))
    eye = 100 * torch.eye(8)[None, None]
    assert ch14.mean_entropy(eye, eye) < 1e-6


def test_with_the_library_s_norm_no_factor_matters():
    layer, x = JointAttention(16, 2, streams=1), randn(2, 5, 16).float()
    before = layer.logits(x)
    with torch.no_grad():
        layer.qkv[0].weight *= 50
        layer.qkv[0].bias *= 50
    torch.testing.assert_close(layer.logits(x), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (0.7, 1.5)])
def test_the_density_is_that_of_such_times(m, s):
    t = 0.5 + torch.arctan(m + s * randn(200_000)) / math.pi
    edges = torch.linspace(0, 1, 21).double()
    counts = torch.histogram(t, edges)[0] / len(t)
    fine = torch.linspace(0, 1, 20_001).double()[1:-1:2]
    mass = right("logit_normal_density")(fine, m, s).reshape(20, -1).mean(1) / 20
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(counts, mass, atol=0.005, rtol=0)


def test_with_the_weights_the_loss_is_that_of_velocities():
    """A poor guess of x_0, weighed, against the library's loss of its velocity."""
    x0, x1 = randn(20_000, 2), randn(20_000, 2, seed=1)

    def guess(x_t):
        return 0.3 * x_t

    def velocity(x_t, t):
        return (x_t - guess(x_t)) / t[:, None]

    def draw(n, *, generator=None, device=None):
        return 0.2 + 0.8 * torch.rand(n, generator=generator).sqrt()  # p, on [0.2, 1]

    model = RectifiedFlow(velocity, path=StraightPath(draw_times=draw))
    wanted = model.loss(x0.float(), x1.float(), generator=torch.Generator().manual_seed(2)).item()
    t = 0.2 + 0.8 * rand(20_000)  # q
    p, q = 2 * (t - 0.2) / 0.64, torch.full_like(t, 1 / 0.8)
    x_t = (1 - t)[:, None] * x0 + t[:, None] * x1
    error = (guess(x_t) - x0).square().mean(1)
    assert (right("loss_weight")(t, p, q) * error).mean().item() == pytest.approx(wanted, rel=0.03)


def test_shifts_form_a_group_and_move_logit_normal_densities():
    t = rand(9)
    base = right("shift_times")(t, 4.0, 1.0)
    torch.testing.assert_close(shift_times(base, 4.0), t)
    torch.testing.assert_close(right("shift_times")(t, 4.0, 9.0), shift_times(base, 9.0))
    moved = shift_times(t, 4.0)
    slope = (moved * (1 - moved)) / (t * (1 - t))  # dt'/dt: the logit moves as a whole
    torch.testing.assert_close(
        logit_normal_density(moved, 0.3 + math.log(4) / 2, 0.9) * slope,
        logit_normal_density(t, 0.3, 0.9),
    )


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("adaln_zero_start", "ABCDFGH; BCGH", "B, C, G, H at the second, and at the third none"),
        ("break_qk_norm", by_the_largest, "a training that looks healthy and hardly moves"),
    ],
)
def test_what_was_measured_is_told(name, answer, words):
    assert words in check(f"14.{name}", answer).reason
