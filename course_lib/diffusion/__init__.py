"""Diffusion models: Gaussian paths from data to noise, and the ways back."""

from course_lib.diffusion.continuous import (
    ScaledInput,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
)
from course_lib.diffusion.ddim import ddim_invert, ddim_sample, ddim_step, slerp
from course_lib.diffusion.ddpm import DDPM, ddpm_sample
from course_lib.diffusion.denoiser import Denoiser, PredictionError
from course_lib.diffusion.ideal import IdealDenoiser
from course_lib.diffusion.paths import PREDICTIONS, GaussianPath, combine, convert, per_example
from course_lib.diffusion.sampling import last, sampler
from course_lib.diffusion.schedule import DiscreteSchedule, ddim_times

__all__ = [
    "DDPM",
    "PREDICTIONS",
    "Denoiser",
    "DiscreteSchedule",
    "GaussianPath",
    "IdealDenoiser",
    "PredictionError",
    "ScaledInput",
    "StraightPath",
    "SubVPPath",
    "VEPath",
    "VPPath",
    "combine",
    "convert",
    "ddim_invert",
    "ddim_sample",
    "ddim_step",
    "ddim_times",
    "ddpm_sample",
    "last",
    "per_example",
    "sampler",
    "slerp",
]
