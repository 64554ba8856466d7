"""Suites load, say what they read, and report all of their mistakes at once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench import assets
from mambabench.errors import ConfigError, UnknownNameError, UsageError
from mambabench.references import sources
from mambabench.suite import Suite, list_suites, load_suite, suite_from_tasks
from mambabench.taskindex import TaskIndex

SHIPPED = {"mamba-paper", "mamba2-paper", "slimpj", "tinyllama", "mmlu", "wikitext", "smoke"}


def load(tmp_path: Path, text: str) -> Suite:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_suite(path)


def mistakes(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.source.endswith("mine.yaml")
    assert caught.value.exit_code == 2
    return caught.value.mistakes


def read_metrics(name: str) -> dict[str, tuple[str, ...]]:
    return {t.task: t.metrics for t in load_suite(name).tasks}


def test_the_shipped_suites_are_those_that_are_promised() -> None:
    assert {s.name for s in list_suites()} == SHIPPED & {p.stem for p in assets.suites_dir().glob("*.yaml")}
    suites = list_suites()
    for suite in suites:
        assert suite.title != suite.name
        assert suite.description
        assert set(suite.reference) <= set(sources())
    assert len({s.sha256 for s in suites}) == len(suites)


def test_the_metrics_that_each_suite_reads() -> None:
    paper = {
        "lambada_openai": ("perplexity", "acc"), "hellaswag": ("acc_norm",), "piqa": ("acc",),
        "arc_easy": ("acc",), "arc_challenge": ("acc_norm",), "winogrande": ("acc",),
    }  # fmt: skip
    assert read_metrics("mamba-paper") == paper
    assert read_metrics("mamba2-paper") == {**paper, "openbookqa": ("acc_norm",)}
    assert read_metrics("tinyllama") == {
        "hellaswag": ("acc_norm",), "openbookqa": ("acc_norm",), "winogrande": ("acc",),
        "arc_challenge": ("acc_norm",), "arc_easy": ("acc_norm",), "boolq": ("acc",), "piqa": ("acc_norm",),
    }  # fmt: skip
    assert list(read_metrics("slimpj")) == [
        "boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa", "race",
        "truthfulqa_mc2", "mmlu",
    ]  # fmt: skip
    assert {t.task: t.num_fewshot for t in load_suite("slimpj").tasks if t.num_fewshot} == {"mmlu": 5}
    assert [(t.task, t.num_fewshot) for t in load_suite("mmlu").tasks] == [("mmlu", 5)]
    assert read_metrics("wikitext") == {"wikitext": ("word_perplexity", "byte_perplexity", "bits_per_byte")}


@pytest.mark.parametrize("name", ["mamba-paper", "mamba2-paper", "tinyllama"])
def test_every_published_accuracy_of_a_source_is_of_the_metric_that_its_suite_reads(name: str) -> None:
    import csv

    suite = load_suite(name)
    read = {(t.task, m) for t in suite.tasks for m in t.metrics}
    with (assets.published_dir() / f"zero_shot_{suite.reference[0]}.csv").open(encoding="utf-8") as stream:
        rows = [(r["task"], r["metric"]) for r in csv.DictReader(stream) if r["task"] != "pile"]
    assert set(rows) <= read


def test_loading_is_quick_and_imports_nothing_large() -> None:
    code = (
        "import sys, time; began = time.perf_counter()\n"
        "from mambabench.suite import load_suite; load_suite('slimpj')\n"
        "print(time.perf_counter() - began)\n"
        "assert not {'lm_eval', 'torch', 'datasets', 'pandas', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0  # 0.25 s on an idle machine


def test_a_user_s_own_file(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        "title: Mine\nreference: [mamba2, mamba]\ntasks:\n"
        "  - hellaswag\n"
        "  - {task: mmlu, metrics: acc, num_fewshot: 5, label: M, chance: {acc: 0.25}}\n",
    )
    assert (suite.name, suite.title, suite.reference) == ("mine", "Mine", ("mamba2", "mamba"))
    first, second = suite.tasks
    assert (first.task, first.metrics, first.num_fewshot, first.label) == (
        "hellaswag", ("acc", "acc_norm"), None, None,
    )  # fmt: skip
    assert (second.metrics, second.num_fewshot, second.label, second.chance) == (
        ("acc",),
        5,
        "M",
        {"acc": 0.25},
    )
    assert suite.path == tmp_path / "mine.yaml"


def test_the_digest_knows_what_is_run_and_nothing_else(tmp_path: Path) -> None:
    plain = load(tmp_path, "tasks: [{task: piqa, metrics: [acc]}]")
    dressed = load(tmp_path, "# a remark\ntitle: T\nname: n\ntasks: [{task: piqa, metrics: [acc], label: P}]")
    assert plain.sha256 == dressed.sha256
    assert load(tmp_path, "tasks: [{task: piqa, metrics: [acc_norm]}]").sha256 != plain.sha256
    assert load(tmp_path, "tasks: [{task: piqa, metrics: [acc], num_fewshot: 1}]").sha256 != plain.sha256


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        "titel: x\n"
        "reference: mamba3\n"
        "tasks:\n"
        "  - helaswag\n"
        "  - {task: piqa, metrics: [acc, f1], num_fewshot: -1}\n"
        "  - {task: piqa}\n"
        "  - {metrics: [acc]}\n"
        "  - {task: arc_easy, metric: [acc]}\n"
        "kind: speed\n",
    )
    assert found == (
        "unknown key 'titel', did you mean 'title'?",
        "'kind': 'speed' is not 'zeroshot'",
        "'reference': unknown source 'mamba3', known: mamba, mamba2, tinyllama, pythia, mamba-7b-rw",
        "unknown task 'helaswag', closest: hellaswag, hellaswag_vi, hellaswag_uk",
        "task 'piqa': no metric 'f1', it has acc, acc_norm",
        "task 'piqa': 'num_fewshot' must be a whole number from 0, not -1",
        "task 'piqa' stands twice",
        "task 4: 'task' is missing",
        "task 'arc_easy': unknown key 'metric', did you mean 'metrics'?",
    )


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "the file holds no mapping with the key 'tasks'"),
        ("- hellaswag", "the file holds no mapping with the key 'tasks'"),
        ("title: x", "'tasks' is missing"),
        ("tasks: []", "'tasks' must be a list with at least one task"),
        ("tasks: hellaswag", "'tasks' must be a list with at least one task"),
        ("tasks: [a, \n b: c: d", "line 2, column 6: expected ',' or ']', but got ':'"),
        ("tasks: [piqa]\ntitle: 3", "'title' must be text, not a number"),
        ("tasks: [piqa]\ntitle: x\ntitle: y", "line 3: key 'title' stands twice"),
        ("tasks: [piqa]\nname: a/b", "'name': 'a/b' may hold letters, digits and . _ + - only"),
        ("tasks: [3]", "task 1: must be a task's name or a mapping with the key 'task'"),
        ("tasks: [{task: 3}]", "task 1: 'task' must be text, not a number"),
        ("tasks: [{task: piqa, metrics: []}]", "task 'piqa': 'metrics' must be a list of names, not an..."),
        ("tasks: [{task: piqa, metrics: {acc: 1}}]", "task 'piqa': 'metrics' must be a list of..."),
        ("tasks: [{task: piqa, metrics: [acc, acc]}]", "task 'piqa': metric 'acc' stands twice"),
        ("tasks: [{task: mmlu, metrics: [acc_norm]}]", "task 'mmlu': no metric 'acc_norm', it has acc"),
        ("tasks: [{task: squadv2}]", "task 'squadv2': 'metrics' is missing..."),
        ("tasks: [{task: piqa, num_fewshot: five}]", "task 'piqa': 'num_fewshot' must be a whole..."),
        ("tasks: [{task: piqa, num_fewshot: true}]", "task 'piqa': 'num_fewshot' must be a whole..."),
        (
            "tasks: [{task: truthfulqa_mc2, num_fewshot: 5}]",
            "task 'truthfulqa_mc2': 'num_fewshot' is 5, but lm-eval fixes it to 0 for truthfulqa_mc2",
        ),
        ("tasks: [mmlu, mmlu_anatomy]", "task 'mmlu_anatomy' stands twice (in 'mmlu' before)"),
        (
            "tasks: [{task: piqa, label: QA}, boolq, {task: race, label: QA}]",
            "task 'race': label 'QA' is that of task 'piqa' too",
        ),
        (
            "tasks: [{task: piqa, label: boolq}, boolq]",
            "task 'piqa': label 'boolq' is the name of another task",
        ),
        ("tasks: [{task: piqa, chance: 0.5}]", "task 'piqa': 'chance' must map metrics to numbers..."),
        ("tasks: [{task: piqa, chance: {f1: 1}}]", "task 'piqa': 'chance' names 'f1'..."),
        ("tasks: [{task: piqa, chance: {acc: x}}]", "task 'piqa': 'chance' of 'acc' must be a number..."),
        ("tasks: [piqa]\nreference: {a: b}", "'reference' must name a source or list several, not a mapping"),
        ("tasks: [piqa]\nreference: longmamba", "'reference': unknown source 'longmamba'..."),
    ],
)  # fmt: skip
def test_each_mistake_is_told_in_words(text: str, mistake: str, tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, text)
    assert found == mistake or (mistake.endswith("...") and found.startswith(mistake[:-3]))


def test_a_task_may_be_labelled_with_its_own_name(tmp_path: Path) -> None:
    suite = load(tmp_path, "tasks: [{task: piqa, label: piqa}, boolq]")
    assert [t.label for t in suite.tasks] == ["piqa", None]


def test_names_that_are_not_shipped() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown suite 'mamba-papr'. Closest: mamba-paper"):
        load_suite("mamba-papr")
    with pytest.raises(UsageError, match=r"no suite file nowhere/x\.yaml"):
        load_suite("nowhere/x.yaml")
    with pytest.raises(UsageError, match=r"no suite file mamba-paper\.yml"):
        load_suite("mamba-paper.yml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"title: \xff\n")
    with pytest.raises(UsageError, match="cannot be read"):
        load_suite(tmp_path / "x.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_suite(str(tmp_path) + "/")


def test_single_tasks_make_a_suite() -> None:
    suite = suite_from_tasks(["gsm8k", "piqa"], num_fewshot=3)
    assert [(t.task, t.metrics, t.num_fewshot) for t in suite.tasks] == [
        ("gsm8k", ("exact_match",), 3),
        ("piqa", ("acc", "acc_norm"), 3),
    ]
    assert (suite.name, suite.reference, suite.path) == ("gsm8k+piqa", (), None)
    many = suite_from_tasks(["piqa", "hellaswag", "race", "boolq", "wikitext"])
    assert many.name == "piqa+hellaswag+race+2-more"
    assert suite_from_tasks(["leaderboard_bbh"]).tasks[0].task == "leaderboard_bbh"


def test_mistakes_in_single_tasks() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown task 'helaswag'\. Closest: hellaswag"):
        suite_from_tasks(["helaswag"])
    with pytest.raises(ConfigError, match=r"--task: 2 mistakes: .*'helaswag'.*\(2\) unknown task"):
        suite_from_tasks(["helaswag", "piqua"])
    with pytest.raises(ConfigError, match="members have none in common"):
        suite_from_tasks(["openllm"])
    with pytest.raises(ConfigError, match="fixes it to 0"):
        suite_from_tasks(["truthfulqa_mc1"], num_fewshot=2)


TREE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["piqa", "tasks", "task", "metrics", "acc", "mmlu", "num_fewshot", "chance"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["tasks", "task", "metrics", "num_fewshot", "chance", "label", "reference", "kind"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
INDEX = TaskIndex.load()


@settings(max_examples=150, deadline=None)
@given(document=TREE)
def test_any_yaml_ends_in_a_suite_or_in_mistakes(
    document: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import yaml

    path = tmp_path_factory.mktemp("any") / "any.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        assert load_suite(path, index=INDEX).tasks
