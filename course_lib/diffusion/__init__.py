"""Diffusion models: Gaussian paths from data to noise, and the ways back."""

from course_lib.diffusion.continuous import (
    EDMPath,
    ScaledInput,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
)
from course_lib.diffusion.controlnet import (
    ControlledUNet,
    ControlNet,
    ZeroConv,
)
from course_lib.diffusion.ddim import ddim_invert, ddim_sample, ddim_step, slerp
from course_lib.diffusion.ddpm import DDPM, ddpm_sample
from course_lib.diffusion.denoiser import Denoiser, PredictionError, drop_labels
from course_lib.diffusion.edges import edges
from course_lib.diffusion.edm import EDM, Preconditioned, karras_times
from course_lib.diffusion.edm_samplers import (
    churn_levels,
    churn_step,
    dpm_solver_sample,
    dpm_solver_step,
    extrapolated_guess,
    heun_sample,
)
from course_lib.diffusion.flow_matching import (
    FlowMatching,
    conditional_velocity,
    marginal_velocity,
    optimal_coupling,
)
from course_lib.diffusion.guidance import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    NoisedClassifier,
    class_gradient,
    guide,
)
from course_lib.diffusion.ideal import IdealDenoiser
from course_lib.diffusion.latent_diffusion import (
    ControlledDiffusion,
    Inpainting,
    LatentDiffusion,
    Prompted,
    keep_known,
)
from course_lib.diffusion.ode import (
    ProbabilityFlow,
    SolverError,
    divergence,
    euler_step,
    heun_step,
    ode_encode,
    ode_log_prob,
    ode_sample,
    rk4_step,
)
from course_lib.diffusion.on_path import OnPath, on_path, settings
from course_lib.diffusion.paths import PREDICTIONS, GaussianPath, combine, convert, per_example
from course_lib.diffusion.sampling import last, sampler
from course_lib.diffusion.schedule import DiscreteSchedule, ddim_times
from course_lib.diffusion.score_matching import (
    WEIGHTINGS,
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    weighted_score_matching,
)
from course_lib.diffusion.sde import (
    corrector_step_size,
    euler_maruyama,
    langevin,
    langevin_step,
    predict_score,
    predictor_corrector,
    reverse_sde_step,
    sde_forward,
    sde_step,
    sde_times,
)

__all__ = [
    "DDPM",
    "EDM",
    "PREDICTIONS",
    "WEIGHTINGS",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "ControlNet",
    "ControlledDiffusion",
    "ControlledUNet",
    "Denoiser",
    "DiscreteSchedule",
    "EDMPath",
    "FlowMatching",
    "GaussianPath",
    "IdealDenoiser",
    "Inpainting",
    "LatentDiffusion",
    "NoisedClassifier",
    "OnPath",
    "Preconditioned",
    "PredictionError",
    "ProbabilityFlow",
    "Prompted",
    "ScaledInput",
    "SolverError",
    "StraightPath",
    "SubVPPath",
    "VEPath",
    "VPPath",
    "ZeroConv",
    "churn_levels",
    "churn_step",
    "class_gradient",
    "combine",
    "conditional_velocity",
    "convert",
    "corrector_step_size",
    "ddim_invert",
    "ddim_sample",
    "ddim_step",
    "ddim_times",
    "ddpm_sample",
    "denoising_score_matching",
    "divergence",
    "dpm_solver_sample",
    "dpm_solver_step",
    "drop_labels",
    "edges",
    "euler_maruyama",
    "euler_step",
    "explicit_score_matching",
    "extrapolated_guess",
    "guide",
    "heun_sample",
    "heun_step",
    "implicit_score_matching",
    "karras_times",
    "keep_known",
    "langevin",
    "langevin_step",
    "last",
    "marginal_velocity",
    "ode_encode",
    "ode_log_prob",
    "ode_sample",
    "on_path",
    "optimal_coupling",
    "per_example",
    "predict_score",
    "predictor_corrector",
    "reverse_sde_step",
    "rk4_step",
    "sampler",
    "sde_forward",
    "sde_step",
    "sde_times",
    "settings",
    "slerp",
    "sliced_score_matching",
    "weighted_score_matching",
]
