"""Domains and walls of known crystals, with noise, bending and blur."""

import csv
from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from recording import OFFSET, Recording, camera, mesh, peaks
from scipy import ndimage

from dfxrm_control.cli._domains import domains
from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction import LatticeField, Segmentation, find_domains, maps_from_file, write_maps

STEPS = (0.12, 0.036)
# the image is blurred by 0.1 um FWHM, 3 pixels across the beam
BLUR = (0.4, 1.3)
SHAPE = (120, 180)
IX, IY = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")


def a_map(rock, roll, *, strain=None, dark=None, noise=1e-3, seed=0):
    """Return a map of tilts (deg) blurred with the intensity, with noise of 1 mdeg and 2e-5."""
    rng = np.random.default_rng(seed)
    light = np.ones(rock.shape) if dark is None else (~dark).astype(float)
    seen = ndimage.gaussian_filter(light, BLUR)
    fields = {"tilt_rock": rock, "tilt_roll": roll} | ({} if strain is None else {"strain": strain})
    values, error = {}, {}
    for name, true in fields.items():
        error[name] = np.full(rock.shape, 2e-5 if name == "strain" else noise)
        blurred = ndimage.gaussian_filter(true * light, BLUR) / np.maximum(seen, 1e-12)
        values[name] = blurred + error[name] * rng.standard_normal(rock.shape)
    x, y = (np.arange(n) * step for n, step in zip(rock.shape, STEPS, strict=True))
    return LatticeField("scan", "s", x, y, "um", np.eye(3), values, error, seen > 0.01, 1e4 * seen)


def most(labels, true, found):
    """Return the true label that prevails in a domain."""
    return int(np.bincount(true[labels == found]).argmax())


def away_from_walls(true, pixels):
    """Return where the truth has no wall within so many pixels."""
    size = 2 * pixels + 1
    return ndimage.maximum_filter(true, size) == ndimage.minimum_filter(true, size)


