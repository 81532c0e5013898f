import h5py
import numpy as np
import pytest
from recording import OFFSET, POSITIONS, TWO_THETA, Recording, bliss_file, instrument, mesh

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.geometry import detector_to_pixel, goniometer_rotation, layer_to_detector, sample_to_lab
from dfxrm_control.microscope import Microscope
from dfxrm_control.reduction import maps_from_file

F = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
    ]
)
"""As one reads it: x to the right, y up."""


def letter(x, y):
    """Brightness of the sample at x, y (um, sample frame): an F of 12 by 16 um whose foot is at (-6, -8)."""
    column, row = np.floor((x + 6.0) / 2.0).astype(int), 7 - np.floor((y + 8.0) / 2.0).astype(int)
    inside = (column >= 0) & (column < 6) & (row >= 0) & (row < 8)
    return np.where(inside, F[np.clip(row, 0, 7), np.clip(column, 0, 5)], 0)


def frame_of_letter(omega, flips, shape, samx):
    """Photograph the letter point by point, forwards through the microscope, with nothing of the reduction."""
    view = Microscope(InstrumentConfig.model_validate(instrument())).view(POSITIONS, "far_field", {})
    m_h, m_v = view.magnification_h, view.magnification_v
    side = np.arange(-7.0, 9.0, 0.02)
    x, y = np.meshgrid(side, side, indexing="ij")
    lit = letter(x, y) > 0
    points = np.stack([x[lit], y[lit], np.zeros(lit.sum())], axis=-1)
    lab = sample_to_lab(points, goniometer_rotation(omega=omega), (samx * 1e3, 0.0, 0.0))
    u, v = layer_to_detector(lab[:, 0], lab[:, 1], view.two_theta_deg, m_h, m_v)
    u, v = u + view.offset_u_mm, v + view.offset_v_mm
    row, column = np.rint(detector_to_pixel(u, v, shape, view.pixel_um, *flips)).astype(int)
    frame = np.zeros(shape)
    seen = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    frame[row[seen], column[seen]] = 1.0
    return frame


@pytest.mark.parametrize("omega", [0.0, 90.0, 37.0])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_the_letter_is_upright_in_sample_coordinates(tmp_path, omega, flips):
    shape, samx = (160, 480), 0.002
    points = mesh(np.array([-0.1, 0.1]), np.array([-0.01, 0.01]))
    frame = frame_of_letter(omega, flips, shape, samx)
    frames = np.repeat((OFFSET + 500 * frame).astype(np.uint16)[None], len(points), axis=0)
    record = Recording(
        tmp_path, frames, points, (2, 2), flips=flips, positions={"mu": 0.0, "omega": omega, "samx": samx}
    )
    maps = maps_from_file(record.write(), dark=OFFSET)
    x, y = np.meshgrid(maps.x, maps.y, indexing="ij")
    assert (np.diff(maps.x) > 0.0).all()
    assert (np.diff(maps.y) > 0.0).all()
    sx, sy = maps.to_sample(x, y)
    bright = maps.integrated > 1000.0
    assert 0.05 < bright.mean() < 0.5
    agreement = np.mean((letter(sx, sy) > 0) == bright)
    assert agreement > 0.98
    mirrored = np.mean((letter(sx, -sy) > 0) == bright), np.mean((letter(-sx, sy) > 0) == bright)
    assert max(mirrored) < 0.96


def test_pixels_have_the_size_of_the_thick_lens_and_of_the_inclined_layer(tmp_path):
    points = mesh(np.array([-0.1, 0.1]), np.array([-0.01, 0.01]))
    frames = np.full((4, 20, 30), 200, np.uint16)
    maps = maps_from_file(Recording(tmp_path, frames, points, (2, 2)).write(), dark=OFFSET)
    step_x, step_y = np.diff(maps.x).mean(), np.diff(maps.y).mean()
    assert step_x / step_y == pytest.approx(1.0 / np.sin(TWO_THETA), rel=1e-6)
    assert 0.65 / step_y == pytest.approx(18.0, rel=0.05)
    assert maps.length_units == "um"


def test_a_file_of_another_program_says_what_was_assumed(tmp_path):
    frames = np.random.default_rng(0).integers(100, 400, (5, 20, 30), dtype=np.uint16)
    values = {"diffry": np.linspace(9.0, 9.04, 5)}
    known = {"mainx": -5000.0, "obx": 263.13, "obz": 85.36, "ffsel": -60.0, "chi": 0.5, "phi": 0.0, "omega": 0.0}
    maps = maps_from_file(bliss_file(tmp_path / "a.h5", "ascan diffry 9 9.04 4 0.1", frames, values, **known), dark=100)
    assert 3.25 / np.diff(maps.y).mean() == pytest.approx(5000.0 / 263.13 - 1.0)
    told = " ".join(maps.notes)
    for words in ("|mainx|/obx - 1", "taken for the 2x", "6.5 um", "diffry is taken for mu", "no", "gain"):
        assert words in told
    bare = maps_from_file(bliss_file(tmp_path / "b.h5", "ascan diffry 9 9.04 4 0.1", frames, values), dark=100)
    assert bare.length_units == "pixel"
    np.testing.assert_allclose(np.diff(bare.x), 1.0)
    assert any("scale is not known" in note for note in bare.notes)


def test_a_frame_smaller_than_the_camera_is_said_to_be_its_middle(tmp_path):
    points = mesh(np.array([-0.1, 0.1]), np.array([-0.01, 0.01]))
    record = Recording(tmp_path, np.full((4, 20, 30), 200, np.uint16), points, (2, 2))
    start = record.start
    record.start = lambda: _with_rows(start(), 64)
    maps = maps_from_file(record.write(), dark=OFFSET)
    assert any("middle of the camera's 64 x 30" in note for note in maps.notes)


def _with_rows(doc, rows):
    doc["dfxrm"]["instrument"]["cameras"]["far_field"]["rows"] = rows
    return doc


def test_positions_by_the_names_of_the_place_come_back_as_logical_ones(tmp_path):
    points = mesh(np.array([-0.1, 0.1]), np.array([-0.01, 0.01]))
    record = Recording(tmp_path, np.full((4, 20, 30), 200, np.uint16), points, (2, 2), positions={"omega": 90.0})
    start = record.start

    def renamed():
        doc = start()
        doc["dfxrm"]["instrument"]["motor_names"] |= {"omega": "diffrz", "chi": "diffrx"}
        return doc

    record.start = renamed
    master = record.write()
    with h5py.File(master) as file:
        assert file["1.1/instrument/positioners/diffrz"][()] == 90.0
        assert "diffrx" in file["1.1/title"].asstr()[()]
    maps = maps_from_file(master, dark=OFFSET)
    assert [axis.name for axis in maps.axes] == ["chi", "phi"]
    np.testing.assert_allclose(maps.affine[:2, :2], [[0.0, 1.0], [-np.cos(np.radians(8.97)), 0.0]], atol=2e-3)
