"""Results of lm-eval before 0.4: models by step, and numbers of items that no file states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import realdata
from foreign_results import old, shares, write
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.metrics import mean, mean_stderr

from mambabench.errors import UsageError
from mambabench.importers.detect import detect
from mambabench.importers.lm_eval import Found, ReadOptions
from mambabench.importers.old_lm_eval import read_old_lm_eval
from mambabench.importers.totals import FROM_ERROR, is_share, n_behind
from mambabench.importers.write import ImportOptions, import_results
from mambabench.references import n_items
from mambabench.schema import ImportSettingsRecord
from mambabench.stats.intervals import wilson
from mambabench.store import StoredRun

PYTHIA = "EleutherAI/pythia-v1.1-160m"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def put(folder: Path, name: str, content: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def read(*paths: Path, **options: Any) -> Found:
    return read_old_lm_eval(detect(paths).files, ReadOptions(**options))


@given(n=st.integers(2, 5000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_number_of_items_follows_from_lm_evals_own_error(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(1, n - 1))
    items = [1.0] * right + [0.0] * (n - right)
    assert n_behind(mean(items), mean_stderr(items)) == n
    assert is_share(mean(items), mean_stderr(items), n)
    assert not is_share(mean(items), mean_stderr(items), n + 1)


def test_it_does_not_follow_from_other_errors() -> None:
    assert n_behind(0.0, 0.0) is None
    assert n_behind(1.0, 0.0) is None
    assert n_behind(0.3, None) is None
    # A mean of other numbers, and digits that were rounded away.
    assert n_behind(0.31234, 0.0123) is None
    share = shares(1838, acc=1000)
    assert n_behind(round(share["acc"], 3), share["acc_stderr"]) is None


def test_steps_become_models_of_one_run(tmp_path: Path, folder: Path) -> None:
    for step in (1000, 2, 0):
        put(folder, f"160m_step{step}.json", old(PYTHIA, f"step{step}"))
    outcome = import_results((folder,), ImportOptions(out=tmp_path / "out"))
    assert outcome.manifest.models == ("pythia-160m@step0", "pythia-160m@step2", "pythia-160m@step1000")
    assert outcome.manifest.name == "import-pythia-160m"
    assert [(r.task, r.metrics) for r in outcome.manifest.reads] == [
        ("lambada_openai", ("perplexity", "acc")),
        ("piqa", ("acc", "acc_norm")),
        ("hendrycksTest-anatomy", ("acc", "acc_norm")),
    ]
    assert isinstance(outcome.manifest.settings, ImportSettingsRecord)
    assert outcome.manifest.settings.format == "old lm-eval"
    assert len(outcome.manifest.settings.files) == 3
    stored = StoredRun(outcome.path).cells()
    assert len(stored) == 9
    (piqa,) = [c for c in stored if (c.model, c.task.task) == ("pythia-160m@step2", "piqa")]
    interval = wilson(1000, 1838)
    assert (piqa.task.n_docs, piqa.task.n_docs_total, piqa.partial) == (1838, 1838, False)
    assert (piqa.metrics[0].value, piqa.metrics[0].n) == (1000 / 1838, 1838)
    assert (piqa.metrics[0].interval_low, piqa.metrics[0].interval_high) == (interval.low, interval.high)
    (lambada,) = [c for c in stored if (c.model, c.task.task) == ("pythia-160m@step2", "lambada_openai")]
    perplexity = lambada.metrics[1]
    assert (perplexity.metric, perplexity.value, perplexity.n) == ("perplexity", 38.25, 5153)
    assert perplexity.interval_method == FROM_ERROR
    assert perplexity.interval_high == pytest.approx(38.25 + 1.96 * 1.5)
    assert not perplexity.higher_is_better
    assert StoredRun(outcome.path).read_samples(piqa.fingerprint) == []


@pytest.mark.parametrize(
    ("name", "pretrained", "revision", "model"),
    [
        ("160m_step8.json", PYTHIA, "step8", "pythia-160m@step8"),
        ("1.4b-step8.json", "EleutherAI/pythia-v1.1-1.4b", "step8", "pythia-1.4b@step8"),
        ("results.json", "EleutherAI/pythia-v1.1-160m", "step8", "pythia-160m@step8"),
        ("160m_step8.json", "EleutherAI/pythia-160m-v0", "step8", "EleutherAI/pythia-160m-v0@step8"),
        ("seed2_step8.json", "./runs/tiny", "step8", "tiny@step8"),
        ("160m-deduped_step8.json", "EleutherAI/pythia-160m-deduped", "step8", None),
    ],
)
def test_models_are_named_by_the_content(
    folder: Path, name: str, pretrained: str, revision: str, model: str | None
) -> None:
    found = read(put(folder, name, old(pretrained, revision)))
    assert {cell.model for cell in found.cells} == {model or f"{pretrained}@{revision}"}


@pytest.mark.parametrize(
    ("name", "pretrained", "revision"),
    [
        ("160m_step8.json", PYTHIA, "step16"),
        ("410m_step8.json", PYTHIA, "step8"),
        ("4b_step8.json", "EleutherAI/pythia-v1.1-1.4b", "step8"),
        ("160m_step8.json", "EleutherAI/pythia-160m-deduped", "step8"),
    ],
)
def test_a_name_that_contradicts_the_content_is_an_error_with_both(
    folder: Path, name: str, pretrained: str, revision: str
) -> None:
    path = put(folder, name, old(pretrained, revision))
    with pytest.raises(UsageError, match=rf"is by its name {path.stem}, by its content .*@{revision}"):
        read(path)


def test_a_step_that_only_the_name_tells_is_taken(folder: Path) -> None:
    content = old(PYTHIA, "main")
    content["config"]["model_args"] = f"pretrained={PYTHIA}"
    found = read(put(folder, "160m_step8.json", content))
    assert found.cells[0].model == "pythia-160m@step8"


def test_what_one_file_does_not_tell_others_do(folder: Path) -> None:
    first, second = old(PYTHIA, "step0"), old(PYTHIA, "step1")
    nothing = {"acc": 0.0, "acc_stderr": 0.0}
    for task in ("hendrycksTest-anatomy", "piqa"):
        first["results"][task] = dict(nothing)
    del second["results"]["piqa"]
    found = read(put(folder, "160m_step0.json", first), put(folder, "160m_step1.json", second))
    mine = {(cell.model[-1], cell.task.task): cell for cell in found.cells}
    anatomy = mine["0", "hendrycksTest-anatomy"]
    assert (anatomy.task.n_docs, anatomy.metrics[0].interval_high) == (135, wilson(0, 135).high)
    # No other file has it, but published figures do.
    assert mine["0", "piqa"].task.n_docs == n_items("piqa") == 1838
    assert all("by other files or published figures" in line for line in found.remarks)
    assert mine["1", "hendrycksTest-anatomy"].warnings == ()


def test_a_number_that_follows_from_nothing_is_not_made_up(folder: Path) -> None:
    content = old(PYTHIA, "step0", limit=100)
    content["results"] = {
        "piqa": {"acc": 0.0, "acc_stderr": 0.0},
        "toxicity": {"score": 31.5, "score_stderr": 2.0, "rate": 0.25},
        "winogrande": shares(100, acc=40) | {"acc_norm": 0.5, "acc_norm_stderr": 0.07},
    }
    found = read(put(folder, "160m_step0.json", content))
    piqa, toxicity, winogrande = found.cells
    assert (piqa.task.n_docs, piqa.metrics[0].n, piqa.metrics[0].interval_low) == (0, 0, None)
    assert piqa.partial
    assert (toxicity.metrics[0].n, toxicity.metrics[0].interval_method) == (0, FROM_ERROR)
    assert toxicity.metrics[1].interval_method == ""
    assert "piqa: the number of items follows from no standard error" in found.remarks
    assert (winogrande.task.n_docs, winogrande.task.n_docs_total, found.limit) == (100, 1267, 100)
    # This error is not that of a hundred items that are right or wrong.
    assert winogrande.metrics[1].interval_method == FROM_ERROR


def test_another_number_of_items_than_published_is_said(folder: Path) -> None:
    content = old(PYTHIA, "step0")
    content["results"]["piqa"] = shares(1000, acc=400)
    found = read(put(folder, "160m_step0.json", content))
    assert "piqa: over 1,000 items, published figures are over 1,838" in found.remarks


def test_bad_files_are_told(folder: Path) -> None:
    one = put(folder, "160m_step0.json", old(PYTHIA, "step0"))
    two = put(folder, "again_step0.json", old(PYTHIA, "step0"))
    with pytest.raises(UsageError, match=r"both hold pythia-160m@step0 on piqa"):
        read(one, two)
    two.unlink()
    content = old(PYTHIA, "step0")
    content["results"]["piqa"]["acc"] = float("nan")
    with pytest.raises(UsageError, match="acc of piqa is nan"):
        read(put(folder, "160m_step0.json", content))
    content["results"]["piqa"]["acc"] = "high"
    with pytest.raises(UsageError, match="acc of piqa is no number"):
        read(put(folder, "160m_step0.json", content))
    with pytest.raises(UsageError, match="--time picks among"):
        read(put(folder, "160m_step0.json", old(PYTHIA, "step0")), time="2024")
    with pytest.raises(UsageError, match="of a version before"):
        detect([one, write(folder / "new")])


@pytest.mark.realdata
def test_published_pythia_results_import_whole(tmp_path: Path) -> None:
    where = realdata.data_dir().parent / "results"
    folders = [where / f"pythia-{size}" / "zero-shot" for size in ("160m", "410m", "1.4b")]
    files = detect(folders).files
    found = read_old_lm_eval(files, ReadOptions())
    assert len(found.cells) == 3 * 27 * 87
    models = list(dict.fromkeys(cell.model for cell in found.cells))
    steps = [0, *(2**i for i in range(10)), 1000, 3000, *range(13000, 153000, 10000)]
    assert models == [f"pythia-{size}@step{n}" for size in ("160m", "410m", "1.4b") for n in steps]
    by_source = {file.record.sha256: file.content["results"] for file in files}
    for cell in found.cells:
        entry = by_source[cell.source.sha256][cell.task.task]
        stated = {"perplexity" if k == "ppl" else k: v for k, v in entry.items() if "stderr" not in k}
        assert {m.metric: m.value for m in cell.metrics} == stated
    # Each number of items follows from errors alone, and all models agree on it.
    sizes = {(cell.task.task, cell.task.n_docs) for cell in found.cells}
    assert len(sizes) == 87
    assert sum(n for task, n in sizes if task.startswith("hendrycksTest-")) == n_items("mmlu")
    known = {task: n for task, n in sizes if n_items(task)}
    assert len(known) == 5
    assert known == {task: n_items(task) for task in known}
    some = ("piqa", "lambada_openai")
    outcome = import_results(folders[:1], ImportOptions(out=tmp_path, tasks=some))
    assert len(StoredRun(outcome.path).cells()) == 27 * len(some)
