"""Sentences of sweeps whose truth is known: the right numbers, the right winner, and no word too many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from speed_records import MAMBA, PYTHIA, Speeds, ceilings, failed, point, replicate, sizes_by_name, sweep

from mambabench.sizes import ModelSizes
from mambabench.speed_schema import RepeatRecord, ReplicateRecord
from mambabench.tables.speed.table import build_speed_table
from mambabench.tables.speed.words import answers

EXACT = {"process_noise": 0.0, "repeat_noise": 0.0}


@pytest.fixture(scope="module")
def sizes() -> dict[str, ModelSizes]:
    return sizes_by_name()


def said(
    records: Sequence[ReplicateRecord], begins: str = "", *, budget_bytes: int | None = None, **options: Any
) -> list[str]:
    """Return the answers that begin so."""
    given = {"ceilings": [ceilings()], "sizes": {}, "expected": (), **options}
    kind = records[0].kind if records else "latency"
    table = build_speed_table(kind, "a sweep", list(records), **given)
    return [s for s in answers(table, budget_bytes=budget_bytes) if s.startswith(begins)]


def the(found: list[str]) -> str:
    (sentence,) = found
    return sentence


def numbers(sentence: str) -> list[float]:
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", sentence)]


# --- break-even


def test_break_even_computed_and_measured(sizes: dict[str, ModelSizes]) -> None:
    records = sweep(processes=1)
    # 2.8 MB over 73,728 bytes a token.
    assert the(said(records, "Break-even", sizes=sizes)) == (
        "Break-even context: one state of mamba-130m (2.8 MB) is as large as pythia-160m's cache "
        "(73.7 kB a token) after 38 tokens by the specification and 38 tokens by what was measured of both."
    )
    assert "specification" not in the(said(records, "Break-even"))


def test_break_even_is_at_the_tokens_that_caches_have_room_for() -> None:
    made = []
    for record in sweep(prompt_lens=(8, 64), processes=1):
        assert record.memory is not None
        room = record.point.prompt_len_tokens + record.point.gen_len_tokens
        kv = PYTHIA.kv_bytes_per_token if record.point.model == PYTHIA.name else 0
        larger = {"state_tokens": room, "state_bytes": record.memory.state_bytes + kv}
        made.append(record.model_copy(update={"memory": record.memory.model_copy(update=larger)}))
    # 2.8 MB over 73,728 bytes; a token less would give 37.
    assert "after 38 tokens by what was measured" in the(said(made, "Break-even"))


def test_break_even_needs_a_state_and_a_cache_at_two_lengths() -> None:
    assert said(sweep(processes=1, prompt_lens=(128,)), "Break-even") == []
    assert said(sweep(models=[MAMBA, replace(MAMBA, name="other")]), "Break-even") == []


# --- crossings


def test_a_known_crossing_is_found() -> None:
    # Steps of the one take 30 ms, of the other 25 ms + 8 us a token of depth, 32 steps on average past the
    # prompt: equal at prompt 593, but for the straight lines between lengths.
    lengths = tuple(range(512, 1025, 32))
    sentence = the(said(sweep(prompt_lens=lengths, **EXACT), "Time per token: pythia-160m is faster up to"))
    assert numbers(sentence)[1] == pytest.approx(593, abs=2)
    assert sentence.endswith("mamba-130m beyond (prompts of 512 to 1,024 tokens measured).")


def test_a_crossing_has_an_interval_from_six_processes_and_a_range_below() -> None:
    assert "95% interval" in the(said(sweep(processes=6), "Time per token: pythia-160m is faster up to"))
    assert "of 3 processes" in the(said(sweep(processes=3), "Time per token: pythia-160m is faster up to"))


def test_curves_that_do_not_cross_name_the_faster() -> None:
    assert the(said(sweep(), "Time to first token: pythia-160m is")) == (
        "Time to first token: pythia-160m is faster than mamba-130m for all prompts of 128 to 2,048 tokens, "
        "in each of 6 processes; they do not cross there."
    )


def test_equal_models_do_not_cross_distinguishably() -> None:
    twin = replace(MAMBA, name="twin")
    found = said(sweep(models=[MAMBA, twin], process_noise=0.05), "Time per token: whether")
    assert "not distinguishable" in the(found)


def test_curves_over_batches_cross_too() -> None:
    wide = replace(MAMBA, name="wide", token_s=0.040, token_s_per_sequence=0.0)
    records = sweep("throughput", [MAMBA, wide], prompt_lens=(512,), batch_sizes=(1, 8, 10, 12, 64), **EXACT)
    sentence = the(said(records, "Time per token, prompt 512: mamba-130m is faster up to"))
    # 30 ms and 1 ms for each further sequence: 40 ms at batch 11.
    assert numbers(sentence)[2] == pytest.approx(11, abs=0.1)
    assert "wide beyond (batches of 1 to 64 measured)" in sentence


# --- pairs


def test_one_point_is_said_in_full_with_its_verdict() -> None:
    sentence = the(said(sweep(prompt_lens=(128,)), "Time per token"))
    assert re.fullmatch(
        r"Time per token: mamba-130m takes 1\.1\d \(95% interval 1\.\d\d to 1\.\d\d\) times pythia-160m's at "
        r"prompt 128, more\.",
        sentence,
    )


def test_no_difference_only_where_the_whole_interval_is_inside() -> None:
    def verdict_of(noise: float) -> str:
        twin = replace(MAMBA, name="twin")
        records = sweep(models=[MAMBA, twin], prompt_lens=(128,), process_noise=noise, repeat_noise=0)
        return the(said(records, "Time per token")).rpartition(", ")[2]

    assert verdict_of(0.001) == "no difference."
    assert verdict_of(0.1) == "not distinguishable."


def test_below_six_processes_nothing_is_judged() -> None:
    for processes in (1, 5):
        for lengths in ((128,), (128, 512)):
            text = " ".join(said(sweep(prompt_lens=lengths, processes=processes)))
            assert "interval" not in text
            for word in (", more", ", less", "no difference"):
                assert word not in text


def test_many_points_are_one_sentence_with_extremes_and_counts() -> None:
    lengths = (128, 256, 1024, 4096)
    sentence = the(said(sweep(prompt_lens=lengths, **EXACT), "Time per token: mamba-130m takes"))
    least, most = 30 / (25 + 0.008 * (4096 + 32)), 30 / (25 + 0.008 * (128 + 32))
    assert f"from {least:.2f} (" in sentence
    assert f"to {most:.2f} (" in sentence
    assert sentence.endswith("at prompt 128; of 4 points, less at 2 and more at 2.")


def begun(records: Sequence[ReplicateRecord], model: str, at: Sequence[str]) -> list[ReplicateRecord]:
    """Return the records with other times at which the processes of one model began."""
    return [
        r.model_copy(update={"started_utc": at[r.replicate]}) if r.point.model == model else r
        for r in records
    ]


def test_pairs_of_another_day_are_said_to_be_apart() -> None:
    records = sweep(processes=3)
    near, far = "2025-01-01T00:59:00Z", "2025-01-02T00:00:00+00:00"
    apart = "; measured apart: 6 of 9 pairs began over an hour from each other."
    found = said(begun(records, MAMBA.name, (near, far, far)), "Time")
    # Two figures: who takes how many times the other's, and where they cross.
    assert len(found) == 4
    assert all(s.endswith(apart) for s in found)
    assert not any("apart" in s for s in said(begun(records, MAMBA.name, (near, near, far))))
    # Of two pairs nothing is known.
    assert "of 3 pairs" in said(begun(records, MAMBA.name, ("", "yesterday", far)), "Time")[0]


def test_arms_of_another_day_are_said_to_be_apart() -> None:
    arms = sweep(models=[MAMBA], prompt_lens=(128,), arms=("eager", "shipped"), processes=1)
    late = [
        r.model_copy(update={"started_utc": "2025-01-01T01:00:01Z"}) if r.point.arm == "shipped" else r
        for r in arms
    ]
    assert not any("apart" in s for s in said(arms))
    for sentence in said(late, "Time"):
        assert sentence.endswith("; measured apart: 1 of 1 pair began over an hour from each other.")


def test_of_many_models_only_states_meet_caches() -> None:
    models = [MAMBA, replace(MAMBA, name="m2"), PYTHIA, replace(PYTHIA, name="p2")]
    found = said(sweep(models=models, prompt_lens=(128,), processes=1), "Time per token")
    pairs = {tuple(re.findall(r"(mamba-130m|m2|pythia-160m|p2)", s)) for s in found}
    assert pairs == {("mamba-130m", "pythia-160m"), ("mamba-130m", "p2"), ("m2", "pythia-160m"), ("m2", "p2")}


# --- depth


def test_flatness_and_growth() -> None:
    records = sweep(prompt_lens=(128, 8192), **EXACT)
    flat = the(said(records, "mamba-130m, from prompt 128 to 8,192"))
    assert "changes by 0.0% (95% interval 0.0% to 0.0%, all within 5%)" in flat
    assert "peak memory grows by 20 kB a token" in flat
    steep = the(said(records, "pythia-160m, from prompt 128 to 8,192"))
    change = (25 + 0.008 * (8192 + 32)) / (25 + 0.008 * (128 + 32)) - 1
    assert f"changes by +{100 * change:.0f}%" in steep
    assert "within 5%" not in steep
    assert "93.7 kB" in steep


def test_a_wide_interval_is_not_flat() -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128, 8192), process_noise=0.1)
    assert "within" not in the(said(records, "mamba-130m, from"))


# --- arms


def test_the_price_of_drawing_and_of_the_shipped_library() -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128,), arms=("eager", "shipped", "sampled"), **EXACT)
    found = said(records, "Time")
    assert [s.partition(" at prompt")[0] for s in found] == [
        "Time to first token of mamba-130m: the model's own library (shipped arm) takes 1.60 (95% interval "
        "1.60 to 1.60) times the eager arm's",
        "Time per token of mamba-130m: the model's own library (shipped arm) takes 1.60 (95% interval "
        "1.60 to 1.60) times the eager arm's",
        "Time per token of mamba-130m: drawing ids (sampled arm) takes 1.05 (95% interval 1.05 to 1.05) "
        "times greedy decoding's",
    ]


def test_attention_is_compared_within_a_model() -> None:
    fused = point(PYTHIA, attention="sdpa")
    plain = point(PYTHIA, attention="eager")
    slow = replace(PYTHIA, token_s=2 * PYTHIA.token_s, token_s_per_depth=2 * PYTHIA.token_s_per_depth)
    records = [replicate(PYTHIA, fused, **EXACT), replicate(slow, plain, **EXACT)]
    found = said(records, "Time per token of pythia-160m")
    assert the(found).startswith(
        "Time per token of pythia-160m: eager attention takes 2.00 (one process) times sdpa"
    )


# --- conversations


def test_conversations_in_a_budget(sizes: dict[str, ModelSizes]) -> None:
    records = sweep("memory", [PYTHIA], prompt_lens=(1000,), batch_sizes=(1, 2, 4, 8), repeats=0, processes=1)
    records.append(failed(point(PYTHIA, 1000, batch_size=32), kind="memory"))
    sentence = the(said(records, "2 GB and pythia-160m", budget_bytes=2 * 10**9, sizes=sizes))
    known = sizes["pythia-160m"]
    computed = (2 * 10**9 - known.weights_bytes("float32")) // (1064 * 73_728)
    each = 1063 * 73_728 + 1000 * 20_000
    measured = (2 * 10**9 - PYTHIA.weights_bytes) // each
    assert f"conversations of 1,064 tokens: {computed} fit by the specification" in sentence
    assert "measured, a batch of 8 ran within" in sentence
    assert "one of 32 ran out of memory" in sentence
    assert f"fills the budget at {measured}, beyond what was measured." in sentence


def test_a_line_past_what_failed_is_not_drawn() -> None:
    records = sweep("memory", [PYTHIA], prompt_lens=(1000,), batch_sizes=(1, 2), repeats=0, processes=1)
    records.append(failed(point(PYTHIA, 1000, batch_size=4), kind="memory"))
    assert "fills" not in the(said(records, "2 GB", budget_bytes=2 * 10**9))


def test_weights_beyond_the_budget_are_said(sizes: dict[str, ModelSizes]) -> None:
    sentence = the(said(sweep(models=[MAMBA], prompt_lens=(128,)), "100 MB", budget_bytes=10**8, sizes=sizes))
    assert "the weights alone take 517 MB" in sentence
    assert "measured, a batch of 1 took 521 MB" in sentence


def test_processes_that_did_not_end_well_are_not_compared() -> None:
    records = sweep(prompt_lens=(128, 512), processes=2)
    wrong = [
        r.model_copy(update={"status": "failed"}) if r.point.model == PYTHIA.name else r for r in records
    ]
    found = " ".join(said(wrong, budget_bytes=10**9))
    assert "mamba-130m" in found
    assert "pythia-160m" not in found
    some = [r.model_copy(update={"status": "killed"}) if r.replicate == 1 else r for r in records]
    assert said(some) == said([r for r in records if r.replicate == 0])


def test_no_budget_no_conversations() -> None:
    assert not any("conversations" in s for s in said(sweep()))


# --- ceilings


def test_ceilings_are_printed_with_their_sheet() -> None:
    found = said(
        [replicate(MAMBA, point())],
        "Ceilings",
        ceilings=[
            ceilings(0, sheet_bytes_per_s=51.2e9, read_bytes_per_s=(25e9, 26e9)),
            ceilings(1, copy_bytes_per_s=(22e9, 23e9)),
            ceilings(1, dtype="bfloat16", copy_bytes_per_s=(), matmul_flops_per_s=(1.5e12,)),
            ceilings(0, "cuda:0", device_name="a GPU", matmul_flops_per_s=(), sheet_flops_per_s=1e15),
        ],
    )
    assert found == [
        "Ceilings of cpu (a processor): copies read and write 23 GB/s at best (rounds at best 21 GB/s and 23 "
        "GB/s, down to 19 GB/s in 5 repeats, 51.2 GB/s by its data sheet); reading alone does 26 GB/s at "
        "best (down to 25 GB/s in 2 repeats); float32 matrix products do 510 GFLOP/s at best (rounds at best "
        "510 GFLOP/s and 510 GFLOP/s, down to 490 GFLOP/s in 6 repeats); bfloat16 matrix products do 1.50 "
        "TFLOP/s at best (down to 1.50 TFLOP/s in 1 repeat).",
        "Ceilings of cuda:0 (a GPU): copies read and write 21 GB/s at best (down to 19 GB/s in 3 repeats).",
    ]


# --- noise


def test_noise_of_the_machine() -> None:
    made = [replicate(MAMBA, point(), n, **EXACT, load_average=1.0 + 2 * n) for n in range(2)]
    repeats = tuple(RepeatRecord(ttft_s=t, itl_s=()) for t in (1.0, 2.0, 3.0, 4.0, 5.0))
    slower = tuple(RepeatRecord(ttft_s=1.2 * (r.ttft_s or 0), itl_s=()) for r in repeats)
    records = [r.model_copy(update={"repeats": x}) for r, x in zip(made, (repeats, slower), strict=True)]
    assert the(said(records, "Noise", n_cores=2)) == (
        "Noise of this machine: the middle half of a process's repeats spans 66.7% of their median, at worst "
        "66.7%; processes of one point differ by 20.0% from the fastest to the slowest, at worst by 20.0%; "
        "load average between 1.0 and 3.0 as processes began; the machine was busy at 1 point of 1."
    )


# --- what is not there


def test_nothing_is_said_of_nothing() -> None:
    assert said([], ceilings=()) == []
    assert said([failed(point()), failed(point(PYTHIA))], budget_bytes=10**9, ceilings=()) == []


@pytest.mark.parametrize("kind", ["latency", "throughput", "memory"])
def test_half_a_sweep_is_no_obstacle(kind: Any, sizes: dict[str, ModelSizes]) -> None:
    records = sweep(kind, batch_sizes=(1, 4), arms=("eager", "shipped"), repeats=0 if kind == "memory" else 3)
    for end in range(0, len(records), 7):
        for sentence in said(records[:end], budget_bytes=10**9, sizes=sizes):
            assert sentence.endswith(".")
            assert "nan" not in sentence


def test_chosen_models_of_other_speeds_keep_their_names() -> None:
    other = Speeds("x", 0.1, 0.001, 0.2, 0.0, 10**6, 10**5, 0, "none", None)
    text = " ".join(said(sweep(models=[MAMBA, other])))
    assert "mamba-130m is faster than x" in text


def test_the_fastest_arm_of_each_is_named_and_compared() -> None:
    slow_graph = replace(PYTHIA, arm_factors=(("graph", 2.0),))
    records = sweep(models=[MAMBA, slow_graph], prompt_lens=(128,), arms=("eager", "graph"), **EXACT)
    assert the(said(records, "Fastest by time per token")) == (
        "Fastest by time per token: graph arm of mamba-130m and eager arm with sdpa attention of "
        "pythia-160m; what follows compares these."
    )
    pairs = said(records, "Time per token: mamba-130m")
    # The fastest of each, and one arm of both.
    assert any("mamba-130m (graph arm) takes" in s and "pythia-160m (eager arm)" in s for s in pairs)
    assert any("mamba-130m (graph arm) takes" in s and "pythia-160m (graph arm)" in s for s in pairs)


def test_the_fastest_is_named_with_the_figure_that_was_measured() -> None:
    arms: Any = {"models": [MAMBA], "prompt_lens": (128,), "arms": ("eager", "shipped")}
    assert the(said(sweep(**arms, gen_len=1), "Fastest")).startswith(
        "Fastest by time to first token: eager arm of mamba-130m;"
    )
    assert said(sweep("memory", **arms, repeats=0), "Fastest") == []


def test_models_that_never_met_are_not_compared() -> None:
    records = sweep(models=[MAMBA], prompt_lens=(64, 128)) + sweep(models=[PYTHIA], prompt_lens=(256, 512))
    assert said(records, "Break-even") == []
    assert said(records, "Time per token: mamba") == []
