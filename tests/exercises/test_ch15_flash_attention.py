"""Chapter 15: right answers, written differently, pass; known mistakes are named."""

import math

import numpy as np
import pytest
import torch

from course_lib.attention import (
    Part,
    attend_part,
    count_traffic,
    finish,
    flash_backward,
    flash_forward,
    merge,
    naive_attention,
    tiles,
)
from course_lib.exercises import ch15_flash_attention as ch15
from course_lib.exercises import check
from course_lib.exercises.formula import declared
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- predict_bytes -------------------------------------------------------------------------------

BYTES_RIGHT = [
    2 * 258 * 16_384 * 64 / 1e6,
    541,
    np.float32(541.1),
    torch.tensor(550),
]
BYTES_WRONG = {
    "little": (100, "100 MB is too little"),
    "much": (5000, "5,000 MB is too much"),
}

# --- safe_log_softmax ----------------------------------------------------------------------------


def by_logsumexp(x):
    """NaN on the way back from a row of nothing."""
    return x - x.logsumexp(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).min)


def with_where(x):
    """Zeros in place of a row of nothing, before."""
    seen = (x > -math.inf).any(-1, keepdim=True)
    x_seen = torch.where(seen, x, 0)
    m = x_seen.max(dim=-1, keepdim=True).values.detach()
    return torch.where(seen, x_seen - m - (x_seen - m).exp().sum(-1, keepdim=True).log(), x)


def key_by_key(x):
    m = torch.full_like(x[..., :1], torch.finfo(x.dtype).min)
    total = torch.zeros_like(m)
    for x_j in x.split(1, dim=-1):
        larger = torch.maximum(m, x_j)
        total = total * torch.exp(m - larger) + torch.exp(x_j - larger)
        m = larger
    return x - (m + total.clamp(min=torch.finfo(x.dtype).tiny).log())


def hidden_afterwards(x):
    """A large number in place of −∞, and −∞ where nobody looks back."""
    hidden = x == -math.inf
    return torch.log_softmax(x.masked_fill(hidden, -1e9), -1).masked_fill(hidden, -math.inf)


LOG_SOFTMAX_RIGHT = [ch15.safe_log_softmax, hidden_afterwards, with_where, key_by_key]
LOG_SOFTMAX_WRONG = {
    "zeros": (torch.zeros_like, "not the logarithm of the softmax"),
    "always float32": (
        lambda x: ch15.safe_log_softmax(x.double()).float(),
        "For inputs in float64",
    ),
    "NaN on the way back": (by_logsumexp, "not your gradients where logits are −∞"),
    "chosen afterwards": (
        lambda x: torch.where(
            (x == -math.inf).all(-1, keepdim=True), -math.inf, torch.log_softmax(x, -1)
        ),
        "not your gradients where logits are −∞",
    ),
    "torch": (lambda x: torch.log_softmax(x, -1), "a row of nothing but −∞"),
    "clamped logits": (
        lambda x: torch.log_softmax(x.clamp(-50, 50), -1),
        "not where some logits of a row are −∞",
    ),
    "clamped above": (
        lambda x: torch.log_softmax(x.clamp(max=500), -1),
        "with logits of ±10,000 your result is another one",
    ),
    "zero for hidden keys": (
        lambda x: torch.log_softmax(x, -1).nan_to_num(neginf=0),
        "not where some logits of a row are −∞",
    ),
}

# --- average_update ------------------------------------------------------------------------------


def through_the_library(m, l, average, s, v):  # noqa: E741
    part = merge(Part(m, l, l * average), attend_part(s, v[None]))
    return part.m, part.l, finish(part)[0]


def through_log_sum_exps(m, l, average, s, v):  # noqa: E741
    """By L = m + log l: the new key's share is a sigmoid of a difference."""
    larger = torch.where(s > m, s, m)
    nothing = larger == -math.inf
    lse = m + torch.log(l)
    share = torch.where(nothing | (s == -math.inf), 0, torch.sigmoid(s - lse))
    both = torch.logaddexp(lse, s)
    total = torch.where(nothing, 0, torch.exp(both - larger))
    return larger, total, (1 - share) * average + share * v


UPDATE_RIGHT = [ch15.average_update, through_the_library, through_log_sum_exps]


def no_care_for_nothing(m, l, average, s, v):  # noqa: E741
    larger = torch.maximum(m, s)
    c, p = torch.exp(m - larger), torch.exp(s - larger)
    return larger, c * l + p, (c * l * average + p * v) / (c * l + p)


