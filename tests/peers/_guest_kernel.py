"""Debian's kernel for the guest, and the small file system that it starts in: fetched once, unpacked into the user's cache.

The packages come from the mirrors that this machine's apt uses, with lists and state of their own; nothing is installed. The kernel
is the one for any machine: the one for clouds has no 9p, by which the guest sees this machine's files.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.peers.venvs import alone, cache
from tests.servers import Missing

INIT: Final = Path(__file__).with_name("_guest_init.sh")
KERNEL: Final = "linux-image-amd64"
"""It depends on the package that has the kernel of the day."""
MODULES: Final = (
    *("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console", "virtio_net", "virtio_blk", "virtio_scsi", "sd_mod", "nvme"),
    *("nvmet", "nvmet-tcp", "nvme-tcp", "target_core_mod", "target_core_iblock", "iscsi_target_mod", "iscsi_tcp"),
    *("ext4", "xfs", "crc32c_generic", "crc32c-intel", "nfs", "nfsv4", "loop"),
    *("dm-mod", "dm-multipath", "dm-round-robin", "dm-service-time", "scsi_dh_alua"),
    *("dm-crypt", "ecb", "xts", "aesni-intel", "af_alg", "algif_skcipher"),
)
"""What the tests of the guest use; what these need comes with them."""


def installed() -> Path:
    """The folder with `vmlinuz` and `initrd`, made if it is not there. Raises Missing, CalledProcessError."""
    wanted = INIT.read_bytes() + repr(MODULES).encode()
    folder = cache() / f"guest-{hashlib.sha256(wanted).hexdigest()[:16]}"
    with alone("guest"):
        if not (folder / "ready").exists():
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    if not shutil.which("apt-get") or platform.machine() != "x86_64":
        raise Missing("Debian's kernel for x86-64, which apt-get fetches")
    print(f"Fetching Debian's kernel for the guest into {folder}, about 70 MB", flush=True)
    work = folder.with_name(f".{folder.name}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("state/lists/partial", "cache/archives/partial", "unpacked", "initrd/bin"):
        (work / part).mkdir(parents=True)
    (work / "status").touch()
    _fetch(work)
    _furnish(work)
    folder.mkdir()
    (kernel,) = (work / "unpacked/boot").glob("vmlinuz-*")
    kernel.rename(folder / "vmlinuz")
    (work / "initrd.cpio").rename(folder / "initrd")
    (folder / "ready").write_text(f"{kernel.name}\n")
    shutil.rmtree(work)


def _fetch(work: Path) -> None:
    own = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    options = [word for key, value in own.items() for word in ("-o", f"{key}={value}")]
    _run("apt-get", "-qq", *options, "update", cwd=work)
    said = _run("apt-cache", *options, "depends", "--no-recommends", KERNEL, cwd=work)
    names = [line.split()[-1] for line in said.splitlines() if "Depends: linux-image-" in line]
    if not names:
        raise Missing(f"Debian's package {KERNEL}, which this machine's apt does not know")
    _run("apt-get", "-qq", *options, "download", names[0], "busybox-static", cwd=work)
    for package in work.glob("*.deb"):
        _run("dpkg-deb", "--extract", str(package), str(work / "unpacked"), cwd=work)


def _furnish(work: Path) -> None:
    unpacked, initrd = work / "unpacked", work / "initrd"
    (busybox,) = (found for found in unpacked.glob("**/bin/busybox") if not found.is_symlink())
    (modules,) = unpacked.glob("**/lib/modules/*")
    _run(str(busybox), "depmod", "-b", str(modules.parents[2]), modules.name, cwd=work)
    shutil.copy(busybox, initrd / "bin/busybox")
    shutil.copy(INIT, initrd / "init")
    (initrd / "init").chmod(0o755)
    for folder in ("proc", "sys", "dev"):
        (initrd / folder).mkdir()
    _take(modules, initrd / "lib/modules" / modules.name)
    _run(str(busybox), "depmod", "-b", str(initrd), modules.name, cwd=work)
    names = "\n".join(str(file.relative_to(initrd)) for file in sorted(initrd.rglob("*")))
    with (work / "initrd.cpio").open("wb") as archive:
        command = [str(busybox), "cpio", "-o", "-H", "newc", "-R", "0:0"]
        subprocess.run(command, input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL, cwd=initrd, check=True)


def _take(modules: Path, into: Path) -> None:
    """Copies the modules that the guest needs, with those that they need."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        needs[Path(file).name.split(".ko")[0].replace("_", "-")] = [file, *others.split()]
    for name in MODULES:
        for file in needs.get(name.replace("_", "-"), ()):  # the others are a part of the kernel itself
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(modules / file, into / file)
    for listing in modules.glob("modules.builtin*"):
        shutil.copy(listing, into)


def _run(*command: str, cwd: Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout
