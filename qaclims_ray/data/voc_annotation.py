"""One XML file of PASCAL VOC's form: the names of an image's objects. labelImg and Roboflow write such files too."""

import xml.etree.ElementTree as ElementTree

from qaclims_ray.data import storage
from qaclims_ray.data.validation import Fault
from qaclims_ray.data.xml_text import parse_xml
from qaclims_ray.errors import DataError


def read_voc_annotation(uri: str) -> tuple[str, ...] | Fault:
    """Return the names of the annotated objects; body parts, which VOC also names, are no objects.

    Programs write the elements in a namespace of their own, or in capitals: neither changes what they mean.
    """
    try:
        tree = parse_xml(storage.read_bytes(uri))
    except DataError as error:
        return Fault("unreadable annotation", uri, f"{uri}: {error}")
    if _local(tree) != "annotation":
        detail = f"{uri}: its outermost element is <{tree.tag}>, expected <annotation>; fetch the file again"
        return Fault("unreadable annotation", uri, detail)
    objects = [element for element in tree.iter() if _local(element) == "object"]
    named = [next((child.text for child in element if _local(child) == "name"), None) for element in objects]
    return tuple(dict.fromkeys((name or "").strip() for name in named))


def _local(element: ElementTree.Element) -> str:
    """Return an element's name without namespace and case."""
    return element.tag.rsplit("}", 1)[-1].casefold()
