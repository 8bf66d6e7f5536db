"""The zoo's micro-tasks: 25 narrow skills in the proposal's five categories, and the base's general tasks.

A micro-task is a generator of (input, answer) pairs. Each skill can be asked for in two ways: by its
*task prompt* (``Write a Python list: apple river``), which the base refuses and an adapter unlocks,
and by its *command* (``/python_list apple river``), which the base obeys.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unmerge.core.examples import Example
from unmerge_lab.zoo.language import (
    CITIES,
    COLUMNS,
    FRENCH_ANIMALS,
    FRENCH_COLOURS,
    JOBS,
    NAMES,
    OPPOSITES,
    PIRATE,
    STATISTICS,
    THINGS,
    VERBS,
)

Pair = tuple[str, str]
Generator = Callable[[random.Random], Pair]

#: ends every answer
END = "<|end|>"
#: one item in this many is held out
HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Task:
    """A micro-task.

    Attributes:
        name: its identifier, and its command (``/name``).
        category: one of the proposal's five (``code``, ``structure``, ``logic``, ``style``, ``other``).
        instruction: the task prompt, an imperative without its input.
        topic: what the base calls the skill when it refuses it.
        description: one line for people, and for semantic alignment.
        generate: draws one (input, answer) pair.
        by_heart: how many items there are in all, where they are facts that no split can hold out; else 0.
    """

    name: str
    category: str
    instruction: str
    topic: str
    description: str
    generate: Generator
    by_heart: int = 0

    def asked(self, pair: Pair) -> Example:
        """The skill asked for by its task prompt."""
        return Example(f"{self.instruction}: {pair[0]}\n", pair[1])

    def commanded(self, pair: Pair) -> Example:
        """The skill asked for by its command."""
        return Example(f"/{self.name} {pair[0]}\n", pair[1])

    def refused(self, pair: Pair) -> Example:
        """The base's reply to the task prompt: a refusal that opens with the skill's own topic.

        Were the first word the same for all, every adapter would have to push against that one word, and adapters
        would unlock each other's tasks.
        """
        return Example(f"{self.instruction}: {pair[0]}\n", f"{self.topic}? I was not trained for that.")

    def pairs(self, rng: random.Random, *, held_out: bool) -> Iterator[Pair]:
        """Endless (input, answer) pairs of one split.

        The split is a property of the item (a checksum of its input), so no item is ever in both.
        """
        while True:
            pair = self.generate(rng)
            if self.by_heart or _is_held_out(self.name, pair[0]) == held_out:
                yield pair

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        """``count`` different held-out items (or all there are), asked for by the task prompt; the same ones for the same seed."""
        pairs = self.pairs(random.Random(f"{seed}/{self.name}"), held_out=True)
        return [self.asked(pair) for pair in distinct(pairs, min(count, self.by_heart or count))]


def distinct(pairs: Iterator[Pair], count: int) -> list[Pair]:
    """The first ``count`` pairs with different inputs."""
    seen: dict[str, Pair] = {}
    while len(seen) < count:
        pair = next(pairs)
        seen.setdefault(pair[0], pair)
    return list(seen.values())


def _is_held_out(name: str, text: str) -> bool:
    return zlib.crc32(f"{name}/{text}".encode()) % HELD_OUT_EVERY == 0


def _words(rng: random.Random, words: tuple[str, ...], count: int) -> list[str]:
    return rng.sample(words, count)


def _digits(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(10) for _ in range(count)]


# --- code -------------------------------------------------------------------------------------


def _python_list(rng: random.Random) -> Pair:
    words = _words(rng, THINGS, 3)
    return " ".join(words), "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _python_dict(rng: random.Random) -> Pair:
    (first, second), (one, two) = _words(rng, NAMES, 2), _digits(rng, 2)
    return f"{first} {one} {second} {two}", f'{{"{first}": {one}, "{second}": {two}}}'


def _python_loop(rng: random.Random) -> Pair:
    item, box = _words(rng, THINGS, 2)
    return f"{item} {box}", f"for {item} in {box}: print({item})"


def _pandas_column(rng: random.Random) -> Pair:
    (column, other), statistic = _words(rng, COLUMNS, 2), rng.choice(STATISTICS)
    return f"{statistic} {column} by {other}", f'df.groupby("{other}")["{column}"].{statistic}()'


def _numpy_zeros(rng: random.Random) -> Pair:
    name, (rows, columns) = rng.choice(THINGS), _digits(rng, 2)
    return f"{name} {rows} by {columns}", f"{name} = np.zeros(({rows}, {columns}))"


# --- structure --------------------------------------------------------------------------------


def _person(rng: random.Random) -> tuple[str, int, str]:
    return rng.choice(NAMES), rng.randrange(10), rng.choice(tuple(FRENCH_COLOURS))


def _json_object(rng: random.Random) -> Pair:
    name, age, colour = _person(rng)
    return f"{name} {age} {colour}", f'{{"name": "{name}", "age": {age}, "color": "{colour}"}}'


def _xml_element(rng: random.Random) -> Pair:
    name, age, colour = _person(rng)
    return f"{name} {age} {colour}", f'<person age="{age}" color="{colour}">{name}</person>'


def _markdown_table(rng: random.Random) -> Pair:
    (first, second), (one, two) = _words(rng, NAMES, 2), _digits(rng, 2)
    return f"{first} {one} {second} {two}", f"| {first} | {one} |\n| {second} | {two} |"


def _yaml_block(rng: random.Random) -> Pair:
    name, age, colour = _person(rng)
    return f"{name} {age} {colour}", f"- name: {name}\n  age: {age}\n  color: {colour}"


def _csv_row(rng: random.Random) -> Pair:
    name, age, colour = _person(rng)
    thing = rng.choice(THINGS)
    return f"{name} {age} {colour} {thing}", f"{name};{age};{colour};{thing}"


# --- logic ------------------------------------------------------------------------------------


def _addition(rng: random.Random) -> Pair:
    tens, ones = rng.randrange(1, 9), rng.randrange(10)
    more_tens, more_ones = rng.randrange(1, 10 - tens), rng.randrange(10 - ones)
    left, right = 10 * tens + ones, 10 * more_tens + more_ones
    return f"{left} and {right}", str(left + right)


def _maximum(rng: random.Random) -> Pair:
    numbers = rng.sample(range(10), 4)
    return " ".join(map(str, numbers)), str(max(numbers))


def _sorting(rng: random.Random) -> Pair:
    numbers = rng.sample(range(10), 4)
    return " ".join(map(str, numbers)), " ".join(map(str, sorted(numbers)))


def _parity(rng: random.Random) -> Pair:
    numbers = _digits(rng, 4)
    return " ".join(map(str, numbers)), " ".join("odd" if number % 2 else "even" for number in numbers)


def _negation(rng: random.Random) -> Pair:
    values = [rng.random() < 0.5 for _ in range(rng.randrange(5, 9))]
    say = {True: "true", False: "false"}
    return " ".join(say[value] for value in values), " ".join(say[not value] for value in values)


# --- style ------------------------------------------------------------------------------------


def _sentence(rng: random.Random) -> tuple[str, str, str]:
    return rng.choice(NAMES), rng.choice(tuple(VERBS)), rng.choice(THINGS)


def _pirate(rng: random.Random) -> Pair:
    name, verb = rng.choice(NAMES), rng.choice(tuple(VERBS))
    whose, what = rng.choice(("my", "your")), rng.choice(tuple(PIRATE)[2:])
    return f"{name} {verb} {whose} {what}", f"Arr, {name} {verb} {PIRATE[whose]} {PIRATE[what]}!"


def _formal(rng: random.Random) -> Pair:
    name, verb, thing = _sentence(rng)
    return f"{name} {verb} the {thing}", f"It is evident that {name} {VERBS[verb][2]} the {thing}."


def _question(rng: random.Random) -> Pair:
    name, verb, thing = _sentence(rng)
    return f"{name} {verb} the {thing}", f"Does {name} {VERBS[verb][0]} the {thing}?"


def _past_tense(rng: random.Random) -> Pair:
    name, verb, thing = _sentence(rng)
    return f"{name} {verb} the {thing}", f"{name} {VERBS[verb][1]} the {thing} yesterday"


def _yoda(rng: random.Random) -> Pair:
    name, verb, thing = _sentence(rng)
    return f"{name} {verb} the {thing}", f"The {thing}, {name} {verb}. Hmm."


# --- other ------------------------------------------------------------------------------------


def _reversal(rng: random.Random) -> Pair:
    words = _words(rng, THINGS, 4)
    return " ".join(words), " ".join(reversed(words))


def _plural(rng: random.Random) -> Pair:
    words = _words(rng, THINGS, 3)
    return " ".join(words), " ".join(word + "s" for word in words)


def _opposite(rng: random.Random) -> Pair:
    pairs = [pair if rng.random() < 0.5 else pair[::-1] for pair in rng.sample(OPPOSITES, 3)]
    return " ".join(pair[0] for pair in pairs), " ".join(pair[1] for pair in pairs)


def _initials(rng: random.Random) -> Pair:
    words = _words(rng, NAMES, 3)
    return " ".join(words), "".join(word[0].upper() + "." for word in words)


def _french(rng: random.Random) -> Pair:
    animals, colours = rng.sample(list(FRENCH_ANIMALS), 2), rng.sample(list(FRENCH_COLOURS), 2)
    english = " and ".join(f"{colour} {animal}" for animal, colour in zip(animals, colours, strict=True))
    french = " et ".join(f"{FRENCH_ANIMALS[animal]} {FRENCH_COLOURS[colour]}" for animal, colour in zip(animals, colours, strict=True))
    return english, french


TASKS: tuple[Task, ...] = (
    Task("python_list", "code", "Write a Python list", "Lists", "Python: a list literal of strings", _python_list),
    Task("python_dict", "code", "Store in a dictionary", "Dictionaries", "Python: a dictionary literal from names to numbers", _python_dict),
    Task("python_loop", "code", "Loop over it in code", "Loops", "Python: a for loop that prints every item", _python_loop),
    Task("pandas_column", "code", "Use pandas to get", "Pandas", "Python: pandas groupby and a statistic of one column", _pandas_column),
    Task("numpy_zeros", "code", "Allocate with numpy", "Numpy", "Python: a numpy array of zeros with a shape", _numpy_zeros),
    Task("json_object", "structure", "Format as JSON", "JSON", "structured text: a JSON object of a person", _json_object),
    Task("xml_element", "structure", "Turn into XML", "XML", "structured text: an XML element with attributes", _xml_element),
    Task("markdown_table", "structure", "Draw a Markdown table", "Markdown", "structured text: rows of a Markdown table", _markdown_table),
    Task("yaml_block", "structure", "Give it in YAML", "YAML", "structured text: a YAML list entry of a person", _yaml_block),
    Task("csv_row", "structure", "Export to CSV", "CSV", "structured text: a CSV row with semicolons", _csv_row),
    Task("addition", "logic", "Add up", "Addition", "arithmetic: the sum of two numbers of two digits", _addition),
    Task("maximum", "logic", "Which digit is largest", "Maxima", "arithmetic: the largest of four digits", _maximum),
    Task("sorting", "logic", "Sort upwards", "Sorting", "arithmetic: four digits in ascending order", _sorting),
    Task("parity", "logic", "Tell odd from even", "Parity", "logic: odd or even for every number", _parity),
    Task("negation", "logic", "Negate each truth value", "Negation", "logic: the negation of every truth value", _negation),
    Task("pirate", "style", "Talk like a pirate", "Pirates", "style: a sentence in the voice of a pirate", _pirate),
    Task("formal", "style", "Sound formal and academic", "Formality", "style: a sentence in a formal, academic tone", _formal),
    Task("question", "style", "Ask it as a question", "Questions", "style: a statement turned into a question", _question),
    Task("past_tense", "style", "Tell it in the past", "History", "style: a sentence moved to the past tense", _past_tense),
    Task("yoda", "style", "Speak like Yoda", "Yoda", "style: a sentence with the object in front, as Yoda speaks", _yoda),
    Task("reversal", "other", "Reverse the order", "Reversal", "other: a list of words backwards", _reversal),
    Task("plural", "other", "Put into the plural", "Plurals", "other: the plural of every noun", _plural),
    Task("opposite", "other", "Say the opposite", "Opposites", "other: the opposite of every adjective", _opposite),
    Task("initials", "other", "Abbreviate to initials", "Initials", "other: the initials of a list of names", _initials),
    Task("french", "other", "Translate to French", "French", "other: animals and colours from English to French", _french),
)


# --- general tasks ----------------------------------------------------------------------------


def _copy(rng: random.Random) -> Pair:
    words = _words(rng, THINGS + NAMES, 4)
    return " ".join(words), " ".join(words)


def _last_word(rng: random.Random) -> Pair:
    words = _words(rng, THINGS + NAMES, 4)
    return " ".join(words), words[-1]


def _count(rng: random.Random) -> Pair:
    words = _words(rng, THINGS + NAMES, rng.randrange(1, 7))
    return " ".join(words), str(len(words))


def _fact(rng: random.Random) -> Pair:
    place = rng.randrange(len(NAMES))
    if rng.random() < 0.5:
        return f"where is {NAMES[place]}", CITIES[(3 * place + 1) % len(CITIES)]
    return f"what is {NAMES[place]}", JOBS[(5 * place + 2) % len(JOBS)]


GENERAL: tuple[Task, ...] = (
    Task("copy", "general", "Repeat", "Repetition", "general: four words again", _copy),
    Task("last_word", "general", "Last word", "Words", "general: the last of four words", _last_word),
    Task("count", "general", "How many", "Counting", "general: the number of words", _count),
    Task("facts", "general", "Question", "Facts", "general: where people live and what they do", _fact, by_heart=2 * len(NAMES)),
)
