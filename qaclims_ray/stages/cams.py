"""Stage 6: CAMs of the scored images, by an actor pool on Ray Data."""

import json
from collections.abc import Callable
from typing import Any

import torch

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.cams.store import write_cam_shard
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import DataError
from qaclims_ray.models.generators.mask_generator import load_mask_generator
from qaclims_ray.stages.stage import Stage, current

Rgb = tuple[float, float, float]
IMAGES_PER_SHARD = 64
RESOURCE_FIELDS = ("num_actors", "gpus_per_actor", "batch_size", "max_failed_fraction")


class CamActor:
    """Hold a CAM network; compute one decoded shard and publish its file."""

    def __init__(self, network_uri: str, config: CamConfig, mean: Rgb, std: Rgb, uri: str) -> None:
        torch.set_num_threads(1)
        device = torch.device("cuda" if config.gpus_per_actor > 0 else "cpu")
        with storage.local_copy(network_uri) as folder:
            self.network = load_mask_generator(folder, device).eval()
        self.config, self.mean, self.std, self.uri = config, mean, std, uri

    def __call__(self, shard: tuple[int, list[tuple[ImageRecord, Any]]]) -> dict[str, Any]:
        """Return the shard's counts and the errors of its bad images."""
        index, decoded = shard
        good = [(record, image) for record, image in decoded if not isinstance(image, DataError)]
        cams = compute_cams(
            self.network,
            [image for _, image in good],
            [record.labels for record, _ in good],
            [record.image_id for record, _ in good],
            self.config,
            self.mean,
            self.std,
        )
        errors = [str(image) for _, image in decoded if isinstance(image, DataError)]
        noted = storage.join(self.uri, errors_name(index))
        storage.remove_tree(noted)  # of an attempt that was killed here
        if errors:  # before the shard, which declares both whole
            storage.write_bytes(noted, json.dumps(errors).encode())
        write_cam_shard(storage.join(self.uri, shard_name(index)), cams, self.config.dtype)
        return {"images": len(good)}


def shards_of(manifest: Manifest) -> list[list[ImageRecord]]:
    """Cut a manifest into shards; an image without labels is scored too, as background."""
    records = list(manifest.records)
    return [records[start : start + IMAGES_PER_SHARD] for start in range(0, len(records), IMAGES_PER_SHARD)]


def shard_name(index: int) -> str:
    """Return the file name of a shard of CAMs."""
    return f"part-{index:05d}.parquet"


def errors_name(index: int) -> str:
    """Return the file name of what is wrong with a shard's bad images, where it has any."""
    return f"errors-{index:05d}.json"


def unfinished_shards(
    uri: str, fingerprint: str, shards: list[list[ImageRecord]], name_of: Callable[[int], str] = shard_name
) -> list[tuple[int, list[ImageRecord]]]:
    """Return the shards that are not there yet; what was made with another fingerprint is removed.

    Args:
        uri: folder of the artefact.
        fingerprint: that it will carry.
        shards: all of them.
        name_of: the file, below the folder, that declares a shard whole.
    """
    partial = storage.join(uri, f"plan-{fingerprint}")
    if not storage.exists(partial):
        storage.remove_tree(uri)
        storage.write_bytes(partial, b"")
    return [(i, shard) for i, shard in enumerate(shards) if not storage.exists(storage.join(uri, name_of(i)))]


def run_cams(stage: Stage, network_uri: str, network_kind: str, cams_uri: str, manifest: Manifest) -> ArtifactMeta:
    """Compute the CAMs of a network over the manifest's images; finished shards are kept.

    Raises:
        DataError: when more than `cams.max_failed_fraction` of the images cannot be read.
    """
    config = stage.config.cams
    stage.progress.start(f"CAMs of {cams_uri.rsplit('/', 1)[-1]}")
    network = artifacts.require(network_uri, network_kind, verb="train")
    settings = {k: v for k, v in artifacts.plain(config).items() if k not in (*RESOURCE_FIELDS, "given")}
    inputs = {"network": network.fingerprint, "manifest": manifest.fingerprint()}
    if meta := current(cams_uri, "cams", settings, inputs):
        stage.progress.finish(f"{meta.summary.get('images')} images (there already)", is_new=False)
        return meta
    fingerprint = artifacts.expected_fingerprint("cams", settings, inputs)
    shards = shards_of(manifest)
    todo = unfinished_shards(cams_uri, fingerprint, shards)
    net = stage.config.cam_net
    run_shards(
        todo,
        decode=decode_images,
        actor=CamActor,
        actor_kwargs={
            "network_uri": network_uri,
            "config": config,
            "mean": net.image_mean,
            "std": net.image_std,
            "uri": cams_uri,
        },
        num_actors=min(config.num_actors, max(len(todo), 1)),
        gpus_per_actor=config.gpus_per_actor,
        progress=lambda done, _: stage.progress.advance(len(shards) - len(todo) + done, len(shards)),
    )
    errors = _errors_of(cams_uri, len(shards), config.max_failed_fraction * len(manifest.records))
    summary = {"images": len(manifest.records) - len(errors), "errors": errors[:20]}
    meta = artifacts.write_meta(cams_uri, "cams", settings, inputs, summary)
    stage.progress.finish(f"{summary['images']} images in {len(shards)} shards -> {cams_uri}")
    return meta


def _errors_of(uri: str, num_shards: int, num_allowed: float) -> list[str]:
    """Return what is wrong with the bad images of all shards, those of earlier attempts included.

    Raises:
        DataError: when there are too many; their shards are forgotten, so that mended images are read again.
    """
    files = {index: storage.join(uri, errors_name(index)) for index in range(num_shards)}
    found = {index: json.loads(storage.read_bytes(file)) for index, file in files.items() if storage.exists(file)}
    errors = [error for index in found for error in found[index]]
    if len(errors) <= num_allowed:
        return errors
    for index in found:
        storage.remove_tree(storage.join(uri, shard_name(index)))
        storage.remove_tree(files[index])
    raise DataError(f"{len(errors)} images cannot be read: " + "; ".join(errors[:5]))


def decode_images(shard: tuple[int, list[ImageRecord]]) -> tuple[int, list[tuple[ImageRecord, Any]]]:
    """Read a shard's images; an unreadable one becomes its error."""
    index, records = shard
    decoded: list[tuple[ImageRecord, Any]] = []
    for record in records:
        try:
            decoded.append((record, load_image(record.image_uri)))
        except DataError as error:
            decoded.append((record, error))
    return index, decoded
