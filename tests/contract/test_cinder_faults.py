"""What only a real OpenStack can show of the adapter: its own refusals, services killed, tokens revoked, a thousand volumes."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage.errors import (
    Conflict,
    Invalid,
    PlatformError,
    PlatformUnavailable,
    PoolFull,
    StaleEpoch,
    UnknownPool,
    Unsupported,
    VolumeInUse,
)
from storage.model import Birth, ExternalId
from storage.platforms.base import CreateRequest, VolumeReport
from storage.platforms.cinder import CinderPlatform
from storage.platforms.cinder.failures import Refusal as Refused
from storage.platforms.cinder.options import BARE_METAL, NOVA
from storage.platforms.faulting import Fault
from tests.contract.cinder_cloud import NODES, POOL, Cloud
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("cinder")]

BACKEND = "polly-cinder@nfs1#nfs1"
numbers = itertools.count()


@pytest.fixture
def bare(cinder: Cloud) -> Iterator[CinderPlatform]:
    platform = cinder.platform(BARE_METAL)
    yield platform
    platform.close()


@pytest.fixture
def nova(cinder: Cloud) -> Iterator[CinderPlatform]:
    platform = cinder.platform(NOVA)
    yield platform
    platform.close()


def request(**changes: Any) -> CreateRequest:
    token = f"fault-{os.getpid()}-{next(numbers)}"
    fields: dict[str, Any] = {"pool": POOL, "size_mib": 1024, "token": token, "name": token}
    return CreateRequest(**(fields | changes))


def all_volumes(platform: CinderPlatform, limit: int = 1000) -> list[VolumeReport]:
    found: list[VolumeReport] = []
    after: str | None = None
    while True:
        page = platform.volumes(after=after, limit=limit)
        found, after = [*found, *page.items], page.after
        if after is None:
            return found


# --- attachments ------------------------------------------------------------------------------------------------


def test_a_reservation_of_nobody_keeps_nobody_out(bare: CinderPlatform, cinder: Cloud) -> None:
    taken_back: list[Callable[[ExternalId], object]] = [
        lambda volume: bare.attach(volume, NODES[1], epoch=2),
        lambda volume: bare.fence(volume, 5),
        lambda volume: bare.detach(volume, NODES[1]),
    ]
    for act in taken_back:
        volume = bare.create(request()).external_id
        cinder.cinder.at_call.arrange(Fault.DIED, 2)
        with pytest.raises(PlatformUnavailable):
            bare.attach(volume, NODES[0], epoch=1)
        cinder.cinder.at_call.heal()
        assert bare.inspect(volume).held_by == ("reserved",)
        act(volume)
        assert "reserved" not in bare.inspect(volume).held_by


def test_a_holder_that_a_fence_overtook_is_turned_back(bare: CinderPlatform, cinder: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence is written between the look before and the look after the reservation."""
    volume = bare.create(request()).external_id
    take, other = bare._way.take, cinder.platform(BARE_METAL)

    def take_late(*arguments: Any, **options: Any) -> str:
        assert other.fence(volume, 7)
        return take(*arguments, **options)

    monkeypatch.setattr(bare._way, "take", take_late)
    with pytest.raises(StaleEpoch):
        bare.attach(volume, NODES[0], epoch=6)
    assert (bare.inspect(volume).held_by, bare.inspect(volume).epoch) == ((), 7)


