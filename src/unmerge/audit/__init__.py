"""Everything on one target in one record: components, recipe, verification, licences, and whether it passes."""

from unmerge.audit.gates import Gate, parse_gates
from unmerge.audit.record import Audit
from unmerge.audit.run import run_audit

__all__ = ["Audit", "Gate", "parse_gates", "run_audit"]
