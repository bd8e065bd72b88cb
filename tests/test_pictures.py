"""Tests conversion of all kinds of pictures to 8-bit squares."""

import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import pictures
from gsdd_jax.exports import png
from tests.own_pictures import SIZE, fill, load, make, noise, refusal


def stored(image_or_bytes, size=4, channels=3, **options) -> np.ndarray:
    """Returns the stored square of a picture."""
    content = image_or_bytes
    if isinstance(content, Image.Image):
        out = io.BytesIO()
        content.save(out, **({"format": "PNG"} | options))
        content = out.getvalue()
    pixels = pictures.read(content, size, channels).pixels
    with Image.open(io.BytesIO(png.encode(pixels))) as again:
        np.testing.assert_array_equal(np.asarray(again).reshape(pixels.shape), pixels)
    return pixels


def test_the_middle_is_kept_and_resampled(tmp_path):
    """Compares with linear interpolation of the square, widened when shrinking."""
    pixels = noise(1, 18, 31, 3)
    scale = 18 / 4
    distance = np.abs(np.arange(18) + 0.5 - (np.arange(4)[:, None] + 0.5) * scale)
    weights = np.maximum(0, 1 - distance / scale)
    weights /= weights.sum(1, keepdims=True)
    middle = pixels[:, 6 : 6 + 18].astype(float)
    expected = np.einsum("ri,cj,ijk->rck", weights, weights, middle)
    np.testing.assert_allclose(stored(Image.fromarray(pixels)), expected, atol=1.05)


def solid(mode, color):
    return Image.new(mode, (6, 4), color)


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (solid("L", 70), {}, (70, 70, 70)),
        (solid("1", 1), {}, (255, 255, 255)),
        (solid("RGBA", (200, 40, 0, 0)), {}, (255, 255, 255)),  # transparent lies on white
        (solid("RGBA", (200, 40, 0, 255)), {}, (200, 40, 0)),
        (solid("LA", (0, 255)), {}, (0, 0, 0)),
        (solid("CMYK", (0, 255, 255, 0)), {"format": "TIFF"}, (255, 0, 0)),
        (solid("RGB", (9, 90, 200)).quantize(), {}, (9, 90, 200)),  # a palette
        (solid("RGB", (9, 90, 200)), {"transparency": (9, 90, 200)}, (255, 255, 255)),
        (solid("I;16", 257 * 77), {}, (77, 77, 77)),
        (solid("I;16", 257 * 77), {"format": "TIFF"}, (77, 77, 77)),
    ],
    ids=lambda v: getattr(v, "mode", None),
)
def test_every_mode_becomes_color(image, options, expected):
    np.testing.assert_array_equal(stored(image, **options), np.full((4, 4, 3), expected))


def test_of_an_animation_the_first_frame():
    frames = [solid("RGB", color) for color in ((250, 0, 0), (0, 250, 0))]
    pixels = stored(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels, np.full((4, 4, 3), (250, 0, 0)))


