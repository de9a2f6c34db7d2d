"""A whole broker without a Mesos: the engine, its ledger and its platforms are the real ones, the driver keeps the calls it is given."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framework.broker import build_platforms, quiet_start
from framework.config import Config, parse_config
from framework.engine import Engine, Parts
from framework.mesos import calls
from framework.mesos.calls import Acceptance
from framework.mesos.errors import CallFailed
from storage.inventory import Ledger

FRAMEWORK_ID = "f4362bf1-5f87-44c0-8a40-0000"


class Outbox:
    """A driver that encodes every call as the real one does, and keeps the bytes of the latest ACCEPTs."""

    framework_id, connected, master = FRAMEWORK_ID, True, "127.0.0.1:5050"

    def __init__(self) -> None:
        self.accepts: list[bytes] = []
        self.reconciles: list[bytes] = []

    def accept_many(self, acceptances: Sequence[Acceptance], *, refuse_s: float) -> list[CallFailed | None]:
        self.accepts = [calls.encode_accept(FRAMEWORK_ID, one.offer_ids, one.operations, refuse_s=refuse_s) for one in acceptances]
        return [None] * len(acceptances)

    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None:
        calls.decline(FRAMEWORK_ID, offer_ids, refuse_s=refuse_s)

    def reconcile(self, tasks: Sequence[tuple[str, str | None]]) -> None:
        self.reconciles.append(calls.reconcile(FRAMEWORK_ID, tasks).body)

    def start(self) -> None: ...
    def stop(self, *, failover: bool = True) -> None: ...
    def revive(self, roles: Sequence[str] = ()) -> None: ...
    def suppress(self, roles: Sequence[str] = ()) -> None: ...
    def acknowledge_many(self, updates: Sequence[tuple[str, str, str]]) -> None: ...
    def message(self, agent_id: str, executor_id: str, data: bytes) -> None: ...
    def kill(self, task_id: str, agent_id: str | None, grace_s: float | None = None) -> None: ...


def config_in(folder: Path) -> Config:
    """One local platform whose pool has room for everything, and the profile `fast`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return parse_config(
        {
            "framework": {"name": "bench", "roles": ["polly"]},
            "platforms": {"disks": {"kind": "local", "root": str(folder / "images"), "overcommit": 1000}},
            "profiles": {"fast": {"platforms": ["disks"], "reclaim": "retain"}},
        }
    )


@contextmanager
def broker(ledger: Ledger, folder: Path) -> Iterator[Engine]:
    """A broker that leads, and writes its story to a file as it does to stderr; `engine.driver` is the Outbox."""
    config = config_in(folder)
    engine = Engine(Parts(config=config, ledger=ledger, make_driver=lambda framework_id, sink: Outbox(), platforms=build_platforms(config)))
    with _story(folder / "story.log"):
        with quiet_start():
            engine.start(who="bench")
        try:
            yield engine
        finally:
            engine.stop()


@contextmanager
def _story(file: Path) -> Iterator[None]:
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def app(app_id: str, instances: int, **more: Any) -> Mapping[str, Any]:
    """An app whose every instance has a port and a volume of 16 MiB at `data`."""
    volume = {"containerPath": "data", "mode": "RW", "persistent": {"size": 16, "profileName": "fast"}}
    return {
        "id": app_id,
        "cmd": "exec ./server --port $PORT",
        "cpus": 0.5,
        "mem": 64,
        "instances": instances,
        "env": {"STAGE": "prod"},
        "labels": {"team": "web"},
        "portDefinitions": [{"port": 0, "name": "http"}],
        "container": {"type": "MESOS", "volumes": [volume]},
        **more,
    }
