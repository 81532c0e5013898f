"""What heat does to the sample of the twin: it expands out of the aperture, drifts, and coarsens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.crystal import wavelength_angstrom
from dfxrm_control.errors import ConfigError
from simulators import Twin
from simulators.coarsening import Coarsening, GrowthLaw
from simulators.sample import annealed_aluminium, perfect_crystal

SMALL = {"size_um": (30.0, 30.0, 12.0), "voxel_um": (0.25, 0.25, 0.25)}


@pytest.fixture
def hot(config: MicroscopeConfig):
    """Return a function that makes a small twin with a furnace, its shutter open."""

    def make(**options) -> Twin:
        content = config.model_dump()
        for camera in content["instrument"]["cameras"].values():
            camera |= {"rows": 32, "columns": 32}
        content["sample"] |= {"expansion_per_k": 25e-6}
        axis = {"units": "degC", "limits": (20.0, 500.0), "velocity": 0.5, "start": 25.0}
        content["devices"]["furnace"] = {"device": "devices:Furnace", "axes": {"temperature": axis}}
        twin = Twin(
            MicroscopeConfig.model_validate(content),
            **{"sample": "perfect_crystal", "seed": 3, "noise": False, **options},
        )
        twin.put("shutter", "open")
        return twin

    return make


def heat(twin: Twin, temperature: float, velocity: float = 1 / 6, hold_s: float = 0.0) -> None:
    end_s = twin.start_move("temperature", temperature, velocity, 0.0)
    twin.wait_until((end_s if math.isfinite(end_s) else twin.now()) + hold_s)


def test_aluminium_at_325_degc_is_longer_by_7_5e_3_and_diffracts_at_a_smaller_angle(hot):
    twin = hot()
    cold = twin.g0_per_angstrom
    heat(twin, 325.0)
    assert twin.temperature == 325.0
    assert cold / twin.g0_per_angstrom - 1 == pytest.approx(7.5e-3, rel=1e-9)
    wavelength = wavelength_angstrom(17.0)
    two_theta = [2 * math.degrees(math.asin(wavelength * g0 / 2)) for g0 in (cold, twin.g0_per_angstrom)]
    # -0.136 deg to first order in the strain
    assert two_theta[1] - two_theta[0] == pytest.approx(-0.136, abs=1.5e-3)
    slope = -2 * math.degrees(7.5e-3 * math.tan(math.radians(two_theta[0] / 2)))
    assert slope == pytest.approx(-0.136, abs=5e-4)


def test_the_image_of_a_hot_crystal_is_black_until_two_theta_is_found_again(hot, move):
    twin = hot()
    bright = twin.photons("far_field", 1.0).max()
    before = {axis: twin.position(axis) for axis in ("obpitch", "mainx", "phi")}
    heat(twin, 325.0)
    # 7.5e-3 is six sigma along q_par
    assert twin.photons("far_field", 1.0).max() < 1e-6 * bright
    change = 2 * math.degrees(math.asin(math.sin(math.radians(before["obpitch"] / 2)) / 1.0075)) - before["obpitch"]
    arm = twin.microscope.arm(before["obpitch"] + change, abs(before["mainx"]))
    move(twin, obpitch=arm.obpitch, obx=arm.obx, obz=arm.obz, ffz=arm.ffz, mainx=arm.mainx)
    # the Bragg angle has become smaller by half of it, and a positive phi tips the crystal out of Bragg
    move(twin, phi=before["phi"] - change / 2)
    assert twin.photons("far_field", 1.0).max() > 0.98 * bright


def test_a_temperature_rises_at_its_ramp_rate(hot):
    twin = hot()
    assert twin.temperature == 25.0
    end_s = twin.start_move("temperature", 325.0, 10 / 60, 0.0)
    assert end_s == pytest.approx(1800.0)
    twin.wait_until(900.0)
    assert twin.temperature == pytest.approx(175.0)
    assert twin.stop("temperature") == pytest.approx(175.0)


def test_without_a_furnace_the_sample_is_at_its_reference_temperature(make_twin):
    twin = make_twin()
    assert (twin.temperature, twin.thermal_strain) == (25.0, 0.0)


def test_heat_drifts_the_sample(hot):
    twin = hot(thermal_drift_um_per_k=(0.01, -0.02, 0.0))
    assert twin.true_positions()["samx"] == 0.0
    heat(twin, 125.0)
    true = twin.true_positions()
    assert (true["samx"], true["samy"], true["samz"]) == pytest.approx((1e-3, -2e-3, 0.0), abs=1e-12)
    assert twin.position("samx") == 0.0


@pytest.mark.parametrize(("error_k", "ends_at"), [(-60.0, 265.0), (+40.0, 365.0)])
def test_a_heater_may_end_off_its_target_and_then_never_says_that_it_is_there(hot, error_k, ends_at):
    twin = hot(heater_error_k=error_k)
    assert twin.start_move("temperature", 325.0, 1.0, 0.0) == math.inf
    twin.wait_until(1e4)
    assert twin.temperature == pytest.approx(ends_at)
    # it can always cool
    heat(twin, 25.0)
    assert twin.temperature == 25.0


# -- coarsening ----------------------------------------------------------------------------------------------


def test_the_growth_law_is_an_arrhenius_law():
    law = GrowthLaw(rate_um2_per_s=0.0325, temperature=325.0, activation_kj_per_mol=142.0)
    assert law.growth_um2(325.0, 325.0, 1200.0) == pytest.approx(39.0)
    assert math.sqrt(5.0**2 + 39.0) == pytest.approx(8.0)
    slope = math.log(law.rate(325.0) / law.rate(225.0)) / (1 / 498.15 - 1 / 598.15)
    assert slope * 8.314462618 == pytest.approx(142e3, rel=1e-9)
    # a year in the drawer
    assert law.growth_um2(25.0, 25.0, 3.2e7) < 1e-6


def mean_chord_um(sample) -> float:
    """Mean distance of walls along x and y in the middle layer."""
    domain = sample.domain[sample.index[:, :, sample.index.shape[2] // 2]]
    length = domain.shape[0] * domain.shape[1] * sample.voxel_um[:2]
    walls = [np.count_nonzero(np.diff(domain, axis=axis)) * 1.0 for axis in (0, 1)]
    return float(length.sum() / sum(walls))


def test_twenty_minutes_at_325_degc_coarsen_the_sub_grains_and_room_temperature_does_not(hot):
    twin = hot(sample="annealed_aluminium", sample_options=SMALL, coarsening={})
    before = twin.sample
    twin.wait_until(86400.0)
    assert twin.sample is before
    heat(twin, 325.0, velocity=10 / 60, hold_s=1200.0)
    after = twin.sample
    # from 5 um to 8 um, and the ramp counts too
    assert 1.35 < mean_chord_um(after) / mean_chord_um(before) < 2.0
    assert after.index is before.index
    hot_count, cold_count = (len(np.unique(sample.domain)) for sample in (after, before))
    assert hot_count < 0.6 * cold_count
    heat(twin, 25.0)
    cooled = twin.sample
    twin.wait_until(twin.now() + 86400.0)
    assert twin.sample is cooled


def test_a_domain_has_one_tilt_and_a_merged_one_the_mean_of_its_parts():
    sample = annealed_aluminium(1, **SMALL)
    later = Coarsening(sample).sample(40)
    weight = np.bincount(sample.index.ravel(), minlength=len(sample.domain))
    assert len(np.unique(later.domain)) == len(np.unique(sample.domain)) - 40
    for name in np.unique(later.domain):
        members = later.domain == name
        assert np.ptp(later.tilt_deg[members], axis=0) == pytest.approx(0.0, abs=1e-12)
        mean = np.average(sample.tilt_deg[members], axis=0, weights=weight[members])
        assert later.tilt_deg[members][0] == pytest.approx(mean, abs=1e-12)
    # turning costs nothing on the whole: the mean lattice stays
    means = [np.average(each.tilt_deg, axis=0, weights=weight) for each in (sample, later)]
    assert means[1] == pytest.approx(means[0], abs=1e-12)


def test_where_walls_migrate_the_larger_keeps_its_orientation_and_walls_stay_sharp():
    sample = annealed_aluminium(1, **SMALL, wall_range_deg=(0.03, 0.08))
    coalesced, migrated = (Coarsening(sample, migration).sample(250) for migration in (False, True))
    weight = np.bincount(sample.index.ravel(), minlength=len(sample.domain))
    for name in np.unique(migrated.domain):
        members = np.flatnonzero(migrated.domain == name)
        assert np.ptp(migrated.tilt_deg[members], axis=0).max() < 1e-12
        assert (np.abs(sample.tilt_deg[members] - migrated.tilt_deg[members[0]]).max(axis=1) < 1e-12).any()

    def variance(of):
        return np.average(of.tilt_deg[:, :2] ** 2, axis=0, weights=weight).sum()

    # means of many lie nearer to the middle than the many
    assert variance(migrated) > 1.2 * variance(coalesced)


def test_the_same_history_gives_the_same_crystal_whatever_is_looked_at_on_the_way(hot):
    options = {"sample": "annealed_aluminium", "sample_options": SMALL, "coarsening": {}}
    looked, left_alone = hot(**options), hot(**options)
    for twin in (looked, left_alone):
        end_s = twin.start_move("temperature", 325.0, 10 / 60, 0.0)
        if twin is looked:
            for time_s in np.linspace(0.0, end_s + 600.0, 37):
                twin.wait_until(float(time_s))
                twin.photons("far_field", 1.0)
        twin.wait_until(end_s + 600.0)
    assert np.array_equal(looked.sample.tilt_deg, left_alone.sample.tilt_deg)
    assert len(np.unique(looked.sample.domain)) < len(np.unique(annealed_aluminium(3, **SMALL).domain))


def test_the_image_follows_the_sub_grains(hot):
    twin = hot(sample="annealed_aluminium", sample_options={**SMALL, "wall_deg": 0.1}, coarsening={})
    before = twin.photons("far_field", 1.0)
    heat(twin, 325.0, hold_s=3600.0)
    heat(twin, 25.0)
    after = twin.photons("far_field", 1.0)
    assert np.abs(after - before).max() > 0.2 * before.max()


@pytest.mark.parametrize(
    ("coarsening", "sample", "sentence"),
    [
        ({"speed": 1.0}, "annealed_aluminium", "backend.options.coarsening: .*speed"),
        ({"rate_um2_per_s": -1.0}, "annealed_aluminium", "backend.options.coarsening: .* must not be below 0"),
        ({}, "perfect_crystal", "backend.options.coarsening: this sample has no sub-grains"),
    ],
)
def test_a_law_that_cannot_be_is_one_sentence(hot, coarsening, sample, sentence):
    with pytest.raises(ConfigError, match=sentence):
        hot(sample=sample, coarsening=coarsening)


def test_a_sample_without_sub_grains_cannot_coarsen():
    with pytest.raises(ConfigError, match="no sub-grains"):
        Coarsening(perfect_crystal())


def test_the_known_domains_are_those_that_the_known_field_shows(hot):
    twin = hot(sample="annealed_aluminium", sample_options={**SMALL, "voxel_um": (0.1, 0.1, 0.1)}, coarsening={})
    heat(twin, 325.0, hold_s=1200.0)
    heat(twin, 25.0)
    domains, field = twin.known_domains(), twin.known_field(("chi", "phi"))
    assert domains.shape == field.com[0].shape
    sample = twin.sample
    tilt = {name: sample.tilt_deg[sample.domain == name][0] for name in np.unique(domains)}
    assert len(tilt) > 1
    # a crystal turned by +w about y is met by phi lower by w, one about x by chi lower by w
    for motor, axis in ((0, 0), (1, 1)):
        expected = -np.vectorize(lambda name, axis=axis: tilt[name][axis])(domains)
        # away from walls, whose image is blurred
        near = np.zeros(domains.shape, bool)
        for shift in (-6, 6):
            for along in (0, 1):
                near |= np.roll(domains, shift, axis=along) != domains
        away = ~near
        away[:6], away[-6:], away[:, :6], away[:, -6:] = False, False, False, False
        left = field.com[motor][away] - expected[away]
        assert away.any() and np.median(np.abs(left)) < 2e-3
