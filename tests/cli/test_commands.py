"""What each command prints, writes and ends with."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import pytest
import yaml
from command_line import COMMAND, MESH, QUICK, SMALL, environment

from dfxrm_control.config import find_config
from dfxrm_control.parameters import PLAN_PARAMETERS
from dfxrm_control.records import read_journal

COMMANDS = [
    "run",
    "dry-run",
    "queue",
    "check",
    "serve",
    "status",
    "maps",
    "series",
    "domains",
    "nye",
    "recover",
    "arm",
    "runs",
    "beamtime",
    "shell",
    "handoff",
    "register",
    "demo",
    "configs",
]
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
CASES = ["annealing", "dislocations", "domains", "mll"]


def _sentence(done, code=2):
    """Return the one line on standard error of a command that refused."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("dfxrm: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_help_lists_every_command(dfxrm):
    done = dfxrm("--help")
    assert done.returncode == 0
    assert re.findall(r"^  ([a-z-]+) ", done.stdout.partition("Commands:")[2], re.M) == COMMANDS


def test_every_plan_is_listed_once_with_a_whole_sentence(dfxrm):
    plans = dfxrm("run", "--help").stdout.partition("Commands:")[2]
    listed = re.findall(r"^  ([a-z-]+) ", plans, re.M)
    assert listed == [plan.removesuffix("_scan").replace("_", "-") for plan in PLAN_PARAMETERS]
    assert "..." not in plans


