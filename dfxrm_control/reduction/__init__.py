"""From frames to maps: streaming moments, and what they tell of each point of the sample.

`maps_from_file` reduces a recorded scan; ``python -m dfxrm_control.reduction.follow JOURNAL`` does the same while the
scan runs. Both use one accumulator, `Moments`.
"""

from dfxrm_control.reduction._command import CommandAxis, ScanCommand, parse_title
from dfxrm_control.reduction._components import ComponentMap
from dfxrm_control.reduction._curves import CurveWidth, curve_width
from dfxrm_control.reduction._maps import (
    AxisMaps,
    MapSet,
    OrientationDistribution,
    kernel_average_misorientation,
    make_maps,
    maps_from_file,
)
from dfxrm_control.reduction._moments import Dark, DarkFrames, MomentMaps, Moments
from dfxrm_control.reduction._nexus import write_maps
from dfxrm_control.reduction._nye import BurgersLoops, DistortionLayer, NyeMap, NyeMaps, burgers_loops, nye_maps
from dfxrm_control.reduction._nye_files import distortion_layer, plot_nye, read_distortion_layer, write_nye
from dfxrm_control.reduction._pictures import (
    mosaicity_rgb,
    plot_distribution,
    plot_histograms,
    plot_mosaicity,
    write_pictures,
)
from dfxrm_control.reduction._setting import Setting
from dfxrm_control.reduction._statistics import Noise, centroid_slope_map

__all__ = [
    "AxisMaps",
    "BurgersLoops",
    "CommandAxis",
    "ComponentMap",
    "CurveWidth",
    "Dark",
    "DarkFrames",
    "DistortionLayer",
    "MapSet",
    "MomentMaps",
    "Moments",
    "Noise",
    "NyeMap",
    "NyeMaps",
    "OrientationDistribution",
    "ScanCommand",
    "Setting",
    "burgers_loops",
    "centroid_slope_map",
    "curve_width",
    "distortion_layer",
    "kernel_average_misorientation",
    "make_maps",
    "maps_from_file",
    "mosaicity_rgb",
    "nye_maps",
    "parse_title",
    "plot_distribution",
    "plot_histograms",
    "plot_mosaicity",
    "plot_nye",
    "read_distortion_layer",
    "write_maps",
    "write_nye",
    "write_pictures",
]
