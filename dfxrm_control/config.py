"""Models of the configuration files: one YAML file describes one microscope.

`InstrumentConfig` is pure description (optics, beam, cameras, geometry); it travels with every run so that a
record can be understood without the configuration file. `MicroscopeConfig` is the whole file: the instrument,
and which control system speaks for each axis, channel and camera. Only models and the reading of a file live
here; what the import strings name is resolved by the session.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dfxrm_control.errors import ConfigError

__all__ = [
    "CATALOGUE",
    "AxisConfig",
    "BeamConfig",
    "BodyConfig",
    "BodyMotion",
    "CRLConfig",
    "CameraConfig",
    "ChannelConfig",
    "ControlsConfig",
    "DataConfig",
    "DeviceConfig",
    "EpicsControl",
    "InstrumentConfig",
    "MLLConfig",
    "MicroscopeConfig",
    "MonochromatorConfig",
    "NoiseConfig",
    "SampleConfig",
    "ScanDefaults",
    "ServeConfig",
    "TangoControl",
    "config_names",
    "config_path",
    "find_config",
    "load_config",
    "one_sentence",
    "override",
    "yaml_mapping",
]

IMPORT_STRING = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
MODULE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
CATALOGUE = r"^(embedded|none|https?://[^\s/]+(/\S*)?)$"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """A model that refuses unknown names and cannot be changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CRLConfig(Strict):
    """A compound refractive lens: N equal bi-parabolic lenslets (Simons et al. 2017, J. Synchrotron Rad. 24, 392)."""

    kind: Literal["crl"] = "crl"
    lenslets: int = Field(gt=0, description="N, number of lenslets")
    radius_mm: Positive = Field(description="R, apex radius of curvature of one parabola, mm")
    pitch_mm: Positive = Field(description="T, distance between lenslet centres, mm")
    web_mm: NonNegative = Field(default=0.03, description="material left between the two apices, mm")
    material: str = Field(default="Be", description="chemical formula")
    density_g_cm3: Positive | None = Field(default=None, description="density, g/cm3; default: the database's")
    delta: Positive | None = Field(default=None, description="refractive decrement, if not from the database")
    attenuation_per_m: Positive | None = Field(default=None, description="mu in 1/m, if not from the database")
    distance_mm: Positive = Field(description="d_c, sample to lens centre on the arm, mm")
    aberration_um: NonNegative = Field(default=0.0, description="FWHM blur by lens aberrations, on the sample, um")


class MLLConfig(Strict):
    """Two crossed multilayer Laue lenses (zone law x_n^2 = n lambda f; f is proportional to the energy)."""

    kind: Literal["mll"] = "mll"
    focal_length_h_mm: Positive = Field(
        description="focal length of the horizontally focusing lens at design energy, mm"
    )
    focal_length_v_mm: Positive = Field(description="focal length of the vertically focusing lens at design energy, mm")
    design_energy_kev: Positive
    outermost_zone_nm: Positive = Field(description="dr_N, width of the outermost zone, nm")
    aperture_h_um: Positive
    aperture_v_um: Positive
    efficiency_h: float = Field(gt=0, le=1, description="diffraction efficiency of one lens at the design tilt")
    efficiency_v: float = Field(gt=0, le=1)
    tilt_acceptance_rad: Positive = Field(
        default=2e-3, description="rms tilt error at which the efficiency is down to exp(-1/2)"
    )
    distance_mm: Positive = Field(description="sample to the centre between the two lenses, on the arm, mm")
    separation_mm: NonNegative = Field(default=0.0, description="distance between the two lenses along the arm, mm")
    aberration_um: NonNegative = 0.0


class BeamConfig(Strict):
    """The beam on the sample, as rms or FWHM of stated things."""

    energy_kev: Positive = Field(description="energy of the beam where there is no monochromator to ask, keV")
    bandwidth_rms: Positive = Field(default=6.0e-5, description="eps, rms relative energy spread")
    divergence_v_rms_rad: NonNegative = Field(
        default=2.25e-4, description="rms divergence in the scattering plane, rad"
    )
    divergence_v_cut_rad: Positive | None = Field(
        default=None,
        description="the divergence in the scattering plane ends sharply at plus and minus this, rad "
        "(the aperture of a condenser)",
    )
    divergence_h_rms_rad: NonNegative = Field(
        default=0.0, description="rms divergence out of the scattering plane, rad"
    )
    line_height_um: Positive = Field(default=0.6, description="FWHM height of the line beam, um")
    box_height_um: Positive = Field(default=300.0, description="height of the box beam at open slits, um")
    ring_current_ma: Positive = Field(default=200.0, description="ring current that the nominal flux belongs to, mA")


