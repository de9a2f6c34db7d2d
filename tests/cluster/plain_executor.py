"""An executor that runs nothing: each task is RUNNING at once, and FINISHED too if its data says `finish`. A message is sent back."""

from __future__ import annotations

import base64
import time
from typing import Any

from pymesos import Executor, MesosExecutorDriver


class PlainExecutor(Executor):  # type: ignore[misc]  # pymesos has no types
    def launch(self, driver: Any, task: dict[str, Any]) -> None:
        self.update(driver, task["task_id"], "TASK_RUNNING")
        if base64.b64decode(task.get("data", "")) == b"finish":
            self.update(driver, task["task_id"], "TASK_FINISHED")

    launchTask = launch  # noqa: N815 - pymesos' name

    def killTask(self, driver: Any, task_id: dict[str, str]) -> None:  # noqa: N802 - pymesos' name
        self.update(driver, task_id, "TASK_KILLED")

    def frameworkMessage(self, driver: Any, message: str) -> None:  # noqa: N802 - pymesos' name
        driver.sendFrameworkMessage(message)

    def update(self, driver: Any, task_id: dict[str, str], state: str) -> None:
        data = base64.b64encode(f"said of {task_id['value']}".encode()).decode()
        driver.sendStatusUpdate({"task_id": task_id, "state": state, "timestamp": time.time(), "data": data})


if __name__ == "__main__":
    MesosExecutorDriver(PlainExecutor(), use_addict=False).run()
