"""What a SAM is asked about seeds, against a slow restatement, and how its answers are painted."""

import math

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.refine.config import SamConfig
from qaclims_ray.refine.sam_prompts import PartPrompt, painted, prompts_of

BORDER = 0.3


def cam_of(*maps: torch.Tensor) -> ImageCam:
    height, width = maps[0].shape
    return ImageCam("one", tuple(range(3, 3 + len(maps))), torch.stack(maps), None, height, width)


def empty(height: int = 20, width: int = 30) -> torch.Tensor:
    return torch.zeros(height, width)


def config_of(**values) -> SamConfig:
    return SamConfig(prompts="seeds", **values)


def restated(cam: ImageCam, config: SamConfig) -> list[tuple]:
    """The rules one after the other, pixel by pixel: class, box, points inside and outside of each prompt."""
    labels, found = label_map(cam, BORDER), []
    for position, class_id in enumerate(cam.class_ids):
        scores, waiting, parts = cam.full[position], [], []
        left = {(x, y) for y in range(cam.height) for x in range(cam.width) if int(labels[y, x]) == class_id + 1}
        while left:
            part, waiting = set(), [min(left, key=lambda one: (one[1], one[0]))]
            while waiting:
                x, y = waiting.pop()
                if (x, y) in left:
                    left.discard((x, y))
                    part.add((x, y))
                    waiting += [(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
            parts.append(part)
        parts.sort(key=lambda part: -len(part))
        large = [part for part in parts if len(part) >= config.least_part * cam.height * cam.width] or parts[:1]
        found += [(position, *_restated_prompt(cam, scores, part, config)) for part in large]
    return found


def _restated_prompt(cam, scores, part, config):
    xs, ys = [x for x, _ in part], [y for _, y in part]
    left, top, right, bottom = min(xs), min(ys), max(xs) + 1, max(ys) + 1
    spacing = math.sqrt(len(part)) / 2
    outer = {(x, y) for x in range(-1, cam.width + 1) for y in range(-1, cam.height + 1)} - part
    depth = {one: min(math.dist(one, other) for other in outer) for one in part}
    inside: list = []
    while len(inside) < config.points_per_part:
        free = [one for one in part if all(math.dist(one, other) >= spacing - 1e-9 for other in inside)]
        if not free:
            break
        inside.append(min(free, key=lambda p: (-float(scores[p[1], p[0]]), -round(depth[p], 6), p[1], p[0])))
    down, across = round(0.25 * (bottom - top)), round(0.25 * (right - left))
    low = [
        (x, y)
        for y in range(max(0, top - down), min(cam.height, bottom + down))
        for x in range(max(0, left - across), min(cam.width, right + across))
        if float(scores[y, x]) <= BORDER / 2
    ]
    outside: list = []
    while len(outside) < config.points_per_part:
        free = [one for one in low if all(math.dist(one, other) >= spacing - 1e-9 for other in outside)]
        if not free:
            break
        apart = {p: min((math.dist(p, other) for other in [*inside, *outside]), default=math.inf) for p in free}
        outside.append(min(free, key=lambda p: (float(scores[p[1], p[0]]), -round(apart[p], 6), p[1], p[0])))
    return (left, top, right, bottom), tuple(inside), tuple(outside)


def asked(cam: ImageCam, config: SamConfig) -> list[tuple]:
    return [(one.position, one.box, one.inside, one.outside) for one in prompts_of(cam, BORDER, config)]


def flat_and_rough() -> ImageCam:
    generator = torch.Generator().manual_seed(1)
    first, second = empty(), empty()
    first[2:9, 3:14] = 0.8  # flat: depth decides
    first[12:16, 20:24] = 0.5
    first[18, 0] = 0.9  # too small
    second[6:15, 12:19] = 0.4 + 0.5 * torch.rand(9, 7, generator=generator)  # overlaps the first
    second[:, 19:] = torch.rand(20, 11, generator=generator) * 0.29
    return cam_of(first, second)


@pytest.mark.parametrize("points", [0, 1, 3, 6])
@pytest.mark.parametrize("least", [0.005, 0.05, 0.5])
def test_prompts_are_those_of_the_rules_written_out(points: int, least: float) -> None:
    cam, config = flat_and_rough(), config_of(points_per_part=points, least_part=least)
    assert asked(cam, config) == restated(cam, config)


def test_random_maps_too() -> None:
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        maps = torch.nn.functional.interpolate(
            torch.rand(1, 2, 4, 5, generator=generator), (16, 18), mode="bilinear", align_corners=False
        )[0]
        cam, config = cam_of(*(maps.clamp(0.2, 0.7) - 0.2)), config_of(points_per_part=2)
        assert asked(cam, config) == restated(cam, config) != []


def test_a_flat_part_is_pointed_at_in_its_middle_and_small_parts_are_not_asked_about() -> None:
    one = empty()
    one[4:11, 6:15] = 0.9
    one[18, 28] = 0.9
    (prompt,) = prompts_of(cam_of(one), BORDER, config_of(points_per_part=1))
    assert prompt.box == (6, 4, 15, 11) and prompt.inside == ((9, 7),) and int(prompt.part.sum()) == 63
    assert float(one[prompt.outside[0][1], prompt.outside[0][0]]) == 0
    # A class that has nothing larger is asked about all the same.
    dot = empty()
    dot[18, 28] = 0.9
    (prompt,) = prompts_of(cam_of(dot), BORDER, config_of())
    assert prompt.box == (28, 18, 29, 19) and prompt.inside == ((28, 18),)


def test_no_seed_no_prompt_and_no_low_score_no_point_outside() -> None:
    assert prompts_of(cam_of(empty()), BORDER, config_of()) == []
    everywhere = torch.full((20, 30), 0.2)
    everywhere[5:10, 5:10] = 0.8
    (prompt,) = prompts_of(cam_of(everywhere), BORDER, config_of())
    assert len(prompt.inside) == 3 and prompt.outside == ()


def _prompt(position: int, *columns: int) -> PartPrompt:
    part = torch.zeros(1, 6, dtype=torch.bool)
    part[0, list(columns)] = True
    return PartPrompt(position, part, (0, 0, 1, 1), (), ())


def _mask(*columns: int) -> torch.Tensor:
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, list(columns)] = True
    return mask


def shown(prompts, masks, ratings, classes: int = 2) -> list[list[float]]:
    cam = ImageCam("one", tuple(range(classes)), torch.zeros(classes, 1, 6), None, 1, 6)
    full = painted(cam, prompts, torch.stack(masks), torch.tensor(ratings)).full
    assert full is not None
    return full[:, 0].tolist()


def test_the_better_mask_lies_on_top_whatever_the_order() -> None:
    masks, prompts = [_mask(0, 1, 2), _mask(2, 3)], [_prompt(0, 0), _prompt(1, 3)]
    assert shown(prompts, masks, [0.9, 0.8]) == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert shown(prompts, masks, [0.7, 0.8]) == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]
    assert shown(prompts, masks, [0.8, 0.8])[0] == [1, 1, 1, 0, 0, 0], "of equals the first"
    assert shown(prompts[::-1], masks[::-1], [0.9, 0.7])[1] == [0, 0, 1, 1, 0, 0]


def test_an_empty_answer_keeps_the_seed_below_the_others() -> None:
    found = shown([_prompt(0, 0, 1), _prompt(1, 1)], [_mask(), _mask(1, 4)], [0.99, 0.1])
    assert found == [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0]]


def test_nothing_asked_nothing_painted() -> None:
    cam = ImageCam("one", (2,), torch.zeros(1, 1, 6), None, 1, 6)
    full = painted(cam, [], torch.zeros(0, 1, 6, dtype=torch.bool), torch.zeros(0)).full
    assert full is not None and full.shape == (1, 1, 6) and not full.any()
