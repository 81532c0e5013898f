"""``dfxrm serve``: what it starts, what it writes, where it listens, and that nothing of it is left."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from programs import DFXRM, alive, environment, listening_on, wait_for

from dfxrm_control.backend import FrameRequest
from dfxrm_control.config import find_config
from dfxrm_control.errors import ConfigError, DeviceError
from dfxrm_control.serving import serving_of
from dfxrm_control.session import build_backend

FRAMES = "serve: {twin: {options: {clock: frames}}}\n"


def run(*arguments, folder, seconds=60):
    return subprocess.run(
        [*DFXRM, *map(str, arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def servers_of(program):
    """Return the processes of a ``dfxrm serve`` by the module they run."""
    found = {}
    for process in alive(str(program.folder)):
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
        if "dfxrm_control.server_process" in words:
            found[words[words.index("dfxrm_control.server_process") + 2]] = process
    return found


def ports_of(program):
    (path,) = program.folder.glob("*.ports.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_mixed_microscope_is_served_ends_cleanly_and_comes_back_where_it_was(serve, small, tmp_path):
    program = serve(small("mixed", FRAMES), "--set", "scan.darks=7")
    ready = Path(program.start().removeprefix("ready:").strip())
    config = find_config(str(ready))
    assert config.name == "mixed" and config.scan.darks == 7
    ports = ports_of(program)
    assert list(ports) == ["twin", "epics", "tango"] and len(set(ports.values())) == 3
    assert config.backend.options == {"address": f"127.0.0.1:{ports['twin']}"}
    assert config.controls.epics.addresses == (f"127.0.0.1:{ports['epics']}",)
    camera = config.devices["far_field"].camera
    assert camera.address == f"tango://127.0.0.1:{ports['tango']}/dfxrm/camera/far_field#dbase=no"
    # nobody but this machine can reach them
    for port in ports.values():
        assert set(listening_on(port)) == {"0100007F"}
    servers = servers_of(program)
    assert set(servers) == {"simulators.state_server", "simulators.epics", "simulators.tango"}
    for name in ports:
        assert f"{name}:" in program.said and str(program.folder / f"mixed.{name}.log") in program.said

    checked = run("check", ready, folder=tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert "all is well" in checked.stdout
    twin = build_backend(config)
    twin.start_move("chi", 1.0, 0.0, 0.0)
    # Ctrl-C
    assert program.stop(signal.SIGINT) == 0
    assert "all servers have ended" in program.said
    assert not alive(str(program.folder))
    assert not ready.exists()
    with pytest.raises(DeviceError, match="does not answer"):
        twin.position("chi")

    again = Path(program.start().removeprefix("ready:").strip())
    assert again == ready and ports_of(program) == ports
    assert find_config(str(again)) == config
    # whoever talked to it before goes on
    assert twin.position("chi") == 0.0
    assert twin.expose(FrameRequest("far_field", 0.1)).number == 0
    assert program.stop() == 0
    assert not alive(str(program.folder))
    twin.close()


@pytest.mark.slow
def test_a_server_that_dies_is_named_and_the_others_end(serve, small):
    program = serve(small("epics", FRAMES))
    program.start()
    servers = servers_of(program)
    os.kill(servers["simulators.epics"], signal.SIGKILL)
    assert program.ended() == 2
    (said,) = [line for line in program.said.splitlines() if line.startswith("dfxrm:")]
    log = program.folder / "epics.epics.log"
    assert said == f"dfxrm: the epics server (simulators.epics) was ended by SIGKILL; its log is {log}"
    assert not alive(str(program.folder))

    # no server outlives whoever started it, however that ended
    program.start()
    assert set(servers_of(program)) == set(servers)
    program.send(signal.SIGKILL)
    program.ended()
    assert wait_for(lambda: not alive(str(program.folder)))

    # one that hangs is ended too
    program.start()
    os.kill(servers_of(program)["simulators.state_server"], signal.SIGSTOP)
    assert program.stop() == 0
    assert not alive(str(program.folder))


def test_only_one_serves_from_a_folder_and_a_taken_port_is_named(serve, small, tmp_path):
    config = small()
    program = serve(config)
    program.start()
    assert int((program.folder / "simulated.lock").read_text()) == program.process.pid
    second = run("serve", config, "--folder", program.folder, folder=tmp_path)
    assert second.returncode == 2
    assert second.stderr.strip() == (
        f"dfxrm: configuration 'simulated' is already served from folder {program.folder}; use its "
        "simulated.ready.yml, or another --folder"
    )
    assert (program.folder / "simulated.ready.yml").exists()
    assert program.stop() == 0
    ports = program.folder / "simulated.ports.json"
    port = ports_of(program)["twin"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        taken = run("serve", config, "--folder", program.folder, folder=tmp_path)
    assert taken.returncode == 2
    assert f"port {port} of the twin server is taken by another program; end that, or delete {ports}" in taken.stderr
    ports.write_text("{]")
    spoilt = run("serve", config, "--folder", program.folder, folder=tmp_path)
    assert spoilt.returncode == 2 and f"ports file {ports} cannot be read; delete it" in spoilt.stderr


def test_what_does_not_start_says_why_in_a_sentence(small, tmp_path):
    folder = tmp_path / "served"

    def told(config, *arguments):
        done = run("serve", config, "--folder", folder, *arguments, folder=tmp_path)
        assert done.returncode == 2
        assert not alive(str(folder))
        (line,) = done.stderr.splitlines()
        return line

    assert "no option 'colour'" in told(small(more="backend: {options: {colour: red}}\n"))
    assert "'nowhere' is not one of" in told("nowhere")
    assert "host '10.255.255.1' is no address of this machine" in told(small(), "--host", "10.255.255.1")
    assert "has no twin that could be served" in told(small("epics", "serve: null\n", name="none"))
    assert "names no server for epics" in told(small("epics", "serve: {servers: {}}\n", name="without"))
    missing = told(small("epics", FRAMES + "  \n", name="gone"), "--set", "serve.servers.epics=simulators.nothing")
    assert "the epics server (simulators.nothing) ended with exit code 1" in missing
    assert "simulators.nothing" in missing.partition("code 1")[2]
    (tmp_path / "file").touch()
    done = run("serve", small(), "--folder", tmp_path / "file", folder=tmp_path)
    assert done.returncode == 2


def test_only_the_servers_that_are_needed_are_started(small, tmp_path):
    serving = serving_of(str(small()), folder=tmp_path)
    assert list(serving.modules) == ["twin"]
    for name in ("epics", "tango"):
        assert list(serving_of(name).modules) == ["twin", name]
    assert list(serving_of("mixed").modules) == ["twin", "epics", "tango"]
    with pytest.raises(ConfigError, match="serve.servers"):
        serving_of(str(small("epics", "serve: {servers: {epics: simulators/epics}}\n", name="odd")))


@pytest.mark.slow
def test_the_template_of_a_beamline_can_be_rehearsed(serve, small, tmp_path):
    """Every address of the template is served as it stands there, and agrees with what the template says of it."""
    program = serve(small("id03_template"), "--set", "serve.twin.options.clock=frames")
    ready = Path(program.start().removeprefix("ready:").strip())
    addresses = [part.address for device in find_config(str(ready)).devices.values() for part in device.parts()]
    assert "/id03/bliss_dfxm/diffry#" in " ".join(addresses)
    checked = run("check", ready, folder=tmp_path)
    assert checked.returncode == 0, checked.stdout
    mesh = ["--rock-range", "0.05", "--rock-num", "3", "--roll-range", "0.05", "--roll-num", "2"]
    quick = ["--exposure-s", "0.01", "--darks-before", "2", "--quiet", "--no-maps"]
    done = run("run", "mosaicity", "--config", ready, *mesh, *quick, folder=tmp_path, seconds=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert program.stop() == 0


def test_a_dry_run_needs_no_server(tmp_path):
    for name in ("epics", "tango", "mixed", "id03_template"):
        done = run("dry-run", "mosaicity", "--config", name, "--set", "data.minimum_free_gb=0.01", folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the plan can run" in done.stdout


def test_the_ready_configuration_is_plain_yaml_that_says_where_it_comes_from(serve, small):
    program = serve(small())
    ready = Path(program.start().removeprefix("ready:").strip())
    text = ready.read_text()
    assert text.startswith("# Written by dfxrm serve")
    assert yaml.safe_load(text)["backend"]["backend"] == "simulators:RemoteTwin"
    assert program.stop(signal.SIGHUP) == 0
