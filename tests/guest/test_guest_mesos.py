"""An app with a PowerScale volume on a Mesos agent in the guest: its executor mounts a real export; killed, it comes back with its data."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cluster.mesos_cluster import MesosCluster
from tests.cluster.rig import Rig, counter
from tests.conftest import belongs_to_the_session, leave_out
from tests.guest import inside
from tests.guest.exports import SERVER, relayed
from tests.peers.guest import ADDRESS, Call, Guest
from tests.peers.powerscale_nas import BASE, Nas, nas
from tests.servers import Missing
from tests.support import EMULATED_S, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.peer, pytest.mark.xdist_group("guest")]

PATIENT = {"agent_ping_timeout": "15secs", "max_agent_ping_timeouts": "5"}


@pytest.fixture
def storage(guest: Guest, tmp_path: Path) -> Iterator[Nas]:
    """A PowerScale whose API and exports the guest reaches on its own loopback interface, as this machine does."""
    if os.geteuid() != 0:
        leave_out("needs root, as nfs-ganesha does")
    (tmp_path / "nas").mkdir()
    with ExitStack() as stack:
        try:
            storage = stack.enter_context(nas(tmp_path / "nas", on_start=belongs_to_the_session))
        except Missing as missing:
            leave_out(f"needs {missing}")
        port = urlsplit(storage.front.url).port or 0
        stack.callback(relayed(guest, storage.port).stop)
        stack.callback(relayed(guest, port, port).stop)
        yield storage


@pytest.fixture
def cluster(guest: Guest, tmp_path: Path) -> Iterator[MesosCluster]:
    """A master out here, and its one agent in the guest; each finds the other where it would be if they were on one machine."""
    cluster = MesosCluster(1, folder=tmp_path / "mesos", master_flags=PATIENT)
    (agent,) = cluster.agents
    with ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.master.start()
        stack.callback(relayed(guest, cluster.master.port, cluster.master.port).stop)
        guest.forward(agent.port)
        inward: Call[None] = guest.begin(inside.relay, (ADDRESS, agent.port), (SERVER, agent.port))
        inward.until("relaying")
        stack.callback(inward.stop)
        running = guest.begin(inside.program, [str(agent.installed.node), *agent.arguments], agent.environment(), str(agent.log))
        running.until("started")
        stack.callback(running.stop)
        try:
            eventually(lambda: cluster.active_agents() == ["agent1"], EMULATED_S, "the agent in the guest is registered")
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{guest.call(inside.read, str(agent.log))[-3000:]}") from error
        yield cluster


def test_an_app_comes_back_with_its_data_on_a_powerscale_volume(guest: Guest, storage: Nas, cluster: MesosCluster, tmp_path: Path) -> None:
    agent = tmp_path / "agent.toml"
    agent.write_text(f'[platforms.nas]\nnode = "{SERVER}"\n')
    agent.chmod(0o644)
    settings = {
        "executor": {"command": [sys.executable, "-m", "executors.main", "--config", str(agent)]},
        "claims": {"lease_s": EMULATED_S},
        "platforms.nas": {"kind": "powerscale", **storage.settings()},
        "profiles.fast": {"platforms": ["nas"], "mount_options": ["vers=4.1"], "filesystem": None},
    }
    rig = Rig(cluster, tmp_path / "polly", settings=settings)
    try:
        rig.start_broker()
        rig.run(counter())
        (first,) = rig.running(timeout_s=EMULATED_S)
        counted(storage, 1)
        assert guest.call(inside.exports) == [SERVER]

        guest.call(os.kill, guest.call(inside.executors)[first["id"]], signal.SIGKILL)
        (second,) = rig.running(but=[first["id"]], timeout_s=EMULATED_S)
        counted(storage, 2)
        assert second["id"] in guest.call(inside.executors)

        rig.delete("/counter")
        rig.gone(timeout_s=EMULATED_S)
        eventually(lambda: not rig.claims() and not rig.volumes(), EMULATED_S, "the volume is deleted")
        assert volumes(storage) == []
        assert guest.call(inside.exports) == []
    finally:
        rig.stop()


def volumes(storage: Nas) -> list[str]:
    """The folders of volumes; the adapter keeps its own files in one that is hidden."""
    return [one["name"] for one in storage.front.cluster.ifs.children(BASE) if not one["name"].startswith(".")]


def counted(storage: Nas, number: int) -> None:
    """The app's count has come to the cluster's own folder."""
    ifs = storage.front.cluster.ifs

    def count() -> list[str]:
        return [(ifs.real(f"{BASE}/{name}") / "starts").read_text().strip() for name in volumes(storage)]

    eventually(lambda: count() == [str(number)], EMULATED_S, f"the app has counted to {number}")
