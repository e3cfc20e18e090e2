"""Exercises: check what you wrote, ask for hints, look at the solution."""

from course_lib.exercises import (
    ch01_autoregressive,
    ch02_vae,
    ch03_vq_vae,
    ch04_nice,
    ch05_realnvp_glow,
    ch06_ddpm,
    ch07_ddim,
)
from course_lib.exercises.bayes import log_posterior
from course_lib.exercises.blow_up import far_latents, run_stack, runaway_log_scale
from course_lib.exercises.code_capacity import code_bits
from course_lib.exercises.collapse import collapsing_loss, fit_vae
from course_lib.exercises.dead_codes import dead_codebook, train_codebook
from course_lib.exercises.dependency import coupling_dependencies, dependencies
from course_lib.exercises.discrete_spikes import spiky_log_prob
from course_lib.exercises.display import Hints, Result, Source, show_source
from course_lib.exercises.history_tables import table_size
from course_lib.exercises.leak import leaky_masks
from course_lib.exercises.receptive_field import blind_spot
from course_lib.exercises.registry import check, exercise, exercises, hint, solution
from course_lib.exercises.two_clusters import perfect_network, run_clock, run_times

__all__ = [
    "Hints",
    "Result",
    "Source",
    "blind_spot",
    "ch01_autoregressive",
    "ch02_vae",
    "ch03_vq_vae",
    "ch04_nice",
    "ch05_realnvp_glow",
    "ch06_ddpm",
    "ch07_ddim",
    "check",
    "code_bits",
    "collapsing_loss",
    "coupling_dependencies",
    "dead_codebook",
    "dependencies",
    "exercise",
    "exercises",
    "far_latents",
    "fit_vae",
    "hint",
    "leaky_masks",
    "log_posterior",
    "perfect_network",
    "run_clock",
    "run_stack",
    "run_times",
    "runaway_log_scale",
    "show_source",
    "solution",
    "spiky_log_prob",
    "table_size",
    "train_codebook",
]
