"""NVMe disks of another kind than QEMU's: the kernel's own target serves them to the kernel itself, over the guest's loopback interface.

Such a disk has any model and serial, and it grows while it is plugged in, as EC2's do. What is here runs in the guest.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.support import EMULATED_S, eventually

MODEL: Final = "Amazon Elastic Block Store"
CONFIG: Final = Path("/sys/kernel/config")
TARGET: Final = CONFIG / "nvmet"
PORT: Final = TARGET / "ports" / "1"
ADDRESS: Final = "127.0.0.1"
NUMBER: Final = "4420"
CONTROLLERS: Final = Path("/sys/class/nvme")


def connect(serial: str, backing: str) -> None:
    """Has the device `backing` served as an NVMe disk of EC2's with this serial, and plugged in."""
    _open_port()
    served = TARGET / "subsystems" / _name(serial)
    served.mkdir()
    for setting, value in {"attr_allow_any_host": "1", "attr_model": MODEL, "attr_serial": serial}.items():
        (served / setting).write_text(value)
    disk = served / "namespaces" / "1"
    disk.mkdir()
    (disk / "device_path").write_text(backing)
    (disk / "enable").write_text("1")
    os.symlink(served, PORT / "subsystems" / served.name)
    Path("/dev/nvme-fabrics").write_text(f"transport=tcp,traddr={ADDRESS},trsvcid={NUMBER},nqn={served.name}")


def disconnect(serial: str) -> None:
    """Takes the disk away. Gone already is fine."""
    served = TARGET / "subsystems" / _name(serial)
    if not served.exists():
        return
    for controller in CONTROLLERS.iterdir():
        if (controller / "subsysnqn").read_text().strip() == served.name:
            (controller / "delete_controller").write_text("1")
    (PORT / "subsystems" / served.name).unlink()
    (served / "namespaces" / "1").rmdir()
    served.rmdir()


def connected() -> list[str]:
    """The serials of all disks that are plugged in."""
    return [(served / "attr_serial").read_text().strip() for served in (TARGET / "subsystems").glob("*")]


def mounted_config() -> Path:
    """Where the kernel's targets are set up."""
    if not os.path.ismount(CONFIG):
        subprocess.run(["mount", "-t", "configfs", "none", str(CONFIG)], check=True)
    return CONFIG


def _open_port() -> None:
    mounted_config()
    eventually(TARGET.is_dir, EMULATED_S, "the kernel's NVMe target")
    if not PORT.exists():
        PORT.mkdir()
        for setting, value in {"trtype": "tcp", "adrfam": "ipv4", "traddr": ADDRESS, "trsvcid": NUMBER}.items():
            (PORT / f"addr_{setting}").write_text(value)


def _name(serial: str) -> str:
    return f"nqn.2014-08.org.nvmexpress:{serial}"
