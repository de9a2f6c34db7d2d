"""XtremIO keeps the contract on Cinder's in-memory XMS, which Cinder's own client is tried on first."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framework.config import parse_config
from storage.errors import Invalid, NoSlot, PlatformError, PlatformUnavailable, PollyError, PoolFull, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import CreateRequest, Platform
from storage.platforms.contract import PlatformContract
from storage.platforms.contract.arena import Arena, LostReply
from storage.platforms.registry import build
from storage.platforms.xtremio import naming
from storage.platforms.xtremio.hosts import port_addresses
from storage.platforms.xtremio.options import XtremioOptions
from tests.peers.xtremio import PASSWORD, XmsServer

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("xtremio")]

NODES = ("iqn.1993-08.org.debian:01:aaaaaaaaaaaa", "iqn.1993-08.org.debian:01:bbbbbbbbbbbb")
PAGE = Path(__file__).parents[2] / "docs/platforms/xtremio.md"


@pytest.fixture
def xms(xtremio_server: XmsServer) -> XmsServer:
    xtremio_server.faults(reset=True)
    return xtremio_server


def platform_on(xms: XmsServer, **more: object) -> Platform:
    """Waits are not waited: only the order of things matters here."""
    from storage.platforms.options import read_options
    from storage.platforms.xtremio import XtremioPlatform

    options = read_options(XtremioOptions, "platforms.xtremio", xms.settings(**more))
    return XtremioPlatform("xtremio", options, wait=lambda seconds: None)


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

    @contextlib.contextmanager
    def losing(self, storage: XmsServer, platform: Platform, verb: str) -> Iterator[Platform]:
        """The connection ends before the answer to the call that changes something."""
        yield LostReply(platform, verb)

    @contextlib.contextmanager
    def throttling(self, storage: XmsServer) -> Iterator[None]:
        storage.faults(throttle=2, busy=2)
        yield
        storage.faults(throttle=0, busy=0)

    def expiring(self, storage: XmsServer) -> contextlib.AbstractContextManager[None]:
        return storage.failing(locked_out=True)


@pytest.fixture
def xtremio(xms: XmsServer) -> Iterator[Platform]:
    platform = platform_on(xms)
    yield platform
    platform.close()


def request(name: str = "t1", **more: Any) -> CreateRequest:
    return CreateRequest(pool="brick1", size_mib=1024, token=name, **more)


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


def test_a_lost_answer_to_any_call_of_any_verb_leaves_no_doubt(xms: XmsServer, xtremio: Platform) -> None:
    """The N-th call's answer is lost on the network, for each N, and the verb is repeated until it ends."""

    def until_done(verb: Any) -> Any:
        for lost in range(20):
            xms.faults(lose=1 if lost < 8 else 0)
            with contextlib.suppress(PlatformUnavailable):
                return verb()
        raise AssertionError("it never ended")

    made = until_done(lambda: xtremio.create(request()))
    until_done(lambda: xtremio.attach(made.external_id, NODES[0], epoch=1))
    assert len(xtremio.inspect(made.external_id).held_by) == 1
    snapshot = until_done(lambda: xtremio.snapshot(made.external_id, token="s1"))
    copy = until_done(lambda: xtremio.create(request("t2", snapshot=snapshot.external_id)))
    xms.faults(lose=0)
    assert sorted(volume.external_id for volume in xtremio.volumes().items) == sorted([made.external_id, copy.external_id])
    assert len(xtremio.snapshots().items) == 1

    grown = until_done(lambda: xtremio.expand(copy.external_id, 4096))
    until_done(lambda: xtremio.detach(made.external_id, NODES[0]))
    until_done(lambda: xtremio.delete_snapshot(snapshot.external_id))
    until_done(lambda: xtremio.delete(made.external_id))
    xms.faults(lose=0)
    assert grown.size_mib == 4096
    assert [(volume.external_id, volume.size_mib, volume.held_by) for volume in xtremio.volumes().items] == [(copy.external_id, 4096, ())]
    # the adapter's own client, which the protocol does not show
    assert (len(xtremio.snapshots().items), list(xtremio._hosts.all_maps())) == (0, [])  # type: ignore[attr-defined]


def test_a_copy_that_was_made_and_not_named_is_taken_up(xms: XmsServer, xtremio: Platform) -> None:
    volume = xtremio.create(request()).external_id
    snapshot = xtremio.snapshot(volume, token="s1").external_id
    first = platform_on(xms)
    # the adapter's own client, which the protocol does not show
    first._xms.change = lambda *_, **__: (_ for _ in ()).throw(PlatformUnavailable(platform="x", action="name", reason="killed"))  # type: ignore[attr-defined]
    with pytest.raises(PlatformUnavailable):
        first.create(request("t2", snapshot=snapshot))
    made = xtremio.create(request("t2", snapshot=snapshot))
    assert (made.external_id, made.token) == ("polly-t2", "t2")
    assert sorted(it.external_id for it in xtremio.volumes().items) == ["polly-t1", "polly-t2"]


