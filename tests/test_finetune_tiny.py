"""The checkpoints that comparisons are shown on: what they are trained on, kept, and gone on from."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambabench.assets import bundled_dir
from mambabench.compare.steps import Stepped, stepped
from mambabench.registry import resolve
from mambabench.tasks.smoke.items import full_texts
from mambabench.tasks.smoke.texts import is_held_out

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tools() -> Any:
    """The tool as a module: tools are scripts beside each other, not a package."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import finetune_tiny
        import train_tiny
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return finetune_tiny, train_tiny


@pytest.fixture(scope="module")
def tokenizer(tools: Any) -> Any:
    return tools[0].PreTrainedTokenizerFast.from_pretrained(bundled_dir() / "mamba-tiny")


@pytest.fixture(scope="module")
def windows(tools: Any, tokenizer: Any) -> Any:
    """Six steps of two short windows."""
    documents = (text for text in tools[0].documents(5) if len(text) < 300)
    return tools[1].pack_windows(tokenizer, 5, 6 * tools[0].ROWS, documents=documents, window_tokens=96)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


class TestDocuments:
    def test_no_item_of_the_smoke_suite_is_trained_on(self, tools: Any) -> None:
        drawn = list(itertools.islice(tools[0].documents(tools[0].DEFAULT_SEED), 3000))
        items = ROOT / "mambabench" / "tasks" / "smoke" / "data" / "mambabench"
        tested = [
            full_texts(path.parent.name, json.loads(line))
            for path in items.glob("*/test.jsonl")
            for line in path.read_text("utf-8").splitlines()
        ]
        assert len(tested) > 200
        everything = "\n".join(drawn)
        assert not any(text in everything for text in tested)

    def test_long_stories_are_among_them_and_none_is_held_out(self, tools: Any) -> None:
        drawn = list(itertools.islice(tools[0].documents(1), 1000))
        # The longest usual ones have up to 1,000 letters.
        long = [text for text in drawn if len(text) > 1300]
        assert 0.03 < len(long) / len(drawn) < 0.1
        assert not any(is_held_out(text) for text in long)
        assert drawn == list(itertools.islice(tools[0].documents(1), 1000))
        assert drawn != list(itertools.islice(tools[0].documents(2), 1000))


class TestStepsToKeep:
    def test_given_or_at_equal_distances(self, tools: Any) -> None:
        keep = tools[0].steps_to_keep
        assert keep(None, 600) == (100, 200, 300, 400, 500, 600)
        assert keep(None, 2) == (1, 2)
        assert keep("5, 3,3", 5) == (3, 5)

    @pytest.mark.parametrize(
        ("text", "steps"), [("0", 5), ("6", 5), ("x", 5), ("", 5), ("1,,2", 5), (None, 0)]
    )
    def test_impossible_ones_are_refused(self, tools: Any, text: str | None, steps: int) -> None:
        with pytest.raises(ValueError, match="step"):
            tools[0].steps_to_keep(text, steps)


class TestTraining:
    @pytest.mark.parametrize(
        ("model", "embedding"),
        [("mamba-tiny", "backbone.embeddings.weight"), ("pythia-tiny", "gpt_neox.embed_in.weight")],
    )
    def test_an_interrupted_training_ends_with_the_same_weights(
        self,
        tools: Any,
        windows: Any,
        model: str,
        embedding: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        tool, _ = tools

        def tuned(name: str, peak: float = 1e-3) -> Path:
            tool.finetune(bundled_dir() / model, tmp_path / name, peak, windows, (2, 4), seed=5)
            return tmp_path / name

        whole = tuned("whole")
        descend = tool.descend

        def interrupted(*arguments: Any, **options: Any) -> Any:
            for step, loss in descend(*arguments, **options):
                if step == 4:
                    raise KeyboardInterrupt
                yield step, loss

        with monkeypatch.context() as patch:
            patch.setattr(tool, "descend", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tuned("halves")
        assert not (tmp_path / "halves" / "trainer_state.json").exists()
        halves = tuned("halves")
        for part in ("", "checkpoint-2", "checkpoint-4"):
            ours, theirs = weights(whole / part), weights(halves / part)
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert not torch.equal(*(weights(whole / part)[embedding] for part in ("", "checkpoint-4")))
        assert stepped(whole) == Stepped("whole", 6)
        assert stepped(whole / "checkpoint-2") == Stepped("whole", 2)
        assert resolve(str(whole / "checkpoint-4")).name == "checkpoint-4"
        assert not (whole / "training.pt").exists()
        # What is finished is left alone, and not taken for something else.
        before = (whole / "model.safetensors").stat().st_mtime_ns
        assert (tuned("whole") / "model.safetensors").stat().st_mtime_ns == before
        with pytest.raises(SystemExit, match="other settings"):
            tuned("whole", peak=2e-3)

    def test_the_rate_rises_stays_and_falls(self, tools: Any) -> None:
        shares = [tools[0].schedule(step, 200) for step in range(200)]
        assert shares[0] == pytest.approx(0.1)
        assert shares[9:102] == pytest.approx([1.0] * 93)
        assert np.all(np.diff(shares[101:]) <= 0)
        assert shares[-1] == pytest.approx(0.03)
