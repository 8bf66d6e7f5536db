"""Whole experiments: run, record."""

from unmerge.studies.demo import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
