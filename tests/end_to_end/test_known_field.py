"""The maps of scans of the noisy twin, read back from the files, against the field that is known.

The limits are those of the instrument: 1 mdeg on pixels that saw 15,000 photons, slope 1.00 +- 0.02, and errors that
are no larger than 1.3 times what the maps predict; inside sub-grains, where a pixel's place does not matter, no larger
than 1.3 times what noise alone predicts.
"""

import numpy as np
import pytest

from dfxrm_control.reduction import maps_from_file
from simulators.truth import known_field

PHOTONS = 15_000
MDEG = 1e-3


def scan_and_truth(session, **parameters):
    outcome = session.run("mosaicity_scan", {"exposure_s": 0.5, **parameters})
    return maps_from_file(outcome.master), known_field(session.backend, ("chi", "phi"))


def check_against(maps, known):
    bright = maps.photons >= PHOTONS
    assert bright.mean() > 0.5
    for number, name in enumerate(("chi", "phi")):
        found, expected, predicted = maps[name].com, known.com[number], maps[name].error
        error = found - expected
        assert np.ptp(expected[bright]) > 20 * MDEG
        assert np.sqrt(np.mean(error[bright] ** 2)) <= 1.0 * MDEG, name
        slope = np.polyfit(expected[bright], found[bright], 1)[0]
        assert slope == pytest.approx(1.0, abs=0.02), name
        known_enough = maps.valid & np.isfinite(expected)
        pull = error[known_enough] / predicted[known_enough]
        assert 0.5 < np.sqrt(np.mean(pull**2)) <= 1.3, name
        inside = known_enough & (predicted < 1.1 * maps[name].noise_error)
        assert inside.mean() > 0.2
        pull = error[inside] / maps[name].noise_error[inside]
        assert 0.5 < np.sqrt(np.mean(pull**2)) <= 1.3, name


SAMPLE = "backend.options.sample_options="


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ((), {}),
        ((SAMPLE + "{spread_deg: 0.02}",), {}),
        ((SAMPLE + "{strain: 1.0e-4}",), {}),
        # one sigma of the instrument off the middle of the window
        ((), {"rock_center": 0.0104, "roll_center": 0.057}),
        ((SAMPLE + "{bend_deg: 0.03}",), {"snake": False}),
    ],
    ids=["sub-grains", "local spread", "strain of 1e-4", "peak off centre", "bent, no snake"],
)
def test_tilt_maps_agree_with_the_known_field(open_session, settings, parameters):
    session = open_session("backend.options.photons_per_s=15000.0", *settings)
    check_against(*scan_and_truth(session, **parameters))


def test_a_known_tilt_comes_back_with_its_sign(open_session):
    # +0.03 deg about y is met by phi = -0.03, -0.02 deg about x by chi = +0.02
    session = open_session(
        "backend.options.sample=perfect_crystal", SAMPLE + "{tilt_deg: [-0.02, 0.03, 0.0]}", "scan.darks=20"
    )
    outcome = session.run("mosaicity_scan", {"exposure_s": 0.5})
    maps = maps_from_file(outcome.master)
    assert maps.valid.all()
    assert np.median(maps["phi"].com) == pytest.approx(-0.03, abs=0.3 * MDEG)
    assert np.median(maps["chi"].com) == pytest.approx(0.02, abs=1.0 * MDEG)
