"""``PromptBox``: build a sentence from words to choose, and see what a model draws for it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number
from course_lib.widgets.base import (
    MAX_BYTES,
    drawn,
    mosaic,
    pale_frame,
    png,
    to_array,
    to_bytes,
)
from course_lib.widgets.drawing import DrawingWidget, Tell, text_of

__all__ = ["PromptBox"]

Draw = Callable[[list[str], float], np.ndarray | torch.Tensor | Iterator]

MOST_SLOTS, MOST_WORDS, MOST_SCALES, MOST_IMAGES = 10, 20, 6, 6


class PromptBox(DrawingWidget):
    """A sentence with slots to fill in, and the images that a model draws for it.

    Each slot is a choice of words; what is chosen, one after the other, is the sentence. Sentences
    of some of the words are drawn before, at every scale of guidance, and shown at once. For all
    others the browser asks the kernel, which calls ``draw``; what is asked and was changed before
    its turn is dropped. Where ``draw`` yields its steps, they are shown as they come.

    Stored without a kernel, the widget answers for the sentences that were drawn before; words that
    lead to others are grey, under a line that says why.

    Args:
        slots: 1 to 10 names of slots and their words, 1 to 20 each, in the order of the sentence:
            ``{"stroke": ["a thin", "a bold"], "colour": ["red", "blue"], ...}``.
        draw: called as ``draw(prompts, scale)`` with a list of B sentences and a number. Returns
            images ``[B, 3, H, W]`` (or ``[B, 1, H, W]``), or is a generator that yields such, the
            steps on the way to the last one. Values outside [0, 1] are cut off. It is called
            with one sentence, n times, when a reader asks, and should then be done within a second;
            and with all that are stored, each n times in a row, once for each scale. With the same
            noise for the i-th of each n, only the words make a difference.
        stored: names of slots, and those of their words that are drawn before; of a slot that is
            missing, only the word at the start.
        ends: words that end the sentence: what comes after them is left out.
        start: the word of each slot at the start; by default the first of those stored, or of all.
        scales: 1 to 6 different scales of guidance.
        scale: at the start; by default the middle one.
        n: how many images of a sentence, 1 to 6.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument, or what ``draw`` returns, is not as described, or the
    stored images need more than 300 KB at a byte a number.

    ``widget.words`` (a list, one a slot) and ``widget.scale`` can be read and set;
    ``widget.prompt`` is the sentence, ``widget.images`` what is shown for it, ``widget.prompts``
    the sentences that are stored. ``widget.status`` is ``"idle"``, ``"waiting"``, ``"done"`` or
    ``"error"`` (then ``widget.error`` says why). ``widget.request()`` calls ``draw`` from Python.

    Example:
        >>> def draw(prompts, scale):
        ...     return np.stack([np.full((3, 8, 8), len(p) / 20) for p in prompts])
        >>> box = PromptBox(
        ...     {"colour": ["red", "blue"], "digit": ["3", "7"], "where": ["here", "above"],
        ...      "other": ["a 1", "a 2"]},
        ...     draw, stored={"colour": ["red", "blue"]}, ends=["here"], scales=[1, 3],
        ... )
        >>> box.prompt, box.prompts
        ('red 3 here', ['red 3 here', 'blue 3 here'])
        >>> box.words = ["blue", "7", "above", "a 2"]
        >>> box.prompt, box.images
        ('blue 7 above a 2', None)
        >>> box.request()
        >>> box.images.shape
        (1, 3, 8, 8)
    """

    module = "prompt_box.js"

    # What is chosen must not be pulled back by an older echo from the kernel.
    words = traitlets.List(traitlets.Unicode()).tag(sync=True, echo_update=False)
    scale = traitlets.Float(1.0).tag(sync=True, echo_update=False)
    slots = traitlets.List(traitlets.Unicode()).tag(sync=True)  # names
    choices = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)  # of each slot
    ends = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scales = traitlets.List(traitlets.Float()).tag(sync=True)
    prompts = traitlets.List(traitlets.Unicode()).tag(sync=True)  # that are stored

    def __init__(
        self,
        slots: Mapping[str, Sequence[str]],
        draw: Draw,
        *,
        stored: Mapping[str, Sequence[str]] | None = None,
        ends: Sequence[str] = (),
        start: Mapping[str, str] | None = None,
        scales: Sequence[float] = (1.0, 3.0, 6.0),
        scale: float | None = None,
        n: int = 1,
        title: str = "",
        alt: str = "",
    ) -> None:
        choices = _slots(slots)
        if not callable(draw):
            raise ValueError(f"draw must be callable as draw(prompts, scale), got {draw!r}")
        drawn_before = _some_of("stored", stored, choices)
        first = {name: drawn_before.get(name, words)[0] for name, words in choices.items()}
        if start is not None:
            named = isinstance(start, Mapping)
            begin = {name: [word] for name, word in start.items()} if named else start
            first |= {name: one[0] for name, one in _some_of("start", begin, choices).items()}
        every = {word for words in choices.values() for word in words}
        if isinstance(ends, str) or not set(ends) <= every:
            raise ValueError(f"ends must be a list of words of the slots, got {ends!r}")
        scales = _scales(scales)
        scale = scales[len(scales) // 2] if scale is None else scale
        check_int("n", n, minimum=1, maximum=MOST_IMAGES)
        ends = list(ends)
        grid = [drawn_before.get(name, [word]) for name, word in first.items()]
        if (size := int(np.prod([len(words) for words in grid]))) > 1000:
            raise ValueError(f"stored must make at most 1000 sentences, got {size}")
        # A sentence that ends early is the same for all words that come after it.
        prompts = list(dict.fromkeys(_sentence(words, ends) for words in itertools.product(*grid)))
        self._function, self._n = draw, n
        self._size: tuple[int, ...] | None = None
        images = [self._draw(prompts, each)[0] for each in scales]
        super().__init__(
            {"images": np.stack(images).reshape(len(scales), len(prompts), n, *self._size)},
            hint="store fewer sentences, scales or images",
            title=title,
            alt=alt or "A sentence to put together, and the images that a model draws for it.",
            slots=list(choices),
            choices=list(choices.values()),
            ends=ends,
            scales=scales,
            scale=float(scale),
            prompts=prompts,
            words=list(first.values()),
        )
        self.question_changed()
        self.on_msg(self.receive)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("words")
    def _words_exist(self, proposal: dict) -> list[str]:
        words = proposal["value"]
        if len(words) != len(self.slots):
            raise ValueError(f"words must be {len(self.slots)} words, one a slot, got {words!r}")
        for name, word, choices in zip(self.slots, words, self.choices, strict=True):
            if word not in choices:
                raise ValueError(f"the word of {name!r} must be one of {choices}, got {word!r}")
        return words

    @traitlets.validate("scale")
    def _scale_exists(self, proposal: dict) -> float:
        if proposal["value"] not in self.scales:
            raise ValueError(f"scale must be one of {self.scales}, got {proposal['value']!r}")
        return proposal["value"]

    @property
    def prompt(self) -> str:
        """The sentence."""
        return _sentence(self.words, self.ends)

    @property
    def images(self) -> np.ndarray | None:
        """The images of the sentence as the browser shows them, ``[n, 3, H, W]`` (or ``[n, H, W]``)
        in [0, 1]; None where they are not known.
        """
        if (pixels := self.answered_pixels()) is not None:
            return pixels.reshape(self._n, *self._size) / 255
        return self._stored(self.scale)

    def _stored(self, scale: float) -> np.ndarray | None:
        if self.prompt not in self.prompts:
            return None
        return self.array("images")[self.scales.index(scale), self.prompts.index(self.prompt)] / 255

    @property
    def known(self) -> bool:
        """Whether images of the sentence are there."""
        return self.images is not None

    @property
    def question(self) -> dict:
        """The sentence and the scale."""
        return {"prompt": self.prompt, "scale": self.scale}

    @traitlets.observe("words", "scale")
    def _changed(self, change: dict) -> None:
        if "images" in self.arrays:  # else it is being made
            self.question_changed()

    # -------------------------------------------------------------------------------------- drawing

    def drawn_for(self, question: dict, tell: Tell) -> dict:
        """The last step's pixels, and how many steps led to it."""
        check_number("scale", question["scale"], minimum=0)
        images, steps = self._draw([question["prompt"]], question["scale"], tell)
        return {"pixels": text_of(images), "steps": steps}

    def _draw(
        self,
        prompts: Sequence[str],
        scale: float,
        tell: Tell = lambda steps, images: None,
    ) -> tuple[np.ndarray, int]:
        """What ``draw`` makes of sentences, checked: uint8 ``[B, 3, H, W]`` or ``[B, H, W]``, and
        how many steps led to it. Where it yields them, ``tell`` hears of each.
        """
        batch = [prompt for prompt in prompts for _ in range(self._n)]
        answer = self._function(list(batch), scale)
        one_by_one = isinstance(answer, Iterator)
        images, steps = None, 0
        for state in answer if one_by_one else [answer]:
            images, steps = self._checked(state, len(batch)), steps + 1
            if one_by_one:
                tell(steps, images)
        if images is None:
            raise ValueError("what draw yields must be at least one step, got none")
        return images, steps

    def _checked(self, state: object, count: int) -> np.ndarray:
        name, (rows, columns) = "what draw returns", (self._size or ("H", "W"))[-2:]
        wanted = f"[{count}, 1 or 3, {rows}, {columns}]"
        array = to_array(name, state, wanted, 4)
        if len(array) != count or array.shape[1] not in (1, 3):
            raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
        images = to_bytes(array.clip(0, 1))
        images = images[:, 0] if images.shape[1] == 1 else images
        if self._size not in (None, images.shape[1:]):
            raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
        if images.size > MAX_BYTES:
            raise ValueError(f"{name} may have {MAX_BYTES:,} numbers, got {images.size:,}")
        self._size = images.shape[1:]
        return images

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The sentence and its images at each scale that is known."""
        panels = [(scale, self._stored(scale)) for scale in self.scales]
        panels = [(scale, images) for scale, images in panels if images is not None]
        if not panels and self.images is not None:
            panels = [(self.scale, self.images)]
        panels = panels or [(self.scale, np.zeros((self._n, *self._size)))]
        across = min(self._n, 2)
        figure = Figure(figsize=(max(1.6 * len(panels), 4.2), 2.0))
        figure.suptitle(f"\u201c{self.prompt}\u201d", fontsize=9, y=0.98)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (scale, images) in zip(axes, panels, strict=True):
            ax.imshow(drawn(mosaic(images, across)), cmap="gray", vmin=0, vmax=1)
            ax.set_title(f"guidance scale {scale:g}", fontsize=8)
            ax.set(xticks=[], yticks=[])
            pale_frame(ax)
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.76, wspace=0.06)
        return png(figure, colours=256)


def _sentence(words: Sequence[str], ends: Sequence[str]) -> str:
    """The words up to the first that ends the sentence; prompt_box.js has the same."""
    last = next((k for k, word in enumerate(words) if word in ends), len(words) - 1)
    return " ".join(word for word in words[: last + 1] if word)


# -------------------------------------------------------------------------------------- arguments


def _slots(slots: object) -> dict[str, list[str]]:
    wanted = f"slots must be 1 to {MOST_SLOTS} names with 1 to {MOST_WORDS} different words each"
    if not isinstance(slots, Mapping) or not 1 <= len(slots) <= MOST_SLOTS:
        raise ValueError(f"{wanted}, got {slots!r}")
    for name, words in slots.items():
        listed = isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)
        count = len(words) if listed else 0
        if not isinstance(name, str) or not 1 <= count <= MOST_WORDS or len(set(words)) < count:
            raise ValueError(f"{wanted}, got {words!r} in {name!r}")
    return {name: list(words) for name, words in slots.items()}


def _some_of(argument: str, given: object, choices: Mapping[str, list[str]]) -> dict:
    """Names of slots and some of their words; None becomes nothing."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{argument} must be names of slots and their words, got {given!r}")
    for name, words in given.items():
        if name not in choices:
            raise ValueError(f"a name in {argument} must be one of {list(choices)}, got {name!r}")
        listed = isinstance(words, list | tuple) and len(words) > 0
        if not listed or not set(words) <= set(choices[name]):
            raise ValueError(f"{argument}[{name!r}] must be among {choices[name]}, got {words!r}")
    return {name: list(dict.fromkeys(words)) for name, words in given.items()}


def _scales(scales: object) -> list[float]:
    wanted = f"scales must be 1 to {MOST_SCALES} different numbers of at least 0"
    listed = isinstance(scales, list | tuple) and 1 <= len(scales) <= MOST_SCALES
    if not listed or len(set(scales)) < len(scales):
        raise ValueError(f"{wanted}, got {scales!r}")
    for i, scale in enumerate(scales):
        check_number(f"scales[{i}]", scale, minimum=0)
    return [float(scale) for scale in scales]
