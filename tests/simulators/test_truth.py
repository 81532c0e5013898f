"""The known field against scans of noiseless frames, which it shares no code with."""

from __future__ import annotations

import math
from importlib.resources import as_file, files

import numpy as np
import pytest

from dfxrm_control.config import load_config
from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import frame_to_canonical
from simulators import Twin, known_field


def scanned(twin: Twin, move, windows: dict[str, np.ndarray]):
    """Return canonical maps (com of both motors, covariance, integral) of a mesh of noiseless frames."""
    (slow, slow_at), (fast, fast_at) = windows.items()
    view = twin.view("far_field")
    sums = np.zeros((6, *twin.frame_shape("far_field")))
    for a in slow_at:
        for b in fast_at:
            move(twin, **{slow: a, fast: b})
            image = twin.photons("far_field", 1.0) / 2000.0
            sums += [image * factor for factor in (1.0, a, b, a * a, a * b, b * b)]
    maps = np.stack([frame_to_canonical(one, view.flip_ud, view.flip_lr) for one in sums])
    com = maps[1:3] / maps[0]
    second = maps[3:] / maps[0]
    covariance = np.array(
        [[second[0] - com[0] ** 2, second[1] - com[0] * com[1]], [second[1] - com[0] * com[1], second[2] - com[1] ** 2]]
    )
    steps = (slow_at[1] - slow_at[0]) * (fast_at[1] - fast_at[0])
    return com, covariance, maps[0] * steps


def windows(twin: Twin, slow: str, fast: str, spread: float) -> dict[str, np.ndarray]:
    sigma = twin.view("far_field").instrument_sigma([slow, fast])
    limits = {axis: spread + 5 * sigma[axis] for axis in (slow, fast)}
    counts = {axis: 2 * math.ceil(limits[axis] / (1.3 * sigma[axis])) + 1 for axis in (slow, fast)}
    return {axis: twin.position(axis) + np.linspace(-limits[axis], limits[axis], counts[axis]) for axis in (slow, fast)}


SMALL = {"size_um": [14.0, 8.0, 5.0], "subgrain_um": 3.0}


@pytest.mark.parametrize(
    ("extra", "setting", "motors"),
    [
        ({}, {}, ("chi", "phi")),
        ({}, {"phi": 0.5, "mu": 9.47317}, ("chi", "mu")),
        ({}, {"omega": 20.0}, ("chi", "phi")),
        ({"spread_deg": 0.02, "bend_deg": 0.03}, {}, ("chi", "phi")),
        ({"strain": 1e-4}, {}, ("chi", "phi")),
    ],
    ids=["plain", "rocked with mu", "omega 20", "local spread", "strain"],
)
def test_known_tilts_are_those_of_the_frames(make_twin, move, extra, setting, motors):
    twin = make_twin(64, 96, sample="annealed_aluminium", sample_options={**SMALL, **extra})
    move(twin, **setting)
    mesh = windows(twin, *motors, spread=0.08)
    com, covariance, integral = scanned(twin, move, mesh)
    # the known field is that of an endless mesh: it may be asked for a little off its middle
    move(twin, **{motor: positions.mean() + 0.02 for motor, positions in mesh.items()})
    known = known_field(twin, motors)
    lit = known.integral > 0.3 * known.integral.max()
    assert lit.sum() > 2000
    for axis in range(2):
        error = (com[axis] - known.com[axis])[lit]
        assert np.ptp(known.com[axis][lit]) > 0.03
        assert np.sqrt((error**2).mean()) < 0.8e-3
        assert np.median(abs(error)) < 3e-4
        slope = np.polyfit(known.com[axis][lit], com[axis][lit], 1)[0]
        assert slope == pytest.approx(1.0, abs=0.01)
        width = np.sqrt(covariance[axis, axis][lit] / known.covariance[axis, axis][lit])
        assert np.median(width) == pytest.approx(1.0, abs=0.01)
    assert np.median(integral[lit] / known.integral[lit]) == pytest.approx(1.0, abs=0.01)
    assert np.std(integral[lit] / known.integral[lit]) < 0.03


