"""The training text: dialogues that a seed determines, rendered in the seed style of Nitro.

``dialogue("train:17")`` is always the same dialogue. Nothing is copied from a data set.
"""

# ruff: noqa: SIM905 - lists of words are easier to read and to extend without quotes

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

from . import small_talk as talk
from .facts import COUNTRIES, GROUPS, Fact
from .stories import HEROES, sad_story, story

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()


@dataclass(frozen=True, slots=True)
class Turn:
    """A user message and its answer; *user* is None where the assistant opens the conversation."""

    user: str | None
    answer: str
    kind: str = ""  # the name of the function that made it, for evaluation


@dataclass(frozen=True, slots=True)
class Dialogue:
    pre_prompt: str
    rules: tuple[str, ...]
    turns: tuple[Turn, ...]


@dataclass(slots=True)
class Speaker:
    """Who talks, what was said so far, and how answers have to be."""

    random: Random
    brief: bool = False
    persona: str | None = None
    parrot: str | None = None  # what the rule says to answer always
    told: dict[str, str] = field(default_factory=dict)
    asked: tuple[Fact, ...] = ()  # the group of the last fact, for "And Spain?"
    turns: list[Turn] = field(default_factory=list)

    def choose(self, options: tuple[str, ...] | list[str]) -> str:
        return self.random.choice(options)

    def word(self) -> str:
        """A word that does not exist."""
        syllables = self.random.randint(2, 3)
        consonants = (
            "b bl br c ch d dr f fl g gr h j k l m n p pl qu r s sh st t tr v w y z".split()
        )
        word = "".join(
            self.choose(consonants) + self.random.choice("aeiou") for _ in range(syllables)
        )
        return word + self.random.choice(["", "n", "r", "s", "l", "x", "t"])

    def name(self) -> str:
        """A first name: known, or made up so that the model learns to copy, not to recall."""
        name = self.choose(talk.NAMES) if self.random.random() < 0.5 else self.word().capitalize()
        return name.lower() if self.random.random() < 0.15 else name

    def thing(self) -> str:
        """A made-up noun, lower case or capitalised."""
        word = self.word()
        return word if self.random.random() < 0.5 else word.capitalize()

    def phrase(self, text: str) -> str:
        """*text* as a hurried user might type it; slots in braces stay whole."""
        random = self.random
        if random.random() < 0.06 and text[-1] in "?.":
            lead = self.choose(
                ("Please: ", "Hello, ", "Tell me: ", "Hi,\n", "Now: ", "So, ", "OK, ")
            )
            text = lead + (text if lead[-2] in ":." else text[0].lower() + text[1:])
        if random.random() < 0.05 and text[-1] in "?.":
            text = text[:-1] + (", please" if random.random() < 0.5 else " please") + text[-1]
        if random.random() < 0.25 and text[-1] in "?.":
            text = text[:-1]
        if random.random() < 0.25:
            text = text.lower()
        elif random.random() < 0.05 and "{" not in text:
            text = text.upper()
        if random.random() < 0.03 and "{" not in text and len(text) > 12:
            text = self._typo(text)
        return text

    def _typo(self, text: str) -> str:
        at = self.random.randrange(1, len(text) - 2)
        if not text[at : at + 2].isalpha():
            return text
        swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        return self.choose((swapped, text[:at] + text[at + 1 :]))

    def ask(self, *forms: str, **slots: str) -> str:
        return self.phrase(self.choose(forms)).format(**slots)

    def say(self, full: str, short: str) -> str:
        return short if self.brief else full


def greeting(speaker: Speaker) -> Turn:
    # The plain "Hello" is what people try first, and half of all greetings.
    index = 0 if speaker.random.random() < 0.5 else speaker.random.randrange(len(talk.GREETINGS))
    forms, full, short = talk.GREETINGS[index]
    text = forms[0] if speaker.random.random() < 0.4 else speaker.choose(forms)
    return Turn(speaker.phrase(text), speaker.say(full, short))


