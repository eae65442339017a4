"""The baseline on a small network, up to a small final network, without a GPU: what VOC's and a folder's runs share."""

from dataclasses import dataclass, replace

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.data.config import AugmentConfig, JointCropConfig
from qaclims_ray.methods.classifier.config import ClassifierConfig
from qaclims_ray.models.clip.config import ClipConfig
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.segmentation.config import SegmentationConfig, SegmentationNetConfig
from qaclims_ray.training.config import OptimConfig

LOCAL = "local"
"""As `cam_net.weights`: whichever of the small backbones' weights lies on this machine (`stages.local_weights`)."""
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class SmallBackbone:
    """A backbone with weights that it can start from."""

    backbone: str
    """timm model."""
    weights: tuple[str, ...]
    """Known weights that fit it as it is built here (`models.known_weights`), the best first."""
    threshold: float
    """Otsu's background score of its first CAMs, which needs no masks (docs/results/voc_sample.md)."""
    pad_same: bool = False
    """Whether the weights need TensorFlow's padding, and the model does not bring it."""
    image_mean: tuple[float, float, float] = _HALF
    """Normalisation that the weights expect."""
    image_std: tuple[float, float, float] = _HALF
    """The same."""

    def settings(self, *, weights: str) -> dict[str, object]:
        """Return the overrides that put it under classifier, affinity and final network of a run.

        Args:
            weights: the classifier's `cam_net.weights`; the others start from the classifier.
        """
        found: dict[str, object] = {"cam_net.weights": weights, "masks.irn.backbone": self.backbone}
        for section in ("cam_net", "segmentation.net"):
            found[f"{section}.backbone"] = self.backbone
            for name in ("image_mean", "image_std", "pad_same"):
                found[f"{section}.{name}"] = getattr(self, name)
        return found


LITE2 = SmallBackbone("tf_efficientnet_lite2", ("tf_efficientnet_lite2", "efficientnet-lite2-float32"), threshold=0.42)
MOBILENET = SmallBackbone("mobilenetv2_100", ("mobilenetv2-float16",), threshold=0.43, pad_same=True)
MOBILENET_OF_TIMM = SmallBackbone(
    "mobilenetv2_100",
    ("mobilenetv2_100",),
    threshold=0.43,
    image_mean=(0.485, 0.456, 0.406),
    image_std=(0.229, 0.224, 0.225),
)
SMALL_BACKBONES: tuple[SmallBackbone, ...] = (LITE2, MOBILENET, MOBILENET_OF_TIMM)
"""Those that run on a CPU, the best first."""


def on_a_small_network(config: RunConfig, small: SmallBackbone, *, weights: str = "timm") -> RunConfig:
    """Return the baseline with a small network for classifier, affinity and final network.

    Args:
        config: the run.
        small: the backbone.
        weights: what it starts from, see `CamNetConfig.weights`.
    """
    threshold = small.threshold
    whole = replace(
        config,
        systems=("baseline",),
        data=replace(config.data, train_split="train"),
        corpus=CorpusConfig(),
        clip=ClipConfig(),
        cam_net=CamNetConfig(output_stride=16),
        augment=AugmentConfig(min_long_side_px=256, max_long_side_px=416, crop_px=320),
        classifier=ClassifierConfig(
            # At four times this rate the backbone forgets: it loses to a frozen one (docs/results/voc_sample.md).
            optim=OptimConfig(name="adamw", lr=5e-5, head_lr_factor=40.0, batch_size=8, epochs=8, weight_decay=1e-4),
            freeze_batch_norm=True,
        ),
        cams=CamConfig(scales=(1.0, 0.5, 1.5), batch_size=4),
        masks=MaskConfig(
            seed_threshold=threshold,
            irn=IrnConfig(
                foreground_threshold=round(threshold + 0.1, 2),
                background_threshold=round(threshold - 0.1, 2),
                walk_threshold=threshold,
                weights="classifier",
                width=128,
                crop_px=256,
                optim=OptimConfig(name="adamw", lr=1e-3, head_lr_factor=1.0, epochs=4, batch_size=8),
            ),
        ),
        segmentation=SegmentationConfig(
            net=SegmentationNetConfig(architecture="encoder", weights="classifier"),
            crop=JointCropConfig(min_scale=0.5, max_scale=1.5, crop_px=256),
            optim=OptimConfig(name="adamw", lr=2e-4, momentum=0.9, weight_decay=1e-4, epochs=30, batch_size=8),
            freeze_batch_norm=True,
        ),
        cluster=ClusterConfig(),
    )
    return with_overrides(whole, small.settings(weights=weights))
