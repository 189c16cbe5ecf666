#!/usr/bin/env python3
"""Makes again, byte for byte where no image library is involved, the demo images that are not photographs:
the three drawings (own work) and everything in images/broken/, which is derived from the photographs beside it.

Needs Debian's python3-pil for two of the drawings. `make_images.py --broken` needs the standard library only.
"""
import math
import pathlib
import struct
import sys
import zlib

IMAGES = pathlib.Path(__file__).resolve().parent / "images"
BROKEN = IMAGES / "broken"


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bit_depth: int, colour_type: int, scanlines: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(scanlines, 9)) +
            png_chunk(b"IEND", b""))


def twilight() -> bytes:
    """A sky at dusk over the sea in 16 bits a channel: as 8 bits, it would show bands."""
    width, height, horizon = 480, 320, 200
    sky_top, sky_low, sea_near, sea_far = (0.03, 0.05, 0.22), (0.98, 0.55, 0.30), (0.01, 0.03, 0.10), (0.45, 0.25, 0.30)
    rows = bytearray()
    for y in range(height):
        above = y < horizon
        depth = (y / horizon) ** 1.6 if above else ((y - horizon) / (height - horizon)) ** 0.5
        start, end = (sky_top, sky_low) if above else (sea_far, sea_near)
        values = []
        for x in range(width):
            distance = math.hypot(x - 330, (y - horizon) * (1 if above else 0.25))
            glow = 0.9 * math.exp(-distance / 40) if above else 0.5 * math.exp(-abs(x - 330) / 30) * (1 - depth)
            ripple = 0 if above else 0.02 * math.sin(y * 0.9 + math.sin(x / 25))
            pixel = tuple(round(65535 * min(1.0, max(0.0, a + (b - a) * depth + glow * tint + ripple)))
                          for a, b, tint in zip(start, end, (1.0, 0.8, 0.45)))
            values.append(pixel)
        rows.append(1)  # filter "Sub": each byte minus the one a pixel (6 bytes) to its left
        raw = struct.pack(f">{3 * width}H", *(v for pixel in values for v in pixel))
        rows += bytes((raw[i] - (raw[i - 6] if i >= 6 else 0)) & 0xFF for i in range(len(raw)))
    return png(width, height, 16, 2, bytes(rows))


def ship() -> "Image.Image":
    """A ship cut open, 6000 x 4000 in a palette of seven: eight watertight holds, one of them flooded."""
    from PIL import Image, ImageDraw
    sky, sea, hull, hold, water, steel, lamp = range(7)
    image = Image.new("P", (6000, 4000), sky)
    image.putpalette([214, 232, 240, 38, 92, 130, 150, 48, 40, 240, 228, 205, 62, 140, 190, 40, 44, 52, 250, 200, 70])
    draw = ImageDraw.Draw(image)
    draw.rectangle((3300, 700, 3900, 1500), fill=hull)                       # funnel
    draw.rectangle((3300, 820, 3900, 960), fill=steel)
    draw.rectangle((1700, 1300, 4500, 1900), fill=hold, outline=steel, width=24)  # deck house
    for x in range(1850, 4400, 260):
        draw.ellipse((x, 1520, x + 130, 1650), fill=lamp, outline=steel, width=16)
    draw.rectangle((0, 2500, 6000, 4000), fill=sea)
    for x in range(-100, 6100, 400):
        draw.pieslice((x, 2420, x + 400, 2580), 0, 180, fill=sky)
    draw.polygon([(250, 1900), (5800, 1900), (5200, 3500), (800, 3500)], fill=hull, outline=steel)
    for number in range(8):
        left, right = 900 + number * 520, 900 + (number + 1) * 520
        draw.rectangle((left, 2020, right, 3380), fill=hold)
        if number == 5:
            draw.rectangle((left, 2300, right, 3380), fill=water)
        draw.line((left, 2020, left, 3380), fill=steel, width=44)
    draw.rectangle((900, 2020, 900 + 8 * 520, 3380), outline=steel, width=44)
    return image


def lifebuoy() -> "Image.Image":
    """A life ring with a rope, RGBA, transparent around it and in the hole; the edge and the shadow are half so."""
    from PIL import Image, ImageDraw, ImageFilter
    size, scale = 512, 4
    full = size * scale
    def ring(margin: int, thickness: int) -> "Image.Image":
        mask = Image.new("L", (full, full), 0)
        draw = ImageDraw.Draw(mask)
        draw.ellipse((margin, margin, full - margin, full - margin), fill=255)
        inner = margin + thickness
        draw.ellipse((inner, inner, full - inner, full - inner), fill=0)
        return mask
    paint = Image.new("RGB", (full, full), (245, 245, 240))
    draw = ImageDraw.Draw(paint)
    for start in range(20, 380, 90):
        draw.pieslice((0, 0, full, full), start, start + 50, fill=(214, 52, 36))
    buoy = Image.new("RGBA", (full, full), (0, 0, 0, 0))
    buoy.paste((90, 80, 60, 255), mask=ring(150, 40))
    buoy.paste(paint, mask=ring(220, 420))
    buoy = buoy.resize((size, size), Image.LANCZOS)
    shadow = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    shadow.paste((0, 0, 0, 110), (10, 14), buoy.getchannel("A"))
    return Image.alpha_composite(shadow.filter(ImageFilter.GaussianBlur(6)), buoy)


def with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def broken() -> dict[str, bytes]:
    """Name and content of every file that a decoder must survive."""
    jpeg = (IMAGES / "astronaut.jpg").read_bytes()
    drawing = (IMAGES / "lifebuoy.png").read_bytes()
    webp = (IMAGES / "horse.webp").read_bytes()
    flipped = bytearray(drawing)
    data = drawing.index(b"IDAT")
    flipped[data + 4 + struct.unpack(">I", drawing[data - 4:data])[0]] ^= 0xFF      # first byte of that chunk's CRC
    middle = len(webp) // 2
    noise = bytes((i * 167 + 13) % 256 for i in range(1024))
    # One directory entry is promised to be 65535, and the one there points its value outside the file.
    directory = struct.pack(">2sHIHHHII", b"MM", 42, 8, 0xFFFF, 0x0112, 3, 0xFFFFFFFF, 0xFFFFFFF0)
    return {
        "truncated.jpg": jpeg[:len(jpeg) * 2 // 5],
        "truncated.png": drawing[:len(drawing) // 2],
        "bad-crc.png": bytes(flipped),
        "huge-header.png": png(60000, 60000, 8, 6, bytes(1000)),
        "text.jpg": b"I am not a JPEG. I am a text file, and I ask to be treated as one.\n",
        "jpeg-inside.png": jpeg,
        "empty.webp": b"",
        "garbage-middle.webp": webp[:middle] + noise + webp[middle + len(noise):],
        "bogus-exif.jpg": with_exif(jpeg, directory),
        "lying.ppm": b"P6\n4000 4000\n255\n" + bytes(range(100)),
        "negative.ppm": b"P6\n-320 200\n255\n" + bytes(range(100)),
        "overflow.ppm": b"P6\n65536 65537\n255\n" + bytes(range(100)),    # 3 * w * h is 196608 modulo 2^32
    }


def main() -> None:
    if "--broken" not in sys.argv[1:]:
        (IMAGES / "twilight.png").write_bytes(twilight())
        ship().save(IMAGES / "ship.png", optimize=True)
        lifebuoy().save(IMAGES / "lifebuoy.png", optimize=True)
    BROKEN.mkdir(exist_ok=True)
    for name, content in broken().items():
        (BROKEN / name).write_bytes(content)


if __name__ == "__main__":
    main()