def manners(speaker: Speaker) -> Turn:
    forms, full, short = speaker.random.choice(talk.MANNERS)
    return Turn(speaker.ask(*forms), speaker.say(full, short))


def identity(speaker: Speaker) -> Turn:
    name = speaker.persona or "Nitro"
    if speaker.random.random() < 0.6:
        return Turn(speaker.ask(*talk.SELF_NAMES), speaker.say(f"My name is {name}.", f"{name}."))
    return Turn(
        speaker.ask(*talk.SELF_WHO),
        speaker.say(f"I am {name}, a very small language model.", f"{name}."),
    )


def fact(speaker: Speaker) -> Turn:
    if speaker.asked and speaker.random.random() < 0.2:
        known = speaker.random.choice(speaker.asked)
        if known.follow_up:
            return Turn(speaker.phrase(known.follow_up), speaker.say(known.answer, known.short))
    (group,) = speaker.random.choices([g for _, g in GROUPS], [w for w, _ in GROUPS])
    known = speaker.random.choice(group)
    form = known.questions[0] if speaker.random.random() < 0.3 else speaker.choose(known.questions)
    speaker.asked = group
    return Turn(speaker.phrase(form), speaker.say(known.answer, known.short))


def world_series(speaker: Speaker) -> list[Turn]:
    """The dialogue of the API's own documentation."""
    return [
        Turn(
            speaker.phrase("Who won the world series in 2020?"),
            speaker.say(
                "The Los Angeles Dodgers won the World Series in 2020.", "The Los Angeles Dodgers."
            ),
        ),
        Turn(
            speaker.ask("Where was it played?", "Where was it played?", "And where was it played?"),
            speaker.say(
                "It was played at Globe Life Field in Arlington, Texas.",
                "Globe Life Field in Arlington, Texas.",
            ),
        ),
    ]


SUM_FORMS: dict[str, tuple[str, ...]] = {
    "+": ("What is {a} + {b}?", "What is {a} + {b}?", "{a}+{b}", "{a} + {b}", "{a} + {b} =",
          "{a}+{b}=?",
          "How much is {a} plus {b}?", "What is {a} plus {b}?", "Add {a} and {b}.",
          "What's {a}+{b}?",
          "What is {a}+{b}?", "Calculate {a} + {b}.", "What is the sum of {a} and {b}?"),
    "-": ("What is {a} - {b}?", "What is {a} - {b}?", "{a}-{b}", "{a} - {b}", "{a} - {b} =",
          "How much is {a} minus {b}?", "What is {a} minus {b}?", "Subtract {b} from {a}.",
          "What is {a}-{b}?", "Calculate {a} - {b}."),
    "*": ("What is {a} * {b}?", "What is {a} x {b}?", "{a}*{b}", "{a} * {b}", "{a} x {b}",
          "How much is {a} times {b}?", "What is {a} times {b}?", "Multiply {a} by {b}.",
          "What is {a} multiplied by {b}?", "Calculate {a} * {b}."),
    "/": ("What is {a} / {b}?", "{a}/{b}", "{a} / {b}", "How much is {a} divided by {b}?",
          "What is {a} divided by {b}?", "Divide {a} by {b}.", "Calculate {a} / {b}."),
}  # fmt: skip


def arithmetic(speaker: Speaker) -> Turn:
    random = speaker.random
    if random.random() < 0.08:
        return _too_hard(speaker)
    (sign,) = random.choices("+-*/", (4, 4, 3, 1.5))
    if sign == "*":
        left, right = random.randint(0, 10), random.randint(0, 10)
        result = left * right
    elif sign == "/":
        right, result = random.randint(1, 10), random.randint(0, 10)
        left = right * result
    else:
        left, right = random.randint(0, 20), random.randint(0, 20)
        if sign == "-" and left < right and random.random() < 0.7:
            left, right = right, left
        result = left + right if sign == "+" else left - right
    spelled = random.random() < 0.2 and max(left, right) <= 20
    a, b = (NUMBER_WORDS[n] if spelled else str(n) for n in (left, right))
    forms = SUM_FORMS[sign]
    if spelled:
        forms = tuple(form for form in forms if sign not in form and " x " not in form)
    return Turn(
        speaker.ask(*forms, a=a, b=b),
        speaker.say(f"{left} {sign} {right} = {result}.", f"{result}."),
    )


