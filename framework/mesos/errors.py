"""Why a call did not reach Mesos, by what may be concluded from it. Knows nothing of HTTP beyond the status."""

from __future__ import annotations

from storage.errors import PollyError


class CallFailed(PollyError):
    """The call {call} to the Mesos master failed: {reason}."""

    status = 503
    exit_code = 9


class NotConnected(CallFailed):
    """The call {call} was not sent: {reason}."""

    hint = "The driver subscribes again by itself; the call may be made again then."


class CallRefused(CallFailed):
    """The Mesos master refused the call {call} with HTTP {http_status}: {body}."""

    status = 502


class CallInDoubt(CallFailed):
    """No answer came to the call {call} ({reason}); the master may have carried it out or not."""

    status = 504
    hint = "A launch in doubt must not be sent again: reconcile its task instead."