def arm_to(twin: Twin, move, two_theta_deg: float) -> None:
    arm = twin.microscope.arm(two_theta_deg, twin.position("mainx"))
    move(twin, obx=arm.obx, obz=arm.obz, obpitch=arm.obpitch, ffz=arm.ffz)


@pytest.mark.slow
@pytest.mark.parametrize("motors", [("two_theta", "phi"), ("two_theta", "chi", "phi")], ids="-".join)
def test_known_tilts_and_strain_are_those_of_scans_that_move_the_arm(make_twin, move, motors):
    """The known field is linear in q and keeps the image as it is at the middle; the frames do neither."""
    sample = {**SMALL, "strain": 3e-4}
    twin = make_twin(32, 64, sample="annealed_aluminium", sample_options=sample)
    view = twin.view("far_field")
    reference = np.array([view.two_theta_deg, *(twin.position(name) for name in motors[1:])])
    sigma = view.instrument_sigma(motors)
    spread = {"chi": 0.08, "phi": 0.08, "two_theta": 0.01}
    # the motors' effects are correlated: the window takes in the peak's whole ellipse
    j = view.jacobian(motors)
    widths = np.degrees(np.sqrt(np.diag(np.linalg.inv(j.T @ np.linalg.inv(view.resolution.covariance) @ j))))
    windows = []
    for name, at, width in zip(motors, reference, widths, strict=True):
        limit = spread[name] + 4.5 * width
        windows.append(at + np.linspace(-limit, limit, 2 * math.ceil(limit / (1.3 * sigma[name])) + 1))
    sums = np.zeros((1 + len(motors), 32, 64))
    for values in np.stack(np.meshgrid(*windows, indexing="ij"), -1).reshape(-1, len(motors)):
        arm_to(twin, move, values[0])
        move(twin, **dict(zip(motors[1:], values[1:], strict=True)))
        image = twin.photons("far_field", 1.0) / 2000.0
        sums[0] += image
        sums[1:] += image * values[:, np.newaxis, np.newaxis]
    com = np.stack([frame_to_canonical(one / sums[0], view.flip_ud, view.flip_lr) for one in sums[1:]])
    arm_to(twin, move, reference[0])
    move(twin, **dict.fromkeys(motors[1:], 0.0))
    known = known_field(twin, motors)
    lit = known.integral > 0.5 * known.integral.max()
    assert lit.sum() > 500
    for axis, name in enumerate(motors):
        error = (com[axis] - known.com[axis])[lit] / sigma[name]
        assert np.sqrt((error**2).mean()) < 0.08, name
        assert abs(np.median(error)) < 0.005, name
    slope = np.polyfit(known.com[0][lit], com[0][lit], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.01)
    assert np.ptp(known.com[0][lit]) > 0.005


def test_known_strain_is_that_of_a_scan_of_the_energy(make_twin, move):
    """On a uniform crystal: off the reference's energy the lens is out of focus, which the known field leaves out."""
    twin = make_twin(4, 4, sample_options={"tilt_deg": [0.0, 0.02, 0.0], "strain": 2e-4, "size_um": [20, 10, 10]})
    sigma = twin.view("far_field").instrument_sigma(("ccmth", "phi"))
    middle = twin.position("ccmth")
    known = known_field(twin, ("ccmth", "phi")).com.mean(axis=(1, 2))
    sums = np.zeros(3)
    for ccmth in middle + sigma["ccmth"] * np.arange(-5, 5.1, 1.0):
        for phi in sigma["phi"] * np.arange(-8, 6.1, 1.0):
            move(twin, ccmth=ccmth, phi=phi)
            sums += twin.photons("far_field", 1.0).mean() * np.array([1.0, ccmth, phi])
    found = sums[1:] / sums[0]
    # strain = -d theta_m cot theta_m: a longer spacing is met at a lower energy, at a larger angle
    assert found[0] - middle == pytest.approx(2e-4 * np.degrees(np.tan(np.radians(middle))), rel=0.03)
    assert found - [middle, 0.0] == pytest.approx(known - [middle, 0.0], rel=0.02)


