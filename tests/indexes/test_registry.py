from __future__ import annotations

import subprocess
import sys

import pytest

from indexes.registry import index_names, make_index
from models.errors import InvalidInput, UnknownName


def test_an_unknown_index_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"no index 'hnsw'.*binary.*histogram.*local.*text"):
        make_index("hnsw", {}, lambda _: {})


def test_a_misspelt_option_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput, match=r"(?s)options of index 'binary'.*bitz"):
        make_index("binary", {"bitz": 64}, lambda _: {})


@pytest.mark.parametrize("bits", [0, 65, 8256, "wide"])
def test_a_code_length_out_of_its_limits_is_refused(bits: object) -> None:
    with pytest.raises(InvalidInput, match="bits"):
        make_index("binary", {"bits": bits}, lambda _: {})


@pytest.mark.parametrize(
    ("name", "kind"),
    [("binary", "binary-flat"), ("histogram", "l1-pyramid"), ("vectors", "cosine-flat")],
)
def test_an_index_is_made_empty(name: str, kind: str) -> None:
    index = make_index(name, {}, lambda _: {})
    assert (len(index), index.kind) == (0, kind)
    assert 0 < index.nbytes < 2_000_000


def test_naming_the_indexes_loads_none_of_their_libraries() -> None:
    script = (
        "import sys; from indexes.registry import index_names; names = index_names();"
        "heavy = {'numba', 'faiss', 'ray', 'fastapi', 'lmdb'} & set(sys.modules);"
        "assert not heavy, heavy; print(*names)"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert told.stdout.decode().split() == index_names()
