"""The model card of an exported network: what it is, how to run it, data, figures and licences."""

import json

from qaclims_ray.deployment.network_facts import NetworkFacts

_UNSCORED = "Not scored: no image had a mask to score against."


def model_card(facts: NetworkFacts) -> str:
    """Return the card as Markdown, with the head that model hubs read."""
    sections = [
        f"# {facts.name}\n",
        f"{facts.architecture}. It gives every pixel of a photograph one of {len(facts.id2label)} labels. It was "
        f"trained by qaclims_ray on {facts.data.get('learned from', 'what its run was given')}.\n",
        "## Use it\n",
        "```python\nimport qaclims_ray\n\n"
        'network = qaclims_ray.load("this/folder")\nfound = network.predict("photo.jpg")\n'
        'found.mask().save("mask.png")  # pixel values are labels\n'
        "print(found.found)  # class -> share of pixels\n```\n",
        "## Labels\n",
        "| value | label |\n|---|---|\n" + _rows(facts.id2label),
        "## Data\n",
        "".join(f"- {title}: {text}\n" for title, text in facts.data.items()),
        "## Figures\n",
        _figures(facts),
        "## Images\n",
        f"RGB of any size, divided by 255, less {list(facts.normalisation[0])}, divided by "
        f"{list(facts.normalisation[1])}.\n",
        "## Licences\n",
        "".join(f"- {line}\n" for line in facts.weights) or "- It started from no weights of others.\n",
        "The licences of the photographs and of their tags are yours to know.\n",
        f"Made by qaclims_ray {facts.version}.\n",
    ]
    return "\n".join([_head(facts), *sections])


def _head(facts: NetworkFacts) -> str:
    # JSON is YAML, and quotes whatever a name holds.
    lines = {
        "license": facts.licence,
        "library_name": "qaclims_ray",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", *(["weakly-supervised"] if facts.with_tags_alone else [])],
    }
    return "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in lines.items()) + "---\n"


def _figures(facts: NetworkFacts) -> str:
    if not facts.metrics:
        return f"{_UNSCORED}\n"
    percent = {name: f"{100 * value:.1f} %" for name, value in facts.metrics.items()}
    return "| figure | value |\n|---|---|\n" + _rows(percent)


def _rows(values: dict[int, str] | dict[str, str]) -> str:
    return "".join(f"| {_cell(str(name))} | {_cell(text)} |\n" for name, text in values.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
