"""What the PowerFlex adapter makes of words: tokens as names, keys of the block, parameters, refusals, and its page."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from framework.config import parse_config
from storage.errors import Invalid, PlatformError, PlatformUnavailable, UnknownPool, UnknownVolume
from storage.platforms.options import describe
from storage.platforms.powerflex import names
from storage.platforms.powerflex.failures import BUSY, DENIED, FULL, GONE, MAPPED, TOO_MANY_ON_NODE, Refused, as_error
from storage.platforms.powerflex.objects import Failure
from storage.platforms.powerflex.options import PASSWORD, PowerFlexOptions, password, read_parameters
from storage.platforms.registry import build

PAGE = (Path(__file__).parents[2] / "docs/platforms/powerflex.md").read_text("utf-8")
LONGEST = 31
BLOCK: dict[str, object] = {"gateway": "https://flex.example.com", "username": "polly"}

# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [names.VOLUME, names.SNAPSHOT])
@pytest.mark.parametrize(
    "token", ["0198c2f0-1111-7222-8333-444455556666", "0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d10", "claim-7", "x" * 23, "a.b_c-d"]
)
def test_a_token_can_be_read_out_of_the_name(kind: str, token: str) -> None:
    name = names.name_of(kind, token)

    assert len(name) <= LONGEST
    assert (names.kind_in(name), names.token_in(name)) == (kind, token)


@pytest.mark.parametrize(
    "token", ["x" * 24, "pvc-0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d10", "with space", "ö", "0198C2F0-7D3A-7C21-9F04-5B6E7A8C9D10"]
)
def test_a_token_that_does_not_fit_is_a_hash(token: str) -> None:
    name = names.name_of(names.VOLUME, token)

    assert len(name) <= LONGEST
    assert name.isascii()
    assert name == names.name_of(names.VOLUME, token)
    assert (names.kind_in(name), names.token_in(name)) == (names.VOLUME, "")


def test_no_two_tokens_share_a_name() -> None:
    uuid = "0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d10"
    written = names.name_of(names.VOLUME, uuid).removeprefix("polly-v-")
    tokens = [uuid, uuid.upper(), written, f"-{written}", "a", "A", "a" * 23, "a" * 24, "a" * 25, "", " "]

    assert len({names.name_of(names.VOLUME, token) for token in tokens}) == len(tokens)
    assert names.name_of(names.VOLUME, "a") != names.name_of(names.SNAPSHOT, "a")


@pytest.mark.parametrize(
    "name", ["", "polly", "polly-v", "polly-v.", "polly-x.a", "my-volume", "polly-v-short", "polly-v" + "." + "x" * 24]
)
def test_others_names_are_nobodys_token(name: str) -> None:
    assert names.token_in(name) == ""


# --- the block and the profile ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("gateway", "http://flex.example.com", "the gateway's address alone"),
        ("gateway", "https://polly:secret@flex.example.com", "the gateway's address alone"),
        ("gateway", "https://flex.example.com:99999", "the gateway's address alone"),
        ("gateway", "https://flex.example.com/api", "the gateway's address alone"),
        ("gateway", "flex.example.com", "the gateway's address alone"),
        ("username", "", "must not be empty"),
        ("password_file", "password", "absolute path"),
        ("ca_file", "./ca.pem", "absolute path"),
        ("pools", ["fast"], 'as "domain/pool"'),
        ("pools", ["/fast"], 'as "domain/pool"'),
        ("pools", ["domain/"], 'as "domain/pool"'),
        ("calls_per_s", 0, "1 or more"),
        ("timeout_s", 0, "1 or more"),
        ("password", "secret", "there is no such key"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: object, right: str) -> None:
    with pytest.raises(Invalid, match=right) as caught:
        build("flex", "powerflex", {**BLOCK, key: value})
    assert caught.value.fields["field"] == f"platforms.flex.{key}"


@pytest.mark.parametrize("missing", ["gateway", "username"])
def test_what_must_be_given_is_asked_for(missing: str) -> None:
    with pytest.raises(Invalid, match=rf"platforms\.flex\.{missing} is '': it must be given"):
        build("flex", "powerflex", {key: value for key, value in BLOCK.items() if key != missing})


def test_settings_build_the_same_platform_elsewhere() -> None:
    block = {**BLOCK, "pools": ["d/a", "d/b"], "allow_unpadded": True, "zone": "z", "calls_per_s": 7, "password_file": "/etc/p"}
    there = build("flex", "powerflex", build("flex", "powerflex", block).settings())

    assert there.settings() == {**block, "pools": "d/a,d/b", "allow_unpadded": "true", "calls_per_s": "7"}


def test_the_password_is_in_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("from the file\n")
    monkeypatch.setenv(PASSWORD, "from the environment")

    assert password(PowerFlexOptions(gateway="", username="", password_file=str(tmp_path / "password"))) == "from the file"
    assert password(PowerFlexOptions(gateway="", username="")) == "from the environment"
    monkeypatch.delenv(PASSWORD)
    with pytest.raises(Invalid, match=f"there is no password in the variable {PASSWORD}"):
        password(PowerFlexOptions(gateway="", username=""))


@pytest.mark.parametrize(
    ("given", "is_copy", "right"),
    [
        ({"thick": "yes"}, False, "there is no such parameter; there are provisioning, compression"),
        ({"provisioning": "fat"}, False, "it must be thin or thick"),
        ({"compression": "much"}, False, "it must be none or normal"),
        ({"provisioning": "thick"}, True, "a volume from a snapshot, or a clone, is thin"),
    ],
)
def test_wrong_parameters_are_refused(given: dict[str, str], is_copy: bool, right: str) -> None:
    with pytest.raises(Invalid, match=right):
        read_parameters(given, is_copy=is_copy)


def test_parameters_are_the_arrays_own_words() -> None:
    thick = read_parameters({"provisioning": "thick", "compression": "normal"}, is_copy=False)

    assert (thick.provisioning, thick.compression) == ("ThickProvisioned", "Normal")
    assert read_parameters({}, is_copy=True) == read_parameters({"provisioning": "thin"}, is_copy=False)


# --- refusals -----------------------------------------------------------------------------------------


def refused(code: int, message: str = "no", *, status: int = 500, details: Any = None, volume: str = "") -> Refused:
    return Refused(Failure(message=message, error_code=code, details=details), status=status, volume=volume)


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (79, "", GONE),
        (104, "", MAPPED),
        (67, "", FULL),
        (9999, "Requested volume size exceeds the volume allocation limit", FULL),
        (9999, "Allocating Thin volume violates Thick volume reservation", FULL),
        (9999, "The SDC is mapped to too many volumes. Please remove some mapping.", TOO_MANY_ON_NODE),
        (9999, "A volume removal operation is currently in progress. ", BUSY),
        (9999, "Permission denied. Please check ...", DENIED),
    ],
)
def test_a_refusal_is_known_by_its_code_or_by_what_it_says(code: int, message: str, kind: frozenset[int]) -> None:
    said = refused(code, message)

    assert [known for known in (GONE, MAPPED, FULL, TOO_MANY_ON_NODE, BUSY, DENIED) if said.means(known)] == [kind]


def test_details_know_better_than_the_whole() -> None:
    assert refused(0, details=[{"rc": 182, "error": ""}, {"rc": 99}]).codes == (182, 99)
    assert refused(7, details="none").codes == refused(7, details=[{"rc": None}, 3]).codes == (7,)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (refused(79, "Could not find the volume", volume="v"), UnknownVolume, "no volume v"),
        (refused(171, "Could not find Storage Pool"), UnknownPool, "no pool"),
        (refused(164, "The system is busy. Retry later"), PlatformUnavailable, "164: The system is busy"),
        (refused(225, "The specified volume size is illegal"), Invalid, "225: The specified"),
        (refused(133, "Volume capacity can only be increased"), Invalid, "133: Volume capacity"),
        (refused(168, "You do not have permission", status=403), PlatformError, r"lacks the right to \(168"),
        (refused(182, "There are too many snapshots in the VTree"), PlatformError, "182: There are too many snapshots"),
        (refused(0, "", status=404), PlatformError, "0: HTTP status 404"),
    ],
)
def test_every_refusal_is_one_of_ours_with_the_arrays_code(said: Refused, kind: type[Exception], words: str) -> None:
    error = as_error(said, "flex", "do it")

    assert type(error) is kind
    assert re.search(words, str(error))
    assert said.reason in str(error.fields["reason"])


# --- its page -----------------------------------------------------------------------------------------


def test_every_key_is_documented_and_no_other() -> None:
    table = PAGE.partition("| key | default | |")[2].partition("\n\n")[0]
    firsts = (line.split("|")[1] for line in table.splitlines()[2:])

    assert {key.strip(" `") for first in firsts for key in first.split(",")} == {
        field.name for field in dataclasses.fields(PowerFlexOptions)
    }
    assert all(says for _, _, says in describe(PowerFlexOptions))


def test_the_example_is_a_block_and_a_profile() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(tomllib.loads(example))
    block = config.platforms["flex"]

    assert build("flex", block.keys.kind, block.settings).settings()["gateway"] == "https://powerflex.example.com"
    assert read_parameters(config.profiles["database"].parameters, is_copy=False).provisioning == "ThinProvisioned"