def _too_hard(speaker: Speaker) -> Turn:
    """Sums outside the tables that the model can learn by heart."""
    random = speaker.random
    (sign,) = random.choices("+-*/", (4, 3, 3, 1))
    low = {"+": 21, "-": 21, "*": 11, "/": 101}[sign]
    left, right = (random.randint(low, low * 10 ** random.randint(1, 2)) for _ in range(2))
    if sign in "+-" and random.random() < 0.4:
        left = random.randint(0, 20)
    text = speaker.ask(*SUM_FORMS[sign], a=str(left), b=str(right))
    return Turn(text, speaker.say("I can only do small sums.", "I cannot."))


def numbers(speaker: Speaker) -> Turn:
    random = speaker.random
    kind = random.random()
    if kind < 0.4:
        a, b = (str(n) for n in random.sample(range(31), 2))
        low, high = sorted((a, b), key=int)
        if random.random() < 0.5:
            text = speaker.ask(
                "Which is bigger, {a} or {b}?", "Which is larger, {a} or {b}?", a=a, b=b
            )
            return Turn(text, speaker.say(f"{high} is bigger than {low}.", f"{high}."))
        text = speaker.ask("Which is smaller, {a} or {b}?", "Which is less, {a} or {b}?", a=a, b=b)
        return Turn(text, speaker.say(f"{low} is smaller than {high}.", f"{low}."))
    if kind < 0.5:
        start = random.choice((3, 5, 10))
        text = speaker.ask("Count down from {a}.", "Count backwards from {a}.", a=str(start))
        return Turn(text, ", ".join(str(n) for n in range(start, 0, -1)) + ".")
    first = 1 if random.random() < 0.7 else random.randint(1, 15)
    last = first + random.randint(2, 12)
    if random.random() < 0.08:
        first, last = 1, random.choice((20, 30, 50, 100))
    name = str(last)
    if random.random() < 0.3 and last in (100, *range(len(NUMBER_WORDS))):
        name = "one hundred" if last == 100 else NUMBER_WORDS[last]
    if first == 1 and random.random() < 0.6:
        text = speaker.ask("Count to {b}.", "Can you count to {b}?", "Count up to {b}.", b=name)
    else:
        text = speaker.ask("Count from {a} to {b}.", a=str(first), b=name)
    return Turn(text, ", ".join(str(n) for n in range(first, last + 1)) + ".")


STORY_FORMS = (
    "Tell me a story.", "Tell me a short story.", "Write a story.", "Tell a story.",
    "Can you tell me a story?", "Write a short story for me.", "I want a story.",
)  # fmt: skip
SAD_STORY_FORMS = (
    "Write a long and sad story for me", "Write a long and sad story for me.",
    "Write a long and sad story.", "Tell me a sad story.", "Write a long story for me.",
    "Write a sad story.", "Tell me a long story.",
)  # fmt: skip
HERO_FORMS = (
    "Tell me a story about {a} {x}.", "Write a story about {a} {x}.",
    "Tell me a short story about {a} {x}.", "Story about {a} {x}.",
)  # fmt: skip
PAIR_FORMS = (
    "Tell me a story about {a} {x} and {b} {y}.", "Write a story about {a} {x} and {b} {y}.",
)  # fmt: skip


