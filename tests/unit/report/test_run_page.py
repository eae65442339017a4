import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.cooccurrence import CooccurrenceScores
from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve
from qaclims_ray.report.contents import CHOSEN_BY_PIXEL_LABELS, PromptReading, ReportData, SystemReport, winner
from qaclims_ray.report.files import write_report, written_page
from qaclims_ray.report.palette import INK


def seed(best: float, fixed: float) -> SeedScores:
    iou = {"background": 0.8, "bird": fixed, "boat": math.nan}
    return SeedScores(
        threshold_fixed=0.2, miou_fixed=fixed, false_positive_rate=0.3, false_negative_rate=0.2, iou=iou,
        threshold_label_free=0.4, miou_label_free=fixed, threshold_best=0.4, miou_best=best,
        false_positive_rate_best=0.1, false_negative_rate_best=0.3, iou_best=iou,
        num_images=20, curve=SweepCurve(
            thresholds=(0.2, 0.4), miou=(fixed, best), false_positive_rate=(0.3, 0.1), false_negative_rate=(0.2, 0.3)
        ),
    )  # fmt: skip


def png(width: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, width, 3), dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def report_data(**changes) -> ReportData:
    cooccurrence = CooccurrenceScores(
        threshold=0.4,
        coverage=0.7,
        false_positive_context=0.3,
        false_positive_elsewhere=0.1,
        per_class={"bird": (0.7, 0.3, 0.1)},
    )
    systems = {
        "baseline": SystemReport(label="baseline CAM", seed=seed(0.4, 0.38), cooccurrence=cooccurrence),
        "qa_clims": SystemReport(
            label="QA-CLIMS <full>",
            description="RITC & all answers",
            seed=seed(0.63, 0.31),
            curves={"train/loss": [(0, 2.0), (10, 1.0)]},
            contact_images=(png(),),
        ),
    }
    data = ReportData(
        title="miniature <1>",
        config={"seed": 0, "ritc": {"temperature": 0.7}},
        environment={"packages": {"torch": "2.15"}, "gpus": []},
        timings={"corpus": 71.3, "train": 3700.0},
        dataset={"name": "miniature", "images": 600, "notes": ["labels from <b>.csv", "too few images: cat"]},
        systems=systems,
        contact_sheets={"Masks at the best threshold": png()},
    )
    return dataclasses.replace(data, **changes)


def written(folder: Path, data: ReportData) -> tuple[dict, str]:
    page = write_report(str(folder / "report"), data)
    assert page == str(folder / "report" / "report.html")
    return json.loads((folder / "report" / "report.json").read_text()), Path(page).read_text()


@pytest.fixture(scope="module")
def full_report(tmp_path_factory) -> tuple[dict, str]:
    return written(tmp_path_factory.mktemp("full"), report_data())


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("report.html", lambda text: text[:-20]),
        ("report.html", lambda text: text.replace("a", "b", 1)),
        ("report.json", lambda text: text.replace("71.3", "71.4")),
        ("report.json", lambda text: "[]"),
    ],
)
def test_a_report_that_was_changed_is_not_there_already(tmp_path, name, harm) -> None:
    folder = tmp_path / "report"
    page = write_report(str(folder), report_data(made_from="f"))
    assert written_page(str(folder), "f") == page and written_page(str(folder), "g") is None
    before = (folder / name).read_text()
    (folder / name).write_text(harm(before))
    assert (folder / name).read_text() != before and written_page(str(folder), "f") is None


