"""Downloads from mirrors that are down, cut short, wrong or good; all on this machine, none from outside."""

import gzip
import hashlib
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tnml.data import available, download, fetch, load, shipped
from tnml.data.shipped import MIRRORS, SHIPPED, RemoteFile, ShippedSet
from tnml.errors import InputError

resource = pytest.importorskip("resource", reason="limits on file sizes are a Unix matter")

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def contents() -> dict[str, bytes]:
    """Four small IDX files: 40 train images and 10 test images, 4 x 4, that do not compress."""
    rng = np.random.default_rng(0)
    files = {}
    for name in NAMES:
        count = 40 if name.startswith("train") else 10
        shape = (count, 4, 4) if "images" in name else (count,)
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        numbers = rng.integers(0, 256 if "images" in name else 3, size=shape, dtype=np.uint8)
        files[f"{name}.gz"] = gzip.compress(header + numbers.tobytes(), mtime=0)
    return files


FILES = contents()


class Mirror(BaseHTTPRequestHandler):
    """Serves FILES; the first part of the address says how badly."""

    def do_GET(self) -> None:
        kind, name = self.path.strip("/").split("/")
        body = FILES[name]
        self.server.asked.append(f"{kind}/{name}")  # type: ignore[attr-defined]
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "broken":
            self.send_error(503)
            return
        if kind == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if kind == "short":
            body = body[:-9]
        if kind == "page":
            body = b"<html>please log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name of the base class)
        """Keeps the test's output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("TNML_DATA", raising=False)
    here = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    here.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield here
    here.shutdown()
    here.server_close()
    thread.join()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A shipped set named toy whose files are FILES."""
    files = tuple(
        RemoteFile(name, len(body), hashlib.sha256(body).hexdigest()) for name, body in FILES.items()
    )
    record = ShippedSet(
        files=files, counts={"train": 40, "test": 10}, image_shape=(4, 4), origin="made here", licence="none"
    )
    monkeypatch.setitem(SHIPPED, "toy", record)
    return "toy"


def base(server: ThreadingHTTPServer, kind: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{kind}/"


def closed_port() -> str:
    """The address of a port where nobody listens."""
    gone = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    gone.server_close()
    return f"http://127.0.0.1:{gone.server_port}/good/"


def test_a_good_mirror(server: ThreadingHTTPServer, toy: str, tmp_path: Path) -> None:
    folder = fetch(toy, cache=tmp_path / "new" / "cache", mirrors=[base(server, "good")])
    assert folder == tmp_path / "new" / "cache" / "toy"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES, (
        "whole files and nothing else"
    )


@pytest.mark.parametrize("kind", ["missing", "broken", "wrong", "short", "page", "cut", "down"])
def test_the_next_mirror_is_tried(server: ThreadingHTTPServer, toy: str, tmp_path: Path, kind: str) -> None:
    first = closed_port() if kind == "down" else base(server, kind)
    lines: list[str] = []
    folder = fetch(toy, cache=tmp_path, mirrors=[first, base(server, "good")], report=lines.append)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert [line.split()[0] for line in lines] == ["downloading", "failed:", "downloading"] * 4


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "404"),
        ("broken", "503"),
        ("wrong", "wrong sha256"),
        ("short", "bytes instead of"),
        ("page", "26 bytes instead of"),
        ("cut", "IncompleteRead|bytes instead of"),
    ],
)
def test_no_good_mirror(server: ThreadingHTTPServer, toy: str, tmp_path: Path, kind: str, says: str) -> None:
    bad = [base(server, kind), closed_port()]
    with pytest.raises(InputError, match=says) as caught:
        fetch(toy, cache=tmp_path, mirrors=bad)
    text = str(caught.value)
    assert all(address in text for address in bad), "every address that was tried is listed"
    assert all(word in text for word in ("TNML_DATA", "folder", "digits")), "and the ways out"
    assert "\n" not in text
    assert list((tmp_path / "toy").iterdir()) == [], "nothing is left behind"


