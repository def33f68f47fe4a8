/* Gives the entries of every directory in another order, to show whether a program depends on it.
 *
 * For LD_PRELOAD. Stands before readdir, readdir64 and what goes with them: at the first entry asked for, all entries
 * are read, then handed out in the order that READDIR_ORDER names:
 *   reverse  the last first
 *   shuffle  by a hash of the name
 * Where READDIR_LOG names a file, a program that listed directories appends "NAME COUNT" to it when it exits: who
 * makes system calls by itself, or is linked statically, is not affected, and does not appear there.
 *
 * Rust's standard library and CPython read directories through readdir64 and readdir of the C library. The C library's
 * own scandir, glob and nftw do not pass through here. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(struct dirent) == sizeof(struct dirent64), "readdir and readdir64 have one layout on 64 bits");

struct listing {
	DIR *directory;
	struct dirent64 **entries;
	size_t count, capacity, next;
	struct listing *following;
};

static struct listing *listings;
static unsigned long listed;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *original(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);
	if (function == NULL) {
		fprintf(stderr, "readdir shim: the C library has no %s\n", name);
		abort();
	}
	return function;
}

/* FNV-1a. */
static uint64_t hash(const char *name)
{
	uint64_t state = 0xcbf29ce484222325u;
	for (; *name != '\0'; name++)
		state = (state ^ (unsigned char)*name) * 0x100000001b3u;
	return state;
}

static int by_hash(const void *left, const void *right)
{
	const struct dirent64 *const *a = left, *const *b = right;
	uint64_t x = hash((*a)->d_name), y = hash((*b)->d_name);
	return x < y ? -1 : x > y ? 1 : strcmp((*a)->d_name, (*b)->d_name);
}

static void reorder(struct listing *listing)
{
	const char *order = getenv("READDIR_ORDER");
	if (order != NULL && strcmp(order, "shuffle") == 0) {
		qsort(listing->entries, listing->count, sizeof *listing->entries, by_hash);
		return;
	}
	for (size_t low = 0, high = listing->count; low + 1 < high; low++) {
		struct dirent64 *entry = listing->entries[--high];
		listing->entries[high] = listing->entries[low];
		listing->entries[low] = entry;
	}
}

static void forget_entries(struct listing *listing)
{
	for (size_t entry = 0; entry < listing->count; entry++)
		free(listing->entries[entry]);
	free(listing->entries);
}

/* Removes the listing of a directory; the mutex is held. */
static void forget(DIR *directory)
{
	for (struct listing **place = &listings; *place != NULL; place = &(*place)->following) {
		struct listing *found = *place;
		if (found->directory == directory) {
			*place = found->following;
			forget_entries(found);
			free(found);
			return;
		}
	}
}

/* The listing of a directory, read where it is new; NULL with errno where that fails. The mutex is held. */
static struct listing *listing_of(DIR *directory)
{
	for (struct listing *found = listings; found != NULL; found = found->following)
		if (found->directory == directory)
			return found;
	struct dirent64 *(*next)(DIR *) = original("readdir64");
	struct listing *listing = calloc(1, sizeof *listing);
	int failure = listing == NULL ? ENOMEM : 0;
	while (failure == 0) {
		errno = 0;
		struct dirent64 *entry = next(directory);
		if (entry == NULL) {
			failure = errno;
			break;
		}
		if (listing->count == listing->capacity) {
			size_t capacity = listing->capacity * 2 + 16;
			void *larger = realloc(listing->entries, capacity * sizeof *listing->entries);
			if (larger == NULL) {
				failure = ENOMEM;
				break;
			}
			listing->entries = larger;
			listing->capacity = capacity;
		}
		/* A copy of the whole structure, for programs that copy the whole structure. */
		struct dirent64 *copy = calloc(1, sizeof *copy > entry->d_reclen ? sizeof *copy : entry->d_reclen);
		if (copy == NULL) {
			failure = ENOMEM;
			break;
		}
		memcpy(copy, entry, entry->d_reclen);
		listing->entries[listing->count++] = copy;
	}
	if (failure != 0) {
		if (listing != NULL)
			forget_entries(listing);
		free(listing);
		errno = failure;
		return NULL;
	}
	reorder(listing);
	listing->directory = directory;
	listing->following = listings;
	listings = listing;
	listed++;
	return listing;
}

struct dirent64 *readdir64(DIR *directory)
{
	int before = errno;
	struct dirent64 *entry = NULL;
	pthread_mutex_lock(&mutex);
	struct listing *listing = listing_of(directory);
	if (listing != NULL) {
		if (listing->next < listing->count)
			entry = listing->entries[listing->next++];
		errno = before;
	}
	pthread_mutex_unlock(&mutex);
	return entry;
}

struct dirent *readdir(DIR *directory)
{
	return (struct dirent *)readdir64(directory);
}

int readdir64_r(DIR *directory, struct dirent64 *space, struct dirent64 **result)
{
	int before = errno;
	errno = 0;
	struct dirent64 *entry = readdir64(directory);
	int failure = entry == NULL ? errno : 0;
	errno = before;
	*result = entry == NULL ? NULL : memcpy(space, entry, entry->d_reclen);
	return failure;
}

int readdir_r(DIR *directory, struct dirent *space, struct dirent **result)
{
	return readdir64_r(directory, (struct dirent64 *)space, (struct dirent64 **)result);
}

long telldir(DIR *directory)
{
	pthread_mutex_lock(&mutex);
	struct listing *listing = listing_of(directory);
	long place = listing == NULL ? -1 : (long)listing->next;
	pthread_mutex_unlock(&mutex);
	return place;
}

void seekdir(DIR *directory, long place)
{
	pthread_mutex_lock(&mutex);
	struct listing *listing = listing_of(directory);
	if (listing != NULL && place >= 0 && (size_t)place <= listing->count)
		listing->next = (size_t)place;
	pthread_mutex_unlock(&mutex);
}

void rewinddir(DIR *directory)
{
	void (*rewind_original)(DIR *) = original("rewinddir");
	pthread_mutex_lock(&mutex);
	forget(directory);
	pthread_mutex_unlock(&mutex);
	rewind_original(directory);
}

int closedir(DIR *directory)
{
	int (*close_original)(DIR *) = original("closedir");
	pthread_mutex_lock(&mutex);
	forget(directory);
	pthread_mutex_unlock(&mutex);
	return close_original(directory);
}

__attribute__((destructor)) static void write_log(void)
{
	const char *path = getenv("READDIR_LOG");
	if (path == NULL || listed == 0)
		return;
	/* Of a script this is its own name, not that of its interpreter. */
	char name[32] = "";
	FILE *comm = fopen("/proc/self/comm", "re");
	if (comm == NULL || fscanf(comm, "%31[^\n]", name) != 1)
		return;
	fclose(comm);
	int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	if (file < 0)
		return;
	dprintf(file, "%s %lu\n", name, listed);
	close(file);
}
