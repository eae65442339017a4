"""Pages of the repository that lie outside docs/, and links to them, for the built site (a hook of mkdocs).

On a code host every link between files of the repository works as it is written. In the site README, CONTRIBUTING,
CHANGELOG and the methods' pages become pages of their own, other files that a page links to (code, a licence) are shown
as they are, and every relative link is written anew for where its target lies in the site.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "notebooks/README.md": "notebooks.md",
    **{
        page.relative_to(ROOT).as_posix(): f"methods/{page.parent.name}.md"
        for page in sorted((ROOT / "qaclims_ray" / "methods").glob("*/README.md"))
    },
}
"""Files outside docs/ that are pages of the site, and where."""
_WHERE = {site: repository for repository, site in PAGES.items()}
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}


def on_config(config: Any) -> Any:
    """List the pages of figures, in the order of their titles."""
    results = sorted((ROOT / "docs" / "results").glob("*.md"), key=_title)
    for section in config.nav:
        if "Results" in section:
            section["Results"] = [{_title(page): f"results/{page.name}"} for page in results]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside docs/."""
    for repository, site in PAGES.items():
        files.append(File.generated(config, site, content=(ROOT / repository).read_text()))
    for path in sorted(_shown_files(files)):
        files.append(File.generated(config, _shown_as(path), content=_shown(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Write the page's links for the site."""
    source, titles = page.file.src_uri, dict(_titles(config.nav))

    def moved(link: re.Match[str]) -> str:
        target, mark, heading = link[2].partition("#")
        if re.match(r"[a-z]+:", link[2]) or not target:
            return link[0]
        site = _site_place(_resolved(source, target))
        if site is None:
            return link[0]
        name = link[1]
        if name == PurePosixPath(target).name and site.endswith(".md"):
            name = titles.get(site, name)  # a page's name says more than its file's
        return f"[{name}]({os.path.relpath(site, PurePosixPath(source).parent)}{mark}{heading})"

    # Every second piece is code, which stays as it is.
    pieces = _CODE.split(markdown)
    pieces[::2] = [_LINK.sub(moved, piece) for piece in pieces[::2]]
    return "".join(pieces)


def _titles(nav: Any) -> Iterator[tuple[str, str]]:
    """Yield the pages that the navigation names, and how."""
    for entry in nav:
        if isinstance(entry, dict):
            for title, inside in entry.items():
                yield from [(inside, title)] if isinstance(inside, str) else _titles(inside)


def _title(page: Path) -> str:
    return page.read_text().partition("\n")[0].removeprefix("# ")


def _resolved(site: str, target: str) -> str:
    """Return the place in the repository that a link of a page of the site names."""
    repository = _WHERE.get(site, f"docs/{site}")
    return os.path.normpath(PurePosixPath(repository).parent / target)


def _site_place(repository: str) -> str | None:
    """Return where a file of the repository lies in the site; None: nowhere, which mkdocs then says."""
    if repository in PAGES:
        return PAGES[repository]
    if repository.startswith("docs/"):
        return repository.removeprefix("docs/")
    return _shown_as(repository) if (ROOT / repository).is_file() else None


def _shown_files(files: Files) -> Iterator[str]:
    """Yield the files outside docs/ that pages link to and that are no pages."""
    for file in list(files.documentation_pages()):
        text = "".join(_CODE.split(file.content_string)[::2])
        for _, link in _LINK.findall(text):
            path = _resolved(file.src_uri, link.partition("#")[0])
            place = None if re.match(r"[a-z]+:", link) else _site_place(path)
            if place is not None and place.startswith("source/") and files.get_file_from_path(place) is None:
                yield path


def _shown_as(repository: str) -> str:
    return f"source/{repository}.md"


def _shown(repository: str) -> str:
    text = (ROOT / repository).read_text()
    language = _LANGUAGES.get(PurePosixPath(repository).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {repository}\n\n````{language}\n{text.rstrip()}\n````\n"
