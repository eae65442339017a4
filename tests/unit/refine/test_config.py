import pytest

from qaclims_ray.data.config import DataConfig
from qaclims_ray.errors import ConfigError
from qaclims_ray.refine.affinity_config import (
    ClassDistributionConfig,
    ClipAttentionConfig,
    FeatureAffinityConfig,
    SpreadConfig,
)
from qaclims_ray.refine.config import MaskConfig, PamrConfig, SamConfig
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf, irn_crf, semples_crf
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.refine import mask_settings

BASE = RunConfig(name="test", data=DataConfig(dataset="voc12", root="/data"))


# --- the published values


def _kernels(crf: CrfConfig) -> tuple[float, ...]:
    return (
        crf.iterations, crf.gaussian_sxy, crf.gaussian_weight, crf.bilateral_sxy, crf.bilateral_srgb,
        crf.bilateral_weight, crf.label_confidence,
    )  # fmt: skip


def test_crfs_are_those_of_the_papers() -> None:
    """Rows E7, S17, D4."""
    assert _kernels(irn_crf()) == (10, 3, 3, 50, 5, 10, 0.7)
    assert _kernels(semples_crf()) == (10, 4, 3, 83, 5, 3, 0.7)
    assert _kernels(deeplab_crf())[:-1] == (10, 1, 3, 67, 3, 4)
    assert (irn_crf().unary, semples_crf().unary, deeplab_crf().unary) == ("label", "label", "softmax")
    assert CrfConfig() == irn_crf() == IrnConfig().crf == MaskConfig().crf


def test_irn_is_that_of_the_papers() -> None:
    """Rows E7-E10."""
    irn = IrnConfig()
    assert (irn.foreground_threshold, irn.background_threshold) == (0.30, 0.10)
    assert (irn.radius, irn.crop_px, irn.min_scale, irn.max_scale) == (10, 512, 0.5, 1.5)
    assert (irn.optim.lr, irn.optim.lr * irn.optim.head_lr_factor) == (0.1, 1.0)
    assert (irn.optim.epochs, irn.optim.batch_size) == (3, 32)
    assert (irn.walk_radius, irn.beta, 2**irn.log2_steps, irn.walk_threshold, irn.pad_px) == (5, 10, 256, 0.20, 0)
    assert irn.backbone == "resnet50"


# --- what is refused


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CrfConfig, {"iterations": -1}, "crf.iterations"),
        (CrfConfig, {"gaussian_weight": -0.1}, "crf.gaussian_weight"),
        (CrfConfig, {"bilateral_sxy": 0.0}, "crf.bilateral_sxy is 0.0, expected a positive number"),
        (CrfConfig, {"bilateral_srgb": -1.0}, "crf.bilateral_srgb is -1.0"),
        (CrfConfig, {"label_confidence": 1.0}, r"label_confidence is 1.0, expected in \(0, 1\)"),
        (IrnConfig, {"foreground_threshold": 0.05}, r"background_threshold \(0.1\) <= foreground_threshold \(0.05\)"),
        (IrnConfig, {"background_threshold": 0.0}, r"background_threshold \(0.0\)"),
        (IrnConfig, {"width": 100}, "masks.irn.width is 100, expected a multiple of 8"),
        (IrnConfig, {"radius": 0}, "masks.irn.radius"),
        (IrnConfig, {"walk_threshold": 1.0}, r"masks.irn.walk_threshold is 1.0"),
        (IrnConfig, {"min_scale": 2.0}, "0 < min_scale <= max_scale"),
        (IrnConfig, {"beta": 0.0}, "masks.irn.beta"),
        (IrnConfig, {"log2_steps": -1}, "masks.irn.log2_steps"),
        (IrnConfig, {"backbone": " "}, "masks.irn.backbone is empty"),
        (PamrConfig, {"iterations": 0}, "masks.pamr.iterations"),
        (PamrConfig, {"dilations": ()}, "masks.pamr.dilations"),
        (PamrConfig, {"dilations": (1, 0)}, "masks.pamr.dilations"),
        (SamConfig, {"model": ""}, "masks.sam.model is empty"),
        (SpreadConfig, {"iterations": 0}, "spread.iterations"),
        (SpreadConfig, {"scale": 0.0}, "spread.scale is 0.0, expected a positive number"),
        (ClipAttentionConfig, {"num_blocks": 0}, "masks.clip_attention.num_blocks"),
        (ClassDistributionConfig, {"temperature": 0.0}, "masks.class_distribution.temperature is 0.0"),
        (ClassDistributionConfig, {"text_temperature": -1.0}, "masks.class_distribution.text_temperature is -1.0"),
        (FeatureAffinityConfig, {"backbone": ""}, "masks.feature_affinity.backbone is empty"),
        (FeatureAffinityConfig, {"temperature": 0.0}, "masks.feature_affinity.temperature is 0.0"),
        (SamConfig, {"min_inside": 1.5}, r"masks.sam.min_inside is 1.5, expected in \[0, 1\]"),
        (SamConfig, {"points_per_side": 0}, "masks.sam.points_per_side"),
        (SamConfig, {"points_per_part": -1}, "masks.sam.points_per_part"),
        (SamConfig, {"least_part": 1.5}, r"masks.sam.least_part is 1.5, expected in \[0, 1\]"),
        (MaskConfig, {"steps": ("crf", "crf")}, "holds a step twice"),
        (MaskConfig, {"steps": ("crf", "irn")}, "irn works on the CAMs' small maps, so it comes first"),
        (MaskConfig, {"seed_threshold": 0.0}, r"masks.seed_threshold is 0.0, expected in \(0, 1\), or auto"),
        (MaskConfig, {"uncertain": (0.6, 0.4)}, "expected two rising numbers"),
        (MaskConfig, {"uncertain": (-0.1, 0.4)}, "masks.uncertain"),
        (MaskConfig, {"white_above": 255}, "masks.white_above is 255, expected a grey level from 0 to 254"),
        (MaskConfig, {"num_actors": 0}, "masks.num_actors"),
        (MaskConfig, {"gpus_per_actor": -1.0}, "masks.gpus_per_actor"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(kind, values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    "steps", [[], ["irn"], ["irn", "crf"], ["pamr", "crf"], ["sam"], ["irn", "pamr", "sam"], ["clip_attention", "crf"]]
)
def test_steps_that_combine_are_taken_and_come_back_as_they_were(steps) -> None:
    assert with_overrides(BASE, {"masks.steps": steps}).masks.steps == tuple(steps)


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"masks.steps.0: .*'crf', 'irn', 'pamr', .* or 'feature_affinity'"):
        with_overrides(BASE, {"masks.steps": ["grabcut"]})


