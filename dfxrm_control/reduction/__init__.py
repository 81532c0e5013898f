"""From frames to maps: streaming moments, and what they tell of each point of the sample.

`maps_from_file` reduces a recorded scan; ``python -m dfxrm_control.reduction.follow JOURNAL`` does the same while the
scan runs. Both use one accumulator, `Moments`.
"""

from dfxrm_control.reduction._command import CommandAxis, ScanCommand, parse_title
from dfxrm_control.reduction._components import ComponentMap
from dfxrm_control.reduction._curves import CurveWidth, curve_width
from dfxrm_control.reduction._dislocation_fit import (
    Amplitude,
    DislocationFit,
    LayerView,
    dislocation_maps,
    fit_dislocation,
)
from dfxrm_control.reduction._distributions import (
    AxisDistribution,
    Distributions,
    distributions_from_file,
    plot_distributions,
    write_distributions,
)
from dfxrm_control.reduction._domain_files import (
    lattice_field,
    plot_domains,
    read_lattice_field,
    write_domain_table,
    write_domains,
)
from dfxrm_control.reduction._domains import (
    DarkRegion,
    Domain,
    DomainMap,
    LatticeField,
    Segmentation,
    Wall,
    find_domains,
)
from dfxrm_control.reduction._lines import Line, find_lines
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
    draw,
    draw_key,
    mosaicity_rgb,
    new_figure,
    plot_components,
    plot_distribution,
    plot_histograms,
    plot_mosaicity,
    save_figure,
    write_pictures,
)
from dfxrm_control.reduction._setting import Setting
from dfxrm_control.reduction._statistics import Noise, centroid_slope_map
from dfxrm_control.reduction._weak_beam import (
    WeakBeam,
    WeakBeamImage,
    WeakBeamReport,
    flank_displacement,
    inverse_intensity,
    read_weak_beam,
)

__all__ = [
    "Amplitude",
    "AxisDistribution",
    "AxisMaps",
    "BurgersLoops",
    "CommandAxis",
    "ComponentMap",
    "CurveWidth",
    "Dark",
    "DarkFrames",
    "DarkRegion",
    "DislocationFit",
    "DistortionLayer",
    "Distributions",
    "Domain",
    "DomainMap",
    "LatticeField",
    "LayerView",
    "Line",
    "MapSet",
    "MomentMaps",
    "Moments",
    "Noise",
    "NyeMap",
    "NyeMaps",
    "OrientationDistribution",
    "ScanCommand",
    "Segmentation",
    "Setting",
    "Wall",
    "WeakBeam",
    "WeakBeamImage",
    "WeakBeamReport",
    "burgers_loops",
    "centroid_slope_map",
    "curve_width",
    "dislocation_maps",
    "distortion_layer",
    "distributions_from_file",
    "draw",
    "draw_key",
    "find_domains",
    "find_lines",
    "fit_dislocation",
    "flank_displacement",
    "inverse_intensity",
    "kernel_average_misorientation",
    "lattice_field",
    "make_maps",
    "maps_from_file",
    "mosaicity_rgb",
    "new_figure",
    "nye_maps",
    "parse_title",
    "plot_components",
    "plot_distribution",
    "plot_distributions",
    "plot_domains",
    "plot_histograms",
    "plot_mosaicity",
    "plot_nye",
    "read_distortion_layer",
    "read_lattice_field",
    "read_weak_beam",
    "save_figure",
    "write_distributions",
    "write_domain_table",
    "write_domains",
    "write_maps",
    "write_nye",
    "write_pictures",
]
