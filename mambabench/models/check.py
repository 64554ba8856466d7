"""Everything that can be wrong with a checkpoint, found before a weight is read.

Example:

    plan = check(resolve("mamba-tiny"))
    plan.tokenizer, plan.max_length, plan.fingerprint
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mambabench.checkpoint_files import CONFIG, CheckpointFiles
from mambabench.errors import CheckpointError, ExtraMissingError
from mambabench.kernels.packed import obstacle as kernels_obstacle
from mambabench.models import architecture, convert, hashing, hub, hybrid_shapes, official
from mambabench.models import tokenizer as tokenizers
from mambabench.models.device import capability_of, pick_device, pick_dtype
from mambabench.models.locate import Located, locate, with_weights
from mambabench.models.plan import CheckpointPlan, Engine, Implementation, require_window
from mambabench.models.weights import embedding_shape, tensor_shapes
from mambabench.registry import ModelRef
from mambabench.schema import AdapterRecord, TokenizerRecord, WeightsKind

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


_FALLBACK_LENGTH_TOKENS = 2048
# Rows that the models trained with the GPT-NeoX tokenizer have, padded or not.
_NEOX_ROWS = range(50277, 50305)


def check(
    ref: ModelRef,
    *,
    weights: WeightsKind = "pretrained",
    dtype: str = "auto",
    device: str = "auto",
    seed: int = 0,
    max_length: int | None = None,
    tokenizer: str | None = None,
    engine: Engine = "shared",
    located: Located | None = None,
    need_tokenizer: bool = True,
) -> CheckpointPlan:
    """Find a checkpoint's files, look at their headers, load its tokenizer and hash it.

    Weights that are on the Hub only are downloaded, but none is read.

    Args:
        ref: as `mambabench.registry.resolve` returns it.
        weights: "random" builds the architecture with seeded weights.
        dtype: "auto", "float32", "bfloat16", "float16" or an abbreviation.
        device: "auto", "cpu", "cuda" or "cuda:1".
        seed: of random weights.
        max_length: longest window in tokens; by default the length that the model was trained on.
        tokenizer: a directory or Hub id to take the tokenizer from instead.
        engine: "shared" or "as-shipped"; see `CheckpointPlan.engine`.
        located: what `locate(ref, weights)` returned, where that was asked before.
        need_tokenizer: False where ids are made up, as for timing; none is looked for then.

    Raises:
        UsageError: an argument's value.
        DeviceError: the device cannot be used.
        CheckpointError: half a checkpoint, a damaged or unsafe one, or a tokenizer that does not fit.
        HubUnreachableError: something is not on this machine and the Hub does not answer.
        ExtraMissingError: only mamba_ssm on a GPU can run it, or run it as shipped; a GPU's kernels lack
            something; or mamba_ssm is installed and does not import, or is too old.
    """
    require_window(max_length)
    pick_dtype(dtype, device="cpu", stored="")  # a mistyped one is reported before the Hub is asked
    chosen_device = pick_device(device)
    located = located or locate(ref, weights)
    implementation = _implementation(located, chosen_device, engine)
    if implementation == "mamba_ssm":
        official.require()
    where = CONFIG if located.files is None else located.files.directory / CONFIG
    shape = architecture.from_native(located.format, located.config, located.gguf, where=where)
    config = located.config if shape is None or located.format == "mamba_ssm" else shape.to_dict()
    rows = convert.stored_rows(config) if shape is None else architecture.vocab_rows(shape)
    loaded, record = _tokenizer(located, tokenizer, rows) if need_tokenizer else _no_tokenizer(config, rows)
    if record.n_tokens > rows:
        raise CheckpointError(
            f"the tokenizer of {ref.name} is larger than its embedding: {record.n_tokens} ids, {rows} rows",
            hint="They do not belong together; name the right one with `--tokenizer DIR`.",
        )
    stored_dtype = ""
    if weights == "pretrained":
        located = with_weights(located)
        stored_dtype = _check_weights(located, rows)
    capability = capability_of(chosen_device)
    chosen_dtype = pick_dtype(dtype, device=chosen_device, stored=stored_dtype, capability=capability)
    source = located.files
    hashed = source.all_files if weights == "pretrained" and source is not None else ()
    return CheckpointPlan(
        ref=ref,
        weights=weights,
        seed=seed if weights == "random" else None,
        format=located.format,
        config=config,
        architecture=shape,
        source=source,
        files=hashing.file_records(hashed, root=source.directory) if source is not None else (),
        tokenizer=loaded,
        tokenizer_record=record,
        eos_ids=_eos_ids(loaded, config, source) if need_tokenizer else (),
        rows_stored=rows,
        vocab_size=record.n_tokens,
        max_length=max_length or _default_length(located, shape, loaded),
        dtype=chosen_dtype,
        device=chosen_device,
        implementation=implementation,
        engine=engine,
        hub_id=located.snapshot.hub_id if located.snapshot else None,
        revision=located.snapshot.commit if located.snapshot else None,
        adapter=None if located.adapter is None else (located.adapter, _adapter(ref, located.adapter)),
    )


def _implementation(located: Located, device: str, engine: Engine) -> Implementation:
    """Decide whose code runs the model: mamba_ssm's kernels where they are, else transformers or our own."""
    on_gpu = device.startswith("cuda") and official.is_installed()
    if located.format == "mamba_ssm":
        reason = convert.needs_official(located.config)
        if reason and located.adapter is not None:
            raise CheckpointError(
                f"the adapter cannot be merged into its base model, which transformers cannot run: {reason}",
                hint="Merge it where it was trained, and name the directory of the merged model.",
            )
        if reason and not on_gpu:
            _require_own_steps(located, device, engine, reason)
            return "mambabench"
    if located.format == "gguf" or not on_gpu:
        return "transformers"
    config = located.config
    if located.format == "transformers":
        # Which refuses, with words, what makes no sense.
        shape = architecture.from_native(located.format, config)
        config = {} if shape is None else shape.to_dict()
    return "mamba_ssm" if convert.runs_in_mamba_ssm(located.format, config) else "transformers"


