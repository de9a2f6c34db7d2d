"""The discovery document as rules: which calls there are, what they take, and whether an answer is what it says.

Knows no disk and no state. Requests are judged as Google does (unknown fields refused, read-only ones ignored), answers by the letter.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.peers.gce.errors import ApiError, invalid

Schema = Mapping[str, Any]
TYPES: Mapping[str, type | tuple[type, ...]] = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}
INTEGERS = {"int32": (-(2**31), 2**31), "uint32": (0, 2**32), "int64": (-(2**63), 2**63), "uint64": (0, 2**64)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, as the document reads it."""

    method: str
    """Such as `disks.insert`."""
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: dict[str, Any]
    response: str
    """The schema of its answer."""


class Discovery:
    def __init__(self, file: Path, methods: Iterator[str] | tuple[str, ...]) -> None:
        document = json.loads(file.read_text("utf-8"))
        self.schemas: dict[str, Schema] = document["schemas"]
        self._base, self._common = document["basePath"], document["parameters"]
        self._routes = [self._route(name, document["resources"]) for name in methods]

    def _route(self, name: str, resources: Mapping[str, Any]) -> tuple[str, str, re.Pattern[str], Schema]:
        resource, _, verb = name.partition(".")
        method = resources[resource]["methods"][verb]
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self._base + method["path"])
        return name, method["httpMethod"], re.compile(pattern), method

    def read(self, verb: str, path: str, query: str, body: bytes) -> Call:
        """The call that a request is. Raises ApiError for everything that the document does not allow."""
        name, method, places = self._match(verb, path)
        given = self._query(method, query)
        return Call(
            method=name, path=self._path(method, places), query=given, body=self._body(method, body), response=method["response"]["$ref"]
        )

    def _match(self, verb: str, path: str) -> tuple[str, Schema, dict[str, str]]:
        for name, wanted, pattern, method in self._routes:
            if wanted == verb and (found := pattern.fullmatch(path)):
                return name, method, found.groupdict()
        raise ApiError(404, "notFound", f"The requested URL {path} was not found on this server")

    def _path(self, method: Schema, places: Mapping[str, str]) -> dict[str, str]:
        values = {name: unquote(text) for name, text in places.items()}
        for name, text in values.items():
            self._parameter(name, text, method["parameters"][name])
        return values

    def _query(self, method: Schema, query: str) -> dict[str, str]:
        known = {name: rule for name, rule in method["parameters"].items() if rule["location"] == "query"}
        given = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
        for name, values in given.items():
            rule = known.get(name) or self._common.get(name)
            if rule is None:
                raise ApiError(400, "badRequest", f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.')
            if len(values) > 1 and not rule.get("repeated"):
                raise invalid(name, values, "The parameter must not be repeated.")
            for value in values:
                self._parameter(name, value, rule)
        if missing := [name for name, rule in known.items() if rule.get("required") and name not in given]:
            raise ApiError(400, "required", f"Required parameter '{missing[0]}' not specified")
        return {name: values[0] for name, values in given.items()}

    def _parameter(self, name: str, text: str, rule: Schema) -> None:
        if "pattern" in rule and not re.fullmatch(rule["pattern"], text):
            raise invalid(name, text, f"Must be a match of regex '{rule['pattern']}'")
        if rule["type"] == "boolean" and text not in ("true", "false"):
            raise invalid(name, text, "Must be true or false")
        if rule["type"] == "integer":
            low, high = INTEGERS[rule["format"]]
            if not re.fullmatch(r"-?[0-9]+", text) or not low <= int(text) < high:
                raise invalid(name, text, f"Must be a {rule['format']}")
        if "enum" in rule and text not in rule["enum"]:
            raise invalid(name, text, f"Must be one of {rule['enum']}")

    def _body(self, method: Schema, body: bytes) -> dict[str, Any]:
        if "request" not in method:
            if body.strip() not in (b"", b"{}"):
                raise ApiError(400, "badRequest", "This call takes no body")
            return {}
        try:
            given = json.loads(body)
        except ValueError:
            raise ApiError(400, "parseError", "Parse Error") from None
        schema = self.schemas[method["request"]["$ref"]]
        for name, rule in schema["properties"].items():
            if method["id"] in rule.get("annotations", {}).get("required", ()) and not given.get(name):
                raise ApiError(400, "required", f"Required field 'resource.{name}' not specified")
        read: dict[str, Any] = self._taken(given, schema, "resource")
        return read

    def _taken(self, value: Any, schema: Schema, where: str) -> Any:
        """What a request's value says, without what is Google's alone to write."""
        if "$ref" in schema:
            return self._taken(value, self.schemas[schema["$ref"]], where)
        if schema["type"] == "array":
            if not isinstance(value, list):
                raise ApiError(400, "badRequest", f"{where}: Proto field is not repeating, cannot start list.")
            return [self._taken(item, schema["items"], f"{where}[{number}]") for number, item in enumerate(value)]
        if schema["type"] == "object":
            return self._taken_object(value, schema, where)
        if isinstance(value, int) and not isinstance(value, bool) and schema.get("format") in ("int64", "uint64"):
            value = str(value)
        if problem := self._scalar(value, schema):
            raise invalid(where, value, problem)
        return value

    def _taken_object(self, value: Any, schema: Schema, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ApiError(400, "badRequest", f"Invalid value at '{where}', an object was expected")
        taken = {}
        for name, part in value.items():
            rule = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if rule is None:
                raise ApiError(
                    400, "badRequest", f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
                )
            if not rule.get("readOnly"):
                taken[name] = self._taken(part, rule, f"{where}.{name}")
        return taken

    def _scalar(self, value: Any, schema: Schema) -> str:
        """Why a text, number or boolean is not what the schema says; empty if it is."""
        kind, form = schema["type"], schema.get("format")
        if not isinstance(value, TYPES[kind]):
            return f"It must be a {kind}"
        if "enum" in schema and value not in schema["enum"]:
            return f"It must be one of {schema['enum']}"
        if "pattern" in schema and not re.fullmatch(schema["pattern"], str(value)):
            return f"Must be a match of regex '{schema['pattern']}'"
        return self._formatted(value, form) if form else ""

    def _formatted(self, value: Any, form: str) -> str:
        if form in INTEGERS:
            low, high = INTEGERS[form]
            if not re.fullmatch(r"-?[0-9]+", str(value)) or not low <= int(value) < high:
                return f"It must be an {form}"
        if form == "byte":
            try:
                base64.b64decode(value, altchars=b"-_", validate=True)
            except binascii.Error:
                return "It must be base64"
        return ""

    def problems(self, value: Any, schema: Schema, where: str = "answer") -> list[str]:
        """What an answer has that the schema does not allow."""
        if "$ref" in schema:
            return self.problems(value, self.schemas[schema["$ref"]], where)
        if schema["type"] == "array":
            if not isinstance(value, list):
                return [f"{where} is no list"]
            return [text for number, item in enumerate(value) for text in self.problems(item, schema["items"], f"{where}[{number}]")]
        if schema["type"] != "object":
            return [f"{where} is {value!r}: {reason}"] if (reason := self._scalar(value, schema)) else []
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        return [text for name, part in value.items() for text in self._field(name, part, schema, where)]

    def _field(self, name: str, value: Any, schema: Schema, where: str) -> list[str]:
        rule = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        if rule is None:
            return [f"{where} has a field {name} that the schema does not have"]
        if name == "kind" and value != rule.get("default"):
            return [f"{where}.kind is {value!r}, not {rule.get('default')!r}"]
        return self.problems(value, rule, f"{where}.{name}")
