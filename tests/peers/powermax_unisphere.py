"""Unisphere's REST API before a simulated PowerMax array: its paths, jobs and iterators, and what goes wrong with them.

What can be made to go wrong: lost replies, throttling, locks, jobs that fail after they were accepted, a locked-out user.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from storage.platforms.faulting import Faults
from tests.peers import powermax_groups as groups
from tests.peers import powermax_shapes as shapes
from tests.peers.loopback import basic
from tests.peers.powermax_array import Array, cylinders
from tests.peers.powermax_objects import SERIAL, Refused, Snapshot, missing

USER: Final = "polly"
PASSWORD: Final = "not-a-real-secret"
Answer = tuple[int, Any]
Body = dict[str, Any]


@dataclass(kw_only=True)
class Call:
    method: str
    query: dict[str, str]
    body: Body
    part: dict[str, str]
    """What the path names."""


@dataclass(kw_only=True)
class Job:
    id: str
    looks_left: int
    status: str
    result: str
    tasks: list[str]


@dataclass(kw_only=True)
class Unisphere:
    """The front of one array, and what goes wrong with it."""

    array: Array
    url: str = ""
    ca_file: str = ""
    version: str = "V10.4.0.5"
    closed: bool = False
    may_write: bool = True
    page_size: int = 1000
    job_looks: int = 1
    says_nothing_is_missing: bool = False
    """Whether a list on which there is nothing is one that cannot be found, as some versions have it."""
    faults: Faults = field(default_factory=Faults)
    """What goes wrong on the wire."""
    lose: tuple[str, str] | None = None
    """The next answer to this method and a path that holds these words is lost: it is done, and the connection ends."""
    refuse: list[Answer] = field(default_factory=list)
    """Answers that the next calls get instead of being done."""
    fail_jobs: list[str] = field(default_factory=list)
    """What the next jobs fail with, instead of being done."""
    calls: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, Job] = field(default_factory=dict)
    iterators: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1606310000000)

    def answer(self, method: str, path: str, authorization: str, body: Body) -> Answer:
        url = urlsplit(path)
        with self.array.lock:
            self.calls[f"{method} {url.path.removeprefix('/univmax/restapi/')}"] += 1
            if self.refuse:
                return self.refuse.pop(0)
            if self.closed or basic(authorization) != (USER, PASSWORD):
                return 401, {"message": "Unauthorized"}
            try:
                return self._answer(method, unquote(url.path), dict(parse_qsl(url.query)), body)
            except Refused as refused:
                return refused.status, {"message": refused.message}

    def _answer(self, method: str, path: str, query: dict[str, str], body: Body) -> Answer:
        for verb, pattern, route in ROUTES:
            if verb == method and (match := pattern.fullmatch(path)):
                part = {key: value for key, value in match.groupdict().items() if value is not None}
                if part.get("sid", SERIAL) != SERIAL:
                    raise missing("symmetrix", part["sid"])
                if method != "GET" and "Iterator" not in path and not self.may_write:
                    raise Refused("The user does not have the required role for this operation", status=403)
                return self._act(Call(method=method, query=query, body=body, part=part), route)
        raise Refused(f"There is nothing at {method} {path}", status=404)

    def _act(self, call: Call, route: Callable[[Unisphere, Call], Any]) -> Answer:
        if call.body.get("executionOption") == "ASYNCHRONOUS":
            return 202, self._job(self._begin(call, route))
        said = route(self, call)
        if call.method == "DELETE":
            return 204, None
        return (201 if call.method == "POST" else 200), said

    def _begin(self, call: Call, route: Callable[[Unisphere, Call], Any]) -> Job:
        """Done at once; what became of it is told later."""
        job = Job(id=str(next(self._numbers)), looks_left=self.job_looks, status="SUCCEEDED", result="created", tasks=[])
        self.jobs[job.id] = job
        before = set(self.array.volumes)
        try:
            if self.fail_jobs:
                raise Refused(self.fail_jobs.pop(0))
            route(self, call)
        except Refused as refused:
            job.status, job.result = "FAILED", refused.message
        job.tasks = [f"Creating new Volumes for Storage Group : [{key}]" for key in self.array.volumes if key not in before]
        return job

    def _job(self, job: Job) -> dict[str, Any]:
        if job.looks_left >= 0:
            status = "SCHEDULED" if job.looks_left == self.job_looks else "RUNNING"
            job.looks_left -= 1
            return {"jobId": job.id, "name": "job", "status": status, "username": f"C:host\\{USER}", "resourceLink": ""}
        tasks = [{"execution_order": order, "description": text} for order, text in enumerate(job.tasks, start=1)]
        return {"jobId": job.id, "name": "job", "status": job.status, "result": job.result, "task": tasks, "resourceLink": ""}

    def job(self, call: Call) -> Any:
        if call.part["name"] not in self.jobs:
            raise missing("job", call.part["name"])
        return self._job(self.jobs[call.part["name"]])

    def pages(self, found: list[Any]) -> dict[str, Any]:
        """A list as an iterator: its first page, and more where there is more."""
        self.refuse_nothing(found, "volume")
        key = f"{uuid.uuid4()}_0"
        if len(found) > self.page_size:
            self.iterators[key] = found
        first = found[: self.page_size]
        listed = {"result": first, "from": min(1, len(first)), "to": len(first)}
        return {"id": key, "count": len(found), "expirationTime": 1606317200000, "maxPageSize": self.page_size, "resultList": listed}

    def refuse_nothing(self, found: Sequence[Any], kind: str) -> None:
        if self.says_nothing_is_missing and not found:
            raise missing(kind, "(any)")

    def page(self, call: Call) -> Any:
        found = self.iterators.get(call.part["name"])
        if found is None:
            raise Refused(f"Cannot find an iterator with id {call.part['name']}", status=404)
        begin, end = int(call.query["from"]), int(call.query["to"])
        if not 1 <= begin <= end <= len(found) or end - begin >= self.page_size:
            raise Refused(f"The page from {begin} to {end} is not valid", status=400)
        return {"result": found[begin - 1 : end], "from": begin, "to": end}

    def drop_iterator(self, call: Call) -> None:
        self.iterators.pop(call.part["name"], None)


# --- what the paths do ----------------------------------------------------------------------------


def _volumes(front: Unisphere, call: Call) -> Any:
    return front.pages([{"volumeId": one.id} for one in _chosen(front.array, call)])


def _private_volumes(front: Unisphere, call: Call) -> Any:
    return front.pages([shapes.private_volume(front.array, one) for one in _chosen(front.array, call)])


def _chosen(array: Array, call: Call) -> Iterator[Any]:
    wanted = {key: value for key, value in call.query.items() if key != "expiration_time_mins"}
    for key in wanted:
        if key not in ("volume_identifier", "storageGroupId", "wwn", "tdev"):
            raise Refused(f"The filter {key} is not known", status=400)
    for key in sorted(array.volumes):
        one = array.volumes[key]
        fits = (
            wanted.get("volume_identifier", one.name) == one.name,
            wanted.get("wwn", one.wwn) == one.wwn,
            "storageGroupId" not in wanted or wanted["storageGroupId"] in array.groups_of(key),
        )
        if all(fits):
            yield one


def _edit_volume(front: Unisphere, call: Call) -> Any:
    array, key, edits = front.array, call.part["name"], call.body["editVolumeActionParam"]
    if "expandVolumeParam" in edits:
        array.resize(key, cylinders(edits["expandVolumeParam"]["volumeAttribute"]))
    elif "modifyVolumeIdentifierParam" in edits:
        array.rename(key, str(edits["modifyVolumeIdentifierParam"]["volumeIdentifier"].get("identifier_name", "")))
    elif "freeVolumeParam" in edits:
        array.volume(key).data = b""
    else:
        raise Refused(f"There is no such edit: {', '.join(edits)}", status=400)
    return shapes.volume(array, array.volume(key))


def _make_group(front: Unisphere, call: Call) -> Any:
    body = call.body
    name, srp = str(body["storageGroupId"]), str(body.get("srpId", "None"))
    levels = body.get("sloBasedStorageGroupParam") or [{}]
    front.array.make_group(name, srp, str(levels[0].get("sloId", "None")), levels[0].get("volumeAttributes", ()))
    return shapes.group(front.array, name)


def _edit_group(front: Unisphere, call: Call) -> Any:
    array, name, edits = front.array, call.part["name"], call.body["editStorageGroupActionParam"]
    expand = edits.get("expandStorageGroupParam", {})
    if "addVolumeParam" in expand:
        array.add_new(name, expand["addVolumeParam"]["volumeAttributes"])
    elif "addSpecificVolumeParam" in expand:
        array.add_existing(name, expand["addSpecificVolumeParam"]["volumeId"])
    elif "removeVolumeParam" in edits:
        array.remove(name, edits["removeVolumeParam"]["volumeId"])
    elif "moveVolumeToStorageGroupParam" in edits:
        moved = edits["moveVolumeToStorageGroupParam"]
        array.move(name, moved["volumeId"], str(moved["storageGroupId"]))
    else:
        raise Refused(f"There is no such edit: {', '.join(edits)}", status=400)
    return shapes.group(array, name)


def _make_host(front: Unisphere, call: Call) -> Any:
    front.array.make_host(str(call.body["hostId"]), call.body.get("initiatorId", []))
    return shapes.host(front.array, str(call.body["hostId"]))


def _make_ports(front: Unisphere, call: Call) -> Any:
    ports = [(key["directorId"], key["portId"].rpartition(":")[2]) for key in call.body["symmetrixPortKey"]]
    front.array.make_port_group(str(call.body["portGroupId"]), ports)
    return shapes.port_group(front.array, str(call.body["portGroupId"]))


def _ports(front: Unisphere, call: Call) -> Any:
    if call.part["name"] not in front.array.port_groups:
        raise missing("port group", call.part["name"])
    return shapes.port_group(front.array, call.part["name"])


def _make_view(front: Unisphere, call: Call) -> Any:
    body = call.body
    host = body["hostOrHostGroupSelection"]["useExistingHostParam"]["hostId"]
    ports = body["portGroupSelection"]["useExistingPortGroupParam"]["portGroupId"]
    group = body["storageGroupSelection"]["useExistingStorageGroupParam"]["storageGroupId"]
    front.array.make_view(str(body["maskingViewId"]), host, ports, group)
    return shapes.view(front.array, str(body["maskingViewId"]))


def _views(front: Unisphere, call: Call) -> Any:
    chosen = {"host": call.query.get("host_or_host_group_name", ""), "ports": call.query.get("port_group_name", "")}
    return {"maskingViewId": front.array.views_of(**chosen, group=call.query.get("storage_group_name", ""))}


def _initiators(front: Unisphere, call: Call) -> Any:
    """Those that a port has seen stand with the port before them."""
    array, wanted = front.array, call.query.get("initiator_hba", "")
    known = sorted({one for initiators in array.hosts.values() for one in initiators} | array.logged_in)
    shown = [f"OR-1C:001:{one}" if one in array.logged_in else one for one in known if wanted in ("", one)]
    front.refuse_nothing(shown, "initiator")
    return {"initiatorId": shown}


def _port(front: Unisphere, call: Call) -> Any:
    found = front.array.ports.get((call.part["director"], call.part["name"]))
    if found is None:
        raise missing("port", call.part["name"])
    return shapes.port(front.array, found)


def _snapshots(front: Unisphere, call: Call) -> Any:
    array, key = front.array, front.array.volume(call.part["name"]).id
    front.refuse_nothing([*array.snapshots_of(key), *array.links_to(key)], "snapshot")
    return shapes.snapshots(array, key)


def _groups(front: Unisphere, call: Call) -> Any:
    front.refuse_nothing(list(front.array.groups), "storage group")
    return {"storageGroupId": sorted(front.array.groups)}


def _snap(front: Unisphere, call: Call) -> Any:
    list(front.array.snap([one["name"] for one in call.body["deviceNameListSource"]], call.part["name"]))
    return {"name": call.part["name"]}


def _of_devices(array: Array, call: Call) -> list[Snapshot]:
    body = call.body
    chosen: dict[str, int] = {"snap_id": int(body["snap_id"])} if "snap_id" in body else {"generation": int(body.get("generation", 0))}
    return [array.find_snapshot(one["name"], call.part["name"], **chosen) for one in body["deviceNameListSource"]]


def _edit_snapshot(front: Unisphere, call: Call) -> Any:
    array, body = front.array, call.body
    targets = [one["name"] for one in body.get("deviceNameListTarget", [])]
    for number, snapshot in enumerate(_of_devices(array, call)):
        if body["action"] == "Link":
            array.link(snapshot, targets[number], copy=str(body.get("copy")).lower() == "true")
        elif body["action"] == "Unlink":
            array.unlink(snapshot, targets[number])
        elif body["action"] == "Restore":
            array.restore(snapshot)
        elif body["action"] == "Rename":
            array.rename_snapshot(snapshot, str(body["newsnapshotname"]))
        else:
            raise Refused(f"There is no action {body['action']}", status=400)
    return {"name": call.part["name"]}


def _end_snapshot(front: Unisphere, call: Call) -> None:
    for snapshot in _of_devices(front.array, call):
        front.array.terminate(snapshot)


def _srp(front: Unisphere, call: Call) -> Any:
    if call.part["name"] != "SRP_1":
        raise missing("SRP", call.part["name"])
    return shapes.srp(front.array)


def _version(front: Unisphere, call: Call) -> Any:
    number = "".join(front.version[1:].split(".")[:2])
    return {"version": front.version, "api_version": number, "supported_api_versions": [number, "100", "92"]}


Route = Callable[[Unisphere, Call], Any]
V: Final = r"(?:9\d|10\d)"
SLO: Final = rf"{V}/sloprovisioning/symmetrix/(?P<sid>\d+)"
REPLICATION: Final = rf"{V}/replication/symmetrix/(?P<sid>\d+)"
GROUP_SNAPSHOT: Final = REPLICATION + r"/storagegroup/(?P<group>[^/]+)/snapshot"
NAME: Final = "/(?P<name>[^/]+)"
SNAP: Final = NAME + r"/snapid/(?P<snap>\d+)"
ROUTES: Final[tuple[tuple[str, re.Pattern[str], Route], ...]] = tuple(
    (verb, re.compile("/univmax/restapi/" + pattern), route)
    for verb, pattern, route in (
        ("GET", "version", _version),
        ("GET", rf"{V}/(?:system|sloprovisioning)/symmetrix", lambda front, call: {"symmetrixId": [SERIAL], "num_of_symmetrix_ids": 1}),
        ("GET", rf"{V}/(?:system|sloprovisioning)/symmetrix/(?P<sid>\d+)", lambda front, call: shapes.system(front.array)),
        ("GET", rf"{V}/system/job{NAME}", Unisphere.job),
        ("GET", rf"{V}/system/symmetrix/(?P<sid>\d+)/director/(?P<director>[^/]+)/port{NAME}", _port),
        ("GET", f"common/Iterator{NAME}/page", Unisphere.page),
        ("DELETE", f"common/Iterator{NAME}", Unisphere.drop_iterator),
        ("GET", f"{SLO}/volume", _volumes),
        ("GET", f"private/{SLO}/volume", _private_volumes),
        ("GET", f"{SLO}/volume{NAME}", lambda front, call: shapes.volume(front.array, front.array.volume(call.part["name"]))),
        ("PUT", f"{SLO}/volume{NAME}", _edit_volume),
        ("DELETE", f"{SLO}/volume{NAME}", lambda front, call: front.array.delete(call.part["name"])),
        ("GET", f"{SLO}/storagegroup", _groups),
        ("POST", f"{SLO}/storagegroup", _make_group),
        ("GET", f"{SLO}/storagegroup{NAME}", lambda front, call: shapes.group(front.array, call.part["name"])),
        ("PUT", f"{SLO}/storagegroup{NAME}", _edit_group),
        ("DELETE", f"{SLO}/storagegroup{NAME}", lambda front, call: front.array.delete_group(call.part["name"])),
        ("GET", f"{SLO}/host", lambda front, call: {"hostId": sorted(front.array.hosts)}),
        ("POST", f"{SLO}/host", _make_host),
        ("GET", f"{SLO}/host{NAME}", lambda front, call: shapes.host(front.array, call.part["name"])),
        ("DELETE", f"{SLO}/host{NAME}", lambda front, call: front.array.delete_host(call.part["name"])),
        ("GET", f"{SLO}/initiator", _initiators),
        ("GET", f"{SLO}/initiator{NAME}", lambda front, call: shapes.initiator(front.array, call.part["name"])),
        ("POST", f"{SLO}/portgroup", _make_ports),
        ("GET", f"{SLO}/portgroup{NAME}", _ports),
        ("DELETE", f"{SLO}/portgroup{NAME}", lambda front, call: front.array.delete_port_group(call.part["name"])),
        ("GET", f"{SLO}/maskingview", _views),
        ("POST", f"{SLO}/maskingview", _make_view),
        ("GET", f"{SLO}/maskingview{NAME}", lambda front, call: shapes.view(front.array, call.part["name"])),
        ("DELETE", f"{SLO}/maskingview{NAME}", lambda front, call: front.array.delete_view(call.part["name"])),
        (
            "GET",
            f"{SLO}/maskingview{NAME}/connections",
            lambda front, call: shapes.connections(front.array, call.part["name"], call.query.get("volume_id", "")),
        ),
        ("GET", f"{SLO}/srp", lambda front, call: {"srpId": ["SRP_1"]}),
        ("GET", f"{SLO}/srp{NAME}", _srp),
        ("GET", f"{SLO}/slo", lambda front, call: {"sloId": ["Bronze", "Diamond", "Gold", "None", "Optimized", "Platinum", "Silver"]}),
        (
            "GET",
            f"{V}/replication/capabilities/symmetrix",
            lambda front, call: {"symmetrixCapability": [{"symmetrixId": SERIAL, "snapVxCapable": True, "rdfCapable": False}]},
        ),
        ("POST", f"private/{REPLICATION}/snapshot{NAME}", _snap),
        ("PUT", f"private/{REPLICATION}/snapshot{NAME}", _edit_snapshot),
        ("DELETE", f"private/{REPLICATION}/snapshot{NAME}", _end_snapshot),
        ("GET", f"private/{REPLICATION}/volume{NAME}/snapshot", _snapshots),
        ("GET", GROUP_SNAPSHOT, groups.group_snapshot_names),
        ("POST", GROUP_SNAPSHOT, groups.snap_group),
        ("GET", f"{GROUP_SNAPSHOT}{NAME}/snapid", groups.group_snapshot_ids),
        ("GET", f"{GROUP_SNAPSHOT}{SNAP}", groups.group_snapshot),
        ("PUT", f"{GROUP_SNAPSHOT}{SNAP}", groups.edit_group_snapshot),
        ("DELETE", f"{GROUP_SNAPSHOT}{SNAP}", groups.end_group_snapshot),
    )
)
