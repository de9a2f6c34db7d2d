"""Rules about a fault at every call of every verb: whatever goes wrong and where, repeating the verb ends where one run would have.

A verb is run first without a fault, then with the fault at its first call, its second, and so on until a call is not made any
more. Each time it ends rightly or with an error that says what the vendor said; the repeat ends rightly; what was made is there
once, and when it is taken away again nothing is left that was not there before.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from storage.errors import PlatformUnavailable, UnknownVolume
from storage.model import ExternalId
from storage.platforms.base import Attachment, CreateRequest, Platform, SnapshotReport, VolumeReport
from storage.platforms.contract.arena import Arena, refused
from storage.platforms.contract.attaching import BIRTH
from storage.platforms.faulting import STRANGERS, Fault, Faults

MOST_CALLS: Final = 100
"""A verb that makes more different calls than this goes round in circles."""


S = TypeVar("S")
A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb(Generic[S, A]):
    """A verb and what it is tried on."""

    prepare: Callable[[str], S]
    """Makes what the verb is run on; its argument is another one each time."""
    before: Callable[[Platform, S], object] = lambda here, subject: None
    """What the process that runs the verb has done before."""
    run: Callable[[Platform, S], A]
    check: Callable[[S, A], None]
    """Asserts that it was done, once and wholly."""
    undo: Callable[[S], object] = lambda subject: None
    """Takes away what is there for it."""


def at_every_call(arena: Arena, verb: Verb[S, A]) -> None:
    """The rule itself."""
    faults = arena.case.faults(arena.storage)
    kinds = [fault for fault in faults.kinds if fault not in STRANGERS]
    if not kinds:
        arena.leave_out("is tried with faults elsewhere, or has a peer that makes none")
    middle = _undisturbed(arena, verb, faults) // 2 + 1
    before = Counter(arena.things())
    for fault in kinds:
        for nth in itertools.count(middle if fault in faults.midway else 1):
            met = _meets(arena, verb, faults, fault, nth)
            left = Counter(arena.things())
            more, less = left - before, before - left
            assert not more + less, f"{fault.value} at call {nth}: left behind is {[*more]}, and missing is {[*less]}"
            assert met or nth > 1, f"{fault.value}: the verb makes no call that the peer sees"
            assert nth < MOST_CALLS, f"{fault.value}: the verb has made {nth} calls and does not end"
            if not met or fault is Fault.THROTTLED or fault in faults.midway:  # one run is throttled at every call
                break


def _undisturbed(arena: Arena, verb: Verb[S, A], faults: Faults) -> int:
    """Runs the verb once, and counts its calls."""
    subject = verb.prepare("undisturbed")
    verb.before(arena.here, subject)
    faults.heal()
    answer = verb.run(arena.here, subject)
    calls = faults.calls
    verb.check(subject, answer)
    verb.undo(subject)
    return calls


def _meets(arena: Arena, verb: Verb[S, A], faults: Faults, fault: Fault, nth: int) -> bool:
    """Runs the verb with the fault at its nth call, and again without; whether it has met the fault."""
    subject, answers = verb.prepare(f"{fault.name.lower()}-{nth}"), []
    try:
        answers.append(
            faults.attempt(arena.here, fault, nth, lambda here: verb.before(here, subject), lambda here: verb.run(here, subject))
        )
    except Exception as error:
        _make_sure_it_is_said(error, faults, fault, nth)
    met = faults.met
    if fault is Fault.DIED:
        arena.here.close()
    faults.heal()
    if fault is Fault.DIED:
        arena.restart()
    try:
        answers.append(verb.run(arena.here, subject))
        for answer in answers:
            verb.check(subject, answer)
        verb.undo(subject)
    except Exception as error:
        raise AssertionError(f"{fault.value} at call {nth}: {error}") from error
    return met


def _make_sure_it_is_said(error: Exception, faults: Faults, fault: Fault, nth: int) -> None:
    where, words = f"{fault.value} at call {nth}", faults.codes.get(fault, "")
    if not isinstance(error, PlatformUnavailable):
        raise AssertionError(f"{where}: {error!r} was raised, not PlatformUnavailable") from error
    if fault is Fault.THROTTLED:
        raise AssertionError(f"{where}, or after it: {error}") from error
    if words not in str(error):
        raise AssertionError(f"{where}: {words} is not in: {error}") from error


class InterruptedRules:
    def test_create_with_a_fault_at_every_call(self, arena: Arena) -> None:
        at_every_call(arena, _creating(arena))

    def test_copy_with_a_fault_at_every_call(self, arena: Arena) -> None:
        arena.needs("snapshots", "restores")
        volume = arena.created()
        arena.write(arena.attach(volume), b"kept")
        arena.detach(volume)
        snapshot = arena.here.snapshot(volume, token=arena.token("snap")).external_id
        at_every_call(arena, _creating(arena, snapshot=snapshot, data=b"kept"))

    def test_clone_with_a_fault_at_every_call(self, arena: Arena) -> None:
        arena.needs("clones")
        source = arena.created()
        arena.write(arena.attach(source), b"kept")
        arena.detach(source)
        at_every_call(arena, _creating(arena, source=source, data=b"kept"))

    def test_delete_with_a_fault_at_every_call(self, arena: Arena) -> None:
        def is_gone(volume: ExternalId, answer: None) -> None:
            with refused(UnknownVolume, "a deleted volume is unknown"):
                arena.there.inspect(volume)

        at_every_call(arena, Verb(prepare=arena.created, run=lambda here, volume: here.delete(volume), check=is_gone))

    def test_expand_with_a_fault_at_every_call(self, arena: Arena) -> None:
        arena.needs("expand_detached")
        wanted = 2 * arena.case.size_mib

        def has_grown(volume: ExternalId, answer: VolumeReport) -> None:
            sizes = {answer.size_mib, arena.there.inspect(volume).size_mib}
            assert sizes == {arena.here.capabilities.fit(wanted)}, f"the volume has {sizes} MiB"

        at_every_call(
            arena, Verb(prepare=arena.created, run=lambda here, volume: here.expand(volume, wanted), check=has_grown, undo=arena.delete)
        )

    def test_attach_with_a_fault_at_every_call(self, arena: Arena) -> None:
        volume = arena.created()
        arena.attach(volume)
        node = arena.there.inspect(volume).held_by
        arena.detach(volume)

        def is_held_once(volume: ExternalId, answer: Attachment) -> None:
            held = arena.there.inspect(volume).held_by
            assert len(held) == 1, f"it is held by {held}"
            assert arena.here.capabilities.held_by_process or held == node, f"it is held by {held}, not {node}"
            assert answer == arena.attach(volume), "attaching again gives another attachment"

        at_every_call(
            arena,
            Verb(
                prepare=lambda label: volume,
                run=lambda here, volume: here.attach(volume, arena.node, epoch=1),
                check=is_held_once,
                undo=arena.detach,
            ),
        )

    def test_detach_with_a_fault_at_every_call(self, arena: Arena) -> None:
        volume = arena.created()

        def is_free(volume: ExternalId, answer: None) -> None:
            assert arena.there.inspect(volume).held_by == (), "it is still held"

        at_every_call(
            arena,
            Verb(
                prepare=lambda label: volume,
                before=lambda here, volume: here.attach(volume, arena.node, epoch=1),
                run=lambda here, volume: here.detach(volume, arena.node),
                check=is_free,
            ),
        )

    def test_fence_with_a_fault_at_every_call(self, arena: Arena) -> None:
        arena.needs("fences")
        volume, epochs = arena.created(), itertools.count(2)

        def is_fenced(epoch: int, answer: str | None) -> None:
            assert answer, "a repeated fence is refused"
            assert arena.there.inspect(volume).epoch == epoch, "the epoch is another one"

        at_every_call(arena, Verb(prepare=lambda label: next(epochs), run=lambda here, epoch: here.fence(volume, epoch), check=is_fenced))

    def test_record_birth_with_a_fault_at_every_call(self, arena: Arena) -> None:
        arena.needs("marks")

        def is_recorded(volume: ExternalId, answer: None) -> None:
            assert arena.there.inspect(volume).birth == BIRTH, "the birth certificate is not there"

        at_every_call(
            arena,
            Verb(
                prepare=arena.created,
                run=lambda here, volume: here.record_birth(volume, BIRTH, epoch=1),
                check=is_recorded,
                undo=arena.delete,
            ),
        )

    def test_snapshot_with_a_fault_at_every_call(self, arena: Arena) -> None:
        arena.needs("snapshots")
        volume = arena.created()

        def is_there_once(token: str, answer: SnapshotReport) -> None:
            listed = [one for one in arena.snapshots() if one.token == token]
            assert listed == [answer], f"of its token there is {listed}, and it is {answer}"

        at_every_call(
            arena,
            Verb(
                prepare=lambda label: arena.token(f"s-{label}"),
                run=lambda here, token: here.snapshot(volume, token=token),
                check=is_there_once,
                undo=lambda token: arena.here.delete_snapshot(arena.here.snapshot(volume, token=token).external_id),
            ),
        )

    def test_delete_snapshot_with_a_fault_at_every_call(self, arena: Arena) -> None:
        arena.needs("snapshots")
        volume = arena.created()

        def is_gone(snapshot: ExternalId, answer: None) -> None:
            assert snapshot not in {one.external_id for one in arena.snapshots()}, "a deleted snapshot is listed"

        at_every_call(
            arena,
            Verb(
                prepare=lambda label: arena.here.snapshot(volume, token=arena.token(f"s-{label}")).external_id,
                run=lambda here, snapshot: here.delete_snapshot(snapshot),
                check=is_gone,
            ),
        )

    def test_looks_with_a_fault_at_every_call(self, arena: Arena) -> None:
        """By an adapter that was started just now, so that it has to sign in first."""
        volume = arena.created()

        def look(here: Platform) -> object:
            found = (here.inspect(volume), here.find(arena.token("volume")), here.volumes(), [pool.name for pool in here.pools()])
            return (*found, here.snapshots()) if here.capabilities.snapshots else found

        at_every_call(arena, _looking(arena, look))

    def test_looks_at_nodes_with_a_fault_at_every_call(self, arena: Arena) -> None:
        able = arena.here.capabilities
        if not (able.sees_nodes or able.counts_slots):
            arena.leave_out("sees no nodes")

        def look(here: Platform) -> object:
            stopped = [here.node_stopped(node) for node in arena.case.nodes] if able.sees_nodes else []
            return (stopped, here.node_slots(arena.node)) if able.counts_slots else stopped

        at_every_call(arena, _looking(arena, look))


def _looking(arena: Arena, look: Callable[[Platform], object]) -> Verb[None, object]:
    seen = look(arena.there)

    def is_the_same(subject: None, answer: object) -> None:
        assert answer == seen, f"it sees {answer}, and there is {seen}"

    return Verb(prepare=lambda label: arena.restart(), run=lambda here, subject: look(here), check=is_the_same)


def _creating(
    arena: Arena, *, snapshot: ExternalId | None = None, source: ExternalId | None = None, data: bytes = b""
) -> Verb[CreateRequest, VolumeReport]:
    def is_there_once(request: CreateRequest, answer: VolumeReport) -> None:
        listed = [volume.external_id for volume in arena.volumes() if volume.token == request.token]
        assert listed == [answer.external_id], f"its token has made {listed}"
        found = arena.there.find(request.token)
        assert found, "no volume is found by its token"
        assert (found.external_id, found.size_mib) == (answer.external_id, answer.size_mib), "another volume is found by its token"
        if data:
            assert arena.holds(arena.attach(answer.external_id), data), "it does not hold what its origin held"
            arena.detach(answer.external_id)

    def delete(request: CreateRequest) -> None:
        if made := arena.here.find(request.token):
            arena.here.delete(made.external_id)

    return Verb(
        prepare=lambda label: arena.request(label, snapshot=snapshot, source=source),
        run=lambda here, request: here.create(request),
        check=is_there_once,
        undo=delete,
    )
