"""One image file as pixels, as a viewer would show it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from evometa.errors import TaskError

DECODING = 2
"""Version of the rules below; it is raised whenever they give other pixels for the same file."""

LIGHT = 192  # mean grey of what is opaque, from which on it would hardly be seen on white paper
VISIBLE = 16  # grey levels between the darkest and the lightest that show a picture at all
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}  # Pillow needs other programs
ORIENTATION, BITS, PHOTOMETRIC, SAMPLES = 0x0112, 258, 262, 339  # tags of EXIF and TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: shape `(channels, size, size)`, 0 to 255.
        format: of the file, as Pillow names it.
        mode: of the file's pixels, as Pillow names it.
        changes: what was done besides converting and resizing.
        used: share of its declared range that an image of more than 8 bits uses, from zero to its
            highest value; None for others.
    """

    pixels: npt.NDArray[np.uint8]
    format: str
    mode: str
    changes: tuple[str, ...] = ()
    used: float | None = None


def formats() -> list[str]:
    """Return the formats that Pillow reads by itself, what users have registered among them."""
    Image.init()
    return ["PNG", "JPEG", *sorted({*Image.OPEN} - {*NO_PICTURES, "PNG", "JPEG"})]  # tried in turn


def suffixes() -> frozenset[str]:
    """Return the suffixes of images, in small letters."""
    known = set(formats())
    found = Image.registered_extensions()
    return frozenset(suffix for suffix, name in found.items() if name in known)


def decoding_rule() -> tuple[object, ...]:
    """Return what decides, besides file and arguments, which pixels `decode` gives."""
    limits = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    return (DECODING, PIL.__version__, *limits, *formats())


def decode(file: io.BytesIO | Path, size: int, channels: int, *, invert: bool = False) -> Picture:
    """Decode one image.

    It is turned upright as its EXIF orientation says. 16-bit grey is scaled by the depth that the
    file declares, floats are 0 to 1. What is transparent becomes white paper, or black where the
    opaque part is light and would hardly be seen on white, or where white would leave hardly more
    than a single colour. Of several frames the first is taken. Colour profiles are left aside.

    Args:
        file: what to read.
        size: side of the result, in pixels; other shapes are squeezed.
        channels: 1 for grey, 3 for colour.
        invert: make dark ink on light paper light on dark.

    Raises:
        TaskError: if there is no picture to be had; the message is the reason alone.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=formats()) as image:
                return _decode(image, size, channels, invert=invert)
    except TaskError:
        raise
    except UnidentifiedImageError:
        empty = isinstance(file, Path) and not file.stat().st_size
        raise TaskError("it is empty" if empty else "its bytes are of no known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TaskError(f"it is too large, make it smaller: {str(error).rstrip('.')}") from None
    except Exception as error:  # Pillow raises whatever the bytes happen to mean
        raise TaskError(str(error) or f"Pillow stumbles on it ({type(error).__name__})") from error


def _decode(image: Image.Image, size: int, channels: int, *, invert: bool) -> Picture:
    changes = []
    if getattr(image, "is_animated", False):
        changes.append("of several frames, the first is taken")
    name, mode = image.format or "", image.mode
    flat, turned = _upright(image)
    if turned:
        changes.append("turned upright, as their EXIF orientation says")
    used = None
    if mode == "F" or mode.startswith("I"):
        flat, used = _eight_bits(flat, image)
        changes.append(f"of mode {mode}, scaled to 8 bits")
    if flat.has_transparency_data:
        flat, paper = _on_paper(flat)
        changes += [f"with transparency, put on {paper} paper"] if paper else []
    flat = flat.convert("L" if channels == 1 else "RGB")
    small = flat.resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(small, dtype=np.uint8).reshape(size, size, channels).transpose(2, 0, 1)
    return Picture(255 - array if invert else array, name, mode, tuple(changes), used)


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the loaded image as it is to be seen, and whether it lay otherwise in the file."""
    before = _orientation(image)
    image.load()  # which turns a TIFF
    left = _orientation(image)
    turned = image.transpose(TURNS[left]) if left in TURNS else image
    return turned, before in TURNS or left in TURNS


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # what cannot be read turns nothing, as in a viewer
        return None


def _eight_bits(flat: Image.Image, file: Image.Image) -> tuple[Image.Image, float]:
    """Return deep grey as 8 bits, and the share of its range that is used.

    Args:
        flat: upright pixels of mode F, I or I;16.
        file: what the file declares.
    """
    values = np.asarray(flat)
    tags = getattr(file, "tag_v2", {})
    white = 1.0
    if file.mode != "F":
        signed = tags.get(SAMPLES, (1,))[0] != 1
        known = file.mode.startswith("I;16") or file.format in ("PNG", "PPM")
        if signed or not known:
            raise TaskError(
                f"its mode is {file.mode} with values {values.min()} to {values.max()}, of a depth "
                "that says neither black nor white; save it with 16 or 8 bits and no sign"
            )
        white = float(2 ** (tags.get(BITS, (16,))[0]) - 1)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= white:
        raise TaskError(
            f"its mode is {file.mode} with values {low:g} to {high:g}, but they must lie within 0 "
            f"and {white:g}; scale them, or save it with 8 bits"
        )
    grey = values * np.float32(255 / white)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero
        grey = 255 - grey
    found = Image.fromarray(np.rint(grey).astype(np.uint8))
    clear = file.info.get("transparency")
    if isinstance(clear, int):
        found.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return found, high / white


def _on_paper(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a transparent image on paper that shows it, and the paper; none if all is opaque."""
    ink = image.convert("RGBA")
    alpha = np.asarray(ink.getchannel("A"))
    if alpha.min() == 255:
        return ink.convert("RGB"), ""
    weights = alpha.astype(np.float32)
    grey = float((np.asarray(ink.convert("L")) * weights).sum() / max(1.0, weights.sum()))
    papers = {"white": 255, "black": 0}
    found: dict[str, tuple[int, Image.Image]] = {}
    for paper in ("black", "white") if grey >= LIGHT else ("white", "black"):
        sheet = Image.new("RGBA", ink.size, (*[papers[paper]] * 3, 255))
        sheet.alpha_composite(ink)
        flat = sheet.convert("RGB")
        contrast = int(np.ptp(np.asarray(flat), axis=(0, 1)).max())
        found[paper] = contrast, flat
        if contrast >= VISIBLE:
            break
    paper = max(found, key=lambda name: found[name][0])
    return found[paper][1], paper
