"""What a queue survives: all its processes killed at once, and a Redis that is gone."""

import json
import subprocess

import pytest
from served_queue import COMMAND, SMALL, ServedQueue, environment, idle, scan

from dfxrm_control.queue import QueueError
from dfxrm_control.queue._redis import EmbeddedRedis

# bluesky-queueserver-api leaves its ZeroMQ contexts to the garbage collector
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")]


def _state(client):
    answer = client.ask("queue_get")
    return (
        [item["meta"]["sample"] for item in answer["items"]],
        [(held["item"]["meta"]["sample"], held["status"]) for held in answer["held_items"]],
    )


def test_when_everything_is_killed_no_item_is_lost_and_none_runs_by_itself(tmp_path):
    queue = ServedQueue(tmp_path)
    try:
        queue.wait_for("ready")
        client = queue.client()
        client.add([scan("running", rock_num=5000), scan("second"), scan("third")])
        client.start()
        client.wait(lambda status: status["re_state"] == "running")
        client.close()
    finally:
        queue.kill_everything()
    again = ServedQueue(tmp_path, "--without-key", "read-only")
    try:
        again.wait_for("ready")
        client = again.client()
        client.wait(idle)
        assert _state(client) == (["second", "third"], [("running", "interrupted")])
        (held,) = client.ask("held_get")["items"]
        assert "the queue ended while it ran; `dfxrm recover " in held["reason"]
        client.start()
        client.wait(lambda status: not status["items_in_queue"] and idle(status) and not status["running_item_uid"])
        assert _state(client) == ([], [("running", "interrupted")])
        client.close()
        _read_only_may_look_and_stop(again)
    finally:
        again.end()
    assert again.process.returncode == 0
    assert not (tmp_path / "queue" / "processes.json").exists()


def _read_only_may_look_and_stop(served):
    reader = served.client(address=served.addresses["open"])
    assert reader.status()["manager_state"] == "idle"
    assert len(reader.ask("history_get")["items"]) == 3
    for ask in (lambda: reader.add([scan()]), lambda: reader.ask("queue_start"), lambda: reader.ask("queue_clear")):
        with pytest.raises(QueueError, match="needs the key of users; without it you are read-only"):
            ask()
    staff = served.client()
    staff.add([scan("stopped", rock_num=5000)])
    staff.start()
    staff.wait(lambda status: status["re_state"] == "running")
    assert reader.abort()
    assert ("stopped", "aborted") in _state(reader)[1]
    reader.close()
    staff.close()


def test_a_process_that_serves_is_replaced_and_the_scan_goes_on(tmp_path):
    """Only what serves was killed: manager, worker and Redis are still there, and are gone on with."""
    queue = ServedQueue(tmp_path)
    left = []
    try:
        queue.wait_for("ready")
        client = queue.client()
        client.add([scan("running", rock_num=1000), scan("second")])
        client.start()
        client.wait(lambda status: status["re_state"] == "running")
        client.close()
        worker = queue.worker
        left = queue.processes()
        queue.process.kill()
        queue.process.wait(20)
        again = ServedQueue(tmp_path)
        try:
            again.wait_for("going on with the RE manager that was left running")
            again.wait_for("ready")
            assert again.worker == worker
            client = again.client()
            client.wait(lambda status: not status["items_in_queue"] and idle(status) and not status["running_item_uid"])
            done = [item["result"]["exit_status"] for item in client.ask("history_get")["items"]]
            assert done == ["completed", "completed"] and _state(client) == ([], [])
            client.close()
        finally:
            again.end()
    finally:
        queue.end()
        _kill(left)


def test_a_redis_that_is_gone_is_said_and_does_not_end_a_scan(tmp_path):
    redis = EmbeddedRedis(tmp_path / "given")
    redis.start()
    try:
        queue = ServedQueue(tmp_path, "--redis", redis.address)
        try:
            queue.wait_for("ready")
            client = queue.client()
            client.add([scan("running", rock_num=600), scan("second")])
            client.start()
            client.wait(lambda status: status["re_state"] == "running")
            redis.stop()
            queue.wait_for("does not answer; a scan that runs goes on, the queue waits")
            refused = queue.command("list")
            assert refused.returncode == 2 and refused.stderr.count("\n") == 1
            assert "does not answer; until it does, the queue waits" in refused.stderr
            client.wait(lambda status: status["re_state"] == "idle")
            redis = EmbeddedRedis(tmp_path / "given", redis.address)
            redis.start()
            queue.wait_for("answers again")
            queue.wait_for("running scan: interrupted")
            client.wait(idle)
            assert _state(client) == (["second"], [("running", "interrupted")])
            client.close()
        finally:
            queue.end()
    finally:
        redis.stop()
    assert (tmp_path / "data" / "running").exists()


def test_without_redis_or_twice_nothing_is_served(tmp_path):
    done = _serve(tmp_path, "--redis", "127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr == "dfxrm: Redis at 127.0.0.1:1 does not answer; without it there is no queue\n"
    done = _run(tmp_path, "list")
    assert done.returncode == 2 and "no queue was started in folder" in done.stderr


def _serve(folder, *options):
    return _run(folder, "serve", "--folder", "queue", "--port", "0", *SMALL, *options)


def _run(folder, *arguments):
    return subprocess.run(
        [*COMMAND, "queue", *arguments],
        cwd=folder,
        env=environment(folder),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def _kill(pids):
    import os
    import signal

    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_the_embedded_redis_keeps_what_it_was_told_when_it_is_killed(tmp_path):
    import redis as redis_client

    first = EmbeddedRedis(tmp_path / "redis")
    first.start()
    client = redis_client.Redis.from_url(f"redis://{first.address}")
    try:
        client.rpush("queue", json.dumps({"item": 1}))
        pid = client.info()["process_id"]
        _kill([pid])
        second = EmbeddedRedis(tmp_path / "redis", first.address)
        second.start()
        assert client.lrange("queue", 0, -1) == [b'{"item": 1}']
        with pytest.raises(redis_client.RedisError):
            redis_client.Redis(port=int(first.address.rpartition(":")[2])).ping()  # not without the password
        second.stop()
    finally:
        client.close()
        first.stop()
