"""Rates a mask generator by CLIP: how much more foreground regions look like their class than background regions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.methods.region_features import RegionEncoder, RegionOptions, region_features
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.training.context import WorkerContext, all_reduce_sum

_IMAGES_PER_PASS = 16


@torch.no_grad()
def clip_score(
    network: nn.Module,
    dataset: ImageLabelDataset,
    *,
    clip: RegionEncoder,
    class_texts: Float[Tensor, "class dim"],
    options: RegionOptions,
    cam_net: CamNetConfig,
    num_images: int,
    context: WorkerContext,
) -> float:
    """Return how much more the foreground regions look like their classes to CLIP than the background regions do.

    The mean of s(v_f, u_f) - s(v_b, u_f) over the pairs of some training images, each seen as its crop of epoch 0. It
    needs image-level labels only.

    Args:
        network: unwrapped mask generator.
        dataset: training images.
        clip: frozen CLIP.
        class_texts: u_f, text of every class.
        options: how maps become regions.
        cam_net: normalisation of the images.
        num_images: so many images, evenly spread over the data set.
        context: this worker; each rates a share of the images.
    """
    count = min(num_images, len(dataset))
    chosen = [position * len(dataset) // count for position in range(count)]
    share = Subset(dataset, chosen[context.rank :: context.world_size])
    dataset.set_epoch(0)
    was_training = network.training
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=context.device)
    for batch in DataLoader(share, batch_size=_IMAGES_PER_PASS):
        present = batch["labels"].nonzero()  # (pair, 2)
        if not len(present):
            continue
        image = batch["image"].to(context.device)
        position, class_id = present.to(context.device).unbind(dim=1)
        found = region_features(network(image), image, position, class_id, clip=clip, options=options, cam_net=cam_net)
        gaps = ((found.foreground - found.background) * class_texts[class_id]).sum(dim=1)
        sums += torch.stack([gaps.double().sum(), torch.tensor(len(gaps), device=gaps.device).double()])
    network.train(was_training)
    total, num_pairs = all_reduce_sum(sums).tolist()
    return total / max(num_pairs, 1.0)
