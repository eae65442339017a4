"""Settings of the mask generator, the network whose maps are the CAMs.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from typing import Literal

from qaclims_ray.settings import require, require_at_least, require_text, settings


@settings
class CamNetConfig:
    """The mask generator: a convolutional CAM network (rows R7-R9), or WeakTr (rows S2, S3)."""

    generator: Literal["cnn", "weaktr"] = "cnn"
    """cnn: backbone and 1x1 classifier; weaktr: a plain ViT with class tokens and fused attention."""
    backbone: str = "resnet50"
    """timm model name (weaktr: deit_small_patch16_224), or one of the miniature world's: "miniature", a small stride-4
    network, or for weaktr "miniature_vit" (patch 8)."""
    weights: str = ""
    """Local safetensors/pth file, or "timm" for the model's default pretrained weights; empty starts at random;
    "miniature" is for backbone miniature_vit, the image tower of the miniature world's CLIP. "local", of presets
    for a folder: weights of a small network that lie on this machine, and at random where none do."""
    output_stride: int = 16
    """Stride of the CAM in pixels; for weaktr the side of a patch."""
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Normalisation of the training crop (0-1 scale); official feeds the same pixels to CLIP (R5)."""
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Normalisation of the training crop (0-1 scale)."""
    pad_same: bool = False
    """cnn: build the backbone with TensorFlow's padding (timm pad_type="same")."""
    image_size: int = 224
    """weaktr: side in pixels for which position embeddings are stored; other sizes interpolate them."""
    fusion_pool: Literal["max", "mean"] = "max"
    """weaktr: pooling over tokens of what weighs the attention maps; max for VOC, mean for COCO."""
    fusion_reduction: int = 8
    """weaktr: attention maps per hidden unit of the fusion's MLP; 8 for VOC, 4 for COCO."""
    drop_path: float = 0.1
    """weaktr: highest rate of stochastic depth, of the last block; on in training, even with a frozen backbone (S3)."""
    detach_attention: bool = True
    """weaktr: no gradient through attention maps into the backbone, as WeakTr and SemPLeS have it (S3)."""
    extra_tokens: int = 0
    """weaktr: class tokens that belong to no class; 10 after conversion of the 90-way COCO network (S18)."""

    def __post_init__(self) -> None:
        require_text(self, "cam_net", "backbone")
        require_at_least(self, "cam_net", 0, "extra_tokens")
        require_at_least(self, "cam_net", 1, "fusion_reduction")
        require(0 <= self.drop_path < 1, f"cam_net.drop_path is {self.drop_path}, expected a number in [0, 1)")
        require(self.generator == "cnn" or not self.pad_same, "cam_net.pad_same is for generator cnn; set it to false")
        strides = (1, 2, 4, 8, 16, 32)
        require(
            self.output_stride in strides,
            f"output stride {self.output_stride} (cam_net.output_stride) is not one of {strides}",
        )
        require(
            self.image_size >= self.output_stride and self.image_size % self.output_stride == 0,
            f"cam_net.image_size {self.image_size} is not a multiple of cam_net.output_stride {self.output_stride}",
        )
        require(min(self.image_std) > 0, f"cam_net.image_std is {self.image_std}, expected positive numbers")
