"""The 64-bit reference forward: really in 64 bits, of the module's own code, leaving the module as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import builders
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    Mamba2ForCausalLM,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from mambabench.errors import CertificateError
from mambabench.models import wide_forward
from mambabench.models.mamba import MambaLM, MambaShape
from mambabench.models.wide_forward import WideForward, shipped_logits, wide_logits

V = builders.N_TOKENS
# Narrow tensors may be looked at and moved, never calculated with.
MOVES = {
    "aten::alias", "aten::detach", "aten::embedding", "aten::expand", "aten::permute", "aten::select",
    "aten::slice", "aten::split", "aten::squeeze", "aten::t", "aten::transpose", "aten::unsqueeze",
    "aten::view", "aten::_unsafe_view",
}  # fmt: skip


def _small(**sizes: Any) -> dict[str, Any]:
    return {"vocab_size": builders.N_ROWS, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, **sizes}


def _transformer(**more: Any) -> dict[str, Any]:
    return _small(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
        **more,
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "mamba": lambda: MambaForCausalLM(builders.mamba_config()),
    "falcon_mamba": lambda: FalconMambaForCausalLM(
        FalconMambaConfig(**_small(hidden_size=32, state_size=8, num_hidden_layers=2, initializer_range=0.2))
    ),
    "mamba2": lambda: Mamba2ForCausalLM(builders.mamba2_config(n_groups=2)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(builders.neox_config()),
    "llama": lambda: LlamaForCausalLM(builders.llama_config()),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**_small(n_embd=32, n_layer=2, n_head=4, n_positions=64))),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**_transformer(query_pre_attn_scalar=8))),
    "mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(**_transformer(num_local_experts=4, num_experts_per_tok=2))
    ),
}


def _module(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[family]().to(dtype).eval()


def _ids(rows: int = 3, length: int = 17, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(seed))


def _wide(module: Any, ids: torch.Tensor, keep: int | None = None) -> torch.Tensor:
    return wide_logits(module, ids, keep=keep or ids.shape[1], vocab_size=V)


def _shipped(module: Any, ids: torch.Tensor) -> torch.Tensor:
    return shipped_logits(module, ids, keep=ids.shape[1], vocab_size=V)


def _rms(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


class Recorder(TorchDispatchMode):
    """Notes what is calculated below torch's functions, inside composed ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                if tensor.dtype == torch.float64:
                    self.largest = max(self.largest, tensor.untyped_storage().nbytes())
                else:
                    self.narrow.add(func.name().partition(".")[0])
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_calculated_in_less_than_64_bits(family: str, dtype: torch.dtype) -> None:
    module = _module(family, dtype)
    with Recorder() as seen:
        assert _wide(module, _ids()).dtype == torch.float64
    assert seen.narrow <= MOVES


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_the_module_calculates(family: str) -> None:
    # The module's own code narrows in places even with 64-bit weights, so that 1e-6 is as near as it comes.
    module = _module(family)
    wide = _wide(module, _ids())
    double = copy.deepcopy(module).double()
    if family == "mixtral":
        # torch's product with a matrix for each expert's rows takes no 64-bit floats.
        double.set_experts_implementation("eager")
    assert _rms(_shipped(double, _ids()).double() - wide) < 1e-6 * _rms(wide)
    assert 1e-9 < _rms(_shipped(module, _ids()).double() - wide) / _rms(wide) < 2e-6


