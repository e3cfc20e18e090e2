"""``ImagePlayer``: watch images change through the steps of a flow or a sampler."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_one_of
from course_lib.widgets.base import PlayerWidget, check_labels, png, to_array, value_range
from course_lib.widgets.palette import MAPS, colour_map

__all__ = ["ImagePlayer"]


class ImagePlayer(PlayerWidget):
    """A grid of images that change through the steps of a trajectory.

    Arguments:
        images: ``[T, B, H, W]`` or ``[T, B, 1, H, W]``, the B images at each of T steps; step 0 is
            the start. Values lie in [0, 1], but with ``cmap="signed"`` any are welcome.
        columns: how many images stand side by side; by default the grid is about square.
        labels: T names of the steps.
        captions: B short texts, one under each image.
        title: shown above the images.
        cmap: ``"grey"``, ``"viridis"``, or ``"signed"``: blue below zero, orange above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite or outside [0, 1],
    or the images need more than 300 KB at two bytes a pixel.

    ``widget.step`` (a float), ``widget.playing`` and ``widget.n_steps`` can be read and, but for
    the last, set.
    """

    module = "image_player.js"

    columns = traitlets.Int(1).tag(sync=True)
    captions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cmap = traitlets.Unicode("grey").tag(sync=True)
    value_range = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        images: np.ndarray | torch.Tensor,
        *,
        columns: int | None = None,
        labels: Sequence[str] | None = None,
        title: str = "",
        cmap: str = "grey",
        captions: Sequence[str] | None = None,
        alt: str = "",
    ) -> None:
        check_one_of("cmap", cmap, MAPS)
        array = _images(images, signed=cmap == "signed")
        steps, count = array.shape[:2]
        if columns is None:
            columns = math.ceil(math.sqrt(count)) if count > 10 else count
        check_int("columns", columns, minimum=1)
        super().__init__(
            {"images": array},
            n_steps=steps,
            labels=labels,
            hint="send fewer images or steps, or smaller images",
            title=title,
            alt=alt or f"{count} images change through {steps} steps.",
            columns=min(columns, count),
            captions=check_labels("captions", captions, count),
            cmap=cmap,
            value_range=value_range(array, signed=True) if cmap == "signed" else [0.0, 1.0],
        )

    def still(self) -> bytes:
        """The first images at up to six steps: a row for each image, time to the right."""
        steps = self.telling_steps(6)
        count = min(self.array("images").shape[1], 4)
        figure = Figure(figsize=(1.0 * len(steps), 1.0 * count + 0.25))
        axes = figure.subplots(count, len(steps), squeeze=False)
        for column, step in enumerate(steps):
            images = self.state_at("images", step)
            for row in range(count):
                ax = axes[row, column]
                low, high = self.value_range
                ax.imshow(images[row], cmap=colour_map(self.cmap), vmin=low, vmax=high)
                ax.set(xticks=[], yticks=[])
                for side in ax.spines.values():
                    side.set_color("#d3d7dc")
            axes[0, column].set_title(self.step_name(step), fontsize=7)
        top = 1 - 0.25 / (count + 0.25)
        figure.subplots_adjust(
            left=0.01, right=0.99, bottom=0.01, top=top, wspace=0.06, hspace=0.06
        )
        return png(figure)


def _images(images: np.ndarray | torch.Tensor, *, signed: bool) -> np.ndarray:
    wanted = "[T, B, H, W] or [T, B, 1, H, W]"
    array = to_array("images", images, wanted, 4, 5)
    if array.ndim == 5:
        if array.shape[2] != 1:
            raise ValueError(f"images must have shape {wanted}, got {list(array.shape)}")
        array = array[:, :, 0]
    if not signed and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            "images must lie in [0, 1] unless cmap is 'signed', "
            f"got values in [{array.min():.3g}, {array.max():.3g}]"
        )
    return array
