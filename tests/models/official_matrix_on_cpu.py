"""Load checkpoints into mamba_ssm's own Python code on a CPU, as on a GPU, and hold it against 64 bits.

Not a test by itself: `test_official.py` starts it in a process of its own, because stand-ins for the CUDA
functions must be in place before `mamba_ssm` and transformers are imported. Reads from its standard input an
object with "cases", directories and dtypes by name, and "shapes", configurations by name, and prints what it
found for each.

    python official_matrix_on_cpu.py < asked.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import hybrids_on_cpu
import torch

ROWS, LENGTH, NEW = 3, 17, 9


def loaded(directory: str, dtype: str, **options: Any) -> Any:
    """Return a checkpoint in mamba_ssm's model, with steps over its weights."""
    from mambabench.models.load import check, load
    from mambabench.registry import resolve

    plan = check(resolve(directory), device="cpu", dtype=dtype, **options)
    model: Any = load(dataclasses.replace(plan, implementation="mamba_ssm"))
    # Rows that only pad the vocabulary would win, if anything looked at them.
    model.module.lm_head.weight.data[model.vocab_size :] = 1e3 * model.module.backbone.norm_f.weight.data
    return model


def is_rounded_once(model: Any, directory: str) -> bool:
    """Tell whether every parameter is the stored one in its own dtype, without a narrower one in between."""
    from mambabench.models import convert
    from mambabench.models.locate import locate
    from mambabench.models.weights import read_state
    from mambabench.registry import resolve

    files = locate(resolve(directory), "pretrained").files
    assert files is not None
    stored = convert.to_mamba_ssm_state(read_state(files.weights))
    padded = ("lm_head.weight", "backbone.embedding.weight")
    return all(
        torch.equal(parameter, stored[name].to(parameter.dtype))
        for name, parameter in model.module.named_parameters()
        if name not in padded
    )


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the root of the mean squared difference, in standard deviations of what is exact."""
    return float((got.double() - exact).square().mean().sqrt() / exact.std())


def continued(model: Any, ids: torch.Tensor, eos_ids: Sequence[int] = (), *, do_sample: bool = False) -> Any:
    """Return what it generates, or why it refuses to."""
    from mambabench.errors import UsageError
    from mambabench.models.base import SamplingOptions

    try:
        return model.generate(
            ids, max_new_tokens=NEW, options=SamplingOptions(do_sample=do_sample), eos_ids=eos_ids,
            stop=lambda row, new_ids: row == 2 and len(new_ids) == 4,
        )  # fmt: skip
    except UsageError as refused:
        return str(refused)


def unguarded(model: Any, ids: torch.Tensor) -> Any:
    """Return what it would generate where it refuses to, or the class of what is raised."""
    from mambabench.models import official

    guard, official.steps_differ = official.steps_differ, lambda module: ""
    try:
        return continued(model, ids)
    except AssertionError as error:
        return type(error).__name__
    finally:
        official.steps_differ = guard


def by_whole_forwards(model: Any, ids: torch.Tensor) -> list[list[int]]:
    """Return the best continuations, each token from a forward over everything before it."""
    for _ in range(NEW):
        ids = torch.cat([ids, model.logits(ids, 1)[:, -1].argmax(-1, keepdim=True)], dim=1)
    found: list[list[int]] = ids[:, -NEW:].tolist()
    return found


def examine(directory: str, dtype: str) -> dict[str, Any]:
    """Compare one checkpoint in one dtype with its forward in 64 bits."""
    from mambabench.models import official
    from mambabench.models.certificate import measure
    from mambabench.models.record import FP32_NAMES
    from mambabench.models.wide_forward import wide_logits

    model = loaded(directory, dtype)
    ids = torch.randint(0, model.vocab_size, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    exact = wide_logits(model.reference, ids, keep=LENGTH, vocab_size=model.vocab_size)
    whole = model.logits(ids, LENGTH)
    steps = model.stateful.step(ids.flatten(), [LENGTH] * ROWS)
    before = set(vars(model.module))
    texts: dict[str, Any] = {}
    if dtype == "float32":
        best = by_whole_forwards(model, ids)
        texts = {"best": [*best[:2], best[2][:4]], "ours": continued(model, ids)}
        texts["unguarded"] = unguarded(model, ids)
        texts["ended"] = continued(model, ids, eos_ids=[best[0][3]])
    parted = in_parts(model, ids)
    kept = {name.rpartition(".")[2]: str(p.dtype) for name, p in model.module.named_parameters()}
    return {
        "error": error(whole, exact),
        "steps_error": error(model.stateful.logits(steps.hidden).view_as(whole), exact),
        "last_error": error(model.logits(ids, 5), whole[:, -5:].double()),
        "parted_error": error(parted[0], whole.double()),
        "parted_text_is_the_same": not texts or parted[1] == texts["ours"],
        "one_prompt_drawn": parted[2],
        "shape": list(model.logits(ids, 5).shape),
        "recurrence": sorted({kept[name] for name in FP32_NAMES & set(kept)}),
        "others": sorted({dtype for name, dtype in kept.items() if name not in FP32_NAMES}),
        "texts": texts,
        "left_on_module": sorted(set(vars(model.module)) - before),
        "rounded_once": is_rounded_once(model, directory),
        "tied": model.module.lm_head.weight is model.module.backbone.embedding.weight,
        "reference": type(model.reference).__name__,
        "certificate": measure(model).model_dump(mode="json"),
        "implementation": model.record.implementation,
        "shipped_kernels": official.kernel_path(model.module),
    }


def in_parts(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, Any, Any]:
    """Return logits, texts and texts drawn for one prompt, where two rows may be forwarded at once."""
    from mambabench.models.launch_limits import Bound, LaunchLimits

    before, model.limits = model.limits, LaunchLimits((Bound("a test's tensor", 1, 1, 2 * LENGTH),))
    of_one = continued(model, ids[:1].expand(4, -1), do_sample=True)
    found = model.logits(ids, LENGTH), continued(model, ids), of_one
    model.limits = before
    return found


def bounds(config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return what bounds a forward of a configuration on CUDA."""
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    from mambabench.models.launch_limits import limits_of

    with torch.device("meta"):
        module = MambaLMHeadModel(MambaConfig(**config))
    return [dataclasses.astuple(bound) for bound in limits_of(module, torch.device("cuda")).bounds]


def transformers_on_cpu(directory: str) -> str:
    """Return whose code computes the scan of a model of transformers, where mamba_ssm can be imported."""
    from mambabench.models.load import check, load
    from mambabench.registry import resolve

    return load(check(resolve(directory), device="cpu")).record.kernel_path


def main() -> None:
    """Put the stand-ins in place and examine each case."""
    hybrids_on_cpu.install()
    from mamba_ssm.modules import mamba2
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update_ref

    # Its own Python code for a step knows one group of heads only.
    mamba2.selective_state_update = selective_state_update_ref
    asked = json.load(sys.stdin)
    found = {
        "cases": {name: examine(case["directory"], case["dtype"]) for name, case in asked["cases"].items()},
        "bounds": {name: bounds(config) for name, config in asked["shapes"].items()},
        "kernel_path": transformers_on_cpu(next(iter(asked["cases"].values()))["directory"]),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
