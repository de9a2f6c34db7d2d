"""`polly offers`: what Mesos offers, and what Polly adds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import click

from framework.cli.options import asks
from framework.cli.output import Output
from framework.cli.tables import Column
from framework.cli.words import age, count, size
from framework.client import BrokerClient
from framework.service import OfferView

NO_OFFERS = "No offer was seen yet. While no instance waits Polly suppresses offers; polly doctor says whether Mesos is reached."


@click.command()
@asks
def offers(broker: BrokerClient, out: Output) -> None:
    """Show the latest offer of each agent with Polly's overlay; -o json prints Mesos' own JSON, the overlay among the resources."""
    now = time.time()
    columns: list[Column[OfferView]] = [
        Column("AGENT", lambda view: _text(view.offer, "hostname")),
        Column("ZONE", lambda view: _zone(view.offer), rank=5),
        Column("CPUS", lambda view: f"{_scalar(view.offer, 'cpus'):g}", right=True),
        Column("MEM", lambda view: size(_scalar(view.offer, "mem")), right=True),
        Column("DISK", lambda view: size(_scalar(view.offer, "disk")), right=True, rank=4),
        Column("PORTS", lambda view: _ranges(view.offer), rank=2),
        Column("OVERLAY", lambda view: overlay_words(view.overlay), prose=True),
        Column("AGE", lambda view: age(view.received_at, now), right=True, rank=3),
        Column("FATE", lambda view: view.fate),
    ]
    out.table(columns, [broker.offers()], empty=NO_OFFERS, form=lambda view: view.with_overlay())


def overlay_words(overlay: Iterable[Mapping[str, Any]]) -> str:
    """The pools by profile with the largest volume each could still give, and how many existing volumes."""
    sources = [(resource, _at(resource, "disk", "source")) for resource in overlay]
    pools = [_pool_words(resource, source) for resource, source in sources if source.get("type") == "RAW"]
    volumes = len(sources) - len(pools)
    return ", ".join(pools + ([count(volumes, "volume")] if volumes else []))


def _pool_words(resource: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    labels = {label.get("key"): label.get("value") for label in _at(source, "metadata").get("labels") or ()}
    pool = "/".join(filter(None, (_at(resource, "provider_id").get("value"), labels.get("pool"))))
    return f"{source.get('profile') or 'any'}@{pool} {size(_at(resource, 'scalar').get('value') or 0)}"


def _text(offer: Mapping[str, Any], name: str) -> str:
    return str(offer.get(name) or "")


def _zone(offer: Mapping[str, Any]) -> str:
    return str(_at(offer, "domain", "fault_domain", "zone").get("name") or "")


def _scalar(offer: Mapping[str, Any], name: str) -> float:
    return sum(_at(r, "scalar").get("value") or 0.0 for r in offer.get("resources") or () if r.get("name") == name)


def _ranges(offer: Mapping[str, Any]) -> str:
    found = [r for r in offer.get("resources") or () if r.get("name") == "ports"]
    return ",".join(f"{span['begin']}-{span['end']}" for r in found for span in _at(r, "ranges").get("range") or ())


def _at(value: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """What is under these names; nothing where one is absent."""
    for name in names:
        value = value.get(name) or {}
    return value
