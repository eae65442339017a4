"""IRNet: a boundary map and a displacement field from a frozen backbone (Ahn et al. 2019, rows E8, E10).

Both branches read every stage of the backbone through 1x1 convolutions and answer on a grid of one cell for every
begun 4 pixels. Masks need the boundary map alone; the displacement field is the other half of what it learns from.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.cams.inference import batches_of_one_size
from qaclims_ray.data.images import Rgb
from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import load_backbone_weights
from qaclims_ray.models.devices import autocast
from qaclims_ray.models.generators.cam_net import MINIATURE, MINIATURE_STRIDE, CamNet, MiniatureBackbone, build_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import load_mask_generator
from qaclims_ray.models.network_folder import load_network, save_network
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.refine.irn.config import GRID_STRIDE, IrnConfig

_IMAGES_ON_GPU = 8
"""Images whose boundary maps a GPU computes together."""
_PROBE_PX = (70, 90)
"""No multiples of a stride, so that stages which cut off an incomplete cell show themselves."""


class AffinityNet(nn.Module):
    """Frozen backbone, boundary branch, displacement branch, and the images' normalisation."""

    image_mean: Tensor
    image_std: Tensor
    mean_displacement: Tensor

    def __init__(self, backbone: nn.Module, cam_net: CamNetConfig, config: IrnConfig) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.output_stride, self.pad_same = cam_net.output_stride, cam_net.pad_same
        self.config = config
        widths, strides = _probe_stages(backbone, cam_net.backbone)
        self.boundary = BoundaryBranch(widths, strides, config.width // 8)
        self.displacement = DisplacementBranch(widths, strides, config.width)
        self.register_buffer("image_mean", torch.tensor(cam_net.image_mean))
        self.register_buffer("image_std", torch.tensor(cam_net.image_std))
        # Zero until the training has ended.
        self.register_buffer("mean_displacement", torch.zeros(2))

    @property
    def normalisation(self) -> tuple[Rgb, Rgb]:
        """Mean and standard deviation of the images, on the 0-1 scale."""
        mean_red, mean_green, mean_blue = self.image_mean.tolist()
        std_red, std_green, std_blue = self.image_std.tolist()
        return (mean_red, mean_green, mean_blue), (std_red, std_green, std_blue)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch 1 grid_height grid_width"], Float[Tensor, "batch 2 grid_height grid_width"]]:
        """Return boundary logits and displacements.

        Args:
            image: normalised with `image_mean` and `image_std`, of any size.

        Returns:
            Logits; rows and columns from each cell to its object's centre, from which evaluation mode subtracts
            `mean_displacement`.
        """
        with torch.no_grad():
            stages = backbone_stages(self.backbone, image)
        displacement = self.displacement(stages)
        if not self.training:
            displacement = displacement - self.mean_displacement.view(1, 2, 1, 1)
        return self.boundary(stages), displacement

    def train(self, mode: bool = True) -> "AffinityNet":
        """Switch the branches; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self


class BoundaryBranch(nn.Module):
    """Every stage reduced to `width` channels on the grid, and one logit of all of them."""

    def __init__(self, widths: list[int], strides: list[int], width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            _Reduction(stage, width, stride // GRID_STRIDE, group=8)
            for stage, stride in zip(widths, strides, strict=True)
        )
        self.logit = nn.Conv2d(width * len(widths), 1, 1)

    def forward(
        self, stages: list[Float[Tensor, "batch _dim _height _width"]]
    ) -> Float[Tensor, "batch 1 grid_height grid_width"]:
        """Return logits."""
        size = stages[0].shape[2:]
        reduced = [reduce(stage, size) for reduce, stage in zip(self.stages, stages, strict=True)]
        return self.logit(torch.cat(reduced, dim=1))


class DisplacementBranch(nn.Module):
    """The third and later stages fused at the third's stride, then with the first two on the grid."""

    def __init__(self, widths: list[int], strides: list[int], width: int) -> None:
        super().__init__()
        fused_stride = strides[2]
        self.fine = nn.ModuleList(
            [_Reduction(widths[0], width // 4, 1, group=8), _Reduction(widths[1], width // 2, 1, group=8)]
        )
        self.coarse = nn.ModuleList(
            _Reduction(stage, width, stride // fused_stride, group=16)
            for stage, stride in zip(widths[2:], strides[2:], strict=True)
        )
        self.fuse_coarse = _Reduction(width * len(self.coarse), width, fused_stride // GRID_STRIDE, group=16)
        self.fuse = _Reduction(width // 4 + width // 2 + width, width, 1, group=16)
        self.field = nn.Conv2d(width, 2, 1, bias=False)

    def forward(
        self, stages: list[Float[Tensor, "batch _dim _height _width"]]
    ) -> Float[Tensor, "batch 2 grid_height grid_width"]:
        """Return displacements."""
        size, fused_size = stages[0].shape[2:], stages[2].shape[2:]
        fine = [reduce(stage, size) for reduce, stage in zip(self.fine, stages[:2], strict=True)]
        coarse = [reduce(stage, fused_size) for reduce, stage in zip(self.coarse, stages[2:], strict=True)]
        fused = self.fuse_coarse(torch.cat(coarse, dim=1), size)
        return self.field(self.fuse(torch.cat([*fine, fused], dim=1), size))


class _Reduction(nn.Module):
    """1x1 convolution, group norm, enlargement by a whole factor (cut to the size wanted), ReLU."""

    def __init__(self, width_in: int, width: int, factor: int, *, group: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, 1, bias=False)
        # The published width gives groups of 8 or 16 channels. Other widths need a number of groups that divides them.
        self.norm = nn.GroupNorm(math.gcd(width, max(1, width // group)), width)
        self.factor = factor

    def forward(self, features: Tensor, size: torch.Size) -> Tensor:
        reduced = self.norm(self.conv(features))
        if self.factor > 1:
            reduced = F.interpolate(reduced, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return F.relu(reduced[..., : size[0], : size[1]])


def backbone_stages(
    backbone: nn.Module, image: Float[Tensor, "batch 3 height width"]
) -> list[Float[Tensor, "batch _dim _height _width"]]:
    """Return the features of all stages, at stride 4 or coarser.

    Finer ones go through 3x3 maximum pooling. For a ResNet's stem that is the network's own pooling.

    Args:
        backbone: of `build_cam_net`.
        image: normalised.
    """
    if isinstance(backbone, MiniatureBackbone):
        stages = [backbone.stem(image)]
        for block in backbone.blocks:
            stages.append(block(stages[-1]))
    else:
        stages = backbone.forward_intermediates(image, intermediates_only=True)  # type: ignore[operator]
    return [_pooled(features, grid_of(image)) for features in stages]


def grid_of(image: Tensor) -> tuple[int, int]:
    """Return the size of the grid: a cell for every begun 4 pixels."""
    return -(-image.shape[-2] // GRID_STRIDE), -(-image.shape[-1] // GRID_STRIDE)


def build_affinity_net(irn: IrnConfig, *, classifier_dir: str = "") -> AffinityNet:
    """Make an affinity network; its branches are random, from torch's global generator.

    Args:
        irn: backbone, its weights ("timm", "random", "classifier" or a local file), width.
        classifier_dir: folder of the trained convolutional classifier whose backbone "classifier" takes, with its
            stride, padding and normalisation of images.

    Raises:
        ConfigError: for a backbone that is unknown or lacks suitable stages, or is not the classifier's.
        ModelError: when the weights are absent, broken or do not fit.
        ArtifactError: when the folder holds no network, or a broken one.
    """
    match irn.weights:
        case "classifier":
            classifier = _classifier(irn, classifier_dir)
            return AffinityNet(classifier.backbone, classifier.config, irn)
        case "timm" | "random":
            return _from_backbone(irn, "timm" if irn.weights == "timm" else "")
        case "":
            raise ConfigError(
                'masks.irn.weights is empty, expected a local file, "timm" (pretrained), "classifier" (that of the '
                'run) or "random"'
            )
        case _:
            net = _from_backbone(irn, "")
            load_backbone_weights(net.backbone, irn.weights, setting="masks.irn.weights")
            return net


def save_affinity_net(net: AffinityNet, folder: str) -> None:
    """Write settings and all weights into a local folder, which is made if it is not there."""
    save_network(net, net.config, folder, output_stride=net.output_stride, pad_same=net.pad_same)


def load_affinity_net(folder: str, device: torch.device | str = "cpu") -> AffinityNet:
    """Read an affinity network back, in evaluation mode; nothing but the folder is needed.

    Args:
        folder: local path or URI.
        device: where it goes.

    Raises:
        ArtifactError: when the folder holds no affinity network, or a broken one.
    """
    return load_network(folder, _rebuild, device, config_type=IrnConfig)


@torch.inference_mode()
def boundary_maps(
    net: AffinityNet,
    images: Sequence[UInt8[Tensor, "3 _height _width"]],
    pad_px: int,
    *,
    precision: Arithmetic = "fp32",
) -> list[Float[Tensor, "_grid_height _grid_width"]]:
    """Return boundary probabilities: the sigmoid of the mean logits of an image and its mirror image (row E10).

    Images of one size run together, a few at a time.

    Args:
        net: trained; the results are on its device.
        images: RGB pixels.
        pad_px: side of the square to which normalised images are padded with zeros, right and below; 0 does not pad.
        precision: what the network computes in.

    Raises:
        ConfigError: when an image is larger than that square.
    """
    for height, width in {tuple(image.shape[1:]) for image in images}:
        if pad_px and max(height, width) > pad_px:
            raise ConfigError(
                f"an image of {width}x{height} pixels does not fit into masks.irn.pad_px {pad_px}; raise it, or set it "
                "to 0, which takes each image's own size"
            )
    found: dict[int, Tensor] = {}
    at_once = _IMAGES_ON_GPU if net.image_mean.device.type != "cpu" else 1
    for positions in batches_of_one_size(images, at_once):
        pixels = torch.stack([images[position] for position in positions])
        with autocast(precision, net.image_mean.device):
            found |= zip(positions, _boundary_maps(net, pixels, pad_px), strict=True)
    return [found[position] for position in range(len(images))]


def _boundary_maps(
    net: AffinityNet, images: UInt8[Tensor, "batch 3 height width"], pad_px: int
) -> Float[Tensor, "batch grid_height grid_width"]:
    height, width = images.shape[2:]
    pixels = images.to(net.image_mean.device, non_blocking=True).float() / 255
    pixels = (pixels - net.image_mean.view(3, 1, 1)) / net.image_std.view(3, 1, 1)
    both = torch.cat([pixels, pixels.flip(-1)])
    if pad_px:
        both = F.pad(both, (0, pad_px - width, 0, pad_px - height))
    rows, columns = grid_of(images)
    logits, mirrored = net(both)[0][:, 0, :rows, :columns].float().chunk(2)  # (batch, grid_height, grid_width)
    return ((logits + mirrored.flip(-1)) / 2).sigmoid()


def _classifier(irn: IrnConfig, folder: str) -> CamNet:
    if not folder:
        raise ConfigError(
            'masks.irn.weights is "classifier", but the run has trained none; name a local file or "timm"'
        )
    network = load_mask_generator(folder)
    if not isinstance(network, CamNet):
        raise ConfigError(
            f'masks.irn.weights is "classifier", but that at {folder} is a {network.config.generator}, expected a '
            'convolutional one (cam_net.generator cnn); set masks.irn.weights to a local file or "timm"'
        )
    if network.config.backbone != irn.backbone:
        raise ConfigError(
            f'masks.irn.weights is "classifier" and masks.irn.backbone {irn.backbone}, but the classifier at {folder} '
            f"has {network.config.backbone}; set masks.irn.backbone to that"
        )
    return network


def _from_backbone(irn: IrnConfig, weights: str) -> AffinityNet:
    """Make a network of timm's or no pretrained weights, at IRN's stride 16.

    Images are normalised as timm's pretrained weights want it, else as ImageNet's usually are.
    """
    stride = MINIATURE_STRIDE if irn.backbone == MINIATURE else 16
    config = CamNetConfig(backbone=irn.backbone, weights=weights, output_stride=stride)
    backbone = build_cam_net(config, num_classes=1).backbone
    if weights == "timm":
        wanted: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
        config = dataclasses.replace(config, image_mean=tuple(wanted["mean"]), image_std=tuple(wanted["std"]))
    return AffinityNet(backbone, config, irn)


def _rebuild(irn: IrnConfig, description: dict[str, Any]) -> AffinityNet:
    stride, pad_same = description["output_stride"], description["pad_same"]
    config = CamNetConfig(backbone=irn.backbone, output_stride=stride, pad_same=pad_same)
    return AffinityNet(build_cam_net(config, num_classes=1).backbone, config, irn)


def _pooled(features: Tensor, grid: tuple[int, int]) -> Tensor:
    while features.shape[2] > grid[0] or features.shape[3] > grid[1]:
        features = F.max_pool2d(features, 3, stride=2, padding=1)
    return features


@torch.no_grad()
def _probe_stages(backbone: nn.Module, name: str) -> tuple[list[int], list[int]]:
    """Return the channels and strides of the stages, after making sure that the branches can use them.

    Raises:
        ConfigError: when they cannot.
    """
    if not isinstance(backbone, MiniatureBackbone) and not hasattr(backbone, "forward_intermediates"):
        raise ConfigError(f"masks.irn.backbone {name} does not give its stages' features; choose e.g. resnet50")
    stages = backbone_stages(backbone, torch.zeros(1, 3, *_PROBE_PX))
    # At stride 4 the probe's 70 pixels have 18 cells; a stage's stride follows from how many it has.
    strides = [GRID_STRIDE * 2 ** round(math.log2(18 / stage.shape[2])) for stage in stages]
    expected = [tuple(-(-side // stride) for side in _PROBE_PX) for stride in strides]
    found = [tuple(stage.shape[2:]) for stage in stages]
    if len(stages) < 3 or found != expected or strides[:2] != [GRID_STRIDE, GRID_STRIDE] or strides != sorted(strides):
        raise ConfigError(
            f"masks.irn.backbone {name} has stages of {found} cells for an image of {_PROBE_PX} pixels; expected at "
            "least three, two of them at stride 4 or finer, with a cell for every begun stride; choose e.g. resnet50 "
            "or mobilenetv2_100"
        )
    return [stage.shape[1] for stage in stages], strides
