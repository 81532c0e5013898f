"""Takes the same scans on whatever configuration it is given: ``python take_scans.py CONFIG MAP FOLDER``.

Goes to a grain of a coarse map and scans it, then scans that grain by mosaicity, strain and weak beam. Writes into
FOLDER what must be the same everywhere: ``frames.npz`` and ``maps.npz`` by run and file, ``descriptors.json``,
``events.json`` and ``kinds.json``.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np

from dfxrm_control.config import find_config, override
from dfxrm_control.records import read_journal
from dfxrm_control.reduction import maps_from_file
from dfxrm_control.reduction.series import read_series, reduce_series
from dfxrm_control.session import Session

HANDOFF = {
    "grain": 60,
    "hkl": "0 0 2",
    "search_exposure_s": 0.008,
    "scan": "rocking_scan",
    "scan_parameters": {"rock_num": 5, "rock_range": 0.05, "exposure_s": 0.004, "darks_before": 2},
}
TILTS = {"rock_num": 7, "rock_range": 0.05, "roll_num": 3, "roll_range": 0.04}
STRAIN = {"rock_num": 5, "rock_range": 0.05, "two_theta_num": 3, "two_theta_range": 0.02}
SCANS = {"mosaicity_scan": TILTS, "strain_scan": STRAIN, "weak_beam_scan": {"k": [2], "frames": 2}}

WAY = ("obx", "obz", "obpitch", "ffz", "mainx", "mu", "chi", "phi", "samx", "samy", "samz")


def numbers_of(path):
    """Return every numeric data set of a file of maps."""
    found = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub":
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(take)
    return found


class Taken:
    """What the runs of a session left, by the number of the run."""

    def __init__(self, session):
        self.session = session
        self.frames, self.maps = {}, {}
        self.documents = []
        session.RE.subscribe(lambda name, doc: self.documents.append((name, doc)))

    def run(self, plan, parameters):
        began = time.monotonic()
        outcome = self.session.run(plan, parameters)
        for number, run in enumerate(outcome.runs):
            for part in read_journal(next(run.folder.glob("*.jsonl"))).files:
                with h5py.File(part.path) as file:
                    self.frames[f"{plan} {number} {part.path.name}"] = file[part.dataset][()]
            if plan in ("mosaicity_scan", "strain_scan"):
                maps = maps_from_file(run.master)
                self.maps |= {f"{plan} {name}": part.values for name, part in maps.components.items()}
                self.maps |= {
                    f"{plan} {axis.name} {kind}": getattr(axis, kind) for axis in maps.axes for kind in ("com", "fwhm")
                }
        if len(outcome.runs) > 1:
            for product in reduce_series(read_series(outcome.folder)):
                if product.suffix == ".h5":
                    self.maps |= {f"{plan} {name}": values for name, values in numbers_of(product).items()}
        print(f"{plan}: {time.monotonic() - began:.1f} s", flush=True)
        return outcome

    def descriptors(self):
        """Return each descriptor without what is of one run: times, identifiers, and where a value came from."""
        told = []
        for name, doc in self.documents:
            if name == "descriptor":
                keys = {
                    key: {k: v for k, v in about.items() if k != "source"} for key, about in doc["data_keys"].items()
                }
                settings = {
                    device: {
                        key: {k: v for k, v in about.items() if k != "source"}
                        for key, about in part["data_keys"].items()
                    }
                    for device, part in doc["configuration"].items()
                }
                told.append([doc["name"], keys, doc["hints"], doc["object_keys"], settings])
        return told

    def events(self):
        return [doc["data"] for name, doc in self.documents if name == "event"]

    def kinds(self):
        """Return the kind of every part; how a control system itself is asked (omitted) is its own affair."""
        kinds = {}
        for name, device in self.session.devices.items():
            for attr in device.component_names:
                part = getattr(device, attr)
                kinds[f"{name}.{attr}"] = str(part.kind)
                below = part.walk_signals() if hasattr(part, "walk_signals") else ()
                kinds |= {f"{name}.{attr}.{each.dotted_name}": str(each.item.kind) for each in below if each.item.kind}
        return kinds


def main(config, map_file, folder):
    warnings.simplefilter("ignore")
    folder = Path(folder)
    settings = [
        f"data.directory={folder / 'data'}",
        f"data.journal_directory={folder / 'journal'}",
        "data.minimum_free_gb=0.01",
    ]
    began = time.monotonic()
    with Session(override(find_config(config), settings), maps=False, quiet=True) as session:
        assert not session.faults, session.faults
        print(f"connected in {time.monotonic() - began:.1f} s", flush=True)
        taken = Taken(session)
        outcome = taken.run("dct_to_dfxrm", {"map": map_file, **HANDOFF})
        report = read_series(outcome.folder).runs[-1].series
        there = {**report["predicted"], **report["found"]["positions"]}
        session.move([(session.axes[axis], there[axis]) for axis in WAY])
        for plan, parameters in SCANS.items():
            taken.run(plan, {"darks_before": 2, "exposure_s": 0.004, **parameters})
        np.savez(folder / "frames.npz", **taken.frames)
        np.savez(folder / "maps.npz", **taken.maps)
        for name in ("descriptors", "events", "kinds"):
            (folder / f"{name}.json").write_text(json.dumps(getattr(taken, name)()))


if __name__ == "__main__":
    main(*sys.argv[1:])
