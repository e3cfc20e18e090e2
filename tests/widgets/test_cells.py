"""A cell that is run again closes the widgets of its former run, and no others."""

import subprocess
import sys

from jupyter_client.manager import start_new_kernel

from course_lib.widgets.cells import Cells


class Thing:
    """Stands for a widget."""

    closed = False

    def close(self) -> None:
        self.closed = True


def run(cells: Cells, cell: str | None, *things: Thing) -> None:
    for thing in things:
        cells.show(thing)
    cells.end(cell)


def test_the_former_widgets_of_a_cell_are_closed() -> None:
    cells = Cells()
    first, second, other = Thing(), Thing(), Thing()
    run(cells, "a", first)
    run(cells, "b", other)
    run(cells, "a", second)
    assert (first.closed, second.closed, other.closed) == (True, False, False)
    run(cells, "a")  # it shows nothing any more
    assert (second.closed, other.closed) == (True, False)


def test_what_is_shown_again_or_elsewhere_stays() -> None:
    cells = Cells()
    kept, gone, twice = Thing(), Thing(), Thing()
    run(cells, "a", kept, gone, twice, twice)
    run(cells, "b", twice)
    run(cells, "a", kept)
    assert (kept.closed, gone.closed, twice.closed) == (False, True, False)
    run(cells, "b")
    assert twice.closed


def test_where_no_cell_is_known_nothing_is_closed() -> None:
    cells = Cells()
    first = Thing()
    run(cells, None, first)
    run(cells, None, Thing())
    assert not first.closed


CODE = """
import os
os.environ.pop("COURSE_WIDGETS", None)
from course_lib import widgets
"""


def test_in_a_kernel_five_runs_leave_one_model_and_a_closed_one_opens_again() -> None:
    manager, client = start_new_kernel()
    try:

        def execute(code: str, cell: str) -> str:
            message = client.session.msg(
                "execute_request",
                {"code": code, "silent": False, "store_history": True, "allow_stdin": False},
                metadata={"cellId": cell},
            )
            client.shell_channel.send(message)
            printed = ""
            while True:
                answer = client.get_iopub_msg(timeout=60)
                if answer["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                    continue
                content = answer["content"]
                if answer["msg_type"] == "stream":
                    printed += content["text"]
                if answer["msg_type"] == "error":
                    printed += content["evalue"]
                if answer["msg_type"] in ("display_data", "execute_result"):
                    printed += " ".join(sorted(content["data"]))
                if content.get("execution_state") == "idle":
                    return printed.strip()

        assert execute(CODE, "setup") == ""
        make = "warps = globals().get('warps', []) + [widgets.DensityWarp()]; warps[-1]"
        for _ in range(5):
            assert "widget-view" in execute(make, "figure")
        opened = "print(sum(warp.comm is not None for warp in warps), len(warps))"
        assert execute(opened, "count") == "1 5"
        assert "widget-view" in execute("warps[0]", "again")
        assert execute(opened, "count") == "2 5"
        execute("warps[0].base = 'logistic'", "drive")
        assert execute("print(warps[0].comm is not None)", "count") == "True"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_outside_a_notebook_nothing_is_noted() -> None:
    code = CODE + "w = widgets.DensityWarp(); w._repr_mimebundle_(); print(w.comm is not None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
