"""`rdn-engine run` on two cameras of this machine: metrics read by Prometheus' parser, counts compared, a picture.

python scripts/show_service.py [--seconds 20] [--picture docs/media/live_page.webp]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[1]
BROWSER, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it runs")
    parser.add_argument("--picture", type=Path, help="of the page, .webp or .png; needs Debian's chromium-driver")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cameras("door", "yard") as port:
        text = (ROOT / "examples" / "streams.yaml").read_text(encoding="utf-8")
        settings = Path(folder) / "streams.yaml"
        settings.write_text(text.replace(":8091/", f":{port}/").replace("port: 8080", "port: 0"), encoding="utf-8")
        with service(settings, Path(folder)) as address:
            end = time.monotonic() + arguments.seconds
            if arguments.picture:
                save_page(address, arguments.picture)
            time.sleep(max(0.0, end - time.monotonic()))
            show(address, Path(folder))


def show(address: str, folder: Path) -> None:
    """Say what each stream did, and that the counts of the metrics add up."""
    scraped = httpx2.get(f"{address}metrics").text
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            key = sample.name, sample.labels.get("stream", "")
            values[key] = values.get(key, 0.0) + sample.value
    for stream in sorted({stream for _, stream in values if stream}):
        names = ("frames_in_total", "frames_out_total", "frames_dropped_total", "queue_frames", "inside_frames")
        came, out, dropped, waiting, inside = (int(values[f"rdn_{name}", stream]) for name in names)
        mean = values["rdn_result_age_seconds_sum", stream] / max(values["rdn_result_age_seconds_count", stream], 1)
        lines = len((folder / "results" / f"{stream}.jsonl").read_text(encoding="utf-8").splitlines())
        print(f"{stream}: {came} frames in = {out} out + {dropped} dropped + {waiting} waiting + {inside} inside; "
              f"mean age {mean:.3f} s; {lines} lines written")  # fmt: skip
        if came != out + dropped + waiting + inside:
            sys.exit(f"{stream}: the counts do not add up")
    print(f"{len(scraped.splitlines())} lines of metrics, {address}healthz: {httpx2.get(f'{address}healthz').text}")


@contextlib.contextmanager
def cameras(*names: str) -> Iterator[int]:
    """The cameras of the example; gives their port."""
    command = [sys.executable, str(ROOT / "examples" / "cameras.py"), *names, "--port", "0"]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        found = re.search(r":(\d+)/", process.stdout.readline())
        if found is None:
            sys.exit("the cameras did not start")
        yield int(found[1])


@contextlib.contextmanager
def service(settings: Path, folder: Path) -> Iterator[str]:
    """The service; gives its address, and passes on what it says."""
    command = [sys.executable, "-m", "rdn_engine", "run", str(settings)]
    paths = {"PYTHONPATH": str(ROOT)}
    (folder / "models").symlink_to(ROOT / "models")
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=os.environ | paths)
    with ended(process):
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            found = re.search(r"answers at (\S+)", line)
            if found:
                yield found[1]
                break
        else:
            sys.exit("the service did not start")
        process.send_signal(signal.SIGTERM)
        sys.stderr.write(process.stderr.read())
    if process.returncode:
        sys.exit(process.returncode)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is over when the context is left."""
    try:
        yield process
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.wait()


def save_page(address: str, picture: Path) -> None:
    """A picture of the page, as a real browser shows it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1200,560", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(address)
        time.sleep(8)  # until the rates are those of some seconds
        page = driver.get_screenshot_as_png()
    finally:
        driver.quit()
    Image.open(io.BytesIO(page)).convert("RGB").save(picture, quality=85)
    print(f"{picture}: {picture.stat().st_size} bytes")


if __name__ == "__main__":
    main()
