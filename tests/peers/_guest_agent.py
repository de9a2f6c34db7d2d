"""The guest's side: runs functions of this repository, each in a process of its own, and hands their words to and fro.

Frames have the number of a call before them. The first with a number holds the function and its arguments; all others go to
that call's process or come from it. An empty frame to a call kills its process; an empty one from it says that it has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Final

NUMBER: Final = struct.Struct("!Q")
READY: Final = 0
"""The number of the frame that says that the guest is up."""

_asked: Connection | None = None
"""In the process of a call: the way to the one who called."""


def ask(verb: str, *arguments: Any, **named: Any) -> Any:
    """Calls a method of the object that stays with the caller, outside of the guest. Raises what that raises."""
    assert _asked is not None, "only a call from outside has somebody to ask"
    _asked.send(("ask", verb, arguments, named))
    is_well, answer = _asked.recv()
    if not is_well:
        raise answer
    return answer


def port() -> str:
    """The device of the one virtio-serial port that there is."""
    (name,) = (path.name for path in Path("/sys/class/virtio-ports").iterdir())
    return f"/dev/{name}"


def serve(outside: Connection) -> None:
    calls: dict[int, tuple[Connection, int]] = {}
    newest = READY
    outside.send_bytes(NUMBER.pack(READY))
    while True:
        ready = wait([outside, *(inside for inside, _ in calls.values())])
        if outside in ready:
            try:
                frame = outside.recv_bytes()
            except EOFError:
                return
            number, words = NUMBER.unpack_from(frame)[0], frame[NUMBER.size :]
            if number > newest:
                newest = number
                calls[number] = _begin(words, [outside, *(inside for inside, _ in calls.values())])
            elif number in calls:
                _tell(words, *calls[number])
        for number, (inside, pid) in list(calls.items()):
            if inside in ready and not _hear(outside, number, inside, pid):
                del calls[number]


def _tell(words: bytes, inside: Connection, pid: int) -> None:
    with contextlib.suppress(OSError):
        inside.send_bytes(words) if words else os.kill(pid, signal.SIGKILL)


def _hear(outside: Connection, number: int, inside: Connection, pid: int) -> bool:
    """Passes on what the call's process says; False once it has ended."""
    try:
        words = inside.recv_bytes()
    except (EOFError, OSError):
        os.waitpid(pid, 0)
        outside.send_bytes(NUMBER.pack(number))
        inside.close()
        return False
    outside.send_bytes(NUMBER.pack(number) + words)
    return True


def _begin(words: bytes, others: list[Connection]) -> tuple[Connection, int]:
    global _asked
    inside, _ours = Pipe()
    if pid := os.fork():
        _ours.close()
        return inside, pid
    for connection in [inside, *others]:
        connection.close()
    _asked = _ours
    try:
        _carry_out(words)
    finally:
        os._exit(0)


def _carry_out(words: bytes) -> None:
    assert _asked is not None
    try:
        function, arguments, named = ForkingPickler.loads(words)
        answer = ("done", True, function(*arguments, **named), "")
    except BaseException as error:
        answer = ("done", False, error, traceback.format_exc())
    try:
        _asked.send(answer)
    except Exception:  # what cannot be sent is told as text
        _asked.send(("done", False, RuntimeError(f"{answer[2]!r} cannot be sent out of the guest"), answer[3] or traceback.format_exc()))


def main(load: Callable[[], object]) -> None:
    os.setsid()
    load()
    fd = os.open(port(), os.O_RDWR | os.O_CLOEXEC)
    serve(Connection(fd))


def _load() -> object:
    """What most calls need: each process of a call has it then, for nothing."""
    from tests.guest import inside

    return inside


if __name__ == "__main__":
    sys.modules["tests.peers._guest_agent"] = sys.modules["__main__"]  # calls import it by its name
    main(_load)
