"""The recipes of chapter 08: score models in continuous time, on the digits and on MNIST."""

from torch import nn

from course_lib.data import load_digits, load_mnist
from course_lib.diffusion import (
    Denoiser,
    GaussianPath,
    ScaledInput,
    SubVPPath,
    VEPath,
    VPPath,
)
from course_lib.nn import UNet
from course_lib.training.batches import digits_batch, mnist_batch
from course_lib.training.recipes import Recipe, register

# The largest distance of two digits in [−1, 1]⁶⁴ is 9.6: Song & Ermon 2020, technique 1.
PATHS: dict[str, GaussianPath] = {
    "vp": VPPath(),
    "ve": VEPath(sigma_max=10.0),
    "subvp": SubVPPath(),
}


def score_model(net: nn.Module, path: GaussianPath) -> Denoiser:
    """A network on a path; where x_t grows along it, the network sees it scaled."""
    return Denoiser(ScaledInput(net, path) if isinstance(path, VEPath) else net, path)


for kind, path in PATHS.items():
    register(
        Recipe(
            name=f"score_digits_{kind}",
            summary=f"score model of {path}, U-Net, on the digits",
            data='load_digits("train"), 1,438 images, jittered, dequantized, in [-1, 1); '
            "tested on the other 359",
            build=lambda path=path: score_model(
                UNet((1, 8, 8), widths=(24, 48), scale=1000.0), path
            ),
            load=lambda: load_digits("train")[0],
            transform=digits_batch("signed dequantized"),
            options={"steps": 6000, "batch_size": 128, "lr": 2e-3, "ema": 0.998},
            evaluate=lambda model: {},
        )
    )

register(
    Recipe(
        name="score_mnist_vp",
        summary=f"score model of {VPPath()}, U-Net, given the class, on MNIST",
        data='load_mnist("train"), 60,000 images and labels, dequantized, in [-1, 1); '
        "tested on the 10,000 test images",
        build=lambda: score_model(
            UNet((1, 28, 28), widths=(16, 32, 64), n_classes=10, scale=1000.0), VPPath()
        ),
        load=lambda: load_mnist("train"),
        transform=mnist_batch("signed dequantized"),
        options={"steps": 8000, "batch_size": 64, "lr": 2e-3, "ema": 0.999},
        evaluate=lambda model: {},
    )
)
