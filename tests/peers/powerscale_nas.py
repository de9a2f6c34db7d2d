"""A whole PowerScale for tests: the simulated cluster, whose NFS exports a real nfs-ganesha serves from its /ifs.

    with nas(folder) as cluster:
        platform = build("nas", "powerscale", cluster.settings())
        attachment = platform.attach(volume, "127.0.0.1", epoch=1)   # mount it from 127.0.0.1, port `cluster.port`

Needs root. What may mount an export is what the cluster's exports say at that moment; quotas are not enforced on what comes by NFS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.peers.ganesha import Client, Export, Ganesha
from tests.peers.powerscale_cluster import Cluster, hosts_of
from tests.peers.powerscale_onefs import PASSWORD, USER, OneFs
from tests.peers.powerscale_wire import serving

BASE: Final = "/ifs/data/polly"


@dataclass(kw_only=True)
class Nas:
    front: OneFs
    server: Ganesha
    folder: Path
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where nodes come from that are known to the cluster by another name."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Of folders, as the NFS server knows them: one that is mounted keeps its number whatever exports come and go."""

    @property
    def port(self) -> int:
        """Of NFS, on 127.0.0.1."""
        return self.server.port

    def settings(self, **more: Any) -> dict[str, Any]:
        """A block of polly.toml for it, but for `kind`."""
        file = self.folder / "password"
        if not file.exists():
            file.touch(0o600)
            file.write_text(f"{PASSWORD}\n")
        login = {"endpoint": self.front.url, "username": USER, "password_file": str(file), "ca_file": self.front.ca_file}
        return {**login, "base_path": BASE, "nfs_host": "127.0.0.1", **more}

    def url(self, path: str) -> str:
        """A path of the cluster's as libnfs' programs name it."""
        return self.server.url(path)

    def publish(self) -> None:
        self.server.serve(_served(self.front.cluster, self.addresses, self.numbers))


@contextmanager
def nas(folder: Path, *, addresses: Mapping[str, str] | None = None, on_start: Callable[[int], None] = lambda pid: None) -> Iterator[Nas]:
    """`on_start` is told the NFS server's process. Raises tests.servers.Missing where there is none."""
    server = Ganesha(folder / "ganesha", on_start=on_start)
    with serving(folder) as front:
        front.cluster.hosts.update(addresses or {})
        front.cluster.ifs.make(BASE, recursive=True)
        try:
            whole = Nas(front=front, server=server.start(), folder=folder, addresses=addresses or {})
            front.on_exports = whole.publish
            yield whole
        finally:
            server.stop()


def _served(cluster: Cluster, addresses: Mapping[str, str], numbers: dict[str, int]) -> list[Export]:
    """One for each folder: OneFS may export it by several, each to others."""
    folders: dict[str, list[dict[str, Any]]] = {}
    for export in cluster.exports.values():
        for path in export["paths"]:
            if cluster.ifs.is_folder(path):
                folders.setdefault(path, []).append(export)
    return [
        Export(
            number=numbers.setdefault(path, min(int(export["id"]) for export in exports)),
            folder=cluster.ifs.real(path),
            path=path,
            clients=tuple(
                Client(address=addresses.get(host, host), may_write=cluster.may_mount(path, host) == "rw")
                for export in exports
                for host in sorted(hosts_of(export) or {"*"})
            ),
        )
        for path, exports in sorted(folders.items())
    ]
