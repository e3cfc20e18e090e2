"""``ReceptiveField``: which pixels a pixel sees, layer by layer, and which it never does."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.checks import check_int, check_ints
from course_lib.widgets.base import LINE, PlayerWidget, check_labels, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE

__all__ = ["ReceptiveField"]

MOST_PIXELS = 32  # of height and width: smaller cells cannot be told apart
MOST_VARIANTS = 4

# What a pixel is to the chosen one.
STATES = ("after", "seen", "fresh", "blind", "leak", "unmeasured")
AFTER, SEEN, FRESH, BLIND, LEAK, UNMEASURED = STATES

Fields = Sequence[np.ndarray | torch.Tensor] | np.ndarray | torch.Tensor


class ReceptiveField(PlayerWidget):
    """The receptive field of one pixel of an autoregressive model of images, layer by layer.

    What a pixel may see are those before it in raster order; what it does see grows with every
    layer. The reader moves the pixel, and the measured field moves along and is cropped at the
    border. For convolutions with zero padding this is exact: they do the same at every pixel, and
    beyond the border there is nothing to see. (It takes a path inside the image to every pixel of
    the cropped field; for kernels without gaps, on images at least two pixels wide, there is one.)

    A field tells what a pixel sees up to (H − 1) / 2 rows and (W − 1) / 2 columns away. An image of
    height h and width w needs fields with H ≥ 2 h − 1 and W ≥ 2 w − 1, then every pixel can be
    chosen and nothing is left open. With smaller fields, pixels beyond them are marked as not
    measured.

    Args:
        fields: 0 or 1, ``[V, L, H, W]`` or V arrays ``[L, H, W]``, for V ≤ 4 variants: whether a
            pixel reaches the centre pixel ``(H // 2, W // 2)`` through the first 1, 2 ... L layers.
            H and W are odd.
        names: V names of the variants.
        size: height and width of the image that is shown, at most 32; None: H and W.
        title: shown above the images.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described.

    ``widget.step`` (the layer, from 0), ``widget.row`` and ``widget.column`` (the chosen pixel) can
    be read and set; ``widget.counts`` says what is seen of the pixels before it.
    """

    module = "receptive_field.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    row = traitlets.Int(0).tag(sync=True, echo_update=False)
    column = traitlets.Int(0).tag(sync=True, echo_update=False)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(
        self,
        fields: Fields,
        *,
        names: Sequence[str],
        size: Sequence[int] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        array = _fields(fields)
        variants, layers, *reach = array.shape
        size = reach if size is None else size
        check_ints("size", size, minimum=1)
        if len(size) != 2 or max(size) > MOST_PIXELS:
            raise ValueError(
                f"size must be a height and a width of at most {MOST_PIXELS}, got {size!r}"
            )
        if names is None:
            raise ValueError(f"names must be {variants} strings, got None")
        super().__init__(
            {"fields": array},
            n_steps=layers,
            labels=[f"layer {k + 1} of {layers}" for k in range(layers)],
            hint="send fewer layers or smaller fields",
            title=title,
            alt=alt or f"The pixels that one pixel sees through up to {layers} layers.",
            names=check_labels("names", names, variants),
            size=list(size),
            row=size[0] // 2,
            column=size[1] // 2,
        )

    @traitlets.validate("row", "column")
    def _inside_the_image(self, proposal: dict) -> int:
        name = proposal["trait"].name
        last = self.size[0 if name == "row" else 1] - 1
        check_int(name, proposal["value"], minimum=0, maximum=last)
        return proposal["value"]

    # --------------------------------------------------------------------------------- what follows

    @property
    def layer(self) -> int:
        """The layer that is shown, from 0: the step, rounded."""
        return math.floor(self.step + 0.5)

    @property
    def counts(self) -> list[dict[str, int]]:
        """For each variant, how many pixels there are ``before`` the chosen one, and of these how
        many are ``seen``, ``blind`` (not seen) and ``unmeasured``; and ``leaks``, how many are seen
        that do not come before it.
        """
        return [self._count(self._states(v, self.layer)) for v in range(len(self.names))]

    def _count(self, states: np.ndarray) -> dict[str, int]:
        count = {state: int((states == state).sum()) for state in STATES}
        return {
            "before": self.row * self.size[1] + self.column,
            "seen": count[SEEN] + count[FRESH],
            "blind": count[BLIND],
            "unmeasured": count[UNMEASURED],
            "leaks": count[LEAK],
        }

    def _states(self, variant: int, layer: int) -> np.ndarray:
        """What each pixel of the image is to the chosen one: ``[h, w]`` of ``STATES``."""
        fields = self.array("fields")[variant] > 0.5
        height, width = fields.shape[1:]
        # Where each pixel stands in the field, whose centre is the chosen pixel.
        rows = np.arange(self.size[0])[:, None] - self.row + height // 2
        columns = np.arange(self.size[1])[None, :] - self.column + width // 2
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        seen = inside & fields[layer][rows.clip(0, height - 1), columns.clip(0, width - 1)]
        earlier = np.zeros_like(seen)
        if layer > 0:
            earlier = fields[layer - 1][rows.clip(0, height - 1), columns.clip(0, width - 1)]
        raster = np.arange(self.size[0] * self.size[1]).reshape(self.size)
        before = raster < self.row * self.size[1] + self.column
        return np.select(
            [~before & seen, ~before, ~inside, ~seen, earlier],
            [LEAK, AFTER, UNMEASURED, BLIND, SEEN],
            FRESH,
        )

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """A row for each variant, with up to four layers from left to right."""
        steps = self.telling_steps(4)
        height, width = self.size
        tall = 1.55 * height / width
        figure = Figure(figsize=(1.65 * len(steps) + 0.5, (tall + 0.35) * len(self.names) + 0.1))
        grid = figure.subplots(len(self.names), len(steps), squeeze=False)
        figure.subplots_adjust(left=0.08, right=0.99, bottom=0.02, top=0.92, wspace=0.08)
        for v, row in enumerate(grid):
            for ax, step in zip(row, steps, strict=True):
                states = self._states(v, step)
                count = self._count(states)
                said = f"{self.step_name(step)}: {count['seen']} of {count['before']}"
                ax.set_title(said, fontsize=7)
                for (i, j), state in np.ndenumerate(states):
                    # Not add_patch, which looks anew for limits that are given below.
                    ax.add_artist(Rectangle((j, i), 1, 1, **self._look(state, i, j)))
                ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
                pale_frame(ax)
            row[0].set_ylabel(textwrap.fill(self.names[v], 22), fontsize=7)
        return png(figure)

    def _look(self, state: str, row: int, column: int) -> dict[str, object]:
        """How a pixel is drawn in the still picture."""
        look: dict[str, object] = {"edgecolor": LINE, "lw": 0.5, "facecolor": "white"}
        faces = {
            SEEN: (*to_rgb(PALETTE["data"]), 0.4),
            FRESH: PALETTE["data"],
            LEAK: PALETTE["error"],
            UNMEASURED: "#e6e8eb",
        }
        if (row, column) == (self.row, self.column):
            return look | {"facecolor": PALETTE["model"]}
        if state == BLIND:
            return look | {"hatch": "////", "edgecolor": PALETTE["error"], "lw": 0}
        return look | {"facecolor": faces.get(state, "white")}


def _fields(fields: object) -> np.ndarray:
    if isinstance(fields, list | tuple) and fields:
        arrays = [to_array(f"fields[{v}]", field, "[L, H, W]", 3) for v, field in enumerate(fields)]
        for v, array in enumerate(arrays):
            if array.shape != arrays[0].shape:
                raise ValueError(
                    f"fields[{v}] must have the shape of fields[0], {list(arrays[0].shape)}, "
                    f"got {list(array.shape)}"
                )
        array = np.stack(arrays)
    else:
        array = to_array("fields", fields, "[V, L, H, W]", 4)
    if not np.isin(array, (0, 1)).all():
        strange = array[~np.isin(array, (0, 1))][0]
        raise ValueError(f"fields must hold 0 or 1 alone, got {strange:g}")
    if len(array) > MOST_VARIANTS:
        raise ValueError(f"fields must hold at most {MOST_VARIANTS} variants, got {len(array)}")
    if not all(length % 2 for length in array.shape[2:]):
        raise ValueError(
            f"fields must have an odd height and width, got {array.shape[2]} x {array.shape[3]}"
        )
    return array
