"""`/v1`, reading: the inventory as the ledger has it. Lists come in pages: `limit`, and `after` with what the last page named."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Response

from framework.rest.context import Polly, answer, listed, only_known, paged
from framework.views import EventFilter, platforms, with_status
from storage.errors import Invalid
from storage.filters import ClaimFilter, VolumeFilter
from storage.lifecycle import ClaimState, VolumeState
from storage.model import PlacementId, VolumeId

router = APIRouter(prefix="/v1", dependencies=[Depends(only_known)])

MOST = 10_000
Limit = Annotated[int, Query(ge=1, le=MOST)]
S = TypeVar("S", ClaimState, VolumeState)


@router.get("/platforms")
def list_platforms(polly: Polly) -> Response:
    return listed(platforms(polly.source.pools(), polly.source.hearings()))


@router.get("/pools")
def list_pools(polly: Polly, platform: str | None = None) -> Response:
    return listed(polly.source.pools(platform))


@router.get("/profiles")
def list_profiles(polly: Polly) -> Response:
    return listed(polly.source.profiles())


@router.get("/volumes")
def list_volumes(
    polly: Polly,
    platform: str | None = None,
    pool: str | None = None,
    profile: str | None = None,
    zone: str | None = None,
    state: str | None = None,
    owner: str | None = None,
    role: str | None = None,
    name: str | None = None,
    external_id: str | None = None,
    label: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    claims: bool = False,
    after: str | None = None,
    limit: Limit = 100,
) -> Response:
    """With `claims` each volume has the live claims on it."""
    only = VolumeFilter(
        platform=platform,
        pool=pool,
        profile=profile,
        zone=zone,
        state=read_state(VolumeState, state),
        owner=owner,
        role=role,
        name=name,
        external_id=external_id,
        labels=read_labels(label),
    )
    ask = polly.source.held_volumes if claims else polly.source.volumes
    return paged(ask(only, after=after, limit=limit))


@router.get("/volumes/{volume:path}")
def get_volume(polly: Polly, volume: str) -> Response:
    return answer(polly.source.volume(volume))


@router.get("/foreign")
def list_foreign(polly: Polly, platform: str, after: str | None = None, limit: Limit = 100) -> Response:
    """Volumes of a platform that are not Polly's, as it last listed them."""
    return paged(polly.source.foreign(platform, after=after, limit=limit))


@router.get("/drift")
def get_drift(polly: Polly) -> Response:
    return answer(polly.broker.drift())


@router.get("/claims")
def list_claims(
    polly: Polly,
    platform: str | None = None,
    state: str | None = None,
    node: str | None = None,
    scheduler: str | None = None,
    volume_id: str | None = None,
    placement_id: str | None = None,
    after: str | None = None,
    limit: Limit = 100,
) -> Response:
    only = ClaimFilter(
        platform=platform,
        state=read_state(ClaimState, state),
        node=node,
        scheduler=scheduler,
        volume_id=None if volume_id is None else VolumeId(volume_id),
        placement_id=None if placement_id is None else PlacementId(placement_id),
    )
    return paged(polly.source.claims(only, after=after, limit=limit))


@router.get("/claims/{claim}")
def get_claim(polly: Polly, claim: str) -> Response:
    return answer(polly.source.claim(claim))


@router.get("/snapshots")
def list_snapshots(
    polly: Polly, volume: str | None = None, external_id: str | None = None, after: str | None = None, limit: Limit = 100
) -> Response:
    return paged(polly.source.snapshots(volume, external_id=external_id, after=after, limit=limit))


@router.get("/nodes")
def list_nodes(polly: Polly) -> Response:
    return listed(polly.source.nodes())


@router.get("/events")
def list_events(
    polly: Polly,
    volume: str | None = None,
    claim: str | None = None,
    task: str | None = None,
    since: float | None = None,
    until: float | None = None,
    after: str | None = None,
    limit: Limit = 100,
    newest_first: bool = False,
) -> Response:
    only = EventFilter(volume=volume, claim=claim, task=task, since=since, until=until)
    found = polly.source.events(only, after=after, limit=limit, newest_first=newest_first)
    return listed(found.items, found.after, kept_since=found.kept_since)


@router.get("/apps")
def list_apps(polly: Polly) -> Response:
    delayed = polly.broker.delayed()
    return listed(with_status(app, delayed=delayed.get(app.app_id, 0)) for app in polly.source.apps())


@router.get("/explanations")
def explain_all(polly: Polly) -> Response:
    """Of all apps with instances that wait."""
    return listed(polly.broker.explain_all())


@router.get("/apps/{app_id:path}/explanation")
def explain(polly: Polly, app_id: str) -> Response:
    return answer(polly.broker.explain(polly.source.app(app_id).app_id))


@router.get("/apps/{app_id:path}")
def get_app(polly: Polly, app_id: str) -> Response:
    app = polly.source.app(app_id)
    return answer(with_status(app, delayed=polly.broker.delayed().get(app.app_id, 0)))


@router.get("/offers")
def list_offers(polly: Polly) -> Response:
    return listed(polly.broker.offers())


@router.get("/broker")
def get_broker(polly: Polly) -> Response:
    return answer(polly.broker.info())


@router.get("/doctor")
def doctor(polly: Polly) -> Response:
    return listed(polly.broker.doctor())


def read_state(kind: type[S], text: str | None) -> S | None:
    """Raises Invalid, naming the states there are."""
    if text is None:
        return None
    try:
        return kind(text.upper())
    except ValueError:
        raise Invalid(field="state", value=text, reason=f"it is one of {', '.join(kind)}") from None


def read_labels(labels: list[str]) -> dict[str, str]:
    """`k=v` each. Raises Invalid."""
    for label in labels:
        if not label.partition("=")[0] or "=" not in label:
            raise Invalid(field="label", value=label, reason="write it as NAME=VALUE")
    return {name: value for name, _, value in (label.partition("=") for label in labels)}
