"""``ContourPad``: draw a contour, and see the image that a controlled model makes of it."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number
from course_lib.widgets.base import (
    MAX_BYTES,
    check_labels,
    pale_frame,
    png,
    to_array,
    to_bytes,
)
from course_lib.widgets.drawing import DrawingWidget, Tell, text_of
from course_lib.widgets.ink import Mask, mask_text

__all__ = ["ContourPad"]

Array = np.ndarray | torch.Tensor | Sequence
Draw = Callable[[np.ndarray, int, float], Array | Iterator]

MOST_CONTOURS, MOST_PROMPTS, MOST_STRENGTHS = 6, 6, 9
STILL_STRENGTHS = 4


class ContourPad(DrawingWidget):
    """A pad on which the reader draws a contour; a model makes an image of it.

    The reader starts from a given contour or from an empty pad, chooses among prompts and says how
    strongly the contour counts. Given contours at given strengths are answered from images that
    the widget holds. For all others the browser asks the kernel, which calls ``draw``, while the
    reader goes on; what is asked and was changed before its turn is dropped. The steps of an
    answer stand in a row below the image, and appear one by one where ``draw`` yields them.

    Stored without a kernel, the widget answers for the given contours and for what it was stored
    with, and says of all others that they need the kernel.

    Args:
        contours: ``[C, H, W]`` or ``[C, 1, H, W]`` of 0 and 1, at most 6 contours to start from,
            such as the edges of images.
        prompts: P texts, at most 6.
        draw: called as ``draw(contour, prompt, strength)`` with a float32 array ``[H, W]`` of 0 and
            1, the index of the prompt, and a number. Returns images ``[T, 3, H, W]``, the steps on
            the way to the last one; or is a generator that yields each, ``[3, H, W]``, as soon as
            it is there. Values outside [0, 1] are cut off. It should be done within a second.
        strengths: S ≤ 9 numbers that rise from at least 0; the slider goes from the first to the
            last, and without a kernel to no others.
        examples: ``[C, P, S, 3, H, W]`` in [0, 1], the images of the given contours, such as a
            whole batch of samples; or None: ``draw`` is called for each of them.
        strength: at the start; one of ``strengths``.
        title: shown above the pad.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument, or what ``draw`` returns, is not as described, or the
    examples need more than 300 KB at a byte a number.

    ``widget.contour`` (bool, ``[H, W]``), ``widget.prompt`` and ``widget.strength`` can be read and
    set. ``widget.image`` is what is shown for them, ``widget.steps`` all steps of it;
    ``widget.status`` is ``"idle"``, ``"waiting"``, ``"done"`` or ``"error"`` (then
    ``widget.error`` says why). ``widget.request()`` calls ``draw`` from Python.

    Example:
        >>> edges = np.zeros((2, 32, 32))
        >>> edges[:, 8:24, 16] = 1
        >>> def draw(contour, prompt, strength):
        ...     yield np.stack(3 * [contour * strength / 2])
        >>> pad = ContourPad(edges, ["a thin red 1", "a thin blue 1"], draw, strengths=(0, 1, 2))
        >>> pad.image.shape
        (3, 32, 32)
    """

    module = "contour_pad.js"

    contour = Mask()
    # What is dragged must not be pulled back by an older echo from the kernel.
    prompt = traitlets.Int(0).tag(sync=True, echo_update=False)
    strength = traitlets.Float(1.0).tag(sync=True, echo_update=False)
    prompts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    strengths = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        contours: Array,
        prompts: Sequence[str],
        draw: Draw,
        *,
        strengths: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0),
        examples: Array | None = None,
        strength: float = 1.0,
        title: str = "",
        alt: str = "",
    ) -> None:
        masks = _contours(contours)
        if not isinstance(prompts, list | tuple) or not 1 <= len(prompts) <= MOST_PROMPTS:
            raise ValueError(f"prompts must be 1 to {MOST_PROMPTS} strings, got {prompts!r}")
        prompts = check_labels("prompts", prompts, len(prompts))
        if not callable(draw):
            raise ValueError(
                f"draw must be callable as draw(contour, prompt, strength), got {draw!r}"
            )
        strengths = _strengths(strengths)
        check_number("strength", strength, minimum=0)
        if strength not in strengths:
            raise ValueError(f"strength must be one of {strengths}, got {strength!r}")
        self._function, self._size = draw, masks.shape[1:]
        shape = (len(masks), len(prompts), len(strengths), 3, *self._size)
        if np.prod(shape) + masks.size > MAX_BYTES:  # before they are drawn
            hint = "send fewer contours, prompts or strengths"
            raise ValueError(f"examples may need {MAX_BYTES:,} bytes, got {list(shape)}: {hint}")
        if examples is None:
            images = np.stack(
                [
                    self._steps(mask, which, number)[-1]
                    for mask in masks
                    for which in range(len(prompts))
                    for number in strengths
                ]
            ).reshape(shape)
        else:
            images = _examples(examples, shape)
        super().__init__(
            {"contours": masks.astype(np.uint8), "examples": images},
            hint="send fewer contours, prompts or strengths",
            title=title,
            alt=alt or "A pad to draw a contour on, and the image that a model makes of it.",
            contour=masks[0],
            strength=float(strength),
            prompts=prompts,
            strengths=strengths,
        )
        self.on_msg(self.receive)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("prompt")
    def _prompt_exists(self, proposal: dict) -> int:
        check_int("prompt", proposal["value"], minimum=0, maximum=len(self.prompts) - 1)
        return proposal["value"]

    @traitlets.validate("strength")
    def _strength_in_range(self, proposal: dict) -> float:
        self._check_strength(proposal["value"])
        return proposal["value"]

    def _check_strength(self, strength: float) -> None:
        low, high = self.strengths[0], self.strengths[-1]
        check_number("strength", strength, minimum=low)
        if strength > high:
            raise ValueError(f"strength must lie in [{low:g}, {high:g}], got {strength!r}")

    @property
    def steps(self) -> np.ndarray | None:
        """The steps of what is shown, ``[T, 3, H, W]`` in [0, 1]; None where that is not known."""
        if (pixels := self.answered_pixels()) is not None:
            return pixels.reshape(-1, 3, *self._size) / 255
        given = (self.array("contours") == self.contour).all((1, 2))
        if not given.any() or self.strength not in self.strengths:
            return None
        at = (int(given.argmax()), self.prompt, self.strengths.index(self.strength))
        return self.array("examples")[at][None] / 255

    @property
    def image(self) -> np.ndarray | None:
        """What is shown for contour, prompt and strength, ``[3, H, W]``; None where not known."""
        return None if self.steps is None else self.steps[-1]

    @property
    def known(self) -> bool:
        """Whether an image of contour, prompt and strength is there."""
        return self.steps is not None

    @property
    def question(self) -> dict:
        """Contour, prompt and strength."""
        return {
            "contour": mask_text(self.contour),
            "prompt": self.prompt,
            "strength": self.strength,
        }

    @traitlets.observe("contour", "prompt", "strength")
    def _moved(self, change: dict) -> None:
        self.question_changed()

    # -------------------------------------------------------------------------------------- drawing

    def drawn_for(self, question: dict, tell: Tell) -> dict:
        """All steps' pixels."""
        mask = self.traits()["contour"].from_text(question["contour"], self)
        check_int("prompt", question["prompt"], minimum=0, maximum=len(self.prompts) - 1)
        self._check_strength(question["strength"])
        steps = self._steps(mask, question["prompt"], float(question["strength"]), tell)
        return {"pixels": text_of(steps)}

    def _steps(
        self,
        mask: np.ndarray,
        prompt: int,
        strength: float,
        tell: Tell = lambda steps, image: None,
    ) -> np.ndarray:
        """What ``draw`` makes of a contour, checked: uint8 ``[T, 3, H, W]``.

        Where it yields its images, ``tell`` hears of those that are there.
        """
        name, size = "what draw returns", (3, *self._size)
        wanted = f"[T, {', '.join(map(str, size))}]"
        answer = self._function(mask.astype(np.float32), prompt, strength)
        one_by_one = isinstance(answer, Iterator)
        steps = []
        for image in answer if one_by_one else to_array(name, answer, wanted, 4):
            array = to_array(name, image, wanted, 3)
            if array.shape != size:
                got = ", ".join(map(str, array.shape))
                raise ValueError(f"{name} must have shape {wanted}, got [T, {got}]")
            steps.append(to_bytes(array.clip(0, 1)))
            if len(steps) * array.size > MAX_BYTES:
                raise ValueError(f"{name} may have {MAX_BYTES:,} numbers, got more: fewer steps")
            if one_by_one:
                tell(len(steps), steps[-1])
        if not steps:
            raise ValueError(f"{name} must hold at least one image, got none")
        return np.stack(steps)

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The contour, and the image that it gives at some of the strengths."""
        given = (self.array("contours") == self.contour).all((1, 2))
        panels = []
        if given.any():
            images = self.array("examples")[int(given.argmax()), self.prompt] / 255
            last = len(self.strengths) - 1
            places = {round(k) for k in np.linspace(0, last, STILL_STRENGTHS)}
            panels = [(f"strength {self.strengths[k]:g}", images[k]) for k in sorted(places)]
        elif self.image is not None:
            panels = [(f"strength {self.strength:.3g}", self.image)]
        figure = Figure(figsize=(1.5 * (1 + len(panels)), 1.95))
        axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.76, wspace=0.05)
        figure.suptitle(f"\u201c{self.prompts[self.prompt]}\u201d", fontsize=9)
        axes[0].imshow(self.contour, cmap="gray_r", vmin=0, vmax=1)
        axes[0].set_title("contour", fontsize=8)
        for ax, (name, image) in zip(axes[1:], panels, strict=True):
            ax.imshow(image.transpose(1, 2, 0))
            ax.set_title(name, fontsize=8)
        for ax in axes:
            ax.set(xticks=[], yticks=[])
            pale_frame(ax)
        return png(figure)


# -------------------------------------------------------------------------------------- arguments


def _contours(contours: Array) -> np.ndarray:
    """Bool ``[C, H, W]``."""
    wanted = "[C, H, W] or [C, 1, H, W]"
    array = to_array("contours", contours, wanted, 3, 4)
    if array.ndim == 4 and array.shape[1] != 1:
        raise ValueError(f"contours must have shape {wanted}, got {list(array.shape)}")
    if len(array) > MOST_CONTOURS:
        raise ValueError(f"contours must be at most {MOST_CONTOURS}, got {len(array)}")
    if not np.isin(array, (0, 1)).all():
        low, high = array.min(), array.max()
        raise ValueError(f"contours must hold 0 and 1, got values in [{low:.3g}, {high:.3g}]")
    return array.reshape(len(array), *array.shape[-2:]) == 1


def _strengths(strengths: Sequence[float]) -> list[float]:
    wanted = f"strengths must be 2 to {MOST_STRENGTHS} numbers that rise from at least 0"
    if not isinstance(strengths, list | tuple) or not 2 <= len(strengths) <= MOST_STRENGTHS:
        raise ValueError(f"{wanted}, got {strengths!r}")
    for i, strength in enumerate(strengths):
        check_number(f"strengths[{i}]", strength, minimum=0)
    if not (np.diff(strengths) > 0).all():
        raise ValueError(f"{wanted}, got {strengths!r}")
    return [float(strength) for strength in strengths]


def _examples(examples: Array, shape: tuple[int, ...]) -> np.ndarray:
    array = to_array("examples", examples, str(list(shape)), 6)
    if array.shape != shape:
        raise ValueError(f"examples must have shape {list(shape)}, got {list(array.shape)}")
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        raise ValueError(f"examples must lie in [0, 1], got values in [{low:.3g}, {high:.3g}]")
    return to_bytes(array)
