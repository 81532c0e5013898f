"""The Tango layer against what others wrote: PyTango's database on SQLite, and Debian's TangoTest device."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tango_server import Database, Server

from devices.tango import TangoAxis, TangoSignal
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import DeviceError

WAIT_S = 15.0
TANGO_TEST = shutil.which("TangoTest") or "/usr/lib/tango/TangoTest"


@pytest.mark.slow
def test_devices_of_a_database_need_no_address_of_their_own(tmp_path):
    devices = {"t/m/listed": "Motor"}
    database = Database(tmp_path)
    try:
        server = Server(devices, tmp_path / "server.log", database=database)
        try:
            address = server.address("t/m/listed")
            assert address == f"tango://127.0.0.1:{database.port}/t/m/listed"
            axis = TangoAxis(name="chi", config=AxisConfig(address=address, limits=(-9.0, 9.0)))
            for target in (2.0, -1.0):
                axis.set(target).wait(WAIT_S)
                assert axis.position == target
            assert axis.mode == "change" and axis.hardware_limits == (-10.0, 10.0)
        finally:
            server.close()
    finally:
        database.close()


@pytest.fixture(scope="module")
def tango_test(tmp_path_factory):
    if not Path(TANGO_TEST).exists():
        pytest.skip("TangoTest (Debian's package tango-test) is not installed")
    command = [TANGO_TEST, "test", "-nodb", "-dlist", "sys/tg_test/1", "-ORBendPoint", "giop:tcp:127.0.0.1:{port}"]
    server = Server({"sys/tg_test/1": "TangoTest"}, tmp_path_factory.mktemp("tango") / "server.log", command)
    yield lambda attribute: TangoSignal(server.address("sys/tg_test/1", attribute), name="value")
    server.close()


@pytest.mark.parametrize(
    ("attribute", "dtype", "numpy_type"),
    [
        ("double_scalar_w", "number", "<f8"),
        ("float_scalar", "number", "<f4"),
        ("short_scalar_w", "integer", "<i2"),
        ("long_scalar_w", "integer", "<i4"),
        ("ulong64_scalar", "integer", "<u8"),
        ("uchar_scalar", "integer", "|u1"),
        ("boolean_scalar", "boolean", "|b1"),
        ("string_scalar", "string", None),
    ],
)
def test_scalars_of_tango_test(tango_test, attribute, dtype, numpy_type):
    signal = tango_test(attribute)
    key = signal.describe()["value"]
    assert (key["dtype"], key.get("dtype_numpy"), key["shape"]) == (dtype, numpy_type, [])
    asked = {"string": "deg", "boolean": False}.get(dtype, 7)
    if signal.description.writable and not attribute.endswith(("float_scalar", "ulong64_scalar", "uchar_scalar")):
        signal.set(asked).wait(WAIT_S)
        assert signal.get() == asked


@pytest.mark.parametrize(("attribute", "rank"), [("double_spectrum_ro", 1), ("long_image_ro", 2)])
def test_arrays_of_tango_test(tango_test, attribute, rank):
    signal = tango_test(attribute)
    shape = signal.describe()["value"]["shape"]
    assert len(shape) == rank and list(np.shape(signal.get())) == shape


def test_what_tango_test_refuses(tango_test):
    with pytest.raises(DeviceError, match="refused to read throw_exception"):
        tango_test("throw_exception").read()
    assert tango_test("State").get() == "RUNNING"
    with pytest.raises(DeviceError, match="sys/tg_test/1/no_value.*not valid|refused to read no_value"):
        tango_test("no_value").read()
