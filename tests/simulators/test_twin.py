"""What the twin shows, against the numbers of the physics: each misalignment within 5 %."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from dfxrm_control.backend import Backend, FrameRequest
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import ConfigError, DeviceError
from dfxrm_control.geometry import FWHM_PER_SIGMA, arm_positions, frame_to_canonical
from simulators import Twin

PEAK = 2000.0


def middle(twin: Twin) -> float:
    """Photons per second of the pixels around the centre of the frame."""
    photons = twin.photons("far_field", 1.0)
    rows, columns = photons.shape
    return float(photons[rows // 2 - 2 : rows // 2 + 2, columns // 2 - 2 : columns // 2 + 2].mean())


def centre(image: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of mass of an image."""
    total = image.sum()
    return float(image.sum(1) @ np.arange(image.shape[0]) / total), float(
        image.sum(0) @ np.arange(image.shape[1]) / total
    )


def width(image: np.ndarray, axis: int) -> float:
    profile = image.sum(1 - axis)
    x = np.arange(len(profile))
    mean = (profile * x).sum() / profile.sum()
    return math.sqrt((profile * (x - mean) ** 2).sum() / profile.sum())


def speck(**options) -> dict:
    """Options of a small needle along z."""
    return {"sample_options": {"size_um": [0.4, 0.2, 4.0], "voxel_um": [0.05, 0.05, 0.1]}, **options}


# -- the peak ------------------------------------------------------------------------------------------------


def test_it_is_a_backend(make_twin):
    assert isinstance(make_twin(), Backend)


def test_a_perfect_crystal_on_its_peak_gives_the_stated_photons(make_twin):
    assert middle(make_twin(photons_per_s=PEAK)) == pytest.approx(PEAK, rel=1e-3)
    # whatever the voxels
    coarse = {"size_um": [60, 40, 15], "voxel_um": [60, 40, 15]}
    assert middle(make_twin(photons_per_s=PEAK, sample_options=coarse)) == pytest.approx(PEAK, rel=1e-3)


@pytest.mark.parametrize("motor", ["phi", "mu", "chi"])
def test_rocking_curve_has_the_conditional_width(make_twin, move, motor):
    twin = make_twin(4, 4, photons_per_s=PEAK)
    resolution = twin.view("far_field").resolution
    sigma = math.degrees(resolution.conditional_rad[1 if motor == "chi" else 0])
    home = twin.position(motor)
    offsets = np.linspace(-3, 3, 61) * sigma
    curve = []
    for offset in offsets:
        move(twin, **{motor: home + offset})
        curve.append(middle(twin))
    curve = np.array(curve)
    half = np.interp(PEAK / 2, curve[:31], offsets[:31]), np.interp(-PEAK / 2, -curve[30:], offsets[30:])
    assert half[1] - half[0] == pytest.approx(FWHM_PER_SIGMA * sigma, rel=0.01)


@pytest.mark.parametrize(
    ("motor", "tilt", "met_at"),
    [("phi", (0.0, 0.05, 0.0), -0.05), ("chi", (0.05, 0.0, 0.0), -0.05), ("mu", (0.0, 0.05, 0.0), +0.05)],
)
def test_a_tilted_crystal_is_met_by_turning_it_back(make_twin, move, motor, tilt, met_at):
    twin = make_twin(4, 4, sample_options={"tilt_deg": tilt})
    home = twin.position(motor)
    offsets = np.linspace(-0.3, 0.3, 121)
    curve = []
    for offset in offsets:
        move(twin, **{motor: home + offset})
        curve.append(middle(twin))
    assert np.dot(curve, offsets) / np.sum(curve) == pytest.approx(met_at, abs=1e-3)


def test_at_omega_90_chi_rocks_and_phi_rolls(make_twin, move):
    twin = make_twin(4, 4)
    resolution = twin.view("far_field").resolution
    rock, roll = np.degrees(resolution.conditional_rad[:2])
    move(twin, omega=90.0, chi=2 * rock)
    assert middle(twin) == pytest.approx(PEAK * math.exp(-2), rel=0.05)
    move(twin, chi=0.0, phi=2 * rock)
    assert middle(twin) == pytest.approx(PEAK * math.exp(-2 * (rock / roll) ** 2), rel=0.02)


