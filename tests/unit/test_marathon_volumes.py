"""Every volume form of a definition, and each of its rules."""

from __future__ import annotations

from typing import Any

import pytest

from framework.marathon.model import Constraint, ExternalVolume, HostVolume, PersistentVolume, UpgradeStrategy
from framework.marathon.problems import InvalidApp
from framework.marathon.reading import read_app
from framework.marathon.writing import to_json
from offers.ask import Operator
from storage.errors import NotYet
from storage.model import Access, AccessMode

PERSISTENT = {"containerPath": "data", "mode": "RW", "persistent": {"size": 64}}
DVDI = {"containerPath": "data", "external": {"provider": "dvdi", "name": "pg", "size": 2, "options": {"dvdi/driver": "fast"}}}
CAPABILITY = {"accessMode": "SINGLE_NODE_WRITER", "accessType": "mount"}
CSI = {"containerPath": "data", "external": {"provider": "csi", "name": "pg", "options": {"pluginName": "fast", "capability": CAPABILITY}}}


def definition(*volumes: object, **fields: Any) -> dict[str, Any]:
    return {"id": "/a", "cmd": "x", "container": {"volumes": list(volumes)}, **fields}


def one(volume: object, **fields: Any) -> Any:
    app = read_app(definition(volume, **fields))
    assert read_app(to_json(app)) == app
    return app.volumes[0]


def wrong(*volumes: object, **fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidApp) as caught:
        read_app(definition(*volumes, **fields))
    return {problem.where.removeprefix("container.volumes"): problem.message for problem in caught.value.problems}


