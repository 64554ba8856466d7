"""Steps read from names and from trainers' records, and nothing else taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.compare.steps import Stepped, step_of, stepped

BEFORE = st.sampled_from(["", "out/", "pythia-160m@", "160m_", "hf:org/model@", "/tmp/mamba-130m-", "run 3/"])
AFTER = st.sampled_from(["", ".json", ".ckpt", "/", "-unsharded", "-tokens2B", "_seed7"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("checkpoint-500", Stepped("", 500)),
        ("out/checkpoint-500", Stepped("out", 500)),
        ("out/checkpoint-500/", Stepped("out", 500)),
        ("out/checkpoint-500/model.safetensors", Stepped("out", 500)),
        ("step143000", Stepped("", 143_000)),
        ("160m_step143000.json", Stepped("160m", 143_000)),
        ("pythia-160m@step1000", Stepped("pythia-160m", 1000)),
        ("hf:EleutherAI/pythia-1.4b@step3000", Stepped("pythia-1.4b", 3000)),
        ("iter_0001000", Stepped("", 1000)),
        ("global_step500", Stepped("", 500)),
        ("ckpt-3", Stepped("", 3)),
        ("step0", Stepped("", 0)),
        ("step10k", Stepped("", 10_000)),
        ("epoch=3-step=100.ckpt", Stepped("", 100)),
        ("checkpoint-2-step100", Stepped("checkpoint-2", 100)),
        ("step1000-tokens2B", Stepped("", 1000)),
        ("mamba-seed1-step20", Stepped("mamba-seed1", 20)),
        ("runs\\a\\checkpoint-7", Stepped("a", 7)),
    ],
)
def test_names_say_run_and_step(name: str, expected: Stepped) -> None:
    assert stepped(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "", "/", ".", "mamba-130m", "mamba-1.4b", "pythia-160m", "epoch-3", "epoch3", "checkpoint-epoch-3",
        "ckpt-7b", "checkpoint-1.5", "footstep3", "stepping-stone", "checkpoint", "out/step5/a/b",
        "mamba-2.8b-slimpj", "step1000x",
    ],
)  # fmt: skip
def test_other_names_say_none(name: str) -> None:
    assert stepped(name) is None


@given(
    before=BEFORE,
    word=st.sampled_from(["checkpoint-", "step", "step_", "global_step", "iter_", "ckpt-", "STEP="]),
    step=st.integers(0, 10**9),
    zeros=st.integers(0, 2),
    after=AFTER,
)
def test_any_step_is_read_back(before: str, word: str, step: int, zeros: int, after: str) -> None:
    assert step_of(f"{before}{word}{'0' * zeros}{step}{after}") == step


@given(before=BEFORE, steps=st.lists(st.integers(0, 10**6), min_size=2, max_size=4), after=AFTER)
def test_checkpoints_of_one_run_share_its_name(before: str, steps: list[int], after: str) -> None:
    found = [stepped(f"{before}step{step}{after}") for step in steps]
    assert len({one.series for one in found if one is not None}) == 1
    assert [one.step for one in found if one is not None] == steps


@given(st.text(max_size=40))
def test_any_text_is_answered(text: str) -> None:
    found = step_of(text)
    assert found is None or found >= 0


class TestTrainerState:
    def written(self, folder: Path, state: Any) -> Path:
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(state if isinstance(state, str) else json.dumps(state))
        return folder

    def test_the_trainer_knows_better_than_the_name(self, tmp_path: Path) -> None:
        folder = self.written(tmp_path / "tuned" / "checkpoint-500", {"global_step": 450})
        assert stepped(folder) == Stepped("tuned", 450)

    def test_a_last_checkpoint_belongs_to_those_within_it(self, tmp_path: Path) -> None:
        last = self.written(tmp_path / "tuned", {"global_step": 700, "max_steps": 700})
        inner = self.written(last / "checkpoint-100", {"global_step": 100})
        assert (stepped(last), stepped(inner)) == (Stepped("tuned", 700), Stepped("tuned", 100))

    @pytest.mark.parametrize(
        "state", ["{", "[]", "null", {}, {"global_step": "7"}, {"global_step": True}, {"global_step": -1}]
    )
    def test_a_damaged_record_says_nothing(self, tmp_path: Path, state: Any) -> None:
        assert stepped(self.written(tmp_path / "final", state)) is None
        assert step_of(self.written(tmp_path / "checkpoint-3", state)) == 3
