"""Which pool each volume of a task goes to, seen from one vantage: least left over first, and exact.

If there is any way to fit all volumes of the task into the pools and attach slots, one is found. The search tries the
tightest pool first and remembers dead ends; it is meant for the handful of volumes that a task has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from offers.supply import Held, Need, Option, Stock, Vantage, Wanted
from offers.tally import Refusal


class Plan:
    """Where every volume of a task goes."""

    __slots__ = ("chosen", "waste_mib")

    def __init__(self, waste_mib: int, chosen: tuple[Option, ...]) -> None:
        self.waste_mib = waste_mib
        """What is left over in the pools that get new volumes, added up."""
        self.chosen = chosen
        """For each volume that is to be made, in order."""


class NoPlan(NamedTuple):
    refusal: Refusal
    volume: int
    """Which of the task's volumes has no place."""


NOTHING_NEEDED = Plan(0, ())


def plan(needs: Sequence[Need], vantage: Vantage, slots: Mapping[str, int]) -> Plan | NoPlan:
    """`slots`: how many more volumes the agent can hold, for the platforms that have a limit."""
    if not needs:
        return NOTHING_NEEDED
    if len(needs) == 1 and isinstance(needs[0], Wanted):
        return _plan_one(needs[0], vantage, slots)
    return _plan_many(needs, vantage, slots)


def _plan_one(wanted: Wanted, vantage: Vantage, slots: Mapping[str, int]) -> Plan | NoPlan:
    options = vantage.options(wanted)
    if isinstance(options, Refusal):
        return NoPlan(options, 0)
    best: Option | None = None
    least = -1
    for option in options:
        waste = option[0].free_mib - option[1]
        if waste >= 0 and (best is None or waste < least) and (not slots or slots.get(option[0].platform, 1) > 0):
            best, least = option, waste
    if best is not None:
        return Plan(least, (best,))
    return NoPlan(Refusal.SLOTS if any(size <= stock.free_mib for stock, size in options) else Refusal.POOL_FULL, 0)


def _plan_many(needs: Sequence[Need], vantage: Vantage, slots: Mapping[str, int]) -> Plan | NoPlan:
    left = dict(slots)
    wishes: list[tuple[int, tuple[Option, ...]]] = []
    for index, need in enumerate(needs):
        if isinstance(need, Wanted):
            options = vantage.options(need)
            if isinstance(options, Refusal):
                return NoPlan(options, index)
            wishes.append((index, options))
        elif (refusal := _hold(need, vantage, left)) is not None:
            return NoPlan(refusal, index)
    return _place(wishes, left)


def _hold(held: Held, vantage: Vantage, left: dict[str, int]) -> Refusal | None:
    """Counts an existing volume's slot, or says why it cannot come here."""
    if (refusal := vantage.refuses(held.platform, held.region, held.zone)) is not None:
        return refusal
    if left.get(held.platform, 1) <= 0:
        return Refusal.SLOTS
    if held.platform in left:
        left[held.platform] -= 1
    return None


def _place(wishes: list[tuple[int, tuple[Option, ...]]], left: dict[str, int]) -> Plan | NoPlan:
    if not wishes:
        return NOTHING_NEEDED
    wishes.sort(key=lambda wish: -max(size for _, size in wish[1]))
    stocks = {id(stock): stock for _, options in wishes for stock, _ in options}
    search = _Search([options for _, options in wishes], stocks.values(), left)
    if not search.fits(0):
        return NoPlan(_why_not(wishes, stocks, search), wishes[0][0])
    chosen = sorted(zip((index for index, _ in wishes), search.path, strict=True), key=lambda pair: pair[0])
    used = {id(stock) for stock, _ in search.path}
    return Plan(sum(search.free[key] for key in used), tuple(option for _, option in chosen))


def _why_not(wishes: Sequence[tuple[int, tuple[Option, ...]]], stocks: Mapping[int, Stock], search: _Search) -> Refusal:
    """SLOTS if the volumes would fit had the agent slots without end."""
    endless = _Search(search.wishes, stocks.values(), {})
    return Refusal.SLOTS if search.slots and endless.fits(0) else Refusal.POOL_FULL


class _Search:
    """Depth first over the volumes, the largest first; `path` is the way that fits."""

    def __init__(self, wishes: Sequence[tuple[Option, ...]], stocks: Iterable[Stock], slots: dict[str, int]) -> None:
        self.wishes, self.slots = wishes, slots
        self.free = {id(stock): stock.free_mib for stock in stocks}
        self.shared = {id(stock.shared): stock.shared.free_mib for stock in stocks if stock.shared is not None}
        """What is free of the rooms that the stocks share; it follows from `free`, so no state needs to name it."""
        self.path: list[Option] = []
        self._dead: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()

    def fits(self, depth: int) -> bool:
        if depth == len(self.wishes):
            return True
        state = (depth, tuple(self.free.values()), tuple(self.slots.values()))
        if state in self._dead:
            return False
        for option in sorted(self.wishes[depth], key=self._left_over):
            if self._room_for(option) and self._try(option, depth):
                return True
        self._dead.add(state)
        return False

    def _left_over(self, option: Option) -> int:
        stock, size = option
        left = self.free[id(stock)] - size
        return left if stock.shared is None else min(left, self.shared[id(stock.shared)] - size)

    def _room_for(self, option: Option) -> bool:
        return self._left_over(option) >= 0 and self.slots.get(option[0].platform, 1) > 0

    def _try(self, option: Option, depth: int) -> bool:
        stock, size = option
        self._move(stock, size, 1)
        self.path.append(option)
        if self.fits(depth + 1):
            return True
        self.path.pop()
        self._move(stock, -size, -1)
        return False

    def _move(self, stock: Stock, size: int, slots: int) -> None:
        self.free[id(stock)] -= size
        if stock.shared is not None:
            self.shared[id(stock.shared)] -= size
        if stock.platform in self.slots:
            self.slots[stock.platform] -= slots
