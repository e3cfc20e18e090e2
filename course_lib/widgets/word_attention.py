"""``WordAttention``: which places of an image look at which word, step by step."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_bool, check_int
from course_lib.widgets.base import (
    PlayerWidget,
    drawn,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.palette import colour_map

__all__ = ["WordAttention"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_WORDS = 24
STILL_WORDS = 6
INK = 0.35  # of the brightest pixel: what is brighter is drawn, and outlined on the map


class WordAttention(PlayerWidget):
    """A picture that comes out of noise, and for each word of its prompt a map of attention.

    The reader points at a word, or goes to it by keys: beside the picture of this step stands how
    much of its attention each place gives to that word, on a colour map whose ends are written.
    The map has the outline of what is bright in the last picture, so that one sees which places
    these are. The steps are played.

    Args:
        images: ``[T, 3, H, W]``, ``[T, 1, H, W]`` or ``[T, H, W]`` in [0, 1], the picture at each
            of T steps, such as the model's guess of the end.
        words: L strings, at most 24; a word may occur twice.
        weights: ``[T, L, h, w]``, at least 0: of each step, word and place the share of attention.
            Weights of several heads or layers are averaged by the caller.
        labels: T names of the steps.
        word: the index of the word at the start.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described, or images and weights need more
    than 300 KB at one byte a number of an image and two a weight.

    ``widget.word`` (an index), ``widget.step`` (a float), ``widget.playing`` and ``widget.alike``
    can be read and set. With ``alike`` one scale holds for all words, from 0 to the largest weight;
    without, each word has its own. ``widget.attention`` is the map that is shown, ``widget.most``
    the upper end of its scale.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> weights = rng.dirichlet([1, 1, 1], size=(5, 4, 4)).transpose(0, 3, 1, 2)
        >>> seen = WordAttention(rng.random((5, 3, 8, 8)), ["a", "red", "3"], weights, word=1)
        >>> seen.attention.shape, bool(seen.attention.max() <= seen.most)
        ((4, 4), True)
    """

    module = "word_attention.js"

    # What is pointed at must not be pulled back by an older echo from the kernel.
    word = traitlets.Int(0).tag(sync=True, echo_update=False)
    alike = traitlets.Bool(False).tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    ink = traitlets.Float(INK, read_only=True).tag(sync=True)

    def __init__(
        self,
        images: Array,
        words: Sequence[str],
        weights: Array,
        *,
        labels: Sequence[str] | None = None,
        word: int = 0,
        title: str = "",
        alt: str = "",
    ) -> None:
        pictures = to_images("images", images, count="T", colour=True)
        listed = isinstance(words, list | tuple) and all(isinstance(one, str) for one in words)
        if not listed or not 1 <= len(words) <= MOST_WORDS:
            raise ValueError(f"words must be 1 to {MOST_WORDS} strings, got {words!r}")
        wanted = f"[{len(pictures)}, {len(words)}, h, w]"
        maps = to_array("weights", weights, wanted, 4)
        if maps.shape[:2] != (len(pictures), len(words)):
            raise ValueError(f"weights must have shape {wanted}, got {list(maps.shape)}")
        if maps.min() < 0:
            raise ValueError(f"weights must be at least 0, got {maps.min():.3g}")
        super().__init__(
            {"images": to_bytes(pictures), "weights": maps},
            n_steps=len(pictures),
            labels=labels,
            hint="send fewer steps, words or places",
            title=title,
            alt=alt
            or f"A picture at {len(pictures)} steps, and where the model attends to each of the "
            f"{len(words)} words of \u201c{' '.join(words)}\u201d.",
            words=list(words),
            word=word,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("word")
    def _word_exists(self, proposal: dict) -> int:
        check_int("word", proposal["value"], minimum=0, maximum=len(self.words) - 1)
        return proposal["value"]

    @traitlets.validate("alike")
    def _alike_fair(self, proposal: dict) -> bool:
        check_bool("alike", proposal["value"])
        return proposal["value"]

    @property
    def attention(self) -> np.ndarray:
        """The map of the word at this step, float64 ``[h, w]``, quantized; between two steps, their
        mixture.
        """
        return self.state_at("weights", self.step)[self.word]

    @property
    def most(self) -> float:
        """The upper end of the colour map: the largest weight of the word, or of all words."""
        weights = self.array("weights")
        return float((weights if self.alike else weights[:, self.word]).max()) or 1.0

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The last picture, and the last step's maps of the words that differ most from place to
        place.
        """
        picture, maps = self.array("images")[-1] / 255, self.array("weights")[-1]
        telling = sorted(np.argsort(maps.std((1, 2)))[::-1][:STILL_WORDS])
        most = float(maps[telling].max()) or 1.0
        figure = Figure(figsize=(1.25 * (1 + len(telling)), 1.75))
        axes = figure.subplots(1, 1 + len(telling))
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.14, top=0.86, wspace=0.06)
        axes[0].imshow(drawn(picture), cmap=colour_map("grey"), vmin=0, vmax=1)
        axes[0].set_title("the picture", fontsize=8)
        rows, columns = picture.shape[-2:]
        bright = picture.reshape(-1, rows, columns).max(0)
        for ax, k in zip(axes[1:], telling, strict=True):
            places = (-0.5, columns - 0.5, rows - 0.5, -0.5)
            ax.imshow(maps[k], cmap=colour_map("viridis"), vmin=0, vmax=most, extent=places)
            level = INK * bright.max()
            if bright.min() < level and min(rows, columns) > 1:
                ax.contour(bright, [level], colors="white", linewidths=0.7)
            ax.set_title(self.words[k], fontsize=8)
        for ax in axes:
            ax.set(xticks=[], yticks=[])
            pale_frame(ax)
        name = f"attention at the last step, from 0 (dark) to {most:.2g} (bright)"
        figure.text(0.99, 0.03, name, fontsize=7, ha="right")
        return png(figure, colours=256)
