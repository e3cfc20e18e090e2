"""What a reader draws on pixels, as Python holds it: a trait whose value is a mask.

Its other half, strokes and keys, is ``parts/ink.js``.
"""

import numpy as np
import traitlets

__all__ = ["Mask", "mask_text"]


def mask_text(mask: np.ndarray) -> str:
    """A bool array as the browser has it: "1" where it is True and "0" elsewhere, row by row."""
    return "".join("1" if pixel else "0" for pixel in mask.ravel())


class Mask(traitlets.Instance):
    """A trait that is a bool array ``[H, W]``, synchronised as text (``mask_text``).

    Its first value decides about its shape. No value can be changed in place: that would reach no
    browser. Older strokes must not come back from the kernel while the reader draws: no echo.
    """

    def __init__(self) -> None:
        super().__init__(np.ndarray)
        self.tag(
            sync=True,
            echo_update=False,
            to_json=lambda mask, widget: mask_text(mask),
            from_json=lambda text, widget: self.from_text(text, widget),
        )

    def from_text(self, text: str, widget: traitlets.HasTraits) -> np.ndarray:
        """The mask that the browser means, of the shape of the present one."""
        shape = getattr(widget, self.name).shape
        if len(text) != shape[0] * shape[1]:
            pixels = shape[0] * shape[1]
            raise ValueError(f"{self.name} must hold {pixels} pixels, got {len(text)}")
        return np.array([character == "1" for character in text]).reshape(shape)

    def validate(self, obj: traitlets.HasTraits, value: np.ndarray) -> np.ndarray:
        """A copy that cannot be written to."""
        value = super().validate(obj, value)
        before = obj._trait_values.get(self.name)
        shape = value.shape if before is None else before.shape
        if value.dtype != bool or value.shape != shape:
            raise ValueError(
                f"{self.name} must be a bool array of shape {list(shape)}, "
                f"got {value.dtype} {list(value.shape)}"
            )
        value = value.copy()
        value.setflags(write=False)
        return value
