"""Configuration files: one YAML file per microscope."""
