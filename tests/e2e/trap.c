/* Counts allocations while a function runs. Preloaded, it stands before the C library's. */
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static volatile int armed;
static long hits;

static void count(void) {
  if (armed) __sync_fetch_and_add(&hits, 1);
}

void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { count(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { count(); return __libc_memalign(a, n); }
void *memalign(size_t a, size_t n) { count(); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
  count();
  *p = __libc_memalign(a, n);
  return *p ? 0 : 12;
}
void *mmap(void *p, size_t n, int prot, int flags, int fd, off_t at) {
  count();
  return (void *)syscall(SYS_mmap, p, n, prot, flags, fd, at);
}

/* Something to see that the trap works. */
int allocates(void *a, void *b, void *c, void *d) {
  (void)a, (void)b, (void)c, (void)d;
  void *volatile p = malloc(1000);
  p = realloc(p, 100000);
  return p != NULL;
}

int trap_call(int (*f)(void *, void *, void *, void *), void *a, void *b, void *c, void *d) {
  hits = 0;
  armed = 1;
  int result = f(a, b, c, d);
  armed = 0;
  return result;
}

long trap_hits(void) { return hits; }
