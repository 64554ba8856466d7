"""The records written to disk: frozen, versioned, with units in their names.

Every file under a run directory holds one of these as JSON. A reader of an older file checks
`schema_version`; a field is never renamed or given another meaning without raising it.

    >>> FileRecord(name="model.safetensors", size_bytes=12, sha256="00").model_dump()["size_bytes"]
    12
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

CellStatus = Literal["ok", "failed"]
WeightsKind = Literal["pretrained", "random"]
Unit = Literal["fraction", "perplexity", "bits_per_byte", "score", "nats", "rank"]


class Record(BaseModel):
    """Base of all records: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Record):
    """One file that a result depends on."""

    name: str
    """Name relative to the checkpoint or data directory; never an absolute path."""
    size_bytes: int
    sha256: str
    """Lower-case hexadecimal digest of the whole file."""


class TokenizerRecord(Record):
    """The tokenizer that turned text into ids."""

    source: str
    """Where it came from: "bundled", a Hub id, "checkpoint" when it lay beside the weights, or "none" where
    no text was encoded."""
    sha256: str
    """Digest of its canonical serialisation, so that equal tokenizers compare equal."""
    n_tokens: int
    """One more than the largest id it can produce."""


class AdapterRecord(Record):
    """A PEFT adapter applied over the checkpoint."""

    name: str
    peft_type: str
    """For example "LORA"."""
    base_model: str
    """The base that the adapter's own configuration names."""
    merged: bool
    """Whether the adapter was folded into the weights before anything was scored."""
    files: tuple[FileRecord, ...]


class CertificateKindRecord(Record):
    """One way of using the fast path: the errors of its logits and of the shipped model's, side by side.

    Errors are in the unit of the logits. Over several rounds they are geometric means of the rounds' errors.
    """

    kind: str
    """"whole", "from a state" or "token by token"."""
    n_tokens: int
    """Positions compared."""
    rms_error: float
    """Root of the mean squared difference of the fast path's logits from the reference's."""
    max_error: float
    """Largest absolute difference, over all rounds."""
    shipped_rms_error: float
    """The same of the model as shipped, at the same positions."""
    shipped_max_error: float
    rounding_rms_error: float
    """What rounding the reference's logits to the run's dtype costs: nothing that uses it errs less."""
    ratio: float
    """`rms_error` over `shipped_rms_error`, the latter at least twice `rounding_rms_error`."""


class CertificateRecord(Record):
    """How the fast path compared with the model as shipped, before a run."""

    fast_path: str
    """What computes the fast path's scan or attention."""
    shipped_path: str
    """Class that was compared with, for example "transformers MambaForCausalLM"."""
    dtype: str
    """Of the run, for example "float32"."""
    reference: str
    """What both errors are measured against."""
    kinds: tuple[CertificateKindRecord, ...]
    n_tokens: int
    """Positions compared, all kinds and rounds together."""
    n_rounds: int
    """Sets of sequences: one, and more where the first left a doubt."""
    ratio: float
    """The largest of the kinds' ratios."""
    bar: float
    """Largest ratio that passes."""
    passed: bool
    wall_s: float
    """What the comparison took when it was made."""
    made_utc: str
    """ISO 8601, seconds."""
    cached: bool = False
    """Whether it was made by an earlier run with equal weights, code, packages and processor."""


