"""imports: a new process that loads one adapter, as an executor does, over one that loads none. Which SDKs came with it is said too."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from storage.platforms.registry import BUILTIN
from tests.bench.harness import Result, in_pairs, ratios

NOTHING = "import storage.platforms.registry, storage.platforms.base"
SDKS = ("boto3", "google.cloud.compute_v1", "openstack", "os_brick", "zeep", "httpx", "sqlalchemy")


def every_adapter() -> list[Callable[[], Result]]:
    return [partial(_bench, kind, builtin.module) for kind, builtin in sorted(BUILTIN.items())]


def _bench(kind: str, module: str) -> Result:
    mine, theirs = in_pairs(lambda: _seconds(f"{NOTHING}; import {module}"), lambda: _seconds(NOTHING))
    details = {"ms_with_it": min(mine) * 1e3, "ms_without": min(theirs) * 1e3}
    loaded = ", ".join(_sdks(module)) or "no SDK"
    return Result(
        name=f"imports.{kind}",
        ratios=ratios(mine, theirs),
        what=f"a process with adapter {kind} ({loaded}) over one without",
        details=details,
    )


def _seconds(program: str) -> float:
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - before


def _sdks(module: str) -> list[str]:
    program = f"import sys, {module}; print(*[name for name in {SDKS!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
