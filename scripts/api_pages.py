"""MkDocs hook: the documentation gets a page for each room of both packages, so none can be forgotten."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SOURCE = Path(__file__).parents[1] / "src"
#: title in the navigation, folder of the pages and package
PACKAGES = {"API": ("api", "unmerge"), "API of the laboratory": ("lab-api", "unmerge_lab")}


def _rooms(package: str) -> list[str]:
    return sorted(door.parent.name for door in (SOURCE / package).glob("*/__init__.py"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the navigation."""
    pages = [{title: [{f"{package}.{room}": f"{folder}/{room}.md"} for room in _rooms(package)]} for title, (folder, package) in PACKAGES.items()]
    config.nav = [*(config.nav or []), *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages; mkdocstrings fills them."""
    for folder, package in PACKAGES.values():
        for room in _rooms(package):
            files.append(File.generated(config, f"{folder}/{room}.md", content=f"# {package}.{room}\n\n::: {package}.{room}\n"))
    return files
