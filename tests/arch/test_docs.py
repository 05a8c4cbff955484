"""The pages hang together: links lead somewhere, indexes are whole, lists match what they list."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.arch.sources import ROOT, sources

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/README.md"), *DOCS.rglob("*/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")


def _links(page: Path) -> list[str]:
    text = CODE.sub("code", FENCE.sub("", page.read_text(encoding="utf-8")))
    return [target.split("#")[0] for target in LINK.findall(text) if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in _links(page) if link and not (page.parent / link).exists()]
    assert not broken, f"links that lead nowhere: {broken}"


@pytest.mark.parametrize(
    "folder", sorted(path for path in DOCS.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_index_is_whole(folder: Path) -> None:
    index = folder / "README.md"
    assert index.exists(), f"docs/{folder.name} has no README.md"
    listed = {(folder / link).resolve() for link in _links(index)}
    missing = [
        p.name for p in sorted(folder.glob("*.md")) if p != index and p.resolve() not in listed
    ]
    assert not missing, f"docs/{folder.name}/README.md does not list {missing}"


def test_environment_page_lists_every_switch() -> None:
    pattern = re.compile(r"\bTAPEOUT_[A-Z_]*[A-Z]\b")
    page = set(pattern.findall((DOCS / "reference" / "environment.md").read_text(encoding="utf-8")))
    read = {
        name for s in sources() if s.name == "support/env.py" for name in pattern.findall(s.text)
    }
    if not read:
        pytest.skip("nothing reads the environment yet")
    assert page == read


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=\[; ]", line)[0] for line in project["dependencies"]}
    page = (DOCS / "explanation" / "dependencies.md").read_text(encoding="utf-8")
    given = set(re.findall(r"^\| `([\w-]+)` \|", page.split("## Extras")[0], re.MULTILINE))
    assert given == wanted


def test_decisions_are_numbered_in_order() -> None:
    numbers = [int(path.name[:4]) for path in sorted((DOCS / "adr").glob("[0-9]*.md"))]
    assert numbers == sorted(set(numbers)), f"a number is used twice: {numbers}"