class CheckpointRecord(Record):
    """What was loaded, in enough detail to load the same again."""

    name: str
    """What the user named, shortened for tables."""
    family: str
    """"mamba", "mamba2", "gpt_neox", "llama", ...: the architecture's name in transformers' terms."""
    weights: WeightsKind
    seed: int | None = None
    """Seed of random weights; null for pretrained ones."""
    implementation: str
    """Class that runs the forward, for example "transformers MambaForCausalLM"."""
    kernel_path: str
    """What computes the scan or the attention, for example "transformers torch loop" or "torch sdpa"."""
    device: str
    """"cpu" or "cuda:0"."""
    device_name: str
    """The processor or the GPU by its product name."""
    dtypes: dict[str, str]
    """Parameter group to dtype; groups are "matmul", "norm", "embedding", "A_log", "D"."""
    n_parameters: int
    """Tied parameters counted once."""
    vocab_rows_stored: int
    """Rows of the output projection in the checkpoint."""
    vocab_rows_used: int
    """Rows that take part in every softmax: padded rows are excluded."""
    max_length_tokens: int
    """Longest window that is scored at once."""
    eos_ids: tuple[int, ...] = ()
    """Ids that end a generated text: the tokenizer's own and those that the checkpoint names."""
    tokenizer: TokenizerRecord
    files: tuple[FileRecord, ...]
    """Weight and configuration files; empty for random weights."""
    config_sha256: str = ""
    """Digest of the architecture's configuration: with the seed it determines random weights."""
    hub_id: str | None = None
    revision: str | None = None
    """Commit of the Hub snapshot, or the revision asked for."""
    adapter: AdapterRecord | None = None
    certificate: CertificateRecord | None = None
    """The fast path's comparison with the model as shipped; null when there was none."""


class DataFileRecord(Record):
    """One split of a task's data."""

    split: str
    source: Literal["data-dir", "bundled", "hub", "generated"]
    """"generated": the task makes its own rows."""
    name: str
    """File relative to the data directory, or the Hub's data set id and configuration."""
    n_rows: int
    sha256: str
    """Digest of the file, or of the rows' canonical JSON when they came through the Hub's cache."""


class MetricRecord(Record):
    """One metric of one cell with its uncertainty."""

    metric: str
    """lm-eval's name, for example "acc_norm"."""
    filter: str = "none"
    """lm-eval's filter pipeline that produced the scored answer."""
    value: float
    """In lm-eval's unit: accuracies lie between 0 and 1."""
    unit: Unit
    interval_low: float | None = None
    """Lower end of the 95% interval; null when the items do not determine one."""
    interval_high: float | None = None
    interval_method: str = ""
    """For example "wilson" or "t on mean log-likelihood"."""
    n: int
    """Items the value is over."""
    higher_is_better: bool = True


class TaskRecord(Record):
    """What was asked: everything of a task that its result depends on."""

    task: str
    """lm-eval's task name."""
    group: str = ""
    """The suite's task that this one is pooled into, when the suite names a group of tasks."""
    version: str
    """The version in the task's YAML."""
    config_sha256: str
    """Digest of the task's configuration: a changed prompt template changes it."""
    output_type: str
    n_fewshot: int
    n_docs: int
    """Documents that were scored."""
    n_docs_total: int
    """Documents that the split holds."""
    requests_sha256: str
    """Digest over every request's text in order."""
    data: tuple[DataFileRecord, ...]


class CellRecord(Record):
    """One (checkpoint, task): the unit of reporting."""

    schema_version: int = SCHEMA_VERSION
    fingerprint: str
    """Digest of everything the result depends on; equal fingerprints mean an equal result."""
    checkpoint_fingerprint: str
    model: str
    task: TaskRecord
    status: CellStatus
    partial: bool
    """True when only some documents were scored (`--limit`); such a cell never gets a verdict."""
    metrics: tuple[MetricRecord, ...] = ()
    n_requests: int = 0
    n_requests_answered_before: int = 0
    """Requests whose answers an earlier, interrupted run had left."""
    n_tokens_forwarded: int = 0
    """Padding included; what tasks share counts for the first of them."""
    wall_s: float = 0.0
    """Time for this cell; of the time for questions asked together, its share of the tokens."""
    error: str = ""
    warnings: tuple[str, ...] = ()


class SettingsRecord(Record):
    """Options that change what is computed."""

    dtype: str
    device: str
    batch_size: int | None
    """Null when the batch size follows from the lengths."""
    limit: int | None
    """Documents per task; null for all."""
    apply_chat_template: bool = False
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = False
    seed: int = 0
    engine: str = "shared"
    """"shared": prefixes are forwarded once; "as-shipped": the plain forward of the model's library."""
    memory_budget_bytes: int | None = None
    """Room for states, activations and logits, on which batches depend; null for the default."""


