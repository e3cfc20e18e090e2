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
from course_lib.diffusion.flow_matching import (
    FlowMatching,
    conditional_velocity,
    marginal_velocity,
    optimal_coupling,
)
from course_lib.diffusion.ideal import IdealDenoiser
from course_lib.diffusion.paths import PREDICTIONS, GaussianPath, combine, convert, per_example
from course_lib.diffusion.sampling import last, sampler
from course_lib.diffusion.schedule import DiscreteSchedule, ddim_times

__all__ = [
    "DDPM",
    "PREDICTIONS",
    "Denoiser",
    "DiscreteSchedule",
    "FlowMatching",
    "GaussianPath",
    "IdealDenoiser",
    "PredictionError",
    "ScaledInput",
    "StraightPath",
    "SubVPPath",
    "VEPath",
    "VPPath",
    "combine",
    "conditional_velocity",
    "convert",
    "ddim_invert",
    "ddim_sample",
    "ddim_step",
    "ddim_times",
    "ddpm_sample",
    "last",
    "marginal_velocity",
    "optimal_coupling",
    "per_example",
    "sampler",
    "slerp",
]
