"""Waiting for the map that multipathd is about to make, and using a path by itself only where it makes none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import DeviceInUse, NodeError
from storage.node import devices
from storage.node.multipath_findings import multipath_findings
from storage.node.pace import Pace
from tests.unit.test_node_devices import FakeTime
from tests.unit.test_node_multipath import OTHER, SERIAL, Node, disk, map_over

ASKS = "multipath -c"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """The daemon runs, and two paths are there that udev knows."""
    node = Node(tmp_path)
    node.start_daemon()
    for name in ("sda", "sdb"):
        disk(node.roots, name)
        node.udev_knows(name)
    return node


def found(node: Node, then: Callable[[], object] = lambda: None) -> str:
    """What is used, if `then` happens while it is waited for."""
    pace = FakeTime(then=then).pace
    return Path(devices.find(SERIAL, roots=node.roots, pace=pace, timeout_s=3.0)).name


def test_the_map_of_a_path_that_the_daemon_claims_is_waited_for(node: Node) -> None:
    assert found(node, then=lambda: map_over(node.roots, "dm-0", "sda", "sdb")) == "dm-0"
    assert node.ran == [f"{ASKS} {node.roots.dev}/sda"]


def test_a_path_that_the_daemon_does_not_claim_is_used(node: Node) -> None:
    node.answers[ASKS] = 1
    assert found(node) == "sda"


def test_a_path_is_used_where_no_daemon_runs(node: Node) -> None:
    node.sockets.write_text("")
    (node.root / "run/multipathd.pid").unlink()
    assert found(node) == "sda"
    assert node.ran == []


def test_nothing_is_waited_for_where_there_is_no_time(node: Node) -> None:
    assert Path(devices.find(SERIAL, roots=node.roots, pace=Pace(), timeout_s=0.0)).name == "sda"
    assert node.ran == []


@pytest.mark.parametrize(("paths", "claimed"), [("sda\nsdb\n", True), ("sdc\n", False)], ids=["known", "blacklisted"])
def test_a_daemon_that_takes_all_disks_claims_what_it_knows(node: Node, paths: str, claimed: bool) -> None:
    node.answers |= {ASKS: 1, "multipathd show config": 'defaults {\n\tfind_multipaths "off"\n}\n', "multipathd show paths": paths}
    assert node.roots.multipathd.claims("/dev/sda") is claimed


def test_a_daemon_that_waits_for_a_second_path_does_not_claim_the_first(node: Node) -> None:
    node.answers |= {ASKS: 1, "multipathd show config": 'defaults {\n\tfind_multipaths "on"\n}\n', "multipathd show paths": "sda\n"}
    assert not node.roots.multipathd.claims("/dev/sda")


def test_a_map_that_does_not_come_is_an_error_that_says_what_to_do(node: Node) -> None:
    with pytest.raises(NodeError, match=r"multipathd failed on .*/sda: it claims this disk .* blacklist in multipath\.conf"):
        found(node)


def test_a_daemon_that_was_killed_may_come_back(node: Node) -> None:
    node.sockets.write_text("")
    node.answers[ASKS] = 1
    assert found(node, then=node.start_daemon) == "sda"
    assert node.ran[0] == f"{ASKS} {node.roots.dev}/sda"


def test_a_daemon_that_was_killed_and_does_not_come_back_is_an_error(node: Node) -> None:
    node.sockets.write_text("")
    with pytest.raises(NodeError, match="it has died and nothing has started it again"):
        found(node)


def test_udev_is_told_of_a_disk_that_it_knows_by_another_name_and_waited_for(node: Node) -> None:
    """The daemon would take it for a path of the other volume."""
    node.answers[ASKS] = 1
    node.udev_knows("sdb", OTHER)
    asked_before: list[int] = []

    def then() -> None:
        asked_before.append(len(node.ran))
        node.udev_knows("sdb")

    assert found(node, then) == "sda"
    assert asked_before == [0]
    assert [(node.roots.sys / "block" / path / "uevent").read_text() for path in ("sda", "sdb")] == ["", "change"]


def test_a_disk_that_udev_is_not_through_with_is_not_used(node: Node) -> None:
    for file in (node.root / "run/udev/data").iterdir():
        file.unlink()
    with pytest.raises(NodeError, match=r"udev failed on .*/sda: it is not through with this disk"):
        found(node)
    assert node.ran == []


def test_an_executor_that_does_not_see_what_udev_knows_is_told_what_to_mount(node: Node) -> None:
    shutil.rmtree(udev := node.root / "run/udev")
    with pytest.raises(
        NodeError, match=r"multipathd failed on .*/sda: .* there is no .*/run/udev here; mount the node's into .* container"
    ):
        found(node)
    ((ok, said),) = ((finding.ok, finding.mend) for finding in multipath_findings(ARRAY, node.roots))
    assert not ok
    assert said.startswith(f"Mount the node's {udev} into the executors' container")
    assert node.ran == []


def test_the_map_of_another_volume_over_the_path_is_removed_if_nobody_uses_it(node: Node) -> None:
    map_over(node.roots, "dm-0", "sda", uuid="mpath-3514f0c5000000002")

    def then() -> None:
        (node.roots.sys / "block/sda/holders/dm-0").rmdir()
        map_over(node.roots, "dm-1", "sda", "sdb")

    assert found(node, then) == "dm-1"
    assert node.ran[:2] == ["multipathd disablequeueing map mpatha", "multipath -f mpatha"]


def test_the_map_of_another_volume_that_is_still_used_is_an_error(node: Node) -> None:
    map_over(node.roots, "dm-0", "sda", uuid="mpath-3514f0c5000000002")
    node.answers["multipath -f"] = 1
    with pytest.raises(DeviceInUse, match=r"mpatha \(dm-0\), the map of another volume that had this LUN before"):
        found(node)


# --- what polly doctor says ------------------------------------------------------------------------------------

ARRAY = ("XtremIO", "XtremApp")


def findings(node: Node, config: str, recheck: str = '"yes"') -> list[tuple[bool, str]]:
    """Of a node with two disks of the array's."""
    for name in ("sda", "sdb"):
        for file, word in zip(("vendor", "model"), ARRAY, strict=True):
            (node.roots.sys / "block" / name / "device" / file).write_text(f"{word}  \n")
    node.answers["multipathd show config"] = f"{config}\trecheck_wwid {recheck}\n"
    return [(finding.ok, finding.message) for finding in multipath_findings(ARRAY, node.roots)]


