"""Do the tools themselves open what `qaclims export-masks` writes? Each with its own code, no reader of ours.

    pip install labelme x-anylabeling-cvhub datumaro ultralytics supervision label-studio-sdk cvat-sdk
    QT_QPA_PLATFORM=offscreen python -m benchmarks.labelling_tools RUN --images 24

Prints a Markdown table: which program opened which form by what, how many images, and how much of their pixels the
program draws as the run's masks are. A program that is not installed is named and passed over. RUN is not changed.
"""

import argparse
import importlib.metadata
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.mask_export import ExportForm, MaskToExport, export_masks, image_place
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.value_names import value_names
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.systems.needs import systems_with_masks

LabelMaps = dict[str, np.ndarray]
"""Name of an image -> label values, as a program draws them."""


@dataclass(frozen=True)
class Handed:
    """What a program is given."""

    folder: Path
    """With the exported files."""
    images: Mapping[str, Path]
    """Name -> copy of the image among them."""
    sizes: Mapping[str, tuple[int, int]]
    """Name -> height and width, in pixels."""
    names: tuple[str, ...]
    """Of the classes."""
    values: Mapping[str, int]
    """Name of a class, also of the background and of ignored pixels -> label value."""


def by_labelme(handed: Handed) -> LabelMaps:
    """LabelMe reads a file and draws its shapes."""
    import labelme

    found = {}
    for name, image in handed.images.items():
        file = labelme.LabelFile(str(image.with_suffix(".json")))
        labels, _ = labelme.utils.shapes_to_label(handed.sizes[name], file.shapes, dict(handed.values))
        found[name] = labels
    return found


def by_labelme_window(handed: Handed) -> LabelMaps:
    """LabelMe's own window opens the folder and shows image by image what it draws."""
    import labelme
    from labelme import app
    from PyQt5 import QtWidgets

    program = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    window = app.MainWindow()
    found = {}
    for name, image in handed.images.items():
        window._load_file(str(image))
        program.processEvents()
        shapes = [
            {"label": one.label, "points": [[p.x(), p.y()] for p in one.points], "shape_type": one.shape_type}
            for one in window._canvas_widgets.canvas.shapes
        ]
        found[name], _ = labelme.utils.shapes_to_label(handed.sizes[name], shapes, dict(handed.values))
    window.close()
    return found


def by_x_anylabeling(handed: Handed) -> LabelMaps:
    """X-AnyLabeling reads a file; what its shapes cover is drawn by LabelMe's rule, of which it descends."""
    from anylabeling.views.labeling.label_file import LabelFile
    from PIL import Image, ImageDraw

    found = {}
    for name, image in handed.images.items():
        file = LabelFile(str(image.with_suffix(".json")))
        height, width = handed.sizes[name]
        canvas = Image.new("L", (width, height))
        for shape in file.shapes:
            corners = [(point.x(), point.y()) for point in shape.points]
            ImageDraw.Draw(canvas).polygon(corners, fill=handed.values[shape.label], outline=handed.values[shape.label])
        found[name] = np.array(canvas)
    return found


def by_datumaro(kind: str, file: str) -> Callable[[Handed], LabelMaps]:
    """Datumaro, by which CVAT imported and exported for years."""

    def read(handed: Handed) -> LabelMaps:
        from datumaro.components.annotation import AnnotationType, Mask, Polygon
        from datumaro.components.dataset import Dataset
        from datumaro.util.mask_tools import rles_to_mask

        found = {}
        data = Dataset.import_from(str(handed.folder / file), kind)
        known = data.categories()[AnnotationType.label]
        ends = {os.path.splitext(name)[0]: name for name in handed.images}
        for item in data:
            name = ends[str(item.id)]
            height, width = handed.sizes[name]
            labels = np.zeros((height, width), int)
            for shape in sorted(item.annotations, key=lambda one: -one.get_area()):
                value = handed.values.get(known[shape.label].name)
                if value is None or not isinstance(shape, Mask | Polygon):
                    continue  # it makes boxes of COCO's masks too
                if isinstance(shape, Mask):
                    inside = np.asarray(shape.image) > 0
                else:
                    inside = rles_to_mask([shape.points], width, height) > 0
                labels[inside] = IGNORE_VALUE if shape.attributes.get("is_crowd") else value
            found[name] = labels
        return found

    return read


