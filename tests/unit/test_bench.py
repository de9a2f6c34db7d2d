"""What `make bench` stands on: it is run by hand, so a change elsewhere could break it unseen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from storage.inventory import open_ledger
from tests.bench import placing
from tests.bench.broker import broker
from tests.bench.filling import PER_APP, fill, sound
from tests.bench.matching import offers_event


def test_a_round_of_the_benchmark_places_all_its_tasks(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/polly.db")
    try:
        with broker(ledger, tmp_path) as engine:
            fill(ledger, PER_APP, platform="disks", pool=ledger.pools()[0].name)
            spent_s, cpu_s = engine.ask(partial(placing._round, engine, 0, offers_event()))
        sound(ledger)
    finally:
        ledger.close()
    assert spent_s > 0
    assert cpu_s > 0
