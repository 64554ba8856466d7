"""mamba_ssm's scans from states, with plain functions in their place, against float64.

`test_triton.py` runs this in Triton's interpreter, in a process of its own. What is tried are the layout, the
states that are put in as tokens, the calls that rows are put into, and which rows go where.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import scan_crossover
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models.triton_models import MODELS, forwards
from official_functions import chunk_scan, selective_scan
from triton_oracle import LOG2_E, Shape, check_scan, check_ssd

from mambabench.bench.clock import HostClock
from mambabench.doctor import cases_packed, plain
from mambabench.doctor.cases_packed import long_row_cases
from mambabench.doctor.measure import measure
from mambabench.kernels.gpu import choice, layout, official_calls, triton_kernels
from mambabench.kernels.gpu.choice import ChosenKernels
from mambabench.kernels.gpu.official import Functions
from mambabench.kernels.rows import Rows
from mambabench.models import one_token, step_hybrid, step_mamba, step_mamba2
from mambabench.models.layers import row_starts

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LONG = 6
few = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
cases = st.builds(
    Shape,
    st.lists(st.sampled_from([0, 1, 5, 6, 7, 8, 17, 33]), min_size=1, max_size=5),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
    has_state=st.booleans(),
    keeps=st.booleans(),
)
dt_scales = st.sampled_from([1e-6, 1e-2, 1.0, 50.0])


class Counted:
    """Kernels that note what each call of mamba_ssm's functions was given."""

    def __init__(self, dtype: torch.dtype, most_elements: int) -> None:
        self.calls: list[tuple[int, ...]] = []
        self.elements: list[int] = []
        found = Functions(self.noting(selective_scan, 2), self.noting(chunk_scan, 1))
        self.kernels = ChosenKernels(dtype, found, most_elements=most_elements)

    def noting(self, function: Any, axis: int) -> Any:
        def noting(*tensors: Any, **options: Any) -> Any:
            self.calls.append((tensors[0].shape[0], tensors[0].shape[axis]))
            self.elements.append(max(t.numel() for t in tensors if isinstance(t, torch.Tensor)))
            return function(*tensors, **options)

        return noting


@pytest.fixture(autouse=True)
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "LONG_TOKENS", LONG)
    monkeypatch.setattr(choice, "LONG_SSD_TOKENS", LONG)
    monkeypatch.setattr(choice, "_SHARE_AHEAD", 0)
    monkeypatch.setattr(choice, "CHUNK_TOKENS", 4)


@few
@given(cases, st.sampled_from([(1, 1), (70, 5), (45, 16)]), dt_scales, st.sampled_from([70, 120, 10**6]))
def test_scan(case: Shape, sizes: tuple[int, int], dt_scale: float, most_tokens: int) -> None:
    channels, n_states = sizes
    # As few tokens a call as there is room for behind a state, or many.
    most_elements = (most_tokens + 2 * n_states) * max(channels, 2 * n_states)
    counted = Counted(case.dtype, most_elements)
    error = check_scan(counted.kernels, case, channels=channels, n_states=n_states, dt_scale=dt_scale)
    assert error <= 1
    assert bool(counted.calls) == (max(case.rows) >= LONG)
    assert all(elements <= most_elements for elements in counted.elements)


@few
@given(
    cases,
    # Heads, their width, groups and states.
    st.sampled_from([(1, 1, 1, 1), (2, 64, 1, 33), (4, 8, 2, 16), (2, 65, 1, 5)]),
    dt_scales,
    st.sampled_from([(0.0, float("inf")), (0.3, 0.9)]),
    st.sampled_from([2_000, 10**6]),
)
def test_ssd(
    case: Shape,
    sizes: tuple[int, int, int, int],
    dt_scale: float,
    limit: tuple[float, float],
    most_elements: int,
) -> None:
    counted = Counted(case.dtype, most_elements)
    error = check_ssd(counted.kernels, case, sizes=sizes, dt_scale=dt_scale, dt_limit=limit)
    assert error <= 1
    # In the other dtypes ours is nearer to float32.
    assert bool(counted.calls) == (case.dtype == torch.bfloat16 and max(case.rows) >= LONG)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [-30.0, -4.0, 30.0])
