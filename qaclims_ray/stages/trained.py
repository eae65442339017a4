"""A run's final network as an object: ``from qaclims_ray import load; load("runs/mine").predict("photo.jpg")``.

It computes in this process: no Ray, no MLflow. `qaclims predict` is for folders of images, on all that the machine has.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from qaclims_ray.cams.label_map import overlay
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.classes import Classes, voc_palette
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.deployment.hub_folder import is_hub_folder, read_hub_folder
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.refine.shares import HALF
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.predict_final import FinalPredictor, read_final_network
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.systems.table import system_config, system_of

Picture: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""A path or URI, a PIL image, or pixels from 0 to 255: an array (height, width, 3) or a tensor (3, height, width)."""

_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""PIL's modes of 8 bits a channel."""
_IMAGES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class PredictedMask:
    """What a final network says of one image."""

    labels: UInt8[np.ndarray, "height width"]
    """Each pixel's label, at the image's size: its position in `label_names`. Without a background 255 is no class."""
    scores: Float[np.ndarray, "label height width"]
    """Probability of each of the labels, in the order of `label_names`; they add up to 1 at every pixel."""
    label_names: tuple[str, ...]
    """Names of the labels' values from the first on."""
    first_label: int
    """The lowest value of a label: 0, the background, or 1 where the data set has none."""
    image: UInt8[np.ndarray, "height width 3"]
    """The upright RGB pixels that were segmented."""

    @property
    def found(self) -> dict[str, float]:
        """The classes that the image shows, background left out, and the share of its pixels that each has."""
        shares = {
            name: float((self.labels == value).mean())
            for value, name in enumerate(self.label_names, start=self.first_label)
            if value > 0
        }
        return {name: share for name, share in shares.items() if share > 0}

    def mask(self) -> Image.Image:
        """Return the labels as a picture with VOC's palette: pixel values are labels, viewers show colours."""
        picture = Image.fromarray(self.labels, mode="P")
        picture.putpalette(voc_palette())
        return picture

    def overlay(self) -> Image.Image:
        """Return the image with its objects tinted."""
        pixels = torch.from_numpy(self.image).permute(2, 0, 1)
        return Image.fromarray(overlay(pixels, torch.from_numpy(self.labels)))


