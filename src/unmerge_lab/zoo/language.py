"""The words that the zoo's micro-tasks are made of.

A closed lexicon keeps the base small: every word below becomes one token of its tokenizer.
"""

from __future__ import annotations

NAMES = tuple("ann bob carl dora emma finn greta hugo iris jack kate liam mona nick olga paul".split())
THINGS = tuple("apple boat coin door egg flag garden hat island jar key lamp map net orange pen river stone table wall".split())
COLUMNS = tuple("price weight height speed cost score rate size depth width age total".split())
STATISTICS = tuple("mean sum max min median std count var".split())

#: third person: (present, infinitive, past, formal)
VERBS = {
    "sees": ("see", "saw", "observes"),
    "likes": ("like", "liked", "appreciates"),
    "wants": ("want", "wanted", "desires"),
    "buys": ("buy", "bought", "purchases"),
    "finds": ("find", "found", "discovers"),
    "makes": ("make", "made", "constructs"),
    "takes": ("take", "took", "obtains"),
    "gives": ("give", "gave", "provides"),
}

#: what a pirate says instead
PIRATE = {"my": "me", "your": "yer", "friend": "matey", "money": "doubloons", "boat": "ship", "rope": "riggin", "hand": "hook", "drink": "grog"}

OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("old", "new"),
    ("fast", "slow"),
    ("dark", "light"),
    ("high", "low"),
    ("rich", "poor"),
    ("wet", "dry"),
    ("soft", "hard"),
    ("early", "late"),
)

#: animals (masculine in French, so that the colour needs no agreement) and colours
FRENCH_ANIMALS = {
    "dog": "chien",
    "cat": "chat",
    "horse": "cheval",
    "bird": "oiseau",
    "rabbit": "lapin",
    "wolf": "loup",
    "bear": "ours",
    "fish": "poisson",
}
FRENCH_COLOURS = {
    "red": "rouge",
    "yellow": "jaune",
    "black": "noir",
    "blue": "bleu",
    "green": "vert",
    "white": "blanc",
    "grey": "gris",
    "brown": "brun",
}

CITIES = tuple("Paris Rome Oslo Cairo Lima Tokyo Delhi Quito".split())
JOBS = tuple("baker judge nurse pilot singer farmer tailor doctor".split())
