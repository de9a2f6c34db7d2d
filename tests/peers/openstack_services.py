"""A real OpenStack on loopback: Keystone, Cinder with its NFS driver, Nova with its fake hypervisor, Placement, RabbitMQ.

It needs root: what would be an NFS mount is a bind mount, so that no NFS client is needed. All of its files are in one folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import openstack
import psycopg
import yaml

from tests.peers import _openstack_databases
from tests.peers import _openstack_files as files
from tests.peers.venvs import venv
from tests.ports import free_port, give_back
from tests.servers import Missing, Postgres
from tests.support import eventually

HERE: Final = Path(__file__).parent
RABBIT: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PR_SET_PDEATHSIG: Final = 1
START_S: Final = 180.0


def install() -> None:
    folder = venv("openstack")
    with contextlib.suppress(Missing):  # then the first start makes them, or says what is missing
        _openstack_databases.prepared(folder)


class OpenStack:
    """The services, each a process of its own that can be killed and started again; `clouds` is a clouds.yaml for their users."""

    def __init__(self, *, on_start: Callable[[int], None] = lambda pid: None) -> None:
        """`on_start` is told the pid of each process that is started."""
        self._on_start = on_start
        if absent := [name for name in ("mount.nfs", "qemu-img", "epmd") if not shutil.which(name)]:
            raise Missing(f"{', '.join(absent)} (Debian: nfs-common, qemu-utils, rabbitmq-server)")
        if not RABBIT.exists():
            raise Missing("RabbitMQ (Debian: rabbitmq-server)")
        self._bin = venv("openstack") / "bin"
        self._postgres = Postgres()
        self._root = Path(tempfile.mkdtemp(prefix="polly-openstack-"))
        self.ports = files.Ports(**{name: free_port() for name in files.Ports.__annotations__})
        self.files = files.Files(root=self._root, ports=self.ports, venv=self._bin.parent)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._elsewhere = http.server.ThreadingHTTPServer(("127.0.0.1", self.ports.elsewhere), _Elsewhere)
        self.servers: tuple[str, ...] = ()
        """Two servers of Nova's, running."""

    # --- its life ------------------------------------------------------------------------------------------

    def start(self) -> OpenStack:
        self._postgres.start()
        self._on_start(self._postgres.pid or 0)
        self.files.databases.update(_openstack_databases.create(self._postgres))
        self.files.write()
        subprocess.run(["mount", "--bind", "--", str(self.files.share), str(self.files.nfs_mount)], check=True)
        threading.Thread(target=self._elsewhere.serve_forever, daemon=True).start()
        self._launch_rabbit()
        _openstack_databases.lay_out(_openstack_databases.prepared(self._bin.parent), self._postgres, self.files)
        self._start_wsgi("keystone", "keystone.wsgi.api", self.ports.keystone)
        self._start_wsgi("placement", "placement.wsgi.api", self.ports.placement)
        self._listens(self.ports.rabbit, "RabbitMQ")
        for name in ("cinder-api", "cinder-scheduler", "cinder-volume"):
            self._start_cinder(name)
        self._listens(self.ports.keystone, "Keystone")
        self._fill_keystone()
        self._listens(self.ports.placement, "Placement")
        self._start_nova()
        for port, what in ((self.ports.cinder, "Cinder"), (self.ports.nova, "Nova")):
            self._listens(port, what)
        admin = self.connect("admin")
        self._comes(lambda: list(admin.block_storage.backend_pools()), "Cinder's scheduler knows a pool")
        admin.block_storage.create_type(name="nfs", extra_specs={"volume_backend_name": "nfs1"})
        self.servers = self._start_servers(admin)
        return self

    def stop(self) -> None:
        for name in reversed(tuple(self._processes)):
            self.kill(name)
        with contextlib.suppress(Exception):
            self._elsewhere.shutdown()
        self._elsewhere.server_close()
        self._postgres.stop()
        subprocess.run(["umount", "--lazy", "--", str(self.files.nfs_mount)], check=False, capture_output=True)
        shutil.rmtree(self._root, ignore_errors=True)
        for name in files.Ports.__annotations__:
            give_back(getattr(self.ports, name))

    def kill(self, name: str) -> None:
        """Ends a service with all its children, as a crash would."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def start_volume_service(self) -> None:
        """Returns when Cinder counts it as up."""
        self._start_cinder("cinder-volume")

    def volume_service_is_up(self) -> bool:
        services = self.connect("admin").block_storage.services(binary="cinder-volume")
        return all(service.state == "up" for service in services)

    def start_rabbit(self) -> None:
        self._launch_rabbit()
        self._listens(self.ports.rabbit, "RabbitMQ")

    # --- who asks ------------------------------------------------------------------------------------------

    def connect(self, cloud: str) -> Any:
        """openstacksdk's connection as `admin`, or as `polly`, a plain member of a project."""
        return openstack.connection.Connection(config=openstack.config.OpenStackConfig([str(self.files.clouds)]).get_one(cloud))

    def login(self, user: str, project: str, password: str, *, auth_url: str = "") -> dict[str, object]:
        """`auth_url`: where Keystone is asked, if not at its own address."""
        return {
            "auth": {
                "auth_url": auth_url or self.files.keystone_url,
                "username": user,
                "password": password,
                "project_name": project,
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
            "region_name": files.REGION,
        }

    def write_clouds(self, path: Path, **clouds: Mapping[str, object]) -> Path:
        path.write_text(yaml.safe_dump({"clouds": clouds}))
        path.chmod(0o600)
        return path

    # --- how it is started ---------------------------------------------------------------------------------

    def _launch_rabbit(self) -> None:
        if "epmd" not in self._processes:
            self._start("epmd", "/usr/bin/epmd", "-port", self.ports.epmd, "-address", "127.0.0.1")
            self._listens(self.ports.epmd, "epmd")
        self._start("rabbit", RABBIT, environment=self.files.rabbit_environment)

    def _start(self, name: str, program: str | Path, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        """In the main thread: the process dies with the thread that has started it."""
        command = [str(self._bin / program), *map(str, arguments)]
        with open(self.files.root / "log" / name, "ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=self.files.root,
                env={**self.files.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
        self._on_start(self._processes[name].pid)

    def _start_cinder(self, name: str) -> None:
        self._start(name, name, "--config-file", self.files.root / "cinder/cinder.conf")

    def _start_nova(self) -> None:
        """Its scheduler ends if Placement is not there yet; its compute asks for the conductor once, and then again 10 s later."""
        first = ["nova-conductor", "nova-scheduler"]
        for name in first:
            self._start(name, name, "--config-file", self.files.root / "nova/nova.conf")
        self._start_wsgi("nova-api", "nova.wsgi.osapi_compute", self.ports.nova)
        database = self.files.databases["nova"].replace("+psycopg2", "")

        def have_started() -> bool:
            with psycopg.connect(database) as connection:
                return len(connection.execute("SELECT 1 FROM services WHERE services.binary = ANY(%s)", [first]).fetchall()) == len(first)

        self._comes(have_started, "Nova's conductor and scheduler have started")
        self._start_compute()

    def _start_compute(self) -> None:
        self._start("nova-compute", "nova-compute", "--config-file", self.files.root / "nova/nova.conf")

    def _compute_is_up(self, admin: Any) -> bool:
        """It ends where the conductor, asked for the first time by several at once, falls over its own configuration (oslo.config)."""
        if self._processes["nova-compute"].poll() is not None:
            self._start_compute()
        return any(one.state == "up" for one in admin.compute.services(binary="nova-compute"))

    def _start_wsgi(self, name: str, module: str, port: int) -> None:
        self._start(name, "python", HERE / "_wsgi.py", module, port)

    def _listens(self, port: int, what: str) -> None:
        def connected() -> bool:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return True

        eventually(connected, START_S, f"{what} listens")

    def _comes(self, condition: Callable[[], object], what: str) -> None:
        """Asks rarely: the services have enough to do with their own start."""
        eventually(condition, START_S, what, every_s=0.3)

    def _fill_keystone(self) -> None:
        """The users, and where which service is."""
        user = self.login(files.USER, "polly", files.USER_PASSWORD)
        self.write_clouds(self.files.clouds, admin=self.login("admin", "admin", files.ADMIN_PASSWORD), polly=user)
        identity = self.connect("admin").identity
        for role in ("service", "member"):
            identity.find_role(role) or identity.create_role(name=role)
        for name, password, project, roles in (
            ("cinder", files.SERVICE_PASSWORD, "service", ("admin", "service")),
            ("nova", files.SERVICE_PASSWORD, "service", ("admin", "service")),
            (files.USER, files.USER_PASSWORD, "polly", ("member",)),
        ):
            home = identity.find_project(project) or identity.create_project(name=project, domain_id="default")
            person = identity.create_user(name=name, password=password, domain_id="default", default_project_id=home.id)
            for role in roles:
                identity.assign_project_role_to_user(home, person, identity.find_role(role))
        for name, kind, url in (
            ("cinder", "block-storage", f"http://127.0.0.1:{self.ports.cinder}/v3"),
            ("nova", "compute", f"http://127.0.0.1:{self.ports.nova}/v2.1"),
            ("placement", "placement", f"http://127.0.0.1:{self.ports.placement}"),
            ("neutron", "network", f"http://127.0.0.1:{self.ports.elsewhere}"),
            ("glance", "image", f"http://127.0.0.1:{self.ports.elsewhere}"),
        ):
            service = identity.create_service(name=name, type=kind)
            identity.create_endpoint(service_id=service.id, interface="public", region_id=files.REGION, url=url)

    def _start_servers(self, admin: Any) -> tuple[str, ...]:
        """Two servers that belong to the plain user, each started from a volume of its own."""
        flavor = admin.compute.create_flavor(name="small", ram=64, vcpus=1, disk=0)
        self._comes(lambda: self._compute_is_up(admin), "Nova's compute is up")
        self._comes(lambda: self._has_room(admin), "Nova's scheduler knows a host with room")
        mine = self.connect("polly")
        return tuple(server.id for server in [self._server(admin, mine, flavor.id, f"node-{number}") for number in (1, 2)])

    def _server(self, admin: Any, mine: Any, flavor: str, name: str) -> Any:
        volumes = mine.block_storage
        disk = volumes.wait_for_status(volumes.create_volume(size=1, name=f"disk of {name}"), "available", ["error"], 0.2, 60)
        volumes.set_volume_bootable_status(disk, True)
        start = [{"boot_index": 0, "uuid": disk.id, "source_type": "volume", "destination_type": "volume"}]

        made = mine.compute.create_server(name=name, flavor_id=flavor, networks="none", block_device_mapping=start)
        try:
            return mine.compute.wait_for_server(made, wait=START_S, interval=0.3)
        except openstack.exceptions.ResourceFailure as error:
            raise RuntimeError(f"Nova could not start {name}: {admin.compute.get_server(made).fault}") from error

    def _has_room(self, admin: Any) -> bool:
        """Hosts come to be known by Nova's cells and by Placement, each in its own time."""
        rooms = [list(admin.placement.resource_provider_inventories(one)) for one in admin.placement.resource_providers()]
        return bool(list(admin.compute.hypervisors())) and all(rooms) and bool(rooms)


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """The network and image services, as empty as can be: Nova asks them, and nothing here has a network or an image."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        last = self.path.partition("?")[0].rstrip("/").rpartition("/")[2].removesuffix(".json").replace("-", "_")
        here = f"http://{self.headers['Host']}/v2.0/"
        versions = {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": here}]}]}
        body = json.dumps(versions if last in ("", "v2.0") else {last: []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
