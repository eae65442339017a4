import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BlipConfig, Mask2FormerImageProcessor, SwinConfig, SwinForImageClassification, SwinModel

from qaclims_ray.errors import ArtifactError, ConfigError, ModelError
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.mask2former import (
    Mask2Former,
    build_mask2former,
    semantic_scores,
)
from qaclims_ray.segmentation.networks.network import load_segmentation_network, save_segmentation_network
from qaclims_ray.segmentation.networks.set_loss import label_sets, set_loss

TINY = SegmentationNetConfig(architecture="mask2former", backbone="miniature", weights="random")
TINY_SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 8}


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def changed(**changes: object) -> SegmentationNetConfig:
    return dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]


def tiny(num_labels: int = 3) -> Mask2Former:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_mask2former(TINY, num_labels).eval()


def picture_and_labels() -> tuple[Tensor, Tensor]:
    """Three pictures whose colours say the labels, 0 to 2; the last one has label 1 alone."""
    labels = torch.zeros(3, 64, 64, dtype=torch.uint8)
    labels[0, 16:48, :32], labels[1, 32:], labels[2] = 1, 2, 1
    return F.one_hot(labels.long(), 3).permute(0, 3, 1, 2).float(), labels


def outputs(network: Mask2Former, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Class and mask logits of every decoder layer, the last one first."""
    output = network.net(pixel_values=image, output_auxiliary_logits=True)
    layers = [output, *output.auxiliary_logits]
    return [x["class_queries_logits"] for x in layers], [x["masks_queries_logits"] for x in layers]


def alone(counts: Tensor) -> Tensor:
    return counts


def seeded(compute: Callable[[], Tensor], seed: int = 1) -> Tensor:
    """Points of the loss are random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return compute()


def test_scores_are_log_probabilities_at_stride_4() -> None:
    network = tiny(5)
    for height, width in ((64, 64), (60, 68), (36, 100)):
        scores = network(torch.randn(2, 3, height, width))
        assert scores.shape == (2, 5, height // 4, width // 4)
        torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(2, height // 4, width // 4))
    assert network(torch.randn(1, 3, 50, 71)).shape == (1, 5, 50, 71), "no whole number of cells covers it"
    assert (network.num_labels, network.supervision) == (5, "sets")


def test_padding_is_mean_colour_and_is_cut_off() -> None:
    network, image = tiny(), torch.randn(1, 3, 60, 44)
    padded = F.pad(image, (0, 20, 0, 4))
    torch.testing.assert_close(network(image), network(padded)[:, :, :15, :11])
    odd = F.interpolate(network(padded).exp(), scale_factor=4, mode="bilinear", align_corners=False)
    cut = image[:, :, :59, :43]
    odd_padded = F.pad(cut, (0, 21, 0, 5))
    odd = F.interpolate(network(odd_padded).exp(), scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(cut), odd[:, :, :59, :43].log())


def test_scores_are_transformers_own_semantic_ones_normalised() -> None:
    network, image = tiny(4), torch.randn(2, 3, 64, 64)
    output = network.net(pixel_values=image)
    own = Mask2FormerImageProcessor().post_process_semantic_segmentation(output, target_sizes=[(384, 384)] * 2)
    scores = semantic_scores(output.class_queries_logits, output.masks_queries_logits)
    classes, masks = output.class_queries_logits.softmax(-1), output.masks_queries_logits.sigmoid()
    expected = sum(classes[:, query, :4, None, None] * masks[:, query, None] for query in range(20))
    torch.testing.assert_close(scores, expected / expected.sum(dim=1, keepdim=True))
    large = F.interpolate(masks_times_classes(output), size=(384, 384), mode="bilinear").argmax(dim=1)
    assert torch.equal(large, torch.stack(own))


def masks_times_classes(output) -> Tensor:
    """As transformers has it: masks at 384 pixels first."""
    masks = F.interpolate(output.masks_queries_logits, size=(384, 384), mode="bilinear", align_corners=False).sigmoid()
    return torch.einsum("bqc,bqhw->bchw", output.class_queries_logits.softmax(-1)[..., :-1], masks)


def test_scores_are_finite_where_no_query_says_anything() -> None:
    nothing = torch.tensor([[[-200.0, -200.0, 200.0]]])
    scores = semantic_scores(nothing, torch.full((1, 1, 2, 2), -200.0))
    torch.testing.assert_close(scores, torch.full((1, 2, 2, 2), 0.5))
    certain = semantic_scores(torch.tensor([[[200.0, -200.0, -200.0]]]), torch.full((1, 1, 2, 2), 200.0))
    assert torch.isfinite(certain.log()).all() and (certain.argmax(dim=1) == 0).all()


def test_label_sets_leave_ignored_pixels_out() -> None:
    labels = torch.tensor([[[0, 2], [255, 2]], [[255, 255], [255, 255]], [[2, 1], [1, 2]]], dtype=torch.uint8)
    sets = label_sets(labels)
    assert sets.counts == [2, 0, 2]
    assert sets.image.tolist() == [0, 0, 2, 2] and sets.place.tolist() == [0, 1, 0, 1]
    assert sets.classes.tolist() == [0, 2, 1, 2]
    assert sets.masks.tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]]]
    nothing = label_sets(torch.full((1, 4, 6), 255, dtype=torch.uint8))
    assert nothing.masks.shape == (0, 4, 6) and nothing.counts == [0]


