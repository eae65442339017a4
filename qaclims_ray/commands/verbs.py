"""The table of verbs: what each is for, how its line is read, and what it runs.

Everything is imported where it is used: reading a line takes no stage, and listing the verbs takes nothing.
"""

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from qaclims_ray.commands.line import Line, with_run_option

if TYPE_CHECKING:
    from rich.console import Console

    from qaclims_ray.commands.arguments import RunArguments
    from qaclims_ray.run_config import RunConfig
    from qaclims_ray.stages.requests import (
        Ablation,
        CompareArguments,
        ExportMasksArguments,
        ExportNetworkArguments,
        FetchArguments,
        LabelTheseArguments,
        PredictArguments,
        PromptArguments,
        RerunArguments,
        Search,
        StartArguments,
        UiArguments,
    )

_Asked = TypeVar("_Asked")
_WITH_TABLES = ("run", "report", "evaluate")
"""Last stages after which the results are printed."""


@dataclass(frozen=True)
class Verb(Generic[_Asked]):
    """One word of the command."""

    about: str
    """What it does, for the list of verbs and its own help."""
    parse: Callable[[Line], _Asked]
    """Reads its line."""
    run: "Callable[[_Asked, Console], str | None]"
    """Does what was asked for; returns what stayed incomplete, None where nothing did."""


@dataclass(frozen=True)
class SyncArguments:
    """Where unsent tracking calls wait, and where they go."""

    spool: str
    """Folder that the warning named."""
    uri: str
    """Tracking server or store."""


@contextlib.contextmanager
def _owning(*folders: str) -> Iterator[None]:
    """Own the folders that a verb writes in; what it runs in them, in this process or another, is its own."""
    from qaclims_ray.data.addresses import without_credentials
    from qaclims_ray.data.folder_owner import owning
    from qaclims_ray.stages.run_folder import absolute_out

    program = os.path.basename(sys.argv[0])
    # It stands in the folder and in the message to a second run; the address of the tracking store may hold a password.
    command = without_credentials(shlex.join(["qaclims" if program == "__main__.py" else program, *sys.argv[1:]]))
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(owning(absolute_out(folder), command))
        yield


def _look_first(config: "RunConfig", out: str) -> None:
    """Refuse data of which nothing can come before anything is written or imported that takes long."""
    from qaclims_ray.stages.first_look import look_first
    from qaclims_ray.stages.run_folder import absolute_out

    look_first(config, absolute_out(out))


def _announce(console: "Console", verb: str, preset: str, out: str) -> None:
    """Say at once what begins: what it imports takes seconds."""
    from qaclims_ray.report.console_text import print_line

    print_line(console, f"{verb} {preset} -> {out}")


# --- the pipeline's stages


def _pipeline(until: str, about: str) -> "Verb[RunArguments]":
    return Verb(about, _parse_run, functools.partial(_run, until))


def _parse_run(line: Line) -> "RunArguments":
    from qaclims_ray.commands.arguments import parse_run

    return parse_run(line)


def _run(until: str, asked: "RunArguments", console: "Console") -> None:
    _look_first(asked.config, asked.out)
    _run_until(until, asked.config, asked.out, console)


def _run_until(until: str, config: "RunConfig", out: str, console: "Console", said: Container[str] = ()) -> None:
    with _owning(out):
        _announce(console, until, config.name, out)
        from qaclims_ray.stages.pipeline import run_pipeline
        from qaclims_ray.stages.results_console import print_results

        outcome = run_pipeline(config, out, until=until, said=said)
    if until in _WITH_TABLES:
        print_results(outcome, console)


def _parse_start(line: Line) -> "StartArguments":
    from qaclims_ray.stages.requests import StartArguments

    return _parse(StartArguments, line)


def _start(asked: "StartArguments", console: "Console") -> None:
    from qaclims_ray.stages.start import prepare_start

    ready = prepare_start(asked, console)
    if not asked.dry_run:
        _run_until("run", ready.config, ready.out, console, ready.said)


# --- many runs of a preset


def _parse_ablation(line: Line) -> "Ablation":
    from qaclims_ray.commands.ablate import parse_ablation

    return parse_ablation(line)


