"""The recipes of chapters 06 and 07: DDPMs on toys, the digits and MNIST."""

import torch
from torch import Tensor

from course_lib.data import load_mnist
from course_lib.diffusion import DDPM, DiscreteSchedule
from course_lib.nn import UNet
from course_lib.training.recipes import Recipe, register


def to_signed(images: Tensor) -> Tensor:
    """Images from [0, 1] to [−1, 1], where noise of mean 0 leaves them in the middle."""
    return 2 * images - 1


def mnist_batch(x: Tensor, generator: torch.Generator) -> Tensor:
    """MNIST digits in [−1, 1]."""
    return to_signed(x)


register(
    Recipe(
        name="ddpm_mnist",
        summary="DDPM, 1,000 steps of a linear schedule, class-conditional U-Net, on MNIST",
        data='load_mnist("train"), 60,000 images with their labels; tested on the 10,000 test images',
        build=lambda: DDPM(
            UNet((1, 28, 28), widths=(16, 32, 64), n_classes=10), DiscreteSchedule.linear(1000)
        ),
        load=lambda: load_mnist("train"),
        transform=mnist_batch,
        options={"steps": 8000, "batch_size": 64, "lr": 2e-3, "ema": 0.999},
        evaluate=lambda model: {"dummy": 1 / 0},
    )
)
