"""Conversations to prompts with the tokenizer's own template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mambabench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase


def require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Check that a tokenizer can render conversations.

    Raises:
        UsageError: naming the model whose tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UsageError(
            f"the tokenizer of {name} has no chat template",
            hint="Leave out --apply-chat-template, or name a tokenizer that has one with --tokenizer.",
        )


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, str]],
    *,
    add_generation_prompt: bool,
) -> str:
    """Render messages as one prompt; a template that knows no system role gets none.

    Args:
        tokenizer: holds the template.
        messages: dicts of "role" and "content".
        add_generation_prompt: whether to open the assistant's turn; otherwise the last message is
            left open to be continued.
    """
    from jinja2.exceptions import TemplateError

    def render(chat: Sequence[dict[str, str]]) -> str:
        return str(
            tokenizer.apply_chat_template(
                list(chat),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    try:
        return render(messages)
    except TemplateError:
        return render([m for m in messages if m["role"] != "system"])
