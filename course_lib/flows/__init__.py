"""Flows: exact densities by invertible transforms and the change of variables."""

from course_lib.flows.base import StandardGaussian, StandardLogistic, Transform
from course_lib.flows.flow import Flow
from course_lib.flows.inpainting import inpaint
from course_lib.flows.nice import NICE
from course_lib.flows.transforms import (
    AdditiveCoupling,
    DiagonalScaling,
    Permutation,
    Planar,
    Standardize,
)

__all__ = [
    "NICE",
    "AdditiveCoupling",
    "DiagonalScaling",
    "Flow",
    "Permutation",
    "Planar",
    "StandardGaussian",
    "StandardLogistic",
    "Standardize",
    "Transform",
    "inpaint",
]
