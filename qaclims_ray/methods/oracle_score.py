"""Rates a mask generator against pixel labels, as the released codes do; every table says so (row S15)."""

import torch
from torch import nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.data.images import load_image, load_mask
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.training.context import WorkerContext, all_reduce_sum


def oracle_score(
    network: nn.Module,
    *,
    manifest: Manifest,
    cam_net: CamNetConfig,
    cams: CamConfig,
    evaluation: EvaluationConfig,
    num_images: int,
    context: WorkerContext,
) -> float:
    """Return the mIoU at the best threshold over scored images that have a mask: it uses pixel labels.

    Args:
        network: unwrapped mask generator.
        manifest: scored images; some have a mask.
        cam_net: normalisation of the images.
        cams: CAM inference.
        evaluation: thresholds.
        num_images: so many of them, evenly spread.
        context: this worker; each scores a share of the images.
    """
    with_mask = [record for record in manifest.records if record.mask_uri]
    count = min(num_images, len(with_mask))
    records = [with_mask[position * len(with_mask) // count] for position in range(count)]
    thresholds = sweep_thresholds(evaluation, has_background=manifest.has_background)
    num_classes = len(manifest.class_names)
    sweep = ThresholdSweep(thresholds, num_classes)
    for record in records[context.rank :: context.world_size]:
        images, labels, ids = [load_image(record.image_uri)], [record.labels], [record.image_id]
        cam = compute_cams(network, images, labels, ids, cams, cam_net.image_mean, cam_net.image_std)[0]
        assert record.mask_uri is not None
        sweep.update(cam, load_mask(record.mask_uri))
    counts = all_reduce_sum(torch.as_tensor(sweep.to_array()).to(context.device)).cpu().numpy()
    merged = ThresholdSweep.from_array(counts, thresholds, num_classes)
    return seed_scores(merged, evaluation.fixed_threshold, manifest.class_names).miou_best
