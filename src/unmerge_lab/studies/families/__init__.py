"""Families of really trained adapters: checkpoints of a run, seeds, shared starts, an author's settings; with a manifest."""

from unmerge_lab.studies.families.design import Member, Run, draw_dictionary, relation
from unmerge_lab.studies.families.manifest import DictionaryManifest, read_manifest, read_manifests
from unmerge_lab.studies.families.train import train_dictionary

__all__ = ["DictionaryManifest", "Member", "Run", "draw_dictionary", "read_manifest", "read_manifests", "relation", "train_dictionary"]
