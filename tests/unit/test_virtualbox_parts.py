"""The parts of the VirtualBox platform that need no VirtualBox: options, names, serials and codes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from framework.config import parse_config
from storage.errors import Invalid, NodeError, PlatformError, PlatformUnavailable, Unsupported
from storage.model import Birth
from storage.node import devices, identities
from storage.node.devices import Roots
from storage.node.pace import Pace
from storage.node.steps import Machine
from storage.platforms.marks import Mark
from storage.platforms.registry import build
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.failures import (
    ABORTED,
    FILE_ERROR,
    INVALID_STATE,
    NOT_FOUND,
    NOT_SUPPORTED,
    Fault,
    Stale,
    Unreachable,
    as_error,
    verb,
)
from storage.platforms.virtualbox.layout import Layout
from storage.platforms.virtualbox.nodes import spellings
from storage.platforms.virtualbox.options import VirtualBoxOptions, read_parameters
from storage.platforms.virtualbox.patience import Patience
from storage.platforms.virtualbox.records import Record, read_record, write_record
from tests.nodes import as_shown

PAGE = (Path(__file__).parents[2] / "docs/platforms/virtualbox.md").read_text("utf-8")
UUID = "6a72b37b-0d9f-4c5e-8a11-0e5e5db9ba90"


# --- options and names ----------------------------------------------------------------------------------


def test_every_key_is_documented_and_no_other() -> None:
    table = PAGE.partition("| key |")[2].partition("\n\n")[0]
    assert {line.split("|")[1].strip(" `") for line in table.splitlines()[2:]} == {field.name for field in fields(VirtualBoxOptions)}


def test_the_documents_polly_toml_is_one() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(tomllib.loads(block))
    assert config.profiles["vm-disks"].platforms == ("vbox",)
    read_parameters(config.profiles["vm-disks"].parameters)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"root": "relative"}, "root"),
        ({"root": "/srv/../etc"}, "root"),
        ({"root": "/srv/polly\n"}, "root"),
        ({"pools": ["a/b"]}, "pools"),
        ({"pools": ["same", "same"]}, "pools"),
        ({"capacity_mib": 0}, "capacity_mib"),
        ({"via": "ssh"}, "via"),
        ({"url": "vmhost:18083"}, "url"),
        ({"url": "http://user:secret@vmhost:18083/"}, "url"),
        ({"slots": 31}, "slots"),
        ({"capacity_mib": None}, "capacity_mib"),
        ({"username": "polly"}, "password_file"),
        ({"password_file": "/etc/polly/secret"}, "username"),
        ({"username": "polly", "password_file": "secret"}, "password_file"),
        ({"ca_file": "ca.pem"}, "ca_file"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(wrong: dict[str, object], key: str) -> None:
    given = {key: value for key, value in {"root": "/srv/polly", "capacity_mib": 100, **wrong}.items() if value is not None}
    with pytest.raises(Invalid) as refusal:
        build("vbox", "virtualbox", given)
    assert refusal.value.fields["field"] == f"platforms.vbox.{key}"


@pytest.mark.parametrize("given", [{"format": "vhd"}, {"variant": "split"}, {"type": "ssd"}])
def test_a_wrong_parameter_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=f"parameters.{next(iter(given))}"):
        read_parameters(given)


def test_settings_build_the_same_platform_again() -> None:
    first = build(
        "vbox", "virtualbox", {"root": "/srv/polly", "capacity_mib": 100, "username": "polly", "password_file": "/etc/polly/secret"}
    )
    assert build("vbox", "virtualbox", first.settings()).settings() == first.settings()


@pytest.mark.parametrize("token", ["c0ffee", "with space/and slash", "ümlaut%", "snapshot-x", "a" * 150])
def test_a_files_name_gives_its_token_back(token: str) -> None:
    places = Layout("/srv/polly", ["fast"])
    place = places.place(places.file("fast", layout.volume_stem(token), "vdi"))
    assert place is not None
    assert (place.pool, place.token, layout.is_volume(place), layout.is_snapshot(place)) == ("fast", token, True, False)


def test_a_snapshots_name_gives_its_volume_and_token_back() -> None:
    places = Layout("/srv/polly", ["fast"])
    place = places.place(places.file("fast", layout.snapshot_stem(UUID, "one-two"), "vmdk"))
    assert place is not None
    assert (place.origin, place.token, layout.is_volume(place)) == (UUID, "one-two", False)


@pytest.mark.parametrize("token", ["", "x" * 151, "ü" * 40])
def test_a_token_that_makes_no_file_name_is_refused(token: str) -> None:
    with pytest.raises(Invalid, match="token"):
        layout.volume_stem(token)


def test_only_files_in_a_pools_folder_are_in_it() -> None:
    places = Layout("/srv//polly/./", ["fast", "slow"])
    assert places.root == "/srv/polly", "all who use one root must call it the same"
    assert [places.place(file) is not None for file in ("/srv/polly/fast/a.vdi", "/srv/polly/a.vdi", "/srv/polly/fast/x/a.vdi")] == [
        True,
        False,
        False,
    ]
    lock = places.place(places.lock())
    assert lock is not None
    assert not layout.is_volume(lock)


def test_a_windows_host_has_its_own_paths() -> None:
    places = Layout(r"D:\polly", ["fast"])
    assert places.file("fast", "a", "vdi") == r"D:\polly\fast\a.vdi"
    place = places.place(r"D:\polly\fast\a.vdi")
    assert place is not None
    assert (place.pool, place.stem, place.suffix) == ("fast", "a", "vdi")
    assert places.place(r"d:\Polly\FAST\a.vdi") == place, "Windows does not tell them apart"


def test_a_record_is_read_as_it_was_written() -> None:
    birth = Birth(serial="VB6a72b37b-90bab95d", filesystem="ext4", filesystem_uuid=UUID)
    record = Record(name="/shop/db#0/data", labels={"team": "shop"}, mark=Mark(epoch=3, floor=2), birth=birth, made_at=1.5)
    assert read_record("vbox", "polly/x", write_record(record)) == record
    assert read_record("vbox", "polly/x", "") == Record()


@pytest.mark.parametrize("text", ["{", '{"version": 2}', '{"mark": {"epoch": "x"}}'])
def test_a_record_that_cannot_be_read_is_never_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(PlatformError, match="polly/x"):
        read_record("vbox", "polly/x", text)


# --- what a node sees ---------------------------------------------------------------------------------------


def test_the_serial_is_what_an_ahci_disk_shows() -> None:
    assert layout.serial(UUID) == "VB6a72b37b-90bab95d"


def test_a_node_finds_the_disk_by_its_serial_past_a_stale_link(tmp_path: Path) -> None:
    serial, link = layout.serial(UUID), tmp_path / "dev/disk/by-id" / f"ata-VBOX_HARDDISK_{layout.serial(UUID)}"
    for name, shown in (("sda", "VB00000000-00000000"), ("sdb", serial)):
        device = tmp_path / "sys/block" / name / "device"
        device.mkdir(parents=True)
        (device / "vpd_pg80").write_bytes(b"\0\x80\0\x14" + shown.ljust(20).encode())
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "dev/sda")
    sys = tmp_path / "sys"
    roots = Roots(dev=tmp_path / "dev", sys=sys, is_block=Path.is_file, inquire=as_shown(sys))
    assert devices.find(serial, hint=str(link), roots=roots, pace=Pace(), timeout_s=0) == str(tmp_path / "dev/sdb")


def machine(tmp_path: Path, *, product: str = "VirtualBox", uuid: str = "", macs: Sequence[str] = ()) -> Machine:
    dmi = tmp_path / "class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "product_name").write_text(f"{product}\n")
    if uuid:
        (dmi / "product_uuid").write_text(f"{uuid}\n")
    for number, mac in enumerate(macs):
        card = tmp_path / f"class/net/enp0s{number}"
        (card / "device").mkdir(parents=True)
        (card / "address").write_text(f"{mac}\n")
    (tmp_path / "class/net/lo").mkdir(parents=True)
    (tmp_path / "class/net/lo/address").write_text("00:00:00:00:00:00\n")
    return Machine(roots=Roots(sys=tmp_path))


def test_a_vm_is_known_by_its_firmwares_uuid(tmp_path: Path) -> None:
    assert identities.identify("virtualbox", machine(tmp_path, uuid=UUID.upper(), macs=["08:00:27:00:00:01"]), hostname="h") == UUID


def test_a_vm_whose_uuid_only_root_may_read_is_known_by_its_first_card(tmp_path: Path) -> None:
    here = machine(tmp_path, macs=["08:00:27:00:00:01", "08:00:27:00:00:02"])
    assert identities.identify("virtualbox", here, hostname="h") == "08:00:27:00:00:01"


@pytest.mark.parametrize(("product", "macs"), [("KVM", ["08:00:27:00:00:01"]), ("VirtualBox", [])])
def test_what_is_no_known_vm_is_told_how_to_name_it_by_hand(tmp_path: Path, product: str, macs: list[str]) -> None:
    with pytest.raises(NodeError, match=r"agent\.toml: \[platforms\.NAME\] node ="):
        identities.identify("virtualbox", machine(tmp_path, product=product, macs=macs), hostname="h")


def test_a_uuid_is_looked_for_in_both_byte_orders() -> None:
    assert spellings("7BB3726A-9F0D-5E4C-8A11-0E5E5DB9BA90") == ["7bb3726a-9f0d-5e4c-8a11-0e5e5db9ba90", UUID]
    assert (spellings("08:00:27:AB:00:01"), spellings("Node One")) == (["08:00:27:ab:00:01"], ["Node One"])


# --- codes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (INVALID_STATE, PlatformUnavailable),
        (0x80BB0010, PlatformUnavailable),
        (ABORTED, PlatformUnavailable),
        (NOT_SUPPORTED, Unsupported),
        (NOT_FOUND, PlatformError),
        (0x80004005, PlatformError),
        (0x80BBFFFF, PlatformError),
    ],
)
def test_a_code_becomes_a_named_error_and_is_kept(code: int, kind: type[PlatformError]) -> None:
    error = as_error(Fault(code - (1 << 32), f"it is so\nand so (0x{code:08x})"), "vbox", "attach a volume")
    assert type(error) is kind
    assert f"0x{code:08x}: it is so and so" in str(error)
    assert "VBOX_E_FILE_ERROR 0x80bb0004: x" in str(as_error(Fault(FILE_ERROR, "x"), "vbox", "x"))


class Verbs:
    name = "vbox"

    def __init__(self, *outcomes: Exception) -> None:
        self.outcomes = list(outcomes)

    @verb("do it")
    def run(self) -> str:
        if self.outcomes:
            raise self.outcomes.pop(0)
        return "done"


def test_a_verb_whose_session_ended_is_begun_again_once() -> None:
    assert Verbs(Stale("ended")).run() == "done"
    with pytest.raises(PlatformUnavailable, match="ended again"):
        Verbs(Stale("ended"), Stale("ended again")).run()
    silent = Verbs(Unreachable("no answer"), Unreachable("not asked"))
    with pytest.raises(PlatformUnavailable, match="no answer"):
        silent.run()
    assert len(silent.outcomes) == 1, "what may have been done was done again unasked"


def test_a_lock_is_waited_for_within_its_bound() -> None:
    at = [0.0]

    def taken_until(free_at: float) -> str:
        if at[0] < free_at:
            raise Fault(INVALID_STATE, "locked")
        return "taken"

    def wait(seconds: float) -> None:
        at[0] += seconds

    patience = Patience(bound_s=2, now=lambda: at[0], wait=wait, chance=lambda: 0.5)
    assert patience.until_free(lambda: taken_until(1.0)) == "taken"
    with pytest.raises(Fault, match="locked"):
        patience.until_free(lambda: taken_until(10.0))
    assert at[0] == pytest.approx(3.0, abs=0.1)
