"""What an array's password and session are never sent to: another host that a redirect names, or a proxy of the environment's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from storage.errors import PlatformUnavailable
from storage.platforms.registry import build
from tests.peers.certificates import certified
from tests.peers.loopback import Asked, Reply, served

KINDS: Mapping[str, Mapping[str, object]] = {
    "powerflex": {},
    "powermax": {"array": "000220200123", "port_group": "polly"},
    "powerscale": {"base_path": "/ifs/data/polly"},
    "xtremio": {"cluster": "brick1"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_and_a_proxy_get_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, status: int) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    asked: list[str] = []
    elsewhere: list[Asked] = []
    ca_file, password_file = tmp_path / "ca.pem", tmp_path / "password"
    password_file.write_text("not-a-real-secret")
    tls = certified(ca_file)

    def take(it: Asked) -> Reply:
        elsewhere.append(it)
        return Reply(status=200)

    with served(take, name="elsewhere", tls=tls) as target:

        def redirect(it: Asked) -> Reply:
            asked.append(it.target)
            return Reply(status=status, headers=[("Location", f"{target}{it.target}")])

        with served(redirect, name="array", tls=tls) as url:
            address = "gateway" if kind == "powerflex" else "endpoint"
            settings = {address: url, "username": "polly", "password_file": str(password_file), "ca_file": str(ca_file), **KINDS[kind]}
            platform = build("array", kind, settings)
            with pytest.raises(PlatformUnavailable):
                platform.pools()
            platform.close()
    assert asked, "a proxy was asked, not the array"
    assert elsewhere == []
