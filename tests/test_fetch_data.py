import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import exit_code
from http_server import Server, serving
from PIL import Image

from supervised_reptile.datasets import DatasetError, load_dataset, omniglot
from supervised_reptile.datasets.omniglot_contents import ARCHIVES, Archive, tree_files
from supervised_reptile.datasets.untrusted.guards import why
from supervised_reptile.tools import fetch as prepare

PROJECT = Path(__file__).resolve().parents[1]
CONTENTS = {
    "images_background": {"Aleph": 2, "Beth_(old)": 1},
    "images_evaluation": {"Gimel": 2},
}

Members = dict[str, bytes]


def png(seed: int, size: tuple[int, int] = (105, 105), mode: str = "1") -> bytes:
    pixels = np.random.default_rng(seed).random(size[::-1]) < 0.9
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def members(top: str) -> Members:
    return {
        f"{top}/{alphabet}/character{c:02d}/{c:04d}_{d:02d}.png": png(hash((c, d)) % 2**32)
        for alphabet, count in CONTENTS[top].items()
        for c in range(1, count + 1)
        for d in range(1, 21)
    }


def write_zip(path: Path, files: Members, folders: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if folders:
            for name in sorted({f"{Path(f).parent.as_posix()}/" for f in files}):
                archive.writestr(name, b"")
        for name, content in files.items():
            archive.writestr(name, content)


def describe(folder: Path) -> tuple[Archive, ...]:
    """What to expect of the archives in a folder, with their true checksums."""
    return tuple(
        Archive(
            name=name,
            size=len(content := (folder / f"{name}.zip").read_bytes()),
            sha256=hashlib.sha256(content).hexdigest(),
            alphabets=alphabets,
        )
        for name, alphabets in CONTENTS.items()
    )


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """Folder with two small, sound archives, one with folder entries and one without."""
    folder = tmp_path / "archives"
    write_zip(folder / "images_background.zip", members("images_background"), folders=True)
    write_zip(folder / "images_evaluation.zip", members("images_evaluation"))
    return folder


def assert_refused(match: str, data_dir: Path, **arguments: object) -> str:
    """Preparing fails in one line and leaves nothing that could pass for prepared data."""
    with pytest.raises(DatasetError, match=match) as error:
        omniglot.prepare(data_dir, progress=False, **arguments)
    assert "\n" not in str(error.value)
    assert not list(data_dir.glob("omniglot/1*"))
    assert not list(data_dir.glob("omniglot/incomplete*"))
    assert not list(data_dir.glob("downloads/*/*.tmp.*"))
    return str(error.value)


# Local archives and trees


def test_local_archives(archives: Path, tmp_path: Path) -> None:
    expected = describe(archives)
    path = omniglot.prepare(tmp_path / "data", source=archives, archives=expected, progress=False)
    assert path == tmp_path / "data" / "omniglot" / "1.0.0"
    builder = omniglot.Omniglot(data_dir=tmp_path / "data", archives=expected)
    drawings, names = omniglot.read(builder)
    assert names == [
        "Aleph/character01",
        "Aleph/character02",
        "Beth_(old)/character01",
        "Gimel/character01",
        "Gimel/character02",
    ]
    assert drawings.shape == (5, 20, 28, 28, 1) and drawings.dtype == np.uint8
    first = members("images_background")["images_background/Aleph/character01/0001_01.png"]
    by_hand = np.array(Image.open(io.BytesIO(first)).resize((28, 28)))
    np.testing.assert_array_equal(drawings[0, 0, :, :, 0], by_hand)


def test_second_run_does_nothing(archives: Path, tmp_path: Path) -> None:
    expected = describe(archives)
    path = omniglot.prepare(tmp_path / "data", source=archives, archives=expected, progress=False)
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    shutil.rmtree(archives)
    archives.mkdir()
    omniglot.prepare(tmp_path / "data", source=archives, archives=expected, progress=False)
    assert before == {file: file.stat().st_mtime_ns for file in path.iterdir()}


def test_extracted_tree_in_the_data_folder(archives: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for top in CONTENTS:
        for name, content in members(top).items():
            file = data_dir / "omniglot" / Path(name).relative_to(top)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    expected = describe(archives)
    omniglot.prepare(data_dir, archives=expected, progress=False)
    from_tree = omniglot.read(omniglot.Omniglot(data_dir=data_dir, archives=expected))
    # The version folder now lies beside the alphabets; it is not one of them.
    assert {alphabet for alphabet, _ in tree_files(data_dir / "omniglot")} == {
        "Aleph",
        "Beth_(old)",
        "Gimel",
    }
    omniglot.prepare(tmp_path / "2", source=archives, archives=expected, progress=False)
    from_zips = omniglot.read(omniglot.Omniglot(data_dir=tmp_path / "2", archives=expected))
    assert from_tree[1] == from_zips[1]
    np.testing.assert_array_equal(from_tree[0], from_zips[0])


def test_load_takes_an_incomplete_tree_for_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "omniglot" / "Tifinagh" / "character01" / "0910_01.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(png(0))
    with pytest.raises(DatasetError, match=r"Alphabet_of_the_Magi is missing; .* more") as error:
        load_dataset("omniglot", data_dir=tmp_path, seed=0, progress=False)
    assert f"complete or delete {tmp_path}/omniglot" in str(error.value)


def test_folder_without_data(tmp_path: Path) -> None:
    assert_refused("holds neither images_background.zip nor", tmp_path / "data", source=tmp_path)
    assert_refused("is not a folder", tmp_path / "data", source=tmp_path / "none")


def test_one_archive_missing(archives: Path, tmp_path: Path) -> None:
    expected = describe(archives)
    (archives / "images_evaluation.zip").unlink()
    assert_refused(
        "images_evaluation.zip does not exist", tmp_path / "d", source=archives, archives=expected
    )


# Incomplete and damaged content


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("Aleph/character02/", "alphabet Aleph has 1 of 2 characters"),
        ("Beth_(old)/", r"alphabet Beth_\(old\) is missing"),
        ("Aleph/character01/0001_07.png", "Aleph/character01 has 19 of 20 drawings"),
    ],
)
def test_missing_part_is_named(archives: Path, tmp_path: Path, removed: str, message: str) -> None:
    files = {n: c for n, c in members("images_background").items() if removed not in n}
    write_zip(archives / "images_background.zip", files)
    data_dir, expected = tmp_path / "data", describe(archives)
    assert_refused(
        f"Omniglot is incomplete: {message}", data_dir, source=archives, archives=expected
    )
    # A second run with the whole archive succeeds.
    write_zip(archives / "images_background.zip", members("images_background"))
    omniglot.prepare(data_dir, source=archives, archives=expected, progress=False)


