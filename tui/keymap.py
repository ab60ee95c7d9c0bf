"""The keymap file: other keys for the actions of the screens, by the ids of their bindings."""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from textual.app import App
from textual.binding import Binding
from textual.keys import Keys, key_to_character
from textual.screen import ModalScreen, Screen

from traces.errors import UserError, near_matches

Keymap = dict[str, str]
"""Id of a binding to its keys, separated by commas."""
MODIFIERS = ("ctrl", "shift", "alt")
NAMED = {key.value for key in Keys}


def keymap_path() -> Path:
    """Return where the file is looked for."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "vla-trace" / "keymap.toml"


def all_screens() -> list[type[Screen]]:
    """Return every screen that has keys of its own."""
    from tui.screens.choice import ChoiceScreen
    from tui.screens.compare import CompareScreen
    from tui.screens.episode import EpisodeScreen
    from tui.screens.features import FeaturesScreen
    from tui.screens.help import HelpScreen
    from tui.screens.live import LiveScreen
    from tui.screens.neurons import NeuronsScreen
    from tui.screens.recorder import RecorderScreen
    from tui.screens.rollouts import RolloutsScreen
    from tui.screens.runs import RunsScreen

    return [
        RunsScreen,
        LiveScreen,
        RolloutsScreen,
        EpisodeScreen,
        NeuronsScreen,
        FeaturesScreen,
        CompareScreen,
        RecorderScreen,
        ChoiceScreen,
        HelpScreen,
    ]


def read_keymap(path: Path, app: type[App]) -> Keymap:
    """Read the file; no file changes no key.

    Raises:
        UserError: it cannot be read, names what does not exist, or gives a key two meanings.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    known = {b.id: b for b in all_bindings(app)}
    keymap: Keymap = {}
    for id, keys in _flat(content):
        if id not in known:
            close = near_matches(id, known, limit=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(f"{path}: no action {id}; {hint}vla-tui --keys lists them")
        if not isinstance(keys, str):
            raise UserError(f'{path}: {id} needs its keys in quotes, such as "x" or "x,f5"')
        keymap[id] = ",".join(key.strip() for key in keys.split(","))
        for key in keymap[id].split(","):
            if not _is_key(key):
                raise UserError(f"{path}: {id}: no key is called {key!r}")
    if "app.help" in keymap:  # what opens the help closes it, too
        keymap.setdefault("help.close", f"escape,enter,{keymap['app.help']}")
    for screen in all_screens():
        _refuse_twice(path, keymap, list(_bindings(screen, app)))
    return keymap


def keys_text(keymap: Keymap, app: type[App]) -> str:
    """Return a keymap file that holds every action with its keys in force and what it does."""
    lines: list[str] = []
    place = ""
    for binding in all_bindings(app):
        section, _, name = binding.id.partition(".")
        if section != place:
            lines += [*([""] if lines else []), f"[{section}]"]
            place = section
        keys = f'"{keymap.get(binding.id, binding.key)}"'
        lines.append(f"{name:13} = {keys:23} # {binding.tooltip}")
    return "\n".join(lines)


def all_bindings(app: type[App]) -> list[Binding]:
    """Return every binding with an id once, those of the application first."""
    found = chain(_own(app), *(_bindings(screen, app) for screen in all_screens()))
    once = {binding.id: binding for binding in found}
    places = list(dict.fromkeys(id.partition(".")[0] for id in once))
    return sorted(once.values(), key=lambda b: places.index(b.id.partition(".")[0]))


def _bindings(screen: type[Screen], app: type[App]) -> Iterator[Binding]:
    """Return the bindings that hold on a screen: nothing is behind a list that lies over one."""
    yield from chain.from_iterable(_own(owner) for owner in screen.__mro__)
    if not issubclass(screen, ModalScreen):
        yield from _own(app)


def _own(owner: type) -> list[Binding]:
    return [b for b in vars(owner).get("BINDINGS", ()) if isinstance(b, Binding) and b.id]


def _flat(content: dict, before: str = "") -> Iterator[tuple[str, object]]:
    """Return dotted names with their values: [runs] open is runs.open."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _is_key(key: str) -> bool:
    """Tell whether a keyboard can send it: a character or a name, perhaps with ctrl+ before it."""
    *modifiers, name = key.split("+") if len(key) > 1 else [key]
    known = name in NAMED or len(name) == 1 or key_to_character(name) is not None
    return known and all(modifier in MODIFIERS for modifier in modifiers)


def _refuse_twice(path: Path, keymap: Keymap, bindings: list[Binding]) -> None:
    """Refuse a key that would do two things on one screen; what is so by default stays so.

    Raises:
        UserError: there is one.
    """
    meaning: dict[str, str] = {}
    in_force = [replace(b, key=keymap.get(b.id, b.key)) for b in bindings]
    for one in Binding.make_bindings(in_force):
        other = meaning.setdefault(one.key, one.id)
        if other != one.id and {other, one.id} & keymap.keys():
            raise UserError(f"{path}: the key {one.key} is {other} and {one.id} at once")