class SpeedSettingsRecord(Record):
    """Options of a sweep that change what is measured; its points are in the replicates' records."""

    weights: WeightsKind
    seed: int
    dtype: str
    device: str
    prompt_len_tokens: tuple[int, ...]
    gen_len_tokens: tuple[int, ...]
    batch_size: tuple[int, ...]
    prefill_chunk_tokens: int | None = None
    arms: tuple[str, ...]
    attention: tuple[str, ...]
    repeats: int
    """Timed repeats in a process."""
    processes: int
    """Fresh processes for each point and arm."""
    max_time_s: float
    """Longest that a process repeats for."""
    budget_bytes: int | None = None
    """Emulated memory of the device; null for all of it."""
    text_sha256: str | None = None
    """Digest of the text that prompts are made of; null for random ids."""
    tokenizer: str | None = None
    """Another tokenizer than the models' own, for the text."""
    turn_len_tokens: int | None = None
    """Of the turn that follows a conversation's history; null for other sweeps."""
    n_forks: int | None = None
    """Continuations of a conversation's history; null for other sweeps."""
    verify: bool = True


class LongSettingsRecord(Record):
    """Options of a long-context run that change what is computed."""

    dtype: str
    device: str
    weights: WeightsKind
    seed: int
    lengths_tokens: tuple[int, ...] = ()
    """Lengths of recall samples and of contexts; empty where documents are taken as they are."""
    tasks: tuple[str, ...] = ()
    """Recall tasks."""
    n_samples: int | None = None
    """Samples of each recall task and length."""
    n_depths: int | None = None
    corpus_sha256: str | None = None
    """Digest of the text's documents; null without a text."""
    context: str | None = None
    """How documents are given, as `ContextRecord.label` says it; null where lengths are swept."""
    n_blocks: int | None = None
    target_tokens: int | None = None
    limit: int | None = None
    """Documents; null for all."""
    max_tokens: int | None = None
    """Of each document, from its beginning; null for all."""
    tokenizer: str | None = None
    engine: str = "shared"
    memory_budget_bytes: int | None = None
    verify: bool = True


class ImportSettingsRecord(Record):
    """Where results come from that another program computed."""

    format: Literal["lm-eval", "old lm-eval"]
    """"lm-eval": its results and samples files from version 0.4 on; "old lm-eval": one JSON file without
    samples, as its versions before 0.4 wrote it."""
    lm_eval_version: str = ""
    """As the files say; empty where they do not."""
    files: tuple[FileRecord, ...]
    """What was read."""
    limit: int | None = None
    """Documents per task; null for all."""


class ReadRecord(Record):
    """What is read of one task or group of a suite."""

    task: str
    """lm-eval's name."""
    metrics: tuple[str, ...]
    """The first one is the headline."""
    label: str = ""
    """Name in tables; empty for the task's own."""


class RunManifest(Record):
    """What a run is, written before anything is computed."""

    schema_version: int = SCHEMA_VERSION
    name: str
    kind: Literal[
        "zeroshot", "latency", "throughput", "memory", "conversation", "longcontext", "perplexity", "imported"
    ]
    command: tuple[str, ...]
    """The command line, with paths as they were typed."""
    created_utc: str
    """ISO 8601, seconds."""
    identity: str
    """Digest of models, suite and settings: the same command finds the same run by it."""
    suite: str
    suite_sha256: str
    models: tuple[str, ...]
    settings: SettingsRecord | SpeedSettingsRecord | LongSettingsRecord | ImportSettingsRecord
    partial: bool
    reads: tuple[ReadRecord, ...] = ()
    """Tasks in order with the metrics that tables read; empty where there are none, or in an older run."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Package versions, processor, GPU, driver, operating system, git commit where there is one."""
