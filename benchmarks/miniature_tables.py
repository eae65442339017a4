"""Turn the figures of ``miniature_results.py`` into docs/results/miniature.md."""

import importlib.metadata
import itertools
import json
import os
import platform
import statistics
from datetime import date
from pathlib import Path
from typing import Any

from qaclims_ray.systems.known import SYSTEMS

PAPER_TABLE_4 = {"frc_only": 60.3, "brc_only": 57.7, "frc_brc": 67.1, "qa_clims": 67.3}
PAPER_TABLE_5 = {
    "ritc_class_names": 60.2,
    "fine_grained": 61.0,
    "alias": 60.7,
    "objects": 66.3,
    "scene": 64.5,
    "fine_grained_alias": 61.2,
    "fine_grained_alias_objects": 67.0,
    "qa_clims": 67.3,
}
PAPER_MAIN = {"baseline": 48.3, "ritc_class_names": 60.2, "qa_clims": 67.3, "no_fat": 66.9}
MAIN = (
    "baseline", "ritc_class_names", "fixed_clims", "fixed_primary", "fixed_secondary", "background_only", "shuffled",
    "qa_clims", "no_fat", "pixel_mask", "uncalibrated",
)  # fmt: skip

QA_CLIMS_TABLES = {"Table 4: losses": PAPER_TABLE_4, "Table 5: texts": PAPER_TABLE_5}
SEMPLES_PAPER_MAIN = {"baseline": 65.9, "semples_match": 67.6, "semples": 68.7}
"""SemPLeS on WeakTr; its first row is WeakTr itself."""
SEMPLES_MAIN = (
    "baseline", "clims", "semples_match", "semples_match_longer", "semples_random_prompts", "semples",
    "ritc_class_names", "qa_clims", "semples_on_qa_clims", "qa_clims_prompts",
)  # fmt: skip
SEMPLES_CLAIMS = (
    ("semples", "semples_match_longer", 3.0),
    ("semples", "semples_random_prompts", 2.0),
    ("semples", "semples_match", 0.0),
    ("qa_clims", "clims", 0.0),
    ("semples_on_qa_clims", "qa_clims", 0.0),
    ("qa_clims_prompts", "qa_clims", 0.0),
    ("qa_clims_prompts", "semples", 0.0),
)
SEMPLES_TABLES = {
    "Table 4: loss terms": {
        "semples_match": 67.6,
        "semples_random_prompts": 67.6,
        "semples_text_only": 67.7,
        "semples_image_only": 67.9,
        "semples": 68.7,
    },
    "Table 6: schedules": {
        "semples_joint": 65.9,
        "semples": 68.7,
        "semples_2_rounds": 68.5,
        "semples_3_rounds": 68.4,
    },
}

Rows = dict[str, list[dict[str, Any]]]


def write_tables(cache: Path, target: Path, seeds: list[int], *, preset: str) -> None:
    """Write the tables of the given seeds; the text around them is kept in the file between its markers.

    Args:
        cache: JSON lines of ``miniature_results.py``.
        target: Markdown file; what stands between ``<!-- tables -->`` and ``<!-- /tables -->`` is replaced.
        seeds: seeds to report.
        preset: preset the figures are of; it decides which tables there are.
    """
    rows: Rows = {}
    for line in cache.read_text().splitlines():
        row = json.loads(line)
        if row["seed"] in seeds:
            rows.setdefault(row["system"], []).append(row)
    if preset == "miniature":
        parts = [_conditions(rows, seeds), _main_table(MAIN, PAPER_MAIN, rows), _claims(rows)]
        parts += [_paper_table(title, paper, rows) for title, paper in QA_CLIMS_TABLES.items()]
    else:
        parts = [_conditions(rows, seeds), _main_table(SEMPLES_MAIN, SEMPLES_PAPER_MAIN, rows)]
        parts += [_differences(SEMPLES_CLAIMS, rows)]
        comparable = {title: paper for title, paper in SEMPLES_TABLES.items() if len(rows.keys() & paper.keys()) > 1}
        parts += [_paper_table(title, paper, rows) for title, paper in comparable.items()]
        parts += [_prompt_words(rows)]
    body = "\n\n".join(parts)
    start, end = "<!-- tables -->", "<!-- /tables -->"
    text = target.read_text() if target.is_file() else f"# Miniature results\n\n{start}\n{end}\n"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    target.write_text(f"{before}{start}\n{body}\n{end}{after}")
    print(body)


def _conditions(rows: Rows, seeds: list[int]) -> str:
    seconds = sum(row["seconds"] for system in rows.values() for row in system)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm", "transformers"))
    return (
        f"Measured {date.today()} on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{versions}; one thread a seed; seeds {', '.join(map(str, seeds))}, {seconds / 60:.0f} minutes of "
        "training and scoring in all. mean +- standard deviation over seeds, in mIoU points."
    )


