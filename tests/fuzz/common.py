"""What the targets share: which errors they may meet, how bytes become arguments, and how streams are cut."""

from __future__ import annotations

import os
import random
import re
import zlib
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from feeding import each_byte, pieces, with_empties

from deltawire.protocol import ConfigurationError, MissingAuthError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_T = TypeVar("_T")

# What the library says that it raises, for what a caller gives. Every other exception of every target is a bug: what a
# peer sends raises nothing at all.
DOCUMENTED: dict[str, tuple[type[Exception], ...]] = {
    "proxy_url": (ConfigurationError,),  # Proxy.parse
    "no_proxy": (ConfigurationError,),  # choose_proxy: its URL, and the proxies'
    "requests": (ConfigurationError,),  # Endpoint, Site, OpenaiTemplate, Opchatgpts, HTTP1Exchange
    "key": (MissingAuthError,),  # the same, where a key is needed and none is given
    "media": (ConfigurationError,),  # media_part, Image.data
    "base64": (ValueError,),  # decode_base64
    "json": (ValueError,),  # loads, for what is no JSON
}

# How often the oracle of each target had something to say: a differential that never compares finds nothing.
COMPARED: Counter[str] = Counter()

# Whether replies are held against the naive readers, too. They have mistakes of their own, which mutations go on
# finding; and where those take another way on each machine, a short run must not say that a change is bad.
READERS = os.environ.get("DELTAWIRE_FUZZ_READERS", "1") != "0"

_BLANK_LINE = re.compile(rb"(?:\r\n|\r|\n){2}")

# Up to this many bytes a stream is fed byte by byte, too; the cost is the calls.
EACH_BYTE = 300


class Dice:
    """Bytes of the fuzzer, taken as choices from the front; what is left is the payload."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def byte(self) -> int:
        """0 when there is none left: so seeds may be short."""
        first, self.rest = self.rest[:1], self.rest[1:]
        return first[0] if first else 0

    def pick(self, options: Sequence[_T]) -> _T:
        return options[self.byte() % len(options)]

    def texts(self, count: int) -> list[str]:
        """So many texts, parted by 0x1E; what is no UTF-8 becomes lone surrogates."""
        found = self.rest.split(b"\x1e", count - 1)
        found += [b""] * (count - len(found))
        return [each.decode("utf-8", "surrogateescape") for each in found]


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """Some ways to feed this data, the same ones each time: in two; and byte by byte, at random, an event a read, or
    where things end, whichever its checksum says, since each costs as much as the rest of a target."""
    number, size = zlib.crc32(data), len(data)
    if size < 2:
        return
    chance = random.Random(number)
    yield pieces(data, [chance.randrange(1, size)])
    if number % 4 == 0 and size <= EACH_BYTE:
        yield with_empties(each_byte(data))
    elif number % 4 == 1:
        yield with_empties(pieces(data, [chance.randrange(1, size) for _ in range(8)]))
    elif number % 4 == 2:
        yield pieces(data, [found.end() for found in _BLANK_LINE.finditer(data)])
    else:
        # Cuts at the bytes by which things end, where state is kept between reads.
        ends = [position for position in range(1, size) if data[position - 1] in b"\r\n{}:"]
        yield pieces(data, chance.sample(ends, min(len(ends), 12)))
