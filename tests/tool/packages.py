#!/usr/bin/env python3
"""packages.py - packages for the tests, from the formats' descriptions:
packages.py ova OUT DISK... [KEY=VALUE...]   packages.py xva OUT RAW...   packages.py vma OUT RAW..."""
import hashlib
import io
import os
import struct
import sys
import tarfile

args = [a for a in sys.argv[3:] if "=" not in a]
opts = dict(a.split("=", 1) for a in sys.argv[3:] if "=" in a)
kind, out = sys.argv[1:3]


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def ovf(disks):
    files = "".join('<File ovf:id="f%d" ovf:href="%s" ovf:size="%d"%s/>' % (
        i, opts.get("href", name), len(data), opts.get("fileattr", "").replace("%", '"'))
        for i, (name, data) in enumerate(disks))
    lines = "".join('<Disk ovf:diskId="d%d" ovf:fileRef="%s" ovf:capacity="%s" ovf:capacityAllocationUnits="%s" '
                    'ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>'
                    % (i, opts.get("ref", "f%d" % i), opts.get("capacity", "12"), opts.get("units", "byte * 2^20"))
                    for i in range(len(disks)))
    drives = "".join("<Item><rasd:HostResource>ovf:/disk/d%d</rasd:HostResource><rasd:InstanceID>%d</rasd:InstanceID>"
                     "<rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>" % (i, 10 + i)
                     for i in range(len(disks)))
    return ("""<?xml version="1.0"?>
%s<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
<References>%s</References><DiskSection><Info>disks</Info>%s</DiskSection>
<VirtualSystem ovf:id="vm"><Info>a machine</Info><Name>%s</Name>
<OperatingSystemSection ovf:id="96"><Info>os</Info><Description>Debian GNU/Linux</Description></OperatingSystemSection>
<VirtualHardwareSection><Info>hw</Info>
<Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
<Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>
<Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>AHCI</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
%s<vmw:Config vmw:key="firmware" vmw:value="efi"/></VirtualHardwareSection></VirtualSystem></Envelope>
""" % (opts.get("doctype", ""), files, lines, opts.get("name", "a machine"), drives)).encode()


def ova():
    disks = [(os.path.basename(a), open(a, "rb").read()) for a in args]
    text = ovf(disks)
    h = opts.get("hash", "SHA256")
    members = [("vm.ovf", text)] + disks
    mf = "" if h == "none" else "".join("%s(%s)= %s\n" % (h, n, hashlib.new(h, d).hexdigest()) for n, d in members)
    if "damage" in opts:
        n, d = members[1]
        members[1] = (n, d[:-3000] + bytes([d[-3000] ^ 1]) + d[-2999:])
    if "extra" in opts:
        mf += opts["extra"].replace("~", "=") + "\n"
    with tarfile.open(out, "w", format=int(opts.get("format", tarfile.USTAR_FORMAT))) as t:
        add(t, *members[0])
        if h != "none":
            add(t, "vm.mf", mf.encode())
        for m in members[1:]:
            add(t, *m)


def box():
    with tarfile.open(out, "w:gz") as t:
        add(t, "./metadata.json", b'{"provider":"libvirt","format":"qcow2","virtual_size":1}')
        add(t, "./Vagrantfile", b"Vagrant.configure('2') do |c| end\n")
        for a in args:
            add(t, "./" + os.path.basename(a), open(a, "rb").read())


def member(name, value):
    return "<member><name>%s</name><value>%s</value></member>" % (name, value)


def xstruct(**kw):
    return "<struct>%s</struct>" % "".join(member(k, v) for k, v in kw.items())


def xxh64(data):
    m = (1 << 64) - 1
    p = [11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261]
    rot = lambda v, n: ((v << n) | (v >> (64 - n))) & m
    rnd = lambda a, v: rot((a + v * p[1]) & m, 31) * p[0] & m
    n, at = len(data), 0
    if n >= 32:
        a = [(p[0] + p[1]) & m, p[1], 0, -p[0] & m]
        while at + 32 <= n:
            for i, v in enumerate(struct.unpack_from("<4Q", data, at)):
                a[i] = rnd(a[i], v)
            at += 32
        h = sum(rot(v, r) for v, r in zip(a, (1, 7, 12, 18))) & m
        for v in a:
            h = ((h ^ rnd(0, v)) * p[0] + p[3]) & m
    else:
        h = p[4]
    h = (h + n) & m
    while at + 8 <= n:
        h = (rot(h ^ rnd(0, struct.unpack_from("<Q", data, at)[0]), 27) * p[0] + p[3]) & m
        at += 8
    if at + 4 <= n:
        h = (rot(h ^ struct.unpack_from("<I", data, at)[0] * p[0] & m, 23) * p[1] + p[2]) & m
        at += 4
    for b in data[at:]:
        h = rot(h ^ b * p[4] & m, 11) * p[0] & m
    h = (h ^ h >> 33) * p[1] & m
    h = (h ^ h >> 29) * p[2] & m
    return "%016x" % (h ^ h >> 32)


