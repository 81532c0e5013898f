"""Every logical device with all axes and channels on Tango keeps the contract, by the tests of `test_contract`."""

import bluesky.plans as bp
import pytest
from contract import MOTORS
from fake_backend import Microscope, backend_for, configuration
from tango_server import Server
from test_contract import (  # noqa: F401
    test_data_keys_are_valid_and_of_one_device_only,
    test_data_keys_of_channels,
    test_data_keys_of_computed_axes,
    test_data_keys_of_motors,
    test_every_part_of_every_device_is_in_the_tables,
    test_instances_can_be_walked_and_connect,
)

import devices
from devices.tango import TangoAxis, TangoChannel, TangoShutter
from dfxrm_control.config import MicroscopeConfig

CHANNELS = {
    "objective_in": ("t/ring/places", "LensPlace"),
    "mono": ("t/ring/places", "LensPlace"),
    "objective_kind": ("t/ring/kind", "Kind"),
    "far_field_camera_objective": ("t/ring/eye", "Kind"),
    "condenser": ("t/ring/condenser", "Kind"),
    "attenuator": ("t/ring/places", "Attenuator"),
    "ring_current": ("t/ring/places", "Current"),
    "monitor": ("t/ring/places", "Counts"),
    "shutter": ("t/beam/shutter", ""),
}
WORDS = {"t/ring/kind": "crl", "t/ring/eye": "2x", "t/ring/condenser": "line"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    rings = dict.fromkeys((device for device, attribute in CHANNELS.values() if attribute), "Ring")
    motors = {f"t/motor/{name}": "Motor" for name in MOTORS}
    server = Server({**motors, **rings, "t/beam/shutter": "Shutter"}, tmp_path_factory.mktemp("tango") / "server.log")
    for device, word in WORDS.items():
        server.proxy(device).Kind = word
    yield server
    server.close()


@pytest.fixture(scope="module")
def microscope(server):
    """All axes and channels on Tango; cameras in memory."""
    content = configuration().model_dump(mode="json")
    for parts in content["devices"].values():
        for name, axis in parts["axes"].items():
            server.proxy(f"t/motor/{name}").Place(axis["start"])
            axis.update(control="tango", address=server.address(f"t/motor/{name}"))
        for name, channel in parts["channels"].items():
            channel.update(control="tango", address=server.address(*CHANNELS[name]))
    return Microscope(MicroscopeConfig.model_validate(content), backend_for(configuration()))


def test_everything_is_on_tango(microscope):
    assert devices.Goniometer.chi.cls is devices.Motor and type(microscope.goniometer.chi) is TangoAxis
    assert devices.Beam.shutter.cls is devices.Shutter and type(microscope.beam.shutter) is TangoShutter
    assert type(microscope.beam.ring_current) is TangoChannel


def test_a_stock_plan_with_axes_and_channels(microscope, server, run_engine):
    chi, current, shutter = microscope.goniometer.chi, microscope.beam.ring_current, microscope.beam.shutter
    shutter.set("open").wait(15.0)
    events = []
    plan = bp.rel_scan([current, shutter], chi, -1, 1, 5)
    run_engine(plan, {"event": lambda _, doc: events.append(doc["data"])})
    assert [event["chi"] for event in events] == pytest.approx([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert {event["shutter"] for event in events} == {"open"} and {event["ring_current"] for event in events} == {200.0}
    assert server.proxy("t/motor/chi").Position == 0.0
