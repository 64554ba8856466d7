"""Verification: an untouched run agrees, and each kind of change is found by the check that is for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import tiny_mamba
from foreign_results import write as write_foreign
from long_records import CORPUS, loss_record
from speed_records import MAMBA, sweep
from stored import manifest
from stored_sweeps import store_sweep
from tasks.rows import write_rows

from mambabench.compare.verify import n_bytes_of, verify_run
from mambabench.errors import StoreError
from mambabench.execute import run_zeroshot
from mambabench.fingerprint import digest
from mambabench.importers.write import ImportOptions, import_results
from mambabench.long_schema import ContextRecord, LongRecord, PerplexityRecord, RecallRecord
from mambabench.longcontext.perplexity_figures import document_rows, perplexities
from mambabench.longcontext.recall import record_of
from mambabench.longcontext.texts import Text
from mambabench.schema import LongSettingsRecord
from mambabench.store import Store
from mambabench.store.seal import SEAL, compare_with_seal, read_seal, sealed_files, write_seal
from mambabench.store.verify import Check
from mambabench.suite import suite_from_tasks
from mambabench.zeroshot import ZeroshotOptions

TASKS = ["piqa", "lambada_openai"]
needs_sha256sum = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs the program sha256sum")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ZeroshotOptions]:
    """A run of a tiny model on two tasks, and the options that made it."""
    folder = tmp_path_factory.mktemp("computed")
    write_rows(folder / "data", n=8)
    model = tiny_mamba(folder / "model")
    options = ZeroshotOptions(
        (str(model),), suite_from_tasks(TASKS), out=folder / "runs", data_dir=folder / "data",
        command=("mambabench", "zeroshot", "--model", str(model)),
    )  # fmt: skip
    return run_zeroshot(options).path, options


@pytest.fixture
def run(computed: tuple[Path, ZeroshotOptions], tmp_path: Path) -> Path:
    """A copy of it to change."""
    return shutil.copytree(computed[0], tmp_path / "run")


def outcomes(path: Path) -> dict[str, str]:
    return {check.what: check.outcome for check in verify_run(path).checks}


def the(path: Path, what: str) -> Check:
    return next(check for check in verify_run(path).checks if check.what == what)


def only(path: Path, what: str) -> str:
    """Return the first problem of the one check that differs."""
    differing = [check for check in verify_run(path).checks if check.outcome == "differs"]
    assert [check.what for check in differing] == [what]
    return differing[0].problems[0]


def one(run: Path, pattern: str) -> Path:
    return sorted(run.glob(pattern))[0]


def changed_json(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value), "utf-8")


def test_an_untouched_run_agrees_and_nothing_is_written(run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    read: list[int] = []
    found = verify_run(run, advance=read.append)
    assert outcomes(run) == {
        "records": "agrees", "samples": "agrees", "requests": "agrees", "answers": "agrees",
        "checkpoints": "agrees", "seal": "not checked",
    }  # fmt: skip
    numbers = {check.what: check.n for check in found.checks}
    # A manifest, a checkpoint and two cells; eight items of each task.
    assert (numbers["records"], numbers["samples"], numbers["requests"]) == (4, 16, 2)
    assert not found.differs
    assert sum(read) == n_bytes_of(run)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_record_of_another_value_differs_from_its_samples(run: Path) -> None:
    def better(value: Any) -> None:
        value["metrics"][0]["value"] += 0.125

    changed_json(one(run, "cells/*piqa*.json"), better)
    assert "but its record says" in only(run, "samples")


def test_a_record_of_another_number_of_items_differs(run: Path) -> None:
    changed_json(one(run, "cells/*piqa*.json"), lambda value: value["task"].update(n_docs=9))
    assert only(run, "samples").endswith("holds 8 items, but its record says 9")


def test_another_question_differs_from_the_digest_alone(run: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = one(run, "samples/*piqa*")
    table = pq.read_table(path)
    place = table.schema.get_field_index("arguments")
    texts = table["arguments"].to_pylist()
    texts[3] = texts[3].replace("Question", "question")
    assert texts != table["arguments"].to_pylist()
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array(texts, field.type)), path)
    assert "holds other requests than its record's digest says" in only(run, "requests")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.unlink(), "it is not there"),
        (lambda p: p.write_bytes(p.read_bytes()[:-10]), "cannot read the samples"),
    ],
)
def test_samples_that_cannot_be_read_are_named(run: Path, change: Callable[[Path], None], words: str) -> None:
    path = one(run, "samples/*piqa*")
    change(path)
    problem = only(run, "samples")
    assert f"samples/{path.name}" in problem
    assert words in problem
    # What can be read is read.
    assert the(run, "samples").n == 8


def test_damaged_and_doubled_records_are_named(run: Path) -> None:
    cell = one(run, "cells/*piqa*.json")
    shutil.copy(cell, run / "cells" / "copy.json")
    assert "has the fingerprint of another record there" in only(run, "records")
    (run / "cells" / "copy.json").unlink()
    tail = cell.stem.rpartition("-")[2]
    cell.rename(cell.with_name(f"m-piqa-{tail[::-1]}.json"))
    assert "is named after another fingerprint than its own" in the(run, "records").problems[0]
    (run / "cells" / "x.json").write_text("{}", "utf-8")
    assert "cells/x.json is damaged: fingerprint: Field required" in the(run, "records").problems


def test_answers_belong_where_they_lie(run: Path) -> None:
    segment, log = one(run, "answers/*.parquet"), one(run, "answers/*.jsonl")
    good = log.read_bytes()
    # Half a line is what a killed process leaves.
    log.write_bytes(good + b'{"k": "00')
    assert the(run, "answers").outcome == "agrees"
    log.write_bytes(good + b'{"k": "zz"}\n')
    assert only(run, "answers").endswith("is damaged: line 2 is no answer")
    log.write_bytes(good)
    moved = segment.rename(segment.with_name("0" * 16 + segment.name[16:]))
    assert f"answers/{moved.name} is damaged: it holds the answers of" in only(run, "answers")
    moved.write_bytes(b"PAR1")
    assert f"answers/{moved.name} is damaged" in only(run, "answers")


def test_weights_that_changed_are_named_and_those_that_are_gone_are_not_checked(
    computed: tuple[Path, ZeroshotOptions], tmp_path: Path
) -> None:
    path, options = computed
    model = shutil.copytree(options.models[0], tmp_path / "model")
    run = shutil.copytree(path, tmp_path / "run")
    command = ["mambabench", "zeroshot", "--model", str(model)]
    changed_json(run / "manifest.json", lambda value: value.update(command=command))
    assert the(run, "checkpoints").n == 2
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert only(run, "checkpoints") == f"{weights} of model has changed since it was read"
    shutil.rmtree(model)
    assert outcomes(run)["checkpoints"] == "not checked"


def test_a_manifest_that_cannot_be_read_is_what_differs(run: Path) -> None:
    (run / "manifest.json").write_text("{", "utf-8")
    assert "manifest.json is damaged: it is not JSON" in only(run, "records")


def test_a_run_that_is_written_is_left_alone(run: Path) -> None:
    identity = json.loads((run / "manifest.json").read_bytes())["identity"]
    with Store(run.parent).open_run(manifest(identity=identity)) as opened:
        assert opened.path == run
        found = verify_run(run)
        assert (found.checks, found.n_checked) == ((), 0)
        assert "process" in found.written_by


@needs_sha256sum
def test_a_seal_is_what_sha256sum_writes_and_checks(run: Path) -> None:
    (run / "a \\ name\nof two lines").write_text("x", "utf-8")
    (run / "näme").write_text("y", "utf-8")
    n_files = write_seal(run)
    names = sealed_files(run)
    assert n_files == len(names)
    written = subprocess.run(
        ["sha256sum", *names], cwd=run, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    ).stdout
    assert (run / SEAL).read_bytes() == written
    check = ["sha256sum", "--strict", "--quiet", "-c", SEAL]
    subprocess.run(check, cwd=run, check=True)
    assert compare_with_seal(run).agrees  # type: ignore[union-attr]
    one(run, "cells/*").write_text("{}", "utf-8")
    assert subprocess.run(check, cwd=run, capture_output=True, check=False).returncode == 1
    assert the(run, "seal").outcome == "differs"


def test_a_seal_tells_changed_from_missing_and_added_files(run: Path) -> None:
    write_seal(run)
    assert the(run, "seal").outcome == "agrees"
    assert {".lock", SEAL}.isdisjoint(read_seal(run) or {})
    cell, sample = one(run, "cells/*"), one(run, "samples/*")
    cell.write_bytes(cell.read_bytes() + b" ")
    sample.unlink()
    (run / "new.txt").write_text("x", "utf-8")
    found = compare_with_seal(run)
    assert found is not None
    assert found.changed == (f"cells/{cell.name}",)
    assert found.missing == (f"samples/{sample.name}",)
    assert found.added == ("new.txt",)
    assert (found.agrees, found.is_outdated) == (False, False)


def test_a_run_that_went_on_has_an_outdated_seal(tmp_path: Path, computed: Any) -> None:
    _, options = computed
    fewer = ZeroshotOptions(
        options.models, options.suite, out=tmp_path / "runs", data_dir=options.data_dir,
    )  # fmt: skip
    path = run_zeroshot(fewer).path
    # As it was when the first task had ended.
    one(path, "cells/*piqa*").unlink()
    one(path, "samples/*piqa*").unlink()
    write_seal(path)
    run_zeroshot(fewer)
    check = the(path, "seal")
    assert check.outcome == "outdated"
    assert not verify_run(path).differs
    assert any(p.startswith("cells/") and p.endswith(": added") for p in check.problems)
    # Added files do not excuse a changed result.
    other = one(path, "cells/*lambada*")
    other.write_bytes(other.read_bytes() + b" ")
    assert the(path, "seal").outcome == "differs"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no seal\n", "is damaged at line 1"),
        (b"0" * 64 + b"  /etc/passwd\n", "names a file outside of the run"),
        (b"0" * 64 + b"  ../x\n", "names a file outside of the run"),
        (b"0" * 64 + b"  cut", "its last line is cut off"),
    ],
)
def test_a_damaged_seal_differs(run: Path, content: bytes, words: str) -> None:
    (run / SEAL).write_bytes(content)
    with pytest.raises(StoreError, match=words):
        read_seal(run)
    assert words in only(run, "seal")


def _recall() -> tuple[RecallRecord, list[dict[str, Any]]]:
    """Twenty samples, every third of two questions, ties among their choices."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for sample in range(20):
        for question in range(1 + (sample % 3 == 0)):
            logprobs = rng.integers(-6, 0, 4).astype(float).tolist()
            better = sum(other > logprobs[0] for other in logprobs)
            equal = logprobs.count(logprobs[0])
            rows.append(
                {
                    "sample": sample, "question": question, "depth": (sample + 0.5) / 20,
                    "n_choices": 4, "logprobs": logprobs, "rank": better + (equal + 1) / 2,
                    "credit": 0.0 if better else 1 / equal, "is_greedy": bool(rng.integers(2)),
                }
            )  # fmt: skip
    base = RecallRecord(
        fingerprint="recall", checkpoint_fingerprint="m", model="m", task="needle", task_version="1",
        length_tokens=256, status="ok",
    )  # fmt: skip
    return record_of(rows, base, n_depths=5), rows


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """Recall, loss by context and a text of two documents."""
    values = np.random.default_rng(0).normal(-3, 1, 30).astype("<f4")
    texts = [
        Text("a", np.arange(10, dtype=np.int32), 40, 8),
        Text("b", np.arange(20, dtype=np.int32), 90, 15),
    ]
    rows = document_rows(texts, values)
    perplexity = PerplexityRecord(
        fingerprint=digest("perplexity"), checkpoint_fingerprint="m", model="m", corpus=CORPUS,
        context=ContextRecord(mode="full"), status="ok", metrics=perplexities(rows), n_documents=2,
        n_bytes=130, n_tokens=30,
    )  # fmt: skip
    written: list[tuple[LongRecord, list[dict[str, Any]]]] = [
        _recall(), loss_record("m", 256, 3.0), (perplexity, rows),
    ]  # fmt: skip
    settings = LongSettingsRecord(dtype="float32", device="cpu", weights="pretrained", seed=0)
    with Store(tmp_path).open_run(manifest("long", kind="longcontext", settings=settings)) as opened:
        for record, found in written:
            named = record.model_copy(update={"fingerprint": digest(record.fingerprint)})
            opened.write_long(named, found)
            if isinstance(record, PerplexityRecord):
                opened.long_values_path(named).write_bytes(values.tobytes())
        return opened.path


