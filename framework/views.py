"""What people and programs are shown, and where it may come from: one protocol, which the ledger itself fulfils (framework/source.py)
and a broker's HTTP API (framework/client.py).

Everything here is read only, and every list that can be long comes in pages. Knows no database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from framework.mesos.instances import Phase
from storage.filters import ClaimFilter, VolumeFilter
from storage.model import Claim, EventPage, Hearing, Node, Page, Pool, Profile, Snapshot, Volume
from storage.platforms.base import VolumeReport

T = TypeVar("T")
PAGE = 1000
"""How many records a program asks for at once."""


class HeldVolume(Volume, frozen=True, kw_only=True, gc=False):
    """A volume with who has it."""

    claims: tuple[Claim, ...] = ()
    """The live ones."""


class AppStatus(StrEnum):
    """How an app is, in the words of Marathon's web interface, and DELETING."""

    RUNNING = "RUNNING"
    """All instances run."""
    DEPLOYING = "DEPLOYING"
    """Tasks are just started or killed, and no instance waits."""
    WAITING = "WAITING"
    """An instance has no task: no offer fits it, or its volume is held."""
    DELAYED = "DELAYED"
    """Each instance without a task is held back after failures. Only a running broker knows that; without one it is WAITING."""
    SUSPENDED = "SUSPENDED"
    """No instance is wanted, and none is left."""
    DELETING = "DELETING"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One run of one instance of an app."""

    task_id: str
    app_id: str
    slot: int
    state: str
    """A framework.mesos.instances.Phase."""
    node: str
    hostname: str = ""
    region: str = ""
    zone: str = ""
    ports: tuple[int, ...] = ()
    version: str = ""
    launched_at: float = 0.0
    started_at: float = 0.0
    """0 before it ran."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Volume id to containerPath."""
    message: str = ""


