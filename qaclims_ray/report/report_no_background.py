"""The report's figures of seeds where there is no background: one mIoU, one Dice coefficient, and no threshold."""

from html import escape

from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report.report_data import ReportData, winner
from qaclims_ray.report.report_parts import data_colours, labels_in_words, percent, swatch


def seed_tiles(data: ReportData, best: str) -> list[tuple[str, str, str]]:
    """Return the headline of the best system's seeds as (figure, text, ranking figure).

    Args:
        data: the report.
        best: name of the system, which has seeds.
    """
    system, first = data.systems[best], next(iter(data.systems.values()))
    assert system.seed is not None
    label = escape(system.label)
    tiles = [
        (f"{percent(system.seed.miou_fixed)} %", f"seed mIoU of {label}", ""),
        (f"{percent(system.seed.mdice_fixed)} %", f"seed Dice of {label}", ""),
    ]
    if system is not first and first.seed:
        gain = 100 * (system.seed.miou_fixed - first.seed.miou_fixed)
        tiles.append((f"{gain:+.1f}", f"points of mIoU over {escape(first.label)}", ""))
    return tiles


def seeds_section(data: ReportData) -> str:
    """Return the table of systems and what their seeds score."""
    colours, best = data_colours(data), winner(data)
    first = next(iter(data.systems.values())).seed
    rows = []
    for name, system in data.systems.items():
        crown = '<span class="crown">best</span>' if name == best and len(data.systems) > 1 else ""
        label = f"{swatch(colours[system.label])}<b>{escape(system.label)}</b>{crown}"
        title = f"<td>{label}<small>{escape(system.description)}</small></td>"
        if system.seed is None:
            rows.append(f'<tr>{title}<td colspan="4">no seeds were scored</td></tr>')
            continue
        cells = "".join(
            _cell(system.seed, first, figure, is_top=name == best) for figure in ("miou_fixed", "mdice_fixed")
        )
        errors = (system.seed.false_positive_rate, system.seed.false_negative_rate)
        cells += "".join(f"<td>{percent(value)}</td>" for value in errors)
        rows.append(f'<tr class="{"winner" if name == best else ""}">{title}{cells}</tr>')
    return (
        f"<section><h2>Systems</h2><p>Mean IoU and mean Dice coefficient of the seeds {labels_in_words(data)}: a pixel "
        "takes the foremost of its image's classes, without a threshold. In percent, with the difference to the first "
        "system; both are read from the pixels of all images together. FP and FN are over- and under-activation: the "
        "means over classes of FP and FN over the union.</p>"
        '<div class="scroll"><table><thead><tr><th>system</th><th>mIoU</th><th>Dice</th><th>FP</th><th>FN</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cell(seed: SeedScores, first: SeedScores | None, figure: str, *, is_top: bool) -> str:
    value, delta = getattr(seed, figure), ""
    if first is not None and seed is not first:
        gain = 100 * (value - getattr(first, figure))
        delta = f'<small class="{"up" if gain >= 0 else "down"}">{gain:+.1f}</small>'
    top = ' class="top"' if is_top else ""
    return f"<td{top}>{percent(value)}{delta}</td>"
