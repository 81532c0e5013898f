"""Every logical device with all axes and channels on Tango keeps the contract, by the tests of `test_contract`."""

import json

import bluesky.plans as bp
import pytest
from fake_backend import Microscope, configuration
from tango_server import Server
from test_contract import (  # noqa: F401
    test_data_keys_are_valid_and_of_one_device_only,
    test_data_keys_of_cameras,
    test_data_keys_of_channels,
    test_data_keys_of_computed_axes,
    test_data_keys_of_motors,
    test_every_part_of_every_device_is_in_the_tables,
    test_instances_can_be_walked_and_connect,
)

import devices
from devices.tango import TangoAxis, TangoCamera, TangoChannel, TangoShutter
from dfxrm_control.config import MicroscopeConfig
from simulators.tango import parts_of


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tango")
    path = folder / "config.json"
    path.write_text(on_tango(lambda device, attribute="": f"{device}/{attribute}" if attribute else device))
    config = MicroscopeConfig.model_validate_json(path.read_text())
    server = Server({part.device: part.kind for part in parts_of(config)}, folder / "server.log", config=path)
    yield server
    server.close()


def on_tango(address):
    """The configuration with all its parts on Tango devices."""
    content = configuration().model_dump(mode="json")
    for name, parts in content["devices"].items():
        for axis, of in parts["axes"].items():
            of.update(control="tango", address=address(f"t/axis/{axis}"))
        for channel, of in parts["channels"].items():
            place = CHANNELS.get(channel, (f"t/channel/{channel}", "Value"))
            of.update(control="tango", address=address(*place))
        if parts.get("camera"):
            parts["camera"].update(control="tango", address=address(f"t/camera/{name}"))
    return json.dumps(content)


CHANNELS = {"shutter": ("t/beam/shutter", ""), "ring_current": ("t/machine/status", "SR_Current")}


@pytest.fixture(scope="module")
def microscope(server):
    config = MicroscopeConfig.model_validate_json(on_tango(server.address))
    return Microscope(config, None)


def test_everything_is_on_tango(microscope):
    assert devices.Goniometer.chi.cls is devices.Motor and type(microscope.goniometer.chi) is TangoAxis
    assert devices.Beam.shutter.cls is devices.Shutter and type(microscope.beam.shutter) is TangoShutter
    assert type(microscope.beam.ring_current) is TangoChannel
    assert type(microscope.far_field.camera) is TangoCamera


def test_a_stock_plan_with_axes_and_channels(microscope, server, run_engine):
    chi, current, shutter = microscope.goniometer.chi, microscope.beam.ring_current, microscope.beam.shutter
    shutter.set("open").wait(15.0)
    events = []
    plan = bp.rel_scan([current, shutter], chi, -1, 1, 5)
    run_engine(plan, {"event": lambda _, doc: events.append(doc["data"])})
    assert [event["chi"] for event in events] == pytest.approx([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert {event["shutter"] for event in events} == {"open"} and {event["ring_current"] for event in events} == {200.0}
    assert server.proxy("t/axis/chi").Position == 0.0
