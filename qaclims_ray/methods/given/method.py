"""CAMs made elsewhere as a method: nothing is trained, maps are read, checked and brought to the form of our own."""

from typing import Any

from qaclims_ray.data import storage
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.given.config import GivenConfig
from qaclims_ray.methods.method import CamWork, Method, Recipe


class ImportActor:
    """Convert one shard of given CAMs and publish its file."""

    def __init__(self, config: Any, num_classes: int, uri: str) -> None:
        self.config, self.num_classes, self.uri = config, num_classes, uri

    def __call__(self, shard: tuple[int, list[ImageRecord], dict[str, str]]) -> dict[str, Any]:
        """Return what is wrong with the shard's maps; then it is not written."""
        from qaclims_ray.cams.store import write_cam_shard
        from qaclims_ray.data.shards import shard_name
        from qaclims_ray.methods.given.files import import_cams

        index, records, files = shard
        cams, faults = import_cams(records, files, self.num_classes, self.config)
        if not faults:
            write_cam_shard(storage.join(self.uri, shard_name(index)), cams, self.config.dtype)
        return {"faults": faults}


def cam_work(recipe: Recipe, manifest: Manifest) -> CamWork:
    """Return the import of the given CAMs of a manifest's images.

    Raises:
        DataError: when nothing is given.
        ArtifactError: when the folder holds something else.
    """
    from qaclims_ray.data.shards import plan_fingerprint
    from qaclims_ray.methods.given.files import files_by_image, given_files, given_fingerprint

    given: GivenConfig = recipe.own
    cams, files = recipe.cams, given_files(given.cams)
    return CamWork(
        settings={"store": cams.store, "grid_stride": cams.grid_stride, "dtype": cams.dtype},
        inputs={
            "given": given_fingerprint(given.cams),
            "manifest": plan_fingerprint(manifest, manifest.images_fingerprint()),
        },
        actor=ImportActor,
        actor_kwargs={"config": cams, "num_classes": len(manifest.class_names)},
        files_of=lambda: files_by_image(files),
        source=given.cams,
    )


def check(system: str, recipe: Recipe, base: str) -> None:
    """Refuse a system on given CAMs where none are given.

    Raises:
        ConfigError: naming the setting.
    """
    if not recipe.own.cams:
        raise ConfigError(f"system {system} needs CAMs made elsewhere; set given.cams to their folder")


def find_source(recipe: Recipe) -> None:
    """Look for the given CAMs.

    Raises:
        DataError: when there are none.
    """
    from qaclims_ray.methods.given.files import given_files

    given_files(recipe.own.cams)


GIVEN = Method(
    name="given",
    kind="given",
    section="given",
    uses_classifier=False,
    cam_work=cam_work,
    find_source=find_source,
    check=check,
)
