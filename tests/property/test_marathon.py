"""Whatever is submitted, the answer is an App or a declared error; and an App survives the way to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from framework.marathon.model import App
from framework.marathon.problems import InvalidApp
from framework.marathon.reading import parse_app, read_app
from framework.marathon.writing import to_json
from storage.errors import Invalid, NotYet

TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=3)
NUMBERS = st.floats(0, 1e6, allow_nan=False)
CONSTRAINTS = st.one_of(
    st.tuples(TEXTS, st.sampled_from(["UNIQUE", "CLUSTER", "GROUP_BY", "unique"])),
    st.tuples(TEXTS, st.sampled_from(["IS", "CLUSTER"]), TEXTS),
    st.tuples(TEXTS, st.sampled_from(["MAX_PER", "GROUP_BY"]), st.integers(1, 99).map(str)),
    st.tuples(TEXTS, st.sampled_from(["LIKE", "UNLIKE"]), st.just("r[0-9]+")),
).map(list)
PORTS = st.lists(
    st.fixed_dictionaries({"port": st.just(0)}, optional={"labels": LABELS, "protocol": st.sampled_from(["tcp", "udp", "udp,tcp"])})
)
PERSISTENT = st.fixed_dictionaries({"size": st.integers(1, 2**40)}, optional={"profileName": TEXTS})
DVDI = st.builds(
    lambda name, size, shared, extra: {
        "provider": "dvdi",
        "name": name,
        "size": size,
        "shared": shared,
        "options": {"dvdi/driver": "fast", **extra},
    },
    NAMES,
    st.none() | st.integers(1, 2**30),
    st.booleans(),
    st.dictionaries(st.sampled_from(["dvdi/iops", "dvdi/volumetype", "dvdi/size", "my/own"]), st.integers(1, 99).map(str)),
)
CSI = st.builds(
    lambda name, context, flags: {
        "provider": "csi",
        "name": name,
        "options": {
            "pluginName": "fast",
            "capability": {"accessMode": "MULTI_NODE_MULTI_WRITER", "accessType": "mount", "mountFlags": flags},
            "volumeContext": context,
        },
    },
    NAMES,
    LABELS,
    st.lists(TEXTS, max_size=2),
)
SOURCES = st.one_of(
    PERSISTENT.map(lambda value: {"persistent": value}),
    st.one_of(DVDI, CSI).map(lambda value: {"external": value}),
    NAMES.map(lambda name: {"hostPath": f"/{name}", "mode": "RO"}),
)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Definitions that keep every rule."""
    sources = draw(st.lists(SOURCES, max_size=3))
    names = draw(st.lists(NAMES, min_size=3, max_size=3, unique=True))
    externals = [source["external"]["name"] for source in sources if "external" in source]
    fields = draw(
        st.fixed_dictionaries(
            {"id": NAMES.map(lambda name: f"/{name}"), "cmd": TEXTS},
            optional={
                "cpus": st.floats(0.001, 64),
                "mem": NUMBERS,
                "disk": NUMBERS,
                "gpus": st.integers(0, 8),
                "instances": st.integers(0, 1),
                "env": st.dictionaries(TEXTS.filter(lambda name: "=" not in name), TEXTS, max_size=3),
                "labels": LABELS,
                "constraints": st.lists(CONSTRAINTS, max_size=3),
                "portDefinitions": PORTS,
                "requirePorts": st.booleans(),
                "backoffSeconds": NUMBERS,
                "backoffFactor": st.floats(1, 10),
                "maxLaunchDelaySeconds": NUMBERS,
                "taskKillGracePeriodSeconds": NUMBERS,
                "unreachableStrategy": st.just("disabled") | st.builds(lambda n: {"inactiveAfterSeconds": n}, NUMBERS),
                "killSelection": st.sampled_from(["YOUNGEST_FIRST", "OldestFirst"]),
                "user": TEXTS,
                "version": TEXTS,
            },
        )
    )
    if len(set(externals)) == len(externals):
        fields["container"] = {"volumes": [{"containerPath": name, **source} for name, source in zip(names, sources, strict=False)]}
    return fields


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(definitions())
@settings(max_examples=150)
def test_an_app_survives_the_way_to_json_and_back(definition: dict[str, Any]) -> None:
    app = read_app(definition)
    assert parse_app(json.dumps(to_json(app))) == app


@given(ANYTHING)
@settings(max_examples=150)
def test_anything_at_all_is_read_or_refused(definition: object) -> None:
    _read_or_refuse(definition)


@given(definitions(), st.data())
@settings(max_examples=300)
def test_a_definition_with_something_else_in_it_is_read_or_refused(definition: dict[str, Any], data: st.DataObject) -> None:
    spot: Any = definition
    while isinstance(spot, dict | list) and spot:
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        if not isinstance(spot[key], dict | list) or data.draw(st.booleans()):
            spot[key] = data.draw(ANYTHING)
            break
        spot = spot[key]
    _read_or_refuse(definition)


LATER = [
    "healthChecks", "check", "readinessChecks", "fetch", "uris", "secrets", "networks", "ipAddress", "executorResources",
    "resourceLimits", "dependencies", "tty", "executor", "residency", "versionInfo", "container", "ports", "upgradeStrategy",
]  # fmt: skip


@given(st.sampled_from(LATER), ANYTHING | st.lists(ANYTHING, max_size=2))
@settings(max_examples=200)
def test_any_value_of_any_part_is_read_or_refused(part: str, value: object) -> None:
    _read_or_refuse({"id": "/a", "cmd": "x", part: value})


@given(st.binary(max_size=30) | st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    assert _outcome(parse_app, text)


def _read_or_refuse(definition: object) -> None:
    outcome = _outcome(read_app, definition)
    assert outcome
    if isinstance(outcome, App):
        assert read_app(to_json(outcome)) == outcome


def _outcome(read: Callable[[Any], App], definition: object) -> App | str:
    """The App, or the sentence of the declared error."""
    try:
        return read(definition)
    except (Invalid, InvalidApp, NotYet) as error:
        return str(error)
