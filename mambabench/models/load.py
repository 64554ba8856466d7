"""From a checked plan to a model in memory.

Example:

    plan = check(resolve("mamba-tiny"))
    model = load(plan)
    model.logits(ids, keep=1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mambabench.checkpoint_files import CheckpointFiles
from mambabench.errors import CheckpointError, DeviceError, MambabenchError
from mambabench.models import architecture, convert, hybrid_shapes, official
from mambabench.models.check import check
from mambabench.models.device import device_name
from mambabench.models.gguf_files import forget_readers, gguf_reading
from mambabench.models.hybrid_init import random_state
from mambabench.models.kernel_paths import keep_cpu_on_torch, kernel_path
from mambabench.models.plan import CheckpointPlan, Implementation
from mambabench.models.quiet import quiet
from mambabench.models.record import FP32_NAMES, UNSHIPPED, count_parameters, dtype_groups
from mambabench.models.weights import read_state
from mambabench.schema import CheckpointRecord

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel

__all__ = ["CheckpointPlan", "check", "load"]


def load(plan: CheckpointPlan) -> LoadedModel:
    """Read or make the weights and return the model, ready to score.

    Args:
        plan: as `check` returns it.

    Raises:
        CheckpointError: the weights do not fit the configuration.
        DeviceError: they do not fit into the GPU's memory.
        ExtraMissingError: a package that the model needs cannot be imported.
    """
    try:
        with quiet():
            return _LOADERS[plan.implementation](plan)
    except MambabenchError:
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(
            f"{plan.name} does not fit into the memory of {plan.device}",
            hint="Use a smaller model, `--dtype bfloat16`, or `--device cpu`.",
        ) from error
    except Exception as error:
        detail = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise CheckpointError(f"{plan.name} cannot be loaded: {detail}") from error


def _load_transformers(plan: CheckpointPlan) -> LoadedModel:
    from mambabench.models.steps import steps_for
    from mambabench.models.transformers_model import TransformersModel

    module = _build_transformers(plan, getattr(torch, plan.dtype)).to(plan.device)
    keep_cpu_on_torch(module)
    steps = steps_for(module, vocab_size=plan.vocab_size) if plan.engine == "shared" else None
    if steps is None:
        path = kernel_path(module, torch.device(plan.device).type)
        record = _record(plan, module.named_parameters(), f"transformers {type(module).__name__}", path)
    else:
        record = _record(
            plan, module.named_parameters(), f"mambabench {type(steps).__name__}", steps.kernel_path
        )
    return TransformersModel(module, plan.tokenizer, record, stateful=steps)


def _load_official(plan: CheckpointPlan) -> LoadedModel:
    from mambabench.models import official_steps
    from mambabench.models.official import OfficialModel

    config = plan.config
    state: dict[str, torch.Tensor] | None
    if plan.format == "mamba_ssm" and plan.weights == "pretrained" and plan.adapter is None:
        assert plan.source is not None
        state = read_state(plan.source.weights)
    elif plan.architecture is None:
        # What has no forward here has no initialiser here, either: mamba_ssm's own is used.
        known = not hybrid_shapes.obstacle(config)
        state = random_state(config, seed=plan.seed or 0, dtype=torch.float32) if known else None
    else:
        # Random weights and adapters come from transformers, so that both sides have the same ones.
        module = _build_transformers(plan, torch.float32)
        state = convert.to_mamba_ssm_state(module.state_dict())
        if plan.format == "transformers":
            translated = convert.to_mamba_ssm_config(plan.architecture.to_dict())
            assert translated is not None
            config = translated
    with _seeded(plan.seed or 0):
        built = official.build(
            config, state, device=torch.device(plan.device), dtype=getattr(torch, plan.dtype)
        )
    implementation, path = "mamba_ssm MambaLMHeadModel", official.kernel_path(built)
    steps, reference = None, None
    if plan.engine == "shared":
        steps = official_steps.steps_over(
            built,
            config,
            device=torch.device(plan.device),
            vocab_size=plan.vocab_size,
            dtype=getattr(torch, plan.dtype),
        )
    if steps is not None:
        reference = official_steps.reference_for(built, config, plan.architecture)
        implementation, path = f"mambabench {type(steps).__name__} over {implementation}", steps.kernel_path
    record = _record(plan, built.named_parameters(), implementation, path)
    return OfficialModel(built, plan.tokenizer, record, stateful=steps, reference=reference)


def _load_own(plan: CheckpointPlan) -> LoadedModel:
    """Load a model of mamba_ssm that transformers cannot run, where mamba_ssm's own code does not run."""
    from mambabench.models.step_hybrid import HybridSteps
    from mambabench.models.stepping_model import SteppingModel

    dtype: torch.dtype = getattr(torch, plan.dtype)
    if plan.weights == "random":
        state = random_state(plan.config, seed=plan.seed or 0, dtype=dtype)
    else:
        assert plan.source is not None
        state = read_state(plan.source.weights)
    # A tied head stands in a state dict beside the embedding, and positions' frequencies may, too.
    wanted = hybrid_shapes.parameter_shapes(plan.config)
    for name in wanted.keys() & state.keys():
        # One by one, so that no second copy of a whole checkpoint is held.
        kept = torch.float32 if name.rpartition(".")[2] in FP32_NAMES else dtype
        state[name] = state[name].to(device=plan.device, dtype=kept)
    steps = HybridSteps(plan.config, state, vocab_size=plan.vocab_size, dtype=dtype)
    parameters = {name: state[name] for name in wanted}
    record = _record(plan, parameters.items(), UNSHIPPED, steps.kernel_path)
    return SteppingModel(steps, plan.tokenizer, record)


