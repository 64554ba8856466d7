"""What a user's `--model` means: a registered name, a Hub repository, or files on this machine.

Everything here is names, YAML and headers; no model library is imported, so a mistake is answered at once.

    >>> load_registry()["mamba-130m"].hub_id
    'state-spaces/mamba-130m'
    >>> resolve("hf:state-spaces/mamba-130m-hf@main").revision
    'main'
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from mambabench import checkpoint_files
from mambabench.assets import bundled_dir
from mambabench.checkpoint_files import CheckpointFiles
from mambabench.errors import CheckpointError, UnknownNameError, UsageError
from mambabench.schema import Record

_REGISTRY = Path(__file__).with_name("models.yaml")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REVISION = re.compile(r"[\w][\w./-]*")
_CACHE_FOLDER = re.compile(r"models--(.+)")

RefKind = Literal["registry", "hub", "mamba_ssm", "transformers", "gguf", "adapter"]


class ModelSpec(Record):
    """What is known of a registered model without loading anything."""

    name: str
    family: str
    """As transformers calls it: "mamba", "gpt_neox", ...; "transformer" and "hybrid" are mamba_ssm's own."""
    hub_id: str | None = None
    """Null for a bundled model."""
    format: Literal["mamba_ssm", "transformers"]
    config: dict[str, Any]
    """Configuration in that format, enough to build the architecture; a bundled model's is its own file's."""
    tokenizer: str
    """A Hub id, or "bundled"."""
    training_length_tokens: int
    """Length of the sequences that it was trained on. Published models are scored in windows of this length
    unless asked otherwise; bundled ones say in their own files how long theirs are."""
    bundled: bool = False
    published_as: str | None = None
    """Its name in the published figures; null when none are known."""
    n_parameters: int
    """Tied matrices once, padded vocabulary rows included; 0 for a bundled model whose files are absent."""


@dataclass(frozen=True)
class ModelRef:
    """What the user named, resolved as far as names and headers go.

    Attributes:
        text: as typed.
        name: short name for tables.
        spec: the registry's row, when it is a registered model.
        path: the directory or GGUF file; for a bundled model its folder.
        hub_id: the repository, when the files come from the Hub.
        revision: the commit, branch or tag asked for.
        kind: where and in which format the files are; a Hub repository's format is seen when it is fetched.
        base: for an adapter on this machine, the checkpoint under it.
    """

    text: str
    name: str
    kind: RefKind
    spec: ModelSpec | None = None
    path: Path | None = None
    hub_id: str | None = None
    revision: str | None = None
    base: ModelRef | None = None

    @property
    def slug(self) -> str:
        """The name as a file name: letters, digits, dots, dashes and underscores."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.name).lstrip(".") or "model"


@cache
def load_registry() -> dict[str, ModelSpec]:
    """Return every registered model by name, in the file's order."""
    rows = yaml.safe_load(_REGISTRY.read_text(encoding="utf-8"))
    return {name: _spec(name, dict(row)) for name, row in rows.items()}


def _spec(name: str, row: dict[str, Any]) -> ModelSpec:
    if row.get("bundled"):
        row |= _bundled_sizes(bundled_dir() / name)
    return ModelSpec(name=name, **row)


def _bundled_sizes(folder: Path) -> dict[str, Any]:
    sizes: dict[str, Any] = {"config": {}, "n_parameters": 0}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shapes = checkpoint_files.safetensors_shapes(folder / "model.safetensors")
    except (OSError, ValueError, CheckpointError):
        return sizes
    return {"config": config, "n_parameters": sum(math.prod(shape) for _, shape in shapes.values())}


def resolve(text: str, *, need_weights: bool = True) -> ModelRef:
    """Find out what `text` names.

    Args:
        text: a registered name, `hf:org/name`, either of them with `@revision`, or a path.
        need_weights: False for random weights, which need a directory's `config.json` only.

    Raises:
        UsageError: a malformed Hub id or revision, or a revision on something that has none.
        UnknownNameError: no such registered name and no such path; the closest names are offered.
        CheckpointError: the path holds no checkpoint, half of one, or a damaged one.
    """
    typed = text.strip()
    if not typed:
        raise UsageError("the model's name is empty", hint="`mambabench models` lists all.")
    if typed.startswith("hf:"):
        return _resolve_hub(typed)
    name, revision = _split_revision(typed)
    if not name:
        raise UsageError(
            f"'{typed}' names no model before its revision", hint="`mambabench models` lists all."
        )
    registry = load_registry()
    if name in registry:
        return _resolve_registered(typed, registry[name], revision)
    if (path := _existing(typed)) is not None:
        return from_files(typed, checkpoint_files.inspect_path(path, need_weights=need_weights))
    if revision is not None and _existing(name) is not None:
        raise UsageError(f"'{name}' is a path, and a path has no revisions", hint=f"Leave out '@{revision}'.")
    if _looks_like_path(typed):
        raise checkpoint_files.nothing_there(typed)
    raise _unknown(typed, name, list(registry))


