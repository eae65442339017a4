"""VOC's XML as other programs write it, and files that are none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qaclims_ray.data.voc import read_voc
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import annotation, voc_config

MakeVoc = Callable[..., Path]
DOG = 11


@pytest.mark.parametrize(
    "text",
    [
        '<annotation xmlns="http://x.org/voc"><object><name>dog</name></object></annotation>',
        "<Annotation><Object><Name> dog </Name><Part><Name>head</Name></Part></Object></Annotation>",
        '<v:annotation xmlns:v="urn:v"><!-- mine --><v:object><v:name>dog</v:name></v:object></v:annotation>',
        "<annotation><objects><object><name>dog</name></object></objects></annotation>",
    ],
)
def test_namespaces_and_capitals_do_not_matter(make_voc: MakeVoc, text: str) -> None:
    root = make_voc(masks=False)
    (root / "Annotations/2007_01.xml").write_text(text)
    assert read_voc(voc_config(root)).records[0].labels == (DOG,)


def test_xml_that_is_no_annotation_is_a_fault(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "Annotations/2007_01.xml").write_text("<html><body>Please log in</body></html>")
    with pytest.raises(DataError, match=r"2007_01: .*outermost element is <html>, expected <annotation>"):
        read_voc(voc_config(root))


def test_annotations_without_objects_are_counted(make_voc: MakeVoc) -> None:
    root = make_voc(masks=False)
    (root / "Annotations/2007_01.xml").write_text(annotation([]))
    assert "2 of 4 annotation files hold no object, e.g. that of 2007_01" in read_voc(voc_config(root)).notes
