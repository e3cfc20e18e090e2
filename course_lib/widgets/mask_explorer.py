"""``MaskExplorer``: follow the paths through MADE's masks, and change the order by hand."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.checks import check_int, check_permutation
from course_lib.widgets.base import LINE, CourseWidget, check_labels, pale_frame, png
from course_lib.widgets.palette import PALETTE

__all__ = ["MaskExplorer"]

# More than this cannot be read in a notebook's column.
MOST_INPUTS, MOST_UNITS, MOST_LAYERS = 16, 32, 5

MIDDLE = {"ha": "center", "va": "center_baseline"}

Degrees = Sequence[Sequence[int] | np.ndarray | torch.Tensor]


class MaskExplorer(CourseWidget):
    """MADE's masks as a graph: which input reaches which output, and by which paths.

    Every unit has a degree. An input's is its place in the order, 0 ... n − 1, and so is that of
    its output. A hidden unit is connected to units below it of at most its own degree, an output to
    hidden units of a degree strictly below its own. The browser is given the degrees, makes the
    masks from them and multiplies these: the product counts the paths from each input to each
    output, and shows why output i depends on nothing but inputs before i.

    Reference:
        Germain, Gregor, Murray, Larochelle 2015, https://arxiv.org/abs/1502.03509, section 3.

    Args:
        degrees: one mask set, which is a list of 1-D arrays of integers: the degrees of the n ≤ 16
            inputs (0 ... n − 1, each once) and of 1 to 5 hidden layers (at most 32 units, values in
            0 ... n − 2); or a list of mask sets with the same widths.
        input_names: n short names; by default x1 ... xn.
        title: shown above the graph.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where ``degrees`` or ``input_names`` are not as described.

    ``widget.order`` (``order[k]`` is the input that is visited as the k-th), ``widget.mask_set``
    (choosing one also takes over its order), ``widget.strict`` (False lets outputs see units of
    their own degree, too, which is wrong) and ``widget.selected`` (``[layer, unit]``, layer 0 being
    the inputs, or empty) can be read and set. ``widget.masks`` and ``widget.dependencies`` are
    those of the present state.
    """

    module = "mask_explorer.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    order = traitlets.List(traitlets.Int()).tag(sync=True, echo_update=False)
    mask_set = traitlets.Int(0).tag(sync=True, echo_update=False)
    strict = traitlets.Bool(True).tag(sync=True, echo_update=False)
    selected = traitlets.List(traitlets.Int()).tag(sync=True, echo_update=False)
    orders = traitlets.List().tag(sync=True)  # of each mask set, as given
    hidden = traitlets.List().tag(sync=True)  # [mask set][layer][unit], degrees
    input_names = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self,
        degrees: Degrees | Sequence[Degrees],
        *,
        input_names: Sequence[str] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        sets = _mask_sets(degrees)
        n = len(sets[0][0])
        orders = [np.argsort(layers[0]).tolist() for layers in sets]
        names = check_labels("input_names", input_names, n)
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt or f"A masked network from {n} inputs to {n} outputs, as a graph.",
            orders=orders,
            hidden=[layers[1:] for layers in sets],
            input_names=names or [f"x{i + 1}" for i in range(n)],
            order=orders[0],
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("order")
    def _order_is_a_permutation(self, proposal: dict) -> list[int]:
        check_permutation("order", proposal["value"], len(self.orders[0]))
        return proposal["value"]

    @traitlets.validate("mask_set")
    def _mask_set_in_range(self, proposal: dict) -> int:
        check_int("mask_set", proposal["value"], minimum=0, maximum=len(self.orders) - 1)
        return proposal["value"]

    @traitlets.validate("selected")
    def _selected_exists(self, proposal: dict) -> list[int]:
        selected, widths = proposal["value"], self.widths
        if selected and not (
            len(selected) == 2
            and 0 <= selected[0] < len(widths)
            and 0 <= selected[1] < widths[selected[0]]
        ):
            raise ValueError(
                f"selected must be empty or [layer, unit] within the layers' widths {widths}, "
                f"got {selected!r}"
            )
        return selected

    @traitlets.observe("mask_set")
    def _take_over_its_order(self, change: dict) -> None:
        self.order = list(self.orders[change["new"]])

    def set_state(self, sync_data: dict) -> None:
        """Take what the browser says; where it names an order, too, that is the one to keep."""
        super().set_state(sync_data)
        if "order" in sync_data:
            self.order = sync_data["order"]

    # --------------------------------------------------------------------------------- what follows

    @property
    def widths(self) -> list[int]:
        """Number of units of every layer, inputs and outputs included."""
        n = len(self.orders[0])
        return [n, *map(len, self.hidden[self.mask_set]), n]

    @property
    def masks(self) -> list[np.ndarray]:
        """The bool mask ``[n_above, n_below]`` of each layer in the present state, output last."""
        places = np.argsort(self.order)
        layers = [places, *map(np.asarray, self.hidden[self.mask_set])]
        masks = [np.greater_equal.outer(above, below) for below, above in pairwise(layers)]
        outer = np.greater if self.strict else np.greater_equal
        return [*masks, outer.outer(places, layers[-1])]

    @property
    def paths(self) -> np.ndarray:
        """How many paths lead to output i from input j, int64 ``[n, n]``: the masks' product."""
        product = np.eye(len(self.order), dtype=np.int64)
        for mask in self.masks:
            product = mask.astype(np.int64) @ product
        return product

    @property
    def dependencies(self) -> np.ndarray:
        """Whether output i depends on input j, bool ``[n, n]``, both in x's own positions."""
        return self.paths > 0

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The graph with the paths of one output, and the matrix in the order's arrangement."""
        figure = Figure(figsize=(7.6, 3.4))
        graph, matrix = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.7, 1]})
        figure.subplots_adjust(left=0.08, right=0.99, bottom=0.08, top=0.88, wspace=0.12)
        self._draw_graph(graph)
        self._draw_matrix(matrix)
        return png(figure)

    def _draw_graph(self, ax: Axes) -> None:
        widths, masks = self.widths, self.masks
        last = len(widths) - 1
        # Without a choice of the reader's, an output halfway through the order shows it best.
        layer, unit = self.selected or [last, self.order[len(self.order) // 2]]
        lit = [np.zeros(width, dtype=bool) for width in widths]
        lit[layer][unit] = True
        for k in range(layer, 0, -1):
            lit[k - 1] = masks[k - 1][lit[k]].any(axis=0)
        if layer == 0:
            for k in range(last):
                lit[k + 1] = masks[k][:, lit[k]].any(axis=1)
        at = [(np.arange(width) + 0.5) / width for width in widths]
        for k, mask in enumerate(masks):
            for above, below in np.argwhere(mask):
                on = lit[k + 1][above] and lit[k][below]
                ax.plot(
                    [at[k][below], at[k + 1][above]],
                    [k, k + 1],
                    color=PALETTE["model"] if on else LINE,
                    lw=1.2 if on else 0.5,
                    zorder=2 if on else 1,
                )
        places = np.argsort(self.order)
        numbers = [places, *self.hidden[self.mask_set], places]
        for k, width in enumerate(widths):
            role = "data" if k == 0 else "model" if k == last else "latent"
            for i in range(width):
                colour = PALETTE[role] if lit[k][i] else "#b4bac1"
                ax.plot(at[k][i], k, "o", ms=11, mfc="white", mec=colour, mew=1.6, zorder=3)
                ax.text(at[k][i], k - 0.01, numbers[k][i], fontsize=6, zorder=4, **MIDDLE)
            if k in (0, last):
                for i, name in enumerate(self.input_names):
                    y = -0.32 if k == 0 else k + 0.3
                    ax.text(at[k][i], y, name, fontsize=7, **MIDDLE)
            label = "inputs" if k == 0 else "outputs" if k == last else f"hidden {k}"
            ax.text(-0.02, k, label, fontsize=7, ha="right", va="center", color="#5b626b")
        ax.set(xlim=(0, 1), ylim=(-0.5, last + 0.5))
        ax.axis("off")

    def _draw_matrix(self, ax: Axes) -> None:
        n = len(self.order)
        seen = self.dependencies[np.ix_(self.order, self.order)]
        for i, j in np.argwhere(seen):
            colour = PALETTE["error" if j >= i else "data"]
            ax.add_patch(Rectangle((j, i), 1, 1, color=colour, lw=0))
        names = [self.input_names[i] for i in self.order]
        ax.set(xlim=(0, n), ylim=(n, 0), aspect="equal")
        ax.set_xticks(np.arange(n) + 0.5, names, fontsize=7)
        ax.set_yticks(np.arange(n) + 0.5, names, fontsize=7)
        ax.tick_params(length=0, labeltop=True, labelbottom=False)
        for k in range(n + 1):
            ax.plot([0, n], [k, k], color=LINE, lw=0.5)
            ax.plot([k, k], [0, n], color=LINE, lw=0.5)
        pale_frame(ax)
        ax.set_xlabel("output (row) depends on input (column)", fontsize=7)


# -------------------------------------------------------------------------------------- arguments


def _mask_sets(degrees: object) -> list[list[list[int]]]:
    """``degrees`` as ``[mask set][layer][unit]``; one mask set becomes a list of one."""
    wanted = "degrees must be a list of 1-D integer arrays, or a list of such lists"
    try:
        single = np.ndim(degrees[0][0]) == 0
        sets = [degrees] if single else list(degrees)
        layers = [list(layers) for layers in sets]
    except (TypeError, ValueError, IndexError, KeyError):
        raise ValueError(f"{wanted}, got {degrees!r}") from None
    found = []
    for k, arrays in enumerate(layers):
        name = "degrees" if single else f"degrees[{k}]"
        found.append(_mask_set(name, arrays))
        widths = [[len(layer) for layer in layers] for layers in (found[0], found[k])]
        if widths[0] != widths[1]:
            raise ValueError(
                f"{name} must have the same widths as degrees[0], {widths[0]}, got {widths[1]}"
            )
    return found


def _mask_set(name: str, arrays: list) -> list[list[int]]:
    if not 2 <= len(arrays) <= MOST_LAYERS + 1:
        raise ValueError(
            f"{name} must hold the degrees of the inputs and of 1 to {MOST_LAYERS} hidden layers, "
            f"got {len(arrays)} arrays"
        )
    layers = [_integers(f"{name}[{k}]", array) for k, array in enumerate(arrays)]
    n = len(layers[0])
    if n > MOST_INPUTS:
        raise ValueError(f"{name}[0] must hold at most {MOST_INPUTS} inputs, got {n}")
    check_permutation(f"{name}[0]", layers[0], n)
    highest = max(n - 2, 0)
    for k, layer in enumerate(layers[1:], start=1):
        if len(layer) > MOST_UNITS:
            raise ValueError(f"{name}[{k}] must hold at most {MOST_UNITS} units, got {len(layer)}")
        for i, degree in enumerate(layer):
            check_int(f"{name}[{k}][{i}]", degree, minimum=0, maximum=highest)
    return layers


def _integers(name: str, array: object) -> list[int]:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    try:
        array = np.asarray(array)
    except ValueError:
        raise ValueError(f"{name} must be a 1-D array of integers, got ragged rows") from None
    if array.dtype.kind not in "iu" or array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} must be a 1-D array of integers, got {array.dtype} {list(array.shape)}"
        )
    return array.tolist()
