"""`vla-trace analyze`: the table, the JSON object, and every kind of bad input."""

import json
import math
import subprocess
import sys

import h5py
import pytest

from tui import cli

REQUIRED = [
    *("policy", "suite", "task_id", "intervention", "alpha", "episodes", "success_rate"),
    *("success_ci", "meed_cm", "meed_ci", "delta_meed_cm", "delta_ci", "p_value", "files"),
]


def test_json_is_one_object_on_stdout_and_nothing_else(paired, capsys):
    assert cli.run(["analyze", "--json", *map(str, paired)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(report) == ["schema", "conditions", "trend", "notes"]
    assert report["schema"] == 1
    base, fast = report["conditions"]
    for condition in (base, fast):
        assert [key for key in REQUIRED if key not in condition] == []
    assert (base["intervention"], fast["intervention"], fast["alpha"]) == (None, "fast", 8.0)
    assert fast["delta_meed_cm"] == pytest.approx(0.5)
    assert fast["files"] == [str(paired[1])]
    assert isinstance(report["trend"], dict)
    assert all(isinstance(note, str) for note in report["notes"])


def test_files_folders_and_quoted_patterns_are_the_same_thing(paired, tmp_path, capsys):
    (tmp_path / "reader.py").write_text("a folder of recordings may hold other files")
    outputs = set()
    for args in (
        [str(path) for path in paired],
        [str(path) for path in paired[::-1]],
        [str(tmp_path / "*.h5")],
        [str(tmp_path)],
        [str(tmp_path), str(paired[0])],
    ):
        assert cli.run(["analyze", "--json", *args]) == 0
        outputs.add(capsys.readouterr().out)
    assert len(outputs) == 1


def test_the_table_fits_80_columns_and_keeps_every_digit(paired, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["analyze", *map(str, paired)]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert lines[0].startswith("smolvla-tabletop@abababab on tabletop task 0 (lift); flow_sde, K 2")
    for shown in ("baseline", "fast α=8", "vlm.1 x2", "75%", "1.950", "+0.500", "20 pairs"):
        assert shown in text
    assert "<0.0001" in text
    assert "note: fast α=8 in tabletop task 0: without controls nothing says" in text
    assert "…" not in text


@pytest.mark.parametrize("columns", ["20", "50", "200"])
def test_no_width_costs_a_digit(columns, paired, capsys, monkeypatch):
    def numbers(width):
        monkeypatch.setenv("COLUMNS", width)
        assert cli.run(["analyze", *map(str, paired)]) == 0
        out = capsys.readouterr().out
        assert "…" not in out
        return sorted(word for word in out.split() if any(c.isdigit() for c in word))

    assert numbers(columns) == numbers("80")


def test_the_trend_is_printed_when_there_is_one(traces, tmp_path, capsys):
    for alpha in (2, 4, 8):
        arm = [traces.episode(f"p{i}", [i + 0.1 * alpha]) for i in range(6)]
        traces.write(tmp_path / f"{alpha}.h5", arm, traces.steer(alpha))
    assert cli.run(["analyze", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "trend of MEED over alpha, fast at 2, 4, 8 (vlm.1 x2, tabletop task 0): +0.1000" in out
    assert "Page's L 84, p <0.0001, 6 pairs" in out


def test_control_characters_of_a_file_never_reach_the_terminal(traces, tmp_path, capsys):
    episodes = [
        traces.episode("p0", [1.0], task_name="\x1b]0;owned\x07[red]x"),
        traces.episode("p1", [1.0], task_name="\x1b]0;owned\x07[red]x", error="a\x1b[2Jb"),
    ]
    name = "fa\x1b[2Jst"
    traces.write(tmp_path / "a.h5", episodes, traces.steer(name=name))
    for args in ([], ["--json"]):
        assert cli.run(["analyze", *args, str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "[red]x" in out
    assert json.loads(out)["conditions"][0]["intervention"] == name


def test_unfinished_recordings_are_counted_when_named_and_said_when_not(traces, tmp_path, capsys):
    traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    partial = traces.write(tmp_path / "b.h5", [traces.episode("p1", [1.0])], finish=False)

    def analyze(path):
        assert cli.run(["analyze", "--json", str(path)]) == 0
        report = json.loads(capsys.readouterr().out)
        return report["conditions"][0]["episodes"], report["notes"]

    assert analyze(tmp_path) == (
        1,
        [f"{partial} is unfinished and was not read; name it in full to count it"],
    )
    episodes, notes = analyze(partial)
    assert episodes == 1
    assert notes == [f"{partial} is unfinished: 1 complete episode in it"]


def test_an_empty_trace_is_not_an_error(traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [])
    assert cli.run(["analyze", str(path)]) == 0
    assert capsys.readouterr().out == "no episodes in these files\n"
    assert cli.run(["analyze", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["conditions"] == []


def text_file(folder, traces):
    path = folder / "notes.h5"
    path.write_text("not HDF5 at all")
    return path, "notes.h5 is not a readable trace: it is not an HDF5 file"


def foreign(folder, traces):
    path = folder / "other.h5"
    with h5py.File(path, "w") as file:
        file["x"] = [1, 2]
    return path, "other.h5 is not a readable trace: it is HDF5, but"


def newer(folder, traces):
    path = traces.write(folder / "new.h5", [traces.episode("p0", [1.0])])
    with h5py.File(path, "r+", locking=False) as file:
        file.attrs["format_version"] = 99
    return path, "has trace format version 99, this vla-trace reads up to version 1; upgrade it"


def damaged(folder, traces):
    path = traces.write(folder / "hole.h5", [traces.episode("p0", [1.0])])
    with h5py.File(path, "r+", locking=False) as file:
        del file["steps/ee_pos"]
    return path, "hole.h5 is not a readable trace: it is damaged"


def cut_off(folder, traces):
    path = traces.write(folder / "cut.h5", [traces.episode("p0", [1.0])])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path, "cut.h5 is not a readable trace: the file is cut off"


def absent(folder, traces):
    return folder / "none.h5", "no trace files match"


def empty_glob(folder, traces):
    return folder / "*.h5", "no trace files match"


def empty_folder(folder, traces):
    (folder / "reader.py").write_text("")
    return folder, "no trace files match"


def odd_name(folder, traces):
    path = folder / "a\x1b[2J\n.h5"
    path.write_text("x")
    return path, r"a\x1b[2J"


KINDS = [text_file, foreign, newer, damaged, cut_off, absent, empty_glob, empty_folder, odd_name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("args", [[], ["--json"]])
def test_bad_input_is_one_line_and_exit_2(kind, args, traces, tmp_path, capsys):
    path, said = kind(tmp_path, traces)
    assert cli.run(["analyze", *args, str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert "\x1b" not in err


@pytest.mark.parametrize("args", [[], ["--table", "motion"]])
def test_it_imports_nothing_heavy(args, traces, tmp_path):
    """The whole command in a fresh process; how long it takes is in tests/benchmarks."""
    for name, intervention in (("base", None), ("fast", traces.steer())):
        arm = [traces.episode(f"p{i}", [math.sin(i) + 2] * 300) for i in range(20)]
        traces.write(tmp_path / f"{name}.h5", arm, intervention)
    code = (
        "import sys, tui.cli\n"
        f"assert tui.cli.run(['analyze', '--json', {str(tmp_path)!r}, *sys.argv[1:]]) == 0\n"
        "heavy = [m for m in ('torch', 'sklearn', 'scipy', 'textual', 'rich', 'engine')"
        " if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-P", "-c", code, *args]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["conditions"] if not args else found["tables"]["motion"]) >= 2


TUNED = {"sha256": "cd" * 32, "policy_path": "runs/a/checkpoints/000040/pretrained_model"}
HZ = (("name", "tabletop"), ("control_hz", 20))


@pytest.fixture
def study(traces, tmp_path):
    """A folder with base and fine-tuned policy, steered and random arms, and a training trace."""
    folder = tmp_path / "traces"
    random = {"control": "random", "matched_to": "f"}
    steers = [None, traces.steer()]
    steers += [traces.steer(name=f"random {i} for fast", neurons=(i, 3), **random) for i in (0, 1)]
    for policy, settings in (("base", {}), ("tuned", TUNED)):
        for number, intervention in enumerate(steers):
            arm = [
                traces.episode(f"p{i}", [1 + 0.1 * i + number] * 12, success=i % 3 > 0)
                for i in range(12)
            ]
            path = folder / f"{policy}-{number}.h5"
            traces.write(path, arm, intervention, suite=HZ, **settings)
    group = {"update": 0, "group": 0, "policy_version": 0, "task_id": 0, "init_state": 1}
    group |= {"scene_seed": 1, "n_members": 2, "n_success": 1, "return_mean": 0.5}
    group |= {"return_std": 0.7, "accepted": True}
    arm = [traces.episode("u0", [1.0])]
    tables = {"groups": {name: [value] for name, value in group.items()}}
    nameless = {"sha256": "", "policy_path": ""}  # weights of an update are on no disk
    path = folder / "update-000000.h5"
    traces.write(path, arm, kind="grpo", suite=HZ, tables=tables, **nameless)
    return folder


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        ("motion", ["fast α=8, against the baseline", "SPARC", "2 random clusters for fast α=8"]),
        ("motion", ["baseline, against the base policy", "1.55 [1.36, 1.74]"]),
        ("safety", ["force max, N", "fast α=8, against the base policy", "clipped, %"]),
        ("training", ["8/12", "67%", "McNemar", "0 won", "0 lost"]),
        ("advantages", ["run update-000000", "1 drawn; 0 always, 0 never, 1 mixed", "0.500"]),
    ],
)
def test_the_other_tables_fit_80_columns(table, shown, study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["analyze", str(study), "--table", table]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert [part for part in shown if part not in text] == []
    assert "…" not in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("table", ["motion", "safety", "training", "advantages"])
def test_their_json_is_strict_and_ignores_the_order_of_files(table, study, capsys):
    files = [str(path) for path in sorted(study.glob("*.h5"))]
    outputs = set()
    for order in (files, files[::-1], [str(study)]):
        assert cli.run(["analyze", "--table", table, "--json", *order]) == 0
        outputs.add(capsys.readouterr().out)
    (out,) = outputs
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(report) == ["schema", "table", "tables", "notes"]
    assert (report["schema"], report["table"]) == (1, table)
    assert all(isinstance(note, str) for note in report["notes"])


def test_every_table_is_written_and_nothing_is_overwritten(study, tmp_path, capsys):
    out = tmp_path / "tables"
    assert cli.run(["analyze", str(study), "--out", str(out)]) == 0
    text, err = capsys.readouterr()
    assert "MEED cm/step" in text  # the main table is printed as ever
    assert err == f"wrote 13 tables to {out}\n"
    names = {path.name for path in out.iterdir()}
    assert {"motion.csv", "motion.parquet", "training_tasks.csv", "notes.txt"} <= names
    before = (out / "motion.csv").read_bytes()
    assert cli.run(["analyze", str(study), "--out", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert cli.run(["analyze", str(study), "--out", str(out), "--force"]) == 0
    assert (out / "motion.csv").read_bytes() == before
    (tmp_path / "mine").mkdir()
    assert cli.run(["analyze", str(study), "--out", str(tmp_path / "mine"), "--force"]) == 2
    assert "is a folder that no export made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--table", "motoin"], "unknown table 'motoin'; did you mean motion?"),
        (
            ["--table", "training", "--base", "nobody"],
            "unknown base policy 'nobody'; available: pretrained_model@",
        ),
        (["--table", "motion", "--horizon", "0"], "--horizon"),
    ],
)
def test_what_cannot_be_asked_is_one_line(args, said, study, capsys):
    assert cli.run(["analyze", str(study), *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_base_and_horizon_are_heard(study, capsys):
    chosen = ["--table", "training", "--base", "pretrained_model", "--json"]
    assert cli.run(["analyze", str(study), *chosen]) == 0
    rows = json.loads(capsys.readouterr().out)["tables"]["training_tasks"]
    assert {row["base"] for row in rows} == {"pretrained_model@cdcdcdcd"}
    assert cli.run(["analyze", str(study), "--table", "motion", "--horizon", "12", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tables"]["motion"]
    assert {row["n"] for row in rows if row["measure"] == "meed_first_cm"} == {12}


@pytest.mark.parametrize("table", ["motion", "safety", "training", "advantages"])
def test_no_table_stumbles_over_an_empty_trace(table, traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [])
    assert cli.run(["analyze", "--table", table, str(path)]) == 0
    assert "in these files" in capsys.readouterr().out
    assert cli.run(["analyze", "--table", table, "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["table"] == table
