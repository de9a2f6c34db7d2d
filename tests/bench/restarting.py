"""P8: from SIGKILL with 10,000 tasks and claims to the first right decision, over a plain SELECT of the same rows and one RECONCILE.

A broker places 10,000 tasks and is killed while it claims more. Then, by turns, each on a copy of what it has left: a new broker
takes over and places the instances that wait on the first OFFERS event; a plain program selects the same rows and encodes
one RECONCILE call for them. Both are new processes, and both are timed from the moment they are started.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from storage.inventory import open_ledger
from tests.bench.filling import sound
from tests.bench.harness import Result, in_pairs, ratios, scratch

TASKS, WAITING = 10_000, 100
DATABASE = "polly.db"


def bench() -> Result:
    with scratch() as folder:
        left = folder / "left"
        _live_and_die(left)
        turns = itertools.count()
        seen: list[dict[str, float]] = []

        def ours() -> float:
            return _turn(left, folder / f"{next(turns)}", "decide", seen)

        def reference() -> float:
            return _turn(left, folder / f"{next(turns)}", "select", [])

        mine, theirs = in_pairs(ours, reference)
    return Result(
        name="P8",
        ratios=ratios(mine, theirs),
        what=f"SIGKILL with {TASKS:,} tasks and claims to the first right decision over a SELECT of the same rows and a RECONCILE",
        details={
            "ours_s": min(mine),
            "reference_s": min(theirs),
            **{name: min(one[name] for one in seen) for name in ("imports_s", "ledger_s", "takeover_s", "decision_s")},
            "restored_claims": seen[0]["restored"],
        },
    )


def _program(action: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", f"tests.bench.restarting_{action}", str(folder)]


def _live_and_die(folder: Path) -> None:
    """A broker with all its tasks, killed in the middle of a claim."""
    folder.mkdir()
    with subprocess.Popen(_program("live", folder), stdout=subprocess.PIPE) as broker:
        if broker.stdout is None or broker.stdout.readline() != b"placed\n":
            raise AssertionError("the broker did not place its tasks")
        broker.stdout.readline()
        broker.send_signal(signal.SIGKILL)
        broker.wait()


def _turn(left: Path, folder: Path, action: str, seen: list[dict[str, float]]) -> float:
    """Seconds from the start of the process to its word that it has decided."""
    shutil.copytree(left, folder)
    begin = time.monotonic()
    with subprocess.Popen(_program(action, folder), stdout=subprocess.PIPE) as process:
        line = process.stdout.readline() if process.stdout else b""
        spent = time.monotonic() - begin
    if process.returncode or not line:
        raise AssertionError(f"{action} ended with status {process.returncode}")
    seen.append(json.loads(line))
    if action == "decide":
        _check(folder)
    shutil.rmtree(folder)
    return spent


def _check(folder: Path) -> None:
    ledger = open_ledger(f"sqlite:///{folder / DATABASE}")
    try:
        sound(ledger)
    finally:
        ledger.close()


def volumes_of(accepts: Sequence[bytes]) -> list[str]:
    """The volumes that the launches of these ACCEPTs are given."""
    import base64

    infos = [
        info for accept in accepts for operation in json.loads(accept)["accept"]["operations"] for info in operation["launch"]["task_infos"]
    ]
    return [volume["volume_id"] for info in infos for volume in json.loads(base64.b64decode(info["data"]))["volumes"]]
