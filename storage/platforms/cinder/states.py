"""The states of volumes and snapshots: which end by themselves, and what people can do about one that does not.

What may be written to is never told to be set to another state: Cinder would believe it, and give the volume to somebody else.
"""

from __future__ import annotations

from typing import Final

FORGOTTEN: Final = "a service of Cinder's is away or has forgotten it; once its log says that nothing is done any more, an administrator: "
RESERVED: Final = (
    "somebody is taking it; for whom says: openstack --os-volume-api-version 3.27 volume attachment list --volume-id {key}; "
    "of a server's nova-compute's log says why it takes so long, another one's can be deleted there"
)
HELD: Final = "its server may still write to it, so set no state; nova-compute's log says why it does not let go"
MOVED: Final = "an administrator moves it or changes its type; it comes back when that is done"
OFFERED: Final = "awaiting-transfer"
ERROR_DELETING: Final = "error_deleting"
ADVICE: Final = {
    "creating": f"{FORGOTTEN}openstack {{noun}} set --state error {{key}}, and it is made anew",
    "downloading": f"{FORGOTTEN}openstack {{noun}} set --state error {{key}}, and it is made anew",
    "deleting": f"{FORGOTTEN}openstack {{noun}} set --state error {{key}}, and it is deleted again",
    ERROR_DELETING: "mend that, and an administrator: openstack {noun} set --state error {key}, and it is deleted again",
    "extending": f"{FORGOTTEN}openstack {{noun}} set --state available {{key}}, or in-use if it is attached",
    "reserved": RESERVED,
    "attaching": RESERVED,
    "detaching": HELD,
    "in-use": HELD,
    "retyping": MOVED,
    "maintenance": MOVED,
    OFFERED: "somebody offers it to another project; to take that back: openstack volume transfer request list, and delete",
    "uploading": "an image is made of it, which takes its time",
    "backing-up": "a backup is made of it, which takes its time",
    "restoring-backup": "a backup is brought back to it, which takes its time",
}
"""By the state; `noun` and `key` say of what."""
MOVING: Final = frozenset(ADVICE) - {"in-use", ERROR_DELETING} | {"reverting", "unmanaging", "managing", "restoring"}
"""States that something is being done in; the others stay until somebody asks for something."""


def advice(noun: str, key: str, status: str) -> str:
    words = ADVICE.get(status, "an administrator finds why in the logs of Cinder's services")
    return words.format(noun=noun, key=key)
