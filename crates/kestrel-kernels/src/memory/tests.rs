//! Tests of the caching allocator, called directly.

use super::*;

/// Allocates, fills with ones, and returns the block.
fn filled(a: &CachingAllocator, layout: Layout) -> *mut u8 {
    // SAFETY: the layouts of these tests are not empty.
    let block = unsafe { a.alloc(layout) };
    assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
    // SAFETY: the block is valid for the layout's size.
    unsafe { block.write_bytes(1, layout.size()) };
    block
}

fn free(a: &CachingAllocator, block: *mut u8, layout: Layout) {
    // SAFETY: the block came from `a` with this layout.
    unsafe { a.dealloc(block, layout) };
}

fn bytes(n: usize) -> Layout {
    Layout::from_size_align(n, 4).unwrap()
}

#[test]
fn a_class_holds_every_size_that_maps_to_it_with_at_most_an_eighth_to_spare() {
    let mut last = 0;
    for size in (LARGE..LARGE * 5)
        .step_by(1021)
        .chain([LARGE, 2 * LARGE, 2 * LARGE - 1, 2 * LARGE + 1, 33_554_432])
    {
        let class = class_of(bytes(size)).unwrap();
        let got = class_size(class);
        assert!(got >= size && got <= size + size / 8 + 1, "{size} {got}");
        last = last.max(class);
    }
    assert!((1..=last).all(|class| class_size(class) > class_size(class - 1)));
    assert_eq!(class_of(bytes(LARGE - 1)), None);
    assert_eq!(class_of(Layout::from_size_align(LARGE, 4096).unwrap()), None);
}

#[test]
fn a_freed_block_is_used_again_and_zeroed_when_asked() {
    let a = CachingAllocator::new();
    let layout = bytes(1 << 20);
    let first = filled(&a, layout);
    free(&a, first, layout);
    assert_eq!((a.live_bytes(), a.cached_bytes()), (0, 1 << 20));
    // SAFETY: the layout is not empty.
    let second = unsafe { a.alloc_zeroed(layout) };
    assert_eq!(first, second);
    // SAFETY: the block is valid for the layout's size and initialised by `alloc_zeroed`.
    let content = unsafe { std::slice::from_raw_parts(second, layout.size()) };
    assert!(content == vec![0; layout.size()]);
    free(&a, second, layout);
    a.release();
    assert_eq!(a.cached_bytes(), 0);
}

#[test]
fn growing_keeps_the_contents_across_classes() {
    let a = CachingAllocator::new();
    let mut size = 1000;
    let mut block = filled(&a, bytes(size));
    for next in [LARGE - 1, LARGE, LARGE + 8, 3 * LARGE, 5000] {
        // SAFETY: the block came from `a` with this layout, and the new size is not 0.
        block = unsafe { a.realloc(block, bytes(size), next) };
        // SAFETY: the first bytes were written before and kept.
        let kept = unsafe { std::slice::from_raw_parts(block, 1000) };
        assert!(kept == [1; 1000], "{size} to {next}");
        size = next;
    }
    free(&a, block, bytes(size));
    a.release();
    assert_eq!(a.live_bytes(), 0);
}

#[test]
fn changing_sizes_do_not_pile_up() {
    let a = CachingAllocator::new();
    let mut total = 0;
    for i in 0..40 {
        let layout = bytes(SLACK / 16 + i * LARGE);
        // SAFETY: the layout is not empty.
        let block = unsafe { a.alloc(layout) };
        free(&a, block, layout);
        let most = class_size(class_of(layout).unwrap());
        total += most;
        assert!(a.cached_bytes() <= most + SLACK, "{} of {most}", a.cached_bytes());
    }
    assert!(total > 3 * SLACK, "too little to prove it");
    a.release();
}

#[test]
fn threads_get_blocks_of_their_own() {
    let a = CachingAllocator::new();
    std::thread::scope(|scope| {
        for mark in 0..4u8 {
            let a = &a;
            scope.spawn(move || {
                let layout = bytes(LARGE + 100);
                for _ in 0..if cfg!(miri) { 5 } else { 200 } {
                    let block = filled(a, layout);
                    // SAFETY: the block is valid for the layout's size.
                    unsafe { block.write_bytes(mark, layout.size()) };
                    // SAFETY: as above, and initialised.
                    let content = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                    assert!(content.iter().step_by(4096).all(|b| *b == mark));
                    free(a, block, layout);
                }
            });
        }
    });
    assert_eq!(a.live_bytes(), 0);
    a.release();
}

#[test]
fn work_of_many_sizes_comes_to_rest() {
    let a = CachingAllocator::new();
    // The largest block sets what was ever in use; the others add up to more than the slack beyond it.
    let sizes: Vec<Layout> = (0..12).map(|i| bytes((40 << 20) - i * (3 << 20))).collect();
    let round = || {
        for &layout in &sizes {
            // SAFETY: the layouts are not empty.
            let block = unsafe { a.alloc(layout) };
            assert!(!block.is_null());
            free(&a, block, layout);
        }
        a.cached_bytes()
    };
    let rounds: Vec<usize> = (0..8).map(|_| round()).collect();
    let most = SLACK + a.peak.load(Relaxed);
    assert!(rounds.iter().all(|&cached| cached <= most), "{rounds:?}");

    // A peak as large as all of them together: then all are kept.
    let peak = bytes(512 << 20);
    // SAFETY: the layout is not empty.
    let block = unsafe { a.alloc(peak) };
    free(&a, block, peak);
    a.release();
    let rounds: Vec<usize> = (0..8).map(|_| round()).collect();
    assert_eq!(rounds[6], rounds[7]);
    let classes: std::collections::BTreeSet<usize> = sizes.iter().filter_map(|&layout| class_of(layout)).collect();
    let all: usize = classes.into_iter().map(class_size).sum();
    assert_eq!(rounds[7], all);
    a.release();
}
