"""The one door to EC2: a client that is made at first use, paced call by call, with every failure named.

The SDK's own retries are off, so that the buckets see each refusal. A call that reads is made again when the connection broke;
one that changes something is not: whoever asked repeats it, and finds out first what became of it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError

from storage.errors import PlatformUnavailable
from storage.platforms.ebs.failures import CREDENTIALS, THROTTLED, Doing, code_of, named
from storage.platforms.ebs.options import EbsOptions
from storage.platforms.pacing import TokenBucket

BURST: Final = 45
"""Calls at once after a rest. EC2 gives 50 and more; calls that the network bunches together find the rest of them."""
READ_TRIES: Final = 3
CONNECT_S: Final = 5
ANSWER_S: Final = 30
PATIENCE_S: Final = 90.0
"""How long a call is tried again while EC2 refuses it for its rate."""
CONNECTIONS: Final = 128

_FAILURES: Final = (ClientError, BotoCoreError, HTTPClientError, ResponseParserError)
_lock = threading.Lock()
_loaders: list[Loader] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time and chance, as the adapter has them."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


class Client:
    def __init__(self, platform: str, options: EbsOptions, clock: Clock) -> None:
        self.platform, self._options, self._clock = platform, options, clock
        self._lock = threading.Lock()
        self._ec2: Any = None
        self._buckets: dict[str, TokenBucket] = {}
        self.calls: dict[str, int] = {}
        """How often each action was called, refusals included."""

    def doing(self, action: str, **of: Any) -> Doing:
        return Doing(platform=self.platform, action=action, **of)

    def read(self, action: str, doing: Doing, **asked: Any) -> Mapping[str, Any]:
        """A call that changes nothing: tried again when the connection breaks or the server stumbles."""
        for _ in range(READ_TRIES - 1):
            try:
                return self._asked(action, doing, asked, frozenset()) or {}
            except PlatformUnavailable as error:
                if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) in CREDENTIALS | THROTTLED:
                    raise
        return self._asked(action, doing, asked, frozenset()) or {}

    def pages(self, action: str, key: str, doing: Doing, **asked: Any) -> Iterator[Mapping[str, Any]]:
        """All items of a list, page after page."""
        token = ""
        while True:
            answer = self.read(action, doing, **asked, **({"NextToken": token} if token else {}))
            yield from answer.get(key, ())
            token = answer.get("NextToken") or ""
            if not token:
                return

    def change(self, action: str, doing: Doing, *, passing: Collection[str] = (), **asked: Any) -> Mapping[str, Any] | None:
        """A call that changes something, made once; None if EC2 refused it with one of the codes in `passing`."""
        return self._asked(action, doing, asked, passing)

    def may(self, action: str, doing: Doing, **asked: Any) -> str:
        """Empty if the credentials may call this, else EC2's code and text. Asked as a dry run, which changes nothing."""
        try:
            self._call(action, {**asked, "DryRun": True})
        except _FAILURES as error:
            code = code_of(error)
            if code in ("UnauthorizedOperation", "AccessDenied"):
                return code
            if code in CREDENTIALS or not code:
                raise named(error, doing) from error
        return ""

    def close(self) -> None:
        with self._lock:
            client, self._ec2 = self._ec2, None
        if client is not None:
            client.close()

    def _asked(self, action: str, doing: Doing, asked: Mapping[str, Any], passing: Collection[str]) -> Mapping[str, Any] | None:
        try:
            return self._with_good_credentials(action, asked)
        except _FAILURES as error:
            if code_of(error) in passing:
                return None
            raise named(error, doing) from error

    def _with_good_credentials(self, action: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Refused credentials are read anew once: somebody may have put new ones in their place."""
        try:
            return self._patiently(action, asked)
        except ClientError as error:
            if code_of(error) not in CREDENTIALS:
                raise
        self.close()
        return self._patiently(action, asked)

    def _patiently(self, action: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        end = self._clock.now() + PATIENCE_S
        while True:
            try:
                return self._call(action, asked)
            except ClientError as error:
                if code_of(error) not in THROTTLED or self._clock.now() >= end:
                    raise
                self._bucket(action).throttled()

    def _call(self, action: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        client = self._client()
        self._bucket(action).take()
        with self._lock:
            self.calls[action] = self.calls.get(action, 0) + 1
        answer: Mapping[str, Any] = getattr(client, action)(**asked)
        if "RequestId" not in answer.get("ResponseMetadata", {}):  # a page is XML, too, and would be a list of nothing
            raise ResponseParserError("it has no request id, which each of EC2's has")
        return answer

    def _bucket(self, action: str) -> TokenBucket:
        """EC2 counts the calls of each action for itself."""
        with self._lock:
            if action not in self._buckets:
                rate = self._options.reads_per_s if action.startswith("describe_") else self._options.writes_per_s
                clock = self._clock
                self._buckets[action] = TokenBucket(rate, BURST, now=clock.now, wait=clock.wait, chance=clock.chance)
            return self._buckets[action]

    def _client(self) -> Any:
        with self._lock:
            if self._ec2 is None:
                self._ec2 = _connect(self._options)
            return self._ec2


def _connect(options: EbsOptions) -> Any:
    """A client with the credentials that are there now. Connects to nothing yet."""
    session = botocore.session.Session(profile=options.profile or ("default" if options.credentials_file else None))
    if options.credentials_file:
        session.set_config_variable("credentials_file", options.credentials_file)
    with _lock:
        if not _loaders:
            _loaders.append(create_loader(session.get_config_variable("data_path")))
        session.register_component("data_loader", _loaders[0])
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_S,
            read_timeout=ANSWER_S,
            max_pool_connections=CONNECTIONS,
            user_agent_extra="polly",
        )
        made = boto3.session.Session(botocore_session=session, region_name=options.region)
        return made.client("ec2", endpoint_url=options.endpoint_url or None, config=config)
