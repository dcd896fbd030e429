#!/usr/bin/env python3
# dmg-images.py OUT RAW [KEY=VALUE...]: RAW as a disk image of Apple (UDIF), written from the format's description.
# codec=zlib|bzip2|adc|lzfse|lzma|raw|mixed, run=SECTORS, parts=N (tables), fork=1 (a resource fork, no property
# list), gap=1 (one run is missing), twice=1 (one is there twice); koly.FIELD=N, mish.FIELD=N, run.N.FIELD=N change numbers,
# sums=0: no checksums, sum.TABLE=N: another one; damage=N: another byte there.
import base64
import bz2
import lzma
import struct
import sys
import zlib


def adc(data):
    out, i, lit = bytearray(), 0, bytearray()
    last = {}

    def flush():
        for j in range(0, len(lit), 128):
            part = lit[j:j + 128]
            out.append(0x80 | len(part) - 1)
            out.extend(part)
        lit.clear()
    while i < len(data):
        at = last.get(data[i:i + 4], -1)
        last[data[i:i + 4]] = i
        d = i - at
        n = 0
        if at >= 0 and d <= 65536:
            while n < 67 and i + n < len(data) and data[at + n] == data[i + n]:
                n += 1
        if n >= 4:
            flush()
            if n <= 18 and d <= 1024:
                out += bytes([n - 3 << 2 | d - 1 >> 8, d - 1 & 255])
            else:
                out += bytes([0x40 | n - 4, d - 1 >> 8, d - 1 & 255])
            i += n
        else:
            lit.append(data[i])
            i += 1
    flush()
    return bytes(out)


def lzvn(data):
    """Literals and matches, each operation by itself; all three kinds of distance."""
    out, i, lit, prev = bytearray(), 0, bytearray(), 0
    last = {}

    def flush():
        for j in range(0, len(lit), 271):
            part = lit[j:j + 271]
            out.extend(bytes([0xe0 | len(part)]) if len(part) < 16 else bytes([0xe0, len(part) - 16]))
            out.extend(part)
        lit.clear()
    while i < len(data):
        at = last.get(data[i:i + 4], -1)
        last[data[i:i + 4]] = i
        d, n = i - at, 0
        if at >= 0 and d <= 65535:
            while n < 271 and i + n < len(data) and data[at + n] == data[i + n]:
                n += 1
        if n < 4:
            lit.append(data[i])
            i += 1
            continue
        flush()
        i += n
        if d == prev:
            out.extend(bytes([0xf0 | n]) if n < 16 else bytes([0xf0, n - 16]))
            continue
        first = min(n, 10 if d < 1536 or d >= 16384 else 34)
        if d < 1536:
            out += bytes([first - 3 << 3 | d >> 8, d & 255])
        elif d < 16384:
            m = first - 3
            out += bytes([0xa0 | m >> 2, d << 2 & 255 | m & 3, d >> 6])
        else:
            out += bytes([first - 3 << 3 | 7, d & 255, d >> 8])
        prev, n = d, n - first
        if n:
            out.extend(bytes([0xf0 | n]) if n < 16 else bytes([0xf0, n - 16]))
    flush()
    return bytes(out) + b"\6" + bytes(7)


def fse_table(freq, states):
    """For each symbol its states, and for each state (k, delta), as decoders have them."""
    out, start = [], 0
    for f in freq:
        rows = []
        if f:
            k = states.bit_length() - f.bit_length()
            j0 = (2 * states >> k) - f
            for j in range(f):
                rows.append((start, k, (f + j << k) - states) if j < j0 else (start, k - 1, j - j0 << k - 1))
                start += 1
        out.append(rows)
    return out


def fse_state(table, symbol, after):
    """The state that gives `symbol` and can be followed by state `after`: (state, bits, number of bits)."""
    for state, k, delta in table[symbol]:
        if delta <= after < delta + (1 << k):
            return state, after - delta, k
    raise ValueError


