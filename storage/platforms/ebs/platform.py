"""The adapter for EBS: its verbs, each handed to the part that knows how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from storage.model import AccessMode, Birth, ExternalId, Page, Sizes
from storage.platforms.base import (
    Attachment,
    Capabilities,
    CreateRequest,
    Finding,
    Platform,
    PoolReport,
    SnapshotReport,
    VolumeReport,
)
from storage.platforms.ebs import doctor, volume_types
from storage.platforms.ebs.attaching import Attaching
from storage.platforms.ebs.client import Client, Clock
from storage.platforms.ebs.copies import Copies
from storage.platforms.ebs.growing import Growing
from storage.platforms.ebs.looks import AGAIN_S, GATHER_S, Looks
from storage.platforms.ebs.making import Making
from storage.platforms.ebs.nodes import Nodes
from storage.platforms.ebs.options import EbsOptions
from storage.platforms.ebs.volume_types import MAX_MIB, MIB_PER_GIB
from storage.platforms.options import write_options

ONE_NODE: Final = frozenset({AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY})
PARALLEL: Final = 128
"""Attachments under way: EC2 takes seconds for each, and a call only a moment."""
SLOTS: Final = 26
"""Of an instance that nobody has looked at: 28 places on most Nitro types, less a root volume and a network interface."""


class EbsPlatform(Platform):
    Options = EbsOptions

    def __init__(
        self, name: str, options: EbsOptions, *, clock: Clock | None = None, again_s: float = AGAIN_S, gather_s: float = GATHER_S
    ) -> None:
        self._name, self._options = name, options
        clock = clock or Clock()
        self.client = Client(name, options, clock)
        looks = Looks(self.client, clock, again_s=again_s, gather_s=gather_s)
        self._looks = looks
        self._attaching = Attaching(self.client, looks, timeout_s=options.timeout_s)
        self._growing = Growing(self.client, looks, timeout_s=options.timeout_s)
        self._copies = Copies(self.client, looks, clock, timeout_s=options.snapshot_timeout_s, again_s=again_s)
        self._making = Making(self.client, looks, self._copies, options)
        self._nodes = Nodes(self.client, looks)

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        shared = {AccessMode.MULTI_NODE_READER_ONLY} if self._options.multi_attach else set()
        return Capabilities(
            snapshots=True,
            snapshot_attached=True,
            snapshots_outlive=True,
            restores=True,
            clones=True,
            clone_attached=True,
            expand_attached=True,
            expand_detached=True,
            fences=True,
            marks=True,
            access_modes=ONE_NODE | shared,
            min_mib=MIB_PER_GIB,
            max_mib=MAX_MIB,
            granularity_mib=MIB_PER_GIB,
            slots_per_node=SLOTS,
            sees_nodes=True,
            counts_slots=True,
            identity="ec2",
            parallel=PARALLEL,
        )

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    def pools(self) -> Sequence[PoolReport]:
        return self._making.pools()

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        return self._making.page(after=after, limit=limit)

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return self._looks.volume(external_id).report()

    def find(self, token: str) -> VolumeReport | None:
        found = self._making.find(token)
        return found.report() if found else None

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        volume_types.read(parameters)

    def sizes(self, parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        """Those of the volume type: every zone has the same."""
        return volume_types.sizes_of(volume_types.read(parameters)["type"])

    def access_modes(self, parameters: Mapping[str, str]) -> frozenset[AccessMode]:
        """EC2 gives a volume to several instances only if it was made so."""
        return self.capabilities.access_modes if parameters.get("multiAttach") == "true" else ONE_NODE

    def fit(self, size_mib: int, parameters: Mapping[str, str], *, pool: str | None = None) -> int:
        return volume_types.fit(size_mib, parameters)

    def create(self, request: CreateRequest) -> VolumeReport:
        return self._making.create(request)

    def delete(self, external_id: ExternalId) -> None:
        self._making.delete(external_id)

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        return self._attaching.attach(external_id, node, epoch=epoch, read_only=read_only)

    def detach(self, external_id: ExternalId, node: str) -> None:
        self._attaching.detach(external_id, node)

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return self._attaching.fence(external_id, epoch)

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        self._attaching.record_birth(external_id, birth, epoch=epoch)

    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        return self._copies.page(after=after, limit=limit)

    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        return self._copies.snapshot(external_id, token=token, name=name)

    def delete_snapshot(self, snapshot: ExternalId) -> None:
        self._copies.delete(snapshot)

    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        return self._growing.expand(external_id, self.capabilities.fit(size_mib))

    def node_stopped(self, node: str) -> str | None:
        """What EC2 says of an instance that is stopped or terminated; None while it may still run. Raises Invalid for what is no id."""
        return self._nodes.stopped(node)

    def node_slots(self, node: str) -> int | None:
        """How many of Polly's volumes this instance can hold, by its type and what else it has; None: as Capabilities say."""
        return self._nodes.slots(node)

    def check(self) -> Sequence[Finding]:
        return doctor.check(self._options, self.client, self._making)

    def close(self) -> None:
        self.client.close()
