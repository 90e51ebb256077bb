"""Finds images that lack features, even if a kind has several spaces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from indexes.store.base import Image, Space, Store

PAGE = 1024


def missing_spaces(
    store: Store, spaces: Collection[Space], image_ids: Sequence[int]
) -> dict[int, set[Space]]:
    """For each existing id, the given spaces in which it has no row."""
    missing: dict[int, set[Space]] = {}
    left = list(dict.fromkeys(spaces))
    while left:
        one_a_kind = dict(left)  # `Store.missing` takes one fingerprint per kind.
        left = [space for space in left if one_a_kind[space.kind] != space.fingerprint]
        for image_id, kinds in store.missing(one_a_kind, image_ids).items():
            lacking = {Space(kind, one_a_kind[kind]) for kind in kinds}
            missing.setdefault(image_id, set()).update(lacking)
    return missing


def lacking(
    store: Store, spaces: Collection[Space], after: int = -1
) -> Iterator[list[tuple[Image, set[Space]]]]:
    """Yield the images above `after` that want a kind but have no row in one of its spaces.

    Each image comes with the spaces that it lacks. Pages are by ascending id; one may be empty.
    """
    while images := store.images(after, PAGE):
        after = images[-1].image_id
        missing = missing_spaces(store, spaces, [image.image_id for image in images])
        named = ((image, _wanted(image, missing.get(image.image_id, set()))) for image in images)
        yield [(image, lacks) for image, lacks in named if lacks]


def _wanted(image: Image, spaces: Collection[Space]) -> set[Space]:
    return {space for space in spaces if space.kind in image.wanted}
