"""Decode with mamba_ssm's own Python code on a CPU, through the arms of mambabench.

Not a test by itself: `test_official_arms.py` starts it in a process of its own, because stand-ins for the
CUDA functions must be in place before `mamba_ssm` is imported. Prints what it found as a JSON object for each
directory, in one list.

    PYTHONPATH=tests/models:tests python official_arms_on_cpu.py CHECKPOINT_DIRECTORY...
"""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable
from typing import Any

import hybrids_on_cpu
import torch
import torch.nn.functional as F
from graph_on_tape import record, taped_kernels

ROWS, PROMPT, NEW = 2, 9, 7


def attend_with_cache(
    q: Any, k_cache: Any, v_cache: Any, k: Any, v: Any, *, cache_seqlens: Any, causal: bool,
    softmax_scale: float | None = None, **_: Any,
) -> Any:  # fmt: skip
    """Stand in for `flash_attn_with_kvcache`: one query over as many columns as the lengths say."""
    assert causal
    assert q.shape[1] == k.shape[1] == 1
    lengths = torch.as_tensor(cache_seqlens).expand(len(q)).long()
    at = lengths[:, None, None, None].expand(k.shape)
    k_cache.scatter_(1, at, k)
    v_cache.scatter_(1, at, v)
    seen = torch.arange(k_cache.shape[1]) <= lengths[:, None]
    # What is past the length was never written, and may be anything.
    keys, values = (torch.where(seen[:, :, None, None], t, 0.0) for t in (k_cache, v_cache))
    repeats = q.shape[2] // k.shape[2]
    keys, values = (t.repeat_interleave(repeats, dim=2).transpose(1, 2) for t in (keys, values))
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), keys, values, attn_mask=seen[:, None, None], scale=softmax_scale
    )
    return out.transpose(1, 2)


def continued(decoder: Any, ids: torch.Tensor) -> list[list[int]]:
    """Return the ids of a prefill and those that follow."""
    chosen = [ids.clone()]
    for _ in range(NEW - 1):
        ids = decoder.step(ids)
        chosen.append(ids.clone())
    return torch.stack(chosen, dim=1).tolist()


def bytes_wanted(directory: str, decoder: Any) -> int:
    """Return what the architecture's sizes say of the state."""
    from mambabench.bench.sizes import sizes_of
    from mambabench.models.locate import locate
    from mambabench.registry import resolve
    from mambabench.sizes import layout_for

    ref = resolve(directory)
    sizes = sizes_of(ref, locate(ref, "pretrained"))
    assert sizes is not None
    layout = layout_for("mamba_ssm", "float32", sizes)
    return ROWS * sizes.state_bytes(layout, length_tokens=decoder.state_tokens)


def both_libraries(directory: str) -> tuple[Any, Any]:
    """Load a checkpoint into mambabench's own forward and into mamba_ssm's model."""
    from mambabench.models import official, official_steps
    from mambabench.models.load import check, load
    from mambabench.models.weights import read_state
    from mambabench.registry import resolve

    plan = check(resolve(directory), device="cpu", need_tokenizer=False)
    assert plan.source is not None
    ours: Any = load(plan)
    module: Any = official.build(
        plan.config, read_state(plan.source.weights), device=torch.device("cpu"), dtype=torch.float32
    )
    for layer in module.modules():
        # The fused path is CUDA alone; what it computes is the same.
        if hasattr(layer, "use_mem_eff_path"):
            layer.use_mem_eff_path = False
    steps = official_steps.steps_over(
        module, plan.config, device=ours.device, vocab_size=plan.vocab_size, dtype=torch.float32
    )
    # As it is loaded on a GPU, with steps over the same weights.
    # Rows that only pad the vocabulary would win, if anything looked at them.
    module.lm_head.weight.data[ours.vocab_size :] = 1e3 * module.backbone.norm_f.weight.data
    record = ours.record.model_copy(
        update={"implementation": "mambabench HybridSteps over mamba_ssm MambaLMHeadModel"}
    )
    return ours, official.OfficialModel(module, ours.tokenizer, record, stateful=steps)


def refusal(make: Callable[[], Any]) -> str:
    """Return why a decoder is refused."""
    from mambabench.bench.failures import UnsupportedError

    try:
        make()
    except UnsupportedError as error:
        return str(error)
    return ""


