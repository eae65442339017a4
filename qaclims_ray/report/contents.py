"""What a run's report is made of: plain values that stages gather, and `run_page` and `files` show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qaclims_ray.evaluation.agreement import MapStage
from qaclims_ray.evaluation.bootstrap import Interval
from qaclims_ray.evaluation.cooccurrence import CooccurrenceScores
from qaclims_ray.evaluation.scored_figures import FIGURES, STAGES, ScoredStage
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.evaluation.trust import TrustFigures
from qaclims_ray.report.gallery_highlights import Highlights
from qaclims_ray.report.palette import colours_with_bound

Curve = Sequence[tuple[int, float]]
"""Points (step, value) of a training quantity."""

CHOSEN_BY_PIXEL_LABELS = (
    "miou_best",
    "threshold_best",
    "false_positive_rate_best",
    "false_negative_rate_best",
    "iou_best",
    "mdice_best",
    "dice_best",
    "curve",
)
"""Fields of `SeedScores` whose threshold was chosen with the masks; all others only compare with them. They are
marked alike for seeds, pseudo masks and final networks, which all have these fields."""

FULLY_SUPERVISED = "fully_supervised"
"""Name of the system whose final network learns from the true masks: the bound of all others."""


@dataclass(frozen=True, kw_only=True)
class PromptReading:
    """What a system's learned prompts say."""

    nearest: Mapping[str, Sequence[tuple[str, float]]]
    """Class -> nearest words with their cosines, the nearest first."""
    own_text: Mapping[str, float]
    """Class -> cosine of its prompt to its own text, "a photo of {class}."."""
    vocabulary: str
    """Where the words come from, and how many there are."""
    picture: bytes = b""
    """PNG: images, maps of the learned and of manual prompts; empty where there are no maps."""
    images: Sequence[tuple[str, str, Sequence[str]]] = ()
    """Rows of the picture: image id, class, texts of the manual prompts."""
    note: str = ""
    """Why there is no picture."""


@dataclass(frozen=True, kw_only=True)
class SystemReport:
    """One compared system."""

    label: str
    """Short name, as tables and charts show it."""
    is_reference: bool = False
    """Whether its maps come from a model that was trained on masks: shown beside the others, and never named the best
    of them."""
    seed: SeedScores | None = None
    """Scores of its seeds; None where no image has a mask, and for the fully supervised bound."""
    threshold_label_free: float | None = None
    """Background score of its seeds that was chosen without masks, also where no image has one; None where there is no
    background."""
    mask: SeedScores | None = None
    """Scores of its pseudo masks; the figures that count are those of the label maps as they are (`miou_fixed`)."""
    segmentation: SeedScores | None = None
    """Scores of its final network's label maps, without CRF; `miou_fixed` counts."""
    segmentation_crf: SeedScores | None = None
    """The same with the CRF (D4)."""
    segmentation_on_seeds: SeedScores | None = None
    """The final network on the images of seeds and pseudo masks, which it learned from: comparable with `mask`."""
    segmentation_crf_on_seeds: SeedScores | None = None
    """The same with CRF."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Key of `scored_figures.FIGURES` -> bootstrap interval of the mean IoU over its images."""
    mask_summary: Mapping[str, Any] = field(default_factory=dict)
    """Numbers of the pseudo masks' index, such as coverage and ignored share; may be empty. The page shows numbers and
    words, floats in [0, 1] in percent; what is nested stays in the JSON."""
    initial_weights: str = ""
    """What the final network started from; it moves the figures by points (D5)."""
    description: str = ""
    """One sentence: what it is."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Name of a training quantity -> points (step, value)."""
    contact_images: tuple[bytes, ...] = ()
    """PNG pictures of this system alone."""
    cooccurrence: CooccurrenceScores | None = None
    """Where its false positives lie, in the miniature world."""
    prompts: PromptReading | None = None
    """What its prompts say, where it has some."""

    def scores(self, stage: ScoredStage) -> SeedScores | None:
        """Return what a stage of it scored."""
        return getattr(self, stage)


@dataclass(frozen=True, kw_only=True)
class TrustLists:
    """Images of one system to look at."""

    stage: MapStage
    """The stage whose maps they are of: the last one."""
    not_found: Mapping[str, Sequence[str]]
    """Class -> images that are labelled with it and whose map does not show it."""
    not_tagged: Mapping[str, Sequence[tuple[str, float]]]
    """Class -> images that the final network finds it on though they are not labelled with it, and its share there."""


