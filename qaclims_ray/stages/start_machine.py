"""What this machine offers to a run that `qaclims start` chooses: cores, memory, GPUs, weights that are here."""

import os
from dataclasses import dataclass

import psutil

from qaclims_ray.models.known_weights import weight_named, weights_folder
from qaclims_ray.stages.local_weights import LocalBackbone, LocalClip, local_backbones, local_clip


@dataclass(frozen=True)
class Machine:
    """This machine."""

    cores: int
    """Cores that this process may use."""
    memory_gib: float
    """Free memory."""
    gpus: tuple[str, ...]
    """Names of the GPUs that PyTorch sees."""
    gpu_gib: float
    """Memory of the first of them."""
    backbones: tuple[LocalBackbone, ...]
    """Small networks whose weights are here, the best first."""
    clip: LocalClip | None = None
    """A CLIP whose weights are here."""

    def lines(self, *, with_weights: bool = True) -> list[str]:
        """Return what a person should know of it, and of the weights that it has where none are named."""
        gpus = f"{len(self.gpus)} GPUs ({self.gpus[0]}, {self.gpu_gib:.0f} GiB)" if self.gpus else "no GPU"
        lines = [f"{self.cores} cores, {self.memory_gib:.0f} GiB of free memory, {gpus}"]
        if not with_weights:
            return lines
        for one in self.backbones:
            weight = weight_named(one.weight)
            licence = f"; licence {weight.licence}; {weight.users}" if weight is not None else ""
            lines.append(f"weights that are here: {one.small.backbone}, {one.path}{licence}")
        if self.clip is not None:
            lines.append(f"weights that are here: {self.clip.model} (CLIP), {self.clip.path}")
        if not self.backbones:
            lines.append(
                f"no weights of a small network are here ({weights_folder()} and the caches of the Hugging Face hub "
                "and torch hub were looked through)"
            )
        return lines


def this_machine() -> Machine:
    """Look at this machine; no network is asked."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Machine(
        cores=cores,
        memory_gib=psutil.virtual_memory().available / 2**30,
        gpus=tuple(torch.cuda.get_device_name(index) for index in range(count)),
        gpu_gib=torch.cuda.get_device_properties(0).total_memory / 2**30 if count else 0.0,
        backbones=tuple(local_backbones()),
        clip=local_clip(),
    )
