"""How the adapter of Cinder gets on with a real OpenStack's API: who it is there, what it may, how fast, and what is wrong when not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from storage.errors import PlatformError, PlatformUnavailable, PollyError, UnknownVolume
from storage.model import ExternalId
from storage.platforms.base import CreateRequest
from storage.platforms.cinder import CinderPlatform
from storage.platforms.cinder.options import BARE_METAL, NOVA, CinderOptions
from storage.platforms.faulting import Fault, Faults
from tests.contract.cinder_cloud import NODES, POOL, Cloud
from tests.peers import _openstack_files as files
from tests.support import eventually
from tests.wire import Refusal

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("cinder")]


@pytest.fixture
def bare(cinder: Cloud) -> Iterator[CinderPlatform]:
    platform = cinder.platform(BARE_METAL)
    yield platform
    platform.close()


# --- who we are ---------------------------------------------------------------------------------------------------


def test_the_environment_may_say_who_we_are(cinder: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    login = cinder.openstack.login(files.USER, "polly", files.USER_PASSWORD)["auth"]
    assert isinstance(login, dict)
    for name, value in {**login, "region_name": files.REGION}.items():
        monkeypatch.setenv(f"OS_{name.upper()}", value)

    platform = CinderPlatform("cloud", CinderOptions(attach=BARE_METAL))

    assert [pool.name for pool in platform.pools() if pool.name == POOL] == [POOL]
    assert files.USER_PASSWORD not in str(platform.settings())
    platform.close()


def test_an_application_credential_is_enough_until_it_is_taken_back(cinder: Cloud, tmp_path: Path) -> None:
    user = cinder.openstack.connect("polly")
    made = user.identity.create_application_credential(user.current_user_id, name=f"polly {tmp_path.name}")
    auth = {"auth_url": f"http://127.0.0.1:{cinder.openstack.ports.keystone}/v3"}
    auth |= {"application_credential_id": made.id, "application_credential_secret": made.secret}
    entry = {"auth_type": "v3applicationcredential", "auth": auth, "region_name": files.REGION}
    clouds = cinder.openstack.write_clouds(tmp_path / "clouds.yaml", polly=entry)
    platform = cinder.platform(BARE_METAL, clouds_file=str(clouds))
    assert platform.find("nothing") is None

    user.identity.delete_application_credential(user.current_user_id, made)

    def is_refused() -> bool:
        try:
            return platform.find("nothing") is not None
        except PlatformUnavailable as error:
            return "the credentials are refused" in str(error) and made.secret not in str(error)

    eventually(is_refused, 10, "the credential is refused")


@pytest.mark.parametrize(("cinders", "novas"), [("", ""), ("/v3/%(project_id)s", "/v2.1/%(project_id)s")])
def test_endpoints_are_taken_as_the_catalogue_writes_them(cinder: Cloud, tmp_path: Path, cinders: str, novas: str) -> None:
    """With no version, and with the project, as older clouds have them. One that does not answer is no catalogue without Cinder."""
    urls = {"block-storage": cinder.cinder.url + cinders, "compute": cinder.nova.url + novas}
    login = cinder.openstack.login(files.USER, "polly", files.USER_PASSWORD)
    with cinder.region(tmp_path.name, urls) as region:
        clouds = str(cinder.openstack.write_clouds(tmp_path / "clouds.yaml", polly=login | {"region_name": region}))
        platform = cinder.platform(NOVA, clouds_file=clouds)
        with cinder.cinder.refusing(Refusal(status=503)), pytest.raises(PlatformUnavailable, match=r"HTTP 503|does not say its versions"):
            platform.inspect(ExternalId(cinder.servers[0]))
        with pytest.raises(UnknownVolume):
            platform.inspect(ExternalId(cinder.servers[0]))
        assert [finding for finding in platform.check() if not finding.ok] == []
        platform.close()


@pytest.mark.parametrize("status", [413, 429])
@pytest.mark.parametrize("service", ["keystone", "cinder"])
def test_a_rate_limit_is_waited_out_as_long_as_it_says(cinder: Cloud, service: str, status: int) -> None:
    """Keystone is asked for its versions and for a token."""
    waits: list[float] = []
    platform = cinder.platform(BARE_METAL, wait=waits.append)
    slow = Refusal(status=status, headers={"Retry-After": "7"}, body=b'{"overLimit": {"code": 413, "message": "rate-limited"}}')
    with getattr(cinder, service).refusing(slow, slow):
        assert platform.pools()
    assert waits.count(7.0) == 2


def test_a_token_is_got_again_though_keystone_is_slow_and_loses_its_answer(cinder: Cloud) -> None:
    waits: list[float] = []
    platform, ended = cinder.platform(BARE_METAL, wait=waits.append), Refusal(status=401)
    assert platform.find("nothing") is None
    with cinder.cinder.refusing(ended), cinder.keystone.refusing(Refusal(status=429, headers={"Retry-After": "7"})):
        assert platform.find("nothing") is None
    assert waits.count(7.0) == 1

    cinder.keystone.at_call = lost = Faults()
    lost.arrange(Fault.LOST, 1)
    with cinder.cinder.refusing(ended), pytest.raises(PlatformUnavailable, match=r"ConnectFailure: .*/v3/auth/tokens"):
        platform.find("nothing")
    lost.heal()
    assert platform.find("nothing") is None
    platform.close()


@pytest.mark.parametrize("service", ["keystone", "cinder"])
def test_a_rate_limit_without_end_is_said(cinder: Cloud, service: str) -> None:
    waits: list[float] = []
    platform = cinder.platform(BARE_METAL, wait=waits.append)
    with getattr(cinder, service).refusing(*[Refusal(status=429)] * 8), pytest.raises(PlatformUnavailable, match="HTTP 429") as limited:
        platform.pools()
    assert "credentials" not in str(limited.value)
    assert max(waits) > 0.0, "it is asked again at once"


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (503, b"<html>no server is available</html>", PlatformUnavailable, "HTTP 503: <html>no server"),
        (500, b"", PlatformUnavailable, "HTTP 500: no reason"),
        (403, b'{"forbidden": {"code": 403, "message": "Policy forbids it"}}', PlatformError, "HTTP 403: Policy forbids it"),
        (400, b'{"badRequest": {"message": "Invalid"}}', PlatformError, "HTTP 400: Invalid"),
        (300, b'{"choices": []}', PlatformError, "HTTP 300"),
        (200, b"<html>back soon</html>", PlatformUnavailable, "HTTP 200: <html>back soon"),
    ],
)
def test_every_refusal_keeps_the_vendors_own_code(cinder: Cloud, status: int, body: bytes, kind: type[PollyError], words: str) -> None:
    platform = cinder.platform(BARE_METAL)
    assert platform.find("nothing") is None
    with cinder.cinder.refusing(Refusal(status=status, body=body)), pytest.raises(PlatformError, match=words) as refused:
        platform.find("nothing")
    assert type(refused.value) is kind


def test_a_proxy_that_knows_nothing_is_no_proof_that_something_is_gone(cinder: Cloud, bare: CinderPlatform) -> None:
    volume = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"proxy-{os.getpid()}")).external_id
    bare.attach(volume, NODES[0], epoch=1)
    nova, page, kong = cinder.platform(NOVA), b"<html>no such page</html>", b'{"message": "no Route matched with those values"}'
    for wire, body, act in (
        (cinder.cinder, page, lambda: bare.inspect(volume)),
        (cinder.cinder, kong, lambda: bare.delete(volume)),
        (cinder.cinder, page, lambda: bare.detach(volume, NODES[0])),
        (cinder.nova, kong, lambda: nova.node_stopped(cinder.servers[0])),
    ):
        with wire.refusing(Refusal(status=404, body=body)), pytest.raises(PlatformUnavailable, match="HTTP 404: "):
            act()
    assert bare.inspect(volume).held_by == (NODES[0],)
    bare.detach(volume, NODES[0])
    bare.delete(volume)
    nova.close()


def test_a_token_that_is_revoked_in_the_middle_of_a_list_is_replaced_without_anybody_noticing(bare: CinderPlatform, cinder: Cloud) -> None:
    """The servers' disks are older."""
    volume = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"token-{os.getpid()}")).external_id
    first = bare.volumes(limit=1)
    token = str(bare._client._adapter("block-storage").get_token())
    keystone = f"http://127.0.0.1:{cinder.openstack.ports.keystone}/v3/auth/tokens"
    admin = str(cinder.openstack.connect("admin").auth_token)
    assert requests.delete(keystone, headers={"X-Auth-Token": admin, "X-Subject-Token": token}, timeout=30).status_code == 204

    def is_refused() -> bool:
        asked = requests.get(f"{cinder.cinder.url}/v3/types", headers={"X-Auth-Token": token}, timeout=30)
        return asked.status_code == 401

    eventually(is_refused, 10, "Cinder refuses the revoked token")
    rest = bare.volumes(after=first.after, limit=1000)
    assert volume in {one.external_id for one in rest.items} - {one.external_id for one in first.items}
    assert bare._client._adapter("block-storage").get_token() != token


