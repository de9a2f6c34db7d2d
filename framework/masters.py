"""Whether the Mesos master that a broker is to be started with is reached from here: what `polly doctor --master` looks at.

Nothing is registered, and no principal is tried: what a master says to those is in the broker's log.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from queue import Empty, SimpleQueue
from typing import Final

from framework.mesos.events import parse_version
from framework.mesos.leader import Address, LeaderWatch, ZooKeeperUri, parse_address, parse_master
from storage.errors import PollyError
from storage.platforms.base import Finding

SUBJECT: Final = "mesos"
OLDEST: Final = (1, 8)
CONNECT_S: Final = 5.0
ELECTION_S: Final = 10.0
"""How long ZooKeeper may take to say who leads."""
ZOOKEEPER_PORT: Final = 2181


def of_master(text: str) -> Iterator[Finding]:
    """`text` is what `--master` takes; the password of a zk:// URL is in no finding."""
    try:
        target = parse_master(text)
    except PollyError as error:
        yield _wrong(str(error), "Write --master as HOST:PORT, or as zk://HOST:PORT,HOST:PORT/PATH.")
        return
    if isinstance(target, ZooKeeperUri):
        yield from _of_election(target)
    else:
        yield from _of_address(target)


def _of_election(uri: ZooKeeperUri) -> Iterator[Finding]:
    missing = {host: error for host in uri.hosts.split(",") if (error := _unreached(parse_address(host, port=ZOOKEEPER_PORT)))}
    for host, error in missing.items():
        yield _wrong(f"ZooKeeper at {host} cannot be reached: {error}", "Start ZooKeeper there, or mend its address in --master.")
    if len(missing) == len(uri.hosts.split(",")):
        return
    leader, why_none = _leader(uri)
    if leader is None:
        started = f"Start a master with --zk={uri}, or name the path in --master that the masters were started with."
        yield _wrong(why_none, started)
        return
    yield _fine(f"{uri} says that {leader} leads")
    yield from _of_address(leader)


def _leader(uri: ZooKeeperUri) -> tuple[Address | None, str]:
    told: SimpleQueue[tuple[Address | None, str]] = SimpleQueue()
    watch = LeaderWatch(uri, lambda leader, why_none: told.put((leader, why_none)))
    watch.start()
    try:
        return told.get(timeout=ELECTION_S)
    except Empty:
        return None, f"{uri} has not said within {ELECTION_S:g} s which master leads"
    finally:
        watch.stop()


def _of_address(address: Address) -> Iterator[Finding]:
    yield (found := _answer(address))
    if not found.ok:
        return
    leader = _redirect(address)
    if leader is not None and leader.netloc != address.netloc:
        yield _fine(f"{address} sends frameworks to {leader}")
        yield _answer(leader)


def _answer(address: Address) -> Finding:
    """What the master at this address says of itself."""
    try:
        status, _, body = _get(address, "/version")
    except (OSError, HTTPException) as error:
        mend = "Start the Mesos master there, or mend --master; is its port open for this machine?"
        return _wrong(f"the master at {address} cannot be reached: {_words(error)}", mend)
    try:
        said = json.loads(body)["version"]
    except (ValueError, KeyError, TypeError):
        return _wrong(
            f"what answers at {address} (HTTP status {status}) is no Mesos master", "Mend --master; a master's port is usually 5050."
        )
    if parse_version(str(said))[:2] < OLDEST:
        return _wrong(f"the master at {address} is Mesos {said}", "Polly needs Mesos 1.8 or newer.")
    return _fine(f"the master at {address} answers: Mesos {said}")


def _redirect(address: Address) -> Address | None:
    """Where the master sends those who would speak to the leader; None if it does not say."""
    try:
        status, location, _ = _get(address, "/redirect")
        return parse_address(location.rpartition("//")[2], tls=address.tls) if 300 <= status < 400 and location else None
    except (OSError, HTTPException, PollyError):
        return None


def _get(address: Address, path: str) -> tuple[int, str, bytes]:
    """Status, Location and body. Raises OSError and HTTPException."""
    kind = HTTPSConnection if address.tls else HTTPConnection
    connection = kind(address.host, address.port, timeout=CONNECT_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location", ""), answer.read(64 * 1024)
    finally:
        connection.close()


def _unreached(address: Address) -> str:
    """Why nothing can be connected to there; empty if something can."""
    try:
        socket.create_connection((address.host, address.port), timeout=CONNECT_S).close()
    except OSError as error:
        return _words(error)
    return ""


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _fine(message: str) -> Finding:
    return Finding(ok=True, subject=SUBJECT, message=message)


def _wrong(message: str, mend: str) -> Finding:
    return Finding(ok=False, subject=SUBJECT, message=message, mend=mend)
