"""Queue files: what they unroll to, the dry run of all of it in order, and files that are wrong or hostile."""

import json
import os

import pytest
from served_queue import COMMAND, environment

from dfxrm_control.config import find_config
from dfxrm_control.errors import DfxrmError
from dfxrm_control.queue import QueueError, read_night
from dfxrm_control.queue._check import check_items
from dfxrm_control.queue._folder import Held, HeldItems, read_key
from dfxrm_control.queue._items import check_item
from dfxrm_control.queue._permissions import LOOK, STOP, may

QUICK = "{rock_num: 5, rock_range: 0.2, exposure_s: 0.1, darks_before: 2}"
GOOD = f"samples: [{{name: al, scans: [{{plan: rocking_scan, parameters: {QUICK}}}]}}]\n"


@pytest.fixture(scope="module")
def config():
    return find_config("simulated")


def _items(tmp_path, config, text):
    file = tmp_path / "night.yml"
    file.write_text(text)
    return read_night(file).items(config, file.name)


def test_a_file_unrolls_in_order(tmp_path, config):
    text = f"""
on_failure: continue
conditions: {{not_before: 2020-01-01T00:00, temperature: 300}}
samples:
  - name: al
    repeats: 2
    on_failure: stop
    conditions: {{at: {{samx: 0.1}}, wait_s: 10}}
    scans: [{{plan: rocking_scan, parameters: {QUICK}, repeats: 2, on_failure: continue}}]
    grains:
      - name: g7
        go: {{map: dct.h5, grain: 7}}
        scans: [{{plan: mosaicity_scan, parameters: {{rock_num: 5}}, repeats: 2}}]
"""
    items = _items(tmp_path, config, text)
    once = ["place_sample", "wait", "rocking_scan", "rocking_scan", "dct_to_dfxrm", "mosaicity_scan"]
    assert [item.plan for item in items] == ["wait", "set_temperature", *once, *once]
    assert items[1].parameters == {"temperature": 300}
    assert [item.label for item in items[4:8]] == [
        "al 1/2 > rocking_scan 1/2",
        "al 1/2 > rocking_scan 2/2",
        "al 1/2 > g7 > dct_to_dfxrm",
        "al 1/2 > g7 > mosaicity_scan",
    ]
    assert items[6].parameters == {
        "map": "dct.h5", "grain": 7, "scan": "mosaicity_scan", "scan_parameters": {"rock_num": 5}
    }  # fmt: skip
    assert [item.on_failure for item in items[:5]] == ["continue", "continue", "stop", "stop", "continue"]
    assert [item.condition for item in items[:5]] == [True, True, True, True, False]
    told = items[7].as_queue_item()
    assert told["meta"]["sample"] == "al" and told["meta"]["queue"]["grain"] == "g7"
    assert told["meta"]["queue"]["block"] == "0.0/0.0/" and told["meta"]["queue"]["file"] == "night.yml"


def test_positions_are_carried_from_item_to_item(tmp_path, config):
    text = f"""
samples:
  - name: al
    conditions: {{at: {{chi: 4.9, samx: 0.5}}}}
    scans:
      - {{plan: rocking_scan, parameters: {QUICK}}}
      - {{plan: mosaicity_scan, parameters: {{rock_num: 5, rock_range: 0.2, roll_num: 3, roll_range: 0.4}}}}
"""
    night = check_items(config, _items(tmp_path, config, text))
    assert night.items[0].report.end["chi"] == pytest.approx(4.9)
    assert night.items[1].report.start["samx"] == pytest.approx(0.5)
    assert not night.items[1].problems
    # from where the configuration starts, chi = 0, the same scan is possible; from 4.9 it is not
    (problem,) = night.items[2].problems
    assert "chi" in problem and "limits" in problem
    assert night.lines()[-1] == "the queue cannot run" and not night.as_dict()["ok"]


