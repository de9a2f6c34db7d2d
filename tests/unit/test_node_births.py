"""What may be done with a device: the table of cases. Formatting needs a new volume and a blank device, and nothing else will do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from storage.errors import NotAsBorn, NotBlank, NotFormatted
from storage.model import Access, Birth, ClaimId, ExternalId, VolumePlan
from storage.node.births import Verdict, filesystem_uuid, judge
from storage.node.probing import Contents
from tests.nodes import plan

NEW = plan()
IMPORTED = plan("claim-7", token="import", external_id=ExternalId("old"))
BLANK = Contents()
OTHER = "11111111-2222-3333-4444-555555555555"
EXT4 = Contents(type="ext4", uuid=OTHER, is_filesystem=True)
KNOWN = Birth(serial="s", filesystem="ext4", filesystem_uuid=OTHER)
FOREIGN = {
    "partition table": Contents(partition_table="gpt"),
    "LUKS": Contents(type="crypto_LUKS", uuid=OTHER),
    "LVM": Contents(type="LVM2_member"),
    "several": Contents(is_ambivalent=True),
    "xfs": Contents(type="xfs", uuid=OTHER, is_filesystem=True),
    "damaged": Contents(type="ext4", uuid=OTHER, is_filesystem=True, is_damaged=True),
    "ext4 in a partition table": Contents(type="ext4", uuid=OTHER, is_filesystem=True, partition_table="dos"),
}


def judged(plan: VolumePlan, contents: Contents, known: Birth | None = None, serial: str = "s") -> Verdict:
    return judge(plan, contents, known=known, serial=serial, device="/dev/x", filesystem="ext4")


def test_a_new_volume_on_a_blank_device_is_formatted() -> None:
    assert judged(NEW, BLANK) is Verdict.FORMAT


@pytest.mark.parametrize("contents", [*FOREIGN.values(), EXT4], ids=[*FOREIGN, "ext4"])
def test_a_new_volume_on_anything_else_is_refused(contents: Contents) -> None:
    with pytest.raises(NotBlank):
        judged(NEW, contents)


def test_a_claim_knows_its_own_filesystem_again_and_no_other_claim_does() -> None:
    ours = replace(EXT4, uuid=filesystem_uuid(NEW))

    assert judged(NEW, ours) is Verdict.FINISHED
    with pytest.raises(NotBlank):
        judged(plan("claim-2"), ours)


@pytest.mark.parametrize(
    "not_ours",
    [
        plan(token="another claim's"),
        plan(access=Access.RO),
        structs.replace(NEW, claim_id=ClaimId("later"), external_id=ExternalId("claim-1")),
    ],
)
def test_who_did_not_create_the_volume_never_formats(not_ours: VolumePlan) -> None:
    with pytest.raises(NotFormatted, match="holds nothing"):
        judged(not_ours, BLANK)


def test_an_imported_volume_is_taken_with_exactly_its_filesystem() -> None:
    assert judged(IMPORTED, EXT4) is Verdict.ADOPT
    for contents in FOREIGN.values():
        with pytest.raises(NotFormatted):
            judged(IMPORTED, contents)


COPIES = [plan(snapshot=ExternalId("snap")), plan(source=ExternalId("vol"))]


@pytest.mark.parametrize("clone", COPIES)
def test_a_copy_is_never_formatted(clone: VolumePlan) -> None:
    assert judged(clone, EXT4) is Verdict.CLONE
    with pytest.raises(NotFormatted):
        judged(clone, BLANK)


@pytest.mark.parametrize("copy", COPIES)
def test_a_reader_makes_a_volume_only_as_a_copy(copy: VolumePlan) -> None:
    clone, nothing = structs.replace(copy, access=Access.RO), plan(access=Access.RO)
    assert clone.may_create
    assert not clone.may_format
    assert judged(clone, EXT4) is Verdict.CLONE
    assert not nothing.may_create


def test_a_born_volume_is_taken_only_as_it_was_born() -> None:
    assert judged(NEW, EXT4, KNOWN) is Verdict.BORN
    for contents in [*FOREIGN.values(), BLANK, replace(EXT4, uuid="other")]:
        with pytest.raises(NotAsBorn):
            judged(NEW, contents, KNOWN)
    with pytest.raises(NotAsBorn, match="serial is 't', recorded was 's'"):
        judged(NEW, EXT4, KNOWN, serial="t")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (BLANK, "nothing"),
        (EXT4, f"the ext4 filesystem with UUID {OTHER}"),
        (FOREIGN["damaged"], f"a damaged ext4 filesystem with UUID {OTHER}"),
        (FOREIGN["ext4 in a partition table"], f"a dos partition table and the ext4 filesystem with UUID {OTHER}"),
        (FOREIGN["several"], "several signatures that exclude each other"),
        (FOREIGN["LVM"], "the LVM2_member signature"),
    ],
)
def test_contents_are_said_in_words(contents: Contents, words: str) -> None:
    assert str(contents) == words
