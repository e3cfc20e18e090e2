"""What every widget shares: arrays packed for the browser, traits, and two ways to be shown.

A widget is shown live (an anywidget that talks to the kernel), or, with ``COURSE_WIDGETS=static``
in the environment, as one piece of HTML that needs no kernel: a still picture and an iframe with a
self-contained copy of the widget. See ``docs/architecture.md``.
"""

import base64
import html
import io
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from course_lib.checks import check_number
from course_lib.widgets.cells import shown
from course_lib.widgets.palette import THEMES

__all__ = [
    "LINE",
    "MAX_BYTES",
    "CourseWidget",
    "PlayerWidget",
    "check_labels",
    "drawn",
    "javascript",
    "mosaic",
    "one_line",
    "pack",
    "pale_frame",
    "png",
    "stylesheet",
    "to_array",
    "to_bytes",
    "to_colors",
    "to_images",
]

HERE = Path(__file__).parent
MAX_BYTES = 300_000  # of one widget's arrays, after quantization
LEVELS = 65_535  # of one number, after quantization
LINE = THEMES["light"]["line"]  # the colour of lines on a light page
# An exported notebook that is printed: long lines of code wrap instead of ending at the margin.
ON_PAPER = (
    "<style>@media print { pre { white-space: pre-wrap !important; overflow-wrap: anywhere; } }"
    "</style>"
)
STILL = (
    "A still picture. In JupyterLab it moves once you run the cell, or choose "
    "<i>Trust Notebook</i> in the command palette (Ctrl/⌘ + Shift + C)."
)

Extent = tuple[float, float, float, float]


# ----------------------------------------------------------------------------------- JavaScript


IMPORT = re.compile(
    r'^import (?:\{[^}]*\}|(?P<name>\w+)) from "(?P<path>[^"]+)"(?: with \{[^}]*\})?;\n',
    re.MULTILINE,
)
COMMENT = re.compile(r"^ *//.*\n|^ *\n", re.MULTILINE)


def _files(path: Path, found: list[Path]) -> list[Path]:
    """A module and all that it imports, what is imported first."""
    for match in IMPORT.finditer(path.read_text("utf-8")):
        part = (path.parent / match["path"]).resolve()
        if not part.is_file():
            raise ValueError(f"{path.name} imports {match['path']}, which is not there")
        if part not in found and part.suffix == ".js":
            _files(part, found)
    if path not in found:
        found.append(path)
    return found


def javascript(name: str) -> str:
    """The module ``name`` as one file: in place of its imports stand the modules it imports.

    An import of a ``.json`` or a ``.css`` becomes a constant. Lines of comments are left out, so
    that a stored widget is the same when only they change. All is one scope: two modules that
    meet must not give the same name to different things.
    """
    files = _files((HERE / name).resolve(), [])
    pieces = []
    for path in files:
        source = path.read_text("utf-8")
        if path != files[-1]:
            source = re.sub(r"^export ", "", source, flags=re.MULTILINE)

        def constant(match: re.Match, folder: Path = path.parent) -> str:
            if match["name"] is None:
                return ""
            text = (folder / match["path"]).read_text("utf-8")
            value = json.loads(text) if match["path"].endswith(".json") else text
            return f"const {match['name']} = {json.dumps(value)};\n"

        pieces.append(COMMENT.sub("", IMPORT.sub(constant, source)))
    return "".join(pieces)


def stylesheet(name: str) -> str:
    """The CSS that stands beside the parts which the module ``name`` imports."""
    beside = [path.with_suffix(".css") for path in _files((HERE / name).resolve(), [])[:-1]]
    return "".join(path.read_text("utf-8") for path in beside if path.is_file())


# ------------------------------------------------------------------------------------- arguments


