"""The ledger against a tiny model of it in memory: whatever happens in whatever order, both say the same.

Never two exclusive holders, capacity and slots never exceeded by a claim, an epoch only ever goes up, and the ledger's own
counters are 0 after every step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from storage import schema
from storage.errors import Conflict, PollyError, PoolFull, UnknownClaim, UnknownVolume, VolumeInUse
from storage.inventory import ClaimRequest, Ledger, Placed, PlaceRequest, Release, Transaction, open_ledger
from storage.lifecycle import ClaimState, VolumeState, may_follow
from storage.model import Access, AccessMode, Birth, ClaimId, ExternalId, PlacementId, VolumeId
from storage.platforms.base import PoolReport
from tests.ledgers import PROOF, assert_sound, fresh, furnish, new, old, task

NAMES = [f"n{n}" for n in range(4)]
NODES = ("node1", "node2")
SLOTS = 2
SOLE = (AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY)
READERS = (AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY)


@dataclass(slots=True)
class ModelVolume:
    mode: AccessMode
    size_mib: int
    token: str
    epoch: int = 1
    state: VolumeState = VolumeState.PLANNED
    outside: bool = False
    born: bool = False


@dataclass(slots=True)
class ModelClaim:
    volume: str
    access: Access
    node: str
    placement: str
    epoch: int
    state: ClaimState = ClaimState.RESERVED


@dataclass(slots=True)
class Model:
    """What the ledger must say. Its rules are written as simply as they can be, one volume at a time."""

    capacity_mib: int
    volumes: dict[str, ModelVolume] = field(default_factory=dict)
    claims: dict[str, ModelClaim] = field(default_factory=dict)

    def copy(self) -> Model:
        volumes = {name: ModelVolume(**{key: getattr(v, key) for key in ModelVolume.__slots__}) for name, v in self.volumes.items()}
        claims = {name: ModelClaim(**{key: getattr(c, key) for key in ModelClaim.__slots__}) for name, c in self.claims.items()}
        return Model(self.capacity_mib, volumes, claims)

    def provisioned(self) -> int:
        return sum(volume.size_mib for volume in self.volumes.values())

    def held(self, name: str) -> list[ModelClaim]:
        return [claim for claim in self.claims.values() if claim.volume == name]

    def used(self, node: str) -> int:
        return sum(claim.node == node for claim in self.claims.values())

    def place(self, wanted: PlaceRequest) -> Model | None:
        """The model after the task, or None if it doesn't fit."""
        after = self.copy()
        names = [claim.volume_id for claim in wanted.claims]
        if len(set(names)) < len(names) or not all(after._claim(claim, wanted) for claim in wanted.claims):
            return None
        made = any(claim.new for claim in wanted.claims)
        fits = not made or after.provisioned() <= after.capacity_mib
        return after if fits and (not wanted.claims or after.used(wanted.placement.node) <= SLOTS) else None

    def _claim(self, asked: ClaimRequest, wanted: PlaceRequest) -> bool:
        name = asked.volume_id.removeprefix("v-")
        if asked.new:
            if name in self.volumes:
                return False
            self.volumes[name] = ModelVolume(asked.new.access_mode, asked.new.size_mib, asked.claim_id)
        elif not self._reclaim(name, asked):
            return False
        volume = self.volumes[name]
        if asked.access is Access.RW and volume.mode in READERS:
            return False
        placement = wanted.placement
        self.claims[asked.claim_id] = ModelClaim(name, asked.access, placement.node, placement.placement_id, volume.epoch)
        return True

    def _reclaim(self, name: str, asked: ClaimRequest) -> bool:
        volume = self.volumes.get(name)
        if volume is None or volume.epoch != asked.epoch or volume.born is asked.renew:
            return False
        live = self.held(name)
        writers = [claim for claim in live if claim.access is Access.RW]
        if live and (volume.mode in SOLE or asked.renew):
            return False
        if writers and volume.mode is AccessMode.MULTI_NODE_SINGLE_WRITER and asked.access is Access.RW:
            return False
        if volume.state not in ((VolumeState.PLANNED, VolumeState.AVAILABLE) if asked.renew else (VolumeState.AVAILABLE,)):
            return False
        volume.epoch += 1
        if asked.renew:
            volume.token, volume.state, volume.outside = asked.claim_id, VolumeState.PLANNED, False
        return True


