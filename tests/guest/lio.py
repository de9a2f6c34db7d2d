"""An array's iSCSI target inside the guest, the kernel's own, with LUNs that come and go for one initiator. All here runs in the guest."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.guest.target import mounted_config
from tests.support import EMULATED_S, eventually

MODULES: Final = ("target_core_mod", "target_core_iblock", "iscsi_target_mod", "iscsi_tcp")
TARGET: Final = "iqn.2026-11.org.example:array"
INITIATOR: Final = "iqn.2026-11.org.example:node"
PORTALS: Final = ("127.0.0.1:3260", "127.0.0.2:3260")
SESSIONS: Final = Path("/sys/class/iscsi_session")
NAA: Final = "naa.6001405"
"""How the kernel's target begins the world-wide names of its LUNs; 25 digits of the unit's serial follow."""


def serial_of(name: str) -> str:
    """The world-wide name of this volume, as the initiator's kernel writes it."""
    return NAA + _unit(name)[:25]


def start(portals: Sequence[str] = PORTALS[:1]) -> None:
    """Has the target listen, and lets the one initiator in."""
    group = _group()
    group.mkdir(parents=True)
    for name in ("authentication", "generate_node_acls", "demo_mode_write_protect"):
        (group / "attrib" / name).write_text("0")
    for portal in portals:
        (group / "np" / portal).mkdir()
    (group / "acls" / INITIATOR).mkdir()
    (group / "enable").write_text("1")
    Path("/etc/iscsi/initiatorname.iscsi").write_text(f"InitiatorName={INITIATOR}\n")
    Path("/run/lock").mkdir(exist_ok=True)


def stop() -> None:
    """The initiator logs out, and nothing is left of the target."""
    subprocess.run(["iscsiadm", "--mode", "node", "--logoutall=all"], check=False, capture_output=True)
    subprocess.run(["iscsiadm", "--mode", "node", "--op", "delete"], check=False, capture_output=True)
    for name in _luns():
        unmap(name)
    group = _group()
    for made in (*(group / "acls").iterdir(), *(group / "np").iterdir(), group, group.parent):
        made.rmdir()


def map_to(name: str, device: str, lowest: int = 1) -> None:
    """Shows the volume, which is on `device`, to the initiator, as the lowest LUN that is free, as arrays do."""
    backing, used = _backing(name), _luns().values()
    lun = next(number for number in itertools.count(lowest) if number not in used)
    backing.mkdir(parents=True)
    (backing / "control").write_text(f"udev_path={device}")
    (backing / "wwn" / "vpd_unit_serial").write_text(_unit(name))
    (backing / "enable").write_text("1")
    shown, seen = _places(lun)
    shown.mkdir()
    os.symlink(backing, shown / name)
    seen.mkdir()
    os.symlink(shown, seen / "lun")


def unmap(name: str) -> None:
    """Takes the volume away, whether the initiator's kernel still has a disk of it or not. Gone already is fine."""
    if name not in _luns():
        return
    shown, seen = _places(_luns()[name])
    (seen / "lun").unlink()
    seen.rmdir()
    (shown / name).unlink()
    shown.rmdir()
    _backing(name).rmdir()


def give_up_soon() -> None:
    """The initiator waits a second for a portal that is lost, where it would wait for two minutes."""
    for file in SESSIONS.glob("*/recovery_tmo"):
        file.write_text("1")


def await_loss() -> None:
    """The disks of a session that is lost can be opened by nobody any more."""

    def is_lost() -> bool:
        return any(state.read_text().strip() == "transport-offline" for state in Path("/sys/block").glob("sd*/device/state"))

    eventually(is_lost, EMULATED_S, "the loss of a disk")


def await_session() -> None:
    """The initiator has come back to the portal that it lost."""
    eventually(lambda: [file.read_text().strip() for file in SESSIONS.glob("*/state")] == ["LOGGED_IN"], EMULATED_S, "the session")


def _luns() -> dict[str, int]:
    """The LUN of each volume that is shown."""
    links = (link for link in (_group() / "lun").glob("lun_*/*") if link.is_symlink())
    return {link.name: int(link.parent.name.removeprefix("lun_")) for link in links}


def _group() -> Path:
    return mounted_config() / "target" / "iscsi" / TARGET / "tpgt_1"


def _backing(name: str) -> Path:
    return mounted_config() / "target" / "core" / "iblock_0" / name


def _places(lun: int) -> tuple[Path, Path]:
    """Where the group of portals has the LUN, and where the initiator does."""
    group = _group()
    return group / "lun" / f"lun_{lun}", group / "acls" / INITIATOR / f"lun_{lun}"


def _unit(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
