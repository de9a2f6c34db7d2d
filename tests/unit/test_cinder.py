"""The adapter of Cinder without a Cinder: what it reads, keeps, refuses and lets through, and what its document says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from framework.config import parse_config
from storage.errors import Invalid, NoSlot, PlatformError, PlatformUnavailable, PoolFull, Unsupported
from storage.model import Birth, ExternalId
from storage.platforms.base import CreateRequest
from storage.platforms.cinder import connections, failures, records
from storage.platforms.cinder.bare_metal import connector
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.options import CinderOptions
from storage.platforms.marks import Mark
from storage.platforms.options import describe
from storage.platforms.registry import build
from tests.ports import free_port

DOCUMENT = (Path(__file__).parents[2] / "docs/platforms/cinder.md").read_text("utf-8")
VOLUME = ExternalId("6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")
SERVER = "00000000-3f5e-4d4c-9d7c-0f6a3c1b2a10"
NFS = {"driver_volume_type": "nfs", "export": "nas-1:/vols", "name": f"volume-{VOLUME}", "format": "raw", "options": None}
ISCSI = {
    "driver_volume_type": "iscsi",
    "target_portal": "10.0.0.1:3260",
    "target_iqn": f"iqn.2010-10.org.openstack:volume-{VOLUME}",
    "target_lun": 0,
    "auth_method": "CHAP",
    "auth_username": "AKsecretuser",
    "auth_password": "AKsecretpass",
    "discovery_auth_password": "AKsecretpass",
}


def volume(**changes: Any) -> dict[str, Any]:
    return {"id": VOLUME, "size": 2, "status": "available", "metadata": {}, "attachments": [], "name": "one", **changes}


# --- what Cinder says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "headers", "is_throttle", "is_quota"),
    [
        (413, {"overLimit": {"code": 413, "message": "Requested volume exceeds quota", "retryAfter": "0"}}, {"Retry-After": "0"}, 0, 1),
        (413, {"overLimit": {"code": 413, "message": "This request was rate-limited."}}, {"Retry-After": "42"}, 1, 0),
        (413, "<html>", {"Date": "Mon, 30 Nov 2026 15:00:00 GMT", "Retry-After": "Mon, 30 Nov 2026 15:00:30 GMT"}, 1, 0),
        (413, "<html>", {"Retry-After": "soon"}, 0, 1),
        (429, "slow down", {}, 1, 0),
        (403, {"forbidden": {"message": "Quota exceeded for cores"}}, {}, 0, 1),
        (403, {"forbidden": {"message": "Policy does not allow it"}}, {}, 0, 0),
    ],
)
def test_a_full_quota_is_told_from_too_many_calls(status: int, body: Any, headers: dict[str, str], is_throttle: int, is_quota: int) -> None:
    refusal = Refusal.read(status, body, headers)

    assert (refusal.is_throttle, refusal.is_quota) == (bool(is_throttle), bool(is_quota))


def test_a_moment_to_ask_again_is_a_wait_from_the_answers_own_date() -> None:
    asked = {"Date": "Mon, 30 Nov 2026 15:00:00 GMT", "Retry-After": "Mon, 30 Nov 2026 15:00:30 GMT"}

    assert Refusal.read(429, "", asked).retry_after_s == 30.0


def test_a_refusal_keeps_the_status_the_words_and_the_request() -> None:
    body = {"badRequest": {"code": 400, "message": "Invalid volume:\n status must be available"}}

    assert str(Refusal.read(400, body, {"x-openstack-request-id": "req-7"})) == "HTTP 400: Invalid volume: status must be available (req-7)"
    assert str(Refusal.read(502, "<html>" + "x" * 900, {})).startswith("HTTP 502: <html>xxx")
    long = str(Refusal.read(500, f"Unable to update attachment {'x' * 9000} No such file", {}))
    assert (len(long) < 600, long[:37], long[-13:]) == (True, "HTTP 500: Unable to update attachment", " No such file")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, PlatformError), (403, PlatformError), (409, PlatformUnavailable), (401, PlatformUnavailable)]
)
def test_what_asking_again_may_help_is_said_apart(status: int, kind: type[PlatformError]) -> None:
    assert type(failures.as_error(Refusal(status, "no"), "cloud", "look")) is kind


@pytest.mark.parametrize(
    ("status", "body", "is_missing"),
    [
        (404, {"itemNotFound": {"code": 404, "message": f"Volume {VOLUME} could not be found."}}, True),
        (404, {"itemNotFound": {"code": 404, "message": "The resource could not be found."}}, False),
        (404, {"error": {"code": 404, "message": f"no route to {VOLUME}"}}, False),
        (404, "<html>", False),
        (400, {"itemNotFound": {"code": 404, "message": f"Volume {VOLUME} could not be found."}}, False),
    ],
)
def test_only_what_the_service_itself_names_as_missing_is_missing(status: int, body: Any, is_missing: bool) -> None:
    assert Refusal.read(status, body, {}).is_missing is is_missing


def test_a_full_quota_says_how_much_is_left() -> None:
    words = "Requested volume or snapshot exceeds allowed gigabytes quota. Requested 9G, quota is 10G and 4G has been consumed."
    full = failures.pool_full(Refusal(413, words), platform="cloud", pool="nova/ssd", size_mib=9216)

    assert isinstance(full, PoolFull)
    assert full.fields["free_mib"] == 6144
    assert failures.pool_full(Refusal(413, "volumes"), platform="c", pool="p", size_mib=1).fields["free_mib"] == 0


def test_a_server_without_room_for_a_disk_says_so() -> None:
    full = failures.no_slot(Refusal(403, "The maximum allowed number of disk devices (26)"), platform="cloud", node=SERVER, slots=25)

    assert isinstance(full, NoSlot)
    assert "all 25 attach slots" in str(full)


# --- what is kept with a volume -----------------------------------------------------------------------------------


def test_what_is_kept_is_what_is_read() -> None:
    birth = Birth(serial=VOLUME, filesystem="ext4", filesystem_uuid=SERVER)
    kept = volume(metadata={**records.marked(Mark(epoch=4, floor=3)), **records.born(birth), "team": "shop", "readonly": "False"})

    assert records.mark(kept) == Mark(epoch=4, floor=3)
    assert records.outdated(kept["metadata"]) == []
    assert records.birth(kept) == birth
    assert records.labels(kept) == {"team": "shop"}
    assert all(len(value) <= records.LONGEST for value in kept["metadata"].values())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"serial": "x"}', "null"])
def test_metadata_that_others_have_spoilt_is_no_certificate(text: str) -> None:
    spoilt = volume(metadata={records.BIRTH: text, f"{records.EPOCH}many": "came", f"{records.FLOOR}-1": "came"})

    assert records.birth(spoilt) is None
    assert records.mark(spoilt) == Mark()


def test_of_marks_that_are_there_together_the_highest_count_and_the_others_may_go() -> None:
    marks = [records.marked(mark) for mark in (Mark(epoch=3, floor=3), Mark(epoch=12, floor=9), Mark(epoch=10, floor=10))]
    kept = {key: value for mark in marks for key, value in mark.items()}

    assert records.mark(volume(metadata=kept)) == Mark(epoch=12, floor=10)
    assert sorted(records.outdated(kept)) == ["polly-floor-3", "polly-floor-9"]
    assert records.outdated({**kept, "polly-epoch-9": "came"})[0] == "polly-epoch-9"


def test_an_attachment_that_is_gone_is_named_no_longer() -> None:
    kept = {"polly-for-a": "db-1", "polly-for-b": "db-2", "polly-floor-3": "came"}

    assert records.outdated(kept, attachment="b") == ["polly-for-a"]
    assert records.outdated(kept) == ["polly-for-a", "polly-for-b"]


@pytest.mark.parametrize(
    ("changes", "held_by"),
    [
        ({}, ()),
        ({"status": "in-use", "attachments": [{"attachment_id": "a", "server_id": SERVER}]}, (SERVER,)),
        ({"status": "in-use", "attachments": [{"attachment_id": "a"}], "metadata": {"polly-for-a": "db-1"}}, ("db-1",)),
        ({"status": "in-use", "attachments": [{"attachment_id": "a", "host_name": "db-2"}]}, ("db-2",)),
        ({"status": "in-use", "attachments": [{"attachment_id": "a"}]}, ("attachment a",)),
        ({"status": "attaching"}, ("attaching",)),
        ({"status": "reserved", "metadata": {"polly-for-a": "db-1"}}, ("db-1",)),
        ({"status": "available", "metadata": {"polly-for-a": "db-1"}}, ()),
        ({"status": "error"}, ()),
    ],
)
def test_who_has_a_volume_is_read_from_whatever_shows_it(changes: dict[str, Any], held_by: tuple[str, ...]) -> None:
    assert records.held_by(volume(**changes)) == held_by


@pytest.mark.parametrize("labels", [{"polly-token": "mine"}, {"readonly": "True"}, {"": "x"}, {"team": "x" * 256}, {"t" * 256: "x"}])
def test_labels_that_cinder_could_not_keep_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="labels"):
        records.new_metadata(CreateRequest(pool="nova/ssd", size_mib=1, token="t", labels=labels))


@pytest.mark.parametrize("text", ["", "..", VOLUME.upper(), f"{VOLUME}/action", f"{VOLUME}\n", "no-such-volume"])
def test_only_what_cinder_could_have_given_is_an_id(text: str) -> None:
    assert records.is_id(VOLUME)
    assert not records.is_id(text)


# --- machines of their own ----------------------------------------------------------------------------------------


def test_a_node_is_its_host_name_or_its_connector() -> None:
    assert connector("db-1") == {"host": "db-1"}
    assert connector('{"host": "db-1", "ip": "10.0.0.7", "initiator": null}') == {"host": "db-1", "ip": "10.0.0.7"}


@pytest.mark.parametrize("node", ["", "{", "{}", '{"host": 7}', '{"host": ""}', "x" * 256, "db\n1", '{"ip": "10.0.0.7"}'])
def test_what_is_no_node_is_refused(node: str) -> None:
    with pytest.raises(Invalid, match="a node is named by its host name, or by JSON"):
        connector(node)


def test_a_file_on_a_share_travels_with_what_its_node_needs() -> None:
    made = connections.describe("cloud", VOLUME, {**NFS, "options": "-o vers=4.2"}, read_only=True)

    assert (made.transport, made.serial, made.read_only) == ("nfs_file", VOLUME, True)
    assert made.context == {"share": "nas-1:/vols", "file": f"volume-{VOLUME}", "format": "raw", "options": "-o vers=4.2"}


def test_a_target_travels_without_its_passwords() -> None:
    made = connections.describe("cloud", VOLUME, ISCSI, read_only=False)

    assert made.transport == "iscsi_target"
    assert made.context == {"portal": "10.0.0.1:3260", "target": ISCSI["target_iqn"], "lun": "0", "authentication": "CHAP"}
    assert "AKsecret" not in repr(made)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({**NFS, "encrypted": True}, "it is encrypted; only Nova opens such volumes"),
        ({**NFS, "name": "volume-another"}, "it was migrated"),
        ({**ISCSI, "target_iqn": "iqn.1992-04.com.emc:5000097300000000"}, "is not its own"),
        ({"driver_volume_type": "rbd", "auth_username": "cinder"}, "its backend speaks rbd; machines can use iscsi, nfs"),
        ({}, "an unknown protocol"),
    ],
)
def test_what_no_node_could_be_sure_of_is_refused(info: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        connections.describe("cloud", VOLUME, info, read_only=False)


# --- the block ----------------------------------------------------------------------------------------------------


def test_a_block_becomes_a_platform_that_connects_to_nothing() -> None:
    made = build("cloud", "cinder", {"cloud": "nowhere", "attach": "bare-metal", "slots_per_node": "7", "extend_in_use": "true"})

    assert made.settings() == {"cloud": "nowhere", "attach": "bare-metal", "slots_per_node": "7", "extend_in_use": "true"}
    assert (made.capabilities.slots_per_node, made.capabilities.identity, made.capabilities.expand_attached) == (7, "connector", True)
    made.close()


@pytest.mark.parametrize(
    ("key", "value"), [("attach", "iscsi"), ("pools", "all"), ("clouds_file", "clouds.yaml"), ("calls_per_second", 0), ("wait_s", 0)]
)
def test_a_key_that_is_wrong_is_named(key: str, value: object) -> None:
    with pytest.raises(Invalid, match=rf"platforms\.cloud\.{key}"):
        build("cloud", "cinder", {key: value})


def test_a_cloud_that_nobody_described_is_said_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_CLIENT_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PlatformError, match="the credentials are not complete"):
        build("cloud", "cinder", {"cloud": "nowhere-to-be-found"}).find("token")


def test_every_key_is_documented() -> None:
    table = DOCUMENT.partition("| key | default | meaning |")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [key for key, _, _ in describe(CinderOptions)]


def test_the_documents_example_is_one() -> None:
    example = next(block for block in re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL) if "kind =" in block)
    config = parse_config(tomllib.loads(example))

    assert config.profiles["ssd"].pools == ("nova/ssd",)
    assert build("cloud", "cinder", config.platforms["cloud"].settings).name == "cloud"


def test_a_cloud_that_nobody_answers_for_is_named_by_its_address(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v3"
    clouds = tmp_path / "clouds.yaml"
    auth = f"{{auth_url: {nowhere}, username: polly, password: hunter2, project_name: p, user_domain_id: d, project_domain_id: d}}"
    clouds.write_text(f"clouds: {{polly: {{auth: {auth}}}}}")
    (finding,) = build("cloud", "cinder", {"cloud": "polly", "clouds_file": str(clouds)}).check()
    assert f"ConnectFailure: {nowhere}" in finding.message
    assert finding.message.endswith(": [Errno 111] Connection refused.")
    assert "hunter2" not in finding.message
