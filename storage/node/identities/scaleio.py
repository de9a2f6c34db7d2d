"""What a PowerFlex array calls this node: the GUID of its SDC, which was made when that was installed."""

from __future__ import annotations

from storage.errors import NodeError
from storage.node.scini import DRV_CFG, Sdc
from storage.node.steps import Machine


def identify(machine: Machine) -> str:
    """The GUID in capitals. Raises NodeError where there is no SDC, or no root to ask it."""
    try:
        return Sdc(run=machine.run).guid()
    except NodeError as error:
        advice = 'install and start the SDC here, or write [platforms.NAME] node = "GUID" into /etc/polly/agent.toml'
        reason = f"{error.fields['reason']}; {advice}"
        raise NodeError(command=DRV_CFG, target="--query_guid", reason=reason) from error
