"""Write every command's help text into docs/commands.md, or check that it is up to date there.

python tools/help_texts.py            # write
python tools/help_texts.py --check    # exit 1 if the file differs, or a command has no example
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.testing import CliRunner

from mambabench.cli import COMMANDS, cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
_WIDTH = 100


def render() -> str:
    """Return the page: the help of the group and of each command, as the terminal shows it."""
    parts = [
        "# Commands",
        "",
        "Written by `python tools/help_texts.py` from the commands themselves.",
        "",
    ]
    for args in ([], *_names()):
        shown = CliRunner().invoke(
            cli, [*args, "--help"], prog_name="mambabench", terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        assert shown.exit_code == 0, shown.output
        parts += [f"## mambabench {' '.join(args)}".rstrip(), "", "```text", shown.output.rstrip(), "```", ""]
    return "\n".join(parts)


def _names() -> list[list[str]]:
    """Return the words that name each command, those of a group within it after the group."""
    found = []
    context = click.Context(cli)
    for name in COMMANDS:
        found.append([name])
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            found += [[name, inner] for inner in command.list_commands(context)]
    return found


def _command(names: list[str]) -> click.Command | None:
    command: click.Command | None = cli
    for name in names:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    return command


def without_examples() -> list[str]:
    """Return the commands whose help shows no example."""
    commands = {" ".join(names): _command(names) for names in _names()}
    return [n for n, c in commands.items() if c is None or f"mambabench {n}" not in (c.epilog or "")]


def main() -> int:
    """Write or check the page."""
    page = render()
    if "--check" not in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page)
        return 0
    wrong = [f"`mambabench {name} --help` shows no example" for name in without_examples()]
    if not PAGE.exists() or PAGE.read_text() != page:
        wrong.append("docs/commands.md is not what the commands say: run python tools/help_texts.py")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
