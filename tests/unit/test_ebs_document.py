"""docs/platforms/ebs.md says what the adapter has: its keys, its parameters, its rights; its example is one that Polly reads."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from framework.config import parse_config
from storage.platforms.ebs import EbsOptions, doctor, tags, volume_types
from storage.platforms.options import describe
from storage.platforms.registry import build

PAGE = (Path(__file__).parents[2] / "docs" / "platforms" / "ebs.md").read_text("utf-8")


def first_column(heading: str) -> set[str]:
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return {line.split("|")[1].strip(" `") for line in table.splitlines()[2:]}


def test_every_key_is_documented_and_no_other() -> None:
    assert first_column('`[platforms.NAME]` with `kind = "ebs"`') == {name for name, _, _ in describe(EbsOptions)}


def test_defaults_are_as_documented() -> None:
    table = dict(re.findall(r"^\| (\w+) \| (\w+) \|", PAGE, re.MULTILINE))
    assert {name: default for name, default, _ in describe(EbsOptions) if default} == {name: table[name] for name in table}


def test_every_parameter_is_documented_and_no_other() -> None:
    assert first_column("parameter") == set(volume_types.READERS)


def test_the_policy_has_every_action_that_the_doctor_asks_for() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    allowed = [action for statement in json.loads(block)["Statement"] for action in statement["Action"]]
    used = ["".join(part.capitalize() for part in action.split("_")) for action in (*doctor.calls(""), "describe_availability_zones")]
    assert sorted(allowed) == sorted(f"ec2:{action}" for action in used)


def test_sizes_are_as_documented() -> None:
    for name, kind in volume_types.TYPES.items():
        assert re.search(rf"{name}[^,]*? (has )?{kind.min_gib}\s+to\s+{kind.max_gib}\b", PAGE), name


def test_every_tag_is_documented() -> None:
    assert [key for key in (tags.TOKEN, tags.NAME, tags.EPOCH, tags.FLOOR, tags.HOLDER, tags.BIRTH) if f"`{key}" not in PAGE] == []


def test_the_example_is_one() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    read = tomllib.loads(block)
    config = parse_config(read)
    assert config.profiles["fast"].parameters["iops"] == "6000"
    platform = build("aws", "ebs", {key: value for key, value in read["platforms"]["aws"].items() if key != "kind"})
    assert platform.settings()["zones"] == "eu-central-1a,eu-central-1b"
    assert volume_types.settings(config.profiles["fast"].parameters, 1024 * 20, from_snapshot=False)["Throughput"] == 250
