#!/usr/bin/env python3
"""vhd-images.py - VDI, VHD and VHDX images that no packaged program writes, for the tests, from the formats'
specifications:   vhd-images.py FORMAT FILE KEY=VALUE..."""
import struct
import sys
import uuid


def options(args):
    o = {}
    for a in args:
        k, v = a.split("=", 1)
        o[k] = v
    return o


def num(o, key, usual):
    return int(str(o.get(key, usual)), 0)


def guid(o, key):
    n = num(o, key, 0)
    return bytes([n]) * 16 if n else bytes(16)


def disk_of(o):
    if "data" in o:
        with open(o["data"], "rb") as f:
            return f.read()
    return None


def pad(b, n):
    return b + bytes(-len(b) % n)


# ---- VDI ----
def vdi(path, o):
    data = disk_of(o)
    block = num(o, "block", 1 << 20)
    extra = num(o, "extra", 0)
    size = num(o, "size", len(data) if data is not None else 0)
    version = num(o, "version", 1)
    minor = num(o, "minor", 1)
    kind = num(o, "type", 1)
    n = -(-size // block)
    table, blocks = [], []
    for i in range(n):
        own = o.get("block%d" % i)
        piece = pad(data[i * block:(i + 1) * block], block) if data is not None else None
        if own == "zero":
            table.append(0xfffffffe)
        elif own:
            table.append(len(blocks))
            blocks.append(bytes(extra) + own.encode() * (block // len(own)))
        elif piece is None or not any(piece):
            table.append(0xffffffff)
        else:
            table.append(len(blocks))
            blocks.append(bytes(extra) + piece)
    for k in o:
        if k.startswith("entry"):
            table[int(k[5:])] = num(o, k, 0)
    raw_block = num(o, "raw_block", block)
    raw_blocks = num(o, "raw_blocks", n)
    raw_size = num(o, "raw_size", size)
    head = o.get("text", "<<< hand made >>>\n").encode().ljust(64, b"\0")
    head += struct.pack("<IHH", 0xbeda107f, minor, version)
    geo = struct.pack("<4I", 0, 0, 0, 512)
    table = struct.pack("<%dI" % n, *table)
    ids = guid(o, "create") + guid(o, "modify") + guid(o, "parent")
    if version == 0:
        head += struct.pack("<2I", kind, 0) + bytes(256) + geo
        head += struct.pack("<Q3I", raw_size, raw_block, raw_blocks, len(blocks)) + ids
        assert len(head) == 420
        head += table
    else:
        map_off = 512
        data_off = num(o, "data_off", (map_off + len(table) + 511) // 512 * 512)
        head += struct.pack("<3I", 400 if minor else 384, kind, 0) + bytes(256)
        head += struct.pack("<2I", map_off, data_off) + geo + bytes(4)
        head += struct.pack("<Q4I", raw_size, raw_block, extra, raw_blocks, len(blocks)) + ids
        head += guid(o, "pmodify")
        if minor:
            head += geo
        head = head.ljust(512, b"\0") + table
        head = head.ljust(data_off, b"\0")
    with open(path, "wb") as f:
        f.write(head + b"".join(blocks))


# ---- VHD ----
def vhd_sum(b, at):
    return ~(sum(b) - sum(b[at:at + 4])) & 0xffffffff


def vhd_footer(o, kind, size, header_off):
    chs = [int(x) for x in o.get("chs", "0,0,0").split(",")]
    f = b"conectix" + struct.pack(">IIQI", 2, 0x10000, header_off, num(o, "time", 1000))
    f += o.get("creator", "win ").encode().ljust(4, b"\0") + struct.pack(">I", 0x60001) + b"Wi2k"
    f += struct.pack(">QQHBBII", size, size, chs[0], chs[1], chs[2], kind, 0) + guid(o, "id")
    f = bytearray(f.ljust(512, b"\0"))
    f[64:68] = struct.pack(">I", vhd_sum(f, 64))
    return bytes(f)


def vhd(path, o):
    data = disk_of(o)
    size = num(o, "size", len(data) if data is not None else 0)
    kind = {"fixed": 2, "dynamic": 3, "diff": 4}.get(o.get("type", "dynamic"), 0) or num(o, "type", 3)
    if kind == 2:
        foot = vhd_footer(o, kind, num(o, "raw_size", size), 0xffffffffffffffff)
        with open(path, "wb") as f:
            f.write(data + foot[:num(o, "footer", 512)])
        return
    block = num(o, "block", 2 << 20)
    n = -(-size // block)
    foot = vhd_footer(o, kind, num(o, "raw_size", size), 512)
    locators, texts = [], b""
    text_off = 1536 + -(-4 * n // 512) * 512
    for code in ("W2ru", "W2ku", "MacX"):
        if code in o:
            t = o[code].encode("utf-8" if code == "MacX" else "utf-16-le")
            locators.append(code.encode() + struct.pack(">IIIQ", 512, len(t), 0, text_off + len(texts)))
            texts = pad(texts + t, 512)
    at = text_off + len(texts)
    bits_len = max(512, block // 4096)
    table, body = [], []
    for i in range(n):
        bits, piece = bytearray(bits_len), bytearray(block)
        there = False
        for s in range(block // 512):
            src = None
            if kind == 3 and data is not None:
                src = data[i * block + s * 512:i * block + (s + 1) * 512]
                src = src if any(src) else None
            own = o.get("sector%d" % (i * (block // 512) + s))
            if own:
                src = own.encode() * (512 // len(own))
            if src:
                there = True
                bits[s // 8] |= 0x80 >> (s % 8)
                piece[s * 512:s * 512 + len(src)] = src
            elif o.get("junk"):
                piece[s * 512:s * 512 + 512] = b"J" * 512
        if there:
            table.append(at // 512)
            body.append(bytes(bits) + bytes(piece))
            at += bits_len + block
        else:
            table.append(0xffffffff)
    for k in o:
        if k.startswith("entry"):
            table[int(k[5:])] = num(o, k, 0)
    h = b"cxsparse" + struct.pack(">QQIIII", 0xffffffffffffffff, num(o, "bat_off", 1536), 0x10000,
                                      num(o, "raw_blocks", n), num(o, "raw_block", block), 0)
    h += guid(o, "parent") + struct.pack(">II", num(o, "ptime", 1000), 0)
    h += o.get("name", "").encode("utf-16-be").ljust(512, b"\0")
    h += b"".join(locators).ljust(24 * 8, b"\0") + bytes(256)
    h = bytearray(h)
    h[36:40] = struct.pack(">I", vhd_sum(h, 36))
    assert len(h) == 1024
    if o.get("footer") == "damaged":
        end = bytes(512)
    elif o.get("footer") == "none":
        end = b""
    else:
        end = foot[:num(o, "footer", 512)]
    with open(path, "wb") as f:
        f.write(foot + bytes(h) + pad(struct.pack(">%dI" % n, *table), 512) + texts + b"".join(body) + end)


# ---- VHDX ----
MB = 1 << 20
CRC = []
for _i in range(256):
    _c = _i
    for _k in range(8):
        _c = _c >> 1 ^ (0x82f63b78 if _c & 1 else 0)
    CRC.append(_c)


def crc32c(b):
    c = 0xffffffff
    for x in b:
        c = c >> 8 ^ CRC[(c ^ x) & 255]
    return c ^ 0xffffffff


def sealed(b):
    """With the checksum of all at byte 4."""
    b = bytearray(b)
    b[4:8] = bytes(4)
    b[4:8] = struct.pack("<I", crc32c(b))
    return bytes(b)


def text_id(s):
    p = s.split("-")
    return b"".join(bytes.fromhex(x)[::-1] for x in p[:3]) + bytes.fromhex(p[3] + p[4])


BAT = text_id("2dc27766-f623-4200-9d64-115e9bfd4a08")
META = text_id("8b7ca206-4790-4b9a-b8fe-575f050f886e")
PARAMS = text_id("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
SIZE = text_id("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
DISK = text_id("beca12ab-b2e6-4523-93ef-c309e000c746")
SECTOR = text_id("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL = text_id("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT = text_id("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
LOCATOR = text_id("b04aefb7-d19e-4a81-b789-25b8e9445913")


def locator(o):
    keys = [("parent_linkage", "{%s}" % str(uuid.UUID(bytes_le=guid(o, "parent"))))]
    keys += [(k, o[k]) for k in ("relative_path", "absolute_win32_path", "volume_path") if k in o]
    head = LOCATOR + struct.pack("<HH", 0, len(keys))
    at, body = 20 + 12 * len(keys), b""
    for k, v in keys:
        k, v = k.encode("utf-16-le"), v.encode("utf-16-le")
        head += struct.pack("<IIHH", at + len(body), at + len(body) + len(k), len(k), len(v))
        body += k + v
    return head + body


def log_entry(o, at, seq, tail, writes, length):
    """writes: (offset, 4096 bytes) or (offset, count of zero bytes)."""
    desc, data = b"", b""
    for off, what in writes:
        if isinstance(what, int):
            desc += b"zero" + struct.pack("<IQQQ", 0, what, off, seq)
        else:
            desc += b"desc" + what[-4:] + what[:8] + struct.pack("<QQ", off, seq)
            data += b"data" + struct.pack("<I", seq >> 32) + what[8:-4] + struct.pack("<I", seq & 0xffffffff)
    n = 64 + len(desc)
    total = -(-n // 4096) * 4096 + len(data)
    head = b"loge" + struct.pack("<IIIQII", 0, total, tail, seq, len(writes), 0) + guid(o, "log")
    head += struct.pack("<QQ", num(o, "flushed", length), num(o, "last", length))
    return sealed(pad(head + desc, 4096) + data)


def vhdx(path, o):
    data = disk_of(o)
    size = num(o, "size", len(data) if data is not None else 0)
    block, sector = num(o, "block", MB), num(o, "sector", 512)
    diff = "parent" in o
    ratio = (1 << 23) * sector // block
    n = -(-size // block)
    chunks = -(-n // ratio) if n else 0
    entries = chunks * (ratio + 1) if diff else n + max(0, chunks - 1)
    log_at, meta_at, bat_at = MB, 2 * MB, 3 * MB
    bat_len = max(1, -(-entries * 8 // MB)) * MB
    end = bat_at + bat_len
    bat = [0] * entries
    parts = {}
    bitmap = {}
    for i in range(n):
        own = {k: v for k, v in o.items() if k.startswith("sector") and k != "sector" and
               int(k[6:]) * sector // block == i}
        piece = pad(data[i * block:(i + 1) * block], block) if data is not None else bytes(block)
        if o.get("block%d" % i) == "zero":
            bat[i + i // ratio] = 2
        elif own or any(piece):
            piece = bytearray(piece)
            for k, v in own.items():
                at = int(k[6:]) * sector - i * block
                piece[at:at + sector] = v.encode() * (sector // len(v))
                bit = int(k[6:]) - i // ratio * (1 << 23)
                bitmap.setdefault(i // ratio, set()).add(bit)
            bat[i + i // ratio] = end | (7 if own else 6)
            parts[end] = bytes(piece)
            end += block
    for c, bits in bitmap.items():
        b = bytearray(MB)
        for bit in bits:
            b[bit // 8] |= 1 << bit % 8
        bat[(c + 1) * (ratio + 1) - 1] = end | 6
        parts[end] = bytes(b)
        end += MB
    for k in o:
        if k.startswith("entry"):
            bat[int(k[5:])] = num(o, k, 0)
    items = [(PARAMS, 4, struct.pack("<II", num(o, "raw_block", block), 2 if diff else 0)),
             (SIZE, 6, struct.pack("<Q", num(o, "raw_size", size))), (DISK, 6, guid(o, "disk")),
             (SECTOR, 6, struct.pack("<I", num(o, "raw_sector", sector))), (PHYSICAL, 6, struct.pack("<I", 4096))]
    if diff:
        items.append((PARENT, 4, locator(o)))
    if "item" in o:
        items.append((bytes([0x77]) * 16, num(o, "item", 4), b"????"))
    table, body = b"metadata" + struct.pack("<HH", 0, len(items)) + bytes(20), b""
    for g, flags, value in items:
        table += g + struct.pack("<IIII", 65536 + len(body), len(value), flags, 0)
        body += value
    parts[meta_at] = table.ljust(65536, b"\0") + body
    image = bytearray(end)
    bat = struct.pack("<%dQ" % entries, *bat)
    if "log" in o:
        # The table stands in the log only; older entries before it, and one that is torn behind it.
        pages = [(bat_at + i, pad(bat[i:i + 4096], 4096)) for i in range(0, len(bat), 4096)]
        first = log_entry(o, 0, 5, 0, [(bat_at, bytes([9]) * 4096), (bat_at + 4096, 8192)], end)
        second = log_entry(o, len(first), 6, 0, pages, end)
        third = bytearray(log_entry(o, 0, 7, 0, [(bat_at, bytes([8]) * 4096)], end))
        third[5000] ^= 1
        log = first + second + bytes(third)
        if o.get("ring"):
            turn = len(first) + 4096
            first = log_entry(o, 0, 5, MB - turn, [(bat_at, bytes([9]) * 4096)], end)
            turn = len(first) + 4096
            first = log_entry(o, 0, 5, MB - turn, [(bat_at, bytes([9]) * 4096)], end)
            log = first + log_entry(o, 0, 6, MB - turn, pages, end)
            log = log[turn:].ljust(MB - turn, b"\0") + log[:turn]
        parts[log_at] = log
    else:
        parts[bat_at] = bat
    regions = [(BAT, bat_at, num(o, "raw_bat_len", bat_len), 1), (META, num(o, "raw_meta", meta_at), MB, 1)]
    if "region" in o:
        regions.append((bytes([0x66]) * 16, end, MB, num(o, "region", 1)))
    table = b"regi" + struct.pack("<III", 0, len(regions), 0)
    for g, off, length, req in regions:
        table += g + struct.pack("<QII", off, length, req)
    table = sealed(table.ljust(65536, b"\0"))
    for off, k in ((192 << 10, "regions1"), (256 << 10, "regions2")):
        parts[off] = table if k not in o else b"regi" + bytes(65532)
    for slot, off in ((1, 64 << 10), (2, 128 << 10)):
        h = b"head" + struct.pack("<IQ", 0, num(o, "seq%d" % slot, slot)) + guid(o, "file") + guid(o, "id")
        h += guid(o, "log") + struct.pack("<HHIQ", 0, num(o, "version", 1), num(o, "log_len", MB), log_at)
        h = sealed(h.ljust(4096, b"\0"))
        parts[off] = h if "header%d" % slot not in o else b"head" + bytes(4092)
    parts[0] = b"vhdxfile" + "hand made".encode("utf-16-le")
    for off, b in parts.items():
        image[off:off + len(b)] = b
    with open(path, "wb") as f:
        f.write(image[:num(o, "cut", len(image))])


if __name__ == "__main__":
    {"vdi": vdi, "vhd": vhd, "vhdx": vhdx}[sys.argv[1]](sys.argv[2], options(sys.argv[3:]))
