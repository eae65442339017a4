from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam, grid_size
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import ArtifactError
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores
from qaclims_ray.refine import refinement
from qaclims_ray.refine.config import MaskConfig, PamrConfig
from qaclims_ray.refine.crf import dense_crf, label_energy, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.random_walk import walk_cams
from qaclims_ray.refine.pamr import refine_by_pamr
from qaclims_ray.refine.refinement import (
    Maps,
    Refiners,
    pseudo_mask,
    refine_by_crf,
    refine_cams,
    refined_border,
    without_uncertain,
)
from qaclims_ray.refine.sam import refine_by_sam

CLASSES = Classes(("a", "b", "c", "d", "e"))
NO_NETWORKS = Refiners()
CRF = CrfConfig(iterations=3, gaussian_sxy=1.0, bilateral_sxy=6.0, bilateral_srgb=20.0)
PAMR = PamrConfig(iterations=2, dilations=(1, 2))


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Noise around a bright square on dark ground: something for colours to follow."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, height, width), generator=generator)
    image[:, 3 : height - 3, 4 : width - 4] += 150
    return image.to(torch.uint8)


def cam_of(name: str, height: int, width: int, class_ids: tuple[int, ...], seed: int = 0) -> ImageCam:
    generator = torch.Generator().manual_seed(100 + seed)
    full = torch.rand((len(class_ids), height, width), generator=generator)
    grid = torch.rand((len(class_ids), *grid_size(height, width, 4)), generator=generator)
    return ImageCam(name, class_ids, full, grid, height, width)


