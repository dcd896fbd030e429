/*
 * pc/save.c - a running machine in a file, and back.
 *
 * Format, little-endian: struct save_head; the devices' and processors' state (vm/state.h); then
 * memory as runs of pages that are not all zero: le64 gpa, le64 bytes, the bytes; the end: gpa ~0.
 * Loop thread, machine paused.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "pc/pc_int.h"

#define PAGE      4096u
#define MAX_RUN   (1u << 20)
#define MAX_STATE (64u << 20)

static const char magic[16] = "vm-run machine\n";

struct save_head {
	char magic[16];
	le32 version, cpus;
	le64 memory, state_len;
	char engine[16];
};
static_assert(sizeof(struct save_head) == 56, "written to files");

struct save_run {
	le64 gpa, len;
};

/* clang-format off */
static const struct state_field cpu_fields[] = {
	STATE(struct pc_cpu, state.gpr), STATE(struct pc_cpu, state.rip),
	STATE(struct pc_cpu, state.rflags), STATE(struct pc_cpu, state.seg),
	STATE(struct pc_cpu, state.gdtr), STATE(struct pc_cpu, state.idtr),
	STATE(struct pc_cpu, state.cr0), STATE(struct pc_cpu, state.cr2),
	STATE(struct pc_cpu, state.cr3), STATE(struct pc_cpu, state.cr4),
	STATE(struct pc_cpu, state.cr8), STATE(struct pc_cpu, state.xcr0),
	STATE(struct pc_cpu, state.efer), STATE(struct pc_cpu, state.apic_base),
	STATE(struct pc_cpu, state.dr), STATE(struct pc_cpu, state.mp),
	STATE(struct pc_cpu, state.nmi_pending), STATE(struct pc_cpu, state.nmi_blocked),
	STATE(struct pc_cpu, state.int_shadow), STATE(struct pc_cpu, state.exc_pending),
	STATE(struct pc_cpu, state.exc_vec), STATE(struct pc_cpu, state.exc_has_code),
	STATE(struct pc_cpu, state.irq_injected), STATE(struct pc_cpu, state.irq_vec),
	STATE(struct pc_cpu, state.irq_soft), STATE(struct pc_cpu, state.exc_code),
	STATE(struct pc_cpu, state.tsc), STATE(struct pc_cpu, state.lapic_timer_left),
	STATE(struct pc_cpu, state.xsave), STATE(struct pc_cpu, state.lapic),
	STATE(struct pc_cpu, state.n_msrs), STATE(struct pc_cpu, state.msr),
	{0},
};

static const struct state_field clock_fields[] = {
	STATE(struct pc, clock),
	{0},
};
/* clang-format on */

static int cpu_loaded(void *dev)
{
	struct pc_cpu *cpu = dev;
	struct pc *pc = cpu->pc;

	if (cpu->state.n_msrs > CPU_MAX_MSRS)
		return -EINVAL;
	return pc->engine->ops->set_state(pc->engine, cpu->index, &cpu->state, NULL);
}

static int clock_loaded(void *dev)
{
	struct pc *pc = dev;

	clock_set(pc->loop, pc->clock);
	return 0;
}

void pc_save_clock(struct pc *pc)
{
	state_add(&pc->state, "clock", -1, pc, clock_fields, NULL, clock_loaded);
}

void pc_save_cpus(struct pc *pc)
{
	for (unsigned i = 0; i < pc->cfg.cpus; i++) {
		pc->cpus[i].pc = pc;
		pc->cpus[i].index = i;
		state_add(&pc->state, "cpu", (int)i, &pc->cpus[i], cpu_fields, NULL,
			  cpu_loaded);
	}
}

/* ---- writing ---- */

static bool is_zero(const uint8_t *p)
{
	const uint64_t *w = (const uint64_t *)p;

	for (unsigned i = 0; i < PAGE / 8; i += 8)
		if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] |
		    w[i + 6] | w[i + 7])
			return false;
	return true;
}

static int write_run(int fd, uint64_t gpa, const uint8_t *p, uint64_t len)
{
	struct save_run run = {le64_make(gpa), le64_make(len)};
	int rc = fd_write_full(fd, &run, sizeof(run));

	return rc ? rc : fd_write_full(fd, p, len);
}

/* The runs of non-zero pages of one region. */
static int write_region(int fd, const struct ram_region *r)
{
	uint64_t at = 0;
	int rc = 0;

	while (at < r->size && !rc) {
		uint64_t start = at;

		while (at < r->size && at - start < MAX_RUN && !is_zero(r->host + at))
			at += PAGE;
		if (at > start)
			rc = write_run(fd, r->gpa + start, r->host + start, at - start);
		else
			at += PAGE;
	}
	return rc;
}

