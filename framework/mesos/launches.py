"""From matches to launches: each match's claims are asked of the ledger, all in one commit, and what it grants becomes a TaskInfo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import starmap

from msgspec import Raw, Struct

from framework.marathon.ids import task_id
from framework.mesos.asking import Need
from framework.mesos.context import Context, story
from framework.mesos.instances import AppState, Task, TaskRecord, Waiting
from framework.mesos.tasks import Recipe, claim_requests, claimed_volume, new_record, new_task, place_request, plan_of
from offers.ask import Ask
from offers.constraints import attribute_texts
from offers.matching import Match
from offers.records import Offer
from storage.inventory import Placed, PlaceRequest, Refused, Storing
from storage.model import WorkloadId


class Wish(Struct, gc=False):
    """An instance that may be launched now, and what it asks."""

    state: AppState
    waiting: Waiting
    needs: Mapping[str, Need]
    """By containerPath."""
    ask: Ask


class Launch(Struct, gc=False):
    """A placement that the ledger has, on its way to ACCEPT."""

    match: Match
    task: Task
    info: Raw


class Round:
    """One round's launches; what tasks of one app, or of one agent, share is made once."""

    def __init__(self, context: Context, wishes: Mapping[str, Wish], offers: Sequence[Offer], now: float, storing: Storing) -> None:
        """`wishes` by their asks' keys. `storing` is given what the ledger is to store, as soon as it is known."""
        self._context, self._wishes, self._now, self._storing = context, wishes, now, storing
        self._on = {offer.agent.value: offer for offer in offers}
        self._attributes: dict[str, Mapping[str, str]] = {}
        self._recipes: dict[WorkloadId, Recipe] = {}
        self._settings, self._by_broker = context.platform_settings(), context.by_broker
        self._asked: list[tuple[Match, PlaceRequest, TaskRecord, Placed]] = []

    def claim(self, matches: Sequence[Match]) -> None:
        """Asks the ledger for the claims of these matches, in a transaction that is open until all are made."""
        if self._context.settler.is_asking:
            matches = [found for found in matches if not self._must_wait(found)]
        requests, records = [], []
        for found in matches:
            request, record = self._request(found, self._on[found.agent_id])
            requests.append(request)
            records.append(record)
        self._asked += zip(matches, requests, records, self._storing.add(requests), strict=True)

    def launch(self, spare: Callable[[], object]) -> list[Launch]:
        """What the ledger grants, committed. Why it refuses the others is noted on those who wait for them.

        `spare` gives back memory that nobody needs any more: it is done while the ledger still stores.
        """
        self._on = {}
        made = list(starmap(self._launch, self._asked))
        spare()
        launches = []
        for one, outcome in zip(made, self._storing.outcomes(), strict=True):
            if isinstance(outcome, Refused):
                self._refused(self._wishes[one.match.ask.key], outcome)
                continue
            launches.append(one)
            self._context.forget(one.task.volumes.values())
            self._context.picture.add_task(one.task)
        return launches

    def _must_wait(self, found: Match) -> bool:
        """A detach that is under way for a task that is over would take the volume from a task that now came to the same machine."""
        volumes = [chosen.existing for chosen in found.volumes if chosen.existing]
        leaving = next((volume for volume in volumes if self._context.is_leaving(volume, found.agent_id)), None)
        if leaving is None:
            return False
        self._wishes[found.ask.key].waiting.block(f"volume {leaving.name} is just being detached from {found.hostname}")
        return True

    def _request(self, found: Match, offer: Offer) -> tuple[PlaceRequest, TaskRecord]:
        context, wish = self._context, self._wishes[found.ask.key]
        app = wish.state.app
        claims = claim_requests(found, wish.needs, app, context.ids)
        record = new_record(found, offer, self._attributes_of(offer), wish.state.version, claims, self._now, self._by_broker)
        run, lease_s = task_id(app.app_id, context.ids()), context.config.claims.lease_s
        return place_request(found, wish.waiting.slot, run, record, claims, context.scheduler, lease_s), record

    def _attributes_of(self, offer: Offer) -> Mapping[str, str]:
        if offer.agent_id not in self._attributes:
            self._attributes[offer.agent_id] = attribute_texts(offer)
        return self._attributes[offer.agent_id]

    def _refused(self, wish: Wish, outcome: Refused) -> None:
        wish.waiting.block(f"the ledger refused the claim: {outcome.error}")
        story.warning("refused  %s: %s", wish.ask.key, outcome.error)
        self._context.forget_needs(wish.state, wish.waiting)

    def _launch(self, found: Match, request: PlaceRequest, record: TaskRecord, placed: Placed) -> Launch:
        """Changes nothing that others see: the claims are not committed yet, and may be refused."""
        wish = self._wishes[found.ask.key]
        volumes, plans = [], []
        for asked, claim, chosen in zip(request.claims, placed.claims, found.volumes, strict=True):
            volume = claimed_volume(asked, claim, chosen.existing, self._now)
            volumes.append(volume)
            plans.append(plan_of(claim, volume, wish.needs[chosen.container_path]))
        task = new_task(request, record, placed.claims, volumes)
        return Launch(found, task, self._recipe(wish.state).task_info(found, task, plans))

    def _recipe(self, state: AppState) -> Recipe:
        app = state.app
        recipe = self._recipes.get(WorkloadId(app.app_id))
        if recipe is None:
            context = self._context
            recipe = Recipe(app, context.config, self._settings, context.driver.framework_id or "")
            self._recipes[WorkloadId(app.app_id)] = recipe
        return recipe
