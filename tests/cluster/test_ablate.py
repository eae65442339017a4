"""Trials beside each other on a real local Ray: order, limits, failures, and a table that is resumed."""

import functools
import json
import re
from pathlib import Path

import pytest
import ray
from rich.console import Console

from qaclims_ray.cluster.session import runs_at_once
from qaclims_ray.cluster.trials import Trial, run_trials
from qaclims_ray.data.artifacts import Artifact, read_meta
from qaclims_ray.data.splits import training_images
from qaclims_ray.errors import ConfigError, DataError, QaclimsError, ResourceError
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.presets.table import preset
from qaclims_ray.stages.ablate import gather, plan_trials, run_ablation, take_over_corpus
from qaclims_ray.stages.data import run_data
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import Ablation
from qaclims_ray.stages.resources import needs_of
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.ablations import TABLES, AblationTable, table_row
from qaclims_ray.systems.planning import artefacts_of
from tests.cluster import trial_work
from tests.cluster.small_run import small_config
from tests.finished_artifacts import finished

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def _times(folder: Path, name: str) -> tuple[float, float]:
    started, ended = (folder / name).read_text().split()
    return float(started), float(ended)


def _overlap(folder: Path, one: str, other: str) -> bool:
    (a, b), (c, d) = _times(folder, one), _times(folder, other)
    return a < d and c < b


def _ignore(trial: Trial, result: object, seconds: float) -> None:
    pass


def test_a_trial_that_fails_stops_only_those_that_need_it(shared_ray, tmp_path):
    note = functools.partial(trial_work.note, str(tmp_path))
    told = []
    ended = run_trials(
        [
            Trial(name="bad", work=functools.partial(trial_work.refuse, "no images")),
            Trial(name="broken", work=trial_work.break_off),
            Trial(name="dead", work=trial_work.die),
            Trial(name="child", work=functools.partial(note, "child"), needs=("bad",)),
            Trial(name="grandchild", work=functools.partial(note, "grandchild"), needs=("child",)),
            Trial(name="good", work=functools.partial(note, "good")),
        ],
        at_once=2,
        on_end=lambda trial, result, seconds: told.append(trial.name),
    )
    assert sorted(told) == sorted(ended)
    assert isinstance(ended["bad"], DataError)
    assert str(ended["bad"]) == "no images"
    assert "KeyError: 'a mistake of ours'" in str(ended["broken"])
    assert isinstance(ended["dead"], ResourceError)
    assert "bad failed: no images" in str(ended["child"])
    assert isinstance(ended["grandchild"], QaclimsError)
    assert ended["good"] == "good"
    assert {path.name for path in tmp_path.iterdir()} == {"good"}


def test_trials_that_make_the_same_wait_until_it_is_there(shared_ray, tmp_path):
    def trial(name: str, partner: str, *makes: str) -> Trial:
        return Trial(
            name=name, work=functools.partial(trial_work.meet, str(tmp_path), name, partner), makes=frozenset(makes)
        )

    ended = run_trials(
        [
            trial("first", "other", "matching", "a"),
            trial("other", "first", "b"),
            trial("second", "third", "matching"),
            trial("third", "second", "matching"),
        ],
        at_once=4,
        on_end=_ignore,
    )
    assert set(ended.values()) == {"first", "other", "second", "third"}
    assert _times(tmp_path, "second")[0] >= _times(tmp_path, "first")[1]
    assert _times(tmp_path, "third")[0] >= _times(tmp_path, "first")[1]


def test_after_a_failure_the_next_makes_it_alone(shared_ray, tmp_path):
    makes = frozenset({"matching"})
    run_trials(
        [
            Trial(name="bad", work=functools.partial(trial_work.refuse, "x"), makes=makes),
            *(
                Trial(name=name, work=functools.partial(trial_work.note, str(tmp_path), name, 0.5), makes=makes)
                for name in ("second", "third")
            ),
        ],
        at_once=3,
        on_end=_ignore,
    )
    assert not _overlap(tmp_path, "second", "third")


