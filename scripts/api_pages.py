"""MkDocs hook: the documentation gets a page for each room of the package, so none can be forgotten."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parents[1] / "src" / "unmerge"
ROOMS = sorted(door.parent.name for door in PACKAGE.glob("*/__init__.py"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the navigation."""
    config.nav = [*(config.nav or []), {"API": [{f"unmerge.{room}": f"api/{room}.md"} for room in ROOMS]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages; mkdocstrings fills them."""
    for room in ROOMS:
        files.append(File.generated(config, f"api/{room}.md", content=f"# unmerge.{room}\n\n::: unmerge.{room}\n"))
    return files
