"""What a person can do about a volume whose claim does not end by itself: the ways in which Polly would believe that its holder is gone.

Knows what the broker knows, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator

from framework.mesos.asking import Demand
from framework.mesos.context import Context
from framework.mesos.instances import AppState, Task
from storage.errors import PollyError
from storage.lifecycle import ClaimState
from storage.model import Claim, NodeId


def of_task(context: Context, task: Task) -> tuple[str, ...]:
    """For a task that ends, or that nobody can reach."""
    return tuple(line for claim in task.claims.values() for line in _of_claim(context, task, claim))


def of_slot(context: Context, state: AppState, slot: int) -> tuple[str, ...]:
    """For an instance that waits for volumes which others hold."""
    try:
        names = [need.name for need in Demand(context.config, state.app).needs(slot)]
    except PollyError:
        return ()
    holders = [one for volume in context.resolve(names).values() for one in context.picture.holders(volume.volume_id)]
    return tuple(line for task, claim in holders for line in _of_claim(context, task, claim))


def _of_claim(context: Context, task: Task, claim: Claim) -> Iterator[str]:
    if claim.state is not ClaimState.STRANDED:
        return  # its task lives, or is over and Polly is at work on it: the claim's reason says what is still in the way
    host, volume = task.record.hostname, task.volumes[claim.volume_id]
    yield f"bring agent {host} back: its task is then heard to run, or to have ended"
    platform, node = context.platforms.get(volume.platform), context.node_name(task, volume.platform)
    if platform and platform.capabilities.sees_nodes and node:
        yield f"if the machine is dead, stop or delete {node} on platform {volume.platform}: Polly looks by itself"
    yield f"if it will never come back, tell the Mesos master so (MARK_AGENT_GONE): {_mark_gone(context.driver.master, task.agent_id)}"
    yield f'if you know that nothing on {host} writes to it any more: polly claim release {claim.claim_id} --because "how you know"'


def _mark_gone(master: str | None, agent: NodeId) -> str:
    """The command, to be copied; an agent's id is letters, digits and hyphens."""
    call = f'{{"type": "MARK_AGENT_GONE", "mark_agent_gone": {{"agent_id": {{"value": "{agent}"}}}}}}'
    return f"curl -X POST {master or 'MASTER:5050'}/api/v1 -H 'Content-Type: application/json' -d '{call}'"
