"""Grain maps of every format are read back as they were written, and bad ones are refused in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from grain_maps import AL, polycrystal, real_map
from scipy.spatial.transform import Rotation

from dfxrm_control.errors import FileFormatError, ParameterError
from dfxrm_control.grains import (
    GrainMap,
    read_grain_map,
    write_imaged11,
    write_labdct,
    write_pymicro,
    write_text,
)

CELL, GROUP = AL.cell, "F m -3 m"
ASKED = {"cell": CELL, "space_group": GROUP}


def _rodrigues(grains: GrainMap) -> np.ndarray:
    rotations = Rotation.from_matrix(grains.u)
    return rotations.as_rotvec() / rotations.magnitude()[:, None] * np.tan(rotations.magnitude()[:, None] / 2)


def _index_mat(grains: GrainMap, folder: Path, hdf5: bool) -> Path:
    """Write what the ESRF's reconstruction leaves: index.mat in a folder of grains, and the volume beside it."""
    index = folder / "4_grains" / "phase_01" / "index.mat"
    volume = folder / "5_reconstruction" / "phase_01_vol.mat"
    index.parent.mkdir(parents=True)
    volume.parent.mkdir()
    rows = zip(grains.grain_id, _rodrigues(grains), grains.centroid_mm, strict=True)
    table = [{"id": float(n), "R_vector": r, "center": c} for n, r, c in rows]
    cryst = {"latticepar": np.array(CELL), "spacegroup": 225.0, "pixelsize": float(grains.voxels.size_mm[0])}
    if not hdf5:
        cells = np.empty((1, len(table)), object)
        cells[0, :] = table
        scipy.io.savemat(index, {"grain": cells, "cryst": cryst})
    else:
        _save_hdf5(index, table, cryst)
    _save_hdf5(volume, None, {"vol": grains.voxels.grain_id.astype(float)}, whole=True)
    return index


