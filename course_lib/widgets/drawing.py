"""What widgets share that have the kernel draw an image: one question, its steps, its answer."""

import base64
from collections.abc import Callable

import numpy as np
import traitlets

from course_lib.widgets.base import CourseWidget, one_line

__all__ = ["DrawingWidget"]

Tell = Callable[[int, np.ndarray], None]


class DrawingWidget(CourseWidget):
    """A widget whose browser asks the kernel to draw what its state says; ``parts/desk.js``.

    A subclass gives the ``question`` of its state and draws the answer to one.
    """

    status = traitlets.Unicode("done", read_only=True).tag(sync=True)
    # The last answer: what was asked, with its "sequence", the "pixels" as base64, and an "error".
    # A view shows it where its own question is the same.
    answered = traitlets.Dict().tag(sync=True)
    # Of the answer that is on its way: {"sequence", "steps"}, how many there are, and the "pixels"
    # of the last of them.
    progress = traitlets.Dict().tag(sync=True)

    _count = 0  # of requests from Python

    @property
    def question(self) -> dict:
        """What the present state asks: names and values that JSON knows."""
        raise NotImplementedError

    def drawn_for(self, question: dict, tell: Tell) -> dict:
        """What is drawn for a question, after it was checked: its ``"pixels"``, and what else.

        ``tell`` hears of each step, its number and its pixels.
        """
        raise NotImplementedError

    @property
    def known(self) -> bool:
        """Whether an image of the present question is there."""
        raise NotImplementedError

    @property
    def error(self) -> str:
        """Why the last drawing failed, in one line; empty where it did not."""
        return self.answered.get("error", "")

    @property
    def fits(self) -> bool:
        """Whether the last answer is one to the present question."""
        return self.question.items() <= self.answered.items()

    def answered_pixels(self) -> np.ndarray | None:
        """The numbers of the last answer, uint8, if it is one to the present question."""
        if not self.fits or self.error:
            return None
        return np.frombuffer(base64.b64decode(self.answered["pixels"]), np.uint8)

    def question_changed(self) -> None:
        """Say in ``status`` how it stands with the present question."""
        if self.known:
            self.set_trait("status", "done")
        else:
            self.set_trait("status", "error" if self.fits else "idle")

    def request(self) -> None:
        """Draw for the present state, now. Raises what drawing raises."""
        self._count += 1
        self.answer({"sequence": f"python.{self._count}"} | self.question)

    def receive(self, widget: object, content: dict, buffers: list) -> None:
        """Answer a question from the browser; what goes wrong is shown there."""
        if content.get("kind") != "draw":
            return
        try:
            self.answer({name: content[name] for name in ("sequence", *self.question)})
        except (Exception, KeyboardInterrupt):
            # `answer` has told the browser. There is no cell here that could show more.
            return

    def answer(self, question: dict) -> None:
        """Draw, and let the browser know: each step, the answer, or what went wrong."""
        self.set_trait("status", "waiting")

        def tell(steps: int, images: np.ndarray) -> None:
            sequence = question["sequence"]
            self.progress = {"sequence": sequence, "steps": steps, "pixels": text_of(images)}

        answered = {"pixels": "", "steps": 0, "error": "stopped"}
        try:
            answered = {"error": ""} | self.drawn_for(question, tell)
        except (Exception, KeyboardInterrupt) as problem:
            answered["error"] = one_line(problem)
            raise
        finally:
            with self.hold_sync():
                self.answered = question | answered
                self.question_changed()


def text_of(images: np.ndarray) -> str:
    """Bytes as base64, as JSON can carry them."""
    return base64.b64encode(images.tobytes()).decode("ascii")
