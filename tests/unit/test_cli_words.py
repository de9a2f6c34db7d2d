"""Sizes and times as people write and read them."""

from __future__ import annotations

import pytest

from framework.cli.words import age, clean, count, labels, parse_size, size, span
from storage.errors import Invalid


@pytest.mark.parametrize(
    ("mib", "text"),
    [
        (0, "0 MiB"),
        (64, "64 MiB"),
        (1024, "1 GiB"),
        (1536, "1.5 GiB"),
        (1024**2, "1 TiB"),
        (5 * 1024**3, "5 PiB"),
        (2 * 1024**4, "2048 PiB"),
    ],
)
def test_size(mib: int, text: str) -> None:
    assert size(mib) == text


@pytest.mark.parametrize(
    ("text", "mib"), [("512", 512), ("64MiB", 64), ("64 m", 64), ("10GiB", 10240), ("1.5T", 1536 * 1024), ("2pib", 2 << 30)]
)
def test_parse_size(text: str, mib: int) -> None:
    assert parse_size(text) == mib


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "10GB", "x", "1e3", "\u0661", "9" * 20])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Invalid, match="size is"):
        parse_size(text)


def test_spans_and_ages() -> None:
    assert [span(s) for s in (-1, 0, 119, 120, 7199, 7200, 172799, 172800)] == [
        "0 s",
        "0 s",
        "119 s",
        "2 min",
        "119 min",
        "2 h",
        "47 h",
        "2 d",
    ]
    assert age(0, 100) == "-"
    assert age(40, 100) == "60 s"


def test_small_words() -> None:
    assert (count(1, "task"), count(2, "task")) == ("1 task", "2 tasks")
    assert labels({"b": "2", "a": "1"}) == "a=1,b=2"


def test_nothing_reaches_the_terminal_that_acts_on_it() -> None:
    assert clean("a\x1b[2Jb\nc") == "a\ufffd[2Jb\ufffdc"
