"""Semantic alignment: where a target holds nothing known, are the atoms nearest to it at least of the same kind?

    a(target) = 1/k  sum over the k nearest atoms i of  max over what is in the target of similarity(i, j)

k is the true number of components. Nearest is by what the method ranks by; atoms that rank alike share the places that they compete
for, so that a method that ranks all atoms alike gets exactly what random atoms get. Similarity is the cosine between the adapters'
descriptions (TF-IDF over all of them, or sentence embeddings), or 1 for the same category and 0 for another.

The interval is a bootstrap over targets; the baseline puts k random atoms in the place of the nearest ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from unmerge.core.errors import BadInput, need, one_line
from unmerge.evaluation.task_files import RECORD
from unmerge.training.adapters import AdapterRecord
from unmerge_lab.report.study_record import Alignment, Cell
from unmerge_lab.studies.design import Zoo

Matrix = NDArray[np.float64]

#: bootstrap samples and permutations, and their seed
_DRAWS, _SEED = 2000, 0
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Similarity:
    """How alike a zoo's adapters are.

    Attributes:
        names: of the adapters, n of them.
        values: (n, n).
    """

    names: tuple[str, ...]
    values: Matrix

    def near(self, atoms: Sequence[str], contents: Sequence[str]) -> Matrix:
        """(atoms,) of each atom, the highest similarity to something in a target."""
        rows, columns = ([self.names.index(name) for name in some] for some in (atoms, contents))
        return np.asarray(self.values[np.ix_(rows, columns)].max(1))


def similarities(zoo: Zoo, sentence_model: str | None) -> dict[str, Similarity]:
    """Of all adapters of a zoo, by measure; none where no adapter has a record (a synthetic zoo: drawn adapters mean nothing)."""
    names = (*zoo.known, *zoo.unknown)
    if sentence_model is None and not any((zoo.adapter(name) / RECORD).exists() for name in names):
        return {}
    records = [AdapterRecord.read(zoo.adapter(name)) for name in names]
    categories = np.array([record.category for record in records])
    measures = {"tfidf": _by_words([record.description for record in records]), "category": (categories[:, None] == categories).astype(np.float64)}
    if sentence_model is not None:
        measures["sentences"] = _by_sentences([record.description for record in records], sentence_model)
    return {measure: Similarity(names, values) for measure, values in measures.items()}


def _by_words(descriptions: Sequence[str]) -> Matrix:
    """Cosines between the TF-IDF vectors of some texts."""
    try:
        vectors = TfidfVectorizer(stop_words="english").fit_transform(descriptions)
    except ValueError as error:  # not a word in any
        raise BadInput(
            expected="a description in the adapters' records",
            found="none",
            where="the zoo",
            hint="give descriptions in the training recipe, or leave the group unknown out",
        ) from error
    cosines: Matrix = (vectors @ vectors.T).toarray()
    return cosines


def _by_sentences(descriptions: Sequence[str], model: str) -> Matrix:
    """Cosines between the sentence embeddings of some texts."""
    library = need("sentence_transformers", "semantic")
    need("transformers", "semantic").utils.logging.disable_progress_bar()
    try:
        embedded = library.SentenceTransformer(model, device="cpu", model_kwargs={"dtype": "float32"})
        vectors = np.asarray(embedded.encode(list(descriptions), show_progress_bar=False), dtype=np.float64)
    except Exception as error:  # the library raises OSError, ValueError and what its hub raises
        raise BadInput(
            expected="a sentence-transformers model",
            found=f"{type(error).__name__}: {one_line(str(error))[:200]}",
            where=model,
            hint="give the folder of one, or leave sentence_model out",
        ) from error
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors @ vectors.T)


def memberships(ranking: Matrix, count: int) -> Matrix:
    """(n,) how much of each atom is among the ``count`` highest: 1, 0, or an equal share of the places that equals compete for."""
    if count >= len(ranking):
        return np.ones(len(ranking))
    last = np.sort(ranking)[-count]
    above, equal = ranking > last, ranking == last
    return np.asarray(above + equal * ((count - above.sum()) / equal.sum()), dtype=np.float64)


def alignments(cells: Sequence[Cell], atoms: Sequence[str], measures: Mapping[str, Similarity]) -> list[Alignment]:
    """Measure every method in every space on the targets of the unknown group.

    Args:
        cells: of all groups; those of the others are passed over.
        atoms: the dictionary, in the order of the cells' rankings.
        measures: from ``similarities``.
    """
    by_cell: dict[tuple[str, str], list[Cell]] = {}
    for cell in sorted((cell for cell in cells if cell.group == "unknown"), key=lambda cell: cell.target):
        by_cell.setdefault((cell.space, cell.method), []).append(cell)
    return [
        _alignment(space, method, measure, found, np.array([similarity.near(atoms, cell.contents) for cell in found]))
        for measure, similarity in measures.items()
        for (space, method), found in by_cell.items()
    ]


def _alignment(space: str, method: str, measure: str, cells: Sequence[Cell], near: Matrix) -> Alignment:
    """Over some targets.

    Args:
        space: whose cells they are.
        method: the same.
        measure: what ``near`` is measured by.
        cells: one a target.
        near: (targets, n).
    """
    rng = np.random.default_rng(_SEED)
    counts = np.array([min(len(cell.contents), near.shape[1]) for cell in cells])
    chosen = np.array([memberships(np.array(cell.ranking), int(count)) for cell, count in zip(cells, counts, strict=True)])
    by_target = (chosen * near).sum(1) / counts
    again = by_target[rng.integers(len(cells), size=(_DRAWS, len(cells)))].mean(1)
    places = rng.random((_DRAWS, *near.shape)).argsort(2)
    random = (np.take_along_axis(np.broadcast_to(near, places.shape), places, 2) * (np.arange(near.shape[1]) < counts[:, None])).sum(2) / counts
    baseline = random.mean(1)
    value = float(by_target.mean())
    return Alignment(
        space=space,
        method=method,
        measure=measure,
        targets=len(cells),
        value=value,
        low=float(np.percentile(again, _INTERVAL[0])),
        high=float(np.percentile(again, _INTERVAL[1])),
        baseline=float(baseline.mean()),
        baseline_low=float(np.percentile(baseline, _INTERVAL[0])),
        baseline_high=float(np.percentile(baseline, _INTERVAL[1])),
        p_value=float((1 + (baseline >= value - 1e-12).sum()) / (1 + _DRAWS)),
    )