def test_local_spread_widens_the_curve_and_keeps_its_integral(make_twin, move):
    def curve(**options):
        twin = make_twin(4, 4, **options)
        values = []
        for phi in offsets:
            move(twin, phi=phi)
            values.append(middle(twin))
        return np.array(values)

    offsets = np.linspace(-0.2, 0.2, 201)
    sharp, spread = curve(), curve(sample_options={"spread_deg": [0.02, 0.0]})
    assert spread.sum() == pytest.approx(sharp.sum(), rel=0.02)
    variance = (spread @ offsets**2) / spread.sum() - (sharp @ offsets**2) / sharp.sum()
    assert math.sqrt(variance) == pytest.approx(0.02, rel=0.02)


# -- misalignment --------------------------------------------------------------------------------------------


def objective_off_the_arm(twin: Twin, move, offset_rad: float) -> None:
    """Turn the objective's position about the sample, and let the camera follow the image, which goes far."""
    view = twin.view("far_field")
    angle = math.radians(view.two_theta_deg) + offset_rad
    move(twin, obx=view.centre_mm * math.cos(angle), obz=view.centre_mm * math.sin(angle))
    away = twin.view("far_field").offset_v_mm
    move(twin, ffz=twin.position("ffz") + away / math.cos(angle))


@pytest.mark.parametrize("offset_mrad", [0.15, 0.3, -0.45])
def test_objective_off_the_arm_lowers_the_intensity(make_twin, move, offset_mrad):
    twin = make_twin(4, 4, photons_per_s=PEAK)
    theta = math.radians(twin.view("far_field").two_theta_deg / 2)
    inverse = twin.view("far_field").resolution.inverse_covariance
    # moving the arm by d moves q by (d/2, 0, -cot(theta) d/2)
    per_rad = np.array([0.5, 0.0, -0.5 / math.tan(theta)])
    s = 1 / math.sqrt(per_rad @ inverse @ per_rad)
    objective_off_the_arm(twin, move, 1e-3 * offset_mrad)
    assert middle(twin) == pytest.approx(PEAK * math.exp(-((1e-3 * offset_mrad) ** 2) / (2 * s**2)), rel=0.05)


def test_the_width_of_that_fall_is_the_acceptance(make_twin, move):
    """For Al 111 and an acceptance of 0.311 mrad rms it is 0.31 mrad."""
    twin = make_twin(4, 4, photons_per_s=PEAK)
    acceptance = twin.view("far_field").acceptance("v").rms_rad
    objective_off_the_arm(twin, move, acceptance)
    s = acceptance / math.sqrt(2 * math.log(PEAK / middle(twin)))
    assert s == pytest.approx(acceptance, rel=0.05)


@pytest.mark.parametrize("displacement_um", [1.0, -2.0])
def test_objective_displacement_shifts_the_image_by_m_plus_1(make_twin, move, displacement_um):
    twin = make_twin(128, 128, **speck())
    view = twin.view("far_field")
    row, column = centre(twin.photons("far_field", 1.0))
    angle = math.radians(view.two_theta_deg)
    d = displacement_um * 1e-3
    move(twin, oby=d, obx=twin.position("obx") - d * math.sin(angle), obz=twin.position("obz") + d * math.cos(angle))
    row2, column2 = centre(twin.photons("far_field", 1.0))
    shift = (view.magnification_v + 1) * displacement_um / view.pixel_um
    # up is towards lower rows, +y towards lower columns
    assert row2 - row == pytest.approx(-shift, rel=0.05)
    assert column2 - column == pytest.approx(-shift, rel=0.05)


def test_a_detector_move_only_shifts_the_image(make_twin, move):
    twin = make_twin(
        64, 64, photons_per_s=PEAK, sample_options={"size_um": [2.0, 0.6, 4.0], "voxel_um": [0.1, 0.1, 0.1]}
    )
    before = twin.photons("far_field", 1.0)
    view = twin.view("far_field")
    pixels = 5
    move(twin, ffy=pixels * view.pixel_um * 1e-3)
    after = twin.photons("far_field", 1.0)
    # the camera moved to +y, so the image moved to -y on it: to larger columns
    np.testing.assert_allclose(after[:, pixels:], before[:, :-pixels], atol=0.02 * PEAK)
    move(
        twin,
        ffy=0.0,
        ffz=twin.position("ffz") + pixels * view.pixel_um * 1e-3 / math.cos(math.radians(view.two_theta_deg)),
    )
    after = twin.photons("far_field", 1.0)
    assert centre(after)[0] - centre(before)[0] == pytest.approx(pixels, rel=0.05)
    assert after.sum() == pytest.approx(before.sum(), rel=0.01)


