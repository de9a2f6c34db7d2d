"""`polly broker`: joins the parts, runs them until a signal or a fault ends them, and takes them down in order."""

from __future__ import annotations

import gc
import logging
import os
import pwd
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import msgspec

from framework.clock import steady_clock
from framework.config import Config, check_against, load_config
from framework.engine import Engine, Parts
from framework.fitting import misfits
from framework.mesos.driver import Driver
from framework.mesos.scheduler import Item
from framework.rest.listening import check_address, listen
from framework.service import BrokerOptions
from framework.tokens import read_secret
from storage.errors import PollyError
from storage.inventory import open_ledger
from storage.platforms.base import Platform
from storage.platforms.registry import build

logger = logging.getLogger(__name__)

DriverMaker = Callable[[str | None, Callable[[Item], None]], Driver]
CAPABILITIES = ("MULTI_ROLE", "RESERVATION_REFINEMENT", "PARTITION_AWARE", "REGION_AWARE", "TASK_KILLING_STATE")


class RefusedByMesos(PollyError):
    """The Mesos master will not have this framework: {reason}."""

    exit_code = 9
    hint = "Check --role, --principal and --secret-file; after a failover timeout has ended, a new framework name is needed."


class BrokerFailed(PollyError):
    """The broker ended by a fault of its own: {reason}. Its tasks live on."""

    exit_code = 70
    hint = "Start it again: it goes on from the ledger. The log above says what happened."


def framework_info(config: Config, framework_id: str | None) -> dict[str, Any]:
    """The Mesos v1 FrameworkInfo. With the id of an earlier life, its tasks are taken up again."""
    block = config.framework
    info: dict[str, Any] = {
        "name": block.name,
        "user": block.user or _user(),
        "roles": list(block.roles),
        "checkpoint": True,
        "failover_timeout": block.failover_timeout_s,
        "hostname": block.hostname or socket.gethostname(),
        "capabilities": [{"type": name} for name in CAPABILITIES],
    }
    if block.webui_url:
        info["webui_url"] = block.webui_url
    if framework_id:
        info["id"] = {"value": framework_id}
    return info


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def build_platforms(config: Config) -> dict[str, Platform]:
    """The adapters of polly.toml. Raises Invalid, also for a profile that they cannot keep, and MissingSdk."""
    platforms = {name: build(name, block.keys.kind, block.settings) for name, block in config.platforms.items()}
    for misfit in misfits(list(config.profiles.values()), platforms):
        raise misfit
    check_against(config, platforms)
    return platforms


def run(options: BrokerOptions) -> None:
    """Runs until SIGTERM or SIGINT, which leave the tasks alone. Raises PollyError for what ends it otherwise."""
    config = load_config(options.config)
    if options.roles:
        config = replace(config, framework=msgspec.structs.replace(config.framework, roles=options.roles))
    tell_the_story()
    clock = steady_clock()
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(open_ledger(options.database, clock=clock)))
        door = Door(options, stack)
        make_driver = door.before(_driver_maker(options, config))
        engine = Engine(Parts(config=config, ledger=ledger, make_driver=make_driver, platforms=build_platforms(config), clock=clock))
        with quiet_start():
            engine.start(who=f"process {os.getpid()} on {socket.gethostname()}", restored=options.restored)
        try:
            _serve(engine, options, door.listener)
        finally:
            engine.stop()


class Door:
    """The API's port. Who leads the ledger takes it, before Mesos hears of this broker: what cannot answer must launch nothing."""

    def __init__(self, options: BrokerOptions, stack: ExitStack) -> None:
        check_address(options.host, options.port, token=options.token)
        self._options, self._stack = options, stack
        self._listener: socket.socket | None = None

    @property
    def listener(self) -> socket.socket:
        if self._listener is None:
            raise RuntimeError("an engine that has started has made its driver")
        return self._listener

    def before(self, make_driver: DriverMaker) -> DriverMaker:
        """A driver is made once this broker leads."""

        def make(framework_id: str | None, sink: Callable[[Item], None]) -> Driver:
            options = self._options
            self._listener = self._stack.enter_context(listen(options.host, options.port, token=options.token))
            return make_driver(framework_id, sink)

        return make


@contextmanager
def quiet_start() -> Iterator[None]:
    """Lets Python's garbage collector rest while a broker starts, never look again at what is there then, and seldom at the rest.

    A broker's records are many, live long and have no cycles; to look at all of them again and again would cost more than
    to place a task.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        gc.enable()


def _serve(engine: Engine, options: BrokerOptions, listener: socket.socket) -> None:
    # Only now, with the engine at work: a broker that takes over decides before its API answers.
    from framework.desk import Desk
    from framework.rest.app import create_app
    from framework.rest.server import Server

    server = Server(create_app(Desk(engine), engine.ledger, token=options.token), listener).start()
    logger.info("the HTTP API listens on %s", server.url)
    try:
        with _until_signal(engine.loop.ended.set):
            engine.loop.ended.wait()
    finally:
        server.stop()
    logger.info("the broker ends; its tasks live on")
    if engine.gave_up:
        raise RefusedByMesos(reason=engine.gave_up)
    if engine.loop.failed is not None:
        raise BrokerFailed(reason=f"{type(engine.loop.failed).__name__}: {engine.loop.failed}")


def _driver_maker(options: BrokerOptions, config: Config) -> DriverMaker:
    secret = read_secret(options.secret_file, "--secret-file") if options.secret_file else None

    def make(framework_id: str | None, sink: Callable[[Item], None]) -> Driver:
        return Driver(
            master=options.master,
            framework=framework_info(config, framework_id),
            sink=sink,
            principal=options.principal or None,
            secret=secret,
            rng=random.SystemRandom(),
        )

    return make


@contextmanager
def _until_signal(end: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: end()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def tell_the_story() -> None:
    """Log lines for people on stderr: a time, I, W or E, and what happened."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # of what others say: SDKs tell much at INFO
    for ours in ("polly", "framework", "offers", "storage"):
        logging.getLogger(ours).setLevel(logging.INFO)
