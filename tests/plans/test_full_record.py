"""Stock plans and a user's own, on the devices of the simulated microscope, with the full record."""

import asyncio
import functools
import threading

import h5py
import pytest
from bluesky import Msg
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus, RunEngineInterrupted
from event_model import DocumentNames, schema_validators

from devices import Fault
from dfxrm_control.config import find_config, override
from dfxrm_control.errors import DfxrmError
from dfxrm_control.records import read_frame, read_journal
from dfxrm_control.session import Session

pytestmark = pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")
SETTINGS = ["scan.darks=2", "instrument.cameras.far_field.rows=32", "instrument.cameras.far_field.columns=32"]
WINDOW = {"exposure_s": 0.01, "rock_range": 0.3, "rock_num": 4, "roll_range": 0.6, "roll_num": 3}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    settings = [*SETTINGS, f"data.directory={folder / 'data'}", f"data.journal_directory={folder / 'journal'}"]
    with Session(override(find_config("simulated"), settings), maps=False, quiet=True) as session:
        session.RE.subscribe(lambda name, doc: schema_validators[DocumentNames[name]].validate(doc))
        yield session


def users_own(detector, chi):
    """What a user might write: no metadata, no stock plan."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md={})
    def inner():
        for target in (0.0, 0.02):
            yield from bps.mv(chi, target)
            yield from bps.trigger_and_read([detector, chi])

    return inner()


STOCK = {
    "count": lambda s: bp.count([s.cameras["far_field"]], num=3),
    "scan": lambda s: bp.scan([s.cameras["far_field"]], s.axes["chi"], -0.1, 0.1, 3),
    "rel_scan": lambda s: bp.rel_scan([s.cameras["far_field"]], s.axes["phi"], -0.1, 0.1, 3),
    "grid_scan": lambda s: bp.grid_scan(
        [s.cameras["far_field"]], s.axes["chi"], -0.1, 0.1, 2, s.axes["phi"], -0.1, 0.1, 3, snake_axes=True
    ),
    "list_scan": lambda s: bp.list_scan([s.cameras["far_field"]], s.axes["chi"], [0.0, 0.03, 0.01]),
    "with_monitor": lambda s: bp.count([s.cameras["far_field"], s.channels["monitor"]], num=3),
    # the beam brings monitor and ring current of its own
    "with_beam": lambda s: bp.count([s.cameras["far_field"], s.devices["beam"]], num=3),
    "users_own": lambda s: users_own(s.cameras["far_field"], s.axes["chi"]),
}


@pytest.mark.parametrize("name", STOCK)
def test_any_plan_gets_the_full_record(session, name):
    moved = {"scan": {"chi"}, "rel_scan": {"phi"}, "grid_scan": {"chi", "phi"}, "list_scan": {"chi"}}.get(name, set())
    session.RE(STOCK[name](session))
    run = read_journal(session.recorder.journal)
    points = {"grid_scan": 6, "users_own": 2}.get(name, 3)
    assert len(run.primary) == points == len(run.primary.frames["far_field"])
    assert (run.primary.column("monitor") >= 0).all() and (run.primary.column("ring_current") > 0).all()
    baseline = run.streams["baseline"].events
    assert len(baseline) == 2
    for event in baseline.values():
        for axis in session.axes:
            assert (axis in event["data"]) is (axis not in moved)
        assert event["data"]["shutter"] == "closed"  # stock plans open nothing
    assert run.dfxrm["instrument"]["cameras"]["far_field"]["rows"] == 32
    with h5py.File(session.recorder.master) as master:
        assert master["1.1/measurement/far_field"].shape == (points, 32, 32)


def test_what_a_users_plan_reads_at_each_point_is_in_the_master_though_it_names_no_motor(session):
    session.RE(users_own(session.cameras["far_field"], session.axes["chi"]))
    with h5py.File(session.recorder.master) as master:
        scan = master["1.1"]
        assert scan["instrument/chi/value"][()].tolist() == [0.0, 0.02]
        assert scan["instrument/positioners/chi"].shape == (2,)
        assert scan["title"].asstr()[()].startswith("fscan chi 0 0.02 2 ")


def test_per_event_signals_are_not_added_where_no_frame_is_taken(session):
    session.RE(bp.count([session.axes["chi"]], num=2))
    run = read_journal(session.recorder.journal)
    assert set(run.primary.data_keys) == {"chi", "chi_setpoint"}


def test_a_run_inside_another_keeps_its_own_frames_and_baseline(session):
    camera, chi, phi = session.cameras["far_field"], session.axes["chi"], session.axes["phi"]
    journals = []

    def within(axis, *inside):
        yield from bps.open_run(md={"motors": [axis.name]})
        journals.append(session.recorder.journal)
        for target, more in ((0.01, inside), (0.02, ())):
            yield from bps.mv(axis, target)
            yield from bps.trigger_and_read([camera, axis])
            for plan in more:
                yield from plan
        yield from bps.close_run()

    inner = bpp.set_run_key_wrapper(within(phi), "inner")
    outer = bpp.set_run_key_wrapper(within(chi, inner), "outer")
    session.RE(bpp.stage_wrapper(outer, [camera]))

    for journal, scanned, other in zip(journals, ("chi", "phi"), ("phi", "chi"), strict=True):
        run = read_journal(journal)
        assert run.end_status == "success"
        refs = run.primary.frames["far_field"]
        assert [refs[number].index for number in (1, 2)] == [0, 1]
        assert {ref.file.path.parent.parent.name for ref in refs.values()} == {
            f"{run.sample_name}_{run.scan_number:05d}"
        }
        for ref in refs.values():
            assert read_frame(ref.file.path, ref.index_in_file).any()
        baseline = run.streams["baseline"].events
        assert len(baseline) == 2
        assert all(other in event["data"] and scanned not in event["data"] for event in baseline.values())


def test_our_scan_is_the_same_with_and_without_the_preprocessor(session):
    def keys_of():
        session.RE(session.plans["mosaicity_scan"](**WINDOW))
        run = read_journal(session.recorder.journal)
        return {name: set(stream.data_keys) for name, stream in run.streams.items() if name != "baseline"}

    preprocessors, session.RE.preprocessors = session.RE.preprocessors, []
    try:
        bare = keys_of()
    finally:
        session.RE.preprocessors = preprocessors
    assert keys_of() == bare
    assert bare["primary"] == {"chi", "chi_setpoint", "phi", "phi_setpoint", "monitor", "ring_current", "far_field"}


def pause_first(message):
    yield Msg("pause")
    return (yield message)


def pause_before(target):
    """Return a preprocessor that pauses before message ``target``, and the list of the commands it saw."""
    commands: list[str] = []
    known: list[Msg] = []  # what pause_first gives comes by here again

    def process(plan):
        def at(message):
            if any(message is seen for seen in known):
                return None, None
            known.append(message)
            commands.append(f"{message.command} {message.kwargs.get('name', '')}".strip())
            if len(commands) - 1 != target:
                return None, None
            return pause_first(message), None

        return bpp.plan_mutator(plan, at)

    return process, commands


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mosaicity_scan", "grid_scan"])
def test_a_pause_at_every_message_of_a_point_on_real_devices(session, name):
    def plan():
        return session.plans[name](**WINDOW) if name == "mosaicity_scan" else STOCK[name](session)

    ours = session.RE.preprocessors[:]
    try:
        process, commands = pause_before(-1)
        session.RE.preprocessors[:] = [*ours, process]
        session.RE(plan())
        points = 12 if name == "mosaicity_scan" else 6
        # one whole point and what stands between it and the next
        creates = [number for number, command in enumerate(commands) if command == "create primary"]
        assert len(creates) == points
        span = range(creates[3] + 1, creates[4] + 2)
        assert {"trigger", "read", "save", "checkpoint", "set"} <= set(commands[span.start : span.stop])
        for target in span:
            process, _ = pause_before(target)
            session.RE.preprocessors[:] = [*ours, process]
            with pytest.raises(RunEngineInterrupted):
                session.RE(plan())
            assert session.channels["shutter"].get() == "closed"
            assert session.RE.resume().exit_status == "success"
            run = read_journal(session.recorder.journal)
            assert len(run.primary.events) == points == len(run.primary.frames["far_field"]), commands[target]
            frames = [(frame.file.path, frame.index) for frame in run.primary.frames["far_field"].values()]
            assert len(set(frames)) == points
            where = [file.path for file in run.files]
            assert where and all(path.exists() for path in where)
            count = 0
            for path in set(where):
                with h5py.File(path) as frame_file:
                    count += len(frame_file["/entry/data/data"])
            darks = sum(len(run.streams[s].frames["far_field"]) for s in run.streams if s.startswith("darks"))
            assert count - points - darks in (0, 1)  # the orphan, if the frame had been taken already
            assert not run.primary.replaced
    finally:
        session.RE.preprocessors[:] = ours


def test_the_peak_is_where_the_sample_is(session):
    """Rocked about the position the sample is met at, the frames' total peaks inside the window."""
    session.RE(session.plans["rocking_scan"](exposure_s=0.05, rock_range=0.4, rock_num=21))
    run = read_journal(session.recorder.journal)
    totals = []
    for number in sorted(run.primary.frames["far_field"]):
        frame = run.primary.frames["far_field"][number]
        with h5py.File(frame.file.path) as frame_file:
            totals.append(float(frame_file["/entry/data/data"][frame.index_in_file].sum()))
    totals = [total - min(totals) for total in totals]
    phi = run.primary.column("phi")
    centre = sum(t * p for t, p in zip(totals, phi, strict=True)) / sum(totals)
    assert abs(centre) < 0.06
    assert max(totals[0], totals[-1]) < 0.2 * max(totals)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("disconnected"), "axis phi (memory:phi) is disconnected"),
        (Fault("short", 0.05), "axis phi was sent to"),
        (Fault("fault", text="amplifier too hot"), "amplifier too hot"),
    ],
)
def test_an_axis_that_fails_in_mid_scan_leaves_a_safe_and_readable_record(session, fault, sentence):
    phi, chi = session.axes["phi"], session.axes["chi"]
    where, events = chi.position, []

    def inject(name, doc):
        events.append(name)
        if events.count("event") == 8:
            phi.inject(fault)

    token = session.RE.subscribe(inject)
    try:
        with pytest.raises((FailedStatus, DfxrmError)) as caught:
            session.RE(session.plans["mosaicity_scan"](**WINDOW))
    finally:
        session.RE.unsubscribe(token)
        phi.inject(None)
    error = caught.value
    told = str(error.args[0].exception()) if isinstance(error, FailedStatus) else str(error)
    assert sentence in told
    assert session.channels["shutter"].get() == "closed"
    assert chi.position == pytest.approx(where, abs=1e-5)
    run = read_journal(session.recorder.journal)
    assert run.end_status == "fail" and sentence in run.stop["reason"]
    assert 0 < len(run.primary) < 12
    session.RE(session.plans["mosaicity_scan"](**WINDOW))
    assert len(read_journal(session.recorder.journal).primary) == 12


