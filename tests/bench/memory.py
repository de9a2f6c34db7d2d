"""The memory of a broker with a million volumes in its ledger, over that of one with a thousand: the most that the process ever had.

Each is a process of its own that takes over, places a hundred instances on an OFFERS event, and looks at its own peak.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from storage.inventory import open_ledger
from tests.bench.claiming import FEW, MANY, furnish
from tests.bench.filling import fill, sound
from tests.bench.harness import Result, in_pairs, ratios, scratch
from tests.bench.matching import offers_event


def bench() -> Result:
    with scratch() as folder:
        for volumes in (FEW, MANY):
            _prepare(folder / f"{volumes}", volumes)
        mine, theirs = in_pairs(partial(_peak_mib, folder / f"{MANY}"), partial(_peak_mib, folder / f"{FEW}"))
        for volumes in (FEW, MANY):
            ledger = open_ledger(f"sqlite:///{folder}/{volumes}/polly.db", read_only=True)
            sound(ledger)
            ledger.close()
    return Result(
        name="memory",
        ratios=ratios(mine, theirs),
        what=f"peak resident memory of a broker with {MANY:,} volumes in its ledger over one with {FEW:,}",
        details={"mib_with_many": max(mine), "mib_with_few": max(theirs)},
    )


def _prepare(folder: Path, volumes: int) -> None:
    folder.mkdir()
    (folder / "offers").write_bytes(offers_event())
    ledger = open_ledger(f"sqlite:///{folder}/polly.db")
    furnish(ledger)
    fill(ledger, volumes, platform="disks", pool="p")
    ledger.close()


def _peak_mib(folder: Path) -> float:
    program = [sys.executable, "-m", "tests.bench.memory_of_broker", str(folder)]
    return float(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