def test_the_loss_is_transformers_own_where_nothing_is_ignored() -> None:
    network, (image, labels) = tiny(), picture_and_labels()
    sets = label_sets(labels)
    masks, classes = sets.masks.split(sets.counts), sets.classes.split(sets.counts)
    own = seeded(lambda: network.net(pixel_values=image, mask_labels=[*masks], class_labels=[*classes]).loss)
    torch.testing.assert_close(seeded(lambda: network(image, labels)), own)


def test_an_image_may_show_more_labels_than_there_are_queries() -> None:
    """Class losses alone: for the others transformers counts masks that no query is left for."""
    network, (image, labels) = tiny(), picture_and_labels()
    labels[1, :8] = 1
    classes, masks = ([logits[:, :2] for logits in layers] for layers in outputs(network, image))
    sets = label_sets(labels)
    assert sets.counts == [2, 3, 1]
    network.net.config.mask_weight = network.net.config.dice_weight = 0.0
    targets = [*sets.masks.split(sets.counts)], [*sets.classes.split(sets.counts)]
    others = [
        {"masks_queries_logits": m, "class_queries_logits": c} for m, c in zip(masks[1:], classes[1:], strict=True)
    ]
    own = seeded(lambda: network.net.criterion(masks[0], classes[0], *targets, others))
    expected = network.net.config.class_weight * sum(value for name, value in own.items() if "entropy" in name)
    found = seeded(lambda: set_loss(network.net, classes, masks, labels, sum_over_workers=alone))
    torch.testing.assert_close(found, expected)


def test_ignored_pixels_get_no_gradient_and_labelled_ones_do() -> None:
    network, (image, labels) = tiny(), picture_and_labels()
    labels[:, :, 32:] = 255
    classes, masks = outputs(network, image)
    masks = [logits.detach().requires_grad_() for logits in masks]
    set_loss(network.net, classes, masks, labels, sum_over_workers=alone).backward()
    for logits in masks:
        assert logits.grad is not None
        # The cell beside the border takes part in the bilinear samples of labelled pixels.
        assert not logits.grad[..., 9:].any()
        assert logits.grad[..., :7].any()


def test_what_is_predicted_on_ignored_pixels_does_not_matter() -> None:
    network, (image, labels) = tiny(), picture_and_labels()
    labels[:, 24:] = 255
    classes, masks = outputs(network, image)
    others = [torch.cat([logits[:, :, :7], logits[:, :, 7:].roll(3, dims=1) * -9], dim=2) for logits in masks]
    first, second = (
        seeded(lambda logits=logits: set_loss(network.net, classes, logits, labels, sum_over_workers=alone))
        for logits in (masks, others)
    )
    torch.testing.assert_close(first, second)


def test_ignored_pixels_do_not_dilute_the_loss() -> None:
    """Of constant predictions every point costs the same: labels on a half cost what they cost everywhere."""
    network = tiny()
    classes, masks = [torch.zeros(1, 20, 4)], [torch.zeros(1, 20, 16, 16)]
    whole, half = torch.ones(2, 1, 64, 64, dtype=torch.uint8)
    half[:, 32:] = 255
    network.net.config.dice_weight, network.net.config.class_weight = 0.0, 0.0
    losses = [set_loss(network.net, classes, masks, labels, sum_over_workers=alone) for labels in (whole, half)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], network.net.config.mask_weight * torch.tensor(2.0).log())


