"""``ImagePlayer``: watch images change through the steps of a flow or a sampler."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_one_of
from course_lib.widgets.base import (
    PlayerWidget,
    check_labels,
    drawn,
    pale_frame,
    png,
    to_array,
    to_bytes,
    value_range,
)
from course_lib.widgets.palette import MAPS, colour_map

__all__ = ["ImagePlayer"]


class ImagePlayer(PlayerWidget):
    """A grid of images that change through the steps of a trajectory.

    Args:
        images: ``[T, B, H, W]``, ``[T, B, 1, H, W]`` or, in colour, ``[T, B, 3, H, W]``, the B
            images at each of T steps; step 0 is the start. Values lie in [0, 1], but with
            ``cmap="signed"`` any are welcome.
        beside: the same for a second grid, which plays in step with the first, such as a model's
            guess of where each image ends. Where an image's row is the whole grid, the second
            stands below the first, otherwise to its right.
        titles: names of the two grids, the first and the second.
        columns: how many images stand side by side; by default the grid is about square.
        labels: T names of the steps.
        captions: B short texts, one under each image (of both grids).
        title: shown above the images.
        cmap: ``"grey"``, ``"viridis"``, or ``"signed"``: blue below zero, orange above. Images in
            colour have their own: then it stays ``"grey"``.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite or outside [0, 1],
    or the images need more than 300 KB at two bytes a pixel; images in colour take one byte for
    each of their three numbers.

    ``widget.step`` (a float), ``widget.playing`` and ``widget.n_steps`` can be read and, but for
    the last, set.
    """

    module = "image_player.js"

    columns = traitlets.Int(1).tag(sync=True)
    captions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    titles = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cmap = traitlets.Unicode("grey").tag(sync=True)
    value_range = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        images: np.ndarray | torch.Tensor,
        *,
        beside: np.ndarray | torch.Tensor | None = None,
        titles: Sequence[str] | None = None,
        columns: int | None = None,
        labels: Sequence[str] | None = None,
        title: str = "",
        cmap: str = "grey",
        captions: Sequence[str] | None = None,
        alt: str = "",
    ) -> None:
        check_one_of("cmap", cmap, MAPS)
        arrays = {"images": _images("images", images, cmap)}
        shape = arrays["images"].shape
        steps, count = shape[:2]
        if beside is not None:
            arrays["beside"] = _images("beside", beside, cmap)
            if arrays["beside"].shape != shape:
                raise ValueError(
                    f"beside must have shape {list(shape)} like images, "
                    f"got {list(np.shape(beside))}"
                )
        elif titles is not None:
            raise ValueError(f"titles must be None where there is no beside, got {titles!r}")
        titles = check_labels("titles", titles, 2)
        if columns is None:
            columns = math.ceil(math.sqrt(count)) if count > 10 else count
        check_int("columns", columns, minimum=1)
        super().__init__(
            arrays,
            n_steps=steps,
            labels=labels,
            hint="send fewer images or steps, or smaller images",
            title=title,
            alt=alt or f"{count} images change through {steps} steps{_in_grids(titles, beside)}.",
            columns=min(columns, count),
            captions=check_labels("captions", captions, count),
            titles=titles,
            cmap=cmap,
            value_range=(
                value_range(np.stack(list(arrays.values())), signed=True)
                if cmap == "signed"
                else [0.0, 255.0 if len(shape) == 5 else 1.0]
            ),
        )

    def still(self) -> bytes:
        """The first images at up to six steps: a row for each image, time to the right.

        With a second grid there are fewer images, and a row of it below each of the first.
        """
        steps = self.telling_steps(6)
        grids = [name for name in ("images", "beside") if name in self.arrays]
        count = min(self.arrays["images"]["shape"][1], 4 // len(grids))
        rows = [(grid, image) for image in range(count) for grid in grids]
        margin = 0.35 if self.titles else 0.0  # for the names of the grids
        figure = Figure(figsize=(1.0 * len(steps) + margin, 1.0 * len(rows) + 0.25))
        axes = figure.subplots(len(rows), len(steps), squeeze=False)
        low, high = self.value_range
        for column, step in enumerate(steps):
            states = {grid: self.state_at(grid, step) for grid in grids}
            for ax, (grid, image) in zip(axes[:, column], rows, strict=True):
                one = states[grid][image]
                shown = drawn(one / high) if one.ndim == 3 else one
                ax.imshow(shown, cmap=colour_map(self.cmap), vmin=low, vmax=high)
                ax.set(xticks=[], yticks=[])
                pale_frame(ax)
            axes[0, column].set_title(self.step_name(step), fontsize=7)
        names = dict(zip(grids, self.titles, strict=False))
        for ax, (grid, _) in zip(axes[:, 0], rows, strict=True):
            ax.set_ylabel(textwrap.fill(names.get(grid, ""), 18), fontsize=7)
        top = 1 - 0.25 / (len(rows) + 0.25)
        left = 0.01 + margin / figure.get_figwidth()
        figure.subplots_adjust(
            left=left, right=0.99, bottom=0.01, top=top, wspace=0.06, hspace=0.06
        )
        return png(figure, colours=64 if len(self.arrays["images"]["shape"]) < 5 else 256)


def _in_grids(titles: list[str], beside: object) -> str:
    if beside is None:
        return ""
    return f" in two grids: {' and '.join(titles)}" if titles else " in two grids"


def _images(name: str, images: np.ndarray | torch.Tensor, cmap: str) -> np.ndarray:
    """``[T, B, H, W]`` as they are, or, in colour, uint8 ``[T, B, 3, H, W]``."""
    wanted = "[T, B, H, W] or [T, B, 1 or 3, H, W]"
    array = to_array(name, images, wanted, 4, 5)
    if array.ndim == 5:
        if array.shape[2] not in (1, 3):
            raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
        if array.shape[2] == 3 and cmap != "grey":
            raise ValueError(f"cmap must be 'grey' where {name} have colours, got {cmap!r}")
        array = array[:, :, 0] if array.shape[2] == 1 else array
    if cmap != "signed" and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"{name} must lie in [0, 1] unless cmap is 'signed', "
            f"got values in [{array.min():.3g}, {array.max():.3g}]"
        )
    return to_bytes(array) if array.ndim == 5 else array
