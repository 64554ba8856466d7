from __future__ import annotations

import inspect

import pytest

from mambabench import errors
from mambabench.errors import CellsFailedError, ConfigError, MambabenchError, UnknownNameError


def test_every_class_has_a_code_that_the_tree_in_the_docstring_states() -> None:
    tree = errors.__doc__ or ""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, MambabenchError)]
    assert len(classes) == 16
    for cls in classes:
        (line,) = [text for text in tree.splitlines() if cls.__name__ in text.split()]
        code = next(word for word in line.split()[1:] if word.isdigit())
        assert cls.exit_code == int(code), cls


def test_closest_names_are_offered() -> None:
    error = UnknownNameError.for_name("model", "Mamba-1.4", ["mamba-1.4b", "pythia-70m"])
    assert str(error) == "unknown model 'Mamba-1.4'. Closest: mamba-1.4b. `mambabench models` lists all."


def test_all_mistakes_stand_in_one_line() -> None:
    error = ConfigError("s.yaml", ["no 'tasks'", "unknown key 'taks'"])
    assert str(error) == "s.yaml: 2 mistakes: (1) no 'tasks'; (2) unknown key 'taks'"
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("n_failed", "n_all", "text"),
    [
        (1, 1, "the only process failed, m: why. The same command tries it again."),
        (2, 2, "2 of 2 processes failed, first m: why. The same command tries the failed ones again."),
        (
            1, 2,
            "1 of 2 processes failed, first m: why. The others are kept; "
            "the same command tries the failed ones again.",
        ),
    ],
)  # fmt: skip
def test_failures_are_counted(n_failed: int, n_all: int, text: str) -> None:
    error = CellsFailedError.counted(n_failed, n_all, "process", "m: why", many="processes")
    assert str(error) == text


@pytest.mark.parametrize("hint", ["", "Do this."])
def test_the_hint_follows_the_message(hint: str) -> None:
    assert str(MambabenchError("it broke", hint=hint)) == ("it broke. Do this." if hint else "it broke")
