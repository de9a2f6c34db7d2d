"""The pages say what the program has: every key of polly.toml and of the agent's file, every link, every command that is named."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from fastapi.routing import APIRoute

from framework.cli.root import root
from framework.config import ClaimsBlock, ExecutorBlock, FrameworkBlock, LedgerBlock, PlatformKeys, parse_config
from framework.rest.inventory import router as inventory
from framework.rest.marathon import router as marathon
from framework.rest.orders import router as orders
from storage.model import Profile
from storage.platforms.local.options import LocalOptions
from tests.bench.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATING = (ROOT / "docs/operating.md").read_text("utf-8")
LOCAL = tuple(option.name for option in dataclasses.fields(LocalOptions))


def documented(heading: str) -> set[str]:
    """The keys in the first column of the table whose head names this block."""
    table = OPERATING.partition(f"| {heading} |")[2].partition("\n\n")[0]
    firsts = (line.split("|")[1] for line in table.splitlines()[2:])
    return {key.strip(" `") for first in firsts for key in first.split(",")}


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("`[framework]`", FrameworkBlock.__struct_fields__),
        ("`[executor]`", ExecutorBlock.__struct_fields__),
        ("`[claims]`", ClaimsBlock.__struct_fields__),
        ("`[ledger]`", LedgerBlock.__struct_fields__),
        ("`[profiles.NAME]`", tuple(field for field in Profile.__struct_fields__ if field != "name")),
        ('`[platforms.NAME]` with `kind = "local"`', LOCAL),
    ],
)
def test_every_key_is_documented_and_no_other(heading: str, keys: tuple[str, ...]) -> None:
    assert documented(heading) == set(keys)


def test_every_key_of_a_platform_is_documented() -> None:
    assert documented("`[platforms.NAME]`") == {*PlatformKeys.__struct_fields__, "all other keys"}


def test_the_readmes_polly_toml_is_one() -> None:
    import tomllib

    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert parse_config(tomllib.loads(block)).profiles["fast"].platforms == ("disks",)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"(?:`|^)polly ([a-z]+)(?: ([a-z]+))?", page.read_text("utf-8"), re.MULTILINE)
    assert [words for words in named if not _exists(*words)] == []


FOLDERS = ("storage", "offers", "executors", "framework", "tests", "docs", "examples", "packaging")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"`([a-z_/]+(?:\.py|/))`", page.read_text("utf-8"))) - {".bench/"}
    there = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    missing = [name for name in named if not any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in {*FOLDERS, *there})]
    assert missing == []


def test_every_benchmark_is_documented() -> None:
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    names = text.partition("the names for it are")[2].partition("Each benchmark")[0]
    assert set(re.findall(r"`(\w+)`", names)) == set(BENCHMARKS)


def test_every_route_of_the_http_api_is_documented_and_no_other() -> None:
    text = (ROOT / "docs/http.md").read_text("utf-8")
    documented = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /v[12]/\S+)`", text)) - {"GET /v1/openapi.json"}
    routes = [*marathon.routes, *orders.routes, *inventory.routes]
    there = {
        f"{method} {route.path.replace(':path', '')}"
        for route in routes
        if isinstance(route, APIRoute) and route.include_in_schema and route.path != "/ping"
        for method in route.methods or ()
    }
    assert documented == there


def _groups() -> list[str]:
    context = click.Context(root)
    return [name for name in root.list_commands(context) if isinstance(root.get_command(context, name), click.Group)]


@pytest.mark.parametrize("group", _groups())
def test_the_lists_of_commands_have_whole_sentences(group: str) -> None:
    listed = CliRunner().invoke(root, [group, "--help"], terminal_width=80).stdout.partition("Commands:\n")[2].splitlines()
    assert listed
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


def _exists(name: str, verb: str) -> bool:
    context = click.Context(root)
    command = root.get_command(context, name)
    if isinstance(command, click.Group) and verb:
        return command.get_command(context, verb) is not None
    return command is not None
