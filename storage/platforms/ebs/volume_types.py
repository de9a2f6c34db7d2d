"""What EC2 allows each type of volume, so that a profile is refused with a sentence before anything is called.

The figures are those of the EC2 API reference for CreateVolume and of the EBS user guide's table of volume types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from storage.errors import Invalid
from storage.model import Sizes

MIB_PER_GIB: Final = 1024
DEFAULT: Final = "gp3"
MIB_S_PER_IOPS: Final = 0.25
"""How much throughput a gp3 volume may have for each of its IOPS."""
BASELINE_IOPS: Final = 3000
RATE: Final = "volumeInitializationRate"
INITIALIZATION_MIB_S: Final = (100, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeType:
    min_gib: int
    max_gib: int
    iops: tuple[int, int] | None = None
    iops_per_gib: int = 0
    needs_iops: bool = False
    throughput: tuple[int, int] | None = None
    """MiB a second."""
    multi_attach: bool = False


TYPES: Final[Mapping[str, VolumeType]] = {
    "gp3": VolumeType(min_gib=1, max_gib=65536, iops=(BASELINE_IOPS, 80000), iops_per_gib=500, throughput=(125, 2000)),
    "gp2": VolumeType(min_gib=1, max_gib=16384),
    "io1": VolumeType(min_gib=4, max_gib=16384, iops=(100, 64000), iops_per_gib=50, needs_iops=True, multi_attach=True),
    "io2": VolumeType(min_gib=4, max_gib=65536, iops=(100, 256000), iops_per_gib=1000, needs_iops=True, multi_attach=True),
    "st1": VolumeType(min_gib=125, max_gib=16384),
    "sc1": VolumeType(min_gib=125, max_gib=16384),
    "standard": VolumeType(min_gib=1, max_gib=1024),
}
MAX_MIB: Final = max(kind.max_gib for kind in TYPES.values()) * MIB_PER_GIB


def sizes_of(name: str) -> Sizes:
    kind = TYPES[name]
    return Sizes(of=f"type {name}", min_mib=kind.min_gib * MIB_PER_GIB, max_mib=kind.max_gib * MIB_PER_GIB, granularity_mib=MIB_PER_GIB)


def fit(size_mib: int, parameters: Mapping[str, str]) -> int:
    """What EC2 makes of a size. Raises Invalid for one that the type cannot have, and for IOPS that are too many for it."""
    found = read(parameters)
    made_mib = sizes_of(found["type"]).fit(size_mib)
    _check_iops_of_size(found["type"], found.get("iops"), made_mib // MIB_PER_GIB)
    return made_mib


def read(parameters: Mapping[str, str]) -> dict[str, Any]:
    """A profile's parameters, the type always among them. Raises Invalid for what no volume can have, naming the parameter."""
    for key in parameters.keys() - READERS.keys():
        raise Invalid(field=f"parameters.{key}", value=parameters[key], reason=f"the parameters are {', '.join(READERS)}")
    found = {key: READERS[key](key, parameters[key]) for key in READERS if key in parameters}
    name = found.setdefault("type", DEFAULT)
    _check_iops(name, found.get("iops"))
    _check_throughput(name, found.get("throughput"), found.get("iops", BASELINE_IOPS))
    _check_rest(TYPES[name], name, found)
    return found


def settings(parameters: Mapping[str, str], size_mib: int, *, from_snapshot: bool) -> dict[str, Any]:
    """CreateVolume's arguments from a profile's parameters and a size that `fit` made. Raises Invalid, which names the parameter.

    A profile makes volumes of all beginnings, and EC2 takes the rate only with a snapshot.
    """
    found = read(parameters)
    if not from_snapshot:
        found.pop(RATE, None)
    return {"Size": size_mib // MIB_PER_GIB, **{ARGUMENTS[key]: value for key, value in found.items()}}


def _check_iops(name: str, iops: int | None) -> None:
    kind = TYPES[name]
    if kind.iops is None:
        if iops is not None:
            raise Invalid(field="parameters.iops", value=iops, reason=f"type {name} takes none; gp3, io1 and io2 do")
        return
    if iops is None:
        if kind.needs_iops:
            raise Invalid(field="parameters.iops", value="", reason=f"type {name} needs it: {kind.iops[0]} to {kind.iops[1]}")
        return
    if not kind.iops[0] <= iops <= kind.iops[1]:
        raise Invalid(field="parameters.iops", value=iops, reason=f"type {name} has {kind.iops[0]} to {kind.iops[1]}")


def _check_iops_of_size(name: str, iops: int | None, size_gib: int) -> None:
    kind = TYPES[name]
    if iops is None or kind.iops is None:
        return
    most = max(kind.iops[0], kind.iops_per_gib * size_gib)
    if iops > most:
        raise Invalid(
            field="parameters.iops",
            value=iops,
            reason=f"{size_gib} GiB of type {name} have at most {most}, {kind.iops_per_gib} for each GiB; "
            f"it needs {-(-iops // kind.iops_per_gib)} GiB or more",
        )


def _check_throughput(name: str, throughput: int | None, iops: int) -> None:
    if throughput is None:
        return
    allowed = TYPES[name].throughput
    if allowed is None:
        raise Invalid(field="parameters.throughput", value=throughput, reason=f"type {name} takes none; gp3 does")
    if not allowed[0] <= throughput <= allowed[1]:
        raise Invalid(field="parameters.throughput", value=throughput, reason=f"type {name} has {allowed[0]} to {allowed[1]} MiB/s")
    if throughput > iops * MIB_S_PER_IOPS:
        most = int(iops * MIB_S_PER_IOPS)
        raise Invalid(field="parameters.throughput", value=throughput, reason=f"with {iops} IOPS it is at most {most} MiB/s, 0.25 for each")


def _check_rest(kind: VolumeType, name: str, found: Mapping[str, Any]) -> None:
    if found.get("multiAttach") and not kind.multi_attach:
        raise Invalid(field="parameters.multiAttach", value="true", reason=f"type {name} is attached to one instance; io1 and io2 can more")
    if found.get("kmsKeyId") and not found.get("encrypted"):
        raise Invalid(field="parameters.kmsKeyId", value=found["kmsKeyId"], reason="it needs encrypted = true")
    rate = found.get(RATE)
    if rate is not None and not INITIALIZATION_MIB_S[0] <= rate <= INITIALIZATION_MIB_S[1]:
        raise Invalid(field=f"parameters.{RATE}", value=rate, reason="it is 100 to 300 MiB/s")


def _type(key: str, text: str) -> str:
    if text not in TYPES:
        raise Invalid(field=f"parameters.{key}", value=text, reason=f"the types are {', '.join(TYPES)}")
    return text


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Invalid(field=f"parameters.{key}", value=text, reason="it must be a whole number")
    return int(text)


def _truth(key: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise Invalid(field=f"parameters.{key}", value=text, reason="it must be true or false")
    return text == "true"


def _text(key: str, text: str) -> str:
    if not text or len(text) > 2048 or not text.isprintable():
        raise Invalid(field=f"parameters.{key}", value=text, reason="it must be a key's id, alias or ARN")
    return text


READERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "type": _type,
    "iops": _number,
    "throughput": _number,
    "encrypted": _truth,
    "kmsKeyId": _text,
    "multiAttach": _truth,
    RATE: _number,
}
ARGUMENTS: Final[Mapping[str, str]] = {
    "type": "VolumeType",
    "iops": "Iops",
    "throughput": "Throughput",
    "encrypted": "Encrypted",
    "kmsKeyId": "KmsKeyId",
    "multiAttach": "MultiAttachEnabled",
    RATE: "VolumeInitializationRate",
}
