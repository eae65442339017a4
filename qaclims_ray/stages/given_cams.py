"""CAMs made elsewhere become an artefact of the run: to be scored, and to learn prompts from (row S22)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard, write_cam_shard
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.validation import Fault, fail_on
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.given.files import files_by_image, given_files, given_fingerprint, import_cams
from qaclims_ray.stages.cams import IMAGES_PER_SHARD, shard_name, shards_of, unfinished_shards
from qaclims_ray.stages.stage import Stage, current

KIND = "cams"


class ImportActor:
    """Convert one shard of given CAMs and publish its file."""

    def __init__(self, config: CamConfig, num_classes: int, uri: str) -> None:
        self.config, self.num_classes, self.uri = config, num_classes, uri

    def __call__(self, shard: tuple[int, list[ImageRecord], dict[str, str]]) -> dict[str, list[Fault]]:
        """Return what is wrong with the shard's maps; then it is not written."""
        index, records, files = shard
        cams, faults = import_cams(records, files, self.num_classes, self.config)
        if not faults:
            write_cam_shard(storage.join(self.uri, shard_name(index)), cams, self.config.dtype)
        return {"faults": faults}


def _identity(config: CamConfig, manifest: Manifest) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings and inputs in the fingerprint of imported CAMs.

    Raises:
        DataError: when nothing is given.
        ArtifactError: when the folder holds something else.
    """
    given_files(config.given)
    settings = {"store": config.store, "grid_stride": config.grid_stride, "dtype": config.dtype}
    return settings, {"given": given_fingerprint(config.given), "manifest": manifest.fingerprint()}


def run_given_cams(stage: Stage, cams_uri: str, manifest: Manifest, *, label: str) -> ArtifactMeta:
    """Import the given CAMs of a manifest's images; finished shards are kept.

    Args:
        stage: surroundings; `cams.given` says where the CAMs are.
        cams_uri: where they go.
        manifest: the images.
        label: name on the console.

    Raises:
        ConfigError: when the given folder is the one that is written.
        DataError: one report of all that is wrong with the given CAMs.
        ArtifactError: when a shard of another run cannot be read.
    """
    config = stage.config.cams
    stage.progress.start(f"CAMs given for {label}")
    if storage.absolute(config.given).rstrip("/") == cams_uri.rstrip("/"):
        raise ConfigError(f"cams.given is {config.given}, which this run writes itself; give another folder")
    settings, inputs = _identity(config, manifest)
    if meta := current(cams_uri, KIND, settings, inputs):
        stage.progress.finish(f"{meta.summary.get('images')} images (there already)", is_new=False)
        return meta
    shards = shards_of(manifest)
    todo = unfinished_shards(cams_uri, artifacts.expected_fingerprint(KIND, settings, inputs), shards)
    files = files_by_image(given_files(config.given))
    summaries = run_shards(
        [(i, shard, {r.image_id: files[r.image_id] for r in shard if r.image_id in files}) for i, shard in todo],
        decode=_as_it_is,
        actor=ImportActor,
        actor_kwargs={"config": config, "num_classes": len(manifest.class_names), "uri": cams_uri},
        num_actors=min(config.num_actors, max(len(todo), 1)),
        gpus_per_actor=0,
        progress=lambda done, _: stage.progress.advance(len(shards) - len(todo) + done, len(shards)),
    )
    fail_on([fault for summary in summaries for fault in summary["faults"]], config.given)
    summary = {"images": len(manifest.records), "given": config.given}
    meta = artifacts.write_meta(cams_uri, KIND, settings, inputs, summary)
    stage.progress.finish(f"{len(manifest.records)} images of {config.given} -> {cams_uri}")
    return meta


def run_training_cams(stage: Stage, trained: Manifest, *, label: str) -> tuple[str, ArtifactMeta]:
    """Import the given CAMs of the training images, which need not be the scored ones; systems share them.

    Returns:
        Where they are, and their meta.

    Raises:
        DataError, ArtifactError: as `run_given_cams`.
    """
    fingerprint = artifacts.expected_fingerprint(KIND, *_identity(stage.config.cams, trained))
    uri = stage.layout.phase(f"{KIND}-{fingerprint}")
    return uri, run_given_cams(stage, uri, trained, label=f"training of {label}")


class StoredMaps:
    """The maps of single images out of a local artefact of CAMs; keeps the shard last read."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._shard, self._cams = -1, list[ImageCam]()

    def __call__(self, position: int) -> Float[Tensor, "class height width"]:
        """Return the maps of an image's labels, by the image's position in the manifest.

        Raises:
            ArtifactError: when the shard cannot be read.
        """
        shard, row = divmod(position, IMAGES_PER_SHARD)
        if shard != self._shard:
            self._shard, self._cams = shard, read_cam_shard(storage.join(self._folder, shard_name(shard)))
        cam = self._cams[row]
        maps = cam.full if cam.full is not None else cam.grid
        assert maps is not None
        return maps


def _as_it_is(shard: Any) -> Any:
    return shard
