"""What every training is given, whatever it trains."""

from dataclasses import dataclass

from qaclims_ray.data.config import AugmentConfig
from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import MaskNetwork, initial_generator
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.loop import Task, fit
from qaclims_ray.training.meter import OnStep


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The images, the architecture and the worker of a training."""

    manifest: Manifest
    """Training images."""
    cam_net: CamNetConfig
    """Architecture, and normalisation of the images."""
    augment: AugmentConfig
    """Training crops."""
    precision: Arithmetic
    """fp32 or bf16: the network's autocast; losses compute in float32."""
    loader_workers: int
    """Image loading processes of this worker."""
    seed: int
    """Seed of initial weights, order and crops."""
    context: WorkerContext
    """This worker."""
    on_step: OnStep | None = None
    """See `training.loop.fit`."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.manifest.class_names)

    def images(self, augment: AugmentConfig | None = None) -> ImageLabelDataset:
        """Return the training images, with their own crops or others."""
        net = self.cam_net
        return ImageLabelDataset(self.manifest, augment or self.augment, net.image_mean, net.image_std, self.seed)

    def generator(self, init_dir: str) -> MaskNetwork:
        """Load the network to start from.

        Raises:
            ArtifactError: when it does not belong to this training.
        """
        return initial_generator(init_dir, self.cam_net, self.num_classes)

    def fit(self, task: Task, *, loader_workers: int | None = None) -> dict[str, float]:
        """Train a task on this worker; see `training.loop.fit`."""
        return fit(
            task,
            precision=self.precision,
            loader_workers=self.loader_workers if loader_workers is None else loader_workers,
            seed=self.seed,
            context=self.context,
            on_step=self.on_step,
        )
