"""Whole experiments: run, record."""

from unmerge_lab.studies.demo import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
