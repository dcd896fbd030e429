#!/usr/bin/env python3
"""bundle.py DIR SECTORS ITEM...: DIR/DiskDescriptor.xml of Parallels. Items: part=START:END, file=ID:TYPE:NAME (of the part
before), shot=ID:PARENT, top=ID, extra=TEXT. IDs are letters: T the usual top, 0 none."""
import os
import sys


def guid(c):
    if c == "T":
        return "{5fbaabe3-6958-40FF-92a7-860e329aab41}"
    return "{%s-%s-%s-%s-%s}" % (c * 8, c * 4, c * 4, c * 4, c * 12)


parts, shots, top, extra = [], "", "", ""
for a in sys.argv[3:]:
    k, v = a.split("=", 1)
    f = v.split(":", 2)
    if k == "part":
        parts.append("<Start>%s</Start><End>%s</End><Blocksize>2048</Blocksize>\n" % tuple(f))
    elif k == "file":
        parts[-1] += "\t<Image>\n\t<GUID>%s</GUID><Type>%s</Type>\n<File>%s</File></Image>\n" % (guid(f[0]), f[1], f[2])
    elif k == "shot":
        shots += "<Shot><GUID>%s</GUID><ParentGUID>%s</ParentGUID></Shot>\n" % (guid(f[0]), guid(f[1]))
    elif k == "top":
        top = "<TopGUID>%s</TopGUID>" % guid(v)
    else:
        extra = v
os.makedirs(sys.argv[1], exist_ok=True)
with open(sys.argv[1] + "/DiskDescriptor.xml", "w") as w:
    w.write("""<?xml version='1.0' encoding='UTF-8'?>
%s<Parallels_disk_image Version="1.0">
    <Disk_Parameters>
        <Disk_size>%s</Disk_size>
        <Padding>0</Padding>
        <Encryption><Engine>{00000000-0000-0000-0000-000000000000}</Engine><Data></Data></Encryption>
    </Disk_Parameters>
    <StorageData>%s</StorageData>
    <Snapshots>%s%s</Snapshots>
</Parallels_disk_image>
""" % (extra, sys.argv[2], "".join("<Storage>%s</Storage>\n" % p for p in parts), top, shots))