def test_no_more_run_at_once_than_asked(shared_ray, tmp_path):
    names = ["a", "b", "c"]
    trials = [Trial(name=name, work=functools.partial(trial_work.note, str(tmp_path), name, 0.5)) for name in names]
    run_trials(trials, at_once=1, on_end=_ignore)
    assert not any(_overlap(tmp_path, one, other) for one in names for other in names if one < other)


def test_runs_that_fit_are_counted_and_too_many_refused(shared_ray, monkeypatch):
    there = ray.cluster_resources()
    assert there["CPU"] == 4
    monkeypatch.setattr(ray, "cluster_resources", lambda: {**there, "CPU": 9.0})
    needs = needs_of(small_config())
    assert needs.cpus == 2
    assert runs_at_once(needs) == 4
    assert runs_at_once(needs, 2) == 2
    assert runs_at_once(needs_of(small_config(cluster__num_workers=8))) == 1
    with pytest.raises(ResourceError, match="5 runs at once need 10 CPU"):
        runs_at_once(needs, 5)


def _tiny_table() -> AblationTable:
    rows = (
        table_row("FAT at 0.1", "ritc_class_names"),
        table_row("FAT at 0.3", "ritc_class_names", {"ritc.omega": 0.3}),
    )
    published = {rows[0].name: 60.2, rows[1].name: 60.0}
    return AblationTable(name="tiny", paper="no paper", title="two rows", rows=rows, published=published)


def _ablation(out: Path, **overrides: object) -> Ablation:
    settings = {"data__num_images": 16, "tracking__enabled": True, **overrides}
    config = small_config(systems=["baseline"], **settings)
    return Ablation(table=_tiny_table(), preset="miniature", config=config, out=str(out), seeds=(5, 6), concurrent=2)


def _networks(out: Path) -> dict[Path, int]:
    found = [path for path in out.rglob("network.safetensors") if not re.search(r"\.making-|training_runs", str(path))]
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_table_with_a_failed_trial_is_written_and_then_completed(shared_ray, tmp_path):
    out = tmp_path / "table"
    broken = out / "seed-6" / "networks" / "ritc_class_names-omega_0.3"
    broken.parent.mkdir(parents=True)
    broken.write_text("in the way")
    result = run_ablation(_ablation(out), Console(quiet=True))
    first, second = result.rows
    assert set(first.scores) == {5, 6}
    assert (set(second.scores), set(second.failures)) == ({5}, {6})
    assert "a file lies there" in second.failures[6]
    assert "1 of 2 seeds" in (out / "ablation-tiny.md").read_text()
    assert second.failures[6] in (out / "ablation-tiny.md").read_text()
    assert "Traceback" in (out / "seed-6" / "trials" / second.system / "log.txt").read_text()
    before = _networks(out)

    broken.unlink()
    again = run_ablation(_ablation(out), Console(quiet=True))
    assert {path: _networks(out)[path] for path in before} == before
    assert not any(row.failures for row in again.rows)
    assert again.rows[0].scores == first.scores
    assert again.rows[1].scores[5] == second.scores[5]
    assert set(again.rows[1].scores) == {5, 6}

    values = json.loads((out / "ablation-tiny.json").read_text())
    scores = json.loads((out / "seed-5" / "evaluations" / "ritc_class_names" / "scores.json").read_text())
    assert values["rows"][0]["scores"]["5"]["miou_best"] == scores["seed"]["miou_best"]
    assert values["conditions"]["seeds"] == "5, 6"
    assert "ritc.optim.epochs=1" in values["conditions"]["settings"]
    for seed in (5, 6):
        for row in result.rows:
            layout = RunLayout(str(out / f"seed-{seed}"), row.system)
            config = json.loads(Path(layout.config).read_text())
            assert (config["seed"], config["systems"]) == (seed, [row.system])
            assert "mIoU" in (Path(layout.records) / "log.txt").read_text()
    assert (tmp_path / "mlflow.db").is_file()  # one store for the table and all its trials
    assert not list(out.rglob("mlflow.db"))


