"""``LatentPlane``: drag a point through the latent plane of a decoder and see its image.

With four images at its corners the plane is a square of mixtures: ``corner_shares``.
"""

import base64
from collections.abc import Callable, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_floats, check_number
from course_lib.widgets.base import (
    MAX_BYTES,
    CourseWidget,
    one_line,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.palette import CLASS_COLOURS, PALETTE, colour_map

__all__ = ["LatentPlane", "corner_shares"]

Decode = Callable[[torch.Tensor], np.ndarray | torch.Tensor]

# How many stored images there may be along an axis, finest first. `map_tiles` finds its pictures
# among them for each of these.
SIDES = (41, 37, 33, 29, 25, 23, 21, 19, 17, 15, 13, 11, 9)
BATCH = 64  # latent points that are decoded at once
MAP_INK = [0.85, 0.3]  # how strong the map is: alone, and under points
N_WALK = 9  # images along a walk, its two ends included

ALT = "A plane of latent points, and the image that a chosen point decodes to."
ALT_CORNERS = "A square between four images, and the image that a chosen mixture decodes to."


class LatentPlane(CourseWidget):
    """The latent plane of a decoder of images; the reader drags a point z, and sees its image.

    Under the point lie a map of what the decoder makes of the plane, and the posterior means of
    images, each written as the digit of its class. While the point moves, the image is mixed from
    the four nearest of a grid of stored images; as soon as the kernel has decoded z itself, that
    image takes its place, and the widget says which of the two it shows. An answer that comes when
    z has moved on is dropped. A walk shows nine images between z and a second point, at equal
    distances on the straight line.

    Stored without a kernel, the widget shows mixtures everywhere but at the z it was stored with.

    With ``corners`` the plane is a square between four images: a point has a share of each, which
    the widget writes beside it, and ``decode`` is asked for the image that belongs to the point.
    How to mix is up to ``decode``; ``corner_shares`` turns its points into shares.

    Args:
        decode: called with latent points, a float32 tensor ``[B, 2]`` on the CPU, without
            gradients. Returns images ``[B, H, W]`` or ``[B, 1, H, W]`` with values in [0, 1]. To be
            answered while the reader drags, it should take at most 150 ms for nine points.
        extent: the plane is [-extent, extent]².
        points: ``[N, 2]``, the posterior means of N images, or None. Those outside the plane are
            counted, not drawn.
        labels: ``[N]``, the class of each of them, 0 ... 9; None draws dots.
        z: the point at the start.
        corners: ``[4, H, W]`` or ``[4, 1, H, W]`` with values in [0, 1], drawn at the corners of
            the plane in the order of reading: top left, top right, bottom left, bottom right; or
            None. With corners the axes have no numbers.
        title: shown above the plane.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument, or what ``decode`` returns, is not as described, or
    where 9 x 9 stored images and the points need more than 300 KB at one byte a pixel.

    ``widget.z`` and ``widget.z_end`` (the other end of the walk), ``widget.walk``,
    ``widget.show_map`` and ``widget.show_points`` can be read and set. ``widget.image`` is z
    decoded, ``widget.grid`` the images that are stored, ``widget.shares`` the share of each corner
    at z. ``widget.error`` says why the browser's last question failed.
    """

    module = "latent_plane.js"

    extent = traitlets.Float(3.0, read_only=True).tag(sync=True)
    # What is dragged must not be pulled back by an older echo from the kernel.
    z = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    z_end = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    walk = traitlets.Bool(False).tag(sync=True)
    n_walk = traitlets.Int(N_WALK, read_only=True).tag(sync=True)
    show_map = traitlets.Bool(True).tag(sync=True)
    map_ink = traitlets.List(MAP_INK, read_only=True).tag(sync=True)
    tiles = traitlets.List(traitlets.Int(), read_only=True).tag(sync=True)  # see `map_tiles`
    show_points = traitlets.Bool(True).tag(sync=True)
    # The last answer: {"sequence", "latents" [K, 2], "pixels" [K, H, W] as base64, "error"}. A view
    # shows it where it shows these very latents.
    answered = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        decode: Decode,
        *,
        extent: float = 3.0,
        points: np.ndarray | torch.Tensor | None = None,
        labels: Sequence[int] | np.ndarray | torch.Tensor | None = None,
        z: Sequence[float] = (0.0, 0.0),
        corners: np.ndarray | torch.Tensor | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        if not callable(decode):
            raise ValueError(f"decode must be callable as decode(latents), got {decode!r}")
        check_number("extent", extent, above=0)
        self._function = decode
        self._extent = float(extent)
        self._size: tuple[int, int] | None = None
        cloud = {}  # what is stored beside the grid
        if points is not None:
            cloud["points"] = to_array("points", points, "[N, 2]", 2)
            if cloud["points"].shape[1] != 2:
                raise ValueError(
                    f"points must have shape [N, 2], got {list(cloud['points'].shape)}"
                )
        if labels is not None:
            cloud["labels"] = to_classes("labels", labels, len(cloud.get("points", ())))
        start = _inside("z", z, self._extent)
        first = self._decode([start])
        if corners is not None:
            images = to_images("corners", corners, count="4", size=self._size)
            if len(images) != 4:
                raise ValueError(f"corners must be four images, got {len(images)}")
            cloud["corners"] = to_bytes(images)
        # Two bytes for each coordinate of a point, and one for its class and for a corner's pixel.
        taken = sum((2 if name == "points" else 1) * array.size for name, array in cloud.items())
        fitting = (side for side in SIDES if side**2 * first[0].size <= MAX_BYTES - taken)
        grid = self._decode(latent_grid(self._extent, next(fitting, SIDES[-1])))
        side = round(len(grid) ** 0.5)
        super().__init__(
            {"grid": grid.reshape(side, side, *self._size)} | cloud,
            hint="decode smaller images, or send fewer points",
            title=title,
            alt=alt or (ALT if corners is None else ALT_CORNERS),
            z=start,
            # Across the origin, where the densest part of the prior lies between the two ends.
            z_end=[-v for v in start] if any(start) else [0.6 * self._extent, 0.4 * self._extent],
        )
        self.set_trait("extent", self._extent)
        self.set_trait("tiles", list(map_tiles(side)))
        self._answer("", [start], first)
        self.on_msg(self._receive)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("z", "z_end")
    def _inside_the_plane(self, proposal: dict) -> list[float]:
        return _inside(proposal["trait"].name, proposal["value"], self._extent)

    @property
    def grid(self) -> np.ndarray:
        """The stored images, float32 ``[G, G, H, W]``, quantized: rows from -extent up in z₂."""
        return (self.array("grid") / 255).astype(np.float32)

    @property
    def image(self) -> np.ndarray:
        """What z decodes to, float32 ``[H, W]``, quantized."""
        return self._decode([self.z])[0].astype(np.float32) / 255

    @property
    def shares(self) -> np.ndarray:
        """The share of each corner at z, float64 ``[4]``, in the order of ``corners``."""
        z = torch.tensor([self.z], dtype=torch.float64)
        return corner_shares(z, self.extent)[0].numpy()

    @property
    def path(self) -> np.ndarray:
        """The latent points of the walk from z to its other end, float64 ``[9, 2]``."""
        return np.linspace(self.z, self.z_end, self.n_walk)

    @property
    def error(self) -> str:
        """Why the browser's last question failed, in one line; empty where it did not."""
        return self.answered.get("error", "")

    # ------------------------------------------------------------------------------------- decoding

    def _decode(self, latents: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """What ``decode`` makes of latent points ``[K, 2]``, checked: uint8 ``[K, H, W]``."""
        images = []
        for part in torch.as_tensor(np.asarray(latents, dtype=np.float32)).split(BATCH):
            with torch.no_grad():
                answer = self._function(part)
            name = "the images that decode returns"
            images.append(to_images(name, answer, size=self._size))
            if len(images[-1]) != len(part):
                raise ValueError(
                    f"{name} must be one for each of the {len(part)} points, got {len(images[-1])}"
                )
            self._size = images[-1].shape[1:]
        return to_bytes(np.concatenate(images))

    def _receive(self, widget: object, content: dict, buffers: list) -> None:
        """Answer a question from the browser; what goes wrong is shown there."""
        if content.get("kind") != "decode":
            return
        sequence, latents = content["sequence"], content["latents"]
        try:
            self._answer(sequence, latents, self._decode(latents))
        except (Exception, KeyboardInterrupt) as problem:
            # There is no cell here that could show more than a line.
            empty = {"latents": latents, "pixels": ""}
            self.answered = {"sequence": sequence, "error": one_line(problem)} | empty

    def _answer(self, sequence: str, latents: list[list[float]], images: np.ndarray) -> None:
        pixels = base64.b64encode(images.tobytes()).decode("ascii")
        answer = {"sequence": sequence, "latents": latents, "pixels": pixels, "error": ""}
        self.answered = answer

    # ---------------------------------------------------------------------------------------- shown

    def static_html(self) -> str:
        """The stored form, with all that it shows at first decoded."""
        latents = self.path.tolist() if self.walk else [self.z]
        self._answer("", latents, self._decode(latents))
        return super().static_html()

    def still(self) -> bytes:
        """The plane with its map and its points, and the image of z; below them the walk."""
        height = 4.9 if self.walk else 3.9
        figure = Figure(figsize=(7.2, height))
        bottom = 1 - 3.9 / height
        mixes = "corners" in self.arrays
        if mixes:  # a smaller plane, with room for the corners above and below it
            plane = (0.115, bottom + 0.62 / height, 2.66 / 7.2, 2.66 / height)
        else:
            plane = (0.075, bottom + 0.45 / height, 0.455, 3.28 / height)
        self._draw_plane(figure.add_axes(plane))
        right = figure.add_axes((0.6, bottom + 0.65 / height, 0.38, 2.74 / height))
        right.imshow(self.image, cmap=colour_map("grey"), vmin=0, vmax=1)
        name = "decoded at z = ({:.2f}, {:.2f})".format(*self.z)
        right.set_title("decoded from this mixture" if mixes else name, fontsize=9)
        panels = [right]
        if mixes:
            panels += self._draw_corners(figure, plane)
        if self.walk:
            for k, image in enumerate(self._decode(self.path)):
                ax = figure.add_axes((0.02 + 0.1075 * k, 0.02, 0.1, 0.72 / height))
                ax.imshow(image, cmap=colour_map("grey"), vmin=0, vmax=255)
                panels.append(ax)
            start = "the point" if mixes else "z"
            name = f"from {start} to the other end, at equal distances"
            figure.text(0.02, 0.86 / height, name, fontsize=9)
        for ax in panels:
            ax.set(xticks=[], yticks=[])
            pale_frame(ax)
        return png(figure, colours=256)

    def _draw_corners(self, figure: Figure, plane: tuple[float, float, float, float]) -> list[Axes]:
        """Each corner's image at its corner of the plane, with its share beside it."""
        left, bottom, width, height = plane
        # An image is half an inch wide and high, and stands 0.07 inches away from the plane.
        inch = (1 / figure.get_figwidth(), 1 / figure.get_figheight())
        panels = []
        for k, (image, share) in enumerate(zip(self.array("corners"), self.shares, strict=True)):
            below, on_right = k >= 2, k % 2
            x = left + on_right * (width - 0.5 * inch[0])
            y = bottom - 0.57 * inch[1] if below else bottom + height + 0.07 * inch[1]
            ax = figure.add_axes((x, y, 0.5 * inch[0], 0.5 * inch[1]))
            ax.imshow(image, cmap=colour_map("grey"), vmin=0, vmax=255)
            panels.append(ax)
            beside = x - 0.07 * inch[0] if on_right else x + 0.57 * inch[0]
            place = {"ha": "right" if on_right else "left", "va": "center", "fontsize": 9}
            percent = int(100 * share + 0.5)  # a half upwards, as in JavaScript
            figure.text(beside, y + 0.25 * inch[1], f"{percent} %", **place)
        return panels

    def _draw_plane(self, ax: Axes) -> None:
        extent = self.extent
        ax.set_facecolor("#fbfcfd")
        if self.show_map:
            # As ink on paper: dark where an image is bright.
            grid = self.grid
            rows = [np.hstack([grid[i, j] for j in self.tiles]) for i in reversed(self.tiles)]
            strength = self.map_ink[self.show_points and "points" in self.arrays]
            whole = (-extent, extent, -extent, extent)
            ax.imshow(strength * np.vstack(rows), cmap="gray_r", vmin=0, vmax=1, extent=whole)
        if self.show_points and "points" in self.arrays:
            inside = np.abs(self.array("points")).max(1) <= extent
            points = self.array("points")[inside]
            if "labels" in self.arrays:
                draw_digits(ax, points, self.array("labels")[inside])
            else:
                ax.plot(*points.T, ".", color=PALETTE["latent"], ms=3)
        if self.walk:
            ax.plot(*self.path.T, "o-", color=PALETTE["latent"], ms=3, lw=1.5, zorder=4)
        ax.plot(*self.z, "o", ms=11, mec="white", mew=2, color=PALETTE["latent"], zorder=5)
        ax.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        if "corners" in self.arrays:
            ax.set(xticks=[], yticks=[])
        else:
            ax.set_xlabel("z₁", fontsize=9, labelpad=1)
            ax.set_ylabel("z₂", fontsize=9, labelpad=1)
            ax.tick_params(labelsize=7, length=2)
        pale_frame(ax)


# -------------------------------------------------------------------------------- the latent grid


def latent_grid(extent: float, side: int) -> np.ndarray:
    """``side``² latent points ``[side², 2]`` on [-extent, extent]², row by row from -extent up."""
    axis = np.linspace(-extent, extent, side)
    second, first = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([first.ravel(), second.ravel()], 1)


def corner_shares(points: torch.Tensor, extent: float = 1.0) -> torch.Tensor:
    """The four corners' shares ``[B, 4]`` in ``points [B, 2]`` of the square [-extent, extent]².

    The corners are in the order of reading: top left, top right, bottom left, bottom right. The
    shares are bilinear: in a corner its own is 1, on an edge only the corners at its ends count,
    and the four always add up to 1. latent_plane.js has the same formula.

    Raises ``ValueError`` where an argument is not as described.

    Example:
        >>> corner_shares(torch.tensor([[-1.0, 1.0], [1.0, 0.0]])).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.5]]

    """
    check_number("extent", extent, above=0)
    check_floats("points", points, (None, 2))
    farthest = points.abs().max().item()
    if farthest > extent * (1 + 1e-6):  # a float32 may lie a rounding beyond the border
        raise ValueError(f"points must lie in [-{extent:g}, {extent:g}]², got {farthest:g}")
    right, up = ((points / extent + 1) / 2).unbind(1)  # each 0 ... 1
    left, down = 1 - right, 1 - up
    return torch.stack([left * up, right * up, left * down, right * down], dim=1)


def map_tiles(side: int) -> range:
    """The stored images that make the map, as places along an axis.

    Each stands in the middle of its tile, and the tiles cover the plane: four to twelve of them
    along an axis.
    """
    width = 2 if side <= 25 else 4
    return range(width // 2, side, width)


# -------------------------------------------------------------------------------------- arguments


def _inside(name: str, z: object, extent: float) -> list[float]:
    """``z`` as two floats in [-extent, extent]."""
    try:
        values = [float(value) for value in z]
    except (TypeError, ValueError):
        values = []
    if len(values) != 2 or not all(-extent <= value <= extent for value in values):
        raise ValueError(f"{name} must be two numbers from {-extent:g} to {extent:g}, got {z!r}")
    return values


def to_classes(name: str, labels: object, count: int) -> np.ndarray:
    """``labels`` as uint8 ``[count]``, each from 0 to 9."""
    array = to_array(name, labels, f"[{count}]", 1)
    if len(array) != count:
        raise ValueError(f"{name} must be one for each of the {count} points, got {len(array)}")
    if not np.isin(array, range(10)).all():
        strange = array[~np.isin(array, range(10))][0]
        raise ValueError(f"{name} must be whole numbers from 0 to 9, got {strange:g}")
    return array.astype(np.uint8)


def draw_digits(ax: Axes, points: np.ndarray, labels: np.ndarray, *, size: float = 6.5) -> None:
    """Points ``[N, 2]`` in a still picture, each as the digit of its class."""
    for (x, y), label in zip(points, labels.astype(int), strict=True):
        colour = CLASS_COLOURS["light"][label]
        place = {"ha": "center", "va": "center", "clip_on": True}
        ax.text(x, y, str(label), color=colour, fontsize=size, fontweight="bold", **place)
