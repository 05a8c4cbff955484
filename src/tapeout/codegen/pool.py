"""The thread pool, in LLVM IR: pthread threads that spin for their next job, and sleep when none comes.

    ptr  @tapeout_pool_create(i64 threads, i64 spins)    null if memory is short; fewer threads if the system refuses some
    void @tapeout_pool_destroy(ptr pool)                  joins the threads
    i64  @tapeout_pool_threads(ptr pool)
    void @tapeout_pool_run(ptr pool, ptr kernel, ptr args, i64 tasks)

The caller of `run` works as thread 0. To thread t of n belong the tasks from `tasks*t/n` to `tasks*(t+1)/n`. It claims half of what is left of
them at a time; when none is left, it claims of the others' in the same way. What a task computes never depends on the thread that runs it, so
neither do results. A job is over when all of its tasks are done: a thread that is late, because the system gave its core to somebody
else, finds nothing to do and holds nobody up.

A claim is one word, the job's number above the next task, and changes by compare-and-exchange alone: a thread that is still at an older job cannot take
a task of a newer one.

A worker looks for a job `spins` times, some nanoseconds each, then seven times as often, 1,400 times at most, while it offers its core
to others, and then sleeps on a futex; the caller waits for the last task likewise. One caller at a time.

Layout of a pool, in cache lines so that nobody spins on a line that another writes to:

    0 run function, 8 threads, 16 spins | 64 job number (i32), 68 sleepers (i32) | 128 tasks done (i32), 132 caller sleeps
    (i32) | 192 kernel, 200 args, 208 tasks, 216 stop | 256 per thread: pool, number, pthread_t, claim, pad

The first word is the address of `run`, so that a driver needs the pool only and no symbol of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.codegen.machine import resolve

if TYPE_CHECKING:
    from tapeout.kernel.target import Target

SYMBOL = "tapeout__pool"
"""Under which name the pool stands among the objects of a program; no entry point can have it."""

_STACK = 2 * 1024 * 1024
"""Bytes of a worker's stack, on which kernels keep local buffers; some systems give less by default."""

_PAUSE = {
    "x86_64": "call void @llvm.x86.sse2.pause()",
    "aarch64": "call void @llvm.aarch64.hint(i32 1)",
}
_POLITE = 200
"""A thread offers its core to others seven times as often as it has waited alone, but counts no more than this."""

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}

_SLEEP_FUTEX = """\
declare i64 @syscall(i64, ...)

define internal void @sleep(ptr %word, i32 %seen) nounwind {{
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 128, i32 %seen, ptr null, ptr null, i32 0)
  ret void
}}

define internal void @wake(ptr %word) nounwind {{
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 129, i32 2147483647, ptr null, ptr null, i32 0)
  ret void
}}
"""

# Where there is no futex, sleepers look again every 50 microseconds.
_SLEEP_POLL = """\
declare i32 @usleep(i32)

define internal void @sleep(ptr %word, i32 %seen) nounwind {
  %r = call i32 @usleep(i32 50)
  ret void
}

define internal void @wake(ptr %word) nounwind {
  ret void
}
"""

