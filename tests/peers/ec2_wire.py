"""EC2's query protocol as a server sees it: a call's flat parameters, and answers in XML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from tests.peers.loopback import Reply

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    action: str
    parameters: Mapping[str, str]

    @classmethod
    def read(cls, body: bytes) -> Call:
        parameters = dict(parse_qsl(body.decode(), keep_blank_values=True))
        return cls(action=parameters.get("Action", ""), parameters=parameters)

    def get(self, name: str) -> str:
        return self.parameters.get(name, "")

    @property
    def subject(self) -> str:
        """What it is about, where that is one thing."""
        return next((found for name in ("VolumeId", "SnapshotId", "ResourceId.1") if (found := self.get(name))), "")

    def many(self, name: str) -> list[str]:
        """`VolumeId.1`, `VolumeId.2`, ... in their order."""
        found = ((match, value) for key, value in self.parameters.items() if (match := re.fullmatch(rf"{name}\.(\d+)", key)))
        return [value for _, value in sorted(found, key=lambda pair: int(pair[0][1]))]

    def filters(self) -> dict[str, list[str]]:
        numbers = sorted({int(match[1]) for key in self.parameters if (match := re.match(r"Filter\.(\d+)\.", key))})
        return {self.get(f"Filter.{number}.Name"): self.many(f"Filter.{number}.Value") for number in numbers}

    def changed(self, **parameters: str) -> Call:
        return Call(action=self.action, parameters={**self.parameters, **parameters})

    def without(self, *patterns: str) -> Call:
        """Without the parameters whose whole names match one of the patterns."""
        kept = {key: value for key, value in self.parameters.items() if not any(re.fullmatch(pattern, key) for pattern in patterns)}
        return Call(action=self.action, parameters=kept)

    def with_filters(self, filters: Mapping[str, Sequence[str]]) -> Call:
        parameters = dict(self.without(r"Filter\..*").parameters)
        for number, (name, values) in enumerate(filters.items(), 1):
            parameters[f"Filter.{number}.Name"] = name
            parameters |= {f"Filter.{number}.Value.{place}": value for place, value in enumerate(values, 1)}
        return Call(action=self.action, parameters=parameters)

    def body(self) -> bytes:
        return urlencode(dict(self.parameters)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    body: bytes
    status: int = 200
    kind: str = "text/xml;charset=UTF-8"

    @property
    def reply(self) -> Reply:
        return Reply(status=self.status, body=self.body, kind=self.kind)


@dataclass(slots=True)
class Refused(Exception):
    """What EC2 refuses: its code, its text."""

    code: str
    message: str
    status: int = field(default=400)

    def answer(self) -> Answer:
        root = Element("Response")
        error = SubElement(SubElement(root, "Errors"), "Error")
        SubElement(error, "Code").text, SubElement(error, "Message").text = self.code, self.message
        SubElement(root, "RequestID").text = "0f1e2d3c-0000-4000-8000-000000000000"
        return Answer(body=ElementTree.tostring(root), status=self.status)


def parse(body: bytes) -> Element:
    """The tree without its namespace."""
    root = ElementTree.fromstring(body)  # noqa: S314 (a server of our own on loopback sent it)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def serialise(root: Element) -> Answer:
    root.set("xmlns", NAMESPACE)
    return Answer(body=ElementTree.tostring(root))


def answer_to(action: str, **texts: str) -> Element:
    """An answer of ours, with these elements in it."""
    root = Element(f"{action}Response")
    SubElement(root, "requestId").text = "0f1e2d3c-0000-4000-8000-000000000000"
    for name, text in texts.items():
        SubElement(root, name).text = text
    return root


def text(element: Element | None, path: str) -> str:
    found = element.find(path) if element is not None else None
    return (found.text or "") if found is not None else ""


def put(element: Element, name: str, value: str) -> None:
    """Sets the text of a child, which is made if it is not there."""
    child = element.find(name)
    if child is None:
        child = SubElement(element, name)
    child.text = value
