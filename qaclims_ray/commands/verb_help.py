"""The list of verbs, in groups: what a newcomer needs first."""

import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

GROUPS_OF_VERBS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("start here", ("start", "run", "fetch", "help")),
    ("stages, in their order; each makes what is missing before it",
     ("data", "corpus", "text", "train", "cams", "evaluate", "refine", "segment", "report")),
    ("look and compare", ("compare", "rerun", "label-these", "prompts", "ablate", "tune")),
    ("use and hand on", ("predict", "export-masks", "export-network", "ui", "sync")),
)  # fmt: skip
"""Title and verbs of each group; a verb that stands in none comes last."""
_HELP_ABOUT = "what a verb takes: `qaclims help VERB`; this list without one"
_NAME_WIDTH = 15


def verbs_help(verbs: Mapping[str, Any]) -> str:
    """Return the list of all verbs.

    Args:
        verbs: name -> `Verb`.
    """
    about = {name: verb.about for name, verb in verbs.items()} | {"help": _HELP_ABOUT}
    named = {name for _, group in GROUPS_OF_VERBS for name in group}
    groups = [*GROUPS_OF_VERBS, ("others", tuple(name for name in about if name not in named))]
    width = max(80, min(shutil.get_terminal_size((120, 24)).columns, 120)) - _NAME_WIDTH - 2
    lines = ["usage: qaclims VERB ...", "       qaclims help [VERB]", "       qaclims --version"]
    for title, group in groups:
        present = [name for name in group if name in about]
        lines += ["", f"{title}:"] if present else []
        for name in present:
            body = textwrap.wrap(about[name], width, break_on_hyphens=False)
            lines += [f"  {name if n == 0 else '':<{_NAME_WIDTH}}{line}" for n, line in enumerate(body)]
    lines += [
        "",
        "A verb takes a preset (`qaclims run --help` lists them) or the folder of an earlier run: "
        "`qaclims report runs/mini`.",
    ]
    return "\n".join(lines)
