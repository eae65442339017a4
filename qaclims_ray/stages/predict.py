"""Masks and overlays of any images by a trained run, on Ray Data."""

import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from rich.console import Console

from qaclims_ray.cams.inference import CAMS_AT_ONCE, compute_cams
from qaclims_ray.cams.label_map import label_map, overlay
from qaclims_ray.cluster.session import ray_session, resources_there
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.classes import Classes, has_background
from qaclims_ray.data.image_ids import IMAGE_SUFFIXES, image_id_of
from qaclims_ray.data.images import load_image, save_label_map
from qaclims_ray.data.label_files import read_label_file
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.picture_files import contents, pictures, unread_pictures
from qaclims_ray.data.validation import fail_on
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.devices import device_of_worker
from qaclims_ray.models.folding import for_inference
from qaclims_ray.models.generators.mask_generator import load_mask_generator
from qaclims_ray.refine.shares import HALF
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.segmentation.submission import write_submission
from qaclims_ray.settings import Threshold
from qaclims_ray.stages.classifier_scores import class_probabilities
from qaclims_ray.stages.console import ConsoleProgress
from qaclims_ray.stages.layout import RunLayout, network_uri_of
from qaclims_ray.stages.predict_final import FinalPredictor, read_final_network
from qaclims_ray.stages.predictions import (
    areas_by_class,
    areas_table,
    class_areas,
    closing_line,
    doubled,
    empty_masks,
    predictions_csv,
    remarkable,
    shown_classes,
)
from qaclims_ray.stages.requests import PredictArguments
from qaclims_ray.stages.resources import needs_of, room_here
from qaclims_ray.stages.run_folder import absolute_out, load_config
from qaclims_ray.stages.threshold import at_chosen_threshold
from qaclims_ray.systems.table import system_config, system_of

_IMAGES_PER_TASK = 16


@dataclass(frozen=True)
class _Target:
    """One image to predict."""

    image_id: str
    uri: str
    labels: tuple[int, ...] | None


@dataclass(frozen=True)
class _Predicted:
    """What is known of an image, and to be drawn of it."""

    row: dict[str, Any]
    image_id: str = ""
    image: Any = None
    mask: Any = None


class PredictActor:
    """Hold the classifier and the system's network; label the pixels of one decoded shard."""

    def __init__(
        self,
        config: RunConfig,
        classifier: str,
        network: str,
        arguments: PredictArguments,
        classes: Classes,
        threshold: float,
    ) -> None:
        torch.set_num_threads(1)
        device = device_of_worker(config.cams.gpus_per_actor)
        with whole_files.whole_copy(classifier) as folder:
            self.classifier = for_inference(load_mask_generator(folder), device)
        with whole_files.whole_copy(network) as folder:
            self.network = for_inference(load_mask_generator(folder), device)
        self.config, self.arguments, self.device = config, arguments, device
        self.classes, self.border = classes, classes.border(threshold)
        size = CAMS_AT_ONCE.chosen(config.cams.batch_size, device, config.cams.gpus_per_actor)
        self.cams = replace(config.cams, batch_size=size)

    def __call__(self, shard: list[tuple[_Target, Any]]) -> list[_Predicted]:
        """Return one row per image, its labels or its error, with what is to be drawn of it."""
        net = self.config.cam_net
        predicted = _failed(shard)
        good = [(target, image) for target, image in shard if not isinstance(image, DataError)]
        probabilities = [self._probabilities(image) for _, image in good]
        labels = [
            target.labels if target.labels is not None else self._found(probability)
            for (target, _), probability in zip(good, probabilities, strict=True)
        ]
        cams = compute_cams(
            self.network,
            [image for _, image in good],
            labels,
            [target.image_id for target, _ in good],
            self.cams,
            net.image_mean,
            net.image_std,
            precision=self.config.cams.arithmetic,
        )
        for (target, image), cam, probability in zip(good, cams, probabilities, strict=True):
            mask = label_map(cam, self.border)
            row = {
                "image": target.uri,
                "labels": list(cam.class_ids),
                "probabilities": {i: round(probability[i], 4) for i in cam.class_ids},
                "labels_from": "classifier" if target.labels is None else "file",
                "is_empty": not shown_classes(mask),
            }
            predicted.append(_Predicted(row, target.image_id, image, mask))
        return predicted

    def _found(self, probabilities: list[float]) -> tuple[int, ...]:
        """Return the classes that count as present; without a background at least the most probable one."""
        found = tuple(i for i, p in enumerate(probabilities) if p >= self.arguments.label_threshold)
        return found if found or self.classes.has_background else (probabilities.index(max(probabilities)),)

    def _probabilities(self, image: Any) -> list[float]:
        net = self.config.cam_net
        return class_probabilities(self.classifier, image, net.image_mean, net.image_std, self.device)


