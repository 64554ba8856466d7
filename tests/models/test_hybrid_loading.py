"""Models that only mamba_ssm on a GPU could run, from a directory to figures on a CPU.

What is loaded is compared with transformers, where it has the same arithmetic under another name, and with
mamba_ssm's own code where that is here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    N_ROWS,
    N_TOKENS,
    hybrid1_config,
    hybrid_config,
    mamba_ssm_config,
    spread_weights,
    tiny_hybrid,
    tiny_mamba_ssm,
)
from mamba_ssm_code import needs_mamba_ssm, run_beside
from tasks.rows import write_rows
from torch import Tensor
from transformers import BambaConfig, BambaForCausalLM

from mambabench.cli import _run
from mambabench.kernels.packed import CpuKernels
from mambabench.models import check as checking
from mambabench.models.base import SamplingOptions
from mambabench.models.certificate import certify
from mambabench.models.load import check, load
from mambabench.models.stepping_model import SteppingModel
from mambabench.registry import resolve
from mambabench.scoring.requests import LoglikelihoodRequest
from mambabench.scoring.scorer import Scorer

IDS = torch.tensor([[5, 99, 14, 203, 7, 7, 61, 3], [250, 1, 2, 3, 4, 5, 6, 299]])
_HEADS = {"causal": True, "num_heads": 4, "qkv_proj_bias": False, "out_proj_bias": False}
HYBRID, HYBRID1 = hybrid_config(), hybrid1_config()
_MAMBA2 = HYBRID["ssm_cfg"]


def _load(directory: Path, **options: Any) -> Any:
    return load(check(resolve(str(directory)), device="cpu", **options))


def assert_close(got: Tensor, want: Tensor, tolerance: float = 2e-5) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tolerance * want.abs().max()
    assert want.std() > 0.1


# --- what is loaded is the model ------------------------------------------------------------------------


def _from_bamba(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and join the parameters of transformers' Bamba: the same hybrid, spelled otherwise."""
    state = dict(state)
    named = {}
    for name in list(state):
        if name.endswith("q_proj.weight"):
            parts = [state.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            state[name.replace("q_proj", "in_proj")] = torch.cat(parts)
        elif name.endswith("up_proj.weight"):
            gate = state.pop(name.replace("up_proj", "gate_proj"))
            state[name.replace("up_proj", "fc1")] = torch.cat([state.pop(name), gate])
    words = {
        "model": "backbone", "embed_tokens": "embedding", "final_layernorm": "norm_f", "mamba": "mixer",
        "self_attn": "mixer", "o_proj": "out_proj", "feed_forward": "mlp", "down_proj": "fc2",
        "input_layernorm": "norm", "pre_ff_layernorm": "norm2",
    }  # fmt: skip
    for name, tensor in state.items():
        named[".".join(words.get(part, part) for part in name.split("."))] = tensor
    return named


def test_a_mixed_hybrid_equals_transformers_bamba(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BambaConfig(
            vocab_size=N_ROWS, hidden_size=32, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=16,
            mamba_n_groups=1, mamba_chunk_size=16, attn_layer_indices=[1], rms_norm_eps=1e-5,
            tie_word_embeddings=True, pad_token_id=0, bos_token_id=0, eos_token_id=0, initializer_range=0.2,
        )  # fmt: skip
        module = BambaForCausalLM(config).eval()
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn(parameter.shape)
    native = mamba_ssm_config(
        n_layer=3, ssm_cfg=_MAMBA2, attn_layer_idx=[1], d_intermediate=128,
        attn_cfg={**_HEADS, "num_heads_kv": 2, "rotary_emb_dim": 4},
    )  # fmt: skip
    model = _load(tiny_hybrid(tmp_path, native, _from_bamba(module.state_dict())))
    with torch.inference_mode():
        want = module(IDS, use_cache=False).logits[..., :N_TOKENS]
    assert_close(model.logits(IDS, 8), want)
    assert_close(model.logits(IDS, 3), want[:, -3:])
    padded = torch.cat([IDS, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    assert_close(model.logits(padded, 12)[:, :8], want)
    for keep in (0, 9):
        with pytest.raises(ValueError, match="keep is"):
            model.logits(IDS, keep)


def test_a_spelled_out_default_changes_whose_code_runs_but_no_figure(tmp_path: Path) -> None:
    plain = tiny_mamba_ssm(tmp_path / "plain", layer="Mamba2", with_tokenizer=True)
    config = json.loads((plain / "config.json").read_text())
    config["ssm_cfg"]["d_ssm"] = 64  # what it is anyway, but transformers' Mamba-2 has no such setting
    odd = tiny_hybrid(tmp_path / "odd", config, torch.load(plain / "pytorch_model.bin", weights_only=True))
    assert (_load(odd).record.implementation, _load(odd).record.family) == (
        "mambabench HybridSteps",
        "mamba2",
    )
    assert_close(_load(odd).logits(IDS, 8), _load(plain, engine="as-shipped").logits(IDS, 8))


def test_an_odd_transformer_equals_its_phi3_twin(tmp_path: Path) -> None:
    attention = {**_HEADS, "head_dim": 16, "rotary_emb_dim": 8}
    config = mamba_ssm_config(attn_layer_idx=[0, 1], d_intermediate=100, attn_cfg=attention)
    plain = tiny_hybrid(tmp_path / "plain", config)
    odd = tiny_hybrid(tmp_path / "odd", {**config, "attn_cfg": {**attention, "softmax_scale": 0.25}})
    assert _load(odd).record.implementation == "mambabench HybridSteps"
    assert _load(odd).record.kernel_path == "torch sdpa, packed"
    assert_close(_load(odd).logits(IDS, 8), _load(plain, engine="as-shipped").logits(IDS, 8))
    bare = {**config, "d_intermediate": 0}
    assert_close(
        _load(tiny_hybrid(tmp_path / "bare", bare)).logits(IDS, 1),
        _brute_force(bare, spread_weights(bare), attention),
    )


def _brute_force(config: dict[str, Any], state: dict[str, Tensor], attention: dict[str, Any]) -> Tensor:
    """Return the last logits [B, 1, V] of attention layers without MLPs, head by head."""
    heads, size, half = attention["num_heads"], attention["head_dim"], attention["rotary_emb_dim"] // 2
    x = state["backbone.embedding.weight"][IDS].double()
    length = IDS.shape[1]
    angle = torch.arange(length)[:, None] * 1e4 ** (-torch.arange(half).double() / half)
    cos, sin = angle.cos(), angle.sin()
    hidden = torch.full((length, length), -math.inf).triu(1)

    def norm(y: Tensor, name: str) -> Tensor:
        return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5) * state[name].double()

    for layer in range(config["n_layer"]):
        own = f"backbone.layers.{layer}."
        qkv = norm(x, own + "norm.weight") @ state[own + "mixer.in_proj.weight"].double().T
        out = []
        for head in range(heads):
            q, k, v = (qkv[..., (part * heads + head) * size :][..., :size].clone() for part in range(3))
            for y in (q, k):
                a, b = y[..., :half].clone(), y[..., half : 2 * half].clone()
                y[..., :half], y[..., half : 2 * half] = a * cos - b * sin, b * cos + a * sin
            out.append((q @ k.mT / size**0.5 + hidden).softmax(-1) @ v)
        x = x + torch.cat(out, -1) @ state[own + "mixer.out_proj.weight"].double().T
    logits = norm(x, "backbone.norm_f.weight") @ state["backbone.embedding.weight"].double().T
    return logits[:, -1:, :N_TOKENS].float()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process found for each family."""
    directories = []
    for name, config in (("mamba2", HYBRID), ("mamba1", HYBRID1)):
        plain = {"use_mem_eff_path" if "layer" in config["ssm_cfg"] else "use_fast_path": False}
        # The fused path is CUDA alone; what it computes is the same.
        config = {**config, "ssm_cfg": {**config["ssm_cfg"], **plain}}
        directories.append(tiny_hybrid(tmp_path_factory.mktemp("beside") / name, config))
    found = run_beside(Path(__file__).with_name("loaded_hybrid_on_cpu.py"), *directories)
    return {directory.name: part for directory, part in zip(directories, found, strict=True)}


@needs_mamba_ssm
@pytest.mark.parametrize("family", ["mamba2", "mamba1"])
def test_mamba_ssms_own_code_agrees(beside: dict[str, Any], family: str) -> None:
    found = beside[family]
    assert found["difference"] < 2e-5
    assert found["ours"] == found["theirs"]
    # Random weights are spread as its constructors spread them: no parameter's two samples look different.
    assert found["names_differ"] == []
    assert found["least_p"][0] > 1e-4, found["least_p"]


# --- scoring and generation -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", [HYBRID, HYBRID1], ids=["mamba2", "mamba1"])
def test_scores_are_sums_of_log_probabilities(tmp_path: Path, config: dict[str, Any]) -> None:
    model = _load(tiny_hybrid(tmp_path, config))
    shared = [5, 99, 14, 203, 7, 61]
    requests = [
        LoglikelihoodRequest(tuple(shared[:n]), tuple(tail))
        for n, tail in ((6, [3, 250]), (6, [11]), (4, [8, 8, 8, 299]), (1, [17]))
    ]
    found = dict(pair for batch in Scorer(model).score(requests) for pair in batch)
    assert sorted(found) == [0, 1, 2, 3]
    for index, request in enumerate(requests):
        ids = torch.tensor([[*request.context, *request.continuation]])
        n = len(request.continuation)
        rows = model.logits(ids, n + 1)[0, :-1].log_softmax(-1)
        continuation = torch.tensor(request.continuation)
        want = float(rows[torch.arange(n), continuation].sum())
        assert found[index].logprob == pytest.approx(want, rel=1e-5)
        assert found[index].is_greedy == torch.equal(rows.argmax(-1), continuation)


def test_generation_takes_the_best_token_each_time(tmp_path: Path) -> None:
    model = _load(tiny_hybrid(tmp_path))
    ids, want = IDS, []
    for _ in range(6):
        chosen = model.logits(ids, 1)[:, -1].argmax(-1, keepdim=True)
        want.append(chosen[:, 0].tolist())
        ids = torch.cat([ids, chosen], dim=1)
    rows = [list(row) for row in zip(*want, strict=True)]

    def generate(n: int, eos_ids: list[int]) -> list[list[int]]:
        found: list[list[int]] = model.generate(
            IDS, max_new_tokens=n, options=SamplingOptions(), eos_ids=eos_ids,
            stop=lambda row, new_ids: row == 1 and len(new_ids) == 3,
        )  # fmt: skip
        return found

    assert generate(6, []) == [rows[0], rows[1][:3]]
    ended = rows[0].index(rows[0][2]) + 1
    assert generate(6, [rows[0][2]])[0] == rows[0][:ended]
    assert generate(0, []) == [[], []]


def test_there_is_nothing_to_certify(tmp_path: Path) -> None:
    model = _load(tiny_hybrid(tmp_path))
    assert isinstance(model, SteppingModel)
    assert certify(model, fingerprint="none", cache=tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()


# --- the record -----------------------------------------------------------------------------------------


def test_the_record_tells_what_was_loaded(tmp_path: Path) -> None:
    state = spread_weights(HYBRID)
    # Published state dicts hold the tied head and the positions' frequencies as well.
    extra = {
        "lm_head.weight": state["backbone.embedding.weight"],
        "backbone.layers.1.mixer.rotary_emb.inv_freq": torch.zeros(4),
    }
    model = _load(tiny_hybrid(tmp_path, HYBRID, {**state, **extra}))
    record = model.record
    assert (record.implementation, record.family) == ("mambabench HybridSteps", "hybrid")
    assert record.kernel_path == "mambabench compiled scan; torch sdpa, packed"
    assert record.n_parameters == sum(tensor.numel() for tensor in state.values())
    assert (record.vocab_rows_used, record.vocab_rows_stored) == (N_TOKENS, N_ROWS)
    assert set(record.dtypes.values()) == {"float32"}
    assert [f.name for f in record.files] == ["config.json", "pytorch_model.bin"]
    assert (model.vocab_size, model.max_length, model.device.type) == (N_TOKENS, 2048, "cpu")
    assert model.stateful.kernel_path == record.kernel_path


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_keep_the_recurrence_in_fp32(tmp_path: Path, dtype: str) -> None:
    wide = _load(tiny_hybrid(tmp_path))
    narrow = _load(tmp_path, dtype=dtype)
    assert narrow.record.dtypes == {
        "A_log": "float32", "D": "float32", "dt_bias": "float32", "embedding": dtype, "matmul": dtype,
        "norm": dtype,
    }  # fmt: skip
    want = wide.logits(IDS, 8)
    difference = (narrow.logits(IDS, 8).float() - want).square().mean().sqrt()
    assert 0 < difference < 0.05 * want.square().mean().sqrt()


def test_a_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    plans = [
        check(
            resolve(str(tiny_hybrid(tmp_path / name, HYBRID, spread_weights(HYBRID, seed)))),
            device="cpu",
            **how,
        )
        for name, seed, how in (("a", 0, {}), ("b", 0, {}), ("c", 1, {}), ("a", 0, {"dtype": "bf16"}))
    ]
    prints = [plan.fingerprint for plan in plans]
    assert plans[0].implementation == "mambabench"
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_evaluates_a_hybrid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tiny_hybrid(tmp_path / "hybrid")
    data = write_rows(tmp_path / "data", n=4)
    shared = ["--model", str(directory), "--task", "piqa", "--data-dir", str(data), "--device", "cpu"]
    assert _run(["zeroshot", *shared]) == 0
    out = capsys.readouterr().out
    assert "nothing shipped to compare with on a CPU" in out
    assert _run(["zeroshot", *shared, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (record,) = shown["checkpoints"].values()
    assert record["implementation"] == "mambabench HybridSteps"
    assert record["certificate"] is None
    assert [cell["status"] for cell in shown["cells"]] == ["ok"]
    assert _run(["zeroshot", *shared, "--engine", "as-shipped"]) == 4
    assert "which needs a CUDA GPU" in capsys.readouterr().err


def test_a_gpu_with_kernels_runs_it_without_mamba_ssm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mambabench.models.official.is_installed", lambda: False)
    monkeypatch.setattr(checking, "kernels_obstacle", lambda device: None)
    directory = tiny_hybrid(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checking, "pick_device", lambda text: "cuda:0")
        plan = check(resolve(str(directory)))
    assert (plan.implementation, plan.device, plan.dtype) == ("mambabench", "cuda:0", "bfloat16")
    # What is on no device at all stands for the GPU: all weights go there, in their dtypes.
    monkeypatch.setattr("mambabench.models.load.device_name", lambda device: "a GPU")
    made = []

    def kernels(device: torch.device, dtype: torch.dtype) -> CpuKernels:
        made.append((device.type, dtype))
        return CpuKernels()

    monkeypatch.setattr("mambabench.models.step_hybrid.kernels_for", kernels)
    model = load(dataclasses.replace(plan, device="meta"))
    assert made == [("meta", torch.bfloat16)]
    assert model.device.type == "meta"
    dtypes = model.record.dtypes
    assert [dtypes[group] for group in ("matmul", "embedding", "A_log")] == ["bfloat16"] * 2 + ["float32"]