def test_epochs_chosen_with_pixel_labels_are_marked_in_every_row(tmp_path):
    for criterion, is_marked in (("last", False), ("oracle", True)):
        ablation = _ablation(tmp_path, selection__criterion=criterion)
        ended = {f"seed {seed}, {row.name}": DataError("x") for row in _tiny_table().rows for seed in (5, 6)}
        result = gather(ablation, ended, {})
        assert all(("chosen with pixel labels" in row.label) == is_marked for row in result.rows)
        assert all(set(row.failures) == {5, 6} for row in result.rows)


def test_one_corpus_serves_all_seeds_of_a_data_set_that_is_not_drawn(tmp_path):
    table = TABLES["qa_clims_fat"]
    config = small_config(data__dataset="voc12", data__root=str(tmp_path), systems=["baseline"])
    trials = plan_trials(
        Ablation(table=table, preset="voc12", config=config, out=str(tmp_path / "out"), seeds=(1, 2, 3))
    )
    assert [trial.needs for trial in trials[:3]] == [(), ("seed 1, shared",), ("seed 1, shared",)]
    assert len(trials) == 3 + 3 * len(table.rows)
    assert all(trial.needs == (f"seed {trial.name.split()[1].rstrip(',')}, shared",) for trial in trials[3:])


def test_corpus_of_another_seed_is_current_here(tmp_path):
    root = tmp_path / "voc"
    write_dataset(str(root), num_images=8, seed=1)
    metas = []
    for seed in (1, 2):
        config = small_config(data__dataset="voc12", data__mask_check="warn", data__root=str(root), seed=seed)
        layout = RunLayout(str(tmp_path / f"seed-{seed}"))
        manifest = training_images(run_data(Stage(config, layout)), config.data)
        corpus = Artifact(
            uri=layout.corpus,
            kind="corpus",
            settings={"beams": 3},
            inputs={"manifest": manifest.images_fingerprint()},
            verb="corpus",
        )
        if seed == 1:
            Path(layout.corpus_table).mkdir(parents=True)
            Path(layout.corpus_table, "part-00000.parquet").write_bytes(b"answers")
            finished(corpus)
        else:
            take_over_corpus(str(tmp_path / "seed-1"), layout.out)
        assert corpus.current() is not None
        metas.append(read_meta(layout.corpus))
    assert metas[0] == metas[1]
    assert Path(layout.corpus_table, "part-00000.parquet").read_bytes() == b"answers"


@pytest.mark.parametrize(
    ("name", "shared"), [("qa_clims_table4", 0), ("semples_table4", 1), ("semples_table5", 2), ("semples_table6", 0)]
)
def test_rows_of_semples_share_phases_and_say_so(name, shared):
    config = Ablation(
        table=TABLES[name], preset="miniature", config=preset("miniature"), out="/nowhere", seeds=(1,)
    ).run(1, TABLES[name].rows)
    made = [artefacts_of(config, row.name) for row in TABLES[name].rows]
    # The last two rows of tables 4 and 5 share matching, or matching and prompts; the joint scheme shares nothing.
    assert len(made[0] & made[1]) == (0 if name == "semples_table6" else min(shared, 1))
    if name != "semples_table6":
        assert len(made[-2] & made[-1]) == shared
    assert all(f"network {row.name}" in names for row, names in zip(TABLES[name].rows, made, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"seeds": (-1,)}, "seeds"),
        ({"concurrent": 0}, "concurrent"),
    ],
)
def test_impossible_requests_are_refused(change, message, tmp_path):
    values = {"seeds": (1,), **change}
    with pytest.raises(ConfigError, match=message):
        Ablation(table=_tiny_table(), preset="miniature", config=preset("miniature"), out=str(tmp_path), **values)


def test_gpu_without_training_workers_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="num_workers 0"):
        _ablation(tmp_path, cluster__use_gpu=True)
