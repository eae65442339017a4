"""One complete run: every stage's settings in one value, to and from files, with overrides by dotted name."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.data.config import AugmentConfig, DataConfig
from qaclims_ray.errors import ConfigError, did_you_mean
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.methods.table import MethodSettings
from qaclims_ray.models.clip.config import ClipConfig
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.settings import Threshold, dotted, require, require_text, settings
from qaclims_ray.text.config import TextConfig
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.training.config import SelectionConfig

Profile = Literal["official", "paper"]


_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@settings
class System:
    """One of the things that a run compares: a name for a method with a few settings on top of the run's.

    `systems.known` has the known ones. A run's `variants` add others, which stand by themselves or are like a known one
    with other settings; a variant named as the system it is like adjusts that system in this run.
    """

    name: str
    """Its name in `systems`, in every table and of its folders."""
    like: str = ""
    """Known system whose method, base, label and settings it takes over; empty: it stands by itself."""
    label: str = ""
    """Short name for tables and figures; empty takes the name, or that of the system it is like beside it."""
    description: str = ""
    """One sentence for the report; empty takes that of the system it is like."""
    method: str = ""
    """How its CAMs are made, a name of `methods.table.METHODS`; said by `like` where that is given."""
    base: str = ""
    """System whose trained network this one starts from (SemPLeS) or learns prompts from (RITC; SemPLeS, where the
    base is given CAMs); said by `like` where that is given."""
    miniature_only: bool = False
    """Whether its texts name things of the miniature world."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings on top of the run's, or of those of the system it is like, by dotted name."""

    def __post_init__(self) -> None:
        require_text(self, "system", "name")
        require(
            set(self.name) <= _NAME_LETTERS,
            f"system {self.name!r} names folders: expected only letters, digits, underscore, point and hyphen",
        )
        require(
            bool(self.name.strip(".")),
            f"system {self.name!r} names folders, and this is that of the others or the one above: call it otherwise",
        )
        if self.like:
            require(
                not self.method and not self.base,
                f"system {self.name!r} is like {self.like!r}, which says its method and base; leave them out here",
            )
        else:
            require(
                bool(self.method),
                f"system {self.name!r} has no method; give it one, or name a known system that it is like",
            )

    @property
    def adjusts(self) -> bool:
        """Whether it is no system of its own, but this run's settings for the known one of its name."""
        return self.name == self.like


