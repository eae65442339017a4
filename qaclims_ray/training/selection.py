"""Which epoch's network a training ends with (row S15): the last one, unless a score says otherwise.

The released codes score every epoch against pixel labels and keep the best, which is an oracle. Here the last epoch
is the default, and there is a score that needs no label beyond those of the images.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from qaclims_ray.config import CamNetConfig
from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.training.context import WorkerContext, all_reduce_sum
from qaclims_ray.training.region_features import RegionEncoder, RegionOptions, region_features

Rate = Callable[[nn.Module], float]
"""Rates a mask generator, higher is better; runs on every worker and gives the same on all."""

SELECTED_DIR = "selected"
"""Folder of the best network so far in a checkpoint."""
LAST_DIR = "last"
"""Folder of the last epoch's network in a finished checkpoint that holds an earlier one."""
EPOCH_SCORE, BEST_SCORE = "selection/score", "selection/best"
"""Metrics: the score of the epoch, and the best so far."""
_IMAGES_PER_PASS = 16


class Selection:
    """The best network of a training so far, kept in every checkpoint; only rank 0 keeps files."""

    def __init__(self, score: Callable[[], float], save: Callable[[str], None]) -> None:
        self._score, self._save = score, save
        self._best = tempfile.TemporaryDirectory(prefix="qaclims-")

    def restore(self, folder: str) -> None:
        """Take over what a checkpoint holds."""
        shutil.copytree(Path(folder, SELECTED_DIR), self._best.name, dirs_exist_ok=True)

    def update(self, folder: str | None, best_so_far: float | None) -> dict[str, float]:
        """Rate the network after an epoch and put the best one into the epoch's checkpoint.

        Args:
            folder: checkpoint folder; None on workers that write none.
            best_so_far: best score before this epoch.

        Returns:
            The epoch's score and the best one, to be logged.
        """
        score = self._score()
        is_best = best_so_far is None or score > best_so_far
        if folder is not None:
            if is_best:
                self._save(self._best.name)
            shutil.copytree(self._best.name, Path(folder, SELECTED_DIR))
        best = score if best_so_far is None or is_best else best_so_far
        return {EPOCH_SCORE: score, BEST_SCORE: best}

    def carry(self, folder: str) -> None:
        """Put the best network into a checkpoint within an epoch."""
        shutil.copytree(self._best.name, Path(folder, SELECTED_DIR))

    def conclude(self, folder: str) -> None:
        """Make the best network the one that the finished checkpoint holds; the last one moves aside."""
        self._save(str(Path(folder, LAST_DIR)))
        shutil.copytree(self._best.name, folder, dirs_exist_ok=True)


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
