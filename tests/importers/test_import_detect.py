"""Which files of a folder are results, and what is said of a path that holds none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from foreign_results import write

from mambabench.errors import UnknownNameError, UsageError
from mambabench.importers.write import ImportOptions, ImportOutcome, import_results


def imported(tmp_path: Path, *paths: Path, **options: Any) -> ImportOutcome:
    return import_results(paths or (tmp_path / "in",), ImportOptions(out=tmp_path / "out", **options))


def test_paths_that_hold_nothing_say_what_would(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="empty holds no results of lm-eval"):
        imported(tmp_path, empty)
    with pytest.raises(UsageError, match=r"cannot read .*nowhere\.json: No such file"):
        imported(tmp_path, tmp_path / "nowhere.json")
    path = write(tmp_path / "in")
    beside = next(path.parent.glob("samples_t_mc*"))
    with pytest.raises(UsageError, match="holds samples, no results"):
        imported(tmp_path, beside)
    with pytest.raises(UnknownNameError, match="unknown task 't_mx'") as caught:
        imported(tmp_path, path, tasks=("t_mx",))
    assert "t_mc" in caught.value.hint
    run = imported(tmp_path, path).path
    with pytest.raises(UsageError, match="is a run of mambabench"):
        imported(tmp_path, run)
    path.write_text('{"results": {}}')
    with pytest.raises(UsageError, match=rf"{path.name} holds no results of lm-eval"):
        imported(tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match="holds samples of lm-eval, but no results file"):
        imported(tmp_path)


def test_copies_and_results_of_one_time_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a")
    write(tmp_path / "in" / "b")
    with pytest.raises(UsageError, match="both hold org/small on t_mc, and neither is the later"):
        imported(tmp_path)


def test_other_json_in_a_folder_is_passed_over_and_said_to_be(tmp_path: Path) -> None:
    write(tmp_path / "in", samples=False)
    (tmp_path / "in" / "config.json").write_text("{}")
    assert imported(tmp_path).remarks[0].startswith("1 other JSON file is no results of lm-eval")
    (tmp_path / "in" / "half.json").write_text("{")
    with pytest.raises(UsageError, match=r"half\.json is not JSON"):
        imported(tmp_path)
