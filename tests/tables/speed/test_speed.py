"""From records with known times to rows: medians, estimates, shares, flags, and what did not run."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np
import pytest
from speed_records import MAMBA, PYTHIA, ceilings, failed, point, replicate, sizes_by_name, sweep

from mambabench.medians import has_outlier, itl_percentile_s, spread_within
from mambabench.schema import CertificateRecord
from mambabench.sizes import ModelSizes
from mambabench.speed_schema import PowerRecord, RepeatRecord, ReplicateRecord, WarmupRecord
from mambabench.stats.replicates import centre
from mambabench.tables.speed import flags
from mambabench.tables.speed.table import SpeedRow, SpeedTable, build_speed_table


def table(records: list[ReplicateRecord], **options: Any) -> SpeedTable:
    given = {"ceilings": (), "sizes": {}, "expected": (), **options}
    kind = records[0].kind if records else "latency"
    return build_speed_table(kind, "a sweep", records, **given)


def row_of(*records: ReplicateRecord, **options: Any) -> SpeedRow:
    (row,) = table(list(records), **options).rows
    return row


def exact(number: int = 0, **more: Any) -> ReplicateRecord:
    return replicate(MAMBA, more.pop("at", point()), number, process_noise=0.0, repeat_noise=0.0, **more)


@pytest.fixture(scope="module")
def sizes() -> dict[str, ModelSizes]:
    return sizes_by_name()


# --- figures


def test_known_times_come_back() -> None:
    at = point(MAMBA, 1000, batch_size=4, gen_len=11)
    row = row_of(*(exact(n, at=at) for n in range(6)))
    prefill_s, step_s = 0.010 + 4 * 1000 * 0.001, 0.030 + 3 * 0.001
    for found, expected in [
        (row.ttft_s, prefill_s),
        (row.tpot_s, step_s),
        (row.e2e_s, prefill_s + 10 * step_s),
        (row.decode_tokens_per_s, 4 / step_s),
        (row.prefill_tokens_per_s, 4 * 1000 / prefill_s),
        (row.e2e_tokens_per_s, 4 * 11 / (prefill_s + 10 * step_s)),
        (row.itl_p50_s, step_s),
        (row.itl_p90_s, step_s),
        (row.itl_p99_s, step_s),
    ]:
        assert found is not None
        assert (found.low, found.value, found.high) == pytest.approx([expected] * 3)
        assert (found.n, found.method) == (6, "t on log")
    assert row.itl_s_by_position == pytest.approx([step_s] * 10)
    assert (row.n_processes, row.n_repeats, row.status, row.detail) == (6, 60, "ok", "")


def test_estimates_are_over_the_medians_of_processes() -> None:
    records = sweep(models=[PYTHIA], prompt_lens=(512,), processes=7)
    row = row_of(*records)
    firsts = [statistics.median(x.ttft_s or 0 for x in r.repeats) for r in records]
    steps = [statistics.median(float(np.mean(x.itl_s)) for x in r.repeats) for r in records]
    assert row.ttft_s == centre(firsts)
    assert row.tpot_s is not None
    assert row.tpot_s.value == pytest.approx(centre(steps).value)
    by_step = np.median([np.median([x.itl_s for x in r.repeats], axis=0) for r in records], axis=0)
    assert row.itl_s_by_position == pytest.approx(by_step.tolist())


def test_repeats_without_a_prefill_count_for_decoding_only() -> None:
    full, alone = RepeatRecord(ttft_s=1.0, itl_s=(0.1, 0.3)), RepeatRecord(ttft_s=None, itl_s=(0.4, 0.4))
    row = row_of(exact(repeats=1).model_copy(update={"repeats": (full, alone, alone)}))
    assert row.ttft_s is not None
    assert row.e2e_s is not None
    assert row.tpot_s is not None
    assert (row.ttft_s.value, row.e2e_s.value, row.tpot_s.value) == pytest.approx((1.0, 1.4, 0.4))
    assert row.itl_s_by_position == (0.4, 0.4)


def test_one_token_has_no_decoding() -> None:
    row = row_of(exact(at=point(gen_len=1)))
    assert row.tpot_s is row.decode_tokens_per_s is row.itl_p90_s is None
    assert row.itl_s_by_position == ()
    assert row.e2e_tokens_per_s is not None


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_percentiles_are_numpys(percent: int) -> None:
    record = replicate(PYTHIA, point(PYTHIA), repeats=3)
    steps = [itl for r in record.repeats for itl in r.itl_s]
    assert itl_percentile_s(percent)(record) == pytest.approx(np.percentile(steps, percent))


def test_no_99th_percentile_below_100_steps() -> None:
    figure = itl_percentile_s(99)
    assert figure(exact(at=point(gen_len=12), repeats=9)) is None
    assert figure(exact(at=point(gen_len=11), repeats=10)) is not None


def test_memory_is_of_the_largest_peak_and_its_estimate_of_all() -> None:
    records = sweep("memory", [PYTHIA], prompt_lens=(128,), processes=2, repeats=0)
    memory = records[0].memory
    assert memory is not None
    larger = memory.model_copy(update={"peak_bytes": 2 * memory.peak_bytes})
    row = row_of(records[0].model_copy(update={"memory": larger}), records[1])
    assert row.memory == larger
    assert row.peak_bytes == centre([2 * memory.peak_bytes, memory.peak_bytes])
    assert row.ttft_s is None
    assert row.flags == ()


def test_energy_is_carried() -> None:
    power = PowerRecord(energy_j=100.0, duration_s=10.0, n_tokens=50, idle_w=5.0)
    row = row_of(exact(power=power))
    assert row.net_j_per_token is not None
    assert row.net_j_per_token.value == pytest.approx(1.0)
    assert flags.NOT_POSITIVE not in row.flags


def test_figures_that_are_not_positive_are_shown_or_flagged() -> None:
    powers = [PowerRecord(energy_j=j, duration_s=10.0, n_tokens=50, idle_w=5.0) for j in (25.0, 75.0)]
    row = row_of(*(exact(n, power=power) for n, power in enumerate(powers)))
    found = row.net_j_per_token
    assert found is not None
    assert (found.low, found.value, found.high, found.method) == pytest.approx((-0.5, 0.0, 0.5, "range"))
    assert row.flags == (flags.NOT_POSITIVE,)
    assert row_of(exact(memory=memory(peak_bytes=0))).flags == (flags.NOT_POSITIVE,)


def test_host_wait_is_what_lies_outside_the_devices_events() -> None:
    assert row_of(exact()).host_wait_share is None
    assert row_of(exact(at=point(device="cuda:0"))).host_wait_share == pytest.approx(0.2)
    only_first = RepeatRecord(ttft_s=1.0, itl_s=(), ttft_device_s=0.7)
    record = exact(at=point(device="cuda:0", gen_len=1)).model_copy(update={"repeats": (only_first,)})
    assert row_of(record).host_wait_share == pytest.approx(0.3)


# --- what did not run


def test_points_not_measured_yet_are_rows() -> None:
    points = [point(MAMBA, n) for n in (64, 128, 256)]
    built = table([exact(at=points[1])], expected=points)
    assert [r.status for r in built.rows] == ["missing", "ok", "missing"]
    assert built.partial
    assert not table([exact(at=points[1])], expected=points[1:2]).partial


def test_a_point_that_lacks_processes_is_partial() -> None:
    built = table([exact()], n_processes=2)
    assert built.partial
    assert built.rows[0].flags == (flags.INCOMPLETE,)


def test_the_worst_outcome_is_shown_with_counts() -> None:
    at = point()
    row = row_of(exact(0), exact(1), failed(at, 2), failed(at, 3, "timeout"))
    assert row.status == "oom"
    assert row.detail == "1 of 4 oom, 1 of 4 timeout, 2 of 4 ok: CUDA out of memory"
    assert row.flags == (flags.OUTCOMES_DIFFER,)
    assert row.ttft_s is not None
    assert row.ttft_s.n == 2


@pytest.mark.parametrize("status", ["failed", "timeout", "killed"])
def test_what_a_process_measured_before_a_bad_end_is_in_no_figure(status: Any) -> None:
    power = PowerRecord(energy_j=100.0, duration_s=10.0, n_tokens=50, idle_w=5.0)
    slow = exact(1, repeats=3, power=power, memory=memory(peak_bytes=10**12))
    ended = slow.model_copy(update={"status": status, "detail": "bad"})
    assert row_of(ended).n_repeats == 0
    for name in ("ttft_s", "tpot_s", "e2e_s", "peak_bytes", "memory", "load_s", "gross_j_per_token"):
        assert getattr(row_of(ended), name) is None
        assert getattr(row_of(exact(0), ended), name) == getattr(row_of(exact(0)), name)
    assert row_of(ended).itl_s_by_position == ()
    assert flags.FEW_REPEATS not in row_of(ended).flags
    broken = ended.model_copy(update={"memory": memory(state_bytes=1)})
    assert row_of(broken).flags == (flags.STATE_DIFFERS,)


def test_a_point_that_always_fails_says_why() -> None:
    row = row_of(failed(point(), 0), failed(point(), 1))
    assert (row.status, row.detail, row.n_processes) == ("oom", "CUDA out of memory", 2)
    assert row.ttft_s is None


def test_models_and_points_keep_their_order() -> None:
    records = sweep(processes=1, prompt_lens=(128, 64))
    built = table(records[::-1], expected=[r.point for r in records])
    assert built.models == ("mamba-130m", "pythia-160m")
    assert [r.point for r in built.rows] == [r.point for r in records]
    assert built.of(records[0].point) == (records[0],)


# --- flags


def certificate(passed: bool) -> CertificateRecord:
    return CertificateRecord(
        fast_path="", shipped_path="", dtype="float32", reference="", kinds=(), n_tokens=1, n_rounds=1,
        ratio=1.0, bar=2.0, passed=passed, wall_s=0.0, made_utc="",
    )  # fmt: skip


def memory(**changes: int) -> Any:
    found = exact().memory
    assert found is not None
    return found.model_copy(update=changes)


def slower_once(factor: float) -> tuple[RepeatRecord, ...]:
    first, *others = exact(repeats=12).repeats
    assert first.ttft_s is not None
    return (first.model_copy(update={"ttft_s": factor * first.ttft_s}), *others)


def alone(n_with_prefill: int) -> tuple[RepeatRecord, ...]:
    repeats = exact(repeats=10).repeats
    return tuple(
        r if i < n_with_prefill else r.model_copy(update={"ttft_s": None}) for i, r in enumerate(repeats)
    )


@pytest.mark.parametrize(
    ("flag", "bad", "good"),
    [
        (flags.PAST_TRAINING, {"past_training_length": True}, {}),
        (flags.NOT_STEADY, {"warmup": WarmupRecord(steady=False)}, {"warmup": WarmupRecord(steady=True)}),
        (flags.FEW_REPEATS, {"repeats": 9}, {"repeats": 10}),
        (flags.FEW_PREFILLS, {"repeats": alone(9)}, {"repeats": alone(10)}),
        (flags.SHORT, {"repeats": exact().repeats[:0] + (RepeatRecord(ttft_s=0.05, itl_s=(0.04,)),) * 10},
         {"repeats": (RepeatRecord(ttft_s=0.05, itl_s=(0.06,)),) * 10}),
        (flags.OUTLIERS, {"repeats": slower_once(1.2)}, {"repeats": slower_once(1.04)}),
        (flags.FEW_TOKENS, {"at": point(gen_len=63)}, {"at": point(gen_len=64)}),
        (flags.FALLBACK, {"at": point(device="cuda:0"), "kernel_path": "transformers torch loop"},
         {"kernel_path": "transformers torch loop"}),
        (flags.STATE_DIFFERS, {"memory": memory(state_bytes=1)}, {}),
        (flags.EMULATED, {"memory": memory(budget_bytes=10**9)}, {}),
        (flags.NOT_CERTIFIED, {"certificate": certificate(False)}, {"certificate": certificate(True)}),
        (flags.BUSY, {"load_average": 4.6}, {"load_average": 4.4}),
    ],
)  # fmt: skip
def test_flags_of_one_process(flag: str, bad: dict[str, Any], good: dict[str, Any]) -> None:
    def flags_with(changes: dict[str, Any]) -> tuple[str, ...]:
        repeats = changes.get("repeats", 10)
        made = exact(**{**changes, "repeats": repeats if isinstance(repeats, int) else 10})
        if not isinstance(repeats, int):
            made = made.model_copy(update={"repeats": repeats})
        return row_of(made, n_cores=4).flags

    assert flags_with(bad) == (flag,)
    assert flags_with(good) == ()


def test_flags_between_processes() -> None:
    at = point()
    assert row_of(exact(0), exact(1, kernel_path="torch sdpa")).flags == (flags.PATHS_DIFFER,)
    slow = exact(1).model_copy(update={"repeats": replicate(PYTHIA, at, 1, repeat_noise=0).repeats})
    assert row_of(exact(0), slow).flags == (flags.DIFFER,)
    assert row_of(exact(0), exact(1)).flags == ()


def test_times_beside_memory_are_judged_as_times() -> None:
    short = point(gen_len=16)
    assert row_of(exact(at=short, kind="memory", repeats=9)).flags == (flags.FEW_REPEATS, flags.FEW_TOKENS)
    assert row_of(exact(at=short, kind="memory", repeats=0)).flags == ()


def test_paths_are_judged_where_memory_alone_was_measured() -> None:
    at = point(device="cuda:0")
    slow = exact(0, at=at, kind="memory", repeats=0, kernel_path="transformers torch loop, CUDA graph")
    fast = exact(1, at=at, kind="memory", repeats=0, kernel_path="mamba_ssm CUDA")
    unknown = failed(at, 2, "oom", "memory")
    assert row_of(slow).flags == (flags.FALLBACK,)
    assert {flags.PATHS_DIFFER, flags.FALLBACK} <= set(row_of(slow, fast).flags)
    assert flags.PATHS_DIFFER not in row_of(fast, unknown).flags


def test_an_emulated_budget_is_known_where_it_was_too_small() -> None:
    assert row_of(failed(point(), budget_bytes=10**9)).flags == (flags.EMULATED,)
    assert row_of(failed(point())).flags == ()


def test_the_load_is_not_judged_where_the_cores_are_not_known() -> None:
    assert row_of(exact(load_average=500.0)).flags == ()


def test_every_flag_has_advice() -> None:
    names = {value for name, value in vars(flags).items() if name.isupper() and isinstance(value, str)}
    assert names == set(flags.ADVICE)
    assert all(len(advice) <= 100 for advice in flags.ADVICE.values())


def test_quiet_noise_is_no_outlier() -> None:
    rng = np.random.default_rng(0)
    found = [has_outlier(np.exp(0.03 * rng.standard_normal(10)).tolist()) for _ in range(1000)]
    assert np.mean(found) < 0.05
    assert not has_outlier([1.0, 9.0, 1.0])


def test_spread_within_is_the_iqr_over_the_median() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    low, high = np.percentile(values, [25, 75])
    assert spread_within(values) == pytest.approx((high - low) / 4.0)
    assert spread_within([1.0, 2.0, 3.0]) is None


# --- JSON


def test_everything_is_written_as_json(sizes: dict[str, ModelSizes]) -> None:
    records = [*sweep(prompt_lens=(128,), processes=2), failed(point(PYTHIA, 4096))]
    built = table(records, sizes=sizes, ceilings=[ceilings()], expected=[point(MAMBA, 9)])
    written = json.loads(json.dumps(built.as_json()))
    assert [r["status"] for r in written["rows"]] == ["missing", "ok", "ok", "oom"]
    row = written["rows"][1]
    assert row["ttft_s"].keys() == {"value", "low", "high", "n", "method"}
    assert row["ttft_s"]["method"] == "range"
    assert row["point"]["prompt_len_tokens"] == 128
    assert row["memory"]["transient_bytes"] == 128 * 20_000
    assert len(row["itl_s_by_position"]) == 63
    assert written["ceilings"][0]["device"] == "cpu"
