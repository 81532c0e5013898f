"""Parameters of a stack of layers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dfxrm_control.parameters._series import SeriesParameters

__all__ = ["LayerParameters"]


class LayerParameters(SeriesParameters):
    """A stack of layers: one scan at each of several heights of the sample in the line beam."""

    plan: ClassVar[str] = "layer_scan"

    layers: int = Field(default=5, ge=2, le=10_000, description="number of layers")
    step_um: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="distance of the layers along the normal of the beam's plane (laboratory z)",
        json_schema_extra={"units": "um"},
    )
    center_um: float = Field(
        default=0.0,
        ge=-10_000,
        le=10_000,
        description="height of the middle of the stack in the sample, from the layer that is lit now",
        json_schema_extra={"units": "um"},
    )
