"""One task from its launch to its end: volumes, program, kill, release, and what is reported of each.

Every way out goes through the release of the volumes and one terminal status. Runs in the main thread; all that happens
meanwhile comes through the inbox.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from executors.agent import LaunchAsked, Surroundings
from executors.identity import User, command_line, find_user, task_environment
from executors.inbox import Inbox, Stop
from executors.taskprocess import Program, TaskProcess
from executors.wire import Delivery, Launch, Progress, decode_launch, encode
from storage.errors import Cancelled, CannotRun, Invalid, PollyError

if TYPE_CHECKING:
    from executors.volumes import NodeVolume, Volumes
    from storage.model import VolumePlan
    from storage.node.pace import Deadline

logger = logging.getLogger(__name__)

MARGIN_S: Final = 5.0
"""Of a lease, and never more than a tenth of it: nothing is begun in its last seconds."""
ASK_AGAIN_S: Final = 2.0
"""How long a receipt for a birth certificate may take before the certificate is sent again."""
SLOW_RELEASE_S: Final = 1.0
"""A release that takes longer is reported while it goes on."""
FORCED_S: Final = 30.0
"""After SIGKILL everything is gone, except what hangs in the kernel; so long it is waited for."""


class Agent(Protocol):
    def update(self, task_id: str, state: str, *, message: str = "", data: bytes = b"") -> None: ...


class Node(Struct, frozen=True, kw_only=True):
    """Where the task runs, as far as the task's life depends on it."""

    surroundings: Surroundings
    config: str
    """The node's own file; see config.py."""
    environment: Mapping[str, str]
    """The executor's own; a few of its variables are passed on."""
    clock: Callable[[], float]
    """Monotonic, and counting while the machine sleeps, if it can."""


class Outcome(Struct, frozen=True, kw_only=True):
    """How the task ended, before its volumes were released."""

    state: str
    message: str
    exit_code: int | None = None


