"""From what the user named to files on this machine, an adapter's base included.

Example:

    located = locate(resolve("hf:state-spaces/mamba-130m-hf"), "pretrained")
    located.format, located.config["model_type"]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mambabench import checkpoint_files
from mambabench.checkpoint_files import CheckpointFiles
from mambabench.errors import CheckpointError, HubUnreachableError, UsageError
from mambabench.models import hub
from mambabench.models.plan import Format
from mambabench.registry import ModelRef, ModelSpec, from_files, load_registry
from mambabench.schema import WeightsKind


@dataclass(frozen=True)
class Located:
    """A checkpoint's files before its tokenizer and sizes are looked at.

    Attributes:
        format: whose configuration `config` is.
        config: the native configuration; empty for GGUF.
        files: on this machine; without weights until `with_weights`, None where only the registry is needed.
        spec: the registry's row for it.
        snapshot: the Hub's snapshot that the files belong to.
        adapter: the files of an adapter over it.
    """

    format: Format
    config: dict[str, Any]
    files: CheckpointFiles | None
    spec: ModelSpec | None = None
    snapshot: hub.Snapshot | None = None
    adapter: CheckpointFiles | None = None

    @property
    def gguf(self) -> Path | None:
        """The GGUF file, when it is one."""
        return self.files.weights[0] if self.files is not None and self.format == "gguf" else None


def locate(ref: ModelRef, weights: WeightsKind) -> Located:
    """Find the files; from the Hub only the small ones are fetched.

    Raises:
        UsageError: random weights under an adapter or from GGUF.
        CheckpointError: half a checkpoint, or a damaged one.
        HubUnreachableError: not on this machine, and the Hub does not answer.
    """
    spec = ref.spec
    if spec is not None and spec.bundled:
        return _bundled(ref, spec, weights)
    if spec is not None and weights == "random":
        return Located(spec.format, spec.config, None, spec=spec)
    if ref.hub_id is not None:
        return _from_hub(ref, weights)
    if ref.path is None:
        raise CheckpointError(f"{ref.name} has no files")
    return _from_files(
        checkpoint_files.inspect_path(ref.path, need_weights=weights == "pretrained"), ref, weights
    )


def with_weights(located: Located) -> Located:
    """Fetch what is still on the Hub and look at all weight files' headers.

    Raises:
        CheckpointError: half a checkpoint, or a damaged one.
        HubUnreachableError: the download broke off.
    """
    if located.snapshot is not None:
        hub.fetch_weights(located.snapshot)
    if located.files is None or located.format == "gguf":
        return located
    return replace(located, files=checkpoint_files.inspect_path(located.files.directory))


def _bundled(ref: ModelRef, spec: ModelSpec, weights: WeightsKind) -> Located:
    if ref.path is None or not ref.path.is_dir():
        raise CheckpointError(
            f"the bundled model {spec.name} is not in this installation", hint="Install mambabench again."
        )
    files = checkpoint_files.inspect_path(ref.path, need_weights=weights == "pretrained")
    return Located(spec.format, files.config, files, spec=spec)


def _from_hub(ref: ModelRef, weights: WeightsKind) -> Located:
    assert ref.hub_id is not None
    need: hub.Need = "checkpoint" if weights == "pretrained" else "config"
    snapshot = hub.find(ref.hub_id, ref.revision, need=need)
    if (snapshot.directory / checkpoint_files.ADAPTER_CONFIG).is_file():
        # An adapter is small, and its base stands in its configuration.
        hub.fetch_weights(snapshot)
        return _from_files(checkpoint_files.inspect_path(snapshot.directory), ref, weights)
    files = checkpoint_files.inspect_path(snapshot.directory, need_weights=False)
    located = _from_files(files, ref, weights)
    spec = ref.spec or next((s for s in load_registry().values() if s.hub_id == ref.hub_id), None)
    return replace(located, spec=spec, snapshot=snapshot)


def _from_files(files: CheckpointFiles, ref: ModelRef, weights: WeightsKind) -> Located:
    if files.kind == "adapter":
        if weights == "random":
            raise UsageError(
                f"{ref.name} is an adapter, and random weights have none", hint="Name its base model instead."
            )
        base = ref.base or from_files(ref.text, files).base
        assert base is not None
        return replace(_locate_base(base, files.directory / checkpoint_files.ADAPTER_CONFIG), adapter=files)
    if files.kind == "gguf":
        if weights == "random":
            raise UsageError("random weights cannot be built from a GGUF file", hint="Name a directory.")
        return Located("gguf", {}, files)
    return Located(files.kind, files.config, files)


def _locate_base(base: ModelRef, named_in: Path) -> Located:
    try:
        return locate(base, "pretrained")
    except HubUnreachableError as error:
        raise HubUnreachableError(
            f"the adapter's base model {error.message}",
            hint=f"Download it elsewhere with `hf download {base.hub_id}` and write its directory as "
            f"base_model_name_or_path into {named_in}, or set HF_HOME to a cache that has it.",
        ) from error
