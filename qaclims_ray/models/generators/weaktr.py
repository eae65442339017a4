"""WeakTr: a plain ViT with one class token per class whose attention maps refine its CAMs (arXiv 2304.01184).

A 3x3 convolution on the patch tokens gives the coarse CAM. A small network weighs the attention map of every (layer,
head); their weighted mean says which patches a class token looks at, which sharpens the coarse CAM, and which
patches go together, which spreads it over the object: the fine CAM. Facts of the released code that the paper
leaves open are named where they act (rows S2, S3 of docs/method.md).
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.class_token_vit import ClassTokenVit, build_vit
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.network_folder import save_network

_FEATURE_REDUCTION = 8
"""Width of an attention head over that of the hidden layer that scores its features, as in the released code."""


class AttentionFusion(nn.Module):
    """Adaptive attention fusion: the mean of all attention maps, each weighted by what its layer's output says."""

    def __init__(
        self, num_maps: int, head_dim: int, *, pool: Literal["max", "mean"], reduction: int, heads: int
    ) -> None:
        """Make the two MLPs.

        Args:
            num_maps: layers times heads.
            head_dim: channels of one head.
            pool: over tokens.
            reduction: maps per hidden unit of the second MLP.
            heads: of a layer.
        """
        super().__init__()
        self.pool = pool
        self.heads = heads
        hidden = max(1, head_dim // _FEATURE_REDUCTION)
        # Without anything between them the two are one linear map; the released code has them so.
        self.feature_score = nn.Sequential(nn.Linear(head_dim, hidden), nn.Linear(hidden, 1))
        self.map_weight = nn.Sequential(
            nn.Linear(num_maps, num_maps // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(num_maps // reduction, num_maps, bias=False),
            nn.Sigmoid(),
        )

    def forward(
        self,
        attention: list[Float[Tensor, "batch head token token"]],
        features: list[Float[Tensor, "batch token dim"]],
    ) -> Float[Tensor, "batch token token"]:
        """Fuse the attention maps of all layers and heads; rows do not sum to 1."""
        weights = self.weights(features)  # (batch, head, layer)
        total = sum(torch.einsum("bhqk,bh->bqk", maps, weights[:, :, layer]) for layer, maps in enumerate(attention))
        assert isinstance(total, Tensor)
        return total / (len(attention) * self.heads)

    def weights(self, features: list[Float[Tensor, "batch token dim"]]) -> Float[Tensor, "batch head layer"]:
        """Return the weight in (0, 1) of every head of every layer.

        As in the released code, head h gets the channels h, h + heads, h + 2 heads, ..., which are not those that
        it made: these lie side by side.
        """
        pooled = torch.stack(
            [output.amax(dim=1) if self.pool == "max" else output.mean(dim=1) for output in features], dim=1
        )  # (batch, layer, dim)
        by_head = pooled.unflatten(2, (-1, self.heads)).permute(0, 3, 1, 2)  # (batch, head, layer, channel)
        scores = self.feature_score(by_head).flatten(1)  # (batch, head * layer)
        return self.map_weight(scores).unflatten(1, (self.heads, -1))


class WeakTr(nn.Module):
    """Class-token ViT, convolutional head and attention fusion."""

    def __init__(
        self, backbone: ClassTokenVit, classifier: nn.Conv2d, fusion: AttentionFusion, config: CamNetConfig
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.fusion = fusion
        self.config = config

    @property
    def num_classes(self) -> int:
        """K."""
        return self.classifier.out_channels

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], *, want: Literal["maps", "scores"] = "maps"
    ) -> Float[Tensor, "batch class cam_height cam_width"] | tuple[Float[Tensor, "batch class"], ...]:
        """Return fine CAMs (never negative, a cell per begun patch), or WeakTr's three image-level scores.

        The scores are the mean over channels of a class's token, and the means over the image of its coarse and of
        its fine CAM. In the last, as in WeakTr, the coarse CAM counts as given, so that its loss trains the fusion
        alone. Maps keep that path: text-driven losses train head and fusion through them (S3).
        """
        tokens, attention, features = self.backbone(_pad_to_patches(image, self.backbone.patch_px))
        if self.config.detach_attention:
            attention, features = [maps.detach() for maps in attention], [output.detach() for output in features]
        # Of positive numbers: ONNX rounds quotients towards zero, Python down.
        height, width = ((side + self.backbone.patch_px - 1) // self.backbone.patch_px for side in image.shape[2:])
        patch_tokens = tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
        coarse = self.classifier(patch_tokens.contiguous())
        fused = self.fusion(attention, features)
        if want == "maps":
            return refine_by_attention(coarse, fused)
        fine = refine_by_attention(coarse.detach(), fused)
        class_tokens = tokens[:, : self.num_classes]
        return class_tokens.float().mean(dim=2), *(cams.float().mean(dim=(2, 3)) for cams in (coarse, fine))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is new in this network: convolutional head and attention fusion."""
        yield from self.classifier.parameters()
        yield from self.fusion.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what comes pretrained, class tokens included."""
        return self.backbone.parameters()


def refine_by_attention(
    coarse: Float[Tensor, "batch class cam_height cam_width"], attention: Float[Tensor, "batch token token"]
) -> Float[Tensor, "batch class cam_height cam_width"]:
    """Sharpen coarse CAMs with class-to-patch attention, then spread them with patch-to-patch attention.

    Args:
        coarse: logits; negative ones count as 0.
        attention: fused; the classes' tokens come first, the patches' last.

    Returns:
        Fine CAMs, not negative.
    """
    num_classes, height, width = coarse.shape[1:]
    to_patches = attention[:, :, -height * width :]
    sharpened = to_patches[:, :num_classes] * coarse.relu().flatten(2)  # (batch, class, patch)
    spread = torch.einsum("bij,bcj->bci", to_patches[:, -height * width :], sharpened)
    return spread.unflatten(2, (height, width))


def build_weaktr(config: CamNetConfig, num_classes: int) -> WeakTr:
    """Make a network with fresh head, fusion and, without pretrained weights, backbone (torch's global generator).

    Args:
        config: backbone, its pretrained weights, patch size, fusion.
        num_classes: K.

    Raises:
        ConfigError: for an unknown backbone, one that is no plain ViT, another patch size, too few attention maps.
        ModelError: when the weights are absent, broken or do not fit.
    """
    vit = build_vit(config)
    blocks: list[Any] = list(vit.blocks)
    heads = blocks[0].attn.num_heads
    num_maps = heads * len(blocks)
    if config.fusion_reduction > num_maps:
        raise ConfigError(
            f"cam_net.fusion_reduction {config.fusion_reduction} leaves nothing of the {num_maps} attention maps of "
            f"{config.backbone}; choose at most {num_maps}"
        )
    fusion = AttentionFusion(
        num_maps,
        vit.num_features // heads,
        pool=config.fusion_pool,
        reduction=config.fusion_reduction,
        heads=heads,
    )
    classifier = nn.Conv2d(vit.num_features, num_classes, 3, padding=1)
    return WeakTr(ClassTokenVit(vit, num_classes + config.extra_tokens), classifier, fusion, config)


def rebuild_weaktr(config: CamNetConfig, description: dict[str, Any]) -> WeakTr:
    """Make the network that ``network.json`` describes, with fresh weights."""
    return build_weaktr(config, description["num_classes"])


def save_weaktr(net: WeakTr, folder: str) -> None:
    """Write settings and weights into a local folder, which is made if it is not there."""
    save_network(net, net.config, folder, num_classes=net.num_classes)


def _pad_to_patches(image: Tensor, patch_px: int) -> Tensor:
    """Add zeros (the mean colour) right and below, so that no pixel is lost.

    The released code drops the pixels of the last, incomplete patches and stretches the CAM instead.
    """
    bottom, right = (-side % patch_px for side in image.shape[2:])
    # A graph on its way to ONNX holds the padding for any size, also where it adds nothing.
    return F.pad(image, (0, right, 0, bottom)) if torch.compiler.is_compiling() or bottom or right else image