def by_cvat_sdk(handed: Handed) -> LabelMaps:
    """CVAT's own decoder of masks gets the numbers of the file, in the order in which its server hands them over."""
    from xml.etree import ElementTree

    from cvat_sdk.masks import decode_mask, encode_mask

    found = {}
    for image in ElementTree.parse(handed.folder / "annotations.xml").iter("image"):
        name = image.attrib["name"]
        height, width = handed.sizes[name]
        labels = np.zeros((height, width), int)
        for shape in image.iter("mask"):
            left, top, wide, high = (int(shape.attrib[one]) for one in ("left", "top", "width", "height"))
            runs = [int(run) for run in shape.attrib["rle"].split(",")]
            points = [*runs, left, top, left + wide - 1, top + high - 1]
            inside = decode_mask(points, image_width=width, image_height=height)
            assert encode_mask(inside) == points, name
            labels[inside] = handed.values[shape.attrib["label"]]
        found[name] = labels
    return found


def by_ultralytics(handed: Handed) -> LabelMaps:
    """Ultralytics' YOLO checks ``data.yaml`` and each text file, and draws as it does for its training."""
    from ultralytics.data.utils import check_det_dataset, polygons2masks_overlap, verify_image_label

    data = check_det_dataset(str(handed.folder / "data.yaml"), autodownload=False)
    assert tuple(data["names"].values()) == handed.names, data["names"]
    found = {}
    for name, image in handed.images.items():
        text = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        _, rows, size, segments, _, missing, _, _, corrupt, message = verify_image_label(
            (str(image), str(text), "", False, len(handed.names), 0, 0, False)
        )
        assert not missing and not corrupt, message
        height, width = size
        labels = np.zeros((height, width), int)
        if len(segments):
            corners = [one * (width, height) for one in segments]
            masks, order = polygons2masks_overlap((height, width), corners)
            for place, at in enumerate(order, start=1):
                labels[masks == place] = label_value(int(rows[at][0]))
        found[name] = labels
    return found


def by_supervision(handed: Handed) -> LabelMaps:
    """Roboflow's supervision."""
    import supervision

    data = supervision.DetectionDataset.from_coco(
        str(handed.folder / "images"), str(handed.folder / "annotations.json"), force_masks=True
    )
    found = {}
    for path, _, boxes in data:
        name = os.path.relpath(path, handed.folder / "images")
        labels = np.zeros(handed.sizes[name], int)
        order = np.argsort([-mask.sum() for mask in boxes.mask]) if len(boxes) else []
        for at in order:
            labels[boxes.mask[at]] = handed.values[data.classes[boxes.class_id[at]]]
        found[name] = labels
    return found


def by_label_studio(handed: Handed) -> LabelMaps:
    """Label Studio's converter makes tasks of the file; polygons are in percent there."""
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
    from PIL import Image, ImageDraw

    out, root = handed.folder / "label_studio.json", "http://127.0.0.1/images/"  # where it would look for them
    convert_coco_to_ls(str(handed.folder / "annotations.json"), str(out), image_root_url=root)
    found = {}
    for task in json.loads(out.read_text()):
        name = task["data"]["image"].removeprefix(root)
        height, width = handed.sizes[name]
        canvas = Image.new("L", (width, height))
        for shape in task["annotations"][0]["result"]:
            if "points" not in shape["value"]:
                continue  # it makes boxes of COCO's masks too
            corners = [(x / 100 * width, y / 100 * height) for x, y in shape["value"]["points"]]
            value = handed.values[shape["value"]["polygonlabels"][0]]
            ImageDraw.Draw(canvas).polygon(corners, fill=value, outline=value)
        found[name] = np.array(canvas)
    return found


