/* cli/progress.c - how far a long job is. One call at a time, from any thread. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "base/time.h"

#define BAR_WIDTH   30
#define INTERVAL_NS (100 * NS_PER_MS)

void cli_progress_start(struct cli_progress *p)
{
	p->started_ns = time_mono_ns();
	p->last_ns = 0;
	p->last_percent = -1;
	p->shown = false;
	if (p->request)
		p->answered = *p->request;
	if (p->kind == CLI_PROGRESS_QEMU)
		cli_progress_update(p, 0, 1);
}

static double percent(uint64_t done, uint64_t total)
{
	return total ? 100.0 * (double)done / (double)total : 100.0;
}

/* "1.2 GiB of 2.3 GiB, 812 MiB/s, 2 s left" */
static void describe(const struct cli_progress *p, uint64_t done, uint64_t total,
		     char *buf, size_t len)
{
	double s = (double)(time_mono_ns() - p->started_ns) / 1e9;
	double rate = s > 0 ? (double)done / s : 0;
	char a[16], b[16], r[16];

	snprintf(buf, len, "%s of %s, %s/s, %.0f s left",
		 size_format(done, a, sizeof(a)), size_format(total, b, sizeof(b)),
		 size_format((uint64_t)rate, r, sizeof(r)),
		 rate > 0 ? (double)(total - done) / rate : 0);
}

static void draw_bar(struct cli_progress *p, uint64_t done, uint64_t total)
{
	int full = (int)(percent(done, total) * BAR_WIDTH / 100);
	char bar[BAR_WIDTH + 1], text[120];

	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', full > BAR_WIDTH ? BAR_WIDTH : (size_t)full);
	bar[BAR_WIDTH] = 0;
	describe(p, done, total, text, sizeof(text));
	fprintf(stderr, "\r[%s] %5.1f %% %s\033[K", bar, percent(done, total), text);
	p->shown = true;
}

static void answer_request(struct cli_progress *p, uint64_t done, uint64_t total)
{
	char text[120];

	if (!p->request || *p->request == p->answered)
		return;
	p->answered = *p->request;
	describe(p, done, total, text, sizeof(text));
	fprintf(stderr, "%s%s: %.1f %%: %s\n", p->shown ? "\n" : "", p->name,
		percent(done, total), text);
	p->shown = false;
}

void cli_progress_update(struct cli_progress *p, uint64_t done, uint64_t total)
{
	int whole = (int)percent(done, total);
	uint64_t now;

	answer_request(p, done, total);
	switch (p->kind) {
	case CLI_PROGRESS_NONE: return;
	case CLI_PROGRESS_LINES:
		if (whole != p->last_percent)
			dprintf(p->fd, "%d/100\n", whole);
		p->last_percent = whole;
		return;
	case CLI_PROGRESS_BAR:
	case CLI_PROGRESS_QEMU: break;
	}
	now = time_mono_ns();
	if (now - p->last_ns < INTERVAL_NS && done < total)
		return;
	p->last_ns = now;
	if (p->kind == CLI_PROGRESS_BAR) {
		draw_bar(p, done, total);
		return;
	}
	printf("    (%3.2f/100%%)\r", percent(done, total));
	fflush(stdout);
	p->shown = true;
}

void cli_progress_end(struct cli_progress *p, bool success)
{
	if (p->kind == CLI_PROGRESS_LINES && success && p->last_percent != 100)
		dprintf(p->fd, "100/100\n");
	if (p->kind == CLI_PROGRESS_BAR && p->shown)
		fputc('\n', stderr);
	if (p->kind == CLI_PROGRESS_QEMU) {
		if (success)
			printf("    (100.00/100%%)\r");
		printf("\n");
		fflush(stdout);
	}
	p->shown = false;
}
