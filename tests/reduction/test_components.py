"""Strain, tilts and distortion from centres of mass: every sign, every setting, and what a scan cannot tell."""

import math

import numpy as np
import pytest
from recording import POSITIONS, instrument
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.crystal import energy_kev, strain_from_energy, strain_from_two_theta_and_ccmth, wavelength_angstrom
from dfxrm_control.geometry import diffraction_vector, goniometer_rotation
from dfxrm_control.microscope import Microscope
from dfxrm_control.reduction._components import components_of

MIDDLE = 17.946
D_MONO = 3.135012


def view(**moved):
    config = instrument()
    config["monochromator"] = {"name": "channel-cut Si 111", "d_spacing_angstrom": D_MONO}
    described = InstrumentConfig.model_validate(config)
    return Microscope(described).view({**POSITIONS, "mu": MIDDLE / 2, **moved}, "far_field", {})


def asked_in_sample(names, where, setting):
    """Return the diffraction vector of the lattice that peaks at these positions, worked out with matrices."""
    at = {**setting.positions, "two_theta": MIDDLE, **dict(zip(names, where, strict=True))}
    energy = at["energy"] if "energy" in names else energy_kev(at["ccmth"], D_MONO)
    turn = goniometer_rotation(*(at[axis] for axis in ("mu", "omega", "chi", "phi")))
    return turn.T @ diffraction_vector(at["two_theta"], wavelength_angstrom(energy))


def middle_of(names, setting):
    at = {**setting.positions, "two_theta": MIDDLE, "energy": setting.energy_kev}
    return [at[name] for name in names]


def found_at(names, where, setting, **options):
    """Return the components of a map whose last pixel peaks at ``where`` and the others in the middle of the scan."""
    middle = middle_of(names, setting)
    com = [np.array([[m, m, m, w]]) for m, w in zip(middle, where, strict=True)]
    count = len(names)
    covariance = {(a, b): np.full((1, 4), float(a == b)) for a in range(count) for b in range(a, count)}
    return components_of(setting, names, com, covariance, np.ones((1, 4), bool), **options)


def value(found, name):
    values = found.maps[name].values
    np.testing.assert_allclose(values[0, :3], 0.0, atol=1e-12)
    return values[0, 3]


def frame_of(reference):
    """Return e1, e2, e3: e3 along the reference, e1 the sample's x made perpendicular to it."""
    e3 = reference / np.linalg.norm(reference)
    e1 = np.array([1.0, 0.0, 0.0]) - e3[0] * e3
    e1 /= np.linalg.norm(e1)
    return np.stack([e1, np.cross(e3, e1), e3])


@pytest.mark.parametrize(
    ("omega", "chi", "phi"), [(0.0, 0.0, 0.0), (0.0, 1.7, -2.3), (37.0, 1.7, -2.3), (90.0, 1.7, -2.3)]
)
@pytest.mark.parametrize("tilts", [("chi", "phi"), ("chi", "mu"), ("phi", "mu")])
def test_a_known_displacement_comes_back_whole_at_any_setting(omega, chi, phi, tilts):
    setting = view(omega=omega, chi=chi, phi=phi)
    names = ("two_theta", *tilts)
    if tilts == ("phi", "mu") and omega == 0.0:
        # both turn about y: they leave the roll unseen
        assert found_at(names, middle_of(names, setting), setting).maps == {}
        return
    if tilts == ("chi", "mu") and omega == 90.0:
        assert found_at(names, middle_of(names, setting), setting).maps == {}
        return
    reference = asked_in_sample(names, middle_of(names, setting), setting)
    axes = frame_of(reference)
    turned = Rotation.from_rotvec(axes.T @ [0.3e-3, -0.8e-3, 5e-3]).apply(reference) / (1.0 + 4e-4)
    middle = np.array(middle_of(names, setting))
    solved = least_squares(
        lambda move: 1e3 * (asked_in_sample(names, middle + move, setting) - turned),
        np.zeros(3),
        **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15),
    )
    where = middle + solved.x
    found = found_at(names, where, setting)
    distortion = axes @ (turned - reference) / np.linalg.norm(reference)
    for number in range(3):
        assert value(found, f"H_{number + 1}3") == pytest.approx(distortion[number], abs=1e-9)
    assert value(found, "strain") == pytest.approx(4e-4, abs=1e-9)
    # as the rotation was given: +w about e2 is H_13 = w, +w about e1 is H_23 = -w
    assert distortion[:2] == pytest.approx([-0.8e-3, -0.3e-3], rel=0.01)
    lab = goniometer_rotation(MIDDLE / 2, omega, chi, phi) @ (turned - reference) / np.linalg.norm(reference)
    theta = math.radians(MIDDLE / 2)
    rock = lab @ [math.cos(theta), 0.0, math.sin(theta)]
    assert value(found, "tilt_rock") == pytest.approx(math.degrees(rock), abs=1e-8)
    assert value(found, "tilt_roll") == pytest.approx(-math.degrees(lab[1]), abs=1e-8)
    assert found.notes == ()


