"""The contract of storage.platforms.base.Platform as a suite of rules that every adapter's tests inherit; needs pytest.

    from storage.platforms.contract import PlatformContract
    from storage.platforms.registry import build

    class TestShelf(PlatformContract):
        pool = "top"                # a pool that is there
        nodes = ("i-1", "i-2")      # two nodes as the platform knows them
        many = 50                   # how many volumes to list; 1,000 unless each one costs

        @pytest.fixture
        def storage(self):          # the storage system, new for each rule; tmp_path unless it is more
            with shelf_server() as server:
                yield server.url

        def make(self, storage):    # an adapter on it, as a process that has just started has it
            return build("shelf", "shelf", {"url": storage})

What the adapter's Capabilities don't declare is left out, and must be refused when it is called. The other hooks, with what
they are when they are not written, are in `storage.platforms.contract.arena.Hooks`: how to fill a pool, how to look at the data
on a volume, and what a peer can make go wrong at a call.
"""

from storage.platforms.contract.arena import Arena, Hooks
from storage.platforms.contract.attaching import AttachRules, EpochRules, NodeRules
from storage.platforms.contract.copies import CloneRules, RestoreRules, SnapshotRules
from storage.platforms.contract.creating import CreateRules, DeleteRules, ExpandRules, ListRules
from storage.platforms.contract.faults import RestartRules, ServiceRules
from storage.platforms.contract.interrupted import InterruptedRules
from storage.platforms.contract.strangers import StrangerRules

__all__ = ["Arena", "Hooks", "PlatformContract"]


class PlatformContract(
    CreateRules,
    DeleteRules,
    ListRules,
    ExpandRules,
    AttachRules,
    NodeRules,
    EpochRules,
    SnapshotRules,
    RestoreRules,
    CloneRules,
    InterruptedRules,
    StrangerRules,
    RestartRules,
    ServiceRules,
    Hooks,
):
    """All rules. Inherit from it, write `make`, and set what differs from Hooks."""
