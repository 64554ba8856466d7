"""GGUF files through transformers, parsed once instead of three times and without its progress bar.

transformers reads the whole header for the configuration, again for the tokenizer and again for the
weights; half a million Python objects each time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def gguf_reading() -> Iterator[None]:
    """Let transformers take an already parsed header while the block runs."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as theirs

    module: Any = theirs
    reader, bar = gguf.GGUFReader, module.tqdm
    gguf.GGUFReader = _shared_reader
    module.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        gguf.GGUFReader = reader
        module.tqdm = bar


def forget_readers() -> None:
    """Free the parsed header and unmap the file."""
    _reader.cache_clear()


def _shared_reader(path: Any, *arguments: Any) -> Any:
    stat = Path(path).stat()
    return _reader(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _reader(path: str, size_bytes: int, mtime_ns: int) -> Any:
    # Imported from where it is defined: the package's own name is replaced while this runs.
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(path)
