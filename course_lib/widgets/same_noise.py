"""``SameNoise``: one picture at two sizes, noised until both look equally destroyed."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_bool, check_int, check_number
from course_lib.widgets.base import (
    CourseWidget,
    drawn,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.palette import colour_map
from course_lib.widgets.reparameterization import standard_noise

__all__ = ["SameNoise"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_SIZE = 128
MOST_TIME = 0.99
LIMIT = 1.5  # values from −LIMIT to LIMIT are shown as black to white


class SameNoise(CourseWidget):
    """The same picture at two sizes, each with noise of a time of its own.

    Both are x_t = (1 − t) x + t ε, x in [−1, 1], the small picture of N_1 pixels at t, the large
    one of N_2 at t'. A pixel of the small picture is a square of the large one, whose average is
    known better, since the noise averages out: the standard deviation of an estimate of the
    average of all N pixels is t / (1 − t) / √N. The reader drags t' until both look equally
    destroyed, then sees what makes that number the same,

        t' = √r t / (1 + (√r − 1) t),   r = N_2 / N_1.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, equation 23.

    Args:
        image: ``[H, H]``, ``[1, H, H]`` or ``[3, H, H]`` in [0, 1]. A size that is smaller averages
            squares of pixels, a larger one repeats each.
        sizes: (small, large), the sides in pixels: multiples of H or divisors of it, the large one
            at most 128 and a multiple of the small one.
        t: the time of the small picture at the start, in [0, 0.99].
        t_large: that of the large one; by default the same.
        seed: of the noise, 0 ... 2³² − 1.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described.

    ``widget.t``, ``widget.t_large``, ``widget.seed``, ``widget.averaged`` (is the large picture
    shown averaged to the size of the small one) and ``widget.revealed`` (is the formula's
    answer shown) can be read and set. ``widget.ratio`` is r, ``widget.shifted`` the formula's
    t', ``widget.deviations`` the two standard deviations, ``widget.noised`` both pictures.

    Example:
        >>> twice = SameNoise(np.zeros((8, 8)), sizes=(8, 16), t=0.5)
        >>> twice.ratio, round(twice.shifted, 4)
        (4, 0.6667)
    """

    module = "same_noise.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    t = traitlets.Float(0.5).tag(sync=True, echo_update=False)
    t_large = traitlets.Float(0.5).tag(sync=True, echo_update=False)
    seed = traitlets.Int(0).tag(sync=True, echo_update=False)
    averaged = traitlets.Bool(False).tag(sync=True)
    revealed = traitlets.Bool(False).tag(sync=True)
    ratio = traitlets.Int(1).tag(sync=True)
    limit = traitlets.Float(LIMIT, read_only=True).tag(sync=True)
    most_t = traitlets.Float(MOST_TIME, read_only=True).tag(sync=True)

    def __init__(
        self,
        image: Array,
        sizes: tuple[int, int] = (16, 64),
        *,
        t: float = 0.5,
        t_large: float | None = None,
        seed: int = 0,
        title: str = "",
        alt: str = "",
    ) -> None:
        picture = _picture(image)
        if not isinstance(sizes, list | tuple) or len(sizes) != 2:
            raise ValueError(f"sizes must be (small, large), got {sizes!r}")
        small, large = sizes
        check_int("sizes[0]", small, minimum=1)
        check_int("sizes[1]", large, minimum=2, maximum=MOST_SIZE)
        if large <= small or large % small:
            raise ValueError(f"sizes[1] must be a multiple of sizes[0], and larger, got {sizes!r}")
        _check_time("t", t)  # here, since t_large has the same by default
        super().__init__(
            {
                "small": to_bytes(_resized(picture, small)),
                "large": to_bytes(_resized(picture, large)),
            },
            hint="send a smaller large picture",
            title=title,
            alt=alt
            or f"One picture of {small} by {small} and of {large} by {large} pixels, each with as "
            "much noise as one sets.",
            ratio=(large // small) ** 2,
            t=t,
            t_large=t if t_large is None else t_large,
            seed=seed,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("t", "t_large")
    def _time_in_range(self, proposal: dict) -> float:
        _check_time(proposal["trait"].name, proposal["value"])
        return proposal["value"]

    @traitlets.validate("seed")
    def _seed_exists(self, proposal: dict) -> int:
        check_int("seed", proposal["value"], minimum=0, maximum=2**32 - 1)
        return proposal["value"]

    @traitlets.validate("averaged", "revealed")
    def _flag_fair(self, proposal: dict) -> bool:
        check_bool(proposal["trait"].name, proposal["value"])
        return proposal["value"]

    @property
    def shifted(self) -> float:
        """The formula's t' for the small picture's t."""
        root = math.sqrt(self.ratio)
        return root * self.t / (1 + (root - 1) * self.t)

    @property
    def deviations(self) -> tuple[float, float]:
        """The standard deviations of an estimate of the average, of the small and the large one:
        t / (1 − t) / √N.
        """
        sizes = [self.array(name).shape[-1] for name in ("small", "large")]
        of = zip((self.t, self.t_large), sizes, strict=True)
        small, large = (t / (1 - t) / side for t, side in of)
        return small, large

    @property
    def noised(self) -> tuple[np.ndarray, np.ndarray]:
        """Both pictures (1 − t) x + t ε, float64, as the browser shows them."""
        times = (self.t, self.t_large)
        small, large = (
            (1 - t) * x + t * eps for x, eps, t in zip(*self._clean_and_noise, times, strict=True)
        )
        return small, large

    @property
    def _clean_and_noise(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        clean = [2 * self.array(name) / 255 - 1 for name in ("small", "large")]
        numbers = standard_noise(self.seed, sum(x.size for x in clean))
        parts = np.split(numbers, [clean[0].size])
        return clean, [eps.reshape(x.shape) for x, eps in zip(clean, parts, strict=True)]

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """Both pictures at the same time, and the large one at the formula's."""
        clean, eps = self._clean_and_noise
        figure = Figure(figsize=(7.2, 2.7))
        axes = figure.subplots(1, 3)
        shown = [(0, self.t), (1, self.t), (1, self.shifted)]
        for ax, (which, t) in zip(axes, shown, strict=True):
            x = clean[which]
            state = (1 - t) * x + t * eps[which]
            level = np.clip((state + LIMIT) / (2 * LIMIT), 0, 1)
            ax.imshow(drawn(level), cmap=colour_map("grey"), vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{x.shape[-1]} × {x.shape[-1]} pixels at t = {t:.2f}", fontsize=8)
            pale_frame(ax)
        figure.tight_layout(pad=0.5)
        return png(figure, colours=128)


# -------------------------------------------------------------------------------------- arguments


def _check_time(name: str, t: float) -> None:
    check_number(name, t, minimum=0, maximum=MOST_TIME)  # at 1 nothing is known of the picture


def _picture(image: Array) -> np.ndarray:
    wanted = "[H, H], [1, H, H] or [3, H, H]"
    array = to_array("image", image, wanted, 2, 3)
    planes = array if array.ndim == 3 else array[None]
    if planes.shape[0] not in (1, 3) or planes.shape[1] != planes.shape[2]:
        raise ValueError(f"image must have shape {wanted}, got {list(array.shape)}")
    return to_images("image", planes[None], count="1", colour=True)[0]


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """An image ``[..., H, H]`` at another size: squares averaged, or pixels repeated."""
    own = image.shape[-1]
    if side % own == 0:
        return image.repeat(side // own, -1).repeat(side // own, -2)
    if own % side:
        raise ValueError(
            f"sizes must be multiples or divisors of the image's {own} pixels, got {side}"
        )
    by = own // side
    return image.reshape(*image.shape[:-2], side, by, side, by).mean((-3, -1))
