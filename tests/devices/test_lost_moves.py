"""Two thousand points with motors that arrive at once, and what happens to them in ophyd's own order of callbacks."""

import subprocess
import sys
from pathlib import Path

import bluesky.plans as bp
import pytest

POINTS = (40, 50)

# one listener more on each move, which takes a millisecond, makes certain what otherwise happens every other time
SCRIPT = """
import os, sys, threading, time
sys.path.insert(0, {here!r})
import bluesky.plans as bp
from bluesky import RunEngine
from ophyd.positioner import PositionerBase
from devices import MemoryAxis
from dfxrm_control.config import AxisConfig
from fake_backend import backend_for, configuration

class Listened(MemoryAxis):
    def _begin(self, motion):
        self.subscribe(lambda **_: time.sleep(0.001), event_type=self._SUB_REQ_DONE, run=False)
        super()._begin(motion)

class OphydOrder(Listened):
    def _done_moving(self, success=True, motion=None, error=None, **kwargs):
        self._motion = None
        PositionerBase._done_moving(self, success=success)

points = []

def watch():
    seen = -1
    while len(points) != seen:
        seen = len(points)
        time.sleep(5)
    print("hangs at", seen, flush=True)
    os._exit(0)

backend = backend_for(configuration())
axes = [{cls}(name=name, config=AxisConfig(limits=(-1.0, 1.0)), backend=backend) for name in ("chi", "phi")]
RE = RunEngine({{}}, call_returns_result=False)
threading.Thread(target=watch, daemon=True).start()
RE(
    bp.grid_scan([], axes[0], -1, 1, {slow}, axes[1], -1, 1, {fast}, snake_axes=True),
    lambda name, doc: points.append(doc["seq_num"]) if name == "event" else None,
)
print("passes with", len(points), flush=True)
"""


def scan_2000(microscope, run_engine):
    points = []
    run_engine(
        bp.grid_scan([], microscope.goniometer.chi, -1, 1, POINTS[0], microscope.goniometer.phi, -1, 1, POINTS[1]),
        {"event": lambda name, doc: points.append((doc["data"]["chi"], doc["data"]["phi"]))},
    )
    assert len(points) == len(set(points)) == 2000


def test_two_thousand_points_with_instant_motors(microscope, run_engine):
    scan_2000(microscope, run_engine)


@pytest.mark.slow
@pytest.mark.parametrize("time", range(9))
def test_two_thousand_points_again_and_again(microscope, run_engine, time):
    scan_2000(microscope, run_engine)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "outcome"), [("Listened", "passes with 2000"), ("OphydOrder", "hangs at ")])
def test_the_same_scan_hangs_in_ophyds_own_order(cls, outcome):
    script = SCRIPT.format(here=str(Path(__file__).parent), cls=cls, slow=POINTS[0], fast=POINTS[1])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith(outcome)
