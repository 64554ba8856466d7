"""From cells to rows: units, references, verdicts, pooling, averages."""

from __future__ import annotations

import io
import json

import pytest

from mambabench.schema import CellRecord, MetricRecord, TaskRecord
from mambabench.stats.intervals import wilson
from mambabench.suite import Suite, load_suite
from mambabench.tables.terminal import footnotes, render
from mambabench.tables.zeroshot import Row, ZeroshotTable, build_table

N_ITEMS = {
    "lambada_openai": 5153, "hellaswag": 10042, "piqa": 1838, "arc_easy": 2376, "arc_challenge": 1172,
    "winogrande": 1267,
}  # fmt: skip


def metric(name: str, value: float, n: int = 1000, unit: str = "fraction") -> MetricRecord:
    binary = unit == "fraction"
    interval = wilson(round(value * n), n) if binary else None
    return MetricRecord(
        metric=name,
        value=value,
        unit=unit,  # type: ignore[arg-type]
        interval_low=interval.low if interval else value * 0.95,
        interval_high=interval.high if interval else value * 1.05,
        interval_method="wilson" if binary else "t on mean log-likelihood",
        n=n,
    )


def cell(
    task: str, *metrics: MetricRecord, model: str = "mamba-130m", group: str = "", n_total: int | None = None,
    n_docs: int | None = None, n_fewshot: int = 0, error: str = "",
) -> CellRecord:  # fmt: skip
    n_total = n_total or N_ITEMS.get(task, 1000)
    n_docs = n_docs or n_total
    record = TaskRecord(
        task=task, group=group, version="1.0", config_sha256="", output_type="multiple_choice",
        n_fewshot=n_fewshot, n_docs=n_docs, n_docs_total=n_total, requests_sha256="", data=(),
    )  # fmt: skip
    return CellRecord(
        fingerprint=f"{model}{task}",
        checkpoint_fingerprint=model,
        model=model,
        task=record,
        status="failed" if error else "ok",
        partial=n_docs < n_total,
        metrics=metrics,
        error=error,
    )


# The Mamba paper's own row of mamba-130m, to the digit.
PAPER = [
    cell("lambada_openai", metric("perplexity", 16.07, unit="perplexity"), metric("acc", 0.443)),
    cell("hellaswag", metric("acc_norm", 0.353), metric("acc", 0.3)),
    cell("piqa", metric("acc", 0.645)),
    cell("arc_easy", metric("acc", 0.480)),
    cell("arc_challenge", metric("acc_norm", 0.243)),
    cell("winogrande", metric("acc", 0.519)),
]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("mamba-paper")


def table(suite: Suite, cells: list[CellRecord], *models: str) -> ZeroshotTable:
    return build_table(suite, [(m, m) for m in models or ("mamba-130m",)], cells)


def row(built: ZeroshotTable, task: str, name: str, model: str = "mamba-130m") -> Row:
    (found,) = [r for r in built.rows if (r.task, r.metric, r.model) == (task, name, model)]
    return found


def test_the_papers_own_figures_are_reproduced(suite: Suite) -> None:
    built = table(suite, PAPER)
    assert {r.verdict for r in built.rows} == {"reproduced"}
    assert len(built.rows) == 7
    (average,) = built.averages
    assert average.value == pytest.approx((44.3 + 35.3 + 64.5 + 48.0 + 24.3 + 51.9) / 6)
    assert average.reference == pytest.approx(average.value)


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.6480, "reproduced"), (0.6486, "differs"), (0.6414, "differs")]
)
def test_a_difference_beyond_the_stated_noise_and_rounding_is_one(
    suite: Suite, value: float, verdict: str
) -> None:
    built = table(suite, [*PAPER[:2], cell("piqa", metric("acc", value)), *PAPER[3:]])
    found = row(built, "piqa", "acc")
    assert found.verdict == verdict
    assert found.difference == pytest.approx(100 * value - 64.5)
    assert found.unit == "%"
    assert found.low is not None
    assert found.low < 100 * value


def test_a_partial_cell_gets_no_verdict(suite: Suite) -> None:
    built = table(suite, [*PAPER[:2], cell("piqa", metric("acc", 0.645, n=100), n_docs=100), *PAPER[3:]])
    found = row(built, "piqa", "acc")
    assert (found.verdict, found.n, found.n_total) == ("partial", 100, 1838)
    assert built.partial
    text = as_text(built)
    assert "PARTIAL" in text
    assert "100 of 1838" in text


def test_a_failed_cell_is_named_and_spoils_the_average(suite: Suite) -> None:
    built = table(suite, [*PAPER[:5], cell("winogrande", error="OSError: gone")])
    assert row(built, "winogrande", "acc").verdict == "failed"
    assert not built.averages
    assert any("OSError: gone" in line for line in footnotes(built, []))


