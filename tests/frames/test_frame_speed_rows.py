"""Rows of sweeps: every figure of the command's table is in a frame, and what went wrong is a row too."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speed_records import MAMBA, PYTHIA, ceilings, failed, point, replicate, sizes_by_name, sweep
from stored_sweeps import conversation, store_sweep

from mambabench.frames import sweeps
from mambabench.frames.columns import frame
from mambabench.frames.load import LoadedRun
from mambabench.frames.speed_columns import ESTIMATES
from mambabench.frames.sweeps import speed_table
from mambabench.speed_schema import PointRecord, PowerRecord, ReplicateRecord, Status
from mambabench.stats.replicates import Estimate
from mambabench.store import StoredRun
from mambabench.tables.speed.contenders import Field
from mambabench.tables.speed.conversation import conversation_rows
from mambabench.tables.speed.table import build_speed_table
from mambabench.tables.speed.words import answers

LABELS = {"mamba-130m": "mamba-130m (a run)"}


def loaded(folder: Path, records: Sequence[ReplicateRecord]) -> LoadedRun:
    stored = StoredRun(store_sweep(folder, records))
    table = speed_table(stored, stored.replicates(), [ceilings(), ceilings(1)])
    return LoadedRun(folder.name, folder, stored, labels=LABELS, speed=table)


def framed(name: str, *runs: LoadedRun) -> pd.DataFrame:
    return frame(name, getattr(sweeps, f"rows_of_{name}")(runs))


def test_speed_has_every_figure_of_the_table(tmp_path: Path) -> None:
    records = sweep(prompt_lens=(128, 4096), gen_len=128, processes=6)
    records += [failed(point(PYTHIA, 8192, gen_len=128), n) for n in range(6)]
    power = PowerRecord(energy_j=10.0, duration_s=1.0, n_tokens=5, idle_w=1.0)
    records[0] = records[0].model_copy(update={"power": power})
    run = loaded(tmp_path / "a", records)
    assert run.speed is not None
    found = framed("speed", run)
    assert len(found) == len(run.speed.rows) == 5
    for (_, got), row in zip(found.iterrows(), run.speed.rows, strict=True):
        for name in ESTIMATES:
            estimate: Estimate | None = getattr(row, name)
            if estimate is None:
                assert pd.isna(got[name])
                assert got[f"{name}_method"] is None
            else:
                ends = [got[f"{name}{end}"] for end in ("", "_low", "_high", "_method")]
                assert ends == [estimate.value, estimate.low, estimate.high, estimate.method]
        assert (got["status"], got["detail"], got["prompt_len_tokens"]) == (
            row.status, row.detail, row.point.prompt_len_tokens
        )  # fmt: skip
        assert got["flags"].split("; ") == list(row.flags) or not row.flags
        if row.memory is not None:
            assert got["transient_bytes"] == row.memory.transient_bytes
    lost = found[found.status == "oom"].iloc[0]
    assert (lost.requested_bytes, lost.label) == (6_700_000_000, "pythia-160m")
    assert list(found.past_training_length) == [False, False, False, True, False]
    assert list(found.label[:1]) == ["mamba-130m (a run)"]
    assert found.gross_j_per_token.notna().sum() == 1


def test_the_fastest_way_of_each_model_is_marked(tmp_path: Path) -> None:
    run = loaded(tmp_path / "a", sweep(prompt_lens=(128,), arms=("eager", "shipped")))
    found = framed("speed", run)
    assert dict(zip(zip(found.model, found.arm, strict=True), found.fastest, strict=True)) == {
        ("mamba-130m", "eager"): True,
        ("mamba-130m", "shipped"): False,
        ("pythia-160m", "eager"): True,
        ("pythia-160m", "shipped"): False,
    }
    dead = framed("speed", loaded(tmp_path / "b", [failed(point(MAMBA), 0, "failed")]))
    assert dead.fastest.isna().all()


def test_a_point_that_is_missing_says_nothing(tmp_path: Path) -> None:
    table = build_speed_table("latency", "", [], [], {}, expected=[point(MAMBA)], n_processes=3)
    [row] = sweeps.rows_of_speed([LoadedRun("r", tmp_path, None, speed=table)])
    assert (row["status"], row["n_processes"], row["past_training_length"]) == ("missing", 0, None)
    assert frame("speed", [row]).ttft_s.isna().all()


def test_ratios_are_those_of_the_sentences(tmp_path: Path) -> None:
    run = loaded(tmp_path / "a", sweep(prompt_lens=(128, 1024), arms=("eager", "shipped")))
    found = framed("speed_ratios", run)
    assert run.speed is not None
    field = Field(run.speed)
    [pair] = field.pairs()
    assert set(found["first"]) == {"mamba-130m (a run) (eager arm)"}
    for name, figure in sweeps.RATIOS.items():
        for setting, ratio in field.ratios(*pair, figure).items():
            [row] = [
                r
                for r in found.to_dict("records")
                if (r["figure"], r["prompt_len_tokens"]) == (name, setting.prompt_len_tokens)
            ]
            assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (ratio.value, ratio.low, ratio.high)
            assert (row["method"], row["n_pairs"]) == ("t on log", 6)


def test_measurements_give_the_medians_of_the_table(tmp_path: Path) -> None:
    records = [*sweep(prompt_lens=(128,), processes=3), failed(point(PYTHIA, 512), 0, "killed")]
    run = loaded(tmp_path / "a", records)
    found, speed = framed("measurements", run), framed("speed", run)
    assert len(found) == 2 * 3 * 10 + 1
    assert found[found.status == "killed"].repeat.isna().all()
    for figure in ("ttft_s", "tpot_s", "e2e_s"):
        for model in ("mamba-130m", "pythia-160m"):
            of = found[(found.model == model) & (found.prompt_len_tokens == 128)]
            medians = of.groupby("replicate")[figure].median()
            said = speed[(speed.model == model) & (speed.prompt_len_tokens == 128)][figure].iloc[0]
            assert said == pytest.approx(statistics.geometric_mean(medians), rel=1e-12)


def test_one_generated_token_has_no_time_of_a_later_one(tmp_path: Path) -> None:
    run = loaded(tmp_path / "a", [replicate(MAMBA, point(MAMBA, gen_len=1))])
    found = framed("measurements", run)
    assert found.tpot_s.isna().all()
    assert found.ttft_s.notna().all()


def test_ceilings_are_the_best_of_each_round(tmp_path: Path) -> None:
    found = framed("ceilings", loaded(tmp_path / "a", sweep(prompt_lens=(128,), processes=1)))
    assert list(found["round"]) == [0, 1]
    assert set(found.copy_bytes_per_s) == {21e9}
    assert set(found.matmul_flops_per_s) == {0.51e12}
    # A round that was cut short has no figure.
    table = build_speed_table("latency", "", [], [ceilings(copy_bytes_per_s=())], {}, expected=[])
    cut = framed("ceilings", LoadedRun("r", tmp_path, None, speed=table))
    assert math.isnan(cut.copy_bytes_per_s[0])


def test_conversations_are_as_the_command_shows_them(tmp_path: Path) -> None:
    at = [point(MAMBA, n, gen_len=1) for n in (512, 2048)]
    records = [conversation(p, n, resume_s=0.1 + n / 100) for n in range(3) for p in at]
    bad = conversation(at[1], 3, resume_s=0.1)
    assert bad.conversation is not None
    told = bad.conversation.model_copy(update={"certified": False})
    records += [bad.model_copy(update={"conversation": told}), failed(point(PYTHIA, 512, gen_len=1))]
    run = loaded(tmp_path / "a", [r.model_copy(update={"kind": "conversation"}) for r in records])
    found = framed("conversation", run)
    rows = {r.point.prompt_len_tokens: r for r in conversation_rows(records) if r.times}
    assert len(found) == 2 * 3
    for got in found.to_dict("records"):
        time_s = rows[got["history_tokens"]].times[got["operation"]]
        assert (got["time_s"], got["time_low_s"], got["time_high_s"], got["method"]) == (
            time_s.value, time_s.low, time_s.high, time_s.method
        )  # fmt: skip
        assert got["certified"] == (got["history_tokens"] == 512)
        assert (got["state_bytes"], got["forked_state_bytes"]) == (1000, 4000)
    again = found.set_index(["history_tokens", "operation"]).prefill_over_resume
    assert again.loc[512, "resume"] == pytest.approx(10)
    assert again.drop("resume", level="operation").isna().all()


def test_runs_without_a_sweep_have_no_rows(tmp_path: Path) -> None:
    empty = LoadedRun("r", tmp_path, None)
    for name in ("speed", "speed_ratios", "measurements", "ceilings", "conversation"):
        assert len(framed(name, empty)) == 0


_POINTS = [point(m, n, batch_size=b, arm=a) for m in (MAMBA, PYTHIA) for n in (128, 512) for b in (1, 4)
           for a in ("eager", "shipped")]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(_POINTS), st.sampled_from(get_args(Status))), max_size=20))
def test_whatever_became_of_points_gives_rows_and_sentences(drawn: list[tuple[PointRecord, Status]]) -> None:
    models = {speeds.name: speeds for speeds in (MAMBA, PYTHIA)}
    records = [
        replicate(models[at.model], at, n, repeats=2) if status == "ok" else failed(at, n, status)
        for n, (at, status) in enumerate(drawn)
    ]
    table = build_speed_table("latency", "", records, [], sizes_by_name(), expected=_POINTS, n_processes=2)
    run = LoadedRun("r", Path("r"), None, speed=table)
    speed = framed("speed", run)
    assert len(speed) == len(_POINTS)
    assert (speed.ttft_s.notna() == speed.n_repeats.gt(0)).all()
    # Of each model one way at most is the fastest.
    assert (speed[speed.fastest.fillna(False)].groupby("model").arm.nunique() <= 1).all()
    measured = [record for record in records if record.status == "ok"]
    assert framed("measurements", run).repeat.notna().sum() == 2 * len(measured)
    assert (framed("speed_ratios", run).ratio > 0).all()
    assert all(text.endswith(".") for text in answers(table, budget_bytes=10**10))
