/*
 * tests/unit/test_sandbox.c - behind sandbox_enter() forbidden calls end the process, paths cannot be
 * opened, and what a running machine needs goes on. Each case is a process of its own.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/sandbox.h"

static char *const no_args[] = {NULL};

/* Each returns 0 when it went as it should (for the forbidden ones: when it went at all). */
static int do_exec(void)
{
	return execve("/bin/true", no_args, no_args);
}

static int do_exec_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0) == MAP_FAILED;
}

static int do_fork(void)
{
	return fork() < 0;
}

static int do_socket(void)
{
	return socket(AF_INET, SOCK_DGRAM, 0) < 0;
}

static int do_unlink(void)
{
	return unlink("/tmp/nothing-of-this-name");
}

static int do_open(void)
{
	return open("/etc/passwd", O_RDONLY) == -1 && errno == EACCES ? 0 : 1;
}

static int pair[2];

static int do_send(void)
{
	char c;

	return send(pair[0], "x", 1, MSG_NOSIGNAL) != 1 || recv(pair[1], &c, 1, 0) != 1;
}

static int do_kill(void)
{
	return kill(1, 0) == -1 && errno == EPERM ? 0 : 1;
}

static int do_memfd(void)
{
	return memfd_create("x", 0) < 0;
}

static int do_memory(void)
{
	char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 1;
	p[5] = 1;
	free(malloc(1 << 22));
	return munmap(p, 1 << 20);
}

/* The status of a sandboxed process that does fn. */
static int boxed(const struct sandbox_config *cfg, int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (sandbox_enter(cfg, NULL) < 0)
			_exit(99);
		_exit(fn() ? 1 : 0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_killed(const struct sandbox_config *cfg, int (*fn)(void))
{
	int status = boxed(cfg, fn);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static void test_forbidden(void **state)
{
	const struct sandbox_config tight = {0}, net = {.network = true},
				    far = {.remote = true};

	(void)state;
	assert_killed(&tight, do_exec);
	assert_killed(&tight, do_exec_memory);
	assert_killed(&tight, do_fork);
	assert_killed(&tight, do_socket);
	assert_killed(&tight, do_unlink);
	assert_killed(&tight, do_memfd);
	assert_killed(&net, do_exec);
	assert_killed(&net, do_exec_memory);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_killed(&tight, do_send);
	assert_killed(&tight, do_kill);
	assert_killed(&far, do_socket);
	assert_killed(&far, do_fork);
	close(pair[0]);
	close(pair[1]);
}

static void test_allowed(void **state)
{
	const struct sandbox_config tight = {0}, net = {.network = true},
				    far = {.remote = true};

	(void)state;
	assert_int_equal(boxed(&tight, do_open), 0);
	assert_int_equal(boxed(&tight, do_memory), 0);
	assert_int_equal(boxed(&net, do_socket), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(boxed(&far, do_send), 0);
	assert_int_equal(boxed(&far, do_kill), 0);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