class MonochromatorConfig(Strict):
    """A crystal monochromator: E = hc / (2 d sin(angle))."""

    name: str = "channel-cut Si 111"
    d_spacing_angstrom: Positive = Field(default=3.135012, description="d used to turn the angle into an energy")


class NoiseConfig(Strict):
    """Noise of an sCMOS camera: adu = round(gain Poisson(s/gain) + offset + fixed pattern + read noise).

    Fitted to ID03 darks and a photon-transfer sweep (dfxm-geo, ``detector-noise-model.md``).
    """

    offset_adu: NonNegative = 102.5
    offset_rate_adu_per_s: NonNegative = 7.5
    gain_adu_per_photon: Positive = 2.14
    read_variance_adu2: NonNegative = 6.3
    dark_variance_rate_adu2_per_s: NonNegative = 11.0
    fixed_pattern_adu: NonNegative = 1.8
    warm_fraction: float = Field(default=0.015, ge=0, lt=1)
    warm_scale_adu: NonNegative = 10.0
    edge_rows: int = Field(default=16, ge=0)
    edge_adu: NonNegative = 25.0
    saturation_adu: int = Field(default=65535, gt=0, le=65535)


class CameraConfig(Strict):
    """A camera: its pixels, its visible-light objectives, its orientation and what it may be asked for."""

    position: Literal["far_field", "near_field"] = "far_field"
    rows: int = Field(default=2048, gt=0)
    columns: int = Field(default=2048, gt=0)
    pixel_um: Positive = Field(default=6.5, description="pixel of the sensor, um")
    objectives: dict[str, Positive] = Field(
        default={"10x": 10.0, "2x": 2.0}, description="visible objectives: magnification by name"
    )
    flip_ud: bool = Field(default=False, description="rows run upwards")
    flip_lr: bool = Field(default=False, description="columns run to the left as seen by the photons")
    min_exposure_s: Positive = 1e-4
    max_exposure_s: Positive = 60.0
    readout_s: NonNegative = Field(default=0.01, description="dead time after each exposure, s")
    frames_per_file: int = Field(
        default=1000, gt=0, description="frames per file where no plan says how long a line is"
    )
    noise: NoiseConfig = NoiseConfig()


class InstrumentConfig(Strict):
    """The microscope as physics sees it; recorded with every run."""

    mu_sign: Literal[-1, 1] = Field(
        default=-1, description="mu turns about mu_sign * y (-1: positive mu tips z against the beam)"
    )
    sample_stage: Literal["above", "below"] = Field(
        default="above", description="sample translations above or below the rotations"
    )
    beam: BeamConfig
    monochromator: MonochromatorConfig | None = MonochromatorConfig()
    objectives: dict[str, Annotated[CRLConfig | MLLConfig, Field(discriminator="kind")]]
    cameras: dict[str, CameraConfig]
    motor_names: dict[str, str] = Field(
        default={},
        description="logical axis -> name written into titles and positioner groups "
        "(darling knows chi, phi, mu, omega, diffry, ccmth, obpitch, ...)",
    )

    @model_validator(mode="after")
    def _has_parts(self) -> InstrumentConfig:
        if not self.objectives:
            raise ValueError("objectives: at least one objective is needed")
        if not self.cameras:
            raise ValueError("cameras: at least one camera is needed")
        return self