@pytest.mark.parametrize("defocus_mm", [0.5, -1.0])
def test_defocus_blurs_by_acceptance_times_distance(make_twin, move, defocus_mm):
    twin = make_twin(128, 256, **speck())
    sharp = width(twin.photons("far_field", 1.0), 1)
    angle = math.radians(twin.view("far_field").two_theta_deg)
    focus = twin.view("far_field").defocus_mm
    # the lens goes towards the sample or away from it along the arm
    move(
        twin,
        obx=twin.position("obx") + defocus_mm * math.cos(angle),
        obz=twin.position("obz") + defocus_mm * math.sin(angle),
    )
    view = twin.view("far_field")
    pixel_um = view.pixel_um / view.magnification_h
    blurred = width(twin.photons("far_field", 1.0), 1)
    expected = view.acceptance("h").rms_rad * 1e3 * abs(view.defocus_h_mm) / pixel_um
    assert math.sqrt(blurred**2 - sharp**2) == pytest.approx(expected, rel=0.05)
    assert abs(view.defocus_mm - focus) == pytest.approx(abs(defocus_mm), rel=0.02)


def test_the_inclined_layer_is_sharp_only_in_its_middle(make_twin, move):
    """A point x along the beam is out of focus by x cos 2theta."""
    twin = make_twin(128, 128, **speck())
    sharp = width(twin.photons("far_field", 1.0), 1)
    x_um = 400.0
    mu, angle = math.radians(twin.position("mu")), math.radians(twin.view("far_field").two_theta_deg)
    move(twin, samx=1e-3 * x_um * math.cos(mu), samz=-1e-3 * x_um * math.sin(mu))
    # the camera follows: the image of +x lies up
    view = twin.view("far_field")
    move(twin, ffz=twin.position("ffz") + 1e-3 * x_um * math.sin(angle) * view.magnification_v / math.cos(angle))
    blurred = width(twin.photons("far_field", 1.0), 1)
    expected_um = view.acceptance("h").rms_rad * abs(x_um * math.cos(angle) - 1e3 * view.defocus_h_mm)
    pixel_um = view.pixel_um / view.magnification_h
    assert math.sqrt(blurred**2 - sharp**2) * pixel_um == pytest.approx(expected_um, rel=0.05)


def test_a_hot_crystal_goes_black(make_twin):
    """300 K more strain aluminium by 7.5e-3, six sigma of the acceptance."""
    hot = make_twin(4, 4, sample_options={"strain": 7.5e-3})
    assert middle(hot) < 1e-3 * PEAK


def test_a_strained_crystal_is_found_again_at_its_own_angle(make_twin, move):
    strain = 2e-3
    twin = make_twin(4, 4, photons_per_s=PEAK, sample_options={"strain": strain})
    theta = math.radians(twin.view("far_field").two_theta_deg / 2)
    shift = math.degrees(-2 * math.tan(theta) * strain)
    mainx = twin.position("mainx")
    arm = arm_positions(twin.view("far_field").two_theta_deg + shift, twin.view("far_field").centre_mm, mainx)
    move(twin, obx=arm.obx, obz=arm.obz, obpitch=arm.obpitch, ffz=arm.ffz, mu=twin.position("mu") + shift / 2)
    assert middle(twin) == pytest.approx(PEAK, rel=0.01)


def test_a_wrong_energy_goes_black_and_the_right_one_does_not(make_twin, move):
    twin = make_twin(4, 4, photons_per_s=PEAK)
    ccmth = twin.position("ccmth")
    sigma = math.degrees(1 / math.sqrt(np.linalg.inv(twin.view("far_field").resolution.covariance)[2, 2]))
    step = sigma * math.tan(math.radians(ccmth))
    move(twin, ccmth=ccmth + step)
    assert middle(twin) == pytest.approx(PEAK * math.exp(-0.5), rel=0.05)
    move(twin, ccmth=ccmth + 8 * step)
    assert middle(twin) < 1e-3 * PEAK


