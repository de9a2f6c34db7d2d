"""Nodes that read one volume on EBS at the same time: what each keeps in the volume's tags is not for the others to tidy up."""

from __future__ import annotations

from typing import Any

import pytest

from storage.platforms.base import CreateRequest
from tests.peers import ec2
from tests.peers.ec2_front import Front

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("ebs")]

SHARED = {"type": "io2", "iops": "100", "multiAttach": "true"}


def test_a_reader_that_another_takes_for_gone_while_it_comes_is_known_for_one(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is attached removes the tags of nodes that are not, once there are many, and cannot see who is just on its way."""
    one, other = ec2.adapter(front, multi_attach=True), ec2.adapter(front, multi_attach=True)
    here, there = front.machines(2)
    made = one.create(CreateRequest(pool=ec2.ZONE, size_mib=4096, token="data", name="data", parameters=SHARED))
    volume = made.external_id
    for epoch in range(1, 7):
        one.attach(volume, here, epoch=epoch, read_only=True)
        one.detach(volume, here)
    change = other.client.change

    def changed(action: str, *arguments: Any, **parameters: Any) -> Any:
        if action == "attach_volume":
            one.attach(volume, here, epoch=7, read_only=True)
        return change(action, *arguments, **parameters)

    monkeypatch.setattr(other.client, "change", changed)
    attachment = other.attach(volume, there, epoch=8, read_only=True)
    assert other.attach(volume, there, epoch=8, read_only=True) == attachment, "a repeat is refused"
    assert one.inspect(volume).held_by == tuple(sorted((here, there)))
    one.detach(volume, here)
    assert one.attach(volume, here, epoch=9, read_only=True).read_only, "a reader is not known for one"
