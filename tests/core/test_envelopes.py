"""Boxes that must not meet: distances in exact numbers, and nothing missed on the way."""

import math

import numpy as np
import pytest

from dfxrm_control.config import BodyConfig, find_config, override
from dfxrm_control.envelopes import Envelopes
from dfxrm_control.errors import ConfigError, EnvelopeError

X = {"axis": "ax", "along": "x"}
Z = {"axis": "az", "along": "z"}


def envelopes(limits=None, **bodies):
    return Envelopes({name: BodyConfig(**body) for name, body in bodies.items()}, limits)


def box(*motions, size=(10, 10, 10), centre=(0, 0, 0), **more):
    return {"size": size, "centre": centre, "motions": motions, **more}


@pytest.fixture
def corridor():
    """A box that goes along x and z past a fixed one of the same size, 10 mm each."""
    return envelopes(cart=box(X, Z, clearance=2.0), wall=box(centre=(100, 0, 0)))


@pytest.mark.parametrize(
    ("position", "distance"),
    [
        ((0.0, 0.0), 90.0),
        ((85.0, 0.0), 5.0),
        ((100.0, 13.0), 3.0),
        # corner to corner: 3 and 4 mm beside each other
        ((87.0, 14.0), 5.0),
        ((90.0, 0.0), 0.0),
        # 4 mm into it: the shortest way out is 4 mm
        ((94.0, 0.0), -4.0),
    ],
)
def test_distance_of_two_boxes(corridor, position, distance):
    at = dict(zip(("ax", "az"), position, strict=True))
    assert corridor.distance_mm("cart", "wall", at) == pytest.approx(distance, abs=1e-9)


def test_distance_of_a_turned_box():
    turned = envelopes(flag=box({"axis": "turn", "about": "y"}), wall=box(centre=(20, 0, 0)))
    assert turned.distance_mm("flag", "wall", {"turn": 0.0}) == pytest.approx(10.0, abs=1e-9)
    # an edge points at the wall: half a diagonal instead of half an edge
    assert turned.distance_mm("flag", "wall", {"turn": 45.0}) == pytest.approx(15.0 - 5 * math.sqrt(2), abs=1e-9)
    # both edges cross: the nearest points lie on edges of both
    crossed = envelopes(
        first=box({"axis": "turn", "about": "z"}),
        second=box({"axis": "roll", "about": "y"}, centre=(0, 0, 0)),
        far=box(),
    )
    assert crossed.distance_mm("first", "second", {"turn": 45.0, "roll": 45.0}) < 0


def test_a_box_turned_about_a_far_point_goes_round():
    arm = envelopes(
        arm=box({"axis": "turn", "about": "y", "sign": -1}, centre=(50, 0, 0)), above=box(centre=(0, 0, 50))
    )
    # positive with sign -1 lifts what points along +x
    assert arm.distance_mm("arm", "above", {"turn": 90.0}) == pytest.approx(-10.0, abs=1e-9)
    assert arm.distance_mm("arm", "above", {"turn": -90.0}) == pytest.approx(90.0, abs=1e-9)


def test_a_move_through_a_wall_is_refused_although_both_ends_are_free(corridor):
    with pytest.raises(EnvelopeError, match="cart and wall would come within 0 mm of each other, and must stay 2 mm"):
        corridor.check_move({"ax": 0.0, "az": 0.0}, {"ax": 200.0})
    corridor.check_move({"ax": 0.0, "az": 12.0}, {"ax": 200.0})


def test_the_distance_that_is_named_is_the_smallest_on_the_way(corridor):
    with pytest.raises(EnvelopeError, match=r"within 1\.5 mm"):
        corridor.check_move({"ax": 0.0, "az": 11.5}, {"ax": 200.0})


def test_motors_that_move_together_may_be_anywhere_on_their_ways(corridor):
    # straight from corner to corner it would pass 15 mm above the wall's middle, one after the other right through it
    corridor.check_move({"ax": 0.0, "az": 20.0}, {"ax": 200.0})
    with pytest.raises(EnvelopeError):
        corridor.check_move({"ax": 0.0, "az": 0.0}, {"ax": 200.0, "az": 60.0})


def test_a_turn_that_sweeps_over_a_body_is_refused():
    gate = envelopes(gate=box({"axis": "turn", "about": "z"}, size=(100, 2, 10)), post=box(centre=(30, 30, 0)))
    gate.check_move({"turn": 0.0}, {"turn": 25.0})
    with pytest.raises(EnvelopeError, match="gate and post"):
        gate.check_move({"turn": 0.0}, {"turn": 90.0})


def test_a_turn_is_judged_to_a_fiftieth_of_a_millimetre():
    # the far edge of the flag passes the wall at 5 sqrt(2) mm from the axis, whatever the ends of the turn
    def passes(gap):
        flag = envelopes(
            flag=box({"axis": "turn", "about": "y"}, clearance=1.0), wall=box(centre=(5 + 5 * math.sqrt(2) + gap, 0, 0))
        )
        try:
            flag.check_move({"turn": 0.0}, {"turn": 90.0})
        except EnvelopeError:
            return False
        return True

    assert passes(1.03)
    assert not passes(0.999)


