"""The oracle for the handshakes of tunnels: all that a proxy says, whole, in; what it comes to out.

As `whole_reader`: stdlib only, every rule the most naive way. A verdict is ("opened", what follows), ("refused", the
code), or ("failed",); the proxy closes when it has said all.
"""

from __future__ import annotations

import re

Verdict = tuple[object, ...]

FAILED: Verdict = ("failed",)
STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?: |$)")  # RFC 9112 sections 2.3 and 4


def read_connect(said: bytes) -> Verdict:
    """RFC 9110 section 9.3.6: heads of 1xx, then one that decides."""
    lines = said.split(b"\n")
    ended = [line.removesuffix(b"\r") for line in lines[:-1]]
    position = 0
    while position < len(ended):
        line = STATUS_LINE.match(ended[position])
        if line is None or b"" not in ended[position:]:
            return FAILED
        position = ended.index(b"", position) + 1
        status = int(line[1])
        if 200 <= status < 300:
            return "opened", b"\n".join(lines[position:])
        if not 100 <= status < 200:
            return "refused", status
    return FAILED


def read_socks5(said: bytes, with_user: bool) -> Verdict:
    """RFC 1928 and RFC 1929; in answer to user and password 5 passes for a version, too."""
    if said[:2] == b"\x05\x02" and with_user:
        if len(said) < 4 or said[2] not in (1, 5) or said[3] != 0:
            return FAILED
        said = said[4:]
    elif said[:2] == b"\x05\x00":
        said = said[2:]
    else:
        return FAILED
    if len(said) < 2 or said[0] != 5:
        return FAILED
    if said[1] != 0:
        return "refused", said[1]
    lengths = {1: 10, 4: 22, 3: 7 + (said[4] if len(said) > 4 else 0)}
    length = lengths.get(said[3], 0) if len(said) > 3 else 0
    return ("opened", said[length:]) if 0 < length <= len(said) else FAILED
