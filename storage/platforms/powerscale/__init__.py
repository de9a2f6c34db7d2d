"""`kind = "powerscale"`: volumes as NFS exports of a Dell PowerScale (EMC Isilon) cluster, by the REST API of OneFS."""

from storage.platforms.powerscale.options import PowerScaleOptions
from storage.platforms.powerscale.platform import PowerScalePlatform

__all__ = ["PowerScaleOptions", "PowerScalePlatform"]