def test_a_state_comes_through_as_exactly_as_from_a_plain_scan(dtype: torch.dtype, bias: float) -> None:
    # Decays of up to exp(-10000 a step) would show any part of a step that the state is put in over.
    channels, n_states, rows = 48, 16, [9, 12]
    case = Shape(rows, dtype, 5)
    starts, shape = row_starts(rows), (n_states, channels)
    u, proj, z = (case.normal(i, case.tokens, n) for i, n in enumerate((channels, 2 * n_states, channels)))
    dt = (case.normal(4, case.tokens, channels) - 12.0 - bias).to(dtype)
    a = -torch.logspace(-1, 4, n_states)[:, None].expand(shape).contiguous()
    vector = torch.full((channels,), bias)
    # States of very different sizes, in one channel, too.
    state = case.parameter(6, 2, *shape) * torch.logspace(-12, 4, n_states)[:, None]
    before, after = Rows.apart(state), Rows.places(None, vector, shape, 2)
    kernels = Counted(dtype, 10**6).kernels
    y = kernels.scan(
        u, dt, vector, (a.double() * LOG2_E).float(), proj, 0, vector, z, 0, starts, before, after
    )
    for row, last in enumerate(after.tensors):
        part = slice(int(starts[row]), int(starts[row + 1]))
        inputs = [x[None] for x in (u[part], dt[part])] + [a.t()]
        inputs += [v[part][None] for v in proj.split(n_states, dim=1)]
        inputs += [vector, z[part][None], vector]
        start = state[row].t()[None]
        (plain_y, plain_last), (want_y, want_last) = (
            plain.scan(inputs, start),
            plain.exact_scan(inputs, start),
        )
        assert last is not None
        # Each state by itself: small ones beside large ones are as exact as these.
        ours, theirs = (
            (x.double() - want_last[0]).square().mean(0).sqrt() for x in (last.t(), plain_last[0])
        )
        floor = 2.0**-24 * want_last[0].square().mean(0).sqrt()
        assert (ours / torch.maximum(theirs, floor)).max() <= 3
        ours, theirs = ((x.double() - want_y[0]).square().mean().sqrt() for x in (y[part], plain_y[0]))
        assert ours <= 2 * max(theirs, 2.0**-24 * want_y.square().mean().sqrt())


ROWS = [3, 9, 0, 9, 21]


def operands(kind: str, dtype: torch.dtype = torch.bfloat16) -> tuple[list[Any], tuple[int, ...]]:
    """Return the arguments of a scan before the rows, for five rows, and a state's shape."""
    case = Shape(ROWS, dtype, 1)
    if kind == "scan":
        u, dt, proj = (case.normal(i, case.tokens, n) for i, n in enumerate((20, 20, 8)))
        a, vector = -case.parameter(4, 4, 20).abs(), case.parameter(5, 20)
        return [u, dt, vector, a, proj, 0, vector, u, 0], (4, 20)
    xbc, zxbcdt = case.normal(1, case.tokens, 24), case.normal(2, case.tokens, 2)
    a, bias, skip = -case.parameter(3, 2).abs(), case.parameter(4, 2), case.parameter(5, 2, 8)
    return [xbc, zxbcdt, 0, bias, a, skip, 1], (2, 4, 8)


def run(kernels: Any, kind: str, given: list[Any], before: Rows | None, after: Rows | None) -> torch.Tensor:
    found: torch.Tensor = getattr(kernels, kind)(*given, row_starts(ROWS), before, after)
    return found


def test_rows_that_are_not_long_may_be_cut_into_pieces_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (triton_kernels, choice):
        monkeypatch.setattr(module, "PIECE_TOKENS", 2)
    for rows in ([5, 9, 3, 1], [9, 0, 5, 5, 9]):
        case = Shape(rows, torch.float32, 4)
        assert check_scan(Counted(case.dtype, 10**6).kernels, case, channels=20, n_states=4) <= 1


both_kinds = pytest.mark.parametrize("kind", ["scan", "ssd"])


@both_kinds
@pytest.mark.parametrize("is_cut", [False, True])
def test_states_may_be_advanced_where_they_lie(kind: str, is_cut: bool) -> None:
    given, shape = operands(kind)
    # Room for 18 tokens behind a state in a call, and for 16.
    counted = Counted(torch.bfloat16, {"scan": 900, "ssd": 400}[kind] if is_cut else 10**6)
    drawn = Shape(ROWS, torch.float32, 2).parameter(1, len(ROWS), *shape)
    before, after = Rows.apart(drawn), Rows.places(None, drawn, shape, len(ROWS))
    y = run(counted.kernels, kind, given, before, after)
    assert sum(rows for rows, _ in counted.calls) == (4 if is_cut else 3)
    assert torch.equal(before.stacked(), drawn)
    assert torch.equal(run(counted.kernels, kind, given, before, before), y)
    assert torch.equal(before.stacked(), after.stacked())
    # A row without a token leaves the state that it has.
    assert torch.equal(after.stacked()[2], drawn[2])


