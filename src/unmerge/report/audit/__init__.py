"""The audit as a page that a person reads, and as a bill of materials that a pipeline reads."""

from unmerge.report.audit.answer import sentence
from unmerge.report.audit.folder import PAGE, write_audit
from unmerge.report.audit.page import page

__all__ = ["PAGE", "page", "sentence", "write_audit"]
