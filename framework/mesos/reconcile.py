"""Which tasks Mesos is asked about, and when: explicit reconciliation with back-off, implicit once in a while. Knows no driver.

Mesos promises no answer to a question asked while an agent re-registers, so a task is asked about again, ever less
often, until it is answered. An update is no answer: it may be older than the question, and of a task that is lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

FIRST_S = 2.0
LAST_S = 300.0
IMPLICIT_S = 900.0
BATCH = 1000
"""Tasks in one RECONCILE call."""


class _Question(Struct, gc=False):
    agent_id: str
    due_at: float
    wait_s: float = FIRST_S
    is_watch: bool = False
    """Whatever is heard of the task is enough."""


class Reconciler:
    """Instants are of the clock whose readings the caller passes in, in seconds."""

    def __init__(self) -> None:
        self._open: dict[str, _Question] = {}
        self._implicit_at: float | None = None

    def ask_about(self, tasks: Iterable[tuple[str, str]], now: float) -> None:
        """Begins (or begins anew) to ask about (task id, agent id) pairs."""
        for task_id, agent_id in tasks:
            self._open[task_id] = _Question(agent_id, now)

    def watch(self, launched: Iterable[tuple[str, str]], until: float) -> None:
        """Asks about new tasks, (task id, agent id) pairs, unless something is heard of them before `until`."""
        for task_id, agent_id in launched:
            self._open[task_id] = _Question(agent_id, until, is_watch=True)

    def heard(self, task_id: str) -> None:
        """An update came, which nobody may have asked for."""
        if (question := self._open.get(task_id)) and question.is_watch:
            del self._open[task_id]

    def answered(self, task_id: str) -> None:
        """The master has answered, or the task is over."""
        self._open.pop(task_id, None)

    def subscribed(self, now: float) -> None:
        """After each subscription an implicit reconciliation is due at once."""
        self._implicit_at = now

    def due(self, now: float) -> list[list[tuple[str, str]]]:
        """The RECONCILE calls to make now, each a list of (task id, agent id); an empty list is the implicit one."""
        calls: list[list[tuple[str, str]]] = []
        if self._implicit_at is not None and now >= self._implicit_at:
            self._implicit_at = now + IMPLICIT_S
            calls.append([])
        pairs = []
        for task_id, question in self._open.items():
            if question.due_at <= now:
                question.due_at = now + question.wait_s
                question.wait_s = min(LAST_S, question.wait_s * 2)
                pairs.append((task_id, question.agent_id))
        calls.extend(pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH))
        return calls

    def next_at(self) -> float | None:
        """When `due` will next have something, or None."""
        instants = [question.due_at for question in self._open.values()]
        if self._implicit_at is not None:
            instants.append(self._implicit_at)
        return min(instants, default=None)
