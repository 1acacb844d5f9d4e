"""Every file is decoded to the picture that a viewer shows."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from evometa.errors import TaskError
from evometa.task.images import TURNS, decode, suffixes

SIDE = 32


def base():
    """A picture that no turn or flip leaves as it is, dark to light."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    grey = (4 * x + 2 * y + 20 * (x > y)).astype(np.uint8)
    grey[3:9, 20:29] = 255
    grey[20:28, 2:6] = 0
    return grey


def colour():
    grey = base().astype(int)
    return np.stack([grey, 255 - grey, (grey * 3) % 256], -1).astype(np.uint8)


def saved(image, name, **how):
    file = io.BytesIO()
    image.save(file, name, **how)
    return file


def pixels(file, channels=1):
    file.seek(0)
    found = decode(file, SIDE, channels).pixels.astype(int)
    return found[0] if channels == 1 else found.transpose(1, 2, 0)


def tiff(values, bits, photometric=1, code="<"):
    """Write grey as an uncompressed TIFF of so many bits a value."""
    if bits == 12:
        flat = values.reshape(-1, 2).astype(int)
        first, second = flat[:, 0], flat[:, 1]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
        data = packed.astype(np.uint8).tobytes()
    else:
        data = values.astype(f"{code}u{bits // 8}").tobytes()
    tags = [(256, SIDE), (257, SIDE), (258, bits), (259, 1), (262, photometric), (273, 8)]
    tags += [(277, 1), (278, SIDE), (279, len(data))]
    head = (b"II*\0" if code == "<" else b"MM\0*") + struct.pack(f"{code}I", 8 + len(data))
    body = struct.pack(f"{code}H", len(tags))
    body += b"".join(struct.pack(f"{code}HHII", tag, 4, 1, value) for tag, value in tags)
    return io.BytesIO(head + data + body + bytes(4))


def png(values, kind, extra=b""):
    """Write a PNG of 16 bits a value: kind 0 is grey, 2 colour, 4 grey and alpha, 6 with both."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = values.astype(">u2").reshape(SIDE, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, kind, 0, 0, 0)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
        + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )  # fmt: skip


def clear(value):
    return (
        struct.pack(">I", 2)
        + b"tRNS"
        + struct.pack(">H", value)
        + struct.pack(">I", zlib.crc32(b"tRNS" + struct.pack(">H", value)))
    )


GREY = Image.fromarray(base())
DEEP = base().astype(np.uint16) * 257

LOSSLESS = {
    name: lambda name=name, how=how: saved(GREY, name, **how)
    for name, how in {
        "PNG": {}, "BMP": {}, "TIFF": {}, "GIF": {}, "PPM": {}, "TGA": {}, "PCX": {},
        "JPEG2000": {}, "SGI": {}, "ICO": {"sizes": [(SIDE, SIDE)]},
    }.items()
}  # fmt: skip
DEPTHS = {
    "png-16": lambda: saved(Image.fromarray(DEEP), "PNG"),
    "tiff-16": lambda: saved(Image.fromarray(DEEP), "TIFF"),
    "tiff-16-lzw": lambda: saved(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
    "tiff-16-big-endian": lambda: tiff(DEEP, 16, code=">"),
    "tiff-16-white-is-zero": lambda: tiff(65535 - DEEP, 16, photometric=0),
    "tiff-8-white-is-zero": lambda: tiff(255 - base(), 8, photometric=0),
    "tiff-12": lambda: tiff(np.rint(DEEP / 65535 * 4095).astype(int), 12),
    "tiff-float": lambda: saved(Image.fromarray((base() / 255).astype(np.float32)), "TIFF"),
    "jpeg2000-16": lambda: saved(Image.fromarray(DEEP), "JPEG2000"),
    "pgm-16": lambda: io.BytesIO(b"P5 32 32 65535\n" + DEEP.astype(">u2").tobytes()),
    "pgm-10": lambda: io.BytesIO(
        b"P5 32 32 1023\n" + np.rint(DEEP / 65535 * 1023).astype(">u2").tobytes()
    ),
    "png-16-alpha": lambda: png(np.stack([DEEP, np.full_like(DEEP, 65535)], -1), 4),
}


@pytest.mark.parametrize("make", [*LOSSLESS.values(), *DEPTHS.values()], ids=[*LOSSLESS, *DEPTHS])
def test_grey_of_any_format_and_depth_is_the_picture(make):
    assert np.abs(pixels(make()) - base()).max() <= 1


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "QOI"])
def test_colour_is_the_picture(name):
    how = {"lossless": True} if name == "WEBP" else {}
    assert np.array_equal(pixels(saved(Image.fromarray(colour()), name, **how), 3), colour())


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF", "MPO"])
def test_lossy_formats_are_near_the_picture(name):
    smooth = Image.fromarray(colour()).resize((8, 8)).resize((SIDE, SIDE))
    found = pixels(saved(smooth, name, quality=95), 3)
    assert np.abs(found - np.asarray(smooth).astype(int)).mean() < 6


def test_colour_of_16_bits_palettes_cmyk_and_bits_are_the_picture():
    deep = colour().astype(np.uint16) * 257
    assert np.array_equal(pixels(png(deep, 2), 3), colour())
    opaque = np.full((SIDE, SIDE, 1), 65535, np.uint16)
    assert np.array_equal(pixels(png(np.concatenate([deep, opaque], 2), 6), 3), colour())
    few = Image.fromarray(colour()).quantize(16)
    assert np.array_equal(pixels(saved(few, "PNG"), 3), np.asarray(few.convert("RGB")))
    inks = Image.fromarray(colour()).convert("CMYK")
    assert np.abs(pixels(saved(inks, "TIFF"), 3) - colour()).max() <= 1
    assert np.abs(pixels(saved(inks, "JPEG", quality=100), 3) - colour()).mean() < 15
    bits = Image.fromarray(base() > 100)
    for name in ("PNG", "TIFF", "BMP", "PPM"):
        assert np.array_equal(pixels(saved(bits, name)), 255 * (base() > 100))


def drawn(ink):
    """A thick diagonal of an ink on nothing."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    alpha = np.clip(255 * (5 - np.abs(x - y)), 0, 255)[..., None] // 2 * 2
    return np.concatenate([np.broadcast_to(ink, (SIDE, SIDE, 3)), alpha], 2).astype(np.uint8)


