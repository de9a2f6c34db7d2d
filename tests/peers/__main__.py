"""Installs every peer: `python -m tests.peers`."""

from __future__ import annotations

import importlib
import pkgutil

import tests.peers


def main() -> None:
    for module in pkgutil.iter_modules(tests.peers.__path__):
        if not module.name.startswith("_") and (install := getattr(importlib.import_module(f"tests.peers.{module.name}"), "install", None)):
            install()


main()
