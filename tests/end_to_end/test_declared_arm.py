"""Maps of a microscope whose axes do not read where they stand, as an alignment has found and declared."""

import pytest

from dfxrm_control.reduction import maps_from_file

HIDDEN = {"two_theta": 0.1, "obz": 0.1, "oby": -0.05, "ffy": -0.85}


def test_what_was_declared_is_taken_off_wherever_a_view_is_worked_out(open_session):
    """Scans with and without the arm lie on one grid, about the rotation centre, and only then go together."""
    text = ", ".join(f"{axis}: {away}" for axis, away in HIDDEN.items())
    settings = (f"backend.options.misalignment={{{text}}}", "scan.darks=5", "sample.spread_deg=0.02")
    session = open_session(*settings)
    arm = session.axes["two_theta"]
    angle = arm.readback()
    session.move([(arm, angle - HIDDEN["two_theta"])])
    session.move([(axis := session.axes[name], axis.readback() - HIDDEN[name]) for name in ("obz", "oby", "ffy")])
    truth = session.backend.view("far_field")
    assert truth.two_theta_deg == pytest.approx(angle, abs=1e-4)
    assert max(abs(truth.offset_u_mm), abs(truth.offset_v_mm)) < 1e-3
    session.channels["two_theta_zero"].put(angle)

    found = [
        maps_from_file(session.run(plan, {"exposure_s": 0.3}).master) for plan in ("mosaicity_scan", "strain_scan")
    ]
    # the next session knows of it, and its arm goes where the last one had it
    session.close()
    session = open_session(*settings)
    session.move([(session.axes["two_theta"], angle)])
    session.move([(axis := session.axes[name], axis.readback() - HIDDEN[name]) for name in ("oby", "ffy")])
    found.append(maps_from_file(session.run("mosaicity_scan", {"exposure_s": 0.3}).master))
    for maps in found:
        assert maps.x[[0, -1]].mean() == pytest.approx(0.0, abs=0.5 * truth.pixel_x_um)
        assert maps.y[[0, -1]].mean() == pytest.approx(0.0, abs=0.5 * truth.pixel_y_um)
        assert maps.x[1] - maps.x[0] == pytest.approx(truth.pixel_x_um, rel=1e-3)
    for maps in found[1:]:
        assert found[0].x == pytest.approx(maps.x, abs=0.1 * truth.pixel_x_um)
        assert found[0].y == pytest.approx(maps.y, abs=0.1 * truth.pixel_y_um)
