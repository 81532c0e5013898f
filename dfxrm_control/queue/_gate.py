"""The gate: the one way to the RE manager. It says who may ask for what, and takes failed items out of the queue.

bluesky-queueserver believes what group a client says it is of, puts a failed item back at the front of the queue, and
does not notice that its worker was killed. The gate stands on the manager's public address instead and speaks its
protocol, so that every client of it works unchanged; the manager itself is reached by this account only. All requests
pass one after the other, and before one that may start something, what has failed is taken out of the queue.
"""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zmq

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import DfxrmError
from dfxrm_control.queue._errors import QueueError
from dfxrm_control.queue._folder import Held, HeldItems
from dfxrm_control.queue._items import check_item, label_of, plain_item, told
from dfxrm_control.queue._manager_link import ManagerLink
from dfxrm_control.queue._permissions import LOOK, QUEUE, STOP, Group, may, needed
from dfxrm_control.queue._redis import GivenRedis

__all__ = ["Gate"]

TICK_S = 0.25
STUCK_S = 6.0
LARGEST_REQUEST_BYTES = 16_000_000
LONGEST_REASON = 500
BUSY = ("initializing", "creating_environment", "closing_environment", "destroying_environment")
WITH_GROUP = frozenset(
    {"queue_item_add", "queue_item_add_batch", "queue_item_update", "queue_item_execute", "plans_allowed",
     "devices_allowed"}
)  # fmt: skip
WITH_LOCK_KEY = (QUEUE - {"held_retry", "held_drop"}) | STOP
SHOWS_ITEMS = ("queue_get", "queue_item_get", "held_get")
FAILED = ("failed", "aborted", "halted")
_log = logging.getLogger(__name__)


