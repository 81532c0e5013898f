"""Every import string of every configuration names what it should."""

import importlib.util
import inspect

import pytest
from ophyd import Device

from dfxrm_control.backend import Backend
from dfxrm_control.config import config_names, find_config
from dfxrm_control.errors import ConfigError
from dfxrm_control.parameters import PLAN_PARAMETERS
from dfxrm_control.session import resolve

# what was recorded cannot be aligned
WITHOUT = {"replay": {"find_beam", "align", "align_objective"}}


@pytest.mark.parametrize("name", config_names())
def test_devices_are_ophyd_devices(name):
    for device in find_config(name).devices.values():
        assert issubclass(resolve(device.device, name), Device)


@pytest.mark.parametrize("name", config_names())
def test_plans_are_plans_of_their_parameter_models(name):
    config = find_config(name)
    assert set(config.plans) == set(PLAN_PARAMETERS) - WITHOUT.get(name, set())
    for plan_name, import_string in config.plans.items():
        plan = resolve(import_string, name)
        assert plan.__name__ == plan_name
        assert plan.parameters is PLAN_PARAMETERS[plan_name]
        assert inspect.isgeneratorfunction(plan)


@pytest.mark.parametrize("name", config_names())
def test_backends_are_backends(name):
    config = find_config(name)
    named = [each.backend for each in (config.backend, config.serve.twin) if each is not None]
    # what has none of its own has one that can be served in its place
    assert named
    for import_string in (*named, config.serve.client):
        backend = resolve(import_string, name)
        missing = [
            part for part in vars(Backend) if not part.startswith("_") and not callable(getattr(backend, part, None))
        ]
        assert not missing


@pytest.mark.parametrize("name", config_names())
def test_servers_are_modules_that_can_be_run(name):
    serve = find_config(name).serve
    for module in (serve.state_server, *serve.servers.values()):
        spec = importlib.util.find_spec(module)
        assert spec is not None
        if spec.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", config_names())
def test_what_binds_devices_to_plans_is_there(name):
    session = find_config(name).session
    assert callable(resolve(session.instrument, name).from_config)
    assert callable(resolve(session.bind, name))
    assert all(callable(resolve(preprocessor, name)) for preprocessor in session.preprocessors)


@pytest.mark.parametrize("name", config_names())
def test_parameters_given_by_a_configuration_are_valid(name):
    for plan, values in find_config(name).scan.parameters.items():
        PLAN_PARAMETERS[plan].check(values)


@pytest.mark.parametrize(
    ("import_string", "told"),
    [
        ("devices:Goniomter", "module 'devices' has no 'Goniomter'; it has .*Goniometer"),
        ("no_such_package:X", "module 'no_such_package' .* cannot be imported"),
        ("devices.Goniometer", "is no import string"),
    ],
)
def test_a_string_that_names_nothing_is_told(import_string, told):
    with pytest.raises(ConfigError, match=told):
        resolve(import_string, "devices.goniometer.device")
