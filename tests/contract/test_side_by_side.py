"""All platforms side by side in one broker on a real Mesos: what there is at a glance, and volumes of others taken over from each."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framework.doctor import examine
from storage.platforms.cinder.options import BARE_METAL, CinderOptions
from storage.platforms.local.options import LocalOptions
from storage.platforms.options import read_options
from storage.platforms.powermax.options import PowerMaxOptions
from storage.platforms.powerscale.options import PowerScaleOptions
from storage.platforms.virtualbox.options import VirtualBoxOptions
from storage.platforms.xtremio import XtremioPlatform
from storage.platforms.xtremio.options import XtremioOptions
from tests.cluster.mesos_cluster import MesosCluster
from tests.cluster.rig import Rig
from tests.contract.cinder_cloud import POOL as CINDER_POOL
from tests.contract.cinder_cloud import Cloud
from tests.contract.powerflex import arena as powerflex_arena
from tests.contract.powermax import arena as powermax_arena
from tests.contract.powerscale import arena as powerscale_arena
from tests.contract.virtualbox_rig import Rig as VirtualBox
from tests.peers import ec2, ec2_front
from tests.peers.gce import disks
from tests.peers.gce.cloud import POOL as GCE_POOL
from tests.peers.gce.cloud import ZONE, cloud_on
from tests.peers.gce.server import Peer as ComputeEngine
from tests.peers.powerflex_gateway import Gateway
from tests.peers.powermax_unisphere import Unisphere
from tests.peers.powerscale_onefs import OneFs
from tests.peers.xtremio import XmsServer
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.cluster, pytest.mark.xdist_group("cinder")]

THEIRS = "their-database"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A platform as an operator configures it, with a volume called THEIRS on it that somebody else has made."""

    kind: str
    options: Any
    pool: str

    @property
    def block(self) -> dict[str, Any]:
        fields = dataclasses.fields(self.options)
        given = {field.name: getattr(self.options, field.name) for field in fields}
        return {"kind": self.kind} | {field.name: given[field.name] for field in fields if given[field.name] != field.default}


@pytest.fixture
def local(tmp_path: Path) -> Side:
    (tmp_path / "shared" / "default").mkdir(parents=True)
    with open(tmp_path / "shared" / "default" / f"{THEIRS}.img", "wb") as image:
        image.truncate(64 << 20)
    return Side(kind="local", options=LocalOptions(root=str(tmp_path / "shared")), pool="default")


@pytest.fixture
def ebs(monkeypatch: pytest.MonkeyPatch) -> Side:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ec2_front.KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-looked-at")
    front = ec2.fresh()
    named = {"TagSpecification.1.ResourceType": "volume", "TagSpecification.1.Tag.1.Key": "Name", "TagSpecification.1.Tag.1.Value": THEIRS}
    front.do("CreateVolume", AvailabilityZone=ec2.ZONE, Size="3", VolumeType="gp3", **named)
    return Side(kind="ebs", options=ec2.options(front), pool=ec2.ZONE)


@pytest.fixture
def gce(compute_engine: ComputeEngine, tmp_path: Path) -> Side:
    cloud = cloud_on(compute_engine, tmp_path)
    disks.add(cloud.world, ZONE, {"name": THEIRS, "type": "pd-balanced", "sizeGb": "10"})
    cloud.world.settle()
    return Side(kind="gce", options=cloud.options(), pool=GCE_POOL)


@pytest.fixture
def openstack(cinder: Cloud) -> Side:
    cinder.forget()
    storage = cinder.openstack.connect("polly").block_storage
    made = storage.create_volume(name=THEIRS, size=1, volume_type=None)
    storage.wait_for_status(made, "available")
    options = CinderOptions(cloud="polly", clouds_file=str(cinder.openstack.files.clouds), attach=BARE_METAL)
    return Side(kind="cinder", options=options, pool=CINDER_POOL)


@pytest.fixture
def powerflex(powerflex_gateways: dict[str, Gateway]) -> Side:
    gateway = powerflex_arena.renewed(powerflex_gateways["4.5"])
    powerflex_arena.foreign(gateway, THEIRS)
    return Side(kind="powerflex", options=powerflex_arena.options(gateway), pool=powerflex_arena.POOL)


