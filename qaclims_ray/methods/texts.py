"""The texts of pairs, which QA-CLIMS and CLIMS contrast regions with, and whether they belong to a training."""

from typing import Any, Protocol, runtime_checkable

import torch

from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ArtifactError
from qaclims_ray.methods.region_features import RegionEncoder

_PAIRS_PER_LOOKUP = 512


@runtime_checkable
class TextSource(Protocol):
    """The texts of pairs (`text.bank.TextBank`)."""

    def lookup(self, image_ids: list[str], class_ids: list[int]) -> Any:
        """Return foreground, background, is_background and has_background of pairs."""
        ...


def check_texts(bank: TextSource, clip: RegionEncoder, manifest: Manifest, device: torch.device) -> None:
    """Fail before the first step when a pair has no texts, or texts and regions come from different CLIPs."""
    pairs = [(record.image_id, class_id) for record in manifest.records for class_id in record.labels]
    for start in range(0, len(pairs), _PAIRS_PER_LOOKUP):
        image_ids, class_ids = zip(*pairs[start : start + _PAIRS_PER_LOOKUP], strict=True)
        texts = bank.lookup(list(image_ids), list(class_ids))
        if start:  # all texts of a bank have one width, so one probe of CLIP is enough
            continue
        with torch.no_grad():
            probe = clip.encode_regions(torch.zeros(1, 3, clip.image_size, clip.image_size, device=device))
        if probe.shape[1] != texts.foreground.shape[1]:
            raise ArtifactError(
                f"the text bank has {texts.foreground.shape[1]} dimensions, this CLIP's regions {probe.shape[1]}: it "
                "was built with another CLIP. Rebuild it with `qaclims text`"
            )
