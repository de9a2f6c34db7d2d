"""EC2 as the adapter meets it: moto behind EC2's own refusals, with states that take time, pages, throttling, and faults on the wire.

A test sets what it needs as attributes: how long changes last, which actions are denied, how many answers are lost. What this
front answers itself is held against Amazon's model (`problems`).
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, ParseError

from storage.platforms import faulting
from storage.platforms.faulting import ANSWERS, Fate
from tests.peers import ec2_shapes
from tests.peers.ec2_actions import ACTIONS
from tests.peers.ec2_ledger import Ledger
from tests.peers.ec2_wire import Answer, Call, Refused, parse, serialise, text
from tests.peers.loopback import Asked, Reply, Server

ZONE = "us-east-1a"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
IMAGE = "ami-12345678"
AUTHORIZATION = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0"
HTML = Answer(body=b"<html><body><h1>502 Bad Gateway</h1></body></html>", status=502, kind="text/html")
EMPTY = Answer(body=b"", status=503)
NOT_VALID = "AWS was not able to validate the provided access credentials"
REFUSALS = {
    Fate.THROTTLED: Refused("RequestLimitExceeded", "Request limit exceeded.", 503),
    Fate.EXPIRED: Refused("RequestExpired", NOT_VALID, 401),
}


@dataclass(slots=True, kw_only=True)
class Faults:
    """What goes wrong, until it is changed."""

    throttle: int = 0
    """How many calls are refused for their rate."""
    expired: str = ""
    """The code with which all credentials are refused."""
    keys: frozenset[str] = frozenset()
    """Access keys that are good; empty: all are."""
    denied: frozenset[str] = frozenset()
    at_call: faulting.Faults = field(default_factory=faulting.Faults)
    instead: list[Answer] = field(default_factory=list)
    """Answers that are given in the place of the next ones; nothing is done then."""
    refusing: dict[str, list[Refused]] = field(default_factory=dict)
    """Refusals of an action, one after the other."""


class Front:
    """One account in one region. `moto` is asked for what is not refused."""

    def __init__(self, moto_port: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._moto_port, self._now = moto_port, now
        self._lock = threading.RLock()
        self.clear()
        self._server = Server(self._reply, name="ec2")

    def clear(self) -> None:
        """As a new account with new settings; moto's own state is not touched."""
        self.ledger, self.faults = Ledger(), Faults()
        self.lasting: dict[str, float] = {}
        """creating, attaching, detaching, deleting, pending, modifying: how many seconds each takes."""
        self.quota_gib: int | None = None
        self.attach_limit = 27
        self.rate: tuple[float, int] | None = None
        """Calls a second and burst of each action; None: no limit."""
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.problems: list[str] = []
        self._tokens: dict[str, tuple[float, float]] = {}
        self._kept: dict[bytes, tuple[bytes, int]] = {}
        self._tags: dict[str, dict[str, str]] = {}

    @property
    def url(self) -> str:
        return self._server.url

    def stop(self) -> None:
        self._server.stop()

    def now(self) -> float:
        return self._now()

    def machines(self, number: int, *, zone: str = ZONE, kind: str = "m5.large") -> tuple[str, ...]:
        """Starts instances and returns their ids."""
        wanted = {
            "Action": "RunInstances",
            "Version": "2016-11-15",
            "ImageId": IMAGE,
            "InstanceType": kind,
            "Placement.AvailabilityZone": zone,
        }
        with self._lock:
            answer = self.ask(Call(action="RunInstances", parameters={**wanted, "MinCount": str(number), "MaxCount": str(number)}))
        return tuple(text(item, "instanceId") for item in answer.iterfind("instancesSet/item"))

    def do(self, action: str, **parameters: str) -> Element:
        """A call of somebody else's, past all faults and rules."""
        with self._lock:
            return self.ask(Call(action=action, parameters={"Action": action, "Version": "2016-11-15", **parameters}))

    def ask(self, call: Call) -> Element:
        """Moto's answer, or its refusal. What it has described is remembered until something is changed."""
        body, status = self._kept.get(call.body()) or self._sent(call)
        if not call.action.startswith("Describe"):
            self._kept = {key: kept for key, kept in self._kept.items() if b"Zones" in key}
        elif status == 200:
            self._kept[call.body()] = body, status
        try:
            root = parse(body)
        except ParseError as error:
            raise AssertionError(f"moto cannot {call.action}: {status} {body[:200]!r}") from error
        if status != 200:
            raise Refused(text(root, "Errors/Error/Code"), text(root, "Errors/Error/Message"), status)
        self._index(call, root)
        return root

    def tagged(self, key: str, value: str) -> set[str]:
        """What has this tag: moto looks through the tags of everything for it, for each volume anew."""
        return {resource for resource, tags in self._tags.items() if tags.get(key) == value}

    def _index(self, call: Call, root: Element) -> None:
        number_of = {key.split(".")[1] for key in call.parameters if key.startswith("Tag.")}
        given = {call.get(f"Tag.{number}.Key"): call.get(f"Tag.{number}.Value") for number in number_of}
        if call.action in ("CreateVolume", "CreateSnapshot"):
            made = text(root, "volumeId" if call.action == "CreateVolume" else "snapshotId")
            self._tags[made] = {text(tag, "key"): text(tag, "value") for tag in root.iterfind("tagSet/item")}
        for resource in call.many("ResourceId"):
            present = self._tags.setdefault(resource, {})
            self._tags[resource] = {**present, **given} if call.action == "CreateTags" else present
            if call.action == "DeleteTags":
                self._tags[resource] = {key: value for key, value in present.items() if key not in given}
        if call.action in ("DeleteVolume", "DeleteSnapshot"):
            self._tags.pop(call.get("VolumeId") or call.get("SnapshotId"), None)

    def _sent(self, call: Call) -> tuple[bytes, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self._moto_port, timeout=60)
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "Authorization": AUTHORIZATION}
        try:
            connection.request("POST", "/", call.body(), headers)
            response = connection.getresponse()
            return response.read(), response.status
        finally:
            connection.close()

    def _reply(self, asked: Asked) -> Reply | None:
        answer = self.answer(asked.sent, asked.authorization)
        return answer.reply if answer else None

    def answer(self, body: bytes, authorization: str) -> Answer | None:
        """What goes back on the wire; None: the connection breaks."""
        call = Call.read(body)
        with self._lock:
            self.calls[call.action] += 1
            if self.faults.instead:
                return self.faults.instead.pop(0)
            fate = self.faults.at_call.fate(f"{call.action} {call.subject}")
            if fate is Fate.CUT:
                return None
            if fate in ANSWERS:
                status, page = ANSWERS[fate]
                return Answer(body=page, status=status, kind="text/html")
            try:
                if fate in REFUSALS:
                    raise REFUSALS[fate]
                self._admit(call, authorization)
                answer = self._do(call)
            except Refused as refusal:
                self.refused[refusal.code] += 1
                answer = refusal.answer()
            return None if fate is Fate.UNHEARD else answer

    def _admit(self, call: Call, authorization: str) -> None:
        """Raises what EC2 refuses before it looks at the call."""
        faults = self.faults
        known = not faults.keys or any(f"Credential={key}/" in authorization for key in faults.keys)
        if faults.expired or not known:
            raise Refused(faults.expired or "AuthFailure", NOT_VALID, 401)
        if faults.throttle or self._too_fast(call.action):
            faults.throttle = max(0, faults.throttle - 1)
            raise REFUSALS[Fate.THROTTLED]
        if call.action in faults.denied:
            words = "You are not authorized to perform this operation. Encoded authorization failure message: 4GIOHlTkIaWHQD0Q0m6XSnuUMCm"
            raise Refused("UnauthorizedOperation", words, 403)
        if call.get("DryRun") == "true":
            raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        if faults.refusing.get(call.action):
            raise faults.refusing[call.action].pop(0)

    def _too_fast(self, action: str) -> bool:
        if self.rate is None:
            return False
        rate_per_s, burst = self.rate
        tokens, at = self._tokens.get(action, (float(burst), self.now()))
        tokens = min(float(burst), tokens + (self.now() - at) * rate_per_s)
        self._tokens[action] = (tokens - 1 if tokens >= 1 else tokens), self.now()
        return tokens < 1

    def _do(self, call: Call) -> Answer:
        for due in self.ledger.due(self.now()):
            with contextlib.suppress(Refused):
                self.ask(due)
        action = ACTIONS.get(call.action)
        root = action(self, call) if action else self.ask(call)
        if action:
            self.problems += ec2_shapes.problems(call.action, root)
        return serialise(root)
