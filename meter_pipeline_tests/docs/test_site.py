"""The docs site is built without a network, every link in it leads somewhere, and its pages fetch nothing from
outside.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline_tests.support import ROOT

pytest.importorskip("material", reason="the extra docs is not installed")

READERS = ["Data engineer", "Billing analyst", "Finance", "Auditor", "Contributor"]
#: What a browser loads by itself when it opens a page; a link that a reader follows is none of these.
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(https?:)?//|<link\b[^>]*\brel=[\"']?(?:stylesheet|preconnect|preload)[^>]*https?://"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in strict mode (a warning stops it) while every connection is refused."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def refused(*_: object) -> None:
        raise OSError("the docs are built without a network")

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.setattr(socket.socket, "connect", refused)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


def test_every_page_is_there_under_its_reader(site: Path) -> None:
    made = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= made
    assert {"index", "contributing", "changelog", "security"} <= made
    labels = re.findall(r'<span class="md-ellipsis">\s*([^<]+?)\s*<', (site / "index.html").read_text("utf-8"))
    assert [label for label in labels if label in READERS] == READERS


def test_no_page_loads_anything_from_outside(site: Path) -> None:
    for path in site.rglob("*.html"):
        found = _LOADED.search(path.read_text("utf-8"))
        assert found is None, f"{path.name}: {found and found[0]}"
        # The theme would fetch the program that draws such a diagram.
        assert 'class="mermaid"' not in path.read_text("utf-8"), path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import", path.read_text("utf-8")), path.name


def test_a_link_to_a_page_that_is_not_there_stops_the_build(tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# Start\n\nRead [on](gone.md).\n")
    settings: dict[str, Any] = {
        "docs_dir": str(docs),
        "site_dir": str(tmp_path / "site"),
        "nav": [{"Start": "index.md"}],
        "hooks": [],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        with pytest.raises(Abort, match="strict"):
            build(load_config(str(ROOT / "mkdocs.yml"), **settings))