@both_kinds
def test_rows_share_a_state_and_only_some_are_kept(kind: str) -> None:
    given, shape = operands(kind)
    kernels = Counted(torch.bfloat16, 10**6).kernels
    case = Shape(ROWS, torch.float32, 2)
    (shared,) = Rows.apart(case.parameter(1, 1, *shape)).tensors
    assert shared is not None
    kept = shared.clone()
    before = Rows([shared, None, shared, shared, None], shape)
    some, every = (Rows.places(None, shared, shape, 5, keep=keep) for keep in ([1, 3], None))
    y = run(kernels, kind, given, before, some)
    assert torch.equal(run(kernels, kind, given, Rows.apart(before.stacked()), every), y)
    assert torch.equal(run(kernels, kind, given, before, None), y)
    assert torch.equal(some.stacked()[[1, 3]], every.stacked()[[1, 3]])
    assert torch.equal(shared, kept)


@both_kinds
def test_a_nan_reaches_no_other_row(kind: str) -> None:
    given, shape = operands(kind)
    kernels = Counted(torch.bfloat16, 10**6).kernels
    clean = run(kernels, kind, given, None, None)
    # The last token of the first long row, beside which a padded row of the same call is filled up.
    given[0][11, 0] = float("nan")
    y = run(kernels, kind, given, None, None)
    hurt = y.isnan().any(dim=1)
    assert hurt.nonzero().flatten().tolist() == [11]
    assert torch.equal(y[~hurt], clean[~hurt])
    state = Shape(ROWS, torch.float32, 2).parameter(1, len(ROWS), *shape)
    state[3] = float("nan")
    y = run(kernels, kind, operands(kind)[0], Rows.apart(state), None)
    assert y.isnan().any(dim=1).nonzero().flatten().tolist() == list(range(12, 21))


@both_kinds
def test_a_forward_sends_its_rows_to_the_device_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, shape = operands(kind)
    kernels, starts = Counted(torch.bfloat16, 10**6).kernels, row_starts(ROWS)
    before = Rows.apart(torch.zeros(len(ROWS), *shape))
    getattr(kernels, kind)(*given, starts, before, before)
    for module in (official_calls, layout, triton_kernels):
        monkeypatch.setattr(module, "sent", None)
    getattr(kernels, kind)(*given, starts, before, before)


def test_what_mamba_ssm_does_less_exactly_or_not_at_all_is_ours() -> None:
    for kind, dtype, changes, takes in (
        ("scan", torch.float32, {}, True),
        ("scan", torch.float16, {}, True),
        ("ssd", torch.bfloat16, {}, True),
        ("ssd", torch.float32, {}, False),
        ("ssd", torch.float16, {}, False),
        # The gate in another dtype than the rest.
        ("scan", torch.bfloat16, {7: torch.float32}, False),
        ("ssd", torch.bfloat16, {1: torch.float32}, False),
    ):
        given, _ = operands(kind, dtype)
        for at, other in changes.items():
            given[at] = given[at].to(other)
        counted = Counted(dtype, 10**6)
        run(counted.kernels, kind, given, None, None)
        assert bool(counted.calls) == takes, (kind, dtype)


def test_states_that_take_many_tokens_make_only_longer_rows_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_SHARE_AHEAD", 1)
    given, _ = operands("scan")
    counted = Counted(torch.bfloat16, 10**6)
    run(counted.kernels, "scan", given, None, None)
    # Four states take twelve tokens, and only the last row has more.
    assert counted.calls == [(1, 32)]


