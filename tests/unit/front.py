"""What the tests of the HTTP API and the command line share: a filled ledger and a broker that keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from framework.marathon.ids import timestamp
from framework.marathon.model import App
from framework.marathon.reading import read_app
from framework.marathon.writing import to_json
from framework.mesos.instances import Phase, TaskRecord
from framework.service import (
    BrokerInfo,
    DriftOrder,
    DriftReport,
    Explanation,
    ImportOrder,
    OfferView,
    RefusalCount,
    VolumeOrder,
    WaitingInstance,
)
from storage.errors import AlreadyExists, UnknownClaim
from storage.inventory import ClaimRequest, Ledger, NewVolume, Placement, PlaceRequest, Workload
from storage.model import (
    Access,
    Birth,
    ClaimId,
    ExternalId,
    Node,
    NodeId,
    PlacementId,
    Profile,
    Snapshot,
    SnapshotId,
    Volume,
    VolumeId,
    WorkloadId,
)
from storage.platforms.base import Finding, PoolReport

NOW = 1_700_000_000.0
SCHEDULER = "mesos/polly"
TASK = PlacementId("counter.instance-c6ba8ab0-4a3d-11e8-bac9-0242ac110002._app.1")
COUNTER: dict[str, Any] = {
    "id": "/counter",
    "cmd": "run",
    "container": {"volumes": [{"containerPath": "data", "persistent": {"size": 64, "profileName": "fast"}}]},
}
OFFER = {
    "id": {"value": "o1"},
    "hostname": "agent1",
    "domain": {"fault_domain": {"region": {"name": "eu"}, "zone": {"name": "z1"}}},
    "resources": [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": 4.0}, "ranges": None, "disk": None},
        {"name": "mem", "type": "SCALAR", "scalar": {"value": 2048.0}},
        {"name": "ports", "type": "RANGES", "scalar": None, "ranges": {"range": [{"begin": 31000, "end": 32000}]}},
    ],
}
POOL_DISK = {
    "name": "disk",
    "type": "SCALAR",
    "scalar": {"value": 10240.0},
    "provider_id": {"value": "local"},
    "disk": {"source": {"type": "RAW", "profile": "fast", "metadata": {"labels": [{"key": "pool", "value": "main"}]}}},
}
VOLUME_DISK = {"name": "disk", "type": "SCALAR", "scalar": {"value": 64.0}, "disk": {"source": {"type": "MOUNT", "id": "v1"}}}


def workload(definition: Mapping[str, Any], *, version: str = timestamp(NOW)) -> Workload:
    app = read_app(definition)
    return Workload(
        scheduler=SCHEDULER,
        workload_id=WorkloadId(app.app_id),
        spec=json.dumps(to_json(app)),
        instances=app.instances,
        version=version,
        state="RUNNING",
        created_at=NOW,
        updated_at=NOW,
    )


def fill(ledger: Ledger) -> None:
    """A platform with a pool, a node, an app with a running task on a born volume, and two volumes made by hand."""
    with ledger.begin("broker") as tx:
        tx.sync_pools("local", [PoolReport(name="main", capacity_mib=10_240, zone="z1")])
        tx.put_profiles([Profile(name="fast", platforms=("local",), min_mib=16)])
        tx.put_nodes([Node(node_id=NodeId("S1"), scheduler=SCHEDULER, hostname="agent1", zone="z1", slots={"local": 16}, seen_at=NOW)])
        tx.put_workload(workload(COUNTER))
        new = NewVolume(
            volume_id=VolumeId("v1"),
            name="/counter#0/data",
            platform="local",
            pool="main",
            size_mib=64,
            profile="fast",
            owner="/counter",
            zone="z1",
        )
        claim = ClaimRequest(claim_id=ClaimId("c1"), volume_id=VolumeId("v1"), platform=new.platform, access=Access.RW, epoch=0, new=new)
        (placed,) = tx.place([PlaceRequest(placement=placement(), claims=(claim,), lease_s=60)])
        assert not hasattr(placed, "error"), placed
        tx.created(VolumeId("v1"), token="c1", external_id=ExternalId("x1"), size_mib=64)
        tx.born(VolumeId("v1"), epoch=1, birth=Birth(serial="s", filesystem="ext4", filesystem_uuid="u-1"))
        for number, labels in (("2", {"team": "a"}), ("3", {"team": "b"})):
            tx.plan(hand_made(number, labels), token=f"t{number}")


def hand_made(number: str, labels: Mapping[str, str]) -> NewVolume:
    return NewVolume(
        volume_id=VolumeId(f"v{number}"),
        name=f"hand{number}",
        platform="local",
        pool="main",
        size_mib=1024,
        profile="fast",
        zone="z1",
        labels=labels,
    )


def placement() -> Placement:
    record = TaskRecord(
        hostname="agent1", zone="z1", ports=(31001,), version=timestamp(NOW), containers={"v1": "data"}, launched_at=NOW, started_at=NOW + 1
    )
    return Placement(
        placement_id=TASK,
        scheduler=SCHEDULER,
        workload=WorkloadId("/counter"),
        slot=0,
        node=NodeId("S1"),
        state=Phase.RUNNING,
        data=_text(record),
        created_at=NOW,
        updated_at=NOW,
    )


def _text(record: TaskRecord) -> str:
    import msgspec

    return msgspec.json.encode(record).decode()


class FakeBroker:
    """Fulfils framework.service.Broker over a ledger without a Mesos; `calls` is what it was asked to do."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.calls: list[tuple[Any, ...]] = []
        self.waiting: tuple[WaitingInstance, ...] = ()
        self.held_back: dict[str, int] = {}
        self.findings: list[Finding] = []
        self.drifted = DriftReport()
        self.connected = True

    def info(self) -> BrokerInfo:
        return BrokerInfo(
            version="0.1.0",
            scheduler=SCHEDULER,
            framework_name="polly",
            framework_id="F1",
            master="127.0.0.1:5050",
            connected=self.connected,
            away="" if self.connected else "127.0.0.1:5050: Connection refused",
            roles=("*",),
            hostname="here",
        )

    def run_app(self, definition: Mapping[str, Any], actor: str) -> App:
        app = read_app(definition)
        if any(found.workload_id == app.app_id for found in self.ledger.workloads()):
            raise AlreadyExists(kind="App", name=app.app_id)
        self._put(app)
        self.calls.append(("run", app.app_id, actor))
        return app

    def scale(self, app_id: str, instances: int, actor: str) -> App:
        (found,) = [w for w in self.ledger.workloads() if w.workload_id == app_id]
        app = structs.replace(read_app(json.loads(found.spec)), instances=instances)
        self._put(app)
        self.calls.append(("scale", app_id, instances, actor))
        return app

    def _put(self, app: App) -> None:
        with self.ledger.begin("test") as tx:
            tx.put_workload(workload(to_json(app)))

    def delete_app(self, app_id: str, actor: str) -> None:
        self.calls.append(("delete", app_id, actor))

    def explain(self, app_id: str) -> Explanation:
        return Explanation(app_id=app_id, instances=2, running=1, staging=0, waiting=self.waiting)

    def explain_all(self) -> Sequence[Explanation]:
        return [self.explain(found.workload_id) for found in self.ledger.workloads() if self.waiting]

    def delayed(self) -> Mapping[str, int]:
        return self.held_back

    def offers(self) -> Sequence[OfferView]:
        return [OfferView(offer=OFFER, overlay=(POOL_DISK, VOLUME_DISK), received_at=NOW, fate="declined")]

    def create_volume(self, order: VolumeOrder, actor: str) -> Volume:
        self.calls.append(("create", order, actor))
        return self.ledger.volume("v2")

    def import_volume(self, order: ImportOrder, actor: str) -> Volume:
        self.calls.append(("import", order, actor))
        return self.ledger.volume("v2")

    def delete_volume(self, volume: str, actor: str) -> None:
        self.ledger.volume(volume)
        self.calls.append(("delete volume", volume, actor))

    def expand_volume(self, volume: str, size_mib: int, actor: str) -> Volume:
        self.calls.append(("expand", volume, size_mib, actor))
        return structs.replace(self.ledger.volume(volume), size_mib=size_mib)

    def snapshot_volume(self, volume: str, name: str, actor: str) -> Snapshot:
        self.calls.append(("snapshot", volume, name, actor))
        found = self.ledger.volume(volume)
        return Snapshot(
            snapshot_id=SnapshotId("n1"),
            volume_id=found.volume_id,
            platform="local",
            external_id=None,
            size_mib=found.size_mib,
            token="n1",
            name=name,
        )

    def delete_snapshot(self, snapshot: SnapshotId, actor: str) -> None:
        self.calls.append(("delete snapshot", snapshot, actor))

    def release_claim(self, claim: ClaimId, reason: str, actor: str) -> None:
        if claim != "c1":
            raise UnknownClaim(claim=claim)
        self.calls.append(("release", claim, reason, actor))

    def look_for_drift(self, order: DriftOrder, actor: str) -> DriftReport:
        self.calls.append(("drift", order, actor))
        return self.drifted

    def drift(self) -> DriftReport:
        return self.drifted

    def doctor(self) -> Sequence[Finding]:
        return self.findings


WAITING = WaitingInstance(
    slot=1,
    since=NOW,
    offers_seen=12,
    offers_refused=12,
    refusals=(
        RefusalCount(reason="ZONE", words="in the wrong zone", count=9, example="agent1 is in z1, the volume in z2"),
        RefusalCount(reason="SLOTS", words="with no attach slot left", count=3),
    ),
)
