"""What is done to bytes before they are sent."""

# Where two readers of HTTP or JSON are known to part ways.
TRICKS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\r\n ", b"\r\n\t", b"\0", b" ", b"\t", b"\x0b", b"\xff", b"\xc0\xaf",
    b"%2e%2e/", b"/../", b"/./", b"//", b"%2f", b"%5c", b"\\", b"%00", b"%25", b"%252e", b";x=1", b"#", b"?key=a",
    b"\r\nContent-Length: 0", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding:\x0bchunked",
    b"\r\nHost: evil.test", b"\r\nX-Api-Key: sk-other", b"\r\nAuthorization: Bearer sk-other", b"\r\nConnection: Authorization",
    b"\r\nUpgrade: h2c", b"\r\nExpect: 100-continue", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"HTTP/1.0", b"HTTP/2.0",
    b'"model":"gpt-4o",', b'"stream":true,', b"\\u0000", b"\\ud800", b"\xef\xbb\xbf", b"[" * 70, b"1e999", b"NaN", b"-1", b'{"a":',
    b"GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", b"http://evil.test", b"data: ", b"data: [DONE]\n\n",
]


def mutated(random, seed, others):
    """One to four changes to `seed`; `others` are what pieces are taken from."""
    data = bytearray(seed)
    for _ in range(random.randint(1, 4)):
        random.choice(_CHANGES)(random, data, others)
    return bytes(data)


def _at(random, data):
    # The beginning decides most, so it is changed most.
    return random.randint(0, min(len(data), random.choice((40, 200, len(data)))))


def _flip(random, data, _):
    if data:
        data[min(_at(random, data), len(data) - 1)] ^= 1 << random.randrange(8)


def _trick(random, data, _):
    at = _at(random, data)
    data[at:at] = random.choice(TRICKS)


def _replace(random, data, _):
    at = _at(random, data)
    trick = random.choice(TRICKS)
    data[at : at + len(trick)] = trick


def _repeat(random, data, _):
    at, length = _at(random, data), random.choice((1, 2, 8, 40, 200))
    data[at:at] = data[at : at + length] * random.choice((1, 1, 2, 50))


def _cut(random, data, _):
    at = _at(random, data)
    del data[at : at + random.choice((1, 2, 8, 40, len(data)))]


def _splice(random, data, others):
    other = random.choice(others)
    begin = random.randint(0, len(other))
    at = _at(random, data)
    data[at : at + random.choice((0, 20, len(data)))] = other[begin : begin + random.choice((20, 100, len(other)))]


def _line(random, data, _):
    """Doubles, moves or drops a line."""
    lines = bytes(data).split(b"\r\n")
    line = lines[random.randrange(len(lines))]
    if random.random() < 0.5 and len(lines) > 1:
        lines.remove(line)
    if random.random() < 0.7:
        lines.insert(random.randint(0, len(lines)), random.choice((line, line.upper(), line.replace(b": ", b" : "))))
    data[:] = b"\r\n".join(lines)


_CHANGES = [_flip, _flip, _trick, _trick, _replace, _repeat, _cut, _splice, _line]
