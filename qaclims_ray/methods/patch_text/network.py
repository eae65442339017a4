"""A frozen CLIP as a network that makes CAMs: each patch against a direction in the space of texts for each class."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.methods.method import CamNetwork
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.models.clip.patch_features import check_patch_features, patch_features
from qaclims_ray.text.bank import TextBank, read_bank

_PAIRS_PER_LOOKUP = 512


class PatchTextNetwork(nn.Module):
    """Similarity of every patch of an image to the direction of each class.

    Args:
        clip: whose patches and texts are compared.
        directions: a direction in the space of texts for each class (`class_directions`).
        num_blocks: see `patch_features`.

    Raises:
        ModelError: the CLIP's patches cannot be looked at.
    """

    def __init__(self, clip: FrozenClip, directions: Float[Tensor, "class dim"], *, num_blocks: int) -> None:
        super().__init__()
        check_patch_features(clip.model.visual)
        self.clip, self.num_blocks = clip, num_blocks
        self.register_buffer("directions", directions)
        self.patch_px = int(clip.model.visual.conv1.kernel_size[0])
        # What computes CAMs takes cells for powers of two: patches of 14 pixels look at an image 14/16 of the size.
        self.cell_px = 1 << (self.patch_px - 1).bit_length()

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image class row column"]:
        """Return cosines, less what is taken off of them for the background.

        Args:
            images: normalised for the CLIP, of any size: the last row and column of patches may reach beyond the
                image, where its edge is repeated.
        """
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % self.cell_px, 0, -height % self.cell_px), mode="replicate")
        if self.cell_px != self.patch_px:
            size = tuple(side // self.cell_px * self.patch_px for side in images.shape[2:])
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        features = patch_features(self.clip.model.visual, images, num_blocks=self.num_blocks)
        return torch.einsum("ndrc,kd->nkrc", features, self.directions.to(features.dtype))


def class_directions(bank: TextBank, background_weight: float) -> Float[Tensor, "class dim"]:
    """Return what patches of each class are compared with: its mean foreground text, less that of its background.

    Means are over the pairs (image, class) of the bank: an answer that many images gave counts as often. Cosines are
    linear in the texts, so that what is taken off is a patch's mean similarity to the background texts.

    Args:
        bank: texts of the training images' pairs; a class that none of them shows gets zeros and is found nowhere.
        background_weight: of the mean background text; pairs without one are left out of that mean.
    """
    num_classes = len(bank.class_names)
    sums = torch.zeros(2, num_classes, bank.features.shape[1])
    counts = torch.zeros(2, num_classes)
    for start in range(0, len(bank.image_ids), _PAIRS_PER_LOOKUP):
        part = slice(start, start + _PAIRS_PER_LOOKUP)
        classes = torch.tensor(bank.class_ids[part])
        found = bank.lookup(list(bank.image_ids[part]), list(bank.class_ids[part]))
        is_real = found.is_background.float()
        background = (found.background * is_real[:, :, None]).sum(1) / is_real.sum(1, keepdim=True).clamp_min(1)
        sums[0].index_add_(0, classes, F.normalize(found.foreground, dim=-1))
        sums[1].index_add_(0, classes, background)
        counts[0].index_add_(0, classes, torch.ones(len(classes)))
        counts[1].index_add_(0, classes, found.has_background.float())
    foreground, background = sums / counts.clamp_min(1)[:, :, None]
    return F.normalize(foreground, dim=-1) - background_weight * background


@dataclass(frozen=True)
class LoadPatchText:
    """Loads the network, in the process that computes."""

    clip_files: tuple[str, str | None]
    """Model and weights of the CLIP."""
    texts_uri: str
    """The system's text bank."""
    num_blocks: int
    """See `patch_features`."""
    background_weight: float
    """See `class_directions`."""

    def __call__(self, device: torch.device) -> CamNetwork:
        """Load it.

        Raises:
            ArtifactError: the texts are not there.
            ModelError: the CLIP cannot be loaded, or its patches cannot be looked at.
        """
        model, weights = self.clip_files
        # Patches are looked at as they are: mask tokens, where a model has them, have nothing to hide.
        clip = load_clip(model, weights, device=device, mask_adapted=False)
        directions = class_directions(read_bank(self.texts_uri), self.background_weight)
        network = PatchTextNetwork(clip, directions, num_blocks=self.num_blocks).to(device).eval()
        return CamNetwork(network, _rgb(clip.mean), _rgb(clip.std))


def _rgb(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
