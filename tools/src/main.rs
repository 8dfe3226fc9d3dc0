//! The `riverrun` binary: everything it does is in the library of this package.

/// Reserves lazily and returns memory soon, so an allocation that should have been refused fails
/// cleanly instead of ending the process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    riverrun_tools::run(std::env::args_os())
}
