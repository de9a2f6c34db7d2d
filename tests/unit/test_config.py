"""polly.toml: what is read, and the sentence that each mistake gets."""

import math
import re
from pathlib import Path

import pytest

from framework.broker import build_platforms
from framework.config import UnreadableConfig, check_against, load_config, parse_config
from storage.errors import Invalid, PollyError
from storage.model import AccessMode, ReclaimPolicy
from storage.platforms.base import Capabilities
from storage.platforms.testing import MemoryPlatform

WHOLE = """
[framework]
name = "shop"
roles = ["shop", "*"]

[executor]
command = ["/usr/bin/python3", "/opt/polly-executor.pyz"]
mem_mib = 48

[claims]
lease_s = 30

[ledger]
keep_events_days = 90

[platforms.disks]
kind = "local"
root = "/srv/polly"
agent_attribute = "rack"
agent_pattern = "a|b"
overcommit = 1.5
slots_per_node = 16

[profiles.fast]
platforms = ["disks"]
filesystem = "xfs"
mkfs_options = ["-m", "reflink=1"]
access_mode = "SINGLE_NODE_WRITER"
reclaim = "snapshot-then-delete"
min_mib = 300
parameters = { type = "gp3" }
"""


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "polly.toml"
    path.write_text(WHOLE)
    config = load_config(path)
    assert config.framework.roles == ("shop", "*")
    assert config.executor.command[0] == "/usr/bin/python3"
    assert config.claims.lease_s == 30
    assert config.ledger.keep_events_days == 90
    disks = config.platforms["disks"]
    assert dict(disks.settings) == {"root": "/srv/polly"}
    assert (disks.keys.agent_attribute, disks.keys.overcommit, disks.keys.slots_per_node) == ("rack", 1.5, 16)
    fast = config.profile("fast")
    assert (fast.filesystem, fast.reclaim, fast.access_mode) == ("xfs", ReclaimPolicy.SNAPSHOT_THEN_DELETE, AccessMode.SINGLE_NODE_WRITER)
    assert fast.parameters == {"type": "gp3"}


def test_an_empty_file_is_a_broker_without_storage() -> None:
    config = parse_config({})
    assert (config.framework.name, dict(config.platforms), dict(config.profiles)) == ("polly", {}, {})
    assert config.ledger.keep_events_days is None