_POOL = """\
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_join(i64, ptr)
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i32 @sched_yield()

; Waits until the word differs from what was seen: spins, then sleeps, counted in `sleepers` for those who wake.
define internal i32 @await_change(ptr %word, i32 %seen, i64 %spins, ptr %sleepers) nounwind {{
entry:
  br label %spin
spin:
  %n = phi i64 [ 0, %entry ], [ %m, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %now, %seen
  br i1 %changed, label %done, label %idle
idle:
  {pause}
  %m = add i64 %n, 1
  %patient = icmp slt i64 %m, %spins
  br i1 %patient, label %again, label %polite
polite:
  %y = call i32 @sched_yield()
  %brief = icmp slt i64 %spins, {polite}
  %some = select i1 %brief, i64 %spins, i64 {polite}
  %yields = mul i64 %some, 7
  %limit = add i64 %spins, %yields
  %more = icmp slt i64 %m, %limit
  br i1 %more, label %again, label %doze
again:
  br label %spin
doze:
  %up = atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %look
look:
  %later = load atomic i32, ptr %word seq_cst, align 4
  %moved = icmp ne i32 %later, %seen
  br i1 %moved, label %risen, label %rest
rest:
  call void @sleep(ptr %word, i32 %seen)
  br label %look
risen:
  %down = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done
done:
  %value = phi i32 [ %now, %spin ], [ %later, %risen ]
  ret i32 %value
}}

; Runs tasks of a job until none is left to claim, those of thread t first; then tells who waits that they are done.
define internal void @share(ptr %pool, i64 %t, i32 %job) nounwind {{
entry:
  %threads.at = getelementptr inbounds i8, ptr %pool, i64 8
  %threads = load i64, ptr %threads.at, align 8
  %kernel.at = getelementptr inbounds i8, ptr %pool, i64 192
  %kernel = load atomic ptr, ptr %kernel.at monotonic, align 8
  %args.at = getelementptr inbounds i8, ptr %pool, i64 200
  %args = load atomic ptr, ptr %args.at monotonic, align 8
  %tasks.at = getelementptr inbounds i8, ptr %pool, i64 208
  %tasks = load atomic i64, ptr %tasks.at monotonic, align 8
  %done.at = getelementptr inbounds i8, ptr %pool, i64 128
  %caller.at = getelementptr inbounds i8, ptr %pool, i64 132
  fence acquire
  br label %victim
victim:
  %n = phi i64 [ 0, %entry ], [ %n.next, %empty ]
  %did = phi i64 [ 0, %entry ], [ %did.now, %empty ]
  %more = icmp slt i64 %n, %threads
  br i1 %more, label %whose, label %end
whose:
  %ahead = add i64 %t, %n
  %past = icmp sge i64 %ahead, %threads
  %back = sub i64 %ahead, %threads
  %v = select i1 %past, i64 %back, i64 %ahead
  %v.next = add i64 %v, 1
  %hi.n = mul i64 %tasks, %v.next
  %hi = udiv i64 %hi.n, %threads
  %offset.n = mul i64 %v, 64
  %offset = add i64 %offset.n, 280
  %claim.at = getelementptr inbounds i8, ptr %pool, i64 %offset
  br label %look
look:
  %did.now = phi i64 [ %did, %whose ], [ %did.now, %lost ], [ %did.then, %work ]
  %claim = load atomic i64, ptr %claim.at acquire, align 8
  %tag.long = lshr i64 %claim, 32
  %tag = trunc i64 %tag.long to i32
  %current = icmp eq i32 %tag, %job
  br i1 %current, label %measure, label %end
measure:
  %lo = and i64 %claim, 4294967295
  %left = sub i64 %hi, %lo
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %take, label %empty
take:
  %left.up = add i64 %left, 1
  %part = lshr i64 %left.up, 1
  %claimed = add i64 %claim, %part
  %pair = cmpxchg ptr %claim.at, i64 %claim, i64 %claimed acq_rel acquire, align 8
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %work, label %lost
lost:
  br label %look
work:
  %stop = add i64 %lo, %part
  call void %kernel(ptr %args, i64 %lo, i64 %stop)
  %did.then = add i64 %did.now, %part
  br label %look
empty:
  %n.next = add i64 %n, 1
  br label %victim
end:
  %total = phi i64 [ %did, %victim ], [ %did.now, %look ]
  %idle = icmp eq i64 %total, 0
  br i1 %idle, label %over, label %tell
tell:
  %total.short = trunc i64 %total to i32
  %was = atomicrmw add ptr %done.at, i32 %total.short seq_cst
  %now = add i32 %was, %total.short
  %all = trunc i64 %tasks to i32
  %last = icmp eq i32 %now, %all
  br i1 %last, label %finish, label %over
finish:
  %asleep = load atomic i32, ptr %caller.at seq_cst, align 4
  %sleeping = icmp ne i32 %asleep, 0
  br i1 %sleeping, label %wake, label %over
wake:
  call void @wake(ptr %done.at)
  br label %over
over:
  ret void
}}

define internal ptr @worker(ptr %self) nounwind {{
entry:
  %pool = load ptr, ptr %self, align 8
  %t.at = getelementptr inbounds i8, ptr %self, i64 8
  %t = load i64, ptr %t.at, align 8
  %spins.at = getelementptr inbounds i8, ptr %pool, i64 16
  %spins = load i64, ptr %spins.at, align 8
  %job.at = getelementptr inbounds i8, ptr %pool, i64 64
  %sleepers = getelementptr inbounds i8, ptr %pool, i64 68
  %stop.at = getelementptr inbounds i8, ptr %pool, i64 216
  br label %wait
wait:
  %seen = phi i32 [ 0, %entry ], [ %job, %work ]
  %job = call i32 @await_change(ptr %job.at, i32 %seen, i64 %spins, ptr %sleepers)
  %stop = load i64, ptr %stop.at, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %end, label %work
work:
  call void @share(ptr %pool, i64 %t, i32 %job)
  br label %wait
end:
  ret ptr null
}}

define void @tapeout_pool_run(ptr %pool, ptr %kernel, ptr %args, i64 %tasks) nounwind {{
entry:
  %threads.at = getelementptr inbounds i8, ptr %pool, i64 8
  %threads = load i64, ptr %threads.at, align 8
  %spins.at = getelementptr inbounds i8, ptr %pool, i64 16
  %spins = load i64, ptr %spins.at, align 8
  %job.at = getelementptr inbounds i8, ptr %pool, i64 64
  %sleepers.at = getelementptr inbounds i8, ptr %pool, i64 68
  %done.at = getelementptr inbounds i8, ptr %pool, i64 128
  %caller.at = getelementptr inbounds i8, ptr %pool, i64 132
  %kernel.at = getelementptr inbounds i8, ptr %pool, i64 192
  %args.at = getelementptr inbounds i8, ptr %pool, i64 200
  %tasks.at = getelementptr inbounds i8, ptr %pool, i64 208
  %few = icmp slt i64 %tasks, 2
  %many = icmp sgt i64 %tasks, 2147483647
  %single = icmp slt i64 %threads, 2
  %odd = or i1 %few, %many
  %alone = or i1 %odd, %single
  br i1 %alone, label %serial, label %share
serial:
  call void %kernel(ptr %args, i64 0, i64 %tasks)
  ret void
share:
  %old = load atomic i32, ptr %job.at monotonic, align 4
  %job = add i32 %old, 1
  %job.long = zext i32 %job to i64
  %tag = shl i64 %job.long, 32
  br label %deal
deal:
  %t = phi i64 [ 0, %share ], [ %t.next, %deal ]
  %lo.n = mul i64 %tasks, %t
  %lo = udiv i64 %lo.n, %threads
  %claim = or i64 %tag, %lo
  %offset.n = mul i64 %t, 64
  %offset = add i64 %offset.n, 280
  %claim.at = getelementptr inbounds i8, ptr %pool, i64 %offset
  store atomic i64 %claim, ptr %claim.at monotonic, align 8
  %t.next = add i64 %t, 1
  %rest = icmp slt i64 %t.next, %threads
  br i1 %rest, label %deal, label %call
call:
  ; Who reads any of what follows sees the new claims, and takes nothing on behalf of the job before.
  fence release
  store atomic ptr %kernel, ptr %kernel.at monotonic, align 8
  store atomic ptr %args, ptr %args.at monotonic, align 8
  store atomic i64 %tasks, ptr %tasks.at monotonic, align 8
  store atomic i32 0, ptr %done.at monotonic, align 4
  %before = atomicrmw add ptr %job.at, i32 1 seq_cst
  %sleepers = load atomic i32, ptr %sleepers.at seq_cst, align 4
  %asleep = icmp ne i32 %sleepers, 0
  br i1 %asleep, label %rouse, label %mine
rouse:
  call void @wake(ptr %job.at)
  br label %mine
mine:
  call void @share(ptr %pool, i64 0, i32 %job)
  %all = trunc i64 %tasks to i32
  br label %join
join:
  %now = load atomic i32, ptr %done.at acquire, align 4
  %over = icmp eq i32 %now, %all
  br i1 %over, label %done, label %wait
wait:
  %then = call i32 @await_change(ptr %done.at, i32 %now, i64 %spins, ptr %caller.at)
  br label %join
done:
  ret void
}}

define i64 @tapeout_pool_threads(ptr %pool) nounwind {{
  %threads.at = getelementptr inbounds i8, ptr %pool, i64 8
  %threads = load i64, ptr %threads.at, align 8
  ret i64 %threads
}}

define ptr @tapeout_pool_create(i64 %threads, i64 %spins) nounwind {{
entry:
  %selves = mul i64 %threads, 64
  %bytes = add i64 %selves, 256
  %pool = call ptr @aligned_alloc(i64 64, i64 %bytes)
  %none = icmp eq ptr %pool, null
  br i1 %none, label %fail, label %init
fail:
  ret ptr null
init:
  call void @llvm.memset.p0.i64(ptr align 64 %pool, i8 0, i64 %bytes, i1 false)
  store ptr @tapeout_pool_run, ptr %pool, align 8
  %threads.at = getelementptr inbounds i8, ptr %pool, i64 8
  store i64 %threads, ptr %threads.at, align 8
  %spins.at = getelementptr inbounds i8, ptr %pool, i64 16
  store i64 %spins, ptr %spins.at, align 8
  %attributes = alloca [128 x i8], align 16
  %made = call i32 @pthread_attr_init(ptr %attributes)
  %sized = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 {stack})
  br label %head
head:
  %t = phi i64 [ 1, %init ], [ %next, %started ]
  %more = icmp slt i64 %t, %threads
  br i1 %more, label %start, label %done
start:
  %offset.n = mul i64 %t, 64
  %offset = add i64 %offset.n, 256
  %self = getelementptr inbounds i8, ptr %pool, i64 %offset
  store ptr %pool, ptr %self, align 8
  %t.at = getelementptr inbounds i8, ptr %self, i64 8
  store i64 %t, ptr %t.at, align 8
  %handle = getelementptr inbounds i8, ptr %self, i64 16
  %error = call i32 @pthread_create(ptr %handle, ptr %attributes, ptr @worker, ptr %self)
  %next = add i64 %t, 1
  %bad = icmp ne i32 %error, 0
  br i1 %bad, label %fewer, label %started
started:
  br label %head
fewer:
  store i64 %t, ptr %threads.at, align 8
  br label %done
done:
  ret ptr %pool
}}

define void @tapeout_pool_destroy(ptr %pool) nounwind {{
entry:
  %threads.at = getelementptr inbounds i8, ptr %pool, i64 8
  %threads = load i64, ptr %threads.at, align 8
  %stop.at = getelementptr inbounds i8, ptr %pool, i64 216
  store i64 1, ptr %stop.at, align 8
  %job.at = getelementptr inbounds i8, ptr %pool, i64 64
  %old = atomicrmw add ptr %job.at, i32 1 seq_cst
  call void @wake(ptr %job.at)
  br label %head
head:
  %t = phi i64 [ 1, %entry ], [ %next, %join ]
  %more = icmp slt i64 %t, %threads
  br i1 %more, label %join, label %done
join:
  %offset.n = mul i64 %t, 64
  %offset = add i64 %offset.n, 272
  %handle.at = getelementptr inbounds i8, ptr %pool, i64 %offset
  %handle = load i64, ptr %handle.at, align 8
  %error = call i32 @pthread_join(i64 %handle, ptr null)
  %next = add i64 %t, 1
  br label %head
done:
  call void @free(ptr %pool)
  ret void
}}
"""


def emit_pool(target: Target) -> str:
    """Return the LLVM IR of the thread pool."""
    triple = resolve(target).triple
    arch = triple.partition("-")[0]
    pause = _PAUSE.get(arch, "; nothing tells this processor that we wait")
    futex = _FUTEX.get(arch) if "linux" in triple else None
    sleep = _SLEEP_POLL if futex is None else _SLEEP_FUTEX.format(futex=futex)
    return sleep + "\n" + _POOL.format(pause=pause, stack=_STACK, polite=_POLITE)