class SampleConfig(Strict):
    """The crystal in the beam and the reflection that is imaged."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$", description="also the folder name of its data")
    lattice: tuple[Positive, Positive, Positive, Positive, Positive, Positive] = Field(
        description="a, b, c in angstrom, alpha, beta, gamma in deg"
    )
    space_group: str = "P 1"
    atoms: tuple[tuple[str, Finite, Finite, Finite], ...] = Field(
        default=(), description="element and fractional position"
    )
    hkl: tuple[int, int, int]
    spread_deg: NonNegative = Field(
        default=0.1, description="half width of the tilts expected in the field of view, deg"
    )
    spread_strain: NonNegative = Field(
        default=2e-4, description="half width of the axial strains expected in the field of view"
    )
    expansion_per_k: Finite = Field(
        default=0.0, description="linear thermal expansion coefficient, 1/K: strain per kelvin above the reference"
    )
    reference_temperature: Finite = Field(
        default=25.0, description="temperature at which the lattice has the spacings given above, degC"
    )


class AxisConfig(Strict):
    """One motor: the control system that speaks for it, its address there, and its bounds."""

    control: Literal["memory", "epics", "tango"] = "memory"
    address: str = Field(default="", description="name at the control system; default: the logical name")
    units: Literal["mm", "deg", "keV", "degC"] = "deg"
    limits: tuple[Finite, Finite] | None = Field(
        default=None, description="lowest and highest allowed position; an axis without is not moved"
    )
    velocity: Positive = 1.0
    acceleration_s: NonNegative = 0.05
    backlash: Finite = 0.0
    tolerance: Positive = Field(default=1e-3, description="largest distance from the target that counts as arrived")
    precision: int = Field(default=5, ge=0, le=9, description="decimals shown and recorded in descriptors")
    start: Finite | None = Field(
        default=None, description="position at start-up of the simulated axis, and of a dry run"
    )
    extra_timeout_s: Positive = Field(
        default=10.0, description="added to the computed duration of a move before it counts as stalled"
    )

    @model_validator(mode="after")
    def _ordered(self) -> AxisConfig:
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"limits: {self.limits[0]:g} must be below {self.limits[1]:g}")
        if self.limits is not None and self.start is not None and not self.limits[0] <= self.start <= self.limits[1]:
            raise ValueError(f"start: {self.start:g} is outside the limits {self.limits[0]:g} .. {self.limits[1]:g}")
        return self


class ChannelConfig(Strict):
    """One signal that is no motor: a shutter, an attenuator, a current."""

    control: Literal["memory", "epics", "tango"] = "memory"
    address: str = ""
    readback: str = Field(default="", description="address it is read from, where that is not the one it is set at")
    read_only: bool = False
    choices: tuple[str, ...] | None = Field(default=None, description="the words it takes, where it takes words")
    words: dict[str, str] = Field(
        default={}, description="the control system's own word for each of the choices, where it has another"
    )
    set_words: dict[str, str] = Field(
        default={}, description="the word that each of the choices is set by, where that is not the one it reads"
    )
    units: str = ""
    tolerance: NonNegative = Field(
        default=0.0, description="largest difference from what was asked that counts as reached, where it takes numbers"
    )
    timeout_s: Positive = Field(default=5.0, description="longest wait until it is what it was set to, s")

    @model_validator(mode="after")
    def _translatable(self) -> ChannelConfig:
        for name, words in (("words", self.words), ("set_words", self.set_words)):
            if unknown := sorted(set(words) - set(self.choices or ())):
                choices = ", ".join(self.choices or ()) or "there are none"
                raise ValueError(f"{name}: {', '.join(unknown)} is none of the choices ({choices})")
        if len(set(self.words.values())) < len(self.words):
            raise ValueError("words: two choices cannot have the same word at the control system")
        return self


class RegionConfig(Strict):
    """The part of a camera's sensor that its frames are."""

    first_row: int = Field(ge=0, description="of the sensor")
    first_column: int = Field(ge=0)
    rows: int = Field(gt=0)
    columns: int = Field(gt=0)


class CameraControl(Strict):
    """The control system that speaks for a camera of the instrument."""

    control: Literal["memory", "epics", "tango"] = "memory"
    address: str = ""
    region: RegionConfig | None = Field(
        default=None, description="part of the sensor that is to be read; default: whatever the camera is set to"
    )
    timeout_s: Positive = Field(default=10.0, description="added to the exposure before a frame counts as lost")

    @model_validator(mode="after")
    def _can_be_told(self) -> CameraControl:
        if self.region is not None and self.control != "epics":
            raise ValueError(
                f"region: only an areaDetector (control: epics) is told one, not a camera on {self.control}"
            )
        return self


