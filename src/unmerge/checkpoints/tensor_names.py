"""The names of one model's tensors in another file, told by structure: no table of models.

A tensor has several names: GPT-2 begins with ``h.0`` on the hub and with ``transformer.h.0`` in transformers; a vision-language model is
``language_model.model.layers`` in its file and ``model.language_model.layers`` in memory; ``torch.compile``, FSDP and DDP put words of their own
in between. Two names belong together where

1. the last two words are equal (the module and its parameter), and so are all numbers (layers, experts);
2. the shapes are equal, for every layer;
3. apart from words that every model has (``model``), the words of one name are all among the words of the other.

Of several the one with the fewest words between them is taken. Two that are equally near are never guessed between: that is bad input.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from unmerge.core.errors import BadInput
from unmerge.vectors import Shape

#: words that say nothing about where a module is
_EVERYWHERE = ("model", "module")
#: words that transformers itself has two of: of layer norms (as TensorFlow had them), mixtures of experts (as Mixtral has them) and heads
_SYNONYMS = {
    "gamma": "weight",
    "beta": "bias",
    "block_sparse_moe": "mlp",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
    "embed_out": "lm_head",
}
#: in place of a number
_NUMBER = "*"

Words = tuple[str, ...]
Numbers = tuple[str, ...]
#: (words between two names, and with those that every model has)
Distance = tuple[int, int]


@dataclass(frozen=True)
class MatchedNames:
    """Tensors that are called otherwise than in the reference, and differ from it in one way.

    Attributes:
        own: what they begin with, a star for each number.
        reference: what they begin with in the reference.
        tensors: how many there are.
        example: one of them, by both names.
    """

    own: str
    reference: str
    tensors: int
    example: tuple[str, str]


def match_names(ours: Mapping[str, Shape], reference: Mapping[str, Shape], where: Path) -> dict[str, str]:
    """Find the tensors of a reference under other names.

    Args:
        ours: shapes of the tensors whose names are to be resolved.
        reference: shapes of the reference's; a matrix may be transposed, and one outside of the layers may have more or fewer rows.
        where: where ours lie, for the error.

    Returns:
        The reference's name by ours, of those that have another one there. A tensor that the reference lacks is not among them.

    Raises:
        BadInput: a tensor may be one or another.
    """
    wanted = _by_words({name: shape for name, shape in ours.items() if name not in reference})
    free = _by_words({name: shape for name, shape in reference.items() if name not in ours})
    by_distance: dict[Distance, list[tuple[Words, Words]]] = defaultdict(list)
    for pair in _comparable(wanted, free):
        by_distance[_distance(*pair)].append(pair)
    found: dict[str, str] = {}
    for pairs in (by_distance[distance] for distance in sorted(by_distance)):
        level = {pair: shared for pair in pairs if (shared := _shared(wanted[pair[0]], free[pair[1]], ours, reference))}
        claims: dict[str, list[str]] = defaultdict(list)
        for shared in level.values():
            for name, theirs in shared.items():
                claims[name].append(theirs)
        _refuse_ambiguous(claims, where)
        found |= {name: others[0] for name, others in claims.items()}
        for (own, other), shared in level.items():
            wanted[own] = {numbers: name for numbers, name in wanted[own].items() if name not in shared}
            free[other] = {numbers: name for numbers, name in free[other].items() if name not in shared.values()}
    return found


def summary(names: Mapping[str, str]) -> tuple[MatchedNames, ...]:
    """What names were matched, the tensors together that differ in one way."""
    together: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for own, other in names.items():
        together[_heads(own, other)].append((own, other))
    return tuple(MatchedNames(own, other, len(pairs), pairs[0]) for (own, other), pairs in together.items())


def renamed(name: str, names: Mapping[str, str]) -> str:
    """A name by the rule that others were matched by, if one rule holds for all names that begin as it does; else itself."""
    rules: dict[str, set[str]] = defaultdict(set)
    for pair in names.items():
        before, after = _heads(*pair)
        rules[before].add(after)
    pattern, numbers = _pattern(name)
    fitting = [before for before in rules if not before or pattern == before or pattern.startswith(before + ".")]
    longest = max(fitting, key=len, default="")
    if longest not in rules or len(rules[longest]) > 1:
        return name
    (after,) = rules[longest]
    tail = pattern.removeprefix(longest).removeprefix(".")
    words = iter(numbers)
    return ".".join(next(words) if word == _NUMBER else word for word in f"{after}.{tail}".removeprefix(".").split("."))


def _by_words(shapes: Mapping[str, Shape]) -> dict[Words, dict[Numbers, str]]:
    """Names by their words, a star for each number, and then by their numbers."""
    found: dict[Words, dict[Numbers, str]] = defaultdict(dict)
    for name in shapes:
        words = tuple(_SYNONYMS.get(word, word) for word in name.split("."))
        found[tuple(_NUMBER if word.isdecimal() else word for word in words)][tuple(filter(str.isdecimal, words))] = name
    return found


def _comparable(wanted: Mapping[Words, object], free: Mapping[Words, object]) -> Iterator[tuple[Words, Words]]:
    """Pairs of names that may be one tensor's."""
    by_end: dict[tuple[Words, int], list[Words]] = defaultdict(list)
    for other in free:
        by_end[other[-2:], other.count(_NUMBER)].append(other)
    for own in wanted:
        for other in by_end[own[-2:], own.count(_NUMBER)]:
            more, less = _telling(own) - _telling(other), _telling(other) - _telling(own)
            if not (more and less):
                yield own, other


