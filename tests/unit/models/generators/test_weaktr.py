import dataclasses
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qaclims_ray.data.classes import COCO_GAPS
from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import load_mask_generator
from qaclims_ray.models.generators.weaktr import WeakTr, build_weaktr, refine_by_attention
from qaclims_ray.models.generators.weaktr_checkpoint import (
    convert_checkpoint,
    convert_weights,
    main,
    read_weaktr_checkpoint,
)
from tests.unit.models.wild_files import assert_close, write_wild

TINY = CamNetConfig(generator="weaktr", backbone="miniature_vit", output_stride=8, image_size=32, fusion_reduction=4)
DEIT = CamNetConfig(generator="weaktr", backbone="vit_tiny_patch16_224", image_size=64)
DEPTH, HEADS, DIM, PATCH = 12, 3, 192, 16
"""Of vit_tiny_patch16_224."""


def changed(config: CamNetConfig, **changes: object) -> CamNetConfig:
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_maps_have_a_cell_per_begun_patch_and_are_not_negative() -> None:
    network = build_weaktr(TINY, 5)
    for height, width in ((32, 32), (64, 24), (33, 8), (50, 75)):
        maps = network(torch.randn(2, 3, height, width))
        assert maps.shape == (2, 5, -(-height // 8), -(-width // 8))
        assert maps.min() >= 0 and maps.max() > 0
        scores = network(torch.randn(2, 3, height, width), want="scores")
        assert [tuple(score.shape) for score in scores] == [(2, 5)] * 3


def test_an_incomplete_patch_is_padded_with_the_mean_colour() -> None:
    network = build_weaktr(TINY, 3).eval()
    image = torch.randn(1, 3, 30, 20)
    padded = torch.zeros(1, 3, 32, 24)
    padded[:, :, :30, :20] = image
    assert torch.equal(network(image), network(padded))


def test_timm_backbones_at_their_own_size_and_others() -> None:
    network = build_weaktr(DEIT, 4)
    assert network.backbone.patch_position.shape == (16, DIM)
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 4, 4, 4)
    assert network(torch.randn(1, 3, 48, 96)).shape == (1, 4, 3, 6)


def test_pretrained_files_fill_the_backbone_whatever_their_image_size(tmp_path: Path) -> None:
    """DeiT's own file: under "model", with classifier and final norm, positions of 224 pixels."""
    source = timm.create_model("vit_tiny_patch16_224")
    with torch.no_grad():
        source.cls_token.normal_()
    path = tmp_path / "deit.pth"
    torch.save({"model": source.state_dict()}, path)
    network = build_weaktr(changed(DEIT, weights=str(path), image_size=224), 4)
    assert torch.equal(network.backbone.patch_position, source.pos_embed[0, 1:])
    assert torch.equal(network.backbone.class_token, source.cls_token[0].expand(4, -1))
    assert torch.equal(network.backbone.class_position, source.pos_embed[0, :1].expand(4, -1))
    assert torch.equal(network.backbone.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    smaller = build_weaktr(changed(DEIT, weights=str(path)), 4)
    assert smaller.backbone.patch_position.shape == (16, DIM)
    assert torch.equal(smaller.backbone.patches.weight, source.patch_embed.proj.weight)


def test_the_miniature_vit_starts_from_a_clips_image_tower(tmp_path: Path) -> None:
    """An open_clip file, both towers: the text tower is left out, tokens agree with open_clip's own."""
    tower = open_clip.transformer.VisionTransformer(
        image_size=32, patch_size=8, width=96, layers=4, heads=4, mlp_ratio=4.0, output_dim=64,
        act_layer=open_clip.transformer.QuickGELU,
    )  # fmt: skip
    weights = {f"visual.{name}": value for name, value in tower.state_dict().items()}
    path = tmp_path / "open_clip_model.safetensors"
    save_file(weights | {"token_embedding.weight": torch.zeros(3, 3), "logit_scale": torch.zeros(())}, path)
    network = build_weaktr(changed(TINY, weights=str(path)), 1).eval()
    image = torch.randn(2, 3, 32, 32)
    tokens, _, _ = network.backbone(image)
    tower.ln_post, tower.proj, tower.output_tokens = torch.nn.Identity(), None, True
    pooled, patches = tower.eval()(image)
    torch.testing.assert_close(tokens, torch.cat([pooled[:, None], patches], dim=1), rtol=1e-3, atol=1e-3)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(ModelError, match=r"does not fit|cannot be read"):
        build_weaktr(changed(DEIT, weights=str(path)), 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_stride": 8}, "set it to 16"),
        ({"backbone": "no_such_vit"}, "timm has no model"),
        ({"backbone": "resnet18"}, "plain ViT"),
        ({"backbone": "deit_tiny_distilled_patch16_224"}, "plain ViT"),
        ({"backbone": "deit3_small_patch16_224"}, "plain ViT"),
        ({"backbone": "vit_tiny_patch16_224", "fusion_reduction": 37}, "at most 36"),
        ({"backbone": "miniature_vit"}, "patches of 8 pixels"),
        ({"backbone": "miniature_vit", "output_stride": 8, "weights": "timm"}, "patches of 8 pixels"),
    ],
)
def test_backbones_that_do_not_do_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_weaktr(changed(DEIT, **changes), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 60}, "multiple"),
        ({"image_size": 0}, "multiple"),
        ({"fusion_reduction": 0}, "fusion_reduction"),
        ({"extra_tokens": -1}, "extra_tokens"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"pad_same": True}, "pad_same"),
    ],
)
def test_bad_settings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(TINY, **changes)


