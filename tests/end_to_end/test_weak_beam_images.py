"""Weak-beam imaging on the twin: from the rock to the images, the lines and the tilts around dislocations."""

import json
import math
import warnings

import h5py
import numpy as np
import pytest

from dfxrm_control.config import find_config, override
from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import ParameterError, RunError
from dfxrm_control.geometry import Resolution, goniometer_rotation
from dfxrm_control.reduction import find_lines, read_weak_beam
from dfxrm_control.reduction.series import SeriesWarning, read_series, reduce_series
from plans import WeakBeamWarning
from simulators import SAMPLES, Sample, Twin

PERFECT = ["backend.options.sample=perfect_crystal", "sample.spread_deg=0.005", "scan.darks=20"]
SILICON_111_UM = 3.1356e-4  # b . q-hat of a line with g . b = 1


def weak_beam(session, **parameters):
    """Run the plan and reduce its series, failing on any warning."""
    outcome = session.run("weak_beam_scan", parameters)
    return read_series(outcome.folder), outcome


def test_offsets_follow_from_the_frames_and_the_series_is_reduced(open_session):
    session = open_session(*PERFECT)
    view = session.backend.view("far_field")
    expected = view.instrument_fwhm(["phi"])["phi"]
    series, _ = weak_beam(session, k=[2, 3], frames=3)
    assert series.kind == "weak_beam" and len(series.complete) == series.of == 5
    about = series.runs[1].series
    assert about["measured"] is True
    assert about["fwhm"] == pytest.approx(expected, rel=0.02) and about["centre"] == pytest.approx(0.0, abs=5e-4)
    assert about["points_per_fwhm"] >= 9
    for run in series.runs[1:]:
        columns = run.journal.primary.column("phi_setpoint")
        assert len(columns) == 3
        offset = run.series["k"] * about["fwhm"] / 2
        np.testing.assert_allclose(columns, about["centre"] + offset, atol=1e-6)
        assert run.value == pytest.approx(offset, abs=1e-6)
        assert run.journal.exposure_s() == 5.0
    assert len(series.runs[1].journal.streams["darks_before"]) == 12
    # everything is left as it was
    assert session.axes["phi"].readback() == pytest.approx(0.0, abs=1e-6)
    assert session.channels["shutter"].get() == "closed"
    made = reduce_series(series)
    assert [path.suffix for path in made] == [".h5", ".png", ".txt"] and all(path.exists() for path in made)
    with h5py.File(made[0]) as file:
        report = json.loads(file["entry/report_json"][()])
        values = {image["k"]: image for image in report["images"]}
        # exp(-(3 sqrt(2 ln 2))^2 / 2) and at k = 2
        assert values[3.0]["background"] == pytest.approx(0.00195, rel=0.15)
        assert values[-3.0]["background"] == pytest.approx(0.00195, rel=0.15)
        assert values[2.0]["background"] == pytest.approx(0.0625, rel=0.1)
        assert values[3.0]["lit_fraction"] < 0.01
        # a perfect crystal has 6 % at k = 2, and is not lit
        assert values[2.0]["lit_fraction"] < 0.01 and values[2.0]["lit_level"] == pytest.approx(0.27, abs=0.02)
        width = report["dynamical"]["darwin_width_rad"]
        assert width == pytest.approx(1.68e-5, rel=0.01)  # Al 111, 17 keV
        assert values[3.0]["deviation_darwin_widths"] == pytest.approx(
            math.radians(1.5 * about["fwhm"]) / width, rel=1e-6
        )
        layer = session.config.instrument.beam.line_height_um / 2 / math.sin(math.radians(view.two_theta_deg / 2))
        assert report["extinction_lengths"]["layer"] == pytest.approx(
            layer / report["dynamical"]["extinction_length_um"]
        )
        assert file["entry/weak_beam_0/data"].shape == file["entry/strong_beam/data"].shape


