"""What a licence asks of something made from the work: a table by identifier, in the coarse terms in which licences clash.

Identifiers are those of model cards (lower case), which are mostly SPDX's own; where SPDX has none, only the terms are known.
The terms are a reading of each text for one question, whether parts can be merged and passed on together. No legal advice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: share-alike: what is made of it must bear the same licence; non-commercial; no-derivatives: nothing may be made of it;
#: use-restrictions: a list of forbidden uses that must be passed on. A permissive licence has none of them
Term = Literal["share-alike", "non-commercial", "no-derivatives", "use-restrictions"]


@dataclass(frozen=True)
class Terms:
    """One licence.

    Attributes:
        spdx: its SPDX identifier, where there is one.
        asks: its terms; none for a permissive licence.
    """

    spdx: str | None
    asks: frozenset[Term]


_PERMISSIVE = (
    "0BSD AFL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 "
    "CC0-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0 ECL-2.0 etalab-2.0 ISC MIT MS-PL NCSA ODC-By-1.0 OFL-1.1 PDDL-1.0 PostgreSQL Unlicense "
    "WTFPL Zlib"
).split()
_SHARE_ALIKE = (
    "AGPL-3.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CDLA-Sharing-1.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 GPL-2.0 GPL-3.0 LGPL-2.1 LGPL-3.0 MPL-2.0 ODbL-1.0 OSL-3.0"
).split()
_NON_COMMERCIAL = ("CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0")
_NON_COMMERCIAL_SHARE_ALIKE = ("CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0")
#: without an SPDX identifier
_RESEARCH_ONLY = ("apple-amlr", "fair-noncommercial-research-license", "h-research", "intel-research")
_USE_RESTRICTED = (
    "bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m creativeml-openrail-m gemma llama2 llama3 llama3.1 llama3.2 llama3.3 "
    "llama4 openrail openrail++"
).split()
#: names in use on model cards for licences that SPDX calls otherwise
_ALIASES = {"cc0": "cc0-1.0", "odbl": "odbl-1.0", "odc-by": "odc-by-1.0", "pddl": "pddl-1.0", "apache 2.0": "apache-2.0", "apache2": "apache-2.0"}


def _rows(identifiers: list[str] | tuple[str, ...], *asks: Term) -> dict[str, Terms]:
    return {identifier.lower(): Terms(identifier, frozenset(asks)) for identifier in identifiers}


#: by plain identifier
TABLE: dict[str, Terms] = {
    **_rows(_PERMISSIVE),
    **_rows(_SHARE_ALIKE, "share-alike"),
    **_rows(_NON_COMMERCIAL, "non-commercial"),
    **_rows(_NON_COMMERCIAL_SHARE_ALIKE, "non-commercial", "share-alike"),
    **_rows(("CC-BY-ND-4.0",), "no-derivatives"),
    **_rows(("CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0"), "no-derivatives", "non-commercial"),
    **{name: Terms(None, frozenset({"non-commercial"})) for name in _RESEARCH_ONLY},
    **{name: Terms(None, frozenset({"use-restrictions"})) for name in _USE_RESTRICTED},
    "deepfloyd-if-license": Terms(None, frozenset({"non-commercial", "use-restrictions"})),
}
#: share-alike licences of which a work under both may be passed on, as their texts or their authors say, in any order
_COMPATIBLE = {
    frozenset(pair)
    for pair in (
        ("gpl-3.0", "agpl-3.0"),
        ("gpl-3.0", "lgpl-3.0"),
        ("gpl-3.0", "lgpl-2.1"),
        ("gpl-3.0", "mpl-2.0"),
        ("gpl-3.0", "cc-by-sa-4.0"),
        ("gpl-3.0", "eupl-1.2"),
        ("gpl-2.0", "lgpl-2.1"),
        ("gpl-2.0", "mpl-2.0"),
        ("agpl-3.0", "lgpl-3.0"),
        ("agpl-3.0", "lgpl-2.1"),
        ("agpl-3.0", "mpl-2.0"),
        ("agpl-3.0", "eupl-1.2"),
        ("lgpl-3.0", "lgpl-2.1"),
        ("lgpl-3.0", "mpl-2.0"),
        ("lgpl-2.1", "mpl-2.0"),
        ("cc-by-sa-3.0", "cc-by-sa-4.0"),
        ("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    )
}


def plain(identifier: str) -> str:
    """An identifier as the table has it: lower case, without SPDX's ``-only`` and ``-or-later``."""
    name = identifier.strip().lower()
    name = _ALIASES.get(name, name)
    return name.removesuffix("-or-later").removesuffix("-only")


def terms_of(identifier: str) -> Terms | None:
    """What a licence asks, by its identifier; None for one that the table does not have."""
    return TABLE.get(plain(identifier))


def go_together(one: str, other: str) -> bool:
    """Whether a work that bears both share-alike licences can be passed on."""
    pair = frozenset((plain(one), plain(other)))
    return len(pair) == 1 or pair in _COMPATIBLE