def test_a_camera_held_sideways():
    """Uses orientation 6: the stored left side is shown on top."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = stored(Image.fromarray(pixels), size=8, exif=exif)
    assert (shown[:4] == 200).all() and (shown[4:] == 0).all()


def test_a_large_jpeg_is_what_all_of_it_would_give():
    x = np.linspace(0, 1, 1600)
    waves = np.stack([np.sin(9 * x)[:, None] * np.cos(7 * x), np.outer(x, x), 0 * np.outer(x, x)])
    pixels = np.uint8(127 + 120 * waves.transpose(1, 2, 0))
    whole = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(
        stored(Image.fromarray(pixels), size=32, format="JPEG", quality=95).astype(float),
        whole.astype(float), atol=4,
    )  # fmt: skip


def test_gray_has_one_channel(tmp_path):
    color = solid("RGB", (255, 0, 0))
    assert stored(color, channels=1).shape == (4, 4, 1)
    fill(tmp_path / "pictures")
    assert make(tmp_path, tmp_path / "pictures", gray=True).image_shape == (SIZE, SIZE, 1)
    dataset = load(tmp_path)
    assert dataset.image_shape == (SIZE, SIZE, 1)
    assert len(dataset.mean) == 1


# Values of 10 to 14 bits in 16.


@pytest.mark.parametrize(
    ("largest", "options", "bits"),
    [(1000, {}, 10), (4095, {}, 12), (9000, {}, 14), (60000, {}, 16), (4000, {"depth": 14}, 14)],
)
def test_the_bits_that_are_used(tmp_path, largest, options, bits):
    """Takes the bits from the largest value of all pictures, or as given."""
    rng = np.random.default_rng(0)
    values = {f"{c}/{i}.png": rng.integers(0, largest, (SIZE, SIZE)) for c in "ab" for i in "01"}
    values["a/0.png"][0, 0] = largest
    for name, value in values.items():
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value.astype(np.uint16)).save(tmp_path / "p" / name)
    notes = make(tmp_path, tmp_path / "p", test=tmp_path / "p", gray=True, **options).notes
    assert any(f"so {bits} bits are used" in note for note in notes) == (not options)
    expected = [np.floor(value * 255 / (2**bits - 1) + 0.5) for value in values.values()]
    np.testing.assert_array_equal(load(tmp_path).train.images[..., 0], expected)


def test_more_bits_than_are_given_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.new("I;16", (4, 4), 1024).save(tmp_path / "p" / name / "1.png")
    message = refusal(tmp_path, tmp_path / "p", test=tmp_path / "p", depth=10)
    assert "its pixels are up to 1024, expected 10 bits" in message
    message = refusal(tmp_path, tmp_path / "p", test=tmp_path / "p", depth=11)
    assert message == "--depth: expected one of 8, 10, 12, 14, 16, got 11"


def test_colors_of_which_pillow_keeps_four_bits_are_refused():
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    row = b"\0" + struct.pack(">12H", *[4095] * 12)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(row * 4), b"IEND": b""}
    png = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())
    with pytest.raises(UsageError, match="its colors have 12 bits stored in 16"):
        pictures.read(png, 4, 3)


# Color profiles.


def curve(exponent=1.0) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(exponent * 256))


def profile(colorants, exponent=2.0) -> bytes:
    """Returns an ICC profile of three primaries, in XYZ of D50, and one power for all."""
    number = lambda value: struct.pack(">i", round(value * 65536))
    xyz = lambda color: b"XYZ \0\0\0\0" + b"".join(number(value) for value in color)
    text = b"desc" + struct.pack(">II", 0, 2) + b"p\0" + bytes(78)
    tags = {b"desc": text, b"wtpt": xyz(WHITE)}
    for letter, color in zip(b"rgb", colorants, strict=True):
        tags |= {bytes([letter]) + b"XYZ": xyz(color), bytes([letter]) + b"TRC": curve(exponent)}
    table, content, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    size = start + len(content)
    header = struct.pack(">I4sI", size, b"lcms", 0x02100000) + b"mntrRGB XYZ "
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(number, WHITE))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


WHITE = (0.9642, 1.0, 0.8249)  # D50
SRGB = np.array([[0.4361, 0.2225, 0.0139], [0.3851, 0.7169, 0.0971], [0.1431, 0.0606, 0.7141]])


def in_srgb(colors, colorants, exponent):
    """Converts by the definition: to XYZ, then by sRGB's primaries and its curve."""
    linear = (np.array(colors) / 255) ** exponent @ np.array(colorants) @ np.linalg.inv(SRGB)
    linear = linear.clip(0, 1)
    curved = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curved


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize(
    "colorants",
    [SRGB[[1, 0, 2]], SRGB * [[0.9], [1.05], [1.02]]],
    ids=["red and green swapped", "other primaries"],
)
def test_colors_become_those_of_srgb(mode, colorants):
    image = Image.new("RGB", (6, 4), (200, 120, 60))
    image = image.quantize() if mode == "P" else image.convert(mode)
    shown = np.asarray(image.convert("RGB"))[0, 0]
    pixels = stored(image, icc_profile=profile(colorants))
    expected = np.broadcast_to(in_srgb(shown, colorants, 2.0), pixels.shape)
    np.testing.assert_allclose(pixels.astype(float), expected, atol=2)


def test_srgb_itself_stays():
    image = Image.fromarray(noise(4, 4, 4, 3))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    difference = stored(image, icc_profile=srgb).astype(int) - stored(image)
    assert np.abs(difference).max() <= 1


def test_what_is_damaged_beside_good_pixels_is_ignored(tmp_path):
    """Uses EXIF of two kinds and a color profile that Pillow cannot read; a note says so."""
    image = Image.fromarray(noise(5, SIZE, SIZE, 3))
    folder = tmp_path / "p" / "a"
    folder.mkdir(parents=True)
    image.save(folder / "exif.png", exif=b"Exif\0\0garbage")
    image.save(folder / "icc.png", icc_profile=b"garbage")
    image.save(folder / "space.png", icc_profile=profile(SRGB).replace(b"mntrRGB", b"mntrCMYK"[:7]))
    image.save(tmp_path / "p" / "a" / "good.png")
    (tmp_path / "p" / "b").mkdir()
    image.save(tmp_path / "p" / "b" / "good.png")
    notes = make(tmp_path, tmp_path / "p", test=tmp_path / "p").notes
    assert "2 pictures with EXIF that is damaged and was ignored" in notes
    assert "4 pictures with a color profile that is damaged and was ignored" in notes
    for stored_image in load(tmp_path).train.images:
        np.testing.assert_array_equal(stored_image, np.asarray(image))


# Concurrent decoding.


def test_pictures_that_are_decoded_at_once_are_bounded_by_their_pixels(monkeypatch):
    """Decodes two of size 40 in room for 100 while a third waits; one of 300 by itself."""
    room, inside, most, lock = pictures.Room(100), [], [], threading.Lock()

    def decode(pixels):
        with room.taken(pixels):
            with lock:
                inside.append(pixels)
                most.append(sum(inside))
            time.sleep(0.01)
            with lock:
                inside.remove(pixels)

    threads = [threading.Thread(target=decode, args=(n,)) for n in [40] * 6 + [300]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(most)[-2:] == [80, 300]
    taken = []
    monkeypatch.setattr(pictures, "ROOM", pictures.Room(1))
    monkeypatch.setattr(pictures.Room, "taken", lambda _, n: taken.append(n) or lock)
    stored(Image.new("RGB", (1600, 800)), size=4, format="JPEG")
    assert taken == [200 * 100]  # as a JPEG is decoded for so small a square
