"""`/v1`, doing: what a person orders done to volumes, snapshots and claims. The broker does it; all bodies are JSON objects."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from fastapi import APIRouter, Depends, Response

from framework.marathon.reading import parse_json
from framework.records import encode, revive
from framework.rest.context import Actor, Body, Polly, answer, only_known
from framework.service import DriftOrder, ImportOrder, VolumeOrder
from storage.errors import Invalid
from storage.model import ClaimId, SnapshotId

router = APIRouter(prefix="/v1", dependencies=[Depends(only_known)])
T = TypeVar("T")


class _Size(msgspec.Struct, forbid_unknown_fields=True):
    size_mib: int


class _Name(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    because: str


def _read(kind: type[T], body: bytes) -> T:
    found = parse_json(body or b"{}", "the request")
    try:
        encode(found)
    except UnicodeEncodeError as error:
        raise Invalid(field="the request", value=body[:60].decode("utf-8", "replace"), reason="it holds half a surrogate pair") from error
    return revive(kind, found, "the request")


@router.post("/volumes")
def create_volume(polly: Polly, actor: Actor, body: Body) -> Response:
    return answer(polly.broker.create_volume(_read(VolumeOrder, body), actor), 201)


@router.post("/imports")
def import_volume(polly: Polly, actor: Actor, body: Body) -> Response:
    return answer(polly.broker.import_volume(_read(ImportOrder, body), actor), 201)


@router.post("/volumes/{volume:path}/size")
def expand_volume(polly: Polly, actor: Actor, volume: str, body: Body) -> Response:
    return answer(polly.broker.expand_volume(volume, _read(_Size, body).size_mib, actor))


@router.post("/volumes/{volume:path}/snapshots")
def snapshot_volume(polly: Polly, actor: Actor, volume: str, body: Body) -> Response:
    return answer(polly.broker.snapshot_volume(volume, _read(_Name, body).name, actor), 201)


@router.delete("/volumes/{volume:path}")
def delete_volume(polly: Polly, actor: Actor, volume: str) -> Response:
    polly.broker.delete_volume(volume, actor)
    return Response(status_code=204)


@router.delete("/snapshots/{snapshot}")
def delete_snapshot(polly: Polly, actor: Actor, snapshot: str) -> Response:
    polly.broker.delete_snapshot(SnapshotId(snapshot), actor)
    return Response(status_code=204)


@router.post("/claims/{claim}/release")
def release_claim(polly: Polly, actor: Actor, claim: str, body: Body) -> Response:
    polly.broker.release_claim(ClaimId(claim), _read(_Reason, body).because, actor)
    return Response(status_code=204)


@router.post("/drift")
def look_for_drift(polly: Polly, actor: Actor, body: Body) -> Response:
    """Begins to look; `GET /v1/drift` says how far it is and what it found."""
    return answer(polly.broker.look_for_drift(_read(DriftOrder, body), actor), 202)
