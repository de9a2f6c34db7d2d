"""Folders on their way: copies that are not whole yet, and what was deleted. They are below the base path, in `.polly`.

A copy becomes a volume, and a volume becomes a deleted one, by one move each, so nobody ever sees half of either. What is in
`.polly` has a name that its volume's begins: whoever repeats a call finds what was left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from storage.errors import PlatformError
from storage.platforms.powerscale.onefs import NotThere, OneFs, Refused, Taken

COPY_S: Final = 6 * 3600.0
"""How long OneFS may take to answer that it has copied a folder."""
SNAPSHOTS: Final = "/ifs/.snapshot"
FAILED: Final = frozenset({"failed", "cancelled_user", "cancelled_system", "failed_not_retried"})
ENDED: Final = FAILED | {"succeeded"}
MODE: Final = "0700"


class Folders:
    """All methods raise PlatformUnavailable and Refused beside what they say."""

    def __init__(self, onefs: OneFs, base: str, chance: Callable[[], float]) -> None:
        self._onefs, self._chance = onefs, chance
        self._copies, self._trash = f"{base}/.polly/copies", f"{base}/.polly/trash"

    def _new(self, folder: str, name: str) -> str:
        return f"{folder}/{name}.{int(self._chance() * 16**8):08x}"

    def _of(self, folder: str, name: str) -> list[str]:
        return [f"{folder}/{child}" for child in self._onefs.children("look for folders", folder) if child.rpartition(".")[0] == name]

    def is_begun(self, name: str, path: str) -> bool:
        """Whether somebody has begun to make the volume, and made more or less of its folder."""
        return bool(self._of(self._copies, name)) or self._onefs.is_there("look for a volume", path)

    def copy(self, snapshot: str, source: str, name: str, path: str) -> None:
        """What a snapshot holds of a folder becomes a new one, if it is not there. Raises NotThere, Full."""
        if self._onefs.is_there("copy a snapshot", path):
            return
        self._onefs.make_folder("copy a snapshot", self._copies, mode=MODE, recursive=True)
        copy = self._new(self._copies, name)
        found = f"{SNAPSHOTS}/{snapshot}{source.removeprefix('/ifs')}"
        try:
            self._onefs.copy("copy a snapshot", found, copy, answer_s=COPY_S)
            self._onefs.move("copy a snapshot", copy, path)
        except (Refused, PlatformError) as error:
            with contextlib.suppress(Refused, PlatformError):
                self.bin(name, copy)
                self._remove(self._of(self._trash, name))
            if not isinstance(error, Taken):  # another with the same token was first
                raise

    def bin(self, name: str, path: str) -> None:
        """A folder of the volume's, out of the way. Not there is fine."""
        self._onefs.make_folder("delete a volume", self._trash, mode=MODE, recursive=True)
        with contextlib.suppress(NotThere):
            self._onefs.move("delete a volume", path, self._new(self._trash, name))

    def empty(self, name: str) -> None:
        """Has OneFS remove what is left of a volume, which takes as long as it takes; and what was left of others before."""
        for copy in self._of(self._copies, name):
            self.bin(name, copy)
        self._remove(self._of(self._trash, name))
        self._sweep()

    def _sweep(self) -> None:
        """What no job is about any more: its job has failed, or whoever was to begin it has died. That it stays fails no other's delete."""
        with contextlib.suppress(Refused, PlatformError):
            there = [f"{self._trash}/{child}" for child in self._onefs.children("look for folders", self._trash)]
            self._remove(self._forgotten(there) if there else [])

    def _forgotten(self, paths: Sequence[str]) -> list[str]:
        """None where a job does not say what it is about."""
        jobs = [job for job in self._onefs.all("look at its jobs", "job/jobs", "jobs") if job.get("type") == "TreeDelete"]
        running = [job.get("paths") for job in jobs if str(job["state"]).lower() not in ENDED]
        told = [one for one in running if isinstance(one, list)]
        taken = {str(path).rstrip("/") for one in told for path in one}
        return [path for path in paths if path not in taken] if len(told) == len(running) else []

    def _remove(self, paths: Sequence[str]) -> None:
        """Raises PlatformError where OneFS takes the job and fails it at once."""
        if not paths:
            return
        try:
            body = {"type": "TreeDelete", "allow_dup": True, "paths": list(paths)}
            job = self._onefs.post("delete a volume", "job/jobs", body).whole("id")
            said = self._onefs.get("delete a volume", f"job/jobs/{job}").objects("jobs")
        except NotThere:
            return  # another has removed them, or the job is done and forgotten
        state = str(said[0]["state"]).lower() if said else "done"
        if state in FAILED:
            reason = f"its job {job}, TreeDelete of {', '.join(paths)}, is {state}"
            raise PlatformError(platform=self._onefs.platform, action="delete a volume", reason=reason)
