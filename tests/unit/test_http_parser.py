"""What pymesos relies on in the http-parser distribution under packaging/."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from http_parser.http import HttpParser
from hypothesis import example, given
from hypothesis import strategies as st

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nMesos-Stream-Id: 7f\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    body: bytes
    complete: bool
    parser: HttpParser


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def read(*pieces: bytes) -> Read:
    """Feeds the pieces as pymesos does: execute, then take what there is of the body."""
    parser, body = HttpParser(), b""
    for piece in pieces:
        assert parser.execute(piece, len(piece)) == len(piece)
        if parser.is_partial_body():
            body += parser.recv_body()
    return Read(body=body, complete=parser.is_message_complete(), parser=parser)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_a_chunked_answer_reads_the_same_when_it_is_split_at_any_byte() -> None:
    answer = CHUNKED + chunk(b"21\n{") + chunk(b'"type":"HEARTBEAT"}') + LAST_CHUNK
    for cut in range(len(answer) + 1):
        got = read(answer[:cut], answer[cut:])
        assert (got.body, got.complete) == (b'21\n{"type":"HEARTBEAT"}', True)
        assert (got.parser.get_status_code(), got.parser.is_chunked()) == (200, True)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 400), max_size=12))
@example([b"x"], list(range(120)))
def test_any_chunks_split_anywhere_give_their_bytes(bodies: list[bytes], cuts: list[int]) -> None:
    got = read(*split(CHUNKED + b"".join(map(chunk, bodies)) + LAST_CHUNK, cuts))
    assert (got.body, got.complete, got.parser.get_errno()) == (b"".join(bodies), True, 0)


def test_a_body_is_handed_out_once() -> None:
    parser = HttpParser()
    answer = CHUNKED + chunk(b"one")
    parser.execute(answer, len(answer))
    assert parser.recv_body() == b"one"
    assert not parser.is_partial_body()
    assert parser.recv_body() == b""


def test_nothing_is_said_before_the_headers_are_complete() -> None:
    parser = read(CHUNKED[:-1]).parser
    assert (parser.is_headers_complete(), parser.get_status_code()) == (False, 0)
    assert parser.execute(CHUNKED[-1:], 1) == 1
    assert (parser.is_headers_complete(), parser.is_message_complete()) == (True, False)


def test_only_the_given_length_is_read() -> None:
    parser = HttpParser()
    assert parser.execute(CHUNKED + b"garbage", len(CHUNKED)) == len(CHUNKED)
    assert parser.is_headers_complete()
    assert parser.get_errno() == 0


@pytest.mark.parametrize(
    ("head", "code"), [(b"307 Temporary Redirect", 307), (b"401 Unauthorized", 401), (b"400 Bad Request", 400), (b"503 Unavailable", 503)]
)
def test_another_status_comes_with_its_headers_and_body(head: bytes, code: int) -> None:
    got = read(b"HTTP/1.1 " + head + b"\r\nLocation: //127.0.0.1:5050/api\r\nContent-Length: 4\r\n\r\nwhy?")
    assert (got.parser.get_status_code(), got.body, got.complete, got.parser.is_chunked()) == (code, b"why?", True, False)
    assert got.parser.get_headers()["Location"] == "//127.0.0.1:5050/api"


def test_header_names_keep_their_case_and_repeated_ones_are_joined() -> None:
    got = read(b"HTTP/1.1 200 OK\r\nMESOS-stream-ID: 7f\r\nx-a: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n")
    assert got.parser.get_headers() == {"MESOS-stream-ID": "7f", "x-a": "1, 2", "Content-Length": "0"}


@pytest.mark.parametrize(
    ("value", "chunked"), [(b"chunked", True), (b"CHUNKED", True), (b"gzip, chunked", True), (b"gzip", False), (b"identity", False)]
)
def test_chunked_is_the_last_transfer_coding_in_any_case(value: bytes, chunked: bool) -> None:
    assert read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: " + value + b"\r\n\r\n").parser.is_chunked() is chunked


def test_what_follows_the_end_of_the_answer_is_taken_and_thrown_away() -> None:
    second = b"HTTP/1.1 500 No\r\nX-Late: 1\r\nContent-Length: 5\r\n\r\nlater"
    got = read(CHUNKED + chunk(b"first") + LAST_CHUNK + second, second, b"not even HTTP")
    assert (got.body, got.complete, got.parser.get_status_code(), got.parser.get_errno()) == (b"first", True, 200, 0)
    assert "X-Late" not in got.parser.get_headers()


def test_garbage_in_one_piece_with_the_end_of_the_answer_is_no_error() -> None:
    got = read(CHUNKED + LAST_CHUNK + b"\x00\x01")
    assert (got.complete, got.parser.get_errno()) == (True, 0)


def test_an_interim_answer_is_not_the_answer() -> None:
    got = read(b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n", CHUNKED + chunk(b"body"))
    assert (got.parser.get_status_code(), got.body, got.complete) == (200, b"body", False)
    assert "X-Interim" not in got.parser.get_headers()


@pytest.mark.parametrize(
    "bad",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 xx OK\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + chunk(b"fine")[:-2] + b"!!",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_an_error_that_stays(bad: bytes) -> None:
    parser = HttpParser()
    assert parser.execute(bad, len(bad)) == 0
    assert parser.get_errno() != 0
    assert parser.execute(CHUNKED, len(CHUNKED)) == 0
    assert not parser.is_message_complete()
