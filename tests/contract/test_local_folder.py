"""What the local platform does with its own folder, whatever the format: confinement, leftovers, room, imports, the doctor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from storage.errors import Invalid, PlatformError, PlatformUnavailable, PoolFull, UnknownPool, UnknownVolume, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import CreateRequest, VolumeReport
from storage.platforms.local import LocalOptions, LocalPlatform, store
from storage.platforms.registry import build
from tests.contract.conftest import Holder, mounted
from tests.support import eventually


def local(root: Path, **options: object) -> LocalPlatform:
    return LocalPlatform("local", LocalOptions(root=str(root), **options))  # type: ignore[arg-type]  # fields as they come


def folders(root: Path) -> LocalPlatform:
    return local(root, format="folder")


def request(claim: str = "claim-1", size_mib: int = 8, pool: str = "default") -> CreateRequest:
    return CreateRequest(pool=pool, size_mib=size_mib, token=claim)


def made(platform: LocalPlatform, claim: str = "claim-1") -> ExternalId:
    return platform.create(request(claim)).external_id


def file_of(root: Path, volume: str, suffix: str) -> Path:
    return next(root.glob(f"default/volumes/*/{volume}{suffix}"))


def create_in_process(root: str, token: str) -> VolumeReport:
    return local(Path(root)).create(request(token))


# --- several processes -------------------------------------------------------------------------


def test_processes_that_create_at_once_make_one_volume(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("forkserver")) as pool:
        reports = [pool.submit(create_in_process, str(tmp_path), f"claim-{number // 8}") for number in range(32)]
        ids = {future.result(timeout=60).external_id for future in reports}
    assert len(ids) == 4
    assert {volume.external_id for volume in local(tmp_path).volumes().items} == ids
    assert os.listdir(tmp_path / "default/.new") == []


def test_what_a_killed_creator_left_is_swept(tmp_path: Path, hold: Callable[..., Holder]) -> None:
    holder = hold("create", tmp_path, "claim-1")
    platform = local(tmp_path)
    made(platform, "claim-2")
    assert len(os.listdir(tmp_path / "default/.new")) == 1, "the staging of a live creator was swept"
    holder.die()
    assert platform.find("claim-1") is None
    made(platform, "claim-1")
    assert os.listdir(tmp_path / "default/.new") == []


def test_create_that_broke_off_between_its_files_is_finished_by_its_repeat(tmp_path: Path) -> None:
    platform = local(tmp_path)
    volume = made(platform)
    file_of(tmp_path, volume, ".img").unlink()
    assert platform.find("claim-1") is None
    assert platform.volumes().items == []
    assert made(platform) == volume


def test_guard_that_is_not_to_be_had_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = local(tmp_path)
    volume = made(platform)
    monkeypatch.setattr(store, "GUARD_S", 0.05)
    with platform._records.known(volume), pytest.raises(PlatformUnavailable, match="another process keeps its lock"):
        local(tmp_path).inspect(volume)
    assert local(tmp_path).inspect(volume).external_id == volume


def test_lock_of_a_folder_lives_as_long_as_a_process_has_it(tmp_path: Path, hold: Callable[..., Holder]) -> None:
    platform = folders(tmp_path)
    volume = made(platform)
    holder = hold("folder", tmp_path, volume)
    holder.die()
    assert platform.fence(volume, 2) is None
    with pytest.raises(VolumeInUse, match="node-a"):
        platform.detach(volume, "node-a")
    holder.end_child()
    assert eventually(lambda: platform.fence(volume, 2), what="the fence, once the child is gone")


def test_detach_sees_who_was_given_the_lock_of_a_folder(tmp_path: Path) -> None:
    platform = folders(tmp_path)
    volume = made(platform)
    platform.attach(volume, "node-a", epoch=1)
    lock = platform.inheritable(volume)
    assert lock is not None
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    try:
        for _ in range(2):
            with pytest.raises(VolumeInUse, match="a process that was given its lock"):
                platform.detach(volume, "node-a")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=10)
    platform.detach(volume, "node-a")
    assert platform.inheritable(volume) is None
    assert platform.inspect(volume).held_by == ()


@pytest.mark.root
def test_detach_sees_a_folder_that_is_bound(tmp_path: Path) -> None:
    platform = folders(tmp_path)
    volume = made(platform)
    attachment = platform.attach(volume, "node-a", epoch=1)
    with mounted(tmp_path / "bound", "--bind", attachment.device), pytest.raises(VolumeInUse, match=r"a mount on .*/bound"):
        platform.detach(volume, "node-a")
    platform.detach(volume, "node-a")
    assert platform.inspect(volume).held_by == ()


def test_images_need_no_inherited_lock(tmp_path: Path) -> None:
    platform = local(tmp_path)
    assert platform.inheritable(made(platform)) is None


# --- confinement -------------------------------------------------------------------------------


def test_links_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.img"
    root.mkdir()
    outside.write_bytes(b"not ours")
    platform = local(root)
    volume = made(platform)
    image = file_of(root, volume, ".img")
    image.unlink()
    image.symlink_to(outside)
    (root / "default" / "foreign.img").symlink_to(outside)
    for external_id in (volume, ExternalId("foreign")):
        with pytest.raises(UnknownVolume):
            platform.inspect(external_id)
        platform.delete(external_id)
    assert platform.volumes().items == []
    assert outside.read_bytes() == b"not ours"


def test_pool_that_is_a_link_is_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "default").symlink_to(outside)
    with pytest.raises(PlatformError, match="default"):
        made(local(root))
    assert list(outside.iterdir()) == []


def test_sidecar_that_is_broken_or_gone_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    platform = folders(tmp_path)
    volume = made(platform)
    platform.fence(volume, 7)
    car = file_of(tmp_path, volume, ".json")
    good = car.read_text()
    for broken in ("", "{", json.dumps({**json.loads(good), "version": 2}), good.replace("7", '"7"')):
        car.write_text(broken)
        with pytest.raises(PlatformError, match=car.name):
            platform.attach(volume, "node-a", epoch=1)
    car.unlink()
    with pytest.raises(PlatformError, match="fencing epoch"):
        platform.attach(volume, "node-a", epoch=8)
    car.write_text(good)
    assert platform.inspect(volume).epoch == 7


def test_missing_root_is_never_made(tmp_path: Path) -> None:
    platform = local(tmp_path / "unmounted")
    for call in (lambda: made(platform), platform.pools, platform.volumes, lambda: platform.find("x")):
        with pytest.raises(PlatformUnavailable, match="unmounted"):
            call()
    assert not (tmp_path / "unmounted").exists()
    assert platform.capabilities.snapshot_attached is False
    assert [finding.ok for finding in platform.check()] == [False]


# --- pools and room ----------------------------------------------------------------------------


def test_pools_are_folders_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "ssd").mkdir()
    platform = local(tmp_path, pools=("ssd", "hdd"), zone="z1", region="r1")
    assert [(pool.name, pool.zone, pool.region) for pool in platform.pools()] == [("ssd", "z1", "r1")]
    volume = platform.create(request(pool="ssd"))
    assert (volume.pool, volume.zone) == ("ssd", "z1")
    assert platform.inspect(volume.external_id).pool == "ssd"
    with pytest.raises(UnknownPool):
        platform.create(request("claim-2", pool="default"))
    with pytest.raises(PlatformUnavailable, match="hdd"):
        platform.create(request("claim-2", pool="hdd"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == ["ssd"]


def test_one_token_is_one_volume_in_all_pools(tmp_path: Path) -> None:
    for pool in ("ssd", "hdd"):
        (tmp_path / pool).mkdir()
    platform = local(tmp_path, pools=("ssd", "hdd"))
    assert platform.create(request(pool="ssd")) == platform.create(request(pool="hdd"))
    made = [platform.create(request(f"claim-{number}", pool=("ssd", "hdd")[number % 2])).external_id for number in range(9)]
    listed: list[str] = []
    after = None
    while True:
        page = platform.volumes(after=after, limit=2)
        listed += [volume.external_id for volume in page.items]
        if (after := page.after) is None:
            break
    assert sorted(listed) == sorted({*made, platform.create(request()).external_id})


def test_cap_bounds_a_pool(tmp_path: Path) -> None:
    platform = local(tmp_path, capacity_mib=100)
    volume = made(platform)
    with open(file_of(tmp_path, volume, ".img"), "wb") as image:
        image.write(b"x" * (40 << 20))
        os.fsync(image.fileno())
    (pool,) = platform.pools()
    assert (pool.capacity_mib, pool.foreign_mib) == (100, 0)
    with pytest.raises(PoolFull, match="61 MiB were asked for"):
        platform.create(request("claim-2", 61))
    assert platform.create(request("claim-3", 59)).size_mib == 59


@pytest.mark.root
def test_pool_is_full_when_its_filesystem_is(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs") as root:
        platform = local(root)
        (root / "something-else").write_bytes(b"x" * (20 << 20))
        (pool,) = platform.pools()
        assert (pool.capacity_mib, pool.foreign_mib) == (32, 20)
        with pytest.raises(PoolFull, match="13 MiB were asked for"):
            platform.create(request(size_mib=13))
        volume = platform.create(request(size_mib=8)).external_id
        with pytest.raises(PoolFull):
            platform.expand(volume, 32)
        assert platform.inspect(volume).size_mib == 8


@pytest.mark.root
@pytest.mark.parametrize(("form", "data"), [("image", ""), ("folder", "file")])
def test_copy_that_does_not_fit_leaves_nothing(tmp_path: Path, form: str, data: str) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs") as root:
        platform = local(root, format=form)
        volume = platform.create(request(size_mib=20)).external_id
        suffix = {"image": ".img", "folder": ".dir"}[form]
        (file_of(root, volume, suffix) / data if data else file_of(root, volume, suffix)).write_bytes(b"x" * (20 << 20))
        with pytest.raises(PoolFull):
            platform.snapshot(volume, token="snap")
        assert not platform.snapshots().items
        assert os.listdir(root / "default/.new") == []


def test_space_of_snapshots_is_not_there_for_volumes(tmp_path: Path) -> None:
    platform = local(tmp_path, capacity_mib=100, format="folder")
    volume = made(platform)
    (file_of(tmp_path, volume, ".dir") / "data").write_bytes(os.urandom(5 << 20))
    platform.snapshot(volume, token="snap")
    (pool,) = platform.pools()
    assert pool.foreign_mib in (5, 6)


# --- volumes that an operator brings -----------------------------------------------------------


def test_image_of_an_operator_can_be_imported(tmp_path: Path) -> None:
    platform = local(tmp_path)
    made(platform)
    with open(tmp_path / "default" / "old-database.img", "wb") as image:
        image.truncate(24 << 20)
    found = next(volume for volume in platform.volumes().items if volume.external_id == "old-database")
    assert (found.size_mib, found.token, found.epoch) == (24, "", 0)
    assert platform.fence(found.external_id, 3) is not None
    assert local(tmp_path).inspect(found.external_id).epoch == 3
    snapshot = platform.snapshot(found.external_id, token="snap").external_id
    assert [one.external_id for one in platform.snapshots().items] == [snapshot]
    platform.delete_snapshot(snapshot)
    platform.delete(found.external_id)
    assert sorted(path.name for path in (tmp_path / "default").iterdir()) == [".new", "volumes"]


def test_folder_is_copied_with_all_that_is_in_it(tmp_path: Path) -> None:
    platform = folders(tmp_path)
    volume = made(platform)
    data = file_of(tmp_path, volume, ".dir")
    (data / "sub").mkdir(mode=0o750)
    (data / "sub" / "file").write_text("content")
    (data / "link").symlink_to("/nowhere")
    os.link(data / "sub" / "file", data / "hard")
    snapshot = platform.snapshot(volume, token="snap").external_id
    copy = platform.create(CreateRequest(pool="default", size_mib=8, token="copy", snapshot=snapshot)).external_id
    restored = file_of(tmp_path, copy, ".dir")
    assert (restored / "sub" / "file").read_text() == "content"
    assert os.readlink(restored / "link") == "/nowhere"
    assert (restored / "hard").stat().st_ino == (restored / "sub" / "file").stat().st_ino
    assert (restored / "sub").stat().st_mode & 0o777 == 0o750
    platform.delete(copy)
    assert not restored.exists()
    assert data.exists()


# --- settings and the doctor -------------------------------------------------------------------


def test_settings_build_the_same_adapter(tmp_path: Path) -> None:
    options = LocalOptions(root=str(tmp_path), format="folder", pools=("ssd", "hdd"), capacity_mib=10, zone="z1")
    settings = LocalPlatform("local", options).settings()
    assert settings == {"root": str(tmp_path), "format": "folder", "pools": "ssd,hdd", "capacity_mib": "10", "zone": "z1"}
    assert build("local", "local", settings).settings() == settings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "platforms.local.root is '': it must be given"),
        ({"root": "data"}, "platforms.local.root is 'data': it must be an absolute path"),
        ({"root": "/a/../b"}, "without '..'"),
        ({"root": "/a", "format": "zfs"}, "platforms.local.format is 'zfs': it must be one of folder, image"),
        ({"root": "/a", "capacity_mib": 0}, "platforms.local.capacity_mib is 0: it must be 1 or more"),
        ({"root": "/a", "pools": ["../x"]}, "different folder names"),
        ({"root": "/a", "pools": ["x", "x"]}, "different folder names"),
        ({"root": "/a", "pools": []}, "different folder names"),
        ({"root": "/a", "rot": "/b"}, "platforms.local.rot is '/b': there is no such key; the keys are"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        build("local", "local", settings)
    assert reason in str(caught.value)


def test_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    for pool in ("ssd", "nvme"):
        (tmp_path / pool).mkdir()
    tmp_path.chmod(0o770)
    findings = local(tmp_path, format="folder", pools=("ssd", "nvme", "hdd", "default")).check()
    wrong = [(finding.subject, finding.message) for finding in findings if not finding.ok]
    assert wrong == [
        (str(tmp_path), "others than its owner may write to the folder"),
        ("pool hdd", "its folder is not there"),
    ]
    assert all(finding.mend for finding in findings if not finding.ok)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nvme", "ssd"], "the doctor made something"
    assert any("not enforced" in finding.message for finding in findings)
    assert any("share what there is of it" in finding.message for finding in findings), "their room is promised once"
