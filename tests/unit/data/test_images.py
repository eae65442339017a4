import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from qaclims_ray.data.config import AugmentConfig
from qaclims_ray.data.images import image_size, load_image, resize_square, training_crop
from qaclims_ray.errors import ConfigError, DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> str:
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return str(path)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_load_image_keeps_the_pixels_of_a_png(tmp_path: Path, pixels: np.ndarray) -> None:
    image = load_image(save(tmp_path / "a.png", pixels))
    assert image.shape == (3, 6, 9)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.png"), ("RGBA", "a.png"), ("LA", "a.png"), ("P", "a.png"), ("1", "a.png"),
                       ("CMYK", "a.jpg"), ("L", "a.jpg"), ("RGB", "a.webp"), ("RGB", "a.tif"), ("RGB", "a.bmp")]
)  # fmt: skip
def test_load_image_makes_rgb_of_every_mode(tmp_path: Path, pixels: np.ndarray, mode: str, name: str) -> None:
    image = load_image(save(tmp_path / name, pixels, mode))
    assert image.shape == (3, 6, 9) and image.dtype == torch.uint8


def test_load_image_keeps_the_high_byte_of_16_bit_grey(tmp_path: Path) -> None:
    image = load_image(save(tmp_path / "a.png", np.array([[0, 256, 65535]], np.uint16)))
    assert image[:, 0].tolist() == [[0, 1, 255]] * 3


def test_load_image_refuses_32_bit_pixels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="32-bit"):
        load_image(save(tmp_path / "a.tif", np.ones((2, 2), np.float32)))


def test_load_image_accepts_a_transparent_palette(tmp_path: Path, pixels: np.ndarray) -> None:
    assert load_image(save(tmp_path / "a.png", pixels, "P", transparency=b"\0\1\2")).shape == (3, 6, 9)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused_with_its_path(tmp_path: Path, suffix: str, kept: float) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    path = tmp_path / f"whole{suffix}"
    content = Path(save(path, noise)).read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=rf"whole\{suffix} is truncated or broken|not an image"):
        load_image(str(path))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<html>404</html>", b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for function in (load_image, image_size):
        with pytest.raises(DataError, match=r"a\.jpg is (empty|not an image|truncated)"):
            function(str(path))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for function in (load_image, image_size):
        with pytest.raises(DataError, match="there is no file"):
            function(str(tmp_path / "no.png"))
        with pytest.raises(DataError, match="cannot be read"):
            function(str(tmp_path))


def test_an_image_of_absurd_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", np.zeros((40, 40), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="megapixels, and at most 0 can be read: shrink it"):
        load_image(path)


def test_image_size_is_width_and_height(tmp_path: Path, pixels: np.ndarray) -> None:
    assert image_size(save(tmp_path / "a.png", pixels)) == (9, 6)


def test_resize_square_is_pils_bicubic(pixels: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(pixels).resize((5, 5), Image.Resampling.BICUBIC))
    resized = resize_square(torch.from_numpy(pixels).permute(2, 0, 1), 5)
    assert np.array_equal(resized.permute(1, 2, 0).numpy(), expected)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def own_size(crop_px: int, *, flip: bool = False) -> AugmentConfig:
    return AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=crop_px, flip=flip)


