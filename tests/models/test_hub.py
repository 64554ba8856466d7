"""The Hub against a small server of our own: found, absent, gated, silent, not there, offline."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import lora_adapter, tiny_llama, tiny_mamba, tiny_mamba_ssm
from huggingface_hub import constants

from mambabench.errors import CheckpointError, HubUnreachableError
from mambabench.models import hub
from mambabench.models.load import check, load
from mambabench.registry import load_registry, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IDS = torch.tensor([[5, 99, 14, 203]])


class FakeHub:
    """Serves directories as repositories and remembers what was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.answers: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                return

            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

            def do_GET(self) -> None:
                outer.answer(self, body=True)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append(path)
        for hub_id, (status, code) in self.answers.items():
            if hub_id in path:
                self._send(handler, status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body)
                return
        for hub_id, directory in self.repositories.items():
            if path.startswith(f"/api/models/{hub_id}"):
                names = sorted(p.name for p in directory.iterdir())
                siblings = [{"rfilename": name} for name in names]
                if "/tree/" in path:
                    sizes = {name: (directory / name).stat().st_size for name in names}
                    tree = [{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in sizes.items()]
                    self._send(handler, 200, json.dumps(tree).encode(), {}, body)
                    return
                info = {"id": hub_id, "modelId": hub_id, "sha": COMMIT, "siblings": siblings}
                self._send(handler, 200, json.dumps(info).encode(), {}, body)
                return
            prefix = f"/{hub_id}/resolve/{COMMIT}/"
            if path.startswith(prefix) and (directory / path.removeprefix(prefix)).is_file():
                content = (directory / path.removeprefix(prefix)).read_bytes()
                tag = hashlib.sha256(content).hexdigest()
                self._send(handler, 200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body)
                return
        self._send(handler, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    @staticmethod
    def _send(handler: Any, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if body:
            handler.wfile.write(content)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "_unreachable", {})


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    served = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_a_repository_is_fetched_once_and_then_found_in_the_cache(tmp_path: Path, fake_hub: FakeHub) -> None:
    source = tiny_llama(tmp_path / "served", max_shard_size="20KB")
    (source / "pytorch_model.bin").write_bytes(b"never fetched")
    (source / "consolidated.safetensors").write_bytes(b"never fetched")
    (source / "README.md").write_text("never fetched")
    fake_hub.repositories["org/name"] = source
    plan = check(resolve("hf:org/name"), device="cpu")
    assert (plan.hub_id, plan.revision) == ("org/name", COMMIT)
    assert not [p for p in fake_hub.asked if "README" in p or ".bin" in p or "consolidated" in p]
    logits = load(plan).logits(IDS, 4)
    assert torch.equal(logits, load(check(resolve(str(source)), device="cpu")).logits(IDS, 4))

    fake_hub.asked.clear()
    again = check(resolve("hf:org/name"), device="cpu")
    assert fake_hub.asked == []
    assert again.fingerprint == plan.fingerprint
    assert again.revision == COMMIT


def test_random_weights_fetch_no_weights(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.repositories["org/name"] = tiny_mamba(tmp_path / "served")
    plan = check(resolve("hf:org/name"), weights="random", device="cpu")
    assert not [p for p in fake_hub.asked if "safetensors" in p]
    assert torch.isfinite(load(plan).logits(IDS, 1)).all()
    # The weights are still missing, so the Hub is asked again for them.
    assert check(resolve("hf:org/name"), device="cpu").files


def test_a_mamba_ssm_repository_takes_its_tokenizer_from_another(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.repositories["org/mamba"] = tiny_mamba_ssm(tmp_path / "served")
    fake_hub.repositories["org/tokenizer"] = tiny_llama(tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        check(resolve("hf:org/mamba"), device="cpu")
    plan = check(resolve("hf:org/mamba"), device="cpu", tokenizer="org/tokenizer")
    assert plan.tokenizer_record.source == "org/tokenizer"
    assert not [p for p in fake_hub.asked if "tokenizer/resolve" in p and "safetensors" in p]
    assert plan.family == "mamba"


def test_a_tokenizer_that_does_not_fit_is_found_before_the_weights_are_fetched(
    tmp_path: Path, fake_hub: FakeHub
) -> None:
    source = tiny_llama(tmp_path / "served", config={"vocab_size": 290})
    fake_hub.repositories["org/name"] = source
    with pytest.raises(CheckpointError, match="larger than its embedding"):
        check(resolve("hf:org/name"), device="cpu")
    assert not [p for p in fake_hub.asked if "safetensors" in p]


def test_an_adapter_on_the_hub_finds_its_base_there(tmp_path: Path, fake_hub: FakeHub) -> None:
    base = tiny_mamba(tmp_path / "base")
    fake_hub.repositories["org/base"] = base
    fake_hub.repositories["org/adapter"] = lora_adapter(tmp_path / "adapter", base, base_name="org/base")
    local = lora_adapter(tmp_path / "local", base)
    model = load(check(resolve("hf:org/adapter"), device="cpu"))
    expected = load(check(resolve(str(local)), device="cpu"))
    assert torch.equal(model.logits(IDS, 4), expected.logits(IDS, 4))
    assert model.record.adapter is not None
    assert model.record.adapter.name == "org/adapter"


def test_a_registered_models_files_are_seen_on_this_machine(tmp_path: Path, fake_hub: FakeHub) -> None:
    spec = load_registry()["pythia-70m"]
    assert not hub.files_on_machine(spec)
    fake_hub.repositories["EleutherAI/pythia-70m"] = tiny_llama(tmp_path / "served")
    hub.fetch_weights(hub.find("EleutherAI/pythia-70m", None, need="checkpoint"))
    assert hub.files_on_machine(spec)
    assert not hub.files_on_machine(load_registry()["mamba-130m"])


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "no repository org/name on the Hub, or it is private"),
        (401, "RepoNotFound", "no repository org/name on the Hub, or it is private"),
        (403, "GatedRepo", "is gated"),
        (404, "RevisionNotFound", "has no revision 'v9'"),
        (403, "Other", "refused access"),
    ],
)
def test_what_the_hub_refuses(fake_hub: FakeHub, status: int, code: str, said: str) -> None:
    fake_hub.answers["org/name"] = (status, code)
    with pytest.raises(CheckpointError, match=said):
        check(resolve("hf:org/name@v9"), device="cpu")


def test_a_hub_in_trouble_is_not_waited_for(fake_hub: FakeHub) -> None:
    fake_hub.answers["org/name"] = (503, "Down")
    start = time.perf_counter()
    with pytest.raises(HubUnreachableError):
        check(resolve("hf:org/name"), device="cpu")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("names", [["README.md"], ["config.json"], ["model.gguf"]])
def test_a_repository_that_is_no_checkpoint(tmp_path: Path, fake_hub: FakeHub, names: list[str]) -> None:
    (tmp_path / "served").mkdir()
    for name in names:
        (tmp_path / "served" / name).write_text("{}")
    fake_hub.repositories["org/name"] = tmp_path / "served"
    with pytest.raises(CheckpointError, match=r"no checkpoint in a known format|has no weights"):
        check(resolve("hf:org/name"), device="cpu")


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(HubUnreachableError) as caught:
        check(resolve("mamba-130m"), device="cpu")
    assert time.perf_counter() - start < 4
    text = str(caught.value)
    for part in (
        "state-spaces/mamba-130m is not in the local cache and the Hub did not answer",
        "config.json, model.safetensors",
        "hf download state-spaces/mamba-130m",
        "pass the directory",
        "--weights random",
        "HF_HOME",
    ):
        assert part in text
    assert "\n" not in text
    assert caught.value.exit_code == 4


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_PROBE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        for name in ("mamba-130m", "mamba-370m", "hf:org/name"):
            with pytest.raises(HubUnreachableError):
                check(resolve(name), device="cpu")
        assert time.perf_counter() - start < 2.5


def test_offline_mode_asks_nobody(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachableError, match="must not be asked"):
        check(resolve("hf:org/name"), device="cpu")
    assert fake_hub.asked == []


def test_a_missing_tokenizer_names_its_own_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachableError, match=r"EleutherAI/gpt-neox-20b.*--tokenizer DIR"):
        check(resolve("mamba-130m"), weights="random", device="cpu")
