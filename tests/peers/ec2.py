"""EC2 for the tests of this process: moto and the front before it, each started once, emptied for each test."""

from __future__ import annotations

import atexit
from functools import cache

from storage.platforms.ebs import EbsOptions, EbsPlatform
from tests.peers.ec2_front import Front
from tests.peers.moto import Moto

REGION = "us-east-1"
ZONE = "us-east-1a"


@cache
def _running() -> Moto:
    moto = Moto()
    atexit.register(moto.stop)
    moto.wait()
    return moto


def emptied() -> int:
    """The port of moto with nothing in it; a front that was there before is to be cleared, or stopped."""
    moto = _running()
    moto.reset()
    return moto.port


@cache
def _front(port: int) -> Front:
    front = Front(port)
    atexit.register(front.stop)
    return front


def fresh() -> Front:
    """An account with nothing in it."""
    front = _front(emptied())
    front.clear()
    return front


def options(front: Front, **more: object) -> EbsOptions:
    """Of a platform on this account, as fast as it goes."""
    settings = {"region": REGION, "endpoint_url": front.url, "reads_per_s": 5000, "writes_per_s": 5000, "timeout_s": 20} | more
    return EbsOptions(**settings)  # type: ignore[arg-type]  # fields as they come


def adapter(front: Front, **more: object) -> EbsPlatform:
    """An adapter that hardly waits between its looks, nor for EC2's rates unless they are given."""
    return EbsPlatform("cloud", options(front, **more), again_s=0.02, gather_s=0.002)
