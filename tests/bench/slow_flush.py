"""The same machine with a disk that takes longer to flush: the databases' calls to flush a file wait a while more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tests.bench.harness import SCRATCH

LIBRARY = SCRATCH / "slow_flush.so"
SPAN = "POLLY_FLUSH_US"


def added_ms() -> float:
    """By how much flushes take longer in this process and in all that it starts."""
    return int(os.environ.get(SPAN, "0")) / 1000


def again_with(flush_ms: float, arguments: Sequence[str]) -> NoReturn:
    """Begins this process anew, with flushes that take so much longer. Needs a C compiler."""
    SCRATCH.mkdir(exist_ok=True)
    source = Path(__file__).with_suffix(".c")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", str(LIBRARY), str(source), "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(LIBRARY.absolute()), SPAN: str(round(flush_ms * 1000))}
    os.execve(sys.executable, [sys.executable, "-m", "tests.bench", *arguments], environment)
