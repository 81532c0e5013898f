"""The twin in one process, asked from others over real sockets."""

import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from programs import Program, listening_on

from dfxrm_control.backend import Backend, FrameRequest
from dfxrm_control.config import find_config
from dfxrm_control.errors import ConfigError, DeviceError
from simulators import RemoteTwin, Twin
from simulators._wire import receive, send
from simulators.state_server import StateServer, make_twin


@pytest.fixture
def start(small, tmp_path):
    """Return a function that starts a state server of a small twin with some options; it and a client come back."""
    made = []

    def begin(**options):
        told = ", ".join(f"{name}: {value}" for name, value in options.items())
        path = small(more=f"backend: {{options: {{{told}}}}}\n")
        command = [sys.executable, "-m", "simulators.state_server", str(path)]
        program = Program(command, "ready", tmp_path)
        address = program.start().split()[1]
        # the same port when it is started anew
        program.command = [*command, "--port", address.rpartition(":")[2]]
        twin = RemoteTwin(find_config(str(path)), address=address, timeout_s=5.0, frame_timeout_s=10.0)
        made.append((program, twin))
        return program, twin

    yield begin
    for program, twin in made:
        twin.close()
        program.clear()


def twin_in_process(small, **options):
    config = find_config(str(small()))
    return Twin(config, **{**config.backend.options, **options})


def sentence(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_frames_readings_and_errors_are_those_of_the_twin_in_process(start, small):
    _, remote = start(clock="frames")
    local = twin_in_process(small, clock="frames")
    assert isinstance(remote, Backend)
    for twin in (remote, local):
        twin.put("shutter", "open")
        twin.start_move("chi", 0.0123456789, 1.0, 0.1)
        twin.happen("ring_current", 150.0)
    for camera in ("far_field", "near_field", "far_field"):
        ours, theirs = (twin.expose(FrameRequest(camera, 0.2)) for twin in (local, remote))
        assert theirs.data.dtype == np.uint16 and theirs.data.shape == remote.frame_shape(camera)
        np.testing.assert_array_equal(ours.data, theirs.data)
        for part in ("number", "monitor", "ring_current_ma", "start_s", "end_s"):
            assert getattr(ours, part) == getattr(theirs, part)
    assert remote.frames_taken == local.frames_taken == 3
    assert remote.axes() == local.axes()
    assert remote.true_positions() == local.true_positions()
    assert remote.channels() == local.channels()
    assert remote.now() == local.now() == pytest.approx(0.6)
    assert remote.stop("chi") == local.stop("chi") == 0.0123456789
    # a number that JSON itself does not know
    for twin in (remote, local):
        twin.happen("ring_current", float("nan"))
    assert np.isnan(remote.get("ring_current"))
    for wrong in (
        lambda twin: twin.position("kappa"),
        lambda twin: twin.start_move("chi", float("inf"), 1.0, 0.1),
        lambda twin: twin.get("lamp"),
        lambda twin: twin.put("shutter", "ajar"),
        lambda twin: twin.put("ring_current", 1.0),
        lambda twin: twin.frame_shape("side"),
        lambda twin: twin.expose(FrameRequest("side", 0.1)),
        lambda twin: twin.expose(FrameRequest("far_field", 1e6)),
    ):
        told = []
        for twin in (remote, local):
            with pytest.raises(DeviceError) as error:
                wrong(twin)
            told.append(sentence(error))
        assert told[0] == told[1]


def test_many_clients_and_threads_get_frames_numbered_without_gaps(start):
    _, first = start(clock="frames")
    second = RemoteTwin(find_config("simulated"), address=first.address)
    first.put("shutter", "open")
    numbers, wrong = [], []

    def take(k):
        twin = (first, second)[k % 2]
        for _ in range(10):
            numbers.append(twin.expose(FrameRequest(("far_field", "near_field")[k % 3 == 0], 0.01)).number)
            axis = ("chi", "phi", "omega", "samx")[k % 4]
            twin.start_move(axis, 0.001 * k, 1.0, 0.1)
            if not abs(twin.position(axis)) <= 0.008:
                wrong.append((axis, k))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(take, range(8)))
    assert sorted(numbers) == list(range(80))
    assert first.frames_taken == second.frames_taken == 80
    assert not wrong
    second.close()


