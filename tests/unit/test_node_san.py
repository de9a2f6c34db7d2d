"""iSCSI and Fibre Channel on the node: who it is, and how an array's LUNs come up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from storage.errors import NodeError, UnsafePath
from storage.model import ExternalId
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.identities import fc, identify, iscsi
from storage.node.steps import Machine
from storage.node.transports import iscsi as transport
from storage.node.transports import transport_of
from storage.platforms.base import Attachment

PORTALS = "10.0.0.5:3260,iqn.2008-05.com.example:1 [fd00::5]:3260,iqn.2008-05.com.example:2"


class Recorder:
    def __init__(self, refuse: str = "nothing") -> None:
        self.calls: list[list[str]] = []
        self._refuse = refuse

    def __call__(
        self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False
    ) -> Output:
        self.calls.append([*command])
        if any(self._refuse in word for word in command):
            raise NodeError(command=command[0], target="portal", reason="no route to host")
        return Output(code=0, out="", err="")


def attachment(portals: str = PORTALS) -> Attachment:
    return Attachment(external_id=ExternalId("v"), device="", serial="naa.1", transport="iscsi", context={"portals": portals, "lun": "3"})


def test_a_node_logs_in_to_every_portal_and_looks_for_the_lun() -> None:
    run = Recorder()
    found = transport_of(attachment())
    assert found is not None
    found.connect(attachment(), Machine(run=run))
    base = ["iscsiadm", "--mode", "node", "--targetname", "iqn.2008-05.com.example:1", "--portal", "10.0.0.5:3260"]
    assert run.calls[:3] == [[*base, "--op", "new"], [*base, "--login"], [*base, "--rescan"]]
    assert len(run.calls) == 6
    found.disconnect(attachment(), Machine(run=run))
    assert len(run.calls) == 6


def test_one_portal_that_answers_is_enough_and_none_is_an_error() -> None:
    transport.connect(attachment(), Machine(run=Recorder(refuse="10.0.0.5")))
    with pytest.raises(NodeError, match="no route to host"):
        transport.connect(attachment(), Machine(run=Recorder(refuse="iscsiadm")))
    with pytest.raises(NodeError, match="no portal"):
        transport.connect(attachment(""), Machine(run=Recorder()))


@pytest.mark.parametrize("portals", ["10.0.0.5:3260", "-x:1,iqn.a:b", "10.0.0.5:3260,--logout", "10.0.0.5,iqn.a:b"])
def test_a_portal_is_no_option(portals: str) -> None:
    run = Recorder()
    with pytest.raises(UnsafePath):
        transport.connect(attachment(portals), Machine(run=run))
    assert run.calls == []


def test_an_initiators_name(tmp_path: Path) -> None:
    file = tmp_path / "initiatorname.iscsi"
    with pytest.raises(NodeError, match=r"agent\.toml"):
        iscsi.identify(Machine(), file=file)
    file.write_text("## a comment\nInitiatorName=iqn.1993-08.org.debian:01:abc\n")
    assert iscsi.identify(Machine(), file=file) == "iqn.1993-08.org.debian:01:abc"
    file.write_text("# InitiatorName=iqn.commented\n")
    with pytest.raises(NodeError, match="names no initiator"):
        iscsi.identify(Machine(), file=file)


def port(sys: Path, name: str, wwpn: str, state: str) -> None:
    host = sys / "class" / "fc_host" / name
    host.mkdir(parents=True)
    (host / "port_name").write_text(wwpn + "\n")
    (host / "port_state").write_text(state + "\n")


def test_a_nodes_online_ports(tmp_path: Path) -> None:
    machine = Machine(roots=Roots(sys=tmp_path))
    with pytest.raises(NodeError, match="no port is online"):
        fc.identify(machine)
    port(tmp_path, "host3", "0x21000024ff57b236", "Online")
    port(tmp_path, "host4", "0x21000024ff57b237", "Linkdown")
    port(tmp_path, "host5", "0x21000024ff57b238", "Online")
    assert identify("fc", machine, hostname="n1") == "21000024ff57b236,21000024ff57b238"
