#!/usr/bin/env python3
"""old-images.py - Parallels, Bochs and cloop images that no packaged program writes, for the tests, from the formats'
descriptions:   old-images.py FORMAT FILE RAW KEY=VALUE..."""
import struct
import sys
import zlib


def parallels(f, data, o):
    block = o.get("block", 2048)
    ext = o.get("magic", 2) == 2
    size = block * 512
    n = (len(data) + size - 1) // size
    start = (64 + n * 4 + size - 1) // size * size
    bat, out = [], b""
    for i in range(n):
        part = data[i * size:(i + 1) * size].ljust(size, b"\0")
        if part == bytes(size) and i != 3:
            bat.append(0)
            continue
        bat.append((start + len(out)) // (size if ext else 512))
        out += part
    bat = [o.get("bat%d" % i, e) for i, e in enumerate(bat)]
    h = struct.pack("<16s5IQIIIQ", b"WithouFreSpacExt" if ext else b"WithoutFreeSpace", 2, 16, 100,
                    o.get("rawblock", block), o.get("n", n), o.get("sectors", len(data) // 512), o.get("inuse", 0),
                    start // 512, 0, o.get("ext", 0))
    h += struct.pack("<%dI" % n, *bat)
    return h.ljust(start, b"\0") + out + bytes(o.get("tail", 0))


def bochs(f, data, o):
    extent = 65536
    n = (len(data) + extent - 1) // extent
    n = (n + 127) // 128 * 128 + o.get("odd", 0)
    base = open(o["base"], "rb").read() if "base" in o else bytes(len(data))
    catalog, out = [], b""
    for i in range(n):
        bits, body, used = bytearray(512), b"", False
        for s in range(extent // 512):
            at = i * extent + s * 512
            sector = data[at:at + 512].ljust(512, b"\0")
            if sector != base[at:at + 512].ljust(512, b"\0"):
                bits[s // 8] |= 1 << s % 8
                used = True
                body += sector
            else:
                body += bytes(512)
        catalog.append(len(out) // (512 + extent) if used else 0xffffffff)
        if used:
            out += bytes(bits) + body
    catalog = [o.get("entry%d" % i, e) for i, e in enumerate(catalog)]
    version = o.get("version", 0x20000)
    h = struct.pack("<32s16s16s5I", b"Bochs Virtual HD Image", b"Redolog", o.get("subtype", "Growing").encode(), version,
                    512, o.get("n", n), o.get("bitmap", 512), o.get("extent", extent))
    h += struct.pack("<Q" if version == 0x10000 else "<IQ", *([] if version == 0x10000 else [0]), o.get("size", len(data)))
    return h.ljust(512, b"\0") + struct.pack("<%dI" % n, *catalog) + out


def cloop(f, data, o):
    block = 65536
    n = (len(data) + block - 1) // block
    parts = [zlib.compress(data[i * block:(i + 1) * block].ljust(block, b"\0")) for i in range(n)]
    index = [136 + (n + 1) * 8]
    for p in parts:
        index.append(index[-1] + len(p))
    index = [o.get("index%d" % i, e) for i, e in enumerate(index)]
    text = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    h = text.ljust(128, b"\0") + struct.pack(">II", o.get("block", block), o.get("n", n))
    return h + struct.pack(">%dQ" % (n + 1), *index) + b"".join(parts)


opts = {}
for a in sys.argv[4:]:
    k, v = a.split("=")
    opts[k] = v if k in ("base", "subtype") else int(v, 0)
with open(sys.argv[3], "rb") as r:
    raw = r.read()
blob = {"parallels": parallels, "bochs": bochs, "cloop": cloop}[sys.argv[1]](sys.argv[2], raw, opts)
with open(sys.argv[2], "wb") as w:
    w.write(blob)