class Gate:
    """Answers clients, and looks after manager, worker and Redis.

    Parameters
    ----------
    link : ManagerLink
        The manager.
    held : HeldItems
        Items that wait for a decision.
    config : MicroscopeConfig
        The microscope, with the plans between scans.
    redis : GivenRedis
        What the queue is kept in.
    worker_lock : Path
        File that the worker keeps locked as long as it lives.
    restart_manager : callable
        Starts the manager again when its process has ended.
    say : callable
        Told in one sentence what the gate does by itself.
    """

    def __init__(
        self,
        link: ManagerLink,
        held: HeldItems,
        config: MicroscopeConfig,
        redis: GivenRedis,
        worker_lock: Path,
        restart_manager: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._link = link
        self._held = held
        self._config = config
        self._redis = redis
        self._worker_lock = worker_lock
        self._restart_manager = restart_manager
        self._say = say
        self._poller = zmq.Poller()
        self._groups: dict[Any, Group] = {}
        self._status: dict[str, Any] = {}
        self._settled_for: tuple[Any, Any] = (None, None)
        self._lock_key: str | None = None
        self._redis_gone = False
        self._redis_was_gone = False
        self._stuck_since: float | None = None
        self._open_wanted = True
        self._go_on = False
        self._death: str | None = None

    # -- sockets --------------------------------------------------------------------------------------------------

    def listen(self, group: Group, address: str, secret: str | None) -> None:
        """Listen for a group at an address; with a secret, only who has the key that belongs to it is heard.

        Raises
        ------
        QueueError
            When the address is taken or is none.
        """
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 500)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_REQUEST_BYTES)
        if secret is not None:
            # a client that does not know the public half of this key cannot even greet the socket
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret.encode())
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise QueueError(f"the queue cannot listen at {address}: {error}; choose another --port") from error
        self._groups[socket] = group
        self._poller.register(socket, zmq.POLLIN)

    def run(self, ended: Callable[[], bool]) -> None:
        """Answer and look after everything until ``ended()``."""
        due = 0.0
        while not ended():
            for socket, _ in self._poller.poll(int(TICK_S * 1000)):
                frames = socket.recv_multipart()
                if len(frames) == 3:
                    answer = self.answer(self._groups[socket], frames[2])
                    socket.send_multipart([frames[0], b"", json.dumps(answer).encode()])
            if time.monotonic() >= due:
                self.look_after()
                due = time.monotonic() + TICK_S

    def close(self) -> None:
        """Stop listening."""
        for socket in self._groups:
            socket.close()
        self._link.close()

    # -- requests -------------------------------------------------------------------------------------------------

    def answer(self, group: Group, message: bytes) -> dict[str, Any]:
        """Return the answer to one request of somebody of a group."""
        try:
            request = json.loads(message)
            method, params = str(request["method"]), dict(request.get("params") or {})
        except (ValueError, TypeError, KeyError, RecursionError):
            return _refusal("a request is a JSON object with a method and its params")
        try:
            if not may(group, method):
                raise QueueError(_not_allowed(group, method))
            if self._redis_gone and method not in STOP and method not in ("ping", "status", "held_get"):
                raise QueueError(f"Redis at {self._redis.shown} does not answer; until it does, the queue waits")
            answer = self._answer(group, method, params)
        except DfxrmError as error:
            answer = _refusal(str(error))
        if method not in LOOK:
            done = "done" if answer.get("success") else f"refused: {answer.get('msg')}"
            _log.info("queue: %.60s of %.60s: %s", method, params.get("user") or group, done)
        return answer

    def _answer(self, group: Group, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if (method in QUEUE or method in SHOWS_ITEMS) and not self._redis_gone:
            self._settle(self._link.ask("status"))
        if method == "held_get":
            return {"success": True, "msg": "", "items": [vars(held) for held in self._held.items]}
        if method == "held_drop":
            dropped = self._held.take(str(params.get("uid")))
            return {"success": True, "msg": "", "item": dropped.item}
        if method == "held_retry":
            return self._retry(group, params)
        self._check(group, method, params)
        if method in WITH_GROUP:
            params["user_group"] = group
            if "allowed" not in method:
                params.setdefault("user", group)
        if self._lock_key is not None and method in STOP:
            params["lock_key"] = self._lock_key
        answer = self._link.ask(method, params)
        if method in ("lock", "unlock") and answer.get("success"):
            self._lock_key = params.get("lock_key") if method == "lock" else None
        if method in STOP:
            self._go_on = False
        if method == "queue_get":
            answer["held_items"] = [vars(held) for held in self._held.items]
        return answer

    def _check(self, group: Group, method: str, params: Mapping[str, Any]) -> None:
        """Refuse what the manager would take, and should not.

        Raises
        ------
        DfxrmError
            One sentence.
        """
        if method in ("queue_item_add", "queue_item_update", "queue_item_execute"):
            check_item(params.get("item"), group, self._config)
        if method == "queue_item_add_batch":
            items = params.get("items")
            if not isinstance(items, list):
                raise QueueError("queue_item_add_batch needs a list of items")
            for item in items:
                check_item(item, group, self._config)
        if method == "queue_mode_set":
            mode = params.get("mode")
            if isinstance(mode, Mapping) and mode.get("ignore_failures"):
                raise QueueError("ignore_failures is not available here: each item says itself what a failure means")

    def _retry(self, group: Group, params: Mapping[str, Any]) -> dict[str, Any]:
        """Put a held item, and those that were not run because of it, back at the front of the queue."""
        first = self._held.find(str(params.get("uid")))
        again = [first, *(held for held in self._held.items if told(held.item).get("because") == first.uid)]
        items = [plain_item(held.item) for held in again]
        for item in items:
            check_item(item, group, self._config)
        request = {"items": items, "pos": "front", "user": str(params.get("user") or group), "user_group": group}
        answer = self._ask_with_key("queue_item_add_batch", request)
        if answer.get("success"):
            for held in again:
                self._held.take(held.uid)
        return answer

    def _ask_with_key(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if self._lock_key is not None and method in WITH_LOCK_KEY:
            params["lock_key"] = self._lock_key
        return self._link.ask(method, params)

    # -- looking after --------------------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Notice what has failed, died or gone, and do about it what was said beforehand."""
        try:
            self._look_at_redis()
            if self._redis_gone:
                return
            if self._restart_manager():
                self._say("the RE manager had ended and was started again")
                self._open_wanted = True
            status = self._link.ask("status", timeout_s=2.0)
            self._status = status
            self._look_at_manager(status)
            self._look_at_worker(status)
            self._settle(status)
            self._start_what_is_due(status)
        except QueueError:
            return  # who asks is told the same; the next look comes at once

    @property
    def ready(self) -> bool:
        """Whether the worker's environment is open and idle or at work."""
        return bool(self._status.get("worker_environment_exists")) and self._status["manager_state"] not in BUSY

    @property
    def status(self) -> dict[str, Any]:
        """The manager's last status."""
        return self._status

    def _look_at_redis(self) -> None:
        gone = not self._redis.answers()
        if gone and not self._redis_gone:
            self._say(f"Redis at {self._redis.shown} does not answer; a scan that runs goes on, the queue waits")
            self._redis_was_gone = True
        elif self._redis_gone and not gone:
            self._say(f"Redis at {self._redis.shown} answers again")
        self._redis_gone = gone
        if gone:
            self._redis.bring_back()
            self._redis_gone = not self._redis.answers()

    def _look_at_manager(self, status: Mapping[str, Any]) -> None:
        """Restart a manager that lost the report of a plan because Redis was gone when it came."""
        lost = (
            self._redis_was_gone
            and status["manager_state"] == "executing_queue"
            and status["re_state"] == "idle"
            and status["worker_environment_state"] == "idle"
        )
        if not lost:
            self._stuck_since = None
            return
        now = time.monotonic()
        self._stuck_since = self._stuck_since if self._stuck_since is not None else now
        if now - self._stuck_since > STUCK_S:
            self._redis_was_gone = False
            self._say("how the last item ended was lost with Redis: the RE manager is started again")
            self._link.ask("manager_kill", timeout_s=0.5)  # blocks it; its watchdog then replaces it

    def _look_at_worker(self, status: Mapping[str, Any]) -> None:
        if not status["worker_environment_exists"] or status["manager_state"] in BUSY or self._worker_lives():
            return
        self._death = f"the process that ran it was killed; {self._how_to_recover()}"
        self._say("the worker was killed; a new one is started")
        self._open_wanted = True
        self._link.done("environment_destroy", self._key())

    def _worker_lives(self) -> bool:
        try:
            with self._worker_lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _how_to_recover(self) -> str:
        journals = sorted(
            Path(self._config.data.journal_directory).glob("*.jsonl"), key=lambda file: file.stat().st_mtime
        )
        return f"`dfxrm recover {journals[-1]}` rebuilds the record of its last run" if journals else "it left no run"

    def _start_what_is_due(self, status: Mapping[str, Any]) -> None:
        if status["manager_state"] != "idle":
            return
        if not status["worker_environment_exists"]:
            if self._open_wanted:
                self._open_wanted = False
                self._link.done("environment_open", self._key())
            return
        self._open_wanted = False
        if self._go_on and status["worker_environment_state"] == "idle":
            self._go_on = False
            if self._link.ask("status")["items_in_queue"]:
                self._link.ask("queue_start", self._key())

    # -- what has failed ------------------------------------------------------------------------------------------

    def _settle(self, status: Mapping[str, Any]) -> None:
        """Take what has failed or was interrupted out of the queue, and keep it with its reason."""
        now = (status["plan_queue_uid"], status["plan_history_uid"])
        if now == self._settled_for:
            return
        for item in self._link.done("queue_get")["items"]:
            if item.get("result", {}).get("exit_status") in FAILED:
                self._hold_failed(item, bool(self._status.get("queue_stop_pending") or status["queue_stop_pending"]))
        for item in self._link.done("history_get")["items"]:
            if item["result"]["exit_status"] == "unknown" and item["item_uid"] not in self._held.settled:
                reason = f"the queue ended while it ran; {self._how_to_recover()}"
                self._hold(item, reason, "interrupted")
        self._settled_for = now

    def _hold_failed(self, item: dict[str, Any], stopping: bool) -> None:
        result = item["result"]
        reason = str(result["msg"]).removeprefix("Plan failed: ")
        status = str(result["exit_status"])
        if self._death is not None and status == "failed":
            reason, status, self._death = self._death, "interrupted", None
        self._hold(item, reason or f"it was {status}", status)
        self._link.done("queue_item_remove", {"uid": item["item_uid"], **self._key()})
        queue = told(item)
        if queue.get("condition"):
            self._hold_dependent(item, queue)
        if queue.get("on_failure") == "continue" and result["exit_status"] == "failed" and not stopping:
            self._go_on = True

    def _hold_dependent(self, failed: Mapping[str, Any], queue: Mapping[str, Any]) -> None:
        """Take out the items that need what a failed one should have brought about."""
        for item in self._link.done("queue_get")["items"]:
            other = told(item)
            if other.get("night") == queue.get("night") and str(other.get("block", "")).startswith(str(queue["block"])):
                held = {**item, "meta": {**item["meta"], "queue": {**other, "because": failed["item_uid"]}}}
                self._hold(held, f"not run, since {label_of(failed)} failed", "not run")
                self._link.done("queue_item_remove", {"uid": item["item_uid"], **self._key()})

    def _hold(self, item: Mapping[str, Any], reason: str, status: str) -> None:
        reason = " ".join(reason.split())[:LONGEST_REASON]
        self._held.hold(Held(item["item_uid"], dict(item), reason, status, time.time()))
        self._say(
            f"{label_of(item)}: {status}, {reason}; it waits for `dfxrm queue retry {item['item_uid'][:8]}` or drop"
        )

    def _key(self) -> dict[str, Any]:
        return {} if self._lock_key is None else {"lock_key": self._lock_key}


def _refusal(sentence: str) -> dict[str, Any]:
    return {"success": False, "msg": sentence, "item": None, "items": [], "results": [], "qsize": None}


def _not_allowed(group: Group, method: str) -> str:
    least = needed(method)
    if least is None:
        return f"{method[:60]!r} is not available through this queue"
    return f"{method!r} needs the key of {least}; without it you are {group.replace('_', '-')}"