class Balance(HTMLParser):
    """Checks that every element is closed, and gathers identifiers and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_json_holds_the_promised_figures(full_report: tuple[dict, str]):
    report, _ = full_report
    figures = report["systems"]["qa_clims"]["seed"]
    assert figures["miou_fixed"] == 0.31 and figures["miou_best"] == 0.63 and figures["threshold_best"] == 0.4
    assert figures["false_positive_rate"] == 0.3 and figures["false_negative_rate"] == 0.2
    assert figures["iou"] == {"background": 0.8, "bird": 0.31, "boat": None}
    assert report["timings"] == {"corpus": 71.3, "train": 3700.0}
    assert report["environment"] == {"packages": {"torch": "2.15"}, "gpus": []} and report["config"]["ritc"] == {
        "temperature": 0.7
    }
    assert report["systems"]["baseline"]["cooccurrence"]["false_positive_context"] == 0.3
    assert set(report["chosen_by_pixel_labels"]) <= set(figures)


def test_every_figure_chosen_by_pixel_labels_is_declared():
    names = {field.name for field in dataclasses.fields(SeedScores)} | set(dir(SeedScores))
    chosen = {name for name in names if name.endswith("_best")}
    assert chosen | {"curve"} == set(CHOSEN_BY_PIXEL_LABELS)


def test_page_is_whole_and_asks_for_nothing_from_outside(full_report: tuple[dict, str]):
    _, page = full_report
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert [a for a in parser.addresses if not a.startswith(("data:image/png;base64,", "#"))] == []
    assert not re.search(r"@import|url\((?!#)|<script|<link|<iframe", page)


def test_page_shows_systems_winner_and_pixel_labels(full_report: tuple[dict, str]):
    _, page = full_report
    assert "miniature &lt;1&gt;" in page and "QA-CLIMS &lt;full&gt;" in page and "<full>" not in page
    assert page.count('<tr class="winner">') == 1 and page.count("chosen with pixel labels") >= 4
    winning_row = page[page.index('<tr class="winner">') :].split("</tr>")[0]
    assert "QA-CLIMS" in winning_row and "+23.0" in winning_row and "-7.0" in winning_row
    assert page.count("data:image/png;base64,") == 2
    assert page.count("<svg") == 4
    assert "<dt>torch</dt><dd>2.15</dd>" in page and "<dt>gpus</dt><dd>none</dd>" in page
    assert "1 h 01 min" in page and "1 min 11 s" in page


def test_page_tells_how_the_data_set_was_read(full_report: tuple[dict, str]):
    _, page = full_report
    told = page[page.index("How the data set was read") :].split("</ul>")[0]
    assert "<li>labels from &lt;b&gt;.csv</li>" in told and "<li>too few images: cat</li>" in told
    assert "<dt>notes</dt>" not in page


def test_weights_and_licences_stand_on_the_page(tmp_path: Path):
    used = {"title": "A CLIP", "settings": ["clip.weights"], "licence": "CC-BY-NC-4.0", "users": "research <only>"}
    plain, page = written(tmp_path, report_data(licences=[used]))
    assert plain["weights"] == [used]
    assert "Weights and licences" in page and "CC-BY-NC-4.0; research &lt;only&gt;" in page
    plain, page = written(tmp_path, report_data())
    assert plain["weights"] == [] and "Weights and licences" not in page


def test_the_winner_depends_on_the_ranking_figure():
    assert winner(report_data()) == "qa_clims"
    assert winner(report_data(rank_by="miou_fixed")) == "baseline"


def test_a_run_without_masks_still_has_a_report(tmp_path: Path):
    systems = {"baseline": SystemReport(label="baseline CAM", seed=None)}
    report, page = written(tmp_path, report_data(systems=systems))
    assert report["systems"]["baseline"]["seed"] is None
    assert "no image has a mask" in page and "<svg" not in page


def test_learned_prompts_have_a_section(tmp_path: Path):
    reading = PromptReading(
        nearest={"bird": [("sky <blue>", 0.91), ("tree", 0.5)], "boat": [("water", 0.8), ("sea", 0.75)]},
        own_text={"bird": 0.25, "boat": -0.125},
        vocabulary="the given words (4)",
        picture=png(),
    )
    unseen = dataclasses.replace(reading, picture=b"", note="this CLIP's image tower is a <ResNet>")
    systems = {
        "semples": SystemReport(label="SemPLeS", seed=seed(0.5, 0.4), prompts=reading),
        "semples_random_prompts": SystemReport(label="SemPLeS, random", seed=None, prompts=unseen),
        "baseline": SystemReport(label="baseline CAM", seed=None),
    }
    report, page = written(tmp_path, report_data(systems=systems))
    assert report["systems"]["semples"]["prompts"]["boat"] == [["water", 0.8], ["sea", 0.75]]
    assert report["systems"]["semples"]["prompts_own_text"] == {"bird": 0.25, "boat": -0.125}
    assert report["systems"]["baseline"]["prompts"] is None
    section = page[page.index("<h2>Learned prompts</h2>") :].split("</section>")[0]
    assert section.count("<tr>") == 5 and section.count('rowspan="2"') == 2 and "baseline" not in section
    assert "sky &lt;blue&gt;\N{NO-BREAK SPACE}0.91, tree\N{NO-BREAK SPACE}0.50" in section and "-0.12" in section
    assert section.count("data:image/png;base64,") == 1 and section.count("the given words (4)") == 1
    assert "SemPLeS, random: no similarity maps, because this CLIP&#39;s image tower is a &lt;ResNet&gt;" in section
    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_no_prompts_no_section(full_report: tuple[dict, str]):
    report, page = full_report
    assert "Learned prompts" not in page and report["systems"]["qa_clims"]["prompts"] is None


def test_sheets_of_many_systems_scroll(tmp_path: Path):
    _, page = written(tmp_path, report_data(contact_sheets={"all": png(2400)}))
    assert page.count('class="picture wide"') == 1 and page.count('class="picture"') == 1


HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x>', "a&b", "&lt;", "a?b#c%20d", "[b]x[/b]", "a|b", ' id="x',
    "url(#x)", INK,
    "_hidden", "$x^{$", "\u732b", "{{ 1 }}", "a'b", "C:\\x", "..",
)  # fmt: skip


class Texts(Balance):
    """Gathers what a reader sees, and the elements."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data):
        self.texts.append(data)


