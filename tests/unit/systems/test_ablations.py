"""The papers' tables: what their rows train, and that every preset can run them."""

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.systems.ablations import TABLES, ablation_table, table_row, with_rows
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.table import system_config, system_of


@pytest.mark.parametrize("preset_name", PRESETS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_resolves_on_every_preset(table, preset_name):
    config = with_rows(preset(preset_name), table.rows)
    if table.name.startswith("qa_clims") and config.cam_net.generator == "weaktr":
        with pytest.raises(ConfigError, match=r"use cam_net\.generator cnn"):
            check_systems(config)
        config = with_overrides(config, {"cam_net.generator": "cnn"})
    if table.name.startswith("qa_clims") and not config.clip.mask_adapted and config.ritc.region_mode == "token_mask":
        # A preset of SemPLeS or CLIMS: its CLIP has no mask tokens, and the message says which setting to give.
        with pytest.raises(ConfigError, match=r"set ritc\.region_mode to pixel_mask"):
            check_systems(config)
        config = with_overrides(config, {"ritc.region_mode": "pixel_mask"})
    check_systems(config)
    assert config.systems == tuple(row.name for row in table.rows)
    for row in table.rows:
        resolved = to_dict(system_config(config, row.name))
        for path, value in row.overrides.items():
            stage, key = path.split(".")
            assert resolved[stage][key] == value


@pytest.mark.parametrize("preset_name", ["miniature", "voc12"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_no_two_rows_of_a_table_are_the_same_training(table, preset_name):
    config = with_rows(preset(preset_name), table.rows)
    resolved = []
    for row in table.rows:
        values = to_dict(system_config(config, row.name))
        resolved.append({name: values[name] for name in ("text", "ritc", "semples")})
    assert all(values not in resolved[:position] for position, values in enumerate(resolved))


def test_published_figures_are_those_of_the_papers():
    published = {name: tuple(table.published.get(row.name) for row in table.rows) for name, table in TABLES.items()}
    assert published == {
        "qa_clims_table4": (60.3, 57.7, 67.1, 67.3),
        "qa_clims_table5": (60.2, 61.0, 60.7, 66.3, 64.5, 61.2, 67.0, 67.3),
        "qa_clims_fat": (66.9, 67.3),
        "qa_clims_fig5": (None, None, 67.3, None, None, None),
        "semples_table4": (67.6, 67.6, 67.7, 67.9, 68.7),
        "semples_table5": (67.6, 68.3, 68.4, 68.7, 67.8),
        "semples_table6": (65.9, 68.7, 68.5, 68.4),
    }


def test_rows_without_settings_share_the_system_between_tables():
    in_table_4, in_fat = TABLES["qa_clims_table4"].rows[-1], TABLES["qa_clims_fat"].rows[-1]
    assert in_table_4.name == in_fat.name == "qa_clims"
    assert with_rows(preset("voc12"), (in_fat,)).variants == ()


def test_a_row_with_settings_is_a_variant_named_after_them():
    wide = table_row("x", "qa_clims", {"ritc.omega": 0.2, "ritc.area_weight": 0.0})
    config = with_rows(preset("miniature"), (wide,))
    assert config.systems == ("qa_clims-omega_0.2-area_weight_0.0",)
    resolved = system_config(config, wide.name)
    assert system_of(config, wide.name).label == f"QA-CLIMS, {wide.name}"
    assert (resolved.ritc.omega, resolved.ritc.area_weight) == (0.2, 0.0)


def test_sweeps_hold_the_value_of_the_paper():
    omegas = [row.overrides["ritc.omega"] for row in TABLES["qa_clims_fig5"].rows]
    weights = [row.overrides["semples.refine_weight"] for row in TABLES["semples_table5"].rows]
    assert omegas == sorted(omegas)
    assert 0.1 in omegas
    assert weights == [0.0, 0.01, 0.02, 0.05, 0.1]


def test_unknown_table_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'table9'.*qa_clims_table4"):
        ablation_table("table9")