def _ablate(asked: "Ablation", console: "Console") -> str | None:
    _look_first(asked.config, asked.out)
    with _owning(asked.out, *[asked.folder(seed) for seed in asked.seeds]):
        _announce(console, "ablate", asked.config.name, asked.out)
        from qaclims_ray.report.ablation import failures
        from qaclims_ray.stages.ablate import run_ablation

        failed = failures(run_ablation(asked, console))
    return f"{len(failed)} trials failed; the same command tries them again" if failed else None


def _parse_search(line: Line) -> "Search":
    from qaclims_ray.commands.tune import parse_search

    return parse_search(line)


def _tune(asked: "Search", console: "Console") -> None:
    _look_first(asked.config, asked.out)
    with _owning(asked.out):
        _announce(console, "tune", asked.config.name, asked.out)
        from qaclims_ray.stages.tune import run_search

        run_search(asked, console)


# --- verbs without a preset


def _parse_comparison(line: Line) -> "CompareArguments":
    from qaclims_ray.stages.requests import CompareArguments

    return _parse(CompareArguments, line)


def _compare(asked: "CompareArguments", console: "Console") -> None:
    from qaclims_ray.report.comparison import print_comparison
    from qaclims_ray.report.console_text import print_line
    from qaclims_ray.stages.compare import run_compare

    with _owning(*asked.owned()):
        comparison, page = run_compare(asked)
    print_comparison(comparison, console)
    print_line(console, f"written  {page}")


def _parse_rerun(line: Line) -> "RerunArguments":
    from qaclims_ray.stages.requests import RerunArguments

    return _parse(RerunArguments, line)


def _rerun(asked: "RerunArguments", console: "Console") -> str | None:
    from qaclims_ray.stages.rerun import difference, print_rerun, run_rerun

    with _owning(asked.folder):
        _announce(console, "rerun", asked.run, asked.folder)
        found = run_rerun(asked)
    print_rerun(found, console)
    return difference(found) or None


def _parse_prediction(line: Line) -> "PredictArguments":
    from qaclims_ray.stages.requests import PredictArguments

    return _parse(PredictArguments, with_run_option(line))


def _predict(asked: "PredictArguments", console: "Console") -> None:
    from qaclims_ray.stages.predict import run_predict

    with _owning(asked.out):
        run_predict(asked)


def _parse_export_network(line: Line) -> "ExportNetworkArguments":
    from qaclims_ray.stages.requests import ExportNetworkArguments

    return _parse(ExportNetworkArguments, with_run_option(line))


def _export_network(asked: "ExportNetworkArguments", console: "Console") -> None:
    with _owning(asked.out):
        _announce(console, "export-network", asked.run, asked.out)
        from qaclims_ray.stages.export_network import run_export_network

        run_export_network(asked, console)


def _parse_label_these(line: Line) -> "LabelTheseArguments":
    from qaclims_ray.stages.requests import LabelTheseArguments

    return _parse(LabelTheseArguments, line)


def _label_these(asked: "LabelTheseArguments", console: "Console") -> None:
    from qaclims_ray.report.console_text import print_line, print_table

    with _owning(asked.folder):
        if not asked.read:
            from qaclims_ray.stages.label_these import run_label_these

            for text in run_label_these(asked):
                print_line(console, text)
            return
        from qaclims_ray.stages.label_these_read import hand_remarks, hand_scores_table, score_hand_masks

        found = score_hand_masks(asked)
    print_table(console, hand_scores_table(found), f"Against {len(found.corrected)} masks corrected by hand")
    for text in hand_remarks(found):
        print_line(console, text)


def _parse_export_masks(line: Line) -> "ExportMasksArguments":
    from qaclims_ray.stages.requests import ExportMasksArguments

    return _parse(ExportMasksArguments, line)


def _export_masks(asked: "ExportMasksArguments", console: "Console") -> None:
    from qaclims_ray.report.console_text import print_line
    from qaclims_ray.stages.export_masks import run_export_masks

    with _owning(asked.out):
        for text in run_export_masks(asked, console):
            print_line(console, text)


def _parse_prompts(line: Line) -> "PromptArguments":
    from qaclims_ray.stages.requests import PromptArguments

    return _parse(PromptArguments, with_run_option(line))


