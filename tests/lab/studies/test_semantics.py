"""Semantic alignment by hand, and its baseline and interval where their laws are known."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from unmerge.core.errors import BadInput, MissingExtra
from unmerge_lab.report.study_record import Cell
from unmerge_lab.studies import semantics
from unmerge_lab.studies.design import StudyDesign
from unmerge_lab.studies.semantics import Similarity, alignments, memberships

ATOMS = ("a", "b", "c", "d")
#: what a target may hold: u is like a, v is like b, w like none
NAMES = (*ATOMS, "u", "v", "w")
NEAR = np.zeros((7, 7))
NEAR[0, 4] = NEAR[1, 5] = 1.0
NEAR[2, 4] = 0.5


def cell(ranking: Sequence[float], contents: Sequence[str], target: str = "t", group: str = "unknown", method: str = "m") -> Cell:
    values: dict[str, Any] = dict.fromkeys(("seed", "repeat", "sparsity"), 0)
    values |= dict.fromkeys(("precision", "reconstruction_error", "one_minus_cosine_squared", "effective_components", "seconds", "memory_mib"), 0.0)
    values |= {"merge": "ties", "is_adapter": False, "dtype": "float32", "weighting": "equal", "weights": [1.0] * len(contents), "truth": []}
    values |= {"space": "exact", "named": [], "coefficients": list(ranking), "recall": None, "perfect": False}
    values |= {"coefficient_error": None, "solver_seconds": None}
    return Cell(target=target, group=group, method=method, contents=list(contents), ranking=list(ranking), **values)


@pytest.mark.parametrize(
    ("ranking", "count", "expected"),
    [
        ([0.1, 0.9, -0.5, 0.4], 2, [0, 1, 0, 1]),
        ([0.0, 0.9, 0.0, 0.0], 2, [1 / 3, 1, 1 / 3, 1 / 3]),
        ([0.0, 0.0, 0.0, 0.0], 3, [0.75, 0.75, 0.75, 0.75]),
        ([0.3, 0.1, 0.2, 0.4], 7, [1, 1, 1, 1]),
        ([0.0, -1.0, -1.0, -2.0], 2, [1, 0.5, 0.5, 0]),
    ],
)
def test_memberships(ranking: list[float], count: int, expected: list[float]) -> None:
    assert memberships(np.array(ranking), count) == pytest.approx(np.array(expected))


def aligned(cells: list[Cell], near: Any = NEAR) -> dict[str, Any]:
    return {found.method: found for found in alignments(cells, ATOMS, {"m": Similarity(NAMES, near)})}


def test_value_by_hand() -> None:
    """First target: of c and a, nearest to u and w, one has similarity 1 and one .5. Second: of b and d, to v and w, 1 and 0."""
    cells = [cell([0.9, 0, 0.8, 0], ["u", "w"], "first"), cell([0, 0.2, 0, 0.1], ["v", "w"], "second"), cell([1, 0, 0, 0], ["u", "v"], "x", "mixed")]
    found = aligned(cells)["m"]
    assert found.value == pytest.approx((0.75 + 0.5) / 2)
    assert found.targets == 2
    assert (found.low, found.high) == (0.5, 0.75)  # with two targets a bootstrap mean is one of three values


def test_all_alike_is_random() -> None:
    """Whoever ranks all atoms alike gets what random atoms get: the mean over atoms, whatever k is."""
    contents = [["u", "w"], ["v", "u", "w"], ["w", "v"], ["u", "v"]]
    found = aligned([cell([0, 0, 0, 0], held, str(place)) for place, held in enumerate(contents)])["m"]
    assert found.value == pytest.approx((1.5 + 2.5 + 1 + 2.5) / 4 / 4)
    assert found.baseline == pytest.approx(found.value, abs=0.01)
    assert found.baseline_low < found.value < found.baseline_high
    assert 0.2 < found.p_value < 0.9


def test_p_value() -> None:
    """The best atoms are as rare as they are: all 12 targets right by chance has probability 2^-24; the worst are never below chance."""
    contents = [["u", "v"]] * 12
    cells = [cell([1, 1, 0, 0], held, str(place), method="best") for place, held in enumerate(contents)]
    cells += [cell([0, 0, 0, 1], held, str(place), method="worst") for place, held in enumerate(contents)]
    found = aligned(cells)
    assert found["best"].p_value == pytest.approx(1 / 2001)
    assert found["best"].value == found["best"].low == found["best"].high == 1
    assert found["worst"].p_value > 0.99
    assert found["best"].baseline == found["worst"].baseline


def test_words() -> None:
    """Cosines of tf-idf with scikit-learn's smoothed idf, ln((1 + n) / (1 + df)) + 1; common words left out."""
    rare, shared = np.log(3 / 2) + 1, np.log(3 / 3) + 1
    values = semantics._by_words(["the pirate sentence", "a formal sentence"])
    assert values[0, 1] == pytest.approx(shared**2 / (shared**2 + rare**2))
    assert values.diagonal() == pytest.approx(1)
    with pytest.raises(BadInput, match=r"expected a description in the adapters' records, found none"):
        semantics._by_words(["", ""])


def test_similarities_of_the_zoo() -> None:
    measures = semantics.similarities(StudyDesign().open_zoo(), None)
    assert measures.keys() == {"tfidf", "category"}
    near = {name: measure.near(["pirate", "python_list"], ["formal"]) for name, measure in measures.items()}
    assert near["category"].tolist() == [1, 0]  # pirate and formal are of the category style
    assert near["tfidf"][0] > near["tfidf"][1]


def test_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines, whatever lengths the library gives; a model that is not there is one line; so is a library that is not there."""

    class Model:
        def __init__(self, name: str, device: str, model_kwargs: dict[str, str]) -> None:
            if name != "there":
                raise OSError("no such model")

        def encode(self, texts: list[str], show_progress_bar: bool) -> Any:
            return np.array([[2.0, 0.0] if "pirate" in text else [3.0, 4.0] for text in texts], dtype=np.float32)

    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    zoo = StudyDesign().open_zoo()
    assert semantics.similarities(zoo, "there")["sentences"].near(["pirate", "parity"], ["formal"]) == pytest.approx([0.6, 1.0])
    with pytest.raises(BadInput, match=r"nowhere: expected a sentence-transformers model, found OSError: no such model; give the folder"):
        semantics.similarities(zoo, "nowhere")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'unmerge\[semantic\]'"):
        semantics.similarities(zoo, "there")
