"""Google's client, imported late and in part, and the clients made of it.

`google.cloud.compute_v1` imports all of its hundred services and takes twice the time and half again the memory of the eight that are
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
        try:
            return _from_file(options.credentials_file)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no credentials file of Google's"
            raise Fault("CREDENTIALS", f"{options.credentials_file}: {reason}") from None
    if options.endpoint and is_loopback(options.endpoint):
        return AnonymousCredentials()
    return google.auth.default(scopes=SCOPES)[0]


def _from_file(path: str) -> Any:
    """The operator names the file, so any kind that Google knows is fine."""
    import json

    import google.auth

    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    if isinstance(told, dict) and told.get("type") == "service_account":
        from google.oauth2 import service_account

        return service_account.Credentials.from_service_account_info(told, scopes=SCOPES)
    return google.auth.load_credentials_from_dict(told, scopes=SCOPES)[0]