def test_the_doctor_says_what_is_missing(cinder: Cloud, tmp_path: Path) -> None:
    member = cinder.platform(BARE_METAL, pools="backends").check()
    assert [(finding.ok, finding.subject) for finding in member if not finding.ok] == [(False, "the scheduler's pools")]
    assert "needs an administrator" in next(finding.mend for finding in member if not finding.ok)

    (unknown,) = cinder.platform(BARE_METAL, cloud="elsewhere").check()
    assert "elsewhere" in unknown.message

    for text, words in ((None, "cannot be read: No such file"), ("{[", "it is not YAML"), ("{}", "has no `clouds`")):
        file = tmp_path / "spoilt.yaml"
        if text is not None:
            file.write_text(text)
        (spoilt,) = cinder.platform(BARE_METAL, clouds_file=str(file)).check()
        assert f"clouds_file {file} " in spoilt.message
        assert words in spoilt.message

    login = cinder.openstack.login("polly", "polly", "a-wrong-secret")
    wrong = str(cinder.openstack.write_clouds(tmp_path / "clouds.yaml", polly=login))
    (refused,) = cinder.platform(BARE_METAL, clouds_file=wrong).check()
    assert "the credentials are refused" in refused.message
    assert "a-wrong-secret" not in str(refused)


def test_the_doctor_says_that_a_reader_cannot_make_anything(cinder: Cloud, tmp_path: Path) -> None:
    identity = cinder.openstack.connect("admin").identity
    project = identity.find_project("polly", ignore_missing=False)
    user = identity.create_user(name="looker", password="looker-secret", domain_id="default")
    identity.assign_project_role_to_user(project, user, identity.find_role("reader", ignore_missing=False))
    try:
        login = cinder.openstack.login("looker", "polly", "looker-secret")
        clouds = str(cinder.openstack.write_clouds(tmp_path / "clouds.yaml", polly=login))
        wrong = [finding for finding in cinder.platform(BARE_METAL, clouds_file=clouds).check() if not finding.ok]
    finally:
        identity.delete_user(user)
    assert [(finding.subject, finding.message) for finding in wrong] == [("roles", "reader, which may only look")]
    assert "`member`" in wrong[0].mend


