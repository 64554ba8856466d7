"""Shares of the machine's ceilings: of the best that it did, by what each model must move and multiply."""

from __future__ import annotations

from typing import Any

import pytest
from speed_records import MAMBA, PYTHIA, ceilings, point, replicate, sizes_by_name

from mambabench.sizes import ModelSizes, layout_for
from mambabench.speed_schema import ReplicateRecord
from mambabench.tables.speed import flags
from mambabench.tables.speed.table import SpeedRow, build_speed_table


def row_of(record: ReplicateRecord, **options: Any) -> SpeedRow:
    given = {"ceilings": (), "sizes": {}, "expected": (), **options}
    (row,) = build_speed_table(record.kind, "a sweep", [record], **given).rows
    return row


def exact(**more: Any) -> ReplicateRecord:
    return replicate(MAMBA, more.pop("at", point()), process_noise=0.0, repeat_noise=0.0, **more)


@pytest.fixture(scope="module")
def sizes() -> dict[str, ModelSizes]:
    return sizes_by_name()


def test_shares_of_the_measured_ceilings(sizes: dict[str, ModelSizes]) -> None:
    at = point(MAMBA, 1000, batch_size=2)
    other = ceilings(1, copy_bytes_per_s=(30e9,) * 4, dtype="bfloat16", matmul_flops_per_s=(9e12,))
    elsewhere = ceilings(0, "cuda:0", copy_bytes_per_s=(1e12,) * 9)
    row = row_of(exact(at=at), sizes=sizes, ceilings=[ceilings(), other, elsewhere])
    own = sizes["mamba-130m"]
    # The copy is of bytes, so that both rounds count: 19, 20, 21 and four times 30 GB/s; the best is taken.
    read = own.decode_bytes(layout_for("mambabench", "float32"), "float32", batch_size=2, depth_tokens=1032)
    assert row.decode_ceiling_share is not None
    assert row.decode_ceiling_share.value == pytest.approx((read / 30e9) / 0.031)
    assert row.prefill_ceiling_share is not None
    assert row.prefill_ceiling_share.value == pytest.approx(2 * own.prefill_flops(1000) / 0.51e12 / 2.01)
    assert row.training_length_tokens == own.training_length_tokens


def test_the_depth_of_a_cache_lowers_the_ceiling(sizes: dict[str, ModelSizes]) -> None:
    at = point(PYTHIA, 1000)
    row = row_of(replicate(PYTHIA, at), sizes=sizes, ceilings=[ceilings()])
    assert row.decode_ceiling_share is not None
    assert row.tpot_s is not None
    layout = layout_for("mambabench", "float32")
    # Steps see 1,000 to 1,063 tokens.
    read = sizes["pythia-160m"].decode_bytes(layout, "float32", batch_size=1, depth_tokens=1032)
    assert row.decode_ceiling_share.value == pytest.approx(read / 21e9 / row.tpot_s.value, rel=1e-9)


def test_a_busy_machine_does_not_lower_the_ceiling(sizes: dict[str, ModelSizes]) -> None:
    quiet = row_of(exact(), sizes=sizes, ceilings=[ceilings(0)])
    slowed = ceilings(0, copy_bytes_per_s=(5e9,) * 9 + (21e9,), matmul_flops_per_s=(0.1e12,) * 9 + (0.51e12,))
    busy = row_of(exact(), sizes=sizes, ceilings=[slowed])
    assert busy.decode_ceiling_share == quiet.decode_ceiling_share
    assert busy.prefill_ceiling_share == quiet.prefill_ceiling_share
    assert flags.CEILINGS_UNSTEADY not in busy.flags


@pytest.mark.parametrize("changes", [{"copy_bytes_per_s": (1e9, 18.9e9)}, {"matmul_flops_per_s": (0.46e12,)}])
def test_rounds_that_differ_at_best_are_flagged(sizes: dict[str, ModelSizes], changes: Any) -> None:
    def flags_with(**later: Any) -> tuple[str, ...]:
        return row_of(exact(), sizes=sizes, ceilings=[ceilings(0), ceilings(1, **later)]).flags

    assert flags.CEILINGS_UNSTEADY in flags_with(**changes)
    assert flags.CEILINGS_UNSTEADY not in flags_with(copy_bytes_per_s=(1e9, 19.2e9))
    # Nothing is held against products of another dtype, or without sizes.
    assert flags.CEILINGS_UNSTEADY not in flags_with(dtype="bfloat16", matmul_flops_per_s=(1e9,))
    without = row_of(exact(), ceilings=[ceilings(0), ceilings(1, **changes)])
    assert flags.CEILINGS_UNSTEADY not in without.flags


def test_no_share_without_sizes_or_ceilings(sizes: dict[str, ModelSizes]) -> None:
    for options in ({"sizes": sizes}, {"ceilings": [ceilings()]}):
        row = row_of(exact(), **options)
        assert row.decode_ceiling_share is row.prefill_ceiling_share is None


def test_a_fast_point_is_flagged_as_above_the_ceiling(sizes: dict[str, ModelSizes]) -> None:
    # 30 ms a step and 522 MB to read.
    slow = ceilings(copy_bytes_per_s=(15e9,))
    assert flags.ABOVE_CEILING in row_of(exact(), sizes=sizes, ceilings=[slow]).flags
    assert flags.ABOVE_CEILING not in row_of(exact(), sizes=sizes, ceilings=[ceilings()]).flags
