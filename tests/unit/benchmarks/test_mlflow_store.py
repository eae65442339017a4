"""What one MLflow store takes, with so few runs that it says nothing of speed."""

from benchmarks import mlflow_store
from qaclims_ray.tracking.mlflow_runs import KEY_TAG, connected


def test_a_grown_store_holds_pipelines_of_their_own(tmp_path):
    mlflow_store.logged(tmp_path).finish("FINISHED")
    mlflow_store.grown(tmp_path / "mlflow.db", 30)
    client = connected(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("qaclims").experiment_id])
    assert len(runs) == 30 == len({run.info.run_id for run in runs})
    parents = [run.data.tags.get("mlflow.parentRunId") for run in runs]
    assert parents.count(None) == 3 and {parents.count(one) for one in set(parents) - {None}} == {9}
    keys = [run.data.tags[KEY_TAG] for run in runs if KEY_TAG in run.data.tags]
    assert len(keys) == 27 == len(set(keys))
    assert all(run.data.metrics and run.data.params for run in runs)
    assert set(mlflow_store.asked(tmp_path)["find a stage's run by its key"]().data.tags) >= {KEY_TAG}