class FinalPredictActor:
    """Hold the final network; label the pixels of one decoded shard."""

    def __init__(self, config: RunConfig, network: str, arguments: PredictArguments, classes: Classes) -> None:
        torch.set_num_threads(1)
        device = device_of_worker(config.cams.gpus_per_actor)
        self.network = FinalPredictor(
            read_final_network(network),
            config.segmentation,
            device,
            precision=config.segmentation.test.arithmetic(config.cams.gpus_per_actor),
            border=classes.border(HALF),
        )
        self.arguments = arguments

    def __call__(self, shard: list[tuple[_Target, Any]]) -> list[_Predicted]:
        """Return one row per image, the classes found or its error, with what is to be drawn of it."""
        good = [(target, image) for target, image in shard if not isinstance(image, DataError)]
        predicted = _failed(shard)
        images, labels = [image for _, image in good], [target.labels for target, _ in good]
        for position, mask, _ in self.network(images, labels, with_crf=self.arguments.crf):
            target, image = good[position]
            found = shown_classes(mask)
            source = "final network" if target.labels is None else "final network, among those in the file"
            row = {"image": target.uri, "labels": found, "labels_from": source, "is_empty": not found}
            predicted.append(_Predicted(row, target.image_id, image, mask))
        return predicted


def run_predict(arguments: PredictArguments) -> None:
    """Write masks and overlays of files, folders or buckets with a trained run.

    The final network finds the classes itself. CAMs need labels: given in a file, or predicted by the run's
    classifier; an image without any label is background, or where there is none of the most probable class.

    Raises:
        QaclimsError: when the run is not trained, or no image is found; single bad images become rows with an error.
    """
    out, run = absolute_out(arguments.out), storage.absolute(arguments.run)
    config, layout = load_config(run, can_begin=False), RunLayout(run)
    system = arguments.system or config.systems[-1]
    resolved = system_config(config, system)
    submission = absolute_out(arguments.submission) if arguments.submission else ""
    absolute = replace(arguments, out=out, run=run, submission=submission)
    actor, actor_kwargs = _predictor(resolved, layout, system, absolute)
    classes = read_manifest(layout.manifest).classes
    targets, notes = _targets(arguments, classes.names)
    storage.check_writable(out)
    progress = ConsoleProgress(Console())
    for note in notes:
        print_line(progress.console, note)
    progress.start("predict")
    with ray_session(needs_of(resolved, room := room_here(resolved))):
        room = room.on(resources_there())
        shards = [targets[i : i + _IMAGES_PER_TASK] for i in range(0, len(targets), _IMAGES_PER_TASK)]
        summaries = run_shards(
            shards,
            decode=_decode,
            actor=actor,
            actor_kwargs={**actor_kwargs, "config": resolved, "arguments": absolute, "classes": classes},
            write=functools.partial(_write, out=out, class_names=classes.names),
            num_actors=room.actors(resolved.cams.num_actors, resolved.cams.gpus_per_actor),
            gpus_per_actor=resolved.cams.gpus_per_actor,
            progress=progress.advance,
        )
    rows = _named(summaries, classes)
    _keep(rows, out, {"run": run, "system": system, "by": _says(actor)}, classes)
    errors = [row for row in rows if "error" in row]
    for line in remarkable(rows):
        print_line(progress.console, line)
    progress.finish(closing_line(rows, _says(actor), out))
    if any(row.get("areas") for row in rows):
        print_table(progress.console, areas_table(rows, classes.names), "What the masks show")
    if len(errors) == len(rows):
        raise DataError(f"none of the {len(rows)} images could be read; the first: {errors[0]['error']}")
    if submission:
        _submit(submission, out, [target.image_id for target in targets], errors)
        print_line(progress.console, f"submission {submission}")


