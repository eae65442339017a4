import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import compute_cams, resize_like_pil
from qaclims_ray.errors import DataError, ModelError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class TinyNet(nn.Module):
    """A stride-4 convolution; logits of both signs."""

    def __init__(self, num_classes: int = 4, stride: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, stride, stride, padding=0)
        self.stride = stride
        self.norm = nn.BatchNorm2d(num_classes)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            self.conv.weight.normal_(generator=generator, std=0.2)
            self.conv.bias.zero_()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pad = [-size % self.stride for size in image.shape[2:]]
        return self.norm(self.conv(F.pad(image, (0, pad[1], 0, pad[0]))))


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), 2, image.shape[2] // 4, image.shape[3] // 4), self.value)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def cams(network: nn.Module, images: list, labels: list, **settings):
    names = [f"image_{position}" for position in range(len(images))]
    return compute_cams(network, images, labels, names, CamConfig(**settings), MEAN, STD)


def slow_cam(network: nn.Module, image: torch.Tensor, class_id: int, size: tuple[int, int], scales) -> torch.Tensor:
    """One class of one image, scale by scale and mirror by mirror, with PIL's resizing."""
    height, width = image.shape[1:]
    total = torch.zeros(size)
    for scale in scales:
        pil = Image.fromarray(image.permute(1, 2, 0).numpy())
        pil = pil.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
        pixels = (np.asarray(pil).astype(np.float32) / 255 - MEAN) / STD
        batch = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.no_grad():
            response = network(batch)[0, class_id].relu() + network(batch.flip(3))[0, class_id].relu().flip(1)
        total += F.interpolate(response[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return total / (total.max() + 1e-5)


def test_equals_the_slow_restatement_at_all_scales():
    network, image = TinyNet().eval(), picture(64, 48)
    scales = (1.0, 0.5, 1.5, 2.0)
    [cam] = cams(network, [image], [(0, 2)], scales=scales)
    for position, class_id in enumerate(cam.class_ids):
        # Eight-bit rounding may differ from PIL's by a level or two, hence the tolerance.
        torch.testing.assert_close(
            cam.full[position], slow_cam(network, image, class_id, (64, 48), scales), atol=2e-2, rtol=0
        )
        torch.testing.assert_close(
            cam.grid[position], slow_cam(network, image, class_id, (16, 12), scales), atol=2e-2, rtol=0
        )


def test_without_resizing_the_result_is_exact():
    network, image = TinyNet().eval(), picture(64, 48)
    [cam] = cams(network, [image], [(3,)], scales=(1.0,))
    torch.testing.assert_close(cam.full[0], slow_cam(network, image, 3, (64, 48), (1.0,)))


def test_full_maps_are_enlarged_to_whole_cells_and_cut():
    network, image = TinyNet(stride=16).eval(), picture(40, 70)
    [cam] = cams(network, [image], [(1,)], scales=(1.0,))
    whole = slow_cam(network, image, 1, (48, 80), (1.0,))[:40, :70]
    torch.testing.assert_close(cam.full[0], whole / (whole.max() + 1e-5), atol=1e-4, rtol=0)
    assert cam.grid.shape == (1, 10, 18)


@pytest.mark.parametrize("size", [(30, 20), (37, 71), (128, 96)])
def test_resizing_is_within_two_levels_of_pil(size: tuple[int, int]):
    smooth = F.interpolate(picture(8, 8).float()[None], (64, 64), mode="bilinear").round()
    pil = Image.fromarray(smooth[0].permute(1, 2, 0).numpy().astype(np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    ours = resize_like_pil(smooth, size)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - np.asarray(pil)).max() <= 2


def test_order_and_grouping_do_not_change_the_maps():
    network = TinyNet().eval()
    images = [picture(32, 32, 1), picture(24, 40, 2), picture(32, 32, 3), picture(32, 32, 4), picture(24, 40, 5)]
    labels = [(0,), (1, 3), (), (2,), (0, 1, 2)]
    together = cams(network, images, labels, batch_size=2)
    assert [cam.image_id for cam in together] == [f"image_{position}" for position in range(5)]
    for image, present, cam in zip(images, labels, together, strict=True):
        [alone] = cams(network, [image], [present], batch_size=1)
        assert cam.class_ids == present
        assert cam.full.shape == (len(present), *image.shape[1:])
        torch.testing.assert_close(cam.full, alone.full)
        torch.testing.assert_close(cam.grid, alone.grid)


def test_a_dead_class_gives_zeros():
    [cam] = cams(Constant(-1.0), [picture(16, 16)], [(0,)])
    assert float(cam.full.abs().max()) == 0


def test_maps_peak_just_below_one():
    [cam] = cams(TinyNet().eval(), [picture(32, 32)], [(0, 1, 2, 3)])
    assert (cam.full.amax((1, 2)) <= 1).all() and (cam.full.amax((1, 2)) > 0.999).all()


def test_minmax_spans_the_whole_range():
    [cam] = cams(TinyNet().eval(), [picture(32, 32)], [(1,)], activation="sigmoid", normalisation="minmax")
    assert float(cam.full.min()) == 0 and float(cam.full.max()) > 0.999
    [plain] = cams(TinyNet().eval(), [picture(32, 32)], [(1,)], activation="sigmoid")
    assert float(plain.full.min()) > 0


def test_a_mirrored_image_gives_mirrored_maps():
    network, image = TinyNet().eval(), picture(32, 32)
    [cam] = cams(network, [image], [(0,)])
    [mirrored] = cams(network, [image.flip(2)], [(0,)])
    torch.testing.assert_close(mirrored.full.flip(2), cam.full, atol=2e-2, rtol=0)
    [one_sided] = cams(network, [image], [(0,)], flip=False)
    [one_sided_mirrored] = cams(network, [image.flip(2)], [(0,)], flip=False)
    assert float((one_sided_mirrored.full.flip(2) - one_sided.full).abs().max()) > 0.05


@pytest.mark.parametrize(("store", "has_full", "has_grid"), [("full", True, False), ("grid", False, True)])
def test_keeps_only_what_is_asked_for(store: str, has_full: bool, has_grid: bool):
    for labels in [(0,)], [()]:
        [cam] = cams(TinyNet().eval(), [picture(16, 16)], labels, store=store)
        assert (cam.full is not None, cam.grid is not None) == (has_full, has_grid)


def test_leaves_the_network_in_its_modes_and_its_statistics_alone():
    network = TinyNet().train()
    network.norm.eval()
    before = network.norm.running_mean.clone()
    [cam] = cams(network, [picture(16, 16)], [(0,)])
    assert network.training and network.conv.training and not network.norm.training
    assert torch.equal(network.norm.running_mean, before)
    assert not cam.full.requires_grad and cam.full.dtype == torch.float32


def test_unknown_class_and_broken_network_are_named():
    with pytest.raises(ModelError, match="class 4, but the network knows only classes 0 to 3"):
        cams(TinyNet().eval(), [picture(16, 16)], [(4,)])
    with pytest.raises(ModelError, match="diverged"):
        cams(Constant(float("nan")), [picture(16, 16)], [(0,)])
    with pytest.raises(DataError, match="1 images, 2 label sets"):
        compute_cams(TinyNet(), [picture(16, 16)], [(0,), (1,)], ["a"], CamConfig(), MEAN, STD)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_maps_of_another_precision_are_nearly_those_of_fp32_and_float32_themselves(precision) -> None:
    image, network = picture(17, 24), TinyNet()
    options = ([image], [(0, 2)], ["a"], CamConfig(), MEAN, STD)
    (exact,), (rounded,) = compute_cams(network, *options), compute_cams(network, *options, precision=precision)
    assert exact.full is not None and rounded.full is not None
    assert rounded.full.dtype == torch.float32 and not torch.equal(rounded.full, exact.full)
    torch.testing.assert_close(rounded.full, exact.full, rtol=0, atol=0.03)


def test_what_exceeds_fp16_is_told_with_a_remedy() -> None:
    network = nn.Conv2d(3, 2, 4, 4)
    nn.init.constant_(network.weight, 1e5)
    with pytest.raises(ModelError, match=r"range of fp16.*set its precision to bf16"):
        compute_cams(network, [picture(16, 16)], [(0,)], ["a"], CamConfig(), MEAN, STD, precision="fp16")