@dataclass(frozen=True, kw_only=True)
class Lead:
    """How far the best system is ahead of another, on the same images."""

    best: str
    """Name of the best system."""
    other: str
    """Name of the other."""
    figure: str
    """Key of `scored_figures.FIGURES`."""
    difference: float
    """Best minus other, a fraction."""
    interval: Interval | None
    """Of the difference, by a paired bootstrap over images; None where the images are no pairs."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report shows."""

    title: str
    """Name of the run."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Versions, hardware, source hash: what a reader needs to repeat the run."""
    licences: Sequence[Mapping[str, Any]] = ()
    """Of every weight that it used: title, settings, licence, users, is_permissive."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """ScoredStage -> seconds."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """Name, counts, fingerprint of the data."""
    systems: Mapping[str, SystemReport]
    """Name -> system; the first is what the others are compared with."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Seed, mask, segmentation -> split it is scored on, e.g. {"seed": "train", "mask": "train", "segmentation":
    "val"}; with CRF it is the same one, and what a final network makes of the seeds' images is on theirs."""
    contact_sheets: Mapping[str, bytes] = field(default_factory=dict)
    """Title -> PNG with the systems side by side."""
    rank_by: Literal["miou_best", "miou_fixed", "miou_label_free"] = "miou_best"
    """Figure of seeds that names the winner where nothing comes after them; the default is what the papers compare, and
    is chosen with pixel labels."""
    trust: TrustFigures | None = None
    """What is known without a mask; None where it was not counted."""
    trust_lists: Mapping[str, TrustLists] = field(default_factory=dict)
    """System -> images to look at."""
    leads: Sequence[Lead] = ()
    """The best system against each other one, at the last stage that is scored."""
    run: str = ""
    """Output folder of the run, as commands name it; empty where there is none."""
    highlights: Highlights | None = None
    """Worst images and confusions, where a gallery lies beside the page, as ``gallery/index.html``."""
    created: str = ""
    """UTC time of the run, ISO 8601."""
    made_from: str = ""
    """Fingerprint of all that it tells of; a run that finds the same does not write it again."""


def bound(data: ReportData) -> SystemReport | None:
    """Return the fully supervised system, or None where the run has none."""
    return data.systems.get(FULLY_SUPERVISED)


def scores_background(data: ReportData) -> bool:
    """Whether the scored labels hold a background, and so there are thresholds to speak of."""
    scored = (system.scores(stage) for system in data.systems.values() for stage in STAGES)
    return all(scores.has_background for scores in scored if scores is not None)


def has_later_stages(data: ReportData) -> bool:
    """Whether anything after the seeds was scored."""
    return any(s.mask or s.segmentation or s.segmentation_crf for s in data.systems.values())


def data_colours(data: ReportData) -> dict[str, str]:
    """Return the colour of each system by its label, the same in all charts and tables."""
    found = bound(data)
    return colours_with_bound([system.label for system in data.systems.values()], found.label if found else None)


def ranking_figure(data: ReportData) -> str | None:
    """Return the key of the figure that names the winner, or None where nothing was scored.

    It is of what a user takes away: the final network, else the pseudo masks, else the seeds.
    """
    for stage in ("segmentation", "mask", "seed"):
        if any(system.scores(stage) for system in _ranked(data).values()):
            return data.rank_by.replace("miou", "seed") if stage == "seed" else stage
    return None


def winner(data: ReportData) -> str | None:
    """Return the name of the system that is best by `ranking_figure`, or None; the bound is no system.

    References are ranked where there is nothing else.
    """
    key = ranking_figure(data)
    if key is None:
        return None
    figure = FIGURES[key]
    scored = {name: figure.of(s) for name, system in _ranked(data).items() if (s := system.scores(figure.stage))}
    return max(scored, key=lambda name: scored[name])


def _ranked(data: ReportData) -> dict[str, SystemReport]:
    """Return the systems that learned alike: neither the bound nor, beside others, a model trained on masks."""
    systems = {name: one for name, one in data.systems.items() if name != FULLY_SUPERVISED}
    return {name: one for name, one in systems.items() if not one.is_reference} or systems
