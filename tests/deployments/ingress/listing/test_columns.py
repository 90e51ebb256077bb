"""The columns by which image rows are filtered: exact, and as fresh as the log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.ingress.listing.columns import ImageColumns
from deployments.queries import Filter
from indexes.store.base import Image, ImageWrite, Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from models.pictures.formats import ENCODING_NAMES
from models.types import FileFacts
from tests.indexes.pictures import picture

DAY = 86400.0
SIZES = st.integers(0, 3)
DAYS = st.integers(0, 3).map(lambda day: day * DAY)
FACTS = st.none() | st.builds(
    FileFacts, st.sampled_from(["JPEG", "PNG", "RAW"]), SIZES, st.none() | DAYS
)
WRITES = st.builds(
    lambda at, content, width, height, created, facts: picture(
        at, content, width=width, height=height, created=created, facts=facts
    ),
    st.integers(0, 9),
    st.sampled_from("ab"),
    SIZES,
    SIZES,
    DAYS,
    FACTS,
)
MOMENTS = DAYS.map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "formats": st.lists(st.sampled_from(["jpeg", "PNG", "Raw"]), max_size=2),
        **dict.fromkeys(("min_width", "min_height", "min_bytes", "max_bytes"), SIZES),
        **dict.fromkeys(("taken_after", "taken_before", "added_after", "added_before"), MOMENTS),
    },
)


def meets(image: Image, wanted: dict[str, Any], larger: int | None) -> bool:
    """Whether an image meets all conditions, by its row."""
    facts = image.facts
    seconds = {name: one.timestamp() for name, one in wanted.items() if isinstance(one, datetime)}
    taken = None if facts is None else facts.taken
    encoding = "" if facts is None else facts.format.upper()
    checks = {
        "formats": lambda names: encoding in map(str.upper, names),
        "min_width": lambda least: image.width >= least,
        "min_height": lambda least: image.height >= least,
        "min_bytes": lambda least: (facts is not None and facts.bytes >= least) or least == -1,
        "max_bytes": lambda most: facts is not None and facts.bytes <= most,
        "taken_after": lambda _: taken is not None and taken >= seconds["taken_after"],
        "taken_before": lambda _: taken is not None and taken < seconds["taken_before"],
        "added_after": lambda _: image.created >= seconds["added_after"],
        "added_before": lambda _: image.created < seconds["added_before"],
    }
    sized = larger is None or image.width * image.height > larger
    return sized and all(checks[name](value) for name, value in wanted.items())


@settings(deadline=None)
@given(
    batches=st.lists(st.lists(WRITES | st.integers(0, 9), max_size=6), min_size=1, max_size=4),
    wanted=CONDITIONS,
    larger=st.none() | st.integers(0, 9),
    compacted=st.booleans(),
)
def test_exactly_the_images_that_meet_the_conditions_match_at_every_moment(
    batches: list[list[ImageWrite | int]],
    wanted: dict[str, Any],
    larger: int | None,
    compacted: bool,
) -> None:
    store, columns = MemoryStore(), ImageColumns()
    for batch in batches:
        for change in batch:
            if isinstance(change, int):
                store.delete(change)
            else:
                store.put(change)
        if compacted:
            store.compact(store.head())
        images = store.images(limit=100)
        expected = [image.image_id for image in images if meets(image, wanted, larger)]
        assert columns.matching(store, Filter(**wanted), larger).tolist() == expected


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = LmdbStore(tmp_path / "store")
    yield opened
    opened.close()


def test_many_images_are_read_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.ingress.listing.columns.PAGE", 7)
    columns = ImageColumns()
    store.put_many([picture(at, str(at), width=at) for at in range(40)])
    wanted = Filter(min_width=20)
    assert columns.matching(store, wanted, None).tolist() == list(range(20, 40))
    store.put_many([picture(at, str(at), width=at) for at in range(40, 80)])
    store.delete(20)
    assert columns.matching(store, wanted, None).tolist() == list(range(21, 80))


def test_another_store_is_read_anew(store: Store) -> None:
    columns = ImageColumns()
    store.put(picture(1))
    assert columns.matching(store, Filter(), 0).tolist() == [1]
    other = MemoryStore()
    other.put(picture(2))
    assert columns.matching(other, Filter(), 0).tolist() == [2]


@pytest.mark.parametrize("name", ["jpg", "JPEG2000", "", 7, None])
def test_an_unknown_format_is_refused_and_the_known_ones_are_named(name: object) -> None:
    with pytest.raises(ValidationError, match="JPEG 2000"):
        Filter(formats=[name])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ENCODING_NAMES)
def test_every_format_is_known_in_any_case(name: str) -> None:
    assert Filter(formats=[name.upper(), name.lower()]).formats == [name, name]


def test_a_moment_without_an_offset_is_utc_and_a_date_is_its_midnight() -> None:
    asked = Filter.model_validate_json(
        '{"taken_after": "2021-06-05T12:00:00+02:00", "taken_before": "2021-06-05T12:00:00", '
        '"added_after": "2021-06-05"}'
    )
    noon = datetime(2021, 6, 5, 12, tzinfo=UTC)
    assert asked.taken_after == noon.replace(hour=10)
    assert asked.taken_before == noon
    assert asked.added_after == noon.replace(hour=0)
