"""The part of a run's page that needs no mask, and the same tables for the console."""

from dataclasses import dataclass

from qaclims_ray.evaluation.few_masks import NUMBER
from qaclims_ray.evaluation.trust import TrustFigures
from qaclims_ray.report.contents import ReportData, data_colours
from qaclims_ray.report.table import Table
from qaclims_ray.report.trust_remarks import TRUST_MEANING, spoken_of, trust_remarks
from qaclims_ray.report.trust_tables import (
    agreement_table,
    inseparable_table,
    listed_images,
    maps_table,
    trust_classes_table,
)

_MAPS_TEXT = (
    "What the label maps of every system and stage cover. Painted is the share of all pixels that show a class; a mask "
    "is empty where its image is tagged and it shows no class; a tag is not found where the map does not show a class "
    "of its image. Only final networks can find a class that is not tagged; it counts from one percent of the image on."
)
_THRESHOLD_TEXT = " Seeds are cut at the threshold that was given; the label-free one is chosen without masks."


@dataclass(frozen=True)
class TrustPage:
    """What the template shows."""

    meaning: str
    """What a reader must know."""
    remarks: list[str]
    """What stands out."""
    maps: Table
    """See `maps_table`."""
    maps_text: str
    """What stands above it."""
    agreement: Table
    """See `agreement_table`."""
    few_number: int
    """Masks by hand that are spoken of."""
    classifier_on: str
    """On which images the classifier was looked at."""
    classes: list[tuple[str, Table]]
    """Label of each system and its classes, the one that remarks are about first."""
    inseparable: Table | None
    """See `inseparable_table`."""
    lists: list[tuple[str, list[tuple[str, list[str]]]]]
    """Label of each system and its lists of images."""


def trust_page(data: ReportData) -> TrustPage | None:
    """Return what the page shows of a run without masks; None where nothing was counted."""
    trust = data.trust
    if trust is None or not trust.maps:
        return None
    labels, colours = {name: system.label for name, system in data.systems.items()}, data_colours(data)
    first = spoken_of(trust, labels)
    systems = [first, *(name for name in labels if name != first and trust.last_map(name))]
    return TrustPage(
        meaning=TRUST_MEANING,
        remarks=trust_remarks(trust, first, labels[first]),
        maps=maps_table(trust, labels, colours),
        maps_text=_MAPS_TEXT + (_THRESHOLD_TEXT if trust.thresholds else ""),
        agreement=agreement_table(trust, labels, colours),
        few_number=NUMBER,
        classifier_on=classifier_on(trust),
        classes=[(labels[name], trust_classes_table(trust, name)) for name in systems],
        inseparable=inseparable_table(trust),
        lists=[
            (labels[name], found)
            for name in systems
            if name in data.trust_lists and (found := listed_images(data.trust_lists[name]))
        ],
    )


def classifier_on(trust: TrustFigures) -> str:
    """Say on which images the classifier was looked at; empty where it was not."""
    found = trust.classifier
    if found is None:
        return ""
    how = "which it did not learn from" if found.is_held_out else "which it learned from"
    return f"{found.num_images} images of {found.split}, {how}"


def console_trust(data: ReportData) -> tuple[list[tuple[str, Table]], list[str]]:
    """Return the tables with their titles, and the lines, that the console shows where nothing was scored."""
    page = trust_page(data)
    if page is None:
        return [], []
    label, classes = page.classes[0]
    tables = [
        ("Label maps, without masks", page.maps),
        ("Agreement (mean IoU of two label maps), %", page.agreement),
        (f"Classes of {label}, %", classes),
    ]
    return tables, [*page.remarks, page.meaning]
