"""The table of all settings on the page of settings, out of their docstrings (a hook of mkdocs)."""

import re
from collections.abc import Iterator
from typing import Any

from rows import known_rows, place_of

from qaclims_ray.commands.every_setting import SettingsSection, in_words, named_rows, setting_sections
from qaclims_ray.commands.settings_help import shown_value
from qaclims_ray.data.config import DataConfig
from qaclims_ray.run_config import RunConfig, flat

PAGE = "settings.md"
MARK = "<!-- every setting -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the table in place of what stands behind the mark."""
    if page.file.src_uri != PAGE:
        return markdown
    before, mark, _ = markdown.partition(MARK)
    if not mark:
        raise ValueError(f"docs/{PAGE} has no {MARK}, behind which the settings are written")
    return before + every_setting()


def every_setting() -> str:
    """Return all settings as Markdown, a table for each section."""
    config = RunConfig(name="folder", data=DataConfig(dataset="folder"))
    values = flat(config)
    lines = [
        f"{len(values)} settings. The last column is what stands where neither a preset nor you say otherwise.",
        "",
    ]
    for section in setting_sections(config):
        lines += _section(section, values)
    return "\n".join(lines)


def _section(section: SettingsSection, values: dict[str, Any]) -> Iterator[str]:
    yield f"## {section.name or 'The run'}"
    yield ""
    yield f"{_text(in_words(section.words))}{_compared(section.words)}"
    yield ""
    yield "| setting | meaning | default |"
    yield "|---|---|---|"
    for name, takes, words in section.settings:
        default = shown_value(values[name]) or "empty"
        meaning = f"{_text(in_words(words))} {_takes(takes)}{_compared(words)}".replace("|", "\\|")
        yield f"| `{name}` | {meaning} | {_code(default)} |"
    yield ""


def _compared(words: str) -> str:
    """Return links to where papers and code are compared."""
    rows = [row for row in named_rows(words) if row in known_rows()]
    links = [f"[{'papers and code' if row == rows[0] else 'more'}](method.md#{place_of(row)})" for row in rows]
    return f" ({', '.join(links)})" if links else ""


def _takes(takes: str) -> str:
    """Return what a setting takes as a remark, where its name does not say it."""
    words = {"X": "A number.", "N": "A whole number.", "{True,False}": "True or False."}
    if takes in words:
        return words[takes]
    several = takes.removesuffix(" ...")
    which = ", ".join(f"`{one}`" for one in several.strip("{}").split(",")) if several.startswith("{") else ""
    many = {"X": "Numbers.", "N": "Whole numbers."}.get(several, "")
    return f"{'Some' if several != takes else 'One'} of {which}." if which else many


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _text(words: str) -> str:
    """Return words of a docstring as they are, though Markdown or HTML would read marks of them."""
    pieces = re.split(r"(`[^`]*`)", words)
    pieces[::2] = [re.sub(r"([*_<\[\]{}])", r"\\\1", piece) for piece in pieces[::2]]
    return re.sub(r"\bdocs/(\w+)\.md", r"[\1](\1.md)", "".join(pieces))