def gradients(network: WeakTr, loss: Tensor) -> set[str]:
    """Parameters that the loss reaches."""
    network.zero_grad()
    loss.backward()
    return {name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}


def named(network: WeakTr, *parts: str) -> set[str]:
    return {name for name, _ in network.named_parameters() if name.startswith(parts)}


def active(network: WeakTr) -> WeakTr:
    """Make every relu of head and fusion pass something on."""
    with torch.no_grad():
        network.classifier.bias.fill_(1.0)  # type: ignore[union-attr]
        network.fusion.feature_score[1].bias.fill_(1.0)  # type: ignore[union-attr]
        network.fusion.map_weight[0].weight.abs_()  # type: ignore[operator]
    return network.eval()


def test_each_score_trains_what_it_trains_in_weaktr() -> None:
    """The coarse CAM counts as given in the fine one, so the fine score reaches the fusion alone."""
    network = active(build_weaktr(TINY, 3))
    image = torch.randn(2, 3, 32, 32)
    token, coarse, fine = network(image, want="scores")
    assert gradients(network, fine.square().sum()) == named(network, "fusion")
    token, coarse, fine = network(image, want="scores")
    assert gradients(network, coarse.square().sum()) == named(network, "backbone", "classifier")
    token, coarse, fine = network(image, want="scores")
    assert gradients(network, token.square().sum()) == named(network, "backbone")


def test_all_scores_together_leave_no_parameter_without_gradient() -> None:
    """What DistributedDataParallel needs."""
    network = active(build_weaktr(TINY, 3))
    loss = sum(score.square().sum() for score in network(torch.randn(2, 3, 32, 32), want="scores"))
    assert gradients(network, loss) == named(network, "")


def test_maps_train_head_fusion_and_an_unfrozen_backbone() -> None:
    network = active(build_weaktr(TINY, 3))
    image = torch.randn(2, 3, 32, 32)
    assert gradients(network, network(image).square().sum()) == named(network, "")
    for parameter in network.backbone_parameters():
        parameter.requires_grad_(False)
    assert gradients(network, network(image).square().sum()) == named(network, "classifier", "fusion")


def test_detached_attention_is_a_choice() -> None:
    """Without it the fine score's loss goes through the attention maps into the backbone."""
    network = active(build_weaktr(changed(TINY, detach_attention=False), 3))
    *_, fine = network(torch.randn(2, 3, 32, 32), want="scores")
    reached = gradients(network, fine.square().sum())
    assert "backbone.blocks.0.attn.qkv.weight" in reached and not reached & named(network, "classifier")


def test_head_and_backbone_are_all_parameters_once() -> None:
    network = build_weaktr(TINY, 3)
    parts = [id(p) for p in (*network.head_parameters(), *network.backbone_parameters())]
    assert len(set(parts)) == len(parts)
    assert set(parts) == {id(p) for p in network.parameters()}
    assert not [name for name, _ in network.named_parameters() if name.startswith(("backbone.norm", "backbone.head"))]


def test_stochastic_depth_is_on_in_training_only() -> None:
    network = build_weaktr(changed(TINY, drop_path=0.9), 3)
    image = torch.randn(1, 3, 32, 32)
    torch.manual_seed(0)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


