"""The models of plan parameters, and the flat keywords made from them."""

import inspect
import json
import subprocess
import sys
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plans
from dfxrm_control.errors import ParameterError
from dfxrm_control.parameters import PLAN_PARAMETERS, MosaicityParameters, RockingParameters
from plans import bind, mosaicity_scan, queue_annotation, strain_scan

PLANS = [getattr(plans, name) for name in PLAN_PARAMETERS]


def test_importing_them_costs_no_control_stack():
    code = "import sys, dfxrm_control.parameters; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"bluesky", "ophyd", "numpy", "scipy", "h5py", "numba"} & set(loaded)


@given(
    exposure_s=st.floats(1e-6, 3600),
    rock_range=st.one_of(st.none(), st.just("auto"), st.floats(1e-6, 180)),
    rock_num=st.one_of(st.none(), st.integers(2, 1000)),
    roll_step=st.one_of(st.none(), st.just("auto"), st.floats(1e-6, 180)),
    roll_center=st.one_of(st.none(), st.floats(-360, 360)),
    darks_before=st.one_of(st.none(), st.integers(0, 10_000)),
    snake=st.booleans(),
    after=st.sampled_from([None, "start", "stay"]),
)
def test_what_is_recorded_gives_the_same_parameters_again(**values):
    parameters = MosaicityParameters.check(values)
    record = json.loads(json.dumps(parameters.record()))
    assert record["model"] == "MosaicityParameters" and record["version"] == 1
    assert MosaicityParameters.check(record["values"]) == parameters


@given(
    name=st.sampled_from(["rock_range", "rock_step", "exposure_s"]),
    value=st.one_of(st.floats(max_value=0), st.just(float("nan"))),
)
def test_nothing_of_no_size_passes(name, value):
    with pytest.raises(ParameterError) as caught:
        MosaicityParameters.check({name: value})
    assert f"mosaicity_scan: {name}: " in str(caught.value) and "\n" not in str(caught.value)


BAD = [
    ({"rock_step": 0.1, "rock_num": 3}, "mosaicity_scan: rock_step and rock_num are both given; give one of them"),
    ({"rock_step": 0.5, "rock_range": 0.2}, "rock_step 0.5 deg is larger than rock_range 0.2 deg"),
    ({"roll_step": 1e-4, "roll_range": 180}, "roll_range 180 deg in steps of 0.0001 deg is more than 100000 points"),
    ({"rock": "phi", "roll": "phi"}, "rock and roll are both 'phi'; a mesh needs two axes"),
    ({"rock_num": 1}, "rock_num: Input should be greater than or equal to 2 (got 1)"),
    ({"exposure_s": "long"}, "exposure_s: Input should be a valid number"),
    ({"after": "home"}, "after: Input should be 'start' or 'stay' (got 'home')"),
    ({"darks": 3}, "there is no parameter 'darks'; it takes exposure_s, camera, darks_before"),
    ({"rock": "../phi"}, "rock: String should match pattern"),
    ({"rock_range": float("inf")}, "rock_range: Input should be a finite number"),
]


@pytest.mark.parametrize(("values", "sentence"), BAD)
def test_bad_values_are_told_in_one_sentence(values, sentence):
    with pytest.raises(ParameterError) as caught:
        MosaicityParameters.check(values)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("plan", PLANS, ids=PLAN_PARAMETERS)
def test_keywords_are_those_of_the_model(plan, instrument):
    model = PLAN_PARAMETERS[plan.__name__]
    bound = bind(plan, instrument)
    assert inspect.isgeneratorfunction(plan) and inspect.isgeneratorfunction(bound)
    assert bound.__name__ == plan.__name__ == model.plan
    signature = inspect.signature(bound)
    assert [*signature.parameters] == [*model.model_fields, "md"]
    for name, parameter in signature.parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if name != "md":
            required = model.model_fields[name].is_required()
            default = inspect.Parameter.empty if required else model.model_fields[name].default
            assert parameter.default == default
            assert name in bound.__doc__ and "Undefined" not in bound.__doc__
    assert "instrument" not in signature.parameters and "instrument : " not in bound.__doc__
    assert next(iter(inspect.signature(plan).parameters)) == "instrument"
    for name, unit in model.units().items():
        assert f"[{unit}]" in bound.__doc__.partition(f"\n{name} : ")[2].partition("\n")[2].partition("\n")[0]


def test_every_length_and_time_has_a_unit():
    for model in PLAN_PARAMETERS.values():
        numbers = {name for name, field in model.model_fields.items() if "float" in str(field.annotation)}
        shares = {name for name in numbers if any(getattr(m, "le", 0) == 1 for m in model.model_fields[name].metadata)}
        assert numbers - shares == set(model.units())


def test_annotations_for_a_queue_server_have_bounds():
    annotation = queue_annotation(bind(mosaicity_scan, None))["parameters"]
    assert annotation["exposure_s"]["annotation"] == "float" and 0 < annotation["exposure_s"]["min"] < 1e-6
    assert annotation["rock_num"] == {
        "description": "number of points, instead of a step.",
        "annotation": "typing.Union[int, None]",
        "min": 2,
        "max": 100_000,
    }
    assert queue_annotation(strain_scan)["parameters"]["axis"]["annotation"] == "typing.Literal['two_theta', 'ccmth']"
    for plan in PLANS:
        for entry in queue_annotation(plan)["parameters"].values():
            assert eval(entry["annotation"], {"typing": typing}) is not None  # noqa: S307
    queue = pytest.importorskip("bluesky_queueserver")
    for plan in PLANS:
        queue.parameter_annotation_decorator(queue_annotation(plan))(bind(plan, None))


def test_rocking_knows_nothing_of_rolling():
    with pytest.raises(ParameterError, match="rocking_scan: there is no parameter 'roll_range'"):
        RockingParameters.check({"roll_range": 1.0})
