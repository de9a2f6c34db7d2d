"""An account that is empty, and credentials for it."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.peers import ec2
from tests.peers.ec2_front import KEY_ID, Front

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def front() -> Front:
    return ec2.fresh()


@pytest.fixture
def sdk(front: Front) -> Any:
    """A client of Amazon's own, without any of ours."""
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    return boto3.client("ec2", endpoint_url=front.url, region_name=ec2.REGION, config=config)
