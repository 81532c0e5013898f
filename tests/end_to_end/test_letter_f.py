"""The letter F must read upright on the sample, however it is turned and however the camera is mounted."""

import numpy as np
import pytest

from dfxrm_control.reduction import maps_from_file

# where the strokes are on the sample (um), and which (chi, phi) meet their lattice (deg): minus their tilts about x, y
STROKES = {
    "stem": ((-4.2, -3.0), (-0.03, 0.02)),
    "top arm": ((2.5, 6.6), (0.04, -0.05)),
    "middle arm": ((0.5, 0.6), (-0.05, -0.02)),
}
NOTHING = {"below the top arm": (3.5, 3.0), "below the middle arm": (2.0, -4.0)}


def value_at(maps, values, point):
    """Return the median of a map within 0.4 um of a point of the sample."""
    x, y = np.meshgrid(maps.x, maps.y, indexing="ij")
    on_x, on_y = maps.to_sample(x, y)
    near = np.hypot(on_x - point[0], on_y - point[1]) < 0.4
    assert near.sum() >= 5, f"the field does not reach {point}"
    return np.median(values[near])


@pytest.mark.slow
@pytest.mark.parametrize("omega", [0.0, 90.0])
@pytest.mark.parametrize(("flip_ud", "flip_lr"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_letter_is_upright(open_session, omega, flip_ud, flip_lr):
    session = open_session(
        "instrument.cameras.far_field.rows=160",
        "instrument.cameras.far_field.columns=512",
        f"instrument.cameras.far_field.flip_ud={str(flip_ud).lower()}",
        f"instrument.cameras.far_field.flip_lr={str(flip_lr).lower()}",
        "devices.goniometer.axes.omega.limits=[-180.0, 180.0]",
        "scan.darks=10",
        "sample.spread_deg=0.06",
        config="f_letter",
    )
    session.move([(session.axes["omega"], omega)])
    outcome = session.run("mosaicity_scan", {"exposure_s": 0.5})
    maps = maps_from_file(outcome.master)
    bright = np.percentile(maps.integrated, 95)
    for point, (chi, phi) in STROKES.values():
        assert value_at(maps, maps.integrated, point) > 0.5 * bright
        assert value_at(maps, maps["chi"].com, point) == pytest.approx(chi, abs=4e-3)
        assert value_at(maps, maps["phi"].com, point) == pytest.approx(phi, abs=4e-3)
    for point in NOTHING.values():
        assert value_at(maps, maps.integrated, point) < 0.1 * bright
