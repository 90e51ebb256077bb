"""Numba kernels of the text index. They release the GIL and run on one core.

Call them with writable, contiguous arrays of the named dtypes; any other array would compile
another kernel. `TextIndex` calls each once when it is built.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from indexes.arrays.intrinsics import popcount

MICRO = 1_000_000
"""Scores are whole millionths, so that equal scores tie exactly."""


@njit(nogil=True, cache=True)
def find_substring(blob, starts, needle, found):  # type: ignore[no-untyped-def]
    """Write which words contain the needle (uint8) into `found` (int32). Returns their number.

    Word w is the UTF-8 `blob[starts[w]:starts[w + 1]]` (uint8, int64). A match always begins and
    ends at whole characters.
    """
    count = 0
    size = len(needle)
    first = needle[0]
    for word in range(len(starts) - 1):
        for place in range(starts[word], starts[word + 1] - size + 1):
            if blob[place] != first:
                continue
            same = 1
            while same < size and blob[place + same] == needle[same]:
                same += 1
            if same == size:
                found[count] = word
                count += 1
                break
    return count


@njit(nogil=True, cache=True)
def find_similar(signatures, lengths, signature, length, edits, found):  # type: ignore[no-untyped-def]
    """Write which words may be within so many edits into `found` (int32). Returns their number.

    No word within that distance is missed: an edit changes the length by at most 1 and the
    signature (uint64) by at most 2 bits.
    """
    count = 0
    for word in range(len(lengths)):
        gap = np.int64(lengths[word]) - length
        if -edits <= gap <= edits and popcount(signatures[word] ^ signature) <= 2 * edits:
            found[count] = word
            count += 1
    return count


@njit(nogil=True, cache=True)
def group_by_word(words, slots, starts, grouped):  # type: ignore[no-untyped-def]
    """Counting sort of pairs (int32, int32) by word into `starts` (words + 1, int64, zeros) and
    `grouped`.

    Slots of one word keep their order.
    """
    for word in words:
        starts[word + 1] += 1
    for word in range(len(starts) - 1):
        starts[word + 1] += starts[word]
    places = starts[:-1].copy()
    for pair in range(len(words)):
        grouped[places[words[pair]]] = slots[pair]
        places[words[pair]] += 1


@njit(nogil=True, cache=True)
def best_grouped(starts, slots, candidates, quality, alive, best):  # type: ignore[no-untyped-def]
    """Raise `best` (float32, by slot) to the quality (float32, by word) of candidate words there.

    Candidates (int64) that are newer than `starts` are skipped.
    """
    known = len(starts) - 1
    for word in candidates:
        if word >= known:
            continue
        value = quality[word]
        for place in range(starts[word], starts[word + 1]):
            slot = slots[place]
            if alive[slot] and value > best[slot]:
                best[slot] = value


@njit(nogil=True, cache=True)
def best_paired(words, slots, quality, alive, best):  # type: ignore[no-untyped-def]
    """The same for unsorted pairs (int32, int32)."""
    for pair in range(len(words)):
        value = quality[words[pair]]
        slot = slots[pair]
        if value > best[slot] and alive[slot]:
            best[slot] = value


@njit(nogil=True, cache=True)
def count_best(best):  # type: ignore[no-untyped-def]
    """Number of slots that have the highest quality; 0 where no slot has any."""
    top = np.float32(0)
    count = 0
    for value in best:
        if value > top:
            top = value
            count = 1
        elif value == top and value > 0:
            count += 1
    return count


@njit(nogil=True, cache=True)
def add_weighted(best, weight, totals, matched):  # type: ignore[no-untyped-def]
    """Add weight × best to `totals` (float32), and 1 to `matched` (uint8), where there is a
    match."""
    for slot in range(len(best)):
        if best[slot] > 0:
            totals[slot] += np.float32(weight) * best[slot]
            matched[slot] += 1


@njit(nogil=True, cache=True)
def finish_scores(totals, matched, weights, words, scores):  # type: ignore[no-untyped-def]
    """Write scores (int32, millionths): totals over the sum of weights, reduced for missing
    words."""
    for slot in range(len(totals)):
        if matched[slot] == 0:
            scores[slot] = 0
        else:
            share = (1 + matched[slot] / words) / 2
            scores[slot] = max(1, round(totals[slot] / weights * share * MICRO))
