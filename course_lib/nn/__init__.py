"""Building blocks shared by the model families."""

from course_lib.nn.conv import ConvNet
from course_lib.nn.likelihood import (
    bernoulli_log_prob,
    discretized_gaussian_log_prob,
    gaussian_log_prob,
)
from course_lib.nn.masked import MaskedConv2d, MaskedLinear, raster_mask
from course_lib.nn.mlp import MLP
from course_lib.nn.mmdit import (
    JointAttention,
    MMDiT,
    MMDiTBlock,
    modulate,
    patchify,
    sincos_positions,
    unpatchify,
)
from course_lib.nn.placed import Placed
from course_lib.nn.text import TextEncoder, WordTokenizer
from course_lib.nn.time import TimeEmbedding, TimeMLP
from course_lib.nn.transformer import Attention, CrossAttention, KeyValueCache, TransformerBlock
from course_lib.nn.unet import DoublingConv, UNet

__all__ = [
    "MLP",
    "Attention",
    "ConvNet",
    "CrossAttention",
    "DoublingConv",
    "JointAttention",
    "KeyValueCache",
    "MMDiT",
    "MMDiTBlock",
    "MaskedConv2d",
    "MaskedLinear",
    "Placed",
    "TextEncoder",
    "TimeEmbedding",
    "TimeMLP",
    "TransformerBlock",
    "UNet",
    "WordTokenizer",
    "bernoulli_log_prob",
    "discretized_gaussian_log_prob",
    "gaussian_log_prob",
    "modulate",
    "patchify",
    "raster_mask",
    "sincos_positions",
    "unpatchify",
]
