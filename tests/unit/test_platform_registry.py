"""Adapters by their names: what is loaded, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from storage.errors import Invalid, MissingPackage, MissingSdk, PlatformError, StaleEpoch
from storage.model import ExternalId
from storage.platforms import registry
from storage.platforms.base import CreateRequest
from storage.platforms.local import LocalPlatform
from storage.platforms.marks import Mark
from storage.platforms.options import describe, option, read_options, write_options
from storage.platforms.registry import BUILTIN, Builtin, build

SDKS = {
    "cinder": {"openstack", "keystoneauth1", "requests"},
    "ebs": {"boto3", "botocore"},
    "gce": {"google.cloud.compute_v1", "google.api_core"},
    "local": set[str](),
    "powerflex": {"httpx"},
    "powermax": {"httpx"},
    "powerscale": {"httpx"},
    "virtualbox": {"zeep", "requests", "httpx"},
    "xtremio": {"httpx"},
}
"""The modules that tell whose SDK is loaded; zeep speaks by httpx too where it finds it."""
EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    url: str = option(says="where the array is")
    size: int | None = option(None, says="a size", check=lambda size: "" if size > 0 else "it must be more than 0")
    verify: bool = option(True, says="whether certificates are checked")
    pools: tuple[str, ...] = option(("a",), says="names")


def third_party(folder: Path, name: str, module: str, entry: str) -> None:
    """An installed distribution with an entry point."""
    (folder / f"{name}.py").write_text(module)
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[polly.platforms]\n{entry}\n")


def refusal(settings: dict[str, Any]) -> str:
    with pytest.raises(Invalid) as caught:
        read_options(Options, "platforms.array", settings)
    return str(caught.value)


def test_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(Invalid, match=r"platforms\.x\.kind is 'zfs': known kinds are .*local"):
        build("x", "zfs", {})


def test_local_is_built_without_touching_the_disk() -> None:
    platform = build("disks", "local", {"root": "/nowhere/at/all"})
    assert isinstance(platform, LocalPlatform)
    assert platform.name == "disks"


def test_missing_sdk_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"ebs": Builtin(module="no_such_sdk_for_polly", attribute="X", extra="ebs")}
    monkeypatch.setattr(registry, "BUILTIN", kinds)
    with pytest.raises(MissingSdk) as caught:
        build("cloud", "ebs", {})
    assert str(caught.value) == "Platform cloud needs the Python package no_such_sdk_for_polly, which is not installed."
    assert caught.value.advice == "Install it with: pip install 'polly-broker[ebs]'"


@pytest.mark.parametrize("kind", sorted(set(BUILTIN) - {"local"}))
def test_a_missing_sdk_goes_by_the_name_that_its_extra_installs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BUILTIN", {kind: replace(BUILTIN[kind], module="no_such_module")})
    with pytest.raises(MissingSdk) as caught:
        build("x", kind, {})
    named = [line for line in EXTRAS[caught.value.fields["extra"]] if line.startswith(str(caught.value.fields["package"]))]
    assert len(named) == 1


def test_missing_package_of_a_third_party_says_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third_party(tmp_path, "vendor_adapter", "import vendor_sdk\n", "vendor = vendor_adapter:Adapter")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingPackage) as caught:
        build("array", "vendor", {})
    assert "needs the Python package vendor_sdk" in str(caught.value)
    assert "vendor_adapter" in caught.value.advice
    assert "pip install vendor_sdk" in caught.value.advice


def test_third_party_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third_party(tmp_path, "broken_adapter", "raise ValueError('oh')\n", "broken = broken_adapter:Adapter")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PlatformError, match="load the adapter of broken_adapter: ValueError: oh"):
        build("array", "broken", {})


def test_third_party_cannot_take_over_a_kind_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third_party(tmp_path, "thief_adapter", "raise ValueError('loaded')\n", "local = thief_adapter:Adapter")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(build("disks", "local", {"root": "/srv"}), LocalPlatform)


def test_adapter_is_imported_only_when_it_is_used() -> None:
    program = "import sys, storage.platforms.registry as r; r.kinds(); print('storage.platforms.local' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("kind", sorted(BUILTIN))
def test_an_adapter_brings_no_other_platforms_sdk(kind: str) -> None:
    others = {sdk for name, sdks in SDKS.items() if name != kind for sdk in sdks} - SDKS[kind]
    program = f"import sys, {BUILTIN[kind].module}; print(*(set(sys.modules) & {others}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == []


def test_options_are_read_from_their_types_and_from_text() -> None:
    given = read_options(Options, "platforms.array", {"url": "u", "size": 3, "verify": False, "pools": ["x", "y"]})
    assert given == Options(url="u", size=3, verify=False, pools=("x", "y"))
    text = write_options(given)
    assert text == {"url": "u", "size": "3", "verify": "false", "pools": "x,y"}
    assert read_options(Options, "platforms.array", text) == given
    assert write_options(Options(url="u")) == {"url": "u"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "platforms.array.url is '': it must be given: where the array is."),
        ({"url": 3}, "platforms.array.url is 3: it must be text, in quotes."),
        ({"url": "u", "size": "3x"}, "platforms.array.size is '3x': it must be a whole number."),
        ({"url": "u", "size": True}, "platforms.array.size is True: it must be a whole number."),
        ({"url": "u", "size": 0}, "platforms.array.size is 0: it must be more than 0."),
        ({"url": "u", "verify": "yes"}, "platforms.array.verify is 'yes': it must be true or false."),
        ({"url": "u", "pools": [1]}, 'platforms.array.pools is [1]: it must be a list of names, such as ["ssd", "hdd"].'),
        ({"url": "u", "ulr": 1}, "platforms.array.ulr is 1: there is no such key; the keys are pools, size, url, verify."),
    ],
)
def test_wrong_option_is_refused_with_key_value_and_what_would_be_right(settings: dict[str, Any], sentence: str) -> None:
    assert refusal(settings) == sentence


@pytest.mark.parametrize("key", ["password", "secret_key", "AWS_ACCESS_KEY", "private_key", "auth_token"])
def test_what_may_be_a_secret_is_not_repeated(key: str) -> None:
    sentence = refusal({"url": "u", key: "hunter2"})
    assert sentence.startswith(f"platforms.array.{key} is '(not shown)': no secret stands in polly.toml, and there is no such key; ")
    assert "hunter2" not in sentence


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(Invalid) as caught:
        build("array", "xtremio", {"endpoint": "https://polly:hunter2@xms:443", "username": "polly", "password_file": "/etc/polly/xms"})
    assert "platforms.array.endpoint is 'https://(not shown)@xms:443': it must be a URL" in str(caught.value)


def test_options_can_be_described() -> None:
    assert describe(Options) == [
        ("url", "", "where the array is"),
        ("size", "", "a size"),
        ("verify", "true", "whether certificates are checked"),
        ("pools", "a", "names"),
    ]


def test_mark_is_never_lowered_and_shuts_out_what_is_older() -> None:
    mark = Mark().admit("v", 2).admit("v", 5, read_only=True)
    assert mark == Mark(epoch=5, floor=2)
    assert mark.admit("v", 3, read_only=True) == mark
    for epoch, read_only in ((4, False), (1, True)):
        with pytest.raises(StaleEpoch):
            mark.admit("v", epoch, read_only=read_only)
    assert mark.fenced(4) == Mark(epoch=5, floor=4)
    assert mark.fenced(9).fenced(1) == Mark(epoch=9, floor=9)


@pytest.mark.parametrize("endpoint", ["https://:word@array.example", "https://jane:word@array.example", "https://@array.example"])
@pytest.mark.parametrize(
    ("kind", "key"),
    [("powermax", "endpoint"), ("xtremio", "endpoint"), ("powerscale", "endpoint"), ("powerflex", "gateway"), ("gce", "endpoint")],
)
def test_an_address_that_would_carry_a_password_to_the_agents_is_refused(kind: str, key: str, endpoint: str) -> None:
    options = registry.adapter("p", kind).Options
    check = next(field.metadata["check"] for field in dataclasses.fields(options) if field.name == key)
    assert check("https://array.example") == ""
    assert check(endpoint) != ""


def test_a_volume_has_one_beginning() -> None:
    with pytest.raises(Invalid, match=r"source is 'v': a volume begins with a snapshot \(s\) or a volume, not both"):
        CreateRequest(pool="p", size_mib=1, token="t", snapshot=ExternalId("s"), source=ExternalId("v"))