def _require_own_steps(located: Located, device: str, engine: Engine, reason: str) -> None:
    """Refuse what mamba_ssm on a GPU alone can run: no kernels here, or a forward that is not known here."""
    obstacle = hybrid_shapes.obstacle(located.config)
    way_out = "Install `mambabench[cuda]` on a machine with an NVIDIA GPU and pass `--device cuda`."
    if device.startswith("cuda"):
        lacking = kernels_obstacle(device)
        if obstacle:
            why, hint = obstacle, "Install `mambabench[cuda]`."
        elif lacking:
            why, hint = f"{reason}; {lacking}", "`--device cpu` runs it without mamba-ssm."
        elif engine == "as-shipped":
            why, hint = reason, "`--engine shared` runs it without mamba-ssm."
        else:
            return
        raise ExtraMissingError(
            f"this checkpoint needs mamba-ssm on a GPU, and mamba-ssm is not installed: {why}", hint=hint
        )
    if obstacle:
        raise ExtraMissingError(
            f"this checkpoint runs only in mamba-ssm on a CUDA GPU, and this is a CPU run: {obstacle}",
            hint=way_out,
        )
    if engine == "as-shipped":
        raise ExtraMissingError(
            f"this checkpoint's shipped code is mamba-ssm, which needs a CUDA GPU: {reason}",
            hint=f"`--engine shared` runs it on a CPU. {way_out}",
        )


def _tokenizer(
    located: Located, wanted: str | None, rows: int
) -> tuple[PreTrainedTokenizerBase, TokenizerRecord]:
    if wanted is not None:
        directory, source = tokenizers.locate(wanted)
        return tokenizers.load_tokenizer(directory, source=source)
    if located.gguf is not None:
        return tokenizers.load_tokenizer(
            located.gguf.parent, source="checkpoint", gguf_file=located.gguf.name
        )
    beside = located.files.directory if located.files is not None else None
    if beside is not None and hub.has_tokenizer(beside):
        bundled = located.spec is not None and located.spec.bundled
        return tokenizers.load_tokenizer(beside, source="bundled" if bundled else "checkpoint")
    hub_id = located.spec.tokenizer if located.spec is not None else ""
    if not hub_id and located.format == "mamba_ssm" and rows in _NEOX_ROWS:
        hub_id = tokenizers.DEFAULT_MAMBA_TOKENIZER
    if not hub_id or hub_id == "bundled":
        raise CheckpointError(
            f"'{beside}' has no tokenizer",
            hint=f"Looked for {', '.join(hub.TOKENIZER_CORE)}. Name one with `--tokenizer DIR`.",
        )
    snapshot = hub.find(hub_id, None, need="tokenizer")
    return tokenizers.load_tokenizer(snapshot.directory, source=hub_id)


def _no_tokenizer(config: dict[str, Any], rows: int) -> tuple[PreTrainedTokenizerBase, TokenizerRecord]:
    """Stand in for a tokenizer that nothing is encoded with: every id that the model knows may occur."""
    from mambabench.models.fake import byte_tokenizer

    # mamba_ssm's configurations count the rows without padding.
    n_tokens = min(rows, int(config.get("vocab_size", rows)))
    return byte_tokenizer(), TokenizerRecord(source="none", sha256="", n_tokens=n_tokens)


def _check_weights(located: Located, rows: int) -> str:
    """Look at the weight files' headers; return the dtype that the embedding is stored in."""
    if located.files is None or located.format == "gguf":
        return ""
    found = embedding_shape(tensor_shapes(located.files.weights))
    if found is None:
        return ""
    stored_dtype, (stored_rows, _) = found
    if stored_rows != rows:
        raise CheckpointError(
            f"'{located.files.directory}' contradicts itself: config.json means {rows} vocabulary rows, "
            f"the weights have {stored_rows}"
        )
    return stored_dtype


def _eos_ids(
    tokenizer: PreTrainedTokenizerBase, config: dict[str, Any], source: CheckpointFiles | None
) -> tuple[int, ...]:
    return tokenizers.eos_ids(tokenizer, config, None if source is None else source.directory)


def _adapter(ref: ModelRef, files: CheckpointFiles) -> AdapterRecord:
    tensor_shapes(files.weights)
    return AdapterRecord(
        name=ref.name,
        peft_type=str(files.config["peft_type"]),
        base_model=str(files.config["base_model_name_or_path"]),
        merged=True,
        files=hashing.file_records(files.all_files, root=files.directory),
    )


def _default_length(
    located: Located, shape: PretrainedConfig | None, tokenizer: PreTrainedTokenizerBase
) -> int:
    if located.spec is not None and not located.spec.bundled:
        return located.spec.training_length_tokens
    if positions := architecture.trained_positions(shape):
        return positions
    # transformers writes 1e30 where no length was given.
    length = tokenizer.model_max_length
    return int(length) if 0 < length < 1e9 else _FALLBACK_LENGTH_TOKENS