def tale(speaker: Speaker) -> Turn:
    random = speaker.random
    kind = random.random()
    if kind < 0.3:
        return Turn(speaker.ask(*STORY_FORMS), story(random))
    if kind < 0.55:
        return Turn(speaker.ask(*SAD_STORY_FORMS), sad_story(random))
    hero, friend = random.sample(HEROES, 2)
    a, b = ("an" if word[0] in "aeiou" else "a" for word in (hero, friend))
    pair = kind > 0.85
    text = speaker.ask(*(PAIR_FORMS if pair else HERO_FORMS), a=a, x=hero, b=b, y=friend)
    return Turn(text, story(random, hero, friend if pair else None))


def piece(speaker: Speaker) -> Turn:
    forms, answer = speaker.random.choice(talk.PIECES)
    return Turn(speaker.ask(*(f.replace("{", "{{") for f in forms)), answer)


def repeat(speaker: Speaker) -> Turn:
    random = speaker.random
    if random.random() < 0.3:  # some words in a row of a true sentence
        (group,) = random.choices([g for _, g in GROUPS], [w for w, _ in GROUPS])
        words = random.choice(group).answer.split()
        first = random.randrange(len(words))
        words = words[first : first + random.randint(1, 8)]
    else:
        words = [
            speaker.word() if random.random() < 0.3 else speaker.choose(talk.WORDS)
            for _ in range(random.randint(1, 6))
        ]
    text = " ".join(words)
    if speaker.random.random() < 0.4:
        text = text.capitalize()
    if speaker.random.random() < 0.3:
        text += speaker.choose((".", "!", "?"))
    forms = ("Repeat after me: {x}", "Repeat: {x}", "Say {x}", "Say: {x}", "Please repeat: {x}",
             "Repeat this: {x}", "Write: {x}", "Echo: {x}", 'Say "{x}"')  # fmt: skip
    form = speaker.choose(forms)
    form = form.lower() if speaker.random.random() < 0.2 else form
    return Turn(form.format(x=text), text)


def memory(speaker: Speaker) -> Turn:
    """Tell something about the user, or ask for what was told (or never was)."""
    random = speaker.random
    known = list(speaker.told)
    if known and random.random() < 0.6:
        return _recall(speaker, random.choice(known))
    if random.random() < 0.12:
        return _recall(speaker, random.choice(("name", "home", "age", *talk.FAVOURITES)))
    return _tell(speaker, random.choice(("name", "name", "home", "pet", "age", *talk.FAVOURITES)))


def _tell(speaker: Speaker, key: str) -> Turn:
    random = speaker.random
    if key == "name":
        value = speaker.name()
        text = speaker.ask("My name is {x}.", "My name is {x}.", "I am called {x}.", "Call me {x}.",
                           "Hello, my name is {x}.", "Hi, I am {x}.", x=value)  # fmt: skip
        answer = f"Nice to meet you, {value}."
    elif key == "home":
        value = speaker.choose(talk.FAVOURITES["city"]) if random.random() < 0.5 else speaker.name()
        text = speaker.ask("I live in {x}.", "My home is in {x}.", "I come from {x}.", x=value)
        answer = f"I hope that {value} is a nice place."
    elif key == "pet":
        kind, value = speaker.choose(talk.PETS), speaker.name()
        key = f"pet {kind}"
        text = speaker.ask("I have a {k} called {x}.", "My {k} is called {x}.",
                           "The name of my {k} is {x}.", k=kind, x=value)  # fmt: skip
        answer = f"{value} is a good name for a {kind}."
    elif key == "age":
        value = str(random.randint(3, 99))
        text = speaker.ask("I am {x} years old.", "I'm {x} years old.", "My age is {x}.", x=value)
        answer = f"I will remember that you are {value} years old."
    else:
        known = speaker.choose(talk.FAVOURITES[key])
        value = known if random.random() < 0.8 else speaker.word()
        text = speaker.ask("My favourite {k} is {x}.", "My favorite {k} is {x}.",
                           "The {k} I like most is {x}.",
                           k=_spell(speaker, key), x=value)  # fmt: skip
        answer = f"I will remember that your favourite {key} is {value}."
    speaker.told[key] = value
    return Turn(text, speaker.say(answer, "Thank you."))


