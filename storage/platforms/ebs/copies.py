"""Snapshots of volumes. EC2 takes the moment when it is asked, and copies for as long as it needs: a snapshot is here once it is complete.

CreateSnapshot knows no idempotency token, so what carries our tag is looked for before, and after as well: of two that were
made at once the older one stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from storage.errors import Invalid, PlatformError, PlatformUnavailable, UnknownSnapshot
from storage.model import ExternalId, Page
from storage.platforms.base import SnapshotReport
from storage.platforms.ebs import ids, listing, tags
from storage.platforms.ebs.client import Client, Clock
from storage.platforms.ebs.looks import AGAIN_S, MOST_IDS, Looks
from storage.platforms.ebs.views import Snapshot
from storage.platforms.pacing import Poller

GONE: Final = frozenset({"InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed"})


class Copies:
    def __init__(self, client: Client, looks: Looks, clock: Clock, *, timeout_s: float, again_s: float = AGAIN_S) -> None:
        self._client, self._looks, self._timeout_s = client, looks, timeout_s
        self._pending = Poller(self._look, every_s=again_s, most=MOST_IDS, learns=True, now=clock.now)

    def snapshot(self, external_id: ExternalId, *, token: str, name: str) -> SnapshotReport:
        wanted = tags.at_creation(token=token, name=name, labels={})
        if made := self._find(token):
            return self._complete(made[0])
        volume = self._looks.volume(external_id)
        answer = self._client.change(
            "create_snapshot",
            self._client.doing("snapshot a volume", volume=external_id, pool=volume.zone, size_mib=volume.size_mib),
            VolumeId=external_id,
            Description=f"Polly's, of {external_id}",
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags.as_list(wanted)}],
        )
        return self._complete(self._first(Snapshot.of(answer or {}), token), is_new=True)

    def delete(self, snapshot: ExternalId) -> None:
        try:
            ids.snapshot(snapshot)
        except UnknownSnapshot:
            return
        self._delete(snapshot)

    def known(self, snapshot: str) -> Snapshot:
        """The snapshot, complete. Raises UnknownSnapshot; PlatformUnavailable while it is still being made."""
        found = self._look([ids.snapshot(snapshot)]).get(snapshot)
        if found is None:
            raise UnknownSnapshot(snapshot=snapshot)
        self._complete(found)
        return found

    def page(self, *, after: str | None, limit: int) -> Page[SnapshotReport]:
        doing = self._client.doing("list snapshots")
        page = listing.page(self._client, "describe_snapshots", "Snapshots", "SnapshotId", doing, after, limit, {"OwnerIds": ["self"]})
        return Page(items=[Snapshot.of(one).report() for one in page.items], after=page.after)

    def _first(self, made: Snapshot, token: str) -> Snapshot:
        """What we have made, or what somebody else with our token made just before: then ours goes again.

        Of two made in the same instant neither goes, as nobody can say whose is needed; all take the one with the lower id.
        """
        first = min([*self._find(token), made], key=lambda one: (one.started_at, one.snapshot_id))
        if first.started_at < made.started_at:
            self._delete(made.snapshot_id)
        return first

    def _delete(self, snapshot: str) -> None:
        doing = self._client.doing("delete a snapshot", snapshot=snapshot)
        self._client.change("delete_snapshot", doing, passing=GONE, SnapshotId=snapshot)

    def _find(self, token: str) -> Sequence[Snapshot]:
        if not token:
            raise Invalid(field="token", value=token, reason="it must not be empty")
        found = self._described([{"Name": f"tag:{tags.TOKEN}", "Values": [listing.exactly(token)]}])
        ours = [one for one in found if one.tags.get(tags.TOKEN) == token]
        return sorted(ours, key=lambda one: (one.started_at, one.snapshot_id))

    def _complete(self, snapshot: Snapshot, *, is_new: bool = False) -> SnapshotReport:
        """Waits for it to be complete. One that was made just now and is not shown is not shown yet: EC2 tells of it a moment later."""
        seen: Snapshot | None = snapshot
        if snapshot.state == "pending":
            ended = _is_over if is_new else _is_over_or_gone
            _, seen = self._pending.until(snapshot.snapshot_id, ended, timeout_s=self._timeout_s)
        action = f"snapshot volume {snapshot.volume_id}"
        if seen is None and not is_new:
            raise UnknownSnapshot(snapshot=snapshot.snapshot_id)
        if seen is None:
            reason = f"snapshot {snapshot.snapshot_id} is not to be seen; ask again to wait for it"
            raise PlatformUnavailable(platform=self._client.platform, action=action, reason=reason)
        if seen.state == "pending":
            reason = f"snapshot {seen.snapshot_id} is still being made ({seen.progress or '0%'}); ask again to wait for it"
            raise PlatformUnavailable(platform=self._client.platform, action=action, reason=reason)
        if seen.state != "completed":
            reason = f"snapshot {seen.snapshot_id} is in state {seen.state}: {seen.message or 'EC2 does not say why'}"
            raise PlatformError(platform=self._client.platform, action=action, reason=reason)
        return seen.report()

    def _look(self, keys: Sequence[str]) -> Mapping[str, Snapshot]:
        return {one.snapshot_id: one for one in self._described([{"Name": "snapshot-id", "Values": list(keys)}])}

    def _described(self, filters: list[dict[str, Any]]) -> Sequence[Snapshot]:
        doing = self._client.doing("look at snapshots")
        found = self._client.pages("describe_snapshots", "Snapshots", doing, OwnerIds=["self"], Filters=filters)
        return [Snapshot.of(one) for one in found]


def _is_over(seen: Snapshot | None) -> bool:
    return seen is not None and seen.state != "pending"


def _is_over_or_gone(seen: Snapshot | None) -> bool:
    return seen is None or _is_over(seen)
