"""The HTTP API under the command line: `/v2` in Marathon's JSON, `/v1` for the inventory. `create_app` and `serve` are its two doors."""

from framework.rest.app import create_app
from framework.rest.server import Server, serve

__all__ = ["Server", "create_app", "serve"]
