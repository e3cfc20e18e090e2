"""``Preconditioning``: what a network sees and must say at each noise level."""

import math

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE

__all__ = ["Preconditioning"]

Array = np.ndarray | torch.Tensor

# How each way is called, its role in the palette and matplotlib's dashes.
WAYS = {
    "preconditioned": ("preconditioned", "model", "-"),
    "eps": ("eps, plainly", "noise", "--"),
    "x0": ("x₀, plainly", "data", ":"),
}
LIMIT = 1.5  # of the grey scale
MOST_SHOWN = 8


class Preconditioning(CourseWidget):
    """What a network sees and must say of x = x_0 + σ eps, with factors of its own and without.

    A guess of x_0 is c_skip x + c_out F(c_in x) with F the network: it sees c_in x, and must say
    (x_0 − c_skip x) / c_out. Three ways stand one below the other:

        preconditioned: c_skip = σ_d² / (σ² + σ_d²), c_out = σ σ_d / √(σ² + σ_d²),
            c_in = 1 / √(σ² + σ_d²), with σ_d the size of the data
        eps, plainly: 1, −σ, 1; it sees x and must say eps
        x_0, plainly: 0, 1, 1; it sees x and must say x_0

    Beside the pictures are drawn, over all noise levels, the size of what is seen and of what must
    be said, the root of the mean square over all given images, and |c_out|, by which an error of
    the network is multiplied in the guess. The browser computes everything from x_0 and eps.

    Args:
        images: ``[N, H, W]`` or ``[N, 1, H, W]``, the x_0, as the network has them.
        eps: Noise like them.
        sigma_data: The size of the data σ_d; by default that of ``images``.
        sigma: The noise level at first.
        sigma_min, sigma_max: The noise levels at the ends.
        shown: How many of the images are drawn, 1 to 8; sizes are of all.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.sigma`` can be read and set; ``widget.factors(way)`` are (c_skip, c_out, c_in),
    ``widget.sees(way)`` and ``widget.says(way)`` the arrays, ``widget.sizes(way)`` what is drawn.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 5 and table 1.
    """

    module = "preconditioning.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    log_sigma = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    sigma_data = traitlets.Float(1.0).tag(sync=True)
    sigma_min = traitlets.Float(0.002).tag(sync=True)
    sigma_max = traitlets.Float(80.0).tag(sync=True)
    shown = traitlets.Int(3).tag(sync=True)
    limit = traitlets.Float(LIMIT, read_only=True).tag(sync=True)

    def __init__(
        self,
        images: Array,
        eps: Array,
        *,
        sigma_data: float | None = None,
        sigma: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        shown: int = 3,
        title: str = "",
        alt: str = "",
    ) -> None:
        data, noise = _images("images", images), _images("eps", eps)
        if noise.shape != data.shape:
            raise ValueError(
                f"eps must have the shape of images, {list(data.shape)}, got {list(noise.shape)}"
            )
        size = float(np.sqrt(np.square(data, dtype=np.float64).mean()))
        sigma_data = size if sigma_data is None else sigma_data
        check_number("sigma_data", sigma_data, above=0)
        check_number("sigma_min", sigma_min, above=0)
        check_number("sigma_max", sigma_max, above=sigma_min)
        _check_sigma(sigma, sigma_min, sigma_max)
        check_int("shown", shown, minimum=1, maximum=MOST_SHOWN)
        super().__init__(
            {"images": data, "eps": noise},
            hint="send fewer images",
            title=title,
            alt=alt or "What a network sees and must say of noised images, by three ways.",
            sigma_data=float(sigma_data),
            sigma_min=float(sigma_min),
            sigma_max=float(sigma_max),
            log_sigma=math.log(sigma),
            shown=min(shown, len(data)),
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("log_sigma")
    def _level_in_range(self, proposal: dict) -> float:
        _check_sigma(math.exp(proposal["value"]), self.sigma_min, self.sigma_max)
        return proposal["value"]

    @property
    def sigma(self) -> float:
        """The noise level that is shown."""
        return math.exp(self.log_sigma)

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        _check_sigma(sigma, self.sigma_min, self.sigma_max)
        self.log_sigma = math.log(sigma)

    # ---------------------------------------------------------------------------------- mathematics

    def factors(self, way: str, sigma: float | None = None) -> tuple[float, float, float]:
        """(c_skip, c_out, c_in) of a way, by default at the level that is shown."""
        check_one_of("way", way, WAYS)
        sigma = self.sigma if sigma is None else sigma
        if way == "eps":
            return 1.0, -sigma, 1.0
        if way == "x0":
            return 0.0, 1.0, 1.0
        size = math.hypot(sigma, self.sigma_data)
        return (self.sigma_data / size) ** 2, sigma * self.sigma_data / size, 1 / size

    def sees(self, way: str, sigma: float | None = None) -> np.ndarray:
        """What the network sees, c_in x: ``[N, H, W]``."""
        return self.factors(way, sigma)[2] * self._noised(sigma)

    def says(self, way: str, sigma: float | None = None) -> np.ndarray:
        """What it must say, (x_0 − c_skip x) / c_out: ``[N, H, W]``."""
        c_skip, c_out, _ = self.factors(way, sigma)
        return (self.array("images") - c_skip * self._noised(sigma)) / c_out

    def sizes(self, way: str, sigma: float | None = None) -> tuple[float, float, float]:
        """The sizes of what is seen and of what must be said, and |c_out|."""
        seen, said = self.sees(way, sigma), self.says(way, sigma)
        size = [float(np.sqrt((array**2).mean())) for array in (seen, said)]
        return size[0], size[1], abs(self.factors(way, sigma)[1])

    def _noised(self, sigma: float | None) -> np.ndarray:
        sigma = self.sigma if sigma is None else sigma
        return self.array("images") + sigma * self.array("eps")

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The pictures at this level, and the sizes over all of them."""
        figure = Figure(figsize=(7.2, 3.4))
        outer = figure.add_gridspec(1, 2, left=0.01, right=0.99, bottom=0.13, top=0.93, wspace=0.16)
        tiles = outer[0].subgridspec(3, 2, wspace=0.08, hspace=0.3)
        plots = outer[1].subgridspec(3, 1, hspace=0.5)
        for i, (way, (name, role, _)) in enumerate(WAYS.items()):
            sizes = self.sizes(way)
            names = (f"{name}: sees {sizes[0]:.3g}", f"must say {sizes[1]:.3g}")
            for side, images in enumerate((self.sees(way), self.says(way))):
                ax = figure.add_subplot(tiles[i, side])
                strip = np.concatenate(list(images[: self.shown]), axis=1)
                ax.imshow(strip, cmap="gray", vmin=-LIMIT, vmax=LIMIT)
                ax.set(xticks=[], yticks=[])
                ax.set_title(names[side], fontsize=7, color=PALETTE[role], pad=2)
                pale_frame(ax)
        levels = np.geomspace(self.sigma_min, self.sigma_max, 60)
        drawn = {way: np.array([self.sizes(way, sigma) for sigma in levels]) for way in WAYS}
        for k, title in enumerate(
            ("size of what it sees", "size of what it must say", "how its errors count in x₀")
        ):
            ax = figure.add_subplot(plots[k])
            for way, (_, role, dash) in WAYS.items():
                ax.plot(levels, drawn[way][:, k], dash, color=PALETTE[role], lw=1.6)
            ax.axvline(self.sigma, color=LINE, lw=1.2, zorder=0)
            ax.set(xscale="log", yscale="log")
            ax.set_title(title, fontsize=7, pad=2)
            ax.tick_params(labelsize=6, length=2, color=LINE, which="both")
            if k == 1:
                ax.set_ylim(0.1, 10)
            if k < 2:
                ax.set_xticklabels([])
            pale_frame(ax)
        ax.set_xlabel("noise level σ", fontsize=7, labelpad=1)
        return png(figure)


# --------------------------------------------------------------------------------------- arguments


def _images(name: str, values: Array) -> np.ndarray:
    array = to_array(name, values, "[N, H, W] or [N, 1, H, W]", 3, 4)
    if array.ndim == 4 and array.shape[1] != 1:
        raise ValueError(f"{name} must have one channel, got {array.shape[1]}")
    return array[:, 0] if array.ndim == 4 else array


def _check_sigma(sigma: float, low: float, high: float) -> None:
    check_number("sigma", sigma, above=0)
    if not low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9):
        raise ValueError(f"sigma must lie in [{low:g}, {high:g}], got {sigma:g}")