def _mean(rows: Rows, system: str, figure: str) -> float:
    return statistics.fmean(row[figure] for row in rows[system])


def _points(rows: Rows, system: str, figure: str) -> str:
    values = [100 * row[figure] for row in rows[system]]
    spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _label(system: str) -> str:
    return SYSTEMS[system].label if system in SYSTEMS else "QA-CLIMS, uncalibrated start"


def _main_table(systems: tuple[str, ...], paper: dict[str, float], rows: Rows) -> str:
    lines = [
        "### Systems",
        "",
        "| system | fixed threshold | label-free threshold | best of sweep (pixel labels) | coverage | "
        "false positives on co-occurring stuff | other false positives | paper, VOC train |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for system in systems:
        if system not in rows:
            continue
        figures = [_points(rows, system, name) for name in ("miou_fixed", "miou_label_free", "miou_best")]
        places = [
            f"{_mean(rows, system, name):.2f}"
            for name in ("coverage", "false_positive_context", "false_positive_elsewhere")
        ]
        lines.append(f"| {' | '.join([_label(system), *figures, *places, str(paper.get(system, '-'))])} |")
    return "\n".join(lines)


def _claims(rows: Rows) -> str:
    """What the project promised to show, computed, with the verdict as found."""
    lists = [name for name in ("fixed_clims", "fixed_primary", "fixed_secondary") if name in rows]
    best_list = max(lists, key=lambda name: _mean(rows, name, "miou_best"), default=None)
    wanted = [
        ("ritc_class_names", "baseline", 12.0),
        ("qa_clims", "ritc_class_names", 3.0),
        ("qa_clims", best_list, 3.0),
        ("qa_clims", "no_fat", 0.0),
        ("qa_clims", "shuffled", 0.0),
        ("background_only", "ritc_class_names", 0.0),
    ]
    lines = [_differences(tuple((a, b, margin) for a, b, margin in wanted if b is not None), rows)]
    chain = [name for name in ("baseline", "ritc_class_names", "qa_clims") if name in rows]
    values = [_mean(rows, name, "false_positive_context") for name in chain]
    falls = all(b < a for a, b in itertools.pairwise(values))
    shown = " -> ".join(f"{value:.2f}" for value in values)
    lines.append(f"| false positives on co-occurring stuff fall at each step | {shown} | | {_verdict(falls)} |")
    return "\n".join(lines)


def _differences(wanted: tuple[tuple[str, str, float], ...], rows: Rows) -> str:
    """Rows (better system, other system, least difference in points), with what was found."""
    lines = ["### Claims", "", "| claim | difference, best of sweep | by seed | holds |", "|---|---|---|---|"]
    for upper, lower, margin in wanted:
        if upper not in rows or lower not in rows:
            continue
        by_seed = _by_seed(rows, upper, lower, "miou_best")
        found = statistics.fmean(by_seed)
        claim = f"{_label(upper)} over {_label(lower)} by at least {margin:g}"
        lines.append(
            f"| {claim} | {found:+.1f} | {', '.join(f'{d:+.1f}' for d in by_seed)} | {_verdict(found >= margin)} |"
        )
    return "\n".join(lines)


def _prompt_words(rows: Rows) -> str:
    """What the learned prompts say, per class and seed."""
    learned = sorted(rows.get("semples", []), key=lambda row: row["seed"])
    heads = " | ".join(f"seed {row['seed']}" for row in learned)
    lines = ["### Learned prompts: the nearest words, with cosines", "", f"| class | {heads} |"]
    lines.append("|---" * (1 + len(learned)) + "|")
    for name in learned[0]["prompt_words"] if learned else ():
        lines.append(f"| {name} | " + " | ".join(", ".join(row["prompt_words"][name]) for row in learned) + " |")
    return "\n".join(lines)


def _by_seed(rows: Rows, upper: str, lower: str, figure: str) -> list[float]:
    lower_by_seed = {row["seed"]: row[figure] for row in rows[lower]}
    pairs = sorted((row["seed"], row[figure]) for row in rows[upper] if row["seed"] in lower_by_seed)
    return [100 * (value - lower_by_seed[seed]) for seed, value in pairs]


def _verdict(holds: bool) -> str:
    return "yes" if holds else "NO"


def _paper_table(title: str, paper: dict[str, float], rows: Rows) -> str:
    lines = [
        f"### {title}",
        "",
        "| row | miniature, best of sweep | miniature, fixed | paper, VOC train |",
        "|---|---|---|---|",
    ]
    for system, figure in paper.items():
        if system in rows:
            ours = [_points(rows, system, name) for name in ("miou_best", "miou_fixed")]
            lines.append(f"| {_label(system)} | {ours[0]} | {ours[1]} | {figure} |")
    return "\n".join(lines)
