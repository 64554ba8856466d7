"""Everything wrong with a data set is said, with the file or the reason, before anything slow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.preparing import N, build, one
from tasks.rows import write_jsonl, write_rows

from mambabench import assets
from mambabench.errors import DataMissingError, ExtraMissingError, UsageError
from mambabench.fingerprint import file_sha256
from mambabench.suite import load_suite, suite_from_tasks
from mambabench.taskindex import TaskIndex
from mambabench.tasks import hub_data
from mambabench.tasks.datafiles import read_split
from mambabench.tasks.hub_data import Hub, rows_digest
from mambabench.tasks.offline import prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"), n=N)


def test_a_parquet_file_serves_as_well(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "allenai/ai2_arc/ARC-Easy/test.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    target = tmp_path / "allenai/ai2_arc/ARC-Easy/test.parquet"
    target.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), target)
    prepared = one("arc_easy", tmp_path)
    assert build(prepared) == build(one("arc_easy", data_dir))
    assert prepared.data[0].sha256 == file_sha256(target)
    target.write_bytes(target.read_bytes()[:-20])
    with pytest.raises(UsageError, match="no readable Parquet"):
        one("arc_easy", tmp_path)


def test_all_missing_data_sets_are_named_at_once_and_before_lm_eval(tmp_path: Path) -> None:
    (tmp_path / "hellaswag").mkdir()
    (tmp_path / "allenai/ai2_arc/ARC-Easy").mkdir(parents=True)
    (tmp_path / "allenai/ai2_arc/ARC-Easy/validation.jsonl").write_text("{}")
    code = (
        "import sys, time; from pathlib import Path; from mambabench.errors import DataMissingError\n"
        "from mambabench.suite import load_suite; from mambabench.tasks.offline import prepare\n"
        "try: prepare(load_suite('mamba-paper').tasks, data_dir=Path(sys.argv[1]))\n"
        "except DataMissingError as e: print(e)\n"
        "assert not {'lm_eval', 'torch', 'datasets', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    text = done.stdout
    assert text.startswith("5 data sets are missing: ")
    assert f"looked for {tmp_path}/Rowan/hellaswag/validation.jsonl or .parquet" in text
    assert f"closest there: {tmp_path}/hellaswag" in text
    assert f"closest there: {tmp_path}/allenai/ai2_arc/ARC-Easy with validation.jsonl" in text
    for dataset in ("EleutherAI/lambada_openai", "baber/piqa", "allenai/winogrande"):
        assert f"{dataset} (for" in text
    assert "leave --data-dir out" in text


def test_a_data_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        one("piqa", tmp_path / "nowhere")


def test_missing_few_shot_split_is_missing_only_when_examples_are_wanted(data_dir: Path) -> None:
    one("piqa", data_dir)
    with pytest.raises(DataMissingError, match=r"baber/piqa/train\.jsonl"):
        one("piqa", data_dir, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"goal": "a"}\n{"goal": \n', r"validation\.jsonl, line 2: no JSON"),
        (b'{"goal": "a"}\n\n[1, 2]\n', r"line 3: no JSON object but a list"),
        (b'{"goal": "\xff"}\n', r"line 1: no JSON"),
        (b"", "holds no rows"),
        (b"\n  \n", "holds no rows"),
        (b"{}\n{}\n", "rows without columns"),
        (b'{"label": 1}\n{"label": [1]}\n', "column 'label' holds values of different types"),
        (b'{"label": 1}\n{"goal": "x", "label": 0}\n', "piqa.*no column|undefined|columns are label, goal"),
    ],
)
def test_a_damaged_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "baber/piqa/validation.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        one("piqa", tmp_path)


@pytest.mark.parametrize(
    ("task", "column"), [("hellaswag", "ctx_a"), ("arc_easy", "choices"), ("race", "problems")]
)
def test_a_missing_column_is_named_before_requests_are_built(
    task: str, column: str, data_dir: Path, tmp_path: Path
) -> None:
    entry = TaskIndex.load().get(task)
    relative = Path(entry.dataset_path, entry.dataset_name or "", f"{entry.eval_split}.jsonl")
    rows = [json.loads(line) for line in (data_dir / relative).read_text().splitlines()]
    write_jsonl(tmp_path / relative, [{k: v for k, v in r.items() if k != column} for r in rows])
    with pytest.raises(UsageError, match=rf"task '{task}'.*{relative}.*'{column}'.*the columns are"):
        one(task, tmp_path)


def test_a_bad_row_is_named_when_requests_are_built(data_dir: Path, tmp_path: Path) -> None:
    relative = Path("allenai/ai2_arc/ARC-Easy/test.jsonl")
    rows = [json.loads(line) for line in (data_dir / relative).read_text().splitlines()]
    rows[3]["answerKey"] = "Z"
    write_jsonl(tmp_path / relative, rows)
    prepared = one("arc_easy", tmp_path)
    with pytest.raises(UsageError, match=r"test\.jsonl: document 4: "):
        build(prepared)


def test_without_the_hub_the_cache_is_asked_once_and_quickly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    probes = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(
        hub_data, "_probe", lambda endpoint: probes.append(endpoint) or f"{endpoint} does not answer"
    )
    began_s = time.perf_counter()
    with pytest.raises(DataMissingError) as caught:
        prepare(load_suite("mamba-paper").tasks)
    assert time.perf_counter() - began_s < 5
    assert len(probes) == 1
    text = str(caught.value)
    assert text.count("does not answer") == 1
    for dataset in (
        "EleutherAI/lambada_openai",
        "Rowan/hellaswag",
        "baber/piqa",
        "allenai/ai2_arc",
        "winogrande",
    ):
        assert dataset in text
    assert "--data-dir DIR: DIR/EleutherAI/lambada_openai/default/test.jsonl" in text
    assert datasets.config.HF_HUB_OFFLINE is False


def test_offline_by_environment_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub_data, "_probe", lambda endpoint: pytest.fail("the Hub was asked"))
    with pytest.raises(DataMissingError, match="HF_HUB_OFFLINE is set"):
        prepare(suite_from_tasks(["piqa"]).tasks)


def test_the_probe_is_short_and_says_why() -> None:
    began_s = time.perf_counter()
    why = hub_data._probe("http://127.0.0.1:9")
    assert "127.0.0.1:9 does not answer" in why
    assert time.perf_counter() - began_s < hub_data.PROBE_TIMEOUT_S + 1


def test_hub_data_serves_like_files_and_is_known_by_its_rows(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in (data_dir / "baber/piqa/validation.jsonl").read_text().splitlines()]
    found = datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows)})
    asked = []
    monkeypatch.setattr(Hub, "_why_unreachable", lambda self: "")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda path, name, **kw: asked.append((path, name)) or found
    )
    (prepared,) = prepare(suite_from_tasks(["piqa"]).tasks)
    assert asked == [("baber/piqa", None)]
    assert build(prepared) == build(one("piqa", data_dir))
    (record,) = prepared.data
    assert (record.source, record.name, record.n_rows) == ("hub", "baber/piqa", N)
    assert record.sha256 == rows_digest(rows) != rows_digest(rows[:-1])
    assert prepared.record.config_sha256 == one("piqa", data_dir).record.config_sha256


def test_hub_data_without_the_split_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = datasets.DatasetDict({"test": datasets.Dataset.from_list([{"goal": "x"}])})
    monkeypatch.setattr(Hub, "_why_unreachable", lambda self: "")
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name, **kw: found)
    with pytest.raises(DataMissingError, match="no split 'validation' but test"):
        prepare(suite_from_tasks(["piqa"]).tasks)


def test_rows_with_new_columns_later_in_the_file_keep_them(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"a": 1}, {"a": 2, "b": "2024-01-01"}])
    split = read_split(path, tmp_path, "a", "data-dir")
    assert split.dataset[1] == {"a": 2, "b": "2024-01-01"}
    assert split.dataset[0] == {"a": 1, "b": None}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "t": st.text(),
                "n": st.integers(-(2**62), 2**62),
                "l": st.lists(st.text(), min_size=1),
                "b": st.booleans(),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_rows_come_back_as_they_were_written(rows: list[dict[str, Any]], tmp_path_factory: Any) -> None:
    path = write_jsonl(tmp_path_factory.mktemp("r") / "x.jsonl", json.loads(json.dumps(rows)))
    assert list(read_split(path, path.parent, "x", "data-dir").dataset) == rows


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'nltk'", name="nltk"),
            r"needs the package 'nltk'. Install it: pip",
        ),
        (ImportError("Please install nltk"), r"needs a package that is missing: Please install nltk"),
    ],
)
def test_a_package_that_a_task_needs_is_named(
    error: ImportError, message: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    def load(self: object, names: object) -> None:
        raise error

    monkeypatch.setattr(TaskManager, "load", load)
    with pytest.raises(ExtraMissingError, match=message):
        one("piqa", data_dir)


def test_bundled_rows_need_no_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They come with the package whatever --data-dir says, and an incomplete package is told as such."""
    (tmp_path / "smoke_a.yaml").write_text(
        "task: smoke_a\ndataset_path: mambabench/smoke_a\noutput_type: loglikelihood\ntest_split: test\n"
        "doc_to_text: '{{a}}'\ndoc_to_target: '{{b}}'\n"
    )
    monkeypatch.setattr(assets, "smoke_dir", lambda: tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataMissingError, match="install mambabench again"):
        one("smoke_a", tmp_path / "elsewhere")
    write_jsonl(tmp_path / "data/mambabench/smoke_a/test.jsonl", [{"a": "x", "b": " y"}])
    prepared = one("smoke_a", tmp_path / "elsewhere")
    assert build(prepared) == [("loglikelihood", 0, "x", " y")]
    assert (prepared.data[0].source, prepared.data[0].name) == ("bundled", "mambabench/smoke_a/test.jsonl")


def test_the_hub_s_cache_is_enough(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cache as a download leaves it, but for the revision's name, is found without the Hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub_data, "_probe", lambda endpoint: "nobody answers")
    datasets.disable_progress_bars()
    files = {"validation": str(data_dir / "baber/piqa/validation.jsonl")}
    datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path))
    datasets.enable_progress_bars()
    built = next(tmp_path.glob("json/*/*/*/dataset_info.json")).parent
    cached = tmp_path / "baber___piqa" / "default" / "0.0.0" / ("a" * 40)
    cached.parent.mkdir(parents=True)
    built.rename(cached)
    for arrow in cached.glob("json-*.arrow"):
        arrow.rename(cached / arrow.name.replace("json-", "piqa-"))
    info = json.loads((cached / "dataset_info.json").read_text())
    info |= {"builder_name": "parquet", "dataset_name": "piqa", "config_name": "default"}
    (cached / "dataset_info.json").write_text(json.dumps(info))
    capfd.readouterr()
    (prepared,) = prepare(suite_from_tasks(["piqa"]).tasks)
    assert capfd.readouterr().err == ""
    assert prepared.data[0].source == "hub"
    assert build(prepared) == build(one("piqa", data_dir))
