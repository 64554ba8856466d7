"""The log of answers: durable, exact, never shared between checkpoints, whole after a death at any point."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from answered import CHECKPOINT, answer, contents, key, pairs, reopened
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.errors import StoreError
from mambabench.fingerprint import digest
from mambabench.store import answers as answers_module


def test_answers_are_there_at_once_and_after_reopening(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    assert log.get(key(1)) is None
    log.append(pairs(1, 2))
    log.append([])
    log.append([(key(3), {"text": "a\nb “c” \ud800"})])
    for reader in (log, reopened(tmp_path)):
        assert len(reader) == 3
        assert reader.get(key(1)) == answer(1)
        assert reader.get(key(3)) == {"text": "a\nb “c” \ud800"}
        assert key(2) in reader
        assert key(4) not in reader


def test_what_get_returns_can_be_changed_freely(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.append(pairs(1))
    found = log.get(key(1))
    assert found is not None
    found["logprob"] = 0.0
    assert log.get(key(1)) == answer(1)


def test_a_later_answer_replaces_an_earlier_one(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.append([(key(1), {"logprob": -1.0, "is_greedy": False})])
    log.compact()
    log.append([(key(1), {"logprob": -2.0, "is_greedy": False})])
    log.compact()
    log.append([(key(1), {"logprob": -3.0})])
    for reader in (log, reopened(tmp_path)):
        assert reader.get(key(1)) == {"logprob": -3.0}
        assert len(reader) == 1


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = (
    st.fixed_dictionaries({"logprob": st.floats(), "is_greedy": st.booleans()})
    | st.fixed_dictionaries({"text": st.text(st.characters(codec=None))})
    | st.dictionaries(st.sampled_from(["logprob", "is_greedy", "text", "n"]), scalars | st.lists(scalars))
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 30), values), st.booleans())
def test_every_value_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, items: dict[int, Any], compact: bool
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = reopened(folder)
    log.append([(key(n), value) for n, value in items.items()])
    if compact:
        log.compact()
    for reader in (log, reopened(folder)):
        for n, value in items.items():
            found = reader.get(key(n))
            assert found is not None
            # repr tells -0.0 from 0.0, 1 from 1.0 and shows NaN equal to itself.
            assert {k: repr(v) for k, v in found.items()} == {k: repr(v) for k, v in value.items()}


def test_two_checkpoints_or_settings_never_share(tmp_path: Path) -> None:
    logs = [
        reopened(tmp_path),
        reopened(tmp_path, checkpoint=digest("other")),
        reopened(tmp_path, settings_key="bf16"),
    ]
    for number, log in enumerate(logs):
        log.append([(key(0), {"logprob": -float(number)})])
        log.compact()
        log.append([(key(1), {"logprob": -float(number)})])
    again = [reopened(tmp_path), reopened(tmp_path, digest("other")), reopened(tmp_path, settings_key="bf16")]
    for readers in (logs, again):
        for number, log in enumerate(readers):
            assert log.get(key(0)) == log.get(key(1)) == {"logprob": -float(number)}
            assert len(log) == 2


def test_a_log_under_a_false_name_is_refused(tmp_path: Path) -> None:
    # Same first 16 digits, so the same file name: the heading inside tells them apart.
    twin = CHECKPOINT[:16] + digest("twin")[16:]
    log = reopened(tmp_path)
    log.append(pairs(1))
    with pytest.raises(StoreError, match=r"another checkpoint.*--out DIR"):
        reopened(tmp_path, checkpoint=twin)
    log.compact()
    log.path.unlink()
    with pytest.raises(StoreError, match=r"parquet holds the answers of another checkpoint"):
        reopened(tmp_path, checkpoint=twin)


@pytest.mark.parametrize("bad", ["", "ab", "g" * 64, "a" * 63, "a" * 66, " " + "a" * 63, "a" * 30])
def test_keys_are_digests(tmp_path: Path, bad: str) -> None:
    log = reopened(tmp_path)
    with pytest.raises(ValueError):
        log.append([(bad, answer(0))])
    with pytest.raises(ValueError):
        log.append([(key(0), {"k": 1})])
    assert len(reopened(tmp_path)) == 0


def test_shorter_digests_are_keys_too(tmp_path: Path) -> None:
    keys = [digest(n)[: 2 * size] for n, size in enumerate((16, 20, 20, 32))]
    log = reopened(tmp_path)
    log.append([(k, {"logprob": float(n)}) for n, k in enumerate(keys[:2])])
    log.compact()
    log.append([(k, {"logprob": float(n)}) for n, k in enumerate(keys[2:], 2)])
    for reader in (log, reopened(tmp_path)):
        assert [reader.get(k) for k in keys] == [{"logprob": float(n)} for n in range(4)]


# --- torn and damaged files


def test_a_torn_tail_is_dropped_wherever_it_tears(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.append(pairs(1))
    whole = log.path.read_bytes()
    log.append(pairs(2, 3))
    log.close()
    data = log.path.read_bytes()
    line = data[len(whole) :].index(b"\n") + 1
    for cut in range(len(whole), len(data) + 1):
        log.path.write_bytes(data[:cut])
        torn = reopened(tmp_path)
        complete = 1 + (cut >= len(whole) + line) + (cut == len(data))
        assert sorted(contents(torn)) == [1, 2, 3][:complete]
        # What follows a torn line must be readable, too.
        torn.append(pairs(9))
        torn.close()
        assert sorted(contents(reopened(tmp_path))) == [*[1, 2, 3][:complete], 9]


@pytest.mark.parametrize("kept", [0, 5])
def test_a_torn_heading_is_written_again(tmp_path: Path, kept: int) -> None:
    log = reopened(tmp_path)
    log.path.write_bytes(log.path.read_bytes()[:kept])
    again = reopened(tmp_path)
    again.append(pairs(1))
    assert contents(reopened(tmp_path)) == {1: answer(1)}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"",
        b"[]",
        b"\xff\xfe",
        b"\x00\x00\x00",
        b'{"k":"ab","logprob":-1.0}',
        b'{"logprob":-1.0}',
        b'{"k":5}',
        b'{"k":"' + b"a" * 64 + b'"},{"k":"' + b"b" * 64 + b'"}',
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    log = reopened(tmp_path)
    log.append(pairs(1, 2, 3))
    log.close()
    lines = log.path.read_bytes().split(b"\n")
    lines[2] = line
    log.path.write_bytes(b"\n".join(lines))
    with pytest.raises(StoreError, match=r"damaged at line 3\b.*Delete that file"):
        reopened(tmp_path)
    assert log.path.read_bytes() == b"\n".join(lines)


def test_a_damaged_line_far_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "_LINES_PER_PARSE", 4)
    log = reopened(tmp_path)
    log.append(pairs(*range(20)))
    assert len(reopened(tmp_path)) == 20
    lines = log.path.read_bytes().split(b"\n")
    lines[16] = b"?"
    log.path.write_bytes(b"\n".join(lines))
    with pytest.raises(StoreError, match="damaged at line 17"):
        reopened(tmp_path)


@pytest.mark.parametrize(
    ("heading", "message"),
    [
        (b"?", "line 1 is not its heading"),
        (b"{}", "line 1 is not its heading"),
        (b'{"schema_version":99}', "schema version 99.*Upgrade"),
        (b'{"schema_version":1,"checkpoint":"x","settings":"y"}', "another checkpoint"),
    ],
)
def test_a_foreign_heading_is_refused(tmp_path: Path, heading: bytes, message: str) -> None:
    log = reopened(tmp_path)
    log.path.write_bytes(heading + b"\n")
    with pytest.raises(StoreError, match=message):
        reopened(tmp_path)


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.append(pairs(1))
    log.compact()
    [segment] = tmp_path.glob("*.parquet")
    segment.write_bytes(segment.read_bytes()[:-10])
    with pytest.raises(StoreError, match=rf"{segment.name} is damaged.*Delete that file"):
        reopened(tmp_path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), segment)
    with pytest.raises(StoreError, match="not a file of answers"):
        reopened(tmp_path)


def test_a_full_disk_loses_the_batch_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = reopened(tmp_path)
    log.append(pairs(1))
    real = os.write

    def half_then_full(descriptor: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", full)
        return real(descriptor, data[: len(data) // 2])

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(StoreError, match=r"No space left.*--out DIR"):
        log.append(pairs(2, 3))
    monkeypatch.setattr(os, "write", real)
    assert contents(log) == {1: answer(1)}
    log.append(pairs(4))
    assert contents(reopened(tmp_path)) == {1: answer(1), 4: answer(4)}


def test_an_interrupt_between_partial_writes_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = reopened(tmp_path)
    real = os.write

    def interrupted(descriptor: int, data: Any) -> int:
        real(descriptor, data[:30])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append(pairs(1))
    log.append(pairs(2))
    assert contents(reopened(tmp_path)) == {2: answer(2)}


def test_a_closed_log_refuses_appends(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.close()
    with pytest.raises(StoreError, match="closed"):
        log.append(pairs(1))


KILLED = """
import os, sys
from pathlib import Path
from mambabench.store.answers import AnswerLog
from mambabench.fingerprint import digest
log = AnswerLog(Path(sys.argv[1]), digest("checkpoint"), "fp32")
AnswerLog.ROLL_ANSWERS = 40
AnswerLog.MAX_SEGMENTS = 2
number = 0
while True:
    batch = range(number, number + 5)
    log.append([(digest(["request", n]), {"logprob": -n / 7, "is_greedy": n % 2 == 0}) for n in batch])
    number += 5
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [5, 45, 120, 165, 300])
def test_a_killed_writer_loses_only_what_append_had_not_returned(tmp_path: Path, after: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    confirmed = 0
    with process:
        for line in process.stdout:
            confirmed = int(line)
            if confirmed >= after:
                process.send_signal(signal.SIGKILL)
                break
        confirmed = max([confirmed, *(int(line) for line in process.stdout.read().split())])
    log = reopened(tmp_path)
    found = contents(log, range(confirmed + 200))
    assert set(range(confirmed)) <= set(found)
    assert all(value == answer(n) for n, value in found.items())
    assert len(found) == len(log)


def test_a_large_log_opens_quickly_and_exactly(tmp_path: Path) -> None:
    import time

    numbers = range(100_000)
    log = reopened(tmp_path)
    keys = [digest(n) for n in numbers]
    log.append([(k, {"logprob": -math.sqrt(n), "is_greedy": n % 3 == 0}) for n, k in enumerate(keys)])
    log.compact()
    start = time.perf_counter()
    again = reopened(tmp_path)
    # Measured 0.06 s; the bound only tells columns from a Python object an answer.
    assert time.perf_counter() - start < 2.0
    assert len(again) == len(numbers)
    for n in (0, 1, 2, 777, 99_999):
        assert again.get(keys[n]) == {"logprob": -math.sqrt(n), "is_greedy": n % 3 == 0}


def test_the_log_is_readable_text(tmp_path: Path) -> None:
    log = reopened(tmp_path)
    log.append(pairs(1))
    heading, line = log.path.read_text().splitlines()
    assert json.loads(heading) == {"schema_version": 1, "checkpoint": CHECKPOINT, "settings": "fp32"}
    assert json.loads(line) == {"k": key(1), **answer(1)}