class DeviceConfig(Strict):
    """One logical device: its class by import string, its axes, channels and camera by logical name."""

    device: str = Field(pattern=IMPORT_STRING, description="import string module:Class")
    axes: dict[str, AxisConfig] = {}
    channels: dict[str, ChannelConfig] = {}
    camera: CameraControl | None = None
    settings: dict[str, Finite] = Field(
        default={}, description="numbers that this kind of device takes, e.g. the over-temperature of a furnace"
    )

    def parts(self) -> list[AxisConfig | ChannelConfig | CameraControl]:
        """Return everything of it that a control system speaks for."""
        camera = [] if self.camera is None else [self.camera]
        return [*self.axes.values(), *self.channels.values(), *camera]


class BackendConfig(Strict):
    """What stands behind the in-memory axes."""

    backend: str = Field(pattern=IMPORT_STRING)
    options: dict[str, Any] = {}


class EpicsControl(Strict):
    """Where this process looks for EPICS servers; it is set before the first of them is looked for."""

    addresses: tuple[Annotated[str, Field(pattern=r"^[^\s:]+(:\d+)?$")], ...] = Field(
        min_length=1, description="host or host:port of each server or gateway (EPICS_CA_ADDR_LIST)"
    )
    search: bool = Field(
        default=False, description="whether servers are also looked for on all networks (EPICS_CA_AUTO_ADDR_LIST)"
    )
    repeater: bool = Field(
        default=True, description="false: no caRepeater is started, which would outlive this process"
    )


class TangoControl(Strict):
    """Where this process finds the Tango database."""

    database: str = Field(pattern=r"^[^\s:]+:\d+(,[^\s:]+:\d+)*$", description="host:port (TANGO_HOST)")


class ControlsConfig(Strict):
    """How this process finds the control systems; where nothing is said, its environment stands."""

    epics: EpicsControl | None = None
    tango: TangoControl | None = None


class ServeConfig(Strict):
    """What ``dfxrm serve`` starts in place of a beamline. A session imports none of it."""

    twin: BackendConfig | None = Field(
        default=None, description="what the state server holds; default: the backend of the configuration"
    )
    state_server: str = Field(
        default="simulators.state_server", pattern=MODULE, description="module, run in a process of its own"
    )
    client: str = Field(
        default="simulators:RemoteTwin",
        pattern=IMPORT_STRING,
        description="the backend by which a session's in-memory parts talk to the state server",
    )
    servers: dict[Literal["epics", "tango"], Annotated[str, Field(pattern=MODULE)]] = Field(
        default={"epics": "simulators.epics", "tango": "simulators.tango"},
        description="module of the server of each control system, run in a process of its own",
    )


class DataConfig(Strict):
    """Where records go. Relative folders are taken from the working directory."""

    directory: Path = Path("dfxrm-data")
    journal_directory: Path = Field(
        default=Path("dfxrm-journal"), description="a local disk, not the one the frames go to"
    )
    minimum_free_gb: NonNegative = 1.0
    log_megabytes: Positive = Field(
        default=20.0, description="length at which a log file is closed and a new one begun"
    )
    log_files: int = Field(default=10, ge=1, le=1000, description="older log files that are kept")
    catalogue: Annotated[str, Field(pattern=CATALOGUE)] = Field(
        default="embedded",
        description="Tiled catalogue of the runs: embedded, beside the journals; none; or a server (http://host:port)",
    )


class ScanDefaults(Strict):
    """What a scan does where its parameters do not say."""

    rock: str = Field(default="phi", description="logical axis that rocks")
    roll: str = "chi"
    camera: str = "far_field"
    darks: int = Field(default=100, ge=0)
    after: Literal["start", "stay"] = Field(default="start", description="where scanned motors are left")
    parameters: dict[str, dict[str, Any]] = Field(
        default={}, description="plan name -> parameters it runs with where none are given"
    )


class SessionConfig(Strict):
    """How a session binds devices to plans, by import strings; what is here fits the plans of this distribution."""

    instrument: str = Field(default="plans:Instrument", pattern=IMPORT_STRING, description="what plans are given")
    bind: str = Field(default="plans:bind", pattern=IMPORT_STRING, description="fills an instrument into a plan")
    clock: str = Field(
        default="devices:Clock",
        pattern=IMPORT_STRING,
        description="given the backend, it is what waiting plans wait for",
    )
    conditions: str = Field(
        default="devices.conditions:Conditions",
        pattern=IMPORT_STRING,
        description="looks at what `protection` asks for",
    )
    annotation: str = Field(
        default="plans:queue_annotation", pattern=IMPORT_STRING, description="describes a bound plan to a queue server"
    )
    preprocessors: tuple[Annotated[str, Field(pattern=IMPORT_STRING)], ...] = Field(
        default=("plans:full_record",),
        description="called with the instrument, each returns what the RunEngine sends every plan through",
    )


