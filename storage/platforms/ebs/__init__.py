"""`kind = "ebs"`: Amazon's block volumes, one account and region a platform."""

from storage.platforms.ebs.options import EbsOptions
from storage.platforms.ebs.platform import EbsPlatform

__all__ = ["EbsOptions", "EbsPlatform"]
