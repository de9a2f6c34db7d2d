"""Errors on their way out: to an HTTP answer, back from one, and to an exit status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import framework.broker
from framework.failures import EXIT_CODES, BrokerUnavailable, exit_code, from_answer, to_answer
from framework.marathon.problems import InvalidApp
from framework.marathon.reading import read_app
from storage.errors import LedgerUnavailable, PlatformUnavailable, PollyError, UnknownVolume, VolumeInUse


def _kinds(kind: type[PollyError]) -> Iterator[type[PollyError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)


def test_every_exit_status_is_documented() -> None:
    assert framework.broker.BrokerFailed in set(_kinds(PollyError))
    assert {kind.exit_code for kind in _kinds(PollyError)} <= EXIT_CODES.keys()


@pytest.mark.parametrize(
    "error", [UnknownVolume(volume="v{1}"), VolumeInUse(volume="v", holder="h"), LedgerUnavailable(url="u", reason="r")]
)
def test_an_error_comes_back_over_http_as_it_went(error: PollyError) -> None:
    status, body = to_answer(error)
    back = from_answer(status, body)
    assert (str(back), back.advice, back.code) == (str(error), error.advice, error.code)
    assert exit_code(back) == exit_code(error)


def test_an_invalid_app_has_marathons_details() -> None:
    with pytest.raises(InvalidApp) as caught:
        read_app({"id": "/a", "cmd": "x", "mem": "much"})
    status, body = to_answer(caught.value)
    assert status == 422
    assert body["details"] == [{"path": "/mem", "errors": ['must be a number, not "much"']}]
    assert exit_code(from_answer(status, body)) == 2


def test_an_answer_of_somebody_else_is_told_as_it_is() -> None:
    error = from_answer(502, "<html>")
    assert str(error) == "The broker answered with HTTP status 502."
    assert exit_code(error) == 1
    assert exit_code(BrokerUnavailable(url="u", reason="r")) == 7


@pytest.mark.parametrize(("reason", "end"), [("See https://aws.", "See https://aws."), ("it says ...", "it says ...."), ("no", "no.")])
def test_a_sentence_ends_with_one_full_stop_whatever_a_vendor_ends_with(reason: str, end: str) -> None:
    assert str(PlatformUnavailable(platform="cloud", action="list", reason=reason)).endswith(f": {end}")
