"""``PixelByPixel``: an image written pixel by pixel, and clicks that rewrite its history."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.checks import check_int, check_permutation
from course_lib.widgets.base import (
    PlayerWidget,
    check_labels,
    one_line,
    pack,
    pale_frame,
    png,
    to_images,
)
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["PixelByPixel"]

Array = np.ndarray | torch.Tensor
Write = Callable[[np.ndarray, int, int], tuple[Array, Array]]

HINT = "return fewer images from write"
ROUNDING = 0.01  # half precision may round a grey value; what differs by more is another one


class PixelByPixel(PlayerWidget):
    """An autoregressive model writes an image; the reader watches, and changes what it wrote.

    Step k shows the image with its first k pixels written, the probability with which the model
    makes each of them 1, and the same for the next. Beside it stand the mean of all continuations
    and a few of them; one that is clicked becomes the image that is written. A click on a written
    pixel flips it: all before it stays, and the kernel is asked for a new rest. Pixels that came
    out differently are marked. An answer that comes when something else has been asked is dropped.

    Stored without a kernel, the widget plays the answer it was stored with.

    Args:
        write: called as ``write(image, n_known, label)`` with a float32 array ``[H, W]`` whose
            first ``n_known`` pixels in the order are given and whose others are 0, and with the
            index of a label (0 where there are none). Returns two arrays ``[S, H, W]`` (or ``[S, 1,
            H, W]``): S >= 1 complete images that keep the given pixels, and for each of their
            pixels p(x_i = 1 | x_<i). The first image is the one that is written.
        size: (H, W) of the image.
        order: the pixels, counted row by row, in the order of writing; None is row by row.
        labels: names of the classes among which the reader can choose, or None.
        title: shown above the image.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument, or what ``write`` returns, is not as described, or
    where images and probabilities need more than 300 KB at two bytes a number.

    ``widget.step`` (the number of written pixels), ``widget.choice`` (which continuation is the
    one that is written) and ``widget.label`` can be read and set; a new label rewrites the whole
    image. ``widget.image`` is the finished image, of which ``widget.n_known`` pixels were given;
    ``widget.images`` and ``widget.conditionals`` hold all continuations. ``widget.status`` is
    ``"waiting"``, ``"done"`` or ``"error"`` (then ``widget.error`` says why).
    ``widget.request(n_known)`` and ``widget.flip(row, column)`` rewrite from Python.
    """

    module = "pixel_by_pixel.js"

    order = traitlets.List(traitlets.Int()).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    label = traitlets.Int(0).tag(sync=True)
    n_known = traitlets.Int(0, read_only=True).tag(sync=True)
    # An older choice must not come back from the kernel while the reader makes others: no echo.
    choice = traitlets.Int(0).tag(sync=True, echo_update=False)
    status = traitlets.Unicode("done", read_only=True).tag(sync=True)
    rounding = traitlets.Float(ROUNDING, read_only=True).tag(sync=True)
    # The last answer: {"sequence", "error"}. All that belongs to it comes in the same message.
    answered = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        write: Write,
        *,
        size: Sequence[int] = (8, 8),
        order: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        if not callable(write):
            raise ValueError(f"write must be callable as write(image, n_known, label), got {write}")
        if not isinstance(size, list | tuple) or len(size) != 2:
            raise ValueError(f"size must be (height, width), got {size!r}")
        for name, value in zip(("height", "width"), size, strict=True):
            check_int(f"the {name} in size", value, minimum=1)
        if labels is not None and not (isinstance(labels, list | tuple) and labels):
            raise ValueError(f"labels must be a list of names or None, got {labels!r}")
        classes = check_labels("labels", labels, len(labels or []))
        self._write, self._size = write, tuple(size)
        pixels = size[0] * size[1]
        if order is None:
            order = range(pixels)
        check_permutation("order", order, pixels)
        self._order = np.array(order)
        self._count = 0  # of requests from Python
        self._answering = False
        super().__init__(
            self._ask(np.zeros(size, np.float32), 0, 0),
            n_steps=pixels + 1,
            labels=None,
            whole_steps=True,  # a pixel is written or not
            hint=HINT,
            title=title,
            alt=alt or "An image that a model writes pixel by pixel, with its probabilities.",
            order=list(order),
            classes=classes,
            answered={"sequence": "", "error": ""},
        )
        self.on_msg(self._receive)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("label")
    def _label_in_range(self, proposal: dict) -> int:
        check_int("label", proposal["value"], minimum=0, maximum=max(len(self.classes) - 1, 0))
        return proposal["value"]

    @traitlets.validate("choice")
    def _choice_in_range(self, proposal: dict) -> int:
        check_int("choice", proposal["value"], minimum=0, maximum=len(self.images) - 1)
        return proposal["value"]

    @traitlets.observe("label")
    def _label_changed(self, change: dict) -> None:
        if self._answering:
            return
        try:
            self.request(0)
        except BaseException:
            self._answering = True  # back to the label of the image that is shown
            self.label = change["old"]
            self._answering = False
            raise

    @property
    def images(self) -> np.ndarray:
        """All continuations, float32 ``[S, H, W]``, quantized."""
        return self.array("images").astype(np.float32)

    @property
    def conditionals(self) -> np.ndarray:
        """p(x_i = 1 | x_<i) for each pixel of ``images``, float32 ``[S, H, W]``, quantized."""
        return self.array("conditionals").astype(np.float32)

    @property
    def image(self) -> np.ndarray:
        """The finished image that is written, float32 ``[H, W]``, quantized."""
        return self.images[self.choice]

    @property
    def error(self) -> str:
        """Why the last rewriting failed, in one line; empty where it did not."""
        return self.answered.get("error", "")

    # -------------------------------------------------------------------------------------- writing

    def request(self, n_known: int = 0, *, image: Array | None = None) -> None:
        """Keep the first ``n_known`` pixels of an image, write the rest now and show it all.

        ``image`` is ``[H, W]`` with values in [0, 1]; None stands for the image that is shown.
        Raises what ``write`` raises.
        """
        check_int("n_known", n_known, minimum=0, maximum=len(self._order))
        given = self.image if image is None else image
        if getattr(given, "shape", ()) != self._size:
            shape = list(getattr(given, "shape", ()))
            raise ValueError(f"image must be an array of shape {list(self._size)}, got {shape}")
        given = to_images("image", given[None], size=self._size)[0]
        self._count += 1
        self._answer(f"python.{self._count}", given, n_known, self.label)
        self.step = float(self.n_steps - 1)

    def flip(self, row: int, column: int) -> None:
        """Turn one pixel x into 1 - x, keep all before it and write the rest, as a click does."""
        for name, value, count in zip(("row", "column"), (row, column), self._size, strict=True):
            check_int(name, value, minimum=0, maximum=count - 1)
        image = self.image
        image[row, column] = 1 - image[row, column]
        place = int(np.flatnonzero(self._order == row * self._size[1] + column)[0])
        self.request(place + 1, image=image)

    def _receive(self, widget: object, content: dict, buffers: list) -> None:
        """Answer a request from the browser; what goes wrong is shown there."""
        if content.get("kind") != "write":
            return
        try:
            self._answer(*(content[name] for name in ("sequence", "image", "n_known", "label")))
        except (Exception, KeyboardInterrupt):
            # `_answer` has told the browser. There is no cell here that could show more.
            return

    def _answer(self, sequence: str, image: Array | list, n_known: int, label: int) -> None:
        self.set_trait("status", "waiting")
        try:
            check_int("n_known", n_known, minimum=0, maximum=len(self._order))
            check_int("label", label, minimum=0, maximum=max(len(self.classes) - 1, 0))
            given = np.asarray(image, dtype=np.float32).reshape(self._size)
            data, layout = pack(self._ask(given, n_known, label), HINT)
        except (Exception, KeyboardInterrupt) as problem:
            with self.hold_sync():
                self.answered = {"sequence": sequence, "error": one_line(problem)}
                self.set_trait("status", "error")
            raise
        self._answering = True
        with self.hold_sync():  # one message, so that no view ever sees half an answer
            self.data, self.arrays = data, layout
            self.label, self.choice = label, 0
            self.set_trait("n_known", n_known)
            self.answered = {"sequence": sequence, "error": ""}
            self.set_trait("status", "done")
        self._answering = False

    def _ask(self, image: np.ndarray, n_known: int, label: int) -> dict[str, np.ndarray]:
        """What ``write`` makes of a history, checked."""
        known = np.zeros(self._size, dtype=bool)
        known.flat[self._order[:n_known]] = True
        given = np.where(known, image, np.float32(0))
        answer = self._write(given.copy(), n_known, label)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise ValueError(
                "write must return two arrays, images and conditionals, "
                f"got {type(answer).__name__}"
            )
        names = ("the images that write returns", "the conditionals that write returns")
        images, conditionals = (
            to_images(name, part, count="S", size=self._size)
            for name, part in zip(names, answer, strict=True)
        )
        if len(images) != len(conditionals):
            raise ValueError(
                f"{names[1]} must be as many as its images, {len(images)}, got {len(conditionals)}"
            )
        change = np.abs(images - image)[:, known].max(initial=0)
        if change > ROUNDING:
            raise ValueError(
                f"{names[0]} must keep the {n_known} given pixels, got a change of {change:.3g}"
            )
        return {"images": images, "conditionals": conditionals}

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The image and its conditionals when about 60 % are written, and the mean of all."""
        images, (rows, columns) = self.images, self._size
        k = int(0.6 * len(self._order))
        row, column = divmod(int(self._order[k]), columns)
        late = np.zeros(self._size, dtype=bool)
        late.flat[self._order[k:]] = True
        image = np.ma.masked_where(late, self.image)
        late[row, column] = False
        conditionals = np.ma.masked_where(late, self.conditionals[self.choice])
        p = conditionals[row, column]
        panels = [
            (f"{k} of {len(self._order)} pixels written", image, colour_map("grey")),
            (f"next: p = {p:.2f}", conditionals, colour_map("viridis")),
            (f"average of {len(images)} continuations", images.mean(0), colour_map("grey")),
        ]
        figure = Figure(figsize=(7.2, 2.2 * min(max(rows / columns, 0.7), 1.5)))
        axes = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.88, wspace=0.4)
        for ax, (name, values, cmap) in zip(axes, panels, strict=True):
            ax.set_facecolor("#eceef1")
            ax.patch.set(hatch="////", edgecolor="#b9bec5")  # what is not written yet
            ax.imshow(values, cmap=cmap, vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.set_title(name, fontsize=8)
            pale_frame(ax)
        for ax in axes[:2]:
            outline = {"fill": False, "lw": 2, "ec": PALETTE["model"]}
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **outline))
        room = axes[1].inset_axes((1.04, 0, 0.05, 1))
        bar = figure.colorbar(axes[1].images[0], cax=room, ticks=[0, 0.5, 1])
        bar.ax.tick_params(labelsize=7, length=2)
        bar.set_label("p(pixel = 1 | pixels before)", fontsize=7)
        return png(figure, colours=128)
