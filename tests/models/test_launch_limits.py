"""What the CUDA kernels can count: bounds by brute force, published sizes, and batches forwarded in parts.

mamba_ssm's own modules are looked at in `test_official.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import N_ROWS, tiny_mamba, tiny_mamba2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    JambaConfig,
    JambaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    ZambaConfig,
)
from transformers import MambaForCausalLM as Mamba1
from transformers.models.zamba.modeling_zamba import ZambaMambaMixer

from mambabench.bench.failures import UnsupportedError
from mambabench.bench.shipped import TransformersDecoder
from mambabench.errors import UsageError
from mambabench.models.base import SamplingOptions
from mambabench.models.launch_limits import (
    GRID_BLOCKS,
    INT32_ELEMENTS,
    SCAN_CHUNK_TOKENS,
    Bound,
    LaunchLimits,
    limits_of,
)
from mambabench.models.load import check, load
from mambabench.registry import resolve

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
LOW = LaunchLimits((Bound("a test's tensor", 4, 3, 20), Bound("another", 1, 1, 24)))


@pytest.fixture
def kernels_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


# --- the bounds -----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    length=st.integers(1, 40),
    piece=st.integers(1, 9),
    elements=st.integers(1, 7),
    most=st.integers(1, 400),
)
@example(length=8, piece=4, elements=5, most=20)
def test_a_batch_fits_when_its_last_element_can_be_counted(
    length: int, piece: int, elements: int, most: int
) -> None:
    bound = Bound("", piece, elements, most)

    def fits(rows: int, tokens: int) -> bool:
        last_element = rows * len(range(0, tokens, piece)) * elements - 1
        return last_element < most

    assert fits(bound.rows(length), length)
    assert not fits(bound.rows(length) + 1, length)
    assert fits(1, bound.longest_tokens)
    assert not fits(1, bound.longest_tokens + 1)


@settings(max_examples=60)
@given(
    rows=st.integers(0, 30),
    length=st.integers(1, 30),
    bounds=st.lists(
        st.builds(Bound, st.just("t"), st.integers(1, 8), st.integers(1, 5), st.integers(1, 300)),
        max_size=3,
    ),
)
def test_parts_are_as_few_as_can_be(rows: int, length: int, bounds: list[Bound]) -> None:
    limits = LaunchLimits(tuple(bounds))
    if limits.rows(length) == 0:
        with pytest.raises(UsageError, match="longest row"):
            limits.parts(rows, length, name="m")
        return
    parts = limits.parts(rows, length, name="m")
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    assert not any(limits.obstacle(part.stop - part.start, length) for part in parts)
    assert bool(limits.obstacle(rows, length)) == (len(parts) > 1)
    # One part fewer would have a part with more rows than fit.
    if len(parts) > 1:
        assert limits.obstacle(-(-rows // (len(parts) - 1)), length)


@settings(max_examples=60)
@given(
    length=st.integers(1, 40), piece=st.integers(1, 9), elements=st.integers(1, 7), most=st.integers(1, 60)
)
@example(length=8, piece=4, elements=5, most=10)
def test_what_counts_each_row_alone_bounds_its_length_only(
    length: int, piece: int, elements: int, most: int
) -> None:
    bound = Bound("a grid", piece, elements, most, is_grid=True, by_row=True)
    fits = len(range(0, length, piece)) * elements <= most
    assert bound.rows(length) == (sys.maxsize if fits else 0)
    assert LaunchLimits((bound,)).obstacle(10**9, length) == "" or not fits
    assert (length <= bound.longest_tokens) == fits


def test_a_grid_is_refused_and_not_computed_wrongly() -> None:
    grid = Bound("x.cu: its grid", 4, 1, 3, is_grid=True, by_row=True)
    said = LaunchLimits((*LOW.bounds, grid)).obstacle(1, 13)
    assert "past the blocks of a CUDA grid's axis, and would be refused (x.cu: its grid)" in said
    assert "longest row has 12 tokens" in said
    assert "computed wrongly" in LOW.obstacle(1, 50)


def test_the_words_name_the_tensor_and_what_fits() -> None:
    said = LOW.obstacle(100, 5)
    assert "100 x 5 tokens" in said
    assert "a test's tensor" in said
    assert "at most 3 rows" in said
    assert "longest row has 24 tokens" in LOW.obstacle(1, 50)
    with pytest.raises(UsageError, match=r"m: 1 x 50 tokens .* longest row has 24 tokens") as caught:
        LOW.parts(3, 50, name="m")
    assert "--engine shared" in caught.value.hint


# --- where they come from -------------------------------------------------------------------------------


def _meta(kind: Any, config: Any) -> Any:
    with torch.device("meta"):
        return kind(config)


@pytest.mark.usefixtures("kernels_installed")
def test_mamba2_as_transformers_ships_it() -> None:
    config = Mamba2Config(
        hidden_size=2560, num_heads=80, head_dim=64, state_size=128, n_groups=1, expand=2, chunk_size=256,
        num_hidden_layers=1, vocab_size=N_ROWS,
    )  # fmt: skip
    limits = limits_of(_meta(Mamba2ForCausalLM, config), CUDA)
    columns = 2 * 5120 + 2 * 128 + 80
    # About 203k tokens, as people found out.
    assert limits.rows(1) == INT32_ELEMENTS // (80 * 64 * 128)
    assert [b.longest_tokens for b in limits.bounds if "in_proj" in b.what] == [INT32_ELEMENTS // columns]
    assert INT32_ELEMENTS // columns == 203_052
    assert (limits.rows(4096), limits.rows(203_052), limits.rows(203_053)) == (49, 1, 0)
    # Short rows are padded to whole chunks of states.
    assert limits.rows(16) == 3276
    assert limits.obstacle(3277, 16)
    assert GRID_BLOCKS in {b.most for b in limits.bounds}


@pytest.mark.usefixtures("kernels_installed")
def test_groups_share_an_axis_with_chunks() -> None:
    config = Mamba2Config(
        hidden_size=16, num_heads=8, head_dim=4, state_size=4, n_groups=8, expand=2, chunk_size=16,
        num_hidden_layers=1, vocab_size=N_ROWS,
    )  # fmt: skip
    limits = limits_of(_meta(Mamba2ForCausalLM, config), CUDA)
    longest = GRID_BLOCKS // 8 * 16
    assert "ssd_bmm.py: its grid" in limits.obstacle(1, longest + 1)
    assert limits.obstacle(1, longest) == ""
    # As many rows as there would be without it.
    without = LaunchLimits(tuple(b for b in limits.bounds if "ssd_bmm.py: its grid" not in b.what))
    assert limits.rows(longest) == without.rows(longest) == GRID_BLOCKS // (GRID_BLOCKS // 8)


@pytest.mark.usefixtures("kernels_installed")
def test_mamba1_as_transformers_ships_it() -> None:
    config = MambaConfig(hidden_size=2560, num_hidden_layers=1, vocab_size=N_ROWS)
    limits = limits_of(_meta(Mamba1, config), CUDA)
    # Its convolution reads the projection's output token by token.
    assert limits.rows(1 << 12) == 2**32 // (2 * 5120) // (1 << 12)
    assert limits.rows(1) == INT32_ELEMENTS // (5120 * 16)
    # A narrow one meets the grid of its convolution first, which takes a row by 64 tokens.
    narrow = MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1, vocab_size=N_ROWS)
    limits = limits_of(_meta(Mamba1, narrow), CUDA)
    assert limits.obstacle(1, 64 * GRID_BLOCKS) == ""
    assert "causal_conv1d_fwd.cu: its grid" in limits.obstacle(1, 64 * GRID_BLOCKS + 1)


@pytest.mark.usefixtures("kernels_installed")
def test_zamba_scans_each_head_by_itself() -> None:
    config = ZambaConfig(
        hidden_size=64, attention_hidden_size=128, mamba_d_state=8, mamba_dt_rank=4, n_mamba_heads=2
    )
    with torch.device("meta"):
        mixer = ZambaMambaMixer(config, layer_idx=0)
    found = {b.what: (b.piece_tokens, b.elements) for b in limits_of(mixer, CUDA).bounds}
    # 128 channels, which lie channel by channel for the convolution; a scan is of one head's 64.
    assert found == {
        "causal_conv1d_fwd.cu: its input": (1, 128),
        "selective_scan_fwd_kernel.cuh: states": (SCAN_CHUNK_TOKENS, 64 * 8),
    }


@pytest.mark.usefixtures("kernels_installed")
def test_only_mixers_over_these_kernels_count() -> None:
    jamba = JambaConfig(
        vocab_size=N_ROWS, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, mamba_d_state=8, mamba_dt_rank=4, num_experts=2, attn_layer_period=2,
        attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1,
    )  # fmt: skip
    assert len(limits_of(_meta(JambaForCausalLM, jamba), CUDA).bounds) == 3
    assert limits_of(nn.Sequential(nn.Linear(2, 2)), CUDA).rows(10**9) is None


def test_other_devices_and_torch_code_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _meta(Mamba1, MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=N_ROWS))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    assert limits_of(module, CPU).rows(10**9) is None
    assert limits_of(module, CUDA).bounds
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert limits_of(module, CUDA).rows(10**9) is None


# --- what they are used for -----------------------------------------------------------------------------


@pytest.fixture(params=[tiny_mamba, tiny_mamba2], ids=["mamba", "mamba2"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    plan = check(resolve(str(request.param(tmp_path / "m"))), device="cpu", engine="as-shipped")
    return load(plan)


def _count_calls(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    rows: list[int] = []
    forward = model.module.forward

    def noting(*args: Any, **options: Any) -> Any:
        rows.append(len(options["input_ids"]))
        return forward(*args, **options)

    monkeypatch.setattr(model.module, "forward", noting)
    return rows


def test_a_large_batch_goes_in_parts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(0, 300, (8, 5), generator=torch.Generator().manual_seed(0))
    whole = model.logits(ids, 3)
    rows = _count_calls(model, monkeypatch)
    model.limits = LOW
    torch.testing.assert_close(model.logits(ids, 3), whole, atol=1e-5, rtol=1e-5)
    assert rows == [3, 3, 2]
    with pytest.raises(UsageError, match="longest row has 24"):
        model.logits(torch.zeros(1, 25, dtype=torch.long), 1)


def test_a_large_batch_is_continued_in_parts(model: Any) -> None:
    ids = torch.randint(0, 300, (6, 5), generator=torch.Generator().manual_seed(0))

    def continued() -> list[list[int]]:
        found: list[list[int]] = model.generate(
            ids, max_new_tokens=4, options=SamplingOptions(), eos_ids=[],
            stop=lambda row, new_ids: row == 5 and len(new_ids) == 2,
        )  # fmt: skip
        return found

    whole = continued()
    assert [len(row) for row in whole] == [4, 4, 4, 4, 4, 2]
    model.limits = LOW
    assert continued() == whole


def test_parts_draw_apart(model: Any) -> None:
    ids = torch.randint(0, 300, (1, 5), generator=torch.Generator().manual_seed(0)).expand(6, -1)

    def drawn() -> list[list[int]]:
        options = SamplingOptions(do_sample=True, seed=3)
        found: list[list[int]] = model.generate(
            ids, max_new_tokens=4, options=options, eos_ids=[], stop=lambda row, new_ids: False
        )
        return found

    whole = drawn()
    model.limits = LOW
    parted = drawn()
    # Rows 0 to 2 and 3 to 5 are a part each.
    assert parted[:3] != parted[3:]
    assert len({tuple(row) for row in parted}) == 6
    assert parted == drawn() != whole


def test_a_prefill_is_refused_rather_than_parted(model: Any) -> None:
    decoder = TransformersDecoder(model.module, model, 0, "none", None)
    decoder._limits = LOW
    decoder.prepare(batch_size=3, prompt_len_tokens=5, gen_len_tokens=2)
    with pytest.raises(UnsupportedError, match=r"4 x 5 tokens .* at most 3 rows") as caught:
        decoder.prepare(batch_size=4, prompt_len_tokens=5, gen_len_tokens=2)
    assert ("--prefill-chunk" in caught.value.hint) == (model.record.family == "mamba2")


def test_a_prefill_in_chunks_counts_one_chunk(tmp_path: Path) -> None:
    loaded: Any = load(check(resolve(str(tiny_mamba2(tmp_path / "m"))), device="cpu", engine="as-shipped"))
    decoder = TransformersDecoder(loaded.module, loaded, 0, "none", 4)
    decoder._limits = LOW
    decoder.prepare(batch_size=6, prompt_len_tokens=50, gen_len_tokens=2)
    with pytest.raises(UnsupportedError, match="7 x 4 tokens"):
        decoder.prepare(batch_size=7, prompt_len_tokens=50, gen_len_tokens=2)