@pytest.mark.parametrize("is_right", [True, False])
def test_the_doctor_tells_a_scan_that_forgets_its_state(
    is_right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_states(u: torch.Tensor, *rest: Any, **options: Any) -> Any:
        return selective_scan(torch.where(rest[0] < -30, 0.0, u), *rest, **options)

    def forgetting(*args: Any, **options: Any) -> Any:
        return chunk_scan(*args, **options | {"initial_states": None})

    found = Functions(selective_scan, chunk_scan) if is_right else Functions(without_states, forgetting)
    monkeypatch.setattr("mambabench.kernels.gpu.official.functions", lambda: found)
    # Short here: the interpreter is slow.
    monkeypatch.setattr(cases_packed, "_LONG_SCAN", ((20, 17), 40, 16, True))
    monkeypatch.setattr(cases_packed, "_LONG_SSD", ((20, 17), (2, 8, 8, 1), True))
    monkeypatch.setattr(cases_packed, "_FEW_ELEMENTS", 3_000)
    if not is_right:
        monkeypatch.setattr(cases_packed, "DTYPES", (torch.bfloat16,))
    findings = [measure(case) for case in long_row_cases("cpu")]
    assert not is_right or [(f.kernel, f.dtype) for f in findings] == [
        *[("selective_scan_fn", "float32")] * 2,
        *[("selective_scan_fn", "float16")] * 2,
        *[("selective_scan_fn", "bfloat16"), ("mamba_chunk_scan_combined", "bfloat16")] * 2,
    ]
    for finding in findings:
        assert finding.passed == is_right, finding
        # So near that no allowance is needed.
        assert not is_right or (finding.ratio or 0) < 4, finding


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("mamba", torch.float32), ("mamba2", torch.bfloat16), ("hybrid", torch.bfloat16)],
    ids=str,
)
def test_whole_models_equal_those_of_the_cpu(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_token, "MOST_ROWS", 0)
    # Rows of two tokens that go on from shared states are long then.
    for constant in ("LONG_TOKENS", "LONG_SSD_TOKENS"):
        monkeypatch.setattr(choice, constant, 2)
    build, counted = MODELS[name](), Counted(dtype, 10**6)
    want, narrow = (torch.cat(forwards(build(kind, "cpu"))) for kind in (torch.float32, dtype))
    for module in (step_mamba, step_mamba2, step_hybrid):
        monkeypatch.setattr(module, "kernels_for", lambda device, dtype: counted.kernels)
    model = build(dtype, "cpu")
    assert "mamba_ssm" in model.kernel_path
    assert model.workspace_bytes > 0
    error = torch.cat(forwards(model)) - want
    assert len(counted.calls) >= 2
    if dtype == torch.float32:
        assert error.abs().max() <= 5e-5 * want.abs().max()
    else:
        assert error.square().mean() <= 2.5**2 * (narrow - want).square().mean()


def test_the_crossover_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_crossover, "_WARM_UPS", 0)
    sizes = [
        scan_crossover.Size("one", 0, 8, 2, torch.float32),
        scan_crossover.Size("two", 2, 8, 2, torch.bfloat16),
    ]
    counted, path = Counted(torch.float32, 10**6), tmp_path / "found.json"
    found = Functions(counted.noting(selective_scan, 2), counted.noting(chunk_scan, 1))
    scan_crossover.measure(
        scan_crossover.Figures(path), found, HostClock(), device="cpu", sizes=sizes, lengths=[4, 8],
        batch_tokens=16, repeats=1,
    )  # fmt: skip
    # Each size with one row and as a batch, at each length.
    assert counted.calls == [(1, 16), (1, 16), (4, 16), (2, 16), (1, 4), (1, 8), (4, 4), (2, 8)]
    figures = json.loads(path.read_text())
    assert figures["two bfloat16, a batch, 4 x 4"].keys() == {"triton_s", "official_s"}
    assert figures["crossover_tokens"].keys() == {
        f"{name}, {batch}" for name in ("one float32", "two bfloat16") for batch in ("one row", "a batch")
    }
    assert len(figures) == 9


def test_a_crossover_counts_only_from_where_it_stays() -> None:
    find = scan_crossover.crossover_tokens
    assert find([(16, 1.0, 3.0), (32, 2.0, 1.5), (64, 4.0, 2.0)]) == 32
    assert find([(64, 4.0, 2.0), (16, 1.0, 0.5), (32, 2.0, 2.5)]) == 64
    assert find([(16, 1.0, 3.0)]) is None


def test_a_smallest_step_is_never_padded_with() -> None:
    given, _ = operands("ssd")
    for limit, calls in (((0.0, 9.0), [(1, 21), (2, 9)]), ((0.3, 0.9), [(1, 21), (2, 9)])):
        counted = Counted(torch.bfloat16, 10**6)
        counted.kernels.ssd(*given, row_starts(ROWS), None, None, dt_limit=limit)
        assert counted.calls == calls
    counted = Counted(torch.bfloat16, 10**6)
    case = Shape([8, 7], torch.bfloat16, 0)
    for limit, calls in (((0.0, 9.0), [(2, 8)]), ((0.3, 0.9), [(1, 8), (1, 7)])):
        counted.calls.clear()
        xbc, zxbcdt = case.normal(1, 15, 24), case.normal(2, 15, 2)
        counted.kernels.ssd(xbc, zxbcdt, *given[2:], row_starts([8, 7]), None, None, dt_limit=limit)
        assert counted.calls == calls
