/* bench/emu/rows_smp.c - two threads: computing, atomic additions, handing over by a condition. */
#include <pthread.h>

#include "rows.h"

struct part {
	long n;
	uint64_t result;
};

static void *burn(void *arg)
{
	struct part *p = arg;
	uint64_t seed = 41, sum = 0;

	for (long n = p->n; n--;)
		sum += next_random(&seed) ^ sum >> 3;
	p->result = sum;
	return NULL;
}

static uint64_t burn1(double scale)
{
	struct part p = {.n = rounds(6e7, scale)};

	burn(&p);
	return p.result;
}

static uint64_t burn2(double scale)
{
	struct part p[2] = {{.n = rounds(3e7, scale)}, {.n = rounds(3e7, scale)}};
	pthread_t other;

	if (pthread_create(&other, NULL, burn, &p[1]))
		return 0xbad;
	burn(&p[0]);
	pthread_join(other, NULL);
	return p[0].result ^ p[1].result << 1;
}

static long counter __attribute__((aligned(64)));

static void *count(void *arg)
{
	for (long n = ((struct part *)arg)->n; n--;)
		__sync_fetch_and_add(&counter, 1);
	return NULL;
}

static uint64_t atomic1(double scale)
{
	struct part p = {.n = rounds(2e7, scale)};

	counter = 0;
	count(&p);
	return (uint64_t)counter;
}

static uint64_t atomic2(double scale)
{
	struct part p = {.n = rounds(5e6, scale)};
	pthread_t other;

	counter = 0;
	if (pthread_create(&other, NULL, count, &p))
		return 0xbad;
	count(&p);
	pthread_join(other, NULL);
	return (uint64_t)counter;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static uint64_t turns;

/* Waits `n` times for its turn and gives it to the other. */
static void take_turns(long n, int me)
{
	while (n--) {
		pthread_mutex_lock(&lock);
		while (turn != me)
			pthread_cond_wait(&changed, &lock);
		turn = !me;
		turns++;
		pthread_cond_signal(&changed);
		pthread_mutex_unlock(&lock);
	}
}

static void *second(void *arg)
{
	take_turns(((struct part *)arg)->n, 1);
	return NULL;
}

static uint64_t futex(double scale)
{
	struct part p = {.n = rounds(30000, scale)};
	pthread_t other;

	turn = 0;
	turns = 0;
	if (pthread_create(&other, NULL, second, &p))
		return 0xbad;
	take_turns(p.n, 0);
	pthread_join(other, NULL);
	return turns;
}

/* clang-format off */
const struct row rows_smp[] = {
	{"smp.burn1", "Mloop", 60, burn1, 0, 0},
	{"smp.burn2", "Mloop", 60, burn2, NEED_TWO_CPUS, 0},
	{"smp.atomic1", "Mop", 20, atomic1, 0, 0},
	{"smp.atomic2", "Mop", 10, atomic2, NEED_TWO_CPUS, 0},
	{"smp.futex", "Ktrip", 30, futex, 0, 0},
	{0},
};
/* clang-format on */
