from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.arrays.kernels import count_nearest, drop_ids, find_ids, put_ids
from indexes.arrays.rows import SEGMENT
from indexes.base import Hit, Query
from indexes.hamming.index import BinaryIndex
from indexes.hamming.kernels import hamming_kernel
from models.errors import InvalidInput

Codes = dict[int, npt.NDArray[np.uint8]]


def make(bits: int = 576) -> BinaryIndex:
    return BinaryIndex(BinaryIndex.Config(bits=bits), lambda _: {})


def random_codes(count: int, bits: int = 576, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, bits // 8), np.uint8)


def flipped(code: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Return the code with its first `bits` bits flipped."""
    mask = np.zeros(code.size * 8, np.uint8)
    mask[:bits] = 1
    return code ^ np.packbits(mask)


def search(
    index: BinaryIndex,
    variants: Sequence[npt.NDArray[np.uint8]],
    allowed: Sequence[int] | None = None,
    **given: float,
) -> list[Hit]:
    ids = None if allowed is None else np.array(allowed, np.int64)
    return index.search(Query(variants, ids), index.Params.parse(given))


def brute_force(
    codes: Codes,
    variants: Sequence[npt.NDArray[np.uint8]],
    allowed: Sequence[int] | None = None,
    k: int | None = None,
    distance_threshold: float = np.inf,
) -> list[Hit]:
    hits = []
    for image_id, code in codes.items():
        gaps = [int(np.unpackbits(code ^ variant).sum()) for variant in variants]
        if min(gaps) < distance_threshold and (allowed is None or image_id in allowed):
            odd = gaps.index(min(gaps)) % 2 == 1
            hits.append(
                Hit(image_id, distance=min(gaps), mirrored=odd if len(variants) > 1 else None)
            )
    return sorted(hits, key=lambda hit: (hit.distance, hit.image_id))[:k]


def test_the_nearest_codes_come_first_with_their_distances() -> None:
    index = make()
    code = random_codes(1)[0]
    index.apply({7: flipped(code, 30), 3: code, 5: flipped(code, 576)})
    assert search(index, [code], k=5) == [
        Hit(3, distance=0),
        Hit(7, distance=30),
        Hit(5, distance=576),
    ]


def test_the_threshold_itself_is_not_found() -> None:
    index = make()
    code = random_codes(1)[0]
    index.apply({1: flipped(code, 63), 2: flipped(code, 64)})
    assert [hit.image_id for hit in search(index, [code], distance_threshold=64)] == [1]
    assert [hit.image_id for hit in search(index, [code], distance_threshold=64.5)] == [1, 2]
    assert search(index, [code], distance_threshold=0.5) == []


def test_a_copy_of_the_mirror_image_is_found_once_and_called_mirrored() -> None:
    index = make()
    code, mirror = random_codes(2)
    index.apply({1: code, 2: flipped(mirror, 10), 3: flipped(code, 11)})
    assert search(index, [code, mirror], distance_threshold=64) == [
        Hit(1, distance=0, mirrored=False),
        Hit(2, distance=10, mirrored=True),
        Hit(3, distance=11, mirrored=False),
    ]


def test_every_odd_one_of_the_eight_symmetries_is_mirrored() -> None:
    index = make()
    variants = list(random_codes(8))
    index.apply(dict(enumerate(variants)))
    hits = search(index, variants, distance_threshold=1)
    assert [hit.mirrored for hit in hits] == [False, True] * 4


@pytest.mark.parametrize("words", [3, 9])
@pytest.mark.parametrize("variants", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_a_row_is_as_far_as_its_nearest_variant(words: int, variants: int, count: int) -> None:
    rng = np.random.default_rng(count)
    queries = rng.integers(0, 1 << 64, (variants, words), np.uint64)
    rows = queries[rng.integers(0, variants, count)]
    # Rows in which no bit, all bits, or a random share of the bits is flipped.
    odds = rng.choice([0, 0.1, 0.5, 1], (count, 1))
    bits = rng.random((count, words * 64)) < odds
    rows = rows ^ np.packbits(bits, axis=1).view(np.uint64)
    out = np.full(count, 9999, np.uint16)
    hamming_kernel(words, variants)(rows, queries, out)
    gaps = np.bitwise_count(rows[:, None] ^ queries).sum(axis=2, dtype=np.uint16)
    np.testing.assert_array_equal(out, gaps.min(axis=1, initial=65535))


def test_where_two_variants_tie_the_picture_as_it_is_wins() -> None:
    index = make()
    code = random_codes(1)[0]
    index.apply({1: code})
    assert search(index, [code, code], k=1) == [Hit(1, distance=0, mirrored=False)]


def test_a_removed_id_is_found_no_more_and_its_neighbours_still_are() -> None:
    index = make()
    codes = random_codes(50)
    index.apply(dict(enumerate(codes)))
    index.apply({10: None, 49: None})
    assert len(index) == 48
    kept = {key: code for key, code in enumerate(codes) if key not in (10, 49)}
    for code in codes:
        assert search(index, [code], k=50) == brute_force(kept, [code], k=50)


def test_a_removed_id_can_come_back_as_another_picture() -> None:
    index = make()
    old, new = random_codes(2)
    index.apply({5: old})
    index.apply({5: None})
    index.apply({5: new})
    assert search(index, [new], k=2) == [Hit(5, distance=0)]
    assert search(index, [old], distance_threshold=64) == []


def test_a_replaced_code_is_found_only_as_it_is_now() -> None:
    index = make()
    old, new = random_codes(2)
    index.apply({5: old})
    index.apply({5: new})
    assert len(index) == 1
    assert search(index, [old], distance_threshold=64) == []


def test_removing_what_is_not_there_changes_nothing() -> None:
    index = make()
    index.apply({9: None})
    index.apply({1: random_codes(1)[0], 9: None})
    assert len(index) == 1


def test_only_allowed_ids_are_found() -> None:
    index = make()
    codes = dict(enumerate(random_codes(300)))
    index.apply(codes)
    for allowed in ([4, 299, 1000], list(range(0, 300, 2))):
        query = [codes[0]]
        assert search(index, query, allowed, k=200) == brute_force(codes, query, allowed, 200)


def test_a_code_of_another_length_is_refused_and_nothing_applied() -> None:
    index = make()
    good = random_codes(1)[0]
    index.apply({9: good})
    for bad in (good[:71], good.astype(np.int64), good.reshape(1, 72)):
        with pytest.raises(InvalidInput, match=r"a code is uint8 \(72,\)"):
            index.apply({1: good, 2: bad})
        with pytest.raises(InvalidInput, match=r"a code is uint8 \(72,\)"):
            search(index, [bad], k=1)
        assert len(index) == 1


def test_an_emptied_index_finds_nothing() -> None:
    index = make()
    index.apply({1: random_codes(1)[0]})
    index.apply({1: None})
    assert search(index, [random_codes(1)[0]], k=3) == []


def test_ids_as_large_as_the_contract_allows_are_kept() -> None:
    index = make(64)
    codes = random_codes(3, 64)
    ids = [0, 2**31, 2**47 - 1]
    index.apply(dict(zip(ids, codes, strict=True)))
    assert [search(index, [code], k=1)[0].image_id for code in codes] == ids


def test_rows_beyond_a_segment_are_found_after_growth_and_removal() -> None:
    index = make(64)
    count = 2 * SEGMENT + 100
    codes = random_codes(count, 64)
    for start in range(0, count, 50_000):
        ids = range(start, min(start + 50_000, count))
        index.apply({key: codes[key] for key in ids})
    bytes_full = index.nbytes
    # Remove the even ids: each of the last rows moves into a hole of another segment.
    index.apply(dict.fromkeys(range(0, count, 2)))
    left = np.arange(1, count, 2)
    assert len(index) == len(left)
    for key in (1, 3, SEGMENT - 1, SEGMENT + 1, count - 1):
        gaps = np.bitwise_count(codes[left] ^ codes[key]).sum(axis=1)
        order = np.lexsort((left, gaps))[:20]
        found = [(hit.image_id, hit.distance) for hit in search(index, [codes[key]], k=20)]
        assert found == list(zip(left[order].tolist(), gaps[order].tolist(), strict=True))
    index.apply(dict.fromkeys(left.tolist()))
    assert index.nbytes < bytes_full


def test_the_smallest_ids_win_where_many_codes_are_the_same() -> None:
    index = make(64)
    code = random_codes(1, 64)[0]
    ids = np.random.default_rng(3).permutation(1000).tolist()
    index.apply(dict.fromkeys(ids, code))
    assert [hit.image_id for hit in search(index, [code], k=10)] == list(range(10))


def test_no_query_waits_for_a_compiler() -> None:
    index = make()
    kernels = [hamming_kernel(9, 1), hamming_kernel(9, 2), hamming_kernel(3, 8)]
    kernels += [find_ids, put_ids, drop_ids, count_nearest]
    compiled = [len(kernel.signatures) for kernel in kernels]
    codes = random_codes(40)
    # Read-only, like arrays from Ray's object store and from an LMDB page.
    codes.setflags(write=False)
    allowed = np.arange(30)
    allowed.setflags(write=False)
    index.apply(dict(enumerate(codes)))
    for variants in (codes[:1], codes[:2], codes[:8]):
        for wish in ({"k": 3}, {"distance_threshold": 9}):
            index.search(Query(list(variants), allowed), index.Params.parse(wish))
    assert [len(kernel.signatures) for kernel in kernels] == compiled == [1] * len(kernels)


steps = st.lists(
    st.dictionaries(st.integers(0, 40), st.none() | st.integers(0, 11), min_size=1, max_size=25),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(
    steps,
    st.lists(st.integers(0, 11), min_size=1, max_size=8),
    st.none() | st.lists(st.integers(0, 45), unique=True).map(sorted),
    st.none() | st.integers(1, 50),
    st.none() | st.integers(1, 70),
)
def test_any_changes_leave_it_equal_to_brute_force(
    changes: list[dict[int, int | None]],
    asked: list[int],
    allowed: list[int] | None,
    k: int | None,
    threshold: int | None,
) -> None:
    # Few codes with few set bits make many ties.
    pool = np.concatenate([random_codes(4, 64), random_codes(8, 64) & np.uint8(1)])
    index, kept = make(64), Codes()
    for step in changes:
        index.apply({key: None if which is None else pool[which] for key, which in step.items()})
        for key, which in step.items():
            if which is None:
                kept.pop(key, None)
            else:
                kept[key] = pool[which]
    if k is None and threshold is None:
        k = 5
    given = {"k": k} if threshold is None else {"k": k, "distance_threshold": threshold}
    given = {name: value for name, value in given.items() if value is not None}
    variants = [pool[which] for which in asked]
    assert len(index) == len(kept)
    expected = brute_force(kept, variants, allowed, **given)  # type: ignore[arg-type]
    assert search(index, variants, allowed, **given) == expected


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 575), max_size=110, unique=True), min_size=1, max_size=12),
    st.lists(st.integers(0, 11), min_size=1, max_size=4),
    st.none() | st.lists(st.integers(0, 40), unique=True).map(sorted),
    st.none() | st.integers(1, 9),
    st.integers(1, 130),
)
def test_long_codes_are_found_wherever_their_bits_differ(
    changed: list[list[int]],
    asked: list[int],
    allowed: list[int] | None,
    k: int | None,
    threshold: int,
) -> None:
    """All differing bits of a copy may lie in one part of its code."""
    codes: Codes = dict(enumerate(random_codes(40, seed=1)))
    for image_id, bits in enumerate(changed):
        mask = np.zeros(576, np.uint8)
        mask[bits] = 1
        codes[image_id] = codes[39] ^ np.packbits(mask)
    index = make()
    index.apply(codes)
    variants = [codes[which] for which in asked]
    given: dict[str, float] = {"distance_threshold": threshold} | ({"k": k} if k else {})
    expected = brute_force(codes, variants, allowed, k=k, distance_threshold=threshold)
    assert search(index, variants, allowed, **given) == expected


def test_bits_outside_a_querys_mask_do_not_count() -> None:
    code = random_codes(1)[0]
    index = make()
    index.apply({1: flipped(code, 200), 2: random_codes(1, seed=1)[0]})
    mask = flipped(np.full(72, 255, np.uint8), 200)
    assert search(index, [np.concatenate([code, mask])], k=1) == [Hit(1, distance=0)]
    fewer = flipped(np.full(72, 255, np.uint8), 100)
    (hit,) = search(index, [np.concatenate([code, fewer])], k=1)
    assert hit.distance == 100 * 576 // 476


def test_a_query_of_hardly_any_bits_finds_nothing() -> None:
    code = random_codes(1)[0]
    index = make()
    index.apply({1: code})
    mask = np.packbits(np.arange(576) < 10)
    assert search(index, [np.concatenate([code, mask])], k=1) == []


def test_a_masked_mirror_image_is_told() -> None:
    code, other = random_codes(2)
    index = make()
    index.apply({1: other})
    mask = flipped(np.full(72, 255, np.uint8), 30)
    variants = [np.concatenate([one, mask]) for one in (code, other)]
    assert search(index, variants, k=1) == [Hit(1, distance=0, mirrored=True)]


def test_a_negative_is_found_where_it_is_asked_for() -> None:
    code, other = random_codes(2)
    index = make()
    index.apply({1: ~code})
    assert search(index, [code, other], distance_threshold=64) == []
    found = search(index, [code, other], distance_threshold=64, negatives=True)
    assert found == [Hit(1, distance=0, mirrored=False)]
    assert search(index, [code], distance_threshold=64, negatives=True) == [Hit(1, distance=0)]
