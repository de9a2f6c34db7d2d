"""Every example, and every definition in docs/apps.md, is one that Polly takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from framework.marathon.reading import parse_app, read_app
from framework.marathon.rules import check_against
from framework.marathon.writing import to_json
from offers.ask import Operator

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.json"))
BLOCKS = re.findall(r"```json\n(.*?)```", (ROOT / "docs/apps.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid_and_survive_the_way_to_json_and_back(path: Path) -> None:
    app = parse_app(path.read_text("utf-8"))
    assert read_app(to_json(app)) == app


def test_examples_can_run_together() -> None:
    apps = [parse_app(path.read_text("utf-8")) for path in EXAMPLES]
    assert len({app.app_id for app in apps}) == len(apps)
    for app in apps:
        check_against(app, apps)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(json.loads(block)["id"]))
def test_the_definitions_on_the_page_are_valid(block: str) -> None:
    assert parse_app(block).app_id.startswith("/")


def test_the_counter_is_what_the_demo_needs() -> None:
    app = parse_app((ROOT / "examples/counter.json").read_text("utf-8"))
    (volume,) = app.persistent_volumes
    assert (volume.size_mib, volume.profile, volume.container_path, app.instances) == (64, "fast", "data", 1)


def test_every_volume_form_and_a_grouping_have_an_example() -> None:
    apps = [parse_app(path.read_text("utf-8")) for path in EXAMPLES]
    assert {volume.provider for app in apps for volume in app.external_volumes} == {"dvdi", "csi"}
    assert any(app.host_volumes for app in apps)
    assert Operator.GROUP_BY in {constraint.operator for app in apps for constraint in app.constraints}