def test_the_doctor_says_which_service_does_not_answer(cinder: Cloud, tmp_path: Path) -> None:
    login = cinder.openstack.login("polly", "polly", "user-secret") | {"compute_endpoint_override": "http://127.0.0.1:1/v2.1"}
    dead = str(cinder.openstack.write_clouds(tmp_path / "clouds.yaml", polly=login))
    findings = cinder.platform(NOVA, clouds_file=dead).check()

    assert {finding.subject for finding in findings if not finding.ok} == {"servers", "Nova"}


# --- what somebody does meanwhile -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [False, True])
def test_a_copy_during_which_its_source_was_attached_is_thrown_away(
    cinder: Cloud, bare: CinderPlatform, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """Whoever asked for the copy may be no more when it is made. When Cinder has read the source is not seen, only when it was attached."""
    source = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"source {dies} {os.getpid()}")).external_id
    wanted = CreateRequest(pool=POOL, size_mib=1024, token=f"torn {dies} {os.getpid()}", source=source)
    torn, other = bare._cloning.torn, cinder.platform(BARE_METAL)

    def attach_and_look(clone: Mapping[str, Any]) -> PlatformUnavailable | None:
        monkeypatch.undo()
        other.attach(source, NODES[0], epoch=1)
        other.detach(source, NODES[0])
        if dies:
            raise KeyboardInterrupt
        return torn(clone)

    monkeypatch.setattr(bare._cloning, "torn", attach_and_look)
    if dies:
        with pytest.raises(KeyboardInterrupt):
            bare.create(wanted)
    with pytest.raises(PlatformUnavailable, match="was attached while Cinder copied it, so the copy was thrown away"):
        (other if dies else bare).create(wanted)
    assert bare.find(wanted.token) is None
    clone = other.create(wanted)
    other.attach(source, NODES[0], epoch=2)
    assert bare.create(wanted) == clone, "a clone that was whole was not kept when its source was used again"
    other.detach(source, NODES[0])
    for volume in (clone.external_id, source):
        bare.delete(volume)
    other.close()
