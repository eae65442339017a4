"""Public data sets that presets are made for: where they can be had, what they are held to, and on whose terms."""

from dataclasses import dataclass
from pathlib import Path

from qaclims_ray.data.downloads import Checksum
from qaclims_ray.errors import DataError

VOC_FOLDER = "VOCdevkit/VOC2012"
_LISTS = f"{VOC_FOLDER}/ImageSets/Segmentation"
AUGMENTED_LIST = f"{_LISTS}/train_aug.txt"
"""VOC's list with the images of SBD, which presets learn from."""
_AUGMENTED = 10_582
"""Images of the augmented list: those with masks of SBD, without VOC's own val."""
_COCO = ("http://images.cocodataset.org/{}", "https://s3.amazonaws.com/images.cocodataset.org/{}")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One file of a data set."""

    name: str
    """What it is called."""
    urls: tuple[str, ...]
    """Where it can be had, the best first."""
    num_bytes: int
    """Size, rounded."""
    makes: str
    """The folder inside it that is wanted."""
    into: str = ""
    """Where that folder goes, below the data set's."""
    checksum: Checksum | None = None
    """What it is held to, where that is known."""

    @property
    def place(self) -> str:
        """The folder that it makes, below the data set's."""
        return f"{self.into}/{self.makes}" if self.into else self.makes


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """A data set by a name."""

    name: str
    """Its word for `qaclims fetch`."""
    title: str
    """What it is."""
    terms: str
    """On whose terms it may be used."""
    archives: tuple[Archive, ...]
    """Its files."""
    page: str
    """Where a person reads about it and can take it by hand."""
    root: str = ""
    """What to give as --data-root, below the folder it was fetched to."""
    preset: str
    """The preset that reads it."""
    note: str = ""
    """What else the preset needs."""

    @property
    def num_bytes(self) -> int:
        """Size of its archives."""
        return sum(archive.num_bytes for archive in self.archives)


def _coco(name: str, where: str, num_bytes: int, makes: str, md5: str) -> Archive:
    urls = tuple(url.format(f"{where}/{name}") for url in _COCO)
    return Archive(name=name, urls=urls, num_bytes=num_bytes, makes=makes, checksum=Checksum("md5", md5))


PUBLIC_SETS: tuple[PublicSet, ...] = (
    PublicSet(
        name="voc2012",
        title="PASCAL VOC 2012, training and val images with labels and masks",
        terms="images of Flickr, on Flickr's terms and their owners'; research",
        archives=(
            Archive(
                name="VOCtrainval_11-May-2012.tar",
                urls=(
                    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                    "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
                ),
                num_bytes=2_000_000_000,
                makes=VOC_FOLDER,
                checksum=Checksum("md5", "6cd6e144f989b92b3379bac3b3de84fd"),
            ),
        ),
        page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        root=VOC_FOLDER,
        preset="voc12",
        note="voc12 learns from the augmented list: fetch voc2012-aug too, or add --data.train-split train",
    ),
    PublicSet(
        name="voc2012-aug",
        title="masks of SBD as VOC's augmented list has them, and that list (train_aug); fetch voc2012 first",
        terms="as voc2012",
        archives=(
            Archive(
                name="SegmentationClassAug.zip",
                urls=("https://www.dropbox.com/s/oeu149j8qtbs1x0/SegmentationClassAug.zip?dl=1",),
                num_bytes=30_000_000,
                makes="SegmentationClassAug",
                into=VOC_FOLDER,
            ),
        ),
        page="https://github.com/DrSleep/tensorflow-deeplab-resnet",
        root=VOC_FOLDER,
        preset="voc12",
    ),
    PublicSet(
        name="coco2014",
        title="COCO 2014, training and val images with annotations",
        terms="annotations CC-BY-4.0; images of Flickr, on their owners' terms",
        archives=(
            _coco("annotations_trainval2014.zip", "annotations", 253_000_000, "annotations",
                  "0a379cfc70b0e71301e0f377548639bd"),
            _coco("val2014.zip", "zips", 6_650_000_000, "val2014", "a3d79f5ed8d289b7a7554ce06a5782b3"),
            _coco("train2014.zip", "zips", 13_510_000_000, "train2014", "0da8c0bd3d6becc4dcb32757491aca88"),
        ),
        page="https://cocodataset.org/#download",
        preset="coco14",
    ),
)  # fmt: skip
"""All of them."""


def write_augmented_list(folder: Path) -> Path:
    """Write VOC's augmented list: the images with a mask of SBD, without VOC's own val.

    Args:
        folder: where both archives were unpacked.

    Returns:
        The list.

    Raises:
        DataError: when VOC is not there, or the masks are others than expected.
    """
    val, target = folder / _LISTS / "val.txt", folder / AUGMENTED_LIST
    if not val.is_file():
        raise DataError(
            f"there is no {val}: fetch voc2012 to the same folder first (`qaclims fetch voc2012 --to {folder}`)"
        )
    masks = {path.stem for path in (folder / VOC_FOLDER / "SegmentationClassAug").glob("*.png")}
    names = sorted(masks - set(val.read_text(encoding="utf-8").split()))
    if len(names) != _AUGMENTED:
        raise DataError(
            f"{folder / VOC_FOLDER}/SegmentationClassAug has masks of {len(names)} images that are not of val, "
            f"expected {_AUGMENTED}; no train_aug.txt is written. Remove that folder and fetch voc2012-aug again"
        )
    target.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return target
