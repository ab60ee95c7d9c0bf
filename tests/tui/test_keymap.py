"""The keymap file: which keys hold, and the one line for each way to get it wrong."""

import importlib.util
import re
from pathlib import Path

import pytest

from traces.errors import UserError
from tui import app
from tui.app import VlaApp, make_app
from tui.keymap import all_bindings, all_screens, keymap_path, keys_text, read_keymap
from tui.screens.rollouts import RolloutsScreen

ROOT = Path(__file__).parents[2]


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, driver = beside("scenes"), beside("driver")


@pytest.fixture
def keymap(tmp_path, monkeypatch):
    """Writes the file where it is looked for."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text):
        path = keymap_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def read(path):
    return read_keymap(path, VlaApp)


def test_the_file_is_looked_for_in_the_configuration_folder(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg")
    assert keymap_path() == Path("/etc/xdg/vla-trace/keymap.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert keymap_path() == Path.home() / ".config/vla-trace/keymap.toml"


def test_no_file_changes_no_key(tmp_path):
    assert read(tmp_path / "keymap.toml") == {}


def test_sections_and_dotted_names_are_the_same(keymap):
    text = '[runs]\nopen = "o, enter"\n[list]\ndown = "n"\n'
    assert read(keymap(text)) == {"runs.open": "o,enter", "list.down": "n"}
    assert read(keymap('"runs.open" = "o,enter"\nlist.down = "n"')) == read(keymap(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[runs]\nopn = "o"', "no action runs.opn; did you mean runs.open? vla-tui --keys lists"),
        ('open = "o"', "no action open; "),
        ("[runs]\nopen = 3", "runs.open needs its keys in quotes"),
        ('[runs]\nopen = ["o"]', "runs.open needs its keys in quotes"),
        ('[runs]\nopen = ""', "runs.open: no key is called ''"),
        ('[runs]\nopen = "o,"', "runs.open: no key is called ''"),
        ('[runs]\nopen = "entre"', "runs.open: no key is called 'entre'"),
        ('[runs]\nopen = "hyper+o"', "runs.open: no key is called 'hyper+o'"),
        ('[runs]\nopen = "c"', "the key c is runs.open and runs.compare at once"),
        ('[runs]\nopen = "r"', "the key r is runs.open and app.reload at once"),
        ('[app]\nhelp = "j"', "the key j is list.down and app.help at once"),
        ('[app]\nhelp = "?"\nreload = "question_mark"', "the key question_mark is app."),
        ('[runs]\nopen = "ctrl+c"', "the key ctrl+c is runs.open and app.leave at once"),
        ("[runs", "is not TOML: "),
        ('[runs]\nopen = "o"\nopen = "p"', "is not TOML: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(keymap, capsys, text, said):
    path = keymap(text)
    with pytest.raises(UserError, match=re.escape(said)):
        read(path)
    assert app.run([]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith(f"error: {path}")) == ("", 1, True)


def test_bytes_that_are_no_text_and_a_folder_are_one_line(keymap):
    path = keymap("")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not TOML"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read(path)


def test_what_keys_prints_is_a_keymap_that_changes_nothing(keymap, capsys):
    keymap("")
    assert app.run(["--keys"]) == 0
    printed = capsys.readouterr().out
    found = read(keymap(printed))
    assert found == {b.id: b.key for b in all_bindings(VlaApp)}
    assert printed == keys_text({}, VlaApp) + "\n"
    assert 'reload        = "f5"' in keys_text({"app.reload": "f5"}, VlaApp)


def test_every_binding_has_an_id_of_its_own():
    owners = {owner for screen in all_screens() for owner in screen.__mro__} | {VlaApp}
    declared = [
        b
        for owner in owners
        if owner.__module__.startswith("tui.")
        for b in vars(owner).get("BINDINGS", ())
    ]
    ids = [b.id for b in declared]
    assert all(ids)
    assert len(set(ids)) == len(ids) == len(all_bindings(VlaApp))


def test_the_documentation_lists_every_action():
    assert keys_text({}, VlaApp) in (ROOT / "docs/keys.md").read_text(encoding="utf-8")


def test_other_keys_act_and_are_shown(keymap, tmp_path):
    scenes.recorded(tmp_path)
    text = '[runs]\nopen = "o"\n[app]\nhelp = "f1"\n[list]\nfilter = "t"'
    found = read(keymap(text))

    async def steps(pilot):
        line = driver.screen_text(pilot.app).splitlines()[-1]
        assert "o open" in line
        assert "t filter" in line
        assert "f1 help" in line
        await driver.press(pilot, "enter", "?")
        assert len(pilot.app.screen_stack) == 1, "the usual keys do nothing"
        await driver.press(pilot, "f1")
        assert re.search(r"│ f1 +show or hide these keys", driver.screen_text(pilot.app))
        await driver.press(pilot, "f1", "o")
        assert isinstance(pilot.app.screen, RolloutsScreen)

    driver.drive(make_app(tmp_path, lambda: scenes.NOW, keymap=found), steps)


REBOUND = """
[runs]
mark = "t"
compare = "o"
clear = "f2"
[live]
follow = "u"
alerts = "f7"
[episode]
beside = "t"
parted = "u"
[neurons]
accept = "i"
record = "f5"
back = "f6"
policy-before = "f3"
policy-next = "f4"
[recording]
back = "f8"
[pane]
zoom = "e"
[choice]
choose = "o"
leave = "f9"
[help]
close = "f2"
"""


def test_sentences_name_the_keys_in_force(keymap, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tables = beside("neuron_scenes")
    monkeypatch.chdir(tmp_path)
    here = Path()
    tables.write_table(scenes.SHA, layers=2)
    scenes.training(here)
    scenes.recorded(here)
    other = {"run_id": "other", "policy": ("c0de" * 16, "models/other")}
    scenes.write_trace(here / "traces" / "o.h5", steered=False, **other)
    seen = []

    async def steps(pilot):
        async def after(*keys):
            await driver.press(pilot, *keys)
            seen.append(driver.screen_text(pilot.app))
            return seen[-1]

        assert "1 WARN (f7)" in await after("2")
        assert "success: e gives it the window" in await after("tab")
        assert "o chooses, f9 closes" in await after("f7")
        assert "at update 14 of 14, u follows" in await after("f9", "[")
        assert "f2 closes" in await after("question_mark")
        assert "f2 clears it" in await after("f2", "1", "slash", *"xyz")
        await driver.press(pilot, "enter", "f2", "G")
        assert "t shows its pair beside it; then u goes to" in await after("enter", "enter", "u")
        assert " f3 f4" in (await after("4")).splitlines()[0]
        assert "no neuron is accepted: i accepts the one" in await after("w")
        assert "name and dose; enter saves" in await after("i", "w")
        assert "; f5 records with it" in await after("enter")
        assert "enter starts it, f6 does not" in await after("f5")

    driver.drive(make_app(here, lambda: scenes.NOW, keymap=read(keymap(REBOUND))), steps)
    assert not [text for text in seen if re.search(r"\besc (closes|clears|does)", text)]


def test_an_empty_comparison_names_the_keys_of_the_runs(keymap, tmp_path):
    scenes.recording(tmp_path)

    async def steps(pilot):
        await driver.press(pilot, "5")
        assert "mark two runs with t in Runs, then o;" in driver.screen_text(pilot.app)

    driver.drive(make_app(tmp_path, lambda: scenes.NOW, keymap=read(keymap(REBOUND))), steps)
