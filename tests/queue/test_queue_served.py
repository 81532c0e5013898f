"""A queue over real processes: what it takes and refuses, what it does with what fails, who may do what."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  frames are compressed with one of its filters
import pytest
from bluesky_queueserver_api import BPlan
from bluesky_queueserver_api.zmq import REManagerAPI
from served_queue import QUICK, ServedQueue, environment, idle, scan

from dfxrm_control.queue import QueueError
from dfxrm_control.queue._manager_link import ManagerLink
from dfxrm_control.records import read_journal

# bluesky-queueserver-api leaves its ZeroMQ contexts to the garbage collector
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")]

QSERVER = str(Path(sys.executable).with_name("qserver"))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    # a user's own files: one where the command is given, one in the folder of the queue
    (folder / "queue").mkdir(mode=0o700)
    for place in (folder, folder / "queue"):
        (place / "plans.py").write_text("raise RuntimeError('a file of a user was imported')\n")
    queue = ServedQueue(folder)
    try:
        queue.wait_for("ready")
        yield queue
        assert queue.process.poll() is None, queue.said
    finally:
        queue.end()


@pytest.fixture
def client(served):
    """Return a client of an empty, idle queue."""
    client = served.client()
    client.wait(idle)
    client.ask("queue_clear")
    for held in client.ask("held_get")["items"]:
        client.ask("held_drop", uid=held["uid"])
    yield client
    client.abort()
    client.close()


def _qserver(served, *arguments, **more):
    at = {"QSERVER_ZMQ_CONTROL_ADDRESS": served.addresses["open"], **more}
    done = subprocess.run(
        [QSERVER, *arguments],
        env=environment(served.folder, **at),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, " ".join(done.stdout.split()).replace("' '", "").replace("' \"", "").replace("\" '", "")


def _queued(client):
    return [item["name"] for item in client.ask("queue_get")["items"]]


def _run_to_the_end(client):
    client.start()
    client.wait(lambda status: status["manager_state"] == "idle" and not status["running_item_uid"])


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"name": "rocking_scan", "kwargs": {"rock_num": "many"}}, "rock_num: Input should be a valid integer"),
        ({"name": "rocking_scan", "kwargs": {"exposure_s": -1}}, "exposure_s: Input should be greater than 0"),
        ({"name": "rocking_scan", "kwargs": {"rock_nun": 5}}, "there is no parameter 'rock_nun'"),
        ({"name": "rocking_scam"}, "plan 'rocking_scam' is not in configuration"),
        ({"name": "rocking_scan", "args": [1]}, "parameters are given by name"),
        ({"name": "rocking_scan", "meta": {"sample": "../../etc"}}, "cannot name a folder"),
        ({"name": "mosaicity_scan", "kwargs": {"rock_num": 90000, "roll_num": 90000}}, "points are more than"),
    ],
)
def test_a_plain_qserver_is_refused_what_does_not_fit(served, client, item, sentence):
    code, said = _qserver(served, "queue", "add", "plan", json.dumps(item))
    assert code != 0
    assert sentence in said
    assert not _queued(client)


def test_the_manager_itself_refuses_what_does_not_fit(served, client):
    """The plans are described to the queue server as it checks them, so that it does not depend on the gate."""
    control = json.loads((served.queue / "processes.json").read_text())["control"]
    link = ManagerLink(control)
    for kwargs in ({"rock_num": "many"}, {"rock_num": 1}, {"exposure_s": -1.0}, {"rock_nun": 5}):
        item = {"item_type": "plan", "name": "rocking_scan", "kwargs": kwargs}
        answer = link.ask("queue_item_add", {"item": item, "user": "me", "user_group": "users"})
        assert not answer["success"], kwargs
    link.close()
    assert not _queued(client)


def test_clients_of_the_queue_server_work_unchanged(served, client):
    at = served.addresses
    api = REManagerAPI(zmq_control_addr=at["open"], zmq_info_addr=at["info"])
    added = api.item_add(BPlan("rocking_scan", **QUICK))
    assert added["item"]["user_group"] == "users"  # whatever it claimed to be
    assert set(api.plans_allowed()["plans_allowed"]) >= {"rocking_scan", "mosaicity_scan", "align", "place_sample"}
    code, said = _qserver(served, "queue", "get")
    assert code == 0 and added["item"]["item_uid"] in said
    code, _ = _qserver(served, "queue", "start")
    assert code == 0
    api.wait_for_idle(timeout=60)
    last = api.history_get()["items"][-1]
    assert last["item_uid"] == added["item"]["item_uid"] and last["result"]["exit_status"] == "completed"
    api.close()


def test_a_night_is_checked_queued_and_run(served, client):
    (served.folder / "night.yml").write_text(
        """
config: simulated
samples:
  - name: first
    conditions: {at: {samx: 0.01}, wait_s: 60}
    scans:
      - {plan: rocking_scan, parameters: {rock_num: 5, rock_range: 0.2, exposure_s: 0.1, darks_before: 2}, repeats: 2}
    grains:
      - name: g7
        conditions: {at: {chi: 0.1}}
        scans: [{plan: rocking_scan, parameters: {rock_num: 5, rock_range: 0.2, exposure_s: 0.1, darks_before: 2}}]
