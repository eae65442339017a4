"""``qaclims label-these``: the images most worth a mask made by hand, with drafts of ours to correct; needs no Ray."""

import json
from collections.abc import Sequence

from torch import Tensor

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes, label_value
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.labelme import labelme_file
from qaclims_ray.data.manifest import ImageRecord, Manifest, read_manifest
from qaclims_ray.data.mask_drafts import DRAFTS_NAME, Draft, hash_of_mask, hash_of_shapes, mask_uri, shapes_uri
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.evaluation.agreement import MAP_STAGES, MapSource
from qaclims_ray.evaluation.choice import at_random, by_disagreement
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import LabelTheseArguments
from qaclims_ray.stages.run_folder import absolute_out, load_config
from qaclims_ray.stages.run_maps import run_maps
from qaclims_ray.stages.trust import read_trust
from qaclims_ray.systems.needs import systems_with_cams

_README = """\
Masks to correct by hand: {count} images of the run {run}, {how}.

images/      the images, each with a JSON file of polygons beside it, which draws our mask: open this folder in LabelMe
             ("Open Dir") or X-AnyLabeling ("Open Folder"), correct the polygons and save. A polygon that comes later in
             the file covers an earlier one; "{nothing}" cuts a hole; "__ignore__" is not scored.
masks/       the same masks as PNGs, for tools that paint: the value of a pixel is its class, as listed at the end. Keep
             names, sizes and values.
classes.txt  the names of the classes.

Correct the polygons or the PNG of an image, not both. Then score the run:

    qaclims label-these {run} --read {out}

Images that you leave as they are do not count, unless you say that they are right: --accept-unchanged.

Values of the pixels in masks/:

{values}"""


def run_label_these(arguments: LabelTheseArguments) -> list[str]:
    """Export the images most worth a mask by hand; return the lines that say what was done.

    Raises:
        ConfigError: when the folder holds drafts already, or the system is unknown.
        ArtifactError: when the run has not counted how its maps agree.
        DataError: when no image is left to label.
    """
    run, out = storage.absolute(arguments.run), absolute_out(arguments.folder)
    config, layout = load_config(run), RunLayout(run)
    system = _system(arguments.system, systems_with_cams(config))
    artifacts.require_artifact(layout.trust, "trust", verb="report")
    if storage.exists(storage.join(out, DRAFTS_NAME)):
        raise ConfigError(
            f"{out} holds drafts already, which you may have corrected: read them back with --read {out}, or give "
            "another --out"
        )
    storage.check_writable(out)
    manifest = read_manifest(layout.manifest)
    records = {record.image_id: record for record in manifest.records if record.mask_uri is None}
    candidates = [image for image in read_trust(layout.trust).images if image.image_id in records]
    if not candidates:
        raise DataError(f"every image of {run} with label maps has a true mask already: there is none left to label")
    by = "random" if arguments.random else "disagreement"
    if arguments.random:
        chosen = at_random(candidates, arguments.number, seed=arguments.seed)
    else:
        chosen = by_disagreement(candidates, arguments.number)
    maps = run_maps(config, layout, manifest, chosen)
    drafts = {name: _export(out, records[name], _draft_of(maps[name], system), manifest.classes) for name in chosen}
    _write_texts(out, run, by, drafts, manifest)
    agreement = {image.image_id: image.agreement for image in candidates}
    return [*_lines(chosen, agreement, records, manifest.classes), f"{len(chosen)} images and drafts -> {out}"]


def _system(name: str, known: Sequence[str]) -> str:
    if not known:
        raise ConfigError(
            "the run has no system with seeds or masks, whose disagreement says which images are worth a mask; run one "
            "with CAMs, such as qa_clims"
        )
    if name and name not in known:
        raise ConfigError(f"the run has no system {name!r} with label maps; it has {', '.join(known)}")
    return name or known[-1]


def _draft_of(maps: dict[MapSource, Tensor], system: str) -> tuple[str, Tensor]:
    """Return the map of the last stage of the system, or of another where it has none."""
    order = list(MAP_STAGES)
    source = max(maps, key=lambda one: (one.system == system, order.index(one.stage), one.system))
    return source.key, maps[source]


def _export(out: str, record: ImageRecord, draft: tuple[str, Tensor], classes: Classes) -> Draft:
    """Write an image and its drafts; return what is remembered of them."""
    key, labels = draft
    suffix = record.image_uri.rpartition("/")[2].rpartition(".")[2]
    name = f"{record.image_id}.{suffix}"
    storage.write_bytes(storage.join(out, "images", name), storage.read_bytes(record.image_uri))
    drawn = labelme_file(labels, name, classes)
    storage.write_bytes(shapes_uri(out, record.image_id), json.dumps(drawn, indent=1).encode())
    save_label_map(labels, mask_uri(out, record.image_id))
    height, width = labels.shape
    return Draft(name, height, width, key, hash_of_mask(labels), hash_of_shapes(drawn["shapes"]))


def _write_texts(out: str, run: str, by: str, drafts: dict[str, Draft], manifest: Manifest) -> None:
    names = manifest.class_names
    how = "drawn at random" if by == "random" else "on which the label maps of the run disagree most"
    nothing = BACKGROUND_VALUE if manifest.has_background else IGNORE_VALUE
    listed = [(label_value(number), name) for number, name in enumerate(names)]
    listed = [*([(BACKGROUND_VALUE, "background")] if manifest.has_background else []), *listed]
    values = "".join(f"{value:>5}  {name}\n" for value, name in [*listed, (IGNORE_VALUE, "not scored")])
    readme = _README.format(
        count=len(drafts), run=run, out=out, how=how, values=values,
        nothing="__ignore__" if nothing == IGNORE_VALUE else "background",
    )  # fmt: skip
    storage.write_bytes(storage.join(out, "README.txt"), readme.encode())
    storage.write_bytes(storage.join(out, "classes.txt"), "".join(f"{name}\n" for name in names).encode())
    content = {"run": run, "by": by, "drafts": {name: vars(draft) for name, draft in drafts.items()}}
    # Last: it says that all is there.
    storage.write_bytes(storage.join(out, DRAFTS_NAME), json.dumps(content, indent=1).encode())


def _lines(
    chosen: Sequence[str], agreement: dict[str, float | None], records: dict[str, ImageRecord], classes: Classes
) -> list[str]:
    lines = []
    for name in chosen:
        found = agreement[name]
        tags = ", ".join(classes.names[label] for label in records[name].labels) or "no class"
        lines.append(f"  {name} ({tags}): agreement {'not known' if found is None else f'{found:.0%}'}")
    return lines