def during(engine, target, interrupt):
    """Call ``interrupt`` from another thread as message ``target`` is about to be processed."""
    count = 0

    def hook(message):
        nonlocal count
        if count == target:
            thread = threading.Thread(target=interrupt, args=(engine,))
            thread.start()
            thread.join(0.01)  # it must have been asked for before the RunEngine goes on
        count += 1

    engine.msg_hook = hook


def suspend(engine):
    engine.request_suspend(functools.partial(asyncio.sleep, 0.02))


def pause(engine):
    engine.request_pause(defer=False)


@pytest.mark.slow
@pytest.mark.parametrize("interrupt", [suspend, pause])
def test_no_interruption_from_outside_costs_a_reading(session, interrupt):
    """The first read of a device in a stream can be cancelled while its description is cached."""
    engine, camera, chi = session.RE, session.cameras["far_field"], session.axes["chi"]

    def scan():
        try:
            engine(bp.scan([camera], chi, -0.1, 0.1, 2))
        except RunEngineInterrupted:
            engine.resume()
        return read_journal(session.recorder.journal)

    try:
        commands: list[str] = []
        engine.msg_hook = lambda message: commands.append(message.command)
        scan()
        # before the first checkpoint, and once the plan is over, bluesky itself ends a plan that is interrupted
        for target in range(commands.index("checkpoint") + 1, commands.index("close_run") + 1):
            during(engine, target, interrupt)
            run = scan()
            assert run.end_status == "success", f"at message {target}, {commands[target]}"
            assert sorted(run.primary.events) == [1, 2] == sorted(run.primary.frames["far_field"]), target
            assert all({"monitor", "ring_current", "chi"} <= set(e["data"]) for e in run.primary.events.values())
            assert len(run.streams["baseline"].events) == 2, target
    finally:
        engine.msg_hook = None
