#!/usr/bin/env python3
"""make-hive.py FILE LINE... - a small registry hive: each LINE is KEY\\PATH:NAME=VALUE (a number or text)."""
import struct, sys

root = {}
for line in sys.argv[2:]:
    path, _, rest = line.partition(":")
    name, _, value = rest.partition("=")
    node = root
    for part in path.split("\\"):
        node = node.setdefault(part, {})
    node.setdefault("", []).append((name, int(value) if value.isdigit() and name not in ("CurrentBuildNumber", "CurrentVersion") else value))

cells = bytearray(b"\0" * 32)  # the bin's head


def cell(data):
    data = bytes(data)
    size = (len(data) + 4 + 7) & ~7
    at = len(cells)
    cells.extend(struct.pack("<i", -size) + data.ljust(size - 4, b"\0"))
    return at


def hashed(name):
    v = 0
    for c in name.upper():
        v = (v * 37 + ord(c)) & 0xFFFFFFFF
    return v


def value(name, v):
    raw = struct.pack("<I", v) if isinstance(v, int) else (v + "\0").encode("utf-16le")
    kind = 4 if isinstance(v, int) else 1
    n = name.encode()
    if len(raw) <= 4:
        return cell(b"vk" + struct.pack("<HI", len(n), len(raw) | 0x80000000) + raw.ljust(4, b"\0") + struct.pack("<IHH", kind, 1, 0) + n)
    data = cell(raw)
    return cell(b"vk" + struct.pack("<HIIIHH", len(n), len(raw), data, kind, 1, 0) + n)


def node(name, d, flags):
    keys = sorted((k for k in d if k), key=str.upper)
    subs = [(node(k, d[k], 0x20), k) for k in keys]
    vals = [value(*v) for v in d.get("", [])]
    lst = cell(b"lh" + struct.pack("<H", len(subs)) + b"".join(struct.pack("<II", a, hashed(k)) for a, k in subs)) if subs else 0xFFFFFFFF
    vl = cell(b"".join(struct.pack("<I", v) for v in vals)) if vals else 0xFFFFFFFF
    n = name.encode()
    at = cell(b"nk" + struct.pack("<HQIIIIIIIIII", flags, 0, 0, 0, len(subs), 0, lst, 0xFFFFFFFF, len(vals), vl, 0xFFFFFFFF, 0xFFFFFFFF)
              + b"\0" * 20 + struct.pack("<HH", len(n), 0) + n)
    for a, _ in subs:
        struct.pack_into("<I", cells, a + 4 + 16, at)
    return at


top = node("ROOT", root, 0x2C)
size = (len(cells) + 4095) & ~4095
left = size - len(cells)
if left:
    cells.extend(struct.pack("<i", left).ljust(left, b"\0"))
struct.pack_into("<4sII", cells, 0, b"hbin", 0, size)
head = bytearray(4096)
struct.pack_into("<4sIIQIIIIII", head, 0, b"regf", 1, 1, 0, 1, 3, 0, 1, top, size)
struct.pack_into("<I", head, 44, 1)
x = 0
for i in range(0, 508, 4):
    x ^= struct.unpack_from("<I", head, i)[0]
struct.pack_into("<I", head, 508, x)
open(sys.argv[1], "wb").write(head + cells)