def to_array(name: str, values: object, shape: str, *dims: int) -> np.ndarray:
    """``values`` as a finite float32 array whose rank is one of ``dims``.

    ``shape`` says in words what is expected, such as ``"[T, B, 2]"``. Takes NumPy arrays, tensors
    (on any device, with or without a gradient) and nested sequences.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array of shape {shape}, got ragged rows") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers of shape {shape}, got {array.dtype}")
    if array.ndim not in dims or 0 in array.shape:
        raise ValueError(f"{name} must have shape {shape}, got {list(array.shape)}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite in float32, got NaN or infinite values")
    return array


def to_images(
    name: str,
    values: object,
    *,
    count: str = "B",
    size: Sequence[int] | None = None,
    colour: bool = False,
) -> np.ndarray:
    """Grey images as float32 ``[B, H, W]`` with values in [0, 1]; also takes ``[B, 1, H, W]``.

    ``count`` is the letter for their number in an error, ``size`` the (H, W) they must have. With
    ``colour`` images of red, green and blue are welcome, too, and stay ``[B, 3, H, W]``.
    """
    rows, columns = size or ("H", "W")
    wanted = f"[{count}, {rows}, {columns}] or [{count}, 1, {rows}, {columns}]"
    if colour:
        wanted = f"[{count}, {rows}, {columns}] or [{count}, 1 or 3, {rows}, {columns}]"
    array = to_array(name, values, wanted, 3, 4)
    other_size = size is not None and array.shape[-2:] != tuple(size)
    if other_size or (array.ndim == 4 and array.shape[1] not in ((1, 3) if colour else (1,))):
        raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"{name} must lie in [0, 1], got values in [{array.min():.3g}, {array.max():.3g}]"
        )
    return array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array


def to_colors(color: object, steps: int, count: int) -> np.ndarray:
    """A number for each of ``count`` points, or for each at every step: ``[1 or steps, count]``."""
    wanted = f"[{count}] or [{steps}, {count}]"
    array = to_array("color", color, wanted, 1, 2)
    if array.shape not in ((count,), (steps, count)):
        raise ValueError(f"color must have shape {wanted}, got {list(array.shape)}")
    return array.reshape(-1, count)


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as uint8, 0 ... 255, which ``pack`` keeps at one byte a pixel."""
    return np.rint(255 * images).astype(np.uint8)


def one_line(problem: BaseException) -> str:
    """What went wrong in one line of at most 200 characters, for a widget to show."""
    text = " ".join(str(problem).split())
    line = f"{type(problem).__name__}: {text}" if text else type(problem).__name__
    return line if len(line) <= 200 else f"{line[:199]}…"


def check_labels(name: str, labels: Sequence[str] | None, count: int) -> list[str]:
    """``labels`` as a list of ``count`` strings; None becomes the empty list."""
    if labels is None:
        return []
    listed = isinstance(labels, list | tuple) and all(isinstance(label, str) for label in labels)
    if not listed or len(labels) != count:
        raise ValueError(f"{name} must be {count} strings, got {labels!r}")
    return list(labels)


def check_extent(name: str, extent: Sequence[float]) -> Extent:
    """``extent`` as four floats (x0, x1, y0, y1) with x0 < x1 and y0 < y1."""
    try:
        values = tuple(float(value) for value in extent)
    except (TypeError, ValueError):
        values = ()
    if (
        len(values) != 4
        or not np.isfinite(values).all()
        or not (values[0] < values[1] and values[2] < values[3])
    ):
        raise ValueError(
            f"{name} must be (x0, x1, y0, y1) with x0 < x1 and y0 < y1, got {extent!r}"
        )
    return values


def value_range(values: np.ndarray, *, signed: bool = False) -> list[float]:
    """The range a colour map covers: all values, and around zero where the map is signed."""
    low, high = float(values.min()), float(values.max())
    if signed:
        high = max(-low, high)
        low = -high
    return [low, high] if high > low else [low - 0.5, high + 0.5]


COLOR_MAPS = ("viridis", "signed", "cyclic")  # of points that have a number each


def color_range(values: np.ndarray, color_map: str) -> list[float]:
    """The range that ``color_map`` covers: of an angle the whole turn, whatever is in it."""
    if color_map != "cyclic":
        return value_range(values, signed=color_map == "signed")
    if np.abs(values).max() > math.pi + 1e-5:
        raise ValueError(
            "color must hold angles in [-pi, pi] where color_map is cyclic, got values in "
            f"[{values.min():.3g}, {values.max():.3g}]"
        )
    return [-math.pi, math.pi]


# ------------------------------------------------------------------------------------------ data


