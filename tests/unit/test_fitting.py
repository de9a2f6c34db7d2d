"""Profiles against what platforms can do: refused when a broker starts, with the key, the value and what would be right."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from framework.broker import build_platforms
from framework.config import parse_config
from framework.fitting import check_size, doubles, made_mib, misfits, misfits_in, sizes_in
from storage.errors import Invalid, UnknownPool
from storage.model import AccessMode, Pool, Profile, ReclaimPolicy, Sizes
from storage.platforms.base import Capabilities
from storage.platforms.registry import build
from storage.platforms.testing import MemoryPlatform

PLAIN = MemoryPlatform("plain", capabilities=Capabilities(min_mib=100, max_mib=1000, granularity_mib=8))
ABLE = MemoryPlatform("able", capabilities=Capabilities(snapshots=True, access_modes=frozenset(AccessMode)))
FITS = Profile(name="p", platforms=("plain",), min_mib=50, max_mib=200)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"access_mode": AccessMode.MULTI_NODE_MULTI_WRITER}, "profiles.p.access_mode", "SINGLE_NODE_WRITER"),
        ({"reclaim": ReclaimPolicy.SNAPSHOT_THEN_DELETE}, "profiles.p.reclaim", "no snapshots"),
        ({"min_mib": 2000, "max_mib": None}, "profiles.p.min_mib", "1000 MiB at most"),
        ({"max_mib": 103}, "profiles.p.max_mib", "104 MiB at least"),
        ({"parameters": {"speed": "high"}}, "profiles.p.parameters.speed", "the one parameter is type"),
        (
            {"parameters": {"type": "large"}, "min_mib": 1, "max_mib": 31},
            "profiles.p.max_mib",
            "a volume of type large has 32 MiB at least",
        ),
        ({"parameters": {"type": "large"}, "min_mib": 2049, "max_mib": None}, "profiles.p.min_mib", "2048 MiB at most"),
    ],
)
def test_what_a_named_platform_cannot_do_is_refused(changes: dict[str, object], field: str, words: str) -> None:
    assert list(misfits([FITS], {"plain": PLAIN})) == []
    (misfit,) = misfits([replace(FITS, **changes)], {"plain": PLAIN, "able": ABLE})
    assert misfit.fields["field"] == field
    assert words in str(misfit)
    assert "platform plain" in str(misfit)
    assert "<" not in str(misfit), "what the profile says is shown as it is written"


def test_an_access_mode_that_volumes_with_the_parameters_do_not_have_is_refused() -> None:
    ebs = build("cloud", "ebs", {"region": "eu-central-1", "multi_attach": True})
    profile = Profile(name="p", platforms=("cloud",), access_mode=AccessMode.MULTI_NODE_READER_ONLY)
    parameters = {"type": "io2", "iops": "100", "multiAttach": "true"}
    assert list(misfits([replace(profile, parameters=parameters)], {"cloud": ebs})) == []
    (misfit,) = misfits([replace(profile, parameters={**parameters, "multiAttach": "false"})], {"cloud": ebs})
    assert misfit.fields == {
        "field": "profiles.p.access_mode",
        "value": "MULTI_NODE_READER_ONLY",
        "reason": "platform cloud has SINGLE_NODE_READER_ONLY, SINGLE_NODE_WRITER for volumes with these parameters",
    }


def test_a_profile_without_platforms_needs_one_that_can() -> None:
    anywhere = replace(FITS, platforms=(), reclaim=ReclaimPolicy.SNAPSHOT_THEN_DELETE)
    assert list(misfits([anywhere], {"plain": PLAIN, "able": ABLE})) == []
    assert len(list(misfits([anywhere], {"plain": PLAIN, "other": MemoryPlatform("other", capabilities=PLAIN.capabilities)}))) == 2
    assert list(misfits([anywhere], {})) == []


def test_a_broker_does_not_start_with_a_profile_that_its_platform_cannot_keep(tmp_path: object) -> None:
    document = {
        "platforms": {"disks": {"kind": "local", "root": str(tmp_path), "format": "folder"}},
        "profiles": {"all": {"platforms": ["disks"], "access_mode": "MULTI_NODE_MULTI_WRITER"}},
    }
    with pytest.raises(Invalid, match=r"profiles\.all\.access_mode"):
        build_platforms(parse_config(document))
    document["profiles"] = {"all": {"platforms": ["disks"], "parameters": {"type": "gp3"}}}
    with pytest.raises(Invalid, match=r"profiles\.all\.parameters\.type.*no parameters; so says platform disks"):
        build_platforms(parse_config(document))
    document["profiles"] = {"all": {"platforms": ["disks"]}}
    assert build_platforms(parse_config(document)).keys() == {"disks"}


class Levels(MemoryPlatform):
    """What its pools take is seen only when it is asked."""

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        if pool in ("bronze", "tin"):
            raise Invalid(field="parameters.level", value=parameters.get("level", ""), reason="it has no levels")


def test_what_only_some_pools_refuse_is_told_of_those_that_qualify() -> None:
    pools = [Pool(platform="levels", name=name, capacity_mib=1) for name in ("gold", "bronze", "tin")]
    levelled = replace(FITS, platforms=(), parameters={"level": "high"})
    assert list(misfits([levelled], {"levels": Levels("levels")})) == []
    wrong_everywhere = replace(FITS, platforms=("plain",), parameters={"speed": "high"})
    here = [replace(pool, platform="plain") for pool in pools]
    assert list(misfits_in(here, [wrong_everywhere], PLAIN)) == [], "what stops a broker is told twice"
    assert len(list(misfits_in(here, [replace(wrong_everywhere, platforms=())], PLAIN))) == 1
    (misfit,) = misfits_in(pools, [levelled, replace(levelled, pools=("gold",))], Levels("levels"))
    assert misfit.fields == {
        "field": "profiles.p.parameters.level",
        "value": "high",
        "reason": "it has no levels; so says pool bronze, tin of platform levels",
    }


class Grades(MemoryPlatform):
    """Its pools differ in the sizes of their volumes, and one is not there any more."""

    def sizes(self, parameters: Mapping[str, str], *, pool: str | None = None) -> Sizes:
        if pool == "gone":
            raise UnknownPool(pool=pool, platform=self.name)
        return Sizes(of=f"grade {pool}", min_mib=500) if pool == "coarse" else Sizes(min_mib=10, granularity_mib=10)

    def fit(self, size_mib: int, parameters: Mapping[str, str], *, pool: str | None = None) -> int:
        made = super().fit(size_mib, parameters, pool=pool)
        if parameters and made < 100:
            raise Invalid(field="parameters.type", value=parameters["type"], reason="100 MiB or more may be so")
        return made


def test_a_size_is_refused_that_no_pool_can_give_it() -> None:
    platforms = {"grades": Grades("grades")}
    coarse, fine, gone = [Pool(platform="grades", name=name, capacity_mib=1000) for name in ("coarse", "fine", "gone")]
    profile = Profile(name="p", platforms=("grades",), max_mib=200)
    assert [made_mib(15, profile, platforms["grades"], pool) for pool in ("fine", None)] == [20, 20]
    check_size(15, profile, platforms, [coarse, fine])
    check_size(15, profile, platforms, [])
    with pytest.raises(Invalid, match="size is '15 MiB': platform grades makes it 500 MiB, and profile p allows 200 MiB"):
        check_size(15, profile, platforms, [gone, coarse])
    typed = replace(profile, parameters={"type": "quick"})
    with pytest.raises(Invalid, match=r"profiles\.p\.parameters\.type is 'quick': 100 MiB or more may be so"):
        check_size(15, typed, platforms, [fine])
    check_size(100, typed, platforms, [fine])
    (misfit,) = misfits_in([coarse, fine], [profile], platforms["grades"])
    assert (misfit.fields["field"], "so says pool coarse of" in str(misfit)) == ("profiles.p.max_mib", True)
    (misfit,) = misfits([replace(typed, max_mib=90)], platforms)
    assert (misfit.fields["field"], misfit.fields["value"]) == ("profiles.p.parameters.type", "quick")
    assert [sizes_in(platforms["grades"], {}, pool) for pool in ("fine", "gone")] == [Sizes(min_mib=10, granularity_mib=10), None]


def test_a_profile_is_named_by_its_heading_alone() -> None:
    with pytest.raises(Invalid, match=r"profiles\.fast\.name"):
        parse_config({"profiles": {"fast": {"name": "slow"}}})


EBS = {"kind": "ebs", "region": "eu-central-1"}


@pytest.mark.parametrize(
    ("other", "is_told"),
    [
        (EBS, True),
        ({**EBS, "reads_per_s": 5, "attach_by": "broker"}, True),
        ({**EBS, "region": "us-east-1"}, False),
        ({**EBS, "profile": "another-account"}, False),
        ({**EBS, "regio": "eu-central-1"}, False),
        ({"kind": "gce", "project": "eu-central-1", "zones": ["z1"]}, False),
    ],
)
def test_two_blocks_that_are_one_account_are_told_of(other: dict[str, object], is_told: bool) -> None:
    blocks = parse_config({"platforms": {"a": EBS, "b": other}}).platforms
    pools = [Pool(platform=name, name=pool, capacity_mib=1) for name, pool in (("a", "z1"), ("a", "z2"), ("b", "z2"), ("b", "z3"))]
    said = "platforms a and b are one, region eu-central-1: each gives out all of pool z2"
    assert list(doubles(blocks, pools)) == ([said] if is_told else [])
    assert list(doubles(blocks, pools[:2])) == [], "of pools that are not there nothing is given out"


def test_two_blocks_of_one_account_without_a_pool_or_a_room_in_common_share_nothing() -> None:
    blocks = parse_config(
        {"platforms": {name: {"kind": "local", "root": f"/srv/polly{end}"} for name, end in (("a", ""), ("b", "/"))}}
    ).platforms
    pools = [Pool(platform="a", name="p", capacity_mib=1, room="disk 1"), Pool(platform="b", name="q", capacity_mib=1, room="disk 2")]
    assert list(doubles(blocks, pools)) == []
    (told,) = doubles(blocks, [*pools, Pool(platform="b", name="r", capacity_mib=1, room="disk 1")])
    assert told == "platforms a and b are one, root /srv/polly: each gives out all of what its pools share, disk 1"
