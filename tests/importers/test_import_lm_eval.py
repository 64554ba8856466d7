"""Results of lm-eval 0.4 become runs with the same values, items and digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_results import RIGHT, TIME, results, rows, write
from lm_eval.utils import hash_string

from mambabench.compare.align import aligned_tasks
from mambabench.compare.result import CompareOptions
from mambabench.compare.sources import parse_given, sides_of
from mambabench.errors import UsageError
from mambabench.execute import run_zeroshot
from mambabench.importers.samples import hash_document, hash_text
from mambabench.importers.write import ImportOptions, ImportOutcome, import_results
from mambabench.schema import CellRecord, ImportSettingsRecord
from mambabench.stats.intervals import perplexity_interval, wilson
from mambabench.store import StoredRun
from mambabench.suite import suite_from_tasks
from mambabench.zeroshot import ZeroshotOptions

TASKS = ["smoke_choice", "smoke_lastword", "smoke_perplexity", "smoke_generate"]


def imported(tmp_path: Path, *paths: Path, **options: Any) -> ImportOutcome:
    return import_results(paths or (tmp_path / "in",), ImportOptions(out=tmp_path / "out", **options))


def cells(outcome: ImportOutcome) -> dict[str, CellRecord]:
    return {cell.task.task: cell for cell in outcome.cells}


def samples(outcome: ImportOutcome, task: str) -> list[dict[str, Any]]:
    return StoredRun(outcome.path).read_samples(cells(outcome)[task].fingerprint)


def test_a_run_of_ours_comes_back_as_it_was(tmp_path: Path) -> None:
    options = ZeroshotOptions(
        models=("mamba-tiny",), suite=suite_from_tasks(TASKS), out=tmp_path / "own", limit=4,
        engine="as-shipped", verify=False, exports=("lm-eval",),
    )  # fmt: skip
    own = StoredRun(run_zeroshot(options).path)
    outcome = imported(tmp_path, own.path / "lm-eval")
    assert outcome.remarks == ()
    assert outcome.manifest.models == ("mamba-tiny",)
    assert outcome.manifest.partial
    back = StoredRun(outcome.path)
    theirs = cells(outcome)
    for cell in own.cells():
        mine = theirs[cell.task.task]
        assert mine.metrics == cell.metrics
        assert back.read_samples(mine.fingerprint) == own.read_samples(cell.fingerprint)
        known = {"config_sha256", "data"}
        assert mine.task.model_dump(exclude=known) == cell.task.model_dump(exclude=known)
        assert (mine.partial, mine.n_requests) == (cell.partial, cell.n_requests)
        assert mine.checkpoint_fingerprint == cell.checkpoint_fingerprint
    sides = sides_of([parse_given(str(own.path)), parse_given(str(outcome.path))])
    assert [side.kind for side in sides] == ["zeroshot", "imported"]
    tasks, totals, remarks = aligned_tasks(sides, CompareOptions())
    assert (sorted(t.task for t in tasks), totals) == (sorted(TASKS), [])
    assert all(task.n == 4 for task in tasks)
    assert not [line for line in remarks if "left out" in line]


@pytest.mark.parametrize("version", ["0.4.0", "0.4.2", "0.4.3", "0.4.4", "0.4.8"])
def test_every_version_gives_the_same_items(tmp_path: Path, version: str) -> None:
    write(tmp_path / "in", version)
    outcome = imported(tmp_path)
    assert outcome.remarks == ()
    assert outcome.n_with_samples == 3
    found = cells(outcome)
    assert [(m.metric, m.filter, m.value, m.n) for m in found["t_gen"].metrics] == [
        ("exact_match", "strict", 0.5, 4),
        ("exact_match", "loose", 0.75, 4),
    ]
    for task in ("t_mc", "t_gen", "t_ppl"):
        expected = sorted(rows(task), key=lambda row: (row["filter"], row["doc_id"]))
        got = sorted(samples(outcome, task), key=lambda row: (row["filter"], row["doc_id"]))
        for row in (*expected, *got):
            row["metrics"] = sorted(row["metrics"])
        assert got == expected
    interval = wilson(sum(RIGHT), 4)
    (acc, _) = found["t_mc"].metrics
    assert (acc.interval_low, acc.interval_high, acc.interval_method) == (
        interval.low, interval.high, "wilson",
    )  # fmt: skip
    perplexity = found["t_ppl"].metrics[0]
    assert perplexity.interval_high == perplexity_interval([-1.5, -0.25, -3.0, -2.0]).high
    assert not perplexity.higher_is_better
    assert found["t_mc"].task.n_docs_total == 4
    assert not outcome.manifest.partial


def test_digests_are_those_of_lm_eval() -> None:
    document = {"z": "Grüße\n", "a": [1, 2.5, None, True], "n": {"b": '"'}}
    assert hash_text("Grüße") == hash_string("Grüße")
    assert hash_document(document) == hash_string(json.dumps(document, indent=2, ensure_ascii=False))


def test_numbers_written_as_text_are_numbers_again_but_answers_stay_text(tmp_path: Path) -> None:
    write(tmp_path / "in")
    outcome = imported(tmp_path)
    assert samples(outcome, "t_mc")[1]["resps"] == [[[-2.25, False]], [[-2.5, True]]]
    assert samples(outcome, "t_mc")[1]["target"] == 1
    assert samples(outcome, "t_gen")[0]["resps"] == [["0.5"]]
    assert samples(outcome, "t_gen")[0]["target"] == "0"


def test_the_same_import_changes_nothing_and_another_makes_another_run(tmp_path: Path) -> None:
    write(tmp_path / "in")
    first = imported(tmp_path)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.path.rglob("*") if p.is_file()}
    (tmp_path / "in").rename(tmp_path / "moved")
    again = imported(tmp_path, tmp_path / "moved")
    assert (again.path, again.n_written) == (first.path, 0)
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.path.rglob("*") if p.is_file()}
    assert after == before
    assert imported(tmp_path, tmp_path / "moved", name="mine").path != first.path
    assert imported(tmp_path, tmp_path / "moved", tasks=("t_mc",)).path != first.path
    assert imported(tmp_path, tmp_path / "moved", samples=False).path != first.path
    write(tmp_path / "moved", model="org/other")
    assert imported(tmp_path, tmp_path / "moved").path != first.path
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_an_interrupted_import_is_finished(tmp_path: Path) -> None:
    write(tmp_path / "in")
    first = imported(tmp_path)
    gone = next(first.path.glob("cells/*t_gen*"))
    kept = gone.read_bytes()
    gone.unlink()
    assert imported(tmp_path).n_written == 1
    assert gone.read_bytes() == kept


def test_the_latest_result_of_each_task_is_taken_unless_told_otherwise(tmp_path: Path) -> None:
    old_path = write(tmp_path / "in", time="2024-01-01T00-00-00.000000")
    content = results()
    del content["results"]["t_gen"]
    write(tmp_path / "in", content=content, samples=False)
    outcome = imported(tmp_path)
    assert {task: cell.n_requests > 0 for task, cell in cells(outcome).items()} == {
        "t_mc": False, "t_gen": True, "t_ppl": False,
    }  # fmt: skip
    (remark,) = [line for line in outcome.remarks if "older" in line]
    assert remark.startswith(f"{old_path} holds older results of org/small on t_mc, t_ppl, left out")
    assert imported(tmp_path, time="2024-01").n_with_samples == 3
    with pytest.raises(UsageError, match="no results file is of the time 2025"):
        imported(tmp_path, time="2025")


def test_several_models_lie_in_one_folder_and_get_names_of_their_own(tmp_path: Path) -> None:
    for number, arguments in enumerate(
        [
            "pretrained=EleutherAI/pythia-160m,revision=step1000,dtype=float32",
            "pretrained=EleutherAI/pythia-160m,revision=step1000,dtype=float16,device=cuda:1",
            "pretrained=/home/me/out/checkpoint-500",
            "pretrained=org/base,peft=./lora-1",
            {"pretrained": "org/base", "max_length": 1024},
            None,
        ]
    ):
        content = results()
        content["config"]["model_args"] = arguments
        content["model_name"] = "spare"
        write(tmp_path / "in" / str(number), content=content, samples=False)
    outcome = imported(tmp_path, tasks=("t_mc",))
    assert outcome.manifest.models == (
        "pythia-160m@step1000 (dtype=float32)",
        "pythia-160m@step1000 (dtype=float16)",
        "checkpoint-500",
        "org/base+lora-1",
        "org/base",
        "spare",
    )


def test_without_samples_intervals_follow_from_the_number_of_items(tmp_path: Path) -> None:
    write(tmp_path / "in")
    outcome = imported(tmp_path, samples=False)
    assert outcome.n_with_samples == 0
    assert not sides_of([parse_given(str(outcome.path))])[0].has_samples
    acc = cells(outcome)["t_mc"].metrics[0]
    assert (acc.n, acc.interval_method, acc.interval_low) == (4, "wilson", wilson(3, 4).low)
    perplexity = cells(outcome)["t_ppl"].metrics[0]
    assert (perplexity.n, perplexity.interval_low) == (4, None)
    assert outcome.remarks == ("org/small: t_ppl: no interval of perplexity can be had",)


def test_the_number_of_items_of_the_first_versions_follows_from_errors(tmp_path: Path) -> None:
    write(tmp_path / "in", "0.4.2", samples=False)
    cell = cells(imported(tmp_path))["t_mc"]
    assert (cell.task.n_docs, cell.metrics[0].n) == (4, 4)


@pytest.mark.parametrize(("limit", "partial"), [(None, False), (4, True), (0.5, True)])
def test_a_limit_makes_a_result_partial(tmp_path: Path, limit: float | None, partial: bool) -> None:
    for version in ("0.4.2", "0.4.8"):
        content = results(version=version)
        content["config"]["limit"] = limit
        if version == "0.4.8" and partial:
            content["n-samples"] = {t: {"original": 9, "effective": 4} for t in content["n-samples"]}
        write(tmp_path / version, version, content=content)
        outcome = imported(tmp_path, tmp_path / version)
        assert outcome.manifest.partial is partial
        assert all(cell.partial is partial for cell in outcome.cells)
        settings = outcome.manifest.settings
        assert isinstance(settings, ImportSettingsRecord)
        assert settings.limit == (4 if limit == 4 else None)
    assert cells(outcome)["t_mc"].task.n_docs_total == (9 if partial else 4)


def test_groups_are_pooled_and_tags_are_not(tmp_path: Path) -> None:
    members = {"mmlu_anatomy": 135, "mmlu_astronomy": 152, "arc_easy": 2376, "arc_challenge": 1172}
    one = {"acc,none": 0.5, "acc_stderr,none": "N/A"}
    groups = ["mmlu", "mmlu_stem", "ai2_arc"]
    content = results()
    content["results"] = {name: dict(one) for name in (*groups, *members)}
    content["groups"] = {name: dict(one) for name in groups}
    content["configs"] = {name: {"task": name, "output_type": "multiple_choice"} for name in members}
    content["group_subtasks"] = {
        "mmlu_stem": ["mmlu_anatomy", "mmlu_astronomy"],
        "mmlu": ["mmlu_stem"],
        "ai2_arc": ["arc_easy", "arc_challenge"],
    }
    del content["n-samples"], content["task_hashes"]
    write(tmp_path / "in", content=content, samples=False)
    outcome = imported(tmp_path)
    assert {task: cell.task.group for task, cell in cells(outcome).items()} == {
        "mmlu_anatomy": "mmlu", "mmlu_astronomy": "mmlu", "arc_easy": "", "arc_challenge": "",
    }  # fmt: skip
    assert [read.task for read in outcome.manifest.reads] == ["arc_easy", "arc_challenge", "mmlu"]


def test_all_tasks_of_a_suites_group_are_that_group(tmp_path: Path) -> None:
    from mambabench.taskindex import TaskIndex

    content = results()
    names = TaskIndex.load().leaves("mmlu")
    content["results"] = {name: {"acc,none": 0.25, "acc_stderr,none": 0.1} for name in names}
    content["configs"] = {}
    write(tmp_path / "whole", content=content, samples=False)
    whole = imported(tmp_path, tmp_path / "whole", tasks=tuple(names[:2]))
    assert [cell.task.group for cell in whole.cells] == ["mmlu", "mmlu"]
    del content["results"][names[-1]]
    write(tmp_path / "part", content=content, samples=False)
    part = imported(tmp_path, tmp_path / "part", tasks=tuple(names[:2]))
    assert [cell.task.group for cell in part.cells] == ["", ""]


def test_the_papers_metrics_are_read_first(tmp_path: Path) -> None:
    content = results()
    for task in ("t_mc", "t_gen", "t_ppl"):
        del content["results"][task]
    both = {"acc,none": 0.5, "acc_norm,none": 0.25}
    content["results"] |= {name: dict(both) for name in ("other", "piqa", "hellaswag")}
    content["configs"] = {}
    write(tmp_path / "in", content=content, samples=False)
    reads = imported(tmp_path).manifest.reads
    assert [(read.task, read.metrics, read.label) for read in reads] == [
        ("hellaswag", ("acc_norm", "acc"), "HellaSwag"),
        ("piqa", ("acc", "acc_norm"), "PIQA"),
        ("other", ("acc", "acc_norm"), ""),
    ]


def test_a_value_computed_in_the_tasks_own_way_is_taken_as_it_is(tmp_path: Path) -> None:
    content = results()
    content["configs"]["t_mc"]["metric_list"][0]["aggregation"] = "def worst(items): ..."
    content["results"]["t_mc"]["acc,none"] = 0.125
    write(tmp_path / "in", content=content)
    outcome = imported(tmp_path)
    acc = cells(outcome)["t_mc"].metrics[0]
    assert (acc.value, acc.unit, acc.interval_low) == (0.125, "score", None)
    assert outcome.remarks == ("org/small: t_mc: acc is no mean of its items and is taken as it is",)


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: edit(path, lambda _: text)


def _content(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def _samples(change: Callable[[str], str], task: str = "t_mc") -> Callable[[Path], None]:
    return lambda path: edit(path.parent / f"samples_{task}_{TIME}.jsonl", change)


def _changed(old: str, new: str, task: str = "t_mc") -> Callable[[Path], None]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return _samples(change, task)


def _first_line_again(text: str) -> str:
    return text + text.splitlines()[0] + "\n"


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no JSON": (_text("hello"), "is not JSON, or cut short"),
    "empty": (_text(""), "is empty"),
    "cut": (lambda path: edit(path, lambda text: text[: len(text) // 2]), "is not JSON, or cut short"),
    "another program's": (_content(lambda c: c.pop("results")), "holds no results of lm-eval"),
    "no task": (_content(lambda c: c["results"].clear()), "holds no results of lm-eval"),
    "NaN": (
        _content(lambda c: c["results"]["t_mc"].update({"acc,none": float("nan")})),
        "acc of t_mc is nan",
    ),
    "no numbers": (
        _content(lambda c: c["results"].update(t_mc={"acc,none": "N/A"})),
        "no value of t_mc is a number",
    ),
    "another value": (
        _content(lambda c: c["results"]["t_mc"].update({"acc,none": 0.5})),
        "t_mc has acc 0.5, but its 4 samples give 0.75",
    ),
    "another perplexity": (
        _content(lambda c: c["results"]["t_ppl"].update({"perplexity,none": 5.0})),
        "t_ppl has perplexity 5, but",
    ),
    "a task too many": (_content(lambda c: c["results"].pop("t_gen")), "holds samples of t_gen"),
    "cut samples": (_samples(lambda text: text[:-40]), r"line 4, is not JSON, or cut short"),
    "a line short": (_samples(lambda text: text[: text[:-1].rindex("\n") + 1]), "holds 3 documents"),
    "no samples": (_samples(lambda text: ""), "is empty"),
    "an item twice": (_samples(_first_line_again), "holds document 0 twice"),
    "no item": (_samples(lambda text: '"text"\n' + text), "item 1: no sample of lm-eval"),
    "a field short": (_changed('"doc_id": 0, ', ""), "it lacks doc_id"),
    "an odd number": (_changed('"doc_id": 0, ', '"doc_id": "0", '), "doc_id '0' is no whole number"),
    "another prompt": (
        _changed('"prompt_hash": "', '"prompt_hash": "0'),
        "holds other documents or prompts than",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_told_before_anything_is_written(tmp_path: Path, fault: str) -> None:
    path = write(tmp_path / "in")
    break_it, said = FAULTS[fault]
    break_it(path)
    with pytest.raises(UsageError, match=said) as caught:
        imported(tmp_path, path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_item_that_stands_there_more_often_than_filters_is_a_double(tmp_path: Path) -> None:
    write(tmp_path / "in", "0.4.2")
    path = next((tmp_path / "in").glob("*t_gen.jsonl"))
    items = json.loads(path.read_text())
    path.write_text(json.dumps([*items, items[0]]))
    with pytest.raises(UsageError, match="holds document 0 twice"):
        imported(tmp_path)