def other_shapes(inner: Any) -> dict[str, Any]:
    """Prepare three shapes, and say of each whether the one before was gone when its cache was allocated."""
    from mambabench.bench.graphs import GraphDecoder

    held: list[weakref.ref[Any]] = []
    gone: list[bool] = []
    recorded = 0

    def noting(work: Callable[[], None]) -> Callable[[], None]:
        nonlocal recorded
        replay = record(work)
        recorded += 1
        held.extend(weakref.ref(t) for t in (replay, inner.logits, *inner.state_tensors()))
        return replay

    allocate = inner._allocate

    def allocating(rows: int) -> None:
        gone.append(all(found() is None for found in held))
        allocate(rows)

    inner._allocate = allocating
    graph = GraphDecoder(inner, noting)
    ids = []
    for rows, length in ((2, 9), (3, 5), (3, 5)):
        prompts = torch.arange(rows * length).view(rows, length)
        graph.prepare(batch_size=rows, prompt_len_tokens=length, gen_len_tokens=NEW)
        first = graph.prefill(prompts)
        graph.keep()
        ids.append(continued(graph, first))
    return {
        "recorded": recorded,
        "gone": gone,
        "repeats": ids[1] == ids[2],
        # Where mamba_ssm's own generation keeps graphs, whatever comes after.
        "keeps_others": hasattr(inner._module, "_decoding_cache"),
    }


def decode(directory: str) -> dict[str, Any]:
    """Decode with all arms."""
    from mamba_ssm.modules import mha

    from mambabench.bench.agreement import disagreement
    from mambabench.bench.decoders import build_decoder
    from mambabench.bench.graphs import GraphDecoder
    from mambabench.bench.own_graphs import recordable
    from mambabench.bench.shipped import stepped
    from mambabench.models import official

    ours, theirs = both_libraries(directory)
    prompts = torch.randint(ours.vocab_size, (ROWS, PROMPT), generator=torch.Generator().manual_seed(3))
    forced = torch.randint(ours.vocab_size, (ROWS, 40), generator=torch.Generator().manual_seed(4))
    shape = {"batch_size": ROWS, "prompt_len_tokens": PROMPT, "gen_len_tokens": NEW}
    attention = "sdpa" if any(isinstance(m, mha.MHA) for m in theirs.module.modules()) else "none"

    def guarded() -> Any:
        return build_decoder(theirs, arm="shipped", attention=attention)

    def official_arm() -> Any:
        # What is refused is tried all the same, to see that it would be wrong.
        guard, official.steps_differ = official.steps_differ, lambda module: ""
        try:
            return guarded()
        finally:
            official.steps_differ = guard

    mha.flash_attn_with_kvcache = None
    without_flash = refusal(guarded)
    instead = recordable(theirs, 0, attention, None)
    own = GraphDecoder(instead, record)
    own.prepare(**shape)
    in_place = continued(own, own.prefill(prompts))
    off = disagreement(own, theirs, forced, prompt_len_tokens=24)
    mha.flash_attn_with_kvcache = attend_with_cache
    eager = build_decoder(ours, arm="eager", attention=attention)
    eager.prepare(**shape)
    found: dict[str, Any] = {
        "want": continued(eager, eager.prefill(prompts)),
        "without_flash": without_flash,
        "refused": refusal(guarded),
        "instead": {
            "implementation": own.implementation,
            "kernel_path": own.kernel_path,
            "ids": in_place,
            "disagreement": off,
        },
        "other_shapes": other_shapes(official_arm()),
        "recorded": recordable(theirs, 0, attention, None).implementation,
        "recorded_in_chunks": recordable(theirs, 0, attention, 4).implementation,
        "in_chunks": refusal(lambda: stepped(theirs.module, theirs, 0, attention, 4)),
    }
    for name in ("shipped", "graph"):
        inner = official_arm()
        decoder = inner if name == "shipped" else GraphDecoder(inner, record)
        decoder.prepare(**shape)
        first = continued(decoder, decoder.prefill(prompts))
        addresses = [t.data_ptr() for t in inner.state_tensors()]
        # The state after other prompts is forgotten.
        decoder.prefill(prompts.flip(1))
        ids = decoder.prefill(prompts)
        decoder.keep()
        inference: Any = inner._inference
        lengths = None if inference.lengths_per_sample is None else inference.lengths_per_sample.tolist()
        found[name] = {
            "ids": [first, continued(decoder, ids), *(continued(decoder, decoder.rewind()) for _ in "ab")],
            "stays": [t.data_ptr() for t in inner.state_tensors()] == addresses,
            "bytes": [decoder.state_bytes(), bytes_wanted(directory, decoder)],
            "tokens": decoder.state_tokens,
            "dtypes": sorted({str(t.dtype) for t in inner.state_tensors()}),
            "offset": inference.seqlen_offset,
            "lengths_after_prompt": lengths,
            "lengths_after_all": None if lengths is None else inference.lengths_per_sample.tolist(),
            "implementation": decoder.implementation,
            "disagreement": disagreement(decoder, theirs, forced, prompt_len_tokens=24),
        }
    return found


def main(directories: list[str]) -> None:
    """Put the stand-ins in place and decode each checkpoint."""
    hybrids_on_cpu.install()
    from mamba_ssm.modules import mamba2

    mamba2.selective_state_update = None
    with taped_kernels():
        print(json.dumps([decode(directory) for directory in directories]))


if __name__ == "__main__":
    main(sys.argv[1:])
