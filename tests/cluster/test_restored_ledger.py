"""A ledger that is restored from a backup of the moment at which a volume was claimed and not yet made; since then it was used."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

MakeRig = Callable[..., Rig]


def used_since_the_backup(rig: Rig, app: Mapping[str, Any]) -> None:
    """Runs the counter until it has counted to 2, with a backup taken before its volume was made, which is then restored."""
    files = [rig.folder / f"polly.db{end}" for end in ("", "-wal", "-shm")]
    backup = rig.folder / "backup"
    rig.start_broker(die_at="after:ACCEPT")
    rig.run(app)
    assert rig.died() == -9
    backup.mkdir()
    for file in files:
        if file.exists():
            shutil.copy(file, backup)
    rig.start_broker()
    first = rig.running()[0]
    assert rig.count(first["id"]) == 1
    rig.scale("/counter", 0)
    eventually(lambda: not rig.claims(), 20, "the claim ends")
    rig.scale("/counter", 1)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    rig.scale("/counter", 0)
    eventually(lambda: not rig.claims(), 20, "the claim ends")
    rig.kill_broker()
    for file in files:
        file.unlink(missing_ok=True)
        if (backup / file.name).exists():
            shutil.copy(backup / file.name, file)


def the_image(rig: Rig) -> Path:
    (image,) = rig.images.rglob("*.img")
    return image


def test_a_broker_that_is_told_so_finds_the_data_again(make_rig: MakeRig) -> None:
    rig = make_rig(1)
    used_since_the_backup(rig, counter())
    image = the_image(rig)
    rig.start_broker("--restored")
    assert rig.count(rig.running()[0]["id"]) == 3
    assert [volume.external_id for volume in rig.volumes()] == [image.stem]
    rig.settle()


def test_a_broker_that_is_not_told_so_deletes_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(1)
    used_since_the_backup(rig, counter())
    image = the_image(rig)
    rig.start_broker()
    assert rig.count(rig.running()[0]["id"]) == 1, "a volume of its own, beside the one that this ledger does not know"
    eventually(lambda: "Start the broker once with --restored" in rig.log.read_text(), 20, "the broker says what it has found")
    assert image.exists()
    with rig.ledger() as ledger:
        assert ledger.orphans() == []
