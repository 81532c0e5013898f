"""Configuration files: one YAML file per microscope."""

__all__: list[str] = []
