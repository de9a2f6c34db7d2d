"""App definitions are read whole: what is right becomes an App, and everything that is wrong is named at once."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from framework.marathon.model import Backoff, Constraint, KillSelection, Port, UnreachableStrategy, UpgradeStrategy
from framework.marathon.problems import InvalidApp
from framework.marathon.reading import parse_app, read_app
from framework.marathon.rules import check_against, check_instances
from framework.marathon.writing import to_json
from offers.ask import Operator
from storage.errors import Invalid, NotYet

MINIMAL = {"id": "/a", "cmd": "sleep 1"}


def problems(definition: object) -> dict[str, str]:
    with pytest.raises(InvalidApp) as caught:
        read_app(definition)
    return {problem.where: problem.message for problem in caught.value.problems}


def refused(**fields: Any) -> NotYet:
    with pytest.raises(NotYet) as caught:
        read_app({**MINIMAL, **fields})
    return caught.value


def test_defaults_are_marathons() -> None:
    app = read_app(MINIMAL)
    assert (app.cpus, app.mem_mib, app.disk_mib, app.gpus, app.instances) == (1.0, 128.0, 0.0, 0, 1)
    assert app.backoff == Backoff(seconds=1, factor=1.15, max_delay_s=300)
    assert app.ports == (Port(name="default"),)
    assert app.unreachable == UnreachableStrategy(inactive_after_s=0, expunge_after_s=0)
    assert app.upgrade == UpgradeStrategy(minimum_health_capacity=1, maximum_over_capacity=1)


def test_everything_that_is_used_is_read() -> None:
    app = read_app(
        {
            "id": "shop/db",
            "args": ["/bin/db", "--fast", ""],
            "env": {"A": "1", "EMPTY": ""},
            "user": "nobody",
            "cpus": 0.5,
            "mem": 64,
            "disk": 10.5,
            "gpus": 1,
            "instances": 3,
            "portDefinitions": [{"port": 8080, "name": "http", "protocol": "udp,tcp", "labels": {"v": "1"}}, {"port": 0}],
            "requirePorts": True,
            "constraints": [["hostname", "unique"], ["@zone", "GROUP_BY", "2"], ["rack", "LIKE", "r[12]"]],
            "backoffSeconds": 2,
            "backoffFactor": 2,
            "maxLaunchDelaySeconds": 10,
            "taskKillGracePeriodSeconds": 7,
            "unreachableStrategy": {"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120},
            "upgradeStrategy": {"minimumHealthCapacity": 0.3},
            "killSelection": "OldestFirst",
            "labels": {"team": "a"},
            "role": "prod/db",
            "acceptedResourceRoles": ["*", "prod/db"],
            "version": "2015-04-02T09:37:00.596Z",
        }
    )
    assert (app.app_id, app.args, app.cmd, app.env, app.user) == (
        "/shop/db",
        ("/bin/db", "--fast", ""),
        None,
        {"A": "1", "EMPTY": ""},
        "nobody",
    )
    assert (app.cpus, app.mem_mib, app.disk_mib, app.gpus, app.instances) == (0.5, 64, 10.5, 1, 3)
    assert app.ports == (Port(port=8080, name="http", protocol="tcp,udp", labels={"v": "1"}), Port())
    assert app.require_ports
    assert app.constraints[0] == Constraint(field="hostname", operator=Operator.UNIQUE)
    assert app.constraints[1] == Constraint(field="@zone", operator=Operator.GROUP_BY, value="2")
    assert app.backoff == Backoff(seconds=2, factor=2, max_delay_s=10)
    assert app.kill_grace_s == 7
    assert app.unreachable == UnreachableStrategy(inactive_after_s=60, expunge_after_s=120)

    assert app.upgrade == UpgradeStrategy(minimum_health_capacity=0.3, maximum_over_capacity=1)
    assert app.kill_selection is KillSelection.OLDEST_FIRST
    assert (app.labels, app.role, app.accepted_roles) == ({"team": "a"}, "prod/db", ("*", "prod/db"))
    assert app.version == "2015-04-02T09:37:00.596Z"
    assert read_app(to_json(app)) == app


def test_an_app_with_volumes_of_its_own_is_not_forgotten_for_a_week_unless_it_says_otherwise() -> None:
    volume = {"containerPath": "d", "persistent": {"size": 1}}
    for strategy, expunge_after_s in (
        (None, 604_800),
        ({}, 604_800),
        ({"inactiveAfterSeconds": 1e6}, 1e6),
        ({"expungeAfterSeconds": 0}, 0),
    ):
        stated = {} if strategy is None else {"unreachableStrategy": strategy}
        app = read_app({"id": "/db", "cmd": "x", "container": {"volumes": [volume]}, **stated})
        assert app.unreachable
        assert app.unreachable.expunge_after_s == expunge_after_s
    host = {"containerPath": "d", "hostPath": "/var", "mode": "RO"}
    assert read_app({"id": "/db", "cmd": "x", "container": {"volumes": [host]}}).unreachable == UnreachableStrategy()


def test_unknown_fields_are_named_with_path_value_and_nearest_name() -> None:
    volume = {"containerPath": "data", "persistent": {"sise": 64}}
    found = problems({**MINIMAL, "commands": "x", "container": {"volumes": [volume]}})
    assert found["container.volumes[0].persistent.sise"] == "is no field here (its value is 64; did you mean 'size'?)"
    assert found["container.volumes[0].persistent.size"] == "is required"
    assert found["commands"].startswith('is no field here (its value is "x")')


def test_all_errors_are_reported_together_with_marathons_paths() -> None:
    with pytest.raises(InvalidApp) as caught:
        read_app({"id": "/A b", "cpus": "1", "instances": -1, "mem": True, "constraints": [["a", "NEAR"]], "env": {"A": 1}})
    paths = {problem.marathon_path for problem in caught.value.problems}
    assert paths == {"/id", "/cpus", "/instances", "/mem", "/constraints(0)(1)", "/env/A", "/"}
    assert "cpus: must be a number" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("id", "/", "id"),
        ("id", "/a/../b", "id"),
        ("id", "/a/tasks", "id"),
        ("id", "/" + "a" * 200, "id"),
        ("id", None, "id"),
        ("cmd", "", "cmd"),
        ("cmd", "a\0b", "cmd"),
        ("cmd", "\ud800", "cmd"),
        ("args", ["x"], "app"),
        ("cpus", 0, "cpus"),
        ("cpus", float("nan"), "cpus"),
        ("mem", -1, "mem"),
        ("mem", 10**400, "mem"),
        ("instances", 1.5, "instances"),
        ("instances", 2**31, "instances"),
        ("env", {"A=B": "x"}, "env.A=B"),
        ("env", [], "env"),
        ("labels", {"a": 1}, "labels.a"),
        ("requirePorts", "yes", "requirePorts"),
        ("portDefinitions", [{"port": 70000}], "portDefinitions[0].port"),
        ("portDefinitions", [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}], "portDefinitions"),
        ("ports", [80, 80], "ports"),
        ("ports", [-1], "ports[0]"),
        ("constraints", [["hostname", "UNIQUE", "x"]], "constraints[0]"),
        ("constraints", [["hostname", "LIKE", "("]], "constraints[0]"),
        ("constraints", [["hostname", "LIKE"]], "constraints[0]"),
        ("constraints", [["hostname", "MAX_PER"]], "constraints[0]"),
        ("constraints", [["hostname", "GROUP_BY", "0"]], "constraints[0]"),
        ("constraints", [["hostname", "IS"]], "constraints[0]"),
        ("constraints", ["hostname:UNIQUE"], "constraints[0]"),
        ("backoffFactor", 0.5, "backoffFactor"),
        ("unreachableStrategy", "off", "unreachableStrategy"),
        ("unreachableStrategy", {"inactiveAfterSeconds": 9, "expungeAfterSeconds": 8}, "unreachableStrategy.expungeAfterSeconds"),
        ("upgradeStrategy", {"maximumOverCapacity": 2}, "upgradeStrategy.maximumOverCapacity"),
        ("killSelection", "Random", "killSelection"),
        ("role", "../x", "role"),
        ("acceptedResourceRoles", [], "acceptedResourceRoles"),
        ("container", {"type": "PODMAN"}, "container.type"),
        ("container", [], "container"),
    ],
)
def test_each_rule_names_its_field(field: str, value: Any, where: str) -> None:
    assert where in problems({**MINIMAL, field: value})


def test_roles_must_be_the_apps_own() -> None:
    assert "acceptedResourceRoles[1]" in problems({**MINIMAL, "role": "a", "acceptedResourceRoles": ["a", "b"]})


def test_cmd_or_args_is_needed() -> None:
    assert problems({"id": "/a"}) == {"app": "must have cmd or args"}
    assert "args[0]" in problems({"id": "/a", "args": [""]})


def test_deprecated_forms_are_read() -> None:
    app = read_app(
        {"id": "/a", "cmd": None, "args": ["x"], "ports": [0, 8080], "uris": [], "residency": {"taskLostBehavior": "WAIT_FOREVER"}}
    )
    assert (app.cmd, app.ports) == (None, (Port(), Port(port=8080)))
    assert read_app({**MINIMAL, "ports": []}).ports == ()
    assert read_app({**MINIMAL, "ports": [1], "portDefinitions": [{"port": 1, "name": "a"}]}).ports == (Port(port=1, name="a"),)
    assert "ports" in problems({**MINIMAL, "ports": [1], "portDefinitions": [{"port": 2}]})


def test_what_is_switched_off_explicitly_is_fine() -> None:
    app = read_app(
        {
            **MINIMAL,
            "executor": "//cmd",
            "fetch": [],
            "healthChecks": [],
            "readinessChecks": [],
            "secrets": {},
            "dependencies": [],
            "networks": [{"mode": "host"}],
            "tty": False,
            "ipAddress": None,
            "container": {"type": "MESOS", "portMappings": [], "volumes": []},
        }
    )
    assert app == read_app(MINIMAL)


@pytest.mark.parametrize(
    ("fields", "name", "what"),
    [
        (
            {"container": {"type": "MESOS", "docker": {"image": "nginx", "network": "BRIDGE", "portMappings": [{}]}}},
            "container.docker",
            "Docker images",
        ),
        ({"container": {"type": "DOCKER", "docker": {"image": "nginx"}}}, "container.type", "the Docker engine"),
        ({"container": {"appc": {"image": "x"}}}, "container.appc", "AppC images"),
        ({"container": {"linuxInfo": {"seccomp": {"unconfined": True}}}}, "container.linuxInfo", "Linux container settings"),
        ({"container": {"portMappings": [{"containerPort": 80, "networkNames": ["n"]}]}}, "container.portMappings", "port mappings"),
        ({"healthChecks": [{"protocol": "MESOS_HTTP", "path": "/", "portIndex": 0}]}, "healthChecks", "health checks"),
        ({"check": {"exec": {"command": {"shell": "true"}}}}, "check", "checks"),
        ({"readinessChecks": [{"portName": "http"}]}, "readinessChecks", "readiness checks"),
        ({"fetch": [{"uri": "http://x/y"}]}, "fetch", "files to fetch"),
        ({"uris": ["http://x/y"]}, "uris", "files to fetch"),
        ({"secrets": {"s": {"source": "/s"}}}, "secrets", "secrets"),
        ({"secrets": {"s": {"source": "/s"}}, "env": {"A": {"secret": "s"}}}, "env.A", "secrets"),
        ({"networks": [{"name": "n"}]}, "networks", "container networks"),
        ({"ipAddress": {"discovery": {"ports": [{"name": "a", "number": 80}]}}}, "ipAddress", "an IP address per task"),
        ({"executorResources": {"cpus": 0.1}}, "executorResources", "resources for the executor"),
        ({"resourceLimits": {"cpus": "unlimited", "mem": 64}}, "resourceLimits", "resource limits"),
        ({"dependencies": ["/b"]}, "dependencies", "dependencies between apps"),
        ({"tty": True}, "tty", "a terminal"),
        ({"executor": "/my/executor"}, "executor", "an executor of the app's own"),
    ],
)
def test_what_is_not_done_yet_is_refused_by_name(fields: dict[str, Any], name: str, what: str) -> None:
    error = refused(**fields)
    assert name in error.fields["field"]
    assert what in error.fields["what"]


def test_slips_in_parts_that_are_not_done_yet_are_named_too() -> None:
    found = problems({**MINIMAL, "healthChecks": [{"protocol": "FTP", "intervalSecs": 1}], "check": {"tcp": {}, "http": {}}})
    assert {"healthChecks[0].protocol", "healthChecks[0].intervalSecs", "check"} <= found.keys()
    assert found["healthChecks"] == "asks for health checks, which Polly does not do yet"


def test_not_an_object_and_not_json() -> None:
    assert "must be an object" in problems([1])["app"]
    with pytest.raises(Invalid, match="not JSON"):
        parse_app('{"id": ')
    with pytest.raises(Invalid, match="not JSON"):
        parse_app(b"\xff\xfe")
    assert parse_app('{"id": "/a", "cmd": "x"}').app_id == "/a"


def dvdi(app_id: str, *, shared: bool = False) -> dict[str, Any]:
    external = {"provider": "dvdi", "name": "v", "shared": shared, "options": {"dvdi/driver": "fast"}}
    return {**MINIMAL, "id": app_id, "container": {"volumes": [{"containerPath": "d", "external": external}]}}


def test_external_names_are_unique_across_apps_unless_all_share() -> None:
    one, two = read_app(dvdi("/one")), read_app(dvdi("/two"))
    with pytest.raises(InvalidApp, match="used by app /two"):
        check_against(one, [two])
    with pytest.raises(InvalidApp, match="not both apps share it"):
        check_against(read_app(dvdi("/one", shared=True)), [two])
    check_against(read_app(dvdi("/one", shared=True)), [read_app(dvdi("/two", shared=True))])
    check_against(one, [one, read_app(MINIMAL)])


def test_scaling_keeps_to_what_the_volumes_allow() -> None:
    with pytest.raises(InvalidApp, match="only 1 instance, not 2"):
        check_instances(replace(read_app(dvdi("/one")), instances=2))
    with pytest.raises(InvalidApp, match="MARATHON_SINGLE_INSTANCE_APP"):
        check_instances(replace(read_app({**MINIMAL, "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"}}), instances=2))
    check_instances(replace(read_app(MINIMAL), instances=5))


def test_single_instance_label_sets_its_upgrade_strategy() -> None:
    single = {**MINIMAL, "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"}}
    assert read_app(single).upgrade == UpgradeStrategy(minimum_health_capacity=0, maximum_over_capacity=0)
    assert {"instances", "upgradeStrategy"} <= problems({**single, "instances": 2, "upgradeStrategy": {"minimumHealthCapacity": 1}}).keys()
