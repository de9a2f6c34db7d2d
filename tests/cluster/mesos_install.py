"""Fetches an Apache Mesos by its version and prepares it to run here, once per machine.

Apache published its native library on the Python package index, as mesos.scheduler (x86-64 Linux). Beside the library lies
what is compiled here: a launcher (mesos_node.cc) and empty stand-ins for shared libraries that the system lacks. Needs g++,
binutils and, for the fetching, pypi-simple; knows nothing of running clusters.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DEFAULT_VERSION = "1.11.0"
ARCHIVES = {  # version: SHA-256 of the archive that holds the library
    "1.8.1": "3a0bfe4151ab0bfd7f94359743342f39fd9e21f72ab9c53151117f491200e2e0",
    "1.9.0": "6829dc7ee6400b7a6d186e966a25d217638b365f5a9ba0b783222a5858f56dcf",
    "1.10.0": "76f111c32a0cd82fc23aff61a85215d4d9ceebb34654d93264d8e64a27483ff5",
    "1.11.0": "1d376f20bca6d05ee8b90c1c123a452b28753497ccc2f1c80ea3ac94c12e8f6e",
}
VERSIONS = tuple(ARCHIVES)

# Shared libraries that the published binary wants and a current system lacks: the library's name, and what Mesos
# calls there by symbol version or by prefix. TLS and the fetcher are never used, so each call does nothing.
ALWAYS_MISSING = {
    "libssl.so.1.0.0": re.compile(r"(SSL_|SSLv|TLSv)\w*@OPENSSL"),
    "libcrypto.so.1.0.0": re.compile(r"(?!SSL_|SSLv|TLSv)\w+@OPENSSL"),
    "libcurl.so.4": re.compile(r"\w+@CURL_OPENSSL"),
}
OFTEN_MISSING = {  # Debian: libapr1, libsvn1, libsasl2-2. Without libsvn1 a master has no replicated log.
    "libapr-1.so.0": re.compile(r"apr_\w+$"),
    "libsvn_delta-1.so.1": re.compile(r"svn_txdelta\w+$"),
    "libsvn_subr-1.so.1": re.compile(r"svn_(?!txdelta)\w+$"),
    "libsasl2.so.2": re.compile(r"sasl_\w+@SASL2"),
}
SYMBOL_VERSIONS = {
    "libssl.so.1.0.0": ["OPENSSL_1.0.0", "OPENSSL_1.0.1", "OPENSSL_1.0.2"],
    "libcrypto.so.1.0.0": ["OPENSSL_1.0.0", "OPENSSL_1.0.2"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One prepared Mesos: the native library, the program that runs a master or an agent, and what these need."""

    version: str
    library: Path
    node: Path
    stubs: Path
    launcher_dir: Path
    has_replicated_log: bool


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesos-cluster"


def install(version: str = DEFAULT_VERSION, cache: Path | None = None) -> Installed:
    """Prepares what is not yet there: about 27 MB to fetch and 10 s to compile, the first time.

    Any number of processes may install at once: one works, the others wait. What was compiled for another Python or
    with other system libraries is left alone and made anew, so one cache serves several checkouts.
    Raises LookupError for a version that does not run here or is not on the index.
    """
    if version not in ARCHIVES:
        raise LookupError(f"no Mesos {version} runs here, only {', '.join(VERSIONS)}")
    folder = (cache or default_cache()) / version
    absent = _absent_libraries()
    library, built = folder / "libmesos.so", folder / f"built-{_fingerprint(absent)}"
    if not built.exists():
        with _only_one(folder):
            if not library.exists():
                _fetch(version, library)
            if not built.exists():
                _build(library, absent, built)
    return Installed(
        version=version,
        library=library,
        node=built / "mesos_node",
        stubs=built / "stubs",
        launcher_dir=built / "launcher",
        has_replicated_log=not any(name.startswith(("libsvn", "libapr")) for name in absent),
    )


def interpreter() -> str:
    """The Python that runs this, not the one of a virtual environment, which may be gone tomorrow."""
    return os.path.realpath(sys.executable)


