"""Profile: how a loaded model is talked to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from nitrolib.errors import ModelFileError

if TYPE_CHECKING:
    from nitrolib.engine import Engine
    from nitrolib.engine.request import Overflow
    from nitrolib.prompt import ChatTemplate, PromptTemplate

__all__ = ["Profile"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a loaded model is talked to; the engine itself knows no dialect.

    template: None is the one in the model's file, else (it has none, or a broken one) Nitro's
        default prompts. A lease has it resolved.
    stop: stop words of chats that give none.
    repeat_last_n: window of chats that give none; None is the dialect's default.
    context_policy: of chats that name none, see GenerationRequest.
    model_type: "llm"; anything else is an embedding model, which refuses chats.
    alias: name to show instead of the path.
    warnings: what the load asked for and is not as asked.
    """

    template: PromptTemplate | ChatTemplate | None = None
    stop: tuple[str, ...] = ()
    repeat_last_n: int | None = None
    context_policy: Overflow = "error"
    model_type: str = "llm"
    alias: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def chats(self) -> bool:
        """Whether the model answers chats."""
        return self.model_type == "llm"

    def resolved(self, engine: Engine) -> Profile:
        """This profile with the template that the model of *engine* is talked to in. Raises
        ModelNotLoaded."""
        if self.template is not None:
            return self
        from nitrolib.prompt import PromptTemplate

        try:
            template = cast("PromptTemplate | ChatTemplate", engine.chat_template)
            return replace(self, template=template)
        except ModelFileError as error:
            note = f"the chat template in the file is not used: {error.message}"
            warnings = tuple(dict.fromkeys((*self.warnings, note)))
            return replace(self, template=PromptTemplate(), warnings=warnings)
