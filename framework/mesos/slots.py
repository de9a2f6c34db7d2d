"""How many volumes one node can hold, by the platforms that can tell it of each: asked in a worker once a node's name is known.

Until the answer is there the adapter's declared limit counts, and where polly.toml says `slots_per_node`, nobody is asked. What else a
machine has attached may change, so each is asked again after a while. Without an answer the last one stays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from framework.mesos.context import Context
from framework.workers import Outcome
from storage.errors import PollyError
from storage.model import NodeId
from storage.platforms.base import Platform

logger = logging.getLogger(__name__)

AGAIN_S = 3600.0
"""How long an answer is good."""


def ask_slots(context: Context, names: Mapping[NodeId, Mapping[str, str]]) -> None:
    """Asks about the nodes that have these names, by platform, unless it was done a moment ago."""
    now, counting = context.clock(), context.counting if names else frozenset()
    for node_id, identities in names.items():
        for platform in sorted(identities.keys() & counting):
            key = (node_id, platform, identities[platform])
            if now - context.slots_asked.get(key, float("-inf")) >= AGAIN_S:
                context.slots_asked[key] = now
                _ask(context, context.platforms[platform], key)


def _ask(context: Context, platform: Platform, key: tuple[NodeId, str, str]) -> None:
    node_id, name, called = key

    def done(outcome: Outcome[int | None]) -> None:
        try:
            _learn(context, node_id, name, outcome.get())
        except PollyError as error:
            logger.warning("how many volumes node %s can hold is not known: %s", node_id, error)
            context.slots_asked.pop(key, None)

    context.workers.submit(name, f"node {node_id}", lambda: platform.node_slots(called), done)


def _learn(context: Context, node_id: NodeId, platform: str, slots: int | None) -> None:
    if slots is None:
        context.node_slots.pop((node_id, platform), None)
        return
    if context.node_slots.get((node_id, platform)) == slots:
        return
    with context.ledger.begin("broker") as tx:
        tx.limit_node(context.scheduler, node_id, {platform: slots})
    context.node_slots[node_id, platform] = slots
