"""What a precision stands for, and the way into it."""

import pytest
import torch
from torch import nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.errors import ResourceError
from qaclims_ray.models.devices import autocast, dtype_of
from qaclims_ray.models.precision import recorded, stands_for
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.segmentation.config import SegmentationTestConfig
from qaclims_ray.text.config import TextConfig

CPU = torch.device("cpu")


def test_auto_is_fp32_on_cpus_and_each_stages_own_on_gpus() -> None:
    for config in (CorpusConfig(), TextConfig(), CamConfig(), MaskConfig(), ClusterConfig()):
        assert config.arithmetic == "fp32"
    assert SegmentationTestConfig().arithmetic(0) == "fp32"
    assert ClusterConfig(use_gpu=True).arithmetic == "bf16"
    assert CorpusConfig(gpus_per_actor=0.5).arithmetic == "bf16"
    assert CamConfig(gpus_per_actor=0.5).arithmetic == MaskConfig(gpus_per_actor=1.0).arithmetic == "fp16"
    assert SegmentationTestConfig().arithmetic(0.5) == "fp16"


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("setting", ["fp32", "bf16", "fp16"])
def test_a_precision_that_is_set_holds_everywhere(setting, gpus) -> None:
    assert stands_for(setting, gpus=gpus, auto="bf16") == setting


def test_fingerprints_say_nothing_of_fp32() -> None:
    assert recorded("fp32") == {} and recorded("bf16") == {"precision": "bf16"}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.half)]
)
def test_networks_compute_in_it_and_keep_their_weights(precision, dtype) -> None:
    assert dtype_of(precision, CPU) == dtype
    network = nn.Conv2d(3, 2, 3)
    with autocast(precision, CPU):
        assert network(torch.rand(1, 3, 8, 8)).dtype == dtype
    assert network.weight.dtype == torch.float32 and network(torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_a_gpu_that_only_imitates_bf16_is_named(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for use in (autocast, dtype_of):
        with pytest.raises(ResourceError, match=r"Tesla T4 does not compute in bf16.*set it to fp32"):
            use("bf16", torch.device("cuda"))
    assert dtype_of("fp16", torch.device("cuda")) == torch.half and dtype_of("bf16", CPU) == torch.bfloat16
