"""Rules about what goes wrong on the way: lost replies, restarts, throttling, credentials that end, and what must not leak.

Whoever has lost a reply repeats the call, in the same process or in a new one, and both must end where one call would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from storage.errors import PlatformUnavailable, UnknownVolume, Unsupported
from storage.model import ExternalId
from storage.platforms.contract.arena import Arena, refused
from storage.platforms.contract.attaching import BIRTH


class LostReplyRules:
    def test_lost_reply_of_create(self, arena: Arena) -> None:
        for how in arena.repeats():
            request = arena.request(how)
            arena.lose("create", request)
            arena.again(how)
            made = arena.here.create(request)
            assert sum(volume.token == request.token for volume in arena.volumes()) == 1, "a lost reply of create made a second volume"
            assert arena.here.find(request.token) == made, "the volume of a lost reply is not the one that is found"

    def test_lost_reply_of_a_clone(self, arena: Arena) -> None:
        arena.needs("clones")
        source = arena.created("source")
        for how in arena.repeats():
            request = arena.request(how, source=source)
            arena.lose("clone", request)
            arena.again(how)
            made = arena.here.create(request)
            there = [volume.external_id for volume in arena.volumes() if volume.token == request.token]
            assert there == [made.external_id], "a lost reply of a clone made a second one"

    def test_lost_reply_of_attach(self, arena: Arena) -> None:
        for how in arena.repeats():
            volume = arena.created(how)
            arena.lose("attach", volume, arena.node, epoch=1)
            arena.again(how)
            attachment = arena.attach(volume)
            arena.write(attachment, b"here")
            assert len(arena.here.inspect(volume).held_by) == 1, "a lost reply of attach attached twice"

    def test_lost_reply_of_detach(self, arena: Arena) -> None:
        for how in arena.repeats():
            volume = arena.created(how)
            arena.attach(volume)
            arena.lose("detach", volume, arena.node)
            arena.again(how)
            arena.detach(volume)
            arena.there.attach(volume, arena.elsewhere, epoch=2)

    def test_lost_reply_of_delete(self, arena: Arena) -> None:
        for how in arena.repeats():
            volume = arena.created(how)
            arena.lose("delete", volume)
            arena.again(how)
            arena.here.delete(volume)
            with refused(UnknownVolume, "a volume whose delete was repeated is unknown"):
                arena.here.inspect(volume)

    def test_lost_reply_of_expand(self, arena: Arena) -> None:
        arena.needs("expand_detached")
        for how in arena.repeats():
            volume, wanted = arena.created(how), 2 * arena.case.size_mib
            arena.lose("expand", volume, wanted)
            arena.again(how)
            assert arena.here.expand(volume, wanted).size_mib == arena.here.capabilities.fit(wanted), "a repeated expand grew too far"

    def test_lost_reply_of_snapshot(self, arena: Arena) -> None:
        arena.needs("snapshots")
        for how in arena.repeats():
            volume = arena.created(how)
            arena.lose("snapshot", volume, token=arena.token(f"snap-{how}"))
            arena.again(how)
            made = arena.here.snapshot(volume, token=arena.token(f"snap-{how}"))
            listed = [one.external_id for one in arena.here.snapshots().items if one.volume == volume]
            assert listed == [made.external_id], "a lost reply of snapshot made a second one"

    def test_lost_reply_of_delete_snapshot(self, arena: Arena) -> None:
        arena.needs("snapshots")
        for how in arena.repeats():
            volume = arena.created(how)
            snapshot = arena.here.snapshot(volume, token=arena.token(f"snap-{how}")).external_id
            arena.lose("delete_snapshot", snapshot)
            arena.again(how)
            arena.here.delete_snapshot(snapshot)
            arena.here.delete(volume)
            assert arena.here.find(arena.token(how)) is None, "a volume whose snapshot is gone was not deleted"

    def test_lost_reply_of_fence(self, arena: Arena) -> None:
        arena.needs("fences")
        for how in arena.repeats():
            volume = arena.created(how)
            arena.lose("fence", volume, 4)
            arena.again(how)
            assert arena.here.fence(volume, 4), "a repeated fence was refused"
            assert arena.here.inspect(volume).epoch == 4, "a repeated fence changed the epoch"

    def test_lost_reply_of_record_birth(self, arena: Arena) -> None:
        arena.needs("marks")
        for how in arena.repeats():
            volume = arena.created(how)
            arena.attach(volume)
            arena.lose("record_birth", volume, BIRTH, epoch=1)
            arena.again(how)
            arena.here.record_birth(volume, BIRTH, epoch=1)
            assert arena.here.inspect(volume).birth == BIRTH, "the birth certificate of a lost reply is not there"


class RestartRules:
    def test_restart_in_the_middle_loses_nothing(self, arena: Arena) -> None:
        volume = arena.created()
        arena.restart()
        assert arena.created() == volume, "a restarted creator made another volume"
        arena.write(arena.attach(volume, epoch=1), b"kept")
        arena.restart()
        assert arena.holds(arena.attach(volume, epoch=1), b"kept"), "a restart lost data"
        arena.restart()
        arena.detach(volume)
        assert arena.holds(arena.there.attach(volume, arena.elsewhere, epoch=2), b"kept"), "a restart kept others from the volume"

    def test_close_twice_is_fine(self, arena: Arena) -> None:
        volume = arena.created()
        arena.here.close()
        arena.here.close()
        assert arena.there.inspect(volume).external_id == volume, "closing one adapter closed another"


class ServiceRules:
    def test_throttled_calls_succeed_in_the_end(self, arena: Arena) -> None:
        volume = arena.created()
        for call in _one_call_of_each_verb(arena, volume):
            if (throttled := arena.case.throttling(arena.storage)) is None:
                arena.leave_out("is not throttled")
            with throttled:
                call()
        assert arena.here.find(arena.token("volume")) is None, "a throttled delete was not done"

    def test_expired_credentials_are_said_and_survived(self, arena: Arena) -> None:
        volume = arena.created()
        if (expired := arena.case.expiring(arena.storage)) is None:
            arena.leave_out("has no credentials that expire")
        with expired, refused(PlatformUnavailable, "expired credentials are reported"):
            arena.here.inspect(volume)
        assert arena.here.inspect(volume).external_id == volume, "an adapter did not recover from expired credentials"

    def test_undeclared_verbs_are_refused(self, arena: Arena) -> None:
        able, volume = arena.here.capabilities, arena.created()
        verbs = (
            (able.snapshots, lambda: arena.here.snapshot(volume, token=arena.token("snap"))),
            (able.fences, lambda: arena.here.fence(volume, 1)),
            (able.marks, lambda: arena.here.record_birth(volume, BIRTH, epoch=1)),
            (able.sees_nodes, lambda: arena.here.node_stopped(arena.node)),
            (able.counts_slots, lambda: arena.here.node_slots(arena.node)),
            (able.expand_detached or able.expand_attached, lambda: arena.here.expand(volume, 2 * arena.case.size_mib)),
        )
        for declared, call in verbs:
            if not declared:
                with refused(Unsupported, "a verb that is not declared is refused"):
                    call()

    def test_settings_are_text_without_secrets(self, arena: Arena) -> None:
        settings = arena.here.settings()
        assert all(isinstance(text, str) for pair in settings.items() for text in pair), "settings are not all text"
        leaks = [key for key, value in settings.items() for secret in arena.case.secrets if secret in value]
        assert not leaks, f"settings that travel to agents hold secrets: {', '.join(leaks)}"

    def test_check_finds_a_healthy_platform_healthy(self, arena: Arena) -> None:
        findings = arena.here.check()
        assert findings, "the check says nothing"
        assert not [finding.message for finding in findings if not finding.ok], "the check finds fault with a platform that works"
        assert all(finding.subject and finding.message for finding in findings), "a finding says nothing"


def _one_call_of_each_verb(arena: Arena, volume: ExternalId) -> Iterator[Callable[[], object]]:
    """The life of a volume, verb by verb, as far as the adapter declares them; the volume is gone at the end."""
    able, here = arena.here.capabilities, arena.here
    yield from (here.pools, here.volumes, lambda: here.inspect(volume), lambda: here.find(arena.token("volume")))
    yield lambda: arena.create("throttled")
    yield lambda: arena.attach(volume)
    if able.marks:
        yield lambda: here.record_birth(volume, BIRTH, epoch=1)
    yield lambda: arena.detach(volume)
    if able.fences:
        yield lambda: here.fence(volume, 2)
    if able.sees_nodes:
        yield lambda: here.node_stopped(arena.node)
    if able.counts_slots:
        yield lambda: here.node_slots(arena.node)
    if able.clones:
        yield lambda: arena.clone(volume)
    if able.expand_detached:
        yield lambda: here.expand(volume, 2 * arena.case.size_mib)
    if able.snapshots:
        yield lambda: here.snapshot(volume, token=arena.token("snap"))
        yield here.snapshots
        yield lambda: here.delete_snapshot(here.snapshot(volume, token=arena.token("snap")).external_id)
    yield lambda: here.delete(volume)
