"""Forgets agents that are away for good: without it the ledger would keep every agent id that a cluster ever had.

An agent that Polly is wrong about is noted again with its next offer, so nothing depends on this.
"""

from __future__ import annotations

from framework.mesos.context import Context
from storage.model import Node

LOOK_S = 600.0
KEPT_S = {"GONE": 86_400.0, "UNREACHABLE": 604_800.0}
"""How long a node in this state that holds nothing stays in the list, for people to see; one that is UP stays. In docs/operating.md."""


class Nodes:
    """The broker thread's own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.look_at = context.clock() + LOOK_S
        """When `tick` next has something to do."""

    def tick(self, now: float) -> None:
        if now < self.look_at:
            return
        self.look_at = now + LOOK_S
        scheduler, picture = self._context.scheduler, self._context.picture
        busy = {task.agent_id for task in picture.tasks.values()}
        idle = [node for node in self._context.ledger.nodes(scheduler) if node.node_id not in busy and _is_past(node, now)]
        if idle:
            with self._context.ledger.begin("broker") as tx:
                for node in idle:
                    tx.drop_node(scheduler, node.node_id)
            self._context.forget_nodes({node.node_id for node in idle})


def _is_past(node: Node, now: float) -> bool:
    kept_s = KEPT_S.get(node.state)
    return kept_s is not None and not any(node.used.values()) and now - node.seen_at >= kept_s
