"""Volumes as folders with a hard quota below the base path, and the room that the cluster has for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.errors import PlatformUnavailable
from storage.platforms.powerscale import naming
from storage.platforms.powerscale.onefs import OneFs, Taken
from storage.platforms.powerscale.options import PowerScaleOptions
from storage.platforms.restapi import Answer

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
        found = map(self._volume, self._quotas("look at a volume", path=self.path(name)))
        return next((volume for volume in found if volume is not None and volume.name == name), None)

    def all(self) -> list[Volume]:
        """Every folder right below the base path that has a hard quota, in the order of their names."""
        found = map(self._volume, self._quotas("list its volumes", path=self._base, recurse_path_children="true"))
        volumes = {volume.name: volume for volume in found if volume is not None}  # a list that changes may tell one twice
        return [volumes[name] for name in sorted(volumes)]

    def _quotas(self, action: str, **more: str) -> list[Answer]:
        return self._onefs.all(action, PATH, "quotas", type="directory", **more)

    def _volume(self, quota: Answer) -> Volume | None:
        parent, _, name = str(quota["path"]).rstrip("/").rpartition("/")
        hard_bytes = int(quota.part("thresholds").number("hard", otherwise=0))
        if parent != self._base or not naming.is_id(name) or not hard_bytes:
            return None
        key, path, ready = str(quota["id"]), self.path(name), quota.get("ready", True)
        return Volume(name=name, path=path, quota=key, hard_bytes=hard_bytes, used_bytes=_used(quota), is_ready=bool(ready))

    def space(self) -> Space:
        """That of the cluster, or of the base path where it has a hard quota of its own."""
        said = self._onefs.get("look at its capacity", "statistics/current", keys=",".join(f"ifs.bytes.{key}" for key in KEYS))
        values = {str(one["key"]).removeprefix("ifs.bytes."): one.whole("value") for one in said.objects("stats")}
        if lacks := [key for key in KEYS if key not in values]:
            raise said.wrong(f"lacks the statistics {', '.join(lacks)}")
        total, used, free = (values[key] for key in KEYS)
        for quota in self._quotas("look at its capacity", path=self._base):
            is_ours = str(quota["path"]).rstrip("/") == self._base
            if is_ours and (hard := int(quota.part("thresholds").number("hard", otherwise=0))):
                total, used = min(total, hard), _used(quota)
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


def _used(quota: Answer) -> int:
    """What counts against a quota without overhead; older versions call it otherwise."""
    usage = quota.part("usage")
    return int(usage.number("fslogical", otherwise=0) or usage.number("logical", otherwise=0))