PRESENT = frozenset({Phase.LAUNCHED, Phase.STARTING, Phase.RUNNING, Phase.KILLING})
"""Of a task that its instance has; while it is unreachable or settling, its instance waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppView:
    """An app as the ledger has it."""

    app_id: str
    spec: Mapping[str, Any]
    """The definition as Marathon's JSON."""
    version: str
    instances: int
    state: AppStatus = AppStatus.RUNNING
    created_at: float
    tasks: tuple[TaskView, ...] = ()

    def count(self, *states: Phase) -> int:
        return sum(task.state in states for task in self.tasks)

    @property
    def running(self) -> int:
        return self.count(Phase.RUNNING)

    @property
    def staged(self) -> int:
        return self.count(Phase.LAUNCHED, Phase.STARTING)

    @property
    def missing(self) -> int:
        """How many instances have no task, or one that is out of reach or over."""
        return len(set(range(self.instances)) - {task.slot for task in self.tasks if task.state in PRESENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A pool, with what live claims hold of it."""

    pool: Pool
    free_mib: int
    claimed_mib: int
    claims: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformView:
    """What a platform's pools add up to; a room that several of them share counts once."""

    name: str
    pools: int
    capacity_mib: int
    provisioned_mib: int
    free_mib: int
    claimed_mib: int
    claims: int
    online: bool
    """All its pools are."""
    hearing: Hearing


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """None: any."""

    volume: str | None = None
    """Its id or name."""
    claim: str | None = None
    task: str | None = None
    since: float | None = None
    """This instant, and later."""
    until: float | None = None
    """Before this instant."""


class Source(Protocol):
    """Raises LedgerUnavailable or BrokerUnavailable from every method, beside what each says."""

    def apps(self) -> Sequence[AppView]: ...

    def app(self, app_id: str) -> AppView:
        """Raises UnknownApp."""

    def pools(self, platform: str | None = None) -> Sequence[PoolView]:
        """Raises UnknownPlatform for one that has no pool."""

    def hearings(self) -> Sequence[Hearing]:
        """Of every platform that a broker has asked for its pools, one without a pool too."""

    def profiles(self) -> Sequence[Profile]: ...

    def volume(self, volume: str) -> Volume:
        """By id or name. Raises UnknownVolume."""

    def volumes(self, only: VolumeFilter, *, after: str | None = None, limit: int = PAGE) -> Page[Volume]: ...

    def held_volumes(self, only: VolumeFilter, *, after: str | None = None, limit: int = PAGE) -> Page[HeldVolume]: ...

    def foreign(self, platform: str, *, after: str | None = None, limit: int = PAGE) -> Page[VolumeReport]:
        """Volumes that the platform has listed and the ledger does not have. Raises UnknownPlatform for one that has no pool."""

    def claim(self, claim: str) -> Claim:
        """A live one. Raises UnknownClaim."""

    def claims(self, only: ClaimFilter, *, after: str | None = None, limit: int = PAGE) -> Page[Claim]: ...

    def snapshots(
        self, volume: str | None = None, *, external_id: str | None = None, after: str | None = None, limit: int = PAGE
    ) -> Page[Snapshot]:
        """All, or those of one volume by id or name, or that platforms call so. Raises UnknownVolume."""

    def nodes(self) -> Sequence[Node]: ...

    def events(self, only: EventFilter, *, after: str | None = None, limit: int = PAGE, newest_first: bool = False) -> EventPage:
        """Raises UnknownVolume."""

    def close(self) -> None: ...


def with_status(app: AppView, *, deleting: bool = False, delayed: int = 0) -> AppView:
    """The app with the status that follows from its tasks; `delayed` of its instances are held back after failures."""
    return replace(app, state=_status(app, deleting=deleting or app.state is AppStatus.DELETING, delayed=delayed))


def _status(app: AppView, *, deleting: bool, delayed: int) -> AppStatus:
    if deleting:
        return AppStatus.DELETING
    if app.missing:
        return AppStatus.DELAYED if delayed >= app.missing else AppStatus.WAITING
    present = [task for task in app.tasks if task.state in PRESENT]
    if len(present) > app.instances or len(present) > app.running:
        return AppStatus.DEPLOYING
    return AppStatus.RUNNING if app.instances else AppStatus.SUSPENDED


def platforms(pools: Iterable[PoolView], hearings: Iterable[Hearing]) -> list[PlatformView]:
    """The platforms that these pools belong to, added up, and those that do not answer and have none."""
    heard = {hearing.platform: hearing for hearing in hearings}
    found: dict[str, list[PoolView]] = {name: [] for name, hearing in heard.items() if not hearing.heard_at}
    for view in pools:
        found.setdefault(view.pool.platform, []).append(view)
    return [_platform_view(name, views, heard.get(name) or Hearing(platform=name)) for name, views in sorted(found.items())]


def _platform_view(name: str, views: Sequence[PoolView], hearing: Hearing) -> PlatformView:
    return PlatformView(
        name=name,
        pools=len(views),
        capacity_mib=_once(views, lambda view: view.pool.capacity_mib, lambda pool: pool.room_capacity_mib),
        provisioned_mib=sum(view.pool.provisioned_mib for view in views),
        free_mib=_once(views, lambda view: view.free_mib, lambda pool: pool.room_free_mib),
        claimed_mib=sum(view.claimed_mib for view in views),
        claims=sum(view.claims for view in views),
        online=bool(views) and all(view.pool.online for view in views),
        hearing=hearing,
    )


def _once(views: Sequence[PoolView], own: Callable[[PoolView], int], shared: Callable[[Pool], int]) -> int:
    """The sum over the pools, those of one room together with no more than the room has."""
    total, sums, rooms = 0, Counter[str](), {view.pool.room: shared(view.pool) for view in views if view.pool.room}
    for view in views:
        if view.pool.room:
            sums[view.pool.room] += own(view)
        else:
            total += own(view)
    return total + sum(min(sums[room], most) for room, most in rooms.items())


def pages(ask: Callable[[str | None, int], Page[T]], *, after: str | None = None, limit: int | None = None) -> Iterator[Page[T]]:
    """All parts of a long list from `after` on, until `limit` records were given; each is asked for when it is wanted."""
    left = limit
    while True:
        page = ask(after, PAGE if left is None else min(PAGE, left))
        yield page
        after = page.after
        left = None if left is None else left - len(page.items)
        if after is None or (left is not None and left <= 0):
            return
