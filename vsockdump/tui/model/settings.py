"""The settings file: what the user wants the program to begin with.

    columns = ["number", "time", "src", "dst", "op", "info"]
    time = "seconds since 1970"
    theme = "high-contrast"
    numeric = true
    [colours]
    rst = "red"
    [keys]
    "Next finding" = "ctrl+n"

Rules for editors: names are those of the program's own tables; what is not known is an error
that names what there is, so that a word mistyped is not a setting without effect.
"""

import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

from vsockdump.tui.model.columns import COLOUR_RULES, COLUMNS, DEFAULT_COLUMNS, TIME_FORMATS

_SINCE_FIRST: Final = 5


class Settings(NamedTuple):
    """What to begin with; `theme` "" is Textual's.

    `colours` are of colour rules, `keys` of the actions that the help lists.
    """

    columns: tuple[str, ...] = DEFAULT_COLUMNS
    times: int = _SINCE_FIRST
    theme: str = ""
    numeric: bool = False
    colours: Mapping[str, str] = {}
    keys: Mapping[str, str] = {}


class SettingsError(ValueError):
    """A file that cannot be used: one sentence."""


def load(path: Path, themes: Collection[str], actions: Collection[str]) -> Settings:
    """The settings of a file, the default where there is none; SettingsError.

    `themes` and `actions` are the names that there are.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.") from None
    try:
        return _settings(tomllib.loads(text), themes, actions)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}.") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _settings(
    values: dict[str, Any], themes: Collection[str], actions: Collection[str]
) -> Settings:
    known = {"columns", "time", "theme", "numeric", "colours", "keys"}
    for name in values:
        _one_of("setting", name, known)
    columns = _typed(values, "columns", list, list(DEFAULT_COLUMNS))
    for column in columns:
        _one_of("column", column, COLUMNS)
    if not columns or len(set(columns)) < len(columns):
        raise SettingsError("columns needs a column, and each at most once.")
    formats = {meaning: times for times, meaning in TIME_FORMATS.items()}
    time = _typed(values, "time", str, TIME_FORMATS[_SINCE_FIRST])
    _one_of("time format", time, formats)
    theme = _typed(values, "theme", str, "")
    if theme:
        _one_of("theme", theme, themes)
    return Settings(
        tuple(columns),
        formats[time],
        theme,
        _typed(values, "numeric", bool, False),
        _texts(values, "colours", "colour rule", COLOUR_RULES),
        _texts(values, "keys", "action", actions),
    )


def _typed(values: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = values.get(name, default)
    if not isinstance(value, kind):
        words = {list: "a list", str: "a text in quotes", bool: "true or false", dict: "a table"}
        raise SettingsError(f"{name} must be {words[kind]}.")
    return value


def _texts(
    values: dict[str, Any], name: str, what: str, known: Collection[str]
) -> Mapping[str, str]:
    table = _typed(values, name, dict, {})
    for key in table:
        _one_of(what, key, known)
        _typed(table, key, str, "")
    return table


def _one_of(what: str, name: Any, known: Collection[str]) -> None:
    if name in known:
        return
    near = get_close_matches(str(name), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}."
    raise SettingsError(f"There is no {what} {name}; {hint}")
