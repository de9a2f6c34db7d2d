"""PowerMax: nodes, masking views and who has a volume; and what `polly doctor`, the wire and the document say."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from framework.config import parse_config
from storage.errors import Invalid, NoSlot, PlatformError, PlatformUnavailable, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.node import devices
from storage.node.commands import Output
from storage.node.pace import Pace
from storage.node.steps import Machine
from storage.node.transports import iscsi
from storage.platforms.powermax import naming
from storage.platforms.powermax.hosts import initiators
from storage.platforms.powermax.options import PowerMaxOptions
from storage.platforms.powermax.platform import PowerMaxPlatform
from storage.platforms.powermax.unisphere import LOCKS
from storage.platforms.registry import build
from tests.contract.powermax.arena import NODES, platform_on, request, settings
from tests.peers.powermax_unisphere import PASSWORD, Unisphere

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powermax")]
PAGE = Path(__file__).parents[3] / "docs/platforms/powermax.md"


@pytest.fixture
def volume(adapter: PowerMaxPlatform) -> ExternalId:
    return adapter.create(request()).external_id


# --- which host -----------------------------------------------------------------------------------


def test_an_unknown_node_is_registered_or_refused(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    by_hand = platform_on(front, register_hosts=False)
    with pytest.raises(PlatformError, match="register the host"):
        by_hand.attach(volume, NODES[0], epoch=1)
    assert front.array.hosts == {}
    adapter.attach(volume, NODES[0], epoch=1)
    ((host, known),) = front.array.hosts.items()
    assert (host[:40], known) == ("polly-iqn_1993-08_org_debian_01_aaaaaaaa", [NODES[0]])
    assert adapter.inspect(volume).held_by == (NODES[0],)
    by_hand.attach(volume, NODES[0], epoch=1)
    by_hand.detach(volume, host)
    assert adapter.inspect(volume).held_by == ()


def test_a_node_that_is_no_initiator_is_not_registered(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    with pytest.raises(PlatformError, match="no host of the array has the initiator 'agent-7'"):
        adapter.attach(volume, "agent-7", epoch=1)
    front.array.make_host("agent-7", ["iqn.1993-08.org.debian:01:cccc"])
    adapter.attach(volume, "agent-7", epoch=1)
    assert adapter.inspect(volume).held_by == ("agent-7,iqn.1993-08.org.debian:01:cccc",)


def test_a_host_that_an_operator_made_is_used_whether_it_has_logged_in_or_not(
    front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId
) -> None:
    front.array.make_host("esx-1", [NODES[0]])
    adapter.attach(volume, NODES[0], epoch=1)
    front.array.logged_in.add(NODES[0])
    adapter.detach(volume, NODES[0])
    adapter.attach(volume, NODES[0].upper(), epoch=2)
    assert adapter.inspect(volume).held_by == (f"esx-1,{NODES[0]}",)
    assert list(front.array.hosts) == ["esx-1"]


def test_two_registrations_at_once_make_one_host(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    made = [adapter.create(request(f"t{number}")).external_id for number in range(4)]
    together = threading.Barrier(4)

    def attach(volume: ExternalId) -> str:
        platform = platform_on(front)
        together.wait(timeout=30)
        return platform.attach(volume, NODES[0], epoch=1).context["lun"]

    with ThreadPoolExecutor(4) as pool:
        luns = set(pool.map(attach, made))
    assert len(luns) == 4, "two volumes of one host have one number"
    assert (len(front.array.hosts), len(front.array.views)) == (1, 1)


def test_fibre_channel_hosts_have_all_their_ports(front: Unisphere) -> None:
    fabric = platform_on(front, protocol="fc", port_group="polly-fc")
    volume = fabric.create(request()).external_id
    attachment = fabric.attach(volume, "0x21000024FF57B236,21:00:00:24:ff:57:b2:37", epoch=1)
    assert (attachment.transport, set(attachment.context)) == ("", {"lun"})
    assert list(front.array.hosts.values()) == [["21000024ff57b236", "21000024ff57b237"]]
    fabric.detach(volume, "21000024ff57b237")
    assert fabric.inspect(volume).held_by == ()
    assert fabric.capabilities.identity == "fc"


def test_a_host_that_others_are_in_as_well_gets_nothing(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    """Both nodes would have what either is given."""
    front.array.make_host("cluster", list(NODES))
    with pytest.raises(PlatformError, match=f"host cluster has also {NODES[1]}: give the node a host of its own"):
        adapter.attach(volume, NODES[0], epoch=1)
    assert adapter.inspect(volume).held_by == ()
    adapter.attach(volume, ",".join(NODES), epoch=1)
    (held,) = adapter.inspect(volume).held_by
    assert held == f"cluster,{','.join(NODES)}"
    adapter.detach(volume, held)
    assert adapter.inspect(volume).held_by == ()


def test_a_node_whose_initiators_are_in_two_hosts_gets_nothing_and_is_taken_from_both(front: Unisphere, volume: ExternalId) -> None:
    fabric, ports = platform_on(front, protocol="fc", port_group="polly-fc"), ("21000024ff57b236", "21000024ff57b237")
    fabric.attach(volume, ports[0], epoch=1)
    front.array.make_host("second", [ports[1]])
    with pytest.raises(PlatformError, match="put them into one"):
        fabric.attach(volume, ",".join(ports), epoch=1)
    fabric.detach(volume, ",".join(ports))
    assert fabric.inspect(volume).held_by == ()


def test_initiators_are_written_as_the_array_writes_them() -> None:
    assert initiators("0x21000024FF57B236, 2100:0024") == ["21000024ff57b236", "2100:0024"]
    assert initiators("IQN.2026-11.Test:A") == ["iqn.2026-11.test:a"]


@pytest.mark.parametrize("host", ["a" * 64, "with.dots:and:colons", "plain-name_1"])
def test_names_of_a_hosts_things_fit_the_array(host: str) -> None:
    for name in (naming.host_group(host), naming.host_name(host), naming.anchor_name(host)):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name)
    assert naming.host_group(host) != naming.host_group(host + "x")


# --- who has a volume ---------------------------------------------------------------------------------


def test_an_attachment_says_what_the_node_needs(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    attachment = adapter.attach(volume, NODES[0], epoch=1)
    wwn = "60000970000220200123533030303031"
    assert (attachment.serial, attachment.device) == (f"naa.{wwn}", f"/dev/disk/by-id/wwn-0x{wwn}")
    assert (attachment.transport, attachment.context["lun"]) == ("iscsi", "2")
    assert attachment.context["portals"].split() == [
        "192.168.7.1:3260,iqn.1992-04.com.emc:600009700bca30c01e3e012e00000001",
        "192.168.7.2:3260,iqn.1992-04.com.emc:600009700bca30c01e3e012e00000002",
    ]


def test_the_node_finds_the_disk_by_its_wwn(adapter: PowerMaxPlatform, volume: ExternalId, tmp_path: Path) -> None:
    """Of two disks as sysfs shows them, behind a multipath map or not, the one with the volume's WWN; the anchor's is another."""
    serial = adapter.attach(volume, NODES[0], epoch=1).serial
    for name, wwid in (("sda", "naa.60000970000220200123533030303032"), ("sdb", serial)):
        (tmp_path / "sys/block" / name / "device").mkdir(parents=True)
        (tmp_path / "sys/block" / name / "device/wwid").write_text(wwid + "\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    roots = devices.Roots(dev=tmp_path / "dev", sys=tmp_path / "sys", is_block=lambda path: path.exists())
    assert devices.find(serial, roots=roots, pace=Pace(), timeout_s=0) == str(tmp_path / "dev/sdb")


def test_the_node_logs_in_to_the_ports_of_the_group(adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    ran: list[str] = []

    def run(command: Sequence[str], *_: object, **__: object) -> Output:
        ran.append(" ".join(command))
        return Output(code=0, out="", err="")

    iscsi.connect(adapter.attach(volume, NODES[0], epoch=1), Machine(run=run))
    logins = [command for command in ran if command.endswith("--login")]
    assert [command.split()[6] for command in logins] == ["192.168.7.1:3260", "192.168.7.2:3260"]


def test_a_host_keeps_its_group_and_view_when_its_last_volume_goes(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    """The array refuses to empty a group in a view: the anchor stays, and so no process deletes what another has just filled."""
    first = adapter.attach(volume, NODES[0], epoch=1)
    adapter.detach(volume, NODES[0])
    (view,) = front.array.views.values()
    assert [front.array.volumes[key].name.partition("-")[0] for key in view.luns] == ["pollyanchor"]
    calls = front.calls.total()
    assert adapter.attach(volume, NODES[0], epoch=2) == first
    assert front.calls.total() - calls <= 12


def test_changes_of_one_hosts_group_do_not_cross(front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors of one node, which share nothing, attach and detach at once: what is attached at the end is seen by the host."""
    monkeypatch.setattr(LOCKS, "hold", lambda *_: contextlib.nullcontext())
    made = [adapter.create(request(f"t{number}")).external_id for number in range(8)]

    def work(number: int) -> None:
        platform = platform_on(front)
        for _ in range(3):
            platform.attach(made[number], NODES[0], epoch=1)
            platform.detach(made[number], NODES[0])
        if number % 2:
            platform.attach(made[number], NODES[0], epoch=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    (view,) = front.array.views.values()
    seen = {f"{key}-{front.array.volumes[key].name}" for key in view.luns if "anchor" not in front.array.volumes[key].name}
    assert seen == set(made[1::2])


def test_nodes_that_share_nothing_never_both_have_a_volume(
    front: Unisphere, adapter: PowerMaxPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOCKS, "hold", lambda *_: contextlib.nullcontext())
    for number in range(10):
        volume = adapter.create(request(f"t{number}")).external_id
        together = threading.Barrier(2)

        def attach(node: str, volume: ExternalId = volume, together: threading.Barrier = together) -> bool:
            platform = platform_on(front)
            together.wait(timeout=30)
            with contextlib.suppress(VolumeInUse):
                return bool(platform.attach(volume, node, epoch=1))
            return False

        with ThreadPoolExecutor(2) as pool:
            attached = sum(pool.map(attach, NODES))
        assert (attached, len(adapter.inspect(volume).held_by)) in ((0, 0), (1, 1))


def test_a_volume_that_somebody_maps_by_hand_is_seen_and_never_taken(
    front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId
) -> None:
    array = front.array
    array.make_group("by-hand", "None", "None", ())
    array.add_existing("by-hand", ["00001"])
    adapter.attach(volume, NODES[0], epoch=1)
    adapter.detach(volume, NODES[0])
    array.make_host("someone", ["iqn.1993-08.org.debian:01:dddd"])
    array.make_view("by-hand", "someone", "polly-iscsi", "by-hand")
    for verb in (lambda: adapter.attach(volume, NODES[0], epoch=2), lambda: adapter.delete(volume)):
        with pytest.raises(VolumeInUse, match="someone"):
            verb()
    assert adapter.inspect(volume).held_by == ("someone,iqn.1993-08.org.debian:01:dddd",)
    assert array.groups_of("00001") == ["by-hand", "polly-pool-SRP_1-Optimized-1"]


def test_a_host_with_all_its_places_taken_is_told(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    first, second = (adapter.create(request(label)).external_id for label in ("t1", "t2"))
    front.array.most_in_group = 2
    adapter.attach(first, NODES[0], epoch=1)
    with pytest.raises(NoSlot, match="4095"):
        adapter.attach(second, NODES[0], epoch=1)
    assert adapter.inspect(second).held_by == ()


def test_a_lost_answer_to_any_call_of_an_attach_leaves_no_doubt(front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId) -> None:
    for lost in (("POST", "/host"), ("POST", "/storagegroup"), ("PUT", "/storagegroup/polly-host"), ("POST", "/maskingview")):
        front.lose = lost
        with pytest.raises(PlatformUnavailable):
            adapter.attach(volume, NODES[0], epoch=1)
        assert front.lose is None, f"{lost} was not called"
    attachment = adapter.attach(volume, NODES[0], epoch=1)
    assert len(front.array.hosts) == len(front.array.views) == len(adapter.inspect(volume).held_by) == 1
    assert attachment.context["lun"] == "2"


def test_a_volume_that_goes_while_it_is_attached_is_unknown(
    front: Unisphere, adapter: PowerMaxPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter.attach(adapter.create(request("t2")).external_id, NODES[0], epoch=1)
    give = adapter._hosts.give

    def late(device: str, host: str) -> None:
        platform_on(front).delete(volume)
        give(device, host)

    monkeypatch.setattr(adapter._hosts, "give", late)
    with pytest.raises(UnknownVolume):
        adapter.attach(volume, NODES[0], epoch=1)


# --- the wire, the login, the doctor ------------------------------------------------------------------------


def findings(platform: PowerMaxPlatform) -> dict[str, str]:
    return {finding.subject: f"{finding.message}: {finding.mend}" for finding in platform.check() if not finding.ok}


def test_the_doctor_says_what_is_missing(front: Unisphere, adapter: PowerMaxPlatform, tmp_path: Path) -> None:
    assert findings(adapter) == {}
    assert "no such port group" in findings(platform_on(front, port_group="none"))["none"]
    assert "0 iscsi ports" in findings(platform_on(front, port_group="polly-fc"))["polly-fc"]
    assert "does not know this array" in findings(platform_on(front, array="000000000001"))["000000000001"]
    assert "has the storage resource pools SRP_1: Name some of them" in findings(platform_on(front, srps=("SRP_1", "SRP_9")))["SRP_9"]
    assert "Platinum" in findings(platform_on(front, service_level="Brass"))["Brass"]
    (shown := tmp_path / "password").write_text(PASSWORD)
    shown.chmod(0o644)
    assert findings(platform_on(front, password_file=str(shown))) == {
        str(shown): f"others may read or change the password's file: chmod 600 {shown}"
    }
    front.array.microcode = "5977.1131.1131"
    assert "5978.669 or later" in findings(adapter)["000220200123"]
    front.may_write = False
    assert "StorageAdmin" in findings(adapter)["polly"]
    front.version = "V9.1.0.3"
    assert "needs 9.2 or later" in findings(platform_on(front))[front.url]


def test_what_is_wrong_with_the_login_is_said_without_the_password(front: Unisphere, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("another-secret")
    said = findings(platform_on(front, password_file=str(wrong)))[front.url]
    assert "does not accept user polly" in said
    assert "another-secret" not in said
    assert "password_file" in findings(platform_on(front, password_file=str(tmp_path / "none")))[front.url]
    wrong.write_text("\n")
    assert (
        "is empty.: Check endpoint, ca_file, username and password_file"
        in findings(platform_on(front, password_file=str(wrong)))[front.url]
    )
    assert PASSWORD not in repr(platform_on(front).settings())


def test_rights_that_are_lacking_are_named(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    front.may_write = False
    with pytest.raises(PlatformError, match="lacks the right") as caught:
        adapter.create(request())
    assert not isinstance(caught.value, PlatformUnavailable)


def test_an_array_that_stays_busy_is_unavailable(front: Unisphere, adapter: PowerMaxPlatform) -> None:
    front.refuse = [(429, None)] * 6
    with pytest.raises(PlatformUnavailable, match="too busy"):
        adapter.volumes()


def test_a_certificate_that_is_not_trusted_is_refused(front: Unisphere) -> None:
    given = settings(front)
    ca_file = given.pop("ca_file")
    with pytest.raises(PlatformUnavailable, match="certificate verify failed"):
        build("max", "powermax", given).volumes()
    with pytest.raises(Invalid, match="ca_file"):
        build("max", "powermax", {**given, "ca_file": str(Path(ca_file).with_suffix(".password"))}).volumes()


@pytest.mark.parametrize(
    ("key", "value"), [("array", "123"), ("protocol", "nvme"), ("port_group", "a b"), ("srps", ["a", "a"]), ("endpoint", "http://array")]
)
def test_what_cannot_be_is_refused_by_its_name(front: Unisphere, key: str, value: object) -> None:
    with pytest.raises(Invalid, match=rf"platforms\.max\.{key}"):
        platform_on(front, **{key: value})


def test_every_key_is_documented_and_the_example_is_one() -> None:
    page = PAGE.read_text("utf-8")
    rows = page.partition("| key |")[2].partition("\n\n")[0].splitlines()[2:]
    assert {row.split("|")[1].strip(" `") for row in rows} == {field.name for field in dataclasses.fields(PowerMaxOptions)}
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    config = parse_config(tomllib.loads(block))
    for name, read in config.platforms.items():
        build(name, read.keys.kind, read.settings)


def test_the_adapter_is_imported_without_another_platforms_sdk() -> None:
    others = "{'boto3', 'google', 'openstack', 'zeep', 'sqlalchemy', 'requests'}"
    program = f"import sys, storage.platforms.powermax as x; print(*(set(sys.modules) & {others}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
