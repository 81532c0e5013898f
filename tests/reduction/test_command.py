import pytest

from dfxrm_control.errors import FileFormatError
from dfxrm_control.reduction import CommandAxis, parse_title


@pytest.mark.parametrize(
    ("title", "axes", "points", "line", "exposure"),
    [
        (
            "fscan2d chi -0.5 0.08 26 diffry 7 0.06 37 0.5 0.500417",
            [("chi", -0.5, 0.08, 26), ("diffry", 7, 0.06, 37)],
            962,
            37,
            0.5,
        ),
        ("fscan mu 0.29 0.001 150 0.5 0.580407", [("mu", 0.29, 0.001, 150)], 150, 150, 0.5),
        (
            "fscan3d obpitch 18 -0.1 2 chi 0 1 3 mu 0 1 4 1 1",
            [("obpitch", 18, -0.1, 2), ("chi", 0, 1, 3), ("mu", 0, 1, 4)],
            24,
            4,
            1.0,
        ),
        ("ascan mu 1 2 4 0.1", [("mu", 1, 0.25, 5)], 5, 5, 0.1),
        ("dscan mu -1 1 20 0.1", [("mu", -1, 0.1, 21)], 21, 21, 0.1),
        ("a2scan mu 1 2 chi 5 3 4 0.1", [("mu", 1, 0.25, 5), ("chi", 5, -0.5, 5)], 5, 5, 0.1),
        ("amesh mu 0 1 4 chi 0 2 2 0.1", [("chi", 0, 1, 3), ("mu", 0, 0.25, 5)], 15, 5, 0.1),
        ("loopscan 100 0.5", [], 100, 100, 0.5),
    ],
)
def test_titles_of_bliss(title, axes, points, line, exposure):
    command = parse_title(title)
    assert [(a.name, a.start, pytest.approx(a.step), a.num) for a in command.axes] == axes
    assert (command.points, command.line_length, command.exposure_s) == (points, line, exposure)
    assert command.together == title.startswith("a2")
    assert all(isinstance(axis, CommandAxis) for axis in command.axes)


@pytest.mark.parametrize(
    "title", ["", "ct 1", "fscan mu 0 0.1", "fscan mu 0 0.1 ten 1 1", "fscan mu 0 0.1 0 1 1", "ascan mu"]
)
def test_titles_that_are_no_scan(title):
    with pytest.raises(FileFormatError, match="title"):
        parse_title(title)
