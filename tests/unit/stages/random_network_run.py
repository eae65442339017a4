"""A finished run on disk whose final network is random, and so finds all classes."""

import json
from pathlib import Path

import torch

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, write_manifest
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.segmentation.networks.network import build_segmentation_network, save_segmentation_network
from qaclims_ray.stages.layout import RunLayout
from tests.finished_artifacts import finished


def write_run(folder: Path, class_names: tuple[str, ...]) -> None:
    """Write the run's settings, a manifest, and the network of the system qa_clims, which is its last."""
    config = with_overrides(
        preset("miniature"),
        {"segmentation.net.weights": "random", "segmentation.test.scales": [1.0, 0.75], "segmentation.test.flip": True},
    )
    layout = RunLayout(str(folder))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    records = (
        ImageRecord(image_id="a", image_uri="a.png", width=8, height=8, labels=(0,), mask_uri="", splits=("train",)),
    )
    write_manifest(Manifest(class_names, records), manifest_artifact(layout.manifest, {}))
    torch.manual_seed(0)
    network = build_segmentation_network(config.segmentation.net, len(class_names) + 1)
    save_segmentation_network(network, layout.segmentation("qa_clims"))
    finished(Artifact(uri=layout.segmentation("qa_clims"), kind="segmentation", settings={}, verb="segment"))
