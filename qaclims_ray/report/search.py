"""The results of a search: trials, the importance of each setting, and how the figure responds to it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from optuna import create_study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from qaclims_ray.data import storage
from qaclims_ray.report.figures import WIDTH_INCHES, dress
from qaclims_ray.report.page import chart, render
from qaclims_ray.report.palette import INK, QUIET_INK, system_colours
from qaclims_ray.report.table import Column, Table, markdown_table, text_rows

FEWEST_TRIALS = 8
"""Whole trials below which no importance is given."""
_COLUMNS = 4
_BEST, _POINT = (system_colours("0ab")[letter] for letter in "ab")


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial."""

    name: str
    """Its name."""
    values: Mapping[str, Any]
    """What was tried."""
    objective: float | None
    """The figure of its last epoch; None where there was none."""
    epochs: int
    """Epochs it trained."""
    seconds: float
    """How long it took."""
    failure: str = ""
    """Why it failed; empty where it did not."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """All trials."""

    title: str
    """What was searched."""
    objective: str
    """What rated the trials."""
    epochs: int
    """Epochs of a whole trial."""
    start: Mapping[str, Any]
    """The preset's own values."""
    scales: Mapping[str, str]
    """Scale of each numeric setting, "linear" or "log"."""
    rows: tuple[TrialRow, ...]
    """The trials, in order."""


def whole_trials(result: SearchResult) -> list[TrialRow]:
    """Return the trials that reached their last epoch: figures of earlier epochs are not compared with theirs."""
    return [r for r in result.rows if not r.failure and r.objective is not None and r.epochs == result.epochs]


def best_trial(result: SearchResult) -> TrialRow | None:
    """Return the best whole trial, the earliest of equals; None where there is none."""
    return max(whole_trials(result), key=lambda row: row.objective or 0.0, default=None)


def importances(result: SearchResult) -> dict[str, float]:
    """Return each setting's share in what parts the better half of whole trials from all (PED-ANOVA), largest first.

    Empty where there are fewer than `FEWEST_TRIALS` whole trials.
    """
    rows = whole_trials(result)
    if len(rows) < FEWEST_TRIALS:
        return {}
    study = create_study(direction="maximize")
    spaces = {name: _distribution(name, result) for name in rows[0].values}
    for row in rows:
        study.add_trial(create_trial(params=dict(row.values), distributions=spaces, value=row.objective))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=0.5, region_quantile=1.0)
    found = get_param_importances(study, evaluator=evaluator)
    return {name: share for name, share in found.items() if math.isfinite(share)}


def _distribution(name: str, result: SearchResult) -> BaseDistribution:
    values = [row.values[name] for row in whole_trials(result)]
    if name not in result.scales:
        return CategoricalDistribution(list(dict.fromkeys(values)))
    return FloatDistribution(min(values), max(values), log=result.scales[name] == "log")


def write_search(folder: str, result: SearchResult) -> dict[str, str]:
    """Write table (Markdown), figures (JSON) and page (HTML); return their places by these names."""
    shares = importances(result)
    content = {**asdict(result), "importance": shares}
    files = {
        "table": ("search.md", search_markdown(result)),
        "figures": ("search.json", json.dumps(content, indent=2)),
        "page": ("search.html", _page(result, shares)),
    }
    for name, text in files.values():
        storage.write_bytes(storage.join(folder, name), text.encode())
    return {key: storage.join(folder, name) for key, (name, _) in files.items()}


def search_markdown(result: SearchResult) -> str:
    """Return the trials as a table, the best first; those that were stopped or failed at the end."""
    lines = [f"{result.title}. Rated by {result.objective}, at the last of {result.epochs} epochs.", ""]
    lines += markdown_table(trials_table(result))
    lines += [f"\n{row.name} failed: {row.failure}" for row in result.rows if row.failure]
    return "\n".join(lines) + "\n"


def trials_table(result: SearchResult) -> Table:
    """Return a row for each trial, the best first; those that were stopped or failed at the end."""
    names = list(result.start)
    rows = []
    for row in sorted(result.rows, key=lambda r: (bool(r.failure), -r.epochs, -(r.objective or 0.0))):
        figure = "failed" if row.failure else _shown(row.objective)
        rows.append([row.name, figure, str(row.epochs), *(_shown(row.values[name]) for name in names)])
    return Table(tuple(Column(head=head) for head in ("trial", "figure", "epochs", *names)), text_rows(rows))


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _page(result: SearchResult, shares: Mapping[str, float]) -> str:
    num_whole = len(whole_trials(result))
    return render(
        "search.html",
        title=result.title,
        objective=result.objective,
        num_whole=num_whole,
        fewest=FEWEST_TRIALS,
        importance=chart(importance_figure(shares), "importance", "importance of each setting") if shares else None,
        response=chart(response_figure(result), "response", "figure of each trial over the settings")
        if num_whole
        else None,
        trials=trials_table(result),
    )


def importance_figure(shares: Mapping[str, float]) -> Figure:
    """Draw a bar for every setting, the most important on top."""
    figure = Figure(figsize=(WIDTH_INCHES, 0.8 + 0.32 * len(shares)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(shares)), list(shares.values()), color=_POINT)
    axes.set_yticks(range(len(shares)), list(shares))
    axes.invert_yaxis()
    dress(axes, "share")
    axes.grid(False, axis="y")
    return figure


def response_figure(result: SearchResult) -> Figure:
    """Draw the figure over every setting, one panel each, as the papers draw omega and tau (QA-CLIMS Fig. 5)."""
    rows, names, best = whole_trials(result), list(result.start), best_trial(result)
    columns = min(_COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(WIDTH_INCHES, 0.3 + 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
    for axes, name in zip(panels, names, strict=False):
        axes.scatter([r.values[name] for r in rows], [r.objective for r in rows], s=18, color=_POINT)
        if best is not None:
            axes.scatter([best.values[name]], [best.objective], s=110, marker="*", color=_BEST, zorder=3)
        if name in result.scales:
            axes.set_xscale(result.scales[name])
            if result.scales[name] == "log":
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
                axes.xaxis.set_major_formatter("{x:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.axvline(result.start[name], color=QUIET_INK, linewidth=1, linestyle="--")
        dress(axes, name)
    panels[0].set_ylabel(result.objective, color=INK, fontsize=9)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure
