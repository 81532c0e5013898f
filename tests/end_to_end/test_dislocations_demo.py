"""Dislocations in silicon on the noisy twin, from start to number: `dfxrm demo dislocations` and what it rests on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

from dfxrm_control.cli import main
from dfxrm_control.config import find_config, override
from dfxrm_control.demos import dislocations as demo
from dfxrm_control.demos.dislocations import (
    COMPONENTS,
    LINE_HEIGHT_UM,
    analyse_line,
    check_lines,
    measure_line,
    run_dislocations,
)
from dfxrm_control.dislocations import distorted_vector
from dfxrm_control.errors import ConfigError
from dfxrm_control.geometry import FWHM_PER_SIGMA
from dfxrm_control.reduction import LayerView, dislocation_maps, maps_from_file

LEAST_PHOTONS = 20_000
ALONG_UM = 3.1356e-4  # a / sqrt 3
BURGERS_UM = 3.8403e-4  # a / sqrt 2


@pytest.fixture
def silicon(tmp_path):
    return override(
        find_config("silicon"),
        [
            "data.minimum_free_gb=0.01",
            f"data.directory={tmp_path / 'data'}",
            f"data.journal_directory={tmp_path / 'journal'}",
        ],
    )


@pytest.mark.slow
def test_the_demonstration_reaches_its_targets_and_draws_them(silicon):
    result = run_dislocations(silicon, quiet=True)
    assert result.met, "\n".join(result.lines())
    assert len(result.targets()) >= 9
    matching = result.matching
    assert matching.recall >= 0.9 and matching.precision >= 0.9
    assert np.median(matching.distance_px) <= 2.0
    assert matching.inside >= 30 and len(matching.hidden) >= 10
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    assert all(path.exists() for path in result.products)
    mixed, invisible = result.lines_found
    for one in result.lines_found:
        assert np.median(one.maps.photons[one.maps.valid]) >= LEAST_PHOTONS
        assert np.isfinite(one.squares.burgers_um).sum() >= 20
        assert (one.squares.half_sizes_um.min(), one.squares.half_sizes_um.max()) == (0.5, 3.0)
    assert {name for name, found in mixed.fit.amplitudes.items() if found.error < 0.033} == set(COMPONENTS)
    for loops in (mixed.squares, mixed.around):
        assert loops.mean_um == pytest.approx(ALONG_UM, rel=0.05)
    for loops in (invisible.squares, invisible.around):
        assert abs(loops.mean_um) <= 0.05 * BURGERS_UM
    assert invisible.burgers_along_um == 0.0
    assert mixed.density_on_streak > 1e-4 > 10 * abs(invisible.density_on_streak)


@pytest.mark.slow
def test_lines_of_a_crystal_that_the_least_length_was_not_chosen_on_are_found(silicon):
    """With many spots of lines with ``b . q-hat = 0``: without the least length precision is 0.85 there."""
    result = run_dislocations(override(silicon, ["backend.options.seed=12"]), quiet=True, kinds=())
    assert len(result.matching.known) + len(result.matching.hidden) >= 50
    assert len(result.matching.hidden) >= 20
    assert result.met, "\n".join(result.lines())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["screw", "edge"])
def test_other_lines_are_measured_as_well(silicon, kind):
    one = measure_line(silicon, kind, quiet=True)
    assert all(target.met for target in one.targets()), [target.line() for target in one.targets()]
    assert one.photons >= LEAST_PHOTONS
    assert abs(one.burgers_along_um) == pytest.approx(ALONG_UM, rel=1e-4)
    assert sum(found.error < 0.033 for found in one.fit.amplitudes.values()) >= 2


@pytest.fixture
def scan_line(open_session):
    """Return a function that scans one dislocation and gives maps, known field, line, place and view."""

    def scan(options, *settings, **parameters):
        session = open_session(
            "backend.options.sample=silicon_dislocation",
            f"backend.options.sample_options={options}",
            f"instrument.beam.line_height_um={LINE_HEIGHT_UM}",
            "instrument.cameras.far_field.rows=80",
            "instrument.cameras.far_field.columns=192",
            *settings,
            config="silicon",
        )
        twin = session.backend
        (known,) = twin.known_lines("far_field")
        view = LayerView.of(twin.view("far_field"))
        # so that the arm stands for the known field where it stands in the middle of the scan
        session.move([(session.axes["two_theta"], session.axes["two_theta"].readback())])
        field = twin.known_field(["two_theta", "chi", "phi"], "far_field")
        here = session.axes["two_theta"].readback()
        outcome = session.run("mosaicity_strain_scan", {"exposure_s": 2.0, **parameters})
        return maps_from_file(outcome.master), (field, here), known, view

    return scan


@pytest.mark.slow
def test_the_other_burgers_vector_has_the_other_sign(scan_line):
    maps, _, known, view = scan_line("{kind: mixed, burgers: [-1, -1, 0]}")
    place = (known.x_um, known.y_um)
    found = analyse_line(maps, "opposite", known.dislocation, place, view)
    assert found.squares.mean_um == pytest.approx(-ALONG_UM, rel=0.05)
    assert found.burgers_along_um == pytest.approx(-ALONG_UM, rel=1e-3)
    assert all(target.met for target in found.targets())
    # the same line described from its other end, with -b, is the same
    line = known.dislocation
    same = replace(line, line=-line.line, burgers_um=-line.burgers_um)
    other_end = analyse_line(maps, "other end", same, place, view)
    assert other_end.burgers_along_um == pytest.approx(found.burgers_along_um)
    assert other_end.fit.amplitudes["H_13"].value == pytest.approx(found.fit.amplitudes["H_13"].value, abs=1e-3)
    # with b alone turned round, what is claimed is not what is there, and it is said
    wrong = analyse_line(maps, "wrong", replace(line, burgers_um=-line.burgers_um), place, view)
    assert not any(target.met for target in wrong.targets())
    assert "MISSED" in wrong.targets()[0].line()


@pytest.mark.slow
def test_strain_and_tilts_around_a_line_are_as_good_as_silicon_allows(scan_line):
    """On pixels of 20,000 photons: strain to 2e-5, tilts to 1 mdeg, slope 1, errors at most 1.3 times the predicted."""
    maps, (field, here), _, _ = scan_line("{kind: mixed}", "instrument.beam.line_height_um=0.6")
    theta = np.radians(here / 2.0)
    truth = {
        "strain": -np.radians(field.com[0] - here) / (2.0 * np.tan(theta)),
        "tilt_rock": -(field.com[2] + (field.com[0] - here) / 2.0),
        "tilt_roll": -field.com[1],
    }
    bright = maps.valid & (maps.photons >= LEAST_PHOTONS) & np.isfinite(field.com).all(axis=0)
    assert bright.mean() > 0.5
    for name, limit in (("strain", 2e-5), ("tilt_rock", 1e-3), ("tilt_roll", 1e-3)):
        component = maps.components[name]
        error = (component.values - truth[name])[bright]
        error -= np.median(error)
        assert np.sqrt(np.mean(error**2)) <= limit, name
        assert np.sqrt(np.mean((error / component.error[bright]) ** 2)) <= 1.3, name
        # by the known field, which has no noise; so weak a strain tells its slope to 0.018 here, and the rest of the
        # proof is below, without noise
        slope = np.polyfit(truth[name][bright], component.values[bright], 1)[0]
        doubt = error.std() / (truth[name][bright].std() * math.sqrt(bright.sum()))
        assert slope == pytest.approx(1.0, abs=0.03 + 2.0 * doubt), name
        assert name == "strain" or doubt < 0.01


@pytest.mark.slow
def test_squares_find_the_share_of_b_that_the_streak_within_them_has(scan_line):
    """With the usual line beam of 0.6 um a line is a streak of 2.3 um, which small squares cut: 15 % is missing."""
    maps, _, known, view = scan_line("{kind: mixed}", "instrument.beam.line_height_um=0.6")
    found = analyse_line(maps, "mixed", known.dislocation, (known.x_um, known.y_um), view)
    assert found.around.mean_um == pytest.approx(ALONG_UM, rel=0.05)
    sigma = view.streak_um(known.dislocation)[0] / FWHM_PER_SIGMA
    share = erf(found.squares.half_sizes_um / (math.sqrt(2.0) * sigma)).mean()
    assert share == pytest.approx(0.84, abs=0.01)
    assert found.squares.mean_um == pytest.approx(share * ALONG_UM, rel=0.02)


# no photon noise, and a camera whose frames are off by nothing but that they count in whole numbers
NOISELESS = (
    "backend.options.noise=false",
    "instrument.cameras.far_field.noise={offset_adu: 100, offset_rate_adu_per_s: 0, fixed_pattern_adu: 0, "
    "warm_fraction: 0, edge_adu: 0}",
)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "height_um"), [("mixed", LINE_HEIGHT_UM), ("edge", LINE_HEIGHT_UM), ("mixed", 0.6)])
def test_without_noise_each_pixel_has_the_analytic_field(scan_line, kind, height_um):
    """Every pixel, of each component, to a tenth of the most that the component is anywhere at that distance.

    To a tenth of its own value no pixel can be tested where the field passes through zero; ``b / 2 pi r`` is up to 2.5
    times the largest value of a component and would be more lenient.
    """
    maps, _, known, view = scan_line(
        f"{{kind: {kind}}}", f"instrument.beam.line_height_um={height_um}", *NOISELESS, exposure_s=14.0
    )
    line = known.dislocation
    expected, distance = dislocation_maps(maps.x, maps.y, line, view)
    radius = np.hypot(maps.x[:, np.newaxis] - known.x_um, maps.y - known.y_um)
    far = (distance > 0.3) & (radius < 3.0)
    assert far.sum() > 3000 and maps.valid[far].all()
    # the field falls as 1/r: on a ring of 1 um around the line it is what it is anywhere, times the distance
    across = np.cross(line.line, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    angle = np.linspace(0.0, 2.0 * np.pi, 720, endpoint=False)[:, np.newaxis]
    ring = line.point_um + np.cos(angle) * across + np.sin(angle) * np.cross(line.line, across)
    largest = np.abs(distorted_vector(line.distortion(ring)) - [0.0, 0.0, 1.0]).max(axis=0)
    for number, name in enumerate(COMPONENTS):
        error = (maps.components[name].values - expected[number])[far]
        # the maps count from their own median
        error = np.abs(error - np.median(error))
        assert (error * distance[far] / largest[number]).max() < 0.1, name
        outside = maps.valid & (distance > 0.3)
        slope = np.polyfit(expected[number][outside], maps.components[name].values[outside], 1)[0]
        assert slope == pytest.approx(1.0, abs=0.03), name


def test_recall_and_precision_count_each_line_once():
    """Two known lines and one found near both: one is missed. One found far from all: it is wrong."""

    class At:
        def __init__(self, x, y, visible=True):
            self.x_um, self.y_um, self.visible = x, y, visible
            self.centre_um = np.array([x, y])

    class Images:
        x, y = np.linspace(-10.0, 10.0, 101), np.linspace(-5.0, 5.0, 201)
        crystal = np.ones((101, 201), bool)

    known = [At(0.0, 0.0), At(0.1, 0.1), At(5.0, 1.0), At(9.8, 0.0), At(-5.0, 0.0, visible=False)]
    found = [At(0.05, 0.0), At(5.0, 1.05), At(-5.0, 0.0)]
    matching = check_lines(Images(), found, known)
    assert matching.inside == 3 and len(matching.hidden) == 1
    assert matching.recall == pytest.approx(2 / 3)
    assert matching.precision == pytest.approx(2 / 3)
    np.testing.assert_allclose(sorted(matching.distance_px), [0.25, 1.0], atol=1e-9)
    met = [target.met for target in matching.targets()]
    assert met == [False, False, True]
    nothing = check_lines(Images(), [], known)
    assert nothing.recall == 0.0 and not any(target.met for target in nothing.targets())


@pytest.mark.parametrize(("precision", "code"), [(0.95, 0), (0.5, 1)])
def test_a_number_that_is_missed_ends_with_exit_code_1(monkeypatch, capsys, tmp_path, precision, code):
    places = np.zeros((20, 2))
    matching = demo.Matching(places, places, places, 20, 1.0, precision, np.full(19, 0.7))
    result = demo.Dislocations(None, matching, (), tmp_path / "dislocations.png", ())
    monkeypatch.setattr(demo, "run_dislocations", lambda config, quiet: result)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "dislocations", "--data", str(tmp_path), "--quiet"])
    assert ended.value.code == code
    said = capsys.readouterr().out.splitlines()
    assert [("MISSED by" in line) for line in said if "precision" in line] == [code == 1]


def test_a_microscope_without_dislocations_has_no_truth(silicon):
    with pytest.raises(ConfigError, match="no twin with dislocations"):
        run_dislocations(override(silicon, ["backend.options.sample=perfect_crystal"]), quiet=True)
