import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qaclims_ray.cams.inference import resize_like_pil
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.errors import ModelError
from qaclims_ray.refine.crf import dense_crf, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf
from qaclims_ray.segmentation.config import SegmentationNetConfig, SegmentationTestConfig
from qaclims_ray.segmentation.inference import as_class_maps, crf_probabilities, segment_images
from qaclims_ray.segmentation.networks.network import SegmentationNetwork

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PLAIN = SegmentationTestConfig(flip=False)


class TinyNetwork(nn.Module):
    """Follows the networks' protocol; scores at half the resolution."""

    supervision = "dense"

    def __init__(self, num_labels: int = 4) -> None:
        super().__init__()
        self.config, self.num_labels = SegmentationNetConfig(), num_labels
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.classifier = nn.Conv2d(8, num_labels, 1)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image, labels=None):
        self.sizes.append(tuple(image.shape))
        logits = 3 * self.classifier(self.norm(self.conv(image)).relu())
        return logits if labels is None else (logits,)

    def head_parameters(self):
        yield from self.classifier.parameters()

    def backbone_parameters(self):
        yield from self.conv.parameters()
        yield from self.norm.parameters()


@pytest.fixture
def network() -> TinyNetwork:
    torch.manual_seed(0)
    network = TinyNetwork()
    assert isinstance(network, SegmentationNetwork)
    network.norm.running_mean = torch.randn(8)
    return network


def picture(height: int = 12, width: int = 18, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def normalised(image: torch.Tensor) -> torch.Tensor:
    return ((image.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))[None]


def segmented(network, images, test, mean, std) -> list[torch.Tensor]:
    """All probabilities in the order of the images."""
    found: dict[int, torch.Tensor] = {}
    for positions, probabilities in segment_images(network, images, test, mean, std):
        found |= zip(positions, probabilities, strict=True)
    return [found[position] for position in range(len(images))]


@torch.no_grad()
def probabilities_of(network, image, scale: float, is_mirrored: bool) -> torch.Tensor:
    """One image at one scale, step by step."""
    size = (round(image.shape[1] * scale), round(image.shape[2] * scale))
    scaled = resize_like_pil(image[None].float(), size)[0]
    logits = network(normalised(scaled).flip(3) if is_mirrored else normalised(scaled))
    logits = F.interpolate(logits, tuple(image.shape[1:]), mode="bilinear", align_corners=False)
    return (logits.flip(3) if is_mirrored else logits).softmax(1)[0]


def test_probabilities_are_means_over_scales_and_mirror_images(network) -> None:
    network.eval()
    image = picture()
    test = SegmentationTestConfig(scales=(0.5, 1.0, 1.75), flip=True)
    (found,) = segmented(network, [image], test, MEAN, STD)
    views = [probabilities_of(network, image, scale, flip) for scale in test.scales for flip in (False, True)]
    torch.testing.assert_close(found, torch.stack(views).mean(0))
    torch.testing.assert_close(found.sum(0), torch.ones(12, 18))
    (single,) = segmented(network, [image], PLAIN, MEAN, STD)
    torch.testing.assert_close(single, probabilities_of(network, image, 1.0, False))
    assert (found - single).abs().max() > 0.01


def test_images_of_one_size_run_together_and_keep_their_order(network) -> None:
    images = [picture(seed=0), picture(10, 10, 1), picture(seed=2), picture(seed=3)]
    test = SegmentationTestConfig(flip=False, batch_size=2)
    found = segmented(network, images, test, MEAN, STD)
    assert sorted(network.sizes) == [(1, 3, 10, 10), (1, 3, 12, 18), (2, 3, 12, 18)]
    for image, probabilities in zip(images, found, strict=True):
        assert probabilities.shape == (4, *image.shape[1:]) and probabilities.dtype == torch.float32
        torch.testing.assert_close(probabilities, segmented(network, [image], PLAIN, MEAN, STD)[0])
    assert segmented(network, [], test, MEAN, STD) == []


def test_images_come_batch_by_batch_and_leave_the_caller_as_it_was(network) -> None:
    test = SegmentationTestConfig(flip=False, batch_size=2)
    found = segment_images(network, [picture(seed=seed) for seed in range(5)], test, MEAN, STD)
    assert next(found)[0] == [0, 1] and len(network.sizes) == 1
    assert not torch.is_inference_mode_enabled() and network.training
    assert [positions for positions, _ in found] == [[2, 3], [4]]


def test_the_network_keeps_its_mode_and_gets_no_gradients(network) -> None:
    network.train()
    network.norm.eval()
    mean = network.norm.running_mean.clone()
    (found,) = segmented(network, [picture()], PLAIN, MEAN, STD)
    assert network.training and network.conv.training and not network.norm.training
    assert not found.requires_grad and torch.equal(network.norm.running_mean, mean)
    network.eval()
    torch.testing.assert_close(segmented(network, [picture()], PLAIN, MEAN, STD)[0], found)


def test_windows_are_averaged_where_they_overlap(network) -> None:
    network.eval()
    image = picture(8, 20)
    test = SegmentationTestConfig(flip=False, window_px=8)
    (found,) = segmented(network, [image], test, MEAN, STD)
    assert network.sizes == [(1, 3, 8, 8)] * 4
    total, counts = torch.zeros(4, 8, 20), torch.zeros(8, 20)
    for start in (0, 4, 8, 12):
        with torch.no_grad():
            logits = network(normalised(image)[..., start : start + 8])
        total[..., start : start + 8] += F.interpolate(logits, (8, 8), mode="bilinear")[0]
        counts[:, start : start + 8] += 1
    assert set(counts.unique().tolist()) == {1.0, 2.0}
    torch.testing.assert_close(found, (total / counts).softmax(0))


@pytest.mark.parametrize(("height", "width"), [(8, 11), (5, 20), (13, 9), (9, 8), (16, 24)])
def test_windows_reach_every_edge(height, width) -> None:
    class Ones(nn.Module):
        def forward(self, image):
            return torch.ones_like(image[:, :2]) * torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)

    test = SegmentationTestConfig(flip=True, window_px=8)
    (found,) = segmented(Ones(), [picture(height, width)], test, MEAN, STD)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0]).softmax(0).view(2, 1, 1).expand(2, height, width))


