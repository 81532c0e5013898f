"""Each step of an alignment on the twin finds what is hidden, says how sure it is, and moves nothing when it is not."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from dfxrm_control.errors import LimitError, ParameterError, RunError
from dfxrm_control.records import read_journal
from plans import measure_magnification

MISALIGNED = "backend.options.misalignment="
PERFECT = "backend.options.sample=perfect_crystal"
SMALL_CRYSTAL = (PERFECT, "backend.options.sample_options={size_um: [20, 8, 12], voxel_um: [0.5, 0.25, 0.25]}")


@pytest.fixture
def microscope(open_session):
    """Return a function that opens a session whose cameras are quick and have the field of large ones."""

    def start(*settings):
        cameras = [
            f"instrument.cameras.{camera}.{name}={value}"
            for camera in ("far_field", "near_field")
            for name, value in (("rows", 128), ("columns", 128), ("pixel_um", 26.0))
        ]
        return open_session(*cameras, *settings)

    return start


def found(session):
    """Return what the last run found."""
    run = read_journal(session.recorder.journal)
    (event,) = run.streams["found"].events.values()
    return {key.removeprefix("found_"): value for key, value in event["data"].items()}


def where(session, *axes):
    return [session.axes[axis].position for axis in axes]


# -- peaks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "hidden"), [("phi", 0.31), ("phi", -0.07), ("chi", 0.4), ("mu", 0.2)])
def test_a_hidden_offset_is_found(microscope, axis, hidden):
    session = microscope(PERFECT, f"{MISALIGNED}{{{axis}: {hidden}}}")
    start = session.axes[axis].position
    session.run("find_peak", {"axis": axis})
    result = found(session)
    assert result["sure"] and result["axis"] == axis
    # a perfect crystal on its peak stands within a thousandth of the width
    assert session.axes[axis].position == pytest.approx(start - hidden, abs=1e-3)
    assert result["position"] == pytest.approx(session.axes[axis].position, abs=2e-4)
    assert abs(result["position"] - (start - hidden)) < 1e-3
    assert session.channels["shutter"].get() == "closed"


def test_the_record_of_a_step_is_a_run_like_any_other(microscope):
    session = microscope(PERFECT, f"{MISALIGNED}{{phi: 0.1}}")
    outcome = session.run("find_peak", {"axis": "phi", "exposure_s": 0.1})
    run = read_journal(session.recorder.journal)
    assert outcome.status == run.end_status == "success"
    assert len(run.primary) == len(run.primary.frames["far_field"]) > 17
    assert len(run.streams["darks_before"].frames["far_field"]) == 5
    before, after = run.streams["baseline"].events.values()
    assert {"obx", "chi", "two_theta"} <= set(before["data"]) and "phi" not in before["data"]
    assert run.dfxrm["parameters"]["values"]["axis"] == "phi"


@pytest.mark.parametrize(
    ("settings", "parameters", "says"),
    [
        ((PERFECT, MISALIGNED + "{phi: 0.9}"), {}, "all is dark"),
        ((PERFECT, MISALIGNED + "{phi: 0.15, oby: 3.0}"), {}, "all is dark"),
        # the range ends on the flank of the peak
        ((PERFECT, MISALIGNED + "{phi: 0.51}"), {"search_range": 1.0}, "not inside|dark"),
    ],
    ids=["beyond the range", "lens beside the beam", "on the flank"],
)
def test_nothing_moves_when_nothing_is_sure(microscope, settings, parameters, says):

    session = microscope(*settings)
    session.move([(session.axes["phi"], 0.0123)])
    outcome = session.run("find_peak", {"axis": "phi", "search_range": 1.0, **parameters})
    result = found(session)
    assert (outcome.doubt is None) == result["sure"]
    if result["sure"]:
        # the flank was followed to a peak that is really there
        assert session.axes["phi"].position == pytest.approx(-0.51, abs=2e-3)
    else:
        assert re.search(says, result["reason"]), result["reason"]
        assert outcome.status == "success" and outcome.doubt.endswith(result["reason"])
        assert session.axes["phi"].position == pytest.approx(0.0123, abs=1e-6)


def test_a_camera_that_saturates_is_given_less_time(microscope):
    session = microscope(PERFECT, "backend.options.photons_per_s=1000000.0", f"{MISALIGNED}{{phi: 0.05}}")
    session.run("find_peak", {"axis": "phi", "exposure_s": 0.2})
    result = found(session)
    assert result["sure"]
    assert result["exposure_s"] == pytest.approx(0.2 / 8)
    assert session.axes["phi"].position == pytest.approx(-0.05, abs=1e-3)
    assert session.RE.md["scan_id"] == 2


def test_a_curve_is_centred_even_from_its_flank(microscope):
    session = microscope(PERFECT, f"{MISALIGNED}{{chi: 0.15}}")
    session.run("center_axis", {"axis": "chi"})
    assert found(session)["sure"]
    assert session.axes["chi"].position == pytest.approx(-0.15, abs=2e-3)


def test_what_cannot_be_is_refused_before_anything_moves(microscope):
    session = microscope(PERFECT)
    with pytest.raises(LimitError, match="phi"):
        session.run("find_peak", {"axis": "phi", "search_range": 20.0, "step": 0.5})
    with pytest.raises(ParameterError, match="axis 'psi' is not in configuration"):
        session.run("find_peak", {"axis": "psi"})
    with pytest.raises(ParameterError, match="no near-field camera|is no near-field camera"):
        session.run("find_beam", {"camera": "far_field"})
    with pytest.raises(ParameterError, match="is not behind the objective"):
        session.run("align_objective", {"camera": "near_field"})
    with pytest.raises(ParameterError, match="give a step"):
        session.run("find_peak", {"axis": "samx"})
    assert where(session, "phi") == [0.0]


# -- beam, focus, field, magnification -------------------------------------------------------------------------


def test_the_direction_of_the_beam_is_measured(microscope):
    # a crystal turned about x sends its beam aside
    session = microscope(PERFECT, "backend.options.sample_options={tilt_deg: [0.05, 0.0, 0.0]}")
    park = where(session, "nfx", "nfy", "nfz")
    session.run("find_beam", {})
    result = found(session)
    theta = math.radians(result["position"] / 2)
    assert result["sure"]
    assert result["position"] == pytest.approx(17.946, abs=0.002)
    # a turn by w about x takes z to -y: the beam goes by 2 sin(theta) w to -y
    aside = 2 * math.sin(theta) * 0.05
    assert result["yaw_deg"] == pytest.approx(-aside, abs=2e-4)
    # the camera has followed the spot, and the objective is out
    assert where(session, "nfx", "nfy", "nfz") != park
    assert session.axes["nfy"].position == pytest.approx(-math.radians(aside) * 105.1, abs=0.01)
    assert session.channels["objective_in"].get() == "out"


@pytest.mark.parametrize(("along", "away_mm"), [("objective", 0.8), ("detector", -0.4)])
def test_a_defocused_lens_is_brought_back(microscope, along, away_mm):
    session = microscope()
    view = session.backend.view("far_field")
    angle = math.radians(view.two_theta_deg)
    x, z = where(session, "obx", "obz")
    session.move(
        [(session.axes["obx"], x + away_mm * math.cos(angle)), (session.axes["obz"], z + away_mm * math.sin(angle))]
    )
    assert abs(session.backend.view("far_field").defocus_mm) > 0.3
    session.run("focus", {"along": along})
    result = found(session)
    assert result["sure"], result["reason"]
    # half a pixel of blur at this distance
    allowed = 0.5 * view.pixel_y_um * 1e-3 / view.acceptance("h").rms_rad
    assert abs(session.backend.view("far_field").defocus_mm) < allowed


def test_a_field_without_outlines_cannot_be_focused_and_stays(microscope):
    session = microscope(PERFECT)
    before = where(session, "obx", "obz")
    session.run("focus", {})
    assert not found(session)["sure"]
    assert where(session, "obx", "obz") == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("move", ["sample", "camera"])
def test_a_grain_is_brought_to_the_middle_of_the_field(microscope, move):
    session = microscope(*SMALL_CRYSTAL)
    theta = math.radians(session.axes["mu"].position)
    # off by 6 um along the layer and 3 um across
    session.move(
        [
            (session.axes["samx"], 6e-3 * math.cos(theta)),
            (session.axes["samz"], -6e-3 * math.sin(theta)),
            (session.axes["samy"], 3e-3),
        ]
    )
    session.run("center_field", {"move": move})
    result = found(session)
    assert result["sure"], result["reason"]
    session.backend.put("shutter", "open")
    image = session.backend.photons("far_field", 1.0)
    rows, columns = np.arange(128), np.arange(128)
    middle = image.sum(1) @ rows / image.sum(), image.sum(0) @ columns / image.sum()
    assert middle == pytest.approx((63.5, 63.5), abs=1.5)
    if move == "sample":
        assert session.axes["samy"].position == pytest.approx(0.0, abs=0.3e-3)
    else:
        assert session.axes["samy"].position == pytest.approx(3e-3, abs=1e-6)


def test_a_grain_larger_than_the_field_is_not_moved(microscope):
    session = microscope()
    session.run("center_field", {})
    assert not found(session)["sure"]
    assert "reaches the edge" in found(session)["reason"]
    assert where(session, "samx", "samy", "samz") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("stage", ["above", "below"])
def test_the_magnification_is_measured(microscope, stage):
    session = microscope(f"instrument.sample_stage={stage}")
    session.run("measure_magnification", {})
    result = found(session)
    view = session.backend.view("far_field")
    assert result["sure"], result["reason"]
    assert result["position"] == pytest.approx(view.magnification_h, rel=0.005)
    assert abs(result["position"] - view.magnification_h) < 4 * result["error"]
    assert result["magnification_v"] == pytest.approx(view.magnification_v, rel=0.01)
    assert result["magnification_h_model"] == pytest.approx(view.magnification_h, rel=1e-6)
    assert where(session, "samx", "samy", "samz") == [0.0, 0.0, 0.0]


def test_a_mirrored_camera_is_noticed(microscope):
    session = microscope("instrument.cameras.far_field.flip_lr=true")
    # somebody mounted it the other way round than it is described
    camera = session.config.instrument.cameras["far_field"].model_copy(update={"flip_lr": False})
    cameras = {**session.config.instrument.cameras, "far_field": camera}
    described = session.config.instrument.model_copy(update={"cameras": cameras})
    session.RE(measure_magnification(replace(session.instrument, config=described)))
    assert not found(session)["sure"]
    assert "wrong way" in found(session)["reason"]


def test_a_lens_whose_image_is_not_found_ends_its_alignment(microscope):
    session = microscope(PERFECT, f"{MISALIGNED}{{phi: 3.0}}")
    before = where(session, "obx", "oby", "obz", "obpitch", "ffy", "ffz")
    with pytest.raises(RunError, match="the alignment stopped: find_image two_theta: .*no image in [0-9]+ frames"):
        session.run("align_objective", {"search_mm": 0.01, "arm_search": 0.1})
    assert where(session, "obx", "oby", "obz", "obpitch", "ffy", "ffz") == pytest.approx(before, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "off_mm"), [(1, 0.3), (2, -0.15)])
def test_a_multilayer_laue_lens_is_focused_to_within_its_depth_of_field(open_session, seed, off_mm):
    """Its tip of 0.06 mm would lie between two points of a curve as wide as the wings."""
    session = open_session(
        "instrument.cameras.far_field.rows=512",
        "instrument.cameras.far_field.columns=512",
        f"backend.options.seed={seed}",
        config="mll",
    )
    view = session.backend.view("far_field")
    depth_mm = 1e-3 * view.objective.depth_of_field_um(view.energy_kev, view.d1_mm)
    moves = zip(("obx", "obz"), off_mm * view.direction[[0, 2]], strict=True)
    session.move([(session.axes[name], session.axes[name].readback() + move) for name, move in moves])
    (found,) = session.run("focus", {"exposure_s": 1.0}).findings
    assert found.sure, found.line()
    left_mm = abs(session.backend.view("far_field").defocus_mm)
    assert left_mm < depth_mm < 0.01
    assert left_mm < 4.0 * found.error
