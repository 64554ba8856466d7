"""The certificate: correct fast paths pass in every dtype, mistakes do not, and it is measured once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import builders
import pytest
import torch
from transformers import GPTNeoXForCausalLM, LlamaForCausalLM, Mamba2ForCausalLM, MambaForCausalLM

from mambabench.errors import CertificateError, NotANumberError
from mambabench.kernels.gpu.choice import LONG_SSD_TOKENS, LONG_TOKENS
from mambabench.kernels.gpu.triton_kernels import PIECE_TOKENS
from mambabench.models import certificate, certificate_cache, certificate_probe
from mambabench.models.certificate import certify, measure, require, summary
from mambabench.models.certificate_probe import token_ids
from mambabench.models.load import check, load
from mambabench.models.packed_attention import PackedAttention
from mambabench.models.record import FP32_NAMES
from mambabench.models.stateful import State, Step
from mambabench.models.steps import steps_for
from mambabench.registry import resolve
from mambabench.schema import CertificateKindRecord, CertificateRecord

V = builders.N_TOKENS
FAMILIES: dict[str, Callable[[], Any]] = {
    "mamba": lambda: MambaForCausalLM(builders.mamba_config()),
    "mamba2": lambda: Mamba2ForCausalLM(builders.mamba2_config()),
    "gpt_neox": lambda: GPTNeoXForCausalLM(builders.neox_config()),
    "llama": lambda: LlamaForCausalLM(builders.llama_config()),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RECURRENT = ["mamba", "mamba2"]
KINDS = ["whole", "from a state", "token by token"]


def _model(family: str, dtype: str = "float32", seed: int = 0) -> Any:
    """Return what the certificate reads of a loaded model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = FAMILIES[family]().eval()
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] not in FP32_NAMES:
            parameter.data = parameter.data.to(DTYPES[dtype])
    return SimpleNamespace(
        record=SimpleNamespace(name=f"tiny {family}", device_name="some processor"),
        module=module,
        stateful=steps_for(module, vocab_size=V),
        tokenizer=builders.tokenizer(),
        device=torch.device("cpu"),
        vocab_size=V,
    )


class Patched:
    """A fast path with its arguments or its results changed."""

    def __init__(self, inner: Any, step: Callable[..., Step]) -> None:
        self._inner, self._step = inner, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, ids: Any, lengths: Any, state: Any = None, **options: Any) -> Step:
        return self._step(self._inner.step, ids, list(lengths), state, **options)


def _faulty(family: str, step: Callable[..., Step], dtype: str = "float32") -> Any:
    model = _model(family, dtype)
    model.stateful = Patched(model.stateful, step)
    return model


def _refused(model: Any) -> dict[str, float]:
    """Return the kinds above the bar of a model that must be refused."""
    record = measure(model)
    assert not record.passed
    with pytest.raises(CertificateError, match="times as much"):
        require(record, model.record.name)
    return {kind.kind: kind.ratio for kind in record.kinds if kind.ratio > record.bar}