class BodyMotion(Strict):
    """How a motor carries a body: along or about an axis of the frame that the motions before it have carried."""

    axis: str = Field(description="logical name of the motor")
    along: Literal["x", "y", "z"] | None = Field(default=None, description="carried along, mm")
    about: Literal["x", "y", "z"] | None = Field(default=None, description="turned about, right-handed, deg")
    sign: Literal[-1, 1] = Field(default=1, description="-1: the motor counts the other way round")
    zero: Finite = Field(default=0.0, description="position of the motor at which it carries nowhere, mm or deg")

    @model_validator(mode="after")
    def _one_way(self) -> BodyMotion:
        if (self.along is None) == (self.about is None):
            raise ValueError(f"axis {self.axis!r} carries either along or about an axis: give one of the two")
        return self


class BodyConfig(Strict):
    """A box that something of the microscope fits into, and the motors that carry it (`dfxrm_control.envelopes`)."""

    size: tuple[Positive, Positive, Positive] = Field(description="along x (beam), y (left) and z (up), mm")
    centre: tuple[Finite, Finite, Finite] = Field(
        default=(0.0, 0.0, 0.0), description="of the box in the frame that its motors carry, mm; 0 is the sample"
    )
    motions: tuple[BodyMotion, ...] = Field(default=(), description="outermost first; none: it stands fixed")
    present: dict[str, str] = Field(
        default={}, description="channel -> the word at which the body is there; in any other it is not"
    )
    clearance: NonNegative = Field(default=1.0, description="smallest distance that it keeps from others, mm")
    may_meet: tuple[str, ...] = Field(default=(), description="bodies that it may touch, e.g. what it is mounted on")


class ConditionConfig(Strict):
    """What one channel must read while frames are taken."""

    channel: str = Field(description="logical name of the channel")
    at_least: Finite | None = Field(default=None, description="smallest value, in the channel's unit")
    at_most: Finite | None = Field(default=None, description="largest value, in the channel's unit")
    word: str | None = Field(default=None, description="the word it must read")
    then: Literal["wait", "end"] = Field(
        default="wait", description="wait: the scan waits until it is so again; end: the run is ended"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> ConditionConfig:
        bounds = self.at_least is not None or self.at_most is not None
        if bounds == (self.word is not None):
            raise ValueError(f"a condition on {self.channel} needs either a word, or at_least and/or at_most")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"no value of {self.channel} is at least {self.at_least:g} and at most {self.at_most:g}")
        return self


class ProtectionConfig(Strict):
    """What must be so before and while frames are taken, and what happens where it is not."""

    conditions: dict[str, ConditionConfig] = Field(default={}, description="by name")
    settle_s: NonNegative = Field(default=10.0, description="how long all must be well again before a scan goes on, s")
    patience_s: Positive = Field(default=86400.0, description="longest wait until all is well again, s")
    at_start: Literal["wait", "refuse"] = Field(
        default="wait", description="what becomes of a run that is begun while something is not as it should be"
    )


class DryRunConfig(Strict):
    """What a dry run cannot know from limits, speeds and exposures."""

    point_s: NonNegative = Field(default=0.0, description="measured time that each frame costs beside all else, s")
    line_s: NonNegative = Field(default=0.0, description="measured time that each line of frames costs more, s")
    run_s: NonNegative = Field(default=0.0, description="measured time that each run costs more, s")
    cannot: dict[str, str] = Field(
        default={}, description="plan -> why it cannot run on this microscope as it is configured"
    )