def test_long_context_rows_give_the_recorded_figures(long_run: Path) -> None:
    check = the(long_run, "rows")
    n_blocks = json.loads(one(long_run, "context-loss/*.json").read_bytes())["n_blocks"]
    assert (check.outcome, check.problems) == ("agrees", ())
    assert check.n == 27 + n_blocks + 2


@pytest.mark.parametrize(
    ("pattern", "metric"),
    [
        ("recall/*.json", "accuracy"), ("recall/*.json", "rank"), ("recall/*.json", "margin_nats"),
        ("context-loss/*.json", "loss_nats"), ("context-loss/*.json", "bits_per_byte"),
        ("perplexity/*.json", "word_perplexity"), ("perplexity/*.json", "token_perplexity"),
        ("perplexity/*.json", "bits_per_byte"),
    ],
)  # fmt: skip
def test_another_figure_than_the_rows_give_is_named(long_run: Path, pattern: str, metric: str) -> None:
    path = one(long_run, pattern)

    def change(value: Any) -> None:
        for found in value["metrics"]:
            if found["metric"] == metric:
                found["value"] = found["value"] * 1.001 + 0.001

    changed_json(path, change)
    assert f"gives {metric} " in only(long_run, "rows")


def test_rows_and_values_that_changed_are_found(long_run: Path) -> None:
    from mambabench.store.rows import read_rows, write_rows

    recall = one(long_run, "recall/*.parquet")
    rows = read_rows(recall)
    next(row for row in rows if row["credit"] == 1)["logprobs"][0] -= 100.0
    write_rows(recall, rows)
    assert "is judged otherwise than its log-probabilities say" in " ".join(the(long_run, "rows").problems)
    write_rows(recall, rows[:-1])
    assert "26 questions, but its record says 27" in " ".join(the(long_run, "rows").problems)
    recall.unlink()
    assert f"recall/{recall.name} is not there" in the(long_run, "rows").problems