def xva():
    disks = [open(a, "rb").read() for a in args]
    objects = xstruct(**{"class": "VM", "id": "Ref:0", "snapshot": xstruct(
        name_label="xen machine", memory_static_max="536870912", VCPUs_max="3",
        HVM_boot_params=xstruct(firmware="uefi"))})
    objects = "<value>%s</value>" % objects
    for i, d in enumerate(disks):
        objects += "<value>%s</value>" % xstruct(**{"class": "VDI", "id": "Ref:%d" % (i + 5), "snapshot": xstruct(
            virtual_size=opts.get("size", len(d)), name_label="disk")})
    xml = "<value>%s</value>" % xstruct(version="0", objects="<array><data>%s</data></array>" % objects)
    mib = 1 << 20
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as t:
        add(t, "ova.xml", xml.encode())
        for i, d in enumerate(disks):
            number, last = 0, (len(d) - 1) // mib
            for k in range(last + 1):
                block = d[k * mib:(k + 1) * mib]
                if not any(block) and 0 < k < last:
                    if k == 3 and "alive" in opts:  # an empty block takes a number and no room
                        add(t, "Ref:%d/%08d" % (i + 5, number), b"")
                        add(t, "Ref:%d/%08d.checksum" % (i + 5, number), hashlib.sha1(b"").hexdigest().encode())
                        number += 1
                    number += 1
                    continue
                name = "Ref:%d/%08d" % (i + 5, int(opts.get("number", number)))
                shown = block if "damage" not in opts or k else block[:-1] + b"!"
                add(t, name, shown)
                if "xx" in opts:
                    add(t, name + ".xxhash", xxh64(block).encode())
                else:
                    add(t, name + ".checksum", hashlib.sha1(block).hexdigest().encode())
                number += 1


def vma():
    disks = [open(a, "rb").read() for a in args]
    blobs, names, datas, devs = bytearray(b"\0"), [0] * 256, [0] * 256, [(0, 0)] * 256

    def blob(b):
        at = len(blobs)
        blobs.extend(struct.pack("<H", len(b)) + b)
        return at
    names[0] = blob(b"qemu-server.conf\0")
    datas[0] = blob(b"name: proxmox-vm\nmemory: 2048\ncores: 2\nsockets: 2\nbios: ovmf\nostype: l26\n")
    for i, d in enumerate(disks):
        devs[i + 1] = (blob(b"drive-scsi%d\0" % i), int(opts.get("size", len(d))))
    blobs.extend(bytes(-len(blobs) % 512))
    total = 12288 + len(blobs)
    uuid = bytes(range(16))
    head = struct.pack(">4sI16sQ16sIII", b"VMA\0", int(opts.get("version", 1)), uuid, 1700000000, bytes(16),
                       int(opts.get("blob", 12288)), len(blobs), int(opts.get("head", total))) + bytes(1984)
    head += struct.pack(">256I256II", *names, *datas, 0)
    for n, size in devs:
        head += struct.pack(">IIQQQ", n, 0, size, 0, 0)
    head = bytearray(head + blobs)
    head[32:48] = hashlib.md5(head).digest()
    work = [(i + 1, k) for i, d in enumerate(disks) for k in range((len(d) + 65535) // 65536)]
    if "shuffle" in opts:
        work = work[1::2] + work[::2]
    with open(out, "wb") as f:
        f.write(head)
        while work:
            info, data = [], b""
            for dev, k in work[:59]:
                mask = 0
                for b in range(16):
                    block = disks[dev - 1][k * 65536 + b * 4096:k * 65536 + b * 4096 + 4096]
                    if any(block):
                        mask |= 1 << b
                        data += block + bytes(4096 - len(block))
                info.append(mask << 48 | int(opts.get("dev", dev)) << 32 | k + int(opts.get("move", 0)))
            work = work[59:]
            e = bytearray(struct.pack(">4sHH16s16s", b"VMAE", 0, int(opts.get("blocks", len(data) // 4096)), uuid, bytes(16)))
            e += struct.pack(">59Q", *(info + [0] * (59 - len(info))))
            e[24:40] = hashlib.md5(e).digest()
            if "damage" in opts:
                e[500] ^= 1
            f.write(e + data)


{"ova": ova, "xva": xva, "vma": vma, "box": box, "ovf": lambda: open(out, "wb").write(
    ovf([(os.path.basename(a), open(a, "rb").read()) for a in args]))}[kind]()