def _telling(words: Words) -> Counter[str]:
    return Counter(word for word in words if word not in _EVERYWHERE)


def _distance(own: Words, other: Words) -> Distance:
    one, two = Counter(own), Counter(other)
    every, telling = (one - two) + (two - one), (_telling(own) - _telling(other)) + (_telling(other) - _telling(own))
    return telling.total(), every.total()


def _shared(own: Mapping[Numbers, str], other: Mapping[Numbers, str], ours: Mapping[str, Shape], reference: Mapping[str, Shape]) -> dict[str, str]:
    """The names with equal numbers; none where a shape differs."""
    pairs = {own[numbers]: other[numbers] for numbers in own.keys() & other.keys()}
    agree = all(_alike(ours[name], reference[theirs], not next(iter(own))) for name, theirs in pairs.items())
    return {name: pairs[name] for name in sorted(pairs)} if agree else {}


def _alike(one: Shape, two: Shape, outside: bool) -> bool:
    return sorted(one) == sorted(two) or (outside and len(one) == len(two) == 2 and one[1:] == two[1:])


def _refuse_ambiguous(claims: Mapping[str, list[str]], where: Path) -> None:
    wanted_by: dict[str, list[str]] = defaultdict(list)
    for name, others in claims.items():
        for other in others:
            wanted_by[other].append(name)
    unclear = [(name, f"one that may be {others[0]} or {others[1]}") for name, others in claims.items() if len(others) > 1]
    unclear += [(names[0], f"one that may be {other}, as may {names[1]}") for other, names in wanted_by.items() if len(names) > 1]
    for tensor, found in unclear:
        raise BadInput(
            expected="names that tell the tensors apart",
            found=found,
            where=where,
            tensor=tensor,
            hint="save it with the class of the base (transformers' save_pretrained), so that both have the same names",
        )


def _pattern(name: str) -> tuple[str, Numbers]:
    words = name.split(".")
    return ".".join(_NUMBER if word.isdecimal() else word for word in words), tuple(filter(str.isdecimal, words))


def _heads(own: str, other: str) -> tuple[str, str]:
    """What is left of two names without the words that both end in."""
    one, two = (_pattern(name)[0].split(".") for name in (own, other))
    while one and two and one[-1] == two[-1]:
        one.pop()
        two.pop()
    return ".".join(one), ".".join(two)