class LoadedNetwork:
    """A run's final network, ready to segment images. `load` makes it."""

    def __init__(self, predictor: FinalPredictor, classes: Classes) -> None:
        self.predictor, self.classes = predictor, classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, background left out."""
        return self.classes.names

    @overload
    def predict(self, images: Picture, *, classes: Iterable[str] | None = None, crf: bool = False) -> PredictedMask: ...
    @overload
    def predict(
        self, images: Sequence[Picture], *, classes: Iterable[str] | None = None, crf: bool = False
    ) -> list[PredictedMask]: ...
    def predict(
        self, images: Picture | Sequence[Picture], *, classes: Iterable[str] | None = None, crf: bool = False
    ) -> PredictedMask | list[PredictedMask]:
        """Segment an image, or a list of images, with the run's own scales and mirror images.

        Args:
            images: one picture or a list of them, of any sizes; a tensor (batch, 3, height, width) is a list too.
            classes: names of the classes that the images can show, where that is known; None: all.
            crf: sharpen the probabilities with the run's dense CRF (`segmentation.test.crf`).

        Raises:
            DataError: when a file cannot be read, or pixels are none.
            ConfigError: for a class that the network does not know.
        """
        allowed = self._allowed(classes)
        if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) or _is_picture(images):
            (found,) = self._segmented([images], allowed, crf)  # type: ignore[list-item]
            return found
        pictures: list[Picture] = list(images)  # type: ignore[arg-type]
        return [
            found
            for start in range(0, len(pictures), _IMAGES_AT_ONCE)
            for found in self._segmented(pictures[start : start + _IMAGES_AT_ONCE], allowed, crf)
        ]

    def _allowed(self, names: Iterable[str] | None) -> tuple[int, ...] | None:
        if names is None:
            return None
        wanted = [names] if isinstance(names, str) else list(names)
        if unknown := [name for name in wanted if name not in self.class_names]:
            raise ConfigError(f"the network does not know {', '.join(unknown)}; it knows {', '.join(self.class_names)}")
        return tuple(sorted(self.class_names.index(name) for name in set(wanted)))

    def _segmented(
        self, pictures: Sequence[Picture], allowed: tuple[int, ...] | None, with_crf: bool
    ) -> list[PredictedMask]:
        images = [_pixels(picture) for picture in pictures]
        found: dict[int, PredictedMask] = {}
        for position, labels, scores in self.predictor(images, [allowed] * len(images), with_crf=with_crf):
            found[position] = PredictedMask(
                labels=labels.numpy(),
                scores=_among(scores.float(), allowed, self.classes).numpy(),
                label_names=self.classes.label_names,
                first_label=0 if self.classes.has_background else 1,
                image=images[position].permute(1, 2, 0).contiguous().numpy(),
            )
        return [found[position] for position in range(len(images))]


def load(run: str | os.PathLike[str], *, system: str = "", device: str | torch.device = "auto") -> LoadedNetwork:
    """Read the final network of a finished run, or one that `qaclims export-network --to hub` wrote.

    Args:
        run: the run's output folder, or that of the exported network; a path or an fsspec URI.
        system: whose network; empty takes the run's last system, which is its best by design.
        device: "auto" takes the GPU where there is one.

    Raises:
        ConfigError: when the folder holds no run, or the run has no such system.
        ArtifactError: when the network is not trained yet, or is damaged.
    """
    uri = storage.absolute(os.fspath(run))
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if is_hub_folder(uri):
        return _of_hub_folder(uri, system, where)
    config, layout = load_config(uri), RunLayout(uri)
    name = system or config.systems[-1]
    system_of(config, name)
    artifacts.require_artifact(layout.segmentation(name), "segmentation", verb="segment")
    segmentation = system_config(config, name).segmentation
    precision = segmentation.test.arithmetic(1 if where.type == "cuda" else 0)
    classes = read_manifest(layout.manifest).classes
    network = read_final_network(layout.segmentation(name))
    predictor = FinalPredictor(network, segmentation, where, precision=precision, border=classes.border(HALF))
    return LoadedNetwork(predictor, classes)


def _of_hub_folder(uri: str, system: str, where: torch.device) -> LoadedNetwork:
    if system:
        raise ConfigError(f"{uri} holds one exported network, so it has no system {system!r}; leave it out")
    found = read_hub_folder(uri)
    precision = found.segmentation.test.arithmetic(1 if where.type == "cuda" else 0)
    border = found.classes.border(HALF)
    predictor = FinalPredictor(found.network, found.segmentation, where, precision=precision, border=border)
    return LoadedNetwork(predictor, found.classes)


def _is_picture(images: object) -> bool:
    return isinstance(images, Tensor) and images.ndim == 3


def _pixels(picture: Picture) -> UInt8[Tensor, "3 height width"]:
    """Return upright RGB pixels.

    Raises:
        DataError: when there are none.
    """
    match picture:
        case Image.Image():
            if picture.mode not in _PLAIN_MODES:
                raise DataError(
                    f"a PIL image has mode {picture.mode}, expected 8 bits a channel: give its file instead"
                )
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
            return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        case np.ndarray():
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise DataError(
                    f"an array has {picture.dtype} of shape {picture.shape}, expected uint8 of (height, width, 3)"
                )
            return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).contiguous()
        case Tensor():
            if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
                shape = tuple(picture.shape)
                raise DataError(f"a tensor has {picture.dtype} of shape {shape}, expected uint8 of (3, height, width)")
            return picture.cpu()
        case _:
            return load_image(storage.absolute(os.fspath(picture)))


def _among(
    scores: Float[Tensor, "label height width"], allowed: tuple[int, ...] | None, classes: Classes
) -> Float[Tensor, "label height width"]:
    """Return the probabilities of the background and some classes alone, adding up to 1; None: as they are."""
    if allowed is None:
        return scores
    first = 1 if classes.has_background else 0
    keep = torch.zeros(len(scores), dtype=torch.bool)
    keep[:first] = True
    keep[[first + class_id for class_id in allowed]] = True
    kept = scores * keep[:, None, None]
    return kept / kept.sum(0, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)