class LedgerMachine(RuleBasedStateMachine):
    """Does to the ledger and to the model the same."""

    make: Callable[[], Ledger]

    def __init__(self) -> None:
        super().__init__()
        self.ledger = type(self).make()
        self.model = Model(capacity_mib=100)
        self.count = 0
        furnish(self.ledger, capacity_mib=100, slots=SLOTS)

    def teardown(self) -> None:
        self.ledger.close()

    def _name(self) -> str:
        self.count += 1
        return f"x{self.count}"

    def _try(self, verb: Callable[[Transaction], object], *errors: type[PollyError]) -> bool:
        """Whether it was done; False after one of these errors."""
        try:
            with self.ledger.begin("test") as tx:
                verb(tx)
        except errors:
            return False
        return True

    @initialize(modes=st.lists(st.sampled_from([mode for mode in AccessMode if mode not in READERS]), min_size=2, max_size=3))
    def begin_with_born_volumes(self, modes: list[AccessMode]) -> None:
        """Otherwise few runs would come to a second claim on a volume."""
        for name, mode in zip(NAMES, modes, strict=False):
            asked = task(self._name(), fresh(self._name(), new(name, size_mib=1, mode=mode)))
            after = self.model.place(asked)
            assert after
            self.model = after
            claim = asked.claims[0].claim_id
            with self.ledger.begin("test") as tx:
                tx.place([asked])
            self.created(name=name, grown=0, other=False)
            self.born(name=name, behind=False)
            assert self._try(lambda tx, claim=claim: tx.free(claim, 1, PROOF))  # type: ignore[misc]  # a default of a lambda
            del self.model.claims[claim]

    # --- rules --------------------------------------------------------------------------------

    @rule(data=st.data(), number=st.integers(1, 4))
    def place_a_batch(self, data: st.DataObject, number: int) -> None:
        wanted = [self._task(data) for _ in range(number)]
        with self.ledger.begin("broker") as tx:
            outcomes = tx.place(wanted)
        for asked, outcome in zip(wanted, outcomes, strict=True):
            after = self.model.place(asked)
            assert (after is not None) is isinstance(outcome, Placed), outcome
            if after is not None and isinstance(outcome, Placed):
                assert [claim.epoch for claim in outcome.claims] == [after.claims[claim.claim_id].epoch for claim in asked.claims]
                self.model = after

    @rule(data=st.data())
    def place_one(self, data: st.DataObject) -> None:
        self.place_a_batch(data=data, number=1)

    def _task(self, data: st.DataObject) -> PlaceRequest:
        names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=data.draw(st.integers(0, 9)) > 0))
        return task(self._name(), *(self._claim(data, name) for name in names), node=data.draw(st.sampled_from(NODES)))

    def _claim(self, data: st.DataObject, name: str) -> ClaimRequest:
        access = data.draw(st.sampled_from([Access.RW, Access.RW, Access.RO]))
        volume = self.model.volumes.get(name)
        if volume is None or data.draw(st.integers(0, 9)) == 0:
            mode = data.draw(st.sampled_from([AccessMode.SINGLE_NODE_WRITER, *AccessMode]))
            return fresh(self._name(), new(name, size_mib=data.draw(st.sampled_from([1, 20, 50])), mode=mode), access)
        stale, wrong = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
        return old(self._name(), name, volume.epoch + (stale == 0) - (stale == 1), access, renew=volume.born is (wrong == 0))

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data(), to=st.sampled_from(ClaimState))
    def advance(self, data: st.DataObject, to: ClaimState) -> None:
        name, claim = data.draw(st.sampled_from(sorted(self.model.claims.items(), key=lambda item: item[0])))
        done = self._try(lambda tx: tx.advance(ClaimId(name), claim.epoch, to), Conflict)
        assert done is (claim.state is to or may_follow(claim.state, to))
        if done:
            claim.state = to

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data())
    def free_some(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(sorted(self.model.claims)), min_size=1, max_size=4, unique=True))
        ended = [Release(claim_id=ClaimId(name), epoch=self.model.claims[name].epoch, proof=PROOF) for name in some]
        assert self._try(lambda tx: tx.free_many(ended))
        for name in some:
            del self.model.claims[name]

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data(), stale=st.booleans())
    def free(self, data: st.DataObject, stale: bool) -> None:
        name, claim = data.draw(st.sampled_from(sorted(self.model.claims.items(), key=lambda item: item[0])))
        done = self._try(lambda tx: tx.free(ClaimId(name), claim.epoch + stale, PROOF), Conflict)
        assert done is not stale
        if done:
            del self.model.claims[name]
            alone = all(other.placement != claim.placement for other in self.model.claims.values())
            assert self._try(lambda tx: tx.drop_placement(PlacementId(claim.placement)), Conflict) is alone
            assert not self._try(lambda tx: tx.free(ClaimId(name), claim.epoch, PROOF), UnknownClaim)

    @precondition(lambda self: any(self._unborn()))
    @rule(data=st.data())
    def make_and_bear(self, data: st.DataObject) -> None:
        """What an executor does with a volume of its own; without it few runs would come to a second claim."""
        name = data.draw(st.sampled_from(sorted(self._unborn())))
        self.created(name=name, grown=0, other=False)
        self.born(name=name, behind=False)

    def _unborn(self) -> list[str]:
        held = {claim.volume for claim in self.model.claims.values()}
        return [name for name, volume in self.model.volumes.items() if not volume.born and name in held]

    @rule(name=st.sampled_from(NAMES), grown=st.integers(0, 3), other=st.booleans())
    def created(self, name: str, grown: int, other: bool) -> None:
        volume = self.model.volumes.get(name)
        token = "another" if other or volume is None else volume.token
        size_mib = 1 if volume is None else volume.size_mib + grown
        external = ExternalId(f"ext-{token}")
        done = self._try(lambda tx: tx.created(VolumeId(f"v-{name}"), token=token, external_id=external, size_mib=size_mib), Conflict)
        assert done is (volume is not None and not other and (volume.outside or volume.state is VolumeState.PLANNED))
        if done and volume and not volume.outside:
            volume.state, volume.outside, volume.size_mib = VolumeState.AVAILABLE, True, size_mib

    @rule(name=st.sampled_from(NAMES), behind=st.booleans())
    def born(self, name: str, behind: bool) -> None:
        volume = self.model.volumes.get(name)
        epoch = (volume.epoch if volume else 1) - behind
        birth = Birth(serial=name, filesystem="ext4", filesystem_uuid=name)
        done = self._try(lambda tx: tx.born(VolumeId(f"v-{name}"), epoch=epoch, birth=birth), Conflict)
        live = volume is not None and any(claim.epoch == epoch for claim in self.model.held(name))
        assert done is (volume is not None and (volume.born or (volume.outside and live)))
        if done and volume:
            volume.born = True

    @rule(name=st.sampled_from(NAMES))
    def unplan(self, name: str) -> None:
        volume = self.model.volumes.get(name)
        done = self._try(lambda tx: tx.unplan(VolumeId(f"v-{name}")), Conflict, VolumeInUse, UnknownVolume)
        assert done is (volume is not None and not volume.born and not self.model.held(name))
        if done:
            del self.model.volumes[name]

    @rule(name=st.sampled_from(NAMES), finish=st.sampled_from([True, True, False]))
    def delete(self, name: str, finish: bool) -> None:
        volume = self.model.volumes.get(name)
        done = self._try(lambda tx: tx.deleting(VolumeId(f"v-{name}")), Conflict, VolumeInUse, UnknownVolume)
        assert done is (volume is not None and volume.outside and not self.model.held(name))
        if done and volume:
            volume.state = VolumeState.DELETING
            if finish:
                assert self._try(lambda tx: tx.deleted(VolumeId(f"v-{name}")))
                del self.model.volumes[name]

    @rule(name=st.sampled_from(NAMES), fault=st.sampled_from([True, False, False]))
    def fault_or_mend(self, name: str, fault: bool) -> None:
        volume_id, volume = VolumeId(f"v-{name}"), self.model.volumes.get(name)
        was = VolumeState.DELETING if volume and volume.state is VolumeState.DELETING else VolumeState.FAULTED
        done = self._try(lambda tx: tx.fault(volume_id, "odd") if fault else tx.mend(volume_id, was), UnknownVolume)
        assert done is (volume is not None)
        if volume and fault:
            volume.state = VolumeState.FAULTED
        elif volume:
            volume.state = VolumeState.AVAILABLE if volume.outside else VolumeState.PLANNED

    @rule(name=st.sampled_from(NAMES), grown=st.integers(0, 40))
    def resize(self, name: str, grown: int) -> None:
        volume = self.model.volumes.get(name)
        size_mib = (volume.size_mib if volume else 1) + grown
        done = self._try(lambda tx: tx.resize(VolumeId(f"v-{name}"), size_mib), PoolFull, UnknownVolume, VolumeInUse)
        is_being_made = volume is not None and not volume.outside and bool(self.model.held(name))
        fits = self.model.provisioned() + grown <= self.model.capacity_mib
        assert done is (volume is not None and (not grown or (fits and not is_being_made)))
        if done and volume:
            volume.size_mib = size_mib

    @rule(capacity_mib=st.sampled_from([50, 100, 100, 150]))
    def capacity(self, capacity_mib: int) -> None:
        with self.ledger.begin("broker") as tx:
            tx.sync_pools("local", [PoolReport(name="p", capacity_mib=capacity_mib)])
        self.model.capacity_mib = capacity_mib

    # --- what is always true ------------------------------------------------------------------

    @invariant()
    def both_say_the_same(self) -> None:
        found = {
            volume.name: ModelVolume(
                volume.access_mode,
                volume.size_mib,
                volume.token,
                volume.epoch,
                volume.state,
                volume.external_id is not None,
                volume.birth is not None,
            )
            for volume in self.ledger.volumes().items
        }
        assert found == self.model.volumes
        claims = {
            str(claim.claim_id): ModelClaim(
                claim.volume_id.removeprefix("v-"), claim.access, claim.holder.node, claim.holder.placement, claim.epoch, claim.state
            )
            for claim in self.ledger.claims().items
        }
        assert claims == self.model.claims
        assert self.ledger.pools()[0].provisioned_mib == self.model.provisioned()
        assert {node.node_id: node.used.get("local", 0) for node in self.ledger.nodes()} == {node: self.model.used(node) for node in NODES}
        assert_sound(self.ledger)


def run(make: Callable[[], Ledger], examples: int) -> None:
    machine = type("Machine", (LedgerMachine,), {"make": staticmethod(make)})
    budget = settings(max_examples=examples, stateful_step_count=50, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=budget)


def test_the_ledger_is_its_model_on_sqlite(tmp_path: Path) -> None:
    open_ledger(f"sqlite:///{tmp_path}/empty.db").close()
    files: list[Path] = []

    def make() -> Ledger:
        files.append(tmp_path / f"{len(files)}.db")
        shutil.copyfile(tmp_path / "empty.db", files[-1])
        return open_ledger(f"sqlite:///{files[-1]}")

    run(make, 30)


def test_the_ledger_is_its_model_on_postgresql(postgresql_url: str) -> None:
    tables = ", ".join(table.name for table in schema.metadata.sorted_tables)

    def make() -> Ledger:
        ledger = open_ledger(postgresql_url)
        with ledger._database.writing() as session:
            session.execute(text(f"TRUNCATE {tables}"))
        return ledger

    run(make, 8)