class MicroscopeConfig(Strict):
    """One configuration file."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")
    description: str = ""
    instrument: InstrumentConfig
    sample: SampleConfig
    backend: BackendConfig | None = None
    controls: ControlsConfig = ControlsConfig()
    serve: ServeConfig = ServeConfig()
    devices: dict[str, DeviceConfig]
    plans: dict[str, Annotated[str, Field(pattern=IMPORT_STRING)]] = Field(
        default={}, description="plan name -> import string"
    )
    session: SessionConfig = SessionConfig()
    data: DataConfig = DataConfig()
    scan: ScanDefaults = ScanDefaults()
    protection: ProtectionConfig = ProtectionConfig()
    bodies: dict[str, BodyConfig] = Field(default={}, description="what must not meet, by name")
    dry_run: DryRunConfig = DryRunConfig()

    @model_validator(mode="after")
    def _consistent(self) -> MicroscopeConfig:
        seen: dict[str, str] = {}
        for device, parts in self.devices.items():
            for logical in [*parts.axes, *parts.channels]:
                if logical in seen:
                    raise ValueError(
                        f"devices: {logical!r} stands in both {seen[logical]!r} and {device!r}; "
                        f"a logical name is used once"
                    )
                seen[logical] = device
            if parts.camera is not None and device not in self.instrument.cameras:
                raise ValueError(
                    f"devices: camera {device!r} is not described under instrument.cameras "
                    f"({', '.join(self.instrument.cameras)})"
                )
        return self

    @model_validator(mode="after")
    def _conditions_are_on_channels(self) -> MicroscopeConfig:
        channels = {channel: part for parts in self.devices.values() for channel, part in parts.channels.items()}
        for name, condition in self.protection.conditions.items():
            channel = channels.get(condition.channel)
            if channel is None:
                raise ValueError(
                    f"protection.conditions.{name}: no device has the channel {condition.channel!r}; a condition that "
                    f"is not there is taken away by conditions: {{{name}: null}}"
                )
            if condition.word is not None and condition.word not in (channel.choices or ()):
                raise ValueError(
                    f"protection.conditions.{name}: {condition.channel} reads "
                    f"{' or '.join(channel.choices) if channel.choices else 'numbers'}, never {condition.word!r}"
                )
            if condition.word is None and channel.choices is not None:
                raise ValueError(
                    f"protection.conditions.{name}: {condition.channel} reads {' or '.join(channel.choices)}, no number"
                )
        return self

    @model_validator(mode="after")
    def _bodies_are_carried(self) -> MicroscopeConfig:
        axes = {axis: part for parts in self.devices.values() for axis, part in parts.axes.items()}
        channels = {channel: part for parts in self.devices.values() for channel, part in parts.channels.items()}
        for name, body in self.bodies.items():
            for motion in body.motions:
                if motion.axis not in axes:
                    raise ValueError(
                        f"bodies.{name}: no device has the axis {motion.axis!r}; a body that is not there is taken "
                        f"away by bodies: {{{name}: null}}"
                    )
                wanted = "mm" if motion.along else "deg"
                if axes[motion.axis].units != wanted:
                    way = f"along {motion.along}" if motion.along else f"about {motion.about}"
                    raise ValueError(f"bodies.{name}: {motion.axis} is in {axes[motion.axis].units}, not carried {way}")
            for channel, word in body.present.items():
                if word not in (channels[channel].choices or () if channel in channels else ()):
                    raise ValueError(f"bodies.{name}.present: no device has a channel {channel!r} that can be {word!r}")
            if unknown := sorted(set(body.may_meet) - set(self.bodies)):
                raise ValueError(f"bodies.{name}.may_meet: there is no body {unknown[0]!r}")
        if unknown := sorted(set(self.dry_run.cannot) - set(self.plans)):
            raise ValueError(f"dry_run.cannot: there is no plan {unknown[0]!r}")
        return self

    def axis(self, logical: str) -> AxisConfig:
        """Return the configuration of an axis by logical name.

        Raises
        ------
        ConfigError
            When no device has such an axis; the message lists those that exist.
        """
        for parts in self.devices.values():
            if logical in parts.axes:
                return parts.axes[logical]
        known = ", ".join(sorted(name for parts in self.devices.values() for name in parts.axes))
        raise ConfigError(f"axis {logical!r} is not in configuration {self.name!r}; it has {known}")


def one_sentence(error: ValidationError, what: str) -> str:
    """Return a pydantic error as one sentence: the first fault, what was given, and how many more there are."""
    faults = error.errors(include_url=False)
    first = faults[0]
    steps = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    where = "".join(steps).removeprefix(".") or "the file as a whole"
    reason = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in {"missing", "value_error"} else f" (got {first['input']!r})"
    if first["type"] == "dict_type":
        reason = "must be a mapping, such as '{name: value}'"
    if first["type"] == "extra_forbidden":
        reason, given = "there is no such setting", ""
    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{what}: {where}: {reason}{given}{more}"


def load_config(path: Path) -> MicroscopeConfig:
    """Read and check one configuration file.

    A file that says ``extends: NAME`` starts from another one: the name of a configuration of the distribution, or the
    path of a file (relative to this one). Its own settings are laid over that one's, group by group; ``null`` takes a
    setting away.

    Parameters
    ----------
    path : Path
        YAML file.

    Raises
    ------
    ConfigError
        When the file is absent, is no YAML or does not fit the model; one sentence says where.
    """
    content = _read_layers(path, ())
    try:
        return MicroscopeConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(one_sentence(error, f"configuration {path}")) from error


def _read_layers(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return the settings of a file laid over those of the file it extends."""
    if path.resolve() in above:
        raise ConfigError(f"configuration {path} extends itself by way of {', '.join(str(file) for file in above)}")
    content = _read_yaml(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"configuration {path}: extends: must name one configuration, not {base!r}")
    below = config_path(base, path.parent)
    return _laid_over(_read_layers(below, (*above, path.resolve())), content)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = _laid_over(merged[name], value)
        else:
            merged[name] = value
    return merged


