"""The estimate of the end of a scan, and a table that stays readable."""

import io

import pytest

from dfxrm_control.session import ScanClock, ScanProgress


def _times(darks, lines, line, dark_s=0.5, point_s=0.55, turn_s=2.1):
    """Return (stream, time) of every frame of a scan with turn-rounds, with times measured at ID03."""
    now, frames = 0.0, []
    for _ in range(darks):
        now += dark_s
        frames.append(("darks_before", now))
    for _ in range(lines):
        now += turn_s
        for _ in range(line):
            now += point_s
            frames.append(("primary", now))
    return frames


@pytest.mark.parametrize(
    ("darks", "lines", "line"),
    [(0, 26, 37), (100, 26, 37), (20, 41, 5), (0, 9, 19), (100, 9, 19), (100, 21, 12), (5, 4, 10)],
)
def test_at_a_quarter_of_the_scan_the_end_is_known_within_15_percent(darks, lines, line):
    """Also where a quarter of the scan is darks only; the plan's idea of a turn-round may be off by a third."""
    frames = _times(darks, lines, line)
    end = frames[-1][1]
    clock = ScanClock(darks, lines * line, 0, line, step_s=0.04, turn_s=1.4)
    for stream, now in frames:
        if now <= 0.25 * end:
            clock.take(stream, now)
            latest = now
    assert latest + clock.remaining_s() == pytest.approx(end, rel=0.15)


def test_nothing_is_claimed_before_there_is_anything_to_go_by():
    clock = ScanClock(0, 100, 0, 10)
    assert clock.remaining_s() is None
    clock.take("primary", 3.0)
    assert clock.remaining_s() is None


def _documents(lines, line):
    ours = {"line_length": line, "darks": {"before": 2, "after": 0}}
    plan = {"scan_id": 7, "plan_name": "mosaicity_scan", "motors": ["chi", "phi"], "shape": [lines, line]}
    yield "start", {"uid": "s", "num_points": lines * line, "dfxrm": ours, **plan}
    yield "descriptor", {"uid": "d", "name": "primary"}
    yield "descriptor", {"uid": "k", "name": "darks_before"}
    for _ in range(2):
        yield "event", {"descriptor": "k", "data": {"monitor": 0.0}}
    for point in range(lines * line):
        yield "event", {"descriptor": "d", "data": {"chi": point // line, "phi": point % line, "monitor": 12345.0}}
    yield "stop", {"exit_status": "success"}


def _table(documents):
    text, ticks = io.StringIO(), iter(range(100_000))
    progress = ScanProgress(text, clock=lambda: float(next(ticks)))
    for name, doc in documents:
        progress(name, doc)
    return text.getvalue().splitlines()


def test_a_mesh_of_a_thousand_points_gives_one_row_per_line():
    rows = _table(_documents(25, 40))
    assert len(rows) == 25 + 1 + 3  # and the first point, title, heading, end
    assert rows[0] == "scan 7: mosaicity_scan, 1002 frames"
    assert rows[-1] == "success after 1002 of 1002 frames"
    assert rows[4].split() == ["80/1000", "1", "39", "12345", "15:20"]
    assert max(map(len, rows)) <= 80


def test_a_scan_of_one_axis_gives_at_most_forty_rows():
    assert len(_table(_documents(1, 1000))) <= 40 + 4


def test_a_run_of_a_series_says_which_one_it_is():
    documents = list(_documents(2, 3))
    series = {"index": 1, "of": 5, "plan": "layer_scan", "axis": "height", "value": -0.5, "units": "um"}
    documents[0][1]["dfxrm"]["series"] = series
    assert _table(documents)[0].endswith("8 frames (run 2 of 5 of layer_scan, height -0.5 um)")
    series |= {"of": None, "units": ""}
    assert _table(documents)[0].endswith("8 frames (run 2 of layer_scan)")
