"""What matching answers: records of where each task goes. Not compiled, because their class keeps its options in its class statement."""

from __future__ import annotations

import msgspec

from offers.ask import Ask
from offers.resources import Json
from storage.model import Volume


class ChosenVolume(msgspec.Struct, frozen=True, gc=False):
    """Where one volume of a task comes from."""

    container_path: str
    existing: Volume | None
    """None: to be made in `pool`."""
    platform: str
    pool: str
    size_mib: int
    region: str = ""
    zone: str = ""
    """Where the pool is, and so the volume for ever; empty: reached from everywhere."""


class Match(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One task and its place."""

    ask: Ask
    agent_id: str
    hostname: str
    offer_ids: tuple[str, ...]
    """All offers of this agent and role: matches with the same offers belong in one ACCEPT."""
    resources: tuple[Json, ...]
    """For TaskInfo.resources, as Mesos writes them, reservations kept."""
    executor_resources: tuple[Json, ...]
    ports: tuple[int, ...]
    """One for each port wanted, in order."""
    volumes: tuple[ChosenVolume, ...]
    """One for each volume asked for, in order."""
