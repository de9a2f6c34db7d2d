"""HttpParser: reads one HTTP answer as it arrives, in pieces of any size.

It knows nothing of sockets, and of http-parser's own interface only what pymesos calls.
"""

from __future__ import annotations

import httptools

OK = 0
MALFORMED = 1


class HttpParser:
    """One answer of an HTTP server. What follows the end of that answer is taken and thrown away: pymesos closes then."""

    def __init__(self) -> None:
        self._answer = _Answer()
        self._parser = httptools.HttpResponseParser(self._answer)
        self._answer.parser = self._parser
        self._errno = OK

    def execute(self, data: bytes, length: int) -> int:
        """Takes the first `length` bytes of `data`; returns `length`, or 0 if they (or bytes before them) are no HTTP."""
        if self._errno == OK and not self._answer.complete:
            try:
                self._parser.feed_data(data[:length])
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._errno = OK if self._answer.complete else MALFORMED
        return length if self._errno == OK else 0

    def get_errno(self) -> int:
        """0 as long as all that came was HTTP."""
        return self._errno

    def is_headers_complete(self) -> bool:
        return self._answer.status > 0

    def get_status_code(self) -> int:
        """0 until the headers are complete."""
        return self._answer.status

    def get_headers(self) -> dict[str, str]:
        """Names as the server wrote them; the values of a repeated name are joined with a comma under its first spelling."""
        return dict(self._answer.headers)

    def is_chunked(self) -> bool:
        codings = (value for name, value in self._answer.headers.items() if name.lower() == "transfer-encoding")
        return next(codings, "").rpartition(",")[2].strip().lower() == "chunked"

    def is_partial_body(self) -> bool:
        """Whether recv_body has something to give."""
        return bool(self._answer.body)

    def recv_body(self) -> bytes:
        """The body's bytes that came since the last call, without the framing of chunks."""
        body = b"".join(self._answer.body)
        self._answer.body.clear()
        return body

    def is_message_complete(self) -> bool:
        return self._answer.complete


class _Answer:
    """Collects httptools' callbacks for the first final answer; an interim one (1xx) is forgotten when it ends."""

    parser: httptools.HttpResponseParser

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.complete = False
        self._spelling: dict[str, str] = {}
        self._interim = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        text, content = name.decode("latin-1"), value.decode("latin-1")
        known = self._spelling.setdefault(text.lower(), text)
        self.headers[known] = f"{self.headers[known]}, {content}" if known in self.headers else content

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self.parser.get_status_code()
        self._interim = 100 <= status < 200
        if not self._interim:
            self.status = status

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body.append(body)

    def on_message_complete(self) -> None:
        if not self._interim:
            self.complete = True
        elif not self.complete:
            self.headers.clear()
            self._spelling.clear()
