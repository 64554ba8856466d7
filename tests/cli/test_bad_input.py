"""Every mistake in a command: one line with the way out, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    build_tokenizer,
    lora_adapter,
    mamba_config,
    tiny_mamba,
    tiny_mamba_ssm,
    tiny_neox,
)
from tasks.rows import write_jsonl, write_rows

import mambabench.models.load
import mambabench.tasks.hub_data
from mambabench.cli import _run
from mambabench.models import hub

TASKS = ("--task", "piqa")
NOWHERE = "http://127.0.0.1:9"
"""An address that refuses at once, as a Hub that cannot be reached."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mamba(tmp_path_factory.mktemp("model") / "mamba")


@pytest.fixture(autouse=True)
def _elsewhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run in an empty directory, and fail when weights are read."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.setattr(mambabench.models.load, "load", lambda plan: pytest.fail("weights were read"))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `mambabench zeroshot` in this process and return the one line of its error."""

    def call(code: int, *args: object) -> str:
        before = set(Path().rglob("*"))
        capsys.readouterr()
        assert _run(["zeroshot", *map(str, args)]) == code
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        assert set(Path().rglob("*")) == before
        return line.removeprefix("error: ")

    return call


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub that cannot be reached and an empty cache."""
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_cached", lambda hub_id, revision: None)

    def nothing(*args: Any, **how: Any) -> Any:
        raise ConnectionError("no cache")

    monkeypatch.setattr("datasets.load_dataset", nothing)


def change_config(directory: Path, text: str) -> Path:
    (directory / "config.json").write_text(text)
    return directory


def without_weights(path: Path) -> Path:
    (tiny_mamba(path) / "model.safetensors").unlink()
    return path


def without_config(path: Path) -> Path:
    (tiny_mamba(path) / "config.json").unlink()
    return path


def without_a_shard(path: Path) -> Path:
    (tiny_mamba(path, max_shard_size="20KB") / "model-00002-of-00006.safetensors").unlink()
    return path


def truncated(path: Path) -> Path:
    file = tiny_mamba(path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return path


def truncated_bin(path: Path) -> Path:
    file = tiny_mamba_ssm(path, with_tokenizer=True) / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-3000])
    return path


def adapter_without_base(path: Path) -> Path:
    return lora_adapter(path, tiny_neox(path.parent / "base"), base_name="gone-for-good")


def gguf(path: Path, content: bytes) -> Path:
    path = path.with_suffix(".gguf")
    path.write_bytes(content)
    return path


def empty(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (empty, "is no checkpoint. Looked for config.json"),
        (without_weights, "half a checkpoint: it has config.json but no weights. Looked for model.safet"),
        (without_config, "has weights (model.safetensors) but no config.json. Put"),
        (without_a_shard, "1 of 6 shards missing: model-00002-of-00006.safetensors. Fetch"),
        (truncated, "is damaged: truncated: it is"),
        (truncated_bin, "is damaged: truncated: the archive's directory"),
        (lambda p: change_config(tiny_mamba(p), '{"model_type": '), "config.json' is damaged: it is not rea"),
        (lambda p: change_config(tiny_mamba(p), "[1]"), "config.json' is damaged: it holds no JSON object"),
        (lambda p: change_config(tiny_mamba(p), "{}"), "config.json' describes no known architecture"),
        (
            lambda p: change_config(
                tiny_mamba(p), json.dumps(mamba_config().to_dict() | {"hidden_size": "wide"})
            ),
            "config.json' cannot be read by transformers: Validation error for field 'hidden_size': TypeErr",
        ),
        (adapter_without_base, "base model 'gone-for-good' is not here. Put"),
        (lambda p: gguf(p, b"no GGUF at all, but long enough"), "does not begin with GGUF's magic bytes"),
        (lambda p: gguf(p, b"GGUF\3\0\0\0"), "truncated: it is 8 bytes long"),
        (lambda p: gguf(p, b"GGUF\3\0\0\0" + b"\xff" * 64), "announces 18446744073709551615 tensors"),
        (lambda p: tiny_mamba(p, config={"vocab_size": 290}), "tokenizer of m is larger than its embedding"),
        (lambda p: tiny_mamba(p, with_tokenizer=False), "has no tokenizer. Looked for tokenizer.json"),
    ],
)
def test_checkpoints_that_are_none(
    fails: Callable[..., str], tmp_path: Path, data: Path, build: Callable[[Path], Path], words: str
) -> None:
    directory = build(tmp_path / "m")
    assert words in fails(4, "--model", directory, *TASKS, "--data-dir", data)


@pytest.mark.parametrize("form", ["archive", "plain"])
def test_a_pickle_never_runs_its_code(
    fails: Callable[..., str], tmp_path: Path, data: Path, form: str
) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "it-ran"),)

    file = tiny_mamba_ssm(tmp_path / "m", with_tokenizer=True) / "pytorch_model.bin"
    if form == "archive":
        torch.save({"x": Payload()}, file)
    else:
        file.write_bytes(pickle.dumps(Payload()))
    assert "was refused: its pickle" in fails(4, "--model", file.parent, *TASKS, "--data-dir", data)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "the model's name is empty"),
        ("hf:org/", "'hf:org/' is no repository on the Hub. It is written hf:org/name"),
        ("hf:a/b/c", "is no repository on the Hub"),
        ("hf:org/name@", "malformed revision '@'. A revision is"),
        ("mamba-130m@../..", "malformed revision '@../..'"),
        ("mamba-tiny@main", "has no revisions. Leave out '@main'"),
        ("@main", "'@main' names no model before its revision"),
        ("org/name", "is written hf:org/name"),
    ],
)
def test_names_that_are_none(fails: Callable[..., str], data: Path, name: str, words: str) -> None:
    assert words in fails(2, "--model", name, *TASKS, "--data-dir", data)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tasks: [piqa\nname: x: y\n", "1 mistake: (1) line 2, column 5: expected"),
        ("tasks: [piqa]\nfoo: 1\ntask: piqa\n", "2 mistakes: (1) unknown key 'foo'"),
        ("", "holds no mapping with the key 'tasks'"),
        ("tasks: [{task: piqa, metrics: [bleu]}]", "no metric 'bleu', it has acc, acc_norm"),
        (b"\xff\xfe", "cannot be read: it is not UTF-8 text"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_suite_files_that_are_none(
    fails: Callable[..., str], tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / "mine.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    line = fails(2, "--model", "mamba-130m", "--suite", path)
    assert words in line
    assert "For example: `tasks: [" in line or "A suite is a YAML file" in line


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--suite", ""], 2, "--suite is empty"),
        (["--data-dir", ""], 2, "--data-dir is empty"),
        (["--out", " "], 2, "--out is empty"),
        (["--tokenizer", ""], 2, "--tokenizer is empty"),
        ([*TASKS, "--device", "tpu"], 2, "unknown device 'tpu'. Use auto, cpu"),
        ([*TASKS, "--dtype", "int4"], 2, "'int4' is not one of"),
        ([*TASKS, "--max-length", "1"], 2, "a window of 1 tokens scores nothing. Use --max-length 2"),
        ([*TASKS, "--limmit", "3"], 2, "Did you mean '--limit'? See `mambabench zeroshot --help`."),
        ([*TASKS, "--plot", "gone/x.svg"], 2, "the folder of gone/x.svg does not exist"),
        ([*TASKS, "--plot", "/proc/x.svg"], 2, "/proc/x.svg cannot be written"),
        ([*TASKS, "--plot", "FOLDER.svg"], 2, "FOLDER.svg is a directory. Name a file"),
        ([*TASKS, "--out", "FILE"], 2, "FILE is not a directory. Name another"),
        ([*TASKS, "--out", "/proc/x"], 2, "cannot write /proc/x"),
        ([*TASKS, "--tokenizer", "/gone"], 2, "--tokenizer '/gone' is no directory"),
        ([*TASKS, "--tokenizer", "mamba-14b"], 2, "--tokenizer 'mamba-14b' is no directory"),
        ([*TASKS, "--tokenizer", "FOLDER.svg"], 4, "FOLDER.svg' has no tokenizer. Looked for"),
        ([*TASKS, "--data-dir", "/gone"], 2, "data directory /gone does not exist"),
        ([*TASKS, "--data-dir", "FILE"], 2, "data directory FILE is not a directory"),
        ([*TASKS, "--data-dir", "FOLDER.svg"], 4, "1 data set is missing: baber/piqa (for piqa: looked for"),
    ],
    ids=str,
)
def test_options_that_cannot_be(
    fails: Callable[..., str], model: Path, data: Path, options: list[str], code: int, words: str
) -> None:
    Path("FOLDER.svg").mkdir()
    Path("FILE").write_text("")
    given = options if "--data-dir" in options else ["--data-dir", data, *options]
    assert words in fails(code, "--model", model, *given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_gpu_that_is_not_there(fails: Callable[..., str], model: Path, data: Path, device: str) -> None:
    line = fails(4, "--model", model, *TASKS, "--data-dir", data, "--device", device)
    assert f"'{device}' cannot be used" in line
    assert "`--device cpu`" in line


@pytest.mark.usefixtures("unreachable")
def test_a_hub_that_cannot_be_reached(fails: Callable[..., str], tmp_path: Path, data: Path) -> None:
    line = fails(4, "--model", "mamba-130m", *TASKS, "--data-dir", data)
    for words in ("state-spaces/mamba-130m", NOWHERE, "pytorch_model.bin", "`hf download", "HF_HOME"):
        assert words in line
    base = lora_adapter(tmp_path / "adapter", tiny_neox(tmp_path / "base"), base_name="hf:org/base")
    line = fails(4, "--model", base, *TASKS, "--data-dir", data)
    assert "the adapter's base model org/base is not in the local cache" in line
    assert f"into {base / 'adapter_config.json'}" in line


@pytest.mark.usefixtures("unreachable")
def test_a_hub_that_must_not_be_asked(
    fails: Callable[..., str], data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = fails(4, "--model", "hf:org/name", *TASKS, "--data-dir", data)
    assert "org/name is not in the local cache and the Hub must not be asked (HF_HUB_OFFLINE)" in line
    assert "Unset HF_HUB_OFFLINE" in line
    line = fails(4, "--model", model, *TASKS)
    assert "1 data set is missing (not in the Hub's cache, and HF_HUB_OFFLINE is set): baber/piqa" in line


@pytest.mark.usefixtures("unreachable")
def test_data_that_the_hub_does_not_give(fails: Callable[..., str], model: Path) -> None:
    line = fails(4, "--model", model)
    assert "5 data sets are missing" in line
    assert NOWHERE in line
    assert "--data-dir DIR" in line


PIQA = {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}
ARC = {"id": "1", "question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}


@pytest.mark.parametrize(
    ("task", "file", "content", "words"),
    [
        ("piqa", "baber/piqa/validation", json.dumps(PIQA) + "\n{'goal'\n", "line 2: no JSON"),
        ("piqa", "baber/piqa/validation", "[1]\n", "line 1: no JSON object but a list"),
        ("piqa", "baber/piqa/validation", "\n", "holds no rows. A .jsonl file holds"),
        ("piqa", "baber/piqa/validation", '{"a": 1}\n', "the columns are a. They must be those of"),
        (
            "arc_easy",
            "allenai/ai2_arc/ARC-Easy/test",
            f"{json.dumps(ARC)}\n{json.dumps(ARC | {'answerKey': 'Z'})}\n",
            "document 2: 'Z' is not in list",
        ),
    ],
)
def test_rows_that_are_none(
    fails: Callable[..., str], tmp_path: Path, model: Path, task: str, file: str, content: str, words: str
) -> None:
    path = tmp_path / f"{file}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert words in fails(2, "--model", model, "--task", task, "--data-dir", tmp_path)


def test_what_needs_no_model_library_is_found_without_one(tmp_path: Path, data: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    half = without_weights(tmp_path / "half")
    fine = ["--model", str(model), *TASKS, "--data-dir", str(data)]
    commands: list[tuple[int, list[str]]] = [
        (2, ["--model", "mamba-14b", *TASKS]),
        (2, ["--model", str(model), "--suite", "smoek"]),
        (2, ["--model", str(model), "--task", "piqua"]),
        (4, ["--model", str(half), *TASKS, "--data-dir", str(data)]),
        (4, ["--model", str(truncated(tmp_path / "short")), *TASKS, "--data-dir", str(data)]),
        (4, ["--model", "hf:org/name", *TASKS, "--data-dir", str(data)]),
        (4, ["--model", str(model), *TASKS, "--data-dir", str(empty(tmp_path / "nothing"))]),
        (2, [*fine, "--out", str(tmp_path / "file")]),
        (2, [*fine, "--device", "tpu"]),
        (2, [*fine, "--max-length", "1"]),
        (2, [*fine, "--plot", "/proc/x.svg"]),
        (4, [*fine, "--tokenizer", "hf:org/name"]),
    ]
    program = (
        "import json, sys\nfrom mambabench.cli import _run\n"
        "codes = [_run(['zeroshot', *c]) for _, c in json.loads(sys.argv[1])]\n"
        "heavy = ('torch', 'transformers', 'lm_eval', 'datasets', 'pandas')\n"
        "print(json.dumps([codes, [m for m in heavy if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        cwd=empty(tmp_path / "cwd"),
        env={**os.environ, "HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path / "hf")},
    )
    codes, heavy = json.loads(done.stdout)
    assert codes == [code for code, _ in commands]
    assert heavy == []
    assert len(done.stderr.splitlines()) == len(commands)
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_fault_of_ours_is_not_taken_for_a_failed_gate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(text: str, **how: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("mambabench.preflight.resolve", fault)
    assert _run(["zeroshot", "--model", "mamba-130m", *TASKS]) == 3
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert err.splitlines()[-1].startswith("error: this is a fault of mambabench")


def test_what_lm_eval_finds_odd_is_a_remark_and_no_noise(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    rows = [PIQA, PIQA | {"label": 7}, PIQA | {"label": 8}]
    write_jsonl(tmp_path / "baber" / "piqa" / "validation.jsonl", rows)
    tokenizer = build_tokenizer(tmp_path / "tokenizer")
    options = ("--data-dir", str(tmp_path), "--tokenizer", str(tokenizer), "--json")
    assert _run(["zeroshot", "--model", str(model), *TASKS, *options]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    (warning,) = json.loads(out)["warnings"]
    assert warning.startswith("piqa: lm-eval says: Label index was not in within range")
    assert warning.endswith("(2 times)")
