"""A run's final network as an object: what it takes, and that it says what `predict` says."""

import numpy as np
import pytest
import torch
from PIL import Image

import qaclims_ray
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.predict_final import FinalPredictor, read_final_network
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.systems.table import system_config
from tests.unit.stages.random_network_run import write_run

NAMES = ("cat", "dog", "bird")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A finished run whose network is random, and so finds all classes."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    write_run(folder, NAMES)
    return str(folder)


@pytest.fixture(scope="module")
def network(run) -> "qaclims_ray.LoadedNetwork":
    return qaclims_ray.load(run)


@pytest.fixture
def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((90, 60), Image.Resampling.BICUBIC)


def test_an_image_is_segmented_at_its_size(network, picture):
    found = network.predict(picture)
    assert found.labels.shape == (60, 90) and found.labels.dtype == np.uint8
    assert found.scores.shape == (4, 60, 90)
    np.testing.assert_allclose(found.scores.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.labels, found.scores.argmax(0))
    assert found.label_names == ("background", *NAMES) and network.class_names == NAMES
    assert sum(found.found.values()) == pytest.approx((found.labels > 0).mean())
    assert found.found and all((found.labels == found.label_names.index(name)).any() for name in found.found)


def test_it_says_what_predict_says(run, network, picture):
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    folder = RunLayout(run).segmentation("qa_clims")
    config = system_config(load_config(run), "qa_clims").segmentation
    predictor = FinalPredictor(read_final_network(folder), config, torch.device("cpu"), precision="fp32", border=0.5)
    for with_crf in (False, True):
        (free, among) = [mask.numpy() for _, mask, _ in predictor([pixels] * 2, [None, (0,)], with_crf=with_crf)]
        np.testing.assert_array_equal(network.predict(picture, crf=with_crf).labels, free)
        cats = network.predict(picture, classes=["cat"], crf=with_crf)
        np.testing.assert_array_equal(cats.labels, among)
        np.testing.assert_array_equal(cats.labels, cats.scores.argmax(0))
        assert not cats.scores[[2, 3]].any() and set(np.unique(free)) - {0, 1}, "others are seen where they may be"


def test_every_kind_of_picture_is_the_same_picture(network, picture, tmp_path):
    expected = network.predict(picture).labels
    picture.save(tmp_path / "a.png")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    pixels = np.array(picture)
    kinds = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        tmp_path / "turned.png",
        Image.open(tmp_path / "turned.png"),
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1),
    ]
    for kind in kinds:
        np.testing.assert_array_equal(network.predict(kind).labels, expected)
    batch = torch.from_numpy(np.stack([pixels] * 2)).permute(0, 3, 1, 2)
    for several in (kinds, batch):
        many = network.predict(several)
        assert len(many) == len(several) and all((one.labels == expected).all() for one in many)
    assert network.predict([]) == []


def test_masks_and_overlays_are_pictures(network, picture):
    found = network.predict(picture)
    np.testing.assert_array_equal(np.array(found.mask()), found.labels)
    overlay = np.array(found.overlay())
    assert overlay.shape == (60, 90, 3)
    outside = found.labels == 0
    np.testing.assert_array_equal(overlay[outside], np.array(picture)[outside])


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 of shape \(4, 4\), expected"),
        (np.zeros((4, 4, 3), np.float32), "float32 of shape"),
        (torch.zeros(3, 4, 4), "float32 of shape"),
        (Image.new("F", (4, 4)), "mode F"),
        ("no/such.jpg", "no/such.jpg"),
    ],
)
def test_what_is_no_picture_is_refused(network, picture, says):
    with pytest.raises(DataError, match=says):
        network.predict(picture)


def test_an_unknown_class_is_refused(network, picture):
    with pytest.raises(ConfigError, match="does not know cow; it knows cat, dog, bird"):
        network.predict(picture, classes=["cow"])


def test_a_run_without_the_network_is_refused(run, tmp_path):
    with pytest.raises(ArtifactError, match="qaclims segment"):
        qaclims_ray.load(run, system="baseline")
    with pytest.raises(ConfigError, match="there is no run at"):
        qaclims_ray.load(tmp_path)


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qaclims_ray.nothing
