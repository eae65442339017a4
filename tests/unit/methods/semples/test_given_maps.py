import dataclasses

import pytest
import torch

from qaclims_ray.data.images import load_image
from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.methods.semples.given_maps import WholeImages
from qaclims_ray.methods.semples.matching import region_options
from qaclims_ray.methods.semples.prompts import train_prompts
from qaclims_ray.models.clip.prompts import load_prompts
from qaclims_ray.models.generators.cam_net import build_cam_net, save_cam_net
from qaclims_ray.training.context import LocalContext
from tests.ritc_fakes import AUGMENT, CAM_NET, with_setup, write_pictures
from tests.semples_fakes import prompt_config, semples_config, shipped_clip, texts_near

UNMIRRORED = dataclasses.replace(AUGMENT, flip=False)  # 32 px, as the pictures: crops are whole images


def _normalised(record) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CAM_NET.image_mean, CAM_NET.image_std))
    return (load_image(record.image_uri).float() / 255 - mean) / std


def _learned(tmp_path, name: str, *, options, **changes) -> torch.Tensor:
    settings = prompt_config(epochs=1, num_views=changes.pop("num_views", 1))
    train_prompts(
        **with_setup(
            manifest=write_pictures(tmp_path),
            clip=shipped_clip(),
            class_texts=texts_near(shipped_clip(), 3, seed=3),
            cam_net=CAM_NET,
            augment=UNMIRRORED,
            semples=semples_config(prompt=settings),
            options=options,
            precision="fp32",
            loader_workers=0,
            seed=0,
            context=LocalContext(str(tmp_path / name)),
            **{"init_dir": str(tmp_path / "nowhere"), **changes},
        )
    )
    return load_prompts(str(tmp_path / name / "latest")).vectors


@pytest.mark.parametrize("omega", [0.0, 0.4])
def test_prompts_on_given_maps_equal_those_on_a_network_with_the_same_maps(tmp_path, omega) -> None:
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3, classifier_bias=True).eval()
    network.classifier.weight.data *= 60
    save_cam_net(network, str(tmp_path / "init"))
    records = write_pictures(tmp_path).records

    def maps_of(position: int) -> torch.Tensor:
        record = records[position]
        return network(_normalised(record)[None])[0, list(record.labels)].sigmoid().detach()

    options = region_options(semples_config(mask="sigmoid", omega=omega), epsilon=1e-4)
    expected = _learned(tmp_path, "network", options=options, init_dir=str(tmp_path / "init"))
    given = dataclasses.replace(options, mask="given")
    found = _learned(tmp_path, "given", options=given, given=maps_of)
    torch.testing.assert_close(found, expected)
    others = _learned(tmp_path, "others", options=given, given=lambda position: 1 - maps_of(position))
    assert (others - expected).abs().max() > 1e-3
    mirrored = [_learned(tmp_path, f"{n}", options=given, given=maps_of, num_views=n) for n in (2, 3)]
    assert (mirrored[0] - found).abs().max() > 1e-4 and torch.equal(*mirrored)


def test_images_come_whole_at_one_size_with_the_maps_of_their_labels(tmp_path) -> None:
    manifest = write_pictures(tmp_path, num_images=6)
    maps = [torch.rand(len(r.labels), 5, 9, generator=torch.Generator().manual_seed(i)) for i, r in
            enumerate(manifest.records)]  # fmt: skip
    dataset = WholeImages(manifest, maps.__getitem__, CAM_NET, size=24, antialias=False)
    plain = [dataset[index] for index in range(len(dataset))]
    for item, record, given in zip(plain, manifest.records, maps, strict=True):
        torch.testing.assert_close(item["image"], resize_bilinear(_normalised(record)[None], 24)[0])
        assert item["maps"].shape == (3, 24, 24)
        assert item["labels"].nonzero().flatten().tolist() == list(record.labels)
        if record.labels:
            torch.testing.assert_close(item["maps"][list(record.labels)], resize_bilinear(given[None], 24)[0])
        absent = sorted({0, 1, 2} - set(record.labels))
        assert not item["maps"][absent].any()
    dataset.set_epoch(1)
    for index, item in enumerate(plain):
        assert torch.equal(dataset[index]["image"], item["image"].flip(2))
        assert torch.equal(dataset[index]["maps"], item["maps"].flip(2))