def test_an_image_inside_the_window_is_seen_at_once(network) -> None:
    network.eval()
    test = SegmentationTestConfig(flip=False, window_px=32)
    (found,) = segmented(network, [picture()], test, MEAN, STD)
    torch.testing.assert_close(found, segmented(network, [picture()], PLAIN, MEAN, STD)[0])


@pytest.mark.parametrize("window_px", [0, 8])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(network, value, window_px) -> None:
    nn.init.constant_(network.classifier.bias, value)
    with pytest.raises(ModelError, match=r"not finite.*segmentation\.optim\.lr"):
        segmented(network, [picture()], SegmentationTestConfig(window_px=window_px), MEAN, STD)


def random_probabilities(kind: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(6, 64, 64, generator=generator)
    match kind:
        case "soft":
            return scores.softmax(0)
        case "sharp":  # the background is often below the rounding of the classes
            return (30 * scores).softmax(0)
        case "ties":
            return torch.randint(3, scores.shape, generator=generator) / 4
        case "near ties":  # neighbours in float32
            steps = torch.randint(3, scores.shape, generator=generator)
            return 0.3 + steps * 2.0**-25
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["soft", "sharp", "ties", "near ties"])
def test_the_label_map_at_one_half_is_the_argmax(kind) -> None:
    for seed in range(3):
        probabilities = random_probabilities(kind, seed)
        maps = as_class_maps("a", probabilities)
        assert maps.full is not None and maps.full.min() >= 0 and maps.full.max() <= 1
        assert torch.equal(label_map(maps, 0.5).long(), probabilities.argmax(0))
        both = probabilities[1:] + probabilities[:1]
        some = both > 1e-30
        torch.testing.assert_close(maps.full[some], (probabilities[1:] / both)[some], rtol=0, atol=2e-7)


