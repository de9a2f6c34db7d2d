"""Rules about answers that are not the platform's: whoever else is where it should be says nothing of it, and proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from storage.errors import PlatformUnavailable
from storage.model import ExternalId
from storage.platforms.contract.arena import Arena, refused
from storage.platforms.contract.attaching import BIRTH
from storage.platforms.faulting import STRANGERS, Fault


class StrangerRules:
    def test_what_somebody_else_answers_says_nothing(self, arena: Arena) -> None:
        """A page instead of an answer: a volume is not gone, a node not stopped, nothing done. What changes something is not tried with an
        answer that has nothing in it, as some APIs say no more when it is done."""
        faults = arena.case.faults(arena.storage)
        strangers = [fault for fault in STRANGERS if fault in faults.kinds]
        if not strangers:
            arena.leave_out("is tried with strangers elsewhere, or has a peer that nobody can stand before")
        volume = arena.created()
        arena.attach(volume)
        before = arena.there.inspect(volume)
        for fault in strangers:
            verbs = _looks(arena, volume) if fault in (Fault.SILENCE, Fault.EMPTY) else {**_looks(arena, volume), **_changes(arena, volume)}
            for verb, run in verbs.items():
                arena.here.inspect(volume)  # which signs in
                faults.arrange(fault, 1)
                with refused(PlatformUnavailable, f"{verb}, and {fault.value}"):
                    run()
                faults.heal()
        assert arena.there.inspect(volume) == before, "something was done"


Verbs = Mapping[str, Callable[[], object]]


def _looks(arena: Arena, volume: ExternalId) -> Verbs:
    here, able = arena.here, arena.here.capabilities
    verbs: dict[str, Callable[[], object]] = {
        "inspect": lambda: here.inspect(volume),
        "find": lambda: here.find(arena.token("volume")),
        "pools": here.pools,
        "volumes": here.volumes,
    }
    if able.snapshots:
        verbs["snapshots"] = here.snapshots
    if able.sees_nodes:
        verbs["node_stopped"] = lambda: here.node_stopped(arena.node)
    if able.counts_slots:
        verbs["node_slots"] = lambda: here.node_slots(arena.node)
    if able.fences:
        verbs["fence"] = lambda: here.fence(volume, 2)
    return verbs


def _changes(arena: Arena, volume: ExternalId) -> Verbs:
    here, able = arena.here, arena.here.capabilities
    verbs: dict[str, Callable[[], object]] = {
        "create": lambda: arena.created("another"),
        "attach": lambda: arena.attach(volume),
        "detach": lambda: arena.detach(volume),
        "delete": lambda: here.delete(volume),
    }
    if able.marks:
        verbs["record_birth"] = lambda: here.record_birth(volume, BIRTH, epoch=1)
    if able.snapshots:
        verbs["snapshot"] = lambda: here.snapshot(volume, token=arena.token("snap"))
    if able.expand_attached or able.expand_detached:
        verbs["expand"] = lambda: here.expand(volume, 2 * arena.case.size_mib)
    return verbs
