"""`polly broker --restored`: what a ledger from a backup does not know is learnt from the platforms, before anything is placed.

After the backup volumes were made, formatted and claimed. Such a ledger would take them for unborn, or miss them, and begin with empty
ones in their place. Nothing is deleted here, and nothing that is taken over is ever formatted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from framework.deleting import is_born
from storage.errors import LedgerUnavailable, PollyError
from storage.filters import VolumeFilter
from storage.inventory import Ledger, Transaction
from storage.model import Volume, VolumeId
from storage.platforms.base import Platform, VolumeReport

logger = logging.getLogger(__name__)

ACTOR: Final = "broker"
PAGE: Final = 1000
MOST_NAMED: Final = 10
"""So many of those that are refused are named in the error."""
OWN: Final = re.compile(r"(/.+)#[0-9]+/.+")
"""The name of an app's own volume: the app, the instance, the containerPath."""


class NotRecalled(PollyError):
    """The broker does not start, for the restored ledger refuses {count} that the platforms have: {which}."""

    hint = (
        "Mend what each says and start with --restored again; all others are learnt. Started without it, an app that wants one of these"
        " begins with a new, empty volume in its place."
    )


def catch_up(ledger: Ledger, platforms: Mapping[str, Platform], ids: Callable[[], str]) -> None:
    """Raises what a platform raises that cannot be listed: then nothing is known of it, and nothing may be placed.

    One that the ledger refuses keeps none of the others from being learnt. Raises NotRecalled after them, for its app would begin with
    an empty one in its place.
    """
    refused: list[str] = []
    for name, platform in platforms.items():
        known = _Known(ledger, name)
        for report in _listed(platform):
            if report.token or known.has(report):
                refused += _refusal(ledger, known, platform, report, ids)
        logger.info("restored %s was looked at; what was learnt is in: polly events", name)
    if refused:
        more = [f"and {len(refused) - MOST_NAMED} more, which the log names"] if len(refused) > MOST_NAMED else []
        number = "1 volume" if len(refused) == 1 else f"{len(refused)} volumes"
        raise NotRecalled(count=number, which="; ".join([*refused[:MOST_NAMED], *more]))


def _refusal(ledger: Ledger, known: _Known, platform: Platform, report: VolumeReport, ids: Callable[[], str]) -> Iterator[str]:
    """Learns from one report; why the ledger refuses that, if it does."""
    try:
        with ledger.begin(ACTOR) as tx:
            learnt = _learn(tx, known, platform, report, ids)
    except LedgerUnavailable:
        raise
    except PollyError as error:
        named = f" ({report.name})" if report.name else ""
        words = f"{report.external_id} of {platform.name}{named}: {str(error).removesuffix('.')}"
        logger.error("restored %s", words)
        yield words
    else:
        if learnt:
            level, words = learnt
            logger.log(level, "%s", words)


class _Known:
    """What the ledger has of one platform."""

    def __init__(self, ledger: Ledger, platform: str) -> None:
        volumes = list(_volumes(ledger, platform))
        self._by_id = {volume.external_id: volume for volume in volumes if volume.external_id}
        self._by_token = {volume.token: volume for volume in volumes if volume.token}
        self._doomed = {orphan.token for orphan in ledger.orphans() if orphan.platform == platform}
        self._ledger = ledger

    def has(self, report: VolumeReport) -> Volume | None:
        return self._by_id.get(report.external_id) or self._by_token.get(report.token)

    def named(self, report: VolumeReport) -> Volume | None:
        return self._ledger.volumes_named([report.name]).get(report.name) if report.name else None

    def is_doomed(self, report: VolumeReport) -> bool:
        """It is an orphan already: no claim that could have given birth to it was left."""
        return report.token in self._doomed


def _learn(tx: Transaction, known: _Known, platform: Platform, report: VolumeReport, ids: Callable[[], str]) -> tuple[int, str] | None:
    """What is to be logged of it once it is stored."""
    what = f"{report.external_id} of {platform.name}"
    volume = known.has(report)
    may_hold_data = is_born(report) or not platform.capabilities.marks
    if volume is not None and not volume.unborn:
        tx.recall(volume.volume_id, external_id=report.external_id, epoch=report.epoch, birth=None)
        return None
    if not may_hold_data or (known.is_doomed(report) and not is_born(report)):
        return logging.INFO, f"restored {what}: {_why_not(report)}"
    if volume is not None or ((volume := known.named(report)) is not None and volume.unborn and volume.external_id is None):
        tx.recall(volume.volume_id, external_id=report.external_id, epoch=report.epoch, birth=report.birth)
        return logging.WARNING, f"restored volume {volume.name} is {what}, and may hold data: it is never formatted"
    if report.name and volume is None:
        tx.adopt(_missing(platform, report, VolumeId(ids())))
        return logging.WARNING, f"restored volume {report.name} was missing: it is {what}"
    command = f"polly volume import {report.external_id} --platform {platform.name} --name NAME --profile PROFILE"
    return logging.WARNING, f"restored {what} bears a token of Polly's, and nobody knows whose it is: {command}"


def _why_not(report: VolumeReport) -> str:
    if report.birth is not None:
        return f"it is a copy, and bears no birth certificate but that of {report.birth.serial}; it is left as it is"
    return "no task ever used it"


def _missing(platform: Platform, report: VolumeReport, volume_id: VolumeId) -> Volume:
    owner = OWN.fullmatch(report.name)
    return Volume(
        volume_id=volume_id,
        name=report.name,
        platform=platform.name,
        pool=report.pool,
        size_mib=report.size_mib,
        external_id=report.external_id,
        token=report.token,
        epoch=report.epoch,
        filesystem=report.birth.filesystem if report.birth else "ext4",
        birth=report.birth,
        owner=owner[1] if owner else "",
        zone=report.zone,
        labels=report.labels,
    )


def _listed(platform: Platform) -> Iterator[VolumeReport]:
    after: str | None = None
    while True:
        page = platform.volumes(after=after, limit=PAGE)
        yield from page.items
        if (after := page.after) is None:
            return


def _volumes(ledger: Ledger, platform: str) -> Iterator[Volume]:
    after: str | None = None
    while True:
        page = ledger.volumes(VolumeFilter(platform=platform), after=after, limit=PAGE)
        yield from page.items
        if (after := page.after) is None:
            return
