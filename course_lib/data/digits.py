"""The handwritten digits inside scikit-learn: real images without a download."""

import torch
from torch import Tensor

from course_lib.checks import check_one_of

__all__ = ["load_digits"]


def load_digits(split: str) -> tuple[Tensor, Tensor]:
    """Load the 8×8 handwritten digits: 1,797 images with 17 grey levels.

    Every fifth image (index 4, 9, 14, …) belongs to the test set, the others to the training set.
    The rule needs no random numbers, so that the split is the same everywhere and for ever.

    Reference:
        Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository; its test part, as bundled with scikit-learn.

    Args:
        split: ``"train"`` (1,438 images) or ``"test"`` (359 images).

    Returns:
        Images, float32 ``[N, 1, 8, 8]`` with the values k / 16, k = 0 … 16 (1 is ink), and labels,
        int64 ``[N]`` from 0 to 9.

    Example:
        >>> images, labels = load_digits("train")
        >>> images.shape, labels.shape
        (torch.Size([1438, 1, 8, 8]), torch.Size([1438]))

    """
    check_one_of("split", split, ("train", "test"))
    from sklearn import datasets  # takes as long to import as half of PyTorch: only who needs it

    bunch = datasets.load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    in_test = torch.arange(len(labels)) % 5 == 4
    chosen = in_test if split == "test" else ~in_test
    return images[chosen], labels[chosen]
