"""The help of a preset: the settings that people change, in groups, in a user's words, with their present values."""

import dataclasses
import shutil
import textwrap
import typing
from collections.abc import Collection, Iterator
from typing import Any

from qaclims_ray.commands.every_setting import HelpLine, documented_fields, in_words, placeholder_of, setting_sections
from qaclims_ray.commands.line import HELP_ALL
from qaclims_ray.run_config import RunConfig, flat

HelpGroup = tuple[str, tuple[HelpLine, ...]]

GROUPS: tuple[HelpGroup, ...] = (
    (
        "what it reads and writes",
        (
            ("out", "DIR", "folder for all that is made: a path or an address (s3://bucket/run); required"),
            ("data_root", "DIR", "folder of the data set"),
            ("data.dataset", "", "how the data set lies there; folder is any folder of images with labels"),
            ("data.label_file", "FILE", "table of image labels, where it does not lie in the data set's folder"),
            ("data.train_split", "NAME", "images that are learned from"),
            ("data.test_split", "NAME", "images on which final networks are scored"),
            ("data.limit", "N", "take only the first N images of each split, for a quick try"),
        ),
    ),
    (
        "what is compared, and how far it goes",
        (
            ("systems", "NAME ...", "ways to make masks that are trained side by side and compared"),
            ("goal", "", "where to stop: seed (heat maps), mask (refined masks), segmentation (a network of its own)"),
            ("supervised_bound", "", "also train a final network on the true masks, as the bound of the others"),
            ("seed", "N", "seed of all randomness; other seeds give other figures"),
        ),
    ),
    (
        "weights",
        (
            ("licences", "", "permissive refuses weights that may not be used commercially"),
            ("cam_net.backbone", "NAME", "network that is trained to find classes: a name of timm"),
            ("cam_net.weights", "FILE", "what it starts from: a file, timm (ImageNet weights, downloaded), or nothing"),
            ("clip.weights", "FILE", "CLIP that supervises: a file, or openai (plain CLIP, downloaded)"),
            ("corpus.model", "NAME", "model that answers questions about images: a name on the hub, or a folder"),
            ("segmentation.net.weights", "FILE", "start of the final network: a file, timm, classifier, random"),
        ),
    ),
    (
        "training",
        (
            ("augment.crop_px", "PIXELS", "side of the square that is cut out of each training image"),
            ("classifier.optim.epochs", "N", "passes over the images in which the classes are learned"),
            ("segmentation.net.architecture", "", "final network; encoder is any network of timm with a light decoder"),
            ("segmentation.optim.epochs", "N", "length of its training"),
        ),
    ),
    (
        "masks",
        (
            ("masks.steps", "", "how heat maps become masks: irn learns borders, crf goes by colour"),
            ("masks.seed_threshold", "X", "how sure a pixel must be of its class, 0 to 1; lower: larger masks"),
        ),
    ),
    (
        "machine and tracking",
        (
            ("cluster.use_gpu", "", "train on GPUs"),
            ("cluster.num_workers", "N", "processes that train together; 0: this process; None: by what is there"),
            ("cluster.precision", "", "arithmetic of the trainings; auto is bf16 on GPUs, fp32 on CPUs"),
            ("tracking.uri", "ADDRESS", "MLflow server or store; empty keeps one beside the output folder"),
        ),
    ),
)  # fmt: skip
"""What people change; everything else is under --help-all."""
_OWN_GROUP = "this verb"
_COMPARED = "Where papers and their released code differ: docs/method.md, section 10."
_FLAGS_WIDTH = 44


def settings_help(
    prog: str,
    about: str,
    preset_about: str,
    kind: type,
    config: RunConfig,
    left_out: Collection[str] = (),
    *,
    every: bool = False,
) -> str:
    """Return the help of a verb for a preset.

    Args:
        prog: program, verb and preset.
        about: what the verb does.
        preset_about: what the preset is.
        kind: what the verb reads besides settings; its fields of its own come first.
        config: the preset's settings.
        left_out: settings that the verb decides itself.
        every: all settings, in the sections of their names, in place of those that people change.
    """
    values = flat(config) | {"out": "", "data_root": config.data.root}
    lines = [f"usage: {prog} --out DIR [settings]", "", about, *([""] if preset_about else []), preset_about]
    own = tuple(_own_fields(kind, values))
    for title, settings in ((_OWN_GROUP, own), *(_all_groups(config) if every else GROUPS)):
        if listed := [one for one in settings if one[0] not in left_out]:
            lines += ["", *_wrapped(f"{title}:"), *(line for one in listed for line in _shown(one, values))]
    more = [_COMPARED] if every else [f"`{prog} {HELP_ALL}` shows all {len(flat(config))} settings."]
    return "\n".join([*lines, "", " ".join(["In brackets: what this preset sets.", *more])])


def _all_groups(config: RunConfig) -> Iterator[HelpGroup]:
    yield GROUPS[0][0], GROUPS[0][1][:2]  # where it writes and reads: no settings, but needed with all of them
    for section in setting_sections(config):
        title = f"{section.name}: {section.words}" if section.name else section.words
        settings = [(name, words_for, in_words(words)) for name, words_for, words in section.settings]
        yield in_words(title).rstrip("."), tuple(settings)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width(), break_on_hyphens=False, break_long_words=False)


def _width() -> int:
    return max(80, min(shutil.get_terminal_size((120, 24)).columns, 120))


def _shown(setting: HelpLine, values: dict[str, Any]) -> list[str]:
    name, words_for, words = setting
    flag = f"--{name.replace('_', '-')} {words_for or _choices(name)}"
    present = shown_value(values[name])
    text = words if name == "out" else f"{words} [{present or 'empty'}]"
    body = textwrap.wrap(text, _width() - _FLAGS_WIDTH - 2, break_on_hyphens=False, break_long_words=False)
    if len(flag) > _FLAGS_WIDTH - 1:
        return [f"  {flag}", *(f"  {'':<{_FLAGS_WIDTH}}{line}" for line in body)]
    return [f"  {flag if n == 0 else '':<{_FLAGS_WIDTH}}{line}" for n, line in enumerate(body)]


def shown_value(value: Any) -> str:
    """Return a setting's value on one line, of a long one its beginning."""
    if isinstance(value, list | tuple):
        value = " ".join(str(one["name"] if isinstance(one, dict) else one) for one in value)
    return textwrap.shorten(str(value), 100, placeholder=" ...")


def _choices(name: str) -> str:
    """Return the words that a setting takes."""
    *parents, last = name.split(".")
    kind: Any = RunConfig
    for parent in parents:
        kind = typing.get_type_hints(kind)[parent]
    return placeholder_of(typing.get_type_hints(kind)[last])


def _own_fields(kind: type, values: dict[str, Any]) -> Iterator[HelpLine]:
    """Yield what a verb reads besides the settings, with its documentation; put present values among the others."""
    from qaclims_ray.commands.arguments import RunArguments

    shared = {field.name for field in dataclasses.fields(RunArguments)}
    words, hints = documented_fields(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in shared:
            continue
        default = field.default_factory() if callable(field.default_factory) else field.default  # type: ignore[misc]
        if dataclasses.is_dataclass(hints[field.name]):  # its fields stand among the verb's own
            inner = hints[field.name]
            inner_words, inner_hints = documented_fields(inner), typing.get_type_hints(inner)
            for one in dataclasses.fields(inner):
                values[one.name] = getattr(default, one.name)
                yield one.name, placeholder_of(inner_hints[one.name]), inner_words.get(one.name, "")
            continue
        values[field.name] = default
        yield field.name, placeholder_of(hints[field.name]), words.get(field.name, "")
