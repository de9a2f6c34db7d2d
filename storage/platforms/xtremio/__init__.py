"""EMC XtremIO as a platform: volumes on an all-flash array, over iSCSI or Fibre Channel, by the REST API of its XMS."""

from storage.platforms.xtremio.platform import XtremioPlatform

__all__ = ["XtremioPlatform"]