def _named(summaries: list[dict[str, Any]], classes: Classes) -> list[dict[str, Any]]:
    """Return the rows of all shards, sorted by image, with names in place of class ids."""
    rows = sorted((row for summary in summaries for row in summary["rows"]), key=lambda row: row["image"])
    for row in rows:
        if "labels" in row:
            row["labels"] = [classes.names[i] for i in row["labels"]]
        for name in {"probabilities", "areas"} & row.keys():
            row[name] = {classes.names[i]: value for i, value in row[name].items()}
    return rows


def _keep(rows: list[dict[str, Any]], out: str, made_by: dict[str, str], classes: Classes) -> None:
    """Write what is known of the images, as JSON and as CSV."""
    content = {
        **made_by,
        "classes": classes.names,
        "empty_masks": empty_masks(rows),
        "areas": areas_by_class(rows, classes.names),
        "images": rows,
    }
    storage.write_bytes(storage.join(out, "predictions.json"), json.dumps(content, indent=2).encode())
    storage.write_bytes(storage.join(out, "predictions.csv"), predictions_csv(rows, classes.names).encode())


def _predictor(
    config: RunConfig, layout: RunLayout, system: str, arguments: PredictArguments
) -> tuple[type, dict[str, Any]]:
    """Return the actor that predicts, and where its networks are.

    Raises:
        ConfigError: when the system has no such network, or an option does nothing for it.
        ArtifactError: when the network is not trained.
    """
    method, final = method_of(system_of(config, system).method), layout.segmentation(system)
    if arguments.threshold is not None and not has_background(config.data.dataset):
        raise ConfigError(
            f"--threshold parts classes from a background, but {config.data.dataset} has none; leave it out"
        )
    is_final = arguments.network == "final" or (
        arguments.network == "auto" and artifacts.read_meta(final) is not None and arguments.threshold is None
    )
    if is_final:
        if arguments.threshold is not None:
            raise ConfigError("--threshold is a background score of CAMs; leave it out, or set --network cam")
        artifacts.require_artifact(final, "segmentation", verb="segment")
        return FinalPredictActor, {"network": final}
    if arguments.crf:
        raise ConfigError(
            f"--crf refines the final network, but CAMs predict here (--network {arguments.network}, --threshold "
            f"{arguments.threshold}); leave these out, and run `qaclims segment` if system {system} has none yet"
        )
    if not method.has_network:
        raise ConfigError(f"system {system} has no CAM network to predict with; name another with --system")
    network = network_uri_of(layout, system, method)
    artifacts.require_artifact(layout.classifier, "classifier", verb="train")
    artifacts.require_artifact(network, method.kind, verb="train")
    threshold = _threshold(config, layout, system, arguments.threshold)
    return PredictActor, {"classifier": layout.classifier, "network": network, "threshold": threshold}


def _threshold(config: RunConfig, layout: RunLayout, system: str, asked: Threshold | None) -> float:
    """Return the background score that CAMs are cut at; not read where there is no background.

    Raises:
        ArtifactError: when it is the one chosen without masks, and none was.
    """
    if asked is not None:
        config = with_overrides(config, {"evaluation.fixed_threshold": None, "masks.seed_threshold": asked})
    return at_chosen_threshold(config, layout, system).fixed_threshold


def _says(actor: type) -> str:
    return "the final network" if actor is FinalPredictActor else "CAMs"


