"""Licences: what is read from cards, and where they clash."""

from __future__ import annotations

from pathlib import Path

import pytest
from cyclonedx.spdx import is_supported_id

from unmerge.auditing.licence_terms import TABLE, go_together, terms_of
from unmerge.auditing.licences import Licence, Role, judge, read_licence


def card(folder: Path, text: str) -> Licence:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return read_licence(folder, "it", "component")


@pytest.mark.parametrize("path", ["zoo-base", "known/pirate", "unknown/formal"])
def test_the_zoos_own_cards(zoo: Path, path: str) -> None:
    licence = read_licence(zoo / path, path, "component")
    assert (licence.spdx, licence.terms, licence.trouble) == (["Apache-2.0"], [], None)
    assert licence.card is not None


def test_what_a_card_states(tmp_path: Path) -> None:
    both = card(tmp_path, "---\nlicense: [MIT, cc-by-nc-4.0]\ntags: [a]\n---\n# A model\n")
    assert (both.stated, both.spdx, both.terms, both.shown) == (
        ["MIT", "cc-by-nc-4.0"],
        ["MIT", "CC-BY-NC-4.0"],
        ["non-commercial"],
        "MIT and CC-BY-NC-4.0",
    )
    later = card(tmp_path, "---\nlicense: GPL-3.0-or-later\n---\n")
    assert (later.spdx, later.terms) == (["GPL-3.0"], ["share-alike"])
    gemma = card(tmp_path, "---\nlicense: gemma\n---\n")
    assert (gemma.spdx, gemma.terms, gemma.shown) == ([], ["use-restrictions"], "gemma")
    other = card(tmp_path, "---\nlicense: other\nlicense_name: house-rules\nlicense_link: https://example.org\n---\n")
    assert (other.terms, other.shown, other.link, other.trouble) == (None, "house-rules", "https://example.org", "its terms are not in the table")


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("# A model\n", "README.md states none"),
        ("", "README.md states none"),
        ("---\ntags: [a]\n---\n", "README.md states none"),
        ("---\nlicense: mit\n", "README.md states none"),  # front matter without an end is text
        ("---\n- a list\n---\n", "README.md states none"),
        ("---\nlicense: [\n---\n", "the front matter of README.md is not YAML"),
    ],
)
def test_a_card_that_says_nothing(text: str, trouble: str, tmp_path: Path) -> None:
    licence = card(tmp_path, text)
    assert (licence.stated, licence.terms, licence.trouble) == ([], None, trouble)


def test_no_card_and_no_text(tmp_path: Path) -> None:
    assert read_licence(tmp_path, "it", "base").trouble == "no README.md"
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00\xd8")
    assert "README.md cannot be read" in (read_licence(tmp_path, "it", "base").trouble or "")


def licence(stated: str, of: str = "it", role: Role = "component") -> Licence:
    terms = terms_of(stated)
    return Licence(of=of, role=role, stated=[stated], terms=sorted(terms.asks) if terms else None, trouble=None if terms else "not known")


def conflicts(*licences: Licence) -> list[str]:
    return [finding.text for finding in judge(licences).of_kind("conflict")]


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("mit", "apache-2.0", None),
        ("apache-2.0", "cc-by-nc-4.0", None),
        ("llama3", "cc-by-nc-4.0", None),
        ("gpl-3.0", "apache-2.0", None),
        ("gpl-3.0", "gpl-3.0", None),
        ("gpl-3.0", "agpl-3.0", None),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", None),
        ("gpl-2.0", "apache-2.0", "a (gpl-2.0) does not go with b (apache-2.0)."),
        ("gpl-2.0", "gpl-3.0", "a (gpl-2.0) asks that what is made of it bear the same licence, and so does b (gpl-3.0)."),
        ("gpl-3.0", "cc-by-nc-4.0", "a (gpl-3.0) lets nobody add terms, but b (cc-by-nc-4.0) allows no commercial use."),
        ("cc-by-sa-4.0", "llama3", "a (cc-by-sa-4.0) lets nobody add terms, but b (llama3) restricts what it may be used for."),
        ("cc-by-nc-sa-4.0", "gemma", "a (cc-by-nc-sa-4.0) lets nobody add terms, but b (gemma) restricts what it may be used for."),
        ("cc-by-nd-4.0", "mit", "a (cc-by-nd-4.0) allows nothing to be made of it, and the target is made of it."),
    ],
)
def test_two_ingredients(one: str, other: str, clash: str | None) -> None:
    """The same answer whichever comes first, and whether it is the base or a component."""
    expected = [clash] if clash else []
    assert conflicts(licence(one, "a"), licence(other, "b")) == expected
    swapped = conflicts(licence(other, "b", "base"), licence(one, "a"))
    assert len(swapped) == len(expected)
    assert all(one in text for text in swapped)