# -- channels ------------------------------------------------------------------------------------------------


def test_a_closed_shutter_gives_a_dark(make_twin):
    twin = make_twin(64, 64, noise=True)
    twin.put("shutter", "closed")
    frame = twin.expose(FrameRequest("far_field", 0.1))
    assert np.median(frame.data[16:-16]) == pytest.approx(103, abs=1)
    assert frame.monitor == 0.0


def test_photons_and_monitor_follow_the_flux_and_the_exposure(make_twin):
    twin = make_twin(4, 4, photons_per_s=PEAK, monitor_per_s=1e6)
    assert twin.expose(FrameRequest("far_field", 0.5)).monitor == pytest.approx(5e5)
    twin.put("attenuator", 0.25)
    twin.happen("ring_current", 100.0)
    assert middle(twin) == pytest.approx(PEAK / 8, rel=1e-3)
    frame = twin.expose(FrameRequest("far_field", 2.0))
    assert frame.monitor == pytest.approx(2e6 / 8)
    assert frame.ring_current_ma == 100.0
    assert twin.get("monitor") == frame.monitor
    with pytest.raises(DeviceError, match="read only"):
        twin.put("ring_current", 200.0)


def test_monitor_counts_have_poissons_noise(make_twin):
    twin = make_twin(4, 4, noise=True, monitor_per_s=400.0)
    counts = [twin.expose(FrameRequest("far_field", 1.0)).monitor for _ in range(400)]
    assert np.mean(counts) == pytest.approx(400, abs=4)
    assert np.var(counts) == pytest.approx(400, rel=0.25)


def test_slow_drift_is_in_the_frames_and_in_the_monitor(make_twin):
    twin = make_twin(4, 4, photons_per_s=PEAK, flux_drift_per_h=-0.1)
    first = twin.expose(FrameRequest("far_field", 1.0)).monitor
    twin.wait_until(3600.0)
    assert twin.expose(FrameRequest("far_field", 1.0)).monitor == pytest.approx(0.9 * first, rel=1e-3)
    assert middle(twin) == pytest.approx(0.9 * PEAK, rel=2e-3)


def test_box_beam_lights_the_whole_depth(make_twin, move):
    # a plate 3 um thick and tilted by nothing: rays along the diffracted beam cross it over t / sin(2theta - theta) of
    # path
    twin = make_twin(4, 4, photons_per_s=PEAK, sample_options={"size_um": [200, 60, 3.0], "voxel_um": [0.5, 1.0, 0.1]})
    assert middle(twin) == pytest.approx(PEAK, rel=0.01)
    twin.put("condenser", "box")
    theta = math.radians(twin.position("mu"))
    # a ray at 2theta to the beam crosses a plate inclined by theta over a height of t sin(2theta) / sin(theta)
    crossed_um = 3.0 * math.sin(2 * theta) / math.sin(theta)
    box_um = 1e3 * twin.position("s8vg")
    assert middle(twin) == pytest.approx(PEAK * crossed_um / box_um, rel=0.05)
    # wider slits let more beam in, not more onto each point
    move(twin, s8vg=0.2)
    assert middle(twin) == pytest.approx(PEAK * crossed_um / box_um, rel=0.05)


def test_without_objective_the_far_field_is_dark_and_the_near_field_sees_the_diffracted_beam(make_twin, move):
    twin = make_twin(128, 128, sample_options={"size_um": [40, 30, 12], "voxel_um": [1, 1, 0.5]})
    twin.put("objective_in", "out")
    assert twin.photons("far_field", 1.0).max() == 0.0
    assert twin.photons("near_field", 1.0).max() == 0.0  # parked
    two_theta = math.radians(2 * twin.position("mu"))
    move(twin, nfx=20.0, nfy=0.0, nfz=20.0 * math.tan(two_theta))
    direct = twin.photons("near_field", 1.0)
    assert centre(direct) == pytest.approx((63.5, 63.5), abs=1.0)
    # at magnification 1: 30 um across at 0.65 um a pixel
    across = direct.sum(0)
    assert (across > across.max() / 2).sum() * 0.65 == pytest.approx(30, abs=1.5)
    # a roll of the crystal sends the beam aside by 2 sin(theta) times the distance
    move(twin, chi=0.02)
    aside = centre(twin.photons("near_field", 1.0))[1] - 63.5
    expected = 2 * math.sin(two_theta / 2) * math.radians(0.02) * 20e3 / math.cos(two_theta) / 0.65
    # chi turns z towards -y: right as seen by the photon, larger columns
    assert aside == pytest.approx(expected, rel=0.1)


