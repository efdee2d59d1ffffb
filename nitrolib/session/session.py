"""ChatSession: messages, template and policy on an engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, get_args

from ..errors import InvalidRequest, NitroError
from ..prompt import Message
from ..sampling import SamplingParams
from . import savefile
from .form import content_of, read_content
from .history import Exchange, Past, check_text
from .plan import ChatEngine, ContextPolicy, Known, Planner, Template
from .turn import Turn

if TYPE_CHECKING:
    import os

    from ..engine.request import Completion

FILE_KIND = "nitrolib chat session"
FILE_VERSION = 1


class ChatSession:
    """A conversation with a model.

        session = ChatSession(engine, system="Be brief.")
        for chunk in session.stream("Hello"):
            print(chunk.text, end="")
        print(session.send("And now?").text)

    engine: a loaded Engine; the session does not close it. If another model is loaded later, the
        conversation goes on with that one.
    system: the system message, or None.
    template: None is the model's own chat template, else (the file has none) PromptTemplate().
    params: how answers are sampled, where a call does not say otherwise.
    context_policy: "error" raises ContextOverflow for a conversation that does not fit.
        "drop_oldest_turns" leaves the oldest turns out of the prompt, until a quarter of the
        context (or `max_tokens`, if that is less) is free for the answer. `Completion.notes` says
        how many, and `messages` keeps them all.

    Every turn goes on from the token ids of the turn before, so the engine's cache covers all but
    the new tokens. The white space in front of an answer stays in the context as the model wrote
    it, though the answer's text has none.

    Turns change the history only when they end: an answer that failed, or that the caller left,
    leaves it as it was (see `Turn`). Any thread may call any method; one turn runs at a time, and
    starting a second one, or changing the history meanwhile, raises InvalidRequest (field
    "session") instead of waiting.
    """

    def __init__(
        self,
        engine: ChatEngine,
        *,
        system: str | None = None,
        template: Template | None = None,
        params: SamplingParams | None = None,
        context_policy: ContextPolicy = "error",
    ) -> None:
        if system is not None:
            check_text("system", system)
        if context_policy not in get_args(ContextPolicy):
            raise InvalidRequest(
                f"context_policy is {context_policy!r}",
                field="context_policy",
                value=context_policy,
                allowed='"error" or "drop_oldest_turns"',
            )
        self.engine = engine
        self.system = system
        self.template = template
        self.params = SamplingParams() if params is None else params
        self.context_policy: ContextPolicy = context_policy
        self._exchanges: Past = ()
        # Stands for the turn that runs; not the Turn itself, which ends when its caller drops it.
        self._ticket: object = None
        # Reentrant: a Turn may be collected, and so closed, while its own thread is inside.
        self._lock = threading.RLock()
        self._known: Known | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        system = () if self.system is None else (Message("system", self.system),)
        return (*system, *(one for each in self._exchanges for one in each.messages))

    # ---- turns -----------------------------------------------------------------------------

    def send(
        self, text: str, params: SamplingParams | None = None, *, timeout_s: float | None = None
    ) -> Completion:
        """Say `text` and wait for the whole answer.

        Raises what `Engine.submit` and `Generation.result` raise, and InvalidRequest where the
        template refuses the conversation.
        """
        with self.stream(text, params, timeout_s=timeout_s) as turn:
            return turn.result()

    def stream(
        self, text: str, params: SamplingParams | None = None, *, timeout_s: float | None = None
    ) -> Turn:
        """Say `text` and read the answer as it comes. Everything is checked, and the request is
        queued, before this returns; raises as `send` does."""
        check_text("text", text)
        return self._start(text, params, timeout_s)

    def regenerate(
        self, params: SamplingParams | None = None, *, timeout_s: float | None = None
    ) -> Completion:
        """Answer the last message again; the new answer takes the old one's place when it is whole.
        With the same seed it is the same answer. Raises InvalidRequest without a turn to repeat,
        else as `send`."""
        with self.stream_again(params, timeout_s=timeout_s) as turn:
            return turn.result()

    def stream_again(
        self, params: SamplingParams | None = None, *, timeout_s: float | None = None
    ) -> Turn:
        """`regenerate`, to be read as it comes."""
        return self._start(None, params, timeout_s)

    def undo(self) -> tuple[Message, Message]:
        """Take back the last message and its answer, and return the two. Raises InvalidRequest
        where there is none."""
        with self._lock:
            self._check_idle()
            last = self._last("undo")
            self._exchanges = self._exchanges[:-1]
            return last.messages

    def fork(self) -> ChatSession:
        """A session of its own with the same past, on the same engine; a turn that runs is not in
        it."""
        copy = ChatSession(
            self.engine,
            system=self.system,
            template=self.template,
            params=self.params,
            context_policy=self.context_policy,
        )
        copy._exchanges = self._exchanges
        return copy

    # ---- files -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the session to a JSON file: messages, settings, and the token ids of the last turn.

        The file is replaced whole. Raises OSError, and InvalidRequest for a template of another
        class than PromptTemplate and ChatTemplate. A turn that runs is not in it.
        """
        savefile.write(path, FILE_KIND, FILE_VERSION, content_of(self, self._exchanges))

    @classmethod
    def load(cls, path: str | os.PathLike[str], engine: ChatEngine) -> ChatSession:
        """The session that `save` wrote, on `engine`. Its token ids are used if the model has the
        same vocabulary, else the conversation is tokenized anew.

        Raises OSError where the file cannot be read and InvalidRequest where it is no session, of
        another version, or damaged.
        """
        content = savefile.read(path, FILE_KIND, FILE_VERSION)
        try:
            settings, exchanges = read_content(content)
            session = cls(engine, **settings)
        except (KeyError, TypeError, ValueError, AttributeError, NitroError) as error:
            raise savefile.refused(path, f"{type(error).__name__}: {error}") from error
        session._exchanges = exchanges
        return session

    # ---- inside ----------------------------------------------------------------------------

    def _start(
        self, text: str | None, params: SamplingParams | None, timeout_s: float | None
    ) -> Turn:
        """Say `text`, or with None the last message again."""
        with self._lock:
            self._check_idle()
            past = seen = self._exchanges
            if text is None:
                text = self._last("regenerate").user
                past = past[:-1]
            ticket = self._ticket = object()
        try:
            params = self.params if params is None else params
            template = self.engine.chat_template if self.template is None else self.template
            planner = Planner(
                engine=self.engine,
                system=self.system,
                template=template,
                policy=self.context_policy,
                params=params,
                known=self._knowledge(),
                seen=seen,
            )
            plan = planner.plan(past, text)
            generation = self.engine.submit(planner.request(plan, timeout_s))
        except BaseException:
            self._release(ticket)
            raise
        return Turn(self, ticket, generation, plan)

    def _release(self, ticket: object, history: Past | None = None) -> None:
        """The turn is over; with `history` that is the history now. Once a turn."""
        with self._lock:
            if self._ticket is ticket:
                self._ticket = None
                if history is not None:
                    self._exchanges = history

    def _check_idle(self) -> None:
        if self._ticket is not None:
            raise InvalidRequest(
                "a turn of this session is running",
                field="session",
                allowed="one turn at a time; fork() makes a second session",
            )

    def _last(self, what: str) -> Exchange:
        if not self._exchanges:
            raise InvalidRequest(
                f"there is nothing to {what}", field="session", allowed="a session with a turn"
            )
        return self._exchanges[-1]

    def _knowledge(self) -> Known:
        vocabulary = self.engine.vocabulary
        known = self._known
        if known is None or known.vocabulary is not vocabulary:
            known = self._known = Known.of(vocabulary)
        return known
