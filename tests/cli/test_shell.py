"""The interactive session, in a real IPython that is told what to type."""

import re

import pytest
from command_line import SMALL

SCRIPT = """
mv(chi, 0.25, "phi", -0.5)
mvr(chi, 0.125)
sav("here", chi, phi, comment="bright")
mv(chi, 0, phi, 0)
restore("here")
lsp()
print("AT", chi.position, phi.position, two_theta.position)
mv(chi, 99)
mv(tilt, 1)
mv("tilt", 1)
restore("nowhere")
ct(0.2)
print("SHUTTER", shutter.get())
RE(rocking_scan(rock_range=0.3, rock_num=21, exposure_s=0.1, darks_before=2))
RE(bp.count([far_field], 2))
print("SCANS", RE.md["scan_id"])
lsplans()
lsdev()
wa()
1/0
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return what the shell printed, output and errors."""
    import subprocess

    from command_line import COMMAND, environment

    folder = tmp_path_factory.mktemp("shell")
    done = subprocess.run(
        [*COMMAND, "shell", "--no-maps", *SMALL],
        cwd=folder,
        env=environment(folder),
        input=SCRIPT,
        text=True,
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_the_banner_says_what_is_there(told):
    assert "dfxrm-control: simulated." in told[0]
    assert re.search(r"devices: goniometer, objective, far_field", told[0])
    assert "plans:   mosaicity_scan, rocking_scan" in told[0]
    assert "BROKEN" not in told[0]


@pytest.mark.slow
def test_axes_move_and_come_back_to_saved_positions(told):
    assert "saved 2 positions as 'here'" in told[0]
    assert re.search(r"^here +\d{4}-\d\d-\d\d \d\d:\d\d +2 +bright", told[0], re.M)
    chi, phi, two_theta = map(float, re.search(r"AT (\S+) (\S+) (\S+)", told[0]).groups())
    assert chi == pytest.approx(0.375, abs=2e-4)
    assert phi == pytest.approx(-0.5, abs=2e-4)
    assert two_theta == pytest.approx(17.946, abs=1e-3)


@pytest.mark.slow
def test_mistakes_are_sentences_and_our_own_errors_have_no_traceback(told):
    assert "LimitError: axis chi: 99 deg is outside its limits -5 .. 5 deg" in told[1]
    assert "ParameterError: axis 'tilt' is not there; there are mu, omega, chi" in told[1]
    assert "ParameterError: no positions are saved as 'nowhere' on simulated; saved are: here" in told[1]
    errors = told[0] + told[1]
    assert errors.count("Traceback") == 2  # NameError and ZeroDivisionError, the user's own
    assert "ZeroDivisionError" in errors
    assert "NameError" in errors


@pytest.mark.slow
def test_frames_and_scans_are_recorded_and_numbered(told):
    assert re.search(r"far_field: mean \d+\.\d, max \d+ ADU", told[0])
    assert "SHUTTER closed" in told[0]
    assert "scan 2: rocking_scan, 23 frames" in told[1]
    assert "scan 3: count, 2 frames" in told[1]
    assert "SCANS 3" in told[0]


@pytest.mark.slow
def test_lists_show_plans_devices_and_positions(told):
    assert "Rock the crystal about one axis" in told[0]
    assert "Goniometer" in told[0]
    assert re.search(r"^mu +8\.97\d+ +8\.97\d+ +deg +0\.0000 +20\.0000", told[0], re.M)
    assert re.search(r"^condenser +line", told[0], re.M)


@pytest.mark.slow
def test_a_plans_file_in_the_working_directory_is_named(dfxrm, tmp_path):
    (tmp_path / "plans.py").write_text("")
    done = dfxrm("shell")
    assert done.returncode == 2
    assert done.stderr.startswith(f"dfxrm: {tmp_path / 'plans.py'} is in the way of the package 'plans'")


@pytest.mark.slow
def test_a_broken_device_is_in_the_banner(dfxrm):
    done = dfxrm("shell", "--set", "devices.goniometer.device=devices:Gonio", stdin="lsdev()\n")
    assert done.returncode == 0, done.stderr
    assert "BROKEN   device goniometer (mu, omega, chi" in done.stdout
    assert re.search(r"not available: .*; mosaicity_scan, .* will not work", done.stdout)