def test_a_lens_where_it_can_make_no_image_gives_a_dark(make_twin, move):
    twin = make_twin(16, 16)
    move(twin, mainx=-10.0, ffz=3.0)
    assert twin.photons("far_field", 1.0).max() == 0.0


# -- orientation ---------------------------------------------------------------------------------------------


def letter(twin: Twin) -> np.ndarray:
    """Where a frame is lit, as map[ix, iy]."""
    view = twin.view("far_field")
    lit = frame_to_canonical(twin.photons("far_field", 1.0), view.flip_ud, view.flip_lr) > 0.3 * PEAK
    return lit


def reads_as_f(lit_xy: np.ndarray) -> bool:
    """Whether map[ix, iy], shown with x right and y up, is an upright F: stem at left, arms at top and middle."""
    ix, iy = np.nonzero(lit_xy)
    box = lit_xy[ix.min() : ix.max() + 1, iy.min() : iy.max() + 1]
    width, height = box.shape
    left, right = box[: int(0.2 * width)], box[int(0.5 * width) : int(0.7 * width)]
    up = (np.arange(height) + 0.5) * 8 / height
    arms = right.mean(0) > 0.5
    return bool(
        left.mean() > 0.9
        and arms[up > 7].all()
        and arms[(up > 4) & (up < 4.6)].all()
        and not arms[up < 3].any()
        and not arms[(up > 5.5) & (up < 6)].any()
    )


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_f_is_upright_in_the_canonical_map_for_all_flips(make_twin, move, flips):
    flat = {"tilts_deg": [[0, 0, 0]] * 3, "height_um": 12.0, "voxel_um": [0.1, 0.1, 0.15]}
    twin = make_twin(
        192, 400, {"flip_ud": flips[0], "flip_lr": flips[1]}, sample="f_letter", sample_options=flat, photons_per_s=PEAK
    )
    seen = letter(twin)
    assert reads_as_f(seen)
    assert not reads_as_f(seen[::-1])
    assert not reads_as_f(seen[:, ::-1])


def test_f_turns_with_omega(make_twin, move):
    """omega = 90 takes the sample's x to the laboratory's y, and its y to -x."""
    flat = {"tilts_deg": [[0, 0, 0]] * 3, "height_um": 12.0, "voxel_um": [0.1, 0.1, 0.15]}
    twin = make_twin(192, 400, sample="f_letter", sample_options=flat, photons_per_s=PEAK)
    move(twin, omega=90.0)
    seen = letter(twin)
    # map[x_lab, y_lab] = sample(x = y_lab, y = -x_lab)
    assert reads_as_f(seen[::-1].T)
    assert not reads_as_f(seen)


def test_sample_translations_move_the_image_the_way_they_move_the_sample(make_twin, move):
    twin = make_twin(128, 128, **speck())
    view = twin.view("far_field")

    def place() -> np.ndarray:
        seen = frame_to_canonical(twin.photons("far_field", 1.0))
        return np.array(centre(seen)) * (view.pixel_x_um, view.pixel_y_um)

    home = place()
    move(twin, samy=1e-3)
    assert place() - home == pytest.approx([0.0, 1.0], abs=0.05)
    mu = math.radians(twin.position("mu"))
    move(twin, samy=0.0, samx=2e-3 * math.cos(mu), samz=-2e-3 * math.sin(mu))
    assert place() - home == pytest.approx([2.0, 0.0], abs=0.1)


# -- reproducibility, time, misuse ---------------------------------------------------------------------------


