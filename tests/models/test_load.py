from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    N_ROWS,
    N_TOKENS,
    build_tokenizer,
    lora_adapter,
    mamba2_config,
    mamba_config,
    tiny_llama,
    tiny_mamba,
    tiny_mamba2,
    tiny_mamba_ssm,
    tiny_neox,
)
from transformers import AutoModelForCausalLM

from mambabench.errors import CheckpointError, UsageError
from mambabench.models.load import check, load
from mambabench.registry import resolve

IDS = torch.tensor([[5, 99, 14, 203, 7, 7, 61, 3], [250, 1, 2, 3, 4, 5, 6, 299]])


def _load(path: Path | str, **options: Any) -> Any:
    return load(check(resolve(str(path)), device="cpu", **options))


def _reference_logits(path: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.inference_mode():
        return model(IDS, use_cache=False).logits[..., :N_TOKENS]


def _module_logits(model: Any) -> torch.Tensor:
    """Logits of the transformers module that holds the weights, whatever runs them."""
    with torch.inference_mode():
        return model.module(IDS, use_cache=False).logits[..., :N_TOKENS]


@pytest.mark.parametrize("build", [tiny_mamba, tiny_mamba2, tiny_neox, tiny_llama])
def test_a_transformers_checkpoint_gives_transformers_logits(tmp_path: Path, build: Any) -> None:
    directory = build(tmp_path / "m")
    model = _load(directory)
    expected = _reference_logits(directory)
    assert torch.equal(_module_logits(model), expected)
    assert torch.allclose(model.logits(IDS, 8), expected, atol=1e-5)
    assert torch.allclose(model.logits(IDS, 3), expected[:, -3:], atol=1e-5)


@pytest.mark.parametrize("save", [{"as_bin": True}, {"max_shard_size": "20KB"}])
def test_every_weight_format_gives_the_same_logits(tmp_path: Path, save: dict[str, Any]) -> None:
    expected = _reference_logits(tiny_llama(tmp_path / "plain"))
    assert torch.equal(_load(tiny_llama(tmp_path / "other", **save)).logits(IDS, 8), expected)


@pytest.mark.parametrize(("layer", "build"), [("Mamba1", tiny_mamba), ("Mamba2", tiny_mamba2)])
def test_a_mamba_ssm_checkpoint_equals_its_transformers_twin(tmp_path: Path, layer: str, build: Any) -> None:
    twin = _reference_logits(build(tmp_path / "twin"))
    model = _load(tiny_mamba_ssm(tmp_path / "m", layer=layer, with_tokenizer=True))
    assert torch.equal(_module_logits(model), twin)
    assert torch.allclose(model.logits(IDS, 8), twin, atol=1e-5)
    assert model.module.lm_head.weight is model.module.get_input_embeddings().weight


def test_a_mamba_ssm_checkpoint_without_a_head_is_tied(tmp_path: Path) -> None:
    directory = tiny_mamba_ssm(tmp_path / "m", with_tokenizer=True)
    expected = _load(directory).logits(IDS, 8)
    state = torch.load(directory / "pytorch_model.bin", weights_only=True)
    del state["lm_head.weight"]
    torch.save(state, directory / "pytorch_model.bin")
    assert torch.equal(_load(directory).logits(IDS, 8), expected)


def test_padded_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    model = _load(tiny_mamba(tmp_path / "m"))
    assert model.vocab_size == N_TOKENS < N_ROWS
    assert model.logits(IDS, 2).shape == (2, 2, N_TOKENS)
    assert (model.record.vocab_rows_used, model.record.vocab_rows_stored) == (N_TOKENS, N_ROWS)


@pytest.mark.parametrize("keep", [0, 9])
def test_keep_outside_the_batch_is_an_error(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ValueError, match="keep is"):
        _load(tiny_neox(tmp_path / "m")).logits(IDS, keep)


def test_right_padding_changes_nothing_left_of_it(tmp_path: Path) -> None:
    model = _load(tiny_mamba(tmp_path / "m"))
    padded = torch.cat([IDS, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    assert torch.allclose(model.logits(padded, 12)[:, :8], model.logits(IDS, 8), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bf16", "float16"])
@pytest.mark.parametrize("build", [tiny_mamba, tiny_mamba2])
def test_the_recurrence_keeps_fp32_and_the_forward_works(tmp_path: Path, build: Any, dtype: str) -> None:
    directory = build(tmp_path / "m")
    model = _load(directory, dtype=dtype)
    wide = _load(directory)
    for name, parameter in model.module.named_parameters():
        if name.endswith(("A_log", ".D", "dt_bias")):
            assert parameter.dtype == torch.float32
            # Not merely widened again after a rounding.
            assert torch.equal(parameter, wide.module.get_parameter(name))
    assert model.record.dtypes["A_log"] == model.record.dtypes["D"] == "float32"
    assert model.record.dtypes["matmul"] == {"bf16": "bfloat16", "float16": "float16"}[dtype]
    narrow, exact = model.logits(IDS, 8).float(), wide.logits(IDS, 8)
    assert torch.isfinite(narrow).all()
    assert 0 < (narrow - exact).abs().mean() < 0.1


def test_a_narrow_mamba_ssm_checkpoint_keeps_its_recurrence(tmp_path: Path) -> None:
    model = _load(tiny_mamba_ssm(tmp_path / "m", with_tokenizer=True), dtype="bf16")
    assert model.record.dtypes["A_log"] == "float32"
    assert model.record.dtypes["embedding"] == "bfloat16"


def test_the_record_tells_what_was_loaded(tmp_path: Path) -> None:
    record = _load(tiny_mamba_ssm(tmp_path / "m", with_tokenizer=True)).record
    assert record.family == "mamba"
    assert record.implementation == "mambabench MambaSteps"
    assert record.kernel_path == "mambabench compiled scan"
    assert (record.device, record.weights, record.seed) == ("cpu", "pretrained", None)
    assert record.device_name
    assert [f.name for f in record.files] == ["config.json", "pytorch_model.bin"]
    assert record.tokenizer.n_tokens == N_TOKENS
    assert record.tokenizer.source == "checkpoint"
    assert record.n_parameters == sum(p.numel() for p in _load(tmp_path / "m").module.parameters())
    neox = _load(tiny_neox(tmp_path / "n")).record
    assert (neox.implementation, neox.kernel_path) == ("mambabench AttentionSteps", "torch sdpa, packed")
    neox = _load(tmp_path / "n", engine="as-shipped").record
    assert (neox.implementation, neox.kernel_path) == ("transformers GPTNeoXForCausalLM", "torch sdpa")
    narrow = _load(tmp_path / "m", dtype="bfloat16").record
    assert narrow.implementation == "mambabench MambaSteps"
    assert narrow.kernel_path == "mambabench compiled scan"
    shipped = _load(tmp_path / "m", dtype="bfloat16", engine="as-shipped").record
    assert shipped.implementation == "transformers MambaForCausalLM"
    assert shipped.kernel_path == "transformers torch loop"
    mamba2 = _load(tiny_mamba2(tmp_path / "o")).record
    assert (mamba2.implementation, mamba2.kernel_path) == (
        "mambabench Mamba2Steps",
        "mambabench compiled scan",
    )
    mamba2 = _load(tmp_path / "o", engine="as-shipped").record
    assert mamba2.kernel_path == "transformers torch chunks"


def test_windows_are_as_long_as_the_model_was_made_for(tmp_path: Path) -> None:
    assert _load(tiny_neox(tmp_path / "n")).max_length == 128
    assert _load(tiny_mamba(tmp_path / "m")).max_length == 2048
    assert _load(tmp_path / "n", max_length=50).max_length == 50
    with pytest.raises(UsageError, match="window of 1 tokens"):
        check(resolve(str(tmp_path / "n")), max_length=1)


def test_what_the_author_recommends_for_chatting_does_not_leak(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "m")
    (directory / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 9.0, "eos_token_id": 5, "max_length": 10})
    )
    config = _load(directory).module.generation_config
    assert config.eos_token_id is None
    assert config.max_length is None or config.max_length == 20


# --- random weights -------------------------------------------------------------------------------------


def test_random_weights_follow_the_seed_only(tmp_path: Path) -> None:
    directory = tiny_mamba2(tmp_path / "m")
    torch.manual_seed(123)
    first = _load(directory, weights="random", seed=1)
    before = torch.random.get_rng_state()
    second = _load(directory, weights="random", seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = _load(directory, weights="random", seed=2)
    assert torch.equal(first.logits(IDS, 8), second.logits(IDS, 8))
    assert not torch.allclose(first.logits(IDS, 8), other.logits(IDS, 8))
    assert first.record.seed == 1
    assert first.record.files == ()


def test_random_weights_need_the_configuration_only(tmp_path: Path) -> None:
    directory = tiny_mamba_ssm(tmp_path / "m", with_tokenizer=True)
    (directory / "pytorch_model.bin").unlink()
    ref = resolve(str(directory), need_weights=False)
    logits = load(check(ref, weights="random", device="cpu")).logits(IDS, 8)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


def test_random_weights_are_the_same_in_every_dtype(tmp_path: Path) -> None:
    directory = tiny_mamba(tmp_path / "m")
    wide = _load(directory, weights="random").module.state_dict()
    narrow = _load(directory, weights="random", dtype="bf16").module.state_dict()
    for name, tensor in narrow.items():
        assert torch.equal(tensor, wide[name].to(tensor.dtype))
    assert narrow["backbone.layers.0.mixer.A_log"].dtype == torch.float32


def test_a_registered_architecture_is_built_without_any_download(tmp_path: Path) -> None:
    from transformers import AutoConfig

    build_tokenizer(tmp_path / "t")
    plan = check(resolve("mamba-130m"), weights="random", device="cpu", tokenizer=str(tmp_path / "t"))
    assert plan.rows_stored == 50280
    assert plan.architecture.hidden_size == 768
    assert plan.max_length == 2048
    assert isinstance(plan.architecture, type(AutoConfig.for_model("mamba")))


# --- adapters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [tiny_mamba, tiny_llama])
def test_an_adapter_is_merged_over_its_base(tmp_path: Path, build: Any) -> None:
    from peft import PeftModel

    base = build(tmp_path / "base")
    adapter = lora_adapter(tmp_path / "adapter", base)
    model = _load(adapter)
    module: Any = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        # peft reads an attribute that this transformers announces the end of.
        warnings.simplefilter("ignore", FutureWarning)
        expected = PeftModel.from_pretrained(module, str(adapter)).eval()
        with torch.inference_mode():
            unmerged = expected(input_ids=IDS, use_cache=False).logits[..., :N_TOKENS]
    assert torch.allclose(model.logits(IDS, 8), unmerged, atol=1e-4)
    assert not torch.allclose(model.logits(IDS, 8), _load(base).logits(IDS, 8), atol=1e-2)
    assert model.record.adapter is not None
    assert (model.record.adapter.peft_type, model.record.adapter.merged) == ("LORA", True)
    assert len(model.record.adapter.files) == 2


def test_an_adapter_works_over_a_mamba_ssm_base(tmp_path: Path) -> None:
    twin = lora_adapter(tmp_path / "adapter", tiny_mamba(tmp_path / "twin"))
    expected = _load(twin).logits(IDS, 8)
    base = tiny_mamba_ssm(tmp_path / "base", with_tokenizer=True)
    config = json.loads((twin / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = os.path.relpath(base, twin)
    (twin / "adapter_config.json").write_text(json.dumps(config))
    assert torch.equal(_load(twin).logits(IDS, 8), expected)


def test_an_adapter_of_another_model_does_not_fit(tmp_path: Path) -> None:
    adapter = lora_adapter(tmp_path / "adapter", tiny_mamba(tmp_path / "base"))
    tiny_mamba(tmp_path / "other", config={"num_hidden_layers": 3})
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "other")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="adapter does not fit its base model"):
        _load(adapter)


def test_an_adapter_has_no_random_weights(tmp_path: Path) -> None:
    adapter = lora_adapter(tmp_path / "adapter", tiny_mamba(tmp_path / "base"))
    with pytest.raises(UsageError, match="is an adapter"):
        check(resolve(str(adapter)), weights="random")


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = tiny_mamba(tmp_path / "m")
    capfd.readouterr()
    model = _load(directory)
    model.logits(IDS, 2)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_the_configurations_used_here_are_as_small_as_they_look() -> None:
    assert mamba_config().vocab_size == mamba2_config().vocab_size == N_ROWS
