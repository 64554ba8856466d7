"""The official CUDA model through mambabench, against the CPU. Not run on hardware yet; see `run.sh`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import mamba_ssm_config, tiny_hybrid, tiny_mamba2, tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOLERANCE = {"float32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest error of logits, as the root of a mean square in their standard deviations. Triton multiplies
float32 in the 10 bits of TF32 where it is not told otherwise, as Mamba-2's kernels do not."""
# One set of sizes for all, since Triton compiles anew for each.
_MAMBA2 = {"layer": "Mamba2", "d_state": 32, "headdim": 32, "chunk_size": 64}
_HEADS = {"causal": True, "num_heads": 4, "num_heads_kv": 2, "qkv_proj_bias": False, "out_proj_bias": False}


def _native(**changes: Any) -> Callable[[Path], Path]:
    return lambda path: tiny_hybrid(path, mamba_ssm_config(d_model=128, **changes))


ARCHITECTURES: dict[str, Callable[[Path], Path]] = {
    "mamba": _native(ssm_cfg={"d_state": 16}),
    "mamba2": _native(ssm_cfg=_MAMBA2),
    "mamba2 in groups": _native(ssm_cfg={**_MAMBA2, "ngroups": 2}, tie_embeddings=False),
    "mamba2 with an mlp": _native(ssm_cfg={**_MAMBA2, "d_ssm": 128, "norm_before_gate": True}),
    "mamba2 of transformers": lambda path: tiny_mamba2(
        path, config={"hidden_size": 128, "num_heads": 8, "head_dim": 32, "state_size": 32, "chunk_size": 64}
    ),
    "hybrid": _native(ssm_cfg=_MAMBA2, attn_layer_idx=[1], n_layer=3, attn_cfg=_HEADS),
    "hybrid with rotation": _native(
        attn_layer_idx=[0], d_intermediate=256, attn_cfg={**_HEADS, "rotary_emb_dim": 16}
    ),
}
STEPPED = ("mamba", "mamba2", "mamba2 in groups", "mamba2 of transformers")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return where an architecture's checkpoint is, made when it is first asked for."""
    pytest.importorskip("mamba_ssm", reason="needs the official kernels", exc_type=ImportError)
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if "hybrid" in name:
            pytest.importorskip("flash_attn", reason="attention needs flash-attn", exc_type=ImportError)
        if name not in made:
            place = tmp_path_factory.mktemp("official") / "m"
            place.mkdir()
            made[name] = ARCHITECTURES[name](place)
        return made[name]

    return directory


def _loaded(directory: Path, dtype: str) -> Any:
    from mambabench.models.load import check, load
    from mambabench.registry import resolve

    model: Any = load(check(resolve(str(directory)), device="cuda", dtype=dtype))
    assert "MambaLMHeadModel" in model.record.implementation
    return model


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_logits_are_those_of_64_bits(directories: Callable[[str], Path], name: str, dtype: str) -> None:
    from mambabench.models.official import kernel_path
    from mambabench.models.wide_forward import wide_logits

    model = _loaded(directories(name), dtype)
    assert model.reference is not None
    if importlib.util.find_spec("causal_conv1d") is not None:
        assert kernel_path(model.module) == "mamba_ssm CUDA"
    # Longer than a chunk of Mamba-2's scan.
    ids = torch.randint(1, 300, (3, 70), generator=torch.Generator().manual_seed(0)).cuda()
    exact = wide_logits(model.reference, ids, keep=70, vocab_size=model.vocab_size)
    for keep in (1, 9, 70):
        got = model.logits(ids, keep)
        assert got.shape == (3, keep, 300)
        error = (got.double() - exact[:, -keep:]).square().mean().sqrt() / exact.std()
        assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_steps_over_its_weights_are_certified(
    directories: Callable[[str], Path], name: str, dtype: str
) -> None:
    from mambabench.models.certificate import measure

    record = measure(_loaded(directories(name), dtype))
    assert record.shipped_path == "mamba_ssm MambaLMHeadModel"
    assert record.passed, record


@pytest.mark.parametrize("name", STEPPED)
def test_texts_go_on_as_its_forward_says(directories: Callable[[str], Path], name: str) -> None:
    from mambabench.models.base import SamplingOptions

    model = _loaded(directories(name), "float32")
    ids = torch.randint(1, 300, (3, 30), generator=torch.Generator().manual_seed(3)).cuda()
    texts = model.generate(
        ids, max_new_tokens=12, options=SamplingOptions(), stop=lambda row, new_ids: False, eos_ids=[]
    )
    whole = torch.cat([ids, torch.tensor(texts, device="cuda")], dim=1)
    logits = model.logits(whole, 13)[:, :-1]
    chosen = logits.gather(2, whole[:, -12:, None])[..., 0]
    # The best token, or one that rounding alone keeps from being it.
    assert bool((logits.amax(-1) - chosen < 0.02 * logits.std()).all())


