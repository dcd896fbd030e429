/*
 * fw/bzimage.c - Linux kernels: bzImage, and vmlinux.
 *
 * Linux: Documentation/arch/x86/boot.rst, protocol 2.02 to 2.15. The compressed kernel within a
 * bzImage is unpacked here, many times faster than the guest would do it, and entered directly.
 * What has no such payload (memtest86+) is entered at its 32-bit entry instead.
 * One thread, before the processors run.
 */
#include <assert.h>
#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>

#include "codec/codec.h"
#include "fw/kernel_int.h"

/* The setup header as it lies in the file, from offset 1f1h on. */
struct setup_header {
	uint8_t setup_sects;
	le16 root_flags;
	le32 syssize;
	le16 ram_size, vid_mode, root_dev, boot_flag;
	uint8_t jump, jump_len;
	uint8_t magic[4];
	le16 version;
	le32 realmode_swtch;
	le16 start_sys_seg, kernel_version;
	uint8_t type_of_loader, loadflags;
	le16 setup_move_size;
	le32 code32_start, ramdisk_image, ramdisk_size, bootsect_kludge;
	le16 heap_end_ptr;
	uint8_t ext_loader_ver, ext_loader_type;
	le32 cmd_line_ptr;
	le32 initrd_addr_max;  /* 2.03 */
	le32 kernel_alignment; /* 2.05 */
	uint8_t relocatable_kernel;
	uint8_t min_alignment; /* 2.10 */
	le16 xloadflags;       /* 2.12 */
	le32 cmdline_size;     /* 2.06 */
	le32 hardware_subarch; /* 2.07 */
	le64 hardware_subarch_data;
	le32 payload_offset; /* 2.08 */
	le32 payload_length;
	le64 setup_data;   /* 2.09 */
	le64 pref_address; /* 2.10 */
	le32 init_size;
	le32 handover_offset;    /* 2.11 */
	le32 kernel_info_offset; /* 2.15 */
};

#define HDR_OFF 0x1f1

static_assert(sizeof(struct setup_header) == 0x26c - HDR_OFF, "as boot.rst has it");

enum { LOADED_HIGH = 1 };
enum { XLF_CAN_BE_LOADED_ABOVE_4G = 2 };

#define VERSION_MIN     0x202
#define HIGH_BASE       0x100000ull   /* where protected-mode code goes */
#define INITRD_MAX_OLD  0x38000000ull /* before 2.03 */
#define CMDLINE_MAX_OLD 255           /* before 2.06 */
#define UNPACKED_MAX    (512u << 20)

/* Names in the version text of images that lean on BIOS calls. */
static const char *const needs_bios[] = {"MEMDISK", "iPXE", "gPXE"};

struct bzimage {
	struct setup_header h; /* fields of later protocols are zero */
	unsigned version;
	size_t setup_len; /* the protected-mode code begins here */
	size_t hdr_len;   /* bytes of the header there are */
};

/* ---- the header ---- */

bool bzimage_match(const uint8_t *p, size_t len)
{
	return len >= 0x210 && p[0x1fe] == 0x55 && p[0x1ff] == 0xaa &&
	       !memcmp(p + 0x202, "HdrS", 4);
}

/* The version text, behind the boot sector's first 200h bytes. */
static void read_version(struct boot *b, const struct bzimage *z)
{
	size_t at = le16_get(z->h.kernel_version), n = 0;
	char *to = b->info->version;

	if (!at || at + 0x200 >= z->setup_len)
		return;
	at += 0x200;
	while (n < sizeof(b->info->version) - 1 && at < z->setup_len &&
	       b->image[at] >= ' ' && b->image[at] < 0x7f)
		to[n++] = (char)b->image[at++];
	to[n] = 0;
}

static int parse(struct boot *b, struct bzimage *z, struct err *err)
{
	size_t end;

	*z = (struct bzimage){.version = load_u16(b->image + 0x206)};
	if (z->version < VERSION_MIN)
		return err_set(err, ENOEXEC,
			       "'%s' uses boot protocol %u.%02u: before 2.02 a kernel "
			       "needs a BIOS",
			       b->in->name, z->version >> 8, z->version & 0xff);
	/* The jump over the header, at 200h, says how long it is. */
	end = min_u64(0x202 + b->image[0x201], HDR_OFF + sizeof(z->h));
	if (end > b->len)
		return err_set(err, EINVAL, "'%s' is cut off in its header",
			       b->in->name);
	z->hdr_len = end - HDR_OFF;
	memcpy(&z->h, b->image + HDR_OFF, z->hdr_len);
	z->setup_len = ((z->h.setup_sects ? z->h.setup_sects : 4) + 1u) * 512;
	if (z->setup_len >= b->len)
		return err_set(err, EINVAL,
			       "'%s' is cut off: %zu bytes of set-up code, but the "
			       "file has %zu",
			       b->in->name, z->setup_len, b->len);
	read_version(b, z);
	return 0;
}

static int check_bios(struct boot *b, const struct bzimage *z, struct err *err)
{
	bool needs = !(z->h.loadflags & LOADED_HIGH) ||
		     le32_get(z->h.code32_start) < HIGH_BASE;

	for (unsigned i = 0; i < ARRAY_LEN(needs_bios); i++)
		needs |= !strncmp(b->info->version, needs_bios[i],
				  strlen(needs_bios[i]));
	if (needs)
		return err_set(err, ENOEXEC,
			       "'%s' starts in real mode and calls a BIOS: boot it "
			       "from a disk or CD with firmware",
			       b->in->name);
	return 0;
}