def test_what_is_too_close_may_go_apart_and_not_closer(corridor):
    corridor.check_move({"ax": 89.5, "az": 0.0}, {"ax": 50.0})
    corridor.check_move({"ax": 92.0, "az": 0.0}, {"ax": 50.0})
    with pytest.raises(EnvelopeError, match=r"within 0\.4 mm"):
        corridor.check_move({"ax": 89.5, "az": 0.0}, {"ax": 89.6})
    with pytest.raises(EnvelopeError):
        corridor.check_move({"ax": 92.0, "az": 0.0}, {"ax": 150.0})


def test_one_motor_that_carries_both_brings_them_no_closer():
    train = envelopes(engine=box(X), wagon=box(X, centre=(12, 0, 0)))
    train.check_move({"ax": 0.0}, {"ax": 1000.0})


def test_a_body_that_is_away_meets_nothing():
    two = envelopes(lens=box(X, present={"lens_in": "in"}), wall=box(centre=(50, 0, 0)))
    two.check_move({"ax": 0.0}, {"ax": 100.0}, {"lens_in": "out"})
    for channels in ({"lens_in": "in"}, {}):
        with pytest.raises(EnvelopeError):
            two.check_move({"ax": 0.0}, {"ax": 100.0}, channels)


def test_bodies_that_may_meet_are_not_looked_at():
    joined = envelopes(lens=box(X, may_meet=("mount",)), mount=box())
    joined.check_move({"ax": 0.0}, {"ax": 1.0})
    assert not joined.axes


def test_a_motor_that_does_not_answer_may_be_anywhere_within_its_limits():
    bodies = {"lens": box(X), "camera": box({"axis": "cam", "along": "x"}, centre=(0, 0, 0))}
    near = envelopes({"ax": (0, 20), "cam": (20, 60)}, **bodies)
    with pytest.raises(
        EnvelopeError, match=r"lens and camera .* \(cam: position not known, so anywhere within limits\)"
    ):
        near.check({"ax": (0.0, 10.0)}, {}, {"ax": 0.0}, "ax cannot go to 10", moved=["ax"])
    envelopes({"cam": (40, 60)}, **bodies).check({"ax": (0.0, 10.0)}, {}, {}, "", moved=["ax"])
    with pytest.raises(EnvelopeError, match="not known where cam is, and it has no limits"):
        envelopes({}, **bodies).check({"ax": (0.0, 10.0)}, {}, {}, "", moved=["ax"])


def test_distances_agree_with_points_of_both_boxes():
    """Against brute force: no pair of points of two turned boxes is closer, and one is nearly as close."""
    rng = np.random.default_rng(3)
    two = envelopes(
        a=box({"axis": "ra", "about": "x"}, {"axis": "rb", "about": "z"}, size=(10, 20, 30)),
        b=box(X, {"axis": "rc", "about": "y"}, size=(12, 6, 18), centre=(0, 3, 0)),
    )
    steps = np.linspace(-0.5, 0.5, 13)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    surface = grid[np.abs(grid).max(axis=1) == 0.5]
    for _ in range(5):
        ra, rb, rc = rng.uniform(-90, 90, 3)
        at = {"ra": ra, "rb": rb, "rc": rc, "ax": rng.uniform(25, 40)}
        found = two.distance_mm("a", "b", at)
        turn_a = rotation("x", ra) @ rotation("z", rb)
        points_a = (surface * (10, 20, 30)) @ turn_a.T
        points_b = (surface * (12, 6, 18) + (0, 3, 0)) @ rotation("y", rc).T + (at["ax"], 0, 0)
        brute = np.sqrt(((points_a[:, None] - points_b[None]) ** 2).sum(-1).min())
        assert found > 0
        assert found <= brute + 1e-9 and found > brute - 1.0


def rotation(about, angle):
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    i = "xyz".index(about)
    matrix = np.eye(3)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix[j, j], matrix[j, k], matrix[k, j], matrix[k, k] = c, -s, s, c
    return matrix


# -- the configurations of the distribution ---------------------------------------------------------------------


def test_the_near_field_camera_cannot_be_driven_into_the_objective():
    config = find_config("simulated")
    starts = {axis: part.start for parts in config.devices.values() for axis, part in parts.axes.items()}
    bodies = Envelopes.from_config(config)
    at = {axis: starts[axis] for axis in bodies.axes}
    assert bodies.meeting({axis: (here, here) for axis, here in at.items()}) is None
    with pytest.raises(EnvelopeError, match="objective and near_field would come within 0 mm"):
        bodies.check_move(at, {"nfx": 300.0, "nfy": 0.0, "nfz": 100.0}, {"objective_in": "in"})
    bodies.check_move(at, {"nfx": 300.0, "nfy": 0.0, "nfz": 100.0}, {"objective_in": "out"})


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("bodies.objective.motions=[{axis: spin, along: x}]", "no device has the axis 'spin'"),
        ("bodies.objective.motions=[{axis: obx, about: x}]", "obx is in mm, not carried about x"),
        ("bodies.objective.motions=[{axis: obx}]", "either along or about"),
        (
            "bodies.objective.present={objective_in: maybe}",
            "a channel 'objective_in' that can be 'maybe'",
        ),
        ("bodies.objective.may_meet=[cat]", "there is no body 'cat'"),
        ("bodies.objective.size=[1, 2]", "bodies.objective.size"),
        ("dry_run.cannot={fly_scan: never}", "there is no plan 'fly_scan'"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_in_one_sentence(setting, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        override(find_config("simulated"), [setting])
