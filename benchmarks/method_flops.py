"""What a system's trainings compute on the miniature: FLOPs counted on a few images, brought to the whole training.

A training computes something for each of its images (features that are kept, texts, calibration) and something at
each step. Two short trainings, of one epoch and of two, tell them apart: FLOPs are linear in both. Counted are matrix
products, convolutions and attention, forward and backward, as PyTorch's counter does; CRF, PAMR and resizing are not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.local_final import train_final, true_masks
from benchmarks.miniature_results import LocalRun
from benchmarks.online import online_config, opened
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.methods.method import Phase, Recipe, Trained
from qaclims_ray.methods.table import method_of
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.segment import train_final_networks
from qaclims_ray.systems.table import system_config, system_of

IMAGES = 32
"""Images that are counted on: one step of 32."""
_EPOCHS = (
    "classifier.optim.epochs", "ritc.optim.epochs", "clims.optim.epochs", "semples.match.epochs",
    "semples.refine.epochs", "semples.prompt.optim.epochs",
)  # fmt: skip


class CountingRun(LocalRun):
    """A run that counts what each training and each text bank computes."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        super().__init__(config, folder)
        self.counted: dict[str, tuple[float, int]] = {}
        """FLOPs and steps of each, by place."""

    def _train(self, recipe: Recipe, phase: Phase) -> Trained:
        steps = phase.num_steps(len(self.trained.records))
        with FlopCounterMode(display=False) as counter:
            trained = super()._train(recipe, phase)
        self.counted[f"{phase.kind}{len(self.counted)}"] = float(counter.get_total_flops()), steps
        return trained

    def _bank(self, config: RunConfig) -> Path:
        with FlopCounterMode(display=False) as counter:
            folder = super()._bank(config)
        self.counted[f"texts{len(self.counted)}"] = float(counter.get_total_flops()), 0
        return folder


@dataclass(frozen=True)
class Length:
    """How long a training is."""

    images: int
    steps: int


def brought_to(one: float, two: float, short: tuple[Length, Length], full: Length) -> float:
    """Return the FLOPs of a training from those of two short ones on as many images each.

    Args:
        one: FLOPs of the shorter.
        two: FLOPs of the longer.
        short: their lengths.
        full: the training's.
    """
    more = short[1].steps - short[0].steps
    per_step = (two - one) / more if more else 0.0
    per_image = (one - per_step * short[0].steps) / short[0].images
    return per_image * full.images + per_step * full.steps


def method_flops(config: RunConfig, name: str, folder: Path) -> dict[str, float]:
    """Return FLOPs of a system up to its maps, by what is computed: trainings and texts, CAMs.

    Args:
        config: of the whole run.
        name: of the system.
        folder: for the small runs.
    """
    small = {"data.num_images": IMAGES, "semples.prompt.steps_per_epoch": 1}
    runs = []
    for epochs in (1, 2):
        short = with_overrides(config, {**small, **dict.fromkeys(_EPOCHS, epochs)})
        runs.append(CountingRun(short, folder / f"{epochs}"))
        runs[-1].cam_network(name)
    images, (first, second) = config.data.num_images, runs
    full = full_lengths(config, name, images, first.trained)
    total = 0.0
    for at, (place, (flops, steps)) in enumerate(first.counted.items()):
        longer, more_steps = second.counted[place]
        short = (Length(IMAGES, steps), Length(IMAGES, more_steps))
        total += brought_to(flops, longer, short, Length(images, full[at]))
    return {"training": total, "cams": _cam_flops(first, name) * images / IMAGES}


def full_lengths(config: RunConfig, name: str, images: int, trained: Manifest) -> list[int]:
    """Return the steps of what `LocalRun` makes for a system, in its order; nothing is trained.

    Args:
        config: of the whole run.
        name: of the system.
        images: that it trains on.
        trained: any images; only their name is asked for.
    """
    rehearsal = _Rehearsal(config, images, trained)
    if method_of(system_of(config, name).method).frozen is not None:
        return [0]
    rehearsal.network(name)
    return rehearsal.steps


class _Rehearsal(LocalRun):
    """A run that asks for its trainings and makes none."""

    def __init__(self, config: RunConfig, images: int, trained: Manifest) -> None:
        self.config, self.folder, self.trained, self.prompts = config, Path("rehearsal"), trained, {}
        self.images, self.steps = images, list[int]()

    def _train(self, recipe: Recipe, phase: Phase) -> Trained:
        self.steps.append(phase.num_steps(self.images))
        return Trained("rehearsal", "rehearsal")

    def _bank(self, config: RunConfig) -> Path:
        self.steps.append(0)
        return Path("rehearsal")


def _cam_flops(run: LocalRun, name: str) -> float:
    config, (network, mean, std) = system_config(run.config, name), run.cam_network(name)
    records = run.scored.records
    images, labels = [load_image(record.image_uri) for record in records], [record.labels for record in records]
    with FlopCounterMode(display=False) as counter:
        compute_cams(network, images, labels, [record.image_id for record in records], config.cams, mean, std)
    return float(counter.get_total_flops()) * IMAGES / len(records)


def final_flops(config: RunConfig, folder: Path) -> float:
    """Return FLOPs of a final network's training, which are the same for all systems with masks."""
    run = CountingRun(with_overrides(config, {"data.num_images": IMAGES, "classifier.optim.epochs": 1}), folder / "1")
    one = with_overrides(run.config, {"segmentation.steps_per_epoch": 1, "segmentation.optim.epochs": 1})
    run.classifier()
    flops = _counted(lambda: train_final(run, one, true_masks(run.trained), folder / "final"))
    segmentation = config.segmentation
    return flops * segmentation.optim.epochs * (segmentation.steps_per_epoch or 1)


def online_flops(name: str, folder: Path) -> float:
    """Return FLOPs of a final network that makes its own masks: those of a step for the tags alone, and of others."""

    def counted(epochs: int, tag_epochs: int) -> float:
        changes = {"online.steps_per_epoch": 1, "online.optim.epochs": epochs, "online.tag_epochs": tag_epochs}
        config = with_overrides(online_config(0, name, changes), {"data.num_images": IMAGES})
        stage, manifest = opened(folder / f"{name}-{epochs}-{tag_epochs}", config, name)
        return _counted(lambda: train_final_networks({name: stage}, manifest))

    online = system_config(online_config(0, name, {}), name).online
    whole = counted(3, 0) - counted(2, 0)
    tags = counted(2, 1) - counted(2, 0) + whole if online.tag_epochs else 0.0
    steps = online.steps_per_epoch or 1
    return steps * (online.tag_epochs * tags + (online.optim.epochs - online.tag_epochs) * whole)


def _counted(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