def changed(volume: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The volume with fields of its source (or of its external options) changed."""
    source = "persistent" if "persistent" in volume else "external"
    return {**volume, source: {**volume[source], **changes}}


def dvdi(**options: str) -> dict[str, Any]:
    return changed(DVDI, options={"dvdi/driver": "fast", **{f"dvdi/{name}": value for name, value in options.items()}})


def csi(mode: str = "SINGLE_NODE_WRITER", access: str = "RW", **options: Any) -> dict[str, Any]:
    merged = {"pluginName": "fast", "capability": {**CAPABILITY, "accessMode": mode}, **options}
    return {**changed(CSI, options=merged), "mode": access}


def test_persistent() -> None:
    assert one(PERSISTENT) == PersistentVolume(container_path="data", size_mib=64)
    full = {"size": 64, "profileName": "fast", "maxSize": 128, "constraints": [["path", "LIKE", "/dev/.*"]]}
    assert one({"containerPath": "data", "persistent": full}) == PersistentVolume(
        container_path="data",
        size_mib=64,
        profile="fast",
        kind="mount",
        max_size_mib=128,
        constraints=(Constraint(field="path", operator=Operator.LIKE, value="/dev/.*"),),
    )


@pytest.mark.parametrize("path", ["a/b", "/a", ".", ".."])
def test_persistent_path_is_a_plain_name(path: str) -> None:
    assert "[0].containerPath" in wrong({**PERSISTENT, "containerPath": path})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 0}, "size"),
        ({"size": "64"}, "size"),
        ({"type": "disk"}, "type"),
        ({"type": "root", "profileName": "fast"}, "type"),
        ({"maxSize": 128}, "maxSize"),
        ({"type": "mount", "maxSize": 64}, "maxSize"),
        ({"constraints": [["path", "LIKE", "x"]]}, "constraints"),
        ({"type": "path", "constraints": [["path", "IS", "x"]]}, "constraints[0]"),
        ({"type": "path", "constraints": [["zone", "LIKE", "x"]]}, "constraints[0]"),
        ({"type": "path", "constraints": [["path", "LIKE", "("]]}, "constraints[0][2]"),
    ],
)
def test_persistent_rules(changes: dict[str, Any], field: str) -> None:
    assert f"[0].persistent.{field}" in wrong(changed(PERSISTENT, **changes))


def test_persistent_is_written_by_its_one_owner() -> None:
    assert "[0].mode" in wrong({**PERSISTENT, "mode": "RO"})
    app = read_app(definition(PERSISTENT, instances=3))
    assert app.stateful
    assert app.upgrade == UpgradeStrategy(minimum_health_capacity=0.5, maximum_over_capacity=0)
    assert "upgradeStrategy.maximumOverCapacity" in wrong(PERSISTENT, upgradeStrategy={"maximumOverCapacity": 0.5})


def test_dvdi() -> None:
    volume = one(dvdi(newfstype="xfs", iops="100", volumetype="gp2", overwritefs="false"))
    assert isinstance(volume, ExternalVolume)
    assert (volume.provider, volume.name, volume.driver, volume.size_mib, volume.filesystem) == ("dvdi", "pg", "fast", 2048, "xfs")
    assert volume.parameters == {"iops": "100", "volumetype": "gp2"}
    assert not volume.shared
    assert one(changed(DVDI, shared=True)).shared


def test_dvdi_size_is_gib_and_the_field_wins_over_the_option() -> None:
    assert one(dvdi(size="9")).size_mib == 2 * 1024
    assert one(changed(dvdi(size="9"), size=None)).size_mib == 9 * 1024
    assert one(changed(DVDI, size=None)).size_mib is None


@pytest.mark.parametrize(
    ("volume", "where"),
    [
        (changed(DVDI, options={}), "[0].external.options.dvdi/driver"),
        (changed(DVDI, name="-pg"), "[0].external.name"),
        (changed(DVDI, name=None), "[0].external.name"),
        (changed(DVDI, provider="rexray"), "[0].external.provider"),
        (changed(DVDI, size=0), "[0].external.size"),
        ({**DVDI, "mode": "RO"}, "[0].mode"),
        (dvdi(iops="0"), "[0].external.options.dvdi/iops"),
        (dvdi(size="x"), "[0].external.options.dvdi/size"),
        (dvdi(size="\u0663"), "[0].external.options.dvdi/size"),
        (dvdi(newfstype="ntfs"), "[0].external.options.dvdi/newfstype"),
        (dvdi(overwritefs="true"), "[0].external.options.dvdi/overwritefs"),
        (changed(DVDI, options={"dvdi/driver": "fast", "plain": "x"}), "[0].external.options.plain"),
        (changed(DVDI, capability={}), "[0].external.capability"),
    ],
)
def test_dvdi_rules(volume: dict[str, Any], where: str) -> None:
    assert where in wrong(volume)


def test_dvdi_is_for_one_instance() -> None:
    assert "only 1 instance, not 2" in wrong(DVDI, instances=2)["[0].external"]
    assert "upgradeStrategy.maximumOverCapacity" in wrong(DVDI, upgradeStrategy={"maximumOverCapacity": 1})


def test_dvdi_with_docker_takes_only_a_driver() -> None:
    docker = {"type": "DOCKER", "docker": {"image": "x"}, "volumes": [DVDI]}
    with pytest.raises(InvalidApp, match="only the option dvdi/driver"):
        read_app({"id": "/a", "cmd": "x", "container": docker})


def test_csi() -> None:
    volume = one(
        csi(
            "MULTI_NODE_READER_ONLY",
            "RO",
            capability={**CAPABILITY, "accessMode": "MULTI_NODE_READER_ONLY", "fsType": "ext4", "mountFlags": ["noatime"]},
            volumeContext={"tier": "gold"},
        )
    )
    assert volume == ExternalVolume(
        container_path="data",
        access=Access.RO,
        provider="csi",
        name="pg",
        driver="fast",
        access_mode=AccessMode.MULTI_NODE_READER_ONLY,
        filesystem="ext4",
        mount_options=("noatime",),
        options={"tier": "gold"},
    )


@pytest.mark.parametrize(
    ("volume", "where"),
    [
        (changed(CSI, options=None), "[0].external.options"),
        (changed(CSI, options={"capability": CAPABILITY}), "[0].external.options.pluginName"),
        (changed(CSI, options={"pluginName": "x"}), "[0].external.options.capability"),
        (csi(capability={"accessMode": "SINGLE_NODE_WRITER"}), "[0].external.options.capability.accessType"),
        (csi("ANY"), "[0].external.options.capability.accessMode"),
        (csi(capability={**CAPABILITY, "fsType": "ntfs"}), "[0].external.options.capability.fsType"),
        (csi(volumeContext={"a": 1}), "[0].external.options.volumeContext.a"),
        (csi("MULTI_NODE_READER_ONLY", "RW"), "[0].external"),
        (csi("SINGLE_NODE_READER_ONLY", "RW"), "[0].external"),
        (changed(CSI, size=1), "[0].external.size"),
        (csi(plugin="x"), "[0].external.options.plugin"),
    ],
)
def test_csi_rules(volume: dict[str, Any], where: str) -> None:
    assert where in wrong(volume)


@pytest.mark.parametrize(
    ("mode", "access", "fine"),
    [
        ("SINGLE_NODE_WRITER", "RW", False),
        ("SINGLE_NODE_READER_ONLY", "RO", False),
        ("MULTI_NODE_READER_ONLY", "RO", True),
        ("MULTI_NODE_SINGLE_WRITER", "RW", False),
        ("MULTI_NODE_SINGLE_WRITER", "RO", True),
        ("MULTI_NODE_MULTI_WRITER", "RW", True),
    ],
)
def test_csi_access_modes_bound_the_instances(mode: str, access: str, fine: bool) -> None:
    if fine:
        assert read_app(definition(csi(mode, access), instances=2)).instances == 2
    else:
        assert "allows only 1 instance" in wrong(csi(mode, access), instances=2)["[0].external"]


@pytest.mark.parametrize(
    ("volume", "what"),
    [
        (csi(nodeStageSecret={"a": "b"}), "secrets"),
        (csi(nodePublishSecret={"a": "b"}), "secrets"),
        (csi(capability={**CAPABILITY, "accessType": "block"}), "raw block devices"),
        ({"containerPath": "s", "secret": "db"}, "secrets"),
        ({**DVDI, "containerPath": "/data"}, "a path outside the task's sandbox"),
    ],
)
def test_forms_that_are_not_done_yet(volume: dict[str, Any], what: str) -> None:
    with pytest.raises(NotYet) as caught:
        read_app(definition(volume))
    assert caught.value.fields["what"] == what


def test_host() -> None:
    assert one({"containerPath": "logs", "hostPath": "/var/log", "mode": "RO"}) == HostVolume(
        container_path="logs", host_path="/var/log", access=Access.RO
    )
    for path in ("var/log", "/var/../etc"):
        assert "[0].hostPath" in wrong({"containerPath": "logs", "hostPath": path})


@pytest.mark.parametrize("path", ["..", "a/../../b", "."])
def test_no_path_leaves_the_sandbox(path: str) -> None:
    assert "[0].containerPath" in wrong({"containerPath": path, "hostPath": "/x"})


def test_exactly_one_source() -> None:
    assert "it has none" in wrong({"containerPath": "data"})["[0]"]
    assert "persistent and hostPath" in wrong({**PERSISTENT, "hostPath": "/x"})["[0]"]


def test_volumes_do_not_overlap_and_names_are_unique() -> None:
    assert "[1].containerPath" in wrong(PERSISTENT, PERSISTENT)
    assert "[1].containerPath" in wrong(DVDI, {"containerPath": "data/wal", "hostPath": "/x"})
    assert "[1].external.name" in wrong(DVDI, {**DVDI, "containerPath": "other"})