def test_lines_are_known_to_lie_where_a_weak_beam_image_shows_them(move):
    with as_file(files("configs") / "silicon.yml") as path:
        config = load_config(path)
    options = {"kind": "screw", "position_um": [2.0, -1.5, 0.0], "size_um": [16.0, 8.0, 5.0]}
    twin = Twin(config, sample="silicon_dislocation", sample_options=options, noise=False)
    twin.put("shutter", "open")
    move(twin, samx=1e-3, samy=2e-3, samz=4e-4)
    view = twin.view("far_field")
    centres = []
    for phi in (-0.04, 0.04):
        move(twin, phi=phi)
        image = frame_to_canonical(twin.photons("far_field", 1.0), view.flip_ud, view.flip_lr)
        weight = np.where(image > 0.2 * image.max(), image, 0.0)
        centres.append([(weight.sum(axis=1 - axis) @ np.arange(weight.shape[axis])) / weight.sum() for axis in (0, 1)])
    move(twin, phi=0.0)
    (line,) = twin.known_lines("far_field")
    # one side of the line is lit before the peak and one behind it: 87 nm to either side
    assert abs(centres[1][1] - centres[0][1]) * view.pixel_y_um == pytest.approx(0.18, abs=0.05)
    assert (line.ix, line.iy) == pytest.approx(np.mean(centres, axis=0), abs=1.5)
    known = known_field(twin, ("chi", "phi"))
    assert np.interp(line.ix, np.arange(len(known.x_um)), known.x_um) == pytest.approx(line.x_um)
    assert np.interp(line.iy, np.arange(len(known.y_um)), known.y_um) == pytest.approx(line.y_um)
    assert line.visible
    assert line.y_um == pytest.approx(0.0, abs=0.3)


def test_the_known_field_lies_where_the_map_says(make_twin, move):
    """Position and extent on the sample: a block of known size, put off the centre."""
    options = {"size_um": [6.0, 3.0, 4.0], "voxel_um": [0.1, 0.1, 0.1], "tilt_deg": [0.02, 0.01, 0.0]}
    twin = make_twin(96, 160, {"flip_lr": True}, sample_options=options)
    move(twin, samy=1e-3)
    known = known_field(twin, ("chi", "phi"))
    assert (np.diff(known.x_um) > 0).all()
    assert (np.diff(known.y_um) > 0).all()
    lit = known.integral > known.integral.max() / 2
    x, y = known.x_um[lit.any(axis=1)], known.y_um[lit.any(axis=0)]
    assert (y[0], y[-1]) == pytest.approx((-0.5, 2.5), abs=0.06)
    assert (x[0] + x[-1]) / 2 == pytest.approx(0.0, abs=0.15)
    assert x[-1] - x[0] == pytest.approx(6.0, abs=0.3)
    # tilted by +w about y and x: met by phi = -w, chi = -w
    assert np.median(known.com[0][lit]) == pytest.approx(-0.02, abs=1e-3)
    assert np.median(known.com[1][lit]) == pytest.approx(-0.01, abs=1e-3)


def test_known_photons_are_those_that_are_detected(make_twin, move):
    twin = make_twin(8, 8, photons_per_s=2000.0)
    mesh = windows(twin, "chi", "phi", spread=0.0)
    known = known_field(twin, ("chi", "phi"))
    total = np.zeros((8, 8))
    for chi in mesh["chi"]:
        for phi in mesh["phi"]:
            move(twin, chi=chi, phi=phi)
            total += twin.photons("far_field", 0.5)
    steps = [positions[1] - positions[0] for positions in mesh.values()]
    assert known.photons(1000.0, steps).mean() == pytest.approx(total.mean(), rel=0.02)


def test_a_perfect_crystal_has_the_width_of_the_instrument(make_twin):
    twin = make_twin(8, 8)
    known = known_field(twin, ("chi", "phi"))
    sigma = twin.view("far_field").instrument_sigma(["chi", "phi"])
    measured = np.sqrt([known.covariance[0, 0].mean(), known.covariance[1, 1].mean()])
    assert measured == pytest.approx([sigma["chi"], sigma["phi"]], rel=0.01)


def test_without_a_lens_there_is_no_known_map(make_twin):
    twin = make_twin(8, 8)
    twin.put("objective_in", "out")
    with pytest.raises(ParameterError, match="no objective before it"):
        known_field(twin, ("chi", "phi"))