def test_shares_of_workers_add_up_to_the_loss_of_the_global_batch() -> None:
    """Predictions and labels are constant over each image, so that random points do not matter."""
    network = tiny()
    generator = torch.Generator().manual_seed(0)
    classes = [torch.randn(4, 20, 4, generator=generator) for _ in range(2)]
    masks = [torch.randn(4, 20, 1, 1, generator=generator).expand(-1, -1, 16, 16) for _ in range(2)]
    labels = torch.tensor([1, 255, 0, 2], dtype=torch.uint8)[:, None, None].expand(-1, 64, 64)
    seen = []

    def remember(counts: Tensor) -> Tensor:
        seen.append(counts)
        return counts

    whole = set_loss(network.net, classes, masks, labels, sum_over_workers=remember)
    (counts,) = seen
    assert counts.tolist() == pytest.approx([3, 3 + 0.1 * (80 - 3)])
    shares = [
        set_loss(
            network.net,
            [logits[part] for logits in classes],
            [logits[part] for logits in masks],
            labels[part],
            sum_over_workers=lambda _: counts,
        )
        for part in (slice(0, 1), slice(1, 2), slice(2, 4))
    ]
    # At the very edge of an image sampled predictions fade to 0; that is where points matter.
    torch.testing.assert_close(torch.stack(shares).sum(), whole, rtol=5e-3, atol=0)


@pytest.mark.parametrize("has_labels", [True, False])
def test_every_parameter_gets_a_gradient(has_labels: bool) -> None:
    """DDP waits for all; a batch may show nothing but ignored pixels."""
    network, (image, labels) = tiny().train(), picture_and_labels()
    loss = network(image, labels if has_labels else torch.full_like(labels, 255))
    assert loss.ndim == 0 and loss.dtype == torch.float32 and float(loss.detach()) > 0
    loss.backward()
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in learning.items() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in learning.values() if parameter.grad is not None)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"net.model.pixel_level_module.encoder.swin.layernorm.{kind}" for kind in ("weight", "bias")}


def test_a_batch_can_be_learnt() -> None:
    network, (image, labels) = tiny().train(), picture_and_labels()
    image, labels = image[..., :50, :], labels[:, :50]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = network(image, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        predicted = network.eval()(image).argmax(dim=1)
    assert (predicted == labels).float().mean() > 0.8


def test_autocast_keeps_loss_and_scores_in_full_precision() -> None:
    network, (image, labels) = tiny(), picture_and_labels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, scores = seeded(lambda: network(image, labels)), network(image)
    assert loss.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(loss, seeded(lambda: network(image, labels)), rtol=0.05, atol=0)


def test_backbone_and_head_are_all_parameters() -> None:
    network = tiny()
    backbone, head = [*network.backbone_parameters()], [*network.head_parameters()]
    assert {id(parameter) for parameter in (*backbone, *head)} == {id(p) for p in network.parameters()}
    assert len(backbone) + len(head) == len(list(network.parameters()))
    assert sum(p.numel() for p in backbone) == sum(p.numel() for p in network._swin.parameters())
    assert sum(p.numel() for p in network.parameters()) < 500_000


@pytest.mark.parametrize(
    ("backbone", "millions"), [("swin_tiny", 47), ("swin_small", 69), ("swin_base", 107), ("swin_large", 215)]
)
def test_named_sizes_have_as_many_parameters_as_published(backbone: str, millions: int) -> None:
    """Table of semantic segmentation on ADE20k, 150 classes."""
    with torch.device("meta"):
        network = build_mask2former(changed(backbone=backbone), 150)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == millions


def test_a_whole_checkpoint_brings_everything_but_another_number_of_classes(tmp_path: Path) -> None:
    source, image = tiny(), torch.randn(1, 3, 64, 64)
    source.net.save_pretrained(tmp_path / "net")
    same = build_mask2former(changed(weights=str(tmp_path / "net")), 3).eval()
    assert torch.equal(same(image), source(image))
    other = build_mask2former(changed(weights=str(tmp_path / "net")), 6).eval()
    assert other(image).shape == (1, 6, 16, 16) and other.num_labels == 6
    assert other.net.criterion.empty_weight.tolist() == pytest.approx([1] * 6 + [0.1])
    own, expected = other.net.model.state_dict(), source.net.model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in expected.items())
    assert torch.isfinite(other(image, torch.full((1, 64, 64), 5, dtype=torch.uint8)))


