"""The official CUDA model through mambabench, against the CPU. Not run on hardware yet; see `run.sh`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


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