def _prompts(asked: "PromptArguments", console: "Console") -> None:
    from qaclims_ray.stages.prompts import run_read_prompts

    with _owning(asked.out or asked.run):
        run_read_prompts(asked, console)


def _parse_fetch(line: Line) -> "FetchArguments":
    from qaclims_ray.stages.requests import FetchArguments

    return _parse(FetchArguments, line)


def _fetch(asked: "FetchArguments", console: "Console") -> None:
    from qaclims_ray.stages.fetch import run_fetch

    run_fetch(asked, console)


def _parse_ui(line: Line) -> "UiArguments":
    from qaclims_ray.stages.requests import UiArguments

    return _parse(UiArguments, line)


def _ui(asked: "UiArguments", console: "Console") -> None:
    from qaclims_ray.stages.ui import run_ui

    run_ui(asked, console)


def _parse_sync(line: Line) -> SyncArguments:
    return _parse(SyncArguments, line)


def _sync(asked: SyncArguments, console: "Console") -> None:
    from qaclims_ray.data.addresses import without_credentials
    from qaclims_ray.report.console_text import print_line
    from qaclims_ray.tracking.mlflow_tracker import replay

    print_line(console, f"sent {replay(asked.spool, asked.uri)} calls to {without_credentials(asked.uri)}")


def _parse(kind: type[_Asked], line: Line) -> _Asked:
    from qaclims_ray.commands.parsing import read_options

    return read_options(kind, line, line.arguments)


VERBS: dict[str, Verb[Any]] = {
    "start": Verb(
        "begin with a folder of your own photographs: look at it, choose a run, say why and how long, and run it",
        _parse_start,
        _start,
    ),
    "run": _pipeline(
        "run", "the whole pipeline: data, corpus, texts, training, CAMs, scores, masks, final networks, report"
    ),
    "data": _pipeline("data", "read a data set into a manifest (the miniature is drawn first)"),
    "corpus": _pipeline("corpus", "ask the VQA model about every training image"),
    "text": _pipeline("text", "encode the texts of every system"),
    "train": _pipeline("train", "train the classifier and every system's network"),
    "cams": _pipeline("cams", "compute the CAMs of every system"),
    "evaluate": _pipeline("evaluate", "score the CAMs of every system"),
    "refine": _pipeline("refine", "turn CAMs into pseudo masks"),
    "segment": _pipeline("segment", "train the final networks on the pseudo masks and score them"),
    "report": _pipeline("report", "write the report; what is missing is computed first"),
    "ablate": Verb(
        "run a table of either paper over seeds, and write it with our column beside it", _parse_ablation, _ablate
    ),
    "compare": Verb(
        "what differs between runs, in settings and in results, with paired bootstrap intervals",
        _parse_comparison,
        _compare,
    ),
    "rerun": Verb(
        "repeat a run from its stored settings in a new folder, and hold every file to the first", _parse_rerun, _rerun
    ),
    "predict": Verb("masks and overlays of any images, by a trained run", _parse_prediction, _predict),
    "export-network": Verb(
        "take a trained network away: one ONNX file with a script that runs it, and a folder for a model hub",
        _parse_export_network,
        _export_network,
    ),
    "label-these": Verb(
        "the images most worth a mask by hand, exported with drafts; with --read, scores against them",
        _parse_label_these,
        _label_these,
    ),
    "export-masks": Verb(
        "masks for the tools where people correct them: COCO, CVAT, LabelMe, X-AnyLabeling, YOLO, VOC, MMSegmentation",
        _parse_export_masks,
        _export_masks,
    ),
    "prompts": Verb(
        "what learned prompts say: nearest words, similarity maps beside manual prompts", _parse_prompts, _prompts
    ),
    "tune": Verb("search settings of a system by Ray Tune, without masks by default", _parse_search, _tune),
    "fetch": Verb("bring weights and public data sets, with checksums; --list shows them", _parse_fetch, _fetch),
    "ui": Verb("the curves, figures and models of your runs in the browser, by MLflow", _parse_ui, _ui),
    "sync": Verb("send what could not be sent while the tracking server was away", _parse_sync, _sync),
}
"""All verbs by name."""
