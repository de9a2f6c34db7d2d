"""A volume that the broker attaches: what staging asks of a platform, answered by what the broker has delivered.

So the node needs no adapter, no SDK and no credentials. Nothing is asked of the broker but to attach; what it did it undoes
itself, once the executor has said that it let go, or is gone.
"""

from __future__ import annotations

from collections.abc import Callable

from executors.wire import Delivery, PlatformSettings
from storage.errors import Conflict, NotDelivered
from storage.model import Birth, ExternalId, VolumePlan
from storage.platforms.base import Attachment, Capabilities, CreateRequest, VolumeReport


class DeliveredVolume:
    """Fulfils storage.node.attacher.Attacher for the one volume of `plan`. `ask` waits for the broker's answer."""

    def __init__(self, plan: VolumePlan, said: PlatformSettings, ask: Callable[[], Delivery]) -> None:
        self._plan, self._ask = plan, ask
        # Whether its platform clones, the broker knows, which makes the volume.
        self._capabilities = Capabilities(device=said.device, clones=True)

    @property
    def name(self) -> str:
        return self._plan.platform

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def _delivered(self) -> tuple[Delivery, Attachment]:
        delivery = self._ask()
        if delivery.attachment is None:
            error = delivery.error
            message = error.message if error else "the broker delivered nothing"
            raise NotDelivered(message=message, error=error.code if error else "NotDelivered", advice=error.advice if error else "")
        return delivery, delivery.attachment

    def _report(self) -> VolumeReport:
        delivery, attachment = self._delivered()
        return VolumeReport(
            external_id=attachment.external_id,
            pool=self._plan.pool,
            size_mib=delivery.size_mib,
            serial=attachment.serial,
            token=self._plan.token,
            birth=delivery.birth,
        )

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return self._report()

    def find(self, token: str) -> VolumeReport | None:
        return self._report()

    def create(self, request: CreateRequest) -> VolumeReport:
        return self._report()

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        _, attachment = self._delivered()
        if attachment.external_id != external_id:
            raise Conflict(what="the broker's delivery", expected=external_id, found=attachment.external_id)
        return attachment

    def detach(self, external_id: ExternalId, node: str) -> None:
        """The broker does that once it hears that the node has let go."""

    def inheritable(self, external_id: ExternalId) -> int | None:
        return None

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        """The broker does that when it hears of the birth, before it confirms it."""

    def close(self) -> None:
        """Nothing is open."""
