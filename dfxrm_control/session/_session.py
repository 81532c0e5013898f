"""The session: one microscope, connected, with a RunEngine whose runs are recorded."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bluesky.plan_stubs as bps
import h5py
from bluesky import RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted
from numpy.typing import NDArray

from dfxrm_control.alignment import Found
from dfxrm_control.catalogue import place_of
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import DeviceError, DfxrmError, LimitError, ParameterError, RecordError, RunError
from dfxrm_control.import_strings import resolve
from dfxrm_control.logbook import Logbook, typed
from dfxrm_control.parameters import PLAN_PARAMETERS
from dfxrm_control.records import Recorder, read_frame, read_journal
from dfxrm_control.session._arm import ZERO, restore_arm, store_file
from dfxrm_control.session._cataloguing import Cataloguing
from dfxrm_control.session._devices import DeviceFault, build_backend, build_devices
from dfxrm_control.session._disk import check_disk
from dfxrm_control.session._ending import undisturbed
from dfxrm_control.session._findings import Findings
from dfxrm_control.session._holding import Holding
from dfxrm_control.session._live_maps import LiveMaps, reduce_series
from dfxrm_control.session._plans import bind_plans
from dfxrm_control.session._progress import ScanProgress, best_effort
from dfxrm_control.session._runs import KeptRun, RunLog
from dfxrm_control.session._store import SessionStore

__all__ = ["Outcome", "RunOutcome", "Session"]

MAPS_TIMEOUT_S = 600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOutcome:
    """What one run left behind.

    Attributes
    ----------
    scan_id : int
        Number of the scan.
    status : str
        ``success``, ``abort`` or ``fail``.
    folder : Path
        Folder of the run.
    master : Path
        HDF5 master.
    maps, picture : Path or None
        HDF5 file and picture of the maps, where there are any.
    maps_fault : str or None
        Why there are no maps, where there should be.
    notes : tuple of str
        What the maps were made with, and what is wrong with them.
    """

    scan_id: int
    status: str
    folder: Path
    master: Path
    maps: Path | None = None
    picture: Path | None = None
    maps_fault: str | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what a user wants to know, one line each."""
        lines = [f"scan {self.scan_id}: {self.status}", f"HDF5:    {self.master}"]
        if self.maps is not None:
            lines.append(f"maps:    {self.maps}")
        if self.picture is not None:
            lines.append(f"picture: {self.picture}")
        lines += [f"note:    {note}" for note in self.notes]
        if self.maps_fault is not None:
            lines.append(self.maps_fault)
        return lines


@dataclass(frozen=True)
class Outcome:
    """What a plan left behind: one run, or several.

    Attributes
    ----------
    runs : tuple of RunOutcome
        Every run, in order of their start; at least one.
    series : Path or None
        Folder of what was made of all of them together, where they are a series.
    products : tuple of Path
        Files in it.
    series_fault : str or None
        Why there are no products, where there should be.
    findings : tuple of Found
        What the plan returned of what it found, where it is one that aligns; empty for all others.
    """

    runs: tuple[RunOutcome, ...]
    series: Path | None = None
    products: tuple[Path, ...] = ()
    series_fault: str | None = None
    findings: tuple[Found, ...] = ()

    @property
    def scan_id(self) -> int:
        """Number of the last scan."""
        return self.runs[-1].scan_id

    @property
    def status(self) -> str:
        """``success`` when every run ended well, else how the first other one ended."""
        return next((run.status for run in self.runs if run.status != "success"), "success")

    @property
    def folder(self) -> Path:
        """Folder of the last run."""
        return self.runs[-1].folder

    @property
    def master(self) -> Path:
        """HDF5 master of the last run."""
        return self.runs[-1].master

    @property
    def maps(self) -> Path | None:
        """HDF5 file of the maps of the last run, where there is one."""
        return self.runs[-1].maps

    @property
    def picture(self) -> Path | None:
        """The first picture of the series, else that of the last run, where there is one."""
        return next((path for path in self.products if path.suffix == ".png"), self.runs[-1].picture)

    @property
    def maps_fault(self) -> str | None:
        """Why something was not reduced, the series before its runs; None when all was."""
        faults = [self.series_fault, *(run.maps_fault for run in self.runs)]
        return next((fault for fault in faults if fault is not None), None)

    @property
    def doubt(self) -> str | None:
        """Why nothing was moved by a plan that is one step of an alignment; None when it was sure, and for all others.

        A whole alignment ends by itself where a step that it needs is not sure.
        """
        unsure = [found for found in self.findings if not found.sure]
        return unsure[0].line() if len(self.findings) == 1 and unsure else None

    def lines(self) -> list[str]:
        """Return what a user wants to know, one line each."""
        if len(self.runs) == 1:
            lines = self.runs[0].lines()
        else:
            lines = [f"scan {run.scan_id}: {run.status}  {run.master}" for run in self.runs]
            lines += [f"scan {run.scan_id}: {run.maps_fault}" for run in self.runs if run.maps_fault is not None]
        if self.series is not None:
            lines.append(f"series:  {len(self.runs)} runs, {self.series}")
        lines += [f"product: {path}" for path in self.products]
        # a report in words is for reading now
        lines += [line for path in self.products if path.suffix == ".txt" for line in _text_of(path)]
        if self.series_fault is not None:
            lines.append(self.series_fault)
        return lines