def divided_by_the_old(m, l, average, s, v):  # noqa: E741
    larger, total, _ = ch15.average_update(m, l, average, s, v)
    old = torch.exp(m - larger) * l
    return larger, total, old / total * (average + torch.exp(s - larger) * v / old)


def without_differences(m, l, average, s, v):  # noqa: E741
    larger = torch.maximum(m, s)
    total = (m.exp() * l + s.exp()) / larger.exp()
    return larger, total, (m.exp() * l * average + s.exp() * v) / (m.exp() * l + s.exp())


UPDATE_WRONG = {
    "always float32": (
        lambda *x: tuple(y.float() for y in ch15.average_update(*x)),
        "For inputs in float64 your result is in float32",
    ),
    "nothing seen": (no_care_for_nothing, "a query that has seen nothing"),
    "first key": (divided_by_the_old, "not for the first key"),
    "no differences": (without_differences, "with logits of ±10,000"),
    "hidden key": (
        lambda m, l, a, s, v: ch15.average_update(  # noqa: E741
            m, l, a, torch.where(s == -math.inf, m - 1, s), v
        ),
        "a key that may not be seen",
    ),
    "m alone": (lambda m, l, a, s, v: (m - s, l, a), "Your m is not the largest logit"),  # noqa: E741
    "l alone": (
        lambda m, l, a, s, v: (torch.maximum(m, s), l * s, a),  # noqa: E741
        "Your l is not the sum",
    ),
}

# --- merge_by_lse --------------------------------------------------------------------------------


def by_sigmoid(o_1, L_1, o_2, L_2):
    share = torch.sigmoid(L_1 - L_2).nan_to_num(0.5)[..., None]
    return torch.lerp(o_2, o_1, share), torch.logaddexp(L_1, L_2)


def by_softmax(o_1, L_1, o_2, L_2):
    both = torch.stack([L_1, L_2])
    share = torch.softmax(both, 0).nan_to_num(0)
    return (share[..., None] * torch.stack([o_1, o_2])).sum(0), both.logsumexp(0)


def through_parts(o_1, L_1, o_2, L_2):
    """A finished output is a part with l = 1 and m = L, or l = 0 where nothing was seen."""
    parts = [
        Part(L[..., None], (-math.inf < L).to(o.dtype)[..., None], o)
        for o, L in ((o_1, L_1), (o_2, L_2))
    ]
    return finish(merge(*parts))


MERGE_RIGHT = [ch15.merge_by_lse, by_sigmoid, by_softmax, through_parts]
MERGE_WRONG = {
    "no care for nothing": (
        lambda o, a, u, b: (
            (a - torch.logaddexp(a, b)).exp()[..., None] * o
            + (b - torch.logaddexp(a, b)).exp()[..., None] * u,
            torch.logaddexp(a, b),
        ),
        "saw nothing of either",
    ),
    "always float32": (
        lambda *x: tuple(y.float() for y in ch15.merge_by_lse(*x)),
        "For inputs in float64 your result is in float32",
    ),
    "floor": (
        lambda o, a, u, b: ch15.merge_by_lse(o, a.clamp(min=-20), u, b.clamp(min=-20)),
        "where one is ±10,000",
    ),
    "o alone": (lambda o, a, u, b: (o - u, torch.logaddexp(a, b)), "not the output over all keys"),
    "L alone": (
        lambda o, a, u, b: (by_sigmoid(o, a, u, b)[0], a - b),
        "Your L is not the log-sum-exp",
    ),
}

# --- causal_tiles --------------------------------------------------------------------------------


def by_the_mask(n_q, n_k, rows, columns, window):
    newest = torch.arange(n_q)[:, None] + n_k - n_q
    j = torch.arange(n_k)
    seen = (j <= newest) & (j > newest - window)
    return [
        [2 if tile.all() else int(tile.any()) for tile in block.split(columns, dim=1)]
        for block in seen.split(rows, dim=0)
    ]


