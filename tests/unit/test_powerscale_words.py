"""PowerScale's block, names and page: what may stand in them, and that the page says what the adapter has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from framework.config import check_against, parse_config
from storage.errors import Invalid
from storage.model import AccessMode
from storage.platforms.options import describe, read_options
from storage.platforms.powerscale import doctor, naming
from storage.platforms.powerscale.exports import NOBODY
from storage.platforms.powerscale.options import PowerScaleOptions
from storage.platforms.powerscale.platform import CALLS_PER_S, PARALLEL, PARAMETERS
from storage.platforms.registry import build

PAGE = (Path(__file__).parents[2] / "docs/platforms/powerscale.md").read_text("utf-8")
BLOCK = {"endpoint": "https://onefs.example:8080", "username": "polly", "password_file": "/etc/polly/p", "base_path": "/ifs/data/polly"}


def read(**more: Any) -> PowerScaleOptions:
    return read_options(PowerScaleOptions, "platforms.nas", {**BLOCK, **more})


# --- the page -------------------------------------------------------------------------------------------


def first_column(heading: str) -> set[str]:
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return {line.split("|")[1].strip(" `") for line in table.splitlines()[2:]}


def test_every_key_and_parameter_is_documented_and_no_other() -> None:
    assert first_column('`[platforms.NAME]` with `kind = "powerscale"`') == {name for name, _, _ in describe(PowerScaleOptions)}
    assert first_column("parameter of a profile") == set(PARAMETERS)


def test_every_right_that_the_doctor_asks_for_is_documented_and_no_other() -> None:
    assert sorted(re.findall(r"`(ISI_PRIV_\w+)`", PAGE)) == sorted((*doctor.WRITE, *doctor.READ))


def test_figures_are_as_documented() -> None:
    assert f"at most {CALLS_PER_S:.0f} calls a\nsecond, {PARALLEL} at a time" in PAGE
    assert (NOBODY[0], len(NOBODY)) == ("192.0.2.1", 254)
    assert "192.0.2.0/24" in PAGE


def test_the_example_is_one() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(tomllib.loads(block))
    platform = build("nas", "powerscale", config.platforms["nas"].settings)
    check_against(config, {"nas": platform})
    assert platform.settings()["base_path"] == "/ifs/data/polly"
    assert config.profiles["team"].access_mode in platform.capabilities.access_modes
    assert config.profiles["team"].parameters == {"shared": "true", "mode": "0777"}


# --- the block ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["ifs/data", "/data", "/ifs", "/ifs/", "/ifs/a//b", "/ifs/../etc", "/ifs/.snapshot", "/ifs/a b", "/ifs/a,b", ""]
)
def test_a_base_path_is_below_ifs(path: str) -> None:
    with pytest.raises(Invalid, match=r"platforms\.nas\.base_path .* a folder below /ifs"):
        read(base_path=path)


@pytest.mark.parametrize(
    ("key", "value"), [("nfs_host", "nas:2049"), ("nfs_host", "-o"), ("mode", "755"), ("mode", "0888"), ("endpoint", "http://onefs")]
)
def test_what_cannot_be_is_refused_by_its_key(key: str, value: str) -> None:
    with pytest.raises(Invalid, match=rf"platforms\.nas\.{key}"):
        read(**{key: value})


@pytest.mark.parametrize(
    ("more", "server"),
    [
        ({}, "onefs.example"),
        ({"nfs_host": "nas.example"}, "nas.example"),
        ({"nfs_host": "[fd00::1]"}, "[fd00::1]"),
        ({"endpoint": "https://[fd00::2]:8080"}, "[fd00::2]"),
    ],
)
def test_nodes_mount_from_the_host_that_is_named(more: dict[str, str], server: str) -> None:
    assert read(**more).server == server


def test_nothing_connects_before_the_first_call_and_all_modes_are_declared() -> None:
    platform = build("nas", "powerscale", {**BLOCK, "endpoint": "https://127.0.0.1:1"})
    assert (platform.capabilities.device, platform.capabilities.identity) == ("nfs", "address")
    assert platform.capabilities.access_modes == frozenset(AccessMode)
    platform.close()


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["t1", "a.b_c-1", "x-1", "with blank", "a/b", "ü", "..", "-", "polly-"])
def test_tokens_come_back_from_names(token: str) -> None:
    name = naming.volume_name(token)
    assert naming.is_id(name)
    assert naming.token_of_volume(name) == token
    assert naming.of_snapshot(naming.snapshot_name(token, 8)) == (token, 8)


@pytest.mark.parametrize("name", ["theirs", "polly", "polly-x-zz", "polly-x-ff"])
def test_other_names_have_no_token(name: str) -> None:
    assert naming.token_of_volume(name) == ""


@pytest.mark.parametrize(
    "name", ["daily", "polly-snap-", "polly-snap-t", "polly-snap--8", "polly-snap-t-8x", "polly-snap-a/b-8", "polly-snap-x-zz-8"]
)
def test_other_snapshots_are_not_pollys(name: str) -> None:
    assert naming.of_snapshot(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", ".polly", "a/b", "a b", "-a", "x" * 201, "nul\0"])
def test_what_no_volume_is_called(name: str) -> None:
    assert not naming.is_id(name)
