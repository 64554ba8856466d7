"""Read the YAML files of lm-eval into the compact index that the package ships.

lm-eval needs seconds and a large import to learn its own task names. This reads the same files with
the same rules (includes, first definition wins, tags) without importing lm-eval, keeping only what is
needed to check names and to find a task's folder and data. The shipped file is written by

    python -m mambabench.taskindex_build mambabench/task_index.json.gz

and is rebuilt into the user's cache by `mambabench.taskindex` when another lm-eval is installed.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mambabench.taskindex_source import FORMAT, installed_lm_eval

DEFAULT_METRICS: dict[str, tuple[str, ...]] = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
}
"""Metrics of a task whose YAML names none, by output type, as lm-eval 0.4 has them."""

_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
_SKIPPED_FOLDERS = {"__pycache__", ".ipynb_checkpoints"}
_FUNCTION = "!function "


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """YAML with lm-eval's `!function` tag kept as text."""


_Loader.add_constructor("!function", lambda loader, node: _FUNCTION + str(loader.construct_scalar(node)))


def build(root: Path, lm_eval_version: str) -> dict[str, Any]:
    """Read every YAML file below `root`.

    Args:
        root: lm-eval's `tasks` folder, or a folder of tasks of the same kind.
        lm_eval_version: recorded in the index, compared with the installed version when it is loaded.

    Returns:
        JSON-ready index: `tasks` (name to [shape, file, data set's configuration]), `shapes` (what many
        tasks have in common, stored once), `groups`, `tags` and `folders`. A file that does not parse
        or defines neither task nor group is left out, as lm-eval leaves it out.
    """
    return _Builder(root).run(lm_eval_version)