def _save_hdf5(path: Path, table: list | None, values: dict, whole: bool = False) -> None:
    """Write a version 7.3 matlab file: HDF5 behind a header of 512 bytes, arrays with their axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        top = file if whole else file.create_group("cryst")
        if not whole:
            top.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, value in values.items():
            top[name] = np.atleast_2d(np.asarray(value, float)).T
            top[name].attrs["MATLAB_class"] = np.bytes_("double")
        if table is not None:
            references = np.empty((len(table), 1), h5py.ref_dtype)
            for row, entry in enumerate(table):
                group = file.create_group(f"#refs#/{chr(97 + row)}")
                group.attrs["MATLAB_class"] = np.bytes_("struct")
                for name, value in entry.items():
                    group[name] = np.atleast_2d(value).T
                    group[name].attrs["MATLAB_class"] = np.bytes_("double")
                references[row, 0] = group.ref
            file["grain"] = references
            file["grain"].attrs["MATLAB_class"] = np.bytes_("cell")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(header)


def _written(kind: str, grains: GrainMap, folder: Path) -> tuple[Path, dict]:
    path = folder / "map.h5"
    if kind == "labdct":
        with h5py.File(path, "w") as file:
            write_labdct(grains, file)
        return path, {}
    if kind == "imaged11":
        with h5py.File(path, "w") as file:
            write_imaged11(grains, file)
        return path, ASKED
    if kind == "text":
        write_text(grains, folder / "grains.map")
        return folder / "grains.map", ASKED
    if kind == "pymicro":
        with h5py.File(path, "w") as file:
            write_pymicro(grains, file)
        return path, {"space_group": GROUP}
    return _index_mat(grains, folder, kind == "esrf 7.3"), {}


KINDS = ["labdct", "imaged11", "text", "pymicro", "esrf 7", "esrf 7.3"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_was_written_is_read_back_whatever_its_format(kind, tmp_path):
    grains = polycrystal()
    path, asked = _written(kind, grains, tmp_path)
    found = read_grain_map(path, **asked)
    if kind != "text":  # which has no numbers
        np.testing.assert_array_equal(found.grain_id, grains.grain_id)
    np.testing.assert_allclose(found.u, grains.u, atol=2e-7)
    np.testing.assert_allclose(found.ub, grains.ub, atol=2e-7)
    np.testing.assert_allclose(found.centroid_mm, grains.centroid_mm, atol=1e-8)
    np.testing.assert_allclose(found.phases[0].cell, CELL, atol=1e-6)
    assert found.phases[0].space_group_number == 225
    if kind in ("labdct", "pymicro"):
        np.testing.assert_array_equal(found.voxels.grain_id, grains.voxels.grain_id)
        np.testing.assert_allclose(found.size_mm, grains.size_mm)
        np.testing.assert_allclose(found.volume_mm3, grains.volume_mm3)
    if kind.startswith("esrf"):
        np.testing.assert_array_equal(found.voxels.grain_id, grains.voxels.grain_id)


def test_a_grain_turned_about_one_axis_has_the_orientation_its_format_means():
    """+40 deg about z takes the crystal's x to the sample's (cos 40, sin 40, 0); pymicro stores the negative of it."""
    from dfxrm_control.grains._assemble import from_rodrigues

    u = from_rodrigues([0.0, 0.0, np.tan(np.radians(20))])[0]
    np.testing.assert_allclose(u @ [1, 0, 0], [np.cos(np.radians(40)), np.sin(np.radians(40)), 0], atol=1e-12)


def test_pymicro_rodrigues_vectors_are_negated_in_the_file(tmp_path):
    grains = polycrystal()
    path, _ = _written("pymicro", grains, tmp_path)
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["GrainData/GrainDataTable"]["orientation"], -_rodrigues(grains), atol=1e-12)


def test_the_earlier_layout_of_pymicro_is_read(tmp_path):
    grains = polycrystal()
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["FeatureData/R_vectors"] = -_rodrigues(grains)
        file["FeatureData/grain_ids"] = grains.grain_id
        file["FeatureData/centers"] = grains.centroid_mm
        file["EnsembleData/CrystalStructure/LatticeParameters"] = np.array([0.40495] * 3 + [90.0] * 3)
        file["CellData/grain_ids"] = grains.voxels.grain_id
        file["CellData/grain_ids"].attrs["voxel_size"] = 5e-3
    found = read_grain_map(tmp_path / "old.h5", space_group=GROUP)
    np.testing.assert_allclose(found.u, grains.u, atol=1e-9)
    assert found.voxels.size_mm.tolist() == [5e-3] * 3


def test_the_axes_of_a_labdct_volume_are_z_y_x(tmp_path):
    grains = polycrystal()
    path, _ = _written("labdct", grains, tmp_path)
    with h5py.File(path) as file:
        assert file["LabDCT/Data/GrainId"].shape == grains.voxels.grain_id.shape[::-1]
        assert file["LabDCT/Data/GrainId"][2, 1, 7] == grains.voxels.grain_id[7, 1, 2]


def test_imaged11_keeps_a_strained_lattice(tmp_path):
    grains = polycrystal()
    strained = GrainMap(**{**vars(grains), "ub": grains.ub @ np.diag([1.002, 1.0, 0.999])})
    path, asked = _written("imaged11", strained, tmp_path)
    found = read_grain_map(path, **asked)
    np.testing.assert_allclose(found.ub, strained.ub, rtol=1e-12)
    np.testing.assert_allclose(found.stretch(0), [1.002, 1.0, 0.999], rtol=1e-9)


def test_the_real_map():
    found = read_grain_map(real_map())
    assert len(found) == 105
    assert found.voxels.grain_id.shape == (109, 103, 64)
    np.testing.assert_allclose(found.voxels.size_mm, 2.5e-3)
    assert found.phases[0].space_group_number == 225
    assert found.volume_mm3.sum() == pytest.approx((found.voxels.grain_id > 0).sum() * 2.5e-3**3)
    with h5py.File(real_map()) as file:
        ids, colour = file["LabDCT/Data/GrainId"][()], file["LabDCT/Data/IPF001"][()]
    from dfxrm_control.handoff import grain_colours

    # the file's own colours of the inverse pole figure, made by another program, agree with the orientations read
    ours = grain_colours(found)
    theirs = np.array([colour[ids == number][0] for number in found.grain_id])
    theirs = theirs / theirs.max(axis=1, keepdims=True)
    hue = [np.corrcoef(ours[:, channel], theirs[:, channel])[0, 1] for channel in range(3)]
    assert min(hue) > 0.9


@pytest.mark.parametrize("kind", ["imaged11", "text"])
def test_what_the_file_does_not_say_is_asked_for_by_name(kind, tmp_path):
    path, _ = _written(kind, polycrystal(), tmp_path)
    with pytest.raises(ParameterError, match=r"does not say the crystal's cell .* and space_group"):
        read_grain_map(path)
    with pytest.raises(ParameterError, match=r"does not say the crystal's space_group .*; give it$"):
        read_grain_map(path, cell=CELL)


@pytest.mark.parametrize("kind", ["imaged11", "text"])
def test_the_wrong_cell_is_noticed(kind, tmp_path):
    path, _ = _written(kind, polycrystal(), tmp_path)
    with pytest.raises(FileFormatError, match=r"does not turn the cell 3\.5 .*is it the right cell"):
        read_grain_map(path, cell=(3.5, 3.5, 3.5, 90, 90, 90), space_group=GROUP)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_said_to_be_so(kind, tmp_path):
    path, asked = _written(kind, polycrystal(), tmp_path)
    content = path.read_bytes()
    cut = tmp_path / "cut" / "a" / "b" / path.name
    cut.parent.mkdir(parents=True)
    cut.write_bytes(content[: len(content) - 40 if kind == "text" else len(content) // 2])
    with pytest.raises(FileFormatError) as caught:
        read_grain_map(cut, **asked)
    assert str(cut) in str(caught.value)


def test_nothing_but_void_is_an_empty_map(tmp_path):
    grains = polycrystal()
    path, _ = _written("labdct", grains, tmp_path)
    with h5py.File(path, "r+") as file:
        file["LabDCT/Data/GrainId"][...] = 0
    with pytest.raises(FileFormatError, match="has no grains"):
        read_grain_map(path)


def test_an_orientation_that_is_not_a_number_names_its_grain(tmp_path):
    path, _ = _written("labdct", polycrystal(), tmp_path)
    with h5py.File(path, "r+") as file:
        rodrigues = file["LabDCT/Data/Rodrigues"][()]
        rodrigues[file["LabDCT/Data/GrainId"][()] == 30] = np.nan
        file["LabDCT/Data/Rodrigues"][...] = rodrigues
    with pytest.raises(FileFormatError, match=r"grain 30 of 8: an orientation that is not a number"):
        read_grain_map(path)


def test_files_that_are_none_of_these(tmp_path):
    (tmp_path / "notes.txt").write_text("grains: many\n")
    with pytest.raises(FileFormatError, match="is no grain map that is known; these are: LabDCT"):
        read_grain_map(tmp_path / "notes.txt")
    with pytest.raises(FileFormatError, match="does not exist"):
        read_grain_map(tmp_path / "nothing.h5")
    with pytest.raises(FileFormatError, match="is a folder"):
        read_grain_map(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="is HDF5, but no grain map"):
        read_grain_map(tmp_path / "other.h5")


def test_a_volume_of_the_esrf_is_looked_for_in_its_place(tmp_path):
    index = _index_mat(polycrystal(), tmp_path / "dct", hdf5=False)
    shutil.rmtree(tmp_path / "dct" / "5_reconstruction")
    found = read_grain_map(index)
    assert found.voxels is None and np.isnan(found.size_mm).all()
    assert any("no volume was found" in note for note in found.notes)
