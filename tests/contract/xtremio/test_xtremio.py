"""XtremIO keeps the contract on Cinder's in-memory XMS, which Cinder's own client is tried on first."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from framework.config import parse_config
from storage.errors import Invalid, NoSlot, PlatformError, PlatformUnavailable, PollyError, PoolFull, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.contract.arena import Arena
from storage.platforms.faulting import Fault, Faults
from storage.platforms.registry import build
from storage.platforms.xtremio import naming
from storage.platforms.xtremio.hosts import port_addresses
from storage.platforms.xtremio.options import XtremioOptions
from storage.platforms.xtremio.platform import XtremioPlatform
from tests.contract.xtremio.arena import NODES, platform_on, request, things
from tests.peers.xtremio import PASSWORD, FarFaults, XmsServer

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("xtremio")]

PAGE = Path(__file__).parents[3] / "docs/platforms/xtremio.md"


class TestXtremio(PlatformContract):
    pool = "brick1"
    size_mib = 1024
    nodes = NODES
    has_data = False
    secrets = (PASSWORD,)

    @pytest.fixture
    def storage(self, xms: XmsServer) -> XmsServer:
        return xms

    def make(self, storage: XmsServer) -> Platform:
        return platform_on(storage)

    def fill(self, arena: Arena) -> int:
        """The array is thin; what can be full is the number of its objects."""
        arena.storage.faults(most_objects=len(list(arena.volumes())))
        return arena.here.capabilities.max_mib or 0

    def faults(self, storage: XmsServer) -> Faults:
        return FarFaults(storage, *Fault, codes={Fault.EXPIRED: "401"})

    def things(self, storage: XmsServer, platform: Platform) -> list[str]:
        return things(storage)


def test_cinders_own_driver_passes_on_this_server(xms: XmsServer) -> None:
    assert xms.cinder() == [
        "set up with XtremIOClient42",
        "refused a second one: True",
        "extended to 2097152",
        "copied to 3145728",
        "initiator of group cinder-host",
        "mapped as LUN 1 in cinder-host",
        "mapped again as LUN 1",
        "left []",
    ]


def test_a_host_that_is_unknown_is_registered_or_refused(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    volume = xtremio.create(request()).external_id
    by_hand = platform_on(xms, register_hosts=False)
    with pytest.raises(PlatformError, match="register the host"):
        by_hand.attach(volume, NODES[0], epoch=1)
    xtremio.attach(volume, NODES[0], epoch=1)
    assert xtremio.inspect(volume).held_by == (NODES[0],)
    by_hand.attach(volume, NODES[0], epoch=1)
    by_hand.detach(volume, f"polly-{NODES[0]}")
    assert xtremio.inspect(volume).held_by == ()


def test_an_attachment_says_what_the_node_needs(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    volume = xtremio.create(request()).external_id
    attachment = xtremio.attach(volume, NODES[0], epoch=1)
    assert re.fullmatch(r"naa\.514f0c5[0-9a-f]{9}", attachment.serial)
    assert (attachment.transport, attachment.context["lun"]) == ("iscsi", "1")
    assert attachment.context["portals"].split() == [
        "10.205.68.5:3260,iqn.2008-05.com.xtremio:001e67939c34",
        "10.205.68.6:3260,iqn.2008-05.com.xtremio:002e67939c34",
    ]
    one = platform_on(xms, portals=["10.205.68.6/16"]).attach(volume, NODES[0], epoch=1)
    assert one.context["portals"] == "10.205.68.6:3260,iqn.2008-05.com.xtremio:002e67939c34"


def test_fibre_channel_hosts_have_all_their_ports_registered(xms: XmsServer) -> None:
    fabric = platform_on(xms, protocol="fc")
    volume = fabric.create(request()).external_id
    attachment = fabric.attach(volume, "0x21000024ff57b236,21:00:00:24:ff:57:b2:37", epoch=1)
    assert attachment.transport == ""
    fabric.detach(volume, "21000024ff57b237")
    assert fabric.inspect(volume).held_by == ()


def test_ports_are_written_as_the_array_writes_them() -> None:
    assert port_addresses("0x21000024FF57B236, 2100:0024") == ["21:00:00:24:ff:57:b2:36", "2100:0024"]
    assert port_addresses("IQN.2026-11.Test:A") == ["iqn.2026-11.test:a"]


def test_snapshot_limits_are_a_full_pool(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    volume = xtremio.create(request()).external_id
    xms.faults(most_snapshots=1)
    xtremio.snapshot(volume, token="s1")
    with pytest.raises(PoolFull, match="too_many_snapshots_per_vol"):
        xtremio.snapshot(volume, token="s2")


def test_a_group_that_may_have_no_more_volumes_has_no_slot(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    first, second = (xtremio.create(request(token)).external_id for token in ("one", "two"))
    xms.faults(most_maps=1)
    xtremio.attach(first, NODES[0], epoch=1)
    xtremio.attach(first, NODES[0], epoch=1)
    with pytest.raises(NoSlot, match="has all 1 attach slots") as caught:
        xtremio.attach(second, NODES[0], epoch=1)
    assert caught.value.fields["reason"] == "too_many_objs"
    assert xtremio.attach(second, NODES[1], epoch=1).external_id == second


def test_a_user_who_may_only_look_is_told_by_the_doctor(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    assert all(finding.ok for finding in xtremio.check())
    with xms.failing(read_only=True):
        (finding,) = [finding for finding in xtremio.check() if not finding.ok]
    assert (finding.subject, "HTTP 403" in finding.message, "may configure" in finding.mend) == ("rights", True, True)


def test_an_array_that_stays_busy_is_unavailable(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    xms.faults(busy=100)
    with pytest.raises(PlatformUnavailable, match="system_is_busy"):
        xtremio.volumes()


def test_a_volume_that_somebody_maps_by_hand_is_seen_and_never_taken(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    volume = xtremio.create(request()).external_id
    xtremio.attach(volume, NODES[0], epoch=1)
    with pytest.raises(VolumeInUse, match="aaaaaaaaaaaa"):
        xtremio.attach(volume, NODES[1], epoch=2)
    with pytest.raises(VolumeInUse):
        xtremio.delete(volume)


def test_foreign_volumes_count_as_foreign_and_can_be_adopted(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    xtremio._xms.create("volumes", {"vol-name": "old database", "vol-size": "4g"}, action="test")
    (pool,) = xtremio.pools()
    assert (pool.name, pool.foreign_mib, pool.capacity_mib) == ("brick1", 4096, 8146708710 // 1024)
    (seen,) = xtremio.volumes().items
    assert (seen.external_id[:13], len(seen.external_id), seen.token, seen.size_mib) == ("old database#", 45, "", 4096)
    assert xtremio.inspect(ExternalId("old database")) == seen
    xtremio.attach(seen.external_id, NODES[0], epoch=1)
    assert xtremio.inspect(seen.external_id).held_by == (NODES[0],)
    assert xtremio.snapshot(seen.external_id, token="s1").volume == seen.external_id
    assert platform_on(xms, capacity_mib=5000).pools()[0].capacity_mib == 5000


def test_a_snapshot_is_no_volume(xtremio: XtremioPlatform) -> None:
    volume = xtremio.create(request()).external_id
    snapshot = xtremio.snapshot(volume, token="s1").external_id
    for verb in (xtremio.inspect, lambda key: xtremio.attach(key, NODES[0], epoch=1)):
        with pytest.raises(UnknownVolume):
            verb(snapshot)
    xtremio.delete(snapshot)
    assert [it.external_id for it in xtremio.snapshots().items] == [snapshot]


@pytest.mark.parametrize("token", ["0192-ab.c_d", "snap-1", "x-1", "with blank/ö", "a" * 100])
def test_names_hold_tokens_without_loss(token: str) -> None:
    for name, back in ((naming.volume_name, naming.token_of_volume), (naming.snapshot_name, naming.token_of_snapshot)):
        assert back(name(token)) == token
    assert naming.token_of_volume(naming.snapshot_name(token)) == ""


def test_a_token_that_no_name_can_hold_is_refused() -> None:
    for token in ("", "a" * 200):
        with pytest.raises(Invalid):
            naming.volume_name(token)
    assert not any(map(naming.is_volume, ("", "a" * 129, "\ud800", "a\nb", "polly-snap-1", "db.polly-1")))


def test_what_is_wrong_with_the_login_is_said_without_the_password(xms: XmsServer, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("another-secret")
    (finding,) = platform_on(xms, password_file=str(wrong)).check()
    assert not finding.ok
    assert "does not accept user polly" in finding.message
    assert "another-secret" not in repr(finding)
    (finding,) = platform_on(xms, password_file=str(tmp_path / "none")).check()
    assert "password_file" in finding.message
    wrong.write_text(PASSWORD)
    wrong.chmod(0o644)
    assert [finding.subject for finding in platform_on(xms, password_file=str(wrong)).check() if not finding.ok] == [str(wrong)]
    wrong.write_text("\n")
    (finding,) = platform_on(xms, password_file=str(wrong)).check()
    assert "password_file" in finding.message
    (finding,) = platform_on(xms, cluster="brick9").check()
    assert (finding.ok, finding.subject) == (False, "cluster brick9")
    assert "in `cluster`" in finding.mend


def test_a_certificate_that_is_not_trusted_is_refused(xms: XmsServer) -> None:
    with pytest.raises(PlatformUnavailable, match="certificate verify failed"):
        build("x", "xtremio", {key: value for key, value in xms.settings().items() if key != "ca_file"}).volumes()
    with pytest.raises(Invalid, match="ca_file"):
        platform_on(xms, ca_file=str(xms.password_file)).volumes()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://array",
        "array:443",
        "https://polly:secret@array",
        "https://array?x=1",
        "https://[::1",
        "https://array:99999",
        "https://a..b",
        "https://array\n",
        f"https://{'a' * 64}.b",
    ],
)
def test_an_endpoint_is_an_https_url(xms: XmsServer, endpoint: str) -> None:
    with pytest.raises(Invalid, match="endpoint"):
        platform_on(xms, endpoint=endpoint)


def test_every_key_is_documented_and_the_example_is_one() -> None:
    page = PAGE.read_text("utf-8")
    rows = page.partition("| key |")[2].partition("\n\n")[0].splitlines()[2:]
    assert {row.split("|")[1].strip(" `") for row in rows} == {field.name for field in dataclasses.fields(XtremioOptions)}
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    config = parse_config(tomllib.loads(block))
    for name, read in config.platforms.items():
        build(name, read.keys.kind, read.settings)


def test_the_adapter_is_imported_without_another_platforms_sdk() -> None:
    program = (
        "import sys, storage.platforms.xtremio as x; print(*(set(sys.modules) & {'boto3', 'google', 'openstack', 'zeep', 'sqlalchemy'}))"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_errors_keep_the_arrays_own_word(xms: XmsServer, xtremio: XtremioPlatform) -> None:
    with pytest.raises(PollyError, match="vol_size_out_of_range"):
        xtremio._xms.create("volumes", {"vol-name": "huge", "vol-size": "999t"}, action="create a volume")
    assert xtremio.find("huge") is None
    xtremio.delete(ExternalId("huge"))
