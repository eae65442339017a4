"""Confident seeds: the pixels whose label a CAM is sure of, from which IRN learns (Ahn et al. 2019, row E7)."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value
from qaclims_ray.errors import ArtifactError
from qaclims_ray.refine.crf import dense_crf, label_energy
from qaclims_ray.refine.crf_config import CrfConfig
from qaclims_ray.refine.irn.config import IrnConfig


def confident_seeds(
    image: UInt8[Tensor, "3 height width"], cam: ImageCam, irn: IrnConfig
) -> UInt8[Tensor, "height width"]:
    """Label what a CAM is sure of.

    Two label maps, one with a high background score and one with a low one, go through the CRF. A pixel is
    foreground where the first says so, background where both say so, and ignored elsewhere.

    Args:
        image: RGB pixels; the CRF runs on their device.
        cam: with full-resolution maps of the same image.
        irn: the two thresholds and the CRF.

    Returns:
        Label values: 0 background, class_id + 1 foreground, 255 ignored. On the CPU.

    Raises:
        ArtifactError: when the maps were stored on the small grid only, or are of another size than the image.
    """
    if tuple(image.shape[1:]) != (cam.height, cam.width):
        raise ArtifactError(
            f"image {cam.image_id} is {image.shape[2]}x{image.shape[1]} pixels, its CAM was made for "
            f"{cam.width}x{cam.height}; run `qaclims cams` again"
        )
    maps = [label_map(cam, threshold) for threshold in (irn.foreground_threshold, irn.background_threshold)]
    if not cam.class_ids:
        return maps[0]
    foreground, background = _smoothed(image, torch.stack(maps), cam.class_ids, irn.crf).cpu()
    seeds = foreground.clone()
    # What is an object at the low threshold only is uncertain, and the affinity network must not learn from it.
    seeds[foreground == BACKGROUND_VALUE] = IGNORE_VALUE
    seeds[(foreground == BACKGROUND_VALUE) & (background == BACKGROUND_VALUE)] = BACKGROUND_VALUE
    return seeds


def _smoothed(
    image: UInt8[Tensor, "3 height width"],
    labels: UInt8[Tensor, "batch height width"],
    class_ids: tuple[int, ...],
    crf: CrfConfig,
) -> UInt8[Tensor, "batch height width"]:
    """Run the CRF over the labels that the image may have: the background and its classes."""
    values = torch.tensor([BACKGROUND_VALUE, *map(label_value, class_ids)], dtype=torch.uint8, device=image.device)
    compact = (labels.to(image.device).unsqueeze(1) == values.view(1, -1, 1, 1)).int().argmax(dim=1)
    energies = label_energy(compact, len(values), crf.label_confidence)
    posterior = dense_crf(image.expand(len(labels), -1, -1, -1), energies, crf)
    return values[posterior.argmax(dim=1)]
