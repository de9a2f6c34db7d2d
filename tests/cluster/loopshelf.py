"""A platform for tests of `attach_by = "broker"`: volumes are files, a SQLite file is the control plane, and an attached volume is a loop
device of this machine, which stays whoever dies, as a cloud's disks do.

Everything of one machine: what is attached to any node comes up here. A file `stopped-NODE` beside the volumes stands for a node that the
platform knows to be stopped. Third parties' adapters are found as this one is: by an entry point.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from storage.errors import Conflict, Invalid, PlatformUnavailable, PoolFull, StaleEpoch, UnknownPool, UnknownVolume, VolumeInUse
from storage.model import Birth, ExternalId, Page
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, VolumeReport
from storage.platforms.marks import Mark
from storage.platforms.options import option, write_options

TABLE = """CREATE TABLE IF NOT EXISTS volumes (id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT UNIQUE, name TEXT, size INT, labels TEXT,
 birth TEXT, epoch INT DEFAULT 0, floor INT DEFAULT 0, node TEXT, held INT, read_only INT)"""
ENTRY_POINT = "loopshelf = tests.cluster.loopshelf:LoopShelf"
MIB = 1 << 20


def announce(folder: Path) -> Path:
    """A distribution of the adapter's own in `folder`, for PYTHONPATH."""
    information = folder / "loopshelf-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: loopshelf\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[polly.platforms]\n{ENTRY_POINT}\n")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopShelfOptions:
    root: str = option(says="the folder of the volumes")
    capacity_mib: int = option(1024, says="how much fits on it")


