"""Whether an answer has the shape that Amazon's own model of EC2 says: names, types, the values of enumerations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element

import botocore.session


@cache
def _model() -> Any:
    return botocore.session.get_session().get_service_model("ec2")


def problems(action: str, root: Element) -> list[str]:
    """What in this answer is not as the model says; the element's path and what is wrong."""
    shape = _model().operation_model(action).output_shape
    return [] if shape is None else list(_structure(shape, root, action, {"requestId"}))


def _structure(shape: Any, element: Element, path: str, more: set[str]) -> Iterator[str]:
    members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    for child in element:
        if child.tag in members:
            yield from _value(members[child.tag], child, f"{path}.{child.tag}")
        elif child.tag not in more:
            yield f"{path}.{child.tag} is not in the model"


def _value(shape: Any, element: Element, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        yield from _structure(shape, element, path, set())
    elif shape.type_name == "list":
        for item in element:
            if item.tag != shape.member.serialization.get("name", "item"):
                yield f"{path} has {item.tag} among its items"
            yield from _value(shape.member, item, path)
    else:
        yield from _scalar(shape, element.text or "", path)


def _scalar(shape: Any, text: str, path: str) -> Iterator[str]:
    if getattr(shape, "enum", None) and text not in shape.enum:
        yield f"{path} is {text!r}, not one of {', '.join(shape.enum)}"
    if shape.type_name in ("integer", "long") and not text.removeprefix("-").isdigit():
        yield f"{path} is {text!r}, not a whole number"
    if shape.type_name == "boolean" and text not in ("true", "false"):
        yield f"{path} is {text!r}, neither true nor false"
    if shape.type_name == "timestamp":
        try:
            datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            yield f"{path} is {text!r}, not a time"