_LOADERS: dict[Implementation, Callable[[CheckpointPlan], LoadedModel]] = {
    "transformers": _load_transformers,
    "mamba_ssm": _load_official,
    "mambabench": _load_own,
}


def _build_transformers(plan: CheckpointPlan, dtype: torch.dtype) -> Any:
    """Build the model on the CPU, with its weights and its adapter."""
    shape = plan.architecture
    assert shape is not None
    kind: Any = architecture.model_class(shape)
    if plan.weights == "random":
        with _seeded(plan.seed or 0):
            return _cast(kind(shape), dtype)
    assert plan.source is not None
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    with _recurrence_in_fp32(kind):
        if plan.format == "mamba_ssm":
            state = convert.to_transformers_state(read_state(plan.source.weights), plan.config)
            module, info = kind.from_pretrained(None, config=shape, state_dict=state, **options)
        elif plan.format == "gguf":
            file = plan.source.weights[0]
            with gguf_reading():
                module, info = kind.from_pretrained(str(file.parent), gguf_file=file.name, **options)
            forget_readers()
        else:
            module, info = kind.from_pretrained(
                str(plan.source.directory), config=shape, local_files_only=True, **options
            )
    _require_match(info)
    return module if plan.adapter is None else _merge(module, plan.adapter[0])


def _require_match(info: dict[str, Any]) -> None:
    """Refuse a checkpoint that transformers would fill up with random numbers."""
    missing, unexpected = info["missing_keys"], info["unexpected_keys"]
    if missing or unexpected:
        raise CheckpointError(official.describe_mismatch(sorted(missing), sorted(unexpected)))
    if info["mismatched_keys"]:
        first = sorted(str(entry) for entry in info["mismatched_keys"])[0]
        raise CheckpointError(f"the weights do not fit config.json: {first} has another shape")
    if info.get("error_msgs"):
        raise CheckpointError(f"the weights do not fit config.json: {info['error_msgs'][0]}")


def _merge(module: Any, files: CheckpointFiles) -> Any:
    """Fold an adapter into the weights, in their dtype."""
    from peft import PeftModel, get_peft_model_state_dict

    stored = read_state(files.weights)
    try:
        adapted: Any = PeftModel.from_pretrained(module, str(files.directory))
    except (ValueError, KeyError, RuntimeError) as error:
        detail = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise CheckpointError(f"the adapter does not fit its base model: {detail}") from error
    # With embedding layers asked for, peft would look the base model up on the Hub.
    used = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    surplus = {name for name in set(stored) - used if "embed" not in name and "lm_head" not in name}
    if odd := sorted((used - set(stored)) | surplus):
        raise CheckpointError(
            f"the adapter does not fit its base model: {len(odd)} parameters differ, first {odd[0]}"
        )
    if not hasattr(adapted, "merge_and_unload"):
        raise CheckpointError(
            f"adapters of type {files.config['peft_type']} cannot be merged into the weights"
        )
    return adapted.merge_and_unload()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's random numbers for a while; the caller's own go on as if nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _recurrence_in_fp32(kind: Any) -> Iterator[None]:
    """Let transformers read a recurrence in fp32 while the other weights get the run's dtype."""
    before = kind.__dict__.get("_keep_in_fp32_modules_strict")
    inherited = kind._keep_in_fp32_modules_strict or ()
    kind._keep_in_fp32_modules_strict = {*inherited, *FP32_NAMES}
    try:
        yield
    finally:
        if before is None:
            del kind._keep_in_fp32_modules_strict
        else:
            kind._keep_in_fp32_modules_strict = before


def _cast(module: Any, dtype: torch.dtype) -> Any:
    for name, parameter in module.named_parameters():
        keep = name.rpartition(".")[2] in FP32_NAMES
        parameter.data = parameter.data.to(torch.float32 if keep else dtype)
    return module


def _record(
    plan: CheckpointPlan, parameters: Iterable[tuple[str, torch.Tensor]], implementation: str, path: str
) -> CheckpointRecord:
    named = list(parameters)
    return CheckpointRecord(
        name=plan.name,
        family=plan.family,
        weights=plan.weights,
        seed=plan.seed,
        implementation=implementation,
        kernel_path=path,
        device=plan.device,
        device_name=device_name(plan.device),
        dtypes=dtype_groups(named),
        n_parameters=count_parameters(tensor for _, tensor in named),
        vocab_rows_stored=plan.rows_stored,
        vocab_rows_used=plan.vocab_size,
        max_length_tokens=plan.max_length,
        eos_ids=plan.eos_ids,
        tokenizer=plan.tokenizer_record,
        files=plan.files,
        config_sha256=plan.config_sha256,
        hub_id=plan.hub_id,
        revision=plan.revision,
        adapter=None if plan.adapter is None else plan.adapter[1],
    )