def _unknown(typed: str, name: str, known: list[str]) -> UnknownNameError:
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return UnknownNameError(
            f"'{typed}' is neither a registered model nor a directory here",
            hint=f"A model on the Hugging Face Hub is written hf:{typed}. `mambabench models` lists names.",
        )
    return UnknownNameError.for_name("model", name, known)


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        # Too long for a name, no such user, or a character that no path has.
        return None


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or text.endswith((".gguf", "/"))


def _split_revision(text: str) -> tuple[str, str | None]:
    name, mark, revision = text.rpartition("@")
    return (name, revision) if mark else (text, None)


def _checked_revision(revision: str | None, text: str) -> str | None:
    if revision is None:
        return None
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise UsageError(
            f"'{text}' ends in a malformed revision '@{revision}'",
            hint="A revision is a branch, a tag or a commit, as in mamba-130m@main.",
        )
    return revision


def _resolve_registered(text: str, spec: ModelSpec, revision: str | None) -> ModelRef:
    revision = _checked_revision(revision, text)
    if spec.bundled:
        if revision is not None:
            raise UsageError(
                f"'{spec.name}' comes with the package and has no revisions",
                hint=f"Leave out '@{revision}'.",
            )
        return ModelRef(text, spec.name, "registry", spec=spec, path=bundled_dir() / spec.name)
    name = spec.name if revision is None else f"{spec.name}@{revision}"
    return ModelRef(text, name, "registry", spec=spec, hub_id=spec.hub_id, revision=revision)


def _resolve_hub(text: str) -> ModelRef:
    hub_id, revision = _split_revision(text.removeprefix("hf:"))
    revision = _checked_revision(revision, text)
    if not _HUB_ID.fullmatch(hub_id) or "--" in hub_id or ".." in hub_id:
        raise UsageError(
            f"'{text}' is no repository on the Hub",
            hint="It is written hf:org/name, with @revision if need be: hf:state-spaces/mamba-130m-hf@main.",
        )
    for spec in load_registry().values():
        if spec.hub_id == hub_id:
            return _resolve_registered(text, spec, revision)
    name = hub_id if revision is None else f"{hub_id}@{revision}"
    return ModelRef(text, name, "hub", hub_id=hub_id, revision=revision)


def from_files(text: str, files: CheckpointFiles) -> ModelRef:
    """Return the reference to a checkpoint found by `inspect_path`; an adapter's base is resolved too."""
    if files.kind == "gguf":
        return ModelRef(text, files.weights[0].stem, "gguf", path=files.weights[0])
    name = _directory_name(files.directory)
    base = _resolve_base(files) if files.kind == "adapter" else None
    return ModelRef(text, name, files.kind, path=files.directory, base=base)


def _directory_name(directory: Path) -> str:
    resolved = directory.resolve()
    # A snapshot in the Hub's cache is named by its commit; the repository stands two levels up.
    if resolved.parent.name == "snapshots" and (
        match := _CACHE_FOLDER.fullmatch(resolved.parent.parent.name)
    ):
        return match.group(1).replace("--", "/")
    return resolved.name or "model"


def _resolve_base(files: CheckpointFiles) -> ModelRef:
    named = files.config.get("base_model_name_or_path")
    where = files.directory / checkpoint_files.ADAPTER_CONFIG
    if not isinstance(named, str) or not named:
        raise CheckpointError(
            f"'{where}' does not name its base model", hint="Set base_model_name_or_path in it."
        )
    # An absolute path stays as it is.
    beside = _existing(str(files.directory / named))
    try:
        if beside is not None:
            base = from_files(named, checkpoint_files.inspect_path(beside))
        elif named in load_registry() or named.startswith("hf:") or _existing(named) is not None:
            base = resolve(named)
        elif _HUB_ID.fullmatch(named) and "/" in named:
            base = _resolve_hub(f"hf:{named}")
        else:
            raise CheckpointError(
                f"the adapter's base model '{named}' is not here",
                hint=f"Put the base's directory, a registered name or a Hub id into {where}.",
            )
    except UsageError as error:
        raise CheckpointError(f"'{where}' names the base model '{named}': {error.message}") from error
    if base.kind == "adapter":
        raise CheckpointError(f"'{where}' names another adapter as its base", hint="Merge that one first.")
    return base
