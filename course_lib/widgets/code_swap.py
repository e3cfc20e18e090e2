"""``CodeSwap``: the code map of a VQ-VAE, to be painted on, and the image it decodes to."""

import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.checks import check_int
from course_lib.widgets.base import (
    LINE,
    MAX_BYTES,
    CourseWidget,
    one_line,
    pack,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["CodeSwap"]

Array = np.ndarray | torch.Tensor
Decode = Callable[[np.ndarray], Array]
Encode = Callable[[np.ndarray], Array]
Change = tuple[int, int, int]  # example, cell, new code

MOST_EXAMPLES = 12
MOST_CODES = 65_535  # they travel as 16-bit numbers
MOST_CELLS = 32  # of height and width: smaller cells cannot be told apart
MOST_PIXELS = 256  # of height and width
PALETTE_SIZE = 128  # codes to paint with, at most
SMALL_CODEBOOK = 32  # all of its codes can be painted with
ALIKE = 13  # grey levels of 256 by which two swatches differ on average, at most
FEWEST = 8  # codes that a stored example can be painted with, before a second example is stored
BATCH = 128  # maps decoded at once
HINT = "send fewer or smaller examples"


class CodeSwap(CourseWidget):
    """A map of whole numbers that a VQ-VAE decodes to an image; the reader paints the numbers.

    Cells take a code from the palette, or the code that another example has there: the top half of
    a 3 on a 5. Cells that differ from the example's own code are framed. Beside the decoded image
    stands the difference to the image before the last change, which shows how far one code reaches.
    The kernel decodes each map; an answer to a map that has changed in the meantime is not shown.

    Stored without a kernel, the widget holds single changes: for an example, the image that every
    cell makes with every code of the palette, and with the code of every other example. They are
    kept as differences in grey levels (of 256; a difference of one is dropped), compressed. One
    change is then exact to that level; several are the sum of their differences, and the widget
    says which it shows. Of 300 KB, eight codes for the example that is shown are served first, then
    as many other examples, with eight codes each, as fit, and then more codes. What is not stored
    asks for a kernel.

    Args:
        decode: called as ``decode(codes)`` with an int64 array ``[B, h, w]`` of codes 0 ... K − 1.
            Returns images ``[B, H, W]`` or ``[B, 1, H, W]`` in [0, 1], each from its own map alone.
        codes: ``[M, h, w]``, the maps of M <= 12 examples, h and w at most 32.
        n_codes: K, the size of the codebook.
        originals: the M images that the maps were made of, shaped like what ``decode`` returns;
            None shows the decoded ones in their place.
        encode: called as ``encode(images)`` with a float32 array ``[1, 1, H, W]``; returns its map
            ``[1, h, w]``. Where it is given, the reader can encode the decoded image once more and
            see which codes survive.
        title: shown above the map.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument, or what ``decode`` returns, is not as described, or
    where the images need more than 300 KB at two bytes a pixel.

    ``widget.codes`` (the map, as a list of rows; also takes an array or a flat list),
    ``widget.example``, ``widget.brush`` (the code to paint with) and ``widget.source`` (the example
    whose codes are painted instead, or None) can be read and set; a new example brings its own
    codes. ``widget.image`` is the decoded image, and ``widget.error`` says why there is none.
    """

    module = "code_swap.js"

    n_codes = traitlets.Int(1).tag(sync=True)
    palette = traitlets.List(traitlets.Int()).tag(sync=True)
    # An older map must not come back from the kernel while the reader paints: no echo.
    codes = traitlets.Any().tag(sync=True, echo_update=False)
    example = traitlets.Int(0).tag(sync=True, echo_update=False)
    brush = traitlets.Int(0).tag(sync=True, echo_update=False)
    source = traitlets.Int(None, allow_none=True).tag(sync=True, echo_update=False)
    can_encode = traitlets.Bool(False).tag(sync=True)
    # The last answer: {"sequence", "codes", "levels" (0 ... 255, row by row), "error"}. A view
    # shows the image while these are its codes.
    answered = traitlets.Dict().tag(sync=True)
    # Which changes the stored form holds: {"examples": [...], "codes": n}; see `_store`.
    stored = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        decode: Decode,
        codes: Array,
        n_codes: int,
        *,
        originals: Array | None = None,
        encode: Encode | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        if not callable(decode):
            raise ValueError(f"decode must be callable as decode(codes), got {decode!r}")
        if encode is not None and not callable(encode):
            raise ValueError(f"encode must be callable as encode(images) or None, got {encode!r}")
        check_int("n_codes", n_codes, minimum=2, maximum=MOST_CODES)
        self._maps = _whole("codes", to_array("codes", codes, "[M, h, w]", 3), n_codes)
        count, *self._shape = self._maps.shape
        if count > MOST_EXAMPLES:
            raise ValueError(f"codes must hold at most {MOST_EXAMPLES} maps, got {count}")
        if max(self._shape) > MOST_CELLS:
            raise ValueError(
                f"codes must have a height and a width of at most {MOST_CELLS}, got {self._shape}"
            )
        self._decode, self._encode = decode, encode
        self._from_browser = False
        self._count = 0  # of answers to Python
        self._size: list[int] | None = None  # of an image; the first that decode returns says it
        decoded = self._levels(self._maps)
        arrays = {"maps": self._maps, "decoded": decoded}
        if originals is not None:
            images = to_images("originals", originals, count="M", size=self._size)
            arrays["originals"] = to_bytes(images)
            if len(images) != count:
                raise ValueError(f"originals must be as many as codes, {count}, got {len(images)}")
        arrays["swatches"] = self._swatches(n_codes)
        self._arrays, self._decoded = arrays, decoded
        first = self._maps[0].tolist()
        palette = _palette(self._maps, arrays["swatches"])
        super().__init__(
            arrays,
            hint=HINT,
            title=title,
            alt=alt or "A map of codes to paint on, and the image that it decodes to.",
            n_codes=n_codes,
            palette=palette,
            codes=first,
            brush=palette[0],
            can_encode=encode is not None,
            answered={"sequence": "", "codes": first, "levels": _flat(decoded[0]), "error": ""},
        )
        self.on_msg(self._receive)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("codes")
    def _codes_are_a_map(self, proposal: dict) -> list[list[int]]:
        height, width = self._shape
        wanted = f"[{height}, {width}] or [{height * width}]"
        array = to_array("codes", proposal["value"], wanted, 1, 2)
        if list(array.shape) not in ([height, width], [height * width]):
            raise ValueError(f"codes must have shape {wanted}, got {list(array.shape)}")
        return _whole("codes", array, self.n_codes).reshape(height, width).tolist()

    @traitlets.validate("example", "source")
    def _example_exists(self, proposal: dict) -> int | None:
        name = proposal["trait"].name
        if name == "example" or proposal["value"] is not None:
            check_int(name, proposal["value"], minimum=0, maximum=len(self._maps) - 1)
        return proposal["value"]

    @traitlets.validate("brush")
    def _brush_exists(self, proposal: dict) -> int:
        check_int("brush", proposal["value"], minimum=0, maximum=self.n_codes - 1)
        return proposal["value"]

    def set_state(self, sync_data: dict) -> None:
        """Take what a browser sends. It asks for an image, and sends a new example's codes, too."""
        self._from_browser = True
        try:
            super().set_state(sync_data)
        finally:
            self._from_browser = False

    @traitlets.observe("example")
    def _example_changed(self, change: dict) -> None:
        if not self._from_browser:
            self.codes = self._maps[self.example]

    @traitlets.observe("codes")
    def _codes_changed(self, change: dict) -> None:
        answered = self.codes == self.answered["codes"] and not self.error
        if not self._from_browser and not answered:
            self._count += 1
            self._answer(f"python.{self._count}", lambda: self.codes)

    @property
    def image(self) -> np.ndarray:
        """The image as last decoded, float32 ``[H, W]``, in 256 grey levels."""
        return np.array(self.answered["levels"], np.float32).reshape(self._size) / 255

    @property
    def error(self) -> str:
        """Why the last map could not be decoded, in one line; empty where it could."""
        return self.answered["error"]

    # ------------------------------------------------------------------------------------- decoding

    def _levels(self, maps: np.ndarray) -> np.ndarray:
        """The images of maps ``[B, h, w]`` in grey levels, uint8 ``[B, H, W]``."""
        parts = []
        for start in range(0, len(maps), BATCH):
            part = maps[start : start + BATCH].astype(np.int64)  # a copy: decode may change it
            with torch.no_grad():
                answer = self._decode(part)
            images = to_images("what decode returns", answer, size=self._size)
            if len(images) != len(part):
                raise ValueError(
                    f"decode must return an image for each of {len(part)} maps, got {len(images)}"
                )
            if self._size is None:
                self._size = _checked_size(images.shape[1:], self._shape)
            parts.append(to_bytes(images))
        return np.concatenate(parts)

    def encode_again(self) -> None:
        """Encode the decoded image and take its codes. Raises what ``encode`` raises."""
        if self._encode is None:
            raise ValueError("encode must be given to CodeSwap to encode again, got None")
        self._count += 1
        self._answer(f"python.{self._count}", self._encoded)

    def _encoded(self) -> list[list[int]]:
        """The map that ``encode`` makes of the decoded image."""
        name, wanted = "what encode returns", [1, *self._shape]
        with torch.no_grad():
            codes = to_array(name, self._encode(self.image[None, None]), str(wanted), 3)
        if list(codes.shape) != wanted:
            raise ValueError(f"{name} must have shape {wanted}, got {list(codes.shape)}")
        return _whole(name, codes, self.n_codes)[0].tolist()

    def _receive(self, widget: object, content: dict, buffers: list) -> None:
        """Answer a request from the browser; what goes wrong is shown there."""
        asked = {"decode": lambda: content["codes"], "encode": self._encoded}
        if content.get("kind") not in asked:
            return
        try:
            self._answer(content["sequence"], asked[content["kind"]])
        except (Exception, KeyboardInterrupt):
            # `_answer` has told the browser. There is no cell here that could show more.
            return

    def _answer(self, sequence: str, find: Callable[[], list[list[int]]]) -> None:
        """Decode the map that ``find`` returns and publish it with its image."""
        answer = self.answered | {"sequence": sequence, "codes": self.codes, "error": ""}
        try:
            codes = _whole("codes", np.array(find()).reshape(self._shape), self.n_codes)
            levels = _flat(self._levels(codes[None])[0])
        except (Exception, KeyboardInterrupt) as problem:
            self.answered = answer | {"error": one_line(problem)}
            raise
        with self.hold_sync():  # one message, so that no view ever sees half an answer
            self.answered = answer | {"codes": codes.tolist(), "levels": levels}
            if find == self._encoded:  # these codes are new to the browser
                self.codes = codes.tolist()

    def _swatches(self, n_codes: int) -> np.ndarray:
        """What each code looks like: the middle cell of an image made of this code alone."""
        (height, width), (rows, columns) = self._size, self._shape
        tall, wide = -(-height // rows), -(-width // columns)
        top, left = (rows // 2) * height // rows, (columns // 2) * width // columns
        maps = np.arange(n_codes).reshape(-1, 1, 1).repeat(rows, 1).repeat(columns, 2)
        levels = [self._levels(maps[k : k + BATCH]) for k in range(0, n_codes, BATCH)]
        return np.concatenate([part[:, top : top + tall, left : left + wide] for part in levels])

    # ------------------------------------------------------------------------------- single changes

    def _store(self) -> None:
        """Add the single changes that fit to the arrays: see the class's description."""
        room = MAX_BYTES - len(self.data)
        known: dict[Change, bytes] = {}
        best: tuple[list[int], int, bytes] = ([], 0, b"")

        def fits(examples: list[int], n: int) -> bool:
            nonlocal best
            changes = self._changes(examples, n)
            new = [change for change in changes if change not in known]
            known.update(zip(new, self._differences(new), strict=True))
            packed = zlib.compress(b"".join(known[change] for change in changes))
            if len(packed) > room:
                return False
            best = (examples, n, packed)
            return True

        examples, n, most = [self.example], 0, len(self.palette)
        while n < min(FEWEST, most) and fits(examples, n + 1):
            n += 1
        others = [m for m in range(len(self._maps)) if n and m != self.example]
        while others and fits([*examples, others[0]], n):
            examples.append(others.pop(0))
        while FEWEST <= n < most and fits(examples, n + 1):
            n += 1
        examples, n, packed = best
        if packed:
            changes = {"changes": np.frombuffer(packed, np.uint8)}
            self.data, self.arrays = pack(self._arrays | changes, HINT)
        self.stored = {"examples": examples, "codes": n}

    def _changes(self, examples: list[int], n: int) -> list[Change]:
        """The single changes of some examples: ``n`` codes of the palette, and the others' codes.

        code_swap.js goes through them in the same order.
        """
        changes = []
        for m in examples:
            for cell, own in enumerate(self._maps[m].ravel().tolist()):
                others = {int(self._maps[j].flat[cell]) for j in examples}
                new = (others | set(self.palette[:n])) - {own}
                changes += [(m, cell, code) for code in sorted(new)]
        return changes

    def _differences(self, changes: list[Change]) -> list[bytes]:
        """What each change does to the grey levels of the image, modulo 256, a byte a pixel."""
        if not changes:
            return []
        examples = [m for m, _, _ in changes]
        maps = self._maps[examples]
        for changed, (_, cell, code) in zip(maps, changes, strict=True):
            changed.flat[cell] = code
        differences = self._levels(maps).astype(int) - self._decoded[examples]
        differences[np.abs(differences) == 1] = 0
        return [(difference % 256).astype(np.uint8).tobytes() for difference in differences]

    # ---------------------------------------------------------------------------------------- shown

    def static_html(self) -> str:
        """The stored form, with the single changes that a reader without a kernel can make."""
        if not self.stored:
            self._store()
        return super().static_html()

    def still(self) -> bytes:
        """The example, its map with swatches and numbers, changed cells framed, and the image."""
        rows, columns = self._shape
        examples = self._arrays.get("originals", self._decoded) / 255
        figure = Figure(figsize=(7.2, 2.6 * min(max(rows / columns, 0.7), 1.5)))
        left, middle, right = figure.subplots(1, 3, width_ratios=[0.6, 1, 1])
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.9, wspace=0.06)
        _show(left, f"example {self.example + 1}", examples[self.example])
        _show(right, "decoded", self.image)
        self._show_map(middle)
        return png(figure)

    def _show_map(self, ax: Axes) -> None:
        rows, columns = self._shape
        codes, own, swatches = (
            np.array(self.codes),
            self._maps[self.example],
            self.array("swatches"),
        )
        # Each cell a white square with its swatch above the middle, where its number has room.
        _, tall, wide = swatches.shape
        some = np.arange(12)
        cells = np.ones((rows, columns, 20, 20))
        enlarged = swatches[codes][..., some[:, None] * tall // 12, some[None, :] * wide // 12]
        cells[:, :, 2:14, 4:16] = enlarged / 255
        mosaic = cells.swapaxes(1, 2).reshape(20 * rows, 20 * columns)
        _show(ax, f"codes {rows} × {columns}, K = {self.n_codes}", mosaic)
        for (row, column), code in np.ndenumerate(codes):
            changed = code != own[row, column]
            look = {"ec": PALETTE["model"] if changed else LINE, "lw": 1.5 if changed else 0.5}
            place = (20 * column - 0.5, 20 * row - 0.5)
            ax.add_patch(Rectangle(place, 20, 20, fill=False, zorder=2 + changed, **look))
            at = {"ha": "center", "va": "center", "fontsize": min(7, 42 / rows)}
            ax.text(20 * column + 9.5, 20 * row + 16, str(code), **at)


def _flat(levels: np.ndarray) -> list[int]:
    return levels.ravel().tolist()


def _whole(name: str, array: np.ndarray, n_codes: int) -> np.ndarray:
    """Codes as int64, none of them outside the codebook."""
    strange = (array != np.rint(array)) | (array < 0) | (array > n_codes - 1)
    if strange.any():
        raise ValueError(
            f"{name} must hold whole numbers from 0 to {n_codes - 1}, got {array[strange][0]:g}"
        )
    return array.astype(np.int64)


def _palette(maps: np.ndarray, swatches: np.ndarray) -> list[int]:
    """The codes to paint with: those of the examples, most frequent first; then, of a small
    codebook, all others. A code that looks like one before it comes after all that do not: most
    codes of dark images are the background's.
    """
    codes = [code for code, _ in Counter(maps.ravel().tolist()).most_common()]
    if len(swatches) <= SMALL_CODEBOOK:
        codes += sorted(set(range(len(swatches))) - set(codes))
    looks = swatches.astype(float)
    new: list[int] = []
    alike: list[int] = []
    for code in codes:
        seen = any(np.abs(looks[code] - looks[other]).mean() < ALIKE for other in new)
        (alike if seen else new).append(code)
    return (new + alike)[:PALETTE_SIZE]


def _checked_size(size: tuple[int, ...], cells: list[int]) -> list[int]:
    """The size of an image, which needs a pixel for each cell at least."""
    if max(size) > MOST_PIXELS or size[0] < cells[0] or size[1] < cells[1]:
        raise ValueError(
            f"what decode returns must have a height and a width of at most {MOST_PIXELS} and at "
            f"least those of the map, {cells}, got {list(size)}"
        )
    return list(size)


def _show(ax: Axes, name: str, values: np.ndarray) -> None:
    ax.imshow(values, cmap=colour_map("grey"), vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_title(name, fontsize=8)
    pale_frame(ax)
