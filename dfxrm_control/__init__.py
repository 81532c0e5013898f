"""dfxrm-control: acquisition and control of a dark-field X-ray microscope."""
