"""Pictures of a run's pages as a browser shows them: report, gallery and MLflow, light and dark, 1300 and 700 pixels.

    python -m benchmarks.page_pictures RUN --out docs/results

They go into ``gallery/`` and ``mlflow_ui/`` of that folder, as PNGs of few colours. RUN is a finished run that was
tracked beside its folder; nothing in it is changed but the columns of MLflow's list, which `qaclims ui` sets too. The
two latest other runs of its store are compared, or it with the other one; trials of a search where there are any.
"""

import argparse
import io
import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.browser import WHOLE, Page, browser_page, find_browser
from qaclims_ray.tracking.mlflow_runs import RECORD_NAME

_COLOURS = 256
_WAIT_S = 240.0
_WIDE, _NARROW = 1300, 700
_SETTLED = "new Promise(done => setTimeout(done, 2500))"
"""MLflow's charts move into their place."""


@dataclass(frozen=True)
class Shot:
    """One picture."""

    name: str
    """Of its file, before width and colours."""
    place: str
    """Address, from the pages' own on."""
    ready: str
    """Expression that is true in the page when all is drawn."""
    height: int
    """Of the window, in pixels."""
    narrow_height: int
    """Of the narrow window, in pixels; 0 takes none."""
    act: str = ""
    """What is done in the page once it is ready."""
    then: str = "true"
    """What is true after it."""


REPORT = "document.querySelectorAll('section').length > 5 && [...document.images].every(image => image.complete)"
_TABLE = "document.querySelector('[aria-label=\"from seeds to the final network\"]').closest('section')"
_OPENED = "document.querySelectorAll('#all img').length > 3 && [...document.images].every(image => image.complete)"
PAGES = (
    Shot("report", "report/report.html", REPORT, 1000, 1400),
    Shot("stages", "report/report.html", REPORT, 900, 1250, act=f"{_TABLE}.scrollIntoView()"),
    Shot("gallery", "report/gallery/index.html", WHOLE, 580, 900),
    Shot(
        "image",
        "report/gallery/index.html",
        WHOLE,
        720,
        1000,
        then=_OPENED,
        act="location.hash = 'image=' + encodeURIComponent(document.querySelector('.card b').textContent)",
    ),
)
"""Files of a run."""


def said(*texts: str) -> str:
    """Return the expression that these texts stand in the page."""
    return " && ".join(f"document.body.innerText.includes({json.dumps(text)})" for text in texts)


_TO_THE_FIGURES = (
    "document.querySelectorAll('.ag-body-horizontal-scroll-viewport').forEach(one => one.scrollLeft = 600)"
)
_TRAINING = "workflowType=machine_learning"
_COLUMNS = "viewStateShareKey=qaclims"


def mlflow_shots(experiment: str, runs: list[dict], trials: list[dict], model: str) -> tuple[Shot, ...]:
    """Return the pictures of MLflow's pages.

    Args:
        experiment: its number.
        runs: those of pipelines, as MLflow tells of them; the first has a page.
        trials: those of a search.
        model: number of a logged model; empty for none.
    """
    first, at = runs[0]["info"], f"/#/experiments/{experiment}"
    shots = [
        Shot("runs", f"{at}/runs?{_TRAINING}&{_COLUMNS}", said(first["run_name"], "final_miou"), 620, 700),
        Shot(
            "charts", f"{at}/runs?{_TRAINING}&{_COLUMNS}&compareRunsMode=CHART", said("headline", "Add section"), 900, 0
        ),
        Shot("run", f"{at}/runs/{first['run_id']}?{_TRAINING}", said("mIoU", "headline/final_miou"), 900, 1100),
    ]
    if model:
        shots += [
            Shot("models", f"{at}/models?{_TRAINING}", said("-final"), 520, 0, act=_TO_THE_FIGURES),
            Shot("model", f"{at}/models/{model}?{_TRAINING}", said("Model ID"), 900, 0),
        ]
    if len(runs) > 1:
        shots.append(_comparison("compare", experiment, runs[-2:], 1500))
    if trials:
        shots.append(_comparison("trials", experiment, trials, 620))
    return tuple(shots)


def _comparison(name: str, experiment: str, runs: list[dict], height: int) -> Shot:
    """Return the page that MLflow opens for runs that are ticked, by "Compare"."""
    numbers = ",".join(f'"{one["info"]["run_id"]}"' for one in runs)
    asked = urllib.parse.quote(f'runs=[{numbers}]&experiments=["{experiment}"]', safe="=&")
    drawn = "document.querySelector('.js-plotly-plot .parcoords, .js-plotly-plot svg')"
    return Shot(
        name,
        f"/#/compare-runs?{asked}&{_TRAINING}",
        f"{said('Parallel Coordinates Plot', 'Show diff only')} && {drawn}",
        height,
        0,
        act="document.querySelectorAll('[role=switch][aria-checked=false]').forEach(one => one.click())",
    )


