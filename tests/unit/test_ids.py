"""Ids: UUIDs that sort by their age."""

from __future__ import annotations

import re
import time
import uuid
from itertools import pairwise

import pytest

from framework import ids
from framework.marathon.ids import app_of, task_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(ids.new_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_sort_by_their_age(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (1, 2, 255, 256, 1_700_000_000_000, 1_800_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda ms=milliseconds: ms * 1_000_000)
        made.append(ids.new_id())
    assert all(older < newer for older, newer in pairwise(made))


def test_ids_differ() -> None:
    assert len({ids.new_id() for _ in range(10_000)}) == 10_000


def test_a_task_id_takes_one() -> None:
    made = task_id("/shop/db", ids.new_id())
    assert app_of(made) == "/shop/db"
    assert re.fullmatch(r"shop_db\.instance-[0-9a-f-]{36}\._app\.1", made)
