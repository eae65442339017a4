"""The command of a small run with every kind of file, called in this process: one Ray serves many calls."""

import contextlib
import io
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qaclims_ray.commands.main import run_verb
from tests.cluster.small_run import SMALL, as_flags
from tests.time_limit import within

EVERY_KIND: dict[str, Any] = {
    **SMALL,
    "goal": "segmentation",
    "systems": ["qa_clims", "semples"],
    "data.num_images": 12,
    "data.limit": 12,
    "classifier.calibrate": True,
    "classifier.optim.epochs": 3,
    "semples.match.epochs": 1,
    "semples.refine.epochs": 1,
    "semples.prompt.optim.epochs": 2,
    "semples.prompt.steps_per_epoch": 2,
    "masks.steps": ["irn"],
    "masks.irn.optim.epochs": 1,
    "masks.irn.optim.batch_size": 8,
    "segmentation.optim.epochs": 1,
    "segmentation.steps_per_epoch": 2,
    "segmentation.optim.batch_size": 8,
    "supervised_bound": False,
    "tracking.enabled": True,
}
"""Every kind of file that a run keeps, as small as may be."""
MOST_SECONDS = 900
"""No run this small takes so long, however busy the machine."""


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    code: int | None
    """Exit code; None where an exception left it."""
    told: str
    """What it wrote to both outputs, or the traceback."""

    @property
    def lines(self) -> str:
        """The last line, which says why it ended."""
        return self.told.strip().rsplit("\n", 1)[-1]


def call(out: Path | str, settings: Mapping[str, Any], verb: str = "run") -> Called:
    """Call ``qaclims VERB miniature``; what would be a traceback is returned, not raised."""
    written = io.StringIO()
    logging.getLogger().handlers.clear()  # they would write where the call before did
    try:
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written), within(MOST_SECONDS):
            code = run_verb(verb, ["miniature", "--out", str(out), *as_flags(dict(settings))])
        return Called(code, written.getvalue())
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Called(None, f"{written.getvalue()}\n{traceback.format_exc()}")
