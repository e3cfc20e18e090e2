"""``Interpolation``: ways from one latent to another, the images on them, and how long they are."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int
from course_lib.widgets.base import CourseWidget, png, to_array, to_bytes, to_images
from course_lib.widgets.palette import PALETTE, THEMES, colour_map

__all__ = ["Interpolation"]

Array = np.ndarray | torch.Tensor

# Of the ways in their order: the role that colours the line; dashes and gaps in widths of the line.
LOOKS = (("latent", ()), ("error", (3, 2)), ("data", (1, 1.5)), ("model", (4, 1.5, 1, 1.5)))


class Interpolation(CourseWidget):
    """Slerp against lerp: what lies between two latents, decoded, and why one of the ways fails.

    For each way there is a strip of the images at w = 0 ... 1. Below them, on the same axis, stand
    the lengths of the latents, and as a grey band the lengths that noise really has. The reader
    drags w across both.

    Args:
        rows: for the name of each way (at most four) the images at K evenly spaced positions
            between each of P pairs, ``[P, K, H, W]`` or ``[P, K, 1, H, W]`` in [0, 1]. The first
            position is w = 0, the last w = 1.
        norms: for the same names the length of the latent at each position, ``[P, K]``, such as
            |z| / sqrt(d).
        norm_label: what ``norms`` are.
        typical: (low, high), the lengths that noise has.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes or names do not fit together, values are not finite, images
    lie outside [0, 1], or all of it needs more than 300 KB at one byte a pixel and two for a
    length.

    ``widget.w`` and ``widget.pair`` (0 ... P − 1) can be read and set. w is always at one of the K
    positions: another number in [0, 1] is moved to the nearest. ``widget.shown`` holds the images.
    """

    module = "interpolation.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    w = traitlets.Float(0.5).tag(sync=True, echo_update=False)
    pair = traitlets.Int(0).tag(sync=True, echo_update=False)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    looks = traitlets.List(traitlets.List(), read_only=True).tag(sync=True)
    norm_label = traitlets.Unicode().tag(sync=True)
    typical = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        rows: Mapping[str, Array],
        *,
        norms: Mapping[str, Array],
        norm_label: str = "length of the latent",
        typical: Sequence[float] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        images = _rows(rows)
        names = list(images)
        lengths = _norms(norms, names, next(iter(images.values())).shape[:2])
        if not isinstance(norm_label, str):
            raise ValueError(f"norm_label must be a string, got {norm_label!r}")
        last = next(iter(lengths.values())).shape[1] - 1
        super().__init__(
            {
                "images": np.stack(list(images.values())),  # [ways, P, K, H, W]
                "norms": np.stack(list(lengths.values())),  # [ways, P, K]
            },
            hint="send fewer pairs or positions",
            title=title,
            alt=alt or f"Images between two latents, on these ways: {', '.join(names)}.",
            w=round(last / 2) / last,
            names=names,
            norm_label=norm_label,
            typical=[] if typical is None else _typical(typical),
        )
        self.set_trait("looks", [[role, list(dashes)] for role, dashes in LOOKS[: len(names)]])

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("w")
    def _at_a_position(self, proposal: dict) -> float:
        w = proposal["value"]
        if not 0 <= w <= 1:
            raise ValueError(f"w must lie in [0, 1], got {w}")
        last = self.arrays["norms"]["shape"][2] - 1
        return round(w * last) / last

    @traitlets.validate("pair")
    def _pair_exists(self, proposal: dict) -> int:
        pairs = self.arrays["norms"]["shape"][1]
        check_int("pair", proposal["value"], minimum=0, maximum=pairs - 1)
        return proposal["value"]

    @property
    def position(self) -> int:
        """The index of w among the K positions."""
        return round(self.w * (self.arrays["norms"]["shape"][2] - 1))

    @property
    def shown(self) -> dict[str, np.ndarray]:
        """The large image of each way, ``[H, W]`` in 256 grey levels between 0 and 1."""
        images = self.array("images")[:, self.pair, self.position] / 255
        return dict(zip(self.names, images, strict=True))

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The strips of the pair, and the lengths below them on the same axis."""
        images = self.array("images")[:, self.pair] / 255  # [ways, K, H, W]
        norms = self.array("norms")[:, self.pair]
        ways, count, height, width = images.shape
        side = 5.6 / count
        strip = side * height / width + 0.28  # a row with its name above, in inches
        figure = Figure(figsize=(6.4, ways * strip + 1.75))
        total = figure.get_figheight()
        left, right = 0.7 / 6.4, 6.3 / 6.4
        colours = [PALETTE[role] for role, _ in self.looks]
        for n, (name, (role, _)) in enumerate(zip(self.names, self.looks, strict=True)):
            box = [left, 1 - (n + 1) * strip / total, right - left, (strip - 0.25) / total]
            ax = figure.add_axes(box)
            ax.imshow(np.hstack(images[n]), cmap=colour_map("grey"), vmin=0, vmax=1, aspect="auto")
            for k in range(1, count):
                ax.axvline(k * width - 0.5, color="white", lw=1.5)
            edges = np.array([self.position, self.position + 1]) * width - 0.5
            ax.axvspan(*edges, fill=False, edgecolor=colours[n], lw=2)
            dark = THEMES["light"]["words"][role]  # the still picture is on white
            ax.set_title(name, fontsize=8, loc="left", pad=3, color=dark)
            ax.axis("off")
        ax = figure.add_axes([left, 0.42 / total, right - left, 1.2 / total])
        if self.typical:
            ax.axhspan(*self.typical, color=PALETTE["noise"], alpha=0.3, lw=0)
        for n, (_, dashes) in enumerate(self.looks):
            look = {"color": colours[n], "ls": (0, dashes), "marker": ".", "ms": 4, "lw": 1.3}
            ax.plot(np.linspace(0, 1, count), norms[n], **look)
        half = 0.5 / (count - 1)
        ax.set(xlim=(-half, 1 + half))
        ax.axvline(self.w, color="#5b626b", lw=1)
        band = "   (grey: lengths that noise has)" if self.typical else ""
        ax.set_xlabel(f"w{band}", fontsize=7, labelpad=1)
        ax.set_ylabel(self.norm_label, fontsize=7)
        ax.tick_params(labelsize=6, length=2)
        return png(figure, colours=256)


