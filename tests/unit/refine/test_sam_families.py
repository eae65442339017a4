"""SAM, SAM 2 and SAM 3, saved and loaded: which is taken for what, and that each is asked as transformers documents."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    Sam2Model,
    Sam2Processor,
    Sam3ImageProcessor,
    Sam3TrackerModel,
    Sam3TrackerProcessor,
    Sam3VideoModel,
    SamHQConfig,
    SamHQMaskDecoderConfig,
    SamHQModel,
    SamHQProcessor,
    SamHQPromptEncoderConfig,
    SamHQVisionConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers import SamConfig as SamModelConfig

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import ModelError
from qaclims_ray.refine.config import MaskConfig, SamConfig
from qaclims_ray.refine.refinement import Refiners, refine_cams
from qaclims_ray.refine.sam_kinds import check_model, require_nameable, require_promptable
from qaclims_ray.refine.sam_masks import generate_masks, load_sam, segment_parts
from qaclims_ray.refine.sam_prompts import PartPrompt
from tests.unit.refine import tiny_sams
from tests.unit.refine.test_sam_masks import ALL, DECODER, PROMPT, VISION, image, save

MODELS = {
    "sam": (SamModel, SamProcessor),
    "sam_hq": (SamHQModel, SamHQProcessor),
    "sam2": (Sam2Model, Sam2Processor),
    "sam3_tracker": (Sam3TrackerModel, Sam3TrackerProcessor),
}
SAVED = {"sam2": tiny_sams.save_sam2, "sam3_tracker": tiny_sams.save_sam3_tracker, "sam3_video": tiny_sams.save_sam3,
         "sam3": tiny_sams.save_sam3_detector}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    made = {kind: write(tmp_path_factory.mktemp(kind)) for kind, write in SAVED.items()}
    config = SamModelConfig(
        vision_config=SamVisionConfig(**VISION),
        prompt_encoder_config=SamPromptEncoderConfig(**PROMPT),
        mask_decoder_config=SamMaskDecoderConfig(**DECODER),
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = SamModel(config)
    with torch.no_grad():
        model.mask_decoder.upscale_conv2.weight *= 30
    hq_config = SamHQConfig(
        vision_config=SamHQVisionConfig(**VISION),
        prompt_encoder_config=SamHQPromptEncoderConfig(**PROMPT),
        mask_decoder_config=SamHQMaskDecoderConfig(**DECODER, vit_dim=32),
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        hq = save(SamHQModel(hq_config), tmp_path_factory.mktemp("hq"))
    return {"sam": save(model, tmp_path_factory.mktemp("sam")), "sam_hq": hq, **made}


def prompt(box, inside=(), outside=()) -> PartPrompt:
    return PartPrompt(0, torch.ones(40, 50, dtype=torch.bool), box, inside, outside)


PROMPTS = [
    prompt((3, 4, 30, 20), ((5, 6), (12, 10)), ((40, 30),)),
    prompt((20, 10, 45, 39)),
    prompt((0, 0, 50, 40), ((25, 20), (30, 5)), ((1, 1),)),
]


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_prompt_s_mask_is_that_of_the_documented_call(kind, folders) -> None:
    masks, ratings = segment_parts(load_sam(folders[kind], "cpu"), image(), PROMPTS)
    of_model, of_processor = MODELS[kind]
    model, processor = of_model.from_pretrained(folders[kind]).eval(), of_processor.from_pretrained(folders[kind])
    assert masks.dtype == torch.bool and masks.shape == (3, 40, 50) and bool(masks.any()) and not bool(masks.all())
    for one, mask, rating in zip(PROMPTS, masks, ratings, strict=True):
        points = [[x + 0.5, y + 0.5] for x, y in (*one.inside, *one.outside)]
        given = {"input_boxes": [[list(map(float, one.box))]]}
        if points:
            given |= {"input_points": [[points]], "input_labels": [[[1] * len(one.inside) + [0] * len(one.outside)]]}
        inputs = processor(images=image(), return_tensors="pt", **given)
        values = {key: inputs[key] for key in ("pixel_values", *given)}
        values = {key: one.float() if one.is_floating_point() else one for key, one in values.items()}
        with torch.no_grad():
            found = model(**values, multimask_output=False)
        large = processor.post_process_masks(
            found.pred_masks, inputs["original_sizes"], reshaped_input_sizes=inputs.get("reshaped_input_sizes")
        )
        assert float(rating) == pytest.approx(float(found.iou_scores.flatten()[0]), abs=1e-4)
        # Prompts that go together change the last bits, so a pixel at the border may fall to the other side.
        assert float((large[0][0, 0] == mask).float().mean()) > 0.995


@pytest.mark.parametrize("kind", ["sam2", "sam3_tracker", "sam3_video"])
def test_the_grid_works_with_each(kind, folders) -> None:
    found = generate_masks(load_sam(folders[kind], "cpu"), image(), ALL)
    assert found.dtype == torch.bool and found.shape[1:] == (40, 50) and 0 < len(found) <= 3 * 16
    assert bool(found.any((1, 2)).all())


def test_the_whole_sam_3_gives_its_own_tracker(folders) -> None:
    assert AutoConfig.from_pretrained(folders["sam3_video"]).model_type == "sam3_video", "as it is handed out"
    whole = Sam3VideoModel.from_pretrained(folders["sam3_video"])
    read = dict(load_sam(folders["sam3_video"], "cpu").model.named_parameters())
    for name, value in whole.tracker_model.named_parameters():
        if name in read:
            torch.testing.assert_close(read[name], value)
    assert {name for name in read if not name.startswith("vision_encoder.")} <= {
        name for name, _ in whole.tracker_model.named_parameters()
    }
    torch.testing.assert_close(
        read["vision_encoder.neck.fpn_layers.0.proj1.weight"], whole.tracker_neck.fpn_layers[0].proj1.weight
    )


def test_nothing_asked_is_nothing_encoded(folders) -> None:
    masks, ratings = segment_parts(load_sam(folders["sam2"], "cpu"), image(), [])
    assert masks.shape == (0, 40, 50) and ratings.shape == (0,)


def test_the_step_paints_what_the_model_answers(folders) -> None:
    sam, maps = load_sam(folders["sam2"], "cpu"), torch.zeros(2, 40, 50)
    maps[0, 5:20, 5:20], maps[1, 22:38, 25:45] = 0.8, 0.9
    cam = ImageCam("one", (1, 4), maps, None, 40, 50)
    config = MaskConfig(steps=("sam",), sam=SamConfig(prompts="seeds"))
    refiners = Refiners(parts=lambda pixels, prompts: segment_parts(sam, pixels, prompts))
    refined = refine_cams([image()], [cam], config, refiners, Classes(("a", "b", "c", "d", "e")))
    (found,) = refined.cams
    assert refined.border == 0.5 and found.full is not None and found.full.sum() > 0
    assert set(found.full.unique().tolist()) <= {0.0, 1.0} and float(found.full.sum(0).max()) == 1.0


def test_what_takes_no_points_is_refused_before_and_while_loading(folders) -> None:
    for refuse in (
        lambda: check_model("masks.sam.model", folders["sam3"], require_promptable),
        lambda: load_sam(folders["sam3"], "cpu"),
    ):
        with pytest.raises(ModelError, match=r"takes names and no points. Expected the whole SAM 3"):
            refuse()


def test_what_takes_no_names_is_refused(folders) -> None:
    for kind in ("sam", "sam2", "sam3_tracker"):
        with pytest.raises(ModelError, match=rf"type '{kind}', which cannot be asked by the names of classes"):
            check_model("sam3_names.model", folders[kind], require_nameable)
    for kind in ("sam3", "sam3_video"):
        check_model("sam3_names.model", folders[kind], require_nameable)
    for kind in ("sam", "sam2", "sam3_tracker", "sam3_video"):
        check_model("masks.sam.model", folders[kind], require_promptable)


def test_a_folder_that_is_no_sam_is_refused_before_any_work(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"there is no config.json in .*model.safetensors. Copy all of them"):
        check_model("masks.sam.model", str(tmp_path), require_promptable)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"type 'bert'. Expected one of sam, sam_hq, sam2"):
        check_model("masks.sam.model", str(tmp_path), require_promptable)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"type 'unknown'"):
        check_model("masks.sam.model", str(tmp_path), require_promptable)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"Copy config.json again"):
        check_model("masks.sam.model", str(tmp_path), require_promptable)
    with pytest.raises(ModelError, match=r"is a file; expected the folder of a model"):
        check_model("masks.sam.model", str(tmp_path / "config.json"), require_promptable)


def test_sam_3_has_to_be_there_and_the_others_may_come_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("QACLIMS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    check_model("masks.sam.model", "facebook/sam-vit-huge", require_promptable)
    check_model("masks.sam.model", "facebook/sam2.1-hiera-tiny", require_promptable)
    for require, setting in ((require_nameable, "sam3_names.model"), (require_promptable, "masks.sam.model")):
        with pytest.raises(ModelError) as refused:
            check_model(setting, "facebook/sam3", require)
        said = str(refused.value)
        assert said.startswith(f"{setting}: Segment Anything 3 is not on this machine")
        assert "Ask for access" in said and "model.safetensors" in said and str(tmp_path / "weights" / "sam3") in said


def test_a_processor_of_another_size(tmp_path) -> None:
    place = tiny_sams.save_sam2(tmp_path)
    Sam2Processor(Sam3ImageProcessor()).save_pretrained(place)
    with pytest.raises(ModelError, match=r"processor for 1008 pixels, but a network for 64"):
        load_sam(place, "cpu")


def test_weights_that_are_not_there(tmp_path) -> None:
    place = Path(tiny_sams.save_sam2(tmp_path))
    (place / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights of the Segment Anything model"):
        load_sam(str(place), "cpu")
