"""The array as the adapter asks it: one method for each call, and what seldom changes kept for a while.

Knows the calls and their order in one system; not Polly's rules about volumes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Table
from typing import Final, Generic, TypeVar

from msgspec import Struct

from storage.platforms.powerflex.client import Client
from storage.platforms.powerflex.failures import GONE, Refused, Unreachable
from storage.platforms.powerflex.objects import (
    KB_PER_MIB,
    Created,
    Mapping,
    ProtectionDomain,
    Sdc,
    Snapshots,
    Space,
    StoragePool,
    Systems,
    Volume,
)
from storage.platforms.powerflex.options import Parameters

T = TypeVar("T")
KEPT_S: Final = 60.0
"""How long pools and SDCs are believed to be as they were; one that is not among them is looked for at once."""
UNKNOWN_S: Final = 5.0
"""How old they may be where a volume names one that is not among them: many volumes may name the same."""
LISTING_S: Final = 15.0
"""How old the list may be that a walk through its parts goes on with: the gateway gives all volumes or none."""
MIRRORED: Final = "mirroring"
GIB_MIB: Final = 1024
ONLY_ME: Final = "ONLY_ME"
SPACE: Final = tuple(Space.__struct_encode_fields__)


class Pool(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    """The protection domain's and its own."""
    is_padded: bool
    is_mirrored: bool
    """False: of PowerFlex 5's erasure coding, which has other calls for volumes."""


class Kept(Generic[T]):
    """What was seen last, for a while."""

    def __init__(self, look: Callable[[], T], lives_s: float, now: Callable[[], float]) -> None:
        self._look, self._lives_s, self._now = look, lives_s, now
        self._lock = threading.Lock()
        self._seen: T | None = None
        self._at = 0.0

    def get(self, *, oldest_s: float | None = None) -> T:
        """Looks again where what is kept is as old as that."""
        with self._lock:
            if self._seen is None or self._now() - self._at >= (self._lives_s if oldest_s is None else oldest_s):
                self._seen = self._look()
                self._at = self._now()
            return self._seen

    def forget(self) -> None:
        with self._lock:
            self._seen = None


