"""Snapshots (SnapshotIQ) of volumes' folders: what they hold is at /ifs/.snapshot/NAME, also when their volume is gone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

from storage.platforms.powerscale import naming
from storage.platforms.powerscale.onefs import NotThere, OneFs, Taken
from storage.platforms.restapi import Answer

PATH: Final = "snapshot/snapshots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    name: str
    path: str
    """Of its volume's folder."""
    token: str
    size_mib: int
    created_at: float


class Snapshots:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, onefs: OneFs, base: str) -> None:
        self._onefs, self._base = onefs, base

    def get(self, name: str) -> Snapshot | None:
        if naming.of_snapshot(name) is None:
            return None
        try:
            said = self._onefs.get("look at a snapshot", f"{PATH}/{name}").objects("snapshots")
        except NotThere:
            return None
        return next((mine for one in said if (mine := self._snapshot(one)) is not None and mine.name == name), None)

    def all(self) -> list[Snapshot]:
        """Polly's own, in the order of their names."""
        found = self._onefs.all("list its snapshots", PATH, "snapshots")
        mine = {one.name: one for one in map(self._snapshot, found) if one is not None}  # a list that changes may tell one twice
        return [mine[name] for name in sorted(mine)]

    def take(self, path: str, token: str, size_mib: int) -> Snapshot:
        """A new one, or that which this token has made before, when the volume may have had another size. Raises NotThere, Full."""
        name = naming.snapshot_name(token, size_mib)
        if made := self.get(name) or next((one for one in self.all() if one.token == token), None):
            return made
        try:
            said = self._onefs.post("snapshot a volume", PATH, {"name": name, "path": path})
        except Taken:
            if made := self.get(name):  # another with the same token was first
                return made
            raise
        return self._snapshot(said) or Snapshot(name=name, path=path, token=token, size_mib=size_mib, created_at=0.0)

    def made(self, path: str, token: str) -> Snapshot | None:
        """The one that this token has made of a folder."""
        return next((one for one in self.all() if (one.path, one.token) == (path, token)), None)

    def delete(self, name: str) -> None:
        """Gone already is fine."""
        if naming.of_snapshot(name) is not None:
            self._onefs.delete("delete a snapshot", f"{PATH}/{name}")

    # --- for one clone, which nobody else is to see ---------------------------------------------------

    def take_for_clone(self, path: str, token: str) -> str:
        """Its name; there already is fine, and keeps the moment of the first try. Raises NotThere, Full."""
        name = naming.clone_name(token)
        with contextlib.suppress(Taken):
            self._onefs.post("clone a volume", PATH, {"name": name, "path": path})
        return name

    def is_for_clone(self, token: str) -> bool:
        try:
            return bool(self._onefs.get("look for a volume", f"{PATH}/{naming.clone_name(token)}").objects("snapshots"))
        except NotThere:
            return False

    def end_clone(self, token: str) -> None:
        """Gone already is fine."""
        self._onefs.delete("clone a volume", f"{PATH}/{naming.clone_name(token)}")

    def _snapshot(self, said: Answer) -> Snapshot | None:
        name, path = str(said["name"]), str(said["path"]).rstrip("/")
        parts = naming.of_snapshot(name)
        if parts is None or path.rpartition("/")[0] != self._base:
            return None
        return Snapshot(name=name, path=path, token=parts[0], size_mib=parts[1], created_at=said.number("created", otherwise=0.0))