def _large() -> Any:
    """Return a layer of mamba2-2.7b, with random weights and a small vocabulary."""
    from mambabench.models import official
    from mambabench.models.hybrid_init import random_state

    config = mamba_ssm_config(d_model=2560, n_layer=1, ssm_cfg={"layer": "Mamba2"})
    device, dtype = torch.device("cuda"), torch.bfloat16
    module = official.build(config, random_state(config, seed=0, dtype=dtype), device=device, dtype=dtype)
    record: Any = SimpleNamespace(name="m", device="cuda", vocab_rows_used=300, max_length_tokens=2048)
    return official.OfficialModel(module, tokenizer(), record)


# Past 2**31 elements of the projection's output, and past as many of the states of whole chunks.
@pytest.mark.parametrize(("rows", "length"), [(104, 2048), (3400, 16)])
def test_a_batch_past_32_bits_equals_its_rows(rows: int, length: int) -> None:
    pytest.importorskip("mamba_ssm", reason="needs the official kernels", exc_type=ImportError)
    free_bytes, _ = torch.cuda.mem_get_info()
    if free_bytes < 40 << 30:
        pytest.skip("needs 40 GiB of free GPU memory")
    model = _large()
    assert model.limits.rows(length) < rows
    ids = torch.randint(1, 300, (rows, length), generator=torch.Generator().manual_seed(4)).cuda()
    together = model.logits(ids, 1)
    for row in (0, 1, rows // 2, rows - 2, rows - 1):
        alone = model.logits(ids[row : row + 1], 1)[0]
        error = (together[row] - alone).double().square().mean().sqrt() / alone.double().std()
        assert error < TOLERANCE["bfloat16"], row
    del model
    torch.cuda.empty_cache()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    pytest.importorskip("mamba_ssm", reason="needs the official kernels", exc_type=ImportError)
    from gpu.checks import write_checkpoint

    return write_checkpoint(tmp_path / "checkpoint")


def test_logits_equal_those_of_the_cpu(checkpoint: Path) -> None:
    from gpu.checks import load

    on_cpu, on_cuda = load(checkpoint, "cpu"), load(checkpoint, "cuda")
    assert "MambaLMHeadModel" in on_cuda.record.implementation
    assert on_cuda.vocab_size == on_cpu.vocab_size
    ids = torch.randint(1, 300, (3, 130), generator=torch.Generator().manual_seed(0))
    expected = on_cpu.logits(ids, keep=130)
    for keep in (1, 7, 130):
        got = on_cuda.logits(ids.cuda(), keep=keep).cpu()
        torch.testing.assert_close(got, expected[:, -keep:], atol=1e-3, rtol=1e-4)


def test_right_padding_does_not_reach_back(checkpoint: Path) -> None:
    from gpu.checks import load

    model = load(checkpoint, "cuda")
    ids = torch.randint(1, 300, (2, 64), generator=torch.Generator().manual_seed(1)).cuda()
    padded = torch.cat([ids, torch.zeros(2, 32, dtype=torch.long, device="cuda")], dim=1)
    whole = model.logits(padded, keep=96)[:, :64]
    torch.testing.assert_close(whole, model.logits(ids, keep=64), atol=1e-4, rtol=1e-4)


def test_the_state_after_a_prompt_continues_it(checkpoint: Path) -> None:
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
    from mamba_ssm.utils.generation import InferenceParams

    model = MambaLMHeadModel.from_pretrained(str(checkpoint), device="cuda", dtype=torch.float32).eval()
    ids = torch.randint(1, 300, (2, 40), generator=torch.Generator().manual_seed(2)).cuda()
    params = InferenceParams(max_seqlen=40, max_batch_size=2)
    with torch.inference_mode():
        expected = model(ids).logits
        steps = [model(ids[:, :20], inference_params=params).logits]
        params.seqlen_offset = 20
        for position in range(20, 40):
            steps.append(model(ids[:, position : position + 1], inference_params=params).logits)
            params.seqlen_offset += 1
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, atol=1e-3, rtol=1e-3)


def test_generation_equals_that_of_the_cpu(checkpoint: Path) -> None:
    from gpu.checks import load

    from mambabench.models.base import SamplingOptions

    prompt = torch.randint(1, 300, (2, 30), generator=torch.Generator().manual_seed(3))
    texts = []
    for device in ("cpu", "cuda"):
        model = load(checkpoint, device)
        texts.append(
            model.generate(
                prompt.to(device),
                max_new_tokens=24,
                options=SamplingOptions(),
                stop=lambda row, ids: False,
                eos_ids=[],
            )
        )
    assert texts[0] == texts[1]
    assert [len(row) for row in texts[0]] == [24, 24]
