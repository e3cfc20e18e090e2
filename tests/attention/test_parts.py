"""Partial results: a monoid, and attention to all keys when all parts are merged."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.attention import Part, attend_part, empty_part, finish, merge

seeds = st.integers(0, 2**32)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def logits_and_values(seed, n, spread=10.0, hidden=0.3):
    """Logits ``[2, 3, n]``, some of them −∞, and values ``[2, n, 4]``."""
    generator = seeded(seed)
    s = spread * torch.randn(2, 3, n, dtype=torch.float64, generator=generator)
    v = torch.randn(2, n, 4, dtype=torch.float64, generator=generator)
    return s.masked_fill(torch.rand(s.shape, generator=generator) < hidden, -math.inf), v


def parts(seed, number, n=3, **options):
    return [attend_part(*logits_and_values(seed + i, n, **options)) for i in range(number)]


def close(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(1, 5), spread=st.sampled_from([0.1, 10.0, 1e4]))
def test_a_part_is_its_definition(seed, n, spread):
    s, v = logits_and_values(seed, n, spread)
    m, l, o = attend_part(s, v)  # noqa: E741
    assert torch.equal(m, s.amax(-1, keepdim=True))
    p = torch.exp(s - m).nan_to_num(0)
    torch.testing.assert_close(l, p.sum(-1, keepdim=True))
    torch.testing.assert_close(o, torch.einsum("bqn,bnd->bqd", p, v))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(1, 4), spread=st.sampled_from([0.1, 10.0, 1e4]))
def test_parts_merge_to_the_part_of_all_keys(seed, n, spread):
    (s, v), (t, w) = logits_and_values(seed, n, spread), logits_and_values(seed + 1, 3, spread)
    whole = attend_part(torch.cat([s, t], -1), torch.cat([v, w], -2))
    close(merge(attend_part(s, v), attend_part(t, w)), whole)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, hidden=st.sampled_from([0.0, 0.5, 1.0]))
def test_merge_is_associative_and_commutative_with_a_neutral_element(seed, hidden):
    a, b, c = parts(seed, 3, hidden=hidden)
    close(merge(merge(a, b), c), merge(a, merge(b, c)))
    close(merge(a, b), merge(b, a))
    nothing = empty_part(a.o)
    close(merge(a, nothing), a)
    close(merge(nothing, a), a)
    close(merge(nothing, nothing), nothing)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, order=st.permutations(range(5)))
def test_the_order_of_the_parts_does_not_matter(seed, order):
    all_parts = parts(seed, 5)
    one, other = empty_part(all_parts[0].o), empty_part(all_parts[0].o)
    for i in range(5):
        one, other = merge(one, all_parts[i]), merge(all_parts[order[i]], other)
    close(finish(one), finish(other))


def test_finished_it_is_attention_and_the_log_sum_exp():
    s, v = logits_and_values(0, 6)
    output, lse = finish(attend_part(s, v))
    torch.testing.assert_close(output, s.softmax(-1) @ v)
    torch.testing.assert_close(lse, s.logsumexp(-1))


def test_who_has_seen_nothing_gets_nothing():
    o = torch.ones(2, 3)
    empty = empty_part(o)
    assert [x.tolist() for x in empty] == [[[-math.inf]] * 2, [[0]] * 2, [[0] * 3] * 2]
    output, lse = finish(empty)
    assert output.tolist() == [[0] * 3] * 2
    assert lse.tolist() == [-math.inf] * 2
    s = torch.full((2, 4), -math.inf)
    close(attend_part(s, torch.randn(4, 3)), empty)


def test_a_small_sum_is_still_a_sum():
    part = Part(torch.zeros(1, 1), torch.full((1, 1), 0.25), torch.full((1, 2), 2.0))
    output, lse = finish(part)
    assert output.tolist() == [[8, 8]]
    assert lse.item() == pytest.approx(-math.log(4))


A = empty_part(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: merge(A, empty_part(torch.zeros(2, 4))), "b must be of the same queries as a, "),
        (lambda: merge(tuple(A), A), "a must be a Part, got tuple"),
        (lambda: merge(A, None), "b must be a Part, got NoneType"),
        (lambda: merge(A, Part(A.m[:1], A.l, A.o)), r"b.m must have shape \[2, 1\], got \[1, 1\]"),
        (lambda: merge(Part(A.m, A.l[0], A.o), A), r"a.l must have shape \[2, 1\], got \[1\]"),
        (lambda: finish(Part(A.m, A.l, A.o.long())), "part.o must be a floating-point tensor"),
        (lambda: finish(A.o), "part must be a Part, got Tensor"),
        (lambda: attend_part(torch.zeros(3), torch.zeros(3)), r"v must have shape \[..., n, d\]"),
        (
            lambda: attend_part(torch.zeros(2, 3), torch.zeros(2, 3)),
            r"v must have shape \[..., n, d\] for logits s \[..., N_q, n\], got \[2, 3\] for",
        ),
        (
            lambda: attend_part(torch.zeros(5, 2, 3), torch.zeros(4, 3, 2)),
            r"v must have shape \[..., n, d\]",
        ),
        (
            lambda: attend_part(torch.zeros(2, 3), torch.zeros(1, 3, 3)),
            r"v must have shape \[..., n, d\]",
        ),
        (lambda: attend_part([1.0], torch.zeros(1, 1)), "s must be a tensor of any shape"),
        (lambda: attend_part(torch.zeros(1, 1), None), "v must be a tensor of any shape"),
        (lambda: attend_part(torch.zeros(1, 1).double(), torch.zeros(1, 1)), "v must be .*like s"),
        (lambda: attend_part(torch.full((1, 1), math.inf), torch.zeros(1, 1)), "s must be finite"),
        (lambda: attend_part(torch.zeros(1, 1), torch.full((1, 1), math.nan)), "v must be finite"),
        (lambda: merge(A, A._replace(m=A.m * 0)), "b.m must be finite or −inf, got NaN"),
        (lambda: merge(A._replace(l=A.l + math.inf), A), "a.l must be finite"),
        (lambda: finish(A._replace(o=A.o / 0)), "part.o must be finite"),
        (lambda: empty_part(None), "o must be a tensor of any shape"),
        (lambda: empty_part(torch.zeros(2, 3).long()), "o must be a floating-point tensor"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()
