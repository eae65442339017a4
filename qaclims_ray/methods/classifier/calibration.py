"""Calibration of a trained classifier: where a class's logits stand before text contrast starts.

A classifier trained through global average pooling may have positive logits nearly everywhere for a class that the
image shows. Their sigmoid then exceeds the adaptive threshold everywhere, the background region is empty, and some
classes never leave that state. An affine map of each class's logits gives a sparse start: the 75th percentile over
the pixels of the images that show the class becomes 0, the 95th 1.5. This step is not in the papers; it is off by
default.
"""

import copy

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from qaclims_ray.models.generators.cam_net import CamNet
from qaclims_ray.training.context import WorkerContext, gather_rows
from qaclims_ray.training.loop import TrainingImages

LOW_QUANTILE, HIGH_QUANTILE = 0.75, 0.95
HIGH_LOGIT = 1.5
"""Logit that the upper quantile is mapped to; the lower one becomes 0."""
_MIN_SPREAD = 1e-3
_VALUES_PER_PAIR = 256


def calibrate(
    network: CamNet, dataset: TrainingImages, *, batch_size: int, loader_workers: int, context: WorkerContext
) -> CamNet:
    """Return a copy of a network whose classifier maps each class's logits to a sparse start.

    Runs on every worker, each taking its share of the images; the result does not depend on their number. A class
    that no image shows stays as it is.

    Args:
        network: trained classifier; not changed.
        dataset: training images, seen as in epoch 0.
        batch_size: images in one forward pass of one worker.
        loader_workers: image loading processes.
        context: this worker.
    """
    dataset.set_epoch(0)
    share = Subset(dataset, range(context.rank, len(dataset), context.world_size))  # type: ignore[arg-type]
    loader = DataLoader(share, batch_size=batch_size, num_workers=loader_workers)
    classes, values = _present_logits(network, loader, context.device)
    # All workers' values together: a quantile cannot be put together from the workers' quantiles.
    table = gather_rows(torch.cat([classes[:, None].float(), values], dim=1), context)
    classes, values = table[:, 0].long(), table[:, 1:]
    scale, shift = affine_from_quantiles(classes, values, network.classifier.out_channels)
    return _with_affine(network, scale, shift)


def affine_from_quantiles(
    classes: Int[Tensor, " pair"], values: Float[Tensor, "pair pixel"], num_classes: int
) -> tuple[Float[Tensor, " class"], Float[Tensor, " class"]]:
    """Return the scale and shift that put each class's two quantiles where they should be.

    Args:
        classes: class of each pair.
        values: logits of the pair's class at pixels of its image.
        num_classes: K.
    """
    scale, shift = torch.ones(num_classes), torch.zeros(num_classes)
    for class_id in classes.unique().tolist():
        # numpy: torch.quantile refuses more than 2^24 values.
        low, high = np.quantile(values[classes == class_id].double().numpy(), [LOW_QUANTILE, HIGH_QUANTILE])
        scale[class_id] = HIGH_LOGIT / max(high - low, _MIN_SPREAD)
        shift[class_id] = -low * scale[class_id]
    return scale, shift


@torch.no_grad()
def _present_logits(network: CamNet, loader: DataLoader, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return class (pair) and logits (pair, pixel) of all present classes, at the same random pixels of each."""
    was_training = network.training
    network.eval()
    classes, values = [], []
    for batch in loader:
        logits = network(batch["image"].to(device)).flatten(2)  # (batch, class, pixel)
        pixels = torch.randperm(logits.shape[2], generator=torch.Generator().manual_seed(0))[:_VALUES_PER_PAIR]
        image, class_id = batch["labels"].nonzero(as_tuple=True)
        values.append(logits[image.to(device), class_id.to(device)].cpu()[:, pixels].float())
        classes.append(class_id)
    network.train(was_training)
    if not classes:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0)
    return torch.cat(classes), torch.cat(values)


def _with_affine(network: CamNet, scale: Tensor, shift: Tensor) -> CamNet:
    calibrated = copy.deepcopy(network)
    old = network.classifier
    new = nn.Conv2d(old.in_channels, old.out_channels, 1, device=old.weight.device, dtype=old.weight.dtype)
    scale, shift = scale.to(old.weight), shift.to(old.weight)
    with torch.no_grad():
        new.weight.copy_(old.weight * scale[:, None, None, None])
        assert new.bias is not None
        new.bias.copy_(shift if old.bias is None else old.bias * scale + shift)
    calibrated.classifier = new
    return calibrated
