"""The adapter of Cinder on a real OpenStack, with a wire between them that can be pulled at."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
import requests
from psycopg import sql

from storage.platforms.cinder import CinderPlatform
from storage.platforms.cinder.options import CinderOptions
from storage.platforms.faulting import STRANGERS, Fate, Fault, Faults
from tests.peers import _openstack_files as files
from tests.peers.openstack_services import OpenStack
from tests.support import eventually
from tests.wire import Refusal, Wire

POOL = "nova/nfs"


def _connector(host: str) -> str:
    return json.dumps({"host": host, "ip": "127.0.0.1", "initiator": f"iqn.2026-01.test:{host}"})


NODES = (_connector("node-a"), _connector("node-b"))
OFFSET = 1 << 20
TOO_FAST = Refusal(status=429, body=b'{"overLimit": {"code": 429, "message": "This request was rate-limited."}}')
NOT_LET_IN = Refusal(
    status=401, body=b'{"error": {"code": 401, "title": "Unauthorized", "message": "The request requires authentication."}}'
)
REFUSALS = {Fate.THROTTLED: TOO_FAST, Fate.EXPIRED: NOT_LET_IN}


THINGS = """\
WITH kept AS (SELECT id, status FROM volumes WHERE NOT deleted)
SELECT concat_ws(' ', 'volume', id, status) FROM kept
UNION ALL SELECT concat_ws(' ', 'attachment of', volume_id, attach_status) FROM volume_attachment
  WHERE NOT deleted AND volume_id IN (SELECT id FROM kept)
UNION ALL SELECT concat_ws(' ', 'key of', volume_id, key) FROM volume_metadata
  WHERE NOT deleted AND volume_id IN (SELECT id FROM kept) AND (key LIKE 'polly-for-%' OR key = 'polly-clone-of')
