"""What figures are on: split and number of images, and the labels that their means leave out.

Figures of different images stand in one table and one chart, seeds on the training split and final networks on
another. They do not compare, so wherever a figure stands, what it is on stands with it.
"""

from collections.abc import Iterable, Mapping

from qaclims_ray.evaluation.scored_figures import STAGES, ScoredStage, fixed_figure
from qaclims_ray.evaluation.scored_labels import left_out_text
from qaclims_ray.report.contents import ReportData

_SPLIT_OF: Mapping[ScoredStage, str] = {
    stage: "segmentation" if fixed_figure(stage).split == "test" else "mask" if stage == "mask" else "seed"
    for stage in STAGES
}
"""Stage -> where its split stands in `ReportData.splits`."""


def split_of(data: ReportData, stage: ScoredStage) -> str:
    """Return the split that a stage is scored on, empty where it is not known."""
    return data.splits.get(_SPLIT_OF[stage], "")


def num_images(data: ReportData, stage: ScoredStage) -> str:
    """Return how many images a stage is scored on; more than one number where systems differ, as images failed."""
    found = {scores.num_images for system in data.systems.values() if (scores := system.scores(stage)) is not None}
    return " / ".join(str(count) for count in sorted(found))


def scored_on(data: ReportData, stage: ScoredStage) -> str:
    """Return split and number of images in words, e.g. "train (600 images)"; what is not known is left out."""
    split, count = split_of(data, stage), num_images(data, stage)
    images = f"{count} image{'' if count == '1' else 's'}" if count else ""
    return f"{split} ({images})" if split and images else split or images


def short_scored_on(data: ReportData, stage: ScoredStage) -> str:
    """Return the same for narrow columns, e.g. "train (600)"; empty where no split is known."""
    split, count = split_of(data, stage), num_images(data, stage)
    return f"{split} ({count})" if split and count else split


def same_images(data: ReportData, one: ScoredStage, other: ScoredStage) -> bool:
    """Whether two stages are known to be scored on the same split: else their figures have no difference."""
    return split_of(data, one) != "" and split_of(data, one) == split_of(data, other)


def left_out_notes(data: ReportData, stages: Iterable[ScoredStage]) -> list[str]:
    """Name the labels that means leave out, and those that count as 0, once for each set of images.

    Args:
        data: the report.
        stages: whose figures are shown.
    """
    notes: dict[str, list[str]] = {}
    for stage in stages:
        for system in data.systems.values():
            scores = system.scores(stage)
            if scores is not None and (text := left_out_text(scores.left_out, scores.in_no_mask)):
                places = notes.setdefault(text, [])
                if (place := scored_on(data, stage)) not in places:
                    places.append(place)
    return [f"{' and '.join(filter(None, places)) or 'all figures'}: {text}" for text, places in notes.items()]