class TaskRun:
    """`process` is an init that waits for its program; it is started, or discarded by whoever made it."""

    def __init__(self, launched: LaunchAsked, agent: Agent, inbox: Inbox, process: TaskProcess, node: Node) -> None:
        self.launched, self.agent, self.inbox, self.process, self.node = launched, agent, inbox, process, node
        self.volumes: Volumes | None = None
        self._identities: dict[str, str] = {}
        self._reported_at = -inf
        self._released = False
        self._reporting = threading.Lock()

    def run(self) -> Outcome:
        """Never raises: whatever goes wrong is the outcome, and is reported."""
        outcome = self._outcome()
        self._release(outcome)
        message = "; ".join([outcome.message, *self._held_words()])
        logger.info("%s: %s", outcome.state, message)
        self._report(outcome.state, message, exit_code=outcome.exit_code)
        return outcome

    def _outcome(self) -> Outcome:
        try:
            launch = decode_launch(self.launched.data)
            user = find_user(launch.user)
            self._bring(launch, user)
            self._start(launch, user)
            return self._attend(launch)
        except Cancelled as error:
            return Outcome(state="TASK_KILLED", message=f"ended before it was started: {error.fields['reason']}")
        except PollyError as error:
            return Outcome(state="TASK_FAILED", message=f"{error} {error.advice}".strip())
        except Exception as error:
            logger.exception("the executor failed")
            return Outcome(state="TASK_FAILED", message=f"the executor failed: {type(error).__name__}: {error}")

    # --- volumes

    def _bring(self, launch: Launch, user: User) -> None:
        self._own_sandbox(user)
        if not (launch.volumes or launch.host_volumes):
            self._report("TASK_STARTING", "starting")
            return
        from pathlib import Path

        from executors.config import prepare_staging_dir, read_config
        from executors.volumes import Volumes  # and all of storage/node, which a task without volumes has no use for
        from storage.node.pace import Deadline, Pace

        config = read_config(Path(self.node.config))
        prepare_staging_dir(config.staging_dir)
        self.volumes = Volumes(
            launch.volumes,
            launch.host_volumes,
            launch.platforms,
            overrides=config.platforms,
            identities=config.identities,
            node=config.node or launch.node or self._hostname(),
            staging_dir=config.staging_dir,
            sandbox=Path(self.node.surroundings.sandbox),
        )
        self.volumes.identify()
        self._identities = dict(self.volumes.names)
        deadline = Deadline(
            lease_s=launch.lease_s,
            margin_s=min(MARGIN_S, launch.lease_s / 10),
            pace=Pace(now=self.node.clock),
            received_at=self.launched.received_at,
        )
        self._report(
            "TASK_STARTING", " ".join(["attaching", *(plan.container_path for plan in launch.volumes)]) if launch.volumes else "starting"
        )
        self.volumes.bring(user, deadline=deadline, check=self._check, ask=partial(self._ask, deadline=deadline))
        self._confirm_births(self.volumes, deadline)
        self.volumes.mark_births(deadline=deadline, check=self._check)
        self.volumes.show(user)

    def _ask(self, volume: NodeVolume, *, deadline: Deadline) -> Delivery:
        """Waits until the broker has attached the volume, or says why not; the wish is repeated until then."""
        inbox, plan = self.inbox, volume.plan
        while not (delivery := self._delivery(plan)):
            self._check()
            deadline.begin(f"the broker attached volume {plan.name}")
            now = self.node.clock()
            if now >= self._reported_at + ASK_AGAIN_S:
                self._report("TASK_STARTING", f"waiting for the broker to attach {plan.container_path}")
            until = min(self._reported_at + ASK_AGAIN_S, now + deadline.left_s)
            inbox.wait(lambda: self._delivery(plan) or inbox.stop, until)
        for other in self.volumes or ():
            if self._delivery(other.plan):
                other.wants = ""
        return delivery

    def _delivery(self, plan: VolumePlan) -> Delivery | None:
        found = self.inbox.deliveries.get(plan.claim_id)
        return found if found and found.epoch == plan.epoch else None

    def _hostname(self) -> str:
        heard = self.inbox.subscribed.hostname if self.inbox.subscribed else ""
        return heard or os.uname().nodename

    def _own_sandbox(self, user: User) -> None:
        """The executor may be root's while the task is not; the task works in the sandbox."""
        sandbox = self.node.surroundings.sandbox
        if os.geteuid() == 0 and os.stat(sandbox).st_uid != user.uid:
            os.chown(sandbox, *user.owner)

    def _check(self) -> None:
        self.inbox.look()
        if self.inbox.stop:
            raise Cancelled(reason=self.inbox.stop.reason)

    def _confirm_births(self, volumes: Volumes, deadline: Deadline) -> None:
        """Waits until the broker has stored the birth certificates: before that it takes the volumes for empty, and may discard them."""
        waiting = volumes.claims_to_confirm()
        while not waiting <= self.inbox.births:
            self._check()
            deadline.begin("the broker confirmed the birth of " + ", ".join(v.plan.name for v in volumes if v.tells_birth))
            self._report("TASK_STARTING", "waiting for the broker to store what identifies the volumes")
            until = self.node.clock() + min(ASK_AGAIN_S, deadline.left_s)
            self.inbox.wait(lambda: waiting <= self.inbox.births or self.inbox.stop, until)

    # --- the program

    def _start(self, launch: Launch, user: User) -> None:
        self._check()
        volumes = self.volumes
        program = Program(
            argv=command_line(launch),
            env=task_environment(launch, self.launched.task_id, user, self.node.surroundings, self.node.environment),
            cwd=self.node.surroundings.sandbox,
            user=(user.name, *user.owner) if os.geteuid() == 0 else None,
            binds=tuple(volumes.binds) if volumes else (),
            hide=tuple(volumes.hide) if volumes and self.process.namespaced else (),
        )
        inbox = self.inbox
        self.process.start(program, inbox.put, descriptors=volumes.descriptors() if volumes else ())
        inbox.wait(lambda: inbox.started or inbox.refused or inbox.ended or inbox.stop)  # a start can hang, as where files have a server
        if inbox.refused:
            raise CannotRun(command=inbox.refused.step, target=program.argv[0], reason=inbox.refused.reason)
        if inbox.started:
            words = "; ".join(volume.words for volume in volumes) if volumes else ""
            logger.info("running %s", words)
            self._report("TASK_RUNNING", words or "running")

    def _attend(self, launch: Launch) -> Outcome:
        """Waits for the end; a wish to end the task is passed on, and enforced when its grace is over."""
        inbox = self.inbox
        inbox.wait(lambda: inbox.ended or inbox.stop)
        if inbox.ended is None and inbox.stop:
            return self._kill(launch, inbox.stop)
        return self._ended(killed="")

    def _kill(self, launch: Launch, first: Stop) -> Outcome:
        inbox = self.inbox
        self._report_killing(first.reason)
        self.process.end_task()
        asked, kill_at = first, self._kill_at(launch, first)
        while not inbox.wait(partial(self._settled, asked), kill_at) or inbox.ended is None:
            if inbox.stop in (None, asked):
                logger.info("the grace period is over")
                self.process.end_all()
                inbox.wait(lambda: inbox.ended, self.node.clock() + FORCED_S)
                break
            # A second wish may shorten the grace period, never lengthen it.
            asked = inbox.stop or asked
            kill_at = min(kill_at, self._kill_at(launch, asked))
        return self._ended(killed=first.reason)

    def _settled(self, asked: Stop) -> bool:
        """The task has ended, or its end is asked for in other words than before."""
        return self.inbox.ended is not None or self.inbox.stop != asked

    def _kill_at(self, launch: Launch, stop: Stop) -> float:
        grace_s = launch.kill_grace_s if stop.grace_s is None else stop.grace_s
        return self.node.clock() + min(grace_s, stop.limit_s)

    def _ended(self, *, killed: str) -> Outcome:
        if self.inbox.ended is None:
            return Outcome(state="TASK_KILLED", message=f"{killed}: killed, and some of its processes hang in the kernel")
        status = self.inbox.ended.status
        code = None if status is None else os.waitstatus_to_exitcode(status)
        if killed:
            return Outcome(state="TASK_KILLED", message=f"{killed}: {_words(code)}", exit_code=-signal.SIGKILL if code is None else code)
        if code == 0:
            return Outcome(state="TASK_FINISHED", message=_words(code), exit_code=0)
        return Outcome(state="TASK_FAILED", message=_words(code), exit_code=code)

    # --- release and reports

    def _release(self, outcome: Outcome) -> None:
        if self.volumes is None:
            return
        slow = threading.Timer(SLOW_RELEASE_S, self._report_releasing, [outcome])
        slow.daemon = True
        try:
            with suppress(RuntimeError):  # no thread more may be had, where the task has taken them all
                slow.start()
            self.volumes.release()
        except Exception:
            logger.exception("the release failed")
        finally:
            slow.cancel()
            with self._reporting:
                self._released = True

    def _report_releasing(self, outcome: Outcome) -> None:
        with self._reporting:
            if not self._released:
                self._report("TASK_KILLING" if self._knows_killing() else "TASK_RUNNING", f"releasing volumes; {outcome.message}")

    def _report_killing(self, reason: str) -> None:
        if self._knows_killing():
            self._report("TASK_KILLING", reason)

    def _knows_killing(self) -> bool:
        """Whether the framework has said that it understands TASK_KILLING."""
        return bool(self.inbox.subscribed and "TASK_KILLING_STATE" in self.inbox.subscribed.capabilities)

    def _report(self, state: str, message: str, *, exit_code: int | None = None) -> None:
        volumes = tuple(volume.progress() for volume in self.volumes or ())
        progress = Progress(volumes=volumes, identities=self._identities, exit_code=exit_code)
        self._reported_at = self.node.clock()
        self.agent.update(self.launched.task_id, state, message=message, data=encode(progress))

    def _held_words(self) -> list[str]:
        return [f"volume {v.plan.name} is not released: {v.error}" for v in self.volumes or () if v.held]


def refuse(agent: Agent, launched: LaunchAsked) -> None:
    """An executor has one task, and its volumes are that task's."""
    _fail(agent, launched, Invalid(field="task", value=launched.task_id, reason="this executor has its task already"))


def cannot_hold(agent: Agent, launched: LaunchAsked, problem: str) -> None:
    """Nothing was begun: what holds a task, so that none of its processes outlives its volumes, could not be made."""
    needs = "it takes Linux 5.3 or newer and, as root, CAP_SYS_ADMIN and no seccomp filter that forbids unshare or mount"
    _fail(agent, launched, CannotRun(command="hold a task", target=launched.task_id, reason=f"{problem}; {needs}"))


def _fail(agent: Agent, launched: LaunchAsked, error: PollyError) -> None:
    logger.error("%s", error)
    agent.update(launched.task_id, "TASK_FAILED", message=str(error), data=encode(Progress()))


def _words(code: int | None) -> str:
    if code is None:
        return "killed with all its processes"
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
