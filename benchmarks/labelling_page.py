"""How soon the labelling page shows a click and the next micrograph, measured in a real browser.

    python -m benchmarks.labelling_page --output /tmp/labelling_page

Writes two micrographs of noise of 4096 x 4096 and two of 7676 x 7420 px, marks 1,500 particles on
each, and opens the page in headless Chromium without WebGL. shown: from the event of a click, or of
a wheel, to the end of the frame that shows it. next: from the key to the frame with the picture,
of a micrograph that was proposed and made ready before.

With --many 2000 it writes so many micrographs of 256 x 256 px, most of them hard links, and prints
how soon the page is there, how fluently its strip scrolls, and what memory the server takes.
"""

import contextlib
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from benchmarks.common import ROOT, new_parser, print_header, print_row
from picking.errors import UserError, run_script
from picking.files import make_folder

SIZES_PX = ((4096, 4096), (7676, 7420))
N_MARKS, N_CLICKS = 1500, 20
N_DIFFERENT = 20  # of a large set; the others are links to these
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
# From one end to the other, a window's width a frame
SCROLLED = """() => new Promise(done => {
    const strip = document.getElementById('strip');
    const times = [];
    let last = performance.now();
    strip.scrollLeft = 0;
    const step = () => {
        const now = performance.now();
        times.push(now - last);
        last = now;
        const before = strip.scrollLeft;
        strip.scrollLeft += strip.clientWidth;
        if (strip.scrollLeft === before) done(times.slice(1));
        else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
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


def write_many(folder: Path, n: int) -> None:
    """Write ``n`` small micrographs, of which all but twenty are hard links."""
    make_folder(folder)
    rng = np.random.default_rng(0)
    for number in range(n):
        path = folder / f"grid_square{number // 10:03d}_{number:05d}.mrc"
        if path.exists():
            continue
        if number >= N_DIFFERENT:
            first = number % N_DIFFERENT
            path.hardlink_to(folder / f"grid_square{first // 10:03d}_{first:05d}.mrc")
            continue
        with mrcfile.new(path) as file:
            file.set_data(rng.normal(1000, 30, (256, 256)).astype(np.float32))
            file.voxel_size = 1.0


@contextlib.contextmanager
def served(output: Path, pattern: str, diameter: str) -> Iterator[tuple[str, int]]:
    """Serve the page on a new folder of labels; yield its address and the process's id."""
    shutil.rmtree(output / "labels", ignore_errors=True)
    command = [sys.executable, ROOT / "label_particles.py", "--output", output / "labels"]
    command += ["--micrographs", pattern, "--diameter", diameter, "--port", "0"]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield next(line for line in server.stdout if "token=" in line).strip(), server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


def main() -> None:
    """Measure, and print a row for each size, or for the large set."""
    parser = new_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for all that is written")
    parser.add_argument("--many", type=int, metavar="N", help="instead a set of N small ones")
    args = parser.parse_args()
    try:
        from tests.fixtures import browser  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error}: pip install -r requirements-dev.txt") from error
    if args.many:
        measure_many(args.output, args.many)
    else:
        measure_sizes(args.output)


def measure_sizes(output: Path) -> None:
    """Print how soon clicks, turns of the wheel and the next micrograph show, by size."""
    from tests.fixtures.browser import Window, started, until

    write_micrographs(output / "raw")
    print_header("size", "click shown, ms", "wheel shown, ms", "next, ms")
    with served(output, f"{output}/raw/*.mrc", "100px") as (url, _), started() as browser:
        for height, width in SIZES_PX:
            window = Window(browser, None, url=url)
            page = window.page
            window.open(f"{height}_0.mrc")
            centres = np.random.default_rng(1).uniform((0, 0), (height, width), (N_MARKS, 2))
            page.evaluate("centres => labelling.act('accept', {centres})", centres.tolist())
            window.saved()
            times = shown_ms(window, (height, width))
            window.open(f"{height}_1.mrc")  # what is proposed from here is made ready
            window.open(f"{height}_0.mrc")
            until(lambda page=page: page.inner_text("#next-why"), "a proposal")
            time.sleep(1)
            window.open(f"{height}_1.mrc")
            print_row(f"{height} x {width}", *map(middle_and_most, times), f"{opened_ms(page):.0f}")
            window.close()