def test_groups_are_pooled_by_items() -> None:
    cells = [
        cell("mmlu_anatomy", metric("acc", 0.5, n=100), group="mmlu", n_total=100, n_fewshot=5),
        cell("mmlu_virology", metric("acc", 0.2, n=300), group="mmlu", n_total=300, n_fewshot=5),
    ]
    built = build_table(load_suite("mmlu"), [("mamba-130m", None)], cells)
    (found,) = [r for r in built.rows if r.metric == "acc"]
    assert found.value == pytest.approx(100 * (50 + 60) / 400)
    assert (found.n, found.n_total) == (400, 400)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_no_reference_for_an_unpublished_model(suite: Suite) -> None:
    cells = [c.model_copy(update={"model": "mine"}) for c in PAPER]
    built = build_table(suite, [("mine", None)], cells)
    assert {r.verdict for r in built.rows} == {"no reference"}
    assert "published" not in as_text(built)


def test_several_models_stand_side_by_side(suite: Suite) -> None:
    other = [c.model_copy(update={"model": "pythia-160m"}) for c in PAPER]
    built = table(suite, PAPER + other, "mamba-130m", "pythia-160m")
    lines = as_text(built).splitlines()
    assert any("mamba-130m" in line and "pythia-160m" in line for line in lines)
    assert row(built, "piqa", "acc", "pythia-160m").verdict == "differs"


def test_text_from_data_is_not_taken_for_markup(suite: Suite) -> None:
    cells = [c.model_copy(update={"model": "[red]x[/nope]"}) for c in PAPER]
    assert "[red]x[/nope]" in as_text(build_table(suite, [("[red]x[/nope]", None)], cells))


def test_a_shortened_data_file_gets_no_verdict(suite: Suite) -> None:
    """The file's own number of rows says nothing: the published figure is over all of them."""
    built = table(suite, [*PAPER[:2], cell("piqa", metric("acc", 0.645, n=20), n_total=20), *PAPER[3:]])
    found = row(built, "piqa", "acc")
    assert (found.verdict, found.n, found.n_total) == ("partial", 20, 20)
    assert built.partial
    (average,) = built.averages
    assert average.reference is None


def test_a_group_is_not_pooled_over_some_of_its_members() -> None:
    members = [
        cell("mmlu_anatomy", metric("acc", 1.0, n=100), group="mmlu", n_total=100, n_fewshot=5),
        cell("mmlu_virology", group="mmlu", n_total=100, n_fewshot=5),
    ]
    (found,) = build_table(load_suite("mmlu"), [("mamba-130m", None)], members).rows
    assert (found.verdict, found.value) == ("failed", None)
    assert found.error == "mmlu_virology gave no acc that is a number"


def test_members_in_different_units_are_not_pooled() -> None:
    members = [
        cell("mmlu_anatomy", metric("acc", 0.5, n=100), group="mmlu", n_total=100),
        cell("mmlu_virology", metric("acc", 0.5, n=100, unit="score"), group="mmlu", n_total=100),
    ]
    (found,) = build_table(load_suite("mmlu"), [("mamba-130m", None)], members).rows
    assert "different units" in found.error


def test_two_results_for_one_task_are_not_pooled(suite: Suite) -> None:
    found = row(table(suite, [*PAPER, PAPER[2]]), "piqa", "acc")
    assert (found.verdict, found.error) == ("failed", "two results for one task")


def test_equal_labels_do_not_merge_rows(suite: Suite) -> None:
    tasks = tuple(t.model_copy(update={"label": "same"}) for t in suite.tasks)
    built = table(suite.model_copy(update={"tasks": tasks}), PAPER)
    assert len(built.rows) == 7
    assert built.averages[0].n_tasks == 6
    assert as_text(built).count("same") == 7


def test_the_filter_that_was_read_is_named(suite: Suite) -> None:
    filtered = metric("acc", 0.645).model_copy(update={"filter": "strict-match"})
    built = table(suite, [*PAPER[:2], cell("piqa", filtered), *PAPER[3:]])
    assert row(built, "piqa", "acc").filter == "strict-match"
    assert "acc (strict-match)" in as_text(built)


def test_json_is_plain(suite: Suite) -> None:
    plain = table(suite, PAPER).as_json()
    assert json.loads(json.dumps(plain, allow_nan=False))["rows"][0]["model"] == "mamba-130m"


def as_text(built: ZeroshotTable) -> str:
    stream = io.StringIO()
    render(built, stream)
    return stream.getvalue()
