"""The kernels of a GPU in Triton's interpreter, on a CPU, against float64.

`test_triton.py` runs this in a process of its own: TRITON_INTERPRET has to be set before Triton is imported,
and would stay for every other test. Sizes are small, since the interpreter takes a program at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from triton_oracle import (
    LOG2_E,
    Shape,
    check_add_norm,
    check_conv,
    check_gate_norm,
    check_scan,
    check_ssd,
)

from mambabench.kernels.gpu import triton_kernels
from mambabench.kernels.gpu.triton_kernels import TritonKernels
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KERNELS = {dtype: TritonKernels(dtype) for dtype in DTYPES}
few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
cases = st.builds(
    Shape,
    st.lists(st.sampled_from([0, 1, 2, 3, 5, 17]), min_size=1, max_size=4),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
    has_state=st.booleans(),
    keeps=st.booleans(),
)
dt_scales = st.sampled_from([1e-6, 1e-2, 1.0, 50.0])


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "PIECE_TOKENS", 8)


@few
@given(cases, st.sampled_from([(1, 1), (33, 5), (45, 16), (9, 64), (5, 128)]), dt_scales)
def test_scan(case: Shape, sizes: tuple[int, int], dt_scale: float) -> None:
    channels, n_states = sizes
    case_error = check_scan(
        KERNELS[case.dtype], case, channels=channels, n_states=n_states, dt_scale=dt_scale
    )
    assert case_error <= 1


@few
@given(cases, st.sampled_from([3, 33]), dt_scales)
@pytest.mark.usefixtures("short_pieces")
def test_scan_of_rows_in_pieces(case: Shape, channels: int, dt_scale: float) -> None:
    assert check_scan(KERNELS[case.dtype], case, channels=channels, n_states=16, dt_scale=dt_scale) <= 1


@few
@given(
    cases,
    # Heads, their width, groups and states.
    st.sampled_from([(1, 1, 1, 1), (2, 64, 1, 128), (4, 8, 2, 16), (3, 65, 3, 5), (1, 130, 1, 67)]),
    dt_scales,
    st.sampled_from([(0.0, float("inf")), (0.3, 0.9)]),
)
def test_ssd(
    case: Shape, sizes: tuple[int, int, int, int], dt_scale: float, limit: tuple[float, float]
) -> None:
    assert check_ssd(KERNELS[case.dtype], case, sizes=sizes, dt_scale=dt_scale, dt_limit=limit) <= 1


@few
@given(cases, st.sampled_from([1, 70, 257]), st.integers(1, 5), st.integers(0, 3))
def test_convolution(case: Shape, channels: int, taps: int, column: int) -> None:
    assert check_conv(KERNELS[case.dtype], case, channels=channels, taps=taps, column=column) <= 1


@few
@given(cases, st.sampled_from([1, 16, 100]), st.booleans())
def test_normalisation(case: Shape, size: int, adds: bool) -> None:
    assert check_add_norm(KERNELS[case.dtype], case, size=size, adds=adds) <= 1


@few
@given(cases, st.sampled_from([(1, 1), (1, 40), (3, 17)]), st.booleans(), st.booleans())
def test_gate_and_normalisation(
    case: Shape, groups_and_size: tuple[int, int], norms: bool, gate_first: bool
) -> None:
    groups, size = groups_and_size
    kernels = KERNELS[case.dtype]
    assert check_gate_norm(kernels, case, groups=groups, size=size, norms=norms, gate_first=gate_first) <= 1


def test_small_steps_after_a_large_one_count() -> None:
    # A step of 50 wipes the state out, and the steps after it are tiny: differences of running sums in
    # float32 would lose those.
    case = Shape([100], torch.float32, 0)
    xbc, dt = case.normal(1, 100, 2 * 8 + 2 * 16), case.normal(2, 100, 2) * 1e-3 - 8
    dt[20::40] = 50
    a, skip, bias = -case.parameter(3, 2).abs() - 1, case.parameter(4, 2, 8), torch.zeros(2)
    after = Rows.places(None, bias, (2, 16, 8), 1)
    y = KERNELS[torch.float32].ssd(xbc, dt, 0, bias, a, skip, 1, row_starts([100]), None, after)
    from mambabench.kernels.reference import ssd_reference

    x, b, c = (v.double().numpy() for v in xbc.split([16, 16, 16], dim=1))
    want, last = ssd_reference(
        x.reshape(100, 2, 8), dt.numpy(), a.double().numpy() / LOG2_E, b[:, None], c[:, None], skip.numpy()
    )
    assert np.abs(y.numpy() - want.reshape(100, 16)).max() <= 2e-6 * np.abs(want).max()
    assert np.abs(after.stacked()[0].numpy() - last).max() <= 2e-6 * np.abs(last).max()


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("rows", [[1, 1], [2, 0], [5, 20], [40]])
def test_states_may_be_advanced_where_they_lie(rows: list[int]) -> None:
    case, kernels, starts = Shape(rows, torch.float32, 3), KERNELS[torch.float32], row_starts(rows)
    u, dt, proj = (case.normal(i, case.tokens, n) for i, n in enumerate((20, 20, 8)))
    a = -case.parameter(4, 4, 20).abs()
    vector, weight = case.parameter(5, 20), case.parameter(6, 4, 20)
    xbc, zxbcdt, skip = (
        case.normal(i, *size) for i, size in enumerate(((u.shape[0], 24), (u.shape[0], 2), (2, 8)))
    )

    def scan(before: Rows, after: Rows) -> torch.Tensor:
        return kernels.scan(u, dt, vector, a, proj, 0, vector, u, 0, starts, before, after)

    def convolve(before: Rows, after: Rows) -> torch.Tensor:
        return kernels.conv_silu(u, 0, weight, vector, starts, before, after)

    def ssd(before: Rows, after: Rows) -> torch.Tensor:
        return kernels.ssd(xbc, zxbcdt, 0, vector[:2], a[0, :2].clone(), skip, 1, starts, before, after)

    for run, shape in ((scan, (4, 20)), (convolve, (3, 20)), (ssd, (2, 4, 8))):
        drawn = case.parameter(10, len(rows), *shape)
        before, after = Rows.apart(drawn), Rows.places(None, vector, shape, len(rows))
        y = run(before, after)
        assert torch.equal(before.stacked(), drawn)
        assert torch.equal(run(before, before), y)
        assert torch.equal(before.stacked(), after.stacked())


def test_rows_share_a_state_and_only_some_are_kept() -> None:
    rows, kernels = [3, 2, 4], KERNELS[torch.float32]
    case = Shape(rows, torch.float32, 3)
    u, dt, proj = (case.normal(i, 9, n) for i, n in enumerate((20, 20, 8)))
    a, vector = -case.parameter(4, 4, 20).abs(), case.parameter(5, 20)
    (shared,) = Rows.apart(case.parameter(6, 1, 4, 20)).tensors
    assert shared is not None
    kept = shared.clone()

    def scan(before: Rows, after: Rows) -> torch.Tensor:
        return kernels.scan(u, dt, vector, a, proj, 0, vector, u, 0, row_starts(rows), before, after)

    before = Rows([shared, None, shared], (4, 20))
    some, every = (Rows.places(None, vector, (4, 20), 3, keep=keep) for keep in ([2], None))
    y = scan(before, some)
    assert torch.equal(scan(Rows.apart(before.stacked()), every), y)
    assert torch.equal(some.stacked()[2], every.stacked()[2])
    assert torch.equal(shared, kept)


def test_a_nan_reaches_no_other_row() -> None:
    kernels, starts = KERNELS[torch.float32], row_starts([10, 10])
    case = Shape([10, 10], torch.float32, 0)
    xbc, zxbcdt, skip = case.normal(1, 20, 48), case.normal(2, 20, 2), case.parameter(3, 2, 8)
    zxbcdt[4, 0] = float("nan")
    y = kernels.ssd(xbc, zxbcdt, 0, torch.zeros(2), -torch.ones(2), skip, 1, starts, None, None)
    assert torch.equal(y.isnan().any(dim=1), torch.tensor([False] * 4 + [True] * 6 + [False] * 10))
    u, dt, proj, vector = case.normal(4, 20, 8), case.normal(5, 20, 8), case.normal(6, 20, 8), torch.ones(8)
    dt[4, 0] = float("nan")
    y = kernels.scan(u, dt, vector, -torch.ones(4, 8), proj, 0, vector, u, 0, starts, None, None)
    assert torch.equal(y.isnan().any(dim=1), torch.tensor([False] * 4 + [True] * 6 + [False] * 10))


def arguments(**changes: Any) -> dict[str, Any]:
    case = Shape([3], torch.float32, 0)
    found = {
        "u": case.normal(1, 3, 8), "dt": case.normal(2, 3, 8), "dt_bias": torch.zeros(8),
        "A_log2": -torch.ones(4, 8), "proj": case.normal(3, 3, 8), "column": 0, "D": torch.ones(8),
        "xz": case.normal(4, 3, 8), "z_column": 0, "starts": row_starts([3]),
        "before": Rows.apart(case.parameter(5, 1, 4, 8)), "after": None,
    }  # fmt: skip
    return found | changes


@pytest.mark.parametrize("name", ["u", "dt", "dt_bias", "D", "xz", "proj"])
def test_a_wrong_shape_never_reaches_the_kernels(name: str) -> None:
    kernels, v = KERNELS[torch.float32], arguments()
    kernels.scan(**v)
    with pytest.raises(ValueError, match="needed"):
        kernels.scan(**v | {name: v[name][..., :-1].contiguous()})


def test_other_dtypes_and_layouts_never_reach_the_kernels() -> None:
    kernels, v = KERNELS[torch.float32], arguments()
    for wrong in (
        {"dt": v["dt"].double()},
        {"dt": v["dt"].T.contiguous().T},
        {"D": v["D"].bfloat16()},
        {"u": v["u"].to("meta")},
        {"before": Rows.apart(torch.zeros(1, 4, 7))},
        {"before": Rows.apart(torch.zeros(1, 4, 8, dtype=torch.float64))},
    ):
        with pytest.raises(ValueError, match="needed"):
            kernels.scan(**v | wrong)
    y = torch.zeros(3, 8)
    with pytest.raises(ValueError, match="do not divide"):
        kernels.gate_norm(y, y, 0, None, 1e-5, 3)
    with pytest.raises(ValueError, match="3 groups do not fit"):
        kernels.ssd(y, y, 0, y[0], y[0], y[:, :1].contiguous(), 3, row_starts([3]), None, None)
