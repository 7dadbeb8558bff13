"""The pages of the docs site that stand beside docs/: README, CONTRIBUTING, CHANGELOG and SECURITY (a hook of
mkdocs.yml).

On the site README is the first page. Links between these files and docs/ are turned to the site's places.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
#: file beside docs/ -> its page
BESIDE: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    from mkdocs.structure.files import File

    for name, page in BESIDE.items():
        text = re.sub(r"\]\(docs/", "](", (ROOT / name).read_text("utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to the files beside docs/ lead to their pages; the table of contents knows code in brackets is no link."""
    for name, target in BESIDE.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}(?=[#)])", f"]({target}", markdown)
    return markdown
