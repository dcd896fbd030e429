/*
 * img/formats.h - the disk formats, in the order in which they are probed: one line each. Included several times.
 * Those that are found by the end of the file stand behind those that are found by its beginning.
 */
/* clang-format off */

/* QEMU and Xen */
IMG_FORMAT(qcow2)
IMG_FORMAT(qcow1)
IMG_FORMAT(qed)
IMG_FORMAT(luks)

/* VirtualBox, Microsoft */
IMG_FORMAT(vhdx)
IMG_FORMAT(vdi)
IMG_FORMAT(vhd)

/* VMware, Parallels, others */
IMG_FORMAT(vmdk)
IMG_FORMAT(parallels)
IMG_FORMAT(bochs)
IMG_FORMAT(cloop)
IMG_FORMAT(dmg)

/* several files: has no mark, known by their names */
IMG_FORMAT(split)

/* the last: has no mark to find it by */
IMG_FORMAT(raw)

/* clang-format on */
