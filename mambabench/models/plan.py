"""A checkpoint that can be loaded: what `check` found out and `load` needs.

Example:

    plan = check(resolve("mamba-tiny"))
    plan.tokenizer, plan.max_length, plan.fingerprint
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mambabench.errors import UsageError
from mambabench.fingerprint import digest
from mambabench.models import convert
from mambabench.models.record import config_digest
from mambabench.registry import ModelRef, ModelSpec
from mambabench.schema import AdapterRecord, FileRecord, TokenizerRecord, WeightsKind

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from mambabench.checkpoint_files import CheckpointFiles

Format = Literal["mamba_ssm", "transformers", "gguf"]
Implementation = Literal["transformers", "mamba_ssm", "mambabench"]
Engine = Literal["shared", "as-shipped"]


def require_window(max_length: int | None) -> None:
    """Refuse a window, in tokens, that leaves nothing to predict.

    Raises:
        UsageError: shorter than 2.
    """
    if max_length is not None and max_length < 2:
        raise UsageError(
            f"a window of {max_length} tokens scores nothing", hint="Use --max-length 2 or more."
        )


@dataclass(frozen=True)
class CheckpointPlan:
    """A checkpoint that can be loaded, as far as names, headers and the tokenizer tell.

    Attributes:
        ref: what the user named.
        weights: "pretrained" or "random".
        seed: of random weights; None for pretrained ones.
        format: whose configuration `config` is.
        config: that configuration; for GGUF transformers' translation of it.
        architecture: transformers' configuration; None when transformers cannot run the model.
        source: the files on this machine; None for random weights of a registered model.
        files: the digests of weights and configuration; empty for random weights.
        tokenizer: loaded.
        eos_ids: ids that end a generated text, those that the checkpoint's own files name among them.
        rows_stored: vocabulary rows of the checkpoint.
        vocab_size: rows that can be predicted, one more than the tokenizer's largest id.
        max_length: longest window in tokens that is scored at once.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu" or "cuda:0".
        implementation: whose code holds the weights and is the shipped forward; "mambabench" where nothing
            shipped runs on the device.
        engine: "shared" goes on from states where there is code for it, "as-shipped" never does.
        adapter: an adapter's files and record, to be merged over the checkpoint.
    """

    ref: ModelRef
    weights: WeightsKind
    seed: int | None
    format: Format
    config: dict[str, Any] = field(repr=False)
    architecture: PretrainedConfig | None = field(repr=False)
    source: CheckpointFiles | None
    files: tuple[FileRecord, ...]
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    tokenizer_record: TokenizerRecord
    eos_ids: tuple[int, ...]
    rows_stored: int
    vocab_size: int
    max_length: int
    dtype: str
    device: str
    implementation: Implementation
    engine: Engine = "shared"
    hub_id: str | None = None
    revision: str | None = None
    adapter: tuple[CheckpointFiles, AdapterRecord] | None = None

    @property
    def name(self) -> str:
        """Short name for tables."""
        return self.ref.name

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return self.ref.slug

    @property
    def spec(self) -> ModelSpec | None:
        """The registry's row, when the model is registered."""
        return self.ref.spec

    @property
    def family(self) -> str:
        """The architecture's name in transformers' terms; "hybrid" is mamba_ssm's own."""
        if self.format == "mamba_ssm":
            return convert.family_of(self.config)
        return str(self.config.get("model_type", ""))

    @cached_property
    def config_sha256(self) -> str:
        """Digest of the architecture's configuration."""
        return config_digest(self.config)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything known before loading that changes results; names and places are left out."""
        adapter = self.adapter[1] if self.adapter else None
        return digest(
            {
                "weights": self.weights,
                "seed": self.seed,
                "config": self.config_sha256,
                "files": sorted(f.sha256 for f in self.files),
                "adapter": None if adapter is None else sorted(f.sha256 for f in adapter.files),
                "tokenizer": self.tokenizer_record.sha256,
                "eos_ids": self.eos_ids,
                "rows": [self.rows_stored, self.vocab_size],
                "max_length": self.max_length,
                "dtype": self.dtype,
                "device": self.device.partition(":")[0],
                "implementation": self.implementation,
                "engine": self.engine,
            }
        )
