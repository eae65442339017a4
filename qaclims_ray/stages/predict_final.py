"""Prediction by a final network: it knows the classes itself, so no image-level labels are needed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data import whole_files
from qaclims_ray.errors import DataError
from qaclims_ray.models.folding import for_inference
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.inference import as_class_maps, crf_probabilities, segment_images
from qaclims_ray.segmentation.networks.network import FinalNetwork, load_segmentation_network


def read_final_network(uri: str) -> FinalNetwork:
    """Read a run's final network, whole or not at all."""
    with whole_files.whole_copy(uri) as folder:
        return load_segmentation_network(folder)


class FinalPredictor:
    """A trained final network, as `predict` and `load` use it."""

    def __init__(
        self,
        network: FinalNetwork,
        config: SegmentationConfig,
        device: torch.device,
        *,
        precision: Arithmetic,
        border: float,
    ) -> None:
        self.network = for_inference(network, device)
        self.config, self.border = config, border
        self.precision: Arithmetic = precision

    def __call__(
        self, images: list[Any], labels: list[tuple[int, ...] | None], *, with_crf: bool
    ) -> Iterator[tuple[int, Any, Any]]:
        """Yield each image's position, its label map, and the probabilities of all labels (label, height, width).

        Args:
            images: RGB pixels (3, height, width).
            labels: classes that an image can show, where they are known.
            with_crf: refine the probabilities by the run's dense CRF.

        Raises:
            DataError: when a label is no class of the network.
        """
        net, test, border = self.network.config, self.config.test, self.border
        for positions, probabilities in segment_images(
            self.network, images, test, net.image_mean, net.image_std, precision=self.precision
        ):
            if with_crf:
                pixels = torch.stack([images[position] for position in positions])
                probabilities = crf_probabilities(pixels, probabilities, test.crf, border)
            for position, found in zip(positions, probabilities.cpu(), strict=True):
                yield position, _label_map(as_class_maps("", found, border), labels[position], border), found


def _label_map(maps: ImageCam, known: tuple[int, ...] | None, border: float) -> Any:
    if known is not None:
        if beyond := [class_id for class_id in known if class_id >= len(maps.class_ids)]:
            raise DataError(f"label {beyond[0]} is no class of the network, which has {len(maps.class_ids)}")
        assert maps.full is not None
        maps = replace(maps, class_ids=known, full=maps.full[list(known)])
    return label_map(maps, border)
