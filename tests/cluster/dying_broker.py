"""A broker that kills itself with SIGKILL at a named point, for the tests: `python -m tests.cluster.dying_broker POINT broker ...`.

A point is WHEN:WHAT[:N], the N-th time (1 unless given) that it is passed; `stop ` before it stops the broker (SIGSTOP) instead:

* `before:place` and `after:place`: the commit in which claims are reserved; likewise `advance`, `created`, `born`, `free`,
  `put_workload`, `deleting`, `deleted`: the commit in which the ledger's transaction did that; or a claim's state, such as `RELEASING`:
  the commit in which a claim went there;
* `before:ACCEPT`, `after:ACCEPT`: the call to Mesos; likewise ACKNOWLEDGE, MESSAGE, DECLINE, RECONCILE, KILL;
* `before:shelf.attach`, `after:shelf.attach`: the call to a platform of tests/cluster/loopshelf.py; likewise create, detach, record_birth
  and delete; likewise `ec2.attach_volume`: the call to EC2, whose answer nobody reads after it.

The program under test has no such points itself: they are put around its ledger's transactions and its driver's channel.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from framework.mesos.channel import Call, CallChannel
from storage.inventory import Ledger, Transaction
from storage.lifecycle import ClaimState
from tests.cluster.loopshelf import LoopShelf

VERBS = {
    "place": "place_parts",
    **{verb: verb for verb in ("advance", "created", "born", "free", "put_workload")},
    "deleting": "deleting_all",
    "deleted": "deleted_all",
}
"""What a point is called, and the transaction's method."""
SHELF_VERBS = ("create", "attach", "detach", "record_birth", "delete")


class Trap:
    def __init__(self, point: str) -> None:
        self.how = signal.SIGSTOP if point.startswith("stop ") else signal.SIGKILL
        self.when, self.what, *number = point.removeprefix("stop ").split(":")
        self.left = int(number[0]) if number else 1

    def passing(self, when: str, what: str) -> None:
        if (when, what) == (self.when, self.what):
            self.left -= 1
            if self.left == 0:
                signal.pthread_kill(threading.get_ident(), self.how)  # this very thread, so that it goes no further


def arm(trap: Trap) -> None:
    done: set[str] = set()

    def noting(verb: str, method: str) -> Any:
        original = getattr(Transaction, method)

        def call(self: Transaction, *arguments: Any, **options: Any) -> Any:
            done.update({verb, *(str(it) for it in arguments if isinstance(it, ClaimState))})
            return original(self, *arguments, **options)

        return call

    for verb, method in VERBS.items():
        setattr(Transaction, method, noting(verb, method))
    begin = Ledger.begin

    @contextlib.contextmanager
    def trapped(self: Ledger, actor: str, *, now: float | None = None) -> Iterator[Transaction]:
        done.clear()
        with begin(self, actor, now=now) as tx:
            yield tx
            for verb in done:
                trap.passing("before", verb)
        for verb in done:
            trap.passing("after", verb)

    Ledger.begin = trapped  # type: ignore[method-assign]  # for this test
    send = CallChannel.send

    def sending(self: CallChannel, calls: Sequence[Call]) -> Any:
        for call in calls:
            trap.passing("before", call.name)
        answer = send(self, calls)
        for call in calls:
            trap.passing("after", call.name)
        return answer

    CallChannel.send = sending  # type: ignore[method-assign]  # for this test
    for verb in SHELF_VERBS:
        setattr(LoopShelf, verb, _trapped(trap, verb))
    if trap.what.startswith("ec2."):
        _arm_ec2(trap)


def _arm_ec2(trap: Trap) -> None:
    """The SDK is imported only where a test needs it."""
    from storage.platforms.ebs.client import Client

    call = Client._call

    def asking(self: Client, action: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        trap.passing("before", f"ec2.{action}")
        answer = call(self, action, asked)
        trap.passing("after", f"ec2.{action}")
        return answer

    Client._call = asking  # type: ignore[method-assign]  # for this test


def _trapped(trap: Trap, verb: str) -> Any:
    original = getattr(LoopShelf, verb)

    def call(self: LoopShelf, *arguments: Any, **options: Any) -> Any:
        trap.passing("before", f"shelf.{verb}")
        answer = original(self, *arguments, **options)
        trap.passing("after", f"shelf.{verb}")
        return answer

    return call


if __name__ == "__main__":
    arm(Trap(sys.argv[1]))
    from framework.cli import main

    sys.argv = ["polly", *sys.argv[2:]]
    main()
