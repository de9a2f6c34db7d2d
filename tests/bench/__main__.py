"""`make bench`, `make bench ONLY=P1`: every measurement of the project, as paired ratios of one run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from tests.bench import slow_flush
from tests.bench.harness import Result

BENCHMARKS = {
    "P1": ("tests.bench.placing:bench_postgresql", "tests.bench.placing:bench_sqlite"),
    "P2": ("tests.bench.matching:bench",),
    "P3": ("tests.bench.throughput:bench",),
    "P4": ("tests.bench.launching:bench_volume_part", "tests.bench.launching:bench"),
    "P5": ("tests.bench.syncing:bench", "tests.bench.attaching:every_measure"),
    "P7": ("tests.bench.claiming:bench",),
    "P8": ("tests.bench.restarting:bench",),
    "imports": ("tests.bench.imports:every_adapter",),
    "memory": ("tests.bench.memory:bench",),
}
"""The last of each is the one that its name stands for: P1 is SQLite, after P1pg; P4 the whole launch, after P4v."""


def load(where: str) -> list[Callable[[], Result]]:
    """One measurement; a name that begins with `every` leads to what makes a list of them."""
    module, _, name = where.partition(":")
    found = getattr(import_module(module), name)
    return found() if name.startswith("every") else [found]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", choices=BENCHMARKS, help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("-o", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--flush-ms", metavar="MS", type=float, default=0.0, help="as if each flush of the disk took so much longer")
    options = parser.parse_args(arguments)
    if options.flush_ms != slow_flush.added_ms():
        slow_flush.again_with(options.flush_ms, sys.argv[1:] if arguments is None else arguments)
    results: list[Result] = []
    for name in [options.only] if options.only else BENCHMARKS:
        print(f"{name}: measuring", file=sys.stderr, flush=True)
        try:
            results.extend(show(measure()) for where in BENCHMARKS[name] for measure in load(where))
        except AssertionError as error:
            print(f"{name}: no figure counts: {error}", file=sys.stderr)
            return 1
    if options.o:
        options.o.write_text(json.dumps([_plain(result) for result in results], indent=2) + "\n")
    return 0


def show(result: Result) -> Result:
    added = f", each flush {slow_flush.added_ms():g} ms longer" if slow_flush.added_ms() else ""
    print(f"{result.name}: {result.what}{added}")
    for name, figure in result.details.items():
        print(f"    {name} {figure:,.4g}")
    print(result.line, flush=True)
    return result


def _plain(result: Result) -> dict[str, object]:
    return {"name": result.name, "what": result.what, "ratios": result.ratios, "line": result.line, "details": result.details}


if __name__ == "__main__":
    sys.exit(main())
