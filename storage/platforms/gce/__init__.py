"""`kind = "gce"`: Persistent Disks and Hyperdisks of Google Compute Engine.

Google's client takes most of a second to import, so it is only looked for here, and imported with the first call.
"""

from importlib.util import find_spec

from storage.platforms.gce.options import GceOptions
from storage.platforms.gce.platform import GcePlatform

__all__ = ["GceOptions", "GcePlatform"]

if find_spec("google.cloud.compute_v1") is None:
    raise ModuleNotFoundError("No module named 'google.cloud.compute_v1'", name="google-cloud-compute")