def test_a_crop_of_the_images_own_size_is_the_normalised_image(pixels: np.ndarray) -> None:
    square = torch.from_numpy(np.tile(pixels, (3, 2, 1))[:16, :16]).permute(2, 0, 1)
    crop = training_crop(square, own_size(16), MEAN, STD, generator())
    expected = (square / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(crop, expected)


def test_a_small_image_lies_somewhere_in_zeros() -> None:
    image = torch.full((3, 5, 7), 255, dtype=torch.uint8)
    places = set()
    for seed in range(60):
        crop = training_crop(image, own_size(16), (0.0,) * 3, (1.0,) * 3, generator(seed))
        assert crop.shape == (3, 16, 16) and crop.sum() == 3 * 5 * 7
        rows, columns = torch.nonzero(crop[0], as_tuple=True)
        assert (rows.max() - rows.min(), columns.max() - columns.min()) == (4, 6)
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 30
    assert {top for top, _ in places} == set(range(12))  # every offset, both ends included


def test_a_large_image_is_cut_at_every_offset() -> None:
    image = torch.arange(20, dtype=torch.uint8).expand(3, 20, 20).contiguous()
    lefts = set()
    for seed in range(60):
        crop = training_crop(image, own_size(16), (0.0,) * 3, (1 / 255,) * 3, generator(seed))
        lefts.add(round(float(crop[0, 0, 0])))
        assert (crop[0, 0].diff() - 1).abs().max() < 1e-4
    assert lefts == set(range(5))


def test_the_long_side_takes_every_length_of_its_range_and_the_aspect_is_kept() -> None:
    image = torch.full((3, 20, 40), 255, dtype=torch.uint8)
    augment = AugmentConfig(min_long_side_px=20, max_long_side_px=24, crop_px=32, flip=False)
    sizes = set()
    for seed in range(60):
        crop = training_crop(image, augment, (0.0,) * 3, (1.0,) * 3, generator(seed))
        rows, columns = torch.nonzero(crop[0], as_tuple=True)
        sizes.add((int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)))
    assert {width for _, width in sizes} == {20, 21, 22, 23, 24}
    assert all(height == round(width / 2) for height, width in sizes)


def test_half_of_the_crops_are_mirrored() -> None:
    image = torch.arange(16, dtype=torch.uint8).expand(3, 16, 16).contiguous()
    mirrored = 0
    for seed in range(100):
        row = training_crop(image, own_size(16, flip=True), (0.0,) * 3, (1.0,) * 3, generator(seed))[0, 0]
        mirrored += int(row[0] > row[-1])
        assert torch.equal(row.sort().values, image[0, 0] / 255)
    assert 30 < mirrored < 70


def test_a_very_flat_image_keeps_at_least_one_pixel() -> None:
    augment = AugmentConfig(min_long_side_px=16, max_long_side_px=16, crop_px=16)
    image = torch.full((3, 1, 400), 255, dtype=torch.uint8)
    assert training_crop(image, augment, (0.0,) * 3, (1.0,) * 3, generator()).sum() == 3 * 16


def test_equal_generators_give_equal_crops(pixels: np.ndarray) -> None:
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    crops = [training_crop(image, AugmentConfig(), MEAN, STD, generator(seed)) for seed in (3, 3, 4)]
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


@pytest.mark.parametrize(("low", "high"), [(0, 640), (640, 320), (-1, 10), (-2, -1)])
def test_a_long_side_range_that_makes_no_sense_is_refused(low: int, high: int) -> None:
    with pytest.raises(ConfigError, match="min_long_side_px"):
        AugmentConfig(min_long_side_px=low, max_long_side_px=high)


def test_decoding_reads_memory_not_only_files(tmp_path: Path, pixels: np.ndarray) -> None:
    import fsspec

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    fsspec.filesystem("memory").pipe("/pictures/a.png", buffer.getvalue())
    assert load_image("memory://pictures/a.png").shape == (3, 6, 9)
    assert image_size("memory://pictures/a.png") == (9, 6)


def part(crop_px: int = 16, **changes: object) -> AugmentConfig:
    return AugmentConfig(kind="random_resized_crop", crop_px=crop_px, flip=False, **changes)  # type: ignore[arg-type]


