"""A process that asks for one medium for one VM: `python -m tests.contract.virtualbox_asker SETTINGS VOLUME NODE`, then a line to begin."""

from __future__ import annotations

import json
import sys

from storage.errors import VolumeInUse
from storage.model import ExternalId
from storage.platforms.registry import build


def main() -> None:
    settings, volume, node = sys.argv[1:]
    platform = build("vbox", "virtualbox", json.loads(settings))
    print(platform.inspect(ExternalId(volume)).external_id, flush=True)
    for line in sys.stdin:
        try:
            if line.strip() == "attach":
                platform.attach(ExternalId(volume), node, epoch=1)
            else:
                platform.detach(ExternalId(volume), node)
        except VolumeInUse:
            print("refused", flush=True)
        else:
            print("done", flush=True)
    platform.close()


main()