def test_misnamed_and_foreign_parts_are_named(archives: Path, tmp_path: Path) -> None:
    files = {
        n.replace("character02", "character03"): c for n, c in members("images_background").items()
    }
    files["images_background/Klingon/character01/x.png"] = png(0)
    write_zip(archives / "images_background.zip", files)
    message = assert_refused(
        "alphabet Aleph has no character02", tmp_path / "d", source=archives,
        archives=describe(archives),
    )  # fmt: skip
    assert "Klingon is not an alphabet of Omniglot" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not decode"),
        (png(1)[:90], "does not decode"),
        (png(1, size=(28, 28)), "must be 105x105.*Received: 28x28, mode 1"),
        (png(1, mode="L"), "must be .* one bit per pixel. Received: 105x105, mode L"),
    ],
)
def test_damaged_image_is_named(
    archives: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    files = members("images_evaluation")
    files["images_evaluation/Gimel/character02/0002_20.png"] = content
    write_zip(archives / "images_evaluation.zip", files)
    assert_refused(
        f"Gimel/character02/0002_20.png {message}", tmp_path / "data", source=archives,
        archives=describe(archives),
    )  # fmt: skip


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_truncated_zip(archives: Path, tmp_path: Path, kept: float) -> None:
    expected = describe(archives)
    path = archives / "images_background.zip"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert_refused(
        "images_background.zip is truncated", tmp_path / "d", source=archives, archives=expected
    )


def test_zip_with_a_flipped_byte(archives: Path, tmp_path: Path) -> None:
    path = archives / "images_evaluation.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    assert_refused("damaged", tmp_path / "d", source=archives, archives=describe(archives))


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/tmp/evil.png", "images_background/../../../evil.png", "C:\\e.png"]
)
def test_escaping_zip(archives: Path, tmp_path: Path, name: str) -> None:
    files = members("images_background")
    files[name] = png(0)
    write_zip(archives / "images_background.zip", files)
    before = sorted(tmp_path.iterdir())
    message = assert_refused(
        "images_background.zip is refused: member", tmp_path / "data", source=archives,
        archives=describe(archives),
    )  # fmt: skip
    assert "outside" in message or "absolute" in message
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "data"])
    assert not list(tmp_path.rglob("*evil*"))


