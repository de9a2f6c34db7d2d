"""Jobs outside the broker's thread: one at a time for a key, one platform apart from the others, every error one of Polly's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue

import pytest

from framework.workers import IN_A_ROW, Outcome, Workers
from storage.errors import AdapterFault, UnknownVolume

Posted = SimpleQueue[Callable[[], None]]


@pytest.fixture
def posted() -> Posted:
    return SimpleQueue()


@pytest.fixture
def workers(posted: Posted) -> Iterator[Workers]:
    made = Workers(posted.put, threads=1)
    yield made
    made.close()


def test_jobs_of_one_key_run_in_order_and_answer_in_the_thread_that_takes_the_calls(workers: Workers, posted: Posted) -> None:
    done: list[tuple[int, int]] = []
    for number in range(20):
        # a default of a lambda
        workers.submit("disks", "volume v", lambda number=number: number, lambda o: done.append((o.get(), threading.get_ident())))  # type: ignore[misc]
    for _ in range(20):
        posted.get(timeout=10)()
    assert done == [(number, threading.get_ident()) for number in range(20)]


def test_a_platform_has_as_many_jobs_at_a_time_as_its_adapter_says(posted: Posted) -> None:
    workers = Workers(posted.put, parallel={"wide": 3, "narrow": 1}.__getitem__)
    together, alone = threading.Barrier(3), threading.Lock()
    beside: list[int] = []

    def wide() -> None:
        together.wait(10)

    def narrow() -> None:
        if not alone.acquire(blocking=False):
            beside.append(1)
        else:
            alone.release()

    for number in range(3):
        workers.submit("wide", f"volume {number}", wide, Outcome.get)
        workers.submit("narrow", f"volume n{number}", narrow, Outcome.get)
    for _ in range(6):
        posted.get(timeout=10)()
    workers.close()
    assert (together.broken, beside) == (False, [])


def test_what_somebody_waits_for_goes_before_what_can_wait(workers: Workers, posted: Posted) -> None:
    begun, goes_on, done = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        goes_on.wait(10)

    workers.submit("disks", "volume a", first, lambda _: None)
    assert begun.wait(10)
    workers.submit("disks", "volume b", lambda: done.append("delete b"), lambda _: None)
    workers.submit("disks", "volume c", lambda: done.append("delete c"), lambda _: None)
    workers.submit("disks", "volume d", lambda: done.append("attach d"), lambda _: None, urgent=True)
    workers.submit("disks", "volume b", lambda: done.append("attach b"), lambda _: None, urgent=True)
    for number in range(IN_A_ROW):
        workers.submit("disks", f"volume {number}", partial(done.append, f"detach {number}"), lambda _: None, urgent=True)
    goes_on.set()
    for _ in range(5 + IN_A_ROW):
        posted.get(timeout=10)()
    assert done[:IN_A_ROW] == ["attach d", *(f"detach {number}" for number in range(IN_A_ROW - 1))]
    assert done[IN_A_ROW:] == ["delete b", f"detach {IN_A_ROW - 1}", "attach b", "delete c"], "and of one volume all is done in its order"


def test_a_platform_that_hangs_keeps_no_other_waiting(workers: Workers, posted: Posted) -> None:
    hangs, answers = threading.Event(), []
    workers.submit("slow", "volume a", lambda: hangs.wait(10), lambda _: None)
    workers.submit("quick", "volume b", lambda: "b", lambda outcome: answers.append(outcome.get()))
    posted.get(timeout=10)()
    assert answers == ["b"]
    hangs.set()


@pytest.mark.parametrize(
    ("raised", "told"), [(UnknownVolume(volume="v"), UnknownVolume), (KeyError("x"), AdapterFault), (OSError(28, "full"), AdapterFault)]
)
def test_whatever_a_job_raises_is_an_error_of_pollys(workers: Workers, posted: Posted, raised: Exception, told: type[Exception]) -> None:
    outcomes: list[Outcome[None]] = []

    def job() -> None:
        raise raised

    workers.submit("disks", "volume v", job, outcomes.append)
    posted.get(timeout=10)()
    assert isinstance(outcomes[0].error, told)
    with pytest.raises(told):
        outcomes[0].get()


def test_what_has_not_begun_when_the_broker_ends_is_dropped(posted: Posted) -> None:
    workers, begun, goes_on = Workers(posted.put, threads=1), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        goes_on.wait(10)

    ran: list[str] = []
    workers.submit("disks", "volume v", first, lambda _: None)
    workers.submit("disks", "volume v", lambda: ran.append("second"), lambda _: None)
    assert begun.wait(10)
    closing = threading.Thread(target=workers.close)
    closing.start()
    goes_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert ran == []
