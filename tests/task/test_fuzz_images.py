"""Whatever the bytes of a file, there is an image or a TaskError.

Some from a fixed seed; `EVOMETA_FUZZ=5 pytest -m fuzz` goes on for five minutes, and
`EVOMETA_FUZZ_SEED` draws others.
"""

import io
import os
import random
import time

import numpy as np
import pytest
from PIL import Image

from evometa.errors import TaskError
from evometa.task.images import decode

SECONDS = 60 * float(os.environ.get("EVOMETA_FUZZ", "0"))
SEED = int(os.environ.get("EVOMETA_FUZZ_SEED", "0"))
EACH = 200  # files of each kind, at least

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 11, 4), np.uint8)


def seeds():
    """Return small valid files by name: formats, modes, compressions, tags, frames."""
    full, deep = Image.fromarray(PIXELS), Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200)
    images = {
        "RGBA": full, "RGB": full.convert("RGB"), "L": full.convert("L"), "P": full.quantize(8),
        "1": full.convert("1"), "LA": full.convert("LA"), "I;16": deep,
        "F": Image.fromarray((PIXELS[..., 0] / 255).astype(np.float32)),
        "CMYK": full.convert("RGB").convert("CMYK"),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    ways = [
        ("PNG", {}), ("PNG", {"exif": exif}), ("JPEG", {"exif": exif}),
        ("JPEG", {"progressive": True}),
        ("GIF", {}), ("BMP", {}), ("DIB", {}), ("WEBP", {"exif": exif}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {"exif": exif}), ("PPM", {}), ("TGA", {"compression": "tga_rle"}), ("PCX", {}),
        ("SGI", {}), ("ICO", {"sizes": [(16, 16)]}), ("JPEG2000", {}), ("AVIF", {}),
        ("QOI", {}), ("DDS", {}), ("XBM", {}), ("MSP", {}), ("BLP", {}),
        *[("TIFF", {"compression": name}) for name in ("tiff_lzw", "jpeg", "group4", "packbits")],
        *[(name, {"save_all": True, "append_images": [full]}) for name in ("GIF", "PNG", "TIFF")],
    ]  # fmt: skip
    found = {}
    for number, (name, how) in enumerate(ways):
        for mode, image in images.items():
            file = io.BytesIO()
            try:
                image.save(file, name, **how)
            except (OSError, ValueError, KeyError, RuntimeError):  # no such mode in this format
                continue
            found[f"{name}-{mode}-{number}"] = file.getvalue()
    return found


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = (
            rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(64, len(data)))
        )
        way = rng.randrange(6)
        if way == 0:
            data[place] = rng.randrange(256)
        elif way == 1:
            data[place] ^= 1 << rng.randrange(8)
        elif way == 2:
            data[place : place + 4] = rng.choice(
                (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
            )
        elif way == 3:
            del data[place : place + rng.randrange(1, 9)]
        elif way == 4:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
        else:
            del data[place:]
        if not data:
            break
    return bytes(data)


SEEDS = seeds()
KINDS = sorted({name.partition("-")[0] for name in SEEDS})


@pytest.mark.fuzz
@pytest.mark.timeout(300 + 3 * SECONDS)
@pytest.mark.parametrize("name", KINDS)
def test_any_bytes_give_an_image_or_a_task_error(name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)  # so that no size is worth waiting for
    own = [data for kind, data in sorted(SEEDS.items()) if kind.startswith(f"{name}-")]
    assert own
    rng = random.Random(f"{SEED} {name}")
    given = 0
    for data in own:
        assert decode(io.BytesIO(data), 8, 3).pixels.shape == (3, 8, 8)
    until, tried = time.monotonic() + SECONDS / len(KINDS), 0
    while tried < EACH or time.monotonic() < until:
        tried += 1
        data = mutated(rng, rng.choice(own))
        try:
            picture = decode(io.BytesIO(data), 8, rng.choice((1, 3)))
        except TaskError as reason:
            assert str(reason)
        else:
            given += 1
            assert picture.pixels.dtype == np.uint8
            assert picture.pixels.shape in ((1, 8, 8), (3, 8, 8))
    assert given, "some changes leave an image"
