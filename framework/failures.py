"""How errors look from outside: the one place that maps an error to an HTTP answer and to an exit status, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from framework.marathon.problems import InvalidApp
from storage.errors import PollyError

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done",
    1: "something else went wrong; `polly doctor` found something to mend",
    2: "the command line, a file or a value is not valid, or asks for what Polly does not do yet",
    3: "the broker wants a token, or another one",
    4: "there is no such app, volume, claim, snapshot, pool, profile or platform",
    5: "it is in use, exists already, or changed meanwhile",
    6: "there is no room: a pool is full, or a node has no attach slot left",
    7: "the broker or the ledger cannot be reached",
    8: "a platform or a node failed",
    9: "Mesos will not have this framework",
    70: "the broker ended by a fault of its own; its tasks live on",
    130: "interrupted with Ctrl-C",
}
"""What each exit status of `polly` means; docs/cli.md says the same."""


class BrokerUnavailable(PollyError):
    """No broker answers at {url}: {reason}."""

    status = 503
    exit_code = 7
    hint = "Start one with: polly broker, name it with --broker URL, or read its ledger with --database URL where the command can."


class BrokerBusy(PollyError):
    """The broker did not answer within {timeout_s:g} s; what was asked may still be done."""

    status = 504
    exit_code = 7
    hint = "Look at what became of it before asking again."


class NotAllowed(PollyError):
    """{reason}."""

    status = 401
    exit_code = 3
    hint = "Name the file with the broker's token: --token-file FILE, or POLLY_TOKEN_FILE."


class Forbidden(PollyError):
    """This API answers programs of its own machine only, not a request {what}."""

    status = 403
    exit_code = 3


class Reported(PollyError):
    """{message}"""

    hint = "{advice}"

    @property
    def code(self) -> str:
        return str(self.fields["code"])


def to_answer(error: PollyError) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the JSON body; for an invalid app with `details` as Marathon has them."""
    body: dict[str, Any] = {"code": error.code, "message": str(error), "advice": error.advice}
    if isinstance(error, InvalidApp):
        body["details"] = [{"path": problem.marathon_path, "errors": [problem.message]} for problem in error.problems]
    return error.status, body


def from_answer(status: int, body: object) -> PollyError:
    """The error that such an answer stands for."""
    fields = body if isinstance(body, Mapping) else {}
    return Reported(
        code=str(fields.get("code", "")),
        message=str(fields.get("message") or f"The broker answered with HTTP status {status}."),
        advice=str(fields.get("advice", "")),
        status=status,
    )


def lines(error: PollyError) -> list[str]:
    """What the command line says of it on standard error."""
    return [f"polly: {error}", *filter(None, [error.advice])]


def exit_code(error: PollyError) -> int:
    """The exit status of the command line."""
    if not isinstance(error, Reported):
        return error.exit_code
    kind = next((kind for kind in _kinds(PollyError) if kind.__name__ == error.code), None)
    return kind.exit_code if kind else PollyError.exit_code


def _kinds(kind: type[PollyError]) -> Iterator[type[PollyError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)