def test_no_mirror_at_all(toy: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no mirror, none is given"):
        fetch(toy, cache=tmp_path, mirrors=[])


def test_only_what_is_missing_is_downloaded(server: ThreadingHTTPServer, toy: str, tmp_path: Path) -> None:
    good = [base(server, "good")]
    folder = fetch(toy, cache=tmp_path, mirrors=good)
    cut, flipped = folder / f"{NAMES[1]}.gz", folder / f"{NAMES[2]}.gz"
    cut.write_bytes(cut.read_bytes()[:-1])
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    server.asked.clear()  # type: ignore[attr-defined]
    fetch(toy, cache=tmp_path, mirrors=good)
    assert server.asked == [f"good/{cut.name}"], "without verify the size is what counts"  # type: ignore[attr-defined]
    fetch(toy, cache=tmp_path, mirrors=good, verify=True)
    assert server.asked == [f"good/{cut.name}", f"good/{flipped.name}"]  # type: ignore[attr-defined]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_a_failed_download_keeps_the_old_file(server: ThreadingHTTPServer, toy: str, tmp_path: Path) -> None:
    old = tmp_path / "toy" / f"{NAMES[0]}.gz"
    old.parent.mkdir()
    old.write_bytes(b"old")
    with pytest.raises(InputError):
        fetch(toy, cache=tmp_path, mirrors=[base(server, "wrong")])
    assert old.read_bytes() == b"old"


def test_load_downloads_what_it_needs(
    server: ThreadingHTTPServer, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MIRRORS, toy, (closed_port(), base(server, "good")))
    assert not {record.name: record.present for record in available(cache=tmp_path)}[toy]
    train = load(toy, cache=tmp_path)
    assert (len(train), train.image_shape, train.name) == (40, (4, 4), toy)
    raw = gzip.decompress(FILES[f"{NAMES[0]}.gz"])[16:]
    np.testing.assert_allclose(train.x.ravel(), np.frombuffer(raw, np.uint8) / 255, rtol=1e-6)
    assert train.y.tolist() == list(gzip.decompress(FILES[f"{NAMES[1]}.gz"])[8:])
    assert train.provenance == "made here; pixels / 255", "says nothing of this machine"
    asked = len(server.asked)  # type: ignore[attr-defined]
    assert len(load(toy, split="test", cache=tmp_path)) == 10
    assert len(load(toy, split="all", cache=tmp_path, download=False)) == 50
    assert len(server.asked) == asked, "the second time nothing is downloaded"  # type: ignore[attr-defined]
    assert {record.name: record.present for record in available(cache=tmp_path)}[toy]


def test_load_mends_a_cut_file_in_the_cache(
    server: ThreadingHTTPServer, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MIRRORS, toy, (base(server, "good"),))
    file = fetch(toy, cache=tmp_path) / f"{NAMES[0]}.gz"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="neither in"):
        load(toy, cache=tmp_path, download=False)
    assert len(load(toy, cache=tmp_path)) == 40


def test_the_own_folder_goes_first_and_is_never_written(
    server: ThreadingHTTPServer, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MIRRORS, toy, (base(server, "good"),))
    cache = tmp_path / "cache"
    fetch(toy, cache=cache)
    own = tmp_path / "own" / toy
    own.mkdir(parents=True)
    monkeypatch.setenv("TNML_DATA", str(own.parent))
    assert len(load(toy, cache=cache)) == 40, "an empty own folder does not hide the cache"
    for name, body in FILES.items():
        (own / name).write_bytes(body)
    assert fetch(toy, cache=cache, verify=True) == own
    (own / f"{NAMES[1]}.gz").write_bytes(FILES[f"{NAMES[1]}.gz"][:-1])
    with pytest.raises(InputError, match=r"own.*damaged or truncated"):
        load(toy, cache=cache)
    with pytest.raises(InputError, match=r"own.* is not the original file: .* bytes instead of"):
        fetch(toy, cache=cache, verify=True)
    (own / f"{NAMES[1]}.gz").rename(own / NAMES[1])
    (own / NAMES[1]).write_bytes(gzip.decompress(FILES[f"{NAMES[1]}.gz"]))
    assert len(load(toy, cache=cache)) == 40, "unpacked files serve as well"
    with pytest.raises(InputError, match="sha256 cannot be checked"):
        fetch(toy, cache=cache, verify=True)


def test_another_set_under_a_known_name(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SHIPPED,
        toy,
        ShippedSet(files=(), counts={"train": 41, "test": 10}, image_shape=(4, 4), origin="x", licence="x"),
    )
    monkeypatch.setenv("TNML_DATA", str(tmp_path))
    (tmp_path / toy).mkdir()
    for name, body in FILES.items():
        (tmp_path / toy / name).write_bytes(body)
    with pytest.raises(InputError, match=r"holds \[40, 4, 4\], but toy train is \[41, 4, 4\]"):
        load(toy, cache=tmp_path)


def test_a_full_disk_is_no_reason_for_the_next_mirror(
    server: ThreadingHTTPServer, toy: str, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    good = [base(server, "good"), base(server, "good")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write") as caught:
            fetch(toy, cache=tmp_path, mirrors=good)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "too large" in str(caught.value)
    assert len(server.asked) == 1  # type: ignore[attr-defined]
    assert list((tmp_path / "toy").iterdir()) == []


def test_a_folder_that_cannot_be_made(server: ThreadingHTTPServer, toy: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        fetch(toy, cache=tmp_path / "file", mirrors=[base(server, "good")])
    assert server.asked == []  # type: ignore[attr-defined]


def test_an_interrupt_leaves_nothing(
    server: ThreadingHTTPServer, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_problem", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(toy, cache=tmp_path, mirrors=[base(server, "good")])
    assert list((tmp_path / "toy").iterdir()) == []


def test_every_shipped_set_has_two_mirrors_and_four_sums() -> None:
    assert set(MIRRORS) == set(SHIPPED)
    for name, record in SHIPPED.items():
        hosts = {address.split("/")[2] for address in MIRRORS[name]}
        assert len(hosts) >= 2
        assert [file.name for file in record.files] == [f"{stem}.gz" for stem in NAMES]
        assert len({file.sha256 for file in record.files}) == 4
        assert all(len(bytes.fromhex(file.sha256)) == 32 for file in record.files)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown data set to download 'mnits'; did you mean 'mnist'"):
        fetch("mnits")
    with pytest.raises(InputError, match="come with scikit-learn"):
        shipped.shipped_set("digits")


def test_the_user_cache_is_the_default() -> None:
    assert download.cache_folder().is_absolute()
    assert "tnml" in download.cache_folder().parts


def test_importing_loads_no_heavy_package() -> None:
    code = (
        "import sys, tnml.data; print(sorted({'pooch', 'sklearn', 'requests', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
