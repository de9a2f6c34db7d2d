"""Makes the wheel's hot modules machine code, with mypyc: matching, which is pure functions over what the offers and the storage are.

The sources stay as they are and go into the wheel too; an editable install has them alone. Where there is no C compiler the wheel is
plain Python, and this says so: `polly --version` and `polly doctor` tell of an installed Polly which it is.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = (
    "offers/constraints.py",
    "offers/explaining.py",
    "offers/feasibility.py",
    "offers/matching.py",
    "offers/overlay.py",
    "offers/planning.py",
    "offers/ranking.py",
    "offers/resources.py",
    "offers/rooms.py",
    "offers/supply.py",
    "offers/tally.py",
    "offers/view.py",
)
"""Not those with msgspec's records: a class of mypyc's loses what stands beside its bases, such as `frozen=True`."""


class CompilingHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._built = tempfile.TemporaryDirectory()
        try:
            made = compiled(Path(self.root), Path(self._built.name))
        # whatever is wrong with a compiler, a linker or a type: the sources are there and do the same
        except (Exception, SystemExit) as error:
            print(
                f"polly-broker: built without compiled modules, so placing takes longer: {error or type(error).__name__}", file=sys.stderr
            )
            return
        build_data["pure_python"], build_data["infer_tag"] = False, True
        build_data["force_include"].update({str(file): name for file, name in made})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._built.cleanup()


def compiled(root: Path, scratch: Path) -> Iterable[tuple[Path, str]]:
    """The modules as extensions below `scratch`, each with its place in the wheel. Raises what mypyc or the compiler raises."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if not shutil.which(compiler):
        raise FileNotFoundError(f"there is no C compiler {compiler}")
    before = Path.cwd()
    os.chdir(root)  # mypy names modules by where they are from here
    try:
        options = ["--config-file=", f"--cache-dir={scratch}/cache", "--strict", "--no-warn-unused-ignores"]
        extensions = mypycify([*options, *MODULES], target_dir=str(scratch / "c"), group_name="polly")
        command = build_ext(Distribution({"name": "polly-broker", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(scratch / "lib"), str(scratch / "objects")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    return [(file, str(file.relative_to(scratch / "lib"))) for file in sorted((scratch / "lib").rglob("*.so"))]
