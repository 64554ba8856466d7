"""The page on frames: written from the catalogue, with examples that run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import pytest
from scored_runs import choice_samples, drawn, stored_run
from speed_records import sweep
from stored_sweeps import store_sweep

import mambabench
from mambabench.frames.columns import FRAMES, columns_of
from mambabench.frames.samples import COLUMNS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("frame_texts", ROOT / "tools" / "frame_texts.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_page_is_up_to_date(tool: ModuleType) -> None:
    assert (ROOT / "docs" / "frames.md").read_text(encoding="utf-8") == tool.render()


def test_every_column_of_every_frame_is_told_of(tool: ModuleType) -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", tool.render(), re.MULTILINE | re.DOTALL))
    for name in FRAMES:
        for column in columns_of(name):
            if not column.name.endswith(("_low", "_high", "_method")) or name != "speed":
                assert f"| `{column.name}` |" in sections[name]
    assert all(f"| `{column.name}` |" in sections["samples"] for column in COLUMNS)
    assert "`<figure>_low`" in sections["speed"]


def test_tables_of_the_page_are_whole(tool: ModuleType) -> None:
    for line in tool.render().splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5)


@pytest.mark.parametrize("place", range(7))
def test_examples_run(tool: ModuleType, tmp_path: Path, place: int) -> None:
    samples = choice_samples(*drawn(30))
    for name in ("a", "b"):
        stored_run(tmp_path, name, {"piqa": samples})
    store_sweep(tmp_path / "sweep", sweep(prompt_lens=(128, 512), processes=2))
    assert len(tool.EXAMPLES) == 7
    known: dict[str, Any] = {"runs": mambabench.load_runs(tmp_path)}
    mpl.use("Agg")
    exec(tool.EXAMPLES[place][1], known)
    import matplotlib.pyplot as plt

    plt.close("all")
