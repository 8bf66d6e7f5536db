"""What the reports call a component: itself, a relative of it, or one of the two."""

from __future__ import annotations

from unmerge.decomposition.result import Component, ProfilePart


def called(component: Component) -> str:
    """The component in words: ``a``, ``a or b``, ``a relative of a``, ``a or a relative of it``; a relative never by the atom's name alone."""
    names = " or ".join([component.name, *component.group])
    if component.identity == "relative":
        return f"a relative of {names}"
    return f"{names} or a relative of {'one' if component.group else 'it'}" if component.identity == "undecided" else names


def kinship(component: Component) -> str | None:
    """What the identity means, with the similarity where it was measured; None for a component that is the very atom, or was not tested."""
    if component.identity == "relative":
        means = f"not {component.name} itself, but another training of it or a sibling"
    elif component.identity == "undecided":
        means = f"the target does not show whether it is {component.name} itself"
    else:
        return None
    if component.similarity is None:
        return means
    low, high = component.similarity_interval or (None, None)
    between = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return f"{means}; similarity {component.similarity:.2f}{between}"


def part_called(part: ProfilePart) -> str:
    """A part of the model in words: its kind of module and its layers."""
    layers = "" if not part.layers else f"layers {part.layers}" if not part.layers.isdecimal() else f"layer {part.layers}"
    return " of ".join(text for text in (part.kind, layers) if text) or "the rest"