@settings
class RunConfig(MethodSettings):
    """One complete run: the data, the shared stages, and the systems that are compared."""

    name: str
    """Name of the preset the run started from."""
    profile: Profile = "official"
    """Which of the two coherent sets of switches was taken, a record: the preset's option paper sets it with them."""
    systems: tuple[str, ...] = ("baseline", "ritc_class_names", "qa_clims")
    """Systems to train and compare: known ones (docs/method.md, section 9), and those of `variants`."""
    variants: tuple[System, ...] = ()
    """Systems that exist in this run alone, and this run's settings for known ones (name and like are the same). They
    are written in a .json file of settings, not as options."""
    goal: Literal["seed", "mask", "segmentation"] = "seed"
    """How far the run goes: CAMs, pseudo masks, or the final network trained on them."""
    supervised_bound: bool = False
    """With goal segmentation, also train the final network on the true masks of the training images: the bound of all
    others, which takes as long as each of them. It is the system fully_supervised, which `systems` may name as well."""
    licences: Literal["any", "permissive"] = "any"
    """permissive refuses weights that not everyone may use, also commercially, and says what to take instead."""
    seed: int = 0
    """Seed of data generation, initial weights, order and augmentation."""
    data: DataConfig
    """Data set."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Questions and answers."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """The frozen CLIP."""
    text: TextConfig = field(default_factory=TextConfig)
    """Texts of the pairs."""
    cam_net: CamNetConfig = field(default_factory=CamNetConfig)
    """The trained network."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Training crops."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Choice of the epoch."""
    cams: CamConfig = field(default_factory=CamConfig)
    """CAM inference."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Scoring."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """Pseudo masks."""
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    """Final network."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Resources."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """MLflow."""

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "name is empty")
        require(self.seed >= 0, f"seed is {self.seed}, expected at least 0")
        require(bool(self.systems), "systems is empty: name at least one, e.g. qa_clims")
        require(len(set(self.systems)) == len(self.systems), "systems names one system twice")
        folded = {name.casefold(): name for name in self.systems}
        alike = next(([name, folded[name.casefold()]] for name in self.systems if folded[name.casefold()] != name), [])
        require(
            not alike,
            f"systems has {' and '.join(alike)}, which differ in case only: on some disks their folders would be one",
        )
        require(
            self.goal != "segmentation" or bool(self.segmentation.net.weights.strip()),
            'segmentation.net.weights is empty: say what the final network starts from, "random", "timm" (ImageNet) or '
            "a local file; it moves the result by points and is recorded with it",
        )
        names = [variant.name for variant in self.variants]
        require(len(set(names)) == len(names), "variants holds one name twice")

    @property
    def set_threshold(self) -> Threshold:
        """Background score at which seeds are scored, shown and predicted: the one that cuts them into pseudo masks.

        Settings may pin another (`evaluation.fixed_threshold`); then the run says that the two differ.
        """
        pinned = self.evaluation.fixed_threshold
        return self.masks.seed_threshold if pinned is None else pinned

    @property
    def fixed_threshold(self) -> float:
        """The same, of settings in which it is a number: auto has become one by then (`at_threshold`)."""
        number = self.set_threshold
        assert number != "auto", "stages that score or show seeds work by the threshold that was chosen"
        return number

    @property
    def scoring(self) -> EvaluationConfig:
        """Settings of scoring with the fixed threshold as it counts: what artefacts hold, and stages work by.

        None where it is auto and nothing was chosen yet: trainings, which come before, do not ask for it.
        """
        number = self.set_threshold
        return dataclasses.replace(self.evaluation, fixed_threshold=None if number == "auto" else number)

    def at_threshold(self, chosen: float) -> "RunConfig":
        """Return the settings with the chosen threshold where they say auto, and with IRN's where these follow it.

        Args:
            chosen: of the system whose settings these are.
        """
        number = chosen if self.masks.seed_threshold == "auto" else self.masks.seed_threshold
        masks = dataclasses.replace(self.masks, seed_threshold=number, irn=self.masks.irn.around(number))
        return dataclasses.replace(self, masks=masks)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def in_effect(config: RunConfig) -> dict[str, Any]:
    """Return every setting by dotted name as it counts, one that follows others with what it takes from them."""
    test = config.segmentation.test
    followed = {
        "corpus.precision": config.corpus.arithmetic,
        "text.precision": config.text.arithmetic,
        "cluster.precision": config.cluster.arithmetic,
        "cams.precision": config.cams.arithmetic,
        "masks.precision": config.masks.arithmetic,
        "segmentation.test.precision": test.arithmetic(config.cams.gpus_per_actor),
        "evaluation.fixed_threshold": config.set_threshold,
    }
    return flat(config) | followed


def flat(config: RunConfig) -> dict[str, Any]:
    """Return every setting by dotted name, as plain JSON types."""
    return dotted(to_dict(config))


def at(config: RunConfig, name: str) -> Any:
    """Return one setting by dotted name, as plain JSON types.

    Raises:
        ConfigError: when there is no such setting.
    """
    values = flat(config)
    if name not in values:
        raise _no_setting(name, values)
    return values[name]


def _no_setting(name: str, known: Iterable[str]) -> ConfigError:
    hint = did_you_mean(name, known)
    return ConfigError(f"there is no setting {name!r}; {hint}`qaclims run PRESET --help-all` lists them all")


@functools.cache
def _adapter() -> TypeAdapter[RunConfig]:
    return TypeAdapter(RunConfig)


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """Build a `RunConfig` from plain JSON types.

    Raises:
        ConfigError: for unknown keys, wrong types or values out of range, all of them in one message.
    """
    try:
        return _adapter().validate_python(dict(values))
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg'].removeprefix('Value error, ')}".removeprefix(": ")
            for e in error.errors()
        ]
        raise ConfigError("the configuration cannot be used:\n  " + "\n  ".join(lines)) from None


def with_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """Return a copy with dotted fields replaced, e.g. ``{"ritc.optim.lr": 1e-3}``.

    Files, the command line, named systems and searches all come through here.

    Raises:
        ConfigError: for a path that does not exist or a value that does not fit.
    """
    values = to_dict(config)
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node: Any = values
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise _no_setting(path, flat(config))
        node[last] = value
    return from_dict(values)
