"""Every form in which an app asks for volumes, and what people do with volumes, on real loop devices."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.model import Volume
from tests.cluster.rig import COUNT, Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]


@pytest.fixture
def rig(make_rig: Callable[..., Rig], tmp_path: Path) -> Rig:
    (tmp_path / "polly" / "images" / "tiny").mkdir(parents=True)
    settings = {
        "platforms.tiny": {"kind": "local", "root": f"{tmp_path}/polly/images/tiny", "format": "image", "capacity_mib": 20},
        "profiles.tiny": {"platforms": ["tiny"], "reclaim": "delete"},
        "profiles.xfs": {"platforms": ["disks"], "filesystem": "xfs", "reclaim": "delete"},
        "profiles.kept": {"platforms": ["disks"], "reclaim": "retain"},
        "profiles.archived": {"platforms": ["disks"], "reclaim": "snapshot-then-delete"},
        "profiles.library": {"platforms": ["disks"], "access_mode": "MULTI_NODE_READER_ONLY"},
    }
    made = make_rig(2, settings=settings)
    made.start_broker()
    return made


def persistent(path: str, profile: str, size_mib: int = 16) -> dict[str, Any]:
    return {"containerPath": path, "mode": "RW", "persistent": {"size": size_mib, "type": "mount", "profileName": profile}}


def csi(name: str, plugin: str, mode: str = "RW", **capability: Any) -> dict[str, Any]:
    wanted = {"accessMode": "SINGLE_NODE_WRITER", "accessType": "mount", **capability}
    options = {"pluginName": plugin, "capability": wanted}
    return {"containerPath": "data", "mode": mode, "external": {"provider": "csi", "name": name, "options": options}}


def with_volumes(app_id: str, volumes: Sequence[Mapping[str, Any]], cmd: str = COUNT, **fields: Any) -> dict[str, Any]:
    return {**counter(app_id, cmd=cmd, **fields), "container": {"type": "MESOS", "volumes": list(volumes)}}


def starts(rig: Rig, app: Mapping[str, Any]) -> int:
    """Runs the app and returns what it has counted to."""
    rig.run(app)
    return rig.count(rig.running(app["id"])[0]["id"])


def says(rig: Rig, app: Mapping[str, Any]) -> str:
    """Runs the app and returns the first line that it says."""
    rig.run(app)
    return said(rig, rig.running(app["id"])[0]["id"])


def said(rig: Rig, task_id: str) -> str:
    pattern = f"agent*/work/agents/*/work/slaves/*/frameworks/*/executors/{task_id}/runs/latest/stdout"

    def line() -> str:
        return next((line for file in rig.cluster.folder.glob(pattern) for line in file.read_text().splitlines()), "")

    return eventually(line, 15, f"task {task_id} says something")


def delete(rig: Rig, *app_ids: str) -> None:
    for app_id in app_ids:
        rig.delete(app_id)
    for app_id in app_ids:
        rig.gone(app_id)


def named(rig: Rig, name: str) -> Volume:
    return next(volume for volume in rig.volumes() if volume.name == name)


def order(rig: Rig, path: str, body: Mapping[str, Any], status: int = 201) -> dict[str, Any]:
    answer = rig.http.post(f"/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_two_volumes_all_or_none(rig: Rig) -> None:
    both = [persistent("data", "fast"), persistent("log", "tiny")]
    write = "echo x > log/x; findmnt -no FSTYPE -T log; exec sleep 3600"
    assert says(rig, with_volumes("/first", both, cmd=write)) == "ext4"
    assert len(rig.claims()) == 2
    rig.run(with_volumes("/second", both))
    eventually(lambda: "POOL_FULL" in rig.http.get("/v1/apps/second/explanation").text, what="the second app has no room for its log")
    assert {volume.owner for volume in rig.volumes()} == {"/first"}
    assert len(rig.claims()) == 2
    delete(rig, "/first")
    assert rig.count(rig.running("/second")[0]["id"]) == 1
    delete(rig, "/second")
    rig.settle()
    rig.nothing_left()


def test_xfs_dvdi_and_host_volumes(rig: Rig, tmp_path: Path) -> None:
    show = "echo $(findmnt -no FSTYPE -T data); exec sleep 3600"
    assert says(rig, with_volumes("/xfs", [persistent("data", "xfs", 320)], cmd=show)) == "xfs"
    external = {"provider": "dvdi", "name": "queue", "size": 1, "options": {"dvdi/driver": "disks", "dvdi/newfstype": "ext4"}}
    queue = {"containerPath": "data", "mode": "RW", "external": external}
    upgrade = {"minimumHealthCapacity": 0, "maximumOverCapacity": 0}
    assert starts(rig, with_volumes("/queue", [queue], upgradeStrategy=upgrade)) == 1
    assert named(rig, "queue").size_mib == 1024
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "greeting").write_text("hello\n")
    hosts = [
        {"containerPath": "in", "mode": "RO", "hostPath": f"{tmp_path}/shared"},
        {"containerPath": "out", "mode": "RW", "hostPath": f"{tmp_path}/shared"},
    ]
    read = "touch in/refused 2> /dev/null; cat in/greeting > out/copy; cat out/copy; exec sleep 3600"
    assert says(rig, with_volumes("/host", hosts, cmd=read)) == "hello"
    assert not (tmp_path / "shared" / "refused").exists()
    delete(rig, "/xfs", "/queue", "/host")
    rig.settle()
    eventually(lambda: [volume.name for volume in rig.volumes()] == ["queue"], 30, "only the named volume stays")
    assert starts(rig, with_volumes("/queue", [queue], upgradeStrategy=upgrade)) == 2


def test_a_volume_made_by_hand_is_used_in_csi_form_and_grows(rig: Rig) -> None:
    made = order(rig, "volumes", {"name": "ledger", "profile": "fast", "size_mib": 16})
    assert made["state"] == "PLANNED"
    app = with_volumes("/books", [csi("ledger", "fast", mountFlags=["noatime"])])
    assert starts(rig, app) == 1
    assert named(rig, "ledger").external_id
    grown = order(rig, "volumes/ledger/size", {"size_mib": 64}, 200)
    assert grown["size_mib"] == 64
    delete(rig, "/books")
    show = "echo $(findmnt -bno SIZE -T data) $(findmnt -no OPTIONS -T data) $(cat data/starts); exec sleep 3600"
    size, options, count = says(rig, with_volumes("/books", [csi("ledger", "fast", mountFlags=["noatime"])], cmd=show)).split()
    assert int(size) > 40 << 20
    assert "noatime" in options.split(",")
    assert count == "1"
    delete(rig, "/books")
    rig.settle()
    assert rig.http.delete("/v1/volumes/ledger").status_code == 204
    rig.nothing_left()


def test_copies_of_a_volume_go_their_own_ways_and_many_read_one(rig: Rig) -> None:
    order(rig, "volumes", {"name": "master", "profile": "fast", "size_mib": 16})
    assert starts(rig, with_volumes("/writer", [csi("master", "fast")])) == 1
    delete(rig, "/writer")
    snapshot = order(rig, "volumes/master/snapshots", {"name": "first edition"})["snapshot_id"]
    order(rig, "volumes", {"name": "copy", "profile": "fast", "snapshot": snapshot})
    order(rig, "volumes", {"name": "edition", "profile": "library", "snapshot": snapshot})
    order(rig, "volumes", {"name": "twin", "profile": "fast", "source": "master"})
    assert starts(rig, with_volumes("/goes-on", [csi("copy", "fast")])) == 2
    assert starts(rig, with_volumes("/twin", [csi("twin", "fast")])) == 2
    many = csi("edition", "library", "RO", accessMode="MULTI_NODE_READER_ONLY")
    read = "echo $(cat data/starts) $(touch data/x 2>/dev/null && echo writable); exec sleep 3600"
    one, two = (with_volumes(f"/reader/{name}", [many], cmd=read, constraints=[["hostname", "IS", host]]) for name, host in PAIRS)
    assert [says(rig, one), says(rig, two)] == ["1", "1"]
    assert len({task["host"] for name, _ in PAIRS for task in rig.tasks(f"/reader/{name}")}) == 2
    assert len([claim for claim in rig.claims() if claim.volume_id == named(rig, "edition").volume_id]) == 2
    assert starts(rig, with_volumes("/writer", [csi("master", "fast")])) == 2
    with rig.ledger() as ledger:
        assert not any(ledger.counters().values())
    delete(rig, "/writer", "/goes-on", "/twin", "/reader/one", "/reader/two")
    rig.settle()
    assert rig.http.delete("/v1/volumes/edition").status_code == 204
    assert rig.http.delete("/v1/volumes/master").status_code == 409
    assert rig.http.delete(f"/v1/snapshots/{snapshot}").status_code == 204
    assert rig.http.delete("/v1/volumes/master").status_code == 204
    assert rig.http.delete("/v1/volumes/copy").status_code == 204
    assert rig.http.delete("/v1/volumes/twin").status_code == 204
    rig.nothing_left()


PAIRS = [("one", "agent1"), ("two", "agent2")]


def test_an_image_that_polly_did_not_make(rig: Rig, tmp_path: Path) -> None:
    """Its filesystem is looked at and kept; one without a filesystem is never formatted."""
    content = tmp_path / "content"
    content.mkdir()
    (content / "starts").write_text("41\n")
    pool = rig.images / "default"
    pool.mkdir(exist_ok=True)
    for name in ("old", "blank"):
        with open(pool / f"{name}.img", "wb") as image:
            image.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", content, pool / "old.img"], check=True)
    for name in ("old", "blank"):
        order(rig, "imports", {"platform": "disks", "external_id": name, "name": f"taken-{name}", "profile": "fast"})
    assert starts(rig, with_volumes("/heir", [csi("taken-old", "fast")])) == 42
    assert named(rig, "taken-old").birth
    rig.run(with_volumes("/hopeful", [csi("taken-blank", "fast")]))
    waits = eventually(lambda: rig.http.get("/v1/apps/hopeful/explanation").json()["waiting"], what="the blank image cannot be used")
    eventually(lambda: rig.http.get("/v1/apps/hopeful/explanation").json()["waiting"][0]["last_message"], 15, f"it is told why: {waits}")
    delete(rig, "/heir", "/hopeful")
    rig.settle()
    assert not any((pool / "blank.img").read_bytes())
    assert not rig.claims()


def test_what_becomes_of_a_deleted_apps_volumes(rig: Rig) -> None:
    for profile in ("fast", "kept", "archived"):
        assert starts(rig, with_volumes(f"/{profile}", [persistent("data", profile)])) == 1
    archived = named(rig, "/archived#0/data")
    delete(rig, "/fast", "/kept", "/archived")
    eventually(lambda: [volume.name for volume in rig.volumes()] == ["/kept#0/data"], 20, "what is not retained is deleted")
    with rig.ledger() as ledger:
        (snapshot,) = ledger.snapshots().items
    assert (snapshot.volume_id, snapshot.state) == (archived.volume_id, "READY")
    assert starts(rig, with_volumes("/kept", [persistent("data", "kept")])) == 2
    order(rig, "volumes", {"name": "back", "profile": "fast", "snapshot": snapshot.snapshot_id})
    assert starts(rig, with_volumes("/restored", [csi("back", "fast")])) == 2
    delete(rig, "/kept", "/restored")
    rig.settle()


def test_a_task_that_daemonises(rig: Rig) -> None:
    """Its daemon has left the session, and works in the volume: it is gone before the volume is released."""
    daemon = "setsid sh -c 'while :; do echo x >> data/beats; done' > /dev/null 2>&1 & until [ -s data/beats ]; do :; done; echo daemon"
    rig.run(with_volumes("/daemon", [persistent("data", "fast")], cmd=daemon, backoffSeconds=60))
    eventually(lambda: proofs(rig), 20, "the task has ended")
    rig.scale("/daemon", 0)
    eventually(lambda: not rig.claims(), 20, "no task runs any more")
    assert proofs(rig)[0] == "RELEASED"
    assert not rig.attached()
    eventually(lambda: not set().union(*(agent.tenants() for agent in rig.cluster.agents)), what="no process is left")
    delete(rig, "/daemon")
    rig.settle()
    rig.nothing_left()


def proofs(rig: Rig) -> list[str]:
    """By which proof each claim has ended."""
    with rig.ledger() as ledger:
        return [event.why.partition(":")[0] for event in ledger.events(limit=1000).items if event.what == "claim.freed"]
