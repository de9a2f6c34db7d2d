"""How an executor ended is said in the last message of its task, and nowhere else."""

from __future__ import annotations

import pytest

from framework.mesos.endings import MOST, Endings, ending
from framework.mesos.events import Failed, Status


@pytest.mark.parametrize(
    ("wait_status", "words"),
    [
        (0, ""),
        (9, "the executor was killed by SIGKILL"),
        (0x80 | 11, "the executor was killed by SIGSEGV"),
        (1 << 8, "the executor ended with exit status 1"),
        (127 << 8, "the agent does not find the executor polly-executor, which [executor] command in polly.toml names"),
        (126 << 8, "the agent cannot run the executor polly-executor, which [executor] command in polly.toml names"),
    ],
)
def test_wait_statuses_in_words(wait_status: int, words: str) -> None:
    assert ending(wait_status, "polly-executor") == words


def test_the_last_update_of_the_task_says_it_once() -> None:
    endings = Endings("p")
    assert endings.note(Failed(agent_id="a", executor_id="t", status=9))
    running = Status(task_id="t", state="TASK_RUNNING")
    assert endings.told(running) is running
    failed = Status(task_id="t", state="TASK_FAILED", message="Executor terminated")
    assert endings.told(failed).message == "Executor terminated; the executor was killed by SIGKILL"
    assert endings.told(failed) is failed


def test_what_the_executor_said_itself_is_left_alone() -> None:
    endings = Endings("p")
    endings.note(Failed(agent_id="a", executor_id="t", status=9))
    own = Status(task_id="t", state="TASK_FAILED", message="exited with status 1", data=b"{}")
    assert endings.told(own) is own


def test_a_good_end_and_an_unknown_one_are_no_news() -> None:
    endings = Endings("p")
    assert endings.note(Failed(agent_id="a", executor_id="t", status=0)) == ""
    assert endings.note(Failed(agent_id="a", executor_id="t")) == ""


def test_only_so_many_are_kept() -> None:
    endings = Endings("p")
    for number in range(MOST + 1):
        endings.note(Failed(agent_id="a", executor_id=f"t{number}", status=9))
    lost = [Status(task_id=f"t{number}", state="TASK_LOST") for number in (0, 1)]
    assert [endings.told(status).message for status in lost] == ["", "the executor was killed by SIGKILL"]


@pytest.mark.parametrize("status", [-1, 0x137F, 0xFFFF, 2**40 - 1], ids=["unknown", "stopped", "continued", "too large"])
def test_what_is_no_end_is_said_to_be_unknown(status: int) -> None:
    assert ending(status, "polly-executor") == "the executor ended, and its agent does not know how"
