/* cli/secret.c - passphrases: from files, from the terminal. Main thread. */
#include "cli/secret.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/fdio.h"

void cli_secret_free(char *secret, size_t len)
{
	if (secret)
		explicit_bzero(secret, len);
	free(secret);
}

/* A line of text, and nothing else? */
static bool is_line(const char *p, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++)
		if (iscntrl((unsigned char)p[i]) && p[i] != '\t')
			return false;
	return len && p[len - 1] == '\n';
}

int cli_secret_file(const char *path, char **secret, size_t *len, struct err *err)
{
	void *buf;
	int rc = fd_load_file(path, CLI_MAX_SECRET, &buf, len, err);

	if (rc < 0)
		return rc;
	*secret = buf;
	if (is_line(*secret, *len))
		(*secret)[--*len] = 0;
	if (*len)
		return 0;
	cli_secret_free(*secret, 0);
	return err_set(err, EINVAL, "key file '%s' is empty", path);
}

/* Reads a line without showing it. */
static ssize_t read_hidden(int fd, char *buf, size_t size)
{
	struct termios old, hidden;
	ssize_t n;

	if (tcgetattr(fd, &old) < 0)
		return -1;
	hidden = old;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(fd, TCSAFLUSH, &hidden);
	n = read(fd, buf, size);
	tcsetattr(fd, TCSAFLUSH, &old);
	return n;
}

int cli_secret_ask(const char *what, char **secret, size_t *len, struct err *err)
{
	int fd = isatty(STDIN_FILENO) ? open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)
				      : -1;
	char *buf = fd < 0 ? NULL : calloc(1, 1024);
	ssize_t n = -1;

	if (fd < 0)
		return err_set(err, ENOTTY, "no terminal to ask for the passphrase");
	if (buf) {
		dprintf(fd, "Passphrase of '%s': ", what);
		n = read_hidden(fd, buf, 1023);
		dprintf(fd, "\n");
	}
	close(fd);
	if (n > 0 && buf[n - 1] == '\n')
		buf[--n] = 0;
	if (n <= 0) {
		cli_secret_free(buf, buf ? 1024 : 0);
		return err_set(err, ENOKEY, "no passphrase was given");
	}
	*secret = buf;
	*len = (size_t)n;
	return 0;
}

static int digit_of(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwx"
		"yz0123456789+/";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)(p - digits) : -1;
}

long cli_secret_base64(char *text)
{
	unsigned bits = 0, n_bits = 0;
	char *to = text;
	const char *p = text;
	size_t n = 0;

	for (; *p && *p != '='; p++) {
		int v = digit_of(*p);

		if (isspace((unsigned char)*p))
			continue;
		if (v < 0)
			return -EINVAL;
		n++;
		bits = (bits << 6 | (unsigned)v) & 0xffff;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			*to++ = (char)(bits >> n_bits);
		}
	}
	for (; *p; p++) {
		if (isspace((unsigned char)*p))
			continue;
		if (*p != '=')
			return -EINVAL;
		n++;
	}
	*to = 0;
	return n % 4 ? -EINVAL : to - text;
}
