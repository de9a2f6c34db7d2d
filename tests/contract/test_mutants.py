"""The contract suite is tried itself: on adapters broken on purpose, each of which one rule must catch."""

from __future__ import annotations

import pytest

from storage.platforms.base import Platform
from storage.platforms.testing import MemoryPlatform, MemoryStorage
from tests.contract.mutants import MUTANTS, SECRET
from tests.contract.test_memory import POOLS
from tests.contract.test_memory import TestMemory as HealthyMemory

RULES = sorted(name for name in dir(HealthyMemory) if name.startswith("test_"))


def case_of(kind: type[MemoryPlatform]) -> HealthyMemory:
    class Case(HealthyMemory):
        many = 20
        secrets = (SECRET,)

        def make(self, storage: MemoryStorage) -> Platform:
            return kind(storage=storage)

    return Case()


def broken(kind: type[MemoryPlatform], rule: str) -> Exception | None:
    """How the rule fails on such an adapter; None if it holds. A rule that is left out fails this test."""
    case = case_of(kind)
    try:
        with case.opened(storage := MemoryStorage(pools=POOLS)) as arena:
            assert arena.storage is storage
            getattr(case, rule)(arena)
    except pytest.skip.Exception as skipped:
        pytest.fail(f"{rule} was left out: {skipped}")
    except Exception as error:
        return error
    return None


def test_each_rule_has_a_mutant() -> None:
    assert sorted(MUTANTS) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_rule_holds_on_a_healthy_adapter_and_catches_its_mutants(rule: str) -> None:
    assert broken(MemoryPlatform, rule) is None
    not_caught = [mutant.__name__ for mutant in MUTANTS[rule] if broken(mutant, rule) is None]
    assert not not_caught
