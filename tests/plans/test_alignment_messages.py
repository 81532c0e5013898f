"""Messages of the alignment steps: what they do in which order, also where nothing can be seen."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from bluesky.simulators import RunEngineSimulator, assert_message_and_return_remaining

from dfxrm_control.errors import LimitError, ParameterError, RecordError
from dfxrm_control.records import FrameFiles
from plans import AssumedOutcomeWarning, center_axis, find_peak
from plans._frames import RunFrames, watching


def simulate(plan):
    """Return the messages of a plan and what it returned."""
    simulator = RunEngineSimulator()
    simulator.add_handler("read", lambda message: message.obj.read())
    with pytest.warns(AssumedOutcomeWarning, match="nothing can be seen in a dry run"):
        messages = simulator.simulate_plan(plan)
    return messages, simulator.return_value


def test_a_step_is_one_run_with_darks_first_and_the_shutter_closed_at_the_end(instrument):
    messages, found = simulate(find_peak(instrument, axis="phi", step=0.05, search_range=1.0))
    assert found.predicted and found.sure and found.axis == "phi"
    rest = assert_message_and_return_remaining(messages, lambda m: m.command == "open_run")
    start = rest[0].kwargs
    assert start["plan_name"] == "find_peak" and start["motors"] == ["phi"] and start["dfxrm"]["camera"] == "far_field"
    rest = assert_message_and_return_remaining(
        rest, lambda m: m.command == "set" and m.obj is instrument.shutter and m.args[0] == "closed"
    )
    darks = 0
    while rest and not (rest[0].command == "set" and rest[0].obj is instrument.shutter and rest[0].args[0] == "open"):
        darks += rest[0].command == "trigger"
        rest = rest[1:]
    assert darks == 5
    rest = assert_message_and_return_remaining(
        rest, lambda m: m.command == "create" and m.kwargs.get("name") == "found"
    )
    rest = assert_message_and_return_remaining(
        rest, lambda m: m.command == "set" and m.obj is instrument.shutter and m.args[0] == "closed"
    )
    rest = assert_message_and_return_remaining(rest, lambda m: m.command == "close_run")
    assert_message_and_return_remaining(rest, lambda m: m.command == "unstage")


def test_a_dry_run_walks_the_whole_range_and_ends_where_it_began(instrument):
    phi = instrument.axes["phi"]
    messages, _ = simulate(find_peak(instrument, axis="phi", step=0.05, search_range=1.0))
    visited = [m.args[0] for m in messages if m.command == "set" and m.obj is phi]
    assert min(visited) == pytest.approx(visited[-1] - 0.5)
    assert max(visited) == pytest.approx(visited[-1] + 0.5)


@pytest.mark.parametrize(
    ("plan", "keywords", "error", "says"),
    [
        (find_peak, {"axis": "phi", "search_range": 100.0, "step": 0.5}, LimitError, "axis phi"),
        (find_peak, {"axis": "psi"}, ParameterError, "axis 'psi' is not in configuration"),
        (find_peak, {"axis": "phi", "camera": "side", "step": 0.1}, ParameterError, "camera 'side' is not in"),
        (find_peak, {"axis": "phi", "exposure_s": 20.0, "step": 0.1}, ParameterError, "exposes 0.001 to 10 s"),
        (find_peak, {"axis": "phi", "step": 1e-6}, ParameterError, "more than 100000 points"),
        (find_peak, {"axis": "phi"}, ParameterError, "give a step"),
        (center_axis, {"axis": "phi"}, ParameterError, "give a width"),
        (center_axis, {"axis": "phi", "num": 3}, ParameterError, "num"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run_begins(instrument, run_engine, documents, plan, keywords, error, says):
    with pytest.raises(error, match=says):
        run_engine(plan(instrument, **keywords))
    assert documents.all == []
    assert instrument.axes["phi"].visited == []


# -- frames of the running run ---------------------------------------------------------------------------------


def document_source(tmp_path, values):
    """Return the documents of a run of one-valued frames that lie in a file, as a camera announces them."""
    files = FrameFiles(tmp_path, "far_field", (4, 4))
    documents = [
        ("start", {"uid": "run", "time": 0.0}),
        ("descriptor", {"uid": "d", "run_start": "run", "name": "primary", "data_keys": files.describe()}),
    ]
    for number, value in enumerate(values, start=1):
        files.append(np.full((4, 4), value, np.uint16))
        for name, doc in files.collect_asset_docs():
            if name == "stream_resource":
                doc["run_start"] = "run"
            else:
                doc |= {"descriptor": "d", "seq_nums": {"start": number, "stop": number + 1}}
            documents.append((name, doc))
        documents.append(("event", {"descriptor": "d", "seq_num": number, "data": {}, "timestamps": {}}))
    files.close()
    return documents


def run_by_hand(plan, answers):
    """Send a plan its answers, run what it waits for, and return what it returns."""
    answer = None
    while True:
        try:
            message = plan.send(answer)
        except StopIteration as stop:
            return stop.value
        if message.command == "wait_for":
            asyncio.run(message.args[0][0]())
            answer = None
        else:
            answer = answers(message)


def test_a_plan_sees_the_frames_of_its_own_run_and_no_others(tmp_path):
    frames = RunFrames("far_field")
    source = document_source(tmp_path, [3, 5, 8])

    def plan():
        for name, doc in source:
            frames(name, doc)
        # another run, opened inside
        frames("start", {"uid": "other", "time": 0.0})
        frames("event", {"descriptor": "e", "seq_num": 1, "data": {}, "timestamps": {}})
        return (yield from frames.each(lambda frame: float(frame.mean()))), (
            yield from frames.each(lambda frame: float(frame.max()), first=2)
        )

    subscribed = []

    def answers(message):
        subscribed.append((message.command, message.kwargs.get("token")))
        return 7

    assert run_by_hand(watching(frames, plan), answers) == ([3.0, 5.0, 8.0], [8.0])
    assert subscribed == [("subscribe", None), ("unsubscribe", 7)]


def test_a_camera_that_announces_nothing_is_an_error_and_a_dry_run_is_none():
    frames = RunFrames("far_field")

    def plan():
        return (yield from frames.each(lambda frame: frame))

    with pytest.raises(RecordError, match="announced no frame of stream 'primary'"):
        run_by_hand(watching(frames, plan), lambda message: 1)
    blind = RunFrames("far_field")

    def blind_plan():
        return (yield from blind.each(lambda frame: frame))

    assert run_by_hand(watching(blind, blind_plan), lambda message: None) == []
