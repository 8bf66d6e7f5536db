"""The tables of the page, from the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from unmerge.auditing import Audit
from unmerge.core.records import Source
from unmerge.decomposition.result import Decomposition
from unmerge.recipes.record import RecoveredRecipe
from unmerge.report.audit.score_matrix import in_order, scores_without
from unmerge.report.audit.table import Cell, Table, number, word
from unmerge.report.audit.words import p_value, percent
from unmerge.report.identity import called
from unmerge.verification.record import Verification, VerifiedComponent

#: roles that need more words
ROLES = {"candidate": "cannot be told from a component", "relative": "a component is a relative of it: its licence may apply"}
#: how a verdict looks
LOOKS = {"verified": "good", "not specific": "bad", "no effect": "bad", "not measurable": "unsure"}


def components(audit: Audit) -> Table:
    """Every component with all that is known of it; the page shows some of it in its own way."""
    heads = (
        "component coefficient low high share containment p_value q_value agreement cannot_be_told_from licence verdict "
        "identity similarity similarity_low similarity_high uniform"
    ).split()
    licences = licence_words(audit)
    rows = []
    for component in audit.decomposition.components:
        measured = audit.verified(component.name)
        low, high = component.interval or (None, None)
        figures = (component.coefficient, low, high, component.share, component.containment, component.p_value, component.q_value)
        words = (" ".join(component.group), licences.get(component.name, ""), measured.verdict if measured else "")
        similar = (component.similarity, *(component.similarity_interval or (None, None)))
        uniform = word("" if component.uniform is None else "yes" if component.uniform else "no")
        kin = [word(component.identity or ""), *map(number, similar), uniform]
        rows.append([word(component.name), *map(number, figures), number(component.agreement), *map(word, words), *kin])
    return Table("components", "Components of the target", heads, rows)


def licence_words(audit: Audit) -> dict[str, str]:
    """The licence of each component, in a word or two; of a relative only the atom's is known, which may apply."""
    words = {"component": "{}", "relative": "may apply: {}"}
    return {licence.of: words[licence.role].format(licence.shown) for licence in audit.licences.licences if licence.role in words}


def profile(found: Decomposition) -> Table | None:
    """Where a component acts otherwise; None where one coefficient is true everywhere."""
    rows = []
    for component in found.components:
        for part in component.profile:
            low, high = part.interval or (None, None)
            where = [word(part.layers or "outside of the layers"), word(part.kind or "all")]
            rows.append([word(called(component)), *where, number(part.coefficient), number(low), number(high)])
    heads = ("Component", "Layers", "Modules", "Coefficient", "95% from", "to")
    return Table("profile", "Coefficients by part of the model", heads, rows) if rows else None


def absent(found: Decomposition) -> Table:
    """Atoms that are not named, and from which coefficient on they would have been."""
    rows = []
    for atom in found.absent:
        limit = Cell("at none", None, "number", "at no coefficient") if atom.detection_limit is None and found.test else number(atom.detection_limit)
        shown = Cell(p_value(atom.p_value), atom.p_value, "number", None if atom.p_value is None else str(atom.p_value))
        note = f"shows because it is like {atom.variant_of}" if atom.variant_of else ""
        rows.append([word(atom.name), limit, number(atom.containment, ".3f"), shown, word(note)])
    return Table("not-named", "Not named", ("Atom", "Would have been seen from", "Contained", "p", "Note"), rows)


def by_tensor(found: Decomposition) -> Table:
    """Coefficients tensor by tensor."""
    tensors = list(dict.fromkeys(tensor for component in found.components for tensor in component.by_tensor))
    names = [component.name for component in found.components]
    rows = [[word(tensor), *(number(component.by_tensor.get(tensor)) for component in found.components)] for tensor in tensors]
    return Table("coefficient-by-tensor", "Coefficient that each tensor gives by itself", ("Tensor", *names), rows)


def verdicts(verification: Verification) -> Table:
    """What removing each component did."""
    heads = ("Removed", "Verdict", "Before", "After", "95% of the drop", "Predicted", "Others, mean change", "General, mean change", "p, corrected")
    return Table("verdicts", "Each component removed in turn", heads, [_verdict(measured) for measured in verification.components])


def _verdict(measured: VerifiedComponent) -> list[Cell]:
    low, high = measured.interval
    return [
        word(measured.removed),
        word(measured.verdict, " ".join(measured.because), LOOKS[measured.verdict]),
        number(measured.before, ".3f"),
        number(measured.after, ".3f"),
        word(f"{low:.3f} to {high:.3f}"),
        number(
            measured.prediction.after, ".3f", f"predicted before it was measured: {measured.prediction.before:.3f} to {measured.prediction.after:.3f}"
        ),
        number(measured.mean_absolute_change, ".4f"),
        number(measured.general_change, ".4f"),
        Cell(p_value(measured.adjusted_p_value), measured.adjusted_p_value, "number", str(measured.adjusted_p_value)),
    ]


