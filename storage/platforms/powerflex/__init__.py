"""`kind = "powerflex"`: volumes of a Dell PowerFlex system (EMC ScaleIO before), through its REST gateway."""

from storage.platforms.powerflex.options import PowerFlexOptions
from storage.platforms.powerflex.platform import PowerFlexPlatform

__all__ = ["PowerFlexOptions", "PowerFlexPlatform"]
