"""Google's client, imported late and in part, and the clients made of it.

`google.cloud.compute_v1` imports all of its hundred services and takes twice the time and half again the memory of the nine that are
used here. So they are imported past the package's own module, which is out of the way only meanwhile: whoever imports the package
later gets all of it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from storage.platforms.gce.failures import Fault
from storage.platforms.gce.options import GceOptions, is_loopback

PACKAGE: Final = "google.cloud.compute_v1"
CLIENTS: Final = {
    "disks": "DisksClient",
    "instances": "InstancesClient",
    "snapshots": "SnapshotsClient",
    "zone_operations": "ZoneOperationsClient",
    "global_operations": "GlobalOperationsClient",
    "regions": "RegionsClient",
    "zones": "ZonesClient",
    "disk_types": "DiskTypesClient",
    "machine_types": "MachineTypesClient",
}
SCOPES: Final = ("https://www.googleapis.com/auth/compute",)
_importing = threading.Lock()


@cache
def messages() -> Any:
    """The module with all messages, such as `Disk` and `InsertDiskRequest`."""
    with _bare_package():
        return import_module(f"{PACKAGE}.types.compute")


@cache
def _client_class(service: str) -> Any:
    with _bare_package():
        return getattr(import_module(f"{PACKAGE}.services.{service}"), CLIENTS[service])


@contextmanager
def _bare_package() -> Iterator[None]:
    """A package without contents in the place of Google's, so that its parts can be imported one by one."""
    with _importing:
        spec = None if PACKAGE in sys.modules else find_spec(PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            yield
            return
        bare = ModuleType(PACKAGE)
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules[PACKAGE] = bare
        try:
            yield
        finally:
            del sys.modules[PACKAGE]


class Clients:
    """A client for each service, made when it is first asked for; all with the same credentials."""

    def __init__(self, options: GceOptions) -> None:
        self._options = options
        self._made: dict[str, Any] = {}
        self._credentials: Any = None
        self._lock = threading.Lock()

    def __getitem__(self, service: str) -> Any:
        with self._lock:
            if service not in self._made:
                self._credentials = self._credentials or _credentials(self._options)
                where = {"api_endpoint": self._options.endpoint.rstrip("/")} if self._options.endpoint else {}
                self._made[service] = _client_class(service)(credentials=self._credentials, client_options=where)
            return self._made[service]

    def close(self) -> None:
        with self._lock:
            for client in self._made.values():
                client.transport.close()
            self._made.clear()
            self._credentials = None


def _credentials(options: GceOptions) -> Any:
    """Raises what google.auth raises where there are none, Fault for a file that cannot be read."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    if options.credentials_file:
        return _from_key(options.credentials_file)
    if options.endpoint and is_loopback(options.endpoint):
        return AnonymousCredentials()
    return google.auth.default(scopes=SCOPES)[0]


def _from_key(path: str) -> Any:
    """A service account's key, and no other kind of file: the others may name programs to run. Raises Fault that shows nothing of it."""
    from google.oauth2 import service_account

    try:
        return service_account.Credentials.from_service_account_file(path, scopes=SCOPES)
    except OSError as error:
        raise Fault("CREDENTIALS", f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError):
        raise Fault("CREDENTIALS", f"{path}: it is no service account's key; GOOGLE_APPLICATION_CREDENTIALS names other kinds") from None