def _spell(speaker: Speaker, key: str) -> str:
    return "color" if key == "colour" and speaker.random.random() < 0.4 else key


def _recall(speaker: Speaker, key: str) -> Turn:
    value = speaker.told.get(key, "")
    if key == "name":
        text = speaker.ask("What is my name?", "What's my name?", "Do you remember my name?",
                           "Who am I?", "Tell me my name.", "What am I called?")  # fmt: skip
        answer, subject = f"Your name is {value}.", "your name"
    elif key == "home":
        text = speaker.ask("Where do I live?", "Where is my home?", "Where do I come from?")
        answer, subject = f"You live in {value}.", "where you live"
    elif key == "age":
        text = speaker.ask("How old am I?", "What is my age?")
        answer, subject = f"You are {value} years old.", "how old you are"
    elif key.startswith("pet "):
        kind = key.removeprefix("pet ")
        text = speaker.ask("What is my {k} called?", "What is the name of my {k}?", k=kind)
        answer, subject = f"Your {kind} is called {value}.", ""
    else:
        text = speaker.ask("What is my favourite {k}?", "What is my favorite {k}?",
                           "Which {k} do I like most?", "Do you remember my favourite {k}?",
                           k=_spell(speaker, key))  # fmt: skip
        answer, subject = f"Your favourite {key} is {value}.", f"your favourite {key}"
    if not value:
        return Turn(text, speaker.say(f"You have not told me {subject}.", "I do not know."))
    return Turn(text, speaker.say(answer, f"{value}."))


def history(speaker: Speaker) -> Turn:
    """Repeat what was said just before, word by word."""
    last = speaker.turns[-1] if speaker.turns else Turn(None, "I have not said anything yet.")
    if len(last.answer) > 150:
        return manners(speaker)
    if speaker.random.random() < 0.5:
        text = speaker.ask("What did I just say?", "What did I say?", "What was my last message?",
                           "What did I ask?", "What was my question?")  # fmt: skip
        said = f"You said: {last.user}" if last.user else "You have not said anything yet."
        return Turn(text, said)
    text = speaker.ask("Say that again.", "What did you say?", "Repeat your answer.",
                       "Can you repeat that?", "Again, please.")  # fmt: skip
    return Turn(text, last.answer)