def test_one_changed_log_probability_is_found(long_run: Path) -> None:
    path = one(long_run, "perplexity/*.f32")
    values = np.fromfile(path, "<f4")
    values[17] = np.nextafter(values[17], np.float32(0))
    values.tofile(path)
    assert "document 'b' has another sum than its tokens' log-probabilities" in only(long_run, "rows")
    values[:-1].tofile(path)
    assert "holds 29 values for 30 tokens" in only(long_run, "rows")


def test_a_process_that_stands_twice_is_found(tmp_path: Path) -> None:
    records = sweep(models=(MAMBA,), prompt_lens=(128,), processes=3)
    records = [r.model_copy(update={"fingerprint": digest(i)}) for i, r in enumerate(records)]
    path = store_sweep(tmp_path / "run", records)
    assert (the(path, "processes").outcome, the(path, "processes").n) == ("agrees", 3)
    again = records[1].model_copy(update={"fingerprint": digest("again")})
    (path / "replicates" / "again.json").write_text(again.model_dump_json(), "utf-8")
    assert only(path, "processes").startswith("replicates/again.json measured a point as the same process")


def test_imported_files_that_changed_are_found(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_foreign(source, "0.4.8")
    command = ("mambabench", "import", str(source), "--name", "theirs")
    options = ImportOptions(name="theirs", out=tmp_path / "runs", command=command)
    path = import_results((source,), options).path
    found = outcomes(path)
    assert (found["sources"], found["samples"], found["requests"]) == ("agrees", "agrees", "agrees")
    recorded = {
        f["name"]: f["sha256"] for f in json.loads((path / "manifest.json").read_bytes())["settings"]["files"]
    }
    for file in source.rglob("*.json*"):
        assert recorded[file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert the(path, "sources").n == len(recorded)
    changed = sorted(source.rglob("samples*"))[0]
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert only(path, "sources") == f"{changed} has changed since it was read"
    shutil.rmtree(source)
    assert outcomes(path)["sources"] == "not checked"
