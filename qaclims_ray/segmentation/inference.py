"""Final networks at test time: label probabilities over scales and mirror images, and the CRF after them (row D4).

The `segment` stage and `predict` call it; the probabilities become class maps like a seed's, so that everything is
scored and drawn by the same code.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.cams.inference import ImageCam, batches_of_one_size, device_of, inference, resize_like_pil
from qaclims_ray.data.artifacts import plain
from qaclims_ray.data.classes import BACKGROUND_VALUE, NO_BACKGROUND
from qaclims_ray.errors import ModelError
from qaclims_ray.models.devices import ItemsAtOnce, autocast, constant, upload
from qaclims_ray.models.precision import Arithmetic, recorded
from qaclims_ray.refine.crf import dense_crf, label_energy, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig
from qaclims_ray.refine.shares import HALF, foreground_shares
from qaclims_ray.segmentation.config import SegmentationTestConfig

SEGMENTED_AT_ONCE = ItemsAtOnce(on_cpu=8, per_gib=0.5, most=32)
"""`segmentation.test.batch_size` where it is open: 81 labels of 640x480 pixels take 100 MB an image, several times."""
CRF_MIN_PROBABILITY = 0.02
"""A label that reaches no more than this at any pixel of an image stays out of its CRF. With a barely trained network,
the worst case, this changes 1 in 700 000 pixels of VOC images, 0.03 changes 1 in 2 400, and 0.05 1 in 660."""


def segment_images(
    network: nn.Module,
    images: list[UInt8[Tensor, "3 _height _width"]],
    test: SegmentationTestConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    precision: Arithmetic = "fp32",
) -> Iterator[tuple[list[int], Float[Tensor, "batch label height width"]]]:
    """Yield images' positions and label probabilities, averaged over scales and mirror images.

    At each scale (PIL's bicubic filter) logits are enlarged bilinearly to the image's own size before the softmax.
    With a window they are averaged where windows overlap, at the scaled image's size. Images of one size run
    together, `test.batch_size` at a time (8 where it is open), and come one batch after the other: the probabilities
    of a whole shard of 640x480 pixels and 81 labels would take 6 GB. Probabilities are computed in float32.

    Args:
        network: a final network (`segmentation_network.SegmentationNetwork`); it runs on the device of its parameters,
            in eval mode, and is left as it was.
        images: RGB pixels.
        test: scales, mirror images, window, batch size.
        mean: of the network's normalisation, on the 0-1 scale.
        std: of the network's normalisation, on the 0-1 scale.
        precision: what the network computes in; its weights stay as they are.

    Yields:
        Positions in `images` of a batch, each once and not in order; probabilities on the network's device that add up
        to 1 over the network's labels.

    Raises:
        ModelError: when the network's response is not finite.
    """
    device = device_of(network)
    for positions in batches_of_one_size(images, test.batch_size or SEGMENTED_AT_ONCE.on_cpu):
        pixels = upload(torch.stack([images[position] for position in positions]), device)
        # Not around the yield, which would leave the caller in inference mode.
        with inference(network), autocast(precision, device):
            found = _probabilities(network, pixels, test, mean, std)
        yield positions, found


def settings_of_predictions(test: SegmentationTestConfig, gpus: float) -> dict[str, Any]:
    """Return the settings that predictions depend on besides their inputs, in an actor with so many GPUs."""
    shaping = {name: value for name, value in plain(test).items() if name not in ("batch_size", "precision")}
    return shaping | recorded(test.arithmetic(gpus))


def as_class_maps(image_id: str, probabilities: Float[Tensor, "label height width"], border: float = HALF) -> ImageCam:
    """Return label probabilities as class maps whose label map at the border is their argmax.

    Args:
        image_id: the manifest's image identifier.
        probabilities: background first, where there is one; they need not add up to 1.
        border: `HALF`, or `NO_BACKGROUND` where the first label is no background: then the maps are the probabilities.
    """
    maps = probabilities.float() if border == NO_BACKGROUND else foreground_shares(probabilities)
    return ImageCam(image_id, tuple(range(len(maps))), maps, None, *probabilities.shape[1:])


def crf_probabilities(
    images: UInt8[Tensor, "batch 3 height width"],
    probabilities: Float[Tensor, "batch label height width"],
    crf: CrfConfig,
    border: float = HALF,
) -> Float[Tensor, "batch label height width"]:
    """Return label probabilities after a dense CRF over the labels that can win.

    These are the background and every label that is foremost at some pixel or reaches `CRF_MIN_PROBABILITY` there;
    the others get 0. Time grows with the number of labels, and an image has few of them. Images with as many labels
    run together.

    Args:
        images: RGB.
        probabilities: background first, where there is one.
        crf: kernels, and what the CRF starts from: the label map, or the probabilities.
        border: see `as_class_maps`.

    Raises:
        ModelError: when a probability is not finite.
    """
    foremost = probabilities.argmax(1)  # (batch, height, width)
    can_win = probabilities.flatten(2).amax(2) > CRF_MIN_PROBABILITY  # (batch, label)
    can_win.scatter_(1, foremost.flatten(1), value=True)
    if border != NO_BACKGROUND:
        can_win[:, BACKGROUND_VALUE] = True
    numbers = (can_win.cumsum(1) - 1).gather(1, foremost.flatten(1)).view_as(foremost)  # among those that can win
    refined = torch.zeros_like(probabilities, dtype=torch.float32)
    device = probabilities.device
    images = upload(images, device)
    groups: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)  # number of labels -> images and their labels
    for position, wins in enumerate(can_win.tolist()):
        labels_of_image = [label for label, is_winner in enumerate(wins) if is_winner]
        groups[len(labels_of_image)].append((position, labels_of_image))
    for num_labels, members in groups.items():
        at = upload(torch.tensor([[position] for position, _ in members]), device)  # (image, 1)
        labels = upload(torch.tensor([own for _, own in members]), device)  # (image, label)
        match crf.unary:
            case "softmax":
                energies = probability_energy(probabilities[at, labels])
            case "label":
                energies = label_energy(numbers[at[:, 0]], num_labels, crf.label_confidence)
        refined[at, labels] = dense_crf(images[at[:, 0]], energies, crf)
    return refined


def _probabilities(
    network: nn.Module,
    pixels: UInt8[Tensor, "batch 3 height width"],
    test: SegmentationTestConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "batch label height width"]:
    height, width = int(pixels.shape[2]), int(pixels.shape[3])
    shift, spread = (constant(values, pixels.device)[:, None, None] for values in (mean, std))
    total: Tensor | None = None
    are_finite = []
    for scale in test.scales:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = (resize_like_pil(pixels.float(), size) / 255 - shift) / spread
        for is_mirrored in (False, True) if test.flip else (False,):
            scores = _scores(network, scaled.flip(3) if is_mirrored else scaled, test.window_px)
            are_finite.append(torch.isfinite(scores).all())
            if is_mirrored:
                scores = scores.flip(3)
            found = _enlarged(scores, (height, width)).softmax(1)
            total = found if total is None else total.add_(found)
    assert total is not None
    if not bool(torch.stack(are_finite).all()):  # read once: each look waits for a GPU
        raise ModelError(
            "the final network's scores are not finite: its training diverged; lower segmentation.optim.lr, or clip "
            "gradients with segmentation.optim.clip_grad_norm. Or they exceed the range of fp16, where it computes in "
            "that: set segmentation.test.precision to bf16 or fp32"
        )
    return total / (len(test.scales) * (2 if test.flip else 1))


def _scores(
    network: nn.Module, image: Float[Tensor, "batch 3 height width"], window_px: int
) -> Float[Tensor, "batch label _ _"]:
    """Return the network's scores at its own resolution, or at the image's where it sees a window at a time."""
    height, width = int(image.shape[2]), int(image.shape[3])
    if window_px == 0 or max(height, width) <= window_px:
        return network(image).float()
    total: Tensor | None = None
    counts = image.new_zeros(height, width)
    for rows in _windows(height, window_px):
        for columns in _windows(width, window_px):
            part = image[:, :, rows, columns]
            scores = _enlarged(network(part).float(), (part.shape[2], part.shape[3]))
            if total is None:
                total = scores.new_zeros(*scores.shape[:2], height, width)
            total[:, :, rows, columns] += scores
            counts[rows, columns] += 1
    assert total is not None
    return total / counts


def _windows(length: int, window_px: int) -> Iterator[slice]:
    """Yield windows of one size that overlap by half; the last one ends at the edge and may overlap more."""
    side = min(window_px, length)
    for start in (*range(0, length - side, max(1, side // 2)), length - side):
        yield slice(start, start + side)


def _enlarged(
    scores: Float[Tensor, "batch label _ _"], size: tuple[int, int]
) -> Float[Tensor, "batch label height width"]:
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)