@pytest.fixture
def bent(monkeypatch):
    """Return settings for a crystal whose tilt grows across the beam and whose strain grows along it."""

    def build(seed: int = 0, *, tilt_deg: float = 0.004, strain: float = 0.0) -> Sample:
        levels = 41
        steps = np.linspace(-1.0, 1.0, levels)
        nx, ny = 60, 120
        column = np.rint((np.arange(nx) + 0.5) / nx * (levels - 1)).astype(int)
        row = np.rint((np.arange(ny) + 0.5) / ny * (levels - 1)).astype(int)
        index = np.broadcast_to((column[:, None] * levels + row)[:, :, None], (nx, ny, 4))
        along, across = (each.ravel() for each in np.meshgrid(steps, steps, indexing="ij"))
        tilts = np.stack([0 * across, tilt_deg * across, 0 * across], axis=1)
        return Sample.from_states(index, (0.5, 0.1, 1.0), tilt_deg=tilts, strain=strain * along)

    monkeypatch.setitem(SAMPLES, "bent", build)
    return ["backend.options.sample=bent", "sample.spread_deg=0.005", "scan.darks=20"]


def test_tilts_from_both_flanks_are_those_of_the_crystal(open_session, bent):
    """A crystal bent by a few thousandths of a degree, against the field that is known."""
    session = open_session(*bent, "backend.options.sample_options={tilt_deg: 0.008}")
    series, _ = weak_beam(session, k=[1.5, 2.5], frames=4)
    found = read_weak_beam(series)
    assert list(found.components) == ["tilt_rock"]
    tilt = found.components["tilt_rock"]
    known = -session.backend.known_field(["phi"]).com[0]  # a crystal turned by +w is met by -w
    inside = np.isfinite(tilt.values) & np.isfinite(known) & found.crystal
    assert inside.mean() > 0.3
    assert np.ptp(known[inside]) > 0.004
    off = tilt.values[inside] - (known[inside] + found.centre_deg)
    slope = np.polyfit(known[inside], tilt.values[inside], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)
    assert abs(off.mean()) < 3e-4
    assert np.sqrt(np.mean((off - off.mean()) ** 2 / tilt.error[inside] ** 2)) < 1.3


def test_an_axis_that_rocks_and_rolls_tells_of_the_rock_alone(open_session, bent):
    """At omega 37 deg phi does both; one number is not two tilts, and the rock is the one that a pixel answers to."""
    session = open_session(*bent, "devices.goniometer.axes.omega.limits=[-180.0, 180.0]")
    session.move([(session.axes["omega"], 37.0)])
    series, _ = weak_beam(session, k=[2.0], frames=2)
    found = read_weak_beam(series)
    assert list(found.components) == ["tilt_rock"]
    label = found.components["tilt_rock"].label
    assert label.startswith("tilt about y, ") and "strain counts as tilt, 0.025 rad per unit" in label


def test_the_arm_tells_strain_from_tilt(open_session, bent):
    session = open_session(*bent, "backend.options.sample_options={tilt_deg: 0.003, strain: 1.0e-4}")
    series, _ = weak_beam(session, k=[2.0], frames=4, two_theta_offsets="-0.03 0 0.03")
    assert series.of == 7
    here = session.axes["two_theta"].readback()
    arms = sorted({round(float(run.journal.primary.column("two_theta_setpoint")[0]), 6) for run in series.runs[1:]})
    assert np.diff(arms) == pytest.approx([0.03, 0.03], abs=1e-5)
    assert here == pytest.approx(arms[1], abs=1e-4)
    found = read_weak_beam(series)
    assert sorted(found.components) == ["strain", "tilt_rock"]
    known = session.backend.known_field(["two_theta", "phi"]).com
    strain = -np.radians(known[0] - here) / (2 * math.tan(math.radians(here / 2)))
    tilt = -(known[1] + (known[0] - here) / 2)  # the mesh peaks at phi = -a - D/2
    for name, truth, limit in (("strain", strain, 2e-5), ("tilt_rock", tilt, 5e-4)):
        component = found.components[name]
        inside = np.isfinite(component.values) & np.isfinite(truth) & found.crystal
        assert inside.mean() > 0.3
        off = component.values[inside] - truth[inside]
        off -= off.mean()
        assert np.sqrt(np.mean(off**2)) < limit, name
        assert np.polyfit(truth[inside], component.values[inside], 1)[0] == pytest.approx(1.0, abs=0.1), name