def test_signs_of_the_reference():
    """A crystal turned by +w about y is met by phi = -w: H_13 = -COM_phi; about x: H_23 = +COM_chi; strain: -H_33."""
    w = math.degrees(1e-3)
    upright = view()
    found = found_at(("chi", "phi"), (0.0, -w), upright)
    assert value(found, "H_13") == pytest.approx(1e-3, rel=1e-3)
    assert value(found, "tilt_rock") == pytest.approx(w, rel=1e-3)
    found = found_at(("chi", "phi"), (-w, 0.0), upright)
    assert value(found, "H_23") == pytest.approx(-1e-3, rel=1e-3)
    assert value(found, "tilt_roll") == pytest.approx(w, rel=1e-3)
    # mu turns about -y
    found = found_at(("mu",), (MIDDLE / 2 + w,), upright)
    assert value(found, "H_13") == pytest.approx(1e-3, rel=1e-3)
    larger = MIDDLE - math.degrees(2.0 * math.tan(math.radians(MIDDLE / 2)) * 1e-3)
    rocked = (larger, -(larger - MIDDLE) / 2.0)
    found = found_at(("two_theta", "phi"), rocked, upright)
    assert value(found, "strain") == pytest.approx(1e-3, rel=5e-3)
    assert value(found, "H_33") == pytest.approx(-value(found, "strain"), rel=2e-3)
    assert value(found, "tilt_rock") == pytest.approx(0.0, abs=1e-6)
    # on its side, chi rocks and phi rolls
    side = view(omega=90.0)
    assert value(found_at(("phi", "chi"), (0.0, -w), side), "tilt_rock") == pytest.approx(w, rel=1e-3)


@pytest.mark.parametrize("axis", ["two_theta", "ccmth", "energy"])
def test_strain_is_exact_in_the_angle_or_the_energy_and_first_order_by_the_jacobian(axis):
    setting = view()
    middle = middle_of((axis, "phi"), setting)
    second = []
    for step in (0.02, 0.04):
        found = found_at((axis, "phi"), (middle[0] + step, middle[1]), setting)
        got = value(found, "strain")
        exact = {
            "two_theta": lambda d=step: strain_from_two_theta_and_ccmth(d, setting.two_theta_deg, 0.0, 90.0),
            "ccmth": lambda d=step: strain_from_two_theta_and_ccmth(0.0, 90.0, d, middle[0]),
            "energy": lambda d=step: strain_from_energy(middle[0] + d, middle[0]),
        }[axis]()
        assert got == pytest.approx(exact, abs=1e-9)
        per_unit = 1.0 / setting.energy_kev if axis == "energy" else math.radians(1.0)
        # q_s = -J m, strain = -q_par
        second.append(got - setting.jacobian([axis])[2, 0] * step * per_unit)
    assert abs(second[0]) < 0.02 * abs(got)
    assert second[1] / second[0] == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize(
    ("names", "omega", "told"),
    [
        (("chi", "phi"), 0.0, ["tilt_rock", "tilt_roll", "H_13", "H_23"]),
        (("two_theta", "phi"), 0.0, ["strain", "tilt_rock", "H_13", "H_33"]),
        (("ccmth", "mu"), 0.0, ["strain", "tilt_rock", "H_13", "H_33"]),
        (("energy", "phi"), 0.0, ["strain", "tilt_rock", "H_13", "H_33"]),
        (("two_theta", "mu"), 37.0, ["strain", "tilt_rock", "H_33"]),
        (("two_theta", "chi"), 90.0, ["strain", "tilt_rock", "H_23", "H_33"]),
        (("two_theta", "ccmth"), 0.0, ["strain", "tilt_rock", "H_13", "H_33"]),
        (("two_theta", "chi", "phi"), 0.0, ["strain", "tilt_rock", "tilt_roll", "H_13", "H_23", "H_33"]),
        (("phi",), 0.0, ["tilt_rock", "H_13"]),
        (("chi",), 0.0, ["tilt_roll", "H_23"]),
        (("two_theta",), 0.0, ["relative_contrast"]),
        (("ccmth",), 0.0, ["relative_contrast"]),
        (("energy",), 0.0, ["relative_contrast"]),
        (("samx", "phi"), 0.0, []),
    ],
)
def test_what_a_scan_does_not_tell_is_absent(names, omega, told):
    setting = view(omega=omega)
    found = found_at(names, middle_of(names, setting), setting)
    assert list(found.maps) == told


