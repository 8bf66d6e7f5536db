"""Merging forward: mergekit configurations to targets."""

from unmerge.recipes.merge import MergeRecord, merge

__all__ = ["MergeRecord", "merge"]
