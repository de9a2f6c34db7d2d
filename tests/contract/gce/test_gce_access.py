"""Being let in to Compute Engine: credentials of each kind, what the doctor says, what is imported when, and the page that says it all."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from framework.config import parse_config
from storage.errors import Invalid, PlatformUnavailable
from storage.model import ExternalId
from storage.platforms.base import Finding
from storage.platforms.faulting import Fault
from storage.platforms.gce import GceOptions, GcePlatform
from storage.platforms.gce.failures import snake
from storage.platforms.options import describe
from storage.platforms.registry import build
from tests.peers.gce import verbs
from tests.peers.gce.cloud import HASTE, ZONE, Cloud
from tests.peers.gce.errors import ApiError
from tests.ports import free_port

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("gce")]

PAGE = (Path(__file__).parents[3] / "docs/platforms/gce.md").read_text("utf-8")
NOWHERE = ExternalId(f"{ZONE}/nothing")


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nobody has signed in to Google."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def refusal(platform: GcePlatform) -> str:
    with pytest.raises(PlatformUnavailable) as refused:
        platform.inspect(NOWHERE)
    return str(refused.value.fields["reason"])


# --- credentials -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "[]", '{"type": "service_account"}', '{"type": "other"}'])
def test_a_credentials_file_that_is_none_is_named_and_not_shown(cloud: Cloud, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "wrong.json"
    if text is not None:
        file.write_text(text)
    missing, other = "No such file or directory", "it is no service account's key; GOOGLE_APPLICATION_CREDENTIALS names other kinds"
    assert refusal(cloud.platform(credentials_file=str(file))) == f"CREDENTIALS: {file}: {missing if text is None else other}"


def test_a_spoilt_key_is_not_shown(cloud: Cloud) -> None:
    told = json.loads(cloud.account.read_text())
    secret = told["private_key"].splitlines()[3]
    cloud.account.write_text(json.dumps({**told, "private_key": told["private_key"][:-100]}))

    said = refusal(cloud.platform())
    assert said.startswith(f"CREDENTIALS: {cloud.account}: ")
    assert secret not in said


def test_an_endpoint_on_loopback_is_asked_without_credentials_and_refuses(cloud: Cloud, stranger: None) -> None:
    assert refusal(cloud.platform(credentials_file=None)) == "CREDENTIALS: InvalidOperation: Anonymous credentials cannot be refreshed"


def test_a_machine_without_credentials_says_so_without_a_call(stranger: None) -> None:
    platform = GcePlatform("cloud", GceOptions(project="shop-production", zones=(ZONE,)), pace=HASTE)

    assert refusal(platform).startswith("CREDENTIALS: DefaultCredentialsError: Your default credentials were not found")
    (finding,) = platform.check()
    assert (finding.ok, finding.subject, "credentials_file" in finding.mend) == (False, "project shop-production", True)


def test_an_instances_own_account_is_let_in(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, stranger: None) -> None:
    """In a process of its own: Google's library reads where the metadata server is when it is imported."""
    cloud.peer.here = (cloud.world.project, ZONE, "node-a")
    monkeypatch.delenv("NO_GCE_CHECK")
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, cloud.peer.url.removeprefix("http://"))
    program = f"""
from storage.platforms.faulting import Fault
from storage.platforms.gce import GceOptions, GcePlatform, sdk
here = {{"project": {cloud.world.project!r}, "zones": ({ZONE!r},)}}
platform = GcePlatform("cloud", GceOptions(**here, endpoint={cloud.peer.url!r}))
platform._api._clients._credentials = sdk._credentials(GceOptions(**here))
print(platform.find("nothing"), type(platform._api._clients._credentials).__module__)
"""
    assert run(program) == "None google.auth.compute_engine.credentials"


def test_what_a_key_signed_is_good_again_after_it_was_refused(cloud: Cloud) -> None:
    platform = cloud.platform()
    cloud.world.faults.refusals = [("disks.aggregatedList", ApiError(401, "authError", "Invalid Credentials"))] * 2

    assert platform.find("nothing") is None
    assert cloud.world.calls == ["disks.aggregatedList"] * 3


