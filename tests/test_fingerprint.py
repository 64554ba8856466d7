from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.fingerprint import canonical_json, digest, file_sha256
from mambabench.schema import FileRecord

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_canonical_json_reads_back_and_does_not_depend_on_order(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    if isinstance(value, dict):
        assert digest(dict(reversed(value.items()))) == digest(value)


def test_records_and_paths_count_by_content() -> None:
    record = FileRecord(name="a", size_bytes=1, sha256="0")
    assert digest({"file": record, "at": Path("x/y")}) == digest(
        {"at": "x/y", "file": {"name": "a", "size_bytes": 1, "sha256": "0"}}
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        digest(value)


def test_unknown_types_are_refused() -> None:
    with pytest.raises(TypeError, match="set has no canonical JSON form"):
        digest({1, 2})


def test_file_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "f").write_bytes(data)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(data).hexdigest()