# --------------------------------------------------------------------------------------- arguments


def _named(name: str, values: object) -> dict:
    """``values`` as a dict of one to four arrays, by non-empty strings."""
    if not isinstance(values, Mapping) or not 1 <= len(values) <= len(LOOKS):
        got = f"{len(values)}" if isinstance(values, Mapping) else f"{values!r}"
        raise ValueError(f"{name} must be a dict of 1 to {len(LOOKS)} named arrays, got {got}")
    for key in values:
        if not isinstance(key, str) or not key:
            raise ValueError(f"the names in {name} must be strings, not empty, got {key!r}")
    return dict(values)


def _rows(rows: object) -> dict[str, np.ndarray]:
    """The images of each way as uint8 ``[P, K, H, W]``, all of one shape."""
    named = _named("rows", rows)
    found = {}
    for key, values in named.items():
        name, wanted = f"rows[{key!r}]", "[P, K, H, W] or [P, K, 1, H, W] with K of at least 2"
        array = to_array(name, values, wanted, 4, 5)
        if array.shape[1] < 2 or (array.ndim == 5 and array.shape[2] != 1):
            raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
        flat = to_images(name, array.reshape(-1, *array.shape[-2:]))
        found[key] = to_bytes(flat).reshape(*array.shape[:2], *array.shape[-2:])
        first = next(iter(found.values())).shape
        if found[key].shape != first:
            raise ValueError(
                f"{name} must have shape {list(first)}, that of the first, "
                f"got {list(found[key].shape)}"
            )
    return found


def _norms(norms: object, names: list[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The lengths of each way as ``[P, K]``, in the order of ``names``."""
    named = _named("norms", norms)
    if set(named) != set(names):
        raise ValueError(f"norms must have the names of rows, {names}, got {list(named)}")
    found = {}
    for key in names:
        array = to_array(f"norms[{key!r}]", named[key], f"{list(shape)}", 2)
        if array.shape != shape or array.min() < 0:
            got = f"{list(array.shape)}" if array.shape != shape else f"{array.min():.3g} in it"
            raise ValueError(
                f"norms[{key!r}] must have shape {list(shape)} and no value below 0, got {got}"
            )
        found[key] = array
    return found


def _typical(typical: object) -> list[float]:
    try:
        low, high = (float(value) for value in typical)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"typical must be (low, high) with low < high, got {typical!r}")
    return [low, high]
