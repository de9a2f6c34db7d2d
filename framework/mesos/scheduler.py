"""The scheduler: takes what the driver heard and what people asked, in order, one batch at a time. The broker thread's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from framework.mesos.apps import Apps
from framework.mesos.context import Context, story
from framework.mesos.cycle import OfferCycle
from framework.mesos.endings import Endings
from framework.mesos.errors import CallFailed
from framework.mesos.events import Disconnected, Errored, Event, Failed, Message, Offers, Rescinded, Status, Subscribed, Updated
from framework.mesos.instances import Phase
from framework.mesos.nodes import Nodes
from framework.mesos.statuses import Statuses
from storage import collector
from storage.errors import AlreadyLed, PollyError
from storage.model import NodeId

logger = logging.getLogger(__name__)

Item = Event | Callable[[], None]
"""An event of the driver, or a call that another thread wants made in the broker's thread."""

COMPLAIN_S = 10.0
"""How often the log says that the ledger cannot be used: its disk may be the log's too."""
LOOK_AGAIN_S = 1.0
"""How often the ledger is read anew while the picture is in doubt."""


class Scheduler:
    def __init__(self, context: Context, *, reclaim: Callable[[str], bool], gave_up: Callable[[str], None]) -> None:
        self._context = context
        self._gave_up = gave_up
        self.statuses = Statuses(context)
        self.cycle = OfferCycle(context)
        self.apps = Apps(context, reclaim=reclaim)
        self._nodes = Nodes(context)
        self._endings = Endings(context.config.executor.command[0])
        self._complain_at = self._look_at = float("-inf")

    def handle(self, items: Sequence[Item]) -> None:
        """One batch: calls and updates in their order, then one round over the offers that are still good."""
        statuses: list[Status] = []
        offers: list[bytes] = []
        rescinded: set[str] = set()
        for item in items:
            match item:
                case Updated():
                    statuses.append(self._endings.told(item.status))
                case Offers():
                    offers.append(item.data)
                case Rescinded():
                    rescinded.add(item.offer_id)
                case Subscribed() | Disconnected():
                    offers.clear()
                    self._flush(statuses)
                    self._connection(item)
                case _:
                    self._flush(statuses)
                    self._other(item)
        self._flush(statuses)
        if offers:
            with collector.at_rest():  # until the launches are on their way: a round leaves no cycles
                self.guarded(lambda: self.cycle.run(offers, frozenset(rescinded)))

    def tick(self, now: float) -> None:
        """What time brings: kills, leases, replacements, reconciliation, settling, demand."""
        if self._context.in_doubt and now >= self._look_at:
            self._look_at = now + LOOK_AGAIN_S
            self.guarded(lambda: self._look_again(now))
        self.guarded(lambda: self.apps.tick(now))
        self.guarded(lambda: self._context.settler.run(now, self.statuses.settled, self._context.shares_node))
        self._reconcile(now)
        self.guarded(lambda: self._nodes.tick(now))
        self.cycle.keep_demand(now)

    def next_at(self, now: float) -> float | None:
        """The next instant at which `tick` has something to do."""
        context = self._context
        instants = [self.apps.next_at(), context.settler.next_at(), context.picture.next_due(now), self._nodes.look_at]
        if context.driver.connected:
            instants.append(context.reconciler.next_at())
        if context.in_doubt:
            instants.append(self._look_at)
        return min((instant for instant in instants if instant is not None), default=None)

    def _flush(self, statuses: list[Status]) -> None:
        if statuses:
            batch = list(statuses)
            statuses.clear()
            self.guarded(lambda: self.statuses.apply(batch))

    def _connection(self, event: Subscribed | Disconnected) -> None:
        if isinstance(event, Disconnected):
            story.warning("lost     the Mesos master: %s; it is tried again until it answers", event.reason)
            return
        story.info("mesos    registered as framework %s with the master at %s", event.framework_id, _master(event))
        self.cycle.suppressed = self.cycle.filtered = False
        self.guarded(self._context.keep_id)
        now = self._context.clock()
        unsure = [task for task in self._context.picture.tasks.values() if task.phase is not Phase.SETTLING]
        self._context.reconciler.ask_about([(task.task_id, task.agent_id) for task in unsure], now)
        self._context.reconciler.subscribed(now)

    def _other(self, item: Failed | Message | Errored | Callable[[], None]) -> None:
        match item:
            case Failed(executor_id=None):
                agent_id = item.agent_id
                self.guarded(lambda: self._agent_lost(agent_id))
            case Failed():
                self._executor_ended(item)
            case Message():
                logger.info("a message from executor %s is not understood", item.executor_id)
            case Errored():
                story.error("refused  the Mesos master will not have this framework: %s", item.message)
                self._gave_up(item.message)
            case _:
                self.guarded(item)

    def _agent_lost(self, agent_id: str) -> None:
        """Mesos has removed it: it is cut off or gone. Where it comes back with an offer or a task, it is noted as up again.

        What Mesos said of its tasks may have been lost, so it is asked about each.
        """
        story.warning("agent    %s is gone from the cluster", self._hostname(agent_id))
        self.cycle.forget_agent(agent_id)
        lost = [task for task in self._context.picture.tasks.values() if task.agent_id == agent_id and task.phase is not Phase.SETTLING]
        self._context.reconciler.ask_about([(task.task_id, task.agent_id) for task in lost], self._context.clock())
        with self._context.ledger.begin("mesos") as tx:
            tx.node_state(self._context.scheduler, NodeId(agent_id), "UNREACHABLE")

    def _hostname(self, agent_id: str) -> str:
        """The agent's, where an offer or a task of it is known; else its id."""
        launched = (task.record.hostname for task in self._context.picture.tasks.values() if task.agent_id == agent_id)
        return self.cycle.latest.hostname(agent_id) or next(launched, agent_id)

    def _executor_ended(self, failed: Failed) -> None:
        if words := self._endings.note(failed):
            story.warning("executor %s on %s: %s", failed.executor_id, self._hostname(failed.agent_id), words)

    def _look_again(self, now: float) -> None:
        """After a commit in doubt: the picture becomes what the ledger has."""
        restored = self._context.ledger.restore(self._context.scheduler)
        self._context.in_doubt = False
        self.apps.take_up(restored, now)

    def _reconcile(self, now: float) -> None:
        if not self._context.driver.connected:
            return
        for tasks in self._context.reconciler.due(now):
            try:
                self._context.driver.reconcile(tasks)
            except CallFailed as error:
                logger.info("%s", error)

    def guarded(self, step: Callable[[], None]) -> None:
        """A ledger that cannot store, or refuses what should have fitted, stops this step and no other; then it is read anew.

        Nothing of the step was done, or its commit is in doubt, and Mesos will say it again. A broker that leads no more ends.
        """
        try:
            step()
        except AlreadyLed:
            raise
        except PollyError as error:
            self._context.in_doubt = True
            now = self._context.clock()
            if now >= self._complain_at:
                self._complain_at = now + COMPLAIN_S
                story.error("ledger   %s", error)


def _master(event: Subscribed) -> str:
    address = event.master.get("address", {})
    return f"{address.get('hostname') or address.get('ip', '?')}:{address.get('port', '?')}"