def test_zip_with_a_link(archives: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("images_background/Aleph/character01/link.png")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archives / "images_background.zip", "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert_refused(
        "is a symbolic link", tmp_path / "d", source=archives, archives=describe(archives)
    )


def test_damaged_prepared_file_is_not_used(archives: Path, tmp_path: Path) -> None:
    expected, data_dir = describe(archives), tmp_path / "data"
    path = omniglot.prepare(data_dir, source=archives, archives=expected, progress=False)
    (record_file,) = path.glob("*array_record*")
    record_file.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"delete the folder and run \./fetch_data"):
        omniglot.prepare(data_dir, source=archives, archives=expected, progress=False)


def test_prepared_data_without_description_is_not_used(archives: Path, tmp_path: Path) -> None:
    expected, data_dir = describe(archives), tmp_path / "data"
    path = omniglot.prepare(data_dir, source=archives, archives=expected, progress=False)
    (path / "dataset_info.json").unlink()
    with pytest.raises(DatasetError, match="delete the folder"):
        omniglot.prepare(data_dir, source=archives, archives=expected, progress=False)


@pytest.mark.parametrize("content", [b"", b"null", b"\xff\xfe", b"[" * 100_000, b'{"name": 1}'])
def test_damaged_notes_of_tfds_are_one_line(content: bytes, archives: Path, tmp_path: Path) -> None:
    expected, data_dir = describe(archives), tmp_path / "data"
    path = omniglot.prepare(data_dir, source=archives, archives=expected, progress=False)
    (path / "features.json").write_bytes(content)  # which nobody reads
    drawings, _ = omniglot.read(omniglot.Omniglot(data_dir=data_dir, archives=expected))
    assert drawings.shape == (5, 20, 28, 28, 1)
    (path / "dataset_info.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"delete the folder and run \./fetch_data") as error:
        omniglot.prepare(data_dir, source=archives, archives=expected, progress=False)
    assert str(error.value).isprintable()
    assert str(path) in str(error.value)


def test_both_archives_unzipped_side_by_side(archives: Path, tmp_path: Path) -> None:
    expected = describe(archives)
    unzipped = tmp_path / "unzipped"
    for name in CONTENTS:
        with zipfile.ZipFile(archives / f"{name}.zip") as archive:
            archive.extractall(unzipped)
    drawings = []
    for number, source in enumerate((archives, unzipped)):
        data_dir = tmp_path / f"data{number}"
        omniglot.prepare(data_dir, source=source, archives=expected, progress=False)
        builder = omniglot.Omniglot(data_dir=data_dir, archives=expected)
        drawings.append(omniglot.read(builder))
    np.testing.assert_array_equal(drawings[0][0], drawings[1][0])
    assert drawings[0][1] == drawings[1][1]
    # One unzipped, the other not.
    shutil.rmtree(unzipped / "images_evaluation")
    shutil.copy(archives / "images_evaluation.zip", unzipped)
    omniglot.prepare(tmp_path / "mixed", source=unzipped, archives=expected, progress=False)
    assert len(tree_files(unzipped)) == 3


def test_a_pipe_or_a_broken_link_is_no_drawing(tmp_path: Path) -> None:
    folder = tmp_path / "Aleph" / "character01"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("nowhere")
    assert tree_files(tmp_path) == {}


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/x/y"),
        RuntimeError("Failed to finalize: write() failed: No space left on device; at byte 16384"),
    ],
)
def test_a_full_disk_is_one_line(
    error: Exception, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(omniglot.Omniglot, "download_and_prepare", full)
    message = assert_refused(
        "could not be written: No space left on device", tmp_path / "data", source=archives,
        archives=describe(archives),
    )  # fmt: skip
    assert "byte" not in message


@pytest.mark.parametrize("which", ["circle", "file"])
def test_a_data_dir_that_is_none(which: str, archives: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / which
    if which == "circle":
        data_dir.symlink_to(which)
    else:
        data_dir.write_text("")
    with pytest.raises(DatasetError, match=f"could not be .*{which}/downloads$") as error:
        omniglot.prepare(data_dir, source=archives, archives=describe(archives), progress=False)
    assert "\n" not in str(error.value)


# Download


@pytest.fixture
def server(archives: Path) -> Iterator[Server]:
    with serving(archives) as server:
        yield server


def test_download(server: Server, tmp_path: Path) -> None:
    expected = describe(server.folder)
    omniglot.prepare(tmp_path, url=server.url, archives=expected, progress=False)
    drawings, _ = omniglot.read(omniglot.Omniglot(data_dir=tmp_path, archives=expected))
    assert drawings.shape == (5, 20, 28, 28, 1)
    assert server.requests == ["images_background.zip", "images_evaluation.zip"]


def test_dropped_connection_then_second_run(server: Server, tmp_path: Path) -> None:
    expected, data_dir = describe(server.folder), tmp_path / "data"
    server.dropped = {"images_evaluation.zip"}
    assert_refused(
        "images_evaluation.zip could not be downloaded", data_dir, url=server.url,
        archives=expected,
    )  # fmt: skip
    server.dropped = set()
    server.requests.clear()
    omniglot.prepare(data_dir, url=server.url, archives=expected, progress=False)
    assert server.requests == ["images_evaluation.zip"]  # the verified one was kept


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    expected = describe(server.folder)
    files = members("images_background")
    files["images_background/Aleph/character01/0001_01.png"] = png(99)
    write_zip(server.folder / "images_background.zip", files)
    assert_refused(
        "images_background.zip is not the expected archive", tmp_path / "data", url=server.url,
        archives=expected,
    )  # fmt: skip


def test_not_on_the_server(server: Server, tmp_path: Path) -> None:
    expected = describe(server.folder)
    (server.folder / "images_background.zip").unlink()
    assert_refused("HTTP code: 404", tmp_path / "data", url=server.url, archives=expected)


def test_without_a_network_the_message_is_whole(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"
    with pytest.raises(DatasetError) as caught:
        omniglot.prepare(tmp_path / "data", url=url, progress=False)
    assert str(caught.value) == (
        f"{url}/images_background.zip could not be downloaded; if you have the archives, "
        "use --from (no connection to 127.0.0.1)"
    )


def test_a_long_reason_is_cut_between_words() -> None:
    assert why(OSError("word " * 40)) == "word " * 31 + "word …"
    assert why(OSError("short")) == "short" and why(OSError()) == "OSError"


def test_url_must_be_http(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must begin with http"):
        omniglot.prepare(tmp_path, url="ftp://example.org")


# The facts, and the command line


def test_expected_content_is_omniglots() -> None:
    sizes = [(len(a.alphabets), sum(a.alphabets.values())) for a in ARCHIVES]
    assert sizes == [(30, 964), (20, 659)]
    assert [a.size for a in ARCHIVES] == [9_464_212, 6_462_886]


def run_script(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["./fetch_data.sh", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_prepares_from_local_archives(omniglot_archives: Path, tmp_path: Path) -> None:
    done = run_script("omniglot", "--from", str(omniglot_archives), "--data_dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"Omniglot is ready in {tmp_path}/omniglot/1.0.0" in done.stdout
    assert "\r" not in done.stderr  # no progress bars where there is no terminal
    dataset = load_dataset("omniglot", data_dir=tmp_path, seed=0, progress=False)
    assert len(dataset.class_names) == 5223


def test_script_error_is_one_line(archives: Path, tmp_path: Path) -> None:
    (archives / "images_background.zip").write_bytes(b"PK")
    done = run_script("--from", str(archives), "--data_dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("fetch_data.sh: error: ")
    assert "Traceback" not in done.stderr
    assert "truncated" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "must be one of: omniglot, miniimagenet, folder. Received: 'mnist'"),
        (["folder"], "folder needs --from DIR"),
        (["omniglot", "--layout", "lists"], "--layout is not for omniglot"),
        (["--image-size", "84"], "--image_size is not for omniglot"),
        (["folder", "--from", "x", "--url", "http://y"], "exclude each other"),
        (["miniimagenet", "--image_size", "0"], "--image_size must be at least 1. Received: 0"),
        (["--frm", "x"], "Unknown command line flag 'frm'"),
        (["omniglot", "glyphs"], "unexpected argument 'glyphs'"),
        (["--url", "ftp://x"], "--url must begin with http:// or https://. Received: 'ftp://x'"),
        (["--from", "x", "--url", "http://y"], "exclude each other"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(prepare.main, ["fetch_data.sh", *arguments]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr and stderr.count("\n") == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(prepare.main, ["fetch_data.sh", "--help"]) == 0
    assert "./fetch_data.sh omniglot --from" in capsys.readouterr().out
