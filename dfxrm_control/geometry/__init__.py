"""Frames, goniometer, arm and reciprocal-space resolution of a dark-field X-ray microscope.

Laboratory frame: x along the beam, y to the left as seen by a travelling photon, z up (right-handed). Angles in deg,
lengths in mm, unless a name says otherwise. ``docs/explanation/geometry.md`` draws it.
"""

from dfxrm_control.geometry._arm import ArmPositions, arm_positions, arm_two_theta_deg
from dfxrm_control.geometry._frames import (
    canonical_to_frame,
    detector_to_layer,
    detector_to_pixel,
    diffraction_vector,
    frame_to_canonical,
    imaging_basis,
    lab_to_object,
    lab_to_sample,
    layer_to_detector,
    outgoing_direction,
    pixel_to_detector,
    sample_to_lab,
)
from dfxrm_control.geometry._goniometer import goniometer_rotation, motor_axes, motor_jacobian
from dfxrm_control.geometry._resolution import FWHM_PER_SIGMA, Resolution

__all__ = [
    "FWHM_PER_SIGMA",
    "ArmPositions",
    "Resolution",
    "arm_positions",
    "arm_two_theta_deg",
    "canonical_to_frame",
    "detector_to_layer",
    "detector_to_pixel",
    "diffraction_vector",
    "frame_to_canonical",
    "goniometer_rotation",
    "imaging_basis",
    "lab_to_object",
    "lab_to_sample",
    "layer_to_detector",
    "motor_axes",
    "motor_jacobian",
    "outgoing_direction",
    "pixel_to_detector",
    "sample_to_lab",
]
