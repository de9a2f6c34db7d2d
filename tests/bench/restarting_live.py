"""The broker of P8 that is killed: places 10,000 tasks, lets 100 instances wait, and goes on writing until it dies."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from framework.mesos.events import Offers
from storage.inventory import open_ledger
from tests.bench.broker import app, broker
from tests.bench.filling import PER_APP, fill
from tests.bench.matching import offers_event
from tests.bench.restarting import DATABASE, TASKS, WAITING


def main(folder: Path) -> None:
    ledger = open_ledger(f"sqlite:///{folder / DATABASE}")
    with broker(ledger, folder) as engine:
        fill(ledger, 2 * TASKS, platform="disks", pool=ledger.pools()[0].name)
        data = offers_event()
        (folder / "offers").write_bytes(data)
        for number in range(TASKS // PER_APP):
            # a default of a lambda
            engine.ask(lambda number=number: engine.scheduler.apps.run(app(f"/old/{number}", PER_APP), "bench"))  # type: ignore[misc]
            engine.ask(lambda: engine.scheduler.handle([Offers(data=data)]))
        engine.ask(lambda: engine.scheduler.apps.run(app(f"/old/{TASKS // PER_APP}", WAITING), "bench"))
        if len(engine.context.picture.tasks) != TASKS:
            raise AssertionError(f"{len(engine.context.picture.tasks)} tasks were placed")
        print("placed", flush=True)
        for number in itertools.count():
            with ledger.begin("bench") as tx:
                tx.put_setting("bench", str(number))
            if number == 10:
                print("writing", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
