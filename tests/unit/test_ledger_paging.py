"""That a list of volumes costs what is listed, however many there are."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from storage.filters import VolumeFilter
from storage.inventory import open_ledger
from storage.ledger.reads import _volumes
from storage.lifecycle import VolumeState


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"platform": "local"},
        {"platform": "local", "pool": "p"},
        {"profile": "fast"},
        {"zone": "z1"},
        {"state": VolumeState.FAULTED},
        {"owner": "/app"},
        {"role": "r"},
        {"name": "a"},
        {"labels": {"k": "v"}},
        {"labels": {"k": "v", "l": "w"}},
    ],
)
@pytest.mark.parametrize("after", [None, "5"])
def test_every_list_of_volumes_walks_an_index(sqlite_url: str, wanted: dict[str, object], after: str | None) -> None:
    """So that a page costs the same with a million of them: no scan but of what is listed anyway, and never a sort."""
    ledger = open_ledger(sqlite_url)
    with ledger._database.reading() as session:
        # fields as they come
        sql = str(_volumes(VolumeFilter(**wanted), after, 100).compile(ledger._database.reader, compile_kwargs={"literal_binds": True}))  # type: ignore[arg-type]
        plan = [row.detail for row in session.all(text(f"EXPLAIN QUERY PLAN {sql}"))]
    ledger.close()
    assert not any("TEMP B-TREE" in step for step in plan), plan
    assert all(step.startswith("SEARCH") for step in plan) or (not wanted and after is None), plan
