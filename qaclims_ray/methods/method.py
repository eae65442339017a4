"""What a method is: the contract between a folder of ``methods/`` and everything else.

A method says what its trainings depend on, how long they are, what they start from and what one worker does. The
stages do the rest: they find what is there already, share workers, keep checkpoints, compute and score CAMs. To add a
method, write a folder with a `Method` and give it a line in ``table.py``; CONTRIBUTING.md walks through it.

This module loads neither torch nor a network, so that settings and help texts can be read at once. Methods import
their tasks where they train.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from qaclims_ray.cams.config import RESOURCE_FIELDS, CamConfig
from qaclims_ray.data.artifacts import plain
from qaclims_ray.data.config import AugmentConfig
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ConfigError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.models.clip.config import ClipConfig
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.settings import Parameter
from qaclims_ray.text.config import TextConfig
from qaclims_ray.training.config import OptimConfig, SelectionConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from qaclims_ray.methods.workbench import Workbench
    from qaclims_ray.segmentation.config import SegmentationConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one system that a method may depend on."""

    own: Any
    """The method's own settings."""
    borrowed: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the sections that it borrows (`Method.borrows`)."""
    cam_net: CamNetConfig
    """Architecture."""
    backbone_weights: str
    """The file that `cam_net.weights` is a name for."""
    augment: AugmentConfig
    """Training crops."""
    clip: ClipConfig
    """The frozen CLIP."""
    clip_files: tuple[str, str | None]
    """Model and weights that its settings are names for."""
    text: TextConfig
    """Texts."""
    selection: SelectionConfig
    """What chooses the epoch."""
    cams: CamConfig
    """CAM inference, which one way of choosing the epoch computes."""
    evaluation: EvaluationConfig
    """Thresholds of scored masks, for the same: a run's `scoring`, in which the fixed one is set."""
    seed: int
    """Seed of initial weights, order and crops."""
    precision: Arithmetic
    """fp32 or bf16."""

    def numerics(self) -> dict[str, Any]:
        """Return what every training depends on besides its settings."""
        return {"seed": self.seed, "precision": self.precision}

    def identity(self, **own: Any) -> dict[str, Any]:
        """Return what a training of the mask generator depends on, as plain JSON types.

        Args:
            own: what is the method's own, by name.
        """
        return plain({"cam_net": self.cam_net, "augment": self.augment, **own, **self.numerics()})

    def choice_of_epoch(self) -> dict[str, Any]:
        """Return what the choice of the epoch depends on; one criterion rates masks as they are scored."""
        # An empty split is left out: networks from before the setting existed keep their fingerprints.
        found = {name: value for name, value in plain(self.selection).items() if (name, value) != ("split", "")}
        if self.selection.criterion == "separation":
            # Not the precision of the stage: a network is rated in that of its training.
            of_stage = (*RESOURCE_FIELDS, "precision")
            maps = {name: value for name, value in plain(self.cams).items() if name not in of_stage}
            found |= {"cams": maps, "threshold": self.evaluation.threshold}
        return found


