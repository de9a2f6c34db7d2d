"""EC2 as a service: what it refuses and how Polly says it, rates, credentials, broken answers, rights, pages, and many at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.errors import Invalid, PlatformError, PlatformUnavailable, PollyError, PoolFull, UnknownPool, UnknownSnapshot
from storage.model import ExternalId
from storage.platforms.base import CreateRequest
from storage.platforms.ebs import EbsPlatform, doctor
from storage.platforms.ebs.client import BURST, PATIENCE_S, Clock
from storage.platforms.registry import build
from tests.contract.ebs.conftest import SECRET
from tests.peers import ec2
from tests.peers.ec2_front import EMPTY, HTML, KEY_ID, Front
from tests.peers.ec2_wire import Answer, Refused
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]

MANY = 60
ATTACH_S = 0.5


def request(label: str = "data", *, pool: str = ec2.ZONE) -> CreateRequest:
    return CreateRequest(pool=pool, size_mib=1024, token=label, name=label)


@pytest.fixture
def cloud(front: Front) -> EbsPlatform:
    return ec2.adapter(front)


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("VolumeLimitExceeded", PoolFull),
        ("MaxIOPSLimitExceeded", PoolFull),
        ("InsufficientVolumeCapacity", PoolFull),
        ("InvalidZone.NotFound", UnknownPool),
        ("InvalidSnapshot.NotFound", UnknownSnapshot),
        ("InvalidParameterCombination", Invalid),
        ("UnknownVolumeType", Invalid),
        ("UnauthorizedOperation", PlatformError),
        ("OptInRequired", PlatformError),
        ("ExpiredToken", PlatformUnavailable),
        ("InternalError", PlatformUnavailable),
        ("Unavailable", PlatformUnavailable),
    ],
)
def test_a_refused_create_has_a_name_and_the_code(front: Front, cloud: EbsPlatform, code: str, kind: type[PollyError]) -> None:
    front.faults.refusing["CreateVolume"] = [Refused(code, "EC2 says so."), Refused(code, "EC2 says so.")]

    with pytest.raises(PollyError) as caught:
        cloud.create(request())
    assert (type(caught.value), code in str(caught.value.fields["reason"])) == (kind, True)
    assert cloud.find("data") is None


def test_a_missing_right_is_said_with_the_way_out_and_without_the_riddle(front: Front, cloud: EbsPlatform) -> None:
    front.faults.denied = frozenset({"CreateVolume"})

    with pytest.raises(PlatformError, match=r"UnauthorizedOperation: .*docs/platforms/ebs\.md has the policy") as caught:
        cloud.create(request())
    assert "4GIOHlTkIaWHQD0Q0m6XSnuUMCm" not in str(caught.value)


# --- rates -------------------------------------------------------------------------------------------------------


@dataclass
class Time:
    """It passes only while the adapter waits for its turn."""

    at: float = 1000.0

    def wait(self, seconds: float) -> None:
        self.at += seconds

    def clock(self, front: Front, monkeypatch: pytest.MonkeyPatch) -> Clock:
        monkeypatch.setattr(front, "_now", lambda: self.at)
        return Clock(now=lambda: self.at, wait=self.wait, chance=lambda: 0.0)


def test_a_refused_rate_slows_the_calls_down_and_ends_well(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC2 gives 5 calls a second; an adapter that believes in 50 is done without an error all the same."""
    time_ = Time()
    cloud = EbsPlatform("cloud", ec2.options(front, reads_per_s=50, writes_per_s=50), clock=time_.clock(front, monkeypatch))
    front.rate = (5.0, 2)
    made = [cloud.create(request(f"data-{number}")).external_id for number in range(20)]

    assert len(set(made)) == 20
    assert 0 < front.refused["RequestLimitExceeded"] < 40
    assert time_.at - 1000.0 < 20 / 5.0 * 3


