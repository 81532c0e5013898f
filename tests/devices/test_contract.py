import pickle

import event_model
import pytest
from bluesky.protocols import Checkable, Locatable, Readable, Stoppable
from contract import CAMERAS, CHANNELS, COMPUTED, KINDS, MOTORS, motor, plain, settings
from fake_backend import axis, backend_for, build, configuration
from ophyd import Device, Kind

import devices
from devices import Axis, Channel, LogicalDevice, Motor, Shutter
from dfxrm_control.acquisition import FrameCamera
from dfxrm_control.errors import ConfigError

# ophyd's word for a device that is read and has a configuration
READ = Kind.normal | Kind.config
CLASSES = [
    getattr(devices, name)
    for name in devices.__all__
    if isinstance(getattr(devices, name), type) and issubclass(getattr(devices, name), LogicalDevice)
]


@pytest.mark.parametrize("name", MOTORS)
def test_data_keys_of_motors(microscope, name):
    device, units, limits, precision = MOTORS[name]
    part = getattr(getattr(microscope, device), name)
    assert part.name == name
    assert plain(part.describe()) == motor(name, units, limits, precision)
    assert plain(part.describe_configuration()) == settings(name, units)
    assert set(part.read()) == set(part.describe())
    assert set(part.read_configuration()) == set(part.describe_configuration())
    assert part.hints == {"fields": [name]}
    assert part.kind == KINDS.get(name, READ)
    assert all(isinstance(part, protocol) for protocol in (Axis, Readable, Locatable, Checkable, Stoppable))


@pytest.mark.parametrize("name", COMPUTED)
def test_data_keys_of_computed_axes(microscope, name):
    device, units, precision = COMPUTED[name]
    part = getattr(getattr(microscope, device), name)
    assert part.name == name
    assert plain(part.describe()) == motor(name, units, part.limits, precision)
    assert set(part.read()) == set(part.describe())
    assert part.hints == {"fields": [name]}
    assert part.kind == READ


@pytest.mark.parametrize("name", CHANNELS)
def test_data_keys_of_channels(microscope, name):
    device, key = CHANNELS[name]
    part = getattr(getattr(microscope, device), name)
    assert part.name == name
    assert plain(part.describe()) == {name: key}
    assert set(part.read()) == {name}
    assert part.kind == KINDS.get(name, Kind.normal)


@pytest.mark.parametrize("name", CAMERAS)
def test_data_keys_of_cameras(microscope, name):
    camera = getattr(microscope, name)
    assert isinstance(camera, FrameCamera)
    assert camera.describe()[name] == {
        "source": f"camera:{name}",
        "dtype": "array",
        "dtype_numpy": "<u2",
        "shape": [1, *CAMERAS[name]],
        "external": "STREAM:",
    }
    assert camera.read() == {}
    assert set(camera.describe_configuration()) == {f"{name}_exposure"}
    assert camera.hints == {"fields": []}


def test_every_part_of_every_device_is_in_the_tables(microscope):
    known = {*MOTORS, *COMPUTED, *CHANNELS, "two_theta_disagreement", "far_field_exposure", "near_field_exposure"}
    known |= {"two_theta_zero", "furnace_over_temperature", "furnace_safe_temperature"}
    parts = {
        getattr(device, attribute).name
        for device in microscope.devices.values()
        for attribute in device.component_names
    }
    assert parts == known


def test_data_keys_are_valid_and_of_one_device_only(microscope):
    keys = [key for device in microscope.devices.values() for key in device.describe()]
    assert len(keys) == len(set(keys))
    compose = event_model.compose_run().compose_descriptor
    everything = {key: value for device in microscope.devices.values() for key, value in device.describe().items()}
    compose("all", everything)


@pytest.mark.parametrize("cls", CLASSES)
def test_classes_can_be_walked_without_an_instance_and_pickled(cls):
    assert pickle.loads(pickle.dumps(cls)) is cls
    walked = {walk.dotted_name: walk.item.cls for walk in cls.walk_components()}
    for attribute in cls.component_names:
        assert attribute in walked
        if issubclass(walked[attribute], Motor):
            assert f"{attribute}.velocity" in walked
    assert all(
        issubclass(part, Device | Channel) or part.__module__.startswith(("devices", "ophyd"))
        for part in walked.values()
    )


def test_instances_can_be_walked_and_connect(microscope):
    for device in microscope.devices.values():
        device.wait_for_connection(timeout=1.0)
        signals = [walk.item.name for walk in device.walk_signals()]
        assert len(signals) == len(set(signals))


def test_the_concrete_class_comes_from_the_configuration(microscope):
    assert devices.Goniometer.chi.cls is Motor and type(microscope.goniometer.chi) is devices.MemoryAxis
    assert devices.Beam.shutter.cls is Shutter and type(microscope.beam.shutter) is devices.MemoryShutter


def test_an_address_may_differ_from_the_logical_name():
    config = configuration(goniometer__axes__mu=axis(low=0.0, high=20.0, start=9.0, address="diffry"))
    mu = build(config, backend_for(config))["goniometer"].mu
    assert set(mu.read()) == {"mu", "mu_setpoint"} and mu.describe()["mu"]["source"] == "memory:diffry"
    mu.set(9.5).wait(5.0)
    assert mu.position == 9.5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"goniometer__axes__chi": None}, "devices.goniometer.axes: Goniometer also needs chi"),
        ({"goniometer__axes__kappa": axis()}, "devices.goniometer.axes: Goniometer has no kappa; it has chi, mu, "),
        ({"beam__channels__shutter": None}, "devices.beam.channels: Beam also needs shutter"),
        (
            {"far_field__camera": {"control": "tango"}},
            "camera far_field is on Tango and needs an address domain/family/member",
        ),
        ({"far_field__camera": None}, "devices.far_field: a detector needs a camera"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_sentence(changes, sentence):
    config = configuration(**changes)
    with pytest.raises(ConfigError) as caught:
        build(config, backend_for(config))
    assert str(caught.value).startswith(sentence)


def test_without_a_backend_nothing_is_in_memory():
    config = configuration()
    with pytest.raises(ConfigError, match="axis mu is in memory, but the configuration has no backend"):
        build(config, None)


def test_an_axis_that_the_backend_lacks_says_so_when_it_is_read():
    config = configuration()
    backend = backend_for(config)
    del backend.moves["chi"]
    goniometer = build(config, backend)["goniometer"]
    with pytest.raises(Exception, match="there is no axis 'chi'"):
        goniometer.chi.read()
    goniometer.phi.read()