def test_a_host_that_is_unknown_is_registered_or_refused(xms: XmsServer, xtremio: Platform) -> None:
    volume = xtremio.create(request()).external_id
    by_hand = platform_on(xms, register_hosts=False)
    with pytest.raises(PlatformError, match="register the host"):
        by_hand.attach(volume, NODES[0], epoch=1)
    xtremio.attach(volume, NODES[0], epoch=1)
    assert xtremio.inspect(volume).held_by == (f"polly-{NODES[0]}",)
    by_hand.attach(volume, NODES[0], epoch=1)
    by_hand.detach(volume, f"polly-{NODES[0]}")
    assert xtremio.inspect(volume).held_by == ()


def test_an_attachment_says_what_the_node_needs(xms: XmsServer, xtremio: Platform) -> None:
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


def test_snapshot_limits_are_a_full_pool(xms: XmsServer, xtremio: Platform) -> None:
    volume = xtremio.create(request()).external_id
    xms.faults(most_snapshots=1)
    xtremio.snapshot(volume, token="s1")
    with pytest.raises(PoolFull, match="too_many_snapshots_per_vol"):
        xtremio.snapshot(volume, token="s2")


def test_a_group_that_may_have_no_more_volumes_has_no_slot(xms: XmsServer, xtremio: Platform) -> None:
    first, second = (xtremio.create(request(token)).external_id for token in ("one", "two"))
    xms.faults(most_maps=1)
    xtremio.attach(first, NODES[0], epoch=1)
    xtremio.attach(first, NODES[0], epoch=1)
    with pytest.raises(NoSlot, match="has all 1 attach slots") as caught:
        xtremio.attach(second, NODES[0], epoch=1)
    assert caught.value.fields["reason"] == "too_many_objs"
    assert xtremio.attach(second, NODES[1], epoch=1).external_id == second


def test_an_array_that_stays_busy_is_unavailable(xms: XmsServer, xtremio: Platform) -> None:
    xms.faults(busy=100)
    with pytest.raises(PlatformUnavailable, match="system_is_busy"):
        xtremio.volumes()


def test_a_volume_that_somebody_maps_by_hand_is_seen_and_never_taken(xms: XmsServer, xtremio: Platform) -> None:
    volume = xtremio.create(request()).external_id
    xtremio.attach(volume, NODES[0], epoch=1)
    with pytest.raises(VolumeInUse, match="aaaaaaaaaaaa"):
        xtremio.attach(volume, NODES[1], epoch=2)
    with pytest.raises(VolumeInUse):
        xtremio.delete(volume)


def test_foreign_volumes_count_as_foreign_and_can_be_adopted(xms: XmsServer, xtremio: Platform) -> None:
    # the adapter's own client, which the protocol does not show
    xtremio._xms.create("volumes", {"vol-name": "old database", "vol-size": "4g"}, action="test")  # type: ignore[attr-defined]
    (pool,) = xtremio.pools()
    assert (pool.name, pool.foreign_mib, pool.capacity_mib) == ("brick1", 4096, 8146708710 // 1024)
    (seen,) = xtremio.volumes().items
    assert (seen.external_id, seen.token, seen.size_mib) == ("old database", "", 4096)
    assert platform_on(xms, capacity_mib=5000).pools()[0].capacity_mib == 5000


def test_a_snapshot_is_no_volume(xtremio: Platform) -> None:
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
    assert "the file is empty" in finding.message
    (finding,) = platform_on(xms, cluster="brick9").check()
    assert (finding.ok, finding.subject) == (False, "cluster brick9")
    assert "in `cluster`" in finding.mend


def test_a_certificate_that_is_not_trusted_is_refused(xms: XmsServer) -> None:
    with pytest.raises(PlatformUnavailable, match="certificate verify failed"):
        build("x", "xtremio", {key: value for key, value in xms.settings().items() if key != "ca_file"}).volumes()
    with pytest.raises(Invalid, match="ca_file"):
        platform_on(xms, ca_file=str(xms.password_file)).volumes()


@pytest.mark.parametrize("endpoint", ["http://array", "array:443", "https://polly:secret@array", "https://array?x=1"])
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


def test_errors_keep_the_arrays_own_word(xms: XmsServer, xtremio: Platform) -> None:
    with pytest.raises(PollyError, match="vol_size_out_of_range"):
        # the adapter's own client, which the protocol does not show
        xtremio._xms.create("volumes", {"vol-name": "huge", "vol-size": "999t"}, action="create a volume")  # type: ignore[attr-defined]
    assert xtremio.find("huge") is None
    xtremio.delete(ExternalId("huge"))
