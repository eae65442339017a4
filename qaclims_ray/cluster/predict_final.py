"""Prediction by a final network: it knows the classes itself, so no image-level labels are needed."""

from dataclasses import replace
from typing import Any

import torch

from qaclims_ray.data import storage
from qaclims_ray.errors import DataError
from qaclims_ray.masks.label_map import label_map
from qaclims_ray.masks.segment import as_class_maps, crf_probabilities, segment_images
from qaclims_ray.masks.shares import HALF
from qaclims_ray.models.segmentation_network import load_segmentation_network
from qaclims_ray.segmentation_config import SegmentationConfig


class FinalNetwork:
    """A trained final network, as `predict` uses it."""

    def __init__(self, network_uri: str, config: SegmentationConfig, device: torch.device, *, with_crf: bool) -> None:
        with storage.local_copy(network_uri) as folder:
            self.network = load_segmentation_network(folder, device)
        self.config, self.device, self.with_crf = config, device, with_crf

    def __call__(self, images: list[Any], labels: list[tuple[int, ...] | None]) -> list[Any]:
        """Return the label map of each image.

        Args:
            images: RGB pixels (3, height, width).
            labels: classes that an image can show, where they are known.

        Raises:
            DataError: when a label is no class of the network.
        """
        net, test = self.config.net, self.config.test
        predicted = segment_images(self.network, images, test, net.image_mean, net.image_std)
        masks = []
        for image, probabilities, known in zip(images, predicted, labels, strict=True):
            if self.with_crf:
                here = crf_probabilities(image.to(self.device), probabilities.to(self.device), test.crf)
                probabilities = here.cpu()
            maps = as_class_maps("", probabilities)
            if known is not None:
                if beyond := [class_id for class_id in known if class_id >= len(maps.class_ids)]:
                    raise DataError(f"label {beyond[0]} is no class of the network, which has {len(maps.class_ids)}")
                assert maps.full is not None
                maps = replace(maps, class_ids=known, full=maps.full[list(known)])
            masks.append(label_map(maps, HALF))
        return masks
