"""Real platforms and emulators of them, as the adapters' tests run them: a module for each, on loopback, from an installed cache.

A module that needs something installed has a function `install()`, which may be called at any time and does nothing the second
time; `python -m tests.peers` calls all of them.
"""
