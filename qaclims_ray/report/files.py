"""The report of a run: ``report.json`` for programs, ``report.html`` for people.

The page is one file with everything inside (styles, charts, pictures), so it can be mailed and opened offline; the
JSON holds the same figures as fractions. Which figures chose anything by pixel labels is said in both.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from qaclims_ray.data import artifacts, storage
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.scored_figures import STAGES
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report.contents import CHOSEN_BY_PIXEL_LABELS, ReportData

JSON_NAME = "report.json"
HTML_NAME = "report.html"
_READ_OFF = ("mdice_fixed", "mdice_best", "dice", "dice_best", "left_out")
"""What scores hold besides their fields."""


def write_report(uri: str, data: ReportData) -> str:
    """Write ``report.json`` and ``report.html`` into a folder and return the page's URI.

    Raises:
        DataError: when there is no system to report on.
        ResourceError: when the place cannot be written.
    """
    if not data.systems:
        raise DataError("a report needs at least one system; run `qaclims train` and `qaclims evaluate` first")
    # Not at the top: with the charts comes matplotlib, which reading a report does not need.
    from qaclims_ray.report.run_page import run_page

    page, html = storage.join(uri, HTML_NAME), run_page(data).encode()
    figures = artifacts.plain({**report_json(data), "page": hashlib.sha256(html).hexdigest()})
    content = json.dumps({**figures, "seal": artifacts.fingerprint_of(figures)}, indent=2, allow_nan=False)
    storage.write_bytes(page, html)
    storage.write_bytes(storage.join(uri, JSON_NAME), content.encode())  # last: it says what the page was made from
    return page


def written_page(uri: str, made_from: str) -> str | None:
    """Return the URI of the page in a folder, where page and figures are there as written, and made from just this.

    Args:
        uri: see `write_report`.
        made_from: see `ReportData.made_from`.
    """
    page, figures = storage.join(uri, HTML_NAME), storage.join(uri, JSON_NAME)
    if not (storage.exists(page) and storage.exists(figures)):
        return None
    try:
        found, html = json.loads(storage.read_bytes(figures)), storage.read_bytes(page)
    except (ValueError, DataError, RecursionError):
        return None
    is_of_this = isinstance(found, dict) and found.get("made_from") == made_from
    if not is_of_this or found.pop("seal", "") != artifacts.fingerprint_of(found):
        return None
    return page if found["page"] == hashlib.sha256(html).hexdigest() else None


def report_json(data: ReportData) -> dict[str, Any]:
    """Return what ``report.json`` holds: plain values, fractions, null where a figure does not exist."""
    systems = {}
    for name, system in data.systems.items():
        systems[name] = {
            "label": system.label,
            "description": system.description,
            "threshold_label_free": system.threshold_label_free,
            **{stage: _scores(system.scores(stage)) for stage in STAGES},
            "mask_summary": dict(system.mask_summary),
            "initial_weights": system.initial_weights,
            "cooccurrence": None if system.cooccurrence is None else dataclasses.asdict(system.cooccurrence),
            "prompts": None if system.prompts is None else system.prompts.nearest,
            "prompts_own_text": None if system.prompts is None else system.prompts.own_text,
            "curves": {quantity: [list(point) for point in points] for quantity, points in system.curves.items()},
        }
    return _plain(
        {
            "title": data.title,
            "created": data.created,
            "made_from": data.made_from,
            "rank_by": data.rank_by,
            "chosen_by_pixel_labels": list(CHOSEN_BY_PIXEL_LABELS),
            "splits": dict(data.splits),
            "trust": None if data.trust is None else dataclasses.asdict(data.trust),
            "trust_lists": {name: dataclasses.asdict(lists) for name, lists in data.trust_lists.items()},
            "systems": systems,
            "timings": dict(data.timings),
            "dataset": dict(data.dataset),
            "environment": dict(data.environment),
            "weights": [dict(weight) for weight in data.licences],
            "config": dict(data.config),
        }
    )


def _scores(scores: SeedScores | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    return {**dataclasses.asdict(scores), **{name: getattr(scores, name) for name in _READ_OFF}}


def _plain(value: Any) -> Any:
    """NaN and infinity have no place in JSON: a figure that does not exist is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
