"""200 instances come and go for some minutes under random kills. POLLY_SOAK_SEED replays a run, POLLY_SOAK_S makes it longer."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.cluster.rig import Rig
from tests.cluster.soak import AGENTS, Soak, make_plan

SECONDS = float(os.environ.get("POLLY_SOAK_S", "150"))
SEED = int(os.environ.get("POLLY_SOAK_SEED", "1"))
INSTANCES = int(os.environ.get("POLLY_SOAK_INSTANCES", "200"))


def test_a_plan_is_its_seeds_alone() -> None:
    first, again, other = (make_plan(seed, seconds=150, instances=200) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    biggest = {step.app: 0 for step in first if step.app}
    for step in first:
        if step.app:
            biggest[step.app] = max(biggest[step.app], step.number)
    assert sum(biggest.values()) == 200
    assert {"kill broker", "kill executor", "kill task", "lose machine", "delete"} <= {step.verb for step in first}


@pytest.mark.cluster
@pytest.mark.root
def test_instances_come_and_go_under_random_kills(make_rig: Callable[..., Rig]) -> None:
    plan = make_plan(SEED, seconds=SECONDS, instances=INSTANCES)
    print(f"POLLY_SOAK_SEED={SEED} POLLY_SOAK_S={SECONDS:g} POLLY_SOAK_INSTANCES={INSTANCES}", *plan, sep="\n")
    soak = Soak(make_rig(AGENTS, registry="replicated_log", resources="cpus:32;mem:32768;disk:20480;ports:[31000-32000]"), plan)
    soak.run()
    soak.all_is_well()
    soak.end()
