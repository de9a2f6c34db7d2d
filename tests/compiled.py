"""`python -m tests.compiled plain`, or `compiled`: a digest of what matching makes of many random worlds with modules of that kind.

`make test-compiled` compares the two.
"""

from __future__ import annotations

import hashlib
import sys

from hypothesis import HealthCheck, Phase, given, seed, settings

from framework.build import is_compiled
from offers.matching import Matching
from tests.bench.matching import offers_event, ours, pending, storage_view
from tests.property.test_offers_matching import World, worlds

WORLDS = 500


def told(matching: Matching) -> bytes:
    """All that a call of `match` says; the tallies are counted by being looked at."""
    return repr((matching.matches, dict(matching.tallies), matching.unused)).encode()


def main(which: str) -> None:
    if is_compiled() is not (which == "compiled"):
        sys.exit(f"the modules that were to be {which} are not")
    digest = hashlib.sha256()

    @seed(1)
    @settings(max_examples=WORLDS, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(worlds())
    def look(world: World) -> None:
        digest.update(told(world.match()))

    look()
    _, matching = ours(offers_event(), pending(), storage_view())
    digest.update(told(matching))
    print(digest.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1])
