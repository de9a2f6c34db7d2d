"""A strict Compute Engine of our own: the disk's part of its API, made from the discovery document that Google ships.

`discovery` knows the document (paths, parameters, schemas), `world` one project's resources and operations, `verbs` what each
method does, `server` speaks HTTP. The document stays in the environment where pip put it: it is Google's.
"""

from __future__ import annotations

from pathlib import Path

from tests.peers.venvs import venv

PACKAGES = "gce"


def install() -> None:
    venv(PACKAGES)


def python() -> Path:
    """The interpreter that has google-api-python-client."""
    return venv(PACKAGES) / "bin" / "python"


def document() -> Path:
    """The discovery document of Compute Engine's API, version 1."""
    (found,) = venv(PACKAGES).glob("lib/python*/site-packages/googleapiclient/discovery_cache/documents/compute.v1.json")
    return found
