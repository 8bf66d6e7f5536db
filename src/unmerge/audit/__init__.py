"""Everything on one target in one record: components, recipe, verification, licences, and whether it passes."""

from unmerge.audit.gates import Gate, parse_gates
from unmerge.audit.record import Audit, read_audit
from unmerge.audit.run import Request, Watches, run_audit

__all__ = ["Audit", "Gate", "Request", "Watches", "parse_gates", "read_audit", "run_audit"]
