"""``Inpaint``: scratch pixels out of an image and let a model fill them in."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int
from course_lib.widgets.base import (
    PlayerWidget,
    one_line,
    pack,
    pale_frame,
    png,
    to_array,
    to_images,
)
from course_lib.widgets.ink import Mask, mask_text
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["Inpaint"]

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray | torch.Tensor]


class Inpaint(PlayerWidget):
    """Images whose pixels the reader scratches out and a model fills in.

    The browser keeps the scratches. "Fill in" sends them to the kernel, which calls ``fill`` and
    sends back its steps; they are played where the pixels were. An answer to scratches that have
    changed in the meantime is not shown. At the start the lower half is scratched out.

    Stored without a kernel, the widget holds the answer to the scratches it was stored with.

    Args:
        images: ``[B, H, W]`` or ``[B, 1, H, W]`` with values in [0, 1]; the reader picks one.
        fill: called as ``fill(image, known)`` with a float32 array ``[H, W]``, in which unknown
            pixels are 0, and a bool array ``[H, W]``. Returns ``[T, H, W]``, the steps on the way
            to the filled image, which is the last; a single image ``[H, W]`` is one step. Values
            outside [0, 1] are shown as black or white.
        title: shown above the image.
        brush: how many pixels wide the pointer scratches.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where the images do not have that shape or those values, or need more than
    300 KB at two bytes a pixel together with the steps of an answer.

    ``widget.image_index``, ``widget.known`` (bool, ``[H, W]``) and ``widget.step`` can be read and
    set; ``widget.status`` is ``"idle"``, ``"waiting"``, ``"done"`` or ``"error"`` (then
    ``widget.error`` says why). ``widget.request()`` fills in from Python.
    """

    module = "inpaint.js"

    # What is picked must not come back from the kernel while the reader draws: no echo.
    image_index = traitlets.Int(0).tag(sync=True, echo_update=False)
    known = Mask()
    status = traitlets.Unicode("idle", read_only=True).tag(sync=True)
    brush = traitlets.Int(1).tag(sync=True)
    # What the last answer answers: {"sequence", "image", "known", "error"}, or nothing yet. A view
    # shows the answer while its own image and scratches are these.
    answered = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        images: np.ndarray | torch.Tensor,
        fill: Fill,
        *,
        title: str = "",
        brush: int = 1,
        alt: str = "",
    ) -> None:
        self._images = to_images("images", images)
        if not callable(fill):
            raise ValueError(f"fill must be callable as fill(image, known), got {fill!r}")
        check_int("brush", brush, minimum=1)
        self._fill = fill
        self._count = 0  # of requests from Python
        known = np.ones(self._images.shape[1:], dtype=bool)
        known[len(known) // 2 :] = False
        super().__init__(
            {"images": self._images},
            n_steps=1,
            labels=None,
            hint="send fewer or smaller images",
            title=title,
            alt=alt or "An image whose scratched-out pixels a model fills in.",
            known=known,
            brush=brush,
        )
        self.on_msg(self._receive)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("image_index")
    def _index_in_range(self, proposal: dict) -> int:
        check_int("image_index", proposal["value"], minimum=0, maximum=len(self._images) - 1)
        return proposal["value"]

    @property
    def error(self) -> str:
        """Why the last filling failed, in one line; empty where it did not."""
        return self.answered.get("error", "")

    @property
    def result(self) -> np.ndarray | None:
        """The image as last filled in, float64 ``[H, W]``, quantized; None before."""
        return self.array("states")[-1] if "states" in self.arrays else None

    @traitlets.observe("image_index", "known")
    def _puzzle_changed(self, change: dict) -> None:
        puzzle = {"image": self.image_index, "known": mask_text(self.known)}
        if puzzle.items() <= self.answered.items():
            self.set_trait("status", "error" if self.error else "done")
        else:
            self.set_trait("status", "idle")

    # -------------------------------------------------------------------------------------- filling

    def request(self) -> None:
        """Fill in the present scratches, now, and show the result. Raises what ``fill`` raises."""
        self._count += 1
        self._answer(f"python.{self._count}", self.image_index, self.known)
        self.step = float(self.n_steps - 1)

    def _receive(self, widget: object, content: dict, buffers: list) -> None:
        """Answer a request from the browser; what goes wrong is shown there."""
        if content.get("kind") != "fill":
            return
        try:
            known = self.traits()["known"].from_text(content["known"], self)
            self._answer(content["sequence"], content["image"], known)
        except (Exception, KeyboardInterrupt):
            # `_answer` has told the browser. There is no cell here that could show more.
            return

    def _answer(self, sequence: str, index: int, known: np.ndarray) -> None:
        puzzle = {"sequence": sequence, "image": index, "known": mask_text(known)}
        self.set_trait("status", "waiting")
        try:
            image = np.where(known, self._images[index], np.float32(0))
            states = _states(self._fill(image, known.copy()), known.shape)
            data, layout = pack(
                {"images": self._images, "states": states}, "return fewer steps from fill"
            )
        except (Exception, KeyboardInterrupt) as problem:
            with self.hold_sync():
                self.answered = puzzle | {"error": one_line(problem)}
                self.set_trait("status", "error")
            raise
        with self.hold_sync():  # one message, so that no view ever sees half an answer
            self.data, self.arrays = data, layout
            self.step, self.n_steps = 0.0, len(states)
            self.rate = max(2.0, (len(states) - 1) / 3)  # about three seconds, or less
            self.answered = puzzle | {"error": ""}
            self.set_trait("status", "done")

    # ---------------------------------------------------------------------------------------- shown

    def static_html(self) -> str:
        """The stored form, with the answer to the present scratches."""
        if not self.answered and not self.known.all():
            self.request()
            self.step = 0.0
        return super().static_html()

    def still(self) -> bytes:
        """The scratched image and, where it has been filled in, two steps on the way."""
        image = np.ma.masked_where(~self.known, self.array("images")[self.image_index])
        panels = [("scratched out", image)]
        if self.status == "done":
            steps = self.telling_steps()
            panels += [("on the way", self.state_at("states", k)) for k in steps[1:-1]]
            panels.append(("filled in", self.state_at("states", steps[-1])))
        figure = Figure(figsize=(1.9 * len(panels), 2.15))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.88, wspace=0.05)
        for ax, (name, values) in zip(axes, panels, strict=True):
            ax.imshow(values, cmap=colour_map("grey"), vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.set_title(name, fontsize=8)
            pale_frame(ax)
        for row, column in np.argwhere(~self.known):
            x = [column - 0.4, column + 0.4]
            axes[0].plot(x, [row + 0.4, row - 0.4], color=PALETTE["error"], lw=1)
        return png(figure)


def _states(states: object, shape: Sequence[int]) -> np.ndarray:
    """What ``fill`` returned as ``[T, H, W]`` in [0, 1]."""
    wanted = f"[T, {shape[0]}, {shape[1]}]"
    array = to_array("what fill returns", states, wanted, 2, 3)
    if array.ndim == 2:
        array = array[None]
    if array.shape[1:] != tuple(shape):
        raise ValueError(f"what fill returns must have shape {wanted}, got {list(array.shape)}")
    return array.clip(0, 1)