static int write_all(struct pc *pc, const struct str *state)
{
	struct save_head h = {
		.version = le32_make(1),
		.cpus = le32_make(pc->cfg.cpus),
		.memory = le64_make(pc->cfg.memory),
		.state_len = le64_make(state->len),
	};
	int fd = pc->cfg.save_fd, rc;

	memcpy(h.magic, magic, sizeof(magic));
	snprintf(h.engine, sizeof(h.engine), "%s", pc->engine->ops->name);
	rc = fd_write_full(fd, &h, sizeof(h));
	rc = rc ? rc : fd_write_full(fd, state->p, state->len);
	for (unsigned i = 0; i < pc->ram.n_regions && !rc; i++)
		if (pc->ram.region[i].kind == RAM_RAM)
			rc = write_region(fd, &pc->ram.region[i]);
	rc = rc ? rc : write_run(fd, UINT64_MAX, NULL, 0);
	if (!rc &&
	    (fdatasync(fd) < 0 || rename(pc->cfg.save_tmp, pc->cfg.save_path) < 0))
		rc = -errno;
	return rc;
}

int pc_save_write(struct pc *pc, struct err *err)
{
	const struct engine_ops *ops = pc->engine->ops;
	struct str state = {0};
	int rc = 0;

	pc->clock = clock_now(pc->loop);
	for (unsigned i = 0; i < pc->cfg.cpus && !rc; i++)
		rc = ops->get_state(pc->engine, i, &pc->cpus[i].state, err);
	rc = rc ? rc : state_save(&pc->state, &state, err);
	if (!rc) {
		if (lseek(pc->cfg.save_fd, 0, SEEK_SET) < 0 ||
		    ftruncate(pc->cfg.save_fd, 0) < 0)
			rc = -errno;
		rc = rc ? rc : write_all(pc, &state);
		if (rc)
			err_sys(err, -rc, "cannot save to '%s'", pc->cfg.save_path);
	}
	str_fini(&state);
	return rc;
}

/* ---- reading ---- */

static int read_head(int fd, struct save_head *h, struct err *err)
{
	if (fd_pread_full(fd, h, sizeof(*h), 0) != sizeof(*h) ||
	    memcmp(h->magic, magic, sizeof(magic)))
		return err_set(err, EINVAL, "the file is not a saved machine");
	if (le32_get(h->version) != 1)
		return err_set(err, EINVAL,
			       "the saved machine has format version %u, not 1",
			       le32_get(h->version));
	h->engine[sizeof(h->engine) - 1] = 0;
	return 0;
}

int pc_saved_read(int fd, struct pc_saved *s, struct err *err)
{
	struct save_head h;
	int rc = read_head(fd, &h, err);

	if (rc)
		return rc;
	s->memory = le64_get(h.memory);
	s->cpus = le32_get(h.cpus);
	memcpy(s->engine, h.engine, sizeof(s->engine));
	if (!s->cpus || s->cpus > PC_MAX_CPUS || !s->memory || s->memory % (1 << 20))
		return err_set(err, EINVAL, "the saved machine's size makes no sense");
	return 0;
}

static int read_memory(struct pc *pc, int fd, struct err *err)
{
	for (;;) {
		struct save_run run;
		uint64_t gpa, len;
		uint8_t *p;

		if (fd_read_full(fd, &run, sizeof(run)) != sizeof(run))
			break;
		gpa = le64_get(run.gpa);
		len = le64_get(run.len);
		if (gpa == UINT64_MAX)
			return 0;
		p = len <= MAX_RUN ? ram_ptr(&pc->ram, gpa, len, true) : NULL;
		if (!p)
			return err_set(err, EINVAL,
				       "the saved memory lies outside the machine's");
		if (fd_read_full(fd, p, len) != (int64_t)len)
			break;
	}
	return err_set(err, EINVAL, "the saved memory is cut short");
}

int pc_restore_read(struct pc *pc, struct err *err)
{
	int fd = pc->cfg.restore_fd, rc;
	struct save_head h;
	uint64_t len;
	void *p;

	rc = read_head(fd, &h, err);
	if (rc)
		return rc;
	len = le64_get(h.state_len);
	if (strcmp(h.engine, pc->engine->ops->name))
		return err_set(err, EINVAL,
			       "the machine was saved under engine '%s', not '%s'",
			       h.engine, pc->engine->ops->name);
	if (len > MAX_STATE || !(p = mem_new(len, 1)))
		return err_set(err, EINVAL, "the saved state claims %llu bytes",
			       (unsigned long long)len);
	if (lseek(fd, sizeof(h), SEEK_SET) < 0 ||
	    fd_read_full(fd, p, len) != (int64_t)len)
		rc = err_set(err, EINVAL, "the saved state is cut short");
	rc = rc ? rc : read_memory(pc, fd, err);
	rc = rc ? rc : state_load(&pc->state, p, len, err);
	free(p);
	return rc;
}