@pytest.mark.parametrize(
    ("ink", "paper"),
    [((0, 0, 0), 255), ((255, 255, 255), 0), ((200, 30, 30), 255), ((255, 250, 90), 0),
     ((128, 128, 128), 255)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_becomes_paper_that_shows_the_ink(ink, paper, name):
    how = {"lossless": True, "exact": True} if name == "WEBP" else {}
    image = drawn(ink)
    found = pixels(saved(Image.fromarray(image), name, **how), 3)
    alpha = image[..., 3:] / 255
    assert np.abs(found - (alpha * image[..., :3] + (1 - alpha) * paper)).max() <= 1
    assert np.ptp(pixels(saved(Image.fromarray(image), name, **how))) > 60


def test_other_ways_to_say_transparent():
    ink = Image.fromarray(np.where(base() > 100, 0, 90).astype(np.uint8))
    expected = np.where(base() > 100, 255, 90)  # white paper where grey 0 is transparent
    assert np.array_equal(pixels(saved(ink, "PNG", transparency=0)), expected)
    assert np.array_equal(
        pixels(saved(ink.convert("RGB"), "PNG", transparency=(0, 0, 0))), expected
    )
    deep = png(np.asarray(ink).astype(np.uint16) * 257, 0, extra=clear(0))
    assert np.array_equal(pixels(deep), expected)
    both = Image.merge(
        "LA", (ink, Image.fromarray(np.where(base() > 100, 0, 255).astype(np.uint8)))
    )
    assert np.array_equal(pixels(saved(both, "PNG")), expected)
    few = ink.convert("P")
    assert np.array_equal(pixels(saved(few, "PNG", transparency=few.getpixel((31, 31)))), expected)
    assert np.array_equal(pixels(saved(few, "GIF", transparency=few.getpixel((31, 31)))), expected)


def test_no_paper_makes_a_picture_constant():
    rng = np.random.default_rng(0)
    for _ in range(60):
        alpha = rng.integers(0, 256, (SIDE, SIDE, 1))
        image = np.concatenate([np.full((SIDE, SIDE, 3), rng.integers(0, 256)), alpha], 2)
        assert np.ptp(pixels(saved(Image.fromarray(image.astype(np.uint8)), "PNG"))) > 50
    half = np.zeros((SIDE, SIDE, 4), np.uint8)
    half[::2] = 200, 200, 200, 255  # which is what the others are on white paper
    half[1::2] = 0, 0, 0, 55
    assert np.ptp(pixels(saved(Image.fromarray(half), "PNG"))) == 200


FLIPPED = [1, *TURNS]
INVERSE = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("orientation", FLIPPED)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF-lzw", "TIFF-16", "MPO"])
def test_pictures_are_turned_as_their_orientation_says(name, orientation):
    deep = name == "TIFF-16"
    wide = Image.fromarray(DEEP if deep else base())
    stored = (
        wide.transpose(INVERSE.get(orientation, TURNS.get(orientation)))
        if orientation > 1
        else wide
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"JPEG": {"quality": 100}, "MPO": {"quality": 100}, "WEBP": {"lossless": True}}.get(
        name, {}
    )
    if name == "TIFF-lzw":
        how["compression"] = "tiff_lzw"
    file = saved(stored, name.partition("-")[0], exif=exif, **how)
    assert np.abs(pixels(file) - base()).mean() < 2
    file.seek(0)
    said = any("turned" in change for change in decode(file, SIDE, 1).changes)
    assert said == (orientation != 1)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_counts_and_that_is_said(name):
    how = {"lossless": True} if name == "WEBP" else {}
    others = [Image.fromarray(255 - base()), Image.fromarray(base() // 2)]
    file = saved(GREY, name, save_all=True, append_images=others, **how)
    assert np.abs(pixels(file) - base()).max() <= 1
    file.seek(0)
    assert "of several frames, the first is taken" in decode(file, SIDE, 1).changes


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((SIDE, SIDE), 7.5), "mode is F.*7.5 to 7.5.*within 0 and 1"),
        (np.full((SIDE, SIDE), np.nan), "mode is F with values nan to nan"),
        (np.full((SIDE, SIDE), -0.1), "mode is F"),
    ],
)
def test_floats_beyond_their_range_are_refused(values, reason):
    file = saved(Image.fromarray(values.astype(np.float32)), "TIFF")
    with pytest.raises(TaskError, match=reason):
        pixels(file)


def test_integers_without_a_white_are_refused():
    file = saved(Image.fromarray(base().astype(np.int32)), "TIFF")
    with pytest.raises(TaskError, match=r"mode is I with values 0 to 255.*16 or 8 bits"):
        pixels(file)


def test_what_is_no_picture_is_refused_with_a_reason(monkeypatch):
    whole = saved(GREY, "PNG").getvalue()
    for data, reason in [
        (b"", "no known format"),
        (b"no image", "no known format"),
        (whole[: len(whole) // 2], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known format"),
    ]:
        with pytest.raises(TaskError, match=reason):
            pixels(io.BytesIO(data))
    large = saved(Image.new("1", (2000, 1000)), "PNG")
    for limit in (900_000, 1_900_000):  # beyond twice the limit, and beyond the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with (
            warnings.catch_warnings(),
            pytest.raises(TaskError, match=r"too large.*2000000 pixels"),
        ):
            pixels(large)


def test_ordinary_images_are_as_pillow_converts_them():
    """Nothing that was read rightly before has other pixels."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
    for channels, mode in ((1, "L"), (3, "RGB")):
        expected = image.convert(mode).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        assert np.array_equal(pixels(saved(image, "PNG"), channels), np.asarray(expected))
    inverted = decode(saved(image, "PNG"), SIDE, 1, invert=True).pixels[0]
    assert np.array_equal(inverted, 255 - pixels(saved(image, "PNG")))


def test_suffixes_are_those_of_pictures():
    assert {
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
    } <= suffixes()
    assert not {".pdf", ".eps", ".h5", ".mpg", ".txt", ""} & suffixes()