def pack(arrays: dict[str, np.ndarray], hint: str) -> tuple[bytes, dict[str, dict]]:
    """Quantize arrays to 16 bits each over their own range and join them.

    Returns the bytes (little-endian uint16) and, for each array, ``{"offset", "shape", "low",
    "high"}``: a whole number q stands for ``low + q (high - low) / 65535``. An array of uint8 is
    kept as it is, with ``"bits": 8`` beside the others. Raises ``ValueError`` with ``hint`` where
    the result is larger than ``MAX_BYTES``.
    """
    size = sum(array.size * (1 if array.dtype == np.uint8 else 2) for array in arrays.values())
    if size > MAX_BYTES:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise ValueError(
            f"a widget holds at most {MAX_BYTES:,} bytes, got {size:,} ({shapes}, 2 bytes a "
            f"number, 1 where it is uint8): {hint}"
        )
    parts, layout, offset = [], {}, 0
    for name, array in arrays.items():
        if array.dtype == np.uint8:
            whole = {"offset": offset, "shape": list(array.shape), "low": 0, "high": 255, "bits": 8}
            layout[name] = whole
            parts.append(array.tobytes())
            offset += array.nbytes
            continue
        low, high = float(array.min()), float(array.max())
        unit = (high - low) / LEVELS or 1.0
        whole = np.rint((array.astype(np.float64) - low) / unit).astype("<u2")
        layout[name] = {"offset": offset, "shape": list(array.shape), "low": low, "high": high}
        parts.append(whole.tobytes())
        offset += whole.nbytes
    return b"".join(parts), layout


def drawn(image: np.ndarray) -> np.ndarray:
    """An image ``[H, W]`` or ``[3, H, W]`` as matplotlib takes it: colours last."""
    return np.moveaxis(image, 0, -1) if image.ndim == 3 else image


def mosaic(images: np.ndarray, across: int) -> np.ndarray:
    """Images ``[n, H, W]`` or ``[n, 3, H, W]`` in rows of ``across``, white between them."""
    rows, columns = images.shape[-2:]
    down = -(-len(images) // across)
    size = (down * (rows + 1) - 1, across * (columns + 1) - 1)
    whole = np.full((*images.shape[1:-2], *size), np.nan if images.ndim == 3 else 1.0)
    for i, image in enumerate(images):
        top, left = i // across * (rows + 1), i % across * (columns + 1)
        whole[..., top : top + rows, left : left + columns] = image
    return whole


def pale_frame(ax: Axes) -> None:
    """Draw the frame of a still picture's axes in the colour of the widgets' own lines."""
    for side in ax.spines.values():
        side.set_color(LINE)


def png(figure: Figure, *, colours: int = 64) -> bytes:
    """Draw a figure as a PNG with few colours, so that a notebook stays small."""
    figure.set_dpi(100)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    image = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


# --------------------------------------------------------------------------------------- widgets


class CourseWidget(anywidget.AnyWidget):
    """Arrays, a title, alternative text, and both ways to be shown.

    A subclass names its module in ``module``, passes its arrays to ``__init__`` and draws its still
    picture in ``still``.
    """

    module = ""  # file name of the widget's JavaScript, set by each subclass

    title = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    arrays = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **options: object) -> None:
        """Read the JavaScript and the CSS once for each class."""
        if "module" in cls.__dict__:
            cls._esm = javascript(cls.module)
            cls._css = stylesheet(cls.module)
        super().__init_subclass__(**options)

    def __init__(
        self, arrays: dict[str, np.ndarray], *, hint: str, title: str, alt: str, **traits: object
    ) -> None:
        for name, text in (("title", title), ("alt", alt)):
            if not isinstance(text, str):
                raise ValueError(f"{name} must be a string, got {text!r}")
        data, layout = pack(arrays, hint)
        super().__init__(data=data, arrays=layout, title=title, alt=alt, **traits)

    def __repr__(self) -> str:
        """The class and its title: no address, no data."""
        return f"{type(self).__name__}({self.title!r})"

    def array(self, name: str) -> np.ndarray:
        """One of the arrays as the browser sees it: quantized and restored, float64."""
        layout = self.arrays[name]
        size = int(np.prod(layout["shape"]))
        bits = layout.get("bits", 16)
        whole = np.frombuffer(self.data, f"<u{bits // 8}", size, layout["offset"])
        unit = (layout["high"] - layout["low"]) / (2**bits - 1)
        return (layout["low"] + unit * whole).reshape(layout["shape"])

    def still(self) -> bytes:
        """The widget as a PNG, for readers whose page runs no script."""
        raise NotImplementedError

    def static_html(self) -> str:
        """The stored form: a still picture, and an iframe that is a copy of this widget.

        Once the iframe is alive it hides the picture and takes the height it needs. JupyterLab
        strips the iframe of a notebook that is not trusted, as GitHub does: then the picture stays,
        with a line that says how to get more.
        """
        state = {
            name: value
            for name, value in self.get_state().items()
            if not name.startswith("_") and name not in ("layout", "tabbable", "tooltip", "data")
        }
        state["data"] = base64.b64encode(self.data).decode("ascii")
        # "</" would end the script element that holds the state.
        text = json.dumps(state, sort_keys=True).replace("</", "<\\/")
        module = self._esm.replace("export default ", "const widget = ")
        alive = javascript("static.js")
        page = (
            '<!DOCTYPE html><html><head><meta charset="utf-8">'
            f"<style>html, body {{ margin: 0; overflow: hidden; }}\n{self._css}</style></head>"
            '<body><div id="widget"></div>'
            f'<script type="application/json" id="state">{text}</script>'
            f'<script type="module">\n{module}\n{alive}</script>'
            "</body></html>"
        )
        picture = base64.b64encode(self.still()).decode("ascii")
        return (
            f'<div><img src="data:image/png;base64,{picture}" alt="{html.escape(self.alt)}" '
            f'style="max-width: 100%"><br><small>{STILL}</small></div>'
            f'<iframe title="{html.escape(self.title or "interactive figure")}" '
            'style="display: block; width: 100%; height: 0; border: 0" '
            f'srcdoc="{html.escape(page)}"></iframe>{ON_PAPER}'
        )

    def close(self) -> None:
        """Take the widget from the page. Shown again, it opens again."""
        super().close()
        self.__dict__.pop("_repr_mimebundle_", None)  # ipywidgets puts None there

    def _repr_mimebundle_(self, **options: object) -> dict | tuple[dict, dict]:
        """The stored form, and beside it the live view where a kernel is to answer.

        A page that shows the view ignores the rest; it is what the Jupyter server writes to the
        disk (``course_lib/server.py``).
        """
        stored = {"text/html": self.static_html(), "text/plain": repr(self)}
        if os.environ.get("COURSE_WIDGETS") == "static":
            return stored
        if self.comm is None:  # closed by its cell, and shown again from a variable
            self.open()
        shown(self)
        view, metadata = super()._repr_mimebundle_(**options)
        return view | stored, metadata


