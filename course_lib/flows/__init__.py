"""Flows: exact densities by invertible transforms and the change of variables."""

from course_lib.flows.base import StandardGaussian, StandardLogistic, Transform
from course_lib.flows.cnf import CNF, SolverError
from course_lib.flows.couplings import AdditiveCoupling, AffineCoupling, Coupling
from course_lib.flows.divergence import (
    divergence,
    exact_trace,
    hutchinson_trace,
    random_signs,
)
from course_lib.flows.flow import Flow, chain
from course_lib.flows.glow import Glow
from course_lib.flows.images import ActNorm, InvertibleConv1x1, Logit, Split, Squeeze
from course_lib.flows.inpainting import climb, inpaint, log_prob_gradient
from course_lib.flows.masks import AlternatingMask, ChannelMask, CheckerboardMask, Mask
from course_lib.flows.nice import NICE
from course_lib.flows.realnvp import RealNVP
from course_lib.flows.transforms import DiagonalScaling, Permutation, Planar, Standardize

__all__ = [
    "CNF",
    "NICE",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AlternatingMask",
    "ChannelMask",
    "CheckerboardMask",
    "Coupling",
    "DiagonalScaling",
    "Flow",
    "Glow",
    "InvertibleConv1x1",
    "Logit",
    "Mask",
    "Permutation",
    "Planar",
    "RealNVP",
    "SolverError",
    "Split",
    "Squeeze",
    "StandardGaussian",
    "StandardLogistic",
    "Standardize",
    "Transform",
    "chain",
    "climb",
    "divergence",
    "exact_trace",
    "hutchinson_trace",
    "inpaint",
    "log_prob_gradient",
    "random_signs",
]