def test_closing_lets_the_next_call_sign_in_anew(cloud: Cloud) -> None:
    platform = cloud.platform()
    assert platform.find("nothing") is None
    platform.close()
    assert platform._api._clients._made == {}
    assert platform.find("nothing") is None


# --- the doctor --------------------------------------------------------------------------------------------

NEEDED = [line.removeprefix("- ") for line in PAGE.splitlines() if line.startswith("- compute.")]
UNTRIED = ("use", "useReadOnly", "Operations.get", "Operations.list", "snapshots.create", "snapshots.setLabels")


def bad(cloud: Cloud, **more: object) -> list[Finding]:
    return [finding for finding in cloud.platform(**more).check() if not finding.ok]


@pytest.mark.parametrize("right", [right for right in NEEDED if not right.endswith(UNTRIED)])
def test_each_right_that_is_missing_is_named(cloud: Cloud, right: str) -> None:
    cloud.world.faults.denied = {right}

    found = bad(cloud)
    assert found
    assert all(f"Required '{right}' permission" in finding.message and "gce.md" in finding.mend for finding in found)
    assert (set(cloud.world.disks), cloud.world.snapshots) == (
        {f"{ZONE}/node-a-boot", f"{ZONE}/node-b-boot", "europe-west4-b/node-c-boot"},
        {},
    )


def test_every_call_needs_a_right_that_the_page_names(cloud: Cloud) -> None:
    used = {verbs.permission(method) for method in verbs.VERBS if not re.search(r"instances\.(?!get|attach|detach)|zones\.list", method)}
    assert used <= set(NEEDED)


@pytest.mark.parametrize(
    ("more", "subject", "message"),
    [
        ({"zones": ("europe-west4-a", "europe-west4-z")}, "zone europe-west4-z", "there is no such zone"),
        ({"types": ("hyperdisk-extreme",)}, "pool europe-west4-a.hyperdisk-extreme", "the zone has no hyperdisk-extreme disks"),
        (
            {"types": ("hyperdisk-throughput",)},
            "pool europe-west4-a.hyperdisk-throughput",
            "region europe-west4 tells no quota HDT_TOTAL_GB",
        ),
    ],
)
def test_what_is_not_there_is_named(cloud: Cloud, more: dict[str, object], subject: str, message: str) -> None:
    assert (subject, message) in [(finding.subject, finding.message) for finding in bad(cloud, **more)]


def test_a_zone_that_is_down_is_named(cloud: Cloud) -> None:
    cloud.world.faults.down = {"europe-west4-b"}
    assert [(finding.subject, finding.message) for finding in bad(cloud)] == [("zone europe-west4-b", "it is DOWN")]


def test_quotas_are_told_and_capacity_in_their_place(cloud: Cloud) -> None:
    told = {finding.subject: finding.message for finding in cloud.platform().check()}
    assert told[f"pool {ZONE}.pd-balanced"] == "40960 GB are left of the 40960 GB of quota SSD_TOTAL_GB"
    told = {finding.subject: finding.message for finding in cloud.platform(types=("hyperdisk-throughput",), capacity_mib=99).check()}
    assert told[f"pool {ZONE}.hyperdisk-throughput"] == "it holds 99 MiB, as capacity_mib says"


def test_an_account_that_is_shut_out_is_told_how_to_sign_in(cloud: Cloud) -> None:
    cloud.world.faults.at_call.arrange(Fault.EXPIRED, 1)
    (finding,) = bad(cloud)
    assert (finding.message, "credentials_file" in finding.mend) == ("AUTH_ERROR: Invalid Credentials", True)


