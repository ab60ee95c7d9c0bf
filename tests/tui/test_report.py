"""`vla-trace report`, opened in a real browser."""

import io
import shutil
import subprocess

import numpy as np
import pytest

from analysis.report import report_page
from tui import cli

WRAPPER = """<!doctype html><body>
<iframe id="page" src="{page}" width="{width}" height="800"></iframe>
<script>addEventListener("load", () => {{
  const shown = document.getElementById("page").contentDocument;
  const images = [...shown.images];
  document.body.dataset.found = JSON.stringify({{
    title: shown.title, text: shown.body.innerText, width: shown.documentElement.scrollWidth,
    images: images.length, whole: images.filter(one => one.complete && one.naturalWidth > 0).length,
  }});
}});</script></body>"""


def png(value):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def filmed(traces, tmp_path):
    """Eight pairs with pictures; of the steered ones half fail."""
    base, fast = [], []
    for i in range(8):
        frames = {"frames": {"agentview": (range(4), [png(20 * t) for t in range(4)])}}
        base.append(traces.episode(f"p{i}", [1.0 + 0.1 * i] * 4, success=True, **frames))
        fast.append(traces.episode(f"p{i}", [1.4 + 0.1 * i] * 4, success=i % 2 == 0, **frames))
    return [
        traces.write(tmp_path / "base.h5", base),
        traces.write(tmp_path / "fast.h5", fast, traces.steer(8.0)),
    ]


def opened(page, tmp_path, width=390):
    """What Chromium shows of a page in a window as wide as a phone."""
    import html
    import json
    import re

    browser = shutil.which("chromium")
    assert browser, "no browser: make test installs one (scripts/apt.sh)"
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(WRAPPER.format(page=page.name, width=width))
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr[-500:]
    return json.loads(html.unescape(found[1]))


def test_the_page_opens_in_a_browser_and_fits_a_phone(filmed, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert cli.run(["report", *map(str, filmed), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    shown = opened(out, tmp_path)
    assert shown["title"] == "vla-trace report"
    assert shown["width"] <= 390
    assert shown["images"] == shown["whole"] == 3  # the overview, and the films of a pair
    for words in ("16 episodes", "fast", "8/8", "failure after 4 control steps", "How this page"):
        assert words in shown["text"].replace("100%", "8/8"), words
    assert "http" not in out.read_text().replace("http://www.w3.org", "")  # no network


def test_equal_traces_give_equal_bytes_whatever_their_order(filmed):
    assert report_page(filmed, "x") == report_page(filmed[::-1], "x")


def test_without_pictures_or_pairs_there_is_still_a_page(traces, tmp_path, capsys):
    path = traces.write(tmp_path / "one.h5", [traces.episode("p", [], success=False)])
    out = tmp_path / "report.html"
    assert cli.run(["report", str(path), "-o", str(out)]) == 0
    assert cli.run(["report", str(path), "-o", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.run(["report", str(path), "-o", str(out), "--force"]) == 0
    assert "NaN" not in out.read_text()
    assert cli.run(["report", "nowhere.h5", "-o", str(tmp_path / "x.html")]) == 2
    assert not (tmp_path / "x.html").exists()


def test_what_a_trace_says_is_not_markup(traces, tmp_path):
    episodes = [
        traces.episode(f"p{i}", [1.0] * 3, instruction="<script>x</script>") for i in (0, 1)
    ]
    path = traces.write(tmp_path / "a.h5", episodes, policy_path="models/<b>bold</b>")
    page = report_page([path], "vla-trace report '<i>'")
    assert "<script>" not in page
    assert "<b>bold" not in page
    assert "&lt;i&gt;" in page
