import enum
import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.records import Journal, read_documents, read_journal
from dfxrm_control.records.journal import decode_document, encode_document

START = {"uid": "a" * 8, "time": 1.0, "scan_id": 3}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "$float"), inner),
)


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key != "$float"), VALUES))
def test_any_document_comes_back_exactly_from_one_line(doc):
    line = encode_document("event", doc)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    json.loads(line.decode("utf-8", "surrogatepass"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    name, back = decode_document(line)
    assert name == "event" and same(back, doc)


def test_numpy_and_other_scientific_types_are_written_as_what_they_are():
    class Mode(enum.Enum):
        SNAKE = "snake"

    doc = {
        "f4": np.float32(0.1),
        "nan": np.float64("nan"),
        "i": np.int64(-3),
        "b": np.bool_(True),
        "array": np.array([[1.5, np.inf]]),
        "path": Path("/data"),
        "tuple": (1, 2),
        "set": {2, 1},
        "mode": Mode.SNAKE,
    }
    _, back = decode_document(encode_document("start", doc))
    assert back["f4"] == float(np.float32(0.1)) and back["i"] == -3 and back["b"] is True
    assert math.isnan(back["nan"]) and back["array"] == [[1.5, math.inf]]
    assert (back["path"], back["tuple"], back["set"], back["mode"]) == ("/data", [1, 2], [1, 2], "snake")


def test_what_cannot_be_recorded_is_named():
    with pytest.raises(RecordError, match="'operator' of the start document cannot be recorded: it holds a object"):
        encode_document("start", {"uid": "a", "operator": object()})


def test_documents_are_in_the_file_as_soon_as_they_are_given(tmp_path):
    journal = Journal(tmp_path / "deep" / "j.jsonl")
    journal("start", START)
    assert list(read_documents(journal.path)) == [("start", START)]
    journal("event", {"uid": "e"})
    assert [name for name, _ in read_documents(journal.path)] == ["start", "event"]
    journal("stop", {"exit_status": "success", "time": 2.0, "run_start": START["uid"]})
    assert journal.closed
    with pytest.raises(RecordError, match="after the end of its run"):
        journal("event", {"uid": "late"})


def test_events_and_the_end_are_synced_and_nothing_else(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(descriptor))
    journal = Journal(tmp_path / "j.jsonl")
    for name in ("start", "descriptor", "stream_resource", "stream_datum", "event", "event", "stop"):
        journal(name, {"uid": name})
    assert len(synced) == 3


def test_reserved_space_is_given_back_at_the_end(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal("start", START)
    during = journal.path.stat()
    journal("stop", {"exit_status": "success"})
    after = journal.path.stat()
    assert after.st_blocks * 512 <= 16384 < 65536 <= during.st_blocks * 512
    assert during.st_size < 200


def test_an_existing_journal_is_not_touched(tmp_path):
    (tmp_path / "j.jsonl").write_text("precious")
    with pytest.raises(RecordError, match="File exists"):
        Journal(tmp_path / "j.jsonl")
    assert (tmp_path / "j.jsonl").read_text() == "precious"


@pytest.mark.parametrize("name", ["file/j.jsonl", 300 * "x"])
def test_an_impossible_folder_is_one_sentence(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="journal .* cannot be written"):
        Journal(tmp_path / name)


def small_disk(tmp_path, kilobytes):
    """Mount a file system that is soon full, or skip where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    return folder


def test_a_full_disk_ends_the_run_and_still_takes_the_stop_document(tmp_path):
    disk = small_disk(tmp_path, 512)
    try:
        journal = Journal(disk / "j.jsonl")
        journal("start", START)
        # somebody else fills the disk to the last byte
        with pytest.raises(OSError, match="No space left"), (disk / "other").open("wb", buffering=0) as other:
            while True:
                other.write(bytes(4096))
        written = 0
        with pytest.raises(RecordError, match="No space left on device"):
            while True:
                journal("event", {"uid": f"{written:08d}", "data": "x" * 1000})
                written += 1
        journal("stop", {"exit_status": "fail", "reason": "disk full " * 500, "run_start": START["uid"], "time": 2.0})
        documents = list(read_documents(journal.path))
        assert documents[-1][0] == "stop" and documents[-1][1]["exit_status"] == "fail"
        assert len(documents) == written + 2 and all(doc["data"] == "x" * 1000 for _, doc in documents[1:-1])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_where_space_cannot_be_reserved_half_a_document_is_taken_back(tmp_path, monkeypatch):
    monkeypatch.setattr("dfxrm_control.records.journal._reserve", lambda *_: False)
    journal = Journal(tmp_path / "j.jsonl")
    journal("start", START)
    whole = os.write

    def half(descriptor, data):
        if len(data) > 500:
            return whole(descriptor, data[:500])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(RecordError, match="No space left on device"):
        patch.setattr(os, "write", half)
        journal("event", {"data": "x" * 900})
    journal("stop", {"exit_status": "fail"})
    assert [name for name, _ in read_documents(journal.path)] == ["start", "stop"]


class TestReading:
    def test_a_last_line_cut_short_is_left_out(self, tmp_path):
        lines = [encode_document("start", START), encode_document("event_x", {"a": 1}), encode_document("b", {"c": 2})]
        whole = b"".join(lines)
        for cut in range(len(lines[0]), len(whole) + 1):
            (tmp_path / "j.jsonl").write_bytes(whole[:cut])
            complete = 1 + (cut >= len(lines[0] + lines[1])) + (cut == len(whole))
            assert len(list(read_documents(tmp_path / "j.jsonl"))) == complete

    def test_a_tail_of_zeros_after_a_power_cut_is_left_out(self, tmp_path):
        (tmp_path / "j.jsonl").write_bytes(encode_document("start", START) + bytes(300))
        assert len(list(read_documents(tmp_path / "j.jsonl"))) == 1

    def test_damage_in_the_middle_is_named_with_its_line(self, tmp_path):
        (tmp_path / "j.jsonl").write_bytes(encode_document("start", START) + b"garbage\n" + encode_document("e", {}))
        with pytest.raises(FileFormatError, match=r"j\.jsonl is damaged: line 2"):
            read_journal(tmp_path / "j.jsonl")

    @pytest.mark.parametrize("content", [b"", b"half a line", b"text\n", b'{"a": 1}\n', b'["event", {}]\n', b"\xff\n"])
    def test_a_foreign_file_is_named(self, tmp_path, content):
        (tmp_path / "j.jsonl").write_bytes(content)
        with pytest.raises(FileFormatError, match=r"j\.jsonl is no journal of a run"):
            read_journal(tmp_path / "j.jsonl")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileFormatError, match="No such file"):
            read_journal(tmp_path / "j.jsonl")


def test_documents_survive_the_death_of_the_writer(tmp_path):
    code = f"""
import os, signal
from dfxrm_control.records import Journal
journal = Journal({str(tmp_path / "j.jsonl")!r})
journal("start", {START!r})
for number in range(100):
    journal("event", {{"number": number}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert [doc.get("number") for _, doc in read_documents(tmp_path / "j.jsonl")] == [None, *range(100)]
