"""A small grammar of stories: a hero, a place, something that happens, an ending."""

# ruff: noqa: SIM905 - lists of words are easier to read and to extend without quotes

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

HEROES = (
    "cat dog mouse bear fox rabbit bird frog lion elephant duck owl horse pig cow sheep wolf hen "
    "monkey turtle boy girl king queen farmer sailor robot dragon wizard knight baker fisherman"
).split()
# Heroes and friends have names of their own: a greedy model would give both the likeliest one.
HERO_NAMES = "Mina Tom Lily Oscar Ruby Leo Nora Felix Ada Ben".split()
FRIEND_NAMES = "Clara Hugo Ivy Max Rosa Sam Tilda Finn Emma Otto".split()
TRAITS = "little brave kind clever shy merry old young lonely curious".split()
PLACES = (
    "an old house near the river",
    "a small village by the sea",
    "a deep green forest",
    "a quiet garden",
    "a castle on a hill",
    "a farm at the end of the road",
    "a tower full of books",
    "a cave behind the waterfall",
)
FINDS = (
    "a golden key",
    "a red ball",
    "a letter without a name",
    "a map of the hills",
    "a silver bell",
    "a box full of stars",
    "a lost lamp",
    "a tiny boat",
)
WISHES = (
    "wanted to see the sea",
    "wanted to find a friend",
    "dreamed of flying",
    "looked for the end of the rainbow",
    "wanted to learn a song",
    "hoped to find a treasure",
)
TROUBLES = (
    "a storm came and the rain fell all night",
    "the bridge was broken",
    "the path was lost in the fog",
    "the lamp went out and it was dark",
    "a big rock lay in the way",
    "the snow covered everything",
)
HELPS = (
    "gave {hero} a warm blanket and some soup",
    "knew another way",
    "carried {hero} over the water",
    "sang a song until the fear was gone",
    "shared some bread and honey",
    "lit a small fire",
)
ENDINGS = (
    "In the end they came home together and were happy.",
    "From that day on they were the best of friends.",
    "And {hero} never felt alone again.",
    "That night {hero} slept well and dreamed of the stars.",
    "Everyone in the village danced until the morning.",
    "And if they are not asleep, they are still laughing.",
)
SAD_MIDDLES = (
    "Every evening {hero} sat at the window and waited.",
    "The summer passed, and the leaves fell from the trees.",
    "No letter came, and no one knocked at the door.",
    "{hero} wrote a song about the days when they were together.",
    "The winter was long and the nights were cold.",
    "{hero} walked to the sea and called the name of {friend}, but only the wind answered.",
    "Sometimes {hero} heard a voice in a dream and woke up with tears.",
    "The old clock on the wall had stopped, and nobody wound it again.",
)
SAD_ENDINGS = (
    "In the spring {hero} planted a tree, and it still stands there today.",
    "And so {hero} learned that love stays, even when a friend must go.",
    "The song was never finished, but the birds still sing it.",
    "And {hero} kept the memory, for it was all that was left.",
)


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _cast(random: Random, hero: str | None, friend: str | None) -> tuple[str, str, str, str]:
    """Two kinds and two names. *hero* and *friend* are kinds, drawn where they are None."""
    kinds = [kind for kind in HEROES if kind not in (hero, friend)]
    names = random.choice(HERO_NAMES), random.choice(FRIEND_NAMES)
    first, second = random.sample(kinds, 2)
    return hero or first, friend or second, *names


def story(random: Random, hero: str | None = None, friend: str | None = None) -> str:
    """A happy story of six or seven sentences."""
    kind, other, name, second = _cast(random, hero, friend)
    sentences = [
        f"Once upon a time there was {_article(random.choice(TRAITS) + ' ' + kind)} called {name}.",
        f"{name} lived in {random.choice(PLACES)} and {random.choice(WISHES)}.",
        f"One day {name} found {random.choice(FINDS)} and went on a journey.",
        f"But {random.choice(TROUBLES)}.",
        f"Then {name} met {_article(random.choice(TRAITS) + ' ' + other)} called {second}.",
        f"{second} {random.choice(HELPS).format(hero=name)}.",
        random.choice(ENDINGS).format(hero=name),
    ]
    return " ".join(sentences)


def sad_story(random: Random, hero: str | None = None, friend: str | None = None) -> str:
    """A longer story with a sad ending, of nine to eleven sentences."""
    kind, other, name, second = _cast(random, hero, friend)
    # in their fixed order, so that the model need not remember which of them it used
    chosen = sorted(random.sample(range(len(SAD_MIDDLES)), random.randint(4, 6)))
    middles = [SAD_MIDDLES[index] for index in chosen]
    sentences = [
        f"Once upon a time there was {_article(random.choice(TRAITS) + ' ' + kind)} called {name}.",
        f"{name} lived in {random.choice(PLACES)} with {_article(other)} called {second}.",
        f"They were always together, and every day {second} told {name} a story.",
        f"But one night {random.choice(TROUBLES)}, and in the morning {second} was gone.",
        *(middle.format(hero=name, friend=second) for middle in middles),
        random.choice(SAD_ENDINGS).format(hero=name),
    ]
    return " ".join(sentences)
