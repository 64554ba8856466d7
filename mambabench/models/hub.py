"""The Hugging Face Hub: its local cache first, then one short question, then the download.

The Hub's own client repeats a failing question five times, 23 seconds in all. Here one question with a
deadline decides whether the Hub is there, and its answer holds for the whole process.

    snapshot = find("state-spaces/mamba-130m", None, need="checkpoint")
    fetch_weights(snapshot)
"""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mambabench import checkpoint_files
from mambabench.errors import CheckpointError, HubUnreachableError
from mambabench.models.quiet import download_bars

if TYPE_CHECKING:
    from mambabench.registry import ModelSpec

Need = Literal["checkpoint", "config", "tokenizer"]

_PROBE_S = 3.0
TOKENIZER_CORE = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json", "vocab.txt",
)  # fmt: skip
"""A directory with one of these has a tokenizer."""
_TOKENIZER_EXTRA = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_CONFIGS = (checkpoint_files.CONFIG, "generation_config.json", checkpoint_files.ADAPTER_CONFIG)
_LOOKED_FOR: dict[Need, str] = {
    "checkpoint": f"{checkpoint_files.CONFIG}, {', '.join(checkpoint_files.WEIGHT_NAMES)}",
    "config": checkpoint_files.CONFIG,
    "tokenizer": ", ".join(TOKENIZER_CORE),
}
_WAYS_OUT: dict[Need, str] = {
    "checkpoint": "pass the directory, or use `--weights random`",
    "config": "pass the directory",
    "tokenizer": "pass the directory with `--tokenizer DIR`",
}
_unreachable: dict[str, str] = {}


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository in the local cache.

    Attributes:
        directory: where the files fetched so far lie.
        commit: the full hash.
        remote_files: every file of the repository when the Hub was asked; empty when the cache sufficed.
    """

    hub_id: str
    directory: Path
    commit: str
    remote_files: tuple[str, ...] = field(default=())


def find(hub_id: str, revision: str | None, *, need: Need) -> Snapshot:
    """Find a repository in the cache, or ask the Hub and fetch its small files.

    Args:
        hub_id: "org/name".
        revision: branch, tag or commit; None for main.
        need: "checkpoint" for weights, configuration and tokenizer (weights follow by `fetch_weights`),
            "config" for the last two, "tokenizer" for the last.

    Raises:
        HubUnreachableError: not in the cache, and the Hub did not answer or must not be asked.
        CheckpointError: no such repository or revision, no access to it, or it lacks what is needed.
    """
    cached = _cached(hub_id, revision)
    if cached is not None and _suffices(cached, need):
        return Snapshot(hub_id, cached, cached.name)
    info = _probe(hub_id, revision, need)
    names = tuple(sorted(s.rfilename for s in (info.siblings or [])))
    wanted = _small_files(hub_id, names, need)
    # By its name, so that the cache learns which commit the name stands for; the weights follow by commit.
    directory = _download(hub_id, revision or "main", wanted)
    return Snapshot(hub_id, directory, directory.name, names)


def fetch_weights(snapshot: Snapshot) -> None:
    """Fetch the weights of a snapshot found with `need="checkpoint"`, safetensors where there are any."""
    if not snapshot.remote_files:
        return
    first = _first_weights(snapshot.remote_files)
    if first.endswith(".index.json"):
        index = checkpoint_files.read_json(snapshot.directory / first)
        wanted = sorted({str(name) for name in index.get("weight_map", {}).values()})
    else:
        wanted = [first]
    _download(snapshot.hub_id, snapshot.commit, wanted)


def files_on_machine(spec: ModelSpec) -> bool:
    """Tell whether a registered model's checkpoint can be loaded from this machine, without any download."""
    from mambabench.assets import bundled_dir

    if spec.bundled:
        return _suffices(bundled_dir() / spec.name, "checkpoint")
    return spec.hub_id is not None and is_on_machine(spec.hub_id, None)


def is_on_machine(hub_id: str, revision: str | None) -> bool:
    """Tell whether a repository's checkpoint lies in the local cache; the Hub is not asked."""
    directory = _cached(hub_id, revision)
    return directory is not None and _suffices(directory, "checkpoint")


def has_tokenizer(directory: Path) -> bool:
    """Tell whether a directory carries a tokenizer."""
    return any((directory / name).is_file() for name in TOKENIZER_CORE) or any(directory.glob("*.tiktoken"))


def _suffices(directory: Path, need: Need) -> bool:
    if need == "tokenizer":
        return has_tokenizer(directory)
    try:
        checkpoint_files.inspect_path(directory, need_weights=need == "checkpoint")
    except CheckpointError:
        return False
    return True