@pytest.mark.parametrize(
    ("settings", "parameters", "words"),
    [
        ([], {"rock_center": 0.1, "rock_range": 0.16}, "misses the peak"),
        ([], {"rock_center": 1.0}, "no pixel lights up"),
        ([], {"rock_range": 0.16, "rock_step": 0.02}, "too few for a width"),
        (["backend.options.photons_per_s=1.0e+6"], {}, "saturated"),
    ],
)
def test_a_rock_that_gives_no_width_is_said_and_what_was_taken_is_kept(open_session, settings, parameters, words):
    session = open_session(*PERFECT, *settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RunError, match=words) as caught:
            session.run("weak_beam_scan", parameters)
    sentence = str(caught.value)
    assert sentence.startswith("weak_beam_scan: phi: ") and "; the rock is kept, and nothing was exposed" in sentence
    assert f"what was taken until then is in {session.recorder.master}" in sentence
    # the command could only refuse
    assert sentence.endswith("1 of 3 runs of the series are complete, too few to reduce")
    with pytest.raises(ParameterError, match="lacks any exposure off the peak"):
        read_weak_beam(read_series(session.recorder.folder))
    (run,) = read_series(session.recorder.folder).runs
    assert run.status == "success" and len(run.journal.primary) > 5
    assert session.axes["phi"].readback() == pytest.approx(0.0, abs=1e-6)
    assert session.channels["shutter"].get() == "closed"


def test_missing_darks_are_said_and_the_images_are_there(open_session):
    session = open_session(*PERFECT)
    with pytest.warns(WeakBeamWarning, match="no darks"):
        outcome = session.run("weak_beam_scan", {"darks_before": 0, "weak_darks": 0})
    with pytest.warns(SeriesWarning, match="no darks"):
        found = read_weak_beam(read_series(outcome.folder))
    assert any("no darks" in note for note in found.notes)
    assert found.fwhm_deg == pytest.approx(session.backend.view("far_field").instrument_fwhm(["phi"])["phi"], rel=0.03)


def test_an_aborted_series_is_reduced_from_what_there_is(open_session):
    session = open_session(*PERFECT)
    series, outcome = weak_beam(session)
    # as if the last run had failed: it has no end
    journal = next(series.runs[-1].folder.glob("*.jsonl"))
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    with pytest.warns(SeriesWarning, match="1 of 3 runs"):
        found = read_weak_beam(read_series(outcome.folder))
    assert [image.report.k for image in found.images] == [-3.0]
    assert found.components == {}


def test_along_the_roll_nothing_can_show_and_it_is_said(open_session):
    session = open_session(*PERFECT, config="silicon")
    with pytest.warns(WeakBeamWarning, match="below the resolution"):
        outcome = session.run("weak_beam_scan", {"rock": "chi", "flanks": "plus"})
    (report,) = (image.report for image in read_weak_beam(read_series(outcome.folder)).images)
    assert report.matching_radius_um < 0.02 < report.psf_um
    assert report.deviation_darwin_widths is None


def test_behind_a_condenser_the_peak_ends_at_its_cut(open_session):
    session = open_session(*PERFECT, "instrument.beam.divergence_v_cut_rad=1.4e-4")
    with pytest.warns(SeriesWarning, match="sharp edges"):
        series, _ = weak_beam(session, k=[1.5])
        found = read_weak_beam(series)
    assert found.fwhm_deg == pytest.approx(2 * math.degrees(1.4e-4), rel=0.06)
    # where a Gaussian of this width would still have a fifth of its peak
    assert max(image.report.background for image in found.images) < 5e-4
    assert found.components == {}


def test_along_the_arm_alone_tilt_is_not_told_from_strain(open_session):
    session = open_session(*PERFECT)
    with pytest.warns(WeakBeamWarning, match="below the resolution"):
        outcome = session.run("weak_beam_scan", {"rock": "two_theta"})
    found = read_weak_beam(read_series(outcome.folder))
    assert found.components == {} and found.images[0].report.background == pytest.approx(0.00195, rel=0.2)