@pytest.fixture
def xtremio(xtremio_server: XmsServer) -> Side:
    xtremio_server.faults(reset=True)
    options = read_options(XtremioOptions, "xtremio", xtremio_server.settings())
    array = XtremioPlatform("xtremio", options)
    array._xms.create("volumes", {"vol-name": THEIRS, "vol-size": "4g"}, action="test")
    array.close()
    return Side(kind="xtremio", options=options, pool="brick1")


@pytest.fixture
def vmax(powermax: Unisphere) -> Side:
    powermax_arena.foreign(powermax_arena.renewed(powermax), THEIRS)
    options = read_options(PowerMaxOptions, "powermax", powermax_arena.settings(powermax))
    return Side(kind="powermax", options=options, pool="SRP_1")


@pytest.fixture
def isilon(powerscale: OneFs) -> Side:
    powerscale_arena.foreign(powerscale_arena.renewed(powerscale), THEIRS)
    options = read_options(PowerScaleOptions, "powerscale", powerscale_arena.settings(powerscale))
    return Side(kind="powerscale", options=options, pool="System")


@pytest.fixture
def vbox(virtualbox: VirtualBox) -> Iterator[Side]:
    with virtualbox.folder() as root:
        file = root / "default" / f"{THEIRS}.vdi"
        virtualbox.box.manage("createmedium", "disk", "--filename", str(file), "--size", "8")
        options = read_options(VirtualBoxOptions, "virtualbox", virtualbox.settings(root, "soap"))
        yield Side(kind="virtualbox", options=options, pool="default")


@pytest.fixture
def sides(
    local: Side, ebs: Side, gce: Side, openstack: Side, powerflex: Side, xtremio: Side, vmax: Side, isilon: Side, vbox: Side
) -> list[Side]:
    return [local, ebs, gce, openstack, powerflex, xtremio, vmax, isilon, vbox]


@pytest.fixture
def rig(mesos: Callable[..., MesosCluster], tmp_path: Path, sides: list[Side]) -> Iterator[Rig]:
    blocks = {f"platforms.{side.kind}": side.block for side in sides}
    rig = Rig(mesos(1), tmp_path / "polly", settings={**blocks, "profiles.any": {"filesystem": "ext4"}})
    yield rig
    rig.stop()


def polly(rig: Rig, *arguments: str) -> Any:
    """What the command prints as JSON."""
    where = ["--broker", str(rig.http.base_url), "-o", "json"]
    command = [sys.executable, "-c", "from framework.cli import main; main()", *arguments, *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return json.loads(done.stdout)


def test_every_platform_shows_its_capacity_and_gives_up_what_others_have_made(rig: Rig, sides: list[Side]) -> None:
    def capacities() -> dict[tuple[str, str], int]:
        pools = [view["pool"] for view in polly(rig, "inventory")["pools"]]
        return {(pool["platform"], pool["name"]): pool["capacity_mib"] for pool in pools}

    rig.start_broker()
    wanted = {(side.kind, side.pool) for side in sides}
    eventually(lambda: wanted <= capacities().keys(), 60, "the broker has looked at the pools of all platforms")
    assert min(capacities()[pool] for pool in wanted) > 0

    for side in sides:
        polly(rig, "drift", "--platform", side.kind)
        foreign = polly(rig, "volume", "foreign", "--platform", side.kind)
        theirs = next((seen for seen in foreign if THEIRS in f"{seen['name']} {seen['external_id']}"), None)
        assert theirs, f"{side.kind} has but {foreign}"
        mine = f"adopted-from-{side.kind}"
        polly(rig, "volume", "import", theirs["external_id"], "--platform", side.kind, "--name", mine, "--profile", "any")
        volume = polly(rig, "volume", "show", mine)["volume"]
        assert (volume["platform"], volume["pool"], volume["state"]) == (side.kind, side.pool, "AVAILABLE")
        assert volume["size_mib"] == theirs["size_mib"] > 0
    assert len(rig.volumes()) == len(sides)


def test_the_doctor_finds_every_platform_well(rig: Rig, sides: list[Side]) -> None:
    """But for what only agents need, which this machine may not have."""
    found = list(examine(config=rig.config, database=None, broker=None))
    for side in sides:
        mine = [finding for finding in found if finding.subject.startswith(f"platform {side.kind}")]
        wrong = [finding for finding in mine if not finding.ok and "an agent here needs them" not in finding.message]
        assert len(mine) > 2
        assert wrong == []
