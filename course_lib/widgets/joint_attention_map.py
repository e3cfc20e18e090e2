"""``JointAttentionMap``: what a patch or a word takes of all patches and words."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int
from course_lib.widgets.base import (
    LINE,
    PlayerWidget,
    drawn,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["JointAttentionMap"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_WORDS = 24


class JointAttentionMap(PlayerWidget):
    """A picture in patches, the words of its prompt, and who takes how much of whom.

    In joint attention a patch looks at patches and words, and so does a word. The reader points at
    one, or goes to it by keys: a map over the picture shows what it takes of each patch, a bar
    under every word what it takes of that. Two bars say what patches and words take of each other
    on average: the four quadrants of the matrix. The steps, blocks of a network or times of a
    sampler, are played.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 4.

    Args:
        image: ``[3, H, W]`` or ``[1, H, W]`` in [0, 1], or one for each step, ``[T, 3, H, W]`` or
            ``[T, 1, H, W]``.
        words: L strings, at most 24; a word may occur twice.
        weights: ``[T, N + L, N + L]``: at each step what the token of a row takes of that of a
            column, patches first, row by row, then words. Each row sums to 1. Weights of several
            heads are averaged by the caller.
        grid: (h, w), the rows and columns of patches, N = h w.
        labels: T names of the steps, such as "block 1".
        token: the one that is chosen at the start, 0 ... N + L − 1; by default the first word.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described, or images and weights need more
    than 300 KB at one byte a number of an image and two a weight.

    ``widget.token`` (an index), ``widget.step`` (a float) and ``widget.playing`` can be read and
    set. ``widget.takes`` is what the token takes of patches and of words, ``widget.quadrants`` what
    patches and words take of each other on average.

    Example:
        >>> weights = np.full((2, 6, 6), 1 / 6)
        >>> seen = JointAttentionMap(np.zeros((3, 8, 8)), ["a", "3"], weights, (2, 2))
        >>> of_patches, of_words = seen.takes
        >>> of_patches.shape, of_words.shape, seen.quadrants.round(2).tolist()
        ((2, 2), (2,), [[0.67, 0.33], [0.67, 0.33]])
    """

    module = "joint_attention_map.js"

    # What is pointed at must not be pulled back by an older echo from the kernel.
    token = traitlets.Int(0).tag(sync=True, echo_update=False)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    grid = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(
        self,
        image: Array,
        words: Sequence[str],
        weights: Array,
        grid: tuple[int, int],
        *,
        labels: Sequence[str] | None = None,
        token: int | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        listed = isinstance(words, list | tuple) and all(isinstance(one, str) for one in words)
        if not listed or not 1 <= len(words) <= MOST_WORDS:
            raise ValueError(f"words must be 1 to {MOST_WORDS} strings, got {words!r}")
        if not isinstance(grid, list | tuple) or len(grid) != 2:
            raise ValueError(f"grid must be (rows, columns) of patches, got {grid!r}")
        for i, size in enumerate(grid):
            check_int(f"grid[{i}]", size, minimum=1)
        patches = grid[0] * grid[1]
        tokens = patches + len(words)
        matrices = _weights(weights, tokens)
        pictures = _pictures(image, len(matrices))
        super().__init__(
            {"images": to_bytes(pictures), "weights": matrices},
            n_steps=len(matrices),
            labels=labels,
            hint="send fewer steps, words or patches",
            title=title,
            alt=alt
            or f"A picture of {grid[0]} by {grid[1]} patches and the words \u201c{' '.join(words)}"
            "\u201d, and what one of them takes of all others.",
            words=list(words),
            grid=list(grid),
            token=patches if token is None else token,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("token")
    def _token_exists(self, proposal: dict) -> int:
        last = self.grid[0] * self.grid[1] + len(self.words) - 1
        check_int("token", proposal["value"], minimum=0, maximum=last)
        return proposal["value"]

    @property
    def takes(self) -> tuple[np.ndarray, np.ndarray]:
        """What the token takes at this step of patches ``[h, w]`` and of words ``[L]``."""
        row = self.state_at("weights", self.step)[self.token]
        patches = len(row) - len(self.words)
        return row[:patches].reshape(self.grid), row[patches:]

    @property
    def quadrants(self) -> np.ndarray:
        """What a patch takes of patches and of words at this step, and a word: ``[2, 2]``, means
        over all patches and over all words. Each row sums to 1.
        """
        return self._quadrants(self.step)

    def _quadrants(self, step: float) -> np.ndarray:
        weights = self.state_at("weights", step)
        patches = len(weights) - len(self.words)
        of = np.stack((weights[:, :patches].sum(1), weights[:, patches:].sum(1)), 1)
        return np.stack((of[:patches].mean(0), of[patches:].mean(0)))

    def name_of(self, token: int) -> str:
        """A word in quotation marks, or the row and column of a patch."""
        patches = self.grid[0] * self.grid[1]
        if token >= patches:
            return f"\u201c{self.words[token - patches]}\u201d"
        row, column = divmod(token, self.grid[1])
        return f"the patch in row {row + 1}, column {column + 1}"

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The picture, what the token takes of patches and words, and the four quadrants."""
        figure = Figure(figsize=(8.2, 2.5))
        ratios = [1, 1, 1.1, 1.1]
        axes = figure.subplots(1, 4, width_ratios=ratios)
        images = self.array("images") / 255
        picture = images[min(round(self.step), len(images) - 1)]
        axes[0].imshow(drawn(picture), cmap=colour_map("grey"), vmin=0, vmax=1)
        axes[0].set_title("the picture", fontsize=7)
        of_patches, of_words = self.takes
        axes[1].imshow(of_patches, cmap=colour_map("viridis"), vmin=0, vmax=of_patches.max() or 1)
        axes[1].set_title(f"{self.name_of(self.token)} takes\nof patches", fontsize=7)
        places = np.arange(len(of_words))
        axes[2].barh(places, of_words, color=PALETTE["model"])
        axes[2].set_yticks(places, self.words, fontsize=6)
        axes[2].invert_yaxis()
        axes[2].set_title("of words", fontsize=7)
        quadrants = self.quadrants
        for i, row in enumerate(quadrants):
            axes[3].barh(i, row[0], color=PALETTE["data"])
            axes[3].barh(i, row[1], left=row[0], color=PALETTE["model"])
        axes[3].set_yticks([0, 1], ["a patch", "a word"], fontsize=6)
        axes[3].invert_yaxis()
        axes[3].set_title("takes of patches (blue)\nand of words (orange)", fontsize=7)
        for ax in axes[:2]:
            ax.set(xticks=[], yticks=[])
        for ax in axes:
            ax.tick_params(labelsize=6, length=2, color=LINE)
            pale_frame(ax)
        figure.tight_layout(pad=0.5)
        return png(figure, colours=256)


# -------------------------------------------------------------------------------------- arguments


def _weights(weights: Array, tokens: int) -> np.ndarray:
    wanted = f"[T, {tokens}, {tokens}]"
    matrices = to_array("weights", weights, wanted, 3)
    if matrices.shape[1:] != (tokens, tokens):
        raise ValueError(f"weights must have shape {wanted}, got {list(matrices.shape)}")
    if matrices.min() < 0:
        raise ValueError(f"weights must be at least 0, got {matrices.min():.3g}")
    sums = matrices.sum(-1)
    far = sums.flat[np.abs(sums - 1).argmax()]
    if abs(far - 1) > 0.02:
        raise ValueError(f"each row of weights must sum to 1, got {far:.3g}")
    return matrices


def _pictures(image: Array, steps: int) -> np.ndarray:
    wanted = f"[3 or 1, H, W] or [{steps}, 3 or 1, H, W]"
    array = to_array("image", image, wanted, 3, 4)
    array = array[None] if array.ndim == 3 else array
    if array.shape[1] not in (1, 3) or len(array) not in (1, steps):
        raise ValueError(f"image must have shape {wanted}, got {list(np.shape(image))}")
    return to_images("image", array, count="T", colour=True)