def by_the_tiles_of_the_library(n_q, n_k, rows, columns, window):
    """Causal tiles, less those before the window: the tiles of a window further on."""
    shape = -(-n_q // rows), -(-n_k // columns)
    kinds = torch.zeros(shape, dtype=torch.int32)
    for down, across, whole in tiles(n_q, n_k, (rows, columns), causal=True):
        newest_of_first = down.start + n_k - n_q
        newest_of_last = down.stop - 1 + n_k - n_q
        if across.stop - 1 > newest_of_first - window:
            inside = whole and across.start > newest_of_last - window
            kinds[down.start // rows, across.start // columns] = 2 if inside else 1
    return kinds


TILES_RIGHT = [ch15.causal_tiles, by_the_mask, by_the_tiles_of_the_library]
TILES_WRONG = {
    "zeros": (lambda *sizes: ch15.causal_tiles(*sizes) * 0, "and you give 0"),
    "booleans": (lambda *sizes: ch15.causal_tiles(*sizes) > 0, "You mask every tile"),
    "a row short": (lambda *sizes: ch15.causal_tiles(*sizes)[1:], "Your table has shape"),
    "one list": (lambda *sizes: ch15.causal_tiles(*sizes).flatten().tolist(), "is a list of"),
    "words": (lambda *sizes: [["skip"]], "is a list of"),
    "ragged": (lambda *sizes: [[0, 1], [2]], "is a list of"),
    "nothing in it": (lambda *sizes: ch15.causal_tiles(*sizes) * math.nan, "holds NaN"),
    "drawn": (
        lambda *sizes: torch.randint(0, 3, ch15.causal_tiles(*sizes).shape),
        "drawn at random",
    ),
}

# --- row_term ------------------------------------------------------------------------------------


def by_einsum(o, do, d_lse):
    return torch.einsum("...d,...d->...", o.float(), do.float()) - d_lse


def by_a_matrix_product(o, do, d_lse):
    return (do.double().unsqueeze(-2) @ o.double().unsqueeze(-1)).float()[..., 0, 0] - d_lse


ROW_RIGHT = [ch15.row_term, by_einsum, by_a_matrix_product]
ROW_WRONG = {
    "zeros": (lambda o, do, g: torch.zeros_like(g), "dS is not the gradient by the logits"),
    "kept axis": (lambda o, do, g: by_einsum(o, do, g)[..., None], "Your D has shape"),
    "in half": (lambda o, do, g: by_einsum(o, do, g).to(o.dtype), "D is asked for in float32"),
    "half of the products": (
        lambda o, do, g: ch15.row_term(o[..., 1:], do[..., 1:], g),
        "dS is not the gradient by the logits",
    ),
}

# --- break_the_rescaling -------------------------------------------------------------------------


def falling(n):
    x = -10.0 * torch.arange(n)
    return x, x.flip(0)


def largest_first(n):
    """All equal but one."""
    x = torch.zeros(n, dtype=torch.float64)
    x[0] = 30.0
    return x, x.roll(1)


def whole_numbers(n):
    x = torch.arange(n) * -1000
    return x, x.flip(0)


ORDERS_RIGHT = [falling, largest_first, whole_numbers]
ORDERS_WRONG = {
    "equal": (lambda n: (torch.ones(n), torch.ones(n)), "Your logits hardly differ"),
    "nearly equal": (lambda n: tuple(0.01 * x for x in falling(n)), "Your logits hardly differ"),
    "other numbers": (lambda n: (falling(n)[0], 2 * falling(n)[1]), "not the same numbers"),
    "swapped": (lambda n: falling(n)[::-1], "You swap the two"),
    "the same twice": (lambda n: falling(n)[:1] * 2, "does too little"),
    "too little for two": (lambda n: tuple(0.6 * x for x in falling(n)), "of 2 weights is only"),
    "is off a little": (
        lambda n: (
            torch.tensor([0.0, 0.05, *[-10.0] * (n - 2)]),
            torch.tensor([*[-10.0] * (n - 2), 0.05, 0.0]),
        ),
        "Your first order is not harmless: a weight is wrong by 0.0",
    ),
    "too little": (lambda n: tuple(x / 5 for x in falling(n)), "times too large"),
    "both rise": (lambda n: falling(n)[1:] * 2, "Your first order is not harmless"),
    "only for three": (
        lambda n: falling(n) if n == 3 else (falling(n)[1], falling(n)[1]),
        "Your first order is not harmless",
    ),
    "one alone": (lambda n: falling(n)[0], "returns only one result"),
    "shape": (lambda n: (falling(n)[0][None], falling(n)[1]), "Your harmless has shape"),
    "infinite": (
        lambda n: (torch.cat([torch.zeros(1), torch.full((n - 1,), -math.inf)]), falling(n)[1]),
        "Your harmless holds infinite values",
    ),
    "list": (lambda n: tuple(x.tolist() for x in falling(n)), "is a list of 3"),
}


ALL = {
    "15.predict_bytes": (BYTES_RIGHT, BYTES_WRONG),
    "15.safe_log_softmax": (LOG_SOFTMAX_RIGHT, LOG_SOFTMAX_WRONG),
    "15.average_update": (UPDATE_RIGHT, UPDATE_WRONG),
    "15.merge_by_lse": (MERGE_RIGHT, MERGE_WRONG),
    "15.causal_tiles": (TILES_RIGHT, TILES_WRONG),
    "15.row_term": (ROW_RIGHT, ROW_WRONG),
    "15.break_the_rescaling": (ORDERS_RIGHT, ORDERS_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "15"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) or name == "15.break_the_rescaling" else 8


# --- What the exercises call right, against the library ------------------------------------------


def right(name):
    return declared("15")[f"15.{name}"].right


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_key_by_key_the_average_is_attention():
    q, k, v = randn(5, 4), randn(6, 4, seed=1), randn(6, 4, seed=2)
    m, l, average = torch.full((5, 1), -math.inf).double(), torch.zeros(5, 1).double(), 0 * q  # noqa: E741
    for k_j, v_j in zip(k, v, strict=True):
        m, l, average = right("average_update")(m, l, average, (q @ k_j)[:, None] / 2, v_j)  # noqa: E741
    torch.testing.assert_close(average, naive_attention(q, k, v))


def test_two_finished_outputs_are_merged_as_flash_attention_gives_them():
    q, k, v = randn(2, 5, 4), randn(2, 6, 4, seed=1), randn(2, 6, 4, seed=2)
    first, second = (
        flash_forward(q, k[:, part], v[:, part]) for part in (slice(0, 2), slice(2, 6))
    )
    o, lse = right("merge_by_lse")(*first, *second)
    whole = flash_forward(q, k, v)
    torch.testing.assert_close((o, lse), whole)


def test_the_row_term_gives_the_gradient_of_a_loss_of_both():
    s, v, do, d_lse = randn(5, 6).requires_grad_(), randn(6, 4), randn(5, 4, seed=1), randn(5)
    p, lse = torch.softmax(s, 1), s.logsumexp(1)
    o = p @ v
    wanted = torch.autograd.grad((o * do).sum() + (lse * d_lse).sum(), s)[0]
    dp = do @ v.T
    got = p * (dp - right("row_term")(o, do, d_lse)[:, None])
    torch.testing.assert_close(got, wanted)


def test_without_a_loss_of_the_log_sum_exps_the_row_term_is_flash_attention_s():
    q, k, v, do = (randn(5, 4, seed=seed) for seed in range(4))
    o, lse = flash_forward(q, k, v)
    dq, _, _ = flash_backward(do, q, k, v, o, lse)
    p = torch.exp(q @ k.T / 2 - lse[:, None])
    ds = p * (do @ v.T - right("row_term")(o, do, 0 * lse)[:, None])
    torch.testing.assert_close(ds @ k / 2, dq)


@pytest.mark.parametrize("sizes", [(7, 7, 2, 3), (5, 9, 4, 2), (9, 5, 3, 3)])
def test_with_a_window_of_all_keys_the_tiles_are_the_library_s(sizes):
    n_q, n_k, rows, columns = sizes
    kinds = right("causal_tiles")(*sizes, n_q + n_k)
    listed = {
        (r.start // rows, c.start // columns): 2 if whole else 1
        for r, c, whole in tiles(n_q, n_k, (rows, columns), causal=True)
    }
    assert listed == {tuple(at): int(kinds[tuple(at)]) for at in kinds.nonzero().tolist()}


def test_the_bytes_of_the_prediction_are_the_library_s():
    memory = 128 * (5 * 64 + 4)
    traffic = count_traffic(16_384, 64, memory, algorithm="flash2")
    assert BYTES_RIGHT[0] * 1e6 == pytest.approx(2 * traffic.total, rel=1e-3)
    words = check("15.predict_bytes", 541).reason
    for number in ("541 MB", "2,156 MB", "moves 828"):
        assert number in words


@pytest.mark.parametrize(("answer", "words"), [(largest_first, "e^"), (falling, "e^")])
def test_how_far_a_weight_is_off_is_told(answer, words):
    assert words in check("15.break_the_rescaling", answer).reason


def test_a_tile_that_is_wrong_is_told():
    def attempt(*sizes):
        kinds = ch15.causal_tiles(*sizes)
        kinds[-1, -1] = 3
        return kinds

    result = check("15.causal_tiles", attempt)
    assert "is seen" in result.reason
    assert "you give 3" in result.reason
