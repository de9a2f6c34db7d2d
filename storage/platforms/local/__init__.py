"""`kind = "local"`: volumes in a folder that the agents of one machine share."""

from storage.platforms.local.options import LocalOptions
from storage.platforms.local.platform import LocalPlatform

__all__ = ["LocalOptions", "LocalPlatform"]