def matrix(verification: Verification) -> Table:
    """Scores, what was removed down, tasks across."""
    tasks = in_order(verification)
    names = [task.name for task in tasks]
    rows = [[word("nothing"), *(number(task.before, ".3f") for task in tasks)]]
    for measured in verification.components:
        scores = scores_without(verification, measured)
        rows.append([word(measured.removed), *(number(scores[name], ".3f") for name in names)])
    return Table("matrix", "Score of every task by what was removed", ("Removed", *names), rows)


def doses(verification: Verification) -> Table:
    """Scores as more and more is removed."""
    rows = []
    for measured in verification.components:
        for dose in measured.doses:
            scores = (number(score, ".3f") for score in (dose.predicted, dose.predicted_beside, dose.score))
            rows.append([word(measured.removed), number(dose.multiple, "g"), number(dose.coefficient), *scores])
    heads = ("Component", "Multiple", "Coefficient", "Predicted alone", "Predicted beside the others", "Measured")
    return Table("dose-response", "Score of the skill by what is removed", heads, rows)


def controls(verification: Verification) -> Table:
    """What else was removed, and that it did not do the same."""
    rows = [
        [
            word(measured.removed),
            word(control.kind + (f" ({control.atom})" if control.atom != measured.removed else "")),
            number(control.coefficient),
            number(control.before, ".3f"),
            number(control.after, ".3f"),
            Cell(p_value(control.p_value), control.p_value, "number", str(control.p_value)),
            word("yes", look="bad") if control.verified else word("no", look="good"),
        ]
        for measured in verification.components
        for control in measured.controls
    ]
    heads = ("Skill of", "Removed instead", "Coefficient", "Before", "After", "p", "Would count as verified")
    return Table("controls", "Controls", heads, rows)


def ways(verification: Verification) -> Table:
    """Ways to subtract, and how much each disturbs."""
    rows = []
    for measured in verification.components:
        for way in measured.ways:
            fall = "" if way.largest_fall is None else f"{way.largest_fall[1]:+.3f} ({way.largest_fall[0]})"
            changes = (number(way.after, ".3f"), number(way.mean_absolute_change, ".4f"), number(way.general_change, ".4f"))
            rows.append([word(measured.removed), word(way.name), *changes, word(fall)])
    heads = ("Removed", "Way", "Skill after", "Others, mean change", "General, mean change", "Largest other fall")
    return Table("ways", "Ways to subtract", heads, rows)


def licences(audit: Audit) -> Table:
    """Who is under which licence."""
    rows = [
        [
            word(licence.of),
            word(ROLES.get(licence.role, licence.role)),
            word(licence.shown, licence.link),
            word("not known" if licence.terms is None else ", ".join(licence.terms) or "permissive"),
            word(licence.trouble or ""),
        ]
        for licence in audit.licences.licences
    ]
    return Table("licences", "Licences, as the cards state them", ("Of", "Role", "Licence", "Terms", "Note"), rows)


def proof(recipe: RecoveredRecipe) -> Table | None:
    """The recipe run by mergekit beside the target, by kind of tensor; None without such a proof."""
    if recipe.proof is None or not recipe.proof.by_kind:
        return None
    rows = []
    for kind, compared in recipe.proof.by_kind.items():
        share = compared.identical / compared.changed if compared.changed else None
        shown = Cell("" if share is None else percent(share), share, "number", f"{compared.identical} of {compared.changed}")
        rows.append([word(kind), number(compared.changed, ",d"), number(compared.identical, ",d"), shown, number(compared.largest_difference, ".2g")])
    return Table("proof", "Weights compared, by kind of tensor", ("Kind", "Changed", "Identical", "Share", "Largest difference"), rows)


def rivals(recipe: RecoveredRecipe) -> Table | None:
    """Other recipes that make the target as well, or nearly."""
    rows = []
    for rival in recipe.rivals:
        share = rival.identical_share
        rows.append([word(rival.method), Cell("" if share is None else percent(share), share, "number"), word(rival.apart)])
    return Table("rivals", "Rivals", ("Method", "Identical", "What tells it apart"), rows) if rows else None


def files(audit: Audit) -> Table:
    """Every file that was read, with its hash."""
    found = audit.decomposition
    sources: list[tuple[str, Source]] = [("target", found.target)]
    if found.base:
        sources.append(("base", found.base))
    sources += [(name, source) for name, source in found.dictionary.items()]
    rows = [[word(of), word(file, path), word(digest)] for of, source in sources for path, file, digest in _digests(source)]
    return Table("files", "Files that were read", ("Of", "File", "SHA-256"), rows)


def _digests(source: Source) -> Iterator[tuple[str, str, str]]:
    return ((str(Path(source.path) / file), file, digest) for file, digest in source.sha256.items())


def left_out(found: Decomposition) -> Table | None:
    """Tensors that were left out, and why."""
    rows: Sequence[Sequence[Cell]] = [[word(skipped.tensor), word(skipped.reason)] for skipped in found.skipped]
    return Table("left-out", "Left out", ("Tensor", "Why"), rows) if rows else None