def _cached(hub_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in (*_CONFIGS, *TOKENIZER_CORE):
        found = try_to_load_from_cache(hub_id, name, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _small_files(hub_id: str, names: tuple[str, ...], need: Need) -> list[str]:
    tokenizer = [n for n in names if n in TOKENIZER_CORE + _TOKENIZER_EXTRA or n.endswith(".tiktoken")]
    if need == "tokenizer":
        if not any(n in TOKENIZER_CORE or n.endswith(".tiktoken") for n in tokenizer):
            raise CheckpointError(f"the repository {hub_id} has no tokenizer")
        return tokenizer
    if not {checkpoint_files.CONFIG, checkpoint_files.ADAPTER_CONFIG} & set(names):
        raise CheckpointError(
            f"the repository {hub_id} is no checkpoint in a known format",
            hint=f"Looked for {checkpoint_files.CONFIG} and {checkpoint_files.ADAPTER_CONFIG}. "
            "A GGUF file is downloaded by itself and passed by its path.",
        )
    small = [n for n in names if n in _CONFIGS] + tokenizer
    if need == "checkpoint":
        first = _first_weights(names)
        if not first:
            looked = ", ".join(checkpoint_files.WEIGHT_NAMES)
            raise CheckpointError(f"the repository {hub_id} has no weights", hint=f"Looked for {looked}.")
        if first.endswith(".index.json"):
            small.append(first)
    return small


def _first_weights(names: tuple[str, ...]) -> str:
    adapter = checkpoint_files.ADAPTER_CONFIG in names
    known = checkpoint_files.ADAPTER_WEIGHT_NAMES if adapter else checkpoint_files.WEIGHT_NAMES
    return next((name for name in known if name in names), "")


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _must_not_ask() -> bool:
    from huggingface_hub import constants

    # The client reads the variable once, when it is imported.
    said = os.environ.get("HF_HUB_OFFLINE", "").upper()
    return bool(constants.is_offline_mode()) or said in {"1", "ON", "YES", "TRUE"}


def _unreachable_error(hub_id: str, need: Need, why: str) -> HubUnreachableError:
    ask = "Unset HF_HUB_OFFLINE, or download" if _must_not_ask() else "Download"
    return HubUnreachableError(
        f"{hub_id} is not in the local cache and {why}",
        hint=f"Looked for {_LOOKED_FOR[need]}. {ask} it elsewhere with `hf download {hub_id}` and "
        f"{_WAYS_OUT[need]}, or set HF_HOME to a cache that has it.",
    )


def _probe(hub_id: str, revision: str | None, need: Need) -> Any:
    """Ask the Hub once what the repository holds; at most `_PROBE_S` and a little more."""
    endpoint = _endpoint()
    if _must_not_ask():
        raise _unreachable_error(hub_id, need, "the Hub must not be asked (HF_HUB_OFFLINE)")
    if endpoint in _unreachable:
        raise _unreachable_error(hub_id, need, _unreachable[endpoint])
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        from huggingface_hub import HfApi

        try:
            answers.put(HfApi(endpoint=endpoint).model_info(hub_id, revision=revision, timeout=_PROBE_S))
        except Exception as error:
            answers.put(error)

    # A thread, because a name server that does not answer is outside the client's own timeout.
    threading.Thread(target=ask, name="hub-probe", daemon=True).start()
    try:
        answer = answers.get(timeout=_PROBE_S + 0.5)
    except queue.Empty:
        answer = TimeoutError(f"no answer within {_PROBE_S:.0f} s")
    if isinstance(answer, Exception):
        raise _translated(answer, hub_id, revision, need) from answer
    return answer


def _translated(error: Exception, hub_id: str, revision: str | None, need: Need) -> Exception:
    from huggingface_hub import errors

    endpoint = _endpoint()
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{hub_id} is gated and this machine has no access to it",
            hint=f"Accept its terms at {endpoint}/{hub_id}, then run `hf auth login`.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{hub_id} has no revision '{revision}'")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"there is no repository {hub_id} on the Hub, or it is private",
            hint="Check the spelling; for a private one run `hf auth login`.",
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", "?")
        if status in (401, 403):
            return CheckpointError(
                f"the Hub refused access to {hub_id} (HTTP {status})", hint="Run `hf auth login`."
            )
        return _unreachable_error(hub_id, need, f"the Hub answered with HTTP {status}")
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    _unreachable[endpoint] = f"the Hub did not answer ({endpoint}: {detail})"
    return _unreachable_error(hub_id, need, _unreachable[endpoint])


def _download(hub_id: str, revision: str, names: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with download_bars():
            found = snapshot_download(hub_id, revision=revision, allow_patterns=names, endpoint=_endpoint())
            return Path(found)
    except HfHubHTTPError as error:
        raise _translated(error, hub_id, revision, "checkpoint") from error
    except Exception as error:
        detail = (str(error) or type(error).__name__).splitlines()[0]
        raise HubUnreachableError(
            f"the download of {hub_id} broke off: {detail}",
            hint="Run the same command again: it resumes where it stopped.",
        ) from error
