"""Archives, pickles and pictures from outside: read right, or refused in one line."""

import bz2
import io
import os
import pickle
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import photograph_fixtures as fixtures
import pytest
from PIL import Image

from supervised_reptile.datasets import load_dataset
from supervised_reptile.datasets.images import miniimagenet
from supervised_reptile.datasets.images.contents import checked_contents
from supervised_reptile.datasets.images.decoding import FORMATS, decode
from supervised_reptile.datasets.images.photographs import find_source
from supervised_reptile.datasets.images.sources import ClassFolders
from supervised_reptile.datasets.omniglot import shrink
from supervised_reptile.datasets.untrusted import archives
from supervised_reptile.datasets.untrusted.pickles import load_arrays
from supervised_reptile.errors import DatasetError

PICTURE = fixtures.encoded(fixtures.pixels("n00000001", 0, 10))


def refused(call, *phrases):
    with pytest.raises(DatasetError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable()
    for phrase in phrases:
        assert phrase in message
    return message


# ------------------------------------------------------------------------------------ pickles

ARRAYS = {
    "image_data": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"x", b"yz"]),
    "big endian": np.arange(3, dtype=">i4"),
    "empty": np.zeros((0, 3), np.float32),
    "flags": np.array([True, False]),
    "number": np.array(5),
}
PLAIN = {"rows": [np.int64(3), 4], b"key": (1, 2.5, None, True), "scalar": np.float32(2.5)}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_of_every_protocol(protocol, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({**ARRAYS, **PLAIN}, protocol))
    found = load_arrays(path)
    assert found.keys() == {*ARRAYS, *PLAIN}
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
    assert {name: found[name] for name in PLAIN} == PLAIN