def test_an_address_where_nobody_answers_is_named_and_said_in_the_systems_words(cloud: Cloud) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    (finding,) = [one for one in cloud.platform(endpoint=nowhere).check() if not one.ok]
    assert finding.message == "BACKEND_ERROR: ConnectionError: [Errno 111] Connection refused"
    assert f"this machine reaches {nowhere}" in finding.mend


# --- options and documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("project", "Shop", "it must be a project's id"),
        ("zones", [], "it must be a list"),
        ("zones", ["europe-west4"], "it must be a list of different zones"),
        ("zones", [ZONE, ZONE], "it must be a list of different zones"),
        ("types", ["pd-paper"], "it must be a list of different types of disks: pd-standard"),
        ("credentials_file", "account.json", "it must be an absolute path"),
        ("endpoint", "http://compute.example.net", "it must begin with https://"),
        ("endpoint", "http://127.0.0.1.example.net", "it must begin with https://"),
        ("endpoint", "https://compute.example.net/v1", "without a path"),
        ("endpoint", "https://user@compute.example.net", "without a path"),
        ("calls_per_s", 0, "it must be 1 or more"),
        ("timeout_s", -1, "it must be 1 or more"),
        ("capacity_mib", 0, "it must be 1 or more"),
    ],
)
def test_a_wrong_key_is_named_with_what_would_be_right(key: str, value: object, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        build("google", "gce", {"project": "shop-production", "zones": [ZONE], key: value})
    assert refused.value.fields["field"] == f"platforms.google.{key}"


def test_settings_are_read_back_on_an_agent(cloud: Cloud) -> None:
    platform = cloud.platform()
    assert build("cloud", "gce", platform.settings()).settings() == platform.settings()


def test_every_key_is_documented_and_no_other() -> None:
    table = PAGE.partition('with `kind = "gce"` |')[2].partition("\n\n")[0]
    assert [line.split("|")[1].strip(" `") for line in table.splitlines()[2:]] == [field.name for field in dataclasses.fields(GceOptions)]
    assert all(says for _, _, says in describe(GceOptions))


def test_the_pages_polly_toml_is_one() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(tomllib.loads(block))
    assert config.profiles["fast"].platforms == ("google",)
    keys = {key: value for key, value in tomllib.loads(block)["platforms"]["google"].items() if key != "kind"}
    assert build("google", "gce", keys).settings()["types"] == "pd-balanced,pd-ssd"


def test_codes_of_calls_and_of_operations_are_one_vocabulary() -> None:
    assert [snake(code) for code in ("resourceInUseByAnotherResource", "QUOTA_EXCEEDED", "invalid")] == [
        "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
        "QUOTA_EXCEEDED",
        "INVALID",
    ]


# --- imports ---------------------------------------------------------------------------------------------------


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_the_client_is_imported_with_the_first_call_and_only_the_part_that_is_used() -> None:
    program = """
import sys
from storage.platforms.registry import build
build("google", "gce", {"project": "shop-production", "zones": ["europe-west4-a"]})
print([name for name in sys.modules if name.startswith(("google.cloud.compute_v1", "google.api_core", "requests"))])
from storage.platforms.faulting import Fault
from storage.platforms.gce import sdk
sdk.messages()
client = sdk._client_class("disks")
print([name for name in sys.modules if "firewalls" in name], "google.cloud.compute_v1" in sys.modules)
from google.cloud import compute_v1
print(compute_v1.FirewallsClient.__name__, compute_v1.DisksClient is client, compute_v1.Disk is sdk.messages().Disk)
"""
    assert run(program).splitlines() == ["[]", "[] False", "FirewallsClient True True"]


def test_without_the_client_it_is_said_what_to_install() -> None:
    program = """
import sys
sys.modules["google.cloud.compute_v1"] = None
from storage.errors import MissingSdk
from storage.platforms.registry import build
try:
    build("google", "gce", {})
except MissingSdk as error:
    print(error, error.advice)
"""
    said = "Platform google needs the Python package google-cloud-compute, which is not installed."
    assert run(program) == f"{said} Install it with: pip install 'polly-broker[gce]'"
