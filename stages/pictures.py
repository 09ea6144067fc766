"""What the header of an image says, before anything is allocated for its pixels; and animations cut to one frame.

PNG files are checked whole: torchvision's decoder ends the process where libpng finds an error.
"""

import struct
import zlib
from collections.abc import Iterator

from d2v_core.errors import Dropped

LARGEST = 10**8  # pixels
LONGEST = 100  # the longer side over the shorter one; resizing multiplies it
PNG = b"\x89PNG\r\n\x1a\n"
FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's markers of a frame
ALONE = {0x01, 0xFF, *range(0xD0, 0xD9)}  # JPEG's markers without content


def check(data: bytes) -> None:
    """Raise Dropped for an image whose header is unreadable or promises too many pixels or too long a strip."""
    try:
        width, height = dimensions(data)
        if data.startswith(PNG):
            check_png(data)
    except (struct.error, IndexError, ValueError) as error:
        raise Dropped("unreadable", f"not a whole JPEG, PNG, GIF or WebP image: {error}") from None
    if width * height > LARGEST:
        raise Dropped("too large", f"{width} × {height} pixels, more than {LARGEST}")
    if max(width, height) > LONGEST * max(1, min(width, height)):
        raise Dropped("too large", f"{width} × {height} pixels, one side more than {LONGEST} times the other")


def dimensions(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels; raise ValueError, IndexError or struct.error when the header does not say."""
    if data.startswith(PNG):
        return struct.unpack_from(">II", data, 16)
    if data.startswith((b"GIF87a", b"GIF89a")):
        frame = next(frames_of_gif(data))[0]
        screens = struct.unpack_from("<HH", data, 6), struct.unpack_from("<HH", data, frame + 5)
        return max(screens[0][0], screens[1][0]), max(screens[0][1], screens[1][1])
    if data.startswith(b"\xff\xd8"):
        return dimensions_of_jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return dimensions_of_webp(data)
    raise ValueError("unknown beginning")


def check_png(data: bytes) -> None:
    """Raise ValueError unless every chunk of a PNG file is whole, by its checksum, and one of them holds pixels."""
    place, kinds, view = len(PNG), [], memoryview(data)
    while place < len(data) and b"IEND" not in kinds:
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if struct.unpack_from(">I", data, end)[0] != zlib.crc32(view[place + 4 : end]):
            raise ValueError("a wrong checksum")
        kinds.append(data[place + 4 : place + 8])
        place = end + 4
    if kinds[:1] != [b"IHDR"] or b"IDAT" not in kinds:
        raise ValueError("no pixels")


def dimensions_of_jpeg(data: bytes) -> tuple[int, int]:
    """Return width and height from the header of a JPEG's frame."""
    place = 2
    while True:
        if data[place] != 0xFF:
            raise ValueError("no marker where one belongs")
        marker = data[place + 1]
        if marker in ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker in FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + length


def dimensions_of_webp(data: bytes) -> tuple[int, int]:
    """Return width and height from the first chunk of a WebP file."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
        return width, height
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("unknown chunk")


def still(data: bytes) -> bytes:
    """Return the first frame of a GIF or WebP animation as a file of its own; any other image as it is."""
    if data.startswith(b"GIF8"):
        return data[: next(frames_of_gif(data))[1]] + b";"
    if data[12:16] == b"VP8X" and data[20] & 2:
        frame = next(content for kind, content in chunks(data, 12, len(data)) if kind == b"ANMF")
        kind, content = next(each for each in chunks(frame, 16, len(frame)) if each[0] in (b"VP8 ", b"VP8L"))
        chunk = kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk
    return data


def chunks(data: bytes, place: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the chunks of a RIFF file between two places."""
    while place + 8 <= end:
        (length,) = struct.unpack_from("<I", data, place + 4)
        yield data[place : place + 4], data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def frames_of_gif(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the frames of a GIF begin, at their descriptors, and end."""
    place = 13 + colours(data[10])
    while data[place] != 0x3B:
        begin = place
        if data[place] == 0x2C:
            place = after_blocks(data, place + 11 + colours(data[place + 9]))
            yield begin, place
        elif data[place] == 0x21:
            place = after_blocks(data, place + 2)
        else:
            raise ValueError("no block where one belongs")
    raise ValueError("no frame")


def colours(flags: int) -> int:
    """Return the bytes of a GIF's table of colours."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def after_blocks(data: bytes, place: int) -> int:
    """Return the place after a chain of a GIF's blocks."""
    while data[place]:
        place += 1 + data[place]
    return place + 1
