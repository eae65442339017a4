"""Label maps as a run leaves them, held against each other; no Ray is started."""

from pathlib import Path

import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import write_cam_shard
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.evaluation.agreement import MapSource, MapStage, image_agreement
from qaclims_ray.stages.classifier_scores import MOST_IMAGES, classifier_images
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.trust import CompareMapsActor, _MapShard

CLASSES = Classes(("cat", "dog"))


def record(name: str, *splits: str, labels: tuple[int, ...] = (0,)) -> ImageRecord:
    return ImageRecord(image_id=name, image_uri=f"{name}.png", width=4, height=2, labels=labels, splits=splits)


def cam(name: str, *rows: list[float]) -> ImageCam:
    return ImageCam(name, (0,), torch.tensor([rows]), None, 2, 4)


def test_an_actor_reads_the_maps_of_all_stages_and_moves_the_threshold(tmp_path: Path) -> None:
    layout = RunLayout(str(tmp_path))
    maps = [cam("a", [0.9, 0.55, 0.45, 0.1], [0.9, 0.1, 0.1, 0.1]), cam("foreign", [0.0] * 4, [0.0] * 4)]
    write_cam_shard(f"{layout.cams('one')}/part-00000.parquet", maps, "float32")
    mask = torch.zeros((2, 4), dtype=torch.uint8)
    mask[:, 0] = 1
    save_label_map(mask, f"{layout.masks('one')}/a.png")
    save_label_map(mask + 1, f"{layout.predictions('one')}/b.png")
    folders: dict[MapStage, str] = {"mask": layout.masks("one"), "final": layout.predictions("one")}
    actor = CompareMapsActor(layout, {"one": 0.5}, {"one": folders}, CLASSES)
    shard = _MapShard("part-00000.parquet", [record("a"), record("b"), record("c")])
    a, b = actor(shard)["images"]
    seed, pseudo = MapSource("one", "seed"), MapSource("one", "mask")
    assert a.areas == {seed: {0: 5, 1: 3}, pseudo: {0: 6, 1: 2}} and a.tagged == (0,)
    assert {pair.kind: counts[1] for pair, counts in a.pairs.items()} == {"stages": (2, 3, 2), "threshold": (2, 4, 2)}
    assert image_agreement(a) == 2 / 3
    assert b.image_id == "b" and list(b.areas) == [MapSource("one", "final")], "c has no map at all"
    assert [image.image_id for image in actor(_MapShard("", [record("b")]))["images"]] == ["b"]


def manifest(*records: ImageRecord) -> Manifest:
    return Manifest(class_names=("cat", "dog"), records=records)


def test_a_classifier_is_looked_at_on_images_that_it_did_not_learn_from() -> None:
    data = DataConfig(dataset="folder", train_split="train", eval_split="dev", test_split="val")
    train, both, dev, val, rest = (
        record("t", "train"), record("tv", "train", "val"), record("d", "dev"), record("v", "val"), record("r", "rest"),
    )  # fmt: skip

    def chosen(*records: ImageRecord) -> tuple[str, bool, list[str]]:
        split, held, images = classifier_images(manifest(*records), data)
        return split, held, [image.image_id for image in images]

    assert chosen(train, both, dev, val) == ("val", True, ["v"])
    assert chosen(train, both, dev) == ("dev", True, ["d"])
    assert chosen(train, rest) == ("rest", True, ["r"])
    assert chosen(train, both) == ("train", False, ["t", "tv"])
    many = [record(f"{number:05d}", "val") for number in range(2 * MOST_IMAGES + 1)]
    _, _, names = chosen(*many)
    assert len(names) <= MOST_IMAGES and names[0] == "00000" and names[-1] > "03990", "evenly out of all"
