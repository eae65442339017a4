import pytest

from qaclims_ray.data.config import DataConfig, JointCropConfig
from qaclims_ray.errors import ConfigError
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.segmentation.config import (
    CAFFE_MEAN,
    CAFFE_STD,
    SegmentationConfig,
    SegmentationNetConfig,
    SegmentationTestConfig,
)
from qaclims_ray.segmentation.recipes import deeplab_v1, deeplab_v2, deeplab_v2_from_coco, mask2former, segmenter
from qaclims_ray.training.config import OptimConfig

BASE = RunConfig(name="test", data=DataConfig(dataset="voc12", root="/data"))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SegmentationNetConfig, {"backbone": ""}, "segmentation.net.backbone is empty"),
        (SegmentationNetConfig, {"image_std": (0.2, 0.0, 0.2)}, "segmentation.net.image_std"),
        (SegmentationNetConfig, {"width": 0}, "segmentation.net.width"),
        (SegmentationNetConfig, {"architecture": "deeplab_v1"}, "is 'resnet50'; deeplab_v1 needs 'wide_resnet38'"),
        (JointCropConfig, {"min_scale": 3.0}, "0 < min_scale <= max_scale"),
        (JointCropConfig, {"crop_px": 15}, "segmentation.crop.crop_px"),
        (JointCropConfig, {"jitter": 1.0}, r"segmentation.crop.jitter is 1.0, expected in \[0, 1\)"),
        (SegmentationTestConfig, {"scales": ()}, "segmentation.test.scales"),
        (SegmentationTestConfig, {"scales": (1.0, 0.0)}, "segmentation.test.scales"),
        (SegmentationTestConfig, {"window_px": -1}, "segmentation.test.window_px"),
        (SegmentationTestConfig, {"batch_size": 0}, "segmentation.test.batch_size"),
        (SegmentationConfig, {"steps_per_epoch": 0}, "segmentation.steps_per_epoch"),
        (SegmentationConfig, {"accumulation": 0}, "segmentation.accumulation"),
        (OptimConfig, {"lr": 0.0}, "optim.lr"),
        (OptimConfig, {"schedule_every": 0}, "schedule_every"),
        (OptimConfig, {"clip_grad_norm": 0.0}, "clip_grad_norm"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(kind, values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


@pytest.mark.parametrize("weights", ["", " "])
def test_initial_weights_must_be_named_where_a_final_network_is_trained(weights) -> None:
    """Row D5: they move the result by points."""
    changes = {"segmentation.net.weights": weights}
    for goal in ("seed", "mask"):
        assert with_overrides(BASE, {**changes, "goal": goal}).goal == goal
    with pytest.raises(ConfigError, match=r'segmentation.net.weights is empty: say what .* "random", "timm"'):
        with_overrides(BASE, {**changes, "goal": "segmentation"})
    assert with_overrides(BASE, {"goal": "segmentation", "segmentation.net.weights": "random"})


def test_the_default_is_deeplab_s_optimiser() -> None:
    """Row D1: SGD with momentum 0.9, 10 images a step, at a polynomial rate, new layers tenfold; passes, no steps."""
    config = SegmentationConfig()
    assert config.optim == OptimConfig(
        name="sgd", lr=2.5e-4, head_lr_factor=10.0, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9,
        schedule_every=1, warmup_steps=0, clip_grad_norm=None, epochs=30, batch_size=10,
    )  # fmt: skip
    assert config.steps_per_epoch is None


# --- the published recipes


def _learning(config: SegmentationConfig) -> tuple[object, ...]:
    crop, optim = config.crop, config.optim
    assert config.steps_per_epoch is not None
    steps = optim.epochs * config.steps_per_epoch
    return (steps, optim.batch_size, optim.lr, crop.min_scale, crop.max_scale, crop.crop_px, config.loss)


def test_deeplab_v2_is_trained_as_its_configuration_says() -> None:
    """Rows D1, D2, D4: from ImageNet with the balanced loss, from COCO with the plain one and shorter."""
    imagenet, coco = deeplab_v2(), deeplab_v2_from_coco("coco.pth")
    assert _learning(imagenet) == (30_000, 10, 2.5e-4, 0.5, 2.0, 321, "balanced")
    assert _learning(coco) == (20_000, 10, 2.5e-4, 0.5, 1.5, 321, "cross_entropy")
    assert (imagenet.net.backbone, coco.net.backbone) == ("resnet101", "resnet101_caffe")
    assert (coco.net.image_mean, coco.net.image_std) == (CAFFE_MEAN, CAFFE_STD)
    for recipe in (imagenet, coco):
        assert recipe.net.architecture == "deeplab_v2"
        optim = recipe.optim
        assert (optim.schedule, optim.poly_power, optim.schedule_every) == ("poly", 0.9, 10)
        assert (optim.name, optim.momentum, optim.weight_decay, recipe.accumulation) == ("sgd", 0.9, 5e-4, 2)
        crf = recipe.test.crf
        assert (crf.iterations, crf.gaussian_weight, crf.gaussian_sxy) == (10, 3, 1)
        assert (crf.bilateral_weight, crf.bilateral_sxy, crf.bilateral_srgb, crf.unary) == (4, 67, 3, "softmax")


def test_deeplab_v1_is_trained_as_its_authors_wrote() -> None:
    """Row D6."""
    recipe = deeplab_v1("res38.pth")
    assert _learning(recipe) == (30_000, 6, 8e-4, 0.5, 2.0, 512, "cross_entropy")
    assert recipe.optim.weight_decay == 5e-4 and recipe.net.backbone == "wide_resnet38"
    assert (min(recipe.test.scales), max(recipe.test.scales), recipe.test.flip) == (0.5, 1.75, True)
    assert recipe.crop.jitter > 0


def test_mask2former_is_trained_as_far_as_its_recipe_is_known() -> None:
    """Row D8."""
    recipe = mask2former("swin")
    optim = recipe.optim
    assert (optim.epochs * recipe.steps_per_epoch, optim.batch_size, recipe.crop.crop_px) == (80_000, 4, 512)
    assert (recipe.net.architecture, recipe.net.backbone, optim.name) == ("mask2former", "swin_large", "adamw")


@pytest.mark.parametrize("recipe", [deeplab_v2, deeplab_v2_from_coco, deeplab_v1, segmenter, mask2former])
def test_a_published_recipe_counts_steps(recipe) -> None:
    assert recipe("mine.pth").steps_per_epoch == 1_000


@pytest.mark.parametrize("recipe", [deeplab_v2, deeplab_v2_from_coco, deeplab_v1, segmenter, mask2former])
def test_a_recipe_starts_from_the_weights_it_is_given(recipe) -> None:
    assert recipe("mine.pth").net.weights == "mine.pth"
    with pytest.raises(ConfigError, match="weights is empty"):
        RunConfig(name="x", data=BASE.data, goal="segmentation", segmentation=recipe(""))