def test_what_a_scan_at_fixed_two_theta_takes_for_a_tilt_is_stated():
    setting = view()
    found = found_at(("chi", "phi"), middle_of(("chi", "phi"), setting), setting)
    strained = np.array([0.0, 0.0, -1e-4])
    peak = setting.resolution.peak_rad(setting.jacobian(["chi", "phi"]), strained)
    false = value(found_at(("chi", "phi"), np.degrees(peak), setting), "tilt_rock")
    (note,) = found.notes
    assert note.startswith("tilt_rock holds 0.0")
    assert float(note.split()[2]) == pytest.approx(abs(math.radians(false)) / 1e-4, abs=6e-4)


def test_relative_contrast_says_what_it_is_made_of():
    setting = view()
    label = found_at(("two_theta",), (MIDDLE,), setting).maps["relative_contrast"].label
    assert "0.50 per unit strain" in label
    strained = setting.resolution.peak_rad(setting.jacobian(["two_theta"]), np.array([0.0, 0.0, -1e-4]))
    moved = MIDDLE + math.degrees(strained[0])
    assert value(found_at(("two_theta",), (moved,), setting), "relative_contrast") == pytest.approx(0.5e-4, rel=0.01)
    label = found_at(("ccmth",), middle_of(("ccmth",), setting), setting).maps["relative_contrast"].label
    assert "1.00 per unit strain" in label


def test_errors_carry_the_covariance_of_the_centres_of_mass():
    """Against drawn centres of mass: rock and 2theta are strongly correlated, which a sum of squares would miss."""
    setting = view()
    names = ("two_theta", "phi")
    truth = np.array([[4.0, -1.6], [-1.6, 1.0]]) * 1e-8
    rng = np.random.default_rng(2)
    drawn = rng.multivariate_normal(middle_of(names, setting), truth, (60, 60))
    covariance = {(a, b): np.full((60, 60), truth[a, b]) for a, b in ((0, 0), (0, 1), (1, 1))}
    com = [drawn[..., 0], drawn[..., 1]]
    found = components_of(setting, names, com, covariance, np.ones((60, 60), bool)).maps
    for component in found.values():
        assert np.std(component.values) == pytest.approx(np.median(component.noise_error), rel=0.04), component.name
        assert (component.error >= component.noise_error).all()
    uncorrelated = {**covariance, (0, 1): np.zeros((60, 60))}
    other = components_of(setting, names, com, uncorrelated, np.ones((60, 60), bool)).maps
    assert np.median(other["tilt_rock"].noise_error) > 1.5 * np.median(found["tilt_rock"].noise_error)


def test_strain_can_be_relative_to_a_given_spacing_and_says_so():
    setting = view()
    names = ("two_theta", "phi")
    spacing = 1.0 / np.linalg.norm(asked_in_sample(names, middle_of(names, setting), setting))
    found = found_at(names, middle_of(names, setting), setting, unstrained_d_angstrom=spacing / 1.001).maps
    np.testing.assert_allclose(found["strain"].values, 1e-3, rtol=1e-6)
    np.testing.assert_allclose(found["H_33"].values, 1.0 / 1.001 - 1.0, rtol=1e-5)
    np.testing.assert_allclose(found["tilt_rock"].values, 0.0, atol=1e-9)
    assert "angstrom" in found["strain"].label
    assert "median" in found["tilt_rock"].label


def test_pixels_that_do_not_count_are_neither_reference_nor_shown():
    setting = view()
    com = [np.array([[MIDDLE, MIDDLE, MIDDLE + 0.1]]), np.array([[0.0, 0.0, np.nan]])]
    covariance = {(a, b): np.ones((1, 3)) for a, b in ((0, 0), (0, 1), (1, 1))}
    found = components_of(setting, ("two_theta", "phi"), com, covariance, np.array([[True, True, True]])).maps
    np.testing.assert_array_equal(np.isnan(found["strain"].values), [[False, False, True]])
    nothing = components_of(setting, ("two_theta", "phi"), com, covariance, np.zeros((1, 3), bool)).maps
    assert np.isnan(nothing["strain"].values).all()