@pytest.mark.parametrize(
    ("document", "error", "words"),
    [
        ({"platfroms": {}}, Invalid, "platfroms"),
        (
            {"framework": {"rolle": "x"}},
            Invalid,
            "framework.rolle is 'x': there is no such key; the keys are failover_timeout_s, hostname, ",
        ),
        ({"claims": {"lease_s": "long"}}, Invalid, "claims.lease_s is 'long': it must be a number, not text in quotes"),
        ({"executor": {"command": ["x", 7]}}, Invalid, "executor.command[1] is ['x', 7]: it must be text in quotes, not a whole number"),
        (
            {"profiles": {"p": {"access_mode": "SOMEHOW"}}},
            Invalid,
            "profiles.p.access_mode is 'SOMEHOW': it is one of SINGLE_NODE_WRITER, ",
        ),
        (
            {"profiles": {"p": {"reklaim": "retain"}}},
            Invalid,
            "profiles.p.reklaim is 'retain': there is no such key; the keys are access_mode, ",
        ),
        ({"platforms": {"p": {"root": "/x"}}}, Invalid, "kind"),
        ({"platforms": {"p": {"kind": "local", "agent_pattern": "("}}}, Invalid, "platforms.p.agent_pattern"),
        (
            {"platforms": {"p": {"kind": "local", "attach_by": "agent"}}},
            Invalid,
            "platforms.p.attach_by is 'agent': it is executor or broker",
        ),
        ({"platforms": {"p": {"kind": "local", "overcommit": 0}}}, Invalid, "platforms.p.overcommit is 0: it must be more than 0"),
        ({"platforms": {"p": {"kind": "local", "overcommit": math.nan}}}, Invalid, "platforms.p.overcommit is nan"),
        ({"platforms": {"p": {"kind": "local", "overcommit": math.inf}}}, Invalid, "overcommit is inf: it must be at most 1000"),
        ({"platforms": {"p": {"kind": "local", "reserve_mib": -1}}}, Invalid, "platforms.p.reserve_mib is -1: it must be at least 0"),
        ({"platforms": {"p": {"kind": "local", "slots_per_node": -1}}}, Invalid, "platforms.p.slots_per_node is -1"),
        ({"claims": {"lease_s": 0}}, Invalid, "claims.lease_s is 0: it must be more than 0"),
        ({"claims": {"fence_retry_s": math.nan}}, Invalid, "claims.fence_retry_s is nan"),
        ({"framework": {"failover_timeout_s": math.inf}}, Invalid, "failover_timeout_s is inf: it must be at most 1000000000"),
        ({"ledger": {"keep_events_days": 0.5}}, Invalid, "ledger.keep_events_days is 0.5: it must be at least 1"),
        ({"ledger": {"keep_events_days": "90d"}}, Invalid, "ledger.keep_events_days is '90d': it must be a number, not text in quotes"),
        ({"framework": {"roles": []}}, Invalid, "framework.roles is []: it must not be empty"),
        ({"executor": {"command": []}}, Invalid, "executor.command is []: it must not be empty"),
        ({"executor": {"cpus": -1}}, Invalid, "executor.cpus is -1: it must be at least 0"),
        ({"profiles": {"f": {"min_mib": -1}}}, Invalid, "profiles.f.min_mib is -1: it must be 1 to 8796093022208"),
        ({"profiles": {"f": {"max_mib": 2**44}}}, Invalid, "profiles.f.max_mib is 17592186044416"),
        ({"platforms": {"bad name": {"kind": "local"}}}, Invalid, "bad name"),
        ({"platforms": {"p": 7}}, Invalid, "platforms.NAME"),
        ({"profiles": {"f": {"filesystem": "ntfs"}}}, Invalid, "profiles.f.filesystem"),
        ({"profiles": {"f": {"mkfs_options": ["-F", "x"]}}}, Invalid, "profiles.f.mkfs_options"),
        ({"profiles": {"f": {"mount_options": ["suid"]}}}, Invalid, "profiles.f.mount_options"),
        ({"profiles": {"f": {"filesystem": "xfs", "max_mib": 20}}}, Invalid, "profiles.f.max_mib"),
        ({"profiles": {"f": {"reclaim": "burn"}}}, Invalid, "profiles.f.reclaim"),
        ({"profiles": {"f": {"min_mib": 5, "max_mib": 4}}}, Invalid, "profiles.f.max_mib"),
        (
            {"profiles": {"f": {"platforms": ["nowhere"]}}},
            Invalid,
            "profiles.f.platforms is 'nowhere': there is no block",
        ),
        ({"platforms": {"d": {"root": "/srv"}}}, Invalid, "platforms.d.kind is '': it must be given; known kinds are"),
        (
            {"profiles": {"f": {"max_mib": "10GiB"}}},
            Invalid,
            "f.max_mib is '10GiB': it must be a whole number, not text in quotes",
        ),
    ],
)
def test_mistakes_name_the_key(document: dict[str, object], error: type[PollyError], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        parse_config(document)


def test_mount_options_must_fit_what_a_profiles_platform_brings() -> None:
    nas = MemoryPlatform("nas", capabilities=Capabilities(device="nfs"))
    document = {"platforms": {"nas": {"kind": "memory"}}, "profiles": {"f": {"platforms": ["nas"], "mount_options": ["discard"]}}}
    with pytest.raises(Invalid, match=r"profiles\.f\.mount_options is 'discard'.*platform nas brings NFS exports"):
        check_against(parse_config(document), {"nas": nas})
    document["profiles"] = {"f": {"platforms": ["nas"], "mount_options": ["vers=4.1"]}, "any": {"mount_options": ["discard"]}}
    check_against(parse_config(document), {"nas": nas})
    with pytest.raises(Invalid, match=r"profiles\.f\.mount_options is 'vers=4\.1'.*platform nas brings disks"):
        check_against(parse_config(document), {"nas": MemoryPlatform("nas")})


def test_a_platform_whose_hold_ends_with_its_process_is_not_attached_by_the_broker(tmp_path: Path) -> None:
    document = {"platforms": {"p": {"kind": "local", "attach_by": "broker", "root": str(tmp_path)}}}
    with pytest.raises(Invalid, match=r"platforms\.p\.attach_by is 'broker': .* must be on the node"):
        build_platforms(parse_config(document))
    document["platforms"]["p"]["attach_by"] = "executor"
    assert list(build_platforms(parse_config(document))) == ["p"]


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(UnreadableConfig, match="No such file"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("= nothing")
    with pytest.raises(UnreadableConfig, match="not TOML"):
        load_config(tmp_path / "bad.toml")