def take(page: Page, base: str, shot: Shot, out: Path, *, settled: str = "0", dark_key: str = "") -> None:
    """Take a picture in every width and in light and dark.

    Args:
        page: the browser's.
        base: address before the shot's own.
        shot: which.
        out: folder.
        settled: what is waited for at last, a promise.
        dark_key: where the pages keep whether they are dark, if they do not ask the browser.
    """
    for width, height in ((_WIDE, shot.height), (_NARROW, shot.narrow_height)):
        for is_dark in (False, True) if height else ():
            page.show(width, height, is_dark=is_dark)
            if dark_key:
                page.value(f"void (localStorage[{json.dumps(dark_key)}] = '{str(is_dark).lower()}')")
            page.open(base + shot.place, _WAIT_S)
            page.wait(shot.ready, _WAIT_S)
            page.value(f"void ({shot.act or 0})")
            page.wait(shot.then, _WAIT_S)
            page.value(settled)
            file = out / f"{shot.name}_{width}{'_dark' if is_dark else ''}.png"
            file.write_bytes(few_colours(page.picture()))
            print(f"{file} {file.stat().st_size // 1024} KiB", flush=True)


def few_colours(png: bytes) -> bytes:
    """Return a picture with a palette: screens have few colours, and pages are kept in the repository."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLOURS, kmeans=1, dither=Image.Dither.NONE)
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def asked_of(address: str, path: str, values: Mapping[str, object] | None = None) -> dict:
    """Ask MLflow's own interface."""
    data = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_WAIT_S) as answer:
        return json.load(answer)


def mlflow_pictures(page: Page, run: Path, address: str, experiment: str, out: Path, only: str) -> None:
    """Take those of MLflow, or one of them.

    Args:
        page: the browser's.
        run: folder of the run that has a page.
        address: as `qaclims ui` prints it.
        experiment: its name.
        out: folder.
        only: name of the picture; empty takes all.
    """
    base = address.partition("/#")[0]
    found = asked_of(base, f"experiments/get-by-name?experiment_name={experiment}")
    number = found["experiment"]["experiment_id"]
    runs = asked_of(base, "runs/search", {"experiment_ids": [number], "max_results": 1000})["runs"]
    own = json.loads((run / RECORD_NAME).read_text())["run_id"]
    parents = [one for one in runs if all(tag["key"] != "mlflow.parentRunId" for tag in one["data"]["tags"])]
    parents.sort(key=lambda one: (one["info"]["run_id"] != own, one["info"]["start_time"]))
    ended = [one for one in runs if one["info"]["status"] == "FINISHED"]
    trials = [one for one in ended if one["info"]["run_name"].startswith("trial_")]
    models = asked_of(base, "logged-models/search", {"experiment_ids": [number]}).get("models", [])
    model = next((one["info"]["model_id"] for one in models if one["info"]["source_run_id"] == own), "")
    page.show(_WIDE, 900)
    page.open(address, _WAIT_S)
    page.wait(said(parents[0]["info"]["run_name"]), _WAIT_S)
    # At the first visit it opens its assistant, which stays as the reader leaves it.
    page.value("Object.keys(localStorage).filter(k => k.includes('panelOpen')).forEach(k => localStorage[k] = 'false')")
    for shot in mlflow_shots(number, parents, trials, model):
        if only in ("", shot.name):
            take(page, base, shot, out, settled=_SETTLED, dark_key="_mlflow_dark_mode_toggle_enabled")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--out", default="docs/results", help="folder of the pages that show them")
    parser.add_argument("--only", default="", help="pages, mlflow, or one by name: report, gallery, runs, model")
    parser.add_argument("--address", default="", help="of `qaclims ui`, where it is up already")
    parser.add_argument("--experiment", default="qaclims", help="MLflow's, with --address")
    asked = parser.parse_args()
    program = find_browser()
    if program is None:
        raise SystemExit("this machine has no Chromium, which takes the pictures: install one")
    run, out = Path(asked.run).resolve(), Path(asked.out)
    with browser_page(program) as page:
        if asked.only != "mlflow":
            (out / "gallery").mkdir(parents=True, exist_ok=True)
            for shot in PAGES:
                if asked.only in ("", "pages", shot.name):
                    take(page, f"{run.as_uri()}/", shot, out / "gallery")
        if asked.only not in ("pages", *(shot.name for shot in PAGES)):
            (out / "mlflow_ui").mkdir(parents=True, exist_ok=True)
            only = asked.only.removeprefix("mlflow")
            if asked.address:
                mlflow_pictures(page, run, asked.address, asked.experiment, out / "mlflow_ui", only)
                return
            from qaclims_ray.stages.ui import tracked_at
            from qaclims_ray.tracking.ui_server import free_port, ui_server

            config, uri = tracked_at(str(run))
            with ui_server(uri, config.experiment, free_port(5400), timeout_s=_WAIT_S) as (address, _):
                mlflow_pictures(page, run, address, config.experiment, out / "mlflow_ui", only)


if __name__ == "__main__":
    main()