# -- the numbers of silicon 111 with the default resolution -----------------------------------------------------------


def default_resolution() -> Resolution:
    return Resolution(6.6784, 5.3e-4 / 2.355, 0.0, 7.31e-4 / 2.35, 7.31e-4 / 2.35, 6.0e-5)


def test_background_and_matching_radius_at_three_half_widths():
    resolution = default_resolution()
    rock, roll = (np.eye(3)[row] for row in (0, 1))
    offset = 1.5 * resolution.curve_fwhm_rad(rock)
    assert resolution.weight(offset * rock) == pytest.approx(0.002, abs=1e-4)
    spacing_um = 1e-4 * Lattice.from_parameters(5.43102, 5.43102, 5.43102).d_spacing((1, 1, 1))
    assert spacing_um == pytest.approx(SILICON_111_UM, rel=1e-4)
    assert spacing_um / (2 * math.pi * offset) == pytest.approx(0.078, abs=0.001)
    on_chi = 1.5 * resolution.curve_fwhm_rad(roll)
    assert on_chi == pytest.approx(4.7e-3, rel=0.01)
    assert spacing_um / (2 * math.pi * on_chi) == pytest.approx(0.011, abs=0.0006)


@pytest.mark.slow
@pytest.mark.parametrize(("layer_um", "level"), [(0.1, 0.14), (0.6, 0.043)])
def test_a_dislocation_lights_up_off_the_peak(layer_um, level):
    """At 14 % of the peak in a layer as thin as the line is wide; a thicker layer has more dark crystal in it."""
    config = override(find_config("silicon"), [f"instrument.beam.line_height_um={layer_um}"])
    twin = Twin(config, sample="silicon_dislocation", noise=False)
    twin.put("shutter", "open")
    fwhm = twin.view("far_field").instrument_fwhm(["phi"])["phi"]
    middle = (slice(100, 156), slice(150, 350))
    peak = float(np.median(twin.photons("far_field", 1.0)[middle]))
    for flank in (-1.5, 1.5):
        twin.start_move("phi", flank * fwhm, 0.0, 0.0)
        image = twin.photons("far_field", 1.0)[60:196, 60:450] / peak
        assert image.max() == pytest.approx(level, rel=0.1)
        assert np.median(image) == pytest.approx(0.002, abs=3e-4)


@pytest.mark.slow
def test_the_lines_around_an_indent_are_found(open_session):
    """Recall and precision of at least 0.9, half of the lines within 2 pixels of where they cross the layer."""
    session = open_session(
        "scan.darks=20",
        "instrument.cameras.far_field.rows=256",
        "instrument.cameras.far_field.columns=512",
        config="silicon",
    )
    series, _ = weak_beam(session, weak_exposure_s=10.0)
    found = read_weak_beam(series)
    positions = session.backend.true_positions()
    turned = goniometer_rotation(*(positions[axis] for axis in ("mu", "omega", "chi", "phi")))
    lines = session.backend.sample.dislocations
    truth = np.array([turned @ line.crossing_um(turned.T[:, 2]) for line in lines if line.visible((0.0, 0.0, 1.0))])[
        :, :2
    ]
    # streaks whose ends lie outside of the crystal or the frame have no middle
    inside = (np.abs(truth[:, 0]) < 21.0) & (np.abs(truth[:, 1]) < 10.2)
    pixel = np.array([np.diff(found.x[:2])[0], np.diff(found.y[:2])[0]])
    centres = np.array([line.centre_um for line in found.lines()])
    apart = np.linalg.norm((centres[:, None] - truth[None]) / pixel, axis=2)
    near = apart < 6.0
    assert near[:, inside].any(0).mean() >= 0.9
    assert near.any(1).mean() >= 0.9
    assert np.median(apart[:, inside].min(0)) <= 2.0
    assert len(found.lines()) == len(find_lines(found.image(), found.x, found.y, mask=found.crystal, width_um=0.39))
