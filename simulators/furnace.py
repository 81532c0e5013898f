"""What the temperature does to a simulated sample: it expands, drifts, and coarsens."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.config import SampleConfig
from dfxrm_control.errors import ConfigError

from .coarsening import Coarsening, GrowthLaw
from .sample import Sample
from .state import Axes

__all__ = ["Heat"]

AXIS = "temperature"


class Heat:
    """The sample in its furnace.

    Parameters
    ----------
    config : SampleConfig
        Thermal expansion and reference temperature.
    sample : Sample
        The sample before it is heated.
    coarsening : Mapping or None
        Arguments of `GrowthLaw`; None for a sample that stays as it is.
    drift_um_per_k : tuple of float
        Displacement along samx, samy, samz per kelvin, um/K.
    heater_error_k : float
        By how much heating ends off its target, K.

    Raises
    ------
    ConfigError
        For arguments that are not those of the law, or a sample without sub-grains that is to coarsen.
    """

    def __init__(
        self,
        config: SampleConfig,
        sample: Sample,
        coarsening: Mapping[str, Any] | None,
        drift_um_per_k: tuple[float, float, float],
        heater_error_k: float,
    ) -> None:
        self._reference = config.reference_temperature
        self._expansion_per_k = config.expansion_per_k
        self._drift_um_per_k = np.asarray(drift_um_per_k, dtype=float)
        if self._drift_um_per_k.shape != (3,):
            raise ConfigError(
                "backend.options.thermal_drift_um_per_k: three numbers are needed, along samx, samy, samz"
            )
        self._heater_error_k = float(heater_error_k)
        self._law: GrowthLaw | None = None
        if coarsening is not None:
            try:
                self._law = GrowthLaw(**coarsening)
            except TypeError as error:
                raise ConfigError(f"backend.options.coarsening: {error}") from error
        self._coarsening = Coarsening(sample, self._law.migration) if self._law is not None else None
        self._growth_um2 = 0.0
        self._stage = 0
        self._passed_s = 0.0
        self._lock = threading.Lock()
        self.sample = sample

    def temperature(self, axes: Axes, time_s: float) -> float:
        """Return the temperature at a time, degC; the reference temperature where there is no furnace."""
        return axes.position(AXIS, time_s) if AXIS in axes else self._reference

    def strain(self, temperature: float) -> float:
        """Return the isotropic strain at a temperature in degC."""
        return self._expansion_per_k * (temperature - self._reference)

    def drift_mm(self, temperature: float) -> NDArray:
        """Return the displacement along samx, samy, samz at a temperature in degC, mm."""
        return 1e-3 * self._drift_um_per_k * (temperature - self._reference)

    def reached(self, here: float, target: float) -> float:
        """Return where a heater that was sent to ``target`` will end, degC; it can only fail to heat."""
        return max(target + self._heater_error_k, here) if target > here else target

    def pass_time(self, axes: Axes, time_s: float) -> None:
        """Let the sample coarsen until now; call it also before the heater is told something new."""
        if self._law is None or self._coarsening is None or AXIS not in axes:
            return
        with self._lock:
            begin_s, self._passed_s = self._passed_s, max(time_s, self._passed_s)
            arrived_s = min(max(axes.end_s(AXIS), begin_s), self._passed_s)
            for first_s, last_s in ((begin_s, arrived_s), (arrived_s, self._passed_s)):
                if last_s > first_s:
                    self._growth_um2 += self._law.growth_um2(
                        axes.position(AXIS, first_s), axes.position(AXIS, last_s), last_s - first_s
                    )
            stage = self._coarsening.stage(self._growth_um2)
            if stage != self._stage:
                self._stage, self.sample = stage, self._coarsening.sample(stage)
