from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import lora_adapter, tiny_llama, tiny_mamba, tiny_mamba_ssm
from hypothesis import example, given
from hypothesis import strategies as st

from mambabench import registry
from mambabench.checkpoint_files import native_format, safetensors_shapes
from mambabench.errors import CheckpointError, MambabenchError, UnknownNameError, UsageError
from mambabench.models import architecture
from mambabench.models.convert import family_of
from mambabench.models.load import check
from mambabench.registry import ModelRef, load_registry, resolve

# Counts as the authors or the Hub's model pages publish them.
PUBLISHED_PARAMETERS = {
    "mamba-130m": 129_135_360,
    "mamba-2.8b": 2_768_345_600,
    "mamba2-130m": 128_989_632,
    "mamba2-2.7b": 2_702_599_680,
    "pythia-70m": 70_426_624,
    "pythia-1.4b": 1_414_647_808,
    "pythia-6.9b": 6_857_302_016,
    "tinyllama-1.1b": 1_100_048_384,
    "falcon-mamba-7b": 7_272_665_088,
    "mamba-codestral-7b": 7_285_403_648,
}


BUNDLED = {
    "family": "mamba", "format": "transformers", "tokenizer": "bundled", "training_length_tokens": 256,
}  # fmt: skip


def test_the_registry_names_every_promised_model() -> None:
    names = set(load_registry())
    mambas = {"mamba-130m", "mamba-370m", "mamba-790m", "mamba-1.4b", "mamba-2.8b"}
    mamba2s = {"mamba2-130m", "mamba2-370m", "mamba2-780m", "mamba2-1.3b", "mamba2-2.7b"}
    pythias = {f"pythia-{size}" for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b")}
    assert mambas | mamba2s | pythias <= names
    assert {f"{name}-hf" for name in mambas | mamba2s} <= names
    assert {"mamba-2.8b-slimpj", "transformerpp-2.7b", "mamba2attn-2.7b", "tinyllama-1.1b"} <= names
    assert {"falcon-mamba-7b", "falcon3-mamba-7b-base", "falcon3-mamba-7b-instruct"} <= names
    assert {"mamba-7b-rw", "mamba-codestral-7b", "mamba-tiny", "pythia-tiny"} <= names


@pytest.mark.parametrize("name", [n for n, s in load_registry().items() if not s.bundled])
def test_a_row_builds_its_architecture_with_the_size_it_states(name: str) -> None:
    spec = load_registry()[name]
    if spec.family == "hybrid":
        assert family_of(spec.config) == "hybrid"
        return
    shape = architecture.from_native(spec.format, spec.config)
    assert shape is not None
    make: Any = architecture.model_class(shape)
    with torch.device("meta"):
        model = make(shape)
    model.tie_weights()
    n_parameters = sum({id(p): p.numel() for p in model.parameters()}.values())
    assert n_parameters == spec.n_parameters
    if name in PUBLISHED_PARAMETERS:
        assert n_parameters == PUBLISHED_PARAMETERS[name]


def test_the_hybrid_row_counts_its_layers() -> None:
    spec = load_registry()["mamba2attn-2.7b"]
    width, rows, inner, state, heads = 2560, 50288, 5120, 128, 80
    mamba2 = width * (2 * inner + 2 * state + heads) + (inner + 2 * state) * 5 + 3 * heads + inner
    mamba2 += inner * width + width
    queries = 30 * 128
    attention = width * 3 * queries + 3 * queries * 5 + queries * width + width
    assert spec.n_parameters == 58 * mamba2 + 6 * attention + rows * width + width


def test_state_spaces_rows_are_compared_with_the_figures_of_their_papers() -> None:
    rows = load_registry()
    assert rows["mamba-130m-hf"].published_as == "mamba-130m"
    assert rows["mamba-130m"].tokenizer == "EleutherAI/gpt-neox-20b"
    assert rows["falcon-mamba-7b"].published_as is None


def test_a_bundled_row_takes_its_sizes_from_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "bundled_dir", lambda: tmp_path)
    absent = registry._spec("mamba-tiny", {"bundled": True, **BUNDLED})
    assert (absent.n_parameters, absent.config) == (0, {})
    tiny_mamba(tmp_path / "mamba-tiny")
    present = registry._spec("mamba-tiny", {"bundled": True, **BUNDLED})
    assert present.n_parameters == 26_592
    assert present.config["hidden_size"] == 32


