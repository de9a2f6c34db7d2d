"""OpenStack's block storage, Cinder: `kind = "cinder"`."""

from storage.platforms.cinder.platform import CinderPlatform

__all__ = ["CinderPlatform"]
