"""VirtualBox: media on a VM host, attached to its VMs, through its web service or its command line."""

from storage.platforms.virtualbox.platform import VirtualBoxPlatform

__all__ = ["VirtualBoxPlatform"]
