"""Autoregressive models: the joint probability as a product of conditionals."""

from course_lib.autoregressive.base import Autoregressive, BinaryAutoregressive
from course_lib.autoregressive.bayes import log_posterior
from course_lib.autoregressive.completion import completion_log_prob
from course_lib.autoregressive.fvsbn import FVSBN, order_mask
from course_lib.autoregressive.history_tables import table_size
from course_lib.autoregressive.made import MADE, made_degrees, made_masks
from course_lib.autoregressive.nade import NADE
from course_lib.autoregressive.pixel_transformer import PixelTransformer
from course_lib.autoregressive.pixelcnn import (
    GatedLayer,
    ImageAutoregressive,
    NaivePixelCNN,
    PixelCNN,
    gate,
)

__all__ = [
    "FVSBN",
    "MADE",
    "NADE",
    "Autoregressive",
    "BinaryAutoregressive",
    "GatedLayer",
    "ImageAutoregressive",
    "NaivePixelCNN",
    "PixelCNN",
    "PixelTransformer",
    "completion_log_prob",
    "gate",
    "log_posterior",
    "made_degrees",
    "made_masks",
    "order_mask",
    "table_size",
]
