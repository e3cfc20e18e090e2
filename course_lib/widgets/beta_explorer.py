"""``BetaExplorer``: what β does to a VAE, to its latent plane, its images and its two costs."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse

from course_lib.widgets.base import PlayerWidget, pale_frame, png, to_array, to_bytes, to_images
from course_lib.widgets.latent_plane import draw_digits, to_classes
from course_lib.widgets.palette import CLASS_COLOURS, PALETTE, colour_map

__all__ = ["BetaExplorer"]

Array = np.ndarray | torch.Tensor | Sequence


class BetaExplorer(PlayerWidget):
    """M models with a latent plane that differ in β alone, one on each step of a slider.

    The plane shows the posterior q(z | x) of N test images: its mean as the digit of the class, its
    standard deviations as an ellipse; and the unit circle, one standard deviation of the prior.
    Under a large β all posteriors come to lie on the prior and tell nothing of x; under a small one
    they are small and lie apart, with holes between them. Rate and distortion of all models make a
    curve; the dashed line through the model that is shown joins all pairs with the same D + β R. A
    click on a point of the curve shows that model. From one model to another everything jumps,
    since the coordinates of two models have nothing to do with each other.

    Args:
        betas: ``[M]``, positive and increasing.
        means, stds: ``[M, N, 2]``, the posteriors of the N test images under each model.
        labels: ``[N]``, their classes, 0 ... 9.
        originals: ``[K, H, W]`` or ``[K, 1, H, W]``, K test images, in [0, 1].
        reconstructions: ``[M, K, H, W]`` or ``[M, K, 1, H, W]``, these images encoded and decoded.
        samples: ``[M, S, H, W]`` or ``[M, S, 1, H, W]``, images decoded from draws of the prior.
            With the same draws for all models, they can be compared.
        rates: ``[M]``, the mean of KL(q(z | x) ‖ p(z)) in nats.
        distortions: ``[M]``, the mean of −E[log p(x | z)] in nats.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not as described, or all of
    it needs more than 300 KB at one byte a pixel and two for every other number.

    ``widget.step`` (a float, rounded down to ``widget.index``), ``widget.playing`` and
    ``widget.fit`` (whether the plane's axes follow each model, or are the same for all) can be read
    and set. ``widget.costs`` holds β, rate, distortion and their sums for the model that is shown.
    """

    module = "beta_explorer.js"

    betas = traitlets.List(traitlets.Float()).tag(sync=True)
    rates = traitlets.List(traitlets.Float()).tag(sync=True)
    distortions = traitlets.List(traitlets.Float()).tag(sync=True)
    # Half the width of the plane for each model, where the axes follow it.
    extents = traitlets.List(traitlets.Float()).tag(sync=True)
    fit = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        betas: Array,
        *,
        means: Array,
        stds: Array,
        labels: Array,
        originals: Array,
        reconstructions: Array,
        samples: Array,
        rates: Array,
        distortions: Array,
        title: str = "",
        alt: str = "",
    ) -> None:
        beta = to_array("betas", betas, "[M]", 1)
        if (beta <= 0).any() or (np.diff(beta) <= 0).any():
            raise ValueError(f"betas must be positive and increasing, got {beta.tolist()}")
        count = len(beta)
        centres = _planes("means", means, count)
        spreads = _planes("stds", stds, count, points=centres.shape[1])
        if (spreads <= 0).any():
            raise ValueError(f"stds must be positive, got {spreads.min():.3g}")
        given = to_images("originals", originals, count="K")
        size = given.shape[1:]
        arrays = {
            "means": centres,
            "stds": spreads,
            "classes": to_classes("labels", labels, centres.shape[1]),
            "originals": to_bytes(given),
            "reconstructions": _sets("reconstructions", reconstructions, count, size, len(given)),
            "samples": _sets("samples", samples, count, size),
        }
        super().__init__(
            arrays,
            n_steps=count,
            labels=[f"β = {value:.3g}" for value in beta.tolist()],
            whole_steps=True,  # coordinates of two models have nothing to do with each other
            hint="send fewer models, test images or samples",
            title=title,
            alt=alt
            or f"The latent plane, the images and the costs of {count} VAEs that differ in β.",
            betas=beta.tolist(),
            rates=_costs("rates", rates, count).tolist(),
            distortions=_costs("distortions", distortions, count).tolist(),
            extents=[_half_width(*model) for model in zip(centres, spreads, strict=True)],
        )
        if min(self.rates) < 0:
            raise ValueError(f"rates must not be negative, got {min(self.rates):.3g}")

    @property
    def index(self) -> int:
        """The model that is shown, 0 ... M − 1."""
        return math.floor(self.step + 1e-6)

    @property
    def costs(self) -> dict[str, float]:
        """Of the model that is shown: ``beta``, and in nats ``rate``, ``distortion``, their sum
        ``negative_elbo`` and the ``objective`` D + β R.
        """
        beta, rate = self.betas[self.index], self.rates[self.index]
        distortion = self.distortions[self.index]
        return {
            "beta": beta,
            "rate": rate,
            "distortion": distortion,
            "negative_elbo": rate + distortion,
            "objective": distortion + beta * rate,
        }

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The planes of three models with a few images each, and the curve of all."""
        steps = self.telling_steps()
        figure = Figure(figsize=(7.2, 5.4))
        room = {"left": 0.03, "right": 0.99, "bottom": 0.36, "top": 0.95}
        grid = figure.add_gridspec(3, 3, height_ratios=[10, 2, 2], hspace=0.1, wspace=0.06, **room)
        for column, step in enumerate(steps):
            plane = figure.add_subplot(grid[0, column])
            self._draw_plane(plane, step)
            plane.set_title(self.step_name(step), fontsize=9)
            shown = self.array("reconstructions")[step][:6], self.array("samples")[step][:6]
            for row, (images, name) in enumerate(
                zip(shown, ("decoded", "sampled"), strict=True), 1
            ):
                ax = figure.add_subplot(grid[row, column])
                ax.imshow(np.hstack(list(images)), cmap=colour_map("grey"), vmin=0, vmax=255)
                ax.set_ylabel(name if column == 0 else "", fontsize=7, labelpad=2)
                _bare(ax)
        curve = figure.add_axes((0.1, 0.085, 0.87, 0.24))
        self._draw_curve(curve)
        return png(figure, colours=256)

    def _extent(self, step: int) -> float:
        return self.extents[step] if self.fit else max(self.extents)

    def _draw_plane(self, ax: Axes, step: int) -> None:
        means, stds = self.array("means")[step], self.array("stds")[step]
        classes = self.array("classes")
        extent = self._extent(step)
        inside = np.abs(means).max(1) <= extent
        for mean, std, label in zip(means[inside], stds[inside], classes[inside], strict=True):
            colour = CLASS_COLOURS["light"][int(label)]
            ax.add_patch(Ellipse(mean, *(2 * std), fill=False, ec=colour, lw=0.6, alpha=0.35))
        draw_digits(ax, means[inside], classes[inside], size=5.5)
        ax.add_patch(Circle((0, 0), 1, fill=False, ec="#1f2328", lw=1.2, ls="--", zorder=4))
        ax.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        _bare(ax)

    def _draw_curve(self, ax: Axes) -> None:
        ax.plot(self.rates, self.distortions, "o-", color=PALETTE["model"], ms=5, lw=1.2)
        for rate, distortion, beta in zip(self.rates, self.distortions, self.betas, strict=True):
            place = {"xytext": (5, 4), "textcoords": "offset points"}
            ax.annotate(f"β = {beta:.3g}", (rate, distortion), fontsize=7, **place)
        ax.margins(0.09, 0.22)
        ax.set_xlabel("rate (nats)", fontsize=8, labelpad=1)
        ax.set_ylabel("distortion (nats)", fontsize=8)
        ax.tick_params(labelsize=7, length=2)
        pale_frame(ax)


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    pale_frame(ax)


# -------------------------------------------------------------------------------------- arguments


def _planes(name: str, values: object, models: int, *, points: int | None = None) -> np.ndarray:
    """``values`` as float32 ``[M, N, 2]``."""
    wanted = f"[{models}, {points or 'N'}, 2]"
    array = to_array(name, values, wanted, 3)
    if len(array) != models or array.shape[2] != 2 or points not in (None, array.shape[1]):
        raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
    return array


def _sets(
    name: str, values: object, models: int, size: Sequence[int], count: int | None = None
) -> np.ndarray:
    """``values`` as uint8 ``[M, count, H, W]``: a set of images for each model."""
    rows, columns = size
    many = count or "S"
    wanted = f"[{models}, {many}, {rows}, {columns}] or [{models}, {many}, 1, {rows}, {columns}]"
    array = to_array(name, values, wanted, 4, 5)
    other = array.ndim == 5 and array.shape[2] != 1
    if len(array) != models or count not in (None, array.shape[1]) or other:
        raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
    flat = to_images(name, array.reshape(-1, *array.shape[-2:]), size=size)
    return to_bytes(flat).reshape(models, -1, rows, columns)


def _costs(name: str, values: object, models: int) -> np.ndarray:
    """``values`` as float32 ``[M]``."""
    array = to_array(name, values, f"[{models}]", 1)
    if len(array) != models:
        raise ValueError(f"{name} must have shape [{models}], got {list(array.shape)}")
    return array


def _half_width(means: np.ndarray, stds: np.ndarray) -> float:
    """A plane that holds nearly all means of a model, their ellipses, and the prior's circle."""
    reach = np.quantile(np.abs(means).max(1), 0.99) + np.quantile(stds, 0.5)
    return max(1.5, math.ceil(2 * reach) / 2)
