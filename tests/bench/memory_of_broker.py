"""The broker whose memory is measured; prints its peak in MiB. Each run leaves a hundred tasks more in the ledger."""

from __future__ import annotations

import resource
import sys
import uuid
from pathlib import Path

from framework.mesos.events import Offers
from storage.inventory import open_ledger
from tests.bench.broker import app, broker

INSTANCES = 100


def main(folder: Path) -> None:
    ledger = open_ledger(f"sqlite:///{folder}/polly.db")
    with broker(ledger, folder) as engine:
        engine.ask(lambda: engine.scheduler.apps.run(app(f"/app-{uuid.uuid4()}", INSTANCES), "bench"))
        engine.ask(lambda: engine.scheduler.handle([Offers(data=(folder / "offers").read_bytes())]))
        placed = sum(accept.count(b'"data"') for accept in engine.driver.accepts)
        if placed != INSTANCES:
            raise SystemExit(f"{placed} of {INSTANCES} tasks were placed")
    ledger.close()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
