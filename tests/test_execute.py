"""A run from names to a table, on checkpoints made on the spot and rows of the real tasks' shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import build_tokenizer, lora_adapter, tiny_mamba, tiny_mamba2, tiny_mamba_ssm, tiny_neox
from safetensors.torch import load_file, save_file
from tasks.rows import write_rows

import mambabench.models.load
from mambabench.errors import CellsFailedError, CheckpointError, DataMissingError, StoreError, UsageError
from mambabench.execute import run_zeroshot
from mambabench.registry import resolve
from mambabench.store import Store
from mambabench.suite import load_suite, suite_from_tasks
from mambabench.zeroshot import ZeroshotOptions, ZeroshotOutcome, published_as


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_mamba(folder / "mamba")
    tiny_neox(folder / "neox")
    tiny_mamba2(folder / "mamba2")
    build_tokenizer(tiny_mamba_ssm(folder / "official"))
    lora_adapter(folder / "adapter", folder / "mamba")
    return folder


@pytest.fixture
def run(data_dir: Path, tmp_path: Path) -> Callable[..., ZeroshotOutcome]:
    def call(
        *models: Path, tasks: tuple[str, ...] = ("piqa", "lambada_openai"), **how: Any
    ) -> ZeroshotOutcome:
        options = ZeroshotOptions(
            models=tuple(map(str, models)),
            suite=how.pop("suite", None) or suite_from_tasks(list(tasks)),
            out=how.pop("out", tmp_path / "results"),
            data_dir=data_dir,
        )
        return run_zeroshot(replace(options, **how))

    return call


def values(outcome: ZeroshotOutcome) -> dict[tuple[str, str, str], float | None]:
    return {(r.model, r.task, r.metric): r.value for r in outcome.table.rows}


@pytest.mark.parametrize("suite", ["mamba-paper", "mamba2-paper", "slimpj", "tinyllama", "mmlu", "wikitext"])
@pytest.mark.slow
def test_every_suite_runs_from_end_to_end(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, suite: str
) -> None:
    outcome = run(checkpoints / "neox", suite=load_suite(suite), limit=2)
    assert not outcome.failed
    assert all(r.value is not None and r.n > 0 for r in outcome.table.rows)
    assert outcome.table.partial


def test_the_same_command_finds_its_run_and_repeats_nothing(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(checkpoints / "mamba")
    assert (first.n_computed, len(first.cells)) == (2, 2)

    def refuse(plan: Any) -> Any:
        raise AssertionError("weights were read")

    monkeypatch.setattr(mambabench.models.load, "load", refuse)
    second = run(checkpoints / "mamba")
    assert second.n_computed == 0
    assert second.path == first.path
    assert second.table == first.table
    assert second.cells == first.cells


def test_only_what_is_missing_is_computed(run: Callable[..., ZeroshotOutcome], checkpoints: Path) -> None:
    first = run(checkpoints / "mamba")
    lost = next((first.path / "cells").glob("*piqa*"))
    lost.unlink()
    second = run(checkpoints / "mamba")
    assert second.n_computed == 1
    (piqa,) = [c for c in second.cells if c.task.task == "piqa"]
    assert piqa.n_requests_answered_before == piqa.n_requests
    assert piqa.n_tokens_forwarded == 0
    assert values(second) == values(first)


@pytest.mark.parametrize(
    "change",
    [{"limit": 3}, {"dtype": "bfloat16"}, {"max_length": 40}, {"weights": "random"}, {"tasks": ("piqa",)}],
    ids=str,
)
def test_another_command_is_another_run(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, change: dict[str, Any]
) -> None:
    assert run(checkpoints / "mamba").path != run(checkpoints / "mamba", **change).path


def test_other_weights_in_the_same_place_are_another_run(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path
) -> None:
    place = tmp_path / "m"
    shutil.copytree(checkpoints / "mamba", place)
    first = run(place)
    shutil.rmtree(place)
    tiny_mamba(place, seed=7)
    second = run(place)
    assert second.path != first.path
    assert values(second) != values(first)


def test_a_copy_under_another_name_gives_the_same_figures(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints / "mamba", tmp_path / "copy")
    one, two = run(checkpoints / "mamba"), run(tmp_path / "copy")
    assert two.n_computed == 0
    assert [c.metrics for c in one.cells] == [c.metrics for c in two.cells]
    assert [r.value for r in one.table.rows] == [r.value for r in two.table.rows]
    assert {r.model for r in two.table.rows} == {"copy"}


def test_equal_weights_twice_in_one_run_are_not_pooled(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints / "mamba", tmp_path / "copy")
    for _ in range(2):
        outcome = run(checkpoints / "mamba", tmp_path / "copy")
        one, two = ([r for r in outcome.table.rows if r.model == m] for m in ("mamba", "copy"))
        assert [(r.value, r.n) for r in one] == [(r.value, r.n) for r in two]
        assert {r.n for r in one} == {8}


def test_other_package_versions_are_another_run(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mambabench.zeroshot

    first = run(checkpoints / "mamba")
    versions = {**mambabench.zeroshot.package_versions(), "torch": "9.9.9"}
    monkeypatch.setattr(mambabench.zeroshot, "package_versions", lambda: versions)
    second = run(checkpoints / "mamba")
    assert second.path != first.path
    assert second.n_computed == 2


def test_changed_data_is_another_run(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, data_dir: Path, tmp_path: Path
) -> None:
    place = tmp_path / data_dir.name
    shutil.copytree(data_dir, place)
    first = run(checkpoints / "mamba", data_dir=place)
    rows = next((place / "baber" / "piqa").glob("*.jsonl"))
    rows.write_text("".join(reversed(rows.read_text().splitlines(keepends=True))))
    assert run(checkpoints / "mamba", data_dir=place).path != first.path


def test_a_model_whose_output_is_no_number_fails_its_cells(
    run: Callable[..., ZeroshotOutcome], tmp_path: Path
) -> None:
    place = tiny_mamba(tmp_path / "broken")
    tensors = load_file(place / "model.safetensors")
    tensors["backbone.norm_f.weight"][:] = float("nan")
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    outcome = run(place)
    assert len(outcome.failed) == 2
    assert "not a number" in outcome.failed[0].error
    with pytest.raises(CellsFailedError, match="not a number"):
        outcome.raise_for_failures()


@pytest.mark.parametrize(
    "change", [{"max_length": 512}, {"system_instruction": "Be brief."}, {"weights": "random"}], ids=str
)
def test_published_figures_are_for_published_weights_and_plain_prompts(change: dict[str, Any]) -> None:
    options = ZeroshotOptions(models=("mamba-130m",), suite=load_suite("mamba-paper"))
    ref = resolve("mamba-130m")
    plan = SimpleNamespace(spec=ref.spec, weights="pretrained", adapter=None, ref=ref)
    assert published_as(plan, options) == "mamba-130m"  # type: ignore[arg-type]
    changed = replace(options, **change)
    plan.weights = changed.weights
    assert published_as(plan, changed) is None  # type: ignore[arg-type]


def test_multiturn_examples_need_a_chat_template(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path
) -> None:
    with pytest.raises(UsageError, match="needs --apply-chat-template"):
        run(checkpoints / "mamba", fewshot_as_multiturn=True)


def test_several_models_and_formats_stand_in_one_table(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path
) -> None:
    names = ("mamba", "mamba2", "official", "adapter", "neox")
    outcome = run(*(checkpoints / n for n in names))
    assert outcome.table.models == names
    assert not outcome.failed
    perplexity = {model: v for (model, _, metric), v in values(outcome).items() if metric == "perplexity"}
    # The same weights in mamba_ssm's format.
    assert perplexity.pop("official") == perplexity["mamba"]
    assert len(set(perplexity.values())) == len(names) - 1
    stored = {run.path.name: run for run in Store(outcome.path.parent).runs()}[outcome.path.name]
    records = stored.checkpoints()
    assert records["adapter"].adapter is not None
    assert records["official"].implementation == records["mamba"].implementation
    assert records["mamba"].vocab_rows_used < records["mamba"].vocab_rows_stored


def test_equal_short_names_are_told_apart(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path
) -> None:
    other = tiny_mamba(tmp_path / "mamba", seed=3)
    outcome = run(checkpoints / "mamba", other)
    assert outcome.table.models == (str(checkpoints / "mamba"), str(other))
    assert len({c.fingerprint for c in outcome.cells}) == 4


def test_partial_is_for_good(run: Callable[..., ZeroshotOutcome], checkpoints: Path) -> None:
    outcome = run(checkpoints / "mamba", limit=2)
    assert outcome.table.partial
    manifest = json.loads((outcome.path / "manifest.json").read_text())
    assert manifest["partial"] is True
    assert all(json.loads(p.read_text())["partial"] for p in (outcome.path / "cells").glob("*.json"))
    assert all(r.verdict in ("partial", "no reference") for r in outcome.table.rows)


def test_one_failing_cell_leaves_the_others_and_is_tried_again(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mambabench.tasks.evaluate as evaluate

    score_task = evaluate.score_task

    def failing(name: str, *args: Any, **how: Any) -> Any:
        if name == "piqa":
            raise RuntimeError("no luck")
        return score_task(name, *args, **how)

    monkeypatch.setattr(evaluate, "score_task", failing)
    outcome = run(checkpoints / "mamba")
    assert [c.task.task for c in outcome.failed] == ["piqa"]
    with pytest.raises(
        CellsFailedError, match="1 of 2 cells failed, first mamba on piqa: RuntimeError: no luck"
    ):
        outcome.raise_for_failures()
    monkeypatch.undo()
    again = run(checkpoints / "mamba")
    assert again.n_computed == 1
    assert not again.failed


def test_data_missing_is_found_before_weights_are_read(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mambabench.models.load, "load", lambda plan: pytest.fail("weights were read"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissingError, match="piqa"):
        run(checkpoints / "mamba", data_dir=tmp_path / "empty")
    assert not (tmp_path / "results").exists()


def test_nothing_is_written_when_the_checkpoint_is_none(
    run: Callable[..., ZeroshotOutcome], tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError):
        run(tmp_path / "nothing")
    assert not (tmp_path / "results").exists()


def test_a_place_that_cannot_be_written_to_is_found_first(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is not a directory"):
        run(checkpoints / "mamba", out=tmp_path / "file" / "results")


def test_a_chat_template_is_asked_for_before_anything_slow(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path
) -> None:
    with pytest.raises(UsageError, match="tokenizer of mamba has no chat template"):
        run(checkpoints / "mamba", apply_chat_template=True)


def test_chat_templates_change_the_prompts(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path
) -> None:
    place = tmp_path / "chatty"
    shutil.copytree(checkpoints / "mamba", place)
    config = json.loads((place / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    outcome = run(place, apply_chat_template=True, system_instruction="Be brief.")
    stored = next(r for r in Store(outcome.path.parent).runs() if r.path == outcome.path)
    (sample, *_) = stored.read_samples(outcome.cells[0].fingerprint)
    prompt = sample["arguments"][0][0]
    assert prompt.startswith("<system>Be brief.<user>")
    assert prompt.endswith("<assistant>")
    plain = run(place)
    assert plain.cells[0].task.requests_sha256 != outcome.cells[0].task.requests_sha256


def test_export_for_lm_eval_holds_its_metrics_and_every_sample(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path
) -> None:
    outcome = run(checkpoints / "mamba", exports=("lm-eval",))
    (results,) = (outcome.path / "lm-eval").glob("*/results_*.json")
    found = json.loads(results.read_text())["results"]
    for row in outcome.table.rows:
        scale = 100 if row.unit == "%" else 1
        assert found[row.task][f"{row.metric},none"] * scale == pytest.approx(row.value)
    lines = [p.read_text().splitlines() for p in results.parent.glob("samples_piqa_*.jsonl")]
    assert len(lines[0]) == outcome.cells[0].task.n_docs
    # Exported again from the kept answers alone, by the run that computes nothing.
    again = run(checkpoints / "mamba", exports=("lm-eval",))
    assert again.n_computed == 0
    assert len(list(results.parent.glob("results_*.json"))) == 1


def test_random_weights_depend_on_the_seed_alone(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, tmp_path: Path
) -> None:
    runs = [
        run(checkpoints / "mamba2", weights="random", seed=seed, out=tmp_path / out)
        for seed, out in ((1, "a"), (1, "b"), (2, "c"))
    ]
    assert values(runs[0]) == values(runs[1])
    assert values(runs[0]) != values(runs[2])


def test_both_engines_agree_and_are_kept_apart(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path
) -> None:
    tasks = ("piqa", "hellaswag", "lambada_openai")
    for name in ("mamba", "mamba2", "neox", "official"):
        shared = run(checkpoints / name, tasks=tasks)
        shipped = run(checkpoints / name, tasks=tasks, engine="as-shipped")
        assert shipped.n_computed == 3
        assert shared.path != shipped.path
        for ours, theirs in zip(shared.cells, shipped.cells, strict=True):
            assert [m.value for m in ours.metrics] == pytest.approx(
                [m.value for m in theirs.metrics], rel=1e-4
            )
        assert sum(c.n_tokens_forwarded for c in shared.cells) < 0.9 * sum(
            c.n_tokens_forwarded for c in shipped.cells
        )
        (record,) = shared.checkpoints.values()
        assert record.certificate is not None
        assert record.certificate.passed
        (record,) = shipped.checkpoints.values()
        assert record.certificate is None


def test_a_wrong_fast_path_stops_the_run(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mambabench.errors import CertificateError
    from mambabench.models.step_mamba import MambaSteps

    # Nothing that an earlier comparison left behind may speak for this one.
    monkeypatch.setenv("MAMBABENCH_CACHE", str(tmp_path / "cache"))
    original = MambaSteps.start

    def forgetful(self: MambaSteps, input_ids: Any, lengths: Any, state: Any = None, **how: Any) -> Any:
        return right(self, input_ids, lengths, None if state is None else original(self, state.rows), **how)

    right = MambaSteps.step
    monkeypatch.setattr(MambaSteps, "step", forgetful)
    with pytest.raises(CertificateError, match="times as much"):
        run(checkpoints / "mamba")
    outcome = run(checkpoints / "mamba", verify=False)
    assert not outcome.failed
    (record,) = outcome.checkpoints.values()
    assert record.certificate is None


def test_a_memory_budget_makes_another_run_with_the_same_figures(
    run: Callable[..., ZeroshotOutcome], checkpoints: Path
) -> None:
    free = run(checkpoints / "mamba")
    tight = run(checkpoints / "mamba", memory_budget_bytes=16_000_000)
    assert tight.path != free.path
    assert values(tight) == pytest.approx(values(free), rel=1e-4)
