"""Names of everything that is logged. They never change, so runs of any age can be compared."""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from qaclims_ray.evaluation.scored_figures import FIGURES, ScoredStage, fixed_figure
from qaclims_ray.evaluation.sweep import SeedScores

THRESHOLD_BEST = "cam/threshold_best"
"""The seeds' threshold with the highest mIoU of the sweep; the choice uses pixel labels."""
THRESHOLD_LABEL_FREE = "cam/threshold_label_free"
"""The seeds' threshold that was chosen without masks; there also where no image has a mask."""
FALSE_POSITIVE_RATE = "cam/false_positive_rate"
"""Mean share of false positives over the classes, at the fixed threshold."""
MDICE_FIXED = "cam/mdice_fixed"
"""Mean Dice coefficient of the seed's labels at the fixed threshold, fraction."""
MDICE_BEST = "cam/mdice_best"
"""The same at `THRESHOLD_BEST`; the choice uses pixel labels."""

MODEL_MIOU = "model/miou"
"""What a network scored when it was logged, as its run then had it under ``segmentation/miou``: MLflow lists it with
the model."""
MODEL_MDICE = "model/mdice"
"""The same of ``segmentation/mdice``."""

HEADLINES: dict[str, ScoredStage] = {
    "headline/final_miou": "segmentation",
    "headline/mask_miou": "mask",
    "headline/seed_miou": "seed",
}
"""What a pipeline's run says of its last system, under names that all runs share: columns of the list of runs."""

_HEADLINE = (
    *(figure.metric for figure in FIGURES.values() if figure.metric),
    THRESHOLD_LABEL_FREE,
    FALSE_POSITIVE_RATE,
    MDICE_FIXED,
    "mask/mdice",
    "segmentation/mdice",
    "segmentation_crf/mdice",
)
_MAX_CHARS = 250
"""Longest name that every MLflow store takes."""
_NAME = re.compile(r"(?:(?![^\x00-\uffff])[\w.\- :/])+")
_CLASS = re.compile(r"[\w.\- :]+", re.ASCII)
_FILE = re.compile(r"[\w.\- /]+", re.ASCII)
_HASH = "[0-9a-f]{12}$"


def legal_name(name: str) -> str:
    """Return a name of a metric or parameter that every MLflow store takes; two names never give the same.

    A legal name stays as it is. In any other, signs that MLflow refuses become an underscore and a hash of the whole
    follows, after three hyphens; so it does for one that is legal and ends just like that. Slashes group metrics in
    the UI; a class name must not bring its own, so pass class names through `class_metric` first.
    """
    is_legal = _NAME.fullmatch(name) and _is_path(name) and len(name) <= _MAX_CHARS
    if is_legal and not re.search(f"---{_HASH}", name):
        return name
    return _marked(name, re.sub(r"[^\w.\- :/]", "_", name), "---", _MAX_CHARS)


def legal_file(name: str) -> str:
    """Return the name of a file in MLflow, with folders before it, that every store takes, as `legal_name` does."""
    if _FILE.fullmatch(name) and _is_path(name) and not re.search(f"---{_HASH}", name):
        return name
    return _marked(name, re.sub(r"[^\w.\- /]", "_", name, flags=re.ASCII), "---", _MAX_CHARS)


def class_metric(class_name: str, *, prefix: str, alone: bool = True) -> str:
    """Return the metric name of one class's IoU; two classes never share one.

    A name of letters of English, digits, blanks and ``_ - . :`` stays as it is. In any other each other sign but for
    letters becomes an underscore, and a hash of the whole follows after two hyphens, as in ``a_b--c14cddc033f6``.

    Args:
        class_name: as the data set spells it.
        prefix: the group, with its slash.
        alone: whether no other class of the run differs in case only.
    """
    room = _MAX_CHARS - len(prefix)
    is_legal = _CLASS.fullmatch(class_name) and class_name not in (".", "..") and class_name == class_name.strip()
    if is_legal and alone and len(class_name) <= room and not re.search(f"--{_HASH}", class_name):
        return prefix + class_name
    return prefix + _marked(class_name, re.sub(r"[^\w.\- :]", "_", class_name), "--", room)


def class_metrics(class_names: Iterable[str], *, prefix: str) -> dict[str, str]:
    """Return the metric name of each class of a run; see `class_metric`.

    Some databases do not tell upper from lower case, so classes that differ in it alone all carry their hash.
    """
    names = list(class_names)
    folded = Counter(name.casefold() for name in names)
    return {name: class_metric(name, prefix=prefix, alone=folded[name.casefold()] == 1) for name in names}


def _is_path(name: str) -> bool:
    """Whether a name, read as a path, is the plainest form of itself and stays below its root, as MLflow demands."""
    return posixpath.normpath(name) == name and not name.startswith(("/", "..")) and name != "."


def _marked(name: str, squeezed: str, hyphens: str, room: int) -> str:
    # Letters beyond the first 65536 are left out too: not every database keeps them.
    parts = re.sub(r"[^\x00-\uffff]", "_", squeezed).split("/")
    legal = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if legal.startswith(".."):
        legal = f"__{legal[2:]}"
    mark = hyphens + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return legal[: room - len(mark)] + mark


def stage_metrics(stage: ScoredStage, scores: SeedScores) -> dict[str, float]:
    """Return the figures of one system's stage under their names, as fractions; per class at the fixed threshold.

    Args:
        stage: a stage that is logged: the final network on the images of its own masks is not.
        scores: its scores.
    """
    group = fixed_figure(stage).metric.split("/")[0]
    metrics = {figure.metric: figure.of(scores) for figure in FIGURES.values() if figure.stage == stage}
    metrics |= {
        f"{group}/false_positive_rate": scores.false_positive_rate,
        f"{group}/false_negative_rate": scores.false_negative_rate,
    }
    if stage == "seed":
        metrics |= {THRESHOLD_BEST: scores.threshold_best}
        metrics |= {MDICE_FIXED: scores.mdice_fixed, MDICE_BEST: scores.mdice_best}
    else:  # label maps have one figure each: no threshold is left to choose
        metrics[f"{group}/mdice"] = scores.mdice_fixed
    names = class_metrics(scores.iou, prefix=f"{group}/iou/")
    return metrics | {names[name]: value for name, value in scores.iou.items()}


def headline_metrics(system: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the few figures that the parent run repeats per system, e.g. ``qa_clims/cam/miou_best``.

    With them the list of pipeline runs already tells which run is better, and for which system. The metrics may be of
    any stage, e.g. ``qa_clims/segmentation/miou``, or of several together.
    """
    return {f"{system}/{name}": metrics[name] for name in _HEADLINE if name in metrics}