def _fingerprint(absent: list[str]) -> str:
    """Differs whenever something else would be built."""
    sources = [Path(__file__), HERE / "mesos_node.cc", HERE / "containerizer.py"]
    parts = [*(source.read_bytes() for source in sources), *(text.encode() for text in [*absent, interpreter()])]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Lets one process at a time into the block; the kernel lets the next one in if it dies there."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(version: str, target: Path) -> None:
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple
    from requests import Session

    name = f"mesos.scheduler-{version}.linux-x86_64.tar.gz"
    session = Session()
    session.verify = pip_setting("cert") or True
    with (
        PyPISimple(pip_setting("index-url") or PYPI_SIMPLE_ENDPOINT, session=session) as index,
        tempfile.TemporaryDirectory(dir=target.parent) as scratch,
    ):
        try:
            found = [p for p in index.get_project_page("mesos.scheduler").packages if p.filename == name]
        except NoSuchProjectError:
            found = []
        if not found:
            raise LookupError(f"the package index has no {name}")
        archive = Path(scratch) / name
        index.download_package(found[0], path=archive)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != ARCHIVES[version]:
            raise LookupError(f"the index's {name} is another file than the one known here: SHA-256 {digest}")
        _extract_library(archive, Path(scratch) / "libmesos.so")
        (Path(scratch) / "libmesos.so").rename(target)


def pip_setting(name: str) -> str:
    """What pip is told by its files or environment, so that whoever reaches an index with pip does so here; empty if nothing."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    told = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    return (told.get(f":env:.{name}") or told.get(f"global.{name}") or "").strip("'\"")


def _extract_library(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as opened:
        member = next(m for m in opened.getmembers() if m.name.endswith("/_scheduler.so"))
        source = opened.extractfile(member)
        if source is None:
            raise LookupError(f"{archive.name} holds no library")
        with source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)


def _build(library: Path, absent: list[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch) / "work"
        for name in ("stubs", "launcher"):
            (work / name).mkdir(parents=True)
        _build_stubs(library, absent, work / "stubs", Path(scratch))
        _write_containerizer(work / "launcher")
        subprocess.run(
            ["g++", "-O1", "-w", "-rdynamic", "-o", work / "mesos_node", HERE / "mesos_node.cc", "-ldl", "-lpthread"], check=True
        )
        work.rename(target)


def _write_containerizer(folder: Path) -> None:
    """The agent runs `mesos-containerizer`; a shell hands over to Python, whose path may be too long for a `#!` line."""
    shutil.copy(HERE / "containerizer.py", folder)
    program = folder / "mesos-containerizer"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(interpreter())} -IS "${{0%/*}}/containerizer.py" "$@"\n')
    program.chmod(0o755)


def _build_stubs(library: Path, absent: list[str], folder: Path, scratch: Path) -> None:
    """Compiles an empty stand-in for each shared library that this system lacks."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", "--with-symbol-versions", library], check=True, capture_output=True, text=True
    ).stdout
    wanted = [line.split()[-1].replace("@@", "@") for line in listing.splitlines()]
    for name, pattern in {**ALWAYS_MISSING, **{name: OFTEN_MISSING[name] for name in absent}}.items():
        versions: dict[str, list[str]] = {version: [] for version in SYMBOL_VERSIONS.get(name, [])}
        for symbol in filter(pattern.match, wanted):
            bare, _, version = symbol.partition("@")
            versions.setdefault(version, []).append(bare)
        _compile_stub(name, versions, folder, scratch)


def _compile_stub(name: str, versions: dict[str, list[str]], folder: Path, scratch: Path) -> None:
    source, script = scratch / f"{name}.c", scratch / f"{name}.map"
    source.write_text("".join(f"long {symbol}(void) {{ return 0; }}\n" for symbols in versions.values() for symbol in symbols))
    script.write_text("".join(_version_node(version, versions[version]) for version in sorted(versions) if version))
    versioned = [f"-Wl,--version-script={script}"] if script.read_text() else []
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", folder / name, source, f"-Wl,-soname,{name}", *versioned], check=True)


def _version_node(version: str, symbols: list[str]) -> str:
    exported = f"global: {' '.join(f'{symbol};' for symbol in symbols)}" if symbols else ""
    return f"{version} {{ {exported} }};\n"


def _absent_libraries() -> list[str]:
    listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    known = {line.split()[0] for line in listing.splitlines() if line.strip()}
    return sorted(OFTEN_MISSING.keys() - known)
