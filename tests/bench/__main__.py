"""`make bench`, `make bench ONLY=P1`: every measurement of the project, as paired ratios of one run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from tests.bench.harness import Result

BENCHMARKS = {
    "P1pg": "tests.bench.placing:bench_postgresql",
    "P1": "tests.bench.placing:bench_sqlite",
    "P2": "tests.bench.matching:bench",
    "P3": "tests.bench.throughput:bench",
    "P4": "tests.bench.launching:bench",
    "P4v": "tests.bench.launching:bench_volume_part",
    "P7": "tests.bench.claiming:bench",
    "P8": "tests.bench.restarting:bench",
    "memory": "tests.bench.memory:bench",
}


def load(where: str) -> Callable[[], Result]:
    module, _, name = where.partition(":")
    found: Callable[[], Result] = getattr(import_module(module), name)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; P1 stands for P1 and P1pg")
    parser.add_argument("-o", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args(arguments)
    chosen = [
        name for name in BENCHMARKS if options.only is None or name.rstrip("pgv").upper() == options.only.upper() or name == options.only
    ]
    if not chosen:
        parser.error(f"--only {options.only}: there is {', '.join(BENCHMARKS)}")
    results = []
    for name in chosen:
        print(f"{name}: measuring", file=sys.stderr, flush=True)
        results.append(load(BENCHMARKS[name])())
        show(results[-1])
    if options.o:
        options.o.write_text(json.dumps([_plain(result) for result in results], indent=2) + "\n")
    return 0


def show(result: Result) -> None:
    print(f"{result.name}: {result.what}")
    for name, figure in result.details.items():
        print(f"    {name} {figure:,.4g}")
    print(result.line, flush=True)


def _plain(result: Result) -> dict[str, object]:
    return {"name": result.name, "what": result.what, "ratios": result.ratios, "line": result.line, "details": result.details}


if __name__ == "__main__":
    sys.exit(main())
