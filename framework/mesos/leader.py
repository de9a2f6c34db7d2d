"""Where the leading Mesos master is: an address as given, or what the masters wrote into ZooKeeper. Knows no Mesos call."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry

from storage.errors import Invalid

MASTER_PORT: Final = 5050
NODE_PREFIX: Final = "json.info_"
"""What a master's node is called, before its sequence number; the lowest number leads."""
ANSWER_S: Final = 3.0
RETRY_S: Final = 1.0
FAULTS: Final = (KazooException, KazooTimeoutError, ValueError)
"""What is to be expected of ZooKeeper, and of what is written there."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One master."""

    host: str
    port: int = MASTER_PORT
    tls: bool = False

    @property
    def netloc(self) -> str:
        """`host:port`, as a Host header wants it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.netloc


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooKeeperUri:
    """Where the masters elect their leader."""

    hosts: str
    """`h1:p,h2:p`"""
    path: str
    credentials: str | None = field(default=None, repr=False)
    """`user:password` of the digest scheme."""

    def __str__(self) -> str:
        return f"zk://{self.hosts}{self.path}"


def parse_master(text: str) -> Address | ZooKeeperUri:
    """`host[:port]`, `[ipv6]:port`, `http(s)://host:port` or `zk://[user:password@]h1:p,h2:p/path`. Raises Invalid."""
    scheme, separator, rest = text.strip().rpartition("://")
    if scheme in ("zk", "zoo"):
        return _zookeeper(rest)
    if scheme not in ("", "http", "https") or (separator and not scheme):
        raise Invalid(
            field="master", value=scheme, reason="the address of a master begins with http://, https:// or zk://, or has no scheme"
        )
    return parse_address(rest, tls=scheme == "https")


def parse_address(text: str, *, tls: bool = False, port: int = MASTER_PORT) -> Address:
    """`host`, `host:port`, `[ipv6]:port` or a bare IPv6 address, with or without a path behind. Raises Invalid.

    `port` is for one that names none.
    """
    if "@" in text:  # what stands before it may be a secret
        raise Invalid(field="master", value=text.rpartition("@")[2], reason="wanted is host:port; a principal is an option of its own")
    bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
    try:
        parts = urlsplit(f"//[{text}]" if bare_ipv6 else f"//{text}")
        host, named = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid(field="master", value=text, reason=str(error)) from error
    if not host:
        raise Invalid(field="master", value=text, reason="wanted is host:port")
    return Address(host=host, port=named or port, tls=tls)


def _zookeeper(rest: str) -> ZooKeeperUri:
    authority, slash, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    if not hosts or not slash or not path.strip("/"):
        raise Invalid(field="master", value=f"zk://{hosts}{slash}{path}", reason="wanted is zk://host:port,host:port/path")
    if credentials and ":" not in credentials:
        raise Invalid(field="master", value=f"zk://***@{hosts}/{path}", reason="wanted is user:password before the @")
    return ZooKeeperUri(hosts=hosts, path="/" + path.strip("/"), credentials=unquote(credentials) or None)


def parse_master_info(data: bytes, *, tls: bool) -> Address:
    """The address in the MasterInfo that a master wrote; by name under TLS, so that its certificate can be checked. Raises ValueError."""
    info: Any = json.loads(data)
    address = info.get("address") if isinstance(info, dict) else None
    if not isinstance(address, dict):
        raise ValueError("the leader's MasterInfo has no address")
    host = (address.get("hostname") if tls else None) or address.get("ip") or address.get("hostname")
    port = address.get("port")
    if not isinstance(host, str) or not isinstance(port, int):
        raise ValueError("the address in the leader's MasterInfo cannot be read")
    return Address(host=host, port=port, tls=tls)


class LeaderWatch:
    """Follows the election in ZooKeeper on a thread of its own, and tells each new leader, or None and why there is none.

    While ZooKeeper can't be reached, the leader last seen may well lead on: nothing is told.
    """

    def __init__(self, uri: ZooKeeperUri, tell: Callable[[Address | None, str], None], *, tls: bool = False) -> None:
        self._uri, self._tell, self._tls = uri, tell, tls
        self._told: tuple[Address | None, str] | None = None
        self._doubted = ""
        self._look = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polly-leader-watch", daemon=True)
        forever = KazooRetry(max_tries=-1, delay=0.2, backoff=2, max_delay=2)
        self._client = KazooClient(
            hosts=uri.hosts,
            connection_retry=forever,
            auth_data=[("digest", uri.credentials)] if uri.credentials else None,
            logger=_quiet_logger(),
        )

    def start(self) -> None:
        """Returns at once, whether or not ZooKeeper can be reached."""
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; nothing is told from now on."""
        self._stopped.set()
        self._look.set()

    def _run(self) -> None:
        self._client.add_listener(self._wake)
        self._client.start_async()
        self._look.wait(ANSWER_S)
        try:
            while self._carry_on():
                try:
                    self._follow()
                except Exception:
                    logger.exception("The watch for the leading master goes on")  # without it no other master would ever be found
                    self._look.wait(RETRY_S)
        finally:
            self._client.stop()
            self._client.close()

    def _follow(self) -> None:
        """Tells who leads, and waits until that may have changed."""
        try:
            leader = self._leader()
        except Exception as error:
            if not isinstance(error, FAULTS):
                logger.exception("The watch for the leading master cannot make sense of %s", self._uri)
            self._doubt(f"{self._uri} does not say which master leads: {error or type(error).__name__}")
            self._look.wait(RETRY_S)
        else:
            self._settle(leader, f"no master leads in {self._uri}")
            self._doubted = ""
            self._look.wait()

    def _carry_on(self) -> bool:
        """Looks at `_stopped` last, so that a stop() between the two is seen here or wakes the next wait."""
        self._look.clear()
        return not self._stopped.is_set()

    def _wake(self, *_: object) -> None:
        """Something changed, in ZooKeeper or in the session with it (whose watches are gone if it is a new one)."""
        self._look.set()

    def _leader(self) -> Address | None:
        if not self._client.connected:
            raise ConnectionLoss("it can't be reached")
        while True:
            try:
                children: Sequence[str] = self._ask(self._client.get_children_async, self._uri.path, self._wake)
                masters = [child for child in children if child.startswith(NODE_PREFIX)]
                if not masters:
                    return None
                data, _ = self._ask(self._client.get_async, f"{self._uri.path}/{min(masters)}", None)
                return parse_master_info(data, tls=self._tls)
            except NoNodeError:  # the leader's node went between the two questions, or the masters have made no path yet
                if not self._ask(self._client.exists_async, self._uri.path, self._wake):
                    return None

    @staticmethod
    def _ask(question: Callable[..., Any], path: str, watch: Callable[..., None] | None) -> Any:
        return question(path, watch=watch).get(timeout=ANSWER_S)

    def _settle(self, leader: Address | None, reason: str) -> None:
        if self._told != (leader, reason) and not self._stopped.is_set():
            self._tell(leader, reason)
            self._told = (leader, reason)
            logger.info("The leading master of %s: %s", self._uri, leader or "none")

    def _doubt(self, reason: str) -> None:
        if reason != self._doubted:
            logger.warning("%s", reason)
        self._doubted = reason
        if self._told is None or self._told[0] is None:
            self._settle(None, reason)


def _quiet_logger() -> logging.Logger:
    """kazoo warns of each connection that it loses, every two seconds; what that comes to is said here once."""
    quiet = logging.getLogger(f"{__name__}.zookeeper")
    quiet.setLevel(logging.ERROR)
    return quiet