def test_a_bundled_model_is_scored_in_its_own_window_not_in_its_training_length() -> None:
    spec = load_registry()["mamba-tiny"]
    assert spec.training_length_tokens == 256
    assert check(resolve("mamba-tiny"), device="cpu").max_length == 1024
    assert check(resolve("pythia-tiny"), device="cpu").max_length == 256


def test_a_registered_name_resolves_with_and_without_a_revision() -> None:
    ref = resolve("mamba-130m")
    assert (ref.kind, ref.hub_id, ref.revision, ref.name) == (
        "registry",
        "state-spaces/mamba-130m",
        None,
        "mamba-130m",
    )
    pinned = resolve("mamba-130m@5708ac1b")
    assert pinned.revision == "5708ac1b"
    assert pinned.slug == "mamba-130m_5708ac1b"


def test_a_hub_id_resolves_with_and_without_a_revision() -> None:
    ref = resolve("hf:org/na.me_1@refs/pr/3")
    assert (ref.kind, ref.hub_id, ref.revision) == ("hub", "org/na.me_1", "refs/pr/3")
    assert resolve("hf:org/name").name == "org/name"
    assert resolve("hf:org/name").slug == "org_name"


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:a/b/c", "hf:a b", "hf:../etc", "hf:a/b@", "hf:a/b@x y", "hf:a/b@../x", "mamba-130m@", " "],
)
def test_malformed_names_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(text)
    assert caught.value.exit_code == 2


def test_an_unknown_name_offers_the_closest_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'mamba-14b'\. Closest: mamba-1\.4b"):
        resolve("mamba-14b")


def test_a_bare_hub_id_is_told_how_it_is_written() -> None:
    with pytest.raises(UnknownNameError, match="hf:state-spaces/mamba-130m"):
        resolve("state-spaces/mamba-130m")


def test_a_missing_path_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or directory") as caught:
        resolve(str(tmp_path / "absent" / "model"))
    assert caught.value.exit_code == 4


def test_a_path_has_no_revision(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "m")
    with pytest.raises(UsageError, match="a path has no revisions"):
        resolve(f"{directory}@main")


def test_a_bundled_model_has_no_revision() -> None:
    with pytest.raises(UsageError, match="comes with the package"):
        resolve("mamba-tiny@main")


def test_directories_resolve_to_their_format(tmp_path: Path) -> None:
    assert resolve(str(tiny_llama(tmp_path / "a"))).kind == "transformers"
    assert resolve(str(tiny_llama(tmp_path / "b", as_bin=True))).kind == "transformers"
    assert resolve(str(tiny_llama(tmp_path / "c", max_shard_size="20KB"))).kind == "transformers"
    assert resolve(str(tiny_mamba_ssm(tmp_path / "d"))).kind == "mamba_ssm"
    ref = resolve(str(tmp_path / "a") + "/")
    assert ref.path == tmp_path / "a"
    assert ref.name == "a"


def test_a_directory_named_like_a_registered_model_is_reached_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_llama(tmp_path / "mamba-130m")
    monkeypatch.chdir(tmp_path)
    assert resolve("mamba-130m").kind == "registry"
    assert resolve("./mamba-130m").kind == "transformers"


def test_a_snapshot_of_the_hub_cache_is_named_by_its_repository(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "models--org--name" / "snapshots" / "0123abc")
    assert resolve(str(directory)).name == "org/name"


def test_an_empty_directory_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no checkpoint\. Looked for config\.json with model"):
        resolve(str(tmp_path))


def test_a_configuration_without_weights_is_half_a_checkpoint(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "m")
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"half a checkpoint: it has config\.json but no weights"):
        resolve(str(directory))
    assert resolve(str(directory), need_weights=False).kind == "transformers"


