"""``ScaleMixer``: which scale of a multi-scale flow did what, by keeping some and not others."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_int
from course_lib.widgets.base import CourseWidget, check_labels, png, to_array, to_bytes, to_images
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["ScaleMixer"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_SCALES = 6  # 63 ways to draw some of them anew
STILL_ROWS = 3


class ScaleMixer(CourseWidget):
    """An image's latents, scale by scale, each kept or drawn anew; and the image they make.

    A multi-scale flow leads an image to latents in S parts. Scale 1 left the flow first, the last
    scale went through all layers. Where all are kept, the flow leads back to the image itself;
    where some are replaced by draws from the prior, what stays of the image was told by the others.
    Nothing is computed in the browser: it is given the images of all mixtures.

    Args:
        images: ``[N, H, W]`` or ``[N, 1, H, W]``, N images in [0, 1].
        latents: S ≤ 6 arrays, the latents of the N images at each scale: ``[N, C, h, w]``, whose
            channels are shown as tiles, or ``[N, h, w]``, shown as it is. S, C, h and w may be
            any, but every value should be one latent, since the widget counts them.
        mixed: ``[N, 2**S - 1, R, H, W]`` or ``[N, 2**S - 1, R, 1, H, W]`` in [0, 1]: for each image
            and each set of scales drawn anew, R images. The sets are counted in binary:
            ``mixed[:, k - 1]`` belongs to the k in which bit s (of value 2**s) is 1 where scale
            s + 1 is drawn anew. So index 0 is scale 1 alone, 1 is scale 2 alone, 2 is both, 3 is
            scale 3 alone, and the last is all of them. Draw r should use the same new latents of a
            scale in all sets: then a switch changes one scale and nothing else.
        names: S names of the scales; by default "scale 1", "scale 2", ...
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, images lie
    outside [0, 1], or all of it needs more than 300 KB at one byte a pixel and two for a latent.

    ``widget.image`` (0 ... N − 1), ``widget.resampled`` (a list of S bools, to be set as a whole)
    and ``widget.draw`` (0 ... R − 1) can be read and set. ``widget.shown`` is the result.
    """

    module = "scale_mixer.js"

    # What is clicked quickly must not be pulled back by an older echo from the kernel.
    image = traitlets.Int(0).tag(sync=True, echo_update=False)
    resampled = traitlets.List(traitlets.Bool()).tag(sync=True, echo_update=False)
    draw = traitlets.Int(0).tag(sync=True, echo_update=False)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    limit = traitlets.Float(1.0).tag(sync=True)  # the latent at either end of the colour map

    def __init__(
        self,
        images: Array,
        latents: Sequence[Array],
        mixed: Array,
        *,
        names: Sequence[str] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        originals = to_images("images", images, count="N")
        parts = _latents(latents, len(originals))
        scales = len(parts)
        arrays = {"images": to_bytes(originals), "mixed": _mixed(mixed, originals, scales)}
        arrays |= {f"latents {s}": part for s, part in enumerate(parts)}
        sizes = np.concatenate([np.abs(part).ravel() for part in parts])
        super().__init__(
            arrays,
            hint="send fewer images or draws",
            title=title,
            alt=alt or f"An image's latents in {scales} scales, and the image that they make.",
            resampled=[False] * scales,
            names=check_labels("names", names, scales)
            or [f"scale {s}" for s in range(1, scales + 1)],
            # A single large value must not make all others pale.
            limit=math.ceil(10 * np.quantile(sizes, 0.99)) / 10 or 1.0,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("image", "draw")
    def _index_exists(self, proposal: dict) -> int:
        name = proposal["trait"].name
        images, _, draws = self.arrays["mixed"]["shape"][:3]
        most = {"image": images, "draw": draws}[name] - 1
        check_int(name, proposal["value"], minimum=0, maximum=most)
        return proposal["value"]

    @traitlets.validate("resampled")
    def _one_for_each_scale(self, proposal: dict) -> list[bool]:
        scales = sum(name.startswith("latents") for name in self.arrays)
        if len(proposal["value"]) != scales:
            raise ValueError(
                f"resampled must hold one bool for each of {scales} scales, "
                f"got {proposal['value']!r}"
            )
        return proposal["value"]

    @property
    def shown(self) -> np.ndarray:
        """The result as the browser shows it, ``[H, W]`` in 256 grey levels between 0 and 1."""
        return self._result(self.image, self.resampled)

    def _result(self, image: int, resampled: Sequence[bool]) -> np.ndarray:
        """The original, or its mixture with the draw that is shown."""
        k = sum(2**s for s, anew in enumerate(resampled) if anew)
        if k == 0:
            return self.array("images")[image] / 255
        return self.array("mixed")[image, k - 1, self.draw] / 255

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """A few images, each beside what comes of it with one scale drawn anew, and with all."""
        count, scales = len(self.array("images")), len(self.names)
        rows = sorted(range(count), key=lambda i: (i != self.image, i))[:STILL_ROWS]
        columns = {"the original": [False] * scales}
        columns |= {
            f"{name}\ndrawn anew": [s == other for other in range(scales)]
            for s, name in enumerate(self.names)
        }
        if scales > 1:
            columns["all\ndrawn anew"] = [True] * scales
        height, width = self.shown.shape
        figure = Figure(figsize=(1.25 * len(columns), 1.25 * len(rows) * height / width + 0.42))
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for axes, image in zip(grid, rows, strict=True):
            for ax, resampled in zip(axes, columns.values(), strict=True):
                role = "model" if any(resampled) else "data"
                _show(ax, self._result(image, resampled), PALETTE[role])
        for ax, name in zip(grid[0], columns, strict=True):
            ax.set_title(name, fontsize=8, linespacing=1.1)
        top = 1 - 0.4 / figure.get_figheight()
        figure.subplots_adjust(
            left=0.01, right=0.99, bottom=0.01, top=top, wspace=0.08, hspace=0.08
        )
        return png(figure)


def _show(ax: Axes, image: np.ndarray, colour: str) -> None:
    ax.imshow(image, cmap=colour_map("grey"), vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set(color=colour, linewidth=1.2)


# -------------------------------------------------------------------------------------- arguments


def _latents(latents: object, images: int) -> list[np.ndarray]:
    """``latents`` as S arrays, float32 ``[N, C, h, w]``."""
    if not isinstance(latents, list | tuple) or not 1 <= len(latents) <= MOST_SCALES:
        got = f"{len(latents)}" if isinstance(latents, list | tuple) else f"{latents!r}"
        raise ValueError(f"latents must be a list of 1 to {MOST_SCALES} arrays, got {got}")
    parts = []
    for s, part in enumerate(latents):
        wanted = f"[{images}, C, h, w] or [{images}, h, w]"
        array = to_array(f"latents[{s}]", part, wanted, 3, 4)
        if len(array) != images:
            raise ValueError(
                f"latents[{s}] must have shape {wanted}, one for each image, "
                f"got {list(array.shape)}"
            )
        parts.append(array if array.ndim == 4 else array[:, None])
    return parts


def _mixed(mixed: object, originals: np.ndarray, scales: int) -> np.ndarray:
    """``mixed`` as uint8 ``[N, 2**S - 1, R, H, W]``."""
    count, rows, columns = originals.shape
    sets = 2**scales - 1
    wanted = (
        f"[{count}, {sets}, R, {rows}, {columns}] or [{count}, {sets}, R, 1, {rows}, {columns}]"
    )
    array = to_array("mixed", mixed, wanted, 5, 6)
    other_size = array.shape[:2] != (count, sets) or array.shape[-2:] != (rows, columns)
    if other_size or (array.ndim == 6 and array.shape[3] != 1):
        raise ValueError(
            f"mixed must have shape {wanted}, for {scales} scales, got {list(array.shape)}"
        )
    flat = to_images("mixed", array.reshape(-1, rows, columns))
    return to_bytes(flat).reshape(count, sets, -1, rows, columns)
