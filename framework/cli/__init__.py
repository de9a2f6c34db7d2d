"""The command line, `polly`. Each command is one function; which module holds it is said in framework/cli/root.py."""

from framework.cli.root import main

__all__ = ["main"]