class _Loader(yaml.SafeLoader):
    """YAML in which a setting given twice is an error, as YAML itself demands; PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node; a key that stands in it twice is an error."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"configuration {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"configuration {path} is no UTF-8 text") from error
    return yaml_mapping(text, f"configuration {path}")


def yaml_mapping(text: str, what: str) -> dict[str, Any]:
    """Return the mapping that a YAML text is; no tag of it makes anything but plain data.

    Parameters
    ----------
    text : str
        YAML.
    what : str
        What the text is; begins the sentence of an error.

    Raises
    ------
    ConfigError
        When it is no YAML, gives a key twice, or is no mapping.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{what}{where} is no valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{what} must be a mapping of settings, not {type(content).__name__}")
    return content


def config_names() -> list[str]:
    """Return the names of the configurations that travel with this distribution, sorted."""
    return sorted(
        entry.name.removesuffix(".yml") for entry in files("configs").iterdir() if entry.name.endswith(".yml")
    )


def find_config(name_or_path: str) -> MicroscopeConfig:
    """Read a configuration by the name of one that travels with the distribution, or by the path of a file.

    Parameters
    ----------
    name_or_path : str
        A bare name (``simulated``) is looked up among those of the distribution; anything with a folder or a suffix in
        it is a path.

    Raises
    ------
    ConfigError
        When there is no such configuration (the sentence lists those that exist), or it is not valid.
    """
    return load_config(config_path(name_or_path, Path()))


def override(config: MicroscopeConfig, settings: Iterable[str]) -> MicroscopeConfig:
    """Return a configuration with single settings changed.

    Parameters
    ----------
    config : MicroscopeConfig
        What to start from; it is not changed.
    settings : iterable of str
        Each ``group.setting=value``, the value written as in YAML, e.g. ``scan.darks=20``.

    Raises
    ------
    ConfigError
        When one is not of this form, names a setting that does not exist or has a value that is not valid.
    """
    content = config.model_dump(mode="json", exclude_unset=True)
    changed = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (equals and name.strip()):
            raise ConfigError(f"setting {setting!r} must have the form group.setting=value, e.g. scan.darks=20")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"setting {name}: {text!r} is no valid YAML value") from error
        *groups, last = name.strip().split(".")
        place = content
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ConfigError(f"setting {name}: {group!r} is a single setting, not a group")
        place[last] = value
        changed.append(name)
    try:
        return MicroscopeConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(one_sentence(error, f"configuration {config.name} with {', '.join(changed)} set")) from error


def config_path(name_or_path: str, folder: Path) -> Path:
    """Return the file of a configuration; a relative path is taken from ``folder``.

    Raises
    ------
    ConfigError
        When it is a bare name, and none of the configurations of the distribution bears it.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix or len(path.parts) > 1:
        return folder / path
    if name_or_path not in config_names():
        raise ConfigError(
            f"configuration {name_or_path!r} is not one of {', '.join(config_names())}; "
            f"a configuration of your own is named by its path, e.g. ./{name_or_path or 'mine'}.yml"
        )
    return Path(str(files("configs") / f"{name_or_path}.yml"))
