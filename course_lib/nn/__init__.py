"""Building blocks shared by the model families."""

from course_lib.nn.masked import MaskedConv2d, MaskedLinear, raster_mask
from course_lib.nn.mlp import MLP

__all__ = ["MLP", "MaskedConv2d", "MaskedLinear", "raster_mask"]
