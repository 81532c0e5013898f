"""Reading configurations: those of the distribution, those that build on others, and those with a mistake."""

import math

import pytest

from dfxrm_control.config import config_names, find_config, load_config, override
from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import ConfigError
from dfxrm_control.microscope import Microscope


def _mine(tmp_path, text):
    file = tmp_path / "mine.yml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", config_names())
def test_every_configuration_is_valid_and_bears_its_name(name):
    assert find_config(name).name == name


@pytest.mark.parametrize("name", config_names())
def test_every_motor_has_limits_and_a_start(name):
    computed = {"two_theta", "energy"}
    for device in find_config(name).devices.values():
        for axis, config in device.axes.items():
            assert config.limits is not None, axis
            assert (config.start is None) == (axis in computed), axis


@pytest.mark.parametrize(
    ("name", "bragg_deg"),
    [("simulated", 17.946), ("crl_id03", 17.946), ("mll", 17.946), ("silicon", 13.357), ("domains", 20.821)],
)
def test_the_arm_starts_at_the_bragg_angle_of_the_reflection(name, bragg_deg):
    """obx, obz and ffz agree with obpitch and mainx, and obpitch with Bragg's law."""
    config = find_config(name)
    start = {axis: config.axis(axis).start for axis in ("obx", "obz", "obpitch", "ffz", "mainx", "mu")}
    spacing = Lattice.from_parameters(*config.sample.lattice).d_spacing(config.sample.hkl)
    wavelength = 12.398419843 / config.instrument.beam.energy_kev
    two_theta = 2 * math.degrees(math.asin(wavelength / (2 * spacing)))
    assert two_theta == pytest.approx(bragg_deg, abs=5e-4)
    assert start["obpitch"] == pytest.approx(two_theta, abs=1e-5)
    assert start["mu"] == pytest.approx(two_theta / 2, abs=1e-5)
    assert math.degrees(math.atan2(start["obz"], start["obx"])) == pytest.approx(two_theta, abs=1e-4)
    (objective,) = config.instrument.objectives.values()
    assert math.hypot(start["obx"], start["obz"]) == pytest.approx(objective.distance_mm, abs=1e-3)
    assert start["mainx"] < 0
    assert start["ffz"] == pytest.approx(-start["mainx"] * math.tan(math.radians(two_theta)), abs=1e-3)


def test_a_configuration_builds_on_another_and_takes_parts_away(tmp_path):
    config = load_config(
        _mine(
            tmp_path,
            "extends: simulated\nname: mine\ninstrument: {cameras: {near_field: null}}\n"
            "bodies: {near_field: null}\n"
            "devices: {near_field: null, goniometer: {axes: {chi: {limits: [-1, 1]}}}}\n",
        )
    )
    below = find_config("simulated")
    assert config.name == "mine"
    assert list(config.instrument.cameras) == ["far_field"]
    assert "near_field" not in config.devices
    assert config.axis("chi").limits == (-1, 1)
    assert config.axis("chi").velocity == below.axis("chi").velocity
    assert config.axis("phi") == below.axis("phi")


def test_a_configuration_that_extends_itself_is_refused(tmp_path):
    (tmp_path / "a.yml").write_text("extends: ./b.yml\n")
    (tmp_path / "b.yml").write_text("extends: ./a.yml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load_config(tmp_path / "a.yml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("extends: simulated\nname: m\nscna: {darks: 3}\n", ["scna", "no such setting"]),
        ("extends: simulated\nname: m\nscan: {darks: -3}\n", ["scan.darks", "-3"]),
        ("extends: simulatd\nname: m\n", ["'simulatd'", "simulated"]),
        ("extends: simulated\nname: m\ndevices: {goniometer: {axes: {chi: {limits: [2, 1]}}}}\n", ["limits", "below"]),
        ("extends: simulated\nname: m\nplans: {mine: plans.mine}\n", ["plans.mine"]),
        ("name: [\n", ["line 2", "YAML"]),
        ("extends: simulated\nname: m\nscan: {darks: 3}\nscan: {rock: mu}\n", ["line 4", "'scan' is given twice"]),
        ("- 1\n", ["mapping", "list"]),
        ("name: !!python/object/apply:os.getcwd []\n", ["YAML"]),
    ],
)
def test_a_mistake_is_named_in_one_sentence(tmp_path, text, told):
    with pytest.raises(ConfigError) as caught:
        load_config(_mine(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in told), message


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ConfigError, match="'simulatd' is not one of .*simulated"):
        find_config("simulatd")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no.yml cannot be read"):
        find_config(str(tmp_path / "no.yml"))


def test_single_settings_are_changed():
    config = override(find_config("simulated"), ["scan.darks=7", "devices.goniometer.axes.chi.limits=[-1, 2]"])
    assert config.scan.darks == 7
    assert config.axis("chi").limits == (-1, 2)
    assert config.axis("chi").start == 0


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("scan.darks", "form group.setting=value"),
        ("scan.darkz=1", "scan.darkz"),
        ("name.x=1", "'name'"),
        ("scan.darks=many", "darks"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting, told):
    with pytest.raises(ConfigError, match=told):
        override(find_config("simulated"), [setting])


@pytest.mark.parametrize(
    ("name", "magnification", "total_mm"),
    [
        ("simulated", 16.27, 5979.56),
        ("crl_id03", 16.27, 5979.56),
        ("f_letter", 16.27, 5979.56),
        ("mll", 103.1, 5255.71),
        ("silicon", 15.86, 5846.78),
        ("domains", 14.33, 5349.32),
    ],
)
def test_the_far_field_is_in_focus_at_the_start(name, magnification, total_mm):
    """The CRL stands as in the numbers of Poulsen et al. (2017), and the MLL as it was planned."""
    config = find_config(name)
    starts = {axis: part.start for device in config.devices.values() for axis, part in device.axes.items()}
    positions = {axis: start for axis, start in starts.items() if start is not None}
    view = Microscope(config.instrument).view(positions, "far_field", {})
    assert view.magnification_v == pytest.approx(magnification, rel=2e-3)
    # far inside the depth of field, 140 um for the CRL and some 10 um for the MLL
    assert abs(view.defocus_mm) < 1e-3
    assert view.total_mm == pytest.approx(total_mm, abs=0.02)
