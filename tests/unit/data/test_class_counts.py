from qaclims_ray.data.class_counts import class_lines, class_remarks
from qaclims_ray.data.manifest import ImageRecord, Manifest


def manifest_of(names: tuple[str, ...], *images: tuple[tuple[int, ...], tuple[str, ...]]) -> Manifest:
    records = tuple(
        ImageRecord(f"i{number}", f"/i{number}.png", 8, 8, labels, splits=splits)
        for number, (labels, splits) in enumerate(images)
    )
    return Manifest(names, records)


TRAIN, VAL, BOTH = ("train",), ("val",), ("train", "val")


def test_classes_are_counted_by_split() -> None:
    manifest = manifest_of(("[b]", "dog"), ((0,), TRAIN), ((0, 1), BOTH), ((1,), VAL))
    assert class_lines(manifest, ("train", "train", "val"))[0] == (
        "2 classes, by images of train (2 images) / val (2 images): [b] 2/1, dog 1/2"
    )
    assert (
        class_lines(manifest, ("train", "train", "absent"))[0]
        == "2 classes, by images of train (2 images): [b] 2, dog 1"
    )
    same = manifest_of(("cat",), ((0,), BOTH), ((), BOTH))
    assert class_lines(same, ("train", "val"))[0] == "1 class, by images of train (2 images) / val (2 images): cat 1"


def test_many_classes_stay_readable() -> None:
    names = tuple(f"class with number {n}" for n in range(80))
    lines = class_lines(manifest_of(names, *(((n,), BOTH) for n in range(80) for _ in range(3))), ("train", "val"))
    assert len(lines) > 10 and max(map(len, lines)) <= 120
    assert sum(line.count("class with number") for line in lines) == 80
    assert lines[-1].endswith("class with number 79 3")


def test_rare_classes_and_those_on_every_image_are_remarked() -> None:
    manifest = manifest_of(("cat", "dog", "person"), *[((0, 2), TRAIN)] * 3, ((1, 2), TRAIN), ((0,), VAL))
    assert class_remarks(manifest, "train") == [
        "classes with fewer than 3 images in train, too few to learn from: dog (1)",
        "on every image of train, so that nothing tells the class from the rest: person",
    ]
    assert class_remarks(manifest_of(("cat",), *[((0,), TRAIN)] * 3, ((), TRAIN)), "train") == [
        "1 images of train show none of the classes"
    ]
