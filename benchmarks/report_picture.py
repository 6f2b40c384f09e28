"""A picture of the head of a report page for documents: `python -m benchmarks.report_picture PAGE.html PICTURE.png`."""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000")
COLOURS = 256
MOST_BYTES = 120_000


def picture(page: Path, output: Path, width: int, height: int) -> int:
    """Draw the first `height` pixels of a page in a window of `width`; returns the bytes written."""
    from PIL import Image

    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("chromium is not installed (apt-get install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        raw = Path(folder) / "raw.png"
        command = [browser, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"]
        command += [f"--screenshot={raw}", page.resolve().as_uri()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Image.open(raw) as image:
            few = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    data = io.BytesIO()
    few.save(data, "PNG", optimize=True)
    output.write_bytes(data.getvalue())
    return len(data.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description="a picture of the head of a report page")
    parser.add_argument("page", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1180)
    arguments = parser.parse_args()
    size = picture(arguments.page, arguments.output, arguments.width, arguments.height)
    print(f"wrote {arguments.output} ({size / 1e3:,.0f} kB)")
    if size > MOST_BYTES:
        sys.exit(f"larger than {MOST_BYTES:,} bytes: choose a smaller --height")


if __name__ == "__main__":
    main()
