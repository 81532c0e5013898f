import math
import time

import pytest
from bluesky import plan_stubs as bps
from bluesky.utils import FailedStatus
from fake_backend import Microscope, backend_for, build, configuration

from devices import Fault
from dfxrm_control.errors import ArrivalError, ConfigError, DeviceError, LimitError

WAIT_S = 5.0
MOVED = ("obx", "obz", "obpitch", "ffz")


def real(microscope):
    objective, camera = microscope.objective, microscope.far_field
    return {"obx": objective.obx, "obz": objective.obz, "obpitch": objective.obpitch, "ffz": camera.ffz}


def test_two_theta_moves_objective_and_camera_along_the_arm(microscope):
    microscope.arm.two_theta.set(17.946).wait(WAIT_S)
    axes, angle = real(microscope), math.radians(17.946)
    assert axes["obx"].position == pytest.approx(276.63 * math.cos(angle), abs=1e-9)
    assert axes["obz"].position == pytest.approx(276.63 * math.sin(angle), abs=1e-9)
    assert axes["obpitch"].position == 17.946
    assert axes["ffz"].position == pytest.approx(5000.0 * math.tan(angle), abs=1e-9)
    reading = microscope.arm.two_theta.read()
    assert reading["two_theta"]["value"] == pytest.approx(17.946, abs=1e-9)
    assert reading["two_theta_setpoint"]["value"] == 17.946


def test_two_theta_agrees_with_a_header_of_id03(microscope):
    # ID03, 2024, Al 111 at 17 keV: obx 263.13, obz 85.36, obpitch 17.9794, ffz 1621.611, mainx -5000
    for name, value in {"obx": 263.13, "obz": 85.36, "obpitch": 17.9794, "ffz": 1621.611}.items():
        real(microscope)[name].set(value).wait(WAIT_S)
    assert microscope.arm.two_theta.position == pytest.approx(17.973, abs=1e-3)
    assert microscope.arm.two_theta.angles()["camera"] == pytest.approx(17.969, abs=1e-3)
    assert microscope.arm.read()["two_theta_disagreement"]["value"] == pytest.approx(0.0104, abs=1e-3)


def test_the_setpoint_follows_real_axes_that_were_moved_by_themselves(microscope):
    two_theta = microscope.arm.two_theta
    two_theta.set(17.0).wait(WAIT_S)
    microscope.objective.obz.set(85.0).wait(WAIT_S)
    obx, obz = microscope.objective.obx.position, 85.0
    expected = math.degrees(math.atan2(obz, obx))
    assert two_theta.read()["two_theta_setpoint"]["value"] == pytest.approx(expected, abs=1e-9) != 17.0


def test_an_arm_that_was_aligned_keeps_its_alignment_when_it_is_moved(microscope):
    two_theta, zero = microscope.arm.two_theta, microscope.arm.two_theta_zero
    two_theta.set(17.5).wait(WAIT_S)
    ideal = {name: axis.position for name, axis in real(microscope).items()}
    off = {"obx": -0.4, "obz": 0.2, "obpitch": 0.1, "ffz": 3.0}
    for name, by in off.items():
        real(microscope)[name].set(ideal[name] + by).wait(WAIT_S)
    assert two_theta.position != pytest.approx(17.5, abs=1e-3)
    zero.set(17.5).wait(WAIT_S)
    # nothing has moved, and the arm is where it was said to be
    assert {name: axis.position for name, axis in real(microscope).items()} == pytest.approx(
        {name: ideal[name] + by for name, by in off.items()}, abs=1e-9
    )
    assert two_theta.position == pytest.approx(17.5, abs=1e-9)
    assert two_theta.read()["two_theta_setpoint"]["value"] == pytest.approx(17.5, abs=1e-9)
    assert microscope.arm.read()["two_theta_disagreement"]["value"] == pytest.approx(0.0, abs=1e-9)
    reading = zero.read()
    assert reading["two_theta_zero"]["value"] == 17.5
    assert reading["two_theta_zero_obz"]["value"] == pytest.approx(0.2, abs=1e-9)
    assert set(reading) == set(zero.describe())
    # it goes as an ideal arm does, each part off by as much
    two_theta.set(17.946).wait(WAIT_S)
    angle = math.radians(17.946)
    assert microscope.objective.obz.position == pytest.approx(276.63 * math.sin(angle) + 0.2, abs=1e-9)
    assert microscope.far_field.ffz.position == pytest.approx(5000.0 * math.tan(angle) + 3.0, abs=1e-9)
    assert two_theta.position == pytest.approx(17.946, abs=1e-9)
    # and its limits count with that
    low, high = two_theta.limits
    assert math.degrees(math.atan2(1960.0 - 3.0, 5000.0)) == pytest.approx(high, abs=1e-6)
    assert low < high


def test_a_real_limit_is_found_before_anything_moves(microscope):
    with pytest.raises(LimitError) as caught:
        microscope.arm.two_theta.set(22.0)
    assert (
        str(caught.value)
        == "axis two_theta cannot go to 22 deg: axis ffz: 2020.13113 mm is outside its limits -40 .. 1960 mm"
    )
    assert not microscope.backend.log


