"""The contract of every store; the test of a store is a short subclass that opens it."""

from __future__ import annotations

from tests.indexes.store.contract_annotations import AnnotationContract
from tests.indexes.store.contract_completion import CompletionContract
from tests.indexes.store.contract_guards import GuardContract
from tests.indexes.store.contract_marks import MarkContract
from tests.indexes.store.contract_reads import ReadContract
from tests.indexes.store.contract_records import RecordContract
from tests.indexes.store.contract_spaces import SpaceContract
from tests.indexes.store.contract_versions import VersionContract
from tests.indexes.store.contract_writes import WriteContract


class StoreContract(
    WriteContract,
    CompletionContract,
    GuardContract,
    ReadContract,
    AnnotationContract,
    SpaceContract,
    MarkContract,
    RecordContract,
    VersionContract,
):
    """The whole contract; a subclass defines in `open` how a new, empty store is opened."""