def test_repeats_are_as_quick_as_one(tmp_path, config):
    text = f"samples: [{{name: al, scans: [{{plan: rocking_scan, parameters: {QUICK}, repeats: 1000}}]}}]"
    night = check_items(config, _items(tmp_path, config, text))
    assert len(night.items) == 1000 and night.ok
    assert len({id(checked.report) for checked in night.items}) <= 2


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nsamples: []\n"
HOSTILE = {
    "no YAML": ("samples: [", "is no valid YAML"),
    "empty": ("", "must be a mapping"),
    "a list": ("- 1\n", "must be a mapping"),
    "a tag that makes an object": ("samples: !!python/object/apply:os.system ['touch owned']\n", "the tag"),
    "a tag of its own": ("samples: !move 1\n", "the tag '!move' is not allowed"),
    "aliases that multiply": (BOMB, "anchors and aliases"),
    "nested without end": ("a: " + "[" * 5000 + "\n", "nested deeper than 20"),
    "a key twice": ("version: 1\nversion: 1\n", "given twice"),
    "another version": ("version: 2\n" + GOOD, "version"),
    "an unknown setting": ("import: os\n" + GOOD, "there is no such setting"),
    "a path as sample": (GOOD.replace("name: al", "name: ../../etc/cron.d"), "should match pattern"),
    "an absolute path": (GOOD.replace("name: al", "name: /etc"), "should match pattern"),
    "a path as grain": (
        f"samples: [{{name: al, grains: [{{name: a/b, scans: [{{plan: rocking_scan, parameters: {QUICK}}}]}}]}}]",
        "should match pattern",
    ),
    "an import string as plan": (GOOD.replace("rocking_scan", "os:system"), "is not in configuration"),
    "too many points": (GOOD.replace("rock_num: 5", "rock_num: 1000000000"), "less than or equal to 100000"),
    "too many points in a mesh": (
        GOOD.replace("rocking_scan", "mosaicity_scan").replace("rock_num: 5", "rock_num: 99999, roll_num: 99999"),
        "points are more than",
    ),
    "too many repeats": (GOOD.replace("plan:", "repeats: 1000000000, plan:"), "less than or equal to 2000"),
    "repeats that multiply": (
        GOOD.replace("plan:", "repeats: 2000, plan:").replace("{name:", "{repeats: 2000, name:"),
        "more than 2000 items",
    ),
    "not a number": (GOOD.replace("exposure_s: 0.1", "exposure_s: .nan"), "finite number"),
    "another microscope": ("config: other\n" + GOOD, "is for configuration 'other'"),
    "an axis of no goniometer": (GOOD.replace("scans:", "conditions: {at: {a b: 1}}, scans:"), "at"),
    "nothing to do": ("samples: [{name: al}]\n", "neither scans nor grains"),
    "larger than any": ("# " + "x" * 1_100_000 + "\n" + GOOD, "is larger than 1 MB"),
    "a long lie": (GOOD.replace("rocking_scan", "x" * 100_000), "at most 64 characters"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_wrong_or_hostile_file_is_one_sentence(case, tmp_path, config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, sentence = HOSTILE[case]
    with pytest.raises(DfxrmError) as raised:
        _items(tmp_path, config, text)
    said = str(raised.value)
    assert sentence in said, said
    assert "\n" not in said and len(said) < 1300
    assert os.listdir(tmp_path) == ["night.yml"]


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "night.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QueueError, match=r"is no UTF-8 text|no valid YAML"):
        read_night(tmp_path / "night.yml")
    with pytest.raises(QueueError, match="cannot be read"):
        read_night(tmp_path / "absent.yml")


def test_the_command_says_one_sentence_and_runs_nothing(tmp_path):
    import subprocess

    (tmp_path / "night.yml").write_text(HOSTILE["a tag that makes an object"][0])
    done = subprocess.run(
        [*COMMAND, "queue", "check", "night.yml"],
        cwd=tmp_path,
        env=environment(tmp_path),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("dfxrm: queue file night.yml, line 1: the tag") and done.stderr.count("\n") == 1


def test_metadata_cannot_stand_in_for_what_the_run_says(config):
    item = {"item_type": "plan", "name": "rocking_scan", "kwargs": {}}
    check_item({**item, "meta": {"note": "fine"}}, "users", config)
    for meta in ({"uid": "1"}, {"scan_id": 3}, {"sample": "../a"}, {"sample": 3}, {"a b": 1}, {"note": "x" * 30000}):
        with pytest.raises(QueueError):
            check_item({**item, "meta": meta}, "users", config)


def test_everybody_may_look_and_stop_and_no_more():
    assert all(may("read_only", method) for method in LOOK | STOP)
    assert not may("read_only", "queue_item_add") and not may("read_only", "re_resume")
    assert may("users", "queue_start") and not may("users", "environment_destroy")
    assert may("staff", "environment_destroy") and not may("staff", "script_upload")


def test_held_items_outlive_the_process_and_are_held_once(tmp_path):
    held = HeldItems.read(tmp_path / "held.json")
    for uid in ("aa11", "aa22", "aa11"):
        held.hold(Held(uid, {"name": "rocking_scan"}, "because", "failed", 0.0))
    again = HeldItems.read(tmp_path / "held.json")
    assert [item.uid for item in again.items] == ["aa11", "aa22"]
    with pytest.raises(QueueError, match="2 held items begin with 'aa'"):
        again.take("aa")
    again.take("aa1")
    once_more = HeldItems.read(tmp_path / "held.json")
    once_more.hold(Held("aa11", {}, "again", "failed", 0.0))  # decided on already
    assert [item.uid for item in once_more.items] == ["aa22"]
    (tmp_path / "held.json").write_text(json.dumps({"items": 3}))
    with pytest.raises(QueueError, match="cannot be read"):
        HeldItems.read(tmp_path / "held.json")


def test_a_key_is_not_for_others(tmp_path):
    file = tmp_path / "users.key"
    file.write_text("k" * 40 + "\n")
    file.chmod(0o640)
    with pytest.raises(QueueError, match=r"can be read by others \(mode 0640\): `chmod 600"):
        read_key(file)
    file.chmod(0o600)
    assert read_key(file) == "k" * 40
    file.write_text("short")
    with pytest.raises(QueueError, match="holds no key"):
        read_key(file)
