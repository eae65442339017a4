"""What reads files that people hand over or that a run keeps: for each a good input, and a call that reads it."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console

from qaclims_ray import load
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard, write_cam_shard
from qaclims_ray.commands.line import Line
from qaclims_ray.commands.tune import read_space
from qaclims_ray.commands.verbs import VERBS
from qaclims_ray.corpus.questions import load_questions
from qaclims_ray.corpus.table import missing_shards, read_corpus, write_shard
from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact, require_artifact
from qaclims_ray.data.coco import read_coco
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.given_masks import find_given_masks
from qaclims_ray.data.images import load_image, save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.mask_export import ExportForm, export_masks
from qaclims_ray.data.mask_files import load_mask, read_mask
from qaclims_ray.data.shards import shard_name
from qaclims_ray.data.voc import read_voc
from qaclims_ray.data.whole_files import check_files
from qaclims_ray.models.weight_files import read_weights
from qaclims_ray.presets.stored import read_run
from qaclims_ray.presets.table import preset
from qaclims_ray.refine.mask_index import mask_row, read_mask_index, write_mask_index
from qaclims_ray.run_config import to_dict
from qaclims_ray.stages.export_network import run_export_network
from qaclims_ray.stages.requests import ExportNetworkArguments
from qaclims_ray.text.bank import bank_artifact, build_bank, read_bank, write_bank
from qaclims_ray.text.config import TextConfig
from tests.finished_artifacts import finished
from tests.tiny_coco import write_coco
from tests.unit.data.drawn_masks import CLASSES, SIZE, places, written
from tests.unit.data.tiny_data_sets import annotation, folder_config, image_bytes, mask_bytes
from tests.unit.stages.random_network_run import write_run


@dataclass(frozen=True)
class Reader:
    """One way for a file to come in."""

    write: Callable[[Path], object]
    """Writes a good input into an empty folder."""
    read: Callable[[Path], Any]
    """Reads it; returns plain values, by which two readings are compared."""
    changes: str = "**/*"
    """Which of its files are changed."""
    is_ours: bool = False
    """Whether the run wrote it itself: then what is damaged gives an error, or all the same what was written."""


def _folder(name: str, text: str, *, masks: bool = False) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for seed, image in enumerate(("a.jpg", "b.jpg", "c.png")):
            (root / image).write_bytes(image_bytes(seed, suffix=image[-4:]))
        (root / name).write_text(text)
        if masks:
            (root / "masks").mkdir()
            for image_id, class_ids in {"a": (0, 1), "b": (2,)}.items():
                (root / f"masks/{image_id}.png").write_bytes(mask_bytes(class_ids))

    return write


def _labelme_flags(root: Path) -> None:
    for seed, name in enumerate("abc"):
        (root / f"{name}.jpg").write_bytes(image_bytes(seed))
        content = {"imagePath": f"{name}.jpg", "flags": {"cat": seed != 1, "dog": seed == 1}, "shapes": []}
        (root / f"{name}.json").write_text(json.dumps(content))


def _read_folder(root: Path) -> Any:
    return list(read_folder(folder_config(root)).rows())


def _voc(root: Path) -> None:
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    shown = {"2007_01": (0,), "2007_02": (10, 14), "2007_03": (14,)}
    for seed, (image_id, class_ids) in enumerate(shown.items()):
        (root / f"JPEGImages/{image_id}.jpg").write_bytes(image_bytes(seed))
        names = [("aeroplane", *"x" * 9, "diningtable", *"x" * 3, "person")[class_id] for class_id in class_ids]
        (root / f"Annotations/{image_id}.xml").write_text(annotation(names))
        (root / f"SegmentationClass/{image_id}.png").write_bytes(mask_bytes(class_ids))
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_01\n2007_02\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_02\n2007_03\n")


def _read_voc(root: Path) -> Any:
    return list(read_voc(DataConfig(dataset="voc12", root=str(root))).rows())


def _class_folders(root: Path) -> None:
    for seed, name in enumerate(("cat/a.jpg", "dog/b.jpg", "cat/c.png", "dog/d.png")):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(image_bytes(seed, suffix=name[-4:]))


def _picture(kind: str, mode: str = "RGB", **options: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).convert(mode)
        if kind == "JPEG" and mode == "RGB":
            exif = Image.Exif()
            exif[0x0112] = 6
            options["exif"] = exif
        picture.save(root / f"picture.{kind.lower()}", kind, **options)

    return write


def _only(root: Path) -> str:
    return str(next(path for path in sorted(root.rglob("*")) if path.is_file()))


def _mask(mode: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        if mode == "P":
            (root / "mask.png").write_bytes(mask_bytes((0, 1)))
            return
        numbers = np.zeros((16, 24), np.uint16 if mode == "I;16" else np.uint8)
        numbers[3:8, 3:8] = 2
        Image.fromarray(numbers).save(root / "mask.png")

    return write


def _read_mask(root: Path) -> Any:
    found = read_mask(_only(root))
    return found.size, found.values, load_mask(_only(root)).tolist()


def _given(form: ExportForm) -> Reader:
    source = {"coco": "annotations.json", "coco-polygons": "annotations.json", "cvat": "annotations.xml"}.get(form, "")

    def write(root: Path) -> None:
        export_masks(str(root / "out"), form, written(root), CLASSES)

    def read(root: Path) -> Any:
        found = find_given_masks(str(root / "out" / source), places(root), CLASSES)
        return {name: load_one(SIZE[1], SIZE[0]).tolist() for name, load_one in found.by_image.items()}

    endings = {"labelme": "out/**/*.json", "yolo": "out/**/*.[ty]*", "voc": "out/**/*.[pt]*"}
    return Reader(write, read, changes=endings.get(form, f"out/{source}"))


_MANIFEST = Manifest(
    ("cat", "dog"),
    tuple(ImageRecord(f"i{k}", f"/data/i{k}.jpg", 30, 20, (k % 2,), None, None, ("train",)) for k in range(5)),
    ("read /data",),
)


def _write_cams(root: Path) -> None:
    maps = torch.rand((2, 8, 9), generator=torch.Generator().manual_seed(0))
    cams = [ImageCam(name, (0, 4), maps, maps[:, :2, :2], 8, 9) for name in "ab"]
    write_cam_shard(str(root / "cams" / "part-00000.parquet"), cams, "float32")
    finished(Artifact(uri=str(root / "cams"), kind="cams", settings={}, verb="cams"))


def _read_cams(root: Path) -> Any:
    require_artifact(str(root / "cams"), "cams", verb="cams")
    found = read_cam_shard(str(root / "cams" / "part-00000.parquet"))
    return [(cam.image_id, cam.class_ids, cam.full.tolist() if cam.full is not None else None) for cam in found]


def _answers(image_id: str) -> dict[str, Any]:
    return {
        "image_id": image_id, "class_id": 0, "class_name": "cat", "question_index": 0, "kind": "background",
        "group": "objects", "answer": "grass", "raw_answer": "grass", "question": "what?", "status": "ok",
        "error": None,
    }  # fmt: skip


def _write_corpus(root: Path) -> None:
    artifact = Artifact(uri=str(root / "corpus"), kind="corpus", settings={}, verb="corpus")
    artifact.begin()
    for index in missing_shards(artifact.workshop, 2, "plan"):
        write_shard(storage.join(artifact.workshop, shard_name(index)), [_answers(f"i{index}")], plan="plan")
    artifact.complete({})


def _read_corpus(root: Path) -> Any:
    require_artifact(str(root / "corpus"), "corpus", verb="corpus")
    return read_corpus(str(root / "corpus")).to_dict("records")


def _write_bank(root: Path) -> None:
    artifact = bank_artifact(str(root / "bank"), {}, {})
    artifact.begin()
    text = TextConfig(source="class_names")

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.arange(1.0, len(texts) * 4 + 1).reshape(-1, 4), dim=-1)

    write_bank(build_bank(None, _MANIFEST, text, encode), artifact)
    artifact.complete({})


def _read_bank(root: Path) -> Any:
    found = read_bank(str(root / "bank"))
    return found.texts, found.features.tolist(), found.foreground.tolist(), found.background.tolist()


def _write_masks(root: Path) -> None:
    rows = []
    for number in range(3):
        labels = torch.zeros((6, 7), dtype=torch.uint8)
        labels[2:4] = 1
        rows.append(mask_row(f"i{number}", labels, (0,)))
        save_label_map(labels, str(root / "masks" / rows[-1].mask))
    write_mask_index(str(root / "masks"), rows, ("cat", "dog"))
    finished(Artifact(uri=str(root / "masks"), kind="masks", settings={}, verb="refine"))


def _read_masks(root: Path) -> Any:
    require_artifact(str(root / "masks"), "masks", verb="refine")
    rows, names = read_mask_index(str(root / "masks"))
    check_files(str(root / "masks"), [row.mask for row in rows])
    return rows, names


def _state() -> dict[str, torch.Tensor]:
    return {"stem.weight": torch.ones(4, 3), "head.bias": torch.arange(5.0)}


def _read_weights(root: Path) -> Any:
    return {name: value.tolist() for name, value in read_weights(_only(root)).items()}


def _predicted(root: Path, name: str = "run") -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return load(root / name, device="cpu").predict(pixels).labels.tolist()


def _hub_folder(root: Path) -> None:
    write_run(root / "run", ("cat", "dog"))
    asked = ExportNetworkArguments(run=str(root / "run"), out=str(root / "hub"), system="qa_clims", to=("hub",))
    run_export_network(asked, Console(quiet=True))


def _parsed(root: Path) -> Any:
    words = (root / "line.txt").read_text(errors="replace").replace("\x00", "").split()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = VERBS["run"].parse(Line(tuple(words), "qaclims run", "about"))
    return repr(found)


_LINE = (
    "miniature --seed 3 --out runs/x --ritc.omega 0.5 --data.class-names cat dog --masks.steps crf --systems qa_clims "
    "baseline --cams.scales 1.0 0.5 --data.limit None --masks.seed-threshold auto"
)
_QUESTIONS = [
    {"template": "what is the {}?", "kind": "foreground", "group": "fine_grained"},
    {"template": "what is beside the {}?", "kind": "background", "group": "objects"},
]
_STUDIO = [
    {"id": 1, "data": {"image": "/data/upload/3/0f1e2d3c-a.jpg"},
     "annotations": [{"result": [{"type": "choices", "value": {"choices": ["cat"]}}], "was_cancelled": False}]},
    {"id": 2, "data": {"image": "b.jpg"},
     "annotations": [{"result": [{"type": "taxonomy", "value": {"taxonomy": [["animal", "dog"]]}}]}]},
    {"id": 3, "data": {"image": "s3://bucket/pictures/c.png"}, "annotations": [{"result": []}]},
]  # fmt: skip
_COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 24, "height": 16},
        {"id": 2, "file_name": "b.jpg"},
        {"id": 3, "file_name": "c.png"},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 7}, {"id": 2, "image_id": 2, "category_id": 1}],
}
_CVAT = (
    '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
    '<image id="0" name="a.jpg" width="24" height="16"><tag label="dog" source="manual"/></image>'
    '<image id="1" name="b.jpg" width="24" height="16"><tag label="cat"/></image>'
    '<image id="2" name="c.png" width="24" height="16"></image></annotations>'
)

READERS: dict[str, Reader] = {
    "labels: a cell of names (CSV)": Reader(
        _folder("labels.csv", "image,labels,split\na.jpg,cat;dog,train\nb.jpg,dog,val\nc.png,,train\n"),
        _read_folder,
        changes="labels.csv",
    ),
    "labels: columns of 0 and 1 (CSV)": Reader(
        _folder("labels.csv", "image,cat,dining table\na.jpg,1,0\nb.jpg,0,1\nc.png,1,1\n"), _read_folder, "labels.csv"
    ),
    "labels: JSON": Reader(
        _folder("labels.json", json.dumps({"a.jpg": ["cat", "dog"], "b": ["dog"], "c.png": []})),
        _read_folder,
        changes="labels.json",
    ),
    "labels: JSON lines": Reader(
        _folder("labels.jsonl", '{"id": "a", "labels": ["cat", "dog"]}\n{"id": "b", "labels": "dog"}\n{"id": "c"}\n'),
        _read_folder,
        changes="labels.jsonl",
    ),
    "labels: Label Studio": Reader(_folder("labels.json", json.dumps(_STUDIO)), _read_folder, "labels.json"),
    "labels: COCO's form": Reader(_folder("labels.json", json.dumps(_COCO)), _read_folder, "labels.json"),
    "labels: CVAT": Reader(_folder("annotations.xml", _CVAT), _read_folder, "annotations.xml"),
    "labels: LabelMe": Reader(_labelme_flags, _read_folder, changes="*.json"),
    "class folders": Reader(_class_folders, _read_folder),
    "folder with masks": Reader(
        _folder("labels.csv", "image,labels\na.jpg,cat;dining table\nb.jpg,dog\nc.png,\n", masks=True), _read_folder
    ),
    "VOC": Reader(_voc, _read_voc),
    "COCO 2014": Reader(
        lambda root: write_coco(root / "coco"),
        lambda root: list(
            read_coco(DataConfig(dataset="coco14", root=str(root / "coco")), str(root / "m")).manifest.rows()
        ),
        changes="coco/annotations/*",
    ),
    **{
        f"image: {kind} {mode}": Reader(_picture(kind, mode), lambda root: load_image(_only(root)).tolist())
        for kind, mode in (
            ("JPEG", "RGB"),
            ("JPEG", "L"),
            ("JPEG", "CMYK"),
            ("PNG", "RGB"),
            ("PNG", "P"),
            ("PNG", "RGBA"),
            ("TIFF", "RGB"),
            ("BMP", "RGB"),
            ("WEBP", "RGB"),
            ("GIF", "P"),
        )
    },
    **{f"mask: PNG {mode}": Reader(_mask(mode), _read_mask) for mode in ("P", "L", "I;16")},
    **{f"given masks: {form}": _given(form) for form in ("coco", "coco-polygons", "labelme", "cvat", "yolo", "voc")},
    "weights: safetensors": Reader(
        lambda root: safetensors.torch.save_file(_state(), root / "w.safetensors"), _read_weights
    ),
    "weights: torch": Reader(
        lambda root: torch.save({"state_dict": _state(), "epoch": 3, "lr": 0.1}, root / "w.pth"), _read_weights
    ),
    "weights: torch before 1.6": Reader(
        lambda root: torch.save(_state(), root / "w.pth", _use_new_zipfile_serialization=False), _read_weights
    ),
    "settings of a run": Reader(
        lambda root: (root / "config.json").write_text(json.dumps(to_dict(preset("miniature")), indent=1)),
        lambda root: to_dict(read_run(str(root / "config.json"))),
    ),
    "settings in a command": Reader(lambda root: (root / "line.txt").write_text(_LINE) and None, _parsed),
    "questions": Reader(
        lambda root: (root / "questions.json").write_text(json.dumps(_QUESTIONS)),
        lambda root: load_questions(root / "questions.json"),
    ),
    "space of a search": Reader(
        lambda root: (
            (root / "space.json").write_text(
                json.dumps(
                    [
                        {"name": "ritc.w_fg", "low": 0.1, "high": 2.0},
                        {"name": "optim.lr", "kind": "choice", "choices": [0.1, 0.2]},
                    ]
                )
            )
            and None
        ),
        lambda root: read_space(str(root / "space.json")),
    ),
    "manifest": Reader(
        lambda root: write_manifest(_MANIFEST, manifest_artifact(str(root / "manifest"), {})),
        lambda root: list(read_manifest(str(root / "manifest")).rows()),
        is_ours=True,
    ),
    "CAMs": Reader(_write_cams, _read_cams, is_ours=True),
    "corpus": Reader(_write_corpus, _read_corpus, is_ours=True),
    "text bank": Reader(_write_bank, _read_bank, is_ours=True),
    "index of masks": Reader(_write_masks, _read_masks, is_ours=True),
    "network for a hub": Reader(
        _hub_folder,
        lambda root: _predicted(root, "hub"),
        changes="hub/*",
    ),
    "run with a final network": Reader(lambda root: write_run(root / "run", ("cat", "dog")), _predicted, is_ours=True),
}