@pytest.mark.parametrize("wrong", ["steep", float("nan"), 90.0, -95.0])
def test_an_angle_that_is_none_moves_nothing(microscope, wrong):
    with pytest.raises(ValueError, match="two_theta"):
        microscope.arm.two_theta.set(wrong)
    assert not microscope.backend.log


def test_the_limits_are_what_all_real_axes_reach(microscope):
    low, high = microscope.arm.two_theta.limits
    assert high == pytest.approx(math.degrees(math.atan(1960 / 5000)))
    for inside in (low + 1e-6, high - 1e-6):
        microscope.arm.two_theta.check_value(inside)
    for outside in (low - 1e-3, high + 1e-3):
        with pytest.raises(LimitError):
            microscope.arm.two_theta.check_value(outside)


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("fault", [Fault("short", 0.01), Fault("fault", text="no power"), Fault("stall")])
def test_a_failed_real_axis_fails_the_move_by_name_and_stops_the_others(name, fault):
    device = "far_field" if name == "ffz" else "objective"
    config = configuration(**{f"{device}__axes__{name}__extra_timeout_s": 0.1 if fault.kind == "stall" else 10.0})
    slow_microscope = Microscope(config, backend_for(config, instant=False))
    axes = real(slow_microscope)
    for axis in axes.values():
        axis.velocity.put(200.0 if axis is axes[name] else 0.5)
    axes[name].inject(fault)
    begin = time.monotonic()
    status = slow_microscope.arm.two_theta.set(17.5)
    error = status.exception(timeout=WAIT_S)
    assert isinstance(error, DeviceError if fault.kind == "stall" else ArrivalError)
    assert f"axis two_theta did not reach 17.5 deg because of {name}: axis {name}" in str(error)
    assert time.monotonic() - begin < 5.0
    assert not any(axis.moving for axis in axes.values())
    standing = {other: axis.position for other, axis in axes.items()}
    time.sleep(0.05)
    assert standing == {other: axis.position for other, axis in axes.items()}


def test_a_plan_sees_the_failure(microscope, run_engine):
    microscope.far_field.ffz.inject(Fault("short", 1.0))
    with pytest.raises(FailedStatus) as caught:
        run_engine(bps.mv(microscope.arm.two_theta, 17.0))
    assert "because of ffz: axis ffz was sent to" in str(caught.value.__cause__)


def test_stop_halts_all_real_axes(slow_microscope):
    status = slow_microscope.arm.two_theta.set(10.0)
    time.sleep(0.02)
    slow_microscope.arm.two_theta.stop()
    assert "axis two_theta was stopped" in str(status.exception(timeout=WAIT_S))
    assert not any(axis.moving for axis in real(slow_microscope).values())


def test_stop_by_a_pause_is_no_failure_of_a_pseudo_axis(slow_microscope):
    status = slow_microscope.arm.two_theta.set(10.0)
    slow_microscope.arm.two_theta.stop(success=True)
    status.wait(WAIT_S)
    assert not any(axis.moving for axis in real(slow_microscope).values())


def test_a_new_angle_replaces_the_old_one(slow_microscope):
    for axis in real(slow_microscope).values():
        axis.velocity.put(400.0)
    first = slow_microscope.arm.two_theta.set(10.0)
    second = slow_microscope.arm.two_theta.set(17.9)
    assert "before it had arrived" in str(first.exception(timeout=WAIT_S))
    second.wait(WAIT_S)
    assert slow_microscope.arm.two_theta.position == pytest.approx(17.9, abs=1e-3)


def test_an_arm_without_its_axes_says_which_is_missing():
    config = configuration(far_field=None)
    with pytest.raises(ConfigError, match="two_theta needs the axis ffz"):
        build(config, backend_for(config))


def test_energy_follows_braggs_law(microscope):
    # Si 111 as the control system of ID03 has it: 6.679671 deg is 17.000 keV with d = 3.135012 A
    energy = microscope.monochromator.energy
    assert energy.position == pytest.approx(17.0, abs=1e-6)
    energy.set(15.0).wait(WAIT_S)
    assert microscope.monochromator.ccmth.position == pytest.approx(
        math.degrees(math.asin(12.398419843 / (2 * 3.135012 * 15.0))), abs=1e-9
    )
    assert energy.read()["energy_setpoint"]["value"] == 15.0


def test_energies_out_of_reach_are_refused(microscope):
    energy = microscope.monochromator.energy
    with pytest.raises(LimitError, match=r"must be above hc/2d = 1\.977 keV"):
        energy.set(1.0)
    with pytest.raises(LimitError, match="axis energy cannot go to 5 keV: axis ccmth"):
        energy.set(5.0)


def test_without_monochromator_the_energy_is_that_of_the_source(microscope):
    microscope.monochromator.ccmth.set(8.0).wait(WAIT_S)
    microscope.monochromator.mono.set("out").wait(WAIT_S)
    assert microscope.monochromator.energy.position == 17.0
    with pytest.raises(LimitError, match="the monochromator is out of the beam"):
        microscope.monochromator.energy.set(16.0)