def normal(counts, states):
    total = sum(counts)
    if not total:
        return [states] + [0] * (len(counts) - 1)
    f = [max(1, c * states // total) if c else 0 for c in counts]
    while sum(f) != states:
        i = max(range(len(f)), key=lambda x: f[x])
        f[i] += max(-(f[i] // 2), states - sum(f)) if sum(f) > states else states - sum(f)
    return f


class Bits:
    """What a reader takes from the top is put in from the other end: last read, first put."""
    def __init__(self):
        self.v = self.n = 0

    def put(self, v, n):
        self.v |= v << self.n
        self.n += n

    def done(self):
        size = (self.n + 7) // 8
        return self.v.to_bytes(size, "little"), self.n - size * 8


def value_symbol(v, extra):
    base, s = 0, 0
    while v >= base + (1 << extra[s]):
        base += 1 << extra[s]
        s += 1
    return s, v - base, extra[s]


L_EXTRA = [0] * 16 + [2, 3, 5, 8]
M_EXTRA = [0] * 16 + [3, 5, 8, 11]
D_EXTRA = [i // 4 for i in range(64)]


def fse_block(data, version):
    """One block: at most 30,000 bytes."""
    trips, lits, i, start, last, prev = [], bytearray(), 0, 0, {}, 0
    while i < len(data):
        at = last.get(data[i:i + 4], -1)
        last[data[i:i + 4]] = i
        n = 0
        if at >= 0:
            while n < 2359 and i + n < len(data) and data[at + n] == data[i + n]:
                n += 1
        if n >= 4:
            run = data[start:i]
            while len(run) > 315:
                trips.append((315, 0, 0 if prev else 1))
                prev = prev or 1
                run = run[315:]
            trips.append((len(run), n, 0 if i - at == prev else i - at))
            prev = i - at
            lits += data[start:i]
            i += n
            start = i
        else:
            i += 1
    run = data[start:]
    lits += run
    while run:
        trips.append((min(315, len(run)), 0, 0 if prev else 1))
        prev = prev or 1
        run = run[315:]
    lits += bytes(-len(lits) % 4)
    syms = [(value_symbol(a, L_EXTRA), value_symbol(b, M_EXTRA), value_symbol(c, D_EXTRA)) for a, b, c in trips]

    def count(values, n):
        c = [0] * n
        for x in values:
            c[x] += 1
        return c
    lf, mf, df = (normal(count([s[k][0] for s in syms], n), st) for k, n, st in ((0, 20, 64), (1, 20, 64), (2, 64, 256)))
    cf = normal(count(lits, 256), 1024)
    lt, mt, dt, ct = fse_table(lf, 64), fse_table(mf, 64), fse_table(df, 256), fse_table(cf, 1024)
    b, state = Bits(), [0, 0, 0, 0]
    for j in range(len(lits) - 1, -1, -1):
        state[j % 4], bits, k = fse_state(ct, lits[j], state[j % 4])
        b.put(bits, k)
    lit_data, lit_bits = b.done()
    b, ls, ms, ds = Bits(), 0, 0, 0
    for sl, sm, sd in reversed(syms):
        b.put(sd[1], sd[2])
        ds, bits, k = fse_state(dt, sd[0], ds)
        b.put(bits, k)
        b.put(sm[1], sm[2])
        ms, bits, k = fse_state(mt, sm[0], ms)
        b.put(bits, k)
        b.put(sl[1], sl[2])
        ls, bits, k = fse_state(lt, sl[0], ls)
        b.put(bits, k)
    lmd_data, lmd_bits = b.done()
    payload = lit_data + lmd_data
    freqs = lf + mf + df + cf
    if version == 1:
        h = struct.pack("<4s7I", b"bvx1", len(data), len(payload), len(lits), len(trips), len(lit_data), len(lmd_data), lit_bits & 0xffffffff)
        h += struct.pack("<4Hi3H", *state, lmd_bits, ls, ms, ds) + struct.pack("<360H", *freqs)
        return h.ljust(772, b"\0") + payload
    codes = {0: (0, 2), 1: (2, 2), 2: (1, 3), 3: (5, 3), 4: (3, 5), 5: (11, 5), 6: (19, 5), 7: (27, 5)}
    v = n = 0
    for f in freqs:
        code, size = codes[f] if f < 8 else (7 | f - 8 << 4, 8) if f < 24 else (15 | f - 24 << 4, 14)
        v |= code << n
        n += size
    packed = v.to_bytes((n + 7) // 8, "little")
    f0 = len(lits) | len(lit_data) << 20 | len(trips) << 40 | lit_bits + 7 << 60
    f1 = sum(s << 10 * k for k, s in enumerate(state)) | len(lmd_data) << 40 | lmd_bits + 7 << 60
    f2 = 32 + len(packed) | ls << 32 | ms << 42 | ds << 52
    return struct.pack("<4sI3Q", b"bvx2", len(data), f0, f1, f2) + packed + payload


def lzfse(data):
    out, kinds = b"", 0
    for i in range(0, len(data), 30000):
        part = data[i:i + 30000]
        kinds += 1
        if kinds % 4 == 3:
            p = lzvn(part)
            out += struct.pack("<4sII", b"bvxn", len(part), len(p)) + p
        elif kinds % 4 == 0:
            out += struct.pack("<4sI", b"bvx-", len(part)) + part
        else:
            out += fse_block(part, 2 - kinds // 8 % 2)
    return out + b"bvx$"


PACK = {
    "raw": (1, lambda d: d),
    "adc": (0x80000004, adc),
    "zlib": (0x80000005, zlib.compress),
    "bzip2": (0x80000006, bz2.compress),
    "lzfse": (0x80000007, lzfse),
    "lzma": (0x80000008, lzma.compress),
}


def main():
    o = dict(a.split("=", 1) for a in sys.argv[3:])
    with open(sys.argv[2], "rb") as f:
        data = f.read()
    data = data.ljust((len(data) + 511) // 512 * 512, b"\0")
    size = int(o.get("run", 512)) * 512
    runs, blob = [], b"PADDING." * int(o.get("pad", 0))
    for n, i in enumerate(range(0, len(data), size)):
        part = data[i:i + size]
        codec = o.get("codec", "zlib")
        codec = sorted(PACK)[n % len(PACK)] if codec == "mixed" else codec
        if not any(part):
            runs.append([n % 2 * 2, i // 512, len(part) // 512, len(blob), 0])
            continue
        kind, pack = PACK[codec]
        p = pack(part)
        runs.append([kind, i // 512, len(part) // 512, len(blob), len(p)])
        blob += p
    for k, v in o.items():
        if k.startswith("run.") :
            _, n, what = k.split(".")
            runs[int(n)][["type", "first", "sectors", "off", "len"].index(what)] = int(v, 0)
    if "gap" in o:
        del runs[len(runs) // 2]
    if "twice" in o:
        runs.append(runs[0])
    parts, tables = int(o.get("parts", 1)), []
    kind_of = int(o.get("sums", 2))
    sums = b""
    for k in range(parts):
        mine = runs[k * len(runs) // parts:(k + 1) * len(runs) // parts]
        first = mine[0][1]
        m = {"first": first, "sectors": sum(r[2] for r in mine), "data": 0, "n": len(mine) + 2}
        m.update({x[5:]: int(v, 0) for x, v in o.items() if x.startswith("mish.")})
        t = struct.pack(">4sIQQQII", b"mish", 1, m["first"], m["sectors"], m["data"], 520, k) + bytes(24)
        crc = 0
        for r in mine:  # free ones do not count
            if r[0] != 2:
                crc = zlib.crc32(data[r[1] * 512:(r[1] + r[2]) * 512], crc)
        sums += struct.pack(">I", crc)
        t += struct.pack(">IIII", kind_of, 32, int(o.get("sum.%d" % k, crc)), 0) + bytes(120) + struct.pack(">I", m["n"])
        t += struct.pack(">II4Q", 0x7ffffffe, 0x2b626567, 0, 0, 0, 0)
        for kind, at, n, off, ln in mine:
            t += struct.pack(">II4Q", kind, 0, at - first & 2**64 - 1, n, off, ln)
        end = mine[-1]
        t += struct.pack(">II4Q", 0xffffffff, 0, end[1] + end[2] - first & 2**64 - 1, 0, len(blob), 0)
        tables.append(t)
    xml = fork = b""
    if "fork" in o:
        places, body = [], b""
        for t in tables:
            places.append(len(body))
            body += struct.pack(">I", len(t)) + t
        refs = b"".join(struct.pack(">HHII", i, 0xffff, p | 0x50000000, 0) for i, p in enumerate(places))
        types = struct.pack(">H", 1) + struct.pack(">4sHH", b"plst", 0, 18 + len(refs)) + struct.pack(">4sHH", b"blkx", len(places) - 1, 18)
        other = struct.pack(">HHII", 0, 0xffff, 0, 0)
        rmap = bytes(24) + struct.pack(">HH", 28, 28 + len(types) + len(refs) + len(other)) + types + refs + other
        fork = struct.pack(">4I", 256, 256 + len(body), len(body), len(rmap)).ljust(256, b"\0") + body + rmap
    else:
        x = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE plist PUBLIC "-//Apple Computer//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
        x += o.get("doctype", "") + '<plist version="1.0">\n<dict>\n\t<key>resource-fork</key>\n\t<dict>\n\t\t<key>blkx</key>\n\t\t<array>\n'
        for i, t in enumerate(tables):
            b = base64.encodebytes(t).decode().replace("\n", "\n\t\t\t\t")
            x += "\t\t\t<dict>\n\t\t\t\t<key>Attributes</key>\n\t\t\t\t<string>0x0050</string>\n\t\t\t\t<key>CFName</key>\n\t\t\t\t<string>whole disk (Apple_HFS : %d)</string>\n" % i
            x += "\t\t\t\t<key>Data</key>\n\t\t\t\t<data>\n\t\t\t\t%s</data>\n\t\t\t\t<key>ID</key>\n\t\t\t\t<string>%d</string>\n" % (b, i)
            x += "\t\t\t\t<key>Name</key>\n\t\t\t\t<string>whole disk (Apple_HFS : %d)</string>\n\t\t\t</dict>\n" % i
        x += "\t\t</array>\n\t\t<key>plst</key>\n\t\t<array>\n\t\t\t<dict>\n\t\t\t\t<key>Data</key>\n\t\t\t\t<data>AAAA</data>\n\t\t\t</dict>\n\t\t</array>\n\t</dict>\n</dict>\n</plist>\n"
        xml = x.encode()
    at = len(blob)
    k = {"data_off": 0, "data_len": at, "fork_off": at if fork else 0, "fork_len": len(fork), "segments": 1,
         "xml_off": at if xml else 0, "xml_len": len(xml), "sectors": len(data) // 512}
    k.update({x[5:]: int(v, 0) for x, v in o.items() if x.startswith("koly.")})
    koly = struct.pack(">4s3I5Q2I", b"koly", 4, 512, 1, 0, k["data_off"], k["data_len"], k["fork_off"], k["fork_len"], 1, k["segments"])
    koly += bytes(16) + struct.pack(">III", kind_of, 32, zlib.crc32(blob[k["data_off"]:])) + bytes(124) + struct.pack(">QQ", k["xml_off"], k["xml_len"]) + bytes(120)
    koly += struct.pack(">III", kind_of, 32, zlib.crc32(sums)) + bytes(124) + struct.pack(">IQ", 1, k["sectors"])
    if "damage" in o:  # a byte of the data, behind all checksums
        n = int(o["damage"])
        blob = blob[:n] + bytes([blob[n] ^ 1]) + blob[n + 1:]
    with open(sys.argv[1], "wb") as f:
        f.write(blob + xml + fork + koly.ljust(512, b"\0"))


main()