class PowerFlexArray:
    """Raises Refused and Unreachable."""

    def __init__(self, client: Client, *, now: Callable[[], float]) -> None:
        self._client = client
        self.version = client.version
        self.close = client.close
        self._system = Kept(self._ask_system, float("inf"), now)
        self._pools = Kept(self._ask_pools, KEPT_S, now)
        self._sdcs = Kept(self._ask_sdcs, KEPT_S, now)
        self._volumes = Kept(self._ask_volumes, LISTING_S, now)

    # --- what is there --------------------------------------------------------------------------

    def system(self) -> str:
        """The system's id, which its devices bear on every node."""
        return self._system.get()

    def pools(self, *, anew: bool = False) -> Table[str, Pool]:
        """All pools, by their ids."""
        return self._pools.get(oldest_s=0.0 if anew else None)

    def pool(self, name: str) -> Pool | None:
        """The pool with this name."""
        for anew in (False, True):
            if found := next((pool for pool in self.pools(anew=anew).values() if pool.name == name), None):
                return found
        return None

    def pool_of(self, volume: Volume) -> Pool | None:
        return _among(self._pools, volume.storage_pool_id)

    def sdc_of(self, mapping: Mapping) -> Sdc | None:
        return _among(self._sdcs, mapping.sdc_id)

    def sdcs(self, *, anew: bool = False) -> Table[str, Sdc]:
        """All SDCs, by their ids."""
        return self._sdcs.get(oldest_s=0.0 if anew else None)

    def sdc(self, node: str) -> Sdc | None:
        """The SDC that a node calls itself by: its GUID, or its id, name or address where an operator said so. Names and addresses go from
        one to another, so they count only as they are now."""
        wanted = node.lower()
        for anew in (False, True):
            for sdc in self.sdcs(anew=anew).values():
                said = (sdc.sdc_guid, sdc.id, sdc.name, sdc.sdc_ip) if anew else (sdc.sdc_guid, sdc.id)
                if wanted and wanted in {(one or "").lower() for one in said}:
                    return sdc
        return None

    def volumes(self, *, anew: bool = True) -> Sequence[Volume]:
        """All volumes and snapshots, by their ids. Kept until it is old or `walked`."""
        return self._volumes.get(oldest_s=0.0 if anew else None)

    def walked(self) -> None:
        """Nobody needs the list of all volumes any more: it may be a large one."""
        self._volumes.forget()

    def volume(self, key: str) -> Volume:
        found = self._client.get(f"/api/instances/Volume::{key}", Volume, volume=key)
        if found.id != key:
            raise Unreachable(f"the gateway shows volume {found.id} where {key} was asked for")
        return found

    def named(self, name: str) -> Volume | None:
        try:
            key = self._client.post("/api/types/Volume/instances/action/queryIdByKey", {"name": name}, str)
            found = self.volume(key)
        except Refused as refused:
            if refused.means(GONE):
                return None
            raise
        return found if found.name == name else None

    def space(self, pools: Sequence[str]) -> Table[str, Space]:
        wanted = {"ids": list(pools), "properties": list(SPACE)}
        return self._client.post("/api/types/StoragePool/instances/action/querySelectedStatistics", wanted, dict[str, Space])

    # --- what changes it ------------------------------------------------------------------------

    def create(self, pool: Pool, name: str, size_mib: int, parameters: Parameters) -> str:
        wanted = {
            "storagePoolId": pool.id,
            "name": name,
            "volumeType": parameters.provisioning,
            "volumeSizeInKb": str(size_mib * KB_PER_MIB),
            **({"compressionMethod": parameters.compression} if parameters.compression else {}),
        }
        return self._client.post("/api/types/Volume/instances", wanted, Created).id

    def snapshot(self, volume: str, name: str) -> str:
        wanted = {"snapshotDefs": [{"volumeId": volume, "snapshotName": name}]}
        path = f"/api/instances/System::{self.system()}/action/snapshotVolumes"
        return self._client.post(path, wanted, Snapshots, volume=volume).volume_id_list[0]

    def resize(self, volume: str, size_mib: int) -> None:
        self._act(volume, "setVolumeSize", sizeInGB=str(size_mib // GIB_MIB))

    def remove(self, volume: str) -> None:
        """What was made from it stays."""
        self._act(volume, "removeVolume", removeMode=ONLY_ME)

    def map(self, volume: str, sdc: str, *, mode: str = "", shared: bool = False) -> None:
        """Without `mode` the volume's own. Without `shared` the array refuses a second SDC, whoever comes first."""
        named = {"accessMode": mode} if mode else {}
        self._act(volume, "addMappedSdc", sdcId=sdc, allowMultipleMappings="TRUE" if shared else "FALSE", **named)

    def set_mode(self, volume: str, sdc: str, mode: str) -> None:
        self._act(volume, "setVolumeMappingAccessMode", sdcId=sdc, accessMode=mode)

    def unmap(self, volume: str, sdc: str) -> None:
        self._act(volume, "removeMappedSdc", sdcId=sdc)

    def _act(self, volume: str, action: str, **wanted: str) -> None:
        self._client.act(f"/api/instances/Volume::{volume}/action/{action}", wanted, volume=volume)

    # --- looks that are kept ----------------------------------------------------------------------

    def _ask_system(self) -> str:
        return self._client.get("/api/types/System/instances", Systems)[0].id

    def _ask_pools(self) -> Table[str, Pool]:
        domains = {one.id: one for one in self._client.get("/api/types/ProtectionDomain/instances", tuple[ProtectionDomain, ...])}
        pools = self._client.get("/api/types/StoragePool/instances", tuple[StoragePool, ...])
        return {pool.id: _pool(pool, domains[pool.protection_domain_id]) for pool in pools if pool.protection_domain_id in domains}

    def _ask_sdcs(self) -> Table[str, Sdc]:
        return {sdc.id: sdc for sdc in self._client.get("/api/types/Sdc/instances", tuple[Sdc, ...])}

    def _ask_volumes(self) -> Sequence[Volume]:
        return sorted(self._client.get("/api/types/Volume/instances", tuple[Volume, ...]), key=lambda volume: volume.id)


def _pool(pool: StoragePool, domain: ProtectionDomain) -> Pool:
    name = f"{domain.name or domain.id}/{pool.name or pool.id}"
    is_mirrored = (domain.gen_type or MIRRORED).lower() == MIRRORED
    return Pool(id=pool.id, name=name, is_padded=pool.zero_padding_enabled, is_mirrored=is_mirrored)


def _among(kept: Kept[Table[str, T]], key: str) -> T | None:
    found = kept.get().get(key)
    return found if found is not None else kept.get(oldest_s=UNKNOWN_S).get(key)
