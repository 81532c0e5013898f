import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from standins import frame

from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.records import FrameFiles, FrameWriter, close_frame_files, count_frames, is_closed, read_frame
from dfxrm_control.records.frames import frame_path, frame_uri

HERE = Path(__file__).parent


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
@pytest.mark.parametrize("shape", [(1, 5), (33, 7), (64, 64), (129, 255), (512, 513)])
def test_frames_come_back_bit_for_bit_through_the_standard_filter(tmp_path, shape, dtype):
    frames = [(np.random.default_rng(i).random(shape) * 250).astype(dtype) for i in range(3)]
    with FrameWriter(tmp_path / "f.h5", shape, dtype) as writer:
        assert [writer.append(each) for each in frames] == [0, 1, 2]
    with h5py.File(tmp_path / "f.h5", "r") as file:
        data = file["/entry/data/data"]
        assert data.dtype == dtype and data.shape == (3, *shape) and data.chunks == (1, *shape)
        assert data.id.get_create_plist().get_filter(0)[0] == 32008
        np.testing.assert_array_equal(data[()], frames)


def test_a_frame_is_stored_compressed(tmp_path):
    flat = np.full((512, 512), 100, np.uint16)
    with FrameWriter(tmp_path / "f.h5", flat.shape) as writer:
        for _ in range(10):
            writer.append(flat)
    assert (tmp_path / "f.h5").stat().st_size < 0.1 * 10 * flat.nbytes


def test_an_appended_frame_is_readable_at_once_and_by_everybody_after_close(tmp_path):
    path = tmp_path / "f.h5"
    writer = FrameWriter(path, frame(0).shape)
    for number in range(3):
        writer.append(frame(number))
        assert not is_closed(path)
        # another process, as the maps are
        code = f"from dfxrm_control.records import read_frame; print(int(read_frame({str(path)!r}, {number}).sum()))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(found.stdout) == frame(number).sum()
    with pytest.raises(FileFormatError, match="still open"):
        count_frames(path)
    writer.close()
    assert is_closed(path) and count_frames(path) == 3


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.zeros((3, 4), np.uint16), "24 x 40 uint16, not 3 x 4 uint16"), (np.zeros((24, 40)), "not 24 x 40 float64")],
)
def test_a_frame_of_another_shape_or_type_is_refused(tmp_path, bad, message):
    with FrameWriter(tmp_path / "f.h5", (24, 40)) as writer, pytest.raises(RecordError, match=message):
        writer.append(bad)
    assert count_frames(tmp_path / "f.h5") == 0


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "f.h5").write_text("precious")
    with pytest.raises(RecordError, match=r"f\.h5 cannot be written: File exists"):
        FrameWriter(tmp_path / "f.h5", (24, 40))
    assert (tmp_path / "f.h5").read_text() == "precious"


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(RecordError, match="cannot be written: No such file or directory"):
        FrameWriter(tmp_path / "no" / "f.h5", (24, 40))


def test_a_closed_file_takes_no_frame(tmp_path):
    writer = FrameWriter(tmp_path / "f.h5", (24, 40))
    writer.close()
    writer.close()
    with pytest.raises(RecordError, match="closed"):
        writer.append(frame(0))


