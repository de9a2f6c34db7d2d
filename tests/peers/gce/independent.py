"""Google's own other client (google-api-python-client) through the whole life of a disk; run by the peer's interpreter, not by ours.

    python independent.py URL DOCUMENT ACCOUNT-FILE PROJECT ZONE

It knows nothing of this project. Each step that came out is printed as a line; the first that did not ends it.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.oauth2 import service_account
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError


class Life:
    def __init__(self, url: str, document: str, account: str, project: str, zone: str) -> None:
        description = json.loads(Path(document).read_text("utf-8"))
        description |= {"rootUrl": f"{url}/", "baseUrl": f"{url}/compute/v1/", "mtlsRootUrl": ""}
        scopes = ["https://www.googleapis.com/auth/compute"]
        credentials = service_account.Credentials.from_service_account_file(account, scopes=scopes)
        self.api: Any = build_from_document(description, credentials=credentials)
        self.project, self.zone = project, zone
        self.here = {"project": project, "zone": zone}

    def done(self, operation: dict[str, Any]) -> str:
        """The error code in the operation once it is done, or nothing."""
        while operation["status"] != "DONE":
            if "zone" in operation:
                operation = self.api.zoneOperations().wait(operation=operation["name"], **self.here).execute()
            else:
                operation = self.api.globalOperations().wait(operation=operation["name"], project=self.project).execute()
        return ",".join(error["code"] for error in operation.get("error", {}).get("errors", []))

    def disk(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.disks().get(disk=name, **self.here).execute()
        return found

    def link(self, kind: str, name: str) -> str:
        return f"projects/{self.project}/zones/{self.zone}/{kind}/{name}"


def refused(call: Callable[[], Any]) -> str:
    """The status and the reason with which a call is refused."""
    try:
        call()
    except HttpError as error:
        return f"{error.resp.status} {error.error_details[0]['reason']}"
    return "not refused"


def step(name: str, found: object, wanted: object) -> None:
    if found != wanted:
        sys.exit(f"{name}: wanted {wanted!r}, found {found!r}")
    print(name)


def create(life: Life) -> None:
    disks, again = life.api.disks(), str(uuid.uuid4())
    body = {"name": "one", "sizeGb": "10", "type": life.link("diskTypes", "pd-balanced"), "labels": {"team": "shop"}}
    first = disks.insert(body=body, requestId=again, **life.here).execute()
    step("create", life.done(first), "")
    second = disks.insert(body=body, requestId=again, **life.here).execute()
    step("the same request is the same operation", second["name"], first["name"])
    step("a name is taken", refused(lambda: disks.insert(body=body, **life.here).execute()), "409 alreadyExists")
    step("it is ready", (life.disk("one")["status"], life.disk("one")["sizeGb"]), ("READY", "10"))
    bad = {**body, "name": "two", "sizeGb": "5"}
    step("too small", refused(lambda: disks.insert(body=bad, **life.here).execute()), "400 invalid")
    step(
        "unknown type",
        refused(lambda: disks.insert(body={**body, "name": "two", "type": "pd-paper"}, **life.here).execute()),
        "400 invalid",
    )
    step(
        "unknown field",
        refused(lambda: disks.insert(body={**body, "name": "two", "colour": "red"}, **life.here).execute()),
        "400 badRequest",
    )
    step("bad name", refused(lambda: disks.insert(body={**body, "name": "Two_"}, **life.here).execute()), "400 invalid")
    step("unknown disk", refused(lambda: life.disk("two")), "404 notFound")


def listed(life: Life) -> None:
    disks = life.api.disks()
    for name in ("page-1", "page-2", "page-3"):
        life.done(disks.insert(body={"name": name, "sizeGb": "10"}, **life.here).execute())
    request, names = disks.list(maxResults=2, filter="labels.team=shop OR name=page-1 OR name=page-3", **life.here), []
    while request is not None:
        answer = request.execute()
        names.append([disk["name"] for disk in answer["items"]])
        request = disks.list_next(request, answer)
    step("listed in pages", names, [["one", "page-1"], ["page-3"]])
    scopes = disks.aggregatedList(project=life.project, filter='name = "page-2"').execute()["items"]
    found = [disk["name"] for scope in scopes.values() for disk in scope.get("disks", [])]
    step("listed over all zones", found, ["page-2"])
    for name in ("page-1", "page-2", "page-3"):
        life.done(disks.delete(disk=name, **life.here).execute())


def labels(life: Life) -> None:
    disks, found = life.api.disks(), life.disk("one")
    body = {"labels": {"team": "till"}, "labelFingerprint": found["labelFingerprint"]}
    step("labels", life.done(disks.setLabels(resource="one", body=body, **life.here).execute()), "")
    step("labels are guarded", refused(lambda: disks.setLabels(resource="one", body=body, **life.here).execute()), "412 conditionNotMet")
    step("labels are there", life.disk("one")["labels"], {"team": "till"})


def attach(life: Life) -> None:
    instances, disks = life.api.instances(), life.api.disks()
    body = {"source": life.link("disks", "one"), "deviceName": "polly-one", "mode": "READ_WRITE"}
    step("attach", life.done(instances.attachDisk(instance="node-a", body=body, **life.here).execute()), "")
    step("its user", [user.rsplit("/", 1)[1] for user in life.disk("one")["users"]], ["node-a"])
    entry = instances.get(instance="node-a", **life.here).execute()["disks"][-1]
    step("its device", (entry["deviceName"], entry["mode"], entry["autoDelete"]), ("polly-one", "READ_WRITE", False))
    elsewhere = refused(lambda: instances.attachDisk(instance="node-b", body=body, **life.here).execute())
    step("attach elsewhere", elsewhere, "400 resourceInUseByAnotherResource")
    step("delete in use", refused(lambda: disks.delete(disk="one", **life.here).execute()), "400 resourceInUseByAnotherResource")
    step("detach", life.done(instances.detachDisk(instance="node-a", deviceName="polly-one", **life.here).execute()), "")
    again = refused(lambda: instances.detachDisk(instance="node-a", deviceName="polly-one", **life.here).execute())
    step("detach again", again, "400 invalid")


def copies(life: Life) -> None:
    disks, snapshots = life.api.disks(), life.api.snapshots()
    step("snapshot", life.done(disks.createSnapshot(disk="one", body={"name": "snap"}, **life.here).execute()), "")
    found = snapshots.get(snapshot="snap", project=life.project).execute()
    step("snapshot is ready", (found["status"], found["diskSizeGb"]), ("READY", "10"))
    step("grow", life.done(disks.resize(disk="one", body={"sizeGb": "20"}, **life.here).execute()), "")
    step("shrink", refused(lambda: disks.resize(disk="one", body={"sizeGb": "10"}, **life.here).execute()), "400 invalid")
    body = {"name": "copy", "sourceSnapshot": "global/snapshots/snap"}
    step("from a snapshot", life.done(disks.insert(body=body, **life.here).execute()), "")
    step("as large as the snapshot", life.disk("copy")["sizeGb"], "10")
    twin = {"name": "twin", "sourceDisk": life.link("disks", "one"), "type": life.disk("one")["type"]}
    step("smaller than its source", refused(lambda: disks.insert(body=twin | {"sizeGb": "10"}, **life.here).execute()), "400 invalid")
    step("a clone", life.done(disks.insert(body=twin, **life.here).execute()), "")
    found = life.disk("twin")
    step("as large as its source", (found["sizeGb"], found["sourceDiskId"]), ("20", life.disk("one")["id"]))
    huge = {"name": "huge", "sizeGb": "60000", "type": life.link("diskTypes", "pd-ssd")}
    step("an error inside an operation", life.done(disks.insert(body=huge, **life.here).execute()), "QUOTA_EXCEEDED")
    step("nothing is left of it", refused(lambda: life.disk("huge")), "404 notFound")
    step("delete the snapshot", life.done(snapshots.delete(snapshot="snap", project=life.project).execute()), "")
    for name in ("one", "copy", "twin"):
        step(f"delete {name}", life.done(disks.delete(disk=name, **life.here).execute()), "")


def surroundings(life: Life) -> None:
    quotas = life.api.regions().get(project=life.project, region="europe-west4").execute()["quotas"]
    step("quotas", {quota["metric"] for quota in quotas} >= {"SSD_TOTAL_GB", "DISKS_TOTAL_GB"}, True)
    kind = life.api.machineTypes().get(machineType="e2-micro", **life.here).execute()
    step("disks per machine", kind["maximumPersistentDisks"], 16)
    life.done(life.api.instances().stop(instance="node-b", **life.here).execute())
    step("a stopped instance", life.api.instances().get(instance="node-b", **life.here).execute()["status"], "TERMINATED")


if __name__ == "__main__":
    life = Life(*sys.argv[1:])
    for part in (create, listed, labels, attach, copies, surroundings):
        part(life)