def test_steps_of_a_hundredth_of_a_degree_are_resolved():
    right, left = IY + 0.3 * IX > 80, IY - 0.2 * IX > 120
    true = right.astype(int) + 2 * left
    found = find_domains(a_map(0.01 * right, 0.01 * left), burgers_um=2.86e-4)
    assert len(found.domains) == 3
    for one in found.domains:
        truth = most(found.labels, true, one.label)
        assert one.mean["tilt_rock"] == pytest.approx(0.01 * (truth % 2), abs=3e-4)
        assert one.mean["tilt_roll"] == pytest.approx(0.01 * (truth // 2), abs=3e-4)
        assert one.error["tilt_rock"] < 5e-5
        # each domain is the true one, but for two pixels at its walls
        assert (true[(found.labels == one.label) & away_from_walls(true, 2)] == truth).all()
    walls = {wall.misorientation_deg for wall in found.walls}
    assert len(found.walls) == 2
    assert all(abs(angle - 0.01) < 5e-4 for angle in walls)
    for wall in found.walls:
        assert wall.misorientation_error_deg < 3e-4
        assert wall.spacing_um == pytest.approx(2.86e-4 / np.radians(0.01), rel=0.05)
    assert any("upper bound" in note for note in found.notes)


def test_the_length_of_a_wall_does_not_depend_on_its_direction():
    for slope in (0.0, 0.3, -1.2):
        side = (IY - 90) - slope * (IX - 60) > 0
        found = find_domains(a_map(0.05 * side, 0.0 * side))
        (wall,) = found.walls
        # dy = slope dx in pixels
        rows = SHAPE[0] if abs(slope) < 1.5 else 0
        expected = rows * np.hypot(STEPS[0], slope * STEPS[1])
        assert wall.length == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_sub_grains_in_a_bent_crystal_are_found_and_measured(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.0, 1.0, (10, 2)) * SHAPE
    true = np.argmin((IX[..., None] - points[:, 0]) ** 2 + (IY[..., None] - points[:, 1]) ** 2, axis=-1)
    # neighbours differ by 0.05 deg or more
    angles = 2 * np.pi * np.arange(10) / 10
    tilts = 0.09 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    bend = 0.012 * np.sin(2 * np.pi * IX / 110)
    found = find_domains(a_map(tilts[true, 0] + bend, tilts[true, 1] - 0.5 * bend, seed=seed))
    sizes = np.bincount(true.ravel(), minlength=10)
    assert len(found.domains) == (sizes > 50).sum()
    owner = {one.label: most(found.labels, true, one.label) for one in found.domains}
    clear = away_from_walls(true, 2)
    wrong = sum(((found.labels == label) & clear & (true != owner[label])).sum() for label in owner)
    assert wrong <= 0.002 * clear.sum()
    for wall in found.walls:
        if wall.length > 1.0:
            truth = np.linalg.norm(tilts[owner[wall.first]] - tilts[owner[wall.second]])
            assert wall.misorientation_deg == pytest.approx(truth, abs=5e-3)
    # a bent crystal spreads; noise does not count
    spread = np.median([one.orientation_spread_deg for one in found.domains])
    assert 0.003 < spread < 0.012


def test_noise_and_bending_alone_are_one_domain():
    bend = 0.05 * np.sin(2 * np.pi * IX / 240) + 0.02 * np.cos(2 * np.pi * IY / 200)
    for seed in range(3):
        assert len(find_domains(a_map(bend, 0.0 * bend, seed=seed)).domains) == 1
    flat = find_domains(a_map(0.0 * bend, 0.0 * bend))
    assert flat.domains[0].orientation_spread_deg < 2e-4
    assert flat.domains[0].pixels == IX.size
    assert flat.domains[0].area == pytest.approx(IX.size * STEPS[0] * STEPS[1])


def test_dark_stripes_are_labelled_as_not_in_this_reflection():
    dark = (IY > 60) & (IY <= 90)
    found = find_domains(a_map(0.02 * (IY > 75), 0.0 * IY, dark=dark))
    assert len(found.domains) == 2 and len(found.dark) == 1
    assert (found.labels[:, 64:87] == -1).all() and (found.labels[:, :58] > 0).all()
    assert found.dark[0].area == pytest.approx(dark.sum() * STEPS[0] * STEPS[1], rel=0.15)
    # there is no wall between domains that do not touch
    assert found.walls == ()
    assert any("not in this reflection" in note for note in found.notes)


def test_a_step_of_strain_alone_is_a_wall():
    side = IX > 60
    found = find_domains(a_map(0.0 * IX, 0.0 * IX, strain=2e-4 * side))
    (wall,) = found.walls
    sign = 1.0 if most(found.labels, side.astype(int), wall.second) else -1.0
    assert sign * wall.step["strain"] == pytest.approx(2e-4, abs=1e-5)
    assert wall.misorientation_deg < 1e-3


def test_bad_pixels_do_not_make_domains():
    field = a_map(0.05 * (IY > 90), 0.0 * IY)
    rng = np.random.default_rng(5)
    for _ in range(40):
        place = tuple(rng.integers(0, n) for n in SHAPE)
        field.values["tilt_rock"][place] += 0.3
        field.valid[tuple(rng.integers(0, n) for n in SHAPE)] = False
    found = find_domains(field)
    assert len(found.domains) == 2 and not found.dark


def test_saturated_pixels_belong_to_domains_and_are_left_out_of_their_numbers():
    clean = a_map(0.05 * (IY > 90), 0.0 * IY)
    full = IY < 40
    wrong = {**clean.values, "tilt_rock": clean.values["tilt_rock"] + 0.0015 * full}
    # it is the error of such a pixel that is not known
    found = find_domains(replace(clean, values=wrong, saturated=full))
    assert len(found.domains) == 2 and not found.dark
    first = next(one for one in found.domains if found.labels[40, 20] == one.label)
    assert first.mean["tilt_rock"] == pytest.approx(0.0, abs=1e-4)
    assert (found.labels[full] == first.label).all()
    assert [note for note in found.notes if "saturated" in note] == [
        f"{full.sum()} saturated pixels lie in domains and are left out of their numbers"
    ]
    counted = find_domains(replace(clean, values=wrong))
    held = next(one for one in counted.domains if counted.labels[40, 20] == one.label)
    assert held.mean["tilt_rock"] > 4e-4
    # a domain that is saturated for the most part has no other numbers
    found = find_domains(replace(clean, saturated=IY > 80))
    assert len(found.domains) == 2
    (note,) = (note for note in found.notes if "saturated" in note)
    second = next(one for one in found.domains if found.labels[40, 120] == one.label)
    assert f"but for those of domains {second.label}, which" in note
    assert second.mean["tilt_rock"] == pytest.approx(0.05, abs=2e-3)


def test_from_a_scan_to_tables_and_pictures(tmp_path):
    shape = (40, 60)
    ix, iy = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    centers = np.stack([0.15 * (iy > 30), 0.0 * ix])
    points = mesh(np.linspace(-0.35, 0.5, 10), np.linspace(-0.05, 0.05, 9))
    frames = camera(peaks(points, centers, [0.08, 0.012], 900.0), np.random.default_rng(1))
    recording = Recording(tmp_path / "scan", frames, points, (10, 9))
    write_maps(maps_from_file(recording.write(), dark=OFFSET), tmp_path / "al_maps.h5")
    result = CliRunner().invoke(domains, [str(tmp_path / "al_maps.h5"), "--burgers", "2.86"])
    assert result.exit_code == 0, result.output
    with h5py.File(tmp_path / "al_domains.h5") as file:
        labels = file["entry/labels/data"][()]
        assert labels.shape == shape and set(np.unique(labels)) == {1, 2}
        assert file["entry/walls/misorientation_deg"][0] == pytest.approx(0.15, abs=5e-3)
    with (tmp_path / "al_domains_walls.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["dislocation_spacing_upper_bound_um"]) == pytest.approx(2.86e-4 / np.radians(0.15), rel=0.05)
    with (tmp_path / "al_domains.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert (tmp_path / "al_domains.png").stat().st_size > 10_000


def test_what_cannot_be_segmented_is_refused():
    field = a_map(0.0 * IX, 0.0 * IX)
    with pytest.raises(ParameterError, match="significance"):
        Segmentation(significance=0.0)
    field.valid[:] = False
    with pytest.raises(ParameterError, match="nothing to segment"):
        find_domains(field)