def ramps(height: int = 60, width: int = 40) -> torch.Tensor:
    """Red tells the row, green the column; blue is 100."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns, torch.full((height, width), 100, dtype=torch.uint8)])


def test_a_random_part_has_the_area_and_aspect_that_are_asked_for() -> None:
    """Differences between neighbouring rows and columns of the crop tell the size of the part."""
    shares, aspects = [], []
    for seed in range(80):
        crop = training_crop(ramps(), part(min_crop_scale=0.25), (0.0,) * 3, (1 / 255,) * 3, generator(seed))
        assert crop.shape == (3, 16, 16) and (crop[2] - 100).abs().max() < 1e-3
        height = float(crop[0, 12, 8] - crop[0, 4, 8]) * 2
        width = float(crop[1, 8, 12] - crop[1, 8, 4]) * 2
        shares.append(height * width / 2400)
        aspects.append(width / height)
    assert 0.2 < min(shares) < 0.35 and 0.8 < max(shares) < 1.1
    assert 0.65 < min(aspects) < 0.85 and 1.2 < max(aspects) < 1.5


def test_a_whole_square_image_is_resized_when_no_smaller_part_is_allowed() -> None:
    square = ramps()[:, :40]
    crops = [
        training_crop(square, part(20, min_crop_scale=1.0), (0.0,) * 3, (1 / 255,) * 3, generator(seed))
        for seed in range(20)
    ]
    whole = resize_square(square, 20).float()
    assert any(torch.allclose(crop, whole, atol=1.5) for crop in crops)
    assert all(crop[0].min() < 8 and crop[0].max() > 31 for crop in crops)


def test_parts_are_mirrored_too() -> None:
    augment = AugmentConfig(kind="random_resized_crop", crop_px=16)
    mirrored = [
        bool(crop[1, 0, 0] > crop[1, 0, -1])
        for crop in (training_crop(ramps(), augment, MEAN, STD, generator(seed)) for seed in range(60))
    ]
    assert 15 < sum(mirrored) < 45


def natural() -> torch.Tensor:
    noise = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return resize_square(torch.from_numpy(noise).permute(2, 0, 1).contiguous(), 32)


@pytest.mark.parametrize("kind", ["resize_crop", "random_resized_crop"])
def test_rand_augment_changes_three_quarters_at_most_and_grows_with_its_magnitude(kind: str) -> None:
    """Each of two changes comes to half of the images, so a quarter at least stays as it is."""

    def change(magnitude: int) -> torch.Tensor:
        """Mean absolute change of the pixels of each of 80 crops."""
        sums = []
        for seed in range(80):
            crops = [
                training_crop(
                    natural(),
                    AugmentConfig(
                        kind=kind, min_long_side_px=0, max_long_side_px=0, crop_px=32, flip=False,
                        min_crop_scale=0.5, rand_augment_magnitude=used,
                    ),
                    MEAN, STD, generator(seed),
                )
                for used in (0, magnitude)
            ]  # fmt: skip
            sums.append((crops[1] - crops[0]).abs().mean())
        return torch.stack(sums)

    weak, strong = change(2), change(9)
    assert 0.2 < float((strong == 0).float().mean()) < 0.5
    assert strong.mean() > weak.mean() > 0


def test_boxes_are_erased_with_noise_after_normalisation() -> None:
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    erased, values = 0, []
    augment = AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=32, flip=False, erasing_probability=0.25)
    for seed in range(200):
        crop = training_crop(image, augment, (0.0,) * 3, (1.0,) * 3, generator(seed))
        touched = crop.abs().sum(0) > 0
        if touched.any():
            erased += 1
            rows, columns = torch.nonzero(touched, as_tuple=True)
            box = crop[:, int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]
            assert (box != 0).all() and 0.01 < touched.float().mean() < 0.4
            values.append(box.flatten())
    assert 30 < erased < 70
    noise = torch.cat(values)
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05


STRONG = AugmentConfig(kind="random_resized_crop", crop_px=16, rand_augment_magnitude=9, erasing_probability=0.9)


def test_the_given_generator_is_the_only_source_of_randomness_and_the_global_one_is_left_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = training_crop(natural(), STRONG, MEAN, STD, generator(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(training_crop(natural(), STRONG, MEAN, STD, generator(3)), first)
    assert not torch.equal(training_crop(natural(), STRONG, MEAN, STD, generator(4)), first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_crop_scale": 0.0}, "min_crop_scale"),
        ({"min_crop_scale": 1.1}, "min_crop_scale"),
        ({"rand_augment_magnitude": 11}, "rand_augment_magnitude"),
        ({"rand_augment_magnitude": -1}, "rand_augment_magnitude"),
        ({"erasing_probability": 1.5}, "erasing_probability"),
    ],
)
def test_strengths_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**changes)