@dataclass(frozen=True)
class Trained:
    """A result that trainings start from."""

    uri: str
    """Its folder."""
    fingerprint: str
    """Its fingerprint."""
    is_cams: bool = False
    """Whether it is CAMs of the training images and no network."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the run offers a method."""

    manifest: str
    """Fingerprint of the training images."""
    class_names: tuple[str, ...] = ()
    """Of the data set, in label order, for those that ask by name without being trained."""
    clip: str = ""
    """Fingerprint of the CLIP."""
    classifier: Trained | None = None
    """The image-level classifier, calibrated where asked for."""
    texts: Trained | None = None
    """The system's text bank."""
    base: Trained | None = None
    """Network of the system that this one departs from."""
    given: Trained | None = None
    """CAMs made elsewhere, of the training images."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training of a method; workers run `train`."""

    kind: str
    """Kind of its artefact."""
    name: str = ""
    """Name for curves and the console; empty where a method has one phase."""
    settings: Mapping[str, Any]
    """What its fingerprint depends on."""
    inputs: Mapping[str, str]
    """Name -> fingerprint of what it starts from."""
    optim: OptimConfig
    """Optimiser and schedule; its epochs are the training's."""
    steps_per_epoch: int | None = None
    """Optimiser steps of an epoch; None makes a pass over the images one."""
    is_learned: bool = True
    """Whether anything is learned; a control may keep its random start."""
    is_rated: bool = True
    """Whether its epochs are rated, where something rates them."""
    is_last: bool = False
    """Whether it gives the system's network itself, trained right into its folder."""
    train: Callable[["Workbench"], dict[str, float]]
    """Trains on every worker and returns the last figures; picklable."""
    start: Trained | None = None
    """Network, or CAMs, that it starts from."""
    texts: Trained | None = None
    """Text bank that it reads."""
    prompts: Trained | None = None
    """Learned prompts that it reads."""

    def num_steps(self, num_images: int) -> int:
        """Return the optimiser steps of the whole training."""
        if not self.is_learned:
            return 0
        steps = self.steps_per_epoch or max(num_images // self.optim.batch_size, 1)
        return self.optim.epochs * steps


@dataclass(frozen=True)
class Outcome:
    """What a method ends with."""

    network: Trained
    """Its network."""
    prompts_uri: str = ""
    """Folder of its learned prompts, where it has any."""


Phases = Generator[Phase, Trained, Outcome]
"""Yields a method's trainings in order, receives each one's result, and returns the outcome."""


def run_phases(phases: Phases, train: Callable[[Phase], Trained]) -> Outcome:
    """Run a method's trainings in order and return what it ends with.

    Args:
        phases: of the method.
        train: trains one and returns where its result is; a rehearsal may return a name alone.
    """
    phase = next(phases)
    while True:
        trained = train(phase)
        try:
            phase = phases.send(trained)
        except StopIteration as end:
            return end.value


@dataclass(frozen=True, kw_only=True)
class CamWork:
    """Making CAMs otherwise than by a network of the run: one call of an actor per shard of images."""

    settings: Mapping[str, Any]
    """What the CAMs depend on."""
    inputs: Mapping[str, str]
    """Name -> fingerprint of what they are made from."""
    actor: type
    """Called with (index, records, files); writes the shard and returns what is wrong with it."""
    actor_kwargs: Mapping[str, Any]
    """Its constructor arguments, but for the folder that it writes to, `uri`."""
    files_of: Callable[[], Mapping[str, str]]
    """Image id -> the file with its maps; called once, before the work starts."""
    source: str
    """Where they come from, for the console and for errors."""


class CamNetwork(NamedTuple):
    """A network that makes CAMs, and how it wants its images."""

    network: "nn.Module"
    """Maps normalised images (image, 3, height, width) to responses (image, class, cells, cells)."""
    mean: tuple[float, float, float]
    """Of the normalisation, on the 0-1 scale."""
    std: tuple[float, float, float]
    """Of the normalisation, on the 0-1 scale."""


MakeCams = Callable[[Sequence[Any], Sequence[tuple[int, ...]], Sequence[str], CamConfig], list[Any]]
"""From RGB pixels, present classes and identifiers of some images, and what is kept, to a `cams.inference.ImageCam` of
each; float32 maps in [0, 1] on the CPU."""


@dataclass(frozen=True, kw_only=True)
class FrozenNetwork:
    """A network that makes CAMs without having been trained by the run."""

    settings: Mapping[str, Any]
    """What its responses depend on, besides the settings of CAMs."""
    inputs: Mapping[str, str]
    """Name -> fingerprint of what it is made from."""
    load: "Callable[[torch.device], CamNetwork | MakeCams]"
    """Loads it, in the process that computes; picklable."""
    makes_cams: bool = False
    """Whether `load` gives what makes the maps by itself (`MakeCams`), so that scales, mirror images, activation and
    normalisation of CAMs do not count."""


@dataclass(frozen=True, kw_only=True)
class OwnNetwork:
    """How a method trains the final network itself, by masks that this makes while it learns."""

    settings: "Callable[[Recipe, SegmentationConfig], SegmentationConfig]"
    """From the run's settings of final networks to those of its own."""
    phase: "Callable[[Recipe, Sources, SegmentationConfig], Phase]"
    """The training, which gives a final network, of its own settings."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to get CAMs."""

    name: str
    """Name in `System.method` and of its folder."""
    kind: str
    """Kind of the artefact that holds its network."""
    section: str = ""
    """Its settings in a run's; empty where it has none."""
    borrows: tuple[str, ...] = ()
    """Sections of other methods that it reads too."""
    phases: Callable[[Recipe, Sources], Phases] | None = None
    """Its trainings; None where nothing is trained for a system."""
    uses_classifier: bool = True
    """Whether it is the image-level classifier or starts from it."""
    is_classifier: bool = False
    """Whether its network is the run's classifier, which is trained once for all systems."""
    uses_texts: bool = False
    """Whether every system of it has a text bank."""
    uses_clip: bool = False
    """Whether it learns from CLIP."""
    asks_by_words: bool = False
    """Whether it asks another model than CLIP by the classes' words (`text.class_words`)."""
    has_cams: bool = True
    """Whether it makes CAMs; the fully supervised bound does not."""
    brings_masks: bool = False
    """Whether it has no CAMs, and pseudo masks that were made elsewhere."""
    own_network: OwnNetwork | None = None
    """How it trains the final network itself, without CAMs and pseudo masks; None where that learns from masks."""
    cam_work: Callable[[Recipe, Manifest], CamWork] | None = None
    """How its CAMs are made; None computes them with its network."""
    frozen: Callable[[Recipe, Sources], FrozenNetwork] | None = None
    """The network that its CAMs are computed with where it trains none."""
    find_source: Callable[[Recipe], object] | None = None
    """Fails where what its CAMs are made from is not there, before any work starts."""
    check: Callable[[str, Recipe, str], None] | None = None
    """Refuses settings that do not go together: name of the system, its settings, method of its base or empty."""
    named_classes: Callable[[Any], Mapping[str, Sequence[str]]] | None = None
    """From its own settings, the classes that each one names, by the setting's dotted name."""
    weights: tuple[str, ...] = ()
    """Settings that name weights of its own (`models.known_weights.WEIGHT_SETTINGS`)."""
    trained_on_masks: str = ""
    """The model behind its CAMs that was trained on masks, so that no tags alone stand behind them; every label of its
    systems says so. Empty where there is none."""
    search_space: Sequence[Parameter] = ()
    """What a search varies by default."""

    @property
    def rates_epochs(self) -> bool:
        """Whether its epochs are rated, where something rates them; the classifier ends with its last one."""
        return self.phases is not None and not self.is_classifier

    @property
    def has_masks(self) -> bool:
        """Whether it has pseudo masks; the fully supervised bound has true ones."""
        return self.has_cams or self.brings_masks

    @property
    def learns_from_truth(self) -> bool:
        """Whether its final network learns from true masks: the fully supervised bound's does."""
        return not self.has_masks and self.own_network is None

    @property
    def has_network(self) -> bool:
        """Whether its CAMs come from a network of the run."""
        return self.has_cams and self.cam_work is None and self.frozen is None


def refuse_sigmoid(system: str, recipe: Recipe, advice: str) -> None:
    """Refuse sigmoid masks of WeakTr's maps: they are never negative, so that no mask would fall below one half.

    Raises:
        ConfigError: where the mask generator is WeakTr.
    """
    if recipe.cam_net.generator == "weaktr":
        raise ConfigError(f"system {system} takes the sigmoid of logits, but WeakTr's maps are none; {advice}")