UNION ALL SELECT concat_ws(' ', 'snapshot', id, status) FROM snapshots WHERE NOT deleted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is on volumes, looked at where the storage keeps them: a raw file, or a layer of QEMU's once there is a snapshot."""

    share: Path

    def write(self, volume: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile() as source:
            source.write(data)
            source.flush()
            self._qemu_io(volume, f"write -s {source.name} {OFFSET} {len(data)}")

    def read(self, volume: str, length: int) -> bytes:
        shown = self._qemu_io(volume, f"read -v {OFFSET} {length}")
        lines = [line.split() for line in shown.splitlines() if line[:8].isalnum() and line[8:9] == ":"]
        found = [byte for line in lines for byte in line[1:17] if len(byte) == 2]
        return bytes.fromhex("".join(found[:length]))

    def _qemu_io(self, volume: str, command: str) -> str:
        """QEMU writes what is shorter than a sector as well."""
        info = self.share / f"volume-{volume}.info"
        name = json.loads(info.read_text())["active"] if info.exists() else f"volume-{volume}"
        kind = "qcow2" if name != f"volume-{volume}" else "raw"
        arguments = ["qemu-io", "-f", kind, "-c", command, str(self.share / name)]
        return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


class Cloud:
    """A running OpenStack with a plain user's adapters on it."""

    def __init__(self, openstack: OpenStack) -> None:
        self.openstack = openstack
        ports = openstack.ports
        self.keystone, self.cinder, self.nova = (Wire(port, REFUSALS) for port in (ports.keystone, ports.cinder, ports.nova))
        self.data = Data(share=openstack.files.share)
        self._wires = contextlib.ExitStack()
        self.clouds = openstack.files.root / f"wired-{os.getpid()}.yaml"

    def __enter__(self) -> Cloud:
        for wire in (self.keystone, self.cinder, self.nova):
            self._wires.enter_context(wire)
        override = {"block_storage_endpoint_override": f"{self.cinder.url}/v3", "compute_endpoint_override": f"{self.nova.url}/v2.1"}
        login, here = self.openstack.login, self.keystone.url
        logins = {
            "polly": login(files.USER, "polly", files.USER_PASSWORD, auth_url=here),
            "admin": login("admin", "admin", files.ADMIN_PASSWORD, auth_url=here),
        }
        self.openstack.write_clouds(self.clouds, **{name: {**login, **override} for name, login in logins.items()})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._wires.close()

    @property
    def servers(self) -> tuple[str, str]:
        first, second = self.openstack.servers
        return first, second

    def platform(
        self,
        attach: str,
        *,
        cloud: str = "polly",
        wait: Callable[[float], None] = time.sleep,
        answer_s: float = 60.0,
        **more: Any,
    ) -> CinderPlatform:
        options: dict[str, Any] = {
            "cloud": cloud,
            "clouds_file": str(self.clouds),
            "attach": attach,
            "calls_per_second": 500,
            "wait_s": 60,
            **more,
        }
        return CinderPlatform("cloud", CinderOptions(**options), poll_s=0.1, orphan_s=0.5, answer_s=answer_s, wait=wait)

    def faults(self) -> Faults:
        """Of Keystone and both services. What is done when credentials end at a call is what is done when the reply before is lost."""
        kinds = (Fault.DIED, Fault.THROTTLED, Fault.LOST, Fault.EXPIRED, *STRANGERS)
        made = Faults(*kinds, midway=(Fault.EXPIRED,), codes={Fault.EXPIRED: "HTTP 401"})
        self.keystone.at_call = self.cinder.at_call = self.nova.at_call = made
        return made

    def database(self, service: str = "cinder") -> psycopg.Connection[Any]:
        """A service's own."""
        return psycopg.connect(self.openstack.files.databases[service].replace("+psycopg2", ""), autocommit=True)

    def things(self) -> list[str]:
        """What is there by Cinder's own books: reservations too, and what marks something half done."""
        with self.database() as database:
            return [row[0] for row in database.execute(THINGS)]

    def forget(self) -> None:
        """Takes all volumes but the servers' disks out of Cinder's lists at once, and out of Nova's, which could shelve no server that
        has one of them; to delete each would take longer than most tests."""
        with self.database() as database:
            for table in ("snapshots", "volumes"):
                database.execute(
                    sql.SQL("UPDATE {} SET deleted = true WHERE NOT deleted AND coalesce(display_name, '') NOT LIKE 'disk of %'").format(
                        sql.Identifier(table)
                    )
                )
        with self.database("nova") as database:
            database.execute("UPDATE block_device_mapping SET deleted = id WHERE deleted = 0 AND boot_index IS DISTINCT FROM 0")

    @contextlib.contextmanager
    def expired(self) -> Iterator[None]:
        """The user's password is another one for a while; with it all of the user's tokens end."""
        identity = self.openstack.connect("admin").identity
        user, before = identity.find_user(files.USER, ignore_missing=False), self.openstack.connect("polly").block_storage
        assert before.get("/volumes?limit=1").ok
        token = {"X-Auth-Token": str(before.get_token())}
        identity.update_user(user, password="another-secret")

        def is_refused() -> bool:
            return requests.get(f"{self.cinder.url}/v3/types", headers=token, timeout=30).status_code == 401

        eventually(is_refused, 20, "a token that Cinder took last is refused: nothing is kept of those before any more")
        try:
            yield
        finally:
            identity.update_user(user, password=files.USER_PASSWORD)
            eventually(self._can_log_in, 10, "the user is let in again")

    @contextlib.contextmanager
    def region(self, name: str, urls: Mapping[str, str]) -> Iterator[str]:
        """A region of the cloud's where the services, by their types, have other endpoints in Keystone's catalogue."""
        identity = self.openstack.connect("admin").identity
        region = identity.create_region(id=name)
        services = {service.type: service.id for service in identity.services()}
        made = [
            identity.create_endpoint(service_id=services[kind], interface="public", region_id=name, url=url) for kind, url in urls.items()
        ]
        try:
            yield name
        finally:
            for one in made:
                identity.delete_endpoint(one)
            identity.delete_region(region)

    def stopped(self, server: str) -> AbstractContextManager[None]:
        return self._away(server, "stop_server", "SHUTOFF", "start_server")

    def shelved(self, server: str) -> AbstractContextManager[None]:
        return self._away(server, "shelve_server", "SHELVED_OFFLOADED", "unshelve_server")

    @contextlib.contextmanager
    def _away(self, server: str, end: str, status: str, start: str) -> Iterator[None]:
        compute = self.openstack.connect("polly").compute
        getattr(compute, end)(server)
        eventually(lambda: compute.get_server(server).status == status, 30, f"Nova makes the server {status}")
        try:
            yield
        finally:
            getattr(compute, start)(server)
            eventually(lambda: compute.get_server(server).status == "ACTIVE", 30, "Nova starts the server")

    def _can_log_in(self) -> bool:
        """Tokens of the second in which the password was changed end with it."""
        try:
            return bool(self.openstack.connect("polly").block_storage.get("/volumes?limit=1").ok)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error