def measure_many(output: Path, n: int) -> None:
    """Print how soon a large set is there, and what it costs."""
    from tests.fixtures.browser import Window, started, until

    write_many(output / "many", n)
    shutil.rmtree(output / "labels", ignore_errors=True)  # which takes its time
    begun = time.monotonic()
    with served(output, f"{output}/many/*.mrc", "30px") as (url, pid), started() as browser:
        rows = [("until the address is printed, s", time.monotonic() - begun)]
        begun = time.monotonic()
        window = Window(browser, None, url=url)
        page = window.page
        rows += [("until a micrograph is open, s", time.monotonic() - begun)]
        seen = "Array.from(document.querySelectorAll('.micrograph img[src]'))"
        there = f"{seen}.length > 0 && {seen}.every(image => image.naturalWidth)"
        until(lambda: page.evaluate(there), "thumbnails", 60)
        rows += [("until the thumbnails in view are there, s", time.monotonic() - begun)]
        rows += [("thumbnails asked for", page.evaluate(f"{seen}.length"))]
        for title, times in zip(("click", "wheel"), shown_ms(window, (256, 256)), strict=True):
            rows += [(f"{title} shown, ms", middle_and_most(times))]
        frames = page.evaluate(SCROLLED)
        rows += [("a frame of scrolling the strip, ms", middle_and_most(frames))]
        nexts = []
        for _ in range(N_CLICKS):
            opened = page.get_attribute("body", "data-opened")
            until(lambda: not page.is_disabled("#next"), "what is next")
            window.press("n")
            until(lambda was=opened: page.get_attribute("body", "data-opened") != was, "the next")
            nexts.append(opened_ms(page))
        rows += [("next micrograph, ms", middle_and_most(nexts))]
        begun = time.monotonic()
        page.reload()
        page.wait_for_selector("body[data-opened]")
        rows += [("reload, s", time.monotonic() - begun)]
        status = Path(f"/proc/{pid}/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        rows += [("peak memory of the server, MB", int(peak) / 1000)]
        window.close()
    print_header(f"{n:,} micrographs of 256 x 256", "")
    for title, value in rows:
        print_row(title, value if isinstance(value, (str, int)) else f"{value:.2f}")


def shown_ms(window: Any, size_px: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Click and turn the wheel at places of a micrograph; return how long each took to show."""
    page, rng = window.page, np.random.default_rng(2)
    times: dict[str, list[float]] = {"pointerup": [], "wheel": []}
    for _ in range(N_CLICKS):
        point = window.at(*rng.uniform((0, 0), size_px))
        for kind in times:
            waiting = page.evaluate_handle(WAIT, kind)
            page.mouse.move(*point)
            if kind == "wheel":
                page.mouse.wheel(0, -40 if rng.random() < 0.5 else 40)
            else:
                page.mouse.down()
                page.mouse.up()
            times[kind].append(page.evaluate("waiting => waiting.shown", waiting))
    window.saved()
    return times["pointerup"], times["wheel"]


def middle_and_most(times: Sequence[float]) -> str:
    """Return the median of some times and the largest."""
    return f"{statistics.median(times):.0f} (most {max(times):.0f})"


def opened_ms(page: Any) -> float:
    """Return how long the micrograph that is open took, to the frame with all its tiles."""
    page.wait_for_selector("body[data-shown-ms]", timeout=60_000)
    return float(page.get_attribute("body", "data-shown-ms"))


if __name__ == "__main__":
    run_script(main)
