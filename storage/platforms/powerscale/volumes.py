"""Volumes as folders with a hard quota below the base path, and the room that the cluster has for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.errors import PlatformUnavailable
from storage.platforms.powerscale import naming
from storage.platforms.powerscale.onefs import Object, OneFs, Taken
from storage.platforms.powerscale.options import PowerScaleOptions

PATH: Final = "quota/quotas"
MIB: Final = 1 << 20
SCAN_S: Final = 3600.0
FIRST_LOOK_S, LONGEST_LOOK_S = 1.0, 15.0
KEYS: Final = ("total", "used", "avail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    name: str
    path: str
    quota: str
    hard_bytes: int
    used_bytes: int
    is_ready: bool
    """OneFS has counted what was in the folder before it got its quota."""

    @property
    def size_mib(self) -> int:
        return self.hard_bytes // MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    capacity_mib: int
    used_mib: int
    free_mib: int


class Volumes:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, onefs: OneFs, options: PowerScaleOptions, wait: Callable[[float], None]) -> None:
        self._onefs, self._base, self._mode, self._wait = onefs, options.base_path.rstrip("/"), options.mode, wait

    def path(self, name: str) -> str:
        return f"{self._base}/{name}"

    # --- looking ------------------------------------------------------------------------------------

    def get(self, name: str) -> Volume | None:
        if not naming.is_id(name):
            return None
        found = self._quotas("look at a volume", path=self.path(name))
        return next((volume for one in found if (volume := self._volume(one)) is not None), None)

    def all(self) -> list[Volume]:
        """Every folder right below the base path that has a hard quota, in the order of their names."""
        found = self._quotas("list its volumes", path=self._base, recurse_path_children="true")
        return sorted((volume for one in found if (volume := self._volume(one)) is not None), key=lambda one: one.name)

    def _quotas(self, action: str, **more: str) -> list[Object]:
        return self._onefs.all(action, PATH, "quotas", type="directory", **more)

    def _volume(self, quota: Object) -> Volume | None:
        parent, _, name = str(quota["path"]).rstrip("/").rpartition("/")
        hard = (quota.get("thresholds") or {}).get("hard")
        if parent != self._base or not naming.is_id(name) or not hard:
            return None
        used, ready = quota.get("usage") or {}, quota.get("ready", True)
        key, path = str(quota["id"]), self.path(name)
        return Volume(name=name, path=path, quota=key, hard_bytes=int(hard), used_bytes=_used(used), is_ready=bool(ready))

    def space(self) -> Space:
        """That of the cluster, or of the base path where it has a hard quota of its own."""
        said = self._onefs.get("look at its capacity", "statistics/current", keys=",".join(f"ifs.bytes.{key}" for key in KEYS))
        values = {str(one["key"]).removeprefix("ifs.bytes."): int(one["value"] or 0) for one in said["stats"]}
        total, used, free = (values.get(key, 0) for key in KEYS)
        for quota in self._quotas("look at its capacity", path=self._base):
            if hard := (quota.get("thresholds") or {}).get("hard"):
                total, used = min(total, int(hard)), _used(quota.get("usage") or {})
                free = min(free, total - used)
        return Space(capacity_mib=total // MIB, used_mib=used // MIB, free_mib=max(0, free) // MIB)

    # --- making and changing --------------------------------------------------------------------------

    def make_folder(self, name: str, *, mode: str = "") -> None:
        """There already is fine."""
        self._onefs.make_folder("create a volume", self.path(name), mode=mode or self._mode)

    def limit(self, name: str, size_mib: int) -> None:
        """Gives the folder its quota, which makes it a volume. There already is fine: its size is then another's."""
        body = {"path": self.path(name), "type": "directory", "enforced": True, "container": True, "include_snapshots": False}
        try:
            self._onefs.post(
                "create a volume", PATH, {**body, "thresholds_include_overhead": False, "thresholds": {"hard": size_mib * MIB}}
            )
        except Taken:
            if self.get(name) is None:
                raise

    def counted(self, volume: Volume) -> Volume:
        """The volume once its quota holds: OneFS counts first what was in the folder before."""
        waited_s, look_s = 0.0, FIRST_LOOK_S
        while not volume.is_ready:
            if waited_s >= SCAN_S:
                reason = f"the quota of {volume.path} is not ready after {waited_s:.0f} s"
                raise PlatformUnavailable(platform=self._onefs.platform, action="create a volume", reason=reason)
            self._wait(look_s)
            waited_s, look_s = waited_s + look_s, min(2 * look_s, LONGEST_LOOK_S)
            volume = self.get(volume.name) or volume
        return volume

    def grow(self, volume: Volume, size_mib: int) -> None:
        self._onefs.put("expand a volume", f"{PATH}/{volume.quota}", {"thresholds": {"hard": size_mib * MIB}})

    def unlimit(self, volume: Volume) -> None:
        """Gone already is fine."""
        self._onefs.delete("delete a volume", f"{PATH}/{volume.quota}")


def _used(usage: Object) -> int:
    """What counts against a quota without overhead; older versions call it otherwise."""
    return int(usage.get("fslogical") or usage.get("logical") or 0)
