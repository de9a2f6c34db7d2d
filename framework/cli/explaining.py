"""Why instances wait, in lines for people: each reason once, with how many instances wait for it and which."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final

from framework.cli.words import count, moment, span
from framework.marathon.problems import HeldApp
from framework.service import Explanation, WaitingInstance

POOLS_WANTING: Final = frozenset({"NO_POOL", "POOL_OFFLINE", "POOL_FULL"})
MOST_GROUPS: Final = 10
"""Reasons that are shown of one app."""
MOST_RANGES: Final = 8
"""Runs of instance numbers that are named of one reason."""
_OWN = re.compile(r"#\d+\b|\bpid \d+\b|\b[\w-]*[0-9a-f]{8,}[\w-]*\b(\._app\.\d+)?")
"""What the words of two instances with the same reason differ in: their numbers, and the ids of tasks, claims, volumes and processes."""

Group = Sequence[WaitingInstance]
"""Instances of one app that wait for the same reason, by number; never empty."""


def summary(whys: Sequence[Explanation]) -> str:
    """What stands above the explanations of several apps."""
    waiting, slow = sum(len(why.waiting) for why in whys), sum(len(why.slow) for why in whys)
    held = sum(bool(why.held) for why in whys)
    late = sum(bool(why.slow) for why in whys)
    more = f" {count(slow, 'task')} of {count(late, 'app')} {'takes' if slow == 1 else 'take'} long to start or to end." if slow else ""
    more += f" {count(held, 'app')} held." if held else ""
    if not waiting:
        return f"No instance waits.{more}"
    return f"{count(waiting, 'instance')} of {count(sum(bool(why.waiting) for why in whys), 'app')} waiting.{more}"


def explanation_lines(why: Explanation, now: float) -> list[str]:
    state = "being deleted" if why.deleting else f"{why.running} of {count(why.instances, 'instance')} running, {why.staging} starting"
    lines = [f"{why.app_id}: {state}, {len(why.waiting)} waiting."]
    if why.held:
        held = HeldApp(app=why.app_id, reason=why.held)
        lines += [f"  {held}", f"  {held.advice}"]
    groups = alike(why.waiting, now) + alike(why.slow, now)
    for group in groups[:MOST_GROUPS]:
        lines += ["", *_group_lines(why.app_id, group, now)]
    if left := groups[MOST_GROUPS:]:
        number = count(sum(map(len, left)), "instance")
        lines += ["", f"{number} more, for {count(len(left), 'other reason')}: polly explain {why.app_id} -o json has all."]
    return lines


def alike(waiting: Sequence[WaitingInstance], now: float) -> list[Group]:
    """The instances by their reasons, the reason of most first."""
    found: dict[Hashable, list[WaitingInstance]] = {}
    for instance in waiting:
        found.setdefault(_reason(instance, now), []).append(instance)
    return sorted(found.values(), key=lambda group: (-len(group), group[0].slot))


def _reason(instance: WaitingInstance, now: float) -> Hashable:
    words = (instance.last_message, instance.blocked, *instance.remedies)
    refused = tuple((refusal.reason, refusal.count) for refusal in instance.refusals)
    holds = tuple((hold.state, hold.hostname) for hold in instance.holds)
    return tuple(_OWN.sub("#", text) for text in words), holds, refused, instance.phase, instance.next_try_at > now, instance.failures > 0


def _group_lines(app_id: str, group: Group, now: float) -> Iterator[str]:
    first, many = group[0], len(group) > 1
    yield (
        f"{len(group)} instances ({slots(group)}) have {_done(group, now)}." if many else f"{app_id}#{first.slot} has {_done(group, now)}."
    )
    which = f" (here of #{first.slot})" if many and _differ(group) else ""
    if first.last_message:
        yield f"  Its {'' if first.phase else 'last '}task: {first.last_message}{which}"
    if first.failures:
        times = _range(group, lambda instance: instance.failures)
        yield f"  {'Each' if many else 'It'} has failed {'once' if times == '1' else f'{times} times in a row'}."
    if first.next_try_at > now:
        until = _span(group, lambda instance: instance.next_try_at - now)
        earliest = min(instance.next_try_at for instance in group)
        yield f"  Held back after failures; next try in {until}, at {moment(earliest)}."
    if first.blocked:
        yield f"  {first.blocked}{which}"
    yield from dict.fromkeys(_hold_lines(group, now))
    yield from _remedy_lines(first, which)
    yield from _refusal_lines(first)
    if not (first.refusals or first.blocked or first.phase or first.next_try_at > now):
        yield "  No offer has come yet; polly offers shows what Mesos has offered, polly doctor whether Mesos is reached."


def _done(group: Group, now: float) -> str:
    spent = _span(group, lambda instance: now - instance.since)
    if group[0].phase:
        return f"been {group[0].phase} for {spent}"
    seen = _range(group, lambda instance: instance.offers_seen)
    return f"waited for {spent} and seen {seen} {'offer' if seen == '1' else 'offers'}"


def _hold_lines(group: Group, now: float) -> Iterator[str]:
    """Since when, and where, the volumes of these instances are as they are."""
    for at, hold in enumerate(group[0].holds):
        since = [instance.holds[at].since for instance in group]
        where = f" on agent {hold.hostname} ({hold.node})" if hold.hostname else ""
        if all(since):
            spent = _least_to_most(*(span(now - one) for one in (max(since), min(since))))
            yield f"  {hold.state}{where} for {spent}, since {moment(min(since))}."


def _remedy_lines(first: WaitingInstance, which: str) -> Iterator[str]:
    if first.remedies:
        yield f"  What you can do{which}:"
        yield from (f"    {way_out}" for way_out in first.remedies)
        for state in sorted({hold.state.lower() for hold in first.holds if hold.claim_id}) if which else ():
            yield f"  The others' claims are in: polly claim list --state {state}"


def _refusal_lines(first: WaitingInstance) -> Iterator[str]:
    if first.refusals:
        yield f"  Of the latest {'offer' if first.offers_refused == 1 else f'{first.offers_refused} offers'}:"
    for refusal in first.refusals:
        example = f"; for example, {refusal.example}" if refusal.example else ""
        fits = "would fit, " if refusal.words.startswith("but ") else ""
        yield f"    {refusal.count} {fits}{refusal.words}{example}"
    if any(refusal.reason in POOLS_WANTING for refusal in first.refusals):
        yield "  polly inventory shows the pools and their room, polly doctor why a platform cannot be read."


def slots(group: Group) -> str:
    """`#0 to #36, #39`."""
    runs: list[list[int]] = []
    for slot in sorted(instance.slot for instance in group):
        if runs and slot == runs[-1][-1] + 1:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    shown = [f"#{run[0]} to #{run[-1]}" if len(run) > 1 else f"#{run[0]}" for run in runs[:MOST_RANGES]]
    left = sum(map(len, runs[MOST_RANGES:]))
    return ", ".join(shown) + (f" and {left} more" if left else "")


def _differ(group: Group) -> bool:
    """Whether the words of the first say less than all of what is to be said of the others."""
    return len({(instance.last_message, instance.blocked, instance.remedies) for instance in group}) > 1


def _range(group: Group, of: Callable[[WaitingInstance], int]) -> str:
    return _least_to_most(str(min(map(of, group))), str(max(map(of, group))))


def _span(group: Group, of: Callable[[WaitingInstance], float]) -> str:
    return _least_to_most(span(min(map(of, group))), span(max(map(of, group))))


def _least_to_most(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