def _mapped(state: State, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> State:
    """Return a recurrent state with one of its tensors changed in every layer."""
    layers = [
        dataclasses.replace(layer, named=layer.named | {name: layer.named[name].map(change)})
        for layer in state.layers
    ]
    return State(state.lengths, tuple(layers))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_correct_paths_pass(family: str, dtype: str) -> None:
    for seed in range(3):
        record = measure(_model(family, dtype, seed))
        require(record, "any")
        assert record.passed
        assert record.ratio < 1.4
        assert record.n_rounds == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_record_says_what_was_compared(family: str) -> None:
    record = measure(_model(family))
    assert [kind.kind for kind in record.kinds] == KINDS
    longer = 8 if family == "mamba2" else 0
    assert [kind.n_tokens for kind in record.kinds] == [45 + longer, 16 + longer, 68]
    assert record.n_tokens == 129 + 2 * longer
    assert record.dtype == "float32"
    assert record.shipped_path.startswith("transformers ")
    for kind in record.kinds:
        assert 0 < kind.rms_error < kind.max_error < 1e-4
        assert 2 * kind.rounding_rms_error < kind.shipped_rms_error < kind.shipped_max_error < 1e-4
        assert kind.ratio == pytest.approx(kind.rms_error / kind.shipped_rms_error)
    assert record.ratio == max(kind.ratio for kind in record.kinds)
    assert CertificateRecord.model_validate_json(record.model_dump_json()) == record
    assert summary(record) == (
        f"certified: {record.fast_path} within {record.ratio:.2f} times the shipped path's own rounding "
        f"error (float32; 3 kinds, {record.n_tokens} tokens)"
    )


def test_figures_depend_on_the_model_alone() -> None:
    torch.manual_seed(1)
    first = measure(_model("mamba"))
    torch.manual_seed(2)
    assert measure(_model("mamba")).kinds == first.kinds
    assert measure(_model("mamba", seed=1)).kinds != first.kinds


def test_ids_are_real_ones_of_the_whole_vocabulary() -> None:
    source = token_ids(builders.tokenizer(), 120)
    ids = [next(source) for _ in range(2000)]
    assert min(ids) >= 0
    assert max(ids) < 120
    assert len(set(ids)) > 110


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_is_certified(family: str, tmp_path: Path) -> None:
    build = {
        "mamba": builders.tiny_mamba,
        "mamba2": builders.tiny_mamba2,
        "gpt_neox": builders.tiny_neox,
        "llama": builders.tiny_llama,
    }[family]
    plan = check(resolve(str(build(tmp_path / "model"))), dtype="float32", device="cpu")
    record = certify(load(plan), fingerprint=plan.fingerprint, cache=tmp_path / "cache")
    assert record is not None
    assert record.passed


# Mistakes in how states are carried.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_lost_state_is_refused(family: str, dtype: str) -> None:
    model = _faulty(family, lambda step, ids, lengths, state, **o: step(ids, lengths, None, **o), dtype)
    assert list(_refused(model)) == KINDS[1:]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_swapped_rows_of_a_state_are_refused(family: str, dtype: str) -> None:
    def swapped(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        if state is not None and state.rows > 1:
            state = state.select([1, 0, *range(2, state.rows)])
        return step(ids, lengths, state, **options)

    assert list(_refused(_faulty(family, swapped, dtype))) == KINDS[1:]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_swapped_pair_of_hidden_rows_is_refused(family: str) -> None:
    def swapped(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        done = step(ids, lengths, state, **options)
        hidden = done.hidden.clone()
        if len(hidden) > 1:
            hidden[[0, 1]] = hidden[[1, 0]]
        return Step(hidden, done.state)

    assert list(_refused(_faulty(family, swapped))) == KINDS


@pytest.mark.parametrize("family", RECURRENT)
def test_a_state_in_16_bits_is_refused(family: str) -> None:
    def rounded(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        narrow = None if state is None else _mapped(state, "ssm", lambda t: t.bfloat16().float())
        return step(ids, lengths, narrow, **options)

    assert list(_refused(_faulty(family, rounded))) == KINDS[1:]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", RECURRENT)
def test_a_convolution_window_that_is_one_token_late_is_refused(family: str, dtype: str) -> None:
    def late(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        stale = None if state is None else _mapped(state, "conv", lambda t: t.roll(1, dims=0).contiguous())
        return step(ids, lengths, stale, **options)

    assert list(_refused(_faulty(family, late, dtype))) == KINDS[1:]


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_positions_that_are_one_off_are_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(family)
    right = cast("cached_property[torch.Tensor]", vars(PackedAttention)["positions"]).func

    def off(rows: PackedAttention) -> torch.Tensor:
        return right(rows) + (max(rows._seen) > 0)

    monkeypatch.setattr(PackedAttention, "positions", property(off))
    # Rotary positions are relative: the keys of the state keep theirs.
    assert list(_refused(model)) == KINDS[1:]


@pytest.mark.parametrize("family", RECURRENT)
def test_a_state_that_is_overwritten_when_lent_is_refused(family: str) -> None:
    def greedy(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        done = step(ids, lengths, state, **options)
        if state is not None and not options.get("consume"):
            for layer in state.layers:
                with torch.inference_mode():
                    layer.named["ssm"].map(lambda t: t.mul_(0.999))
        return done

    assert list(_refused(_faulty(family, greedy))) == ["from a state"]


@pytest.mark.parametrize("few", [0, 1, 4, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_mistake_in_batches_of_one_size_is_refused(family: str, few: int) -> None:
    """A processor's programs for one row, a few, and many are not the same."""
    many = {0: 1, 1: 4, 4: 16, 16: 64}[few]

    def off(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        done = step(ids, lengths, state, **options)
        is_wrong = options.get("consume") and few < len(lengths) <= many
        return Step(done.hidden * (1 + 2e-5), done.state) if is_wrong else done

    assert list(_refused(_faulty(family, off))) == ["token by token"]


@pytest.mark.parametrize("family", RECURRENT)
def test_a_mistake_in_decoding_alone_is_refused(family: str) -> None:
    def decaying(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        if options.get("consume"):
            state = _mapped(state, "ssm", lambda t: t * (1 - 2e-4))
        return step(ids, lengths, state, **options)

    assert list(_refused(_faulty(family, decaying))) == ["token by token"]


# Mistakes in the forward.


@pytest.mark.parametrize("family", RECURRENT)
@pytest.mark.parametrize("bias", ["_conv_bias", "_dt_bias", "_skip"])
def test_a_missing_bias_in_one_layer_is_refused(family: str, bias: str) -> None:
    model = _model(family)
    # Fresh weights have a convolution without bias.
    model.module.backbone.layers[1].mixer.conv1d.bias.data.fill_(0.1)
    model.stateful = steps_for(model.module, vocab_size=V)
    require(measure(model), "with all biases")
    layer = model.stateful._layers[1]
    setattr(layer, bias, torch.zeros_like(getattr(layer, bias)))
    # The program for decoding holds the tensors that it was written with.
    model.stateful._one_token._written = None
    assert list(_refused(model)) == KINDS


@pytest.mark.parametrize("family", RECURRENT)
def test_one_norm_with_another_epsilon_is_refused(family: str) -> None:
    model = _model(family)
    kernels = model.stateful._kernels

    class OneNormOff:
        calls = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(kernels, name)

        def add_norm(self, residual: Any, mixed: Any, weight: Any, eps: float) -> Any:
            self.calls += 1
            return kernels.add_norm(residual, mixed, weight, eps + 1e-3 * (self.calls % 3 == 2))

    model.stateful._kernels = OneNormOff()
    assert list(_refused(model)) == KINDS


def test_the_end_of_a_row_longer_than_a_chunk_is_compared() -> None:
    def wrong_after_a_chunk(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        done = step(ids, lengths, state, **options)
        if max(lengths) <= 128:
            return done
        read, first = options["read"], sum(lengths) - lengths[-1] + 128
        return Step(torch.where((read >= first)[:, None], done.hidden * 1.001, done.hidden), done.state)

    assert list(_refused(_faulty("mamba2", wrong_after_a_chunk))) == ["whole"]


@pytest.mark.parametrize("family", RECURRENT)
@pytest.mark.parametrize("where", ["whole", "from a state", "state"])
def test_rows_that_a_device_computes_in_another_way_are_compared(
    family: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_probe, "_all_long_tokens", lambda device: 40)

    def wrong_if_long(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        done = step(ids, lengths, state, **options)
        if max(lengths) < 40:
            return done
        if where == "state":
            return (
                done
                if done.state is None
                else Step(done.hidden, _mapped(done.state, "ssm", lambda t: t * 1.1))
            )
        read, first = options["read"], sum(lengths) - lengths[-1] - lengths[-2]
        if (state is None) != (where == "whole") or not len(read):
            return done
        return Step(torch.where((read >= first)[:, None], done.hidden * 1.001, done.hidden), done.state)

    assert measure(_model(family)).passed
    assert list(_refused(_faulty(family, wrong_if_long))) == ["whole" if where == "whole" else "from a state"]


def test_a_gpu_compares_rows_longer_than_anything_that_changes_its_way() -> None:
    model = SimpleNamespace(stateful=_model("mamba").stateful, device=torch.device("cuda"))
    n_tokens = certificate_probe._long_row_tokens(model, None)
    for cut in certificate_probe._long_cuts(n_tokens):
        longest = max(cut, n_tokens - cut)
        assert longest > PIECE_TOKENS
        assert longest >= max(LONG_TOKENS, LONG_SSD_TOKENS)


# What is no number.


def test_a_fast_path_that_is_no_number_is_refused() -> None:
    def broken(step: Any, ids: Any, lengths: Any, state: Any, **options: Any) -> Step:
        done = step(ids, lengths, state, **options)
        return Step(done.hidden * float("nan"), done.state)

    with pytest.raises(
        CertificateError, match=r"the fast path .* gives no finite logits, the model as shipped"
    ):
        measure(_faulty("llama", broken))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_is_no_number_as_shipped_is_named_so(value: float) -> None:
    model = _model("llama")
    model.module.model.norm.weight.data[3] = value
    with pytest.raises(NotANumberError, match="tiny llama as shipped gives no finite logits"):
        measure(model)


def test_an_overflow_of_the_shipped_path_is_named_with_its_dtype() -> None:
    model = _model("llama", "float16")
    model.module.lm_head.weight.data.mul_(1e5)
    with pytest.raises(NotANumberError, match=r"no finite logits, in float\d\d.*--dtype bfloat16"):
        measure(model)


# Doubt.


def _kind(ratio: float, shipped: float = 1e-6) -> CertificateKindRecord:
    return CertificateKindRecord(
        kind="whole",
        n_tokens=10,
        rms_error=ratio * shipped,
        max_error=ratio,
        shipped_rms_error=shipped,
        shipped_max_error=1.0,
        rounding_rms_error=1e-8,
        ratio=ratio,
    )


@pytest.mark.parametrize(
    ("ratios", "rounds", "ratio"),
    [
        ([1.4, 9, 9, 9, 9], 1, 1.4),
        ([1.6, 0.8, 1.0, 0.5, 1.2], 5, (1.6 * 0.8 * 0.5 * 1.2) ** 0.2),
        ([1.6, 1.6, 1.6, 1.5, 1.6], 5, (1.6**4 * 1.5) ** 0.2),
        ([1.6, 0.1, 4.9, 0.1, 4.9], 5, (1.6 * 0.01 * 4.9**2) ** 0.2),
        ([5.1, 1, 1, 1, 1], 1, 5.1),
        ([1.6, 0.5, 5.1, 1, 1], 3, 5.1),
    ],
)
def test_a_doubtful_ratio_is_asked_again(
    ratios: list[float], rounds: int, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [_kind(r, shipped) for r, shipped in zip(ratios, (1e-6, 3e-5, 1e-7, 1e-6, 4e-6), strict=True)]

    def compared(name: str, stateful: Any, probe: Any, kind: str) -> CertificateKindRecord:
        return left.pop(0) if kind == "whole" else _kind(0.1)

    monkeypatch.setattr(certificate, "_compare", compared)
    record = measure(_model("llama"))
    assert record.n_rounds == rounds
    assert record.ratio == pytest.approx(ratio)
    assert record.passed == (ratio <= 1.5)
    assert record.kinds[0].ratio == pytest.approx(
        record.kinds[0].rms_error / record.kinds[0].shipped_rms_error
    )


def test_each_round_has_other_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    monkeypatch.setattr(
        certificate, "_compare", lambda name, stateful, probe, kind: rows.append(probe.rows) or _kind(1.6)
    )
    measure(_model("llama"))
    assert len({str(r) for r in rows}) == 5


def test_a_shipped_path_without_errors_is_no_reason_to_refuse_roundings() -> None:
    assert certificate._ratio(3e-8, 0.0, 1e-8) == pytest.approx(1.5)
    assert certificate._ratio(0.0, 0.0, 0.0) == 0.0


# The error.


def test_the_error_is_one_line_with_all_figures() -> None:
    kinds = (_kind(0.9), _kind(2.5).model_copy(update={"kind": "token by token"}))
    record = measure(_model("llama")).model_copy(update={"kinds": kinds, "ratio": 2.5, "passed": False})
    with pytest.raises(CertificateError) as caught:
        require(record, "my-model")
    assert str(caught.value) == (
        f"my-model: the fast path ({record.fast_path}) errs by 2.5e-06 where the model as shipped errs by "
        "1e-06 (token by token, float32): 2.5 times as much, and 1.5 are allowed. `--engine as-shipped` runs "
        "the model as shipped, `--no-verify` insists on the fast path."
    )
    assert caught.value.exit_code == 3


# The cache.


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("measured again")


def test_it_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("llama")
    first = certify(model, fingerprint="a", cache=tmp_path)
    assert first is not None
    assert not first.cached
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(certificate, "measure", _never)
    assert certify(model, fingerprint="a", cache=tmp_path) == first.model_copy(update={"cached": True})
    with pytest.raises(AssertionError, match="measured again"):
        certify(model, fingerprint="b", cache=tmp_path)


def test_the_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBABENCH_CACHE", str(tmp_path))
    certify(_model("llama"), fingerprint="a")
    assert len(list((tmp_path / "certificates").glob("*.json"))) == 1


def test_a_model_changed_in_memory_is_measured_and_not_remembered(tmp_path: Path) -> None:
    model = _model("mamba")
    certify(model, fingerprint="a", cache=tmp_path)
    stored = [file.read_bytes() for file in tmp_path.iterdir()]
    model.stateful._layers[1]._skip = torch.zeros_like(model.stateful._layers[1]._skip)
    with pytest.raises(CertificateError):
        certify(model, fingerprint="a", cache=tmp_path, trust_cache=False)
    fresh = certify(_model("mamba"), fingerprint="a", cache=tmp_path, trust_cache=False)
    assert fresh is not None
    assert not fresh.cached
    assert [file.read_bytes() for file in tmp_path.iterdir()] == stored


def test_a_refusal_is_not_remembered(tmp_path: Path) -> None:
    model = _model("mamba")
    model.stateful._layers[1]._skip = torch.zeros_like(model.stateful._layers[1]._skip)
    for _ in range(2):
        with pytest.raises(CertificateError):
            certify(model, fingerprint="a", cache=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b'{"passed": true}'])
def test_an_unreadable_entry_is_made_again(content: bytes, tmp_path: Path) -> None:
    model = _model("llama")
    certify(model, fingerprint="a", cache=tmp_path)
    [entry] = tmp_path.iterdir()
    entry.write_bytes(content)
    again = certify(model, fingerprint="a", cache=tmp_path)
    assert again is not None
    assert not again.cached
    assert certificate_cache.read(entry) is not None


def test_a_stored_failure_is_not_believed(tmp_path: Path) -> None:
    model = _model("llama")
    record = certify(model, fingerprint="a", cache=tmp_path)
    assert record is not None
    [entry] = tmp_path.iterdir()
    entry.write_text(record.model_copy(update={"passed": False}).model_dump_json())
    again = certify(model, fingerprint="a", cache=tmp_path)
    assert again is not None
    assert not again.cached


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("llama")
    (tmp_path / "file").write_text("not a directory")
    assert certify(model, fingerprint="a", cache=tmp_path / "file" / "below") is not None

    def full(self: Path, target: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    (tmp_path / "full").mkdir()
    assert certify(model, fingerprint="a", cache=tmp_path / "full") is not None
    assert not list((tmp_path / "full").iterdir())


def test_the_entry_depends_on_everything_that_changes_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(fingerprint: str = "a", kernels: str = "scan", device: str = "cpu") -> str:
        return certificate_cache.entry(fingerprint, kernels, device, tmp_path).name

    base = name()
    assert name() == base
    found = {base, name("b"), name(kernels="other"), name(device="other")}
    with monkeypatch.context() as patch:
        patch.setattr(certificate_cache, "processor_features", lambda: "avx512")
        found.add(name())
    with monkeypatch.context() as patch:
        patch.setattr(certificate_cache, "code_digest", lambda: "changed")
        found.add(name())
    for package in ("mambabench", "torch", "transformers", "numba"):
        versions = certificate_cache.package_versions() | {package: "99"}
        with monkeypatch.context() as patch:
            patch.setattr(certificate_cache, "package_versions", lambda versions=versions: versions)
            found.add(name())
    assert len(found) == 10
    assert name() == base


def test_a_change_of_the_code_changes_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("kernels", "models"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "code.py").write_text("1")
    monkeypatch.setattr(certificate_cache, "__file__", str(tmp_path / "models" / "certificate_cache.py"))
    digests = []
    for change in ("", "kernels/code.py", "models/code.py", "models/new.py"):
        if change:
            (tmp_path / change).write_text("2")
        digests.append(certificate_cache.code_digest.__wrapped__())
    assert len(set(digests)) == 4
    (tmp_path / "models" / "note.txt").write_text("no code")
    assert certificate_cache.code_digest.__wrapped__() == digests[-1]


def test_a_model_without_two_paths_has_no_certificate(tmp_path: Path) -> None:
    model = _model("llama")
    for lacking in ("stateful", "module"):
        other = SimpleNamespace(**{**vars(model), lacking: None})
        assert certify(other, fingerprint="a", cache=tmp_path) is None
        with pytest.raises(ValueError, match="two paths"):
            measure(other)
    assert not list(tmp_path.iterdir())


def test_threads_are_as_before_also_after_a_failure() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = _model("llama")
        measure(model)
        assert torch.get_num_threads() == 2
        model.module.model.norm.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(CertificateError, match="division by zero"):
            measure(model)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