"""
    )
    added = served.command("add", "night.yml")
    assert added.returncode == 0, added.stderr
    assert added.stdout.splitlines()[-1] == "6 queued"
    listed = served.command("list").stdout
    assert [line.split("  ", 3)[-1] for line in listed.splitlines()[1:]] == [
        "first > place_sample",
        "first > wait",
        "first > rocking_scan 1/2",
        "first > rocking_scan 2/2",
        "first > g7 > place_sample",
        "first > g7 > rocking_scan",
    ]
    assert served.command("start").stdout == "started\n"
    watched = served.command("watch", "--until-idle")
    assert watched.returncode == 0 and "idle, 0 wait" in watched.stdout.splitlines()[-1]
    ended = served.command("history", "--last", "6").stdout.splitlines()
    assert len(ended) == 6 and all("completed" in line for line in ended)
    masters = sorted((served.folder / "data" / "first").glob("*/first_*.h5"))
    assert len(masters) == 3
    start = read_journal(next(masters[-1].parent.glob("*.jsonl"))).start
    assert start["queue"]["label"] == "first > g7 > rocking_scan" and start["queue"]["grain"] == "g7"
    assert start["queue"]["file"] == "night.yml"
    with h5py.File(masters[-1]) as master:
        assert master["1.1/instrument/positioners/samx"][()] == pytest.approx(0.01)
        assert master["1.1/instrument/positioners/chi"][()] == pytest.approx(0.1)


def test_maps_and_series_are_made_behind_the_queue(served, client):
    inner = {"scan": "rocking_scan", "scan_parameters": QUICK, "repeats": 3}
    client.add([{"item_type": "plan", "name": "time_series", "kwargs": inner, "meta": {"sample": "series"}}])
    _run_to_the_end(client)
    samples = served.folder / "data" / "series"
    _wait_for(lambda: len(list(samples.glob("*/maps/*_maps.h5"))) == 3, "three maps")
    journal = sorted((served.folder / "journal").glob("series_*.jsonl"))[-1]
    log = journal.with_suffix(".series.log")
    _wait_for(lambda: log.exists() and any(Path(line).is_file() for line in log.read_text().splitlines()), "a product")


def _wait_for(reached, what):
    end = time.monotonic() + 90
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def test_what_fails_stops_the_queue_and_waits_for_a_decision(served, client):
    client.add([scan("bad", rock_center=100.0, relative=False), scan("good")])
    _run_to_the_end(client)
    assert [item["meta"]["sample"] for item in client.ask("queue_get")["items"]] == ["good"]
    (held,) = client.ask("held_get")["items"]
    assert held["status"] == "failed" and "phi" in held["reason"] and "limits" in held["reason"]
    assert held["reason"] in served.command("list").stdout
    _run_to_the_end(client)  # the queue goes on without it
    assert not (served.folder / "data" / "bad").exists()
    assert len(list((served.folder / "data" / "good").iterdir())) == 1
    again = served.command("retry", held["uid"][:8])
    assert again.returncode == 0, again.stderr
    assert [item["meta"]["sample"] for item in client.ask("queue_get")["items"]] == ["bad"]
    assert not client.ask("held_get")["items"]
    _run_to_the_end(client)  # it fails again, and again waits
    (held,) = client.ask("held_get")["items"]
    assert not _queued(client)
    assert served.command("drop", held["uid"][:8]).returncode == 0
    assert served.command("list").stdout.splitlines()[1:] == ["  empty"]


def test_the_queue_goes_on_as_the_file_says_and_without_what_has_lost_its_sample(served, client):
    def item(plan, sample, block, condition, **parameters):
        queue = {"on_failure": "continue", "night": "n1", "block": block, "condition": condition, "label": sample}
        meta = {"sample": sample, "queue": queue}
        return {"item_type": "plan", "name": plan, "kwargs": parameters, "meta": meta}

    client.add(
        [
            item("place_sample", "lost", "0.0/", True, axes={"samx": 99.0}),
            item("rocking_scan", "lost", "0.0/", False, **QUICK),
            item("rocking_scan", "lost", "0.0/0.0/", False, **QUICK),
            item("rocking_scan", "next", "1.0/", False, **QUICK),
        ]
    )
    client.start()
    client.wait(lambda status: (served.folder / "data" / "next").exists() and idle(status), timeout_s=60)
    held = client.ask("held_get")["items"]
    assert [one["status"] for one in held] == ["failed", "not run", "not run"]
    assert "samx" in held[0]["reason"] and held[1]["reason"] == "not run, since lost failed"
    assert not (served.folder / "data" / "lost").exists()
    answer = client.ask("held_retry", uid=held[0]["uid"])  # with what was not run because of it
    assert [one["name"] for one in answer["items"]] == ["place_sample", "rocking_scan", "rocking_scan"]


def test_an_abort_needs_no_key_and_the_item_is_held(served, client, tmp_path):
    client.add([scan("aborted", rock_num=2000), scan("good")])
    client.start()
    client.wait(lambda status: status["re_state"] == "running")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "addresses.json").write_text((served.queue / "addresses.json").read_text())
    done = served.command("stop", "--emergency", DFXRM_QUEUE_FOLDER=str(tmp_path / "none"))
    assert done.stdout == "aborted; the item is held\n", done.stderr
    (held,) = client.ask("held_get")["items"]
    assert held["status"] == "aborted"
    status = client.wait(idle)
    assert status["items_in_queue"] == 1  # the queue has stopped
    run = next((served.folder / "data" / "aborted").iterdir())
    stop = read_journal(next(run.glob("*.jsonl"))).stop
    assert stop["exit_status"] == "abort"


def test_pause_and_resume(served, client):
    client.add([scan("paused", rock_num=5000)])
    client.start()
    client.wait(lambda status: status["re_state"] == "running")
    paused = served.command("pause")
    assert paused.stdout == "paused\n", paused.stderr
    assert client.status()["re_state"] == "paused"
    assert served.command("resume").stdout == "goes on\n"
    client.wait(lambda status: status["re_state"] == "running")
    assert served.command("pause", "--now").stdout == "paused\n"
    client.abort()
    client.wait(idle)


def test_groups_may_what_they_may(served, client, tmp_path):
    move = {"item_type": "plan", "name": "move", "kwargs": {"axes": {"chi": 0.0}}}
    at, keys = served.addresses, {group: served.queue / f"{group}.key" for group in ("users", "staff")}
    users = served.client(address=at["users"], key_file=keys["users"])
    with pytest.raises(QueueError, match="plan 'move' needs the key of staff"):
        users.add([move])
    with pytest.raises(QueueError, match="'environment_destroy' needs the key of staff"):
        users.ask("environment_destroy")
    users.add([scan()])
    users.close()
    staff = served.client(address=at["staff"], key_file=keys["staff"])
    assert staff.add([move])[0]["user_group"] == "staff"
    for method in ("script_upload", "function_execute", "permissions_set", "manager_stop", "manager_kill"):
        with pytest.raises(QueueError, match="is not available through this queue"):
            staff.ask(method)
    staff.close()
    keys["staff"].chmod(0o644)
    try:
        with pytest.raises(QueueError, match=r"can be read by others \(mode 0644\)"):
            served.client(address=at["staff"], key_file=keys["staff"])
    finally:
        keys["staff"].chmod(0o600)


def test_the_wrong_key_is_not_heard(served, client):
    key = (served.queue / "users.key").read_text().strip()
    api = REManagerAPI(zmq_control_addr=served.addresses["staff"], zmq_public_key=key, timeout_recv=1.0)
    with pytest.raises(REManagerAPI.RequestTimeoutError):
        api.status()
    api.close()
    api = REManagerAPI(zmq_control_addr=served.addresses["staff"], timeout_recv=1.0)
    with pytest.raises(REManagerAPI.RequestTimeoutError):
        api.status()
    api.close()


def test_nothing_listens_beyond_loopback(served, client):
    pids = {served.process.pid, *served.processes()}
    links = {os.readlink(entry) for pid in pids for entry in _open_files(pid)}
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}
    assert listening == {"0100007F"}


def _open_files(pid):
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if entry.is_symlink():
            yield entry


def test_a_worker_that_is_killed_loses_no_frame_and_no_item(served, client):
    client.add([scan("killed", rock_num=2000, on_failure="continue"), scan("after")])
    client.start()
    _wait_for_events(served.folder, "killed", 20)
    old = served.worker
    os.kill(old, signal.SIGKILL)
    client.wait(lambda status: (served.folder / "data" / "after").exists() and idle(status), timeout_s=90)
    assert served.worker != old
    (held,) = client.ask("held_get")["items"]
    assert held["item"]["meta"]["sample"] == "killed" and held["status"] == "interrupted"
    assert "was killed" in held["reason"]
    (run,) = (served.folder / "data" / "killed").iterdir()
    journal = next(run.glob("*.jsonl"))
    assert f"dfxrm recover {journal.resolve()}" in held["reason"]
    acknowledged = len(read_journal(journal).primary.frames["far_field"])
    assert acknowledged > 10
    from dfxrm_control.records import recover

    with h5py.File(recover(journal.resolve())) as master:
        frames = sum(
            len(master[f"{entry}/instrument/far_field/data"])
            for entry in ("1.1", "1.3")
            if f"{entry}/instrument/far_field/data" in master
        )
    assert frames >= acknowledged
    assert not _queued(client)


def _wait_for_events(folder, sample, number):
    def there():
        journals = list((folder / "journal").glob(f"{sample}_*.jsonl"))
        return journals and len(_events(journals[-1])) >= number

    _wait_for(there, f"{number} events of {sample}")


def _events(journal):
    return [line for line in journal.read_text().splitlines() if '"seq_num"' in line]
