"""Packs polly-executor and what it imports into one file that an agent can fetch: `python -m executors.zipapp OUT`.

The file runs with the same Python version and machine type as the one that packed it, because two of its packages are
partly C. C cannot be loaded out of an archive, so the first run unpacks it beside the others of its kind, under a name
made from its content, and every later run starts from there:

    $POLLY_EXECUTOR_CACHE, or /var/cache/polly for root, or ~/.cache/polly
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
import zipapp
from pathlib import Path
from typing import Final

PACKAGES: Final = ("executors", "storage", "pymesos", "addict", "http_parser", "httptools", "msgspec")
MODULES: Final = ("six",)
LEFT_OUT: Final = (
    "__pycache__",
    "*.pyc",
    "*.c",
    "*.h",
    "*.pyx",
    "*.pxd",
    "*.pyi",
    "vendor",
    "ledger",
    "migrations",
    "inventory.py",
    "schema.py",
)
"""Also the ledger: an agent has no database."""
INTERPRETER: Final = "/usr/bin/env python3"

BOOTSTRAP: Final = """\
import os, platform, sys

DIGEST, MADE_FOR = {digest!r}, {made_for!r}


def folder():
    if cache := os.environ.get("POLLY_EXECUTOR_CACHE"):
        return cache
    return "/var/cache/polly" if os.geteuid() == 0 else os.path.expanduser("~/.cache/polly")


def unpacked():
    home = os.path.join(folder(), "executor-" + DIGEST)
    if not os.path.isdir(home):
        unpack(home)
    found = os.lstat(home)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        sys.exit(f"polly-executor: {{home}} must belong to this user, and nobody else may write to it")
    return home


def unpack(home):
    import tempfile, zipfile

    os.makedirs(os.path.dirname(home), mode=0o755, exist_ok=True)
    new = tempfile.mkdtemp(dir=os.path.dirname(home), prefix=".new-")
    with zipfile.ZipFile(sys.argv[0]) as archive:
        archive.extractall(new)
    try:
        os.rename(new, home)
    except OSError:  # another executor was first
        import shutil

        shutil.rmtree(new)


if (found := list(sys.version_info[:2]) + [platform.machine()]) != MADE_FOR:
    sys.exit(f"polly-executor: this file was made for Python and machine {{MADE_FOR}}, here is {{found}}")
sys.path[0] = unpacked()
from executors.main import main

sys.exit(main())
"""


def build(out: Path) -> Path:
    """Writes the archive to `out`. Raises ModuleNotFoundError for a package that is not installed here."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for name in PACKAGES:
            shutil.copytree(_origin(name).parent, tree / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for name in MODULES:
            shutil.copy(_origin(name), tree)
        _copy_version(tree)
        made_for = [*sys.version_info[:2], platform.machine()]
        (tree / "__main__.py").write_text(BOOTSTRAP.format(digest=_digest(tree), made_for=made_for))
        zipapp.create_archive(tree, out, INTERPRETER, compressed=True)
    return out


def _origin(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the archive needs {name}, which is not installed here", name=name)
    return Path(spec.origin)


def _copy_version(tree: Path) -> None:
    """So much of Polly's distribution that `--version` can be answered."""
    polly = importlib.metadata.distribution("polly-broker")
    info = tree / f"polly_broker-{polly.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(polly.read_text("METADATA") or "")


def _digest(tree: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in tree.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(tree)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m executors.zipapp OUT")
    print(build(Path(sys.argv[1])))
