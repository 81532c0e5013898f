"""Sessions and recoveries that end by SIGKILL at a given moment: ``python killed_session.py``.

Everything is imported once; each job is a forked process. A job comes as a line of JSON and is answered by one: how it
ended, how often a line of each file was executed until then, and which events a subscriber was told of.

``kill``: ``[file, n]`` kills at the n-th executed line of the file; ``["time", s]`` after a time; null not at all.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import hdf5plugin  # noqa: F401

import plans  # noqa: F401  what a session finds by import strings is imported before the fork too
import simulators.builders
import simulators.twin  # noqa: F401
from devices import beam, clock, conditions, detector, goniometer, monochromator, objective  # noqa: F401
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.records import read_frame, read_journal, recover
from dfxrm_control.session import Session

FILES = ("frames.py", "journal.py", "recorder.py", "master.py", "recover.py", "detector.py", "_events.py")
SCAN = {"rock_num": 4, "rock_range": 0.1, "roll_num": 3, "roll_range": 0.1, "exposure_s": 0.05, "darks_before": 2}


def watched(kill, counts):
    """Return a trace function that counts executed lines, and kills where it should."""

    by_path = {}

    def line(frame, event, _):
        if event == "line":
            name = by_path[frame.f_code.co_filename]
            counts[name] += 1
            if kill == [name, counts[name]]:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame, event, _):
        path = frame.f_code.co_filename
        if path not in by_path:
            by_path[path] = Path(path).name if Path(path).name in FILES else None
        return line if by_path[path] else None

    return call


def checksum(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def scan(config, told):
    with Session(MicroscopeConfig.model_validate(config), maps=False, quiet=True) as session:
        names = {}

        def tell(name, doc):
            if name == "descriptor":
                names[doc["uid"]] = doc["name"]
            if name == "event" and names[doc["descriptor"]] in ("primary", "darks_before"):
                os.write(told, f"{names[doc['descriptor']]} {doc['seq_num']}\n".encode())

        session.RE.subscribe(tell)
        session.run("mosaicity_scan", SCAN)
        run = read_journal(session.recorder.journal)
    for name in ("primary", "darks_before"):
        for number, ref in run.streams[name].frames["far_field"].items():
            os.write(told, f"{name} {number} {checksum(read_frame(ref.file.path, ref.index_in_file))}\n".encode())


def do(job, told):
    counts = Counter()
    kill = job["kill"]
    if kill is not None and kill[0] == "time":
        threading.Thread(
            target=lambda: (time.sleep(kill[1]), os.kill(os.getpid(), signal.SIGKILL)), daemon=True
        ).start()
    else:
        trace = watched(kill, counts)
        threading.settrace(trace)
        sys.settrace(trace)
    if "recover" in job:
        recover(Path(job["recover"]), Path(job["out"]))
    else:
        scan(job["config"], told)
    sys.settrace(None)
    threading.settrace(None)
    os.write(told, b"counts " + json.dumps(counts).encode() + b"\n")


def main():
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                do(job, writing)
            except BaseException as error:
                os.write(writing, f"error {type(error).__name__}: {error}\n".encode())
                os._exit(1)
            os._exit(0)
        os.close(writing)
        said = b""
        while more := os.read(reading, 65536):
            said += more
        os.close(reading)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "told": said.decode().splitlines()}), flush=True)


if __name__ == "__main__":
    main()
