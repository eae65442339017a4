from types import MappingProxyType

from qaclims_ray.settings import dotted


def test_nested_mappings_become_dotted_names_and_other_values_stay_whole():
    values = {"a": {"b": {"c": 1}, "list": [1, {"x": 2}]}, "empty": {}, "frozen": MappingProxyType({"d": None})}
    assert dotted(values) == {"a.b.c": 1, "a.list": [1, {"x": 2}], "empty": {}, "frozen.d": None}
    assert dotted({"b": 1}, "a.") == {"a.b": 1}
