"""Everything on one target in one record: components, recipe, verification, licences, and whether it passes."""

from unmerge.auditing.gates import Gate, parse_gates
from unmerge.auditing.record import Audit, read_audit
from unmerge.auditing.run import Request, Watches, run_audit

__all__ = ["Audit", "Gate", "Request", "Watches", "parse_gates", "read_audit", "run_audit"]
