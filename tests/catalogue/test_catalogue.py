"""Runs that ended are in the catalogue, whatever became of it meanwhile, and a scan never waits for it."""

import json
import os
import socket
import sqlite3
import time
from pathlib import Path

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from cataloguing import KEY, ROCK, dfxrm, feeders_of, readings_of, wait_until_all_is_in

from dfxrm_control.catalogue import (
    CatalogueError,
    Filter,
    catch_up,
    data_folders,
    describe,
    find,
    left_out,
    opened,
    pending,
    place_of,
    table_of,
)
from dfxrm_control.errors import ConfigError
from dfxrm_control.records import read_documents, read_journal
from dfxrm_control.session import Session

pytestmark = [pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning"), pytest.mark.slow]


def test_runs_go_to_the_catalogue_by_themselves_and_are_found_with_their_frames(small):
    place = place_of(small)
    with Session(small, maps=False, quiet=True) as session:
        session.store.begin_beamtime("simulated", "MA-6060", ["A. Curie", "B. Laue"])
        ours = session.run("rocking_scan", ROCK)
        session.store.end_beamtime("simulated")
        session.execute(bp.count([session.cameras["far_field"]], 3))
        wait_until_all_is_in(place)
        assert len(feeders_of(place)) == 1
    with opened(place, data_folders(place)) as client:
        assert [run.plan for run in find(client, Filter(), 10)] == ["count", "rocking_scan"]
        (run,) = find(client, Filter(microscope="simulated", proposal="MA-6060", status="success"), 10)
        assert (run.scan_id, run.points, run.people) == (ours.scan_id, 5, ("A. Curie", "B. Laue"))
        assert run.began_s < run.ended_s <= time.time()
        for wanted in (Filter(sample="another"), Filter(status="fail"), Filter(since=time.time()), Filter(until=1.0)):
            assert find(client, wanted, 10) == []

        frames = client[run.uid]["primary"]["far_field"].read()
        with h5py.File(ours.master) as master:
            np.testing.assert_array_equal(frames[:, 0], master["1.1/measurement/far_field"][()])
        assert frames.any()
        recorded = read_journal(next(ours.folder.glob("*.jsonl")))
        told = describe(client, str(run.scan_id), "simulated")
        assert told["start"] == json.loads(json.dumps(recorded.start))
        assert told["streams"]["primary"]["far_field"]["shape"] == [5, 1, 32, 32]
        assert told["streams"]["primary"]["phi"] == {"shape": [5], "units": "deg"}
        assert {Path(file).parent.parent for file in told["files"]} == {ours.folder}
        table = table_of(client, run.uid[:8], "primary")
        np.testing.assert_array_equal(table["phi"], [event["phi"] for event in readings_of(ours.folder)])
        with pytest.raises(CatalogueError, match=r"no run is meant by '77'"):
            describe(client, "77", "simulated")
        with pytest.raises(CatalogueError, match=r"has no stream 'secondary'; it has .*primary"):
            table_of(client, run.uid[:8], "secondary")


def test_a_server_that_is_dead_costs_a_scan_nothing_and_gets_all_when_it_is_back(
    small, monkeypatch, free_port, serve_tiled
):
    monkeypatch.setenv("DFXRM_CATALOGUE", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("TILED_API_KEY", KEY)
    place = place_of(small)
    with (
        pytest.raises(CatalogueError, match=rf"the catalogue at http://127.0.0.1:{free_port} does not answer: "),
        opened(place),
    ):
        raise AssertionError
    with Session(small, maps=False, quiet=True) as session:
        first = session.run("rocking_scan", ROCK)
        end = time.monotonic() + 60
        while "does not answer" not in (log := (place.folder / "feed.log")).read_text() and time.monotonic() < end:
            time.sleep(0.2)
        assert "it is asked again in" in log.read_text()
        server = serve_tiled()
        wait_until_all_is_in(place)
        # it dies with the catalogue open, and comes back
        server.kill()
        server.wait()
        second = session.run("rocking_scan", ROCK)
        assert second.status == "success"
        assert len(pending(place)) == 1
        serve_tiled()
        wait_until_all_is_in(place)
        with opened(place) as client:
            assert {run.scan_id for run in find(client, Filter(), 10)} == {first.scan_id, second.scan_id}
            uid = find(client, Filter(), 1)[0].uid
            with h5py.File(second.master) as master:
                np.testing.assert_array_equal(
                    client[uid]["primary"]["far_field"].read()[:, 0], master["1.1/measurement/far_field"][()]
                )


def test_a_server_that_does_not_answer_at_all_is_not_waited_for(small, monkeypatch, free_port):
    monkeypatch.setenv("DFXRM_CATALOGUE", f"http://127.0.0.1:{free_port}")
    with socket.create_server(("127.0.0.1", free_port)), Session(small, maps=False, quiet=True) as session:
        began = time.monotonic()
        run = session.run("rocking_scan", ROCK)
        session.run("rocking_scan", ROCK)
        assert run.status == "success" and time.monotonic() - began < 30
        place = place_of(small)
        told = dfxrm(small)
        assert told.returncode == 2
        assert told.stderr == f"dfxrm: {place.shown} does not answer: timed out\n"
        assert left_out(place) == (2, {})
    # as long as this process lives it is asked again
    (feeder,) = feeders_of(place)
    assert feeder[feeder.index("--parent") + 1] == str(os.getpid())


def test_what_was_cut_short_or_half_put_in_is_there_once_and_whole(small):
    place = place_of(small)
    with Session(small, maps=False, quiet=True) as session:
        whole = session.run("rocking_scan", ROCK)
    journal = next(Path(small.data.journal_directory).glob("*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    cut = journal.with_name("cut_00002_ffffffff.jsonl")
    events = [number for number, line in enumerate(lines) if line.startswith(b'["event"')]
    shorter = b"".join(lines[: events[-3]]) + lines[events[-3]][:20]
    uid = read_journal(journal).start["uid"]
    cut.write_bytes(shorter.replace(uid.encode(), b"f" * 8 + uid[8:].encode()))
    old = time.time() - 60
    os.utime(cut, (old, old))
    broken = journal.with_name("broken_00003_eeeeeeee.jsonl")
    broken.write_text("no journal\n")
    os.utime(broken, (old - 10, old - 10))
    frames = {path: path.read_bytes() for path in whole.folder.rglob("far_field*.h5")}
    assert frames
    wait_until_all_is_in(place)
    with opened(place, data_folders(place)) as client:
        assert client[uid].metadata["stop"]["exit_status"] == "success"
        # as if the process had been killed while it put the run in
        from bluesky_tiled_plugins import TiledWriter

        client.delete_contents([uid], recursive=True, external_only=False)
        writer = TiledWriter(client)
        for name, document in list(read_documents(journal))[:40]:
            writer(name, document)
        forget(place, journal)
        fed = catch_up(place, client)
        assert fed.taken == [journal] and not fed.refused
        found = {run.uid: run for run in find(client, Filter(), 10)}
        assert len(found) == 2
        assert (found[uid].status, found[uid].points) == ("success", 5)
        other = found["ffffffff" + uid[8:]]
        assert (other.status, other.reason) == ("fail", "cut short: its process ended without a word")
        assert client[uid]["primary"]["far_field"].shape == (5, 1, 32, 32)
    assert {path: path.read_bytes() for path in frames} == frames
    waiting, refused = left_out(place)
    assert waiting == 0 and list(refused) == [broken.name] and "is no journal of a run" in refused[broken.name]
    told = dfxrm(small)
    assert f"not taken: {broken.name}: " in told.stderr


def forget(place, journal):
    with sqlite3.connect(place.folder / "entered.sqlite") as ledger:
        ledger.execute("DELETE FROM entered WHERE journal = ?", (journal.name,))
    ledger.close()


def test_the_command_lists_filters_shows_and_exports(small, tmp_path, monkeypatch):
    monkeypatch.setenv("DFXRM_CATALOGUE", "none")
    with Session(small, maps=False, quiet=True) as session:
        rock = session.run("rocking_scan", ROCK)
        session.run("mosaicity_scan", {**ROCK, "roll_num": 2, "roll_range": 0.2})
    refused = dfxrm(small)
    assert refused.returncode == 2 and "has no catalogue" in refused.stderr
    monkeypatch.setenv("DFXRM_CATALOGUE", "embedded")
    told = dfxrm(small)
    assert told.stdout == "no run fits\n" and "2 more have ended and are not in the catalogue in" in told.stderr
    caught = dfxrm(small, "catch-up")
    assert caught.stdout.endswith("2 put in\n") and caught.returncode == 0, caught.stderr
    told = dfxrm(small)
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["2", "1"] and told.stderr == ""
    assert "success  mosaicity_scan of annealed_aluminium, 10 points" in told.stdout
    told = dfxrm(small, "--plan", "rocking_scan", "--json", "--since", "2020-01-01")
    (only,) = json.loads(told.stdout)
    assert (only["scan_id"], only["points"]) == (rock.scan_id, 5)
    told = dfxrm(small, "show", "1")
    assert "stream primary: 5 points" in told.stdout and "far_field  frames 32 x 32" in told.stdout
    assert f"frames:  {rock.folder}" in told.stdout
    assert json.loads(dfxrm(small, "show", "1", "--json").stdout)["start"]["uid"] == only["uid"]

    csv, whole = tmp_path / "one.csv", tmp_path / "one.json"
    told = dfxrm(small, "export", only["uid"][:8], csv)
    assert told.stdout == f"5 points of stream primary: {csv}\n"
    header, *rows = [line.split(",") for line in csv.read_text().splitlines()]
    assert [float(row[header.index("phi")]) for row in rows] == [event["phi"] for event in readings_of(rock.folder)]
    assert dfxrm(small, "export", "1", whole).returncode == 0
    assert json.loads(whole.read_text())["readings"]["phi"] == [event["phi"] for event in readings_of(rock.folder)]
    for arguments, sentence in (
        (["export", "1", csv], "exists already and is not overwritten"),
        (["export", "1", tmp_path / "one.xls"], "a run is exported as .csv or .json"),
        (["export", "1", tmp_path / "none" / "one.csv"], "cannot be written: No such file or directory"),
        (["show", "9"], "no run is meant by '9'"),
    ):
        told = dfxrm(small, *arguments)
        assert told.returncode == 2 and sentence in told.stderr and len(told.stderr.splitlines()) == 1


def test_an_address_that_cannot_be_is_refused(small, monkeypatch):
    monkeypatch.setenv("DFXRM_CATALOGUE", "ftp://somewhere")
    with pytest.raises(ConfigError, match=r"DFXRM_CATALOGUE is 'ftp://somewhere'; it must be embedded, none, or"):
        place_of(small)
