"""An XMS over HTTPS: Cinder's own in-memory one, behind a layer that refuses what a real array refuses, and can be told to fail.

Run by the Python that has Cinder: `_xms_server.py PORT CERT KEY`. It knows nothing of Polly but its faults. A POST to /faults sets what
goes wrong next: {"busy": N, "locked_out": true, "most_objects": N, "most_snapshots": N}, {"blind": true} to filters, {"say": [[STATUS,
TEXT]]} instead of the next answers, {"arrange": [FAULT, N]} and {"heal": true} for a fault at the N-th call, {"reset": true} to empty
all. It is answered with what calls there were, and all that is there.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import sys
import threading
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

import eventlet

eventlet.monkey_patch = lambda **_: None  # Cinder's tests would make threads and TLS cooperative; this server has real ones

from cinder import exception, objects  # noqa: E402  # what is above must come first

objects.register_all()
from cinder.tests.unit.volume.drivers.dell_emc import test_xtremio as xms  # noqa: E402  # it needs the objects above

sys.path.insert(0, str(Path(__file__).parents[2]))
from storage.platforms.faulting import Fate, Fault, Faults  # noqa: E402  # it is below no folder that this program looks in
from tests.peers.loopback import Asked, Reply, Server, meeting, written  # noqa: E402  # likewise

USER, PASSWORD = "polly", "not-a-real-secret"
PATH = re.compile(r"/api/json/(?:v2/)?types/([\w-]+)(?:/(\d+))?")
UNITS = {"k": 1, "m": 1024, "g": 1024**2, "t": 1024**3}
LARGEST_KIB = 256 * 1024**3
LONGEST = 128
NAMES = ("vol-name", "ig-name", "initiator-name", "name")
REFUSALS = {
    Fate.THROTTLED: written(400, {"message": "system_is_busy", "error_code": 400}),
    Fate.EXPIRED: written(401, {"message": "unauthorized"}),
}


class Refusal(Exception):
    """What the array answers with HTTP 400."""


class Rows(dict[Any, Any]):
    """Cinder's XMS numbers a new object by how many there are; with this none takes another's number."""

    def __len__(self) -> int:
        return max((key for key in self if isinstance(key, int)), default=0)

    def __bool__(self) -> bool:
        return any(True for _ in self)


class Array:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        xms.clean_xms_data()
        for kind, rows in list(xms.xms_data.items()):
            xms.xms_data[kind] = Rows(rows)
        xms.xms_data["snapshot-sets"] = Rows()
        self.faults: dict[str, Any] = {"most_objects": 8192, "most_snapshots": 512, "most_maps": 16384}

    def things(self) -> list[str]:
        rows = [(kind, row) for kind in ("volumes", "initiator-groups", "initiators", "lun-maps") for row in xms.xms_data[kind].values()]
        seen = ("name", "vol-name", "ig-name", "port-address", "vol-size")
        return sorted({f"{kind}: {[row.get(key) for key in seen]}" for kind, row in rows})

    def spend(self, fault: str) -> bool:
        left = int(self.faults.get(fault, 0))
        self.faults[fault] = max(0, left - 1)
        return left > 0

    def handle(self, method: str, kind: str, index: int | None, query: dict[str, list[str]], body: dict[str, Any]) -> Any:
        name = query.get("name", [None])[0]
        if kind not in xms.xms_data and kind != "snapshots":
            raise Refusal("invalid_object_type")
        for cluster in (*query.get("cluster-name", []), *filter(None, [body.get("cluster-id")])):
            self.found("clusters", cluster, None)
        if any(len(str(body.get(key, ""))) > LONGEST for key in NAMES):
            raise Refusal("invalid_name_length")
        if method == "GET" and name is None and index is None:
            return self.listed("volumes" if kind == "snapshots" else kind, query)
        verb = getattr(self, f"{method.lower()}_{kind.replace('-', '_')}", None)
        if verb is not None:
            return verb(name, index, body)
        return self.plain(kind, method, body, name, index)

    def plain(self, kind: str, method: str, body: dict[str, Any] | None, name: str | None, index: int | None) -> Any:
        try:
            return xms.xms_request(kind, method, body, name=name, idx=index)
        except exception.NotFound:
            raise Refusal(f"{kind[:3]}_obj_not_found") from None
        except exception.VolumeBackendAPIException:
            raise Refusal("vol_obj_name_not_unique" if kind in ("volumes", "snapshots") else f"{kind[:2]}_obj_name_not_unique") from None
        except exception.VolumeDriverException:
            raise Refusal("invalid_object_type") from None

    def listed(self, kind: str, query: dict[str, list[str]]) -> Any:
        wanted = [term.split(":", 2) for term in query.get("filter", []) if not self.faults.get("blind")]
        rows = [row for row in xms.xms_data[kind].values() if all(_says(row, field) == value for field, _, value in wanted)]
        if query.get("full") == ["1"]:
            return {kind: rows}
        return {kind: [{"href": f"/{kind}/{row['index']}", "name": row.get("name")} for row in rows]}

    def found(self, kind: str, name: str | None, index: int | None) -> dict[str, Any]:
        content: dict[str, Any] = self.plain(kind, "GET", None, name, index)["content"]
        return content

    # --- volumes and snapshots

    def post_volumes(self, name: str | None, index: int | None, body: dict[str, Any]) -> Any:
        size = _kib(str(body["vol-size"]))
        if len(list(xms.xms_data["volumes"])) >= int(self.faults["most_objects"]):
            raise Refusal("too_many_objs")
        answer = self.plain("volumes", "POST", body, None, None)
        self.complete(self.found("volumes", body["vol-name"], None), size, ancestor=None)
        return answer

    def complete(self, row: dict[str, Any], size: int, ancestor: list[Any] | None) -> None:
        """What a real volume has besides."""
        row.update({"vol-size": str(size), "naa-name": "", "ancestor-vol-id": ancestor or []})
        row["vol-id"] = [uuid.uuid4().hex, row["name"], row["index"]]

    def put_volumes(self, name: str | None, index: int | None, body: dict[str, Any]) -> Any:
        row = self.found("volumes", name, index)
        new = body.get("vol-name") or body.get("name")
        if new and new != row["name"] and any(other.get("name") == new for other in xms.xms_data["volumes"].values()):
            raise Refusal("vol_obj_name_not_unique")
        if "vol-size" in body:
            size = _kib(str(body["vol-size"]))
            if size < int(row["vol-size"]):
                raise Refusal("vol_cannot_shrink")
            row["vol-size"] = str(size)
        if new:
            row["name"] = new
            row["vol-id"] = [row["vol-id"][0], new, row["index"]]
        return {}

    put_snapshots = put_volumes

    def delete_volumes(self, name: str | None, index: int | None, body: dict[str, Any]) -> Any:
        row = self.found("volumes", name, index)
        if any(found["vol-name"] == row["name"] for found in xms.xms_data["lun-maps"].values()):
            raise Refusal("vol_is_mapped")
        return self.plain("volumes", "DELETE", None, None, row["index"])

    delete_snapshots = delete_volumes

    def post_snapshots(self, name: str | None, index: int | None, body: dict[str, Any]) -> Any:
        try:
            source = self.found("volumes", body["volume-list"][0], None)
        except Refusal:
            raise Refusal("vol_obj_not_found") from None
        made = f"{source['name']}.{body['snap-suffix']}"
        if any(other.get("name") == made for other in xms.xms_data["volumes"].values()):
            raise Refusal("vol_obj_name_not_unique")
        siblings = sum(row.get("ancestor-vol-id", [None])[:1] == source["vol-id"][:1] for row in xms.xms_data["volumes"].values())
        if siblings >= int(self.faults["most_snapshots"]):
            raise Refusal("too_many_snapshots_per_vol")
        answer = self.plain("volumes", "POST", {"vol-name": made, "vol-size": "0"}, None, None)
        row = self.found("volumes", made, None)
        self.complete(row, int(source["vol-size"]), ancestor=list(source["vol-id"]))
        row["snapshot-type"] = body.get("snapshot-type", "regular")
        return {"links": [{"href": answer["links"][0]["href"].replace("/volumes/", "/snapshots/")}]}

    # --- hosts

    def post_initiators(self, name: str | None, index: int | None, body: dict[str, Any]) -> Any:
        if any(row["port-address"] == body["port-address"] for row in xms.xms_data["initiators"].values()):
            raise Refusal("initiator_port_address_not_unique")
        group = self.found("initiator-groups", body["ig-id"], None)
        answer = self.plain("initiators", "POST", body, None, None)
        self.found("initiators", body["initiator-name"], None)["ig-id"] = [uuid.uuid4().hex, group["name"], group["index"]]
        return answer

    def post_lun_maps(self, name: str | None, index: int | None, body: dict[str, Any]) -> Any:
        try:
            volume = self.found("volumes", body["vol-id"], None)
        except Refusal:
            raise Refusal("vol_obj_not_found") from None
        by_index = isinstance(body["ig-id"], int)
        group = self.found("initiator-groups", None if by_index else body["ig-id"], body["ig-id"] if by_index else None)
        maps = [row for row in xms.xms_data["lun-maps"].values() if row["ig-name"] == group["name"]]
        if any(row["vol-name"] == volume["name"] for row in maps):
            raise Refusal("vol_ig_already_mapped")
        if len(maps) >= int(self.faults["most_maps"]):
            raise Refusal("too_many_objs")
        answer = self.plain("lun-maps", "POST", {"vol-id": volume["name"], "ig-id": group["name"]}, None, None)
        row = self.found("lun-maps", f"{volume['index']}_{group['index']}_1", None)
        taken = {other["lun"] for other in maps}
        row.update({"vol-name": volume["name"], "ig-name": group["name"], "vol-index": volume["index"], "ig-index": group["index"]})
        row["lun"] = next(number for number in range(1, 1 << 14) if number not in taken)
        volume["naa-name"] = volume["naa-name"] or f"514f0c5{volume['index']:09x}"
        return answer


def _says(row: dict[str, Any], field: str) -> str:
    """`vol-name` of a volume is its `name`."""
    value = row.get(field, row.get("name") if field.endswith("-name") else None)
    return str(value)


def _kib(text: str) -> int:
    number, unit = text[:-1], text[-1:].lower()
    size = int(number) * UNITS[unit] if unit in UNITS and number.isdigit() else int(text)
    if not 0 < size <= LARGEST_KIB:
        raise Refusal("vol_size_out_of_range")
    return size


class Xms:
    """Answers for one array."""

    def __init__(self) -> None:
        self.array = Array()
        self.faults = Faults()

    def answer(self, asked: Asked) -> Reply | None:
        if asked.target == "/faults":
            return self.told(asked.body)
        url = urllib.parse.urlsplit(asked.target)
        named = urllib.parse.parse_qs(url.query).get("name", [""])[0]
        return meeting(self.faults.fate(f"{asked.method} {url.path} {named}"), asked, lambda it: written(*self.outcome(it)), REFUSALS)

    def told(self, body: dict[str, Any]) -> Reply:
        if body.pop("reset", False):
            self.array.reset()
            self.faults = Faults()
        if arranged := body.pop("arrange", None):
            self.faults.arrange(Fault[arranged[0]], arranged[1])
        if body.pop("heal", False):
            self.faults.heal()
        self.array.faults.update(body)
        return written(200, {"calls": self.faults.calls, "met": self.faults.met, "things": self.array.things()})

    def outcome(self, asked: Asked) -> tuple[int, Any]:
        url = urllib.parse.urlsplit(asked.target)
        found = PATH.fullmatch(url.path)
        with self.array.lock:
            if not self.is_allowed(asked):
                return 401, {"message": "unauthorized"}
            if said := self.array.faults.get("say"):
                status, text = said.pop(0)
                return status, text.encode()
            if self.array.faults.get("read_only") and asked.method != "GET":
                return 403, {"message": "access_denied"}
            if self.array.spend("busy"):
                return 400, {"message": "system_is_busy", "error_code": 400}
            if found is None:
                return 404, {"message": "invalid_url"}
            try:
                query = urllib.parse.parse_qs(url.query)
                answer = self.array.handle(asked.method, found[1], int(found[2]) if found[2] else None, query, asked.body)
            except Refusal as refusal:
                return 400, {"message": str(refusal), "error_code": 400}
            return (201 if asked.method == "POST" else 200), json.loads(json.dumps(answer or {}))

    def is_allowed(self, asked: Asked) -> bool:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return not self.array.faults.get("locked_out") and asked.authorization == expected


def main(port: int, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    Server(Xms().answer, name="xms", port=port, tls=context)
    print("ready", flush=True)
    threading.Event().wait()


main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