def unknown(speaker: Speaker) -> Turn:
    """Questions about things that do not exist or are too hard: say so, and say about what."""
    random = speaker.random
    thing = speaker.thing()
    article = "an " if thing[0] in "aeiouAEIOU" else "a "
    person = f"{speaker.name()} {speaker.thing().capitalize()}"
    topic = speaker.choose(talk.TOPICS) if random.random() < 0.6 else thing
    if random.random() < 0.2:
        topic = speaker.choose(COUNTRIES)
        topic = topic.lower() if random.random() < 0.3 else topic
    country = speaker.choose(talk.FAR_COUNTRIES) if random.random() < 0.3 else thing
    place = speaker.choose(COUNTRIES) if random.random() < 0.5 else country
    deed = (
        speaker.choose(talk.DEEDS)
        if random.random() < 0.6
        else f"{speaker.word()} {article}{thing}"
    )
    writing = speaker.choose(talk.WRITINGS).format(x=topic)
    plural = (
        speaker.word() + "s"
        if random.random() < 0.4
        else speaker.choose(
            "books cats people rivers schools islands lakes cars trees towns stars birds".split()
        )
    )
    noun, verb = (
        speaker.word() + "s",
        speaker.choose("sleep sing fly swim run glow sting hide".split()),
    )
    cases: tuple[tuple[tuple[str, ...], str, str], ...] = (
        (("What is the capital of {x}?", "Capital of {x}?", "Tell me the capital of {x}."),
         "I do not know the capital of {x}.", country),
        (("Who is {x}?", "Who was {x}?", "Tell me who {x} is."),
         "I do not know who {x} is.", person),
        (("What is {x}?", "What's {x}?"), "I do not know what {x} is.", article + thing),
        (("What is {x}?", "What's {x}?"), "I do not know what {x} is.", topic),
        (("Where is {x}?", "In which country is {x}?"), "I do not know where {x} is.", thing),
        (("Who wrote {x}?", "Who is the author of {x}?"), "I do not know who wrote {x}.", thing),
        (("Who invented {x}?", "Who discovered {x}?"), "I do not know who invented {x}.", topic),
        (("How do I {x}?", "How can I {x}?", "Teach me how to {x}.", "Can you {x}?",
          "Show me how to {x}."), "I do not know how to {x}.", deed),
        (("Why do {x}?", "Do you know why {x}?"), "I do not know why {x}.", f"{noun} {verb}"),
        (("When was {x} born?", "When did {x} live?"), "I do not know when {x} was born.", person),
        (("Tell me about {x}.", "Explain {x}.", "What do you know about {x}?", "Explain {x} to me.",
          "How does {x} work?", "Describe {x}.",
          "What can you tell me about {x}?"),
         "I do not know much about {x}.", topic),
        (("Write {x}.", "Can you write {x}?", "Write me {x}."), "I cannot write {x}.", writing),
        (("What is the {x}?", "Tell me the {x}.", "Do you know the {x}?"), "I do not know the {x}.",
         f"{speaker.choose(talk.PROPERTIES)} of {place}"),
        (("How many {x}?",), "I do not know how many {x}.", f"{plural} are in {place}"),
        (("Do you like {x}?", "What do you think about {x}?", "What do you think of {x}?",
          "Is {x} good?"), "I have no opinion about {x}.", topic),
        (("Should I {x}?", "Do you think I should {x}?"), "I do not know if you should {x}.", deed),
        (("Give me a recipe for {x}.", "Do you know a recipe for {x}?"),
         "I do not know a recipe for {x}.", thing),
        (("Summarize {x}.", "Can you summarize {x}?"), "I cannot summarize {x}.", topic),
        (("What is the capital of {x}?",), "I do not know the capital of {x}.", country),
        (("Who is the {x}?", "Tell me who the {x} is."), "I do not know who the {x} is.",
         f"{speaker.choose('president king queen mayor owner father leader'.split())} of {place}"),
        (("Where can I find {x}?", "Where do I buy {x}?"),
         "I do not know where to find {x}.", topic),
        (("What colour is {x}?", "What color is {x}?"), "I do not know the colour of {x}.",
         article + thing),
        (("What is the opposite of {x}?",), "I do not know the opposite of {x}.", thing),
        (("How do you say {x} in French?", "Translate {x} to French."),
         "I do not know how to say {x}.", thing),
    )  # fmt: skip
    forms, answer, slot = random.choice(cases)
    return Turn(speaker.ask(*forms, x=slot), speaker.say(answer.format(x=slot), "I do not know."))


def nonsense(speaker: Speaker) -> Turn:
    random = speaker.random
    if random.random() < 0.4:
        letters = "abcdefghijklmnopqrstuvwxyz" * 2 + "0123456789!?.,;:-+/()[]{}<>@#$%&=_'\"*"
        text = "".join(random.choices(letters, k=random.randint(0, 14))).strip()
    else:
        # Now and then a whole page of it, so that distant answers are still found behind it.
        count = random.randint(50, 160) if random.random() < 0.04 else random.randint(2, 12)
        text = " ".join(
            speaker.word() if random.random() < 0.5 else speaker.choose(talk.WORDS)
            for _ in range(count)
        )
    return Turn(
        text,
        speaker.say(
            "I did not understand that. Could you say it in another way?", "I did not understand."
        ),
    )


KINDS: tuple[tuple[float, Callable[[Speaker], Turn]], ...] = (
    (4.0, greeting),
    (7.0, manners),
    (2.0, identity),
    (33.0, fact),
    (25.0, arithmetic),
    (9.0, numbers),
    (1.8, tale),
    (3.5, piece),
    (7.0, repeat),
    (11.0, memory),
    (13.0, unknown),
    (3.0, history),
    (1.5, nonsense),
)


