"""One microscope, connected: runs from start to record, faults, and a safe end."""

import os
import signal
import stat
import threading

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401
import pytest
from bluesky.utils import RunEngineInterrupted

from dfxrm_control.config import find_config, override
from dfxrm_control.errors import (
    ConfigError,
    DeviceError,
    FileFormatError,
    LimitError,
    ParameterError,
    RecordError,
    RunError,
)
from dfxrm_control.records import read_journal
from dfxrm_control.reduction import maps_from_file
from dfxrm_control.session import Session

MESH = {"rock_range": 0.3, "rock_num": 13, "roll_range": 0.6, "roll_num": 6, "exposure_s": 0.1}
CURVE = {"rock_range": 0.3, "rock_num": 13, "exposure_s": 0.1}


@pytest.fixture(autouse=True)
def _coarse_steps_are_meant():
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(step|window) of.*")
        yield


def test_axes_and_devices_go_by_their_logical_names(session):
    assert {"mu", "omega", "chi", "phi", "two_theta", "energy", "obx", "ffz", "ccmth"} <= set(session.axes)
    assert all(axis.name == name for name, axis in session.axes.items())
    assert {"shutter", "condenser", "far_field_camera_objective", "monitor"} <= set(session.channels)
    assert list(session.cameras) == ["far_field", "near_field"]
    assert set(session.real_axes()) == set(session.axes) - {"two_theta", "energy"}
    assert session.faults == []


def test_a_mosaicity_scan_leaves_a_record_that_knows_its_microscope(session):
    outcome = session.run("mosaicity_scan", MESH)
    assert outcome.status == "success"
    assert outcome.folder.name == f"annealed_aluminium_{outcome.scan_id:05d}"
    run = read_journal(session.recorder.journal)
    assert len(run.primary) == 78
    assert run.dfxrm["config"] == "simulated"
    assert run.dfxrm["instrument"]["objectives"]["crl"]["lenslets"] == 69
    assert run.dfxrm["sample"]["hkl"] == [1, 1, 1]
    assert run.baseline()["two_theta"] == pytest.approx(17.946, abs=1e-3)
    assert run.baseline()["far_field_camera_objective"] == "10x"
    with h5py.File(outcome.master) as master:
        assert master["1.1/instrument/far_field/data"].shape == (78, 48, 64)
        assert master["1.1/instrument/far_field/data"][()].max() > 200  # the crystal, above a pedestal of 100


def test_the_shutter_is_closed_and_the_axes_are_back_after_a_scan(session):
    session.run("rocking_scan", CURVE)
    assert session.channels["shutter"].get() == "closed"
    assert session.axes["phi"].position == pytest.approx(0.0, abs=1e-6)


def test_scan_numbers_go_on_in_the_next_session_and_past_folders_that_exist(small, tmp_path):
    with Session(small, maps=False, quiet=True) as first:
        assert first.run("rocking_scan", CURVE).scan_id == 1
    (tmp_path / "data" / "annealed_aluminium" / "annealed_aluminium_00041").mkdir()
    with Session(small, maps=False, quiet=True) as second:
        assert second.run("rocking_scan", CURVE).scan_id == 42


def test_stock_plans_get_the_full_record(session):
    session.execute(bp.scan([session.cameras["far_field"]], session.axes["chi"], -0.1, 0.1, 3))
    run = read_journal(session.recorder.journal)
    assert run.dfxrm["instrument"]["mu_sign"] == -1
    assert run.sample_name == "annealed_aluminium"
    assert {"monitor", "ring_current", "chi"} <= set(run.primary.data_keys)
    assert run.baseline()["energy"] == pytest.approx(17.0, abs=1e-3)


def test_unknown_plans_and_bad_parameters_move_nothing(session):
    before = session.backend.axes()
    with pytest.raises(
        ParameterError, match="'topotomography' is not available; there are mosaicity_scan, rocking_scan"
    ):
        session.run("topotomography", {})
    with pytest.raises(ParameterError, match="exposure_s"):
        session.run("rocking_scan", {"exposure_s": -1})
    with pytest.raises(LimitError, match=r"axis phi: -6 deg is outside its limits -5 .. 5 deg$"):
        session.run("rocking_scan", {"rock_range": 12, "rock_num": 3})
    assert session.backend.axes() == before
    assert session.recorder.journal is None


def test_a_failed_run_says_why_and_keeps_what_it_has(session):
    def breaks():
        yield from bps.mv(session.channels["shutter"], "open")
        yield from bpp.run_wrapper(bps.mv(session.axes["samx"], 0.001))
        raise DeviceError("the sample fell off")

    with pytest.raises(RunError, match="the sample fell off; what was taken until then is in .*_00001.h5"):
        session.execute(breaks())


