"""A queue that is served as a user does it: by the command, in a process of its own, on ports that are free."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import dfxrm_control
from dfxrm_control.queue._client import QueueClient

HOME = str(Path(dfxrm_control.__file__).parent.parent)
# -P as the installed command has it: what lies in the working directory is not on Python's path
COMMAND = [sys.executable, "-P", "-c", "from dfxrm_control.cli import main; main()"]
SMALL = [
    *("--set", "instrument.cameras.far_field.rows=64"),
    *("--set", "instrument.cameras.far_field.columns=64"),
    *("--set", "data.minimum_free_gb=0.01"),
    *("--set", "data.journal_directory=journal"),
    *("--data", "data"),
]
QUICK = {"rock_num": 5, "rock_range": 0.2, "exposure_s": 0.1, "darks_before": 2}
READY_S = 90


def environment(folder, **more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("QSERVER_", "DFXRM_QUEUE"))}
    return {**clean, "HOME": str(folder), "PYTHONPATH": HOME, "COLUMNS": "160", **more}


class ServedQueue:
    """The process of ``dfxrm queue serve`` in a folder, and ways to ask it."""

    def __init__(self, folder, *options):
        self.folder = folder
        self.queue = folder / "queue"
        self.said = []
        self.process = subprocess.Popen(
            [*COMMAND, "queue", "serve", "--folder", "queue", "--port", "0", *SMALL, *options],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._ready, self._news = threading.Event(), threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.said.append(line.rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, words, timeout_s=READY_S):
        with self._news:
            assert self._news.wait_for(
                lambda: any(words in line for line in self.said) or not self._reader.is_alive(), timeout_s
            ), self.said
        assert any(words in line for line in self.said), self.said

    @property
    def addresses(self):
        return json.loads((self.queue / "addresses.json").read_text())

    @property
    def worker(self):
        return int((self.queue / "worker.lock").read_text())

    def client(self, **options):
        return QueueClient(self.queue, **options)

    def command(self, *arguments, **more):
        return subprocess.run(
            [*COMMAND, "queue", *map(str, arguments)],
            cwd=self.folder,
            env=environment(self.folder, **{"DFXRM_QUEUE_FOLDER": "queue", **more}),
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def processes(self):
        """Return the numbers of all processes that serve this queue, itself excluded."""
        left = json.loads((self.queue / "processes.json").read_text())
        found = subprocess.run(["ps", "-ww", "-eo", "pid,pgid,args"], text=True, capture_output=True, check=True).stdout
        rows = [line.split(None, 2) for line in found.splitlines()[1:]]
        valkey = f"127.0.0.1:{left['redis'].rpartition(':')[2]}"
        found = [int(pid) for pid, group, args in rows if int(group) == left["pid"] or valkey in args]
        assert len(found) >= 2
        return found

    def kill_everything(self):
        """Kill the process and all that it has started, so that none can clean up."""
        for pid in [self.process.pid, *self.processes()]:
            os.kill(pid, signal.SIGKILL)
        self._over()

    def _over(self):
        self.process.wait(20)
        self._reader.join(20)
        self.process.stdout.close()

    def end(self):
        """End it as a user does, and make sure that nothing is left."""
        try:
            if self.process.poll() is None:
                left = self.processes() if (self.queue / "processes.json").exists() else []
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(60)
                finally:
                    for pid in left:
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            continue
        finally:
            self.process.kill()
            self._over()


def scan(sample=None, on_failure="stop", **parameters):
    """Return an item that scans."""
    queue = {"on_failure": on_failure, "label": f"{sample or 'a'} scan"}
    meta = {"queue": queue, **({"sample": sample} if sample else {})}
    return {"item_type": "plan", "name": "rocking_scan", "kwargs": {**QUICK, **parameters}, "meta": meta}


def idle(status):
    return status["manager_state"] == "idle" and status["worker_environment_state"] == "idle"
