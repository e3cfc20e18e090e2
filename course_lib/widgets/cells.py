"""Which cell shows which live widgets, so that a cell that is run again closes its former ones.

Without that a figure that is run twenty times leaves twenty models behind, in the kernel, in the
browser and in a notebook that is saved by other means than the course's server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython import get_ipython

if TYPE_CHECKING:
    from course_lib.widgets.base import CourseWidget

__all__ = ["Cells", "shown"]


class Cells:
    """The widgets that each cell has shown in its last run."""

    def __init__(self) -> None:
        self._last: dict[str, list[CourseWidget]] = {}  # of each cell
        self._now: list[CourseWidget] = []  # in the run that goes on

    def show(self, widget: CourseWidget) -> None:
        """Note that the cell that runs shows ``widget``."""
        if not any(widget is other for other in self._now):
            self._now.append(widget)

    def end(self, cell: str | None) -> None:
        """The run of a cell is over: close what its last run showed and no cell shows now.

        Without a name (``None``) nothing is known of the cell, and nothing is closed.
        """
        now, self._now = self._now, []
        if cell is None:
            return
        former = self._last.pop(cell, [])
        if now:
            self._last[cell] = now
        still = {id(widget) for widgets in self._last.values() for widget in widgets}
        for widget in former:
            if id(widget) not in still:
                widget.close()


_CELLS = Cells()
_LISTENING: list[object] = []  # the shells whose runs we hear of


def shown(widget: CourseWidget) -> None:
    """Note that ``widget`` is shown live, in the cell that runs in this kernel, if there is one."""
    shell = get_ipython()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return

    def end(*_: object) -> None:
        _CELLS.end(kernel.get_parent("shell").get("metadata", {}).get("cellId"))

    if shell not in _LISTENING:
        _LISTENING.append(shell)
        shell.events.register("post_run_cell", end)
    _CELLS.show(widget)