TOOLS: tuple[tuple[str, ExportForm, str, Callable[[Handed], LabelMaps]], ...] = (
    ("labelme", "labelme", "labelme.LabelFile", by_labelme),
    ("labelme", "labelme", "its window", by_labelme_window),
    ("x-anylabeling-cvhub", "labelme", "LabelFile", by_x_anylabeling),
    ("datumaro", "cvat", "Dataset.import_from, cvat", by_datumaro("cvat", "annotations.xml")),
    ("cvat-sdk", "cvat", "its numbers by cvat_sdk.masks", by_cvat_sdk),
    ("datumaro", "coco", "Dataset.import_from, coco", by_datumaro("coco", "")),
    ("datumaro", "voc", "Dataset.import_from, voc_segmentation", by_datumaro("voc_segmentation", "")),
    ("ultralytics", "yolo", "check_det_dataset, verify_image_label", by_ultralytics),
    ("supervision", "coco", "DetectionDataset.from_coco", by_supervision),
    ("supervision", "coco-polygons", "DetectionDataset.from_coco", by_supervision),
    ("label-studio-sdk", "coco-polygons", "converter, convert_coco_to_ls", by_label_studio),
)
"""Program's package, form, what of it reads, and the reader."""


def handed_to(masks: list[MaskToExport], form: ExportForm, folder: Path, run: RunLayout) -> Handed:
    """Write a form for a program; images lie beside those of one file too, as a program's own upload has them."""
    classes = read_manifest(run.manifest).classes
    export_masks(str(folder), form, masks, classes)
    images = {}
    for mask in masks:
        images[mask.name] = folder / image_place(form, mask)
        if not images[mask.name].exists():
            images[mask.name].parent.mkdir(parents=True, exist_ok=True)
            images[mask.name].write_bytes(Path(mask.image_uri).read_bytes())
    sizes = {mask.name: (one.shape[0], one.shape[1]) for mask in masks for one in [load_mask(mask.mask_uri)]}
    if form == "coco":  # Datumaro looks for them in a folder of their own
        (folder / "annotations").mkdir()
        (folder / "annotations" / "instances_all.json").write_bytes((folder / "annotations.json").read_bytes())
    return Handed(folder, images, sizes, classes.names, {name: value for value, name in value_names(classes).items()})


def equal_share(found: LabelMaps, masks: list[MaskToExport]) -> float:
    """Return the share of pixels that are what the run's masks say; ignored ones are not counted."""
    equal = counted = 0
    for mask in masks:
        truth = load_mask(mask.mask_uri).numpy().astype(int)
        is_counted = truth != IGNORE_VALUE
        equal += int((found.get(mask.name, np.full_like(truth, BACKGROUND_VALUE)) == truth)[is_counted].sum())
        counted += int(is_counted.sum())
    return equal / counted


def main() -> None:
    """Ask every program and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run with pseudo masks")
    parser.add_argument("--images", type=int, default=24, help="so many, the first of the run")
    parser.add_argument("--only", default="", help="this package alone")
    asked = parser.parse_args()
    run = RunLayout(str(Path(asked.run).resolve()))
    folder = run.masks(systems_with_masks(load_config(run.out, can_begin=False))[-1])
    places = [(one, Path(folder, f"{one.image_id}.png")) for one in read_manifest(run.manifest).records]
    masks = [
        MaskToExport(os.path.basename(one.image_uri), one.image_uri, str(place), one.splits)
        for one, place in places
        if place.exists()
    ][: asked.images]
    print("| program | form | opened by | images | equal pixels, % |\n|---|---|---|---:|---:|")
    for package, form, how, read in TOOLS:
        if asked.only not in ("", package):
            continue
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"| {package} | {form} | not installed | | |")
            continue
        with tempfile.TemporaryDirectory() as temporary:
            try:
                found = read(handed_to(masks, form, Path(temporary) / "out", run))
            except Exception as error:  # whatever another program raises: the others are still to be asked
                last = traceback.extract_tb(error.__traceback__)[-1]
                print(f"| {package} {version} | {form} | {how}: {error!r} ({last.name}) | | |")
                continue
        print(f"| {package} {version} | {form} | {how} | {len(found)} | {100 * equal_share(found, masks):.2f} |")


if __name__ == "__main__":
    main()