@pytest.mark.parametrize(
    "arguments",
    [
        *((command,) for command in COMMANDS),
        *(("demo", case) for case in CASES),
        ("run", "mosaicity"),
        ("dry-run", "rocking"),
        ("run", "campaign"),
    ],
)
def test_help_imports_nothing_heavy(dfxrm, arguments, tmp_path):
    """What is imported decides the time; numpy, h5py, bluesky, ophyd, numba and matplotlib would each show."""
    script = f"""
import sys
from dfxrm_control.cli import main
try:
    main({[*arguments, "--help"]!r})
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {{"numpy", "h5py", "bluesky", "ophyd", "numba", "matplotlib", "scipy", "IPython"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [COMMAND[0], "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: dfxrm" in done.stdout


def test_options_of_a_plan_carry_units_and_words(dfxrm):
    text = dfxrm("run", "mosaicity", "--help").stdout
    assert "--exposure-s S" in text
    assert "--rock-range DEG" in text
    assert "--after start|stay" in text
    assert "--snake / --no-snake" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "mosaicty"], "mosaicty"),
        (["run", "mosaicity", "--exposre", "1"], "--exposre"),
        (["run", "mosaicity", "--exposure-s", "0"], "exposure_s"),
        (["run", "mosaicity", "--exposure-s", "abc"], "exposure_s"),
        (["run", "mosaicity", "--rock-range", "0"], "rock_range"),
        (["run", "mosaicity", "--rock", "chi", "--roll", "chi"], "a mesh needs two axes"),
        (["run", "mosaicity", "--config", "simulatd"], "'simulatd' is not one of"),
        (["run", "mosaicity", "--config", "no/such.yml"], "no/such.yml cannot be read"),
        (["run", "mosaicity", "--set", "scan.darkz=1"], "scan.darkz"),
        (["run", "mosaicity", "--sample", "../../etc"], "sample.name"),
        (["configs", "nowhere"], "'nowhere' is not one of"),
        (["maps", "absent.h5"], "absent.h5"),
        (["recover", "absent.jsonl"], "absent.jsonl"),
        (["dry-run", "rocking", "--at", "chi"], "AXIS=POSITION"),
        (["dry-run", "rocking", "--at", "spin=1"], "'spin'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(dfxrm, arguments, told, tmp_path):
    assert told in _sentence(dfxrm(*arguments))
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("command", ["run", "dry-run"])
@pytest.mark.parametrize("plan", ["mosaicity", "mosaicity_scan", "weak-beam", "weak_beam_scan", "find_peak"])
def test_a_plan_answers_to_its_short_name_and_to_that_of_the_record(dfxrm, command, plan):
    done = dfxrm(command, plan, "--help")
    assert done.returncode == 0, done.stderr
    assert "--exposure-s" in done.stdout
    done = dfxrm(command, f"{plan}_wrong")
    assert done.returncode == 2 and f"No such command '{plan}_wrong'" in done.stderr


def test_an_option_that_the_twin_does_not_have_is_named_with_those_it_has(dfxrm):
    told = _sentence(dfxrm("run", "mosaicity", "--set", "backend.options.seeed=1"))
    assert told.startswith(
        "dfxrm: configuration simulated: backend.options: there is no option 'seeed'; simulators:Twin takes sample, "
    )
    assert "__init__" not in told and "seed, clock" in told


@pytest.mark.slow
def test_what_was_recorded_but_not_reduced_does_not_end_well(tmp_path):
    """Without the ASTRA Toolbox there is a record of the grain, and no grain."""
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "astra.py").write_text("raise ModuleNotFoundError('no ASTRA here', name='astra')\n")
    env = environment(tmp_path)
    env["PYTHONPATH"] = os.pathsep.join([str(absent), env["PYTHONPATH"]])
    few = ["--omega-num", "6", "--rock-num", "5", "--rock-range", "0.2", "--check-num", "0", "--darks-before", "3"]
    arguments = ["run", "topotomography", "--config", "topotomography", "--quiet", *SMALL, *few]
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, env=env, text=True, capture_output=True, timeout=200, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "scan 1: success" in done.stdout
    told = done.stderr.splitlines()[-1]
    assert told.startswith("dfxrm: recorded; not reduced: ") and "ASTRA Toolbox, which is not installed" in told


@pytest.mark.parametrize("arguments", [(), ("run",), ("dry-run",)])
def test_a_command_that_lacks_its_plan_shows_the_help(dfxrm, arguments):
    done = dfxrm(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Usage: dfxrm") and "\nCommands:\n" in done.stderr


def test_a_name_that_yaml_takes_for_a_number_stays_a_name(dfxrm, tmp_path):
    done = dfxrm("run", "rocking", "--no-maps", "--quiet", *SMALL, *QUICK, "--sample", "2026", "--data", "007")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "007/2026/2026_00001/2026_00001.h5").exists()


def test_dry_run_knows_that_nothing_can_start_beyond_a_limit(dfxrm):
    done = dfxrm("dry-run", "rocking", "--at", "mu=1000")
    assert done.returncode == 2
    assert "PROBLEM:  axis mu: 1000 deg is outside its limits" in done.stdout


@pytest.mark.slow
def test_what_the_devices_refuse_is_one_sentence_too(dfxrm, tmp_path):
    for given, told in (
        (["--rock", "tilt"], "axis 'tilt'"),
        (["--exposure-s", "100"], "which exposes 0.0001 to 60 s"),
        (["--rock-range", "30", "--rock-num", "5"], "axis phi: -15 deg is outside its limits"),
    ):
        done = dfxrm("run", "rocking", "--no-maps", "--quiet", *SMALL, *given)
        assert done.returncode == 2
        assert done.stdout == ""
        (sentence,) = [line for line in done.stderr.splitlines() if "warning" not in line]
        assert told in sentence
    assert not list(tmp_path.rglob("*.h5"))


def test_a_truncated_or_foreign_file_gives_no_maps(dfxrm, tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5 at all")
    assert "text.h5" in _sentence(dfxrm("maps", "text.h5"))
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    assert "foreign.h5" in _sentence(dfxrm("maps", "foreign.h5"))
    assert not (tmp_path / "maps").exists()


def test_a_folder_that_cannot_be_made_is_named(dfxrm, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/data cannot be written to" in _sentence(dfxrm("run", "rocking", "--data", "file/data"))


def test_an_unforeseen_fault_is_one_sentence_and_a_log(dfxrm, tmp_path, monkeypatch):
    (tmp_path / "dfxrm-tmp").mkdir()
    (tmp_path / "broken.py").write_text("def Backend(config):\n    raise ZeroDivisionError('surprise')\n")
    (tmp_path / "mine.yml").write_text(
        "extends: simulated\nname: mine\nbackend: {backend: 'broken:Backend', options: null}\n"
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path / "dfxrm-tmp"))
    told = _sentence(dfxrm("run", "rocking", "--config", "./mine.yml", "--quiet"), code=1)
    assert "ZeroDivisionError: surprise" in told
    (log,) = (tmp_path / "dfxrm-tmp").glob("dfxrm-error-*.log")
    assert str(log) in told
    assert "Traceback" in log.read_text()


@pytest.mark.slow
def test_run_goes_from_start_to_map(dfxrm, tmp_path):
    done = dfxrm("run", "mosaicity", "--data", "here", "--sample", "al7", *SMALL, *MESH)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert printed["HDF5:"] == str(tmp_path / "here" / "al7" / "al7_00001" / "al7_00001.h5")
    with h5py.File(printed["HDF5:"]) as master:
        assert master["1.1/title"].asstr()[()].startswith("fscan2d chi -0.3 0.1 7 phi -0.15 ")
        assert master["1.1/instrument/far_field/data"].shape == (105, 64, 64)
        assert master["2.1/title"].asstr()[()].startswith("loopscan 10 ")
    assert h5py.is_hdf5(printed["maps:"])
    with open(printed["picture:"], "rb") as picture:
        assert picture.read(8) == b"\x89PNG\r\n\x1a\n"
    again = dfxrm("maps", printed["HDF5:"], "--out", "again")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "al7_00001_mosaicity.png").is_file()
    # the folder of a run stands for its master, and a place that is not there is named
    assert dfxrm("maps", "here/al7/al7_00001", "--out", "again").stdout == again.stdout
    assert _sentence(dfxrm("series", "nowhere")) == f"dfxrm: {tmp_path / 'nowhere'} does not exist\n"


@pytest.mark.slow
def test_a_run_whose_window_misses_the_peak_says_so(dfxrm):
    done = dfxrm("run", "rocking", "--quiet", *SMALL, *QUICK, "--rock-center", "1.5")
    assert done.returncode == 0, done.stderr
    assert "note:    no pixel stands out of the noise" in done.stdout


@pytest.mark.slow
def test_no_maps_makes_none(dfxrm, tmp_path):
    done = dfxrm("run", "rocking", "--no-maps", "--quiet", *SMALL, *QUICK)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("maps"))
    assert len(list(tmp_path.rglob("far_field_*.h5"))) == 2


@pytest.mark.slow
def test_dry_run_says_what_the_run_then_does(dfxrm, tmp_path):
    report = json.loads(dfxrm("dry-run", "mosaicity", "--json", *SMALL, *MESH).stdout)
    assert report["problems"] == []
    assert report["frames"] == 105
    assert report["darks"] == 10
    assert report["exposed_s"] == pytest.approx(21.0)
    assert report["data_bytes"] == 115 * 64 * 64 * 2
    assert report["travel"]["phi"]["lowest"] == pytest.approx(-0.15)
    assert report["travel"]["chi"]["highest"] == pytest.approx(0.3)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    done = dfxrm("run", "mosaicity", "--no-maps", "--quiet", *SMALL, *MESH)
    assert done.returncode == 0, done.stderr
    (journal,) = (tmp_path / "dfxrm-journal").glob("*.jsonl")
    assert len(read_journal(journal).primary) == 105


def test_dry_run_of_a_limit_ends_with_a_problem(dfxrm):
    done = dfxrm("dry-run", "rocking", "--rock-range", "12", "--rock-num", "121")
    assert done.returncode == 2
    assert "PROBLEM:  axis phi: -6 deg is outside its limits -5 .. 5 deg" in done.stdout
    assert "the plan cannot run" in done.stdout


def test_dry_run_sees_a_disk_that_is_too_small(dfxrm):
    done = dfxrm("dry-run", "rocking", "--set", "data.minimum_free_gb=1e6", *QUICK)
    assert done.returncode == 2
    assert "GB free, of which 1e+06 GB are kept" in done.stdout


def test_dry_run_starts_where_it_is_told(dfxrm):
    done = dfxrm("dry-run", "rocking", "--json", "--at", "phi=1.5", *SMALL, *QUICK)
    report = json.loads(done.stdout)
    assert report["start_from"] == "the given positions (phi) and the configuration (all others)"
    assert report["travel"]["phi"]["highest"] == pytest.approx(1.65)


@pytest.mark.slow
def test_dry_run_predicts_the_map(dfxrm, tmp_path):
    done = dfxrm("dry-run", "mosaicity", "--twin", "--out", "foreseen", *SMALL, *MESH)
    assert done.returncode == 0, done.stderr
    told = [tmp_path / line.split()[-1] for line in done.stdout.splitlines() if line.startswith(("picture:", "file:"))]
    written = [path for path in (tmp_path / "foreseen").rglob("*") if path.is_file()]
    assert sorted(told) == sorted(written)
    pictures = {path.name for path in written if path.read_bytes()[:4] == b"\x89PNG"}
    assert "brightest_frame.png" in pictures
    assert any(name.endswith("_mosaicity.png") for name in pictures)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["foreseen"]


@pytest.mark.slow
def test_the_example_workflow_finds_what_a_changed_configuration_breaks(tmp_path):
    workflow = yaml.safe_load((HOW_TO / "dry-run-workflow.yml").read_text())
    command = workflow["jobs"]["dry-run"]["steps"][-1]["run"]
    shown = (HOW_TO / "try-before-a-run.md").read_text()
    assert command in shown
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "dfxrm"
    program.write_text(f"#!{COMMAND[0]}\n{COMMAND[2]}\n")
    program.chmod(0o755)
    configs = tmp_path / "configs"
    configs.mkdir()
    few = ("rocking_scan", "campaign")
    excuse = "dry_run: {cannot: {topotomography_scan: null}}\n"
    for name in ("hutch", "spare"):
        without = "".join(f"  {plan}: null\n" for plan in find_config("simulated").plans if plan not in few)
        (configs / f"{name}.yml").write_text(f"extends: simulated\nname: {name}\n{excuse}plans:\n{without}")

    def tried():
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env={**environment(tmp_path), "PATH": path},
            text=True,
            capture_output=True,
            timeout=200,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    code, told, errors = tried()
    assert code == 0, told + errors
    assert re.search(r"hutch +rocking_scan +can run: \d+ frames", told)
    assert re.search(r"spare +campaign +not tried: it needs map", told)
    with (configs / "spare.yml").open("a") as file:
        file.write("devices: {goniometer: {axes: {phi: {limits: [-0.01, 0.01]}}}}\n")
    code, told, errors = tried()
    assert code == 2, told + errors
    assert re.search(r"spare +rocking_scan +cannot run: axis phi: .* outside its limits -0.01 .. 0.01 deg", told)
    assert re.search(r"hutch +rocking_scan +can run", told)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_ends_safely_with_a_readable_record(tmp_path, number):
    """Real clock, so that there is time to interrupt it."""
    running = subprocess.Popen(
        [*COMMAND, "run", "mosaicity", "--no-maps", *SMALL, *MESH, "--set", "backend.options.clock=real"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.rglob("far_field_0002.h5")):
            time.sleep(0.1)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 1, out + err
    if number != signal.SIGHUP:  # then there is nobody to tell
        assert "dfxrm: interrupted: what was taken until then is in " in err
    assert "Traceback" not in err
    (journal,) = (tmp_path / "dfxrm-journal").glob("*.jsonl")
    run = read_journal(journal)
    assert run.end_status == "abort"
    last = run.baseline(-1)
    assert last["shutter"] == "closed"
    (master,) = [path for path in tmp_path.rglob("annealed_aluminium_00001.h5") if path.is_file()]
    with h5py.File(master) as file:
        assert file["1.1/instrument/far_field/data"].shape[0] == 15 * (len(run.primary) // 15)


@pytest.mark.slow
def test_recover_writes_a_clean_master_of_a_killed_run(tmp_path, dfxrm):
    running = subprocess.Popen(
        [*COMMAND, "run", "mosaicity", "--no-maps", "--quiet", *SMALL, *MESH, "--set", "backend.options.clock=real"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.rglob("far_field_0003.h5")):
            time.sleep(0.1)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    (journal,) = (tmp_path / "dfxrm-journal").glob("*.jsonl")
    taken = len(read_journal(journal).primary)
    done = dfxrm("recover", journal, "--out", "clean.h5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "clean.h5")
    with h5py.File(tmp_path / "clean.h5") as master:
        assert master["1.1/instrument/far_field/data"].shape[0] == taken // 15 * 15
    assert "exists already" in _sentence(dfxrm("recover", journal, "--out", "clean.h5"))


@pytest.mark.slow
def test_a_scan_goes_on_when_nobody_reads_what_it_prints(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        subprocess.run(
            [*COMMAND, "run", "mosaicity", "--no-maps", *SMALL, *MESH],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=writer,
            stderr=writer,
            timeout=100,
            check=False,
        )
    finally:
        os.close(writer)
    journals = list(tmp_path.rglob("*.jsonl"))
    assert journals
    assert {read_journal(journal).end_status for journal in journals} == {"success"}