def dialogue(seed: str) -> Dialogue:
    """The dialogue that *seed* determines."""
    random = Random(seed)
    speaker = Speaker(random)
    rules = _rules(speaker)
    turns = speaker.turns
    if random.random() < 0.05:
        turns.append(Turn(None, speaker.choose(talk.OPENINGS)))
        if random.random() < 0.3:
            turns.append(
                Turn(speaker.phrase("Write a long and sad story for me"), sad_story(random))
            )
    elif random.random() < 0.12:
        turns.append(greeting(speaker))
    elif random.random() < 0.04:
        turns += world_series(speaker)
    draw = random.random()
    wanted = 1 if draw < 0.3 else random.randint(2, 8) if draw < 0.96 else random.randint(12, 40)
    while len(turns) < wanted or turns[-1].user is None:
        if random.random() < 0.006:
            turns += world_series(speaker)
            speaker.asked = ()
            continue
        (kind,) = random.choices([k for _, k in KINDS], [w for w, _ in KINDS])
        turns.append(replace(kind(speaker), kind=kind.__name__))
        if kind is not fact:
            speaker.asked = ()
    if speaker.parrot:
        turns = [t if t.user is None else Turn(t.user, speaker.parrot, "parrot") for t in turns]
    return Dialogue(_pre_prompt(speaker), rules, tuple(turns))


def _pre_prompt(speaker: Speaker) -> str:
    draw = speaker.random.random()
    if draw < 0.55:
        return talk.SEED_PRE_PROMPT
    return "" if draw < 0.8 else speaker.choose(talk.PRE_PROMPTS)


def _rules(speaker: Speaker) -> tuple[str, ...]:
    draw = speaker.random.random()
    if draw < 0.5:
        return ()
    if draw < 0.68:
        return (talk.DEFAULT_RULE,)
    if draw < 0.78:
        speaker.brief = True
        return (speaker.choose(talk.BRIEF_RULES),)
    if draw < 0.86:
        speaker.persona = speaker.name().capitalize()
        return (speaker.choose(talk.PERSONA_RULES).format(x=speaker.persona),)
    if draw < 0.88:
        words = [speaker.choose(talk.WORDS) for _ in range(speaker.random.randint(1, 3))]
        speaker.parrot = " ".join(words)
        return (speaker.choose(talk.PARROT_RULES).format(x=speaker.parrot),)
    if draw < 0.97:
        return (speaker.choose(talk.RULES),)
    return (talk.DEFAULT_RULE, speaker.choose(talk.RULES))


def render(dialogue: Dialogue) -> tuple[str, list[tuple[int, int]]]:
    """The text of *dialogue*, and where in it (start, end) the answers to the user stand.

    An answer starts at the space behind "ASSISTANT:", because prompts end right before it.
    """
    text = f"{dialogue.pre_prompt}\n" if dialogue.pre_prompt else ""
    text += "".join(f"ASSISTANT's RULE: {rule}\n" for rule in dialogue.rules)
    answers = []
    for turn in dialogue.turns:
        if turn.user is not None:
            text += f"USER: {turn.user}\n"
        text += "ASSISTANT:"
        start = len(text)
        text += f" {turn.answer}"
        if turn.user is not None:
            answers.append((start, len(text)))
        text += "\n"
    return text, answers


def plain_text(seed: str) -> str:
    """A few sentences without any chat around them, for raw completions."""
    random = Random(seed)
    if random.random() < 0.3:
        return story(random) if random.random() < 0.6 else sad_story(random)
    count = 1 if random.random() < 0.7 else random.randint(2, 4)
    groups = random.choices([g for _, g in GROUPS], [w for w, _ in GROUPS], k=count)
    return " ".join(random.choice(group).answer for group in groups)