def test_a_disk_that_refuses_costs_only_the_frame_it_refused(tmp_path):
    """A file size limit stands for the full disk: the same error comes from the same system calls."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(HERE)!r})
from standins import frame
from dfxrm_control.errors import RecordError
from dfxrm_control.records import FrameWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
writer = FrameWriter({str(tmp_path / "f.h5")!r}, (64, 64))
written = 0
try:
    while True:
        writer.append(frame(written, (64, 64)))
        written += 1
except RecordError as error:
    print(written, error)
import os; os._exit(0)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    written = int(found.split()[0])
    assert 3 < written < 15
    assert f"frame {written} cannot be written" in found and "File too large" in found
    for number in range(written):
        np.testing.assert_array_equal(read_frame(tmp_path / "f.h5", number), frame(number, (64, 64)))


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"text that is no HDF5 at all"])
def test_foreign_and_truncated_files_are_named(tmp_path, content):
    (tmp_path / "f.h5").write_bytes(content)
    for look in (is_closed, count_frames, lambda path: read_frame(path, 0)):
        with pytest.raises(FileFormatError, match=r"f\.h5 is no HDF5 file"):
            look(tmp_path / "f.h5")


def test_a_file_cut_short_is_named(tmp_path):
    with FrameWriter(tmp_path / "f.h5", (24, 40)) as writer:
        writer.append(frame(0))
    content = (tmp_path / "f.h5").read_bytes()
    (tmp_path / "f.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(FileFormatError, match=r"f\.h5 cannot be opened"):
        count_frames(tmp_path / "f.h5")


def test_addresses_survive_odd_folder_names():
    path = Path("/data/a b#c?/x_0000.h5")
    assert frame_path(frame_uri(path)) == path
    with pytest.raises(FileFormatError, match="no local file"):
        frame_path("http://somewhere/x.h5")


class TestFrameFiles:
    @pytest.fixture
    def files(self, tmp_path):
        files = FrameFiles(tmp_path / "scan0001", "far_field", (24, 40), frames_per_file=3)
        yield files
        files.close()

    def test_each_line_is_a_file_and_frames_are_counted_over_the_run(self, files):
        for line in range(3):
            files.begin_line()
            for place in range(2 + line):
                files.append(frame(place))
            files.end_line()
        names = sorted(path.name for path in files.directory.iterdir())
        assert names == ["far_field_0000.h5", "far_field_0001.h5", "far_field_0002.h5"]
        assert [count_frames(files.directory / name) for name in names] == [2, 3, 4]
        assert files.count == 9

    def test_without_lines_a_new_file_begins_when_one_is_full(self, files):
        for number in range(7):
            files.append(frame(number))
        files.end_line()
        assert [count_frames(path) for path in sorted(files.directory.iterdir())] == [3, 3, 1]

    def test_a_line_without_a_frame_leaves_no_file(self, files):
        files.begin_line()
        files.end_line()
        assert not files.directory.exists()

    def test_only_the_last_frame_is_announced_and_once(self, files):
        files.append(frame(0))
        files.append(frame(1))
        (first, resource), (second, datum) = files.collect_asset_docs()
        assert (first, second) == ("stream_resource", "stream_datum")
        assert resource["parameters"] == {
            "dataset": "/entry/data/data",
            "chunk_shape": [1, 24, 40],
            "first_index": 0,
        }
        assert frame_path(resource["uri"]) == files.path
        assert datum["indices"] == {"start": 1, "stop": 2}
        assert list(files.collect_asset_docs()) == []

    def test_the_second_file_says_where_it_begins(self, files):
        for number in range(4):
            files.append(frame(number))
        (_, resource), (_, datum) = files.collect_asset_docs()
        assert resource["parameters"]["first_index"] == 3 and datum["indices"] == {"start": 3, "stop": 4}

    def test_after_a_pause_the_frame_is_announced_anew_under_a_new_uid(self, files):
        files.append(frame(0))
        (_, before), _ = files.collect_asset_docs()
        files.pause()
        (_, after), (_, datum) = files.collect_asset_docs()
        assert before["uid"] != after["uid"] and before["uri"] == after["uri"]
        assert datum["stream_resource"] == after["uid"] and datum["indices"] == {"start": 0, "stop": 1}

    def test_the_end_of_the_run_closes_and_refuses(self, files):
        files.append(frame(0))
        close_frame_files(files.directory.parent)
        assert files.closed and is_closed(files.path)
        with pytest.raises(RecordError, match="after its run was over"):
            files.append(frame(1))

    def test_files_of_another_run_stay_open(self, files, tmp_path):
        files.append(frame(0))
        close_frame_files(tmp_path / "another")
        assert not files.closed and not is_closed(files.path)
