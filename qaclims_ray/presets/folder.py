"""Complete runs on a folder of one's own photographs with tags: no masks are needed anywhere, and no GPU.

`qaclims start DIR` writes a file of such a run with what suits the photographs and the machine.
"""

from dataclasses import replace

from qaclims_ray.data.config import ALL_IMAGES, DataConfig
from qaclims_ray.presets.option import Base, Option, published
from qaclims_ray.presets.small import LITE2, LOCAL, MOBILENET_OF_TIMM, on_a_small_network
from qaclims_ray.run_config import RunConfig, with_overrides

CONFIDENT = 0.25
"""Share of the chosen threshold that confident seeds keep away from it: what VOC's small presets have at theirs."""


def folder() -> RunConfig:
    """The baseline on a folder of your own photographs with tags, up to a small final network, without a GPU.

    `qaclims run folder --data-root DIR --out runs/mine`. Tags in any form of docs/data_sets.md. The classifier's
    maps go through IRN and a CRF; the final network learns from these masks. Downloads timm's weights of an
    EfficientNet-Lite2 (25 MB) unless they are there; `folder-no-download` takes what is there. Some images are held out
    (`data.held_out_share`), pseudo masks are made of all. Nobody knows its mIoU on your photographs; on 180 of VOC:
    docs/results/voc_sample.md.
    """
    base = RunConfig(name="folder", data=DataConfig(dataset="folder", eval_split=ALL_IMAGES))
    small = on_a_small_network(base, LITE2)
    irn = replace(small.masks.irn, around_seed=CONFIDENT)
    masks = replace(small.masks, steps=("irn", "crf"), seed_threshold="auto", irn=irn)
    return replace(small, goal="segmentation", masks=masks)


def mobilenet_in_folder(config: RunConfig) -> RunConfig:
    """A MobileNetV2: half the work of the EfficientNet-Lite2, and less good."""
    return with_overrides(config, MOBILENET_OF_TIMM.settings(weights="timm"))


def no_download(config: RunConfig) -> RunConfig:
    """Weights that lie on this machine, whichever small network they are for; at random where none do."""
    return with_overrides(config, {"cam_net.weights": LOCAL})


_PUBLISHED = (
    published(
        "folder-no-download",
        "folder no-download",
        """As `folder`, with weights that lie on this machine; where none do, the result is poor, and it says so.

    Looked for in the folder that QACLIMS_WEIGHTS names (~/.cache/qaclims_ray/weights), and in the caches of the Hugging
    Face hub and torch hub; `--cam-net.weights FILE` names another file.
    """,
    ),
)
FOLDER = Base(
    folder,
    options=(
        Option("mobilenet", "final network", mobilenet_in_folder),
        Option("no-download", "weights", no_download),
    ),
    published=_PUBLISHED,
)
