"""What a manifest says of an extractor, and an extractor out of what a manifest says."""

import json
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue, ValidationError

from data_shards.errors import ConfigError, ModelError
from data_shards.extraction import EXTRACTORS
from data_shards.extraction.contract import Extractor, ExtractorSettings
from data_shards.schema import first_problem

__all__ = ["described", "extractor_of", "extractor_settings", "runs_on_video", "untrained_weights"]

_KEY = "extractor"


def described(name: str, extractor: Extractor) -> dict[str, JsonValue]:
    """The manifest's record: the extractor's name in EXTRACTORS, its settings, and what it says of itself."""
    return {_KEY: name, "settings": extractor.settings.model_dump(mode="json"), **extractor.about}


def extractor_settings(names: Iterable[str], settings: Sequence[str]) -> dict[str, ExtractorSettings]:
    """Settings of the extractors named: the defaults, but for `EXTRACTOR.FIELD=VALUE` of `settings`. ConfigError if unfit."""
    chosen: dict[str, dict[str, JsonValue]] = {}
    for name in names:
        if name not in EXTRACTORS:
            raise ConfigError(f"no extractor named '{name}'; there are: {', '.join(EXTRACTORS)}")
        chosen[name] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        name, dot, field = path.partition(".")
        if not (equals and dot and name in chosen):
            raise ConfigError(
                f"--set {setting}: not of the form EXTRACTOR.FIELD=VALUE with one of {', '.join(chosen)}, "
                "e.g. i3d.random_init=true"
            )
        try:
            chosen[name][field] = json.loads(text)
        except ValueError:
            chosen[name][field] = text
    return {name: _validated(name, fields) for name, fields in chosen.items()}


def _validated(name: str, fields: Mapping[str, JsonValue]) -> ExtractorSettings:
    try:
        return EXTRACTORS[name].settings_type.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"extractor {name}: {first_problem(error)}") from None


def runs_on_video(record: Mapping[str, JsonValue]) -> bool:
    """Whether the feature of this record can be made of any video: by an extractor of ours, and of nothing but the clip."""
    name = record.get(_KEY)
    if not isinstance(name, str) or name not in EXTRACTORS:
        return False
    settings = record.get("settings")
    return EXTRACTORS[name].needs_only_the_clip(_validated(name, settings if isinstance(settings, dict) else {}))


def untrained_weights(record: Mapping[str, JsonValue]) -> str:
    """What an extractor of ours says of weights that nothing has trained, so that its features mean nothing; else empty.

    What others say of the weights of theirs is no such word: CMOSE's I3D has Kinetics-400's.
    """
    return str(record.get("weights", "")) if _KEY in record else ""


def extractor_of(record: Mapping[str, JsonValue]) -> Extractor:
    """The extractor that made a feature, loaded again. ModelError where it is not the same here: a feature of other weights
    would be another feature."""
    name, settings = record.get(_KEY), record.get("settings")
    if not isinstance(name, str) or name not in EXTRACTORS or not isinstance(settings, dict):
        raise ModelError(f"a feature was made by '{name or record.get('name', 'somebody else')}', which this Rapt does not have")
    extractor = EXTRACTORS[name](_validated(name, settings))
    here = described(name, extractor)
    unlike = [field for field in {**record, **here} if _tells(field) and record.get(field) != here.get(field)]
    if unlike:
        field = unlike[0]
        raise ModelError(
            f"extractor {name}: {field} is {here.get(field)} here and was {record.get(field)} for the training data; "
            "install the same, or train on features of this one"
        )
    return extractor


def _tells(field: str) -> bool:
    """Whether a field of a record says what a feature is; versions of libraries are for a person to know."""
    return field in ("settings", "columns", "weights") or field.endswith("sha256")
