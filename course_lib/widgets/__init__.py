"""What the reader drags: interactive figures that draw in the browser.

A widget is given arrays and imports no model. See ``base.py`` for what widgets share.
"""

from course_lib.widgets.base import CourseWidget, PlayerWidget
from course_lib.widgets.beta_explorer import BetaExplorer
from course_lib.widgets.code_swap import CodeSwap
from course_lib.widgets.contour_pad import ContourPad
from course_lib.widgets.cost import Cost
from course_lib.widgets.crossing_lines import CrossingLines
from course_lib.widgets.density_warp import DensityWarp
from course_lib.widgets.design_space import DesignSpace
from course_lib.widgets.diagram import show_diagram
from course_lib.widgets.dissolve import Dissolve
from course_lib.widgets.fan_of_paths import FanOfPaths
from course_lib.widgets.figures import image_grid, show_figure
from course_lib.widgets.fluid import Fluid
from course_lib.widgets.guided_plane import GuidedPlane
from course_lib.widgets.image_player import ImagePlayer
from course_lib.widgets.inpaint import Inpaint
from course_lib.widgets.interpolation import Interpolation
from course_lib.widgets.joint_attention_map import JointAttentionMap
from course_lib.widgets.langevin import Langevin
from course_lib.widgets.latent_plane import LatentPlane, corner_shares
from course_lib.widgets.mask_explorer import MaskExplorer
from course_lib.widgets.operating_point import OperatingPoint
from course_lib.widgets.palette import CLASS_COLOURS, MAPS, PALETTE, THEMES, colour_map
from course_lib.widgets.particle_player import ParticlePlayer
from course_lib.widgets.pixel_by_pixel import PixelByPixel
from course_lib.widgets.point_cloud import PointCloud
from course_lib.widgets.preconditioning import Preconditioning
from course_lib.widgets.prompt_box import PromptBox
from course_lib.widgets.receptive_field import ReceptiveField
from course_lib.widgets.reparameterization import Reparameterization
from course_lib.widgets.ring import Ring
from course_lib.widgets.roofline import (
    Roofline,
    attainable_speed,
    attention_costs,
    least_seconds,
)
from course_lib.widgets.running_maximum import RunningMaximum
from course_lib.widgets.same_noise import SameNoise
from course_lib.widgets.sample_table import SampleTable
from course_lib.widgets.scale_mixer import ScaleMixer
from course_lib.widgets.solver_race import SolverRace
from course_lib.widgets.tiles import Tiles
from course_lib.widgets.time_sampling import TimeSampling
from course_lib.widgets.timeline import Timeline
from course_lib.widgets.uncross import Uncross
from course_lib.widgets.vector_field import VectorField
from course_lib.widgets.voronoi import Voronoi
from course_lib.widgets.word_attention import WordAttention

__all__ = [
    "CLASS_COLOURS",
    "MAPS",
    "PALETTE",
    "THEMES",
    "BetaExplorer",
    "CodeSwap",
    "ContourPad",
    "Cost",
    "CourseWidget",
    "CrossingLines",
    "DensityWarp",
    "DesignSpace",
    "Dissolve",
    "FanOfPaths",
    "Fluid",
    "GuidedPlane",
    "ImagePlayer",
    "Inpaint",
    "Interpolation",
    "JointAttentionMap",
    "Langevin",
    "LatentPlane",
    "MaskExplorer",
    "OperatingPoint",
    "ParticlePlayer",
    "PixelByPixel",
    "PlayerWidget",
    "PointCloud",
    "Preconditioning",
    "PromptBox",
    "ReceptiveField",
    "Reparameterization",
    "Ring",
    "Roofline",
    "RunningMaximum",
    "SameNoise",
    "SampleTable",
    "ScaleMixer",
    "SolverRace",
    "Tiles",
    "TimeSampling",
    "Timeline",
    "Uncross",
    "VectorField",
    "Voronoi",
    "WordAttention",
    "attainable_speed",
    "attention_costs",
    "colour_map",
    "corner_shares",
    "image_grid",
    "least_seconds",
    "show_diagram",
    "show_figure",
]
