"""Measuring in pairs: ours and a reference, by turns in one run, so that a slow machine slows both. Knows no benchmark."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PAIRS = 9
"""At the least."""
SCRATCH = Path(".bench")
"""Beside the sources, on a real disk: a folder in memory would make every commit look cheap."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder, removed afterwards."""
    SCRATCH.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=SCRATCH)).absolute()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Ratios of ours over the reference, one for each pair. Whether more or less is better is the benchmark's to say."""

    name: str
    ratios: tuple[float, ...]
    what: str
    """What over what, in words."""
    details: dict[str, float] = field(default_factory=dict)
    """Absolute figures of this machine; each name ends in its unit."""

    def quantile(self, part: float) -> float:
        ordered = sorted(self.ratios)
        return ordered[round(part * (len(ordered) - 1))]

    @property
    def line(self) -> str:
        return f"{self.name} median={statistics.median(self.ratios):.2f} p10={self.quantile(0.1):.2f} p90={self.quantile(0.9):.2f}"


def in_pairs(ours: Callable[[], float], reference: Callable[[], float], *, pairs: int = PAIRS) -> tuple[list[float], list[float]]:
    """Calls both by turns, changing who goes first, and returns what each returned. Each is called once before, uncounted."""
    ours(), reference()
    mine, theirs = [], []
    for turn in range(max(pairs, PAIRS)):
        if turn % 2:
            theirs.append(reference())
            mine.append(ours())
        else:
            mine.append(ours())
            theirs.append(reference())
    return mine, theirs


def ratios(mine: list[float], theirs: list[float]) -> tuple[float, ...]:
    return tuple(ours / reference for ours, reference in zip(mine, theirs, strict=True))