def test_names_are_shown_as_they_are_and_are_no_part_of_the_page(tmp_path: Path):
    def named(names) -> ReportData:
        iou = {"background": 0.5, **dict.fromkeys(names, 0.25)}
        systems = {
            f"s{number}": SystemReport(
                label=name,
                description=f"of {name}",
                seed=dataclasses.replace(seed(0.4, 0.3), iou=iou, iou_best=iou),
                mask=dataclasses.replace(seed(0.4, 0.3), iou=iou, iou_best=iou),
                segmentation=dataclasses.replace(seed(0.4, 0.3), iou=iou, iou_best=iou),
                initial_weights=f"/data/{name}",
                curves={f"train/{name}": [(0, 2.0), (10, 1.0)]},
                contact_images=(png(),),
            )
            for number, name in enumerate(names[::3])
        }
        places = {"root": f"/data/{names[0]}", "notes": [f"read /data/{name}" for name in names]}
        return report_data(title=names[0], systems=systems, dataset=places, splits={"seed": names[0]})

    plain = [f"name {number:02d}" for number in range(len(HOSTILE))]
    pages = []
    for folder, names in (("plain", plain), ("hostile", HOSTILE)):
        page = Texts()
        page.feed(written(tmp_path / folder, named(names))[1])
        assert len(page.ids) == len(set(page.ids))
        pages.append(page)
    plainly, hostile = pages
    assert all(re.fullmatch(r"[\w.-]+", name) for name in hostile.ids) and not hostile.open
    assert [one[:5] for one in hostile.addresses] == [one[:5] for one in plainly.addresses]
    shown = [text.replace("\N{ZERO WIDTH SPACE}", "") for text in hostile.texts]
    for one, other in zip(plain, HOSTILE, strict=True):
        assert sum(other in text for text in shown) >= sum(one in text for text in plainly.texts) > 2, other


def test_no_system_no_report(tmp_path: Path):
    with pytest.raises(DataError, match="at least one system"):
        write_report(str(tmp_path), report_data(systems={}))