def _submit(uri: str, out: str, image_ids: list[str], errors: list[dict[str, Any]]) -> None:
    if errors:
        raise DataError(f"the evaluation server needs every image, but {len(errors)} could not be read; no archive")
    with storage.local_copy(storage.join(out, "masks")) as folder:
        write_submission(uri, ((name, f"{folder}/{name}.png") for name in image_ids))


def _targets(arguments: PredictArguments, class_names: Sequence[str]) -> tuple[list[_Target], tuple[str, ...]]:
    """Return the images with their labels, and how the file of labels was understood."""
    uris = [uri for given in arguments.images for uri in _images_at(storage.absolute(given))]
    if not uris:
        raise DataError(
            f"there is no image at {', '.join(arguments.images)}; known suffixes: {', '.join(IMAGE_SUFFIXES)}"
        )
    names = [image_id_of(uri) for uri in uris]
    if doubles := doubled(names):
        raise ConfigError(
            f"two images are called {doubles[0]}: their masks would overwrite each other; predict them apart"
        )
    if not arguments.labels:
        return [_Target(name, uri, None) for name, uri in zip(names, uris, strict=True)], ()
    table = read_label_file(storage.absolute(arguments.labels), class_names, image_ids=names)
    fail_on(table.faults, arguments.labels)
    given = table.labels
    numbers = {name: class_id for class_id, name in enumerate(class_names)}
    unlabelled = [name for name in names if name not in given]
    unknown = sorted({label for name in names for label in given.get(name, ()) if label not in numbers})
    if unlabelled or unknown:
        raise DataError(
            f"{arguments.labels}: {len(unlabelled)} images have no labels ({', '.join(unlabelled[:5])}), "
            f"{len(unknown)} labels are unknown ({', '.join(unknown[:5])}); the run knows {', '.join(class_names)}"
        )
    targets = [
        _Target(name, uri, tuple(sorted({numbers[label] for label in given[name]})))
        for name, uri in zip(names, uris, strict=True)
    ]
    return targets, table.notes


def _images_at(uri: str) -> list[str]:
    """Return a named file, whatever its ending, or the pictures of a folder, also those of a sort that is not read.

    Raises:
        DataError: when nothing is there, or no picture.
    """
    if not storage.exists(uri):
        raise DataError(f"there is no image or folder {uri}")
    if not storage.is_folder(uri):
        return [uri]
    # A HEIC photograph becomes a row with an error; left out, nobody would miss it.
    if found := sorted([*pictures(uri), *unread_pictures(uri)]):
        return found
    raise DataError(
        f"there is no image directly in {uri} (it has {contents(uri)}); known endings: {', '.join(IMAGE_SUFFIXES)}"
    )


def _decode(shard: list[_Target]) -> list[tuple[_Target, Any]]:
    decoded: list[tuple[_Target, Any]] = []
    for target in shard:
        try:
            decoded.append((target, load_image(target.uri)))
        except DataError as error:
            decoded.append((target, error))
    return decoded


def _failed(shard: list[tuple[_Target, Any]]) -> list[_Predicted]:
    errors = [(target, str(image)) for target, image in shard if isinstance(image, DataError)]
    return [_Predicted({"image": target.uri, "error": error}) for target, error in errors]


def _write(shard: list[_Predicted], *, out: str, class_names: Sequence[str]) -> dict[str, Any]:
    """Publish the masks and overlays of a shard; return its rows."""
    # Here, since with the font comes matplotlib, which whoever reads a run does without.
    from qaclims_ray.report.legend import with_legend

    for one in shard:
        if one.mask is not None:
            save_label_map(one.mask, storage.join(out, "masks", f"{one.image_id}.png"))
            one.row["areas"] = class_areas(one.mask)
            drawn = with_legend(overlay(one.image, one.mask), one.row["areas"], class_names)
            _save_png(drawn, storage.join(out, "overlays", f"{one.image_id}.png"))
    return {"rows": [one.row for one in shard]}


def _save_png(image: Any, uri: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    storage.write_bytes(uri, buffer.getvalue())
