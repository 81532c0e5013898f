from __future__ import annotations

from importlib.resources import as_file, files

import pytest

from dfxrm_control.backend import FrameRequest
from dfxrm_control.config import load_config
from simulators import Twin


@pytest.mark.parametrize("name", ["simulated", "f_letter", "crl_id03", "mll", "silicon"])
def test_each_simulated_microscope_sees_its_sample_at_once(name):
    with as_file(files("configs") / f"{name}.yml") as path:
        config = load_config(path)
    assert config.backend is not None
    twin = Twin(config, **{**config.backend.options, "clock": "fast"})
    dark = twin.expose(FrameRequest("far_field", 0.1)).data
    twin.put("shutter", "open")
    lit = twin.expose(FrameRequest("far_field", 0.1)).data
    # a dark has the same mean to 4 ADU over the root of its pixels
    assert lit.mean() > dark.mean() + 1.0
