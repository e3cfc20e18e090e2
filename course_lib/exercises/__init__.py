"""Exercises: check what you wrote, ask for hints, look at the solution.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

from course_lib.exercises import (
    ch01_autoregressive,
    ch02_vae,
    ch03_vq_vae,
    ch04_nice,
    ch05_realnvp_glow,
    ch06_ddpm,
    ch07_ddim,
    ch08_sde,
    ch09_ode,
    ch10_edm,
    ch11_guidance,
    ch12_latent_diffusion,
    ch13_rectified_flow,
    ch14_sd3,
    ch15_flash_attention,
    ch16_scaling_out,
)
from course_lib.exercises.display import Hints, Result, Source, show_source
from course_lib.exercises.registry import check, exercise, exercises, hint, solution

__all__ = [
    "Hints",
    "Result",
    "Source",
    "ch01_autoregressive",
    "ch02_vae",
    "ch03_vq_vae",
    "ch04_nice",
    "ch05_realnvp_glow",
    "ch06_ddpm",
    "ch07_ddim",
    "ch08_sde",
    "ch09_ode",
    "ch10_edm",
    "ch11_guidance",
    "ch12_latent_diffusion",
    "ch13_rectified_flow",
    "ch14_sd3",
    "ch15_flash_attention",
    "ch16_scaling_out",
    "check",
    "exercise",
    "exercises",
    "hint",
    "show_source",
    "solution",
]