def test_the_doctor_is_content_where_the_daemon_claims_the_arrays_disks(node: Node) -> None:
    config = 'defaults {\n\tfind_multipaths "on"\n}\ndevices {\n\tdevice {\n\t\tno_path_retry 12\n\t}\n}\n'
    assert findings(node, config) == [(True, "it runs, and puts maps over the array's disks")]


@pytest.mark.parametrize(
    ("config", "claims", "message"),
    [
        ('\tfind_multipaths "strict"\n', True, "it makes maps of no disk that it has not had one of before"),
        ('\tfind_multipaths "on"\n', False, "it does not claim sda, sdb, disks of the array"),
        ('\tno_path_retry "queue"\n', True, "a map without any path queues for ever"),
    ],
)
def test_the_doctor_says_what_an_operator_must_mend(node: Node, config: str, claims: bool, message: str) -> None:
    node.answers[ASKS] = int(not claims)
    ((ok, said),) = findings(node, config)
    assert not ok
    assert said.startswith(message)


def test_the_doctor_says_that_a_path_must_be_asked_before_it_is_written_to(node: Node) -> None:
    ((ok, said),) = findings(node, '\tfind_multipaths "on"\n', recheck='"no"')
    assert not ok
    assert said.startswith("what it queued for a volume that is gone may be written to the next one")


def test_the_doctor_asks_of_no_disk_that_has_its_map_or_is_not_the_arrays(node: Node) -> None:
    node.answers[ASKS] = 1
    map_over(node.roots, "dm-0", "sda", "sdb")
    disk(node.roots, "sdc", OTHER)
    for odd in ("sdc/device/vendor", "dm-0/dm/name"):  # whoever made them may name them in any bytes
        (node.roots.sys / "block" / odd).write_bytes(b"\xff\n")
    assert findings(node, '\tfind_multipaths "on"\n')[0][0]
    assert ASKS not in " ".join(node.ran)


def test_the_doctor_says_that_a_daemon_does_not_answer_or_is_not_here(node: Node) -> None:
    node.answers["multipathd show config"] = 1
    ((ok, said),) = ((finding.ok, finding.message) for finding in multipath_findings(ARRAY, node.roots))
    assert (ok, said) == (False, "multipathd failed on show config local: exit code 1.")
    node.sockets.write_text("")
    (node.root / "run/multipathd.pid").unlink()
    ((ok, said),) = ((finding.ok, finding.message) for finding in multipath_findings(ARRAY, node.roots))
    assert ok
    assert said.startswith("it does not run here")