@pytest.mark.parametrize(
    ("target", "ingredient", "asks"),
    [
        ("apache-2.0", "mit", None),
        ("gpl-3.0", "lgpl-2.1", None),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", None),
        ("mit", "gpl-3.0", "asks that what is made of it bear the same licence"),
        ("mit", "cc-by-nc-sa-4.0", "asks that what is made of it bear the same licence and allows no commercial use"),
        ("apache-2.0", "llama3.1", "restricts what it may be used for"),
    ],
)
def test_what_the_target_is_passed_on_under(target: str, ingredient: str, asks: str | None) -> None:
    found = conflicts(licence(target, "merged", "target"), licence(ingredient, "x"))
    assert found == ([f"merged is passed on under {target}, but x ({ingredient}) {asks}."] if asks else [])


def test_what_is_unknown() -> None:
    report = judge([licence("mit"), licence("house rules", "odd"), Licence(of="bare", role="base", trouble="no README.md")], strangers=2)
    assert [finding.text for finding in report.of_kind("unknown")] == [
        "odd (house rules): not known.",
        "bare: no README.md.",
        "At least 2 components are not in the dictionary: nobody can say under which licence.",
    ]
    assert not report.of_kind("conflict")
    assert not judge([licence("mit")]).findings


def test_names_of_licences() -> None:
    assert terms_of("Apache-2.0") == terms_of("apache-2.0") == terms_of(" apache 2.0 ")
    assert terms_of("AGPL-3.0-only") == terms_of("agpl-3.0")
    assert terms_of("my own") is None
    assert go_together("gpl-3.0", "LGPL-2.1-or-later")
    assert not go_together("gpl-3.0", "cc-by-nc-sa-4.0")


def test_spdx_knows_what_is_said_to_be_its_own() -> None:
    identifiers = [terms.spdx for terms in TABLE.values() if terms.spdx]
    assert len(identifiers) > 50
    assert not [identifier for identifier in identifiers if not is_supported_id(identifier)]


def test_the_licence_of_a_relative_may_apply() -> None:
    """What would clash is a possible conflict, and the relative's own licence is unknown, whatever the atom's card states."""
    base = Licence(of="base", role="base", stated=["gpl-3.0"], spdx=["GPL-3.0"], terms=["share-alike"])
    known = Licence(of="style", role="relative", stated=["cc-by-nc-4.0"], spdx=["CC-BY-NC-4.0"], terms=["non-commercial"])
    silent = Licence(of="law", role="relative", trouble="no README.md")
    report = judge([base, known, silent])
    assert [(finding.kind, finding.between, finding.text) for finding in report.findings] == [
        (
            "possible conflict",
            ["base", "style"],
            "base (GPL-3.0) lets nobody add terms, but a relative of style (CC-BY-NC-4.0, which may apply) allows no commercial use.",
        ),
        ("unknown", ["style"], "Nobody can say under which licence the relative of style is: that of style (CC-BY-NC-4.0) may apply."),
        ("unknown", ["law"], "Nobody can say under which licence the relative of law is: law has none (no README.md)."),
    ]
    assert judge([base, known.model_copy(update={"role": "component"})]).of_kind("possible conflict") == []