class LoopShelf(Platform):
    Options = LoopShelfOptions

    def __init__(self, name: str, options: LoopShelfOptions) -> None:
        self._name, self._options, self._root = name, options, Path(options.root)

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(fences=True, marks=True, sees_nodes=True, max_mib=512, parallel=8)

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    @contextmanager
    def _shelf(self, action: str) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._root / "shelf.db", isolation_level=None, timeout=30)) as db:
                db.row_factory = sqlite3.Row
                db.execute("BEGIN IMMEDIATE")
                db.execute(TABLE)
                yield db
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise PlatformUnavailable(platform=self.name, action=action, reason=str(error)) from error

    def _row(self, db: sqlite3.Connection, external_id: str) -> sqlite3.Row:
        key = external_id.removeprefix("shelf-")
        found = key.isascii() and key.isdigit() and len(key) < 19 and db.execute("SELECT * FROM volumes WHERE id = ?", [key]).fetchone()
        if not found or external_id != f"shelf-{found['id']}":
            raise UnknownVolume(volume=external_id)
        row: sqlite3.Row = found
        return row

    def _report(self, row: sqlite3.Row) -> VolumeReport:
        external_id = ExternalId(f"shelf-{row['id']}")
        return VolumeReport(
            external_id=external_id,
            pool="default",
            size_mib=row["size"],
            serial=external_id,
            token=row["token"],
            name=row["name"],
            epoch=row["epoch"],
            birth=msgspec.json.decode(row["birth"], type=Birth) if row["birth"] else None,
            held_by=(row["node"],) if row["node"] else (),
            labels=json.loads(row["labels"]),
        )

    def _image(self, external_id: str) -> Path:
        return self._root / f"{external_id}.img"

    def pools(self) -> Sequence[PoolReport]:
        return [PoolReport(name="default", capacity_mib=self._options.capacity_mib)]

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        with self._shelf("list volumes") as db:
            rows = db.execute("SELECT * FROM volumes WHERE id > ? ORDER BY id LIMIT ?", [int(after or 0), limit]).fetchall()
        return Page(items=[self._report(row) for row in rows], after=str(rows[-1]["id"]) if len(rows) == limit else None)

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        with self._shelf("look at a volume") as db:
            return self._report(self._row(db, external_id))

    def find(self, token: str) -> VolumeReport | None:
        with self._shelf("look for a volume") as db:
            row = db.execute("SELECT * FROM volumes WHERE token = ?", [token]).fetchone()
            return self._report(row) if row else None

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        for key, value in parameters.items():
            raise Invalid(field=f"parameters.{key}", value=value, reason="a shelf has no parameters")

    def create(self, request: CreateRequest) -> VolumeReport:
        if request.pool != "default":
            raise UnknownPool(pool=request.pool, platform=self.name)
        self.check_parameters(request.parameters)
        size = self.capabilities.fit(request.size_mib)
        with self._shelf("create a volume") as db:
            if not db.execute("SELECT 1 FROM volumes WHERE token = ?", [request.token]).fetchone():
                free = self._options.capacity_mib - db.execute("SELECT coalesce(sum(size), 0) FROM volumes").fetchone()[0]
                if size > free:
                    raise PoolFull(pool="default", platform=self.name, free_mib=free, size_mib=size)
                values = [request.token, request.name, size, json.dumps(dict(request.labels))]
                made = db.execute("INSERT INTO volumes (token, name, size, labels) VALUES (?, ?, ?, ?)", values).lastrowid
                with self._image(f"shelf-{made}").open("wb") as file:
                    file.truncate(size * MIB)
            return self._report(db.execute("SELECT * FROM volumes WHERE token = ?", [request.token]).fetchone())

    def delete(self, external_id: ExternalId) -> None:
        with self._shelf("delete a volume") as db, contextlib.suppress(UnknownVolume):
            row = self._row(db, external_id)
            if row["node"]:
                raise VolumeInUse(volume=external_id, holder=row["node"])
            self._image(external_id).unlink(missing_ok=True)
            db.execute("DELETE FROM volumes WHERE id = ?", [row["id"]])

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        with self._shelf("attach a volume") as db:
            row = self._row(db, external_id)
            if row["node"] and (row["node"], row["held"], row["read_only"]) != (node, epoch, read_only):
                raise VolumeInUse(volume=external_id, holder=row["node"])
            mark = Mark(epoch=row["epoch"], floor=row["floor"]).admit(external_id, epoch, read_only=read_only)
            values = [node, epoch, read_only, mark.epoch, mark.floor, row["id"]]
            db.execute("UPDATE volumes SET node = ?, held = ?, read_only = ?, epoch = ?, floor = ? WHERE id = ?", values)
            device = self._device(external_id) or self._plug(external_id, read_only)
        return Attachment(external_id=external_id, device=device, serial=external_id, read_only=read_only)

    def _plug(self, external_id: str, read_only: bool) -> str:
        flags = ["--read-only"] if read_only else []
        return self._losetup(*flags, "--find", "--show", str(self._image(external_id)))

    def _losetup(self, *words: str) -> str:
        done = subprocess.run(["losetup", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PlatformUnavailable(platform=self.name, action="use a loop device", reason=done.stderr.strip())
        return done.stdout.strip()

    def _device(self, external_id: str) -> str | None:
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if file.read_text().strip() == str(self._image(external_id)):
                    return f"/dev/{file.parts[3]}"
        return None

    def detach(self, external_id: ExternalId, node: str) -> None:
        """The kernel itself says whether any namespace has it mounted: then it stays attached."""
        with self._shelf("detach a volume") as db, contextlib.suppress(UnknownVolume):
            row = self._row(db, external_id)
            if row["node"] != node:
                return
            if device := self._device(external_id):
                try:
                    os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
                except OSError as error:
                    raise VolumeInUse(volume=external_id, holder=f"a mount on {node}") from error
                self._losetup("--detach", device)
            db.execute("UPDATE volumes SET node = NULL, held = NULL WHERE id = ?", [row["id"]])

    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        with self._shelf("fence a volume") as db:
            row = self._row(db, external_id)
            if row["node"]:
                return None
            mark = Mark(epoch=row["epoch"], floor=row["floor"]).fenced(epoch)
            db.execute("UPDATE volumes SET epoch = ?, floor = ? WHERE id = ?", [mark.epoch, mark.floor, row["id"]])
            return f"{external_id} is attached to no node, its epoch is {mark.epoch}"

    def node_stopped(self, node: str) -> str | None:
        return f"node {node} is stopped" if (self._root / f"stopped-{node}").exists() else None

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        with self._shelf("store a birth certificate") as db:
            row = self._row(db, external_id)
            if epoch < row["epoch"]:
                raise StaleEpoch(volume=external_id, epoch=epoch, found=row["epoch"])
            text = msgspec.json.encode(birth).decode()
            if row["birth"] not in (None, text):
                raise Conflict(what=f"the birth certificate of {external_id}", expected=row["birth"], found=text)
            db.execute("UPDATE volumes SET birth = ? WHERE id = ?", [text, row["id"]])

    def check(self) -> Sequence[Finding]:
        return [Finding(ok=self._root.is_dir(), subject=str(self._root), message="the shelf's folder", mend="make it")]

    def close(self) -> None:
        """What is attached stays."""


def held(root: Path) -> dict[str, Any]:
    """External id to the node that has it, as the control plane has it."""
    with closing(sqlite3.connect(f"file:{root}/shelf.db?mode=ro", uri=True)) as db:
        return {f"shelf-{key}": node for key, node in db.execute("SELECT id, node FROM volumes WHERE node IS NOT NULL")}


def unplug(root: Path) -> None:
    """Takes every loop device away, whatever the control plane says."""
    for image in root.glob("*.img"):
        said = subprocess.run(
            ["losetup", "--noheadings", "--output", "NAME", "--associated", str(image)], capture_output=True, text=True, check=True
        )
        for device in said.stdout.split():
            subprocess.run(["losetup", "--detach", device], check=True)
