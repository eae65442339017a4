"""Every verb that writes in a folder stops before work where another run owns it, and owns it while it works."""

import pytest

from qaclims_ray.commands.main import MISTAKE, run_verb
from qaclims_ray.data.folder_owner import owning

FOLDERS = {
    "run": ("run miniature --out {0}", "pipeline.run_pipeline"),
    "data": ("data miniature --out {0}", "pipeline.run_pipeline"),
    "segment": ("segment miniature --goal segmentation --out {0}", "pipeline.run_pipeline"),
    "report": ("report miniature --out {0}", "pipeline.run_pipeline"),
    "ablate": ("ablate qa_clims_table4 miniature --out {0}", "ablate.run_ablation"),
    "ablate, a seed's folder": ("ablate qa_clims_table4 miniature --seeds 20 --out {1}", "ablate.run_ablation"),
    "tune": ("tune miniature --system qa_clims --out {0}", "tune.run_search"),
    "rerun": ("rerun {1}/elsewhere --out {0}", "rerun.run_rerun"),
    "predict": ("predict --run {1}/elsewhere --images a.png --out {0}", "predict.run_predict"),
    "prompts": ("prompts --run {0}", "prompts.run_read_prompts"),
    "prompts, elsewhere": ("prompts --run {1}/elsewhere --out {0}", "prompts.run_read_prompts"),
    "compare": ("compare {0} {1}/elsewhere", "compare.run_compare"),
    "compare, a system": ("compare {0}:qa_clims {1}/elsewhere:clims", "compare.run_compare"),
    "compare, elsewhere": ("compare {1}/one {1}/two --out {0}", "compare.run_compare"),
}
"""What is called -> its line, and what then works in the folder {0}, which lies in {1}."""


class Worked(Exception):
    """Work began."""


def test_a_password_of_the_tracking_store_is_in_no_mark_and_no_message(tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "run")
    words = ["miniature", "--out", out, "--tracking.uri", "postgresql://ann:secret@host/db"]
    monkeypatch.setattr("sys.argv", ["qaclims", "run", *words])
    marks = []

    def second(*given: object, **named: object) -> None:
        marks.extend(path.read_text() for path in (tmp_path / "run").glob(".owner-*"))
        assert run_verb("data", ["miniature", "--out", out]) == MISTAKE
        raise Worked

    monkeypatch.setattr("qaclims_ray.stages.pipeline.run_pipeline", second)
    with pytest.raises(Worked):
        run_verb("run", words)
    told = capsys.readouterr()
    assert len(marks) == 1 and "--tracking.uri postgresql://host/db" in marks[0]
    assert "in use by another run: `qaclims run miniature" in told.err
    assert "secret" not in told.err + told.out + marks[0]


@pytest.mark.parametrize("option", ["--out", "--data-root", "--segmentation.net.weights"])
def test_a_place_with_a_password_is_refused_without_saying_it(option, tmp_path, capsys):
    places = {"--out": str(tmp_path), option: "s3://ann:secret@bucket/x"}
    words = [word for pair in places.items() for word in pair]
    assert run_verb("run", ["folder", "--data-root", "/nowhere", *words]) == MISTAKE
    told = capsys.readouterr()
    assert "before the @ of s3://bucket/x" in told.err and "secret" not in told.err + told.out
    assert not list(tmp_path.iterdir())


@pytest.fixture
def line(request, tmp_path, monkeypatch) -> list[str]:
    words, work = FOLDERS[request.param]

    def begin(*given: object, **named: object) -> None:
        raise Worked([path.name for path in (tmp_path / "seed-20").glob(".owner-*")])

    monkeypatch.setattr(f"qaclims_ray.stages.{work}", begin)
    return words.format(tmp_path / "seed-20", tmp_path).split()


@pytest.mark.parametrize("line", FOLDERS, indirect=True)
def test_it_is_refused_before_work(line, tmp_path, capsys):
    with owning(str(tmp_path / "seed-20"), "qaclims run voc12"):
        assert run_verb(line[0], line[1:]) == MISTAKE
    assert "is in use by another run: `qaclims run voc12`" in capsys.readouterr().err


@pytest.mark.parametrize("line", FOLDERS, indirect=True)
def test_it_owns_the_folder_while_it_works_and_no_longer(line, tmp_path):
    with pytest.raises(Worked) as worked:
        run_verb(line[0], line[1:])
    assert worked.value.args == ([".owner-1.json"],)
    assert not (tmp_path / "seed-20").exists()
