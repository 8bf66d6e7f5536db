"""What the certificate makes of the test's outcome."""

from __future__ import annotations

from unmerge.certificate.certify import _variants


def test_variants_are_named_with_the_component_of_their_family() -> None:
    """Also where the weights did not confirm an atom that passed the test, and nothing of its family is left."""
    families = [[0, 1, 2], [3], [4]]
    assert _variants(families, [0, 1, 2, 3, 4], [0, 3], {0: (2,), 3: ()}) == {1: 0}
