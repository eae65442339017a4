"""Masks of a further round: what a final network says of images whose classes are known, within those classes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.classes import Classes
from qaclims_ray.models.devices import upload
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.refine.shares import HALF
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.inference import as_class_maps, crf_probabilities, segment_images


def maps_within_tags(
    network: nn.Module,
    images: Sequence[UInt8[Tensor, "3 _height _width"]],
    labels: Sequence[tuple[int, ...]],
    image_ids: Sequence[str],
    segmentation: SegmentationConfig,
    classes: Classes,
    *,
    precision: Arithmetic = "fp32",
) -> list[ImageCam]:
    """Return maps of each image's own classes: the network's probabilities among them, after the CRF of test time.

    What an image is not tagged with is never painted. Scales, mirror images and CRF are those of `segmentation.test`.

    Args:
        network: a trained final network.
        images: RGB pixels.
        labels: classes that each image shows, rising; an image of none has no maps.
        image_ids: the manifest's identifiers.
        segmentation: the network's normalisation, and its test time.
        classes: of the data set.
        precision: what the network computes in.

    Returns:
        On the CPU, in the order of the images: shares against the background whose border is `HALF`; probabilities
        where there is no background.

    Raises:
        ModelError: when the network's response is not finite.
    """
    net, test, border = segmentation.net, segmentation.test, classes.border(HALF)
    found: dict[int, ImageCam] = {}
    tagged = [position for position, own in enumerate(labels) if own]
    for chosen, probabilities in segment_images(
        network, [images[position] for position in tagged], test, net.image_mean, net.image_std, precision=precision
    ):
        positions = [tagged[one] for one in chosen]
        own = torch.stack(
            [within_tags(one, labels[at], classes) for one, at in zip(probabilities, positions, strict=True)]
        )
        pixels = upload(torch.stack([images[position] for position in positions]), own.device)
        for position, refined in zip(positions, crf_probabilities(pixels, own, test.crf, border), strict=True):
            maps = as_class_maps(image_ids[position], refined, border)
            assert maps.full is not None
            kept = maps.full[list(labels[position])].cpu()
            found[position] = replace(maps, class_ids=labels[position], full=kept)
    return [
        found[position] if own else _without_classes(image_ids[position], images[position])
        for position, own in enumerate(labels)
    ]


def within_tags(
    probabilities: Float[Tensor, "label height width"], labels: Sequence[int], classes: Classes
) -> Float[Tensor, "label height width"]:
    """Return label probabilities among the background, where there is one, and an image's own classes.

    Args:
        probabilities: background first, where there is one.
        labels: the image's classes.
        classes: of the data set.
    """
    first = 1 if classes.has_background else 0
    kept = torch.zeros(len(probabilities), dtype=torch.bool, device=probabilities.device)
    kept[[*range(first), *(first + label for label in labels)]] = True
    # Where none of them has any probability they share the pixel alike, and nothing else gets it.
    own = probabilities.float().clamp_min(torch.finfo(torch.float32).tiny) * kept[:, None, None]
    return own / own.sum(0)


def _without_classes(image_id: str, image: UInt8[Tensor, "3 height width"]) -> ImageCam:
    height, width = int(image.shape[1]), int(image.shape[2])
    return ImageCam(image_id, (), torch.zeros(0, height, width), None, height, width)
