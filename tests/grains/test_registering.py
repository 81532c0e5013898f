"""A hidden motion of the map is found again from the settings at which its grains diffract."""

from __future__ import annotations

import numpy as np
import pytest
from grain_maps import AL
from scipy.spatial.transform import Rotation

from dfxrm_control.config import find_config, override
from dfxrm_control.errors import ParameterError
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff import FoundGrain, Registration, choose, register

HIDDEN = Registration((0.31, -0.24, 0.29), (0.021, -0.013, 0.017))


def _grains(count: int, spread_deg: float = 90.0) -> GrainMap:
    random = np.random.default_rng(4)
    turns = Rotation.from_rotvec(random.normal(size=(count, 3)) * np.radians(spread_deg))
    return GrainMap(
        np.arange(1, count + 1),
        turns.as_matrix() @ AL.B,
        random.uniform(-0.2, 0.2, (count, 3)),
        np.full((count, 3), 0.02),
        np.full(count, 8e-6),
        np.zeros(count, np.int64),
        (AL,),
        ("aluminium",),
    )


def _found(grains: GrainMap, truth: Registration, count: int, noise: float = 0.0, stage: str = "above"):
    config = override(find_config("simulated"), [f"instrument.sample_stage={stage}"])
    choices = choose(grains, config, registration=truth)
    random = np.random.default_rng(9)
    found: list[FoundGrain] = []
    for row in np.flatnonzero(choices.reachable):
        if int(choices.grain_id[row]) in {each.grain_id for each in found}:
            continue
        at = choices.setting(int(row))
        for axis in ("chi", "phi"):
            at[axis] += random.normal() * noise * 2e-3
        for axis in ("samx", "samy", "samz"):
            at[axis] += random.normal() * noise * 1e-3
        found.append(FoundGrain(int(choices.grain_id[row]), tuple(choices.hkl[row].tolist()), at))
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} grains are in reach")


@pytest.mark.parametrize("stage", ["above", "below"])
def test_a_hidden_motion_is_recovered(stage):
    grains = _grains(200)
    fit = register(grains, _found(grains, HIDDEN, 6, stage=stage), stage=stage)
    np.testing.assert_allclose(fit.registration.rotation_deg, HIDDEN.rotation_deg, atol=1e-5)
    np.testing.assert_allclose(fit.registration.shift_mm, HIDDEN.shift_mm, atol=1e-7)
    assert fit.angle_residual_deg.max() < 1e-5 and np.abs(fit.place_residual_mm).max() < 1e-7


def test_errors_are_those_of_the_centring_and_one_grain_is_predicted_by_the_others():
    grains = _grains(400)
    fit = register(grains, _found(grains, HIDDEN, 8, noise=1.0))
    away = np.array(fit.registration.rotation_deg) - HIDDEN.rotation_deg
    assert np.abs(away / fit.rotation_error_deg).max() < 4.0
    assert np.abs((np.array(fit.registration.shift_mm) - HIDDEN.shift_mm) / fit.shift_error_mm).max() < 4.0
    assert np.isfinite(fit.left_out_angle_deg).all()
    # a grain that did not take part is predicted a little worse than one that did
    assert fit.left_out_angle_deg.mean() > fit.angle_residual_deg.mean()
    assert fit.left_out_angle_deg.max() < 0.02 and fit.left_out_place_mm.max() < 5e-3
    assert any("predicted without it" in line for line in fit.lines())


def test_a_grain_that_is_another_one_stands_out():
    grains = _grains(400)
    found = _found(grains, HIDDEN, 7)
    wrong = dict(found[3].positions)
    wrong["samx"] += 0.05
    wrong["chi"] += 0.3
    found[3] = FoundGrain(found[3].grain_id, found[3].hkl, wrong)
    fit = register(grains, found)
    assert int(np.argmax(fit.left_out_place_mm)) == 3 and int(np.argmax(fit.left_out_angle_deg)) == 3


def test_too_few_grains_or_all_alike_are_refused():
    grains = _grains(200)
    found = _found(grains, HIDDEN, 4)
    with pytest.raises(ParameterError, match="needs 3 different grains, and 2 were found"):
        register(grains, [*found[:2], found[0]])
    twins = _grains(20, spread_deg=0.3)
    with pytest.raises(ParameterError, match=r"within .* deg of one another, so the turn about them is not known"):
        register(twins, _alike(twins))


def _alike(grains: GrainMap) -> list[FoundGrain]:
    at = {"mu": 8.97, "omega": 0.0, "chi": 0.0, "phi": 0.0, "two_theta": 17.946, "samx": 0, "samy": 0, "samz": 0}
    return [FoundGrain(number, (0, 0, 2), at) for number in (1, 2, 3)]


def test_an_omega_offset_is_found_where_the_settings_tell_and_left_at_zero_where_they_do_not():
    grains = _grains(600)
    offset = Registration(HIDDEN.rotation_deg, HIDDEN.shift_mm, omega_offset_deg=0.7)
    config = find_config("simulated")
    choices = choose(grains, config, registration=offset)
    tilted = [row for row in np.flatnonzero(choices.reachable) if abs(choices.setting(int(row))["omega"] - 0.7) > 5]
    upright = np.flatnonzero(choices.reachable & choices.on_axis).tolist()

    def found(rows):
        each = {}
        for row in rows:
            each.setdefault(int(choices.grain_id[row]), int(row))
        return [FoundGrain(g, tuple(choices.hkl[r].tolist()), choices.setting(r)) for g, r in list(each.items())[:8]]

    known = register(grains, found(tilted))
    assert known.omega_offset_known
    assert known.registration.omega_offset_deg == pytest.approx(0.7, abs=1e-3)
    np.testing.assert_allclose(known.registration.rotation_deg, HIDDEN.rotation_deg, atol=1e-3)
    unknown = register(grains, found(upright))
    assert not unknown.omega_offset_known and unknown.registration.omega_offset_deg == 0.0