def test_an_adapter_that_knows_the_rate_is_not_refused(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    time_ = Time()
    cloud = EbsPlatform("cloud", ec2.options(front, reads_per_s=20, writes_per_s=5), clock=time_.clock(front, monkeypatch))
    front.rate = (20.5, 51)
    for number in range(70):
        cloud.create(request(f"data-{number}"))

    assert front.refused["RequestLimitExceeded"] == 0
    assert time_.at - 1000.0 == pytest.approx((70 - BURST) / 5.0)


def test_a_rate_that_stays_refused_is_given_up_in_the_end(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    time_ = Time()
    cloud = EbsPlatform("cloud", ec2.options(front, reads_per_s=10), clock=time_.clock(front, monkeypatch))
    front.faults.throttle = 1_000_000

    with pytest.raises(PlatformUnavailable, match=r"RequestLimitExceeded: .*for too long"):
        cloud.find("data")
    assert time_.at - 1000.0 >= PATIENCE_S


# --- many at once ------------------------------------------------------------------------------------------------


def test_many_attaches_share_their_looks(front: Front) -> None:
    """P5 in small: each takes half a second, EC2 takes 40 calls a second; the looks are a few for all of them."""
    nodes = front.machines(6)
    setup = ec2.adapter(front)
    volumes = [setup.create(request(f"data-{number}")).external_id for number in range(MANY)]
    cloud = EbsPlatform("cloud", ec2.options(front, reads_per_s=40, writes_per_s=40), again_s=0.5, gather_s=0.05)
    front.lasting["attaching"] = ATTACH_S
    front.calls.clear()
    together = threading.Barrier(MANY)

    def attach(number: int) -> str:
        together.wait(timeout=30)
        return cloud.attach(volumes[number], nodes[number % len(nodes)], epoch=1).external_id

    began = time.monotonic()
    with ThreadPoolExecutor(MANY) as pool:
        attached = list(pool.map(attach, range(MANY)))
    took = time.monotonic() - began

    assert attached == volumes
    looks = front.calls["DescribeVolumes"] + front.calls["DescribeInstances"]
    assert looks <= 4 + took / 0.5 * 1.5, f"{looks} looks for {MANY} attaches in {took:.1f} s"
    assert looks < MANY / 3
    assert front.calls["AttachVolume"] == MANY


# --- credentials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["AuthFailure", "ExpiredToken", "RequestExpired", "InvalidClientTokenId", "SignatureDoesNotMatch"])
def test_credentials_that_end_are_said_and_come_back(front: Front, cloud: EbsPlatform, code: str) -> None:
    volume = cloud.create(request()).external_id
    front.faults.expired = code
    with pytest.raises(PlatformUnavailable, match=rf"{code}: .*the credentials are not, or no longer, good; they come from"):
        cloud.inspect(volume)

    front.faults.expired = ""
    assert cloud.inspect(volume).external_id == volume


def test_new_credentials_in_the_file_are_taken_without_a_restart(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = AKIAOLDOLDOLDOLDOLD1\naws_secret_access_key = {SECRET}\n")
    front.faults.keys = frozenset({"AKIAOLDOLDOLDOLDOLD1"})
    cloud = ec2.adapter(front, credentials_file=str(file))
    volume = cloud.create(request()).external_id

    front.faults.keys = frozenset({"AKIANEWNEWNEWNEWNEW1"})
    with pytest.raises(PlatformUnavailable, match="AuthFailure"):
        cloud.inspect(volume)
    file.write_text(f"[default]\naws_access_key_id = AKIANEWNEWNEWNEWNEW1\naws_secret_access_key = {SECRET}\n")
    assert cloud.inspect(volume).external_id == volume


def test_a_profile_of_the_file_is_used(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[storage]\naws_access_key_id = AKIASTORAGESTORAGE12\naws_secret_access_key = {SECRET}\n")
    front.faults.keys = frozenset({"AKIASTORAGESTORAGE12"})

    assert ec2.adapter(front, credentials_file=str(file), profile="storage").pools()
    with pytest.raises(PlatformUnavailable, match=r"no credentials were found \(ProfileNotFound: .*nobody"):
        ec2.adapter(front, credentials_file=str(file), profile="nobody").pools()


def test_no_credentials_at_all_are_said(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(PlatformUnavailable, match=r"no credentials were found \(NoCredentialsError.*environment, the shared"):
        ec2.adapter(front).pools()


def test_key_ids_are_in_no_error(front: Front, cloud: EbsPlatform) -> None:
    front.faults.refusing["CreateVolume"] = [Refused("AccessDenied", f"User with key {KEY_ID} may not"), Refused("AccessDenied", "no")]

    with pytest.raises(PlatformError, match=r"User with key AKIA\.\.\. may not") as caught:
        cloud.create(request())
    assert KEY_ID not in str(caught.value)


# --- broken answers ------------------------------------------------------------------------------------------------


def test_answers_that_are_none_mean_ask_again(front: Front, cloud: EbsPlatform) -> None:
    for answer, words in ((HTML, "502"), (EMPTY, "503")):
        front.faults.instead = [answer]
        with pytest.raises(PlatformUnavailable, match=words):
            cloud.delete(ExternalId("vol-0123456789abcdef0"))
    front.faults.instead = [HTML, EMPTY]
    assert cloud.find("data") is None


def test_an_answer_that_is_no_xml_is_no_crash(front: Front, cloud: EbsPlatform) -> None:
    front.faults.instead = [Answer(body=b"surprise")]
    with pytest.raises(PlatformUnavailable, match="the answer makes no sense"):
        cloud.delete(ExternalId("vol-0123456789abcdef0"))


def test_nobody_there_is_said() -> None:
    nowhere = build("cloud", "ebs", {"region": ec2.REGION, "endpoint_url": "http://127.0.0.1:1"})

    with pytest.raises(PlatformUnavailable, match=r"EndpointConnectionError: .*127\.0\.0\.1:1"):
        nowhere.find("data")
    (finding,) = nowhere.check()
    assert not finding.ok
    assert "credentials" in finding.mend


# --- rights ----------------------------------------------------------------------------------------------------------


def test_the_doctor_names_each_missing_right(front: Front, cloud: EbsPlatform) -> None:
    front.faults.denied = frozenset({"AttachVolume", "DeleteTags", "DescribeVolumesModifications"})

    (missing,) = [finding for finding in cloud.check() if not finding.ok]
    assert missing.message == "the credentials may not call ec2:DescribeVolumesModifications, ec2:AttachVolume, ec2:DeleteTags"
    assert "docs/platforms/ebs.md" in missing.mend


def test_the_doctor_asks_for_every_action_that_is_used_and_changes_nothing(front: Front, cloud: EbsPlatform) -> None:
    findings = cloud.check()
    assert [finding.ok for finding in findings] == [True, True, True]
    assert "51200 GiB each as configured" in findings[1].message
    assert cloud.volumes().items == []

    asked = {"describe_availability_zones", *doctor.calls("")}
    node = front.machines(1)[0]
    volume = cloud.create(request()).external_id
    cloud.attach(volume, node, epoch=1)
    cloud.node_slots(node)
    cloud.detach(volume, node)
    cloud.expand(volume, 2048)
    cloud.delete_snapshot(cloud.snapshot(volume, token="snap").external_id)
    cloud.delete(volume)
    assert set(cloud.client.calls) == asked


def test_the_doctor_says_which_zone_is_not_there(front: Front) -> None:
    cloud = ec2.adapter(front, zones=("us-east-1a", "us-east-1q"))

    (wrong,) = [finding for finding in cloud.check() if not finding.ok]
    assert "us-east-1q" in wrong.message
    assert [pool.name for pool in cloud.pools()] == ["us-east-1a"]


def test_the_doctor_tells_a_file_that_is_not_there_and_a_right_to_look_that_is_missing(front: Front, tmp_path: Path) -> None:
    (finding,) = ec2.adapter(front, credentials_file=f"{tmp_path}/none").check()
    assert (finding.ok, finding.subject) == (False, "credentials_file")
    assert finding.message == f"{tmp_path}/none cannot be read: No such file or directory"

    front.faults.denied = frozenset({"DescribeAvailabilityZones"})
    (finding,) = ec2.adapter(front).check()
    assert (finding.ok, "docs/platforms/ebs.md" in finding.mend) == (False, True)


def test_the_doctor_says_that_credentials_have_ended(front: Front, cloud: EbsPlatform) -> None:
    front.faults.expired = "ExpiredToken"

    (finding,) = cloud.check()
    assert (finding.ok, "ExpiredToken" in finding.message) == (False, True)


# --- pools and pages -------------------------------------------------------------------------------------------------


def test_pools_are_the_zones_with_what_the_operator_gives_them(front: Front) -> None:
    pools = ec2.adapter(front, capacity_gib=100).pools()

    assert [pool.name for pool in pools] == [f"us-east-1{letter}" for letter in "abcdef"]
    assert {(pool.capacity_mib, pool.foreign_mib, pool.region, pool.zone == pool.name) for pool in pools} == {
        (102400, 0, "us-east-1", True)
    }
    assert pools[0].labels["zoneId"].startswith("use1-az")


def test_only_configured_zones_are_used(front: Front, cloud: EbsPlatform) -> None:
    here = ec2.adapter(front, zones=("us-east-1b",))
    cloud.create(request("elsewhere"))
    made = here.create(request("here", pool="us-east-1b"))

    assert [one.external_id for one in here.volumes().items] == [made.external_id]
    with pytest.raises(UnknownPool):
        here.create(request("else"))


def test_lists_go_on_as_they_began(front: Front, cloud: EbsPlatform) -> None:
    made = {cloud.create(request(f"data-{number}")).external_id for number in range(12)}
    first = cloud.volumes(limit=5)
    seen = [one.external_id for one in first.items]
    while first.after:
        first = cloud.volumes(after=first.after, limit=5)
        seen += [one.external_id for one in first.items]

    assert (set(seen), len(seen)) == (made, 12)
    with pytest.raises(Invalid, match="goes on so"):
        cloud.volumes(after=cloud.volumes(limit=5).after, limit=2)
    with pytest.raises(Invalid, match="InvalidNextToken"):
        cloud.volumes(after="page:junk!", limit=5)
    with pytest.raises(Invalid, match="a part has 1 item or more"):
        cloud.volumes(limit=0)


def test_a_platform_lets_go_of_its_connections_and_comes_back(front: Front, cloud: EbsPlatform) -> None:
    cloud.close()
    assert cloud.find("data") is None
    cloud.close()
    cloud.close()
    eventually(lambda: cloud.pools(), what="it connects again")
