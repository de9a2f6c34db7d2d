"""One broker's turn at a volume, from before its platform is asked until what came of it is stored.

A turn ends early where PostgreSQL ends its session, as by a restart, and another broker may take it at once. Who has lost it asks the
platform for nothing more and stores nothing: neither a result nor a refusal, which might give back what the other is just deleting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import TurnLost, WorkedOnElsewhere
from storage.inventory import Ledger, Transaction, Turn


class InTurn:
    """To be taken in a worker; its end is the broker thread's."""

    def __init__(self, ledger: Ledger, subject: str, what: str) -> None:
        """`what` is the subject in words; without any no turn is needed."""
        self._ledger, self._subject, self._what = ledger, subject, what
        self._turn: Turn | None = None

    def take(self) -> None:
        """Raises WorkedOnElsewhere while another broker has it, LedgerUnavailable."""
        if self._what:
            self._turn = self._ledger.take_turn(self._subject)
            if self._turn is None:
                raise WorkedOnElsewhere(what=self._what)

    def check(self) -> None:
        """Just before a platform is asked to change something. Raises TurnLost."""
        if self._turn is not None and not self._turn.is_held():
            raise TurnLost(what=self._what)

    @contextmanager
    def begin(self, actor: str) -> Iterator[Transaction]:
        """A transaction for what came of the call. Raises TurnLost, and what Ledger.begin raises.

        It has its connection when the turn is looked at: a server that restarts afterwards ends it as well.
        """
        with self._ledger.begin(actor) as tx:
            self.check()
            yield tx

    def end(self) -> None:
        if self._turn is not None:
            self._turn.end()
