#!/usr/bin/env python3
"""qcow2-damage.py: damages a qcow2 image, and tells check results in one form.

qcow2-damage.py poke IMAGE SEED [N]    changes N entries of its tables (not the header) at random
qcow2-damage.py pokes IMAGE N SEED...  the same in copies IMAGE.SEED, one for each seed
qcow2-damage.py counts IMAGE...        what "qemu-img check" says, as imgtool's check prints it
"""
import json
import random
import shutil
import struct
import subprocess
import sys

OFFSET = 0x00fffffffffffe00


def be64(f, off):
    return numbers(f, off, 1)[0]


def numbers(f, off, n):
    f.seek(off)
    return struct.unpack('>%dQ' % n, f.read(8 * n).ljust(8 * n, b'\0'))


def tables(f):
    """Places of entries: (offset, what)."""
    f.seek(0)
    h = f.read(104)
    bits, = struct.unpack_from('>I', h, 20)
    l1_n, l1 = struct.unpack_from('>IQ', h, 36)
    rt, rt_c = struct.unpack_from('>QI', h, 48)
    size = 1 << bits
    places = []
    for i, e in enumerate(numbers(f, l1, l1_n)):
        places.append((l1 + 8 * i, 'l1'))
        for k, v in enumerate(numbers(f, e & OFFSET, size // 8) if e else ()):
            if v:
                places.append(((e & OFFSET) + 8 * k, 'l2'))
    for i, e in enumerate(numbers(f, rt, rt_c * size // 8)):
        if e:
            places.append((rt + 8 * i, 'rt'))
            for k, v in enumerate(numbers(f, e, size // 8)):
                if v:
                    places.append((e + 8 * k, 'rc'))
    return places, size


def poke(path, seed, n):
    rng = random.Random(seed)
    with open(path, 'r+b') as f:
        places, size = tables(f)
        kinds = sorted({p[1] for p in places} - {'rt'})
        f.seek(0, 2)
        end = f.tell()
        for _ in range(n):
            kind = rng.choice(kinds)
            off = rng.choice([p[0] for p in places if p[1] == kind])
            old = be64(f, off)
            if kind == 'rc':
                new = rng.choice([0, old ^ 1 << rng.randrange(64), old + (1 << 48)])
            else:
                new = rng.choice([
                    0, old ^ 1 << 63, old ^ 1 << rng.randrange(9, 20), old & ~(1 << 63),
                    (1 << 63) | rng.randrange(end // size + 2) * size, old ^ 1,
                    old ^ 1 << rng.randrange(1, 9), (1 << 63) | size * rng.randrange(4)])
            f.seek(off)
            f.write(struct.pack('>Q', new & (1 << 64) - 1))


def counts(path):
    p = subprocess.run(['qemu-img', 'check', '-f', 'qcow2', '--output=json', path],
                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False)
    d = json.loads(p.stdout)
    print(d.get('corruptions', 0), d.get('leaks', 0), d.get('check-errors', 0),
          d.get('total-clusters', 0), d.get('allocated-clusters', 0),
          d.get('fragmented-clusters', 0), d.get('compressed-clusters', 0),
          d.get('image-end-offset', 0))


if sys.argv[1] == 'poke':
    poke(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 1)
elif sys.argv[1] == 'pokes':
    for one in sys.argv[4:]:
        shutil.copyfile(sys.argv[2], sys.argv[2] + '.' + one)
        poke(sys.argv[2] + '.' + one, int(one), int(sys.argv[3]))
else:
    for image in sys.argv[2:]:
        counts(image)