def test_weights_without_a_configuration_are_half_a_checkpoint(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "m")
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has weights \(model.safetensors\) but no config.json"):
        resolve(str(directory))


def test_absent_shards_are_named(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "m", max_shard_size="20KB")
    shard = sorted(directory.glob("model-0*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"shards missing: {shard.name}"):
        resolve(str(directory))


def test_a_configuration_that_is_not_json_or_describes_nothing(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "m")
    (directory / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        resolve(str(directory))
    (directory / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no known architecture"):
        resolve(str(directory))


def test_a_conversion_that_keeps_mamba_ssm_keys_is_transformers_format() -> None:
    mixed = {"model_type": "mamba", "d_model": 768, "n_layer": 24, "hidden_size": 768}
    assert native_format(mixed) == "transformers"
    assert native_format({"d_model": 768, "n_layer": 24}) == "mamba_ssm"


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_truncated_safetensors_are_found_from_the_header(tmp_path: Path, cut: int) -> None:
    directory = tiny_llama(tmp_path / "m")
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match=r"damaged: truncated: it is .* its header announces"):
        resolve(str(directory))


@pytest.mark.parametrize(
    "content", [b"", b"1234567", struct.pack("<Q", 10**12), struct.pack("<Q", 4) + b"{\xff}}"]
)
def test_damaged_safetensors_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        safetensors_shapes(path)


def test_a_bin_file_that_broke_off_is_found_without_torch(tmp_path: Path) -> None:
    directory = tiny_mamba_ssm(tmp_path / "m")
    path = directory / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="truncated: the archive's directory"):
        resolve(str(directory))


def test_gguf_files_and_directories(tmp_path: Path) -> None:
    one = tmp_path / "one.Q4.gguf"
    one.write_bytes(b"GGUF" + bytes(20))
    assert resolve(str(one)).name == "one.Q4"
    assert resolve(str(tmp_path)).path == one
    (tmp_path / "two.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="holds 2 GGUF files"):
        resolve(str(tmp_path))
    one.write_bytes(b"nope")
    with pytest.raises(CheckpointError, match="magic"):
        resolve(str(one))
    other = tmp_path / "weights.pt"
    other.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="unknown kind"):
        resolve(str(other))


def _rename_base(adapter: Path, name: Any) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = name
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def test_an_adapter_finds_its_base(tmp_path: Path) -> None:
    base = tiny_mamba(tmp_path / "base")
    adapter = lora_adapter(tmp_path / "adapter", base)
    ref = resolve(str(adapter))
    assert ref.kind == "adapter"
    assert ref.base is not None
    assert ref.base.path == base
    for name, kind in [("../base", "transformers"), ("mamba-130m", "registry"), ("org/name", "hub")]:
        _rename_base(adapter, name)
        found = resolve(str(adapter)).base
        assert isinstance(found, ModelRef)
        assert found.kind == kind


@pytest.mark.parametrize("name", [None, "", "nowhere", "/absent/dir"])
def test_an_adapter_without_its_base_says_so(tmp_path: Path, name: Any) -> None:
    adapter = lora_adapter(tmp_path / "adapter", tiny_mamba(tmp_path / "base"))
    _rename_base(adapter, name)
    with pytest.raises(CheckpointError, match="base model"):
        resolve(str(adapter))


def test_half_an_adapter_is_refused(tmp_path: Path) -> None:
    adapter = lora_adapter(tmp_path / "adapter", tiny_mamba(tmp_path / "base"))
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no adapter weights"):
        resolve(str(adapter))


@given(st.text(max_size=40) | st.text(min_size=300, max_size=400))
@example("~0")
@example("a/" * 3000)
@example("x" * 300)
def test_any_text_resolves_or_is_a_named_error(text: str) -> None:
    try:
        ref = resolve(text)
    except MambabenchError:
        return
    assert ref.slug
    assert "/" not in ref.slug


def test_resolving_imports_no_model_library() -> None:
    code = (
        "import sys; from mambabench.registry import resolve; resolve('mamba-130m'); resolve('hf:a/b');"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
