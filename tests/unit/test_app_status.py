"""What an app's status says of its tasks: Marathon's words, as its web interface would use them."""

from __future__ import annotations

import pytest

from framework.mesos.instances import Phase
from framework.views import AppStatus, AppView, TaskView, with_status


def app(instances: int, *phases: Phase) -> AppView:
    """Each phase is that of the task in the next slot."""
    tasks = tuple(TaskView(task_id=f"t{at}", app_id="/db", slot=at, state=phase, node="a1") for at, phase in enumerate(phases))
    return AppView(app_id="/db", spec={}, version="", instances=instances, created_at=0.0, tasks=tasks)


@pytest.mark.parametrize(
    ("view", "delayed", "status"),
    [
        (app(1), 0, AppStatus.WAITING),
        (app(2, Phase.RUNNING), 0, AppStatus.WAITING),
        (app(2, Phase.STARTING), 0, AppStatus.WAITING),
        (app(1, Phase.UNREACHABLE), 0, AppStatus.WAITING),
        (app(1, Phase.SETTLING), 0, AppStatus.WAITING),
        (app(1), 1, AppStatus.DELAYED),
        (app(2), 1, AppStatus.WAITING),
        (app(2, Phase.RUNNING), 1, AppStatus.DELAYED),
        (app(1, Phase.RUNNING), 1, AppStatus.RUNNING),
        (app(1, Phase.LAUNCHED), 0, AppStatus.DEPLOYING),
        (app(2, Phase.RUNNING, Phase.STARTING), 0, AppStatus.DEPLOYING),
        (app(1, Phase.KILLING), 0, AppStatus.DEPLOYING),
        (app(1, Phase.RUNNING, Phase.RUNNING), 0, AppStatus.DEPLOYING),
        (app(0, Phase.KILLING), 0, AppStatus.DEPLOYING),
        (app(1, Phase.RUNNING), 0, AppStatus.RUNNING),
        (app(1, Phase.RUNNING, Phase.SETTLING), 0, AppStatus.RUNNING),
        (app(0), 0, AppStatus.SUSPENDED),
        (app(0, Phase.SETTLING), 0, AppStatus.SUSPENDED),
    ],
)
def test_the_status_follows_from_what_is_wanted_and_what_is_there(view: AppView, delayed: int, status: AppStatus) -> None:
    assert with_status(view, delayed=delayed).state is status


def test_an_app_that_goes_is_deleting_whatever_is_left_of_it() -> None:
    going = with_status(app(0, Phase.RUNNING), deleting=True)
    assert going.state is AppStatus.DELETING
    assert with_status(going).state is AppStatus.DELETING


def test_a_slot_counts_once_however_many_tasks_it_has() -> None:
    away, here = (TaskView(task_id=phase, app_id="/db", slot=0, state=phase, node="a1") for phase in (Phase.UNREACHABLE, Phase.RUNNING))
    view = AppView(app_id="/db", spec={}, version="", instances=2, created_at=0.0, tasks=(away, here))
    assert (view.missing, with_status(view).state) == (1, AppStatus.WAITING)
