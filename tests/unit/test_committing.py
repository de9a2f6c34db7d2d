"""Commits in a thread of their own."""

from __future__ import annotations

import threading

import pytest

from storage.ledger.committing import Committer


def test_the_work_is_done_while_the_commit_is_under_way() -> None:
    committer, worked, done = Committer(), threading.Event(), list[bool]()
    committer.commit(lambda: done.append(worked.wait(10)), worked.set)
    assert done == [True]
    committer.close()


def test_what_the_commit_raises_is_raised() -> None:
    committer, done = Committer(), list[str]()

    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        committer.commit(fail, lambda: done.append("the work"))
    assert done == ["the work"]
    committer.close()


def test_work_that_fails_is_raised_once_the_commit_is_done() -> None:
    committer, done = Committer(), list[str]()

    def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        committer.commit(lambda: done.append("committed"), fail)
    assert done == ["committed"]
    committer.close()
