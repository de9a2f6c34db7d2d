"""What the broker does for executors that may not speak to a platform: it attaches, and keeps the birth certificates there.

An executor's wish is a part of its status, repeated until it is answered. It is acted upon after the commit of that status, in a
worker, one call at a time for each volume, so that whatever ends the claim afterwards finds the attachment made. A broker that
dies on the way forgets the wish: it comes again, and attaching again is fine. Detaching is framework/settling.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from executors.wire import Delivery, Receipt, encode, failure
from framework.mesos.asking import Demand
from framework.mesos.context import Context, story
from framework.mesos.errors import CallFailed
from framework.mesos.events import Status
from framework.mesos.instances import Task
from framework.mesos.tasks import plan_of
from framework.mesos.updates import made
from framework.workers import Outcome
from storage.errors import AlreadyLed, Conflict, LedgerUnavailable, NodeError, PollyError, StaleEpoch, UnknownPlatform, UnknownVolume
from storage.lifecycle import ClaimState
from storage.model import Access, Birth, Claim, ClaimId, ExternalId, Volume, VolumePlan
from storage.node.attacher import obtain
from storage.platforms.base import Attachment, Platform

logger = logging.getLogger(__name__)

NOT_OURS = (Conflict, StaleEpoch, UnknownVolume)
"""Refusals of a birth certificate that no repeat would change: somebody else has the volume now, or it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What a platform has done of a wish."""

    external_id: ExternalId
    size_mib: int
    birth: Birth | None
    attachment: Attachment


class Deliveries:
    """The broker thread's own. `confirm` sends receipts of births, `kill` ends a task that has no right to live."""

    def __init__(
        self, context: Context, *, confirm: Callable[[Status, Sequence[ClaimId]], None], kill: Callable[[str, str | None], None]
    ) -> None:
        self._context, self._confirm, self._kill = context, confirm, kill
        self._attaching: set[ClaimId] = set()
        self._marking: set[ClaimId] = set()

    # --- attach

    def fulfil(self, status: Status, task: Task, wishes: Sequence[ClaimId]) -> None:
        """Has the volumes of these claims attached, and answers their executor. A wish that is being fulfilled is passed over."""
        for claim_id in wishes:
            if claim_id not in self._attaching:
                try:
                    self._attach(status, task, task.claims[claim_id])
                except PollyError as error:
                    self._refuse(status, task.claims[claim_id], error)

    def _attach(self, status: Status, task: Task, claim: Claim) -> None:
        volume = task.volumes[claim.volume_id]
        platform, node = self._platform(volume), self._node(task, volume)
        plan = self._plan(task, claim, volume)

        def job() -> Attached | None:
            if not self._is_waited_for(claim):
                return None
            self._context.check_lead()
            return _attach(platform, plan, node)

        def done(outcome: Outcome[Attached | None]) -> None:
            self._attaching.discard(claim.claim_id)
            if isinstance(outcome.error, (AlreadyLed, LedgerUnavailable)):
                logger.info("volume %s is not attached to %s: %s; the executor will ask again", volume.name, node, outcome.error)
            elif outcome.error is not None:
                story.warning("refused  volume %s is not attached to %s: %s", volume.name, node, outcome.error)
                self._refuse(status, claim, outcome.error)
            elif (attached := outcome.get()) is None:
                logger.info("volume %s is not attached to %s: its task ended before", volume.name, node)
            elif self._is_live(task, claim):
                self._deliver(status, task, claim, node, attached)
            else:
                self._take_back(platform, volume, claim, attached.external_id, node)

        self._attaching.add(claim.claim_id)
        self._context.workers.submit(volume.platform, f"volume {volume.volume_id}", job, done, urgent=True)

    def _is_waited_for(self, claim: Claim) -> bool:
        """In a worker, when the wish's turn has come: what a task that has ended meanwhile would get is not begun."""
        task = self._context.picture.by_claim.get(claim.claim_id)
        held = task.claims.get(claim.claim_id) if task else None
        return held is not None and held.state is not ClaimState.RELEASING

    def _platform(self, volume: Volume) -> Platform:
        try:
            return self._context.platforms[volume.platform]
        except KeyError:
            raise UnknownPlatform(platform=volume.platform) from None

    def _node(self, task: Task, volume: Volume) -> str:
        node = self._context.node_name(task, volume.platform)
        if node is None:
            reason = f"its executor has not said what platform {volume.platform} calls it"
            raise NodeError(command="attach", target=task.record.hostname, reason=reason)
        return node

    def _plan(self, task: Task, claim: Claim, volume: Volume) -> VolumePlan:
        """As the task was launched with, of what the ledger has: an executor's word makes no volume. Raises Invalid, UnknownProfile."""
        path, state = task.record.containers.get(volume.volume_id, ""), self._context.picture.apps.get(task.app_id)
        needs = Demand(self._context.config, state.app).needs(task.slot) if state else []
        need = next((need for need in needs if need.container_path == path), None)
        if need is None:
            found = state.held if state and state.held else "none: the app was changed"
            raise Conflict(what=f"app {task.app_id}", expected=f"a volume at {path}", found=found)
        return plan_of(claim, volume, need)

    def _is_live(self, task: Task, claim: Claim) -> bool:
        held = self._context.picture.by_claim.get(claim.claim_id)
        return held is not None and held.task_id == task.task_id

    def _deliver(self, status: Status, task: Task, claim: Claim, node: str, attached: Attached) -> None:
        """The second checkpoint, then the answer."""
        task = self._context.picture.by_claim[claim.claim_id]
        volume, external_id = task.volumes[claim.volume_id], attached.external_id
        with self._context.ledger.begin("broker") as tx:
            if volume.external_id is None:
                tx.created(volume.volume_id, token=volume.token, external_id=external_id, size_mib=attached.size_mib)
            why = f"{external_id} to {node} as {attached.attachment.device}"
            tx.note("volume.attached", volume_id=volume.volume_id, claim_id=claim.claim_id, placement_id=task.task_id, why=why)
        if volume.external_id is None:
            task.volumes[volume.volume_id] = made(volume, external_id, attached.size_mib)
            self._context.forget([volume])
        story.info("attached %s epoch %d to %s for task %s", volume.name, claim.epoch, node, task.task_id)
        self._answer(
            status,
            Delivery(
                claim_id=claim.claim_id,
                epoch=claim.epoch,
                external_id=external_id,
                size_mib=attached.size_mib,
                birth=attached.birth,
                attachment=attached.attachment,
            ),
        )

    def _take_back(self, platform: Platform, volume: Volume, claim: Claim, external_id: ExternalId, node: str) -> None:
        """A person has ended the claim while the platform attached its volume. A later claim on the same node would lose it by this, so
        it is left to that one's end."""

        shared = self._context.shares_node(claim, node, has_ended=True)

        def job() -> None:
            if not shared():
                platform.detach(external_id, node)

        def done(outcome: Outcome[None]) -> None:
            if outcome.error is not None:
                story.warning("held     volume %s stays attached to %s: %s", volume.name, node, outcome.error)

        self._context.workers.submit(volume.platform, f"volume {volume.volume_id}", job, done)

    def _refuse(self, status: Status, claim: Claim, error: PollyError) -> None:
        self._answer(status, Delivery(claim_id=claim.claim_id, epoch=claim.epoch, error=failure(error)))

    def _answer(self, status: Status, delivery: Delivery) -> None:
        try:
            message = encode(Receipt(deliveries=(delivery,)))
            self._context.driver.message(status.agent_id or "", status.executor_id or status.task_id, message)
        except CallFailed as error:
            logger.info("%s; the executor will ask again", error)

    # --- births

    def confirm(self, status: Status, task: Task, births: Sequence[ClaimId]) -> None:
        """Confirms birth certificates that the ledger has; where the broker has the credentials, the platform has them first."""
        marked = [claim_id for claim_id in births if self._keeps_marks(task, claim_id)]
        if plain := [claim_id for claim_id in births if claim_id not in marked]:
            self._confirm(status, plain)
        for claim_id in marked:
            if claim_id not in self._marking:
                self._mark(status, task, task.claims[claim_id])

    def _keeps_marks(self, task: Task, claim_id: ClaimId) -> bool:
        claim = task.claims[claim_id]
        name = task.volumes[claim.volume_id].platform
        platform = self._context.platforms.get(name)
        writes = claim.access is Access.RW and name in task.record.by_broker
        return writes and platform is not None and platform.capabilities.marks

    def _mark(self, status: Status, task: Task, claim: Claim) -> None:
        volume = task.volumes[claim.volume_id]
        platform, external_id, birth = self._platform(volume), volume.external_id, volume.birth
        if external_id is None or birth is None:
            return

        def done(outcome: Outcome[None]) -> None:
            self._marking.discard(claim.claim_id)
            if outcome.error is None:
                self._confirm(status, [claim.claim_id])
            elif isinstance(outcome.error, NOT_OURS):
                story.warning("stale    the birth of %s is refused: %s", volume.name, outcome.error)
                self._kill(status.task_id, status.agent_id)
            else:
                story.warning("refused  the birth of %s is not stored yet: %s", volume.name, outcome.error)

        self._marking.add(claim.claim_id)
        self._context.workers.submit(
            volume.platform,
            f"volume {volume.volume_id}",
            lambda: platform.record_birth(external_id, birth, epoch=claim.epoch),
            done,
            urgent=True,
        )


def _attach(platform: Platform, plan: VolumePlan, node: str) -> Attached:
    """In a worker. Repeated it finds what it has made."""
    read_only = plan.access is Access.RO
    if plan.external_id is not None and not plan.may_create:
        attachment = platform.attach(plan.external_id, node, epoch=plan.epoch, read_only=read_only)
        if plan.birth is not None and platform.capabilities.marks and not read_only:
            # whoever gave birth may have died before the platform had it
            platform.record_birth(plan.external_id, plan.birth, epoch=plan.epoch)
        return Attached(external_id=plan.external_id, size_mib=plan.size_mib, birth=None, attachment=attachment)
    found = obtain(platform, plan)
    attachment = platform.attach(found.external_id, node, epoch=plan.epoch, read_only=read_only)
    return Attached(external_id=found.external_id, size_mib=found.size_mib, birth=found.birth, attachment=attachment)
