"""The whole alignment, unattended, from a start that is off in everything, to within 5 % of the best intensity."""

import math

import numpy as np
import pytest

from dfxrm_control.config import find_config, override
from dfxrm_control.errors import RunError
from dfxrm_control.records import read_journal
from simulators import Twin

CAMERAS = [
    f"instrument.cameras.{camera}.{name}={value}"
    for camera in ("far_field", "near_field")
    for name, value in (("rows", 128), ("columns", 128), ("pixel_um", 26.0))
]


def off_by(seed):
    """Return hidden offsets: 0.3 deg of the arm, 0.2 mm of the lens, 0.5 deg of the rock, and some of the rest."""
    random = np.random.default_rng(seed)
    direction = random.uniform(0, 2 * math.pi)
    return {
        "two_theta": 0.3 * random.choice([-1, 1]),
        "oby": 0.2 * math.cos(direction),
        "obz": 0.2 * math.sin(direction),
        "phi": 0.5 * random.choice([-1, 1]),
        "chi": random.uniform(-0.3, 0.3),
        "obpitch": random.uniform(-0.15, 0.15),
        "obyaw": random.uniform(-0.15, 0.15),
        "obx": random.uniform(-0.5, 0.5),
    }


def best_intensity(*settings):
    """Return the largest mean intensity over rock and roll of a microscope that is off in nothing."""
    config = override(find_config("simulated"), [*CAMERAS, *settings])
    twin = Twin(config, **config.backend.options)
    twin.put("shutter", "open")
    best = 0.0
    for chi in np.linspace(-0.08, 0.08, 9):
        for phi in np.linspace(-0.03, 0.03, 25):
            for axis, position in (("chi", chi), ("phi", phi)):
                twin.start_move(axis, float(position), 0.0, 0.0)
            best = max(best, float(twin.photons("far_field", 1.0).mean()))
    return best


def mean_intensity(session):
    session.backend.put("shutter", "open")
    mean = float(session.backend.photons("far_field", 1.0).mean())
    session.backend.put("shutter", "closed")
    return mean


def findings(session):
    """Return what every run of the session found, in order."""
    found = []
    for path in sorted(session.config.data.journal_directory.glob("*.jsonl")):
        run = read_journal(path)
        found += [(run.scan_number, event["data"]) for event in run.streams["found"].events.values()]
    return [data for _, data in sorted(found, key=lambda pair: pair[0])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "sample", "hidden"),
    [(1, "perfect_crystal", True), (2, "annealed_aluminium", True), (3, "annealed_aluminium", False)],
    ids=["perfect", "sub-grains", "sub-grains, axes moved away"],
)
def test_a_start_that_is_off_in_everything_is_aligned(open_session, seed, sample, hidden):
    settings = [f"backend.options.sample={sample}", f"backend.options.seed={seed}"]
    offsets = off_by(seed)
    text = ", ".join(f"{axis}: {value:.4f}" for axis, value in offsets.items())
    session = open_session(*CAMERAS, *settings, f"backend.options.misalignment={{{text if hidden else ''}}}")
    if not hidden:
        arm = session.axes["two_theta"]
        session.move([(arm, arm.position + offsets.pop("two_theta"))])
        session.move([(session.axes[axis], session.axes[axis].position + away) for axis, away in offsets.items()])
    assert mean_intensity(session) == 0.0
    parked = [session.axes[axis].position for axis in ("nfx", "nfy", "nfz")]
    session.run("align", {})
    assert session.channels["shutter"].get() == "closed"
    assert mean_intensity(session) >= 0.95 * best_intensity(*settings)
    view = session.backend.view("far_field")
    # well inside the acceptance, and the image in the middle of the camera
    assert abs(view.two_theta_deg - 17.9464) < 0.3 * math.degrees(view.acceptance("v").rms_rad)
    assert abs(view.yaw_deg) < 0.3 * math.degrees(view.acceptance("h").rms_rad)
    assert max(abs(view.pitch_error_rad), abs(view.yaw_error_rad)) < 2e-4
    field_mm = 1e-3 * view.pixel_um * view.shape[0]
    assert math.hypot(view.offset_u_mm, view.offset_v_mm) < 0.2 * field_mm
    if sample != "perfect_crystal":  # which has no outline to focus on
        assert abs(view.defocus_mm) < 0.3
    assert [session.axes[axis].position for axis in ("nfx", "nfy", "nfz")] == pytest.approx(parked, abs=1e-3)
    assert session.channels["far_field_camera_objective"].get() == "10x"
    # the arm is where the beam is, and moved by its angle alone it stays aligned
    arm = session.axes["two_theta"]
    assert arm.position == pytest.approx(17.946, abs=0.005)
    # which later sessions count from too
    assert session.store.declared_arm("simulated").two_theta_deg == pytest.approx(arm.position, abs=1e-4)
    assert session.arm.off.keys() & {"obx", "oby", "obz"}
    aligned = mean_intensity(session)
    for target in (arm.position + 0.5, arm.position):
        session.move([(arm, target)])
    assert mean_intensity(session) == pytest.approx(aligned, rel=0.01)
    steps = [data["found_step"] for data in findings(session) if data["found_sure"]]
    assert {"find_peak", "find_beam", "find_image", "align_objective", "center_field"} <= set(steps)


@pytest.mark.slow
def test_an_alignment_that_finds_no_beam_says_so_and_leaves_all_as_it_was(open_session):
    session = open_session(*CAMERAS, "backend.options.misalignment={phi: 3.0}")
    before = {name: axis.position for name, axis in session.real_axes().items()}
    with pytest.raises(RunError, match="the alignment stopped: find_peak phi: nothing found; all is dark in -1"):
        session.run("align", {})
    assert {name: axis.position for name, axis in session.real_axes().items()} == pytest.approx(before, abs=1e-6)
    (data,) = findings(session)
    assert not data["found_sure"]