def test_extra_tokens_are_looked_at_but_are_no_class() -> None:
    network = build_weaktr(changed(TINY, extra_tokens=2), 3).eval()
    image = torch.randn(1, 3, 32, 32)
    before = network(image)
    assert before.shape[1] == 3 and len(network.backbone.class_token) == 5
    with torch.no_grad():
        network.backbone.class_token[3:].normal_()
    assert not torch.equal(network(image), before)


def test_refinement_needs_both_attentions() -> None:
    """One class, two patches: the map is where the class looks, spread to where those patches are looked at from."""
    coarse = torch.tensor([[[[2.0, -3.0]]]])
    attention = torch.tensor([[[0.0, 0.5, 0.25], [0.0, 0.1, 0.2], [0.0, 0.3, 0.4]]])
    expected = torch.tensor([[[[0.1 * 0.5 * 2, 0.3 * 0.5 * 2]]]])
    torch.testing.assert_close(refine_by_attention(coarse, attention), expected)


def official(num_outputs: int, *, reduction: int = 4, side: int = 2) -> dict[str, Tensor]:
    """Random weights under the official names, with the sizes of vit_tiny_patch16_224."""
    generator = torch.Generator().manual_seed(num_outputs)

    def random(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=generator)

    maps, head_dim = DEPTH * HEADS, DIM // HEADS
    weights = {
        "cls_token": random(1, num_outputs, DIM),
        "pos_embed": random(1, num_outputs + side**2, DIM),
        "patch_embed.proj.weight": random(DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": random(DIM),
        "norm.weight": random(DIM),
        "norm.bias": random(DIM),
        "head.weight": random(num_outputs, DIM, 3, 3),
        "head.bias": random(num_outputs),
        "adaptive_attention_fusion.attn_head_ffn.0.weight": random(maps // reduction, maps),
        "adaptive_attention_fusion.attn_head_ffn.2.weight": random(maps, maps // reduction),
        "adaptive_attention_fusion.attn_feat_ffn.0.weight": random(head_dim // 8, head_dim),
        "adaptive_attention_fusion.attn_feat_ffn.0.bias": random(head_dim // 8),
        "adaptive_attention_fusion.attn_feat_ffn.1.weight": random(1, head_dim // 8),
        "adaptive_attention_fusion.attn_feat_ffn.1.bias": random(1),
    }
    shapes = {
        "norm1": (DIM,), "attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM), "norm2": (DIM,),
        "mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM),
    }  # fmt: skip
    for block in range(DEPTH):
        for part, shape in shapes.items():
            weights[f"blocks.{block}.{part}.weight"] = random(*shape)
            weights[f"blocks.{block}.{part}.bias"] = random(shape[0])
    return weights


def convert(weights: dict[str, Tensor], folder: Path, dataset: str) -> WeakTr:
    return convert_weights(weights, str(folder), dataset=dataset, backbone=DEIT.backbone)  # type: ignore[arg-type]


def test_a_voc_checkpoint_is_converted_key_by_key(tmp_path: Path) -> None:
    weights = official(20, reduction=4)
    convert(weights, tmp_path, "voc12")
    network = load_mask_generator(str(tmp_path))
    assert isinstance(network, WeakTr) and network.num_classes == 20
    config = network.config
    assert (config.image_size, config.output_stride, config.fusion_reduction) == (32, 16, 4)
    assert (config.fusion_pool, config.extra_tokens) == ("max", 0)
    assert torch.equal(network.backbone.class_position, weights["pos_embed"][0, :20])
    assert torch.equal(network.backbone.patch_position, weights["pos_embed"][0, 20:])
    assert torch.equal(network.backbone.blocks[7].mlp.fc2.bias, weights["blocks.7.mlp.fc2.bias"])
    assert torch.equal(network.classifier.weight, weights["head.weight"])
    stored = load_file(tmp_path / "network.safetensors")
    sources = {value.flatten()[0].item() for name, value in weights.items() if not name.startswith("norm.")}
    assert len(sources) == len(weights) - 2, "every tensor starts with a number of its own"
    assert {value.flatten()[0].item() for value in stored.values()} >= sources
    assert network(torch.randn(1, 3, 48, 32)).shape == (1, 20, 3, 2)


def test_the_coco_networks_80_classes_respond_as_in_the_90_way_network(tmp_path: Path) -> None:
    """Against the same weights run with all 90 outputs: the tokens of the gaps still take part."""
    weights = official(90)
    network = convert(weights, tmp_path / "converted", "coco14")
    assert (network.num_classes, network.config.extra_tokens, network.config.fusion_pool) == (80, 10, "mean")
    whole = build_weaktr(changed(network.config, extra_tokens=0), 90)
    state = {
        name: value for name, value in network.state_dict().items() if not name.startswith(("classifier", "backbone.c"))
    }
    state |= {
        "backbone.class_token": weights["cls_token"][0],
        "backbone.class_position": weights["pos_embed"][0, :90],
        "classifier.weight": weights["head.weight"],
        "classifier.bias": weights["head.bias"],
    }
    whole.load_state_dict(state)
    whole.eval()
    kept = [identifier - 1 for identifier in range(1, 91) if identifier not in COCO_GAPS]
    assert len(kept) == 80
    image = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(network(image), whole(image)[:, kept], rtol=1e-4, atol=1e-6)
    for score, expected in zip(network(image, want="scores"), whole(image, want="scores"), strict=True):
        torch.testing.assert_close(score, expected[:, kept], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole(image)[:, kept], whole(image)[:, :80])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update(surprise=torch.zeros(1)), "surprise"),
        (lambda w: w.update({"blocks.12.norm1.weight": torch.zeros(DIM)}), r"blocks\.12"),
        (lambda w: w.update({"adaptive_attention_fusion.new.0.bias": torch.zeros(1)}), "new"),
        (lambda w: w.pop("blocks.3.attn.qkv.bias"), r"Missing in the file: backbone\.blocks\.3"),
        (lambda w: w.pop("head.bias"), r"Missing in the file: classifier\.bias"),
        (lambda w: w.pop("cls_token"), "no WeakTr checkpoint"),
        (lambda w: w.update({"blocks.3.norm1.bias": torch.zeros(5)}), "instead of"),
        (lambda w: w.update({"adaptive_attention_fusion.fc.0.weight": torch.zeros(1)}), "first release"),
        (lambda w: w.update(official(90)), "Give the right --dataset"),
        (lambda w: w.update(pos_embed=torch.zeros(1, 25, DIM)), "square"),
    ],
)
def test_what_is_not_weaktrs_is_named(tmp_path: Path, change, message: str) -> None:
    weights = official(20)
    change(weights)
    with pytest.raises(ModelError, match=message):
        convert(weights, tmp_path / "out", "voc12")
    assert not (tmp_path / "out").exists()


def test_official_files_hold_a_numpy_number_beside_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_best_mIoU.pth"
    weights = {f"module.{name}": value for name, value in official(20).items()}
    torch.save({"model": weights, "epoch": 7, "miou": np.float64(66.2)}, path)
    assert set(read_weaktr_checkpoint(path)) == set(official(20))
    network = convert_checkpoint(path, str(tmp_path / "out"), dataset="voc12", backbone=DEIT.backbone)
    assert network.num_classes == 20


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "model.", "teacher."])
def test_checkpoints_of_other_trainings_convert(tmp_path: Path, prefix: str) -> None:
    weights = official(20)
    path = write_wild(tmp_path / "last.pth", weights, prefix=prefix)
    network = convert_checkpoint(path, str(tmp_path / "out"), dataset="voc12", backbone=DEIT.backbone)
    assert_close({"x": network.classifier.weight}, {"x": weights["head.weight"]})
    assert load_file(tmp_path / "out/network.safetensors")["classifier.weight"].dtype == torch.float32
    weights["blocks.3.norm1.bias"][1] = torch.nan
    with pytest.raises(ModelError, match=r"NaN or infinite numbers in backbone\.blocks\.3\.norm1\.bias"):
        convert_weights(weights, str(tmp_path / "bad"), dataset="voc12", backbone=DEIT.backbone)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ModelError, match="truncated or damaged zip archive"):
        read_weaktr_checkpoint(path)
    for content in ({"model": {}}, [1, 2]):
        torch.save(content, path)
        with pytest.raises(ModelError, match="expected a state dict of tensors"):
            read_weaktr_checkpoint(path)
    with pytest.raises(ModelError, match="does not exist"):
        read_weaktr_checkpoint(tmp_path / "absent.pth")


def test_the_command_converts_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "checkpoint.pth", tmp_path / "out"
    torch.save({"model": official(20)}, path)
    main([str(path), str(out), "--dataset", "voc12", "--backbone", DEIT.backbone, "--fusion-pool", "mean"])
    assert "20 classes" in capsys.readouterr().out
    assert load_mask_generator(str(out)).config.fusion_pool == "mean"
    with pytest.raises(SystemExit) as stop:
        main([str(path), str(out), "--dataset", "coco14", "--backbone", DEIT.backbone])
    assert stop.value.code == 1 and "coco14 needs 90" in capsys.readouterr().err