@pytest.mark.parametrize("config", [{}, {"use_bias": True}, {"tie_word_embeddings": False}])
def test_mamba_equals_an_independent_forward_in_64_bits(config: dict[str, Any]) -> None:
    module = MambaForCausalLM(builders.mamba_config(**config)).eval()
    own = MambaLM(MambaShape.from_transformers(module.config)).double()
    own.load_state_dict({name: tensor.double() for name, tensor in module.state_dict().items()})
    with torch.inference_mode():
        expected = own(_ids())[0][..., :V]
    torch.testing.assert_close(_wide(module, _ids()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_transformers_equal_their_own_code_where_that_is_exact(family: str) -> None:
    module = _module(family)
    exact = copy.deepcopy(module).double()
    exact.set_attn_implementation("sdpa")
    rotary = exact.base_model.rotary_emb

    def angles(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = position_ids[..., None].double() * rotary.inv_freq.double()
        both = torch.cat([frequencies, frequencies], dim=-1)
        return both.cos(), both.sin()

    # These are the only places where the two families narrow.
    rotary.forward = angles
    for part in exact.modules():
        if type(part).__name__ == "LlamaRMSNorm":
            part.forward = _exact_norm(part)
    torch.testing.assert_close(_wide(module, _ids()), _shipped(exact, _ids()), rtol=1e-12, atol=1e-12)


def _exact_norm(norm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: norm.weight * x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()


def test_mamba2_does_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    module, ids = _module("mamba2"), _ids(2, 70)
    found = []
    for chunk in (32, 7):
        monkeypatch.setattr(wide_forward, "_CHUNK_TOKENS", chunk)
        found.append(_wide(module, ids))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_depend_on_each_other(family: str) -> None:
    module, ids = _module(family), _ids()
    together = _wide(module, ids)
    alone = torch.cat([_wide(module, ids[i : i + 1, :9]) for i in (2, 0, 1)])
    torch.testing.assert_close(together[[2, 0, 1], :9], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_16_bit_weights_are_taken_as_they_are(family: str, dtype: torch.dtype) -> None:
    narrow = _module(family, dtype)
    assert torch.equal(_wide(narrow, _ids()), _wide(copy.deepcopy(narrow).float(), _ids()))


def test_only_what_is_asked_for_is_returned() -> None:
    module, ids = _module("llama"), _ids()
    last = wide_logits(module, ids, keep=2, vocab_size=100)
    assert last.shape == (3, 2, 100)
    torch.testing.assert_close(last, _wide(module, ids)[:, -2:, :100], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", ["gpt_neox", "mamba"])
def test_no_second_copy_of_a_large_vocabulary_is_made(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_forward, "_PIECE_ELEMENTS", 1 << 14)
    config: Any = {"gpt_neox": builders.neox_config, "mamba": builders.mamba_config}[family](
        vocab_size=20_000
    )
    module = (GPTNeoXForCausalLM if family == "gpt_neox" else MambaForCausalLM)(config).eval()
    ids = _ids(1, 5)
    with Recorder() as seen:
        logits = wide_logits(module, ids, keep=1, vocab_size=20_000)
    # The logits themselves are 160,000 bytes, the matrix would be 5,120,000.
    assert seen.largest <= 160_000
    hidden_like = wide_logits(module, ids, keep=5, vocab_size=20_000)[:, -1:]
    torch.testing.assert_close(logits, hidden_like, rtol=1e-12, atol=1e-12)


def test_pieces_of_a_matrix_give_its_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_forward, "_PIECE_ELEMENTS", 50)
    layer, x = nn.Linear(7, 33), torch.randn(2, 3, 7)
    with torch.inference_mode(), WideForward():
        found = layer(x)
    torch.testing.assert_close(found, copy.deepcopy(layer).double()(x.double()), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_module_stays_as_it_was(family: str, fails: bool) -> None:
    module = _module(family)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    before = {name: (id(t), t.data_ptr(), t.dtype, t.detach().clone()) for name, t in tensors.items()}
    chunks = [getattr(part, "chunk_size", None) for part in module.modules()]
    logits = _shipped(module, _ids())
    if fails:
        last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
        handle = last.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(CertificateError, match="in 64 bits: division by zero"):
            _wide(module, _ids())
        handle.remove()
    else:
        _wide(module, _ids())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert tensors.keys() == before.keys()
    for name, (identity, address, dtype, values) in before.items():
        now = tensors[name]
        assert (id(now), now.data_ptr(), now.dtype) == (identity, address, dtype)
        assert torch.equal(now, values)
    assert [getattr(part, "chunk_size", None) for part in module.modules()] == chunks
    assert torch.equal(_shipped(module, _ids()), logits)


def test_narrow_results_are_refused() -> None:
    with WideForward(), pytest.raises(CertificateError, match="type gives less than 64 bits"):
        torch.ones(3, dtype=torch.float32).type("torch.FloatTensor")


def test_lost_writes_are_refused() -> None:
    for write in (lambda t: t.mul_(2), lambda t: t.__setitem__(0, 1.0)):
        buffer = torch.ones(3)
        with WideForward(), pytest.raises(CertificateError, match="writes into a tensor"):
            write(buffer)
        assert torch.equal(buffer, torch.ones(3))


def test_narrowing_is_undone() -> None:
    third = torch.tensor(1 / 3, dtype=torch.float64)
    weight = torch.ones(2, dtype=torch.bfloat16)
    with WideForward():
        results = [
            third.float(),
            third.half(),
            third.to(torch.bfloat16),
            third.to(weight.dtype),
            third.to(device="cpu", dtype=torch.float32),
            third.type_as(weight),
            third.to(weight),
        ]
        row = torch.softmax(third.repeat(2), dim=0, dtype=torch.float32)
        zeros = torch.zeros(2, dtype=torch.float16)
        assert torch.arange(3).dtype == torch.int64
    assert all(result.dtype == torch.float64 and result == third for result in results)
    assert row.dtype == zeros.dtype == torch.float64
    assert weight.dtype == torch.bfloat16
