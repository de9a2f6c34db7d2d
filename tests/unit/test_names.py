"""The four folders at the top are import names: does another installed distribution bring one of them too?"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NAMES = ["framework", "offers", "storage", "executors"]


@pytest.mark.parametrize("name", NAMES)
def test_no_other_distribution_brings_a_top_level_name(name: str) -> None:
    assert set(packages_distributions().get(name, [])) <= {"polly-broker"}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_this_projects_folder(name: str) -> None:
    assert Path(__import__(name).__file__ or "").parent == PROJECT / name


def test_the_wheel_brings_these_names_and_no_more() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == NAMES
    assert project["tool"]["importlinter"]["root_packages"] == NAMES


def test_http_parser_is_ours() -> None:
    assert set(packages_distributions()["http_parser"]) == {"http-parser"}
    assert distribution("http-parser").version == "0.10.0"
    assert distribution("pymesos").version == "0.3.15"
