"""The report in a real browser: every plot drawn, a silent console, nothing fetched."""

import json
import re
import shutil
import subprocess

import pytest

from evometa.report.page import render
from tests.report.tables import KINDS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
    "--window-size=1200,2000",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: apt install chromium"),
]


def opened(path, profile):
    """Open a file; return the page as it then is, the console's lines, what the page fetched."""
    log = profile / "net.json"
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", f"--log-net-log={log}", "--dump-dom"]
    result = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=100)
    console = [line for line in result.stderr.splitlines() if ":CONSOLE" in line]
    net = json.loads(log.read_text())
    start = net["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    requests = [event["params"] for event in net["events"] if event["type"] == start]
    # the browser asks for updates of its own; those of a page have an origin
    fetched = [
        request["url"]
        for request in requests
        if "url" in request and request.get("initiator") != "not an origin"
    ]
    return result.stdout, console, fetched


@pytest.mark.parametrize("kind", ["two objectives", "three objectives", "two rungs", "hostile"])
def test_the_report_opens_from_disk(kind, tmp_path):
    run = KINDS[kind]()
    text = render(run.name, run.study, run.table)
    (tmp_path / "report.html").write_text(text)
    (tmp_path / "profile").mkdir()
    dom, console, fetched = opened(tmp_path / "report.html", tmp_path / "profile")
    assert console == []
    assert fetched == []
    plots = re.findall(r'<div class="plot', text)
    assert len(plots) >= 9
    drawn = re.findall(r'<div class="plot [^>]*js-plotly-plot.*?<svg class="main-svg"', dom, re.S)
    assert len(drawn) == len(plots)


def test_what_a_page_fetches_and_says_would_be_seen(tmp_path):
    page = "<img src='http://hostile.invalid/x'><script>console.error('said')</script>"
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "profile").mkdir()
    _, console, fetched = opened(tmp_path / "page.html", tmp_path / "profile")
    assert fetched == ["http://hostile.invalid/x"]
    assert any("said" in line for line in console)
