"""What every store must do with marks in the log."""

from __future__ import annotations

from indexes.store.base import Store
from tests.indexes.opening import OpeningContract
from tests.indexes.pictures import picture
from tests.indexes.store.forks import wait_for


class MarkContract(OpeningContract):
    """What every store must do with marks in the log."""

    def test_a_mark_holds_the_last_seq_said_under_its_name(self, store: Store) -> None:
        assert store.marks() == {}
        store.mark("snapshot of é", 7, 60)
        store.mark("another", 0, 60)
        store.mark("snapshot of é", 5, 60)
        assert store.marks() == {"snapshot of é": 5, "another": 0}

    def test_a_mark_expires_unless_it_is_renewed(self, store: Store) -> None:
        store.mark("ended", 1, 0.05)
        store.mark("renewed", 1, 0.05)
        store.mark("renewed", 2, 60)
        wait_for(lambda: store.marks() == {"renewed": 2})
        store.mark("new", 3, 60)
        assert store.marks() == {"renewed": 2, "new": 3}

    def test_a_mark_is_no_lease_and_no_change(self, store: Store) -> None:
        store.put(picture(1))
        store.mark("compact", 1, 60)
        assert store.lease("compact", "me", 60)
        assert store.head() == 1
        store.release("compact", "me")
        assert store.marks() == {"compact": 1}