static void set_limits(const struct boot *b, const struct bzimage *z, bool is64,
		       struct linux_limits *lim)
{
	*lim = (struct linux_limits){
		.hdr = b->image + HDR_OFF,
		.hdr_len = z->hdr_len,
		.version = (uint16_t)z->version,
		.cmdline_max = CMDLINE_MAX_OLD,
		.initrd_max = INITRD_MAX_OLD,
	};
	if (z->version >= 0x203)
		lim->initrd_max = le32_get(z->h.initrd_addr_max) + 1ull;
	if (z->version >= 0x206)
		lim->cmdline_max = le32_get(z->h.cmdline_size);
	if (z->version >= 0x20c && is64)
		lim->above_4g = le16_get(z->h.xloadflags) & XLF_CAN_BE_LOADED_ABOVE_4G;
}

/* ---- the kernel ---- */

static bool has_payload(const struct bzimage *z)
{
	return z->version >= 0x208 && le32_get(z->h.payload_length);
}

/*
 * The ELF file in the payload, in new memory. -ENOENT with a reason: there is none, or none that can be used
 * here; the image's own unpacker may know better.
 */
static int unpack_payload(struct boot *b, const struct bzimage *z, void **out,
			  struct elf *e, struct err *err)
{
	const uint8_t *code = b->image + z->setup_len;
	size_t code_len = b->len - z->setup_len, out_len;
	uint32_t off = le32_get(z->h.payload_offset);
	uint32_t len = le32_get(z->h.payload_length);
	const struct codec *c;

	if (!has_payload(z))
		return err_set(err, ENOENT, "no payload");
	if (!range_ok(off, len, code_len))
		return err_set(err, EINVAL,
			       "'%s' is cut off: its payload is %" PRIu32
			       " bytes at %zu, the file has %zu",
			       b->in->name, len, z->setup_len + off, b->len);
	c = codec_find_magic(code + off, len);
	if (!c)
		return err_set(err, ENOENT, "unknown compression of the payload");
	if (codec_unpack(c, code + off, len, UNPACKED_MAX, out, &out_len, NULL, err) ||
	    elf_open(e, *out, out_len, err)) {
		if (err)
			err->code = ENOENT;
		return -ENOENT;
	}
	return 0;
}

/* Enters `rip` with the zero page as Linux wants it. */
static int enter(struct boot *b, const struct linux_limits *lim, bool is64,
		 uint64_t rip, struct err *err)
{
	uint64_t zp;
	int rc = zeropage_build(b, lim, &zp, err);

	if (!rc)
		rc = is64 ? entry_long64(b, rip, err) : entry_flat32(b, rip, err);
	if (rc)
		return rc;
	b->cpu->gpr[6] = zp; /* rsi */
	b->info->protocol = is64 ? "Linux 64-bit" : "Linux 32-bit";
	return 0;
}

/* Loads vmlinux at the address it is linked for: nothing is to be relocated there. */
static int load_elf(struct boot *b, const struct elf *e, const struct linux_limits *lim,
		    struct err *err)
{
	bool is64 = e->machine == EM_X86_64;
	uint64_t end, entry = elf_entry_phys(e);
	int rc = elf_load(b, e, &end, err);

	if (rc)
		return rc;
	if (end > MAX_32)
		return err_set(err, ENOEXEC,
			       "'%s' is linked for 0x%" PRIx64
			       ", above 4 GiB: not supported",
			       b->in->name, end);
	return enter(b, lim, is64, entry, err);
}

/* Loads the protected-mode code and lets it unpack itself. */
static int load_code32(struct boot *b, const struct bzimage *z, struct err *err)
{
	uint64_t at = le32_get(z->h.code32_start), end = at + (b->len - z->setup_len);
	struct linux_limits lim;
	int rc = check_bios(b, z, err);

	if (rc)
		return rc;
	/* It moves to its preferred address and works there. */
	if (z->version >= 0x20a && le64_get(z->h.pref_address) < MAX_32) {
		uint64_t work = at;

		if (z->h.relocatable_kernel)
			work = max_u64(at, le64_get(z->h.pref_address));
		end = max_u64(end, work + le32_get(z->h.init_size));
	}
	rc = place_fixed(b, at, end - at, "kernel", err);
	if (!rc)
		rc = place_copy(b, at, b->image + z->setup_len, b->len - z->setup_len,
				err);
	if (rc)
		return rc;
	set_limits(b, z, false, &lim);
	return enter(b, &lim, false, at, err);
}

int bzimage_load(struct boot *b, struct err *err)
{
	struct linux_limits lim;
	struct err why = {0};
	struct bzimage z;
	void *vmlinux = NULL;
	struct elf e;
	int rc = parse(b, &z, err);

	if (rc)
		return rc;
	rc = unpack_payload(b, &z, &vmlinux, &e, &why);
	if (!rc) {
		set_limits(b, &z, e.machine == EM_X86_64, &lim);
		rc = load_elf(b, &e, &lim, err);
	} else if (rc == -ENOENT) {
		log_msg(b->in->log, has_payload(&z) ? LOG_WARN : LOG_DEBUG,
			"'%s' must unpack itself: %s", b->in->name, why.msg);
		rc = load_code32(b, &z, err);
	} else {
		err_set(err, why.code, "%s", why.msg);
	}
	free(vmlinux);
	return rc;
}

/* ---- vmlinux ---- */

bool elf_linux_match(const struct elf *e)
{
	static const char banner[] = "Linux version ";

	return memmem(e->p, e->len, banner, sizeof(banner) - 1);
}

int elf_linux_load(struct boot *b, struct err *err)
{
	static const struct linux_limits lim = {
		.version = 0x20f, .cmdline_max = 2047, .initrd_max = 0x80000000};
	struct elf e;
	int rc = elf_open(&e, b->image, b->len, err);

	return rc ? rc : load_elf(b, &e, &lim, err);
}