# A type of NumPy that is given a state: numpy.dtype("u1", …), then BUILD.
def type_with_state(state):
    return b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00u1\x88\x88\x87R(" + state + b"tb."


KILLERS = {
    "state of a type": type_with_state(
        b"K\x03X\x01\x00\x00\x00|J\x7f\x7f\x7f\x7fJ\x01\x00\x00\x00NK"
    ),
    "fields of a type": type_with_state(
        b"K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00a}K\x01K\x01K\x00"
    ),
    "memo": b"r\xff\xff\xff\xffN.",
    "huge text": b"\x8d" + b"\xff" * 7 + b"\x0f.",
    "huge bytes": b"\x96" + b"\xff" * 7 + b"\x0f.",
    "itself": b"]q\x00h\x00a.",
    "deep": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
    "no memo": b"h\x07.",
    "persistent": b"Pabc\n.",
    "extension": b"\x82\x01.",
    "new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
}


@pytest.mark.parametrize("name", KILLERS)
def test_a_pickle_that_would_kill_the_interpreter(name, tmp_path):
    """In a process of its own, which must live."""
    path = tmp_path / "x.pkl"
    path.write_bytes(KILLERS[name])
    code = f"""
import pathlib
from supervised_reptile.datasets.untrusted.pickles import load_arrays
from supervised_reptile.errors import DatasetError
try:
    load_arrays(pathlib.Path({str(path)!r}))
except DatasetError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith("refused: ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda s: (s[0], (10**9, 10**9), *s[2:]),
        lambda s: (s[0], (-1, 24), *s[2:]),
        lambda s: (s[0], (2.0, 12), *s[2:]),
        lambda s: (s[0], (1,) * 99, *s[2:]),
        lambda s: (*s[:4], b"short"),
        lambda s: (*s[:4], [1, 2]),
        lambda s: (*s[:2], "u1", *s[3:]),
    ],
)
def test_an_array_is_made_only_if_its_parts_agree(change, tmp_path):
    class Array:
        def __reduce__(self):
            make, arguments, state = ARRAYS["image_data"].__reduce__()
            return make, arguments, change(state)

    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(Array()))
    refused(lambda: load_arrays(path), "x.pkl is damaged or no pickle of arrays: ")


def test_a_small_pickle_does_not_grow(tmp_path):
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x00X\x06\x00\x00\x00latin1q\x01"
    again = b"c_codecs\nencode\nh\x00h\x01\x86R" * 1000
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02(" + text + again + b"t.")
    refused(lambda: load_arrays(path), "it holds more than its size")


# --------------------------------------------------------------------------------- zip files


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def read(path):
    return list(archives.read_members(path, ".png"))


def test_an_encrypted_zip(tmp_path):
    path = write_zip(tmp_path / "x.zip", [("a/1.png", PICTURE)])
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(sign) + offset] |= 1
    path.write_bytes(content)
    refused(lambda: read(path), "x.zip is refused: member 'a/1.png' is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_every_compression_is_read_and_its_damage_refused(method, tmp_path):
    path = write_zip(tmp_path / "x.zip", [("a/1.png", PICTURE)], method)
    assert [content for _, content in read(path)] == [PICTURE]
    content = bytearray(path.read_bytes())
    for position in range(40, 120, 4):
        content[position] ^= 0xFF
    path.write_bytes(content)
    refused(lambda: read(path), "x.zip is truncated, damaged or not a zip: ")


def test_a_repeated_name(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = write_zip(tmp_path / "x.zip", [("a/1.png", b"1"), ("a/1.png", b"2")])
    refused(lambda: read(path), "member 'a/1.png' is there 2 times")


def test_an_empty_name(tmp_path):
    path, member = tmp_path / "x.zip", zipfile.ZipInfo("x")
    member.filename = ""
    with zipfile.ZipFile(path, "w") as archive, archive.open(member, "w") as file:
        file.write(b"1")
    refused(lambda: read(path), "member '' has no name")


def test_a_table_of_contents_that_hides_members(tmp_path):
    """zipfile reads on after a length that swallows the entries behind it."""
    path = write_zip(tmp_path / "x.zip", [(f"a/{i}.png", PICTURE) for i in range(3)])
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 32 : entry + 34] = b"\x7f\x7f"  # length of its comment
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a/0.png"]
    refused(lambda: read(path), "x.zip is damaged: its table of contents lists 1 of 3 members")


@pytest.mark.parametrize("name", [b"a/\0.png", b"a/1.pnf", b".a1.png", b"a/1png/"])
def test_a_damaged_name_in_the_table_of_contents_of_a_zip(name, tmp_path):
    """It would look like a folder, another kind of file or a hidden one, and not be read."""
    path = write_zip(tmp_path / "x.zip", [("a/1.png", b"image"), ("a/2.png", b"another")])
    content = path.read_bytes()
    at = content.index(b"a/1.png", content.index(b"PK\1\2"))
    path.write_bytes(content[:at] + name + content[at + len(name) :])
    refused(lambda: read(path), "x.zip is truncated, damaged or not a zip")


@pytest.mark.parametrize("count", [0xFFFE, 0xFFFF, 0x10001])
def test_a_zip_of_many_members(count, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"PK is at the beginning of a record"
        for i in range(count):
            archive.writestr(zipfile.ZipInfo(f"{i}.txt"), b"")
    assert len(archives.member_names(path)[0]) == count


def test_a_zip_that_promises_gigabytes(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(5):
            with archive.open(f"a/{i}.png", "w") as file:
                for _ in range(240):
                    file.write(bytes(2**20))
    assert path.stat().st_size < 2_000_000
    refused(lambda: read(path), "would expand to 1,258,291,200 bytes")


def test_a_member_that_is_longer_than_it_says(tmp_path):
    """Not more than a piece of it is expanded."""
    content = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = content.compress(bytes(2**28)) + content.flush()
    path = write_zip(tmp_path / "x.zip", [("a/1.png", b"")])
    small = zipfile.ZipInfo("a/1.png")
    small.compress_type, small.compress_size = zipfile.ZIP_DEFLATED, len(packed)
    small.header_offset = 0
    small.file_size, small.CRC = 1000, zlib.crc32(bytes(1000))
    with zipfile.ZipFile(path, "w") as archive:
        archive.fp.write(small.FileHeader(False))
        archive.fp.write(packed)
        archive.start_dir = archive.fp.tell()
        archive.filelist.append(small)
        archive._didModify = True
    code = f"""
import pathlib, resource
from supervised_reptile.datasets.untrusted.archives import read_members
from supervised_reptile.errors import DatasetError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(sum(len(content) for _, content in read_members(pathlib.Path({str(path)!r}), ".png")))
except DatasetError as error:
    print(0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    length, kilobytes = map(int, done.stdout.split())
    assert length <= 1000
    assert kilobytes < 50_000


# -------------------------------------------------------- one rule for folders and zip files


def paths_of(tree, names):
    return {f"{tree}/{name}": PICTURE for name in names}


GOOD = [f"{name}/{i}.png" for name in ("rose", "tulip") for i in range(3)]
TREES = {
    "plain": GOOD,
    "a class without images": [*GOOD, "lily/notes.txt"],
    "the same folder in two": [f"{name}/male/{i}.png" for name in ("jay", "wren") for i in "12"],
    "subfolders": [*GOOD, "rose/old/1.png", "rose/old/2.png"],
    "outside": [*GOOD, "1.png", "readme.txt"],
    "hidden": [*GOOD, ".git/1.png", "rose/.2.png", "__MACOSX/rose/1.png"],
    "one class": ["train/1.png", "train/2.png"],
    "other formats": [*GOOD, "rose/1.dds", "rose/2.heic"],
    "equal names": ["rose/a.png", "rose/A.png", "tulip/a.png", "tulip/b.PNG"],
}


def outcome(root, capsys):
    """What is found, or the message, and what is said about the rest."""
    source = ClassFolders(root)
    try:
        contents = checked_contents("folder:x", source)
    except DatasetError as error:
        return str(error).replace(".zip", "").replace(str(root), "ROOT")
    found = {(split, class_name, name) for split, class_name, name, _ in source.pictures()}
    keys = {(s, c, n) for s, part in contents.items() for c in part for n in part[c]}
    assert keys <= found
    error = capsys.readouterr().err.replace(".zip", "").replace(str(root), "ROOT")
    return contents, error


@pytest.mark.parametrize("inside", ["", "train/", "flowers/train/"])
@pytest.mark.parametrize("name", TREES)
def test_zips_and_folders_are_read_by_one_rule(name, inside, tmp_path, capsys):
    for kind in ("folder", "zip"):
        (tmp_path / kind / "test").mkdir(parents=True)
        for path in GOOD:
            target = tmp_path / kind / "test" / f"test-{path}"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(PICTURE)
    for path in TREES[name]:
        target = tmp_path / "folder/train" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(PICTURE)
    members = [(inside + path, PICTURE) for path in TREES[name]]
    write_zip(tmp_path / "zip/train.zip", members)
    expected = outcome(tmp_path / "folder", capsys)
    assert outcome(tmp_path / "zip", capsys) == expected
    known = {
        "a class without images": "class lily of train has 0 images",
        "the same folder in two": "class jay of train has 0 images",
        "other formats": "2 images are of formats that are not read: train/rose/1.dds (DDS)",
    }
    warned = {
        "subfolders": "2 left out, images in subfolders of classes: train/rose/old/1.png",
        "outside": "1 left out, images outside the folders of classes: train/1.png",
    }
    if name in known:
        assert known[name] in expected
    elif name in warned:
        assert warned[name] in expected[1]
    else:
        assert expected[1] == ""


def test_an_empty_folder_in_a_zip_is_a_class(tmp_path):
    write_zip(tmp_path / "train.zip", [(f"train/{p}", PICTURE) for p in GOOD] + [("train/x/", b"")])
    write_zip(tmp_path / "test.zip", [(f"test-{path}", PICTURE) for path in GOOD])
    source = ClassFolders(tmp_path)
    refused(lambda: checked_contents("folder:x", source), "class x of train has 0 images, not 2")


def test_what_is_left_out_is_reported(tmp_path, capsys):
    own = fixtures.write_folders(tmp_path / "flowers")
    rose = own / "train/n01532829"
    (rose / "gone.png").symlink_to("nowhere.png")
    (rose / "circle.png").symlink_to("circle.png")
    (own / "train/gone").symlink_to("nowhere")
    os.mkfifo(rose / "pipe.png")
    (rose / "folder.png").mkdir()
    (own / "validation").mkdir()
    write_zip(own / "train.zip", [])
    (rose / "\x1b[31mred\n.t\x07").write_text("")
    dataset = load_dataset("folder:flowers", data_dir=tmp_path, image_size=8, progress=False)
    assert dataset.class_sizes("train").tolist() == [4, 4, 4]
    lines = capsys.readouterr().err.splitlines()
    for phrase in (
        "2 left out, of which there is another: train.zip; validation",
        "3 left out, broken links: train/gone; train/n01532829/circle.png; train/n01532829/gone",
        "1 left out, special files: train/n01532829/pipe.png",
        "1 left out, folders with the name of an image: train/n01532829/folder.png",
        "files that are not images were left out: 1 .t\\x07",
    ):
        assert any(phrase in line for line in lines), phrase
    assert all(line.startswith("warning: ") and line.isprintable() for line in lines)


def test_names_are_printed_without_their_escapes(tmp_path):
    own = fixtures.write_folders(tmp_path / "flowers")
    (own / "train/n01532829/\x1b[31mred\n.png").write_bytes(b"no image")
    (own / os.fsdecode(b"train/n01532829/\xff.png")).write_bytes(b"no image")
    refused(
        lambda: load_dataset("folder:flowers", data_dir=tmp_path, image_size=8, progress=False),
        "2 of the 30 images",
        r"train/n01532829/\x1b[31mred .png is no image that Pillow reads",
        r"train/n01532829/\udcff.png",
    )


def test_a_list_with_a_byte_order_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(miniimagenet, "CLASSES", fixtures.CLASSES)
    root = fixtures.write_lists(tmp_path / "source")
    expected = find_source("miniimagenet", root).contents()
    for path in root.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert find_source("miniimagenet", root).contents() == expected


def test_a_folder_with_a_pictures_name_in_imagenets_tar(tmp_path, monkeypatch):
    monkeypatch.setattr(miniimagenet, "CLASSES", fixtures.CLASSES)

    def change(archive):
        fixtures.add_bytes(archive, "n01532829_99.JPEG", b"", tarfile.DIRTYPE)

    root = fixtures.write_imagenet(tmp_path / "source", change_inner=change)
    assert len(list(find_source("miniimagenet", root).pictures())) == 28


def test_a_tar_that_promises_more_than_it_has(tmp_path):
    root = fixtures.write_imagenet(tmp_path / "source")
    path = root / "ILSVRC2012_img_train.tar"
    member = tarfile.TarInfo("n01532829.tar")
    member.size = 2**50
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
    refused(
        lambda: list(find_source("miniimagenet", root).pictures()),
        "member 'n01532829.tar' has 1,125,899,906,842,624 bytes",
    )


# ---------------------------------------------------------------------------------- pictures


def pixels_of(image, size, resize="nearest", kind="PNG", **options):
    return decode(fixtures.encoded(image, kind, **options), size, resize)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_a_transparent_background_is_white(mode):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[2:4, 2:4, 3] = 255  # black ink, the rest is transparent black
    image, options = Image.fromarray(ink), {}
    if mode == "LA":
        image = image.convert("LA")
    elif mode in ("P", "RGB"):
        image = Image.fromarray(np.where(ink[..., 3] > 0, 0, 9).astype(np.uint8))
        image = image.convert(mode) if mode == "RGB" else image
        if mode == "P":
            image.putpalette([0, 0, 0] * 256)
        options["transparency"] = 9 if mode == "P" else (9, 9, 9)
    expected = np.where(ink[..., 3:] > 0, 0, 255).repeat(3, axis=-1)
    np.testing.assert_array_equal(pixels_of(image, 8, **options), expected)


@pytest.mark.parametrize("value", range(1, 9))
def test_a_photograph_is_turned_as_its_notes_say(value):
    upright = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = value
    content = fixtures.encoded(np.ascontiguousarray(turned[value]), exif=exif)
    np.testing.assert_array_equal(decode(content, 4, "nearest"), upright)
    # The authors' program does not look.
    np.testing.assert_array_equal(decode(content, 4, "nearest", upright=False), turned[value])


@pytest.mark.parametrize("resize", ["box", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["1", "P"])
def test_filters_work_on_palettes_and_one_bit(mode, resize):
    image = Image.fromarray(fixtures.pixels("n00000001", 0, 32)).convert(mode)
    filter_ = Image.Resampling[resize.upper()]
    expected = np.asarray(image.convert("RGB").resize((8, 8), filter_))
    np.testing.assert_array_equal(pixels_of(image, 8, resize), expected)
    assert (expected != pixels_of(image, 8)).any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_nearest_is_the_authors_resize_then_rgb(mode):
    image = Image.fromarray(fixtures.pixels("n00000001", 0, 32)).convert(mode)
    content = fixtures.encoded(image, "TIFF")
    by_hand = Image.open(io.BytesIO(content)).resize((9, 9), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(decode(content, 9, "nearest"), np.asarray(by_hand.convert("RGB")))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind):
    image = Image.fromarray(fixtures.pixels("n00000001", 0, 16))
    try:
        content = fixtures.encoded(image, kind)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {kind}")
    by_hand = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode(content, 16, "nearest"), by_hand)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"DDS " + bytes(200), "DDS"),
        (b"BLP2" + bytes(200), "BLP"),
        (b"8BPS\0\1" + bytes(200), "PSD"),
        (b"\0\0\0\x18ftypheic" + bytes(200), "HEIC"),
    ],
)
def test_other_formats_are_refused_by_name(content, kind):
    with pytest.raises(ValueError, match=f"^is a {kind} image; AVIF, BMP"):
        decode(content, 8, "nearest")


def png_of(width, height):
    """A sound PNG of one bit per pixel, all paper."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * -(-width // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    sign = b"\x89PNG\r\n\x1a\n"
    return sign + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("side", "phrase"), [(20_000, "far more pixels"), (3000, "3000x3000")])
def test_a_huge_drawing_is_not_decoded(side, phrase):
    content = png_of(side, side)
    message = refused(lambda: shrink(content, "a/b.png"), "a/b.png must be 105x105", phrase)
    assert len(message) < 300
    assert shrink(png_of(105, 105), "a").all()


def test_a_png_with_a_wrong_checksum():
    """Pillow would decode other pixels."""
    content = bytearray(PICTURE)
    content[content.index(b"IDAT") + 30] ^= 1
    with pytest.raises(ValueError, match=r"^is damaged"):
        decode(bytes(content), 10, "nearest")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    assert stat.S_ISFIFO((tmp_path / "x.png").stat().st_mode)
    with pytest.raises(ValueError, match="no file"):
        decode(tmp_path / "x.png", 8, "nearest")


def test_bzip2_is_given_little_at_a_time():
    """What the piece for such members rests on: 4 kB expand to less than 100 MB."""
    assert len(bz2.compress(bytes(90_000_000))) > 60
