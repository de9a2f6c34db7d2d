"""The ledger's counters, on which every test of faults relies: each sees what it is there for, made by hand in the database itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.inventory import open_ledger
from storage.model import Access, AccessMode
from tests.ledgers import Clock, bear, end, fresh, furnish, new, old, placed, task

COPY = (
    "INSERT INTO claims (volume_id, seat, claim_id, platform, mode, scheduler, placement_id, node_id, epoch, access, state, lease_until, "
    "reason, since) SELECT volume_id, 1, 'copy', platform, mode, scheduler, placement_id, node_id, epoch, access, state, lease_until, "
    "reason, since FROM claims WHERE volume_id = 'v-a'"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger in which volume `a` has a claim, and `s`, of one writer and many readers, a claim of each."""
    with closing(open_ledger(f"sqlite:///{tmp_path}/polly.db", clock=Clock())) as ledger:
        furnish(ledger)
        placed(ledger, task("t1", fresh("mine", new("a"))))
        (first,) = placed(ledger, task("t0", fresh("first", new("s", mode=AccessMode.MULTI_NODE_SINGLE_WRITER))))
        bear(ledger, first)
        end(ledger, [first])
        placed(ledger, task("t2", old("writer", "s", 1)))
        placed(ledger, task("t3", old("reader", "s", 2, Access.RO), node="node2"))
    return tmp_path / "polly.db"


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ("SELECT 1", set()),
        ("UPDATE volumes SET epoch = 9 WHERE volume_id = 'v-s'", set()),
        (COPY, {"held_twice", "placements_without_claims", "slot_drift"}),
        ("UPDATE claims SET access = 'RW' WHERE claim_id = 'reader'", {"held_twice"}),
        ("UPDATE claims SET mode = 'SINGLE_NODE_READER_ONLY' WHERE claim_id = 'reader'", {"held_twice", "claims_without_volume"}),
        ("DELETE FROM placements WHERE placement_id = 't1'", {"claims_without_placement", "placements_without_claims"}),
        ("DELETE FROM volumes WHERE volume_id = 'v-a'", {"claims_without_volume", "pool_drift"}),
        ("UPDATE volumes SET state = 'DELETING' WHERE volume_id = 'v-a'", {"claims_without_volume"}),
        ("UPDATE volumes SET access_mode = 'MULTI_NODE_MULTI_WRITER' WHERE volume_id = 'v-a'", {"claims_without_volume"}),
        ("UPDATE claims SET platform = 'san' WHERE volume_id = 'v-a'", {"claims_without_volume", "slot_drift"}),
        ("UPDATE volumes SET epoch = 0 WHERE volume_id = 'v-a'", {"claims_ahead"}),
        ("UPDATE volumes SET epoch = 9 WHERE volume_id = 'v-a'", {"claims_ahead"}),
        ("UPDATE volumes SET epoch = 1 WHERE volume_id = 'v-s'", {"claims_ahead"}),
        ("DELETE FROM claims WHERE volume_id = 'v-a'", {"placements_without_claims", "slot_drift"}),
        ("UPDATE pools SET provisioned_mib = provisioned_mib + 1", {"pool_drift"}),
        ("UPDATE node_slots SET used = used + 1 WHERE node_id = 'node2'", {"slot_drift"}),
    ],
)
def test_each_counter_sees_what_it_is_there_for(file: Path, change: str, counted: set[str]) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute(change)
    with closing(open_ledger(f"sqlite:///{file}", read_only=True)) as ledger:
        assert {name for name, number in ledger.counters().items() if number} == counted
