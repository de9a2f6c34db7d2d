"""The objects of the gateway's answers, as far as Polly reads them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

READ_WRITE = "ReadWrite"
READ_ONLY = "ReadOnly"
KB_PER_MIB = 1024


class _Object(Struct, frozen=True, kw_only=True, rename="camel"):
    """Keys that are not read are passed over: they differ between versions."""


class Mapping(_Object, frozen=True, kw_only=True):
    """That an SDC has a volume."""

    sdc_id: str
    sdc_name: str | None = None
    sdc_ip: str | None = None
    access_mode: str | None = None


class Volume(_Object, frozen=True, kw_only=True):
    """A volume or a snapshot: on the array they are the same."""

    id: str
    name: str | None = None
    size_in_kb: int
    storage_pool_id: str
    ancestor_volume_id: str | None = None
    volume_type: str = ""
    access_mode_limit: str = READ_WRITE
    creation_time: int = 0
    mapped_sdc_info: tuple[Mapping, ...] | None = None

    @property
    def size_mib(self) -> int:
        return self.size_in_kb // KB_PER_MIB

    @property
    def mapped(self) -> tuple[Mapping, ...]:
        return self.mapped_sdc_info or ()


class Sdc(_Object, frozen=True, kw_only=True):
    """The array's client on a node."""

    id: str
    sdc_guid: str | None = None
    name: str | None = None
    sdc_ip: str | None = None
    sdc_approved: bool | None = True
    """None: of a host that speaks NVMe over TCP, which nobody approves."""

    @property
    def called(self) -> str:
        """What its node calls itself."""
        return self.sdc_guid or self.id


class StoragePool(_Object, frozen=True, kw_only=True):
    id: str
    name: str | None = None
    protection_domain_id: str
    zero_padding_enabled: bool = True


class ProtectionDomain(_Object, frozen=True, kw_only=True):
    id: str
    name: str | None = None
    gen_type: str | None = None


class System(_Object, frozen=True, kw_only=True):
    id: str


Systems = Annotated[tuple[System, ...], Meta(min_length=1)]
"""A gateway manages one."""


class Space(_Object, frozen=True, kw_only=True):
    """A pool's statistics."""

    net_capacity_in_use_in_kb: int
    net_unused_capacity_in_kb: int
    capacity_available_for_volume_allocation_in_kb: int


class Created(_Object, frozen=True, kw_only=True):
    id: str


class Snapshots(_Object, frozen=True, kw_only=True):
    volume_id_list: Annotated[tuple[str, ...], Meta(min_length=1)]


class Failure(_Object, frozen=True, kw_only=True):
    """The body of every answer that is no success."""

    message: str = ""
    error_code: int = 0
    details: Any = None
    """What went wrong with each object of a call about many; not the same in all versions."""

    @property
    def codes(self) -> tuple[int, ...]:
        """What went wrong: the details know better."""
        details = self.details if isinstance(self.details, list) else ()
        deeper = tuple(detail["rc"] for detail in details if isinstance(detail, dict) and isinstance(detail.get("rc"), int))
        return deeper or (self.error_code,)


class Bearer(Struct, frozen=True, kw_only=True):
    """The answer to a login of version 4."""

    access_token: str
    refresh_token: str = ""
    expires_in: int = 300
