"""Rates a network by how well its maps part objects from their surroundings; needs image labels only, and no Ray."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import ImageCam, compute_cams
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import label_value
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.evaluation.separation import separation
from qaclims_ray.methods.region_features import RegionEncoder
from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.training.context import WorkerContext, all_reduce_sum


def separation_score(
    network: nn.Module,
    *,
    manifest: Manifest,
    cam_net: CamNetConfig,
    cams: CamConfig,
    threshold: float,
    num_images: int,
    clip: RegionEncoder,
    class_texts: Float[Tensor, "class dim"],
    context: WorkerContext,
) -> float:
    """Return the mean separation of the pairs of some training images, with masks at the scored threshold.

    The maps are computed as the `cams` stage does, and cut as scoring does (`cams.*`, `evaluation.fixed_threshold`).

    Args:
        network: unwrapped mask generator.
        manifest: training images; their masks are not read.
        cam_net: normalisation of the images.
        cams: CAM inference.
        threshold: background score of the masks.
        num_images: so many of them, evenly spread.
        clip: frozen CLIP.
        class_texts: text of every class, unit length.
        context: this worker; each rates a share of the images.
    """
    labelled = [record for record in manifest.records if record.labels]
    count = min(num_images, len(labelled))
    chosen = [labelled[position * len(labelled) // count] for position in range(count)]
    sums = torch.zeros(2, dtype=torch.float64, device=context.device)
    for record in chosen[context.rank :: context.world_size]:
        image = load_image(record.image_uri)
        cam = compute_cams(
            network, [image], [record.labels], [record.image_id], cams, cam_net.image_mean, cam_net.image_std
        )[0]
        figures = _separation(cam, image, threshold, clip, class_texts.to(context.device))
        sums += torch.stack([figures.sum().double(), torch.tensor(len(figures), device=figures.device).double()])
    total, num_pairs = all_reduce_sum(sums).tolist()
    return total / max(num_pairs, 1.0)


@torch.no_grad()
def _separation(
    cam: ImageCam, image: Tensor, threshold: float, clip: RegionEncoder, class_texts: Tensor
) -> Float[Tensor, " pair"]:
    labels = label_map(cam, threshold)
    masks = torch.stack([labels == label_value(class_id) for class_id in cam.class_ids]).to(class_texts.device)
    return rate_masks(image.to(class_texts.device), masks, class_texts[list(cam.class_ids)], clip)


@torch.no_grad()
def rate_masks(
    image: Tensor, masks: Bool[Tensor, "pair height width"], texts: Float[Tensor, "pair dim"], clip: RegionEncoder
) -> Float[Tensor, " pair"]:
    """Return the separation of masks of one image.

    Args:
        image: RGB pixels, 8 bits.
        masks: one per pair.
        texts: each pair's class text, unit length.
        clip: frozen CLIP; it sees the masked picture, and the mask where it is mask-adapted.
    """
    mean = torch.tensor(clip.mean, device=image.device)[:, None, None]
    std = torch.tensor(clip.std, device=image.device)[:, None, None]
    small = resize_bilinear(((image.float() / 255 - mean) / std).unsqueeze(0), clip.image_size, antialias=True)
    inside = resize_bilinear(masks.float().unsqueeze(1), clip.image_size, antialias=True) > 0.5  # (pair, 1, side, side)
    pixels = small.expand(len(masks), -1, -1, -1)
    features = clip.encode_regions(pixels * inside, inside.float() if clip.is_mask_adapted else None)
    return separation(pixels, inside.squeeze(1), (features * texts).sum(dim=1))
