"""P5: many attachments at once on a cloud that takes 2 s for each and gives 20 calls a second, as a broker that attaches makes them.

P5wait: twenty at once, which the limit lets through: how long each is waited for, over the time that the cloud takes.
P5describes: looks for each of a thousand attachments. P5: the time that a thousand take, over what the limit alone asks for.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from framework.workers import Outcome, Workers
from storage.model import ExternalId
from storage.platforms.ebs.options import EbsOptions
from storage.platforms.ebs.platform import EbsPlatform
from tests.bench.cloud import BURST, Cloud
from tests.bench.harness import PAIRS, Result

ATTACH_S, CALLS_PER_S = 2.0, 20
MANY, FEW, INSTANCES = 1000, 20, 50
UNCOUNTED = 2
"""Rounds of a few in which the adapter learns how long the cloud takes."""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    waits_s: tuple[float, ...]
    """Of each attachment, from the call to its answer."""
    total_s: float
    describes: int
    refused: int


def every_measure() -> list[Callable[[], Result]]:
    return [_waits, _describes, _totals]


_rounds: list[Round] = []


def _many() -> Sequence[Round]:
    """Nine rounds of a thousand, made once."""
    if not _rounds:
        _rounds.extend(_round(MANY) for _ in range(PAIRS))
    return _rounds


def _waits() -> Result:
    waits = _round(FEW, rounds=UNCOUNTED + PAIRS).waits_s
    rounds = [waits[start : start + FEW] for start in range(UNCOUNTED * FEW, len(waits), FEW)]
    return Result(
        name="P5wait",
        ratios=tuple(statistics.mean(it) / ATTACH_S for it in rounds),
        what=f"mean time that each of {FEW} attachments at once takes over the {ATTACH_S:g} s of the cloud, after {UNCOUNTED} such rounds",
    )


def _describes() -> Result:
    ratios = tuple(it.describes / MANY for it in _many())
    return Result(name="P5describes", ratios=ratios, what=f"describes for each of {MANY} attachments at once")


def _totals() -> Result:
    floor_s = (MANY - BURST) / CALLS_PER_S
    ratios = tuple(it.total_s / floor_s for it in _many())
    details = {"s_total": min(it.total_s for it in _many()), "s_floor": floor_s, "refused_calls": max(it.refused for it in _many())}
    return Result(
        name="P5",
        ratios=ratios,
        what=f"time of {MANY} attachments at once over what {CALLS_PER_S} calls/s ask for",
        details=details,
    )


def _round(number: int, *, rounds: int = 1) -> Round:
    os.environ.update(CREDENTIALS)
    cloud = Cloud(number * rounds, INSTANCES, attach_s=ATTACH_S, calls_per_s=CALLS_PER_S)
    options = EbsOptions(
        region="eu-central-1",
        zones=("eu-central-1a",),
        endpoint_url=cloud.url,
        reads_per_s=CALLS_PER_S,
        writes_per_s=CALLS_PER_S,
    )
    platform = EbsPlatform("cloud", options)
    try:
        waits: list[float] = []
        began = time.perf_counter()
        for start in range(0, number * rounds, number):
            waits += _attach(platform, cloud, cloud.volumes[start : start + number])
        total_s = time.perf_counter() - began
        if cloud.attached() != number * rounds:
            raise AssertionError(f"{cloud.attached()} of {number * rounds} volumes are attached")
        describes = cloud.calls["DescribeVolumes"] + cloud.calls["DescribeInstances"]
        return Round(waits_s=tuple(waits), total_s=total_s, describes=describes, refused=cloud.refused)
    finally:
        platform.close()
        cloud.stop()


def _attach(platform: EbsPlatform, cloud: Cloud, volumes: Sequence[str]) -> list[float]:
    """As a broker does: all at once to the workers of the platform, which make as many calls at a time as it takes."""
    ended = threading.Semaphore(0)
    workers = Workers(lambda call: call(), threads=platform.capabilities.parallel)

    def job(volume: str, instance: str) -> float:
        began = time.perf_counter()
        platform.attach(ExternalId(volume), instance, epoch=1)
        return time.perf_counter() - began

    outcomes: list[Outcome[float]] = []

    def done(outcome: Outcome[float]) -> None:
        outcomes.append(outcome)
        ended.release()

    for number, volume in enumerate(volumes):
        instance = cloud.instances[number % INSTANCES]
        # a default of a lambda
        workers.submit("cloud", volume, lambda volume=volume, instance=instance: job(volume, instance), done)  # type: ignore[misc]
    for _ in volumes:
        ended.acquire()
    workers.close()
    return [outcome.get() for outcome in outcomes]
