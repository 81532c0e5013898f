import sys

import pytest

OURS = ("dfxrm_control", "simulators")
# says both of its types in its decorator
DECLARED = {"simulators.imaging._project": 2}


def compiled():
    """Return the types each cached compiled function of ours has been called with in this process, by name."""
    from numba.core.dispatcher import Dispatcher

    found = {}
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] in OURS]:
        for function in vars(module).values():
            if isinstance(function, Dispatcher) and function.stats.cache_path is not None:
                found[f"{function.py_func.__module__}.{function.py_func.__name__}"] = function.signatures
    return found


@pytest.fixture(scope="session", autouse=True)
def one_type_per_compiled_function():
    """Fail where a cached function was compiled for several types: processes that do so at once spoil its cache."""
    yield
    if "numba" in sys.modules:
        several = {name: types for name, types in compiled().items() if len(types) > DECLARED.get(name, 1)}
        assert not several, several