def read_yaml(path: Path, cache: dict[Path, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return one task file with its includes merged under it; functions stay text.

    Raises:
        OSError, yaml.YAMLError, ValueError: as the file or one of its includes gives reason to.
    """
    cache = {} if cache is None else cache
    return _merged(path.resolve(), cache, ())


def metric_names(config: dict[str, Any]) -> list[str]:
    """Return the names that lm-eval reports a task's metrics under, in the YAML's order."""
    listed = config.get("metric_list")
    if listed is None:
        return list(DEFAULT_METRICS.get(str(config.get("output_type", "generate_until")), ()))
    names = [str(m["metric"]) for m in listed if isinstance(m, dict) and "metric" in m]
    return list(dict.fromkeys(n.rpartition(".")[2] if n.startswith(_FUNCTION) else n for n in names))


def task_shape(config: dict[str, Any], folder: int) -> list[Any]:
    """Return what an index entry keeps of a task besides its name, file and data set configuration."""
    fewshot = config.get("fewshot_config") or {}
    splits = [config.get(key) for key in _SPLIT_KEYS]
    splits[3] = fewshot.get("split") or splits[3]
    filters = [f["name"] for f in config.get("filter_list") or [] if isinstance(f, dict) and "name" in f]
    arguments = set(config.get("dataset_kwargs") or {}) - {"trust_remote_code"}
    marks = ("class" in config, "custom_dataset" in config, bool(fewshot.get("samples")), bool(arguments))
    flags = sum(mark << bit for bit, mark in enumerate(marks))
    return [
        folder,
        [] if "class" in config else metric_names(config),
        filters or ["none"],
        "" if "class" in config else str(config.get("output_type", "generate_until")),
        config.get("dataset_path") or "",
        [str(s) if s else "" for s in splits],
        config.get("num_fewshot"),
        flags,
    ]


def write(index: dict[str, Any], path: Path) -> None:
    """Write the index gzipped, byte for byte the same for the same content."""
    text = json.dumps(index, separators=(",", ":"), ensure_ascii=False)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _merged(path: Path, cache: dict[Path, dict[str, Any]], above: tuple[Path, ...]) -> dict[str, Any]:
    if path in above:
        raise ValueError(f"{path} includes itself")
    if path not in cache:
        loaded = yaml.load(path.read_bytes(), Loader=_Loader)
        if not isinstance(loaded, dict):
            raise ValueError(f"{path} holds no mapping")
        cache[path] = loaded
    own = dict(cache[path])
    if "include" not in own:
        return own
    includes = own.pop("include")
    merged: dict[str, Any] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        below = _merged((path.parent / include).resolve(), cache, (*above, path))
        below.pop("task_list", None)
        merged.update(below)
    return merged | own


class _Builder:
    """Collects tasks, groups and tags in the order in which lm-eval meets them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache: dict[Path, dict[str, Any]] = {}
        self.folders: dict[str, int] = {}
        self.shapes: dict[str, int] = {}
        self.tasks: dict[str, list[Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, list[str]] = {}
        self.group_files: dict[str, Path] = {}
        self.inline: dict[str, list[Any]] = {}

    def run(self, lm_eval_version: str) -> dict[str, Any]:
        for path in self._files():
            try:
                config = _merged(path, self.cache, ())
            except (OSError, ValueError, yaml.YAMLError):
                continue
            self._add(config, path)
        groups = {name: self._group(name, config) for name, config in list(self.groups.items())}
        return {
            "format": FORMAT,
            "lm_eval": lm_eval_version,
            "folders": list(self.folders),
            "shapes": [json.loads(shape) for shape in self.shapes],
            "tasks": self.tasks,
            "groups": {**self.inline, **groups},
            "tags": {name: sorted(members) for name, members in self.tags.items()},
        }

    def _files(self) -> Iterator[Path]:
        found = (p for p in self.root.glob("**/*.yaml") if not _SKIPPED_FOLDERS & set(p.parts))
        yield from sorted(found, key=lambda p: p.as_posix())

    def _add(self, config: dict[str, Any], path: Path) -> None:
        is_group = "group" in config and "class" not in config
        name = config.get("group" if is_group else "task")
        if not isinstance(name, str) or name in self.tasks or name in self.groups or name in self.tags:
            return
        if is_group:
            self.groups[name], self.group_files[name] = config, path
            return
        self._add_task(name, config, path)
        tags = config.get("tag") or []
        for tag in tags if isinstance(tags, list) else [tags]:
            if tag not in self.tasks and tag not in self.groups:
                members = self.tags.setdefault(tag, [])
                if name not in members:
                    members.append(name)

    def _add_task(self, name: str, config: dict[str, Any], path: Path) -> None:
        shape = json.dumps(task_shape(config, self._folder(path)))
        number = self.shapes.setdefault(shape, len(self.shapes))
        file = "" if path.stem == name else path.name
        self.tasks[name] = [number, file, config.get("dataset_name") or ""]

    def _folder(self, path: Path) -> int:
        folder = path.parent.relative_to(self.root).as_posix()
        return self.folders.setdefault(folder, len(self.folders))

    def _group(self, name: str, config: dict[str, Any], path: Path | None = None) -> list[Any]:
        path = path or self.group_files[name]
        members = config.get("task") or []
        children = [
            child
            for member in (members if isinstance(members, list) else [members])
            if (child := self._child(name, member, path))
        ]
        aggregate = config.get("aggregate_metric_list") or []
        aggregate = [aggregate] if isinstance(aggregate, dict) else aggregate
        metrics = [
            [str(a["metric"]), bool(a.get("weight_by_size", True))] for a in aggregate if "metric" in a
        ]
        file = "" if path.stem == name else path.name
        return [self._folder(path), file, children, metrics]

    def _child(self, group: str, member: Any, path: Path) -> str | None:
        """Return a member's name; one defined in place gets the name that lm-eval gives it."""
        known = (self.tasks, self.groups, self.tags)
        if isinstance(member, str):
            return member if any(member in names for names in known) else None
        if not isinstance(member, dict):
            return None
        name = str(member.get("group", member.get("task", "")))
        if any(name in names for names in known):
            return name
        if not name:
            return None
        inner = f"{group}::{name}"
        if "group" in member:
            self.inline[inner] = self._group(inner, member, path)
        else:
            self._add_task(inner, member, path)
        return inner


def main(arguments: list[str]) -> int:
    """Build the index of the installed lm-eval into the file named on the command line."""
    version, root = installed_lm_eval()
    if root is None:
        print("error: lm-eval is not installed", file=sys.stderr)
        return 4
    target = Path(arguments[0])
    write(build(root, version), target)
    print(f"{target}: {target.stat().st_size} bytes for lm-eval {version}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