class PlayerWidget(CourseWidget):
    """A widget that plays the steps of a trajectory.

    ``step`` (float, 0 ... n_steps − 1; a fraction lies between two stored steps), ``playing`` and
    ``rate`` (steps per second) can be read and set from Python; ``n_steps`` and ``labels`` (one
    name per step, or none) describe the trajectory. With ``whole_steps`` nothing lies between
    two steps, and nothing is shown there: a step is a setting, or a pixel that is written or not.
    """

    step = traitlets.Float(0.0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    n_steps = traitlets.Int(1).tag(sync=True)
    rate = traitlets.Float(1.0).tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    whole_steps = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        *,
        n_steps: int,
        labels: Sequence[str] | None,
        **options: object,
    ) -> None:
        # A trajectory takes about six seconds, but a step never more than one.
        rate = max(1.0, (n_steps - 1) / 6)
        names = check_labels("labels", labels, n_steps)
        super().__init__(arrays, n_steps=n_steps, labels=names, rate=rate, **options)

    @traitlets.validate("step")
    def _step_in_range(self, proposal: dict) -> float:
        step, last = proposal["value"], self.n_steps - 1
        if not 0 <= step <= last:
            raise ValueError(f"step must lie in [0, {last}], got {step}")
        return step

    @traitlets.validate("rate")
    def _rate_positive(self, proposal: dict) -> float:
        check_number("rate", proposal["value"], above=0)
        return proposal["value"]

    def state_at(self, name: str, step: float) -> np.ndarray:
        """One of the arrays at a step; between two steps, their linear mixture."""
        array = self.array(name)
        low = int(min(step, len(array) - 1))
        high = min(low + 1, len(array) - 1)
        return array[low] + (array[high] - array[low]) * (step - low)

    def telling_steps(self, most: int = 3) -> list[int]:
        """Up to ``most`` evenly spread steps for the still picture, the first and last included."""
        return sorted({round(k) for k in np.linspace(0, self.n_steps - 1, most)})

    def step_name(self, step: int) -> str:
        """The step's label, or its number."""
        return self.labels[step] if self.labels else f"step {step}"
