"""The broker of P8 that takes over: from nothing to the first ACCEPT, which must claim nothing that is held."""

from __future__ import annotations

import gc
import time

began = time.perf_counter()
gc.disable()  # as `polly broker` does

import json  # noqa: E402  # the imports are a part of what is measured
import sys  # noqa: E402  # what is above must come first
from pathlib import Path  # noqa: E402  # what is above must come first

from framework.mesos.events import Offers  # noqa: E402  # what is above must come first
from storage.inventory import open_ledger  # noqa: E402  # what is above must come first
from tests.bench.broker import broker  # noqa: E402  # what is above must come first
from tests.bench.restarting import DATABASE, TASKS, WAITING, volumes_of  # noqa: E402  # what is above must come first


def main(folder: Path) -> None:
    took = {"imports_s": time.perf_counter() - began}
    data = (folder / "offers").read_bytes()
    begin = time.perf_counter()
    ledger = open_ledger(f"sqlite:///{folder / DATABASE}")
    took["ledger_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    with broker(ledger, folder) as engine:
        took["takeover_s"] = time.perf_counter() - begin
        held = set(engine.context.picture.by_volume)
        begin = time.perf_counter()
        engine.ask(lambda: engine.scheduler.handle([Offers(data=data)]))
        took["decision_s"] = time.perf_counter() - begin
        print(json.dumps({**took, "restored": len(held)}), flush=True)
        given = volumes_of(engine.driver.accepts)
        if len(held) != TASKS or len(given) != WAITING or held & set(given):
            raise SystemExit(f"{len(held)} volumes are held, {len(given)} were given, {len(held & set(given))} of them held ones")
    ledger.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