def test_class_maps_name_the_image_and_all_classes() -> None:
    maps = as_class_maps("2007_01", torch.full((4, 5, 7), 0.25))
    assert (maps.image_id, maps.class_ids, maps.height, maps.width) == ("2007_01", (0, 1, 2), 5, 7)
    assert maps.grid is None and maps.full is not None and maps.full.shape == (3, 5, 7)


def edged(num_labels: int = 21) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of two halves, and probabilities of labels 0 and 7 whose border lies a little beside."""
    generator = torch.Generator().manual_seed(1)
    image = torch.full((3, 24, 32), 60, dtype=torch.uint8)
    image[:, :, 16:] = 200
    image += torch.randint(8, image.shape, generator=generator, dtype=torch.uint8)
    scores = 0.5 * torch.randn(num_labels, 24, 32, generator=generator) - 6
    scores[0, :, :19], scores[0, :, 19:] = 1.0, 0.0
    scores[7, :, :19], scores[7, :, 19:] = 0.0, 1.0
    return image, scores.softmax(0)


def test_the_crf_moves_the_border_to_the_edge_and_leaves_out_labels_that_cannot_win() -> None:
    image, probabilities = edged()
    (found,) = crf_probabilities(image[None], probabilities[None], deeplab_crf())
    expected = torch.zeros(24, 32, dtype=torch.long)
    expected[:, 16:] = 7
    assert torch.equal(found.argmax(0), expected)
    assert not torch.equal(probabilities.argmax(0), expected)
    used = found.flatten(1).amax(1) > 0
    assert used.nonzero().flatten().tolist() == [0, 7]
    torch.testing.assert_close(found.sum(0), torch.ones(24, 32))


@pytest.mark.parametrize("unary", ["softmax", "label"])
def test_images_of_a_batch_do_not_see_each_other(unary) -> None:
    crf = replace(deeplab_crf(), unary=unary)
    image, probabilities = edged()
    other = probabilities.roll(1, 0).flip(1)
    many = probabilities.clone()
    many[[2, 3], 4:6] = 0.4  # labels that can win, so that this image has more of them
    batch = torch.stack([probabilities, many, other, probabilities])
    together = crf_probabilities(torch.stack([image, image, image.flip(1), image]), batch, crf)
    for position, pixels in enumerate((image, image, image.flip(1), image)):
        assert torch.equal(together[position], crf_probabilities(pixels[None], batch[position][None], crf)[0])


def test_leaving_labels_out_changes_next_to_nothing() -> None:
    image, probabilities = edged()
    (found,) = crf_probabilities(image[None], probabilities[None], deeplab_crf())
    complete = dense_crf(image[None], probability_energy(probabilities[None]), deeplab_crf())[0]
    assert torch.equal(found.argmax(0), complete.argmax(0))
    assert (found - complete).abs().max() < 0.02


def test_the_crf_starts_from_the_label_map_where_it_is_told_to() -> None:
    image, probabilities = edged()
    nothing = CrfConfig(iterations=0, unary="label", label_confidence=0.7)
    (found,) = crf_probabilities(image[None], probabilities[None], nothing)
    foremost = probabilities.argmax(0)
    torch.testing.assert_close(found[0], torch.where(foremost == 0, 0.7, 0.3))
    torch.testing.assert_close(found[7], torch.where(foremost == 7, 0.7, 0.3))


def test_the_background_takes_part_even_where_no_pixel_shows_it() -> None:
    image, probabilities = edged()
    probabilities[0] = 1e-6
    (found,) = crf_probabilities(image[None], probabilities[None], deeplab_crf())
    assert found[7].min() > 0.9 and found[0].max() > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_probabilities_of_another_precision_are_nearly_those_of_fp32(network, precision) -> None:
    image = picture()
    exact = segmented(network, [image], PLAIN, MEAN, STD)[0]
    ((_, rounded),) = segment_images(network, [image], PLAIN, MEAN, STD, precision=precision)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded[0], exact)
    torch.testing.assert_close(rounded[0], exact, rtol=0, atol=0.03)
