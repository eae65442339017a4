"""CAMs, by a network in a pool of actors, or brought from elsewhere."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import TypeAdapter

from qaclims_ray.cams.config import RESOURCE_FIELDS, CamConfig
from qaclims_ray.cams.inference import CAMS_AT_ONCE, ImageCam, compute_cams
from qaclims_ray.cams.store import as_stored, write_cam_shard
from qaclims_ray.cluster.shards import as_it_is, run_shards
from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.images import Rgb, load_image
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import finished_shards, plan_fingerprint, shard_name, shards_of
from qaclims_ray.data.validation import fail_on
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.methods.method import CamNetwork, CamWork, FrozenNetwork, MakeCams, Method, Sources, Trained
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.devices import BatchSize, device_of_worker
from qaclims_ray.models.precision import recorded
from qaclims_ray.models.weights import weights_fingerprint
from qaclims_ray.stages.layout import network_uri_of
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.recipe import clip_files, recipe_of
from qaclims_ray.systems.table import system_of
from qaclims_ray.text.bank import require_bank

_STORING = ("store", "grid_stride", "dtype")
"""Settings of CAMs that say what is kept of maps, whoever makes them."""


@dataclasses.dataclass(frozen=True)
class ComputedShard:
    """The CAMs of a shard, to be written."""

    index: int
    """Which shard."""
    cams: list[ImageCam]
    """Of its readable images, in their stored type."""
    errors: list[str]
    """What is wrong with the others."""
    remark: str
    """See `run_shards`."""


@dataclasses.dataclass(frozen=True)
class LoadMaskGenerator:
    """Loads a trained network, in the process that computes."""

    uri: str
    """Its folder."""
    mean: Rgb
    """Of its normalisation."""
    std: Rgb
    """Of its normalisation."""

    def __call__(self, device: torch.device) -> CamNetwork:
        """Load it."""
        # Here, since planning a stage needs no network.
        from qaclims_ray.models.folding import for_inference
        from qaclims_ray.models.generators.mask_generator import load_mask_generator

        with whole_files.whole_copy(self.uri) as folder:
            return CamNetwork(for_inference(load_mask_generator(folder), device), self.mean, self.std)


class CamActor:
    """Hold a network that makes CAMs; compute one decoded shard."""

    def __init__(self, load: Callable[[torch.device], CamNetwork | MakeCams], config: CamConfig) -> None:
        torch.set_num_threads(1)
        device = device_of_worker(config.gpus_per_actor)
        loaded = load(device)
        self.make = functools.partial(_multi_scale, loaded) if isinstance(loaded, CamNetwork) else loaded
        self.config = config
        size = CAMS_AT_ONCE.chosen(config.batch_size, device, config.gpus_per_actor)
        self.at_once = BatchSize(size, "cams.batch_size")

    def __call__(self, shard: tuple[int, list[tuple[ImageRecord, Any]]]) -> ComputedShard:
        """Return what is to be written of the shard."""
        index, decoded = shard
        good = [(record, image) for record, image in decoded if not isinstance(image, DataError)]
        cams = self.at_once.run(
            lambda batch_size: self.make(
                [image for _, image in good],
                [record.labels for record, _ in good],
                [record.image_id for record, _ in good],
                dataclasses.replace(self.config, batch_size=batch_size),
            )
        )
        return ComputedShard(
            index,
            [as_stored(cam, self.config.dtype) for cam in cams],
            [str(image) for _, image in decoded if isinstance(image, DataError)],
            self.at_once.remark,
        )


def _multi_scale(
    loaded: CamNetwork,
    images: Sequence[Any],
    class_ids: Sequence[tuple[int, ...]],
    image_ids: Sequence[str],
    config: CamConfig,
) -> list[ImageCam]:
    network, mean, std = loaded
    return compute_cams(
        network, list(images), list(class_ids), list(image_ids), config, mean, std, precision=config.arithmetic
    )


def write_cams(shard: ComputedShard, *, uri: str, dtype: Literal["float16", "float32"]) -> dict[str, Any]:
    """Publish a shard's CAMs, and the errors of its bad images."""
    noted = storage.join(uri, errors_name(shard.index))
    storage.remove_tree(noted)  # of an attempt that was killed here
    if shard.errors:  # before the shard, which declares both whole
        storage.write_bytes(noted, json.dumps(shard.errors).encode())
    write_cam_shard(storage.join(uri, shard_name(shard.index)), shard.cams, dtype)
    return {"images": len(shard.cams), "remark": shard.remark}


def errors_name(index: int) -> str:
    """Return the file name of what is wrong with a shard's bad images, where it has any."""
    return f"errors-{index:05d}.json"


