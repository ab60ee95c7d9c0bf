"""`vla-trace figures` as typed."""

from tui import cli


def test_pictures_are_named_on_stdout(traces, tmp_path, capsys):
    base = [traces.episode(f"p{i}", [1.0 + 0.1 * i] * 2) for i in range(6)]
    traces.write(tmp_path / "base.h5", base)
    for alpha in (4.0, 8.0):
        arm = [traces.episode(f"p{i}", [1.2 + 0.11 * i] * 2) for i in range(6)]
        traces.write(tmp_path / f"a{alpha:g}.h5", arm, traces.steer(alpha))
    out = tmp_path / "pictures"
    assert cli.run(["figures", str(tmp_path), "-o", str(out), "--png"]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(out / "overview.png"), str(out / "dose-response.png")]
    assert (out / "dose-response.png").read_bytes().startswith(b"\x89PNG")


def test_the_study_is_what_traces_hold_of_it(traces, tmp_path, capsys):
    for name, sha256 in (("base", "ab"), ("tuned", "cd")):
        arm = [traces.episode(f"p{i}", [1.0] * 2, success=i < 4) for i in range(6)]
        traces.write(tmp_path / f"{name}.h5", arm, sha256=sha256 * 32)
    out = tmp_path / "pictures"
    assert cli.run(["figures", str(tmp_path), "-o", str(out), "--study", "--base", "ab" * 32]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / "table-1.md")]
    assert "4/6 = 67 %" in (out / "table-1.md").read_text()
    assert len(printed.err.splitlines()) == 3 and "vla-trace train --traces 1" in printed.err


def test_nothing_to_draw_is_said(traces, tmp_path, capsys):
    empty = traces.write(tmp_path / "empty.h5", [])
    assert cli.run(["figures", str(empty), "-o", str(tmp_path / "x")]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err.startswith("nothing to draw")) == ("", True)


def test_bad_input_is_one_line(paired, capsys):
    assert cli.run(["figures", "nowhere.h5"]) == 2
    assert cli.run(["figures", *map(str, paired), "-o", "/proc/nowhere"]) in (0, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
