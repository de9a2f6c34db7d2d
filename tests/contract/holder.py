"""A process that holds a local volume as an executor does: run as a program, it says on one line what it has, and waits.

python -m tests.contract.holder image ROOT VOLUME MOUNT_POINT    its mount namespace, with a child that stays in it
python -m tests.contract.holder folder ROOT VOLUME               a child that was given the lock
python -m tests.contract.holder create ROOT TOKEN                stays for ever in the middle of a create
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from storage.model import ExternalId
from storage.platforms.base import CreateRequest
from storage.platforms.local.formats import ImageFormat
from storage.platforms.registry import build

CLONE_NEWNS = 0x00020000


def main(what: str, *arguments: str) -> NoReturn:
    roles: dict[str, Callable[..., None]] = {"image": hold_image, "folder": hold_folder, "create": stop_in_create}
    roles[what](*arguments)
    signal.pause()
    raise SystemExit


def hold_image(root: str, volume: str, mount_point: str) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rslave", "/"], check=True)
    attachment = build("local", "local", {"root": root}).attach(ExternalId(volume), "node-a", epoch=1)
    subprocess.run(["mkfs.ext4", "-q", attachment.device], check=True)
    subprocess.run(["mount", attachment.device, mount_point], check=True)
    print(attachment.device, child_without(range(3, 256)), flush=True)


def hold_folder(root: str, volume: str) -> None:
    platform = build("local", "local", {"root": root, "format": "folder"})
    platform.attach(ExternalId(volume), "node-a", epoch=1)
    lock = platform.inheritable(ExternalId(volume))
    print("-", child_without(fd for fd in range(3, 256) if fd != lock), flush=True)


def stop_in_create(root: str, token: str) -> None:
    def make(self: ImageFormat, *arguments: object) -> None:
        print("-", 0, flush=True)
        signal.pause()

    ImageFormat.make = make  # type: ignore[method-assign,assignment]  # for this test
    build("local", "local", {"root": root}).create(CreateRequest(pool="default", size_mib=8, token=token))


def child_without(descriptors: Iterable[int]) -> int:
    child = os.fork()
    if child == 0:
        for fd in descriptors:
            with contextlib.suppress(OSError):
                os.close(fd)
        signal.pause()
        os._exit(0)
    return child


if __name__ == "__main__":
    main(*sys.argv[1:])
