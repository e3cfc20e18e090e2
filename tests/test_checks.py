"""The argument checks: what passes, what does not, and the exact words of every refusal."""

import re

import numpy as np
import pytest
import torch

from course_lib import checks
from course_lib.checks import (
    check_classes,
    check_difference,
    check_floats,
    check_generator,
    check_int,
    check_levels,
    check_number,
    check_one_of,
    check_shape,
    check_share,
    check_tensor,
)


def refuses(message):
    """A ValueError with exactly this message."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def test_every_check_is_public():
    found = {name for name in vars(checks) if name.startswith("check_")}
    assert set(checks.__all__) == found | {"at_the_door"}


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((3, 2), (None, 2)),
        ((1, 2), (None, 2)),
        ((3, 2), (3, 2)),
        ((), ()),
        ((), None),
        ((4, 1, 8, 8), (None, 1, None, None)),
        ((4, 1, 8, 8), None),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_pass(size, shape, dtype):
    assert check_floats("x", torch.ones(size, dtype=dtype), shape) is None


@pytest.mark.parametrize(
    ("x", "shape", "message"),
    [
        ([1.0], (None, 2), "x must be a tensor of shape [B, 2], got list"),
        (np.ones((1, 2)), (None, 2), "x must be a tensor of shape [B, 2], got ndarray"),
        (None, None, "x must be a tensor of any shape but an empty one, got NoneType"),
        (torch.ones(1, 2).long(), (None, 2), "x must be a floating-point tensor, got torch.int64"),
        (
            torch.ones(1, 2).to(torch.float8_e5m2),
            None,
            "x must have 16 bits a number or more, got torch.float8_e5m2",
        ),
        (torch.ones(1, 2).bool(), None, "x must be a floating-point tensor, got torch.bool"),
        (torch.ones(2), (None, 2), "x must have shape [B, 2], got [2]"),
        (torch.ones(1, 2, 1), (None, 2), "x must have shape [B, 2], got [1, 2, 1]"),
        (torch.ones(1, 3), (None, 2), "x must have shape [B, 2], got [1, 3]"),
        (torch.ones(0, 2), (None, 2), "x must have shape [B, 2], got [0, 2]"),
        (torch.ones(4), (3,), "x must have shape [3], got [4]"),
        (torch.ones(0, 2), None, "x must have any shape but an empty one, got [0, 2]"),
        (torch.tensor([torch.nan]), (None,), "x must be finite, got NaN or infinite values"),
        (torch.tensor([1.0, torch.inf]), None, "x must be finite, got NaN or infinite values"),
        (torch.tensor([1.0, -torch.inf]), (2,), "x must be finite, got NaN or infinite values"),
    ],
)
def test_floats_refused(x, shape, message):
    with refuses(message):
        check_floats("x", x, shape)


@pytest.mark.parametrize("value", [3, 4, 10**12])
def test_int_pass(value):
    assert check_int("n", value, minimum=3) is None


@pytest.mark.parametrize("value", [2, -1, 3.0, True, "3", None, torch.tensor(3)])
def test_int_refused(value):
    with refuses(f"n must be an integer of at least 3, got {value!r}"):
        check_int("n", value, minimum=3)


def test_a_bool_is_not_a_number():
    with refuses("n must be an integer of at least 0, got True"):
        check_int("n", True, minimum=0)
    with refuses("lr must be a finite number above 0, got True"):
        check_number("lr", True, above=0)


@pytest.mark.parametrize("value", [2, 3, 256])
def test_int_in_a_range_passes(value):
    assert check_int("levels", value, minimum=2, maximum=256) is None


@pytest.mark.parametrize("value", [1, 257, 17.0, None])
def test_int_in_a_range_refused(value):
    with refuses(f"levels must be an integer from 2 to 256, got {value!r}"):
        check_int("levels", value, minimum=2, maximum=256)


@pytest.mark.parametrize("value", [1e-9, 1, 2.5])
def test_number_passes(value):
    assert check_number("lr", value, above=0.0) is None


@pytest.mark.parametrize("value", [0, 0.0, -1, float("inf"), float("nan"), "1", None])
def test_number_refused(value):
    with refuses(f"lr must be a finite number above 0.0, got {value!r}"):
        check_number("lr", value, above=0.0)


@pytest.mark.parametrize("value", [0, 0.1, 1.0, 1])
def test_share_passes(value):
    assert check_share("drop", value) is None


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf"), True, "0.5", None])
def test_share_refused(value):
    with refuses(f"drop must be a number from 0 to 1, got {value!r}"):
        check_share("drop", value)


@pytest.mark.parametrize("shape", [(1,), (7,), [7], (1, 2, 3), [3, 2, 1]])
def test_shape_passes(shape):
    assert check_shape("shape", shape) is None
    assert check_shape("shape", shape, any_size=False) is None
    assert check_shape("shape", shape, lengths=(len(shape),)) is None
    with pytest.raises(ValueError, match=r"^shape must be"):
        check_shape("shape", shape, lengths=(4 - len(shape),))


@pytest.mark.parametrize("shape", [(None,), (None, 2, 3), (1, None, None), [None, None, None]])
def test_a_size_of_none_stands_for_any(shape):
    assert check_shape("shape", shape) is None
    with refuses(f"shape must be (dim,) or (C, H, W), each at least 1, got {shape!r}"):
        check_shape("shape", shape, any_size=False)


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (1, 2),
        (1, 2, 3, 4),
        (0,),
        (1, 2, 0),
        (-1, 2, 3),
        (1, 2.0, 3),
        (True,),
        ("4",),
        4,
        None,
        "abc",
        {1},
        range(3),
        torch.ones(3),
    ],
)
@pytest.mark.parametrize("any_size", [True, False])
def test_shape_refused(shape, any_size):
    with refuses(f"size must be (dim,) or (C, H, W), each at least 1, got {shape!r}"):
        check_shape("size", shape, any_size=any_size)


def test_shape_of_one_kind():
    with refuses("size must be (C, H, W), each at least 1, got (4,)"):
        check_shape("size", (4,), lengths=(3,))
    with refuses("size must be (dim,), each at least 1, got (1, 2, 3)"):
        check_shape("size", (1, 2, 3), lengths=(1,))


def test_one_of():
    assert check_one_of("split", "test", ("train", "test")) is None
    for value in ("validation", "", None, 3, ["train"]):
        with refuses(f"split must be one of test, train, got {value!r}"):
            check_one_of("split", value, ("train", "test"))


def test_generator():
    assert check_generator(None) is None
    assert check_generator(None, "cuda") is None
    assert check_generator(torch.Generator()) is None
    assert check_generator(torch.Generator(), "cpu") is None
    assert check_generator(torch.Generator(), torch.ones(1).device) is None
    for value in (0, "0", torch.Generator):
        with refuses(f"generator must be a torch.Generator or None, got {value!r}"):
            check_generator(value)
    with refuses("generator must be on device cuda, got cpu"):
        check_generator(torch.Generator(), "cuda:0")


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2, device="meta")], ids=["sparse", "meta"]
)
def test_a_tensor_without_numbers_is_refused(x):
    with refuses("x must be an ordinary dense tensor, got one that holds no numbers"):
        check_floats("x", x, (None, 2))


def test_numbers_too_large_for_a_float_are_refused():
    with pytest.raises(ValueError, match=r"^lr must be a finite number above 0, got 1000"):
        check_number("lr", 10**400, above=0)


def test_finite_numbers_whose_sum_overflows_pass():
    check_floats("x", torch.full((4,), 3e38), (None,))


def test_one_look_at_a_difference_is_one_at_both_parts():
    x, huge = torch.zeros(3), torch.tensor([0.0, 3e38, -3e38])
    check_difference(x - x, x=x, y=x)
    assert not torch.isfinite(huge - -huge).all()
    check_difference(huge - -huge, x=-huge, y=huge)  # finite numbers may be that far apart
    for bad in (torch.nan, torch.inf, -torch.inf):
        stray = torch.tensor([0.0, bad, 0.0])
        for other in (x, huge):
            with refuses("y must be finite, got NaN or infinite values"):
                check_difference(stray - other, x=other, y=stray)
            with refuses("x must be finite, got NaN or infinite values"):
                check_difference(other - stray, x=stray, y=other)
        with refuses("x must be finite, got NaN or infinite values"):
            check_difference(stray - stray, x=stray, y=stray)
    check_difference(x.requires_grad_() - huge, x=x, y=huge)


def test_a_difference_that_stands_for_many_hides_no_stray_part():
    def f(x, y):
        check_difference(y - x, x=x, y=y)
        return y - x

    x = torch.zeros(3)
    assert torch.equal(torch.func.vmap(f, (0, None))(torch.zeros(2, 3), x), torch.zeros(2, 3))
    with refuses("y must be finite, got NaN or infinite values"):
        torch.func.vmap(f, (0, None))(torch.zeros(2, 3), x + torch.nan)


def test_vmap_below_another_transform_is_seen():
    def f(p):
        check_floats("p", p, (3,))
        return p.sum()

    gradients = torch.func.vmap(torch.func.grad(f))(torch.zeros(2, 3))
    assert torch.equal(gradients, torch.ones(2, 3))


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]
)
@pytest.mark.parametrize(("levels", "shape"), [(2, (2,)), (4, (2, 2)), (24, (2, 3, 4)), (1, (1,))])
def test_levels_pass(dtype, levels, shape):
    """All of them, in any dtype and shape; and the tensor stays as it is."""
    x = torch.arange(levels).reshape(shape).to(dtype)
    before = x.clone()
    assert check_levels("x", x, levels) is None
    assert torch.equal(x, before)
    x = x.double().requires_grad_()
    assert check_levels("x", x, levels) is None
    assert x.requires_grad


@pytest.mark.parametrize(
    ("value", "levels", "wanted"),
    [
        (2.0, 2, "zeros and ones, got 2.0"),
        (-1.0, 2, "zeros and ones, got -1.0"),
        (0.5, 2, "zeros and ones, got 0.5"),
        (0.75, 2, "zeros and ones, got 0.75"),
        (0.25, 2, "zeros and ones, got 0.25"),
        (2, 2, "zeros and ones, got 2"),
        (3.0, 3, "whole numbers from 0 to 2, got 3.0"),
        (1.5, 3, "whole numbers from 0 to 2, got 1.5"),
        (-1, 17, "whole numbers from 0 to 16, got -1"),
        (17, 17, "whole numbers from 0 to 16, got 17"),
    ],
)
def test_levels_refused(value, levels, wanted):
    with refuses(f"x must hold {wanted}"):
        check_levels("x", torch.tensor([[1, 0], [value, 1]]), levels)


def test_the_first_stray_value_is_named():
    with refuses("pixels must hold zeros and ones, got 0.5"):
        check_levels("pixels", torch.tensor([1, 0.5, 7]), 2)
    with refuses("x must hold zeros and ones, got nan"):
        check_levels("x", torch.tensor([1, torch.nan]), 2)


def test_classes_pass():
    assert check_classes("y", None, 5, None) is None
    assert check_classes("y", torch.tensor([0, 2, 1, 0]), 4, 3) is None
    assert check_classes("y", torch.tensor([0]), 1, 1) is None


@pytest.mark.parametrize(
    ("y", "got"),
    [
        (None, "None"),
        ([0, 1, 2], "[0, 1, 2]"),
        (torch.tensor([0, 1]), "torch.int64 [2]"),
        (torch.tensor([[0, 1, 2]]), "torch.int64 [1, 3]"),
        (torch.tensor(0), "torch.int64 []"),
        (torch.tensor([0, 1, 2]).int(), "torch.int32 [3]"),
        (torch.tensor([0.0, 1, 2]), "torch.float32 [3]"),
        (torch.tensor([0, 3, 4]), "3"),
        (torch.tensor([0, 1, -1]), "-1"),
    ],
)
def test_classes_refused(y, got):
    with refuses(f"y must be an int64 tensor [3] of classes from 0 to 2, got {got}"):
        check_classes("y", y, 3, 3)


def test_labels_are_refused_where_there_are_no_classes():
    for y in (torch.tensor([0]), [0], 0):
        with refuses(f"labels must be None for a model without classes, got {y!r}"):
            check_classes("labels", y, 1, None)


def test_a_layer_looks_at_no_number():
    x = torch.tensor([[1.0, float("nan")]])
    check_tensor("x", x, (None, 2), dtype=torch.float32)
    with refuses("x must have shape [B, 3], got [1, 2]"):
        check_tensor("x", x, (None, 3))
    with refuses("x must be torch.float64 like the model, got torch.float32"):
        check_tensor("x", x, (None, 2), dtype=torch.float64)
