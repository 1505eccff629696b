"""Scenario files: YAML in, a checked `Scenario` out, and back; a fault is one sentence with place, value and remedy."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from roofline.errors import InputError
from simulator.scenario import Scenario

MAX_BYTES = 1_000_000  # a scenario is a page of text; more is some other file


def load(path: Path | str) -> Scenario:
    """Read a scenario file; relative paths in it start at its folder. InputError for whatever is wrong."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes; a scenario is a page of YAML. Check the path.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a scenario file (YAML), examples/ has some.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); give a scenario file (YAML).") from error
    return from_text(text, str(path), path.parent)


def from_text(text: str, place: str = "the scenario", folder: Path | None = None) -> Scenario:
    """The scenario in a YAML text; relative paths in it start at `folder` where one is given."""
    try:
        document = yaml.load(text, Loader=_UniqueKeys)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{place} is not valid YAML{line}: {error.problem}; correct it there.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{place} is not valid YAML ({_first_line(error)}); correct it.") from error
    if not isinstance(document, dict):
        found = "empty" if document is None else f"a {type(document).__name__}"
        raise InputError(f"{place} is {found}; a scenario has keys such as model, hardware and workload.")
    scenario = from_mapping(document, place)
    return scenario if folder is None else _with_paths_from(scenario, folder)


def from_mapping(values: Mapping[Any, Any], place: str = "the scenario") -> Scenario:
    """The scenario of nested mappings, as YAML or a form gives them."""
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        raise InputError(_sentence(error, place)) from error
    except RecursionError as error:
        raise InputError(f"{place} is nested too deeply to be a scenario.") from error


def with_changes(scenario: Scenario, changes: Mapping[str, Any], place: str = "the change") -> Scenario:
    """The scenario with other values at dotted places: `{"workload.request_rate": 9}`; checked like a file."""
    document = to_mapping(scenario)
    for name, value in changes.items():
        *sections, last = name.split(".")
        target = document
        for section in sections:
            target[section] = target.get(section) or {}
            target = target[section]
            if not isinstance(target, dict):
                raise InputError(f"{place}: {name} is no setting of a scenario; see `simulator schema`.")
        target[last] = value
    return from_mapping(document, place)


def to_mapping(scenario: Scenario) -> dict[str, Any]:
    """Plain values of every field that is not at its default."""
    return scenario.model_dump(mode="json", exclude_defaults=True) | {"name": scenario.name}


def to_yaml(scenario: Scenario) -> str:
    """A scenario file; `from_text` reads the same scenario from it."""
    plain = _plain(scenario.model_dump(mode="python", exclude_defaults=True) | {"name": scenario.name})
    order = [name for name in Scenario.model_fields if name in plain]
    document = {name: plain[name] for name in order}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    if any(mark in text for mark in "\x85\u2028\u2029"):  # YAML reads these back as ends of lines
        text = yaml.safe_dump(document, sort_keys=False, width=100)
    return text


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}


def _with_paths_from(scenario: Scenario, folder: Path) -> Scenario:
    """The same scenario with its relative files found from `folder`; a name that is no file there stays a name."""
    changes: dict[str, Any] = {}
    for name in ("model", "step_time.profile", "workload.trace.file", "hardware.catalogue"):
        value: Any = scenario
        for part in name.split("."):
            value = None if value is None else getattr(value, part)
        if value is not None and (found := folder / value).exists():
            changes[name] = str(found)
    return with_changes(scenario, changes) if changes else scenario


def _plain(value: Any) -> Any:
    """The value with paths as text, all the way down."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return str(value) if isinstance(value, Path) else value


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, except that a key given twice is an error instead of a silent choice."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(problem="a key is no plain word", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _sentence(error: ValidationError, place: str) -> str:
    """One fault in full, a misspelt key before what follows from it, and how many others there are."""
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    more = f" ({len(faults) - 1} more to correct after it.)" if len(faults) > 1 else ""
    return f"{place}: {_fault(faults[0])}{more}"


def _fault(fault: Mapping[str, Any]) -> str:
    path = [_printable(part) for part in fault["loc"] if part not in _TAGS]
    name, kind, message = ".".join(path) or "it", fault["type"], fault["msg"].removeprefix("Value error, ")
    value = repr(fault["input"])
    value = value if len(value) <= 60 else f"{value[:57]}..."
    if kind == "extra_forbidden":
        return f"{name} is no setting; {_nearest(path)}."
    if kind == "missing":
        return f"{name} is missing; add it."
    if kind == "value_error":
        return f"{name}: {message}."
    return f"{name} is {value}; {_remedy(fault, path, message)}."


def _remedy(fault: Mapping[str, Any], path: list[str], message: str) -> str:
    kind = fault["type"]
    if kind.startswith("union_tag"):
        if "distribution" in fault["ctx"]["discriminator"]:
            return "write 128, uniform:64:256, lognormal:MEAN:CV, or a section with its distribution"
        return f"give it a kind: {', '.join(_kinds(path))}"
    if kind == "tuple_type":
        return "it must be a list, a dash before each entry"
    if kind == "model_type":
        return f"it must be a section: {'.'.join(path)}, and indented below it {', '.join(_fields(path))}"
    return message.replace("Input should", "it must", 1)


def _printable(part: str | int) -> str:
    text = str(part)
    return text if text.isprintable() and text else ascii(text)


def _nearest(path: list[str]) -> str:
    *section, wrong = path
    known = _fields(section)
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"write {near[0]}" if near else f"choose from {', '.join(known)}"


def _fields(section: list[str]) -> list[str]:
    """Names of the settings at a place."""
    return list(dict.fromkeys(name for model in _models_at(section) for name in model.model_fields))


def _kinds(section: list[str]) -> list[str]:
    """The kinds that an entry of a list may be of."""
    return [repr(get_args(model.model_fields["kind"].annotation)[0]) for model in _models_at(section)]


def _models_at(section: list[str]) -> list[type[BaseModel]]:
    """The sections that may stand at a place."""
    models: list[type[BaseModel]] = [Scenario]
    for name in (part for part in section if not part.isdigit()):  # a number is a place in a list
        models = [found for model in models for found in _models(model.model_fields[name].annotation)]
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections within an annotation such as `A | B | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]


# pydantic puts the kind of a length or of a fault into the place
_TAGS = ("fixed", "uniform", "lognormal", "crash", "crashes", "slowdown", "rolling_upgrade", "spot_interruption")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