def run_cams(stage: Stage, system: str, manifest: Manifest) -> ArtifactMeta:
    """Make the CAMs of a system over the manifest's images; finished shards are kept.

    Raises:
        DataError: when more than `cams.max_failed_fraction` of the images cannot be read, or given CAMs do not fit.
        ArtifactError: when the system's network is not trained.
    """
    method = method_of(system_of(stage.config, system).method)
    uri = stage.layout.cams(system)
    if method.cam_work is not None:
        return import_cams_of(stage, method, uri, manifest, label=system)
    config, source = stage.config.cams, _network_of(stage, system, method, manifest)
    artifact = Artifact(
        uri=uri,
        kind="cams",
        settings={
            **settings_of_maps(config, source),
            **recorded(config.arithmetic),
            **source.settings,
        },
        inputs={**source.inputs, "manifest": plan_fingerprint(manifest, manifest.images_fingerprint())},
        verb="cams",
    )

    def work() -> dict[str, Any]:
        shards = shards_of(manifest)
        run_shards(
            list(enumerate(shards)),
            finished=finished_shards(artifact, len(shards)),
            decode=decode_images,
            actor=CamActor,
            actor_kwargs={"load": source.load, "config": config},
            write=functools.partial(write_cams, uri=artifact.workshop, dtype=config.dtype),
            num_actors=stage.room.actors(config.num_actors, config.gpus_per_actor),
            gpus_per_actor=config.gpus_per_actor,
            progress=stage.progress.advance,
        )
        errors = _errors_of(artifact.workshop, len(shards), config.max_failed_fraction * len(manifest.records))
        return {"images": len(manifest.records) - len(errors), "errors": errors[:20]}

    def describe(meta: ArtifactMeta) -> str:
        return f"{meta.summary.get('images')} images"

    return stage.make(artifact, f"CAMs of {system}", work, describe, goes_on=True)


def settings_of_maps(config: CamConfig, source: FrozenNetwork) -> dict[str, Any]:
    """Return the settings that maps depend on; what makes them by itself knows of those about storing alone."""
    values = {name: value for name, value in plain(config).items() if name not in (*RESOURCE_FIELDS, "precision")}
    return {name: values[name] for name in _STORING} if source.makes_cams else values


def _network_of(stage: Stage, system: str, method: Method, manifest: Manifest) -> FrozenNetwork:
    """Return what computes a system's CAMs: the network that was trained for it, or one that needs no training.

    Raises:
        ArtifactError: when the network is not trained, or the texts are not there.
    """
    config, layout = stage.config, stage.layout
    if method.frozen is None:
        uri, net = network_uri_of(layout, system, method), config.cam_net
        trained = artifacts.require_artifact(uri, method.kind, verb="train")
        load = LoadMaskGenerator(uri, net.image_mean, net.image_std)
        return FrozenNetwork(settings={}, inputs={"network": trained.fingerprint}, load=load)
    clip, texts = weights_fingerprint(*clip_files(config)) if method.uses_clip else "", None
    if method.uses_texts:
        texts = Trained(uri := layout.text_bank(system), require_bank(uri).fingerprint)
    sources = Sources(manifest="", class_names=tuple(manifest.class_names), clip=clip, texts=texts)
    return method.frozen(recipe_of(config, method), sources)


def import_cams_of(stage: Stage, method: Method, uri: str, manifest: Manifest, *, label: str) -> ArtifactMeta:
    """Make the CAMs of a method that brings them without a network of the run; finished shards are kept.

    Args:
        stage: surroundings.
        method: whose `cam_work` it is.
        uri: where they go.
        manifest: the images.
        label: name on the console.

    Raises:
        ConfigError: when the source is the folder that is written.
        DataError: one report of all that is wrong with the source.
        ArtifactError: when a shard of another run cannot be read.
    """
    assert method.cam_work is not None
    work = method.cam_work(recipe_of(stage.config, method), manifest)
    artifact = cam_artifact(uri, work)
    if storage.absolute(work.source).rstrip("/") == artifact.uri.rstrip("/"):
        raise ConfigError(f"given.cams is {work.source}, which this run writes itself; give another folder")

    def make() -> dict[str, Any]:
        shards, files = shards_of(manifest), work.files_of()
        summaries = run_shards(
            [
                (index, shard, {r.image_id: files[r.image_id] for r in shard if r.image_id in files})
                for index, shard in enumerate(shards)
            ],
            finished=finished_shards(artifact, len(shards)),
            decode=as_it_is,
            actor=work.actor,
            actor_kwargs={**work.actor_kwargs, "uri": artifact.workshop},
            num_actors=stage.room.actors(stage.config.cams.num_actors),
            progress=stage.progress.advance,
        )
        fail_on([fault for summary in summaries for fault in summary["faults"]], work.source)
        return {"images": len(manifest.records), "given": work.source}

    def describe(meta: ArtifactMeta) -> str:
        return f"{meta.summary.get('images')} images of {work.source}"

    return stage.make(artifact, f"CAMs given for {label}", make, describe, goes_on=True)


def cam_artifact(uri: str, work: CamWork) -> Artifact:
    """Return the artefact of CAMs that a method brings."""
    return Artifact(uri=uri, kind="cams", settings=work.settings, inputs=work.inputs, verb="cams")


def _errors_of(uri: str, num_shards: int, num_allowed: float) -> list[str]:
    """Return what is wrong with the bad images of all shards, those of earlier attempts included.

    Raises:
        DataError: when there are too many; their shards are forgotten, so that mended images are read again.
    """
    files = {index: storage.join(uri, errors_name(index)) for index in range(num_shards)}
    remedy = f"Remove {uri} and run the same command again, which makes it anew"
    found = {
        i: read_json_file(file, TypeAdapter(list[str]).validate_python, remedy=remedy)
        for i, file in files.items()
        if storage.exists(file)
    }
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
