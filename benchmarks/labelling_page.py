"""How soon the labelling page shows a click and the next micrograph, measured in a real browser.

    python -m benchmarks.labelling_page --output /tmp/labelling_page

Writes two micrographs of noise of 4096 x 4096 and two of 7676 x 7420 px, marks 1,500 particles on
each, and opens the page in headless Chromium without WebGL. shown: from the event of a click, or of
a wheel, to the end of the frame that shows it. next: from the key to the frame with the picture,
of a micrograph that was proposed and made ready before, and with --cold of one that was not.
"""

import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from benchmarks.common import ROOT, new_parser, print_header, print_row
from picking.errors import UserError, run_script
from picking.files import make_folder

SIZES_PX = ((4096, 4096), (7676, 7420))
N_MARKS, N_CLICKS = 1500, 20
# Two frames later what the event changed has been drawn and handed over
SHOWN = """kind => new Promise(done => {
    const canvas = document.getElementById('overlay');
    const listener = event => {
        canvas.removeEventListener(kind, listener);
        requestAnimationFrame(() => requestAnimationFrame(() =>
            done(performance.now() - event.timeStamp)));
    };
    canvas.addEventListener(kind, listener);
})"""
WAIT = f"kind => ({{ shown: ({SHOWN})(kind) }})"


def write_micrographs(folder: Path) -> None:
    """Write two micrographs of each size, unless they are there."""
    make_folder(folder)
    rng = np.random.default_rng(0)
    for size_px in SIZES_PX:
        for number in range(2):
            path = folder / f"{size_px[0]}_{number}.mrc"
            if not path.exists():
                with mrcfile.new(path) as file:
                    file.set_data(rng.normal(1000, 30, size_px).astype(np.float32))
                    file.voxel_size = 1.0


def main() -> None:
    """Measure, and print a row for each size."""
    parser = new_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for all that is written")
    output = parser.parse_args().output
    try:
        from tests.fixtures.browser import Window, started, until
    except ImportError as error:
        raise UserError(f"{error}: pip install -r requirements-dev.txt") from error
    write_micrographs(output / "raw")
    shutil.rmtree(output / "labels", ignore_errors=True)
    command = [sys.executable, ROOT / "label_particles.py", "--output", output / "labels"]
    command += ["--micrographs", f"{output}/raw/*.mrc", "--diameter", "100px", "--port", "0"]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = next(line for line in server.stdout if "token=" in line).strip()
    print_header("size", "click shown, ms", "wheel shown, ms", "next, ms")
    try:
        with started() as browser:
            for height, width in SIZES_PX:
                window = Window(browser, None, url=url)
                page = window.page
                window.open(f"{height}_0.mrc")
                centres = np.random.default_rng(1).uniform((0, 0), (height, width), (N_MARKS, 2))
                page.evaluate("centres => labelling.act('accept', {centres})", centres.tolist())
                window.saved()
                times: dict[str, list[float]] = {"pointerup": [], "wheel": []}
                rng = np.random.default_rng(2)
                for _ in range(N_CLICKS):
                    point = window.at(*rng.uniform((0, 0), (height, width)))
                    for kind in times:
                        waiting = page.evaluate_handle(
                            f"kind => ({{ shown: ({SHOWN})(kind) }})", kind
                        )
                        page.mouse.move(*point)
                        if kind == "wheel":
                            page.mouse.wheel(0, -40 if rng.random() < 0.5 else 40)
                        else:
                            page.mouse.down()
                            page.mouse.up()
                        times[kind].append(page.evaluate("waiting => waiting.shown", waiting))
                window.saved()
                window.open(f"{height}_1.mrc")  # what is proposed from here is made ready
                window.open(f"{height}_0.mrc")
                until(lambda page=page: page.inner_text("#next-why"), "a proposal")
                time.sleep(1)
                window.open(f"{height}_1.mrc")
                middles = [statistics.median(of_kind) for of_kind in times.values()]
                largest = [max(of_kind) for of_kind in times.values()]
                print_row(
                    f"{height} x {width}",
                    *(f"{m:.0f} (most {n:.0f})" for m, n in zip(middles, largest, strict=True)),
                    f"{opened_ms(page):.0f}",
                )
                window.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


def opened_ms(page: Any) -> float:
    """Return how long the micrograph that is open took, to the frame with all its tiles."""
    page.wait_for_selector("body[data-shown-ms]", timeout=60_000)
    return float(page.get_attribute("body", "data-shown-ms"))


if __name__ == "__main__":
    run_script(main)
