"""The 8×8 digits: the split, the scaling and the order, against scikit-learn's own arrays."""

import re

import numpy as np
import pytest
import torch
from sklearn import datasets

from course_lib.data import load_digits


@pytest.mark.parametrize(("split", "count"), [("train", 1438), ("test", 359)])
def test_shapes_dtypes_and_values(split, count):
    images, labels = load_digits(split)
    assert images.shape == (count, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.shape == (count,)
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) == set(range(10))
    assert torch.equal((images * 16).unique(), torch.arange(17.0))


def test_every_fifth_image_is_for_the_test():
    bunch = datasets.load_digits()
    kept = [i for i in range(1797) if i % 5 != 4]
    for split, indices in (("test", range(4, 1797, 5)), ("train", kept)):
        images, labels = load_digits(split)
        assert np.array_equal(images[:, 0].numpy() * 16, bunch.images[list(indices)])
        assert np.array_equal(labels.numpy(), bunch.target[list(indices)])


def test_loaded_arrays_are_the_readers_own():
    load_digits("test")[0].zero_()
    assert load_digits("test")[0].max() == 1


@pytest.mark.parametrize("split", ["validation", "Train", "", None, 0])
def test_unknown_split(split):
    message = f"split must be one of test, train, got {split!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_digits(split)
