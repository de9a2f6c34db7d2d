"""Reconciliation: asked at once, again with back-off, never again once answered."""

import itertools

from framework.mesos.reconcile import BATCH, FIRST_S, IMPLICIT_S, LAST_S, Reconciler


def test_a_task_is_asked_about_until_it_is_answered() -> None:
    reconciler = Reconciler()
    reconciler.ask_about([("t1", "a1"), ("t2", "a2")], now=0.0)
    assert reconciler.due(0.0) == [[("t1", "a1"), ("t2", "a2")]]
    assert reconciler.due(FIRST_S - 0.1) == []
    reconciler.answered("t1")
    assert reconciler.due(FIRST_S) == [[("t2", "a2")]]
    reconciler.answered("t2")
    assert reconciler.due(1e6) == []
    assert reconciler.next_at() is None


def test_an_update_is_no_answer_for_it_may_be_older_than_the_question() -> None:
    reconciler = Reconciler()
    reconciler.ask_about([("t", "a")], now=0.0)
    reconciler.heard("t")
    assert reconciler.due(0.0) == [[("t", "a")]]


def test_a_new_task_is_asked_about_only_if_nothing_is_heard_of_it() -> None:
    reconciler = Reconciler()
    reconciler.watch([("heard", "a"), ("silent", "a")], until=10.0)
    reconciler.heard("heard")
    assert reconciler.due(9.0) == []
    assert reconciler.due(10.0) == [[("silent", "a")]]


def test_the_wait_grows_up_to_a_limit() -> None:
    reconciler = Reconciler()
    reconciler.ask_about([("t", "a")], now=0.0)
    instants = []
    for _ in range(14):
        now = reconciler.next_at()
        assert now is not None
        instants.append(now)
        assert reconciler.due(now) == [[("t", "a")]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(instants)]
    assert gaps == sorted(gaps)
    assert gaps[0] == FIRST_S
    assert gaps[-1] == LAST_S


def test_implicit_once_after_each_subscription_and_then_rarely() -> None:
    reconciler = Reconciler()
    assert reconciler.due(0.0) == []
    reconciler.subscribed(10.0)
    assert reconciler.next_at() == 10.0
    assert reconciler.due(10.0) == [[]]
    assert reconciler.next_at() == 10.0 + IMPLICIT_S
    assert reconciler.due(10.0 + IMPLICIT_S - 1) == []
    assert reconciler.due(10.0 + IMPLICIT_S) == [[]]


def test_many_tasks_are_asked_about_in_several_calls() -> None:
    reconciler = Reconciler()
    reconciler.ask_about([(f"t{n}", "a") for n in range(BATCH + 1)], now=0.0)
    assert [len(call) for call in reconciler.due(0.0)] == [BATCH, 1]
