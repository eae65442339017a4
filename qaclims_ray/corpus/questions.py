"""The question templates asked of the VQA model: QA-CLIMS section 3.2 and Table 6.

Ten templates ask for the background of a class (seven for the objects around it, three for the scene), six for the
class itself (two for its fine-grained kind, four for its other names). The order is the same everywhere: objects,
scene, fine-grained, alias.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from qaclims_ray.errors import ConfigError

QuestionKind = Literal["foreground", "background"]
Group = Literal["objects", "scene", "fine_grained", "alias"]

KIND_OF_GROUP: dict[str, QuestionKind] = {
    "objects": "background",
    "scene": "background",
    "fine_grained": "foreground",
    "alias": "foreground",
}
"""Which side of the contrast the answers of a group serve."""

PLACEHOLDER = "{}"
"""Where a template takes the class name."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question template."""

    template: str
    """Text with one ``{}`` for the class name."""
    kind: QuestionKind
    """Whether its answers describe the class or what surrounds it."""
    group: Group
    """The paper's question type."""

    def ask(self, class_name: str) -> str:
        """Return the question about one class."""
        return self.template.replace(PLACEHOLDER, class_name)


def _questions(templates: dict[Group, tuple[str, ...]]) -> tuple[Question, ...]:
    return tuple(
        Question(template=template, kind=KIND_OF_GROUP[group], group=group)
        for group, group_templates in templates.items()
        for template in group_templates
    )


_OFFICIAL_TEMPLATES: dict[Group, tuple[str, ...]] = {
    "objects": (
        "what is above the {}?",
        "what is under the {}?",
        "what is behind the {}?",
        "what is around the {}?",
        "what is next to the {}?",
        "what is the left side of {}?",
        "what is the right side of {}?",
    ),
    "scene": (
        "what scene is the {} in?",
        "what environment is the {} in?",
        "what place is the {} in?",
    ),
    "fine_grained": (
        "What kind of {} is in the photo?",
        "What type of {} is in the photo?",
    ),
    "alias": (
        "What is this {} also called?",
        "What is this {} usually called?",
        "What is another word for this {}?",
        "What is another name for this {}?",
    ),
}

OFFICIAL_QUESTIONS: tuple[Question, ...] = _questions(_OFFICIAL_TEMPLATES)
"""The wording of the released QA-CLIMS code: background questions all lower case, foreground ones capitalised."""

PAPER_QUESTIONS: tuple[Question, ...] = _questions(
    {
        group: tuple(template[0].upper() + template[1:] for template in templates)
        for group, templates in _OFFICIAL_TEMPLATES.items()
    }
)
"""The wording of Table 6 of the paper: the same sixteen, all capitalised."""


HISTOLOGY_QUESTIONS: tuple[Question, ...] = _questions(
    {
        "objects": (
            "what tissue surrounds the {}?",
            "what tissue is next to the {}?",
            "what cells are around the {}?",
            "what lies between the {}?",
            "what other tissue is in the image besides {}?",
        ),
        "scene": (
            "what organ is the {} in?",
            "what stain shows the {}?",
            "what kind of specimen is the {} in?",
        ),
        "fine_grained": (
            "What kind of {} is in this microscope image?",
            "What type of cells does the {} have?",
        ),
        "alias": (
            "What is another medical name for {}?",
            "What do pathologists call this {}?",
        ),
    }
)
"""Ours, for tissue under the microscope, where "what is above the {}?" asks for nothing: a slide has no above."""


def load_questions(path: str | Path) -> tuple[Question, ...]:
    """Read a question set from a JSON list of ``{"template", "kind", "group"}`` objects.

    Args:
        path: The JSON file.

    Returns:
        The questions in file order.

    Raises:
        ConfigError: The file is absent, is no JSON list, or has bad entries; every bad entry is named.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"question file {path} cannot be read ({error.strerror}). Give the path of a JSON list of questions."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"question file {path} is not JSON ({error}). Expected a list of objects with template, kind and group."
        ) from error
    if not isinstance(entries, list) or not entries:
        found = f"a JSON {type(entries).__name__}" if not isinstance(entries, list) else "an empty list"
        raise ConfigError(
            f"question file {path} holds {found}. Expected a list of objects with template, kind and group; add some."
        )
    faults = [f"entry {index}: {fault}" for index, entry in enumerate(entries) for fault in _entry_faults(entry)]
    faults += _set_faults(entries)
    if faults:
        raise ConfigError(f"question file {path} has {len(faults)} fault(s), mend each: " + "; ".join(faults))
    return tuple(Question(**entry) for entry in entries)


def _entry_faults(entry: object) -> list[str]:
    if not isinstance(entry, dict):
        return [f"found a {type(entry).__name__}, expected an object with template, kind and group"]
    faults = []
    fields = {"template", "kind", "group"}
    if missing := sorted(fields - entry.keys()):
        faults.append(f"lacks {', '.join(missing)}")
    if unknown := sorted(entry.keys() - fields):
        faults.append(f"has unknown key(s) {', '.join(unknown)}")
    for field, allowed in (("kind", get_args(QuestionKind)), ("group", get_args(Group))):
        if field in entry and entry[field] not in allowed:
            faults.append(f"{field} is {entry[field]!r}, expected one of {', '.join(allowed)}")
    if "template" in entry:
        faults += _template_faults(entry["template"])
    group, kind = entry.get("group"), entry.get("kind")
    expected_kind = KIND_OF_GROUP.get(group) if isinstance(group, str) else None
    if expected_kind is not None and kind in get_args(QuestionKind) and kind != expected_kind:
        faults.append(f"group {group} asks for the {expected_kind}, but kind is {kind}")
    return faults


def _template_faults(template: object) -> list[str]:
    if not isinstance(template, str):
        return [f"template is a {type(template).__name__}, expected text"]
    if template.count(PLACEHOLDER) != 1:
        return [f"template {template!r} has {template.count(PLACEHOLDER)} {PLACEHOLDER} for the class, expected one"]
    if "{" in template.replace(PLACEHOLDER, "") or "}" in template.replace(PLACEHOLDER, ""):
        return [f"template {template!r} has a brace outside {PLACEHOLDER}"]
    return []


def _set_faults(entries: list) -> list[str]:
    templates = [entry.get("template") for entry in entries if isinstance(entry, dict)]
    texts = [template for template in templates if isinstance(template, str)]
    repeated = sorted({text for text in texts if texts.count(text) > 1})
    return [f"template {text!r} is given more than once" for text in repeated]


def question_set(name_or_path: str) -> tuple[Question, ...]:
    """Return a question set by name (``official``, ``paper``, ``histology``) or from a JSON file.

    Args:
        name_or_path: A name, or a path ending in ``.json``.

    Returns:
        The questions in asking order.

    Raises:
        ConfigError: Neither a known name nor a readable file.
    """
    match name_or_path:
        case "official":
            return OFFICIAL_QUESTIONS
        case "paper":
            return PAPER_QUESTIONS
        case "histology":
            return HISTOLOGY_QUESTIONS
        case _ if Path(name_or_path).suffix == ".json":
            return load_questions(name_or_path)
        case _:
            raise ConfigError(
                f"question set {name_or_path!r} is unknown. Expected official, paper, histology or the path of a "
                ".json file."
            )


def questions_fingerprint(questions: Sequence[Question]) -> str:
    """Return a short hash of wording, kind, group and order (16 hexadecimal digits)."""
    rows = [[question.template, question.kind, question.group] for question in questions]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
