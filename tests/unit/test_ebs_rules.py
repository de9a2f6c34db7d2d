"""What the adapter for EBS refuses before it calls anything, how it names what EC2 refuses, and what it keeps in tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import (
    Conflict,
    Invalid,
    NoSlot,
    PlatformError,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownPool,
    UnknownSnapshot,
    UnknownVolume,
    VolumeInUse,
)
from storage.model import Birth
from storage.platforms.ebs import EbsOptions, ids, listing, tags, volume_types
from storage.platforms.ebs.device_names import NAMES, DeviceNames
from storage.platforms.ebs.failures import CODES, Doing, NameTaken, named
from storage.platforms.ebs.tags import Holding
from storage.platforms.ebs.views import Instance, Volume
from storage.platforms.marks import Mark
from storage.platforms.options import read_options, write_options
from storage.platforms.registry import build

GIB = 1024
DOING = Doing(platform="cloud", action="do it", volume="vol-1", snapshot="snap-1", node="i-1", pool="us-east-1a", size_mib=2048, slots=27)


# --- sizes and parameters --------------------------------------------------------------------------------------


def settings(size_gib: int, *, from_snapshot: bool = False, **parameters: str) -> dict[str, Any]:
    return asked_of_ec2(size_gib, parameters, from_snapshot=from_snapshot)


def asked_of_ec2(size_gib: int, parameters: Mapping[str, str], *, from_snapshot: bool = False) -> dict[str, Any]:
    return volume_types.settings(parameters, volume_types.fit(size_gib * GIB, parameters), from_snapshot=from_snapshot)


def test_a_profile_becomes_what_ec2_is_asked() -> None:
    assert settings(10) == {"Size": 10, "VolumeType": "gp3"}
    assert settings(100, type="gp3", iops="6000", throughput="500", encrypted="true", kmsKeyId="alias/data") == {
        "Size": 100,
        "VolumeType": "gp3",
        "Iops": 6000,
        "Throughput": 500,
        "Encrypted": True,
        "KmsKeyId": "alias/data",
    }
    assert settings(10, type="io2", iops="10000", multiAttach="true")["MultiAttachEnabled"] is True
    assert settings(10, from_snapshot=True, volumeInitializationRate="200")["VolumeInitializationRate"] == 200
    assert settings(10, volumeInitializationRate="200") == settings(10), "a profile that has one makes empty volumes and clones too"


@pytest.mark.parametrize(
    ("size_gib", "parameters", "words"),
    [
        (10, {"sort": "gp3"}, "parameters.sort is 'gp3': the parameters are type, iops, throughput, encrypted, kmsKeyId"),
        (10, {"type": "zz9"}, "parameters.type is 'zz9': the types are gp3, gp2, io1, io2, st1, sc1, standard"),
        (65537, {}, "a volume of type gp3 has at most 67108864 MiB"),
        (1025, {"type": "standard"}, "a volume of type standard has at most 1048576 MiB"),
        (10, {"iops": "fast"}, "parameters.iops is 'fast': it must be a whole number"),
        (10, {"iops": "2999"}, "parameters.iops is 2999: type gp3 has 3000 to 80000"),
        (1000, {"iops": "80001"}, "parameters.iops is 80001: type gp3 has 3000 to 80000"),
        (10, {"iops": "5001"}, "10 GiB of type gp3 have at most 5000, 500 for each GiB; it needs 11 GiB or more"),
        (1, {"type": "io1", "iops": "201"}, "4 GiB of type io1 have at most 200, 50 for each GiB; it needs 5 GiB or more"),
        (10, {"type": "io2"}, "parameters.iops is '': type io2 needs it: 100 to 256000"),
        (10, {"type": "gp2", "iops": "3000"}, "type gp2 takes none; gp3, io1 and io2 do"),
        (10, {"type": "gp2", "throughput": "250"}, "parameters.throughput is 250: type gp2 takes none; gp3 does"),
        (10, {"throughput": "124"}, "type gp3 has 125 to 2000 MiB/s"),
        (10, {"throughput": "751"}, "with 3000 IOPS it is at most 750 MiB/s, 0.25 for each"),
        (10, {"encrypted": "yes"}, "parameters.encrypted is 'yes': it must be true or false"),
        (10, {"kmsKeyId": "alias/x"}, "it needs encrypted = true"),
        (10, {"encrypted": "true", "kmsKeyId": ""}, "it must be a key's id, alias or ARN"),
        (10, {"multiAttach": "true"}, "type gp3 is attached to one instance; io1 and io2 can more"),
        (10, {"volumeInitializationRate": "99"}, "it is 100 to 300 MiB/s"),
    ],
)
def test_what_ec2_would_refuse_is_refused_before(size_gib: int, parameters: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        asked_of_ec2(size_gib, parameters)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "size_gib"),
    [({}, 1), ({"type": "io1", "iops": "200"}, 4), ({"type": "io2", "iops": "4000"}, 4), ({"type": "st1"}, 125), ({"type": "sc1"}, 125)],
)
def test_a_volume_that_is_too_small_for_its_type_becomes_its_smallest(parameters: dict[str, str], size_gib: int) -> None:
    assert asked_of_ec2(1, parameters)["Size"] == size_gib
    assert volume_types.fit(size_gib * GIB + 1, parameters) == (size_gib + 1) * GIB


def test_the_smallest_volume_may_have_the_baseline() -> None:
    assert settings(1, iops="3000", throughput="750")["Iops"] == 3000


# --- ids, names, options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "vol-", "vol-xyz", "vol-0123456789abcdef01", "VOL-01234567", "vol-01234567\n", "i-01234567"])
def test_what_has_not_the_form_of_an_id_is_unknown(text: str) -> None:
    with pytest.raises(UnknownVolume):
        ids.volume(text)
    with pytest.raises(UnknownSnapshot):
        ids.snapshot(text)


@given(st.text())
def test_ec2s_token_fits_whatever_ours_is(token: str) -> None:
    assert len(ids.client_token(token)) == 64
    assert ids.client_token(token) != ids.client_token(f"{token}x")


def test_device_names_are_those_that_nothing_else_uses() -> None:
    assert (NAMES[0], NAMES[-1], len(NAMES), len(set(NAMES))) == ("/dev/xvdaa", "/dev/xvddx", 102, 102)


def test_a_name_is_not_given_twice_and_comes_free_again() -> None:
    names = DeviceNames()
    first = names.take("cloud", "i-1", "vol-1")
    assert names.take("cloud", "i-1", "vol-1") == first
    assert names.take("cloud", "i-2", "vol-1") == first
    others = {names.take("cloud", "i-1", f"vol-{number}") for number in range(2, 27)}
    assert len(others - {first}) == 25
    assert names.take("cloud", "i-1", "vol-1", {first}) not in {first, *others}
    for number in range(1, 27):
        names.give_back("i-1", f"vol-{number}")
    names.give_back("i-1", "vol-1")
    assert names.take("cloud", "i-1", "vol-1") == first
    with pytest.raises(NoSlot):
        names.take("cloud", "i-1", "vol-1", NAMES)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "platforms.cloud.region is '': it must be given"),
        ({"region": "frankfurt"}, "a region's name, such as eu-central-1"),
        ({"zones": ["a b"]}, "availability zones, such as eu-central-1a"),
        ({"endpoint_url": "ec2.amazonaws.com"}, "an address such as https://"),
        ({"endpoint_url": "https://me:secret@ec2.example.org"}, "credentials do not belong in an address"),
        ({"credentials_file": "aws/credentials"}, "an absolute path"),
        ({"capacity_gib": 0}, "it must be 1 or more"),
        ({"access_key": "AKIA"}, "there is no such key"),
    ],
)
def test_wrong_keys_are_refused_in_words(given: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        build("cloud", "ebs", ({"region": "eu-central-1"} | given) if given else {})
    assert words in str(caught.value)


def test_settings_travel_and_come_back() -> None:
    given = {"region": "eu-central-1", "zones": ["eu-central-1a", "eu-central-1b"], "profile": "storage", "multi_attach": True}
    options = read_options(EbsOptions, "platforms.cloud", given)

    assert read_options(EbsOptions, "platforms.cloud", write_options(options)) == options
    assert build("cloud", "ebs", given).settings()["zones"] == "eu-central-1a,eu-central-1b"


@pytest.mark.parametrize("region", ["us-gov-west-1", "cn-north-1", "ap-southeast-4", "eusc-de-east-1", "us-iso-east-1"])
def test_regions_of_all_partitions_are_regions(region: str) -> None:
    assert build("cloud", "ebs", {"region": region}).settings() == {"region": region}


def test_wildcards_stand_for_themselves() -> None:
    assert listing.exactly("a*b?c\\d") == "a\\*b\\?c\\\\d"


# --- tags ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=12))
def test_marks_written_in_any_order_only_grow(came: list[tuple[int, bool]]) -> None:
    kept: dict[str, str] = {}
    for epoch, reads in came:
        kept |= tags.of_mark(Mark(epoch=epoch, floor=0 if reads else epoch))
    wanted = Mark(epoch=max([epoch for epoch, _ in came], default=0), floor=max([epoch for epoch, reads in came if not reads], default=0))
    assert tags.mark(kept) == wanted
    for key in tags.outdated(kept, ()):
        del kept[key]
    assert tags.mark(kept) == wanted


def test_tags_that_people_wrote_are_no_marks() -> None:
    assert tags.mark({"polly:epoch:x": "", "polly:epoch:": "", "polly:epoch:-3": "", "polly:epoch:²": ""}) == Mark()
    assert tags.birth({tags.BIRTH: "nonsense"}) is None
    assert tags.labels({"Name": "x", "polly:token": "y", "aws:autoscaling": "z", "team": "shop"}) == {"team": "shop"}


def test_a_birth_certificate_comes_back() -> None:
    birth = Birth(serial="vol0123456789abcdef0", filesystem="ext4", filesystem_uuid="6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10")
    assert tags.birth({tags.BIRTH: tags.of_birth(birth)}) == birth
    assert len(tags.of_birth(birth)) < tags.MOST_VALUE


def test_holders_are_kept_apart_by_epoch() -> None:
    first, second = Holding(epoch=9, read_only=False), Holding(epoch=10, read_only=True)
    kept = tags.holder("i-1", first) | tags.holder("i-1", second) | tags.holder("i-12", first)

    assert tags.holdings(kept, "i-1") == [second, first]
    assert tags.holders(kept, "i-1") == ["polly:holder:i-1:9", "polly:holder:i-1:10"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"token": ""}, "token is '': it must not be empty"),
        ({"token": "x" * 257}, "at most 256 printable characters"),
        ({"name": "two\nlines"}, "it becomes a tag"),
        ({"labels": {"Name": "x"}}, "Name, polly:* and aws:* are not free"),
        ({"labels": {"polly:epoch:9": ""}}, "are not free"),
        ({"labels": {"AWS:x": ""}}, "are not free"),
        ({"labels": {"x" * 129: ""}}, "1 to 128 printable characters"),
        ({"labels": {"team": "x" * 257}}, "labels.team"),
        ({"labels": {f"l{number}": "" for number in range(31)}}, "at most 30 labels"),
    ],
)
def test_what_a_tag_cannot_hold_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        tags.at_creation(**({"token": "t", "name": "n", "labels": {}} | wrong))
    assert words in str(caught.value)


# --- failures --------------------------------------------------------------------------------------------------------


def refused(code: str, message: str = "EC2 says so.") -> PollyError:
    return named(ClientError({"Error": {"Code": code, "Message": message}}, "Action"), DOING)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InvalidVolume.NotFound", UnknownVolume),
        ("InvalidVolumeID.Malformed", UnknownVolume),
        ("InvalidSnapshot.NotFound", UnknownSnapshot),
        ("InvalidInstanceID.NotFound", Invalid),
        ("InvalidInstanceID.Malformed", Invalid),
        ("InvalidZone.NotFound", UnknownPool),
        ("InvalidVolume.ZoneMismatch", Invalid),
        ("InvalidParameterValue", Invalid),
        ("InvalidParameterCombination", Invalid),
        ("MissingParameter", Invalid),
        ("UnknownVolumeType", Invalid),
        ("TagLimitExceeded", Invalid),
        ("VolumeInUse", VolumeInUse),
        ("AttachmentLimitExceeded", NoSlot),
        ("VolumeLimitExceeded", PoolFull),
        ("MaxIOPSLimitExceeded", PoolFull),
        ("SnapshotLimitExceeded", PoolFull),
        ("IncorrectState", Conflict),
        ("IncorrectInstanceState", Conflict),
        ("IncorrectModificationState", Conflict),
        ("InvalidAttachment.NotFound", Conflict),
        ("IdempotentParameterMismatch", Conflict),
        ("InvalidSnapshot.InUse", Conflict),
        ("VolumeModificationRateExceeded", PlatformError),
        ("ConcurrentSnapshotLimitExceeded", PlatformUnavailable),
        ("RequestLimitExceeded", PlatformUnavailable),
        ("SnapshotCreationPerVolumeRateExceeded", PlatformUnavailable),
        ("UnauthorizedOperation", PlatformError),
        ("AuthFailure", PlatformUnavailable),
        ("ExpiredToken", PlatformUnavailable),
        ("RequestExpired", PlatformUnavailable),
        ("InternalError", PlatformUnavailable),
        ("502", PlatformUnavailable),
        ("SomethingNew", PlatformError),
    ],
)
def test_every_code_has_an_error_that_keeps_it(code: str, kind: type[PollyError]) -> None:
    error = refused(code)
    assert (type(error), str(error.fields["reason"]).startswith(code)) == (kind, True)


@pytest.mark.parametrize("code", sorted(CODES))
def test_no_code_of_the_table_loses_itself_or_fails(code: str) -> None:
    assert str(refused(code).fields["reason"]).startswith(f"{code}: EC2 says so.")


def test_a_code_without_a_text_is_enough() -> None:
    answer: Any = {"Error": {"Code": "InvalidSnapshot.NotFound", "Message": None}}
    assert named(ClientError(answer, "Action"), DOING).fields["reason"] == "InvalidSnapshot.NotFound"


def test_a_name_in_use_is_told_from_other_values() -> None:
    assert type(refused("InvalidParameterValue", "Attachment point /dev/xvdba is already in use")) is NameTaken
    assert type(refused("InvalidParameterValue", "too small")) is Invalid


def test_long_texts_key_ids_and_riddles_are_left_out() -> None:
    said = str(refused("AccessDenied", f"ASIAABCDEFGHIJKLMNOP may not. Encoded authorization failure message: {'x' * 900}"))
    assert ("ASIA..." in said, "ABCDEFGH" in said, "xxxx" in said) == (True, False, False)
    assert len(str(refused("SomethingNew", "y" * 5000))) < 500


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (NoCredentialsError(), "no credentials were found"),
        (EndpointConnectionError(endpoint_url="https://ec2.x"), "EndpointConnectionError"),
        (ReadTimeoutError(endpoint_url="https://ec2.x"), "ReadTimeoutError"),
        (ResponseParserError("Unable to parse response, <html>"), "the answer makes no sense"),
    ],
)
def test_the_sdks_own_failures_mean_ask_again(failure: Exception, words: str) -> None:
    error = named(failure, DOING)
    assert (type(error), words in str(error)) == (PlatformUnavailable, True)


@pytest.mark.parametrize(
    ("code", "configured", "hibernated"),
    [
        ("Client.UserInitiatedHibernate", True, True),
        ("Client.UserInitiatedShutdown", True, False),
        ("Client.InstanceInitiatedShutdown", True, False),
        ("Server.SpotInstanceShutdown", True, True),
        ("", True, True),
        ("Server.SpotInstanceShutdown", False, False),
        ("", False, False),
    ],
)
def test_an_instance_that_may_have_been_hibernated_is_not_taken_for_stopped(code: str, configured: bool, hibernated: bool) -> None:
    """EC2 says `stopped` of both; a Spot Instance that it took back may have been hibernated where that was configured."""
    described = {"InstanceId": "i-01234567", "State": {"Name": "stopped"}, "HibernationOptions": {"Configured": configured}}
    assert Instance.of({**described, **({"StateReason": {"Code": code}} if code else {})}).hibernated is hibernated


@pytest.mark.parametrize(
    ("attachment", "held_by"),
    [
        ({"InstanceId": "i-1", "State": "attached"}, ("i-1",)),
        ({"AssociatedResource": "arn:aws:ecs:eu-central-1:1:task/x", "State": "attached"}, ("arn:aws:ecs:eu-central-1:1:task/x",)),
        ({"InstanceOwningService": "ecs.amazonaws.com", "State": "attached"}, ("ecs.amazonaws.com",)),
        ({"State": "attached"}, ("somebody whom EC2 does not name",)),
        ({"InstanceId": "i-1", "State": "a-state-of-2030"}, ("i-1",)),
        ({"InstanceId": "i-1", "State": "detached"}, ()),
    ],
)
def test_whoever_has_a_volume_is_named(attachment: dict[str, str], held_by: tuple[str, ...]) -> None:
    """What Amazon itself runs is no instance of the account's; a state that is new may be one in which something is written."""
    assert Volume.of({"VolumeId": "vol-0123456789abcdef0", "Size": 1, "Attachments": [attachment]}).report().held_by == held_by
