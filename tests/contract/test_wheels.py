"""A third party's adapter: Polly's wheels hold all that it takes to keep the contract, and to be found by `polly`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import leave_out
from tests.wheels import Environment, Failed, build_wheel, try_out

PROJECT = Path(__file__).parents[2]


def test_an_adapter_of_a_third_party_keeps_the_contract_and_is_found_by_its_entry_point(tmp_path: Path) -> None:
    environment, dist = Environment(tmp_path), tmp_path / "dist"
    for source in (PROJECT, PROJECT / "packaging" / "http-parser"):
        build_wheel(source, dist)
    install, suite = environment.documented(dist)
    try:
        environment.run(install, environment.source)
    except Failed as error:
        leave_out(f"pip cannot install what Polly needs into an empty environment: {error}")
    passed = re.search(r"(\d+) passed, \d+ skipped in", try_out(environment, suite))
    assert passed
    assert int(passed[1]) > 30