class Session:
    """One microscope, connected.

    What IPython, the command line and a queue share: devices and axes by logical name, a RunEngine whose runs are
    recorded (journal first) and numbered, the plans of the configuration with the devices filled in, and maps made
    while a scan runs. A device that fails is reported with the plans that will not work, and the session goes on.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    maps : bool
        Whether maps are made during and after scans, by a process of their own.
    quiet : bool
        No table and no progress bar.

    Attributes
    ----------
    config : MicroscopeConfig
        As given.
    backend : Backend or None
        What stands behind the in-memory axes.
    devices, axes, channels, cameras : dict
        By logical name.
    faults : list of DeviceFault
        Devices that are not available.
    RE : RunEngine
        Stock plans and a user's own run in it like ours, and get the full record.
    plans : dict
        Plan by name; each takes keywords only.
    logbook : Logbook
        The log of this microscope.
    store : SessionStore
        Scan numbers, named positions and the declared arm.
    arm : DeclaredArm or None
        What was last declared of the arm, in this session or an earlier one of the same configuration.

    Raises
    ------
    ConfigError
        When the backend or a plan cannot be found.
    RecordError
        When the journal folder cannot be used.
    HeldError
        When another process has a session on this microscope.
    """

    def __init__(self, config: MicroscopeConfig, *, maps: bool = True, quiet: bool = False) -> None:
        self.config = config
        # the RunEngine logs the traceback of every error that it also raises; who runs a plan is told once
        logging.getLogger("bluesky").addHandler(logging.NullHandler())
        check_disk(config.data)
        self._holding = Holding(config)
        self.logbook = Logbook(config)
        try:
            self._open(config, maps, quiet)
        except BaseException:
            self._let_go()
            raise
        self.logbook.say(f"a session begins: {typed()}")
        for fault in self.faults:
            self.logbook.say(str(fault))

    def _open(self, config: MicroscopeConfig, maps: bool, quiet: bool) -> None:
        self.store = SessionStore(store_file(config))
        self.backend = build_backend(config)
        built = build_devices(config, self.backend)
        self.devices, self.axes, self.channels, self.cameras = built.devices, built.axes, built.channels, built.cameras
        self.faults: list[DeviceFault] = built.faults
        self.arm = self.store.declared_arm(config.name)
        restore_arm(self.channels, self.arm, self._keep_arm)
        self.recorder = Recorder(config.data.directory, config.data.journal_directory)
        for camera in self.cameras.values():
            camera.destination = self.recorder.frames_directory
        self.RE = RunEngine(
            scan_id_source=self._next_scan_id, md_normalizer=self._describe_run, call_returns_result=True
        )
        self.RE.record_interruptions = True
        self.RE.state_hook = self._after_a_halt  # type: ignore[assignment]  # bluesky declares it as None
        # moves that a plan begins together take as long as the longest of them, also on a clock that jumps
        self.RE.waiting_hook = lambda statuses: None if statuses is None else built.clock.hurry()  # type: ignore
        self.RE.msg_hook = self.logbook.message  # type: ignore[assignment]  # bluesky declares it as None
        # first, so that a document is on disk before anything else sees it
        self.RE.subscribe(self.recorder)
        self.RE.subscribe(best_effort(self.logbook.document))
        self._log_of_runs = RunLog(lambda: (self.recorder.folder, self.recorder.master, self.recorder.journal))
        self.RE.subscribe(self._log_of_runs)
        self.live_maps = LiveMaps(lambda: self.recorder.journal) if maps else None
        if self.live_maps is not None:
            self.RE.subscribe(best_effort(self.live_maps))
        catalogue = place_of(config)
        if catalogue is not None:
            self.RE.subscribe(best_effort(Cataloguing(catalogue, config.data)))
        if not quiet:
            self.RE.subscribe(best_effort(ScanProgress()))
            self.RE.subscribe(best_effort(Findings()))
        self.instrument, self.plans = bind_plans(config, built)
        if self.instrument is not None:
            for import_string in config.session.preprocessors:
                make = resolve(import_string, f"configuration {config.name}: session.preprocessors")
                self.RE.preprocessors.append(make(self.instrument))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the microscope safe, nothing running and the shutter closed, and give it back."""
        try:
            self._abort("the session ends")
            self._close_shutter()
        finally:
            self.logbook.say("the session ends")
            self._let_go()

    def _let_go(self) -> None:
        self.logbook.close()
        self._holding.give_back()

    def _abort(self, reason: str) -> None:
        """End the run that is open, if any, with all its clean-up; further Ctrl-C does not cut that short."""
        with undisturbed():
            if self.RE.state not in ("idle", "panicked"):
                self.RE.abort(reason=reason)

    def _close_shutter(self) -> None:
        shutter = self.channels.get("shutter")
        if shutter is not None:
            shutter.set("closed")

    def _after_a_halt(self, state: str, before: str) -> None:
        """Close the shutter when the RunEngine ends a plan without its clean-up; called on each change of its state."""
        if before == "halting" or state == "panicked":
            try:
                self._close_shutter()
            except Exception:
                _log.exception("the plan was halted, and the shutter could not be closed")

    def run(self, plan: str, parameters: Mapping[str, Any], md: Mapping[str, Any] | None = None) -> Outcome:
        """Run a plan of the configuration from start to map.

        Parameters
        ----------
        plan : str
            Name of the plan.
        parameters : mapping
            Its parameters; those the configuration gives for the plan stand where these say nothing.
        md : mapping, optional
            Metadata for the start document.

        Raises
        ------
        ParameterError, LimitError
            When there is no such plan or a parameter or position is not valid; no run was begun then.
        RecordError
            When the record could not be written; nothing has moved then.
        RunError
            When the run began and did not end well; the sentence says why and where the record is.
        """
        if plan not in self.plans:
            missing = [fault for fault in self.faults if plan in fault.plans]
            reason = f": {missing[0]}" if missing else f"; there are {', '.join(self.plans) or 'none'}"
            raise ParameterError(f"plan {plan!r} is not available{reason}")
        if plan in PLAN_PARAMETERS:
            PLAN_PARAMETERS[plan].check({**self.config.scan.parameters.get(plan, {}), **parameters})
        check_disk(self.config.data)
        return self.execute(self.plans[plan](**parameters, md=dict(md or {})))

    def execute(self, plan: Any) -> Outcome:
        """Run any plan in the RunEngine and say what it left behind; after Ctrl-C it is ended safely.

        Raises
        ------
        ParameterError, LimitError
            When the plan refuses what it was asked, before it began a run.
        RunError
            When it fails or is aborted.
        """
        self._log_of_runs.clear()
        if self.live_maps is not None:
            self.live_maps.forget()
        try:
            ended = self.RE(plan)
        except RunEngineInterrupted:
            self._abort("interrupted from the keyboard")
            raise RunError(f"interrupted: {self._what_is_kept()}") from None
        except Exception as error:
            refused = next((each for each in causes(error) if isinstance(each, DfxrmError)), None)
            if not self._log_of_runs.runs and isinstance(refused, ParameterError | LimitError):
                raise refused from None
            raise RunError(f"{reason_of(error)}; {self._what_is_kept()}") from error
        if not self._log_of_runs.runs:
            raise RunError("the plan ended without a run, so there is no record of it")
        return replace(self._outcome(), findings=_findings(getattr(ended, "plan_result", None)))

    def _outcome(self) -> Outcome:
        """Wait for the maps of the runs of the last plan, reduce what is a series, and say what there is."""
        if self.live_maps is None:
            return Outcome(tuple(_run_outcome(run, None) for run in self._log_of_runs.runs))
        faults = self.live_maps.wait(MAPS_TIMEOUT_S)
        runs = tuple(_run_outcome(run, faults.get(run.journal)) for run in self._log_of_runs.runs)
        members = [run for run in self._log_of_runs.runs if run.series]
        if not members:
            return Outcome(runs)
        last = members[-1]
        products, fault = reduce_series(last.folder, last.journal.with_suffix(".series.log"), MAPS_TIMEOUT_S)
        return Outcome(runs, products[0].parent if products else None, tuple(products), fault)

    def move(self, targets: Iterable[tuple[Any, float]]) -> None:
        """Move axes together and wait until all have arrived; Ctrl-C stops them.

        Raises
        ------
        LimitError, DeviceError
            When a position is not allowed or an axis does not get there.
        RunError
            After Ctrl-C.
        """
        try:
            self.RE(bps.mv(*(part for target in targets for part in target)))
        except RunEngineInterrupted:
            self._abort("interrupted from the keyboard")
            raise RunError("the move was interrupted, and the axes were stopped where they are") from None
        except FailedStatus as error:
            raise DeviceError(reason_of(error)) from error

    def clear_arm(self) -> None:
        """Let the arm count as an ideal one again, and forget what was declared of it; nothing moves."""
        zero = self.channels.get(ZERO)
        if zero is not None:
            zero.restore(0.0, {})
        self.store.forget_arm(self.config.name)
        self.arm = None

    def _keep_arm(self, two_theta_deg: float, offsets: Mapping[str, float]) -> None:
        self.store.declare_arm(self.config.name, two_theta_deg, offsets)
        self.arm = self.store.declared_arm(self.config.name)

    def real_axes(self) -> dict[str, Any]:
        """Return the axes that are motors, by logical name: those that are computed from others are left out."""
        return {name: axis for name, axis in self.axes.items() if not hasattr(axis, "real_axes")}

    def last_frame(self, camera: str) -> NDArray:
        """Return the last accepted frame of a camera in the last run, shape (rows, columns), ADU.

        Raises
        ------
        RecordError
            When there is none.
        """
        journal = self.recorder.journal
        accepted = read_journal(journal).primary.frames.get(camera, {}) if journal is not None else {}
        if not accepted:
            raise RecordError(f"the last run has no frame of camera {camera}")
        frame = accepted[max(accepted)]
        return read_frame(frame.file.path, frame.index_in_file, frame.file.dataset)

    def _what_is_kept(self) -> str:
        runs = self._log_of_runs.runs
        if not runs:
            return "no run was begun, so nothing was written"
        kept = f"what was taken until then is in {runs[-1].master}"
        if self._log_of_runs.progress:
            kept += f"; {self._log_of_runs.progress}, "
            kept += (
                f"and `dfxrm series {runs[-1].folder}` reduces them"
                if self._log_of_runs.reducible
                else "too few to reduce"
            )
        return kept

    def _next_scan_id(self, md: Mapping[str, Any]) -> int:
        """Return a number that no run of this journal folder and no folder of this sample has."""
        sample = str(md.get("sample") or self.config.sample.name)
        taken = [0]
        for folder in Path(self.config.data.directory, sample).glob(f"{sample}_*"):
            found = re.fullmatch(r"\d+", folder.name.removeprefix(f"{sample}_"))
            if found is not None:
                taken.append(int(found[0]))
        return self.store.next_scan_id(after=max(taken))

    def _describe_run(self, md: Mapping[str, Any]) -> dict[str, Any]:
        """Add to a run's metadata what makes it readable without the configuration; the plan's word goes first."""
        ours = {
            "schema": 1,
            "version": _version(),
            "config": self.config.name,
            "instrument": self.config.instrument.model_dump(mode="json"),
            "sample": self.config.sample.model_dump(mode="json"),
        }
        beamtime = self.store.beamtime(self.config.name)
        whose = {} if beamtime is None else {"proposal": beamtime.proposal, "people": list(beamtime.people)}
        return {"sample": self.config.sample.name, **whose, **md, "dfxrm": {**ours, **md.get("dfxrm", {})}}


def _run_outcome(run: KeptRun, fault: str | None) -> RunOutcome:
    maps, pictures = sorted((run.folder / "maps").glob("*.h5")), sorted((run.folder / "maps").glob("*.png"))
    # every kind of scan has pictures of its own, and these two beside them
    shown = [picture for picture in pictures if not picture.stem.endswith(("_orientations", "_histograms"))]
    return RunOutcome(
        scan_id=run.scan_id,
        status=run.status,
        folder=run.folder,
        master=run.master,
        maps=maps[0] if maps else None,
        picture=shown[0] if shown else None,
        maps_fault=fault,
        notes=_notes_of(maps[0]) if maps else (),
    )


def _notes_of(maps: Path) -> tuple[str, ...]:
    """Return the notes of a file of maps; none where it cannot be read, since the run is not the worse for it."""
    try:
        with h5py.File(maps, "r") as file:
            return tuple(str(note) for note in file["entry/process/notes"].asstr()[()] if note)
    except (OSError, KeyError, TypeError, ValueError):
        return ()


def _findings(result: Any) -> tuple[Found, ...]:
    """Return what a plan found, where it returns one finding or several."""
    several = result if isinstance(result, list | tuple) else [result]
    return tuple(each for each in several if isinstance(each, Found))


def _text_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror or error}"]


def _version() -> str:
    try:
        return importlib.metadata.version("dfxrm-control")
    except importlib.metadata.PackageNotFoundError:
        return "run from the sources, not installed"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, outermost first; the error inside a failed status counts."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inside = [part.exception(timeout=0) for part in each.args if hasattr(part, "exception") and part.done]
        waiting += [each.__cause__, *inside, each.__context__]


def reason_of(error: BaseException) -> str:
    """Return the sentence meant for users in a chain of errors, or what the outermost one says."""
    for each in causes(error):
        if isinstance(each, DfxrmError):
            return str(each)
    kind = type(error).__name__
    return f"{kind}: {error}" if str(error) else kind