def test_a_server_that_was_killed_is_told_of_in_a_sentence_and_found_again(start):
    program, twin = start(clock="frames")
    twin.start_move("chi", 1.0, 0.0, 0.0)
    assert twin.position("chi") == 1.0
    program.stop(signal.SIGKILL)
    with pytest.raises(
        DeviceError, match=rf"{twin.address} does not answer .*refused.* \(asked: position chi\)"
    ) as error:
        twin.position("chi")
    sentence(error)
    program.start()
    # a new microscope: it stands where the configuration starts
    assert twin.position("chi") == 0.0
    assert twin.expose(FrameRequest("far_field", 0.1)).number == 0
    assert program.stop() == 0


def test_a_server_that_hangs_ends_a_call_in_time_and_does_nothing_later(start):
    program, patient = start(clock="frames")
    twin = RemoteTwin(find_config("simulated"), address=patient.address, timeout_s=0.5, frame_timeout_s=0.5)
    before = twin.position("chi")
    program.send(signal.SIGSTOP)
    for call, asked in (
        (lambda: twin.start_move("chi", 1.0, 0.0, 0.0), "start move chi"),
        (lambda: twin.now(), "now"),
        (lambda: twin.expose(FrameRequest("far_field", 0.1)), "expose far_field"),
        (lambda: twin.wait_until(10.0), "wait until 10.0"),
    ):
        began = time.monotonic()
        with pytest.raises(DeviceError, match=rf"did not answer within 0\.\d s \(asked: {asked}\)") as error:
            call()
        sentence(error)
        assert time.monotonic() - began < 5.0
    program.send(signal.SIGCONT)
    # what was given up is not done when nobody waits for it any more
    assert patient.position("chi") == before
    assert patient.expose(FrameRequest("far_field", 0.1)).number == 0
    assert twin.position("chi") == before
    twin.close()


def test_waiting_ends_when_it_is_cancelled_and_moves_take_the_time_of_the_twin(start):
    _, twin = start(clock="real")
    end_s = twin.start_move("chi", 4.0, 0.01, 0.0)
    assert end_s > twin.now() + 100
    cancelled = threading.Event()
    waiting = threading.Thread(target=twin.wait_until, args=(end_s, cancelled.is_set))
    waiting.start()
    assert waiting.is_alive()
    cancelled.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert 0.0 < twin.stop("chi") < 1.0
    soon = twin.now() + 0.2
    twin.wait_until(soon)
    assert twin.now() >= soon


def test_what_is_no_client_of_ours_disturbs_nobody(start):
    program, twin = start(clock="frames")
    host, port = twin.address.split(":")
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x05null!", os.urandom(64)):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            try:
                assert connection.recv(100) == b""
            except ConnectionResetError:
                pass
    for call in ("close", "__class__", "clock", "config"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            send(connection, {"call": call})
            assert receive(connection)[0] == {
                "error": f"what stands behind the state server has no {call!r}",
                "kind": "DeviceError",
            }
    assert twin.position("chi") == 0.0
    assert program.stop(signal.SIGINT) == 0


def test_it_binds_loopback_and_a_port_that_is_taken_is_named(start, tmp_path):
    program, twin = start(clock="frames")
    port = int(twin.address.rpartition(":")[2])
    assert listening_on(port) == ["0100007F"]
    with pytest.raises(DeviceError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        StateServer(program, port=port)


def test_addresses_that_cannot_be_are_refused():
    config = find_config("mixed")
    for address in ("localhost", ":80", "host:port"):
        with pytest.raises(ConfigError, match="must have the form host:port"):
            RemoteTwin(config, address=address)
    # made without one, it is told at the first question what to do
    twin = RemoteTwin(config)
    assert twin.frame_shape("far_field") == (512, 512)
    with pytest.raises(DeviceError, match="has no address .*'dfxrm serve mixed'"):
        twin.position("chi")


def test_the_twin_of_a_configuration_is_made_or_refused_in_a_sentence(small):
    config = find_config(str(small("epics")))
    assert config.backend is None
    assert isinstance(make_twin(config), Twin)
    with pytest.raises(ConfigError, match="says nowhere which twin"):
        make_twin(find_config(str(small("epics", "serve: null\n", name="none"))))
    with pytest.raises(ConfigError, match="serve.twin.backend: module 'simulators' has no 'Twine'"):
        make_twin(find_config(str(small("epics", "serve: {twin: {backend: 'simulators:Twine'}}\n", name="typo"))))
    with pytest.raises(
        ConfigError, match="serve.twin.options: there is no option 'colour'; simulators:Twin takes sample, "
    ):
        make_twin(find_config(str(small("epics", "serve: {twin: {options: {colour: red}}}\n", name="option"))))
