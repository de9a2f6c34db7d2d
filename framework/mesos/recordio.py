"""RecordIO as Mesos writes it: a length in decimal digits, a newline, then that many bytes. Knows nothing of what a record says.

Each byte is appended once, and copied out once with its whole record, so the cost is linear in what arrives.
"""

from __future__ import annotations

from typing import Final

LONGEST_LENGTH: Final = 10
"""Digits. A record of ten billion bytes is no record."""


class BadRecord(ValueError):
    """The stream is not RecordIO; where the next record begins can't be known."""


class RecordReader:
    """Takes a stream in pieces of any size and gives back its records."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The records that this piece completes. Raises BadRecord."""
        self._buffer += data
        records: list[bytes] = []
        done = 0
        while (start := self._body_start(done)) is not None:
            end = start + int(self._buffer[done : start - 1])
            if len(self._buffer) < end:
                break
            with memoryview(self._buffer) as view:
                records.append(bytes(view[start:end]))
            done = end
        if done:
            del self._buffer[:done]
        return records

    def _body_start(self, begin: int) -> int | None:
        """Where the record's bytes begin; None while its length is not there in full."""
        newline = self._buffer.find(b"\n", begin, begin + LONGEST_LENGTH + 1)
        head = bytes(self._buffer[begin : newline if newline >= 0 else begin + LONGEST_LENGTH + 1])
        if (head and not head.isdigit()) or (newline >= 0 and not head) or len(head) > LONGEST_LENGTH:
            raise BadRecord(f"a record should begin with its length, not with {head[:16]!r}")
        return None if newline < 0 else newline + 1
