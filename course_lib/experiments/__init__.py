"""Small studies with a result to look at: what breaks, and why. Notebooks show them."""

from course_lib.experiments.blow_up import far_latents, run_stack, runaway_log_scale
from course_lib.experiments.churn import width_with_churn
from course_lib.experiments.collapse import collapsing_loss, fit_vae
from course_lib.experiments.company import log_prob_in_company
from course_lib.experiments.constant_rate import fit_codes
from course_lib.experiments.dead_codes import dead_codebook, train_codebook
from course_lib.experiments.dependency import coupling_dependencies, dependencies
from course_lib.experiments.discrete_spikes import spiky_log_prob
from course_lib.experiments.forgotten_rescaling import forget_to_rescale
from course_lib.experiments.growing_logits import Growth, growing_logits
from course_lib.experiments.guided_pixels import PixelReport, guided_pixels
from course_lib.experiments.guided_step import guided_mean, tilted_moments
from course_lib.experiments.killed_rank import train_or_die
from course_lib.experiments.leak import fit_coins, leaky_masks
from course_lib.experiments.many_processes import (
    examples_seen,
    forgotten_branch,
    gradient_gap,
    noise_of_average,
)
from course_lib.experiments.nested_gaussians import (
    NestedGaussians,
    guided_precision,
    noised_tilted_score,
    ode_variance,
    sde_variance,
    tilted_precision,
    tilted_variance,
)
from course_lib.experiments.one_peak import climb_to_peak, peak, peak_height
from course_lib.experiments.receptive_field import blind_spot
from course_lib.experiments.reverse_step import ReverseDensity, reverse_density
from course_lib.experiments.sharded_state import sharded_state
from course_lib.experiments.simplest_ddp import sum_of_draws, train_share
from course_lib.experiments.split_loss import split_gradient
from course_lib.experiments.strong_decoder import fit_strength, noisy_copies
from course_lib.experiments.two_clusters import perfect_network, run_clock, run_times
from course_lib.experiments.zero_convolution import pointwise_gradients

__all__ = [
    "Growth",
    "NestedGaussians",
    "PixelReport",
    "ReverseDensity",
    "blind_spot",
    "climb_to_peak",
    "collapsing_loss",
    "coupling_dependencies",
    "dead_codebook",
    "dependencies",
    "examples_seen",
    "far_latents",
    "fit_codes",
    "fit_coins",
    "fit_strength",
    "fit_vae",
    "forget_to_rescale",
    "forgotten_branch",
    "gradient_gap",
    "growing_logits",
    "guided_mean",
    "guided_pixels",
    "guided_precision",
    "leaky_masks",
    "log_prob_in_company",
    "noise_of_average",
    "noised_tilted_score",
    "noisy_copies",
    "ode_variance",
    "peak",
    "peak_height",
    "perfect_network",
    "pointwise_gradients",
    "reverse_density",
    "run_clock",
    "run_stack",
    "run_times",
    "runaway_log_scale",
    "sde_variance",
    "sharded_state",
    "spiky_log_prob",
    "split_gradient",
    "sum_of_draws",
    "tilted_moments",
    "tilted_precision",
    "tilted_variance",
    "train_codebook",
    "train_or_die",
    "train_share",
    "width_with_churn",
]
