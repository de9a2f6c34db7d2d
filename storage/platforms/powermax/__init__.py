"""`kind = "powermax"`: volumes on a Dell PowerMax or EMC VMAX array, over iSCSI or Fibre Channel, by the REST API of its Unisphere."""

from storage.platforms.powermax.options import PowerMaxOptions
from storage.platforms.powermax.platform import PowerMaxPlatform

__all__ = ["PowerMaxOptions", "PowerMaxPlatform"]