def test_a_frame_depends_on_its_state_seed_and_number_only(make_twin, move):
    first, second = (make_twin(64, 64, noise=True, sample="annealed_aluminium", seed=4) for _ in range(2))
    for phi in (0.01, 0.3, -0.2):  # a history the second one does not have
        move(first, phi=phi)
        first.expose(FrameRequest("far_field", 0.1))
    for twin in (first, second):
        move(twin, phi=0.01, chi=0.02)
    request = FrameRequest("far_field", 0.1, 77)
    np.testing.assert_array_equal(first.expose(request).data, second.expose(request).data)
    other = make_twin(64, 64, noise=True, sample="annealed_aluminium", seed=5)
    move(other, phi=0.01, chi=0.02)
    assert (other.expose(request).data != second.expose(request).data).mean() > 0.5


def test_frames_taken_at_the_same_time_by_several_threads_are_the_same(make_twin):
    twin = make_twin(96, 96, noise=True)
    expected = {n: twin.expose(FrameRequest("far_field", 0.1, n)).data for n in range(8)}
    seen: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: seen.update({n: twin.expose(FrameRequest("far_field", 0.1, n)).data}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, frame in expected.items():
        np.testing.assert_array_equal(frame, seen[number])


def test_frames_are_numbered_and_take_their_exposure_time(make_twin):
    twin = make_twin(8, 8, noise=True)
    frames = [twin.expose(FrameRequest("far_field", 0.5)) for _ in range(3)]
    assert [frame.number for frame in frames] == [0, 1, 2]
    # its exposure and the 10 ms of its read-out
    assert [frame.start_s for frame in frames] == pytest.approx([0.0, 0.51, 1.02])
    assert [frame.end_s for frame in frames] == pytest.approx([0.5, 1.01, 1.52])
    assert twin.now() == pytest.approx(1.53)
    assert twin.expose(FrameRequest("far_field", 0.5, 40)).number == 40
    assert twin.expose(FrameRequest("far_field", 0.5)).number == 41
    assert frames[0].data.dtype == np.uint16
    assert frames[0].data.shape == twin.frame_shape("far_field")


def test_a_frame_during_a_move_is_taken_where_the_axis_is(make_twin):
    twin = make_twin(4, 4, photons_per_s=PEAK)
    arrival = twin.start_move("phi", 1.0, 0.1, 0.0)
    assert middle(twin) == pytest.approx(PEAK, rel=1e-3)
    twin.wait_until(arrival / 2)
    assert twin.position("phi") == pytest.approx(0.5)
    assert middle(twin) < 1.0


def test_hidden_misalignment_is_seen_by_the_beam_and_not_by_the_motors(make_twin, move):
    twin = make_twin(4, 4, photons_per_s=PEAK, misalignment={"phi": 0.2})
    assert twin.position("phi") == 0.0
    assert middle(twin) < 1e-3 * PEAK
    move(twin, phi=-0.2)
    assert middle(twin) == pytest.approx(PEAK, rel=1e-3)


def test_axes_go_by_their_addresses(config):
    content = config.model_dump()
    content["devices"]["goniometer"]["axes"]["chi"]["address"] = "diffrx"
    twin = Twin(MicroscopeConfig.model_validate(content), sample="perfect_crystal")
    twin.start_move("diffrx", 0.25, 0.0, 0.0)
    assert twin.axes()["diffrx"] == 0.25
    assert twin.true_positions()["chi"] == 0.25
    with pytest.raises(DeviceError, match="no axis 'chi'"):
        twin.position("chi")


def test_axes_without_a_start_begin_aligned(config):
    content = config.model_dump()
    for device in content["devices"].values():
        for axis in device["axes"].values():
            axis["start"] = None
    twin = Twin(MicroscopeConfig.model_validate(content), sample="perfect_crystal", photons_per_s=PEAK)
    twin.put("shutter", "open")
    assert middle(twin) == pytest.approx(PEAK, rel=1e-2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sample": "steel"}, "sample: 'steel' must be one of annealed_aluminium"),
        ({"sample_options": {"colour": 1}}, "no 'colour'; it has size_um"),
        ({"sample_options": {"size_um": "big"}}, "cannot be built"),
        ({"sample_options": {"size_um": [0, 1, 1]}}, "above 0"),
        ({"photons_per_s": 0}, "photons_per_s: 0 must be above 0"),
        ({"misalignment": {"psi": 1}}, "no axis 'psi'"),
        ({"clock": "sun"}, "one of real, fast, stepped"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(make_twin, options, says):
    with pytest.raises(ConfigError, match=says) as refused:
        make_twin(4, 4, **options)
    assert "\n" not in str(refused.value)


def test_wrong_requests_are_refused(make_twin):
    twin = make_twin(4, 4)
    for request, says in (
        (FrameRequest("side", 1.0), "no camera 'side'; it has far_field, near_field"),
        (FrameRequest("far_field", 0.0), "cannot expose for 0 s; it takes 0.0001 to 60 s"),
        (FrameRequest("far_field", 61.0), "cannot expose for 61 s"),
    ):
        with pytest.raises(DeviceError, match=says):
            twin.expose(request)


# -- what an alignment goes by --------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["obpitch", "obyaw"])
def test_a_tilted_lens_passes_less_and_hardly_moves_the_image(make_twin, move, axis):
    twin = make_twin(256, 256, photons_per_s=PEAK, **speck())
    before = twin.photons("far_field", 1.0)
    tilt_rad = 2e-3
    view = twin.view("far_field")
    expected = view.objective.alignment_efficiency(view.energy_kev, tilt_rad, 0.0)
    assert 0.5 < expected < 0.9
    move(twin, **{axis: twin.position(axis) + math.degrees(tilt_rad)})
    after = twin.photons("far_field", 1.0)
    assert after.sum() == pytest.approx(expected * before.sum(), rel=0.02)
    # a thin lens would leave it where it is; of a thick one the nodal points do not lie in its centre
    limit = 0.01 * tilt_rad * view.total_mm / (1e-3 * view.pixel_um)
    assert np.hypot(*(np.array(centre(after)) - centre(before))) < limit


def test_a_lens_beside_the_beam_passes_less_by_its_acceptance_across(make_twin, move):
    """The same fall as off the arm: exp(-d^2 / 2 s^2), here with the horizontal acceptance (no divergence across)."""
    twin = make_twin(4, 4, photons_per_s=PEAK)
    view = twin.view("far_field")
    s = view.acceptance("h").rms_rad
    d = 1.2 * s * view.centre_mm
    move(twin, oby=d, ffy=(view.magnification_h + 1) * d)
    assert middle(twin) == pytest.approx(PEAK * math.exp(-(1.2**2) / 2), rel=0.05)


def test_the_near_field_is_dark_off_the_bragg_angle(make_twin, move):
    twin = make_twin(64, 64)
    twin.put("objective_in", "out")
    theta = twin.position("mu")
    move(twin, nfx=20.0, nfy=0.0, nfz=20.0 * math.tan(math.radians(2 * theta)))
    bright = twin.photons("near_field", 1.0).sum()
    # the beam's own divergence and bandwidth make the width of the rocking curve without a lens
    beam = twin.config.instrument.beam
    sigma = math.degrees(math.hypot(beam.divergence_v_rms_rad, beam.bandwidth_rms * math.tan(math.radians(theta))))
    move(twin, phi=1.5 * sigma)
    assert twin.photons("near_field", 1.0).sum() == pytest.approx(bright * math.exp(-(1.5**2) / 2), rel=0.05)
    move(twin, phi=0.5)
    assert twin.photons("near_field", 1.0).sum() == 0.0


def test_a_hidden_turn_of_the_arm_moves_lens_and_camera_together(make_twin, move):
    straight = make_twin(4, 4, photons_per_s=PEAK)
    turned = make_twin(4, 4, photons_per_s=PEAK, misalignment={"two_theta": 0.3})
    assert turned.position("obz") == straight.position("obz")
    view = turned.view("far_field")
    assert view.two_theta_deg == pytest.approx(straight.view("far_field").two_theta_deg + 0.3, abs=1e-9)
    assert view.arm_two_theta_deg == pytest.approx(straight.view("far_field").arm_two_theta_deg + 0.3, abs=1e-9)
    assert view.pitch_error_rad == pytest.approx(straight.view("far_field").pitch_error_rad, abs=1e-9)
    assert middle(turned) < 1e-3 * PEAK
    # turned back by as much, all is as it should be
    here = straight.view("far_field")
    arm = arm_positions(here.two_theta_deg - 0.3, here.centre_mm, turned.position("mainx"))
    move(turned, obx=arm.obx, obz=arm.obz, obpitch=arm.obpitch, ffz=arm.ffz)
    assert middle(turned) == pytest.approx(PEAK, rel=5e-3)