def test_weights_that_switch_a_kernel_off_are_fine() -> None:
    assert CrfConfig(gaussian_weight=0.0, bilateral_weight=0.0, iterations=0).iterations == 0


# --- what pseudo masks are made again for


@pytest.mark.parametrize(
    ("steps", "changed", "again"),
    [
        (["crf"], {"masks.crf.bilateral_sxy": 7.0}, True),
        (["crf"], {"masks.seed_threshold": 0.4}, True),
        (["crf"], {"masks.uncertain": [0.2, 0.6]}, True),
        (["crf"], {"masks.white_above": 200}, True),
        (["crf"], {"masks.steps": ["pamr"]}, True),
        (["irn"], {"masks.irn.walk_threshold": 0.25}, True),
        (["irn"], {"masks.irn.beta": 8.0}, True),
        (["irn", "crf"], {"masks.crf.iterations": 5}, True),
        # Settings of a step that is not taken, and of what comes as an input of its own.
        (["crf"], {"masks.pamr.iterations": 3}, False),
        (["crf"], {"masks.irn.beta": 8.0}, False),
        (["irn"], {"masks.crf.iterations": 5}, False),
        (["irn"], {"masks.irn.optim.epochs": 9}, False),
        (["irn", "crf"], {"masks.seed_threshold": 0.4}, False),
        (["irn"], {"masks.irn.crf.iterations": 5}, False),
        # Where it is computed.
        (["crf"], {"masks.num_actors": 4}, False),
        (["crf"], {"masks.gpus_per_actor": 1.0}, False),
    ],
)
def test_masks_depend_on_the_steps_that_are_taken(steps, changed, again) -> None:
    config = with_overrides(BASE, {"masks.steps": steps})
    other = with_overrides(config, changed)
    assert (mask_settings(config.masks) != mask_settings(other.masks)) == again


def test_masks_of_sam_depend_on_what_their_way_of_asking_reads() -> None:
    def settings_of(**values) -> dict:
        return mask_settings(MaskConfig(steps=("sam",), sam=SamConfig(**values)))["sam"]

    grid, seeds = settings_of(), settings_of(prompts="seeds")
    # Those of before there was a choice, so that masks of earlier versions are not made again.
    assert set(grid) == {
        *("model", "points_per_side", "points_per_batch"),
        *("min_predicted_iou", "min_stability", "max_overlap", "min_inside", "min_covered"),
    }
    assert grid == settings_of(points_per_part=7) != settings_of(min_inside=0.1)
    assert seeds == settings_of(prompts="seeds", min_inside=0.1) != settings_of(prompts="seeds", points_per_part=7)
    assert grid != seeds