def test_leaving_the_session_closes_the_shutter(small):
    with Session(small, maps=False, quiet=True) as session:
        session.channels["shutter"].set("open")
        assert session.backend.get("shutter") == "open"
    assert session.backend.get("shutter") == "closed"


def test_a_halt_skips_the_clean_up_but_not_the_shutter(session):
    def halted():
        yield from bps.mv(session.channels["shutter"], "open")
        assert session.backend.get("shutter") == "open"
        threading.Timer(0.2, session.RE.halt).start()
        yield from bps.sleep(30)

    with pytest.raises(RunEngineInterrupted):
        session.RE(halted())
    assert session.RE.state == "idle"
    assert session.backend.get("shutter") == "closed"


@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_impatience_does_not_cut_the_clean_up_short(session, again, capfd):
    """A second request to end, while the first is being answered; Ctrl-C then is the RunEngine's to answer."""
    done = []

    def cleanup():
        os.kill(os.getpid(), again)
        yield from bps.sleep(0.3)
        yield from bps.mv(session.channels["shutter"], "closed")
        done.append(True)

    def scan():
        yield from bps.mv(session.channels["shutter"], "open")
        yield from bps.pause()

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(RunError, match="interrupted: "):
        session.execute(bpp.finalize_wrapper(scan(), cleanup))
    assert done and session.backend.get("shutter") == "closed"
    assert ("Please wait" in capfd.readouterr().err) is (again != signal.SIGINT)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_broken_device_is_named_with_the_plans_it_takes_along(small):
    broken = override(small, ["devices.goniometer.device=devices:Goniomter"])
    with Session(broken, maps=False, quiet=True) as session:
        (fault,) = session.faults
        assert str(fault).startswith("device goniometer (mu, omega, chi, phi, samx, samy, samz) is not available")
        assert "Goniomter" in str(fault)
        assert str(fault).endswith(" will not work")
        assert set(fault.plans) == set(broken.plans)
        assert session.plans == {}
        assert session.axes["obx"].position > 0  # the rest works
        with pytest.raises(ParameterError, match="'rocking_scan' is not available: device goniometer"):
            session.run("rocking_scan", {})


def test_a_device_no_plan_needs_takes_none_along(small):
    broken = override(small, ["devices.near_field.device=devices:Nothing"])
    with Session(broken, maps=False, quiet=True) as session:
        assert str(session.faults[0]).endswith("no plan needs it")
        assert set(session.plans) == set(broken.plans)


def test_a_backend_option_that_does_not_exist_is_named(small):
    with pytest.raises(ConfigError, match="backend.options: .*'sead'"):
        Session(override(small, ["backend.options.sead=3"]), maps=False)


def test_moves_refuse_limits_and_arrive(session):
    session.move([(session.axes["chi"], 0.25), (session.axes["phi"], -0.5)])
    assert session.axes["chi"].position == pytest.approx(0.25, abs=2e-4)
    with pytest.raises(LimitError, match="axis chi: 9 deg is outside"):
        session.move([(session.axes["chi"], 9)])


def test_a_full_disk_is_seen_before_anything_moves(small):
    with pytest.raises(RecordError, match=r"data folder .* has .* GB free, less than the 1e\+06 GB"):
        Session(override(small, ["data.minimum_free_gb=1e6"]), maps=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(small, tmp_path):
    (tmp_path / "data").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(RecordError, match="data folder .* cannot be written to"):
        Session(small, maps=False)


def test_a_file_where_the_folder_should_be_is_named(small, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(RecordError, match="data folder .* cannot be written to: .*--set data.directory"):
        Session(small, maps=False)


def test_every_configuration_builds_all_its_devices(tmp_path):
    for name in ("f_letter", "mll", "crl_id03"):
        places = [f"data.directory={tmp_path}", f"data.journal_directory={tmp_path}", "data.minimum_free_gb=0.01"]
        with Session(override(find_config(name), places), maps=False, quiet=True) as session:
            assert session.faults == [], name


def test_a_plan_starts_from_the_parameters_of_the_configuration(small):
    config = override(small, ["scan.parameters={rocking_scan: {rock_range: 0.2, rock_num: 5, exposure_s: 0.02}}"])
    with Session(config, maps=False, quiet=True) as session:
        session.RE(session.plans["rocking_scan"](rock_num=3))
        run = read_journal(session.recorder.journal)
    assert len(run.primary) == 3
    assert run.dfxrm["exposure_s"] == 0.02


def test_a_run_without_points_gives_no_maps_and_says_so(session):
    """As the last run of a campaign, which only says how it ended."""

    def ending():
        yield from bpp.run_wrapper(iter(()), md={"plan_name": "campaign", "dfxrm": {"maps": False}})

    outcome = session.execute(ending())
    with pytest.raises(FileFormatError, match=r"scan 1\.1 of campaign has no points, only what"):
        maps_from_file(outcome.master)