def boundaries_of(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Some boundary maps of the right size, which depend on the images."""
    sizes = [grid_size(image.shape[1], image.shape[2], 4) for image in images]
    cells = [image[0, ::4, ::4][:rows, :columns] for image, (rows, columns) in zip(images, sizes, strict=True)]
    return [cell.float() / 255 for cell in cells]


def squares(image: torch.Tensor) -> torch.Tensor:
    """Two class-agnostic masks: the bright square and the upper half."""
    masks = torch.zeros((2, *image.shape[1:]), dtype=torch.bool)
    masks[0, 3:-3, 4:-4] = True
    masks[1, : image.shape[1] // 2] = True
    return masks


# --- which score separates the background after which step


@pytest.mark.parametrize(
    ("steps", "threshold"),
    [
        ((), 0.15),
        (("irn",), 0.2),
        (("crf",), 0.5),
        (("pamr",), 0.5),
        (("sam",), 0.5),
        (("irn", "crf"), 0.5),
        (("irn", "pamr", "sam"), 0.5),
    ],
)
def test_the_last_step_says_which_score_is_the_background_s(steps, threshold) -> None:
    irn = IrnConfig(walk_threshold=0.2, walk_radius=2, log2_steps=1)
    config = MaskConfig(steps=steps, seed_threshold=0.15, irn=irn, crf=CRF, pamr=PAMR)
    assert refined_border(config) == threshold
    refiners = Refiners(boundaries=boundaries_of, segments=squares)
    assert refine_cams([picture(12, 16)], [cam_of("a", 12, 16, (1,))], config, refiners, CLASSES).border == threshold


def test_without_steps_the_cams_pass() -> None:
    cams = [cam_of("a", 12, 16, (1,))]
    assert refine_cams([picture(12, 16)], cams, MaskConfig(steps=()), NO_NETWORKS, CLASSES).cams == cams


def test_each_step_starts_from_the_threshold_of_the_one_before() -> None:
    """The chain equals its links, each with the background score that the maps then have: 0.3, then 0.2, then 1/2."""
    image, cam = picture(16, 20), cam_of("a", 16, 20, (0, 3))
    irn = IrnConfig(walk_threshold=0.2, walk_radius=2, log2_steps=1)
    config = MaskConfig(steps=("irn", "pamr", "crf"), seed_threshold=0.3, irn=irn, crf=CRF, pamr=PAMR)
    (found,) = refine_cams([image], [cam], config, Refiners(boundaries=boundaries_of), CLASSES).cams
    walked = walk_cams([cam], boundaries_of([image]), irn)[0]
    spread = refine_by_pamr(image, walked, 0.2, config.pamr)
    (expected,) = refine_by_crf([image], Maps([spread], 0.5), CRF).cams
    torch.testing.assert_close(found.full, expected.full)
    (wrong,) = refine_by_crf([image], Maps([refine_by_pamr(image, walked, 0.3, config.pamr)], 0.5), CRF).cams
    assert not torch.allclose(found.full, wrong.full)


@pytest.mark.parametrize("step", ["crf", "pamr", "sam"])
def test_a_first_step_starts_from_the_seeds_threshold(step) -> None:
    image, cam = picture(16, 20), cam_of("a", 16, 20, (0, 3))
    config = MaskConfig(steps=(step,), seed_threshold=0.7, crf=CRF)
    (found,) = refine_cams([image], [cam], config, Refiners(segments=squares), CLASSES).cams
    match step:
        case "crf":
            expected = refine_by_crf([image], Maps([cam], 0.7), CRF).cams[0]
        case "pamr":
            expected = refine_by_pamr(image, cam, 0.7, config.pamr)
        case "sam":
            expected = refine_by_sam(cam, label_map(cam, 0.7), squares(image), config.sam)
    torch.testing.assert_close(found.full, expected.full)
    (other,) = refine_cams(
        [image], [cam], replace(config, seed_threshold=0.2), Refiners(segments=squares), CLASSES
    ).cams
    assert not torch.equal(found.full, other.full)


@pytest.mark.parametrize("steps", [("irn",), ("crf",), ("pamr",), ("sam",), ("irn", "crf", "pamr", "sam")])
def test_refined_maps_have_the_image_s_size_and_lie_between_0_and_1(steps) -> None:
    images = [picture(14, 18), picture(16, 16, 1)]
    cams = [cam_of("a", 14, 18, (0, 3)), cam_of("b", 16, 16, (2,), 1)]
    irn = IrnConfig(walk_radius=2, log2_steps=1)
    config = MaskConfig(steps=steps, seed_threshold=0.4, irn=irn, crf=CRF)
    found = refine_cams(images, cams, config, Refiners(boundaries=boundaries_of, segments=squares), CLASSES)
    for image, cam, one in zip(images, cams, found.cams, strict=True):
        assert (one.image_id, one.class_ids) == (cam.image_id, cam.class_ids)
        assert one.full.shape == (len(cam.class_ids), *image.shape[1:]) and one.grid is None
        assert one.full.min() >= 0 and one.full.max() <= 1 and one.full.std() > 0
        assert set(label_map(one, found.border).unique().tolist()) <= {0, *(c + 1 for c in cam.class_ids)}


@pytest.mark.parametrize("steps", [("irn",), ("crf",), ("pamr",), ("sam",), ("irn", "crf", "pamr", "sam")])
def test_an_image_without_classes_passes_and_is_background(steps) -> None:
    def network(image):
        raise AssertionError("no network is needed")

    cam = cam_of("empty", 14, 18, ())
    config = MaskConfig(steps=steps, crf=CRF)
    maps = refine_cams([picture(14, 18)], [cam], config, Refiners(boundaries=network, segments=network), CLASSES)
    (found,) = maps.cams
    assert found == cam
    mask = pseudo_mask(found, maps.border, (0.0, 1.0))
    assert mask.shape == (14, 18) and not mask.any()
    assert without_uncertain(found, (0.0, 1.0)) == cam


@pytest.mark.parametrize("steps", [("crf",), ("pamr",), ("sam",)])
def test_maps_of_the_small_grid_alone_are_refused_with_what_to_do(steps) -> None:
    cam = replace(cam_of("far", 14, 18, (1,)), full=None)
    with pytest.raises(ArtifactError, match="image far was stored without full-resolution maps; run `qaclims cams`"):
        refine_cams([picture(14, 18)], [cam], MaskConfig(steps=steps), Refiners(segments=squares), CLASSES)


def test_irn_works_on_the_small_grid_and_says_when_it_is_not_there() -> None:
    image, cam, irn = picture(14, 18), cam_of("far", 14, 18, (1,)), IrnConfig(walk_radius=2, log2_steps=1)
    config, refiners = MaskConfig(irn=irn), Refiners(boundaries=boundaries_of)
    (found,) = refine_cams([image], [replace(cam, full=None)], config, refiners, CLASSES).cams
    torch.testing.assert_close(found.full, walk_cams([cam], boundaries_of([image]), irn)[0].full)
    with pytest.raises(ArtifactError, match="image far was stored without its small maps; run `qaclims cams`"):
        refine_cams([image], [replace(cam, grid=None)], config, refiners, CLASSES)


# --- the CRF


@pytest.fixture
def mixed() -> tuple[list[torch.Tensor], list[ImageCam]]:
    """Images of two sizes and of none to three classes, in no order."""
    sizes = [(12, 16), (16, 12), (12, 16), (12, 16), (16, 12), (12, 16)]
    classes = [(0,), (1, 4), (3,), (0, 2, 5), (2, 3), ()]
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    cams = [cam_of(f"i{seed}", *size, ids, seed) for seed, (size, ids) in enumerate(zip(sizes, classes, strict=True))]
    return images, cams


@pytest.mark.parametrize("unary", ["label", "softmax"])
@pytest.mark.parametrize("limit", [4_000_000, 1])
def test_images_in_groups_get_what_each_gets_alone(mixed, unary, limit, monkeypatch) -> None:
    monkeypatch.setattr(refinement, "_CRF_LABEL_PIXELS", limit)
    images, cams = mixed
    calls = []

    def counted(pixels, energies, config):
        calls.append(tuple(energies.shape))
        return dense_crf(pixels, energies, config)

    monkeypatch.setattr(refinement, "dense_crf", counted)
    config = replace(CRF, unary=unary)
    found = refine_by_crf(images, Maps(cams, 0.4), config).cams
    assert [cam.image_id for cam in found] == [cam.image_id for cam in cams]
    together = [(2, 2, 12, 16), (2, 3, 16, 12), (1, 4, 12, 16)]
    alone = [(1, *shape[1:]) for shape in together for _ in range(shape[0])]
    assert calls == (together if limit > 1 else alone)
    for image, cam, one in zip(images, cams, found, strict=True):
        if not cam.class_ids:
            assert one == cam
            continue
        scores = torch.cat([torch.full((1, cam.height, cam.width), 0.4), cam.full])
        if unary == "label":
            energy = label_energy(scores.argmax(0)[None], len(scores), config.label_confidence)
        else:
            energy = probability_energy((scores / scores.sum(0))[None])
        posterior = dense_crf(image[None], energy, config)[0]
        torch.testing.assert_close(one.full, posterior[1:] / (posterior[1:] + posterior[0]), rtol=1e-4, atol=1e-5)
        values = torch.tensor([0, *(class_id + 1 for class_id in cam.class_ids)])
        assert torch.equal(label_map(one, 0.5), values[posterior.argmax(0)].to(torch.uint8))


def test_a_label_unary_sees_only_which_label_wins_and_a_softmax_unary_by_how_much() -> None:
    image, cam = picture(12, 16), cam_of("a", 12, 16, (0, 3))
    surer = replace(cam, full=torch.where(cam.full == cam.full.amax(0), cam.full.clamp_min(0.4), cam.full) ** 0.5)
    surer = replace(surer, full=torch.where(label_map(cam, 0.4) == 0, cam.full, surer.full))
    assert torch.equal(label_map(cam, 0.4), label_map(surer, 0.4)) and not torch.equal(cam.full, surer.full)
    for unary, same in (("label", True), ("softmax", False)):
        config = replace(CRF, unary=unary)
        found = [refine_by_crf([image], Maps([one], 0.4), config).cams[0].full for one in (cam, surer)]
        assert torch.equal(*found) == same


def test_without_iterations_the_softmax_unary_gives_the_scores_shares() -> None:
    cam = cam_of("a", 12, 16, (0, 3))
    config = replace(CRF, unary="softmax", iterations=0)
    (found,) = refine_by_crf([picture(12, 16)], Maps([cam], 0.4), config).cams
    torch.testing.assert_close(found.full, cam.full / (cam.full + 0.4), rtol=1e-4, atol=1e-4)


def test_the_crf_follows_the_square_that_the_seed_only_hints_at() -> None:
    image = picture(24, 24)
    full = torch.full((1, 24, 24), 0.25)
    full[0, 8:16, 8:16] = 1.0
    cam = ImageCam("a", (2,), full, None, 24, 24)
    config = CrfConfig(gaussian_sxy=1.0, bilateral_sxy=12.0, bilateral_srgb=40.0, unary="softmax")
    (found,) = refine_by_crf([image], Maps([cam], 0.3), config).cams
    square = torch.zeros(24, 24, dtype=torch.bool)
    square[3:21, 4:20] = True
    seed, refined = (((label_map(*one) == 3) == square).float().mean() for one in ((cam, 0.3), (found, 0.5)))
    assert refined > 0.99 and seed < 0.7


# --- uncertain pixels (row E11)


@pytest.fixture
def graded() -> ImageCam:
    full = torch.tensor([[[0.1, 0.4, 0.5, 0.6, 0.61, 0.9]], [[0.0, 0.3, 0.45, 0.1, 0.2, 0.95]]])
    return ImageCam("g", (0, 4), full, None, 1, 6)


def test_uncertain_pixels_are_ignored_in_the_mask_and_background_when_scored(graded) -> None:
    """The lower bound is certain background, the upper one still uncertain, as the threshold's own comparison."""
    assert pseudo_mask(graded, 0.5, None).tolist() == [[0, 0, 0, 1, 1, 5]]
    assert pseudo_mask(graded, 0.5, (0.4, 0.6)).tolist() == [[0, 0, 255, 255, 1, 5]]
    scored = without_uncertain(graded, (0.4, 0.6))
    assert label_map(scored, 0.5).tolist() == [[0, 0, 0, 0, 1, 5]]
    assert scored.full[:, 0, 3].tolist() == [-1, -1] and torch.equal(scored.full[:, 0, 4:], graded.full[:, 0, 4:])
    assert without_uncertain(graded, None) is graded
    assert pseudo_mask(graded, 0.5, (0.4, 0.6)).dtype == torch.uint8


def test_scores_of_uncertain_pixels_are_those_of_a_mask_whose_255_became_0(graded) -> None:
    truth = torch.tensor([[0, 1, 1, 1, 1, 5]], dtype=torch.uint8)
    found = {}
    for name, cam in (("all", graded), ("certain", without_uncertain(graded, (0.4, 0.6)))):
        sweep = ThresholdSweep((0.5,), 5)
        sweep.update(cam, truth)
        found[name] = seed_scores(sweep, 0.5, CLASSES).iou["a"]
    assert found == {"all": pytest.approx(2 / 4), "certain": pytest.approx(1 / 4)}
