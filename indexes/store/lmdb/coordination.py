"""Writes that coordinate processes in one LMDB transaction: ids, leases, marks and claims."""

from __future__ import annotations

import time
from itertools import islice

import orjson

from indexes.store.checks import FIRST_UNCOUNTED_ID, check_claim, counted, next_free_id
from indexes.store.lmdb.rows import Reader, number
from models.types import MAX_IMAGE_ID

CLAIMS_LOOKED_AT = 8


class Coordination(Reader):
    """Performs the writes of one transaction that are not about images."""

    def keep(self, table: str, key: bytes, value: bytes = b"") -> None:
        self.txn.put(key, value, db=self.tables[table])

    def drop(self, table: str, key: bytes) -> None:
        self.txn.delete(key, db=self.tables[table])

    def put_meta(self, name: bytes, value: int) -> None:
        self.keep("meta", name, number(value))

    def pop(self, table: str, key: bytes) -> bytes:
        found = self.txn.pop(key, db=self.tables[table])
        assert found is not None, (table, key)
        return found

    def reserve_ids(self, following: int) -> int:
        reserved = max(min(following, FIRST_UNCOUNTED_ID), self._counter())
        self.put_meta(b"next", reserved)
        return reserved

    def take_id(self, image_id: int | None) -> int:
        """The given id, or the next free one; the counter is above it afterwards."""
        following = self._counter()
        if image_id is None:
            image_id = next_free_id(following)
            while image_id >= FIRST_UNCOUNTED_ID and self.row(image_id) is not None:
                image_id = next_free_id(image_id + 1)
            moved = image_id + 1
        else:
            moved = counted(following, [image_id])
        if moved != self.meta(b"next"):
            self.put_meta(b"next", moved)
        return image_id

    def _counter(self) -> int:
        """The id counter. Earlier versions let a chosen id push it to its end; then it goes on
        where chosen ids don't move it."""
        following = self.meta(b"next")
        return following if following <= MAX_IMAGE_ID else FIRST_UNCOUNTED_ID

    def claim_id(self, key: bytes, sha256: str, seconds: float) -> int:
        found, now = self.get("claims", key), time.time()
        if found is not None:
            image_id, claimed, ends = orjson.loads(found)
            if ends > now:
                check_claim(claimed, sha256)
                return int(image_id)
        self._drop_expired_claims(key, now)
        image_id = self.take_id(None)
        self.keep("claims", key, orjson.dumps([image_id, sha256, now + seconds]))
        return image_id

    def _drop_expired_claims(self, beside: bytes, now: float) -> None:
        """Drop those of a few claims beside a key that have expired, so that few remain."""
        for key in list(islice(self.from_key("claims", beside), CLAIMS_LOOKED_AT)):
            found = self.get("claims", key)
            if found is not None and orjson.loads(found)[2] <= now:
                self.drop("claims", key)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        held = self.get("leases", name.encode())
        now = time.time()
        if held is not None:
            other, expires = orjson.loads(held)
            if other != holder and expires > now:
                return False
        self.keep("leases", name.encode(), orjson.dumps([holder, now + seconds]))
        return True

    def release(self, name: str, holder: str) -> None:
        held = self.get("leases", name.encode())
        if held is not None and orjson.loads(held)[0] == holder:
            self.drop("leases", name.encode())

    def mark(self, name: str, seq: int, seconds: float) -> None:
        with self.txn.cursor(db=self.tables["marks"]) as cursor:
            over = [key for key, value in cursor if orjson.loads(value)[1] <= time.time()]
        for key in over:
            self.drop("marks", key)
        self.keep("marks", name.encode(), orjson.dumps([seq, time.time() + seconds]))
