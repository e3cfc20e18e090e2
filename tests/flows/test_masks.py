"""Masks: exactly which coordinates are kept, and that nothing is lost on the way."""

import re

import pytest
import torch

from course_lib.flows import AlternatingMask, ChannelMask, CheckerboardMask, Mask

MASKS = [
    (AlternatingMask, (2,)),
    (AlternatingMask, (5,)),
    (ChannelMask, (2, 3, 4)),
    (ChannelMask, (5, 2, 2)),
    (CheckerboardMask, (1, 1, 2)),
    (CheckerboardMask, (3, 4, 5)),
]
each_mask = pytest.mark.parametrize(("kind", "shape"), MASKS)
each_flip = pytest.mark.parametrize("flip", [False, True])


@each_mask
@each_flip
def test_merge_undoes_split(kind, shape, flip, generator):
    mask = kind(shape, flip=flip)
    x = torch.randn(7, *shape, generator=generator)
    before = x.clone()
    kept, moved = mask.split(x)
    assert torch.equal(mask.merge(kept, moved), x)
    assert torch.equal(x, before)
    assert (kept.shape[1], moved.shape[1]) == (mask.n_kept, mask.n_moved)


@each_mask
def test_flip_exchanges_the_parts(kind, shape, generator):
    x = torch.randn(2, *shape, generator=generator)
    kept, moved = kind(shape, flip=False).split(x)
    flipped_kept, flipped_moved = kind(shape, flip=True).split(x)
    assert torch.equal(kept, flipped_moved)
    assert torch.equal(moved, flipped_kept)
    mask, flipped = kind(shape, flip=False), kind(shape, flip=True)
    assert (mask.n_kept, mask.n_moved) == (flipped.n_moved, flipped.n_kept)


@each_mask
@each_flip
def test_each_number_is_in_one_part(kind, shape, flip):
    """With numbers from 1 on, each comes out once; what else there is are zeros."""
    n = torch.Size(shape).numel()
    kept, moved = kind(shape, flip=flip).split(torch.arange(1.0, n + 1).reshape(1, *shape))
    found = torch.cat([kept.flatten(), moved.flatten()])
    assert sorted(found[found != 0].tolist()) == list(range(1, n + 1))


@each_mask
@each_flip
def test_nothing_is_said_of_what_is_kept(kind, shape, flip, generator):
    """``where_moved`` lets through whatever a network says of a moved coordinate, and no more."""
    mask = kind(shape, flip=flip)
    moved = mask.split(torch.ones(2, *shape))[1]
    t = torch.randn(moved.shape, generator=generator)
    assert torch.equal(mask.where_moved(t), torch.where(moved == 1, t, 0.0))


@each_mask
@each_flip
def test_merge_takes_of_each_part_what_is_its_own(kind, shape, flip, generator):
    """What a coupling's network says of a kept coordinate doesn't come through."""
    mask = kind(shape, flip=flip)
    x = torch.randn(7, *shape, generator=generator)
    kept, moved = mask.split(x)
    merged = mask.merge(kept, moved + 3)
    own = torch.isclose(merged, x + 3)
    assert torch.equal(merged[~own], x[~own])
    kept_own, moved_own = mask.split(own.to(x))
    assert not kept_own.any()
    assert torch.equal(moved_own, mask.split(torch.ones_like(x))[1])


def test_alternating_keeps_the_even_coordinates():
    x = torch.tensor([[10.0, 11.0, 12.0, 13.0, 14.0]])
    kept, moved = AlternatingMask((5,), flip=False).split(x)
    assert kept.tolist() == [[10.0, 12.0, 14.0]]
    assert moved.tolist() == [[11.0, 13.0]]
    kept, moved = AlternatingMask((5,), flip=True).split(x)
    assert kept.tolist() == [[11.0, 13.0]]
    assert moved.tolist() == [[10.0, 12.0, 14.0]]


def test_channels_keep_the_first_half():
    x = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 2, 3)
    kept, moved = ChannelMask((5, 2, 3), flip=False).split(x)
    assert kept[0, :, 1, 2].tolist() == [0.0, 1.0, 2.0]
    assert moved[0, :, 1, 2].tolist() == [3.0, 4.0]
    kept, moved = ChannelMask((5, 2, 3), flip=True).split(x)
    assert kept[0, :, 0, 0].tolist() == [3.0, 4.0]
    assert moved[0, :, 0, 0].tolist() == [0.0, 1.0, 2.0]


def test_a_checkerboard_keeps_the_white_squares():
    x = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]]])
    white = [[[[1, 0, 3], [0, 5, 0]], [[1.5, 0, 3.5], [0, 5.5, 0]]]]
    black = [[[[0, 2, 0], [4, 0, 6]], [[0, 2.5, 0], [4.5, 0, 6.5]]]]
    kept, moved = CheckerboardMask((2, 2, 3), flip=False).split(x)
    assert (kept.tolist(), moved.tolist()) == (white, black)
    kept, moved = CheckerboardMask((2, 2, 3), flip=True).split(x)
    assert (kept.tolist(), moved.tolist()) == (black, white)


def test_nothing_of_a_mask_is_saved():
    assert not CheckerboardMask((1, 4, 4), flip=False).state_dict()
    mask = CheckerboardMask((1, 4, 4), flip=False).double()
    assert mask.keep.dtype == mask.move.dtype == torch.float64


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (AlternatingMask, (1,), "dim must be an integer of at least 2, got 1"),
        (AlternatingMask, (None,), "dim must be an integer of at least 2, got None"),
        (AlternatingMask, 4, "event_shape must be (dim,), each at least 1, got 4"),
        (AlternatingMask, (2, 3, 3), "event_shape must be (dim,), each at least 1, got (2, 3, 3)"),
        (ChannelMask, (4,), "event_shape must be (C, H, W), each at least 1, got (4,)"),
        (ChannelMask, (2, 0, 3), "event_shape must be (C, H, W), each at least 1, got (2, 0, 3)"),
        (ChannelMask, (1, 2, 3), "channels must be an integer of at least 2, got 1"),
        (ChannelMask, (None, 2, 3), "channels must be an integer of at least 2, got None"),
        (CheckerboardMask, (4,), "event_shape must be (C, H, W), each at least 1, got (4,)"),
        (
            CheckerboardMask,
            (2, None, 2),
            "event_shape must be (C, H, W), each at least 1, got (2, None, 2)",
        ),
        (
            CheckerboardMask,
            (2, 1, 1),
            "event_shape must have at least two pixels, got (2, 1, 1)",
        ),
    ],
)
def test_bad_shapes_are_named(kind, shape, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        kind(shape, flip=False)


@each_mask
def test_bad_flips_are_named(kind, shape):
    with pytest.raises(ValueError, match=r"^flip must be True or False, got 1$"):
        kind(shape, flip=1)


def test_channels_may_have_any_size():
    assert ChannelMask((2, None, None), flip=False).n_kept == 1


def test_a_mask_without_formulas_says_so():
    mask = Mask((4,), flip=False)
    with pytest.raises(NotImplementedError):
        mask.split(torch.zeros(1, 4))
    with pytest.raises(NotImplementedError):
        mask.merge(torch.zeros(1, 2), torch.zeros(1, 2))


def test_repr_says_the_flip():
    assert repr(ChannelMask((2, 2, 2), flip=True)) == "ChannelMask(flip=True)"
