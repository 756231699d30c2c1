"""The report in a real headless browser, on a telephone and on a screen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipelines.storage import Folder
from tests.browser import BROWSER, DRIVER, browser
from tests.tuner.studies import finished_study
from tuner.ledger.summary import summarise
from tuner.report.page import write_report

# A frame has exactly the width that is asked for; a window of the browser may have a least one.
MEASURE = """<body style="margin:0"><iframe style="width:{width}px;height:900px;border:0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  root.style.scrollbarWidth = "none";
  const wide = [...page.querySelectorAll("body *")].filter(one =>
    !one.closest(".wide") && one.getBoundingClientRect().right > root.clientWidth + 1);
  const copy = page.querySelector(".command button");
  copy.click();
  document.body.append(`width ${{root.clientWidth}} needed ${{root.scrollWidth}} wide `
    + `${{wide.length}} svg ${{page.querySelectorAll("svg").length}} buttons `
    + `${{page.querySelectorAll(".command button").length}} copy ${{copy.textContent}} end`);
}};
frame.srcdoc = {page};
</script>"""

pytestmark = [
    pytest.mark.skipif(None in (BROWSER, DRIVER), reason="chromium is not installed"),
    pytest.mark.timeout(120),
]


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_fits_its_window(tmp_path: Path, width: int) -> None:
    records = finished_study("a-study-with-a-name-that-is-" + "very" * 20 + "-long")
    for record in records:
        if record["kind"] == "test":
            record["labels"] = ["bass", "w" * 90, "techno"]
    write_report(summarise(records), Folder.at(tmp_path / "s"), "mlflow ui --backend " + "x" * 200)
    page = (tmp_path / "s" / "report.html").read_text()
    # "</script>" would end the script that holds the page.
    text = json.dumps(page).replace("</", "<\\/")
    (tmp_path / "frame.html").write_text(MEASURE.format(width=width, page=text))
    with browser(tmp_path / "profile") as shown:
        shown.open(f"file://{tmp_path / 'frame.html'}")
        dom = shown.wait_for_text("end")
    numbers = r"width (\d+) needed (\d+) wide (\d+) svg (\d+) buttons (\d+)"
    found = re.search(rf"{numbers} copy (?:Copied|Selected) end", dom)
    assert found, dom[-500:]
    assert [int(one) for one in found.groups()] == [width, width, 0, 7, 2]