def test_a_fence_that_a_holder_overtook_is_not_given(bare: CinderPlatform, cinder: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = bare.create(request()).external_id
    mark, other = bare._volumes.mark, cinder.platform(BARE_METAL)

    def mark_late(*arguments: Any) -> None:
        other.attach(volume, NODES[0], epoch=1)
        mark(*arguments)

    monkeypatch.setattr(bare._volumes, "mark", mark_late)
    assert bare.fence(volume, 7) is None
    assert bare.inspect(volume).held_by == (NODES[0],)


def test_a_birth_certificate_that_comes_between_look_and_word_is_not_replaced(
    bare: CinderPlatform, cinder: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = bare.create(request()).external_id
    mark, other = bare._volumes.mark, cinder.platform(BARE_METAL)
    mine, theirs = (Birth(serial="s", filesystem=kind, filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10") for kind in ("ext4", "xfs"))

    def mark_late(*arguments: Any) -> None:
        monkeypatch.undo()
        other.record_birth(volume, theirs, epoch=0)
        mark(*arguments)

    monkeypatch.setattr(bare._volumes, "mark", mark_late)
    with pytest.raises(Conflict):
        bare.record_birth(volume, mine, epoch=0)
    assert bare.inspect(volume).birth == theirs


def test_of_two_fences_in_one_moment_the_higher_stands(bare: CinderPlatform, cinder: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The higher one is written between the look of the lower one and its word."""
    volume = bare.create(request()).external_id
    mark, other = bare._volumes.mark, cinder.platform(BARE_METAL)

    def mark_late(*arguments: Any) -> None:
        assert other.fence(volume, 7)
        mark(*arguments)

    monkeypatch.setattr(bare._volumes, "mark", mark_late)
    assert bare.fence(volume, 5)
    assert bare.inspect(volume).epoch == 7
    with pytest.raises(StaleEpoch):
        other.attach(volume, NODES[0], epoch=6)
    other.attach(volume, NODES[0], epoch=8)
    kept = bare._volumes.known(volume)["metadata"]
    assert sorted(key for key in kept if key.startswith(("polly-epoch", "polly-floor"))) == ["polly-floor-8"]


def test_what_nova_has_plugged_in_is_nobody_elses_to_take(bare: CinderPlatform, nova: CinderPlatform, cinder: Cloud) -> None:
    volume, server = nova.create(request()).external_id, cinder.servers[0]
    assert nova.attach(volume, server, epoch=1).device == f"/dev/disk/by-id/virtio-{volume[:20]}"

    bare.detach(volume, NODES[0])
    assert bare.inspect(volume).held_by == (server,)
    assert bare.fence(volume, 5) is None
    for act in (lambda: bare.attach(volume, NODES[0], epoch=2), lambda: bare.delete(volume)):
        with pytest.raises(VolumeInUse, match=server):
            act()
    (attachment,) = bare._client.get("/attachments", action="list", volume_id=volume)["attachments"]
    with pytest.raises(Refused, match="HTTP 409") as refused:
        bare._client.ask("DELETE", f"/attachments/{attachment['id']}", action="detach behind Nova's back")
    assert refused.value.status == 409
    nova.detach(volume, server)
    nova.delete(volume)


def test_nova_says_which_servers_there_are(nova: CinderPlatform, cinder: Cloud) -> None:
    volume, nowhere = nova.create(request()).external_id, "6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10"
    with pytest.raises(PlatformError, match=r"no such server or volume in this project.*HTTP 404"):
        nova.attach(volume, nowhere, epoch=1)
    with pytest.raises(Invalid, match="named by its server's id"):
        nova.attach(volume, "db-1.example", epoch=1)
    assert nova.node_stopped(nowhere) == f"Nova has no server {nowhere}"
    assert nova.node_stopped("db-1.example") is None


def test_a_shelved_server_is_a_stopped_one_and_lets_go(nova: CinderPlatform, cinder: Cloud) -> None:
    """Nova reserves a shelved server's volumes; the server is on no host, and Cinder shows no attachment."""
    volume, (first, second) = nova.create(request()).external_id, cinder.servers
    nova.attach(volume, second, epoch=1)
    assert nova.node_stopped(second) is None
    with cinder.shelved(second):
        assert f"Nova shows server {second} as SHELVED_OFFLOADED" in str(nova.node_stopped(second))
        nova.detach(volume, second)
        assert nova.fence(volume, 2)
        nova.attach(volume, first, epoch=3)
    assert nova.inspect(volume).held_by == (first,)
    nova.detach(volume, first)
    nova.delete(volume)


def test_what_a_server_that_is_no_more_has_left_attached_is_let_go(nova: CinderPlatform, cinder: Cloud) -> None:
    """As when Cinder was away while Nova deleted the server."""
    volume, gone = nova.create(request()).external_id, "6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10"
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": gone, "connector": {"host": "compute-7"}}}
    made = nova._client.ask("POST", "/attachments", action="attach as Nova", body=body)["attachment"]
    nova._client.ask("POST", f"/attachments/{made['id']}/action", action="attach as Nova", body={"os-complete": {}})
    assert nova.inspect(volume).held_by == (gone,)
    nova.detach(volume, cinder.servers[0])
    assert nova.inspect(volume).held_by == (gone,)

    nova.detach(volume, gone)
    assert nova.inspect(volume).held_by == ()
    nova.delete(volume)


def test_machines_are_not_seen(bare: CinderPlatform) -> None:
    with pytest.raises(Unsupported, match="does not see nodes"):
        bare.node_stopped(NODES[0])


# --- volumes ----------------------------------------------------------------------------------------------------


def test_a_full_quota_is_a_full_pool_with_cinders_own_words(bare: CinderPlatform) -> None:
    volume = bare.create(request()).external_id
    free = next(pool.capacity_mib - pool.foreign_mib for pool in bare.pools() if pool.name == POOL)
    acts: list[Callable[[], object]] = [lambda: bare.create(request(size_mib=free * 2)), lambda: bare.expand(volume, free * 2)]
    for act in acts:
        with pytest.raises(PoolFull) as full:
            act()
        assert "HTTP 413" in full.value.fields["reason"]
        assert 0 < full.value.fields["free_mib"] <= free


def test_types_and_zones_that_are_not_there_are_unknown_pools(bare: CinderPlatform) -> None:
    for pool in ("nova/gold", "mars/nfs", "nfs", ""):
        with pytest.raises(UnknownPool):
            bare.create(request(pool=pool))


def test_types_that_no_volume_of_ours_could_have_are_no_pools(bare: CinderPlatform, cinder: Cloud) -> None:
    """As a plain user is told of them; a pool that has volumes already stays one."""
    volumes, before = cinder.openstack.connect("admin").block_storage, [pool.name for pool in bare.pools()]
    specs = {"shared": {"multiattach": "<is> True"}, "marsian": {"RESKEY:availability_zones": "mars, venus"}, "plain": {}}
    made = [volumes.create_type(name=name, extra_specs={"volume_backend_name": "nfs1", **more}) for name, more in specs.items()]
    try:
        assert sorted({pool.name for pool in bare.pools()} - set(before)) == ["nova/plain"]
        volume = bare.create(request(pool="nova/plain")).external_id
        with cinder.database() as database:  # Cinder itself changes no type that has volumes, unless its operator allows that
            database.execute(
                "INSERT INTO volume_type_extra_specs (deleted, key, value, volume_type_id) VALUES (false, 'multiattach', '<is> True', %s)",
                [made[-1].id],
            )
        assert "nova/plain" in {pool.name for pool in bare.pools()}
        bare.delete(volume)
        assert [pool.name for pool in bare.pools()] == before
    finally:
        for one in made:
            volumes.delete_type(one)


def test_a_volume_in_use_grows_only_where_the_backend_can(bare: CinderPlatform, cinder: Cloud) -> None:
    """The NFS driver takes the call and then fails; that is said, and the volume is shown to be broken."""
    volume, brave = bare.create(request()).external_id, cinder.platform(BARE_METAL, extend_in_use=True)
    bare.attach(volume, NODES[0], epoch=1)
    with pytest.raises(Unsupported, match="extend_in_use"):
        bare.expand(volume, 2048)
    with pytest.raises(PlatformError, match="error_extending"):
        brave.expand(volume, 2048)
    bare.detach(volume, NODES[0])


def test_administrators_see_the_schedulers_pools(cinder: Cloud) -> None:
    admin = cinder.platform(BARE_METAL, cloud="admin", pools="backends")
    (pool,) = admin.pools()
    assert (pool.name, pool.labels["volume_backend_name"]) == (BACKEND, "nfs1")
    assert 0 <= pool.foreign_mib < pool.capacity_mib

    made = admin.create(request(pool=BACKEND))
    assert made.pool == BACKEND
    assert admin.create(request(pool=BACKEND, parameters={"type": "nfs"})).pool == BACKEND
    with pytest.raises(Invalid, match=r"parameters\.type.*must be one of the volume types that lead to this pool: nfs"):
        admin.create(request(pool=BACKEND, parameters={"type": "__DEFAULT__"}))
    with pytest.raises(UnknownPool):
        admin.create(request(pool="polly-cinder@nfs2#nfs2"))
    admin.delete(made.external_id)


def test_a_thousand_volumes_are_listed_in_parts(bare: CinderPlatform, cinder: Cloud) -> None:
    """Rows like that of a real volume, put into Cinder's database beside it."""
    asked, wanted = request(), 1000
    first = bare.create(asked)
    with cinder.database() as database:
        columns = [row[0] for row in database.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'volumes'")]
        others = ", ".join(f'"{name}"' for name in columns if name != "id")
        copy = f"INSERT INTO volumes (id, {others}) SELECT gen_random_uuid(), {others} FROM volumes, generate_series(2, %s) WHERE id = %s"  # noqa: S608 - names from the catalogue
        database.execute(copy, [wanted, first.external_id])
        try:
            for limit in (137, 1000):
                seen = [volume.external_id for volume in all_volumes(bare, limit) if volume.name == asked.name]
                assert (len(seen), len(set(seen))) == (wanted, wanted)
        finally:
            database.execute("DELETE FROM volumes WHERE display_name = %s AND id <> %s", [asked.name, first.external_id])


def test_many_are_looked_at_with_one_call(bare: CinderPlatform, cinder: Cloud) -> None:
    made = sorted(bare.create(request()).external_id for _ in range(5))
    cinder.cinder.calls.clear()
    assert sorted(bare._volumes._look(made)) == made
    assert cinder.cinder.calls == {"GET /v3/volumes/detail": 1}

    cinder.cinder.calls.clear()
    assert sorted(bare._volumes._look(made[:2])) == made[:2]
    assert cinder.cinder.calls == {f"GET /v3/volumes/{volume}": 1 for volume in made[:2]}


# --- services that die; the last, for what they leave behind -----------------------------------------------------


def test_a_volume_service_that_is_killed_while_it_creates(cinder: Cloud) -> None:
    """The adapter says that the volume is still being made, and goes on with it, or with a new one, when the service is back."""
    hurried, patient, wanted = cinder.platform(BARE_METAL, wait_s=3), cinder.platform(BARE_METAL), request()
    killed = threading.Event()

    def kill() -> None:
        eventually(lambda: cinder.cinder.calls["POST /v3/volumes"], 30, "the volume is asked for")
        cinder.openstack.kill("cinder-volume")
        killed.set()

    cinder.cinder.calls.clear()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        made = _created_or_not(hurried, wanted)
    finally:
        killer.join()
        assert killed.is_set()
        cinder.openstack.start_volume_service()
    eventually(cinder.openstack.volume_service_is_up, 60, "Cinder's volume service is up again")

    volume = patient.create(wanted)
    assert made is None or made.external_id == volume.external_id
    assert [found.external_id for found in all_volumes(patient) if found.token == wanted.token] == [volume.external_id]
    assert patient.attach(volume.external_id, NODES[0], epoch=1).context["file"] == f"volume-{volume.external_id}"
    patient.detach(volume.external_id, NODES[0])
    patient.delete(volume.external_id)


def test_a_message_broker_that_is_away(cinder: Cloud) -> None:
    hurried, patient, wanted = cinder.platform(BARE_METAL, wait_s=3, answer_s=4), cinder.platform(BARE_METAL), request()
    volume = patient.create(request()).external_id
    cinder.openstack.kill("rabbit")
    try:
        assert hurried.inspect(volume).held_by == ()
        acts: list[Callable[[], object]] = [lambda: hurried.create(wanted), lambda: hurried.attach(volume, NODES[0], epoch=1)]
        with ThreadPoolExecutor(len(acts)) as pool:
            failures = [done.exception() for done in [pool.submit(act) for act in acts]]
        assert [type(failure) for failure in failures] == [PlatformUnavailable] * len(acts)
    finally:
        cinder.openstack.start_rabbit()
    eventually(cinder.openstack.volume_service_is_up, 60, "Cinder's volume service is up again")

    if _created_or_not(hurried, wanted) is None:
        _give_up(cinder, wanted.token)
    made = patient.create(wanted)
    assert [found.external_id for found in all_volumes(patient) if found.token == wanted.token] == [made.external_id]
    assert patient.attach(volume, NODES[0], epoch=1).context["file"] == f"volume-{volume}"
    assert patient.inspect(volume).held_by == (NODES[0],)
    patient.detach(volume, NODES[0])
    for key in (volume, made.external_id):
        patient.delete(key)


def _give_up(cinder: Cloud, token: str) -> None:
    """What the error tells an administrator to do, where Cinder has lost its own message and would wait for ever."""
    for volume in cinder.platform(BARE_METAL)._volumes.with_token(token):
        body = {"os-reset_status": {"status": "error"}}
        assert cinder.openstack.connect("admin").block_storage.post(f"/volumes/{volume['id']}/action", json=body).ok


def _created_or_not(platform: CinderPlatform, wanted: CreateRequest) -> VolumeReport | None:
    """None where the kill came first; then the error says what Cinder shows."""
    try:
        return platform.create(wanted)
    except PlatformUnavailable as error:
        if "it is creating since" not in str(error):
            raise
        return None
