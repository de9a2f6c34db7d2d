"""How many disks a machine of the fourth generation takes: Hyperdisks alone, and fewer of them the fewer vCPUs it has.

Google's API does not tell it (`maximumPersistentDisks` is 128 for all). The figures are those of its documents on machine families, as
kubernetes-sigs/gcp-compute-persistent-disk-csi-driver keeps them for its attach limits (pkg/constants/constants.go), with the boot
disk counted. Of the third generation (C3 and the like) no such table is known here, and A4X goes by its GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_SIXTEEN_TO_EIGHT: Final = ((8, 16), (80, 32))
MOST: Final[Mapping[str, Sequence[tuple[int, int]]]] = {
    "c4": ((2, 8), (4, 16), (24, 32), (48, 64), (96, 128)),
    "c4a": ((2, 8), (8, 16), (48, 32), (72, 64)),
    "c4d": ((2, 4), (4, 8), (8, 16), (96, 32), (192, 64), (384, 128)),
    "n4": _SIXTEEN_TO_EIGHT,
    "n4a": _SIXTEEN_TO_EIGHT,
    "n4d": _SIXTEEN_TO_EIGHT,
}
"""Series: up to so many vCPUs, so many disks. A machine with more vCPUs than are written here takes as many as the largest."""


def takes(machine_type: str, disk_type: str) -> bool:
    """False for what a machine surely refuses; Google's documents say of many more which go together."""
    return _series(machine_type) not in MOST or not disk_type.startswith("pd-")


def most_disks(machine_type: str, vcpus: int) -> int | None:
    """With the one that it boots from; None where the series has no such table, and the API's number counts."""
    series = MOST.get(_series(machine_type))
    return next((disks for most, disks in series if vcpus <= most), series[-1][1]) if series else None


def _series(machine_type: str) -> str:
    return machine_type.partition("-")[0]