def test_a_checkpoint_in_the_hubs_older_layout_fits(tmp_path: Path) -> None:
    """They lack a norm that is never looked at, and hold buffers that are computed now."""
    source = tiny()
    source.net.save_pretrained(tmp_path / "net")
    path = tmp_path / "net" / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if "swin.layernorm." not in name}
    tables = [name for name in weights if name.endswith("relative_position_bias_table")]
    assert len(weights) == len(load_file(path)) - 2 and len(tables) == 5
    weights |= {name.replace("bias_table", "index"): torch.zeros(16, 16, dtype=torch.long) for name in tables}
    save_file(weights, path, metadata={"format": "pt"})
    network, image = build_mask2former(changed(weights=str(tmp_path / "net")), 3).eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(network(image), source(image))


@pytest.mark.parametrize("kind", [SwinModel, SwinForImageClassification])
def test_a_swin_initialises_the_backbone_and_brings_its_window(tmp_path: Path, kind: type) -> None:
    source = kind(SwinConfig(**TINY_SWIN))
    source.save_pretrained(tmp_path / "swin")
    network = build_mask2former(changed(weights=str(tmp_path / "swin")), 4)
    swin = source if kind is SwinModel else source.swin
    own = network._swin.swin.state_dict()
    assert all(torch.equal(own[name], value) for name, value in swin.state_dict().items())
    assert network._swin.config.window_size == 8 and network._swin.config.drop_path_rate == 0.3
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 4, 16, 16)


def test_saved_and_read_back_it_computes_the_same_without_its_weights(tmp_path: Path) -> None:
    """Window and queries are the checkpoint's, not those that `backbone` names."""
    SwinModel(SwinConfig(**TINY_SWIN)).save_pretrained(tmp_path / "swin")
    first = build_mask2former(changed(weights=str(tmp_path / "swin")), 3)
    first.net.config.no_object_weight = 0.2
    first.net.save_pretrained(tmp_path / "net")
    network = build_mask2former(changed(weights=str(tmp_path / "net")), 4).eval()
    for name in ("swin", "net"):
        shutil.rmtree(tmp_path / name)
    save_segmentation_network(network, str(tmp_path / "saved"))
    again = load_segmentation_network(str(tmp_path / "saved"))
    assert isinstance(again, Mask2Former) and again.config == network.config
    image, labels = torch.randn(1, 3, 64, 64), torch.full((1, 64, 64), 2, dtype=torch.uint8)
    assert torch.equal(again(image), network(image))
    assert torch.equal(seeded(lambda: again(image, labels)), seeded(lambda: network(image, labels)))
    assert again.net.config.no_object_weight == 0.2


def test_a_stored_network_without_its_description_is_broken(tmp_path: Path) -> None:
    network = tiny()
    save_segmentation_network(network, str(tmp_path))
    path = tmp_path / "network.json"
    path.write_text(path.read_text().replace("transformers_config", "other"))
    with pytest.raises(ArtifactError, match="broken"):
        load_segmentation_network(str(tmp_path))


def test_backbones_and_weights_that_do_not_do_are_refused() -> None:
    with pytest.raises(ConfigError, match="swin_large"):
        build_mask2former(changed(backbone="resnet50"), 3)
    with pytest.raises(ConfigError, match="timm has no weights for Mask2Former"):
        build_mask2former(changed(weights="timm"), 3)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def build(folder: str, backbone: str = "miniature") -> Mask2Former:
        return build_mask2former(changed(weights=str(tmp_path / folder), backbone=backbone), 3)

    with pytest.raises(ModelError, match="cannot be read"):
        build("nothing")
    BlipConfig().save_pretrained(tmp_path / "blip")
    with pytest.raises(ModelError, match="is a 'blip'"):
        build("blip")
    SwinModel(SwinConfig(**TINY_SWIN)).save_pretrained(tmp_path / "swin")
    with pytest.raises(ModelError, match=r"set segmentation\.net\.backbone miniature"):
        build("swin", "swin_tiny")
    SwinModel(SwinConfig(**(TINY_SWIN | {"depths": [1, 1, 1, 1]}))).save_pretrained(tmp_path / "shallow")
    with pytest.raises(ModelError, match="choose weights of a miniature"):
        build("shallow")
    tiny().net.model.save_pretrained(tmp_path / "headless")
    with pytest.raises(ModelError, match="3 missing"):
        build("headless")
    tiny().net.save_pretrained(tmp_path / "net")
    with pytest.raises(ModelError, match=r"set segmentation\.net\.backbone miniature"):
        build("net", "swin_large")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be read"):
        build("net")
