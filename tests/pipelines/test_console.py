from __future__ import annotations

import io

import pytest

from pipelines.build import console
from pipelines.build.progress import BuildProgress


def test_the_rate_leaves_out_the_start_and_reused_files() -> None:
    moments = iter([0.0, 0.0, 20.0, 30.0, 40.0])
    out = io.StringIO()
    show = console.progress_lines(out, lambda: next(moments))
    for files in (100, 140, 160, 200):
        show(BuildProgress(files=files, listed=200, rejected=3, clips=10 * files, resumed=100))
    lines = out.getvalue().splitlines()
    assert lines[0] == "100/200 files, 1000 clips, 3 rejected, 100 reused"
    assert lines[1] == "140/200 files, 1400 clips, 3 rejected, 100 reused"
    # 20 files in the 10 s since the first ones came; 40 are left
    assert lines[2].endswith("100 reused, 2 files/s, 20 s left")
    assert lines[3].endswith("200/200 files, 2000 clips, 3 rejected, 100 reused, 3 files/s")


@pytest.mark.parametrize(
    ("left_s", "text"), [(99, "99 s"), (100, "2 min"), (5900, "98 min"), (7200, "2.0 h")]
)
def test_time_left_has_a_unit_that_fits(left_s: int, text: str) -> None:
    moments = iter([0.0, 0.0, 10.0, 20.0])
    out = io.StringIO()
    show = console.progress_lines(out, lambda: next(moments))
    for files in (0, 1, 11):  # one a second
        show(BuildProgress(files=files, listed=11 + left_s, rejected=0, clips=0, resumed=0))
    assert out.getvalue().splitlines()[-1].endswith(f"1 files/s, {text} left")
