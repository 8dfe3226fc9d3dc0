//! The `log-dump` binary: `riverrun log` alone, small enough to copy to a machine that has only the
//! files.

fn main() -> std::process::ExitCode {
    riverrun_tools::run_log_dump(std::env::args_os())
}
