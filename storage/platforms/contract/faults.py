"""Rules about restarts, what is not declared, what must not leak, and the check; faults in the middle of a verb are in interrupted.py."""

from __future__ import annotations

from storage.errors import Unsupported
from storage.platforms.contract.arena import Arena, refused
from storage.platforms.contract.attaching import BIRTH


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
