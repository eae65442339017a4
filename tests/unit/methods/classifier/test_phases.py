from qaclims_ray.methods.classifier.method import phases
from qaclims_ray.methods.method import Sources
from qaclims_ray.methods.table import CLASSIFIER
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.systems.recipe import recipe_of


def test_networks_from_before_there_was_a_scope_are_not_trained_again():
    def settings_of(scope: str) -> dict:
        config = with_overrides(preset("miniature"), {"classifier.train_scope": scope})
        return next(phases(recipe_of(config, CLASSIFIER), Sources(manifest="m"))).settings

    full, head = settings_of("full"), settings_of("head")
    assert "train_scope" not in full["classifier"]
    assert head["classifier"] == {**full["classifier"], "train_scope": "head"}
