//! What every fuzz target does with its input.
#![forbid(unsafe_code)]

use peak_alloc::PeakAlloc;
use riverrun_hostile::TARGETS;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Gives bytes to a target, and holds it to its memory.
///
/// # Panics
/// If the decoder does, or takes more memory than it may: either is a finding.
pub fn check(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("no target {name}"));
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    (target.run)(bytes);
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    let allowed = target.allowed_bytes(bytes);
    assert!(peak <= allowed, "{peak} bytes held, {allowed} allowed");
}
