"""What a hand-off needs beside the choice: order, tiles, neighbours, doubt, and a registration that is kept."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from grain_maps import AL, polycrystal
from scipy.spatial.transform import Rotation

from dfxrm_control.config import find_config, override
from dfxrm_control.errors import FileFormatError, ParameterError, RecordError
from dfxrm_control.geometry import goniometer_rotation, imaging_basis
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff import (
    FoundGrain,
    Registration,
    RegistrationStore,
    choose,
    companions,
    map_fingerprint,
    register,
    residuals_of,
    screen_table,
)
from plans._handoff import least_travel

TURNED = Registration((0.2, -0.1, 0.3), (0.02, -0.01, 0.015))


def _grains(turns_deg, centres_mm, size_um=20.0) -> GrainMap:
    count = len(turns_deg)
    return GrainMap(
        np.arange(1, count + 1),
        Rotation.from_rotvec(turns_deg, degrees=True).as_matrix() @ AL.B,
        np.asarray(centres_mm, float),
        np.full((count, 3), 1e-3 * size_um),
        np.full(count, (1e-3 * size_um) ** 3),
        np.zeros(count, np.int64),
        (AL,),
        ("aluminium",),
        source="made for a test",
    )


# -- order -----------------------------------------------------------------------------------------------------


def test_the_shortest_of_all_orders_of_points_on_a_line_is_found():
    positions = np.array([0.0, 5.0, -1.0, 3.0, 9.0, 4.0, 1.0])
    seconds = np.abs(positions[:, None] - positions)
    order = least_travel(seconds)
    assert sorted(order) == list(range(6))

    def length(way):
        return sum(seconds[a, b] for a, b in itertools.pairwise([0, *(k + 1 for k in way)]))

    assert length(order) == min(length(way) for way in itertools.permutations(range(6)))


def test_crossings_are_taken_out():
    random = np.random.default_rng(2)
    places = random.uniform(0, 10, (15, 2))
    seconds = np.linalg.norm(places[:, None] - places, axis=-1)
    way = [0, *(k + 1 for k in least_travel(seconds))]
    for i, j in itertools.combinations(range(1, len(way) - 1), 2):
        turned = [*way[:i], *way[i : j + 1][::-1], *way[j + 1 :]]
        old, new = (sum(seconds[a, b] for a, b in itertools.pairwise(each)) for each in (way, turned))
        assert new >= old - 1e-9
    assert least_travel(np.zeros((1, 1))) == []


# -- tiles and cameras -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size_um", "covering"), [(60.0, "2x"), (400.0, "")])
def test_tiles_cover_a_large_grain_and_the_camera_that_would_is_named(size_um, covering):
    choices = choose(_grains([[2.0, 1.0, 0.0]], [[0, 0, 0]], size_um), find_config("simulated"), hkl=(0, 0, 2))
    row = int(np.flatnonzero(choices.reachable)[0])
    assert not choices.fits[row] and choices.covering[row] == covering
    places = choices.tile_places_um(row)
    along, across = choices.tiles[row]
    assert len(places) == along * across > 1
    field, grain = choices.field_um[row], choices.grain_um[row]
    for side in range(2):
        middles = np.unique(np.round(places[:, side], 6))
        assert middles[0] - field[side] / 2 <= -grain[side] / 2 + 1e-6
        assert middles[-1] + field[side] / 2 >= grain[side] / 2 - 1e-6
        # neighbours overlap by a tenth of a field at least
        if len(middles) > 1:
            assert np.diff(middles).max() <= 0.9 * field[side] + 1e-6
    text = choices.too_large(row)
    assert f"{along} x {across} tiles" in text and ("2x camera" in text) == bool(covering)
    assert text in list(screen_table(choices, 1).columns[-1].cells)[0]


def test_the_field_is_that_of_the_objective_asked_for():
    grains = _grains([[2.0, 1.0, 0.0]], [[0, 0, 0]], 60.0)
    near, wide = (
        choose(grains, find_config("simulated"), hkl=(0, 0, 2), camera_objective=name) for name in ("10x", "2x")
    )
    np.testing.assert_allclose(wide.field_um, 5.0 * near.field_um)
    assert wide.fits.all() and (wide.tiles == 1).all() and wide.too_large(0) == ""
    with pytest.raises(ParameterError, match="camera 'far_field' has no objective '5x'; it has 10x, 2x"):
        choose(grains, find_config("simulated"), camera_objective="5x")


def test_a_margin_leaves_room_for_a_search():
    grains = _grains([[4.6, 0.0, 0.0]], [[0, 0, 0]])
    free, kept = (choose(grains, find_config("simulated"), hkl=(0, 0, 2), margin_deg=m) for m in (0.0, 0.7))
    assert free.reachable.any() and abs(free.setting(0)["chi"]) > 4.5
    best = kept.setting(0)
    assert kept.reachable[0] and max(abs(best["chi"]), abs(best["phi"])) <= 4.3 + 1e-9
    with pytest.raises(ParameterError, match="no room"):
        choose(grains, find_config("simulated"), margin_deg=6.0)


# -- neighbours ------------------------------------------------------------------------------------------------


def test_a_grain_of_nearly_the_same_orientation_near_by_is_a_companion():
    grains = _grains(
        [[1.0, 1.0, 0.0], [1.3, 1.0, 20.0], [1.0, 1.0, 5.0], [3.0, 1.0, 0.0]],
        [[0, 0, 0], [0.03, 0, 0], [0.5, 0, 0], [0.03, 0, 0]],
    )
    # the turn about z of the second leaves its 002 where it is but for the tilt
    choices = choose(grains, find_config("simulated"), hkl=(0, 0, 2), grain_ids=[1])
    row = next(row for row in np.flatnonzero(choices.reachable) if tuple(choices.hkl[row]) == (0, 0, 2))
    near = [
        companions(grains, Registration(), 1, (0, 0, 2), choices.setting(int(row)), within, 100.0)
        for within in ((0.7, 0.7), (0.1, 0.1))
    ]
    assert near == [[2], []]
    far = companions(grains, Registration(), 1, (0, 0, 2), choices.setting(int(row)), (0.7, 0.7), 1000.0)
    assert far == [2, 3]


# -- residuals and doubt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["above", "below"])
def test_residuals_are_the_tilt_and_the_way_from_the_prediction(stage):
    grains = _grains([[2.0, 1.0, 0.0]], [[0.05, 0.02, -0.03]])
    config = override(find_config("simulated"), [f"instrument.sample_stage={stage}"])
    choices = choose(grains, config, hkl=(0, 0, 2), registration=TURNED)
    row = next(row for row in np.flatnonzero(choices.reachable) if tuple(choices.hkl[row]) == (0, 0, 2))
    at = choices.setting(int(row))
    none = residuals_of(grains, TURNED, FoundGrain(1, (0, 0, 2), at), stage=stage)
    assert max(abs(none.rock_deg), abs(none.roll_deg)) < 1e-9 and none.distance_um < 1e-9
    # a crystal turned by +w about y is met by phi less w, about x by chi less w
    off = residuals_of(grains, TURNED, FoundGrain(1, (0, 0, 2), {**at, "phi": at["phi"] - 0.1}), stage=stage)
    assert off.rock_deg == pytest.approx(0.1, rel=0.02) and abs(off.roll_deg) < 0.01
    off = residuals_of(grains, TURNED, FoundGrain(1, (0, 0, 2), {**at, "chi": at["chi"] - 0.1}), stage=stage)
    assert off.roll_deg == pytest.approx(0.1, rel=0.02) and abs(off.rock_deg) < 0.01
    turn = goniometer_rotation(*(at[axis] for axis in ("mu", "omega", "chi", "phi")))
    moved = np.array([0.01, 0.0, 0.0]) if stage == "above" else turn @ [0.01, 0.0, 0.0]
    away = {axis: at[axis] - part for axis, part in zip(("samx", "samy", "samz"), moved, strict=True)}
    off = residuals_of(grains, TURNED, FoundGrain(1, (0, 0, 2), {**at, **away}), stage=stage)
    np.testing.assert_allclose(off.place_um, [10.0, 0.0, 0.0], atol=1e-9)
    assert imaging_basis(at["two_theta"]).shape == (3, 3)


def _found(grains, registration):
    choices = choose(grains, find_config("simulated"), hkl=(0, 0, 2), registration=registration)
    rows = {int(choices.grain_id[row]): int(row) for row in np.flatnonzero(choices.reachable)[::-1]}
    return [FoundGrain(g, tuple(choices.hkl[row].tolist()), choices.setting(row)) for g, row in sorted(rows.items())]


@pytest.mark.parametrize("count", [3, 5])
def test_a_fit_that_a_grain_contradicts_is_doubted(count):
    grains = _grains(
        [[3.0, 2.0, 0.0], [-3.0, 1.0, 10.0], [0.0, -3.5, 20.0], [1.0, 3.0, 5.0], [-2.0, -2.0, 0.0]][:count],
        np.random.default_rng(1).uniform(-0.1, 0.1, (count, 3)),
    )
    found = _found(grains, TURNED)
    assert register(grains, found).doubt() == ""
    wrong = FoundGrain(2, found[1].hkl, {**found[1].positions, "samx": found[1].positions["samx"] + 0.06})
    said = register(grains, [found[0], wrong, *found[2:]]).doubt()
    assert "another grain was taken for it, or the axes of the map are mixed up" in said
    if count > 3:
        assert said.startswith("grain 2 ")


# -- the store -------------------------------------------------------------------------------------------------


def test_a_registration_is_kept_with_the_sample_and_can_be_undone(tmp_path):
    config = override(find_config("simulated"), [f"data.directory={tmp_path}", "sample.name=wire"])
    store, grains = RegistrationStore.of(config), polycrystal()
    assert store.path == tmp_path / "wire" / "registration.json"
    assert store.for_map(grains) is None and store.current() is None
    with pytest.raises(ParameterError, match="nothing to undo"):
        store.undo()
    second = Registration((0.1, 0.2, 0.3), (0.001, 0.002, 0.003), 0.5)
    store.store(TURNED, grains, [1, 2, 3], ["fine"])
    stored = store.store(second, grains, [1, 2, 4], ["better"])
    assert store.for_map(grains) == second and stored.grains == (1, 2, 4)
    assert store.undo().registration == TURNED and store.for_map(grains) == TURNED
    third = store.store(second, grains, [5, 6, 7], [])
    assert third.replaces == 0 and len(store.history()[0]) == 3
    store.undo()
    assert store.undo() is None and store.for_map(grains) is None
    assert len(store.history()[0]) == 3
    assert not [path for path in store.path.parent.iterdir() if path != store.path]


def test_that_of_another_map_says_nothing(tmp_path):
    store = RegistrationStore(tmp_path / "registration.json")
    store.store(TURNED, polycrystal(), [1, 2, 3], [])
    other = polycrystal(seed=4)
    assert map_fingerprint(other) != map_fingerprint(polycrystal())
    assert store.for_map(other) is None and store.for_map(polycrystal()) == TURNED


@pytest.mark.parametrize("content", ["{", "[]", '{"history": [], "current": 3}', '{"history": [{}], "current": 0}'])
def test_a_damaged_store_is_said_to_be_so(tmp_path, content):
    path = tmp_path / "registration.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"registration\.json"):
        RegistrationStore(path).current()
    with pytest.raises(FileFormatError):
        RegistrationStore(path).store(TURNED, polycrystal(), [1, 2, 3], [])
    assert path.read_text() == content


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((RecordError, FileFormatError), match="file"):
        RegistrationStore(tmp_path / "file" / "registration.json").store(TURNED, polycrystal(), [1, 2, 3], [])
    store = RegistrationStore(tmp_path / "registration.json")
    store.store(TURNED, polycrystal(), [1], [])
    assert json.loads(store.path.read_text())["current"] == 0
