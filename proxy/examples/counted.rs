//! The sidecar, with an allocator that counts: `tests/cost.rs` learns from it what a request costs. When it ends it
//! says on stderr how often the threads that carry traffic asked for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Configuration, certificates and logs have the main thread; they come when they come.
    static COUNTS: Cell<bool> = const { Cell::new(true) };
}

#[expect(unsafe_code, reason = "an allocator is; it passes everything on")]
// SAFETY: the system's allocator does the work, with the arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    if COUNTS.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    COUNTS.set(false);
    let code = gauze_proxy::command(std::env::args_os());
    eprintln!("allocations: {}", ALLOCATIONS.load(Ordering::Relaxed));
    code
}
